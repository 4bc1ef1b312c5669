/* SPDX-License-Identifier: MIT */
/*
 * executor.h - run work in the background, on a few threads of this process.
 *
 * In six lines:
 *
 *     static int index_file(perf_run *run, void *file);   // returns PERF_OK or why not
 *
 *     perf_executor_open(NULL, &executor);
 *     perf_task_submit(executor, index_file, &file, NULL, &task);
 *     ... perf_run_progress(run, 0.4, "reading") ...      // inside index_file
 *     perf_task_wait(task, 5000, &result);
 *     perf_task_release(task);
 *     perf_executor_close(executor, 10000);
 *
 * What is lost with the process is here; what must survive it is in task.h.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, also
 *    from inside a task, except perf_executor_close, which no task of that
 *    executor may call. A perf_run belongs to the function it was given to.
 *  - Cancelling is cooperative. What has not begun never begins; what runs must
 *    look at perf_run_cancelled now and then. A thread is never killed.
 *  - A task may wait for another one: if that has not begun, it is run there and
 *    then, and otherwise one more thread is lent to the executor meanwhile.
 *    perf_task_then and groups do without.
 *  - Tasks begin in about the order in which they came, not exactly: there is a
 *    queue for each thread, and threads without work take from the others.
 *  - fork(): a child must open its own executor. Calls on an inherited one
 *    return PERF_EFORKED; perf_executor_close there frees memory only.
 *
 * The parts, simple to expert: open, post, submit and wait, inside a task,
 * progress, callbacks and descriptors, groups, chains, recurring work,
 * statistics.
 */
#ifndef LIBPERF_EXECUTOR_H
#define LIBPERF_EXECUTOR_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A few threads and what they have to do. */
typedef struct perf_executor perf_executor;

/** One task, as seen by who submitted it. */
typedef struct perf_task perf_task;

/** One run of a task, as seen by its function. */
typedef struct perf_run perf_run;

/** Several tasks that are waited for together. */
typedef struct perf_task_group perf_task_group;

/* -------------------------------------------------------------- open, close */

/** What a submission does when max_queued tasks are waiting. */
enum {
    PERF_SUBMIT_BLOCK = 0, /**< waits for a place, full_timeout_ms at most; then PERF_EBUSY. Inside
                              a task, where waiting could be for ever, runs it at once instead */
    PERF_SUBMIT_FAIL = 1,  /**< PERF_EBUSY */
    PERF_SUBMIT_RUN = 2    /**< runs it at once, in the caller */
};

/** How to open an executor. Zero in a field means the default; durations are in milliseconds. */
typedef struct perf_executor_options {
    size_t struct_size;
    uint64_t min_threads;    /**< threads kept; default: the processors this process may use */
    uint64_t max_threads;    /**< more are started while tasks wait and all threads are busy;
                                  up to 512; default: min_threads */
    uint64_t max_queued;     /**< tasks of one priority that may wait, in the common queue; up to
                                  2^24, rounded up to a power of two; default 65536 */
    int64_t full;            /**< PERF_SUBMIT_...; default BLOCK */
    int64_t full_timeout_ms; /**< default 30000; -1: as long as it takes */
    int64_t grow_after_ms;   /**< a task that waited this long with all threads busy starts one
                                  more; default 20 */
    int64_t idle_timeout_ms; /**< a thread above min_threads ends after this; default 10000 */
    int64_t adaptive;        /**< 1: the number of tasks that run at once follows their run time,
                                  between min_threads and max_threads (perf_adaptive_limit) */
    const char *name;        /**< of its threads, up to 10 characters; copied; default "perf-run" */
    const perf_host *host;   /**< allocator, clock, log */
} perf_executor_options;
#define PERF_EXECUTOR_OPTIONS_INIT                                  \
    {                                                               \
        sizeof(perf_executor_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Opens an executor; options may be NULL. Threads start when there is work for them.
 * Errors: PERF_EINVAL names the field, the value and the fix; PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_executor_open(const perf_executor_options *options, perf_executor **out);

/**
 * Takes no more work from outside, lets what is queued run for up to drain_ms
 * (-1: as long as it takes), then cancels what has not begun, asks what runs to
 * stop, and frees everything. Tasks may be held longer than their executor.
 * PERF_EBUSY: after drain_ms and another second something still runs (the sentence says what);
 * nothing is freed, and close may be called again. NULL is allowed. Since 1.0.
 */
PERF_API int perf_executor_close(perf_executor *executor, int64_t drain_ms);

/** Waits until nothing is queued or running: PERF_OK, or PERF_ETIMEDOUT. Delayed and recurring
 *  tasks whose time has not come do not count. Since 1.0. */
PERF_API int perf_executor_drain(perf_executor *executor, int64_t timeout_ms);

/** Changes the bounds of the number of threads. PERF_EINVAL. Since 1.0. */
PERF_API int perf_executor_resize(perf_executor *executor, uint64_t min_threads,
                                  uint64_t max_threads);

/* --------------------------------------------------------------------- post */

/** What perf_executor_post runs. */
typedef void (*perf_post_fn)(void *arg);

/**
 * Runs fn(arg) on a thread of the executor, some time soon; nothing tells when, and nothing can
 * fail in it. The cheapest way: no memory is taken.
 * Errors: PERF_EBUSY (full), PERF_ECLOSED, PERF_EFORKED, PERF_EINVAL. Since 1.0.
 */
PERF_API int perf_executor_post(perf_executor *executor, perf_post_fn fn, void *arg);

/* --------------------------------------------------------- submit and wait */

/** What a task runs: PERF_OK, or a negative PERF_E code. */
typedef int (*perf_task_fn)(perf_run *run, void *arg);

/** Called once when a task has ended, on the thread that ended it. Must not block. */
typedef void (*perf_task_done_fn)(void *ctx, perf_task *task);

/** Priorities. Higher ones go first, but for one turn in sixteen, so that none starves. */
enum { PERF_PRIORITY_LOW = -1, PERF_PRIORITY_NORMAL = 0, PERF_PRIORITY_HIGH = 1 };

/** Where a task stands. The first four are on the way, the others are ends. */
enum {
    PERF_TASK_WAITING = 1,   /**< for its time, or for another task */
    PERF_TASK_QUEUED = 2,    /**< for a worker */
    PERF_TASK_RUNNING = 3,   /**< now */
    PERF_TASK_RETRYING = 4,  /**< failed, and waits for its next attempt (durable tasks) */
    PERF_TASK_SUCCEEDED = 5, /**< it returned PERF_OK */
    PERF_TASK_FAILED = 6,    /**< it returned an error (durable tasks: one that is not retried) */
    PERF_TASK_CANCELLED = 7, /**< it was cancelled */
    PERF_TASK_DEAD = 8       /**< every attempt failed (durable tasks) */
};

/** How to run a task. Zero in a field means the default. */
typedef struct perf_task_options {
    size_t struct_size;
    const char *name;       /**< for statistics and people; must outlive the task; default "" */
    int64_t priority;       /**< PERF_PRIORITY_...; default NORMAL */
    int64_t timeout_ms;     /**< it must have ended this long after its submission, or it ends with
                                 PERF_ETIMEDOUT: unrun, or by perf_run_cancelled; default: never */
    int64_t delay_ms;       /**< begins no sooner than this */
    perf_task_group *group; /**< to be waited for with others */
    perf_run *parent;       /**< the run this is a part of: cancelled with it, and its timeout */
    perf_task_done_fn done; /**< called when it has ended */
    void *done_ctx;         /**< handed to done */
    int64_t notify;         /**< 1: it shows up in perf_executor_next when it has ended */
    void (*free_arg)(void *arg); /**< called once with arg when the task will not need it any
                                      more, also when it never ran or could not be submitted */
} perf_task_options;
#define PERF_TASK_OPTIONS_INIT                                  \
    {                                                           \
        sizeof(perf_task_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Submits fn(run, arg). options may be NULL. task may be NULL when nobody wants to know;
 * otherwise *task is the caller's, to be released.
 * Errors: PERF_EBUSY (full), PERF_ENOMEM, PERF_ECLOSED, PERF_EFORKED, PERF_EINVAL. Since 1.0.
 */
PERF_API int perf_task_submit(perf_executor *executor, perf_task_fn fn, void *arg,
                              const perf_task_options *options, perf_task **task);

/**
 * Waits for the end of a task, up to timeout_ms (0: does not wait; -1: as long as it takes).
 * Returns what its function returned, or PERF_ECANCELED, or PERF_ETIMEDOUT: its own time
 * or the caller's was over, and perf_task_state tells which. result (may be NULL)
 * receives what perf_run_result gave, valid until the release.
 * Inside a task it runs one that has not begun itself; PERF_EDEADLK: the task waits for itself.
 * Since 1.0.
 */
PERF_API int perf_task_wait(perf_task *task, int64_t timeout_ms, perf_bytes *result);

/** PERF_TASK_..., or PERF_EINVAL. Never waits. Since 1.0. */
PERF_API int perf_task_state(const perf_task *task);

/** Why it failed, as the function put it with perf_run_fail, or the last error of its thread;
 *  "" if it did not. Valid until the release. Since 1.0. */
PERF_API const char *perf_task_error(const perf_task *task);

/**
 * Cancels: what has not begun ends at once with PERF_ECANCELED, what runs is asked to stop, and
 * so are the children of both. PERF_MISS: it had ended already. Since 1.0.
 */
PERF_API int perf_task_cancel(perf_task *task);

/** One more holder of task, who releases it, too. Returns task. Since 1.0. */
PERF_API perf_task *perf_task_retain(perf_task *task);

/** Lets go of a task, which goes on without. NULL is allowed. Since 1.0. */
PERF_API void perf_task_release(perf_task *task);

/* ------------------------------------------------------------ inside a task */

/**
 * Should the function stop? PERF_OK: go on. PERF_ECANCELED: it, its parent or the executor was
 * cancelled. PERF_ETIMEDOUT: its time is over. Cheap enough for an inner loop. Since 1.0.
 */
PERF_API int perf_run_cancelled(perf_run *run);

/** Milliseconds until its time is over; -1: it has no end. Since 1.0. */
PERF_API int64_t perf_run_remaining_ms(perf_run *run);

/** The result of the task: len bytes, copied; the last call counts. PERF_ENOMEM. Since 1.0. */
PERF_API int perf_run_result(perf_run *run, const void *data, size_t len);

/** Says why it fails, in a sentence of up to 255 bytes, copied; returns status, so that a
 *  function can end in `return perf_run_fail(run, PERF_EIO, "no disk")`. Since 1.0. */
PERF_API int perf_run_fail(perf_run *run, int status, const char *why);

/** *input: what a chain's earlier task gave as its result; valid during the run. PERF_MISS: there
 * is no earlier task. Since 1.0. */
PERF_API int perf_run_input(const perf_run *run, perf_bytes *input);

/* ----------------------------------------------------------------- progress */

/** How far a task is. */
typedef struct perf_progress {
    size_t struct_size;
    double fraction;      /**< 0 to 1 */
    uint64_t done;        /**< counted by perf_run_count */
    uint64_t total;       /**< 0: not known */
    double rate;          /**< done a second since the run began; without counters: fraction a
                               second */
    int64_t elapsed_ms;   /**< since the run began; 0: it has not */
    int64_t remaining_ms; /**< by that rate; -1: not known */
    char text[128];       /**< UTF-8, ends in a zero byte; cut at a character */
} perf_progress;
#define PERF_PROGRESS_INIT                       \
    {                                            \
        sizeof(perf_progress), 0, 0, 0, 0, 0, 0, \
        {                                        \
            0                                    \
        }                                        \
    }

/** Says how far it is: fraction from 0 to 1, and a text (NULL: as before). Since 1.0. */
PERF_API int perf_run_progress(perf_run *run, double fraction, const char *text);

/** The same in counters: done of total; total 0: not known. Since 1.0. */
PERF_API int perf_run_count(perf_run *run, uint64_t done, uint64_t total);

/** How far a task is now. PERF_EINVAL. Since 1.0. */
PERF_API int perf_task_progress(perf_task *task, perf_progress *progress);

/* ------------------------------------------------ callbacks and descriptors */

/** Calls done(ctx, task) when task has ended; at once, here, if it has. A task has any number
 *  of them. PERF_ENOMEM, PERF_EINVAL. Since 1.0. */
PERF_API int perf_task_on_done(perf_task *task, perf_task_done_fn done, void *ctx);

/** *fd: a file descriptor that is readable once task has ended, for poll, epoll and event loops. It
 *  is the task's: never read or close it, nor use it after the release. PERF_EIO: the system has
 *  none. Since 1.0. */
PERF_API int perf_task_fd(perf_task *task, int *fd);

/** *fd: a file descriptor that is readable while perf_executor_next has something: one for all
 *  tasks submitted with notify. Never read or close it. Since 1.0. */
PERF_API int perf_executor_fd(perf_executor *executor, int *fd);

/** The next task that has ended and was submitted with notify, in the order of their ends; the
 *  caller releases it. PERF_MISS: none now. Since 1.0. */
PERF_API int perf_executor_next(perf_executor *executor, perf_task **task);

/* ------------------------------------------------------------------- groups */

/** Opens a group. PERF_ENOMEM. Since 1.0. */
PERF_API int perf_task_group_open(perf_executor *executor, perf_task_group **out);

/** Lets go of a group; its tasks go on. NULL is allowed. Since 1.0. */
PERF_API void perf_task_group_close(perf_task_group *group);

/**
 * Waits until every task submitted to the group has ended. PERF_OK: all succeeded; PERF_ETIMEDOUT;
 * otherwise what the first that failed returned. Since 1.0.
 */
PERF_API int perf_task_group_wait(perf_task_group *group, int64_t timeout_ms);

/** Waits for the next one that ends, in the order of their ends, each once: *task is the caller's
 * to release. PERF_MISS: all have been named. PERF_ETIMEDOUT. Since 1.0. */
PERF_API int perf_task_group_next(perf_task_group *group, int64_t timeout_ms, perf_task **task);

/** Cancels all of its tasks. Since 1.0. */
PERF_API int perf_task_group_cancel(perf_task_group *group);

/* ------------------------------------------------------------------- chains */

/**
 * Submits fn(run, arg) to begin when task has succeeded; perf_run_input is then task's result.
 * If task ends otherwise, the new one ends the same way without having run. Errors as
 * perf_task_submit. Since 1.0.
 */
PERF_API int perf_task_then(perf_task *task, perf_task_fn fn, void *arg,
                            const perf_task_options *options, perf_task **next);

/* ----------------------------------------------------------- recurring work */

/**
 * Runs fn every interval_ms until its task is cancelled; runs do not overlap, and a run that
 * took longer than the interval is followed by the next at once. A failed run is
 * counted and logged, and the next one comes all the same. Since 1.0.
 */
PERF_API int perf_task_every(perf_executor *executor, int64_t interval_ms, perf_task_fn fn,
                             void *arg, const perf_task_options *options, perf_task **task);

/* --------------------------------------------------------------- statistics */

/** What an executor has done since it was opened. */
typedef struct perf_executor_stats {
    size_t struct_size;
    uint64_t submitted;     /**< tasks and posts taken */
    uint64_t completed;     /**< run to their end */
    uint64_t failed;        /**< of those, tasks that returned an error */
    uint64_t cancelled;     /**< tasks that were cancelled or timed out before they ran */
    uint64_t rejected;      /**< not taken: full */
    uint64_t ran_in_caller; /**< run by who submitted them */
    uint64_t stolen;        /**< taken from another thread's queue */
    uint64_t parked;        /**< times that a thread went to sleep */
    uint64_t queued;        /**< waiting now */
    uint64_t running;       /**< running now */
    uint64_t threads;       /**< threads now */
    uint64_t threads_max;   /**< most threads so far */
    int64_t run_p50_ns;     /**< of the tasks (not posts): time in the function */
    int64_t run_p99_ns;
    int64_t wait_p50_ns; /**< from submission to beginning */
    int64_t wait_p99_ns;
} perf_executor_stats;
#define PERF_EXECUTOR_STATS_INIT                                                    \
    {                                                                               \
        sizeof(perf_executor_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_executor_get_stats(perf_executor *executor, perf_executor_stats *stats);

PERF_END_DECLS

#endif
