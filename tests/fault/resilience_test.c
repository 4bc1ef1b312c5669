/* SPDX-License-Identifier: MIT */
/*
 * resilience_test.c - every allocation of every part fails once. A part that
 * cannot be opened says so and leaves nothing; one that is open goes on working,
 * for only its counters ask for more.
 */
#include <libperf/resilience.h>

#include "seams.h"
#include "test.h"

static int succeed(perf_attempt *attempt, void *ctx)
{
    (void)attempt;
    ++*(int *)ctx;
    return PERF_OK;
}

/* Opens one of each, runs them, closes them. PERF_OK or the first failure. */
static int use_all(const perf_host *host)
{
    perf_retry_options ro = PERF_RETRY_OPTIONS_INIT;
    perf_breaker_options bo = PERF_BREAKER_OPTIONS_INIT;
    perf_rate_limit_options lo = PERF_RATE_LIMIT_OPTIONS_INIT;
    perf_bulkhead_options ko = PERF_BULKHEAD_OPTIONS_INIT;
    perf_adaptive_limit_options ao = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_hedge_options ho = PERF_HEDGE_OPTIONS_INIT;
    perf_policy_options po = PERF_POLICY_OPTIONS_INIT;
    perf_policy *policy = NULL;
    int rc, done = 0;
    ro.host = bo.host = lo.host = ko.host = ao.host = ho.host = po.host = host;
    ro.mode = PERF_RETRY_ADAPTIVE;
    ho.delay_ms = 60000;
    if ((rc = perf_retry_open(&ro, &po.retry)) || (rc = perf_breaker_open(&bo, &po.breaker)) ||
        (rc = perf_rate_limit_open(&lo, &po.rate_limit)) ||
        (rc = perf_bulkhead_open(&ko, &po.bulkhead)) ||
        (rc = perf_adaptive_limit_open(&ao, &po.adaptive_limit)) ||
        (rc = perf_hedge_open(&ho, &po.hedge)) || (rc = perf_policy_open(&po, &policy)))
        goto out;
    for (int i = 0; i < 10; i++)
        cr_assert_eq(perf_policy_run(policy, succeed, &done, 0), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(done, 10);
    perf_policy_stats s = PERF_POLICY_STATS_INIT;
    cr_assert_eq(perf_policy_get_stats(policy, &s), PERF_OK);
    cr_assert(s.calls == 10 && s.succeeded == 10, "counted in the shared row, if need be");
out:
    perf_policy_close(policy);
    perf_hedge_close(po.hedge);
    perf_adaptive_limit_close(po.adaptive_limit);
    perf_bulkhead_close(po.bulkhead);
    perf_rate_limit_close(po.rate_limit);
    perf_breaker_close(po.breaker);
    perf_retry_close(po.retry);
    return rc;
}

Test(resilience_fault, every_allocation_fails_once)
{
    int failures = 0, refusals = 0;
    for (int64_t i = 1;; i++) {
        struct test_host th;
        const perf_host *host = test_host_init(&th);
        atomic_store(&th.fail_at, i);
        int rc = use_all(host);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "allocation %d: %d", (int)i, rc);
        cr_assert_eq(atomic_load(&th.live), 0, "allocation %d leaves %d blocks", (int)i,
                     (int)atomic_load(&th.live));
        if (!atomic_load(&th.failed))
            break;
        failures++;
        refusals += rc == PERF_ENOMEM;
    }
    cr_assert(failures > 20 && refusals > 15, "%d failed, %d refused", failures, refusals);
}

Test(resilience_fault, a_budget)
{
    struct test_host th;
    perf_budget *budget = NULL;
    for (int64_t i = 1; i <= 2; i++) {
        test_host_init(&th);
        atomic_store(&th.fail_at, i);
        cr_assert_eq(perf_budget_open(10, &th.host, &budget), PERF_ENOMEM);
        cr_assert_null(budget);
        cr_assert_eq(atomic_load(&th.live), 0);
    }
    atomic_store(&th.fail_at, 3);
    cr_assert_eq(perf_budget_open(10, &th.host, &budget), PERF_OK);
    perf_budget_close(budget);
}
