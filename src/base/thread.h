/* SPDX-License-Identifier: MIT */
/*
 * thread.h - a small number for each running thread.
 *
 * Counters give each numbered thread a row of its own, so that counting shares
 * no cache line. Numbers are reused when threads end; threads beyond the last
 * number all get 0, which means "shared".
 */
#ifndef PERF_BASE_THREAD_H
#define PERF_BASE_THREAD_H

#include <libperf/types.h>

enum { PERF__THREAD_SLOTS = 128 };

/* Thread-local by nature. 0: shared; -1: this thread has not asked yet. The initial-exec
 * model makes a read one instruction; one int fits the space that dlopen keeps for this. */
extern _Thread_local int perf__thread_slot_cached __attribute__((tls_model("initial-exec")));

int perf__thread_slot_assign(void) __attribute__((cold));

/** This thread's number, 1..PERF__THREAD_SLOTS-1, or 0 when none was left. */
static inline int perf__thread_slot(void)
{
    int slot = perf__thread_slot_cached;
    return __builtin_expect(slot >= 0, 1) ? slot : perf__thread_slot_assign();
}

/** A thread-local random number, for jitter and sampling; not for secrets. */
uint64_t perf__thread_random(void);

#endif
