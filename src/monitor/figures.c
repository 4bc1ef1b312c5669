/* SPDX-License-Identifier: MIT */
/*
 * figures.c - how requests went: from windows, or from all there was, to rates and
 * quantiles. Any thread; nothing of it is on the way of a request.
 */
#include <string.h>

#include "../base/status.h"
#include "recent.h"

/* --------------------------------------------------------------------- adding up */

/* Figures on the way: what one endpoint gave, and the sum of those so far. */
struct figures {
    struct perf__sum one, sum;
    uint64_t apdex_points, in_flight; /* two points for each that satisfies */
};

/* Everything since the open. */
static void sum_all(const struct perf__endpoint *e, struct perf__sum *sum)
{
    perf__histogram_snapshot(perf__histogram_of(e->latency), &sum->times);
    if (e->before) {
        for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
            sum->times.buckets[i] -= e->before->buckets[i];
        sum->times.count -= e->before->count;
        sum->times.sum -= e->before->sum;
    }
    perf__counters_sum_all(&e->counts, sum->counts);
}

/* Requests that took no longer than ns. A bucket counts by its middle. */
static uint64_t within(const struct perf__sum *sum, int64_t ns)
{
    uint32_t end = perf__histogram_bucket((uint64_t)ns);
    uint64_t n = 0;
    end += perf__histogram_middle(end) <= (uint64_t)ns;
    for (uint32_t i = 0; i < end; i++)
        n += sum->times.buckets[i];
    return n;
}

/* window -1: all since the open. */
static void add(perf_monitor *monitor, const struct perf__endpoint *e, int window,
                struct figures *f)
{
    int64_t ns = atomic_load_explicit(&e->apdex_ms, memory_order_relaxed) * 1000000;
    memset(&f->one, 0, sizeof f->one);
    if (window < 0)
        sum_all(e, &f->one);
    else
        perf__recent_sum(e, window, monitor->ticked_ms, &f->one);
    f->apdex_points += within(&f->one, ns) + within(&f->one, 4 * ns); /* the first are in both */
    for (uint32_t i = 0; i < COUNTS; i++)
        f->sum.counts[i] += f->one.counts[i];
    perf__histogram_merge(&f->sum.times, &f->one.times);
    f->in_flight += perf__endpoint_in_flight(e);
}

/* ------------------------------------------------------------------------- figures */

static double quantile_ms(const struct perf__histogram_snapshot *times, double q)
{
    return (double)perf__histogram_quantile(times, q) / 1e6;
}

static void fill_times(const struct perf__histogram_snapshot *times, perf_request_stats *s)
{
    s->mean_ms = (double)times->sum / (double)times->count / 1e6;
    s->min_ms = quantile_ms(times, 0);
    s->p50_ms = quantile_ms(times, 0.5);
    s->p75_ms = quantile_ms(times, 0.75);
    s->p90_ms = quantile_ms(times, 0.9);
    s->p95_ms = quantile_ms(times, 0.95);
    s->p99_ms = quantile_ms(times, 0.99);
    s->p999_ms = quantile_ms(times, 0.999);
    s->p9999_ms = quantile_ms(times, 0.9999);
    s->max_ms = quantile_ms(times, 1);
}

static void fill(const struct figures *f, int64_t window_ms, perf_request_stats *s)
{
    const struct perf__sum *sum = &f->sum;
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->window_ms = window_ms > 0 ? window_ms : 0;
    for (uint32_t i = 0; i < 6; i++)
        s->requests += s->by_class[i] = sum->counts[COUNT_ENDED + i];
    s->errors = sum->counts[COUNT_ERRORS];
    s->received = sum->counts[COUNT_RECEIVED];
    s->sent = sum->counts[COUNT_SENT];
    s->in_flight = f->in_flight;
    if (s->window_ms)
        s->per_second = (double)s->requests * 1000 / (double)s->window_ms;
    if (s->requests)
        s->error_rate = (double)s->errors / (double)s->requests;
    s->apdex = 1;
    if (sum->times.count) {
        s->apdex = (double)f->apdex_points / (2 * (double)sum->times.count);
        fill_times(&sum->times, s);
    }
}

static int window_of(int64_t window_ms)
{
    for (int w = 0; w < WINDOWS; w++)
        if (perf__recent_ms[w] == window_ms)
            return w;
    return -1;
}

int perf_monitor_get_stats(perf_monitor *monitor, const char *endpoint, const char *method,
                           int64_t window_ms, perf_request_stats *stats)
{
    size_t size;
    int rc = perf__monitor_check(monitor), window = window_of(window_ms);
    if (rc || (rc = perf__options_check_out("perf_request_stats", stats, &size)))
        return rc;
    if (window < 0 && window_ms != PERF_WINDOW_ALL)
        return perf__fail(PERF_EINVAL,
                          "window_ms is %lld; windows of 10000, 60000, 300000 and 3600000 ms are "
                          "kept, and 0 is all since the monitor was opened",
                          (long long)window_ms);
    struct figures *f = perf__calloc(&monitor->host.allocator, 1, sizeof *f);
    if (!f)
        return perf__fail_nomem("figures of requests");
    pthread_mutex_lock(&monitor->mutex);
    struct perf__endpoint *one =
        endpoint ? perf__endpoint_known(monitor, endpoint, method ? method : "") : NULL;
    if (endpoint && !one)
        rc = PERF_MISS;
    if (one)
        add(monitor, one, window, f);
    for (size_t i = 0; !endpoint && i < monitor->count; i++)
        add(monitor, monitor->all[i], window, f);
    int64_t now_ms = window < 0 ? perf__now_ms(monitor->clock) : monitor->ticked_ms;
    int64_t begin_ms = window < 0 ? monitor->opened_ms : perf__recent_begin(window, now_ms);
    pthread_mutex_unlock(&monitor->mutex);
    if (begin_ms < monitor->opened_ms)
        begin_ms = monitor->opened_ms;
    if (!rc) {
        perf_request_stats own;
        fill(f, now_ms - begin_ms, &own);
        perf__options_give(stats, size, &own, sizeof own);
    }
    perf__free(&monitor->host.allocator, f);
    return rc;
}

/* ----------------------------------------------------------------------- endpoints */

size_t perf_monitor_endpoints(perf_monitor *monitor)
{
    if (perf__monitor_check(monitor))
        return 0;
    pthread_mutex_lock(&monitor->mutex);
    size_t n = monitor->count;
    pthread_mutex_unlock(&monitor->mutex);
    return n;
}

int perf_monitor_endpoint(perf_monitor *monitor, size_t i, const char **endpoint,
                          const char **method)
{
    int rc = perf__monitor_check(monitor);
    if (rc)
        return rc;
    if (!endpoint || !method)
        return perf__fail(PERF_EINVAL, "%s is NULL; give a place for it",
                          endpoint ? "method" : "endpoint");
    pthread_mutex_lock(&monitor->mutex);
    struct perf__endpoint *e = i < monitor->count ? monitor->all[i] : NULL;
    pthread_mutex_unlock(&monitor->mutex);
    if (!e)
        return PERF_MISS;
    *endpoint = e->key;
    *method = perf__endpoint_method(e);
    return PERF_OK;
}

int perf_monitor_configure(perf_monitor *monitor, const char *endpoint, const char *method,
                           const perf_endpoint_options *options)
{
    perf_endpoint_options o;
    struct perf__endpoint *e;
    int rc = perf__monitor_check(monitor);
    if (rc || (rc = perf__options_take("perf_endpoint_options", options, &o, sizeof o)) ||
        (rc = perf__check_range("apdex_ms", o.apdex_ms, 0, 86400000)) ||
        (rc = perf__check_range("error_status", o.error_status, 0, 600)) ||
        (rc = perf__check_range("expected_ms", o.expected_ms, 0, 86400000)))
        return rc;
    if (!endpoint)
        return perf__fail(PERF_EINVAL, "endpoint is NULL; name the endpoint to be configured");
    pthread_mutex_lock(&monitor->mutex);
    rc = perf__endpoint_make(monitor, endpoint, method ? method : "", &e);
    pthread_mutex_unlock(&monitor->mutex);
    if (rc == PERF_MISS)
        return perf__fail(PERF_EBUSY, "max_endpoints is %llu and there are as many; raise it",
                          (unsigned long long)monitor->max_endpoints);
    if (rc)
        return rc;
    atomic_store(&e->apdex_ms, o.apdex_ms ? o.apdex_ms : monitor->apdex_ms);
    atomic_store(&e->error_status, o.error_status ? o.error_status : monitor->error_status);
    atomic_store(&e->expected_ns, o.expected_ms * 1000000);
    return PERF_OK;
}
