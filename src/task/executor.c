/* SPDX-License-Identifier: MIT */
/*
 * executor.c - open, close, drain, options and statistics of an executor.
 *
 * Closing goes through two states: while DRAINING nothing comes in from outside,
 * but what runs may still submit; when STOPPING, what has not begun is dropped
 * and what runs is asked to end. Any thread.
 */
#include "executor_impl.h"

#include <sched.h>
#include <string.h>

#include "../base/log.h"

enum { STOP_MS = 1000 }; /* how long close waits for what it has asked to stop */

/* ------------------------------------------------------------------ options */

static uint64_t processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : (uint64_t)CPU_COUNT(&set);
}

static int take_options(const perf_executor_options *given, perf_executor_options *o)
{
    int rc;
    if ((rc = perf__options_take("perf_executor_options", given, o, sizeof *o)))
        return rc;
    if (!o->min_threads)
        o->min_threads = processors();
    if (!o->max_threads)
        o->max_threads = o->min_threads;
    if (!o->max_queued)
        o->max_queued = 65536;
    if (!o->full_timeout_ms)
        o->full_timeout_ms = 30000;
    if (!o->grow_after_ms)
        o->grow_after_ms = 20;
    if (!o->idle_timeout_ms)
        o->idle_timeout_ms = 10000;
    if (!o->name || !*o->name)
        o->name = "perf-run";
    if ((rc = perf__check_range("min_threads", (int64_t)o->min_threads, 1, PERF__MAX_THREADS)) ||
        (rc = perf__check_range("max_threads", (int64_t)o->max_threads, (int64_t)o->min_threads,
                                PERF__MAX_THREADS)) ||
        (rc = perf__check_range("max_queued", (int64_t)o->max_queued, 1, 1 << 24)) ||
        (rc = perf__check_range("full", o->full, PERF_SUBMIT_BLOCK, PERF_SUBMIT_RUN)) ||
        (rc = perf__check_range("full_timeout_ms", o->full_timeout_ms, -1, INT64_MAX / 1000000)) ||
        (rc = perf__check_range("grow_after_ms", o->grow_after_ms, 1, 3600000)) ||
        (rc = perf__check_range("idle_timeout_ms", o->idle_timeout_ms, 1, INT64_MAX / 1000000)) ||
        (rc = perf__check_range("adaptive", o->adaptive, 0, 1)) ||
        (rc = perf__check_len("name", strlen(o->name), 1, sizeof((perf_executor *)0)->name - 1)))
        return rc;
    while (o->max_queued & (o->max_queued - 1))
        o->max_queued += o->max_queued & -o->max_queued;
    if (o->max_queued < 2)
        o->max_queued = 2; /* a ring of one cannot tell full from empty */
    return PERF_OK;
}

/* --------------------------------------------------------------- open, close */

static int open_limit(perf_executor *e, const perf_executor_options *o)
{
    perf_adaptive_limit_options limit = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    if (!o->adaptive)
        return PERF_OK;
    limit.initial = limit.min = (int64_t)o->min_threads;
    limit.max = (int64_t)o->max_threads;
    limit.host = &e->host.view;
    return perf_adaptive_limit_open(&limit, &e->limit);
}

static void destroy(perf_executor *e)
{
    const perf_allocator *a = &e->host.allocator;
    perf_allocator allocator = *a;
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++)
        perf__free(a, atomic_load(&e->workers[i]));
    for (int p = 0; p < PERF__PRIORITIES; p++)
        if (atomic_load(&e->rings[p]))
            perf__ring_destroy(&e->ring_memory[p], a);
    perf_adaptive_limit_close(e->limit);
    perf__histogram_destroy(&e->run_ns);
    perf__histogram_destroy(&e->wait_ns);
    perf__counters_destroy(&e->counters);
    pthread_cond_destroy(&e->due);
    pthread_cond_destroy(&e->idle);
    pthread_mutex_destroy(&e->mutex);
    perf__free(&allocator, e);
}

int perf_executor_open(const perf_executor_options *given, perf_executor **out)
{
    perf_executor_options o;
    struct perf__host host;
    perf_executor *e;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the executor");
    if ((rc = take_options(given, &o)) || (rc = perf__host_take(o.host, &host)) ||
        (rc = perf__fork_arm()))
        return rc;
    if (!(e = perf__calloc(&host.allocator, 1, sizeof *e)))
        return perf__fail_nomem("an executor");
    if ((rc = perf__host_take(o.host, &e->host)))
        goto no_locks;
    e->fork_generation = perf__fork_generation;
    e->max_queued = o.max_queued;
    e->full = o.full;
    e->full_timeout_ms = o.full_timeout_ms;
    e->grow_after_ms = o.grow_after_ms;
    e->idle_timeout_ms = o.idle_timeout_ms;
    memcpy(e->name, o.name, strlen(o.name) + 1);
    atomic_store(&e->min_threads, (uint32_t)o.min_threads);
    atomic_store(&e->max_threads, (uint32_t)o.max_threads);
    e->notify_last = &e->notify_first;
    e->notify_fd = -1;
    if ((rc = perf__locks_init(&e->mutex, &e->idle, "an executor's locks")))
        goto no_locks;
    if ((rc = perf__cond_init(&e->due)))
        goto no_due;
    if ((rc = perf__counters_init(&e->counters, &e->host.allocator, PERF__EXECUTOR_COUNTERS)) ||
        (rc = perf__histogram_init(&e->run_ns, &e->host.allocator)) ||
        (rc = perf__histogram_init(&e->wait_ns, &e->host.allocator)) || (rc = open_limit(e, &o))) {
        destroy(e);
        return rc;
    }
    *out = e;
    return PERF_OK;

no_due:
    perf__fail_nomem("an executor's locks");
    pthread_cond_destroy(&e->idle);
    pthread_mutex_destroy(&e->mutex);
no_locks:
    perf__free(&host.allocator, e);
    return rc;
}

/* Every count of things done is read before the count of things submitted, which only grows and
 * was added to first: if both are equal, they were so when the first was read. */
bool perf__executor_quiet(perf_executor *e)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++)
        done += atomic_load_explicit(&atomic_load(&e->workers[i])->done, memory_order_acquire);
    done += perf__counters_sum(&e->counters, PERF__REJECTED);
    done += perf__counters_sum(&e->counters, PERF__IN_CALLER);
    atomic_thread_fence(memory_order_acquire);
    return done == perf__counters_sum(&e->counters, PERF__SUBMITTED);
}

/* Until until_ns on the system's clock; 0: for ever. */
static bool drain(perf_executor *e, int64_t until_ns)
{
    bool quiet;
    pthread_mutex_lock(&e->mutex);
    e->drainers++;
    while (!(quiet = perf__executor_quiet(e)))
        if (!perf__cond_wait(&e->idle, &e->mutex, until_ns)) {
            quiet = perf__executor_quiet(e);
            break;
        }
    e->drainers--;
    pthread_mutex_unlock(&e->mutex);
    return quiet;
}

/* 0 means now, negative for ever; perf__deadline_after has it otherwise. */
static int64_t until(int64_t timeout_ms)
{
    return timeout_ms < 0 ? 0 : timeout_ms ? perf__deadline_after(timeout_ms) : 1;
}

int perf_executor_drain(perf_executor *e, int64_t timeout_ms)
{
    int rc;
    if ((rc = perf__executor_usable(e)))
        return rc;
    if (perf__worker_self && perf__worker_self->executor == e)
        return perf__fail(PERF_EDEADLK, "a task cannot wait for all tasks of its own executor");
    if (drain(e, until(timeout_ms)))
        return PERF_OK;
    return perf__fail(PERF_ETIMEDOUT, "tasks are still queued or running after %lld ms",
                      (long long)timeout_ms);
}

/* Under the mutex. */
static uint32_t living(perf_executor *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++) {
        struct perf__worker *w = atomic_load(&e->workers[i]);
        n += w->started && !atomic_load(&w->ended);
    }
    return n;
}

/* Gives up when STOP_MS went by in which none ended. */
static bool threads_ended(perf_executor *e)
{
    uint32_t before = 0, now;
    int64_t until_ns = 0;
    pthread_mutex_lock(&e->mutex);
    e->drainers++;
    while ((now = living(e))) {
        if (now != before)
            until_ns = perf__deadline_after(STOP_MS);
        before = now;
        if (!perf__cond_wait(&e->idle, &e->mutex, until_ns) && living(e) == before)
            break;
    }
    e->drainers--;
    pthread_mutex_unlock(&e->mutex);
    return !now;
}

int perf_executor_close(perf_executor *e, int64_t drain_ms)
{
    if (!e)
        return PERF_OK;
    if (e->fork_generation != perf__fork_generation) {
        destroy(e); /* its threads, tasks and locks are the parent's */
        return PERF_OK;
    }
    if (perf__worker_self && perf__worker_self->executor == e)
        return perf__fail(PERF_EDEADLK, "a task cannot close its own executor");
    int open = PERF__OPEN;
    atomic_compare_exchange_strong(&e->state, &open, PERF__DRAINING);
    perf__submit_made_room(e); /* who waits for room is told */
    if (atomic_load(&e->state) != PERF__STOPPING)
        drain(e, until(drain_ms));
    perf__timer_stop(e);
    atomic_store(&e->state, PERF__STOPPING);
    perf__worker_wake_all(e);
    if (!threads_ended(e))
        return perf__fail(
            PERF_EBUSY,
            "%llu threads still run tasks that do not look at perf_run_cancelled; let "
            "them return and close again",
            (unsigned long long)atomic_load(&e->threads));
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++)
        if (atomic_load(&e->workers[i])->started)
            pthread_join(atomic_load(&e->workers[i])->thread, NULL);
    perf__notify_close(e);
    destroy(e);
    return PERF_OK;
}

int perf_executor_resize(perf_executor *e, uint64_t min_threads, uint64_t max_threads)
{
    int rc;
    if ((rc = perf__executor_usable(e)) ||
        (rc = perf__check_range("min_threads", (int64_t)min_threads, 1, PERF__MAX_THREADS)) ||
        (rc = perf__check_range("max_threads", (int64_t)max_threads, (int64_t)min_threads,
                                PERF__MAX_THREADS)))
        return rc;
    atomic_store(&e->min_threads, (uint32_t)min_threads);
    atomic_store(&e->max_threads, (uint32_t)max_threads);
    perf__worker_wake_all(e); /* those who are too many see it */
    return PERF_OK;
}

/* --------------------------------------------------------------- statistics */

static void quantiles(const struct perf__histogram *h, int64_t *p50, int64_t *p99,
                      struct perf__histogram_snapshot *s)
{
    perf__histogram_snapshot(h, s);
    *p50 = (int64_t)perf__histogram_quantile(s, 0.5);
    *p99 = (int64_t)perf__histogram_quantile(s, 0.99);
}

int perf_executor_get_stats(perf_executor *e, perf_executor_stats *out)
{
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    struct perf__histogram_snapshot *snapshot;
    uint64_t taken = 0, run = 0;
    size_t size;
    int rc;
    if ((rc = perf__executor_usable(e)) ||
        (rc = perf__options_check_out("perf_executor_stats", out, &size)))
        return rc;
    if (!(snapshot = perf__alloc(&e->host.allocator, sizeof *snapshot)))
        return perf__fail_nomem("statistics");
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++) {
        struct perf__worker *w = atomic_load(&e->workers[i]);
        run += atomic_load(&w->done);
        s.stolen += atomic_load(&w->stolen);
        s.parked += atomic_load(&w->parked);
    }
    const struct perf__counters *c = &e->counters;
    uint64_t dropped = perf__counters_sum(c, PERF__DROPPED);
    s.rejected = perf__counters_sum(c, PERF__REJECTED);
    s.ran_in_caller = perf__counters_sum(c, PERF__IN_CALLER);
    s.failed = perf__counters_sum(c, PERF__FAILED);
    s.cancelled = perf__counters_sum(c, PERF__UNRUN);
    taken = run + s.ran_in_caller;
    s.completed = taken + perf__counters_sum(c, PERF__HELPED) - dropped;
    s.submitted = perf__counters_sum(c, PERF__SUBMITTED) - s.rejected;
    s.threads = atomic_load(&e->threads);
    for (int p = 0; p < PERF__PRIORITIES; p++) {
        struct perf__ring *ring = atomic_load(&e->rings[p]);
        s.queued += ring ? perf__ring_count(ring) : 0;
    }
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++)
        s.queued += perf__worker_count(atomic_load(&e->workers[i]));
    s.running = s.submitted > taken + s.queued ? s.submitted - taken - s.queued : 0;
    if (s.running > s.threads)
        s.running = s.threads;
    pthread_mutex_lock(&e->mutex);
    s.threads_max = e->threads_max;
    pthread_mutex_unlock(&e->mutex);
    quantiles(&e->run_ns, &s.run_p50_ns, &s.run_p99_ns, snapshot);
    quantiles(&e->wait_ns, &s.wait_p50_ns, &s.wait_p99_ns, snapshot);
    perf__free(&e->host.allocator, snapshot);
    perf__options_give(out, size, &s, sizeof s);
    return PERF_OK;
}
