/* SPDX-License-Identifier: MIT */
/*
 * queue_memory.h - what the files of the queue in memory share. Private to them.
 */
#ifndef PERF_TASK_QUEUE_MEMORY_H
#define PERF_TASK_QUEUE_MEMORY_H

#include <pthread.h>

#include "../base/alloc.h"
#include "../base/uthash_host.h"
#include "heap.h"
#include "queue.h"

enum {
    WAIT_SLOTS = 64, /* threads whose last claims are told apart */
    STATES = PERF_TASK_DEAD + 1
};

/* A queue by name. Gone when it is neither paused nor has a task. */
struct line {
    UT_hash_handle hh;
    struct lane *lanes;
    uint64_t tasks;
    uint64_t by_state[STATES];
    bool paused;
    char name[];
};

/* The tasks of one queue, kind and version that can be claimed, by rank. */
struct lane {
    UT_hash_handle hh;
    struct lane *next; /* of the same queue */
    struct line *line;
    struct perf__heap ready;
    uint64_t tasks;  /* in any state */
    uint64_t wanted; /* the last claim that asked for it */
    int64_t version;
    size_t kind_len, key_len;
    char key[]; /* queue, kind, version */
};

/* A limit key. */
struct limit {
    UT_hash_handle hh;
    struct perf__heap aside;   /* QUEUED, but not in a lane, by rank */
    struct perf__heap in_lane; /* those in a lane, the last one first */
    uint64_t running, ready, tasks;
    char key[];
};

struct task {
    perf_queue_task view; /* its strings are in names, or own */
    UT_hash_handle hh;    /* by id */
    UT_hash_handle hh_unique;
    struct perf__heap_node node; /* in the heap of its state */
    struct perf__heap_node limited;
    uint64_t row; /* in the order of submission */
    struct lane *lane;
    struct limit *limit;
    struct task *next_end; /* while ends are being worked off */
    uint64_t *followers;   /* rows of tasks that wait for this one */
    size_t followers_count, followers_cap;
    size_t pending; /* tasks it waits for */
    char *worker, *text, *error, *kept;
    void *result;
    bool aside, cancel, unique, waited, last_attempt;
    char names[]; /* id, user, batch, unique key, limit key, after, payload */
};

/* All tasks by row, so that a page of find begins where the one before it ended. */
struct row {
    uint64_t row;
    struct task *task; /* NULL: removed */
};

struct memory_queue {
    perf_allocator allocator;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct task *by_id, *by_unique;
    struct line *lines;
    struct lane *lanes;
    struct limit *limits;
    struct perf__heap waiting, running, ended;
    struct row *rows;
    size_t rows_count, rows_cap, rows_gone;
    uint64_t next_row, next_token, claims;
    uint64_t news;  /* counts what may have become claimable */
    uint64_t wakes; /* and how often those who wait were woken */
    uint64_t seen[WAIT_SLOTS];
    struct perf__hash_key secret;
};

#define TASK_OF(heap_node)    ((struct task *)((char *)(heap_node)-offsetof(struct task, node)))
#define LIMITED_OF(heap_node) ((struct task *)((char *)(heap_node)-offsetof(struct task, limited)))
/* What uthash_host.h wants in scope where a table is changed. */
#define TABLES(q)                                             \
    const perf_allocator *uthash_allocator = &(q)->allocator; \
    struct perf__hash_key uthash_secret = (q)->secret;        \
    bool uthash_oom = false;                                  \
    (void)uthash_allocator;                                   \
    (void)uthash_secret;                                      \
    (void)uthash_oom

/* All below but the entries of the vtable are called with the mutex held. */

/* ------------------------------------------------------ queue_memory_table.c */
/* find_: NULL when it is not there. need_: it is made; NULL without memory. tidy_: it goes when
 * nothing of it is left. */

struct task *perf__queue_memory_find_task(struct memory_queue *q, const char *id);
struct line *perf__queue_memory_find_line(struct memory_queue *q, const char *name);
struct line *perf__queue_memory_need_line(struct memory_queue *q, const char *name);
void perf__queue_memory_tidy_line(struct memory_queue *q, struct line *line);
struct lane *perf__queue_memory_need_lane(struct memory_queue *q, struct line *line,
                                          const char *kind, int64_t version);
void perf__queue_memory_tidy_lane(struct memory_queue *q, struct lane *lane);
struct limit *perf__queue_memory_need_limit(struct memory_queue *q, const char *key);
/* limit: may be NULL. */
void perf__queue_memory_tidy_limit(struct memory_queue *q, struct limit *limit);
/* The first place in rows whose row is not less. */
size_t perf__queue_memory_row_at(const struct memory_queue *q, uint64_t row);
struct task *perf__queue_memory_find_row(const struct memory_queue *q, uint64_t row);
/* Room for one more row. */
bool perf__queue_memory_reserve_row(struct memory_queue *q);
void perf__queue_memory_drop_unique(struct memory_queue *q, struct task *task);
/* Forgets a task that has ended. */
void perf__queue_memory_remove_task(struct memory_queue *q, struct task *task);
void perf__queue_memory_free_task(struct memory_queue *q, struct task *task);

/* ------------------------------------------------------ queue_memory_state.c */

/* Something may have become claimable. */
void perf__queue_memory_news(struct memory_queue *q);
/* Counts it, too. */
void perf__queue_memory_set_state(struct task *task, int64_t state);
void perf__queue_memory_out_of_lane(struct task *task);
/* It is QUEUED, and its limit key is taken. */
void perf__queue_memory_put_aside(struct task *task);
/* QUEUED, and in a lane unless its key has no place for it. */
void perf__queue_memory_make_ready(struct memory_queue *q, struct task *task);
/* What is not due waits in this state, what is goes into its lane. */
void perf__queue_memory_make_due(struct memory_queue *q, struct task *task, int64_t state,
                                 int64_t now_ms);
/* Out of the heap that its state has it in. */
void perf__queue_memory_leave_state(struct memory_queue *q, struct task *task);
void perf__queue_memory_set_end(struct memory_queue *q, struct task *task, int64_t state,
                                int64_t now_ms);
/* Ends a task that has left its state, and all that hangs on it. */
void perf__queue_memory_end_task(struct memory_queue *q, struct task *task, int64_t state,
                                 int64_t now_ms);
/* It goes on later, or now; due_ms 0: where it stood. */
void perf__queue_memory_go_on(struct memory_queue *q, struct task *task, int64_t state,
                              int64_t due_ms, int64_t now_ms);
/* False: no memory, and nothing has changed. */
bool perf__queue_memory_set_text(struct memory_queue *q, char **own, const char **view,
                                 const char *text);
/* The sentence is left out when there is no memory. */
void perf__queue_memory_set_error(struct memory_queue *q, struct task *task, int64_t status,
                                  const char *text);
/* A line of the history. */
void perf__queue_memory_keep_line(struct memory_queue *q, struct task *task, int64_t now_ms,
                                  int64_t state, int64_t status, const char *sentence);

/* ---------------------------------------------------- queue_memory_enqueue.c */

int perf__queue_memory_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                               void *transaction, int64_t now_ms, int *statuses,
                               char (*existing)[72]);

/* ------------------------------------------------------- queue_memory_look.c */

int perf__queue_memory_get(void *queue, const char *id, perf_queue_reply *reply);
int perf__queue_memory_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply);
int perf__queue_memory_count(void *queue, const char *name, int64_t now_ms,
                             perf_queue_counts *counts);
int perf__queue_memory_control(void *queue, int verb, const char *name, int64_t now_ms,
                               uint64_t *n);
int perf__queue_memory_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept);

#endif
