/* SPDX-License-Identifier: MIT */
/*
 * series.c - counting: what happens every time, in a few nanoseconds. Any thread,
 * no lock.
 */
#include <string.h>

#include "../base/status.h"
#include "metrics_impl.h"

/* ---------------------------------------------------------------- counters */

void perf_counter_add(perf_counter *counter, uint64_t n)
{
    if (__builtin_expect(counter != NULL, 1))
        perf__counters_add(counter->cells, counter->index, n);
}

uint64_t perf_counter_value(const perf_counter *counter)
{
    return counter ? perf__counters_sum(counter->cells, counter->index) : 0;
}

/* ------------------------------------------------------------------ gauges */

double perf__number_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint64_t perf__bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void perf_gauge_set(perf_gauge *gauge, double value)
{
    if (gauge)
        atomic_store_explicit(&gauge->bits, perf__bits_of(value), memory_order_relaxed);
}

void perf_gauge_add(perf_gauge *gauge, double n)
{
    if (!gauge)
        return;
    uint64_t old = atomic_load_explicit(&gauge->bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&gauge->bits, &old,
                                                  perf__bits_of(perf__number_of(old) + n),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

double perf_gauge_value(const perf_gauge *gauge)
{
    return gauge ? perf__number_of(atomic_load_explicit(&gauge->bits, memory_order_relaxed)) : 0;
}

/* -------------------------------------------------------------- histograms */

void perf_histogram_record(perf_histogram *h, uint64_t value)
{
    if (__builtin_expect(h != NULL, 1))
        perf__histogram_record(&h->cells, value);
}

void perf_histogram_record_many(perf_histogram *h, uint64_t value, uint64_t n)
{
    if (h && n)
        perf__histogram_record_many(&h->cells, value, n);
}

/* A stall of a day would be millions of them: then each of so many stands for several. */
enum { EXPECTED_MAX = 1000 };

void perf_histogram_record_expected(perf_histogram *h, uint64_t value, uint64_t expected)
{
    if (!h)
        return;
    perf__histogram_record(&h->cells, value);
    uint64_t missed = expected && value > expected ? value / expected - 1 : 0;
    uint64_t points = missed < EXPECTED_MAX ? missed : EXPECTED_MAX;
    for (uint64_t i = 0; i < points; i++) {
        uint64_t each = missed / points + (i < missed % points);
        uint64_t before = missed / points * i + (i < missed % points ? i : missed % points);
        /* The middle one of those it stands for. */
        perf__histogram_record_many(&h->cells, value - (before + (each + 1) / 2) * expected, each);
    }
}

uint64_t perf_histogram_count(const perf_histogram *h)
{
    struct perf__histogram_reader r;
    uint64_t counts[PERF__OCTAVE_BUCKETS], count = 0;
    if (!h)
        return 0;
    perf__histogram_read(&h->cells, &r);
    for (uint32_t i = 0; i < PERF__OCTAVES; i++)
        if (perf__histogram_octave(&r, i, counts))
            for (int j = 0; j < PERF__OCTAVE_BUCKETS; j++)
                count += counts[j];
    return count;
}

uint64_t perf_histogram_quantile(const perf_histogram *h, double q)
{
    struct perf__histogram_reader r;
    uint64_t counts[PERF__OCTAVE_BUCKETS], count = perf_histogram_count(h), seen = 0;
    if (!count)
        return 0;
    uint64_t rank = perf__histogram_rank(count, q);
    /* Meanwhile it may have grown: there still is a value of this rank. */
    perf__histogram_read(&h->cells, &r);
    for (uint32_t i = 0; i < PERF__OCTAVES; i++)
        if (perf__histogram_octave(&r, i, counts))
            for (uint32_t j = 0; j < PERF__OCTAVE_BUCKETS; j++)
                if ((seen += counts[j]) > rank)
                    return perf__histogram_middle(i * PERF__OCTAVE_BUCKETS + j);
    return 0;
}

const struct perf__histogram *perf__histogram_of(const perf_histogram *histogram)
{
    return &histogram->cells;
}
