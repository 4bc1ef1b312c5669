/* SPDX-License-Identifier: MIT */
/*
 * number.h - numbers as texts for other programs, whatever the host's locale is.
 * Values only, any thread.
 */
#ifndef PERF_BASE_NUMBER_H
#define PERF_BASE_NUMBER_H

#include <stddef.h>
#include <stdint.h>

enum { PERF__NUMBER_SIZE = 32 };

/** Decimal, with a zero byte behind; returns the length. */
size_t perf__number_u64(char out[PERF__NUMBER_SIZE], uint64_t value);

/** The shortest that reads back the same, with a point; finite ones only. Returns the length. */
size_t perf__number_double(char out[PERF__NUMBER_SIZE], double value);

#endif
