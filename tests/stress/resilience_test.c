/* SPDX-License-Identifier: MIT */
/*
 * resilience_test.c - eight threads on each part at once. What must hold at
 * every moment is watched while they run; what must come out, afterwards.
 */
#include <libperf/resilience.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "../../src/base/thread.h"
#include "test.h"

enum { THREADS = 8, ROUNDS = 20000 };

static void on_all_threads(void *(*body)(void *), void *ctx)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, body, ctx), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void nap_us(long us)
{
    nanosleep(&(struct timespec){0, us * 1000}, NULL);
}

/* -------------------------------------------------------------------- budget */

static void *use_budget(void *ctx)
{
    perf_budget *budget = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t amount = (int64_t)(perf__thread_random() % 40) + 1;
        int taken = perf_budget_take(budget, amount) == PERF_OK;
        int64_t left = perf_budget_available(budget);
        cr_assert(left >= 0 && left <= 100, "%d", (int)left);
        if (taken)
            perf_budget_give(budget, amount);
        else
            perf_budget_give(budget, 1); /* beyond what was taken: the capacity holds it */
    }
    return NULL;
}

Test(resilience, the_budget_stays_within_its_bounds)
{
    perf_budget *budget;
    cr_assert_eq(perf_budget_open(100, NULL, &budget), PERF_OK);
    on_all_threads(use_budget, budget);
    cr_assert_eq(perf_budget_available(budget), 100, "all was given back");
    perf_budget_close(budget);
}

/* --------------------------------------------------------------------- retry */

static void *use_retry(void *ctx)
{
    perf_retry *retry = ctx;
    for (int i = 0; i < ROUNDS / 4; i++) {
        perf_retry_call call = PERF_RETRY_CALL_INIT;
        perf_outcome outcome = PERF_OUTCOME_INIT;
        int64_t ms;
        cr_assert_eq(perf_retry_begin(retry, 0, 0, &call), PERF_OK);
        do {
            cr_assert_eq(perf_retry_acquire(&call, &ms), PERF_OK);
            cr_assert_geq(ms, 0);
            outcome.kind = (int64_t)(perf__thread_random() % 5); /* SUCCESS ... PERMANENT */
        } while (perf_retry_next(&call, &outcome, &ms) == PERF_OK);
        cr_assert_neq(call.reason, PERF_RETRY_AGAIN);
        perf_retry_end(&call);
    }
    return NULL;
}

Test(resilience, retries_add_up)
{
    perf_retry_options o = PERF_RETRY_OPTIONS_INIT;
    perf_retry_stats s = PERF_RETRY_STATS_INIT;
    perf_retry *retry;
    o.mode = PERF_RETRY_ADAPTIVE;
    cr_assert_eq(perf_retry_open(&o, &retry), PERF_OK);
    on_all_threads(use_retry, retry);
    perf_retry_get_stats(retry, &s);
    cr_assert_eq(s.calls, (uint64_t)THREADS * (ROUNDS / 4));
    cr_assert_eq(s.attempts, s.calls + s.retries);
    cr_assert_eq(s.calls, s.succeeded_first + s.succeeded_later + s.not_retryable +
                              s.out_of_attempts + s.out_of_budget + s.out_of_time);
    cr_assert(s.budget_available >= 0 && s.budget_available <= 500);
    cr_assert_gt(s.out_of_budget, 0, "most of it fails, so the budget must have run dry");
    perf_retry_close(retry);
}

/* ------------------------------------------------------------------- breaker */

struct probing {
    perf_breaker *breaker;
    _Atomic int out, most, granted;
};

static void *take_probes(void *ctx)
{
    struct probing *p = ctx;
    for (int i = 0; i < ROUNDS / 10; i++) {
        uint64_t permit;
        if (perf_breaker_try(p->breaker, &permit))
            continue;
        int out = ++p->out, most = p->most;
        while (out > most && !atomic_compare_exchange_weak(&p->most, &most, out))
            ;
        p->granted++;
        if (perf__thread_random() % 2)
            nap_us(20);
        p->out--;
        perf_breaker_release(p->breaker, permit); /* never decides: it stays half open */
    }
    return NULL;
}

Test(resilience, half_open_lets_no_more_than_its_probes_pass)
{
    struct probing p = {0};
    perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;
    o.half_open_calls = 3;
    cr_assert_eq(perf_breaker_open(&o, &p.breaker), PERF_OK);
    perf_breaker_force(p.breaker, PERF_BREAKER_HALF_OPEN);
    on_all_threads(take_probes, &p);
    cr_assert(p.most >= 1 && p.most <= 3, "%d at once", p.most);
    cr_assert_gt(p.granted, 100);
    uint64_t permits[4];
    for (int i = 0; i < 3; i++) /* none was lost */
        cr_assert_eq(perf_breaker_try(p.breaker, &permits[i]), PERF_OK);
    cr_assert_eq(perf_breaker_try(p.breaker, &permits[3]), PERF_EREJECTED);
    perf_breaker_close(p.breaker);
}

struct crowd {
    perf_breaker *breaker;
    _Atomic uint64_t permitted, rejected, changes;
    _Atomic int failing;
};

static void count_change(void *ctx, const perf_breaker_change *change)
{
    struct crowd *c = ctx;
    cr_assert_neq(change->from, change->to);
    c->changes++;
}

static void *use_breaker(void *ctx)
{
    struct crowd *c = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t permit;
        if (perf_breaker_try(c->breaker, &permit)) {
            c->rejected++;
            nap_us(50);
            if (i > ROUNDS / 10)
                i += 20;
            continue;
        }
        c->permitted++;
        int bad = (i / 500) % 3 == 2; /* failures come in bursts */
        perf_breaker_report(c->breaker, permit, bad ? PERF_OUTCOME_TIMEOUT : PERF_OUTCOME_SUCCESS,
                            1);
        if (i % 5000 == 0) {
            perf_breaker_stats s = PERF_BREAKER_STATS_INIT;
            perf_breaker_get_stats(c->breaker, &s);
        }
    }
    return NULL;
}

static void crowd_on(int64_t window)
{
    struct crowd c = {0};
    perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;
    perf_breaker_stats s = PERF_BREAKER_STATS_INIT;
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    o.window = window;
    o.window_calls = 20;
    o.window_ms = 32;
    o.minimum_calls = 20;
    o.failure_percent = 30; /* a third of all calls fail */
    o.half_open_calls = 5;
    o.open_ms = 1;
    o.on_change = count_change;
    o.ctx = &c;
    cr_assert_eq(perf_breaker_open(&o, &c.breaker), PERF_OK);
    on_all_threads(use_breaker, &c);
    perf_breaker_get_stats(c.breaker, &s);
    cr_assert_eq(s.permitted, c.permitted);
    cr_assert_eq(s.rejected, c.rejected);
    cr_assert_eq(s.permitted, s.succeeded + s.failed + s.late, "each report is counted once");
    cr_assert_gt(s.opened, 0);
    cr_assert(s.window_calls <= (window ? c.permitted : 20) && s.window_failures <= s.window_calls);
    uint64_t fetched = 0, last = 0;
    int64_t state = -1;
    while (perf_breaker_poll_change(c.breaker, &change) == PERF_OK) {
        cr_assert_gt(change.sequence, last);
        cr_assert(state < 0 || change.from == state, "changes follow on each other");
        state = change.to;
        last = change.sequence;
        fetched++;
    }
    cr_assert_eq(fetched + s.lost_changes, c.changes);
    cr_assert_eq(state, s.state);
    perf_breaker_close(c.breaker);
}

Test(resilience, a_crowd_on_a_breaker_by_count)
{
    crowd_on(PERF_BREAKER_COUNT);
}

Test(resilience, a_crowd_on_a_breaker_by_time)
{
    crowd_on(PERF_BREAKER_TIME);
}

/* Nothing is lost in the ring: when all is quiet, its sums are those of its places. */
static void *fill_window(void *ctx)
{
    perf_breaker *breaker = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t permit;
        cr_assert_eq(perf_breaker_try(breaker, &permit), PERF_OK);
        perf_breaker_report(
            breaker, permit,
            perf__thread_random() % 4 ? PERF_OUTCOME_SUCCESS : PERF_OUTCOME_TRANSIENT, 1);
    }
    return NULL;
}

Test(resilience, the_sums_of_a_ring_come_out_even)
{
    perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;
    perf_breaker_stats s = PERF_BREAKER_STATS_INIT;
    perf_breaker *breaker;
    uint64_t permit;
    o.window_calls = 64;
    o.failure_percent = 100;
    cr_assert_eq(perf_breaker_open(&o, &breaker), PERF_OK);
    on_all_threads(fill_window, breaker);
    perf_breaker_get_stats(breaker, &s);
    cr_assert(s.window_calls == 64 && s.window_failures > 0 && s.window_failures < 40, "%d of %d",
              (int)s.window_failures, (int)s.window_calls);
    for (int i = 0; i < 64; i++) { /* a round of successes must bring it to exactly nothing */
        cr_assert_eq(perf_breaker_try(breaker, &permit), PERF_OK);
        perf_breaker_report(breaker, permit, PERF_OUTCOME_SUCCESS, 1);
    }
    perf_breaker_get_stats(breaker, &s);
    cr_assert(s.window_calls == 64 && s.window_failures == 0, "%d of %d", (int)s.window_failures,
              (int)s.window_calls);
    perf_breaker_close(breaker);
}

/* ------------------------------------------------------------------ bulkhead */

struct house {
    perf_bulkhead *bulkhead;
    _Atomic int inside, most, entered, refused;
};

static void *visit(void *ctx)
{
    struct house *h = ctx;
    for (int i = 0; i < ROUNDS / 10; i++) {
        int64_t timeout = (int64_t)(perf__thread_random() % 3) - 1; /* -1, 0, 1 ms */
        if (perf_bulkhead_acquire(h->bulkhead, timeout)) {
            h->refused++;
            continue;
        }
        int inside = ++h->inside, most = h->most;
        while (inside > most && !atomic_compare_exchange_weak(&h->most, &most, inside))
            ;
        h->entered++;
        if (i % 16 == 0)
            nap_us(50);
        h->inside--;
        perf_bulkhead_release(h->bulkhead);
    }
    return NULL;
}

Test(resilience, never_more_inside_than_places_and_none_lost)
{
    struct house h = {0};
    perf_bulkhead_options o = PERF_BULKHEAD_OPTIONS_INIT;
    perf_bulkhead_stats s = PERF_BULKHEAD_STATS_INIT;
    o.max_concurrent = 3;
    cr_assert_eq(perf_bulkhead_open(&o, &h.bulkhead), PERF_OK);
    on_all_threads(visit, &h);
    cr_assert_leq(h.most, 3);
    perf_bulkhead_get_stats(h.bulkhead, &s);
    cr_assert(s.in_use == 0 && s.waiting == 0);
    cr_assert_eq(s.acquired, (uint64_t)h.entered);
    cr_assert_eq(s.rejected + s.timed_out, (uint64_t)h.refused);
    cr_assert_gt(s.waited, 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(perf_bulkhead_acquire(h.bulkhead, 0), PERF_OK);
    cr_assert_eq(perf_bulkhead_acquire(h.bulkhead, 0), PERF_EREJECTED);
    perf_bulkhead_close(h.bulkhead);
}

/* ----------------------------------------------------------- rate and limit */

struct tap {
    perf_rate_limit *limit;
    _Atomic int64_t taken;
};

static void *drink(void *ctx)
{
    struct tap *tap = ctx;
    for (int i = 0; i < ROUNDS; i++)
        if (perf_rate_limit_try(tap->limit, 1) == PERF_OK)
            tap->taken++;
    return NULL;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

Test(resilience, a_rate_holds_for_all_threads_together)
{
    struct tap tap = {0};
    perf_rate_limit_options o = PERF_RATE_LIMIT_OPTIONS_INIT;
    o.permits = 10000;
    o.burst = 100;
    int64_t start = now_ns();
    cr_assert_eq(perf_rate_limit_open(&o, &tap.limit), PERF_OK);
    on_all_threads(drink, &tap);
    int64_t took = now_ns() - start, most = 100 + took / 100000 + 1;
    cr_assert(tap.taken >= 100 && tap.taken <= most, "%d of %d", (int)tap.taken, (int)most);
    perf_rate_limit_close(tap.limit);
}

struct door {
    perf_adaptive_limit *limit;
    _Atomic int inside, most;
};

static void *pass(void *ctx)
{
    struct door *d = ctx;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t permit;
        if (perf_adaptive_limit_try(d->limit, &permit))
            continue;
        int inside = ++d->inside, most = d->most;
        while (inside > most && !atomic_compare_exchange_weak(&d->most, &most, inside))
            ;
        d->inside--;
        perf_adaptive_limit_release(d->limit, permit,
                                    i % 100 ? PERF_OUTCOME_SUCCESS : PERF_OUTCOME_TIMEOUT);
    }
    return NULL;
}

Test(resilience, an_adaptive_limit_holds_while_it_moves)
{
    struct door d = {0};
    perf_adaptive_limit_options o = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_adaptive_limit_stats s = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    o.max = 4;
    o.window_ms = 1;
    cr_assert_eq(perf_adaptive_limit_open(&o, &d.limit), PERF_OK);
    on_all_threads(pass, &d);
    perf_adaptive_limit_get_stats(d.limit, &s);
    cr_assert(d.most <= 4 && s.in_flight == 0 && s.limit >= 1 && s.limit <= 4);
    cr_assert_eq(s.permitted + s.rejected, (uint64_t)THREADS * ROUNDS);
    perf_adaptive_limit_close(d.limit);
}

/* --------------------------------------------------------------------- hedge */

struct race {
    _Atomic int commits, ended, begun;
};

static int compete(perf_attempt *attempt, void *ctx)
{
    struct race *race = ctx;
    race->begun++;
    nap_us((long)(perf__thread_random() % 3000));
    int rc = perf_attempt_commit(attempt);
    if (!rc)
        race->commits++;
    race->ended++;
    return rc;
}

static void *hedge_all(void *ctx)
{
    for (int i = 0; i < 100; i++) {
        struct race race = {0};
        int rc = perf_hedge_run(ctx, compete, &race, 0);
        cr_assert_eq(rc, PERF_OK);
        cr_assert(race.commits == 1, "exactly one wins: %d", race.commits);
        cr_assert_eq(race.begun, race.ended, "nothing outlives the call");
    }
    return NULL;
}

Test(resilience, exactly_one_of_two_wins)
{
    perf_hedge_options o = PERF_HEDGE_OPTIONS_INIT;
    perf_hedge_stats s = PERF_HEDGE_STATS_INIT;
    perf_budget *budget;
    perf_hedge *hedge;
    cr_assert_eq(perf_budget_open(1000000, NULL, &budget), PERF_OK);
    o.delay_ms = 1;
    o.budget = budget;
    cr_assert_eq(perf_hedge_open(&o, &hedge), PERF_OK);
    on_all_threads(hedge_all, hedge);
    perf_hedge_get_stats(hedge, &s);
    cr_assert_eq(s.calls, (uint64_t)THREADS * 100);
    cr_assert(s.hedges > 50 && s.won > 0 && s.won < s.hedges, "%d hedges, %d won", (int)s.hedges,
              (int)s.won);
    cr_assert_leq(s.threads, 4);
    perf_hedge_close(hedge);
    perf_budget_close(budget);
}

/* -------------------------------------------------------------------- policy */

static int flaky(perf_attempt *attempt, void *ctx)
{
    (void)ctx;
    switch (perf__thread_random() % 8) {
    case 0:
        return PERF_EIO;
    case 1:
        return PERF_ETHROTTLED;
    case 2:
        nap_us(3000);
        return perf_attempt_cancelled(attempt) ? PERF_ECANCELED : PERF_OK;
    default:
        return PERF_OK;
    }
}

static void *run_policy(void *ctx)
{
    for (int i = 0; i < 300; i++)
        perf_policy_run(ctx, flaky, NULL, 1000);
    return NULL;
}

Test(resilience, all_parts_together)
{
    perf_policy_options o = PERF_POLICY_OPTIONS_INIT;
    perf_retry_options ro = PERF_RETRY_OPTIONS_INIT;
    perf_breaker_options bo = PERF_BREAKER_OPTIONS_INIT;
    perf_rate_limit_options lo = PERF_RATE_LIMIT_OPTIONS_INIT;
    perf_bulkhead_options ko = PERF_BULKHEAD_OPTIONS_INIT;
    perf_hedge_options ho = PERF_HEDGE_OPTIONS_INIT;
    perf_bulkhead_stats ks = PERF_BULKHEAD_STATS_INIT;
    perf_adaptive_limit_stats as = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    perf_policy_stats s = PERF_POLICY_STATS_INIT;
    perf_policy *policy;
    ro.base_ms = ro.throttle_base_ms = 1;
    bo.window_calls = 20;
    bo.open_ms = 1;
    bo.half_open_calls = 2;
    lo.permits = 100000;
    ko.max_concurrent = 6;
    ho.delay_ms = 1;
    cr_assert_eq(perf_retry_open(&ro, &o.retry), PERF_OK);
    cr_assert_eq(perf_breaker_open(&bo, &o.breaker), PERF_OK);
    cr_assert_eq(perf_rate_limit_open(&lo, &o.rate_limit), PERF_OK);
    cr_assert_eq(perf_bulkhead_open(&ko, &o.bulkhead), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_open(NULL, &o.adaptive_limit), PERF_OK);
    ho.budget = perf_retry_get_budget(o.retry);
    cr_assert_eq(perf_hedge_open(&ho, &o.hedge), PERF_OK);
    o.max_wait_ms = 100;
    cr_assert_eq(perf_policy_open(&o, &policy), PERF_OK);
    on_all_threads(run_policy, policy);
    perf_policy_get_stats(policy, &s);
    cr_assert_eq(s.calls, (uint64_t)THREADS * 300);
    cr_assert_eq(s.calls, s.succeeded + s.failed);
    cr_assert_gt(s.succeeded, 0); /* how many depends on how busy the machine is */
    perf_bulkhead_get_stats(o.bulkhead, &ks);
    perf_adaptive_limit_get_stats(o.adaptive_limit, &as);
    cr_assert(ks.in_use == 0 && as.in_flight == 0);
    perf_policy_close(policy);
    perf_hedge_close(o.hedge);
    perf_adaptive_limit_close(o.adaptive_limit);
    perf_bulkhead_close(o.bulkhead);
    perf_rate_limit_close(o.rate_limit);
    perf_breaker_close(o.breaker);
    perf_retry_close(o.retry);
}
