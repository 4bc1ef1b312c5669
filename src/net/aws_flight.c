/* SPDX-License-Identifier: MIT */
/* aws_flight.c - several calls at once; see aws_flight.h. */
#include "aws_flight.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "aws_client.h"

struct perf__aws_flight {
    pthread_mutex_t mutex;
    pthread_cond_t over; /* one of them */
    size_t under_way;
};

/* What is said of a failure is said to this thread. */
static void note_failure(struct perf__aws_flown *r)
{
    snprintf(r->why, sizeof r->why, "%s", perf_last_error());
    snprintf(r->code, sizeof r->code, "%s", perf_aws_error_code());
    r->attempts = perf__aws_error_attempts();
}

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    struct perf__aws_flown *r = ctx;
    struct perf__aws_flight *f = r->flight;
    pthread_mutex_lock(&f->mutex);
    r->rc = status;
    r->reply = reply;
    if (status)
        note_failure(r);
    f->under_way--;
    pthread_cond_signal(&f->over);
    pthread_mutex_unlock(&f->mutex);
}

/* Waits until fewer than limit are under way. With the mutex. */
static void wait_for_fewer(struct perf__aws_flight *f, size_t limit)
{
    while (f->under_way >= limit)
        perf__cond_wait(&f->over, &f->mutex, 0); /* each ends within its own time */
}

static int too_late(void)
{
    return perf__fail(PERF_ETIMEDOUT, "the time was over before all requests were sent");
}

static void start(perf_aws *aws, struct perf__aws_flown *r, size_t at_once, int64_t deadline_ns)
{
    struct perf__aws_flight *f = r->flight;
    perf_aws_request request = PERF_AWS_REQUEST_INIT;
    request.operation = r->operation;
    request.body = (perf_bytes){r->body.data, r->body.len};
    request.done = on_done;
    request.done_ctx = r;
    pthread_mutex_lock(&f->mutex);
    wait_for_fewer(f, at_once);
    f->under_way++;
    pthread_mutex_unlock(&f->mutex);
    request.timeout_ms = perf__deadline_left(deadline_ns);
    int rc = request.timeout_ms ? perf_aws_start(aws, &request, NULL) : too_late();
    if (rc)
        on_done(r, rc, NULL);
}

int perf__aws_fly(perf_aws *aws, struct perf__aws_flown *requests, size_t count, size_t at_once,
                  int64_t deadline_ns)
{
    struct perf__aws_flight flight = {.under_way = 0};
    for (size_t i = 0; i < count; i++)
        if (requests[i].body.failed)
            return perf__fail_nomem("a request to AWS");
    if (count == 1) { /* no need for other threads */
        struct perf__aws_flown *r = requests;
        int64_t left = perf__deadline_left(deadline_ns);
        r->rc = left ? perf_aws_call(aws, r->operation, r->body.data, r->body.len, left, &r->reply)
                     : too_late();
        if (r->rc)
            note_failure(r);
        return PERF_OK;
    }
    int rc = perf__locks_init(&flight.mutex, &flight.over, "requests to AWS");
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        requests[i].flight = &flight;
        start(aws, &requests[i], at_once, deadline_ns);
    }
    pthread_mutex_lock(&flight.mutex);
    wait_for_fewer(&flight, 1);
    pthread_mutex_unlock(&flight.mutex);
    pthread_cond_destroy(&flight.over);
    pthread_mutex_destroy(&flight.mutex);
    return PERF_OK;
}

void perf__aws_flown_free(const perf_allocator *a, struct perf__aws_flown *requests, size_t count)
{
    for (size_t i = 0; requests && i < count; i++) {
        perf_aws_reply_release(requests[i].reply);
        perf__text_free(&requests[i].body);
    }
    perf__free(a, requests);
}
