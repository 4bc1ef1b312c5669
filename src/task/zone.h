/* SPDX-License-Identifier: MIT */
/*
 * zone.h - what a time zone's clocks showed and will show.
 *
 * Read from the system's TZif files, without setenv(TZ) or localtime, which are
 * the whole process's. A zone is not changed after it was read: any thread.
 */
#ifndef PERF_TASK_ZONE_H
#define PERF_TASK_ZONE_H

#include "../base/options.h"

#include <stdbool.h>

struct perf__zone;

/* A stretch of time in which the clocks go evenly: [from_s, until_s), seconds since 1970 UTC.
 * INT64_MIN and INT64_MAX: it has no such end. */
struct perf__zone_span {
    int64_t from_s, until_s;
    int64_t offset_s; /* local time less UTC */
};

/* A zone by its name ("Europe/Berlin"), from $TZDIR or /usr/share/zoneinfo. NULL, "" and "UTC"
 * need no file. PERF_EINVAL, PERF_ECORRUPT, PERF_EIO, PERF_ENOMEM. */
int perf__zone_open(const perf_allocator *allocator, const char *name, struct perf__zone **out);
/* The same from a file's bytes, which may be a stranger's. */
int perf__zone_read(const perf_allocator *allocator, const char *name, const void *data, size_t len,
                    struct perf__zone **out);
void perf__zone_free(const perf_allocator *allocator, struct perf__zone *zone);

/* The span that contains t. */
struct perf__zone_span perf__zone_span_at(const struct perf__zone *zone, int64_t t);

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back. month: 1 to 12. */
int64_t perf__days_of_date(int64_t year, int month, int day);
void perf__date_of_days(int64_t days, int64_t *year, int *month, int *day);

#endif
