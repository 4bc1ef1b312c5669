/* SPDX-License-Identifier: MIT */
/*
 * memory_read.c - gets: without the lock as long as no writer is in the way.
 *
 * Read the bucket's version, find the entry, copy what is wanted, and ask the
 * version again: if it is the same, the copy is whole. The lock is taken only
 * after many disturbed tries, for entries that marks may have killed, and to
 * pin a value too large to copy. Any thread.
 */
#include "../base/alloc.h"
#include "../base/status.h"
#include "memory_plain.h"
#include "value.h"

enum { TRIES = 64 };

/* What one look without the lock came to. */
enum look { FOUND, NOT_THERE, DISTURBED, ASK };

struct sight {
    struct perf__bucket *bucket;
    uint64_t version;
    struct perf__entry *entry;
    uint32_t ref;
    struct perf__parts parts;
};

static inline bool still_whole(const struct sight *s)
{
    return perf__bucket_version_again(s->bucket) == s->version;
}

/* Finds the entry. FOUND: parts may be garbage until still_whole says otherwise. */
static inline enum look look(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                             struct sight *s)
{
    uint32_t hash = (uint32_t)key->hash;
    uint8_t tag = perf__index_tag(key->hash);
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_acquire);
    s->bucket = &shard->index.buckets[perf__index_place(shape, hash)];
    s->version = atomic_load_explicit(&s->bucket->version, memory_order_acquire);
    if (s->version % 2)
        return DISTURBED;
    int links = 8; /* a chain read while it changes could be a circle */
    for (const struct perf__bucket *b = s->bucket; b && links;
         b = perf__bucket_next(&shard->index, b), links--) {
        for (uint32_t hits = perf__bucket_match(b, tag); hits; hits &= hits - 1) {
            s->ref = atomic_load_explicit(&b->refs[__builtin_ctz(hits)], memory_order_relaxed);
            s->entry = perf__entry_at(shard, s->ref);
            if ((const unsigned char *)(s->entry + 1) > shard->limit ||
                !perf__entry_parts(s->entry, shard->limit, &s->parts) ||
                !perf__parts_match(&s->parts, key))
                continue;
            if (s->parts.stamp <= atomic_load_explicit(&shard->tier->suspect, memory_order_acquire))
                return ASK;
            return now >= s->parts.dead_at && still_whole(s) ? NOT_THERE : FOUND;
        }
    }
    return links && still_whole(s) &&
                   shape == atomic_load_explicit(&shard->index.shape, memory_order_relaxed)
               ? NOT_THERE
               : DISTURBED;
}

void perf__memory_count_use(struct perf__entry *entry, const struct perf__bucket *bucket,
                            uint64_t version)
{
    if (!perf__quiesce_begin())
        return;
    if (atomic_load_explicit(&bucket->version, memory_order_relaxed) == version) {
        uint32_t meta = atomic_load_explicit(&entry->node.meta, memory_order_relaxed);
        if (perf__policy_wants_hit(meta))
            perf__policy_count_use(&entry->node, meta);
    }
    perf__quiesce_end();
}

bool perf__memory_search_plain(const struct perf__memory_tier *tier, const struct perf__plain *want)
{
    struct perf__spot spot = perf__memory_spot(tier, want->hash);
    spot.version = atomic_load_explicit(&spot.bucket->version, memory_order_acquire);
    const struct perf__bucket *bucket = spot.version % 2 ? NULL : spot.bucket;
    for (int links = 8; bucket && links; links--) {
        uint32_t hits = perf__bucket_match(bucket, perf__index_tag(want->hash));
        for (; hits; hits &= hits - 1)
            if (perf__memory_take(tier, &spot, perf__memory_slot(spot.shard, bucket, hits), want))
                return true;
        bucket = perf__bucket_next(&spot.shard->index, bucket);
    }
    return false;
}

/* Tells the policy. */
static inline void count_hit(struct perf__shard *shard, const struct sight *s, uint32_t hash)
{
    uint32_t meta = perf__entry_flags(s->entry);
    if (__builtin_expect(perf__policy_wants_hit(meta), 0))
        perf__memory_count_use(s->entry, s->bucket, s->version);
    perf__policy_note(&shard->policy, hash, perf__thread_slot());
}

static inline void describe(struct perf__hit *hit, const struct perf__parts *parts)
{
    *hit = (struct perf__hit){.version = parts->version,
                              .fresh_until = parts->fresh_until,
                              .dead_at = parts->dead_at,
                              .born = parts->born,
                              .load_ms = parts->load_ms,
                              .kind = parts->kind};
}

/* ----------------------------------------------------------------- copies */

static int copy_locked(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                       void *buf, size_t cap, size_t *len, struct perf__hit *hit)
{
    struct perf__parts parts;
    int rc = PERF_MISS;
    perf__shard_lock(shard);
    uint32_t ref = perf__shard_find(shard, key, now, &parts);
    if (ref) {
        describe(hit, &parts);
        *len = parts.value_len;
        rc = parts.value_len <= cap ? PERF_OK : PERF_ETOOSMALL;
        if (rc == PERF_OK && parts.value_len)
            memcpy(buf, parts.value, parts.value_len);
        perf__policy_hit(&shard->policy, &perf__entry_at(shard, ref)->node);
    }
    perf__shard_unlock(shard);
    return rc;
}

int perf__memory_get_copy(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                          void *buf, size_t cap, size_t *len, struct perf__hit *hit)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    for (int i = 0; i < TRIES; i++) {
        struct sight s;
        enum look result = look(shard, key, now, &s);
        if (__builtin_expect(result == FOUND, 1)) {
            size_t size = s.parts.value_len;
            bool fits = size <= cap;
            if (fits && size)
                perf__racy_read(buf, s.parts.value, size);
            if (__builtin_expect(still_whole(&s), 1)) {
                count_hit(shard, &s, (uint32_t)key->hash);
                describe(hit, &s.parts);
                *len = size;
                return fits ? PERF_OK : PERF_ETOOSMALL;
            }
        } else if (result == NOT_THERE) {
            return PERF_MISS;
        } else if (result == ASK) {
            break;
        }
        perf__pause();
    }
    return copy_locked(shard, key, now, buf, cap, len, hit);
}

/* ----------------------------------------------------------------- values */

static void unpin(void *owner, uint64_t pin)
{
    struct perf__shard *shard = owner;
    struct perf__memory_tier *tier = shard->tier;
    perf__shard_lock(shard);
    perf__slab_unpin(&shard->slab, (uint32_t)pin);
    perf__shard_unlock(shard);
    perf__memory_unref(tier);
}

/* Pins or copies under the lock. */
static int value_locked(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                        perf_value **out, struct perf__hit *hit)
{
    struct perf__parts parts;
    int rc = PERF_MISS;
    perf__shard_lock(shard);
    uint32_t ref = perf__shard_find(shard, key, now, &parts);
    if (ref) {
        bool pin = perf__slab_can_pin(&shard->slab, ref);
        perf_value *value =
            perf__value_new(&shard->tier->host.allocator, pin ? 0 : parts.value_len);
        rc = value ? PERF_OK : perf__fail_nomem("a value");
        if (value && pin) {
            perf__slab_pin(&shard->slab, ref);
            atomic_fetch_add_explicit(&shard->tier->refs, 1, memory_order_relaxed);
            value->data = parts.value;
            value->len = parts.value_len;
            value->unpin = unpin;
            value->owner = shard;
            value->pin = ref;
        } else if (value && parts.value_len) {
            memcpy(value->bytes, parts.value, parts.value_len);
        }
        if (value) {
            describe(hit, &parts);
            perf__policy_hit(&shard->policy, &perf__entry_at(shard, ref)->node);
            *out = value;
        }
    }
    perf__shard_unlock(shard);
    return rc;
}

int perf__memory_get(struct perf__memory_tier *tier, const struct perf__key *key, int64_t now,
                     perf_value **out, struct perf__hit *hit)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    for (int i = 0; i < TRIES; i++) {
        struct sight s;
        enum look result = look(shard, key, now, &s);
        if (result == FOUND) {
            /* The length must be known to be true before memory is asked for by it. */
            if (!still_whole(&s))
                continue;
            if (s.parts.value_len > PERF__SLOT_MAX)
                break;
            perf_value *value = perf__value_new(&tier->host.allocator, s.parts.value_len);
            if (!value)
                return perf__fail_nomem("a value");
            if (s.parts.value_len)
                perf__racy_read(value->bytes, s.parts.value, s.parts.value_len);
            if (still_whole(&s)) {
                count_hit(shard, &s, (uint32_t)key->hash);
                describe(hit, &s.parts);
                *out = value;
                return PERF_OK;
            }
            perf_value_release(value);
        } else if (result == NOT_THERE) {
            return PERF_MISS;
        } else if (result == ASK) {
            break;
        }
        perf__pause();
    }
    return value_locked(shard, key, now, out, hit);
}
