/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_task.c - one task of the SQLite queue within a transaction: its numbers are loaded,
 * changed here and written back with its place, which is the entry of the one index that
 * says who is next.
 *
 * Of a limit key at most as many tasks stand in a lane as may run; the others
 * are TASK_ASIDE, out of every claim's way. One thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite_task.h"

/* ----------------------------------------------------------------- one task */

bool perf__queue_task_fill(struct queue_db *db, sqlite3_stmt *s, struct queue_loaded *t)
{
    int64_t *const fields[] = {
        &t->row,          &t->state,   &t->flags,        &t->lane,     &t->pending, &t->attempts,
        &t->token,        &t->started, &t->priority,     &t->due,      &t->rank,    &t->keep,
        &t->unique_until, &t->limit,   &t->max_attempts, &t->deadline, &t->ended,   &t->lease};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = sqlite3_column_int64(s, (int)i);
    /* Bounds that keep all sums and products below from overflowing. */
    bool sound = t->state >= PERF_TASK_WAITING && t->state <= TASK_ASIDE && t->row > 0 &&
                 t->row <= NUMBER_MAX && t->due >= -NUMBER_MAX && t->due <= NUMBER_MAX &&
                 t->priority >= -100 && t->priority <= 100 && t->limit <= NUMBER_MAX;
    if (!sound)
        perf__queue_db_corrupt(db, "a number of a task");
    return !db->rc;
}

static bool load(struct queue_db *db, sqlite3_stmt *s, struct queue_loaded *t)
{
    if (!perf__queue_db_row(db, s))
        return false;
    bool sound = perf__queue_task_fill(db, s, t);
    sqlite3_reset(s);
    return sound;
}

bool perf__queue_task_load_row(struct queue_db *db, int64_t row, struct queue_loaded *t)
{
    return load(db, perf__queue_db_bind(db, SQL_LOAD, "i", row), t);
}

bool perf__queue_task_load_id(struct queue_db *db, const char *id, struct queue_loaded *t)
{
    return load(db, perf__queue_db_bind(db, SQL_LOAD_ID, "t", id), t);
}

bool perf__queue_task_has_ended(int64_t state)
{
    return state != TASK_ASIDE && perf__task_ended(state);
}

void perf__queue_task_count(struct queue_db *db, int64_t lane, int64_t from, int64_t to)
{
    struct queue_lane *l = perf__queue_db_lane(db, lane);
    struct queue_name *n = l ? perf__queue_db_name(db, l->queue) : NULL;
    if (!n || from == to)
        return;
    n->deltas[from] -= from != 0;
    n->deltas[to] += to != 0;
    n->changed = true;
}

bool perf__queue_task_place_of(const struct queue_loaded *t, int64_t *place, int64_t *sort)
{
    switch (t->state) {
    case PERF_TASK_WAITING:
    case PERF_TASK_RETRYING:
        *place = PLACE_WAITING;
        *sort = t->due;
        return !t->pending;
    case PERF_TASK_QUEUED:
        *place = t->lane;
        *sort = t->rank;
        return true;
    case PERF_TASK_RUNNING:
        *place = PLACE_RUNNING;
        *sort = t->lease;
        return true;
    case TASK_ASIDE:
        return false;
    default:
        *place = PLACE_ENDED;
        *sort = t->keep > INT64_MAX - t->ended ? INT64_MAX : t->ended + t->keep;
        if (t->unique_until > *sort)
            *sort = t->unique_until;
        return true;
    }
}

const char *perf__queue_task_place_types(const struct queue_loaded *t, int64_t *place,
                                         int64_t *sort, const char *placed, const char *nowhere)
{
    if (perf__queue_task_place_of(t, place, sort))
        return placed;
    *place = *sort = 0;
    return nowhere;
}

void perf__queue_task_move(struct queue_db *db, struct queue_loaded *t, int64_t state)
{
    int64_t place, sort;
    perf__queue_task_count(db, t->lane, t->state, state);
    t->state = state;
    if (state == PERF_TASK_QUEUED)
        db->news = true;
    const char *types =
        perf__queue_task_place_types(t, &place, &sort, "iiiiinniinn", "iinninniinn");
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_MOVE, types, t->row, state, place, sort,
                                               t->flags, t->pending, t->attempts, t->due, t->rank,
                                               t->ended, t->deadline));
}

void perf__queue_task_settle_limit(struct queue_db *db, int64_t row)
{
    for (;;) {
        struct queue_loaded first, last;
        int64_t aside =
            perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_ASIDE, "i", row), 0);
        if (db->rc || !aside || !perf__queue_task_load_row(db, aside, &first))
            return;
        int64_t used = perf__queue_db_number(
            db, perf__queue_db_bind(db, SQL_LIMIT_USED, "ii", row, first.limit), 0);
        if (used < first.limit) {
            perf__queue_task_move(db, &first, PERF_TASK_QUEUED);
            continue;
        }
        int64_t in_lane =
            perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_LAST, "i", row), 0);
        if (!in_lane || !perf__queue_task_load_row(db, in_lane, &last) || last.rank <= first.rank)
            return;
        perf__queue_task_move(db, &last, TASK_ASIDE);
        perf__queue_task_move(db, &first, PERF_TASK_QUEUED);
    }
}

void perf__queue_task_make_ready(struct queue_db *db, struct queue_loaded *t)
{
    if (!(t->flags & TASK_LIMITED)) {
        perf__queue_task_move(db, t, PERF_TASK_QUEUED);
        return;
    }
    perf__queue_task_move(db, t, TASK_ASIDE);
    perf__queue_task_settle_limit(db, t->row);
}

static void make_due(struct queue_db *db, struct queue_loaded *t, int64_t state, int64_t now_ms)
{
    if (t->due > now_ms)
        perf__queue_task_move(db, t, state);
    else
        perf__queue_task_make_ready(db, t);
}

/* ------------------------------------------------------------------ history */

void perf__queue_task_keep_line(struct queue_db *db, struct queue_loaded *t, int64_t now_ms,
                                int64_t state, int64_t status, const char *sentence)
{
    struct perf__history *h = &db->history;
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_KEPT, "i", t->row);
    if (!perf__queue_db_row(db, s))
        return;
    perf__history_begin(h, perf__queue_db_text(db, s, 3));
    const char *worker = perf__queue_db_text(db, s, 0);
    bool last = t->flags & TASK_LAST;
    if (last)
        perf__history_add(h, t->started, PERF_TASK_RUNNING, worker, PERF_OK, "");
    /* The end of a task that is driven again has its status in the row. */
    bool own = !sentence;
    perf__history_add(h, now_ms, state, last ? worker : "",
                      own ? sqlite3_column_int64(s, 1) : status,
                      own ? perf__queue_db_text(db, s, 2) : sentence);
    sqlite3_reset(s);
    t->flags &= ~(int64_t)TASK_LAST;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_KEEP, "it", t->row, h->text));
}

/* --------------------------------------------------------------------- ends */

static void release_follower(struct queue_db *db, int64_t row, bool succeeded, int64_t now_ms)
{
    struct queue_loaded t;
    if (!perf__queue_task_load_row(db, row, &t) || !t.pending ||
        perf__queue_task_has_ended(t.state))
        return;
    if (succeeded || t.flags & TASK_ANY_END) {
        if (--t.pending)
            perf__queue_task_move(db, &t, PERF_TASK_WAITING);
        else
            make_due(db, &t, PERF_TASK_WAITING, now_ms);
        return;
    }
    static const int64_t status = PERF_ECANCELED;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", row, status,
                                               "a task that it waited for did not succeed"));
    t.pending = 0;
    t.ended = now_ms;
    perf__queue_task_move(db, &t, PERF_TASK_CANCELLED);
    if (t.flags & TASK_FOLLOWED)
        perf__queue_rows_add(db, &db->ends, row);
}

/* A task with followers has ended: they go on, or end, too, with theirs. */
static void release_followers(struct queue_db *db, int64_t row, int64_t state, int64_t now_ms)
{
    db->ends.count = 0;
    perf__queue_rows_add(db, &db->ends, row);
    for (size_t i = 0; i < db->ends.count && !db->rc; i++) {
        /* All but the first were cancelled. */
        bool succeeded = !i && state == PERF_TASK_SUCCEEDED;
        int64_t first = db->ends.rows[i];
        db->followers.count = 0;
        perf__queue_db_rows(db, perf__queue_db_bind(db, SQL_FOLLOWERS, "i", first), &db->followers);
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_UNFOLLOW, "i", first));
        for (size_t j = 0; j < db->followers.count && !db->rc; j++)
            release_follower(db, db->followers.rows[j], succeeded, now_ms);
    }
}

void perf__queue_task_after_move(struct queue_db *db, const struct queue_loaded *t, int64_t now_ms)
{
    if (t->flags & TASK_LIMITED)
        perf__queue_task_settle_limit(db, t->row);
    if (perf__queue_task_has_ended(t->state) && t->flags & TASK_FOLLOWED)
        release_followers(db, t->row, t->state, now_ms);
}

void perf__queue_task_end(struct queue_db *db, struct queue_loaded *t, int64_t state,
                          int64_t now_ms, int64_t status, const char *sentence)
{
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", t->row, status, sentence));
    t->pending = 0;
    t->ended = now_ms;
    t->flags &= ~(int64_t)TASK_CANCEL;
    perf__queue_task_move(db, t, state);
    perf__queue_task_after_move(db, t, now_ms);
}

/* ----------------------------------------------------------- who claims what */

bool perf__queue_task_wanted(const struct queue_lane *lane, const struct queue_name *name,
                             const perf_queue_claim *want)
{
    if (lane->queue != name->queue)
        return false;
    for (size_t i = 0; i < want->kinds_count; i++) {
        const perf_queue_kind *k = &want->kinds[i];
        if (lane->version >= k->version_min && lane->version <= k->version_max &&
            !strcmp(lane->kind, k->kind))
            return true;
    }
    return false;
}

void perf__queue_task_start(struct queue_db *db, struct queue_loaded *t,
                            const perf_queue_claim *want)
{
    t->state = PERF_TASK_RUNNING;
    t->flags |= TASK_LAST;
    t->attempts++;
    t->token = db->next++;
    t->started = want->now_ms;
    t->lease = want->now_ms + want->lease_ms;
}

void perf__queue_task_remember(struct queue_db *db, const struct queue_loaded *t)
{
    if (!db->claimed)
        db->claimed = perf__calloc(&db->q->allocator, CLAIMED_SLOTS, sizeof *db->claimed);
    if (db->claimed)
        db->claimed[t->token % CLAIMED_SLOTS] = *t;
}
