/* SPDX-License-Identifier: MIT */
/*
 * index.h - from a hash to the entry: buckets of one cache line, read without
 * a lock.
 *
 * A bucket holds ten one-byte tags and ten references; one comparison of the
 * tags finds the candidates, so a lookup that misses touches one line and one
 * that hits two (bucket, entry). Buckets that overflow link to spare ones.
 *
 * Growth is linear hashing (Litwin, "Linear hashing: a new tool for file and
 * table addressing", VLDB 1980): the table lies in reserved address space and
 * grows in place, one bucket split an insertion, so no caller pays for a
 * rehash. Which buckets are split is one word, `shape`.
 *
 * Reading is a seqlock a bucket (Boehm, "Can seqlocks get along with
 * programming language memory models?", MSPC 2012): the version is odd while a
 * writer, who holds the shard's lock, changes the bucket, its spare buckets, or
 * an entry reached through them.
 */
#ifndef PERF_CACHE_INDEX_H
#define PERF_CACHE_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "entry.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { PERF__BUCKET_SLOTS = 10 };

struct perf__bucket {
    _Atomic uint64_t version;
    _Atomic uint32_t refs[PERF__BUCKET_SLOTS];
    _Atomic uint32_t link;                    /* of a spare bucket; 0: none */
    _Atomic uint8_t tags[PERF__BUCKET_SLOTS]; /* 0: the slot is empty */
    uint8_t unused[2];
};
_Static_assert(sizeof(struct perf__bucket) == 64, "a bucket is a cache line");

struct perf__index {
    struct perf__bucket *buckets; /* reserved address space for max */
    struct perf__bucket *spares;  /* from 1; 0 means none */
    _Atomic uint64_t shape;       /* size of the unsplit table, a power of two | split << 32 */
    uint32_t max, spare_max;
    uint32_t spare_used, spare_free; /* high-water mark, and a list through link */
    uint64_t entries;
};

/* Entries at most max_entries. 0 or PERF_ENOMEM. */
int perf__index_open(struct perf__index *index, uint64_t max_entries);
void perf__index_close(struct perf__index *index);

/* Bytes in use: grows with the entries. */
size_t perf__index_memory(const struct perf__index *index);

/* All of the below need the shard's lock, except those that say otherwise. */

/* Adds a reference that is not in it. Splits a bucket now and then. node_at resolves references
 * through base. 0 or PERF_ENOMEM (no spare bucket is left). */
int perf__index_add(struct perf__index *index, const unsigned char *base, uint32_t hash,
                    uint8_t tag, uint32_t ref);
void perf__index_remove(struct perf__index *index, uint32_t hash, uint32_t ref);
void perf__index_replace(struct perf__index *index, uint32_t hash, uint32_t old_ref,
                         uint32_t new_ref);
/* Around changes of an entry's bytes in place. */
struct perf__bucket *perf__index_lock(struct perf__index *index, uint32_t hash);
void perf__index_unlock(struct perf__bucket *bucket);

static inline uint8_t perf__index_tag(uint64_t hash)
{
    uint8_t tag = (uint8_t)(hash >> 32);
    return tag ? tag : 1;
}

/* No lock. */
static inline uint32_t perf__index_place(uint64_t shape, uint32_t hash)
{
    uint32_t size = (uint32_t)shape, at = hash & (size - 1);
    uint32_t is_split = at < (uint32_t)(shape >> 32);
    return at | (hash & size & -is_split); /* no branch: nothing could predict it */
}

/* Readers do not believe what they see of the bucket between these. Under the lock. */
static inline void perf__index_begin(struct perf__bucket *bucket)
{
    uint64_t v = atomic_load_explicit(&bucket->version, memory_order_relaxed);
    atomic_store_explicit(&bucket->version, v + 1, memory_order_relaxed);
#ifndef PERF__TSAN
    atomic_thread_fence(memory_order_release); /* what follows is seen after the odd version */
#endif
}
static inline void perf__index_end(struct perf__bucket *bucket)
{
    uint64_t v = atomic_load_explicit(&bucket->version, memory_order_relaxed);
    atomic_store_explicit(&bucket->version, v + 1, memory_order_release);
}

/* Bits 0..9: the slots with this tag. No lock. */
static inline uint32_t perf__bucket_match(const struct perf__bucket *bucket, uint8_t tag)
{
#if defined(__SSE2__) && !defined(PERF__TSAN)
    /* The last 16 bytes of the line: link, tags, unused. */
    __m128i line = _mm_load_si128((const __m128i *)(const void *)bucket + 3);
    int hits = _mm_movemask_epi8(_mm_cmpeq_epi8(line, _mm_set1_epi8((char)tag)));
    return (uint32_t)hits >> 4 & 0x3ff;
#else
    uint32_t hits = 0;
    for (uint32_t i = 0; i < PERF__BUCKET_SLOTS; i++)
        hits |= (uint32_t)(atomic_load_explicit(&bucket->tags[i], memory_order_relaxed) == tag)
                << i;
    return hits;
#endif
}
_Static_assert(offsetof(struct perf__bucket, link) == 48, "perf__bucket_match reads from here");

/* The bucket behind this one, or NULL. Any value of link leads into mapped memory. No lock. */
static inline struct perf__bucket *perf__bucket_next(const struct perf__index *index,
                                                     const struct perf__bucket *bucket)
{
    uint32_t link = atomic_load_explicit(&bucket->link, memory_order_relaxed);
    return link && link < index->spare_max ? &index->spares[link] : NULL;
}

#ifdef PERF__TSAN /* which knows no fences: a read-modify-write orders as much */
static inline uint64_t perf__bucket_version_again(struct perf__bucket *bucket)
{
    return atomic_fetch_add_explicit(&bucket->version, 0, memory_order_acq_rel);
}
#else
static inline uint64_t perf__bucket_version_again(struct perf__bucket *bucket)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&bucket->version, memory_order_relaxed);
}
#endif

#endif
