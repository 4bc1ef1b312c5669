/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - reading all series at one moment. The list of them is copied
 * under the set's mutex, already sorted; figures are read without it. Any
 * thread; one snapshot belongs to one thread at a time.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "metrics_impl.h"

static int by_name(const void *a, const void *b)
{
    return perf__series_compare(*(struct perf__series *const *)a, *(struct perf__series *const *)b);
}

/* All series of a table, sorted. */
static void list_sorted(const struct perf__table *table, struct perf__series **out)
{
    size_t n = 0;
    for (const struct perf__metric *metric = table->metrics; metric; metric = metric->hh.next)
        for (struct perf__series *series = metric->series; series; series = series->hh.next)
            out[n++] = series;
    qsort(out, n, sizeof *out, by_name);
}

/* With the mutex: brings the set's own list up to date. Series are made seldom, and scraped often.
 */
static bool sort_again(perf_metrics *m)
{
    size_t count = m->table.series_count;
    if (m->sorted_count == count)
        return true;
    struct perf__series **sorted = perf__alloc(&m->host.allocator, count * sizeof(*sorted));
    if (!sorted)
        return false;
    list_sorted(&m->table, sorted);
    perf__free(&m->host.allocator, m->sorted);
    m->sorted = sorted;
    m->sorted_count = count;
    return true;
}

/* Those told that are not counted, too, and whose metric is of one type: how many are left. */
static size_t drop_known(const perf_metrics *m, struct perf__series **told, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const struct perf__metric *mine = told[i]->metric, *other;
        bool known = m->sorted_count &&
                     bsearch(&told[i], m->sorted, m->sorted_count, sizeof(*m->sorted), by_name);
        other = perf__table_find(&m->table, mine->name, strlen(mine->name));
        if (!known && !(other && other->type != mine->type))
            told[kept++] = told[i];
    }
    return kept;
}

/* With the mutex: the items, sorted. */
static int list(perf_snapshot *s)
{
    perf_metrics *m = s->metrics;
    const perf_allocator *allocator = &m->host.allocator;
    size_t told_count = s->told.series_count;
    struct perf__series **told = NULL;
    int rc = PERF_ENOMEM;
    if (told_count) {
        if (!(told = perf__alloc(allocator, told_count * sizeof(*told))))
            goto out;
        list_sorted(&s->told, told);
    }
    if (!sort_again(m))
        goto out;
    told_count = told_count ? drop_known(m, told, told_count) : 0;
    s->items = perf__calloc(allocator, m->sorted_count + told_count + 1, sizeof *s->items);
    if (!s->items)
        goto out;
    for (size_t i = 0, j = 0; i < m->sorted_count || j < told_count; s->count++) {
        struct perf__item *item = &s->items[s->count];
        item->told = i == m->sorted_count ||
                     (j < told_count && perf__series_compare(told[j], m->sorted[i]) < 0);
        item->series = item->told ? told[j++] : m->sorted[i++];
    }
    rc = PERF_OK;
out:
    perf__free(allocator, told);
    return rc;
}

/* ------------------------------------------------------------------ figures */

/* Room for so many more. */
static bool grow(const perf_allocator *allocator, void *array, size_t *room, size_t used,
                 size_t more, size_t size)
{
    void *old, *grown;
    if (used + more <= *room)
        return true;
    size_t wanted = 2 * *room > used + more ? 2 * *room : used + more;
    memcpy(&old, array, sizeof old);
    if (!(grown = perf__realloc(allocator, old, wanted * size)))
        return false;
    memcpy(array, &grown, sizeof grown);
    *room = wanted;
    return true;
}

static bool read_examples(perf_snapshot *s, struct perf__item *item)
{
    struct perf_histogram *h = item->series->u.histogram;
    struct perf__example *all = atomic_load_explicit(&h->examples, memory_order_acquire);
    size_t lines = h->metric->bounds_count + 1;
    item->examples = SIZE_MAX;
    if (!all)
        return true;
    if (!grow(&s->metrics->host.allocator, &s->examples, &s->examples_room, s->examples_count,
              lines, sizeof *s->examples))
        return false;
    item->examples = s->examples_count;
    s->examples_count += lines;
    for (size_t i = 0; i < lines; i++)
        if (!perf__example_read(&all[i], &s->examples[item->examples + i]))
            s->examples[item->examples + i].time_ms = 0;
    return true;
}

static bool read_histogram(perf_snapshot *s, struct perf__item *item)
{
    struct perf__histogram_reader r;
    uint64_t counts[PERF__OCTAVE_BUCKETS];
    perf__histogram_read(&item->series->u.histogram->cells, &r);
    item->filled = s->filled_count;
    for (uint32_t i = 0; i < PERF__OCTAVES; i++) {
        if (!perf__histogram_octave(&r, i, counts))
            continue;
        if (!grow(&s->metrics->host.allocator, &s->filled, &s->filled_room, s->filled_count,
                  PERF__OCTAVE_BUCKETS, sizeof *s->filled))
            return false;
        for (uint32_t j = 0; j < PERF__OCTAVE_BUCKETS; j++) {
            if (!counts[j])
                continue;
            s->filled[s->filled_count++] =
                (struct perf__filled){counts[j], i * PERF__OCTAVE_BUCKETS + j};
            item->count += counts[j];
        }
    }
    item->filled_count = (uint32_t)(s->filled_count - item->filled);
    item->value = perf__scaled(item->series->metric, (double)r.sum);
    return read_examples(s, item);
}

static bool read_item(perf_snapshot *s, struct perf__item *item)
{
    const struct perf__series *series = item->series;
    if (item->told) {
        item->value = perf_gauge_value(&series->u.gauge);
    } else if (series->metric->type == PERF_METRIC_GAUGE) {
        item->value = perf__scaled(series->metric, perf_gauge_value(&series->u.gauge));
    } else if (series->metric->type == PERF_METRIC_COUNTER) {
        item->count = perf_counter_value(&series->u.counter);
        item->value = perf__scaled(series->metric, (double)item->count);
    } else {
        return read_histogram(s, item);
    }
    return true;
}

int perf_metrics_snapshot(perf_metrics *m, perf_snapshot **out)
{
    int rc = perf__metrics_check(m);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the snapshot");
    perf_snapshot *s = perf__calloc(&m->host.allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a snapshot");
    atomic_fetch_add(&m->references, 1);
    s->metrics = m;
    s->told.host = &m->host;
    s->told.secret = m->table.secret;
    s->told.max_metrics = m->table.max_metrics;
    s->told.max_series = m->table.max_series;
    s->told.labels = m->table.labels;
    s->told.labels_count = m->table.labels_count;
    s->told.told = true;
    s->time_ms = perf__realtime_ms(&m->host.clock);
    if ((rc = perf__ask_all(m, &s->told)))
        goto out;
    pthread_mutex_lock(&m->mutex);
    rc = list(s);
    pthread_mutex_unlock(&m->mutex);
    for (size_t i = 0; !rc && i < s->count; i++)
        if (!read_item(s, &s->items[i]))
            rc = PERF_ENOMEM;
    if (rc)
        rc = perf__fail_nomem("a snapshot");
out:
    if (rc)
        perf_snapshot_release(s);
    else
        *out = s;
    return rc;
}

void perf_snapshot_release(perf_snapshot *s)
{
    if (!s || s->metrics->fork_generation != perf__fork_generation)
        return;
    perf_metrics *m = s->metrics;
    perf__table_destroy(&s->told);
    perf__free(&m->host.allocator, s->items);
    perf__free(&m->host.allocator, s->filled);
    perf__free(&m->host.allocator, s->examples);
    perf__free(&m->host.allocator, s);
    perf__metrics_release(m);
}
