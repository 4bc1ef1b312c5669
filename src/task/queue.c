/* SPDX-License-Identifier: MIT */
/*
 * queue.c - calls a queue through its vtable, with a default for every slot.
 *
 * The vtable is copied when the queue is opened, as large as this library knows
 * it: an older, smaller one simply lacks the newer entries. What a queue of the
 * host's returns is checked, since it is foreign code; what it fails with gets a
 * sentence, since it cannot set one itself. With PERF_QUEUE_SERIAL a mutex is
 * held around every call but wait. Any thread.
 */
#include "queue.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"

enum {
    CAPABILITIES = PERF_QUEUE_SERIAL | PERF_QUEUE_DURABLE | PERF_QUEUE_SHARED |
                   PERF_QUEUE_PRIORITY | PERF_QUEUE_UNIQUE | PERF_QUEUE_LIMIT | PERF_QUEUE_AFTER |
                   PERF_QUEUE_TRANSACTION,
    NAME_MAX_LEN = 63
};

struct perf__task_queue {
    perf_allocator allocator;
    perf_queue_vtable vtable;
    void *queue;
    pthread_mutex_t serial;
    bool built_in;
    char name[NAME_MAX_LEN + 1];
};

/* ------------------------------------------------------------------- replies */

/* Every string of a task, so that copying one cannot forget any. */
static const size_t strings[] = {
    offsetof(perf_queue_task, id),        offsetof(perf_queue_task, queue),
    offsetof(perf_queue_task, kind),      offsetof(perf_queue_task, user),
    offsetof(perf_queue_task, batch),     offsetof(perf_queue_task, unique_key),
    offsetof(perf_queue_task, limit_key), offsetof(perf_queue_task, after),
    offsetof(perf_queue_task, worker),    offsetof(perf_queue_task, text),
    offsetof(perf_queue_task, error),     offsetof(perf_queue_task, history),
};

enum { STRINGS = sizeof strings / sizeof *strings };

static const char **string_of(perf_queue_task *task, size_t i)
{
    return (const char **)((char *)task + strings[i]);
}

static perf_bytes put_bytes(char **at, perf_bytes bytes)
{
    if (!bytes.len)
        return (perf_bytes){"", 0};
    perf_bytes own = {memcpy(*at, bytes.data, bytes.len), bytes.len};
    *at += bytes.len;
    return own;
}

int perf_queue_reply_add(perf_queue_reply *reply, const perf_queue_task *task)
{
    if (!reply)
        return perf__fail(PERF_EINVAL, "perf_queue_reply_add was given no reply");
    perf_queue_task taken;
    int rc = perf__options_take("perf_queue_task", task, &taken, sizeof taken);
    if (rc)
        return rc;
    if ((!taken.payload.data && taken.payload.len) || (!taken.result.data && taken.result.len))
        return perf__fail(PERF_EINVAL, "perf_queue_task.%s has a length and no data",
                          taken.payload.data ? "result" : "payload");
    size_t lens[STRINGS], size = sizeof taken;
    for (size_t i = 0; i < STRINGS; i++) {
        const char *text = *string_of(&taken, i);
        lens[i] = text ? strlen(text) : 0;
        size += lens[i] + 1;
    }
    if (taken.payload.len > SIZE_MAX / 4 || taken.result.len > SIZE_MAX / 4)
        return perf__fail_nomem("a task read from a queue");
    size += taken.payload.len + taken.result.len;
    if (reply->count == reply->cap) {
        size_t cap = reply->cap ? 2 * reply->cap : 16;
        perf_queue_task **grown =
            perf__realloc(reply->allocator, reply->tasks, cap * sizeof *grown);
        if (!grown)
            return perf__fail_nomem("tasks read from a queue");
        reply->tasks = grown;
        reply->cap = cap;
    }
    perf_queue_task *own = perf__alloc(reply->allocator, size);
    if (!own)
        return perf__fail_nomem("a task read from a queue");
    *own = taken;
    char *at = (char *)(own + 1);
    for (size_t i = 0; i < STRINGS; i++) {
        const char **text = string_of(own, i);
        memcpy(at, *text ? *text : "", lens[i] + 1);
        *text = at;
        at += lens[i] + 1;
    }
    own->payload = put_bytes(&at, taken.payload);
    own->result = put_bytes(&at, taken.result);
    reply->tasks[reply->count++] = own;
    return PERF_OK;
}

int perf_queue_reply_cursor(perf_queue_reply *reply, const char *cursor)
{
    if (!reply || !cursor)
        return perf__fail(PERF_EINVAL, "perf_queue_reply_cursor was given no %s",
                          reply ? "cursor" : "reply");
    char *own = perf__strndup(reply->allocator, cursor, strlen(cursor));
    if (!own)
        return perf__fail_nomem("a cursor");
    perf__free(reply->allocator, reply->cursor);
    reply->cursor = own;
    return PERF_OK;
}

perf_queue_task *perf__queue_reply_take(perf_queue_reply *reply, size_t i)
{
    perf_queue_task *task = reply->tasks[i];
    reply->tasks[i] = NULL;
    return task;
}

void perf__queue_reply_free(perf_queue_reply *reply)
{
    for (size_t i = 0; i < reply->count; i++)
        perf__free(reply->allocator, reply->tasks[i]);
    perf__free(reply->allocator, reply->tasks);
    perf__free(reply->allocator, reply->cursor);
    *reply = (perf_queue_reply){.allocator = reply->allocator};
}

/* -------------------------------------------------------------------- texts */

bool perf__task_is_utf8(const void *text, size_t len)
{
    const unsigned char *s = text;
    for (size_t i = 0; i < len;) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (more == 4 || len - i <= more)
            return false;
        unsigned char second = more ? s[i + 1] : 0x80;
        if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) ||
            (c == 0xf0 && second < 0x90) || (c == 0xf4 && second > 0x8f))
            return false;
        for (size_t j = 1; j <= more; j++)
            if ((s[i + j] & 0xc0) != 0x80)
                return false;
        i += more + 1;
    }
    return true;
}

/* -------------------------------------------------------------- open, close */

static int check_vtable(const perf_queue_vtable *v)
{
    const char *missing = !v->name      ? "name"
                          : !v->open    ? "open"
                          : !v->close   ? "close"
                          : !v->enqueue ? "enqueue"
                          : !v->claim   ? "claim"
                          : !v->extend  ? "extend"
                          : !v->finish  ? "finish"
                          : !v->get     ? "get"
                          : !v->count   ? "count"
                          : !v->control ? "control"
                          : !v->sweep   ? "sweep"
                                        : NULL;
    if (missing)
        return perf__fail(PERF_EINVAL,
                          "perf_queue_vtable.%s is missing; only find, wait and flush may be NULL",
                          missing);
    int rc = perf__check_len("perf_queue_vtable.name", strnlen(v->name, NAME_MAX_LEN + 1), 1,
                             NAME_MAX_LEN);
    if (!rc && v->capabilities & ~(uint64_t)CAPABILITIES)
        rc = perf__fail(PERF_EINVAL,
                        "perf_queue_vtable.capabilities is 0x%llx; this libperf knows 0x%x",
                        (unsigned long long)v->capabilities, (unsigned)CAPABILITIES);
    return rc;
}

static void lock(struct perf__task_queue *q)
{
    if (q->vtable.capabilities & PERF_QUEUE_SERIAL)
        pthread_mutex_lock(&q->serial);
}

static void unlock(struct perf__task_queue *q)
{
    if (q->vtable.capabilities & PERF_QUEUE_SERIAL)
        pthread_mutex_unlock(&q->serial);
}

/* What a call returned, with a sentence for failures of the host's own backends. */
static int check(const struct perf__task_queue *q, const char *call, int rc, bool may_miss)
{
    if (rc == PERF_OK || (rc == PERF_MISS && may_miss))
        return rc;
    if (rc > 0)
        return perf__fail(PERF_EIO,
                          "queue \"%s\": %s returned %d, which is not a status it may return",
                          q->name, call, rc);
    if (!q->built_in)
        perf__fail(rc, "queue \"%s\": %s failed: %s", q->name, call, perf_strerror(rc));
    return rc;
}

int perf__task_queue_open(const perf_tasks_options *options, const struct perf__host *host,
                          struct perf__task_queue **out)
{
    const char *backend = options->backend ? options->backend : "sqlite";
    const perf_queue_vtable *given =
        options->vtable ? options->vtable : perf__queue_builtin(backend);
    if (!given)
        return perf__queue_fail_unknown(backend);
    perf_queue_vtable vtable;
    int rc = perf__options_take("perf_queue_vtable", given, &vtable, sizeof vtable);
    if (rc || (rc = check_vtable(&vtable)))
        return rc;
    struct perf__task_queue *q = perf__calloc(&host->allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a queue");
    q->allocator = host->allocator;
    q->vtable = vtable;
    q->built_in = !options->vtable;
    memcpy(q->name, vtable.name, strlen(vtable.name));
    if (pthread_mutex_init(&q->serial, NULL)) {
        rc = perf__fail_nomem("a queue's lock");
        goto no_mutex;
    }
    perf_queue_config config = {
        .struct_size = sizeof config,
        .location = options->location,
        .sync = options->sync,
        .user_ctx = options->queue_ctx,
        .host = &host->view,
    };
    rc = check(q, "open", vtable.open(&config, &q->queue), false);
    if (!rc && !q->queue)
        rc = perf__fail(PERF_EINVAL,
                        "queue \"%s\": open returned PERF_OK but left the queue pointer NULL; "
                        "give it any other address",
                        q->name);
    if (rc)
        goto not_open;
    *out = q;
    return PERF_OK;

not_open:
    pthread_mutex_destroy(&q->serial);
no_mutex:
    perf__free(&host->allocator, q);
    return rc;
}

void perf__task_queue_close(struct perf__task_queue *q)
{
    if (!q)
        return;
    lock(q);
    q->vtable.close(q->queue);
    unlock(q);
    pthread_mutex_destroy(&q->serial);
    perf__task_queue_abandon(q);
}

void perf__task_queue_abandon(struct perf__task_queue *q)
{
    if (!q)
        return;
    perf_allocator allocator = q->allocator;
    perf__free(&allocator, q);
}

const char *perf__task_queue_name(const struct perf__task_queue *q)
{
    return q->name;
}

uint64_t perf__task_queue_capabilities(const struct perf__task_queue *q)
{
    return q->vtable.capabilities;
}

bool perf__task_queue_waits(const struct perf__task_queue *q)
{
    return q->vtable.wait != NULL;
}

/* ------------------------------------------------------------- work of tasks */

/* What a task asks for that the backend cannot do; NULL: nothing. */
static const char *beyond(uint64_t can, const perf_queue_task *task, const void *transaction)
{
    const char *what = NULL;
    if (task->priority && !(can & PERF_QUEUE_PRIORITY))
        what = "priority";
    else if (task->unique_key[0] && !(can & PERF_QUEUE_UNIQUE))
        what = "unique_key";
    else if (task->limit_key[0] && !(can & PERF_QUEUE_LIMIT))
        what = "limit_key";
    else if (task->after[0] && !(can & PERF_QUEUE_AFTER))
        what = "after";
    else if (transaction && !(can & PERF_QUEUE_TRANSACTION))
        what = "transaction";
    return what;
}

int perf__task_queue_enqueue(struct perf__task_queue *q, const perf_queue_task *tasks, size_t count,
                             void *transaction, int64_t now_ms, int *statuses, char (*existing)[72])
{
    if (!count)
        return PERF_OK;
    for (size_t i = 0; i < count; i++) {
        const char *what = beyond(q->vtable.capabilities, &tasks[i], transaction);
        statuses[i] = PERF_OK;
        if (!what)
            continue;
        int rc = perf__fail(PERF_EUNSUPPORTED,
                            "perf_submit_options.%s is set, and the queue \"%s\" has no such thing",
                            what, q->name);
        for (size_t j = 0; j < count; j++)
            statuses[j] = rc;
        return rc;
    }
    /* A backend may always say which task is there. */
    char(*ids)[72] = existing ? existing : perf__calloc(&q->allocator, count, sizeof *ids);
    if (!ids)
        return perf__fail_nomem("the ids of tasks");
    lock(q);
    int rc =
        check(q, "enqueue",
              q->vtable.enqueue(q->queue, tasks, count, transaction, now_ms, statuses, ids), false);
    unlock(q);
    if (!existing)
        perf__free(&q->allocator, ids);
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] > 0)
            statuses[i] = check(q, "enqueue", statuses[i], false);
        if (!rc && statuses[i] < 0 && statuses[i] != PERF_EEXISTS)
            rc = statuses[i];
    }
    /* It failed, and did not say for which: for all that it did not refuse. */
    bool told = false;
    for (size_t i = 0; i < count; i++)
        told = told || (statuses[i] && statuses[i] != PERF_EEXISTS);
    for (size_t i = 0; rc && !told && i < count; i++)
        statuses[i] = statuses[i] ? statuses[i] : rc;
    return rc;
}

int perf__task_queue_claim(struct perf__task_queue *q, const perf_queue_claim *want,
                           perf_queue_reply *reply)
{
    size_t before = reply->count;
    lock(q);
    int rc = check(q, "claim", q->vtable.claim(q->queue, want, reply), true);
    unlock(q);
    if (rc == PERF_OK && reply->count == before)
        rc = PERF_MISS;
    return rc;
}

int perf__task_queue_extend(struct perf__task_queue *q, perf_queue_beat *beats, size_t count,
                            int64_t now_ms)
{
    if (!count)
        return PERF_OK;
    lock(q);
    int rc = check(q, "extend", q->vtable.extend(q->queue, beats, count, now_ms), false);
    unlock(q);
    for (size_t i = 0; rc && i < count; i++)
        beats[i].status = rc;
    return rc;
}

int perf__task_queue_finish(struct perf__task_queue *q, perf_queue_end *ends, size_t count)
{
    if (!count)
        return PERF_OK;
    int rc = PERF_OK;
    for (size_t i = 0; i < count; i++) {
        int64_t state = ends[i].state;
        ends[i].outcome = PERF_OK;
        if (!perf__task_ended(state) && state != PERF_TASK_RETRYING && state != PERF_TASK_WAITING)
            rc = perf__fail(PERF_EINVAL,
                            "perf_queue_end.state is %lld; give an end, RETRYING or WAITING",
                            (long long)state);
    }
    if (!rc) {
        lock(q);
        rc = check(q, "finish", q->vtable.finish(q->queue, ends, count), false);
        unlock(q);
    }
    for (size_t i = 0; rc && i < count; i++)
        if (!ends[i].outcome)
            ends[i].outcome = rc;
    return rc;
}

/* ------------------------------------------------------------- look and steer */

int perf__task_queue_get(struct perf__task_queue *q, const char *id, perf_queue_reply *reply)
{
    size_t before = reply->count;
    lock(q);
    int rc = check(q, "get", q->vtable.get(q->queue, id, reply), true);
    unlock(q);
    if (rc == PERF_OK && reply->count != before + 1)
        return perf__fail(PERF_EIO, "queue \"%s\": get returned PERF_OK and %zu tasks", q->name,
                          reply->count - before);
    return rc;
}

int perf__task_queue_find(struct perf__task_queue *q, const perf_queue_filter *filter,
                          perf_queue_reply *reply)
{
    if (!q->vtable.find)
        return perf__fail(PERF_EUNSUPPORTED, "the queue \"%s\" cannot list tasks; get them by id",
                          q->name);
    lock(q);
    int rc = check(q, "find", q->vtable.find(q->queue, filter, reply), false);
    unlock(q);
    return rc;
}

int perf__task_queue_count(struct perf__task_queue *q, const char *name, int64_t now_ms,
                           perf_queue_counts *counts)
{
    *counts = (perf_queue_counts){.struct_size = sizeof *counts};
    lock(q);
    int rc = check(q, "count", q->vtable.count(q->queue, name, now_ms, counts), false);
    unlock(q);
    return rc;
}

int perf__task_queue_control(struct perf__task_queue *q, int verb, const char *name, int64_t now_ms,
                             uint64_t *n)
{
    uint64_t own = 0;
    lock(q);
    int rc = q->vtable.control(q->queue, verb, name, now_ms, &own);
    unlock(q);
    if (n)
        *n = own;
    return rc == PERF_EBUSY ? rc : check(q, "control", rc, true);
}

int perf__task_queue_sweep(struct perf__task_queue *q, int64_t now_ms, size_t budget,
                           perf_queue_swept *swept)
{
    *swept = (perf_queue_swept){.struct_size = sizeof *swept};
    if (!budget)
        return PERF_OK;
    lock(q);
    int rc = check(q, "sweep", q->vtable.sweep(q->queue, now_ms, budget, swept), false);
    unlock(q);
    return rc;
}

int perf__task_queue_wait(struct perf__task_queue *q, int64_t timeout_ms)
{
    if (!q->vtable.wait)
        return PERF_EUNSUPPORTED;
    return check(q, "wait", q->vtable.wait(q->queue, timeout_ms < 0 ? 0 : timeout_ms), false);
}

void perf__task_queue_wake(struct perf__task_queue *q)
{
    if (q->vtable.wait)
        q->vtable.wait(q->queue, -1);
}

int perf__task_queue_flush(struct perf__task_queue *q)
{
    if (!q->vtable.flush)
        return PERF_OK;
    lock(q);
    int rc = check(q, "flush", q->vtable.flush(q->queue), false);
    unlock(q);
    return rc;
}
