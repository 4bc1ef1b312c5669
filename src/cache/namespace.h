/* SPDX-License-Identifier: MIT */
/*
 * namespace.h - names, their policies and their counts.
 *
 * Finding a namespace takes no lock: names are never removed, the table holds
 * atomic pointers, and a small memo by the address of the caller's string makes
 * the usual case one comparison. Adding one takes a mutex. Any thread.
 */
#ifndef PERF_CACHE_NAMESPACE_H
#define PERF_CACHE_NAMESPACE_H

#include <libperf/cache.h>
#include <pthread.h>

#include "../base/hash.h"
#include "../metrics/counter.h"
#include "../metrics/histogram.h"

/* Counters of a namespace. */
enum perf__count {
    PERF__MEMORY_HITS,
    PERF__TIER_HITS,
    PERF__MISSES,
    PERF__STALE_HITS,
    PERF__NEGATIVE_HITS,
    PERF__LOADS,
    PERF__LOAD_FAILURES,
    PERF__LOAD_NS,
    PERF__LOADS_SUPPRESSED,
    PERF__LOADS_DISCARDED,
    PERF__REFRESHES,
    PERF__SETS,
    PERF__DELETES,
    PERF__REJECTIONS,
    PERF__COLLISIONS,
    PERF__DAMAGED,
    PERF__COUNTS
};

/* A namespace's options, immutable once published; replaced as a whole. */
struct perf__policy_ns {
    perf_namespace_options options;
    uint64_t tiers;                /* options.tiers with 0 resolved to all */
    struct perf__policy_ns *older; /* kept until the cache closes: readers may hold it */
};

struct perf__namespace {
    char name[256];
    uint8_t name_len;
    uint16_t id;
    struct perf__sip memory_sip; /* hash state after the name: keyed by the process's secret */
    uint64_t nh_offset;          /* tells its keys from those of other namespaces */
    uint64_t header;             /* id << 8, as in the entries of memory */
    struct perf__sip store_sip;  /* the same with the fixed key of shared records */
    _Atomic(const struct perf__policy_ns *) policy;
    struct perf__counters counts;
};

enum { PERF__NS_MEMO = 64 };

struct perf__namespaces {
    const perf_allocator *allocator;
    pthread_mutex_t mutex;
    struct perf__hash_key secret;
    struct perf__nh_key nh;
    uint32_t max, count;
    uint32_t table_mask;
    _Atomic(struct perf__namespace *) *table; /* open addressing, by hash of the name */
    _Atomic(struct perf__namespace *) *by_id;
    _Atomic(struct perf__namespace *) memo[PERF__NS_MEMO];
};

int perf__namespaces_init(struct perf__namespaces *set, const perf_allocator *allocator,
                          struct perf__hash_key secret, uint32_t max);
void perf__namespaces_destroy(struct perf__namespaces *set);

/* Finds by name, whatever its address. NULL when there is none. */
struct perf__namespace *perf__namespace_find(struct perf__namespaces *set, const char *name,
                                             size_t len);

/* Finds or makes. Also remembers the caller's string in the memo. PERF_OK, PERF_EINVAL (name),
 * PERF_EBUSY (too many), PERF_ENOMEM. */
int perf__namespace_get_slow(struct perf__namespaces *set, const char *name,
                             struct perf__namespace **ns);

/* The namespace of a name that was asked for from about here before, or NULL. */
static inline struct perf__namespace *perf__namespace_known(struct perf__namespaces *set,
                                                            const char *name)
{
    struct perf__namespace *memo = atomic_load_explicit(
        &set->memo[((uintptr_t)name >> 3) % PERF__NS_MEMO], memory_order_acquire);
    return __builtin_expect(memo && name && !strcmp(memo->name, name), 1) ? memo : NULL;
}

static inline int perf__namespace_get(struct perf__namespaces *set, const char *name,
                                      struct perf__namespace **ns)
{
    *ns = perf__namespace_known(set, name);
    return __builtin_expect(*ns != NULL, 1) ? PERF_OK : perf__namespace_get_slow(set, name, ns);
}

/* The namespace with this number, or NULL. */
static inline struct perf__namespace *perf__namespace_by_id(const struct perf__namespaces *set,
                                                            uint16_t id)
{
    return id < set->max ? atomic_load_explicit(&set->by_id[id], memory_order_acquire) : NULL;
}

/* Publishes a policy (checked by the caller). PERF_OK or PERF_ENOMEM. */
int perf__namespace_set_policy(struct perf__namespaces *set, struct perf__namespace *ns,
                               const perf_namespace_options *options);

#endif
