/* SPDX-License-Identifier: MIT */
/* counter.c - rows of counters, made when a thread first counts. Any thread. */
#include "counter.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "lines.h"

static perf__cell *row_new(struct perf__counters *set)
{
    return perf__lines_new(set->allocator, set->count * sizeof(uint64_t));
}

int perf__counters_init(struct perf__counters *set, const perf_allocator *allocator, uint32_t count)
{
    memset(set, 0, sizeof *set);
    set->allocator = allocator;
    set->count = count;
    set->shared = row_new(set);
    return set->shared ? PERF_OK : perf__fail_nomem("counters");
}

void perf__counters_destroy(struct perf__counters *set)
{
    for (int i = 2; i <= PERF__THREAD_SLOTS; i++)
        perf__lines_free(set->allocator, atomic_load(&set->rows[i]));
    perf__lines_free(set->allocator, set->shared);
    memset(set, 0, sizeof *set);
}

void perf__counters_add_slow(struct perf__counters *set, uint32_t index, uint64_t n)
{
    int slot = perf__thread_slot();
    perf__cell *row = atomic_load_explicit(&set->rows[slot + 1], memory_order_relaxed);
    if (!row && slot && (row = row_new(set)))
        atomic_store_explicit(&set->rows[slot + 1], row, memory_order_release);
    if (!row) /* no number or no memory for a row: share */
        row = set->shared;
    atomic_fetch_add_explicit(&row[index], n, memory_order_relaxed);
}

uint64_t perf__counters_sum(const struct perf__counters *set, uint32_t index)
{
    uint64_t sum = atomic_load_explicit(&set->shared[index], memory_order_relaxed);
    for (int i = 2; i <= PERF__THREAD_SLOTS; i++) {
        perf__cell *row = atomic_load_explicit(&set->rows[i], memory_order_acquire);
        if (row)
            sum += atomic_load_explicit(&row[index], memory_order_relaxed);
    }
    return sum;
}

void perf__counters_sum_all(const struct perf__counters *set, uint64_t *sums)
{
    for (uint32_t j = 0; j < set->count; j++)
        sums[j] = atomic_load_explicit(&set->shared[j], memory_order_relaxed);
    for (int i = 2; i <= PERF__THREAD_SLOTS; i++) {
        perf__cell *row = atomic_load_explicit(&set->rows[i], memory_order_acquire);
        for (uint32_t j = 0; row && j < set->count; j++)
            sums[j] += atomic_load_explicit(&row[j], memory_order_relaxed);
    }
}
