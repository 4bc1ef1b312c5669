/* SPDX-License-Identifier: MIT */
/*
 * metrics.h - counters, gauges and histograms with labels, and what they show.
 *
 * In six lines:
 *
 *     perf_metrics_open(NULL, &metrics);
 *     perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
 *     o.name = "http_requests", o.help = "Requests answered", o.labels = "method,status";
 *     perf_metrics_counter(metrics, &o, (const char *[]){"GET", "200"}, &gets);
 *     perf_counter_add(gets, 1);                          // a few nanoseconds, from any thread
 *     perf_metrics_write(metrics, PERF_METRICS_PROMETHEUS, write_fn, ctx);
 *
 * Caveats first
 *  - A metric is a name with its labels; a series is one combination of their
 *    values. Getting a series takes a lock and a search: get it once and keep it.
 *    It stays valid until its perf_metrics is closed, which frees all of them.
 *  - A metric holds max_series series. Combinations beyond that share one more, whose values
 *    are all "_other", so hostile label values cannot take unbounded memory; how often that one was
 *    given is itself a metric (perf_metrics_overflowed).
 *  - Threads count in cells of their own, which are added up when read. A snapshot sees
 *    every addition that happened before it began, and perhaps some that happen
 *    meanwhile. In each histogram count is the sum of its buckets, and no value is in the
 *    sum that is not in a bucket.
 *  - A metric's full name is the one that was given with its unit, if it does not end in it;
 *    of a counter without "_total", which texts add. Snapshots and JSON show the full name.
 *  - Label values, help and texts are UTF-8; what is none becomes U+FFFD.
 *  - fork(): in a child, counting goes on harmlessly, and all else of a set opened before is
 *    PERF_EFORKED. Open a new one.
 *
 * The parts, simple to expert: open, counters, gauges, histograms, values that
 * are asked for, texts for Prometheus, snapshots.
 */
#ifndef LIBPERF_METRICS_H
#define LIBPERF_METRICS_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A set of metrics that are read together. */
typedef struct perf_metrics perf_metrics;

/** A series that only grows. */
typedef struct perf_counter perf_counter;

/** A series that goes up and down. */
typedef struct perf_gauge perf_gauge;

/** A series that is a distribution. */
typedef struct perf_histogram perf_histogram;

/** What all series were at one moment. */
typedef struct perf_snapshot perf_snapshot;

/* -------------------------------------------------------------- open, close */

/** How to open a set. Zero in a field means the default. */
typedef struct perf_metrics_options {
    size_t struct_size;
    uint64_t max_metrics;  /**< default 10000 */
    uint64_t max_series;   /**< of one metric that does not say; default 1000 */
    const char *labels;    /**< on every series, such as "service=api,zone=a"; copied; NULL: none */
    const perf_host *host; /**< allocator, clock, log */
} perf_metrics_options;
#define PERF_METRICS_OPTIONS_INIT                \
    {                                            \
        sizeof(perf_metrics_options), 0, 0, 0, 0 \
    }

/** Opens an empty set; options may be NULL. Starts no thread. PERF_EINVAL, PERF_ENOMEM.
 *  Since 1.0. */
PERF_API int perf_metrics_open(const perf_metrics_options *options, perf_metrics **out);

/** Frees the set and its series; no other thread may use any of them. Snapshots stay valid, and
 *  keep its memory until they are released. NULL is allowed. Since 1.0. */
PERF_API void perf_metrics_close(perf_metrics *metrics);

/* ------------------------------------------------------------------ metrics */

/** What a metric is. Zero in a field means the default. Strings are copied. */
typedef struct perf_metric_options {
    size_t struct_size;
    const char *name;     /**< [a-zA-Z_:][a-zA-Z0-9_:]*, up to 200 bytes; required */
    const char *help;     /**< one sentence; NULL: none */
    const char *unit;     /**< what a value of the texts is in, such as "seconds", "bytes"; the
                               name ends in it, or it is added to it; NULL: none */
    const char *labels;   /**< names separated by commas, up to 10; NULL: none. Not "le", nor what
                               begins with "__" */
    uint64_t max_series;  /**< more share one; up to 1000000; default: of the set */
    double scale;         /**< what is recorded, times this, is in unit: 1e-9 for nanoseconds in
                               seconds; default 1 */
    const double *bounds; /**< of the buckets that texts show, in unit, growing, up to 64;
                             histograms only; default: for a scale of 1e-9 (1e-6, 1e-3) 100 us to 60
                             s, else powers of four. Quantiles do not depend on them */
    size_t bounds_count;
} perf_metric_options;
#define PERF_METRIC_OPTIONS_INIT                            \
    {                                                       \
        sizeof(perf_metric_options), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * The counter of a metric whose labels have these values (one for each, in the order of
 * options->labels; NULL with no labels), made if it is not there. The first caller's options
 * describe the metric. A value longer than 128 bytes is cut.
 * PERF_ECONFLICT: the metric is there, with another type, unit, scale or labels, or a line of it
 * in the texts would have the name of another's; PERF_EINVAL; PERF_EBUSY: there are max_metrics;
 * PERF_ENOMEM; PERF_EFORKED. Any thread. Since 1.0.
 */
PERF_API int perf_metrics_counter(perf_metrics *metrics, const perf_metric_options *options,
                                  const char *const *values, perf_counter **out);

/** The same for a gauge. Since 1.0. */
PERF_API int perf_metrics_gauge(perf_metrics *metrics, const perf_metric_options *options,
                                const char *const *values, perf_gauge **out);

/** The same for a histogram. Since 1.0. */
PERF_API int perf_metrics_histogram(perf_metrics *metrics, const perf_metric_options *options,
                                    const char *const *values, perf_histogram **out);

/*
 * Counting, setting and recording never fail and never wait. A NULL series is allowed and counts
 * nothing, so that code need not look whether its metric could be made.
 */

/** Adds n. Any thread; shares no cache line with other threads. Since 1.0. */
PERF_API void perf_counter_add(perf_counter *counter, uint64_t n);

/** What was added so far. Since 1.0. */
PERF_API uint64_t perf_counter_value(const perf_counter *counter);

/** Sets, or adds (negative: takes away). Any thread. Since 1.0. */
PERF_API void perf_gauge_set(perf_gauge *gauge, double value);
PERF_API void perf_gauge_add(perf_gauge *gauge, double n);
PERF_API double perf_gauge_value(const perf_gauge *gauge);

/**
 * Records one value, before scale. Log-linear buckets (Tene's HdrHistogram): a quantile is within
 * 0.8 % of a value that was recorded. Any thread; shares no cache line with other threads.
 * Since 1.0.
 */
PERF_API void perf_histogram_record(perf_histogram *histogram, uint64_t value);

/** Records value n times. Since 1.0. */
PERF_API void perf_histogram_record_many(perf_histogram *histogram, uint64_t value, uint64_t n);

/**
 * Records value, and for one that is larger than expected what would have been seen meanwhile, had
 * the caller not waited for it: value - expected, value - 2 * expected and so on, down to expected
 * (Tene, "coordinated omission"). More than 1000 of them are recorded as 1000 that stand for
 * several each. expected 0: as perf_histogram_record. Since 1.0.
 */
PERF_API void perf_histogram_record_expected(perf_histogram *histogram, uint64_t value,
                                             uint64_t expected);

/** Records value and keeps trace_id (up to 63 printable bytes without quotes) as the example of its
 *  bucket in PERF_METRICS_OPENMETRICS, unless somebody is writing that one now. Since 1.0. */
PERF_API void perf_histogram_record_example(perf_histogram *histogram, uint64_t value,
                                            const char *trace_id);

/** The value, before scale, below which the share q of all lies; 0 when empty. Since 1.0. */
PERF_API uint64_t perf_histogram_quantile(const perf_histogram *histogram, double q);

/** How many were recorded. Since 1.0. */
PERF_API uint64_t perf_histogram_count(const perf_histogram *histogram);

/* ------------------------------------------------- values that are asked for */

/** One who is being asked by a snapshot. */
typedef struct perf_metrics_asked perf_metrics_asked;

/** Says what there is now by perf_metrics_tell_...; on the thread that makes the snapshot, one at
 *  a time. It may make series and forget asks, also itself; it must not close the set, and a
 *  snapshot of it is PERF_EDEADLK. asked ends with the call. */
typedef void (*perf_metrics_ask_fn)(void *ctx, perf_metrics_asked *asked);

/** Calls ask(ctx, ...) for each snapshot from now on. *id names it for perf_metrics_forget.
 *  PERF_ENOMEM. Since 1.0. */
PERF_API int perf_metrics_ask(perf_metrics *metrics, perf_metrics_ask_fn ask, void *ctx,
                              uint64_t *id);

/** Ends that; when it returns, ask is not running and will not be called. Unknown ids are fine.
 *  Since 1.0. */
PERF_API void perf_metrics_forget(perf_metrics *metrics, uint64_t id);

/** In an ask: a series of this snapshot with its value, already in the unit of its text (scale is
 *  ignored). Errors as perf_metrics_counter. Of one that is told twice the first is kept, of one
 *  that is also counted the count. Beyond max_series values are added up in "_other". Since 1.0. */
PERF_API int perf_metrics_tell_counter(perf_metrics_asked *asked,
                                       const perf_metric_options *options,
                                       const char *const *values, double value);
PERF_API int perf_metrics_tell_gauge(perf_metrics_asked *asked, const perf_metric_options *options,
                                     const char *const *values, double value);

/* -------------------------------------------------------------------- texts */

/**
 * Formats of texts. In the first two, a histogram's line for a bound counts the values that are
 * surely not above it: those in the same 1/64 of a power of two as the bound count with the next.
 * The lines are cumulative, and the last one, +Inf, is the count.
 */
enum {
    PERF_METRICS_PROMETHEUS = 1,  /**< "text/plain; version=0.0.4; charset=utf-8" */
    PERF_METRICS_OPENMETRICS = 2, /**< "application/openmetrics-text; version=1.0.0; charset=utf-8",
                                       with examples */
    PERF_METRICS_JSON = 3         /**< an array of objects: name, type, unit, labels, value or
                                       count, sum, p50, p90, p99, p999, max */
};

/** Takes a piece of a text. Not PERF_OK: it ends, and that is returned. */
typedef int (*perf_write_fn)(void *ctx, const char *data, size_t len);

/** Makes a snapshot and writes it by pieces of up to 16 KiB. PERF_EINVAL, PERF_ENOMEM, or what
 *  write returned. Since 1.0. */
PERF_API int perf_metrics_write(perf_metrics *metrics, int format, perf_write_fn write, void *ctx);

/** The Content-Type of a format, "" for an unknown one. Static. Since 1.0. */
PERF_API const char *perf_metrics_content_type(int format);

/* ---------------------------------------------------------------- snapshots */

/** Types of series. */
enum { PERF_METRIC_COUNTER = 1, PERF_METRIC_GAUGE = 2, PERF_METRIC_HISTOGRAM = 3 };

/** One series in a snapshot. Its strings live as long as the snapshot. */
typedef struct perf_series {
    size_t struct_size;
    const char *name, *help, *unit; /**< never NULL; the full name */
    int64_t type;                   /**< PERF_METRIC_... */
    size_t labels_count;            /**< the set's first */
    const char *const *label_names;
    const char *const *label_values;
    double value;            /**< of a counter or gauge, in unit */
    uint64_t count;          /**< of a histogram */
    double sum;              /**< of a histogram, in unit */
    double minimum, maximum; /**< of a histogram, within its relative error, in unit */
} perf_series;
#define PERF_SERIES_INIT                                        \
    {                                                           \
        sizeof(perf_series), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Reads all series now: sorted by full name, then by label values. Release it, at the latest
 *  before the host's allocator goes. PERF_ENOMEM, PERF_EDEADLK, PERF_EFORKED. Any thread.
 *  Since 1.0. */
PERF_API int perf_metrics_snapshot(perf_metrics *metrics, perf_snapshot **out);
PERF_API void perf_snapshot_release(perf_snapshot *snapshot);

/** When it was made, wall clock milliseconds; how many series; series number i (PERF_MISS: no
 *  such). Since 1.0. */
PERF_API int64_t perf_snapshot_time_ms(const perf_snapshot *snapshot);
PERF_API size_t perf_snapshot_count(const perf_snapshot *snapshot);
PERF_API int perf_snapshot_series(const perf_snapshot *snapshot, size_t i, perf_series *out);

/** Finds a series by its name, as it was given or in full, and the values of its own labels (not
 *  the set's): its number, or PERF_MISS. Since 1.0. */
PERF_API int perf_snapshot_find(const perf_snapshot *snapshot, const char *name,
                                const char *const *values, size_t *i);

/** Quantile q of histogram number i, in its unit; 0 if it is empty or no histogram. Since 1.0. */
PERF_API double perf_snapshot_quantile(const perf_snapshot *snapshot, size_t i, double q);

/**
 * The buckets of histogram number i that are not empty, from the least: the middle of each in
 * unit, and how many. At most n; returns how many there are. since, if not NULL, is an
 * earlier snapshot of the same set, whose counts are taken away: what came in between. Since 1.0.
 */
PERF_API size_t perf_snapshot_buckets(const perf_snapshot *snapshot, size_t i,
                                      const perf_snapshot *since, double *values, uint64_t *counts,
                                      size_t n);

/** Writes a snapshot as perf_metrics_write does. Since 1.0. */
PERF_API int perf_snapshot_write(const perf_snapshot *snapshot, int format, perf_write_fn write,
                                 void *ctx);

PERF_END_DECLS

#endif
