/* SPDX-License-Identifier: MIT */
/*
 * coherence.h - what other processes do to the tiers that this one shares with them.
 *
 * A tier that can tell (perf_store_vtable.listen) is believed: what it names is
 * dropped from memory, what it marks is dead, and when it could not tell for a
 * while, memory forgets everything that may have changed meanwhile. A tier that cannot is
 * asked for its marks every now and then, and memory keeps what came from it for
 * so long only; so is one that tells but cannot be sure that it arrives (a Redis Cluster).
 * libperf-coherence(7) says what that is worth to a reader.
 *
 * One thread a cache, only when there is a shared tier to care for. The listeners' functions run
 * on the stores' threads.
 */
#ifndef PERF_CACHE_COHERENCE_H
#define PERF_CACHE_COHERENCE_H

#include <libperf/cache.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "tier.h"

enum { PERF__TIERS_MAX = 8 };

/* One tier, heard or asked. */
struct perf__hearing {
    perf_cache *cache;
    struct perf__tier *tier;
    perf_store_listener listener;
    bool remote;  /* other machines write to it */
    bool listens; /* it tells by itself */
    bool leases;  /* it keeps leases, which loads renew */
    bool asked;   /* it does not, or not for sure, so it is asked */
    _Atomic bool deaf, gap;
    _Atomic int64_t read_ms; /* wall time when all marks were last asked for; 0: not yet */
    _Atomic uint64_t heard, gaps;
};

struct perf__coherence {
    _Atomic int64_t asked_ms;  /* when marks were asked for, on the cache's clock */
    int64_t ask_ms;            /* how long memory may be behind a tier that does not tell */
    uint64_t listening, asked; /* tiers that tell for sure and those that are asked, as bits of a
                                  namespace's tiers */
    struct perf__hearing hearing[PERF__TIERS_MAX];
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool ready, running, stops, news; /* the latter three under the mutex */
};

/* Begins to listen to the tiers of a cache; starts the thread if one of them needs it. ask_ms as
 * perf_cache_options.coherence_ms. */
int perf__coherence_open(perf_cache *cache, int64_t ask_ms);
/* Stops the thread. Stores may go on telling until they are closed. */
void perf__coherence_close(perf_cache *cache);
/* After the stores are closed. */
void perf__coherence_destroy(struct perf__coherence *coherence);

/* Ends the life in memory of what tier `from` had (SIZE_MAX: of what is written here), if others
 * may change it without our being told. */
void perf__coherence_cap(const perf_cache *cache, uint64_t tiers, size_t from, int64_t now,
                         int64_t *fresh_until, int64_t *dead_at);

/* What the thread does, one round of it: repairs and gaps (false: one could not be closed yet);
 * asking for marks. perf_cache_maintain does it, too. */
bool perf__coherence_tick(perf_cache *cache);
void perf__coherence_ask(perf_cache *cache);

/* Leases are to be renewed in so many milliseconds: the thread does not sleep longer. */
void perf__coherence_expect(perf_cache *cache, int64_t ms);

/* Takes in a mark that a tier knows: a perf_store_mark_fn with the cache as ctx. */
int perf__coherence_take_mark(void *cache, int64_t kind, perf_bytes name, int64_t stamp_ms);

#endif
