/* SPDX-License-Identifier: MIT */
/*
 * figures.c - how requests went: from windows, or from all there was, to rates and
 * quantiles. Any thread; nothing of it is on the way of a request.
 */
#include <string.h>

#include "../base/status.h"
#include "recent.h"

/* --------------------------------------------------------------------- adding up */

/* Everything since the open. */
static void sum_all(const struct perf__endpoint *e, struct perf__sum *sum)
{
    struct perf__histogram_reader reader;
    uint64_t counts[PERF__OCTAVE_BUCKETS];
    perf__histogram_read(perf__histogram_of(e->latency), &reader);
    sum->sum_ns += reader.sum;
    for (uint32_t i = 0; i < PERF__OCTAVES; i++)
        if (perf__histogram_octave(&reader, i, counts))
            for (uint32_t j = 0; j < PERF__OCTAVE_BUCKETS; j++)
                sum->buckets[i * PERF__OCTAVE_BUCKETS + j] += counts[j];
    for (uint32_t i = 0; i < COUNTS; i++)
        sum->counts[i] += perf__counters_sum(&e->counts, i);
}

bool perf__recent_read(perf_monitor *monitor, const struct perf__endpoint *e,
                       struct perf__buckets *out, uint64_t *sum_ns)
{
    struct perf__histogram_reader reader;
    uint64_t counts[PERF__OCTAVE_BUCKETS];
    perf__histogram_read(perf__histogram_of(e->latency), &reader);
    *sum_ns = reader.sum;
    out->count = 0;
    for (uint32_t i = 0; i < PERF__OCTAVES; i++) {
        if (!perf__histogram_octave(&reader, i, counts))
            continue;
        if (!perf__buckets_reserve(monitor, out, out->count + PERF__OCTAVE_BUCKETS))
            return false;
        for (uint32_t j = 0; j < PERF__OCTAVE_BUCKETS; j++)
            if (counts[j])
                out->all[out->count++] =
                    (struct perf__bucket){i * PERF__OCTAVE_BUCKETS + j, (uint32_t)counts[j]};
    }
    return true;
}

/* Requests that took no longer than ns. A bucket counts by its middle. */
static uint64_t within(const struct perf__sum *sum, int64_t ns)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        if (sum->buckets[i] && perf__histogram_middle(i) <= (uint64_t)ns)
            n += sum->buckets[i];
    return n;
}

static void add_apdex(struct perf__figures *f, const struct perf__endpoint *e,
                      const struct perf__sum *one)
{
    int64_t ns = atomic_load_explicit(&e->apdex_ms, memory_order_relaxed) * 1000000;
    uint64_t satisfied = within(one, ns);
    f->apdex_points += 2 * satisfied + (within(one, 4 * ns) - satisfied);
}

static void add_up(struct perf__sum *to, const struct perf__sum *from)
{
    for (uint32_t i = 0; i < COUNTS; i++)
        to->counts[i] += from->counts[i];
    to->sum_ns += from->sum_ns;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

void perf__figures_add(perf_monitor *monitor, const struct perf__endpoint *e, int window,
                       struct perf__figures *f)
{
    int64_t begin_ms = monitor->opened_ms;
    memset(&f->one, 0, sizeof f->one);
    if (window < 0)
        sum_all(e, &f->one);
    else
        begin_ms = perf__recent_sum(e, window, monitor->ticked_ms, &f->one);
    add_apdex(f, e, &f->one);
    add_up(&f->sum, &f->one);
    f->in_flight += perf__endpoint_in_flight(e);
    f->begin_ms = begin_ms > monitor->opened_ms ? begin_ms : monitor->opened_ms;
}

/* ------------------------------------------------------------------------- figures */

static double quantile_ms(const struct perf__sum *sum, uint64_t count, double q)
{
    uint64_t rank = perf__histogram_rank(count, q), seen = 0;
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        if ((seen += sum->buckets[i]) > rank)
            return (double)perf__histogram_middle(i) / 1e6;
    return 0;
}

static void fill_times(const struct perf__sum *sum, uint64_t count, perf_request_stats *s)
{
    s->mean_ms = (double)sum->sum_ns / (double)count / 1e6;
    s->min_ms = quantile_ms(sum, count, 0);
    s->p50_ms = quantile_ms(sum, count, 0.5);
    s->p75_ms = quantile_ms(sum, count, 0.75);
    s->p90_ms = quantile_ms(sum, count, 0.9);
    s->p95_ms = quantile_ms(sum, count, 0.95);
    s->p99_ms = quantile_ms(sum, count, 0.99);
    s->p999_ms = quantile_ms(sum, count, 0.999);
    s->p9999_ms = quantile_ms(sum, count, 0.9999);
    s->max_ms = quantile_ms(sum, count, 1);
}

void perf__figures_fill(const struct perf__figures *f, int64_t now_ms, perf_request_stats *s)
{
    const struct perf__sum *sum = &f->sum;
    uint64_t count = 0;
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->window_ms = now_ms > f->begin_ms ? now_ms - f->begin_ms : 0;
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
    for (uint32_t i = 0; i < PERF__HISTOGRAM_BUCKETS; i++)
        count += sum->buckets[i];
    s->apdex = count ? (double)f->apdex_points / (2 * (double)count) : 1;
    if (count)
        fill_times(sum, count, s);
}

int perf__figures_window(int64_t window_ms)
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
    int rc = perf__monitor_check(monitor), window = perf__figures_window(window_ms);
    if (rc || (rc = perf__options_check_out("perf_request_stats", stats, &size)))
        return rc;
    if (window < 0 && window_ms != PERF_WINDOW_ALL)
        return perf__fail(PERF_EINVAL,
                          "window_ms is %lld; windows of 10000, 60000, 300000 and 3600000 ms are "
                          "kept, and 0 is all since the monitor was opened",
                          (long long)window_ms);
    struct perf__figures *f = perf__calloc(&monitor->host.allocator, 1, sizeof *f);
    if (!f)
        return perf__fail_nomem("figures of requests");
    pthread_mutex_lock(&monitor->mutex);
    struct perf__endpoint *one =
        endpoint ? perf__endpoint_known(monitor, endpoint, method ? method : "") : NULL;
    if (endpoint && !one)
        rc = PERF_MISS;
    if (one)
        perf__figures_add(monitor, one, window, f);
    for (size_t i = 0; !endpoint && i < monitor->count; i++)
        perf__figures_add(monitor, monitor->all[i], window, f);
    int64_t now_ms = window < 0 ? perf__now_ms(monitor->clock) : monitor->ticked_ms;
    pthread_mutex_unlock(&monitor->mutex);
    if (!rc) {
        perf_request_stats own;
        perf__figures_fill(f, now_ms, &own);
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
