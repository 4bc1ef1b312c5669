/* SPDX-License-Identifier: MIT */
/* cache_cache_test.c - the cache by its public calls: set, get, conditions, lives, limits. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_fixture.h"

Test(cache, opens_with_all_defaults)
{
    perf_cache *cache;
    cr_assert_eq(perf_cache_open(NULL, &cache), PERF_OK);
    perf_cache_stats stats = stats_of(cache, NULL);
    cr_assert_eq(stats.max_bytes, 64u << 20);
    cr_assert_eq(perf_cache_close(cache), PERF_OK);
    cr_assert_eq(perf_cache_close(NULL), PERF_OK);
}

Test(cache, returns_what_was_set)
{
    struct fixture f;
    fixture_open(&f, NULL);
    assert_missing(f.cache, "a");
    cr_assert_eq(set(f.cache, "a", "1", 0), PERF_OK);
    assert_value(f.cache, "a", "1");
    cr_assert_eq(set(f.cache, "a", "another value", 0), PERF_OK);
    assert_value(f.cache, "a", "another value");
    cr_assert_eq(perf_cache_delete(f.cache, "ns", NULL, "a", 1), PERF_OK);
    assert_missing(f.cache, "a");
    cr_assert_eq(perf_cache_delete(f.cache, "ns", NULL, "a", 1), PERF_MISS);
    perf_cache_stats s = stats_of(f.cache, "ns");
    cr_assert_eq(s.sets, 2);
    cr_assert_eq(s.hits, 2);
    cr_assert_eq(s.memory_hits, 2);
    cr_assert_eq(s.misses, 2);
    cr_assert_eq(s.deletes, 2);
    cr_assert_eq(s.entries, 0);
    fixture_close(&f);
}

Test(cache, namespaces_and_users_are_apart)
{
    struct fixture f;
    fixture_open(&f, NULL);
    perf_cache_set(f.cache, "one", NULL, "k", 1, "plain", 5, 0);
    perf_cache_set(f.cache, "two", NULL, "k", 1, "other", 5, 0);
    perf_cache_set(f.cache, "one", "ann", "k", 1, "ann's", 5, 0);
    perf_cache_set(f.cache, "one", "a", "nk", 2, "split", 5, 0);
    cr_assert_str_eq(get_as(f.cache, "one", NULL, "k", NULL), "plain");
    cr_assert_str_eq(get_as(f.cache, "two", NULL, "k", NULL), "other");
    cr_assert_str_eq(get_as(f.cache, "one", "ann", "k", NULL), "ann's");
    cr_assert_str_eq(get_as(f.cache, "one", "a", "nk", NULL), "split");
    cr_assert_null(get_as(f.cache, "one", "an", "nk", NULL));
    cr_assert_str_eq(get_as(f.cache, "one", "", "k", NULL), "plain"); /* "" is no user */
    fixture_close(&f);
}

Test(cache, keys_and_values_are_any_bytes)
{
    struct fixture f;
    fixture_open(&f, NULL);
    for (size_t len = 1; len <= 32767; len = len * 3 + 1) {
        char *key = malloc(len);
        memset(key, (int)len, len);
        key[len - 1] = '\0';
        cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, key, len, key, len, 0), PERF_OK);
        perf_value *value;
        cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, key, len, &value), PERF_OK);
        cr_assert_eq(perf_value_size(value), len);
        cr_assert(!memcmp(perf_value_data(value), key, len));
        perf_value_release(value);
        free(key);
    }
    size_t len = 9;
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, "empty", 5, NULL, 0, 0), PERF_OK);
    cr_assert_eq(perf_cache_get_copy(f.cache, "ns", NULL, "empty", 5, NULL, 0, &len), PERF_OK);
    cr_assert_eq(len, 0);
    fixture_close(&f);
}

Test(cache, values_outlive_the_entry_and_the_cache)
{
    struct fixture f;
    fixture_open(&f, NULL);
    size_t sizes[] = {10, 5000, 200000};
    perf_value *values[3];
    static char bytes[200000];
    for (size_t i = 0; i < 3; i++) {
        memset(bytes, 'a' + (int)i, sizes[i]);
        cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, &i, sizeof i, bytes, sizes[i], 0),
                     PERF_OK);
        cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, &i, sizeof i, &values[i]), PERF_OK);
        perf_cache_delete(f.cache, "ns", NULL, &i, sizeof i);
    }
    cr_assert_eq(perf_cache_close(f.cache), PERF_OK);
    for (size_t i = 0; i < 3; i++) {
        const char *data = perf_value_data(values[i]);
        for (size_t k = 0; k < sizes[i]; k++)
            cr_assert_eq(data[k], 'a' + (int)i);
        perf_value_release(values[i]);
    }
    cr_assert_eq(atomic_load(&f.th.live), 0);
    perf_value_release(NULL);
}

Test(cache, bad_arguments_are_named)
{
    struct fixture f;
    fixture_open(&f, NULL);
    char long_name[300];
    memset(long_name, 'x', sizeof long_name);
    long_name[299] = '\0';
    size_t len;
    cr_assert_eq(perf_cache_set(NULL, "ns", NULL, "k", 1, "v", 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, NULL, NULL, "k", 1, "v", 1, 0), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "namespace"));
    cr_assert_eq(perf_cache_set(f.cache, "", NULL, "k", 1, "v", 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, long_name, NULL, "k", 1, "v", 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, "ns", long_name, "k", 1, "v", 1, 0), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "user"));
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, "k", 0, "v", 1, 0), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "key"));
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, long_name, 32768, "v", 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, NULL, 3, "v", 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, "k", 1, NULL, 1, 0), PERF_EINVAL);
    cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, "k", 1, "v", 1, -2), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "ttl_ms is -2"));
    cr_assert_eq(perf_cache_get_copy(f.cache, "ns", NULL, "k", 1, NULL, 4, &len), PERF_EINVAL);
    cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, "k", 1, NULL), PERF_EINVAL);
    fixture_close(&f);
}

Test(cache, bad_options_are_named)
{
    perf_cache *cache = NULL;
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    o.memory_max_bytes = 100;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "memory_max_bytes is 100"));
    o.memory_max_bytes = 0;
    o.memory_shards = 3;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "memory_shards is 3"));
    o.memory_shards = 0;
    o.tier_count = 1;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_EINVAL);
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "no such thing";
    o.tiers = &tier;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "no such thing"), "%s", perf_last_error());
    cr_assert_null(cache);
    cr_assert_eq(perf_cache_open(NULL, NULL), PERF_EINVAL);
}

Test(cache, entries_end_with_their_ttl)
{
    struct fixture f;
    fixture_open(&f, NULL);
    int64_t ttl = 0;
    set(f.cache, "short", "s", 1000);
    set(f.cache, "long", "l", 5000);
    set(f.cache, "ever", "e", PERF_TTL_FOREVER);
    test_host_advance(&f.th, 999);
    assert_value(f.cache, "short", "s");
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "short", 5, &ttl), PERF_OK);
    cr_assert_eq(ttl, 1);
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "ever", 4, &ttl), PERF_OK);
    cr_assert_eq(ttl, PERF_TTL_FOREVER);
    test_host_advance(&f.th, 1);
    assert_missing(f.cache, "short");
    cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, "short", 5, &ttl), PERF_MISS);
    cr_assert_eq(perf_cache_touch(f.cache, "ns", NULL, "short", 5, 1000), PERF_MISS);
    cr_assert_eq(perf_cache_touch(f.cache, "ns", NULL, "long", 4, 60000), PERF_OK);
    test_host_advance(&f.th, 50000);
    assert_value(f.cache, "long", "l");
    assert_value(f.cache, "ever", "e");
    perf_value *value;
    cr_assert_eq(perf_cache_get(f.cache, "ns", NULL, "long", 4, &value), PERF_OK);
    cr_assert_eq(perf_value_ttl_ms(value), 10000);
    cr_assert_eq(perf_value_is_stale(value), 0);
    perf_value_release(value);
    fixture_close(&f);
}

Test(cache, expiry_frees_memory_without_a_read)
{
    struct fixture f;
    fixture_open(&f, NULL);
    for (int i = 0; i < 1000; i++)
        perf_cache_set(f.cache, "ns", NULL, &i, sizeof i, "value", 5, 1000 + i);
    cr_assert_eq(stats_of(f.cache, "ns").entries, 1000);
    test_host_advance(&f.th, 3600 * 1000);
    while (perf_cache_maintain(f.cache, 100) > 0) {
    }
    perf_cache_stats s = stats_of(f.cache, "ns");
    cr_assert_eq(s.entries, 0);
    cr_assert_eq(s.bytes, 0);
    cr_assert_eq(s.expirations, 1000);
    fixture_close(&f);
}

Test(cache, namespace_policy_sets_lives)
{
    struct fixture f;
    fixture_open(&f, NULL);
    perf_namespace_options o = PERF_NAMESPACE_OPTIONS_INIT;
    o.ttl_ms = 1000;
    o.jitter_percent = 50;
    o.max_value_bytes = 4;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "ns", &o), PERF_OK);
    int64_t least = INT64_MAX, most = 0;
    for (int i = 0; i < 500; i++) {
        int64_t ttl;
        perf_cache_set(f.cache, "ns", NULL, &i, sizeof i, "v", 1, PERF_TTL_DEFAULT);
        cr_assert_eq(perf_cache_ttl(f.cache, "ns", NULL, &i, sizeof i, &ttl), PERF_OK);
        least = ttl < least ? ttl : least;
        most = ttl > most ? ttl : most;
    }
    cr_assert(least >= 500 && least < 600 && most > 900 && most <= 1000, "%lld..%lld",
              (long long)least, (long long)most);
    cr_assert_eq(set(f.cache, "big", "123", 0), PERF_OK);
    cr_assert_eq(set(f.cache, "big", "12345", 0), PERF_ETOOBIG);
    cr_assert(strstr(perf_last_error(), "value is 5 bytes long"), "%s", perf_last_error());
    char old[8];
    size_t old_len;
    cr_assert_eq(perf_cache_get_copy(f.cache, "ns", NULL, "big", 3, old, sizeof old, &old_len),
                 PERF_MISS, "a refused value leaves nothing stale");
    cr_assert_eq(stats_of(f.cache, "ns").rejections, 1);
    o.jitter_percent = 51;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "ns", &o), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "jitter_percent is 51"));
    o.jitter_percent = 0;
    o.tiers = 2;
    cr_assert_eq(perf_cache_configure_namespace(f.cache, "ns", &o), PERF_EINVAL);
    fixture_close(&f);
}

Test(cache, conditional_writes)
{
    struct fixture f;
    fixture_open(&f, NULL);
    perf_set_options o = PERF_SET_OPTIONS_INIT;
    uint64_t v1 = 0, v2 = 0;
    o.mode = PERF_SET_IF_PRESENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "a", 1, &o, NULL), PERF_MISS);
    o.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "a", 1, &o, &v1), PERF_OK);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "b", 1, &o, NULL), PERF_EEXISTS);
    o.mode = PERF_SET_IF_VERSION;
    o.version = v1;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "c", 1, &o, &v2), PERF_OK);
    cr_assert_neq(v1, v2);
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "d", 1, &o, NULL), PERF_ECONFLICT);
    assert_value(f.cache, "k", "c");
    perf_value *value;
    perf_cache_get(f.cache, "ns", NULL, "k", 1, &value);
    cr_assert_eq(perf_value_version(value), v2);
    perf_value_release(value);
    o.mode = 9;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "d", 1, &o, NULL), PERF_EINVAL);
    fixture_close(&f);
}

Test(cache, a_stale_value_counts_as_absent_for_add)
{
    struct fixture f;
    fixture_open(&f, NULL);
    perf_set_options o = PERF_SET_OPTIONS_INIT;
    o.ttl_ms = 100;
    o.stale_ms = 10000;
    perf_cache_put(f.cache, "ns", NULL, "k", 1, "old", 3, &o, NULL);
    test_host_advance(&f.th, 200);
    assert_missing(f.cache, "k"); /* plain gets never serve stale */
    o.mode = PERF_SET_IF_PRESENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "new", 3, &o, NULL), PERF_MISS);
    o.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf_cache_put(f.cache, "ns", NULL, "k", 1, "new", 3, &o, NULL), PERF_OK);
    assert_value(f.cache, "k", "new");
    fixture_close(&f);
}

Test(cache, counters)
{
    struct fixture f;
    fixture_open(&f, NULL);
    int64_t n = 0, ttl = 0;
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "n", 1, 1, 10, 1000, &n), PERF_OK);
    cr_assert_eq(n, 10);
    test_host_advance(&f.th, 400);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "n", 1, -25, 10, 1000, &n), PERF_OK);
    cr_assert_eq(n, -15);
    assert_value(f.cache, "n", "-15");
    perf_cache_ttl(f.cache, "ns", NULL, "n", 1, &ttl);
    cr_assert_eq(ttl, 600);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "n", 1, INT64_MIN, 0, 0, &n), PERF_EINVAL);
    assert_value(f.cache, "n", "-15");
    set(f.cache, "text", "12x", 0);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "text", 4, 1, 0, 0, &n), PERF_ECONFLICT);
    set(f.cache, "min", "-9223372036854775808", 0);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "min", 3, 1, 0, 0, &n), PERF_OK);
    cr_assert_eq(n, INT64_MIN + 1);
    set(f.cache, "over", "9223372036854775808", 0);
    cr_assert_eq(perf_cache_incr(f.cache, "ns", NULL, "over", 4, 1, 0, 0, &n), PERF_ECONFLICT);
    fixture_close(&f);
}

Test(cache, batch_get)
{
    enum { N = 150 };
    struct fixture f;
    fixture_open(&f, NULL);
    int keys[N];
    perf_lookup items[N];
    char bufs[N][8];
    memset(items, 0, sizeof items);
    for (int i = 0; i < N; i++) {
        keys[i] = i;
        if (i % 3)
            perf_cache_set(f.cache, "ns", "u", &keys[i], sizeof(int), &keys[i], sizeof(int), 0);
        items[i].key = &keys[i];
        items[i].key_len = sizeof(int);
        if (i % 2) {
            items[i].buf = bufs[i];
            items[i].cap = i % 5 ? sizeof bufs[i] : 2;
        }
    }
    size_t hits = 0;
    cr_assert_eq(perf_cache_get_many(f.cache, "ns", "u", items, N, &hits), PERF_OK);
    size_t expected = 0;
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0) {
            cr_assert_eq(items[i].status, PERF_MISS);
            cr_assert_null(items[i].value);
            continue;
        }
        if (i % 2 && i % 5 == 0) {
            cr_assert_eq(items[i].status, PERF_ETOOSMALL);
            cr_assert_eq(items[i].len, sizeof(int));
            continue;
        }
        expected++;
        cr_assert_eq(items[i].status, PERF_OK);
        cr_assert_eq(items[i].len, sizeof(int));
        const void *data = i % 2 ? (const void *)bufs[i] : perf_value_data(items[i].value);
        cr_assert(!memcmp(data, &keys[i], sizeof(int)));
        perf_value_release(items[i].value);
    }
    cr_assert_eq(hits, expected);
    perf_cache_stats s = stats_of(f.cache, "ns");
    cr_assert_eq(s.misses, N / 3);
    fixture_close(&f);
}

struct seen {
    int count[32];
    char last_key[16];
};

static void see(void *ctx, const perf_cache_event *event)
{
    struct seen *seen = ctx;
    seen->count[event->reason]++;
    snprintf(seen->last_key, sizeof seen->last_key, "%.*s", (int)event->key_len,
             (const char *)event->key);
}

Test(cache, listener_hears_why_entries_leave)
{
    struct fixture f;
    fixture_open(&f, NULL);
    struct seen seen = {{0}, ""};
    cr_assert_eq(perf_cache_listen(f.cache, 31, 0, see, &seen), PERF_OK);
    set(f.cache, "a", "1", 0);
    set(f.cache, "a", "2", 0);
    cr_assert_eq(seen.count[PERF_EVENT_REPLACED], 1);
    perf_cache_delete(f.cache, "ns", NULL, "a", 1);
    cr_assert_eq(seen.count[PERF_EVENT_DELETED], 1);
    cr_assert_str_eq(seen.last_key, "a");
    set(f.cache, "b", "1", 100);
    test_host_advance(&f.th, 5000);
    while (perf_cache_maintain(f.cache, 100) > 0) {
    }
    cr_assert_eq(seen.count[PERF_EVENT_EXPIRED], 1);
    set(f.cache, "c", "1", 0);
    perf_cache_invalidate_namespace(f.cache, "ns");
    while (perf_cache_maintain(f.cache, 1000) > 0) {
    }
    cr_assert_eq(seen.count[PERF_EVENT_INVALIDATED], 1);
    static char big[100000];
    for (int i = 0; i < 300; i++)
        perf_cache_set(f.cache, "ns", NULL, &i, sizeof i, big, sizeof big, 0);
    cr_assert(seen.count[PERF_EVENT_EVICTED] > 100);
    cr_assert_eq(perf_cache_listen(f.cache, 0, 0, NULL, NULL), PERF_OK);
    cr_assert_eq(perf_cache_listen(f.cache, 64, 0, see, NULL), PERF_EINVAL);
    fixture_close(&f);
}

Test(cache, events_can_be_polled)
{
    struct fixture f;
    fixture_open(&f, NULL);
    int fd = -1;
    uint64_t counted;
    perf_cache_event event = PERF_CACHE_EVENT_INIT;
    cr_assert_eq(perf_cache_listen(f.cache, PERF_EVENT_DELETED, 2, NULL, NULL), PERF_OK);
    cr_assert_eq(perf_cache_event_fd(f.cache, &fd), PERF_OK);
    cr_assert_eq(read(fd, &counted, sizeof counted), -1);
    const char *keys[] = {"x", "y", "z"};
    for (int i = 0; i < 3; i++) {
        perf_cache_set(f.cache, "ns", "ann", keys[i], 1, "1234", 4, 0);
        perf_cache_delete(f.cache, "ns", "ann", keys[i], 1);
    }
    cr_assert_eq(perf_cache_poll_event(f.cache, &event), PERF_OK); /* the oldest was dropped */
    cr_assert_eq(*(const char *)event.key, 'y');
    cr_assert_str_eq(event.ns, "ns");
    cr_assert_str_eq(event.user, "ann");
    cr_assert_eq(event.value_len, 4);
    cr_assert_eq(perf_cache_poll_event(f.cache, &event), PERF_OK);
    cr_assert_eq(*(const char *)event.key, 'z');
    cr_assert_eq(perf_cache_poll_event(f.cache, &event), PERF_MISS);
    cr_assert_eq(read(fd, &counted, sizeof counted), -1);
    fixture_close(&f);
}

Test(cache, iteration_sees_each_live_entry_once)
{
    struct fixture f;
    fixture_open(&f, NULL);
    static unsigned char seen[1000];
    for (int i = 0; i < 1000; i++)
        perf_cache_set(f.cache, i % 2 ? "odd" : "even", "u", &i, sizeof i, &i, sizeof i,
                       i < 100 ? 10 : 10000);
    test_host_advance(&f.th, 20);
    perf_cache_iter *iter;
    perf_cache_entry entry = PERF_CACHE_ENTRY_INIT;
    cr_assert_eq(perf_cache_iter_open(f.cache, "odd", &iter), PERF_OK);
    int count = 0, rc;
    while ((rc = perf_cache_iter_next(iter, &entry)) == PERF_OK) {
        int i;
        cr_assert_str_eq(entry.ns, "odd");
        cr_assert_str_eq(entry.user, "u");
        cr_assert_eq(entry.key_len, sizeof i);
        memcpy(&i, entry.key, sizeof i);
        cr_assert(i % 2 && i >= 100 && !seen[i]++);
        cr_assert_eq(entry.ttl_ms, 9980);
        cr_assert_eq(entry.value_len, sizeof i);
        count++;
    }
    cr_assert_eq(rc, PERF_MISS);
    cr_assert_eq(count, 450);
    perf_cache_iter_close(iter);
    cr_assert_eq(perf_cache_iter_open(f.cache, "unknown", &iter), PERF_OK);
    cr_assert_eq(perf_cache_iter_next(iter, &entry), PERF_MISS);
    perf_cache_iter_close(iter);
    perf_cache_iter_close(NULL);
    fixture_close(&f);
}

Test(cache, stays_within_its_bytes)
{
    struct fixture f;
    fixture_open(&f, NULL);
    static char bytes[65536];
    uint64_t r = 1;
    for (int i = 0; i < 20000; i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        size_t len = 64 + (size_t)(r >> 40) % (sizeof bytes - 64);
        cr_assert_eq(perf_cache_set(f.cache, "ns", NULL, &i, sizeof i, bytes, len, 0), PERF_OK);
        if (i % 1000 == 0) {
            perf_cache_stats s = stats_of(f.cache, NULL);
            cr_assert(s.bytes <= s.max_bytes, "%llu > %llu", (unsigned long long)s.bytes,
                      (unsigned long long)s.max_bytes);
        }
    }
    perf_cache_stats s = stats_of(f.cache, NULL);
    cr_assert(s.evictions > 10000);
    cr_assert(s.entries > 100);
    fixture_close(&f);
}

Test(cache, bounds_by_entries_and_by_weight)
{
    perf_cache *cache;
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    o.memory_max_entries = 100;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_OK);
    for (int i = 0; i < 1000; i++)
        perf_cache_set(cache, "ns", NULL, &i, sizeof i, "v", 1, 0);
    cr_assert_eq(stats_of(cache, NULL).entries, 100);
    perf_cache_close(cache);

    o.memory_max_entries = 0;
    o.memory_max_weight = 1000;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_OK);
    perf_set_options s = PERF_SET_OPTIONS_INIT;
    s.weight = 100;
    for (int i = 0; i < 1000; i++)
        perf_cache_put(cache, "ns", NULL, &i, sizeof i, "v", 1, &s, NULL);
    cr_assert_eq(stats_of(cache, NULL).entries, 10);
    int i = 5000;
    cr_assert_eq(perf_cache_put(cache, "ns", NULL, &i, sizeof i, "v", 1, &s, NULL), PERF_OK);
    s.weight = 1001;
    cr_assert_eq(perf_cache_put(cache, "ns", NULL, &i, sizeof i, "v", 1, &s, NULL), PERF_ETOOBIG);
    int64_t ttl;
    cr_assert_eq(perf_cache_ttl(cache, "ns", NULL, &i, sizeof i, &ttl), PERF_MISS);
    perf_cache_close(cache);
}

Test(cache, names_of_namespaces_are_bounded)
{
    perf_cache *cache;
    perf_cache_options o = PERF_CACHE_OPTIONS_INIT;
    o.max_namespaces = 10;
    cr_assert_eq(perf_cache_open(&o, &cache), PERF_OK);
    char name[16];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "ns%d", i); /* one address, many names */
        int rc = perf_cache_set(cache, name, NULL, "k", 1, name, strlen(name), 0);
        cr_assert_eq(rc, i < 10 ? PERF_OK : PERF_EBUSY);
    }
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "ns%d", i);
        cr_assert_str_eq(get_as(cache, name, NULL, "k", NULL), name);
    }
    perf_cache_close(cache);
}

Test(cache, a_forked_child_is_told)
{
    char *path = test_temp_file("cache.db");
    struct fixture f;
    fixture_open(&f, path);
    set(f.cache, "k", "v", 0);
    pid_t child = fork();
    if (child == 0) {
        int ok = set(f.cache, "k", "w", 0) == PERF_EFORKED && !get(f.cache, "k") &&
                 perf_cache_flush(f.cache) == PERF_EFORKED && perf_cache_close(f.cache) == PERF_OK;
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_value(f.cache, "k", "v");
    fixture_close(&f);
    test_remove_dir_of(path);
}

Test(cache, default_cache)
{
    perf_cache *cache;
    perf_cache_open(NULL, &cache);
    cr_assert_null(perf_cache_default());
    cr_assert_null(perf_cache_set_default(cache));
    cr_assert_eq(perf_cache_default(), cache);
    perf_cache_close(cache);
    cr_assert_null(perf_cache_default()); /* a closed cache is nobody's default */
}
