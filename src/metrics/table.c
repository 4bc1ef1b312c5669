/* SPDX-License-Identifier: MIT */
/*
 * table.c - metrics by name, and each one's series by the values of its labels.
 *
 * Names and values come from outside, so their numbers are bounded, and tables
 * hash with a secret. A counter's cells come from chunks that many counters
 * share: a series costs eight bytes for each thread that counts in the chunk.
 * The caller has the lock.
 */
#include <math.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "lines.h"
#include "metrics_impl.h"

enum { CHUNK_FIRST = 64, CHUNK_LARGEST = 512 };

struct perf__chunk {
    struct perf__counters cells;
    uint32_t used;
    struct perf__chunk *next;
};

static void histogram_free(const perf_allocator *allocator, struct perf_histogram *h)
{
    perf__examples_destroy(h);
    perf__histogram_destroy(&h->cells);
    perf__lines_free(allocator, h);
}

static void metric_free(const perf_allocator *uthash_allocator, struct perf__metric *metric)
{
    while (metric->series) {
        struct perf__series *series = metric->series;
        HASH_DEL(metric->series, series);
        if (metric->type == PERF_METRIC_HISTOGRAM)
            histogram_free(uthash_allocator, series->u.histogram);
        perf__free(uthash_allocator, series);
    }
    perf__free(uthash_allocator, metric);
}

void perf__table_destroy(struct perf__table *table)
{
    const perf_allocator *uthash_allocator = &table->host->allocator;
    while (table->metrics) {
        struct perf__metric *metric = table->metrics;
        HASH_DEL(table->metrics, metric);
        metric_free(uthash_allocator, metric);
    }
    while (table->chunks) {
        struct perf__chunk *chunk = table->chunks;
        table->chunks = chunk->next;
        perf__counters_destroy(&chunk->cells);
        perf__free(uthash_allocator, chunk);
    }
}

/* ----------------------------------------------------------------- metrics */

struct perf__metric *perf__table_find(const struct perf__table *table, const char *name, size_t len)
{
    struct perf__hash_key uthash_secret = table->secret;
    struct perf__metric *metric = NULL;
    HASH_FIND(hh, table->metrics, name, len, metric);
    return metric;
}

static int type_conflict(const char *name, const char *other)
{
    return perf__fail(PERF_ECONFLICT,
                      "metric \"%s\" would have a line of the same name as metric \"%s\" in the "
                      "texts; rename one",
                      name, other);
}

/* What a metric's lines may be called beyond its name. */
static const char *const suffixes[] = {"_total", "_bucket", "_count", "_sum"};
static const int suffix_types[] = {PERF_METRIC_COUNTER, PERF_METRIC_HISTOGRAM,
                                   PERF_METRIC_HISTOGRAM, PERF_METRIC_HISTOGRAM};

/* No line of the texts may belong to two metrics. */
static int check_lines(const struct perf__table *table, const struct perf__description *d)
{
    char name[sizeof d->name + 8];
    const struct perf__metric *other;
    for (int i = 0; i < 4; i++) {
        size_t len = strlen(suffixes[i]);
        if (d->type == suffix_types[i]) {
            memcpy(name, d->name, d->name_len);
            memcpy(name + d->name_len, suffixes[i], len);
            if ((other = perf__table_find(table, name, d->name_len + len)))
                return type_conflict(d->name, other->name);
        }
        if (d->name_len > len && !memcmp(d->name + d->name_len - len, suffixes[i], len) &&
            (other = perf__table_find(table, d->name, d->name_len - len)) &&
            other->type == suffix_types[i])
            return type_conflict(d->name, other->name);
    }
    return PERF_OK;
}

/* No label of its own may be one of the set's. */
static int check_labels(const struct perf__table *table, const struct perf__description *d)
{
    const char *own = d->labels.text;
    for (uint32_t i = 0; i < d->labels.count; i++, own += strlen(own) + 1)
        for (uint32_t j = 0; j < table->labels_count; j++)
            if (!strcmp(own, table->labels[j]))
                return perf__fail(PERF_EINVAL,
                                  "metric \"%s\" has label \"%s\", which the whole set has; "
                                  "rename one",
                                  d->name, own);
    return PERF_OK;
}

static bool same_labels(const struct perf__table *table, const struct perf__metric *metric,
                        const struct perf__words *labels)
{
    const char *at = labels->text;
    const char *const *own = metric->labels + table->labels_count;
    if (metric->labels_count != table->labels_count + labels->count)
        return false;
    for (uint32_t i = 0; i < labels->count; i++, at += strlen(at) + 1)
        if (strcmp(own[i], at))
            return false;
    return true;
}

static int check_same(const struct perf__table *table, const struct perf__metric *metric,
                      const struct perf__description *d)
{
    const char *what = metric->type != d->type                                           ? "type"
                       : strcmp(metric->unit, d->unit)                                   ? "unit"
                       : d->scale > 0 && fabs(metric->scale - d->scale) > d->scale / 1e9 ? "scale"
                       : !same_labels(table, metric, &d->labels)                         ? "labels"
                                                                                         : NULL;
    return what ? perf__fail(PERF_ECONFLICT,
                             "metric \"%s\" is already there with another %s; say the same, or "
                             "choose another name",
                             d->name, what)
                : PERF_OK;
}

int perf__table_check(const struct perf__table *table, const struct perf__description *d)
{
    const struct perf__metric *metric = perf__table_find(table, d->name, d->name_len);
    return metric ? check_same(table, metric, d) : check_lines(table, d);
}

/* How many buckets have no value above the bound. One that reaches beyond it is not among them:
 * texts never say that more values are below a bound than there are. */
static uint32_t limit_of(double bound, double scale)
{
    double raw = bound / scale, whole = round(raw);
    if (fabs(raw - whole) > 1e-9 * fabs(whole)) /* otherwise it is meant to be whole */
        whole = floor(raw);
    if (whole < 0)
        return 0;
    if (whole >= 18446744073709551615.0)
        return PERF__HISTOGRAM_BUCKETS;
    uint32_t bucket = perf__histogram_bucket((uint64_t)whole);
    return perf__histogram_high(bucket) <= (uint64_t)whole ? bucket + 1 : bucket;
}

/* One block: the metric, its bounds and their limits, pointers to its labels, its texts. */
static struct perf__metric *metric_new(const struct perf__table *table,
                                       const struct perf__description *d)
{
    size_t help_len = strlen(d->help), unit_len = strlen(d->unit);
    uint32_t labels_count = table->labels_count + d->labels.count;
    size_t bytes = sizeof(struct perf__metric) + d->bounds_count * sizeof(double) +
                   labels_count * sizeof(char *) + d->bounds_count * sizeof(uint32_t) +
                   d->name_len + 1 + help_len + 1 + unit_len + 1 + d->labels.len;
    struct perf__metric *metric = perf__calloc(&table->host->allocator, 1, bytes);
    if (!metric)
        return NULL;
    double *bounds = (double *)(metric + 1);
    const char **labels = (const char **)(bounds + d->bounds_count);
    uint32_t *limits = (uint32_t *)(labels + labels_count);
    char *text = (char *)(limits + d->bounds_count);
    for (uint32_t i = 0; i < d->bounds_count; i++) {
        bounds[i] = d->bounds[i];
        limits[i] = limit_of(d->bounds[i], d->scale);
    }
    metric->name = memcpy(text, d->name, d->name_len + 1);
    metric->help = memcpy(text += d->name_len + 1, d->help, help_len + 1);
    metric->unit = memcpy(text += help_len + 1, d->unit, unit_len + 1);
    text += unit_len + 1;
    if (d->labels.len)
        memcpy(text, d->labels.text, d->labels.len);
    for (uint32_t i = 0; i < table->labels_count; i++)
        labels[i] = table->labels[i];
    perf__words_point(text, d->labels.count, labels + table->labels_count);
    metric->given_len = d->given_len;
    metric->type = d->type;
    metric->scale = d->scale > 0 ? d->scale : 1;
    double inverse = round(1 / metric->scale);
    metric->divisor = inverse > 1 && 1 / inverse == metric->scale ? inverse : 0;
    metric->max_series = d->max_series;
    metric->labels = labels;
    metric->labels_count = labels_count;
    metric->bounds = bounds;
    metric->limits = limits;
    metric->bounds_count = d->bounds_count;
    return metric;
}

static int metric_add(struct perf__table *table, const struct perf__description *d,
                      struct perf__metric **out)
{
    const perf_allocator *uthash_allocator = &table->host->allocator;
    struct perf__hash_key uthash_secret = table->secret;
    bool uthash_oom = false;
    int rc;
    if (!d->own && HASH_COUNT(table->metrics) - table->own_metrics >= table->max_metrics)
        return perf__fail(PERF_EBUSY,
                          "there are already %llu metrics; raise max_metrics, or use fewer names "
                          "(put what varies into labels)",
                          (unsigned long long)table->max_metrics);
    if ((rc = check_lines(table, d)) || (rc = check_labels(table, d)))
        return rc;
    struct perf__metric *metric = metric_new(table, d);
    if (metric)
        HASH_ADD_KEYPTR(hh, table->metrics, metric->name, d->name_len, metric);
    if (!metric || uthash_oom) {
        perf__free(uthash_allocator, metric);
        return perf__fail_nomem("a metric");
    }
    table->own_metrics += d->own;
    *out = metric;
    return PERF_OK;
}

/* ------------------------------------------------------------------ series */

static bool counter_init(struct perf__table *table, struct perf_counter *counter)
{
    const perf_allocator *allocator = &table->host->allocator;
    struct perf__chunk *chunk = table->chunks;
    if (!chunk || chunk->used == chunk->cells.count) {
        uint32_t size = chunk ? 2 * chunk->cells.count : CHUNK_FIRST;
        if (size > CHUNK_LARGEST)
            size = CHUNK_LARGEST;
        if (!(chunk = perf__calloc(allocator, 1, sizeof *chunk)))
            return false;
        if (perf__counters_init(&chunk->cells, allocator, size)) {
            perf__free(allocator, chunk);
            return false;
        }
        chunk->next = table->chunks;
        table->chunks = chunk;
    }
    counter->cells = &chunk->cells;
    counter->index = chunk->used++;
    return true;
}

static bool histogram_init(struct perf__table *table, const struct perf__metric *metric,
                           struct perf_histogram **out)
{
    struct perf_histogram *h = perf__lines_new(&table->host->allocator, sizeof *h);
    if (!h)
        return false;
    perf__histogram_init(&h->cells, &table->host->allocator);
    h->metric = metric;
    h->clock = &table->host->clock;
    *out = h;
    return true;
}

static struct perf__series *series_find(const struct perf__table *table,
                                        const struct perf__metric *metric,
                                        const struct perf__words *values)
{
    struct perf__hash_key uthash_secret = table->secret;
    struct perf__series *series = NULL;
    HASH_FIND(hh, metric->series, values->text, values->len, series);
    return series;
}

static int series_add(struct perf__table *table, struct perf__metric *metric,
                      const struct perf__words *values, struct perf__series **out)
{
    const perf_allocator *uthash_allocator = &table->host->allocator;
    struct perf__hash_key uthash_secret = table->secret;
    bool uthash_oom = false;
    size_t text = offsetof(struct perf__series, key) + values->len;
    size_t pointers = (text + sizeof(char *) - 1) / sizeof(char *) * sizeof(char *);
    struct perf__series *series =
        perf__calloc(uthash_allocator, 1, pointers + metric->labels_count * sizeof(char *));
    if (!series)
        return perf__fail_nomem("a series");
    series->metric = metric;
    series->key_len = values->len;
    if (values->len)
        memcpy(series->key, values->text, values->len);
    const char **value = (const char **)((char *)series + pointers);
    for (uint32_t i = 0; i < table->labels_count; i++)
        value[i] = table->labels[table->labels_count + i];
    perf__words_point(series->key, values->count, value + table->labels_count);
    series->values = value;
    HASH_ADD(hh, metric->series, key, values->len, series);
    if (uthash_oom) {
        perf__free(uthash_allocator, series);
        return perf__fail_nomem("a series");
    }
    /* Last: a counter's cell is not given back. */
    if ((metric->type == PERF_METRIC_COUNTER && !table->told &&
         !counter_init(table, &series->u.counter)) ||
        (metric->type == PERF_METRIC_HISTOGRAM &&
         !histogram_init(table, metric, &series->u.histogram))) {
        HASH_DEL(metric->series, series);
        perf__free(uthash_allocator, series);
        return perf__fail_nomem("a series");
    }
    metric->count++;
    table->series_count++;
    *out = series;
    return PERF_OK;
}

int perf__series_compare(const struct perf__series *a, const struct perf__series *b)
{
    int order = a->metric == b->metric ? 0 : strcmp(a->metric->name, b->metric->name);
    /* Told and counted series of one metric have the same labels. */
    for (uint32_t i = 0; !order && i < a->metric->labels_count && i < b->metric->labels_count; i++)
        order = strcmp(a->values[i], b->values[i]);
    return order;
}

int perf__table_series(struct perf__table *table, const struct perf__description *d,
                       const struct perf__words *values, struct perf__series **out,
                       bool *overflowed)
{
    struct perf__metric *metric = perf__table_find(table, d->name, d->name_len);
    struct perf__words other;
    int rc = metric ? check_same(table, metric, d) : metric_add(table, d, &metric);
    if (rc)
        return rc;
    *overflowed = false;
    if ((*out = series_find(table, metric, values)))
        return PERF_OK;
    if (metric->count >= metric->max_series) {
        *overflowed = true;
        other.count = values->count;
        other.len = 0;
        for (uint32_t i = 0; i < values->count; i++, other.len += sizeof "_other")
            memcpy(other.text + other.len, "_other", sizeof "_other");
        if ((*out = series_find(table, metric, &other)))
            return PERF_OK;
        values = &other;
    }
    return series_add(table, metric, values, out);
}
