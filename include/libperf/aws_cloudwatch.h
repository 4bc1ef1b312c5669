/* SPDX-License-Identifier: MIT */
/*
 * aws_cloudwatch.h - figures to CloudWatch.
 *
 *     perf_aws_shared("cloudwatch", &cw);
 *     perf_cloudwatch_datum hits = PERF_CLOUDWATCH_DATUM_INIT;
 *     const perf_cloudwatch_datum *all[] = {&hits};
 *     hits.name = "Hits", hits.value = 42, hits.unit = "Count";
 *     perf_cloudwatch_put(cw, "my/app", all, 1, 0, NULL);
 *
 * CloudWatch bills by metric, that is by name and set of dimensions, and by request; so collect,
 * and send a distribution as values with counts. Everything else is perf_aws_call (aws.h).
 *
 * Any thread may call it at any time. fork(): PERF_EFORKED.
 */
#ifndef LIBPERF_AWS_CLOUDWATCH_H
#define LIBPERF_AWS_CLOUDWATCH_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/** A name and a value that tell a metric from others of its name. */
typedef struct perf_cloudwatch_dimension {
    const char *name, *value;
} perf_cloudwatch_dimension;

/** What was measured. Zero in a field means the default. */
typedef struct perf_cloudwatch_datum {
    size_t struct_size;
    const char *name;                            /**< of the metric; required */
    const perf_cloudwatch_dimension *dimensions; /**< at most 30 */
    size_t dimension_count;
    double value;         /**< the one value, if values is NULL */
    const double *values; /**< many of them; split by 150 */
    const double *counts; /**< how often each occurred; NULL: once */
    size_t value_count;
    const char *unit;     /**< "Count", "Milliseconds", ...; default none */
    int64_t timestamp_ms; /**< since 1970; default now */
    int64_t resolution_s; /**< 1 or 60; default 60 */
} perf_cloudwatch_datum;
#define PERF_CLOUDWATCH_DATUM_INIT                                  \
    {                                                               \
        sizeof(perf_cloudwatch_datum), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Sends count data of a namespace, by 1000 and by 1 MB, compressed when longer than 1 KiB; all of
 * it within timeout_ms (0: the client's). done, if not NULL, receives how many data were taken,
 * counted from the first; after an error the others were not, or it is not known.
 *
 * Errors: PERF_EINVAL before anything is sent (a value that is not finite or beyond 2^360, a name);
 * those of perf_aws_call. Since 1.0.
 */
PERF_API int perf_cloudwatch_put(perf_aws *aws, const char *name_space,
                                 const perf_cloudwatch_datum *const *data, size_t count,
                                 int64_t timeout_ms, size_t *done);

PERF_END_DECLS

#endif
