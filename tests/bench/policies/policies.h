// SPDX-License-Identifier: MIT
/*
 * Reference eviction policies for one purpose: to say how good ours is.
 *
 * Each is written from its paper, favours being obviously right over being small, and sees exact
 * information (every request, in order). Keys are dense integers below `keys`, so all state is
 * arrays indexed by key. Capacity counts objects. One thread.
 */
#ifndef BENCH_POLICIES_H
#define BENCH_POLICIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_trace {
    const char *name;
    uint32_t *key;  /* `requests` of them */
    uint32_t *size; /* size of each request, or NULL when the file has none */
    size_t requests;
    size_t keys; /* distinct */
};

struct bench_policy {
    const char *name;
    /* Hits of a cache with room for `capacity` objects over the whole trace. */
    uint64_t (*run)(const struct bench_trace *trace, size_t capacity);
};

/* NULL-name terminated. */
extern const struct bench_policy bench_recency_policies[]; /* lru fifo clock sieve */
extern const struct bench_policy bench_queue_policies[];   /* s3fifo 2q arc lirs */
extern const struct bench_policy bench_count_policies[];   /* wtinylfu lfu belady */
extern const struct bench_policy bench_our_policy[];       /* libperf's own, as the tier calls it */

/* Doubly linked lists over key-indexed arrays; a key is on one list at a time. */
struct bench_links {
    uint32_t *next, *prev; /* [keys + lists]; slot keys + i is the ring head of list i */
    size_t *length;        /* [lists] */
    size_t keys;
};

void *bench_alloc(size_t count, size_t size); /* zeroed; ends the program when there is none */
void bench_links_init(struct bench_links *links, size_t keys, size_t lists);
void bench_links_free(struct bench_links *links);
void bench_push(struct bench_links *links, size_t list, uint32_t key); /* at the front */
void bench_unlink(struct bench_links *links, size_t list, uint32_t key);
/* The key at the back (oldest) of a list that is not empty. */
uint32_t bench_back(const struct bench_links *links, size_t list);

#endif
