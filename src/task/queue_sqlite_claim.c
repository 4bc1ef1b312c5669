/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_claim.c - who gets a task of the SQLite queue, how long it may keep it, and what
 * becomes of it. One thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite_task.h"

enum { PICKS_MAX = 1000 };

/* -------------------------------------------------------------------- claim */

bool perf__queue_write_may_claim(struct queue_db *db, const perf_queue_claim *want)
{
    int64_t one = 1;
    for (size_t i = 0; i < want->queues_count; i++) {
        struct queue_name *name = perf__queue_db_name_of(db, want->queues[i], false);
        for (size_t j = 0; name && !name->paused && j < db->lanes_count; j++)
            if (perf__queue_task_wanted(&db->lanes[j], name, want) &&
                perf__queue_db_number(
                    db, perf__queue_db_bind(db, SQL_READY, "ii", db->lanes[j].lane, one), 0))
                return true;
    }
    return false;
}

/* The first ones of all wanted lanes, in order, into db->picked: rows and their ranks in turn. */
static void pick(struct queue_db *db, const struct queue_name *name, const perf_queue_claim *want,
                 size_t max)
{
    struct queue_rows *picked = &db->picked;
    picked->count = 0;
    int64_t limit = (int64_t)max;
    for (size_t j = 0; j < db->lanes_count && !db->rc; j++) {
        if (!perf__queue_task_wanted(&db->lanes[j], name, want))
            continue;
        sqlite3_stmt *s = perf__queue_db_bind(db, SQL_READY, "ii", db->lanes[j].lane, limit);
        size_t at = 0; /* both are in order: an insertion moves up from where the last one went */
        while (perf__queue_db_row(db, s)) {
            int64_t row = sqlite3_column_int64(s, 0), rank = sqlite3_column_int64(s, 1);
            int64_t *rows = picked->rows;
            while (at < picked->count &&
                   (rows[at + 1] < rank || (rows[at + 1] == rank && rows[at] < row)))
                at += 2;
            if (at >= 2 * max)
                break;
            if (!perf__queue_rows_add(db, picked, row) || !perf__queue_rows_add(db, picked, rank))
                break;
            rows = picked->rows;
            memmove(&rows[at + 2], &rows[at], (picked->count - 2 - at) * sizeof *rows);
            rows[at] = row;
            rows[at + 1] = rank;
            if (picked->count > 2 * max)
                picked->count = 2 * max;
        }
        sqlite3_reset(s);
    }
}

/* May it run? If not it is moved out of the way. */
static bool may_run(struct queue_db *db, struct queue_loaded *t, const perf_queue_claim *want)
{
    if (t->deadline && want->now_ms >= t->deadline && !t->started) {
        perf__queue_task_end(db, t, PERF_TASK_CANCELLED, want->now_ms, PERF_ETIMEDOUT,
                             "not begun before its deadline");
        return false;
    }
    if (t->flags & TASK_LIMITED) {
        /* Tasks of one key need not agree about its limit. This one is counted. */
        int64_t most = t->limit + 1;
        if (perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_USED, "ii", t->row, most),
                                  0) > t->limit) {
            perf__queue_task_move(db, t, TASK_ASIDE);
            return false;
        }
    }
    return true;
}

/* Makes it RUNNING and adds it to the reply, if it is still to be run. */
static bool give(struct queue_db *db, int64_t row, const perf_queue_claim *want,
                 perf_queue_reply *reply)
{
    struct queue_loaded t;
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_TASK, "i", row);
    if (!perf__queue_db_row(db, s))
        return false;
    bool given =
        perf__queue_task_fill(db, s, &t) && t.state == PERF_TASK_QUEUED && may_run(db, &t, want);
    if (!given)
        goto out;
    perf__queue_task_count(db, t.lane, PERF_TASK_QUEUED, PERF_TASK_RUNNING);
    perf__queue_task_start(db, &t, want);
    int rc = perf__queue_read_add(db, s, true, &t, want->worker, reply);
    if (rc && !db->rc)
        db->rc = rc;
    given = !rc;
out:
    sqlite3_reset(s);
    if (!given)
        return false;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_CLAIM, "iiiisii", row, t.lease, t.token,
                                               t.started, want->worker, t.flags, t.attempts));
    perf__queue_task_remember(db, &t);
    return true;
}

int perf__queue_write_claim(struct queue_db *db, const perf_queue_claim *want,
                            perf_queue_reply *reply)
{
    size_t given = 0, before = reply->count, i;
    for (i = 0; i < want->queues_count && !given && !db->rc; i++) {
        struct queue_name *name = perf__queue_db_name_of(db, want->queues[i], false);
        if (!name || name->paused)
            continue;
        size_t picks = 0;
        do {
            pick(db, name, want, want->max - given);
            /* give may add lanes to nothing, but rows to db->followers: picked stays. */
            for (size_t j = 0; j < db->picked.count && !db->rc; j += 2)
                given += give(db, db->picked.rows[j], want, reply);
        } while (db->picked.count && given < want->max && !db->rc && ++picks < PICKS_MAX);
        db->news = db->news || picks == PICKS_MAX; /* the rest is for the next claim */
    }
    if (given < want->max)
        db->taker = (struct queue_taker){want, reply, before, i};
    return db->rc ? db->rc : given ? PERF_OK : PERF_MISS;
}

/* ----------------------------------------------------------- extend, finish */

int perf__queue_write_extend(struct queue_db *db, perf_queue_beat *beat)
{
    struct queue_loaded t;
    bool its = perf__queue_task_load_id(db, beat->id, &t) && t.state == PERF_TASK_RUNNING &&
               (uint64_t)t.token == beat->token;
    if (!its)
        return db->rc ? db->rc : PERF_ECONFLICT;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_BEAT, "iidnns", t.row, beat->lease_until_ms,
                                               beat->fraction, (int64_t)beat->done,
                                               (int64_t)beat->total, beat->text));
    return db->rc ? db->rc : t.flags & TASK_CANCEL ? PERF_ECANCELED : PERF_OK;
}

static void write_end(struct queue_db *db, struct queue_loaded *t, int64_t state,
                      const perf_queue_end *end)
{
    int64_t place, sort;
    bool apart = end->result.len > INLINE_MAX;
    perf_bytes none = {NULL, 0}, result = apart ? none : end->result;
    if (apart)
        perf__queue_db_run(
            db, perf__queue_db_bind(db, SQL_ADD_BYTES, "ib", 2 * t->row + 1, end->result));
    else if (t->flags & TASK_RESULT)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_REMOVE_BYTES, "i", 2 * t->row + 1));
    t->flags = (t->flags & ~(int64_t)(TASK_RESULT | TASK_CANCEL)) | (apart ? TASK_RESULT : 0);
    perf__queue_task_count(db, t->lane, t->state, state);
    t->state = state;
    if (state == PERF_TASK_QUEUED)
        db->news = true;
    const char *types =
        perf__queue_task_place_types(t, &place, &sort, "iiiiiniinnsb", "iinniniinnsb");
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FINISH, types, t->row, state, place, sort,
                                               t->flags, t->attempts, t->due, t->rank, t->ended,
                                               end->status, end->error, result));
}

/* The end of a task of which all is known. False: nothing was done, look for it. */
static bool finish_known(struct queue_db *db, const perf_queue_end *end)
{
    const struct queue_loaded *known =
        db->claimed ? &db->claimed[end->token % CLAIMED_SLOTS] : NULL;
    if (!known || !end->token || (uint64_t)known->token != end->token ||
        known->flags & (TASK_RESULT | TASK_CANCEL) || !perf__task_ended(end->state) ||
        end->result.len > INLINE_MAX)
        return false;
    struct queue_loaded t = *known;
    int64_t place, sort;
    t.state = end->state;
    t.ended = end->now_ms;
    perf__queue_task_place_of(&t, &place, &sort);
    if (!perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FINISH_KNOWN, "itiiiiiinsb", t.row,
                                                    end->id, t.token, t.flags, t.state, place, sort,
                                                    t.ended, end->status, end->error, end->result)))
        return false;
    perf__queue_task_count(db, t.lane, PERF_TASK_RUNNING, t.state);
    perf__queue_task_after_move(db, &t, end->now_ms);
    return true;
}

int perf__queue_write_finish(struct queue_db *db, const perf_queue_end *end)
{
    struct queue_loaded t;
    int64_t state = end->state;
    if (finish_known(db, end))
        return db->rc;
    bool its = perf__queue_task_load_id(db, end->id, &t) && t.state == PERF_TASK_RUNNING &&
               (uint64_t)t.token == end->token;
    if (!its)
        return db->rc ? db->rc : PERF_ECONFLICT;
    if (!perf__task_ended(state) && t.flags & TASK_CANCEL)
        state = PERF_TASK_CANCELLED;
    if (perf__task_ended(state)) {
        t.ended = end->now_ms;
    } else {
        bool later = end->due_ms > end->now_ms;
        t.attempts -= state == PERF_TASK_WAITING;
        if (end->due_ms > 0) {
            t.due = end->due_ms;
            t.rank = perf__task_rank(t.due, t.priority);
        }
        perf__queue_task_keep_line(db, &t, end->now_ms, later ? state : PERF_TASK_QUEUED,
                                   end->status, end->error ? end->error : "");
        if (!later)
            state = t.flags & TASK_LIMITED ? TASK_ASIDE : PERF_TASK_QUEUED;
    }
    write_end(db, &t, state, end);
    perf__queue_task_after_move(db, &t, end->now_ms);
    return db->rc;
}
