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
    uint64_t counts[COUNTS];
    struct perf__histogram_snapshot times; /* in nanoseconds */
};

/* The lengths of the windows, shortest first. */
extern const int64_t perf__recent_ms[WINDOWS];

/* When a window begins that ends now, on the clock. */
int64_t perf__recent_begin(int window, int64_t now_ms);
/* Adds what is in that window of e. */
void perf__recent_sum(const struct perf__endpoint *e, int window, int64_t now_ms,
                      struct perf__sum *sum);
#endif
