/* SPDX-License-Identifier: MIT */
/*
 * sqlite.h - what the three files of the SQLite backend share. Private to them.
 *
 * sqlite_open.c opens and checks the file, sqlite_room.c keeps it within its
 * bound, sqlite.c reads and writes.
 */
#ifndef PERF_STORE_SQLITE_H
#define PERF_STORE_SQLITE_H

#include <libperf/backend/store.h>
#include <sqlite3.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/sync.h"

enum { READERS_MAX = 8 };

/* A connection that only reads, and its lock. Opened when a thread finds the others busy. */
struct sqlite_reader {
    alignas(64) pthread_mutex_t mutex;
    sqlite3 *db;
    sqlite3_stmt *get, *begin, *commit;
};

/* The one connection that writes, used by whoever holds the gate. */
struct sqlite_writer {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *rollback;
    sqlite3_stmt *set, *remove, *mark, *total;
    sqlite3_stmt *walk, *evict, *expire, *any_expired;
    sqlite3_stmt *page_count, *free_count;
};

struct sqlite_store {
    perf_allocator allocator;
    char *path; /* absolute */
    int64_t max_bytes, timeout_ms, page_size;
    bool sync_full;

    pthread_mutex_t gate; /* guards gate_taken only, so that waiting has a deadline */
    pthread_cond_t gate_free;
    bool gate_taken;

    /* Under the gate. */
    struct sqlite_writer writer;
    int64_t inserted;   /* rows that this transaction added, less those it removed */
    int64_t used_bytes; /* of the file when last asked */
    int64_t since_used; /* record bytes written since then */
    int64_t hand;       /* where the eviction's clock hand stands */

    /* Which rows were read or written since the hand passed them; see sqlite_room.c. */
    _Atomic uint64_t *recent;
    unsigned recent_shift;

    atomic_uint_fast64_t evictions, expired;

    size_t reader_count;
    struct sqlite_reader readers[READERS_MAX];
};

/* sqlite_open.c */
int perf__sqlite_open(const perf_store_config *config, void **out);
void perf__sqlite_close(void *store);
/* Opens readers[i] unless it is open; its mutex is held. */
int perf__sqlite_open_reader(struct sqlite_store *s, size_t i);
/* Turns what db's last call left into a status and a sentence about file, act and fix. */
int perf__sqlite_fail(const struct sqlite_store *s, sqlite3 *db, const char *act)
    __attribute__((cold));
/* Runs one statement that gives no rows; act is for the sentence. */
int perf__sqlite_step(const struct sqlite_store *s, sqlite3_stmt *statement, const char *act);
/* The first column of a statement's first row. */
int perf__sqlite_number(const struct sqlite_store *s, sqlite3_stmt *statement, int64_t *number);

/* sqlite_room.c; the gate is held and a transaction is open. Makes room for what comes in, and
 * looks at surplus_rows more when the bound was exceeded before. */
int perf__sqlite_make_room(struct sqlite_store *s, int64_t incoming_bytes, size_t surplus_rows);
int perf__sqlite_measure(struct sqlite_store *s);

/* Two bits a row: written and read since the hand passed. See sqlite_room.c. */
enum { ROW_WRITTEN = 1, ROW_READ = 2 };

/* The word that has a row's bits, and how far they are shifted there. */
static inline _Atomic uint64_t *sqlite_recent_word(struct sqlite_store *s, int64_t row,
                                                   unsigned *shift)
{
    uint64_t slot = ((uint64_t)row * 0x9e3779b97f4a7c15u) >> s->recent_shift;
    *shift = (unsigned)(slot & 31) * 2;
    return &s->recent[slot >> 5];
}

static inline void sqlite_touch(struct sqlite_store *s, int64_t row, uint64_t how)
{
    unsigned shift;
    _Atomic uint64_t *word = sqlite_recent_word(s, row, &shift);
    if (!(atomic_load_explicit(word, memory_order_relaxed) & how << shift))
        atomic_fetch_or_explicit(word, how << shift, memory_order_relaxed);
}

#endif
