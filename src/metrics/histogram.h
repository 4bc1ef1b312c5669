/* SPDX-License-Identifier: MIT */
/*
 * histogram.h - a distribution with a bounded relative error.
 *
 * Log-linear buckets as in HdrHistogram (Tene): every power of two (an octave)
 * is cut into 64 equal parts, so a reported quantile is within 1/128 (0.8 %) of
 * a recorded value, over all of uint64_t.
 *
 * Every numbered thread records into a row of its own with plain stores. A row
 * is a sum and a table of pages, one an octave, each made when first touched:
 * values seldom span more than a few octaves, and all of them would be 30 KB a
 * thread. Threads without a number, or without memory, share a row by atomic
 * adds; and where that one has no page either, a value is counted by its octave
 * alone. No value is ever lost.
 *
 * A thread stores the bucket before the sum, and readers read sums first: no
 * value is in a sum without being in a bucket. Any thread may record and read.
 */
#ifndef PERF_METRICS_HISTOGRAM_H
#define PERF_METRICS_HISTOGRAM_H

#include <libperf/metrics.h>
#include <stdbool.h>

#include "counter.h"

enum {
    PERF__OCTAVE_BITS = 6,
    PERF__OCTAVE_BUCKETS = 1 << PERF__OCTAVE_BITS,
    /* Number 0 is 0 to 63, number 1 is 64 to 127, the last one ends with UINT64_MAX. */
    PERF__OCTAVES = 64 - PERF__OCTAVE_BITS + 1,
    PERF__HISTOGRAM_BUCKETS = PERF__OCTAVES * PERF__OCTAVE_BUCKETS,
};

struct perf__histogram_row {
    perf__cell sum; /* modulo 2^64 */
    _Atomic(perf__cell *) pages[PERF__OCTAVES];
};

struct perf__histogram {
    const perf_allocator *allocator;
    _Atomic(struct perf__histogram_row *) shared;
    _Atomic(struct perf__histogram_row *) rows[PERF__THREAD_SLOTS + 1]; /* as those of counters */
    perf__cell coarse_sum, coarse[PERF__OCTAVES]; /* what no page could be made for */
};

/* Takes no memory until values come. allocator outlives the histogram. PERF_OK. */
int perf__histogram_init(struct perf__histogram *h, const perf_allocator *allocator);
void perf__histogram_destroy(struct perf__histogram *h);

/* The number of a value's bucket: octave and place in it. */
static inline uint32_t perf__histogram_bucket(uint64_t value)
{
    uint32_t shift =
        63 - PERF__OCTAVE_BITS - (uint32_t)__builtin_clzll(value | (uint64_t)PERF__OCTAVE_BUCKETS);
    return (shift << PERF__OCTAVE_BITS) + (uint32_t)(value >> shift);
}

/* The least and the largest value of a bucket, and what is between them. */
uint64_t perf__histogram_low(uint32_t bucket);
uint64_t perf__histogram_high(uint32_t bucket);
uint64_t perf__histogram_middle(uint32_t bucket);

/* Makes what is missing, or shares. */
void perf__histogram_record_slow(struct perf__histogram *h, uint64_t value, uint64_t n);

/* Records value n times. */
static inline void perf__histogram_record_many(struct perf__histogram *h, uint64_t value,
                                               uint64_t n)
{
    uint32_t bucket = perf__histogram_bucket(value);
    struct perf__histogram_row *row =
        atomic_load_explicit(&h->rows[perf__thread_slot_cached + 1], memory_order_acquire);
    perf__cell *page = NULL;
    if (__builtin_expect(row != NULL, 1))
        page = atomic_load_explicit(&row->pages[bucket >> PERF__OCTAVE_BITS], memory_order_relaxed);
    if (__builtin_expect(!page, 0)) {
        perf__histogram_record_slow(h, value, n);
        return;
    }
    perf__cell *cell = &page[bucket % PERF__OCTAVE_BUCKETS];
    uint64_t count = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, count + n, memory_order_relaxed);
    uint64_t sum = atomic_load_explicit(&row->sum, memory_order_relaxed);
    atomic_store_explicit(&row->sum, sum + value * n, memory_order_release);
}

static inline void perf__histogram_record(struct perf__histogram *h, uint64_t value)
{
    perf__histogram_record_many(h, value, 1);
}

/* Reading octave by octave, without memory: begin takes the sums, then each octave in order. */
struct perf__histogram_reader {
    const struct perf__histogram *h;
    uint64_t sum;
    int count;
    const struct perf__histogram_row *rows[PERF__THREAD_SLOTS];
};
void perf__histogram_read(const struct perf__histogram *h, struct perf__histogram_reader *reader);
/* False: it is empty, and counts is not touched. */
bool perf__histogram_octave(const struct perf__histogram_reader *reader, uint32_t octave,
                            uint64_t counts[PERF__OCTAVE_BUCKETS]);

/* Which of count values, from the least and from 0, the quantile q is. count is not 0. */
uint64_t perf__histogram_rank(uint64_t count, double q);

/* Where the values of a public histogram are, for the rooms above. */
const struct perf__histogram *perf__histogram_of(const perf_histogram *histogram);

/* What was recorded up to some moment; plain numbers, one owner. */
struct perf__histogram_snapshot {
    uint64_t count, sum;
    uint64_t buckets[PERF__HISTOGRAM_BUCKETS];
};

void perf__histogram_snapshot(const struct perf__histogram *h,
                              struct perf__histogram_snapshot *out);
void perf__histogram_merge(struct perf__histogram_snapshot *into,
                           const struct perf__histogram_snapshot *other);

/* The value below which the share q (0..1) of all lies: the middle of its bucket; 0 if empty. */
uint64_t perf__histogram_quantile(const struct perf__histogram_snapshot *s, double q);

#endif
