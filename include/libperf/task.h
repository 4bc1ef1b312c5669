/* SPDX-License-Identifier: MIT */
/*
 * task.h - background work that survives crashes.
 *
 * In six lines:
 *
 *     static int resize(perf_run *run, void *ctx);        // returns PERF_OK or why not
 *
 *     perf_tasks_open(NULL, &tasks);                      // SQLite, in ./libperf-tasks.db
 *     perf_tasks_handle(tasks, "resize", resize, NULL, NULL);
 *     perf_tasks_start(tasks);                            // leave out where nothing shall run
 *     perf_tasks_submit(tasks, "resize", payload, payload_len, NULL, &id);
 *     perf_tasks_wait(tasks, id.text, 5000, &record);     // or _get, now or next week
 *     perf_tasks_close(tasks, 10000);
 *
 * A task is a payload (bytes) for the handler of its kind. Once perf_tasks_submit
 * has returned PERF_OK, the task is kept by its queue (SQLite, Redis, DynamoDB,
 * memory, or one of the host's) and reaches one of four ends: succeeded, failed, dead or
 * cancelled, whatever happens to this process. In-process work that may die with
 * the process is executor.h's.
 *
 * Caveats first
 *  - At least once. A worker that dies, or loses its queue for longer than
 *    lease_ms, has its task run again, although the first run may have
 *    done its work. Handlers must be able to stand that. What is promised: one
 *    attempt's end is recorded at most once, and a late one is refused.
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_tasks_close. Handlers, hooks and the clean-up run on the workers.
 *  - perf_tasks_start starts the workers, a thread that claims tasks, and one that
 *    keeps leases and watches schedules; perf_tasks_schedule and perf_tasks_claim
 *    start the last one only.
 *  - fork(): a child must open its own. Calls on an inherited handle return
 *    PERF_EFORKED.
 *  - Payloads and results are bytes of strangers when the queue is shared: a
 *    handler must check them. Errors, texts and names are kept as UTF-8 and
 *    can be read by whoever reads the queue: no secrets in them.
 *
 * The parts, simple to expert: open, handlers, submit, inside a task, look,
 * steer, schedules, hooks, working without threads, statistics.
 */
#ifndef LIBPERF_TASK_H
#define LIBPERF_TASK_H

#include <libperf/backend/queue.h>
#include <libperf/executor.h>
#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A queue of durable tasks, with workers if it was started. */
typedef struct perf_tasks perf_tasks;

/* -------------------------------------------------------------- open, close */

/** How to open. Zero in a field means the default; durations are in milliseconds. */
typedef struct perf_tasks_options {
    size_t struct_size;
    const char *backend;  /**< "sqlite" (default), "memory", "redis" or "dynamodb" */
    const char *location; /**< file, URL or table, as the backend has it; default: its own */
    const perf_queue_vtable *vtable; /**< a queue of the host's, instead of backend; copied */
    void *queue_ctx;                 /**< handed to the queue's open */
    uint64_t workers;      /**< tasks that run at once; 1 to 512; default: the processors this
                                process may use, but 2 at least */
    const char *queues;    /**< names of the queues worked on, most important first, separated by
                                commas; each is asked only when those before it are empty, but
                                for one turn in eight; default "default" */
    int64_t lease_ms;      /**< a worker that is not heard of for so long has lost its task;
                                default 30000. It is heard of every third of this */
    int64_t poll_ms;       /**< a queue that cannot tell is asked this often; default 200 */
    int64_t keep_ms;       /**< records of ended tasks are kept this long; default 7 days */
    int64_t sync;          /**< PERF_SYNC_NORMAL (default) or _FULL, see types.h */
    uint64_t max_payload;  /**< bytes; default 1 MiB */
    uint64_t max_result;   /**< bytes; default 16 MiB */
    const char *worker;    /**< name of this process in records; default "host:pid" */
    const perf_host *host; /**< allocator, clock, log */
} perf_tasks_options;
#define PERF_TASKS_OPTIONS_INIT                                              \
    {                                                                        \
        sizeof(perf_tasks_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a queue; options may be NULL. Errors: PERF_EINVAL names the field, the value and the fix;
 *  PERF_ENOMEM; what the queue said. Since 1.0. */
PERF_API int perf_tasks_open(const perf_tasks_options *options, perf_tasks **out);

/**
 * Claims no more, waits up to drain_ms (-1: as long as it takes) for what runs, then asks it to
 * stop and gives it back to the queue, to be run by somebody else at once, its attempt not
 * counted. Everything is freed. PERF_EBUSY: after another second a handler still runs; close
 * may be called again. NULL is allowed. Since 1.0.
 */
PERF_API int perf_tasks_close(perf_tasks *tasks, int64_t drain_ms);

/* ----------------------------------------------------------------- handlers */

/** What becomes of a failed attempt; see perf_handler_options.on_error. */
enum {
    PERF_RETRY_BY_POLICY = 0, /**< retried until max_attempts, then DEAD */
    PERF_RETRY_NEVER = 1,     /**< FAILED at once */
    PERF_RETRY_UNCOUNTED = 2  /**< retried, and the attempt is not counted */
};

/** Decides about an attempt that returned status; *delay_ms is what the policy would wait, and may
 *  be changed. On the worker's thread. */
typedef int (*perf_task_error_fn)(void *ctx, perf_run *run, int status, int64_t *delay_ms);

/** How a kind of task is handled. Zero in a field means the default. */
typedef struct perf_handler_options {
    size_t struct_size;
    int64_t max_attempts;   /**< default 10; -1: as many as it takes */
    int64_t timeout_ms;     /**< of one attempt: then perf_run_cancelled says PERF_ETIMEDOUT, and
                                 lease_ms later a handler that still runs has lost its task;
                                 default: none */
    int64_t backoff_ms;     /**< before the second attempt; doubles, with full jitter (Brooker,
                                 "Exponential Backoff And Jitter", 2015); default 1000 */
    int64_t backoff_max_ms; /**< default 3600000 */
    int64_t max_running;    /**< of this kind at once in this process; default: as many as there are
                               workers */
    int64_t per_minute;     /**< of this kind begun in this process; default: no limit */
    int64_t version_min; /**< payloads of an older version are left for older workers; default 0 */
    int64_t version_max; /**< and of a newer one for newer workers; default: any */
    perf_task_error_fn on_error; /**< NULL: PERF_EINVAL, _EUNSUPPORTED, _ECORRUPT and _ETOOBIG
                                      are PERF_RETRY_NEVER, all else PERF_RETRY_BY_POLICY */
    void (*free_ctx)(void *ctx); /**< called with ctx at close */
} perf_handler_options;
#define PERF_HANDLER_OPTIONS_INIT                                  \
    {                                                              \
        sizeof(perf_handler_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Tasks of kind are run by fn(run, ctx). kind is 1 to 64 bytes of letters, digits and "._-:/".
 * A kind without a handler is left in the queue for processes that have one.
 * PERF_EEXISTS; PERF_EBUSY: started already. Since 1.0.
 */
PERF_API int perf_tasks_handle(perf_tasks *tasks, const char *kind, perf_task_fn fn, void *ctx,
                               const perf_handler_options *options);

/** Begins to work. Since 1.0. */
PERF_API int perf_tasks_start(perf_tasks *tasks);

/** Stops claiming, and waits up to timeout_ms for what runs. PERF_OK, PERF_ETIMEDOUT. May be
 * started again. Since 1.0. */
PERF_API int perf_tasks_stop(perf_tasks *tasks, int64_t timeout_ms);

/* ------------------------------------------------------------------- submit */

/** How a task is to be run. Zero in a field means the default. Strings are copied. */
typedef struct perf_submit_options {
    size_t struct_size;
    const char *user;     /**< whose task it is, up to 128 bytes; default "" */
    const char *queue;    /**< default "default" */
    const char *id;       /**< an id of the caller's (an idempotency key), 1 to 64 bytes of letters,
                               digits and "._-:": a second submission with it is PERF_EEXISTS as
                               long as the first one's record is kept. Default: a new one */
    int64_t priority;     /**< -9 to 9; default 0. Each step counts like a minute of waiting, so
                               that no task starves */
    int64_t delay_ms;     /**< runs no sooner than this */
    int64_t at_ms;        /**< or than this, milliseconds since 1970 UTC */
    int64_t max_attempts; /**< default: the handler's of this process; without one, 10. -1: no
                               bound */
    int64_t timeout_ms;   /**< of one attempt; default: the handler's */
    int64_t deadline_ms;  /**< not begun so long after its submission, it ends as CANCELLED */
    int64_t keep_ms;      /**< of its record and result; default: perf_tasks_options.keep_ms */
    int64_t version;      /**< of its payload; default 0 */
    const char *unique_key; /**< only one such task of this kind may be on the way, or was submitted
                                 within unique_ms: another one is PERF_EEXISTS, and its id is
                                 that of the first */
    int64_t unique_ms;      /**< default 0: as long as it has not ended */
    const char *limit_key;  /**< at most limit tasks with this key run at once, in all processes */
    int64_t limit;          /**< default 1 */
    const char *after;      /**< ids, separated by commas, of tasks of this queue that must succeed
                                 first: a chain, or a fan-in. If one ends otherwise, so
                                 does this one, as CANCELLED */
    int64_t after_any_end;  /**< 1: they only have to end, however */
    const char *batch;      /**< a name under which many can be found; default "" */
    void *transaction;      /**< SQLite: an sqlite3 * of the host's on the same file with a
                                 transaction under way; the task exists when that commits */
} perf_submit_options;
#define PERF_SUBMIT_OPTIONS_INIT                                                             \
    {                                                                                        \
        sizeof(perf_submit_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** The id of a task: a text that ends in a zero byte. */
typedef struct perf_task_id {
    char text[72];
} perf_task_id;

/**
 * Submits a task of kind with len bytes of payload, copied. PERF_OK: it is kept. id may be NULL.
 * Errors: PERF_EEXISTS (see id, unique_key); PERF_ETOOBIG; PERF_EINVAL; PERF_EUNAVAILABLE and
 * PERF_ETIMEDOUT (it may or may not be kept: submit again with an id of your own);
 * PERF_EUNSUPPORTED names what the queue cannot do. Since 1.0.
 */
PERF_API int perf_tasks_submit(perf_tasks *tasks, const char *kind, const void *payload, size_t len,
                               const perf_submit_options *options, perf_task_id *id);

/** One of many. */
typedef struct perf_submission {
    size_t struct_size;
    const char *kind;
    perf_bytes payload;
    const perf_submit_options *options; /**< may be NULL */
    perf_task_id id;                    /**< out */
    int64_t status;                     /**< out: as perf_tasks_submit */
} perf_submission;

/** Submits count tasks in as few round trips as the queue can. PERF_OK: all are kept; otherwise
 * each status says what became of it. Since 1.0. */
PERF_API int perf_tasks_submit_many(perf_tasks *tasks, perf_submission *submissions, size_t count);

/* ------------------------------------------------------------ inside a task */
/* Besides perf_run_cancelled, _progress, _count, _result and _fail of executor.h. */

/** *payload: the payload, valid during the run. PERF_EINVAL: it is no durable task's. Since 1.0. */
PERF_API int perf_run_payload(const perf_run *run, perf_bytes *payload);

/** The task's id, kind, user; valid during the run. "" in an executor's task. Since 1.0. */
PERF_API const char *perf_run_id(const perf_run *run);
PERF_API const char *perf_run_kind(const perf_run *run);
PERF_API const char *perf_run_user(const perf_run *run);

/** The number of this attempt: 1, 2, … Since 1.0. */
PERF_API int64_t perf_run_attempt(const perf_run *run);

/** The version of the payload. Since 1.0. */
PERF_API int64_t perf_run_version(const perf_run *run);

/** Run it again in delay_ms, and do not count this attempt. To be returned: `return
 *  perf_run_snooze(run, 60000)`. Since 1.0. */
PERF_API int perf_run_snooze(perf_run *run, int64_t delay_ms);

/* --------------------------------------------------------------------- look */

/** A task as its queue has it. The strings and bytes are the record's. */
typedef struct perf_task_record {
    size_t struct_size;
    const char *id, *kind, *user, *queue, *batch;
    int64_t state; /**< PERF_TASK_... */
    int64_t priority;
    int64_t attempts; /**< begun */
    int64_t max_attempts;
    int64_t version;
    int64_t created_ms; /**< wall clock, since 1970 UTC; 0 in the others: not yet */
    int64_t due_ms;     /**< begins no sooner */
    int64_t started_ms; /**< its last attempt */
    int64_t ended_ms;
    int64_t lease_ms;   /**< RUNNING: its worker is believed until then */
    const char *worker; /**< who runs it, or ran it last */
    double fraction;    /**< progress, 0 to 1 */
    uint64_t done, total;
    const char *text;  /**< what it is doing */
    int64_t status;    /**< of its last attempt: PERF_OK or PERF_E... */
    const char *error; /**< the sentence of its last failure; "" */
    perf_bytes payload;
    perf_bytes result;
    const char *history; /**< a line for each change: "TIME_MS STATE WORKER STATUS SENTENCE",
                              oldest first, 32 at most */
} perf_task_record;

/** The record of a task. *record is the caller's, to be freed. PERF_MISS: there is none (any
 *  more). Since 1.0. */
PERF_API int perf_tasks_get(perf_tasks *tasks, const char *id, perf_task_record **record);

/** Frees a record. NULL is allowed. Since 1.0. */
PERF_API void perf_task_record_free(perf_task_record *record);

/** Waits for the end of a task: PERF_OK, and its record (which may be NULL) says which end.
 *  PERF_ETIMEDOUT; PERF_MISS. Since 1.0. */
PERF_API int perf_tasks_wait(perf_tasks *tasks, const char *id, int64_t timeout_ms,
                             perf_task_record **record);

/** What to list. Zero or NULL in a field: any. */
typedef struct perf_tasks_filter {
    size_t struct_size;
    const char *user, *queue, *kind, *batch;
    int64_t state;      /**< PERF_TASK_... */
    int64_t limit;      /**< records at once; 1 to 1000; default 100 */
    const char *cursor; /**< perf_tasks_list.cursor of the page before */
} perf_tasks_filter;
#define PERF_TASKS_FILTER_INIT                         \
    {                                                  \
        sizeof(perf_tasks_filter), 0, 0, 0, 0, 0, 0, 0 \
    }

/** A page of records, the newest first, without payloads and results. */
typedef struct perf_tasks_list {
    size_t struct_size;
    perf_task_record **records;
    uint64_t count;
    const char *cursor; /**< for the next page; NULL: this is the last */
} perf_tasks_list;

/** Lists. *list is the caller's, to be freed. Since 1.0. */
PERF_API int perf_tasks_find(perf_tasks *tasks, const perf_tasks_filter *filter,
                             perf_tasks_list **list);
/** Frees a list with its records. NULL is allowed. Since 1.0. */
PERF_API void perf_tasks_list_free(perf_tasks_list *list);

/** How many tasks of a queue stand where. */
typedef struct perf_tasks_counts {
    size_t struct_size;
    uint64_t waiting, queued, running, retrying, succeeded, failed, cancelled, dead;
    int64_t oldest_ms; /**< how long the oldest QUEUED one has been due */
    int64_t paused;    /**< 1: it is */
} perf_tasks_counts;
#define PERF_TASKS_COUNTS_INIT                                  \
    {                                                           \
        sizeof(perf_tasks_counts), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Counts; queue NULL: "default". Since 1.0. */
PERF_API int perf_tasks_count(perf_tasks *tasks, const char *queue, perf_tasks_counts *counts);

/* -------------------------------------------------------------------- steer */

/** Cancels: what does not run ends at once, what runs is asked to stop when its worker is next
 *  heard of. PERF_MISS: none, or it has ended. Since 1.0. */
PERF_API int perf_tasks_cancel(perf_tasks *tasks, const char *id);

/** Puts a DEAD, FAILED or CANCELLED task into its queue again, with its attempts at 0. PERF_MISS:
 *  none, or it is none of these. Since 1.0. */
PERF_API int perf_tasks_redrive(perf_tasks *tasks, const char *id);

/** Redrives all DEAD tasks of a queue (NULL: "default"); *count of them. Since 1.0. */
PERF_API int perf_tasks_redrive_all(perf_tasks *tasks, const char *queue, uint64_t *count);

/** Removes the record of a task that has ended. PERF_EBUSY: it has not; cancel it first. PERF_MISS.
 *  Since 1.0. */
PERF_API int perf_tasks_remove(perf_tasks *tasks, const char *id);

/** Nothing of this queue is begun any more, in any process, until it is resumed. Since 1.0. */
PERF_API int perf_tasks_pause(perf_tasks *tasks, const char *queue);
PERF_API int perf_tasks_resume(perf_tasks *tasks, const char *queue);

/* ---------------------------------------------------------------- schedules */

/**
 * Submits a task of kind at the times of a cron expression (five fields, or @hourly and its like,
 * see libperf-task(7)) in a time zone ("Europe/Berlin"; NULL: UTC). Every process that should
 * keep the schedule up calls it; each time is submitted once, whoever comes first. A time that
 * passed while no process ran is left out. An hour that a zone skips or repeats: times in it
 * run once, unless the expression names every hour: then it follows the clock on the wall. The same
 * name again replaces it. PERF_EINVAL says what is wrong with the expression or zone. Since 1.0.
 */
PERF_API int perf_tasks_schedule(perf_tasks *tasks, const char *name, const char *cron,
                                 const char *zone, const char *kind, const void *payload,
                                 size_t len, const perf_submit_options *options);

/** Ends a schedule of this process. PERF_MISS: there is none. Since 1.0. */
PERF_API int perf_tasks_unschedule(perf_tasks *tasks, const char *name);

/** The first time after after_ms (milliseconds since 1970 UTC) that a cron expression names in a
 *  zone. PERF_MISS: none within the next ten years. Since 1.0. */
PERF_API int perf_cron_next(const char *cron, const char *zone, int64_t after_ms, int64_t *next_ms);

/* -------------------------------------------------------------------- hooks */

/** Called around every run of this process, on the worker's thread. */
typedef struct perf_task_hooks {
    size_t struct_size;
    void *ctx;
    /** Before the handler. Anything but PERF_OK is taken for the handler's answer. */
    int (*before)(void *ctx, perf_run *run);
    /** After it, and before the end is recorded. state is what it will be: PERF_TASK_... */
    void (*after)(void *ctx, perf_run *run, int status, int state);
} perf_task_hooks;
#define PERF_TASK_HOOKS_INIT             \
    {                                    \
        sizeof(perf_task_hooks), 0, 0, 0 \
    }

/** Adds hooks, copied; before perf_tasks_start. Since 1.0. */
PERF_API int perf_tasks_hook(perf_tasks *tasks, const perf_task_hooks *hooks);

/* -------------------------------------------------- working without threads */

/**
 * Claims one task of the kinds that have a handler, or of kind if that is not NULL, for whoever
 * cannot be called from a foreign thread (Python, Node, Lambda): the caller does
 * the work with perf_run_... and then says perf_run_end. Its lease is kept by a thread of the
 * library. PERF_MISS: none within timeout_ms. Since 1.0.
 */
PERF_API int perf_tasks_claim(perf_tasks *tasks, const char *kind, int64_t timeout_ms,
                              perf_run **run);

/** Ends a run that perf_tasks_claim gave: status as a handler would return it. PERF_ECONFLICT: its
 *  lease was lost, and somebody else has the task. run is freed in any case. Since 1.0. */
PERF_API int perf_run_end(perf_run *run, int status);

/* --------------------------------------------------------------- statistics */

/** What this process has done since it opened the queue. */
typedef struct perf_tasks_stats {
    size_t struct_size;
    uint64_t submitted;
    uint64_t duplicates; /**< PERF_EEXISTS */
    uint64_t claimed;
    uint64_t succeeded, failed, cancelled, dead;
    uint64_t retried; /**< attempts that failed and come again */
    uint64_t snoozed;
    uint64_t returned;                /**< given back at the close */
    uint64_t lost;                    /**< ends that were refused because the lease was lost */
    uint64_t rescued;                 /**< tasks of dead workers that this process put back */
    uint64_t removed;                 /**< records whose time was over */
    uint64_t queue_errors;            /**< calls of the queue that failed */
    uint64_t running;                 /**< now */
    int64_t run_p50_us, run_p99_us;   /**< in the handler */
    int64_t wait_p50_us, wait_p99_us; /**< from due to begun */
} perf_tasks_stats;
#define PERF_TASKS_STATS_INIT                                                             \
    {                                                                                     \
        sizeof(perf_tasks_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_tasks_get_stats(perf_tasks *tasks, perf_tasks_stats *stats);

PERF_END_DECLS

#endif
