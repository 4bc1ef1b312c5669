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
#include "../base/number.h"
#include "../base/options.h"
#include "../base/uthash_host.h"
#include "counter.h"
#include "histogram.h"
#include "label.h"

enum {
    PERF__NAME_MAX = 200,
    PERF__HELP_MAX = 1000,
    PERF__LABELS_MAX = 10,
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
    bool own; /* the set's: takes no place of the caller's */
    size_t name_len;
    char name[2 * PERF__NAME_MAX + 2]; /* with its unit, without "_total" */
    size_t given_len;                  /* of name, without a unit that was added */
    char help[PERF__HELP_MAX + 1];
    char unit[PERF__NAME_MAX + 1];
    struct perf__words labels;
    uint64_t max_series;
    double scale; /* 0: any, of what is told */
    const double *bounds;
    uint32_t bounds_count;
};

struct perf__metric {
    UT_hash_handle hh; /* by name */
    const char *name, *help, *unit;
    size_t given_len;
    int type;
    double scale, divisor; /* divisor: 1 / scale, where that is whole; or 0 */
    uint64_t max_series, count;
    const char *const *labels; /* the set's, then its own */
    uint32_t labels_count;
    uint32_t bounds_count;
    const double *bounds;
    const uint32_t *limits; /* of each bound: so many of the histogram's buckets are below it */
    struct perf__series *series;
};

/* In unit. Thousandths divided by 1000 are rounded once, and print as people write them; 0.001
 * is not the number that it looks like, and what is multiplied by it is off by a last digit. */
static inline double perf__scaled(const struct perf__metric *metric, double value)
{
    return metric->divisor > 0 ? value / metric->divisor : value * metric->scale;
}

struct perf__series {
    UT_hash_handle hh; /* by the values of its labels */
    const struct perf__metric *metric;
    union {
        struct perf_counter counter;
        struct perf_gauge gauge;
        struct perf_histogram *histogram;
    } u;
    const char *const *values; /* of all labels */
    uint32_t key_len;
    char key[]; /* the values of its own labels, then the pointers */
};

struct perf__chunk;

struct perf__table {
    const struct perf__host *host;
    struct perf__hash_key secret;
    struct perf__metric *metrics;
    uint64_t max_metrics, max_series;
    uint64_t own_metrics, series_count;
    struct perf__chunk *chunks; /* of counters, the newest first */
    /* On every series: names, then values. They live as long as the table. */
    const char *const *labels;
    uint32_t labels_count;
    bool told; /* values are told, not counted: a counter, too, is in u.gauge */
};

/* label.c */

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

void perf__table_destroy(struct perf__table *table);
struct perf__metric *perf__table_find(const struct perf__table *table, const char *name,
                                      size_t len);
/* PERF_OK also where the metric is not there yet; PERF_ECONFLICT. */
int perf__table_check(const struct perf__table *table, const struct perf__description *d);
/* Finds or makes it; *overflowed: it is the one that those beyond max_series share. */
int perf__table_series(struct perf__table *table, const struct perf__description *d,
                       const struct perf__words *values, struct perf__series **out,
                       bool *overflowed);

/* By name, then by the values of labels: as snapshots are sorted. */
int perf__series_compare(const struct perf__series *a, const struct perf__series *b);

/* series.c */

double perf__number_of(uint64_t bits);
uint64_t perf__bits_of(double value);

/* example.c */

void perf__examples_destroy(struct perf_histogram *h);
/* Copies that of a line; false: there is none, or somebody is writing it. */
bool perf__example_read(struct perf__example *from, struct perf__example *to);

/* metrics.c */

struct perf__ask;

struct perf_metrics {
    struct perf__host host;
    uint64_t fork_generation;
    _Atomic int64_t references; /* the set's own and its snapshots' */

    pthread_mutex_t mutex; /* of what follows */
    struct perf__table table;
    struct perf__series **sorted; /* those of the table, when last asked for */
    size_t sorted_count;

    pthread_mutex_t asking;  /* held while callers are asked */
    _Atomic uintptr_t asker; /* by this thread */
    struct perf__ask *asks;  /* in the order of their ids */
    uint64_t next_ask;
};

int perf__metrics_check(const perf_metrics *metrics);
void perf__metrics_release(perf_metrics *metrics);

/* ask.c */

/* Asks everybody, and puts what they tell into a table. PERF_EDEADLK: from an ask. */
int perf__ask_all(perf_metrics *metrics, struct perf__table *told);
void perf__asks_destroy(perf_metrics *metrics);

/* --------------------------------------------------------------- snapshots */

struct perf__filled {
    uint64_t count;
    uint64_t bucket;
};

/* A series and what it was. */
struct perf__item {
    const struct perf__series *series;
    bool told;
    uint32_t filled_count;
    size_t filled, examples; /* its first ones in the snapshot's; examples: SIZE_MAX for none */
    uint64_t count;          /* of a histogram; of a counter, before scale */
    double value;            /* of a histogram: the sum; in unit */
};

struct perf_snapshot {
    perf_metrics *metrics;
    struct perf__table told;
    int64_t time_ms;
    size_t count;
    struct perf__item *items;
    size_t filled_count, filled_room;
    struct perf__filled *filled; /* buckets that are not empty */
    size_t examples_count, examples_room;
    struct perf__example *examples;
};

/* text.c */

enum { PERF__TEXT_PIECE = 16384 };

/* What is written, by pieces. */
struct perf__text {
    perf_write_fn write;
    void *ctx;
    int rc; /* once it is not PERF_OK, nothing more is written */
    size_t len;
    char piece[PERF__TEXT_PIECE];
};

void perf__text_bytes(struct perf__text *t, const char *data, size_t len);
void perf__text(struct perf__text *t, const char *string);
void perf__text_u64(struct perf__text *t, uint64_t value);
/* The shortest form that reads back as the same number: what is not finite is special[0] (NaN),
 * [1] (infinity) or [2]. */
void perf__text_number(struct perf__text *t, double value, const char *const special[3]);

/* text_prometheus.c, text_json.c */

void perf__text_prometheus(struct perf__text *t, const perf_snapshot *s, bool open);
void perf__text_json(struct perf__text *t, const perf_snapshot *s);

#endif
