/* SPDX-License-Identifier: MIT */
/* monitor_libperf.c - bench-monitor: the shared library through its public API. */
#include <libperf/metrics.h>
#include <libperf/monitor.h>

#include "monitor_subject.h"

static perf_metrics *metrics;
static perf_counter *counter;
static perf_histogram *histogram;
static perf_monitor *monitor;

static void check(int rc)
{
    if (rc == PERF_OK)
        return;
    fprintf(stderr, "%s\n", perf_last_error());
    exit(1);
}

static void fill(void)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    char value[16];
    perf_gauge *gauge;
    uint64_t lcg = 1;
    o.labels = "method,path", o.max_series = 10000;
    for (int i = 0; i < 10000; i++) {
        const char *values[] = {"GET", value};
        snprintf(value, sizeof value, "/p/%d", i);
        if (i < 8000) {
            o.name = "requests";
            check(perf_metrics_counter(metrics, &o, values, &counter));
            perf_counter_add(counter, (uint64_t)i);
        } else if (i < 9000) {
            o.name = "depth";
            check(perf_metrics_gauge(metrics, &o, values, &gauge));
            perf_gauge_set(gauge, i + 0.5);
        } else {
            o.name = "took", o.unit = "seconds", o.scale = 1e-9;
            check(perf_metrics_histogram(metrics, &o, values, &histogram));
            subject_record(&lcg, 200);
        }
    }
}

static void track(uint64_t times)
{
    perf_request *request;
    for (uint64_t i = 0; i < times; i++) {
        check(perf_monitor_begin(monitor, "/api/chat", "POST", "user-1", &request));
        perf_request_set_status(request, 200);
        perf_request_end(request);
    }
}

static void read_clocks(uint64_t times)
{
    struct timespec t;
    for (uint64_t i = 0; i < 2 * times; i++)
        clock_gettime(CLOCK_MONOTONIC, &t);
}

static void subject_open(const char *kind)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    if (!strcmp(kind, "clocks")) {
        monitor_track = read_clocks;
        return;
    }
    if (!strcmp(kind, "tracked")) {
        check(perf_monitor_open(NULL, &monitor));
        monitor_track = track;
        return;
    }
    check(perf_metrics_open(NULL, &metrics));
    if (!strcmp(kind, "scrape")) {
        fill();
        return;
    }
    o.name = "c";
    check(perf_metrics_counter(metrics, &o, NULL, &counter));
    o.name = "h", o.scale = 1e-9;
    check(perf_metrics_histogram(metrics, &o, NULL, &histogram));
}

static void subject_count(uint64_t times)
{
    for (uint64_t i = 0; i < times; i++)
        perf_counter_add(counter, 1);
}

static void subject_record(uint64_t *lcg, uint64_t times)
{
    for (uint64_t i = 0; i < times; i++)
        perf_histogram_record(histogram, monitor_value(lcg));
}

static char text[8 << 20];

static int keep(void *ctx, const char *data, size_t len)
{
    size_t *used = ctx;
    if (*used + len > sizeof text)
        return PERF_ETOOSMALL;
    memcpy(text + *used, data, len);
    *used += len;
    return PERF_OK;
}

static size_t subject_scrape(void)
{
    size_t used = 0;
    check(perf_metrics_write(metrics, PERF_METRICS_PROMETHEUS, keep, &used));
    return used;
}
