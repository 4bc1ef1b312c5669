/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_call.c - the calls of the DynamoDB backend: within their time, counted,
 * and failing with a sentence that helps.
 *
 * Requests that do not depend on each other go out together, a few at a time: one
 * after the other they would take longer than a commit has. They end in callbacks
 * on the client's threads, which only write down what happened. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "dynamodb.h"

enum {
    UNDER_WAY = 8,        /* of one flight, at any time */
    LEAST_REFUSED = 1000, /* a refused condition consumes, too, and does not say how much */
};

struct dynamodb_flight {
    pthread_mutex_t mutex;
    pthread_cond_t over; /* one of them */
    size_t under_way;
};

int64_t perf__dynamodb_left(int64_t deadline_ns)
{
    int64_t left = deadline_ns - perf__deadline_after(1) + 1000000;
    return left > 0 ? left / 1000000 : 0;
}

int perf__dynamodb_too_late(const struct dynamodb_store *s)
{
    return perf__fail(PERF_ETIMEDOUT,
                      "dynamodb tier %.255s: not done within timeout_ms (%lld); give it more time",
                      s->table, (long long)s->timeout_ms);
}

void perf__dynamodb_count(struct dynamodb_store *s, int units, uint64_t thousandths)
{
    atomic_fetch_add_explicit(units == DYNAMODB_READS ? &s->read_units : &s->write_units,
                              thousandths, memory_order_relaxed);
}

void perf__dynamodb_begin(struct perf__text *t, const struct dynamodb_store *s)
{
    perf__text_puts(t, "{\"TableName\":\"");
    perf__text_puts(t, s->table);
    perf__text_puts(t, "\",\"ReturnConsumedCapacity\":\"TOTAL\"");
}

/* ------------------------------------------------------------------ results */

/* code: AWS's own, of the call that failed with rc; its sentence is this thread's. */
static int failed(const struct dynamodb_store *s, int rc, const char *code)
{
    if (rc == PERF_EREMOTE && !strcmp(code, "ResourceNotFoundException"))
        return perf__fail(rc,
                          "dynamodb tier: there is no table %.255s in %s at %.200s; create it with "
                          "perf_aws_tables_ensure(), or name another in perf_tier_options.location "
                          "or CACHE_TABLE_NAME",
                          s->table, perf_aws_region(s->aws), perf_aws_endpoint(s->aws));
    /* Somebody's transaction has the item: for another time, and not an answer. */
    if (rc == PERF_ECONFLICT && strcmp(code, "ConditionalCheckFailedException") != 0) {
        char why[320];
        snprintf(why, sizeof why, "%s", perf_last_error());
        return perf__fail(PERF_EUNAVAILABLE, "%s", why);
    }
    return rc;
}

int perf__dynamodb_failed(const struct dynamodb_store *s, int rc)
{
    return failed(s, rc, perf_aws_error_code());
}

/* What became of a call: the reply is checked, and what it consumed counted. */
static int judge(struct dynamodb_store *s, int rc, const char *code, int units,
                 perf_aws_reply **reply, struct perf__json *all)
{
    struct perf__json capacity, each, number;
    size_t at = 0;
    if (rc)
        rc = failed(s, rc, code);
    if (rc == PERF_ECONFLICT)
        perf__dynamodb_count(s, units, LEAST_REFUSED);
    if (rc)
        return rc;
    rc = perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(*reply),
                          perf_aws_reply_size(*reply), '{', all);
    if (rc) {
        perf_aws_reply_release(*reply);
        *reply = NULL;
        return rc;
    }
    if (!perf__json_find(*all, "ConsumedCapacity", 0, &capacity))
        return PERF_OK;
    if (perf__json_find(capacity, "CapacityUnits", 0, &number))
        perf__dynamodb_count(s, units, (uint64_t)perf__json_thousandths(number));
    while (capacity.at[0] == '[' && perf__json_next(capacity, &at, NULL, &each)) /* of a batch */
        if (perf__json_find(each, "CapacityUnits", 0, &number))
            perf__dynamodb_count(s, units, (uint64_t)perf__json_thousandths(number));
    return PERF_OK;
}

/* ---------------------------------------------------------------------- one */

int perf__dynamodb_call(struct dynamodb_store *s, const char *operation, struct perf__text *body,
                        int units, int64_t deadline_ns, perf_aws_reply **out,
                        struct perf__json *all)
{
    int64_t left = perf__dynamodb_left(deadline_ns);
    int rc = PERF_OK;
    *out = NULL;
    if (body->failed)
        rc = perf__fail_nomem("a request to DynamoDB");
    else if (!left)
        rc = perf__dynamodb_too_late(s);
    else
        rc = judge(s, perf_aws_call(s->aws, operation, body->data, body->len, left, out),
                   perf_aws_error_code(), units, out, all);
    perf__text_free(body);
    return rc;
}

/* --------------------------------------------------------------------- many */

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    struct dynamodb_request *r = ctx;
    struct dynamodb_flight *f = r->flight;
    pthread_mutex_lock(&f->mutex);
    r->rc = status;
    r->reply = reply;
    if (status) { /* what is said of it is said to this thread */
        snprintf(r->why, sizeof r->why, "%s", perf_last_error());
        snprintf(r->code, sizeof r->code, "%s", perf_aws_error_code());
    }
    f->under_way--;
    pthread_cond_signal(&f->over);
    pthread_mutex_unlock(&f->mutex);
}

/* Waits until fewer than limit are under way. With the mutex. */
static void wait_for_fewer(struct dynamodb_flight *f, size_t limit)
{
    while (f->under_way >= limit)
        perf__cond_wait(&f->over, &f->mutex, 0); /* each ends within its own time */
}

static void start(struct dynamodb_store *s, const char *operation, struct dynamodb_request *r,
                  int64_t deadline_ns)
{
    struct dynamodb_flight *f = r->flight;
    perf_aws_request request = PERF_AWS_REQUEST_INIT;
    request.operation = operation;
    request.body = (perf_bytes){r->body.data, r->body.len};
    request.done = on_done;
    request.done_ctx = r;
    pthread_mutex_lock(&f->mutex);
    wait_for_fewer(f, UNDER_WAY);
    f->under_way++;
    pthread_mutex_unlock(&f->mutex);
    request.timeout_ms = perf__dynamodb_left(deadline_ns);
    int rc =
        request.timeout_ms ? perf_aws_start(s->aws, &request, NULL) : perf__dynamodb_too_late(s);
    if (rc)
        on_done(r, rc, NULL);
}

int perf__dynamodb_call_all(struct dynamodb_store *s, const char *operation,
                            struct dynamodb_request *requests, size_t count, int units,
                            int64_t deadline_ns)
{
    struct dynamodb_flight flight = {.under_way = 0};
    const struct dynamodb_request *first = NULL; /* that failed */
    for (size_t i = 0; i < count; i++)
        if (requests[i].body.failed)
            return perf__fail_nomem("a request to DynamoDB");
    if (count == 1) { /* no need for other threads */
        struct dynamodb_request *r = requests;
        r->rc = perf__dynamodb_call(s, operation, &r->body, units, deadline_ns, &r->reply, &r->all);
        return r->rc == PERF_ECONFLICT ? PERF_OK : r->rc;
    }
    int rc = perf__locks_init(&flight.mutex, &flight.over, "requests to DynamoDB");
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        requests[i].flight = &flight;
        start(s, operation, &requests[i], deadline_ns);
    }
    pthread_mutex_lock(&flight.mutex);
    wait_for_fewer(&flight, 1);
    pthread_mutex_unlock(&flight.mutex);
    pthread_cond_destroy(&flight.over);
    pthread_mutex_destroy(&flight.mutex);
    for (size_t i = 0; i < count; i++) {
        struct dynamodb_request *r = &requests[i];
        if (r->rc)
            perf__fail(r->rc, "%s", r->why);
        r->rc = judge(s, r->rc, r->code, units, &r->reply, &r->all);
        if (r->rc && r->rc != PERF_ECONFLICT) {
            snprintf(r->why, sizeof r->why, "%s", perf_last_error());
            first = first ? first : r;
        }
    }
    return first ? perf__fail(first->rc, "%s", first->why) : PERF_OK;
}

void perf__dynamodb_requests_free(const perf_allocator *a, struct dynamodb_request *requests,
                                  size_t count)
{
    for (size_t i = 0; requests && i < count; i++) {
        perf_aws_reply_release(requests[i].reply);
        perf__text_free(&requests[i].body);
    }
    perf__free(a, requests);
}
