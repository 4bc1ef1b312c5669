/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_write.c - what the verbs of the SQLite queue do within a transaction.
 *
 * A verb decides before it writes: an answer such as PERF_EEXISTS leaves nothing
 * behind, and a failure of the file (db->rc) undoes the whole transaction. A
 * task's numbers are loaded, changed here and written back with its place,
 * which is the entry of the one index that says who is next.
 *
 * Of a limit key at most as many tasks stand in a lane as may run; the others
 * are TASK_ASIDE, out of every claim's way. One thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite.h"

enum { ID_MAX = 71, UNIQUE_MAX = 2048, REDRIVE_AT_ONCE = 1000, PICKS_MAX = 1000 };

/* ----------------------------------------------------------------- one task */

/* The numbers of a row of SQL_LOAD, SQL_TASK and their kin. */
static bool fill(struct queue_db *db, sqlite3_stmt *s, struct queue_loaded *t)
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
    bool sound = fill(db, s, t);
    sqlite3_reset(s);
    return sound;
}

static bool load_row(struct queue_db *db, int64_t row, struct queue_loaded *t)
{
    return load(db, perf__queue_db_bind(db, SQL_LOAD, "i", row), t);
}

static bool load_id(struct queue_db *db, const char *id, struct queue_loaded *t)
{
    return load(db, perf__queue_db_bind(db, SQL_LOAD_ID, "t", id), t);
}

static bool has_ended(int64_t state)
{
    return state != TASK_ASIDE && perf__task_ended(state);
}

/* Counts a change of state; 0: it comes, or goes. */
static void count(struct queue_db *db, int64_t lane, int64_t from, int64_t to)
{
    struct queue_lane *l = perf__queue_db_lane(db, lane);
    struct queue_name *n = l ? perf__queue_db_name(db, l->queue) : NULL;
    if (!n || from == to)
        return;
    n->deltas[from] -= from != 0;
    n->deltas[to] += to != 0;
    n->changed = true;
}

/* Where a task in this state stands. False: nowhere. */
static bool place_of(const struct queue_loaded *t, int64_t *place, int64_t *sort)
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

static const char *place_types(const struct queue_loaded *t, int64_t *place, int64_t *sort,
                               const char *placed, const char *nowhere)
{
    if (place_of(t, place, sort))
        return placed;
    *place = *sort = 0;
    return nowhere;
}

/* Writes a task's new state and place. */
static void move(struct queue_db *db, struct queue_loaded *t, int64_t state)
{
    int64_t place, sort;
    count(db, t->lane, t->state, state);
    t->state = state;
    if (state == PERF_TASK_QUEUED)
        db->news = true;
    const char *types = place_types(t, &place, &sort, "iiiiinniinn", "iinninniinn");
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_MOVE, types, t->row, state, place, sort,
                                               t->flags, t->pending, t->attempts, t->due, t->rank,
                                               t->ended, t->deadline));
}

/* After something of its limit key left its state, or came: as many stand in lanes as may run,
 * those that go first. */
static void settle_limit(struct queue_db *db, int64_t row)
{
    for (;;) {
        struct queue_loaded first, last;
        int64_t aside =
            perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_ASIDE, "i", row), 0);
        if (db->rc || !aside || !load_row(db, aside, &first))
            return;
        int64_t used = perf__queue_db_number(
            db, perf__queue_db_bind(db, SQL_LIMIT_USED, "ii", row, first.limit), 0);
        if (used < first.limit) {
            move(db, &first, PERF_TASK_QUEUED);
            continue;
        }
        int64_t in_lane =
            perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_LAST, "i", row), 0);
        if (!in_lane || !load_row(db, in_lane, &last) || last.rank <= first.rank)
            return;
        move(db, &last, TASK_ASIDE);
        move(db, &first, PERF_TASK_QUEUED);
    }
}

static void make_ready(struct queue_db *db, struct queue_loaded *t)
{
    if (!(t->flags & TASK_LIMITED)) {
        move(db, t, PERF_TASK_QUEUED);
        return;
    }
    move(db, t, TASK_ASIDE);
    settle_limit(db, t->row);
}

static void make_due(struct queue_db *db, struct queue_loaded *t, int64_t state, int64_t now_ms)
{
    if (t->due > now_ms)
        move(db, t, state);
    else
        make_ready(db, t);
}

/* ------------------------------------------------------------------ history */

/* Adds a line, and before it that of the attempt that it ends. */
static void keep_line(struct queue_db *db, struct queue_loaded *t, int64_t now_ms, int64_t state,
                      int64_t status, const char *sentence)
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
    if (!load_row(db, row, &t) || !t.pending || has_ended(t.state))
        return;
    if (succeeded || t.flags & TASK_ANY_END) {
        if (--t.pending)
            move(db, &t, PERF_TASK_WAITING);
        else
            make_due(db, &t, PERF_TASK_WAITING, now_ms);
        return;
    }
    static const int64_t status = PERF_ECANCELED;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", row, status,
                                               "a task that it waited for did not succeed"));
    t.pending = 0;
    t.ended = now_ms;
    move(db, &t, PERF_TASK_CANCELLED);
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

/* After a task has left RUNNING or a lane, for an end or not. */
static void after_move(struct queue_db *db, const struct queue_loaded *t, int64_t now_ms)
{
    if (t->flags & TASK_LIMITED)
        settle_limit(db, t->row);
    if (has_ended(t->state) && t->flags & TASK_FOLLOWED)
        release_followers(db, t->row, t->state, now_ms);
}

static void end_task(struct queue_db *db, struct queue_loaded *t, int64_t state, int64_t now_ms,
                     int64_t status, const char *sentence)
{
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", t->row, status, sentence));
    t->pending = 0;
    t->ended = now_ms;
    t->flags &= ~(int64_t)TASK_CANCEL;
    move(db, t, state);
    after_move(db, t, now_ms);
}

/* ----------------------------------------------------------- who claims what */

static bool wanted(const struct queue_lane *lane, const struct queue_name *name,
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

/* Makes a task that is QUEUED, in memory only, RUNNING for this claim. */
static void start(struct queue_db *db, struct queue_loaded *t, const perf_queue_claim *want)
{
    t->state = PERF_TASK_RUNNING;
    t->flags |= TASK_LAST;
    t->attempts++;
    t->token = db->next++;
    t->started = want->now_ms;
    t->lease = want->now_ms + want->lease_ms;
}

/* Remembers a task that was claimed here, for its end. Without memory that end looks for it. */
static void remember(struct queue_db *db, const struct queue_loaded *t)
{
    if (!db->claimed)
        db->claimed = perf__calloc(&db->q->allocator, CLAIMED_SLOTS, sizeof *db->claimed);
    if (db->claimed)
        db->claimed[t->token % CLAIMED_SLOTS] = *t;
}

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
        if (has_ended(state) && state != PERF_TASK_SUCCEEDED && !task->after_any_end)
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
        if (has_ended(state) ||
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
    bool held = !has_ended(state) || until > now_ms;
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
    const char *types = place_types(t, &place, &sort, "itiiiiiniiiniinnnnsssssbnnnns",
                                    "itiinniniiiniinnnnsssssbnnnns");
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
    count(db, t->lane, 0, t->state);
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
        if (name->paused || !wanted(lane, name, want))
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
    remember(db, t);
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
        start(db, &t, taker);
    if (!insert(db, task, &t, uniq, taker ? taker->worker : "")) {
        if (db->rc)
            return db->rc;
        snprintf(existing, 72, "%s", task->id);
        return PERF_EEXISTS;
    }
    if (taker)
        give_new(db, task, &t);
    if (t.state == TASK_ASIDE)
        settle_limit(db, t.row);
    if (t.state == PERF_TASK_QUEUED)
        db->news = true;
    if (failed)
        end_task(db, &t, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                 "a task that it waited for did not succeed");
    return db->rc;
}

/* -------------------------------------------------------------------- claim */

bool perf__queue_write_may_claim(struct queue_db *db, const perf_queue_claim *want)
{
    int64_t one = 1;
    for (size_t i = 0; i < want->queues_count; i++) {
        struct queue_name *name = perf__queue_db_name_of(db, want->queues[i], false);
        for (size_t j = 0; name && !name->paused && j < db->lanes_count; j++)
            if (wanted(&db->lanes[j], name, want) &&
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
        if (!wanted(&db->lanes[j], name, want))
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
        end_task(db, t, PERF_TASK_CANCELLED, want->now_ms, PERF_ETIMEDOUT,
                 "not begun before its deadline");
        return false;
    }
    if (t->flags & TASK_LIMITED) {
        /* Tasks of one key need not agree about its limit. This one is counted. */
        int64_t most = t->limit + 1;
        if (perf__queue_db_number(db, perf__queue_db_bind(db, SQL_LIMIT_USED, "ii", t->row, most),
                                  0) > t->limit) {
            move(db, t, TASK_ASIDE);
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
    bool given = fill(db, s, &t) && t.state == PERF_TASK_QUEUED && may_run(db, &t, want);
    if (!given)
        goto out;
    count(db, t.lane, PERF_TASK_QUEUED, PERF_TASK_RUNNING);
    start(db, &t, want);
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
    remember(db, &t);
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
    bool its = load_id(db, beat->id, &t) && t.state == PERF_TASK_RUNNING &&
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
    count(db, t->lane, t->state, state);
    t->state = state;
    if (state == PERF_TASK_QUEUED)
        db->news = true;
    const char *types = place_types(t, &place, &sort, "iiiiiniinnsb", "iinniniinnsb");
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
    place_of(&t, &place, &sort);
    if (!perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FINISH_KNOWN, "itiiiiiinsb", t.row,
                                                    end->id, t.token, t.flags, t.state, place, sort,
                                                    t.ended, end->status, end->error, end->result)))
        return false;
    count(db, t.lane, PERF_TASK_RUNNING, t.state);
    after_move(db, &t, end->now_ms);
    return true;
}

int perf__queue_write_finish(struct queue_db *db, const perf_queue_end *end)
{
    struct queue_loaded t;
    int64_t state = end->state;
    if (!perf__task_ended(state) && state != PERF_TASK_RETRYING && state != PERF_TASK_WAITING)
        return perf__fail(PERF_EINVAL,
                          "perf_queue_end.state is %lld; give an end, RETRYING or WAITING",
                          (long long)state);
    if (finish_known(db, end))
        return db->rc;
    bool its =
        load_id(db, end->id, &t) && t.state == PERF_TASK_RUNNING && (uint64_t)t.token == end->token;
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
        keep_line(db, &t, end->now_ms, later ? state : PERF_TASK_QUEUED, end->status,
                  end->error ? end->error : "");
        if (!later)
            state = t.flags & TASK_LIMITED ? TASK_ASIDE : PERF_TASK_QUEUED;
    }
    write_end(db, &t, state, end);
    after_move(db, &t, end->now_ms);
    return db->rc;
}

/* -------------------------------------------------------------------- steer */

static int cancel(struct queue_db *db, const char *id, int64_t now_ms)
{
    struct queue_loaded t;
    if (!load_id(db, id, &t) || has_ended(t.state))
        return PERF_MISS;
    if (t.state == PERF_TASK_RUNNING) {
        t.flags |= TASK_CANCEL;
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_FLAGS, "ii", t.row, t.flags));
        return PERF_OK;
    }
    end_task(db, &t, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED, "cancelled before it began");
    return PERF_OK;
}

static int redrive(struct queue_db *db, struct queue_loaded *t, int64_t now_ms)
{
    if (!has_ended(t->state) || t->state == PERF_TASK_SUCCEEDED)
        return PERF_MISS;
    keep_line(db, t, t->ended, t->state, 0, NULL);
    keep_line(db, t, now_ms, PERF_TASK_QUEUED, PERF_OK, "");
    t->attempts = t->ended = 0;
    t->deadline = 0; /* who asks for it now knows how late it is */
    t->due = now_ms;
    t->rank = perf__task_rank(now_ms, t->priority);
    make_ready(db, t);
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
        if (!load_row(db, db->picked.rows[i], &t))
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
    count(db, t->lane, t->state, 0);
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
        rc = load_id(db, name, &t) ? redrive(db, &t, now_ms) : PERF_MISS;
        break;
    case PERF_QUEUE_REDRIVE_ALL:
        *n = 0;
        for (int64_t from = 0; from != INT64_MAX && !db->rc;)
            from = redrive_some(db, name, from, now_ms, n);
        break;
    case PERF_QUEUE_REMOVE:
        if (!load_id(db, name, &t))
            rc = PERF_MISS;
        else if (!has_ended(t.state))
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
        end_task(db, t, cancelled ? PERF_TASK_CANCELLED : PERF_TASK_DEAD, now_ms, PERF_ETIMEDOUT,
                 sentence);
        return !cancelled;
    }
    keep_line(db, t, now_ms, PERF_TASK_QUEUED, PERF_ETIMEDOUT, sentence);
    static const int64_t status = PERF_ETIMEDOUT;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ERROR, "iis", t->row, status, sentence));
    make_ready(db, t);
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
        if (load_row(db, db->picked.rows[i], &t))
            make_ready(db, &t);
    n = list(db, SQL_LEASES, now_ms, most);
    for (size_t i = 0; i < n; i++)
        if (load_row(db, db->picked.rows[i], &t)) {
            swept->dead += rescue(db, &t, now_ms);
            swept->rescued++;
        }
    n = list(db, SQL_EXPIRED, now_ms, most);
    for (size_t i = 0; i < n; i++)
        if (load_row(db, db->picked.rows[i], &t)) {
            remove_task(db, &t);
            swept->removed++;
        }
    swept->next_ms = perf__queue_db_number(db, perf__queue_db_bind(db, SQL_NEXT_DUE, ""), 0);
    return db->rc;
}
