/* SPDX-License-Identifier: MIT */
/*
 * slab.h - the memory of one shard's entries: an arena of pages, cut into spans
 * of equal slots.
 *
 * The arena is reserved address space that stays mapped until the end, so a
 * reader that follows a reference a moment too late reads old bytes, never an
 * unmapped page. What counts against the limit are pages in use, not bytes in
 * use: resident memory cannot exceed the limit by fragmentation. Slots too
 * large to share a span get a run of pages of their own, and only those can be
 * pinned. All under the shard's lock.
 */
#ifndef PERF_CACHE_SLAB_H
#define PERF_CACHE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PERF__PAGE_SHIFT = 12,
    PERF__SLOT_MAX = 8192, /* largest slot that shares a span */
    PERF__SLAB_CLASSES = 72,
    PERF__RUN_LISTS = 65, /* free runs of 1..64 pages, and longer ones */
};

struct perf__span; /* of a page; 32 bytes each */

struct perf__class {
    uint32_t size; /* of a slot; 0 beyond the last class */
    uint32_t span_pages, span_slots;
    uint32_t partial;    /* first page of the spans with free slots, or 0 */
    uint32_t free_slots; /* in all of them */
};

struct perf__slab {
    unsigned char *base;
    size_t bytes;             /* reserved */
    struct perf__span *spans; /* by page */
    uint32_t pages;           /* reserved */
    uint32_t top;             /* pages from here on were never used */
    uint64_t committed;       /* pages that count: in use, or free and resident */
    uint64_t free_committed;  /* of these: in free runs */
    bool freed;               /* since the last perf__quiesce_wait */
    struct perf__class classes[PERF__SLAB_CLASSES];
    uint32_t resident_runs[PERF__RUN_LISTS]; /* free runs whose pages are resident */
    uint32_t returned_runs[PERF__RUN_LISTS]; /* free runs given back to the kernel */
};

/* Mapped behind the arena, so that a read of any entry by 16-bit lengths, even garbage ones, is
 * a read of memory. */
enum { PERF__SLAB_TAIL = 256 << 10 };

/* reserve: bytes of address space. 0 or PERF_ENOMEM. */
int perf__slab_open(struct perf__slab *slab, size_t reserve);
void perf__slab_close(struct perf__slab *slab);

/* Bytes in use: pages, and what describes them. */
size_t perf__slab_memory(const struct perf__slab *slab);

/* What a slot for size bytes really takes. */
size_t perf__slab_slot_size(const struct perf__slab *slab, size_t size);

/* A slot for size bytes as a reference (units of 8 bytes), or 0 when that would take more than
 * limit bytes in all. */
uint32_t perf__slab_alloc(struct perf__slab *slab, size_t size, size_t limit);
void perf__slab_free(struct perf__slab *slab, uint32_t ref);

/* Bytes of the slot at ref. */
size_t perf__slab_size_at(const struct perf__slab *slab, uint32_t ref);

/* Could an allocation of size bytes succeed now? */
bool perf__slab_has_room(const struct perf__slab *slab, size_t size, size_t limit);

/* Bytes in free slots of spans: what compaction could win. */
size_t perf__slab_free_bytes(const struct perf__slab *slab);

/* Gives free runs back to the kernel until at most limit bytes are in use, if there are any. */
void perf__slab_trim(struct perf__slab *slab, size_t limit);

/*
 * Compaction: chooses a sparse span whose slots would fit elsewhere in their class, and calls move
 * for each slot in use with a new slot; move copies and repoints (false: it cannot, the slot
 * stays). True when a span became free.
 */
bool perf__slab_compact(struct perf__slab *slab,
                        bool (*move)(void *ctx, uint32_t old_ref, uint32_t new_ref), void *ctx);

/* Pins of a slot that has pages of its own. */
bool perf__slab_can_pin(const struct perf__slab *slab, uint32_t ref);
void perf__slab_pin(struct perf__slab *slab, uint32_t ref);
/* Frees the slot if it was freed while pinned. */
void perf__slab_unpin(struct perf__slab *slab, uint32_t ref);
bool perf__slab_pinned(const struct perf__slab *slab, uint32_t ref);

#endif
