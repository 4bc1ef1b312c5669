/* SPDX-License-Identifier: MIT */
/*
 * redis_pending.c - commands that nobody waits for, or somebody later.
 *
 * Any thread. A handle keeps the client's memory, so that it may be asked and
 * released after perf_redis_close.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "redis.h"
#include "redis_reply.h"

struct perf_redis_pending {
    perf_redis *redis; /* a reference */
    struct perf__redis_trip trip;
    perf_redis_reply *reply;
    perf_redis_done_fn done;
    void *done_ctx;

    /* The client's mutex. */
    TAILQ_ENTRY(perf_redis_pending) link;
    int refs;
    bool handle, over, listed, fetched;
    char bytes[];
};

static void drop(perf_redis_pending *pending)
{
    perf_redis *redis = pending->redis;
    pthread_mutex_lock(&redis->mutex);
    bool last = !--pending->refs;
    pthread_mutex_unlock(&redis->mutex);
    if (!last)
        return;
    perf_redis_reply_release(pending->reply);
    perf__free(&redis->host.allocator, pending);
    perf__redis_unref(redis);
}

/* The callback gets it. */
static void call_done(struct perf__redis_op *op)
{
    perf_redis_pending *pending = op->ctx;
    perf_redis_reply *reply = pending->reply, *out = NULL;
    pending->reply = NULL;
    int rc = perf__redis_take_reply(op, reply, &out);
    pending->done(pending->done_ctx, rc, rc ? perf_last_error() : "", out);
    drop(pending);
}

/* Somebody may ask for it. */
static void mark_over(struct perf__redis_op *op)
{
    perf_redis_pending *pending = op->ctx;
    perf_redis *redis = pending->redis;
    pthread_mutex_lock(&redis->mutex);
    pending->over = true;
    if (pending->handle && pending->refs > 1) {
        pending->listed = true;
        if (TAILQ_EMPTY(&redis->over) && redis->done_fd >= 0)
            (void)!write(redis->done_fd, &(uint64_t){1}, sizeof(uint64_t));
        TAILQ_INSERT_TAIL(&redis->over, pending, link);
    }
    pthread_cond_broadcast(&redis->changed);
    pthread_mutex_unlock(&redis->mutex);
    drop(pending);
}

int perf_redis_start(perf_redis *redis, size_t argc, const perf_bytes *argv, int64_t timeout_ms,
                     perf_redis_done_fn done, void *ctx, perf_redis_pending **out)
{
    int rc = perf__redis_check(redis);
    if (rc || (rc = perf__redis_check_command(argc, argv)) ||
        (rc = perf__check_range("timeout_ms", timeout_ms, 0, INT64_MAX)))
        return rc;
    int kind = perf__redis_command_kind(argc, argv);
    if (kind != PERF__REDIS_PLAIN)
        return kind == PERF__REDIS_REFUSED
                   ? PERF_EINVAL
                   : perf__fail(PERF_EUNSUPPORTED, "%.*s may block; call it by perf_redis_call",
                                (int)argv[0].len, (const char *)argv[0].data);
    const perf_allocator *a = &redis->host.allocator;
    size_t size = perf__redis_encoded_size(argc, argv);
    perf_redis_pending *pending = perf__alloc(a, sizeof *pending + size);
    perf_redis_reply *reply = perf__redis_reply_new(a);
    if (!pending || !reply) {
        perf_redis_reply_release(reply);
        perf__free(a, pending);
        return perf__fail_nomem("a Redis command");
    }
    memset(pending, 0, sizeof *pending);
    perf__redis_encode(pending->bytes, argc, argv);
    perf__redis_trip_init(&pending->trip, argc, argv, pending->bytes, size, 1,
                          perf__redis_deadline(timeout_ms ? timeout_ms : redis->options.timeout_ms),
                          &pending->reply);
    pending->trip.op.done = done ? call_done : mark_over;
    pending->trip.op.anywhere = !done;
    pending->trip.op.ctx = pending;
    pending->redis = redis;
    pending->reply = reply;
    pending->done = done;
    pending->done_ctx = ctx;
    pending->handle = out != NULL;
    pending->refs = out ? 2 : 1;
    atomic_fetch_add(&redis->refs, 1);
    rc = redis->route->start(redis, &pending->trip);
    if (rc) {
        pending->refs = 1;
        drop(pending);
    } else if (out) {
        *out = pending;
    }
    return rc;
}

/* Out of the list of those that are over and were not asked. */
static void unlist(perf_redis *redis, perf_redis_pending *pending)
{
    if (!pending->listed)
        return;
    pending->listed = false;
    TAILQ_REMOVE(&redis->over, pending, link);
    if (TAILQ_EMPTY(&redis->over) && redis->done_fd >= 0)
        (void)!read(redis->done_fd, &(uint64_t){0}, sizeof(uint64_t));
}

int perf_redis_pending_wait(perf_redis_pending *pending, int64_t timeout_ms, perf_redis_reply **out)
{
    if (!pending)
        return perf__fail(PERF_EINVAL, "pending is NULL; give what perf_redis_start gave");
    perf_redis *redis = pending->redis;
    int rc = redis->generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
    if (rc || (rc = perf__check_range("timeout_ms", timeout_ms, -1, INT64_MAX / 2000000)))
        return rc;
    if (pending->done)
        return perf__fail(PERF_EINVAL, "this command has a done callback, which gets its reply");
    int64_t until = timeout_ms < 0 ? 0 : perf__deadline_after(timeout_ms);
    pthread_mutex_lock(&redis->mutex);
    bool here = redis->loop && perf__redis_loop_is_here(redis->loop), late = !timeout_ms;
    while (!pending->over && !late && !here)
        late = !perf__cond_wait(&redis->changed, &redis->mutex, until);
    if (!pending->over) {
        rc = here && timeout_ms ? perf__fail(PERF_EDEADLK, "waiting inside a callback of the same "
                                                           "client would wait for itself")
                                : PERF_MISS;
    } else if (pending->fetched) {
        rc = perf__fail(PERF_EINVAL, "this command's reply was fetched already");
    } else {
        pending->fetched = true;
        unlist(redis, pending);
        perf_redis_reply *reply = pending->reply;
        pending->reply = NULL;
        rc = perf__redis_take_reply(&pending->trip.op, reply, out);
    }
    pthread_mutex_unlock(&redis->mutex);
    return rc;
}

void perf_redis_pending_release(perf_redis_pending *pending)
{
    if (!pending || pending->redis->generation != perf__fork_generation)
        return;
    pthread_mutex_lock(&pending->redis->mutex);
    unlist(pending->redis, pending);
    pthread_mutex_unlock(&pending->redis->mutex);
    drop(pending);
}

int perf_redis_fd(perf_redis *redis, int *out)
{
    int rc = perf__redis_check(redis);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the descriptor");
    pthread_mutex_lock(&redis->mutex);
    if (redis->done_fd < 0)
        redis->done_fd = eventfd(!TAILQ_EMPTY(&redis->over), EFD_CLOEXEC | EFD_NONBLOCK);
    int fd = redis->done_fd;
    pthread_mutex_unlock(&redis->mutex);
    if (fd < 0)
        return perf__fail(PERF_EIO,
                          "no event descriptor could be had: %s; raise the limit of open files",
                          strerror(errno));
    *out = fd;
    return PERF_OK;
}

int perf_redis_next_done(perf_redis *redis, perf_redis_pending **out)
{
    int rc = perf__redis_check(redis);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the handle");
    pthread_mutex_lock(&redis->mutex);
    perf_redis_pending *pending = TAILQ_FIRST(&redis->over);
    if (pending) {
        unlist(redis, pending);
        *out = pending;
    }
    pthread_mutex_unlock(&redis->mutex);
    return pending ? PERF_OK : PERF_MISS;
}
