/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_enqueue.c - how tasks come into the SQLite queue.
 *
 * A verb decides before it writes: an answer such as PERF_EEXISTS leaves nothing
 * behind, and a failure of the file (db->rc) undoes the whole transaction. One thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite_task.h"

enum { ID_MAX = 71, UNIQUE_MAX = 2048 };

/* ------------------------------------------------------------------ enqueue */

/* The next id of a list; an id that is too long is "", which no task has. */
static bool next_id(const char **after, char id[ID_MAX + 1])
{
    const char *at = *after;
    while (*at == ',')
        at++;
    size_t len = strcspn(at, ",");
    *after = at + len;
    if (!len)
        return false;
    size_t used = len > ID_MAX ? 0 : len;
    memcpy(id, at, used);
    id[used] = 0;
    return true;
}

/* Are those there that a task waits for? *failed: one has ended badly. */
static int check_after(struct queue_db *db, const perf_queue_task *task, bool *failed)
{
    char id[ID_MAX + 1];
    for (const char *after = task->after; next_id(&after, id);) {
        sqlite3_stmt *s = perf__queue_db_bind(db, SQL_ROW_OF, "t", id);
        if (!perf__queue_db_row(db, s))
            return db->rc ? db->rc
                          : perf__fail(PERF_EINVAL,
                                       "perf_submit_options.after names \"%s\", and there is no "
                                       "such task; submit it first, or keep its record longer",
                                       id);
        int64_t state = sqlite3_column_int64(s, 1);
        sqlite3_reset(s);
        if (perf__queue_task_has_ended(state) && state != PERF_TASK_SUCCEEDED &&
            !task->after_any_end)
            *failed = true;
    }
    return PERF_OK;
}

/* Has the task in row wait for those that have not ended; how many these are. */
static int64_t follow(struct queue_db *db, const char *after, int64_t row)
{
    char id[ID_MAX + 1];
    int64_t pending = 0;
    while (next_id(&after, id)) {
        sqlite3_stmt *s = perf__queue_db_bind(db, SQL_ROW_OF, "t", id);
        if (!perf__queue_db_row(db, s))
            continue;
        int64_t first = sqlite3_column_int64(s, 0), state = sqlite3_column_int64(s, 1);
        sqlite3_reset(s);
        if (perf__queue_task_has_ended(state) ||
            !perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FOLLOW, "ii", first, row)))
            continue;
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FOLLOWED, "i", first));
        pending++;
    }
    return pending;
}

/* PERF_EEXISTS: somebody holds the key. Otherwise it can be taken, after *dropped lost it. */
static int check_unique(struct queue_db *db, const char *uniq, int64_t now_ms, int64_t *dropped,
                        char existing[72])
{
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_UNIQUE, "t", uniq);
    if (!perf__queue_db_row(db, s))
        return db->rc;
    int64_t state = sqlite3_column_int64(s, 2), until = sqlite3_column_int64(s, 3);
    bool held = !perf__queue_task_has_ended(state) || until > now_ms;
    *dropped = sqlite3_column_int64(s, 0);
    snprintf(existing, 72, "%s", perf__queue_db_text(db, s, 1));
    sqlite3_reset(s);
    return db->rc ? db->rc : held ? PERF_EEXISTS : PERF_OK;
}

/* A row for the task in its first state; limit keys come right after. worker: who runs it, if it is
 * RUNNING. False: its id is taken. */
static bool insert(struct queue_db *db, const perf_queue_task *task, const struct queue_loaded *t,
                   const char *uniq, const char *worker)
{
    int64_t place, sort;
    bool apart = task->payload.len > INLINE_MAX;
    perf_bytes none = {NULL, 0}, payload = apart ? none : task->payload;
    const char *types = perf__queue_task_place_types(
        t, &place, &sort, "itiiiiiniiiniinnnnsssssbnnnns", "itiinniniiiniinnnnsssssbnnnns");
    sqlite3_stmt *s = perf__queue_db_bind(
        db, SQL_INSERT, types, t->row, task->id, t->lane, t->state, place, sort, t->flags,
        t->pending, t->rank, t->due, task->created_ms, task->priority, task->deadline_ms, t->keep,
        t->max_attempts, task->timeout_ms, t->unique_until, t->limit, task->user, task->batch, uniq,
        task->limit_key, task->after, payload, t->attempts, t->token, t->lease, t->started, worker);
    if (!perf__queue_db_run(db, s))
        return false;
    if (apart)
        perf__queue_db_run(db,
                           perf__queue_db_bind(db, SQL_ADD_BYTES, "ib", 2 * t->row, task->payload));
    perf__queue_task_count(db, t->lane, 0, t->state);
    return true;
}

/* The claim that takes a task as it comes; NULL: it goes into the lane. */
static const perf_queue_claim *taker_of(const struct queue_db *db, const struct queue_loaded *t,
                                        const struct queue_lane *lane)
{
    const perf_queue_claim *want = db->taker.want;
    if (!want || db->news || t->state != PERF_TASK_QUEUED ||
        (t->deadline && want->now_ms >= t->deadline) || !perf__queue_taker_room(&db->taker))
        return NULL;
    for (size_t i = 0; i < db->names_count; i++) {
        const struct queue_name *name = &db->names[i];
        if (name->paused || !perf__queue_task_wanted(lane, name, want))
            continue;
        for (size_t j = 0; j < db->taker.queues; j++)
            if (!strcmp(want->queues[j], name->name))
                return want;
    }
    return NULL;
}

/* Adds a task that came RUNNING to the reply of its claim, which stays in order. */
static void give_new(struct queue_db *db, const perf_queue_task *task, const struct queue_loaded *t)
{
    perf_queue_reply *reply = db->taker.reply;
    perf_queue_task given = *task;
    perf__queue_read_claimed(&given, t, db->taker.want->worker);
    int rc = perf_queue_reply_add(reply, &given);
    if (rc) {
        db->rc = db->rc ? db->rc : rc;
        return;
    }
    perf__queue_task_remember(db, t);
    size_t at = reply->count - 1;
    perf_queue_task *own = reply->tasks[at];
    for (; at > db->taker.before && reply->tasks[at - 1]->rank > own->rank; at--)
        reply->tasks[at] = reply->tasks[at - 1];
    reply->tasks[at] = own;
}

int perf__queue_write_enqueue(struct queue_db *db, const perf_queue_task *task, int64_t now_ms,
                              char existing[72])
{
    char uniq[UNIQUE_MAX] = "";
    bool failed = false;
    int64_t dropped = 0;
    int rc = PERF_OK;
    /* For most tasks it is soon enough if insert notices. */
    bool plain = !task->unique_key[0] && !task->after[0];
    if (!plain &&
        perf__queue_db_number(db, perf__queue_db_bind(db, SQL_ROW_OF, "t", task->id), 0)) {
        snprintf(existing, 72, "%s", task->id);
        return PERF_EEXISTS;
    }
    /* A kind has no space in it. */
    if (task->unique_key[0] &&
        (size_t)snprintf(uniq, sizeof uniq, "%s %s", task->kind, task->unique_key) >= sizeof uniq)
        return perf__fail(PERF_EINVAL, "perf_submit_options.unique_key is longer than %d bytes",
                          UNIQUE_MAX - 128);
    if (task->due_ms > NUMBER_MAX || task->due_ms < 0)
        return perf__fail(PERF_EINVAL, "the task is due at %lld ms since 1970; give a date to come",
                          (long long)task->due_ms);
    if (task->after[0])
        rc = check_after(db, task, &failed);
    if (!rc && uniq[0])
        rc = check_unique(db, uniq, now_ms, &dropped, existing);
    struct queue_lane *lane =
        rc ? NULL : perf__queue_db_lane_of(db, task->queue, task->kind, task->version);
    if (!lane)
        return rc ? rc : db->rc;
    struct queue_loaded t = {
        .row = db->next++,
        .state = failed                  ? PERF_TASK_CANCELLED
                 : task->due_ms > now_ms ? PERF_TASK_WAITING
                                         : PERF_TASK_QUEUED,
        .flags = (task->after_any_end ? TASK_ANY_END : 0) |
                 (task->limit_key[0] ? TASK_LIMITED : 0) |
                 (task->payload.len > INLINE_MAX ? TASK_PAYLOAD : 0),
        .lane = lane->lane,
        .due = task->due_ms,
        .rank = task->rank,
        .keep = task->keep_ms,
        .deadline = task->deadline_ms,
        .unique_until = uniq[0] ? task->unique_until_ms : 0,
        .limit = task->limit_key[0] && task->limit < 1 ? 1 : task->limit,
        .max_attempts = task->max_attempts,
        .ended = failed ? now_ms : 0,
    };
    if (dropped)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_DROP_UNIQUE, "i", dropped));
    if (task->after[0] && !failed)
        t.pending = follow(db, task->after, t.row);
    if (t.pending)
        t.state = PERF_TASK_WAITING;
    else if (t.state == PERF_TASK_QUEUED && t.flags & TASK_LIMITED)
        t.state = TASK_ASIDE;
    t.flags |= t.state == PERF_TASK_WAITING ? TASK_WAITED : 0;
    const perf_queue_claim *taker = taker_of(db, &t, lane);
    if (taker)
        perf__queue_task_start(db, &t, taker);
    if (!insert(db, task, &t, uniq, taker ? taker->worker : "")) {
        if (db->rc)
            return db->rc;
        snprintf(existing, 72, "%s", task->id);
        return PERF_EEXISTS;
    }
    if (taker)
        give_new(db, task, &t);
    if (t.state == TASK_ASIDE)
        perf__queue_task_settle_limit(db, t.row);
    if (t.state == PERF_TASK_QUEUED)
        db->news = true;
    if (failed)
        perf__queue_task_end(db, &t, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                             "a task that it waited for did not succeed");
    return db->rc;
}
