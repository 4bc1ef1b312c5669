/* SPDX-License-Identifier: MIT */
/*
 * events.h - telling the host that an entry has left memory.
 *
 * An entry leaves under its shard's lock, where no host code may run: there the
 * event is only copied into a queue. Callbacks get it from the thread whose
 * call caused it, after the lock is gone (perf__events_deliver at the end of
 * each writing call); without a callback it waits for perf_cache_poll_event.
 */
#ifndef PERF_CACHE_EVENTS_H
#define PERF_CACHE_EVENTS_H

#include <libperf/cache.h>
#include <pthread.h>
#include <stdatomic.h>

#include "memory_tier.h"

struct perf__event;

struct perf__events {
    const struct perf__host *host;
    pthread_mutex_t mutex; /* a leaf: taken under a shard's lock */
    perf_cache_event_fn fn;
    void *ctx;
    size_t capacity, count;
    struct perf__event *first, **last;
    struct perf__event *polled; /* what the last poll points into */
    int fd;                     /* eventfd, -1 until asked for */
    _Atomic uint64_t mask;
    _Atomic uint64_t pending; /* events for the callback */
};

int perf__events_init(struct perf__events *events, const struct perf__host *host);
void perf__events_destroy(struct perf__events *events);

/* Queues one; under the shard's lock. */
void perf__events_push(struct perf__events *events, int reason, const char *ns,
                       const struct perf__entry_view *entry);

/* Calls the callback for what is queued, with no lock held. */
void perf__events_deliver_slow(struct perf__events *events);

static inline void perf__events_deliver(struct perf__events *events)
{
    if (__builtin_expect(atomic_load_explicit(&events->pending, memory_order_relaxed) != 0, 0))
        perf__events_deliver_slow(events);
}

#endif
