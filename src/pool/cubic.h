/* SPDX-License-Identifier: MIT */
/*
 * cubic.h - the client-side rate of adaptive retries.
 *
 * Until the first throttle it only measures. Then a token bucket is filled at a
 * rate that a throttle cuts to 0.7 and that grows back as CUBIC does (Ha, Rhee,
 * Xu, "CUBIC: a new TCP-friendly high-speed TCP variant", SIGOPS OSR 2008),
 * never beyond twice the measured rate. The constants are those of the AWS SDKs
 * (botocore 1.44.5, retries/adaptive.py, throttling.py, bucket.py). Any thread:
 * a mutex, held for a few arithmetic operations.
 */
#ifndef PERF_POOL_CUBIC_H
#define PERF_POOL_CUBIC_H

#include "part.h"

#include <pthread.h>

struct perf__cubic {
    pthread_mutex_t mutex;
    const perf_clock *clock;
    _Atomic bool enabled;
    /* the rate at which requests are answered, in windows of half a second */
    double measured, last_bucket;
    int64_t count;
    /* cubic growth since the last throttle */
    double w_max, k, last_fail;
    /* the token bucket; below zero: given out ahead of time */
    double fill_rate, capacity, tokens, last_fill;
};

void perf__cubic_init(struct perf__cubic *cubic, const perf_clock *clock);
void perf__cubic_destroy(struct perf__cubic *cubic);

/**
 * Takes a token and says in how many nanoseconds it is due; false, and nothing taken, when that is
 * more than max_wait_ns (negative: any time).
 */
bool perf__cubic_take(struct perf__cubic *cubic, int64_t max_wait_ns, int64_t *wait_ns);

/** A reply came. */
void perf__cubic_reply(struct perf__cubic *cubic, bool throttled);

/** The rates, in requests a second. */
void perf__cubic_read(struct perf__cubic *cubic, double *rate, double *measured);

#endif
