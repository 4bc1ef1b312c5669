/* SPDX-License-Identifier: MIT */
/*
 * sync.h - locks, waiting with a deadline, and small thread numbers.
 *
 * Lock order of the whole house: see src/README.md.
 */
#ifndef PERF_BASE_SYNC_H
#define PERF_BASE_SYNC_H

#include <libperf/types.h>
#include <pthread.h>
#include <stdbool.h>

/** Initialises a condition variable that waits on the monotonic clock. 0 or PERF_ENOMEM. */
int perf__cond_init(pthread_cond_t *cond);

/**
 * A mutex and the condition variable that waits with it: both or neither. PERF_OK, or PERF_ENOMEM
 * with a sentence that says it was for what.
 */
int perf__locks_init(pthread_mutex_t *mutex, pthread_cond_t *cond, const char *what);

/**
 * Waits until signalled or until deadline_ns of the system's monotonic clock
 * (0: for ever). False when the deadline passed. May wake for no reason.
 */
bool perf__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_ns);

/** Now plus ms on the clock that perf__cond_wait uses; 0 for ms <= 0. */
int64_t perf__deadline_after(int64_t ms);

/** Milliseconds until such a deadline, rounded up; 0: it has passed. Of 0, which is never, the
 * most. */
int64_t perf__deadline_left(int64_t deadline_ns);

#endif
