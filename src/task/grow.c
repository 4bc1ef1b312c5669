/* SPDX-License-Identifier: MIT */
/*
 * grow.c - how many threads an executor has.
 *
 * Up to min_threads are started as work comes. More, up to max_threads, one at
 * a time, while an item has been waiting for a whole tick of grow_after_ms; with
 * adaptive, up to what the adaptive limit allows by the tasks' run times. A
 * thread that waits inside a task is replaced. What is too many ends when idle.
 */
#include "executor_impl.h"

#include <stdio.h>
#include <string.h>

#include "../base/thread.h"

enum { LINGER_NS = 20000000 };

/* Under the mutex: a free place among the workers, its old thread joined. */
static struct perf__worker *free_worker(perf_executor *e)
{
    uint32_t slots = atomic_load(&e->slots);
    for (uint32_t i = 0; i < slots; i++) {
        struct perf__worker *w = atomic_load(&e->workers[i]);
        if (!w->started)
            return w;
        if (atomic_load(&w->ended)) {
            pthread_join(w->thread, NULL);
            w->started = false;
            return w;
        }
    }
    if (slots == PERF__MAX_THREADS)
        return NULL;
    struct perf__worker *w = perf__calloc(&e->host.allocator, 1, sizeof *w);
    if (!w)
        return NULL;
    w->executor = e;
    atomic_store(&e->workers[slots], w);
    atomic_store(&e->slots, slots + 1);
    return w;
}

int perf__grow(perf_executor *e, uint32_t up_to)
{
    int rc = PERF_OK;
    pthread_mutex_lock(&e->mutex);
    uint32_t threads = atomic_load(&e->threads);
    if (threads < up_to && atomic_load(&e->state) != PERF__STOPPING) {
        struct perf__worker *w = free_worker(e);
        char name[16];
        if (!w) {
            rc = perf__fail_nomem("a thread of an executor");
        } else {
            snprintf(name, sizeof name, "%s-%u", e->name, (unsigned)threads % 1000);
            w->searching = true;
            atomic_store(&w->ended, false);
            atomic_fetch_add(&e->threads, 1);
            atomic_fetch_add(&e->searching, 1);
            int failed = perf__thread_start(&w->thread, name, perf__worker_main, w);
            w->started = !failed;
            if (failed) {
                w->searching = false;
                atomic_fetch_sub(&e->threads, 1);
                atomic_fetch_sub(&e->searching, 1);
                rc = perf__fail(PERF_ENOMEM, "the system gives no further thread (%s)",
                                strerror(failed));
            } else if (threads + 1 > e->threads_max) {
                e->threads_max = threads + 1;
            }
        }
    }
    pthread_mutex_unlock(&e->mutex);
    return rc;
}

/* Threads that may be there while there is work. */
static uint32_t wanted(perf_executor *e)
{
    uint32_t most = atomic_load(&e->max_threads);
    if (e->limit) {
        perf_adaptive_limit_stats stats = PERF_ADAPTIVE_LIMIT_STATS_INIT;
        uint32_t least = atomic_load(&e->min_threads);
        if (!perf_adaptive_limit_get_stats(e->limit, &stats) && stats.limit < most)
            most = stats.limit < least ? least : (uint32_t)stats.limit;
    }
    return most + atomic_load(&e->blocked);
}

/* How long an idle thread waits before it asks whether it may end; -1: it stays. Those lent for
 * others that waited linger, too, for such waits seldom come alone. */
int64_t perf__idle_ns(perf_executor *e)
{
    uint32_t n = atomic_load(&e->threads);
    if (n > wanted(e))
        return LINGER_NS;
    return n > atomic_load(&e->min_threads) + atomic_load(&e->blocked)
               ? e->idle_timeout_ms * 1000000
               : -1;
}

bool perf__shrink(perf_executor *e, int64_t idle_ns)
{
    uint32_t n = atomic_load(&e->threads), keep;
    do {
        keep = idle_ns >= e->idle_timeout_ms * 1000000
                   ? atomic_load(&e->min_threads) + atomic_load(&e->blocked)
                   : wanted(e);
        if (n <= keep)
            return false;
    } while (!atomic_compare_exchange_weak(&e->threads, &n, n - 1));
    return true;
}

void perf__block_begin(perf_executor *e)
{
    uint32_t blocked = atomic_fetch_add(&e->blocked, 1) + 1;
    if (!atomic_load(&e->sleepers)) /* somebody must be there for what this one waits for */
        perf__grow(e, atomic_load(&e->min_threads) + blocked);
    else
        perf__worker_wake(e);
}

void perf__block_end(perf_executor *e)
{
    atomic_fetch_sub(&e->blocked, 1);
}

void perf__grow_watch(perf_executor *e)
{
    if (atomic_load_explicit(&e->max_threads, memory_order_relaxed) <=
            atomic_load_explicit(&e->min_threads, memory_order_relaxed) ||
        atomic_load_explicit(&e->saturated, memory_order_relaxed) ||
        atomic_exchange(&e->saturated, true))
        return;
    pthread_mutex_lock(&e->mutex);
    if (!e->timer_stop && !perf__timer_start(e))
        pthread_cond_signal(&e->due);
    else
        atomic_store(&e->saturated, false);
    pthread_mutex_unlock(&e->mutex);
}

/* Items put so far, items taken so far, and items in the threads' own queues. */
static void look(perf_executor *e, uint64_t *tail, uint64_t *head, uint64_t *own, uint64_t *done)
{
    *tail = *head = *own = *done = 0;
    for (int p = 0; p < PERF__PRIORITIES; p++) {
        struct perf__ring *ring = atomic_load(&e->rings[p]);
        if (ring) {
            *head += atomic_load(&ring->head);
            *tail += atomic_load(&ring->tail);
        }
    }
    for (uint32_t i = 0; i < atomic_load(&e->slots); i++) {
        struct perf__worker *w = atomic_load(&e->workers[i]);
        *own += perf__worker_count(w);
        *done += atomic_load(&w->done);
    }
}

bool perf__grow_tick(perf_executor *e)
{
    uint64_t tail, head, own, done;
    look(e, &tail, &head, &own, &done);
    bool waits = (head < e->tick_tail && head < tail) || (own && done == e->tick_done);
    bool busy = !atomic_load(&e->sleepers) && (head < tail || own);
    if (waits && busy)
        perf__grow(e, wanted(e)); /* one more; a system without threads to give is asked again */
    e->tick_tail = tail;
    e->tick_done = done;
    if (busy)
        return true;
    /* Who puts an item first writes it and then reads this flag; so it is the other way here. */
    atomic_store(&e->saturated, false);
    look(e, &tail, &head, &own, &done);
    busy = !atomic_load(&e->sleepers) && (head < tail || own);
    if (busy)
        atomic_store(&e->saturated, true);
    return busy;
}
