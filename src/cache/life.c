/* SPDX-License-Identifier: MIT */
/*
 * life.c - from TTLs to times. Memory counts in monotonic milliseconds, what
 * leaves the process in wall clock ones; only the life that is left is ever
 * carried over. Pure functions, any thread.
 */
#include "cache_impl.h"

/* A thousand years: sums of times stay far from overflow. */
static const int64_t ttl_max = 1000LL * 365 * 24 * 3600 * 1000;

int perf__life_of(const struct perf__op *op, int64_t now, int64_t ttl_ms, int64_t stale_ms,
                  struct perf__life *life)
{
    const perf_namespace_options *policy = &op->policy->options;
    int rc;
    if ((rc = perf__check_range("ttl_ms", ttl_ms, PERF_TTL_FOREVER, ttl_max)) ||
        (rc = perf__check_range("stale_ms", stale_ms, -1, ttl_max)))
        return rc;
    if (ttl_ms == PERF_TTL_DEFAULT)
        ttl_ms = policy->ttl_ms;
    if (ttl_ms <= 0) {
        life->fresh_until = life->dead_at = PERF__NEVER;
        return PERF_OK;
    }
    /* Jitter only shortens: nothing lives longer than was asked for. */
    int64_t spread =
        ttl_ms / 100 * policy->jitter_percent + ttl_ms % 100 * policy->jitter_percent / 100;
    if (spread > 0)
        ttl_ms -= (int64_t)(perf__thread_random() % (uint64_t)(spread + 1));
    if (stale_ms == 0)
        stale_ms = policy->stale_ms;
    life->fresh_until = now + ttl_ms;
    life->dead_at = life->fresh_until + (stale_ms > 0 ? stale_ms : 0);
    return PERF_OK;
}

int64_t perf__life_to_wall(const perf_cache *cache, int64_t now, int64_t time)
{
    if (time == PERF__NEVER)
        return 0;
    int64_t wall = perf__realtime_coarse_ms(&cache->host.clock) + (time - now);
    return wall > 0 ? wall : 1;
}

int64_t perf__life_from_wall(const perf_cache *cache, int64_t now, int64_t wall)
{
    if (wall <= 0)
        return PERF__NEVER;
    int64_t left = wall - perf__realtime_coarse_ms(&cache->host.clock);
    if (left > 2 * ttl_max) /* a damaged or foreign clock: better too short than for ever */
        left = 2 * ttl_max;
    return now + left;
}
