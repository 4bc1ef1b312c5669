/* SPDX-License-Identifier: MIT */
/*
 * tasks_end.c - ends on their way to the queue.
 *
 * A worker leaves its end in a line and goes on. Whoever finds nobody sending
 * sends, all that is in line in one call, again until the line is empty: while the queue
 * commits one batch, the next one gathers. Ends that the queue could not take
 * stay in line, their leases kept, until it can or the lease has passed.
 */
#include <string.h>

#include "../base/clock.h"
#include "../base/log.h"
#include "tasks_impl.h"

enum { BATCH = 128 };

void perf__claim_end(struct perf__claim *c)
{
    perf_tasks *t = c->tasks;
    if (c->state == CLAIM_RUNNING) {
        t->running--;
        t->pulled -= c->pulled;
    }
    if (c->handler) {
        if ((int64_t)c->handler->claimed == c->handler->options.max_running)
            t->wake_queue = t->wake_claimer = true;
        c->handler->claimed--;
    }
    c->state = CLAIM_ENDING;
    c->next_in_line = NULL;
    if (t->ending_tail)
        t->ending_tail->next_in_line = c;
    else
        t->ending_head = c;
    t->ending_tail = c;
    t->ending++;
}

/* Takes up to BATCH from the line. With the mutex. */
static size_t take_batch(perf_tasks *t, struct perf__claim **claims, perf_queue_end *ends)
{
    size_t n = 0;
    int64_t now = perf__realtime_ms(&t->host.clock);
    while (t->ending_head && n < BATCH) {
        struct perf__claim *c = t->ending_head;
        t->ending_head = c->next_in_line;
        ends[n] = c->end;
        ends[n].struct_size = sizeof *ends;
        ends[n].id = c->task->id;
        ends[n].token = c->task->token;
        ends[n].now_ms = now;
        ends[n].outcome = PERF_OK;
        claims[n++] = c;
    }
    if (!t->ending_head)
        t->ending_tail = NULL;
    return n;
}

static void tell_waiters(perf_tasks *t, const struct perf__claim *c)
{
    if (!perf__task_ended(c->end.state))
        return;
    for (struct perf__task_waiter *w = t->waiters; w; w = w->next)
        if (!strcmp(w->id, c->task->id)) {
            w->ended = true;
            pthread_cond_signal(&w->cond);
        }
}

/* The end of c was not kept: is it to be tried again? With the mutex. */
static bool try_again(struct perf__claim *c, int64_t outcome, int64_t now)
{
    if (outcome == PERF_ETOOBIG && c->end.result.len) {
        /* The queue cannot hold such a result, whatever we allow. */
        perf__copy_text(c->why, sizeof c->why, "the result is larger than the queue can keep");
        c->end =
            (perf_queue_end){.state = PERF_TASK_FAILED, .status = PERF_ETOOBIG, .error = c->why};
        c->count_as = COUNT_FAILED;
        return true;
    }
    if (now < c->lease_until_ms)
        return true;
    perf__log(&c->tasks->host.log, PERF_LOG_ERROR, "task",
              "the end of task %s could not be recorded within its lease; it runs again",
              c->task->id);
    return false;
}

/* What the queue said about a batch; those to be tried again go before the others in line. With
 * the mutex. True: some are. */
static bool settle(perf_tasks *t, struct perf__claim **claims, const perf_queue_end *ends, size_t n)
{
    struct perf__claim *again = NULL, *last = NULL;
    int64_t now = perf__realtime_ms(&t->host.clock);
    for (size_t i = n; i-- > 0;) {
        struct perf__claim *c = claims[i];
        int64_t outcome = ends[i].outcome;
        if (outcome == PERF_OK) {
            perf__tasks_count(t, c->count_as, 1);
            tell_waiters(t, c);
            if (c->end.due_ms && c->end.due_ms < t->sweep_ms) { /* it comes again */
                t->sweep_ms = c->end.due_ms;
                pthread_cond_signal(&t->keep);
            }
        } else if (outcome != PERF_ECONFLICT && try_again(c, outcome, now)) {
            c->next_in_line = again;
            again = c;
            last = last ? last : c;
            continue;
        } else {
            c->lost = true;
            perf__tasks_count(t, COUNT_LOST, 1);
        }
        t->ending--;
        perf__claim_done(c);
    }
    if (!again)
        return false;
    last->next_in_line = t->ending_head;
    t->ending_head = again;
    if (!t->ending_tail)
        t->ending_tail = last;
    return true;
}

void perf__tasks_send_ends(perf_tasks *t)
{
    struct perf__claim *claims[BATCH];
    perf_queue_end ends[BATCH];
    pthread_mutex_lock(&t->mutex);
    bool wake = t->wake_queue;
    t->wake_queue = false;
    while (!t->finishing && t->ending_head && perf__now_ns(&t->host.clock) >= t->finish_after_ns) {
        size_t n = take_batch(t, claims, ends);
        t->finishing = true;
        pthread_mutex_unlock(&t->mutex);
        int rc = perf__task_queue_finish(t->queue, ends, n);
        pthread_mutex_lock(&t->mutex);
        t->finishing = false;
        bool again = settle(t, claims, ends, n);
        t->finish_failures = again ? t->finish_failures + 1 : 0;
        if (again) {
            perf__tasks_queue_failed(t, "finish", rc ? rc : PERF_EIO, t->finish_failures);
            t->finish_after_ns = perf__now_ns(&t->host.clock) +
                                 perf__tasks_back_off_ms(t->finish_failures) * 1000000;
            pthread_cond_signal(&t->keep);
        }
    }
    if (t->claimer_waits && perf__tasks_has_room(t))
        pthread_cond_broadcast(&t->room);
    if (t->watchers)
        pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    if (wake)
        perf__task_queue_wake(t->queue);
}
