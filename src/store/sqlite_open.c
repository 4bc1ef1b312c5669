/* SPDX-License-Identifier: MIT */
/*
 * sqlite_open.c - opens the database file of a tier, or says why not.
 *
 * A file that is not ours is never changed: ours carries an application id and
 * exactly the tables below. New files are readable by their owner only; the
 * -wal and -shm files beside them take over that mode. The file may be opened
 * by several processes and several times in one.
 *
 * mmap stays off: a file that is cut short under a mapping kills the process
 * with SIGBUS, and a cache must outlive its disk.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "sqlite.h"

#include <libperf/cache.h>

enum {
    APPLICATION_ID = 0x4c506643, /* "LPfC" */
    FORMAT_VERSION = 1,
    MIN_BYTES = 65536,
    DEFAULT_TIMEOUT_MS = 1000,
    SWITCH_RETRY_MS = 5
};

static const int64_t default_max_bytes = (int64_t)1 << 30;

/*
 * A record's row number is made of its id (sqlite.c), so that finding one is a
 * single descent; tail is the rest of the id. The expiry index has only rows
 * that expire. totals has one row.
 */
static const char *const schema[] = {
    "CREATE TABLE records(row INTEGER PRIMARY KEY, tail INTEGER NOT NULL, "
    "expire INTEGER NOT NULL, record BLOB NOT NULL)",
    "CREATE INDEX records_expire ON records(expire) WHERE expire > 0",
    "CREATE TABLE marks(kind INTEGER NOT NULL, name BLOB NOT NULL, stamp INTEGER NOT NULL, "
    "PRIMARY KEY(kind, name)) WITHOUT ROWID",
    "CREATE TABLE totals(one INTEGER PRIMARY KEY, records INTEGER NOT NULL)",
};

enum { SCHEMA_SIZE = sizeof schema / sizeof *schema };

/* ------------------------------------------------------------------- errors */

static const struct {
    int sqlite, status;
    const char *fix;
} failures[] = {
    {SQLITE_BUSY, PERF_EBUSY, "somebody else held the lock for longer than timeout_ms"},
    {SQLITE_LOCKED, PERF_EBUSY, "somebody else held the lock for longer than timeout_ms"},
    {SQLITE_NOMEM, PERF_ENOMEM, "lower the limits or free memory"},
    {SQLITE_IOERR_NOMEM, PERF_ENOMEM, "lower the limits or free memory"},
    {SQLITE_TOOBIG, PERF_ETOOBIG, "the record is larger than SQLite can store"},
    {SQLITE_FULL, PERF_EIO, "free disk space or lower max_bytes"},
    {SQLITE_READONLY, PERF_EIO, "make the file and its directory writable"},
    {SQLITE_PERM, PERF_EIO, "make the file and its directory writable"},
    {SQLITE_CANTOPEN, PERF_EIO, "the directory must exist and be writable"},
    {SQLITE_CORRUPT, PERF_ECORRUPT,
     "the file is damaged: stop its users, then remove it with its -wal and -shm files"},
    {SQLITE_NOTADB, PERF_ECORRUPT,
     "this is no SQLite database, or a damaged one: move it away or give another file"},
};

int perf__sqlite_fail(const struct sqlite_store *s, sqlite3 *db, const char *act)
{
    int code = db ? sqlite3_extended_errcode(db) : SQLITE_NOMEM;
    const char *text = db ? sqlite3_errmsg(db) : "out of memory";
    int status = PERF_EIO;
    const char *fix = "check the disk and the system's log";
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        if (failures[i].sqlite == code || failures[i].sqlite == (code & 0xff)) {
            status = failures[i].status;
            fix = failures[i].fix;
        }
    if (code == SQLITE_IOERR_NOMEM)
        status = PERF_ENOMEM;
    return perf__fail(status, "sqlite tier %.240s: %s: %s (SQLite %d); %s", s->path, act, text,
                      code, fix);
}

int perf__sqlite_step(const struct sqlite_store *s, sqlite3_stmt *statement, const char *act)
{
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW)
        continue;
    int rc =
        code == SQLITE_DONE ? PERF_OK : perf__sqlite_fail(s, sqlite3_db_handle(statement), act);
    sqlite3_reset(statement);
    return rc;
}

int perf__sqlite_number(const struct sqlite_store *s, sqlite3_stmt *statement, int64_t *number)
{
    int rc = PERF_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *number = sqlite3_column_int64(statement, 0);
    else
        rc = perf__sqlite_fail(s, sqlite3_db_handle(statement), "reading a number");
    sqlite3_reset(statement);
    return rc;
}

static int execute(const struct sqlite_store *s, sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? PERF_OK
                                                                : perf__sqlite_fail(s, db, sql);
}

static int query(const struct sqlite_store *s, sqlite3 *db, const char *sql, int64_t *number)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        return perf__sqlite_fail(s, db, "opening");
    int rc = perf__sqlite_number(s, statement, number);
    sqlite3_finalize(statement);
    return rc;
}

/* Prepares one of the statements that live as long as their connection. */
static int prepare(const struct sqlite_store *s, sqlite3 *db, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK
               ? PERF_OK
               : perf__sqlite_fail(s, db, "preparing a statement");
}

/* -------------------------------------------------------------- connections */

static int connect(const struct sqlite_store *s, sqlite3 **out)
{
    sqlite3 *db = NULL;
    int rc = PERF_OK;
    /* We lock around every connection ourselves. */
    int code = sqlite3_open_v2(
        s->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (code != SQLITE_OK) {
        rc = perf__sqlite_fail(s, db, "opening");
        goto failed;
    }
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, (int)s->timeout_ms);
    /* The file is input like any other: what hides in its schema is not run. */
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    char pragmas[192];
    int64_t cache_kib = s->max_bytes / 65536 + 256;
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA mmap_size=0; PRAGMA cell_size_check=1; PRAGMA cache_size=-%lld; "
             "PRAGMA synchronous=%s; PRAGMA secure_delete=FAST",
             (long long)(cache_kib > 4096 ? 4096 : cache_kib), s->sync_full ? "FULL" : "NORMAL");
    rc = execute(s, db, pragmas);
    if (rc)
        goto failed;
    *out = db;
    return PERF_OK;

failed:
    sqlite3_close(db);
    return rc;
}

int perf__sqlite_open_reader(struct sqlite_store *s, size_t i)
{
    struct sqlite_reader *r = &s->readers[i];
    if (r->db)
        return PERF_OK;
    int rc = connect(s, &r->db);
    if (rc)
        return rc;
    rc = execute(s, r->db, "PRAGMA query_only=1");
    if (!rc)
        rc = prepare(s, r->db, "SELECT tail, record FROM records WHERE row = ?1", &r->get);
    if (!rc)
        rc = prepare(s, r->db, "BEGIN", &r->begin);
    if (!rc)
        rc = prepare(s, r->db, "COMMIT", &r->commit);
    if (rc) {
        sqlite3_finalize(r->get);
        sqlite3_finalize(r->begin);
        sqlite3_close(r->db);
        r->db = NULL;
        r->get = r->begin = r->commit = NULL;
    }
    return rc;
}

/* Counts rows as they come and go, so that totals is right without a scan. */
static void on_change(void *ctx, int what, const char *db, const char *table, sqlite3_int64 row)
{
    struct sqlite_store *s = ctx;
    (void)db;
    (void)row;
    if (table[0] != 'r')
        return;
    if (what == SQLITE_INSERT)
        s->inserted++;
    else if (what == SQLITE_DELETE)
        s->inserted--;
}

static int open_writer(struct sqlite_store *s)
{
    struct sqlite_writer *w = &s->writer;
    const struct {
        sqlite3_stmt **statement;
        const char *sql;
    } statements[] = {
        {&w->begin, "BEGIN IMMEDIATE"},
        {&w->commit, "COMMIT"},
        {&w->rollback, "ROLLBACK"},
        {&w->set, "INSERT INTO records VALUES(?1,?2,?3,?4) ON CONFLICT(row) DO UPDATE SET "
                  "tail=excluded.tail, expire=excluded.expire, record=excluded.record"},
        {&w->remove, "DELETE FROM records WHERE row=?1 AND tail=?2"},
        {&w->mark, "INSERT INTO marks VALUES(?1,?2,?3) ON CONFLICT(kind,name) DO UPDATE SET "
                   "stamp=excluded.stamp WHERE excluded.stamp > stamp"},
        {&w->total, "UPDATE totals SET records=records+?1"},
        {&w->walk, "SELECT row FROM records WHERE row>=?1 ORDER BY row LIMIT ?2"},
        {&w->evict, "DELETE FROM records WHERE row=?1"},
        {&w->expire, "DELETE FROM records WHERE row IN (SELECT row FROM records WHERE expire>0 "
                     "AND expire<=?1 ORDER BY expire LIMIT ?2)"},
        {&w->any_expired, "SELECT EXISTS(SELECT 1 FROM records WHERE expire>0 AND expire<=?1)"},
        {&w->page_count, "PRAGMA page_count"},
        {&w->free_count, "PRAGMA freelist_count"},
    };
    int rc = PERF_OK;
    for (size_t i = 0; !rc && i < sizeof statements / sizeof *statements; i++)
        rc = prepare(s, w->db, statements[i].sql, statements[i].statement);
    if (rc)
        return rc;
    sqlite3_update_hook(w->db, on_change, s);
    /* A small file gets a small log beside it. */
    int64_t pages = s->max_bytes / s->page_size / 8;
    sqlite3_wal_autocheckpoint(w->db, pages < 64 ? 64 : pages > 1000 ? 1000 : (int)pages);
    int64_t ignored;
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA journal_size_limit=%lld",
             (long long)(pages < 64     ? 64
                         : pages > 1000 ? 1000
                                        : pages) *
                 s->page_size);
    return query(s, w->db, sql, &ignored);
}

/* ------------------------------------------------------------------ the file */

/* PERF_OK: ours. PERF_MISS: empty, to be made ours. Otherwise it is refused. */
static int identify(const struct sqlite_store *s, sqlite3 *db)
{
    int64_t application, version, objects;
    int rc = query(s, db, "PRAGMA application_id", &application);
    if (!rc)
        rc = query(s, db, "PRAGMA user_version", &version);
    if (!rc)
        rc = query(s, db, "SELECT count(*) FROM sqlite_master", &objects);
    if (rc)
        return rc;
    if (!application && !version && !objects)
        return PERF_MISS;
    if (application != APPLICATION_ID)
        return perf__fail(PERF_EINVAL,
                          "sqlite tier %.240s: the file is a database of another program and was "
                          "left alone; give another location",
                          s->path);
    if (version != FORMAT_VERSION)
        return perf__fail(PERF_EINVAL,
                          "sqlite tier %.240s: the file has format %lld and this libperf knows %d; "
                          "remove the file or use the libperf that made it",
                          s->path, (long long)version, FORMAT_VERSION);
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM sqlite_master WHERE sql=?1", -1, &statement,
                           NULL) != SQLITE_OK)
        return perf__sqlite_fail(s, db, "opening");
    int64_t known = 0;
    for (size_t i = 0; !rc && i < SCHEMA_SIZE; i++) {
        int64_t found = 0;
        sqlite3_bind_text(statement, 1, schema[i], -1, SQLITE_STATIC);
        rc = perf__sqlite_number(s, statement, &found);
        known += found;
    }
    sqlite3_finalize(statement);
    if (!rc && (known != SCHEMA_SIZE || objects != SCHEMA_SIZE))
        rc = perf__fail(PERF_ECORRUPT,
                        "sqlite tier %.240s: the file's tables are not those that libperf made; "
                        "move it away or give another location",
                        s->path);
    return rc;
}

/* Switching an empty file to WAL does not wait for locks by itself. */
static int switch_to_wal(const struct sqlite_store *s, sqlite3 *db)
{
    int64_t deadline = perf__deadline_after(s->timeout_ms);
    for (;;) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &statement, NULL) != SQLITE_OK)
            return perf__sqlite_fail(s, db, "opening");
        int code = sqlite3_step(statement);
        bool wal = code == SQLITE_ROW &&
                   !sqlite3_stricmp((const char *)sqlite3_column_text(statement, 0), "wal");
        int rc = PERF_OK;
        if (code != SQLITE_ROW)
            rc = perf__sqlite_fail(s, db, "switching to write-ahead logging");
        else if (!wal)
            rc = perf__fail(PERF_EIO,
                            "sqlite tier %.240s: this file system cannot share memory for "
                            "write-ahead logging; put the file on a local disk",
                            s->path);
        sqlite3_finalize(statement);
        if (rc != PERF_EBUSY || !perf__deadline_left(deadline))
            return rc;
        sqlite3_sleep(SWITCH_RETRY_MS);
    }
}

static int create(const struct sqlite_store *s, sqlite3 *db)
{
    int rc = execute(s, db, "BEGIN IMMEDIATE");
    if (rc)
        return rc;
    /* Somebody may have been faster. */
    rc = identify(s, db);
    if (rc == PERF_MISS) {
        rc = PERF_OK;
        for (size_t i = 0; !rc && i < SCHEMA_SIZE; i++)
            rc = execute(s, db, schema[i]);
        char sql[128];
        snprintf(sql, sizeof sql,
                 "INSERT INTO totals VALUES(1,0); PRAGMA application_id=%d; PRAGMA user_version=%d",
                 APPLICATION_ID, FORMAT_VERSION);
        if (!rc)
            rc = execute(s, db, sql);
    }
    if (!rc)
        rc = execute(s, db, "COMMIT");
    if (rc)
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

static int open_file(struct sqlite_store *s)
{
    int rc = connect(s, &s->writer.db);
    if (rc)
        return rc;
    sqlite3 *db = s->writer.db;
    rc = identify(s, db);
    if (rc < 0)
        return rc;
    if (sqlite3_db_readonly(db, "main") == 1)
        return perf__fail(PERF_EIO,
                          "sqlite tier %.240s: the file is read-only; make it and its directory "
                          "writable",
                          s->path);
    bool empty = rc == PERF_MISS;
    rc = switch_to_wal(s, db);
    if (!rc && empty)
        rc = create(s, db);
    if (!rc)
        rc = query(s, db, "PRAGMA page_size", &s->page_size);
    return rc ? rc : open_writer(s);
}

/*
 * Makes the file when there is none, and its path absolute. mknod and not open:
 * closing a descriptor of a file drops all locks that this process has on it,
 * also those of another connection.
 */
static int make_file(struct sqlite_store *s, const char *location)
{
    if (mknod(location, S_IFREG | S_IRUSR | S_IWUSR, 0) && errno != EEXIST)
        return perf__fail(PERF_EIO,
                          "sqlite tier %.240s: making the file: %s; the directory must "
                          "exist and be writable",
                          location, strerror(errno));
    char path[PATH_MAX];
    if (!realpath(location, path))
        return perf__fail(PERF_EIO, "sqlite tier %.240s: %s; give the path of a file", location,
                          strerror(errno));
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return perf__fail(PERF_EINVAL,
                          "sqlite tier %.240s: this is no regular file; give another "
                          "location",
                          path);
    s->path = perf__strndup(&s->allocator, path, strlen(path));
    return s->path ? PERF_OK : perf__fail_nomem("the sqlite tier's path");
}

/* ---------------------------------------------------------------- the store */

static int make_locks(struct sqlite_store *s)
{
    int rc = perf__locks_init(&s->gate, &s->gate_free, "the sqlite tier's locks");
    if (rc)
        return rc;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    size_t wanted = cpus < 2 ? 2 : cpus > READERS_MAX ? READERS_MAX : (size_t)cpus;
    for (; s->reader_count < wanted; s->reader_count++)
        if (pthread_mutex_init(&s->readers[s->reader_count].mutex, NULL))
            goto no_readers;
    return PERF_OK;

no_readers:
    while (s->reader_count)
        pthread_mutex_destroy(&s->readers[--s->reader_count].mutex);
    pthread_cond_destroy(&s->gate_free);
    pthread_mutex_destroy(&s->gate);
    return perf__fail_nomem("the sqlite tier's locks");
}

/* Two bits for every 512 bytes of the bound, 8 KiB to 512 KiB in all. */
static int make_recent(struct sqlite_store *s)
{
    unsigned bits = 15;
    while (bits < 21 && (int64_t)512 << bits < s->max_bytes)
        bits++;
    s->recent_shift = 64 - bits;
    s->recent = perf__calloc(&s->allocator, (size_t)1 << (bits - 5), sizeof *s->recent);
    return s->recent ? PERF_OK : perf__fail_nomem("the sqlite tier's eviction bits");
}

int perf__sqlite_open(const perf_store_config *config, void **out)
{
    if (!config->location || !config->location[0])
        return perf__fail(PERF_EINVAL,
                          "perf_tier_options.location is empty; give the sqlite tier a file name");
    if (config->max_bytes && (config->max_bytes < MIN_BYTES || config->max_bytes > INT64_MAX / 4))
        return perf__fail(PERF_EINVAL,
                          "perf_tier_options.max_bytes is %llu; give the sqlite tier %d or more",
                          (unsigned long long)config->max_bytes, MIN_BYTES);
    if (!sqlite3_threadsafe())
        return perf__fail(PERF_EUNSUPPORTED,
                          "this SQLite was built without threads; use one with SQLITE_THREADSAFE");
    const perf_allocator *allocator = config->host->allocator;
    /* The readers' alignment is more than allocators promise, so the store is aligned by hand. */
    void *block =
        perf__calloc(allocator, 1, sizeof(struct sqlite_store) + alignof(struct sqlite_store));
    if (!block)
        return perf__fail_nomem("a sqlite tier");
    uintptr_t aligned = ((uintptr_t)block + alignof(struct sqlite_store)) &
                        ~(uintptr_t)(alignof(struct sqlite_store) - 1);
    struct sqlite_store *s = (struct sqlite_store *)aligned;
    ((void **)aligned)[-1] = block;
    s->allocator = *allocator;
    s->max_bytes = config->max_bytes ? (int64_t)config->max_bytes : default_max_bytes;
    s->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    if (s->timeout_ms > INT_MAX)
        s->timeout_ms = INT_MAX;
    s->sync_full = config->sync == PERF_SYNC_FULL;
    s->hand = (int64_t)perf__thread_random();
    int rc = make_locks(s);
    if (rc) {
        perf__free(allocator, block);
        return rc;
    }
    rc = make_file(s, config->location);
    if (!rc)
        rc = make_recent(s);
    if (!rc)
        rc = open_file(s);
    if (!rc)
        rc = perf__sqlite_measure(s);
    if (!rc)
        rc = perf__sqlite_open_reader(s, 0);
    if (rc) {
        perf__sqlite_close(s);
        return rc;
    }
    *out = s;
    return PERF_OK;
}

void perf__sqlite_close(void *store)
{
    struct sqlite_store *s = store;
    for (size_t i = 0; i < s->reader_count; i++) {
        struct sqlite_reader *r = &s->readers[i];
        sqlite3_finalize(r->get);
        sqlite3_finalize(r->begin);
        sqlite3_finalize(r->commit);
        sqlite3_close(r->db);
        pthread_mutex_destroy(&r->mutex);
    }
    struct sqlite_writer *w = &s->writer;
    sqlite3_stmt *const statements[] = {
        w->begin, w->commit, w->rollback, w->set,         w->remove,     w->mark,      w->total,
        w->walk,  w->evict,  w->expire,   w->any_expired, w->page_count, w->free_count};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        sqlite3_finalize(statements[i]);
    sqlite3_close(w->db);
    pthread_cond_destroy(&s->gate_free);
    pthread_mutex_destroy(&s->gate);
    perf_allocator allocator = s->allocator;
    perf__free(&allocator, s->recent);
    perf__free(&allocator, s->path);
    perf__free(&allocator, ((void **)store)[-1]);
}
