/* SPDX-License-Identifier: MIT */
/*
 * policy.c - the parts around a function, and the fallback behind them.
 *
 *     fallback - deadline - retry - breaker - rate limit - bulkhead -
 *     adaptive limit - hedge - the function
 *
 * A policy has no state but counters; what an attempt took from one part is
 * given back when a later one refuses it. Any thread.
 */
#include <string.h>

#include "../base/status.h"
#include "hedge.h"

enum { CALLS, SUCCEEDED, FAILED, REJECTED, FALLBACKS, TIMED_OUT, COUNTERS };

struct perf_policy {
    struct perf__part part;
    perf_policy_options options;
    perf_fallback fallback;
};

/* One perf_policy_run. */
struct run {
    perf_policy *policy;
    perf_run_fn fn;
    void *ctx;
    int64_t kind; /* of the last attempt */
};

/* ----------------------------------------------------------------- fallback */

static int check_fallback(const perf_fallback *given, perf_fallback *own)
{
    const int64_t all = (1 << (PERF_OUTCOME_IGNORED + 1)) - 1;
    int rc;
    if (!given)
        return perf__fail(PERF_EINVAL, "fallback is NULL; give one");
    if ((rc = perf__options_take("perf_fallback", given, own, sizeof *own)) ||
        (rc = perf__option("kinds", &own->kinds,
                           1 << PERF_OUTCOME_TRANSIENT | 1 << PERF_OUTCOME_TIMEOUT |
                               1 << PERF_OUTCOME_THROTTLED | 1 << PERF_OUTCOME_REJECTED,
                           1, all)))
        return rc;
    if (!own->fn && (!own->value || !own->out))
        return perf__fail(PERF_EINVAL, "fallback has no fn; give one, or value and out");
    return PERF_OK;
}

static int fall_back(const perf_fallback *fallback, void *call_ctx, int status)
{
    if (fallback->fn)
        return fallback->fn(fallback->ctx, call_ctx, status);
    memcpy(fallback->out, fallback->value, fallback->value_len);
    return PERF_OK;
}

int perf_fallback_apply(const perf_fallback *fallback, void *call_ctx, int status)
{
    perf_fallback own;
    int rc = check_fallback(fallback, &own);
    if (rc)
        return rc;
    return own.kinds >> perf_outcome_of_status(status) & 1 ? fall_back(&own, call_ctx, status)
                                                           : status;
}

/* ------------------------------------------------------------- open, close */

int perf_policy_open(const perf_policy_options *given, perf_policy **out)
{
    perf_policy_options options;
    perf_fallback fallback = PERF_FALLBACK_INIT;
    perf_policy *policy;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the policy");
    if ((rc = perf__options_take("perf_policy_options", given, &options, sizeof options)) ||
        (options.fallback && (rc = check_fallback(options.fallback, &fallback))) ||
        (rc = perf__check_range("timeout_ms", options.timeout_ms, 0, PERF__LONG_MS)) ||
        (rc = perf__check_range("attempt_timeout_ms", options.attempt_timeout_ms, 0,
                                PERF__LONG_MS)) ||
        (rc = perf__check_range("max_wait_ms", options.max_wait_ms, -1, PERF__LONG_MS)) ||
        (rc = perf__part_open("a policy", options.host, sizeof *policy, COUNTERS, &policy)))
        return rc;
    policy->fallback = fallback;
    policy->options = options;
    if (options.fallback)
        policy->options.fallback = &policy->fallback;
    *out = policy;
    return PERF_OK;
}

int perf_policy_close(perf_policy *policy)
{
    if (policy)
        perf__part_free(&policy->part);
    return PERF_OK;
}

/* ---------------------------------------------------------------- an attempt */

struct permits {
    uint64_t breaker, adaptive;
    bool rate, bulkhead;
};

static void give_back(const perf_policy_options *o, const struct permits *p)
{
    if (p->bulkhead)
        perf_bulkhead_release(o->bulkhead);
    if (p->rate)
        perf_rate_limit_cancel(o->rate_limit, 1);
    if (p->breaker)
        perf_breaker_release(o->breaker, p->breaker);
}

/* Asks each part in turn. */
static int take(const perf_policy_options *o, struct permits *p)
{
    int rc = PERF_OK;
    if (o->breaker)
        rc = perf_breaker_try(o->breaker, &p->breaker);
    if (!rc && o->rate_limit) {
        rc = perf_rate_limit_acquire(o->rate_limit, 1, o->max_wait_ms);
        p->rate = !rc;
    }
    if (!rc && o->bulkhead) {
        rc = perf_bulkhead_acquire(o->bulkhead, o->max_wait_ms);
        p->bulkhead = !rc;
    }
    if (!rc && o->adaptive_limit)
        rc = perf_adaptive_limit_try(o->adaptive_limit, &p->adaptive);
    if (rc)
        give_back(o, p);
    return rc == PERF_ETIMEDOUT ? PERF_EREJECTED : rc; /* it was our own line that it waited in */
}

static int64_t kind_of(const perf_policy_options *o, const struct perf_attempt *attempt, int status)
{
    if (attempt->kind >= 0)
        return attempt->kind;
    int64_t kind = o->classify ? o->classify(o->classify_ctx, status) : -1;
    return perf__kind_valid(kind) ? kind : perf_outcome_of_status(status);
}

static int run_attempt(perf_attempt *attempt, void *ctx)
{
    struct run *run = ctx;
    const perf_policy_options *o = &run->policy->options;
    const perf_clock *clock = &run->policy->part.host.clock;
    struct permits permits = {0};
    int status = take(o, &permits);
    if (status) {
        perf__part_count(&run->policy->part, REJECTED);
        run->kind = attempt->kind = (int)perf_outcome_of_status(status);
        return status;
    }
    int64_t start = perf__now_ns(clock), end = perf__deadline_on(clock, o->attempt_timeout_ms);
    struct perf_attempt inner = *attempt;
    inner.clock = clock;
    inner.deadline_ns = end;
    status = o->hedge ? perf__hedge_attempt(o->hedge, &inner, run->fn, run->ctx)
                      : perf__attempt_run(&inner, run->fn, run->ctx);
    int64_t took_ms = (perf__now_ns(clock) - start) / 1000000;
    run->kind = kind_of(o, &inner, status);
    attempt->kind = (int)run->kind;
    attempt->retry_after_ms = inner.retry_after_ms;
    if (o->adaptive_limit)
        perf_adaptive_limit_release(o->adaptive_limit, permits.adaptive, run->kind);
    if (o->bulkhead)
        perf_bulkhead_release(o->bulkhead);
    if (o->breaker)
        perf_breaker_report(o->breaker, permits.breaker, run->kind, took_ms);
    return status;
}

/* ------------------------------------------------------------------- a call */

static int run_within(perf_policy *policy, struct run *run, int64_t end_ns)
{
    const perf_clock *clock = &policy->part.host.clock;
    if (end_ns && perf__now_ns(clock) >= end_ns)
        return perf__fail(PERF_ETIMEDOUT, "the deadline passed before the first attempt");
    if (policy->options.retry)
        return perf_retry_run(policy->options.retry, run_attempt, run, 0);
    struct perf_attempt attempt = {
        .clock = clock, .deadline_ns = end_ns, .number = 1, .max = 1, .kind = -1};
    return perf__attempt_run(&attempt, run_attempt, run);
}

int perf_policy_run(perf_policy *policy, perf_run_fn fn, void *ctx, int64_t timeout_ms)
{
    perf_deadline before = PERF_DEADLINE_INIT;
    int rc = perf__part_check(policy ? &policy->part : NULL, "policy");
    if (rc)
        return rc;
    if (!fn)
        return perf__fail(PERF_EINVAL, "fn is NULL; give the function to run");
    const perf_policy_options *o = &policy->options;
    const perf_clock *clock = &policy->part.host.clock;
    struct run run = {policy, fn, ctx, -1};
    int64_t end = perf__deadline_on(clock, timeout_ms ? timeout_ms : o->timeout_ms);
    if (end)
        perf__deadline_push(clock, end, &before);
    int status = run_within(policy, &run, end);
    if (end)
        perf_deadline_leave(&before);
    perf__part_count(&policy->part, CALLS);
    int64_t kind = run.kind >= 0 ? run.kind : perf_outcome_of_status(status);
    if (kind == PERF_OUTCOME_TIMEOUT)
        perf__part_count(&policy->part, TIMED_OUT);
    if (kind == PERF_OUTCOME_SUCCESS) {
        perf__part_count(&policy->part, SUCCEEDED);
        return status;
    }
    if (o->fallback && o->fallback->kinds >> kind & 1) {
        status = fall_back(o->fallback, ctx, status);
        if (status >= 0) {
            perf__part_count(&policy->part, FALLBACKS);
            return status;
        }
    }
    perf__part_count(&policy->part, FAILED);
    return status;
}

int perf_policy_get_stats(perf_policy *policy, perf_policy_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(policy ? &policy->part : NULL, "policy")) ||
        (rc = perf__options_check_out("perf_policy_stats", stats, &size)))
        return rc;
    const struct perf__part *part = &policy->part;
    perf_policy_stats own = {
        .struct_size = sizeof own,
        .calls = perf__part_sum(part, CALLS),
        .succeeded = perf__part_sum(part, SUCCEEDED),
        .failed = perf__part_sum(part, FAILED),
        .rejected = perf__part_sum(part, REJECTED),
        .fallbacks = perf__part_sum(part, FALLBACKS),
        .timed_out = perf__part_sum(part, TIMED_OUT),
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
