/* SPDX-License-Identifier: MIT */
/*
 * 06_resilience.c - a service that fails in every way, and a caller that bears it.
 *
 * Shows each part by itself (deadline, retry, breaker, bulkhead, rate limit,
 * adaptive limit, hedge, fallback) and then a policy that puts them around one
 * function. Runs in well under a second.
 */
#include <libperf/perf.h>
#include <stdio.h>
#include <time.h>

static void nap(long ms)
{
    nanosleep(&(struct timespec){0, ms * 1000000}, NULL);
}

/* ---------------------------------------------------------------- a service */

struct service {
    int broken; /* so many more requests fail */
    int asked;
};

static int ask(perf_attempt *attempt, void *ctx)
{
    struct service *service = ctx;

    (void)attempt;
    service->asked++;
    if (service->broken > 0) {
        service->broken--;
        return PERF_EUNAVAILABLE;
    }
    return PERF_OK;
}

/* ---------------------------------------------------------------- the parts */

/* What is below has 50 ms together, however patient it is by itself. */
static void show_deadline(void)
{
    perf_deadline before = PERF_DEADLINE_INIT;
    char header[21];

    perf_deadline_enter(50, NULL, &before);
    if (perf_deadline_format(header, sizeof header) == PERF_OK)
        printf("deadline: the next service is told \"%s\" ms\n", header);
    perf_deadline_leave(&before);
}

/* Two failures are nothing; a budget keeps a broken service from being asked for ever. */
static int show_retry(void)
{
    perf_retry_options options = PERF_RETRY_OPTIONS_INIT;
    struct service service = {.broken = 2};
    perf_retry *retry;

    options.base_ms = 5;
    if (perf_retry_open(&options, &retry) != PERF_OK)
        return 1;
    int rc = perf_retry_run(retry, ask, &service, 1000);
    printf("retry: %s after %d attempts, budget %d of 500\n", perf_strstatus(rc), service.asked,
           (int)perf_budget_available(perf_retry_get_budget(retry)));
    service = (struct service){.broken = 99};
    rc = perf_retry_run(retry, ask, &service, 1000);
    printf("       then: %s\n", perf_last_error());
    perf_retry_close(retry);
    return rc != PERF_EUNAVAILABLE;
}

/* Ten failures, and the service is left in peace; a probe finds it well again. */
static int show_breaker(void)
{
    perf_breaker_options options = PERF_BREAKER_OPTIONS_INIT;
    perf_breaker *breaker;
    uint64_t permit;
    int refused = 0;

    options.window_calls = 10;
    options.open_ms = 20;
    options.half_open_calls = 1;
    if (perf_breaker_open(&options, &breaker) != PERF_OK)
        return 1;
    for (int i = 0; i < 15; i++) {
        if (perf_breaker_try(breaker, &permit) == PERF_OK)
            perf_breaker_report(breaker, permit, PERF_OUTCOME_TIMEOUT, 30);
        else
            refused++;
    }
    printf("breaker: %d of 15 refused: %s\n", refused, perf_last_error());
    nap(25);
    if (perf_breaker_try(breaker, &permit) == PERF_OK)
        perf_breaker_report(breaker, permit, PERF_OUTCOME_SUCCESS, 1);
    int closed = perf_breaker_state(breaker) == PERF_BREAKER_CLOSED;
    printf("         a probe %s it\n", closed ? "closed" : "did not close");
    perf_breaker_close(breaker);
    return refused != 5 || !closed;
}

/* Two places, and who waits does so in line and not for long. */
static int show_bulkhead(void)
{
    perf_bulkhead_options options = PERF_BULKHEAD_OPTIONS_INIT;
    perf_bulkhead *bulkhead;
    int rc[3];

    options.max_concurrent = 2;
    if (perf_bulkhead_open(&options, &bulkhead) != PERF_OK)
        return 1;
    for (int i = 0; i < 3; i++)
        rc[i] = perf_bulkhead_acquire(bulkhead, 10);
    printf("bulkhead: %s, %s, %s\n", perf_strstatus(rc[0]), perf_strstatus(rc[1]),
           perf_strstatus(rc[2]));
    perf_bulkhead_release(bulkhead);
    perf_bulkhead_release(bulkhead);
    perf_bulkhead_close(bulkhead);
    return rc[2] != PERF_ETIMEDOUT;
}

/* A hundred a second, ten at once. */
static int show_rate_limit(void)
{
    perf_rate_limit_options options = PERF_RATE_LIMIT_OPTIONS_INIT;
    perf_rate_limit *limit;
    int64_t wait_ms = 0;
    int at_once = 0;

    options.permits = 100;
    options.burst = 10;
    if (perf_rate_limit_open(&options, &limit) != PERF_OK)
        return 1;
    while (perf_rate_limit_try(limit, 1) == PERF_OK)
        at_once++;
    for (int i = 0; i < 5; i++)
        perf_rate_limit_reserve(limit, 1, -1, &wait_ms);
    printf("rate limit: %d at once, the fifth after that in %d ms\n", at_once, (int)wait_ms);
    perf_rate_limit_close(limit);
    return at_once < 10 || wait_ms > 50;
}

/* Every call fails for being too much: the limit goes down, and nobody had to set it. */
static int show_adaptive_limit(void)
{
    perf_adaptive_limit_options options = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_adaptive_limit_stats stats = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    perf_adaptive_limit *limit;
    uint64_t permit;

    options.window_ms = 1;
    if (perf_adaptive_limit_open(&options, &limit) != PERF_OK)
        return 1;
    for (int i = 0; i < 100; i++) {
        if (perf_adaptive_limit_try(limit, &permit) == PERF_OK)
            perf_adaptive_limit_release(limit, permit, PERF_OUTCOME_THROTTLED);
        if (i % 10 == 0)
            nap(2);
    }
    perf_adaptive_limit_get_stats(limit, &stats);
    printf("adaptive limit: from 20 to %d\n", (int)stats.limit);
    perf_adaptive_limit_close(limit);
    return stats.limit >= 20;
}

/* The first request has bad luck; the second one, 5 ms later, has not. */
static int slow_or_not(perf_attempt *attempt, void *ctx)
{
    const char **answer = ctx;

    for (int i = 0; !perf_attempt_is_hedge(attempt) && i < 100; i++) {
        if (perf_attempt_cancelled(attempt))
            return PERF_ECANCELED;
        nap(1);
    }
    int rc = perf_attempt_commit(attempt);
    if (rc == PERF_OK) /* the only one that writes */
        *answer = perf_attempt_is_hedge(attempt) ? "the second" : "the first";
    return rc;
}

static int show_hedge(void)
{
    perf_hedge_options options = PERF_HEDGE_OPTIONS_INIT;
    const char *answer = "nobody";
    perf_hedge *hedge;

    options.delay_ms = 5;
    if (perf_hedge_open(&options, &hedge) != PERF_OK)
        return 1;
    int rc = perf_hedge_run(hedge, slow_or_not, &answer, 1000);
    printf("hedge: %s, %s request won\n", perf_strstatus(rc), answer);
    perf_hedge_close(hedge);
    return rc != PERF_OK;
}

/* ------------------------------------------------------------ put together */

static int make_do(void *ctx, void *call_ctx, int status)
{
    (void)call_ctx;
    printf("  %s: %s\n", (const char *)ctx, perf_strerror(status));
    return PERF_OK;
}

static int show_policy(void)
{
    perf_policy_options options = PERF_POLICY_OPTIONS_INIT;
    perf_retry_options retrying = PERF_RETRY_OPTIONS_INIT;
    perf_fallback fallback = PERF_FALLBACK_INIT;
    struct service service = {.broken = 1000};
    perf_policy *policy = NULL;
    char what[] = "yesterday's answer";
    int rc;

    fallback.fn = make_do;
    fallback.ctx = what;
    retrying.base_ms = 1;
    options.fallback = &fallback;
    options.timeout_ms = 200;
    if ((rc = perf_retry_open(&retrying, &options.retry)) ||
        (rc = perf_breaker_open(NULL, &options.breaker)) ||
        (rc = perf_bulkhead_open(NULL, &options.bulkhead)) ||
        (rc = perf_policy_open(&options, &policy)))
        goto out;
    puts("policy: fallback, deadline, retry, breaker, bulkhead");
    rc = perf_policy_run(policy, ask, &service, 0);
    printf("  broken: %s by the fallback, after %d attempts\n", perf_strstatus(rc), service.asked);
    service = (struct service){.broken = 1};
    rc = perf_policy_run(policy, ask, &service, 0);
    printf("  well: %s after %d attempts\n", perf_strstatus(rc), service.asked);
out:
    perf_policy_close(policy);
    perf_bulkhead_close(options.bulkhead);
    perf_breaker_close(options.breaker);
    perf_retry_close(options.retry);
    return rc != PERF_OK;
}

int main(void)
{
    show_deadline();
    return show_retry() || show_breaker() || show_bulkhead() || show_rate_limit() ||
           show_adaptive_limit() || show_hedge() || show_policy();
}
