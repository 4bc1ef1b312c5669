/* SPDX-License-Identifier: MIT */
/*
 * metrics_impl.h - what the files behind metrics.h share.
 *
 * A perf_metrics is a table of metrics by name under one mutex, which is taken
 * to find or make a series and to copy the list of them, never to count. What
 * is in the table stays where it is until the last of the set and its snapshots
 * is gone: so a snapshot copies pointers, and reads figures and names without
 * the mutex. What callers tell when asked goes into a table of the snapshot's
 * own.
 */
#ifndef PERF_METRICS_METRICS_IMPL_H
#define PERF_METRICS_METRICS_IMPL_H

#include <libperf/metrics.h>
#include <pthread.h>

#include "../base/fork.h"
#include "../base/options.h"
#include "../base/uthash_host.h"
#include "counter.h"
#include "histogram.h"

enum {
    PERF__NAME_MAX = 200,
    PERF__HELP_MAX = 1000,
    PERF__LABELS_MAX = 10,
    PERF__VALUE_MAX = 128, /* bytes of a label's value */
    PERF__BOUNDS_MAX = 64,
    PERF__KEY_MAX = PERF__LABELS_MAX * (PERF__VALUE_MAX + 1),
    PERF__TRACE_MAX = 63,
};

/* ----------------------------------------------------------------- handles */

struct perf_counter {
    struct perf__counters *cells;
    uint32_t index;
};

struct perf_gauge {
    _Atomic uint64_t bits; /* of a double */
};

/* The example of one bucket of the texts. */
struct perf__example {
    _Atomic bool busy; /* whoever makes it true has the rest */
    char trace_id[PERF__TRACE_MAX + 1];
    uint64_t value;
    int64_t time_ms; /* 0: there is none */
};

struct perf_histogram {
    struct perf__histogram cells;
    const struct perf__metric *metric;
    const perf_clock *clock;
    _Atomic(struct perf__example *) examples; /* one a bound and one beyond; NULL: none yet */
};

/* ------------------------------------------------------- metrics and series */

/* Names of labels, or their values: count strings, one behind the other, each with its zero. */
struct perf__words {
    uint32_t count, len;
    char text[PERF__KEY_MAX];
};

/* What a caller's perf_metric_options say, checked and with defaults. */
struct perf__description {
    int type;
    size_t name_len;
    char name[2 * PERF__NAME_MAX + 2]; /* with its unit, without "_total" */
    size_t given_len;                  /* of name, without a unit that was added */
    char help[PERF__HELP_MAX + 1];
    char unit[PERF__NAME_MAX + 1];
    struct perf__words labels;
    uint64_t max_series;
    double scale;
    const double *bounds;
    uint32_t bounds_count;
};

struct perf__metric {
    UT_hash_handle hh; /* by name */
    const char *name, *help, *unit;
    size_t given_len;
    int type;
    double scale;
    uint64_t max_series, count;
    const char *const *labels;
    uint32_t labels_count;
    uint32_t bounds_count;
    const double *bounds;
    const uint32_t *limits; /* of each bound: so many of the histogram's buckets are below it */
    struct perf__series *series;
};

struct perf__series {
    UT_hash_handle hh; /* by the values of its labels */
    const struct perf__metric *metric;
    union {
        struct perf_counter counter;
        struct perf_gauge gauge;
        struct perf_histogram *histogram;
    } u;
    const char *const *values;
    uint32_t key_len;
    char key[]; /* the values, then the pointers to them */
};

struct perf__chunk;

struct perf__table {
    const struct perf__host *host;
    struct perf__hash_key secret;
    struct perf__metric *metrics;
    uint64_t max_metrics, max_series;
    uint64_t series_count;
    struct perf__chunk *chunks; /* of counters, the newest first */
};

/* label.c */

/* Copies UTF-8, up to max bytes and a zero, up to the border of a character; what is no UTF-8
 * becomes U+FFFD. Returns the length. */
size_t perf__utf8_copy(char *out, size_t max, const char *text);
/* Names separated by commas into words; type as for PERF_METRIC_HISTOGRAM reserves "le". */
int perf__labels_parse(const char *names, int type, struct perf__words *out);
/* Values, one for each of the labels. */
int perf__values_take(uint32_t labels, const char *const *values, struct perf__words *out);
bool perf__label_is_name(const char *text, size_t len);
/* Points to each of the words, which lie in text. */
void perf__words_point(const char *text, uint32_t count, const char **out);

/* describe.c */

int perf__describe(const perf_metric_options *given, int type, const struct perf__table *table,
                   struct perf__description *out);
/* The name that texts show, of the name that was given: cuts a counter's "_total". */
size_t perf__name_len(const char *name, int type);

/* table.c: with the table's owner's mutex, where there is one */

void perf__table_init(struct perf__table *table, const struct perf__host *host,
                      uint64_t max_metrics, uint64_t max_series);
void perf__table_destroy(struct perf__table *table);
/* PERF_OK also where the metric is not there yet; PERF_ECONFLICT. */
int perf__table_check(const struct perf__table *table, const struct perf__description *d);
/* Finds or makes it; *overflowed: it is the one that those beyond max_series share. */
int perf__table_series(struct perf__table *table, const struct perf__description *d,
                       const struct perf__words *values, struct perf__series **out,
                       bool *overflowed);

/* example.c */

void perf__examples_destroy(struct perf_histogram *h);

/* metrics.c */

struct perf__ask;

struct perf_metrics {
    struct perf__host host;
    uint64_t fork_generation;
    _Atomic int64_t references; /* the set's own and its snapshots' */
    const char *const *labels;  /* of the set: names, then values */
    uint32_t labels_count;
    pthread_mutex_t mutex; /* of table and sorted */
    struct perf__table table;
};

int perf__metrics_check(const perf_metrics *metrics);
void perf__metrics_release(perf_metrics *metrics);

#endif
