/* SPDX-License-Identifier: MIT */
/*
 * http_call.c - what users do with requests: send and wait, start, ask, cancel.
 *
 * Any thread. A call's handle keeps the client's memory, so that it may be
 * asked and released after perf_http_close.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/fork.h"
#include "../base/status.h"
#include "http.h"

/* ------------------------------------------------------------------ blocking */

/* The result goes to the caller, with the sentence on its thread. */
static int take_result(perf_http_call *call, perf_http_reply **out)
{
    if (call->status)
        return perf__fail(call->status, "%s", call->error);
    *out = call->reply;
    call->reply = NULL;
    return PERF_OK;
}

static int refuse_deadlock(void)
{
    return perf__fail(PERF_EDEADLK, "a blocking call inside a callback of the same client would "
                                    "wait for itself; use perf_http_start");
}

int perf_http_perform(perf_http *http, const perf_http_request *request, perf_http_reply **out)
{
    perf_http_call *call;
    int rc = perf__http_check(http);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the reply");
    if ((rc = perf__http_call_make(http, request, &call)))
        return rc;
    if (call->done) {
        perf__http_call_free(call);
        return perf__fail(PERF_EINVAL, "perf_http_request.done is for perf_http_start; leave it "
                                       "NULL for a blocking call");
    }
    pthread_mutex_lock(&http->mutex);
    rc = perf__http_is_driver(http) ? refuse_deadlock() : perf__http_submit(http, call, true);
    if (rc) {
        pthread_mutex_unlock(&http->mutex);
        perf__http_call_free(call);
        return rc;
    }
    http->inside++;
    perf__http_wait(http, call, INT64_MAX);
    rc = take_result(call, out); /* nobody else knows the call any more */
    perf__http_call_free(call);
    perf__http_unref(http);
    return rc;
}

int perf_http_get(perf_http *http, const char *url, int64_t timeout_ms, perf_http_reply **out)
{
    perf_http_request request = PERF_HTTP_REQUEST_INIT;
    request.url = url;
    request.timeout_ms = timeout_ms;
    return perf_http_perform(http, &request, out);
}

/* -------------------------------------------------------------- asynchronous */

int perf_http_start(perf_http *http, const perf_http_request *request, perf_http_call **out)
{
    perf_http_call *call;
    int rc = perf__http_check(http);
    if (rc || (rc = perf__http_call_make(http, request, &call)))
        return rc;
    pthread_mutex_lock(&http->mutex);
    rc = perf__http_submit(http, call, false);
    if (rc) {
        pthread_mutex_unlock(&http->mutex);
        perf__http_call_free(call);
        return rc;
    }
    if (out)
        *out = call;
    else
        call->refs--; /* the wheel's is left: it cannot be over before we unlock */
    pthread_mutex_unlock(&http->mutex);
    return PERF_OK;
}

/* Out of the list of those that are over and were not asked. */
static void unlist(perf_http *http, perf_http_call *call)
{
    if (!call->listed)
        return;
    call->listed = false;
    TAILQ_REMOVE(&http->over, call, queue);
    if (TAILQ_EMPTY(&http->over) && http->done_fd >= 0)
        (void)!read(http->done_fd, &(uint64_t){0}, sizeof(uint64_t));
}

static int check_call(const perf_http_call *call)
{
    if (!call)
        return perf__fail(PERF_EINVAL, "call is NULL; give what perf_http_start gave");
    return call->http->generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}

int perf_http_call_wait(perf_http_call *call, int64_t timeout_ms, perf_http_reply **out)
{
    int rc = check_call(call);
    if (rc || (rc = perf__check_range("timeout_ms", timeout_ms, -1, INT64_MAX / 2000000)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the reply");
    if (call->done)
        return perf__fail(PERF_EINVAL, "this request has a done callback, which gets its reply");
    perf_http *http = call->http;
    pthread_mutex_lock(&http->mutex);
    if (call->stage != PERF__HTTP_OVER && timeout_ms) {
        if (perf__http_is_driver(http)) {
            pthread_mutex_unlock(&http->mutex);
            return refuse_deadlock();
        }
        http->inside++;
        http->unattended -= !call->waiters++;
        perf__http_wait(http, call, timeout_ms < 0 ? INT64_MAX : perf__http_now_ms() + timeout_ms);
        pthread_mutex_lock(&http->mutex);
    }
    if (call->stage != PERF__HTTP_OVER) {
        rc = PERF_MISS;
    } else if (call->fetched) {
        rc = perf__fail(PERF_EINVAL, "%s %.100s: this call's reply was fetched already",
                        call->method, call->name);
    } else {
        call->fetched = true;
        unlist(http, call);
        rc = take_result(call, out);
    }
    pthread_mutex_unlock(&http->mutex);
    return rc;
}

void perf_http_call_cancel(perf_http_call *call)
{
    if (!call || call->http->generation != perf__fork_generation)
        return;
    pthread_mutex_lock(&call->http->mutex);
    perf__http_cancel(call->http, call);
    pthread_mutex_unlock(&call->http->mutex);
}

void perf_http_call_release(perf_http_call *call)
{
    if (!call || call->http->generation != perf__fork_generation)
        return;
    perf_http *http = call->http;
    pthread_mutex_lock(&http->mutex);
    unlist(http, call);
    bool last = !--call->refs;
    pthread_mutex_unlock(&http->mutex);
    if (last) {
        perf__http_call_free(call);
        perf__http_unref(http);
    }
}

int perf_http_fd(perf_http *http, int *out)
{
    int rc = perf__http_check(http);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the descriptor");
    pthread_mutex_lock(&http->mutex);
    if (http->done_fd < 0)
        http->done_fd = eventfd(!TAILQ_EMPTY(&http->over), EFD_CLOEXEC | EFD_NONBLOCK);
    int fd = http->done_fd;
    pthread_mutex_unlock(&http->mutex);
    if (fd < 0)
        return perf__fail(PERF_EIO,
                          "no event descriptor could be had: %s; raise the limit of "
                          "open files",
                          strerror(errno));
    *out = fd;
    return PERF_OK;
}

int perf_http_next_done(perf_http *http, perf_http_call **out)
{
    int rc = perf__http_check(http);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the call");
    pthread_mutex_lock(&http->mutex);
    perf_http_call *call = TAILQ_FIRST(&http->over);
    if (call) {
        unlist(http, call);
        *out = call;
    }
    pthread_mutex_unlock(&http->mutex);
    return call ? PERF_OK : PERF_MISS;
}
