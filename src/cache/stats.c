/* SPDX-License-Identifier: MIT */
/* stats.c - sums up what the namespaces, memory and the tiers have counted. Any thread. */
#include "cache_impl.h"

#include <string.h>

static void add_namespace(perf_cache *cache, const struct perf__namespace *ns, perf_cache_stats *s)
{
    uint64_t c[PERF__COUNTS];
    for (uint32_t i = 0; i < PERF__COUNTS; i++)
        c[i] = perf__counters_sum(&ns->counts, i);
    s->hits += c[PERF__MEMORY_HITS] + c[PERF__TIER_HITS];
    s->memory_hits += c[PERF__MEMORY_HITS];
    s->misses += c[PERF__MISSES];
    s->stale_hits += c[PERF__STALE_HITS];
    s->negative_hits += c[PERF__NEGATIVE_HITS];
    s->loads += c[PERF__LOADS];
    s->load_failures += c[PERF__LOAD_FAILURES];
    s->load_ns += c[PERF__LOAD_NS];
    s->loads_suppressed += c[PERF__LOADS_SUPPRESSED];
    s->loads_discarded += c[PERF__LOADS_DISCARDED];
    s->refreshes += c[PERF__REFRESHES];
    s->sets += c[PERF__SETS];
    s->deletes += c[PERF__DELETES];
    s->rejections += c[PERF__REJECTIONS];
    s->collisions += c[PERF__COLLISIONS];
    s->damaged += c[PERF__DAMAGED];

    struct perf__memory_ns_counts m;
    perf__memory_ns_counts(cache->memory, ns->id, &m);
    s->entries += m.entries;
    s->bytes += m.bytes;
    s->evictions += m.evictions;
    s->expirations += m.expirations;
    s->invalidations += m.invalidations;
    s->collisions += m.collisions;
}

int perf_cache_get_stats(perf_cache *cache, const char *ns, perf_cache_stats *out)
{
    perf_cache_stats stats = PERF_CACHE_STATS_INIT;
    size_t size = 0;
    int rc = perf__cache_check(cache);
    if (rc || (rc = perf__options_check_out("perf_cache_stats", out, &size)))
        return rc;
    if (ns) {
        size_t len = strnlen(ns, PERF__NAME_MAX + 1);
        const struct perf__namespace *space =
            len <= PERF__NAME_MAX ? perf__namespace_find(&cache->namespaces, ns, len) : NULL;
        if (!space)
            return PERF_MISS;
        add_namespace(cache, space, &stats);
    } else {
        const struct perf__namespace *space;
        for (uint32_t id = 0;
             id < 65536 && (space = perf__namespace_by_id(&cache->namespaces, (uint16_t)id)); id++)
            add_namespace(cache, space, &stats);
        struct perf__memory_usage usage;
        perf__memory_usage(cache->memory, &usage);
        stats.entries = usage.entries;
        stats.bytes = usage.bytes;
        stats.max_bytes = usage.max_bytes;
        stats.evictions = usage.evictions;
        stats.expirations = usage.expirations;
        stats.invalidations = usage.invalidations;
    }
    perf__options_give(out, size, &stats, sizeof stats);
    return PERF_OK;
}

int perf_cache_get_tier_stats(perf_cache *cache, size_t tier, perf_tier_stats *out)
{
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    size_t size = 0;
    int rc = perf__cache_check(cache);
    if (rc || (rc = perf__options_check_out("perf_tier_stats", out, &size)))
        return rc;
    if (tier >= cache->tier_count)
        return PERF_MISS;
    perf__tier_stats(cache->tiers[tier], &stats);
    const struct perf__hearing *hearing = &cache->coherence.hearing[tier];
    stats.heard = atomic_load_explicit(&hearing->heard, memory_order_relaxed);
    stats.gaps = atomic_load_explicit(&hearing->gaps, memory_order_relaxed);
    perf__options_give(out, size, &stats, sizeof stats);
    return PERF_OK;
}
