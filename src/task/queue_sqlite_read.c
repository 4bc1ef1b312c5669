/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_read.c - tasks of the SQLite queue as others see them.
 *
 * Every look is one read transaction on a connection of its own, so that it
 * waits for no writer. What the file says is checked. One thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/status.h"
#include "queue_sqlite.h"

enum { LOOK_AT = 20000 }; /* tasks that one find looks at */

/* The columns of SQL_TASK. */
enum column {
    C_ROW,
    C_STATE,
    C_FLAGS,
    C_LANE,
    C_PENDING,
    C_ATTEMPTS,
    C_TOKEN,
    C_STARTED,
    C_PRIORITY,
    C_DUE,
    C_RANK,
    C_KEEP,
    C_UNIQUE_UNTIL,
    C_LIMIT,
    C_MAX_ATTEMPTS,
    C_DEADLINE,
    C_ENDED,
    C_LEASE,
    C_ID,
    C_USER,
    C_BATCH,
    C_CREATED,
    C_TIMEOUT,
    C_UNIQUE,
    C_LIMIT_KEY,
    C_AFTER,
    C_WORKER,
    C_FRACTION,
    C_DONE,
    C_TOTAL,
    C_TEXT,
    C_STATUS,
    C_ERROR,
    C_KEPT,
    C_PAYLOAD,
    C_RESULT
};

static void fill_numbers(sqlite3_stmt *s, perf_queue_task *t)
{
    const struct {
        int64_t *field;
        enum column column;
    } numbers[] = {
        {&t->state, C_STATE},
        {&t->priority, C_PRIORITY},
        {&t->rank, C_RANK},
        {&t->created_ms, C_CREATED},
        {&t->due_ms, C_DUE},
        {&t->deadline_ms, C_DEADLINE},
        {&t->keep_ms, C_KEEP},
        {&t->max_attempts, C_MAX_ATTEMPTS},
        {&t->timeout_ms, C_TIMEOUT},
        {&t->unique_until_ms, C_UNIQUE_UNTIL},
        {&t->limit, C_LIMIT},
        {&t->attempts, C_ATTEMPTS},
        {&t->lease_until_ms, C_LEASE},
        {&t->started_ms, C_STARTED},
        {&t->ended_ms, C_ENDED},
        {&t->status, C_STATUS},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i].field = sqlite3_column_int64(s, (int)numbers[i].column);
    t->token = (uint64_t)sqlite3_column_int64(s, C_TOKEN);
    t->done = (uint64_t)sqlite3_column_int64(s, C_DONE);
    t->total = (uint64_t)sqlite3_column_int64(s, C_TOTAL);
    t->fraction = sqlite3_column_double(s, C_FRACTION);
    if (!(t->fraction >= 0 && t->fraction <= 1))
        t->fraction = 0;
    if (t->state == PERF_TASK_SUCCEEDED)
        t->fraction = 1;
}

/* Bytes beside the row. The statement is reset by the caller, who has used them by then. */
static perf_bytes apart(struct queue_db *db, sqlite3_stmt *s)
{
    if (perf__queue_db_row(db, s))
        return perf__queue_db_bytes(db, s, 0);
    perf__queue_db_corrupt(db, "the payload or result of a task, which is not there,");
    return (perf_bytes){"", 0};
}

void perf__queue_read_claimed(perf_queue_task *t, const struct queue_loaded *claimed,
                              const char *worker)
{
    t->state = claimed->state;
    t->attempts = claimed->attempts;
    t->token = (uint64_t)claimed->token;
    t->lease_until_ms = claimed->lease;
    t->started_ms = claimed->started;
    t->worker = worker;
    t->fraction = 0;
    t->done = t->total = 0;
    t->text = "";
}

int perf__queue_read_add(struct queue_db *db, sqlite3_stmt *s, bool bytes,
                         const struct queue_loaded *claimed, const char *worker,
                         perf_queue_reply *reply)
{
    perf_queue_task t = {.struct_size = sizeof t};
    int64_t row = sqlite3_column_int64(s, C_ROW), flags = sqlite3_column_int64(s, C_FLAGS);
    const struct queue_lane *lane = perf__queue_db_lane(db, sqlite3_column_int64(s, C_LANE));
    const struct queue_name *name = lane ? perf__queue_db_name(db, lane->queue) : NULL;
    if (!name)
        return db->rc;
    fill_numbers(s, &t);
    if (t.state == TASK_ASIDE)
        t.state = PERF_TASK_QUEUED;
    if (t.state < PERF_TASK_WAITING || t.state > PERF_TASK_DEAD || row < 1 || row > NUMBER_MAX)
        return perf__queue_db_corrupt(db, "a number of a task");
    t.queue = name->name;
    t.kind = lane->kind;
    t.version = lane->version;
    t.after_any_end = (flags & TASK_ANY_END) != 0;
    t.id = perf__queue_db_text(db, s, C_ID);
    t.user = perf__queue_db_text(db, s, C_USER);
    t.batch = perf__queue_db_text(db, s, C_BATCH);
    t.limit_key = perf__queue_db_text(db, s, C_LIMIT_KEY);
    t.after = perf__queue_db_text(db, s, C_AFTER);
    t.worker = perf__queue_db_text(db, s, C_WORKER);
    t.text = perf__queue_db_text(db, s, C_TEXT);
    t.error = perf__queue_db_text(db, s, C_ERROR);
    const char *space = strchr(perf__queue_db_text(db, s, C_UNIQUE), ' ');
    t.unique_key = space ? space + 1 : "";
    if (claimed) {
        perf__queue_read_claimed(&t, claimed, worker); /* who claims has no use for a history */
    } else {
        perf__history_tell(&db->history, &t, perf__queue_db_text(db, s, C_KEPT),
                           flags & TASK_WAITED, flags & TASK_LAST);
        t.history = db->history.text;
    }
    if (!bytes)
        return db->rc ? db->rc : perf_queue_reply_add(reply, &t);
    t.payload = perf__queue_db_bytes(db, s, C_PAYLOAD);
    t.result = perf__queue_db_bytes(db, s, C_RESULT);
    sqlite3_stmt *payload = NULL, *result = NULL;
    int rc;
    if (flags & TASK_PAYLOAD) {
        payload = perf__queue_db_bind(db, SQL_BYTES, "i", 2 * row);
        t.payload = apart(db, payload);
    }
    if (flags & TASK_RESULT) {
        result = perf__queue_db_bind(db, SQL_RESULT_BYTES, "i", 2 * row + 1);
        t.result = apart(db, result);
    }
    rc = db->rc ? db->rc : perf_queue_reply_add(reply, &t);
    sqlite3_reset(payload);
    sqlite3_reset(result);
    return rc;
}

/* A read transaction that knows the queues and lanes of its moment. */
static void begin(struct queue_db *db)
{
    db->rc = PERF_OK;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_BEGIN_READ, ""));
    perf__queue_db_refresh(db);
}

static int end(struct queue_db *db, int rc)
{
    if (!sqlite3_get_autocommit(db->db) &&
        sqlite3_exec(db->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL);
    return db->rc ? db->rc : rc;
}

int perf__queue_read_get(struct queue_db *db, const char *id, perf_queue_reply *reply)
{
    begin(db);
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_TASK_ID, "t", id);
    int rc = PERF_MISS;
    if (perf__queue_db_row(db, s)) {
        rc = perf__queue_read_add(db, s, true, NULL, NULL, reply);
        sqlite3_reset(s);
    }
    return end(db, rc);
}

/* --------------------------------------------------------------------- find */

static sqlite3_stmt *begin_find(struct queue_db *db, const perf_queue_filter *f, int64_t before)
{
    if (f->batch && f->batch[0])
        return perf__queue_db_bind(db, SQL_FIND_BATCH, "it", before, f->batch);
    switch (f->state) {
    case PERF_TASK_RUNNING:
        return perf__queue_db_bind(db, SQL_FIND_RUNNING, "i", before);
    case PERF_TASK_FAILED:
        return perf__queue_db_bind(db, SQL_FIND_FAILED, "i", before);
    case PERF_TASK_CANCELLED:
        return perf__queue_db_bind(db, SQL_FIND_CANCELLED, "i", before);
    case PERF_TASK_DEAD:
        return perf__queue_db_bind(db, SQL_FIND_DEAD, "i", before);
    default:
        break;
    }
    if (f->user && f->user[0])
        return perf__queue_db_bind(db, SQL_FIND_USER, "it", before, f->user);
    return perf__queue_db_bind(db, SQL_FIND, "i", before);
}

static bool is(const char *wanted, const char *value)
{
    return !wanted || !strcmp(wanted, value);
}

static bool matches(struct queue_db *db, sqlite3_stmt *s, const perf_queue_filter *f)
{
    int64_t state = sqlite3_column_int64(s, C_STATE);
    if (f->state && f->state != (state == TASK_ASIDE ? PERF_TASK_QUEUED : state))
        return false;
    const struct queue_lane *lane = perf__queue_db_lane(db, sqlite3_column_int64(s, C_LANE));
    const struct queue_name *name = lane ? perf__queue_db_name(db, lane->queue) : NULL;
    return name && is(f->queue, name->name) && is(f->kind, lane->kind) &&
           is(f->user, perf__queue_db_text(db, s, C_USER)) &&
           is(f->batch, perf__queue_db_text(db, s, C_BATCH));
}

int perf__queue_read_find(struct queue_db *db, const perf_queue_filter *f, perf_queue_reply *reply)
{
    int64_t before = INT64_MAX;
    if (f->cursor) {
        char *rest;
        before = strtoll(f->cursor, &rest, 10);
        if (!f->cursor[0] || *rest || before < 1)
            return perf__fail(PERF_EINVAL, "perf_tasks_filter.cursor is none of this queue's; give "
                                           "the one of the page before");
    }
    size_t limit = f->limit > 0 ? (size_t)f->limit : 100, found = 0, looked = 0;
    int rc = PERF_OK;
    bool more = false;
    begin(db);
    sqlite3_stmt *s = begin_find(db, f, before);
    while (!rc && perf__queue_db_row(db, s)) {
        more = found == limit || looked == LOOK_AT;
        if (more)
            break;
        before = sqlite3_column_int64(s, C_ROW);
        looked++;
        if (!matches(db, s, f))
            continue;
        rc = perf__queue_read_add(db, s, false, NULL, NULL, reply);
        found++;
    }
    sqlite3_reset(s);
    if (!rc && more) {
        char cursor[24];
        snprintf(cursor, sizeof cursor, "%" PRId64, before);
        rc = perf_queue_reply_cursor(reply, cursor);
    }
    return end(db, rc);
}

/* -------------------------------------------------------------------- count */

int perf__queue_read_count(struct queue_db *db, const char *name, perf_queue_counts *counts)
{
    begin(db);
    const struct queue_name *n = perf__queue_db_name_of(db, name, false);
    if (!n)
        return end(db, PERF_OK);
    counts->paused = n->paused;
    int64_t from = COUNT_KEY(n->queue), to = from + 16;
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_COUNTS, "ii", from, to);
    while (perf__queue_db_row(db, s)) {
        int64_t state = sqlite3_column_int64(s, 0) - from, count = sqlite3_column_int64(s, 1);
        if (state < PERF_TASK_WAITING || state > PERF_TASK_DEAD || count < 0)
            perf__queue_db_corrupt(db, "the table perf_queue");
        else
            counts->by_state[state] = (uint64_t)count;
    }
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < db->lanes_count; i++) {
        if (db->lanes[i].queue != n->queue)
            continue;
        s = perf__queue_db_bind(db, SQL_FIRST, "i", db->lanes[i].lane);
        if (!perf__queue_db_row(db, s))
            continue;
        if (sqlite3_column_int64(s, 0) < least) {
            least = sqlite3_column_int64(s, 0);
            counts->oldest_due_ms = sqlite3_column_int64(s, 1);
        }
        sqlite3_reset(s);
    }
    return end(db, PERF_OK);
}
