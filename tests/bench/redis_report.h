/* SPDX-License-Identifier: MIT */
/*
 * redis_report.h - keys, values, counts and the line of figures of the subjects of bench-redis:
 * {"ops_s", "p50_us", "p99_us", "cpu_us" (of this process, an operation), "wrong"}.
 */
#ifndef BENCH_REDIS_REPORT_H
#define BENCH_REDIS_REPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>

#include "protocol.h"

enum { REDIS_KEYS = 10000, REDIS_BUCKETS = 40000 }; /* of 100 ns */

struct redis_counts {
    uint64_t count, wrong, last;
    uint32_t *buckets;
};

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

static inline void redis_counts_init(struct redis_counts *c)
{
    c->buckets = calloc(REDIS_BUCKETS, sizeof *c->buckets);
    c->last = bench_now_ns();
    if (!c->buckets)
        bench_die("buckets");
}

/* One operation is over; it counts if we measure. */
static inline void redis_count(struct redis_counts *c, bool measure)
{
    uint64_t now = bench_now_ns(), bucket = (now - c->last) / 100;
    c->last = now;
    if (!measure)
        return;
    c->count++;
    c->buckets[bucket < REDIS_BUCKETS ? bucket : REDIS_BUCKETS - 1]++;
}

static inline int redis_report(struct redis_counts *const *all, int n, double seconds,
                               double cpu_us)
{
    uint64_t count = 0, wrong = 0, seen = 0;
    double p50 = 0, p99 = 0;
    for (int i = 0; i < n; i++) {
        count += all[i]->count;
        wrong += all[i]->wrong;
    }
    for (int b = 0; b < REDIS_BUCKETS; b++) {
        for (int i = 0; i < n; i++)
            seen += all[i]->buckets[b];
        if (!p50 && seen * 2 >= count)
            p50 = (b + 1) / 10.0;
        if (!p99 && seen * 100 >= count * 99)
            p99 = (b + 1) / 10.0;
    }
    printf("{\"ops_s\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_us\": %.2f, "
           "\"wrong\": %" PRIu64 "}\n",
           (double)count / seconds, p50, p99, cpu_us / (double)count, wrong);
    return wrong != 0;
}

#endif
