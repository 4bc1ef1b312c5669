/* SPDX-License-Identifier: MIT */
/*
 * quiesce.h - when may memory that readers wrote to be used for something else?
 *
 * A hit may count a use in the entry it found (policy.h). The entry can be
 * freed at that very moment, and its memory become part of somebody's value.
 * So a reader announces such a write in a line of its own and asks once more
 * whether the entry is still there; and before pages change their use, a writer
 * waits for the announced. The writer pays for the ordering (fence.h), so that
 * a reader needs two plain stores and no fence.
 */
#ifndef PERF_CACHE_QUIESCE_H
#define PERF_CACHE_QUIESCE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "../base/fence.h"
#include "../base/thread.h"

struct perf__reader_slot {
    _Alignas(64) _Atomic uint64_t busy; /* odd: between begin and end */
};

/* Process-wide because thread numbers are; each slot is written by its thread alone. */
extern struct perf__reader_slot perf__reader_slots[PERF__THREAD_SLOTS];

/* Prepares the process. Called by every open; cheap. */
void perf__quiesce_init(void);

/* Returns when all writes that were announced before are done. */
void perf__quiesce_wait(void);

/* False: this thread has no number, and must not write. */
static inline bool perf__quiesce_begin(void)
{
    int slot = perf__thread_slot();
    if (slot == 0)
        return false;
    _Atomic uint64_t *busy = &perf__reader_slots[slot].busy;
    atomic_store_explicit(busy, atomic_load_explicit(busy, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    perf__fence_light();
    return true;
}

static inline void perf__quiesce_end(void)
{
    _Atomic uint64_t *busy = &perf__reader_slots[perf__thread_slot()].busy;
    atomic_store_explicit(busy, atomic_load_explicit(busy, memory_order_relaxed) + 1,
                          memory_order_release);
}

#endif
