/* SPDX-License-Identifier: MIT */
/*
 * memory_plain.h - the shortest ways through the memory tier, for plain entries.
 *
 * Plain is what has no user, end, tags or length beyond an entry's header: the
 * usual case. The get is inlined into its callers and computes as little as it
 * can: a processor looks a few hundred instructions ahead, and only when the
 * next call begins within them do the cache misses of both overlap. Everything
 * else is memory_read.c and shard.c.
 */
#ifndef PERF_CACHE_MEMORY_PLAIN_H
#define PERF_CACHE_MEMORY_PLAIN_H

#include "../base/hash.h"
#include "quiesce.h"
#include "shard.h"

/* A plain call. key_len: at most PERF__NH_MAX. */
struct perf__plain {
    uint64_t hash;
    const void *key;
    size_t key_len;
    uint64_t header; /* of the entry: namespace and key length, compared as one */
    void *buf;
    size_t cap, *len;
    int thread; /* perf__thread_slot(), positive */
};

/* Where to look. */
struct perf__spot {
    const struct perf__shard *shard;
    struct perf__bucket *bucket; /* the first of its chain, which has the version */
    uint64_t version;
    uint64_t shape; /* of the index, by which the bucket was chosen */
};

PERF__INLINE struct perf__spot perf__memory_spot(const struct perf__memory_tier *tier,
                                                 uint64_t hash)
{
    const struct perf__shard *shard = perf__shard_of(tier, hash);
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_acquire);
    struct perf__bucket *bucket = &shard->index.buckets[perf__index_place(shape, (uint32_t)hash)];
    return (struct perf__spot){.shard = shard, .bucket = bucket, .shape = shape};
}

PERF__INLINE struct perf__entry *perf__memory_slot(const struct perf__shard *shard,
                                                   const struct perf__bucket *bucket, uint32_t hits)
{
    return perf__entry_at(shard, atomic_load_explicit(&bucket->refs[(size_t)__builtin_ctzll(hits)],
                                                      memory_order_relaxed));
}

/* Counts a use in an entry that was seen at this version of its bucket, and may be gone by now. */
void perf__memory_count_use(struct perf__entry *entry, const struct perf__bucket *bucket,
                            uint64_t version);

/* Copies the value out if it is the entry looked for. False: it is not, or ask get_copy. No length
 * needs a check: garbage lengths lead at most into the tail of the arena (PERF__SLAB_TAIL). */
PERF__RACY_INLINE bool perf__memory_take(const struct perf__memory_tier *tier,
                                         const struct perf__spot *spot, struct perf__entry *entry,
                                         const struct perf__plain *want)
{
    const unsigned char *at = (const unsigned char *)(entry + 1);
    uint64_t a = atomic_load_explicit(&entry->a, memory_order_relaxed);
    uint64_t b = atomic_load_explicit(&entry->b, memory_order_relaxed);
    uint32_t meta = perf__entry_flags(entry);
    size_t size = (uint16_t)(b >> 8);
    if ((a & 0xffffff) != want->header || meta & (PERF__ENTRY_EXTENDED | PERF__ENTRY_USER) ||
        size > want->cap || !perf__racy_equal(at, want->key, want->key_len) ||
        (int64_t)(b >> 24) <= atomic_load_explicit(&tier->suspect, memory_order_acquire))
        return false;
    perf__racy_read(want->buf, at + want->key_len, size);
    if (perf__bucket_version_again(spot->bucket) != spot->version)
        return false;
    *want->len = size;
    perf__policy_note(&spot->shard->policy, (uint32_t)want->hash, want->thread);
    if (__builtin_expect(perf__policy_wants_hit(meta), 0))
        perf__memory_count_use(entry, spot->bucket, spot->version);
    return true;
}

enum perf__plain_get { PERF__PLAIN_HIT, PERF__PLAIN_ABSENT, PERF__PLAIN_UNKNOWN };

/* Finds and copies. ABSENT: there is no entry of this key at all. UNKNOWN: ask
 * perf__memory_search_plain. */
PERF__INLINE enum perf__plain_get perf__memory_get_plain(const struct perf__memory_tier *tier,
                                                         const struct perf__plain *want)
{
    struct perf__spot spot = perf__memory_spot(tier, want->hash);
    spot.version = atomic_load_explicit(&spot.bucket->version, memory_order_acquire);
    if (spot.version % 2)
        return PERF__PLAIN_UNKNOWN;
    uint32_t hits = perf__bucket_match(spot.bucket, perf__index_tag(want->hash));
    if (!hits && !atomic_load_explicit(&spot.bucket->link, memory_order_relaxed) &&
        perf__bucket_version_again(spot.bucket) == spot.version &&
        atomic_load_explicit(&spot.shard->index.shape, memory_order_relaxed) == spot.shape)
        return PERF__PLAIN_ABSENT;
    for (; hits; hits &= hits - 1)
        if (perf__memory_take(tier, &spot, perf__memory_slot(spot.shard, spot.bucket, hits), want))
            return PERF__PLAIN_HIT;
    return PERF__PLAIN_UNKNOWN;
}

/* The hit through the whole chain of buckets. False: ask perf__memory_get_copy. */
bool perf__memory_search_plain(const struct perf__memory_tier *tier,
                               const struct perf__plain *want);

/* Writes want->cap bytes from want->buf over a value of the same length. False: nothing was done,
 * ask perf__memory_put. */
bool perf__memory_overwrite_plain(struct perf__memory_tier *tier, const struct perf__plain *want,
                                  int64_t stamp);

#endif
