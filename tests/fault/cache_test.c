/* SPDX-License-Identifier: MIT */
/*
 * cache_test.c - every allocation fails once. Whatever a call then says, later
 * gets return the right value or a miss, never a wrong one, and nothing leaks.
 */
#include <stdlib.h>

#include "cache_fixture.h"

enum { KEYS = 24, BIG = 9000 };

/* The value of a key is made of its number, so that any answer can be checked. */
static size_t value_of(int key, int generation, char *buf)
{
    size_t len = key % 8 == 7 ? BIG : 20 + (size_t)key;
    memset(buf, 'a' + (key + generation) % 26, len);
    memcpy(buf, &key, sizeof key);
    return len;
}

/* Is this one of the values that the key has had, down to the last byte? */
static bool is_value_of(int key, const char *data, size_t len)
{
    static char expected[BIG];
    for (int generation = 0; generation < 2; generation++)
        if (len == value_of(key, generation, expected) && !memcmp(data, expected, len))
            return true;
    return false;
}

static void check_keys(perf_cache *cache)
{
    static char buf[BIG];
    for (int key = 0; key < KEYS; key++) {
        size_t len = 0;
        int rc = perf_cache_get_copy(cache, "ns", "ann", &key, sizeof key, buf, sizeof buf, &len);
        if (rc == PERF_OK)
            cr_assert(is_value_of(key, buf, len), "key %d is wrong", key);
        else
            cr_assert(rc == PERF_MISS || rc == PERF_ENOMEM, "key %d: %d", key, rc);
    }
}

static int load(perf_load *l, void *ctx)
{
    static char buf[BIG];
    int key;
    size_t len;
    (void)ctx;
    memcpy(&key, perf_load_key(l, &len), sizeof key);
    int rc = perf_load_add_tag(l, "loaded");
    return rc ? rc : perf_load_set(l, buf, value_of(key, 0, buf));
}

static int load_many(perf_load *const *loads, size_t count, void *ctx)
{
    int rc = PERF_OK;
    for (size_t i = 0; i < count && !rc; i++)
        rc = load(loads[i], ctx);
    return rc;
}

/* Does a bit of everything; any call may fail, but only for want of memory. */
static void use(perf_cache *cache)
{
    static char buf[BIG];
    perf_namespace_options policy = PERF_NAMESPACE_OPTIONS_INIT;
    perf_set_options options = PERF_SET_OPTIONS_INIT;
    perf_loader loader = PERF_LOADER_INIT;
    const char *tags[] = {"red", "blue"};
    size_t len;
#define tolerate(call)                                                                          \
    do {                                                                                        \
        int rc_ = (call);                                                                       \
        cr_assert(rc_ == PERF_OK || rc_ == PERF_MISS || rc_ == PERF_ENOMEM, "%s: %d %s", #call, \
                  rc_, perf_last_error());                                                      \
    } while (0)
    loader.load = load;
    loader.load_many = load_many;
    policy.ttl_ms = 10000;
    policy.negative_ttl_ms = 1000;
    policy.stale_ms = 1000;
    tolerate(perf_cache_configure_namespace(cache, "ns", &policy));
    tolerate(perf_cache_listen(cache, 31, 16, NULL, NULL));
    options.tags = tags;
    options.tag_count = 2;
    for (int key = 0; key < 8; key++) {
        tolerate(
            perf_cache_set(cache, "ns", "ann", &key, sizeof key, buf, value_of(key, 0, buf), 0));
        tolerate(perf_cache_put(cache, "ns", "ann", &key, sizeof key, buf, value_of(key, 1, buf),
                                &options, NULL));
        perf_value *value = NULL;
        int rc = perf_cache_get(cache, "ns", "ann", &key, sizeof key, &value);
        tolerate(rc);
        if (rc == PERF_OK)
            cr_assert(is_value_of(key, perf_value_data(value), perf_value_size(value)));
        perf_value_release(value);
    }
    for (int key = 8; key < 12; key++)
        tolerate(perf_cache_get_or_load_copy(cache, "ns", "ann", &key, sizeof key, &loader, buf,
                                             sizeof buf, &len));
    perf_lookup items[8] = {{0}};
    int keys[8];
    for (int i = 0; i < 8; i++) {
        keys[i] = 10 + i;
        items[i] = (perf_lookup){.key = &keys[i], .key_len = sizeof keys[i]};
    }
    for (int with_loader = 0; with_loader < 2; with_loader++) {
        tolerate(with_loader
                     ? perf_cache_get_or_load_many(cache, "ns", "ann", items, 8, &loader, NULL)
                     : perf_cache_get_many(cache, "ns", "ann", items, 8, NULL));
        for (int i = 0; i < 8; i++) {
            if (items[i].status == PERF_OK)
                cr_assert(is_value_of(keys[i], perf_value_data(items[i].value), items[i].len));
            perf_value_release(items[i].value);
            items[i].value = NULL;
        }
    }
    int64_t n, key = 1;
    tolerate(perf_cache_incr(cache, "count", NULL, &key, sizeof key, 1, 0, 0, &n));
    tolerate(perf_cache_touch(cache, "ns", "ann", &keys[0], sizeof keys[0], 20000));
    tolerate(perf_cache_delete(cache, "ns", "ann", &keys[1], sizeof keys[1]));
    perf_cache_iter *iter = NULL;
    tolerate(perf_cache_iter_open(cache, NULL, &iter));
    perf_cache_entry entry = PERF_CACHE_ENTRY_INIT;
    while (iter && perf_cache_iter_next(iter, &entry) == PERF_OK)
        ;
    perf_cache_iter_close(iter);
    perf_cache_event event = PERF_CACHE_EVENT_INIT;
    while (perf_cache_poll_event(cache, &event) == PERF_OK)
        ;
    check_keys(cache);

    /* What an invalidation says it has done, it has done. */
    if (perf_cache_invalidate_tag(cache, "red") == PERF_OK)
        for (int i = 0; i < 8; i++) /* a put that failed has taken the untagged one away too */
            cr_assert_neq(
                perf_cache_get_copy(cache, "ns", "ann", &i, sizeof i, buf, sizeof buf, &len),
                PERF_OK);
    tolerate(perf_cache_invalidate_pattern(cache, "ns", "zz*"));
    if (perf_cache_invalidate_user(cache, "ann") == PERF_OK)
        for (int i = 0; i < KEYS; i++)
            cr_assert_neq(
                perf_cache_get_copy(cache, "ns", "ann", &i, sizeof i, buf, sizeof buf, &len),
                PERF_OK);
    tolerate(perf_cache_flush(cache));
    perf_cache_maintain(cache, 100);
}

/* Runs all of it with allocation number i failing; false when there was no such number. */
static bool round_with(int64_t i, const char *path)
{
    struct test_host th;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_cache *cache = NULL;
    options.memory_max_bytes = 1 << 20;
    options.memory_shards = 1;
    options.durable_path = path;
    options.host = test_host_init(&th);
    atomic_store(&th.fail_at, i);
    int rc = perf_cache_open(&options, &cache);
    cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "open: %d %s", rc, perf_last_error());
    if (rc == PERF_OK) {
        use(cache);
        rc = perf_cache_close(cache);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "close: %d %s", rc, perf_last_error());
    }
    cr_assert_eq(atomic_load(&th.live), 0, "allocation %lld: %lld blocks leaked", (long long)i,
                 (long long)atomic_load(&th.live));
    return atomic_load(&th.failed) > 0;
}

static int64_t all_rounds(const char *name)
{
    int64_t i = 1;
    for (;; i++) {
        char *path = name ? test_temp_file(name) : NULL;
        bool failed = round_with(i, path);
        if (path)
            test_remove_dir_of(path);
        if (!failed)
            return i - 1;
        cr_assert_lt(i, 100000);
    }
}

Test(fault, each_allocation_of_a_cache_in_memory)
{
    cr_assert_gt(all_rounds(NULL), 50);
}

Test(fault, each_allocation_of_a_durable_cache)
{
    cr_assert_gt(all_rounds("cache.db"), 100);
}
