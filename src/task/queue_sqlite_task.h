/* SPDX-License-Identifier: MIT */
/*
 * queue_sqlite_task.h - one task within a transaction, for the files that have the verbs of the
 * SQLite queue. Failures of the file are in db->rc. Private to them.
 */
#ifndef PERF_TASK_QUEUE_SQLITE_TASK_H
#define PERF_TASK_QUEUE_SQLITE_TASK_H

#include "queue_sqlite.h"

/* The numbers of a row of SQL_LOAD, SQL_TASK and their kin. */
bool perf__queue_task_fill(struct queue_db *db, sqlite3_stmt *s, struct queue_loaded *t);

/* False: there is none, or a failure. */
bool perf__queue_task_load_row(struct queue_db *db, int64_t row, struct queue_loaded *t);
bool perf__queue_task_load_id(struct queue_db *db, const char *id, struct queue_loaded *t);

/* As perf__task_ended, of the states of the file. */
bool perf__queue_task_has_ended(int64_t state);

/* Counts a change of state; 0: it comes, or goes. */
void perf__queue_task_count(struct queue_db *db, int64_t lane, int64_t from, int64_t to);

/* Where a task in this state stands. False: nowhere. */
bool perf__queue_task_place_of(const struct queue_loaded *t, int64_t *place, int64_t *sort);

/* The same for perf__queue_db_bind: placed, or nowhere, says which types. */
const char *perf__queue_task_place_types(const struct queue_loaded *t, int64_t *place,
                                         int64_t *sort, const char *placed, const char *nowhere);

/* Writes a task's new state and place. */
void perf__queue_task_move(struct queue_db *db, struct queue_loaded *t, int64_t state);

/* After something of its limit key left its state, or came: as many stand in lanes as may run,
 * those that go first. */
void perf__queue_task_settle_limit(struct queue_db *db, int64_t row);

/* It is to be claimed now, or as soon as its limit key lets it. */
void perf__queue_task_make_ready(struct queue_db *db, struct queue_loaded *t);

/* Adds a line, and before it that of the attempt that it ends. */
void perf__queue_task_keep_line(struct queue_db *db, struct queue_loaded *t, int64_t now_ms,
                                int64_t state, int64_t status, const char *sentence);

/* After a task has left RUNNING or a lane, for an end or not. */
void perf__queue_task_after_move(struct queue_db *db, const struct queue_loaded *t, int64_t now_ms);

/* Ends it, and lets those who wait for it go on. */
void perf__queue_task_end(struct queue_db *db, struct queue_loaded *t, int64_t state,
                          int64_t now_ms, int64_t status, const char *sentence);

/* Is a lane of this queue among what a claim asks for? */
bool perf__queue_task_wanted(const struct queue_lane *lane, const struct queue_name *name,
                             const perf_queue_claim *want);

/* Makes a task that is QUEUED, in memory only, RUNNING for this claim. */
void perf__queue_task_start(struct queue_db *db, struct queue_loaded *t,
                            const perf_queue_claim *want);

/* Remembers a task that was claimed here, for its end. Without memory that end looks for it. */
void perf__queue_task_remember(struct queue_db *db, const struct queue_loaded *t);

#endif
