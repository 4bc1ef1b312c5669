/* SPDX-License-Identifier: MIT */
/*
 * tasks_look.c - looking at tasks, waiting for them, and steering them.
 *
 * A record is one block: its allocator, the struct, and all its strings. A wait
 * is told at once when this process ends the task, and asks the queue now and
 * then for what others do. Any thread.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "tasks_impl.h"

enum { LIMIT_DEFAULT = 100, LIMIT_MAX = 1000, FIRST_LOOK_MS = 5 };

/* --------------------------------------------------------------------- records */

struct record {
    perf_allocator allocator;
    perf_task_record public;
};

static struct record *record_of(perf_task_record *r)
{
    return (struct record *)(void *)((char *)r - offsetof(struct record, public));
}

void perf_task_record_free(perf_task_record *record)
{
    if (!record)
        return;
    struct record *r = record_of(record);
    perf_allocator allocator = r->allocator;
    perf__free(&allocator, r);
}

static const char *put(char **at, const char *text)
{
    size_t len = strlen(text) + 1;
    char *p = memcpy(*at, text, len);
    *at += len;
    return p;
}

static perf_bytes put_bytes(char **at, perf_bytes bytes)
{
    char *p = *at;
    if (bytes.len)
        memcpy(p, bytes.data, bytes.len);
    *at += bytes.len;
    return (perf_bytes){p, bytes.len};
}

static perf_task_record *make_record(perf_tasks *t, const perf_queue_task *q)
{
    const char *const texts[] = {q->id,     q->kind, q->user,  q->queue,  q->batch,
                                 q->worker, q->text, q->error, q->history};
    size_t size = q->payload.len + q->result.len;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        size += strlen(texts[i]) + 1;
    struct record *r = perf__alloc(&t->host.allocator, sizeof *r + size);
    if (!r) {
        perf__fail_nomem("a task's record");
        return NULL;
    }
    char *at = (char *)(r + 1);
    r->allocator = t->host.allocator;
    r->public = (perf_task_record){
        .struct_size = sizeof r->public,
        .state = q->state,
        .priority = q->priority,
        .attempts = q->attempts,
        .max_attempts = q->max_attempts,
        .version = q->version,
        .created_ms = q->created_ms,
        .due_ms = q->due_ms,
        .started_ms = q->started_ms,
        .ended_ms = q->ended_ms,
        .lease_ms = q->state == PERF_TASK_RUNNING ? q->lease_until_ms : 0,
        .fraction = q->fraction,
        .done = q->done,
        .total = q->total,
        .status = q->status,
    };
    r->public.id = put(&at, q->id);
    r->public.kind = put(&at, q->kind);
    r->public.user = put(&at, q->user);
    r->public.queue = put(&at, q->queue);
    r->public.batch = put(&at, q->batch);
    r->public.worker = put(&at, q->worker);
    r->public.text = put(&at, q->text);
    r->public.error = put(&at, q->error);
    r->public.history = put(&at, q->history);
    r->public.payload = put_bytes(&at, q->payload);
    r->public.result = put_bytes(&at, q->result);
    return &r->public;
}

/* What the queue says, and how the progress of what runs here is now. */
static int look(perf_tasks *t, const char *id, perf_task_record **record, int64_t *state)
{
    perf_queue_reply reply = {.allocator = &t->host.allocator};
    int rc = perf__task_queue_get(t->queue, id, &reply);
    if (rc < 0)
        perf__tasks_queue_failed(t, "get", rc, 1);
    if (!rc) {
        *state = reply.tasks[0]->state;
        if (record && !(*record = make_record(t, reply.tasks[0])))
            rc = PERF_ENOMEM;
    }
    perf__queue_reply_free(&reply);
    return rc;
}

int perf_tasks_get(perf_tasks *t, const char *id, perf_task_record **record)
{
    int64_t state;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_task_id(id)))
        return rc;
    if (!record)
        return perf__fail(PERF_EINVAL, "perf_tasks_get needs a place for the record");
    return look(t, id, record, &state);
}

/* ----------------------------------------------------------------------- waiting */

static void enter(perf_tasks *t, struct perf__task_waiter *w)
{
    pthread_mutex_lock(&t->mutex);
    w->next = t->waiters;
    t->waiters = w;
    pthread_mutex_unlock(&t->mutex);
}

static void leave(perf_tasks *t, struct perf__task_waiter *w)
{
    pthread_mutex_lock(&t->mutex);
    struct perf__task_waiter **at = &t->waiters;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    pthread_mutex_unlock(&t->mutex);
    pthread_cond_destroy(&w->cond);
}

/* Until w's task may have ended, or for ms. */
static void wait_a_while(perf_tasks *t, struct perf__task_waiter *w, int64_t ms)
{
    int64_t until = perf__deadline_after(ms);
    pthread_mutex_lock(&t->mutex);
    while (!w->ended && perf__cond_wait(&w->cond, &t->mutex, until))
        ;
    w->ended = false;
    pthread_mutex_unlock(&t->mutex);
}

int perf_tasks_wait(perf_tasks *t, const char *id, int64_t timeout_ms, perf_task_record **record)
{
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_task_id(id)) ||
        (rc = perf__check_range("timeout_ms", timeout_ms, -1, INT64_MAX / 2000000)))
        return rc;
    struct perf__task_waiter w = {.id = id};
    if (perf__cond_init(&w.cond))
        return perf__fail_nomem("a wait");
    enter(t, &w);
    int64_t until = perf__deadline_after(timeout_ms), pause = FIRST_LOOK_MS, state = 0;
    for (;;) {
        perf_task_record *found = NULL;
        rc = look(t, id, record ? &found : NULL, &state);
        if (rc == PERF_OK && perf__task_ended(state)) {
            if (record)
                *record = found;
            break;
        }
        perf_task_record_free(found);
        if (rc && rc != PERF_EUNAVAILABLE && rc != PERF_ETIMEDOUT && rc != PERF_EBUSY)
            break; /* of those the queue may recover */
        int64_t left = pause;
        if (timeout_ms >= 0)
            left = timeout_ms ? perf__deadline_left(until) : 0;
        if (left <= 0) {
            rc = perf__fail(PERF_ETIMEDOUT, "the task has not ended after %lld ms",
                            (long long)timeout_ms);
            break;
        }
        wait_a_while(t, &w, left < pause ? left : pause);
        pause = pause * 2 < t->options.poll_ms ? pause * 2 : t->options.poll_ms;
    }
    leave(t, &w);
    return rc;
}

/* ----------------------------------------------------------------------- finding */

struct list {
    perf_allocator allocator;
    perf_tasks_list public;
    perf_task_record *records[];
};

void perf_tasks_list_free(perf_tasks_list *list)
{
    if (!list)
        return;
    struct list *l = (struct list *)(void *)((char *)list - offsetof(struct list, public));
    perf_allocator allocator = l->allocator;
    for (uint64_t i = 0; i < list->count; i++)
        perf_task_record_free(list->records[i]);
    perf__free(&allocator, l);
}

static int make_list(perf_tasks *t, const perf_queue_reply *reply, perf_tasks_list **out)
{
    size_t cursor_len = reply->cursor ? strlen(reply->cursor) + 1 : 0;
    struct list *l = perf__calloc(&t->host.allocator, 1,
                                  sizeof *l + reply->count * sizeof *l->records + cursor_len);
    if (!l)
        return perf__fail_nomem("a list of tasks");
    l->allocator = t->host.allocator;
    l->public.struct_size = sizeof l->public;
    l->public.records = l->records;
    if (cursor_len)
        l->public.cursor = memcpy(&l->records[reply->count], reply->cursor, cursor_len);
    for (size_t i = 0; i < reply->count; i++) {
        l->records[i] = make_record(t, reply->tasks[i]);
        if (!l->records[i]) {
            perf_tasks_list_free(&l->public);
            return PERF_ENOMEM;
        }
        l->public.count++;
    }
    *out = &l->public;
    return PERF_OK;
}

int perf_tasks_find(perf_tasks *t, const perf_tasks_filter *filter, perf_tasks_list **list)
{
    perf_tasks_filter own;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__options_take("perf_tasks_filter", filter, &own, sizeof own)))
        return rc;
    if (!list)
        return perf__fail(PERF_EINVAL, "perf_tasks_find needs a place for the list");
    if (!own.limit)
        own.limit = LIMIT_DEFAULT;
    if ((rc = perf__check_range("limit", own.limit, 1, LIMIT_MAX)) ||
        (rc = perf__check_range("state", own.state, 0, PERF_TASK_DEAD)) ||
        (own.user && (rc = perf__check_text("user", own.user, 128))) ||
        (own.batch && (rc = perf__check_text("batch", own.batch, 128))) ||
        (own.queue && (rc = perf__check_queue(own.queue))) ||
        (own.kind && (rc = perf__check_kind(own.kind))) ||
        (own.cursor && (rc = perf__check_text("cursor", own.cursor, 512))))
        return rc;
    perf_queue_filter f = {
        .struct_size = sizeof f,
        .user = own.user,
        .queue = own.queue,
        .kind = own.kind,
        .batch = own.batch,
        .state = own.state,
        .limit = own.limit,
        .cursor = own.cursor,
    };
    perf_queue_reply reply = {.allocator = &t->host.allocator};
    rc = perf__task_queue_find(t->queue, &f, &reply);
    if (rc == PERF_MISS)
        rc = PERF_OK; /* an empty page */
    else if (rc < 0 && rc != PERF_EINVAL && rc != PERF_EUNSUPPORTED)
        perf__tasks_queue_failed(t, "find", rc, 1);
    if (!rc)
        rc = make_list(t, &reply, list);
    perf__queue_reply_free(&reply);
    return rc;
}

int perf_tasks_count(perf_tasks *t, const char *queue, perf_tasks_counts *counts)
{
    size_t size;
    int rc = perf__tasks_usable(t);
    if (!queue)
        queue = "default";
    if (rc || (rc = perf__check_queue(queue)) ||
        (rc = perf__options_check_out("perf_tasks_counts", counts, &size)))
        return rc;
    int64_t now = perf__realtime_ms(&t->host.clock);
    perf_queue_counts c = {.struct_size = sizeof c};
    rc = perf__task_queue_count(t->queue, queue, now, &c);
    if (rc) {
        perf__tasks_queue_failed(t, "count", rc, 1);
        return rc;
    }
    perf_tasks_counts own = {
        .struct_size = sizeof own,
        .waiting = c.by_state[PERF_TASK_WAITING],
        .queued = c.by_state[PERF_TASK_QUEUED],
        .running = c.by_state[PERF_TASK_RUNNING],
        .retrying = c.by_state[PERF_TASK_RETRYING],
        .succeeded = c.by_state[PERF_TASK_SUCCEEDED],
        .failed = c.by_state[PERF_TASK_FAILED],
        .cancelled = c.by_state[PERF_TASK_CANCELLED],
        .dead = c.by_state[PERF_TASK_DEAD],
        .oldest_ms = c.oldest_due_ms && c.oldest_due_ms < now ? now - c.oldest_due_ms : 0,
        .paused = c.paused,
    };
    perf__options_give(counts, size, &own, sizeof own);
    return PERF_OK;
}

/* ---------------------------------------------------------------------- steering */

static int control(perf_tasks *t, int verb, const char *name, uint64_t *n)
{
    uint64_t changed = 0;
    int rc =
        perf__task_queue_control(t->queue, verb, name, perf__realtime_ms(&t->host.clock), &changed);
    if (n)
        *n = changed;
    if (rc < 0 && rc != PERF_EBUSY && rc != PERF_EUNSUPPORTED)
        perf__tasks_queue_failed(t, "control", rc, 1);
    return rc;
}

static int control_task(perf_tasks *t, int verb, const char *id)
{
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_task_id(id)))
        return rc;
    return control(t, verb, id, NULL);
}

static int control_queue(perf_tasks *t, int verb, const char *queue, uint64_t *n)
{
    int rc = perf__tasks_usable(t);
    if (!queue)
        queue = "default";
    if (rc || (rc = perf__check_queue(queue)))
        return rc;
    return control(t, verb, queue, n);
}

int perf_tasks_cancel(perf_tasks *t, const char *id)
{
    int rc = control_task(t, PERF_QUEUE_CANCEL, id);
    if (rc)
        return rc;
    bool here = false;
    pthread_mutex_lock(&t->mutex);
    for (const struct perf__claim *c = t->claims; c && !here; c = c->next)
        here = !strcmp(c->task->id, id);
    for (struct perf__task_waiter *w = t->waiters; w; w = w->next)
        if (!strcmp(w->id, id)) {
            w->ended = true;
            pthread_cond_signal(&w->cond);
        }
    pthread_mutex_unlock(&t->mutex);
    if (here)
        perf__tasks_keep_wake(t, 0); /* its next beat is now */
    return PERF_OK;
}

int perf_tasks_redrive(perf_tasks *t, const char *id)
{
    return control_task(t, PERF_QUEUE_REDRIVE, id);
}

int perf_tasks_redrive_all(perf_tasks *t, const char *queue, uint64_t *count)
{
    return control_queue(t, PERF_QUEUE_REDRIVE_ALL, queue, count);
}

int perf_tasks_remove(perf_tasks *t, const char *id)
{
    return control_task(t, PERF_QUEUE_REMOVE, id);
}

int perf_tasks_pause(perf_tasks *t, const char *queue)
{
    return control_queue(t, PERF_QUEUE_PAUSE, queue, NULL);
}

int perf_tasks_resume(perf_tasks *t, const char *queue)
{
    return control_queue(t, PERF_QUEUE_RESUME, queue, NULL);
}
