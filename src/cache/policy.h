// SPDX-License-Identifier: MIT
/*
 * Which entry leaves when room is needed: the admission and eviction policy of one shard.
 *
 * The tier decides when to evict (entries, bytes); the policy picks the victim. One instance a
 * shard. Every call except perf__policy_hit needs the shard's lock; a hit takes no lock, writes
 * the entry's own node only when its use count changes, and notes the hash in a small log of its
 * thread's lane, which is full (and then only read) unless entries are being inserted.
 *
 * Order of calls for a set: perf__policy_insert, then perf__policy_victim until it fits. The victim
 * may be the entry inserted last: it was not admitted.
 */
#ifndef PERF__CACHE_POLICY_H
#define PERF__CACHE_POLICY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/thread.h"
#include "council.h"

/* Embedded at the start of an entry. References are in units of 8 bytes from the base; 0 is nil. */
struct perf__node {
    uint32_t hash;         /* keyed hash of the key */
    uint32_t next, prev;   /* towards older, towards newer */
    _Atomic uint32_t meta; /* low 24 bits: the policy's; high 8: the tier's */
};

enum {
    PERF__META_USES = 3,          /* hits since the hand last passed, at most 3 */
    PERF__META_LIST_SHIFT = 2,    /* 7 bits: index of its list */
    PERF__META_TICK_SHIFT = 9,    /* 15 bits of coarse time of the last reinsertion */
    PERF__META_POLICY = 0xFFFFFF, /* all of ours */

    PERF__LOG_LANES = 4, /* hit logs; threads spread over them */
    PERF__LOG_SIZE = 248,
};

/* Hashes hit since the log was last read. Racing writers lose notes, never more. */
struct perf__log {
    _Alignas(64) _Atomic uint32_t used;
    _Atomic uint32_t hash[PERF__LOG_SIZE];
};

struct perf__policy_list {
    uint32_t newest, oldest;
    uint64_t weight;
};

struct perf__policy_config {
    void *base;                                        /* of node references */
    uint32_t (*weight)(const void *ctx, uint32_t ref); /* of a resident entry, at least 1 */
    const void *weight_ctx;
    void *(*alloc)(void *ctx, size_t size); /* NULL = malloc */
    void (*free)(void *ctx, void *memory);
    void *alloc_ctx;
    uint64_t capacity; /* weight the tier means to hold; 0 = unknown */
    /* About as many entries as that is. Up to 16000 an underestimate only grows the directory;
     * more must be announced, since a directory cannot turn into a sample later. 0 = unknown: many.
     */
    uint32_t entries;
    bool by_weight; /* hits are worth their weight: what the host bounds is what it counts */
    bool is_part;   /* one of several: a sample is enough, since together they hold many */
    size_t memory;  /* bytes of its own the policy may take; 0 = as it sees fit, see policy.c */
};

struct perf__policy {
    unsigned char *base;
    uint32_t (*weight)(const void *ctx, uint32_t ref);
    const void *weight_ctx;
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *memory);
    void *alloc_ctx;

    /* With a record for every entry: one list for each set of experts that would hold it. Else:
     * probation and main. */
    struct perf__policy_list lists[1 << PERF__EXPERTS];
    uint64_t in_use[2];    /* one bit a list: not empty */
    uint64_t held;         /* weight of all */
    uint64_t capacity;     /* weight held when an eviction is done: what the experts may hold */
    uint64_t capacity_max; /* as announced; 0 = unknown */
    uint64_t entries;      /* resident entries */
    bool evicting;         /* capacity has been learnt */

    /* The council sees the keys whose mixed hash has its top `sample_shift` bits clear. */
    uint32_t sample_limit; /* mixed hash <= limit: sampled */
    uint8_t sample_shift;
    struct perf__council council;
    struct perf__log *logs; /* [PERF__LOG_LANES] */
    void *memory;           /* of the logs and ghosts */
    size_t memory_size;
    void *records; /* of the council */
    uint32_t record_count;
    size_t memory_max; /* of the records; 0 = no limit but our own */

    /* Without a record for every entry: ghosts and a coarse clock. */
    uint32_t *ghosts; /* buckets of 4 slots: 16 bits fingerprint, 16 bits tick; NULL = none */
    uint32_t ghost_mask;
    uint32_t tick;
    uint64_t tick_progress; /* weight inserted since the tick */
};

/* 0; negative when memory is short. */
int perf__policy_init(struct perf__policy *, const struct perf__policy_config *);
void perf__policy_destroy(struct perf__policy *);

/* A new resident entry: node.hash and the weight are set; meta's low 24 bits are overwritten. */
void perf__policy_insert(struct perf__policy *, uint32_t ref);
/* Its value was replaced in place, and the callback now gives its new weight: counts as a use. */
void perf__policy_update(struct perf__policy *, uint32_t ref, uint32_t old_weight);
/* Chooses an entry, unlinks it and remembers its hash; 0 when there is none. */
uint32_t perf__policy_victim(struct perf__policy *);
/* Deleted or expired: unlinked and forgotten. The callback must still give its weight. */
void perf__policy_remove(struct perf__policy *, uint32_t ref);
/* The entry now lives at new_ref, its bytes already copied there. */
void perf__policy_move(struct perf__policy *, uint32_t old_ref, uint32_t new_ref);
/* Bytes allocated, this struct included. */
size_t perf__policy_memory(const struct perf__policy *);

static inline bool perf__policy_sampled(const struct perf__policy *p, uint32_t hash)
{
    return hash * 0x9E3779B1u <= p->sample_limit;
}

/* Would a hit change this meta word? Hot entries settle and are then only read. */
static inline bool perf__policy_wants_hit(uint32_t meta)
{
    return (meta & PERF__META_USES) != PERF__META_USES;
}

/* Counts a use in the entry's own node. One attempt: what a race loses does not matter. */
static inline void perf__policy_count_use(struct perf__node *node, uint32_t meta)
{
    atomic_compare_exchange_weak_explicit(&node->meta, &meta, meta + 1, memory_order_relaxed,
                                          memory_order_relaxed);
}

/* Notes a hit for the council, without the lock. thread: perf__thread_slot(). */
static inline void perf__policy_note(const struct perf__policy *p, uint32_t hash, int thread)
{
    if (perf__policy_sampled(p, hash)) {
        struct perf__log *log = &p->logs[(unsigned)thread % PERF__LOG_LANES];
        uint32_t used = atomic_load_explicit(&log->used, memory_order_relaxed);
        if (used < PERF__LOG_SIZE) {
            atomic_store_explicit(&log->hash[used], hash, memory_order_relaxed);
            atomic_store_explicit(&log->used, used + 1, memory_order_release);
        }
    }
}

/* Both at once, where the entry cannot go away meanwhile. */
static inline void perf__policy_hit(const struct perf__policy *p, struct perf__node *node)
{
    uint32_t meta = atomic_load_explicit(&node->meta, memory_order_relaxed);
    if (perf__policy_wants_hit(meta))
        perf__policy_count_use(node, meta);
    perf__policy_note(p, node->hash, perf__thread_slot());
}

#endif
