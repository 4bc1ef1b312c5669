/* SPDX-License-Identifier: MIT */
/*
 * 10_shared_cache.c - two processes with one cache between them: memory in each, Redis below both.
 *
 *     cc 10_shared_cache.c $(pkg-config --cflags --libs libperf)
 *     REDIS_ENDPOINT=127.0.0.1:6379 ./a.out
 *
 * One loads a course, the other finds it; one changes it, and the other's memory drops the old one
 * by itself, because Redis tells it. Without REDIS_ENDPOINT it starts nothing and says how.
 */
#include <libperf/perf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char ns[] = "courses", key[] = "42";

static perf_cache *open_cache(void)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    perf_cache *cache = NULL;

    tier.backend = "redis"; /* where it is says REDIS_ENDPOINT */
    tier.timeout_ms = 500;  /* when it is down: no call waits longer */
    options.tiers = &tier;
    options.tier_count = 1;
    if (perf_cache_open(&options, &cache) != PERF_OK)
        fprintf(stderr, "perf_cache_open: %s\n", perf_last_error());
    return cache;
}

/* Slow in real life; however many ask in however many processes, one of them does it. */
static int load(perf_load *load, void *ctx)
{
    printf("  %s asks the database\n", (const char *)ctx);
    return perf_load_set(load, "Algebra", 7);
}

static void show(perf_cache *cache, const char *who)
{
    perf_loader loader = PERF_LOADER_INIT;
    PERF_AUTO(perf_value) v = NULL;

    loader.load = load;
    loader.ctx = (void *)(uintptr_t)who;
    loader.ctx_is_static = 1;
    int rc = perf_cache_get_or_load(cache, ns, NULL, key, strlen(key), &loader, &v);
    if (rc == PERF_OK)
        printf("  %s has %.*s\n", who, (int)perf_value_size(v), (const char *)perf_value_data(v));
    else
        printf("  %s has nothing: %s\n", who, perf_last_error());
    fflush(stdout);
}

/* Waits until this process sees what the other has written; it is some 100 us. */
static void wait_for_change(perf_cache *cache)
{
    char text[32];
    size_t len = 0;
    for (int i = 0; i < 5000; i++) {
        int rc = perf_cache_get_copy(cache, ns, NULL, key, strlen(key), text, sizeof text, &len);
        if (rc == PERF_OK && len == 8 && !memcmp(text, "Topology", 8))
            return;
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
}

static void tell(int fd)
{
    if (write(fd, "!", 1) != 1)
        exit(EXIT_FAILURE);
}

static void wait_for(int fd)
{
    char byte;
    if (read(fd, &byte, 1) != 1)
        exit(EXIT_FAILURE);
}

static int first(int from, int to)
{
    perf_cache *cache = open_cache();
    if (!cache)
        return EXIT_FAILURE;
    perf_cache_delete(cache, ns, NULL, key, strlen(key)); /* of an earlier run */
    show(cache, "the first ");
    tell(to);
    wait_for(from);
    puts("the first changes it:");
    int rc = perf_cache_set(cache, ns, NULL, key, strlen(key), "Topology", 8, /* ttl_ms */ 60000);
    if (rc != PERF_OK)
        fprintf(stderr, "perf_cache_set: %s\n", perf_last_error());
    fflush(stdout);
    tell(to);
    wait_for(from);
    perf_cache_close(cache);
    return EXIT_SUCCESS;
}

static int second(int from, int to)
{
    wait_for(from);
    perf_cache *cache = open_cache();
    if (!cache)
        return EXIT_FAILURE;
    show(cache, "the second");
    tell(to);
    wait_for(from);
    wait_for_change(cache);
    show(cache, "the second");
    tell(to);
    perf_cache_close(cache);
    return EXIT_SUCCESS;
}

int main(void)
{
    int there[2], back[2], status = 0;
    if (!getenv("REDIS_ENDPOINT")) {
        puts("no REDIS_ENDPOINT is set: start a server (redis-server --port 7379) and run\n"
             "    REDIS_ENDPOINT=127.0.0.1:7379 10_shared_cache");
        return EXIT_SUCCESS;
    }
    if (pipe(there) || pipe(back))
        return EXIT_FAILURE;
    pid_t child = fork(); /* before a cache is opened: a cache belongs to one process */
    if (child < 0)
        return EXIT_FAILURE;
    if (!child) {
        close(there[1]);
        close(back[0]);
        return second(there[0], back[1]);
    }
    close(there[0]);
    close(back[1]);
    int rc = first(back[0], there[1]);
    close(back[0]);
    close(there[1]);
    waitpid(child, &status, 0);
    return rc || status ? EXIT_FAILURE : EXIT_SUCCESS;
}
