/* SPDX-License-Identifier: MIT */
/* retry.c and budget.c: the constants, the reasons to stop, the budget, the clock. */
#include <libperf/resilience.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

static perf_retry *open_retry(struct test_host *th, perf_retry_options o)
{
    perf_retry *retry = NULL;
    o.struct_size = sizeof o;
    o.host = test_host_init(th);
    cr_assert_eq(perf_retry_open(&o, &retry), PERF_OK, "%s", perf_last_error());
    return retry;
}

static int next(perf_retry_call *call, int64_t kind, int64_t retry_after_ms, int64_t *delay)
{
    perf_outcome outcome = PERF_OUTCOME_INIT;
    outcome.kind = kind;
    outcome.retry_after_ms = retry_after_ms;
    return perf_retry_next(call, &outcome, delay);
}

/* The delays of attempt number n after an outcome: least, most and mean of many. */
struct spread {
    int64_t least, most;
    double mean;
};

static struct spread delays(perf_retry *retry, int n, int64_t kind, int64_t after)
{
    enum { MANY = 4000 };
    struct spread s = {INT64_MAX, 0, 0};
    for (int i = 0; i < MANY; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        int64_t delay = -1;
        perf_budget_give(perf_retry_get_budget(retry), 1000000);
        cr_assert_eq(perf_retry_begin(retry, 0, 0, &call), PERF_OK);
        for (int k = 0; k < n; k++)
            cr_assert_eq(next(&call, kind, after, &delay), PERF_OK, "%s", perf_last_error());
        s.least = delay < s.least ? delay : s.least;
        s.most = delay > s.most ? delay : s.most;
        s.mean += (double)delay / MANY;
        perf_retry_end(&call);
    }
    return s;
}

/* rand(0, 1) * bound: from 0 to the bound, half of it on average. */
static void check_uniform(struct spread s, double bound, const char *what)
{
    cr_assert((double)s.least < 0.02 * bound + 1, "%s: least %d", what, (int)s.least);
    cr_assert((double)s.most <= bound && (double)s.most > 0.97 * bound - 1, "%s: most %d of %d",
              what, (int)s.most, (int)bound);
    cr_assert(s.mean > 0.46 * bound && s.mean < 0.54 * bound, "%s: mean %f of %f", what, s.mean,
              bound);
}

Test(pool_retry, delays_of_2026)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.max_attempts = 20});
    check_uniform(delays(retry, 1, PERF_OUTCOME_TRANSIENT, 0), 50, "first");
    check_uniform(delays(retry, 2, PERF_OUTCOME_TRANSIENT, 0), 100, "second");
    check_uniform(delays(retry, 4, PERF_OUTCOME_TIMEOUT, 0), 400, "fourth");
    check_uniform(delays(retry, 1, PERF_OUTCOME_THROTTLED, 0), 1000, "throttled");
    check_uniform(delays(retry, 3, PERF_OUTCOME_THROTTLED, 0), 4000, "throttled, third");
    check_uniform(delays(retry, 12, PERF_OUTCOME_TRANSIENT, 0), 20000, "capped");
    perf_retry_close(retry);
}

Test(pool_retry, delays_of_2020)
{
    struct test_host th;
    perf_retry *retry =
        open_retry(&th, (perf_retry_options){.mode = PERF_RETRY_STANDARD_2020, .max_attempts = 20});
    check_uniform(delays(retry, 1, PERF_OUTCOME_TRANSIENT, 0), 1000, "first");
    check_uniform(delays(retry, 1, PERF_OUTCOME_THROTTLED, 0), 1000, "throttled");
    check_uniform(delays(retry, 3, PERF_OUTCOME_TRANSIENT, 0), 4000, "third");
    check_uniform(delays(retry, 6, PERF_OUTCOME_TRANSIENT, 0), 20000, "capped");
    check_uniform(delays(retry, 1, PERF_OUTCOME_TRANSIENT, 60000), 1000, "no retry-after");
    perf_retry_close(retry);
}

Test(pool_retry, what_the_service_asks_for)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.base_ms = 1000});
    /* within [t, t + 5 s] it is taken as it is */
    struct spread s = delays(retry, 1, PERF_OUTCOME_TRANSIENT, 3000);
    cr_assert(s.least == 3000 && s.most == 3000, "%d..%d", (int)s.least, (int)s.most);
    /* less than t: t */
    s = delays(retry, 1, PERF_OUTCOME_TRANSIENT, 500);
    cr_assert(s.least == 500 && s.most > 970 && s.most <= 1000, "%d..%d", (int)s.least,
              (int)s.most);
    /* more: t + 5 s */
    s = delays(retry, 1, PERF_OUTCOME_TRANSIENT, INT64_MAX);
    cr_assert(s.least >= 5000 && s.least < 5030 && s.most > 5970 && s.most <= 6000, "%d..%d",
              (int)s.least, (int)s.most);
    /* nonsense */
    check_uniform(delays(retry, 1, PERF_OUTCOME_TRANSIENT, -1), 1000, "negative");
    perf_retry_close(retry);
}

Test(pool_retry, three_attempts)
{
    struct test_host th;
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    int64_t delay = -1;
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    cr_assert_eq(perf_retry_begin(retry, 0, 0, &call), PERF_OK);
    cr_assert(call.attempt == 1 && call.max_attempts == 3);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_OK);
    cr_assert_eq(call.attempt, 2);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_OK);
    cr_assert_eq(call.attempt, 3);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_EREJECTED);
    cr_assert_eq(call.reason, PERF_RETRY_ATTEMPTS);
    cr_assert_eq(delay, 0);
    cr_assert(strstr(perf_last_error(), "all 3 attempts"), "%s", perf_last_error());
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_EINVAL, "it is over");
    perf_retry_end(&call);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_EINVAL, "it has ended");
    cr_assert_eq(perf_retry_get_stats(retry, &stats), PERF_OK);
    cr_assert(stats.calls == 1 && stats.attempts == 3 && stats.retries == 2);
    cr_assert(stats.out_of_attempts == 1 && stats.succeeded_first == 0);
    cr_assert_eq(stats.budget_available, 500 - 2 * 14);
    perf_retry_close(retry);
}

Test(pool_retry, what_is_not_retried)
{
    static const int64_t kinds[] = {PERF_OUTCOME_PERMANENT, PERF_OUTCOME_REJECTED,
                                    PERF_OUTCOME_IGNORED};
    struct test_host th;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    for (size_t i = 0; i < 3; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        int64_t delay = -1;
        perf_retry_begin(retry, 0, 0, &call);
        cr_assert_eq(next(&call, kinds[i], 0, &delay), PERF_EREJECTED);
        cr_assert_eq(call.reason, PERF_RETRY_NOT_RETRYABLE);
        perf_retry_end(&call);
    }
    perf_retry_get_stats(retry, &stats);
    cr_assert(stats.not_retryable == 3 && stats.budget_available == 500);
    perf_retry_close(retry);
}

/* Costs and refunds, mode by mode: what a call of these outcomes leaves in the budget of 500. */
static int64_t left_after(int64_t mode, int64_t start, const int64_t *kinds, size_t count)
{
    struct test_host th;
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    int64_t delay;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.mode = mode, .max_attempts = 50});
    perf_budget *budget = perf_retry_get_budget(retry);
    if (start < 500)
        cr_assert_eq(perf_budget_take(budget, 500 - start), PERF_OK);
    perf_retry_begin(retry, 0, 0, &call);
    for (size_t i = 0; i < count; i++)
        next(&call, kinds[i], 0, &delay);
    perf_retry_end(&call);
    int64_t left = perf_budget_available(budget);
    perf_retry_close(retry);
    return left;
}

#define LEFT(mode, start, ...)                              \
    left_after(mode, start, (const int64_t[]){__VA_ARGS__}, \
               sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

Test(pool_retry, what_a_retry_costs)
{
    enum { OK = PERF_OUTCOME_SUCCESS, BAD = PERF_OUTCOME_TRANSIENT, LATE = PERF_OUTCOME_TIMEOUT };
    enum { SLOW = PERF_OUTCOME_THROTTLED, NEW = PERF_RETRY_STANDARD };
    enum { OLD = PERF_RETRY_STANDARD_2020 };
    cr_assert_eq(LEFT(NEW, 500, BAD), 486);
    cr_assert_eq(LEFT(NEW, 500, LATE), 486);
    cr_assert_eq(LEFT(NEW, 500, SLOW), 495);
    cr_assert_eq(LEFT(NEW, 500, BAD, SLOW), 481);
    cr_assert_eq(LEFT(NEW, 500, BAD, OK), 500);
    cr_assert_eq(LEFT(NEW, 500, BAD, SLOW, OK), 486, "only the last cost comes back");
    cr_assert_eq(LEFT(NEW, 500, OK), 500, "never above the capacity");
    cr_assert_eq(LEFT(NEW, 100, OK), 101);
    cr_assert_eq(LEFT(NEW, 13, BAD, OK), 13, "refused, and the call is over");
    cr_assert_eq(LEFT(NEW, 14, BAD), 0);
    cr_assert_eq(LEFT(OLD, 500, BAD), 495);
    cr_assert_eq(LEFT(OLD, 500, LATE), 490);
    cr_assert_eq(LEFT(OLD, 500, SLOW), 495);
    cr_assert_eq(LEFT(OLD, 500, BAD, LATE, OK), 495);
    cr_assert_eq(LEFT(PERF_RETRY_ADAPTIVE, 500, BAD, SLOW), 481);
}

Test(pool_retry, an_empty_budget_stops_and_successes_fill_it)
{
    struct test_host th;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    int64_t delay;
    int granted = 0;
    for (;;) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        perf_retry_begin(retry, 0, 0, &call);
        int rc = next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay);
        perf_retry_end(&call);
        if (rc) {
            cr_assert(rc == PERF_EREJECTED && call.reason == PERF_RETRY_BUDGET);
            cr_assert(strstr(perf_last_error(), "budget"), "%s", perf_last_error());
            break;
        }
        granted++;
    }
    cr_assert_eq(granted, 500 / 14);
    for (int i = 0; i < 14 - 500 % 14; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        perf_retry_begin(retry, 0, 0, &call);
        cr_assert_eq(next(&call, PERF_OUTCOME_SUCCESS, 0, &delay), PERF_MISS);
        perf_retry_end(&call);
    }
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    perf_retry_begin(retry, 0, 0, &call);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_OK, "there is enough again");
    perf_retry_end(&call);
    perf_retry_get_stats(retry, &stats);
    cr_assert(stats.out_of_budget == 1 && stats.budget_available == 0);
    perf_retry_close(retry);
}

Test(pool_retry, a_long_poll_waits_on_an_empty_budget)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.base_ms = 100000});
    int64_t most = 0, delay;
    cr_assert_eq(perf_budget_take(perf_retry_get_budget(retry), 500), PERF_OK);
    for (int i = 0; i < 200; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        cr_assert_eq(perf_retry_begin(retry, 0, PERF_RETRY_LONG_POLL, &call), PERF_OK);
        cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_EREJECTED);
        cr_assert_eq(call.reason, PERF_RETRY_BUDGET);
        most = delay > most ? delay : most;
        cr_assert(delay >= 0 && delay <= 20000);
        perf_retry_end(&call);
    }
    cr_assert_gt(most, 15000, "it backs off by the usual delay");
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    cr_assert_eq(perf_retry_begin(retry, 0, 2, &call), PERF_EINVAL);
    perf_retry_close(retry);
}

Test(pool_retry, never_sleeps_beyond_the_deadline)
{
    struct test_host th;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.base_ms = 1000});
    int late = 0;
    for (int i = 0; i < 300; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        int64_t delay = -1;
        perf_budget_give(perf_retry_get_budget(retry), 500);
        perf_retry_begin(retry, 500, 0, &call);
        test_host_advance(&th, 100); /* the attempt took its time */
        int rc = next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay);
        if (rc) {
            cr_assert(rc == PERF_ETIMEDOUT && call.reason == PERF_RETRY_DEADLINE && delay == 0);
            late++;
        } else {
            cr_assert_lt(delay, 400);
        }
        perf_retry_end(&call);
    }
    cr_assert(late > 120 && late < 240, "%d of 300 had no time; 180 are expected", late);
    perf_retry_get_stats(retry, &stats);
    cr_assert_eq(stats.out_of_time, (uint64_t)late);
    perf_retry_close(retry);
}

Test(pool_retry, the_threads_deadline_holds)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    perf_deadline before = PERF_DEADLINE_INIT;
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    int64_t wait = -1;
    perf_deadline_enter(100, &th.clock, &before);
    cr_assert_eq(perf_retry_begin(retry, 10000, 0, &call), PERF_OK);
    cr_assert_eq(perf_retry_acquire(&call, &wait), PERF_OK);
    cr_assert_eq(wait, 0);
    test_host_advance(&th, 100);
    cr_assert_eq(perf_retry_acquire(&call, &wait), PERF_ETIMEDOUT);
    perf_deadline_leave(&before);
    perf_retry_end(&call);
    perf_retry_close(retry);
}

/* ------------------------------------------------------------------ adaptive */

Test(pool_retry, adaptive_waits_only_after_a_throttle)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){.mode = PERF_RETRY_ADAPTIVE});
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    int64_t wait = -1, delay;
    for (int i = 0; i < 1000; i++) { /* 100 a second for 10 seconds */
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        perf_retry_begin(retry, 0, 0, &call);
        cr_assert_eq(perf_retry_acquire(&call, &wait), PERF_OK);
        cr_assert_eq(wait, 0);
        next(&call, PERF_OUTCOME_SUCCESS, 0, &delay);
        perf_retry_end(&call);
        test_host_advance(&th, 10);
    }
    perf_retry_get_stats(retry, &stats);
    cr_assert_eq(stats.limiting, 0);
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    perf_retry_begin(retry, 0, 0, &call);
    next(&call, PERF_OUTCOME_THROTTLED, 0, &delay);
    perf_retry_end(&call);
    perf_retry_get_stats(retry, &stats);
    cr_assert_eq(stats.limiting, 1);
    cr_assert(stats.measured_milli > 97000 && stats.measured_milli < 103000, "%d",
              (int)stats.measured_milli);
    cr_assert(stats.rate_milli > 0.69 * (double)stats.measured_milli &&
                  stats.rate_milli < 0.71 * (double)stats.measured_milli,
              "%d", (int)stats.rate_milli);

    /* What is given out now is a line: each one is due later than the one before. */
    int64_t last = 0;
    for (int i = 0; i < 200; i++) {
        perf_retry_call c = PERF_RETRY_CALL_INIT;
        perf_retry_begin(retry, 0, 0, &c);
        cr_assert_eq(perf_retry_acquire(&c, &wait), PERF_OK);
        cr_assert_geq(wait, last);
        last = wait;
        perf_retry_end(&c);
    }
    cr_assert(last > 1000 && last < 4000, "200 requests at 70 a second: %d ms", (int)last);
    perf_retry_call c = PERF_RETRY_CALL_INIT;
    perf_retry_begin(retry, 500, 0, &c);
    cr_assert_eq(perf_retry_acquire(&c, &wait), PERF_ETIMEDOUT, "due after the deadline");
    perf_retry_end(&c);
    perf_retry_close(retry);
}

/* ----------------------------------------------------------------------- run */

struct plan {
    struct test_host *th;
    const int *statuses;
    int made, advance_ms;
    int64_t last_number, last_max, remaining;
};

static int follow_plan(perf_attempt *attempt, void *ctx)
{
    struct plan *plan = ctx;
    plan->last_number = perf_attempt_number(attempt);
    plan->last_max = perf_attempt_max(attempt);
    plan->remaining = perf_attempt_remaining_ms(attempt);
    cr_assert_eq(perf_attempt_is_hedge(attempt), 0);
    cr_assert_eq(perf_attempt_cancelled(attempt), 0);
    cr_assert_eq(perf_attempt_commit(attempt), PERF_OK);
    test_host_advance(plan->th, plan->advance_ms);
    return plan->statuses[plan->made++];
}

Test(pool_retry, run_until_it_works)
{
    struct test_host th;
    static const int statuses[] = {PERF_EIO, PERF_EUNAVAILABLE, PERF_MISS};
    struct plan plan = {.th = &th, .statuses = statuses, .advance_ms = 1};
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    perf_retry_options o = PERF_RETRY_OPTIONS_INIT; /* it sleeps, so by the system's clock */
    perf_retry *retry;
    test_host_init(&th);
    o.base_ms = 1;
    cr_assert_eq(perf_retry_open(&o, &retry), PERF_OK);
    cr_assert_eq(perf_retry_run(retry, follow_plan, &plan, 60000), PERF_MISS);
    cr_assert(plan.made == 3 && plan.last_number == 3 && plan.last_max == 3);
    cr_assert(plan.remaining > 0 && plan.remaining <= 60000);
    perf_retry_get_stats(retry, &stats);
    cr_assert(stats.succeeded_later == 1 && stats.succeeded_first == 0 && stats.retries == 2);
    cr_assert_eq(perf_retry_run(retry, NULL, &plan, 0), PERF_EINVAL);
    perf_retry_close(retry);
}

Test(pool_retry, run_says_why_it_stopped)
{
    struct test_host th;
    static const int permanent[] = {PERF_EACCESS}, broken[] = {PERF_EIO, PERF_EIO, PERF_EIO};
    struct plan plan = {.th = &th, .statuses = permanent};
    perf_retry_options o = PERF_RETRY_OPTIONS_INIT;
    perf_retry *retry;
    test_host_init(&th);
    o.base_ms = 1;
    cr_assert_eq(perf_retry_open(&o, &retry), PERF_OK);
    cr_assert_eq(perf_retry_run(retry, follow_plan, &plan, 0), PERF_EACCESS);
    cr_assert(plan.made == 1 && plan.remaining == -1);
    cr_assert(strstr(perf_last_error(), "another attempt would end the same"), "%s",
              perf_last_error());
    plan = (struct plan){.th = &th, .statuses = broken};
    cr_assert_eq(perf_retry_run(retry, follow_plan, &plan, 0), PERF_EIO);
    cr_assert_eq(plan.made, 3);
    cr_assert(strstr(perf_last_error(), "attempt 3 ended with PERF_EIO; no retry: all 3 attempts"),
              "%s", perf_last_error());
    perf_retry_close(retry);
}

Test(pool_retry, run_has_no_time)
{
    struct test_host th;
    perf_deadline before = PERF_DEADLINE_INIT;
    static const int broken[] = {PERF_EIO, PERF_EIO, PERF_EIO};
    struct plan plan = {.th = &th, .statuses = broken, .advance_ms = 100};
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    cr_assert_eq(perf_retry_run(retry, follow_plan, &plan, 100), PERF_EIO);
    cr_assert_eq(plan.made, 1);
    cr_assert(strstr(perf_last_error(), "deadline"), "%s", perf_last_error());
    perf_deadline_enter(0, &th.clock, &before);
    cr_assert_eq(perf_retry_run(retry, follow_plan, &plan, 100), PERF_ETIMEDOUT);
    cr_assert_eq(plan.made, 1, "not even one");
    perf_deadline_leave(&before);
    perf_retry_close(retry);
}

static int throttled_once(perf_attempt *attempt, void *ctx)
{
    perf_outcome outcome = PERF_OUTCOME_INIT;
    outcome.kind = 99;
    cr_assert_eq(perf_attempt_set_outcome(attempt, &outcome), PERF_EINVAL);
    cr_assert_eq(perf_attempt_set_outcome(attempt, NULL), PERF_EINVAL);
    if (++*(int *)ctx > 1)
        return PERF_OK;
    outcome.kind = PERF_OUTCOME_THROTTLED;
    outcome.retry_after_ms = 3;
    cr_assert_eq(perf_attempt_set_outcome(attempt, &outcome), PERF_OK);
    return PERF_EREMOTE; /* which by itself would be permanent */
}

Test(pool_retry, an_attempt_knows_better)
{
    perf_retry_options o = PERF_RETRY_OPTIONS_INIT;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    perf_retry *retry;
    int made = 0;
    o.throttle_base_ms = 1;
    cr_assert_eq(perf_retry_open(&o, &retry), PERF_OK);
    cr_assert_eq(perf_retry_run(retry, throttled_once, &made, 0), PERF_OK);
    cr_assert_eq(made, 2);
    perf_retry_get_stats(retry, &stats);
    cr_assert(stats.throttled == 1 && stats.waited_ms == 3 && stats.budget_available == 500);
    perf_retry_close(retry);
}

/* -------------------------------------------------------------------- budget */

Test(pool_budget, between_nothing_and_its_capacity)
{
    perf_budget *budget;
    cr_assert_eq(perf_budget_open(10, NULL, &budget), PERF_OK);
    cr_assert_eq(perf_budget_available(budget), 10);
    perf_budget_give(budget, 5);
    cr_assert_eq(perf_budget_available(budget), 10);
    cr_assert_eq(perf_budget_take(budget, 7), PERF_OK);
    cr_assert_eq(perf_budget_take(budget, 4), PERF_EREJECTED);
    cr_assert_eq(perf_budget_available(budget), 3);
    perf_budget_give(budget, INT64_MAX);
    cr_assert_eq(perf_budget_available(budget), 10);
    perf_budget_give(budget, -5);
    cr_assert_eq(perf_budget_available(budget), 10);
    cr_assert_eq(perf_budget_take(budget, 0), PERF_EINVAL);
    cr_assert_eq(perf_budget_take(budget, -1), PERF_EINVAL);
    perf_budget_close(budget);
    cr_assert_eq(perf_budget_open(-1, NULL, &budget), PERF_EINVAL);
    cr_assert_eq(perf_budget_open(0, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_budget_take(NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_budget_available(NULL), 0);
    perf_budget_give(NULL, 1);
    cr_assert_eq(perf_budget_close(NULL), PERF_OK);
}

Test(pool_budget, shared_by_two_policies)
{
    struct test_host th;
    perf_budget *budget;
    int64_t delay;
    cr_assert_eq(perf_budget_open(20, NULL, &budget), PERF_OK);
    perf_retry *a = open_retry(&th, (perf_retry_options){.budget = budget});
    perf_retry *b = open_retry(&th, (perf_retry_options){.budget = budget});
    cr_assert_eq(perf_retry_get_budget(a), perf_retry_get_budget(b));
    perf_retry_call call = PERF_RETRY_CALL_INIT;
    perf_retry_begin(a, 0, 0, &call);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_OK);
    perf_retry_end(&call);
    perf_retry_begin(b, 0, 0, &call);
    cr_assert_eq(next(&call, PERF_OUTCOME_TRANSIENT, 0, &delay), PERF_EREJECTED);
    perf_retry_end(&call);
    perf_retry_close(a);
    perf_retry_close(b);
    cr_assert_eq(perf_budget_available(budget), 6);
    perf_budget_close(budget);
}

/* ------------------------------------------------------------------- misuse */

Test(pool_retry, bad_options)
{
    perf_retry *retry = NULL;
    perf_retry_call call = PERF_RETRY_CALL_INIT, zero = {0};
    perf_outcome outcome = PERF_OUTCOME_INIT;
    perf_retry_stats stats = PERF_RETRY_STATS_INIT;
    int64_t ms;
#define REFUSED(field, value)                                                  \
    do {                                                                       \
        perf_retry_options o = PERF_RETRY_OPTIONS_INIT;                        \
        o.field = value;                                                       \
        cr_assert_eq(perf_retry_open(&o, &retry), PERF_EINVAL);                \
        cr_assert(strstr(perf_last_error(), #field), "%s", perf_last_error()); \
        cr_assert_null(retry);                                                 \
    } while (0)
    REFUSED(mode, 3);
    REFUSED(mode, -1);
    REFUSED(max_attempts, 101);
    REFUSED(base_ms, -1);
    REFUSED(throttle_base_ms, -1);
    REFUSED(max_delay_ms, INT64_MAX);
    REFUSED(retry_after_over_ms, -1);
    REFUSED(budget_capacity, -1);
    REFUSED(cost, -1);
    REFUSED(timeout_cost, -1);
    REFUSED(throttle_cost, -1);
    REFUSED(refund, -1);
    cr_assert_eq(perf_retry_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_retry_begin(NULL, 0, 0, &call), PERF_EINVAL);
    cr_assert_eq(perf_retry_acquire(&call, &ms), PERF_EINVAL, "not begun");
    cr_assert_eq(perf_retry_next(&call, &outcome, &ms), PERF_EINVAL, "not begun");
    cr_assert_eq(perf_retry_open(NULL, &retry), PERF_OK);
    cr_assert_eq(perf_retry_begin(retry, 0, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_retry_begin(retry, 0, 0, &zero), PERF_EINVAL);
    cr_assert_eq(perf_retry_begin(retry, 0, 0, &call), PERF_OK);
    cr_assert_eq(perf_retry_acquire(&call, NULL), PERF_EINVAL);
    cr_assert_eq(perf_retry_next(&call, NULL, &ms), PERF_EINVAL);
    cr_assert_eq(perf_retry_next(&call, &outcome, NULL), PERF_EINVAL);
    outcome.kind = 7;
    cr_assert_eq(perf_retry_next(&call, &outcome, &ms), PERF_EINVAL);
    perf_retry_end(&call);
    perf_retry_end(&call);
    perf_retry_end(NULL);
    perf_retry_end(&zero);
    cr_assert_eq(perf_retry_get_stats(retry, NULL), PERF_EINVAL);
    cr_assert_eq(perf_retry_get_stats(NULL, &stats), PERF_EINVAL);
    cr_assert_null(perf_retry_get_budget(NULL));
    perf_retry_close(retry);
    cr_assert_eq(perf_retry_close(NULL), PERF_OK);
    cr_assert(perf_attempt_number(NULL) == 0 && perf_attempt_max(NULL) == 0);
    cr_assert(perf_attempt_remaining_ms(NULL) == -1 && perf_attempt_commit(NULL) == PERF_EINVAL);
}

#ifndef TEST_WITHOUT_CRITERION
Test(pool_retry, a_forked_child_opens_its_own)
{
    struct test_host th;
    perf_retry *retry = open_retry(&th, (perf_retry_options){0});
    perf_budget *budget = perf_retry_get_budget(retry);
    pid_t child = fork();
    if (!child) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        int bad = perf_retry_begin(retry, 0, 0, &call) != PERF_EFORKED;
        bad |= perf_budget_take(budget, 1) != PERF_EFORKED;
        bad |= perf_retry_close(retry) != PERF_OK;
        _exit(bad);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    perf_retry_close(retry);
}
#endif
