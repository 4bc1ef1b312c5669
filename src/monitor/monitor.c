/* SPDX-License-Identifier: MIT */
/*
 * monitor.c - open, close, the thread that ticks each second, and what a
 * snapshot of the metrics is told.
 *
 * Any thread; close is the last call.
 */
#include <string.h>

#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../metrics/lines.h"
#include "monitor_impl.h"

enum { TICK_MS = 1000 };

int perf__monitor_check(perf_monitor *monitor)
{
    if (__builtin_expect(!monitor, 0))
        return perf__fail(PERF_EINVAL, "monitor is NULL; open one by perf_monitor_open");
    if (__builtin_expect(monitor->fork_generation != perf__fork_generation, 0))
        return perf__fail_forked();
    return PERF_OK;
}

/* ------------------------------------------------------------------------ the tick */

int perf_monitor_tick(perf_monitor *monitor)
{
    int rc = perf__monitor_check(monitor);
    if (rc)
        return rc;
    pthread_mutex_lock(&monitor->mutex);
    int64_t now_ms = perf__now_ms(monitor->clock);
    int64_t realtime_ms = perf__realtime_coarse_ms(monitor->clock);
    for (size_t i = 0; i < monitor->count; i++) {
        struct perf__endpoint *e = monitor->all[i];
        if (!perf__recent_tick(monitor, e, now_ms))
            rc = perf__fail_nomem("the windows of an endpoint");
        perf__slowest_expire(monitor, &e->slowest, realtime_ms);
    }
    monitor->ticked_ms = now_ms;
    pthread_mutex_unlock(&monitor->mutex);
    return rc;
}

static void *run(void *arg)
{
    perf_monitor *monitor = arg;
    int64_t next_ns = perf__deadline_after(TICK_MS);
    pthread_mutex_lock(&monitor->mutex);
    while (!monitor->stops) {
        if (perf__cond_wait(&monitor->wake, &monitor->mutex, next_ns))
            continue;
        next_ns = perf__deadline_after(TICK_MS);
        pthread_mutex_unlock(&monitor->mutex);
        (void)!perf_monitor_tick(monitor); /* without memory now: by the next tick */
        pthread_mutex_lock(&monitor->mutex);
    }
    pthread_mutex_unlock(&monitor->mutex);
    return NULL;
}

/* ------------------------------------------------------- what a snapshot is told */

static const char *const classes[] = {"other", "1xx", "2xx", "3xx", "4xx", "5xx"};

static int tell(perf_metrics_asked *asked, const struct perf__endpoint *e)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    const char *names[] = {e->key, perf__endpoint_method(e), NULL};
    int rc = PERF_OK;
    o.max_series = 1000000;
    o.labels = "endpoint,method,status";
    o.name = "http_server_requests";
    o.help = "Requests that have ended, by the hundreds of their status.";
    for (uint32_t i = 0; i < 6 && !rc; i++) {
        uint64_t n = perf__counters_sum(&e->counts, COUNT_ENDED + i);
        names[2] = classes[i];
        if (n)
            rc = perf_metrics_tell_counter(asked, &o, names, (double)n);
    }
    o.labels = "endpoint,method";
    o.name = "http_server_errors";
    o.help = "Requests that failed or had the status of an error.";
    if (!rc)
        rc = perf_metrics_tell_counter(asked, &o, names,
                                       (double)perf__counters_sum(&e->counts, COUNT_ERRORS));
    o.name = "http_server_active_requests";
    o.help = "Requests under way.";
    if (!rc)
        rc = perf_metrics_tell_gauge(asked, &o, names, (double)perf__endpoint_in_flight(e));
    o.unit = "bytes";
    o.name = "http_server_received";
    o.help = "What was received for requests.";
    if (!rc)
        rc = perf_metrics_tell_counter(asked, &o, names,
                                       (double)perf__counters_sum(&e->counts, COUNT_RECEIVED));
    o.name = "http_server_sent";
    o.help = "What requests were answered with.";
    if (!rc)
        rc = perf_metrics_tell_counter(asked, &o, names,
                                       (double)perf__counters_sum(&e->counts, COUNT_SENT));
    return rc;
}

static void tell_all(void *ctx, perf_metrics_asked *asked)
{
    perf_monitor *monitor = ctx;
    pthread_mutex_lock(&monitor->mutex);
    for (size_t i = 0; i < monitor->count; i++)
        if (tell(asked, monitor->all[i]))
            break; /* no memory: what is missing is missing in this snapshot only */
    pthread_mutex_unlock(&monitor->mutex);
}

/* ---------------------------------------------------------------------- open, close */

static void free_list(const perf_allocator *allocator, perf_request *r)
{
    while (r) {
        perf_request *next = r->next;
        perf__free(allocator, r);
        r = next;
    }
}

static void monitor_free(perf_monitor *monitor)
{
    perf_allocator allocator = monitor->host.allocator;
    const perf_allocator *uthash_allocator = &allocator;
    HASH_CLEAR(hh, monitor->by_key);
    for (size_t i = 0; i < monitor->count; i++)
        perf__endpoint_free(monitor, monitor->all[i]);
    perf__free(&allocator, monitor->all);
    for (int i = 0; i < PERF__THREAD_SLOTS; i++) {
        free_list(&allocator, monitor->lanes[i].free);
        perf__free(&allocator, monitor->lanes[i].near);
    }
    free_list(&allocator, monitor->free);
    if (monitor->own_metrics)
        perf_metrics_close(monitor->metrics);
    perf__lines_free(&allocator, monitor);
}

static int take_options(const perf_monitor_options *options, perf_monitor_options *o)
{
    int rc = perf__options_take("perf_monitor_options", options, o, sizeof *o);
    if (rc)
        return rc;
    if (!o->max_endpoints)
        o->max_endpoints = 1000;
    if (!o->slowest)
        o->slowest = 8;
    if (!o->slowest_ms)
        o->slowest_ms = 3600000;
    if (!o->apdex_ms)
        o->apdex_ms = 500;
    if (!o->error_status)
        o->error_status = 500;
    if ((rc = perf__check_range("max_endpoints", (int64_t)o->max_endpoints, 1, 100000)) ||
        (rc = perf__check_range("slowest", (int64_t)o->slowest, 1, SLOWEST_MAX)) ||
        (rc = perf__check_range("slowest_ms", o->slowest_ms, 1, INT64_MAX)) ||
        (rc = perf__check_range("apdex_ms", o->apdex_ms, 1, 86400000)) ||
        (rc = perf__check_range("error_status", o->error_status, 100, 600)) ||
        (rc = perf__check_range("manual", o->manual, 0, 1)))
        return rc;
    return PERF_OK;
}

int perf_monitor_open(const perf_monitor_options *options, perf_monitor **out)
{
    perf_monitor_options o;
    struct perf__host host;
    perf_monitor *m = NULL;
    bool locked = false;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_monitor_open: out is NULL; give a place for it");
    if ((rc = take_options(options, &o)) || (rc = perf__host_take(o.host, &host)) ||
        (rc = perf__fork_arm()))
        return rc;
    if (!(m = perf__lines_new(&host.allocator, sizeof *m)))
        return perf__fail_nomem("a monitor");
    if ((rc = perf__host_take(o.host, &m->host)))
        goto out;
    m->clock = &m->host.clock;
    m->fork_generation = perf__fork_generation;
    m->secret = perf__hash_random_key();
    m->max_endpoints = o.max_endpoints;
    m->slowest = (uint32_t)o.slowest;
    m->slowest_ms = o.slowest_ms;
    m->apdex_ms = o.apdex_ms;
    m->error_status = o.error_status;
    m->opened_ms = m->ticked_ms = perf__now_ms(m->clock);
    if ((rc = perf__locks_init(&m->mutex, &m->wake, "the locks of a monitor")))
        goto out;
    locked = true;
    m->metrics = o.metrics;
    if (!m->metrics) {
        perf_metrics_options mo = PERF_METRICS_OPTIONS_INIT;
        mo.host = &m->host.view;
        if ((rc = perf_metrics_open(&mo, &m->metrics)))
            goto out;
        m->own_metrics = true;
    }
    if ((rc = perf_metrics_ask(m->metrics, tell_all, m, &m->asked_id)))
        goto out;
    if (!o.manual && perf__thread_start(&m->thread, "perf-monitor", run, m)) {
        rc = perf__fail(PERF_EUNAVAILABLE,
                        "the system gives no thread for a monitor; raise the limit of threads, or "
                        "set manual and call perf_monitor_tick");
        perf_metrics_forget(m->metrics, m->asked_id);
        goto out;
    }
    m->running = !o.manual;
    *out = m;
out:
    if (rc) {
        if (locked) {
            pthread_cond_destroy(&m->wake);
            pthread_mutex_destroy(&m->mutex);
        }
        monitor_free(m);
    }
    return rc;
}

int perf_monitor_close(perf_monitor *monitor)
{
    if (!monitor)
        return PERF_OK;
    if (monitor->fork_generation != perf__fork_generation) {
        monitor_free(monitor); /* a child: the thread and what the locks say are the parent's */
        return PERF_OK;
    }
    uint64_t under_way = 0;
    pthread_mutex_lock(&monitor->mutex);
    for (size_t i = 0; i < monitor->count; i++)
        under_way += perf__endpoint_in_flight(monitor->all[i]);
    monitor->stops = !under_way;
    pthread_cond_signal(&monitor->wake);
    pthread_mutex_unlock(&monitor->mutex);
    if (under_way)
        return perf__fail(PERF_EBUSY,
                          "%llu requests are under way; end or discard them before "
                          "perf_monitor_close",
                          (unsigned long long)under_way);
    if (monitor->running)
        pthread_join(monitor->thread, NULL);
    perf_metrics_forget(monitor->metrics, monitor->asked_id);
    pthread_cond_destroy(&monitor->wake);
    pthread_mutex_destroy(&monitor->mutex);
    monitor_free(monitor);
    return PERF_OK;
}

perf_metrics *perf_monitor_metrics(perf_monitor *monitor)
{
    return monitor ? monitor->metrics : NULL;
}
