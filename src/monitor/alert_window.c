/* SPDX-License-Identifier: MIT */
/*
 * alert_window.c - how many, and how many of them bad, in the last so many ms.
 *
 * A ring of buckets, of which 20 make up the short window; the newest is still
 * being filled, so a window is up to one bucket shorter than it says. The sums of
 * the closed ones are added up when a bucket closes and not when somebody asks.
 * Under the mutex of the alerts.
 */
#include <string.h>

#include "../base/alloc.h"
#include "alert_impl.h"

enum { SHORT = 20 };

int perf__alert_window_init(struct perf__alert_window *w, const perf_allocator *allocator,
                            int64_t long_ms, int64_t short_ms)
{
    w->width_ns = short_ms * 1000000 / SHORT;
    w->short_count = SHORT;
    w->long_count = (uint32_t)((long_ms * 1000000 + w->width_ns - 1) / w->width_ns);
    w->buckets = perf__calloc(allocator, w->long_count, sizeof *w->buckets);
    return w->buckets ? PERF_OK : PERF_ENOMEM;
}

static struct perf__alert_sum *bucket(const struct perf__alert_window *w, int64_t number)
{
    return &w->buckets[(uint64_t)number % w->long_count];
}

static struct perf__alert_sum add_up(const struct perf__alert_window *w, uint32_t count)
{
    struct perf__alert_sum sum = {0, 0};
    for (uint32_t i = 1; i < count; i++) {
        const struct perf__alert_sum *b = bucket(w, w->newest - i);
        sum.bad += b->bad;
        sum.total += b->total;
    }
    return sum;
}

/* Opens the bucket of now. A clock that goes back stays in the newest one. */
static void advance(struct perf__alert_window *w, int64_t now_ns)
{
    int64_t number = now_ns / w->width_ns + w->long_count; /* never negative when counted back */
    if (number <= w->newest)
        return;
    if (number - w->newest >= w->long_count)
        memset(w->buckets, 0, w->long_count * sizeof *w->buckets);
    else
        for (int64_t i = w->newest + 1; i <= number; i++)
            *bucket(w, i) = (struct perf__alert_sum){0, 0};
    w->newest = number;
    w->closed_long = add_up(w, w->long_count);
    w->closed_short = add_up(w, w->short_count);
}

void perf__alert_window_add(struct perf__alert_window *w, int64_t now_ns, double bad, double total)
{
    advance(w, now_ns);
    struct perf__alert_sum *b = bucket(w, w->newest);
    b->bad += bad;
    b->total += total;
}

void perf__alert_window_sums(struct perf__alert_window *w, int64_t now_ns,
                             struct perf__alert_sum *over_long, struct perf__alert_sum *over_short)
{
    advance(w, now_ns);
    const struct perf__alert_sum *b = bucket(w, w->newest);
    *over_long =
        (struct perf__alert_sum){w->closed_long.bad + b->bad, w->closed_long.total + b->total};
    *over_short =
        (struct perf__alert_sum){w->closed_short.bad + b->bad, w->closed_short.total + b->total};
}
