/* SPDX-License-Identifier: MIT */
/*
 * counter.h - counters that cost a nanosecond, and gauges.
 *
 * A perf__counters is a set of counters that belong together. Every numbered
 * thread adds to a row of its own with a plain store; reading sums the rows.
 * Threads without a number, or without memory for a row, share one by atomic
 * adds. Sums are exact once the adding threads have been synchronised with. Any
 * thread.
 */
#ifndef PERF_METRICS_COUNTER_H
#define PERF_METRICS_COUNTER_H

#include <stdatomic.h>

#include "../base/thread.h"

typedef _Atomic uint64_t perf__cell;

struct perf__counters {
    const perf_allocator *allocator;
    uint32_t count;     /* counters in the set */
    perf__cell *shared; /* there from the start, so that no count is ever lost */
    /* Of thread number i at i + 1. Those of -1, which has not asked for a number, and of 0 stay
     * NULL: whoever has no row of its own finds out by one test, whatever the reason. */
    _Atomic(perf__cell *) rows[PERF__THREAD_SLOTS + 1];
};

/* PERF_OK or PERF_ENOMEM. allocator outlives the set. */
int perf__counters_init(struct perf__counters *set, const perf_allocator *allocator,
                        uint32_t count);
void perf__counters_destroy(struct perf__counters *set);

/* Slow path of perf__counters_add: makes this thread's row, or uses the shared one. */
void perf__counters_add_slow(struct perf__counters *set, uint32_t index, uint64_t n);

/* slot: perf__thread_slot() or perf__thread_slot_cached, for callers that have it at hand. */
static inline void perf__counters_add_at(struct perf__counters *set, int slot, uint32_t index,
                                         uint64_t n)
{
    perf__cell *row = atomic_load_explicit(&set->rows[slot + 1], memory_order_acquire);
    if (__builtin_expect(!row, 0)) {
        perf__counters_add_slow(set, index, n);
        return;
    }
    uint64_t old = atomic_load_explicit(&row[index], memory_order_relaxed);
    atomic_store_explicit(&row[index], old + n, memory_order_relaxed);
}

static inline void perf__counters_add(struct perf__counters *set, uint32_t index, uint64_t n)
{
    perf__counters_add_at(set, perf__thread_slot_cached, index, n);
}

uint64_t perf__counters_sum(const struct perf__counters *set, uint32_t index);
/* All of them, row by row: many times faster than one after the other. sums: set->count of them. */
void perf__counters_sum_all(const struct perf__counters *set, uint64_t *sums);

/* A value that goes up and down. */
typedef _Atomic int64_t perf__gauge;

static inline void perf__gauge_add(perf__gauge *gauge, int64_t n)
{
    atomic_fetch_add_explicit(gauge, n, memory_order_relaxed);
}

static inline int64_t perf__gauge_get(const perf__gauge *gauge)
{
    return atomic_load_explicit(gauge, memory_order_relaxed);
}

#endif
