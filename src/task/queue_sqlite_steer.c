/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_steer.c - what operators change of the SQLite queue, and its upkeep. One thread at a
 * time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite_task.h"

enum { REDRIVE_AT_ONCE = 1000 };

/* -------------------------------------------------------------------- steer */

static int cancel(struct queue_db *db, const char *id, int64_t now_ms)
{
    struct queue_loaded t;
    if (!perf__queue_task_load_id(db, id, &t) || perf__queue_task_has_ended(t.state))
        return PERF_MISS;
    if (t.state == PERF_TASK_RUNNING) {
        t.flags |= TASK_CANCEL;
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FLAGS, "ii", t.row, t.flags));
        return PERF_OK;
    }
    perf__queue_task_end(db, &t, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                         "cancelled before it began");
    return PERF_OK;
}

static int redrive(struct queue_db *db, struct queue_loaded *t, int64_t now_ms)
{
    if (!perf__queue_task_has_ended(t->state) || t->state == PERF_TASK_SUCCEEDED)
        return PERF_MISS;
    perf__queue_task_keep_line(db, t, t->ended, t->state, 0, NULL);
    perf__queue_task_keep_line(db, t, now_ms, PERF_TASK_QUEUED, PERF_OK, "");
    t->attempts = t->ended = 0;
    t->deadline = 0; /* who asks for it now knows how late it is */
    t->due = now_ms;
    t->rank = perf__task_rank(now_ms, t->priority);
    perf__queue_task_make_ready(db, t);
    return PERF_OK;
}

/* One portion of the DEAD ones of a queue, from a row on; that of the last one looked at. */
static int64_t redrive_some(struct queue_db *db, const char *queue, int64_t from, int64_t now_ms,
                            uint64_t *n)
{
    const struct queue_name *name = perf__queue_db_name_of(db, queue, false);
    int64_t limit = REDRIVE_AT_ONCE;
    db->picked.count = 0;
    if (name)
        perf__queue_db_rows(db, perf__queue_db_bind(db, SQL_DEAD, "ii", from, limit), &db->picked);
    for (size_t i = 0; i < db->picked.count; i++) {
        struct queue_loaded t;
        if (!perf__queue_task_load_row(db, db->picked.rows[i], &t))
            continue;
        const struct queue_lane *lane = perf__queue_db_lane(db, t.lane);
        if (lane && lane->queue == name->queue)
            *n += redrive(db, &t, now_ms) == PERF_OK;
    }
    return db->picked.count ? db->picked.rows[db->picked.count - 1] : INT64_MAX;
}

static void remove_task(struct queue_db *db, const struct queue_loaded *t)
{
    if (t->flags & TASK_PAYLOAD)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_REMOVE_BYTES, "i", 2 * t->row));
    if (t->flags & TASK_RESULT)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_REMOVE_BYTES, "i", 2 * t->row + 1));
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_REMOVE, "i", t->row));
    perf__queue_task_count(db, t->lane, t->state, 0);
}

static int set_paused(struct queue_db *db, const char *queue, int64_t paused, uint64_t *n)
{
    struct queue_name *name = perf__queue_db_name_of(db, queue, paused);
    *n = name && name->paused != paused;
    if (!*n)
        return PERF_OK;
    name->paused = paused;
    db->changes++;
    db->news = true;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_PAUSE, "ii", name->queue, paused));
    return PERF_OK;
}

int perf__queue_write_control(struct queue_db *db, int verb, const char *name, int64_t now_ms,
                              uint64_t *n)
{
    struct queue_loaded t;
    int rc = PERF_OK;
    *n = 1;
    switch (verb) {
    case PERF_QUEUE_CANCEL:
        rc = cancel(db, name, now_ms);
        break;
    case PERF_QUEUE_REDRIVE:
        rc = perf__queue_task_load_id(db, name, &t) ? redrive(db, &t, now_ms) : PERF_MISS;
        break;
    case PERF_QUEUE_REDRIVE_ALL:
        *n = 0;
        for (int64_t from = 0; from != INT64_MAX && !db->rc;)
            from = redrive_some(db, name, from, now_ms, n);
        break;
    case PERF_QUEUE_REMOVE:
        if (!perf__queue_task_load_id(db, name, &t))
            rc = PERF_MISS;
        else if (!perf__queue_task_has_ended(t.state))
            rc = perf__fail(PERF_EBUSY, "task \"%.71s\" has not ended; cancel it first", name);
        else
            remove_task(db, &t);
        break;
    case PERF_QUEUE_PAUSE:
    case PERF_QUEUE_RESUME:
        rc = set_paused(db, name, verb == PERF_QUEUE_PAUSE, n);
        break;
    default:
        rc = perf__fail(PERF_EINVAL, "control was asked for %d; give PERF_QUEUE_CANCEL or another",
                        verb);
    }
    if (rc || db->rc)
        *n = 0;
    return db->rc ? db->rc : rc;
}

/* ------------------------------------------------------------------- upkeep */

static bool rescue(struct queue_db *db, struct queue_loaded *t, int64_t now_ms)
{
    static const char sentence[] = "its worker was not heard of within its lease";
    bool cancelled = t->flags & TASK_CANCEL;
    bool dead = t->max_attempts >= 0 && t->attempts >= t->max_attempts;
    if (cancelled || dead) {
        perf__queue_task_end(db, t, cancelled ? PERF_TASK_CANCELLED : PERF_TASK_DEAD, now_ms,
                             PERF_ETIMEDOUT, sentence);
        return !cancelled;
    }
    perf__queue_task_keep_line(db, t, now_ms, PERF_TASK_QUEUED, PERF_ETIMEDOUT, sentence);
    static const int64_t status = PERF_ETIMEDOUT;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", t->row, status, sentence));
    perf__queue_task_make_ready(db, t);
    return false;
}

bool perf__queue_write_may_sweep(struct queue_db *db, int64_t now_ms, perf_queue_swept *swept)
{
    static const enum sql each[] = {SQL_DUE, SQL_LEASES, SQL_EXPIRED};
    int64_t one = 1;
    for (size_t i = 0; i < sizeof each / sizeof *each; i++)
        if (perf__queue_db_number(db, perf__queue_db_bind(db, each[i], "ii", now_ms, one), 0))
            return true;
    swept->next_ms = perf__queue_db_number(db, perf__queue_db_bind(db, SQL_NEXT_DUE, ""), 0);
    return false;
}

static size_t list(struct queue_db *db, enum sql sql, int64_t now_ms, int64_t budget)
{
    db->picked.count = 0;
    perf__queue_db_rows(db, perf__queue_db_bind(db, sql, "ii", now_ms, budget), &db->picked);
    return db->rc ? 0 : db->picked.count;
}

int perf__queue_write_sweep(struct queue_db *db, int64_t now_ms, size_t budget,
                            perf_queue_swept *swept)
{
    struct queue_loaded t;
    int64_t most = budget > INT32_MAX ? INT32_MAX : (int64_t)budget;
    size_t n = list(db, SQL_DUE, now_ms, most);
    for (size_t i = 0; i < n; i++)
        if (perf__queue_task_load_row(db, db->picked.rows[i], &t))
            perf__queue_task_make_ready(db, &t);
    n = list(db, SQL_LEASES, now_ms, most);
    for (size_t i = 0; i < n; i++)
        if (perf__queue_task_load_row(db, db->picked.rows[i], &t)) {
            swept->dead += rescue(db, &t, now_ms);
            swept->rescued++;
        }
    n = list(db, SQL_EXPIRED, now_ms, most);
    for (size_t i = 0; i < n; i++)
        if (perf__queue_task_load_row(db, db->picked.rows[i], &t)) {
            remove_task(db, &t);
            swept->removed++;
        }
    swept->next_ms = perf__queue_db_number(db, perf__queue_db_bind(db, SQL_NEXT_DUE, ""), 0);
    return db->rc;
}
