/* SPDX-License-Identifier: MIT */
/* cache_tiers_test.c - the cache over durable tiers and over a host's own store. */
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_fixture.h"

static perf_tier_stats tier_of(perf_cache *cache, size_t tier)
{
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    cr_assert_eq(perf_cache_get_tier_stats(cache, tier, &stats), PERF_OK);
    return stats;
}

/* Opens again after a restart that took ms milliseconds of the test clock's beginning. */
static void reopen(struct fixture *f, const char *path, int64_t ms)
{
    fixture_open(f, path);
    test_host_advance(&f->th, ms);
}

static void open_tiers(struct fixture *f, const perf_tier_options *tiers, size_t count)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.memory_max_bytes = 4 << 20;
    options.tiers = tiers;
    options.tier_count = count;
    options.host = test_host_init(&f->th);
    cr_assert_eq(perf_cache_open(&options, &f->cache), PERF_OK, "%s", perf_last_error());
}

static perf_tier_options sqlite_at(const char *path)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "sqlite";
    tier.location = path;
    return tier;
}

Test(tiers, values_survive_a_restart_with_the_life_they_had_left)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    int64_t ttl = 0;
    fixture_open(&f, path);
    set(f.cache, "short", "1", 1000);
    set(f.cache, "long", "2", 10000);
    set(f.cache, "ever", "3", PERF_TTL_FOREVER);
    fixture_close(&f);
    reopen(&f, path, 4000);
    assert_missing(f.cache, "short");
    assert_value(f.cache, "long", "2");
    assert_value(f.cache, "ever", "3");
    perf_cache_stats s = stats_of(f.cache, "ns");
    cr_assert_eq(s.hits, 2);
    cr_assert_eq(s.memory_hits, 0);
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "long", 4, &ttl), PERF_OK);
    cr_assert_eq(ttl, 6000);
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "ever", 4, &ttl), PERF_OK);
    cr_assert_eq(ttl, PERF_TTL_FOREVER);
    assert_value(f.cache, "long", "2"); /* now from memory */
    cr_assert_eq(stats_of(f.cache, "ns").memory_hits, 1);
    test_host_advance(&f.th, 6000);
    assert_missing(f.cache, "long"); /* the copy did not get a new life */
    fixture_close(&f);
    test_remove_dir_of(path);
}

Test(tiers, write_behind_is_durable_after_flush_and_after_close)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    perf_tier_options tier = sqlite_at(path);
    tier.write_mode = PERF_WRITE_BEHIND;
    open_tiers(&f, &tier, 1);
    char key[16];
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        cr_assert_eq(set(f.cache, key, key, 0), PERF_OK);
    }
    cr_assert_eq(perf_cache_flush(f.cache), PERF_OK);
    perf_tier_stats t = tier_of(f.cache, 0);
    cr_assert_eq(t.records, 500);
    cr_assert_eq(t.queued, 0);
    cr_assert_eq(t.dropped, 0);
    cr_assert_lt(t.commits, 500);
    set(f.cache, "last", "one", 0);
    fixture_close(&f);
    reopen(&f, path, 10);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_value(f.cache, key, key);
    }
    assert_value(f.cache, "last", "one");
    fixture_close(&f);
    test_remove_dir_of(path);
}

Test(tiers, the_upper_tier_is_asked_first_and_filled_from_the_lower)
{
    char *upper = test_temp_file("upper.db"), *lower = test_temp_file("lower.db");
    struct fixture f;
    fixture_open(&f, lower);
    set(f.cache, "k", "v", 10000);
    fixture_close(&f);
    perf_tier_options tiers[] = {sqlite_at(upper), sqlite_at(lower)};
    open_tiers(&f, tiers, 2);
    test_host_advance(&f.th, 1000);
    assert_value(f.cache, "k", "v");
    cr_assert_eq(tier_of(f.cache, 0).misses, 1);
    cr_assert_eq(tier_of(f.cache, 1).hits, 1);
    cr_assert_eq(perf_cache_flush(f.cache), PERF_OK);
    cr_assert_eq(tier_of(f.cache, 0).records, 1);
    fixture_close(&f);

    open_tiers(&f, tiers, 2);
    test_host_advance(&f.th, 3000);
    assert_value(f.cache, "k", "v");
    cr_assert_eq(tier_of(f.cache, 0).hits, 1);
    cr_assert_eq(tier_of(f.cache, 1).hits, 0);
    int64_t ttl = 0;
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "k", 1, &ttl), PERF_OK);
    cr_assert_eq(ttl, 7000);
    perf_cache_delete(f.cache, "ns", NULL, "k", 1);
    cr_assert_eq(tier_of(f.cache, 0).records + tier_of(f.cache, 1).records, 0);
    fixture_close(&f);
    test_remove_dir_of(upper);
    test_remove_dir_of(lower);
}

/* A store of the host's own, that is down. */
static int down_open(const perf_store_config *config, void **store)
{
    *store = config->user_ctx;
    return PERF_OK;
}
static void down_close(void *store)
{
    (void)store;
}
static int down_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    (void)key, (void)reply;
    return *(int *)store;
}
static int down_apply(void *store, const perf_store_op *ops, size_t count)
{
    (void)ops, (void)count;
    return *(int *)store;
}

Test(tiers, a_store_that_is_down_does_not_stop_memory)
{
    static const perf_store_vtable down = {.struct_size = sizeof down,
                                           .name = "down",
                                           .open = down_open,
                                           .close = down_close,
                                           .get = down_get,
                                           .apply = down_apply};
    struct fixture f;
    int status = PERF_EUNAVAILABLE, rc;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.store = &down;
    tier.store_ctx = &status;
    open_tiers(&f, &tier, 1);
    cr_assert_eq(set(f.cache, "k", "v", 0), PERF_EUNAVAILABLE);
    assert_value(f.cache, "k", "v");
    cr_assert_null(get_as(f.cache, "ns", NULL, "other", &rc));
    cr_assert_eq(rc, PERF_EUNAVAILABLE);
    perf_lookup items[] = {{.key = "k", .key_len = 1}, {.key = "other", .key_len = 5}};
    cr_assert_eq(perf_cache_get_many(f.cache, "ns", NULL, items, 2, NULL), PERF_OK);
    cr_assert_eq(items[0].status, PERF_OK);
    cr_assert_eq(items[1].status, PERF_EUNAVAILABLE);
    perf_value_release(items[0].value);
    cr_assert_gt(tier_of(f.cache, 0).errors, 0);
    perf_cache_close(f.cache);
    cr_assert_eq(atomic_load(&f.th.live), 0);
}

/* Damages every record of a file: one byte at a place that depends on the record. */
static void damage(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *list, *update;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_prepare_v2(db, "SELECT row, record FROM records", -1, &list, NULL);
    sqlite3_prepare_v2(db, "UPDATE records SET record=?1 WHERE row=?2", -1, &update, NULL);
    for (int n = 0; sqlite3_step(list) == SQLITE_ROW; n++) {
        int len = sqlite3_column_bytes(list, 1);
        unsigned char *bytes = malloc((size_t)len);
        memcpy(bytes, sqlite3_column_blob(list, 1), (size_t)len);
        bytes[n % len] ^= (unsigned char)(1 << n % 8);
        sqlite3_bind_blob(update, 1, bytes, len, free);
        sqlite3_bind_int64(update, 2, sqlite3_column_int64(list, 0));
        cr_assert_eq(sqlite3_step(update), SQLITE_DONE);
        sqlite3_reset(update);
    }
    sqlite3_finalize(list);
    sqlite3_finalize(update);
    sqlite3_close(db);
}

Test(tiers, damaged_records_are_counted_and_missed)
{
    enum { N = 200 };
    char *path = test_temp_file("cache.db");
    struct fixture f;
    fixture_open(&f, path);
    char key[16];
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "k%d", i);
        set(f.cache, key, "the value of the record", 0);
    }
    fixture_close(&f);
    damage(path);
    reopen(&f, path, 10);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_missing(f.cache, key);
    }
    cr_assert_eq(stats_of(f.cache, "ns").damaged, N);
    cr_assert_eq(tier_of(f.cache, 0).damaged, N);
    set(f.cache, "k0", "again", 0); /* and can be written anew */
    fixture_close(&f);
    reopen(&f, path, 20);
    assert_value(f.cache, "k0", "again");
    fixture_close(&f);
    test_remove_dir_of(path);
}

Test(tiers, a_namespace_chooses_its_tiers)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    perf_namespace_options o = PERF_NAMESPACE_OPTIONS_INIT;
    fixture_open(&f, path);
    o.tiers = 1;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "memory", &o), PERF_OK);
    o.tiers = 2;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "disk", &o), PERF_OK);
    o.tiers = 4;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "none", &o), PERF_EINVAL);
    perf_cache_set(f.cache, "memory", NULL, "k", 1, "m", 1, 0);
    perf_cache_set(f.cache, "disk", NULL, "k", 1, "d", 1, 0);
    cr_assert_eq(tier_of(f.cache, 0).records, 1);
    cr_assert_eq(stats_of(f.cache, NULL).entries, 1);
    cr_assert_str_eq(get_as(f.cache, "memory", NULL, "k", NULL), "m");
    cr_assert_str_eq(get_as(f.cache, "disk", NULL, "k", NULL), "d");
    cr_assert_eq(stats_of(f.cache, "disk").memory_hits, 0);
    cr_assert_eq(stats_of(f.cache, "disk").hits, 1);
    perf_set_options add = PERF_SET_OPTIONS_INIT;
    add.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf_cache_put(f.cache, "disk", NULL, "k", 1, "x", 1, &add, NULL),
                 PERF_EUNSUPPORTED);
    fixture_close(&f);
    reopen(&f, path, 10);
    cr_assert_null(get_as(f.cache, "memory", NULL, "k", NULL));
    cr_assert_str_eq(get_as(f.cache, "disk", NULL, "k", NULL), "d");
    fixture_close(&f);
    test_remove_dir_of(path);
}

Test(tiers, changes_reach_what_lives_only_below)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    int64_t n = 0, ttl = 0;
    perf_set_options o = PERF_SET_OPTIONS_INIT;
    fixture_open(&f, path);
    const char *keys[] = {"delete", "touch", "incr", "add", "replace", "version"};
    for (int i = 0; i < 6; i++)
        set(f.cache, keys[i], "41", 10000);
    fixture_close(&f);

    reopen(&f, path, 1000);
    perf_cache_delete(f.cache, "ns", NULL, "delete", 6);
    cr_assert_eq(perf_cache_touch(f.cache, "ns", NULL, "touch", 5, 50000), PERF_OK);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "incr", 4, 1, 0, 0, &n), PERF_OK);
    cr_assert_eq(n, 42);
    o.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "add", 3, "x", 1, &o, NULL), PERF_EEXISTS);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "new", 3, "x", 1, &o, NULL), PERF_OK);
    o.mode = PERF_SET_IF_PRESENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "replace", 7, "y", 1, &o, NULL), PERF_OK);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "no", 2, "y", 1, &o, NULL), PERF_MISS);
    perf_value *value;
    cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, "version", 7, &value), PERF_OK);
    o.mode = PERF_SET_IF_VERSION;
    o.version = perf_value_version(value);
    perf_value_release(value);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "version", 7, "z", 1, &o, NULL), PERF_OK);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "version", 7, "zz", 2, &o, NULL),
                 PERF_ECONFLICT);
    fixture_close(&f);

    reopen(&f, path, 2000);
    assert_missing(f.cache, "delete");
    assert_value(f.cache, "touch", "41");
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "touch", 5, &ttl), PERF_OK);
    cr_assert_eq(ttl, 49000);
    assert_value(f.cache, "incr", "42");
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "incr", 4, &ttl), PERF_OK);
    cr_assert_eq(ttl, 8000); /* a counter keeps its life */
    assert_value(f.cache, "add", "41");
    assert_value(f.cache, "new", "x");
    assert_value(f.cache, "replace", "y");
    assert_value(f.cache, "version", "z");
    fixture_close(&f);
    test_remove_dir_of(path);
}

static void write_until_killed(const char *path, int out, int round)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_cache *cache;
    options.durable_path = path;
    options.memory_max_bytes = 4 << 20;
    if (perf_cache_open(&options, &cache))
        _exit(1);
    for (int i = 0;; i++) {
        int pair[] = {round, i};
        if (perf_cache_set(cache, "ns", NULL, pair, sizeof pair, pair, sizeof pair, 0) ||
            write(out, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

Test(tiers, what_was_acknowledged_survives_kill_9)
{
    enum { ROUNDS = 20 };
    char *path = test_temp_file("cache.db");
    int last[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        int ends[2], got = -1;
        cr_assert_eq(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            write_until_killed(path, ends[1], round);
        }
        close(ends[1]);
        last[round] = -1;
        while (last[round] < 20 + round * 7 && read(ends[0], &got, sizeof got) == sizeof got)
            last[round] = got;
        kill(child, SIGKILL);
        while (read(ends[0], &got, sizeof got) == sizeof got)
            last[round] = got;
        close(ends[0]);
        waitpid(child, NULL, 0);
        cr_assert_geq(last[round], 20, "round %d: the child did not get going", round);

        perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
        perf_cache *cache;
        options.durable_path = path;
        cr_assert_eq(perf_cache_open(&options, &cache), PERF_OK, "%s", perf_last_error());
        for (int past = 0; past <= round; past++)
            for (int i = 0; i <= last[past]; i++) {
                int pair[] = {past, i}, back[2];
                size_t len = 0;
                cr_assert_eq(perf_cache_get_copy(cache, "ns", NULL, pair, sizeof pair, back,
                                                 sizeof back, &len),
                             PERF_OK, "round %d: write %d of round %d is lost", round, i, past);
                cr_assert(len == sizeof pair && !memcmp(pair, back, len));
            }
        cr_assert_eq(stats_of(cache, NULL).damaged, 0);
        cr_assert_eq(perf_cache_close(cache), PERF_OK);
    }
    test_remove_dir_of(path);
}
