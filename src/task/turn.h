/* SPDX-License-Identifier: MIT */
/*
 * turn.h - whose turn it is, among callers that put their calls together.
 *
 * One of those who wait leads: it does the work of all, and tells the others. A turn lies on its
 * caller's stack and is gone once it is DONE. Told by one thread, waited for by one.
 */
#ifndef PERF_TASK_TURN_H
#define PERF_TASK_TURN_H

#include <stdatomic.h>
#include <stdint.h>

#include "../base/futex.h"

enum perf__turn { TURN_WAITS, TURN_SLEEPS, TURN_LEADS, TURN_DONE };

static inline void perf__turn_tell(_Atomic uint32_t *at, enum perf__turn turn)
{
    if (atomic_exchange_explicit(at, turn, memory_order_acq_rel) == TURN_SLEEPS)
        perf__futex_wake(at, 1);
}

/* Waits until it is TURN_DONE or TURN_LEADS. */
static inline enum perf__turn perf__turn_wait(_Atomic uint32_t *at)
{
    uint32_t turn = TURN_WAITS;
    atomic_compare_exchange_strong_explicit(at, &turn, TURN_SLEEPS, memory_order_acq_rel,
                                            memory_order_acquire);
    while ((turn = atomic_load_explicit(at, memory_order_acquire)) == TURN_SLEEPS)
        perf__futex_wait(at, TURN_SLEEPS, -1);
    return turn;
}

#endif
