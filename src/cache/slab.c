/* SPDX-License-Identifier: MIT */
/*
 * slab.c - pages, runs, spans, slots; see slab.h. Under the shard's lock.
 *
 * Free runs of the same kind (resident or returned) are merged with their
 * neighbours; a run is described at its first and its last page.
 */
#include "slab.h"

#include <libperf/types.h>
#include <string.h>
#include <sys/mman.h>

#include "quiesce.h"

enum { PAGE = 1 << PERF__PAGE_SHIFT, NO_CLASS = 255 };

enum page_kind { UNUSED = 0, IN_SPAN, RUN_RESIDENT, RUN_RETURNED };

/* Of a page: at the first page of a span or run everything, at others just start. */
struct perf__span {
    uint32_t start; /* first page of what this page belongs to */
    uint32_t pages;
    uint32_t next, prev; /* in the list of partial spans, or of free runs */
    uint32_t free;       /* first free slot (reference), 0 none; links lie in the slots */
    uint16_t used;       /* slots in use */
    uint8_t kind;
    uint8_t class; /* NO_CLASS: one slot with pages of its own */
    uint32_t pins;
    uint32_t untouched; /* slots from here on were never handed out */
};

/* ---------------------------------------------------------------- opening */

static void make_classes(struct perf__slab *slab)
{
    uint32_t size = 32;
    for (int i = 0; i < PERF__SLAB_CLASSES && size <= PERF__SLOT_MAX; i++) {
        struct perf__class *c = &slab->classes[i];
        c->size = size;
        c->span_pages = size <= 512 ? 4 : size <= 2048 ? 8 : 16;
        c->span_slots = c->span_pages * PAGE / size;
        /* Steps of 8 bytes where entries are small, then of an eighth; slots of the larger
         * classes are chosen so that a span is cut without much rest. */
        uint32_t next = size < 256 ? size + 8 : (size + size / 8 + 15) & ~15u;
        if (next > PERF__SLOT_MAX && size < PERF__SLOT_MAX)
            next = PERF__SLOT_MAX;
        size = next;
    }
}

int perf__slab_open(struct perf__slab *slab, size_t reserve)
{
    memset(slab, 0, sizeof *slab);
    make_classes(slab);
    slab->pages = (uint32_t)(reserve >> PERF__PAGE_SHIFT);
    slab->bytes = (size_t)slab->pages << PERF__PAGE_SHIFT;
    slab->top = 1; /* page 0 stays unused: reference 0 means nothing */
    void *base = mmap(NULL, slab->bytes + PERF__SLAB_TAIL, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *spans = mmap(NULL, slab->pages * sizeof *slab->spans, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    slab->base = base == MAP_FAILED ? NULL : base;
    slab->spans = spans == MAP_FAILED ? NULL : spans;
    if (!slab->base || !slab->spans) {
        perf__slab_close(slab);
        return PERF_ENOMEM;
    }
    /* A huge page would hold memory that nobody uses, and fill what was given back; it made gets
     * faster by less than a twentieth. */
    madvise(slab->base, slab->bytes, MADV_NOHUGEPAGE);
    return PERF_OK;
}

void perf__slab_close(struct perf__slab *slab)
{
    if (slab->base)
        munmap(slab->base, slab->bytes + PERF__SLAB_TAIL);
    if (slab->spans)
        munmap(slab->spans, slab->pages * sizeof *slab->spans);
    memset(slab, 0, sizeof *slab);
}

size_t perf__slab_memory(const struct perf__slab *slab)
{
    return ((size_t)slab->committed << PERF__PAGE_SHIFT) + slab->top * sizeof *slab->spans;
}

/* -------------------------------------------------------------- free runs */

static uint32_t *run_list(struct perf__slab *slab, enum page_kind kind, uint32_t pages)
{
    uint32_t i = pages < PERF__RUN_LISTS ? pages - 1 : PERF__RUN_LISTS - 1;
    return kind == RUN_RESIDENT ? &slab->resident_runs[i] : &slab->returned_runs[i];
}

static void list_add(struct perf__slab *slab, uint32_t *head, uint32_t page)
{
    slab->spans[page].next = *head;
    slab->spans[page].prev = 0;
    if (*head)
        slab->spans[*head].prev = page;
    *head = page;
}

static void list_remove(struct perf__slab *slab, uint32_t *head, uint32_t page)
{
    struct perf__span *span = &slab->spans[page];
    if (span->next)
        slab->spans[span->next].prev = span->prev;
    if (span->prev)
        slab->spans[span->prev].next = span->next;
    else
        *head = span->next;
}

static void run_remove(struct perf__slab *slab, uint32_t page)
{
    struct perf__span *run = &slab->spans[page];
    if (run->kind == RUN_RESIDENT)
        slab->free_committed -= run->pages;
    list_remove(slab, run_list(slab, run->kind, run->pages), page);
}

/* Puts pages into the free runs, merged with neighbours of the same kind. */
static void run_add(struct perf__slab *slab, uint32_t page, uint32_t pages, enum page_kind kind)
{
    struct perf__span *spans = slab->spans;
    uint32_t after = page + pages;
    if (after < slab->top && spans[after].kind == kind && spans[after].start == after) {
        run_remove(slab, after);
        pages += spans[after].pages;
    }
    uint32_t before = spans[page - 1].start;
    if (page > 1 && before && spans[before].kind == kind && before + spans[before].pages == page) {
        run_remove(slab, before);
        pages += spans[before].pages;
        page = before;
    }
    spans[page] = (struct perf__span){.start = page, .pages = pages, .kind = (uint8_t)kind};
    spans[page + pages - 1].start = page;
    if (kind == RUN_RESIDENT)
        slab->free_committed += pages;
    list_add(slab, run_list(slab, kind, pages), page);
}

/* The best free run of at least pages, or 0. */
static uint32_t run_find(struct perf__slab *slab, enum page_kind kind, uint32_t pages)
{
    uint32_t *lists = kind == RUN_RESIDENT ? slab->resident_runs : slab->returned_runs;
    for (uint32_t i = pages < PERF__RUN_LISTS ? pages - 1 : PERF__RUN_LISTS - 1;
         i < PERF__RUN_LISTS; i++) {
        int tries = 16; /* only the last list holds runs of several lengths */
        for (uint32_t run = lists[i]; run && tries--; run = slab->spans[run].next)
            if (slab->spans[run].pages >= pages)
                return run;
    }
    return 0;
}

/* Takes pages from the front of a free run; the rest stays free. */
static uint32_t run_take(struct perf__slab *slab, uint32_t run, uint32_t pages)
{
    uint32_t rest = slab->spans[run].pages - pages;
    enum page_kind kind = slab->spans[run].kind;
    run_remove(slab, run);
    slab->spans[run].kind = IN_SPAN;
    if (rest) {
        slab->spans[run].pages = pages;
        slab->spans[run + pages - 1].start = run;
        run_add(slab, run + pages, rest, kind);
    }
    return run;
}

static void give_back(struct perf__slab *slab, uint32_t run)
{
    uint32_t pages = slab->spans[run].pages;
    run_remove(slab, run);
    madvise(slab->base + ((size_t)run << PERF__PAGE_SHIFT), (size_t)pages << PERF__PAGE_SHIFT,
            MADV_DONTNEED);
    slab->committed -= pages;
    slab->spans[run].kind = UNUSED;
    run_add(slab, run, pages, RUN_RETURNED);
}

void perf__slab_trim(struct perf__slab *slab, size_t limit)
{
    while (slab->free_committed && perf__slab_memory(slab) > limit) {
        uint32_t run = 0;
        for (int i = PERF__RUN_LISTS - 1; !run; i--)
            run = slab->resident_runs[i];
        give_back(slab, run);
    }
}

/* Readers may still be about to count a use in what these pages held. */
static void await_readers(struct perf__slab *slab)
{
    if (slab->freed)
        perf__quiesce_wait();
    slab->freed = false;
}

/* pages in one piece; 0 when there is no room within limit. */
static uint32_t pages_alloc(struct perf__slab *slab, uint32_t pages, size_t limit)
{
    uint32_t run = run_find(slab, RUN_RESIDENT, pages);
    if (run) {
        await_readers(slab);
        return run_take(slab, run, pages);
    }
    size_t more = (size_t)pages << PERF__PAGE_SHIFT;
    if (perf__slab_memory(slab) + more > limit) {
        if (perf__slab_memory(slab) + more >
            limit + ((size_t)slab->free_committed << PERF__PAGE_SHIFT))
            return 0;
        perf__slab_trim(slab, limit - more);
    }
    run = run_find(slab, RUN_RETURNED, pages);
    if (run) {
        await_readers(slab);
        run_take(slab, run, pages);
    } else if (slab->pages - slab->top >= pages) {
        run = slab->top;
        slab->top += pages;
    } else {
        return 0;
    }
    slab->committed += pages;
    return run;
}

/* ------------------------------------------------------------------ slots */

static uint32_t class_of(const struct perf__slab *slab, size_t size)
{
    if (size <= 256)
        return size <= 32 ? 0 : (uint32_t)(size - 32 + 7) / 8;
    uint32_t i = (256 - 32) / 8;
    while (slab->classes[i].size < size)
        i++;
    return i;
}

static uint32_t page_of(uint32_t ref)
{
    return ref >> (PERF__PAGE_SHIFT - 3);
}

static uint32_t ref_of_page(uint32_t page)
{
    return page << (PERF__PAGE_SHIFT - 3);
}

static struct perf__span *span_of(const struct perf__slab *slab, uint32_t ref)
{
    return &slab->spans[slab->spans[page_of(ref)].start];
}

static uint32_t pages_for(size_t size)
{
    return (uint32_t)((size + PAGE - 1) >> PERF__PAGE_SHIFT);
}

size_t perf__slab_slot_size(const struct perf__slab *slab, size_t size)
{
    return size > PERF__SLOT_MAX ? (size_t)pages_for(size) << PERF__PAGE_SHIFT
                                 : slab->classes[class_of(slab, size)].size;
}

size_t perf__slab_size_at(const struct perf__slab *slab, uint32_t ref)
{
    const struct perf__span *span = span_of(slab, ref);
    return span->class == NO_CLASS ? (size_t)span->pages << PERF__PAGE_SHIFT
                                   : slab->classes[span->class].size;
}

static void span_init(struct perf__slab *slab, uint32_t page, uint32_t pages, uint8_t class)
{
    for (uint32_t i = 1; i < pages; i++)
        slab->spans[page + i].start = page;
    slab->spans[page] = (struct perf__span){.start = page,
                                            .pages = pages,
                                            .kind = IN_SPAN,
                                            .class = class,
                                            .untouched = ref_of_page(page)};
}

static uint32_t slot_take(struct perf__slab *slab, struct perf__class *c, uint32_t page)
{
    struct perf__span *span = &slab->spans[page];
    uint32_t ref = span->free;
    if (ref) { /* the link lies behind the first words: late readers may still look at those */
        memcpy(&span->free, slab->base + (size_t)ref * 8 + 16, sizeof span->free);
    } else {
        ref = span->untouched;
        span->untouched += c->size / 8;
    }
    c->free_slots--;
    if (++span->used == c->span_slots)
        list_remove(slab, &c->partial, page);
    return ref;
}

uint32_t perf__slab_alloc(struct perf__slab *slab, size_t size, size_t limit)
{
    if (size > PERF__SLOT_MAX) {
        uint32_t pages = pages_for(size), page = pages_alloc(slab, pages, limit);
        if (!page)
            return 0;
        span_init(slab, page, pages, NO_CLASS);
        slab->spans[page].used = 1;
        return ref_of_page(page);
    }
    uint32_t i = class_of(slab, size);
    struct perf__class *c = &slab->classes[i];
    if (!c->partial) {
        uint32_t page = pages_alloc(slab, c->span_pages, limit);
        if (!page)
            return 0;
        span_init(slab, page, c->span_pages, (uint8_t)i);
        c->free_slots += c->span_slots;
        list_add(slab, &c->partial, page);
    }
    return slot_take(slab, c, c->partial);
}

static void span_free(struct perf__slab *slab, uint32_t page)
{
    uint32_t pages = slab->spans[page].pages;
    slab->spans[page].kind = UNUSED;
    slab->freed = true;
    run_add(slab, page, pages, RUN_RESIDENT);
}

void perf__slab_free(struct perf__slab *slab, uint32_t ref)
{
    struct perf__span *span = span_of(slab, ref);
    uint32_t page = span->start;
    if (span->class == NO_CLASS) {
        span->used = 0;
        if (!span->pins)
            span_free(slab, page);
        return;
    }
    struct perf__class *c = &slab->classes[span->class];
    /* Written as an atomic: a late reader may be looking. */
    __atomic_store_n((uint32_t *)(void *)(slab->base + (size_t)ref * 8 + 16), span->free,
                     __ATOMIC_RELAXED);
    span->free = ref;
    if (span->used-- == c->span_slots)
        list_add(slab, &c->partial, page);
    c->free_slots++;
    if (!span->used) {
        list_remove(slab, &c->partial, page);
        c->free_slots -= c->span_slots;
        span_free(slab, page);
    }
}

bool perf__slab_has_room(const struct perf__slab *slab, size_t size, size_t limit)
{
    size_t need;
    if (size > PERF__SLOT_MAX) {
        need = (size_t)pages_for(size) << PERF__PAGE_SHIFT;
    } else {
        const struct perf__class *c = &slab->classes[class_of(slab, size)];
        if (c->partial)
            return true;
        need = (size_t)c->span_pages << PERF__PAGE_SHIFT;
    }
    return perf__slab_memory(slab) + need <=
           limit + ((size_t)slab->free_committed << PERF__PAGE_SHIFT);
}

/* ------------------------------------------------------------- compaction */

size_t perf__slab_free_bytes(const struct perf__slab *slab)
{
    size_t bytes = 0;
    for (int i = 0; i < PERF__SLAB_CLASSES && slab->classes[i].size; i++)
        bytes += (size_t)slab->classes[i].free_slots * slab->classes[i].size;
    return bytes;
}

/* The emptiest of the first few partial spans of a class. */
static uint32_t sparse_span(const struct perf__slab *slab, const struct perf__class *c)
{
    uint32_t best = c->partial;
    int tries = 16;
    for (uint32_t page = c->partial; page && tries--; page = slab->spans[page].next)
        if (slab->spans[page].used < slab->spans[best].used)
            best = page;
    return best;
}

bool perf__slab_compact(struct perf__slab *slab,
                        bool (*move)(void *ctx, uint32_t old_ref, uint32_t new_ref), void *ctx)
{
    struct perf__class *worst = NULL;
    size_t most = 0;
    for (int i = 0; i < PERF__SLAB_CLASSES && slab->classes[i].size; i++) {
        struct perf__class *c = &slab->classes[i];
        size_t bytes = (size_t)c->free_slots * c->size;
        if (c->free_slots >= c->span_slots && bytes > most) {
            most = bytes;
            worst = c;
        }
    }
    if (!worst)
        return false;
    uint32_t page = sparse_span(slab, worst);
    struct perf__span *span = &slab->spans[page];
    /* Its free slots must not be handed out as places to move to. */
    list_remove(slab, &worst->partial, page);
    bool taken[PAGE * 16 / 32] = {false};
    uint32_t first = ref_of_page(page), step = worst->size / 8;
    for (uint32_t ref = span->free; ref;) {
        taken[(ref - first) / step] = true; /* free, that is: not to be moved */
        memcpy(&ref, slab->base + (size_t)ref * 8 + 16, sizeof ref);
    }
    for (uint32_t ref = first; ref < span->untouched; ref += step) {
        if (taken[(ref - first) / step] || !worst->partial)
            continue;
        uint32_t to = slot_take(slab, worst, worst->partial);
        if (move(ctx, ref, to)) {
            __atomic_store_n((uint32_t *)(void *)(slab->base + (size_t)ref * 8 + 16), span->free,
                             __ATOMIC_RELAXED);
            span->free = ref;
            span->used--;
            worst->free_slots++;
        } else {
            perf__slab_free(slab, to);
        }
    }
    if (span->used) {
        list_add(slab, &worst->partial, page);
        return false;
    }
    worst->free_slots -= worst->span_slots;
    span_free(slab, page);
    return true;
}

/* ------------------------------------------------------------------- pins */

bool perf__slab_can_pin(const struct perf__slab *slab, uint32_t ref)
{
    return span_of(slab, ref)->class == NO_CLASS;
}

void perf__slab_pin(struct perf__slab *slab, uint32_t ref)
{
    span_of(slab, ref)->pins++;
}

void perf__slab_unpin(struct perf__slab *slab, uint32_t ref)
{
    struct perf__span *span = span_of(slab, ref);
    if (--span->pins == 0 && !span->used)
        span_free(slab, span->start);
}

bool perf__slab_pinned(const struct perf__slab *slab, uint32_t ref)
{
    return span_of(slab, ref)->pins > 0;
}
