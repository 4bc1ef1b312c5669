/* SPDX-License-Identifier: MIT */
/* policy.c: the order of the parts, what is given back, and the fallback. */
#include <libperf/resilience.h>
#include <time.h>

#include "seams.h"
#include "test.h"

struct work {
    struct test_host *th;
    int status, made, takes_ms;
    int good_from; /* from this attempt on it works; 0: never by itself */
    int64_t remaining;
};

static int do_work(perf_attempt *attempt, void *ctx)
{
    struct work *w = ctx;
    w->made++;
    w->remaining = perf_attempt_remaining_ms(attempt);
    if (w->th)
        test_host_advance(w->th, w->takes_ms);
    return w->good_from && w->made >= w->good_from ? PERF_OK : w->status;
}

static perf_policy *open_policy(perf_policy_options o)
{
    perf_policy *policy = NULL;
    o.struct_size = sizeof o;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_OK, "%s", perf_last_error());
    return policy;
}

static perf_policy_stats stats_of(perf_policy *policy)
{
    perf_policy_stats stats = PERF_POLICY_STATS_INIT;
    cr_assert_eq(perf_policy_get_stats(policy, &stats), PERF_OK);
    return stats;
}

/* ------------------------------------------------------------------ fallback */

static int make_do(void *ctx, void *call_ctx, int status)
{
    *(int *)call_ctx = status;
    return *(int *)ctx;
}

Test(pool_fallback, for_its_kinds)
{
    perf_fallback f = PERF_FALLBACK_INIT;
    int answer = 5, got = 0;
    f.fn = make_do;
    f.ctx = &answer;
    static const int through[] = {PERF_OK, PERF_MISS, PERF_EACCESS, PERF_EINVAL, PERF_ECANCELED};
    static const int caught[] = {PERF_EIO, PERF_ETIMEDOUT, PERF_ETHROTTLED, PERF_EREJECTED};
    for (size_t i = 0; i < 5; i++)
        cr_assert_eq(perf_fallback_apply(&f, &got, through[i]), through[i]);
    cr_assert_eq(got, 0);
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(perf_fallback_apply(&f, &got, caught[i]), 5);
        cr_assert_eq(got, caught[i]);
    }
    f.kinds = 1 << PERF_OUTCOME_PERMANENT;
    cr_assert_eq(perf_fallback_apply(&f, &got, PERF_EIO), PERF_EIO);
    cr_assert_eq(perf_fallback_apply(&f, &got, PERF_EACCESS), 5);
}

Test(pool_fallback, a_value)
{
    perf_fallback f = PERF_FALLBACK_INIT;
    char out[6] = "none";
    cr_assert_eq(perf_fallback_apply(&f, NULL, PERF_EIO), PERF_EINVAL);
    cr_assert_eq(perf_fallback_apply(NULL, NULL, PERF_EIO), PERF_EINVAL);
    f.value = "stale";
    cr_assert_eq(perf_fallback_apply(&f, NULL, PERF_EIO), PERF_EINVAL);
    f.value_len = 6;
    f.out = out;
    cr_assert_eq(perf_fallback_apply(&f, NULL, PERF_OK), PERF_OK);
    cr_assert_str_eq(out, "none");
    cr_assert_eq(perf_fallback_apply(&f, NULL, PERF_EIO), PERF_OK);
    cr_assert_str_eq(out, "stale");
    f.kinds = 1 << 7;
    cr_assert_eq(perf_fallback_apply(&f, NULL, PERF_EIO), PERF_EINVAL);
}

/* -------------------------------------------------------------------- policy */

Test(pool_policy, nothing_in_it)
{
    perf_policy *policy;
    struct work w = {.status = PERF_EIO};
    cr_assert_eq(perf_policy_open(NULL, &policy), PERF_OK);
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EIO);
    cr_assert(w.made == 1 && w.remaining == -1);
    w.status = 42;
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 1000), 42);
    cr_assert(w.remaining > 0 && w.remaining <= 1000);
    cr_assert_eq(perf_deadline_remaining_ms(), -1);
    perf_policy_stats s = stats_of(policy);
    cr_assert(s.calls == 2 && s.succeeded == 1 && s.failed == 1);
    perf_policy_close(policy);
}

Test(pool_policy, the_breaker_sees_each_attempt)
{
    perf_retry_options ro = PERF_RETRY_OPTIONS_INIT;
    perf_breaker_options bo = PERF_BREAKER_OPTIONS_INIT;
    perf_retry *retry;
    perf_breaker *breaker;
    struct work w = {.status = PERF_EUNAVAILABLE};
    ro.base_ms = ro.max_delay_ms = 1;
    bo.window_calls = 5;
    cr_assert_eq(perf_retry_open(&ro, &retry), PERF_OK);
    cr_assert_eq(perf_breaker_open(&bo, &breaker), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){.retry = retry, .breaker = breaker});
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EUNAVAILABLE);
    cr_assert_eq(w.made, 3);
    cr_assert_eq(perf_breaker_state(breaker), PERF_BREAKER_CLOSED);
    /* two more open it, and the third is refused: which is not retried */
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EREJECTED);
    cr_assert_eq(w.made, 5);
    cr_assert_eq(perf_breaker_state(breaker), PERF_BREAKER_OPEN);
    cr_assert(strstr(perf_last_error(), "the breaker is open"), "%s", perf_last_error());
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EREJECTED);
    cr_assert_eq(w.made, 5);
    cr_assert(stats_of(policy).rejected == 2 && stats_of(policy).failed == 3);
    perf_policy_close(policy);
    perf_breaker_close(breaker);
    perf_retry_close(retry);
}

Test(pool_policy, retried_until_it_works)
{
    perf_retry_options ro = PERF_RETRY_OPTIONS_INIT;
    perf_retry *retry;
    struct work w = {.status = PERF_EIO, .good_from = 3};
    ro.base_ms = 1;
    cr_assert_eq(perf_retry_open(&ro, &retry), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){.retry = retry});
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_OK);
    cr_assert_eq(w.made, 3);
    cr_assert_eq(stats_of(policy).succeeded, 1);
    perf_policy_close(policy);
    perf_retry_close(retry);
}

Test(pool_policy, what_a_refused_attempt_took_is_given_back)
{
    struct test_host th;
    perf_breaker_options bo = PERF_BREAKER_OPTIONS_INIT;
    perf_rate_limit_options lo = PERF_RATE_LIMIT_OPTIONS_INIT;
    perf_bulkhead_options ko = PERF_BULKHEAD_OPTIONS_INIT;
    perf_adaptive_limit_options ao = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_breaker *breaker;
    perf_rate_limit *rate;
    perf_bulkhead *bulkhead;
    perf_adaptive_limit *adaptive;
    perf_bulkhead_stats ks = PERF_BULKHEAD_STATS_INIT;
    perf_rate_limit_stats ls = PERF_RATE_LIMIT_STATS_INIT;
    uint64_t permit, probe;
    bo.host = lo.host = ko.host = ao.host = test_host_init(&th);
    bo.half_open_calls = 1;
    lo.permits = 10;
    ko.max_concurrent = 2;
    ao.initial = 1;
    cr_assert_eq(perf_breaker_open(&bo, &breaker), PERF_OK);
    cr_assert_eq(perf_rate_limit_open(&lo, &rate), PERF_OK);
    cr_assert_eq(perf_bulkhead_open(&ko, &bulkhead), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_open(&ao, &adaptive), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){.breaker = breaker,
                                                            .rate_limit = rate,
                                                            .bulkhead = bulkhead,
                                                            .adaptive_limit = adaptive,
                                                            .host = &th.host});
    struct work w = {.status = PERF_OK, .th = &th};
    perf_breaker_force(breaker, PERF_BREAKER_HALF_OPEN);
    cr_assert_eq(perf_adaptive_limit_try(adaptive, &permit), PERF_OK); /* the innermost is full */
    for (int i = 0; i < 20; i++)
        cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EREJECTED);
    cr_assert_eq(w.made, 0);
    perf_bulkhead_get_stats(bulkhead, &ks);
    perf_rate_limit_get_stats(rate, &ls);
    cr_assert(ks.in_use == 0 && ls.available == 10, "%d %d", (int)ks.in_use, (int)ls.available);
    cr_assert_eq(perf_breaker_try(breaker, &probe), PERF_OK, "the probe's place is free");
    perf_breaker_release(breaker, probe);
    perf_adaptive_limit_release(adaptive, permit, PERF_OUTCOME_IGNORED);

    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_OK);
    cr_assert_eq(perf_breaker_state(breaker), PERF_BREAKER_CLOSED);
    perf_rate_limit_get_stats(rate, &ls);
    cr_assert_eq(ls.available, 9);
    cr_assert_eq(perf_bulkhead_acquire(bulkhead, 0), PERF_OK);
    cr_assert_eq(perf_bulkhead_acquire(bulkhead, 0), PERF_OK);
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EREJECTED);
    perf_rate_limit_get_stats(rate, &ls);
    cr_assert_eq(ls.available, 9);
    perf_policy_close(policy);
    perf_adaptive_limit_close(adaptive);
    perf_bulkhead_close(bulkhead);
    perf_rate_limit_close(rate);
    perf_breaker_close(breaker);
}

Test(pool_policy, deadlines)
{
    struct test_host th;
    perf_retry_options ro = PERF_RETRY_OPTIONS_INIT;
    perf_retry *retry;
    perf_deadline before = PERF_DEADLINE_INIT;
    struct work w = {.status = PERF_ETIMEDOUT, .th = &th, .takes_ms = 200};
    ro.host = test_host_init(&th);
    cr_assert_eq(perf_retry_open(&ro, &retry), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){
        .retry = retry, .timeout_ms = 200, .attempt_timeout_ms = 150, .host = &th.host});
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_ETIMEDOUT);
    cr_assert(w.made == 1 && w.remaining == 150, "%d", (int)w.remaining);
    cr_assert(strstr(perf_last_error(), "deadline"), "%s", perf_last_error());
    perf_deadline_enter(100, &th.clock, &before);
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 5000), PERF_ETIMEDOUT);
    cr_assert_eq(w.remaining, 100, "the thread's is nearer");
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 5000), PERF_ETIMEDOUT);
    cr_assert_eq(w.made, 2, "no time for even one");
    perf_deadline_leave(&before);
    cr_assert_eq(stats_of(policy).timed_out, 3);
    perf_policy_close(policy);
    perf_retry_close(retry);
}

static int all_is_fine(void *ctx, int status)
{
    (void)ctx;
    return status == -77 ? PERF_OUTCOME_SUCCESS : 1000;
}

Test(pool_policy, falls_back_and_asks_the_host_what_a_status_means)
{
    perf_fallback f = PERF_FALLBACK_INIT;
    struct work w = {.status = PERF_EUNAVAILABLE};
    char out[4] = "";
    f.value = "old";
    f.value_len = 4;
    f.out = out;
    perf_policy *policy =
        open_policy((perf_policy_options){.fallback = &f, .classify = all_is_fine});
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_OK);
    cr_assert_str_eq(out, "old");
    w.status = PERF_EACCESS;
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), PERF_EACCESS);
    w.status = -77;
    cr_assert_eq(perf_policy_run(policy, do_work, &w, 0), -77);
    perf_policy_stats s = stats_of(policy);
    cr_assert(s.fallbacks == 1 && s.failed == 1 && s.succeeded == 1);
    perf_policy_close(policy);
}

static int slow_first(perf_attempt *attempt, void *ctx)
{
    perf_outcome outcome = PERF_OUTCOME_INIT;
    (void)ctx;
    if (perf_attempt_is_hedge(attempt)) {
        outcome.kind = PERF_OUTCOME_SUCCESS;
        perf_attempt_set_outcome(attempt, &outcome);
        return 7;
    }
    for (int i = 0; i < 5000 && !perf_attempt_cancelled(attempt); i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    return PERF_ECANCELED;
}

Test(pool_policy, hedges_innermost)
{
    perf_hedge_options ho = PERF_HEDGE_OPTIONS_INIT;
    perf_hedge *hedge;
    perf_retry *retry;
    perf_hedge_stats hs = PERF_HEDGE_STATS_INIT;
    cr_assert_eq(perf_retry_open(NULL, &retry), PERF_OK);
    ho.delay_ms = 2;
    ho.budget = perf_retry_get_budget(retry);
    cr_assert_eq(perf_hedge_open(&ho, &hedge), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){.retry = retry, .hedge = hedge});
    cr_assert_eq(perf_policy_run(policy, slow_first, NULL, 0), 7);
    perf_hedge_get_stats(hedge, &hs);
    cr_assert_eq(hs.won, 1);
    cr_assert_eq(perf_budget_available(ho.budget), 500 - 14 + 1, "a hedge costs, a success earns");
    perf_policy_close(policy);
    perf_hedge_close(hedge);
    perf_retry_close(retry);
}

static int refuse(perf_attempt *attempt, void *ctx)
{
    (void)attempt;
    return perf_rate_limit_try(ctx, 0); /* any call of the library that says why it fails */
}

Test(pool_policy, the_words_of_the_function_stay)
{
    perf_retry *retry;
    perf_rate_limit *limit;
    cr_assert_eq(perf_retry_open(NULL, &retry), PERF_OK);
    cr_assert_eq(perf_rate_limit_open(NULL, &limit), PERF_OK);
    perf_policy *policy = open_policy((perf_policy_options){.retry = retry});
    cr_assert_eq(perf_policy_run(policy, refuse, limit, 0), PERF_EINVAL);
    cr_assert_str_eq(perf_last_error(),
                     "attempt 1 ended with PERF_EINVAL: permits is 0; give 1 to 50; no retry: "
                     "another attempt would end the same");
    perf_policy_close(policy);
    perf_rate_limit_close(limit);
    perf_retry_close(retry);
}

Test(pool_policy, misuse)
{
    perf_policy_options o = PERF_POLICY_OPTIONS_INIT;
    perf_fallback f = PERF_FALLBACK_INIT;
    perf_policy *policy;
    o.fallback = &f;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_EINVAL);
    o.fallback = NULL;
    o.timeout_ms = -1;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_EINVAL);
    o.timeout_ms = 0;
    o.attempt_timeout_ms = -1;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_EINVAL);
    o.attempt_timeout_ms = 0;
    o.max_wait_ms = -2;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_EINVAL);
    cr_assert_eq(perf_policy_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_policy_run(NULL, do_work, NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_policy_open(NULL, &policy), PERF_OK);
    cr_assert_eq(perf_policy_run(policy, NULL, NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_policy_get_stats(policy, NULL), PERF_EINVAL);
    perf_policy_close(policy);
    cr_assert_eq(perf_policy_close(NULL), PERF_OK);
}
