/* SPDX-License-Identifier: MIT */
/*
 * redis_subject.h - the frame of the C subjects of bench-redis whose threads wait.
 *
 *     program PORT THREADS MILLISECONDS
 *
 * Threads do half GETs and half SETs of 64-byte values under 10,000 keys, each waiting for its
 * reply, for so long, after a tenth of it to warm up. Every value read must be its key's.
 */
#ifndef BENCH_REDIS_SUBJECT_H
#define BENCH_REDIS_SUBJECT_H

#include "redis_report.h"

struct redis_run {
    int port, threads, ms;
    pthread_barrier_t loaded;
    _Atomic int phase; /* 0: warm up, 1: measure, 2: stop */
};

struct redis_thread {
    struct redis_run *run;
    int number;
    struct redis_counts counts;
    pthread_t id;
    char apart[64];
};

/* Subjects define these. context: whatever begin made, for one thread. */
static void *redis_begin(struct redis_thread *thread);
static void redis_end(void *context);
static void redis_set(void *context, const char *key, size_t key_len, const char *value);
/* False: not this value. */
static bool redis_get(void *context, const char *key, size_t key_len, const char *value);

static void *redis_body(void *argument)
{
    struct redis_thread *thread = argument;
    struct redis_run *run = thread->run;
    void *context = redis_begin(thread);
    uint64_t random = (uint64_t)thread->number + 1;
    char key[24], value[64];
    for (unsigned i = (unsigned)thread->number; i < REDIS_KEYS; i += (unsigned)run->threads) {
        size_t len = redis_key(i, key);
        redis_value(i, value);
        redis_set(context, key, len, value);
    }
    pthread_barrier_wait(&run->loaded);
    redis_counts_init(&thread->counts);
    for (int phase; (phase = atomic_load_explicit(&run->phase, memory_order_relaxed)) != 2;) {
        random = bench_splitmix64(random);
        unsigned i = (unsigned)(random >> 33) % REDIS_KEYS;
        size_t len = redis_key(i, key);
        redis_value(i, value);
        if (random & 1)
            redis_set(context, key, len, value);
        else
            thread->counts.wrong += !redis_get(context, key, len, value);
        redis_count(&thread->counts, phase == 1);
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
    struct redis_counts **counts = calloc((size_t)run.threads, sizeof(struct redis_counts *));
    if (!threads || !counts)
        bench_die("threads");
    pthread_barrier_init(&run.loaded, NULL, (unsigned)run.threads + 1);
    for (int i = 0; i < run.threads; i++) {
        threads[i].run = &run;
        threads[i].number = i;
        counts[i] = &threads[i].counts;
        if (pthread_create(&threads[i].id, NULL, redis_body, &threads[i]))
            bench_die("thread");
    }
    pthread_barrier_wait(&run.loaded);
    usleep((useconds_t)run.ms * 100);
    atomic_store(&run.phase, 1);
    uint64_t begun = bench_now_ns();
    double cpu = redis_cpu_us();
    usleep((useconds_t)run.ms * 1000);
    atomic_store(&run.phase, 2);
    double took = (double)(bench_now_ns() - begun) / 1e9;
    cpu = redis_cpu_us() - cpu;
    for (int i = 0; i < run.threads; i++)
        pthread_join(threads[i].id, NULL);
    return redis_report(counts, run.threads, took, cpu);
}

#endif
