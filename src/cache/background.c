/* SPDX-License-Identifier: MIT */
/*
 * background.c - a queue and a few threads.
 *
 * One mutex and one condition variable: jobs are loads and disk writes, so the
 * queue is never what costs. A thread is started when a job arrives, nobody is
 * idle, and the bound allows one more. Any thread.
 */
#include "background.h"

#include <pthread.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"

struct perf__background {
    perf_allocator allocator;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct perf__job *first, **last;
    pthread_t *threads;
    size_t max_threads, started, idle, queued;
    bool closing;
};

int perf__background_open(const struct perf__host *host, uint64_t max_threads,
                          struct perf__background **out)
{
    int rc = perf__fail_nomem("the background threads");
    struct perf__background *pool = perf__calloc(&host->allocator, 1, sizeof *pool);
    if (!pool)
        return rc;
    pool->allocator = host->allocator;
    pool->max_threads = (size_t)max_threads;
    pool->last = &pool->first;
    pool->threads = perf__calloc(&host->allocator, pool->max_threads, sizeof *pool->threads);
    if (!pool->threads)
        goto no_threads;
    if (perf__locks_init(&pool->mutex, &pool->work, "the background threads"))
        goto no_locks;
    *out = pool;
    return PERF_OK;

no_locks:
    perf__free(&host->allocator, pool->threads);
no_threads:
    perf__free(&host->allocator, pool);
    return rc;
}

static void *thread_main(void *arg)
{
    struct perf__background *pool = arg;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct perf__job *job = pool->first;
        if (job) {
            pool->first = job->next;
            if (!pool->first)
                pool->last = &pool->first;
            pool->queued--;
            pthread_mutex_unlock(&pool->mutex);
            job->run(job);
            pthread_mutex_lock(&pool->mutex);
            continue;
        }
        if (pool->closing)
            break;
        pool->idle++;
        pthread_cond_wait(&pool->work, &pool->mutex);
        pool->idle--;
    }
    /* A thread that still runs a job may submit more; whoever is last sees them. */
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Starts one more thread. */
static void start_thread(struct perf__background *pool)
{
    if (!perf__thread_start(&pool->threads[pool->started], "perf-cache", thread_main, pool))
        pool->started++;
}

int perf__background_submit(struct perf__background *pool, struct perf__job *job)
{
    int rc = PERF_OK;
    pthread_mutex_lock(&pool->mutex);
    if (pool->queued >= pool->idle && pool->started < pool->max_threads && !pool->closing)
        start_thread(pool);
    if (!pool->started) {
        rc = pool->closing ? PERF_ECLOSED : PERF_EBUSY;
    } else {
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->queued++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->mutex);
    return rc;
}

void perf__background_close(struct perf__background *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    perf__background_abandon(pool);
}

void perf__background_abandon(struct perf__background *pool)
{
    if (!pool)
        return;
    perf_allocator allocator = pool->allocator;
    perf__free(&allocator, pool->threads);
    perf__free(&allocator, pool);
}
