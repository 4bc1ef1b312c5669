/* SPDX-License-Identifier: MIT */
/* The index against a plain list of what should be in it. */
#include "../../src/base/hash.h"
#include "../../src/cache/index.h"
#include "test.h"

enum { MANY = 20000 };

/* Nodes where the index expects them: 32 bytes each, the reference counts units of 8. */
static struct perf__entry nodes[MANY + 1];

static uint32_t ref_of(uint32_t i)
{
    return (i + 1) * (uint32_t)(sizeof nodes[0] / 8);
}

static uint32_t hash_of(uint32_t i)
{
    return nodes[i + 1].node.hash;
}

static uint8_t tag_of(uint32_t hash)
{
    return perf__index_tag((uint64_t)hash << 32 | hash);
}

/* Is it there, once? */
static bool has(struct perf__index *index, uint32_t hash, uint32_t ref)
{
    uint64_t shape = atomic_load(&index->shape);
    int found = 0;
    const struct perf__bucket *b = &index->buckets[perf__index_place(shape, hash)];
    cr_assert(atomic_load(&b->version) % 2 == 0);
    for (; b; b = perf__bucket_next(index, b))
        for (uint32_t hits = perf__bucket_match(b, tag_of(hash)); hits; hits &= hits - 1)
            found += atomic_load(&b->refs[__builtin_ctz(hits)]) == ref;
    cr_assert(found <= 1);
    return found == 1;
}

static int add(struct perf__index *index, uint32_t i)
{
    return perf__index_add(index, (const unsigned char *)nodes, hash_of(i), tag_of(hash_of(i)),
                           ref_of(i));
}

Test(index, holds_what_was_added_through_all_splits)
{
    struct perf__index index;
    cr_assert_eq(perf__index_open(&index, MANY), 0);
    size_t empty = perf__index_memory(&index);
    for (uint32_t i = 0; i < MANY; i++) {
        nodes[i + 1].node.hash = (uint32_t)perf__mix64(i);
        cr_assert_eq(add(&index, i), 0);
        if (i % 997 == 0)
            for (uint32_t k = 0; k <= i; k++)
                cr_assert(has(&index, hash_of(k), ref_of(k)), "%u of %u", k, i);
    }
    cr_assert_eq(index.entries, MANY);
    cr_assert(perf__index_memory(&index) > 10 * empty);
    cr_assert(perf__index_memory(&index) < 16 * MANY, "bytes for each entry");
    for (uint32_t i = 0; i < MANY; i += 2)
        perf__index_remove(&index, hash_of(i), ref_of(i));
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(has(&index, hash_of(i), ref_of(i)), i % 2 == 1, "%u", i);
    cr_assert_eq(index.entries, MANY / 2);
    perf__index_remove(&index, hash_of(0), ref_of(0)); /* not there: nothing happens */
    cr_assert_eq(index.entries, MANY / 2);
    perf__index_close(&index);
}

Test(index, chains_take_and_return_spare_buckets)
{
    struct perf__index index;
    cr_assert_eq(perf__index_open(&index, 4096), 0);
    uint32_t before = index.spare_used;
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 60; i++) { /* more than a bucket; equal but for the tag */
            nodes[i + 1].node.hash = 5;
            cr_assert_eq(perf__index_add(&index, (const unsigned char *)nodes, 5,
                                         (uint8_t)(1 + i % 255), ref_of(i)),
                         0);
        }
        cr_assert(index.spare_used > before);
        for (uint32_t i = 0; i < 60; i++)
            perf__index_remove(&index, 5, ref_of(59 - i));
        cr_assert_eq(index.entries, 0);
    }
    cr_assert(index.spare_used <= before + 8, "spares are used again, not used up: %u",
              index.spare_used);
    perf__index_close(&index);
}

Test(index, refuses_what_no_longer_fits_and_keeps_the_rest)
{
    struct perf__index index;
    cr_assert_eq(perf__index_open(&index, 64), 0);
    uint32_t held = 0;
    int rc = 0;
    while (held < MANY && rc == 0) { /* all in one chain */
        nodes[held + 1].node.hash = 7;
        rc = add(&index, held);
        held += rc == 0;
    }
    cr_assert_eq(rc, PERF_ENOMEM);
    cr_assert(held >= 64);
    for (uint32_t i = 0; i < held; i++)
        cr_assert(has(&index, 7, ref_of(i)));
    perf__index_remove(&index, 7, ref_of(3));
    cr_assert_eq(add(&index, 3), 0);
    perf__index_close(&index);
}

Test(index, every_change_is_seen_in_the_version)
{
    struct perf__index index;
    cr_assert_eq(perf__index_open(&index, 64), 0);
    nodes[1].node.hash = nodes[2].node.hash = 9;
    struct perf__bucket *b = &index.buckets[perf__index_place(atomic_load(&index.shape), 9)];
    uint64_t last = atomic_load(&b->version);
    cr_assert_eq(add(&index, 0), 0);
    cr_assert(atomic_load(&b->version) > last);
    last = atomic_load(&b->version);
    perf__index_replace(&index, 9, ref_of(0), ref_of(1));
    cr_assert(atomic_load(&b->version) > last);
    cr_assert(has(&index, 9, ref_of(1)) && !has(&index, 9, ref_of(0)));
    last = atomic_load(&b->version);
    cr_assert_eq(perf__index_lock(&index, 9), b);
    cr_assert_eq(atomic_load(&b->version), last + 1);
    perf__index_unlock(b);
    perf__index_remove(&index, 9, ref_of(1));
    cr_assert(atomic_load(&b->version) > last + 2 && atomic_load(&b->version) % 2 == 0);
    perf__index_close(&index);
}
