/* SPDX-License-Identifier: MIT */
/*
 * aws_async.c - calls that nobody waits for.
 *
 * An operation goes from its starter to the HTTP client's I/O thread, which tells
 * what became of an attempt, and from there to its end or to the client's own
 * thread, which pauses and tries again; that thread also finds keys, for that may
 * wait. It starts when first needed. An operation is in one hand at a time; the
 * mutex guards the lists, its stage and its references.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "aws_client.h"

enum { STAGE_SENT, STAGE_DUE, STAGE_OVER };

struct perf_aws_operation {
    struct perf__aws_call call; /* first: the HTTP client's context */
    perf_aws *aws;
    perf_aws_request request; /* its strings are in text */
    perf_http_header *headers;
    char *text;

    /* Mutex. */
    perf_aws_operation *prev_all, *next_all, *next; /* next: in due or done */
    int stage, refs;
    bool has_handle, cancelled, fetched, listed;
    int64_t due_ns; /* the system's clock */
    perf_http_call *http;

    int status;
    perf_aws_reply *reply;
    struct perf__aws_error error;
    char why[512];
};

static int64_t system_ns(void)
{
    return perf__now_ns(&perf__default_clock);
}

/* ------------------------------------------------------------ life and copy */

static const char *keep(char **at, const char *text)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

static size_t size_of(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* Strings and headers of given, in one block of the operation's. */
static int copy_request(perf_aws_operation *op, const perf_aws_request *given)
{
    size_t size = size_of(given->operation) + size_of(given->method) + size_of(given->path) +
                  size_of(given->query) + size_of(given->host_prefix) +
                  size_of(given->payload_hash);
    for (size_t i = 0; i < given->header_count; i++) {
        size += size_of(given->headers[i].name) + size_of(given->headers[i].value);
    }
    size_t heads = given->header_count * sizeof(perf_http_header);
    char *block = perf__alloc(&op->aws->host.allocator, heads + size + 1);
    if (!block)
        return perf__fail_nomem("a request to a service");
    char *at = block + heads;
    op->text = block;
    op->headers = (perf_http_header *)(void *)block;
    op->request = *given;
    op->request.operation = keep(&at, given->operation);
    op->request.method = keep(&at, given->method);
    op->request.path = keep(&at, given->path);
    op->request.query = keep(&at, given->query);
    op->request.host_prefix = keep(&at, given->host_prefix);
    op->request.payload_hash = keep(&at, given->payload_hash);
    for (size_t i = 0; i < given->header_count; i++) {
        op->headers[i].name = keep(&at, given->headers[i].name);
        op->headers[i].value = keep(&at, given->headers[i].value);
    }
    op->request.headers = op->headers;
    return PERF_OK;
}

/* With the mutex, which it gives back. */
static void unref_and_unlock(perf_aws_operation *op)
{
    perf_allocator allocator = op->aws->host.allocator;
    bool last = --op->refs == 0;
    pthread_mutex_unlock(&op->aws->mutex); /* the client may be gone from here on */
    if (!last)
        return;
    perf_aws_reply_release(op->reply);
    perf__free(&allocator, op->text);
    perf__free(&allocator, op);
}

static void take_out(perf_aws_operation **head, perf_aws_operation **tail, perf_aws_operation *op)
{
    perf_aws_operation *before = NULL;
    for (perf_aws_operation *o = *head; o; before = o, o = o->next) {
        if (o != op)
            continue;
        *(before ? &before->next : head) = o->next;
        if (tail && *tail == o)
            *tail = before;
        return;
    }
}

/* ---------------------------------------------------------------------- end */

static void finish(perf_aws_operation *op, int status, perf_aws_reply *reply)
{
    perf_aws *aws = op->aws;
    if (status) {
        strncpy(op->why, perf_last_error(), sizeof op->why - 1);
        op->error = op->call.error;
    }
    if (op->request.done) {
        op->request.done(op->request.done_ctx, status, reply);
        reply = NULL;
    }
    perf_aws_keys_release(op->call.keys);
    op->call.keys = NULL;

    pthread_mutex_lock(&aws->mutex);
    perf_http_call *http = op->http;
    op->http = NULL;
    op->stage = STAGE_OVER;
    op->status = status;
    op->reply = reply;
    *(op->prev_all ? &op->prev_all->next_all : &aws->all) = op->next_all;
    if (op->next_all)
        op->next_all->prev_all = op->prev_all;
    if (!op->request.done && op->has_handle) {
        op->next = NULL;
        *(aws->done_tail ? &aws->done_tail->next : &aws->done) = op;
        aws->done_tail = op;
        op->listed = true;
        uint64_t one = 1;
        if (aws->done_fd >= 0 && write(aws->done_fd, &one, sizeof one) < 0)
            op->listed = true; /* full: it is readable already */
    }
    pthread_mutex_unlock(&aws->mutex);
    perf_http_call_release(http);
    perf__aws_end(&op->call); /* from here on the client may be closed, but for our reference */

    pthread_mutex_lock(&aws->mutex);
    aws->operations--;
    pthread_cond_broadcast(&aws->changed);
    if (atomic_load(&aws->closing)) /* else its thread has nothing to learn from this */
        pthread_cond_signal(&aws->work);
    unref_and_unlock(op);
}

/* ----------------------------------------------------------------- attempts */

static void *thread_main(void *argument);

/* The client's thread goes on with it in delay_ms. */
static void postpone(perf_aws_operation *op, int64_t delay_ms)
{
    perf_aws *aws = op->aws;
    int rc = PERF_OK;
    pthread_mutex_lock(&aws->mutex);
    if (!aws->thread_runs)
        aws->thread_runs = !perf__thread_start(&aws->thread, "perf-aws", thread_main, aws);
    if (aws->thread_runs) {
        op->stage = STAGE_DUE;
        op->due_ns = system_ns() + (delay_ms > 0 ? delay_ms * 1000000 : 0);
        op->next = aws->due;
        aws->due = op;
        pthread_cond_signal(&aws->work);
    } else {
        rc = perf__fail(PERF_ENOMEM, "no thread could be started for the client; allow more");
    }
    pthread_mutex_unlock(&aws->mutex);
    if (rc)
        finish(op, perf__aws_give_up(&op->call, rc), NULL);
}

/* What an operation is told that shall not go on. */
static int fail_stopped(perf_aws *aws)
{
    return atomic_load(&aws->closing) ? perf__fail(PERF_ECLOSED, "the client is being closed")
                                      : perf__fail(PERF_ECANCELED, "the call was cancelled");
}

static void on_http_done(void *ctx, int status, perf_http_reply *reply)
{
    perf_aws_operation *op = ctx;
    perf_aws_reply *answer = NULL;
    bool again;
    int64_t delay_ms;
    if (status == PERF_ECANCELED)
        status = fail_stopped(op->aws);
    int rc = perf__aws_judge(&op->call, status, reply, &again, &delay_ms, &answer);
    if (again)
        postpone(op, delay_ms);
    else
        finish(op, rc, answer);
}

/* may_wait: for keys. Takes op's reference along. */
static void send_attempt(perf_aws_operation *op, bool may_wait)
{
    perf_aws *aws = op->aws;
    struct perf__aws_call *c = &op->call;
    int64_t wait_ms = 0;
    int rc = perf__aws_admit(c, &wait_ms);
    if (!rc && wait_ms > 0) {
        op->call.admitted = true;
        postpone(op, wait_ms);
        return;
    }
    if (!rc && !(op->request.flags & PERF_AWS_ANONYMOUS)) {
        perf_aws_keys_release(c->keys);
        c->keys = NULL;
        int64_t wanted = 0, left = perf__aws_left_of_call(c);
        if (may_wait)
            rc = perf_aws_credentials_get(aws->credentials, left > 0 ? left : 1, &c->keys);
        else
            rc = perf_aws_credentials_peek(aws->credentials, &c->keys, &wanted);
        if (!may_wait && (rc == PERF_MISS || wanted)) {
            op->call.admitted = true;
            postpone(op, 0);
            return;
        }
    }
    if (!rc)
        rc = perf__aws_attempt(c);
    if (!rc) {
        c->http.done = on_http_done;
        c->http.done_ctx = op;
        pthread_mutex_lock(&aws->mutex);
        op->stage = STAGE_SENT;
        perf_http_call *before = op->http;
        op->http = NULL;
        bool stop = op->cancelled || atomic_load(&aws->closing);
        op->refs++; /* the I/O thread may end it while we look at it */
        pthread_mutex_unlock(&aws->mutex);
        perf_http_call_release(before);
        perf_http_call *http = NULL;
        rc = stop ? fail_stopped(aws) : perf_http_start(aws->http, &c->http, &http);
        bool failed = rc;
        pthread_mutex_lock(&aws->mutex);
        if (!failed && op->stage == STAGE_SENT && !op->http) {
            op->http = http;
            http = NULL;
            if (op->cancelled || atomic_load(&aws->closing))
                perf_http_call_cancel(op->http);
        }
        unref_and_unlock(op);
        perf_http_call_release(http);
        if (!failed)
            return;
    }
    finish(op, perf__aws_give_up(c, rc), NULL);
}

/* The next operation whose time has come, or NULL and until when to sleep. With the mutex. */
static perf_aws_operation *next_due(perf_aws *aws, int64_t *until_ns)
{
    int64_t now = system_ns();
    *until_ns = 0;
    for (perf_aws_operation *op = aws->due; op; op = op->next) {
        if (op->due_ns <= now || op->cancelled || atomic_load(&aws->closing))
            return op;
        if (!*until_ns || op->due_ns < *until_ns)
            *until_ns = op->due_ns;
    }
    return NULL;
}

static void *thread_main(void *argument)
{
    perf_aws *aws = argument;
    pthread_mutex_lock(&aws->mutex);
    while (!atomic_load(&aws->closing) || aws->operations) {
        int64_t until;
        perf_aws_operation *op = next_due(aws, &until);
        if (!op) {
            perf__cond_wait(&aws->work, &aws->mutex, until);
            continue;
        }
        take_out(&aws->due, NULL, op);
        op->stage = STAGE_SENT;
        bool stop = op->cancelled || atomic_load(&aws->closing);
        pthread_mutex_unlock(&aws->mutex);
        if (stop)
            finish(op, perf__aws_give_up(&op->call, fail_stopped(aws)), NULL);
        else
            send_attempt(op, true);
        pthread_mutex_lock(&aws->mutex);
    }
    pthread_mutex_unlock(&aws->mutex);
    return NULL;
}

void perf__aws_stop_async(perf_aws *aws)
{
    pthread_mutex_lock(&aws->mutex);
    for (perf_aws_operation *op = aws->all; op; op = op->next_all) {
        op->cancelled = true;
        if (op->http)
            perf_http_call_cancel(op->http);
    }
    pthread_cond_signal(&aws->work);
    while (aws->operations)
        perf__cond_wait(&aws->changed, &aws->mutex, 0);
    bool runs = aws->thread_runs;
    pthread_cond_signal(&aws->work);
    pthread_mutex_unlock(&aws->mutex);
    if (runs)
        pthread_join(aws->thread, NULL);
    if (aws->done_fd >= 0)
        close(aws->done_fd);
    aws->done_fd = -1;
}

/* ------------------------------------------------------------------- public */

int perf_aws_start(perf_aws *aws, const perf_aws_request *request, perf_aws_operation **out)
{
    perf_aws_request own;
    if (!aws || !request)
        return perf__fail(PERF_EINVAL, "perf_aws_start needs a client and a request");
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    int rc = perf__aws_check_request(aws, request, &own);
    if (rc)
        return rc;
    if (!own.done && !out)
        return perf__fail(PERF_EINVAL, "perf_aws_request.done and the place for the operation are "
                                       "both NULL; give one, or nobody learns how it ended");
    perf_aws_operation *op = perf__calloc(&aws->host.allocator, 1, sizeof *op);
    if (!op)
        return perf__fail_nomem("a call");
    op->aws = aws;
    op->refs = out ? 2 : 1;
    op->has_handle = out;
    rc = copy_request(op, &own);
    if (!rc)
        rc = perf__aws_begin(&op->call, aws, &op->request);
    if (rc) {
        perf__free(&aws->host.allocator, op->text);
        perf__free(&aws->host.allocator, op);
        return rc;
    }
    pthread_mutex_lock(&aws->mutex);
    bool closing = atomic_load(&aws->closing);
    if (!closing) {
        aws->operations++;
        aws->handles += op->has_handle;
        op->next_all = aws->all;
        if (aws->all)
            aws->all->prev_all = op;
        aws->all = op;
    }
    pthread_mutex_unlock(&aws->mutex);
    if (closing) {
        perf__aws_give_up(&op->call, PERF_ECLOSED);
        perf__aws_end(&op->call);
        perf__free(&aws->host.allocator, op->text);
        perf__free(&aws->host.allocator, op);
        return perf__fail(PERF_ECLOSED, "the client is being closed");
    }
    if (out)
        *out = op;
    send_attempt(op, false);
    return PERF_OK;
}

/* Not to be asked for again by perf_aws_next_done. With the mutex. */
static void unlist(perf_aws_operation *op)
{
    perf_aws *aws = op->aws;
    if (!op->listed)
        return;
    op->listed = false;
    take_out(&aws->done, &aws->done_tail, op);
    uint64_t count;
    if (!aws->done && aws->done_fd >= 0 && read(aws->done_fd, &count, sizeof count) < 0)
        return; /* it was read already */
}

int perf_aws_operation_wait(perf_aws_operation *op, int64_t timeout_ms, perf_aws_reply **out)
{
    if (!op || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_operation_wait needs an operation and a place for "
                                       "the reply");
    perf_aws *aws = op->aws;
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (op->request.done)
        return perf__fail(PERF_EINVAL, "this operation answers by its callback");
    int64_t until = timeout_ms < 0 ? 0 : perf__deadline_after(timeout_ms);
    int rc = PERF_OK;
    pthread_mutex_lock(&aws->mutex);
    while (op->stage != STAGE_OVER && timeout_ms != 0 &&
           perf__cond_wait(&aws->changed, &aws->mutex, until))
        ;
    if (op->stage != STAGE_OVER) {
        rc = perf__fail(PERF_EBUSY, "the call is not over yet");
    } else if (op->fetched) {
        rc = perf__fail(PERF_EINVAL, "the answer of this operation was fetched already");
    } else {
        op->fetched = true;
        unlist(op);
        perf__aws_error_remember(&op->error);
        rc = op->status ? perf__fail(op->status, "%s", op->why) : PERF_OK;
        if (!rc)
            *out = op->reply;
        op->reply = rc ? op->reply : NULL;
    }
    pthread_mutex_unlock(&aws->mutex);
    return rc;
}

void perf_aws_operation_cancel(perf_aws_operation *op)
{
    if (!op || op->aws->fork_generation != perf__fork_generation)
        return;
    perf_aws *aws = op->aws;
    pthread_mutex_lock(&aws->mutex);
    op->cancelled = true;
    if (op->http)
        perf_http_call_cancel(op->http);
    pthread_cond_signal(&aws->work);
    pthread_mutex_unlock(&aws->mutex);
}

void perf_aws_operation_release(perf_aws_operation *op)
{
    if (!op || op->aws->fork_generation != perf__fork_generation)
        return;
    pthread_mutex_lock(&op->aws->mutex);
    op->aws->handles--;
    op->has_handle = false;
    unlist(op);
    unref_and_unlock(op);
}

int perf_aws_fd(perf_aws *aws, int *out)
{
    int rc = PERF_OK;
    if (!aws || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_fd needs a client and a place for the descriptor");
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&aws->mutex);
    if (aws->done_fd < 0) {
        aws->done_fd = eventfd(aws->done ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (aws->done_fd < 0)
            rc = perf__fail(PERF_EIO, "no descriptor for events; allow more open files");
    }
    if (!rc)
        *out = aws->done_fd;
    pthread_mutex_unlock(&aws->mutex);
    return rc;
}

int perf_aws_next_done(perf_aws *aws, perf_aws_operation **out)
{
    int rc = PERF_MISS;
    if (!aws || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_next_done needs a client and a place for the "
                                       "operation");
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&aws->mutex);
    if (aws->done) {
        *out = aws->done;
        unlist(*out);
        rc = PERF_OK;
    }
    pthread_mutex_unlock(&aws->mutex);
    return rc;
}
