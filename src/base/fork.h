/* SPDX-License-Identifier: MIT */
/*
 * fork.h - noticing that we are a forked child, for less than a nanosecond.
 *
 * A handle remembers the generation it was opened in; after fork() the child's
 * generation is another, and every call on an old handle returns PERF_EFORKED
 * instead of hanging on a lock that some vanished thread holds.
 */
#ifndef PERF_BASE_FORK_H
#define PERF_BASE_FORK_H

#include <libperf/types.h>

/* Process-wide by nature: it counts this process's forks. Written only in the child of
 * a fork, before it has a second thread. */
extern uint64_t perf__fork_generation;

/** Arms the counter; call before taking a generation. PERF_OK or PERF_ENOMEM. */
int perf__fork_arm(void);

/** Sets the error text and returns PERF_EFORKED. */
int perf__fail_forked(void) __attribute__((cold));

#endif
