/* SPDX-License-Identifier: MIT */
/*
 * metrics.c - a set of metrics: open and close, and finding or making its
 * series. Any thread; the set's mutex is a leaf.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "metrics_impl.h"

/* Combinations that were refused, by the metric they were meant for. */
static const perf_metric_options overflow_options = {
    .struct_size = sizeof overflow_options,
    .name = "perf_metrics_overflowed",
    .help = "Requests for a series beyond max_series of its metric, which got the one that is "
            "_other",
    .labels = "metric",
    .max_series = 1000000,
};

/* ------------------------------------------------------------- open, close */

/* "service=api,zone=a" into names and values. */
static int parse_set_labels(const char *text, struct perf__words *names, struct perf__words *values)
{
    char name[PERF__VALUE_MAX + 1], value[4 * PERF__VALUE_MAX + 1];
    char all[PERF__KEY_MAX];
    size_t used = 0;
    names->count = names->len = values->count = values->len = 0;
    if (!text || !*text)
        return PERF_OK;
    for (;;) {
        size_t name_len = strcspn(text, "=,"), value_len;
        if (!name_len || text[name_len] != '=' || name_len > PERF__VALUE_MAX)
            return perf__fail(PERF_EINVAL,
                              "labels of the set has \"%.64s\"; give name=value,name=value", text);
        value_len = strcspn(text + name_len + 1, ",");
        if (value_len >= sizeof value || names->count == PERF__LABELS_MAX)
            return perf__fail(PERF_EINVAL,
                              "labels of the set has more than %d, or a value beyond %d bytes",
                              PERF__LABELS_MAX, PERF__VALUE_MAX);
        memcpy(name, text, name_len);
        name[name_len] = '\0';
        memcpy(value, text + name_len + 1, value_len);
        value[value_len] = '\0';
        /* Again from the first, so that one that is there twice is noticed. */
        if (used)
            all[used++] = ',';
        memcpy(all + used, name, name_len + 1);
        used += name_len;
        int rc = perf__labels_parse(all, PERF_METRIC_HISTOGRAM, names);
        if (rc)
            return rc;
        values->len +=
            (uint32_t)perf__utf8_copy(values->text + values->len, PERF__VALUE_MAX, value) + 1;
        values->count++;
        text += name_len + 1 + value_len;
        if (!*text)
            return PERF_OK;
        text++;
    }
}

static const char **set_labels_new(const perf_allocator *allocator, const struct perf__words *names,
                                   const struct perf__words *values)
{
    size_t pointers = 2 * names->count * sizeof(char *);
    const char **labels = perf__alloc(allocator, pointers + names->len + values->len + 1);
    if (!labels)
        return NULL;
    char *text = (char *)labels + pointers;
    memcpy(text, names->text, names->len);
    memcpy(text + names->len, values->text, values->len);
    perf__words_point(text, names->count, labels);
    perf__words_point(text + names->len, values->count, labels + names->count);
    return labels;
}

int perf_metrics_open(const perf_metrics_options *given, perf_metrics **out)
{
    perf_metrics_options options;
    struct perf__words names, values;
    struct perf__host host;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the metrics");
    if ((rc = perf__options_take("perf_metrics_options", given, &options, sizeof options)) ||
        (rc = perf__host_take(options.host, &host)) ||
        (rc = perf__check_range("max_metrics", (int64_t)options.max_metrics, 0, 1000000)) ||
        (rc = perf__check_range("max_series", (int64_t)options.max_series, 0, 1000000)) ||
        (rc = parse_set_labels(options.labels, &names, &values)) || (rc = perf__fork_arm()))
        return rc;
    perf_metrics *m = perf__calloc(&host.allocator, 1, sizeof *m);
    if (!m)
        return perf__fail_nomem("a set of metrics");
    m->host = host;
    m->host.view = (perf_host){sizeof(perf_host), &m->host.allocator, &m->host.clock, &m->host.log};
    m->fork_generation = perf__fork_generation;
    atomic_init(&m->references, 1);
    m->table.host = &m->host;
    m->table.secret = perf__hash_random_key();
    m->table.max_metrics = options.max_metrics ? options.max_metrics : 10000;
    m->table.max_series = options.max_series ? options.max_series : 1000;
    m->table.labels_count = names.count;
    m->table.labels = set_labels_new(&m->host.allocator, &names, &values);
    if (!m->table.labels) {
        perf__free(&host.allocator, m);
        return perf__fail_nomem("a set of metrics");
    }
    pthread_mutex_init(&m->mutex, NULL); /* cannot fail with these attributes */
    pthread_mutex_init(&m->asking, NULL);
    *out = m;
    return PERF_OK;
}

void perf__metrics_release(perf_metrics *m)
{
    if (atomic_fetch_sub(&m->references, 1) > 1)
        return;
    perf_allocator allocator = m->host.allocator;
    void *labels = (void *)(uintptr_t)m->table.labels;
    perf__table_destroy(&m->table);
    perf__asks_destroy(m);
    pthread_mutex_destroy(&m->mutex);
    pthread_mutex_destroy(&m->asking);
    perf__free(&allocator, m->sorted);
    perf__free(&allocator, labels);
    perf__free(&allocator, m);
}

void perf_metrics_close(perf_metrics *m)
{
    /* In a forked child the table may be half changed, by a thread that is not there. */
    if (m && m->fork_generation == perf__fork_generation)
        perf__metrics_release(m);
}

int perf__metrics_check(const perf_metrics *m)
{
    if (!m)
        return perf__fail(PERF_EINVAL, "metrics is NULL; open a set first");
    return m->fork_generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}

/* ------------------------------------------------------------------ series */

/* With the mutex. This metric takes no place of the caller's; where it cannot be had, for want of
 * memory or because the caller has one of its name, the series that was asked for is still given.
 */
static void count_overflow(perf_metrics *m, const char *name)
{
    struct perf__description d;
    struct perf__words values;
    struct perf__series *series;
    bool overflowed;
    if (perf__describe(&overflow_options, PERF_METRIC_COUNTER, &m->table, &d) ||
        perf__values_take(1, &name, &values))
        return;
    d.own = true;
    if (perf__table_series(&m->table, &d, &values, &series, &overflowed) == PERF_OK)
        perf_counter_add(&series->u.counter, 1);
}

static int get(perf_metrics *m, const perf_metric_options *options, int type,
               const char *const *values, struct perf__series **out)
{
    struct perf__description d;
    struct perf__words words;
    bool overflowed;
    int rc;
    if ((rc = perf__metrics_check(m)) || (rc = perf__describe(options, type, &m->table, &d)) ||
        (rc = perf__values_take(d.labels.count, values, &words)))
        return rc;
    pthread_mutex_lock(&m->mutex);
    rc = perf__table_series(&m->table, &d, &words, out, &overflowed);
    if (rc == PERF_OK && overflowed)
        count_overflow(m, d.name);
    pthread_mutex_unlock(&m->mutex);
    return rc;
}

int perf_metrics_counter(perf_metrics *m, const perf_metric_options *options,
                         const char *const *values, perf_counter **out)
{
    struct perf__series *series;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the counter");
    int rc = get(m, options, PERF_METRIC_COUNTER, values, &series);
    if (rc == PERF_OK)
        *out = &series->u.counter;
    return rc;
}

int perf_metrics_gauge(perf_metrics *m, const perf_metric_options *options,
                       const char *const *values, perf_gauge **out)
{
    struct perf__series *series;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the gauge");
    int rc = get(m, options, PERF_METRIC_GAUGE, values, &series);
    if (rc == PERF_OK)
        *out = &series->u.gauge;
    return rc;
}

int perf_metrics_histogram(perf_metrics *m, const perf_metric_options *options,
                           const char *const *values, perf_histogram **out)
{
    struct perf__series *series;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the histogram");
    int rc = get(m, options, PERF_METRIC_HISTOGRAM, values, &series);
    if (rc == PERF_OK)
        *out = series->u.histogram;
    return rc;
}
