/* SPDX-License-Identifier: MIT */
/*
 * 15_tracking.c - know every request: how many, how fast, how they ended, and where the slow ones
 * spent their time.
 *
 *     cc 15_tracking.c $(pkg-config --cflags --libs libperf) -o 15_tracking && ./15_tracking
 *
 * Two threads answer requests for a while; then the program shows what its monitor knows.
 */
#include <libperf/perf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static perf_monitor *monitor;

static void work_for_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* A handler as it is in a service: what belongs to monitoring is PERF_TRACK, PERF_SPAN and the
 * status. It may return from anywhere. */
static void chat(const char *user, int number)
{
    PERF_TRACK(monitor, "/api/chat", "POST", user)
    {
        perf_request *request = perf_request_current();
        PERF_SPAN("database") work_for_us(number % 50 ? 200 : 20000); /* now and then it is slow */
        if (number % 25 == 7) {
            perf_request_fail(request, "the model is overloaded");
            return;
        }
        PERF_SPAN("model") work_for_us(400);
        perf_request_add_bytes(request, 120, 2048);
        perf_request_set_status(request, 200);
    }
}

static void *serve(void *user)
{
    for (int i = 0; i < 200; i++)
        chat(user, i);
    return NULL;
}

static void show_slowest(void)
{
    perf_request_list *list;
    perf_request_record r = PERF_REQUEST_RECORD_INIT;
    perf_span_record span = PERF_SPAN_RECORD_INIT;
    if (perf_monitor_slowest(monitor, "/api/chat", "POST", &list))
        return;
    if (perf_request_list_get(list, 0, &r) == PERF_OK) {
        printf("the slowest: %.1f ms, for %s, trace %s\n", r.duration_ms, r.user, r.trace_id);
        for (size_t i = 0; perf_request_list_span(list, 0, i, &span) == PERF_OK; i++)
            printf("  %-10s after %5.1f ms, took %5.1f ms\n", span.name, span.begun_ms,
                   span.duration_ms);
    }
    perf_request_list_release(list);
}

int main(void)
{
    pthread_t ann, bob;
    int rc = perf_monitor_open(NULL, &monitor);
    if (rc) {
        fprintf(stderr, "perf_monitor_open: %s\n", perf_last_error());
        return 1;
    }
    if (pthread_create(&ann, NULL, serve, "ann"))
        return 1;
    if (pthread_create(&bob, NULL, serve, "bob"))
        return 1;
    pthread_join(ann, NULL);
    pthread_join(bob, NULL);

    perf_request_stats s = PERF_REQUEST_STATS_INIT;
    rc = perf_monitor_get_stats(monitor, "/api/chat", "POST", PERF_WINDOW_ALL, &s);
    if (!rc) {
        printf("POST /api/chat: %llu requests, %.0f/s, %.1f %% errors, Apdex %.2f\n",
               (unsigned long long)s.requests, s.per_second, 100 * s.error_rate, s.apdex);
        printf("p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", s.p50_ms, s.p99_ms, s.max_ms);
        show_slowest();
    }
    perf_monitor_close(monitor);
    return rc || s.requests != 400 || s.errors != 16 ? 1 : 0;
}
