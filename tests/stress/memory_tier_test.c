/* SPDX-License-Identifier: MIT */
/*
 * memory_tier_test.c - many threads on a memory tier that is far too small, with
 * values that verify themselves.
 *
 * Every value carries its key, the stamp of its write and a pattern made of both,
 * so a torn, foreign or stale value is seen whoever produced it. Each thread also
 * remembers the last version it saw of each key: versions never go back. The
 * number of operations is PERF_STRESS_OPS (all threads together).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/base/hash.h"
#include "../../src/base/options.h"
#include "../../src/cache/memory_plain.h"
#include "seams.h"
#include "test.h"

enum { THREADS = 4, KEYS = 4096, NAMESPACES = 4, HELD = 4, BIGGEST = 20000 };

struct stress {
    struct test_host th;
    struct perf__host host;
    struct perf__memory_tier *tier;
    _Atomic int64_t stamp;             /* of writes and marks */
    _Atomic int64_t mark[NAMESPACES];  /* entries with stamps up to here are dead */
    _Atomic int64_t acted[NAMESPACES]; /* the same, once the tier has been told */
    _Atomic int64_t now;
    uint64_t ops; /* of each thread */
    _Atomic uint64_t hits;
};

struct worker {
    struct stress *s;
    uint64_t random;
    uint64_t seen[KEYS]; /* versions */
    struct {
        perf_value *value;
        uint64_t key;
    } held[HELD];
};

static uint64_t next(struct worker *w)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return perf__mix64(w->random);
}

/* What a value begins with; behind it pattern bytes. */
struct content {
    uint64_t key;
    int64_t stamp;
    uint64_t len;
};

static uint64_t pattern(const struct content *c)
{
    return perf__mix64(c->key * 31 + (uint64_t)c->stamp) | 1;
}

static void make_content(unsigned char *bytes, const struct content *c)
{
    uint64_t word = pattern(c);
    memcpy(bytes, c, sizeof *c);
    for (size_t i = sizeof *c; i < c->len; i++)
        bytes[i] = (unsigned char)(word >> (i % 8 * 8)) ^ (unsigned char)(i >> 3);
}

/* Its stamp, or -1 when something is wrong with it. */
static int64_t check_content(const unsigned char *bytes, size_t len, uint64_t key)
{
    struct content c;
    if (len < sizeof c)
        return -1;
    memcpy(&c, bytes, sizeof c);
    if (c.key != key || c.len != len)
        return -1;
    uint64_t word = pattern(&c);
    for (size_t i = sizeof c; i < len; i++)
        if (bytes[i] != ((unsigned char)(word >> (i % 8 * 8)) ^ (unsigned char)(i >> 3)))
            return -1;
    return c.stamp;
}

/* Keys of several lengths, some with a user. bytes: 48. */
static struct perf__key make_key(unsigned char *bytes, uint64_t number)
{
    static const char users[] = "the user of some keys";
    size_t len = 8 + number % 33;
    memset(bytes, (int)(number % 251), len);
    memcpy(bytes, &number, sizeof number);
    struct perf__key key = {.key = bytes,
                            .key_len = (uint32_t)len,
                            .ns = (uint16_t)(number % NAMESPACES),
                            .user = users,
                            .user_len = number % 5 ? 0 : (uint8_t)(1 + number % 20)};
    key.hash = perf__mix64(number + 1);
    return key;
}

static struct perf__plain plain_of(const struct perf__key *key, void *buf, size_t cap, size_t *len)
{
    return (struct perf__plain){.hash = key->hash,
                                .key = key->key,
                                .key_len = key->key_len,
                                .header = (uint64_t)key->ns << 8 | key->key_len,
                                .buf = buf,
                                .cap = cap,
                                .len = len,
                                .thread = perf__thread_slot()};
}

static bool is_dead(void *ctx, const struct perf__entry_view *entry)
{
    struct stress *s = ctx;
    return entry->stamp <= atomic_load(&s->mark[entry->key.ns]);
}

static _Atomic uint64_t left_wrong;

static void has_left(void *ctx, int reason, const struct perf__entry_view *entry)
{
    (void)ctx;
    uint64_t number;
    memcpy(&number, entry->key.key, sizeof number);
    if (!reason || check_content(entry->value, entry->value_len, number) < 0)
        atomic_fetch_add(&left_wrong, 1);
}

/* The first thing that went wrong in any thread; assertions belong to the main thread. */
static char complaint[256];
static _Atomic int complaints;

#define CHECK(condition, ...)                                      \
    do {                                                           \
        if (!(condition) && atomic_fetch_add(&complaints, 1) == 0) \
            snprintf(complaint, sizeof complaint, __VA_ARGS__);    \
    } while (0)

static void saw(struct worker *w, uint64_t key, uint64_t version)
{
    CHECK(version >= w->seen[key], "version of key %llu went back from %llu to %llu",
          (unsigned long long)key, (unsigned long long)w->seen[key], (unsigned long long)version);
    w->seen[key] = version;
}

static void check_hit(struct worker *w, const void *data, size_t len, uint64_t key,
                      const struct perf__hit *hit, int64_t now, int64_t acted)
{
    int64_t stamp = check_content(data, len, key);
    CHECK(stamp >= 0, "torn or foreign value of %zu bytes for key %llu", len,
          (unsigned long long)key);
    CHECK(stamp > acted, "a value that an invalidation had killed");
    CHECK(hit->dead_at > now, "a value that had ended");
    saw(w, key, hit->version);
    atomic_fetch_add_explicit(&w->s->hits, 1, memory_order_relaxed);
}

static void do_copy(struct worker *w, uint64_t number, int64_t now)
{
    unsigned char bytes[48], buf[2048];
    struct perf__key key = make_key(bytes, number);
    struct perf__hit hit;
    size_t len = 0;
    int64_t acted = atomic_load(&w->s->acted[key.ns]);
    struct perf__plain plain = plain_of(&key, buf, sizeof buf, &len);
    if (!key.user_len && (perf__memory_get_plain(w->s->tier, &plain) == PERF__PLAIN_HIT ||
                          perf__memory_search_plain(w->s->tier, &plain))) {
        int64_t stamp = check_content(buf, len, number);
        CHECK(stamp >= 0, "torn or foreign value of %zu bytes for key %llu", len,
              (unsigned long long)number);
        CHECK(stamp > acted, "a value that an invalidation had killed");
    }
    int rc = perf__memory_get_copy(w->s->tier, &key, now, buf, sizeof buf, &len, &hit);
    if (rc == PERF_OK)
        check_hit(w, buf, len, number, &hit, now, acted);
    else if (rc == PERF_ETOOSMALL)
        CHECK(len > sizeof buf && len <= BIGGEST, "length %zu", len);
    else
        CHECK(rc == PERF_MISS, "get: %s", perf_strerror(rc));
}

static void release(struct worker *w, size_t i)
{
    if (!w->held[i].value)
        return;
    CHECK(check_content(perf_value_data(w->held[i].value), perf_value_size(w->held[i].value),
                        w->held[i].key) >= 0,
          "a held value changed");
    perf_value_release(w->held[i].value);
    w->held[i].value = NULL;
}

static void do_value(struct worker *w, uint64_t number, int64_t now)
{
    unsigned char bytes[48];
    struct perf__key key = make_key(bytes, number);
    struct perf__hit hit;
    perf_value *value;
    int64_t acted = atomic_load(&w->s->acted[key.ns]);
    int rc = perf__memory_get(w->s->tier, &key, now, &value, &hit);
    if (rc != PERF_OK) {
        CHECK(rc == PERF_MISS, "get: %s", perf_strerror(rc));
        return;
    }
    check_hit(w, perf_value_data(value), perf_value_size(value), number, &hit, now, acted);
    size_t i = next(w) % HELD;
    release(w, i);
    w->held[i].value = value;
    w->held[i].key = number;
}

static _Atomic uint64_t overwritten;

static void do_put(struct worker *w, uint64_t number, int64_t now)
{
    unsigned char bytes[48];
    static _Thread_local unsigned char data[BIGGEST];
    struct perf__key key = make_key(bytes, number);
    uint64_t r = next(w), version = 0;
    struct content c = {number, atomic_fetch_add(&w->s->stamp, 1) + 1,
                        sizeof c + (r >> 8) % (r % 16   ? 200
                                               : r % 64 ? 3000
                                                        : BIGGEST - 64)};
    if (r % 3 == 1)
        c.len = sizeof c + 100; /* a length that values share, for the overwrite in place */
    make_content(data, &c);
    struct perf__write write = {.data = data,
                                .len = c.len,
                                .fresh_until = PERF__NEVER,
                                .dead_at = PERF__NEVER,
                                .stamp = c.stamp,
                                .weight = 1,
                                .mode = PERF_SET_ALWAYS,
                                .kind = PERF__ENTRY_VALUE};
    if (r % 4 == 1)
        write.fresh_until = write.dead_at = now + 1 + (int64_t)(r >> 40) % 3000;
    if (r % 7 == 1) {
        write.tags = "\3tag";
        write.tags_len = 4;
    }
    struct perf__watch watch;
    if (r % 5 == 1) {
        perf__memory_watch(w->s->tier, &key, &watch);
        write.watch = &watch;
        write.is_copy = r % 10 == 1;
    }
    if (r % 11 == 1)
        write.mode = PERF_SET_IF_ABSENT;
    else if (r % 11 == 2)
        write.mode = PERF_SET_IF_PRESENT;
    struct perf__plain plain = plain_of(&key, data, write.len, NULL);
    if (!key.user_len && !write.watch && !write.tags && write.mode == PERF_SET_ALWAYS &&
        write.dead_at == PERF__NEVER && perf__memory_overwrite_plain(w->s->tier, &plain, c.stamp)) {
        atomic_fetch_add_explicit(&overwritten, 1, memory_order_relaxed);
        return;
    }
    int rc = perf__memory_put(w->s->tier, &key, now, &write, &version);
    if (write.watch)
        perf__memory_unwatch(w->s->tier, &watch);
    if (rc == PERF_OK)
        saw(w, number, version);
    else
        CHECK(rc == PERF_MISS || rc == PERF_EEXISTS || (rc == PERF_ECONFLICT && write.watch),
              "put of %zu bytes: %s: %s", write.len, perf_strerror(rc), perf_last_error());
}

static void do_invalidate(struct worker *w, uint64_t number)
{
    struct stress *s = w->s;
    size_t ns = number % NAMESPACES;
    int64_t stamp = atomic_fetch_add(&s->stamp, 1) + 1, before = atomic_load(&s->mark[ns]);
    while (before < stamp && !atomic_compare_exchange_weak(&s->mark[ns], &before, stamp)) {
    }
    perf__memory_set_suspect(s->tier, stamp);
    before = atomic_load(&s->acted[ns]);
    while (before < stamp && !atomic_compare_exchange_weak(&s->acted[ns], &before, stamp)) {
    }
}

static bool check_view(void *ctx, const struct perf__entry_view *view)
{
    (void)ctx;
    uint64_t number;
    memcpy(&number, view->key.key, sizeof number);
    CHECK(check_content(view->value, view->value_len, number) >= 0, "a walk met a torn value");
    return true;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct stress *s = w->s;
    for (uint64_t n = 0; n < s->ops; n++) {
        uint64_t r = next(w), what = r % 1000;
        /* Half of the operations on a few keys: threads must meet. */
        uint64_t number = (r >> 20) % (r >> 60 & 1 ? 16 : KEYS);
        int64_t now = atomic_load_explicit(&s->now, memory_order_relaxed);
        unsigned char bytes[48];
        struct perf__key key = make_key(bytes, number);
        if (what < 400) {
            do_copy(w, number, now);
        } else if (what < 550) {
            do_value(w, number, now);
        } else if (what < 880) {
            do_put(w, number, now);
        } else if (what < 930) {
            int rc = perf__memory_delete(s->tier, &key, PERF_EVENT_DELETED);
            CHECK(rc == PERF_OK || rc == PERF_MISS, "delete: %s", perf_strerror(rc));
        } else if (what < 980) {
            int64_t until = r >> 40 & 1 ? PERF__NEVER : now + (int64_t)(r >> 41) % 2000;
            int rc = perf__memory_touch(s->tier, &key, now, until, until);
            CHECK(rc == PERF_OK || rc == PERF_MISS, "touch: %s", perf_strerror(rc));
        } else if (what < 994) {
            bool swept;
            perf__memory_maintain(s->tier, now, 64, &swept);
            atomic_fetch_add_explicit(&s->now, 17, memory_order_relaxed);
        } else if (what < 997) {
            do_invalidate(w, number);
        } else if (what < 998) {
            perf__memory_walk(s->tier, number % perf__memory_shard_count(s->tier), now, check_view,
                              NULL);
        } else {
            struct perf__memory_usage usage;
            perf__memory_usage(s->tier, &usage);
            CHECK(usage.bytes <= usage.max_bytes + (64 << 10), "%llu bytes of %llu",
                  (unsigned long long)usage.bytes, (unsigned long long)usage.max_bytes);
        }
    }
    for (size_t i = 0; i < HELD; i++)
        release(w, i);
    return NULL;
}

static uint64_t operations(uint64_t otherwise)
{
    const char *text = getenv("PERF_STRESS_OPS");
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void open_tier(struct stress *s, uint64_t max_bytes, uint64_t max_entries, uint64_t shards)
{
    memset(s, 0, sizeof *s);
    atomic_store(&complaints, 0);
    atomic_store(&left_wrong, 0);
    cr_assert_eq(perf__host_take(test_host_init(&s->th), &s->host), PERF_OK);
    int64_t start = atomic_load(&s->th.realtime_ms);
    atomic_store(&s->stamp, start + 1);
    for (int i = 0; i < NAMESPACES; i++)
        atomic_store(&s->mark[i], start), atomic_store(&s->acted[i], start);
    atomic_store(&s->now, atomic_load(&s->th.monotonic_ns) / 1000000);
    const struct perf__memory_config config = {.host = &s->host,
                                               .max_bytes = max_bytes,
                                               .max_entries = max_entries,
                                               .shards = shards,
                                               .max_namespaces = NAMESPACES,
                                               .ctx = s,
                                               .dead = is_dead,
                                               .left = has_left};
    cr_assert_eq(perf__memory_open(&config, &s->tier), PERF_OK, "%s", perf_last_error());
}

static void run(struct stress *s, uint64_t ops)
{
    pthread_t threads[THREADS];
    struct worker *workers = calloc(THREADS, sizeof *workers);
    s->ops = ops / THREADS;
    for (size_t i = 0; i < THREADS; i++) {
        workers[i].s = s;
        workers[i].random = 77 * i + 1;
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    free(workers);
    cr_assert_eq(atomic_load(&complaints), 0, "%d, first: %s", atomic_load(&complaints), complaint);
    cr_assert(atomic_load(&s->hits) > ops / 100);
    cr_assert_eq(atomic_load(&left_wrong), 0);
    perf__memory_close(s->tier);
    cr_assert_eq(atomic_load(&s->th.live), 0);
}

Test(memory_tier_stress, bounded_by_bytes, .timeout = 3600)
{
    static struct stress s;
    open_tier(&s, 2 << 20, 0, 2);
    run(&s, operations(300000) / 2);
    cr_assert(atomic_load(&overwritten) > 0);
}

Test(memory_tier_stress, bounded_by_entries_with_a_listener, .timeout = 3600)
{
    static struct stress s;
    open_tier(&s, 64 << 20, 600, 4);
    perf__memory_set_event_mask(s.tier, 31);
    atomic_store(&overwritten, 0);
    run(&s, operations(300000) / 4);
    cr_assert_eq(atomic_load(&overwritten), 0); /* which a listener would not hear of */
}

/* One shard, so that everything meets. */
Test(memory_tier_stress, one_shard, .timeout = 3600)
{
    static struct stress s;
    open_tier(&s, 1 << 20, 0, 1);
    run(&s, operations(300000) / 4);
}

/* ------------------------------------------------ what is there stays there */

struct presence {
    struct stress *s;
    _Atomic int stop;
    _Atomic uint64_t gets, misses;
};

static void *look_again(void *arg)
{
    struct presence *p = arg;
    unsigned char bytes[48], buf[2048];
    struct perf__key key = make_key(bytes, 1);
    while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
        size_t len;
        struct perf__hit hit;
        struct perf__plain plain = plain_of(&key, buf, sizeof buf, &len);
        enum perf__plain_get got = perf__memory_get_plain(p->s->tier, &plain);
        if (got == PERF__PLAIN_HIT)
            CHECK(check_content(buf, len, 1) >= 0, "a torn value");
        atomic_fetch_add_explicit(&p->misses, got == PERF__PLAIN_ABSENT, memory_order_relaxed);
        int rc = perf__memory_get_copy(p->s->tier, &key, 0, buf, sizeof buf, &len, &hit);
        if (rc == PERF_OK)
            CHECK(check_content(buf, len, 1) >= 0, "a torn value");
        atomic_fetch_add_explicit(&p->gets, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->misses, rc == PERF_MISS, memory_order_relaxed);
    }
    return NULL;
}

static void write_again(struct stress *s, uint64_t number, size_t len)
{
    unsigned char bytes[48], data[2048];
    struct perf__key key = make_key(bytes, number);
    struct content c = {number, atomic_fetch_add(&s->stamp, 1) + 1, len};
    make_content(data, &c);
    struct perf__write write = {.data = data,
                                .len = len,
                                .fresh_until = PERF__NEVER,
                                .dead_at = PERF__NEVER,
                                .stamp = c.stamp,
                                .weight = 1};
    uint64_t version;
    cr_assert_eq(perf__memory_put(s->tier, &key, 0, &write, &version), PERF_OK);
}

/* A key that is overwritten, with values of all sizes and while the table grows, is never
 * missing in between. */
Test(memory_tier_stress, overwriting_is_no_gap, .timeout = 600)
{
    static struct stress s;
    open_tier(&s, 64 << 20, 0, 1);
    struct presence p = {.s = &s};
    write_again(&s, 1, 100);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, look_again, &p), 0);
    uint64_t rounds = operations(300000) / 6;
    for (uint64_t i = 0; i < rounds || atomic_load(&p.gets) < 1000; i++) {
        write_again(&s, 1, sizeof(struct content) + i * 37 % 1500);
        if (i < 20000)
            write_again(&s, 2 + i, 40);
    }
    atomic_store(&p.stop, 1);
    pthread_join(thread, NULL);
    cr_assert_eq(atomic_load(&complaints), 0, "%s", complaint);
    cr_assert_eq(atomic_load(&p.misses), 0, "%llu of %llu gets missed",
                 (unsigned long long)atomic_load(&p.misses),
                 (unsigned long long)atomic_load(&p.gets));
    perf__memory_close(s.tier);
    cr_assert_eq(atomic_load(&s.th.live), 0);
}
