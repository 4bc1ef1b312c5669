/* SPDX-License-Identifier: MIT */
/*
 * adaptive_limit.c - as many at once as the other end can bear.
 *
 * Calls are counted in by one compare-and-swap against the limit, and out into
 * sums of a window. Who finds a window complete thinks the limit over, if
 * nobody else does just then. Any thread; nobody ever waits for a lock.
 *
 * Vegas (Brakmo and Peterson, IEEE JSAC 1995; the bounds are those of Netflix's
 * concurrency-limits): with n under way, a latency l, and b without a queue,
 * n * (1 - b/l) of them queue. Few: raise the limit; many: lower it. Here b is
 * the least average of a window rather than the least latency, so that a mix of
 * short and long requests does not look like a queue; and it is measured anew
 * from time to time, at half the limit, where there is no queue (BBR does that:
 * Cardwell et al., ACM Queue 2016).
 */
#include <math.h>
#include <pthread.h>

#include "../base/status.h"
#include "part.h"

enum { PERMITTED, REJECTED, DROPPED, COUNTERS };

struct perf_adaptive_limit {
    struct perf__part part;
    perf_adaptive_limit_options options;
    _Atomic int64_t allowed; /* what holds now */
    _Atomic int64_t in_flight;
    /* the window under way */
    _Atomic int64_t most, calls, sum_ns, drops, end_ns;
    pthread_mutex_t mutex; /* tried, never waited for; for all that follows */
    double limit;
    int64_t baseline_due_ns;
    enum { STEADY, DRAINING, MEASURING } phase;
    _Atomic int64_t least_ns, recent_ns;
};

int perf_adaptive_limit_open(const perf_adaptive_limit_options *given, perf_adaptive_limit **out)
{
    perf_adaptive_limit_options o;
    perf_adaptive_limit *l;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the adaptive limit");
    if ((rc = perf__options_take("perf_adaptive_limit_options", given, &o, sizeof o)) ||
        (rc = perf__check_range("algorithm", o.algorithm, PERF_LIMIT_VEGAS, PERF_LIMIT_AIMD)) ||
        (rc = perf__option("max", &o.max, 1000, 1, 1000000)) ||
        (rc = perf__option("min", &o.min, 1, 1, o.max)) ||
        (rc = perf__option("initial", &o.initial,
                           o.max < 20   ? o.max
                           : o.min > 20 ? o.min
                                        : 20,
                           o.min, o.max)) ||
        (rc = perf__option("window_ms", &o.window_ms, 100, 1, 3600000)) ||
        (rc = perf__option("window_calls", &o.window_calls, 10, 1, 1000000)) ||
        (rc = perf__option("baseline_ms", &o.baseline_ms, 30000, 1, PERF__LONG_MS)) ||
        (rc = perf__part_open("an adaptive limit", o.host, sizeof *l, COUNTERS, &l)))
        return rc;
    int64_t now = perf__part_now(&l->part);
    l->options = o;
    l->limit = (double)o.initial;
    atomic_init(&l->allowed, o.initial);
    atomic_init(&l->end_ns, perf__add_ms(now, o.window_ms));
    l->baseline_due_ns = perf__add_ms(now, o.baseline_ms);
    pthread_mutex_init(&l->mutex, NULL); /* cannot fail with these attributes */
    *out = l;
    return PERF_OK;
}

int perf_adaptive_limit_close(perf_adaptive_limit *l)
{
    if (!l)
        return PERF_OK;
    if (perf__part_usable(&l->part))
        pthread_mutex_destroy(&l->mutex);
    perf__part_free(&l->part);
    return PERF_OK;
}

int perf_adaptive_limit_try(perf_adaptive_limit *l, uint64_t *permit)
{
    int rc = perf__part_check(l ? &l->part : NULL, "adaptive limit");
    if (rc)
        return rc;
    if (!permit)
        return perf__fail(PERF_EINVAL, "permit is NULL; give a place for it, to release it later");
    int64_t n = atomic_load_explicit(&l->in_flight, memory_order_relaxed);
    do {
        int64_t allowed = atomic_load_explicit(&l->allowed, memory_order_relaxed);
        if (n >= allowed) {
            perf__part_count(&l->part, REJECTED);
            return perf__fail(PERF_EREJECTED, "%lld are under way, and more would only queue",
                              (long long)allowed);
        }
    } while (!atomic_compare_exchange_weak(&l->in_flight, &n, n + 1));
    int64_t most = atomic_load_explicit(&l->most, memory_order_relaxed);
    while (n + 1 > most && !atomic_compare_exchange_weak(&l->most, &most, n + 1))
        ;
    perf__part_count(&l->part, PERMITTED);
    *permit = UINT64_C(1) << 63 | (uint64_t)perf__part_now(&l->part);
    return PERF_OK;
}

/* ------------------------------------------------------------------ thinking */

struct window {
    double average_ns; /* 0: no latency */
    int64_t most, drops;
};

static double at_least_one(double x)
{
    return x > 1 ? x : 1;
}

/* Too much for the other end: a tenth less. Otherwise, only a limit that is used can be judged. */
static double aimd(double limit, const struct window *w)
{
    if (w->drops)
        return limit * 0.9;
    return (double)w->most * 2 >= limit ? limit + 1 : limit;
}

static double vegas(double limit, double least_ns, const struct window *w)
{
    double step = at_least_one(log10(limit));
    double few = 3 * step, many = 6 * step;
    double queue = w->average_ns > 0 ? limit * (1 - least_ns / w->average_ns) : 0;
    if (w->drops)
        return limit * 0.9;
    if (queue > many) /* half of what is too much, so that a sudden change is met quickly */
        return limit - fmax(step, (queue - many) / 2);
    if ((double)w->most * 2 < limit)
        return limit;
    return queue <= step ? limit + many : queue < few ? limit + step : limit;
}

/* Lowers the limit from time to time, and takes what latency is then for the least. */
static void measure_baseline(perf_adaptive_limit *l, const struct window *w, int64_t now_ns)
{
    double least = (double)atomic_load(&l->least_ns);
    if (w->average_ns > 0 && (least <= 0 || w->average_ns < least || l->phase == MEASURING))
        atomic_store(&l->least_ns, (int64_t)w->average_ns);
    if (l->phase == STEADY && now_ns >= l->baseline_due_ns) {
        l->phase = DRAINING;
    } else if (l->phase == DRAINING) {
        l->phase = MEASURING;
    } else if (l->phase == MEASURING && w->average_ns > 0) {
        l->phase = STEADY;
        l->baseline_due_ns = perf__add_ms(now_ns, l->options.baseline_ms);
    }
}

static void think(perf_adaptive_limit *l, int64_t now_ns)
{
    const perf_adaptive_limit_options *o = &l->options;
    int64_t calls = atomic_exchange(&l->calls, 0), sum = atomic_exchange(&l->sum_ns, 0);
    const struct window w = {
        .average_ns = calls > 0 ? (double)sum / (double)calls : 0,
        .drops = atomic_exchange(&l->drops, 0),
        .most = atomic_exchange(&l->most, atomic_load(&l->in_flight)),
    };
    bool steady = l->phase == STEADY;
    if (w.average_ns > 0)
        atomic_store(&l->recent_ns, (int64_t)w.average_ns);
    if (o->algorithm == PERF_LIMIT_AIMD) {
        l->limit = aimd(l->limit, &w);
    } else {
        measure_baseline(l, &w, now_ns);
        if (steady || w.drops)
            l->limit = vegas(l->limit, (double)atomic_load(&l->least_ns), &w);
    }
    l->limit = fmin(fmax(l->limit, (double)o->min), (double)o->max);
    double allowed = l->phase == STEADY ? l->limit : fmax(l->limit / 2, (double)o->min);
    atomic_store(&l->allowed, (int64_t)allowed);
    atomic_store(&l->end_ns, perf__add_ms(now_ns, o->window_ms));
}

void perf_adaptive_limit_release(perf_adaptive_limit *l, uint64_t permit, int64_t kind)
{
    if (!l || !perf__part_usable(&l->part) || !permit)
        return;
    int64_t n = atomic_load_explicit(&l->in_flight, memory_order_relaxed);
    do {
        if (n <= 0) /* released once too often */
            return;
    } while (!atomic_compare_exchange_weak(&l->in_flight, &n, n - 1));
    int64_t now = perf__part_now(&l->part);
    int64_t latency = now - (int64_t)(permit & INT64_MAX);
    if (kind == PERF_OUTCOME_SUCCESS || kind == PERF_OUTCOME_PERMANENT) {
        atomic_fetch_add_explicit(&l->sum_ns, latency > 0 ? latency : 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&l->calls, 1, memory_order_relaxed);
    } else if (kind == PERF_OUTCOME_TIMEOUT || kind == PERF_OUTCOME_THROTTLED ||
               kind == PERF_OUTCOME_TRANSIENT) {
        atomic_fetch_add_explicit(&l->drops, 1, memory_order_relaxed);
        perf__part_count(&l->part, DROPPED);
    } else {
        return;
    }
    if (now < atomic_load_explicit(&l->end_ns, memory_order_relaxed) ||
        atomic_load_explicit(&l->calls, memory_order_relaxed) +
                atomic_load_explicit(&l->drops, memory_order_relaxed) <
            l->options.window_calls ||
        pthread_mutex_trylock(&l->mutex))
        return;
    if (now >= atomic_load(&l->end_ns))
        think(l, now);
    pthread_mutex_unlock(&l->mutex);
}

int perf_adaptive_limit_get_stats(perf_adaptive_limit *l, perf_adaptive_limit_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(l ? &l->part : NULL, "adaptive limit")) ||
        (rc = perf__options_check_out("perf_adaptive_limit_stats", stats, &size)))
        return rc;
    perf_adaptive_limit_stats own = {
        .struct_size = sizeof own,
        .limit = atomic_load(&l->allowed),
        .in_flight = atomic_load(&l->in_flight),
        .least_us = atomic_load(&l->least_ns) / 1000,
        .recent_us = atomic_load(&l->recent_ns) / 1000,
        .permitted = perf__part_sum(&l->part, PERMITTED),
        .rejected = perf__part_sum(&l->part, REJECTED),
        .dropped = perf__part_sum(&l->part, DROPPED),
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
