/* SPDX-License-Identifier: MIT */
/*
 * status.h - failing with a code and a sentence.
 *
 * The sentence is per thread and says what happened, to what, and what to do:
 *     return perf__fail(PERF_EINVAL, "ttl_ms is %lld; give 0 or more", ...);
 */
#ifndef PERF_BASE_STATUS_H
#define PERF_BASE_STATUS_H

#include <libperf/types.h>

/** Remembers the sentence for perf_last_error and returns code. Any thread. */
int perf__fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/** The same for memory that could not be had: names what it was for. */
int perf__fail_nomem(const char *what) __attribute__((cold));

#endif
