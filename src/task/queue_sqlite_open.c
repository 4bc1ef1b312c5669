/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_open.c - opens the database file of a queue, or says why not.
 *
 * The file may hold other tables, too, so that a host can submit tasks within
 * its own transactions; those are never looked at. The queue's tables are
 * named perf_queue... and carry their version in one of their own rows, since
 * user_version and application_id belong to the host. Tables of these names
 * that are not exactly ours are refused, and nothing is changed. New files are
 * readable by their owner only.
 *
 * mmap stays off: a file that is cut short under a mapping kills the process
 * with SIGBUS.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "queue_sqlite.h"

enum {
    FORMAT_VERSION = 1,
    DEFAULT_TIMEOUT_MS = 5000,
    SWITCH_RETRY_MS = 5,
    CACHE_KIB = 16384,
    LOOKASIDE_SIZE = 1200,
    LOOKASIDE_COUNT = 400,
    CHECKPOINT_PAGES = 4000,
    RETRY_MIN_NS = 50000, /* a lock of another process is asked for again after so long */
    RETRY_MAX_NS = 2000000
};

static const char default_location[] = "libperf-tasks.db";

/*
 * One index has all tasks that anybody waits for, each once: due ones under their lane by rank,
 * running ones by lease, waiting ones by time, ended ones by when they are forgotten. The others
 * have only the rows that need them. No IN in a condition: SQLite would build a table of its
 * numbers for every row that changes.
 */
static const char *const schema[] = {
    "CREATE TABLE perf_queue(key INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    "CREATE TABLE perf_queue_names(queue INTEGER PRIMARY KEY, name TEXT NOT NULL, paused INTEGER "
    "NOT NULL)",
    "CREATE TABLE perf_queue_lanes(lane INTEGER PRIMARY KEY, queue INTEGER NOT NULL, kind TEXT NOT "
    "NULL, version INTEGER NOT NULL)",
    "CREATE TABLE perf_queue_tasks(row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane INTEGER "
    "NOT NULL, state INTEGER NOT NULL, place INTEGER, sort INTEGER, flags INTEGER NOT NULL, "
    "pending "
    "INTEGER, attempts INTEGER, token INTEGER, lease INTEGER, started INTEGER, ended INTEGER, "
    "status INTEGER, rank INTEGER NOT NULL, due INTEGER NOT NULL, created INTEGER NOT NULL, "
    "priority INTEGER, deadline INTEGER, keep INTEGER NOT NULL, max_attempts INTEGER, timeout "
    "INTEGER, unique_until INTEGER, lim INTEGER, worker TEXT, user TEXT, batch TEXT, uniq TEXT, "
    "limit_key TEXT, after TEXT, fraction REAL, done INTEGER, total INTEGER, text TEXT, error "
    "TEXT, kept TEXT, payload BLOB, result BLOB)",
    "CREATE INDEX perf_queue_place ON perf_queue_tasks(place, sort) WHERE place IS NOT NULL",
    "CREATE UNIQUE INDEX perf_queue_uniq ON perf_queue_tasks(uniq) WHERE uniq IS NOT NULL",
    "CREATE INDEX perf_queue_limit ON perf_queue_tasks(limit_key, state, rank) WHERE limit_key IS "
    "NOT NULL",
    "CREATE INDEX perf_queue_user ON perf_queue_tasks(user) WHERE user IS NOT NULL",
    "CREATE INDEX perf_queue_batch ON perf_queue_tasks(batch) WHERE batch IS NOT NULL",
    "CREATE INDEX perf_queue_failed ON perf_queue_tasks(state) WHERE state>5 AND state<9",
    "CREATE TABLE perf_queue_bytes(row INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE perf_queue_after(first INTEGER NOT NULL, follower INTEGER NOT NULL, PRIMARY "
    "KEY(first, follower)) WITHOUT ROWID",
};

enum { SCHEMA_SIZE = sizeof schema / sizeof *schema };

static int execute(struct queue_db *db, const char *sql)
{
    if (!db->rc && sqlite3_exec(db->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        perf__queue_db_fail(db, sql);
    return db->rc;
}

/* The first number of a statement that is used once. */
static int64_t query(struct queue_db *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (!db->rc && sqlite3_prepare_v2(db->db, sql, -1, &statement, NULL) != SQLITE_OK)
        perf__queue_db_fail(db, "opening");
    int64_t number = perf__queue_db_number(db, statement, 0);
    sqlite3_finalize(statement);
    return number;
}

/* ---------------------------------------------------------------- connections */

/*
 * SQLite's own handler sleeps up to 100 ms, which several processes that commit all the time
 * would feel. The deadline counts from the first call.
 */
static int on_busy(void *ctx, int times)
{
    struct sqlite_queue *q = ctx;
    int64_t now = perf__now_ns(&perf__default_clock);
    if (!times)
        q->busy_until_ns = now + q->timeout_ms * 1000000;
    if (now >= q->busy_until_ns)
        return 0;
    long pause = RETRY_MIN_NS << (times < 6 ? times : 6);
    struct timespec sleep = {0, pause < RETRY_MAX_NS ? pause : RETRY_MAX_NS};
    nanosleep(&sleep, NULL);
    return 1;
}

static int connect(struct queue_db *db, bool writes)
{
    struct sqlite_queue *q = db->q;
    /* We lock around every connection ourselves. */
    int code = sqlite3_open_v2(
        q->path, &db->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
        NULL);
    if (code != SQLITE_OK)
        return perf__queue_db_fail(db, "opening");
    sqlite3_extended_result_codes(db->db, 1);
    sqlite3_db_config(db->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_SIZE, LOOKASIDE_COUNT);
    if (writes)
        sqlite3_busy_handler(db->db, on_busy, q);
    else
        sqlite3_busy_timeout(db->db, (int)q->timeout_ms);
    /* The file is input like any other: what hides in its schema is not run. */
    sqlite3_db_config(db->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    char pragmas[192];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA mmap_size=0; PRAGMA cell_size_check=1; PRAGMA cache_size=-%d; PRAGMA "
             "synchronous=%s; PRAGMA secure_delete=0; PRAGMA query_only=%d",
             CACHE_KIB, q->sync_full ? "FULL" : "NORMAL", !writes);
    sqlite3_wal_autocheckpoint(db->db, CHECKPOINT_PAGES);
    return execute(db, pragmas);
}

/* ------------------------------------------------------------------- the file */

/* PERF_OK: our tables are there. PERF_MISS: none of them is. Otherwise the file is refused. */
static int identify(struct queue_db *db)
{
    int64_t objects = query(db, "SELECT count(*) FROM sqlite_master WHERE name GLOB 'perf_queue*'");
    if (db->rc || !objects)
        return db->rc ? db->rc : PERF_MISS;
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db->db, "SELECT count(*) FROM sqlite_master WHERE sql=?1", -1,
                           &statement, NULL) != SQLITE_OK)
        return perf__queue_db_fail(db, "opening");
    int64_t known = 0;
    for (size_t i = 0; i < SCHEMA_SIZE; i++) {
        sqlite3_bind_text(statement, 1, schema[i], -1, SQLITE_STATIC);
        known += perf__queue_db_number(db, statement, 0);
    }
    sqlite3_finalize(statement);
    bool ours = known == SCHEMA_SIZE && objects == SCHEMA_SIZE;
    int64_t format = 0;
    if (ours || query(db, "SELECT count(*) FROM pragma_table_info('perf_queue') WHERE "
                          "name IN ('key', 'n')") == 2)
        format = query(db, "SELECT n FROM perf_queue WHERE key=0");
    if (!db->rc && format > FORMAT_VERSION)
        db->rc = perf__fail(PERF_EINVAL,
                            "sqlite queue %.200s: the file has format %lld and this libperf knows "
                            "%d; use the libperf that made it",
                            db->q->path, (long long)format, FORMAT_VERSION);
    if (!db->rc && (!ours || format != FORMAT_VERSION))
        db->rc = perf__fail(PERF_ECORRUPT,
                            "sqlite queue %.200s: its tables perf_queue... are not those that "
                            "libperf made; the file was left alone, give another location",
                            db->q->path);
    return db->rc;
}

/* Switching to WAL does not wait for locks by itself. */
static int switch_to_wal(struct queue_db *db)
{
    int64_t deadline = perf__deadline_after(db->q->timeout_ms);
    for (;;) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(db->db, "PRAGMA journal_mode=WAL", -1, &statement, NULL))
            return perf__queue_db_fail(db, "opening");
        int code = sqlite3_step(statement);
        bool wal = code == SQLITE_ROW &&
                   !sqlite3_stricmp((const char *)sqlite3_column_text(statement, 0), "wal");
        int rc = PERF_OK;
        if (code != SQLITE_ROW)
            rc = perf__queue_db_fail(db, "switching to write-ahead logging");
        else if (!wal)
            rc = db->rc = perf__fail(PERF_EIO,
                                     "sqlite queue %.200s: this file system cannot share memory "
                                     "for write-ahead logging; put the file on a local disk",
                                     db->q->path);
        sqlite3_finalize(statement);
        if (rc != PERF_EBUSY || !perf__deadline_left(deadline))
            return rc;
        db->rc = PERF_OK;
        sqlite3_sleep(SWITCH_RETRY_MS);
    }
}

static int create(struct queue_db *db)
{
    if (execute(db, "BEGIN IMMEDIATE"))
        return db->rc;
    /* Somebody may have been faster. */
    if (identify(db) == PERF_MISS) {
        for (size_t i = 0; i < SCHEMA_SIZE; i++)
            execute(db, schema[i]);
        char sql[96];
        snprintf(sql, sizeof sql, "INSERT INTO perf_queue VALUES(0, %d), (1, 1), (2, 0)",
                 FORMAT_VERSION);
        execute(db, sql);
    }
    if (execute(db, "COMMIT"))
        sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL);
    return db->rc;
}

static int open_file(struct sqlite_queue *q)
{
    struct queue_db *db = &q->writer;
    int rc = connect(db, true);
    if (!rc)
        rc = identify(db);
    if (rc < 0)
        return rc;
    if (sqlite3_db_readonly(db->db, "main") == 1)
        return perf__fail(PERF_EIO,
                          "sqlite queue %.200s: the file is read-only; make it and its directory "
                          "writable",
                          q->path);
    bool empty = rc == PERF_MISS;
    rc = switch_to_wal(db);
    if (!rc && empty)
        rc = create(db);
    char limit[64];
    snprintf(limit, sizeof limit, "PRAGMA journal_size_limit=%d", CHECKPOINT_PAGES * 4096);
    if (!rc)
        query(db, limit);
    q->data_version = query(db, "PRAGMA data_version");
    perf__queue_db_refresh(db);
    return db->rc ? db->rc : connect(&q->reader, false);
}

/*
 * Makes the file when there is none, and its path absolute. mknod and not open: closing a
 * descriptor of a file drops all locks that this process has on it, also those of another
 * connection.
 */
static int make_file(struct sqlite_queue *q, const char *location)
{
    if (mknod(location, S_IFREG | S_IRUSR | S_IWUSR, 0) && errno != EEXIST)
        return perf__fail(PERF_EIO,
                          "sqlite queue %.200s: making the file: %s; the directory must exist and "
                          "be writable",
                          location, strerror(errno));
    char path[PATH_MAX];
    if (!realpath(location, path))
        return perf__fail(PERF_EIO, "sqlite queue %.200s: %s; give the path of a file", location,
                          strerror(errno));
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return perf__fail(PERF_EINVAL,
                          "sqlite queue %.200s: this is no regular file; give another location",
                          path);
    q->path = perf__strndup(&q->allocator, path, strlen(path));
    return q->path ? PERF_OK : perf__fail_nomem("the sqlite queue's path");
}

/* ---------------------------------------------------------------- open, close */

static int make_locks(struct sqlite_queue *q)
{
    if (pthread_mutex_init(&q->mutex, NULL))
        goto no_mutex;
    if (pthread_mutex_init(&q->reading, NULL))
        goto no_reading;
    if (perf__cond_init(&q->changed))
        goto no_cond;
    return PERF_OK;

no_cond:
    pthread_mutex_destroy(&q->reading);
no_reading:
    pthread_mutex_destroy(&q->mutex);
no_mutex:
    return perf__fail_nomem("the sqlite queue's locks");
}

int perf__queue_sqlite_open(const perf_queue_config *config, void **out)
{
    const char *location =
        config->location && config->location[0] ? config->location : default_location;
    if (!sqlite3_threadsafe())
        return perf__fail(PERF_EUNSUPPORTED,
                          "this SQLite was built without threads; use one with SQLITE_THREADSAFE");
    const perf_allocator *allocator = config->host->allocator;
    struct sqlite_queue *q = perf__calloc(allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a sqlite queue");
    q->allocator = *allocator;
    q->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    if (q->timeout_ms > INT_MAX)
        q->timeout_ms = INT_MAX;
    q->sync_full = config->sync == PERF_SYNC_FULL;
    q->last = &q->first;
    q->writer.q = q->reader.q = q;
    q->writer.changes = q->reader.changes = -1;
    int rc = make_locks(q);
    if (rc) {
        perf__free(allocator, q);
        return rc;
    }
    rc = make_file(q, location);
    if (!rc)
        rc = open_file(q);
    if (rc) {
        perf__queue_sqlite_close(q);
        return rc;
    }
    *out = q;
    return PERF_OK;
}

void perf__queue_sqlite_close(void *queue)
{
    struct sqlite_queue *q = queue;
    perf__queue_db_clear(&q->reader);
    sqlite3_close(q->reader.db);
    perf__queue_db_clear(&q->writer);
    sqlite3_close(q->writer.db);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->reading);
    pthread_mutex_destroy(&q->mutex);
    perf_allocator allocator = q->allocator;
    perf__free(&allocator, q->path);
    perf__free(&allocator, q);
}
