/* SPDX-License-Identifier: MIT */
/*
 * hedge.c - a second request when the first one takes unusually long.
 *
 * What is unusual: a quantile of the last 256 latencies, found anew every 16
 * calls by whoever comes by. The decision functions need no thread and no lock.
 *
 * perf_hedge_run keeps its job on the caller's stack and in a list sorted by
 * the time it is due; a few threads of the hedge wait for the first one. The
 * caller takes its job out again when it is done, or waits for the thread that
 * runs it. So neither outlives the call. Any thread.
 */
#include "hedge.h"

#include <pthread.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "budget.h"

enum { CALLS, HEDGES, WON, REFUSED, COUNTERS };
enum { RECENT = 256, EVERY = 16, MAX_THREADS = 64 };

/* A second request that may become necessary; on the stack of its caller. */
struct job {
    struct job *next, *previous;
    int64_t due_ns;
    perf_run_fn fn;
    void *ctx;
    struct perf_attempt attempt;
    enum { JOB_NONE, JOB_WAITS, JOB_RUNS, JOB_OVER } state;
    int status;
    pthread_cond_t over;
};

struct perf_hedge {
    struct perf__part part;
    perf_hedge_options options;
    perf_budget *own_budget;
    /* latencies */
    _Atomic uint32_t recent[RECENT]; /* milliseconds */
    _Atomic uint64_t recorded;
    _Atomic int64_t quantile_ms; /* -1: not known */
    pthread_mutex_t sorting;     /* tried, never waited for */
    uint32_t sorted[RECENT];
    /* threads */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct job *first, *last;
    int64_t outstanding; /* jobs that wait or run */
    int64_t threads;
    bool closing;
    pthread_t ids[MAX_THREADS];
};

/* ---------------------------------------------------------------- decisions */

static void shell_sort(uint32_t *values, size_t n)
{
    /* Shell's sort with Ciura's gaps: small, and needs no comparison function */
    static const size_t gaps[] = {57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
        for (size_t i = gaps[g]; i < n; i++) {
            uint32_t value = values[i];
            size_t j = i;
            for (; j >= gaps[g] && values[j - gaps[g]] > value; j -= gaps[g])
                values[j] = values[j - gaps[g]];
            values[j] = value;
        }
}

/* The least latency that at least so many percent do not exceed. */
static void find_quantile(perf_hedge *hedge)
{
    uint64_t recorded = atomic_load(&hedge->recorded);
    size_t n = recorded < RECENT ? (size_t)recorded : RECENT;
    if (n < (size_t)hedge->options.min_calls || pthread_mutex_trylock(&hedge->sorting))
        return;
    for (size_t i = 0; i < n; i++)
        hedge->sorted[i] = atomic_load_explicit(&hedge->recent[i], memory_order_relaxed);
    shell_sort(hedge->sorted, n);
    size_t rank = (n * (size_t)hedge->options.quantile_percent + 99) / 100;
    atomic_store(&hedge->quantile_ms, (int64_t)hedge->sorted[rank - 1]);
    pthread_mutex_unlock(&hedge->sorting);
}

/* -1: not known. */
static int64_t delay_of(const perf_hedge *hedge)
{
    int64_t ms = hedge->options.delay_ms
                     ? hedge->options.delay_ms
                     : atomic_load_explicit(&hedge->quantile_ms, memory_order_relaxed);
    return ms >= 0 && ms < hedge->options.min_delay_ms ? hedge->options.min_delay_ms : ms;
}

int perf_hedge_delay_ms(perf_hedge *hedge, int64_t *delay_ms)
{
    int rc = perf__part_check(hedge ? &hedge->part : NULL, "hedge");
    if (rc)
        return rc;
    if (!delay_ms)
        return perf__fail(PERF_EINVAL, "delay_ms is NULL; give a place for the delay");
    int64_t ms = delay_of(hedge);
    if (ms < 0)
        return PERF_MISS;
    *delay_ms = ms;
    return PERF_OK;
}

int perf_hedge_allow(perf_hedge *hedge)
{
    int rc = perf__part_check(hedge ? &hedge->part : NULL, "hedge");
    if (rc)
        return rc;
    if (!perf__budget_take(hedge->options.budget, hedge->options.cost)) {
        perf__part_count(&hedge->part, REFUSED);
        return perf__fail(PERF_EREJECTED, "the budget allows no second request now");
    }
    perf__part_count(&hedge->part, HEDGES);
    return PERF_OK;
}

static void record(perf_hedge *hedge, int64_t latency_ms, bool hedged, bool won)
{
    uint64_t i = atomic_fetch_add_explicit(&hedge->recorded, 1, memory_order_relaxed);
    uint32_t ms = latency_ms < 0 ? 0 : latency_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)latency_ms;
    atomic_store_explicit(&hedge->recent[i % RECENT], ms, memory_order_relaxed);
    perf__part_count(&hedge->part, CALLS);
    if (won)
        perf__part_count(&hedge->part, WON);
    if (!hedged && hedge->own_budget)
        perf__budget_give(hedge->own_budget, 1);
    if ((i + 1) % EVERY == 0 || (int64_t)(i + 1) == hedge->options.min_calls)
        find_quantile(hedge);
}

void perf_hedge_record(perf_hedge *hedge, int64_t latency_ms, int won_by_hedge)
{
    if (hedge && perf__part_usable(&hedge->part))
        record(hedge, latency_ms, won_by_hedge != 0, won_by_hedge != 0);
}

/* ------------------------------------------------------------------ threads */

static void unlink_job(perf_hedge *hedge, struct job *job)
{
    *(job->previous ? &job->previous->next : &hedge->first) = job->next;
    *(job->next ? &job->next->previous : &hedge->last) = job->previous;
}

/* Under the mutex, which it gives up while the function runs. */
static void run_job(perf_hedge *hedge, struct job *job)
{
    unlink_job(hedge, job);
    job->state = JOB_RUNS;
    pthread_mutex_unlock(&hedge->mutex);
    job->status = PERF_ECANCELED;
    if (!perf_attempt_cancelled(&job->attempt)) {
        job->status = perf_hedge_allow(hedge);
        if (!job->status)
            job->status = perf__attempt_run(&job->attempt, job->fn, job->ctx);
    }
    pthread_mutex_lock(&hedge->mutex);
    job->state = JOB_OVER;
    pthread_cond_signal(&job->over);
}

static void *thread_main(void *arg)
{
    perf_hedge *hedge = arg;
    const perf_clock *clock = &hedge->part.host.clock;
    pthread_mutex_lock(&hedge->mutex);
    while (!hedge->closing) {
        struct job *job = hedge->first;
        if (!job) {
            perf__cond_wait(&hedge->wake, &hedge->mutex, 0);
            continue;
        }
        int64_t now = perf__now_ns(clock);
        if (now >= job->due_ns)
            run_job(hedge, job);
        else
            perf__cond_wait(&hedge->wake, &hedge->mutex,
                            perf__cond_deadline(clock, now, job->due_ns));
    }
    pthread_mutex_unlock(&hedge->mutex);
    return NULL;
}

/* Under the mutex. */
static void start_thread(perf_hedge *hedge)
{
    if (!perf__thread_start(&hedge->ids[hedge->threads], "perf-hedge", thread_main, hedge))
        hedge->threads++;
}

/* Puts a job in line; false when there is no thread for it. */
static bool submit(perf_hedge *hedge, struct job *job)
{
    if (perf__cond_init(&job->over))
        return false;
    pthread_mutex_lock(&hedge->mutex);
    if (hedge->outstanding >= hedge->threads && hedge->threads < hedge->options.max_threads)
        start_thread(hedge);
    bool possible = hedge->threads > 0;
    if (possible) {
        struct job *before = hedge->last; /* most delays are alike: the place is at the end */
        while (before && before->due_ns > job->due_ns)
            before = before->previous;
        job->previous = before;
        job->next = before ? before->next : hedge->first;
        *(job->previous ? &job->previous->next : &hedge->first) = job;
        *(job->next ? &job->next->previous : &hedge->last) = job;
        job->state = JOB_WAITS;
        hedge->outstanding++;
        if (hedge->first == job)
            pthread_cond_broadcast(&hedge->wake);
    }
    pthread_mutex_unlock(&hedge->mutex);
    if (!possible)
        pthread_cond_destroy(&job->over);
    return possible;
}

/* Takes a job out of line, or waits until it is over. */
static void withdraw(perf_hedge *hedge, struct job *job)
{
    pthread_mutex_lock(&hedge->mutex);
    if (job->state == JOB_WAITS) {
        unlink_job(hedge, job);
        job->state = JOB_NONE;
    }
    while (job->state == JOB_RUNS)
        perf__cond_wait(&job->over, &hedge->mutex, 0);
    hedge->outstanding--;
    pthread_mutex_unlock(&hedge->mutex);
    pthread_cond_destroy(&job->over);
}

/* --------------------------------------------------------------------- runs */

int perf__hedge_attempt(perf_hedge *hedge, struct perf_attempt *attempt, perf_run_fn fn, void *ctx)
{
    if (!perf__part_usable(&hedge->part))
        return perf__fail_forked();
    struct perf__race race = {0};
    struct job job = {.fn = fn, .ctx = ctx};
    int64_t start = perf__part_now(&hedge->part), delay = delay_of(hedge);
    bool submitted = false;
    if (delay >= 0) {
        attempt->race = &race;
        job.due_ns = perf__add_ms(start, delay);
        job.attempt = *attempt;
        job.attempt.hedge = 1;
        submitted =
            (!attempt->deadline_ns || job.due_ns < attempt->deadline_ns) && submit(hedge, &job);
        if (!submitted)
            attempt->race = NULL;
    }
    int status = perf__attempt_run(attempt, fn, ctx);
    if (submitted)
        withdraw(hedge, &job);
    attempt->race = NULL;
    bool hedged = job.state == JOB_OVER && job.status != PERF_EREJECTED;
    bool won = atomic_load(&race.winner) == 2;
    if (won) {
        status = job.status;
        attempt->kind = job.attempt.kind;
        attempt->retry_after_ms = job.attempt.retry_after_ms;
    }
    if (status >= 0)
        record(hedge, (perf__part_now(&hedge->part) - start) / 1000000, hedged, won);
    return status;
}

int perf_hedge_run(perf_hedge *hedge, perf_run_fn fn, void *ctx, int64_t timeout_ms)
{
    int rc = perf__part_check(hedge ? &hedge->part : NULL, "hedge");
    if (rc)
        return rc;
    if (!fn)
        return perf__fail(PERF_EINVAL, "fn is NULL; give the function to run");
    const perf_clock *clock = &hedge->part.host.clock;
    struct perf_attempt attempt = {.clock = clock,
                                   .deadline_ns = perf__deadline_on(clock, timeout_ms),
                                   .number = 1,
                                   .max = 1,
                                   .kind = -1};
    if (attempt.deadline_ns && perf__now_ns(clock) >= attempt.deadline_ns)
        return perf__fail(PERF_ETIMEDOUT, "the deadline passed before the first request");
    return perf__hedge_attempt(hedge, &attempt, fn, ctx);
}

/* ------------------------------------------------------------- open, close */

static int check_options(perf_hedge_options *o)
{
    int rc;
    if ((rc = perf__check_range("delay_ms", o->delay_ms, 0, PERF__LONG_MS)) ||
        (rc = perf__option("quantile_percent", &o->quantile_percent, 95, 1, 99)) ||
        (rc = perf__option("min_delay_ms", &o->min_delay_ms, 1, 1, PERF__LONG_MS)) ||
        (rc = perf__option("min_calls", &o->min_calls, 32, 1, RECENT)) ||
        (rc = perf__option("cost", &o->cost, 14, 1, INT64_C(1000000000000))) ||
        (rc = perf__option("max_threads", &o->max_threads, 4, 1, MAX_THREADS)))
        return rc;
    return PERF_OK;
}

int perf_hedge_open(const perf_hedge_options *given, perf_hedge **out)
{
    perf_hedge_options options;
    perf_hedge *hedge;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the hedge");
    if ((rc = perf__options_take("perf_hedge_options", given, &options, sizeof options)) ||
        (rc = check_options(&options)) ||
        (rc = perf__part_open("a hedge", options.host, sizeof *hedge, COUNTERS, &hedge)))
        return rc;
    if (!options.budget && (rc = perf_budget_open(0, &hedge->part.host.view, &hedge->own_budget)))
        goto out;
    if (!options.budget)
        options.budget = hedge->own_budget;
    if (perf__cond_init(&hedge->wake)) {
        rc = perf__fail_nomem("a hedge's condition variable");
        goto out;
    }
    hedge->options = options;
    atomic_init(&hedge->quantile_ms, -1);
    pthread_mutex_init(&hedge->mutex, NULL); /* neither can fail with these attributes */
    pthread_mutex_init(&hedge->sorting, NULL);
    *out = hedge;
out:
    if (rc) {
        perf_budget_close(hedge->own_budget);
        perf__part_free(&hedge->part);
    }
    return rc;
}

int perf_hedge_close(perf_hedge *hedge)
{
    if (!hedge)
        return PERF_OK;
    if (perf__part_usable(&hedge->part)) { /* a child has neither the threads nor sound locks */
        pthread_mutex_lock(&hedge->mutex);
        hedge->closing = true;
        pthread_cond_broadcast(&hedge->wake);
        pthread_mutex_unlock(&hedge->mutex);
        for (int64_t i = 0; i < hedge->threads; i++)
            pthread_join(hedge->ids[i], NULL);
        pthread_cond_destroy(&hedge->wake);
        pthread_mutex_destroy(&hedge->mutex);
        pthread_mutex_destroy(&hedge->sorting);
    }
    perf_budget_close(hedge->own_budget);
    perf__part_free(&hedge->part);
    return PERF_OK;
}

int perf_hedge_get_stats(perf_hedge *hedge, perf_hedge_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(hedge ? &hedge->part : NULL, "hedge")) ||
        (rc = perf__options_check_out("perf_hedge_stats", stats, &size)))
        return rc;
    pthread_mutex_lock(&hedge->mutex);
    int64_t threads = hedge->threads;
    pthread_mutex_unlock(&hedge->mutex);
    perf_hedge_stats own = {
        .struct_size = sizeof own,
        .calls = perf__part_sum(&hedge->part, CALLS),
        .hedges = perf__part_sum(&hedge->part, HEDGES),
        .won = perf__part_sum(&hedge->part, WON),
        .refused = perf__part_sum(&hedge->part, REFUSED),
        .delay_ms = delay_of(hedge),
        .threads = threads,
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
