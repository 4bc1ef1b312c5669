/* SPDX-License-Identifier: MIT */
/*
 * queue_memory_table.c - what the queue in memory finds its tasks by.
 *
 * Tables of tasks, queues, lanes and limit keys by name, and of tasks by row. What
 * nothing is left of goes at once. The mutex is held.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "queue_memory.h"

enum { KEY_MAX = 1024 }; /* of the composed keys of tables */

struct task *perf__queue_memory_find_task(struct memory_queue *q, const char *id)
{
    TABLES(q);
    struct task *task = NULL;
    HASH_FIND(hh, q->by_id, id, strlen(id), task);
    return task;
}

struct line *perf__queue_memory_find_line(struct memory_queue *q, const char *name)
{
    TABLES(q);
    struct line *line = NULL;
    HASH_FIND(hh, q->lines, name, strlen(name), line);
    return line;
}

struct line *perf__queue_memory_need_line(struct memory_queue *q, const char *name)
{
    TABLES(q);
    struct line *line = perf__queue_memory_find_line(q, name);
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

void perf__queue_memory_tidy_line(struct memory_queue *q, struct line *line)
{
    if (line->tasks || line->paused || line->lanes)
        return;
    TABLES(q);
    HASH_DEL(q->lines, line);
    perf__free(&q->allocator, line);
}

void perf__queue_memory_tidy_lane(struct memory_queue *q, struct lane *lane)
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

struct lane *perf__queue_memory_need_lane(struct memory_queue *q, struct line *line,
                                          const char *kind, int64_t version)
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

void perf__queue_memory_tidy_limit(struct memory_queue *q, struct limit *limit)
{
    if (!limit || limit->tasks)
        return;
    TABLES(q);
    HASH_DEL(q->limits, limit);
    perf__free(&q->allocator, limit);
}

struct limit *perf__queue_memory_need_limit(struct memory_queue *q, const char *key)
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
size_t perf__queue_memory_row_at(const struct memory_queue *q, uint64_t row)
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

struct task *perf__queue_memory_find_row(const struct memory_queue *q, uint64_t row)
{
    size_t at = perf__queue_memory_row_at(q, row);
    return at < q->rows_count && q->rows[at].row == row ? q->rows[at].task : NULL;
}

bool perf__queue_memory_reserve_row(struct memory_queue *q)
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
    q->rows[perf__queue_memory_row_at(q, row)].task = NULL;
    if (++q->rows_gone < 64 || q->rows_gone < q->rows_count / 2)
        return;
    size_t kept = 0;
    for (size_t i = 0; i < q->rows_count; i++)
        if (q->rows[i].task)
            q->rows[kept++] = q->rows[i];
    q->rows_count = kept;
    q->rows_gone = 0;
}

/* -------------------------------------------------------------------- going */

void perf__queue_memory_free_task(struct memory_queue *q, struct task *task)
{
    perf__free(&q->allocator, task->followers);
    perf__free(&q->allocator, task->worker);
    perf__free(&q->allocator, task->text);
    perf__free(&q->allocator, task->error);
    perf__free(&q->allocator, task->kept);
    perf__free(&q->allocator, task->result);
    perf__free(&q->allocator, task);
}

void perf__queue_memory_drop_unique(struct memory_queue *q, struct task *task)
{
    if (!task->unique)
        return;
    TABLES(q);
    HASH_DELETE(hh_unique, q->by_unique, task);
    task->unique = false;
}

/* Forgets a task that has ended. */
void perf__queue_memory_remove_task(struct memory_queue *q, struct task *task)
{
    TABLES(q);
    perf__heap_remove(&q->ended, &task->node);
    task->lane->line->by_state[task->view.state]--;
    perf__queue_memory_drop_unique(q, task);
    HASH_DELETE(hh, q->by_id, task);
    forget_row(q, task->row);
    struct line *line = task->lane->line;
    task->lane->tasks--;
    line->tasks--;
    perf__queue_memory_tidy_lane(q, task->lane);
    perf__queue_memory_tidy_line(q, line);
    if (task->limit)
        task->limit->tasks--;
    perf__queue_memory_tidy_limit(q, task->limit);
    perf__queue_memory_free_task(q, task);
}
