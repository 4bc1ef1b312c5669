/* SPDX-License-Identifier: MIT */
/*
 * queue_memory_look.c - looking at the queue in memory, and steering it.
 *
 * Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/status.h"
#include "queue_history.h"
#include "queue_memory.h"

enum { LOOK_AT = 20000 }; /* tasks that one find looks at */

/* --------------------------------------------------------------------- look */

static int add_to_reply(const struct task *task, bool bytes, perf_queue_reply *reply)
{
    struct perf__history h;
    perf_queue_task view = task->view;
    perf__history_tell(&h, &view, task->kept ? task->kept : "", task->waited, task->last_attempt);
    view.history = h.text;
    if (!bytes)
        view.payload = view.result = (perf_bytes){"", 0};
    return perf_queue_reply_add(reply, &view);
}

int perf__queue_memory_get(void *queue, const char *id, perf_queue_reply *reply)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    const struct task *task = perf__queue_memory_find_task(q, id);
    int rc = task ? add_to_reply(task, true, reply) : PERF_MISS;
    pthread_mutex_unlock(&q->mutex);
    return rc;
}

static bool is(const char *wanted, const char *value)
{
    return !wanted || !strcmp(wanted, value);
}

int perf__queue_memory_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply)
{
    struct memory_queue *q = queue;
    uint64_t before = UINT64_MAX;
    if (filter->cursor) {
        char *end;
        before = strtoull(filter->cursor, &end, 10);
        if (!filter->cursor[0] || *end)
            return perf__fail(PERF_EINVAL, "perf_tasks_filter.cursor is none of this queue's; give "
                                           "the one of the page before");
    }
    size_t limit = filter->limit > 0 ? (size_t)filter->limit : 100, found = 0, looked = 0;
    int rc = PERF_OK;
    pthread_mutex_lock(&q->mutex);
    size_t at = perf__queue_memory_row_at(q, before);
    for (; at && !rc && found < limit && looked < LOOK_AT; at--, looked++) {
        const struct task *task = q->rows[at - 1].task;
        if (!task || (filter->state && filter->state != task->view.state) ||
            !is(filter->user, task->view.user) || !is(filter->queue, task->view.queue) ||
            !is(filter->kind, task->view.kind) || !is(filter->batch, task->view.batch))
            continue;
        rc = add_to_reply(task, false, reply);
        found++;
    }
    if (!rc && at) {
        char cursor[24];
        snprintf(cursor, sizeof cursor, "%" PRIu64, q->rows[at].row);
        rc = perf_queue_reply_cursor(reply, cursor);
    }
    pthread_mutex_unlock(&q->mutex);
    return rc;
}

int perf__queue_memory_count(void *queue, const char *name, int64_t now_ms,
                             perf_queue_counts *counts)
{
    struct memory_queue *q = queue;
    (void)now_ms;
    pthread_mutex_lock(&q->mutex);
    const struct line *line = perf__queue_memory_find_line(q, name);
    if (line) {
        memcpy(counts->by_state, line->by_state, sizeof counts->by_state);
        counts->paused = line->paused;
        const struct perf__heap_node *first = NULL;
        for (const struct lane *lane = line->lanes; lane; lane = lane->next)
            if (lane->ready.least && (!first || lane->ready.least->key < first->key))
                first = lane->ready.least;
        if (first)
            counts->oldest_due_ms = TASK_OF(first)->view.due_ms;
    }
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

/* -------------------------------------------------------------------- steer */

static int cancel(struct memory_queue *q, const char *id, int64_t now_ms)
{
    struct task *task = perf__queue_memory_find_task(q, id);
    if (!task || perf__task_ended(task->view.state))
        return PERF_MISS;
    if (task->view.state == PERF_TASK_RUNNING) {
        task->cancel = true;
        return PERF_OK;
    }
    perf__queue_memory_leave_state(q, task);
    perf__queue_memory_set_error(q, task, PERF_ECANCELED, "cancelled before it began");
    perf__queue_memory_end_task(q, task, PERF_TASK_CANCELLED, now_ms);
    return PERF_OK;
}

static int redrive(struct memory_queue *q, struct task *task, int64_t now_ms)
{
    if (!task || !perf__task_ended(task->view.state) || task->view.state == PERF_TASK_SUCCEEDED)
        return PERF_MISS;
    perf__queue_memory_keep_line(q, task, task->view.ended_ms, task->view.state, task->view.status,
                                 task->view.error);
    perf__queue_memory_keep_line(q, task, now_ms, PERF_TASK_QUEUED, PERF_OK, "");
    perf__queue_memory_leave_state(q, task);
    perf__free(&q->allocator, task->result);
    task->result = NULL;
    task->view.result = (perf_bytes){"", 0};
    task->view.attempts = 0;
    task->view.ended_ms = 0;
    task->view.deadline_ms = 0; /* who asks for it now knows how late it is */
    perf__queue_memory_go_on(q, task, PERF_TASK_WAITING, now_ms > 0 ? now_ms : 1, now_ms);
    return PERF_OK;
}

static uint64_t redrive_all(struct memory_queue *q, const char *name, int64_t now_ms)
{
    const struct line *line = perf__queue_memory_find_line(q, name);
    uint64_t n = 0;
    for (size_t i = 0; line && i < q->rows_count; i++) {
        struct task *task = q->rows[i].task;
        if (task && task->lane->line == line && task->view.state == PERF_TASK_DEAD)
            n += redrive(q, task, now_ms) == PERF_OK;
    }
    return n;
}

static int pause_line(struct memory_queue *q, const char *name, bool paused, uint64_t *n)
{
    struct line *line =
        paused ? perf__queue_memory_need_line(q, name) : perf__queue_memory_find_line(q, name);
    if (!line && paused)
        return perf__fail_nomem("a queue that is paused");
    *n = line && line->paused != paused;
    if (line) {
        line->paused = paused;
        perf__queue_memory_tidy_line(q, line);
        perf__queue_memory_news(q);
    }
    return PERF_OK;
}

int perf__queue_memory_control(void *queue, int verb, const char *name, int64_t now_ms, uint64_t *n)
{
    struct memory_queue *q = queue;
    struct task *task;
    int rc;
    *n = 1;
    pthread_mutex_lock(&q->mutex);
    switch (verb) {
    case PERF_QUEUE_CANCEL:
        rc = cancel(q, name, now_ms);
        break;
    case PERF_QUEUE_REDRIVE:
        rc = redrive(q, perf__queue_memory_find_task(q, name), now_ms);
        break;
    case PERF_QUEUE_REDRIVE_ALL:
        *n = redrive_all(q, name, now_ms);
        rc = PERF_OK;
        break;
    case PERF_QUEUE_REMOVE:
        task = perf__queue_memory_find_task(q, name);
        rc = !task ? PERF_MISS : perf__task_ended(task->view.state) ? PERF_OK : PERF_EBUSY;
        if (rc == PERF_OK)
            perf__queue_memory_remove_task(q, task);
        else if (rc == PERF_EBUSY)
            perf__fail(rc, "task \"%.71s\" has not ended; cancel it first", name);
        break;
    case PERF_QUEUE_PAUSE:
    case PERF_QUEUE_RESUME:
        rc = pause_line(q, name, verb == PERF_QUEUE_PAUSE, n);
        break;
    default:
        rc = perf__fail(PERF_EINVAL, "control was asked for %d; give PERF_QUEUE_CANCEL or another",
                        verb);
    }
    pthread_mutex_unlock(&q->mutex);
    if (rc)
        *n = 0;
    return rc;
}

/* ------------------------------------------------------------------- upkeep */

/* A worker was not heard of: another one's turn, or the end. */
static bool rescue(struct memory_queue *q, struct task *task, int64_t now_ms)
{
    static const char sentence[] = "its worker was not heard of within its lease";
    const perf_queue_task *v = &task->view;
    bool dead = v->max_attempts >= 0 && v->attempts >= v->max_attempts;
    perf__queue_memory_leave_state(q, task);
    perf__queue_memory_set_error(q, task, PERF_ETIMEDOUT, sentence);
    if (task->cancel || dead) {
        int64_t state = task->cancel ? PERF_TASK_CANCELLED : PERF_TASK_DEAD;
        task->cancel = false;
        perf__queue_memory_end_task(q, task, state, now_ms);
        return state == PERF_TASK_DEAD;
    }
    perf__queue_memory_keep_line(q, task, now_ms, PERF_TASK_QUEUED, PERF_ETIMEDOUT, sentence);
    perf__queue_memory_go_on(q, task, PERF_TASK_WAITING, 0, now_ms);
    return false;
}

int perf__queue_memory_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    for (size_t i = 0; i < budget && q->waiting.least && q->waiting.least->key <= now_ms; i++) {
        struct task *task = TASK_OF(q->waiting.least);
        perf__heap_remove(&q->waiting, &task->node);
        perf__queue_memory_make_ready(q, task);
    }
    for (size_t i = 0; i < budget && q->running.least && q->running.least->key <= now_ms; i++) {
        swept->dead += rescue(q, TASK_OF(q->running.least), now_ms);
        swept->rescued++;
    }
    for (size_t i = 0; i < budget && q->ended.least && q->ended.least->key <= now_ms; i++) {
        perf__queue_memory_remove_task(q, TASK_OF(q->ended.least));
        swept->removed++;
    }
    swept->next_ms = q->waiting.least ? q->waiting.least->key : 0;
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}
