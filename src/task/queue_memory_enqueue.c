/* SPDX-License-Identifier: MIT */
/*
 * queue_memory_enqueue.c - how tasks come into the queue in memory.
 *
 * Everything that can fail comes before the first change. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "queue_memory.h"

enum { ID_MAX = 71 };

/* Copies a string, and moves *at behind it. */
static const char *put_string(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *own = memcpy(*at, text, size);
    *at += size;
    return own;
}

static struct task *new_task(struct memory_queue *q, const perf_queue_task *t)
{
    size_t size = sizeof(struct task) + strlen(t->id) + strlen(t->kind) + strlen(t->user) +
                  strlen(t->batch) + strlen(t->kind) + strlen(t->unique_key) +
                  strlen(t->limit_key) + strlen(t->after) + 9;
    if (t->payload.len > SIZE_MAX / 2)
        return NULL;
    struct task *task = perf__calloc(&q->allocator, 1, size + t->payload.len);
    if (!task)
        return NULL;
    task->view = *t;
    perf_queue_task *v = &task->view;
    char *at = task->names;
    v->struct_size = sizeof *v;
    v->id = put_string(&at, t->id);
    v->user = put_string(&at, t->user);
    v->batch = put_string(&at, t->batch);
    v->limit_key = put_string(&at, t->limit_key);
    v->after = put_string(&at, t->after);
    /* Kind and unique key stand side by side, and are one key in the table. */
    v->kind = put_string(&at, t->kind);
    v->unique_key = put_string(&at, t->unique_key);
    if (t->payload.len)
        memcpy(at, t->payload.data, t->payload.len);
    v->payload = (perf_bytes){at, t->payload.len};
    v->result = (perf_bytes){"", 0};
    v->worker = v->text = v->error = v->history = "";
    v->state = v->attempts = v->lease_until_ms = v->started_ms = v->ended_ms = v->status = 0;
    v->token = v->done = v->total = 0;
    v->fraction = 0;
    if (v->limit < 1)
        v->limit = 1;
    return task;
}

static size_t unique_len(const struct task *task)
{
    return strlen(task->view.kind) + 1 + strlen(task->view.unique_key);
}

/* Calls for each id in after: 1 go on, else the answer. */
static bool next_id(const char **after, char id[ID_MAX + 1])
{
    const char *at = *after;
    while (*at == ',')
        at++;
    size_t len = strcspn(at, ",");
    *after = at + len;
    if (!len)
        return false;
    size_t used = len > ID_MAX ? 0 : len; /* an id that is too long is that of no task */
    memcpy(id, at, used);
    id[used] = 0;
    return true;
}

/* Finds those that a task waits for, and has room for its row in each. */
static int reserve_followers(struct memory_queue *q, const perf_queue_task *t, bool *failed)
{
    char id[ID_MAX + 1];
    for (const char *after = t->after; next_id(&after, id);) {
        struct task *on = perf__queue_memory_find_task(q, id);
        if (!on)
            return perf__fail(PERF_EINVAL,
                              "perf_submit_options.after names \"%s\", and there is no such task; "
                              "submit it first, or keep its record longer",
                              id);
        if (perf__task_ended(on->view.state)) {
            if (on->view.state != PERF_TASK_SUCCEEDED && !t->after_any_end)
                *failed = true;
            continue;
        }
        if (on->followers_count < on->followers_cap)
            continue;
        size_t cap = on->followers_cap ? 2 * on->followers_cap : 4;
        uint64_t *grown = perf__realloc(&q->allocator, on->followers, cap * sizeof *grown);
        if (!grown)
            return perf__fail_nomem("a task that waits for another");
        on->followers = grown;
        on->followers_cap = cap;
    }
    return PERF_OK;
}

static void follow(struct memory_queue *q, struct task *task)
{
    char id[ID_MAX + 1];
    for (const char *after = task->view.after; next_id(&after, id);) {
        struct task *on = perf__queue_memory_find_task(q, id);
        bool twice = on->followers_count && on->followers[on->followers_count - 1] == task->row;
        if (perf__task_ended(on->view.state) || twice)
            continue;
        on->followers[on->followers_count++] = task->row;
        task->pending++;
    }
}

static int enqueue_one(struct memory_queue *q, const perf_queue_task *t, int64_t now_ms,
                       char existing[72])
{
    TABLES(q);
    struct task *other = perf__queue_memory_find_task(q, t->id);
    if (other) {
        snprintf(existing, 72, "%s", other->view.id);
        return PERF_EEXISTS;
    }
    bool failed = false;
    int rc = reserve_followers(q, t, &failed);
    if (rc)
        return rc;
    struct task *task = new_task(q, t);
    struct line *line = task ? perf__queue_memory_need_line(q, t->queue) : NULL;
    struct lane *lane = line ? perf__queue_memory_need_lane(q, line, t->kind, t->version) : NULL;
    bool limited = t->limit_key[0] != 0;
    struct limit *limit = lane && limited ? perf__queue_memory_need_limit(q, t->limit_key) : NULL;
    if (!lane || (limited && !limit) || !perf__queue_memory_reserve_row(q))
        goto nomem;
    if (t->unique_key[0]) {
        HASH_FIND(hh_unique, q->by_unique, task->view.kind, unique_len(task), other);
        if (other &&
            (!perf__task_ended(other->view.state) || other->view.unique_until_ms > now_ms)) {
            snprintf(existing, 72, "%s", other->view.id);
            rc = PERF_EEXISTS;
            goto out;
        }
    }
    HASH_ADD_KEYPTR(hh, q->by_id, task->view.id, strlen(task->view.id), task);
    if (uthash_oom)
        goto nomem;
    if (t->unique_key[0]) {
        if (other)
            perf__queue_memory_drop_unique(q, other);
        HASH_ADD_KEYPTR(hh_unique, q->by_unique, task->view.kind, unique_len(task), task);
        if (uthash_oom) {
            HASH_DELETE(hh, q->by_id, task);
            goto nomem;
        }
        task->unique = true;
    }
    task->view.queue = line->name;
    task->lane = lane;
    task->limit = limit;
    task->row = ++q->next_row;
    q->rows[q->rows_count++] = (struct row){task->row, task};
    line->tasks++;
    lane->tasks++;
    if (limit)
        limit->tasks++;
    if (failed) {
        perf__queue_memory_set_error(q, task, PERF_ECANCELED,
                                     "a task that it waited for did not succeed");
        perf__queue_memory_set_end(q, task, PERF_TASK_CANCELLED, now_ms);
        return PERF_OK;
    }
    follow(q, task);
    perf__queue_memory_make_due(q, task, PERF_TASK_WAITING, now_ms);
    task->waited = task->view.state == PERF_TASK_WAITING;
    return PERF_OK;

nomem:
    rc = perf__fail_nomem("a task");
out:
    perf__queue_memory_tidy_limit(q, limit);
    if (lane)
        perf__queue_memory_tidy_lane(q, lane);
    if (line)
        perf__queue_memory_tidy_line(q, line);
    if (task)
        perf__queue_memory_free_task(q, task);
    return rc;
}

int perf__queue_memory_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                               void *transaction, int64_t now_ms, int *statuses,
                               char (*existing)[72])
{
    struct memory_queue *q = queue;
    int rc = PERF_OK;
    (void)transaction; /* refused by its capability */
    pthread_mutex_lock(&q->mutex);
    for (size_t i = 0; i < count; i++) {
        statuses[i] = enqueue_one(q, &tasks[i], now_ms, existing[i]);
        if (!rc && statuses[i] != PERF_EEXISTS)
            rc = statuses[i];
    }
    pthread_mutex_unlock(&q->mutex);
    return rc;
}
