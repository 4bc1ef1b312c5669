/* SPDX-License-Identifier: MIT */
/*
 * entry.h - an entry in the arena: 32 bytes of header, then what it holds.
 *
 *     header | extension, if any | user length and user, if any | key | tags | value
 *
 * Plain entries (short key and value, no end, no tags) have no extension. All
 * of it may be read while a writer changes it: readers copy first and then ask
 * the bucket's version whether what they copied was whole (see index.h). So
 * every access goes through the relaxed atomics and racy copies below; lengths
 * are checked against the arena before they are used.
 */
#ifndef PERF_CACHE_ENTRY_H
#define PERF_CACHE_ENTRY_H

#include <stdatomic.h>
#include <string.h>

#include "memory_tier.h"
#include "policy.h"

/* The tier's flags, in the high byte of node.meta; fixed for the life of an entry. */
enum { PERF__ENTRY_EXTENDED = 1 << 24, PERF__ENTRY_USER = 1 << 25 };

struct perf__entry {
    struct perf__node node;
    _Atomic uint64_t a; /* version 40 bits | namespace 16 | key length 8 */
    _Atomic uint64_t b; /* stamp 40 bits, ms since the tier's epoch | value length 16 | 8 unused */
};

struct perf__extension {
    _Atomic int64_t fresh_until, dead_at, born;
    uint32_t wheel_next, wheel_prev; /* under the lock */
    _Atomic uint32_t value_len, load_ms;
    uint32_t weight; /* under the lock */
    _Atomic uint16_t key_len, tags_len;
    uint16_t wheel_slot; /* under the lock; 0: not in the wheel */
    _Atomic uint8_t kind;
    uint8_t unused[5];
};

/* An entry's parts as read; the pointers lead into the arena. */
struct perf__parts {
    uint64_t version;
    int64_t stamp;
    uint16_t ns;
    uint8_t user_len;
    uint32_t key_len, tags_len, value_len;
    uint32_t load_ms;
    int64_t fresh_until, dead_at, born;
    uint8_t kind;
    const unsigned char *user, *key, *tags, *value;
};

/*
 * ThreadSanitizer does not know seqlocks: what a reader sees while a writer is at work looks to
 * it like a race, though it is thrown away. Only the functions here, which do such reads and
 * their writes, are hidden from it.
 */
#if defined(__SANITIZE_THREAD__)
#define PERF__TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PERF__TSAN 1
#endif
#endif

#ifdef PERF__TSAN
#define PERF__RACY        __attribute__((no_sanitize("thread"), noinline, unused))
#define PERF__RACY_INLINE PERF__RACY static
PERF__RACY static void perf__racy_write(void *to, const void *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((volatile unsigned char *)to)[i] = ((const volatile unsigned char *)from)[i];
}
PERF__RACY static void perf__racy_read(void *to, const void *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((volatile unsigned char *)to)[i] = ((const volatile unsigned char *)from)[i];
}
PERF__RACY static bool perf__racy_equal(const void *racy, const void *plain, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (((const volatile unsigned char *)racy)[i] != ((const unsigned char *)plain)[i])
            return false;
    return true;
}
#else
#define PERF__RACY_INLINE static inline __attribute__((always_inline))
static inline void perf__racy_read(void *to, const void *from, size_t len)
{
    /* The usual small value: two blocks, overlapping as need be, instead of a call. */
    const unsigned char *f = from;
    unsigned char *t = to;
    if (__builtin_expect(len - 32 <= 64 - 32, 1)) {
        memcpy(t, f, 32);
        memcpy(t + len - 32, f + len - 32, 32);
    } else if (len - 16 <= 32 - 16) {
        memcpy(t, f, 16);
        memcpy(t + len - 16, f + len - 16, 16);
    } else if (len) { /* to may be NULL for nothing */
        memcpy(to, from, len);
    }
}
static inline void perf__racy_write(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
}
static inline bool perf__racy_equal(const void *racy, const void *plain, size_t len)
{
    const unsigned char *r = racy, *p = plain;
    uint64_t a, b, differ = 0;
    if (__builtin_expect(len - 8 > 8, 0)) { /* not the usual key */
        size_t i = 0;
        for (; i + 8 <= len; i += 8) {
            memcpy(&a, r + i, 8);
            memcpy(&b, p + i, 8);
            differ |= a ^ b;
        }
        for (; i < len; i++)
            differ |= r[i] ^ p[i];
        return !differ;
    }
    memcpy(&a, r, 8);
    memcpy(&b, p, 8);
    differ = a ^ b;
    memcpy(&a, r + len - 8, 8);
    memcpy(&b, p + len - 8, 8);
    return !(differ | (a ^ b));
}
#endif

PERF__RACY_INLINE uint32_t perf__entry_flags(const struct perf__entry *e)
{
    return atomic_load_explicit(&e->node.meta, memory_order_relaxed);
}

static inline struct perf__extension *perf__entry_extension(struct perf__entry *e)
{
    return (struct perf__extension *)(e + 1);
}

/* Takes an entry apart. False when the lengths lead beyond limit: garbage, read while it was
 * being changed. */
PERF__RACY_INLINE bool perf__entry_parts(struct perf__entry *e, const unsigned char *limit,
                                         struct perf__parts *p)
{
    uint32_t flags = perf__entry_flags(e);
    uint64_t a = atomic_load_explicit(&e->a, memory_order_relaxed);
    uint64_t b = atomic_load_explicit(&e->b, memory_order_relaxed);
    const unsigned char *at = (const unsigned char *)(e + 1);
    p->version = a >> 24;
    p->ns = (uint16_t)(a >> 8);
    p->key_len = (uint8_t)a;
    p->stamp = (int64_t)(b >> 24);
    p->value_len = (uint16_t)(b >> 8);
    p->tags_len = p->load_ms = 0;
    p->fresh_until = p->dead_at = PERF__NEVER;
    p->born = 0;
    p->kind = PERF__ENTRY_VALUE;
    p->user_len = 0;
    if (flags & PERF__ENTRY_EXTENDED) {
        struct perf__extension *x = perf__entry_extension(e);
        if ((size_t)(limit - at) < sizeof *x)
            return false;
        p->key_len = atomic_load_explicit(&x->key_len, memory_order_relaxed);
        p->value_len = atomic_load_explicit(&x->value_len, memory_order_relaxed);
        p->tags_len = atomic_load_explicit(&x->tags_len, memory_order_relaxed);
        p->load_ms = atomic_load_explicit(&x->load_ms, memory_order_relaxed);
        p->fresh_until = atomic_load_explicit(&x->fresh_until, memory_order_relaxed);
        p->dead_at = atomic_load_explicit(&x->dead_at, memory_order_relaxed);
        p->born = atomic_load_explicit(&x->born, memory_order_relaxed);
        p->kind = atomic_load_explicit(&x->kind, memory_order_relaxed);
        at += sizeof *x;
    }
    if (flags & PERF__ENTRY_USER) {
        if (at >= limit)
            return false;
        perf__racy_read(&p->user_len, at, 1);
        at++;
    }
    size_t left = (size_t)(limit - at);
    if ((uint64_t)p->user_len + p->key_len + p->tags_len + p->value_len > left)
        return false;
    p->user = at;
    p->key = p->user + p->user_len;
    p->tags = p->key + p->key_len;
    p->value = p->tags + p->tags_len;
    return true;
}

static inline bool perf__parts_match(const struct perf__parts *p, const struct perf__key *key)
{
    return p->ns == key->ns && p->user_len == key->user_len && p->key_len == key->key_len &&
           perf__racy_equal(p->key, key->key, key->key_len) &&
           (!key->user_len || perf__racy_equal(p->user, key->user, key->user_len));
}

#endif
