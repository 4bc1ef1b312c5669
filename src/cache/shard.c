/* SPDX-License-Identifier: MIT */
/*
 * shard.c - changing a shard: finding, writing, dropping, making room. All
 * under the shard's lock; readers without it are kept honest by the versions
 * of the buckets (index.h).
 */
#include "memory_plain.h"

#include "../base/alloc.h"
#include "../base/status.h"
#include "quiesce.h"

enum {
    /* What a put may cost its caller at the very most: the first entry of a new size in a full
     * shard, which waits until others leave a whole span. Usually one has to go. */
    EVICTIONS_MAX = 1024,
    EVICTION_SIZE = 32, /* a larger value may cost in proportion, even if only small ones leave */
    COMPACTIONS_MAX = 16,
    EXPIRE_STEPS = 8, /* a put */
    ENTRY_MIN = 64,   /* about the least that an entry takes */
};

/* ---------------------------------------------------------------- opening */

static uint32_t charge_of(const struct perf__shard *shard, uint32_t ref)
{
    if (shard->max_entries)
        return 1;
    if (shard->max_weight) {
        struct perf__entry *e = perf__entry_at(shard, ref);
        return perf__entry_flags(e) & PERF__ENTRY_EXTENDED ? perf__entry_extension(e)->weight : 1;
    }
    return (uint32_t)perf__slab_size_at(&shard->slab, ref);
}

static uint32_t policy_weight(const void *ctx, uint32_t ref)
{
    return charge_of(ctx, ref);
}

static void *policy_alloc(void *ctx, size_t size)
{
    return perf__alloc(ctx, size);
}

static void policy_free(void *ctx, void *block)
{
    perf__free(ctx, block);
}

/* The lock is held for less time than a sleep and a wake-up take: spin for about as long. */
void perf__shard_lock_contended(struct perf__shard *shard)
{
    for (int pauses = 1; pauses <= 64; pauses *= 2) {
        for (int i = 0; i < pauses; i++)
            perf__pause();
        if (!pthread_mutex_trylock(&shard->mutex))
            return;
    }
    pthread_mutex_lock(&shard->mutex);
}

int perf__shard_open(struct perf__shard *shard, struct perf__memory_tier *tier, int64_t now)
{
    size_t share = shard->max_bytes;
    shard->tier = tier;
    if (pthread_mutex_init(&shard->mutex, NULL))
        return perf__fail_nomem("a shard");
    /* Four times the share in address space, so that free runs find room in one piece; 32 GiB is
     * what a reference reaches. */
    size_t reserve = share * 4 + ((size_t)64 << 20), most = (size_t)32 << 30;
    if (perf__slab_open(&shard->slab, reserve < most ? reserve : most) ||
        perf__index_open(&shard->index, share / ENTRY_MIN))
        goto failed;
    shard->base = shard->slab.base;
    shard->limit = shard->base + shard->slab.bytes;
    perf__wheel_init(&shard->wheel, shard->base, now);
    /* Every byte of the policy is one less for entries. What it may grow to is set aside from the
     * start, so that its growth never finds the shard full. */
    const size_t weighted_entries = 16000; /* bound by weight: few, as far as we know */
    const size_t per_entry = 280, least = (size_t)96 << 10;
    size_t policy_max = share / (shard->max_entries || shard->max_weight ? 8 : 16);
    if (shard->max_entries && shard->max_entries < (policy_max - policy_max / 8) / per_entry)
        policy_max = shard->max_entries * per_entry + least;
    shard->policy_reserve = policy_max;
    uint64_t expected = share / 256; /* entries of a common size */
    if (shard->max_entries)          /* but no more than can be held at all */
        expected = shard->max_entries < share / ENTRY_MIN ? shard->max_entries : share / ENTRY_MIN;
    else if (shard->max_weight && expected > weighted_entries)
        expected = weighted_entries;
    struct perf__policy_config policy = {
        .base = shard->base,
        .weight = policy_weight,
        .weight_ctx = shard,
        .alloc = policy_alloc,
        .free = policy_free,
        .alloc_ctx = &tier->host.allocator,
        .capacity = shard->max_entries ? shard->max_entries : shard->max_weight,
        .entries = (uint32_t)expected,
        .is_part = tier->shard_count > 1,
        .by_weight = shard->max_weight != 0,
        .memory = policy_max,
    };
    if (perf__policy_init(&shard->policy, &policy))
        goto failed;
    return PERF_OK;

failed:
    perf__index_close(&shard->index);
    perf__slab_close(&shard->slab);
    pthread_mutex_destroy(&shard->mutex);
    shard->base = NULL;
    return perf__fail_nomem("the memory tier");
}

void perf__shard_close(struct perf__shard *shard)
{
    if (!shard->base)
        return;
    perf__policy_destroy(&shard->policy);
    perf__index_close(&shard->index);
    perf__slab_close(&shard->slab);
    perf__free(&shard->tier->host.allocator, shard->counts);
    pthread_mutex_destroy(&shard->mutex);
    shard->base = NULL;
}

/* What counts beside the entries' pages. */
static size_t overhead(const struct perf__shard *shard)
{
    size_t policy = perf__policy_memory(&shard->policy);
    return sizeof *shard + perf__index_memory(&shard->index) +
           (policy > shard->policy_reserve ? policy : shard->policy_reserve) +
           shard->count_cap * sizeof *shard->counts;
}

size_t perf__shard_memory(const struct perf__shard *shard)
{
    return overhead(shard) + perf__slab_memory(&shard->slab);
}

/* What the pages may take. */
static size_t slab_limit(const struct perf__shard *shard)
{
    size_t other = overhead(shard);
    return shard->max_bytes > other ? shard->max_bytes - other : 0;
}

/* ----------------------------------------------------------- entries' parts */

static bool parts_of(struct perf__shard *shard, uint32_t ref, struct perf__parts *parts)
{
    return perf__entry_parts(perf__entry_at(shard, ref), shard->limit, parts);
}

static struct perf__memory_ns_counts *counts_of(struct perf__shard *shard, uint16_t ns)
{
    if (ns < shard->count_cap)
        return &shard->counts[ns];
    uint32_t cap = shard->count_cap ? shard->count_cap : 8;
    while (cap <= ns)
        cap *= 2;
    struct perf__memory_ns_counts *counts =
        perf__realloc(&shard->tier->host.allocator, shard->counts, cap * sizeof *counts);
    if (!counts)
        return NULL;
    memset(counts + shard->count_cap, 0, (cap - shard->count_cap) * sizeof *counts);
    shard->counts = counts;
    shard->count_cap = cap;
    return &counts[ns];
}

void perf__shard_view(struct perf__shard *shard, uint32_t ref, const struct perf__parts *parts,
                      struct perf__entry_view *view)
{
    *view = (struct perf__entry_view){
        .key = {.hash = perf__entry_at(shard, ref)->node.hash,
                .user = parts->user,
                .key = parts->key,
                .key_len = parts->key_len,
                .ns = parts->ns,
                .user_len = parts->user_len},
        .tags = parts->tags,
        .tags_len = parts->tags_len,
        .value = parts->value,
        .value_len = parts->value_len,
        .stamp = parts->stamp + shard->tier->epoch,
        .fresh_until = parts->fresh_until,
        .dead_at = parts->dead_at,
        .version = parts->version,
        .kind = parts->kind,
    };
}

/* --------------------------------------------------------------- dropping */

static void report(struct perf__shard *shard, uint32_t ref, const struct perf__parts *parts,
                   int reason)
{
    struct perf__memory_ns_counts *counts = counts_of(shard, parts->ns);
    counts->entries--;
    counts->bytes -= perf__slab_size_at(&shard->slab, ref);
    if (reason == PERF_EVENT_EVICTED) {
        shard->evictions++;
        counts->evictions++;
    } else if (reason == PERF_EVENT_EXPIRED) {
        shard->expirations++;
        counts->expirations++;
    } else if (reason == PERF_EVENT_INVALIDATED) {
        shard->invalidations++;
        counts->invalidations++;
    }
    struct perf__memory_tier *tier = shard->tier;
    if (atomic_load_explicit(&tier->event_mask, memory_order_relaxed) & (uint64_t)reason) {
        struct perf__entry_view view;
        perf__shard_view(shard, ref, parts, &view);
        tier->config.left(tier->config.ctx, reason, &view);
    }
}

void perf__shard_drop(struct perf__shard *shard, uint32_t ref, int reason, bool from_policy)
{
    struct perf__entry *e = perf__entry_at(shard, ref);
    struct perf__parts parts;
    parts_of(shard, ref, &parts);
    report(shard, ref, &parts, reason);
    if (!from_policy)
        perf__policy_remove(&shard->policy, ref);
    if (perf__entry_flags(e) & PERF__ENTRY_EXTENDED)
        perf__wheel_remove(&shard->wheel, ref);
    shard->weight -= charge_of(shard, ref);
    perf__index_remove(&shard->index, e->node.hash, ref);
    perf__slab_free(&shard->slab, ref);
}

/* ---------------------------------------------------------------- finding */

bool perf__shard_ask(struct perf__shard *shard, uint32_t ref, const struct perf__parts *parts)
{
    struct perf__memory_tier *tier = shard->tier;
    int64_t suspect = atomic_load_explicit(&tier->suspect, memory_order_acquire);
    if (parts->stamp > suspect)
        return false;
    struct perf__entry_view view;
    perf__shard_view(shard, ref, parts, &view);
    if (tier->config.dead(tier->config.ctx, &view)) {
        perf__shard_drop(shard, ref, PERF_EVENT_INVALIDATED, false);
        return true;
    }
    /* It has survived all marks up to suspect; the next mark has a greater stamp. */
    struct perf__entry *e = perf__entry_at(shard, ref);
    uint64_t b = atomic_load_explicit(&e->b, memory_order_relaxed);
    atomic_store_explicit(&e->b, (b & 0xffffff) | (uint64_t)(suspect + 1) << 24,
                          memory_order_relaxed);
    return false;
}

/* The reference of a key, whatever its state. */
static uint32_t lookup(struct perf__shard *shard, const struct perf__key *key,
                       struct perf__parts *parts)
{
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
    struct perf__bucket *b = &shard->index.buckets[perf__index_place(shape, (uint32_t)key->hash)];
    uint8_t tag = perf__index_tag(key->hash);
    for (; b; b = perf__bucket_next(&shard->index, b)) {
        for (uint32_t hits = perf__bucket_match(b, tag); hits; hits &= hits - 1) {
            uint32_t ref =
                atomic_load_explicit(&b->refs[__builtin_ctz(hits)], memory_order_relaxed);
            if (perf__entry_at(shard, ref)->node.hash != (uint32_t)key->hash)
                continue;
            if (parts_of(shard, ref, parts) && perf__parts_match(parts, key))
                return ref;
            shard->collisions++;
        }
    }
    return 0;
}

uint32_t perf__shard_find(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                          struct perf__parts *parts)
{
    uint32_t ref = lookup(shard, key, parts);
    if (!ref)
        return 0;
    if (now >= parts->dead_at) {
        perf__shard_drop(shard, ref, PERF_EVENT_EXPIRED, false);
        return 0;
    }
    return perf__shard_ask(shard, ref, parts) ? 0 : ref;
}

void perf__shard_tell_watchers(struct perf__shard *shard, const struct perf__key *key,
                               const struct perf__watch *except)
{
    if (!shard->watch_count)
        return;
    for (struct perf__watch *w = shard->watches[key->hash % PERF__WATCH_LISTS]; w; w = w->next)
        if (w->hash == key->hash && w != except)
            atomic_store_explicit(&w->moved, true, memory_order_release);
}

/* ------------------------------------------------------------ making room */

/* Moves an entry to another slot, for compaction. */
static bool relocate(void *ctx, uint32_t old_ref, uint32_t new_ref)
{
    struct perf__shard *shard = ctx;
    struct perf__entry *from = perf__entry_at(shard, old_ref), *to = perf__entry_at(shard, new_ref);
    size_t size = perf__slab_size_at(&shard->slab, old_ref);
#ifndef PERF__TSAN
    atomic_thread_fence(memory_order_release); /* as in write_new */
#endif
    perf__racy_write(to, from, size);
    perf__policy_move(&shard->policy, old_ref, new_ref);
    if (perf__entry_flags(to) & PERF__ENTRY_EXTENDED)
        perf__wheel_move(&shard->wheel, old_ref, new_ref);
    perf__index_replace(&shard->index, to->node.hash, old_ref, new_ref);
    return true;
}

/* Evicts one entry by the policy. False when there is none. */
static bool evict(struct perf__shard *shard)
{
    uint32_t victim = perf__policy_victim(&shard->policy);
    if (!victim)
        return false;
    perf__shard_drop(shard, victim, PERF_EVENT_EVICTED, true);
    return true;
}

/* Makes room for one slot of size bytes; false when the work of one call was not enough. *moved
 * becomes true when entries had to go or to move for it. */
static bool make_room(struct perf__shard *shard, size_t size, bool *moved)
{
    /* Compaction is tried when the free slots of all spans add up to twice what is wanted. */
    const size_t worth_it = size > PERF__SLOT_MAX ? 2 * size : (size_t)32 << 10;
    size_t evictions = EVICTIONS_MAX + size / EVICTION_SIZE, compactions = COMPACTIONS_MAX;
    for (;;) {
        size_t limit = slab_limit(shard);
        perf__slab_trim(&shard->slab, limit);
        if (perf__slab_has_room(&shard->slab, size, limit))
            return true;
        *moved = true;
        if (compactions && perf__slab_free_bytes(&shard->slab) >= worth_it &&
            perf__slab_compact(&shard->slab, relocate, shard)) {
            compactions--;
            continue;
        }
        if (!evictions-- || !evict(shard))
            return perf__slab_has_room(&shard->slab, size, slab_limit(shard));
    }
}

/* ---------------------------------------------------------------- writing */

static bool needs_extension(const struct perf__key *key, const struct perf__write *w)
{
    return w->dead_at != PERF__NEVER || w->tags_len || w->weight != 1 || w->kind ||
           key->key_len > UINT8_MAX || w->len > UINT16_MAX;
}

static size_t size_needed(const struct perf__key *key, const struct perf__write *w)
{
    return sizeof(struct perf__entry) +
           (needs_extension(key, w) ? sizeof(struct perf__extension) : 0) +
           (key->user_len ? 1u + key->user_len : 0) + key->key_len + w->tags_len + w->len;
}

/* Writes all of an entry but its node and links. Readers may be looking. */
static void fill(struct perf__shard *shard, struct perf__entry *e, const struct perf__key *key,
                 int64_t now, const struct perf__write *w, uint64_t version)
{
    int64_t stamp = w->stamp - shard->tier->epoch;
    if (stamp < 0)
        stamp = 0;
    bool extended = needs_extension(key, w);
    unsigned char *at = (unsigned char *)(e + 1);
    atomic_store_explicit(&e->a, version << 24 | (uint64_t)key->ns << 8 | (uint8_t)key->key_len,
                          memory_order_relaxed);
    atomic_store_explicit(&e->b, (uint64_t)stamp << 24 | (uint64_t)(uint16_t)w->len << 8,
                          memory_order_relaxed);
    if (extended) {
        struct perf__extension *x = perf__entry_extension(e);
        bool ends = w->dead_at != PERF__NEVER;
        atomic_store_explicit(&x->fresh_until, w->fresh_until, memory_order_relaxed);
        atomic_store_explicit(&x->dead_at, w->dead_at, memory_order_relaxed);
        atomic_store_explicit(&x->born, ends ? now : 0, memory_order_relaxed);
        atomic_store_explicit(&x->value_len, (uint32_t)w->len, memory_order_relaxed);
        atomic_store_explicit(&x->load_ms, w->load_ms, memory_order_relaxed);
        atomic_store_explicit(&x->key_len, (uint16_t)key->key_len, memory_order_relaxed);
        atomic_store_explicit(&x->tags_len, (uint16_t)w->tags_len, memory_order_relaxed);
        atomic_store_explicit(&x->kind, w->kind, memory_order_relaxed);
        x->weight = w->weight > UINT32_MAX ? UINT32_MAX : (uint32_t)w->weight;
        x->wheel_slot = 0;
        at += sizeof *x;
    }
    if (key->user_len) {
        perf__racy_write(at, &key->user_len, 1);
        perf__racy_write(at + 1, key->user, key->user_len);
        at += 1 + key->user_len;
    }
    perf__racy_write(at, key->key, key->key_len);
    at += key->key_len;
    if (w->tags_len)
        perf__racy_write(at, w->tags, w->tags_len);
    at += w->tags_len;
    if (w->len)
        perf__racy_write(at, w->data, w->len);
}

static uint32_t flags_for(const struct perf__key *key, const struct perf__write *w)
{
    return (uint32_t)(needs_extension(key, w) ? PERF__ENTRY_EXTENDED : 0) |
           (uint32_t)(key->user_len ? PERF__ENTRY_USER : 0);
}

static void schedule(struct perf__shard *shard, uint32_t ref, const struct perf__write *w)
{
    if (w->dead_at != PERF__NEVER)
        perf__wheel_add(&shard->wheel, ref);
}

/* The bounds by entries and by weight: the newest may be what has to go. */
static void keep_bounds(struct perf__shard *shard)
{
    while (((shard->max_entries && shard->index.entries > shard->max_entries) ||
            (shard->max_weight && shard->weight > shard->max_weight)) &&
           evict(shard)) {
    }
}

/* Same slot, new bytes. */
static void overwrite(struct perf__shard *shard, uint32_t ref, const struct perf__key *key,
                      int64_t now, const struct perf__write *w, uint64_t version)
{
    struct perf__entry *e = perf__entry_at(shard, ref);
    uint32_t old_charge = charge_of(shard, ref);
    if (perf__entry_flags(e) & PERF__ENTRY_EXTENDED)
        perf__wheel_remove(&shard->wheel, ref);
    struct perf__bucket *bucket = perf__index_lock(&shard->index, e->node.hash);
    fill(shard, e, key, now, w, version);
    perf__index_unlock(bucket);
    schedule(shard, ref, w);
    shard->weight += charge_of(shard, ref) - old_charge;
    perf__policy_update(&shard->policy, ref, old_charge);
}

static void count_in(struct perf__shard *shard, uint32_t ref, uint16_t ns)
{
    struct perf__memory_ns_counts *counts = counts_of(shard, ns);
    counts->entries++;
    counts->bytes += perf__slab_size_at(&shard->slab, ref);
    shard->weight += charge_of(shard, ref);
}

/* Puts the entry at ref, which is filled but for its node, into the place of old: readers find
 * one or the other, and the policy goes on with what it knows. */
static void take_place(struct perf__shard *shard, uint32_t old, uint32_t ref, int reason)
{
    struct perf__entry *from = perf__entry_at(shard, old), *to = perf__entry_at(shard, ref);
    struct perf__parts parts;
    uint32_t old_charge = charge_of(shard, old);
    uint32_t flags = perf__entry_flags(to) & ~(uint32_t)PERF__META_POLICY;
    parts_of(shard, old, &parts);
    report(shard, old, &parts, reason);
    if (perf__entry_flags(from) & PERF__ENTRY_EXTENDED)
        perf__wheel_remove(&shard->wheel, old);
    to->node.next = from->node.next;
    to->node.prev = from->node.prev;
    atomic_store_explicit(&to->node.meta, flags | (perf__entry_flags(from) & PERF__META_POLICY),
                          memory_order_relaxed);
    perf__index_replace(&shard->index, to->node.hash, old, ref);
    perf__policy_move(&shard->policy, old, ref);
    shard->weight -= old_charge;
    perf__slab_free(&shard->slab, old);
    perf__policy_update(&shard->policy, ref, old_charge);
}

/* A new slot for the key, in the place of the one it has, if any. */
static int write_new(struct perf__shard *shard, uint32_t old, const struct perf__key *key,
                     int64_t now, const struct perf__write *w, size_t size, uint64_t version)
{
    struct perf__parts parts;
    bool moved = false;
    int reason = w->mode == PERF__SET_NEW_LIFE ? 0 : PERF_EVENT_REPLACED;
    uint32_t ref = make_room(shard, size, &moved)
                       ? perf__slab_alloc(&shard->slab, size, slab_limit(shard))
                       : 0;
    if (moved)
        old = lookup(shard, key, &parts);
    if (!ref) {
        if (old)
            perf__shard_drop(shard, old, reason, false);
        return perf__fail_nomem("an entry; the memory tier is too full of larger or held ones");
    }
    struct perf__entry *e = perf__entry_at(shard, ref);
#ifndef PERF__TSAN
    /* Whoever sees these bytes also sees that the bucket which led here has changed. */
    atomic_thread_fence(memory_order_release);
#endif
    e->node.hash = (uint32_t)key->hash;
    atomic_store_explicit(&e->node.meta, flags_for(key, w), memory_order_relaxed);
    fill(shard, e, key, now, w, version);
    if (old) {
        take_place(shard, old, ref, reason);
    } else if (perf__index_add(&shard->index, shard->base, e->node.hash, perf__index_tag(key->hash),
                               ref)) {
        perf__slab_free(&shard->slab, ref);
        return perf__fail_nomem("the index of the memory tier");
    } else {
        perf__policy_insert(&shard->policy, ref);
    }
    count_in(shard, ref, key->ns);
    schedule(shard, ref, w);
    keep_bounds(shard);
    /* Room for the next one of this size is made now, so that the policy could choose the new
     * entry too: admission and eviction are one decision. */
    if (!perf__slab_has_room(&shard->slab, size, slab_limit(shard)))
        evict(shard);
    return PERF_OK;
}

int perf__shard_put(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                    const struct perf__write *w, uint64_t *version)
{
    struct perf__parts parts = {0};
    if (w->watch && atomic_load_explicit(&w->watch->moved, memory_order_relaxed))
        return PERF_ECONFLICT;
    perf__shard_expire(shard, now, EXPIRE_STEPS);
    uint32_t old = perf__shard_find(shard, key, now, &parts);
    if (!w->is_copy)
        perf__shard_tell_watchers(shard, key, w->watch);
    if (w->mode == PERF_SET_IF_ABSENT && old)
        return PERF_EEXISTS;
    if (w->mode >= PERF_SET_IF_PRESENT && !old)
        return PERF_MISS;
    if (w->mode == PERF_SET_IF_VERSION && parts.version != w->version)
        return PERF_ECONFLICT;
    size_t size = size_needed(key, w);
    if (size > shard->max_bytes / 2 || w->len > UINT32_MAX ||
        (shard->max_weight && w->weight > shard->max_weight)) {
        if (old)
            perf__shard_drop(shard, old, PERF_EVENT_REPLACED, false);
        return perf__fail(PERF_ETOOBIG,
                          "value is %zu bytes long; this cache takes entries up to %zu bytes (half "
                          "of a shard): raise memory_max_bytes or lower memory_shards",
                          w->len, (size_t)shard->max_bytes / 2);
    }
    if (!counts_of(shard, key->ns)) {
        if (old)
            perf__shard_drop(shard, old, PERF_EVENT_REPLACED, false);
        return perf__fail_nomem("the counts of a namespace");
    }
    *version = parts.version;
    if (w->mode != PERF__SET_NEW_LIFE)
        *version = shard->version = (shard->version + 1) & 0xffffffffffu;
    int rc = PERF_OK;
    bool events =
        atomic_load_explicit(&shard->tier->event_mask, memory_order_relaxed) & PERF_EVENT_REPLACED;
    if (old && !events && !perf__slab_pinned(&shard->slab, old) &&
        perf__slab_slot_size(&shard->slab, size) == perf__slab_size_at(&shard->slab, old) &&
        (perf__entry_flags(perf__entry_at(shard, old)) &
         (PERF__ENTRY_EXTENDED | PERF__ENTRY_USER)) == flags_for(key, w)) {
        overwrite(shard, old, key, now, w, *version);
        keep_bounds(shard);
    } else {
        rc = write_new(shard, old, key, now, w, size, *version);
    }
    return rc;
}

bool perf__shard_overwrite_plain(struct perf__shard *shard, const struct perf__plain *want,
                                 int64_t stamp)
{
    struct perf__memory_tier *tier = shard->tier;
    if (shard->watch_count ||
        atomic_load_explicit(&tier->event_mask, memory_order_relaxed) & PERF_EVENT_REPLACED)
        return false;
    struct perf__bucket *bucket = perf__memory_spot(tier, want->hash).bucket;
    uint32_t hits = perf__bucket_match(bucket, perf__index_tag(want->hash));
    for (; hits; hits &= hits - 1) {
        struct perf__entry *e = perf__memory_slot(shard, bucket, hits);
        unsigned char *key = (unsigned char *)(e + 1);
        uint64_t a = atomic_load_explicit(&e->a, memory_order_relaxed);
        uint64_t b = atomic_load_explicit(&e->b, memory_order_relaxed);
        if ((a & 0xffffff) != want->header || (uint16_t)(b >> 8) != want->cap ||
            perf__entry_flags(e) & (PERF__ENTRY_EXTENDED | PERF__ENTRY_USER) ||
            !perf__racy_equal(key, want->key, want->key_len) ||
            (int64_t)(b >> 24) <= atomic_load_explicit(&tier->suspect, memory_order_acquire))
            continue;
        shard->version = (shard->version + 1) & 0xffffffffffu;
        perf__index_begin(bucket);
        atomic_store_explicit(&e->a, shard->version << 24 | want->header, memory_order_relaxed);
        atomic_store_explicit(&e->b,
                              (uint64_t)(stamp - tier->epoch) << 24 | (uint64_t)want->cap << 8,
                              memory_order_relaxed);
        perf__racy_write(key + want->key_len, want->buf, want->cap);
        perf__index_end(bucket);
        perf__policy_hit(&shard->policy, &e->node);
        return true;
    }
    return false;
}

/* ----------------------------------------------------------------- upkeep */

int64_t perf__shard_expire(struct perf__shard *shard, int64_t now, int64_t budget)
{
    int64_t left = budget;
    uint32_t ref;
    if (!shard->wheel.count && shard->wheel.tick > now >> PERF__WHEEL_TICK_SHIFT)
        return 0;
    int64_t done = 0;
    while ((ref = perf__wheel_expired(&shard->wheel, now, &left))) {
        perf__shard_drop(shard, ref, PERF_EVENT_EXPIRED, false);
        done++;
        left--;
    }
    /* Turning an empty wheel is no work done. */
    return left <= 0 && shard->wheel.count ? budget : done;
}

int64_t perf__shard_sweep(struct perf__shard *shard, int64_t budget)
{
    int64_t suspect = atomic_load_explicit(&shard->tier->suspect, memory_order_acquire), done = 0;
    if (shard->swept_for >= suspect)
        return 0;
    if (shard->sweep_for != suspect) {
        shard->sweep_for = suspect;
        shard->sweep_at = 0;
    }
    for (; done < budget; done++) {
        uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
        if (shard->sweep_at >= (uint32_t)shape + (uint32_t)(shape >> 32)) {
            shard->swept_for = suspect;
            break;
        }
        struct perf__bucket *b = &shard->index.buckets[shard->sweep_at++];
        /* Dropping an entry may free a spare bucket: first the references, then the questions. */
        uint32_t refs[64], n = 0;
        for (; b; b = perf__bucket_next(&shard->index, b))
            for (int i = 0; i < PERF__BUCKET_SLOTS && n < 64; i++)
                if (atomic_load_explicit(&b->tags[i], memory_order_relaxed))
                    refs[n++] = atomic_load_explicit(&b->refs[i], memory_order_relaxed);
        for (uint32_t i = 0; i < n; i++) {
            struct perf__parts parts;
            if (parts_of(shard, refs[i], &parts))
                perf__shard_ask(shard, refs[i], &parts);
        }
    }
    return done;
}
