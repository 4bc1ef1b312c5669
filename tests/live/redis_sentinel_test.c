/* SPDX-License-Identifier: MIT */
/*
 * redis_sentinel_test.c - the Redis client under Sentinel: masters that are killed, stand still or
 * are demoted under load, sentinels that are gone.
 */
#include <libperf/redis.h>

#include <pthread.h>
#include <stdatomic.h>

#include "leaks.h"
#include "redis_fixture.h"
#include "seams.h"

struct setup {
    struct test_redis_sentinel *servers;
    char addresses[4][32];
    const char *seeds[4];
    perf_redis_options options;
};

/* The first sentinel of four does not exist. */
static void start(struct setup *s, const struct test_redis *asked)
{
    s->servers = test_redis_sentinel(asked);
    if (!s->servers)
        PERF_TEST_SKIP(test_server_why());
    s->options = (perf_redis_options)PERF_REDIS_OPTIONS_INIT;
    for (int i = 0; i < 4; i++) {
        snprintf(s->addresses[i], sizeof s->addresses[i], "127.0.0.1:%d",
                 i ? s->servers->sentinels[i - 1]->port : 1);
        s->seeds[i] = s->addresses[i];
    }
    s->options.mode = PERF_REDIS_SENTINEL;
    s->options.seeds = s->seeds;
    s->options.seed_count = 4;
    s->options.master_name = "tested";
}

static perf_redis *open_client(struct setup *s)
{
    perf_redis *redis = NULL;
    cr_assert_eq(perf_redis_open(&s->options, &redis), PERF_OK, "%s", perf_last_error());
    return redis;
}

/* ------------------------------------------------------------------------- load */

enum { THREADS = 3 };

struct load {
    perf_redis *redis;
    int number;
    int64_t timeout_ms, longest_ms, errors;
    _Atomic int64_t ok;
    char last_error[200];
    pthread_t thread;
};

static _Atomic bool stop_load;

static void *set(void *ctx)
{
    struct load *l = ctx;
    while (!atomic_load(&stop_load)) {
        perf_redis_reply *reply;
        int64_t begin = fixture_now_ms();
        int rc = fixture_call(l->redis, &reply, l->timeout_ms, "SET k:%d v", l->number);
        int64_t took = fixture_now_ms() - begin;
        l->longest_ms = took > l->longest_ms ? took : l->longest_ms;
        if (rc == PERF_OK) {
            atomic_fetch_add(&l->ok, 1);
        } else {
            l->errors++;
            snprintf(l->last_error, sizeof l->last_error, "%s: %.150s", perf_strstatus(rc),
                     perf_last_error());
        }
        perf_redis_reply_release(reply);
    }
    return NULL;
}

static void begin_load(struct load *loads, perf_redis *redis, int64_t timeout_ms)
{
    atomic_store(&stop_load, false);
    for (int i = 0; i < THREADS; i++) {
        loads[i] = (struct load){.redis = redis, .number = i, .timeout_ms = timeout_ms};
        cr_assert_eq(pthread_create(&loads[i].thread, NULL, set, &loads[i]), 0);
    }
}

static void end_load(struct load *loads)
{
    atomic_store(&stop_load, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(loads[i].thread, NULL);
        cr_log_info("thread %d: %lld ok, %lld errors, longest %lld ms, last: %s\n", i,
                    (long long)loads[i].ok, (long long)loads[i].errors,
                    (long long)loads[i].longest_ms, loads[i].last_error);
        cr_assert_lt(loads[i].longest_ms, loads[i].timeout_ms + 400);
    }
}

static void wait_for_progress(struct load *loads, int more, int ms)
{
    for (int i = 0; i < THREADS; i++) {
        int64_t until = fixture_now_ms() + ms, from = atomic_load(&loads[i].ok);
        while (atomic_load(&loads[i].ok) < from + more) {
            cr_assert_lt(fixture_now_ms(), until, "thread %d stands still: %s", i,
                         loads[i].last_error);
            fixture_sleep_ms(5);
        }
    }
}

static void wait_for_failovers(perf_redis *redis, uint64_t count, int ms)
{
    int64_t until = fixture_now_ms() + ms;
    while (fixture_stats(redis).failovers < count) {
        cr_assert_lt(fixture_now_ms(), until, "%llu failovers",
                     (unsigned long long)fixture_stats(redis).failovers);
        fixture_sleep_ms(10);
    }
}

/* ------------------------------------------------------------------------ tests */

Test(redis_sentinel, the_master_is_found_and_followed)
{
    struct test_redis asked = {.password = "secret", .sentinel_password = "theirs"};
    struct setup s;
    struct load loads[THREADS];
    start(&s, &asked);
    struct test_leaks leaks = fixture_leaks_begin();
    s.options.password = "secret";
    s.options.sentinel_password = "theirs";
    perf_redis *redis = open_client(&s);
    fixture_expect(redis, "OK", "SET greeting hello");
    fixture_expect(redis, "hello", "GET greeting");
    fixture_expect(redis, "1", "LPUSH list x");
    perf_redis_reply *reply;
    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP list 1"), PERF_OK, "%s",
                 perf_last_error());
    perf_redis_reply_release(reply);
    cr_assert(test_redis_says(s.servers->nodes[0], "hello", "GET greeting"));
    cr_assert_eq(fixture_stats(redis).failovers, 0);
    cr_assert_eq(fixture_stats(redis).connected, 1);
    cr_assert(test_redis_says(s.servers->nodes[0], "2", "WAIT 2 5000"));

    perf_redis_subscriber *subscriber;
    perf_redis_message m = PERF_REDIS_MESSAGE_INIT;
    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, &subscriber), PERF_OK);
    cr_assert_eq(perf_redis_subscribe(subscriber, "news", 4), PERF_OK);
    cr_assert_eq(perf_redis_next_message(subscriber, 5000, &m), PERF_OK, "not subscribed");

    begin_load(loads, redis, 1000);
    wait_for_progress(loads, 100, 10000);
    test_server_kill(s.servers->nodes[0]);
    wait_for_progress(loads, 100, 20000);
    do
        cr_assert_eq(perf_redis_next_message(subscriber, 15000, &m), PERF_OK);
    while (m.kind != PERF_REDIS_GAP);
    fixture_expect(redis, "1", "PUBLISH news hello");
    do
        cr_assert_eq(perf_redis_next_message(subscriber, 5000, &m), PERF_OK);
    while (m.kind != PERF_REDIS_MESSAGE);
    cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
    cr_assert_eq(fixture_stats(redis).failovers, 1);
    fixture_expect(redis, "hello", "GET greeting");
    end_load(loads);

    /* It comes back as a replica, and nobody goes there. */
    cr_assert(test_server_restart(s.servers->nodes[0]), "%s", test_server_why());
    cr_assert(test_redis_sentinel_settle(s.servers, 20000), "%s", test_server_why());
    fixture_expect(redis, "OK", "SET greeting again");
    cr_assert_eq(fixture_stats(redis).failovers, 1);

    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
    test_redis_sentinel_stop(s.servers);
}

/* The old master stays alive, and says READONLY; with time enough nobody sees an error. */
Test(redis_sentinel, a_master_is_demoted_under_load)
{
    struct setup s;
    struct load loads[THREADS];
    start(&s, NULL);
    struct test_leaks leaks = fixture_leaks_begin();
    perf_redis *redis = open_client(&s);
    begin_load(loads, redis, 10000);
    wait_for_progress(loads, 100, 10000);
    cr_assert(test_redis_says(s.servers->sentinels[0], "OK", "SENTINEL FAILOVER tested"), "%s",
              test_server_why());
    wait_for_failovers(redis, 1, 20000);
    wait_for_progress(loads, 100, 20000);
    end_load(loads);
    for (int i = 0; i < THREADS; i++) /* but for what was on its way */
        cr_assert_leq(loads[i].errors, 2, "%s", loads[i].last_error);
    cr_assert(test_redis_sentinel_settle(s.servers, 20000), "%s", test_server_why());
    int master = test_redis_sentinel_master(s.servers);
    cr_assert_neq(master, 0);
    fixture_expect(redis, "OK", "SET where here");
    cr_assert(test_redis_says(s.servers->nodes[master], "here", "GET where"));

    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
    test_redis_sentinel_stop(s.servers);
}

Test(redis_sentinel, a_master_stands_still_and_sentinels_die)
{
    struct setup s;
    struct load loads[THREADS];
    start(&s, NULL);
    struct test_leaks leaks = fixture_leaks_begin();
    perf_redis *redis = open_client(&s);
    begin_load(loads, redis, 500);
    wait_for_progress(loads, 100, 10000);
    test_server_kill(s.servers->sentinels[0]);
    test_server_pause(s.servers->nodes[0]);
    wait_for_failovers(redis, 1, 20000);
    wait_for_progress(loads, 100, 20000);
    test_server_resume(s.servers->nodes[0]);
    wait_for_progress(loads, 100, 20000);
    test_server_kill(s.servers->sentinels[1]);
    test_server_kill(s.servers->sentinels[2]);
    wait_for_progress(loads, 100, 20000); /* nobody needs them now */
    end_load(loads);
    cr_assert_eq(perf_redis_reconnect(redis), PERF_OK);
    perf_redis_reply *reply;
    cr_assert_eq(fixture_call(redis, &reply, 700, "GET k"), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    cr_assert(test_server_restart(s.servers->sentinels[1]), "%s", test_server_why());
    fixture_expect(redis, "OK", "SET k v");
    int64_t begin = fixture_now_ms();
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    cr_assert_lt(fixture_now_ms() - begin, 2000);
    test_leaks_end(&leaks);
    test_redis_sentinel_stop(s.servers);
}

/* Masters and sentinels speak TLS only; their certificates are verified, the next master's, too. */
Test(redis_sentinel, tls_from_end_to_end)
{
    struct test_redis asked = {.tls = true, .password = "secret", .sentinel_password = "theirs"};
    struct setup s;
    char ca[300];
    perf_redis_reply *reply;
    start(&s, &asked);
    snprintf(ca, sizeof ca, "%s/ca.pem", s.servers->nodes[0]->dir);
    s.options.tls = 1;
    s.options.ca_file = ca;
    s.options.server_name = "localhost";
    s.options.password = "secret";
    s.options.sentinel_password = "theirs";
    s.options.timeout_ms = 15000;

    perf_redis *redis = open_client(&s); /* speaks plainly to the sentinels, who do not answer so */
    cr_assert_eq(fixture_call(redis, &reply, 1500, "GET k"), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    s.options.sentinel_tls = 1;
    s.options.ca_file = NULL; /* the system's do not know who signed it */
    redis = open_client(&s);
    int rc = fixture_call(redis, &reply, 1500, "GET k");
    cr_assert(rc == PERF_ETLS || rc == PERF_EUNAVAILABLE, "%d %s", rc, perf_last_error());
    cr_assert_not_null(strstr(perf_last_error(), "certificate"), "%s", perf_last_error());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    s.options.ca_file = ca;
    redis = open_client(&s);
    fixture_expect(redis, "OK", "SET k before");
    cr_assert(test_redis_says(s.servers->sentinels[0], "OK", "SENTINEL FAILOVER tested"), "%s",
              test_server_why());
    wait_for_failovers(redis, 1, 20000);
    cr_assert_eq(fixture_call(redis, &reply, 15000, "SET k after"), PERF_OK, "%s",
                 perf_last_error());
    perf_redis_reply_release(reply);
    cr_assert(test_redis_sentinel_settle(s.servers, 20000), "%s", test_server_why());
    int master = test_redis_sentinel_master(s.servers);
    cr_assert_neq(master, 0);
    cr_assert(test_redis_says(s.servers->nodes[master], "after", "GET k"), "%s", test_server_why());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_redis_sentinel_stop(s.servers);
}

Test(redis_sentinel, what_goes_wrong_is_said)
{
    struct test_redis asked = {.sentinel_password = "theirs"};
    struct setup s;
    perf_redis_reply *reply;
    start(&s, &asked);
    s.options.fail_fast = 1;
    s.options.sentinel_password = "theirs";
    s.options.master_name = "unknown";
    perf_redis *redis = open_client(&s);
    cr_assert_eq(fixture_call(redis, &reply, 5000, "GET k"), PERF_EUNAVAILABLE);
    cr_assert_not_null(strstr(perf_last_error(), "\"unknown\""), "%s", perf_last_error());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    s.options.master_name = "tested";
    s.options.sentinel_password = "mine";
    redis = open_client(&s);
    cr_assert_lt(fixture_call(redis, &reply, 5000, "GET k"), 0);
    cr_assert_not_null(strstr(perf_last_error(), "WRONGPASS"), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "mine"));
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    perf_redis *none = NULL;
    s.options.master_name = NULL;
    cr_assert_eq(perf_redis_open(&s.options, &none), PERF_EINVAL);
    cr_assert_not_null(strstr(perf_last_error(), "master_name"));
    s.options.master_name = "tested";
    s.options.seed_count = 0;
    cr_assert_eq(perf_redis_open(&s.options, &none), PERF_EINVAL);
    s.options.seed_count = 4;
    s.options.sentinel_tls = 1;
    cr_assert_eq(perf_redis_open(&s.options, &none), PERF_EINVAL);
    test_redis_sentinel_stop(s.servers);
}

Test(redis_sentinel, each_allocation_fails_once)
{
    struct setup s;
    start(&s, NULL);
    s.options.timeout_ms = 3000;
    s.options.backoff_min_ms = 1;
    for (int64_t n = 1;; n++) {
        struct test_host th;
        perf_redis *redis = NULL;
        perf_redis_reply *reply = NULL;
        s.options.host = test_host_init(&th);
        th.fail_at = n;
        int rc = perf_redis_open(&s.options, &redis);
        if (!rc) {
            fixture_call(redis, &reply, 0, "SET a 1");
            perf_redis_reply_release(reply);
            cr_assert_eq(perf_redis_close(redis), PERF_OK);
        }
        cr_assert_eq(th.live, 0, "after the %lldth", (long long)n);
        if (!th.failed) {
            cr_assert_gt(n, 20);
            break;
        }
    }
    test_redis_sentinel_stop(s.servers);
}
