/* SPDX-License-Identifier: MIT */
/* alloc.c - memory through the host's allocator; malloc by default. Any thread. */
#include "alloc.h"

#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void *default_realloc(void *ctx, void *block, size_t size)
{
    (void)ctx;
    return realloc(block, size);
}

static void default_free(void *ctx, void *block)
{
    (void)ctx;
    free(block);
}

const perf_allocator perf__default_allocator = {sizeof(perf_allocator), NULL, default_alloc,
                                                default_realloc, default_free};

void *perf__alloc(const perf_allocator *a, size_t size)
{
    return a->alloc(a->ctx, size ? size : 1);
}

void *perf__calloc(const perf_allocator *a, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    if (a->alloc == perf__default_allocator.alloc)
        return calloc(1, bytes ? bytes : 1); /* pages that are zero already are not touched */
    void *block = perf__alloc(a, bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

void *perf__realloc(const perf_allocator *a, void *block, size_t size)
{
    return a->realloc(a->ctx, block, size ? size : 1);
}

void perf__free(const perf_allocator *a, void *block)
{
    if (block)
        a->free(a->ctx, block);
}

char *perf__strndup(const perf_allocator *a, const void *text, size_t len)
{
    char *copy = perf__alloc(a, len + 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}
