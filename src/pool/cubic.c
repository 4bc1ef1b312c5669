/* SPDX-License-Identifier: MIT */
/* cubic.c - the client-side rate of adaptive retries: arithmetic under a mutex. */
#include "cubic.h"

#include <math.h>

static const double scale = 0.4;       /* of cubic growth */
static const double beta = 0.7;        /* what a throttle leaves of the rate */
static const double smoothing = 0.8;   /* weight of the newest window */
static const double window = 0.5;      /* seconds */
static const double min_rate = 0.5;    /* requests a second */
static const double over_measured = 2; /* the rate's bound: so many times the measured one */

static double seconds(const struct perf__cubic *c)
{
    return (double)perf__now_ns(c->clock) / 1e9;
}

/* From the last throttle on, the rate is back at w_max after so many seconds. */
static double zero_point(double w_max)
{
    return cbrt(w_max * (1 - beta) / scale);
}

/* Tokens that came in since the last look belong to the old rate. */
static void fill(struct perf__cubic *c, double now)
{
    c->tokens = fmin(c->capacity, c->tokens + (now - c->last_fill) * c->fill_rate);
    c->last_fill = now;
}

static void set_rate(struct perf__cubic *c, double now, double rate)
{
    fill(c, now);
    c->fill_rate = fmax(rate, min_rate);
    c->capacity = fmax(rate, 1);
    c->tokens = fmin(c->tokens, c->capacity);
}

void perf__cubic_init(struct perf__cubic *c, const perf_clock *clock)
{
    *c = (struct perf__cubic){.clock = clock, .fill_rate = 1, .capacity = 1};
    pthread_mutex_init(&c->mutex, NULL); /* cannot fail with these attributes */
    double now = seconds(c);
    c->last_bucket = floor(now);
    c->last_fail = c->last_fill = now;
    c->k = zero_point(0);
}

void perf__cubic_destroy(struct perf__cubic *c)
{
    pthread_mutex_destroy(&c->mutex);
}

bool perf__cubic_take(struct perf__cubic *c, int64_t max_wait_ns, int64_t *wait_ns)
{
    bool taken = true;
    *wait_ns = 0;
    if (!atomic_load_explicit(&c->enabled, memory_order_acquire))
        return true;
    pthread_mutex_lock(&c->mutex);
    fill(c, seconds(c));
    if (c->tokens < 1)
        *wait_ns = (int64_t)ceil((1 - c->tokens) / c->fill_rate * 1e9);
    if (max_wait_ns >= 0 && *wait_ns > max_wait_ns)
        taken = false;
    else
        c->tokens -= 1;
    pthread_mutex_unlock(&c->mutex);
    return taken;
}

static void measure(struct perf__cubic *c, double now)
{
    double bucket = floor(now / window) * window;
    c->count++;
    if (bucket > c->last_bucket) {
        double rate = (double)c->count / (bucket - c->last_bucket);
        c->measured = rate * smoothing + c->measured * (1 - smoothing);
        c->count = 0;
        c->last_bucket = bucket;
    }
}

void perf__cubic_reply(struct perf__cubic *c, bool throttled)
{
    double rate;
    pthread_mutex_lock(&c->mutex);
    double now = seconds(c);
    measure(c, now);
    if (throttled) {
        bool enabled = atomic_load_explicit(&c->enabled, memory_order_relaxed);
        c->w_max = enabled ? fmin(c->measured, c->fill_rate) : c->measured;
        c->k = zero_point(c->w_max);
        c->last_fail = now;
        rate = c->w_max * beta;
    } else {
        double t = now - c->last_fail - c->k;
        rate = scale * t * t * t + c->w_max;
    }
    set_rate(c, now, fmin(rate, over_measured * c->measured));
    if (throttled)
        atomic_store_explicit(&c->enabled, true, memory_order_release);
    pthread_mutex_unlock(&c->mutex);
}

void perf__cubic_read(struct perf__cubic *c, double *rate, double *measured)
{
    pthread_mutex_lock(&c->mutex);
    *rate = c->fill_rate;
    *measured = c->measured;
    pthread_mutex_unlock(&c->mutex);
}
