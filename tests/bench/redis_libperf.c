/* SPDX-License-Identifier: MIT */
/* redis_libperf.c - our subject of bench-redis: one client for all threads. */
#include <libperf/redis.h>

#include "redis_subject.h"

static perf_redis *redis;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static void *redis_begin(struct redis_thread *thread)
{
    (void)thread;
    return redis;
}

static void redis_end(void *context)
{
    (void)context;
}

static void redis_set(void *context, const char *key, size_t key_len, const char *value)
{
    perf_bytes argv[] = {{"SET", 3}, {key, key_len}, {value, 64}};
    if (perf_redis_call(context, 3, argv, 0, NULL) != PERF_OK)
        fail("SET");
}

static bool redis_get(void *context, const char *key, size_t key_len, const char *value)
{
    perf_bytes argv[] = {{"GET", 3}, {key, key_len}};
    perf_redis_reply *reply;
    if (perf_redis_call(context, 2, argv, 0, &reply) != PERF_OK)
        fail("GET");
    bool right =
        perf_redis_reply_size(reply) == 64 && !memcmp(perf_redis_reply_data(reply), value, 64);
    perf_redis_reply_release(reply);
    return right;
}

int main(int argc, char **argv)
{
    perf_redis_options options = PERF_REDIS_OPTIONS_INIT;
    options.port = argc > 1 ? atoi(argv[1]) : 0;
    if (perf_redis_open(&options, &redis) != PERF_OK)
        fail("open");
    int rc = redis_main(argc, argv);
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    if (getenv("REDIS_STATS") && perf_redis_get_stats(redis, &stats) == PERF_OK)
        fprintf(stderr, "%.1f commands a write, %.1f replies a read\n",
                (double)stats.commands / (double)stats.writes,
                (double)stats.replies / (double)stats.reads);
    if (perf_redis_close(redis) != PERF_OK)
        fail("close");
    return rc;
}
