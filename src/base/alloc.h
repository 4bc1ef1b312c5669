/* SPDX-License-Identifier: MIT */
/*
 * alloc.h - memory through the host's allocator.
 *
 * Every handle carries the perf_allocator it was opened with; there is no
 * global one to replace. Any thread.
 */
#ifndef PERF_BASE_ALLOC_H
#define PERF_BASE_ALLOC_H

#include <libperf/types.h>

/** malloc, realloc and free. */
extern const perf_allocator perf__default_allocator;

/** NULL when there is no memory; the caller says what it was for. */
void *perf__alloc(const perf_allocator *a, size_t size);
/** The same, zeroed; NULL also when count * size overflows. */
void *perf__calloc(const perf_allocator *a, size_t count, size_t size);
void *perf__realloc(const perf_allocator *a, void *block, size_t size);
/** NULL is allowed. */
void perf__free(const perf_allocator *a, void *block);
/** A copy of len bytes with a zero byte behind it. */
char *perf__strndup(const perf_allocator *a, const void *text, size_t len);

#endif
