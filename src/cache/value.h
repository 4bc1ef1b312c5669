/* SPDX-License-Identifier: MIT */
/*
 * value.h - what a perf_value is inside.
 *
 * A handle with the bytes behind it, or with a pin on bytes that live in the
 * memory tier's arena (large values). Immutable once handed out; release may
 * happen on any thread, also after the cache was closed.
 */
#ifndef PERF_CACHE_VALUE_H
#define PERF_CACHE_VALUE_H

#include <libperf/cache.h>

#include "memory_tier.h"

struct perf_value {
    const void *data;
    size_t len;
    uint64_t version;
    int64_t ttl_ms; /* as perf_value_ttl_ms says */
    int32_t stale;
    int32_t kind; /* PERF__ENTRY_...; never NEGATIVE for a host */
    perf_allocator allocator;
    void (*unpin)(void *owner, uint64_t pin); /* NULL: the bytes are behind the handle */
    void *owner;
    uint64_t pin;
    unsigned char bytes[];
};

/* A handle with room for len bytes behind it, data pointing there; NULL without memory. */
perf_value *perf__value_new(const perf_allocator *allocator, size_t len);

#endif
