/* SPDX-License-Identifier: MIT */
/*
 * ask.c - values that are asked for, not counted. What callers tell goes into a
 * table of the snapshot's own. They are asked with the mutex "asking" held, and
 * not the set's: they may make series, and an ask that ended stays ended. Any
 * thread.
 */
#include "../base/alloc.h"
#include "../base/status.h"
#include "metrics_impl.h"

struct perf__ask {
    struct perf__ask *next;
    uint64_t id;
    perf_metrics_ask_fn fn;
    void *ctx;
    bool forgotten; /* by one that was being asked */
};

struct perf_metrics_asked {
    perf_metrics *metrics;
    struct perf__table *told;
};

void perf__asks_destroy(perf_metrics *m)
{
    while (m->asks) {
        struct perf__ask *ask = m->asks;
        m->asks = ask->next;
        perf__free(&m->host.allocator, ask);
    }
}

/* Is it this thread that asks just now? */
static bool am_asker(const perf_metrics *m)
{
    return atomic_load(&m->asker) == (uintptr_t)pthread_self();
}

/* False: the mutex was this thread's already. */
static bool lock(perf_metrics *m)
{
    if (am_asker(m))
        return false;
    pthread_mutex_lock(&m->asking);
    return true;
}

static void unlock(perf_metrics *m, bool locked)
{
    if (locked)
        pthread_mutex_unlock(&m->asking);
}

int perf_metrics_ask(perf_metrics *m, perf_metrics_ask_fn fn, void *ctx, uint64_t *id)
{
    int rc = perf__metrics_check(m);
    if (rc)
        return rc;
    if (!fn || !id)
        return perf__fail(PERF_EINVAL, "ask or id is NULL; give both");
    struct perf__ask *ask = perf__calloc(&m->host.allocator, 1, sizeof *ask);
    if (!ask)
        return perf__fail_nomem("an ask");
    ask->fn = fn;
    ask->ctx = ctx;
    bool locked = lock(m);
    *id = ask->id = ++m->next_ask;
    struct perf__ask **last = &m->asks;
    while (*last)
        last = &(*last)->next;
    *last = ask;
    unlock(m, locked);
    return PERF_OK;
}

static void sweep(perf_metrics *m)
{
    for (struct perf__ask **at = &m->asks; *at;) {
        struct perf__ask *ask = *at;
        if (!ask->forgotten) {
            at = &ask->next;
            continue;
        }
        *at = ask->next;
        perf__free(&m->host.allocator, ask);
    }
}

void perf_metrics_forget(perf_metrics *m, uint64_t id)
{
    if (!m || m->fork_generation != perf__fork_generation)
        return;
    bool locked = lock(m);
    for (struct perf__ask *ask = m->asks; ask; ask = ask->next)
        if (ask->id == id)
            ask->forgotten = true;
    if (locked) /* otherwise somebody walks the list */
        sweep(m);
    unlock(m, locked);
}

int perf__ask_all(perf_metrics *m, struct perf__table *told)
{
    struct perf_metrics_asked asked = {m, told};
    if (am_asker(m))
        return perf__fail(PERF_EDEADLK,
                          "a snapshot is made by one who is asked for it; make it elsewhere");
    pthread_mutex_lock(&m->asking);
    atomic_store(&m->asker, (uintptr_t)pthread_self());
    for (struct perf__ask *ask = m->asks; ask; ask = ask->next)
        if (!ask->forgotten)
            ask->fn(ask->ctx, &asked);
    atomic_store(&m->asker, 0);
    sweep(m);
    pthread_mutex_unlock(&m->asking);
    return PERF_OK;
}

static int tell(perf_metrics_asked *asked, const perf_metric_options *options, int type,
                const char *const *values, double value)
{
    struct perf__description d;
    struct perf__words words;
    struct perf__series *series;
    bool overflowed;
    int rc;
    if (!asked)
        return perf__fail(PERF_EINVAL, "asked is NULL; hand on what the ask was called with");
    perf_metrics *m = asked->metrics;
    if ((rc = perf__describe(options, type, &m->table, &d)) ||
        (rc = perf__values_take(d.labels.count, values, &words)))
        return rc;
    d.scale = 0; /* what is told is in its unit, whatever is counted beside it */
    pthread_mutex_lock(&m->mutex);
    rc = perf__table_check(&m->table, &d);
    pthread_mutex_unlock(&m->mutex);
    if (rc)
        return rc;
    uint64_t before = asked->told->series_count;
    if ((rc = perf__table_series(asked->told, &d, &words, &series, &overflowed)))
        return rc;
    if (overflowed || asked->told->series_count > before)
        perf_gauge_add(&series->u.gauge, value);
    return PERF_OK;
}

int perf_metrics_tell_counter(perf_metrics_asked *asked, const perf_metric_options *options,
                              const char *const *values, double value)
{
    return tell(asked, options, PERF_METRIC_COUNTER, values, value);
}

int perf_metrics_tell_gauge(perf_metrics_asked *asked, const perf_metric_options *options,
                            const char *const *values, double value)
{
    return tell(asked, options, PERF_METRIC_GAUGE, values, value);
}
