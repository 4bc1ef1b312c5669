/* SPDX-License-Identifier: MIT */
/*
 * tasks_submit.c - submitting: options become tasks of the queue, many in one
 * call. Any thread; no lock of ours is held while the queue works.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "tasks_impl.h"

enum { AT_ONCE = 512 }; /* tasks in one call of the queue */

/* What one submission becomes, and what became of it. */
struct entry {
    perf_submit_options options;
    perf_task_id id;
};

static int64_t later_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int make_task(perf_tasks *t, const char *kind, perf_bytes payload,
                     const perf_submit_options *given, int64_t now, struct entry *e,
                     perf_queue_task *task)
{
    int rc = perf__check_kind(kind);
    if (rc || (rc = perf__submit_options_take(t, given, &e->options)))
        return rc;
    if (payload.len > t->options.max_payload)
        return perf__fail(PERF_ETOOBIG,
                          "the payload is %zu bytes long; give %llu at most, or raise "
                          "perf_tasks_options.max_payload",
                          payload.len, (unsigned long long)t->options.max_payload);
    if (payload.len && !payload.data)
        return perf__fail(PERF_EINVAL, "the payload is NULL and %zu bytes long; give its bytes",
                          payload.len);
    const perf_submit_options *o = &e->options;
    if (o->id)
        memcpy(e->id.text, o->id, strlen(o->id) + 1);
    else
        perf__task_id_make(t, e->id.text);
    pthread_mutex_lock(&t->mutex);
    const struct perf__handler *handler = perf__tasks_handler(t, kind);
    int64_t attempts = handler ? handler->options.max_attempts : PERF__DEFAULT_ATTEMPTS;
    pthread_mutex_unlock(&t->mutex);
    int64_t due = later_of(now + o->delay_ms, o->at_ms);
    *task = (perf_queue_task){
        .struct_size = sizeof *task,
        .id = e->id.text,
        .queue = o->queue,
        .kind = kind,
        .user = o->user,
        .batch = o->batch,
        .priority = o->priority,
        .rank = perf__task_rank(due, o->priority),
        .created_ms = now,
        .due_ms = due,
        .deadline_ms = o->deadline_ms ? now + o->deadline_ms : 0,
        .keep_ms = o->keep_ms,
        .max_attempts = o->max_attempts ? o->max_attempts : attempts,
        .timeout_ms = o->timeout_ms,
        .version = o->version,
        .unique_key = o->unique_key,
        .unique_until_ms = o->unique_ms ? now + o->unique_ms : 0,
        .limit_key = o->limit_key,
        .limit = o->limit,
        .after = o->after,
        .after_any_end = o->after_any_end,
        .payload = payload,
        .worker = "",
        .text = "",
        .error = "",
        .history = "",
    };
    return PERF_OK;
}

/* Counts, says who was there first, and has whoever may be concerned look. */
static void note(perf_tasks *t, const perf_queue_task *tasks, size_t count, const int *statuses,
                 int64_t now)
{
    uint64_t kept = 0, there = 0;
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < count; i++) {
        there += statuses[i] == PERF_EEXISTS;
        kept += statuses[i] == PERF_OK;
        if (statuses[i] == PERF_OK && tasks[i].due_ms > now && tasks[i].due_ms < due)
            due = tasks[i].due_ms;
    }
    perf__tasks_count(t, COUNT_SUBMITTED, kept);
    perf__tasks_count(t, COUNT_DUPLICATES, there);
    if (due != INT64_MAX)
        perf__tasks_keep_wake(t, due);
    if (kept && !perf__task_queue_waits(t->queue)) {
        pthread_mutex_lock(&t->mutex);
        pthread_cond_broadcast(&t->room);
        pthread_mutex_unlock(&t->mutex);
    }
}

int perf_tasks_submit(perf_tasks *t, const char *kind, const void *payload, size_t len,
                      const perf_submit_options *options, perf_task_id *id)
{
    struct entry e = {0};
    perf_queue_task task;
    int status = PERF_OK;
    char existing[1][72] = {""};
    int rc = perf__tasks_usable(t);
    if (rc)
        return rc;
    int64_t now = perf__realtime_ms(&t->host.clock);
    rc = make_task(t, kind, (perf_bytes){payload, len}, options, now, &e, &task);
    if (rc)
        return rc;
    rc =
        perf__task_queue_enqueue(t->queue, &task, 1, e.options.transaction, now, &status, existing);
    if (!rc)
        rc = status;
    note(t, &task, 1, &rc, now);
    if (rc == PERF_EEXISTS) {
        if (id && *existing[0])
            memcpy(id->text, existing[0], sizeof id->text);
        return perf__fail(PERF_EEXISTS, "a task with this id or unique_key is there: \"%s\"",
                          existing[0]);
    }
    if (rc && rc != PERF_EINVAL && rc != PERF_EUNSUPPORTED)
        perf__tasks_queue_failed(t, "enqueue", rc, 1);
    if (!rc && id)
        *id = e.id;
    return rc;
}

/* Up to AT_ONCE of them. Returns the first failure. */
static int submit_some(perf_tasks *t, perf_submission *const *subs, size_t count,
                       struct entry *entries, perf_queue_task *tasks, int *statuses,
                       char (*existing)[72])
{
    size_t order[AT_ONCE], n = 0;
    int first = PERF_OK;
    void *transaction = NULL;
    int64_t now = perf__realtime_ms(&t->host.clock);
    for (size_t i = 0; i < count; i++) {
        int rc = make_task(t, subs[i]->kind, subs[i]->payload, subs[i]->options, now, &entries[n],
                           &tasks[n]);
        if (!rc && n && entries[n].options.transaction != transaction)
            rc = perf__fail(PERF_EINVAL, "transaction differs from that of the submissions before; "
                                         "submit these by a call of their own");
        subs[i]->status = rc;
        if (rc) {
            first = first ? first : rc;
            continue;
        }
        transaction = entries[n].options.transaction;
        order[n++] = i;
    }
    if (!n)
        return first;
    memset(existing, 0, n * sizeof *existing);
    int rc = perf__task_queue_enqueue(t->queue, tasks, n, transaction, now, statuses, existing);
    for (size_t k = 0; k < n; k++) {
        perf_submission *s = subs[order[k]];
        s->status = statuses[k];
        if (statuses[k] == PERF_OK)
            s->id = entries[k].id;
        else if (statuses[k] == PERF_EEXISTS)
            memcpy(s->id.text, existing[k], sizeof s->id.text);
        if (statuses[k] && !first)
            first = statuses[k];
    }
    note(t, tasks, n, statuses, now);
    if (rc && rc != PERF_EINVAL && rc != PERF_EUNSUPPORTED)
        perf__tasks_queue_failed(t, "enqueue", rc, 1);
    return first;
}

int perf_tasks_submit_many(perf_tasks *t, perf_submission *submissions, size_t count)
{
    int rc = perf__tasks_usable(t), first = PERF_OK;
    if (rc || !count)
        return rc;
    if (!submissions)
        return perf__fail(PERF_EINVAL, "submissions is NULL; give %zu of them", count);
    size_t size = submissions[0].struct_size; /* the step from one to the next, too */
    if (size != sizeof *submissions)
        return perf__fail(PERF_EINVAL,
                          "perf_submission.struct_size is %zu; set it to sizeof(perf_submission)",
                          size);
    const perf_allocator *a = &t->host.allocator;
    size_t room = count < AT_ONCE ? count : AT_ONCE;
    perf_submission *subs[AT_ONCE];
    struct entry *entries = perf__calloc(a, room, sizeof *entries);
    perf_queue_task *tasks = perf__calloc(a, room, sizeof *tasks);
    int *statuses = perf__calloc(a, room, sizeof *statuses);
    char(*existing)[72] = perf__calloc(a, room, sizeof *existing);
    if (!entries || !tasks || !statuses || !existing) {
        first = perf__fail_nomem("a batch of tasks");
        for (size_t i = 0; i < count; i++)
            submissions[i].status = first;
        goto out;
    }
    for (size_t done = 0; done < count; done += room) {
        size_t n = count - done < room ? count - done : room;
        for (size_t i = 0; i < n; i++)
            subs[i] = &submissions[done + i];
        rc = submit_some(t, subs, n, entries, tasks, statuses, existing);
        if (rc && !first)
            first = rc;
    }
out:
    perf__free(a, existing);
    perf__free(a, statuses);
    perf__free(a, tasks);
    perf__free(a, entries);
    return first;
}
