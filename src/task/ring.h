/* SPDX-License-Identifier: MIT */
/*
 * ring.h - the common queue of an executor: bounded, any number of threads on both sides.
 *
 * Vyukov's bounded MPMC queue (1024cores.net): each slot has a turn that says
 * whose it is, so that the two sides meet only in slots and never read each
 * other's position. Two changes. Turns are kept relative to the slot's index,
 * so that zeroed memory is an empty ring and pages are touched only when used.
 * And a taker takes many neighbouring items with one compare-and-swap. Any thread.
 */
#ifndef PERF_TASK_RING_H
#define PERF_TASK_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <libperf/types.h>

/* What a thread runs next: two words, so that posting takes no memory. */
struct perf__item {
    void (*fn)(void *arg);
    void *arg;
};

struct perf__ring_slot {
    _Atomic uint64_t turn; /* lap * size: free in that lap; + 1: holds an item of it */
    struct perf__item item;
};

struct perf__ring {
    uint64_t mask;
    struct perf__ring_slot *slots;
    char apart[64];        /* each side has its line to itself */
    _Atomic uint64_t tail; /* where the next one is put */
    char apart_too[64];
    _Atomic uint64_t head; /* where the next one is taken */
    char apart_three[64];
};

/* size: a power of two. PERF_OK or PERF_ENOMEM. */
int perf__ring_init(struct perf__ring *ring, const perf_allocator *allocator, uint64_t size);
void perf__ring_destroy(struct perf__ring *ring, const perf_allocator *allocator);

/* False: it is full. */
static inline bool perf__ring_put(struct perf__ring *ring, struct perf__item item)
{
    uint64_t at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    for (;;) {
        uint64_t index = at & ring->mask;
        struct perf__ring_slot *slot = &ring->slots[index];
        uint64_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire) + index;
        if (turn == at) {
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &at, at + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                slot->item = item;
                atomic_store_explicit(&slot->turn, at + 1 - index, memory_order_release);
                return true;
            }
        } else if ((int64_t)(turn - at) < 0) {
            return false;
        } else {
            at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        }
    }
}

/* Takes up to max items, in order; 0: it is empty, or the first one is being put. */
static inline uint32_t perf__ring_take(struct perf__ring *ring, struct perf__item *items,
                                       uint32_t max)
{
    uint64_t at = atomic_load_explicit(&ring->head, memory_order_relaxed);
    for (;;) {
        uint32_t n = 0;
        uint64_t turn = 0;
        while (n < max) {
            uint64_t index = (at + n) & ring->mask;
            turn = atomic_load_explicit(&ring->slots[index].turn, memory_order_acquire) + index;
            if (turn != at + n + 1)
                break;
            n++;
        }
        if (!n && (int64_t)(turn - (at + 1)) < 0)
            return 0;
        if (n && atomic_compare_exchange_weak_explicit(
                     &ring->head, &at, at + n, memory_order_relaxed, memory_order_relaxed)) {
            for (uint32_t i = 0; i < n; i++) {
                uint64_t index = (at + i) & ring->mask;
                items[i] = ring->slots[index].item;
                atomic_store_explicit(&ring->slots[index].turn, at + i + ring->mask + 1 - index,
                                      memory_order_release);
            }
            return n;
        }
        if (!n)
            at = atomic_load_explicit(&ring->head, memory_order_relaxed);
    }
}

/* Nothing to take at this moment? */
static inline bool perf__ring_empty(struct perf__ring *ring)
{
    uint64_t at = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t index = at & ring->mask;
    uint64_t turn = atomic_load_explicit(&ring->slots[index].turn, memory_order_acquire) + index;
    return (int64_t)(turn - (at + 1)) < 0;
}

/* About how many are in it. */
static inline uint64_t perf__ring_count(struct perf__ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return tail > head ? tail - head : 0;
}

#endif
