/* SPDX-License-Identifier: MIT */
/*
 * memory_tier.c - the memory tier as a whole: its shards, opened, closed,
 * counted, and every change handed to the right one under its lock. Gets are in
 * memory_read.c, what happens inside a shard in shard.c. Any thread.
 */
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "quiesce.h"
#include "memory_plain.h"

/* ------------------------------------------------------------ open, close */

/* About four shards a core, but none so small that its policy or its largest entry suffers. */
static uint64_t choose_shards(const struct perf__memory_config *config)
{
    const uint64_t least_bytes = 4u << 20, least_entries = 4096, one_up_to = 16384;
    const uint64_t usable_bytes = 512u << 10; /* below, the bookkeeping would be most of it */
    uint64_t bound = config->max_entries ? config->max_entries : config->max_weight;
    uint64_t shards = config->shards;
    if (shards) {
        while (shards > 1 &&
               (config->max_bytes / shards < usable_bytes || (bound && bound < shards)))
            shards /= 2;
        return shards;
    }
    if (config->max_weight) /* weights may be few and large: they must not be split */
        return 1;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t wanted = 4 * (uint64_t)(cores > 0 ? cores : 1);
    shards = 1;
    if (config->max_entries && config->max_entries <= one_up_to)
        return shards; /* few enough for the policy to know them all */
    while (shards < wanted && shards < 256 && config->max_bytes / (shards * 2) >= least_bytes &&
           (!config->max_entries || config->max_entries / (shards * 2) >= least_entries))
        shards *= 2;
    return shards;
}

/* Share number i of a total: the shares differ by one at most and add up. */
static uint64_t share(uint64_t total, uint64_t shards, uint64_t i)
{
    return total / shards + (i < total % shards);
}

void perf__memory_unref(struct perf__memory_tier *tier)
{
    if (atomic_fetch_sub_explicit(&tier->refs, 1, memory_order_acq_rel) != 1)
        return;
    perf_allocator allocator = tier->host.allocator;
    for (uint32_t i = 0; i < tier->shard_count; i++)
        perf__shard_close(&tier->shards[i]);
    perf__free(&allocator, tier->block);
    perf__free(&allocator, tier);
}

int perf__memory_open(const struct perf__memory_config *config, struct perf__memory_tier **out)
{
    const perf_allocator *a = &config->host->allocator;
    uint64_t count = choose_shards(config);
    perf__quiesce_init();
    struct perf__memory_tier *tier = perf__calloc(a, 1, sizeof *tier);
    if (!tier)
        return perf__fail_nomem("the memory tier");
    tier->config = *config;
    tier->host = *config->host;
    tier->shard_count = (uint32_t)count;
    tier->epoch = perf__realtime_coarse_ms(&tier->host.clock) - 1;
    atomic_store(&tier->suspect, -1);
    atomic_store(&tier->refs, 1);
    const size_t line = _Alignof(struct perf__shard);
    tier->block = perf__calloc(a, count * sizeof *tier->shards + line, 1);
    if (!tier->block) {
        perf__free(a, tier);
        return perf__fail_nomem("the memory tier");
    }
    tier->shards = (void *)(((uintptr_t)tier->block + line - 1) / line * line);
    int64_t now = perf__now_ms(&tier->host.clock);
    for (uint64_t i = 0; i < count; i++) {
        struct perf__shard *shard = &tier->shards[i];
        shard->max_bytes = share(config->max_bytes, count, i);
        shard->max_entries = share(config->max_entries, count, i);
        shard->max_weight = share(config->max_weight, count, i);
        int rc = perf__shard_open(shard, tier, now);
        if (rc) {
            perf__memory_unref(tier); /* closes those that are open */
            return rc;
        }
    }
    *out = tier;
    return PERF_OK;
}

void perf__memory_close(struct perf__memory_tier *tier)
{
    perf__memory_unref(tier);
}

/* ---------------------------------------------------------------- settings */

void perf__memory_set_suspect(struct perf__memory_tier *tier, int64_t all_before)
{
    int64_t stamp = all_before - tier->epoch;
    int64_t before = atomic_load(&tier->suspect);
    while (stamp > before && !atomic_compare_exchange_weak(&tier->suspect, &before, stamp)) {
    }
}

void perf__memory_set_event_mask(struct perf__memory_tier *tier, uint64_t mask)
{
    atomic_store(&tier->event_mask, mask);
}

/* ----------------------------------------------------------------- changes */

bool perf__memory_overwrite_plain(struct perf__memory_tier *tier, const struct perf__plain *want,
                                  int64_t stamp)
{
    struct perf__shard *shard = perf__shard_of(tier, want->hash);
    perf__shard_lock(shard);
    bool done = perf__shard_overwrite_plain(shard, want, stamp);
    perf__shard_unlock(shard);
    return done;
}

int perf__memory_put(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                     const struct perf__write *write, uint64_t *version)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    perf__shard_lock(shard);
    int rc = perf__shard_put(shard, key, now, write, version);
    perf__shard_unlock(shard);
    return rc;
}

int perf__memory_delete(struct perf__memory_tier *tier, const struct perf__key *key, int reason)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    struct perf__parts parts;
    perf__shard_lock(shard);
    uint32_t ref = perf__shard_find(shard, key, INT64_MIN, &parts);
    if (ref)
        perf__shard_drop(shard, ref, reason, false);
    perf__shard_tell_watchers(shard, key, NULL);
    perf__shard_unlock(shard);
    return ref ? PERF_OK : PERF_MISS;
}

int perf__memory_touch(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                       int64_t fresh_until, int64_t dead_at)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    struct perf__parts parts;
    int rc = PERF_MISS;
    perf__shard_lock(shard);
    uint32_t ref = perf__shard_find(shard, key, now, &parts);
    if (ref && perf__entry_flags(perf__entry_at(shard, ref)) & PERF__ENTRY_EXTENDED) {
        struct perf__extension *x = perf__entry_extension(perf__entry_at(shard, ref));
        perf__wheel_remove(&shard->wheel, ref);
        struct perf__bucket *bucket = perf__index_lock(&shard->index, (uint32_t)key->hash);
        atomic_store_explicit(&x->fresh_until, fresh_until, memory_order_relaxed);
        atomic_store_explicit(&x->dead_at, dead_at, memory_order_relaxed);
        atomic_store_explicit(&x->born, dead_at == PERF__NEVER ? 0 : now, memory_order_relaxed);
        perf__index_unlock(bucket);
        if (dead_at != PERF__NEVER)
            perf__wheel_add(&shard->wheel, ref);
        rc = PERF_OK;
    } else if (ref && dead_at == PERF__NEVER) {
        rc = PERF_OK; /* it has no end, and shall have none */
    } else if (ref) { /* no place to write an end: the entry is written anew */
        perf_value *copy = perf__value_new(&tier->host.allocator, parts.value_len);
        if (copy) {
            if (parts.value_len)
                memcpy(copy->bytes, parts.value, parts.value_len);
            struct perf__write write = {.data = copy->bytes,
                                        .len = copy->len,
                                        .fresh_until = fresh_until,
                                        .dead_at = dead_at,
                                        .stamp = parts.stamp + tier->epoch,
                                        .weight = 1,
                                        .is_copy = true,
                                        .mode = PERF__SET_NEW_LIFE};
            uint64_t version;
            rc = perf__shard_put(shard, key, now, &write, &version);
            perf_value_release(copy);
        } else {
            rc = perf__fail_nomem("an entry");
        }
    }
    perf__shard_unlock(shard);
    return rc;
}

void perf__memory_watch(struct perf__memory_tier *tier, const struct perf__key *key,
                        struct perf__watch *watch)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    watch->hash = key->hash;
    atomic_store_explicit(&watch->moved, false, memory_order_relaxed);
    perf__shard_lock(shard);
    struct perf__watch **list = &shard->watches[key->hash % PERF__WATCH_LISTS];
    watch->next = *list;
    watch->at = list;
    if (*list)
        (*list)->at = &watch->next;
    *list = watch;
    shard->watch_count++;
    perf__shard_unlock(shard);
}

void perf__memory_unwatch(struct perf__memory_tier *tier, struct perf__watch *watch)
{
    struct perf__shard *shard = perf__shard_of(tier, watch->hash);
    perf__shard_lock(shard);
    *watch->at = watch->next;
    if (watch->next)
        watch->next->at = watch->at;
    shard->watch_count--;
    perf__shard_unlock(shard);
}

/* -------------------------------------------------------------------- walk */

size_t perf__memory_shard_count(const struct perf__memory_tier *tier)
{
    return tier->shard_count;
}

int perf__memory_walk(struct perf__memory_tier *tier, size_t number, int64_t now,
                      bool (*each)(void *ctx, const struct perf__entry_view *entry), void *ctx)
{
    struct perf__shard *shard = &tier->shards[number];
    bool more = true;
    perf__shard_lock(shard);
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
    uint32_t buckets = (uint32_t)shape + (uint32_t)(shape >> 32);
    int64_t suspect = atomic_load_explicit(&tier->suspect, memory_order_acquire);
    for (uint32_t i = 0; i < buckets && more; i++) {
        const struct perf__bucket *b = &shard->index.buckets[i];
        for (; b && more; b = perf__bucket_next(&shard->index, b)) {
            for (int k = 0; k < PERF__BUCKET_SLOTS && more; k++) {
                if (!atomic_load_explicit(&b->tags[k], memory_order_relaxed))
                    continue;
                uint32_t ref = atomic_load_explicit(&b->refs[k], memory_order_relaxed);
                struct perf__parts parts;
                struct perf__entry_view view;
                if (!perf__entry_parts(perf__entry_at(shard, ref), shard->limit, &parts) ||
                    now >= parts.dead_at)
                    continue;
                perf__shard_view(shard, ref, &parts, &view);
                if (parts.stamp > suspect || !tier->config.dead(tier->config.ctx, &view))
                    more = each(ctx, &view);
            }
        }
    }
    perf__shard_unlock(shard);
    return PERF_OK;
}

/* Drops the entries of one shard that drop picks. Under the shard's lock. */
static void drop_picked(struct perf__shard *shard,
                        bool (*drop)(void *ctx, const struct perf__entry_view *entry), void *ctx)
{
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
    uint32_t buckets = (uint32_t)shape + (uint32_t)(shape >> 32);
    for (uint32_t i = 0; i < buckets; i++) {
        /* Dropping an entry may free a spare bucket: first the references. */
        uint32_t refs[64], n = 0;
        for (const struct perf__bucket *b = &shard->index.buckets[i]; b;
             b = perf__bucket_next(&shard->index, b))
            for (int k = 0; k < PERF__BUCKET_SLOTS && n < 64; k++)
                if (atomic_load_explicit(&b->tags[k], memory_order_relaxed))
                    refs[n++] = atomic_load_explicit(&b->refs[k], memory_order_relaxed);
        for (uint32_t k = 0; k < n; k++) {
            struct perf__parts parts;
            struct perf__entry_view view;
            if (!perf__entry_parts(perf__entry_at(shard, refs[k]), shard->limit, &parts))
                continue;
            perf__shard_view(shard, refs[k], &parts, &view);
            if (drop(ctx, &view))
                perf__shard_drop(shard, refs[k], PERF_EVENT_INVALIDATED, false);
        }
    }
}

void perf__memory_drop_if(struct perf__memory_tier *tier,
                          bool (*drop)(void *ctx, const struct perf__entry_view *entry), void *ctx)
{
    for (uint32_t i = 0; i < tier->shard_count; i++) {
        struct perf__shard *shard = &tier->shards[i];
        perf__shard_lock(shard);
        for (size_t list = 0; list < PERF__WATCH_LISTS; list++)
            for (struct perf__watch *w = shard->watches[list]; w; w = w->next)
                atomic_store_explicit(&w->moved, true, memory_order_release);
        drop_picked(shard, drop, ctx);
        perf__shard_unlock(shard);
    }
}

/* ------------------------------------------------------------------ upkeep */

int64_t perf__memory_maintain(struct perf__memory_tier *tier, int64_t now, int64_t budget,
                              bool *swept_all)
{
    int64_t done = 0;
    *swept_all = true;
    int64_t suspect = atomic_load_explicit(&tier->suspect, memory_order_acquire);
    /* Begins with another shard each time, so that none is starved by a small budget. */
    uint64_t first = perf__thread_random();
    for (uint32_t i = 0; i < tier->shard_count; i++) {
        struct perf__shard *shard = &tier->shards[(first + i) % tier->shard_count];
        perf__shard_lock(shard);
        if (done < budget)
            done += perf__shard_expire(shard, now, budget - done);
        if (done < budget)
            done += perf__shard_sweep(shard, budget - done);
        *swept_all &= shard->swept_for >= suspect;
        perf__shard_unlock(shard);
    }
    return done;
}

void perf__memory_usage(struct perf__memory_tier *tier, struct perf__memory_usage *usage)
{
    *usage = (struct perf__memory_usage){.max_bytes = tier->config.max_bytes};
    for (uint32_t i = 0; i < tier->shard_count; i++) {
        struct perf__shard *shard = &tier->shards[i];
        perf__shard_lock(shard);
        usage->entries += shard->index.entries;
        usage->bytes += perf__shard_memory(shard);
        usage->evictions += shard->evictions;
        usage->expirations += shard->expirations;
        usage->invalidations += shard->invalidations;
        usage->collisions += shard->collisions;
        perf__shard_unlock(shard);
    }
}

void perf__memory_ns_counts(struct perf__memory_tier *tier, uint16_t ns,
                            struct perf__memory_ns_counts *counts)
{
    *counts = (struct perf__memory_ns_counts){0};
    for (uint32_t i = 0; i < tier->shard_count; i++) {
        struct perf__shard *shard = &tier->shards[i];
        perf__shard_lock(shard);
        if (ns < shard->count_cap) {
            const struct perf__memory_ns_counts *c = &shard->counts[ns];
            counts->entries += c->entries;
            counts->bytes += c->bytes;
            counts->evictions += c->evictions;
            counts->expirations += c->expirations;
            counts->invalidations += c->invalidations;
            counts->collisions += c->collisions;
        }
        perf__shard_unlock(shard);
    }
}
