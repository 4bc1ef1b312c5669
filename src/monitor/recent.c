/* SPDX-License-Identifier: MIT */
/*
 * recent.c - what requests were like in the last seconds, minutes and the last hour.
 *
 * Histograms only grow, and a tick takes what they grew by: that is added to the newest part of
 * each window, of WINDOW_SLOTS parts, each a list of the buckets that are not
 * empty. So a window slides by a tenth of its length, requests know nothing of
 * it, and an endpoint at rest takes no memory for its windows. Under
 * monitor.mutex.
 */
#include "recent.h"

#include <string.h>

#include "../base/status.h"

const int64_t perf__recent_ms[WINDOWS] = {PERF_WINDOW_10S, PERF_WINDOW_1M, PERF_WINDOW_5M,
                                          PERF_WINDOW_1H};

static int64_t part_ms(int window)
{
    return perf__recent_ms[window] / WINDOW_SLOTS;
}

/* ---------------------------------------------------------------- lists of buckets */

/* Makes room for so many. False: no memory. */
static bool reserve(perf_monitor *monitor, struct perf__buckets *b, uint32_t room)
{
    if (room <= b->room)
        return true;
    room += room / 4;
    void *all = perf__realloc(&monitor->host.allocator, b->all, room * sizeof *b->all);
    if (!all)
        return false;
    b->all = all;
    b->room = room;
    return true;
}

static void drop(perf_monitor *monitor, struct perf__buckets *b)
{
    perf__free(&monitor->host.allocator, b->all);
    memset(b, 0, sizeof *b);
}

/* How many a and b have together. */
static uint32_t united(const struct perf__buckets *a, const struct perf__buckets *b)
{
    uint32_t n = a->count, i = 0;
    for (uint32_t j = 0; j < b->count; j++) {
        while (i < a->count && a->all[i].index < b->all[j].index)
            i++;
        n += i == a->count || a->all[i].index != b->all[j].index;
    }
    return n;
}

/* Adds b to a, which has room, from the end so that nothing is written over. */
static void add(struct perf__buckets *a, const struct perf__buckets *b)
{
    uint32_t to = united(a, b), i = a->count, j = b->count;
    a->count = to;
    while (j) {
        struct perf__bucket *at = &a->all[--to];
        if (!i || a->all[i - 1].index < b->all[j - 1].index) {
            *at = b->all[--j];
        } else {
            *at = a->all[--i];
            if (at->index == b->all[j - 1].index)
                at->count += b->all[--j].count;
        }
    }
}

/* Makes b what fresh has more than before. Counts go round at 2^32, and so does the difference. */
static void subtract(struct perf__buckets *b, const struct perf__buckets *fresh,
                     const struct perf__buckets *before)
{
    uint32_t n = 0, j = 0;
    for (uint32_t i = 0; i < fresh->count; i++) {
        struct perf__bucket more = fresh->all[i];
        while (j < before->count && before->all[j].index < more.index)
            j++;
        if (j < before->count && before->all[j].index == more.index)
            more.count -= before->all[j].count;
        if (more.count)
            b->all[n++] = more;
    }
    b->count = n;
}

/* ------------------------------------------------------------------- the histogram */

bool perf__recent_open(perf_monitor *monitor, struct perf__endpoint *e)
{
    if (!perf_histogram_count(e->latency))
        return true;
    e->before = perf__alloc(&monitor->host.allocator, sizeof *e->before);
    if (e->before)
        perf__histogram_snapshot(perf__histogram_of(e->latency), e->before);
    return e->before;
}

/* The buckets of e's histogram that are not empty, now. False: no memory. */
static bool read_buckets(perf_monitor *monitor, const struct perf__endpoint *e,
                         struct perf__buckets *out, uint64_t *sum_ns)
{
    struct perf__histogram_reader reader;
    uint64_t counts[PERF__OCTAVE_BUCKETS];
    perf__histogram_read(perf__histogram_of(e->latency), &reader);
    *sum_ns = reader.sum - (e->before ? e->before->sum : 0);
    for (uint32_t i = 0; i < PERF__OCTAVES; i++) {
        if (!perf__histogram_octave(&reader, i, counts))
            continue;
        if (!reserve(monitor, out, out->count + PERF__OCTAVE_BUCKETS))
            return false;
        for (uint32_t j = 0; j < PERF__OCTAVE_BUCKETS; j++) {
            uint32_t bucket = i * PERF__OCTAVE_BUCKETS + j;
            uint64_t count = counts[j] - (e->before ? e->before->buckets[bucket] : 0);
            if (count)
                out->all[out->count++] = (struct perf__bucket){bucket, (uint32_t)count};
        }
    }
    return true;
}

/* ------------------------------------------------------------------------- the tick */

/* The newest part of a window, emptied if it was of another time. */
static struct perf__slot *newest(struct perf__endpoint *e, int window, int64_t now_ms)
{
    int64_t number = now_ms / part_ms(window) + 1;
    struct perf__slot *s = &e->windows[window].slots[number % WINDOW_SLOTS];
    if (s->number != number) {
        s->buckets.count = 0;
        s->sum_ns = 0;
        memset(s->counts, 0, sizeof s->counts);
        s->number = number;
    }
    return s;
}

static bool make_room(perf_monitor *monitor, struct perf__endpoint *e,
                      const struct perf__buckets *more, int64_t now_ms)
{
    for (int w = 0; w < WINDOWS; w++) {
        struct perf__slot *s = newest(e, w, now_ms);
        if (!reserve(monitor, &s->buckets, united(&s->buckets, more)))
            return false;
    }
    return true;
}

bool perf__recent_tick(perf_monitor *monitor, struct perf__endpoint *e, int64_t now_ms)
{
    uint64_t counts[COUNTS], sum_ns;
    struct perf__buckets fresh = {0}, more = {0};
    bool done = false;
    perf__counters_sum_all(&e->counts, counts);
    if (!memcmp(counts, e->last, sizeof counts))
        return true;
    if (!read_buckets(monitor, e, &fresh, &sum_ns) || !reserve(monitor, &more, fresh.count))
        goto out;
    subtract(&more, &fresh, &e->last_buckets);
    if (!make_room(monitor, e, &more, now_ms))
        goto out;
    for (int w = 0; w < WINDOWS; w++) {
        struct perf__slot *s = newest(e, w, now_ms);
        add(&s->buckets, &more);
        s->sum_ns += sum_ns - e->last_sum_ns;
        for (uint32_t i = 0; i < COUNTS; i++)
            s->counts[i] += counts[i] - e->last[i];
    }
    drop(monitor, &e->last_buckets);
    e->last_buckets = fresh;
    fresh = (struct perf__buckets){0};
    memcpy(e->last, counts, sizeof counts);
    e->last_sum_ns = sum_ns;
    done = true;
out:
    drop(monitor, &fresh);
    drop(monitor, &more);
    return done;
}

void perf__recent_free(perf_monitor *monitor, struct perf__endpoint *e)
{
    drop(monitor, &e->last_buckets);
    perf__free(&monitor->host.allocator, e->before);
    for (int w = 0; w < WINDOWS; w++)
        for (int i = 0; i < WINDOW_SLOTS; i++)
            drop(monitor, &e->windows[w].slots[i].buckets);
}

/* -------------------------------------------------------------------------- reading */

static void add_bucket(struct perf__histogram_snapshot *times, uint32_t bucket, uint64_t count)
{
    times->buckets[bucket] += count;
    times->count += count;
}

static void sum_slot(struct perf__sum *sum, const struct perf__slot *s)
{
    for (uint32_t i = 0; i < COUNTS; i++)
        sum->counts[i] += s->counts[i];
    sum->times.sum += s->sum_ns;
    for (uint32_t i = 0; i < s->buckets.count; i++)
        add_bucket(&sum->times, s->buckets.all[i].index, s->buckets.all[i].count);
}

int64_t perf__recent_begin(int window, int64_t now_ms)
{
    return (now_ms / part_ms(window) + 1 - WINDOW_SLOTS) * part_ms(window);
}

void perf__recent_sum(const struct perf__endpoint *e, int window, int64_t now_ms,
                      struct perf__sum *sum)
{
    int64_t newest_number = now_ms / part_ms(window) + 1;
    for (int i = 0; i < WINDOW_SLOTS; i++) {
        const struct perf__slot *s = &e->windows[window].slots[i];
        if (s->number > newest_number - WINDOW_SLOTS && s->number <= newest_number)
            sum_slot(sum, s);
    }
}
