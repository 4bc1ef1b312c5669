/* SPDX-License-Identifier: MIT */
/*
 * monitor_subject.h - the frame of the C and C++ subjects of bench-monitor.
 *
 *     program CASE THREADS MILLISECONDS
 *
 * CASE counter or histogram: threads do it for so long, to one series, and the answer is {"ns": the
 * processor time of one operation of one thread}: a line that threads share costs that, too, and
 * what else the machine does costs little of it. Values are of an LCG, from 100000 to 1148575, as
 * nanoseconds; the LCG's time is in the figure. CASE scraped: histogram, while one more thread
 * scrapes all the time. CASE tracked: a request is begun and ended, for who tracks requests; CASE
 * clocks: only what that must do, two reads of the clock. CASE scrape: {"ms": the processor time
 * from 10,000 series to their text in memory} (8000 counters, 1000 gauges, 1000 histograms of 200
 * values).
 */
#ifndef BENCH_MONITOR_SUBJECT_H
#define BENCH_MONITOR_SUBJECT_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MONITOR_BATCH = 10000, MONITOR_SCRAPES = 7 };

/* A subject brings these. */
static void subject_open(const char *kind);
static void subject_count(uint64_t times);
static void subject_record(uint64_t *lcg, uint64_t times);
static size_t subject_scrape(void); /* bytes of text */

/* What the cases tracked and clocks do; set by the subject_open of who has them. */
static void (*monitor_track)(uint64_t times);

static int monitor_histogram;
static uint64_t monitor_ms;
static int monitor_stop; /* __atomic */

static inline uint64_t monitor_value(uint64_t *lcg)
{
    *lcg = *lcg * 6364136223846793005u + 1442695040888963407u;
    return 100000 + (*lcg >> 44);
}

static inline double monitor_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *monitor_thread(void *arg)
{
    uint64_t lcg = (uint64_t)(uintptr_t)arg, batches = 0;
    double until = monitor_ns(CLOCK_MONOTONIC) + (double)monitor_ms * 1e6 / 10, start = 0;
    for (int measured = 0; measured < 2; measured++) { /* a tenth of the time to warm up */
        batches = 0;
        start = monitor_ns(CLOCK_THREAD_CPUTIME_ID);
        do {
            if (monitor_track)
                monitor_track(MONITOR_BATCH);
            else if (monitor_histogram)
                subject_record(&lcg, MONITOR_BATCH);
            else
                subject_count(MONITOR_BATCH);
            batches++;
        } while (monitor_ns(CLOCK_MONOTONIC) < until);
        if (!measured)
            until += (double)monitor_ms * 1e6;
    }
    double *ns = (double *)arg;
    *ns = (monitor_ns(CLOCK_THREAD_CPUTIME_ID) - start) / (double)(batches * MONITOR_BATCH);
    return NULL;
}

static void *monitor_scrape(void *arg)
{
    while (!__atomic_load_n(&monitor_stop, __ATOMIC_ACQUIRE))
        subject_scrape();
    return arg;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static double ns[64];
    pthread_t ids[64], scraper;
    double sum = 0;
    if (argc != 4)
        return 2;
    int threads = atoi(argv[2]);
    monitor_ms = (uint64_t)atoi(argv[3]);
    monitor_histogram = strcmp(argv[1], "counter") != 0;
    subject_open(argv[1]);
    if ((!strcmp(argv[1], "tracked") || !strcmp(argv[1], "clocks")) && !monitor_track) {
        fprintf(stderr, "it tracks no requests\n");
        return 1;
    }
    if (!strcmp(argv[1], "scrape")) {
        size_t bytes = subject_scrape();
        for (int i = 0; i < MONITOR_SCRAPES; i++) {
            double start = monitor_ns(CLOCK_THREAD_CPUTIME_ID);
            bytes = subject_scrape();
            ns[i] = monitor_ns(CLOCK_THREAD_CPUTIME_ID) - start;
        }
        qsort(ns, MONITOR_SCRAPES, sizeof *ns, compare_doubles);
        printf("{\"ms\": %.3f, \"bytes\": %zu}\n", ns[MONITOR_SCRAPES / 2] / 1e6, bytes);
        return 0;
    }
    if (!strcmp(argv[1], "scraped") && pthread_create(&scraper, NULL, monitor_scrape, NULL))
        return 1;
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, monitor_thread, &ns[i]))
            return 1;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        sum += ns[i];
    }
    if (!strcmp(argv[1], "scraped")) {
        __atomic_store_n(&monitor_stop, 1, __ATOMIC_RELEASE);
        pthread_join(scraper, NULL);
    }
    printf("{\"ns\": %.3f}\n", sum / threads);
    return 0;
}

#endif
