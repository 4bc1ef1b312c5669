/* SPDX-License-Identifier: MIT */
/*
 * retry.c - when to try again: attempts, full jitter, a budget, a deadline.
 *
 * The state of a call lives with its caller; what calls share is the budget,
 * counters and the adaptive rate. Nothing here sleeps but perf_retry_run. The
 * constants are those of the AWS SDKs (botocore 1.44.5, retries/standard.py and
 * quota.py; the 2020 ones from versions before the revision). Any thread.
 */
#include <math.h>
#include <string.h>

#include "../base/status.h"
#include "budget.h"
#include "cubic.h"

enum {
    CALLS,
    ATTEMPTS,
    RETRIES,
    THROTTLED,
    WAITED_MS,
    SUCCEEDED_LATER,
    ENDED, /* by reason: PERF_RETRY_DONE ... PERF_RETRY_DEADLINE */
    COUNTERS = ENDED + PERF_RETRY_DEADLINE + 1,
    TEXT = 200,
};

struct perf_retry {
    struct perf__part part;
    perf_retry_options options;
    perf_budget *own_budget;
    struct perf__cubic cubic;
};

/* ------------------------------------------------------------- open, close */

static int check_options(perf_retry_options *o)
{
    int rc;
    if ((rc = perf__check_range("mode", o->mode, PERF_RETRY_STANDARD, PERF_RETRY_ADAPTIVE)))
        return rc;
    bool old = o->mode == PERF_RETRY_STANDARD_2020;
    const int64_t most = INT64_C(1000000000000);
    if ((rc = perf__option("max_attempts", &o->max_attempts, 3, 1, 100)) ||
        (rc = perf__option("base_ms", &o->base_ms, old ? 1000 : 50, 1, PERF__LONG_MS)) ||
        (rc = perf__option("throttle_base_ms", &o->throttle_base_ms, 1000, 1, PERF__LONG_MS)) ||
        (rc = perf__option("max_delay_ms", &o->max_delay_ms, 20000, 1, PERF__LONG_MS)) ||
        (rc = perf__option("retry_after_over_ms", &o->retry_after_over_ms, 5000, 1,
                           PERF__LONG_MS)) ||
        (rc = perf__option("budget_capacity", &o->budget_capacity, 500, 1, most)) ||
        (rc = perf__option("cost", &o->cost, old ? 5 : 14, 1, most)) ||
        (rc = perf__option("timeout_cost", &o->timeout_cost, old ? 10 : 14, 1, most)) ||
        (rc = perf__option("throttle_cost", &o->throttle_cost, 5, 1, most)) ||
        (rc = perf__option("refund", &o->refund, 1, 1, most)))
        return rc;
    return PERF_OK;
}

int perf_retry_open(const perf_retry_options *given, perf_retry **out)
{
    perf_retry_options options;
    perf_retry *retry;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the retry policy");
    if ((rc = perf__options_take("perf_retry_options", given, &options, sizeof options)) ||
        (rc = check_options(&options)) ||
        (rc = perf__part_open("a retry policy", options.host, sizeof *retry, COUNTERS, &retry)))
        return rc;
    if (!options.budget) {
        if ((rc = perf_budget_open(options.budget_capacity, &retry->part.host.view,
                                   &retry->own_budget))) {
            perf__part_free(&retry->part);
            return rc;
        }
        options.budget = retry->own_budget;
    }
    retry->options = options;
    perf__cubic_init(&retry->cubic, &retry->part.host.clock);
    *out = retry;
    return PERF_OK;
}

int perf_retry_close(perf_retry *retry)
{
    if (!retry)
        return PERF_OK;
    if (perf__part_usable(&retry->part)) /* a child's mutex may be held by a thread that is gone */
        perf__cubic_destroy(&retry->cubic);
    perf_budget_close(retry->own_budget);
    perf__part_free(&retry->part);
    return PERF_OK;
}

perf_budget *perf_retry_get_budget(perf_retry *retry)
{
    return retry ? retry->options.budget : NULL;
}

/* ----------------------------------------------------------------- one call */

int perf_retry_begin(perf_retry *retry, int64_t timeout_ms, int64_t flags, perf_retry_call *call)
{
    int rc = perf__part_check(retry ? &retry->part : NULL, "retry");
    if (rc)
        return rc;
    if (!call || call->struct_size != sizeof *call)
        return perf__fail(PERF_EINVAL, "call is NULL or was not set by PERF_RETRY_CALL_INIT");
    if (flags & ~(int64_t)PERF_RETRY_LONG_POLL)
        return perf__fail(PERF_EINVAL, "flags is %lld; give 0 or PERF_RETRY_LONG_POLL",
                          (long long)flags);
    *call = (perf_retry_call){
        .struct_size = sizeof *call,
        .retry = retry,
        .deadline_ns = perf__deadline_on(&retry->part.host.clock, timeout_ms),
        .attempt = 1,
        .max_attempts = retry->options.max_attempts,
        .flags = flags,
        .reason = PERF_RETRY_AGAIN,
    };
    perf__part_count(&retry->part, CALLS);
    return PERF_OK;
}

static int check_call(const perf_retry_call *call)
{
    if (!call || call->struct_size != sizeof *call || !call->retry)
        return perf__fail(PERF_EINVAL, "the call was not begun; perf_retry_begin does that");
    if (call->reason != PERF_RETRY_AGAIN)
        return perf__fail(PERF_EINVAL, "the call is over; begin another one");
    return perf__part_check(&call->retry->part, "retry");
}

int perf_retry_acquire(perf_retry_call *call, int64_t *wait_ms)
{
    int rc = check_call(call);
    if (rc)
        return rc;
    if (!wait_ms)
        return perf__fail(PERF_EINVAL, "wait_ms is NULL; give a place for the wait");
    perf_retry *retry = call->retry;
    int64_t wait_ns = 0, most = -1;
    if (call->deadline_ns) {
        most = call->deadline_ns - perf__part_now(&retry->part);
        if (most <= 0)
            return perf__fail(PERF_ETIMEDOUT, "the deadline passed before attempt %lld",
                              (long long)call->attempt);
    }
    if (retry->options.mode == PERF_RETRY_ADAPTIVE &&
        !perf__cubic_take(&retry->cubic, most, &wait_ns))
        return perf__fail(PERF_ETIMEDOUT,
                          "throttling has slowed requests down: the next one is due in %lld ms, "
                          "after the deadline",
                          (long long)perf__ceil_ms(wait_ns));
    *wait_ms = perf__ceil_ms(wait_ns);
    return PERF_OK;
}

/* rand(0, 1) * min(base * 2^i, cap), stretched to what the service asked for, within bounds. */
static int64_t delay_of(const perf_retry_options *o, int64_t attempt, const perf_outcome *outcome)
{
    int64_t base = outcome->kind == PERF_OUTCOME_THROTTLED ? o->throttle_base_ms : o->base_ms;
    double random = (double)(perf__thread_random() >> 11) * 0x1p-53;
    double t = random * fmin(ldexp((double)base, (int)attempt - 1), (double)o->max_delay_ms);
    if (outcome->retry_after_ms > 0 && o->mode != PERF_RETRY_STANDARD_2020)
        t = fmax(t, fmin((double)outcome->retry_after_ms, t + (double)o->retry_after_over_ms));
    return (int64_t)(t + 0.5);
}

static int64_t cost_of(const perf_retry_options *o, int64_t kind)
{
    return kind == PERF_OUTCOME_THROTTLED ? o->throttle_cost
           : kind == PERF_OUTCOME_TIMEOUT ? o->timeout_cost
                                          : o->cost;
}

static int over(perf_retry_call *call, int64_t reason)
{
    call->reason = reason;
    perf__part_count(&call->retry->part, ENDED + (uint32_t)reason);
    switch (reason) {
    case PERF_RETRY_DONE:
        return PERF_MISS;
    case PERF_RETRY_NOT_RETRYABLE:
        return perf__fail(PERF_EREJECTED, "no retry: another attempt would end the same");
    case PERF_RETRY_ATTEMPTS:
        return perf__fail(PERF_EREJECTED, "no retry: all %lld attempts are used up",
                          (long long)call->max_attempts);
    case PERF_RETRY_BUDGET:
        return perf__fail(PERF_EREJECTED, "no retry: the budget is empty, for too much fails");
    default:
        return perf__fail(PERF_ETIMEDOUT, "no retry: the deadline would pass before attempt %lld",
                          (long long)call->attempt + 1);
    }
}

static int succeed(perf_retry_call *call)
{
    perf_retry *retry = call->retry;
    perf__budget_give(retry->options.budget, call->taken ? call->taken : retry->options.refund);
    if (call->attempt > 1)
        perf__part_count(&retry->part, SUCCEEDED_LATER);
    return over(call, PERF_RETRY_DONE);
}

static int fail(perf_retry_call *call, const perf_outcome *outcome, int64_t *delay_ms)
{
    perf_retry *retry = call->retry;
    const perf_retry_options *o = &retry->options;
    if (outcome->kind != PERF_OUTCOME_TRANSIENT && outcome->kind != PERF_OUTCOME_TIMEOUT &&
        outcome->kind != PERF_OUTCOME_THROTTLED)
        return over(call, PERF_RETRY_NOT_RETRYABLE);
    if (call->attempt >= call->max_attempts)
        return over(call, PERF_RETRY_ATTEMPTS);
    int64_t delay = delay_of(o, call->attempt, outcome);
    if (call->deadline_ns && perf__add_ms(perf__part_now(&retry->part), delay) >= call->deadline_ns)
        return over(call, PERF_RETRY_DEADLINE);
    int64_t cost = cost_of(o, outcome->kind);
    if (!perf__budget_take(o->budget, cost)) {
        if (call->flags & PERF_RETRY_LONG_POLL)
            *delay_ms = delay;
        return over(call, PERF_RETRY_BUDGET);
    }
    call->taken = cost;
    call->attempt++;
    perf__part_count(&retry->part, RETRIES);
    perf__counters_add(&retry->part.counters, WAITED_MS, (uint64_t)delay);
    *delay_ms = delay;
    return PERF_OK;
}

int perf_retry_next(perf_retry_call *call, const perf_outcome *outcome, int64_t *delay_ms)
{
    perf_outcome own;
    int rc;
    if ((rc = check_call(call)))
        return rc;
    if (!outcome || !delay_ms)
        return perf__fail(PERF_EINVAL, "outcome or delay_ms is NULL; give both");
    if ((rc = perf__options_take("perf_outcome", outcome, &own, sizeof own)))
        return rc;
    if (!perf__kind_valid(own.kind))
        return perf__fail(PERF_EINVAL, "kind is %lld; give a PERF_OUTCOME_ constant",
                          (long long)own.kind);
    perf_retry *retry = call->retry;
    bool throttled = own.kind == PERF_OUTCOME_THROTTLED;
    *delay_ms = 0;
    perf__part_count(&retry->part, ATTEMPTS);
    if (throttled)
        perf__part_count(&retry->part, THROTTLED);
    if (retry->options.mode == PERF_RETRY_ADAPTIVE && own.kind < PERF_OUTCOME_REJECTED)
        perf__cubic_reply(&retry->cubic, throttled);
    return own.kind == PERF_OUTCOME_SUCCESS ? succeed(call) : fail(call, &own, delay_ms);
}

void perf_retry_end(perf_retry_call *call)
{
    if (!call || call->struct_size != sizeof *call || !call->retry)
        return;
    call->retry = NULL;
}

/* ---------------------------------------------------------------------- run */

/* What perf_last_error says now, shortened; snprintf would cost more than the rest of a call. */
static void keep_text(char text[TEXT])
{
    const char *said = perf_last_error();
    size_t len = strnlen(said, TEXT - 1);
    memcpy(text, said, len);
    text[len] = 0;
}

/* The function's own words and ours, if it had any: before is what was there already. */
static void say_why(const char *before, const char *theirs, int64_t attempts, int status)
{
    char ours[TEXT];
    keep_text(ours);
    bool spoke = strncmp(before, theirs, TEXT - 1) != 0;
    perf__fail(status, "attempt %lld ended with %s%s%s; %s", (long long)attempts,
               perf_strstatus(status), spoke ? ": " : "", spoke ? theirs : "", ours);
}

int perf_retry_run(perf_retry *retry, perf_run_fn fn, void *ctx, int64_t timeout_ms)
{
    char before[TEXT], theirs[TEXT] = "";
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    perf_outcome outcome = PERF_OUTCOME_INIT;
    int64_t wait_ms;
    int rc, status = PERF_OK;
    if (!fn)
        return perf__fail(PERF_EINVAL, "fn is NULL; give the function to run");
    if ((rc = perf_retry_begin(retry, timeout_ms, 0, &call)))
        return rc;
    const perf_clock *clock = &retry->part.host.clock;
    keep_text(before);
    for (int64_t made = 0;;) {
        if ((rc = perf_retry_acquire(&call, &wait_ms))) {
            if (made)
                say_why(before, theirs, made, status);
            else
                status = rc;
            break;
        }
        if (wait_ms)
            perf__sleep_until(clock, perf__add_ms(perf__now_ns(clock), wait_ms));
        perf_attempt attempt = {.clock = clock,
                                .deadline_ns = call.deadline_ns,
                                .number = ++made,
                                .max = call.max_attempts,
                                .kind = -1};
        status = perf__attempt_run(&attempt, fn, ctx);
        outcome.kind = attempt.kind >= 0 ? attempt.kind : perf_outcome_of_status(status);
        outcome.retry_after_ms = attempt.retry_after_ms;
        if (outcome.kind != PERF_OUTCOME_SUCCESS)
            keep_text(theirs);
        if (perf_retry_next(&call, &outcome, &wait_ms) != PERF_OK) {
            if (call.reason != PERF_RETRY_DONE)
                say_why(before, theirs, made, status);
            break;
        }
        perf__sleep_until(clock, perf__add_ms(perf__now_ns(clock), wait_ms));
    }
    perf_retry_end(&call);
    return status;
}

/* --------------------------------------------------------------- statistics */

int perf_retry_get_stats(perf_retry *retry, perf_retry_stats *stats)
{
    size_t size;
    double rate, measured;
    int rc;
    if ((rc = perf__part_check(retry ? &retry->part : NULL, "retry")) ||
        (rc = perf__options_check_out("perf_retry_stats", stats, &size)))
        return rc;
    const struct perf__part *part = &retry->part;
    uint64_t done = perf__part_sum(part, ENDED + PERF_RETRY_DONE);
    uint64_t later = perf__part_sum(part, SUCCEEDED_LATER);
    perf__cubic_read(&retry->cubic, &rate, &measured);
    perf_retry_stats own = {
        .struct_size = sizeof own,
        .calls = perf__part_sum(part, CALLS),
        .attempts = perf__part_sum(part, ATTEMPTS),
        .retries = perf__part_sum(part, RETRIES),
        .succeeded_first = done > later ? done - later : 0,
        .succeeded_later = later,
        .not_retryable = perf__part_sum(part, ENDED + PERF_RETRY_NOT_RETRYABLE),
        .out_of_attempts = perf__part_sum(part, ENDED + PERF_RETRY_ATTEMPTS),
        .out_of_budget = perf__part_sum(part, ENDED + PERF_RETRY_BUDGET),
        .out_of_time = perf__part_sum(part, ENDED + PERF_RETRY_DEADLINE),
        .throttled = perf__part_sum(part, THROTTLED),
        .waited_ms = perf__part_sum(part, WAITED_MS),
        .budget_available = perf_budget_available(retry->options.budget),
        .limiting = atomic_load(&retry->cubic.enabled),
        .rate_milli = (int64_t)(rate * 1000),
        .measured_milli = (int64_t)(measured * 1000),
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
