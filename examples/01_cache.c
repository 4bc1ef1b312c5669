/* SPDX-License-Identifier: MIT */
/*
 * 01_cache.c - get, and on a miss make and set: the plainest use of the cache.
 *
 * Shows: a durable tier that survives a restart of the cache, one entry for each
 * user, values that release themselves, invalidation, statistics.
 *
 *     cc 01_cache.c $(pkg-config --cflags --libs libperf) && ./a.out
 */
#include <inttypes.h>
#include <libperf/perf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, int rc)
{
    fprintf(stderr, "%s: %s (%s)\n", what, perf_strerror(rc), perf_last_error());
    return EXIT_FAILURE;
}

/* The part that is slow in real life. */
static size_t make_response(const char *user, char *buf, size_t cap)
{
    return (size_t)snprintf(buf, cap, "hello %s, you have 3 courses", user);
}

static void answer(perf_cache *cache, const char *user)
{
    static const char key[] = "/api/courses";
    PERF_AUTO(perf_value) v = NULL; /* let go at every way out of this scope */

    if (perf_cache_get(cache, "api_responses", user, key, strlen(key), &v) == PERF_OK) {
        printf("  %-5s hit   %.*s\n", user, (int)perf_value_size(v),
               (const char *)perf_value_data(v));
        return;
    }
    char buf[128];
    size_t len = make_response(user, buf, sizeof buf);
    perf_cache_set(cache, "api_responses", user, key, strlen(key), buf, len, /* ttl_ms */ 300000);
    printf("  %-5s made  %.*s\n", user, (int)len, buf);
}

static int run(const char *path, int restarted)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_cache_stats stats = PERF_CACHE_STATS_INIT;
    perf_cache *cache;
    int rc;

    options.memory_max_bytes = 16 << 20;
    options.durable_path = path;
    rc = perf_cache_open(&options, &cache);
    if (rc != PERF_OK)
        return fail("perf_cache_open", rc);

    printf("%s\n", restarted ? "after a restart, from disk:" : "first run:");
    answer(cache, "anna");
    answer(cache, "ben");
    answer(cache, "anna");

    if (restarted) {
        puts("after invalidating all of anna's:");
        perf_cache_invalidate_user(cache, "anna");
        answer(cache, "anna");
        answer(cache, "ben");
    }
    perf_cache_get_stats(cache, NULL, &stats);
    printf("  %" PRIu64 " hits (%" PRIu64 " from memory), %" PRIu64 " misses\n\n", stats.hits,
           stats.memory_hits, stats.misses);

    rc = perf_cache_close(cache);
    return rc == PERF_OK ? EXIT_SUCCESS : fail("perf_cache_close", rc);
}

int main(void)
{
    char dir[] = "/tmp/perf-example-XXXXXX";
    char path[64], extra[80];
    int rc;

    if (!mkdtemp(dir))
        return EXIT_FAILURE;
    snprintf(path, sizeof path, "%s/cache.db", dir);
    rc = run(path, 0);
    if (rc == EXIT_SUCCESS)
        rc = run(path, 1);

    for (size_t i = 0; i < 3; i++) {
        static const char *const suffix[] = {"", "-wal", "-shm"};
        snprintf(extra, sizeof extra, "%s%s", path, suffix[i]);
        unlink(extra);
    }
    rmdir(dir);
    return rc;
}
