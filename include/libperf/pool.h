/* SPDX-License-Identifier: MIT */
/*
 * pool.h - borrow a live connection in nanoseconds instead of opening one in
 * milliseconds.
 *
 * In six lines, for connections of any kind (here PostgreSQL's):
 *
 *     static int open_pg(void *ctx, const char *key, int64_t timeout_ms, void **conn);
 *     static void close_pg(void *ctx, void *conn);
 *
 *     perf_connection_vtable pg = {sizeof pg, open_pg, close_pg};
 *     perf_pool_options opt = PERF_POOL_OPTIONS_INIT;
 *     opt.vtable = &pg;
 *     opt.max_size = 16;
 *     perf_pool_open(&opt, &pool);
 *     perf_pool_acquire(pool, 50, &conn);        // wait at most 50 ms for one
 *     query(conn);
 *     perf_pool_release(pool, conn);
 *
 * or, safe under return, break and goto (macros.h):
 *
 *     PERF_BORROW(pool, PGconn *, db, 50) { query(db); } else { busy(); }
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_pool_close, before which everything must have been released. A
 *    connection belongs to its borrower, who may release it on any thread.
 *  - A connection is the host's own pointer. It must not be NULL, and the same
 *    pointer must not be open twice.
 *  - The pool starts one thread of its own when its first connection is opened,
 *    and up to max_opening more while connections are being opened: they call
 *    the vtable, so that a caller's deadline holds whatever open does. With
 *    no_threads the callers do all that themselves.
 *  - Nobody can promise that a peer is alive. What is promised: a connection
 *    is not handed out when its socket is known to be closed, when it was idle
 *    longer than validate_after_ms and does not pass validate, when it is too
 *    old, or when it was open at the time of an eviction. A process that was
 *    stopped for a while (Lambda, SIGSTOP, laptop lid) sees this by the clock.
 *  - fork(): a child must open its own pool. Calls on an inherited handle return
 *    PERF_EFORKED; perf_pool_close there frees memory and closes nothing, for
 *    the sockets are the parent's. Give sockets FD_CLOEXEC.
 *
 * The parts, simple to expert: open, acquire, release, control, keys,
 * asynchronous acquire, holders, statistics.
 */
#ifndef LIBPERF_POOL_H
#define LIBPERF_POOL_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A pool of connections. */
typedef struct perf_pool perf_pool;

/* -------------------------------------------------------------- open, close */

/**
 * How to make, check and end a connection. struct_size, open and close are
 * required; any other entry may be NULL. Entries are called with ctx from the
 * pool's threads and from callers, never twice at once for one connection, and
 * (but for fd) never with a lock of the pool held. They must not call the pool back.
 */
typedef struct perf_connection_vtable {
    size_t struct_size;

    /** Opens a connection to key ("" unless perf_pool_acquire_key was used) within
     *  timeout_ms. Returns PERF_OK, or a negative PERF_E code after freeing everything. */
    int (*open)(void *ctx, const char *key, int64_t timeout_ms, void **conn);

    /** Ends a connection and frees it. */
    void (*close)(void *ctx, void *conn);

    /** Is it alive? One small round trip within timeout_ms: PERF_OK or not.
     *  NULL: it is believed, and only the socket is watched if there is an fd. */
    int (*validate)(void *ctx, void *conn, int64_t timeout_ms);

    /** Makes a used connection as good as new (roll back, clear session), by its borrower on
     *  release. Anything but PERF_OK closes the connection. NULL: nothing to do. */
    int (*reset)(void *ctx, void *conn);

    /** Its socket, which the pool watches for the peer's closing and looks at before it lends; it
     *  never reads or closes it. Answers at once; may be called with a lock of the pool held.
     *  -1: none. NULL: none. */
    int (*fd)(void *ctx, void *conn);
} perf_connection_vtable;

/** What perf_pool_open does before it returns. */
enum {
    PERF_POOL_START_LAZY = 0,       /**< nothing: connections are opened when asked for */
    PERF_POOL_START_BACKGROUND = 1, /**< begins to open min_idle connections */
    PERF_POOL_START_FAIL_FAST = 2   /**< opens one within open_timeout_ms or fails, then as above */
};

/** How to open a pool. Zero in a field means the default; durations are in milliseconds. */
typedef struct perf_pool_options {
    size_t struct_size;
    const perf_connection_vtable *vtable; /**< required; copied */
    void *ctx;                            /**< handed to the vtable; must outlive the pool */
    uint64_t max_size;                    /**< most connections at once, opening ones included;
                                               1 to 4096, default 10 */
    uint64_t min_idle;                    /**< idle connections kept ready; default 0 */
    int64_t start;                        /**< PERF_POOL_START_...; default LAZY */
    int64_t open_timeout_ms;              /**< handed to open; default 10000 */
    uint64_t max_opening;                 /**< opens under way at once; default 2 */
    int64_t open_interval_ms;             /**< least time from one open to the next; default 0.
                                               After a failure it is a back-off with jitter, from
                                               50 ms doubling to 5 s */
    int64_t max_lifetime_ms;              /**< a connection is replaced at this age, minus up to
                                               a tenth at random; default 1800000; -1: never */
    int64_t idle_timeout_ms;              /**< idle connections above min_idle are closed after
                                               this; default 600000; -1: never */
    int64_t validate_after_ms;            /**< a connection that was idle this long is validated
                                               before it is lent; default 1000; -1: never */
    int64_t validate_timeout_ms;          /**< handed to validate; default 1000 */
    int64_t keep_alive_ms;                /**< idle connections are validated this often, so that
                                               nothing between here and there forgets them;
                                               default 120000; -1: never */
    uint64_t max_waiting;                 /**< callers that may wait at once; further ones get
                                               PERF_EBUSY; default 10000 */
    int64_t leak_ms;                      /**< a connection out for longer is logged and counted
                                               as a leak, with its holder; default: off */
    uint64_t max_keys;                    /**< sub-pools for perf_pool_acquire_key, max_size
                                               each; default 64 */
    uint64_t max_total;                   /**< most connections of all keys together;
                                               default: max_keys * max_size */
    int64_t adaptive;                     /**< 1: keep as many connections ready as were in use at
                                               the peak of the last minutes, and no more than that;
                                               min_idle stays the lower bound */
    int64_t socket_trust_ms; /**< a connection with an fd that was lent within this time is
                                  lent again without a look at its socket, which
                                  costs a fraction of a microsecond; default 0: the
                                  look is never left out */
    int64_t no_threads;      /**< 1: callers open connections themselves, and the host
                                  calls perf_pool_maintain now and then */
    const perf_host *host;   /**< allocator, clock, log */
} perf_pool_options;
#define PERF_POOL_OPTIONS_INIT                                                                   \
    {                                                                                            \
        sizeof(perf_pool_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Opens a pool. *out is the caller's, to be closed with perf_pool_close.
 * Errors: PERF_EINVAL names the field, the value and the fix; PERF_ENOMEM; with
 * FAIL_FAST what the vtable's open said. Since 1.0.
 */
PERF_API int perf_pool_open(const perf_pool_options *options, perf_pool **out);

/**
 * Ends waiting calls with PERF_ECLOSED, waits for opens under way, closes all
 * connections, stops the threads and frees the pool. NULL is allowed.
 * PERF_EBUSY: so many connections are still out (the sentence says how many and
 * who has the oldest); nothing is lent any more, and after their release it can
 * be closed. Since 1.0.
 */
PERF_API int perf_pool_close(perf_pool *pool);

/* --------------------------------------------------------- acquire, release */

/**
 * Borrows a connection: the one this thread had last if that is free, else an
 * idle one, else a new one, else whichever comes back first. timeout_ms: longest
 * wait, 0 to not wait at all, -1 to wait for ever. Whoever waits longer than a
 * moment is served in the order of arrival.
 * Errors: PERF_ETIMEDOUT; PERF_EUNAVAILABLE (none could be opened; the sentence
 * says what open said); PERF_EBUSY (max_waiting); PERF_ECLOSED; PERF_EFORKED;
 * PERF_EINVAL. Since 1.0.
 */
PERF_API int perf_pool_acquire(perf_pool *pool, int64_t timeout_ms, void **conn);

/**
 * The same, remembering who asks: a text for perf_pool_holder and leak reports,
 * such as "worker.c:42". It is not copied and must live until the pool is closed.
 * NULL is allowed. Since 1.0.
 */
PERF_API int perf_pool_acquire_as(perf_pool *pool, const char *who, int64_t timeout_ms,
                                  void **conn);

/**
 * Gives a connection back. Never waits. PERF_EINVAL: it is not borrowed from this pool
 * (or was given back already). Since 1.0.
 */
PERF_API int perf_pool_release(perf_pool *pool, void *conn);

/** Gives a broken connection back: it is closed, and replaced when needed. Since 1.0. */
PERF_API int perf_pool_discard(perf_pool *pool, void *conn);

/** Takes a connection out of the pool for good: the caller owns it and closes it, and its
 *  place becomes free. Since 1.0. */
PERF_API int perf_pool_detach(perf_pool *pool, void *conn);

/* ------------------------------------------------------------------ control */

/** Every connection open now is closed: idle ones at once, the others when they come back. For
 *  a failover, or new credentials. Since 1.0. */
PERF_API int perf_pool_evict_all(perf_pool *pool);

/** Idle connections are validated before they are lent again, however fresh. For a process that
 *  knows that it was frozen. Since 1.0. */
PERF_API int perf_pool_revalidate(perf_pool *pool);

/** Nothing is lent until perf_pool_resume; callers wait, within their deadlines. Since 1.0. */
PERF_API int perf_pool_suspend(perf_pool *pool);

/** Undoes perf_pool_suspend. Since 1.0. */
PERF_API int perf_pool_resume(perf_pool *pool);

/** Changes min_idle and max_size (of each key). A smaller pool closes idle connections now and
 *  the others when they come back. Errors: PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_pool_resize(perf_pool *pool, uint64_t min_idle, uint64_t max_size);

/** Does at once what the pool's thread does in time: closes what is too old or idle too long,
 *  validates, refills to min_idle, reports leaks. Blocks while the vtable does. Since 1.0. */
PERF_API int perf_pool_maintain(perf_pool *pool);

/* --------------------------------------------------------------------- keys */

/**
 * Borrows a connection to key, such as "db1:5432": each key has a sub-pool of
 * its own with this pool's options, made when first asked for. Released like
 * any other. key: 1 to 255 bytes. PERF_EBUSY: max_keys are in use. Otherwise as
 * perf_pool_acquire_as. Since 1.0.
 */
PERF_API int perf_pool_acquire_key(perf_pool *pool, const char *key, const char *who,
                                   int64_t timeout_ms, void **conn);

/* ------------------------------------------------------ asynchronous acquire */

/** A connection that was asked for and may be there already. */
typedef struct perf_pool_request perf_pool_request;

/** It is there (status PERF_OK, conn borrowed) or will not come. On the pool's thread, or within
 *  perf_pool_start when it is there at once. Must not block. */
typedef void (*perf_pool_ready_fn)(void *ctx, int status, void *conn);

/**
 * Asks for a connection without waiting; key NULL: no key. With ready, that is
 * called once and out may be NULL. Without, the answer is fetched by
 * perf_pool_request_take, alone or when perf_pool_fd says so. A non-NULL out
 * receives a handle to be released. Not with no_threads.
 * Errors: as perf_pool_acquire, but PERF_ETIMEDOUT comes later. Since 1.0.
 */
PERF_API int perf_pool_start(perf_pool *pool, const char *key, const char *who, int64_t timeout_ms,
                             perf_pool_ready_fn ready, void *ctx, perf_pool_request **out);

/** The answer: PERF_OK and *conn, borrowed by the caller; PERF_MISS: not yet; or why not. Once
 *  taken, PERF_EINVAL. Since 1.0. */
PERF_API int perf_pool_request_take(perf_pool_request *request, void **conn);

/** Lets go of a request. One that was not taken is cancelled, and its connection goes back. NULL
 *  is allowed. Since 1.0. */
PERF_API void perf_pool_request_release(perf_pool_request *request);

/** A file descriptor that is readable while requests started without ready have an answer that
 *  perf_pool_next has not named. Never read it. Since 1.0. */
PERF_API int perf_pool_fd(perf_pool *pool, int *out);

/** The next request with an answer, in the order they came; still owned by whoever started it.
 *  PERF_MISS: none. Since 1.0. */
PERF_API int perf_pool_next(perf_pool *pool, perf_pool_request **out);

/* ------------------------------------------------------------------ holders */

/** A connection that is out. */
typedef struct perf_pool_holder {
    size_t struct_size;
    const char *who; /**< what perf_pool_acquire_as was given; may be NULL */
    const char *key; /**< "" without one; lives until this thread's next
                          perf_pool_get_holder */
    int64_t thread;  /**< the system's id of the thread that borrowed it */
    int64_t held_ms; /**< for how long; without leak_ms it may be up to a second too much */
    int64_t is_leak; /**< 1: longer than leak_ms */
    void *conn;      /**< to be looked at, not used */
} perf_pool_holder;
#define PERF_POOL_HOLDER_INIT                      \
    {                                              \
        sizeof(perf_pool_holder), 0, 0, 0, 0, 0, 0 \
    }

/** The index-th connection that is out now (0, 1, …); PERF_MISS behind the last. Since 1.0. */
PERF_API int perf_pool_get_holder(perf_pool *pool, size_t index, perf_pool_holder *holder);

/* --------------------------------------------------------------- statistics */

/** What a pool did so far, all keys together. Counts since it was opened. */
typedef struct perf_pool_stats {
    size_t struct_size;
    uint64_t max_size;         /**< as set now */
    uint64_t size;             /**< connections open now */
    uint64_t idle;             /**< of them idle */
    uint64_t in_use;           /**< of them borrowed */
    uint64_t opening;          /**< being opened now */
    uint64_t waiting;          /**< callers waiting now */
    uint64_t peak_in_use;      /**< most borrowed at once, as seen by waits and upkeep */
    uint64_t keys;             /**< sub-pools now */
    uint64_t acquires;         /**< connections lent */
    uint64_t reused;           /**< of them not opened for the borrower */
    uint64_t waits;            /**< acquires that had to wait, served or not */
    uint64_t timeouts;         /**< acquires that ended with PERF_ETIMEDOUT or PERF_EUNAVAILABLE */
    uint64_t rejected;         /**< acquires that ended with PERF_EBUSY */
    uint64_t opened;           /**< connections opened */
    uint64_t open_failures;    /**< opens that failed */
    uint64_t validations;      /**< calls of validate */
    uint64_t closed_idle;      /**< closed: idle too long, or more than needed */
    uint64_t closed_lifetime;  /**< closed: too old */
    uint64_t closed_by_peer;   /**< closed: the peer had closed the socket */
    uint64_t closed_invalid;   /**< closed: validate or reset said no */
    uint64_t closed_discarded; /**< closed: the borrower said it is broken */
    uint64_t closed_evicted;   /**< closed: evict_all, resize */
    uint64_t detached;         /**< taken out by perf_pool_detach */
    uint64_t leaks;            /**< connections out for longer than leak_ms, each once */
    uint64_t wait_mean_ns;     /**< of those that waited */
    uint64_t wait_p50_ns;
    uint64_t wait_p90_ns;
    uint64_t wait_p99_ns;
    uint64_t wait_p999_ns;
    uint64_t wait_max_ns;
    uint64_t open_mean_ns; /**< how long opens took */
    uint64_t open_p99_ns;
} perf_pool_stats;
#define PERF_POOL_STATS_INIT                                                                       \
    {                                                                                              \
        sizeof(perf_pool_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                                           \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_pool_get_stats(perf_pool *pool, perf_pool_stats *stats);

PERF_END_DECLS

#endif
