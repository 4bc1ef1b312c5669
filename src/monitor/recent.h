/* SPDX-License-Identifier: MIT */
/*
 * recent.h - windows as those who ask for figures see them. Private to the
 * monitor. Under monitor.mutex.
 */
#ifndef PERF_MONITOR_RECENT_H
#define PERF_MONITOR_RECENT_H

#include "../metrics/histogram.h"
#include "monitor_impl.h"

/* What several parts, or several endpoints, come to. */
struct perf__sum {
    uint64_t counts[COUNTS], sum_ns;
    uint64_t buckets[PERF__HISTOGRAM_BUCKETS];
};

/* The lengths of the windows, shortest first. */
extern const int64_t perf__recent_ms[WINDOWS];

/* Makes room for so many. False: no memory. */
bool perf__buckets_reserve(perf_monitor *monitor, struct perf__buckets *b, uint32_t room);

/* The buckets of e's histogram that are not empty, now. False: no memory. */
bool perf__recent_read(perf_monitor *monitor, const struct perf__endpoint *e,
                       struct perf__buckets *out, uint64_t *sum_ns);

/* Adds what is in a window of e; returns when that window begins, on the clock. */
int64_t perf__recent_sum(const struct perf__endpoint *e, int window, int64_t now_ms,
                         struct perf__sum *sum);

/* Figures on the way: what one endpoint gave, and the sum of those so far. */
struct perf__figures {
    struct perf__sum one, sum;
    uint64_t apdex_points, in_flight; /* two points for each that satisfies */
    int64_t begin_ms;
};

/* The number of the window of this length; -1: none. */
int perf__figures_window(int64_t window_ms);
/* window -1: all since the open. */
void perf__figures_add(perf_monitor *monitor, const struct perf__endpoint *e, int window,
                       struct perf__figures *f);
void perf__figures_fill(const struct perf__figures *f, int64_t now_ms, perf_request_stats *s);

#endif
