/* SPDX-License-Identifier: MIT */
/*
 * futex.h - sleeping on a word until somebody says that it changed.
 *
 * For the few places where a mutex and a condition variable would cost more
 * than what they guard (futex(2); Drepper, "Futexes Are Tricky", 2011). Any thread.
 */
#ifndef PERF_BASE_FUTEX_H
#define PERF_BASE_FUTEX_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while *word is expected, timeout_ns at most (negative: for ever). May return for no
 * reason. */
static inline void perf__futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    struct timespec t = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &t,
            NULL, 0);
}

/* Wakes up to count who sleep on it. */
static inline void perf__futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static inline void perf__futex_wake_all(_Atomic uint32_t *word)
{
    perf__futex_wake(word, INT_MAX);
}

#endif
