/* SPDX-License-Identifier: MIT */
/*
 * histogram.h - a distribution with a bounded relative error.
 *
 * Log-linear buckets as in HdrHistogram (Tene): every power of two is cut into
 * 64 equal parts, so a reported quantile is within 1/128 (0.8 %) of a recorded
 * value. Values from 0 to 2^40 - 1 (18 minutes in nanoseconds); larger ones
 * count as the largest. Recording is a counter add; snapshots can be merged.
 * Any thread may record.
 */
#ifndef PERF_METRICS_HISTOGRAM_H
#define PERF_METRICS_HISTOGRAM_H

#include "counter.h"

enum {
    PERF__HISTOGRAM_SUB_BITS = 6,
    PERF__HISTOGRAM_MAX_BITS = 40,
    PERF__HISTOGRAM_BUCKETS = (PERF__HISTOGRAM_MAX_BITS - PERF__HISTOGRAM_SUB_BITS + 1)
                              << PERF__HISTOGRAM_SUB_BITS,
};

struct perf__histogram {
    struct perf__counters buckets; /* and the sum of all values behind them */
};

/* What was recorded up to some moment; plain numbers, one owner. */
struct perf__histogram_snapshot {
    uint64_t count, sum;
    uint64_t buckets[PERF__HISTOGRAM_BUCKETS];
};

int perf__histogram_init(struct perf__histogram *h, const perf_allocator *allocator);
void perf__histogram_destroy(struct perf__histogram *h);

static inline uint32_t perf__histogram_bucket(uint64_t value)
{
    const uint64_t max = (1ull << PERF__HISTOGRAM_MAX_BITS) - 1;
    if (value > max)
        value = max;
    if (value < 1u << PERF__HISTOGRAM_SUB_BITS)
        return (uint32_t)value;
    uint32_t shift = 63 - PERF__HISTOGRAM_SUB_BITS - (uint32_t)__builtin_clzll(value);
    return (shift << PERF__HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

static inline void perf__histogram_record(struct perf__histogram *h, uint64_t value)
{
    perf__counters_add(&h->buckets, perf__histogram_bucket(value), 1);
    perf__counters_add(&h->buckets, PERF__HISTOGRAM_BUCKETS, value);
}

void perf__histogram_snapshot(const struct perf__histogram *h,
                              struct perf__histogram_snapshot *out);
void perf__histogram_merge(struct perf__histogram_snapshot *into,
                           const struct perf__histogram_snapshot *other);

/* The value below which the share q (0..1) of all lies: the middle of its bucket; 0 if empty. */
uint64_t perf__histogram_quantile(const struct perf__histogram_snapshot *s, double q);

#endif
