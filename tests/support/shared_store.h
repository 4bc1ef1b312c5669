/* SPDX-License-Identifier: MIT */
/*
 * shared_store.h - a store in this process that several caches share as processes share a server.
 *
 * It keeps the whole contract of backend/store.h, leases and listeners included, and can be told
 * to fail, to go deaf, and to let something happen in the middle of a call. The real stores' tests
 * show that servers do the same; this one shows what the cache makes of it, at chosen moments.
 */
#ifndef TESTS_SHARED_STORE_H
#define TESTS_SHARED_STORE_H

#include <libperf/cache.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { SHARED_RECORDS = 4096, SHARED_MARKS = 256, SHARED_STORES = 8 };

struct shared_record {
    uint8_t id[PERF_STORE_ID_SIZE];
    unsigned char *data; /* NULL: none */
    size_t len;
    uint64_t lease; /* 0: nobody has it */
    int64_t lease_until_ms;
};

struct shared_world {
    pthread_mutex_t mutex;
    struct shared_record records[SHARED_RECORDS];
    size_t record_count;
    struct {
        int64_t kind, stamp_ms;
        char name[64];
        size_t len;
    } marks[SHARED_MARKS];
    size_t mark_count;
    struct shared_store *stores[SHARED_STORES];
    uint64_t last_token;
    perf_clock *clock; /* of leases */
    _Atomic bool fails, deaf;
    _Atomic int64_t marks_since; /* what was asked for last */
    _Atomic int gets, sets, left_out, leases, renewals, marks_asked;
    /* Called once, by the next get or apply, without the mutex. */
    void (*_Atomic in_get)(void *ctx), (*_Atomic in_apply)(void *ctx);
    void *hook_ctx;
};

void shared_world_init(struct shared_world *w, perf_clock *clock);
void shared_world_end(struct shared_world *w);

/* Reports may be missing from now on, or are all heard again. */
void shared_world_deafen(struct shared_world *w, bool deaf);

/* Tiers on a world: it tells by itself and keeps leases; or neither. */
perf_tier_options shared_tier(struct shared_world *w);
perf_tier_options shared_mute_tier(struct shared_world *w);

#endif
