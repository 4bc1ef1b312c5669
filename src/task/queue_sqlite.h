/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite.h - what the files of the SQLite queue share. Private to them.
 *
 * queue_sqlite_open.c opens and checks the file, queue_sqlite_db.c runs
 * statements, queue_sqlite_enqueue.c, _claim.c and _steer.c have the verbs within a transaction,
 * queue_sqlite_task.c what they do to one task, queue_sqlite_read.c looks, and queue_sqlite.c puts
 * callers together into transactions.
 */
#ifndef PERF_TASK_QUEUE_SQLITE_H
#define PERF_TASK_QUEUE_SQLITE_H

#include <sqlite3.h>

#include "../base/sync.h"
#include "queue.h"
#include "queue_history.h"

/* Why a task is where it is; the column flags. */
enum {
    TASK_FOLLOWED = 1, /* others wait for it */
    TASK_CANCEL = 2,   /* somebody wants it to stop */
    TASK_ANY_END = 4,  /* after_any_end */
    TASK_PAYLOAD = 8,  /* its payload is in perf_queue_bytes */
    TASK_RESULT = 16,  /* its result is */
    TASK_LAST = 32,    /* its last attempt is not in kept */
    TASK_LIMITED = 64, /* it has a limit key */
    TASK_WAITED = 128  /* its first state was WAITING */
};

/* A state of the file only: QUEUED, and put aside since its limit key is taken. */
enum { TASK_ASIDE = 9 };

/* The column place; NULL: in no line. Lanes are 1 and more. */
enum { PLACE_RUNNING = 0, PLACE_WAITING = -1, PLACE_ENDED = -2 };

/* Keys of the table perf_queue, which has all numbers of the file in one page; those of a queue's
 * counts follow COUNT_KEY(queue). */
enum { KEY_FORMAT = 0, KEY_NEXT = 1, KEY_CHANGES = 2 };
#define COUNT_KEY(queue) ((queue)*16)

/* Rows, tokens, queues and times of the file are within this. */
#define NUMBER_MAX ((int64_t)1 << 58)

/* Bytes up to here are kept in the row of their task. */
enum { INLINE_MAX = 1024 };

enum sql {
    SQL_BEGIN,
    SQL_BEGIN_READ,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_SAVEPOINT,
    SQL_RELEASE,
    SQL_ROLLBACK_TO,
    SQL_DATA_VERSION,
    SQL_META,
    SQL_SET_META,
    SQL_NAMES,
    SQL_ADD_NAME,
    SQL_PAUSE,
    SQL_LANES,
    SQL_ADD_LANE,
    SQL_COUNT,
    SQL_COUNTS,
    SQL_ROW_OF,
    SQL_UNIQUE,
    SQL_DROP_UNIQUE,
    SQL_INSERT,
    SQL_ADD_BYTES,
    SQL_BYTES,
    SQL_RESULT_BYTES,
    SQL_REMOVE_BYTES,
    SQL_FOLLOW,
    SQL_FOLLOWED,
    SQL_FOLLOWERS,
    SQL_UNFOLLOW,
    SQL_READY,
    SQL_FIRST,
    SQL_LOAD,
    SQL_LOAD_ID,
    SQL_KEPT,
    SQL_KEEP,
    SQL_MOVE,
    SQL_CLAIM,
    SQL_BEAT,
    SQL_FINISH,
    SQL_FINISH_KNOWN,
    SQL_ERROR,
    SQL_FLAGS,
    SQL_LIMIT_USED,
    SQL_LIMIT_ASIDE,
    SQL_LIMIT_LAST,
    SQL_DUE,
    SQL_LEASES,
    SQL_EXPIRED,
    SQL_NEXT_DUE,
    SQL_REMOVE,
    SQL_DEAD,
    SQL_TASK,
    SQL_TASK_ID,
    SQL_FIND,
    SQL_FIND_USER,
    SQL_FIND_BATCH,
    SQL_FIND_RUNNING,
    SQL_FIND_FAILED,
    SQL_FIND_CANCELLED,
    SQL_FIND_DEAD,
    SQL_STATEMENTS
};

/* A queue by name, and what a transaction has changed of its counts. */
struct queue_name {
    int64_t queue;
    int64_t paused;
    int64_t deltas[TASK_ASIDE + 1];
    bool changed;
    char *name;
};

struct queue_lane {
    int64_t lane, queue, version;
    char *kind;
};

/* What changes of a task as it moves, and what that depends on: the columns LOADED. */
struct queue_loaded {
    int64_t row, state, flags, lane, pending, attempts, token, started, priority, due, rank, keep,
        unique_until, limit, max_attempts, deadline, ended, lease;
};

/* A growing list of row numbers. */
struct queue_rows {
    int64_t *rows;
    size_t count, cap;
};

/* A claim of the transaction under way that has room, and nothing is left in its lanes of its first
 * queues: what comes there may go to it at once. */
struct queue_taker {
    const perf_queue_claim *want; /* NULL: there is none */
    perf_queue_reply *reply;
    size_t before; /* tasks in the reply that are not of this claim */
    size_t queues;
};

static inline size_t perf__queue_taker_room(const struct queue_taker *taker)
{
    return taker->want ? taker->want->max - (taker->reply->count - taker->before) : 0;
}

/*
 * A connection with its statements and what it knows of the file. The first failure stays in rc,
 * and everything after it does nothing, so that code asks once, at its end.
 */
struct queue_db {
    struct sqlite_queue *q;
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_STATEMENTS];
    int rc;
    int64_t changes, changes_read; /* of names and lanes, as they were read; -1: unknown */
    int64_t next, next_read;       /* the next row or token */
    struct queue_name *names;
    size_t names_count, names_cap;
    struct queue_lane *lanes;
    size_t lanes_count, lanes_cap;
    bool news; /* something became claimable */
    /* Tasks that were claimed here, each in the slot of its token, so that their end need not look
     * for them: CLAIMED_SLOTS of them, or NULL. What is in the file is compared. */
    struct queue_loaded *claimed;
    struct queue_rows ends, followers, picked;
    struct perf__history history;
    struct queue_taker taker;
};

enum { WAIT_SLOTS = 64, CLAIMED_SLOTS = 1024 };

struct queue_job;

struct sqlite_queue {
    perf_allocator allocator;
    char *path; /* absolute */
    int64_t timeout_ms;
    bool sync_full;

    pthread_mutex_t mutex; /* of what follows, down to seen */
    pthread_cond_t changed;
    struct queue_job *first, **last; /* waiting for a transaction */
    size_t crowd;                    /* calls in the last transaction */
    bool busy;                       /* somebody has the writing connection */
    uint64_t news, wakes;
    uint64_t seen[WAIT_SLOTS];
    int64_t looked_ns; /* when others' changes were last looked for */

    /* Of who is busy. */
    struct queue_db writer;
    int64_t data_version;
    int64_t busy_until_ns; /* how long a lock of another process is waited for */

    pthread_mutex_t reading;
    struct queue_db reader; /* under reading */
};

/* ------------------------------------------------------- queue_sqlite_open.c */

int perf__queue_sqlite_open(const perf_queue_config *config, void **out);
void perf__queue_sqlite_close(void *queue);

/* --------------------------------------------------------- queue_sqlite_db.c */

/* Puts a failure of db's last call into db->rc, unless there is one, and returns that. */
int perf__queue_db_fail(struct queue_db *db, const char *act) __attribute__((cold));
int perf__queue_db_corrupt(struct queue_db *db, const char *what) __attribute__((cold));
/*
 * A statement with its parameters in order: i int64_t, n int64_t of which 0 is NULL, s const char *
 * of which "" is NULL, t const char *, b perf_bytes of which none is NULL, d double. What is
 * pointed to must outlive the steps. NULL when db has failed.
 */
sqlite3_stmt *perf__queue_db_bind(struct queue_db *db, enum sql sql, const char *types, ...);
/* True: a row. False: there is no more, or a failure; the statement is reset. */
bool perf__queue_db_row(struct queue_db *db, sqlite3_stmt *statement);
/* Runs a statement that gives no rows; the number of rows that it changed. */
int64_t perf__queue_db_run(struct queue_db *db, sqlite3_stmt *statement);
/* The first column of the first row; otherwise what is given. Resets. */
int64_t perf__queue_db_number(struct queue_db *db, sqlite3_stmt *statement, int64_t otherwise);
/* A text of the file, checked; "" for NULL. Valid as sqlite3_column_text's. */
const char *perf__queue_db_text(struct queue_db *db, sqlite3_stmt *statement, int column);
perf_bytes perf__queue_db_bytes(struct queue_db *db, sqlite3_stmt *statement, int column);
/* Appends every first column. */
void perf__queue_db_rows(struct queue_db *db, sqlite3_stmt *statement, struct queue_rows *rows);
bool perf__queue_rows_add(struct queue_db *db, struct queue_rows *rows, int64_t row);

/* Reads what others may have changed; within a transaction. */
void perf__queue_db_refresh(struct queue_db *db);
/* Writes what a transaction has counted. */
void perf__queue_db_settle(struct queue_db *db);
struct queue_name *perf__queue_db_name(struct queue_db *db, int64_t queue);
struct queue_name *perf__queue_db_name_of(struct queue_db *db, const char *name, bool make);
struct queue_lane *perf__queue_db_lane(struct queue_db *db, int64_t lane);
struct queue_lane *perf__queue_db_lane_of(struct queue_db *db, const char *queue, const char *kind,
                                          int64_t version);
/* Finalizes all and forgets all; db itself is closed by its owner. */
void perf__queue_db_clear(struct queue_db *db);

/* -------------------------------- queue_sqlite_enqueue.c, _claim.c and _steer.c */
/* Within a transaction. Answers; failures of the file are in db->rc. */

int perf__queue_write_enqueue(struct queue_db *db, const perf_queue_task *task, int64_t now_ms,
                              char existing[72]);
int perf__queue_write_claim(struct queue_db *db, const perf_queue_claim *want,
                            perf_queue_reply *reply);
int perf__queue_write_extend(struct queue_db *db, perf_queue_beat *beat);
int perf__queue_write_finish(struct queue_db *db, const perf_queue_end *end);
int perf__queue_write_control(struct queue_db *db, int verb, const char *name, int64_t now_ms,
                              uint64_t *n);
int perf__queue_write_sweep(struct queue_db *db, int64_t now_ms, size_t budget,
                            perf_queue_swept *swept);
/* Is there anything for it to do? Reads only. */
bool perf__queue_write_may_claim(struct queue_db *db, const perf_queue_claim *want);
bool perf__queue_write_may_sweep(struct queue_db *db, int64_t now_ms, perf_queue_swept *swept);

/* ------------------------------------------------------- queue_sqlite_read.c */

/* Adds the task that a row of SQL_TASK and its kin describes. bytes: with payload and result.
 * claimed: NULL, or its numbers as a claim of worker is about to write them. */
int perf__queue_read_add(struct queue_db *db, sqlite3_stmt *row, bool bytes,
                         const struct queue_loaded *claimed, const char *worker,
                         perf_queue_reply *reply);
/* The numbers of a task as a claim of worker is about to write them. */
void perf__queue_read_claimed(perf_queue_task *t, const struct queue_loaded *claimed,
                              const char *worker);
int perf__queue_read_get(struct queue_db *db, const char *id, perf_queue_reply *reply);
int perf__queue_read_find(struct queue_db *db, const perf_queue_filter *filter,
                          perf_queue_reply *reply);
int perf__queue_read_count(struct queue_db *db, const char *name, perf_queue_counts *counts);

#endif
