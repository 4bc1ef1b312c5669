// SPDX-License-Identifier: MIT
/* Reference policies of one queue: LRU, FIFO, CLOCK, SIEVE (Zhang et al., NSDI 2024). */
#include "policies.h"

#include <stdlib.h>

static uint64_t run_queue(const struct bench_trace *trace, size_t capacity, bool promote,
                          bool second_chance)
{
    struct bench_links queue;
    bench_links_init(&queue, trace->keys, 1);
    bool *resident = bench_alloc(trace->keys, sizeof *resident);
    bool *visited = bench_alloc(trace->keys, sizeof *visited);
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        if (resident[key]) {
            hits++;
            visited[key] = true;
            if (promote) {
                bench_unlink(&queue, 0, key);
                bench_push(&queue, 0, key);
            }
            continue;
        }
        if (queue.length[0] == capacity) {
            uint32_t victim = bench_back(&queue, 0);
            while (second_chance && visited[victim]) {
                visited[victim] = false;
                bench_unlink(&queue, 0, victim);
                bench_push(&queue, 0, victim);
                victim = bench_back(&queue, 0);
            }
            bench_unlink(&queue, 0, victim);
            resident[victim] = false;
        }
        bench_push(&queue, 0, key);
        resident[key] = true;
        visited[key] = false;
    }
    bench_links_free(&queue);
    free(resident);
    free(visited);
    return hits;
}

static uint64_t run_lru(const struct bench_trace *trace, size_t capacity)
{
    return run_queue(trace, capacity, true, false);
}

static uint64_t run_fifo(const struct bench_trace *trace, size_t capacity)
{
    return run_queue(trace, capacity, false, false);
}

static uint64_t run_clock(const struct bench_trace *trace, size_t capacity)
{
    return run_queue(trace, capacity, false, true);
}

static uint64_t run_sieve(const struct bench_trace *trace, size_t capacity)
{
    struct bench_links queue;
    bench_links_init(&queue, trace->keys, 1);
    bool *resident = bench_alloc(trace->keys, sizeof *resident);
    bool *visited = bench_alloc(trace->keys, sizeof *visited);
    uint32_t head = (uint32_t)trace->keys, hand = head;
    uint64_t hits = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        if (resident[key]) {
            hits++;
            visited[key] = true;
            continue;
        }
        if (queue.length[0] == capacity) {
            hand = hand == head ? queue.prev[head] : hand;
            while (visited[hand]) {
                visited[hand] = false;
                hand = queue.prev[hand] == head ? queue.prev[head] : queue.prev[hand];
            }
            uint32_t victim = hand;
            hand = queue.prev[victim];
            bench_unlink(&queue, 0, victim);
            resident[victim] = false;
        }
        bench_push(&queue, 0, key);
        resident[key] = true;
        visited[key] = false;
    }
    bench_links_free(&queue);
    free(resident);
    free(visited);
    return hits;
}

const struct bench_policy bench_recency_policies[] = {
    {"lru", run_lru}, {"fifo", run_fifo}, {"clock", run_clock}, {"sieve", run_sieve}, {NULL, NULL}};
