/* SPDX-License-Identifier: MIT */
/*
 * histogram.c - rows and pages of log-linear histograms, made when they are
 * first needed; reading them, and quantiles. Any thread.
 */
#include "histogram.h"

#include <string.h>

#include "../base/status.h"
#include "lines.h"

int perf__histogram_init(struct perf__histogram *h, const perf_allocator *allocator)
{
    memset(h, 0, sizeof *h);
    h->allocator = allocator;
    return PERF_OK;
}

static void row_free(const perf_allocator *allocator, struct perf__histogram_row *row)
{
    if (!row)
        return;
    for (int i = 0; i < PERF__OCTAVES; i++)
        perf__lines_free(allocator, atomic_load(&row->pages[i]));
    perf__lines_free(allocator, row);
}

void perf__histogram_destroy(struct perf__histogram *h)
{
    row_free(h->allocator, atomic_load(&h->shared));
    for (int i = 2; i <= PERF__THREAD_SLOTS; i++)
        row_free(h->allocator, atomic_load(&h->rows[i]));
    memset(h, 0, sizeof *h);
}

/* ---------------------------------------------------------------- buckets */

static uint32_t shift_of(uint32_t bucket)
{
    return bucket < 2 * PERF__OCTAVE_BUCKETS ? 0 : (bucket >> PERF__OCTAVE_BITS) - 1;
}

uint64_t perf__histogram_low(uint32_t bucket)
{
    uint32_t shift = shift_of(bucket);
    return (uint64_t)(bucket - (shift << PERF__OCTAVE_BITS)) << shift;
}

uint64_t perf__histogram_high(uint32_t bucket)
{
    return perf__histogram_low(bucket) + (UINT64_C(1) << shift_of(bucket)) - 1;
}

uint64_t perf__histogram_middle(uint32_t bucket)
{
    return perf__histogram_low(bucket) + (UINT64_C(1) << shift_of(bucket)) / 2;
}

/* --------------------------------------------------------------- recording */

/* The page of a row; made if it is not there. Threads of the shared row may race for it. */
static perf__cell *page_of(struct perf__histogram *h, struct perf__histogram_row *row,
                           uint32_t octave)
{
    perf__cell *page = atomic_load_explicit(&row->pages[octave], memory_order_acquire);
    if (page)
        return page;
    perf__cell *made = perf__lines_new(h->allocator, PERF__OCTAVE_BUCKETS * sizeof *made);
    if (!made || atomic_compare_exchange_strong(&row->pages[octave], &page, made))
        return made;
    perf__lines_free(h->allocator, made);
    return page;
}

static struct perf__histogram_row *row_of(struct perf__histogram *h,
                                          _Atomic(struct perf__histogram_row *) *place)
{
    struct perf__histogram_row *row = atomic_load_explicit(place, memory_order_acquire);
    if (row)
        return row;
    struct perf__histogram_row *made = perf__lines_new(h->allocator, sizeof *made);
    if (!made || atomic_compare_exchange_strong(place, &row, made))
        return made;
    perf__lines_free(h->allocator, made);
    return row;
}

void perf__histogram_record_slow(struct perf__histogram *h, uint64_t value, uint64_t n)
{
    uint32_t bucket = perf__histogram_bucket(value), octave = bucket >> PERF__OCTAVE_BITS;
    int slot = perf__thread_slot();
    struct perf__histogram_row *row = slot ? row_of(h, &h->rows[slot + 1]) : NULL;
    perf__cell *page = row ? page_of(h, row, octave) : NULL;
    if (!page) {
        row = row_of(h, &h->shared);
        page = row ? page_of(h, row, octave) : NULL;
    }
    /* Atomic adds are right in every row: a thread's own has no other writer. */
    perf__cell *cell = page ? &page[bucket % PERF__OCTAVE_BUCKETS] : &h->coarse[octave];
    atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
    atomic_fetch_add_explicit(page ? &row->sum : &h->coarse_sum, value * n, memory_order_release);
}

/* ----------------------------------------------------------------- reading */

static void read_row(struct perf__histogram_reader *r,
                     const _Atomic(struct perf__histogram_row *) *place)
{
    const struct perf__histogram_row *row = atomic_load_explicit(place, memory_order_acquire);
    if (!row)
        return;
    r->sum += atomic_load_explicit(&row->sum, memory_order_acquire);
    r->rows[r->count++] = row;
}

void perf__histogram_read(const struct perf__histogram *h, struct perf__histogram_reader *r)
{
    r->h = h;
    r->count = 0;
    r->sum = atomic_load_explicit(&h->coarse_sum, memory_order_acquire);
    read_row(r, &h->shared);
    for (int i = 2; i <= PERF__THREAD_SLOTS; i++)
        read_row(r, &h->rows[i]);
}

bool perf__histogram_octave(const struct perf__histogram_reader *r, uint32_t octave,
                            uint64_t counts[PERF__OCTAVE_BUCKETS])
{
    uint64_t coarse = atomic_load_explicit(&r->h->coarse[octave], memory_order_relaxed);
    bool any = coarse != 0;
    if (any) {
        memset(counts, 0, PERF__OCTAVE_BUCKETS * sizeof *counts);
        counts[PERF__OCTAVE_BUCKETS / 2] = coarse;
    }
    for (int i = 0; i < r->count; i++) {
        perf__cell *page = atomic_load_explicit(&r->rows[i]->pages[octave], memory_order_acquire);
        if (!page)
            continue;
        for (int j = 0; j < PERF__OCTAVE_BUCKETS; j++) {
            uint64_t count = atomic_load_explicit(&page[j], memory_order_relaxed);
            counts[j] = any ? counts[j] + count : count;
        }
        any = true;
    }
    return any;
}

uint64_t perf__histogram_rank(uint64_t count, double q)
{
    if (!(q > 0)) /* also NaN */
        return 0;
    double rank = q * (double)count;
    return rank >= (double)count ? count - 1 : (uint64_t)rank;
}

void perf__histogram_snapshot(const struct perf__histogram *h, struct perf__histogram_snapshot *out)
{
    struct perf__histogram_reader r;
    memset(out, 0, sizeof *out);
    perf__histogram_read(h, &r);
    out->sum = r.sum;
    for (uint32_t i = 0; i < PERF__OCTAVES; i++)
        perf__histogram_octave(&r, i, &out->buckets[i * PERF__OCTAVE_BUCKETS]);
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        out->count += out->buckets[i];
}

void perf__histogram_merge(struct perf__histogram_snapshot *into,
                           const struct perf__histogram_snapshot *other)
{
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += other->buckets[i];
    into->count += other->count;
    into->sum += other->sum;
}

uint64_t perf__histogram_quantile(const struct perf__histogram_snapshot *s, double q)
{
    if (!s->count)
        return 0;
    uint64_t rank = perf__histogram_rank(s->count, q), seen = 0;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        if ((seen += s->buckets[i]) > rank)
            return perf__histogram_middle(i);
    return 0;
}
