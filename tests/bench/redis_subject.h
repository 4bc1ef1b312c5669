/* SPDX-License-Identifier: MIT */
/*
 * redis_subject.h - the frame of the C subjects of bench-redis.
 *
 *     program PORT THREADS MILLISECONDS
 *
 * Threads do half GETs and half SETs of 64-byte values under 10,000 keys, each waiting for its
 * reply, for so long, after a tenth of it to warm up. Every value read must be its key's. Prints
 * {"ops_s", "p50_us", "p99_us", "cpu_us" (of this process, an operation), "wrong"}.
 */
#ifndef BENCH_REDIS_SUBJECT_H
#define BENCH_REDIS_SUBJECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>

#include "protocol.h"

enum { REDIS_KEYS = 10000, REDIS_BUCKETS = 40000 }; /* of 100 ns */

struct redis_run {
    int port, threads, ms;
    _Atomic int phase; /* 0: warm up, 1: measure, 2: stop */
};

struct redis_thread {
    struct redis_run *run;
    int number;
    uint64_t count, wrong;
    uint32_t *buckets;
    pthread_t id;
    char apart[64];
};

/* Subjects define these. context: whatever begin made, for one thread. */
static void *redis_begin(struct redis_thread *thread);
static void redis_end(void *context);
static void redis_set(void *context, const char *key, size_t key_len, const char *value);
/* False: not this value. */
static bool redis_get(void *context, const char *key, size_t key_len, const char *value);

static inline size_t redis_key(unsigned i, char key[24])
{
    return (size_t)snprintf(key, 24, "key:%012u", i);
}

static inline void redis_value(unsigned i, char value[64])
{
    memset(value, 'v', 64);
    memcpy(value, &i, sizeof i);
}

static inline double redis_cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void *redis_body(void *argument)
{
    struct redis_thread *thread = argument;
    void *context = redis_begin(thread);
    uint64_t random = (uint64_t)thread->number + 1, last = bench_now_ns();
    char key[24], value[64];
    for (int phase; (phase = atomic_load_explicit(&thread->run->phase, memory_order_relaxed)) != 2;) {
        random = bench_splitmix64(random);
        unsigned i = (unsigned)(random >> 33) % REDIS_KEYS;
        size_t len = redis_key(i, key);
        redis_value(i, value);
        if (random & 1)
            redis_set(context, key, len, value);
        else
            thread->wrong += !redis_get(context, key, len, value);
        uint64_t now = bench_now_ns(), bucket = (now - last) / 100;
        last = now;
        if (phase == 1) {
            thread->count++;
            thread->buckets[bucket < REDIS_BUCKETS ? bucket : REDIS_BUCKETS - 1]++;
        }
    }
    redis_end(context);
    return NULL;
}

static inline int redis_main(int argc, char **argv)
{
    static struct redis_run run;
    if (argc != 4) {
        fprintf(stderr, "usage: %s PORT THREADS MILLISECONDS\n", argv[0]);
        return 2;
    }
    run.port = atoi(argv[1]);
    run.threads = atoi(argv[2]);
    run.ms = atoi(argv[3]);
    struct redis_thread *threads = calloc((size_t)run.threads, sizeof *threads);
    struct redis_thread loader = {.run = &run};
    char key[24], value[64];
    void *context = redis_begin(&loader);
    for (unsigned i = 0; i < REDIS_KEYS; i++) {
        size_t len = redis_key(i, key);
        redis_value(i, value);
        redis_set(context, key, len, value);
    }
    redis_end(context);
    for (int i = 0; i < run.threads; i++) {
        threads[i].run = &run;
        threads[i].number = i;
        threads[i].buckets = calloc(REDIS_BUCKETS, sizeof(uint32_t));
        if (pthread_create(&threads[i].id, NULL, redis_body, &threads[i]))
            bench_die("thread");
    }
    usleep((useconds_t)run.ms * 100);
    atomic_store(&run.phase, 1);
    uint64_t begun = bench_now_ns();
    double cpu = redis_cpu_us();
    usleep((useconds_t)run.ms * 1000);
    atomic_store(&run.phase, 2);
    double took = (double)(bench_now_ns() - begun) / 1e9;
    cpu = redis_cpu_us() - cpu;
    uint64_t count = 0, wrong = 0, seen = 0;
    for (int i = 0; i < run.threads; i++) {
        pthread_join(threads[i].id, NULL);
        count += threads[i].count;
        wrong += threads[i].wrong;
    }
    double p50 = 0, p99 = 0;
    for (int b = 0; b < REDIS_BUCKETS; b++) {
        for (int i = 0; i < run.threads; i++)
            seen += threads[i].buckets[b];
        if (!p50 && seen * 2 >= count)
            p50 = (b + 1) / 10.0;
        if (!p99 && seen * 100 >= count * 99)
            p99 = (b + 1) / 10.0;
    }
    printf("{\"ops_s\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_us\": %.2f, "
           "\"wrong\": %" PRIu64 "}\n",
           (double)count / took, p50, p99, cpu / (double)count, wrong);
    return wrong != 0;
}

#endif
