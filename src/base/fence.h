/* SPDX-License-Identifier: MIT */
/*
 * fence.h - a memory fence whose whole cost is paid by the side that seldom runs.
 *
 * Two threads that each write one thing and then read the other's need a fence
 * on both sides. With membarrier(2) the rare side makes every running thread
 * execute one, and the frequent side only has to keep the compiler in order:
 * userspace RCU does so, and Dice, Huang and Yang ("Asymmetric Dekker
 * synchronization", 2001) describe it. Any thread.
 */
#ifndef PERF_BASE_FENCE_H
#define PERF_BASE_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>

/* Process-wide because the registration with the kernel is. True: it has no membarrier, and the
 * frequent side must fence, too. Set by perf__fence_init, before anybody fences. */
extern bool perf__fence_symmetric;

/* Registers the process. Called by every open that needs it; cheap. */
void perf__fence_init(void);

/* The rare side. */
void perf__fence_all(void);

/* The frequent side. */
static inline void perf__fence_light(void)
{
    if (__builtin_expect(perf__fence_symmetric, 0))
        atomic_thread_fence(memory_order_seq_cst);
    atomic_signal_fence(memory_order_seq_cst); /* the compiler must keep the order, too */
}

#endif
