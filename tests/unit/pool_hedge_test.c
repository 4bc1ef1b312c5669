/* SPDX-License-Identifier: MIT */
/* hedge.c: when to ask twice, who wins, and that nothing outlives the call. */
#include <libperf/resilience.h>
#include <pthread.h>
#include <time.h>

#include "seams.h"
#include "test.h"

static perf_hedge *open_hedge(perf_hedge_options o)
{
    perf_hedge *hedge = NULL;
    o.struct_size = sizeof o;
    cr_assert_eq(perf_hedge_open(&o, &hedge), PERF_OK, "%s", perf_last_error());
    return hedge;
}

static perf_hedge_stats stats_of(perf_hedge *hedge)
{
    perf_hedge_stats stats = PERF_HEDGE_STATS_INIT;
    cr_assert_eq(perf_hedge_get_stats(hedge, &stats), PERF_OK);
    return stats;
}

static void nap(void)
{
    nanosleep(&(struct timespec){0, 1000000}, NULL);
}

Test(pool_hedge, the_quantile_of_recent_latencies)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){0});
    int64_t ms = -5;
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_MISS);
    for (int i = 0; i < 31; i++)
        perf_hedge_record(hedge, 10, 0);
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_MISS, "31 are too few");
    cr_assert_eq(ms, -5);
    perf_hedge_record(hedge, 10, 0);
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_OK);
    cr_assert_eq(ms, 10);
    for (int i = 0; i < 256; i++) /* 1 to 256 in an order of their own; the tens are gone */
        perf_hedge_record(hedge, i * 101 % 256 + 1, 0);
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_OK);
    cr_assert_eq(ms, 244, "243.2 of 256 are 95 percent");
    cr_assert_eq(stats_of(hedge).calls, 288);
    perf_hedge_close(hedge);

    hedge = open_hedge((perf_hedge_options){.quantile_percent = 50, .min_calls = 1});
    perf_hedge_record(hedge, 0, 0);
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_OK);
    cr_assert_eq(ms, 1, "min_delay_ms");
    perf_hedge_close(hedge);
    hedge = open_hedge((perf_hedge_options){.delay_ms = 30});
    cr_assert_eq(perf_hedge_delay_ms(hedge, &ms), PERF_OK);
    cr_assert_eq(ms, 30);
    perf_hedge_close(hedge);
}

Test(pool_hedge, a_budget_bounds_them)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 1});
    int allowed = 0;
    while (perf_hedge_allow(hedge) == PERF_OK)
        allowed++;
    cr_assert_eq(allowed, 500 / 14);
    /* slow for everybody: each of 1400 calls wants one */
    allowed = 0;
    for (int i = 0; i < 1400; i++) {
        int hedged = perf_hedge_allow(hedge) == PERF_OK;
        allowed += hedged;
        perf_hedge_record(hedge, 100, hedged);
    }
    cr_assert(allowed >= 90 && allowed <= 100, "one in fifteen: %d", allowed);
    cr_assert_gt(stats_of(hedge).refused, 1200);
    perf_hedge_close(hedge);

    perf_budget *budget;
    cr_assert_eq(perf_budget_open(14, NULL, &budget), PERF_OK);
    hedge = open_hedge((perf_hedge_options){.delay_ms = 1, .budget = budget});
    cr_assert_eq(perf_hedge_allow(hedge), PERF_OK);
    cr_assert_eq(perf_hedge_allow(hedge), PERF_EREJECTED);
    for (int i = 0; i < 20; i++)
        perf_hedge_record(hedge, 1, 0);
    cr_assert_eq(perf_budget_available(budget), 0, "a shared one is filled by its owner");
    perf_hedge_close(hedge);
    perf_budget_close(budget);
}

/* ------------------------------------------------------------------------ run */

struct question {
    _Atomic int asked, cancelled, finished;
    int answer; /* who wrote it: 1 the first, 2 the hedge */
    int first_is_slow, first_fails, hedge_fails, polite;
    int64_t remaining;
};

static int ask(perf_attempt *attempt, void *ctx)
{
    struct question *q = ctx;
    int hedge = perf_attempt_is_hedge(attempt);
    q->asked++;
    if (hedge)
        q->remaining = perf_attempt_remaining_ms(attempt);
    if (!hedge && q->first_is_slow) {
        for (int i = 0; i < 5000 && !perf_attempt_cancelled(attempt); i++)
            nap(); /* a slow answer: five seconds */
        if (perf_attempt_cancelled(attempt)) {
            q->cancelled++;
            q->finished++;
            return q->polite ? PERF_ECANCELED : PERF_OK;
        }
    }
    if (hedge ? q->hedge_fails : q->first_fails) {
        q->finished++;
        return PERF_EIO;
    }
    int rc = perf_attempt_commit(attempt);
    if (!rc)
        q->answer = hedge + 1;
    q->finished++;
    return rc;
}

Test(pool_hedge, a_fast_call_is_asked_once)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 60000});
    struct question q = {0};
    for (int i = 0; i < 100; i++)
        cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_OK);
    cr_assert(q.asked == 100 && q.answer == 1);
    cr_assert(stats_of(hedge).hedges == 0 && stats_of(hedge).threads == 1);
    perf_hedge_close(hedge);
}

Test(pool_hedge, the_second_wins_and_the_first_is_told)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 5});
    for (int polite = 0; polite < 2; polite++) {
        struct question q = {.first_is_slow = 1, .polite = polite};
        cr_assert_eq(perf_hedge_run(hedge, ask, &q, 30000), PERF_OK);
        cr_assert(q.asked == 2 && q.cancelled == 1 && q.finished == 2);
        cr_assert_eq(q.answer, 2, "also if the loser says that it succeeded");
        cr_assert(q.remaining > 20000 && q.remaining <= 30000, "the deadline is inherited: %d",
                  (int)q.remaining);
    }
    cr_assert(stats_of(hedge).hedges == 2 && stats_of(hedge).won == 2);
    perf_hedge_close(hedge);
}

Test(pool_hedge, both_over_before_it_returns)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 1});
    for (int i = 0; i < 30; i++) { /* as many hedges as the budget allows */
        struct question q = {.first_is_slow = 1, .polite = 1, .hedge_fails = 0};
        cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_OK);
        cr_assert_eq(q.finished, q.asked);
        memset(&q, 0xff, sizeof q); /* gone: nobody may touch it any more */
    }
    perf_hedge_close(hedge);
}

static int slow_failure(perf_attempt *attempt, void *ctx)
{
    struct question *q = ctx;
    q->asked++;
    if (perf_attempt_is_hedge(attempt))
        return PERF_EPROTOCOL;
    while (q->asked < 2)
        nap();
    return PERF_EIO;
}

Test(pool_hedge, when_both_fail_the_first_speaks)
{
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 1});
    struct question q = {0};
    cr_assert_eq(perf_hedge_run(hedge, slow_failure, &q, 0), PERF_EIO);
    cr_assert_eq(q.asked, 2);
    q = (struct question){.first_fails = 1};
    cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_EIO);
    cr_assert_eq(stats_of(hedge).calls, 0, "failures have no latency");
    perf_hedge_close(hedge);
}

static int wait_for_refusal(perf_attempt *attempt, void *ctx)
{
    perf_hedge *hedge = ctx;
    cr_assert_eq(perf_attempt_is_hedge(attempt), 0);
    while (stats_of(hedge).refused == 0)
        nap();
    return PERF_OK;
}

Test(pool_hedge, no_budget_no_second)
{
    perf_budget *budget;
    cr_assert_eq(perf_budget_open(1, NULL, &budget), PERF_OK);
    perf_hedge *hedge = open_hedge((perf_hedge_options){.delay_ms = 1, .budget = budget});
    cr_assert_eq(perf_hedge_run(hedge, wait_for_refusal, hedge, 0), PERF_OK);
    cr_assert(stats_of(hedge).hedges == 0 && stats_of(hedge).calls == 1);
    perf_hedge_close(hedge);
    perf_budget_close(budget);
}

Test(pool_hedge, by_the_hosts_clock)
{
    struct test_host th;
    perf_deadline before = PERF_DEADLINE_INIT;
    perf_hedge *hedge =
        open_hedge((perf_hedge_options){.delay_ms = 1000, .host = test_host_init(&th)});
    struct question q = {0};
    cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_OK);
    cr_assert_eq(q.asked, 1);
    perf_deadline_enter(0, &th.clock, &before);
    cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_ETIMEDOUT);
    perf_deadline_leave(&before);
    perf_deadline_enter(500, &th.clock, &before); /* over before a hedge would begin */
    cr_assert_eq(perf_hedge_run(hedge, ask, &q, 0), PERF_OK);
    perf_deadline_leave(&before);
    cr_assert_eq(q.asked, 2);
    perf_hedge_close(hedge);
}

Test(pool_hedge, misuse)
{
    perf_hedge_options o = PERF_HEDGE_OPTIONS_INIT;
    perf_hedge *hedge;
#define REFUSED(field, value)                                                  \
    do {                                                                       \
        o = (perf_hedge_options)PERF_HEDGE_OPTIONS_INIT;                       \
        o.field = value;                                                       \
        cr_assert_eq(perf_hedge_open(&o, &hedge), PERF_EINVAL);                \
        cr_assert(strstr(perf_last_error(), #field), "%s", perf_last_error()); \
    } while (0)
    REFUSED(delay_ms, -1);
    REFUSED(quantile_percent, 100);
    REFUSED(min_delay_ms, -1);
    REFUSED(min_calls, 257);
    REFUSED(cost, -1);
    REFUSED(max_threads, 65);
    cr_assert_eq(perf_hedge_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_hedge_open(NULL, &hedge), PERF_OK);
    cr_assert_eq(perf_hedge_run(hedge, NULL, NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_hedge_run(NULL, ask, NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_hedge_delay_ms(hedge, NULL), PERF_EINVAL);
    cr_assert_eq(perf_hedge_allow(NULL), PERF_EINVAL);
    perf_hedge_record(NULL, 1, 0);
    perf_hedge_record(hedge, -1, 0);
    perf_hedge_record(hedge, INT64_MAX, 1);
    cr_assert_eq(perf_hedge_get_stats(hedge, NULL), PERF_EINVAL);
    perf_hedge_close(hedge);
    cr_assert_eq(perf_hedge_close(NULL), PERF_OK);
}
