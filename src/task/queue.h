/* SPDX-License-Identifier: MIT */
/*
 * queue.h - an opened queue of durable tasks, with a default for every slot.
 *
 * Wraps a perf_queue_vtable: fills in the fallbacks that backend/queue.h
 * promises, serialises calls for PERF_QUEUE_SERIAL, checks what foreign code
 * returns, and finds built-in backends by name. Any thread.
 */
#ifndef PERF_TASK_QUEUE_H
#define PERF_TASK_QUEUE_H

#include <libperf/backend/queue.h>
#include <libperf/task.h>
#include <stdbool.h>

#include "../base/options.h"

struct perf__task_queue;

/* A step of priority counts like a minute of waiting. */
enum { PERF__PRIORITY_MS = 60000 };

/* What rank a task has. */
static inline int64_t perf__task_rank(int64_t due_ms, int64_t priority)
{
    return due_ms - priority * PERF__PRIORITY_MS;
}

/* Has it come to one of the ends? */
static inline bool perf__task_ended(int64_t state)
{
    return state >= PERF_TASK_SUCCEEDED;
}

/* The library's side of a reply. Each task is one block, with all it points to. */
struct perf_queue_reply {
    const perf_allocator *allocator; /* set before use; the rest zero */
    perf_queue_task **tasks;
    size_t count, cap;
    char *cursor; /* NULL: there is no more */
};

/* Takes task i out of a reply (tasks[i] becomes NULL): the caller's, to be given to
 * perf__free(reply->allocator, task). */
perf_queue_task *perf__queue_reply_take(perf_queue_reply *reply, size_t i);
/* Frees what is in it, and leaves it empty for the next use. */
void perf__queue_reply_free(perf_queue_reply *reply);

/* Opens the queue that options name (or bring); of them backend, location, vtable, queue_ctx and
 * sync are looked at. backend NULL: "sqlite". host outlives the queue. PERF_EINVAL names an unknown
 * backend and lists the known ones, or the missing entry of a vtable. */
int perf__task_queue_open(const perf_tasks_options *options, const struct perf__host *host,
                          struct perf__task_queue **out);
void perf__task_queue_close(struct perf__task_queue *q); /* NULL ok */
/* After fork(), in the child: frees our memory, does not touch the backend (SQLite forbids it). */
void perf__task_queue_abandon(struct perf__task_queue *q);

const char *perf__task_queue_name(const struct perf__task_queue *q);
uint64_t perf__task_queue_capabilities(const struct perf__task_queue *q);
/* False: perf__task_queue_wait returns PERF_EUNSUPPORTED at once, and the caller polls. */
bool perf__task_queue_waits(const struct perf__task_queue *q);

/*
 * As the vtable's entries. Statuses of single tasks are given even when the return value is an
 * error: where the backend set none, it is that error. enqueue: existing may be NULL; a task that
 * asks for what the backend cannot do gets PERF_EUNSUPPORTED, with a sentence that names it, before
 * the backend is asked.
 */
int perf__task_queue_enqueue(struct perf__task_queue *q, const perf_queue_task *tasks, size_t count,
                             void *transaction, int64_t now_ms, int *statuses,
                             char (*existing)[72]);
/* PERF_OK: reply has one task at least. PERF_MISS: none. */
int perf__task_queue_claim(struct perf__task_queue *q, const perf_queue_claim *want,
                           perf_queue_reply *reply);
int perf__task_queue_extend(struct perf__task_queue *q, perf_queue_beat *beats, size_t count,
                            int64_t now_ms);
/* A state that is none refuses the whole call: backends need not look. */
int perf__task_queue_finish(struct perf__task_queue *q, perf_queue_end *ends, size_t count);
int perf__task_queue_get(struct perf__task_queue *q, const char *id, perf_queue_reply *reply);
int perf__task_queue_find(struct perf__task_queue *q, const perf_queue_filter *filter,
                          perf_queue_reply *reply);
int perf__task_queue_count(struct perf__task_queue *q, const char *name, int64_t now_ms,
                           perf_queue_counts *counts);
/* n may be NULL. */
int perf__task_queue_control(struct perf__task_queue *q, int verb, const char *name, int64_t now_ms,
                             uint64_t *n);
int perf__task_queue_sweep(struct perf__task_queue *q, int64_t now_ms, size_t budget,
                           perf_queue_swept *swept);
/* PERF_OK or PERF_EUNSUPPORTED. */
int perf__task_queue_wait(struct perf__task_queue *q, int64_t timeout_ms);
/* Has those return who are in perf__task_queue_wait. */
void perf__task_queue_wake(struct perf__task_queue *q);
int perf__task_queue_flush(struct perf__task_queue *q);

/* For what a backend reads from strangers. */
bool perf__task_is_utf8(const void *text, size_t len);

/* Built-in backends, one line each in queue_registry.c. NULL when unknown or left out. */
const perf_queue_vtable *perf__queue_builtin(const char *name);
/* The error for a name that perf__queue_builtin does not know. */
int perf__queue_fail_unknown(const char *name);
/* The backends, where they are built. */
extern const perf_queue_vtable perf__queue_memory, perf__queue_sqlite, perf__queue_redis,
    perf__queue_dynamodb;

#endif
