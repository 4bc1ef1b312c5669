/* SPDX-License-Identifier: MIT */
/*
 * lines.c - cache lines from an allocator that knows nothing of them: a block
 * with one line more than needed, whose address is kept in front of the first
 * whole line. Any thread.
 */
#include "lines.h"

#include <string.h>

enum { LINE = 64 };

void *perf__lines_new(const perf_allocator *allocator, size_t size)
{
    size_t bytes = (size + LINE - 1) / LINE * LINE;
    char *block = perf__calloc(allocator, 1, bytes + LINE);
    if (!block)
        return NULL;
    /* At least the address fits in front: blocks are aligned for any type. */
    char *lines = block + LINE - (uintptr_t)block % LINE;
    memcpy(lines - sizeof block, &block, sizeof block);
    return lines;
}

void perf__lines_free(const perf_allocator *allocator, void *lines)
{
    void *block;
    if (!lines)
        return;
    memcpy(&block, (char *)lines - sizeof block, sizeof block);
    perf__free(allocator, block);
}
