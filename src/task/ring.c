/* SPDX-License-Identifier: MIT */
/* ring.c - the memory of a ring. Not thread-safe: before and after its use. */
#include "ring.h"

#include "../base/alloc.h"

int perf__ring_init(struct perf__ring *ring, const perf_allocator *allocator, uint64_t size)
{
    *ring = (struct perf__ring){.mask = size - 1};
    ring->slots = perf__calloc(allocator, (size_t)size, sizeof *ring->slots);
    return ring->slots ? PERF_OK : PERF_ENOMEM;
}

void perf__ring_destroy(struct perf__ring *ring, const perf_allocator *allocator)
{
    perf__free(allocator, ring->slots);
    ring->slots = NULL;
}
