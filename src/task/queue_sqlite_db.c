/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_db.c - statements of the SQLite queue, and what is remembered of its file.
 *
 * Statements are prepared when they are first needed. Queues and lanes are few
 * and change rarely: they are kept in memory, and a number in the file says
 * when they must be read again. What the file says is input like any other:
 * texts are checked and bounded. One thread at a time.
 */
#include <stdarg.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_sqlite.h"

enum { TEXT_MAX = 1 << 20, LANES_MAX = 1 << 20 };

#define LOADED                                                                                \
    "row, state, flags, lane, pending, attempts, token, started, priority, due, rank, keep, " \
    "unique_until, lim, max_attempts, deadline, ended, lease"
/* In the order of queue_sqlite_read.c. */
#define TASK_COLUMNS                                                                         \
    LOADED ", id, user, batch, created, timeout, uniq, limit_key, after, worker, fraction, " \
           "done, total, text, status, error, kept, payload, result"
/* The condition of the index perf_queue_failed, which SQLite wants to read in a query, too. */
#define FAILED "state>5 AND state<9 AND "

static const char *const texts[SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_BEGIN_READ] = "BEGIN",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_SAVEPOINT] = "SAVEPOINT perf_queue",
    [SQL_RELEASE] = "RELEASE perf_queue",
    [SQL_ROLLBACK_TO] = "ROLLBACK TO perf_queue",
    [SQL_DATA_VERSION] = "PRAGMA data_version",
    [SQL_META] =
        "SELECT (SELECT n FROM perf_queue WHERE key=1), (SELECT n FROM perf_queue WHERE key=2)",
    [SQL_SET_META] = "UPDATE perf_queue SET n=?2 WHERE key=?1",
    [SQL_NAMES] = "SELECT queue, name, paused FROM perf_queue_names",
    [SQL_ADD_NAME] = "INSERT INTO perf_queue_names(queue, name, paused) VALUES(?1, ?2, 0)",
    [SQL_PAUSE] = "UPDATE perf_queue_names SET paused=?2 WHERE queue=?1",
    [SQL_LANES] = "SELECT lane, queue, kind, version FROM perf_queue_lanes",
    [SQL_ADD_LANE] = "INSERT INTO perf_queue_lanes VALUES(?1, ?2, ?3, ?4)",
    [SQL_COUNT] =
        "INSERT INTO perf_queue VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET n=n+excluded.n",
    [SQL_COUNTS] = "SELECT key, n FROM perf_queue WHERE key>?1 AND key<?2",
    [SQL_ROW_OF] = "SELECT row, state FROM perf_queue_tasks WHERE id=?1",
    [SQL_UNIQUE] = "SELECT row, id, state, unique_until FROM perf_queue_tasks WHERE uniq=?1",
    [SQL_DROP_UNIQUE] = "UPDATE perf_queue_tasks SET uniq=NULL WHERE row=?1",
    [SQL_INSERT] =
        "INSERT INTO perf_queue_tasks(row, id, lane, state, place, sort, flags, pending, rank, "
        "due, "
        "created, priority, deadline, keep, max_attempts, timeout, unique_until, lim, user, batch, "
        "uniq, limit_key, after, payload, attempts, token, lease, started, worker) VALUES(?1, ?2, "
        "?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, "
        "?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29) "
        "ON CONFLICT(id) DO NOTHING",
    [SQL_ADD_BYTES] = "INSERT OR REPLACE INTO perf_queue_bytes VALUES(?1, ?2)",
    [SQL_BYTES] = "SELECT data FROM perf_queue_bytes WHERE row=?1",
    [SQL_RESULT_BYTES] = "SELECT data FROM perf_queue_bytes WHERE row=?1",
    [SQL_REMOVE_BYTES] = "DELETE FROM perf_queue_bytes WHERE row=?1",
    [SQL_FOLLOW] = "INSERT OR IGNORE INTO perf_queue_after VALUES(?1, ?2)",
    [SQL_FOLLOWED] = "UPDATE perf_queue_tasks SET flags=flags|1 WHERE row=?1",
    [SQL_FOLLOWERS] = "SELECT follower FROM perf_queue_after WHERE first=?1",
    [SQL_UNFOLLOW] = "DELETE FROM perf_queue_after WHERE first=?1",
    [SQL_READY] =
        "SELECT row, sort FROM perf_queue_tasks WHERE place=?1 ORDER BY sort, row LIMIT ?2",
    [SQL_FIRST] =
        "SELECT rank, due FROM perf_queue_tasks WHERE place=?1 ORDER BY sort, row LIMIT 1",
    [SQL_LOAD] = "SELECT " LOADED " FROM perf_queue_tasks WHERE row=?1",
    [SQL_LOAD_ID] = "SELECT " LOADED " FROM perf_queue_tasks WHERE id=?1",
    [SQL_KEPT] = "SELECT worker, status, error, kept FROM perf_queue_tasks WHERE row=?1",
    [SQL_KEEP] = "UPDATE perf_queue_tasks SET kept=?2 WHERE row=?1",
    [SQL_MOVE] = "UPDATE perf_queue_tasks SET state=?2, place=?3, sort=?4, flags=?5, pending=?6, "
                 "attempts=?7, due=?8, rank=?9, ended=?10, deadline=?11 WHERE row=?1",
    [SQL_CLAIM] = "UPDATE perf_queue_tasks SET state=3, place=0, sort=?2, lease=?2, token=?3, "
                  "started=?4, worker=?5, flags=?6, attempts=?7, fraction=NULL, done=NULL, "
                  "total=NULL, text=NULL WHERE row=?1",
    [SQL_BEAT] = "UPDATE perf_queue_tasks SET lease=?2, fraction=?3, done=?4, total=?5, text=?6 "
                 "WHERE row=?1",
    [SQL_FINISH] = "UPDATE perf_queue_tasks SET state=?2, place=?3, sort=?4, flags=?5, "
                   "attempts=?6, due=?7, rank=?8, ended=?9, status=?10, error=?11, result=?12 "
                   "WHERE row=?1",
    /* Of a task that this process claimed, if nothing has become of it since. */
    [SQL_FINISH_KNOWN] = "UPDATE perf_queue_tasks SET state=?5, place=?6, sort=?7, ended=?8, "
                         "status=?9, error=?10, result=?11 WHERE row=?1 AND id=?2 AND token=?3 "
                         "AND flags=?4 AND state=3",
    [SQL_ERROR] = "UPDATE perf_queue_tasks SET status=?2, error=?3 WHERE row=?1",
    [SQL_FLAGS] = "UPDATE perf_queue_tasks SET flags=?2 WHERE row=?1",
    [SQL_LIMIT_USED] =
        "SELECT count(*) FROM (SELECT 1 FROM perf_queue_tasks WHERE limit_key=(SELECT limit_key "
        "FROM perf_queue_tasks WHERE row=?1) AND state>=2 AND state<=3 LIMIT ?2)",
    [SQL_LIMIT_ASIDE] =
        "SELECT row, rank FROM perf_queue_tasks WHERE limit_key=(SELECT limit_key FROM "
        "perf_queue_tasks WHERE row=?1) AND state=9 ORDER BY rank, row LIMIT 1",
    [SQL_LIMIT_LAST] =
        "SELECT row, rank FROM perf_queue_tasks WHERE limit_key=(SELECT limit_key FROM "
        "perf_queue_tasks WHERE row=?1) AND state=2 ORDER BY rank DESC, row DESC LIMIT 1",
    [SQL_DUE] = "SELECT row FROM perf_queue_tasks WHERE place=-1 AND sort<=?1 ORDER BY sort, row "
                "LIMIT ?2",
    /* sort is the lease of the claim; a longer one that a beat gave is in lease only. */
    [SQL_LEASES] = "SELECT row FROM perf_queue_tasks WHERE place=0 AND sort<=?1 AND lease<=?1 "
                   "LIMIT ?2",
    [SQL_EXPIRED] = "SELECT row FROM perf_queue_tasks WHERE place=-2 AND sort<=?1 ORDER BY sort "
                    "LIMIT ?2",
    [SQL_NEXT_DUE] = "SELECT min(sort) FROM perf_queue_tasks WHERE place=-1",
    [SQL_REMOVE] = "DELETE FROM perf_queue_tasks WHERE row=?1",
    [SQL_DEAD] =
        "SELECT row FROM perf_queue_tasks WHERE " FAILED "state=8 AND row>?1 ORDER BY row LIMIT ?2",
    [SQL_TASK] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE row=?1",
    [SQL_TASK_ID] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE id=?1",
    [SQL_FIND] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE row<?1 ORDER BY row DESC",
    [SQL_FIND_USER] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE row<?1 AND user=?2 "
                      "ORDER BY row DESC",
    [SQL_FIND_BATCH] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE row<?1 AND batch=?2 "
                       "ORDER BY row DESC",
    [SQL_FIND_RUNNING] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE place=0 AND row<?1 "
                         "ORDER BY row DESC",
    [SQL_FIND_FAILED] =
        "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE " FAILED "state=6 AND row<?1 "
        "ORDER BY row DESC",
    [SQL_FIND_CANCELLED] = "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE " FAILED
                           "state=7 AND row<?1 ORDER BY row DESC",
    [SQL_FIND_DEAD] =
        "SELECT " TASK_COLUMNS " FROM perf_queue_tasks WHERE " FAILED "state=8 AND row<?1 "
        "ORDER BY row DESC",
};

/* ------------------------------------------------------------------- errors */

static const struct {
    int sqlite, status;
    const char *fix;
} failures[] = {
    {SQLITE_BUSY, PERF_EBUSY, "somebody else held the lock for longer than the timeout"},
    {SQLITE_LOCKED, PERF_EBUSY, "somebody else held the lock for longer than the timeout"},
    {SQLITE_NOMEM, PERF_ENOMEM, "lower the limits or free memory"},
    {SQLITE_IOERR_NOMEM, PERF_ENOMEM, "lower the limits or free memory"},
    {SQLITE_TOOBIG, PERF_ETOOBIG, "the task is larger than SQLite can store"},
    {SQLITE_FULL, PERF_EIO, "free disk space"},
    {SQLITE_READONLY, PERF_EIO, "make the file and its directory writable"},
    {SQLITE_PERM, PERF_EIO, "make the file and its directory writable"},
    {SQLITE_CANTOPEN, PERF_EIO, "the directory must exist and be writable"},
    {SQLITE_CORRUPT, PERF_ECORRUPT,
     "the file is damaged: stop its users and save what `sqlite3 FILE .recover` finds"},
    {SQLITE_NOTADB, PERF_ECORRUPT,
     "this is no SQLite database, or a damaged one; it was left alone: give another file"},
};

int perf__queue_db_fail(struct queue_db *db, const char *act)
{
    if (db->rc)
        return db->rc;
    int code = db->db ? sqlite3_extended_errcode(db->db) : SQLITE_NOMEM;
    const char *text = db->db ? sqlite3_errmsg(db->db) : "out of memory";
    const char *fix = "check the disk and the system's log";
    db->rc = PERF_EIO;
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        if (failures[i].sqlite != code && failures[i].sqlite != (code & 0xff))
            continue;
        db->rc = failures[i].status;
        fix = failures[i].fix;
    }
    if (code == SQLITE_IOERR_NOMEM)
        db->rc = PERF_ENOMEM;
    if (code == SQLITE_BUSY_SNAPSHOT)
        fix = "the transaction began before another one committed: begin it with BEGIN IMMEDIATE";
    return perf__fail(db->rc, "sqlite queue %.200s: %s: %s (SQLite %d); %s", db->q->path, act, text,
                      code, fix);
}

int perf__queue_db_corrupt(struct queue_db *db, const char *what)
{
    if (!db->rc)
        db->rc = perf__fail(PERF_ECORRUPT,
                            "sqlite queue %.200s: %s is not what libperf wrote; save what "
                            "`sqlite3 FILE .recover` finds",
                            db->q->path, what);
    return db->rc;
}

static void no_memory(struct queue_db *db)
{
    if (!db->rc)
        db->rc = perf__fail_nomem("the sqlite queue");
}

/* --------------------------------------------------------------- statements */

static bool bind_one(sqlite3_stmt *s, int i, char type, va_list *args)
{
    int64_t number;
    const char *text;
    perf_bytes bytes;
    switch (type) {
    case 'i':
        return !sqlite3_bind_int64(s, i, va_arg(*args, int64_t));
    case 'n':
        number = va_arg(*args, int64_t);
        return !(number ? sqlite3_bind_int64(s, i, number) : sqlite3_bind_null(s, i));
    case 'd':
        return !sqlite3_bind_double(s, i, va_arg(*args, double));
    case 't':
        return !sqlite3_bind_text(s, i, va_arg(*args, const char *), -1, SQLITE_STATIC);
    case 's':
        text = va_arg(*args, const char *);
        return !(text && text[0] ? sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC)
                                 : sqlite3_bind_null(s, i));
    default:
        bytes = va_arg(*args, perf_bytes);
        return !(bytes.len ? sqlite3_bind_blob64(s, i, bytes.data, bytes.len, SQLITE_STATIC)
                           : sqlite3_bind_null(s, i));
    }
}

sqlite3_stmt *perf__queue_db_bind(struct queue_db *db, enum sql sql, const char *types, ...)
{
    if (db->rc)
        return NULL;
    sqlite3_stmt **statement = &db->statements[sql];
    if (!*statement && sqlite3_prepare_v3(db->db, texts[sql], -1, SQLITE_PREPARE_PERSISTENT,
                                          statement, NULL) != SQLITE_OK) {
        perf__queue_db_fail(db, "preparing a statement");
        return NULL;
    }
    va_list args;
    va_start(args, types);
    bool bound = true;
    for (int i = 0; types[i] && bound; i++)
        bound = bind_one(*statement, i + 1, types[i], &args);
    va_end(args);
    if (!bound) {
        perf__queue_db_fail(db, "binding");
        return NULL;
    }
    return *statement;
}

bool perf__queue_db_row(struct queue_db *db, sqlite3_stmt *statement)
{
    if (!statement)
        return false;
    int code = db->rc ? SQLITE_DONE : sqlite3_step(statement);
    if (code == SQLITE_ROW)
        return true;
    if (code != SQLITE_DONE)
        perf__queue_db_fail(db, sqlite3_sql(statement));
    sqlite3_reset(statement);
    return false;
}

int64_t perf__queue_db_run(struct queue_db *db, sqlite3_stmt *statement)
{
    while (perf__queue_db_row(db, statement))
        continue;
    return db->rc ? 0 : sqlite3_changes(db->db);
}

int64_t perf__queue_db_number(struct queue_db *db, sqlite3_stmt *statement, int64_t otherwise)
{
    if (!perf__queue_db_row(db, statement))
        return otherwise;
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    return number;
}

/* ---------------------------------------------------------- what the file says */

const char *perf__queue_db_text(struct queue_db *db, sqlite3_stmt *statement, int column)
{
    int type = sqlite3_column_type(statement, column);
    if (type == SQLITE_NULL)
        return "";
    const unsigned char *text = type == SQLITE_TEXT ? sqlite3_column_text(statement, column) : NULL;
    size_t len = (size_t)sqlite3_column_bytes(statement, column);
    if (text && len <= TEXT_MAX && strlen((const char *)text) == len &&
        perf__task_is_utf8(text, len))
        return (const char *)text;
    if (type == SQLITE_TEXT && !text)
        no_memory(db);
    perf__queue_db_corrupt(db, sqlite3_column_name(statement, column));
    return "";
}

perf_bytes perf__queue_db_bytes(struct queue_db *db, sqlite3_stmt *statement, int column)
{
    if (sqlite3_column_type(statement, column) == SQLITE_NULL)
        return (perf_bytes){"", 0};
    const void *data = sqlite3_column_blob(statement, column);
    perf_bytes bytes = {data, (size_t)sqlite3_column_bytes(statement, column)};
    if (!data && bytes.len)
        no_memory(db);
    return data && !db->rc ? bytes : (perf_bytes){"", 0};
}

/* Room for one more. */
static bool grow(struct queue_db *db, void *array, size_t count, size_t *cap, size_t size)
{
    void **at = array;
    if (count < *cap)
        return true;
    size_t wanted = *cap ? 2 * *cap : 16;
    void *grown = perf__realloc(&db->q->allocator, *at, wanted * size);
    if (!grown) {
        no_memory(db);
        return false;
    }
    *at = grown;
    *cap = wanted;
    return true;
}

bool perf__queue_rows_add(struct queue_db *db, struct queue_rows *rows, int64_t row)
{
    if (!grow(db, &rows->rows, rows->count, &rows->cap, sizeof *rows->rows))
        return false;
    rows->rows[rows->count++] = row;
    return true;
}

void perf__queue_db_rows(struct queue_db *db, sqlite3_stmt *statement, struct queue_rows *rows)
{
    while (perf__queue_db_row(db, statement))
        perf__queue_rows_add(db, rows, sqlite3_column_int64(statement, 0));
}

/* ----------------------------------------------------------- queues and lanes */

static void forget(struct queue_db *db)
{
    for (size_t i = 0; i < db->names_count; i++)
        perf__free(&db->q->allocator, db->names[i].name);
    for (size_t i = 0; i < db->lanes_count; i++)
        perf__free(&db->q->allocator, db->lanes[i].kind);
    db->names_count = db->lanes_count = 0;
    db->changes = -1;
}

static struct queue_name *remember_name(struct queue_db *db, int64_t queue, const char *name,
                                        int64_t paused)
{
    if (db->rc || !grow(db, &db->names, db->names_count, &db->names_cap, sizeof *db->names))
        return NULL;
    char *own = perf__strndup(&db->q->allocator, name, strlen(name));
    if (!own) {
        no_memory(db);
        return NULL;
    }
    struct queue_name *n = &db->names[db->names_count++];
    *n = (struct queue_name){.queue = queue, .paused = paused, .name = own};
    return n;
}

static struct queue_lane *remember_lane(struct queue_db *db, int64_t lane, int64_t queue,
                                        const char *kind, int64_t version)
{
    if (db->rc || !grow(db, &db->lanes, db->lanes_count, &db->lanes_cap, sizeof *db->lanes))
        return NULL;
    char *own = perf__strndup(&db->q->allocator, kind, strlen(kind));
    if (!own) {
        no_memory(db);
        return NULL;
    }
    struct queue_lane *l = &db->lanes[db->lanes_count++];
    *l = (struct queue_lane){lane, queue, version, own};
    return l;
}

void perf__queue_db_refresh(struct queue_db *db)
{
    sqlite3_stmt *s = perf__queue_db_bind(db, SQL_META, "");
    int64_t changes = 0;
    if (perf__queue_db_row(db, s)) {
        db->next = db->next_read = sqlite3_column_int64(s, 0);
        changes = sqlite3_column_int64(s, 1);
        if (sqlite3_column_type(s, 0) != SQLITE_INTEGER || changes < 0 || db->next < 1 ||
            db->next > NUMBER_MAX)
            perf__queue_db_corrupt(db, "the table perf_queue");
        sqlite3_reset(s);
    }
    if (db->rc || changes == db->changes)
        return;
    forget(db);
    s = perf__queue_db_bind(db, SQL_NAMES, "");
    while (perf__queue_db_row(db, s)) {
        int64_t queue = sqlite3_column_int64(s, 0);
        if (queue < 1 || queue > NUMBER_MAX)
            perf__queue_db_corrupt(db, "the table perf_queue_names");
        remember_name(db, queue, perf__queue_db_text(db, s, 1), sqlite3_column_int64(s, 2));
    }
    s = perf__queue_db_bind(db, SQL_LANES, "");
    while (perf__queue_db_row(db, s)) {
        int64_t lane = sqlite3_column_int64(s, 0), queue = sqlite3_column_int64(s, 1);
        if (lane < 1 || lane > NUMBER_MAX || db->lanes_count > LANES_MAX ||
            !perf__queue_db_name(db, queue))
            perf__queue_db_corrupt(db, "the table perf_queue_lanes");
        remember_lane(db, lane, queue, perf__queue_db_text(db, s, 2), sqlite3_column_int64(s, 3));
    }
    if (!db->rc)
        db->changes = db->changes_read = changes;
}

void perf__queue_db_settle(struct queue_db *db)
{
    for (size_t i = 0; i < db->names_count; i++) {
        struct queue_name *n = &db->names[i];
        if (!n->changed)
            continue;
        n->changed = false;
        n->deltas[PERF_TASK_QUEUED] += n->deltas[TASK_ASIDE];
        n->deltas[TASK_ASIDE] = 0;
        for (int64_t state = PERF_TASK_WAITING; state <= PERF_TASK_DEAD; state++) {
            if (n->deltas[state])
                perf__queue_db_run(db, perf__queue_db_bind(db, SQL_COUNT, "ii",
                                                           COUNT_KEY(n->queue) + state,
                                                           n->deltas[state]));
            n->deltas[state] = 0;
        }
    }
    int64_t next = KEY_NEXT, changes = KEY_CHANGES;
    if (db->next != db->next_read)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_SET_META, "ii", next, db->next));
    if (db->changes != db->changes_read)
        perf__queue_db_run(db, perf__queue_db_bind(db, SQL_SET_META, "ii", changes, db->changes));
    db->changes_read = db->changes;
}

struct queue_name *perf__queue_db_name(struct queue_db *db, int64_t queue)
{
    for (size_t i = 0; i < db->names_count; i++)
        if (db->names[i].queue == queue)
            return &db->names[i];
    return NULL;
}

struct queue_name *perf__queue_db_name_of(struct queue_db *db, const char *name, bool make)
{
    for (size_t i = 0; i < db->names_count; i++)
        if (!strcmp(db->names[i].name, name))
            return &db->names[i];
    if (!make || db->rc)
        return NULL;
    int64_t queue = db->next++;
    db->changes++;
    perf__queue_db_run(db, perf__queue_db_bind(db, SQL_ADD_NAME, "it", queue, name));
    return remember_name(db, queue, name, 0);
}

struct queue_lane *perf__queue_db_lane(struct queue_db *db, int64_t lane)
{
    for (size_t i = 0; i < db->lanes_count; i++)
        if (db->lanes[i].lane == lane)
            return &db->lanes[i];
    perf__queue_db_corrupt(db, "the lane of a task");
    return NULL;
}

struct queue_lane *perf__queue_db_lane_of(struct queue_db *db, const char *queue, const char *kind,
                                          int64_t version)
{
    struct queue_name *name = perf__queue_db_name_of(db, queue, true);
    if (!name)
        return NULL;
    for (size_t i = 0; i < db->lanes_count; i++) {
        struct queue_lane *l = &db->lanes[i];
        if (l->queue == name->queue && l->version == version && !strcmp(l->kind, kind))
            return l;
    }
    int64_t lane = db->next++;
    db->changes++;
    perf__queue_db_run(
        db, perf__queue_db_bind(db, SQL_ADD_LANE, "iiti", lane, name->queue, kind, version));
    return remember_lane(db, lane, name->queue, kind, version);
}

void perf__queue_db_clear(struct queue_db *db)
{
    for (size_t i = 0; i < SQL_STATEMENTS; i++) {
        sqlite3_finalize(db->statements[i]);
        db->statements[i] = NULL;
    }
    forget(db);
    perf__free(&db->q->allocator, db->names);
    perf__free(&db->q->allocator, db->lanes);
    perf__free(&db->q->allocator, db->ends.rows);
    perf__free(&db->q->allocator, db->followers.rows);
    perf__free(&db->q->allocator, db->picked.rows);
    perf__free(&db->q->allocator, db->claimed);
}
