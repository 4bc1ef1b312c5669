/* SPDX-License-Identifier: MIT */
/*
 * submit.c - how an item gets into an executor, and what happens when there is no room.
 *
 * From outside into the common queue of its priority, from a thread of the
 * executor into that thread's own queue. Threads are started here, when there
 * is work that nobody is free for. Any thread.
 */
#include "executor_impl.h"

/* The ring of a priority, made when it is first used. NULL: no memory. */
static struct perf__ring *ring_of(perf_executor *e, int priority)
{
    struct perf__ring *ring = atomic_load_explicit(&e->rings[priority], memory_order_acquire);
    if (__builtin_expect(ring != NULL, 1))
        return ring;
    pthread_mutex_lock(&e->mutex);
    ring = atomic_load(&e->rings[priority]);
    if (!ring && !perf__ring_init(&e->ring_memory[priority], &e->host.allocator, e->max_queued)) {
        ring = &e->ring_memory[priority];
        atomic_store_explicit(&e->rings[priority], ring, memory_order_release);
    }
    pthread_mutex_unlock(&e->mutex);
    return ring;
}

void perf__submit_made_room(perf_executor *e)
{
    atomic_thread_fence(memory_order_seq_cst); /* room is made before waiters are looked for */
    if (__builtin_expect(atomic_load_explicit(&e->space_waiters, memory_order_relaxed) != 0, 0)) {
        atomic_fetch_add(&e->space, 1);
        perf__futex_wake_all(&e->space);
    }
}

/* Waits for room: PERF_OK and it is in, or PERF_EBUSY. */
static int wait_for_room(perf_executor *e, struct perf__ring *ring, struct perf__item item)
{
    int64_t until_ns = perf__deadline_after(e->full_timeout_ms < 0 ? 0 : e->full_timeout_ms);
    int rc = PERF_EBUSY;
    atomic_fetch_add(&e->space_waiters, 1);
    for (;;) {
        uint32_t before = atomic_load(&e->space);
        int64_t left_ns = -1;
        if (perf__ring_put(ring, item)) {
            rc = PERF_OK;
            break;
        }
        if (atomic_load(&e->state) != PERF__OPEN)
            break;
        if (until_ns && (left_ns = until_ns - perf__now_ns(&perf__default_clock)) <= 0)
            break;
        perf__futex_wait(&e->space, before, left_ns);
    }
    atomic_fetch_sub(&e->space_waiters, 1);
    return rc;
}

static int full(perf_executor *e, struct perf__ring *ring, struct perf__item item, bool force,
                bool inside)
{
    bool run = force || e->full == PERF_SUBMIT_RUN || (inside && e->full == PERF_SUBMIT_BLOCK);
    if (run) { /* counts as submitted until it has run, so that nobody takes this for quiet */
        item.fn(item.arg);
        perf__counters_add(&e->counters, PERF__IN_CALLER, 1);
        return PERF_OK;
    }
    if (e->full == PERF_SUBMIT_BLOCK && !wait_for_room(e, ring, item)) {
        perf__submit_notify(e);
        return PERF_OK;
    }
    perf__counters_add(&e->counters, PERF__REJECTED, 1);
    return perf__fail(
        PERF_EBUSY,
        "max_queued is %llu and so many tasks wait; come again, raise it, or set full "
        "to PERF_SUBMIT_RUN",
        (unsigned long long)e->max_queued);
}

void perf__submit_notify(perf_executor *e)
{
    atomic_thread_fence(memory_order_seq_cst); /* see worker.c */
    perf__worker_wake(e);
    if (atomic_load_explicit(&e->sleepers, memory_order_relaxed) ||
        atomic_load_explicit(&e->searching, memory_order_relaxed))
        return;
    if (atomic_load_explicit(&e->threads, memory_order_relaxed) <
        atomic_load_explicit(&e->min_threads, memory_order_relaxed))
        perf__grow(e, atomic_load(&e->min_threads)); /* without one more it goes on as it is */
    else
        perf__grow_watch(e);
}

int perf__submit(perf_executor *e, int priority, struct perf__item item, bool force)
{
    struct perf__worker *self = perf__worker_self;
    bool inside = self && self->executor == e;
    struct perf__ring *ring;
    int rc;
    if (__builtin_expect(atomic_load_explicit(&e->state, memory_order_acquire) != PERF__OPEN, 0) &&
        !force && !inside)
        return perf__fail(PERF_ECLOSED,
                          "the executor is closing; submit before perf_executor_close");
    if (__builtin_expect(!(ring = ring_of(e, priority)), 0))
        return perf__fail_nomem("the queue of an executor");
    if (__builtin_expect(!atomic_load_explicit(&e->threads, memory_order_relaxed), 0) &&
        atomic_load(&e->state) != PERF__STOPPING && (rc = perf__grow(e, 1)))
        return rc;
    perf__counters_add(&e->counters, PERF__SUBMITTED, 1);
    if (!(inside && priority == PERF__NORMAL && perf__worker_put(self, item)) &&
        __builtin_expect(!perf__ring_put(ring, item), 0))
        return full(e, ring, item, force, inside);
    perf__submit_notify(e);
    return PERF_OK;
}

int perf_executor_post(perf_executor *e, perf_post_fn fn, void *arg)
{
    int rc;
    if (__builtin_expect((rc = perf__executor_usable(e)) != PERF_OK, 0))
        return rc;
    if (!fn)
        return perf__fail(PERF_EINVAL, "fn is NULL; give a function to run");
    return perf__submit(e, PERF__NORMAL, (struct perf__item){fn, arg}, false);
}
