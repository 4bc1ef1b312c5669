/* SPDX-License-Identifier: MIT */
/*
 * heap.h - leftist heaps whose nodes lie in what they order.
 *
 * Adding, taking the least and taking out any take O(log n) steps at most, each time and not
 * only on average, and no memory, so that none can fail (Crane, "Linear lists and
 * priority queues as balanced binary trees", 1972; Knuth, The Art of Computer
 * Programming 3, 5.2.3). Equal keys come out by their number. Not locked.
 */
#ifndef PERF_TASK_HEAP_H
#define PERF_TASK_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct perf__heap_node {
    struct perf__heap_node *left, *right, *parent;
    int64_t key;
    uint64_t number;
    uint64_t distance; /* to the nearest place without a child; 0: in no heap */
};

struct perf__heap {
    struct perf__heap_node *least; /* NULL: empty */
};

/* node is in no heap; it is ordered by key, then by number. */
void perf__heap_add(struct perf__heap *heap, struct perf__heap_node *node, int64_t key,
                    uint64_t number);
/* node is in this heap. */
void perf__heap_remove(struct perf__heap *heap, struct perf__heap_node *node);

static inline bool perf__heap_in(const struct perf__heap_node *node)
{
    return node->distance != 0;
}

#endif
