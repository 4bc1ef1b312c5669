/* SPDX-License-Identifier: MIT */
/*
 * loader.h - loads under way: one flight a key, many who wait for it.
 *
 * A flight is born when a key must be loaded and nobody is loading it yet. It
 * runs in the caller's thread or in the background; those who ask meanwhile
 * wait for it with their own deadlines. One mutex guards all flights: compared
 * with a load it costs nothing, and it lets a waiter see a circle of loads that
 * wait for each other (PERF_EDEADLK). Any thread.
 */
#ifndef PERF_CACHE_LOADER_H
#define PERF_CACHE_LOADER_H

#include <libperf/cache.h>
#include <pthread.h>
#include <stdbool.h>

#include "../base/options.h"

struct perf__flight;

struct perf__flights {
    const struct perf__host *host;
    pthread_mutex_t mutex;
    struct perf__flight *table; /* those that can be joined, by the key's hash */
    bool closing;               /* running loads should stop early */
};

int perf__flights_init(struct perf__flights *flights, const struct perf__host *host);
void perf__flights_close(struct perf__flights *flights); /* asks running loads to stop */
void perf__flights_destroy(struct perf__flights *flights);

/* Renews the leases of loads that are about to outlive them. Returns in how many milliseconds the
 * next one is due, most at most. */
int64_t perf__flights_renew(perf_cache *cache, int64_t most);

#endif
