/* SPDX-License-Identifier: MIT */
/*
 * lines.h - zeroed memory that fills whole cache lines of its own, for what one
 * thread writes and others must not be slowed by. Any thread.
 */
#ifndef PERF_METRICS_LINES_H
#define PERF_METRICS_LINES_H

#include "../base/alloc.h"

/* NULL when there is no memory. */
void *perf__lines_new(const perf_allocator *allocator, size_t size);
/* NULL is allowed. */
void perf__lines_free(const perf_allocator *allocator, void *lines);

#endif
