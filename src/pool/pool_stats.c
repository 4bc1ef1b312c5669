/* SPDX-License-Identifier: MIT */
/*
 * pool_stats.c - what a pool did, and who holds its connections. Any thread;
 * sums are exact once those who count have been synchronised with.
 */
#include <stdio.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "pool_impl.h"

static uint64_t count_of(const perf_pool *pool, uint32_t index)
{
    return perf__counters_sum(&pool->counters, index);
}

static void add_slots(const perf_pool *pool, perf_pool_stats *s, uint64_t *first)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        const struct perf__slot *slot = perf__pool_slot(pool, i);
        uint64_t uses = perf__slot_uses(slot);
        uint32_t state = perf__slot_state(slot);
        s->acquires += uses - slot->refused;
        s->idle += state == SLOT_IDLE;
        s->in_use += state == SLOT_BORROWED;
        *first += state != SLOT_EMPTY && uses - slot->refused != slot->uses_before;
    }
}

static void add_pool(const perf_pool *pool, perf_pool_stats *s, uint64_t *first)
{
    add_slots(pool, s, first);
    *first += count_of(pool, COUNT_FIRST_LENDS);
    s->size += pool->total - pool->opening;
    s->opening += pool->opening;
    s->waiting += atomic_load(&pool->queue_len);
    s->peak_in_use += pool->peak;
    s->waits += count_of(pool, COUNT_WAITS);
    s->timeouts += count_of(pool, COUNT_TIMEOUTS);
    s->rejected += count_of(pool, COUNT_REJECTED);
    s->opened += count_of(pool, COUNT_OPENED);
    s->open_failures += count_of(pool, COUNT_OPEN_FAILURES);
    s->validations += count_of(pool, COUNT_VALIDATIONS);
    s->detached += count_of(pool, COUNT_DETACHED);
    s->leaks += count_of(pool, COUNT_LEAKS);
    s->closed_idle += count_of(pool, COUNT_CLOSED + WHY_IDLE);
    s->closed_lifetime += count_of(pool, COUNT_CLOSED + WHY_LIFETIME);
    s->closed_by_peer += count_of(pool, COUNT_CLOSED + WHY_PEER);
    s->closed_invalid += count_of(pool, COUNT_CLOSED + WHY_INVALID);
    s->closed_discarded += count_of(pool, COUNT_CLOSED + WHY_DISCARDED);
    s->closed_evicted += count_of(pool, COUNT_CLOSED + WHY_EVICTED);
}

int perf_pool_get_stats(perf_pool *root, perf_pool_stats *stats)
{
    perf_pool_stats s = PERF_POOL_STATS_INIT;
    uint64_t first = 0;
    size_t size;
    if (!root)
        return perf__fail(PERF_EINVAL, "the pool is NULL");
    int rc = perf__options_check_out("perf_pool_stats", stats, &size);
    if (rc)
        return rc;
    if (root->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    struct perf__histogram_snapshot *snapshot =
        perf__alloc(&root->host.allocator, sizeof *snapshot);
    if (!snapshot)
        return perf__fail_nomem("a snapshot of a pool");

    pthread_mutex_lock(&root->mutex);
    s.max_size = root->options.max_size;
    s.keys = HASH_COUNT(root->children);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool))
        add_pool(pool, &s, &first);
    pthread_mutex_unlock(&root->mutex);
    s.reused = s.acquires > first ? s.acquires - first : 0;

    perf__histogram_snapshot(&root->waits, snapshot);
    s.wait_mean_ns = snapshot->count ? snapshot->sum / snapshot->count : 0;
    s.wait_p50_ns = perf__histogram_quantile(snapshot, 0.5);
    s.wait_p90_ns = perf__histogram_quantile(snapshot, 0.9);
    s.wait_p99_ns = perf__histogram_quantile(snapshot, 0.99);
    s.wait_p999_ns = perf__histogram_quantile(snapshot, 0.999);
    s.wait_max_ns = atomic_load_explicit(&root->wait_max_ns, memory_order_relaxed);
    perf__histogram_snapshot(&root->opens, snapshot);
    s.open_mean_ns = snapshot->count ? snapshot->sum / snapshot->count : 0;
    s.open_p99_ns = perf__histogram_quantile(snapshot, 0.99);
    perf__free(&root->host.allocator, snapshot);
    perf__options_give(stats, size, &s, sizeof s);
    return PERF_OK;
}

static struct perf__slot *borrowed_at(perf_pool *root, size_t index)
{
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
        uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
        for (uint32_t i = 0; i < count; i++) {
            struct perf__slot *slot = perf__pool_slot(pool, i);
            if (perf__slot_state(slot) == SLOT_BORROWED && index-- == 0)
                return slot;
        }
    }
    return NULL;
}

/* Thread-local, for the caller reads it after the lock is gone. */
static _Thread_local char holder_key[POOL_MAX_KEY + 1];

int perf_pool_get_holder(perf_pool *root, size_t index, perf_pool_holder *holder)
{
    perf_pool_holder h = PERF_POOL_HOLDER_INIT;
    size_t size;
    if (!root)
        return perf__fail(PERF_EINVAL, "the pool is NULL");
    int rc = perf__options_check_out("perf_pool_holder", holder, &size);
    if (rc)
        return rc;
    if (root->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    pthread_mutex_lock(&root->mutex);
    struct perf__slot *slot = borrowed_at(root, index);
    if (slot) {
        h.who = atomic_load_explicit(&slot->who, memory_order_relaxed);
        /* The sub-pool may get another key at any time. */
        snprintf(holder_key, sizeof holder_key, "%s", slot->pool->key);
        h.key = holder_key;
        h.thread = atomic_load_explicit(&slot->thread, memory_order_relaxed);
        h.held_ms = perf__now_ms(&root->clock) -
                    atomic_load_explicit(&slot->since_ms, memory_order_relaxed);
        h.is_leak = root->options.leak_ms > 0 && h.held_ms >= root->options.leak_ms;
        h.conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
        perf__options_give(holder, size, &h, sizeof h);
    }
    pthread_mutex_unlock(&root->mutex);
    return slot ? PERF_OK : PERF_MISS;
}
