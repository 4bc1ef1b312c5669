/* SPDX-License-Identifier: MIT */
/* clock.c - the system's clocks behind the clock seam. Any thread. */
#include "clock.h"

static int64_t system_monotonic_ns(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t system_realtime_ms(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const perf_clock perf__default_clock = {sizeof(perf_clock), NULL, system_monotonic_ns,
                                        system_realtime_ms};
