/* SPDX-License-Identifier: MIT */
/* The Redis backend against a real server: promises, names, leases, marks, listening. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../src/base/sync.h"
#include "../../src/store/redis_store.h"
#include "seams.h"
#include "server.h"
#include "store_conformance.h"
#include "test.h"

struct fixture {
    struct test_server *server;
    struct perf__host host;
    struct perf__store *store;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static struct perf__store *open_at(struct fixture *f, const char *parameters)
{
    char location[200];
    struct perf__store *store;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    snprintf(location, sizeof location, "%s%s", f->server->url, parameters);
    tier.backend = "redis";
    tier.location = location;
    tier.timeout_ms = 2000;
    int rc = perf__store_open(&tier, &f->host, &store);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return store;
}

static void set_up_with(struct fixture *f, const struct test_redis *asked)
{
    *f = (struct fixture){.server = test_server_redis(asked)};
    if (!f->server)
        PERF_TEST_SKIP(test_server_why());
    cr_assert_eq(perf__host_take(NULL, &f->host), PERF_OK);
}

static void set_up(struct fixture *f)
{
    set_up_with(f, NULL);
    f->store = open_at(f, "");
}

static void tear_down(struct fixture *f)
{
    perf__store_close(f->store);
    test_server_stop(f->server);
}

static perf_store_key key_of(const char *ns, const char *user, const char *key)
{
    static const uint8_t id[PERF_STORE_ID_SIZE];
    return (perf_store_key){id, {ns, strlen(ns)}, {user, strlen(user)}, {key, strlen(key)}};
}

static int apply_set(struct perf__store *store, perf_store_key key, const char *record,
                     int64_t expire_ms, uint64_t lease)
{
    const perf_store_op op = {.kind = PERF_STORE_SET,
                              .key = key,
                              .record = {record, strlen(record)},
                              .expire_ms = expire_ms,
                              .lease = lease};
    return perf__store_apply(store, &op, 1);
}

static int apply_remove(struct perf__store *store, perf_store_key key)
{
    const perf_store_op op = {.kind = PERF_STORE_REMOVE, .key = key};
    return perf__store_apply(store, &op, 1);
}

static bool holds(struct fixture *f, struct perf__store *store, perf_store_key key,
                  const char *record)
{
    perf_store_reply reply = {.allocator = &f->host.allocator};
    int rc = perf__store_get(store, &key, &reply);
    bool same = record ? rc == PERF_OK && reply.len == strlen(record) &&
                             !memcmp(reply.data, record, reply.len)
                       : rc == PERF_MISS;
    perf__reply_free(&reply);
    return same;
}

/* -------------------------------------------------------------------- promises */

static void conform(const char *parameters)
{
    struct fixture f;
    char location[100];
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    set_up_with(&f, NULL);
    snprintf(location, sizeof location, "%s%s", f.server->url, parameters);
    tier.backend = "redis";
    tier.location = location;
    tier.timeout_ms = 2000;
    store_conformance(&tier);
    test_server_stop(f.server);
}

Test(redis_store, keeps_its_promises, .timeout = 60)
{
    conform("");
}

Test(redis_store, keeps_them_without_tracking, .timeout = 60)
{
    conform("/3?tracking=0&prefix=other");
}

Test(redis_store, keys_can_be_read_by_operators, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    cr_assert_eq(apply_set(f.store, key_of("courses", "", "42"), "hello", 0, 0), PERF_OK);
    cr_assert(test_redis_says(f.server, "hello", "GET perf:courses::42"), "%s", test_server_why());
    cr_assert_eq(apply_set(f.store, key_of("a:b", "50%", "{x}"), "hostile", 0, 0), PERF_OK);
    cr_assert(test_redis_says(f.server, "hostile", "GET 'perf:a%%3Ab:50%%25:%%7Bx%%7D'"), "%s",
              test_server_why());
    cr_assert(test_redis_says(f.server, "1", "DEL perf:courses::42"));
    cr_assert(holds(&f, f.store, key_of("courses", "", "42"), NULL));
    tear_down(&f);
}

Test(redis_store, long_keys_with_any_bytes, .timeout = 60)
{
    struct fixture f;
    static char ns[256], user[256], bytes[PERF__REDIS_KEY_MAX];
    set_up(&f);
    memset(ns, '%', 255);
    memset(user, ':', 255);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 31);
    perf_store_key key = key_of(ns, user, "");
    key.key = (perf_bytes){bytes, sizeof bytes};
    cr_assert_eq(apply_set(f.store, key, "far", 0, 0), PERF_OK, "%s", perf_last_error());
    cr_assert(holds(&f, f.store, key, "far"));
    uint64_t token;
    cr_assert_eq(perf__store_lease(f.store, &key, 1000, &token), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(apply_set(f.store, key, "leased", 0, token), PERF_OK, "%s", perf_last_error());
    cr_assert(holds(&f, f.store, key, "leased"));
    tear_down(&f);
}

Test(redis_store, records_expire_by_a_time_from_now, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    int64_t now = f.host.clock.realtime_ms(f.host.clock.ctx);
    cr_assert_eq(apply_set(f.store, key_of("n", "", "a"), "x", now + 100000, 0), PERF_OK);
    char *pttl = test_redis_cli(f.server, "PTTL perf:n::a");
    cr_assert(pttl && atol(pttl) > 90000 && atol(pttl) <= 100000, "%s", pttl ? pttl : "nothing");
    free(pttl);
    uint64_t token;
    perf_store_key key = key_of("n", "", "b");
    cr_assert_eq(perf__store_lease(f.store, &key, 1000, &token), PERF_OK);
    cr_assert_eq(apply_set(f.store, key, "x", now + 100000, token), PERF_OK);
    pttl = test_redis_cli(f.server, "PTTL perf:n::b");
    cr_assert(pttl && atol(pttl) > 90000 && atol(pttl) <= 100000, "%s", pttl ? pttl : "nothing");
    free(pttl);
    cr_assert_eq(apply_set(f.store, key_of("n", "", "a"), "late", now - 5, 0), PERF_OK);
    for (int i = 0; i < 1000 && !holds(&f, f.store, key_of("n", "", "a"), NULL); i++)
        sleep_ms(1);
    cr_assert(holds(&f, f.store, key_of("n", "", "a"), NULL), "what is over is gone");
    cr_assert_eq(apply_set(f.store, key_of("n", "", "a"), "x", INT64_MAX, 0), PERF_OK, "%s",
                 perf_last_error());
    tear_down(&f);
}

/* Not a record: whoever reads it finds it damaged, and other keys are not kept from anybody. */
Test(redis_store, foreign_types_are_damaged_records, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    perf_store_key keys[2] = {key_of("n", "", "list"), key_of("n", "", "good")};
    perf_store_reply replies[2] = {{.allocator = &f.host.allocator},
                                   {.allocator = &f.host.allocator}};
    perf_store_reply *pointers[2] = {&replies[0], &replies[1]};
    cr_assert(test_redis_says(f.server, "1", "RPUSH perf:n::list a"));
    cr_assert_eq(apply_set(f.store, keys[1], "good", 0, 0), PERF_OK);
    cr_assert_eq(perf__store_get(f.store, &keys[0], &replies[0]), PERF_OK);
    cr_assert_eq(replies[0].len, 0);
    cr_assert_eq(perf__store_get_many(f.store, keys, 2, pointers), PERF_OK);
    cr_assert(replies[0].found && replies[0].len == 0 && replies[1].found && replies[1].len == 4);
    cr_assert_eq(apply_set(f.store, keys[0], "mended", 0, 0), PERF_OK);
    cr_assert(holds(&f, f.store, keys[0], "mended"));
    perf__reply_free(&replies[0]);
    perf__reply_free(&replies[1]);
    tear_down(&f);
}

Test(redis_store, options_are_checked, .timeout = 60)
{
    struct perf__host host;
    struct perf__store *store;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    cr_assert_eq(perf__host_take(NULL, &host), PERF_OK);
    test_unset_all("REDIS_ENDPOINT");
    tier.backend = "redis";
    tier.timeout_ms = 100;
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "REDIS_ENDPOINT"), "%s", perf_last_error());
    tier.location = "redis://127.0.0.1:1?nonsense=1";
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_EINVAL);
    tier.location = "redis://127.0.0.1:1";
    tier.sync = PERF_SYNC_FULL;
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_EUNSUPPORTED);
    tier.sync = PERF_SYNC_NORMAL;
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.port = 70000;
    tier.location = NULL;
    tier.store_ctx = &o;
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_EINVAL);
    o.port = 1;
    tier.location = "?prefix=x";
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_OK, "a server may come later: %s",
                 perf_last_error());
    struct test_key own;
    perf_store_key key = test_key(&own, 1);
    perf_store_reply reply = {.allocator = &host.allocator};
    int rc = perf__store_get(store, &key, &reply);
    cr_assert(rc == PERF_EUNAVAILABLE, "%d %s", rc, perf_last_error());
    perf__store_close(store);
    setenv("REDIS_ENDPOINT", "127.0.0.1:1", 1);
    tier.store_ctx = NULL;
    tier.location = NULL;
    cr_assert_eq(perf__store_open(&tier, &host, &store), PERF_OK, "%s", perf_last_error());
    perf__store_close(store);
    unsetenv("REDIS_ENDPOINT");
}

Test(redis_store, what_is_refused_is_said_so, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    struct test_key own;
    char *big = calloc(1, (32 << 20) + 1);
    perf_store_op op = test_set(&own, 1, big, (32 << 20) + 1, 0);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_ETOOBIG);
    op.record.len--;
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK, "%s", perf_last_error());
    cr_assert(test_has(f.store, &f.host.allocator, 1, big, 32 << 20));
    free(big);
    op.kind = 9;
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_EINVAL);
    op = test_mark(4, "a", -1);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_EINVAL);
    /* A full server: an error, and what was there may go. */
    cr_assert(test_redis_says(f.server, "OK", "CONFIG SET maxmemory 1"));
    cr_assert_eq(apply_set(f.store, key_of("n", "", "a"), "x", 0, 0), PERF_ETHROTTLED, "%s",
                 perf_last_error());
    cr_assert_eq(apply_remove(f.store, key_of("n", "", "a")), PERF_OK, "%s", perf_last_error());
    tear_down(&f);
}

/* ---------------------------------------------------------------------- leases */

Test(redis_store, a_lease_is_one_s_at_a_time, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    struct perf__store *other = open_at(&f, "");
    perf_store_key key = key_of("n", "u", "k");
    uint64_t first, second, none;
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &first), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_lease(other, &key, 10000, &none), PERF_EBUSY);
    cr_assert_eq(perf__store_unlease(other, &key, first + 1), PERF_OK);
    cr_assert_eq(perf__store_lease(other, &key, 10000, &none), PERF_EBUSY, "not his to give back");
    cr_assert_eq(perf__store_unlease(f.store, &key, first), PERF_OK);
    cr_assert_eq(perf__store_lease(other, &key, 10000, &second), PERF_OK);
    cr_assert(second > first);
    cr_assert_eq(apply_set(f.store, key, "late", 0, first), PERF_OK);
    cr_assert(holds(&f, other, key, NULL), "an old lease writes nothing");
    cr_assert_eq(apply_set(other, key, "made", 0, second), PERF_OK);
    cr_assert(holds(&f, f.store, key, "made"));
    cr_assert_eq(apply_set(other, key, "again", 0, second), PERF_OK);
    cr_assert(holds(&f, f.store, key, "made"), "a lease is for one write");
    cr_assert(test_redis_says(f.server, "1", "DBSIZE"), "nothing is left beside the record");
    perf__store_close(other);
    tear_down(&f);
}

Test(redis_store, leases_are_renewed_and_taken_in_batches, .timeout = 60)
{
    enum { COUNT = 300 };
    struct fixture f;
    struct test_key own[COUNT];
    perf_store_key keys[COUNT], key = key_of("n", "", "k");
    uint64_t tokens[COUNT] = {0}, token;
    set_up(&f);
    cr_assert_eq(perf__store_lease(f.store, &key, 50, &token), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_renew(f.store, &key, 100000, token), PERF_OK, "renewed");
    char *pttl = test_redis_cli(f.server, "PTTL 'perf.lease:{perf:n::k}'");
    cr_assert(pttl && atol(pttl) > 90000, "%s", pttl ? pttl : "nothing");
    free(pttl);
    cr_assert_eq(perf__store_renew(f.store, &key, 1000, token - 1), PERF_EBUSY, "another's");
    cr_assert_eq(perf__store_unlease(f.store, &key, token), PERF_OK);
    cr_assert_eq(perf__store_renew(f.store, &key, 1000, token), PERF_EBUSY, "held no more");

    for (uint64_t i = 0; i < COUNT; i++)
        keys[i] = test_key(&own[i], i);
    for (size_t i = 0; i < COUNT; i += 3)
        cr_assert_eq(perf__store_lease(f.store, &keys[i], 100000, &token), PERF_OK);
    cr_assert(test_redis_says(f.server, "OK", "SCRIPT FLUSH"));
    cr_assert_eq(perf__store_lease_many(f.store, keys, COUNT, 100000, tokens), PERF_OK, "%s",
                 perf_last_error());
    for (size_t i = 0; i < COUNT; i++)
        cr_assert_eq(tokens[i] != 0, i % 3 != 0, "%zu", i);
    cr_assert_eq(perf__store_lease_many(f.store, keys + 1, 2, 100000, tokens + 1), PERF_OK);
    cr_assert(tokens[1] && tokens[2], "renewed");
    perf_store_op op = test_set(&own[1], 1, "made", 4, 0);
    op.lease = tokens[1];
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    cr_assert(test_has(f.store, &f.host.allocator, 1, "made", 4));
    tear_down(&f);
}

Test(redis_store, every_change_ends_a_lease, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    struct perf__store *other = open_at(&f, "");
    perf_store_key key = key_of("n", "", "k");
    for (int removes = 0; removes < 2; removes++) {
        uint64_t token;
        cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
        if (removes)
            cr_assert_eq(apply_remove(other, key), PERF_OK);
        else
            cr_assert_eq(apply_set(other, key, "new", 0, 0), PERF_OK);
        cr_assert_eq(apply_set(f.store, key, "old", 0, token), PERF_OK);
        cr_assert(holds(&f, f.store, key, removes ? NULL : "new"));
    }
    /* In one batch, in its order. */
    uint64_t token;
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
    const perf_store_op ops[] = {
        {.kind = PERF_STORE_SET, .key = key, .record = {"one", 3}, .lease = token},
        {.kind = PERF_STORE_SET, .key = key, .record = {"two", 3}, .lease = token},
        {.kind = PERF_STORE_MARK, .mark_kind = 4, .mark_name = {"a", 1}, .mark_stamp_ms = 1},
        {.kind = PERF_STORE_REMOVE, .key = key_of("n", "", "j")},
    };
    cr_assert_eq(perf__store_apply(f.store, ops, 4), PERF_OK, "%s", perf_last_error());
    cr_assert(holds(&f, f.store, key, "one"));
    perf__store_close(other);
    tear_down(&f);
}

Test(redis_store, tokens_grow_over_expiry_restart_and_lost_scripts, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    perf_store_key key = key_of("n", "", "k");
    uint64_t last = 0, token;
    for (int i = 0; i < 2000; i++) {
        cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
        cr_assert(token > last, "%llu after %llu", (unsigned long long)token,
                  (unsigned long long)last);
        last = token;
        cr_assert_eq(perf__store_unlease(f.store, &key, token), PERF_OK);
    }
    cr_assert_eq(perf__store_lease(f.store, &key, 1, &token), PERF_OK);
    for (int i = 0; i < 1000; i++, sleep_ms(1))
        if (perf__store_lease(f.store, &key, 10000, &last) == PERF_OK)
            break;
    cr_assert(last > token, "a lease ends by itself");
    cr_assert(test_redis_says(f.server, "OK", "SCRIPT FLUSH"));
    cr_assert_eq(apply_set(f.store, key, "made", 0, last), PERF_OK, "%s", perf_last_error());
    cr_assert(holds(&f, f.store, key, "made"), "a script is told again");
    cr_assert(test_server_restart(f.server), "%s", test_server_why());
    int rc;
    for (int i = 0; i < 3000 && (rc = perf__store_lease(f.store, &key, 10000, &token)); i++)
        sleep_ms(1);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert(token > last);
    cr_assert_eq(apply_set(f.store, key, "old", 0, last), PERF_OK);
    cr_assert(holds(&f, f.store, key, NULL), "a lease from before the restart writes nothing");
    tear_down(&f);
}

struct racer {
    pthread_t thread;
    struct perf__store *store;
    _Atomic int *inside;
    _Atomic uint64_t *newest;
    int taken, wrong;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    perf_store_key key = key_of("n", "", "raced");
    for (int i = 0; i < 200; i++) {
        uint64_t token;
        int rc = perf__store_lease(r->store, &key, 60000, &token);
        if (rc == PERF_EBUSY)
            continue;
        r->wrong += rc != PERF_OK || atomic_fetch_add(r->inside, 1) != 0;
        r->wrong += token <= atomic_exchange(r->newest, token);
        r->taken++;
        atomic_fetch_sub(r->inside, 1);
        if (i % 2)
            r->wrong += apply_set(r->store, key, "raced", 0, token) != PERF_OK;
        else
            r->wrong += perf__store_unlease(r->store, &key, token) != PERF_OK;
    }
    return NULL;
}

Test(redis_store, leases_of_eight_threads_never_overlap, .timeout = 60)
{
    enum { RACERS = 8 };
    struct fixture f;
    struct racer racers[RACERS];
    _Atomic int inside = 0;
    _Atomic uint64_t newest = 0;
    set_up(&f);
    struct perf__store *other = open_at(&f, "");
    int taken = 0;
    for (int i = 0; i < RACERS; i++) {
        racers[i] =
            (struct racer){.store = i % 2 ? other : f.store, .inside = &inside, .newest = &newest};
        cr_assert_eq(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        cr_assert_eq(racers[i].wrong, 0);
        taken += racers[i].taken;
    }
    cr_assert(taken > 0);
    perf__store_close(other);
    tear_down(&f);
}

/* ----------------------------------------------------------------------- marks */

struct seen {
    int count, alls;
    int64_t all, newest;
};

static int see(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    struct seen *seen = ctx;
    (void)name;
    if (kind == 1) {
        seen->alls++;
        seen->all = stamp_ms;
    } else {
        seen->count++;
        seen->newest = stamp_ms > seen->newest ? stamp_ms : seen->newest;
    }
    return 0;
}

static struct seen see_marks(struct perf__store *store)
{
    struct seen seen = {0};
    cr_assert_eq(perf__store_marks(store, 0, see, &seen), PERF_OK, "%s", perf_last_error());
    return seen;
}

/* An evicted or flushed set of marks is one that nobody remembers: all that was is dead. */
Test(redis_store, lost_marks_are_one_mark_on_everything, .timeout = 60)
{
    struct fixture f;
    set_up(&f);
    int64_t now = f.host.clock.realtime_ms(f.host.clock.ctx);
    struct seen seen = see_marks(f.store);
    cr_assert(seen.count == 0 && seen.alls == 1 && seen.all >= now);
    perf_store_op op = test_mark(4, "a", now + 500);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    int64_t birth = seen.all;
    seen = see_marks(f.store);
    cr_assert(seen.count == 1 && seen.alls == 1 && seen.all == birth, "it is born once");
    cr_assert(test_redis_says(f.server, "1", "DEL perf.marks"));
    op = test_mark(4, "b", now + 600);
    cr_assert_eq(perf__store_apply(f.store, &op, 1), PERF_OK);
    seen = see_marks(f.store);
    cr_assert(seen.count == 1 && seen.alls == 1 && seen.all >= birth);
    tear_down(&f);
}

Test(redis_store, too_many_marks_are_folded, .timeout = 120)
{
    enum { MOST = 16384, MORE = 16500, BATCH = 500 };
    struct fixture f;
    static char names[MORE][16];
    static perf_store_op ops[BATCH];
    set_up(&f);
    int64_t base = f.host.clock.realtime_ms(f.host.clock.ctx) + 1000;
    for (int i = 0; i < MORE; i += BATCH) {
        for (int k = 0; k < BATCH; k++) {
            snprintf(names[i + k], sizeof names[0], "tag-%d", i + k);
            ops[k] = test_mark(4, names[i + k], base + i + k);
        }
        cr_assert_eq(perf__store_apply(f.store, ops, BATCH), PERF_OK, "%s", perf_last_error());
    }
    struct seen seen = see_marks(f.store);
    cr_assert(seen.count < MOST && seen.count >= MOST / 2, "%d marks", seen.count);
    cr_assert_eq(seen.newest, base + MORE - 1);
    cr_assert(seen.alls == 1 && seen.all == base + MORE - 1 - seen.count,
              "all that are gone are in the one: %lld", (long long)(seen.all - base));
    tear_down(&f);
}

/* ------------------------------------------------------------------- listening */

struct ears {
    perf_store_listener listener;
    pthread_mutex_t mutex;
    pthread_cond_t news;
    _Atomic int changes, marks, deafs, hears;
    char last[300], before[300]; /* NS:USER:KEY */
    int64_t kind, stamp_ms;
    char mark[100];
};

static void on_changed(void *ctx, const perf_store_key *key)
{
    struct ears *e = ctx;
    pthread_mutex_lock(&e->mutex);
    e->changes++;
    memcpy(e->before, e->last, sizeof e->before);
    snprintf(e->last, sizeof e->last, "%.*s:%.*s:%.*s", (int)key->ns.len,
             (const char *)key->ns.data, (int)key->user.len, (const char *)key->user.data,
             (int)key->key.len, (const char *)key->key.data);
    pthread_cond_signal(&e->news);
    pthread_mutex_unlock(&e->mutex);
}

static void on_marked(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    struct ears *e = ctx;
    pthread_mutex_lock(&e->mutex);
    e->marks++;
    e->kind = kind;
    e->stamp_ms = stamp_ms;
    snprintf(e->mark, sizeof e->mark, "%.*s", (int)name.len, (const char *)name.data);
    pthread_cond_signal(&e->news);
    pthread_mutex_unlock(&e->mutex);
}

static void on_heard(void *ctx, int deaf)
{
    struct ears *e = ctx;
    pthread_mutex_lock(&e->mutex);
    atomic_fetch_add(deaf ? &e->deafs : &e->hears, 1);
    pthread_cond_signal(&e->news);
    pthread_mutex_unlock(&e->mutex);
}

/* Waits until *count is at least n, 10 s at most. */
static bool wait_for(struct ears *e, _Atomic int *count, int n)
{
    int64_t until = perf__deadline_after(10000);
    pthread_mutex_lock(&e->mutex);
    bool in_time = true;
    while (*count < n && in_time)
        in_time = perf__cond_wait(&e->news, &e->mutex, until);
    bool reached = *count >= n;
    pthread_mutex_unlock(&e->mutex);
    return reached;
}

static bool last_is(struct ears *e, const char *name)
{
    pthread_mutex_lock(&e->mutex);
    bool same = !strcmp(e->last, name);
    pthread_mutex_unlock(&e->mutex);
    return same;
}

static void listen_to(struct ears *e, struct perf__store *store)
{
    memset(e, 0, sizeof *e);
    e->listener = (perf_store_listener){sizeof e->listener, e, on_changed, on_marked, on_heard};
    pthread_mutex_init(&e->mutex, NULL);
    cr_assert_eq(perf__cond_init(&e->news), PERF_OK);
    cr_assert_eq(perf__store_listen(store, &e->listener), PERF_OK, "%s", perf_last_error());
    cr_assert(wait_for(e, &e->hears, 1), "it hears");
    cr_assert_eq(e->deafs, 1, "and was deaf before");
}

/* All that was on its way is heard: a key that only this call changes. */
static void hush(struct ears *e, struct fixture *f)
{
    static int n;
    char name[40];
    snprintf(name, sizeof name, "hush::%d", ++n);
    int64_t until = perf__deadline_after(10000);
    cr_assert(test_redis_says(f->server, "OK", "SET perf:%s x", name));
    while (perf__deadline_after(1) < until) {
        pthread_mutex_lock(&e->mutex);
        bool there = !strcmp(e->last, name);
        if (there)
            memcpy(e->last, e->before, sizeof e->last);
        e->changes -= there;
        pthread_mutex_unlock(&e->mutex);
        if (there)
            return;
        sleep_ms(1);
    }
    cr_assert_fail("%s is not heard", name);
}

Test(redis_store, hears_what_others_change_and_not_itself, .timeout = 60)
{
    struct fixture f;
    struct ears e;
    set_up(&f);
    struct perf__store *other = open_at(&f, "");
    listen_to(&e, f.store);
    perf_store_key key = key_of("n:s", "us er", "k%{}\n:");
    uint64_t token;

    cr_assert_eq(apply_set(f.store, key, "own", 0, 0), PERF_OK);
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
    cr_assert_eq(apply_set(f.store, key, "own", 0, token), PERF_OK);
    cr_assert_eq(apply_remove(f.store, key), PERF_OK);
    perf_store_op own = test_mark(4, "own", 5);
    cr_assert_eq(perf__store_apply(f.store, &own, 1), PERF_OK);
    hush(&e, &f);
    cr_assert(e.changes == 0 && e.marks == 0, "%d changes, %d marks: %s", e.changes, e.marks,
              e.last);

    cr_assert_eq(apply_set(other, key, "theirs", 0, 0), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 1));
    cr_assert(last_is(&e, "n:s:us er:k%{}\n:"));
    cr_assert_eq(perf__store_lease(other, &key, 10000, &token), PERF_OK);
    hush(&e, &f);
    cr_assert_eq(e.changes, 1, "leases are no changes");
    cr_assert_eq(apply_set(other, key, "theirs", 0, token), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 2), "what a lease brought");
    cr_assert_eq(apply_remove(other, key), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 3));

    perf_store_op theirs = test_mark(4, "theirs", 7);
    cr_assert_eq(perf__store_apply(other, &theirs, 1), PERF_OK);
    cr_assert(wait_for(&e, &e.marks, 1));
    cr_assert(e.kind == 4 && e.stamp_ms == 7 && !strcmp(e.mark, "theirs"));
    cr_assert_eq(perf__store_apply(other, &theirs, 1), PERF_OK);
    hush(&e, &f);
    cr_assert_eq(e.marks, 1, "a mark is told once");

    int changes = e.changes;
    cr_assert(test_redis_says(f.server, "OK", "SET perf:n::raw 1"));
    cr_assert(wait_for(&e, &e.changes, ++changes));
    cr_assert(last_is(&e, "n::raw"));
    cr_assert(test_redis_says(f.server, "1", "PEXPIRE perf:n::raw 1"));
    cr_assert(wait_for(&e, &e.changes, ++changes), "a change of its life");
    for (int i = 0; i < 2000 && e.changes < changes + 1; i++, sleep_ms(1))
        free(test_redis_cli(f.server, "GET perf:n::raw"));
    cr_assert(wait_for(&e, &e.changes, ++changes), "and its end");
    cr_assert(test_redis_says(f.server, "OK", "SET perf:foreign 1"));
    cr_assert(test_redis_says(f.server, "OK", "SET perfect:n::k 1"));
    hush(&e, &f);
    cr_assert_eq(e.changes, changes, "%s", e.last);
    cr_assert_eq(e.hears, 1);
    cr_assert(test_redis_says(f.server, "OK", "FLUSHALL"));
    cr_assert(wait_for(&e, &e.hears, 2), "everything has changed");
    cr_assert_eq(e.deafs, 2);
    perf__store_close(other);
    tear_down(&f);
}

Test(redis_store, hears_what_others_publish_without_tracking, .timeout = 60)
{
    struct fixture f;
    struct ears e;
    set_up_with(&f, NULL);
    f.store = open_at(&f, "?tracking=0");
    struct perf__store *other = open_at(&f, "?tracking=0");
    perf_store_key key = key_of("n s", "", "k 1");
    uint64_t token;
    /* Tells the server the scripts, for that makes a batch run, and be published, twice. */
    cr_assert_eq(apply_set(other, key, "left out", 0, 1), PERF_OK);
    listen_to(&e, f.store);
    cr_assert_eq(apply_set(f.store, key, "own", 0, 0), PERF_OK);
    cr_assert_eq(apply_set(other, key, "theirs", 0, 0), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 1));
    cr_assert(last_is(&e, "n s::k 1"));
    cr_assert_eq(apply_remove(other, key), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 2));
    cr_assert_eq(perf__store_lease(other, &key, 10000, &token), PERF_OK);
    cr_assert_eq(apply_set(other, key, "theirs", 0, token), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 3));
    cr_assert(test_redis_says(f.server, "1", "PUBLISH perf.changed 'nonsense'"));
    cr_assert(test_redis_says(f.server, "1", "PUBLISH perf.marks 'x y z'"));
    cr_assert(test_redis_says(f.server, "1", "PUBLISH perf.changed ''"));
    cr_assert(test_redis_says(f.server, "1", "PUBLISH perf.changed 'operator perf:n::k'"));
    cr_assert(wait_for(&e, &e.changes, 4), "an operator may publish, too");
    cr_assert(e.changes == 4 && e.marks == 0 && last_is(&e, "n::k"), "%d %d %s", e.changes, e.marks,
              e.last);
    perf__store_close(other);
    tear_down(&f);
}

/* The server's number of a connection, by what redis-cli says of all. */
static long find_client(struct test_server *s, const char *sign)
{
    char *list = test_redis_cli(s, "CLIENT LIST");
    long id = 0;
    for (char *line = list ? strtok(list, "\n") : NULL; line; line = strtok(NULL, "\n"))
        if (strstr(line, "name=libperf-cache") && strstr(line, sign))
            sscanf(line, "id=%ld", &id);
    free(list);
    return id;
}

Test(redis_store, a_connection_that_is_lost_is_a_gap, .timeout = 60)
{
    static const char *const signs[] = {"sub=3", "sub=0"};
    struct fixture f;
    struct ears e;
    set_up(&f);
    listen_to(&e, f.store);
    for (int round = 0; round < 4; round++) {
        int before = e.hears;
        long id = find_client(f.server, signs[round % 2]);
        cr_assert(id > 0, "%s", signs[round % 2]);
        cr_assert(test_redis_says(f.server, "1", "CLIENT KILL ID %ld", id));
        cr_assert(wait_for(&e, &e.deafs, before + 1), "it notices: %s", signs[round % 2]);
        cr_assert(wait_for(&e, &e.hears, before + 1), "it is back: %s", signs[round % 2]);
        cr_assert_eq(e.deafs, e.hears);
        int changes = e.changes;
        cr_assert(test_redis_says(f.server, "OK", "SET perf:n::k %d", round));
        cr_assert(wait_for(&e, &e.changes, changes + 1), "and hears");
    }
    tear_down(&f);
}

Test(redis_store, a_server_that_is_killed_and_comes_back, .timeout = 60)
{
    struct fixture f;
    struct ears e;
    set_up(&f);
    listen_to(&e, f.store);
    test_server_kill(f.server);
    cr_assert(wait_for(&e, &e.deafs, 2));
    int64_t begun = perf__deadline_after(1);
    cr_assert_neq(apply_set(f.store, key_of("n", "", "k"), "x", 0, 0), PERF_OK);
    cr_assert(perf__deadline_after(1) - begun < 2200000000, "no call beyond its deadline");
    cr_assert(test_server_restart(f.server), "%s", test_server_why());
    cr_assert(wait_for(&e, &e.hears, 2));
    cr_assert(test_redis_says(f.server, "OK", "SET perf:n::k 1"));
    cr_assert(wait_for(&e, &e.changes, 1));
    tear_down(&f);
}

/* Both connections stay open and silent: only pings find out. */
Test(redis_store, a_server_that_says_nothing_any_more, .timeout = 60)
{
    struct fixture f;
    struct ears e;
    set_up(&f);
    listen_to(&e, f.store);
    int64_t begun = perf__deadline_after(1);
    test_server_pause(f.server);
    cr_assert(wait_for(&e, &e.deafs, 2));
    double took = (double)(perf__deadline_after(1) - begun) / 1e9;
    test_server_resume(f.server);
    cr_assert(took < 3.5, "%.1f s", took);
    cr_assert(wait_for(&e, &e.hears, 2));
    tear_down(&f);
}

/* Nobody listens, so nothing but the calls' own time ends them. */
Test(redis_store, no_call_outlasts_its_time, .timeout = 60)
{
    enum { TIMEOUT_MS = 200, CALLS = 5 };
    struct fixture f;
    set_up_with(&f, NULL);
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "redis";
    tier.timeout_ms = TIMEOUT_MS;
    for (int published = 0; published < 2; published++) {
        char location[100];
        struct test_key own[3];
        perf_store_op ops[] = {test_set(&own[0], 1, "a", 1, 0), test_mark(4, "a", 5),
                               test_set(&own[1], 2, "b", 1, 0)};
        perf_store_op removals[] = {test_remove(&own[0], 1), test_remove(&own[1], 2)};
        perf_store_key keys[] = {test_key(&own[0], 1), test_key(&own[1], 2)};
        perf_store_reply replies[2] = {{.allocator = &f.host.allocator},
                                       {.allocator = &f.host.allocator}};
        perf_store_reply *pointers[2] = {&replies[0], &replies[1]};
        uint64_t token;
        struct seen seen = {0};
        snprintf(location, sizeof location, "%s%s", f.server->url, published ? "?tracking=0" : "");
        tier.location = location;
        cr_assert_eq(perf__store_open(&tier, &f.host, &f.store), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(perf__store_apply(f.store, ops, 3), PERF_OK, "%s", perf_last_error());
        test_server_pause(f.server);
        for (int i = 0; i < CALLS; i++) {
            int64_t begun = perf__deadline_after(1);
            int rc = i == 0   ? perf__store_apply(f.store, ops, 3)
                     : i == 1 ? perf__store_apply(f.store, removals, 2)
                     : i == 2 ? perf__store_get_many(f.store, keys, 2, pointers)
                     : i == 3 ? perf__store_marks(f.store, 0, see, &seen)
                              : perf__store_lease(f.store, &keys[0], 1000, &token);
            int64_t took = (perf__deadline_after(1) - begun) / 1000000;
            cr_assert_eq(rc, PERF_ETIMEDOUT, "call %d: %d %s", i, rc, perf_last_error());
            cr_assert(took < TIMEOUT_MS + 300, "call %d: %lld ms", i, (long long)took);
        }
        test_server_resume(f.server);
        perf__store_close(f.store);
    }
    test_server_stop(f.server);
}

Test(redis_store, a_server_that_allows_no_tracking, .timeout = 60)
{
    static const struct test_redis asked = {.config = "user default on nopass ~* &* +@all "
                                                      "-client|tracking\n"};
    struct fixture f;
    struct test_host th;
    struct perf__host host;
    struct ears e = {0};
    set_up_with(&f, &asked);
    cr_assert_eq(perf__host_take(test_host_init(&th), &host), PERF_OK);
    f.host = host;
    f.host.view = (perf_host){sizeof(perf_host), &f.host.allocator, &f.host.clock, &f.host.log};
    f.store = open_at(&f, "");
    e.listener = (perf_store_listener){sizeof e.listener, &e, on_changed, on_marked, on_heard};
    pthread_mutex_init(&e.mutex, NULL);
    cr_assert_eq(perf__cond_init(&e.news), PERF_OK);
    cr_assert_eq(perf__store_listen(f.store, &e.listener), PERF_OK);
    for (int i = 0; i < 5000 && !atomic_load(&th.logged); i++)
        sleep_ms(1);
    cr_assert_eq(atomic_load(&th.logged), 1, "the log says so, once");
    cr_assert_eq(apply_set(f.store, key_of("n", "", "k"), "x", 0, 0), PERF_OK, "the rest works");
    sleep_ms(300);
    cr_assert(e.hears == 0 && atomic_load(&th.logged) == 1);
    tear_down(&f);
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* What libperf-redis(7) says that a user needs. */
Test(redis_store, the_documented_user_may_do_what_is_needed, .timeout = 60)
{
    static const struct test_redis asked = {
        .config = "user cache on >secret resetkeys ~perf:* ~perf.* resetchannels &perf.* "
                  "&__redis__:invalidate -@all +get +set +unlink +rename +evalsha +eval "
                  "+script|load +zadd +zscore +zcard +zrange +zrangebyscore +zremrangebyscore "
                  "+zscan +time "
                  "+publish +subscribe +multi +exec +ping +select +client|tracking +client|id "
                  "+client|setname\n"};
    struct fixture f;
    struct ears e;
    set_up_with(&f, &asked);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    o.url = f.server->url;
    o.user = "cache";
    o.password = "secret";
    tier.backend = "redis";
    tier.store_ctx = &o;
    tier.timeout_ms = 2000;
    cr_assert_eq(perf__store_open(&tier, &f.host, &f.store), PERF_OK, "%s", perf_last_error());
    perf_store_key key = key_of("n", "", "k");
    uint64_t token;
    struct perf__store *other = open_at(&f, "");
    listen_to(&e, f.store);
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(apply_set(f.store, key, "x", 0, token), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(apply_set(f.store, key, "y", 0, 0), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
    cr_assert_eq(perf__store_unlease(f.store, &key, token), PERF_OK, "%s", perf_last_error());
    cr_assert(holds(&f, f.store, key, "y"));
    perf_store_op mark = test_mark(4, "a", 5);
    cr_assert_eq(perf__store_apply(f.store, &mark, 1), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(see_marks(f.store).count, 1);
    struct seen young = {0};
    cr_assert_eq(perf__store_marks(f.store, 6, see, &young), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(young.count, 0);
    cr_assert_eq(apply_remove(f.store, key), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(apply_set(other, key, "theirs", 0, 0), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 1));
    perf__store_close(other);
    tear_down(&f);
}

/* Nothing was there, so the server has nothing to tell: the removal is told all the same. */
Test(redis_store, a_removal_of_nothing_is_heard, .timeout = 60)
{
    struct fixture f;
    struct ears e;
    set_up(&f);
    struct perf__store *other = open_at(&f, "");
    perf_store_key key = key_of("n", "", "k");
    uint64_t token;
    cr_assert_eq(apply_set(f.store, key, "left out", 0, 1), PERF_OK);
    listen_to(&e, f.store);
    cr_assert_eq(perf__store_lease(f.store, &key, 10000, &token), PERF_OK);
    cr_assert_eq(apply_remove(other, key), PERF_OK);
    cr_assert(wait_for(&e, &e.changes, 1));
    cr_assert(last_is(&e, "n::k"));
    cr_assert_eq(apply_set(f.store, key, "late", 0, token), PERF_OK);
    cr_assert(holds(&f, f.store, key, NULL));
    cr_assert_eq(apply_remove(f.store, key), PERF_OK);
    hush(&e, &f);
    cr_assert_eq(e.changes, 1, "an own removal is not");
    perf__store_close(other);
    tear_down(&f);
}

/* ------------------------------------------------------------------ allocation */

static void work(struct fixture *f, struct perf__store *store)
{
    struct test_key own[20];
    perf_store_key keys[20];
    perf_store_reply replies[20], *pointers[20];
    perf_store_op ops[3] = {test_set(&own[0], 1, "a", 1, 0), test_mark(4, "a", 5),
                            test_remove(&own[1], 2)};
    uint64_t token;
    struct seen seen = {0};
    char *longer = calloc(1, 2000);
    memset(longer, 'x', 1999);
    perf_store_key far = key_of("n", "", longer);
    if (perf__store_apply(store, ops, 3) == PERF_OK)
        (void)perf__store_lease(store, &far, 1000, &token);
    for (uint64_t i = 0; i < 20; i++) {
        keys[i] = test_key(&own[i], i);
        replies[i] = (perf_store_reply){.allocator = &f->host.allocator};
        pointers[i] = &replies[i];
    }
    (void)perf__store_get_many(store, keys, 20, pointers);
    (void)perf__store_marks(store, 0, see, &seen);
    (void)perf__store_get(store, &far, &replies[0]);
    for (int i = 0; i < 20; i++)
        perf__reply_free(&replies[i]);
    free(longer);
}

Test(redis_store, survives_every_allocation_that_fails, .timeout = 120)
{
    struct fixture f;
    struct test_host th;
    set_up_with(&f, NULL);
    cr_assert_eq(perf__host_take(test_host_init(&th), &f.host), PERF_OK);
    f.host.view = (perf_host){sizeof(perf_host), &f.host.allocator, &f.host.clock, &f.host.log};
    char location[100];
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    snprintf(location, sizeof location, "%s?prefix=p", f.server->url);
    tier.backend = "redis";
    tier.location = location;
    tier.timeout_ms = 1000;
    bool failed = true;
    int n;
    for (n = 1; failed && n < 300; n++) {
        struct ears e = {0};
        struct perf__store *store = NULL;
        e.listener = (perf_store_listener){sizeof e.listener, &e, on_changed, on_marked, on_heard};
        pthread_mutex_init(&e.mutex, NULL);
        cr_assert_eq(perf__cond_init(&e.news), PERF_OK);
        atomic_store(&th.failed, 0);
        atomic_store(&th.fail_at, n);
        int rc = perf__store_open(&tier, &f.host, &store);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%d %s", rc, perf_last_error());
        if (!rc) {
            rc = perf__store_listen(store, &e.listener);
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%d %s", rc, perf_last_error());
            work(&f, store);
            perf__store_close(store);
        }
        failed = atomic_load(&th.failed) > 0;
        atomic_store(&th.fail_at, 0);
        cr_assert_eq(atomic_load(&th.live), 0, "%lld blocks leaked at %d",
                     (long long)atomic_load(&th.live), n);
    }
    cr_assert(n > 20 && !failed, "%d", n);
    test_server_stop(f.server);
}
