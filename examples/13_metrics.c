/* SPDX-License-Identifier: MIT */
/*
 * 13_metrics.c - what a service counts, as Prometheus scrapes it.
 *
 * Two threads answer requests that take their time; the text that Prometheus
 * would be sent goes to the terminal, and quantiles to the standard error.
 */
#include <libperf/metrics.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REQUESTS = 2000 };

/* Got once, at the start; used at every request, by any thread. */
static perf_counter *answered, *refused;
static perf_histogram *took;

static int make_metrics(perf_metrics *metrics)
{
    perf_metric_options requests = PERF_METRIC_OPTIONS_INIT, duration = PERF_METRIC_OPTIONS_INIT;
    int rc;
    requests.name = "http_requests";
    requests.help = "Requests by the status they were answered with";
    requests.labels = "status";
    duration.name = "http_request_duration";
    duration.help = "From the first byte in to the last byte out";
    duration.unit = "seconds";
    duration.scale = 1e-9; /* nanoseconds are recorded */
    if ((rc = perf_metrics_counter(metrics, &requests, (const char *[]){"200"}, &answered)) ||
        (rc = perf_metrics_counter(metrics, &requests, (const char *[]){"503"}, &refused)))
        return rc;
    return perf_metrics_histogram(metrics, &duration, NULL, &took);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *serve(void *arg)
{
    unsigned seed = 1;
    (void)arg;
    for (int i = 0; i < REQUESTS; i++) {
        int64_t begun = now_ns();
        for (volatile int work = rand_r(&seed) % 10000; work > 0; work = work - 1) {
        }
        perf_counter_add(i % 100 ? answered : refused, 1);
        perf_histogram_record(took, (uint64_t)(now_ns() - begun));
    }
    return NULL;
}

/* Something else knows this one: it is asked when somebody wants to see it. */
static void say_uptime(void *ctx, perf_metrics_asked *asked)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    o.name = "uptime";
    o.help = "Since the start";
    o.unit = "seconds";
    perf_metrics_tell_gauge(asked, &o, NULL, (double)(now_ns() - *(int64_t *)ctx) / 1e9);
}

static int print(void *ctx, const char *data, size_t len)
{
    return fwrite(data, 1, len, ctx) == len ? PERF_OK : PERF_EIO;
}

int main(void)
{
    perf_metrics *metrics = NULL;
    pthread_t threads[2];
    int64_t start = now_ns();
    uint64_t id;
    int rc;
    if ((rc = perf_metrics_open(NULL, &metrics)) || (rc = make_metrics(metrics)) ||
        (rc = perf_metrics_ask(metrics, say_uptime, &start, &id)))
        goto out;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, serve, NULL))
            return EXIT_FAILURE;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    rc = perf_metrics_write(metrics, PERF_METRICS_PROMETHEUS, print, stdout);
    fprintf(stderr, "half took less than %.1f us, 99 of 100 less than %.1f us\n",
            (double)perf_histogram_quantile(took, 0.5) / 1e3,
            (double)perf_histogram_quantile(took, 0.99) / 1e3);
out:
    if (rc != PERF_OK)
        fprintf(stderr, "%s\n", perf_last_error());
    perf_metrics_close(metrics);
    return rc == PERF_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
