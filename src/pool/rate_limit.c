/* SPDX-License-Identifier: MIT */
/*
 * rate_limit.c - a token bucket that is exact over any time.
 *
 * The bucket is one number: how many permits were ever taken. From the clock
 * follows how many could have been by now if the bucket had never been full;
 * what exceeds the burst is forfeited. Permit k is due at ceil(k * period /
 * permits), computed anew each time in 128 bits, so no rounding adds up. It is
 * the generic cell rate algorithm (ITU-T I.371) counted in permits instead of
 * time. Any thread, no lock.
 */
#include "../base/hash.h" /* perf__uint128 */
#include "../base/status.h"
#include "part.h"

enum { PERMITTED, REJECTED, WAITED, COUNTERS };

/* Nothing is reserved further ahead, whatever the caller allows: 36 years. */
#define LONGEST_NS (INT64_MAX / 8)

struct perf_rate_limit {
    struct perf__part part;
    int64_t permits, period_ns, burst;
    int64_t opened_ns;
    _Atomic int64_t taken; /* permits; the first burst of them was there from the start */
};

int perf_rate_limit_open(const perf_rate_limit_options *given, perf_rate_limit **out)
{
    perf_rate_limit_options o;
    perf_rate_limit *limit;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the rate limit");
    if ((rc = perf__options_take("perf_rate_limit_options", given, &o, sizeof o)) ||
        (rc = perf__option("permits", &o.permits, 50, 1, 1000000000)) ||
        (rc = perf__option("period_ms", &o.period_ms, 1000, 1, 86400000)) ||
        (rc = perf__option("burst", &o.burst, o.permits, 1, 1000000000)) ||
        (rc = perf__check_range("permits", o.permits, 1, o.period_ms * 1000000)) ||
        (rc = perf__part_open("a rate limit", o.host, sizeof *limit, COUNTERS, &limit)))
        return rc;
    limit->permits = o.permits;
    limit->period_ns = o.period_ms * 1000000;
    limit->burst = o.burst;
    limit->opened_ns = perf__part_now(&limit->part);
    *out = limit;
    return PERF_OK;
}

int perf_rate_limit_close(perf_rate_limit *limit)
{
    if (limit)
        perf__part_free(&limit->part);
    return PERF_OK;
}

/* How many permits may have been taken by then: the burst, and what has come since. */
static int64_t due_by(const perf_rate_limit *limit, int64_t now_ns)
{
    int64_t passed = now_ns - limit->opened_ns;
    if (passed < 0)
        passed = 0;
    return limit->burst +
           (int64_t)((perf__uint128)passed * (uint64_t)limit->permits / (uint64_t)limit->period_ns);
}

/* When that many may have been taken. */
static int64_t time_of(const perf_rate_limit *limit, int64_t taken)
{
    perf__uint128 permits = (uint64_t)limit->permits, period = (uint64_t)limit->period_ns;
    if (taken <= limit->burst)
        return limit->opened_ns;
    perf__uint128 ns =
        ((perf__uint128)(uint64_t)(taken - limit->burst) * period + permits - 1) / permits;
    int64_t most = INT64_MAX - limit->opened_ns;
    return ns > (uint64_t)most ? INT64_MAX : limit->opened_ns + (int64_t)ns;
}

/* Takes n permits; *wait_ns is how long until they are due. False if that is more than most_ns. */
static bool take(perf_rate_limit *limit, int64_t n, int64_t most_ns, int64_t *wait_ns)
{
    int64_t now = perf__part_now(&limit->part), due = due_by(limit, now);
    int64_t taken = atomic_load_explicit(&limit->taken, memory_order_relaxed), next;
    do {
        next = (taken < due - limit->burst ? due - limit->burst : taken) + n;
        *wait_ns = next <= due ? 0 : time_of(limit, next) - now;
        if (*wait_ns > (most_ns < LONGEST_NS ? most_ns : LONGEST_NS))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&limit->taken, &taken, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static int check(perf_rate_limit *limit, int64_t permits)
{
    int rc = perf__part_check(limit ? &limit->part : NULL, "rate limit");
    return rc ? rc : perf__check_range("permits", permits, 1, limit->burst);
}

static int count(perf_rate_limit *limit, bool taken, int64_t permits, int64_t wait_ns)
{
    perf__counters_add(&limit->part.counters, taken ? PERMITTED : REJECTED, (uint64_t)permits);
    if (!taken)
        return perf__fail(PERF_EREJECTED, "the rate limit has no permit for another %lld ms",
                          (long long)perf__ceil_ms(wait_ns));
    if (wait_ns)
        perf__part_count(&limit->part, WAITED);
    return PERF_OK;
}

int perf_rate_limit_try(perf_rate_limit *limit, int64_t permits)
{
    int64_t wait_ns;
    int rc = check(limit, permits);
    if (rc)
        return rc;
    bool taken = take(limit, permits, 0, &wait_ns);
    return count(limit, taken, permits, wait_ns);
}

int perf_rate_limit_reserve(perf_rate_limit *limit, int64_t permits, int64_t max_wait_ms,
                            int64_t *wait_ms)
{
    int64_t wait_ns;
    int rc;
    if ((rc = check(limit, permits)))
        return rc;
    if (!wait_ms)
        return perf__fail(PERF_EINVAL, "wait_ms is NULL; give a place for the wait");
    int64_t most = max_wait_ms < 0 ? INT64_MAX : perf__add_ms(0, max_wait_ms);
    bool taken = take(limit, permits, most, &wait_ns);
    if ((rc = count(limit, taken, permits, wait_ns)))
        return rc;
    *wait_ms = perf__ceil_ms(wait_ns);
    return PERF_OK;
}

void perf_rate_limit_cancel(perf_rate_limit *limit, int64_t permits)
{
    if (!limit || !perf__part_usable(&limit->part) || permits < 1 || permits > limit->burst)
        return;
    int64_t taken = atomic_load_explicit(&limit->taken, memory_order_relaxed), next;
    do {
        next = taken > permits ? taken - permits : 0;
    } while (!atomic_compare_exchange_weak_explicit(&limit->taken, &taken, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

int perf_rate_limit_acquire(perf_rate_limit *limit, int64_t permits, int64_t timeout_ms)
{
    int64_t wait_ns;
    int rc = check(limit, permits);
    if (rc)
        return rc;
    const perf_clock *clock = &limit->part.host.clock;
    int64_t now = perf__now_ns(clock), until = perf__wait_until(clock, timeout_ms);
    int64_t most = !until ? INT64_MAX : until > now ? until - now : 0;
    bool taken = take(limit, permits, most, &wait_ns);
    if ((rc = count(limit, taken, permits, wait_ns)))
        return rc;
    if (wait_ns)
        perf__sleep_until(clock, perf__now_ns(clock) + wait_ns);
    return PERF_OK;
}

int perf_rate_limit_get_stats(perf_rate_limit *limit, perf_rate_limit_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(limit ? &limit->part : NULL, "rate limit")) ||
        (rc = perf__options_check_out("perf_rate_limit_stats", stats, &size)))
        return rc;
    int64_t left = due_by(limit, perf__part_now(&limit->part)) - atomic_load(&limit->taken);
    perf_rate_limit_stats own = {
        .struct_size = sizeof own,
        .available = left > limit->burst ? limit->burst : left,
        .permitted = perf__part_sum(&limit->part, PERMITTED),
        .rejected = perf__part_sum(&limit->part, REJECTED),
        .waited = perf__part_sum(&limit->part, WAITED),
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
