/* SPDX-License-Identifier: MIT */
/* cron.h - the expressions of cron(5), and when they are next due in a time zone. Any thread. */
#ifndef PERF_TASK_CRON_H
#define PERF_TASK_CRON_H

#include "zone.h"

/* A bit for each value that matches. */
struct perf__cron {
    uint64_t minutes;
    uint32_t hours, days;
    uint16_t months;
    uint8_t weekdays; /* bit 0: Sunday */
    bool either_day;  /* a day of the month or of the week is enough */
};

/* PERF_EINVAL names the field, the value and the fix. */
int perf__cron_parse(const char *text, struct perf__cron *cron);

/* The first time after after_ms. PERF_MISS: none within ten years. PERF_EINVAL: after_ms is before
 * 1970 or after 9000. */
int perf__cron_after(const struct perf__cron *cron, const struct perf__zone *zone, int64_t after_ms,
                     int64_t *next_ms);

#endif
