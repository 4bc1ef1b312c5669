/* SPDX-License-Identifier: MIT */
/* index.c - changing the table; all under the shard's lock. See index.h for the idea. */
#include "index.h"

#include <sys/mman.h>

enum { FIRST_SIZE = 16, SPLIT_AT = 6 /* entries a bucket, of ten */ };

static void *reserve(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

int perf__index_open(struct perf__index *index, uint64_t max_entries)
{
    uint64_t max = FIRST_SIZE;
    while (max * SPLIT_AT < max_entries && max < 1u << 30)
        max *= 2;
    memset(index, 0, sizeof *index);
    index->max = (uint32_t)max;
    index->spare_max = (uint32_t)(max / 2 + 64);
    index->buckets = reserve((size_t)index->max * sizeof *index->buckets);
    index->spares = reserve((size_t)index->spare_max * sizeof *index->spares);
    index->spare_used = 1;
    atomic_store(&index->shape, FIRST_SIZE);
    if (!index->buckets || !index->spares) {
        perf__index_close(index);
        return PERF_ENOMEM;
    }
    return PERF_OK;
}

void perf__index_close(struct perf__index *index)
{
    if (index->buckets)
        munmap(index->buckets, (size_t)index->max * sizeof *index->buckets);
    if (index->spares)
        munmap(index->spares, (size_t)index->spare_max * sizeof *index->spares);
    memset(index, 0, sizeof *index);
}

static uint32_t bucket_count(const struct perf__index *index)
{
    uint64_t shape = atomic_load_explicit(&index->shape, memory_order_relaxed);
    return (uint32_t)shape + (uint32_t)(shape >> 32);
}

size_t perf__index_memory(const struct perf__index *index)
{
    return ((size_t)bucket_count(index) + index->spare_used) * sizeof(struct perf__bucket);
}

static struct perf__bucket *home(struct perf__index *index, uint32_t hash)
{
    uint64_t shape = atomic_load_explicit(&index->shape, memory_order_relaxed);
    return &index->buckets[perf__index_place(shape, hash)];
}

struct perf__bucket *perf__index_lock(struct perf__index *index, uint32_t hash)
{
    struct perf__bucket *bucket = home(index, hash);
    perf__index_begin(bucket);
    return bucket;
}

void perf__index_unlock(struct perf__bucket *bucket)
{
    perf__index_end(bucket);
}

/* Puts a reference into a bucket or the spares behind it, taking a new spare at need. The home
 * bucket's version is odd. */
static int put(struct perf__index *index, struct perf__bucket *bucket, uint8_t tag, uint32_t ref)
{
    for (;;) {
        uint32_t empty = perf__bucket_match(bucket, 0);
        if (empty) {
            int slot = __builtin_ctz(empty);
            atomic_store_explicit(&bucket->refs[slot], ref, memory_order_relaxed);
            atomic_store_explicit(&bucket->tags[slot], tag, memory_order_relaxed);
            return PERF_OK;
        }
        struct perf__bucket *next = perf__bucket_next(index, bucket);
        if (!next) {
            uint32_t spare = index->spare_free;
            if (spare)
                index->spare_free =
                    atomic_load_explicit(&index->spares[spare].link, memory_order_relaxed);
            else if (index->spare_used < index->spare_max)
                spare = index->spare_used++;
            else
                return PERF_ENOMEM;
            next = &index->spares[spare];
            atomic_store_explicit(&next->link, 0, memory_order_relaxed);
            atomic_store_explicit(&bucket->link, spare, memory_order_relaxed);
        }
        bucket = next;
    }
}

/* Lets go of the spare buckets behind one that have become empty. */
static void free_empty_spares(struct perf__index *index, struct perf__bucket *bucket)
{
    struct perf__bucket *next;
    while ((next = perf__bucket_next(index, bucket))) {
        if (perf__bucket_match(next, 0) != 0x3ff) {
            bucket = next;
            continue;
        }
        uint32_t spare = (uint32_t)(next - index->spares);
        atomic_store_explicit(&bucket->link,
                              atomic_load_explicit(&next->link, memory_order_relaxed),
                              memory_order_relaxed);
        atomic_store_explicit(&next->link, index->spare_free, memory_order_relaxed);
        index->spare_free = spare;
    }
}

/* Splits the next bucket: what belongs into the new half moves there. */
static void split(struct perf__index *index, const unsigned char *base)
{
    uint64_t shape = atomic_load_explicit(&index->shape, memory_order_relaxed);
    uint32_t size = (uint32_t)shape, at = (uint32_t)(shape >> 32);
    struct perf__bucket *from = &index->buckets[at], *to = &index->buckets[at + size];
    uint64_t next_shape = at + 1 == size ? (uint64_t)2 * size : (uint64_t)(at + 1) << 32 | size;
    perf__index_begin(from);
    perf__index_begin(to);
    for (struct perf__bucket *b = from; b; b = perf__bucket_next(index, b)) {
        for (int i = 0; i < PERF__BUCKET_SLOTS; i++) {
            uint8_t tag = atomic_load_explicit(&b->tags[i], memory_order_relaxed);
            uint32_t ref = atomic_load_explicit(&b->refs[i], memory_order_relaxed);
            if (!tag)
                continue;
            const struct perf__node *node = (const void *)(base + (size_t)ref * 8);
            if (!(node->hash & size))
                continue;
            (void)!put(index, to, tag, ref); /* can_split made sure of spares */
            atomic_store_explicit(&b->tags[i], 0, memory_order_relaxed);
        }
    }
    free_empty_spares(index, from);
    atomic_store_explicit(&index->shape, next_shape, memory_order_release);
    perf__index_end(to);
    perf__index_end(from);
}

/* A split must not run out of spares half way: a bucket has few, far fewer than these. */
static bool can_split(const struct perf__index *index)
{
    return bucket_count(index) < index->max && index->spare_used + 16 < index->spare_max;
}

int perf__index_add(struct perf__index *index, const unsigned char *base, uint32_t hash,
                    uint8_t tag, uint32_t ref)
{
    if (index->entries >= (uint64_t)bucket_count(index) * SPLIT_AT && can_split(index))
        split(index, base);
    struct perf__bucket *bucket = home(index, hash);
    perf__index_begin(bucket);
    int rc = put(index, bucket, tag, ref);
    perf__index_end(bucket);
    index->entries += rc == PERF_OK;
    return rc;
}

/* The bucket and slot of a reference that is in the index. */
static struct perf__bucket *find(struct perf__index *index, struct perf__bucket *bucket,
                                 uint32_t ref, int *slot)
{
    for (; bucket; bucket = perf__bucket_next(index, bucket))
        for (*slot = 0; *slot < PERF__BUCKET_SLOTS; ++*slot)
            if (atomic_load_explicit(&bucket->refs[*slot], memory_order_relaxed) == ref &&
                atomic_load_explicit(&bucket->tags[*slot], memory_order_relaxed))
                return bucket;
    return NULL;
}

void perf__index_remove(struct perf__index *index, uint32_t hash, uint32_t ref)
{
    int slot;
    struct perf__bucket *bucket = home(index, hash), *at = find(index, bucket, ref, &slot);
    if (!at)
        return;
    perf__index_begin(bucket);
    atomic_store_explicit(&at->tags[slot], 0, memory_order_relaxed);
    if (at != bucket)
        free_empty_spares(index, bucket);
    perf__index_end(bucket);
    index->entries--;
}

void perf__index_replace(struct perf__index *index, uint32_t hash, uint32_t old_ref,
                         uint32_t new_ref)
{
    int slot;
    struct perf__bucket *bucket = home(index, hash), *at = find(index, bucket, old_ref, &slot);
    if (!at)
        return;
    perf__index_begin(bucket);
    atomic_store_explicit(&at->refs[slot], new_ref, memory_order_relaxed);
    perf__index_end(bucket);
}
