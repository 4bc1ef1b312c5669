/* SPDX-License-Identifier: MIT */
/*
 * queue_memory.c - tasks in the memory of one process: the fastest queue, and the model of all
 * others.
 *
 * One mutex over everything. A task stands in exactly one heap, by its state: due ones in
 * the lane of their queue, kind and version by rank, waiting ones by time, running ones by
 * lease, ended ones by when they are forgotten. Heaps lie in the tasks
 * (heap.h), so a change of state takes O(log n) and cannot fail; what can fail
 * (copies of strings and bytes) is done before the first change.
 *
 * Tasks with a limit key that is taken are put aside, in the heap of their
 * key, so that a claim never walks over them: of each key at most as many
 * stand in a lane as may run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "../base/uthash_host.h"
#include "heap.h"
#include "queue.h"
#include "queue_history.h"

enum {
    ID_MAX = 71,
    KEY_MAX = 1024,  /* of the composed keys of tables */
    LOOK_AT = 20000, /* tasks that one find looks at */
    WAIT_SLOTS = 64, /* threads whose last claims are told apart */
    STATES = PERF_TASK_DEAD + 1
};

/* A queue by name. Gone when it is neither paused nor has a task. */
struct line {
    UT_hash_handle hh;
    struct lane *lanes;
    uint64_t tasks;
    uint64_t by_state[STATES];
    bool paused;
    char name[];
};

/* The tasks of one queue, kind and version that can be claimed, by rank. */
struct lane {
    UT_hash_handle hh;
    struct lane *next; /* of the same queue */
    struct line *line;
    struct perf__heap ready;
    uint64_t tasks;  /* in any state */
    uint64_t wanted; /* the last claim that asked for it */
    int64_t version;
    size_t kind_len, key_len;
    char key[]; /* queue, kind, version */
};

/* A limit key. */
struct limit {
    UT_hash_handle hh;
    struct perf__heap aside;   /* QUEUED, but not in a lane, by rank */
    struct perf__heap in_lane; /* those in a lane, the last one first */
    uint64_t running, ready, tasks;
    char key[];
};

struct task {
    perf_queue_task view; /* its strings are in names, or own */
    UT_hash_handle hh;    /* by id */
    UT_hash_handle hh_unique;
    struct perf__heap_node node; /* in the heap of its state */
    struct perf__heap_node limited;
    uint64_t row; /* in the order of submission */
    struct lane *lane;
    struct limit *limit;
    struct task *next_end; /* while ends are being worked off */
    uint64_t *followers;   /* rows of tasks that wait for this one */
    size_t followers_count, followers_cap;
    size_t pending; /* tasks it waits for */
    char *worker, *text, *error, *kept;
    void *result;
    bool aside, cancel, unique, waited, last_attempt;
    char names[]; /* id, user, batch, unique key, limit key, after, payload */
};

/* All tasks by row, so that a page of find begins where the one before it ended. */
struct row {
    uint64_t row;
    struct task *task; /* NULL: removed */
};

struct memory_queue {
    perf_allocator allocator;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct task *by_id, *by_unique;
    struct line *lines;
    struct lane *lanes;
    struct limit *limits;
    struct perf__heap waiting, running, ended;
    struct row *rows;
    size_t rows_count, rows_cap, rows_gone;
    uint64_t next_row, next_token, claims;
    uint64_t news;  /* counts what may have become claimable */
    uint64_t wakes; /* and how often those who wait were woken */
    uint64_t seen[WAIT_SLOTS];
    struct perf__hash_key secret;
};

#define TASK_OF(heap_node)    ((struct task *)((char *)(heap_node)-offsetof(struct task, node)))
#define LIMITED_OF(heap_node) ((struct task *)((char *)(heap_node)-offsetof(struct task, limited)))
/* What uthash_host.h wants in scope where a table is changed. */
#define TABLES(q)                                             \
    const perf_allocator *uthash_allocator = &(q)->allocator; \
    struct perf__hash_key uthash_secret = (q)->secret;        \
    bool uthash_oom = false;                                  \
    (void)uthash_allocator;                                   \
    (void)uthash_secret;                                      \
    (void)uthash_oom

/* ------------------------------------------------------------------- lookups */

static struct task *find_task(struct memory_queue *q, const char *id)
{
    TABLES(q);
    struct task *task = NULL;
    HASH_FIND(hh, q->by_id, id, strlen(id), task);
    return task;
}

static struct line *find_line(struct memory_queue *q, const char *name)
{
    TABLES(q);
    struct line *line = NULL;
    HASH_FIND(hh, q->lines, name, strlen(name), line);
    return line;
}

static struct line *need_line(struct memory_queue *q, const char *name)
{
    TABLES(q);
    struct line *line = find_line(q, name);
    if (line)
        return line;
    size_t len = strlen(name);
    line = perf__calloc(&q->allocator, 1, sizeof *line + len + 1);
    if (!line)
        return NULL;
    memcpy(line->name, name, len);
    HASH_ADD_KEYPTR(hh, q->lines, line->name, len, line);
    if (!uthash_oom)
        return line;
    perf__free(&q->allocator, line);
    return NULL;
}

static void tidy_line(struct memory_queue *q, struct line *line)
{
    if (line->tasks || line->paused || line->lanes)
        return;
    TABLES(q);
    HASH_DEL(q->lines, line);
    perf__free(&q->allocator, line);
}

static void tidy_lane(struct memory_queue *q, struct lane *lane)
{
    if (lane->tasks)
        return;
    TABLES(q);
    struct lane **at = &lane->line->lanes;
    while (*at != lane)
        at = &(*at)->next;
    *at = lane->next;
    HASH_DEL(q->lanes, lane);
    perf__free(&q->allocator, lane);
}

static struct lane *need_lane(struct memory_queue *q, struct line *line, const char *kind,
                              int64_t version)
{
    TABLES(q);
    char key[KEY_MAX];
    int len = snprintf(key, sizeof key, "%s\n%s\n%" PRId64, line->name, kind, version);
    struct lane *lane = NULL;
    if (len < 0 || (size_t)len >= sizeof key)
        return NULL;
    HASH_FIND(hh, q->lanes, key, (size_t)len, lane);
    if (lane)
        return lane;
    lane = perf__calloc(&q->allocator, 1, sizeof *lane + (size_t)len + 1);
    if (!lane)
        return NULL;
    memcpy(lane->key, key, (size_t)len);
    lane->key_len = (size_t)len;
    lane->kind_len = strlen(kind);
    lane->version = version;
    lane->line = line;
    HASH_ADD_KEYPTR(hh, q->lanes, lane->key, lane->key_len, lane);
    if (uthash_oom) {
        perf__free(&q->allocator, lane);
        return NULL;
    }
    lane->next = line->lanes;
    line->lanes = lane;
    return lane;
}

static void tidy_limit(struct memory_queue *q, struct limit *limit)
{
    if (!limit || limit->tasks)
        return;
    TABLES(q);
    HASH_DEL(q->limits, limit);
    perf__free(&q->allocator, limit);
}

static struct limit *need_limit(struct memory_queue *q, const char *key)
{
    TABLES(q);
    struct limit *limit = NULL;
    size_t len = strlen(key);
    HASH_FIND(hh, q->limits, key, len, limit);
    if (limit)
        return limit;
    limit = perf__calloc(&q->allocator, 1, sizeof *limit + len + 1);
    if (!limit)
        return NULL;
    memcpy(limit->key, key, len);
    HASH_ADD_KEYPTR(hh, q->limits, limit->key, len, limit);
    if (!uthash_oom)
        return limit;
    perf__free(&q->allocator, limit);
    return NULL;
}

/* The first place in rows whose row is not less. */
static size_t row_at(const struct memory_queue *q, uint64_t row)
{
    size_t low = 0, high = q->rows_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (q->rows[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct task *find_row(const struct memory_queue *q, uint64_t row)
{
    size_t at = row_at(q, row);
    return at < q->rows_count && q->rows[at].row == row ? q->rows[at].task : NULL;
}

static bool reserve_row(struct memory_queue *q)
{
    if (q->rows_count < q->rows_cap)
        return true;
    size_t cap = q->rows_cap ? 2 * q->rows_cap : 64;
    struct row *rows = perf__realloc(&q->allocator, q->rows, cap * sizeof *rows);
    if (!rows)
        return false;
    q->rows = rows;
    q->rows_cap = cap;
    return true;
}

static void forget_row(struct memory_queue *q, uint64_t row)
{
    q->rows[row_at(q, row)].task = NULL;
    if (++q->rows_gone < 64 || q->rows_gone < q->rows_count / 2)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < q->rows_count; i++)
        if (q->rows[i].task)
            q->rows[kept++] = q->rows[i];
    q->rows_count = kept;
    q->rows_gone = 0;
}

/* ------------------------------------------------------------------ states */

static void set_state(struct task *task, int64_t state)
{
    uint64_t *by_state = task->lane->line->by_state;
    if (task->view.state)
        by_state[task->view.state]--;
    by_state[state]++;
    task->view.state = state;
}

static void news(struct memory_queue *q)
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
    news(q);
}

static void out_of_lane(struct task *task)
{
    perf__heap_remove(&task->lane->ready, &task->node);
    if (task->limit) {
        task->limit->ready--;
        perf__heap_remove(&task->limit->in_lane, &task->limited);
    }
}

static void put_aside(struct task *task)
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
static void make_ready(struct memory_queue *q, struct task *task)
{
    struct limit *limit = task->limit;
    set_state(task, PERF_TASK_QUEUED);
    if (limit && limit->running + limit->ready >= (uint64_t)task->view.limit) {
        struct task *last = limit->in_lane.least ? LIMITED_OF(limit->in_lane.least) : NULL;
        if (!last || last->view.rank <= task->view.rank) {
            put_aside(task);
            return;
        }
        out_of_lane(last);
        put_aside(last);
    }
    into_lane(q, task);
}

/* What is not due waits, what is goes into its lane. */
static void make_due(struct memory_queue *q, struct task *task, int64_t state, int64_t now_ms)
{
    if (task->pending) {
        set_state(task, PERF_TASK_WAITING);
    } else if (task->view.due_ms > now_ms) {
        set_state(task, state);
        perf__heap_add(&q->waiting, &task->node, task->view.due_ms, task->row);
    } else {
        make_ready(q, task);
    }
}

/* Out of the heap that its state has it in. */
static void leave_state(struct memory_queue *q, struct task *task)
{
    struct limit *limit = task->limit;
    switch (task->view.state) {
    case PERF_TASK_QUEUED:
        if (task->aside)
            perf__heap_remove(&limit->aside, &task->node);
        else
            out_of_lane(task);
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

static void set_end(struct memory_queue *q, struct task *task, int64_t state, int64_t now_ms)
{
    int64_t keep =
        task->view.keep_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + task->view.keep_ms;
    if (task->unique && task->view.unique_until_ms > keep)
        keep = task->view.unique_until_ms;
    set_state(task, state);
    task->view.ended_ms = now_ms;
    task->view.fraction = state == PERF_TASK_SUCCEEDED ? 1 : task->view.fraction;
    task->pending = 0;
    perf__heap_add(&q->ended, &task->node, keep, task->row);
}

static bool set_text(struct memory_queue *q, char **own, const char **view, const char *text)
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
static void set_error(struct memory_queue *q, struct task *task, int64_t status, const char *text)
{
    task->view.status = status;
    if (!set_text(q, &task->error, &task->view.error, text))
        set_text(q, &task->error, &task->view.error, "");
}

/* The task has left its state. Ends it, and all that hangs on it. */
static void end_task(struct memory_queue *q, struct task *task, int64_t state, int64_t now_ms)
{
    set_end(q, task, state, now_ms);
    task->next_end = NULL;
    for (struct task *at = task, *last = task; at; at = at->next_end) {
        for (size_t i = 0; i < at->followers_count; i++) {
            struct task *follower = find_row(q, at->followers[i]);
            if (!follower || !follower->pending || perf__task_ended(follower->view.state))
                continue;
            if (at->view.state == PERF_TASK_SUCCEEDED || follower->view.after_any_end) {
                if (!--follower->pending)
                    make_due(q, follower, PERF_TASK_WAITING, now_ms);
                continue;
            }
            set_error(q, follower, PERF_ECANCELED, "a task that it waited for did not succeed");
            set_end(q, follower, PERF_TASK_CANCELLED, now_ms);
            follower->next_end = NULL;
            last->next_end = follower;
            last = follower;
        }
        at->followers_count = 0;
    }
}

static void keep_line(struct memory_queue *q, struct task *task, int64_t now_ms, int64_t state,
                      int64_t status, const char *sentence)
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
static void go_on(struct memory_queue *q, struct task *task, int64_t state, int64_t due_ms,
                  int64_t now_ms)
{
    if (due_ms > 0) {
        task->view.due_ms = due_ms;
        task->view.rank = perf__task_rank(due_ms, task->view.priority);
    }
    make_due(q, task, state, due_ms > 0 ? now_ms : INT64_MAX);
}

static void free_task(struct memory_queue *q, struct task *task)
{
    perf__free(&q->allocator, task->followers);
    perf__free(&q->allocator, task->worker);
    perf__free(&q->allocator, task->text);
    perf__free(&q->allocator, task->error);
    perf__free(&q->allocator, task->kept);
    perf__free(&q->allocator, task->result);
    perf__free(&q->allocator, task);
}

static void drop_unique(struct memory_queue *q, struct task *task)
{
    if (!task->unique)
        return;
    TABLES(q);
    HASH_DELETE(hh_unique, q->by_unique, task);
    task->unique = false;
}

/* Forgets a task that has ended. */
static void remove_task(struct memory_queue *q, struct task *task)
{
    TABLES(q);
    perf__heap_remove(&q->ended, &task->node);
    task->lane->line->by_state[task->view.state]--;
    drop_unique(q, task);
    HASH_DELETE(hh, q->by_id, task);
    forget_row(q, task->row);
    struct line *line = task->lane->line;
    task->lane->tasks--;
    line->tasks--;
    tidy_lane(q, task->lane);
    tidy_line(q, line);
    if (task->limit)
        task->limit->tasks--;
    tidy_limit(q, task->limit);
    free_task(q, task);
}

/* ------------------------------------------------------------------ enqueue */

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
        struct task *on = find_task(q, id);
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
        struct task *on = find_task(q, id);
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
    struct task *other = find_task(q, t->id);
    if (other) {
        snprintf(existing, 72, "%s", other->view.id);
        return PERF_EEXISTS;
    }
    bool failed = false;
    int rc = reserve_followers(q, t, &failed);
    if (rc)
        return rc;
    struct task *task = new_task(q, t);
    struct line *line = task ? need_line(q, t->queue) : NULL;
    struct lane *lane = line ? need_lane(q, line, t->kind, t->version) : NULL;
    bool limited = t->limit_key[0] != 0;
    struct limit *limit = lane && limited ? need_limit(q, t->limit_key) : NULL;
    if (!lane || (limited && !limit) || !reserve_row(q))
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
            drop_unique(q, other);
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
        set_error(q, task, PERF_ECANCELED, "a task that it waited for did not succeed");
        set_end(q, task, PERF_TASK_CANCELLED, now_ms);
        return PERF_OK;
    }
    follow(q, task);
    make_due(q, task, PERF_TASK_WAITING, now_ms);
    task->waited = task->view.state == PERF_TASK_WAITING;
    return PERF_OK;

nomem:
    rc = perf__fail_nomem("a task");
out:
    tidy_limit(q, limit);
    if (lane)
        tidy_lane(q, lane);
    if (line)
        tidy_line(q, line);
    if (task)
        free_task(q, task);
    return rc;
}

static int memory_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                          void *transaction, int64_t now_ms, int *statuses, char (*existing)[72])
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

/* -------------------------------------------------------------------- claim */

/* Marks the lanes of a queue that a claim can take from. */
static void mark_wanted(struct memory_queue *q, struct line *line, const perf_queue_claim *want)
{
    q->claims++;
    for (struct lane *lane = line->lanes; lane; lane = lane->next) {
        const char *kind = lane->key + strlen(line->name) + 1;
        for (size_t i = 0; i < want->kinds_count; i++) {
            const perf_queue_kind *k = &want->kinds[i];
            if (lane->version >= k->version_min && lane->version <= k->version_max &&
                strlen(k->kind) == lane->kind_len && !memcmp(k->kind, kind, lane->kind_len))
                lane->wanted = q->claims;
        }
    }
}

static struct task *first_wanted(const struct memory_queue *q, const struct line *line)
{
    struct perf__heap_node *first = NULL;
    for (struct lane *lane = line->lanes; lane; lane = lane->next) {
        struct perf__heap_node *node = lane->wanted == q->claims ? lane->ready.least : NULL;
        if (node && (!first || node->key < first->key ||
                     (node->key == first->key && node->number < first->number)))
            first = node;
    }
    return first ? TASK_OF(first) : NULL;
}

/* Makes it RUNNING, with a copy in the reply; nothing has changed when it fails. */
static int give(struct memory_queue *q, struct task *task, const perf_queue_claim *want,
                perf_queue_reply *reply)
{
    if (!set_text(q, &task->worker, &task->view.worker, want->worker))
        return perf__fail_nomem("a task that is claimed");
    perf_queue_task before = task->view;
    perf_queue_task *v = &task->view;
    v->state = PERF_TASK_RUNNING;
    v->attempts++;
    v->token = q->next_token + 1;
    v->lease_until_ms = want->now_ms + want->lease_ms;
    v->started_ms = want->now_ms;
    v->fraction = 0;
    v->done = v->total = 0;
    v->text = "";
    int rc = perf_queue_reply_add(reply, v);
    if (rc) {
        *v = before;
        return rc;
    }
    set_text(q, &task->text, &before.text, "");
    v->state = PERF_TASK_QUEUED;
    q->next_token++;
    task->last_attempt = true;
    out_of_lane(task);
    set_state(task, PERF_TASK_RUNNING);
    if (task->limit)
        task->limit->running++;
    perf__heap_add(&q->running, &task->node, v->lease_until_ms, task->row);
    return PERF_OK;
}

static int claim_from(struct memory_queue *q, struct line *line, const perf_queue_claim *want,
                      perf_queue_reply *reply, size_t *given)
{
    mark_wanted(q, line, want);
    struct task *task;
    while (*given < want->max && (task = first_wanted(q, line))) {
        const perf_queue_task *v = &task->view;
        struct limit *limit = task->limit;
        if (v->deadline_ms && want->now_ms >= v->deadline_ms && !v->started_ms) {
            leave_state(q, task);
            set_error(q, task, PERF_ETIMEDOUT, "not begun before its deadline");
            end_task(q, task, PERF_TASK_CANCELLED, want->now_ms);
            continue;
        }
        if (limit && limit->running >= (uint64_t)v->limit) {
            /* Tasks of one key need not agree about its limit. */
            out_of_lane(task);
            put_aside(task);
            continue;
        }
        int rc = give(q, task, want, reply);
        if (rc)
            return rc;
        (*given)++;
    }
    return PERF_OK;
}

static int memory_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply)
{
    struct memory_queue *q = queue;
    size_t given = 0;
    int rc = PERF_OK;
    pthread_mutex_lock(&q->mutex);
    q->seen[perf__thread_slot() % WAIT_SLOTS] = q->news;
    for (size_t i = 0; i < want->queues_count && !given && !rc; i++) {
        struct line *line = find_line(q, want->queues[i]);
        if (line && !line->paused)
            rc = claim_from(q, line, want, reply, &given);
    }
    pthread_mutex_unlock(&q->mutex);
    if (given)
        return PERF_OK;
    return rc ? rc : PERF_MISS;
}

/* ------------------------------------------------------------ extend, finish */

static struct task *find_running(struct memory_queue *q, const char *id, uint64_t token)
{
    struct task *task = find_task(q, id);
    bool its = task && task->view.state == PERF_TASK_RUNNING && task->view.token == token;
    return its ? task : NULL;
}

static int memory_extend(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms)
{
    struct memory_queue *q = queue;
    (void)now_ms;
    pthread_mutex_lock(&q->mutex);
    for (size_t i = 0; i < count; i++) {
        perf_queue_beat *beat = &beats[i];
        struct task *task = find_running(q, beat->id, beat->token);
        beat->status = !task ? PERF_ECONFLICT : task->cancel ? PERF_ECANCELED : PERF_OK;
        if (!task)
            continue;
        perf_queue_task *v = &task->view;
        v->lease_until_ms = beat->lease_until_ms;
        v->fraction = beat->fraction;
        v->done = beat->done;
        v->total = beat->total;
        /* Without memory the text stays as it was. */
        set_text(q, &task->text, &v->text, beat->text ? beat->text : "");
        perf__heap_remove(&q->running, &task->node);
        perf__heap_add(&q->running, &task->node, v->lease_until_ms, task->row);
    }
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

static int finish_one(struct memory_queue *q, const perf_queue_end *end)
{
    struct task *task = find_running(q, end->id, end->token);
    if (!task)
        return PERF_ECONFLICT;
    int64_t state = end->state;
    bool ends = perf__task_ended(state);
    if (!ends && state != PERF_TASK_RETRYING && state != PERF_TASK_WAITING)
        return perf__fail(PERF_EINVAL,
                          "perf_queue_end.state is %lld; give an end, RETRYING or "
                          "WAITING",
                          (long long)state);
    void *result = NULL;
    if (end->result.len) {
        result = perf__alloc(&q->allocator, end->result.len);
        if (!result)
            return perf__fail_nomem("a task's result");
        memcpy(result, end->result.data, end->result.len);
    }
    const char *error = end->error ? end->error : "";
    if (!set_text(q, &task->error, &task->view.error, error)) {
        perf__free(&q->allocator, result);
        return perf__fail_nomem("a task's error");
    }
    perf_queue_task *v = &task->view;
    v->status = end->status;
    perf__free(&q->allocator, task->result);
    task->result = result;
    v->result = (perf_bytes){result ? result : "", end->result.len};
    leave_state(q, task);
    if (!ends && task->cancel) {
        ends = true;
        state = PERF_TASK_CANCELLED;
    }
    task->cancel = false;
    if (ends) {
        end_task(q, task, state, end->now_ms);
        return PERF_OK;
    }
    if (state == PERF_TASK_WAITING)
        v->attempts--;
    bool later = end->due_ms > end->now_ms;
    keep_line(q, task, end->now_ms, later ? state : PERF_TASK_QUEUED, end->status, error);
    go_on(q, task, state, end->due_ms, end->now_ms);
    return PERF_OK;
}

static int memory_finish(void *queue, perf_queue_end *ends, size_t count)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    for (size_t i = 0; i < count; i++)
        ends[i].outcome = finish_one(q, &ends[i]);
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

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

static int memory_get(void *queue, const char *id, perf_queue_reply *reply)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    const struct task *task = find_task(q, id);
    int rc = task ? add_to_reply(task, true, reply) : PERF_MISS;
    pthread_mutex_unlock(&q->mutex);
    return rc;
}

static bool is(const char *wanted, const char *value)
{
    return !wanted || !strcmp(wanted, value);
}

static int memory_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply)
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
    size_t at = row_at(q, before);
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

static int memory_count(void *queue, const char *name, int64_t now_ms, perf_queue_counts *counts)
{
    struct memory_queue *q = queue;
    (void)now_ms;
    pthread_mutex_lock(&q->mutex);
    const struct line *line = find_line(q, name);
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
    struct task *task = find_task(q, id);
    if (!task || perf__task_ended(task->view.state))
        return PERF_MISS;
    if (task->view.state == PERF_TASK_RUNNING) {
        task->cancel = true;
        return PERF_OK;
    }
    leave_state(q, task);
    set_error(q, task, PERF_ECANCELED, "cancelled before it began");
    end_task(q, task, PERF_TASK_CANCELLED, now_ms);
    return PERF_OK;
}

static int redrive(struct memory_queue *q, struct task *task, int64_t now_ms)
{
    if (!task || !perf__task_ended(task->view.state) || task->view.state == PERF_TASK_SUCCEEDED)
        return PERF_MISS;
    keep_line(q, task, task->view.ended_ms, task->view.state, task->view.status, task->view.error);
    keep_line(q, task, now_ms, PERF_TASK_QUEUED, PERF_OK, "");
    leave_state(q, task);
    perf__free(&q->allocator, task->result);
    task->result = NULL;
    task->view.result = (perf_bytes){"", 0};
    task->view.attempts = 0;
    task->view.ended_ms = 0;
    task->view.deadline_ms = 0; /* who asks for it now knows how late it is */
    go_on(q, task, PERF_TASK_WAITING, now_ms > 0 ? now_ms : 1, now_ms);
    return PERF_OK;
}

static uint64_t redrive_all(struct memory_queue *q, const char *name, int64_t now_ms)
{
    const struct line *line = find_line(q, name);
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
    struct line *line = paused ? need_line(q, name) : find_line(q, name);
    if (!line && paused)
        return perf__fail_nomem("a queue that is paused");
    *n = line && line->paused != paused;
    if (line) {
        line->paused = paused;
        tidy_line(q, line);
        news(q);
    }
    return PERF_OK;
}

static int memory_control(void *queue, int verb, const char *name, int64_t now_ms, uint64_t *n)
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
        rc = redrive(q, find_task(q, name), now_ms);
        break;
    case PERF_QUEUE_REDRIVE_ALL:
        *n = redrive_all(q, name, now_ms);
        rc = PERF_OK;
        break;
    case PERF_QUEUE_REMOVE:
        task = find_task(q, name);
        rc = !task ? PERF_MISS : perf__task_ended(task->view.state) ? PERF_OK : PERF_EBUSY;
        if (rc == PERF_OK)
            remove_task(q, task);
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
    leave_state(q, task);
    set_error(q, task, PERF_ETIMEDOUT, sentence);
    if (task->cancel || dead) {
        int64_t state = task->cancel ? PERF_TASK_CANCELLED : PERF_TASK_DEAD;
        task->cancel = false;
        end_task(q, task, state, now_ms);
        return state == PERF_TASK_DEAD;
    }
    keep_line(q, task, now_ms, PERF_TASK_QUEUED, PERF_ETIMEDOUT, sentence);
    go_on(q, task, PERF_TASK_WAITING, 0, now_ms);
    return false;
}

static int memory_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    for (size_t i = 0; i < budget && q->waiting.least && q->waiting.least->key <= now_ms; i++) {
        struct task *task = TASK_OF(q->waiting.least);
        perf__heap_remove(&q->waiting, &task->node);
        make_ready(q, task);
    }
    for (size_t i = 0; i < budget && q->running.least && q->running.least->key <= now_ms; i++) {
        swept->dead += rescue(q, TASK_OF(q->running.least), now_ms);
        swept->rescued++;
    }
    for (size_t i = 0; i < budget && q->ended.least && q->ended.least->key <= now_ms; i++) {
        remove_task(q, TASK_OF(q->ended.least));
        swept->removed++;
    }
    swept->next_ms = q->waiting.least ? q->waiting.least->key : 0;
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

static int memory_wait(void *queue, int64_t timeout_ms)
{
    struct memory_queue *q = queue;
    pthread_mutex_lock(&q->mutex);
    if (timeout_ms < 0) {
        q->wakes++;
        pthread_cond_broadcast(&q->changed);
    } else if (timeout_ms > 0) {
        int64_t deadline = perf__deadline_after(timeout_ms);
        uint64_t seen = q->seen[perf__thread_slot() % WAIT_SLOTS], wakes = q->wakes;
        while (q->news == seen && q->wakes == wakes)
            if (!perf__cond_wait(&q->changed, &q->mutex, deadline))
                break;
    }
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

/* -------------------------------------------------------------- open, close */

static int memory_open(const perf_queue_config *config, void **out)
{
    const perf_allocator *allocator = config->host->allocator;
    struct memory_queue *q = perf__calloc(allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a queue in memory");
    q->allocator = *allocator;
    q->secret = perf__hash_random_key();
    if (pthread_mutex_init(&q->mutex, NULL))
        goto no_mutex;
    if (perf__cond_init(&q->changed))
        goto no_cond;
    *out = q;
    return PERF_OK;

no_cond:
    pthread_mutex_destroy(&q->mutex);
no_mutex:
    perf__free(allocator, q);
    return perf__fail_nomem("the lock of a queue in memory");
}

static void memory_close(void *queue)
{
    struct memory_queue *q = queue;
    TABLES(q);
    struct task *task, *next_task;
    HASH_CLEAR(hh_unique, q->by_unique);
    HASH_ITER (hh, q->by_id, task, next_task) {
        HASH_DELETE(hh, q->by_id, task);
        free_task(q, task);
    }
    struct lane *lane, *next_lane;
    HASH_ITER (hh, q->lanes, lane, next_lane) {
        HASH_DEL(q->lanes, lane);
        perf__free(&q->allocator, lane);
    }
    struct line *line, *next_line;
    HASH_ITER (hh, q->lines, line, next_line) {
        HASH_DEL(q->lines, line);
        perf__free(&q->allocator, line);
    }
    struct limit *limit, *next_limit;
    HASH_ITER (hh, q->limits, limit, next_limit) {
        HASH_DEL(q->limits, limit);
        perf__free(&q->allocator, limit);
    }
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    perf_allocator allocator = q->allocator;
    perf__free(&allocator, q->rows);
    perf__free(&allocator, q);
}

const perf_queue_vtable perf__queue_memory = {
    .struct_size = sizeof(perf_queue_vtable),
    .name = "memory",
    .capabilities = PERF_QUEUE_PRIORITY | PERF_QUEUE_UNIQUE | PERF_QUEUE_LIMIT | PERF_QUEUE_AFTER,
    .open = memory_open,
    .close = memory_close,
    .enqueue = memory_enqueue,
    .claim = memory_claim,
    .extend = memory_extend,
    .finish = memory_finish,
    .get = memory_get,
    .find = memory_find,
    .count = memory_count,
    .control = memory_control,
    .sweep = memory_sweep,
    .wait = memory_wait,
};
