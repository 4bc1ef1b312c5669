/* SPDX-License-Identifier: MIT */
/*
 * protocol.h - what all C and C++ programs of the benchmark share: keys, values, the clock,
 * resident memory, and the line protocol that README.md describes.
 */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BENCH_VALUE_WORDS 8 /* 64 bytes */
#define BENCH_MAX_THREADS 64

struct bench_key {
    uint64_t word[2];
};
struct bench_value {
    uint64_t word[BENCH_VALUE_WORDS];
};

static inline void bench_die(const char *what)
{
    perror(what);
    exit(1);
}

static inline uint64_t bench_splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static inline struct bench_key bench_make_key(uint32_t i)
{
    struct bench_key key = {{bench_splitmix64(i), bench_splitmix64(i + 0x100000000ULL)}};
    return key;
}

static inline struct bench_value bench_make_value(const struct bench_key *key)
{
    struct bench_value value;
    value.word[0] = key->word[0];
    for (unsigned i = 1; i < BENCH_VALUE_WORDS; i++) {
        value.word[i] = key->word[1] + i;
    }
    return value;
}

static inline uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static inline uint64_t bench_rss_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*u %lu", &pages) != 1) {
        bench_die("/proc/self/statm");
    }
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The most that was ever resident in this process. */
static inline double bench_peak_rss_bytes(void)
{
    char line[128];
    double kib = -1;
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL) {
        bench_die("/proc/self/status");
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtod(line + 6, NULL);
        }
    }
    fclose(file);
    return kib * 1024;
}

/* Tells the driver that the data is built. */
static inline void bench_ready(void)
{
    puts("{\"ready\":true}");
    fflush(stdout);
}

/* Waits for the driver: with how many threads to measure once more, or 0 to end. */
static inline unsigned bench_next_run(void)
{
    char line[32];
    unsigned threads;
    if (fgets(line, sizeof line, stdin) == NULL || sscanf(line, "run %u", &threads) != 1) {
        return 0;
    }
    return threads > BENCH_MAX_THREADS ? BENCH_MAX_THREADS : threads;
}

#endif
