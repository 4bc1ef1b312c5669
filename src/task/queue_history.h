/* SPDX-License-Identifier: MIT */
/*
 * queue_history.h - the history of a task: a line for each change.
 *
 * A queue keeps only what its other fields do not tell: the lines of
 * attempts that are over. Where a task came from, and its last attempt, are
 * put around them when it is read; so a task that succeeds at once costs no
 * history. Values only, any thread.
 */
#ifndef PERF_TASK_QUEUE_HISTORY_H
#define PERF_TASK_QUEUE_HISTORY_H

#include <libperf/backend/queue.h>
#include <stdbool.h>

enum {
    PERF__HISTORY_LINES = 32,
    PERF__HISTORY_KEPT = PERF__HISTORY_LINES - 3, /* the first, the attempt and its end */
    PERF__HISTORY_LINE = 384,                     /* bytes of one at most */
    PERF__HISTORY_MAX = PERF__HISTORY_LINES * PERF__HISTORY_LINE
};

struct perf__history {
    size_t len, lines;
    char text[PERF__HISTORY_MAX + 1];
};

/* Begins with what was kept; of bytes that are too long, the first ones. */
void perf__history_begin(struct perf__history *h, const char *kept);

/* Adds a line. The oldest ones go, so that at most PERF__HISTORY_KEPT remain. */
void perf__history_add(struct perf__history *h, int64_t time_ms, int64_t state, const char *worker,
                       int64_t status, const char *sentence);

/* What a reader sees: task with its fields set, what was kept of it, whether it began as WAITING,
 * and whether the attempt that began at started_ms is not among what was kept. */
void perf__history_tell(struct perf__history *h, const perf_queue_task *task, const char *kept,
                        bool waited, bool last_attempt);

#endif
