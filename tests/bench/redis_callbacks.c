/* SPDX-License-Identifier: MIT */
/*
 * redis_callbacks.c - our client as an event loop uses it, for bench-redis: THREADS chains of
 * commands, each begun by the callback of the one before, and no thread that waits.
 */
#include <libperf/redis.h>

#include "redis_report.h"

static perf_redis *redis;
static _Atomic int phase, running;

struct chain {
    struct redis_counts counts;
    uint64_t random;
    bool get;
    char value[64];
};

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static void next(struct chain *c);

static void done(void *ctx, int status, const char *text, perf_redis_reply *reply)
{
    struct chain *c = ctx;
    if (status) {
        fprintf(stderr, "%s\n", text);
        exit(1);
    }
    if (c->get)
        c->counts.wrong += perf_redis_reply_size(reply) != 64 ||
                           memcmp(perf_redis_reply_data(reply), c->value, 64) != 0;
    perf_redis_reply_release(reply);
    redis_count(&c->counts, atomic_load_explicit(&phase, memory_order_relaxed) == 1);
    if (atomic_load_explicit(&phase, memory_order_relaxed) == 2)
        running--;
    else
        next(c);
}

static void next(struct chain *c)
{
    char key[24];
    c->random = bench_splitmix64(c->random);
    unsigned i = (unsigned)(c->random >> 33) % REDIS_KEYS;
    perf_bytes argv[] = {{"GET", 3}, {key, redis_key(i, key)}, {c->value, 64}};
    redis_value(i, c->value);
    c->get = !(c->random & 1);
    if (!c->get)
        argv[0] = (perf_bytes){"SET", 3};
    if (perf_redis_start(redis, c->get ? 2 : 3, argv, 0, done, c, NULL) != PERF_OK)
        fail("start");
}

int main(int argc, char **argv)
{
    perf_redis_options options = PERF_REDIS_OPTIONS_INIT;
    if (argc != 4)
        return 2;
    options.port = atoi(argv[1]);
    int chains = atoi(argv[2]), ms = atoi(argv[3]);
    if (perf_redis_open(&options, &redis) != PERF_OK)
        fail("open");
    char key[24], value[64];
    for (unsigned i = 0; i < REDIS_KEYS; i++) {
        perf_bytes set[] = {{"SET", 3}, {key, redis_key(i, key)}, {value, 64}};
        redis_value(i, value);
        if (perf_redis_start(redis, 3, set, 0, NULL, NULL, NULL) != PERF_OK)
            fail("SET");
    }
    struct chain *all = calloc((size_t)chains, sizeof *all);
    struct redis_counts **counts = calloc((size_t)chains, sizeof(struct redis_counts *));
    if (!all || !counts)
        bench_die("chains");
    running = chains;
    for (int i = 0; i < chains; i++) {
        all[i].random = (uint64_t)i + 1;
        redis_counts_init(&all[i].counts);
        counts[i] = &all[i].counts;
        next(&all[i]);
    }
    usleep((useconds_t)ms * 100);
    atomic_store(&phase, 1);
    uint64_t begun = bench_now_ns();
    double cpu = redis_cpu_us();
    usleep((useconds_t)ms * 1000);
    atomic_store(&phase, 2);
    double took = (double)(bench_now_ns() - begun) / 1e9;
    cpu = redis_cpu_us() - cpu;
    while (atomic_load(&running))
        usleep(1000);
    if (perf_redis_close(redis) != PERF_OK)
        fail("close");
    return redis_report(counts, chains, took, cpu);
}
