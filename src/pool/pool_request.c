/* SPDX-License-Identifier: MIT */
/*
 * pool_request.c - asking for a connection without waiting for it.
 *
 * A request stands in the same queue as the threads that wait. Its answer is
 * called back by the keeper, or put into a list that a file descriptor tells
 * about. Any thread; a request is its owner's.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "pool_impl.h"

/* Once each, so that whatever a host does in between the list is the truth. */
static void signal_done(const perf_pool *root, bool on)
{
    uint64_t count = 1;
    if (root->done_fd < 0)
        return;
    if (on ? write(root->done_fd, &count, sizeof count) < 0
           : read(root->done_fd, &count, sizeof count) < 0)
        return; /* it was so already */
}

static void append(perf_pool_request **head, perf_pool_request **tail, perf_pool_request *request)
{
    request->next = NULL;
    *(*tail ? &(*tail)->next : head) = request;
    *tail = request;
}

static void take_out(perf_pool_request **head, perf_pool_request **tail, perf_pool_request *request)
{
    perf_pool_request *before = NULL;
    for (perf_pool_request *r = *head; r; before = r, r = r->next) {
        if (r != request)
            continue;
        *(before ? &before->next : head) = r->next;
        if (*tail == r)
            *tail = before;
        return;
    }
}

static void unlist(perf_pool_request *request)
{
    perf_pool *root = request->waiter.pool->root;
    if (request->ready) {
        take_out(&root->answered_head, &root->answered_tail, request);
    } else {
        take_out(&root->done_head, &root->done_tail, request);
        if (!root->done_head)
            signal_done(root, false);
    }
}

static void free_request(perf_pool_request *request)
{
    perf_pool *root = request->waiter.pool->root;
    root->requests--;
    perf__free(&root->host.allocator, request);
}

void perf__pool_answer(perf_pool_request *request, int status)
{
    perf_pool *pool = request->waiter.pool, *root = pool->root;
    request->status = status;
    perf__pool_record_wait(pool, request->begun_ns);
    if (request->waiter.slot)
        perf__pool_stamp(request->waiter.slot, request->who, perf__now_ms(&pool->clock));
    if (request->ready) {
        append(&root->answered_head, &root->answered_tail, request);
        perf__pool_wake_keeper(root);
    } else {
        append(&root->done_head, &root->done_tail, request);
        signal_done(root, true);
    }
}

void perf__pool_expire_requests(perf_pool *pool, int64_t now_ms, int64_t *next_ms)
{
    struct perf__waiter *next;
    for (struct perf__waiter *w = pool->queue.head; w; w = next) {
        perf_pool_request *request = w->request;
        next = w->next;
        if (!request || request->deadline_ms == INT64_MAX)
            continue;
        int64_t left = request->deadline_ms - now_ms;
        if (left > 0) {
            if (*next_ms < 0 || left < *next_ms)
                *next_ms = left;
            continue;
        }
        perf__pool_dequeue(w);
        perf__pool_answer(request, perf__pool_no_answer(pool, 0));
    }
}

static void *conn_of(const perf_pool_request *request)
{
    const struct perf__slot *slot = request->waiter.slot;
    return slot ? atomic_load_explicit(&slot->conn, memory_order_relaxed) : NULL;
}

void perf__pool_call_back(perf_pool *root)
{
    pthread_mutex_lock(&root->mutex);
    for (perf_pool_request *request; (request = root->answered_head);) {
        take_out(&root->answered_head, &root->answered_tail, request);
        request->calling = request->taken = true;
        root->calling++;
        pthread_mutex_unlock(&root->mutex);
        request->ready(request->ctx, request->status, conn_of(request));
        pthread_mutex_lock(&root->mutex);
        request->calling = false;
        root->calling--;
        if (request->released)
            free_request(request);
        pthread_cond_broadcast(&root->settled);
    }
    pthread_mutex_unlock(&root->mutex);
}

/* Into the queue, or answered at once. With the mutex. */
static int begin(perf_pool *pool, perf_pool_request *request)
{
    perf_pool *root = pool->root;
    uint32_t gate = atomic_load(&pool->gate);
    if (gate & GATE_CLOSING)
        return perf__fail(PERF_ECLOSED, "the pool is being closed");
    if (atomic_load(&pool->queue_len) >= pool->options.max_waiting) {
        perf__counters_add(&pool->counters, COUNT_REJECTED, 1);
        return perf__fail(PERF_EBUSY,
                          "%llu callers wait for a connection already; raise "
                          "max_waiting, or send less",
                          (unsigned long long)pool->options.max_waiting);
    }
    int rc = perf__pool_start_keeper(root);
    if (rc)
        return rc;
    pool->keeps_idle = true;
    root->requests++;
    perf__counters_add(&pool->counters, COUNT_WAITS, 1);
    perf__pool_enqueue(pool, &request->waiter, false);
    perf__pool_serve(pool);
    if (request->waiter.queued)
        perf__pool_want(pool, perf__now_ms(&pool->clock));
    perf__pool_wake_keeper(root); /* for its deadline */
    return PERF_OK;
}

int perf_pool_start(perf_pool *root, const char *key, const char *who, int64_t timeout_ms,
                    perf_pool_ready_fn ready, void *ctx, perf_pool_request **out)
{
    int rc = PERF_OK;
    if (!root || (!ready && !out) || timeout_ms < -1)
        return perf__fail(PERF_EINVAL,
                          "perf_pool_start needs a pool, a callback or a place for the request, "
                          "and a timeout_ms of -1 or more");
    if (root->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (root->options.no_threads)
        return perf__fail(PERF_EUNSUPPORTED, "the pool was opened with no_threads: nobody would "
                                             "answer; use perf_pool_acquire");
    perf_pool_request *request = perf__calloc(&root->host.allocator, 1, sizeof *request);
    if (!request)
        return perf__fail_nomem("a request for a connection");
    request->who = who;
    request->ready = ready;
    request->ctx = ctx;
    request->status = PERF_MISS;
    request->released = !out;
    request->begun_ns = perf__now_ns(&root->clock);
    request->deadline_ms = timeout_ms < 0 ? INT64_MAX : perf__now_ms(&root->clock) + timeout_ms;
    request->waiter.request = request;
    request->waiter.begun_ns = perf__now_ns(&perf__default_clock);

    pthread_mutex_lock(&root->mutex);
    perf_pool *pool = key ? perf__pool_child(root, key, &rc) : root;
    request->waiter.pool = pool;
    if (pool)
        rc = begin(pool, request);
    if (rc)
        perf__free(&root->host.allocator, request);
    else if (out)
        *out = request;
    pthread_mutex_unlock(&root->mutex);
    return rc;
}

int perf_pool_request_take(perf_pool_request *request, void **conn)
{
    if (!request || !conn)
        return perf__fail(PERF_EINVAL, "perf_pool_request_take needs a request and a place for "
                                       "the connection");
    perf_pool *root = request->waiter.pool->root;
    int rc = PERF_OK;
    if (root->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&root->mutex);
    if (request->ready || request->taken) {
        rc = perf__fail(PERF_EINVAL, request->ready ? "this request answers by its callback"
                                                    : "this request was answered already");
    } else if (request->status == PERF_MISS) {
        rc = PERF_MISS;
    } else {
        unlist(request);
        request->taken = true;
        rc = request->status;
        if (rc)
            perf__fail(rc, "no connection came: %s; see perf_pool_acquire(3)", perf_strerror(rc));
        else
            *conn = conn_of(request);
    }
    pthread_mutex_unlock(&root->mutex);
    return rc;
}

void perf_pool_request_release(perf_pool_request *request)
{
    if (!request)
        return;
    perf_pool *root = request->waiter.pool->root;
    if (root->fork_generation != perf__fork_generation)
        return;
    struct perf__slot *slot = NULL;
    pthread_mutex_lock(&root->mutex);
    if (request->calling) {
        request->released = true;
    } else {
        perf__pool_dequeue(&request->waiter);
        unlist(request);
        if (!request->taken)
            slot = request->waiter.slot;
        free_request(request);
    }
    pthread_cond_broadcast(&root->settled);
    pthread_mutex_unlock(&root->mutex);
    if (slot)
        perf__pool_give_back(slot);
}

int perf_pool_fd(perf_pool *pool, int *out)
{
    int rc = PERF_OK;
    if (!pool || !out)
        return perf__fail(PERF_EINVAL, "perf_pool_fd needs a pool and a place for the descriptor");
    if (pool->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&pool->mutex);
    if (pool->done_fd < 0) {
        pool->done_fd = eventfd(pool->done_head ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (pool->done_fd < 0)
            rc = perf__fail(PERF_EIO, "no descriptor for events; allow more open files");
    }
    if (!rc)
        *out = pool->done_fd;
    pthread_mutex_unlock(&pool->mutex);
    return rc;
}

int perf_pool_next(perf_pool *pool, perf_pool_request **out)
{
    int rc = PERF_MISS;
    if (!pool || !out)
        return perf__fail(PERF_EINVAL, "perf_pool_next needs a pool and a place for the request");
    if (pool->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&pool->mutex);
    if (pool->done_head) {
        *out = pool->done_head;
        unlist(*out);
        rc = PERF_OK;
    }
    pthread_mutex_unlock(&pool->mutex);
    return rc;
}
