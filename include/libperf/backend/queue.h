/* SPDX-License-Identifier: MIT */
/*
 * backend/queue.h - the contract of a queue of durable tasks, on one page.
 *
 * A queue keeps task records and hands them to workers. It decides atomically
 * who gets what; what tasks do, when they are retried and what is due by a
 * schedule is decided above it (task.h). Memory, SQLite, Redis and
 * DynamoDB are built in, and a host can bring its own by filling one perf_queue_vtable.
 *
 * What a queue may rely on
 *  - open is called once and close once. Between them every entry may be called
 *    from several threads at once, unless PERF_QUEUE_SERIAL is set: then the
 *    library holds a lock around every call but wait.
 *  - Strings are UTF-8, checked, and bounded as task.h says; times are wall
 *    clock milliseconds since 1970, and now_ms is given where it is needed.
 *
 * What the library relies on
 *  - enqueue with PERF_OK: the task is kept as durably as the queue was configured.
 *  - A task is claimed by one worker at a time: claim gives each a token,
 *    greater than those before it, and extend and finish are refused with
 *    PERF_ECONFLICT for any other token. So an end is recorded once.
 *  - A task whose lease has passed is put back by sweep (by anybody's), its attempts counted.
 *  - No entry blocks for longer than its backend's own timeout.
 */
#ifndef LIBPERF_BACKEND_QUEUE_H
#define LIBPERF_BACKEND_QUEUE_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** Capability flags. What is missing is refused when a submission asks for it, with its name. */
enum {
    PERF_QUEUE_SERIAL = 1,       /**< calls must not overlap: the library locks around them */
    PERF_QUEUE_DURABLE = 2,      /**< tasks survive the process */
    PERF_QUEUE_SHARED = 4,       /**< other processes may submit and work, too */
    PERF_QUEUE_PRIORITY = 8,     /**< rank is honoured */
    PERF_QUEUE_UNIQUE = 16,      /**< unique_key is honoured */
    PERF_QUEUE_LIMIT = 32,       /**< limit_key is honoured */
    PERF_QUEUE_AFTER = 64,       /**< after is honoured */
    PERF_QUEUE_TRANSACTION = 128 /**< enqueue within a transaction of the host's */
};

/** What a queue was configured with; passed to open. Strings are valid during open only. */
typedef struct perf_queue_config {
    size_t struct_size;
    const char *location;  /**< file name, URL or table; may be NULL */
    int64_t timeout_ms;    /**< longest that one call may block; 0: the default */
    int64_t sync;          /**< PERF_SYNC_NORMAL or PERF_SYNC_FULL */
    void *user_ctx;        /**< perf_tasks_options.queue_ctx */
    const perf_host *host; /**< allocator, clock and log to use; every member is set */
} perf_queue_config;

/**
 * A task as a queue keeps it. No string is NULL. On enqueue the fields down to
 * payload are set; the queue sets the rest.
 */
typedef struct perf_queue_task {
    size_t struct_size;
    const char *id; /**< chosen by the library or the user; unique in the queue's store */
    const char *queue, *kind, *user, *batch;
    int64_t priority; /**< -9 to 9, for people; rank is what orders */
    int64_t rank;     /**< the least goes first: due_ms less a minute for each priority */
    int64_t created_ms;
    int64_t due_ms;          /**< not before; PERF_TASK_WAITING until then if it is after now_ms */
    int64_t deadline_ms;     /**< not begun by then it ends as CANCELLED; 0: never */
    int64_t keep_ms;         /**< its record is kept so long after its end */
    int64_t max_attempts;    /**< for tasks of dead workers; -1: no bound */
    int64_t timeout_ms;      /**< of an attempt; 0: none */
    int64_t version;         /**< of the payload */
    const char *unique_key;  /**< "": none */
    int64_t unique_until_ms; /**< the key is held until it has ended and this time has passed */
    const char *limit_key;   /**< "": none */
    int64_t limit;
    const char *after; /**< ids separated by commas; "": none. PERF_EINVAL: one is not there */
    int64_t after_any_end;
    perf_bytes payload;

    int64_t state; /**< PERF_TASK_... of executor.h */
    int64_t attempts;
    uint64_t token; /**< of its last claim; 0: never claimed */
    int64_t lease_until_ms;
    int64_t started_ms, ended_ms;
    const char *worker;
    double fraction;
    uint64_t done, total;
    const char *text;
    int64_t status;
    const char *error;
    perf_bytes result;
    const char *history; /**< as perf_task_record.history */
} perf_queue_task;

/** A kind that a worker can run. */
typedef struct perf_queue_kind {
    const char *kind;
    int64_t version_min, version_max;
} perf_queue_kind;

/** What a worker wants. */
typedef struct perf_queue_claim {
    size_t struct_size;
    const char *const *queues; /**< the first with anything for it gives; count of queues */
    size_t queues_count;
    const perf_queue_kind *kinds;
    size_t kinds_count;
    size_t max; /**< most tasks to give */
    const char *worker;
    int64_t now_ms, lease_ms;
} perf_queue_claim;

/** A sign of life from who runs a task. */
typedef struct perf_queue_beat {
    size_t struct_size;
    const char *id;
    uint64_t token;
    int64_t lease_until_ms;
    double fraction;
    uint64_t done, total;
    const char *text;
    int64_t status; /**< out: PERF_OK; PERF_ECONFLICT: it is not its task any more; PERF_ECANCELED:
                         somebody wants it to stop */
} perf_queue_beat;

/**
 * The end of an attempt. state is an end (SUCCEEDED, FAILED, CANCELLED, DEAD), or RETRYING, or
 * WAITING: given back or snoozed, the attempt not counted. Of these two due_ms says when it goes
 * on, with the rank of that time; up to now_ms: it is QUEUED at once; 0: at once, in the place it
 * had before. One that somebody wants to stop ends as CANCELLED instead.
 */
typedef struct perf_queue_end {
    size_t struct_size;
    const char *id;
    uint64_t token;
    int64_t state, due_ms, now_ms;
    int64_t status;
    const char *error;
    perf_bytes result;
    int64_t outcome; /**< out: PERF_OK or PERF_ECONFLICT, or why it could not be kept */
} perf_queue_end;

/** What is looked for; NULL and 0: any. */
typedef struct perf_queue_filter {
    size_t struct_size;
    const char *user, *queue, *kind, *batch;
    int64_t state, limit;
    const char *cursor; /**< what perf_queue_reply_cursor was given for the page before */
} perf_queue_filter;

/** How many stand where: by PERF_TASK_... */
typedef struct perf_queue_counts {
    size_t struct_size;
    uint64_t by_state[9];
    int64_t oldest_due_ms; /**< of the QUEUED one that goes first; 0: there is none */
    int64_t paused;
} perf_queue_counts;

/** What control does. */
enum {
    PERF_QUEUE_CANCEL = 1,      /**< id: ends it as CANCELLED, or has its next beat say so */
    PERF_QUEUE_REDRIVE = 2,     /**< id: DEAD, FAILED or CANCELLED to QUEUED, attempts 0 */
    PERF_QUEUE_REDRIVE_ALL = 3, /**< queue: all DEAD ones */
    PERF_QUEUE_REMOVE = 4,      /**< id: the record of an ended one; PERF_EBUSY if it has not */
    PERF_QUEUE_PAUSE = 5,       /**< queue */
    PERF_QUEUE_RESUME = 6       /**< queue */
};

/** Where claim, get and find put tasks; an opaque growing list of the library's. */
typedef struct perf_queue_reply perf_queue_reply;

/** What a sweep did. */
typedef struct perf_queue_swept {
    size_t struct_size;
    uint64_t rescued; /**< leases that had passed */
    uint64_t dead;    /**< of those, ended as DEAD for want of attempts */
    uint64_t removed; /**< records whose time was over */
    int64_t next_ms;  /**< when the next waiting task is due; 0: none, or not known */
} perf_queue_swept;

/** The backend. All entries but wait, find and flush are required. */
typedef struct perf_queue_vtable {
    size_t struct_size;
    const char *name;      /**< short and stable, such as "sqlite" */
    uint64_t capabilities; /**< PERF_QUEUE_... flags */

    /** Opens; *queue is the context of every later call. On failure nothing is kept open. */
    int (*open)(const perf_queue_config *config, void **queue);

    /** Closes and frees. Never called with NULL. */
    void (*close)(void *queue);

    /**
     * Keeps count tasks. statuses[i]: PERF_OK, or PERF_EEXISTS (then existing[i], of 72 bytes,
     * receives the id of the one that is there), or why not. transaction: NULL, or the
     * host's. PERF_OK when every status is PERF_OK or PERF_EEXISTS.
     */
    int (*enqueue)(void *queue, const perf_queue_task *tasks, size_t count, void *transaction,
                   int64_t now_ms, int *statuses, char (*existing)[72]);

    /** Gives up to max due tasks by perf_queue_reply_add, now RUNNING with attempts + 1. PERF_MISS:
     *  none. Tasks beyond their deadline_ms end as CANCELLED on the way. */
    int (*claim)(void *queue, const perf_queue_claim *want, perf_queue_reply *reply);

    /** Extends leases and keeps progress; fills each status. */
    int (*extend)(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms);

    /** Ends attempts, and lets those waiting for them go on; fills each outcome. */
    int (*finish)(void *queue, perf_queue_end *ends, size_t count);

    /** One task with everything: perf_queue_reply_add and PERF_OK, or PERF_MISS. */
    int (*get)(void *queue, const char *id, perf_queue_reply *reply);

    /** A page, newest first, without payload and result, and its cursor if there is more. It may
     *  be short, even empty, while there is a cursor: a call looks at a bounded number of tasks.
     *  PERF_EINVAL: the cursor is none. NULL: PERF_EUNSUPPORTED. */
    int (*find)(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply);

    /** Fills counts of one queue. */
    int (*count)(void *queue, const char *name, int64_t now_ms, perf_queue_counts *counts);

    /** verb: PERF_QUEUE_CANCEL...; name: an id or a queue. *n of tasks that it changed. PERF_MISS:
     * none that it applies to (not of PAUSE, RESUME and REDRIVE_ALL). */
    int (*control)(void *queue, int verb, const char *name, int64_t now_ms, uint64_t *n);

    /** Upkeep: waiting tasks that are due become QUEUED, leases that have passed are put back,
     *  records whose time is over go; budget of each at most. */
    int (*sweep)(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept);

    /** Returns when there may be something to claim that was not there at this thread's last
     *  claim, or after timeout_ms, or soon after another thread called it with timeout_ms -1 (which
     *  returns at once). Called without the lock of PERF_QUEUE_SERIAL. NULL: the library
     *  asks every poll_ms, and at once after submissions of its own. */
    int (*wait)(void *queue, int64_t timeout_ms);

    /** Returns when all that was acknowledged is as durable as it can be. NULL: it is. */
    int (*flush)(void *queue);
} perf_queue_vtable;

/** Adds a copy of task to a reply. PERF_OK or PERF_ENOMEM. Since 1.0. */
PERF_API int perf_queue_reply_add(perf_queue_reply *reply, const perf_queue_task *task);

/** Says that there is more behind this page. PERF_OK or PERF_ENOMEM. Since 1.0. */
PERF_API int perf_queue_reply_cursor(perf_queue_reply *reply, const char *cursor);

PERF_END_DECLS

#endif
