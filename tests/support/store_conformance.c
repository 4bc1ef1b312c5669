/* SPDX-License-Identifier: MIT */
/* store_conformance.c - the promises of backend/store.h, asserted. */
#include "store_conformance.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/base/hash.h"
#include "seams.h"
#include "test.h"

perf_store_key test_key(struct test_key *own, uint64_t n)
{
    struct perf__hash128 h = perf__hash_bytes((struct perf__hash_key){1, 2}, &n, sizeof n);
    perf__store64(own->id, h.lo);
    perf__store64(own->id + 8, h.hi);
    int len = snprintf(own->name, sizeof own->name, "key-%llu", (unsigned long long)n);
    return (perf_store_key){own->id, {"ns", 2}, {"user", 4}, {own->name, (size_t)len}};
}

perf_store_op test_set(struct test_key *own, uint64_t n, const void *data, size_t len,
                       int64_t expire_ms)
{
    return (perf_store_op){.kind = PERF_STORE_SET,
                           .key = test_key(own, n),
                           .record = {data, len},
                           .expire_ms = expire_ms};
}

perf_store_op test_remove(struct test_key *own, uint64_t n)
{
    return (perf_store_op){.kind = PERF_STORE_REMOVE, .key = test_key(own, n)};
}

perf_store_op test_mark(int64_t kind, const char *name, int64_t stamp_ms)
{
    return (perf_store_op){.kind = PERF_STORE_MARK,
                           .mark_kind = kind,
                           .mark_name = {name, strlen(name)},
                           .mark_stamp_ms = stamp_ms};
}

bool test_has(struct perf__store *store, const perf_allocator *allocator, uint64_t n,
              const void *data, size_t len)
{
    struct test_key key;
    perf_store_key at = test_key(&key, n);
    perf_store_reply reply = {.allocator = allocator};
    int rc = perf__store_get(store, &at, &reply);
    bool same = rc == PERF_OK && reply.len == len && (!len || !memcmp(reply.data, data, len));
    perf__reply_free(&reply);
    return same;
}

static bool misses(struct perf__store *store, const perf_allocator *allocator, uint64_t n)
{
    struct test_key key;
    perf_store_key at = test_key(&key, n);
    perf_store_reply reply = {.allocator = allocator};
    int rc = perf__store_get(store, &at, &reply);
    perf__reply_free(&reply);
    return rc == PERF_MISS;
}

static int put(struct perf__store *store, uint64_t n, const void *data, size_t len)
{
    struct test_key key;
    perf_store_op op = test_set(&key, n, data, len, 0);
    return perf__store_apply(store, &op, 1);
}

/* -------------------------------------------------------------------- checks */

static void check_basics(struct perf__store *store, const perf_allocator *a)
{
    cr_assert(misses(store, a, 1));
    cr_assert(put(store, 1, "one", 3) == PERF_OK);
    cr_assert(test_has(store, a, 1, "one", 3));
    cr_assert(put(store, 1, "another", 7) == PERF_OK);
    cr_assert(test_has(store, a, 1, "another", 7), "a second set replaces the first");
    struct test_key key;
    perf_store_op op = test_remove(&key, 1);
    cr_assert(perf__store_apply(store, &op, 1) == PERF_OK);
    cr_assert(misses(store, a, 1));
    cr_assert(perf__store_apply(store, &op, 1) == PERF_OK, "removing what is not there is fine");
}

static void check_sizes(struct perf__store *store, const perf_allocator *a)
{
    static const size_t sizes[] = {0, 1, 255, 4096, 70000};
    unsigned char *data = malloc(70000);
    for (size_t i = 0; i < 70000; i++)
        data[i] = (unsigned char)(i * 31 % 251); /* zero bytes too */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_assert(put(store, 100 + i, data, sizes[i]) == PERF_OK);
        cr_assert(test_has(store, a, 100 + i, data, sizes[i]), "%zu bytes", sizes[i]);
    }
    free(data);
}

/* Ids that agree in one half are still different ids. */
static void check_ids(struct perf__store *store, const perf_allocator *a)
{
    for (int half = 0; half < 2; half++) {
        struct test_key one, two;
        perf_store_op ops[2] = {test_set(&one, 200, "a", 1, 0), test_set(&two, 201, "b", 1, 0)};
        memcpy(two.id + 8 * half, one.id + 8 * half, 8);
        cr_assert(perf__store_apply(store, ops, 2) == PERF_OK);
        perf_store_reply reply = {.allocator = a};
        cr_assert(perf__store_get(store, &ops[0].key, &reply) == PERF_OK);
        cr_assert(reply.len == 1 && reply.data[0] == 'a');
        cr_assert(perf__store_get(store, &ops[1].key, &reply) == PERF_OK);
        cr_assert(reply.len == 1 && reply.data[0] == 'b');
        perf__reply_free(&reply);
    }
}

static void check_order(struct perf__store *store, const perf_allocator *a)
{
    struct test_key k1, k2, k3, k4;
    perf_store_op ops[4] = {test_set(&k1, 300, "first", 5, 0), test_remove(&k2, 300),
                            test_set(&k3, 300, "last", 4, 0), test_set(&k4, 301, "x", 1, 0)};
    cr_assert(perf__store_apply(store, ops, 4) == PERF_OK);
    cr_assert(test_has(store, a, 300, "last", 4), "operations are kept in order");
    perf_store_op gone[2] = {test_set(&k1, 301, "y", 1, 0), test_remove(&k2, 301)};
    cr_assert(perf__store_apply(store, gone, 2) == PERF_OK);
    cr_assert(misses(store, a, 301));
}

static void check_many(struct perf__store *store, const perf_allocator *a)
{
    enum { COUNT = 100 };
    struct test_key own[COUNT];
    perf_store_key keys[COUNT];
    perf_store_reply replies[COUNT], *pointers[COUNT];
    for (uint64_t i = 0; i < COUNT; i++) {
        keys[i] = test_key(&own[i], 400 + i);
        replies[i] = (perf_store_reply){.allocator = a, .found = true};
        pointers[i] = &replies[i];
        if (i % 3)
            cr_assert(put(store, 400 + i, own[i].name, keys[i].key.len) == PERF_OK);
    }
    cr_assert(perf__store_get_many(store, keys, COUNT, pointers) == PERF_OK);
    for (uint64_t i = 0; i < COUNT; i++) {
        cr_assert(replies[i].found == (i % 3 != 0), "key %d", (int)i);
        cr_assert(!replies[i].found || (replies[i].len == keys[i].key.len &&
                                        !memcmp(replies[i].data, own[i].name, replies[i].len)));
        perf__reply_free(&replies[i]);
    }
    cr_assert(perf__store_get_many(store, keys, 0, pointers) == PERF_OK);
}

struct marks_seen {
    int count, stop_after;
    int64_t tag_a, tag_b, user_a;
};

static int see_mark(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    struct marks_seen *seen = ctx;
    if (kind == 1)
        return 0; /* of the store's own, when it does not know what came before */
    seen->count++;
    if (kind == 4 && name.len == 1 && !memcmp(name.data, "a", 1))
        seen->tag_a = stamp_ms;
    else if (kind == 4 && name.len == 1 && !memcmp(name.data, "b", 1))
        seen->tag_b = stamp_ms;
    else if (kind == 3 && name.len == 1 && !memcmp(name.data, "a", 1))
        seen->user_a = stamp_ms;
    return seen->count == seen->stop_after;
}

static void check_marks(struct perf__store *store, const perf_allocator *a)
{
    struct marks_seen seen = {0};
    struct test_key key;
    perf_store_op ops[] = {test_mark(4, "a", 50), test_mark(4, "b", 7),
                           test_mark(4, "a", 40), test_mark(3, "a", 9),
                           test_mark(5, "", 1),   test_set(&key, 500, "with marks", 10, 0)};
    cr_assert(perf__store_apply(store, ops, 6) == PERF_OK);
    cr_assert(test_has(store, a, 500, "with marks", 10));
    cr_assert(perf__store_marks(store, 0, see_mark, &seen) == PERF_OK);
    if (!seen.count)
        return; /* a store without marks() */
    cr_assert(seen.count == 4, "%d marks", seen.count);
    cr_assert(seen.tag_a == 50, "the greatest stamp stays");
    cr_assert(seen.tag_b == 7 && seen.user_a == 9);
    perf_store_op later = test_mark(4, "a", 60);
    cr_assert(perf__store_apply(store, &later, 1) == PERF_OK);
    seen = (struct marks_seen){.stop_after = 2};
    cr_assert(perf__store_marks(store, 0, see_mark, &seen) == PERF_OK);
    cr_assert(seen.count == 2, "the callback can stop the listing");
    seen = (struct marks_seen){0};
    cr_assert(perf__store_marks(store, 0, see_mark, &seen) == PERF_OK && seen.tag_a == 60);
    int64_t late = INT64_C(4102444800000); /* of which the young ones are asked for */
    perf_store_op young[] = {test_mark(4, "b", late), test_mark(3, "a", late - 1000)};
    cr_assert(perf__store_apply(store, young, 2) == PERF_OK);
    for (int64_t since = late - 2000; since <= late + 1; since += 667) {
        seen = (struct marks_seen){0};
        cr_assert(perf__store_marks(store, since, see_mark, &seen) == PERF_OK);
        cr_assert((seen.tag_b == late) >= (since <= late), "all that are young");
        cr_assert((seen.user_a == late - 1000) >= (since <= late - 1000));
    }
}

static void check_sweep(struct perf__store *store, const perf_allocator *a)
{
    static const int64_t year_2100 = 4102444800000; /* alive by the store's own clock, too */
    struct test_key own[20];
    perf_store_op ops[20];
    for (uint64_t i = 0; i < 20; i++)
        ops[i] = test_set(&own[i], 600 + i, "x", 1, i < 10 ? 1000 + (int64_t)i : year_2100);
    cr_assert(perf__store_apply(store, ops, 20) == PERF_OK);
    size_t removed;
    cr_assert(perf__store_sweep(store, 999, 100, &removed) == PERF_OK);
    cr_assert(removed == 0, "nothing is expired yet");
    cr_assert(perf__store_sweep(store, 2000, 4, &removed) == PERF_OK);
    cr_assert(removed <= 4, "the budget holds");
    cr_assert(perf__store_sweep(store, 2000, 100, &removed) == PERF_OK);
    for (uint64_t i = 10; i < 20; i++)
        cr_assert(test_has(store, a, 600 + i, "x", 1), "what is alive stays");
    perf_store_usage usage;
    cr_assert(perf__store_usage(store, &usage) == PERF_OK);
    for (uint64_t i = 0; i < 10 && usage.expired; i++)
        cr_assert(misses(store, a, 600 + i));
}

static void check_usage(struct perf__store *store)
{
    perf_store_usage before, after;
    cr_assert(perf__store_usage(store, &before) == PERF_OK);
    if ((!before.records && !before.bytes) || !strcmp(perf__store_name(store), "dynamodb"))
        return; /* a store without usage(), or whose figures are some hours old */
    for (uint64_t i = 0; i < 10; i++)
        cr_assert(put(store, 700 + i, "twice", 5) == PERF_OK && !put(store, 700 + i, "again", 5));
    cr_assert(perf__store_usage(store, &after) == PERF_OK);
    cr_assert(after.records == before.records + 10, "records are counted once");
    struct test_key key;
    perf_store_op op = test_remove(&key, 700);
    cr_assert(perf__store_apply(store, &op, 1) == PERF_OK);
    cr_assert(perf__store_usage(store, &before) == PERF_OK);
    cr_assert(before.records == after.records - 1);
}

enum { WRITERS = 4, EACH = 50 };

struct writer {
    struct perf__store *store;
    const perf_allocator *allocator;
    uint64_t first;
    int wrong;
};

static void *write_and_read(void *arg)
{
    struct writer *w = arg;
    for (uint64_t i = 0; i < EACH; i++) {
        uint64_t n = w->first + i;
        w->wrong += put(w->store, n, &n, sizeof n) != PERF_OK;
        w->wrong += !test_has(w->store, w->allocator, n, &n, sizeof n);
    }
    return NULL;
}

static void check_threads(struct perf__store *store, const perf_allocator *a)
{
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    for (uint64_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){store, a, 1000 + i * EACH, 0};
        cr_assert(!pthread_create(&threads[i], NULL, write_and_read, &writers[i]));
    }
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(writers[i].wrong == 0, "%d calls went wrong", writers[i].wrong);
    }
}

void store_conformance(const perf_tier_options *tier)
{
    struct test_host th;
    struct perf__host host;
    struct perf__store *store;
    /* A clock before all the times that the checks use: a store may hide what is over. */
    cr_assert(perf__host_take(test_host_init(&th), &host) == PERF_OK);
    th.realtime_ms = 500;
    cr_assert(perf__store_open(tier, &host, &store) == PERF_OK, "%s", perf_last_error());
    const perf_allocator *a = &host.allocator;
    check_basics(store, a);
    check_sizes(store, a);
    check_ids(store, a);
    check_order(store, a);
    check_many(store, a);
    check_marks(store, a);
    check_sweep(store, a);
    check_usage(store);
    check_threads(store, a);
    cr_assert(perf__store_flush(store) == PERF_OK);
    bool durable = perf__store_capabilities(store) & PERF_STORE_DURABLE;
    perf__store_close(store);
    cr_assert(th.live == 0);
    if (!durable)
        return;
    cr_assert(perf__store_open(tier, &host, &store) == PERF_OK, "%s", perf_last_error());
    cr_assert(test_has(store, a, 300, "last", 4), "records survive");
    cr_assert(misses(store, a, 301), "so do removals");
    struct marks_seen seen = {0};
    cr_assert(perf__store_marks(store, 0, see_mark, &seen) == PERF_OK);
    cr_assert(!seen.count || (seen.count == 4 && seen.tag_a == 60), "marks survive");
    perf__store_close(store);
    cr_assert(th.live == 0);
}
