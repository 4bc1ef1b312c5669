/* SPDX-License-Identifier: MIT */
/* counter.c - rows of counters, made when a thread first counts. Any thread. */
#include "counter.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { LINE = 64 };

/* A row fills whole cache lines of its own: the block keeps a line of slack in front. */
static _Atomic uint64_t *row_new(struct perf__counters *set)
{
    size_t bytes = ((size_t)set->count * sizeof(uint64_t) + LINE - 1) / LINE * LINE;
    char *block = perf__calloc(set->allocator, 1, bytes + 2 * LINE);
    if (!block)
        return NULL;
    char *row = (char *)(((uintptr_t)block + 2 * LINE - 1) / LINE * LINE);
    memcpy(row - sizeof(void *), &block, sizeof(void *));
    return (_Atomic uint64_t *)row;
}

static void row_free(struct perf__counters *set, _Atomic uint64_t *row)
{
    void *block;
    memcpy(&block, (char *)row - sizeof(void *), sizeof(void *));
    perf__free(set->allocator, block);
}

int perf__counters_init(struct perf__counters *set, const perf_allocator *allocator, uint32_t count)
{
    memset(set, 0, sizeof *set);
    set->allocator = allocator;
    set->count = count;
    _Atomic uint64_t *shared = row_new(set);
    if (!shared)
        return perf__fail_nomem("counters");
    atomic_store(&set->rows[0], shared);
    return PERF_OK;
}

void perf__counters_destroy(struct perf__counters *set)
{
    for (int i = 0; i < PERF__THREAD_SLOTS; i++) {
        _Atomic uint64_t *row = atomic_load(&set->rows[i]);
        if (row)
            row_free(set, row);
    }
    memset(set, 0, sizeof *set);
}

void perf__counters_add_slow(struct perf__counters *set, uint32_t index, uint64_t n)
{
    int slot = perf__thread_slot();
    _Atomic uint64_t *row = slot ? row_new(set) : NULL;
    if (row)
        atomic_store_explicit(&set->rows[slot], row, memory_order_release);
    else /* no number or no memory for a row: share */
        row = atomic_load_explicit(&set->rows[0], memory_order_relaxed);
    atomic_fetch_add_explicit(&row[index], n, memory_order_relaxed);
}

uint64_t perf__counters_sum(const struct perf__counters *set, uint32_t index)
{
    uint64_t sum = 0;
    for (int i = 0; i < PERF__THREAD_SLOTS; i++) {
        _Atomic uint64_t *row = atomic_load_explicit(&set->rows[i], memory_order_acquire);
        if (row)
            sum += atomic_load_explicit(&row[index], memory_order_relaxed);
    }
    return sum;
}
