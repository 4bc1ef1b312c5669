// SPDX-License-Identifier: MIT
/*
 * Reference policies that count: W-TinyLFU (Einziger, Friedman, Manes, TOS 2017) with a fixed
 * window of 1 % or 20 % and a segmented main of 80 % protected; and Belady's optimum, which evicts
 * what is needed last (1966). The counts are exact, halved every 10 x capacity requests.
 */
#include "policies.h"

#include <stdlib.h>

enum { NOWHERE, WINDOW, PROBATION, PROTECTED, LISTS };

static uint64_t run_tinylfu(const struct bench_trace *trace, size_t capacity, double part)
{
    struct bench_links q;
    bench_links_init(&q, trace->keys, LISTS);
    uint8_t *where = bench_alloc(trace->keys, 1), *count = bench_alloc(trace->keys, 1);
    size_t window = (size_t)(part * (double)capacity);
    window = window ? window : 1;
    size_t protected_room = (capacity - window) * 4 / 5;
    uint64_t hits = 0, since = 0, period = 10 * (capacity < 16 ? 16 : capacity);
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        count[key] = (uint8_t)(count[key] < 15 ? count[key] + 1 : 15);
        if (++since == period) {
            since = 0;
            for (size_t k = 0; k < trace->keys; k++) {
                count[k] /= 2;
            }
        }
        if (where[key] != NOWHERE) {
            hits++;
            bench_unlink(&q, where[key], key);
            where[key] = where[key] == WINDOW ? WINDOW : PROTECTED;
            bench_push(&q, where[key], key);
            if (q.length[PROTECTED] > protected_room) {
                uint32_t demoted = bench_back(&q, PROTECTED);
                bench_unlink(&q, PROTECTED, demoted);
                where[demoted] = PROBATION;
                bench_push(&q, PROBATION, demoted);
            }
            continue;
        }
        where[key] = WINDOW;
        bench_push(&q, WINDOW, key);
        if (q.length[WINDOW] <= window) {
            continue;
        }
        uint32_t candidate = bench_back(&q, WINDOW);
        bench_unlink(&q, WINDOW, candidate);
        where[candidate] = NOWHERE;
        if (q.length[PROBATION] + q.length[PROTECTED] >= capacity - window) {
            size_t from = q.length[PROBATION] > 0 ? PROBATION : PROTECTED;
            if (q.length[from] == 0 || count[bench_back(&q, from)] >= count[candidate]) {
                continue;
            }
            uint32_t victim = bench_back(&q, from);
            bench_unlink(&q, from, victim);
            where[victim] = NOWHERE;
        }
        where[candidate] = PROBATION;
        bench_push(&q, PROBATION, candidate);
    }
    bench_links_free(&q);
    free(where);
    free(count);
    return hits;
}

static uint64_t run_tinylfu_1(const struct bench_trace *trace, size_t capacity)
{
    return run_tinylfu(trace, capacity, 0.01);
}

static uint64_t run_tinylfu_20(const struct bench_trace *trace, size_t capacity)
{
    return run_tinylfu(trace, capacity, 0.20);
}

/* ---- heap of keys by a 64-bit rank, largest on top; shared by LFU and the optimum ---- */

struct heap {
    uint32_t *key;
    size_t *at; /* position + 1 of a key, 0 when absent */
    uint64_t *rank;
    size_t used;
};

static void heap_place(struct heap *h, size_t at, uint32_t key)
{
    h->key[at] = key;
    h->at[key] = at + 1;
}

static void heap_fix(struct heap *h, uint32_t key)
{
    size_t at = h->at[key] - 1;
    while (at > 0 && h->rank[h->key[(at - 1) / 2]] < h->rank[key]) {
        heap_place(h, at, h->key[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < h->used && h->rank[h->key[child + 1]] > h->rank[h->key[child]]) {
            child++;
        }
        if (child >= h->used || h->rank[h->key[child]] <= h->rank[key]) {
            break;
        }
        heap_place(h, at, h->key[child]);
        at = child;
    }
    heap_place(h, at, key);
}

static void heap_pop(struct heap *h)
{
    h->at[h->key[0]] = 0;
    uint32_t last = h->key[--h->used];
    if (h->used > 0) {
        heap_place(h, 0, last);
        heap_fix(h, last);
    }
}

static uint64_t run_heap(const struct bench_trace *trace, size_t capacity, bool optimum)
{
    struct heap h = {.key = bench_alloc(capacity, sizeof(uint32_t)),
                     .at = bench_alloc(trace->keys, sizeof(size_t)),
                     .rank = bench_alloc(trace->keys, sizeof(uint64_t))};
    uint64_t *next = bench_alloc(trace->requests, sizeof *next);
    uint64_t *seen = bench_alloc(trace->keys, sizeof *seen);
    for (size_t i = trace->requests; i-- > 0;) {
        uint32_t key = trace->key[i];
        next[i] = seen[key] ? seen[key] : UINT64_MAX;
        seen[key] = i;
    }
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        bool hit = h.at[key] != 0;
        if (!hit && h.used == capacity) {
            heap_pop(&h);
        }
        /* LFU: fewest uses first, then oldest; a key's count restarts when it is evicted. */
        uint64_t uses = hit ? (UINT64_MAX - h.rank[key]) >> 36 : 0;
        h.rank[key] = optimum ? next[i] : UINT64_MAX - ((uses + 1) << 36) - i;
        hits += hit;
        if (!hit) {
            heap_place(&h, h.used++, key);
        }
        heap_fix(&h, key);
    }
    free(h.key);
    free(h.at);
    free(h.rank);
    free(next);
    free(seen);
    return hits;
}

static uint64_t run_lfu(const struct bench_trace *trace, size_t capacity)
{
    return run_heap(trace, capacity, false);
}

static uint64_t run_belady(const struct bench_trace *trace, size_t capacity)
{
    return run_heap(trace, capacity, true);
}

const struct bench_policy bench_count_policies[] = {{"wtinylfu-1%", run_tinylfu_1},
                                                    {"wtinylfu-20%", run_tinylfu_20},
                                                    {"lfu", run_lfu},
                                                    {"belady", run_belady},
                                                    {NULL, NULL}};
