/* SPDX-License-Identifier: MIT */
/*
 * cache_impl.h - what the files of this room share about a perf_cache.
 *
 * One call becomes one struct perf__op: the namespace found, the key hashed.
 * From there it goes to memory_tier, then to the tiers below, then to a loader.
 */
#ifndef PERF_CACHE_CACHE_IMPL_H
#define PERF_CACHE_CACHE_IMPL_H

#include <libperf/cache.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../metrics/counter.h"
#include "../store/envelope.h"
#include "background.h"
#include "coherence.h"
#include "events.h"
#include "invalidate.h"
#include "loader.h"
#include "memory_tier.h"
#include "namespace.h"
#include "tier.h"
#include "value.h"

enum { PERF__ORDER_LOCKS = 64 };

struct perf_cache {
    struct perf__host host;
    uint64_t fork_generation;
    uint64_t memory_max_weight;
    struct perf__hash_key secret; /* of this process, for the memory tier */
    struct perf__memory_tier *memory;
    struct perf__namespaces namespaces;
    struct perf__marks marks;
    struct perf__flights flights;
    struct perf__events events;
    struct perf__background *background;
    struct perf__tier *tiers[PERF__TIERS_MAX];
    size_t tier_count;
    struct perf__coherence coherence;
    _Atomic uint64_t upkeep_tick; /* spreads upkeep over calls */
    perf__gauge maintaining;      /* 1 while some thread does the tiers' sweep */
    /* Held while memory and the tiers' queues take one write, so that both see the writes of a
     * key in the same order. Only used when there are tiers below. */
    pthread_mutex_t order[PERF__ORDER_LOCKS];
};

/* Leases of one key by tier: 0 none, or a token. See lease.h. */
struct perf__leases {
    uint64_t token[PERF__TIERS_MAX];
};

/* One call on its way. */
struct perf__op {
    perf_cache *cache;
    struct perf__namespace *ns;
    const struct perf__policy_ns *policy; /* of the namespace, at the call */
    const char *user_text;                /* as given; NULL: none */
    struct perf__key key;
};

/* Checks the handle and the names, finds the namespace, hashes the key. PERF_OK, or
 * PERF_EINVAL/PERF_EFORKED/PERF_EBUSY/PERF_ENOMEM with the sentence. */
int perf__op_begin(struct perf__op *op, perf_cache *cache, const char *ns, const char *user,
                   const void *key, size_t key_len);

/* The id under which the tiers below know the key. */
void perf__op_store_key(const struct perf__op *op, uint8_t id[PERF_STORE_ID_SIZE],
                        perf_store_key *key);

static inline int perf__cache_check(const perf_cache *cache)
{
    if (__builtin_expect(!cache, 0))
        return perf__fail(PERF_EINVAL, "cache is NULL; open one with perf_cache_open");
    if (__builtin_expect(cache->fork_generation != perf__fork_generation, 0))
        return perf__fail_forked();
    return PERF_OK;
}

static inline int64_t perf__cache_now(const perf_cache *cache)
{
    return perf__now_ms(&cache->host.clock);
}

/* The hash by which memory knows a key; the lengths have been checked. */
PERF__INLINE uint64_t perf__key_hash(const struct perf__namespaces *set,
                                     const struct perf__namespace *ns, const void *user,
                                     size_t user_len, const void *key, size_t key_len)
{
    if (__builtin_expect(!user_len && key_len <= PERF__NH_MAX, 1))
        return perf__nh(&set->nh, key, key_len, ns->nh_offset);
    struct perf__sip sip = ns->memory_sip;
    perf__sip_bytes(&sip, user, user_len);
    perf__sip_bytes(&sip, key, key_len);
    return perf__sip_low(&sip);
}

/* The same in place, for the gets. */
int perf__op_refuse_key(const void *key, size_t key_len) __attribute__((cold));
PERF__INLINE int perf__op_begin_inline(struct perf__op *op, perf_cache *cache, const char *ns,
                                       const char *user, const void *key, size_t key_len)
{
    int rc = perf__cache_check(cache);
    if (rc || (rc = perf__namespace_get(&cache->namespaces, ns, &op->ns)))
        return rc;
    if (__builtin_expect(!key || key_len - 1 >= PERF__KEY_MAX, 0))
        return perf__op_refuse_key(key, key_len);
    size_t user_len = user ? strnlen(user, PERF__NAME_MAX + 1) : 0;
    if (__builtin_expect(user_len > PERF__NAME_MAX, 0))
        return perf__check_len("user", user_len, 0, PERF__NAME_MAX);
    uint64_t hash = perf__key_hash(&cache->namespaces, op->ns, user, user_len, key, key_len);
    op->cache = cache;
    op->policy = atomic_load_explicit(&op->ns->policy, memory_order_acquire);
    op->user_text = user_len ? user : NULL;
    op->key = (struct perf__key){.hash = hash,
                                 .user = user,
                                 .key = key,
                                 .key_len = (uint32_t)key_len,
                                 .ns = op->ns->id,
                                 .user_len = (uint8_t)user_len};
    return PERF_OK;
}

/* The namespace, if its entries may be looked for as plain ones (memory_plain.h). */
static inline struct perf__namespace *perf__plain_namespace(perf_cache *cache, const char *ns,
                                                            const char *user)
{
    if (user || !cache || cache->fork_generation != perf__fork_generation)
        return NULL;
    struct perf__namespace *space = perf__namespace_known(&cache->namespaces, ns);
    return space && atomic_load_explicit(&space->policy, memory_order_acquire)->tiers & 1 ? space
                                                                                          : NULL;
}

/* Does the namespace use memory, or tier number i below it? */
static inline bool perf__op_uses_memory(const struct perf__op *op)
{
    return op->policy->tiers & 1;
}
static inline bool perf__op_uses_tier(const struct perf__op *op, size_t i)
{
    return op->policy->tiers >> (i + 1) & 1;
}

/* --- life.c: TTLs into times --- */

struct perf__life {
    int64_t fresh_until, dead_at; /* monotonic ms, or PERF__NEVER */
};

/* The life of an entry written now, with the namespace's defaults and jitter. ttl_ms and
 * stale_ms as in perf_set_options. PERF_EINVAL names what is out of range. */
int perf__life_of(const struct perf__op *op, int64_t now, int64_t ttl_ms, int64_t stale_ms,
                  struct perf__life *life);

/* Monotonic to wall clock and back; PERF__NEVER and 0 both mean never. */
int64_t perf__life_to_wall(const perf_cache *cache, int64_t now, int64_t time);
int64_t perf__life_from_wall(const perf_cache *cache, int64_t now, int64_t wall);

/* --- write.c --- */

enum { PERF__TAG_BYTES = PERF__TAGS_MAX * (PERF__NAME_MAX + 1) };

/* Checks options (NULL: defaults) and fills all of write but data; tags go into tag_buf. */
int perf__write_prepare(const struct perf__op *op, int64_t now, const perf_set_options *options,
                        struct perf__write *write, uint8_t tag_buf[PERF__TAG_BYTES]);

/* Writes to memory and all tiers of the namespace. As perf__memory_put, and tier errors. */
int perf__write_all(const struct perf__op *op, int64_t now, const struct perf__write *write,
                    uint64_t *version);

/* Remembers a failure or "no such thing", in memory only: it is brief, and other processes
 * should try for themselves. remove_below: the tiers' older record is wrong now and goes. */
int perf__write_negative(const struct perf__op *op, int64_t now, const struct perf__write *write,
                         bool remove_below);

/* Forgets a key in memory and in all tiers of the namespace. */
int perf__delete_all(const struct perf__op *op);

/* --- read.c --- */

/* Where a get puts what it finds: a new handle, or the caller's buffer. */
struct perf__out {
    perf_value **value; /* NULL: buf */
    void *buf;
    size_t cap, *len;
};

/* Gives bytes to the caller. now may be 0 when the hit never ends. PERF_OK, PERF_ETOOSMALL,
 * PERF_ENOMEM. */
int perf__out_give(const struct perf__op *op, const struct perf__out *out, const void *data,
                   size_t len, const struct perf__hit *hit, int64_t now);

/* What memory says about a key. */
enum perf__state { PERF__ABSENT, PERF__FRESH, PERF__STALE, PERF__NEGATIVE };

/*
 * Looks into memory and gives what is FRESH or STALE (also ETOOSMALL, ENOMEM). For NEGATIVE
 * *status is what was remembered. *now is read from the clock if it is 0 and matters.
 */
enum perf__state perf__memory_lookup(const struct perf__op *op, const struct perf__out *out,
                                     int64_t *now, struct perf__hit *hit, int *status);

/* A record from a tier below: the bytes own what record points into. */
struct perf__found {
    perf_store_reply reply;
    struct perf__record record;
    struct perf__hit hit;
    struct perf__leases leases; /* taken on the way down; see perf__tiers_find */
};

/*
 * Looks into the tiers below, first to last, and copies what it finds into memory and the
 * tiers above with the life it has left. PERF_OK (perf__found_free it), PERF_MISS, or the
 * first error when no tier had it. Leases that this took and did not use are in found->leases:
 * the caller ends them, or loads under them.
 */
int perf__tiers_find(const struct perf__op *op, int64_t now, struct perf__found *found);

/* Believes what tier number i said (found->reply), or not: PERF_OK with record and hit filled, or
 * PERF_MISS and a word for why. */
int perf__read_judge(const struct perf__op *op, int64_t now, size_t i, struct perf__found *found,
                     const char **why);

/* The same in tier number i alone. */
int perf__tier_find(const struct perf__op *op, int64_t now, size_t i, struct perf__found *found);

enum { PERF__TIER_GROUP = 64 };
/* That for up to PERF__TIER_GROUP keys. */
void perf__tier_find_many(const struct perf__op *ops, size_t count, int64_t now, size_t tier,
                          struct perf__found *found, int *statuses);

/* The same for many keys, a batch a tier; statuses[i] and found[i] belong to ops[i]. */
void perf__tiers_find_many(const struct perf__op *ops, size_t count, int64_t now,
                           struct perf__found *found, int *statuses);
void perf__found_free(struct perf__found *found);

/* The batch get without its statistics of misses. Items about which nothing is known, not even
 * that the thing does not exist, have PERF__ITEM_ABSENT, for settle to turn into PERF_MISS
 * (it returns their number). */
enum { PERF__ITEM_ABSENT = 100 };
/* plain: for a get without a loader, to which a remembered failure is a miss like any other. */
int perf__get_many(perf_cache *cache, const char *ns, const char *user, perf_lookup *items,
                   size_t count, bool plain);
size_t perf__items_settle(perf_lookup *items, size_t count);

/* Makes sure that a key which lives in a tier below is in memory too, for calls that decide
 * there (conditions, touch, incr). */
void perf__promote(const struct perf__op *op, int64_t now);

/* Does an entry end at all? The clock need not be read for one that does not. */
static inline bool perf__hit_ends(const struct perf__hit *hit)
{
    return hit->fresh_until != PERF__NEVER;
}

static inline void perf__count(const struct perf__op *op, enum perf__count what, uint64_t n)
{
    perf__counters_add(&op->ns->counts, what, n);
}

/* --- default.c --- */

/* Takes a cache that is being closed away from the PERF_CACHED functions. */
void perf__cache_forget_default(perf_cache *cache);

/* --- cache.c --- */

/* Every 64th write of a thread pays a few steps of upkeep; puts advance their own shard's timer
 * wheel, so this is for shards without writes, and for entries under marks. */
void perf__cache_upkeep_steps(perf_cache *cache);
static inline void perf__cache_upkeep(perf_cache *cache)
{
    if (perf__thread_random() % 64 == 0)
        perf__cache_upkeep_steps(cache);
}

#endif
