/* SPDX-License-Identifier: MIT */
/*
 * options.h - taking in a caller's options struct of another version.
 *
 * The rule (types.h): fields the caller does not know are zero; fields we do
 * not know must be zero. Any thread.
 */
#ifndef PERF_BASE_OPTIONS_H
#define PERF_BASE_OPTIONS_H

#include <libperf/types.h>

/**
 * Copies *given (a struct beginning with size_t struct_size) into *own of
 * own_size bytes; the rest becomes zero. given NULL: all zero. own's
 * struct_size becomes own_size.
 * PERF_EINVAL, naming the struct, when struct_size is too small or too large
 * to be true, or when a field that this library does not know is set.
 */
int perf__options_take(const char *type, const void *given, void *own, size_t own_size);

/**
 * Is theirs a struct to be filled, of a plausible struct_size? *size receives it (read once, so
 * that it cannot change between check and use). PERF_EINVAL naming the type if not.
 */
int perf__options_check_out(const char *type, const void *theirs, size_t *size);

/**
 * Hands out as much of ours as the caller's struct can take: an older caller gets the fields it
 * knows, a newer one zeros in those that we do not. Its struct_size stays.
 */
void perf__options_give(void *theirs, size_t their_size, const void *ours, size_t our_size);

/** PERF_EINVAL naming field, value, bounds, unless min <= value <= max. */
int perf__check_range(const char *field, int64_t value, int64_t min, int64_t max);

/** PERF_EINVAL naming field and bounds, unless min <= len <= max. For names and keys. */
int perf__check_len(const char *field, size_t len, size_t min, size_t max);

/** Fills own with the host's seams (NULL members and NULL host: the defaults), by value. */
struct perf__host {
    perf_allocator allocator;
    perf_clock clock;
    perf_log log;
    perf_host view; /**< the same as pointers into this struct, for backends */
};
int perf__host_take(const perf_host *given, struct perf__host *own);

#endif
