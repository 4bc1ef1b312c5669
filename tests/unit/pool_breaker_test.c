/* SPDX-License-Identifier: MIT */
/* breaker.c and window.c: the state machine under a clock that the test moves. */
#include <libperf/resilience.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

struct seen {
    int count;
    perf_breaker_change last;
    perf_breaker *breaker;
};

static void note(void *ctx, const perf_breaker_change *change)
{
    struct seen *seen = ctx;
    seen->count++;
    seen->last = *change;
    if (seen->breaker) /* no lock is held: it may ask back */
        cr_assert_eq(perf_breaker_state(seen->breaker), (int)change->to);
}

static perf_breaker *open_breaker(struct test_host *th, perf_breaker_options o)
{
    perf_breaker *breaker = NULL;
    o.struct_size = sizeof o;
    o.host = test_host_init(th);
    cr_assert_eq(perf_breaker_open(&o, &breaker), PERF_OK, "%s", perf_last_error());
    return breaker;
}

/* One call with this outcome; returns what try said. */
static int call_it(perf_breaker *breaker, int64_t kind, int64_t ms)
{
    uint64_t permit = 0;
    int rc = perf_breaker_try(breaker, &permit);
    if (!rc) {
        cr_assert_neq(permit, 0);
        perf_breaker_report(breaker, permit, kind, ms);
    }
    return rc;
}

static void calls(perf_breaker *breaker, int n, int64_t kind)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(call_it(breaker, kind, 1), PERF_OK, "call %d of %d", i, n);
}

static perf_breaker_stats stats_of(perf_breaker *breaker)
{
    perf_breaker_stats stats = PERF_BREAKER_STATS_INIT;
    cr_assert_eq(perf_breaker_get_stats(breaker, &stats), PERF_OK);
    return stats;
}

Test(pool_breaker, defaults_of_resilience4j)
{
    struct test_host th;
    perf_breaker *b = open_breaker(&th, (perf_breaker_options){0});
    calls(b, 50, PERF_OUTCOME_SUCCESS);
    calls(b, 49, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED, "99 calls are too few");
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN, "50 of 100");
    cr_assert_eq(stats_of(b).until_probe_ms, 60000);
    cr_assert_eq(call_it(b, 0, 0), PERF_EREJECTED);
    cr_assert(strstr(perf_last_error(), "60000 ms"), "%s", perf_last_error());
    test_host_advance(&th, 59999);
    cr_assert_eq(call_it(b, 0, 0), PERF_EREJECTED);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    test_host_advance(&th, 1);
    uint64_t permits[11];
    for (int i = 0; i < 10; i++)
        cr_assert_eq(perf_breaker_try(b, &permits[i]), PERF_OK);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN);
    cr_assert_eq(perf_breaker_try(b, &permits[10]), PERF_EREJECTED, "ten probes are out");
    for (int i = 0; i < 5; i++)
        perf_breaker_report(b, permits[i], PERF_OUTCOME_SUCCESS, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN, "five could still fail");
    perf_breaker_report(b, permits[5], PERF_OUTCOME_SUCCESS, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED, "four failures of ten are too few");
    perf_breaker_report(b, permits[6], PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_stats s = stats_of(b);
    cr_assert_eq(s.late, 1);
    cr_assert_eq(s.window_calls, 0, "a probe's late report does not count now");
    cr_assert(s.opened == 1 && s.rejected == 3 && s.permitted == 110);
    perf_breaker_close(b);
}

Test(pool_breaker, the_count_window_is_the_last_calls_exactly)
{
    struct test_host th;
    perf_breaker *b = open_breaker(&th, (perf_breaker_options){.window_calls = 10});
    calls(b, 4, PERF_OUTCOME_TRANSIENT);
    calls(b, 6, PERF_OUTCOME_SUCCESS);
    cr_assert_eq(stats_of(b).window_failures, 4);
    calls(b, 2, PERF_OUTCOME_SUCCESS); /* two failures leave the window */
    cr_assert_eq(stats_of(b).window_failures, 2);
    calls(b, 2, PERF_OUTCOME_SUCCESS);
    cr_assert_eq(stats_of(b).window_failures, 0);
    calls(b, 4, PERF_OUTCOME_TIMEOUT);
    cr_assert_eq(stats_of(b).window_failures, 4);
    cr_assert_eq(stats_of(b).window_calls, 10);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    perf_breaker_close(b);
}

/* Any sequence of outcomes: the window must agree with counting by hand. */
Test(pool_breaker, the_count_window_agrees_with_counting_by_hand)
{
    struct test_host th;
    enum { N = 37, CALLS = 3000 };
    perf_breaker *b = open_breaker(
        &th, (perf_breaker_options){.window_calls = N, .failure_percent = 100, .slow_ms = 10});
    int failed[CALLS], slow[CALLS];
    uint32_t random = 12345;
    for (int i = 0; i < CALLS; i++) {
        random = random * 1664525 + 1013904223;
        failed[i] = random >> 30 == 0;
        slow[i] = (random >> 20 & 7) == 0;
        call_it(b, failed[i] ? PERF_OUTCOME_TRANSIENT : PERF_OUTCOME_SUCCESS, slow[i] ? 11 : 10);
        uint64_t f = 0, s = 0;
        for (int k = i; k >= 0 && k > i - N; k--) {
            f += (uint64_t)failed[k];
            s += (uint64_t)slow[k];
        }
        perf_breaker_stats stats = stats_of(b);
        cr_assert(stats.window_failures == f && stats.window_slow == s, "after call %d", i);
        cr_assert_eq(stats.window_calls, (uint64_t)(i < N ? i + 1 : N));
    }
    perf_breaker_close(b);
}

Test(pool_breaker, the_time_window_forgets)
{
    struct test_host th;
    perf_breaker *b = open_breaker(&th, (perf_breaker_options){.window = PERF_BREAKER_TIME,
                                                               .window_ms = 16000,
                                                               .minimum_calls = 10});
    calls(b, 9, PERF_OUTCOME_TRANSIENT);
    test_host_advance(&th, 15000);
    cr_assert_eq(stats_of(b).window_calls, 9);
    test_host_advance(&th, 1000);
    cr_assert_eq(stats_of(b).window_calls, 0, "sixteen slices later they are gone");
    for (int i = 0; i < 12; i++) { /* one a second: eight of them failures, spread */
        calls(b, 1, i % 3 ? PERF_OUTCOME_TRANSIENT : PERF_OUTCOME_SUCCESS);
        test_host_advance(&th, 1000);
        if (perf_breaker_state(b) == PERF_BREAKER_OPEN) {
            cr_assert_eq(i, 9, "the tenth call is the first that counts");
            break;
        }
    }
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    perf_breaker_close(b);
}

Test(pool_breaker, a_busy_slice_keeps_its_shares)
{
    struct test_host th;
    perf_breaker *b = open_breaker(&th, (perf_breaker_options){.window = PERF_BREAKER_TIME,
                                                               .minimum_calls = 100,
                                                               .failure_percent = 30});
    for (int i = 0; i < 300000; i++)
        call_it(b, i % 4 ? PERF_OUTCOME_SUCCESS : PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_stats s = stats_of(b);
    cr_assert_eq(s.state, PERF_BREAKER_CLOSED);
    double share = (double)s.window_failures / (double)s.window_calls;
    cr_assert(share > 0.249 && share < 0.251, "%f", share);
    calls(b, 1, PERF_OUTCOME_SUCCESS);
    for (int i = 0; i < 10000 && perf_breaker_state(b) == PERF_BREAKER_CLOSED; i++)
        call_it(b, PERF_OUTCOME_TRANSIENT, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    perf_breaker_close(b);
}

Test(pool_breaker, what_counts_as_a_failure)
{
    static const struct {
        int64_t kind;
        int failure;
    } all[] = {{PERF_OUTCOME_SUCCESS, 0},
               {PERF_OUTCOME_TRANSIENT, 1},
               {PERF_OUTCOME_TIMEOUT, 1},
               {PERF_OUTCOME_THROTTLED, 0},
               {PERF_OUTCOME_PERMANENT, 0},
               {PERF_OUTCOME_REJECTED, -1},
               {PERF_OUTCOME_IGNORED, -1},
               {99, -1},
               {-1, -1}};
    struct test_host th;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        perf_breaker *b = open_breaker(&th, (perf_breaker_options){0});
        calls(b, 1, all[i].kind);
        perf_breaker_stats s = stats_of(b);
        cr_assert_eq(s.window_calls, all[i].failure >= 0, "kind %d", (int)all[i].kind);
        cr_assert_eq(s.window_failures, all[i].failure > 0, "kind %d", (int)all[i].kind);
        perf_breaker_close(b);
    }
    perf_breaker *b =
        open_breaker(&th, (perf_breaker_options){.failure_kinds = 1 << PERF_OUTCOME_PERMANENT});
    calls(b, 1, PERF_OUTCOME_PERMANENT);
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    cr_assert(stats_of(b).window_calls == 2 && stats_of(b).window_failures == 1);
    perf_breaker_close(b);
}

Test(pool_breaker, slow_calls_open_it_too)
{
    struct test_host th;
    perf_breaker *b = open_breaker(
        &th, (perf_breaker_options){.window_calls = 10, .slow_ms = 100, .slow_percent = 80});
    for (int i = 0; i < 7; i++)
        call_it(b, PERF_OUTCOME_SUCCESS, 101);
    for (int i = 0; i < 3; i++)
        call_it(b, PERF_OUTCOME_SUCCESS, 100); /* not slower than slow_ms */
    cr_assert(stats_of(b).window_slow == 7 && stats_of(b).state == PERF_BREAKER_CLOSED);
    for (int i = 0; i < 7; i++)
        call_it(b, PERF_OUTCOME_SUCCESS, 101);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED, "slow ones left as slow ones came");
    call_it(b, PERF_OUTCOME_SUCCESS, 101);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    perf_breaker_close(b);
}

Test(pool_breaker, failing_probes_open_it_again_and_longer)
{
    struct test_host th;
    static const int64_t waits[] = {1000, 2000, 4000, 5000, 5000};
    perf_breaker *b = open_breaker(
        &th, (perf_breaker_options){
                 .window_calls = 4, .half_open_calls = 4, .open_ms = 1000, .open_max_ms = 5000});
    calls(b, 4, PERF_OUTCOME_TRANSIENT);
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
        cr_assert_eq(stats_of(b).until_probe_ms, waits[i], "round %zu", i);
        test_host_advance(&th, waits[i] - 1);
        cr_assert_eq(call_it(b, 0, 0), PERF_EREJECTED);
        test_host_advance(&th, 1);
        calls(b, 2, PERF_OUTCOME_TIMEOUT); /* half of four */
    }
    test_host_advance(&th, 5000);
    calls(b, 3, PERF_OUTCOME_SUCCESS); /* then even the fourth could not open it */
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    calls(b, 4, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(stats_of(b).until_probe_ms, 1000, "it begins anew");
    cr_assert_eq(stats_of(b).opened, 7);
    perf_breaker_close(b);
}

Test(pool_breaker, late_results_do_not_count)
{
    struct test_host th;
    perf_breaker *b =
        open_breaker(&th, (perf_breaker_options){.window_calls = 2, .half_open_calls = 1});
    uint64_t old[8], probe;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(perf_breaker_try(b, &old[i]), PERF_OK);
    perf_breaker_report(b, old[0], PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_report(b, old[1], PERF_OUTCOME_TRANSIENT, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    perf_breaker_report(b, old[2], PERF_OUTCOME_SUCCESS, 1); /* open */
    test_host_advance(&th, 60000);
    cr_assert_eq(perf_breaker_try(b, &probe), PERF_OK);
    perf_breaker_report(b, old[3], PERF_OUTCOME_TRANSIENT, 1); /* half open */
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN);
    perf_breaker_report(b, probe, PERF_OUTCOME_SUCCESS, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    for (int i = 4; i < 8; i++) /* closed again: they belong to the first time */
        perf_breaker_report(b, old[i], PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_report(b, probe, PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_report(b, 0, PERF_OUTCOME_TRANSIENT, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    cr_assert_eq(stats_of(b).window_calls, 0);
    cr_assert_eq(stats_of(b).late, 7);
    perf_breaker_close(b);
}

Test(pool_breaker, an_unused_probe_is_free_again)
{
    struct test_host th;
    perf_breaker *b =
        open_breaker(&th, (perf_breaker_options){.window_calls = 1, .half_open_calls = 2});
    uint64_t permit;
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    test_host_advance(&th, 60000);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(perf_breaker_try(b, &permit), PERF_OK, "round %d", i);
        if (i % 2)
            perf_breaker_release(b, permit);
        else
            perf_breaker_report(b, permit, PERF_OUTCOME_IGNORED, 1);
        perf_breaker_release(b, permit); /* twice is once */
    }
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN);
    calls(b, 2, PERF_OUTCOME_SUCCESS);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    cr_assert_eq(perf_breaker_try(b, &permit), PERF_OK);
    perf_breaker_release(b, permit); /* while closed it is nothing */
    cr_assert_eq(stats_of(b).window_calls, 0);
    perf_breaker_close(b);
}

Test(pool_breaker, a_vanished_probe_is_given_to_another)
{
    struct test_host th;
    perf_breaker *b = open_breaker(
        &th,
        (perf_breaker_options){.window_calls = 1, .half_open_calls = 1, .probe_timeout_ms = 500});
    uint64_t lost, probe;
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    test_host_advance(&th, 60000);
    cr_assert_eq(perf_breaker_try(b, &lost), PERF_OK);
    test_host_advance(&th, 499);
    cr_assert_eq(perf_breaker_try(b, &probe), PERF_EREJECTED);
    test_host_advance(&th, 1);
    cr_assert_eq(perf_breaker_try(b, &probe), PERF_OK);
    cr_assert_neq(lost, probe);
    perf_breaker_report(b, lost, PERF_OUTCOME_TRANSIENT, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN, "it had its time");
    perf_breaker_report(b, probe, PERF_OUTCOME_SUCCESS, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_CLOSED);
    cr_assert(stats_of(b).lost_probes == 1 && stats_of(b).late == 1);
    perf_breaker_close(b);
}

Test(pool_breaker, forced)
{
    struct test_host th;
    perf_breaker *b = open_breaker(&th, (perf_breaker_options){.window_calls = 2});
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_FORCED_OPEN), PERF_OK);
    test_host_advance(&th, 86400000);
    cr_assert_eq(call_it(b, 0, 0), PERF_EREJECTED, "whatever the time");
    cr_assert(strstr(perf_last_error(), "forced"), "%s", perf_last_error());
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_DISABLED), PERF_OK);
    calls(b, 100, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_DISABLED);
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_OPEN), PERF_OK);
    cr_assert_eq(call_it(b, 0, 0), PERF_EREJECTED);
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_HALF_OPEN), PERF_OK);
    cr_assert_eq(call_it(b, PERF_OUTCOME_SUCCESS, 1), PERF_OK);
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_CLOSED), PERF_OK);
    calls(b, 2, PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_OPEN);
    cr_assert_eq(perf_breaker_force(b, 5), PERF_EINVAL);
    cr_assert_eq(perf_breaker_force(b, -1), PERF_EINVAL);
    perf_breaker_close(b);
}

Test(pool_breaker, tells_of_changes)
{
    struct test_host th;
    struct seen seen = {0};
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    perf_breaker *b = open_breaker(
        &th, (perf_breaker_options){
                 .window_calls = 1, .half_open_calls = 1, .on_change = note, .ctx = &seen});
    seen.breaker = b;
    cr_assert_eq(perf_breaker_poll_change(b, &change), PERF_MISS);
    calls(b, 1, PERF_OUTCOME_TRANSIENT);
    cr_assert(seen.count == 1 && seen.last.from == PERF_BREAKER_CLOSED &&
              seen.last.to == PERF_BREAKER_OPEN);
    cr_assert_eq(seen.last.time_ms, atomic_load(&th.realtime_ms));
    test_host_advance(&th, 60000);
    seen.breaker = NULL;
    calls(b, 1, PERF_OUTCOME_SUCCESS);
    cr_assert_eq(seen.count, 3);
    static const int64_t path[] = {PERF_BREAKER_CLOSED, PERF_BREAKER_OPEN, PERF_BREAKER_HALF_OPEN,
                                   PERF_BREAKER_CLOSED};
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert_eq(perf_breaker_poll_change(b, &change), PERF_OK);
        cr_assert(change.sequence == i + 1 && change.from == path[i] && change.to == path[i + 1]);
    }
    cr_assert_eq(perf_breaker_poll_change(b, &change), PERF_MISS);
    for (int i = 0; i < 40; i++)
        perf_breaker_force(b, i % 2 ? PERF_BREAKER_CLOSED : PERF_BREAKER_FORCED_OPEN);
    cr_assert_eq(stats_of(b).lost_changes, 8);
    cr_assert_eq(perf_breaker_poll_change(b, &change), PERF_OK);
    cr_assert_eq(change.sequence, 12, "the oldest of the last 32");
    perf_breaker_close(b);
}

Test(pool_breaker, misuse)
{
    perf_breaker *b = NULL;
    perf_breaker_stats stats = {0};
    uint64_t permit = 0;
#define REFUSED(field, value)                                                  \
    do {                                                                       \
        perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;                    \
        o.field = value;                                                       \
        cr_assert_eq(perf_breaker_open(&o, &b), PERF_EINVAL);                  \
        cr_assert(strstr(perf_last_error(), #field), "%s", perf_last_error()); \
    } while (0)
    REFUSED(window, 2);
    REFUSED(window_calls, 32768);
    REFUSED(window_ms, 15);
    REFUSED(minimum_calls, -1);
    REFUSED(failure_percent, 101);
    REFUSED(slow_ms, -1);
    REFUSED(slow_percent, 101);
    REFUSED(half_open_calls, 1001);
    REFUSED(open_ms, -1);
    REFUSED(open_max_ms, 59999);
    REFUSED(probe_timeout_ms, -1);
    REFUSED(failure_kinds, 128);
    cr_assert_eq(perf_breaker_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_breaker_open(NULL, &b), PERF_OK);
    cr_assert_eq(perf_breaker_try(b, NULL), PERF_EINVAL);
    cr_assert_eq(perf_breaker_try(NULL, &permit), PERF_EINVAL);
    cr_assert_eq(perf_breaker_state(NULL), PERF_EINVAL);
    cr_assert_eq(perf_breaker_force(NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_breaker_get_stats(b, &stats), PERF_EINVAL);
    cr_assert_eq(perf_breaker_poll_change(b, NULL), PERF_EINVAL);
    perf_breaker_report(NULL, 1, 0, 0);
    perf_breaker_release(NULL, 1);
    perf_breaker_report(b, UINT64_MAX, PERF_OUTCOME_TRANSIENT, 1); /* nobody's */
    cr_assert_eq(perf_breaker_force(b, PERF_BREAKER_HALF_OPEN), PERF_OK);
    perf_breaker_report(b, UINT64_MAX, PERF_OUTCOME_TRANSIENT, 1);
    perf_breaker_report(b, UINT64_C(0xffff000000000001), PERF_OUTCOME_TRANSIENT, 1);
    cr_assert_eq(perf_breaker_state(b), PERF_BREAKER_HALF_OPEN);
    perf_breaker_close(b);
    cr_assert_eq(perf_breaker_close(NULL), PERF_OK);
}

#ifndef TEST_WITHOUT_CRITERION
Test(pool_breaker, a_forked_child_opens_its_own)
{
    perf_breaker *b;
    perf_bulkhead *k;
    perf_rate_limit *r;
    perf_adaptive_limit *a;
    perf_hedge *h;
    perf_policy *p;
    uint64_t permit;
    cr_assert_eq(perf_breaker_open(NULL, &b), PERF_OK);
    cr_assert_eq(perf_bulkhead_open(NULL, &k), PERF_OK);
    cr_assert_eq(perf_rate_limit_open(NULL, &r), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_open(NULL, &a), PERF_OK);
    cr_assert_eq(perf_hedge_open(NULL, &h), PERF_OK);
    cr_assert_eq(perf_policy_open(NULL, &p), PERF_OK);
    pid_t child = fork();
    if (!child) {
        int64_t ms;
        int bad = perf_breaker_try(b, &permit) != PERF_EFORKED;
        bad |= perf_breaker_state(b) != PERF_EFORKED;
        bad |= perf_bulkhead_acquire(k, -1) != PERF_EFORKED;
        bad |= perf_rate_limit_try(r, 1) != PERF_EFORKED;
        bad |= perf_adaptive_limit_try(a, &permit) != PERF_EFORKED;
        bad |= perf_hedge_delay_ms(h, &ms) != PERF_EFORKED;
        bad |= perf_policy_run(p, NULL, NULL, 0) != PERF_EFORKED;
        perf_bulkhead_release(k);
        bad |= perf_breaker_close(b) || perf_bulkhead_close(k) || perf_rate_limit_close(r) ||
               perf_adaptive_limit_close(a) || perf_hedge_close(h) || perf_policy_close(p);
        _exit(bad);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    perf_breaker_close(b);
    perf_bulkhead_close(k);
    perf_rate_limit_close(r);
    perf_adaptive_limit_close(a);
    perf_hedge_close(h);
    perf_policy_close(p);
}
#endif
