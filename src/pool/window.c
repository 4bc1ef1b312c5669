/* SPDX-License-Identifier: MIT */
/*
 * window.c - the two windows of window.h.
 *
 * A word of sums is generation, calls, failed, slow: sixteen bits each. In the
 * ring, whoever puts an outcome into a place takes the old one out of the sums
 * and adds its own by one compare-and-swap, each only if the sums are of its
 * generation. So they are always those of the ring once all is quiet; while two
 * threads are at the same place (one has been overtaken by a whole round) they
 * can be off for a moment, and then say so: more calls than places, or more
 * failures than calls.
 */
#include "window.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { PRESENT = 4 }; /* beside PERF__CALL_...: this place of the ring is taken */

static uint64_t pack(uint16_t generation, struct perf__window_sums s)
{
    return (uint64_t)generation << 48 | (uint64_t)(s.calls & 0xffff) << 32 |
           (uint64_t)(s.failed & 0xffff) << 16 | (s.slow & 0xffff);
}

static struct perf__window_sums unpack(uint64_t word)
{
    return (struct perf__window_sums){(uint32_t)(word >> 32) & 0xffff,
                                      (uint32_t)(word >> 16) & 0xffff, (uint32_t)word & 0xffff};
}

static void add(struct perf__window_sums *s, uint32_t flags, uint32_t sign)
{
    s->calls += sign;
    s->failed += flags & PERF__CALL_FAILED ? sign : 0;
    s->slow += flags & PERF__CALL_SLOW ? sign : 0;
}

int perf__window_init(struct perf__window *w, const perf_allocator *allocator, uint32_t calls,
                      int64_t span_ns)
{
    memset(w, 0, sizeof *w);
    w->allocator = allocator;
    w->calls = calls;
    w->slice_ns = span_ns / PERF__WINDOW_SLICES;
    if (calls && !(w->ring = perf__calloc(allocator, calls, sizeof *w->ring)))
        return perf__fail_nomem("a breaker's window");
    pthread_mutex_init(&w->mutex, NULL); /* cannot fail with these attributes */
    w->has_mutex = true;
    return PERF_OK;
}

void perf__window_destroy(struct perf__window *w, bool usable)
{
    if (w->has_mutex && usable)
        pthread_mutex_destroy(&w->mutex);
    if (w->ring)
        perf__free(w->allocator, (void *)w->ring);
}

void perf__window_reset(struct perf__window *w, uint16_t generation, int64_t now_ns)
{
    const uint64_t empty = pack(generation, (struct perf__window_sums){0, 0, 0});
    if (w->calls) { /* places of other generations count as free */
        atomic_store(&w->sums, empty);
        return;
    }
    pthread_mutex_lock(&w->mutex);
    for (int i = 0; i < PERF__WINDOW_SLICES; i++)
        atomic_store(&w->slices[i], empty);
    atomic_store(&w->slice, now_ns / w->slice_ns);
    pthread_mutex_unlock(&w->mutex);
}

/* ------------------------------------------------------------------ the ring */

static struct perf__window_sums ring_add(struct perf__window *w, uint16_t generation,
                                         uint32_t flags, bool *torn)
{
    uint32_t place = atomic_fetch_add_explicit(&w->head, 1, memory_order_relaxed) % w->calls;
    uint32_t mine = (uint32_t)generation << 16 | PRESENT | flags;
    uint32_t old = atomic_exchange_explicit(&w->ring[place], mine, memory_order_acq_rel);
    uint64_t seen = atomic_load_explicit(&w->sums, memory_order_acquire), next;
    struct perf__window_sums s;
    do {
        uint16_t current = (uint16_t)(seen >> 48);
        s = unpack(seen);
        if (old & PRESENT && old >> 16 == current)
            add(&s, old, (uint32_t)-1);
        if (generation == current)
            add(&s, flags, 1);
        next = pack(current, s);
    } while (!atomic_compare_exchange_weak_explicit(&w->sums, &seen, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    s = unpack(next);
    *torn = s.calls > w->calls || s.failed > s.calls || s.slow > s.calls;
    return s;
}

/* ---------------------------------------------------------------- the slices */

/* Empties what lies between the newest slice and now. */
static void move_on(struct perf__window *w, int64_t slice)
{
    pthread_mutex_lock(&w->mutex);
    int64_t newest = atomic_load(&w->slice);
    int64_t first = slice - newest > PERF__WINDOW_SLICES ? slice - PERF__WINDOW_SLICES : newest;
    for (int64_t i = first + 1; i <= slice; i++) {
        _Atomic uint64_t *word = &w->slices[(uint64_t)i % PERF__WINDOW_SLICES];
        atomic_store(word, atomic_load(word) & UINT64_C(0xffff) << 48);
    }
    if (slice > newest)
        atomic_store(&w->slice, slice);
    pthread_mutex_unlock(&w->mutex);
}

static struct perf__window_sums slices_sum(struct perf__window *w)
{
    struct perf__window_sums all = {0, 0, 0};
    for (int i = 0; i < PERF__WINDOW_SLICES; i++) {
        struct perf__window_sums s =
            unpack(atomic_load_explicit(&w->slices[i], memory_order_relaxed));
        all.calls += s.calls;
        all.failed += s.failed;
        all.slow += s.slow;
    }
    return all;
}

static void slice_add(struct perf__window *w, uint16_t generation, uint32_t flags, int64_t now_ns)
{
    int64_t slice = now_ns / w->slice_ns;
    if (slice > atomic_load_explicit(&w->slice, memory_order_acquire))
        move_on(w, slice);
    _Atomic uint64_t *word = &w->slices[(uint64_t)slice % PERF__WINDOW_SLICES];
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed), next;
    do {
        if ((uint16_t)(seen >> 48) != generation)
            return;
        struct perf__window_sums s = unpack(seen);
        if (s.calls == 0xffff) { /* full: keep the shares */
            s.calls /= 2;
            s.failed /= 2;
            s.slow /= 2;
        }
        add(&s, flags, 1);
        next = pack(generation, s);
    } while (!atomic_compare_exchange_weak_explicit(word, &seen, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

struct perf__window_sums perf__window_add(struct perf__window *w, uint16_t generation, int flags,
                                          int64_t now_ns, bool *torn)
{
    *torn = false;
    if (w->calls)
        return ring_add(w, generation, (uint32_t)flags, torn);
    slice_add(w, generation, (uint32_t)flags, now_ns);
    return slices_sum(w);
}

struct perf__window_sums perf__window_read(struct perf__window *w, int64_t now_ns)
{
    if (w->calls)
        return unpack(atomic_load(&w->sums));
    if (now_ns / w->slice_ns > atomic_load(&w->slice))
        move_on(w, now_ns / w->slice_ns);
    return slices_sum(w);
}
