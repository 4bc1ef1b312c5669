/* SPDX-License-Identifier: MIT */
/*
 * pool_subject.h - the frame of the C subjects of bench-pool.
 *
 *     program SUBJECT THREADS CONNECTIONS MILLISECONDS HOLD_US
 *
 * Threads borrow and give back for so long, after a tenth of it to warm up. HOLD_US 0: nothing in
 * between, and {"ns": time for one borrowing, all threads together}. Otherwise each sleeps for so
 * long with the connection, and the answer is how long they waited for it, in ns.
 */
#ifndef BENCH_POOL_SUBJECT_H
#define BENCH_POOL_SUBJECT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "protocol.h"

enum { POOL_BATCH = 64, POOL_WAITS = 1 << 17 };

struct pool_run {
    int threads, connections, ms, hold_us;
    _Atomic int phase; /* 0: warm up, 1: measure, 2: stop */
};

struct pool_thread {
    struct pool_run *run;
    int number;
    uint64_t count;
    uint64_t *waits;
    uint64_t wait_count;
    pthread_t id;
    char apart[64];
};

static inline uint64_t pool_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void pool_sleep_us(int us)
{
    nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000L}, NULL);
}

static int pool_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void pool_print_waits(struct pool_thread *threads, int count)
{
    uint64_t n = 0, sum = 0, at = 0;
    for (int i = 0; i < count; i++)
        n += threads[i].wait_count;
    uint64_t *all = malloc((n + 1) * sizeof *all);
    if (!all || !n)
        bench_die("waits");
    for (int i = 0; i < count; i++)
        for (uint64_t k = 0; k < threads[i].wait_count; k++)
            sum += all[at++] = threads[i].waits[k];
    qsort(all, n, sizeof *all, pool_compare);
    printf("{\"n\": %" PRIu64 ", \"mean\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p99\": %" PRIu64
           ", \"p999\": %" PRIu64 ", \"max\": %" PRIu64 "}\n",
           n, sum / n, all[n / 2], all[n * 99 / 100], all[n * 999 / 1000], all[n - 1]);
    free(all);
}

/* main() of a subject: body is what one thread does until phase is 2. */
static inline int pool_main(struct pool_run *run, void *(*body)(void *))
{
    struct pool_thread *threads = calloc((size_t)run->threads, sizeof *threads);
    if (!threads)
        bench_die("threads");
    for (int i = 0; i < run->threads; i++) {
        threads[i].run = run;
        threads[i].number = i;
        threads[i].waits = malloc(POOL_WAITS * sizeof(uint64_t));
        if (!threads[i].waits || pthread_create(&threads[i].id, NULL, body, &threads[i]))
            bench_die("thread");
    }
    pool_sleep_us(run->ms * 100);
    atomic_store(&run->phase, 1);
    uint64_t begun = pool_now();
    pool_sleep_us(run->ms * 1000);
    atomic_store(&run->phase, 2);
    uint64_t took = pool_now() - begun, total = 0;
    for (int i = 0; i < run->threads; i++) {
        pthread_join(threads[i].id, NULL);
        total += threads[i].count;
    }
    if (run->hold_us)
        pool_print_waits(threads, run->threads);
    else
        printf("{\"ns\": %.3f}\n", (double)took / (double)total);
    return 0;
}

static inline void pool_arguments(struct pool_run *run, int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: %s SUBJECT THREADS CONNECTIONS MILLISECONDS HOLD_US\n", argv[0]);
        exit(2);
    }
    run->threads = atoi(argv[2]);
    run->connections = atoi(argv[3]);
    run->ms = atoi(argv[4]);
    run->hold_us = atoi(argv[5]);
}

/* The loop of every subject: ACQUIRE and RELEASE are statements. */
#define POOL_LOOP(thread, ACQUIRE, RELEASE)                                                    \
    for (int phase_;                                                                           \
         (phase_ = atomic_load_explicit(&(thread)->run->phase, memory_order_relaxed)) != 2;) { \
        if ((thread)->run->hold_us) {                                                          \
            uint64_t begun_ = pool_now();                                                      \
            ACQUIRE;                                                                           \
            uint64_t waited_ = pool_now() - begun_;                                            \
            if (phase_ == 1 && (thread)->wait_count < POOL_WAITS)                              \
                (thread)->waits[(thread)->wait_count++] = waited_;                             \
            pool_sleep_us((thread)->run->hold_us);                                             \
            RELEASE;                                                                           \
            continue;                                                                          \
        }                                                                                      \
        for (int i_ = 0; i_ < POOL_BATCH; i_++) {                                              \
            ACQUIRE;                                                                           \
            RELEASE;                                                                           \
        }                                                                                      \
        (thread)->count += phase_ == 1 ? POOL_BATCH : 0;                                       \
    }

#endif
