/* SPDX-License-Identifier: MIT */
/*
 * clock.h - time through the host's clock seam.
 *
 * Millisecond reads use the kernel's coarse clock when the host brought none:
 * it is several times cheaper than the precise one and exact to a few ms.
 */
#ifndef PERF_BASE_CLOCK_H
#define PERF_BASE_CLOCK_H

#include <libperf/types.h>
#include <time.h>

/** The system's clocks. */
extern const perf_clock perf__default_clock;

/** Monotonic nanoseconds, precise. */
static inline int64_t perf__now_ns(const perf_clock *c)
{
    return c->monotonic_ns(c->ctx);
}

/** Monotonic milliseconds, cheap. */
static inline int64_t perf__now_ms(const perf_clock *c)
{
    if (c->monotonic_ns == perf__default_clock.monotonic_ns) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    }
    return c->monotonic_ns(c->ctx) / 1000000;
}

/** Wall clock milliseconds since 1970. */
static inline int64_t perf__realtime_ms(const perf_clock *c)
{
    return c->realtime_ms(c->ctx);
}

/** The same, cheap: exact to a few ms when the host brought no clock. */
static inline int64_t perf__realtime_coarse_ms(const perf_clock *c)
{
    if (c->realtime_ms == perf__default_clock.realtime_ms) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME_COARSE, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    }
    return c->realtime_ms(c->ctx);
}

#endif
