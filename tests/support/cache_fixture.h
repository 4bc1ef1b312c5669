/* SPDX-License-Identifier: MIT */
/*
 * cache_fixture.h - a cache whose time stands still until the test moves it,
 * and short forms for string keys and values.
 */
#ifndef TESTS_CACHE_FIXTURE_H
#define TESTS_CACHE_FIXTURE_H

#include <libperf/cache.h>
#include <string.h>

#include "seams.h"
#include "test.h"

struct fixture {
    struct test_host th;
    perf_cache *cache;
};

/* durable: a file for a SQLite tier, or NULL. */
static inline void fixture_open(struct fixture *f, const char *durable)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.memory_max_bytes = 8 << 20;
    options.durable_path = durable;
    options.host = test_host_init(&f->th);
    int rc = perf_cache_open(&options, &f->cache);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
}

static inline void fixture_close(struct fixture *f)
{
    cr_assert_eq(perf_cache_close(f->cache), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(atomic_load(&f->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&f->th.live));
}

static inline int set(perf_cache *cache, const char *key, const char *value, int64_t ttl_ms)
{
    return perf_cache_set(cache, "ns", NULL, key, strlen(key), value, strlen(value), ttl_ms);
}

/* The value as a string in static storage, or NULL; the status in *rc if rc is not NULL. */
static inline const char *get_as(perf_cache *cache, const char *ns, const char *user,
                                 const char *key, int *rc)
{
    static _Thread_local char text[256];
    size_t len = 0;
    int status =
        perf_cache_get_copy(cache, ns, user, key, strlen(key), text, sizeof text - 1, &len);
    if (rc)
        *rc = status;
    if (status != PERF_OK)
        return NULL;
    text[len] = '\0';
    return text;
}

static inline const char *get(perf_cache *cache, const char *key)
{
    return get_as(cache, "ns", NULL, key, NULL);
}

#define assert_value(cache, key, expected)                                  \
    do {                                                                    \
        const char *got_ = get(cache, key);                                 \
        cr_assert(got_ && !strcmp(got_, expected), "%s is %s, not %s", key, \
                  got_ ? got_ : "missing", expected);                       \
    } while (0)
#define assert_missing(cache, key) cr_assert(get(cache, key) == NULL, "%s is still there", key)

static inline perf_cache_stats stats_of(perf_cache *cache, const char *ns)
{
    perf_cache_stats stats = PERF_CACHE_STATS_INIT;
    cr_assert_eq(perf_cache_get_stats(cache, ns, &stats), PERF_OK);
    return stats;
}

#endif
