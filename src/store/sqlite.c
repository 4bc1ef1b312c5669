/* SPDX-License-Identifier: MIT */
/*
 * sqlite.c - the embedded durable backend: records in one SQLite file.
 *
 * Write-ahead logging, so readers and the writer do not wait for each other:
 * one connection writes, a few others read, each with its own lock, and a
 * thread takes the one that its number points to or the next free one. A read
 * is one prepared statement and one copy. apply is one transaction: when it
 * returned PERF_OK, kill -9 does not undo it, and with PERF_SYNC_FULL neither
 * does a power cut.
 *
 * The trick: ids are hashes already, so 64 bits of an id serve as the row
 * number and SQLite's fastest lookup finds the record; the other half of the id
 * is kept in the row and compared. Two ids that fold to one number (1 in 2^64)
 * displace each other, as an eviction would. Any thread.
 */
#include "sqlite.h"

#include <string.h>

#include "../base/bytes.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "registry.h"

enum {
    SURPLUS_ROWS = 16384, /* rows one apply looks at, at most, after the bound was lowered */
    ROW_OVERHEAD = 48,    /* what a record takes beside its bytes */
    LONG_RECORD = 1024    /* a longer one may leave most of a page unused */
};

/* ---------------------------------------------------------------------- ids */

/* row and tail together are the id again: for a given tail, row names one id. */
static int64_t id_tail(const uint8_t *id)
{
    return (int64_t)perf__load64(id + 8);
}

static int64_t id_row(const uint8_t *id)
{
    return (int64_t)(perf__load64(id) + perf__mix64(perf__load64(id + 8)));
}

/* -------------------------------------------------------------------- reads */

/* Locks a reader that is open; NULL when none could be opened, with *rc. */
static struct sqlite_reader *lock_reader(struct sqlite_store *s, int *rc)
{
    size_t hint = (size_t)perf__thread_slot();
    struct sqlite_reader *r = NULL;
    size_t at = 0;
    for (size_t i = 0; i < s->reader_count && !r; i++) {
        at = (hint + i) % s->reader_count;
        if (!pthread_mutex_trylock(&s->readers[at].mutex))
            r = &s->readers[at];
    }
    if (!r) {
        at = hint % s->reader_count;
        r = &s->readers[at];
        pthread_mutex_lock(&r->mutex);
    }
    if (__builtin_expect(!r->db, 0)) {
        *rc = perf__sqlite_open_reader(s, at);
        if (*rc) {
            /* Out of descriptors, perhaps. The first reader is always there. */
            pthread_mutex_unlock(&r->mutex);
            if (!at)
                return NULL;
            r = &s->readers[0];
            pthread_mutex_lock(&r->mutex);
        }
    }
    return r;
}

static int read_one(struct sqlite_store *s, struct sqlite_reader *r, const uint8_t *id,
                    perf_store_reply *reply)
{
    sqlite3_stmt *get = r->get;
    int64_t row = id_row(id);
    int rc = PERF_MISS;
    sqlite3_bind_int64(get, 1, row);
    int code = sqlite3_step(get);
    if (code == SQLITE_ROW) {
        if (sqlite3_column_int64(get, 0) == id_tail(id)) {
            const void *record = sqlite3_column_blob(get, 1);
            size_t len = (size_t)sqlite3_column_bytes(get, 1);
            if (len && !record)
                rc = perf__fail_nomem("a record read from SQLite");
            else
                rc = perf_store_reply_set(reply, record, len);
            sqlite_touch(s, row, ROW_READ);
        }
    } else if (code != SQLITE_DONE) {
        rc = perf__sqlite_fail(s, r->db, "reading");
    }
    sqlite3_reset(get);
    return rc;
}

static int sqlite_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct sqlite_store *s = store;
    int rc = PERF_OK;
    struct sqlite_reader *r = lock_reader(s, &rc);
    if (!r)
        return rc;
    rc = read_one(s, r, key->id, reply);
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

/* All from one snapshot, which also saves taking and leaving it for each key. */
static int sqlite_get_many(void *store, const perf_store_key *keys, size_t count,
                           perf_store_reply *const *replies)
{
    struct sqlite_store *s = store;
    int rc = PERF_OK;
    struct sqlite_reader *r = lock_reader(s, &rc);
    if (!r)
        return rc;
    rc = perf__sqlite_step(s, r->begin, "reading");
    for (size_t i = 0; i < count && rc >= 0; i++)
        rc = read_one(s, r, keys[i].id, replies[i]);
    if (rc >= 0)
        rc = perf__sqlite_step(s, r->commit, "reading");
    if (rc && !sqlite3_get_autocommit(r->db))
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

static int sqlite_marks(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    struct sqlite_store *s = store;
    int rc = PERF_OK;
    struct sqlite_reader *r = lock_reader(s, &rc);
    if (!r)
        return rc;
    sqlite3_stmt *list = NULL;
    if (sqlite3_prepare_v2(r->db, "SELECT kind, name, stamp FROM marks WHERE stamp >= ?1", -1,
                           &list, NULL) ||
        sqlite3_bind_int64(list, 1, since_ms)) {
        rc = perf__sqlite_fail(s, r->db, "listing marks");
        goto out;
    }
    rc = PERF_OK;
    int code;
    while ((code = sqlite3_step(list)) == SQLITE_ROW) {
        const void *name = sqlite3_column_blob(list, 1);
        perf_bytes bytes = {name ? name : "", (size_t)sqlite3_column_bytes(list, 1)};
        if (bytes.len && !name) {
            rc = perf__fail_nomem("a mark read from SQLite");
            goto out;
        }
        if (each(ctx, sqlite3_column_int64(list, 0), bytes, sqlite3_column_int64(list, 2)))
            goto out;
    }
    if (code != SQLITE_DONE)
        rc = perf__sqlite_fail(s, r->db, "listing marks");
out:
    sqlite3_finalize(list);
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

/* ------------------------------------------------------------------- writes */

/* Waits for the writing connection; with wait_ms 0 only looks. */
static int enter(struct sqlite_store *s, int64_t wait_ms)
{
    int64_t deadline = perf__deadline_after(wait_ms);
    int rc = PERF_OK;
    pthread_mutex_lock(&s->gate);
    bool in_time = wait_ms > 0;
    while (s->gate_taken && in_time)
        in_time = perf__cond_wait(&s->gate_free, &s->gate, deadline);
    if (s->gate_taken)
        rc = perf__fail(PERF_EBUSY,
                        "sqlite tier %.240s: another thread kept writing for longer "
                        "than timeout_ms",
                        s->path);
    else
        s->gate_taken = true;
    pthread_mutex_unlock(&s->gate);
    return rc;
}

static void leave(struct sqlite_store *s)
{
    pthread_mutex_lock(&s->gate);
    s->gate_taken = false;
    pthread_cond_signal(&s->gate_free);
    pthread_mutex_unlock(&s->gate);
}

static int begin(struct sqlite_store *s)
{
    s->inserted = 0;
    return perf__sqlite_step(s, s->writer.begin, "waiting to write");
}

/* Commits when rc is PERF_OK, and undoes everything otherwise or when that fails. */
static int finish(struct sqlite_store *s, int rc)
{
    struct sqlite_writer *w = &s->writer;
    if (!rc && s->inserted) {
        sqlite3_bind_int64(w->total, 1, s->inserted);
        rc = perf__sqlite_step(s, w->total, "counting records");
    }
    if (!rc)
        rc = perf__sqlite_step(s, w->commit, "committing");
    if (rc && !sqlite3_get_autocommit(w->db)) {
        sqlite3_step(w->rollback); /* nothing better to do when it fails; SQLite recovers */
        sqlite3_reset(w->rollback);
    }
    return rc;
}

/* Empty bytes are an empty blob, not NULL. */
static void bind_bytes(sqlite3_stmt *statement, int at, perf_bytes bytes)
{
    sqlite3_bind_blob64(statement, at, bytes.len ? bytes.data : "", bytes.len, SQLITE_STATIC);
}

static int apply_one(struct sqlite_store *s, const perf_store_op *op)
{
    struct sqlite_writer *w = &s->writer;
    int rc;
    switch (op->kind) {
    case PERF_STORE_SET:
        sqlite3_bind_int64(w->set, 1, id_row(op->key.id));
        sqlite3_bind_int64(w->set, 2, id_tail(op->key.id));
        sqlite3_bind_int64(w->set, 3, op->expire_ms > 0 ? op->expire_ms : 0);
        bind_bytes(w->set, 4, op->record);
        rc = perf__sqlite_step(s, w->set, "writing a record");
        sqlite3_clear_bindings(w->set); /* the bytes are the caller's */
        sqlite_touch(s, id_row(op->key.id), ROW_WRITTEN);
        return rc;
    case PERF_STORE_REMOVE:
        sqlite3_bind_int64(w->remove, 1, id_row(op->key.id));
        sqlite3_bind_int64(w->remove, 2, id_tail(op->key.id));
        return perf__sqlite_step(s, w->remove, "removing a record");
    case PERF_STORE_MARK:
        sqlite3_bind_int64(w->mark, 1, op->mark_kind);
        bind_bytes(w->mark, 2, op->mark_name);
        sqlite3_bind_int64(w->mark, 3, op->mark_stamp_ms);
        rc = perf__sqlite_step(s, w->mark, "writing a mark");
        sqlite3_clear_bindings(w->mark);
        return rc;
    default:
        return perf__fail(PERF_EINVAL, "perf_store_op.kind is %lld; give a PERF_STORE_ operation",
                          (long long)op->kind);
    }
}

/* The bytes that ops will add, amply; PERF_ETOOBIG for one that can never fit. A long record
 * leaves up to a page unused, and splitting takes a few more in each transaction. */
static int reckon(const struct sqlite_store *s, const perf_store_op *ops, size_t count,
                  int64_t *bytes)
{
    *bytes = 4 * s->page_size;
    for (size_t i = 0; i < count; i++) {
        size_t len = ops[i].kind == PERF_STORE_SET    ? ops[i].record.len
                     : ops[i].kind == PERF_STORE_MARK ? ops[i].mark_name.len
                                                      : 0;
        if (len > (size_t)s->max_bytes / 2)
            return perf__fail(PERF_ETOOBIG,
                              "a record of %zu bytes is more than half of the sqlite tier's "
                              "max_bytes (%lld); raise it or set max_value_bytes",
                              len, (long long)s->max_bytes);
        if (ops[i].kind != PERF_STORE_REMOVE)
            *bytes += (int64_t)len + (len > LONG_RECORD ? s->page_size : ROW_OVERHEAD);
    }
    return PERF_OK;
}

static int sqlite_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct sqlite_store *s = store;
    int64_t bytes;
    int rc = reckon(s, ops, count, &bytes);
    if (rc || (rc = enter(s, s->timeout_ms)))
        return rc;
    rc = begin(s);
    if (!rc) {
        rc = perf__sqlite_make_room(s, bytes, SURPLUS_ROWS);
        for (size_t i = 0; !rc && i < count; i++)
            rc = apply_one(s, &ops[i]);
        rc = finish(s, rc);
    }
    leave(s);
    return rc;
}

/* Upkeep never waits: when somebody writes, it is for another time. */
static int sqlite_sweep(void *store, int64_t now_ms, size_t budget, size_t *removed)
{
    struct sqlite_store *s = store;
    struct sqlite_writer *w = &s->writer;
    if (enter(s, 0))
        return PERF_OK;
    int64_t expired = 0;
    sqlite3_bind_int64(w->any_expired, 1, now_ms);
    int rc = perf__sqlite_number(s, w->any_expired, &expired);
    if (!rc)
        rc = perf__sqlite_measure(s);
    bool surplus = s->used_bytes > s->max_bytes;
    if (rc || (!expired && !surplus))
        goto out;
    uint64_t evicted = atomic_load_explicit(&s->evictions, memory_order_relaxed);
    sqlite3_busy_timeout(w->db, 0);
    rc = begin(s);
    sqlite3_busy_timeout(w->db, (int)s->timeout_ms);
    if (rc) {
        rc = rc == PERF_EBUSY ? PERF_OK : rc;
        goto out;
    }
    int64_t gone = 0;
    if (expired) {
        sqlite3_bind_int64(w->expire, 1, now_ms);
        sqlite3_bind_int64(w->expire, 2, budget > INT32_MAX ? INT32_MAX : (int64_t)budget);
        rc = perf__sqlite_step(s, w->expire, "sweeping expired records");
        gone = rc ? 0 : sqlite3_changes(w->db);
    }
    if (!rc && surplus && (size_t)gone < budget)
        rc = perf__sqlite_make_room(s, 0, budget - (size_t)gone);
    rc = finish(s, rc);
    if (!rc) {
        atomic_fetch_add_explicit(&s->expired, (uint64_t)gone, memory_order_relaxed);
        evicted = atomic_load_explicit(&s->evictions, memory_order_relaxed) - evicted;
        *removed = (size_t)gone + (size_t)evicted;
    }
out:
    leave(s);
    return rc;
}

/* Commits of PERF_SYNC_NORMAL reach the disk with the next checkpoint: so make one. */
static int sqlite_flush(void *store)
{
    struct sqlite_store *s = store;
    if (s->sync_full)
        return PERF_OK;
    int rc = enter(s, s->timeout_ms);
    if (rc)
        return rc;
    int64_t deadline = perf__deadline_after(s->timeout_ms);
    for (;;) {
        int code =
            sqlite3_wal_checkpoint_v2(s->writer.db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        rc = code == SQLITE_OK ? PERF_OK : perf__sqlite_fail(s, s->writer.db, "flushing");
        /* Another process is at it; what it syncs may not have all of ours. */
        if (rc != PERF_EBUSY || !perf__deadline_left(deadline))
            break;
        sqlite3_sleep(1);
    }
    leave(s);
    return rc;
}

static int sqlite_usage(void *store, perf_store_usage *usage)
{
    struct sqlite_store *s = store;
    int rc = PERF_OK;
    struct sqlite_reader *r = lock_reader(s, &rc);
    if (!r)
        return rc;
    rc = PERF_OK;
    sqlite3_stmt *ask = NULL;
    static const char sql[] = "SELECT records, (SELECT page_count FROM pragma_page_count), "
                              "(SELECT freelist_count FROM pragma_freelist_count) FROM totals";
    if (sqlite3_prepare_v2(r->db, sql, -1, &ask, NULL) == SQLITE_OK &&
        sqlite3_step(ask) == SQLITE_ROW) {
        usage->records = (uint64_t)sqlite3_column_int64(ask, 0);
        usage->bytes = (uint64_t)((sqlite3_column_int64(ask, 1) - sqlite3_column_int64(ask, 2)) *
                                  s->page_size);
    } else {
        rc = perf__sqlite_fail(s, r->db, "asking for its size");
    }
    sqlite3_finalize(ask);
    pthread_mutex_unlock(&r->mutex);
    usage->evictions = atomic_load_explicit(&s->evictions, memory_order_relaxed);
    usage->expired = atomic_load_explicit(&s->expired, memory_order_relaxed);
    return rc;
}

const perf_store_vtable perf__store_sqlite = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "sqlite",
    .capabilities = PERF_STORE_DURABLE | PERF_STORE_SHARED,
    .open = perf__sqlite_open,
    .close = perf__sqlite_close,
    .get = sqlite_get,
    .get_many = sqlite_get_many,
    .apply = sqlite_apply,
    .marks = sqlite_marks,
    .sweep = sqlite_sweep,
    .flush = sqlite_flush,
    .usage = sqlite_usage,
};
