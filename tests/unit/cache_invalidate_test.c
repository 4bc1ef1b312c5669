/* SPDX-License-Identifier: MIT */
/* cache_invalidate_test.c - marks: what each kind kills, what lives on, and what it costs. */
#include <stdlib.h>

#include "cache_fixture.h"

static void put(perf_cache *cache, const char *ns, const char *user, const char *key,
                const char *tag)
{
    perf_set_options options = PERF_SET_OPTIONS_INIT;
    options.tags = &tag;
    options.tag_count = tag ? 1 : 0;
    cr_assert_eq(perf_cache_put(cache, ns, user, key, strlen(key), "v", 1, &options, NULL),
                 PERF_OK);
}

static bool has(perf_cache *cache, const char *ns, const char *user, const char *key)
{
    return get_as(cache, ns, user, key, NULL) != NULL;
}

/* Six entries; has_which tells which live, as a mask. */
static const struct {
    const char *ns, *user, *key, *tag;
} six[] = {
    {"news", NULL, "k1", NULL},  {"news", "ann", "k2", "red"}, {"news", "bob", "k3", "blue"},
    {"mail", NULL, "k1", "red"}, {"mail", "ann", "k2", NULL},  {"mail", "red", "x", "news"},
};

static void put_six(perf_cache *cache)
{
    for (int i = 0; i < 6; i++)
        put(cache, six[i].ns, six[i].user, six[i].key, six[i].tag);
}

static unsigned which(perf_cache *cache)
{
    unsigned mask = 0;
    for (int i = 0; i < 6; i++)
        mask |= (unsigned)has(cache, six[i].ns, six[i].user, six[i].key) << i;
    return mask;
}

enum { KINDS = 13 };

/* Makes mark number i; returns the mask of those of the six that live on. */
static unsigned mark(perf_cache *cache, int i)
{
    static const struct {
        const char *ns, *pattern;
        unsigned left;
    } patterns[] = {
        {NULL, "k*", 0x20}, {"news", "k?", 0x38}, {"mail", "k[!1]", 0x2f},
        {NULL, "K*", 0x3f}, {NULL, "*", 0},       {"none", "*", 0x3f},
    };
    int rc;
    unsigned left;
    switch (i) {
    case 0:
        rc = perf_cache_invalidate_namespace(cache, "news"), left = 0x38;
        break;
    case 1:
        rc = perf_cache_invalidate_user(cache, "ann"), left = 0x2d;
        break;
    case 2:
        rc = perf_cache_invalidate_tag(cache, "red"), left = 0x35;
        break;
    case 3:
        rc = perf_cache_invalidate_user(cache, "news"), left = 0x3f;
        break;
    case 4:
        rc = perf_cache_invalidate_namespace(cache, "none"), left = 0x3f;
        break;
    case 5:
        rc = perf_cache_clear(cache), left = 0;
        break;
    case 6:
        rc = perf_cache_invalidate_tag(cache, "news"), left = 0x1f;
        break;
    default:
        rc = perf_cache_invalidate_pattern(cache, patterns[i - 7].ns, patterns[i - 7].pattern);
        left = patterns[i - 7].left;
    }
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return left;
}

Test(invalidate, each_kind_kills_exactly_its_own)
{
    for (int i = 0; i < KINDS; i++) {
        struct fixture f;
        fixture_open(&f, NULL);
        put_six(f.cache);
        cr_assert_eq(which(f.cache), 0x3f);
        unsigned left = mark(f.cache, i);
        cr_assert_eq(which(f.cache), left, "kind %d left 0x%x", i, which(f.cache));
        put_six(f.cache); /* what is set after the mark lives, even in the same millisecond */
        cr_assert_eq(which(f.cache), 0x3f, "kind %d", i);
        mark(f.cache, i);
        cr_assert_eq(which(f.cache), left, "kind %d again", i);
        while (perf_cache_maintain(f.cache, 1000))
            ;
        cr_assert_eq(which(f.cache), left, "kind %d after the sweep", i);
        cr_assert_eq(stats_of(f.cache, NULL).entries, (uint64_t)__builtin_popcount(left));
        fixture_close(&f);
    }
}

Test(invalidate, marks_survive_a_restart)
{
    for (int i = 0; i < KINDS; i++) {
        char *path = test_temp_file("cache.db");
        struct fixture f;
        fixture_open(&f, path);
        put_six(f.cache);
        unsigned left = mark(f.cache, i);
        fixture_close(&f); /* the records are still in the file, and dead */
        fixture_open(&f, path);
        test_host_advance(&f.th, 10);
        cr_assert_eq(which(f.cache), left, "kind %d left 0x%x", i, which(f.cache));
        put_six(f.cache);
        fixture_close(&f);
        fixture_open(&f, path);
        test_host_advance(&f.th, 20);
        cr_assert_eq(which(f.cache), 0x3f, "kind %d", i);
        fixture_close(&f);
        test_remove_dir_of(path);
    }
}

Test(invalidate, costs_the_same_for_many_and_frees_later)
{
    enum { N = 100000 };
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    struct test_host th;
    perf_cache *cache;
    options.memory_max_bytes = 64 << 20;
    options.host = test_host_init(&th);
    cr_assert_eq(perf_cache_open(&options, &cache), PERF_OK);
    for (int by_tag = 0; by_tag < 2; by_tag++) {
        perf_set_options set_options = PERF_SET_OPTIONS_INIT;
        const char *tag = "mass";
        set_options.tags = &tag;
        for (int i = 0; i < N + 1000; i++) {
            bool one_of_many = i < N;
            set_options.tag_count = by_tag && one_of_many;
            cr_assert_eq(perf_cache_put(cache, "ns", one_of_many && !by_tag ? "ann" : "bob", &i,
                                        sizeof i, "v", 1, &set_options, NULL),
                         PERF_OK);
        }
        cr_assert_eq(stats_of(cache, NULL).entries, N + 1000u);
        uint64_t before = stats_of(cache, NULL).invalidations;
        uint64_t bytes = stats_of(cache, "ns").bytes;
        cr_assert_eq(by_tag ? perf_cache_invalidate_tag(cache, "mass")
                            : perf_cache_invalidate_user(cache, "ann"),
                     PERF_OK);
        /* The call may pay one instalment of upkeep, the entries of 32 buckets, and no more. */
        perf_cache_stats s = stats_of(cache, NULL);
        cr_assert_leq(s.invalidations - before, 32 * 64);
        cr_assert_geq(s.entries, N + 1000u - 32 * 64);
        char buf[8];
        size_t len;
        for (int i = 0; i < N; i += 97)
            cr_assert_eq(perf_cache_get_copy(cache, "ns", by_tag ? "bob" : "ann", &i, sizeof i, buf,
                                             sizeof buf, &len),
                         PERF_MISS);
        while (perf_cache_maintain(cache, 10000))
            ;
        s = stats_of(cache, NULL);
        cr_assert_eq(s.entries, 1000);
        cr_assert_eq(s.invalidations - before, N);
        cr_assert_lt(stats_of(cache, "ns").bytes, bytes / 50);
        for (int i = N; i < N + 1000; i++)
            cr_assert_eq(
                perf_cache_get_copy(cache, "ns", "bob", &i, sizeof i, buf, sizeof buf, &len),
                PERF_OK);
    }
    cr_assert_eq(perf_cache_close(cache), PERF_OK);
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* More marks than are kept: what they killed stays dead, and what came after them lives. */
static void too_many(bool patterns, int marks, const char *durable)
{
    struct fixture f;
    char name[32];
    fixture_open(&f, durable);
    put(f.cache, "ns", "user0", "k0", NULL);
    put(f.cache, "ns", NULL, "late", NULL);
    for (int i = 0; i < marks; i++) {
        snprintf(name, sizeof name, patterns ? "k%d" : "user%d", i);
        cr_assert_eq(patterns ? perf_cache_invalidate_pattern(f.cache, NULL, name)
                              : perf_cache_invalidate_user(f.cache, name),
                     PERF_OK);
        if (i % 100 == 0)
            put(f.cache, "ns", NULL, "late", NULL);
        if (i % 1000 == 0)
            cr_assert(!has(f.cache, "ns", "user0", "k0"));
    }
    put(f.cache, "ns", NULL, "last", NULL);
    cr_assert(has(f.cache, "ns", NULL, "last"));
    cr_assert(!has(f.cache, "ns", "user0", "k0"));
    while (perf_cache_maintain(f.cache, 1000))
        ;
    cr_assert(has(f.cache, "ns", NULL, "last"));
    cr_assert(!has(f.cache, "ns", "user0", "k0"));
    fixture_close(&f);
    if (!durable)
        return;
    fixture_open(&f, durable);
    test_host_advance(&f.th, 100000); /* stamps run ahead of a clock that stands still */
    cr_assert(has(f.cache, "ns", NULL, "last"));
    cr_assert(!has(f.cache, "ns", "user0", "k0"));
    fixture_close(&f);
}

Test(invalidate, more_marks_than_are_kept)
{
    too_many(false, 40000, NULL);
    too_many(true, 3000, NULL);
}

Test(invalidate, more_marks_than_are_kept_on_disk)
{
    char *path = test_temp_file("cache.db");
    too_many(true, 1500, path);
    test_remove_dir_of(path);
}

Test(invalidate, bad_names_are_refused)
{
    struct fixture f;
    char name[1100];
    fixture_open(&f, NULL);
    memset(name, 'a', sizeof name);
    name[256] = '\0';
    cr_assert_eq(perf_cache_invalidate_user(f.cache, name), PERF_EINVAL);
    cr_assert_eq(perf_cache_invalidate_user(f.cache, NULL), PERF_EINVAL);
    cr_assert_eq(perf_cache_invalidate_tag(f.cache, ""), PERF_EINVAL);
    cr_assert_eq(perf_cache_invalidate_namespace(f.cache, NULL), PERF_EINVAL);
    cr_assert_eq(perf_cache_invalidate_pattern(f.cache, name, "*"), PERF_EINVAL);
    cr_assert_eq(perf_cache_invalidate_pattern(f.cache, NULL, NULL), PERF_EINVAL);
    name[256] = 'a';
    name[1025] = '\0';
    cr_assert_eq(perf_cache_invalidate_pattern(f.cache, NULL, name), PERF_EINVAL);
    fixture_close(&f);
}
