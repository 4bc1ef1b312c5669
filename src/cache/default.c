/* SPDX-License-Identifier: MIT */
/*
 * default.c - the cache that PERF_CACHED functions use.
 *
 * Process-wide on purpose: a decorated function has no handle to pass. The host
 * sets it, keeps owning it, and takes it away before closing it. Any thread.
 */
#include "cache_impl.h"

static _Atomic(perf_cache *) default_cache;

perf_cache *perf_cache_set_default(perf_cache *cache)
{
    return atomic_exchange(&default_cache, cache);
}

perf_cache *perf_cache_default(void)
{
    return atomic_load_explicit(&default_cache, memory_order_acquire);
}

void perf__cache_forget_default(perf_cache *cache)
{
    perf_cache *expected = cache;
    (void)atomic_compare_exchange_strong(&default_cache, &expected, NULL);
}
