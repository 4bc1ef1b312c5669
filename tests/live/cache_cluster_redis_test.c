/* SPDX-License-Identifier: MIT */
/*
 * The Redis tier on a cluster of three masters and their replicas: promises, leases over slots,
 * hearing, caches that share it, and a master that is killed while they do.
 */
#include <libperf/perf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/base/sync.h"
#include "../../src/net/redis_slot.h"
#include "seams.h"
#include "server.h"
#include "store_conformance.h"
#include "test.h"

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_us(long us)
{
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

static struct test_redis_cluster *start(void)
{
    struct test_redis_cluster *c = test_redis_cluster(NULL);
    if (!c)
        PERF_TEST_SKIP(test_server_why());
    return c;
}

static const char *location_of(struct test_redis_cluster *c)
{
    static char text[100];
    snprintf(text, sizeof text, "redis://127.0.0.1:%d?cluster=1", c->nodes[0]->port);
    return text;
}

static struct perf__store *open_store(struct test_redis_cluster *c, const struct perf__host *host)
{
    struct perf__store *store = NULL;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "redis";
    tier.location = location_of(c);
    tier.timeout_ms = 2000;
    cr_assert_eq(perf__store_open(&tier, host, &store), PERF_OK, "%s", perf_last_error());
    return store;
}

/* ------------------------------------------------------------------------- the store */

/* A batch over all nodes, none of which knows the scripts; each record lies where its slot says. */
static void check_batches(struct test_redis_cluster *c, const struct perf__host *host)
{
    enum { COUNT = 300 };
    static struct test_key own[COUNT];
    static perf_store_op ops[COUNT];
    struct perf__store *store = open_store(c, host);
    for (int n = 0; n < 3; n++)
        cr_assert(test_redis_says(c->nodes[n], "OK", "SCRIPT FLUSH"));
    for (uint64_t i = 0; i < COUNT; i++)
        ops[i] = test_set(&own[i], 5000 + i, "first", 5, 0);
    cr_assert_eq(perf__store_apply(store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    for (uint64_t i = 0; i < COUNT; i++) /* each key twice, a mark between them */
        ops[i] = i == 150 ? test_mark(4, "between", 5)
                 : i % 2  ? test_set(&own[i], 5000 + i / 2, "second", 6, 0)
                 : i % 3  ? test_set(&own[i], 5000 + i / 2, "lost", 4, 0)
                          : test_remove(&own[i], 5000 + i / 2);
    cr_assert_eq(perf__store_apply(store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    for (uint64_t i = 0; i < COUNT; i++)
        cr_assert(test_has(store, &host->allocator, 5000 + i, i < 150 ? "second" : "first",
                           i < 150 ? 6 : 5),
                  "%d", (int)i);
    for (int n = 0; n < 3; n++) {
        char *size = test_redis_cli(c->nodes[n], "DBSIZE");
        cr_assert(size && atoi(size) > 50, "%s on node %d", size, n);
        free(size);
    }
    perf__store_close(store);
}

static int apply_leased(struct perf__store *store, uint64_t n, const char *record, uint64_t lease)
{
    struct test_key own;
    perf_store_op op = test_set(&own, n, record, strlen(record), 0);
    op.lease = lease;
    return perf__store_apply(store, &op, 1);
}

static void check_leases(struct test_redis_cluster *c, const struct perf__host *host)
{
    struct perf__store *store = open_store(c, host), *other = open_store(c, host);
    for (uint64_t n = 6000; n < 6030; n++) { /* on all nodes */
        struct test_key own;
        perf_store_key key = test_key(&own, n);
        perf_store_op removal = test_remove(&own, n);
        uint64_t first, second;
        cr_assert_eq(perf__store_lease(store, &key, 10000, &first), PERF_OK, "%s",
                     perf_last_error());
        cr_assert_eq(perf__store_lease(other, &key, 10000, &second), PERF_EBUSY);
        cr_assert_eq(apply_leased(store, n, "made", first), PERF_OK, "%s", perf_last_error());
        cr_assert(test_has(other, &host->allocator, n, "made", 4));
        cr_assert_eq(perf__store_lease(store, &key, 10000, &second), PERF_OK);
        cr_assert(second > first);
        cr_assert_eq(n % 2 ? apply_leased(other, n, "newer", 0)
                           : perf__store_apply(other, &removal, 1),
                     PERF_OK);
        cr_assert_eq(apply_leased(store, n, "older", second), PERF_OK);
        cr_assert(!test_has(store, &host->allocator, n, "older", 5), "every change ends a lease");
        cr_assert_eq(perf__store_lease(other, &key, 10000, &second), PERF_OK);
        cr_assert_eq(perf__store_unlease(other, &key, second), PERF_OK);
    }
    char *left = NULL;
    for (int n = 0; n < 3; n++) {
        left = test_redis_cli(c->nodes[n], "KEYS perf.l*");
        cr_assert_str_eq(left, "", "%s", left);
        free(left);
    }
    perf__store_close(store);
    perf__store_close(other);
}

struct ears {
    perf_store_listener listener;
    _Atomic int changes, marks, hears;
};

static void on_changed(void *ctx, const perf_store_key *key)
{
    struct ears *e = ctx; /* of 7000 to 7099: what was written before may still be on its way */
    if (key->ns.len == 2 && !memcmp(key->ns.data, "ns", 2) && key->key.len == 8 &&
        !memcmp(key->key.data, "key-70", 6))
        atomic_fetch_add(&e->changes, 1);
}

static void on_marked(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    (void)kind, (void)stamp_ms;
    if (name.len == 4 && !memcmp(name.data, "told", 4))
        atomic_fetch_add(&((struct ears *)ctx)->marks, 1);
}

static void on_heard(void *ctx, int deaf)
{
    if (!deaf)
        atomic_fetch_add(&((struct ears *)ctx)->hears, 1);
}

static bool reaches(_Atomic int *count, int n)
{
    for (int i = 0; i < 10000 && atomic_load(count) < n; i++)
        sleep_us(1000);
    return atomic_load(count) == n;
}

/* One connection to any node hears what is written on all. */
static void check_hearing(struct test_redis_cluster *c, const struct perf__host *host)
{
    enum { COUNT = 60 };
    struct perf__store *store = open_store(c, host), *other = open_store(c, host);
    struct ears e = {0};
    static struct test_key own[COUNT];
    perf_store_op ops[COUNT];
    e.listener = (perf_store_listener){sizeof e.listener, &e, on_changed, on_marked, on_heard};
    cr_assert_eq(perf__store_listen(store, &e.listener), PERF_MISS,
                 "it may miss some, and says so");
    cr_assert(reaches(&e.hears, 1));
    for (uint64_t i = 0; i < COUNT; i++)
        ops[i] = i % 3 ? test_set(&own[i], 7000 + i, "x", 1, 0) : test_remove(&own[i], 7000 + i);
    cr_assert_eq(perf__store_apply(store, ops, COUNT), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_apply(other, ops, COUNT), PERF_OK, "%s", perf_last_error());
    perf_store_op mark = test_mark(4, "told", 70);
    cr_assert_eq(perf__store_apply(store, &mark, 1), PERF_OK);
    mark.mark_stamp_ms++;
    cr_assert_eq(perf__store_apply(other, &mark, 1), PERF_OK);
    cr_assert_eq(apply_leased(other, 7000, "left out", 1), PERF_OK);
    cr_assert(reaches(&e.changes, COUNT), "%d changes", e.changes);
    cr_assert(reaches(&e.marks, 1), "%d marks", e.marks);
    cr_assert(
        test_redis_says(c->nodes[1], "0", "PUBLISH perf.changed 'me perf:ns:user:key-7099'") ||
        atomic_load(&e.changes) >= COUNT);
    cr_assert(reaches(&e.changes, COUNT + 1), "an operator may publish on any node");
    perf__store_close(store);
    perf__store_close(other);
}

static void check_options(struct test_redis_cluster *c, const struct perf__host *host)
{
    struct perf__store *store = NULL;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    perf_redis_options redis = PERF_REDIS_OPTIONS_INIT;
    char location[120];
    tier.backend = "redis";
    tier.timeout_ms = 2000;
    tier.location = location;
    snprintf(location, sizeof location, "%s&tracking=1", location_of(c));
    cr_assert_eq(perf__store_open(&tier, host, &store), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "tracking=1"), "%s", perf_last_error());
    snprintf(location, sizeof location, "%s2", location_of(c));
    cr_assert_eq(perf__store_open(&tier, host, &store), PERF_EINVAL);
    redis.read_replicas = 1;
    redis.mode = PERF_REDIS_CLUSTER;
    redis.port = c->nodes[2]->port;
    tier.store_ctx = &redis;
    snprintf(location, sizeof location, "?prefix=by-ctx");
    cr_assert_eq(perf__store_open(&tier, host, &store), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "read_replicas"), "%s", perf_last_error());
    redis.read_replicas = 0;
    cr_assert_eq(perf__store_open(&tier, host, &store), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(apply_leased(store, 1, "by ctx", 0), PERF_OK, "%s", perf_last_error());
    cr_assert(test_has(store, &host->allocator, 1, "by ctx", 6));
    perf__store_close(store);
}

/* While a slot moves, a record is there and its lease here: the write comes again until it can. */
static void check_moving(struct test_redis_cluster *c, const struct perf__host *host)
{
    struct perf__store *store = open_store(c, host);
    struct test_key own;
    uint64_t n = 8000;
    char name[80];
    int32_t slot;
    do { /* one that node 0 has */
        perf_store_key key = test_key(&own, ++n);
        snprintf(name, sizeof name, "perf:ns:user:%.*s", (int)key.key.len, own.name);
        slot = perf__redis_slot(name, strlen(name));
    } while (slot > 5000);
    char *from = test_redis_cli(c->nodes[0], "CLUSTER MYID"),
         *to = test_redis_cli(c->nodes[1], "CLUSTER MYID");
    cr_assert_eq(apply_leased(store, n, "before", 0), PERF_OK);
    cr_assert(test_redis_says(c->nodes[1], "OK", "CLUSTER SETSLOT %d IMPORTING %s", slot, from));
    cr_assert(test_redis_says(c->nodes[0], "OK", "CLUSTER SETSLOT %d MIGRATING %s", slot, to));
    int64_t begun = now_ms();
    cr_assert_neq(apply_leased(store, n, "during", 0), PERF_OK, "two keys of which one is here");
    cr_assert(now_ms() - begun < 2400, "and within its time");
    cr_assert(test_has(store, &host->allocator, n, "before", 6));
    cr_assert(test_redis_says(c->nodes[0], "OK", "MIGRATE 127.0.0.1 %d %s 0 5000",
                              c->nodes[1]->port, name));
    cr_assert(test_has(store, &host->allocator, n, "before", 6), "reads follow");
    for (int i = 0; i < 3; i++)
        cr_assert(test_redis_says(c->nodes[i], "OK", "CLUSTER SETSLOT %d NODE %s", slot, to));
    cr_assert_eq(apply_leased(store, n, "after", 0), PERF_OK, "%s", perf_last_error());
    cr_assert(test_has(store, &host->allocator, n, "after", 5));
    free(from);
    free(to);
    perf__store_close(store);
}

static void check_allocations(struct test_redis_cluster *c)
{
    struct test_host th;
    struct perf__host host;
    bool failed = true;
    int n;
    cr_assert_eq(perf__host_take(test_host_init(&th), &host), PERF_OK);
    host.view = (perf_host){sizeof(perf_host), &host.allocator, &host.clock, &host.log};
    for (n = 1; failed && n < 400; n++) {
        struct ears e = {0};
        struct test_key own[3];
        struct perf__store *store = NULL;
        perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
        perf_store_op ops[] = {test_set(&own[0], 1, "a", 1, 0), test_mark(4, "a", 5),
                               test_remove(&own[1], 2), test_set(&own[2], 3, "b", 1, 0)};
        e.listener = (perf_store_listener){sizeof e.listener, &e, on_changed, on_marked, on_heard};
        tier.backend = "redis";
        tier.location = location_of(c);
        tier.timeout_ms = 50; /* a map that could not be read is waited for */
        atomic_store(&th.failed, 0);
        atomic_store(&th.fail_at, n);
        int rc = perf__store_open(&tier, &host, &store);
        if (!rc) {
            (void)perf__store_listen(store, &e.listener);
            (void)perf__store_apply(store, ops, 4);
            perf__store_close(store);
        }
        failed = atomic_load(&th.failed) > 0;
        atomic_store(&th.fail_at, 0);
        cr_assert_eq(atomic_load(&th.live), 0, "%lld blocks leaked at %d",
                     (long long)atomic_load(&th.live), n);
    }
    cr_assert(n > 20 && !failed, "%d", n);
}

Test(cluster_redis_tier, keeps_its_promises, .timeout = 120)
{
    struct test_redis_cluster *c = start();
    struct perf__host host;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    cr_assert_eq(perf__host_take(NULL, &host), PERF_OK);
    tier.backend = "redis";
    tier.location = location_of(c);
    tier.timeout_ms = 2000;
    store_conformance(&tier);
    check_batches(c, &host);
    check_leases(c, &host);
    check_hearing(c, &host);
    check_options(c, &host);
    check_allocations(c);
    check_moving(c, &host);
    test_redis_cluster_stop(c);
}

/* ------------------------------------------------------------------------ the cache */

enum { COHERENCE_MS = 500, TIMEOUT_MS = 1000 };

static perf_cache *open_cache(struct test_redis_cluster *c)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    perf_cache *cache = NULL;
    tier.backend = "redis";
    tier.location = location_of(c);
    tier.timeout_ms = TIMEOUT_MS;
    options.memory_max_bytes = 16 << 20;
    options.coherence_ms = COHERENCE_MS;
    options.tiers = &tier;
    options.tier_count = 1;
    cr_assert_eq(perf_cache_open(&options, &cache), PERF_OK, "%s", perf_last_error());
    return cache;
}

static int set(perf_cache *cache, const char *key, const char *value)
{
    return perf_cache_set(cache, "ns", NULL, key, strlen(key), value, strlen(value), 600000);
}

static bool has(perf_cache *cache, const char *key, const char *value)
{
    char text[100];
    size_t len = 0;
    int rc = perf_cache_get_copy(cache, "ns", NULL, key, strlen(key), text, sizeof text, &len);
    return value ? !rc && len == strlen(value) && !memcmp(text, value, len) : rc == PERF_MISS;
}

/* Milliseconds until it is so, or -1 after 10 s. */
static int64_t until_has(perf_cache *cache, const char *key, const char *value)
{
    int64_t begun = now_ms();
    while (!has(cache, key, value)) {
        if (now_ms() - begun > 10000)
            return -1;
        sleep_us(50);
    }
    return now_ms() - begun;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void see_writes(perf_cache *a, perf_cache *b)
{
    enum { ROUNDS = 200 };
    int64_t took[ROUNDS];
    char key[20], value[20];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(key, sizeof key, "k%d", i % 20);
        snprintf(value, sizeof value, "%d", i);
        cr_assert_eq(set(i % 2 ? a : b, key, value), PERF_OK, "%s", perf_last_error());
        took[i] = until_has(i % 2 ? b : a, key, value);
        cr_assert(took[i] >= 0, "round %d", i);
    }
    qsort(took, ROUNDS, sizeof *took, by_size);
    fprintf(stderr, "cluster: write to seen: median %lld ms, p99 %lld ms\n",
            (long long)took[ROUNDS / 2], (long long)took[ROUNDS * 99 / 100]);
    cr_assert(took[ROUNDS / 2] < 100, "it is told, and not only asked");
    cr_assert_eq(perf_cache_delete(a, "ns", NULL, "k1", 2), PERF_OK);
    cr_assert(until_has(b, "k1", NULL) >= 0);
    cr_assert(has(b, "k2", NULL) == false);
    cr_assert_eq(perf_cache_invalidate_namespace(a, "ns"), PERF_OK);
    cr_assert(until_has(b, "k2", NULL) >= 0 && has(a, "k3", NULL));
}

/* What is not told is asked for. */
static void bound(struct test_redis_cluster *c, perf_cache *a)
{
    cr_assert_eq(set(a, "silent", "old"), PERF_OK);
    cr_assert(has(a, "silent", "old"));
    for (int n = 0; n < 3; n++) {
        if (perf__redis_slot("perf:ns::silent", 15) / 5462 != n)
            continue;
        cr_assert(test_redis_says(c->nodes[n], "1", "DEL perf:ns::silent"), "%s",
                  test_server_why());
    }
    int64_t took = until_has(a, "silent", NULL);
    cr_assert(took >= 0 && took < COHERENCE_MS + 300, "%lld ms", (long long)took);
    /* The same for a mark: the set of marks is changed, and nobody is told. */
    cr_assert_eq(set(a, "marked", "old"), PERF_OK);
    cr_assert(has(a, "marked", "old"));
    int64_t realtime;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    realtime = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + 1000;
    int n = perf__redis_slot("perf.marks", 10) / 5462;
    cr_assert(
        test_redis_says(c->nodes[n], "1", "ZADD perf.marks %lld 2:other", (long long)realtime),
        "%s", test_server_why());
    cr_assert_eq(perf_cache_set(a, "other", NULL, "k", 1, "v", 1, 600000), PERF_OK);
    size_t len;
    char buf[8];
    int64_t begun = now_ms();
    while (perf_cache_get_copy(a, "other", NULL, "k", 1, buf, sizeof buf, &len) != PERF_MISS &&
           now_ms() - begun < 5000)
        sleep_us(1000);
    cr_assert(now_ms() - begun < COHERENCE_MS + 300, "%lld ms", (long long)(now_ms() - begun));
}

/* --------------------------------------------------------------- a master is killed */

enum { KEYS = 64, HISTORY = 1024, READERS = 4, SLACK_MS = 50 };

/* What was written under a key, and when that was acknowledged. */
struct history {
    pthread_mutex_t mutex;
    struct {
        int64_t value, at_ms;
    } acked[HISTORY];
    size_t count;
    int64_t last_tried, last_acked;
};

struct world {
    struct history histories[KEYS];
    _Atomic int64_t killed_ms; /* 0: not yet */
    _Atomic bool stops;
};

struct worker {
    pthread_t thread;
    struct world *world;
    perf_cache *cache;
    unsigned seed;
    int64_t ok, missed, failed, stale, oldest_ms, longest_ms;
};

static void *write_on(void *arg)
{
    struct worker *w = arg;
    for (int64_t value = 1; !atomic_load(&w->world->stops); value++) {
        char key[20], text[24];
        struct history *h = &w->world->histories[value % KEYS];
        snprintf(key, sizeof key, "key-%d", (int)(value % KEYS));
        snprintf(text, sizeof text, "%lld", (long long)value);
        h->last_tried = value;
        int64_t begun = now_ms();
        int rc = set(w->cache, key, text);
        int64_t ended = now_ms();
        w->longest_ms = ended - begun > w->longest_ms ? ended - begun : w->longest_ms;
        if (!rc) {
            pthread_mutex_lock(&h->mutex);
            h->acked[h->count % HISTORY].value = value;
            h->acked[h->count++ % HISTORY].at_ms = ended;
            h->last_acked = value;
            pthread_mutex_unlock(&h->mutex);
        }
        *(rc ? &w->failed : &w->ok) += 1;
        sleep_us(200);
    }
    return NULL;
}

/* How long a newer value has been there, in milliseconds at a time; 0: it is the newest. The last
 * writes before a master dies may die with it: libperf-redis(7). */
static int64_t age(struct world *world, struct history *h, int64_t value, int64_t at_ms)
{
    int64_t killed = atomic_load(&world->killed_ms), oldest = 0;
    pthread_mutex_lock(&h->mutex);
    for (size_t i = h->count > HISTORY ? h->count - HISTORY : 0; i < h->count; i++) {
        int64_t acked = h->acked[i % HISTORY].at_ms;
        if (h->acked[i % HISTORY].value <= value || (acked <= killed && acked > killed - SLACK_MS))
            continue;
        oldest = at_ms - acked;
        break;
    }
    pthread_mutex_unlock(&h->mutex);
    return oldest > 0 ? oldest : 0;
}

static void *read_on(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->world->stops)) {
        char key[20], text[24] = "";
        size_t len = 0;
        int n = (int)(rand_r(&w->seed) % KEYS);
        snprintf(key, sizeof key, "key-%d", n);
        int64_t begun = now_ms();
        int rc = perf_cache_get_copy(w->cache, "ns", NULL, key, strlen(key), text, sizeof text - 1,
                                     &len);
        int64_t took = now_ms() - begun;
        w->longest_ms = took > w->longest_ms ? took : w->longest_ms;
        *(rc == PERF_OK ? &w->ok : rc == PERF_MISS ? &w->missed : &w->failed) += 1;
        if (rc == PERF_OK) {
            text[len] = '\0';
            int64_t old = age(w->world, &w->world->histories[n], atoll(text), begun);
            w->oldest_ms = old > w->oldest_ms ? old : w->oldest_ms;
            w->stale += old > COHERENCE_MS + TIMEOUT_MS;
        }
        sleep_us(200);
    }
    return NULL;
}

static void report(const char *who, const struct worker *w)
{
    fprintf(stderr,
            "cluster, a master killed: %s: %lld ok, %lld missed, %lld failed, longest call %lld "
            "ms, oldest value %lld ms, %lld beyond the bound\n",
            who, (long long)w->ok, (long long)w->missed, (long long)w->failed,
            (long long)w->longest_ms, (long long)w->oldest_ms, (long long)w->stale);
}

static void kill_under_load(struct test_redis_cluster *c, perf_cache *a, perf_cache *b)
{
    static struct world world;
    struct worker writer = {.world = &world, .cache = a}, readers[READERS];
    for (int i = 0; i < KEYS; i++)
        pthread_mutex_init(&world.histories[i].mutex, NULL);
    cr_assert_eq(pthread_create(&writer.thread, NULL, write_on, &writer), 0);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct worker){.world = &world, .cache = b, .seed = (unsigned)i};
        cr_assert_eq(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    }
    sleep_us(1000000);
    atomic_store(&world.killed_ms, now_ms());
    test_server_kill(c->nodes[1]);
    /* A replica takes over; then everything can be written again. */
    int64_t begun = now_ms();
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    bool seen = false, calm = false;
    while (!calm && now_ms() - begun < 20000) {
        sleep_us(20000);
        cr_assert_eq(perf_cache_get_tier_stats(a, 0, &stats), PERF_OK);
        seen |= stats.repairs > 0;
        calm = seen && stats.repairs == 0;
    }
    int64_t recovered = now_ms() - begun;
    sleep_us(1000000);
    atomic_store(&world.stops, true);
    pthread_join(writer.thread, NULL);
    report("writer", &writer);
    struct worker all = {0};
    for (int i = 0; i < READERS; i++) {
        const struct worker *w = &readers[i];
        pthread_join(w->thread, NULL);
        all.ok += w->ok;
        all.missed += w->missed;
        all.failed += w->failed;
        all.stale += w->stale;
        all.oldest_ms = w->oldest_ms > all.oldest_ms ? w->oldest_ms : all.oldest_ms;
        all.longest_ms = w->longest_ms > all.longest_ms ? w->longest_ms : all.longest_ms;
    }
    report("readers", &all);
    fprintf(stderr, "cluster, a master killed: repaired after %lld ms, %lld removals\n",
            (long long)recovered, (long long)stats.repaired);
    cr_assert(calm, "what was missed is repaired");
    cr_assert(writer.failed > 0 && stats.repaired > 0);
    cr_assert_eq(all.stale, 0);
    cr_assert(writer.longest_ms < TIMEOUT_MS + 400 && all.longest_ms < TIMEOUT_MS + 400);
    for (int i = 0; i < 5000; i++, sleep_us(1000)) { /* and the last writes */
        cr_assert_eq(perf_cache_get_tier_stats(a, 0, &stats), PERF_OK);
        if (!stats.repairs)
            break;
    }
    sleep_us((COHERENCE_MS + 100) * 1000);
    for (int i = 0; i < KEYS; i++) {
        const struct history *h = &world.histories[i];
        char key[20], wanted[24];
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(wanted, sizeof wanted, "%lld", (long long)h->last_acked);
        cr_assert(h->last_acked == h->last_tried ? has(b, key, wanted) : has(b, key, NULL),
                  "%s: %lld was acknowledged, %lld tried", key, (long long)h->last_acked,
                  (long long)h->last_tried);
    }
}

Test(cluster_redis_tier, caches_share_it, .timeout = 120)
{
    struct test_redis_cluster *c = start();
    perf_cache *a = open_cache(c), *b = open_cache(c);
    see_writes(a, b);
    bound(c, a);
    kill_under_load(c, a, b);
    perf_cache_close(a);
    perf_cache_close(b);
    test_redis_cluster_stop(c);
}
