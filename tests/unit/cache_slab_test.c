/* SPDX-License-Identifier: MIT */
/* The arena: slots do not overlap, limits hold, pins keep, compaction moves. */
#include "../../src/base/hash.h"
#include "../../src/cache/quiesce.h"
#include "../../src/cache/slab.h"
#include "test.h"

enum { MANY = 4000 };
static const size_t LIMIT = 8 << 20;

static struct slot {
    uint32_t ref; /* 0: none */
    size_t size;
} slots[MANY];
static struct perf__slab slab;

static unsigned char *bytes(uint32_t ref)
{
    return slab.base + (size_t)ref * 8;
}

/* A slot's bytes are the pattern of its number, so that overlaps are seen. */
static void fill(size_t i)
{
    memset(bytes(slots[i].ref), (int)(i * 31 + 7) & 0xff, slots[i].size);
}
static void check(size_t i)
{
    const unsigned char *at = bytes(slots[i].ref), want = (unsigned char)(i * 31 + 7);
    for (size_t k = 0; k < slots[i].size; k += k < 64 ? 1 : 61)
        cr_assert_eq(at[k], want, "byte %zu of slot %zu", k, i);
}

static bool take(size_t i, size_t size)
{
    bool room = perf__slab_has_room(&slab, size, LIMIT);
    perf__slab_trim(&slab, LIMIT);
    slots[i].ref = perf__slab_alloc(&slab, size, LIMIT);
    slots[i].size = size;
    cr_assert(!slots[i].ref || room, "an allocation of %zu that there was no room for", size);
    cr_assert(perf__slab_memory(&slab) <= LIMIT + (1 << 20));
    if (!slots[i].ref)
        return false;
    cr_assert(perf__slab_size_at(&slab, slots[i].ref) >= size);
    cr_assert_eq(perf__slab_size_at(&slab, slots[i].ref), perf__slab_slot_size(&slab, size));
    fill(i);
    return true;
}

static void give(size_t i)
{
    check(i);
    perf__slab_free(&slab, slots[i].ref);
    slots[i].ref = 0;
}

static void open_slab(void)
{
    perf__quiesce_init();
    memset(slots, 0, sizeof slots);
    cr_assert_eq(perf__slab_open(&slab, 256 << 20), 0);
}

Test(slab, slots_of_all_sizes_do_not_overlap_and_the_limit_holds)
{
    open_slab();
    uint64_t random = 1;
    size_t refused = 0;
    for (int n = 0; n < 200000; n++) {
        random = perf__mix64(random + 1);
        size_t i = random % MANY;
        if (slots[i].ref)
            give(i);
        else
            refused += !take(i, 33 + (size_t)((random >> 32) & 0x1ffff) %
                                         ((size_t)1 << (6 + (random >> 20) % 12)));
    }
    cr_assert(refused > 0, "the limit was never reached");
    for (size_t i = 0; i < MANY; i++)
        if (slots[i].ref)
            give(i);
    perf__slab_trim(&slab, 0);
    cr_assert(perf__slab_memory(&slab) < 1 << 20, "all was given back: %zu",
              perf__slab_memory(&slab));
    cr_assert_eq(perf__slab_free_bytes(&slab), 0);
    perf__slab_close(&slab);
}

Test(slab, a_pinned_slot_outlives_its_entry)
{
    open_slab();
    cr_assert(take(0, 100000));
    cr_assert(take(1, 64));
    cr_assert(perf__slab_can_pin(&slab, slots[0].ref) && !perf__slab_can_pin(&slab, slots[1].ref));
    uint32_t pinned = slots[0].ref;
    perf__slab_pin(&slab, pinned);
    perf__slab_pin(&slab, pinned);
    perf__slab_free(&slab, pinned);
    for (size_t i = 2; i < 50; i++)
        cr_assert(take(i, 100000) && slots[i].ref != pinned);
    check(0);
    perf__slab_unpin(&slab, pinned);
    cr_assert(perf__slab_pinned(&slab, pinned));
    size_t before = slab.free_committed;
    perf__slab_unpin(&slab, pinned);
    cr_assert(slab.free_committed > before, "the last pin lets go of the pages");
    perf__slab_close(&slab);
}

static size_t moves, refusals;

static bool move(void *ctx, uint32_t old_ref, uint32_t new_ref)
{
    (void)ctx;
    for (size_t i = 0; i < MANY; i++) {
        if (slots[i].ref != old_ref)
            continue;
        if (refusals && i % 7 == 0)
            return refusals--, false;
        memcpy(bytes(new_ref), bytes(old_ref), slots[i].size);
        slots[i].ref = new_ref;
        moves++;
        return true;
    }
    cr_assert_fail("a slot that nobody has is moved");
    return false;
}

Test(slab, compaction_frees_sparse_spans)
{
    open_slab();
    for (size_t i = 0; i < MANY; i++)
        cr_assert(take(i, 200));
    for (size_t i = 0; i < MANY; i++)
        if (i % 10)
            give(i);
    size_t full = perf__slab_memory(&slab);
    refusals = 3;
    int spans = 0;
    for (int n = 0; n < 1000; n++)
        spans += perf__slab_compact(&slab, move, NULL);
    cr_assert(spans > 10 && moves > 0 && refusals < 3);
    for (size_t i = 0; i < MANY; i++)
        if (slots[i].ref)
            check(i);
    perf__slab_trim(&slab, 0);
    cr_assert(perf__slab_memory(&slab) < full / 4, "%zu of %zu", perf__slab_memory(&slab), full);
    for (size_t i = 0; i < MANY; i++)
        if (slots[i].ref)
            give(i);
    perf__slab_close(&slab);
}
