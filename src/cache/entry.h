/* SPDX-License-Identifier: MIT */
/*
 * entry.h - the bytes of one entry, and how to read them while somebody writes.
 *
 * An entry lies in a block of its shard's arena:
 *
 *     header 40 | pin 8 | life 32 | more 16 | user 1 + n | key | value | tags
 *
 * where only header, key and value are always there; the flags say which others
 * are. References are offsets from the arena's base in units of 8 bytes.
 *
 * Readers take no lock (a seqlock: Lameter, "Effective synchronization on
 * Linux/NUMA systems", 2005; Boehm, "Can seqlocks get along with programming
 * language memory models?", MSPC 2012). They read blocks that a writer may be
 * changing, or that already belong to another entry, and find out afterwards
 * by the bucket's version. Until then nothing read may be trusted: lengths are
 * checked against the arena, which stays mapped for the life of the tier. In
 * the C memory model such plain reads are races; single fields are read as
 * relaxed atomics, bytes are copied as the compiler likes, since per-byte
 * atomics would cost more than the lookup. ThreadSanitizer is told by reading
 * through functions that it does not instrument: what it would report is the
 * trick itself, and tests with values that verify themselves stand in for it.
 */
#ifndef PERF_CACHE_ENTRY_H
#define PERF_CACHE_ENTRY_H

#include <string.h>

#include "memory_tier.h"
#include "policy.h"

struct perf__entry {
    struct perf__node node; /* hash, the policy's links, meta: its bits and our flags */
    uint64_t version;
    int64_t stamp; /* dead by marks from here on; see perf__shard_dead */
    uint32_t value_len;
    uint16_t key_len;
    uint16_t ns;
};

/* Flags, in the top bits of node.meta. */
enum {
    PERF__HAS_LIFE = 1 << 24,
    PERF__HAS_MORE = 1 << 25,
    PERF__HAS_USER = 1 << 26,
    PERF__HAS_PIN = 1 << 27,  /* the value is large enough to be handed out in place */
    PERF__NEGATIVE = 1 << 28, /* kind */
    PERF__LIVE = 1 << 31,     /* the block holds an entry: a free one has a zero here */
};

/* The one word of pinnable entries. */
struct perf__entry_pin {
    uint32_t pins;     /* handles out, under PERF__DETACHED; atomic */
    uint32_t pages;    /* unused; keeps the rest aligned */
};
#define PERF__DETACHED 0x80000000u /* no longer in the index: the last unpin frees the block */

struct perf__entry_life {
    int64_t fresh_until, dead_at, born;
    uint32_t next, prev; /* timer wheel */
};

struct perf__entry_more {
    uint64_t weight;
    uint32_t load_ms;
    uint32_t tags_len;
};

_Static_assert(sizeof(struct perf__entry) == 40, "every entry pays for this");
_Static_assert(sizeof(struct perf__entry_life) == 32, "no padding");

enum {
    PERF__PIN_MIN = 4097,       /* bytes of value from which it is pinned instead of copied */
    PERF__ARENA_GUARD = 128 << 10, /* mapped behind every arena: a header with the longest key and
                                      user fits, wherever it is thought to begin */
};

static inline struct perf__entry *perf__entry_at(const unsigned char *base, uint32_t ref)
{
    return (struct perf__entry *)(void *)(base + (size_t)ref * 8);
}

/* Offsets by flags. */
static inline size_t perf__entry_life_at(uint32_t flags)
{
    return sizeof(struct perf__entry) +
           (flags & PERF__HAS_PIN ? sizeof(struct perf__entry_pin) : 0);
}

static inline size_t perf__entry_more_at(uint32_t flags)
{
    return perf__entry_life_at(flags) +
           (flags & PERF__HAS_LIFE ? sizeof(struct perf__entry_life) : 0);
}

static inline size_t perf__entry_user_at(uint32_t flags)
{
    return perf__entry_more_at(flags) +
           (flags & PERF__HAS_MORE ? sizeof(struct perf__entry_more) : 0);
}

/* ------------------------------------------------- for holders of the lock */

static inline uint32_t perf__entry_flags(const struct perf__entry *e)
{
    return atomic_load_explicit(&e->node.meta, memory_order_relaxed) & ~(uint32_t)PERF__META_POLICY;
}

static inline struct perf__entry_pin *perf__entry_pin(struct perf__entry *e)
{
    return (struct perf__entry_pin *)(void *)(e + 1);
}

static inline struct perf__entry_life *perf__entry_life(struct perf__entry *e)
{
    return (struct perf__entry_life *)(void *)((unsigned char *)e +
                                               perf__entry_life_at(perf__entry_flags(e)));
}

static inline struct perf__entry_more *perf__entry_more(struct perf__entry *e)
{
    return (struct perf__entry_more *)(void *)((unsigned char *)e +
                                               perf__entry_more_at(perf__entry_flags(e)));
}

/* Where things lie in an entry that does not change. */
struct perf__entry_parts {
    uint32_t flags;
    uint8_t user_len;
    const unsigned char *user, *key, *value, *tags;
    size_t tags_len;
    size_t size; /* of the whole entry */
};

static inline struct perf__entry_parts perf__entry_parts(const struct perf__entry *e)
{
    const unsigned char *start = (const unsigned char *)e;
    struct perf__entry_parts p = {.flags = perf__entry_flags(e)};
    const unsigned char *at = start + perf__entry_user_at(p.flags);
    if (p.flags & PERF__HAS_USER) {
        p.user_len = *at++;
        p.user = at;
        at += p.user_len;
    }
    p.key = at;
    p.value = at + e->key_len;
    p.tags = p.value + e->value_len;
    if (p.flags & PERF__HAS_MORE) {
        struct perf__entry_more more;
        memcpy(&more, start + perf__entry_more_at(p.flags), sizeof more);
        p.tags_len = more.tags_len;
    }
    p.size = (size_t)(p.tags - start) + p.tags_len;
    return p;
}

static inline int64_t perf__entry_dead_at(struct perf__entry *e)
{
    return perf__entry_flags(e) & PERF__HAS_LIFE ? perf__entry_life(e)->dead_at : PERF__NEVER;
}

/* ------------------------------------------------ for readers without one */

#if defined(__SANITIZE_THREAD__)
#define PERF__TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PERF__TSAN 1
#endif
#endif
#ifndef PERF__TSAN
#define PERF__TSAN 0
#endif

#if PERF__TSAN
#define PERF__RACY __attribute__((no_sanitize("thread"), noinline, unused)) static
#else
#define PERF__RACY static inline __attribute__((always_inline))
#endif

/* Orders the racy reads before it before the check of the version after it. ThreadSanitizer
 * knows no fences; the acquire load of the version does there, on the machines it runs on. */
static inline void perf__racy_end(void)
{
#if PERF__TSAN
    __asm__ volatile("" ::: "memory");
#else
    atomic_thread_fence(memory_order_acquire);
#endif
}

/* Orders the taking of a bucket's lock before the writes to what it covers. */
static inline void perf__racy_begin_write(void)
{
#if PERF__TSAN
    __asm__ volatile("" ::: "memory");
#else
    atomic_thread_fence(memory_order_release);
#endif
}

PERF__RACY uint64_t perf__racy64(const void *p)
{
    return *(const volatile uint64_t *)p;
}

PERF__RACY uint32_t perf__racy32(const void *p)
{
    return *(const volatile uint32_t *)p;
}

PERF__RACY uint16_t perf__racy16(const void *p)
{
    return *(const volatile uint16_t *)p;
}

PERF__RACY uint8_t perf__racy8(const void *p)
{
    return *(const volatile uint8_t *)p;
}

typedef uint64_t perf__word __attribute__((aligned(1), may_alias));
typedef uint64_t perf__chunk __attribute__((vector_size(16), aligned(1), may_alias));

/* Are len bytes the same? */
PERF__RACY bool perf__racy_same(const unsigned char *shared, const unsigned char *own, size_t len)
{
#if PERF__TSAN
    for (size_t i = 0; i < len; i++)
        if (((const volatile unsigned char *)shared)[i] != own[i])
            return false;
    return true;
#else
    if (len < 8) {
        for (size_t i = 0; i < len; i++)
            if (shared[i] != own[i])
                return false;
        return true;
    }
    uint64_t differ = 0;
    for (size_t i = 0; i + 8 < len; i += 8)
        differ |= *(const perf__word *)(shared + i) ^ *(const perf__word *)(own + i);
    differ |= *(const perf__word *)(shared + len - 8) ^ *(const perf__word *)(own + len - 8);
    return !differ;
#endif
}

/* Copies len bytes that may change meanwhile. */
PERF__RACY void perf__racy_copy(void *own, const unsigned char *shared, size_t len)
{
    unsigned char *to = own;
#if PERF__TSAN
    for (size_t i = 0; i < len; i++)
        to[i] = ((const volatile unsigned char *)shared)[i];
#else
    /* Short values in line: a call of memcpy costs as much as the copy. */
    if (len - 16 <= 256 - 16) {
        size_t i = 0;
        do {
            *(perf__chunk *)(to + i) = *(const perf__chunk *)(shared + i);
            i += 16;
        } while (i + 16 < len);
        *(perf__chunk *)(to + len - 16) = *(const perf__chunk *)(shared + len - 16);
    } else if (len) {
        memcpy(to, shared, len);
    }
#endif
}

#endif
