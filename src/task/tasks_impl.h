/* SPDX-License-Identifier: MIT */
/*
 * tasks_impl.h - what the files of the durable half share.
 *
 * A claim is a task that this process was given. It is READY until one of the
 * workers is free, RUNNING in a task of the executor (or, pulled, in the
 * caller's hands), ENDING until the queue has taken its end, and then gone. One
 * mutex guards claims, lists and counts; no call of the queue, the executor's callbacks or the host
 * is made with it held.
 */
#ifndef PERF_TASK_TASKS_IMPL_H
#define PERF_TASK_TASKS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <libperf/task.h>

#include "../base/options.h"
#include "../metrics/histogram.h"
#include "cron.h"
#include "queue.h"
#include "run.h"

enum {
    PERF__KIND_MAX = 64,
    PERF__TASK_ID_MAX = 64,
    PERF__TASK_QUEUES_MAX = 32,
    PERF__TASK_HOOKS_MAX = 8,
    PERF__TASK_WHY_MAX = 256,
    PERF__DEFAULT_ATTEMPTS = 10,
};

struct perf__handler {
    char kind[PERF__KIND_MAX + 1];
    perf_task_fn fn;
    void *ctx;
    perf_handler_options options; /* defaults filled in */
    /* Under the mutex. */
    uint64_t claimed;  /* READY or RUNNING */
    int64_t minute;    /* since 1970, that `begun` is of */
    uint64_t begun[2]; /* claimed in that minute, and in the one before */
};

enum perf__claim_state { CLAIM_READY, CLAIM_RUNNING, CLAIM_ENDING, CLAIM_DONE };

struct perf__claim {
    perf_tasks *tasks;
    struct perf__handler *handler;       /* NULL: pulled, of a kind without one */
    perf_queue_task *task;               /* ours */
    struct perf__claim *previous, *next; /* of all */
    struct perf__claim *next_in_line;    /* of those that are READY, or ENDING */
    enum perf__claim_state state;
    uint32_t pins;     /* beats that look at it: it is not freed */
    bool pulled;       /* by perf_tasks_claim */
    bool cancelled;    /* the queue wants it to stop */
    bool lost;         /* the queue has given it to somebody else */
    bool returning;    /* we are closing */
    bool asked;        /* perf_task_cancel was called */
    bool hung;         /* over its time; its lease is no longer kept */
    uint32_t count_as; /* COUNT_... when its end is kept */
    uint64_t beat;     /* the last round of beats that had it */
    int64_t lease_until_ms;
    int64_t timeout_ms; /* of the attempt; 0: none */
    int64_t begun_ns;
    perf_task *run_task; /* while RUNNING; from then on a holder until DONE, for its result */
    int64_t snooze_ms;   /* -1: no */
    /* The end. */
    perf_queue_end end;
    char why[PERF__TASK_WHY_MAX];
};

/* A call of perf_tasks_wait. */
struct perf__task_waiter {
    const char *id;
    bool ended;
    pthread_cond_t cond;
    struct perf__task_waiter *next;
};

struct perf__schedule;

enum {
    COUNT_SUBMITTED,
    COUNT_DUPLICATES,
    COUNT_CLAIMED,
    COUNT_SUCCEEDED,
    COUNT_FAILED,
    COUNT_CANCELLED,
    COUNT_DEAD,
    COUNT_RETRIED,
    COUNT_SNOOZED,
    COUNT_RETURNED,
    COUNT_LOST,
    COUNT_RESCUED,
    COUNT_REMOVED,
    COUNT_QUEUE_ERRORS,
    COUNT_COUNT
};

struct perf_tasks {
    struct perf__host host;
    bool own_clock; /* the host's: it may move at any moment */
    uint64_t fork_generation;
    perf_tasks_options options; /* defaults filled in; strings are NULL */
    char worker[128];
    char *queue_names; /* holds what queues points to */
    const char *queues[PERF__TASK_QUEUES_MAX];
    size_t queue_count;
    struct perf__task_queue *queue;
    perf_executor *executor; /* NULL: never started */
    struct perf__counters counters;
    struct perf__histogram runs, waits;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* something ended, for those counted in watchers */
    pthread_cond_t room;    /* for the claimer */
    uint32_t watchers;
    bool claimer_waits;              /* for room */
    bool wake_queue;                 /* a kind may begin again that the claimer did not ask for */
    bool wake_claimer;               /* the same, since it last asked */
    struct perf__handler **handlers; /* fixed from the first claim on */
    size_t handler_count;
    perf_task_hooks hooks[PERF__TASK_HOOKS_MAX];
    size_t hook_count;
    struct perf__claim *claims;                    /* all */
    struct perf__claim *ready_head, *ready_tail;   /* the next to run first */
    struct perf__claim *ending_head, *ending_tail; /* the oldest end first */
    size_t ready, running, pulled, ending;         /* how many; pulled ones run, too */
    int64_t run_ns;                                /* about how long one runs */
    bool started, stopping, closing;
    bool claiming; /* the claimer has not come to its end */
    bool finishing;
    uint32_t finish_failures;
    int64_t finish_after_ns; /* ends are not sent before */
    struct perf__task_waiter *waiters;
    pthread_t claimer;
    uint64_t turn;

    /* tasks_keep.c */
    pthread_t keeper;
    pthread_cond_t keep;
    bool keeping, keep_stop, beat_now;
    uint64_t beat_round;
    int64_t beat_ns, sweep_ms; /* when next */
    int64_t clock_ahead_ms;    /* the wall clock, of the monotonic one, when last asked */
    struct perf__schedule *schedules;

    /* tasks_id.c */
    pthread_mutex_t id_mutex;
    uint8_t random[640];
    size_t random_left;
};

/* PERF_EINVAL, PERF_EFORKED, PERF_ECLOSED. */
int perf__tasks_usable(perf_tasks *t);
void perf__tasks_count(perf_tasks *t, uint32_t which, uint64_t n);
/* A queue's call failed: counts it, and logs it if it is the first of several. */
void perf__tasks_queue_failed(perf_tasks *t, const char *what, int rc, uint32_t failures);
/* NULL: there is none. With the mutex, or after the first claim. */
struct perf__handler *perf__tasks_handler(const perf_tasks *t, const char *kind);
/* How long to stay away after so many failures in a row, jittered. */
int64_t perf__tasks_back_off_ms(uint32_t failures);

/* tasks_check.c: PERF_EINVAL names the field, the value and the fix. */
int perf__check_name(const char *field, const char *text, size_t max, const char *allowed);
int perf__check_text(const char *field, const char *text, size_t max);
/* Copies as much of a text as size bytes take, with a zero byte; what is not to be shown becomes
 * blanks. */
void perf__copy_text(char *to, size_t size, const char *from);
int perf__check_kind(const char *kind);
int perf__check_queue(const char *queue);
int perf__check_task_id(const char *id);
int perf__submit_options_take(perf_tasks *t, const perf_submit_options *given,
                              perf_submit_options *own);

/* tasks_id.c: 26 characters that sort by time and then are chance; text has 72 bytes. */
void perf__task_id_make(perf_tasks *t, char *text);

/* tasks_claim.c */
void *perf__tasks_claimer(void *tasks);
/* Lets READY claims run while workers are free. With the mutex. */
void perf__tasks_dispatch(perf_tasks *t);
/* May the claimer ask for more? With the mutex. */
bool perf__tasks_has_room(const perf_tasks *t);
/* Takes a claim out of the list of all, and frees it unless it is pinned. With the mutex. */
void perf__claim_done(struct perf__claim *c);
void perf__claim_free(struct perf__claim *c);

/* tasks_run.c */
int perf__claim_run(perf_run *run, void *claim);
/* The claim begins: its time and statistics. */
void perf__claim_begin(struct perf__claim *c, perf_run *run);
/* What becomes of an attempt that returned status; fills c->end. On the thread of the run. */
void perf__claim_judge(struct perf__claim *c, perf_run *run, int status);

/* tasks_end.c */
/* RUNNING or READY to ENDING; c->end is set but for id, token and time. With the mutex. */
void perf__claim_end(struct perf__claim *c);
/* Sends ends to the queue, unless somebody does. Without the mutex. */
void perf__tasks_send_ends(perf_tasks *t);

/* tasks_keep.c */
int perf__tasks_keep_start(perf_tasks *t); /* with the mutex */
void perf__tasks_keep_stop(perf_tasks *t);
/* Something is due at due_ms that the keeper does not know of; 0: leases, now. Without the mutex.
 */
void perf__tasks_keep_wake(perf_tasks *t, int64_t due_ms);
/* Asks what runs to stop: all (closing), or what the queue has named. Without the mutex. */
void perf__tasks_ask_to_stop(perf_tasks *t, bool all);

/* tasks_schedule.c */
/* Submits what is due; returns when the next is: INT64_MAX: never. Without the mutex. */
int64_t perf__tasks_fire(perf_tasks *t, int64_t now_ms);
void perf__tasks_free_schedules(perf_tasks *t);

#endif
