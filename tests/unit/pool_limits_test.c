/* SPDX-License-Identifier: MIT */
/* bulkhead.c and rate_limit.c: places, lines, and permits that come out even after an hour. */
#include <libperf/resilience.h>
#include <pthread.h>
#include <time.h>

#include "seams.h"
#include "test.h"

static void nap(void)
{
    nanosleep(&(struct timespec){0, 1000000}, NULL);
}

/* ------------------------------------------------------------------ bulkhead */

static perf_bulkhead *open_bulkhead(int64_t max_concurrent, int64_t max_waiting,
                                    const perf_host *host)
{
    perf_bulkhead_options o = PERF_BULKHEAD_OPTIONS_INIT;
    perf_bulkhead *b = NULL;
    o.max_concurrent = max_concurrent;
    o.max_waiting = max_waiting;
    o.host = host;
    cr_assert_eq(perf_bulkhead_open(&o, &b), PERF_OK, "%s", perf_last_error());
    return b;
}

static perf_bulkhead_stats bulkhead_stats(perf_bulkhead *b)
{
    perf_bulkhead_stats stats = PERF_BULKHEAD_STATS_INIT;
    cr_assert_eq(perf_bulkhead_get_stats(b, &stats), PERF_OK);
    return stats;
}

Test(pool_bulkhead, so_many_and_no_more)
{
    perf_bulkhead *b = open_bulkhead(3, 0, NULL);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_OK);
    cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_EREJECTED);
    cr_assert(strstr(perf_last_error(), "full: 3"), "%s", perf_last_error());
    perf_bulkhead_release(b);
    cr_assert_eq(perf_bulkhead_acquire(b, -1), PERF_OK);
    perf_bulkhead_stats s = bulkhead_stats(b);
    cr_assert(s.max_concurrent == 3 && s.in_use == 3 && s.acquired == 4 && s.rejected == 1);
    for (int i = 0; i < 5; i++) /* two too many */
        perf_bulkhead_release(b);
    cr_assert_eq(bulkhead_stats(b).in_use, 0);
    perf_bulkhead_close(b);
}

Test(pool_bulkhead, waits_by_the_hosts_clock)
{
    struct test_host th;
    perf_deadline before = PERF_DEADLINE_INIT;
    perf_bulkhead *b = open_bulkhead(1, 0, test_host_init(&th));
    cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_OK);
    perf_deadline_enter(0, &th.clock, &before); /* over already: no waiting, though it may */
    cr_assert_eq(perf_bulkhead_acquire(b, -1), PERF_ETIMEDOUT);
    perf_deadline_leave(&before);
    cr_assert_eq(bulkhead_stats(b).timed_out, 1);
    cr_assert_eq(bulkhead_stats(b).waiting, 0);
    perf_bulkhead_close(b);
}

struct waiter {
    perf_bulkhead *b;
    int64_t timeout_ms;
    int rc, order;
    _Atomic int *turn;
};

static void *wait_for_place(void *arg)
{
    struct waiter *w = arg;
    w->rc = perf_bulkhead_acquire(w->b, w->timeout_ms);
    if (!w->rc)
        w->order = ++*w->turn;
    return NULL;
}

static void start_waiting(pthread_t *thread, struct waiter *w)
{
    int64_t before = bulkhead_stats(w->b).waiting;
    cr_assert_eq(pthread_create(thread, NULL, wait_for_place, w), 0);
    while (bulkhead_stats(w->b).waiting == before)
        nap();
}

Test(pool_bulkhead, first_come_first_served)
{
    enum { N = 6 };
    perf_bulkhead *b = open_bulkhead(1, 0, NULL);
    _Atomic int turn = 0;
    struct waiter w[N];
    pthread_t threads[N];
    cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_OK);
    for (int i = 0; i < N; i++) {
        w[i] = (struct waiter){b, -1, -1, 0, &turn};
        start_waiting(&threads[i], &w[i]);
    }
    cr_assert_eq(bulkhead_stats(b).waiting, N);
    for (int i = 0; i < N; i++) {
        perf_bulkhead_release(b);
        pthread_join(threads[i], NULL); /* number i, and no other: the place is handed over */
        cr_assert(w[i].rc == PERF_OK && w[i].order == i + 1, "waiter %d came as number %d", i,
                  w[i].order);
        cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_EREJECTED, "nobody gets in between");
    }
    perf_bulkhead_release(b);
    cr_assert_eq(bulkhead_stats(b).waited, N);
    cr_assert_eq(bulkhead_stats(b).in_use, 0);
    perf_bulkhead_close(b);
}

Test(pool_bulkhead, a_short_line_and_a_timeout)
{
    struct test_host th;
    perf_bulkhead *b = open_bulkhead(1, 2, test_host_init(&th));
    _Atomic int turn = 0;
    struct waiter first = {b, 1000, -1, 0, &turn}, second = {b, 5000, -1, 0, &turn};
    pthread_t threads[2];
    cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_OK);
    start_waiting(&threads[0], &first);
    start_waiting(&threads[1], &second);
    cr_assert_eq(perf_bulkhead_acquire(b, 1000), PERF_EREJECTED, "two are waiting already");
    cr_assert(strstr(perf_last_error(), "2 are waiting"), "%s", perf_last_error());
    test_host_advance(&th, 1000);
    pthread_join(threads[0], NULL);
    cr_assert_eq(first.rc, PERF_ETIMEDOUT);
    cr_assert_eq(bulkhead_stats(b).waiting, 1);
    perf_bulkhead_release(b);
    pthread_join(threads[1], NULL);
    cr_assert_eq(second.rc, PERF_OK);
    perf_bulkhead_release(b);
    perf_bulkhead_close(b);

    b = open_bulkhead(1, -1, NULL);
    cr_assert_eq(perf_bulkhead_acquire(b, -1), PERF_OK);
    cr_assert_eq(perf_bulkhead_acquire(b, -1), PERF_EREJECTED, "nobody may wait");
    perf_bulkhead_close(b);
}

Test(pool_bulkhead, resized)
{
    perf_bulkhead *b = open_bulkhead(2, 0, NULL);
    _Atomic int turn = 0;
    struct waiter w[2] = {{b, -1, -1, 0, &turn}, {b, -1, -1, 0, &turn}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(perf_bulkhead_acquire(b, 0), PERF_OK);
    start_waiting(&threads[0], &w[0]);
    start_waiting(&threads[1], &w[1]);
    cr_assert_eq(perf_bulkhead_resize(b, 3), PERF_OK);
    pthread_join(threads[0], NULL);
    cr_assert(w[0].rc == PERF_OK && bulkhead_stats(b).waiting == 1);
    cr_assert_eq(perf_bulkhead_resize(b, 1), PERF_OK);
    perf_bulkhead_release(b); /* three inside, one allowed: two have to leave first */
    perf_bulkhead_release(b);
    cr_assert_eq(bulkhead_stats(b).waiting, 1);
    perf_bulkhead_release(b);
    pthread_join(threads[1], NULL);
    cr_assert(w[1].rc == PERF_OK && bulkhead_stats(b).in_use == 1);
    perf_bulkhead_release(b);
    cr_assert_eq(perf_bulkhead_resize(b, 0), PERF_EINVAL);
    perf_bulkhead_close(b);
}

Test(pool_bulkhead, misuse)
{
    perf_bulkhead_options o = PERF_BULKHEAD_OPTIONS_INIT;
    perf_bulkhead_stats stats = PERF_BULKHEAD_STATS_INIT;
    perf_bulkhead *b;
    o.max_concurrent = -1;
    cr_assert_eq(perf_bulkhead_open(&o, &b), PERF_EINVAL);
    o.max_concurrent = 1;
    o.max_waiting = -2;
    cr_assert_eq(perf_bulkhead_open(&o, &b), PERF_EINVAL);
    cr_assert_eq(perf_bulkhead_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_bulkhead_acquire(NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_bulkhead_resize(NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_bulkhead_get_stats(NULL, &stats), PERF_EINVAL);
    perf_bulkhead_release(NULL);
    cr_assert_eq(perf_bulkhead_close(NULL), PERF_OK);
}

/* ---------------------------------------------------------------- rate limit */

static perf_rate_limit *open_rate(struct test_host *th, int64_t permits, int64_t period_ms,
                                  int64_t burst)
{
    perf_rate_limit_options o = PERF_RATE_LIMIT_OPTIONS_INIT;
    perf_rate_limit *limit = NULL;
    o.permits = permits;
    o.period_ms = period_ms;
    o.burst = burst;
    o.host = test_host_init(th);
    cr_assert_eq(perf_rate_limit_open(&o, &limit), PERF_OK, "%s", perf_last_error());
    return limit;
}

Test(pool_rate_limit, exact_over_an_hour)
{
    /* rates that divide neither a second nor a step of the clock */
    static const int64_t rates[][3] = {{7, 1000, 1}, {3, 1000, 5}, {1, 333, 1}, {1000, 60000, 10}};
    for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
        struct test_host th;
        int64_t taken = 0, steps = 0;
        const int64_t hour = 3600000;
        perf_rate_limit *limit = open_rate(&th, rates[k][0], rates[k][1], rates[k][2]);
        for (int64_t ms = 0; ms < hour; ms += 11, steps++) {
            while (perf_rate_limit_try(limit, 1) == PERF_OK)
                taken++;
            test_host_advance(&th, 11);
        }
        int64_t last = (steps - 1) * 11; /* the last time it was asked */
        cr_assert_eq(taken, rates[k][2] + last * rates[k][0] / rates[k][1],
                     "%d per %d ms: %d taken", (int)rates[k][0], (int)rates[k][1], (int)taken);
        perf_rate_limit_close(limit);
    }
}

Test(pool_rate_limit, a_pause_earns_the_burst_and_no_more)
{
    struct test_host th;
    perf_rate_limit_stats stats = PERF_RATE_LIMIT_STATS_INIT;
    perf_rate_limit *limit = open_rate(&th, 10, 1000, 5);
    cr_assert_eq(perf_rate_limit_try(limit, 5), PERF_OK);
    cr_assert_eq(perf_rate_limit_try(limit, 1), PERF_EREJECTED, "%s", perf_last_error());
    cr_assert(strstr(perf_last_error(), "100 ms"), "%s", perf_last_error());
    test_host_advance(&th, 99);
    cr_assert_eq(perf_rate_limit_try(limit, 1), PERF_EREJECTED);
    test_host_advance(&th, 1);
    cr_assert_eq(perf_rate_limit_try(limit, 1), PERF_OK);
    test_host_advance(&th, 86400000);
    perf_rate_limit_get_stats(limit, &stats);
    cr_assert_eq(stats.available, 5);
    cr_assert_eq(perf_rate_limit_try(limit, 3), PERF_OK);
    cr_assert_eq(perf_rate_limit_try(limit, 3), PERF_EREJECTED, "all or nothing");
    cr_assert_eq(perf_rate_limit_try(limit, 2), PERF_OK);
    perf_rate_limit_get_stats(limit, &stats);
    cr_assert(stats.available == 0 && stats.permitted == 11 && stats.rejected == 5);
    perf_rate_limit_close(limit);
}

Test(pool_rate_limit, reserved_ahead)
{
    struct test_host th;
    perf_rate_limit_stats stats = PERF_RATE_LIMIT_STATS_INIT;
    perf_rate_limit *limit = open_rate(&th, 10, 1000, 1);
    int64_t wait = -1;
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(perf_rate_limit_reserve(limit, 1, -1, &wait), PERF_OK);
        cr_assert_eq(wait, 100 * i);
    }
    cr_assert_eq(perf_rate_limit_reserve(limit, 1, 1999, &wait), PERF_EREJECTED);
    cr_assert_eq(wait, 1900, "not touched");
    cr_assert_eq(perf_rate_limit_reserve(limit, 1, 2000, &wait), PERF_OK);
    perf_rate_limit_cancel(limit, 1);
    cr_assert_eq(perf_rate_limit_reserve(limit, 1, 2000, &wait), PERF_OK, "given back");
    perf_rate_limit_get_stats(limit, &stats);
    cr_assert(stats.available == -20 && stats.waited == 21, "%d %d", (int)stats.available,
              (int)stats.waited);
    cr_assert_eq(perf_rate_limit_acquire(limit, 1, 100), PERF_EREJECTED, "it would be too late");
    perf_rate_limit_close(limit);
}

static void *move_clock(void *arg)
{
    struct test_host *th = arg;
    for (int i = 0; i < 40; i++) {
        nap();
        test_host_advance(th, 100);
    }
    return NULL;
}

Test(pool_rate_limit, acquire_sleeps_until_it_is_due)
{
    struct test_host th;
    pthread_t thread;
    perf_deadline before = PERF_DEADLINE_INIT;
    perf_rate_limit *limit = open_rate(&th, 1, 1000, 1);
    cr_assert_eq(perf_rate_limit_acquire(limit, 1, 0), PERF_OK);
    cr_assert_eq(perf_rate_limit_acquire(limit, 1, 0), PERF_EREJECTED);
    perf_deadline_enter(999, &th.clock, &before);
    cr_assert_eq(perf_rate_limit_acquire(limit, 1, -1), PERF_EREJECTED, "the deadline is nearer");
    perf_deadline_leave(&before);
    int64_t start = atomic_load(&th.monotonic_ns);
    cr_assert_eq(pthread_create(&thread, NULL, move_clock, &th), 0);
    cr_assert_eq(perf_rate_limit_acquire(limit, 1, 2000), PERF_OK);
    cr_assert_geq(atomic_load(&th.monotonic_ns) - start, INT64_C(1000000000));
    pthread_join(thread, NULL);
    perf_rate_limit_close(limit);
}

Test(pool_rate_limit, extremes)
{
    struct test_host th;
    perf_rate_limit_options o = PERF_RATE_LIMIT_OPTIONS_INIT;
    int64_t wait;
    perf_rate_limit *limit = open_rate(&th, 1, 86400000, 1000000000);
    cr_assert_eq(perf_rate_limit_try(limit, 1000000000), PERF_OK);
    int granted = 0;
    while (granted < 100 && perf_rate_limit_reserve(limit, 1000000000, -1, &wait) == PERF_OK) {
        cr_assert_gt(wait, 0, "never overflows into the past");
        granted++;
    }
    cr_assert_lt(granted, 100, "nothing is reserved for centuries ahead");
    perf_rate_limit_close(limit);
    limit = open_rate(&th, 1000000, 1, 1000000000); /* one a nanosecond */
    test_host_advance(&th, INT64_C(86400000) * 365 * 100);
    cr_assert_eq(perf_rate_limit_try(limit, 1000000000), PERF_OK);
    cr_assert_eq(perf_rate_limit_try(limit, 1), PERF_EREJECTED);
    perf_rate_limit_close(limit);
    o.permits = 1000001;
    o.period_ms = 1;
    cr_assert_eq(perf_rate_limit_open(&o, &limit), PERF_EINVAL);
    o.permits = -1;
    cr_assert_eq(perf_rate_limit_open(&o, &limit), PERF_EINVAL);
    cr_assert_eq(perf_rate_limit_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_rate_limit_open(NULL, &limit), PERF_OK);
    cr_assert_eq(perf_rate_limit_try(limit, 51), PERF_EINVAL, "more than a burst is never there");
    cr_assert_eq(perf_rate_limit_try(limit, 0), PERF_EINVAL);
    cr_assert_eq(perf_rate_limit_try(NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_rate_limit_reserve(limit, 1, 0, NULL), PERF_EINVAL);
    perf_rate_limit_cancel(limit, -1);
    perf_rate_limit_cancel(NULL, 1);
    cr_assert_eq(perf_rate_limit_get_stats(limit, NULL), PERF_EINVAL);
    perf_rate_limit_close(limit);
    cr_assert_eq(perf_rate_limit_close(NULL), PERF_OK);
}
