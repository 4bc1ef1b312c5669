/* SPDX-License-Identifier: MIT */
/*
 * snapshot_look.c - what a snapshot's users ask of it. Nothing changes: any
 * number of threads may look.
 */
#include <string.h>

#include "../base/status.h"
#include "metrics_impl.h"

int64_t perf_snapshot_time_ms(const perf_snapshot *s)
{
    return s ? s->time_ms : 0;
}

size_t perf_snapshot_count(const perf_snapshot *s)
{
    return s ? s->count : 0;
}

/* Number i if it is a histogram with values, or NULL. */
static const struct perf__item *distribution(const perf_snapshot *s, size_t i)
{
    return s && i < s->count && s->items[i].filled_count ? &s->items[i] : NULL;
}

static double middle(const perf_snapshot *s, const struct perf__item *item, size_t i)
{
    uint32_t bucket = (uint32_t)s->filled[item->filled + i].bucket;
    return perf__scaled(item->series->metric, (double)perf__histogram_middle(bucket));
}

int perf_snapshot_series(const perf_snapshot *s, size_t i, perf_series *out)
{
    size_t size;
    int rc = perf__options_check_out("perf_series", out, &size);
    if (rc)
        return rc;
    if (!s || i >= s->count)
        return PERF_MISS;
    const struct perf__item *item = &s->items[i];
    const struct perf__metric *metric = item->series->metric;
    bool histogram = metric->type == PERF_METRIC_HISTOGRAM;
    perf_series own = {
        .struct_size = sizeof own,
        .name = metric->name,
        .help = metric->help,
        .unit = metric->unit,
        .type = metric->type,
        .labels_count = metric->labels_count,
        .label_names = metric->labels,
        .label_values = item->series->values,
        .value = histogram ? 0 : item->value,
        .count = histogram ? item->count : 0,
        .sum = histogram ? item->value : 0,
    };
    if (item->filled_count) {
        own.minimum = middle(s, item, 0);
        own.maximum = middle(s, item, item->filled_count - 1);
    }
    perf__options_give(out, size, &own, sizeof own);
    return PERF_OK;
}

/* --------------------------------------------------------------------- find */

/* The first item whose name begins so, or would. */
static size_t first_of(const perf_snapshot *s, const char *name, size_t len)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t at = low + (high - low) / 2;
        if (strncmp(s->items[at].series->metric->name, name, len) < 0)
            low = at + 1;
        else
            high = at;
    }
    return low;
}

static bool has_values(const perf_snapshot *s, const struct perf__item *item,
                       const char *const *values)
{
    uint32_t first = s->told.labels_count, count = item->series->metric->labels_count - first;
    for (uint32_t i = 0; i < count; i++)
        if (!values || !values[i] || strcmp(item->series->values[first + i], values[i]) != 0)
            return false;
    return true;
}

/* Names as they were given, or with the unit that was added. */
static bool find(const perf_snapshot *s, const char *name, size_t len, const char *const *values,
                 size_t *i)
{
    for (size_t at = first_of(s, name, len); at < s->count; at++) {
        const struct perf__metric *metric = s->items[at].series->metric;
        if (strncmp(metric->name, name, len) != 0)
            break; /* all that begin so are neighbours */
        if ((!metric->name[len] || metric->given_len == len) &&
            has_values(s, &s->items[at], values)) {
            *i = at;
            return true;
        }
    }
    return false;
}

int perf_snapshot_find(const perf_snapshot *s, const char *name, const char *const *values,
                       size_t *i)
{
    if (!s || !name || !i)
        return perf__fail(PERF_EINVAL, "snapshot, name or i is NULL; give them");
    size_t len = strlen(name), counter_len = perf__name_len(name, PERF_METRIC_COUNTER);
    return find(s, name, len, values, i) ||
                   (counter_len < len && find(s, name, counter_len, values, i))
               ? PERF_OK
               : PERF_MISS;
}

/* ------------------------------------------------------------ distributions */

double perf_snapshot_quantile(const perf_snapshot *s, size_t i, double q)
{
    const struct perf__item *item = distribution(s, i);
    if (!item)
        return 0;
    uint64_t rank = perf__histogram_rank(item->count, q), seen = 0;
    size_t at = 0;
    while (at < item->filled_count - 1 && (seen += s->filled[item->filled + at].count) <= rank)
        at++;
    return middle(s, item, at);
}

/* The item of the same series in another snapshot of the set. */
static const struct perf__item *same_in(const perf_snapshot *since, const struct perf__item *item)
{
    size_t low = 0, high = since->count;
    while (low < high) {
        size_t at = low + (high - low) / 2;
        int order = perf__series_compare(since->items[at].series, item->series);
        if (!order)
            return since->items[at].series == item->series ? &since->items[at] : NULL;
        if (order < 0)
            low = at + 1;
        else
            high = at;
    }
    return NULL;
}

size_t perf_snapshot_buckets(const perf_snapshot *s, size_t i, const perf_snapshot *since,
                             double *values, uint64_t *counts, size_t n)
{
    const struct perf__item *item = distribution(s, i);
    if (!item)
        return 0;
    const struct perf__item *old = since ? same_in(since, item) : NULL;
    size_t found = 0, j = 0;
    for (size_t at = 0; at < item->filled_count; at++) {
        struct perf__filled f = s->filled[item->filled + at];
        /* What was filled then is filled now: both are in the same order. */
        while (old && j < old->filled_count && since->filled[old->filled + j].bucket < f.bucket)
            j++;
        if (old && j < old->filled_count && since->filled[old->filled + j].bucket == f.bucket)
            f.count -= since->filled[old->filled + j].count;
        if (!f.count)
            continue;
        if (found < n) {
            if (values)
                values[found] = middle(s, item, at);
            if (counts)
                counts[found] = f.count;
        }
        found++;
    }
    return found;
}
