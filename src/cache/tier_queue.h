/* SPDX-License-Identifier: MIT */
/*
 * tier_queue.h - the changes that a tier has not committed yet. Private to tier*.c.
 *
 * Two lists in order of submission, and an index by id of the newest change of
 * each record:
 *   queue    what was submitted and not committed;
 *   repairs  what a failing store missed: removals that keep an older record
 *            from coming back, and marks. They go before the queue.
 * Plain data under the tier's mutex; only the ops and records of changes that are
 * in flight, and records somebody holds, are read without it.
 */
#ifndef PERF_CACHE_TIER_QUEUE_H
#define PERF_CACHE_TIER_QUEUE_H

#include <libperf/backend/store.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/hash.h"

struct perf__change;

/* The bytes of a SET, shared by its change and by readers. refs is under the mutex. */
struct perf__pending_record {
    uint32_t refs;
    size_t len;
    unsigned char data[];
};

struct perf__tier_list {
    struct perf__change *first;
    size_t count, bytes;
};

struct perf__tier_queue {
    const perf_allocator *allocator;
    struct perf__tier_list queue, repairs;
    struct perf__change *index;
    struct perf__hash_key hash_key;
    atomic_size_t indexed; /* how many ids the index has; readers ask without the mutex */
};

void perf__queue_init(struct perf__tier_queue *q, const perf_allocator *allocator);
/* Forgets everything. */
void perf__queue_clear(struct perf__tier_queue *q);

/* A copy of op, in no list yet; NULL without memory. Needs no mutex. */
struct perf__change *perf__change_new(const perf_allocator *allocator, const perf_store_op *op);
void perf__change_free(struct perf__tier_queue *q, struct perf__change *change);

/* Appends to the queue and makes change the newest of its id. An older change that no longer
 * matters (a repair; with coalesce any, unless in flight) is dropped. False without memory:
 * nothing happened. */
bool perf__queue_append(struct perf__tier_queue *q, struct perf__change *change, bool coalesce);
/* Takes a change out of its list and the index and frees it. */
void perf__queue_drop(struct perf__tier_queue *q, struct perf__change *change);
/* Turns a change that the store missed into a repair, or drops it when a newer one makes it
 * needless. */
void perf__queue_repair(struct perf__tier_queue *q, struct perf__change *change);

/* The newest change of an id, or NULL. */
struct perf__change *perf__queue_find(struct perf__tier_queue *q, const uint8_t *id);
/* The bytes of a change, to be given back with perf__record_release; NULL for a removal. */
struct perf__pending_record *perf__change_record(struct perf__change *change);
void perf__record_release(struct perf__tier_queue *q, struct perf__pending_record *record);

/* What a list holds first, and what follows a change. */
struct perf__change *perf__change_next(const struct perf__change *change);

/* The parts of a change that the tier works with. */
struct perf__change_view {
    perf_store_op op;
    uint64_t ticket;
    size_t bytes; /* what it counts against the bounds */
    int rc;       /* what its commit said */
    bool in_flight, repair;
};
struct perf__change_view *perf__change_view(struct perf__change *change);

#endif
