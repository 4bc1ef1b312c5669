/* SPDX-License-Identifier: MIT */
/*
 * heap.c - leftist heaps; see heap.h.
 *
 * The way to the nearest missing child is never longer on the right than on
 * the left, so the right spine has log2(n + 1) nodes at most, and merging walks
 * right spines only.
 */
#include "heap.h"

#include <stddef.h>

static bool before(const struct perf__heap_node *a, const struct perf__heap_node *b)
{
    return a->key != b->key ? a->key < b->key : a->number < b->number;
}

static uint64_t distance_of(const struct perf__heap_node *node)
{
    return node ? node->distance : 0;
}

/* Puts the children of node into their order; false when its distance was right already. */
static bool mend(struct perf__heap_node *node)
{
    if (distance_of(node->left) < distance_of(node->right)) {
        struct perf__heap_node *child = node->left;
        node->left = node->right;
        node->right = child;
    }
    uint64_t distance = distance_of(node->right) + 1;
    if (node->distance == distance)
        return false;
    node->distance = distance;
    return true;
}

/* One heap of two, either of which may be NULL. Down the right spines, and back up. */
static struct perf__heap_node *merge(struct perf__heap_node *a, struct perf__heap_node *b)
{
    struct perf__heap_node *top = NULL, *bottom = NULL;
    while (a && b) {
        if (before(b, a)) {
            struct perf__heap_node *other = a;
            a = b;
            b = other;
        }
        a->parent = bottom;
        if (bottom)
            bottom->right = a;
        else
            top = a;
        bottom = a;
        a = a->right;
    }
    struct perf__heap_node *rest = a ? a : b;
    if (rest)
        rest->parent = bottom;
    if (!bottom)
        return rest;
    bottom->right = rest;
    for (; bottom; bottom = bottom->parent)
        mend(bottom);
    return top;
}

void perf__heap_add(struct perf__heap *heap, struct perf__heap_node *node, int64_t key,
                    uint64_t number)
{
    *node = (struct perf__heap_node){.key = key, .number = number, .distance = 1};
    heap->least = merge(heap->least, node);
}

void perf__heap_remove(struct perf__heap *heap, struct perf__heap_node *node)
{
    struct perf__heap_node *parent = node->parent, *rest = NULL;
    if (node->left)
        node->left->parent = NULL;
    if (node->right)
        node->right->parent = NULL;
    rest = merge(node->left, node->right);
    if (rest)
        rest->parent = parent;
    if (!parent)
        heap->least = rest;
    else if (parent->left == node)
        parent->left = rest;
    else
        parent->right = rest;
    /* Distances above change only as far as a change is seen. */
    while (parent && mend(parent))
        parent = parent->parent;
    *node = (struct perf__heap_node){0};
}
