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

#include "hash.h"

#include <libperf/types.h>
#include <pthread.h>

enum { PERF__THREAD_SLOTS = 128 };

/* Thread-local by nature. 0: shared; -1: this thread has not asked yet. The initial-exec
 * model makes a read one instruction; these few bytes fit the space that dlopen keeps for it. */
extern _Thread_local int perf__thread_slot_cached __attribute__((tls_model("initial-exec")));

int perf__thread_slot_assign(void) __attribute__((cold));

/** This thread's number, 1..PERF__THREAD_SLOTS-1, or 0 when none was left. */
static inline int perf__thread_slot(void)
{
    int slot = perf__thread_slot_cached;
    return __builtin_expect(slot >= 0, 1) ? slot : perf__thread_slot_assign();
}

/**
 * Starts a thread of the library: with all signals blocked, for they belong to the host's threads,
 * and with a name of up to 15 characters, for whoever looks at the process. 0 or an errno.
 */
int perf__thread_start(pthread_t *id, const char *name, void *(*main)(void *), void *argument);

/** Tells the processor that this is a loop which waits for another one. */
static inline void perf__pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* 0: not seeded. */
extern _Thread_local uint64_t perf__thread_random_state __attribute__((tls_model("initial-exec")));
uint64_t perf__thread_random_seed(void) __attribute__((cold));

/**
 * A thread-local random number, for jitter and sampling; not for secrets. A Weyl sequence through
 * a mixer (Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014), seeded by
 * the kernel once a thread.
 */
static inline uint64_t perf__thread_random(void)
{
    uint64_t state = perf__thread_random_state;
    if (__builtin_expect(!state, 0))
        state = perf__thread_random_seed();
    perf__thread_random_state = state += 0x9e3779b97f4a7c15u;
    return perf__mix64(state);
}

#endif
