/* SPDX-License-Identifier: MIT */
/*
 * backend/store.h - the contract of a storage backend, on one page.
 *
 * A store keeps records (opaque bytes with an expiry) under 16-byte ids. The
 * cache puts its durable and shared tiers on stores; SQLite is built in, and a
 * host can bring its own by filling one perf_store_vtable and naming it in
 * perf_tier_options. examples/04_host_store.c is a complete one.
 *
 * What a store may rely on
 *  - open is called once and close once, even when something failed between.
 *  - Between them every entry may be called from several threads at once,
 *    unless PERF_STORE_SERIAL is among the capabilities: then the library
 *    holds a lock around every call.
 *  - Ids are well mixed hashes; two different keys may share one, and the
 *    library tells them apart by the full key inside the record.
 *  - Expiry times are wall clock milliseconds since 1970; 0 means never. A
 *    store may return expired records: the library checks again.
 *
 * What the library relies on
 *  - When apply returns PERF_OK, all of its operations are kept, in order, as
 *    durably as the store was configured; otherwise none is, or
 *    PERF_STORE_PARTIAL is among the capabilities.
 *  - No entry blocks for longer than its backend's own timeout.
 *  - Failures are negative PERF_E codes; a missing record is PERF_MISS.
 */
#ifndef LIBPERF_BACKEND_STORE_H
#define LIBPERF_BACKEND_STORE_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** Length in bytes of a record's id. */
enum { PERF_STORE_ID_SIZE = 16 };

/** Capability flags. */
enum {
    PERF_STORE_DURABLE = 1, /**< records survive the process */
    PERF_STORE_SHARED = 2,  /**< other processes may read and write the same records */
    PERF_STORE_SERIAL = 4,  /**< calls must not overlap: the library locks around them */
    PERF_STORE_PARTIAL = 8, /**< apply may keep some operations although it failed */
    PERF_STORE_LEASES = 16, /**< keeps leases: lease and unlease are there, and apply honours
                                 perf_store_op.lease */
    PERF_STORE_REMOTE = 32  /**< behind a network: it may be slow or gone, so the library puts a
                                 breaker before it, and other machines write to it */
};

/** What a tier was configured with; passed to open. Strings are valid during open only. */
typedef struct perf_store_config {
    size_t struct_size;
    const char *location;  /**< file name or URL; may be NULL */
    uint64_t max_bytes;    /**< bound of the stored bytes; 0 means the backend's default */
    int64_t timeout_ms;    /**< longest that one call may block; 0 means the default */
    int64_t sync;          /**< PERF_SYNC_NORMAL or PERF_SYNC_FULL (see types.h) */
    void *user_ctx;        /**< perf_tier_options.store_ctx */
    const perf_host *host; /**< allocator, clock and log to use; every member is set */
} perf_store_config;

/** Where a record lives: its id, and the readable names for stores that can index them. */
typedef struct perf_store_key {
    const uint8_t *id; /**< PERF_STORE_ID_SIZE bytes */
    perf_bytes ns;     /**< namespace, UTF-8 */
    perf_bytes user;   /**< user, may be empty */
    perf_bytes key;    /**< the key's own bytes */
} perf_store_key;

/** Kinds of operation in one apply. */
enum { PERF_STORE_SET = 1, PERF_STORE_REMOVE = 2, PERF_STORE_MARK = 3 };

/**
 * One change. SET stores record under key until expire_ms. REMOVE forgets key.
 * MARK stores an invalidation mark: (mark_kind, mark_name) with the greatest
 * mark_stamp_ms seen, which marks() must list later; a store without marks()
 * may ignore it.
 *
 * With PERF_STORE_LEASES a SET whose lease is not 0 is kept only while that
 * lease of the key is held, and is otherwise left out without an error; every
 * SET and REMOVE that is kept ends the key's lease. So what was loaded before
 * somebody else's change never replaces it: Nishtala et al., "Scaling Memcache
 * at Facebook" (NSDI 2013), section 3.2.1.
 */
typedef struct perf_store_op {
    int64_t kind;
    perf_store_key key;
    perf_bytes record;
    int64_t expire_ms;
    int64_t mark_kind;
    perf_bytes mark_name;
    int64_t mark_stamp_ms;
    uint64_t lease; /**< of a SET: the token that lease gave, or 0 */
} perf_store_op;

/** Where get puts what it found; an opaque growing buffer of the library's. */
typedef struct perf_store_reply perf_store_reply;

/** Called once per mark by marks(); a non-zero return stops the listing. */
typedef int (*perf_store_mark_fn)(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms);

/**
 * Who is told what others change in a shared store. The functions may be called
 * from any thread of the store's, also from several at once, from inside listen
 * until close has returned; they do not block and must not be called with a lock
 * held that get or apply take. A store reports every change by others, in an order in
 * which a record that a get returned before the change is never reported too
 * early: who began a get before the report came may have the old record. It need not
 * report changes that came through itself.
 */
typedef struct perf_store_listener {
    size_t struct_size;
    void *ctx;

    /** The record of key was set, removed, evicted or has expired. key->id may be NULL;
     *  the names are valid during the call. */
    void (*changed)(void *ctx, const perf_store_key *key);

    /** A mark was made. */
    void (*marked)(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms);

    /** deaf 1: reports may be missing from now on, until it is called with deaf 0, which means:
     *  from now on all are heard again, and what was missed meanwhile is not known. A store
     *  that hears at once calls neither. */
    void (*heard)(void *ctx, int deaf);
} perf_store_listener;

/** What a store knows about itself. */
typedef struct perf_store_usage {
    size_t struct_size;
    uint64_t records;           /**< records held */
    uint64_t bytes;             /**< bytes held, with the backend's overhead where it is known */
    uint64_t evictions;         /**< records dropped to stay within max_bytes */
    uint64_t expired;           /**< records dropped because their time was over */
    uint64_t read_units_milli;  /**< capacity that reads consumed since open, in thousandths of the
                                     backend's units; 0: it is not paid so */
    uint64_t write_units_milli; /**< the same for writes */
} perf_store_usage;

/**
 * The backend. struct_size, name, open, close, get and apply are required; any
 * other entry may be NULL and then has the fallback given beside it.
 */
typedef struct perf_store_vtable {
    size_t struct_size;
    const char *name;      /**< short and stable, such as "sqlite"; used in statistics */
    uint64_t capabilities; /**< PERF_STORE_... flags */

    /** Opens; *store is the context of every later call. On failure nothing is kept open. */
    int (*open)(const perf_store_config *config, void **store);

    /** Closes and frees. Never called with NULL. */
    void (*close)(void *store);

    /** Finds one record: perf_store_reply_set() and PERF_OK, or PERF_MISS. */
    int (*get)(void *store, const perf_store_key *key, perf_store_reply *reply);

    /**
     * Finds count records at once; replies[i] belongs to keys[i] and stays
     * untouched on a miss. NULL: get is called for each.
     */
    int (*get_many)(void *store, const perf_store_key *keys, size_t count,
                    perf_store_reply *const *replies);

    /** Makes count changes in order, as one commit where the store has such a thing. */
    int (*apply)(void *store, const perf_store_op *ops, size_t count);

    /** Lists the marks whose stamp is since_ms or later, all with 0; more do no harm. NULL:
     *  invalidation by mark is forgotten with the process. */
    int (*marks)(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx);

    /**
     * Drops up to budget records that are expired at now_ms or beyond the
     * bound; *removed counts them. NULL: the store looks after itself.
     */
    int (*sweep)(void *store, int64_t now_ms, size_t budget, size_t *removed);

    /** Returns when everything applied is as durable as it can be. NULL: apply did that. */
    int (*flush)(void *store);

    /** Fills usage. NULL: all zero. */
    int (*usage)(void *store, perf_store_usage *usage);

    /**
     * Begins to tell listener what others change, until close; called at most
     * once, right after open, and listener stays valid until close has returned.
     * PERF_MISS: it tells, but a report may get lost without its knowing, so the library
     * asks every now and then as well.
     * NULL or PERF_EUNSUPPORTED: nothing is told, and the library asks marks()
     * and the records again every now and then.
     */
    int (*listen)(void *store, const perf_store_listener *listener);

    /**
     * With *token 0 takes the right to make the record of key, for ttl_ms at most: PERF_OK
     * and a *token other than 0, greater than those before it for this key; PERF_EBUSY:
     * somebody else has it. Otherwise renews the lease *token, which then ends ttl_ms from
     * now: PERF_OK; PERF_EBUSY: it is held no more. It saves work and proves nothing: its holder
     * may be slow, and then perf_store_op.lease sees to it that nothing old is kept.
     */
    int (*lease)(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token);

    /** Gives a lease back without a record. One that is not held any more is no error. */
    int (*unlease)(void *store, const perf_store_key *key, uint64_t token);

    /** lease for count keys at once: tokens[i] belongs to keys[i], and becomes 0 where lease would
     *  say PERF_EBUSY. A failure is one of all. NULL: lease is called for each. */
    int (*lease_many)(void *store, const perf_store_key *keys, size_t count, int64_t ttl_ms,
                      uint64_t *tokens);
} perf_store_vtable;

/**
 * Copies len bytes into the reply, replacing what was there. To be called by
 * get and get_many only. PERF_OK or PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_store_reply_set(perf_store_reply *reply, const void *data, size_t len);

PERF_END_DECLS

#endif
