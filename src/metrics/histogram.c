/* SPDX-License-Identifier: MIT */
/* histogram.c - snapshots and quantiles of log-linear histograms. Any thread. */
#include "histogram.h"

int perf__histogram_init(struct perf__histogram *h, const perf_allocator *allocator)
{
    return perf__counters_init(&h->buckets, allocator, PERF__HISTOGRAM_BUCKETS + 1);
}

void perf__histogram_destroy(struct perf__histogram *h)
{
    perf__counters_destroy(&h->buckets);
}

void perf__histogram_snapshot(const struct perf__histogram *h, struct perf__histogram_snapshot *out)
{
    out->count = 0;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        out->count += out->buckets[i] = perf__counters_sum(&h->buckets, i);
    out->sum = perf__counters_sum(&h->buckets, PERF__HISTOGRAM_BUCKETS);
}

void perf__histogram_merge(struct perf__histogram_snapshot *into,
                           const struct perf__histogram_snapshot *other)
{
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += other->buckets[i];
    into->count += other->count;
    into->sum += other->sum;
}

/* The middle of bucket i: the inverse of perf__histogram_bucket. */
static uint64_t bucket_middle(uint32_t i)
{
    const uint32_t sub = 1u << PERF__HISTOGRAM_SUB_BITS;
    if (i < 2 * sub)
        return i;
    uint32_t shift = (i >> PERF__HISTOGRAM_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(i - (shift << PERF__HISTOGRAM_SUB_BITS)) << shift;
    return low + (1ull << shift) / 2;
}

uint64_t perf__histogram_quantile(const struct perf__histogram_snapshot *s, double q)
{
    if (!s->count)
        return 0;
    if (!(q > 0)) /* also NaN */
        q = 0;
    if (q > 1)
        q = 1;
    uint64_t rank = (uint64_t)(q * (double)s->count), seen = 0;
    if (rank >= s->count)
        rank = s->count - 1;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        if ((seen += s->buckets[i]) > rank)
            return bucket_middle(i);
    return 0;
}
