/* SPDX-License-Identifier: MIT */
/*
 * timer.c - what is due in time: delays, the ends of timeouts, recurring tasks, growing.
 *
 * A heap of tasks under the executor's mutex, and one thread that sleeps until
 * the first of them; it is started when something is due for the first time. A
 * task lies in the heap itself, so that it can be taken out when it ends. With a
 * clock of the host's, which may jump, the thread looks every few milliseconds.
 */
#include "executor_impl.h"

#include <stddef.h>

#include "../base/thread.h"

enum { LOOK_MS = 2 };

static perf_task *task_of(struct perf__heap_node *node)
{
    return node ? (perf_task *)((char *)node - offsetof(perf_task, timer)) : NULL;
}

static bool system_clock(const perf_executor *e)
{
    return e->host.clock.monotonic_ns == perf__default_clock.monotonic_ns;
}

/* Until when the thread may sleep, on the system's clock; 0: until it is told. */
static int64_t sleep_until(perf_executor *e, int64_t tick_ns)
{
    int64_t until = tick_ns;
    if (e->timers.least) {
        int64_t first = system_clock(e) ? e->timers.least->key : perf__deadline_after(LOOK_MS);
        if (!until || first < until)
            until = first;
    }
    return until;
}

static void *timer_main(void *arg)
{
    perf_executor *e = arg;
    int64_t tick_ns = 0; /* when growing is thought about next; 0: not at all */
    pthread_mutex_lock(&e->mutex);
    while (!e->timer_stop) {
        struct perf__heap_node *first = e->timers.least;
        if (first && first->key <= perf__now_ns(&e->host.clock)) {
            perf_task *task = task_of(first);
            perf__heap_remove(&e->timers, first);
            pthread_mutex_unlock(&e->mutex);
            perf__task_due(task);
            perf__task_unref(task);
            pthread_mutex_lock(&e->mutex);
            continue;
        }
        if (atomic_load(&e->saturated) && !tick_ns)
            tick_ns = perf__deadline_after(e->grow_after_ms);
        if (tick_ns && perf__now_ns(&perf__default_clock) >= tick_ns) {
            pthread_mutex_unlock(&e->mutex);
            tick_ns = perf__grow_tick(e) ? perf__deadline_after(e->grow_after_ms) : 0;
            pthread_mutex_lock(&e->mutex);
            continue;
        }
        perf__cond_wait(&e->due, &e->mutex, sleep_until(e, tick_ns));
    }
    pthread_mutex_unlock(&e->mutex);
    return NULL;
}

int perf__timer_start(perf_executor *e)
{
    if (e->timer_started)
        return PERF_OK;
    if (perf__thread_start(&e->timer_thread, "perf-timer", timer_main, e))
        return perf__fail(PERF_ENOMEM, "the system gives no thread for timers");
    e->timer_started = true;
    return PERF_OK;
}

int perf__timer_set(perf_executor *e, perf_task *task, int64_t at_ns)
{
    int rc = PERF_OK;
    pthread_mutex_lock(&e->mutex);
    if (e->timer_stop) {
        rc = perf__fail(PERF_ECLOSED, "the executor is closing");
        goto out;
    }
    if ((rc = perf__timer_start(e)))
        goto out;
    perf_task_retain(task);
    task->due_ns = at_ns;
    perf__heap_add(&e->timers, &task->timer, at_ns, 0);
    if (e->timers.least == &task->timer)
        pthread_cond_signal(&e->due);
out:
    pthread_mutex_unlock(&e->mutex);
    return rc;
}

void perf__timer_clear(perf_executor *e, perf_task *task)
{
    bool was_set;
    pthread_mutex_lock(&e->mutex);
    was_set = perf__heap_in(&task->timer);
    if (was_set)
        perf__heap_remove(&e->timers, &task->timer);
    pthread_mutex_unlock(&e->mutex);
    if (was_set)
        perf__task_unref(task);
}

/* Ends the thread, and lets go of what was not due: those tasks end as cancelled. */
void perf__timer_stop(perf_executor *e)
{
    pthread_mutex_lock(&e->mutex);
    bool started = e->timer_started;
    e->timer_stop = true;
    e->timer_started = false;
    pthread_cond_signal(&e->due);
    pthread_mutex_unlock(&e->mutex);
    if (started)
        pthread_join(e->timer_thread, NULL);
    pthread_mutex_lock(&e->mutex);
    while (e->timers.least) {
        perf_task *task = task_of(e->timers.least);
        perf__heap_remove(&e->timers, &task->timer);
        pthread_mutex_unlock(&e->mutex);
        perf__task_drop(task, PERF_ECANCELED);
        perf__task_unref(task);
        pthread_mutex_lock(&e->mutex);
    }
    pthread_mutex_unlock(&e->mutex);
}
