/* SPDX-License-Identifier: MIT */
/*
 * subject_floor.c - the limit: a read-only table without any synchronisation, expiry,
 * eviction or bookkeeping, over the same entries.
 *
 * Variants (the first argument):
 *   floor           open addressing with linear probing, at most half full; a slot of 8 bytes
 *                   holds a 16-bit tag and the number of an entry. Huge pages.
 *   floor-inline    the entries lie in the slots themselves: one miss instead of two, which
 *                   only works when all keys and values have one size.
 *   floor-4k        floor on ordinary pages.
 *   floor-single    floor; the driver's name for it when keys are asked one by one in a case
 *                   about batches.
 *   floor-prefetch  floor; a batch prefetches the slots, then the entries, then copies.
 */
#include "subject.h"

struct entry {
    struct bench_key key;
    struct bench_value value;
};

static struct {
    uint64_t *slots; /* tag << 48 | number + 1; 0 is empty */
    struct entry *entries;
    uint64_t mask;
    uint64_t count;
    int in_slots;
    int prefetch;
} table;

static void *map_pages(size_t size, int huge)
{
    const size_t align = (size_t)2 << 20;
    char *p = mmap(NULL, size + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        bench_die("mmap");
    }
    p += (align - (uintptr_t)p % align) % align;
    if (madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0) {
        perror("madvise"); /* a kernel without huge pages: still a floor */
    }
    return p;
}

static void subject_open(const struct bench *b)
{
    int huge = strcmp(b->subject, "floor-4k") != 0;
    uint64_t slots = 16;
    while (slots < 2 * (uint64_t)b->keys) {
        slots *= 2;
    }
    table.mask = slots - 1;
    table.in_slots = strcmp(b->subject, "floor-inline") == 0;
    table.prefetch = strcmp(b->subject, "floor-prefetch") == 0;
    if (!table.in_slots) {
        table.slots = map_pages(slots * sizeof *table.slots, huge);
    }
    table.entries = map_pages((table.in_slots ? slots : b->keys) * sizeof *table.entries, huge);
}

static inline uint64_t hash_key(const struct bench_key *key)
{
    __extension__ typedef unsigned __int128 wide;
    wide product =
        (wide)(key->word[0] ^ 0xa0761d6478bd642fULL) * (key->word[1] ^ 0xe7037ed1a0b428dbULL);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline int same_key(const struct bench_key *a, const struct bench_key *b)
{
    return ((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1])) == 0;
}

static inline struct entry *find(const struct bench_key *key, uint64_t hash)
{
    if (table.in_slots) {
        for (uint64_t i = hash & table.mask;; i = (i + 1) & table.mask) {
            struct entry *e = &table.entries[i];
            if (same_key(&e->key, key)) {
                return e;
            }
            if ((e->key.word[0] | e->key.word[1]) == 0) {
                return NULL;
            }
        }
    }
    for (uint64_t i = hash & table.mask; table.slots[i] != 0; i = (i + 1) & table.mask) {
        uint64_t slot = table.slots[i];
        if (slot >> 48 == hash >> 48) {
            struct entry *e = &table.entries[(slot & 0xffffffffffffU) - 1];
            if (same_key(&e->key, key)) {
                return e;
            }
        }
    }
    return NULL;
}

static inline int copy_out(const struct entry *e, struct bench_value *out)
{
    if (e == NULL) {
        return 0;
    }
    *out = e->value;
    return 1;
}

static int subject_get(const struct bench_key *key, struct bench_value *out)
{
    return copy_out(find(key, hash_key(key)), out);
}

static void subject_get_batch(const struct bench_key *keys, struct bench_value *out, int *found)
{
    if (!table.prefetch) {
        for (int i = 0; i < BENCH_BATCH; i++) {
            found[i] = subject_get(&keys[i], &out[i]);
        }
        return;
    }
    uint64_t hashes[BENCH_BATCH];
    for (int i = 0; i < BENCH_BATCH; i++) {
        hashes[i] = hash_key(&keys[i]);
        __builtin_prefetch(&table.slots[hashes[i] & table.mask]);
    }
    for (int i = 0; i < BENCH_BATCH; i++) {
        /* The first slot with the right tag is nearly always the one; if not, only time is lost. */
        uint64_t at = hashes[i] & table.mask;
        while (table.slots[at] != 0 && table.slots[at] >> 48 != hashes[i] >> 48) {
            at = (at + 1) & table.mask;
        }
        if (table.slots[at] != 0) {
            const char *e = (const char *)&table.entries[(table.slots[at] & 0xffffffffffffU) - 1];
            __builtin_prefetch(e);
            __builtin_prefetch(e + sizeof(struct entry) - 1);
        }
    }
    for (int i = 0; i < BENCH_BATCH; i++) {
        found[i] = copy_out(find(&keys[i], hashes[i]), &out[i]);
    }
}

static void subject_set(const struct bench_key *key, const struct bench_value *value)
{
    uint64_t hash = hash_key(key);
    uint64_t i = hash & table.mask;
    struct entry *e;
    if (table.in_slots) {
        while ((table.entries[i].key.word[0] | table.entries[i].key.word[1]) != 0) {
            i = (i + 1) & table.mask;
        }
        e = &table.entries[i];
    } else {
        while (table.slots[i] != 0) {
            i = (i + 1) & table.mask;
        }
        e = &table.entries[table.count++];
        table.slots[i] = (hash >> 48) << 48 | table.count;
    }
    e->key = *key;
    e->value = *value;
}

int main(int argc, char **argv)
{
    return bench_main(argc, argv);
}
