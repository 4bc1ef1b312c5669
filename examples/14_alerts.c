/* SPDX-License-Identifier: MIT */
/*
 * 14_alerts.c - a service that is told when something is wrong.
 *
 * Plays twenty minutes of an endpoint, with a clock of its own so that
 * it takes no time: after eight minutes its database becomes slow and some
 * requests fail, three minutes later all is well again. Three rules look at it; what they tell is
 * printed, and at the end what this process itself uses.
 */
#include <libperf/alert.h>
#include <libperf/system.h>
#include <stdint.h>
#include <stdio.h>

static int64_t seconds; /* of the play */

static int64_t play_ns(void *ctx)
{
    (void)ctx;
    return seconds * 1000000000;
}

static int64_t play_ms(void *ctx)
{
    (void)ctx;
    return seconds * 1000;
}

static const char *state_name(int64_t state)
{
    return state == PERF_ALERT_FIRING     ? "FIRING"
           : state == PERF_ALERT_RESOLVED ? "resolved"
           : state == PERF_ALERT_MISSING  ? "no data"
                                          : "ok";
}

static void tell(void *ctx, const perf_alert_event *event)
{
    ++*(int *)ctx;
    printf("%2d:%02d  %-13s %-9s %-9s %8.3g (%.3g)\n", (int)(event->time_ms / 60000),
           (int)(event->time_ms / 1000 % 60), event->name, event->subject, state_name(event->to),
           event->value, event->threshold);
}

static double latency_ms(int64_t second)
{
    static uint32_t seed = 1;
    seed = seed * 1664525 + 1013904223;
    double usual = 150 + (double)(seed >> 24); /* 150 to 405 */
    return second >= 480 && second < 660 ? usual * 20 : usual;
}

int main(void)
{
    perf_clock clock = PERF_CLOCK_INIT;
    perf_host host = PERF_HOST_INIT;
    perf_alerts_options options = PERF_ALERTS_OPTIONS_INIT;
    perf_alert_rule change = PERF_ALERT_RULE_INIT;
    perf_alerts *alerts = NULL;
    perf_system *system = NULL;
    int told = 0, rc;

    clock.monotonic_ns = play_ns;
    clock.realtime_ms = play_ms;
    host.clock = &clock;
    options.host = &host;
    options.on_event = tell;
    options.on_event_ctx = &told;
    change.name = "latency";
    change.kind = PERF_ALERT_CHANGE;
    change.clear_for_ms = 30000;
    if ((rc = perf_alerts_open(&options, &alerts)) || (rc = perf_alerts_add_defaults(alerts)) ||
        (rc = perf_alerts_add(alerts, &change, NULL)))
        goto out;
    for (; seconds < 1200 && !rc; seconds++) {
        for (int request = 0; request < 5 && !rc; request++) {
            double ms = latency_ms(seconds);
            int failed = ms > 5000 && request == 0;
            if (!(rc = perf_alerts_feed_to(alerts, "latency", "/api/chat", ms)) &&
                !(rc = perf_alerts_feed_to(alerts, "response_time", "/api/chat", ms)))
                rc = perf_alerts_feed_counts_to(alerts, "error_rate", "/api/chat", !failed,
                                                failed != 0);
        }
        if (!rc)
            rc = perf_alerts_tick(alerts);
    }
    perf_system_stats stats = PERF_SYSTEM_STATS_INIT;
    if (rc || (rc = perf_system_open(NULL, &system)) ||
        (rc = perf_system_read(system, PERF_SYSTEM_ALL, &stats)))
        goto out;
    printf("\nthis process: %.1f MiB resident of %.0f, %lld threads, %lld descriptors; it may use "
           "%.2f processors\n",
           (double)stats.rss / 1048576, (double)stats.memory_limit / 1048576,
           (long long)stats.threads, (long long)stats.open_files, stats.cpu_limit);
out:
    if (rc)
        fprintf(stderr, "%s\n", perf_last_error());
    perf_system_close(system);
    perf_alerts_close(alerts);
    return rc || told != 6; /* each of the three begins and ends once */
}
