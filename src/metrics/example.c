/* SPDX-License-Identifier: MIT */
/*
 * example.c - a trace that ended in a bucket, for whoever wonders what such a
 * request looks like. Whoever comes while one is being written or read goes on
 * without: nobody waits for an example. Any thread.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "metrics_impl.h"

void perf__examples_destroy(struct perf_histogram *h)
{
    perf__free(h->cells.allocator, atomic_load(&h->examples));
}

static struct perf__example *examples(struct perf_histogram *h)
{
    struct perf__example *all = atomic_load_explicit(&h->examples, memory_order_acquire);
    if (all)
        return all;
    struct perf__example *made =
        perf__calloc(h->cells.allocator, h->metric->bounds_count + 1, sizeof *made);
    if (!made || atomic_compare_exchange_strong(&h->examples, &all, made))
        return made;
    perf__free(h->cells.allocator, made);
    return all;
}

/* Which line of the texts counts the value first. */
static uint32_t line_of(const struct perf__metric *metric, uint64_t value)
{
    uint32_t bucket = perf__histogram_bucket(value), i = 0;
    while (i < metric->bounds_count && bucket >= metric->limits[i])
        i++;
    return i;
}

/* As much of it as a text may show. */
static size_t printable(const char *text)
{
    size_t len = 0;
    while (len < PERF__TRACE_MAX && text[len] > ' ' && text[len] < 0x7f && text[len] != '"' &&
           text[len] != '\\')
        len++;
    return text[len] && len < PERF__TRACE_MAX ? 0 : len;
}

void perf_histogram_record_example(perf_histogram *h, uint64_t value, const char *trace_id)
{
    if (!h)
        return;
    perf__histogram_record(&h->cells, value);
    size_t len = trace_id ? printable(trace_id) : 0;
    struct perf__example *all = len ? examples(h) : NULL;
    if (!all)
        return;
    struct perf__example *e = &all[line_of(h->metric, value)];
    if (atomic_exchange_explicit(&e->busy, true, memory_order_acquire))
        return;
    memcpy(e->trace_id, trace_id, len);
    e->trace_id[len] = '\0';
    e->value = value;
    e->time_ms = perf__realtime_coarse_ms(h->clock);
    atomic_store_explicit(&e->busy, false, memory_order_release);
}

bool perf__example_read(struct perf__example *from, struct perf__example *to)
{
    if (atomic_exchange_explicit(&from->busy, true, memory_order_acquire))
        return false;
    memcpy(to->trace_id, from->trace_id, sizeof to->trace_id);
    to->value = from->value;
    to->time_ms = from->time_ms;
    atomic_store_explicit(&from->busy, false, memory_order_release);
    return to->time_ms != 0;
}
