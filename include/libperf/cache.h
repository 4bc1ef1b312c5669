/* SPDX-License-Identifier: MIT */
/*
 * cache.h - call an expensive function once; serve it from memory, then from
 * disk, then from a shared tier.
 *
 * In five lines:
 *
 *     perf_cache *cache;
 *     perf_cache_options opt = PERF_CACHE_OPTIONS_INIT;
 *     opt.durable_path = "/var/cache/app.db";        // optional: survive a restart
 *     perf_cache_open(&opt, &cache);
 *     perf_cache_set(cache, "courses", NULL, "42", 2, data, len, 300000);
 *     perf_cache_get(cache, "courses", NULL, "42", 2, &value);
 *
 * A key is (namespace, user, key bytes). The namespace carries the policy; the
 * user may be NULL, and lets everything of one user be invalidated at once.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_cache_close, after which the handle is gone. A perf_value belongs to
 *    whoever holds it and may be released on any thread.
 *  - fork(): a child must open its own cache. Calls on an inherited handle
 *    return PERF_EFORKED (perf_cache_close only lets go of it).
 *  - The cache may drop any entry at any time. Only what a durable tier has
 *    acknowledged survives a restart, and even that only within its bound.
 *  - Limits: namespace 1..255 bytes, user 0..255 bytes, key 1..32767 bytes,
 *    values up to half of a memory shard (see memory_shards) or 1 GiB.
 *
 * The parts, simple to expert: set/get, delete, invalidate, get_or_load, batch,
 * namespaces, statistics, events, iteration, tiers.
 */
#ifndef LIBPERF_CACHE_H
#define LIBPERF_CACHE_H

#include <libperf/backend/store.h>
#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A cache: one memory tier and any number of tiers below it. */
typedef struct perf_cache perf_cache;

/** A value that a get returned: immutable bytes that stay valid until released. */
typedef struct perf_value perf_value;

/** Times to live, beside any positive number of milliseconds. */
enum {
    PERF_TTL_DEFAULT = 0, /**< what the namespace says (out of the box: forever) */
    PERF_TTL_FOREVER = -1 /**< until evicted, deleted or invalidated */
};

/* -------------------------------------------------------------- open, close */

/** How writes travel to a tier below memory. */
enum {
    PERF_WRITE_THROUGH = 0, /**< set returns when the tier has it (group commit) */
    PERF_WRITE_BEHIND = 1   /**< set returns at once; a background thread writes */
};

/** What to do when a write-behind queue is full. */
enum {
    PERF_FULL_BLOCK = 0, /**< the caller waits for room */
    PERF_FULL_DROP = 1   /**< the write to this tier is dropped and counted, and the
                              tier's older record of that key is removed instead */
};

/** One tier below memory. Zero in a field means the default. */
typedef struct perf_tier_options {
    size_t struct_size;
    const char
        *backend; /**< built-in: "sqlite", "redis", "dynamodb"; ignored when store is given */
    const perf_store_vtable *store; /**< a backend of the host's own; must outlive the cache */
    void *store_ctx;          /**< handed to the store's open; for "redis" a perf_redis_options or
                                   NULL: see libperf-redis(7) */
    const char *location;     /**< file name or URL */
    uint64_t max_bytes;       /**< bound of the tier; default 1 GiB */
    int64_t timeout_ms;       /**< longest that one call may block; default 1000 */
    int64_t write_mode;       /**< PERF_WRITE_THROUGH (default) or _BEHIND */
    int64_t sync;             /**< PERF_SYNC_NORMAL (default) or _FULL */
    uint64_t queue_max_bytes; /**< write-behind queue bound; default 16 MiB */
    int64_t queue_full;       /**< PERF_FULL_BLOCK (default) or _DROP */
} perf_tier_options;
#define PERF_TIER_OPTIONS_INIT                                  \
    {                                                           \
        sizeof(perf_tier_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** How to open a cache. Zero in a field means the default. */
typedef struct perf_cache_options {
    size_t struct_size;
    uint64_t memory_max_bytes;      /**< bound of the memory tier, counting everything:
                                         index, headers, keys, values; at least
                                         1 MiB, default 64 MiB */
    uint64_t memory_max_entries;    /**< also bound the number of entries; default: no */
    uint64_t memory_max_weight;     /**< also bound the sum of perf_set_options.weight; default: no;
                                         not together with memory_max_entries */
    uint64_t memory_shards;         /**< power of two up to 256; default about 4 a core, fewer
                                         when a shard would fall under 4 MiB or 4096 entries, and
                                         one for up to 16384 entries; never so many that one falls
                                         under 512 KiB */
    const char *durable_path;       /**< short for one SQLite tier at this file; default: none */
    uint64_t durable_max_bytes;     /**< bound of that tier; default 1 GiB */
    const perf_tier_options *tiers; /**< tiers below memory, fastest first; not together
                                         with durable_path */
    size_t tier_count;
    uint64_t workers;        /**< most background threads, for refreshes, loads with a
                                  time limit and write-behind; started when first needed;
                                  default 2 */
    uint64_t max_namespaces; /**< names of namespaces come from callers: bound; default 1024 */
    const perf_host *host;   /**< allocator, clock, log; NULL: malloc, the system's, silence */
    int64_t coherence_ms; /**< a shared tier that cannot tell what other processes change (DynamoDB,
                               SQLite), or not for sure (a Redis Cluster), is asked again after
                               this: memory is never further behind it; 10 or more, or -1: memory
                             keeps what it has. Default 5000 for remote tiers and -1 for SQLite */
} perf_cache_options;
#define PERF_CACHE_OPTIONS_INIT                                        \
    {                                                                  \
        sizeof(perf_cache_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Opens a cache. options may be NULL: 64 MiB of memory and nothing below.
 * Starts no thread, but one when a tier is remote or coherence_ms asks for it. *out is the
 * caller's, to be closed with perf_cache_close. Errors: PERF_EINVAL names the field, the value and
 * the fix; PERF_ENOMEM; PERF_EIO or what a tier's open said. Since 1.0.
 */
PERF_API int perf_cache_open(const perf_cache_options *options, perf_cache **out);

/**
 * Writes what write-behind still holds, cancels loads nobody waits for, stops
 * the threads and frees the cache. NULL is allowed. Values still held stay
 * valid until released. No other call on the handle may be under way.
 * Returns PERF_OK, or the first error of a tier that lost writes. Since 1.0.
 */
PERF_API int perf_cache_close(perf_cache *cache);

/* ----------------------------------------------------------------- set, get */

/**
 * Stores a copy of len bytes under (ns, user, key) in all tiers of the
 * namespace. user may be NULL. ttl_ms: milliseconds, PERF_TTL_DEFAULT or
 * PERF_TTL_FOREVER.
 * Errors: PERF_EINVAL, PERF_ETOOBIG, PERF_ENOMEM (the old value is gone too, so
 * that nothing stale is left), PERF_EUNAVAILABLE/PERF_EIO when a write-through
 * tier failed (memory has the value all the same). Since 1.0.
 */
PERF_API int perf_cache_set(perf_cache *cache, const char *ns, const char *user, const void *key,
                            size_t key_len, const void *data, size_t len, int64_t ttl_ms);

/**
 * Finds a value: memory first, then the tiers below; what is found below is
 * copied up with the life it has left. *value is the caller's, to be released.
 * Returns PERF_OK, PERF_MISS or an error. A hit in memory takes no lock. Since 1.0.
 */
PERF_API int perf_cache_get(perf_cache *cache, const char *ns, const char *user, const void *key,
                            size_t key_len, perf_value **value);

/**
 * The same into the caller's buffer, with no allocation: *len is the value's
 * length. PERF_ETOOSMALL sets *len and leaves buf unspecified; so does asking
 * with cap 0 for the length. After PERF_MISS both are unspecified. Since 1.0.
 */
PERF_API int perf_cache_get_copy(perf_cache *cache, const char *ns, const char *user,
                                 const void *key, size_t key_len, void *buf, size_t cap,
                                 size_t *len);

/** The bytes of a value; valid until it is released. Never NULL. Since 1.0. */
PERF_API const void *perf_value_data(const perf_value *value);
/** Length in bytes. Since 1.0. */
PERF_API size_t perf_value_size(const perf_value *value);
/** The version for PERF_SET_IF_VERSION; changes with every write of the key. Since 1.0. */
PERF_API uint64_t perf_value_version(const perf_value *value);
/** Milliseconds of life left when it was read, or PERF_TTL_FOREVER; 0 when stale. Since 1.0. */
PERF_API int64_t perf_value_ttl_ms(const perf_value *value);
/** 1 when the value is past its TTL and was served within its stale window. Since 1.0. */
PERF_API int perf_value_is_stale(const perf_value *value);
/** Lets go of a value. NULL is allowed. Since 1.0. */
PERF_API void perf_value_release(perf_value *value);

/* ------------------------------------------------- conditional and full set */

/** When a put may write. */
enum {
    PERF_SET_ALWAYS = 0,
    PERF_SET_IF_ABSENT = 1,  /**< add: else PERF_EEXISTS */
    PERF_SET_IF_PRESENT = 2, /**< replace: else PERF_MISS */
    PERF_SET_IF_VERSION = 3  /**< compare and set: else PERF_ECONFLICT, or PERF_MISS */
};

/** Everything a put can be told. Conditions are decided by the memory tier of this process. */
typedef struct perf_set_options {
    size_t struct_size;
    int64_t ttl_ms;          /**< milliseconds, PERF_TTL_DEFAULT or PERF_TTL_FOREVER */
    int64_t stale_ms;        /**< how long after the TTL it may be served stale; 0: the
                                  namespace's; -1: not at all */
    int64_t mode;            /**< PERF_SET_... */
    uint64_t version;        /**< for PERF_SET_IF_VERSION */
    uint64_t weight;         /**< for memory_max_weight; 0 means 1 */
    const char *const *tags; /**< names to invalidate by; copied */
    size_t tag_count;        /**< at most 16, each 1..255 bytes */
} perf_set_options;
#define PERF_SET_OPTIONS_INIT                         \
    {                                                 \
        sizeof(perf_set_options), 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * perf_cache_set with options (NULL: all defaults); *version, if not NULL,
 * receives the new version. Errors as perf_cache_set, and those of the mode.
 * Since 1.0.
 */
PERF_API int perf_cache_put(perf_cache *cache, const char *ns, const char *user, const void *key,
                            size_t key_len, const void *data, size_t len,
                            const perf_set_options *options, uint64_t *version);

/** Forgets one key in all tiers. PERF_OK, or PERF_MISS if memory did not have it. Since 1.0. */
PERF_API int perf_cache_delete(perf_cache *cache, const char *ns, const char *user, const void *key,
                               size_t key_len);

/** Gives a key a new life of ttl_ms from now. PERF_OK or PERF_MISS. Since 1.0. */
PERF_API int perf_cache_touch(perf_cache *cache, const char *ns, const char *user, const void *key,
                              size_t key_len, int64_t ttl_ms);

/** Milliseconds of life left, or PERF_TTL_FOREVER. PERF_OK or PERF_MISS. Since 1.0. */
PERF_API int perf_cache_ttl(perf_cache *cache, const char *ns, const char *user, const void *key,
                            size_t key_len, int64_t *ttl_ms);

/**
 * Adds delta to a counter kept as decimal text and returns the sum. A missing
 * key starts at initial, with ttl_ms; an existing one keeps its life.
 * PERF_ECONFLICT when the value is not a decimal int64, PERF_EINVAL when the
 * sum would overflow; the value is kept in both cases. Since 1.0.
 */
PERF_API int perf_cache_incr(perf_cache *cache, const char *ns, const char *user, const void *key,
                             size_t key_len, int64_t delta, int64_t initial, int64_t ttl_ms,
                             int64_t *result);

/* ------------------------------------------------------------- invalidation */

/*
 * Each of these is a mark with a time, not a scan: it costs the same for one
 * entry and for a million, entries older than the mark are dead in every tier
 * at once, and their memory is reclaimed later. A load that began before the
 * mark does not bring the old value back.
 */

/** Kills everything in one namespace. Since 1.0. */
PERF_API int perf_cache_invalidate_namespace(perf_cache *cache, const char *ns);
/** Kills everything of one user, in all namespaces. Since 1.0. */
PERF_API int perf_cache_invalidate_user(perf_cache *cache, const char *user);
/** Kills everything that was put with this tag. Since 1.0. */
PERF_API int perf_cache_invalidate_tag(perf_cache *cache, const char *tag);
/**
 * Kills the keys of ns (NULL: of all namespaces) that match a glob pattern:
 * '*' any bytes, '?' one byte, '[a-z]' and '[!a-z]' classes, '\' quotes. Since 1.0.
 */
PERF_API int perf_cache_invalidate_pattern(perf_cache *cache, const char *ns, const char *pattern);
/** Kills everything. Since 1.0. */
PERF_API int perf_cache_clear(perf_cache *cache);

/* ------------------------------------------------------------------ loading */

/** One load under way, seen from inside the loader. */
typedef struct perf_load perf_load;

/**
 * Makes the value of a key: calls perf_load_set and returns PERF_OK; returns
 * PERF_MISS when the source has no such thing (remembered for the namespace's
 * negative_ttl_ms); or any negative code, which the callers receive (and which
 * is remembered for error_ttl_ms). Runs once for all who wait for the key.
 * Runs in the caller's thread, or in a background thread when a time limit or
 * a refresh asks for it.
 */
typedef int (*perf_load_fn)(perf_load *load, void *ctx);

/**
 * Makes the values of count keys at once: as perf_load_fn for each loads[i].
 * Those it does not set count as "no such thing".
 */
typedef int (*perf_load_many_fn)(perf_load *const *loads, size_t count, void *ctx);

/**
 * How to load. A background load needs a ctx that outlives the call: give
 * ctx_clone and ctx_free, or set ctx_is_static; otherwise the loader only ever
 * runs inside the call (no soft limit, no background refresh).
 */
typedef struct perf_loader {
    size_t struct_size;
    perf_load_fn load;           /**< required by perf_cache_get_or_load */
    perf_load_many_fn load_many; /**< required by perf_cache_get_or_load_many */
    void *ctx;
    void *(*ctx_clone)(void *ctx);
    void (*ctx_free)(void *ctx);
    int64_t ctx_is_static;       /**< 1: ctx stays valid until the cache is closed */
    int64_t wait_ms;             /**< the caller's own deadline; 0: none */
    const perf_set_options *set; /**< TTL, tags, weight of what is loaded; may be NULL */
} perf_loader;
#define PERF_LOADER_INIT                            \
    {                                               \
        sizeof(perf_loader), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * perf_cache_get, and on a miss the loader, once for all threads that ask
 * (single flight). Waiting callers give up at wait_ms with PERF_ETIMEDOUT; the
 * load goes on for the others and is cancelled when nobody waits any more.
 * A key inside its stale window is served stale while one thread refreshes it.
 * Errors: what the loader returned, PERF_ETIMEDOUT, PERF_EDEADLK when the
 * loader asks for its own key, PERF_EINVAL, PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_cache_get_or_load(perf_cache *cache, const char *ns, const char *user,
                                    const void *key, size_t key_len, const perf_loader *loader,
                                    perf_value **value);

/** The same into the caller's buffer; see perf_cache_get_copy. Since 1.0. */
PERF_API int perf_cache_get_or_load_copy(perf_cache *cache, const char *ns, const char *user,
                                         const void *key, size_t key_len, const perf_loader *loader,
                                         void *buf, size_t cap, size_t *len);

/** The key being loaded; valid during the load. Since 1.0. */
PERF_API const void *perf_load_key(const perf_load *load, size_t *key_len);
/** Its namespace; valid during the load. Since 1.0. */
PERF_API const char *perf_load_namespace(const perf_load *load);
/** Its user, or NULL; valid during the load. Since 1.0. */
PERF_API const char *perf_load_user(const perf_load *load);
/** Gives the value (copied). The last call wins. PERF_OK, PERF_ENOMEM, PERF_ETOOBIG. Since 1.0. */
PERF_API int perf_load_set(perf_load *load, const void *data, size_t len);
/** Sets the life of the value being loaded, instead of the options'. Since 1.0. */
PERF_API int perf_load_set_ttl(perf_load *load, int64_t ttl_ms, int64_t stale_ms);
/** Adds a tag to the value being loaded. Since 1.0. */
PERF_API int perf_load_add_tag(perf_load *load, const char *tag);
/** 1 when nobody waits any more or the hard limit passed: the loader may stop early. Since 1.0. */
PERF_API int perf_load_cancelled(const perf_load *load);
/**
 * The stale value that this load would replace, for conditional requests: *len
 * bytes valid during the load, or NULL. Since 1.0.
 */
PERF_API const void *perf_load_stale(const perf_load *load, size_t *len);
/** Says that the stale value is still right: it is kept with a new life. PERF_MISS without
 *  one. Since 1.0. */
PERF_API int perf_load_keep_stale(perf_load *load);

/* -------------------------------------------------------------------- batch */

/** One key of a batch get. Fill key, key_len and either buf and cap or neither. */
typedef struct perf_lookup {
    const void *key;
    size_t key_len;
    void *buf;         /**< copy here; NULL: give a perf_value */
    size_t cap;        /**< size of buf in bytes */
    size_t len;        /**< out: length of the value */
    perf_value *value; /**< out: when buf is NULL and status is PERF_OK; caller releases */
    int64_t status;    /**< out: PERF_OK, PERF_MISS, PERF_ETOOSMALL or an error */
} perf_lookup;

/**
 * Finds count keys of one namespace and user. Memory accesses of the keys
 * overlap (prefetch), and what memory lacks goes through each tier as one
 * batch. *hits, if not NULL, counts items with PERF_OK. Returns PERF_OK even
 * when items missed. Since 1.0.
 */
PERF_API int perf_cache_get_many(perf_cache *cache, const char *ns, const char *user,
                                 perf_lookup *items, size_t count, size_t *hits);

/** The same, and load_many is called once with the keys that missed. Since 1.0. */
PERF_API int perf_cache_get_or_load_many(perf_cache *cache, const char *ns, const char *user,
                                         perf_lookup *items, size_t count,
                                         const perf_loader *loader, size_t *hits);

/* --------------------------------------------------------------- namespaces */

/** Policy of one namespace. Zero in a field means the default. */
typedef struct perf_namespace_options {
    size_t struct_size;
    int64_t ttl_ms;                 /**< life of entries put with PERF_TTL_DEFAULT; 0: forever */
    int64_t jitter_percent;         /**< each life is shortened at random by up to this; 0..50;
                                         default 0 */
    int64_t stale_ms;               /**< stale window after the TTL: served while one refreshes,
                                         or while the source fails; default 0 */
    int64_t negative_ttl_ms;        /**< how long "no such thing" is remembered; default 0 */
    int64_t error_ttl_ms;           /**< how long a loader's failure is remembered; default 0 */
    uint64_t max_value_bytes;       /**< larger values are refused; default: the tier's limit */
    uint64_t tiers;                 /**< bit 0 memory, bit 1 the first tier below, ...; 0: all */
    int64_t soft_timeout_ms;        /**< with a stale value at hand: serve it after this and let the
                                         load go on; 0: none */
    int64_t hard_timeout_ms;        /**< give up the load after this with PERF_ETIMEDOUT; 0: none */
    int64_t early_refresh_permille; /**< beta of the probabilistic early refresh (XFetch) in
                                     thousandths; 1000 is the paper's optimum; 0: off */
    int64_t refresh_ahead_percent;  /**< refresh in the background when this share of the
                                     life has passed and the key is read; 1..99; 0: off */
    int64_t lease_ms;               /**< with a shared tier that keeps leases (Redis, DynamoDB) one
                                     process loads a key while the others wait for it: this long
                                     after it has died another may load, and at the latest after
                                     ten times as long. It saves work and proves nothing; what comes
                                     later than that is left out. Default 5000; -1: each process
                                     loads by itself */
} perf_namespace_options;
#define PERF_NAMESPACE_OPTIONS_INIT                                        \
    {                                                                      \
        sizeof(perf_namespace_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Sets the policy of a namespace, for entries written from now on. Namespaces
 * come into being when first used. Errors: PERF_EINVAL names the field;
 * PERF_EBUSY at max_namespaces. Since 1.0.
 */
PERF_API int perf_cache_configure_namespace(perf_cache *cache, const char *ns,
                                            const perf_namespace_options *options);

/* --------------------------------------------------------------- statistics */

/** What happened since the cache was opened. Sums are exact when no call is under way. */
typedef struct perf_cache_stats {
    size_t struct_size;
    uint64_t hits;        /**< gets answered from any tier */
    uint64_t memory_hits; /**< of these, from memory */
    uint64_t misses;
    uint64_t stale_hits;    /**< of hits: served past the TTL */
    uint64_t negative_hits; /**< misses and failures answered from memory of them */
    uint64_t loads;         /**< loader calls that succeeded */
    uint64_t load_failures;
    uint64_t load_ns;          /**< time spent in loaders, nanoseconds */
    uint64_t loads_suppressed; /**< callers who waited for somebody else's load */
    uint64_t loads_discarded;  /**< results dropped since an invalidation or write came first */
    uint64_t refreshes;        /**< loads in the background (stale, early or ahead) */
    uint64_t sets;
    uint64_t deletes;
    uint64_t evictions;     /**< dropped to make room */
    uint64_t expirations;   /**< dropped because their time was over */
    uint64_t invalidations; /**< dropped because a mark had killed them */
    uint64_t rejections;    /**< puts refused: too large */
    uint64_t collisions;    /**< different keys met under one fingerprint */
    uint64_t damaged;       /**< records of lower tiers that did not check out */
    uint64_t entries;       /**< now in memory (of the whole cache: per namespace too) */
    uint64_t bytes;         /**< of keys, values and headers now in memory; for the whole
                                 cache: everything that counts against the limit */
    uint64_t max_bytes;     /**< the limit; 0 in a namespace's statistics */
} perf_cache_stats;
#define PERF_CACHE_STATS_INIT                                                                      \
    {                                                                                              \
        sizeof(perf_cache_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Statistics of one namespace, or of the whole cache (ns NULL). PERF_MISS: no such
 *  namespace. Since 1.0. */
PERF_API int perf_cache_get_stats(perf_cache *cache, const char *ns, perf_cache_stats *stats);

/** One tier below memory. */
typedef struct perf_tier_stats {
    size_t struct_size;
    const char *backend; /**< its name; valid until the cache is closed */
    uint64_t hits, misses;
    uint64_t writes;           /**< operations written */
    uint64_t commits;          /**< batches they were written in */
    uint64_t errors;           /**< calls that failed */
    uint64_t dropped;          /**< write-behind operations given up (queue full, tier failing) */
    uint64_t queued;           /**< write-behind operations waiting now */
    uint64_t damaged;          /**< records that did not check out */
    uint64_t records, bytes;   /**< what the store says it holds */
    uint64_t repairs;          /**< of queued: removals that the tier missed while it failed */
    uint64_t repaired;         /**< of those, how many it was told later */
    uint64_t skipped;          /**< calls not made since it had failed a moment before */
    uint64_t leases;           /**< rights to load that this process was given */
    uint64_t heard;            /**< changes by others that it told */
    uint64_t gaps;             /**< times that it could not tell for a while */
    int64_t breaker;           /**< PERF_BREAKER_... (resilience.h): the state now */
    uint64_t read_units_milli; /**< capacity that reads consumed since it was opened, in thousandths
                                    of the store's units ("dynamodb": RRU); 0: not paid so */
    uint64_t write_units_milli; /**< the same for writes ("dynamodb": WRU) */
} perf_tier_stats;
#define PERF_TIER_STATS_INIT                                                                \
    {                                                                                       \
        sizeof(perf_tier_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Statistics of tier number tier (0 is the first below memory). PERF_MISS: no such. Since 1.0. */
PERF_API int perf_cache_get_tier_stats(perf_cache *cache, size_t tier, perf_tier_stats *stats);

/**
 * Says where a key is, since when, and why a get finds it or does not, as one JSON object for
 * people who debug: its state in memory and in each tier, whether it is being loaded, and the marks
 * that concern it (but for those of tags). *len is its length; a zero byte is put behind it.
 * PERF_ETOOSMALL: buf has less than *len + 1 bytes. It asks every tier. Since 1.0.
 */
PERF_API int perf_cache_explain(perf_cache *cache, const char *ns, const char *user,
                                const void *key, size_t key_len, char *buf, size_t cap,
                                size_t *len);

/* ------------------------------------------------------------------- upkeep */

/**
 * Returns when all that was set before is durable in every durable tier.
 * PERF_OK or the tier's error. Since 1.0.
 */
PERF_API int perf_cache_flush(perf_cache *cache);

/**
 * Does up to budget steps of upkeep: expired entries, dead entries under marks,
 * the tiers' sweeps. Ordinary calls do a few steps each, so this is for caches
 * that nobody calls for a while. Returns the steps done. Since 1.0.
 */
PERF_API int64_t perf_cache_maintain(perf_cache *cache, int64_t budget);

/* ------------------------------------------------------------------- events */

/** Why an entry left the memory tier; a mask for perf_cache_listen. */
enum {
    PERF_EVENT_EVICTED = 1,
    PERF_EVENT_EXPIRED = 2,
    PERF_EVENT_DELETED = 4,
    PERF_EVENT_REPLACED = 8,
    PERF_EVENT_INVALIDATED = 16
};

/** One entry that left. Pointers are valid during the callback, or until the next poll. */
typedef struct perf_cache_event {
    size_t struct_size;
    int64_t reason; /**< one PERF_EVENT_... */
    const char *ns;
    const char *user; /**< NULL if none */
    const void *key;
    size_t key_len;
    size_t value_len;
} perf_cache_event;
#define PERF_CACHE_EVENT_INIT                      \
    {                                              \
        sizeof(perf_cache_event), 0, 0, 0, 0, 0, 0 \
    }

/** Called at the end of a call that changes the cache, with no lock held, on that call's thread:
 *  usually the one that caused the event, else whichever comes first. It may use the cache. */
typedef void (*perf_cache_event_fn)(void *ctx, const perf_cache_event *event);

/**
 * Begins to report the events in mask: to fn, or, with fn NULL, into a queue of
 * the given capacity for perf_cache_poll_event (the oldest are dropped when it
 * is full). One listener a cache; mask 0 ends it. Since 1.0.
 */
PERF_API int perf_cache_listen(perf_cache *cache, uint64_t mask, size_t capacity,
                               perf_cache_event_fn fn, void *ctx);

/** Takes the next event from the queue. PERF_OK, or PERF_MISS when empty. One thread at a
 *  time. Since 1.0. */
PERF_API int perf_cache_poll_event(perf_cache *cache, perf_cache_event *event);

/** A file descriptor that is readable while events wait; the cache's, do not close. Since 1.0. */
PERF_API int perf_cache_event_fd(perf_cache *cache, int *fd);

/* ---------------------------------------------------------------- iteration */

/** A walk over the memory tier. */
typedef struct perf_cache_iter perf_cache_iter;

/**
 * Begins a walk over the live entries of ns (NULL: all). The keys of a shard
 * are a snapshot of the moment the walk reaches it: entries there all the time
 * are seen exactly once, others at most once. One thread at a time. Since 1.0.
 */
PERF_API int perf_cache_iter_open(perf_cache *cache, const char *ns, perf_cache_iter **iter);

/** The current entry of a walk. Pointers are valid until the next call. */
typedef struct perf_cache_entry {
    size_t struct_size;
    const char *ns;
    const char *user; /**< NULL if none */
    const void *key;
    size_t key_len;
    size_t value_len;
    int64_t ttl_ms; /**< life left, or PERF_TTL_FOREVER */
} perf_cache_entry;
#define PERF_CACHE_ENTRY_INIT                      \
    {                                              \
        sizeof(perf_cache_entry), 0, 0, 0, 0, 0, 0 \
    }

/** Goes to the next entry. PERF_OK, PERF_MISS at the end, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_cache_iter_next(perf_cache_iter *iter, perf_cache_entry *entry);
/** Ends a walk. NULL is allowed. Since 1.0. */
PERF_API void perf_cache_iter_close(perf_cache_iter *iter);

/* ------------------------------------------------------------ default cache */

/**
 * Names the cache that PERF_CACHED functions use; NULL takes it away, and they
 * then simply run. Returns the one before. The caller keeps ownership. Since 1.0.
 */
PERF_API perf_cache *perf_cache_set_default(perf_cache *cache);

/** The cache that PERF_CACHED functions use, or NULL. Since 1.0. */
PERF_API perf_cache *perf_cache_default(void);

PERF_END_DECLS

#endif
