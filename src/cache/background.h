/* SPDX-License-Identifier: MIT */
/*
 * background.h - a few threads for work that no caller should wait for.
 *
 * Used for refreshes, loads with a time limit and write-behind. Threads start
 * when work first needs them, up to a bound, and end with the pool. Any thread
 * may submit; jobs run in the order of submission, several at once.
 */
#ifndef PERF_CACHE_BACKGROUND_H
#define PERF_CACHE_BACKGROUND_H

#include "../base/options.h"

struct perf__background;

/* A unit of work, embedded in its owner and free again when run is called. */
struct perf__job {
    void (*run)(struct perf__job *job);
    struct perf__job *next;
};

int perf__background_open(const struct perf__host *host, uint64_t max_threads,
                          struct perf__background **out);

/* Queues a job. PERF_OK; PERF_ECLOSED; PERF_EBUSY when no thread runs and none can be
 * started: the caller then does the work itself or gives it up. */
int perf__background_submit(struct perf__background *pool, struct perf__job *job);

/* Runs what is queued, then ends the threads. Jobs may still submit jobs meanwhile. NULL ok. */
void perf__background_close(struct perf__background *pool);

/* After fork(), in the child: frees without touching threads. NULL ok. */
void perf__background_abandon(struct perf__background *pool);

#endif
