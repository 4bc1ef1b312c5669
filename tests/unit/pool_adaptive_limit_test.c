/* SPDX-License-Identifier: MIT */
/*
 * adaptive_limit.c: a simulated service with so many places and a queue before
 * them. Callers send as much as the limit allows; it must find the places.
 */
#include <libperf/resilience.h>

#include "seams.h"
#include "test.h"

enum { MOST = 4096 };

/* Each place serves one request in service_ns; requests queue first in, first out. */
struct service {
    struct test_host th;
    perf_adaptive_limit *limit;
    int places;
    int64_t service_ns;
    uint32_t random; /* 0: every request takes the same */
    struct request {
        int64_t done_ns;
        uint64_t permit;
    } requests[MOST];
    int count;
    int64_t free_at[512];
    int64_t capacity; /* more at once than this and it times out; 0: never */
    int64_t served;
};

static void open_limit(struct service *s, perf_adaptive_limit_options o)
{
    o.struct_size = sizeof o;
    o.host = test_host_init(&s->th);
    cr_assert_eq(perf_adaptive_limit_open(&o, &s->limit), PERF_OK, "%s", perf_last_error());
}

static int64_t now_of(struct service *s)
{
    return atomic_load(&s->th.monotonic_ns);
}

/* The first place to become free takes the request. */
static void arrive(struct service *s, uint64_t permit)
{
    int best = 0;
    int64_t takes = s->service_ns;
    for (int i = 1; i < s->places; i++)
        if (s->free_at[i] < s->free_at[best])
            best = i;
    if (s->random) { /* from half to one and a half */
        s->random = s->random * 1664525 + 1013904223;
        takes = takes / 2 + (int64_t)((double)takes * (s->random >> 8) / 16777216.0);
    }
    int64_t begins = s->free_at[best] > now_of(s) ? s->free_at[best] : now_of(s);
    s->free_at[best] = begins + takes;
    s->requests[s->count++] = (struct request){begins + takes, permit};
}

static void finish_next(struct service *s)
{
    int first = 0;
    for (int i = 1; i < s->count; i++)
        if (s->requests[i].done_ns < s->requests[first].done_ns)
            first = i;
    struct request r = s->requests[first];
    bool overloaded = s->capacity && s->count > s->capacity;
    s->requests[first] = s->requests[--s->count];
    atomic_store(&s->th.monotonic_ns, r.done_ns);
    perf_adaptive_limit_release(s->limit, r.permit,
                                overloaded ? PERF_OUTCOME_THROTTLED : PERF_OUTCOME_SUCCESS);
    s->served++;
}

/* As many requests as are let in, at most demand at once. */
static void run(struct service *s, int64_t ms, int demand)
{
    int64_t end = now_of(s) + ms * 1000000;
    while (now_of(s) < end) {
        uint64_t permit;
        while (s->count < demand && perf_adaptive_limit_try(s->limit, &permit) == PERF_OK)
            arrive(s, permit);
        finish_next(s);
    }
}

static perf_adaptive_limit_stats stats_of(struct service *s)
{
    perf_adaptive_limit_stats stats = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    cr_assert_eq(perf_adaptive_limit_get_stats(s->limit, &stats), PERF_OK);
    return stats;
}

static int64_t limit_of(struct service *s)
{
    return stats_of(s).limit;
}

/* Lets everything finish. */
static void drain(struct service *s)
{
    while (s->count)
        finish_next(s);
    cr_assert_eq(stats_of(s).in_flight, 0);
    perf_adaptive_limit_close(s->limit);
}

static void converges(int places, int64_t initial)
{
    static struct service s;
    s = (struct service){.places = places, .service_ns = 10000000};
    open_limit(&s, (perf_adaptive_limit_options){.initial = initial});
    run(&s, 180000, MOST);
    int64_t settled = limit_of(&s), before = s.served;
    run(&s, 10000, MOST);
    double share = (double)(s.served - before) / (places * 1000.0);
    cr_assert(share > 0.95, "%d places: %.2f of what they can do", places, share);
    cr_assert(settled >= places && settled <= places + 20, "%d places: limit %d", places,
              (int)settled);
    cr_assert(stats_of(&s).least_us >= 10000 && stats_of(&s).least_us < 13000, "least %d us",
              (int)stats_of(&s).least_us);
    drain(&s);
}

Test(pool_adaptive_limit, vegas_finds_the_places_from_below)
{
    converges(100, 5);
}

Test(pool_adaptive_limit, vegas_finds_the_places_from_above)
{
    converges(20, 500);
}

Test(pool_adaptive_limit, vegas_follows_a_service_that_shrinks_and_grows)
{
    static struct service s;
    s = (struct service){.places = 100, .service_ns = 10000000};
    open_limit(&s, (perf_adaptive_limit_options){0});
    run(&s, 60000, MOST);
    cr_assert(limit_of(&s) >= 100 && limit_of(&s) <= 120, "%d", (int)limit_of(&s));
    s.places = 25; /* three quarters of it are gone */
    run(&s, 5000, MOST);
    cr_assert(limit_of(&s) <= 60, "five seconds later: %d", (int)limit_of(&s));
    run(&s, 90000, MOST);
    cr_assert(limit_of(&s) >= 25 && limit_of(&s) <= 45, "%d", (int)limit_of(&s));
    s.places = 100;
    for (int i = 25; i < 100; i++)
        s.free_at[i] = now_of(&s);
    run(&s, 60000, MOST);
    cr_assert(limit_of(&s) >= 90 && limit_of(&s) <= 120, "%d", (int)limit_of(&s));
    drain(&s);
}

Test(pool_adaptive_limit, vegas_bears_requests_of_all_lengths)
{
    static struct service s;
    s = (struct service){.places = 50, .service_ns = 10000000, .random = 1};
    open_limit(&s, (perf_adaptive_limit_options){0});
    run(&s, 120000, MOST);
    int64_t before = s.served;
    run(&s, 20000, MOST);
    double share = (double)(s.served - before) / (50 * 100.0 * 20);
    cr_assert(share > 0.9, "%.2f of what it can do", share);
    cr_assert_leq(limit_of(&s), 80);
    drain(&s);
}

Test(pool_adaptive_limit, vegas_does_not_grow_unused)
{
    static struct service s;
    s = (struct service){.places = 100, .service_ns = 10000000};
    open_limit(&s, (perf_adaptive_limit_options){.initial = 20});
    run(&s, 20000, 4); /* only four callers */
    cr_assert_eq(limit_of(&s), 20);
    drain(&s);
}

Test(pool_adaptive_limit, aimd_saws_below_what_is_too_much)
{
    static struct service s;
    int64_t least = INT64_MAX, most = 0;
    s = (struct service){.places = 500, .service_ns = 10000000, .capacity = 64};
    open_limit(&s, (perf_adaptive_limit_options){.algorithm = PERF_LIMIT_AIMD, .initial = 10});
    run(&s, 20000, MOST);
    for (int i = 0; i < 300; i++) {
        run(&s, 100, MOST);
        least = limit_of(&s) < least ? limit_of(&s) : least;
        most = limit_of(&s) > most ? limit_of(&s) : most;
    }
    cr_assert(most >= 64 && most <= 67, "most %d", (int)most);
    cr_assert(least >= 51 && least <= 60, "least %d: a tenth less, perhaps twice", (int)least);
    cr_assert_gt(stats_of(&s).dropped, 0);
    drain(&s);
}

Test(pool_adaptive_limit, a_failing_service_gets_the_least)
{
    struct test_host th;
    perf_adaptive_limit_options o = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_adaptive_limit_stats stats = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    perf_adaptive_limit *limit;
    uint64_t permit;
    o.min = 3;
    o.host = test_host_init(&th);
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_OK);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(perf_adaptive_limit_try(limit, &permit), PERF_OK);
        test_host_advance(&th, 10);
        perf_adaptive_limit_release(limit, permit,
                                    i % 2 ? PERF_OUTCOME_TIMEOUT : PERF_OUTCOME_TRANSIENT);
    }
    perf_adaptive_limit_get_stats(limit, &stats);
    cr_assert_eq(stats.limit, 3);
    for (int i = 0; i < 100; i++) { /* says nothing */
        cr_assert_eq(perf_adaptive_limit_try(limit, &permit), PERF_OK);
        test_host_advance(&th, 10);
        perf_adaptive_limit_release(limit, permit, PERF_OUTCOME_IGNORED);
    }
    perf_adaptive_limit_get_stats(limit, &stats);
    cr_assert(stats.limit == 3 && stats.dropped == 1000 && stats.in_flight == 0);
    perf_adaptive_limit_close(limit);
}

Test(pool_adaptive_limit, counts_and_misuse)
{
    perf_adaptive_limit_options o = PERF_ADAPTIVE_LIMIT_OPTIONS_INIT;
    perf_adaptive_limit_stats stats = PERF_ADAPTIVE_LIMIT_STATS_INIT;
    perf_adaptive_limit *limit;
    uint64_t permits[3];
    o.initial = 2;
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_try(limit, &permits[0]), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_try(limit, &permits[1]), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_try(limit, &permits[2]), PERF_EREJECTED);
    for (int i = 0; i < 4; i++) /* two too many */
        perf_adaptive_limit_release(limit, permits[i % 2], PERF_OUTCOME_SUCCESS);
    perf_adaptive_limit_get_stats(limit, &stats);
    cr_assert(stats.in_flight == 0 && stats.permitted == 2 && stats.rejected == 1);
    perf_adaptive_limit_close(limit);
    o.initial = 1001;
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_EINVAL);
    o.initial = 0;
    o.min = 2000;
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_EINVAL);
    o.min = 0;
    o.algorithm = 2;
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_EINVAL);
    o.algorithm = 0;
    o.max = 5; /* the default initial gives way */
    cr_assert_eq(perf_adaptive_limit_open(&o, &limit), PERF_OK);
    cr_assert_eq(perf_adaptive_limit_try(limit, NULL), PERF_EINVAL);
    cr_assert_eq(perf_adaptive_limit_try(NULL, permits), PERF_EINVAL);
    perf_adaptive_limit_release(limit, 0, 0);
    perf_adaptive_limit_release(NULL, 1, 0);
    cr_assert_eq(perf_adaptive_limit_get_stats(limit, NULL), PERF_EINVAL);
    perf_adaptive_limit_close(limit);
    cr_assert_eq(perf_adaptive_limit_close(NULL), PERF_OK);
}
