/* SPDX-License-Identifier: MIT */
/*
 * namespace.c - the table of namespaces. Lookups lock-free, additions under a
 * mutex; nothing is removed before the cache closes, so pointers stay good.
 */
#include "namespace.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

/* Ids of records in durable and shared tiers must be the same in every process, so their key
 * is fixed and public: a collision there costs a miss, never a wrong answer. */
static const struct perf__hash_key store_key = {0x6c69627065726631u, 0x7265636f72642d69u};

static const struct perf__policy_ns default_policy = {
    .options = {.struct_size = sizeof(perf_namespace_options)}, .tiers = UINT64_MAX};

int perf__namespaces_init(struct perf__namespaces *set, const perf_allocator *allocator,
                          struct perf__hash_key secret, uint32_t max)
{
    memset(set, 0, sizeof *set);
    set->allocator = allocator;
    set->secret = secret;
    perf__nh_init(&set->nh, secret);
    set->max = max;
    uint32_t slots = 16;
    while (slots < 2 * max)
        slots *= 2;
    set->table_mask = slots - 1;
    set->table = perf__calloc(allocator, slots, sizeof *set->table);
    set->by_id = perf__calloc(allocator, max, sizeof *set->by_id);
    if (!set->table || !set->by_id || pthread_mutex_init(&set->mutex, NULL)) {
        perf__free(allocator, set->table);
        perf__free(allocator, set->by_id);
        memset(set, 0, sizeof *set);
        return perf__fail_nomem("the table of namespaces");
    }
    return PERF_OK;
}

static void namespace_free(const perf_allocator *allocator, struct perf__namespace *ns)
{
    const struct perf__policy_ns *policy = atomic_load(&ns->policy);
    while (policy && policy != &default_policy) {
        struct perf__policy_ns *older = policy->older;
        perf__free(allocator, (void *)(uintptr_t)policy);
        policy = older;
    }
    perf__counters_destroy(&ns->counts);
    perf__free(allocator, ns);
}

void perf__namespaces_destroy(struct perf__namespaces *set)
{
    if (!set->table)
        return;
    for (uint32_t id = 0; id < set->count; id++)
        namespace_free(set->allocator, atomic_load(&set->by_id[id]));
    perf__free(set->allocator, set->table);
    perf__free(set->allocator, set->by_id);
    pthread_mutex_destroy(&set->mutex);
    memset(set, 0, sizeof *set);
}

/* The slot that holds the name, or the empty one where it belongs. */
static _Atomic(struct perf__namespace *) *slot_of(struct perf__namespaces *set, const char *name,
                                                  size_t len)
{
    uint64_t i = perf__hash_bytes(set->secret, name, len).lo;
    for (;; i++) {
        _Atomic(struct perf__namespace *) *slot = &set->table[i & set->table_mask];
        struct perf__namespace *ns = atomic_load_explicit(slot, memory_order_acquire);
        if (!ns || (ns->name_len == len && !memcmp(ns->name, name, len)))
            return slot;
    }
}

struct perf__namespace *perf__namespace_find(struct perf__namespaces *set, const char *name,
                                             size_t len)
{
    return atomic_load_explicit(slot_of(set, name, len), memory_order_acquire);
}

static int namespace_new(struct perf__namespaces *set, const char *name, size_t len,
                         struct perf__namespace **out)
{
    if (set->count == set->max)
        return perf__fail(PERF_EBUSY,
                          "there are already %u namespaces; raise max_namespaces, or use fewer "
                          "names (put what varies into the key)",
                          set->max);
    struct perf__namespace *ns = perf__calloc(set->allocator, 1, sizeof *ns);
    if (!ns)
        return perf__fail_nomem("a namespace");
    int rc = perf__counters_init(&ns->counts, set->allocator, PERF__COUNTS);
    if (rc) {
        perf__free(set->allocator, ns);
        return rc;
    }
    memcpy(ns->name, name, len);
    ns->name_len = (uint8_t)len;
    ns->id = (uint16_t)set->count;
    ns->memory_sip = perf__sip_begin(set->secret);
    perf__sip_bytes(&ns->memory_sip, name, len);
    ns->nh_offset = perf__hash_bytes(set->secret, name, len).hi;
    ns->header = (uint64_t)ns->id << 8;
    ns->store_sip = perf__sip_begin(store_key);
    perf__sip_bytes(&ns->store_sip, name, len);
    atomic_store(&ns->policy, &default_policy);
    *out = ns;
    return PERF_OK;
}

int perf__namespace_get_slow(struct perf__namespaces *set, const char *name,
                             struct perf__namespace **out)
{
    if (!name)
        return perf__fail(PERF_EINVAL, "namespace is NULL; give a name of 1 to 255 bytes");
    size_t len = strnlen(name, 256);
    if (len == 0 || len > 255)
        return perf__fail(PERF_EINVAL, "namespace is %s; give a name of 1 to 255 bytes",
                          len ? "longer than 255 bytes" : "empty");
    struct perf__namespace *ns = perf__namespace_find(set, name, len);
    if (!ns) {
        int rc = PERF_OK;
        pthread_mutex_lock(&set->mutex);
        _Atomic(struct perf__namespace *) *slot = slot_of(set, name, len);
        ns = atomic_load(slot);
        if (!ns && !(rc = namespace_new(set, name, len, &ns))) {
            atomic_store_explicit(&set->by_id[ns->id], ns, memory_order_release);
            set->count++;
            atomic_store_explicit(slot, ns, memory_order_release);
        }
        pthread_mutex_unlock(&set->mutex);
        if (rc)
            return rc;
    }
    /* First come, first remembered: a memo that two names fight for would be written often. */
    _Atomic(struct perf__namespace *) *memo = &set->memo[((uintptr_t)name >> 3) % PERF__NS_MEMO];
    if (!atomic_load_explicit(memo, memory_order_relaxed))
        atomic_store_explicit(memo, ns, memory_order_release);
    *out = ns;
    return PERF_OK;
}

int perf__namespace_set_policy(struct perf__namespaces *set, struct perf__namespace *ns,
                               const perf_namespace_options *options)
{
    struct perf__policy_ns *policy = perf__calloc(set->allocator, 1, sizeof *policy);
    if (!policy)
        return perf__fail_nomem("a namespace's policy");
    policy->options = *options;
    policy->tiers = options->tiers ? options->tiers : UINT64_MAX;
    pthread_mutex_lock(&set->mutex);
    policy->older = (void *)(uintptr_t)atomic_load(&ns->policy);
    atomic_store_explicit(&ns->policy, policy, memory_order_release);
    pthread_mutex_unlock(&set->mutex);
    return PERF_OK;
}
