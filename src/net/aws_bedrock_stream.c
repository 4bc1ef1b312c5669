/* SPDX-License-Identifier: MIT */
/*
 * aws_bedrock_stream.c - Bedrock's events for those who ask for them.
 *
 * The I/O thread hears and queues; who asks takes one at a time. The queue is
 * bounded in bytes, for the wire cannot be made to wait. The descriptor counts
 * nothing: it is readable exactly while there is an event or the end. The mutex
 * guards the queue and the end; the ear is the I/O thread's until the end.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "aws_bedrock.h"

struct event {
    struct event *next;
    size_t type_len, len;
    char text[]; /* type, zero, JSON, zero */
};

struct perf_bedrock_stream {
    perf_aws *aws;
    perf_allocator allocator;
    uint64_t generation;
    char *body;
    uint64_t max_bytes;
    struct perf__bedrock_ear ear;
    perf_aws_operation *operation;
    struct event *now; /* what was handed out; who asks */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct event *first, *last;
    uint64_t bytes;
    bool over;
    int status;
    struct perf__aws_error error;
    char why[512];
    int fd; /* -1: nobody wants one */
};

/* Makes the descriptor tell what is so. With the mutex. */
static void show(perf_bedrock_stream *s)
{
    uint64_t value = 1;
    if (s->fd < 0)
        return;
    ssize_t n = s->first || s->over ? write(s->fd, &value, sizeof value)
                                    : read(s->fd, &value, sizeof value);
    (void)n; /* it is so already */
}

static int on_event(void *ctx, const char *type, const void *json, size_t len)
{
    perf_bedrock_stream *s = ctx;
    size_t type_len = strlen(type);
    struct event *e = perf__alloc(&s->allocator, sizeof *e + type_len + len + 2);
    int rc = PERF_OK;
    if (!e)
        return perf__fail_nomem("an event of Bedrock");
    e->next = NULL;
    e->type_len = type_len;
    e->len = len;
    memcpy(e->text, type, type_len + 1);
    memcpy(e->text + type_len + 1, json, len);
    e->text[type_len + 1 + len] = 0;
    pthread_mutex_lock(&s->mutex);
    if (s->bytes + type_len + len > s->max_bytes) {
        rc = perf__fail(PERF_ETOOBIG,
                        "more than %llu bytes of events wait; ask for them sooner, or "
                        "give a larger max_queue_bytes",
                        (unsigned long long)s->max_bytes);
    } else {
        s->bytes += type_len + len;
        *(s->last ? &s->last->next : &s->first) = e;
        s->last = e;
        show(s);
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    if (rc)
        perf__free(&s->allocator, e);
    return rc;
}

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    perf_bedrock_stream *s = ctx;
    int rc = perf__bedrock_ear_end(&s->ear, status);
    perf_aws_reply_release(reply);
    pthread_mutex_lock(&s->mutex);
    s->status = rc ? rc : PERF_MISS;
    if (rc) {
        snprintf(s->why, sizeof s->why, "%s", perf_last_error());
        snprintf(s->error.code, sizeof s->error.code, "%s", perf_aws_error_code());
        snprintf(s->error.request_id, sizeof s->error.request_id, "%s",
                 perf_aws_error_request_id());
        s->error.status = perf_aws_error_status();
    }
    s->over = true;
    show(s);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

static void free_stream(perf_bedrock_stream *s)
{
    perf_allocator allocator = s->allocator;
    while (s->first) {
        struct event *next = s->first->next;
        perf__free(&allocator, s->first);
        s->first = next;
    }
    perf__free(&allocator, s->now);
    perf__bedrock_ear_close(&s->ear);
    if (s->fd >= 0)
        close(s->fd);
    perf__free(&allocator, s->body);
    perf__free(&allocator, s);
}

int perf_bedrock_stream_open(perf_aws *bedrock, int64_t kind, const char *model_id,
                             const void *body, size_t len, const perf_bedrock_options *options,
                             perf_bedrock_stream **out)
{
    struct perf__bedrock_call c;
    bool has_mutex = false, has_cond = false;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_bedrock_stream_open needs a place for the stream");
    int rc = perf__bedrock_begin(&c, bedrock, kind, true, model_id, body, len, options);
    if (rc)
        return rc;
    perf_bedrock_stream *s = perf__calloc(&bedrock->host.allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a stream of Bedrock");
    s->aws = bedrock;
    s->allocator = bedrock->host.allocator;
    s->generation = perf__fork_generation;
    s->fd = -1;
    s->max_bytes = c.options.max_queue_bytes ? c.options.max_queue_bytes : 64 << 20;
    s->body = perf__strndup(&s->allocator, len ? body : "", len);
    has_mutex = !pthread_mutex_init(&s->mutex, NULL);
    has_cond = has_mutex && !perf__cond_init(&s->changed);
    if (!s->body || !has_cond)
        rc = perf__fail_nomem("a stream of Bedrock");
    if (!rc)
        rc = perf__bedrock_ear_open(&s->ear, bedrock, kind, on_event, s);
    if (!rc) {
        c.request.body.data = s->body;
        c.request.write = perf__bedrock_ear_hear;
        c.request.write_ctx = &s->ear;
        c.request.done = on_done;
        c.request.done_ctx = s;
        rc = perf_aws_start(bedrock, &c.request, &s->operation);
    }
    if (!rc) {
        *out = s;
        return PERF_OK;
    }
    if (has_cond)
        pthread_cond_destroy(&s->changed);
    if (has_mutex)
        pthread_mutex_destroy(&s->mutex);
    free_stream(s);
    return rc;
}

int perf_bedrock_stream_next(perf_bedrock_stream *s, int64_t timeout_ms, const char **type,
                             const void **json, size_t *len)
{
    if (!s || !type || !json || !len)
        return perf__fail(PERF_EINVAL, "perf_bedrock_stream_next needs a stream and places for the "
                                       "event");
    if (s->generation != perf__fork_generation)
        return perf__fail_forked();
    int64_t until = timeout_ms < 0 ? 0 : perf__deadline_after(timeout_ms);
    perf__free(&s->allocator, s->now);
    s->now = NULL;
    pthread_mutex_lock(&s->mutex);
    while (!s->first && !s->over && timeout_ms != 0 &&
           perf__cond_wait(&s->changed, &s->mutex, until))
        ;
    struct event *e = s->first;
    int rc = e ? PERF_OK : s->over ? s->status : PERF_EBUSY;
    if (e) {
        s->first = e->next;
        if (!s->first)
            s->last = NULL;
        s->bytes -= e->type_len + e->len;
        show(s);
    }
    pthread_mutex_unlock(&s->mutex);
    if (e) {
        s->now = e;
        *type = e->text;
        *json = e->text + e->type_len + 1;
        *len = e->len;
    } else if (rc == PERF_EBUSY) {
        rc = perf__fail(rc, "the model has not said more yet");
    } else if (rc != PERF_MISS) {
        perf__aws_error_remember(&s->error);
        rc = perf__fail(rc, "%s", s->why);
    }
    return rc;
}

int perf_bedrock_stream_fd(perf_bedrock_stream *s, int *out)
{
    int rc = PERF_OK;
    if (!s || !out)
        return perf__fail(PERF_EINVAL, "perf_bedrock_stream_fd needs a stream and a place for the "
                                       "descriptor");
    if (s->generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&s->mutex);
    if (s->fd < 0) {
        s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->fd < 0)
            rc = perf__fail(PERF_EIO, "no descriptor for events; allow more open files");
        show(s);
    }
    if (!rc)
        *out = s->fd;
    pthread_mutex_unlock(&s->mutex);
    return rc;
}

void perf_bedrock_stream_close(perf_bedrock_stream *s)
{
    if (!s || s->generation != perf__fork_generation)
        return; /* in a forked child the other threads of it are not there to end it */
    perf_aws_operation_cancel(s->operation);
    pthread_mutex_lock(&s->mutex);
    while (!s->over)
        perf__cond_wait(&s->changed, &s->mutex, 0);
    pthread_mutex_unlock(&s->mutex);
    perf_aws_operation_release(s->operation);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    free_stream(s);
}
