/* SPDX-License-Identifier: MIT */
/*
 * One cache over DynamoDB over Redis, and what a service sees when either is gone, or both: four
 * threads read, one writes, and nobody waits longer than he may, memory goes on, everything comes
 * back by itself, and nothing that was overwritten does.
 */
#include <libperf/aws.h>
#include <libperf/aws_tables.h>
#include <libperf/perf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "seams.h"
#include "server.h"
#include "test.h"

enum { KEYS = 64, HOT = 32, READERS = 4, TIMEOUT_MS = 300, COHERENCE_MS = 1000, SLACK_MS = 400 };

/* HOT keys live in memory; the writer changes the others. */
struct world {
    perf_cache *cache;
    _Atomic int64_t kept[KEYS]; /* what the writer has written last, and memory has */
    _Atomic bool stops;
    _Atomic int64_t served, missed, failed, stale, longest_ms;
    _Atomic int64_t written, unwritten;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static void took(struct world *w, int64_t ms)
{
    int64_t longest = atomic_load(&w->longest_ms);
    while (ms > longest && !atomic_compare_exchange_weak(&w->longest_ms, &longest, ms))
        ;
}

static int write_key(struct world *w, int n, int64_t value)
{
    char key[16], text[24];
    snprintf(key, sizeof key, "key-%d", n);
    snprintf(text, sizeof text, "%lld", (long long)value);
    int64_t begun = now_ms();
    int rc = perf_cache_set(w->cache, "ns", NULL, key, strlen(key), text, strlen(text), 600000);
    took(w, now_ms() - begun);
    atomic_store(&w->kept[n], value); /* in this process at once, whatever the tiers say */
    return rc;
}

/* -1: nothing. */
static int64_t read_key(struct world *w, int n, int *rc)
{
    char key[16], text[24] = "";
    size_t len = 0;
    snprintf(key, sizeof key, "key-%d", n);
    int64_t begun = now_ms();
    *rc = perf_cache_get_copy(w->cache, "ns", NULL, key, strlen(key), text, sizeof text - 1, &len);
    took(w, now_ms() - begun);
    text[*rc ? 0 : len] = '\0';
    return *rc ? -1 : atoll(text);
}

static void *read_on(void *arg)
{
    struct world *w = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    while (!atomic_load(&w->stops)) {
        int rc, n = (int)(rand_r(&seed) % KEYS);
        int64_t least = atomic_load(&w->kept[n]), value = read_key(w, n, &rc);
        atomic_fetch_add(rc == PERF_OK ? &w->served : rc == PERF_MISS ? &w->missed : &w->failed, 1);
        if (!rc && value < least)
            atomic_fetch_add(&w->stale, 1);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return NULL;
}

static void *write_on(void *arg)
{
    struct world *w = arg;
    for (int64_t value = 1000; !atomic_load(&w->stops); value++) {
        int rc = write_key(w, HOT + (int)(value % (KEYS - HOT)), value);
        atomic_fetch_add(rc ? &w->unwritten : &w->written, 1);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

/* The figures since the last time. */
static void report(struct world *w, const char *what)
{
    int64_t stale = atomic_load(&w->stale), longest = atomic_exchange(&w->longest_ms, 0);
    fprintf(stderr,
            "%s: reads: %lld served, %lld missed, %lld failed, %lld stale; writes: %lld kept, "
            "%lld not; longest call %lld ms\n",
            what, (long long)atomic_exchange(&w->served, 0),
            (long long)atomic_exchange(&w->missed, 0), (long long)atomic_exchange(&w->failed, 0),
            (long long)stale, (long long)atomic_exchange(&w->written, 0),
            (long long)atomic_exchange(&w->unwritten, 0), (long long)longest);
    cr_assert_eq(stale, 0, "%s", what);
    /* Each of two tiers in its time. */
    cr_assert(longest < 2 * TIMEOUT_MS + SLACK_MS, "%s: %lld ms", what, (long long)longest);
}

/* Milliseconds until both tiers take writes again and have been told what they missed; -1. */
static int64_t recovery(struct world *w)
{
    int64_t begun = now_ms();
    while (now_ms() - begun < 8000) {
        uint64_t repairs = 0;
        for (size_t i = 0; i < 2; i++) {
            perf_tier_stats s = PERF_TIER_STATS_INIT;
            cr_assert_eq(perf_cache_get_tier_stats(w->cache, i, &s), PERF_OK);
            repairs += s.repairs;
        }
        if (!repairs && write_key(w, 0, 1 + atomic_load(&w->kept[0])) == PERF_OK)
            return now_ms() - begun;
        sleep_ms(10);
    }
    return -1;
}

static void recovers(struct world *w, const char *what)
{
    int64_t ms = recovery(w);
    fprintf(stderr, "%s: recovered after %lld ms\n", what, (long long)ms);
    cr_assert_geq(ms, 0, "%s", what);
    report(w, what);
}

static perf_cache *open_cache(perf_aws *aws, const char *redis)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_tier_options tiers[2] = {PERF_TIER_OPTIONS_INIT, PERF_TIER_OPTIONS_INIT};
    perf_cache *cache = NULL;
    tiers[0].backend = "dynamodb";
    tiers[0].location = "outage";
    tiers[0].store_ctx = aws;
    tiers[0].timeout_ms = TIMEOUT_MS;
    tiers[1].backend = "redis";
    tiers[1].location = redis;
    tiers[1].timeout_ms = TIMEOUT_MS;
    options.memory_max_bytes = 8 << 20;
    options.coherence_ms = COHERENCE_MS;
    options.tiers = tiers;
    options.tier_count = 2;
    cr_assert_eq(perf_cache_open(&options, &cache), PERF_OK, "%s", perf_last_error());
    return cache;
}

static perf_aws *open_aws(int port)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    char url[64];
    test_unset_all("AWS_");
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "wJalrSECRETKEY", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = url;
    cr_assert_eq(perf_aws_open(&o, &aws), PERF_OK, "%s", perf_last_error());
    return aws;
}

/* Another process sees nothing that was overwritten, once the bound is over. */
static void agree(struct world *w, perf_aws *aws, const char *redis)
{
    perf_cache *other = open_cache(aws, redis), *own = w->cache;
    int wrong = 0, there = 0;
    sleep_ms(COHERENCE_MS);
    for (int n = 0; n < KEYS; n++) {
        int rc;
        w->cache = other;
        int64_t value = read_key(w, n, &rc);
        w->cache = own;
        there += rc == PERF_OK;
        wrong += rc < 0 || (!rc && value != atomic_load(&w->kept[n]));
    }
    fprintf(stderr, "another cache: %d of %d keys there, %d wrong\n", there, KEYS, wrong);
    cr_assert_eq(wrong, 0);
    cr_assert_eq(perf_cache_close(other), PERF_OK);
}

Test(cache_outage, redis_and_dynamodb_go_and_come_back, .timeout = 120)
{
    static struct world world;
    struct world *w = &world;
    static const struct test_redis durable = {.appendonly = true, .config = "appendfsync always\n"};
    struct test_server *dynamodb = test_server_dynamodb();
    struct test_server *redis = dynamodb ? test_server_redis(&durable) : NULL;
    struct test_server *proxy = redis ? test_server_toxiproxy(dynamodb->port) : NULL;
    if (!proxy)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *direct = open_aws(dynamodb->port), *aws = open_aws(proxy->ports[1]);
    perf_aws_tables_options tables = PERF_AWS_TABLES_OPTIONS_INIT;
    tables.aws = direct;
    tables.cache_table = "outage";
    tables.tables = PERF_AWS_TABLE_CACHE;
    cr_assert_eq(perf_aws_tables_ensure(&tables, NULL), PERF_OK, "%s", perf_last_error());
    w->cache = open_cache(aws, redis->url);
    int64_t begun = now_ms(); /* a DynamoDB that has just started is slow */
    for (int n = 0; n < KEYS; n++)
        while (write_key(w, n, 1) != PERF_OK)
            cr_assert_lt(now_ms() - begun, 20000, "%s", perf_last_error());
    cr_assert_geq(recovery(w), 0, "%s", perf_last_error());
    pthread_t threads[READERS + 1];
    atomic_store(&w->longest_ms, 0);
    for (int i = 0; i < READERS + 1; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i ? read_on : write_on, w), 0);
    sleep_ms(1000);
    report(w, "all is well");

    test_server_kill(redis);
    sleep_ms(1200);
    report(w, "redis killed");
    cr_assert(test_server_restart(redis), "%s", test_server_why());
    recovers(w, "redis back");

    cr_assert(test_toxic_add(proxy, "stall", "timeout", true, "\"timeout\": 0"));
    sleep_ms(1500);
    report(w, "dynamodb stalled");
    cr_assert(test_toxic_remove(proxy, "stall"));
    recovers(w, "dynamodb back");

    test_server_kill(redis);
    cr_assert(test_toxic_add(proxy, "stall", "timeout", true, "\"timeout\": 0"));
    sleep_ms(1500);
    report(w, "both gone");
    cr_assert(test_server_restart(redis), "%s", test_server_why());
    cr_assert(test_toxic_remove(proxy, "stall"));
    recovers(w, "both back");

    atomic_store(&w->stops, true);
    for (int i = 0; i < READERS + 1; i++)
        pthread_join(threads[i], NULL);
    cr_assert_geq(recovery(w), 0);
    agree(w, direct, redis->url);
    cr_assert_eq(perf_cache_close(w->cache), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    cr_assert_eq(perf_aws_close(direct), PERF_OK);
    test_server_stop(proxy);
    test_server_stop(redis);
    test_server_stop(dynamodb);
}
