/* SPDX-License-Identifier: MIT */
/*
 * shard.h - one shard of the memory tier: its lock, index, memory, policy and
 * wheel. Shared by memory_tier.c (the whole), memory_read.c (gets, mostly
 * without the lock) and shard.c (changes, under the lock).
 */
#ifndef PERF_CACHE_SHARD_H
#define PERF_CACHE_SHARD_H

#include <pthread.h>

#include "entry.h"
#include "index.h"
#include "slab.h"
#include "timer_wheel.h"
#include "value.h"

enum { PERF__WATCH_LISTS = 64 };

/* A mode of perf__write for this room: same value and version, another life; no event. */
enum { PERF__SET_NEW_LIFE = 100 };

struct perf__shard {
    _Alignas(64) struct perf__index index; /* read without the lock: shape, buckets */
    unsigned char *base;                   /* of the arena */
    const unsigned char *limit;            /* its end */
    struct perf__memory_tier *tier;

    _Alignas(64) pthread_mutex_t mutex; /* guards all that follows */
    struct perf__slab slab;
    struct perf__timer_wheel wheel;
    uint64_t version;      /* of the last write */
    uint64_t weight;       /* sum of the entries' weights */
    size_t policy_reserve; /* bytes set aside for the policy, used or not */
    uint64_t max_bytes, max_entries, max_weight;
    uint64_t evictions, expirations, invalidations, collisions;
    struct perf__memory_ns_counts *counts; /* by namespace */
    uint32_t count_cap;
    uint32_t sweep_at;                              /* bucket of the sweep for dead entries */
    int64_t sweep_for;                              /* suspect stamp that the sweep asks about */
    int64_t swept_for;                              /* that of the last complete sweep */
    struct perf__watch *watches[PERF__WATCH_LISTS]; /* by hash */
    uint64_t watch_count;

    _Alignas(64) struct perf__policy policy; /* hits write its logs */
};

struct perf__memory_tier {
    struct perf__memory_config config;
    struct perf__host host;
    uint32_t shard_count;
    int64_t epoch;           /* stamps are kept relative to it */
    _Atomic int64_t suspect; /* relative; entries with a stamp up to it must be asked about */
    _Atomic uint64_t event_mask;
    _Atomic uint64_t refs; /* the owner and every pinned value */
    struct perf__shard *shards;
    void *block; /* of the shards, before alignment */
};

static inline struct perf__shard *perf__shard_of(const struct perf__memory_tier *tier,
                                                 uint64_t hash)
{
    return &tier->shards[hash >> 40 & (tier->shard_count - 1)];
}

static inline struct perf__entry *perf__entry_at(const struct perf__shard *shard, uint32_t ref)
{
    return (struct perf__entry *)(void *)(shard->base + (size_t)ref * 8);
}

void perf__shard_lock_contended(struct perf__shard *shard);
static inline void perf__shard_lock(struct perf__shard *shard)
{
    if (__builtin_expect(pthread_mutex_trylock(&shard->mutex) != 0, 0))
        perf__shard_lock_contended(shard);
}
static inline void perf__shard_unlock(struct perf__shard *shard)
{
    pthread_mutex_unlock(&shard->mutex);
}

int perf__shard_open(struct perf__shard *shard, struct perf__memory_tier *tier, int64_t now);
void perf__shard_close(struct perf__shard *shard);

/* All of these need the lock. */

/* The reference of a key, or 0. Entries past their end or dead by a mark are dropped on the way. */
uint32_t perf__shard_find(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                          struct perf__parts *parts);
/* Drops an entry. reason: PERF_EVENT_..., counted and told to the listener. from_policy: the
 * policy has chosen it as a victim and let go of it already. */
void perf__shard_drop(struct perf__shard *shard, uint32_t ref, int reason, bool from_policy);
int perf__shard_put(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                    const struct perf__write *write, uint64_t *version);
struct perf__plain;
/* As perf__memory_overwrite_plain. */
bool perf__shard_overwrite_plain(struct perf__shard *shard, const struct perf__plain *want,
                                 int64_t stamp);
/* Ends what has come to its end; returns the steps done. */
int64_t perf__shard_expire(struct perf__shard *shard, int64_t now, int64_t budget);
/* Asks entries about marks; returns the steps done. */
int64_t perf__shard_sweep(struct perf__shard *shard, int64_t budget);

void perf__shard_view(struct perf__shard *shard, uint32_t ref, const struct perf__parts *parts,
                      struct perf__entry_view *view);
size_t perf__shard_memory(const struct perf__shard *shard);

/* Tells those who watch a key that it has changed; except is the writer's own watch. */
void perf__shard_tell_watchers(struct perf__shard *shard, const struct perf__key *key,
                               const struct perf__watch *except);

/* Asks about one entry; true when it was dead (and has been dropped). */
bool perf__shard_ask(struct perf__shard *shard, uint32_t ref, const struct perf__parts *parts);

#endif
