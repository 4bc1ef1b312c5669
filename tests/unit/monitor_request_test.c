/* SPDX-License-Identifier: MIT */
/*
 * monitor_request_test.c - requests tracked: counts, times, windows, the slowest,
 * traces, with time passed by the clock seam.
 */
#include <libperf/perf.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

#define OK(call) cr_assert_eq(call, PERF_OK, "%s", perf_last_error())

struct watch {
    struct test_host th;
    perf_monitor *m;
};

static void watch_open(struct watch *w, perf_monitor_options *o)
{
    perf_monitor_options plain = PERF_MONITOR_OPTIONS_INIT;
    test_host_init(&w->th);
    if (!o)
        o = &plain;
    o->manual = 1;
    o->host = &w->th.host;
    OK(perf_monitor_open(o, &w->m));
}

static void watch_close(struct watch *w)
{
    OK(perf_monitor_close(w->m));
    cr_assert_eq(atomic_load(&w->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&w->th.live));
}

static void request(struct watch *w, const char *endpoint, int64_t ms, int64_t status)
{
    perf_request *r;
    OK(perf_monitor_begin(w->m, endpoint, "GET", "ann", &r));
    test_host_advance(&w->th, ms);
    perf_request_set_status(r, status);
    perf_request_end(r);
}

static perf_request_stats stats_of(struct watch *w, const char *endpoint, int64_t window_ms)
{
    perf_request_stats s = PERF_REQUEST_STATS_INIT;
    OK(perf_monitor_get_stats(w->m, endpoint, "GET", window_ms, &s));
    return s;
}

static bool near(double value, double wanted)
{
    return fabs(value - wanted) <= wanted * 0.01;
}

/* ------------------------------------------------------------------------ counting */

Test(monitor, a_request_is_counted_with_its_time_and_status)
{
    struct watch w;
    watch_open(&w, NULL);
    for (int i = 1; i <= 100; i++)
        request(&w, "/a", i, i <= 90 ? 200 : i <= 95 ? 404 : 503);
    request(&w, "/b", 5, 99); /* no status of HTTP */
    perf_request_stats s = stats_of(&w, "/a", PERF_WINDOW_ALL);
    cr_assert_eq(s.requests, 100);
    cr_assert_eq(s.errors, 5);
    cr_assert_eq(s.by_class[2], 90);
    cr_assert_eq(s.by_class[4], 5);
    cr_assert_eq(s.by_class[5], 5);
    cr_assert_eq(s.in_flight, 0);
    cr_assert(near(s.p50_ms, 51), "%f", s.p50_ms);
    cr_assert(near(s.p99_ms, 100), "%f", s.p99_ms);
    cr_assert(near(s.max_ms, 100), "%f", s.max_ms);
    cr_assert(near(s.min_ms, 1), "%f", s.min_ms);
    cr_assert(near(s.mean_ms, 50.5), "%f", s.mean_ms);
    cr_assert(near(s.error_rate, 0.05), "%f", s.error_rate);
    cr_assert_eq(s.window_ms, 5055);
    cr_assert(near(s.per_second, 100 / 5.055), "%f", s.per_second);
    cr_assert_eq(stats_of(&w, "/b", PERF_WINDOW_ALL).by_class[5], 1);
    cr_assert_eq(stats_of(&w, NULL, PERF_WINDOW_ALL).requests, 101);
    cr_assert_eq(perf_monitor_get_stats(w.m, "/none", "GET", 0, &s), PERF_MISS);
    cr_assert_eq(perf_monitor_get_stats(w.m, "/a", "POST", 0, &s), PERF_MISS);
    cr_assert_eq(perf_monitor_get_stats(w.m, "/a", "GET", 7, &s), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "window_ms is 7"));
    watch_close(&w);
}

Test(monitor, failures_bytes_and_discards)
{
    struct watch w;
    perf_request *r, *other;
    watch_open(&w, NULL);
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &r));
    perf_request_fail(r, "no \"database\"");
    perf_request_add_bytes(r, 10, 20);
    perf_request_add_bytes(r, 1, 2);
    cr_assert_eq(stats_of(&w, "/a", 0).in_flight, 1);
    cr_assert_eq(perf_monitor_close(w.m), PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "1 requests are under way"), "%s", perf_last_error());
    perf_request_end(r);
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &r));
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &other));
    perf_request_discard(r);
    perf_request_stats s = stats_of(&w, "/a", 0);
    cr_assert_eq(s.requests, 1);
    cr_assert_eq(s.errors, 1);
    cr_assert_eq(s.by_class[5], 1); /* a failure without a status */
    cr_assert_eq(s.received, 11);
    cr_assert_eq(s.sent, 22);
    cr_assert_eq(s.in_flight, 1);
    perf_request_end(other);
    cr_assert_eq(stats_of(&w, "/a", 0).by_class[2], 1);
    watch_close(&w);
}

Test(monitor, nothing_breaks_what_is_measured)
{
    char header[64] = "x";
    perf_request *r = (perf_request *)1;
    cr_assert_eq(perf_monitor_begin(NULL, "/a", "GET", NULL, &r), PERF_EINVAL);
    cr_assert_null(r);
    perf_request_set_status(r, 200);
    perf_request_fail(r, "x");
    perf_request_add_bytes(r, 1, 1);
    perf_request_enter(r);
    cr_assert_null(perf_request_current());
    cr_assert_eq(perf_request_span(r, "x"), -1);
    perf_request_span_end(r, 0);
    OK(perf_request_set_traceparent(r, "x"));
    cr_assert_eq(perf_request_get_traceparent(r, header, sizeof header), PERF_MISS);
    cr_assert_str_eq(header, "");
    perf_request_leave(r);
    perf_request_end(r);
    perf_request_discard(r);
    perf_request_list_release(NULL);
    cr_assert_eq(perf_request_list_count(NULL), 0);
    OK(perf_monitor_close(NULL));
}

Test(monitor, options_are_checked)
{
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_endpoint_options e = PERF_ENDPOINT_OPTIONS_INIT;
    struct watch w;
    perf_monitor *m;
    o.slowest = 65;
    cr_assert_eq(perf_monitor_open(&o, &m), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "slowest"), "%s", perf_last_error());
    cr_assert_eq(perf_monitor_open(&o, NULL), PERF_EINVAL);
    watch_open(&w, NULL);
    e.apdex_ms = -1;
    cr_assert_eq(perf_monitor_configure(w.m, "/a", "GET", &e), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "apdex_ms"), "%s", perf_last_error());
    cr_assert_eq(perf_monitor_configure(w.m, NULL, "GET", NULL), PERF_EINVAL);
    watch_close(&w);
}

/* ------------------------------------------------------------------------- windows */

static void seconds(struct watch *w, int n)
{
    for (int i = 0; i < n; i++) {
        test_host_advance(&w->th, 1000);
        OK(perf_monitor_tick(w->m));
    }
}

Test(monitor, windows_slide)
{
    struct watch w;
    watch_open(&w, NULL);
    seconds(&w, 3600);
    for (int i = 0; i < 60; i++) { /* one minute of slow ones, one of fast ones */
        request(&w, "/a", 500, 500);
        test_host_advance(&w.th, 500);
        OK(perf_monitor_tick(w.m));
    }
    for (int i = 0; i < 60; i++) {
        request(&w, "/a", 10, 200);
        test_host_advance(&w.th, 990);
        OK(perf_monitor_tick(w.m));
    }
    perf_request_stats s = stats_of(&w, "/a", PERF_WINDOW_10S);
    cr_assert(s.requests >= 9 && s.requests <= 10, "%d", (int)s.requests);
    cr_assert(s.window_ms >= 9000 && s.window_ms <= 10000, "%d", (int)s.window_ms);
    cr_assert(s.per_second > 0.85 && s.per_second < 1.15, "%f", s.per_second);
    cr_assert_eq(s.errors, 0);
    cr_assert(near(s.max_ms, 10), "%f", s.max_ms);
    s = stats_of(&w, "/a", PERF_WINDOW_1M);
    cr_assert(s.requests >= 54 && s.requests <= 60, "%d", (int)s.requests);
    cr_assert(near(s.max_ms, 10), "%f", s.max_ms);
    s = stats_of(&w, "/a", PERF_WINDOW_5M);
    cr_assert_eq(s.requests, 120);
    cr_assert_eq(s.errors, 60);
    cr_assert(near(s.p99_ms, 500), "%f", s.p99_ms);
    cr_assert(near(s.mean_ms, 255), "%f", s.mean_ms);
    cr_assert_eq(stats_of(&w, "/a", PERF_WINDOW_1H).requests, 120);
    seconds(&w, 301);
    s = stats_of(&w, "/a", PERF_WINDOW_5M);
    cr_assert_eq(s.requests, 0);
    cr_assert_eq(s.max_ms, 0);
    cr_assert_eq(s.apdex, 1);
    cr_assert_eq(stats_of(&w, "/a", PERF_WINDOW_1H).requests, 120);
    test_host_advance(&w.th, 4000000); /* nobody ticked for more than an hour */
    OK(perf_monitor_tick(w.m));
    cr_assert_eq(stats_of(&w, "/a", PERF_WINDOW_1H).requests, 0);
    cr_assert_eq(stats_of(&w, "/a", PERF_WINDOW_ALL).requests, 120);
    watch_close(&w);
}

Test(monitor, apdex_and_expected_intervals)
{
    struct watch w;
    perf_endpoint_options e = PERF_ENDPOINT_OPTIONS_INIT;
    watch_open(&w, NULL);
    e.apdex_ms = 100;
    OK(perf_monitor_configure(w.m, "/a", "GET", &e));
    for (int i = 0; i < 10; i++) {
        request(&w, "/a", 50, 200);
        request(&w, "/a", 300, 200);
        request(&w, "/a", 900, 200);
        request(&w, "/b", 450, 200);
    }
    cr_assert(near(stats_of(&w, "/a", 0).apdex, 0.5), "%f", stats_of(&w, "/a", 0).apdex);
    cr_assert(near(stats_of(&w, "/b", 0).apdex, 1), "%f", stats_of(&w, "/b", 0).apdex);
    cr_assert(near(stats_of(&w, NULL, 0).apdex, 0.625), "%f", stats_of(&w, NULL, 0).apdex);
    /* A closed loop that sends each 10 ms and meets a stall of a second. */
    e.expected_ms = 10;
    OK(perf_monitor_configure(w.m, "/c", "GET", &e));
    for (int i = 0; i < 100; i++)
        request(&w, "/c", 1, 200);
    request(&w, "/c", 1000, 200);
    perf_request_stats s = stats_of(&w, "/c", 0);
    cr_assert_eq(s.requests, 101);
    cr_assert(s.p75_ms > 450 && s.p75_ms < 550, "%f", s.p75_ms);
    watch_close(&w);
}

/* An allocator whose first block, once armed, comes with a tick. */
struct ticker {
    struct watch w;
    bool armed;
};

static void *ticking_alloc(void *ctx, size_t size)
{
    struct ticker *t = ctx;
    if (t->armed) {
        t->armed = false;
        OK(perf_monitor_tick(t->w.m));
    }
    return malloc(size);
}

static void *plain_realloc(void *ctx, void *block, size_t size)
{
    (void)ctx;
    return realloc(block, size);
}

static void plain_free(void *ctx, void *block)
{
    (void)ctx;
    free(block);
}

Test(monitor, a_tick_amid_an_end_loses_no_time)
{
    struct ticker t = {.armed = false};
    perf_allocator allocator = PERF_ALLOCATOR_INIT;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_request *r;
    test_host_init(&t.w.th);
    allocator.ctx = &t;
    allocator.alloc = ticking_alloc;
    allocator.realloc = plain_realloc;
    allocator.free = plain_free;
    t.w.th.host.allocator = &allocator;
    o.manual = 1;
    o.host = &t.w.th.host;
    OK(perf_monitor_open(&o, &t.w.m));
    OK(perf_monitor_begin(t.w.m, "/a", "GET", NULL, &r));
    test_host_advance(&t.w.th, 100);
    t.armed = true; /* the thread's row of the histogram */
    perf_request_end(r);
    cr_assert(!t.armed);
    seconds(&t.w, 1);
    perf_request_stats s = stats_of(&t.w, "/a", PERF_WINDOW_10S);
    cr_assert_eq(s.requests, 1);
    cr_assert(near(s.p50_ms, 100), "%f", s.p50_ms);
    OK(perf_monitor_close(t.w.m));
}

/* ----------------------------------------------------------------------- endpoints */

Test(monitor, endpoints_are_bounded)
{
    struct watch w;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    char name[300];
    const char *endpoint, *method;
    o.max_endpoints = 3;
    watch_open(&w, &o);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 10; i++) {
            snprintf(name, sizeof name, "/%d", i);
            request(&w, name, 1, 200);
        }
    cr_assert_eq(perf_monitor_endpoints(w.m), 4);
    OK(perf_monitor_endpoint(w.m, 3, &endpoint, &method));
    cr_assert_str_eq(endpoint, "_other");
    cr_assert_eq(perf_monitor_endpoint(w.m, 4, &endpoint, &method), PERF_MISS);
    perf_request_stats s = PERF_REQUEST_STATS_INIT;
    OK(perf_monitor_get_stats(w.m, "_other", "", 0, &s));
    cr_assert_eq(s.requests, 14);
    cr_assert_eq(stats_of(&w, "/2", 0).requests, 2);
    cr_assert_eq(perf_monitor_configure(w.m, "/9", "GET", NULL), PERF_EBUSY);
    watch_close(&w);
    perf_request *r;
    o.max_endpoints = 1;
    watch_open(&w, &o);
    OK(perf_monitor_begin(w.m, "_other", "", NULL, &r)); /* one of the host's, of that name */
    perf_request_end(r);
    request(&w, "/a", 1, 200);
    cr_assert_eq(perf_monitor_endpoints(w.m), 1);
    OK(perf_monitor_get_stats(w.m, "_other", "", 0, &s));
    cr_assert_eq(s.requests, 2);
    watch_close(&w);
    watch_open(&w, NULL);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    request(&w, name, 1, 200);
    request(&w, name, 1, 200);
    name[250] = 'y'; /* beyond what is looked at */
    request(&w, name, 1, 200);
    cr_assert_eq(perf_monitor_endpoints(w.m), 1);
    OK(perf_monitor_endpoint(w.m, 0, &endpoint, &method));
    cr_assert_eq(strlen(endpoint), 128);
    cr_assert_str_eq(method, "GET");
    watch_close(&w);
}

/* Each endpoint has a histogram, and what cannot be told apart there is one endpoint. */
Test(monitor, endpoints_are_told_apart_as_the_metrics_do)
{
    struct watch w;
    const char *endpoint, *method;
    char names[][140] = {"/\xff", "/\xfe", "/\xef\xbf\xbd", "", ""};
    memset(names[3], 'x', 130);
    memset(names[4], 'x', 127);
    strcpy(names[4] + 127, "\xc3\xa9"); /* is cut before this character */
    watch_open(&w, NULL);
    for (int i = 0; i < 3; i++) {
        request(&w, names[i], 10, 200);
        cr_assert_eq(perf_monitor_endpoints(w.m), 1);
        cr_assert_eq(stats_of(&w, names[i], PERF_WINDOW_ALL).requests, (uint64_t)i + 1);
    }
    OK(perf_monitor_endpoint(w.m, 0, &endpoint, &method));
    cr_assert_str_eq(endpoint, names[2]);
    request(&w, names[3], 1, 200);
    request(&w, names[4], 100, 200);
    request(&w, names[4], 100, 200);
    cr_assert_eq(perf_monitor_endpoints(w.m), 3);
    cr_assert(near(stats_of(&w, names[3], PERF_WINDOW_ALL).max_ms, 1));
    cr_assert(near(stats_of(&w, names[4], PERF_WINDOW_ALL).min_ms, 100));
    OK(perf_monitor_endpoint(w.m, 2, &endpoint, &method));
    cr_assert_eq(strlen(endpoint), 127);
    watch_close(&w);
}

Test(monitor, a_metric_of_the_same_name_is_named)
{
    struct watch w;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_metric_options mo = PERF_METRIC_OPTIONS_INIT;
    perf_counter *counter;
    perf_request *r;
    OK(perf_metrics_open(NULL, &o.metrics));
    mo.name = "http_server_request_duration_seconds";
    OK(perf_metrics_counter(o.metrics, &mo, NULL, &counter));
    watch_open(&w, &o);
    cr_assert_eq(perf_monitor_begin(w.m, "/a", "GET", NULL, &r), PERF_ECONFLICT);
    cr_assert_null(r);
    cr_assert(strstr(perf_last_error(), mo.name), "%s", perf_last_error());
    cr_assert_eq(perf_monitor_configure(w.m, "/a", "GET", NULL), PERF_ECONFLICT);
    cr_assert_eq(perf_monitor_endpoints(w.m), 0);
    watch_close(&w);
    perf_metrics_close(o.metrics);
}

static void *begins_names(void *arg)
{
    perf_monitor *m = arg;
    char name[16];
    perf_request *r;
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "/%d", i % 7);
        OK(perf_monitor_begin(m, name, "GET", NULL, &r));
        perf_request_end(r);
    }
    return NULL;
}

/* The first that finds no room makes "_other" while others look up theirs. */
Test(monitor, threads_fill_the_endpoints)
{
    struct watch w;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_request_stats s = PERF_REQUEST_STATS_INIT;
    pthread_t threads[4];
    o.max_endpoints = 3;
    watch_open(&w, &o);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, begins_names, w.m), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(perf_monitor_endpoints(w.m), 4);
    OK(perf_monitor_get_stats(w.m, NULL, NULL, 0, &s));
    cr_assert_eq(s.requests, 8000);
    watch_close(&w);
}

/* ----------------------------------------------------------------------- the slowest */

Test(monitor, the_slowest_are_kept_with_their_spans)
{
    struct watch w;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_request_list *list;
    perf_request_record r = PERF_REQUEST_RECORD_INIT;
    perf_span_record s = PERF_SPAN_RECORD_INIT;
    o.slowest = 3;
    o.slowest_ms = 60000;
    watch_open(&w, &o);
    for (int i = 1; i <= 20; i++)
        request(&w, "/a", (i * 7) % 20 + 1, 200);
    PERF_TRACK(w.m, "/a", "GET", "bob")
    {
        OK(perf_request_set_traceparent(perf_request_current(),
                                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        test_host_advance(&w.th, 10);
        PERF_SPAN("outer")
        {
            test_host_advance(&w.th, 20);
            PERF_SPAN("inner") test_host_advance(&w.th, 30);
        }
        PERF_SPAN("second") test_host_advance(&w.th, 5);
        perf_request_fail(perf_request_current(), "slow");
    }
    cr_assert_null(perf_request_current());
    OK(perf_monitor_slowest(w.m, "/a", "GET", &list));
    cr_assert_eq(perf_request_list_count(list), 3);
    OK(perf_request_list_get(list, 0, &r));
    cr_assert_str_eq(r.user, "bob");
    cr_assert_str_eq(r.error, "slow");
    cr_assert_str_eq(r.endpoint, "/a");
    cr_assert_str_eq(r.method, "GET");
    cr_assert_str_eq(r.trace_id, "0af7651916cd43dd8448eb211c80319c");
    cr_assert_str_eq(r.parent_id, "b7ad6b7169203331");
    cr_assert_eq(strlen(r.span_id), 16);
    cr_assert_eq(r.status, 500);
    cr_assert(fabs(r.duration_ms - 65) <= 0.001, "%f", r.duration_ms);
    cr_assert_eq(r.spans, 3);
    OK(perf_request_list_span(list, 0, 0, &s));
    cr_assert_str_eq(s.name, "outer");
    cr_assert_eq(s.parent, -1);
    cr_assert(fabs(s.begun_ms - 10) <= 0.001, "%f", s.begun_ms);
    cr_assert(fabs(s.duration_ms - 50) <= 0.001, "%f", s.duration_ms);
    OK(perf_request_list_span(list, 0, 1, &s));
    cr_assert_str_eq(s.name, "inner");
    cr_assert_eq(s.parent, 0);
    cr_assert(fabs(s.duration_ms - 30) <= 0.001, "%f", s.duration_ms);
    OK(perf_request_list_span(list, 0, 2, &s));
    cr_assert_eq(s.parent, -1);
    cr_assert_eq(perf_request_list_span(list, 0, 3, &s), PERF_MISS);
    OK(perf_request_list_get(list, 1, &r));
    cr_assert(fabs(r.duration_ms - 20) <= 0.001, "%f", r.duration_ms);
    OK(perf_request_list_get(list, 2, &r));
    cr_assert(fabs(r.duration_ms - 19) <= 0.001, "%f", r.duration_ms);
    cr_assert_eq(perf_request_list_get(list, 3, &r), PERF_MISS);
    test_host_advance(&w.th, 60001);
    OK(perf_monitor_tick(w.m));
    OK(perf_request_list_get(list, 0, &r)); /* a list stays */
    cr_assert_str_eq(r.user, "bob");
    perf_request_list_release(list);
    request(&w, "/b", 1, 200);
    cr_assert_eq(perf_monitor_slowest(w.m, "/none", "", &list), PERF_MISS);
    OK(perf_monitor_slowest(w.m, NULL, NULL, &list));
    cr_assert_eq(perf_request_list_count(list), 1);
    OK(perf_monitor_close(w.m)); /* a list outlives its monitor */
    OK(perf_request_list_get(list, 0, &r));
    cr_assert_str_eq(r.endpoint, "/b");
    cr_assert_str_eq(r.method, "GET");
    perf_request_list_release(list);
    cr_assert_eq(atomic_load(&w.th.live), 0);
}

Test(monitor, spans_are_bounded_and_end_with_what_they_are_in)
{
    struct watch w;
    perf_request *r;
    perf_request_list *list;
    perf_request_record record = PERF_REQUEST_RECORD_INIT;
    perf_span_record s = PERF_SPAN_RECORD_INIT;
    watch_open(&w, NULL);
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &r));
    int64_t outer = perf_request_span(r, "outer");
    (void)perf_request_span(r, "left open");
    test_host_advance(&w.th, 5);
    perf_request_span_end(r, outer);
    perf_request_span_end(r, outer); /* again: nothing */
    perf_request_span_end(r, 77);
    int64_t next = perf_request_span(r, NULL);
    for (int i = 0; i < 40; i++)
        (void)perf_request_span(r, "a name that is longer than what is kept of it");
    test_host_advance(&w.th, 5);
    perf_request_end(r);
    OK(perf_monitor_slowest(w.m, "/a", "GET", &list));
    OK(perf_request_list_get(list, 0, &record));
    cr_assert_eq(record.spans, 32);
    cr_assert_eq(record.spans_lost, 11);
    OK(perf_request_list_span(list, 0, 1, &s));
    cr_assert(fabs(s.duration_ms - 5) <= 0.001, "%f", s.duration_ms);
    OK(perf_request_list_span(list, 0, (size_t)next, &s));
    cr_assert_eq(s.parent, -1);
    cr_assert_str_eq(s.name, "");
    cr_assert(fabs(s.duration_ms - 5) <= 0.001, "%f", s.duration_ms);
    OK(perf_request_list_span(list, 0, 31, &s));
    cr_assert_eq(s.parent, 30);
    cr_assert_str_eq(s.name, "a name that is longer than what");
    perf_request_list_release(list);
    watch_close(&w);
}

/* --------------------------------------------------------------------------- traces */

Test(monitor, traceparent_in_and_out)
{
    static const char *const bad[] = {"",
                                      "00",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                                      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                      "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
                                      "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
                                      "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"};
    struct watch w;
    perf_request *r;
    char out[56], again[56];
    watch_open(&w, NULL);
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &r));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(perf_request_set_traceparent(r, bad[i]), PERF_EINVAL, "%s", bad[i]);
    OK(perf_request_set_traceparent(r, NULL));
    cr_assert_eq(perf_request_get_traceparent(r, out, 55), PERF_ETOOSMALL);
    OK(perf_request_get_traceparent(r, out, sizeof out));
    cr_assert_eq(strlen(out), 55);
    OK(perf_request_get_traceparent(r, again, sizeof again));
    cr_assert_str_eq(out, again);
    OK(perf_request_set_traceparent(
        r, "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later versions"));
    OK(perf_request_get_traceparent(r, out, sizeof out));
    cr_assert_eq(strncmp(out, "00-0af7651916cd43dd8448eb211c80319c-", 36), 0, "%s", out);
    cr_assert_str_eq(out + 52, "-00");
    cr_assert(strncmp(out + 36, "b7ad6b7169203331", 16) != 0);
    perf_request_end(r);
    watch_close(&w);
}

/* ------------------------------------------------------------------------- entering */

static int leave_by_return(perf_monitor *m)
{
    PERF_TRACK(m, "/return", "GET", NULL)
    {
        PERF_TRACK(m, "/inner", "GET", NULL)
        {
            return 1;
        }
    }
    return 0;
}

Test(monitor, entered_in_any_order, .timeout = 10)
{
    struct watch w;
    perf_request *a, *b, *c;
    watch_open(&w, NULL);
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &a));
    OK(perf_monitor_begin(w.m, "/b", "GET", NULL, &b));
    OK(perf_monitor_begin(w.m, "/c", "GET", NULL, &c));
    perf_request_enter(a);
    perf_request_enter(b);
    perf_request_enter(a);
    cr_assert_eq(perf_request_current(), a);
    perf_request_leave(c); /* never entered */
    perf_request_leave(a);
    cr_assert_eq(perf_request_current(), b);
    perf_request_leave(a);
    cr_assert_eq(perf_request_current(), b);
    perf_request_enter(c);
    perf_request_end(b); /* not left, and not the top one */
    perf_request_leave(c);
    cr_assert_null(perf_request_current());
    perf_request_discard(c);
    perf_request_end(a);
    watch_close(&w);
}

Test(monitor, scopes_end_by_whatever_way)
{
    struct watch w;
    perf_request *a, *b;
    watch_open(&w, NULL);
    cr_assert_eq(leave_by_return(w.m), 1);
    cr_assert_null(perf_request_current());
    for (int i = 0; i < 3; i++) {
        PERF_TRACK(w.m, "/continue", "GET", NULL)
        {
            continue;
        }
        cr_assert_null(perf_request_current());
    }
    PERF_TRACK(NULL, "/nowhere", "GET", NULL)
    {
        cr_assert_null(perf_request_current());
    }
    PERF_SPAN("of nothing")
    {
        cr_assert_null(perf_request_current());
    }
    cr_assert_eq(stats_of(&w, "/return", 0).requests, 1);
    cr_assert_eq(stats_of(&w, "/inner", 0).requests, 1);
    cr_assert_eq(stats_of(&w, "/continue", 0).requests, 3);
    /* In any order, and ended without leaving. */
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &a));
    OK(perf_monitor_begin(w.m, "/a", "GET", NULL, &b));
    perf_request_enter(a);
    perf_request_enter(b);
    perf_request_leave(a);
    cr_assert_eq(perf_request_current(), b);
    perf_request_end(b);
    cr_assert_null(perf_request_current());
    perf_request_end(a);
    watch_close(&w);
}

/* -------------------------------------------------------------------------- threads */

enum { THREADS = 4, EACH = 5000 };

struct handed {
    perf_monitor *m;
    pthread_mutex_t mutex;
    perf_request *waiting[THREADS * EACH];
    int count, taken;
};

static void *begins(void *arg)
{
    struct handed *h = arg;
    char name[16];
    for (int i = 0; i < EACH; i++) {
        perf_request *r;
        snprintf(name, sizeof name, "/%d", i % 20);
        OK(perf_monitor_begin(h->m, name, "GET", "ann", &r));
        if (i % 2) {
            perf_request_end(r);
            continue;
        }
        pthread_mutex_lock(&h->mutex);
        h->waiting[h->count++] = r;
        pthread_mutex_unlock(&h->mutex);
    }
    return NULL;
}

static void *ends(void *arg)
{
    struct handed *h = arg;
    for (int done = 0; done < EACH / 2;) {
        pthread_mutex_lock(&h->mutex);
        perf_request *r = h->taken < h->count ? h->waiting[h->taken++] : NULL;
        pthread_mutex_unlock(&h->mutex);
        if (!r) {
            usleep(100);
            continue;
        }
        perf_request_end(r);
        done++;
    }
    return NULL;
}

Test(monitor, requests_begun_and_ended_by_different_threads, .timeout = 120)
{
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_request_stats s = PERF_REQUEST_STATS_INIT;
    struct handed *h = calloc(1, sizeof *h);
    pthread_t threads[2 * THREADS];
    struct test_host th;
    test_host_init(&th);
    perf_host host = th.host;
    host.clock = NULL; /* real time: the monitor's own thread ticks */
    o.host = &host;
    OK(perf_monitor_open(&o, &h->m));
    pthread_mutex_init(&h->mutex, NULL);
    for (int i = 0; i < 2 * THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < THREADS ? begins : ends, h), 0);
    for (int i = 0; i < 20; i++) {
        OK(perf_monitor_tick(h->m));
        OK(perf_monitor_get_stats(h->m, NULL, NULL, PERF_WINDOW_ALL, &s));
        usleep(1000);
    }
    for (int i = 0; i < 2 * THREADS; i++)
        pthread_join(threads[i], NULL);
    OK(perf_monitor_tick(h->m));
    OK(perf_monitor_get_stats(h->m, NULL, NULL, PERF_WINDOW_ALL, &s));
    cr_assert_eq(s.requests, THREADS * EACH);
    cr_assert_eq(s.in_flight, 0);
    OK(perf_monitor_get_stats(h->m, NULL, NULL, PERF_WINDOW_1H, &s));
    cr_assert_eq(s.requests, THREADS * EACH);
    OK(perf_monitor_close(h->m));
    cr_assert_eq(atomic_load(&th.live), 0, "%lld blocks leaked", (long long)atomic_load(&th.live));
    pthread_mutex_destroy(&h->mutex);
    free(h);
}

/* ------------------------------------------------------------------------- failures */

Test(monitor, every_allocation_fails_once, .timeout = 120)
{
    for (int64_t nth = 1, done = 0; !done; nth++) {
        struct test_host th;
        perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
        perf_monitor *m = NULL;
        perf_request *r = NULL;
        perf_request_list *list;
        perf_request_stats s = PERF_REQUEST_STATS_INIT;
        test_host_init(&th);
        th.fail_at = nth;
        o.manual = 1;
        o.host = &th.host;
        int rc = perf_monitor_open(&o, &m);
        if (!rc) {
            for (int i = 0; i < 3; i++) {
                (void)!perf_monitor_begin(m, "/a", "GET", "ann", &r);
                test_host_advance(&th, 1000 * (i + 1));
                perf_request_end(r);
                (void)!perf_monitor_tick(m);
            }
            if (!perf_monitor_slowest(m, NULL, NULL, &list))
                perf_request_list_release(list);
            (void)!perf_monitor_get_stats(m, NULL, NULL, PERF_WINDOW_1M, &s);
        }
        done = !th.failed;
        th.fail_at = 0;
        if (!rc) { /* what was counted is in the windows after all */
            perf_request_stats all = PERF_REQUEST_STATS_INIT;
            OK(perf_monitor_tick(m));
            OK(perf_monitor_get_stats(m, NULL, NULL, PERF_WINDOW_1M, &s));
            OK(perf_monitor_get_stats(m, NULL, NULL, PERF_WINDOW_ALL, &all));
            cr_assert_eq(s.requests, all.requests);
            cr_assert_geq(s.requests, 2);
            cr_assert_eq(s.in_flight, 0);
        } else {
            cr_assert_eq(rc, PERF_ENOMEM, "%s", perf_last_error());
        }
        OK(perf_monitor_close(m));
        cr_assert_eq(atomic_load(&th.live), 0, "allocation %lld: leaked", (long long)nth);
    }
}

Test(monitor, a_child_opens_its_own)
{
    struct watch w;
    watch_open(&w, NULL);
    request(&w, "/a", 1, 200);
    pid_t child = fork();
    if (!child) {
        perf_request *r;
        int rc = perf_monitor_begin(w.m, "/a", "GET", NULL, &r);
        _exit(rc == PERF_EFORKED && !r && perf_monitor_tick(w.m) == PERF_EFORKED &&
                      perf_monitor_close(w.m) == PERF_OK
                  ? 0
                  : 1);
    }
    int status = 1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    watch_close(&w);
}

/* -------------------------------------------------------------------------- metrics */

Test(monitor, the_metrics_say_the_same)
{
    struct watch w;
    perf_snapshot *snapshot;
    perf_series s = PERF_SERIES_INIT;
    size_t i;
    watch_open(&w, NULL);
    for (int n = 0; n < 4; n++)
        request(&w, "/a", 100, n ? 200 : 500);
    OK(perf_metrics_snapshot(perf_monitor_metrics(w.m), &snapshot));
    OK(perf_snapshot_find(snapshot, "http_server_request_duration_seconds",
                          (const char *[]){"/a", "GET"}, &i));
    OK(perf_snapshot_series(snapshot, i, &s));
    cr_assert_eq(s.count, 4);
    cr_assert(fabs(s.sum - 0.4) <= 1e-9, "%f", s.sum);
    OK(perf_snapshot_find(snapshot, "http_server_requests", (const char *[]){"/a", "GET", "2xx"},
                          &i));
    OK(perf_snapshot_series(snapshot, i, &s));
    cr_assert_eq(s.value, 3);
    OK(perf_snapshot_find(snapshot, "http_server_errors", (const char *[]){"/a", "GET"}, &i));
    OK(perf_snapshot_series(snapshot, i, &s));
    cr_assert_eq(s.value, 1);
    perf_snapshot_release(snapshot);
    watch_close(&w);
}

Test(monitor, one_after_another_on_the_same_metrics)
{
    struct watch w;
    perf_monitor_options o = PERF_MONITOR_OPTIONS_INIT;
    perf_metric_options mo = PERF_METRIC_OPTIONS_INIT;
    perf_histogram *h;
    OK(perf_metrics_open(NULL, &o.metrics));
    watch_open(&w, &o);
    request(&w, "/a", 1000, 200);
    watch_close(&w);
    for (int64_t nth = 1, done = 0; !done; nth++) { /* without memory there is no request, either */
        perf_request *r;
        watch_open(&w, &o);
        w.th.fail_at = nth;
        if (perf_monitor_begin(w.m, "/a", "GET", NULL, &r) != PERF_OK)
            cr_assert_null(r);
        done = !w.th.failed;
        w.th.fail_at = 0;
        perf_request_discard(r);
        watch_close(&w);
    }
    watch_open(&w, &o);
    request(&w, "/a", 10, 200);
    seconds(&w, 1);
    for (int i = 0; i < 2; i++) {
        perf_request_stats s = stats_of(&w, "/a", i ? PERF_WINDOW_ALL : PERF_WINDOW_1M);
        cr_assert_eq(s.requests, 1);
        cr_assert(near(s.mean_ms, 10), "%f", s.mean_ms);
        cr_assert(near(s.min_ms, 10), "%f", s.min_ms);
        cr_assert(near(s.max_ms, 10), "%f", s.max_ms);
        cr_assert_eq(s.apdex, 1);
    }
    mo.name = "http_server_request_duration";
    mo.unit = "seconds";
    mo.scale = 1e-9;
    mo.labels = "endpoint,method";
    OK(perf_metrics_histogram(o.metrics, &mo, (const char *[]){"/a", "GET"}, &h));
    cr_assert_eq(perf_histogram_count(h), 2);
    watch_close(&w);
    perf_metrics_close(o.metrics);
}

Test(monitor, figures_without_endpoints)
{
    struct watch w;
    watch_open(&w, NULL);
    seconds(&w, 3);
    cr_assert_eq(stats_of(&w, NULL, PERF_WINDOW_ALL).window_ms, 3000);
    cr_assert_eq(stats_of(&w, NULL, PERF_WINDOW_1M).window_ms, 3000);
    cr_assert_eq(stats_of(&w, NULL, PERF_WINDOW_1M).requests, 0);
    watch_close(&w);
}
