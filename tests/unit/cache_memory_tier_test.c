/* SPDX-License-Identifier: MIT */
/* cache_memory_tier_test.c - the memory tier by its own contract (memory_tier.h): modes, lives,
 * marks, pins, bounds, walks, and allocations that fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/hash.h"
#include "../../src/base/options.h"
#include "../../src/cache/memory_plain.h"
#include "seams.h"
#include "test.h"

enum { NOW = 1000000 }; /* ms */

struct tier {
    struct test_host th;
    struct perf__host host;
    struct perf__memory_tier *tier;
    int64_t stamp;  /* of the next write */
    int64_t killed; /* what is_dead says no to: stamps up to here in namespace 1 */
    uint64_t asked;
    uint64_t left[32]; /* by reason */
    char last_key[64];
    size_t last_len;
};

static bool is_dead(void *ctx, const struct perf__entry_view *entry)
{
    struct tier *t = ctx;
    t->asked++;
    return entry->key.ns == 1 && entry->stamp <= t->killed;
}

static void has_left(void *ctx, int reason, const struct perf__entry_view *entry)
{
    struct tier *t = ctx;
    t->left[reason]++;
    snprintf(t->last_key, sizeof t->last_key, "%.*s", (int)entry->key.key_len,
             (const char *)entry->key.key);
    t->last_len = entry->value_len;
}

static struct perf__memory_config base_config(struct tier *t)
{
    memset(t, 0, sizeof *t);
    cr_assert_eq(perf__host_take(test_host_init(&t->th), &t->host), PERF_OK);
    t->stamp = atomic_load(&t->th.realtime_ms) + 10;
    return (struct perf__memory_config){.host = &t->host,
                                        .max_bytes = 4 << 20,
                                        .shards = 1,
                                        .max_namespaces = 16,
                                        .ctx = t,
                                        .dead = is_dead,
                                        .left = has_left};
}

static void open_with(struct tier *t, const struct perf__memory_config *config)
{
    cr_assert_eq(perf__memory_open(config, &t->tier), PERF_OK, "%s", perf_last_error());
}

static void open_tier(struct tier *t)
{
    struct perf__memory_config config = base_config(t);
    open_with(t, &config);
}

static void close_tier(struct tier *t)
{
    perf__memory_close(t->tier);
    cr_assert_eq(atomic_load(&t->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&t->th.live));
}

static struct perf__key key_of(const char *text, uint16_t ns)
{
    const struct perf__hash_key secret = {1, ns};
    return (struct perf__key){.hash = perf__hash_bytes(secret, text, strlen(text)).lo,
                              .key = text,
                              .key_len = (uint32_t)strlen(text),
                              .ns = ns};
}

static struct perf__write write_of(struct tier *t, const void *data, size_t len)
{
    return (struct perf__write){.data = data,
                                .len = len,
                                .fresh_until = PERF__NEVER,
                                .dead_at = PERF__NEVER,
                                .stamp = t->stamp++,
                                .weight = 1};
}

static int put_bytes(struct tier *t, const char *key, const void *data, size_t len)
{
    struct perf__key k = key_of(key, 0);
    struct perf__write w = write_of(t, data, len);
    uint64_t version;
    return perf__memory_put(t->tier, &k, NOW, &w, &version);
}

static int put(struct tier *t, const char *key, const char *value)
{
    return put_bytes(t, key, value, strlen(value));
}

/* The value as a string in static storage, or NULL. */
static const char *get_at(struct tier *t, const char *key, uint16_t ns, int64_t now,
                          struct perf__hit *hit)
{
    static char text[256];
    struct perf__key k = key_of(key, ns);
    size_t len;
    int rc = perf__memory_get_copy(t->tier, &k, now, text, sizeof text - 1, &len, hit);
    if (rc == PERF_MISS)
        return NULL;
    cr_assert_eq(rc, PERF_OK);
    text[len] = '\0';
    return text;
}

static const char *get(struct tier *t, const char *key)
{
    struct perf__hit hit;
    return get_at(t, key, 0, NOW, &hit);
}

static struct perf__memory_usage usage_of(struct tier *t)
{
    struct perf__memory_usage usage;
    perf__memory_usage(t->tier, &usage);
    return usage;
}

static struct perf__memory_ns_counts counts_of(struct tier *t, uint16_t ns)
{
    struct perf__memory_ns_counts counts;
    perf__memory_ns_counts(t->tier, ns, &counts);
    return counts;
}

static int64_t maintain_all(struct tier *t, int64_t now)
{
    bool swept = false;
    int64_t done = 0, step;
    while ((step = perf__memory_maintain(t->tier, now, 100, &swept)) > 0) {
        done += step;
        cr_assert(done < 1000000, "upkeep does not come to an end");
    }
    cr_assert(swept);
    return done;
}

/* ------------------------------------------------------------------- basics */

Test(memory_tier, puts_gets_and_deletes)
{
    struct tier t;
    open_tier(&t);
    cr_assert_null(get(&t, "a"));
    cr_assert_eq(put(&t, "a", "1"), PERF_OK);
    cr_assert_str_eq(get(&t, "a"), "1");
    cr_assert_eq(put(&t, "a", "a much longer value than the one before"), PERF_OK);
    cr_assert_str_eq(get(&t, "a"), "a much longer value than the one before");
    cr_assert_eq(put(&t, "a", ""), PERF_OK);
    cr_assert_str_eq(get(&t, "a"), "");
    cr_assert_eq(usage_of(&t).entries, 1);
    struct perf__key k = key_of("a", 0);
    cr_assert_eq(perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED), PERF_OK);
    cr_assert_eq(perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED), PERF_MISS);
    cr_assert_null(get(&t, "a"));
    cr_assert_eq(usage_of(&t).entries, 0);
    close_tier(&t);
}

Test(memory_tier, small_buffers_learn_the_length)
{
    struct tier t;
    open_tier(&t);
    put(&t, "a", "0123456789");
    struct perf__key k = key_of("a", 0);
    struct perf__hit hit;
    char buf[11] = "";
    for (size_t cap = 0; cap < 12; cap++) {
        size_t len = 99;
        int rc = perf__memory_get_copy(t.tier, &k, NOW, cap ? buf : NULL, cap > 10 ? 10 : cap, &len,
                                       &hit);
        cr_assert_eq(rc, cap < 10 ? PERF_ETOOSMALL : PERF_OK);
        cr_assert_eq(len, 10);
        cr_assert_eq(hit.kind, PERF__ENTRY_VALUE);
    }
    cr_assert_str_eq(buf, "0123456789");
    close_tier(&t);
}

/* One hash for all: only the parts of the key tell them apart. */
Test(memory_tier, equal_hashes_are_told_apart)
{
    struct tier t;
    open_tier(&t);
    char text[40][16];
    for (int i = 0; i < 40; i++) {
        snprintf(text[i], sizeof text[i], "key %d", i % 20);
        struct perf__key k = key_of(text[i], i < 20 ? 1 : 2);
        struct perf__write w = write_of(&t, &i, sizeof i);
        uint64_t version;
        k.hash = 42;
        if (i % 20 > 9) {
            k.user = "user";
            k.user_len = 4;
        }
        cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_OK);
    }
    cr_assert_eq(usage_of(&t).entries, 40);
    cr_assert(usage_of(&t).collisions > 0);
    for (int i = 0; i < 40; i++) {
        struct perf__key k = key_of(text[i], i < 20 ? 1 : 2);
        k.hash = 42;
        if (i % 20 > 9) {
            k.user = "user";
            k.user_len = 4;
        }
        struct perf__hit hit;
        size_t len;
        int value = -1;
        cr_assert_eq(perf__memory_get_copy(t.tier, &k, NOW, &value, sizeof value, &len, &hit),
                     PERF_OK);
        cr_assert_eq(value, i);
        k.user = "USER";
        k.user_len = 4;
        cr_assert_eq(perf__memory_get_copy(t.tier, &k, NOW, &value, sizeof value, &len, &hit),
                     PERF_MISS);
        k.user_len = 0;
        k.ns = 3;
        cr_assert_eq(perf__memory_get_copy(t.tier, &k, NOW, &value, sizeof value, &len, &hit),
                     PERF_MISS);
    }
    struct perf__key k = key_of(text[0], 1);
    k.hash = 42;
    cr_assert_eq(perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED), PERF_OK);
    cr_assert_eq(usage_of(&t).entries, 39);
    close_tier(&t);
}

/* The plain path compares namespace and length at once: lengths beyond its field must not be
 * taken for another namespace's. */
Test(memory_tier, long_keys_are_not_mistaken_for_other_namespaces)
{
    struct tier t;
    open_tier(&t);
    unsigned char bytes[52 + 256 + 8];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 11);
    struct perf__key there = {.hash = 42, .key = bytes, .key_len = 52, .ns = 1};
    struct perf__key asked = {.hash = 42, .key = bytes, .key_len = 52 + 256, .ns = 0};
    struct perf__write w = write_of(&t, bytes + 52, sizeof bytes - 52);
    struct perf__hit hit;
    uint64_t version;
    unsigned char buf[1024];
    size_t len;
    cr_assert_eq(perf__memory_put(t.tier, &there, NOW, &w, &version), PERF_OK);
    struct perf__plain want = {.hash = 42,
                               .key = bytes,
                               .key_len = 52,
                               .header = 1 << 8 | 52,
                               .buf = buf,
                               .cap = sizeof buf,
                               .len = &len,
                               .thread = perf__thread_slot()};
    cr_assert_eq(perf__memory_get_plain(t.tier, &want), PERF__PLAIN_HIT);
    cr_assert(len == w.len && !memcmp(buf, w.data, len));
    cr_assert_eq(perf__memory_get_copy(t.tier, &asked, NOW, buf, sizeof buf, &len, &hit),
                 PERF_MISS);
    want.header = 52;
    cr_assert_eq(perf__memory_get_plain(t.tier, &want), PERF__PLAIN_UNKNOWN);
    cr_assert_not(perf__memory_search_plain(t.tier, &want));
    close_tier(&t);
}

Test(memory_tier, values_of_every_size_come_back)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 32 << 20;
    open_with(&t, &config);
    static unsigned char data[1 << 20], back[1 << 20];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7 + (i >> 8));
    for (size_t len = 0; len <= sizeof data; len = len < 70 ? len + 1 : len + len / 3) {
        cr_assert_eq(put_bytes(&t, "k", data, len), PERF_OK, "%zu: %s", len, perf_last_error());
        struct perf__key k = key_of("k", 0);
        struct perf__hit hit;
        size_t got = 0;
        memset(back, 0, sizeof back);
        cr_assert_eq(perf__memory_get_copy(t.tier, &k, NOW, back, sizeof back, &got, &hit),
                     PERF_OK);
        cr_assert(got == len && !memcmp(back, data, len), "%zu bytes", len);
        perf_value *value;
        cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &value, &hit), PERF_OK);
        cr_assert(perf_value_size(value) == len && !memcmp(perf_value_data(value), data, len));
        perf_value_release(value);
    }
    close_tier(&t);
}

Test(memory_tier, modes_decide)
{
    struct tier t;
    open_tier(&t);
    struct perf__key k = key_of("a", 0);
    struct perf__write w = write_of(&t, "1", 1);
    uint64_t v = 0, first, second;
    w.mode = PERF_SET_IF_PRESENT;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_MISS);
    w.mode = PERF_SET_IF_VERSION;
    w.version = 1;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_MISS);
    cr_assert_eq(v, 0);
    w.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &first), PERF_OK);
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_EEXISTS);
    w.mode = PERF_SET_IF_VERSION;
    w.version = first + 1;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_ECONFLICT);
    w.version = first;
    w.data = "2";
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &second), PERF_OK);
    cr_assert(second > first);
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_ECONFLICT);
    struct perf__hit hit;
    cr_assert_str_eq(get_at(&t, "a", 0, NOW, &hit), "2");
    cr_assert_eq(hit.version, second);
    w.mode = PERF_SET_IF_PRESENT;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &v), PERF_OK);
    close_tier(&t);
}

/* -------------------------------------------------------------------- lives */

static int put_until(struct tier *t, const char *key, int64_t fresh_until, int64_t dead_at)
{
    struct perf__key k = key_of(key, 0);
    struct perf__write w = write_of(t, "v", 1);
    uint64_t version;
    w.fresh_until = fresh_until;
    w.dead_at = dead_at;
    w.load_ms = 77;
    return perf__memory_put(t->tier, &k, NOW, &w, &version);
}

Test(memory_tier, entries_end)
{
    struct tier t;
    open_tier(&t);
    struct perf__hit hit;
    cr_assert_eq(put_until(&t, "a", NOW + 100, NOW + 150), PERF_OK);
    cr_assert_str_eq(get_at(&t, "a", 0, NOW + 149, &hit), "v");
    cr_assert_eq(hit.fresh_until, NOW + 100);
    cr_assert_eq(hit.dead_at, NOW + 150);
    cr_assert_eq(hit.born, NOW);
    cr_assert_eq(hit.load_ms, 77);
    cr_assert_null(get_at(&t, "a", 0, NOW + 150, &hit));
    put(&t, "b", "for ever");
    get_at(&t, "b", 0, NOW, &hit);
    cr_assert_eq(hit.fresh_until, PERF__NEVER);
    cr_assert_eq(hit.dead_at, PERF__NEVER);
    cr_assert_eq(hit.born, 0);
    /* Absent to a write, too. */
    struct perf__key k = key_of("a", 0);
    struct perf__write w = write_of(&t, "new", 3);
    uint64_t version;
    w.mode = PERF_SET_IF_ABSENT;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW + 150, &w, &version), PERF_OK);
    cr_assert_eq(usage_of(&t).expirations, 1);
    close_tier(&t);
}

/* Ends of all distances: memory comes back without a read, soon after, and never before. */
Test(memory_tier, ended_entries_leave_without_a_read)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 16 << 20;
    open_with(&t, &config);
    enum { N = 300 };
    int64_t ends[N], last = NOW;
    for (int i = 0; i < N; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        ends[i] = NOW + 1 + (int64_t)(perf__mix64((uint64_t)i + 1) >> (31 + i % 32));
        last = ends[i] > last ? ends[i] : last;
        cr_assert_eq(put_until(&t, key, ends[i], ends[i]), PERF_OK);
    }
    for (int64_t now = NOW; now < last + 2000; now += 40 + (now - NOW) / 7) {
        maintain_all(&t, now);
        uint64_t least = 0, most = 0;
        for (int i = 0; i < N; i++) {
            least += ends[i] > now;
            most += ends[i] > now - 1000;
        }
        uint64_t entries = usage_of(&t).entries;
        cr_assert(entries >= least && entries <= most,
                  "%llu entries, between %llu and %llu ms %lld", (unsigned long long)entries,
                  (unsigned long long)least, (unsigned long long)most, (long long)(now - NOW));
    }
    maintain_all(&t, last + 100000);
    cr_assert_eq(usage_of(&t).entries, 0);
    cr_assert_eq(usage_of(&t).expirations, N);
    cr_assert_eq(counts_of(&t, 0).bytes, 0);
    close_tier(&t);
}

Test(memory_tier, touch_gives_a_new_life)
{
    struct tier t;
    open_tier(&t);
    struct perf__key k = key_of("a", 0);
    struct perf__hit before, hit;
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW, NOW + 10, NOW + 10), PERF_MISS);
    put(&t, "a", "value");
    get_at(&t, "a", 0, NOW, &before);
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW, NOW + 10, NOW + 20), PERF_OK);
    cr_assert_str_eq(get_at(&t, "a", 0, NOW + 19, &hit), "value");
    cr_assert_eq(hit.fresh_until, NOW + 10);
    cr_assert_eq(hit.dead_at, NOW + 20);
    cr_assert_eq(hit.version, before.version, "a new life is not a new value");
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW + 19, PERF__NEVER, PERF__NEVER), PERF_OK);
    maintain_all(&t, NOW + 100000);
    cr_assert_str_eq(get_at(&t, "a", 0, NOW + 100000, &hit), "value");
    cr_assert_eq(hit.dead_at, PERF__NEVER);
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW, NOW + 200000, NOW + 200000), PERF_OK);
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW + 200000, NOW + 300000, NOW + 300000),
                 PERF_MISS);
    maintain_all(&t, NOW + 201000);
    cr_assert_eq(usage_of(&t).entries, 0);
    close_tier(&t);
}

/* A touched entry keeps all that it had. */
Test(memory_tier, touch_keeps_user_and_tags)
{
    struct tier t;
    open_tier(&t);
    struct perf__key k = key_of("a", 1);
    k.user = "ann";
    k.user_len = 3;
    struct perf__write w = write_of(&t, "v", 1);
    uint64_t version;
    w.tags = "\1x\2yz";
    w.tags_len = 5;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_OK);
    cr_assert_eq(perf__memory_touch(t.tier, &k, NOW, NOW + 50, NOW + 50), PERF_OK);
    struct perf__hit hit;
    char buf[4];
    size_t len;
    cr_assert_eq(perf__memory_get_copy(t.tier, &k, NOW, buf, sizeof buf, &len, &hit), PERF_OK);
    cr_assert_eq(hit.dead_at, NOW + 50);
    perf__memory_set_event_mask(t.tier, PERF_EVENT_EXPIRED);
    maintain_all(&t, NOW + 1000);
    cr_assert_eq(t.left[PERF_EVENT_EXPIRED], 1);
    close_tier(&t);
}

/* -------------------------------------------------------------------- marks */

Test(memory_tier, marks_kill_what_is_older)
{
    struct tier t;
    open_tier(&t);
    struct perf__key in = key_of("a", 1);
    struct perf__write w = write_of(&t, "old", 3);
    uint64_t version;
    struct perf__hit hit;
    perf__memory_put(t.tier, &in, NOW, &w, &version);
    put(&t, "b", "other");
    get_at(&t, "a", 1, NOW, &hit);
    cr_assert_eq(t.asked, 0);
    t.killed = t.stamp++;
    perf__memory_set_suspect(t.tier, t.killed);
    cr_assert_null(get_at(&t, "a", 1, NOW, &hit));
    cr_assert_eq(usage_of(&t).invalidations, 1);
    cr_assert_eq(counts_of(&t, 1).invalidations, 1);
    /* Those that survive are asked once. */
    uint64_t asked = t.asked;
    cr_assert_str_eq(get(&t, "b"), "other");
    cr_assert_str_eq(get(&t, "b"), "other");
    cr_assert_eq(t.asked, asked + 1);
    /* Newer ones are not asked at all, and a later mark kills them. */
    w = write_of(&t, "new", 3);
    perf__memory_put(t.tier, &in, NOW, &w, &version);
    cr_assert_str_eq(get_at(&t, "a", 1, NOW, &hit), "new");
    cr_assert_eq(t.asked, asked + 1);
    t.killed = t.stamp++;
    perf__memory_set_suspect(t.tier, t.killed);
    cr_assert_null(get_at(&t, "a", 1, NOW, &hit));
    cr_assert_str_eq(get(&t, "b"), "other");
    close_tier(&t);
}

/* The next mark may come in the next millisecond: an entry that was asked about one must not
 * have become newer than the next. */
Test(memory_tier, marks_that_follow_at_once_kill_too)
{
    struct tier t;
    open_tier(&t);
    struct perf__key k = key_of("a", 1);
    struct perf__write w = write_of(&t, "v", 1);
    struct perf__hit hit;
    uint64_t version;
    perf__memory_put(t.tier, &k, NOW, &w, &version);
    perf__memory_set_suspect(t.tier, w.stamp + 1); /* of another namespace */
    cr_assert_str_eq(get_at(&t, "a", 1, NOW, &hit), "v");
    t.killed = w.stamp + 2;
    perf__memory_set_suspect(t.tier, t.killed);
    cr_assert_null(get_at(&t, "a", 1, NOW, &hit));
    close_tier(&t);
}

Test(memory_tier, the_sweep_asks_every_entry)
{
    struct tier t;
    open_tier(&t);
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        struct perf__key k = key_of(key, (uint16_t)(i % 4));
        struct perf__write w = write_of(&t, key, strlen(key));
        uint64_t version;
        cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_OK);
    }
    t.killed = t.stamp++;
    perf__memory_set_suspect(t.tier, t.killed);
    bool swept = true;
    perf__memory_maintain(t.tier, NOW, 1, &swept);
    cr_assert_not(swept);
    maintain_all(&t, NOW);
    cr_assert_eq(usage_of(&t).entries, 1500);
    cr_assert_eq(usage_of(&t).invalidations, 500);
    cr_assert_eq(counts_of(&t, 1).entries, 0);
    cr_assert_eq(t.asked, 2000);
    cr_assert_eq(maintain_all(&t, NOW), 0);
    close_tier(&t);
}

/* ------------------------------------------------------------------ watches */

Test(memory_tier, watches_notice_writes_and_deletes)
{
    struct tier t;
    open_tier(&t);
    struct perf__key k = key_of("a", 0), other = key_of("b", 0);
    struct perf__watch one, two;
    perf__memory_watch(t.tier, &k, &one);
    perf__memory_watch(t.tier, &k, &two);
    put(&t, "b", "1");
    perf__memory_delete(t.tier, &other, PERF_EVENT_DELETED);
    cr_assert_not(atomic_load(&one.moved));
    struct perf__write w = write_of(&t, "copy", 4);
    uint64_t version;
    w.is_copy = true;
    w.watch = &one;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_OK);
    cr_assert_not(atomic_load(&two.moved), "a copy is no news");
    cr_assert_eq(perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED), PERF_OK);
    cr_assert(atomic_load(&one.moved) && atomic_load(&two.moved));
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_ECONFLICT);
    cr_assert_null(get(&t, "a"));
    perf__memory_unwatch(t.tier, &one);
    perf__memory_unwatch(t.tier, &two);
    perf__memory_watch(t.tier, &k, &one);
    perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED); /* of nothing */
    cr_assert(atomic_load(&one.moved));
    perf__memory_unwatch(t.tier, &one);
    close_tier(&t);
}

/* --------------------------------------------------------------------- pins */

Test(memory_tier, large_values_are_pinned)
{
    struct tier t;
    open_tier(&t);
    static unsigned char data[300000];
    memset(data, 'a', sizeof data);
    cr_assert_eq(put_bytes(&t, "k", data, sizeof data), PERF_OK);
    struct perf__key k = key_of("k", 0);
    struct perf__hit hit;
    perf_value *one, *two, *three;
    cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &one, &hit), PERF_OK);
    cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &two, &hit), PERF_OK);
    cr_assert_eq(perf_value_data(one), perf_value_data(two), "no copies");
    memset(data, 'b', sizeof data);
    cr_assert_eq(put_bytes(&t, "k", data, sizeof data), PERF_OK);
    cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &three, &hit), PERF_OK);
    cr_assert_eq(((const char *)perf_value_data(one))[299999], 'a');
    cr_assert_eq(((const char *)perf_value_data(three))[299999], 'b');
    perf_value_release(one);
    cr_assert_eq(((const char *)perf_value_data(two))[0], 'a');
    perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED);
    for (int i = 0; i < 40; i++) /* the others come and go around them */
        cr_assert_eq(put_bytes(&t, i % 2 ? "x" : "y", data, sizeof data - (size_t)i), PERF_OK, "%s",
                     perf_last_error());
    cr_assert_eq(((const char *)perf_value_data(two))[299999], 'a');
    cr_assert_eq(((const char *)perf_value_data(three))[299999], 'b');
    perf_value_release(two);
    perf__memory_close(t.tier);
    cr_assert_eq(((const char *)perf_value_data(three))[150000], 'b');
    perf_value_release(three);
    cr_assert_eq(atomic_load(&t.th.live), 0);
}

/* With everything held there is no room, and that is said; then there is room again. */
Test(memory_tier, held_values_can_fill_the_memory)
{
    struct tier t;
    open_tier(&t);
    static unsigned char data[400000];
    perf_value *held[16] = {NULL};
    int n = 0, rc = PERF_OK;
    for (; n < 16; n++) {
        char key[16];
        snprintf(key, sizeof key, "%d", n);
        struct perf__key k = key_of(key, 0);
        struct perf__hit hit;
        if ((rc = put_bytes(&t, key, data, sizeof data)))
            break;
        cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &held[n], &hit), PERF_OK);
    }
    cr_assert_eq(rc, PERF_ENOMEM);
    cr_assert(n >= 7, "only %d fit", n);
    cr_assert(usage_of(&t).bytes <= usage_of(&t).max_bytes);
    for (int i = 0; i < n; i++)
        perf_value_release(held[i]);
    cr_assert_eq(put_bytes(&t, "again", data, sizeof data), PERF_OK);
    close_tier(&t);
}

/* ------------------------------------------------------------------- bounds */

static void assert_within(struct tier *t)
{
    struct perf__memory_usage u = usage_of(t);
    cr_assert(u.bytes <= u.max_bytes, "%llu bytes of %llu", (unsigned long long)u.bytes,
              (unsigned long long)u.max_bytes);
}

/* Small ones everywhere, then large ones, then small ones: no put fails, nothing is exceeded, and
 * the memory is put to use in each phase. */
Test(memory_tier, sizes_may_drift)
{
    static const size_t sizes[] = {60, 100, 40000, 300, 9000, 150000, 64, 2500, 30000};
    struct tier t;
    open_tier(&t);
    static unsigned char data[150000 + 32];
    uint64_t n = 0;
    for (size_t phase = 0; phase < sizeof sizes / sizeof sizes[0]; phase++) {
        size_t rounds = (12u << 20) / (sizes[phase] + 64);
        for (size_t i = 0; i < rounds; i++) {
            char key[24];
            snprintf(key, sizeof key, "%llu", (unsigned long long)n++);
            cr_assert_eq(put_bytes(&t, key, data, sizes[phase] + n % 32), PERF_OK,
                         "phase %zu (%zu bytes), put %zu: %s", phase, sizes[phase], i,
                         perf_last_error());
        }
        assert_within(&t);
        struct perf__memory_ns_counts c = counts_of(&t, 0);
        cr_assert(c.bytes > 2400u << 10, "phase %zu: only %llu of 4 MiB hold entries", phase,
                  (unsigned long long)c.bytes);
    }
    close_tier(&t);
}

Test(memory_tier, the_number_of_entries_is_a_bound)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_entries = 10;
    config.shards = 4;
    open_with(&t, &config);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        cr_assert_eq(put(&t, key, "v"), PERF_OK);
        cr_assert(usage_of(&t).entries <= 10);
    }
    cr_assert_eq(usage_of(&t).entries, 10);
    cr_assert_eq(usage_of(&t).evictions, 990);
    cr_assert_eq(counts_of(&t, 0).evictions, 990);
    close_tier(&t);
}

/* Fewer entries than shards. */
Test(memory_tier, a_bound_below_the_number_of_shards)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 32 << 20;
    config.max_entries = 3;
    config.shards = 8;
    open_with(&t, &config);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        cr_assert_eq(put(&t, key, "v"), PERF_OK);
    }
    cr_assert(usage_of(&t).entries <= 3, "%llu entries", (unsigned long long)usage_of(&t).entries);
    close_tier(&t);
}

Test(memory_tier, weight_is_a_bound)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_weight = 1000;
    open_with(&t, &config);
    uint64_t version;
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i % 30);
        struct perf__key k = key_of(key, 0);
        struct perf__write w = write_of(&t, "v", 1);
        w.weight = 90 + (uint64_t)i % 3;
        cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_OK);
        cr_assert(usage_of(&t).entries <= 11);
    }
    cr_assert(usage_of(&t).entries >= 10);
    struct perf__key k = key_of("0", 0);
    struct perf__write w = write_of(&t, "v", 1);
    w.weight = 1001;
    cr_assert_eq(perf__memory_put(t.tier, &k, NOW, &w, &version), PERF_ETOOBIG);
    cr_assert_null(get(&t, "0"));
    close_tier(&t);
}

Test(memory_tier, too_large_a_value_takes_the_old_one_along)
{
    struct tier t;
    open_tier(&t);
    static unsigned char data[4 << 20];
    put(&t, "k", "old");
    cr_assert_eq(put_bytes(&t, "k", data, sizeof data), PERF_ETOOBIG);
    cr_assert_null(get(&t, "k"));
    cr_assert_eq(usage_of(&t).entries, 0);
    cr_assert_eq(put_bytes(&t, "k", data, 1 << 20), PERF_OK);
    close_tier(&t);
}

/* A small memory with a large number of entries: the bookkeeping must not eat it up. */
Test(memory_tier, bookkeeping_leaves_room)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 2 << 20;
    config.max_entries = 16000;
    open_with(&t, &config);
    for (int i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        cr_assert_eq(put(&t, key, "value"), PERF_OK, "put %d: %s", i, perf_last_error());
    }
    assert_within(&t);
    cr_assert(usage_of(&t).entries > 1000);
    close_tier(&t);
}

Test(memory_tier, too_many_shards_for_the_memory_are_refused)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 1 << 20;
    config.shards = 64;
    if (perf__memory_open(&config, &t.tier) == PERF_OK) {
        cr_assert_eq(put(&t, "k", "v"), PERF_OK, "opened, but of no use: %s", perf_last_error());
        assert_within(&t);
        perf__memory_close(t.tier);
    }
    cr_assert_eq(atomic_load(&t.th.live), 0);
}

/* -------------------------------------------------------------- walks, events */

struct walk {
    uint64_t seen[3000];
    uint64_t count, stop_after;
};

static bool note(void *ctx, const struct perf__entry_view *view)
{
    struct walk *w = ctx;
    char text[16] = "";
    memcpy(text, view->key.key, view->key.key_len);
    w->seen[atoi(text)]++;
    return ++w->count != w->stop_after;
}

Test(memory_tier, a_walk_sees_each_entry_once)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.max_bytes = 16 << 20;
    config.shards = 4;
    open_with(&t, &config);
    for (int i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        cr_assert_eq(
            put_until(&t, key, i % 3 ? PERF__NEVER : NOW + 5, i % 3 ? PERF__NEVER : NOW + 5),
            PERF_OK);
    }
    static struct walk w;
    for (size_t s = 0; s < perf__memory_shard_count(t.tier); s++)
        cr_assert_eq(perf__memory_walk(t.tier, s, NOW + 5, note, &w), PERF_OK);
    cr_assert_eq(w.count, 2000);
    for (int i = 0; i < 3000; i++)
        cr_assert_eq(w.seen[i], i % 3 != 0);
    w.count = 0;
    w.stop_after = 7;
    perf__memory_walk(t.tier, 0, NOW, note, &w);
    cr_assert_eq(w.count, 7);
    close_tier(&t);
}

Test(memory_tier, the_listener_hears_what_it_asked_for)
{
    struct tier t;
    open_tier(&t);
    put(&t, "a", "1");
    put(&t, "a", "two");
    cr_assert_eq(t.left[PERF_EVENT_REPLACED], 0);
    perf__memory_set_event_mask(t.tier, PERF_EVENT_REPLACED | PERF_EVENT_DELETED);
    put(&t, "a", "333");
    cr_assert_eq(t.left[PERF_EVENT_REPLACED], 1);
    cr_assert_eq(t.last_len, 3);
    struct perf__key k = key_of("a", 0);
    perf__memory_touch(t.tier, &k, NOW, NOW + 10, NOW + 10);
    cr_assert_eq(t.left[PERF_EVENT_REPLACED], 1, "a new life is not a new value");
    perf__memory_delete(t.tier, &k, PERF_EVENT_DELETED);
    cr_assert_eq(t.left[PERF_EVENT_DELETED], 1);
    cr_assert_str_eq(t.last_key, "a");
    put_until(&t, "b", NOW + 1, NOW + 1);
    maintain_all(&t, NOW + 1000);
    cr_assert_eq(t.left[PERF_EVENT_EXPIRED], 0);
    close_tier(&t);
}

/* -------------------------------------------------- allocations that fail */

Test(memory_tier, opening_fails_cleanly)
{
    struct tier t;
    struct perf__memory_config config = base_config(&t);
    config.shards = 2;
    for (int64_t i = 1;; i++) {
        atomic_store(&t.th.fail_at, i);
        int rc = perf__memory_open(&config, &t.tier);
        atomic_store(&t.th.fail_at, 0);
        if (rc == PERF_OK)
            break;
        cr_assert_eq(rc, PERF_ENOMEM);
        cr_assert_eq(atomic_load(&t.th.live), 0, "allocation %lld", (long long)i);
        cr_assert(i < 100);
    }
    close_tier(&t);
}

Test(memory_tier, writing_and_reading_fail_cleanly)
{
    struct tier t;
    open_tier(&t);
    static unsigned char data[20000];
    put_bytes(&t, "large", data, sizeof data);
    put(&t, "small", "v");
    perf_value *value = NULL;
    struct perf__hit hit;
    for (const char **name = (const char *[]){"large", "small", NULL}; *name; name++) {
        struct perf__key k = key_of(*name, 0);
        atomic_store(&t.th.fail_at, 1);
        cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &value, &hit), PERF_ENOMEM);
        cr_assert_null(value);
        cr_assert_eq(perf__memory_get(t.tier, &k, NOW, &value, &hit), PERF_OK);
        perf_value_release(value);
        value = NULL;
    }
    for (uint16_t ns = 0; ns < 16; ns++) { /* counts grow now and then */
        struct perf__key k = key_of("k", ns);
        struct perf__write w = write_of(&t, "v", 1);
        uint64_t version;
        atomic_store(&t.th.fail_at, 1);
        int rc = perf__memory_put(t.tier, &k, NOW, &w, &version);
        atomic_store(&t.th.fail_at, 0);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM);
        cr_assert_eq(get_at(&t, "k", ns, NOW, &hit) != NULL, rc == PERF_OK);
    }
    close_tier(&t);
}
