/* SPDX-License-Identifier: MIT */
/*
 * queue_memory_state.c - the states of tasks in memory, and the heap that each state has.
 *
 * A change takes O(log n) and cannot fail: sentences and histories may be left out
 * when there is no memory. The mutex is held.
 */
#include <string.h>

#include "queue_history.h"
#include "queue_memory.h"

void perf__queue_memory_set_state(struct task *task, int64_t state)
{
    uint64_t *by_state = task->lane->line->by_state;
    if (task->view.state)
        by_state[task->view.state]--;
    by_state[state]++;
    task->view.state = state;
}

void perf__queue_memory_news(struct memory_queue *q)
{
    q->news++;
    pthread_cond_broadcast(&q->changed);
}

static void into_lane(struct memory_queue *q, struct task *task)
{
    perf__heap_add(&task->lane->ready, &task->node, task->view.rank, task->row);
    task->aside = false;
    if (task->limit) {
        task->limit->ready++;
        perf__heap_add(&task->limit->in_lane, &task->limited, -task->view.rank, ~task->row);
    }
    perf__queue_memory_news(q);
}

void perf__queue_memory_out_of_lane(struct task *task)
{
    perf__heap_remove(&task->lane->ready, &task->node);
    if (task->limit) {
        task->limit->ready--;
        perf__heap_remove(&task->limit->in_lane, &task->limited);
    }
}

void perf__queue_memory_put_aside(struct task *task)
{
    task->aside = true;
    perf__heap_add(&task->limit->aside, &task->node, task->view.rank, task->row);
}

/* A place of this key may have become free. */
static void refill(struct memory_queue *q, struct limit *limit)
{
    while (limit->aside.least) {
        struct task *task = TASK_OF(limit->aside.least);
        if (limit->running + limit->ready >= (uint64_t)task->view.limit)
            return;
        perf__heap_remove(&limit->aside, &task->node);
        into_lane(q, task);
    }
}

/* QUEUED, and in a lane unless its key has no place for it. The one that goes last gives way. */
void perf__queue_memory_make_ready(struct memory_queue *q, struct task *task)
{
    struct limit *limit = task->limit;
    perf__queue_memory_set_state(task, PERF_TASK_QUEUED);
    if (limit && limit->running + limit->ready >= (uint64_t)task->view.limit) {
        struct task *last = limit->in_lane.least ? LIMITED_OF(limit->in_lane.least) : NULL;
        if (!last || last->view.rank <= task->view.rank) {
            perf__queue_memory_put_aside(task);
            return;
        }
        perf__queue_memory_out_of_lane(last);
        perf__queue_memory_put_aside(last);
    }
    into_lane(q, task);
}

/* What is not due waits, what is goes into its lane. */
void perf__queue_memory_make_due(struct memory_queue *q, struct task *task, int64_t state,
                                 int64_t now_ms)
{
    if (task->pending) {
        perf__queue_memory_set_state(task, PERF_TASK_WAITING);
    } else if (task->view.due_ms > now_ms) {
        perf__queue_memory_set_state(task, state);
        perf__heap_add(&q->waiting, &task->node, task->view.due_ms, task->row);
    } else {
        perf__queue_memory_make_ready(q, task);
    }
}

/* Out of the heap that its state has it in. */
void perf__queue_memory_leave_state(struct memory_queue *q, struct task *task)
{
    struct limit *limit = task->limit;
    switch (task->view.state) {
    case PERF_TASK_QUEUED:
        if (task->aside)
            perf__heap_remove(&limit->aside, &task->node);
        else
            perf__queue_memory_out_of_lane(task);
        break;
    case PERF_TASK_RUNNING:
        perf__heap_remove(&q->running, &task->node);
        if (limit)
            limit->running--;
        break;
    default:
        if (perf__heap_in(&task->node))
            perf__heap_remove(perf__task_ended(task->view.state) ? &q->ended : &q->waiting,
                              &task->node);
    }
    if (limit)
        refill(q, limit);
}

void perf__queue_memory_set_end(struct memory_queue *q, struct task *task, int64_t state,
                                int64_t now_ms)
{
    int64_t keep =
        task->view.keep_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + task->view.keep_ms;
    if (task->unique && task->view.unique_until_ms > keep)
        keep = task->view.unique_until_ms;
    perf__queue_memory_set_state(task, state);
    task->view.ended_ms = now_ms;
    task->view.fraction = state == PERF_TASK_SUCCEEDED ? 1 : task->view.fraction;
    task->pending = 0;
    perf__heap_add(&q->ended, &task->node, keep, task->row);
}

bool perf__queue_memory_set_text(struct memory_queue *q, char **own, const char **view,
                                 const char *text)
{
    if (!strcmp(*view, text))
        return true;
    char *copy = text[0] ? perf__strndup(&q->allocator, text, strlen(text)) : NULL;
    if (text[0] && !copy)
        return false;
    perf__free(&q->allocator, *own);
    *own = copy;
    *view = copy ? copy : "";
    return true;
}

/* A sentence that may be left out when there is no memory. */
void perf__queue_memory_set_error(struct memory_queue *q, struct task *task, int64_t status,
                                  const char *text)
{
    task->view.status = status;
    if (!perf__queue_memory_set_text(q, &task->error, &task->view.error, text))
        perf__queue_memory_set_text(q, &task->error, &task->view.error, "");
}

/* The task has left its state. Ends it, and all that hangs on it. */
void perf__queue_memory_end_task(struct memory_queue *q, struct task *task, int64_t state,
                                 int64_t now_ms)
{
    perf__queue_memory_set_end(q, task, state, now_ms);
    task->next_end = NULL;
    for (struct task *at = task, *last = task; at; at = at->next_end) {
        for (size_t i = 0; i < at->followers_count; i++) {
            struct task *follower = perf__queue_memory_find_row(q, at->followers[i]);
            if (!follower || !follower->pending || perf__task_ended(follower->view.state))
                continue;
            if (at->view.state == PERF_TASK_SUCCEEDED || follower->view.after_any_end) {
                if (!--follower->pending)
                    perf__queue_memory_make_due(q, follower, PERF_TASK_WAITING, now_ms);
                continue;
            }
            perf__queue_memory_set_error(q, follower, PERF_ECANCELED,
                                         "a task that it waited for did not succeed");
            perf__queue_memory_set_end(q, follower, PERF_TASK_CANCELLED, now_ms);
            follower->next_end = NULL;
            last->next_end = follower;
            last = follower;
        }
        at->followers_count = 0;
    }
}

void perf__queue_memory_keep_line(struct memory_queue *q, struct task *task, int64_t now_ms,
                                  int64_t state, int64_t status, const char *sentence)
{
    struct perf__history h;
    perf__history_begin(&h, task->kept ? task->kept : "");
    if (task->last_attempt)
        perf__history_add(&h, task->view.started_ms, PERF_TASK_RUNNING, task->view.worker, PERF_OK,
                          "");
    perf__history_add(&h, now_ms, state, task->last_attempt ? task->view.worker : "", status,
                      sentence);
    task->last_attempt = false;
    /* Without memory a history has gaps. */
    char *kept = perf__strndup(&q->allocator, h.text, h.len);
    if (!kept)
        return;
    perf__free(&q->allocator, task->kept);
    task->kept = kept;
}

/* It goes on later, or now; due_ms 0: where it stood. */
void perf__queue_memory_go_on(struct memory_queue *q, struct task *task, int64_t state,
                              int64_t due_ms, int64_t now_ms)
{
    if (due_ms > 0) {
        task->view.due_ms = due_ms;
        task->view.rank = perf__task_rank(due_ms, task->view.priority);
    }
    perf__queue_memory_make_due(q, task, state, due_ms > 0 ? now_ms : INT64_MAX);
}
