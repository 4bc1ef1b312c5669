/* SPDX-License-Identifier: MIT */
/*
 * tasks_keep.c - what has to be done in time while tasks are claimed: leases are
 * extended, ends that the queue could not take are sent again, what is due is put in its queue, the
 * tasks of dead workers are put back, schedules fire.
 *
 * One thread, by the host's clock. A beat takes all claims, in batches, at a third of the lease:
 * two may fail before a task is lost. It carries the progress of each and brings back who is to
 * stop.
 */
#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "tasks_impl.h"

enum {
    BATCH = 32,         /* claims in one beat; on the stack */
    SWEEP_MS = 1000,    /* between sweeps, unless something is due before */
    SWEEP_BUDGET = 512, /* of each thing that a sweep does */
    SLEEP_MS = 1000,    /* the longest sleep: clocks are set */
    OWN_CLOCK_MS = 5,   /* the longest when the clock is the host's, which moves as it likes */
};

/* ------------------------------------------------------------------------- beats */

struct beats {
    struct perf__claim *claims[BATCH];
    perf_queue_beat beats[BATCH];
    char texts[BATCH][128];
    size_t count;
};

/* A handler that does not stop when its time is over has its task taken from it. */
static bool is_hung(struct perf__claim *c, int64_t now_ns)
{
    const perf_tasks *t = c->tasks;
    if (c->state != CLAIM_RUNNING || !c->timeout_ms || !c->begun_ns)
        return false;
    if ((now_ns - c->begun_ns) / 1000000 < c->timeout_ms + t->options.lease_ms)
        return false;
    if (!c->hung)
        perf__log(&t->host.log, PERF_LOG_ERROR, "task",
                  "task %s of kind %s does not stop though its %lld ms are over; it is left to "
                  "another worker, and its thread is lost until it returns",
                  c->task->id, c->task->kind, (long long)c->timeout_ms);
    c->hung = true;
    return true;
}

/* Up to BATCH claims that this round has not had. With the mutex. */
static void gather(perf_tasks *t, struct beats *b)
{
    int64_t now_ns = perf__now_ns(&t->host.clock);
    int64_t until = perf__realtime_ms(&t->host.clock) + t->options.lease_ms;
    b->count = 0;
    for (struct perf__claim *c = t->claims; c && b->count < BATCH; c = c->next) {
        if (c->beat == t->beat_round || c->lost)
            continue;
        c->beat = t->beat_round;
        if (is_hung(c, now_ns))
            continue;
        perf_progress p = PERF_PROGRESS_INIT;
        if (c->run_task)
            (void)perf_task_progress(c->run_task, &p);
        perf__copy_text(b->texts[b->count], sizeof b->texts[0], p.text);
        b->beats[b->count] = (perf_queue_beat){
            .struct_size = sizeof(perf_queue_beat),
            .id = c->task->id,
            .token = c->task->token,
            .lease_until_ms = until,
            .fraction = p.fraction,
            .done = p.done,
            .total = p.total,
            .text = b->texts[b->count],
        };
        c->pins++;
        b->claims[b->count++] = c;
    }
}

/* With the mutex. True: one of them is to be asked to stop. */
static bool take_answers(perf_tasks *t, struct beats *b)
{
    bool stop = false;
    for (size_t i = 0; i < b->count; i++) {
        struct perf__claim *c = b->claims[i];
        int64_t status = b->beats[i].status;
        if (status == PERF_OK || status == PERF_ECANCELED)
            c->lease_until_ms = b->beats[i].lease_until_ms;
        if (c->state == CLAIM_READY || c->state == CLAIM_RUNNING) {
            c->cancelled |= status == PERF_ECANCELED;
            if (status == PERF_ECONFLICT) {
                c->lost = true;
                perf__log(&t->host.log, PERF_LOG_WARNING, "task",
                          "the lease of task %s was lost; it is asked to stop", c->task->id);
            }
            stop = stop || c->cancelled || c->lost;
        }
        if (!--c->pins && c->state == CLAIM_DONE)
            perf__claim_free(c);
    }
    return stop;
}

void perf__tasks_ask_to_stop(perf_tasks *t, bool all)
{
    for (bool more = true; more;) {
        perf_task *tasks[BATCH];
        size_t n = 0;
        pthread_mutex_lock(&t->mutex);
        for (struct perf__claim *c = t->claims; c && n < BATCH; c = c->next) {
            c->returning = c->returning || all;
            if (c->asked || c->state != CLAIM_RUNNING || !c->run_task ||
                !(c->cancelled || c->lost || c->returning))
                continue;
            c->asked = true;
            tasks[n++] = perf_task_retain(c->run_task);
        }
        pthread_mutex_unlock(&t->mutex);
        for (size_t i = 0; i < n; i++) { /* may call back into the host */
            (void)perf_task_cancel(tasks[i]);
            perf_task_release(tasks[i]);
        }
        more = n == BATCH;
    }
}

static void beat(perf_tasks *t)
{
    struct beats b;
    bool failed = false, stop = false;
    pthread_mutex_lock(&t->mutex);
    t->beat_round++;
    for (gather(t, &b); b.count; gather(t, &b)) {
        pthread_mutex_unlock(&t->mutex);
        int rc =
            perf__task_queue_extend(t->queue, b.beats, b.count, perf__realtime_ms(&t->host.clock));
        if (rc < 0) {
            perf__tasks_queue_failed(t, "extend", rc, 1);
            failed = true;
        }
        pthread_mutex_lock(&t->mutex);
        stop |= take_answers(t, &b);
    }
    t->beat_ns = perf__now_ns(&t->host.clock) + t->options.lease_ms * 1000000 / (failed ? 12 : 3);
    pthread_mutex_unlock(&t->mutex);
    if (stop)
        perf__tasks_ask_to_stop(t, false);
}

/* ------------------------------------------------------------------------- sweeps */

static void sweep(perf_tasks *t, int64_t now_ms)
{
    perf_queue_swept swept = {.struct_size = sizeof swept};
    pthread_mutex_lock(&t->mutex);
    t->sweep_ms = now_ms + SWEEP_MS;
    pthread_mutex_unlock(&t->mutex);
    int rc = perf__task_queue_sweep(t->queue, now_ms, SWEEP_BUDGET, &swept);
    if (rc) {
        perf__tasks_queue_failed(t, "sweep", rc, 1);
        return;
    }
    perf__tasks_count(t, COUNT_RESCUED, swept.rescued);
    perf__tasks_count(t, COUNT_REMOVED, swept.removed);
    if (swept.rescued)
        perf__log(&t->host.log, PERF_LOG_WARNING, "task",
                  "%llu tasks of workers that were not heard of were put back, %llu of them dead",
                  (unsigned long long)swept.rescued, (unsigned long long)swept.dead);
    pthread_mutex_lock(&t->mutex);
    if (swept.next_ms && swept.next_ms < t->sweep_ms)
        t->sweep_ms = swept.next_ms > now_ms ? swept.next_ms : now_ms + 1;
    pthread_cond_broadcast(&t->room); /* for those who poll */
    pthread_mutex_unlock(&t->mutex);
    perf__task_queue_wake(t->queue); /* what was due may be claimed now */
}

/* ------------------------------------------------------------------------ the thread */

void perf__tasks_keep_wake(perf_tasks *t, int64_t due_ms)
{
    pthread_mutex_lock(&t->mutex);
    if (!due_ms)
        t->beat_now = true;
    else if (due_ms < t->sweep_ms)
        t->sweep_ms = due_ms;
    pthread_cond_signal(&t->keep);
    pthread_mutex_unlock(&t->mutex);
}

/* How long to sleep. With the mutex. */
static int64_t sleep_ms(const perf_tasks *t, int64_t fire_ms)
{
    int64_t now_ms = perf__realtime_ms(&t->host.clock), now_ns = perf__now_ns(&t->host.clock);
    int64_t ms = SLEEP_MS;
    if (t->claims && (t->beat_ns - now_ns) / 1000000 < ms)
        ms = (t->beat_ns - now_ns) / 1000000;
    if (t->ending_head && (t->finish_after_ns - now_ns) / 1000000 < ms)
        ms = (t->finish_after_ns - now_ns) / 1000000;
    if (t->sweep_ms - now_ms < ms)
        ms = t->sweep_ms - now_ms;
    if (fire_ms != INT64_MAX && fire_ms - now_ms < ms)
        ms = fire_ms - now_ms;
    if (t->own_clock && ms > OWN_CLOCK_MS)
        ms = OWN_CLOCK_MS;
    return ms > 0 ? ms : 1;
}

/* Was the clock on the wall set since it was asked last? Then our own leases may seem to be over,
 * and are extended before a sweep takes them for those of the dead. With the mutex. */
static bool clock_was_set(perf_tasks *t, int64_t now_ms, int64_t now_ns)
{
    int64_t ahead_ms = now_ms - now_ns / 1000000, by_ms = ahead_ms - t->clock_ahead_ms;
    t->clock_ahead_ms = ahead_ms;
    return by_ms > t->options.lease_ms / 3;
}

static void *keep(void *arg)
{
    perf_tasks *t = arg;
    pthread_mutex_lock(&t->mutex);
    while (!t->keep_stop) {
        int64_t now_ms = perf__realtime_ms(&t->host.clock), now_ns = perf__now_ns(&t->host.clock);
        bool beat_due = clock_was_set(t, now_ms, now_ns) || t->beat_now || now_ns >= t->beat_ns;
        beat_due = beat_due && t->claims;
        bool sweep_due = now_ms >= t->sweep_ms || t->sweep_ms > now_ms + 2 * SWEEP_MS;
        bool ends_due = t->ending_head != NULL;
        t->beat_now = false;
        pthread_mutex_unlock(&t->mutex);
        if (beat_due)
            beat(t);
        if (ends_due)
            perf__tasks_send_ends(t);
        if (sweep_due)
            sweep(t, now_ms);
        int64_t fire_ms = perf__tasks_fire(t, now_ms);
        pthread_mutex_lock(&t->mutex);
        if (!t->keep_stop && !t->beat_now)
            perf__cond_wait(&t->keep, &t->mutex, perf__deadline_after(sleep_ms(t, fire_ms)));
    }
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

int perf__tasks_keep_start(perf_tasks *t)
{
    if (t->keeping)
        return PERF_OK;
    int64_t now_ns = perf__now_ns(&t->host.clock);
    t->beat_ns = now_ns + t->options.lease_ms * 1000000 / 3;
    t->clock_ahead_ms = perf__realtime_ms(&t->host.clock) - now_ns / 1000000;
    if (perf__thread_start(&t->keeper, "perf-leases", keep, t))
        return perf__fail_nomem("the thread that keeps leases");
    t->keeping = true;
    return PERF_OK;
}

void perf__tasks_keep_stop(perf_tasks *t)
{
    if (!t->keeping)
        return;
    pthread_mutex_lock(&t->mutex);
    t->keep_stop = true;
    pthread_cond_signal(&t->keep);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->keeper, NULL);
    t->keeping = false;
}
