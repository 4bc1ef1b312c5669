/* SPDX-License-Identifier: MIT */
/*
 * alert_day.h - a day of a made-up service, second by second, under the rules
 * of alert.h: what is noticed, after how long, and what is noticed that was not
 * there. By a clock of its own; a day takes a fraction of a second.
 *
 * Latencies are log-normal with a slow wave over the day and noise that lasts for
 * some seconds, requests come more at noon, and one in 2000 fails. One incident
 * each day begins at noon.
 */
#ifndef TESTS_ALERT_DAY_H
#define TESTS_ALERT_DAY_H

#include <libperf/alert.h>
#include <math.h>
#include <string.h>

enum alert_day_kind {
    DAY_QUIET,
    DAY_STEP,        /* three times as slow for half an hour */
    DAY_SMALL_STEP,  /* half as slow again, for half an hour */
    DAY_RAMP,        /* up to four times as slow over an hour, and an hour so */
    DAY_SPIKES,      /* every hour two seconds that are 50 times as slow: not to be told */
    DAY_FLAPPING,    /* an hour of 30 seconds eight times as slow, 30 as ever */
    DAY_OUTAGE,      /* half an hour in which all fails */
    DAY_ERRORS,      /* half an hour of 5 % */
    DAY_SLOW_ERRORS, /* six hours of 1 % */
    DAY_LEAK,        /* a MiB of memory each minute, from midnight */
    DAY_KINDS
};

enum { DAY_SLOW, DAY_CHANGE, DAY_BURN, DAY_MEMORY, DAY_RULES };

static const char *const alert_day_names[DAY_KINDS] = {
    "quiet",    "step x3", "step x1.5",  "ramp x4",    "spikes",
    "flapping", "outage",  "errors 5 %", "errors 1 %", "leak"};
static const char *const alert_day_rules[DAY_RULES] = {"slow", "change", "burn", "memory"};

struct alert_day {
    int64_t now_s;
    int64_t begin_s, end_s;          /* of the incident; alarms until half an hour after belong
                                        to it */
    int64_t detected_s[DAY_RULES];   /* after its begin; -1: not */
    int64_t alarms[DAY_RULES];       /* times a rule fired */
    int64_t false_alarms[DAY_RULES]; /* before it began or long after it was over */
    int64_t notices[DAY_RULES];      /* calls of the listener */
    uint64_t seed;
};

static int64_t alert_day_monotonic(void *ctx)
{
    return (((struct alert_day *)ctx)->now_s + 1000) * 1000000000;
}

static int64_t alert_day_realtime(void *ctx)
{
    return 1800000000000 + ((struct alert_day *)ctx)->now_s * 1000;
}

static void alert_day_tell(void *ctx, const perf_alert_event *event)
{
    for (int i = 0; i < DAY_RULES; i++)
        ((struct alert_day *)ctx)->notices[i] += !strcmp(event->name, alert_day_rules[i]);
}

static double alert_day_uniform(struct alert_day *d) /* SplitMix64 (Steele et al., 2014) */
{
    uint64_t z = d->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static double alert_day_normal(struct alert_day *d) /* Box and Muller, 1958 */
{
    double u = alert_day_uniform(d);
    return sqrt(-2 * log(u + 1e-300)) * cos(6.283185307179586 * alert_day_uniform(d));
}

/* How many of many rare things happen (Knuth, "The Art of Computer Programming", 3.4.1). */
static uint64_t alert_day_poisson(struct alert_day *d, double mean)
{
    double left = exp(-mean), product = alert_day_uniform(d);
    uint64_t n = 0;
    for (; product > left; n++)
        product *= alert_day_uniform(d);
    return n;
}

/* How much slower it is at that second. */
static double alert_day_slowness(enum alert_day_kind kind, int64_t s)
{
    int64_t t = s - 43200;
    switch (kind) {
    case DAY_STEP:
        return t >= 0 && t < 1800 ? 3 : 1;
    case DAY_SMALL_STEP:
        return t >= 0 && t < 1800 ? 1.5 : 1;
    case DAY_RAMP:
        return t < 0 || t >= 7200 ? 1 : t >= 3600 ? 4 : 1 + 3.0 * (double)t / 3600;
    case DAY_SPIKES:
        return s % 3600 >= 1800 && s % 3600 < 1802 ? 50 : 1;
    case DAY_FLAPPING:
        return t >= 0 && t < 3600 && t % 60 < 30 ? 8 : 1;
    default:
        return 1;
    }
}

static double alert_day_failing(enum alert_day_kind kind, int64_t s)
{
    int64_t t = s - 43200;
    if (kind == DAY_OUTAGE && t >= 0 && t < 1800)
        return 1;
    if (kind == DAY_ERRORS && t >= 0 && t < 1800)
        return 0.05;
    if (kind == DAY_SLOW_ERRORS && t >= 0 && t < 21600)
        return 0.01;
    return 0.0005;
}

static int64_t alert_day_end(enum alert_day_kind kind)
{
    switch (kind) {
    case DAY_QUIET:
    case DAY_SPIKES:
        return 43200; /* there is nothing to tell */
    case DAY_RAMP:
        return 43200 + 7200;
    case DAY_FLAPPING:
        return 43200 + 3600;
    case DAY_SLOW_ERRORS:
        return 43200 + 21600;
    case DAY_LEAK:
        return 86400;
    default:
        return 43200 + 1800;
    }
}

static int alert_day_open(struct alert_day *d, perf_alerts **alerts, uint64_t *ids)
{
    perf_clock clock = {sizeof clock, d, alert_day_monotonic, alert_day_realtime};
    perf_host host = {sizeof host, NULL, &clock, NULL};
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    o.on_event = alert_day_tell;
    o.on_event_ctx = d;
    o.host = &host;
    int rc = perf_alerts_open(&o, alerts);
    for (int i = 0; i < DAY_RULES && !rc; i++) {
        static const int kinds[DAY_RULES] = {PERF_ALERT_ABOVE, PERF_ALERT_CHANGE, PERF_ALERT_BURN,
                                             PERF_ALERT_ABOVE};
        perf_alert_rule r = PERF_ALERT_RULE_INIT;
        r.name = alert_day_rules[i];
        r.kind = kinds[i];
        if (i == DAY_SLOW) {
            r.threshold = 400; /* ms, mean of a minute */
            r.hysteresis = 50;
            r.window_ms = 60000;
            r.clear_for_ms = 60000;
        } else if (i == DAY_MEMORY) {
            r.threshold = 512.0 * 1048576;
            r.for_ms = 60000;
        }
        rc = perf_alerts_add(*alerts, &r, &ids[i]);
    }
    return rc;
}

/* Runs one day. PERF_OK, or what failed. */
static int alert_day_run(struct alert_day *d, enum alert_day_kind kind, uint64_t seed)
{
    enum { SAMPLES = 5 };
    perf_alerts *alerts = NULL;
    uint64_t ids[DAY_RULES] = {0};
    double lasting = 0;
    memset(d, 0, sizeof *d);
    d->seed = seed;
    /* A leak of a MiB a minute from 200 MiB is over 512 after 312 minutes. */
    d->begin_s = kind == DAY_LEAK ? 312 * 60 : 43200;
    d->end_s = alert_day_end(kind);
    for (int i = 0; i < DAY_RULES; i++)
        d->detected_s[i] = -1;
    int rc = alert_day_open(d, &alerts, ids);
    uint64_t fired[DAY_RULES] = {0};
    for (; d->now_s < 86400 && !rc; d->now_s++) {
        int64_t s = d->now_s;
        double wave = -cos(6.283185307179586 * (double)s / 86400); /* most at noon */
        lasting = 0.9 * lasting + 0.03 * alert_day_normal(d);
        double base = 120 * exp(0.3 * wave + lasting) * alert_day_slowness(kind, s);
        for (int i = 0; i < SAMPLES && !rc; i++) {
            double ms = base * exp(0.5 * alert_day_normal(d));
            if (!(rc = perf_alerts_feed(alerts, ids[DAY_SLOW], ms)))
                rc = perf_alerts_feed(alerts, ids[DAY_CHANGE], ms);
        }
        uint64_t bad = 0, requests = (uint64_t)(60 + 40 * wave);
        double share = alert_day_failing(kind, s);
        bad = share < 1 ? alert_day_poisson(d, share * (double)requests) : requests;
        bad = bad < requests ? bad : requests;
        double mib = kind == DAY_LEAK ? 200 + (double)s / 60 : 200 + 100 * wave;
        if (!rc && !(rc = perf_alerts_feed_counts(alerts, ids[DAY_BURN], requests - bad, bad)) &&
            !(rc = perf_alerts_feed(alerts, ids[DAY_MEMORY], mib * 1048576)))
            rc = perf_alerts_tick(alerts);
        for (int i = 0; i < DAY_RULES && !rc; i++) {
            perf_alert_status status = PERF_ALERT_STATUS_INIT;
            rc = perf_alerts_status(alerts, ids[i], &status);
            if (status.fired == fired[i])
                continue;
            fired[i] = status.fired;
            d->alarms[i]++;
            if (s < d->begin_s || s > d->end_s + 1800 || d->end_s == d->begin_s)
                d->false_alarms[i]++;
            else if (d->detected_s[i] < 0)
                d->detected_s[i] = s - d->begin_s;
        }
    }
    perf_alerts_close(alerts);
    return rc;
}

#endif
