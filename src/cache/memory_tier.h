/* SPDX-License-Identifier: MIT */
/*
 * memory_tier.h - the tier that answers in nanoseconds.
 *
 * A sharded table of entries, bounded in bytes counting everything. A hit takes
 * no lock and writes no line that other readers write; all changes happen under
 * a shard's mutex. Time comes in with each call (monotonic ms), so this file
 * knows no clock. Namespaces are numbers here; what a mark has killed is asked
 * of a callback, and only for entries older than the newest mark.
 */
#ifndef PERF_CACHE_MEMORY_TIER_H
#define PERF_CACHE_MEMORY_TIER_H

#include <libperf/cache.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/options.h"

struct perf__memory_tier;

enum {
    PERF__KEY_MAX = 32767,
    PERF__NAME_MAX = 255, /* user, tag, namespace */
    PERF__TAGS_MAX = 16,
};

/* A key as the tier sees it. hash is keyed by a secret of this process. */
struct perf__key {
    uint64_t hash;
    const void *user; /* user_len 0: none */
    const void *key;
    uint32_t key_len;
    uint16_t ns;
    uint8_t user_len;
};

/* Time of an entry without an end. */
#define PERF__NEVER INT64_MAX

/* What an entry is. */
enum {
    PERF__ENTRY_VALUE = 0,
    PERF__ENTRY_NEGATIVE = 1, /* remembered "no such thing" or failure; its status in the value */
};

/* What a get learns beside the bytes. */
struct perf__hit {
    uint64_t version;
    int64_t fresh_until; /* monotonic ms: TTL ends; PERF__NEVER */
    int64_t dead_at;     /* end of the stale window; PERF__NEVER */
    int64_t born;        /* monotonic ms of the write, 0 for entries without a TTL */
    uint32_t load_ms;    /* how long its load took, for the early refresh; 0 unknown */
    uint8_t kind;        /* PERF__ENTRY_... */
};

/*
 * Watches a key: moved becomes true when somebody else writes or deletes it. Whoever makes a
 * value (a load, a copy from below) watches from before the making to the writing, so that it
 * cannot undo a newer write.
 */
struct perf__watch {
    uint64_t hash;
    struct perf__watch *next, **at; /* under the shard's lock */
    _Atomic bool moved;
};

/* One write. tags: as tag_count strings of one length byte each, tags_len bytes in all. */
struct perf__write {
    const void *data;
    size_t len;
    int64_t fresh_until, dead_at; /* monotonic ms or PERF__NEVER; fresh_until <= dead_at */
    int64_t stamp;                /* when the value's making began; see invalidate.h */
    uint64_t weight;
    const void *tags;
    uint32_t tags_len;
    uint32_t load_ms;
    int64_t mode;     /* PERF_SET_... */
    uint64_t version; /* for PERF_SET_IF_VERSION */
    uint8_t kind;
    bool is_copy;              /* of what a tier below had: no news for those who watch the key */
    const uint64_t *leases;    /* by tier, for the tiers below; NULL: none. See lease.h */
    struct perf__watch *watch; /* not NULL: write only if it has not moved, else PERF_ECONFLICT */
};

/* A live look at an entry under its shard's lock, for callbacks. */
struct perf__entry_view {
    struct perf__key key;
    const void *tags;
    size_t tags_len;
    size_t value_len;
    const void *value;
    int64_t stamp, fresh_until, dead_at;
    uint64_t version;
    uint8_t kind;
};

/* Is this entry dead by some mark? Called under the shard's lock: must not call the tier. */
typedef bool (*perf__memory_dead_fn)(void *ctx, const struct perf__entry_view *entry);

/* An entry has left (reason: PERF_EVENT_...). Called under the shard's lock, only for reasons
 * in event_mask: copies what it needs and returns. */
typedef void (*perf__memory_left_fn)(void *ctx, int reason, const struct perf__entry_view *entry);

/* Counts, per namespace, kept by the shard under its lock. */
struct perf__memory_ns_counts {
    uint64_t entries, bytes, evictions, expirations, invalidations, collisions;
};

struct perf__memory_config {
    const struct perf__host *host; /* outlives the tier */
    uint64_t max_bytes, max_entries, max_weight;
    uint64_t shards; /* 0: chosen as cache.h says */
    uint32_t max_namespaces;
    void *ctx;
    perf__memory_dead_fn dead;
    perf__memory_left_fn left;
};

int perf__memory_open(const struct perf__memory_config *config, struct perf__memory_tier **out);

/* Frees everything but values still pinned; those free the arena with the last release. */
void perf__memory_close(struct perf__memory_tier *tier);
void perf__memory_unref(struct perf__memory_tier *tier); /* of a pinned value */

/*
 * Entries with a stamp <= all_before may be dead: ask the dead callback. Raised by
 * invalidation after its mark is in place. Any thread.
 */
void perf__memory_set_suspect(struct perf__memory_tier *tier, int64_t all_before);

/* Which events the left callback wants; 0 at first. */
void perf__memory_set_event_mask(struct perf__memory_tier *tier, uint64_t mask);

/*
 * Copies a live entry out: PERF_OK with *len and *hit; PERF_ETOOSMALL with *len and *hit
 * (nothing useful in buf); PERF_MISS. now: monotonic ms. An entry is live until dead_at;
 * whether it is stale (now >= fresh_until) is the caller's business. No lock on the fast path.
 */
int perf__memory_get_copy(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                          void *buf, size_t cap, size_t *len, struct perf__hit *hit);

/* The same as a perf_value (see value.h): small values as a copy, large ones pinned. */
int perf__memory_get(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                     perf_value **value, struct perf__hit *hit);

/*
 * Writes. PERF_OK with *version; PERF_EEXISTS, PERF_MISS, PERF_ECONFLICT by mode or watch;
 * PERF_ETOOBIG (and a present old value is dropped); PERF_ENOMEM (the same).
 */
int perf__memory_put(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                     const struct perf__write *write, uint64_t *version);

/* Drops a key, for a reason (PERF_EVENT_...). PERF_OK or PERF_MISS. Moves those who watch it
 * either way. */
int perf__memory_delete(struct perf__memory_tier *tier, const struct perf__key *key, int reason);

/* Drops the entries that drop picks, and moves everybody who watches any key: what is being made
 * now may be as old as they. Each shard is locked for as long as its entries take. */
void perf__memory_drop_if(struct perf__memory_tier *tier,
                          bool (*drop)(void *ctx, const struct perf__entry_view *entry), void *ctx);

/* Sets a new life. PERF_OK or PERF_MISS. */
int perf__memory_touch(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                       int64_t fresh_until, int64_t dead_at);

/* Begins and ends a watch; the struct is the caller's and stays where it is meanwhile. */
void perf__memory_watch(struct perf__memory_tier *tier, const struct perf__key *key,
                        struct perf__watch *watch);
void perf__memory_unwatch(struct perf__memory_tier *tier, struct perf__watch *watch);

/*
 * Calls each, under the shard's lock, for every live entry of one shard; false from each stops.
 */
size_t perf__memory_shard_count(const struct perf__memory_tier *tier);
int perf__memory_walk(struct perf__memory_tier *tier, size_t shard, int64_t now,
                      bool (*each)(void *ctx, const struct perf__entry_view *entry), void *ctx);

/* Expiry and the sweep of dead entries: up to budget steps over all shards; returns steps
 * done. swept_all is set when every entry has been asked since set_suspect was last called. */
int64_t perf__memory_maintain(struct perf__memory_tier *tier, int64_t now, int64_t budget,
                              bool *swept_all);

/* Sums over the shards. bytes: all that counts against the limit. */
struct perf__memory_usage {
    uint64_t entries, bytes, max_bytes, evictions, expirations, invalidations, collisions;
};
void perf__memory_usage(struct perf__memory_tier *tier, struct perf__memory_usage *usage);
void perf__memory_ns_counts(struct perf__memory_tier *tier, uint16_t ns,
                            struct perf__memory_ns_counts *counts);

#endif
