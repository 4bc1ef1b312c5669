/* SPDX-License-Identifier: MIT */
/*
 * alert_change.c - noticing that a stream is no longer what it was.
 *
 * Values become the mean of their logarithms over a step, so that "twice as slow" is
 * the same for a fast and a slow endpoint, and a few slow requests do not count
 * much. What a step deviates from the level, in deviations and bounded to four, goes
 * into Page's cumulative sums ("Continuous inspection schemes", 1954): each
 * takes away the drift and never falls below zero, and above the limit something
 * has changed. One step can add three at the most, so a single one breaks
 * nothing. The level follows by Huber's bounded influence ("Robust estimation of a
 * location parameter", 1964) with the weight of step / baseline, and stands
 * still while the rule fires. The first steps teach it by their median and
 * median absolute deviation. Under the mutex of the alerts.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "alert_impl.h"

/* Bounds, in deviations: of what a step adds, moves the level by, and widens the deviation by. */
#define BOUND_SUM       4.0
#define BOUND_LEVEL     1.5
#define BOUND_DEVIATION 3.0

/* A standard deviation, of a mean absolute one and of a median absolute one, for normal noise. */
#define FROM_MEAN   1.2533
#define FROM_MEDIAN 1.4826

/* No value counts for less or more than a thousandth or a thousandfold of the level. */
#define LOG_BOUND 6.9

static double bounded(double x, double bound)
{
    return x > bound ? bound : x < -bound ? -bound : x;
}

static double at_least(double x, double least)
{
    return x > least ? x : least;
}

void perf__alert_change_init(struct perf__alert_change *c, const perf_alert_rule *rule)
{
    c->step_ns = rule->step_ms * 1000000;
    c->drift = rule->drift;
    c->limit = rule->limit;
    c->least = rule->least;
    c->weight = (double)rule->step_ms / (double)rule->baseline_ms;
    c->direction = rule->direction;
    c->last = -INFINITY;
}

void perf__alert_change_forget(struct perf__alert_change *c)
{
    c->learnt = 0;
    c->up = c->down = 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    enum { N = PERF__ALERT_LEARN };
    qsort(values, N, sizeof *values, by_size);
    return (values[N / 2 - 1] + values[N / 2]) / 2;
}

static void learn(struct perf__alert_change *c, double y)
{
    c->learning[c->learnt++] = y;
    if (c->learnt < PERF__ALERT_LEARN)
        return;
    c->level = median(c->learning);
    for (int i = 0; i < PERF__ALERT_LEARN; i++)
        c->learning[i] = fabs(c->learning[i] - c->level);
    c->deviation = at_least(FROM_MEDIAN * median(c->learning), c->least);
}

static void close_step(struct perf__alert_change *c, bool firing)
{
    double y = c->sum / c->count;
    c->sum = c->count = 0;
    c->last = y;
    if (c->learnt < PERF__ALERT_LEARN) {
        learn(c, y);
        return;
    }
    double z = (y - c->level) / c->deviation, b = bounded(z, BOUND_SUM);
    /* Twice the limit is enough: beyond, it would take ever longer to be kept again. */
    c->up = fmin(at_least(c->up + b - c->drift, 0), 2 * c->limit);
    c->down = fmin(at_least(c->down - b - c->drift, 0), 2 * c->limit);
    if (firing)
        return;
    double spread = FROM_MEAN * c->deviation * fabs(bounded(z, BOUND_DEVIATION));
    c->level += c->weight * c->deviation * bounded(z, BOUND_LEVEL);
    c->deviation = at_least(c->deviation + c->weight * (spread - c->deviation), c->least);
}

void perf__alert_change_pass(struct perf__alert_change *c, int64_t now_ns, bool firing)
{
    int64_t step = now_ns / c->step_ns;
    if (step <= c->step)
        return;
    if (c->count > 0)
        close_step(c, firing);
    c->step = step;
}

void perf__alert_change_add(struct perf__alert_change *c, int64_t now_ns, double value, bool firing)
{
    perf__alert_change_pass(c, now_ns, firing);
    double y = log(value > 1e-300 ? value : 1e-300);
    if (c->learnt == PERF__ALERT_LEARN)
        y = c->level + bounded(y - c->level, LOG_BOUND);
    c->sum += y;
    c->count++;
}

bool perf__alert_change_broken(const struct perf__alert_change *c)
{
    return (c->direction != PERF_ALERT_DOWN && c->up > c->limit) ||
           (c->direction != PERF_ALERT_UP && c->down > c->limit);
}

bool perf__alert_change_kept(const struct perf__alert_change *c)
{
    return (c->direction == PERF_ALERT_DOWN || c->up < c->limit / 2) &&
           (c->direction == PERF_ALERT_UP || c->down < c->limit / 2);
}
