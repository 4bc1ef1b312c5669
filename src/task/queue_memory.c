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
 *
 * queue_memory_table.c finds, queue_memory_state.c moves tasks between states,
 * queue_memory_enqueue.c has submissions, queue_memory_look.c looks and steers.
 */
#include "queue_memory.h"

#include <string.h>

#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"

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
    if (!perf__queue_memory_set_text(q, &task->worker, &task->view.worker, want->worker))
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
    perf__queue_memory_set_text(q, &task->text, &before.text, "");
    v->state = PERF_TASK_QUEUED;
    q->next_token++;
    task->last_attempt = true;
    perf__queue_memory_out_of_lane(task);
    perf__queue_memory_set_state(task, PERF_TASK_RUNNING);
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
            perf__queue_memory_leave_state(q, task);
            perf__queue_memory_set_error(q, task, PERF_ETIMEDOUT, "not begun before its deadline");
            perf__queue_memory_end_task(q, task, PERF_TASK_CANCELLED, want->now_ms);
            continue;
        }
        if (limit && limit->running >= (uint64_t)v->limit) {
            /* Tasks of one key need not agree about its limit. */
            perf__queue_memory_out_of_lane(task);
            perf__queue_memory_put_aside(task);
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
        struct line *line = perf__queue_memory_find_line(q, want->queues[i]);
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
    struct task *task = perf__queue_memory_find_task(q, id);
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
        perf__queue_memory_set_text(q, &task->text, &v->text, beat->text ? beat->text : "");
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
    void *result = NULL;
    if (end->result.len) {
        result = perf__alloc(&q->allocator, end->result.len);
        if (!result)
            return perf__fail_nomem("a task's result");
        memcpy(result, end->result.data, end->result.len);
    }
    const char *error = end->error ? end->error : "";
    if (!perf__queue_memory_set_text(q, &task->error, &task->view.error, error)) {
        perf__free(&q->allocator, result);
        return perf__fail_nomem("a task's error");
    }
    perf_queue_task *v = &task->view;
    v->status = end->status;
    perf__free(&q->allocator, task->result);
    task->result = result;
    v->result = (perf_bytes){result ? result : "", end->result.len};
    perf__queue_memory_leave_state(q, task);
    if (!ends && task->cancel) {
        ends = true;
        state = PERF_TASK_CANCELLED;
    }
    task->cancel = false;
    if (ends) {
        perf__queue_memory_end_task(q, task, state, end->now_ms);
        return PERF_OK;
    }
    if (state == PERF_TASK_WAITING)
        v->attempts--;
    bool later = end->due_ms > end->now_ms;
    perf__queue_memory_keep_line(q, task, end->now_ms, later ? state : PERF_TASK_QUEUED,
                                 end->status, error);
    perf__queue_memory_go_on(q, task, state, end->due_ms, end->now_ms);
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

/* --------------------------------------------------------------------- wait */

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
        perf__queue_memory_free_task(q, task);
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
    .enqueue = perf__queue_memory_enqueue,
    .claim = memory_claim,
    .extend = memory_extend,
    .finish = memory_finish,
    .get = perf__queue_memory_get,
    .find = perf__queue_memory_find,
    .count = perf__queue_memory_count,
    .control = perf__queue_memory_control,
    .sweep = perf__queue_memory_sweep,
    .wait = memory_wait,
};
