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
#include "quiesce.h"
#include "shard.h"
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

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

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

/* Counts a use; the entry may be gone by now. */
static __attribute__((noinline)) void count_use(const struct sight *s, uint32_t meta)
{
    if (!perf__quiesce_begin())
        return;
    if (atomic_load_explicit(&s->bucket->version, memory_order_relaxed) == s->version)
        perf__policy_count_use(&s->entry->node, meta);
    perf__quiesce_end();
}

/* Tells the policy. */
static inline void count_hit(struct perf__shard *shard, const struct sight *s, uint32_t hash)
{
    uint32_t meta = atomic_load_explicit(&s->entry->node.meta, memory_order_relaxed);
    if (__builtin_expect(perf__policy_wants_hit(meta), 0))
        count_use(s, meta);
    perf__policy_note(&shard->policy, hash);
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

bool perf__memory_get_plain(struct perf__memory_tier *tier, const struct perf__key *key, void *buf,
                            size_t cap, size_t *len)
{
    struct perf__shard *shard = perf__shard_of(tier, key->hash);
    uint32_t hash = (uint32_t)key->hash;
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_acquire);
    struct sight s;
    if (key->key_len > UINT8_MAX)
        return false;
    s.bucket = &shard->index.buckets[perf__index_place(shape, hash)];
    s.version = atomic_load_explicit(&s.bucket->version, memory_order_acquire);
    /* One comparison for namespace and key length. */
    uint64_t header = (uint64_t)key->ns << 8 | key->key_len;
    uint8_t tag = perf__index_tag(key->hash);
    const struct perf__bucket *bucket = s.bucket;
    for (int links = 4; bucket && links;
         bucket = perf__bucket_next(&shard->index, bucket), links--) {
        for (uint32_t hits = perf__bucket_match(bucket, tag); hits; hits &= hits - 1) {
            uint32_t ref =
                atomic_load_explicit(&bucket->refs[__builtin_ctz(hits)], memory_order_relaxed);
            struct perf__entry *e = s.entry = perf__entry_at(shard, ref);
            const unsigned char *at = (const unsigned char *)(e + 1);
            if (at > shard->limit)
                return false;
            uint64_t a = atomic_load_explicit(&e->a, memory_order_relaxed);
            uint64_t b = atomic_load_explicit(&e->b, memory_order_relaxed);
            uint32_t meta = perf__entry_flags(e);
            size_t size = (uint16_t)(b >> 8);
            if ((a & 0xffffff) != header || meta & (PERF__ENTRY_EXTENDED | PERF__ENTRY_USER) ||
                key->key_len + size > (size_t)(shard->limit - at) ||
                !perf__racy_equal(at, key->key, key->key_len))
                continue;
            if ((int64_t)(b >> 24) <= atomic_load_explicit(&tier->suspect, memory_order_acquire) ||
                size > cap)
                return false;
            perf__racy_read(buf, at + key->key_len, size);
            if (s.version % 2 || !still_whole(&s))
                return false;
            if (__builtin_expect(perf__policy_wants_hit(meta), 0))
                count_use(&s, meta);
            perf__policy_note(&shard->policy, hash);
            *len = size;
            return true;
        }
    }
    return false;
}

static int copy_locked(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                       void *buf, size_t cap, size_t *len, struct perf__hit *hit)
{
    struct perf__parts parts;
    int rc = PERF_MISS;
    pthread_mutex_lock(&shard->mutex);
    uint32_t ref = perf__shard_find(shard, key, now, &parts);
    if (ref) {
        describe(hit, &parts);
        *len = parts.value_len;
        rc = parts.value_len <= cap ? PERF_OK : PERF_ETOOSMALL;
        if (rc == PERF_OK && parts.value_len)
            memcpy(buf, parts.value, parts.value_len);
        perf__policy_hit(&shard->policy, &perf__entry_at(shard, ref)->node);
    }
    pthread_mutex_unlock(&shard->mutex);
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
        pause_briefly();
    }
    return copy_locked(shard, key, now, buf, cap, len, hit);
}

/* ----------------------------------------------------------------- values */

static void unpin(void *owner, uint64_t pin)
{
    struct perf__shard *shard = owner;
    struct perf__memory_tier *tier = shard->tier;
    pthread_mutex_lock(&shard->mutex);
    perf__slab_unpin(&shard->slab, (uint32_t)pin);
    pthread_mutex_unlock(&shard->mutex);
    perf__memory_unref(tier);
}

/* Pins or copies under the lock. */
static int value_locked(struct perf__shard *shard, const struct perf__key *key, int64_t now,
                        perf_value **out, struct perf__hit *hit)
{
    struct perf__parts parts;
    int rc = PERF_MISS;
    pthread_mutex_lock(&shard->mutex);
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
    pthread_mutex_unlock(&shard->mutex);
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
        pause_briefly();
    }
    return value_locked(shard, key, now, out, hit);
}

/* --------------------------------------------------------------- prefetch */

void perf__memory_prefetch_bucket(struct perf__memory_tier *tier, const struct perf__key *key)
{
    const struct perf__shard *shard = perf__shard_of(tier, key->hash);
    uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
    __builtin_prefetch(&shard->index.buckets[perf__index_place(shape, (uint32_t)key->hash)], 1);
}

void perf__memory_prefetch(struct perf__memory_tier *tier, const struct perf__key *keys,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct perf__shard *shard = perf__shard_of(tier, keys[i].hash);
        uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
        __builtin_prefetch(&shard->index.buckets[perf__index_place(shape, (uint32_t)keys[i].hash)]);
    }
    for (size_t i = 0; i < count; i++) {
        const struct perf__shard *shard = perf__shard_of(tier, keys[i].hash);
        uint64_t shape = atomic_load_explicit(&shard->index.shape, memory_order_relaxed);
        const struct perf__bucket *b =
            &shard->index.buckets[perf__index_place(shape, (uint32_t)keys[i].hash)];
        uint32_t hits = perf__bucket_match(b, perf__index_tag(keys[i].hash));
        if (!hits)
            continue;
        uint32_t ref = atomic_load_explicit(&b->refs[__builtin_ctz(hits)], memory_order_relaxed);
        const char *entry = (const char *)perf__entry_at(shard, ref);
        __builtin_prefetch(entry);
        __builtin_prefetch(entry + 64);
    }
}
