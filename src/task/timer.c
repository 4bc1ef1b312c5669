/* SPDX-License-Identifier: MIT */
/*
 * timer.c - what is due in time: delays, the ends of timeouts, recurring tasks, growing.
 *
 * A binary heap of tasks under the executor's mutex, and one thread that sleeps
 * until the first of them; it is started when something is due for the first
 * time. A task knows its place, so that it can be taken out when it ends. With a
 * clock of the host's, which may jump, the thread looks every few milliseconds.
 */
#include "executor_impl.h"

#include "../base/thread.h"

enum { LOOK_MS = 2 };

static void place(perf_executor *e, size_t at, perf_task *task)
{
    e->heap[at] = task;
    task->timer.index = at + 1;
}

static void sift(perf_executor *e, size_t at, perf_task *task)
{
    while (at && e->heap[(at - 1) / 2]->timer.at_ns > task->timer.at_ns) {
        place(e, at, e->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (size_t child; (child = 2 * at + 1) < e->heap_count; at = child) {
        if (child + 1 < e->heap_count &&
            e->heap[child + 1]->timer.at_ns < e->heap[child]->timer.at_ns)
            child++;
        if (e->heap[child]->timer.at_ns >= task->timer.at_ns)
            break;
        place(e, at, e->heap[child]);
    }
    place(e, at, task);
}

static void take_out(perf_executor *e, perf_task *task)
{
    size_t at = task->timer.index - 1;
    perf_task *last = e->heap[--e->heap_count];
    task->timer.index = 0;
    if (last != task)
        sift(e, at, last);
}

static bool system_clock(const perf_executor *e)
{
    return e->host.clock.monotonic_ns == perf__default_clock.monotonic_ns;
}

/* Until when the thread may sleep, on the system's clock; 0: until it is told. */
static int64_t sleep_until(perf_executor *e, int64_t tick_ns)
{
    int64_t until = tick_ns;
    if (e->heap_count) {
        int64_t first = system_clock(e) ? e->heap[0]->timer.at_ns : perf__deadline_after(LOOK_MS);
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
        if (e->heap_count && e->heap[0]->timer.at_ns <= perf__now_ns(&e->host.clock)) {
            perf_task *task = e->heap[0];
            take_out(e, task);
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
    if (e->heap_count == e->heap_size) {
        size_t size = e->heap_size ? e->heap_size * 2 : 64;
        perf_task **heap = perf__realloc(&e->host.allocator, e->heap, size * sizeof *e->heap);
        if (!heap) {
            rc = perf__fail_nomem("the timers of an executor");
            goto out;
        }
        e->heap = heap;
        e->heap_size = size;
    }
    if ((rc = perf__timer_start(e)))
        goto out;
    perf_task_retain(task);
    task->timer.at_ns = at_ns;
    e->heap_count++;
    sift(e, e->heap_count - 1, task);
    if (e->heap[0] == task)
        pthread_cond_signal(&e->due);
out:
    pthread_mutex_unlock(&e->mutex);
    return rc;
}

void perf__timer_clear(perf_executor *e, perf_task *task)
{
    bool was_set;
    pthread_mutex_lock(&e->mutex);
    was_set = task->timer.index != 0;
    if (was_set)
        take_out(e, task);
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
    while (e->heap_count) {
        perf_task *task = e->heap[0];
        take_out(e, task);
        pthread_mutex_unlock(&e->mutex);
        perf__task_drop(task, PERF_ECANCELED);
        perf__task_unref(task);
        pthread_mutex_lock(&e->mutex);
    }
    pthread_mutex_unlock(&e->mutex);
}
