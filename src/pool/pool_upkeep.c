/* SPDX-License-Identifier: MIT */
/*
 * pool_upkeep.c - what has to be done in time, and the controls of a pool.
 *
 * Upkeep goes over all slots: it ends idle connections that are too old, idle
 * for too long or not wanted, has idle ones validated now and then, reports
 * leaks, and opens what is missing. The keeper calls it when something is due,
 * or the host does by perf_pool_maintain. Controls take the mutex. Any thread.
 */
#include <stdlib.h>

#include "../base/clock.h"
#include "../base/fence.h"
#include "../base/fork.h"
#include "../base/log.h"
#include "../base/status.h"
#include "pool_impl.h"

enum {
    ADAPTIVE_WINDOW = 60000, /* ms; peaks are those of this and the last window */
    FENCING_REST = 100,      /* ms after the last wait in which releasers go on fencing */
    WATCHFUL = 1000,         /* ms between looks while connections are out */
    CLOCK_JUMP = 1000,       /* ms by which the two clocks disagree when we slept */
};

uint32_t perf__pool_count(const perf_pool *pool, uint32_t state)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire), n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += perf__slot_state(perf__pool_slot(pool, i)) == state;
    return n;
}

uint32_t perf__pool_keep(const perf_pool *pool)
{
    uint32_t keep = (uint32_t)pool->options.min_idle;
    if (pool->options.adaptive) {
        uint32_t peak = pool->window_peak > pool->last_peak ? pool->window_peak : pool->last_peak;
        uint32_t used = perf__pool_count(pool, SLOT_BORROWED);
        if (peak > used && peak - used > keep)
            keep = peak - used;
    }
    return keep;
}

static void note_peak(perf_pool *pool, uint32_t used, int64_t now)
{
    if (now - pool->adaptive_ms >= ADAPTIVE_WINDOW) {
        pool->last_peak = now - pool->adaptive_ms < 2 * ADAPTIVE_WINDOW ? pool->window_peak : 0;
        pool->window_peak = 0;
        pool->adaptive_ms = now;
    }
    used += atomic_load(&pool->queue_len);
    if (used > pool->options.max_size)
        used = (uint32_t)pool->options.max_size;
    if (used > pool->window_peak)
        pool->window_peak = used;
    if (used > pool->peak)
        pool->peak = used;
}

static void sooner(int64_t *next, int64_t in_ms)
{
    if (in_ms < 1)
        in_ms = 1;
    if (*next < 0 || in_ms < *next)
        *next = in_ms;
}

static int64_t later_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void report_leak(struct perf__slot *slot, int64_t now, int64_t *next)
{
    perf_pool *pool = slot->pool;
    uint64_t use = perf__slot_uses(slot);
    int64_t held = now - atomic_load_explicit(&slot->since_ms, memory_order_relaxed);
    if (pool->options.leak_ms <= 0 || slot->leaked_use == use)
        return;
    if (held < pool->options.leak_ms) {
        sooner(next, pool->options.leak_ms - held);
        return;
    }
    const char *who = atomic_load_explicit(&slot->who, memory_order_relaxed);
    slot->leaked_use = use;
    perf__counters_add(&pool->counters, COUNT_LEAKS, 1);
    perf__log(&pool->host.log, PERF_LOG_WARNING, "pool",
              "a connection%s%s is out for %lld ms: borrowed by %s in thread %d; release it, or "
              "raise leak_ms",
              *pool->key ? " to " : "", pool->key, (long long)held, who ? who : "an unnamed caller",
              (int)atomic_load_explicit(&slot->thread, memory_order_relaxed));
}

/* An idle slot: why to end it now, or when to look again. */
static int idle_verdict(struct perf__slot *slot, int64_t now, bool surplus, int64_t *next)
{
    perf_pool *pool = slot->pool;
    int doomed = (int)atomic_load(&slot->doomed);
    int64_t expires = atomic_load_explicit(&slot->expires_ms, memory_order_relaxed);
    int64_t timeout = pool->options.idle_timeout_ms;
    if (pool->options.adaptive && (timeout < 0 || timeout > ADAPTIVE_WINDOW))
        timeout = ADAPTIVE_WINDOW;
    if (doomed)
        return doomed;
    if (now >= expires)
        return WHY_LIFETIME;
    if (expires != INT64_MAX)
        sooner(next, expires - now);
    if (surplus && timeout >= 0) {
        int64_t idle =
            now - later_of(atomic_load_explicit(&slot->since_ms, memory_order_relaxed),
                           atomic_load_explicit(&slot->quiet_since_ms, memory_order_relaxed));
        if (idle >= timeout)
            return WHY_IDLE;
        sooner(next, timeout - idle);
    }
    return WHY_NOT;
}

static bool keep_alive_due(struct perf__slot *slot, int64_t now, int64_t *next)
{
    const perf_pool *pool = slot->pool;
    if (!pool->vtable.validate || pool->options.keep_alive_ms < 0)
        return false;
    int64_t alive = later_of(atomic_load_explicit(&slot->since_ms, memory_order_relaxed),
                             atomic_load_explicit(&slot->alive_ms, memory_order_relaxed));
    if (now - alive >= pool->options.keep_alive_ms)
        return true;
    sooner(next, pool->options.keep_alive_ms - (now - alive));
    return false;
}

/* For hosts without our threads: validates here and now. With the mutex, which it lets go of. */
static void check_now(struct perf__slot *slot, int64_t now)
{
    pthread_mutex_t *mutex = &slot->pool->root->mutex;
    pthread_mutex_unlock(mutex);
    int why = perf__pool_check(slot, now, -1, true);
    pthread_mutex_lock(mutex);
    if (why) {
        perf__pool_retire(slot, why);
    } else {
        perf__slot_set(slot, SLOT_IDLE);
        perf__pool_serve(slot->pool);
    }
}

static void look_at_slots(perf_pool *pool, int64_t now, int64_t *next)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    uint32_t idle = perf__pool_count(pool, SLOT_IDLE), keep = perf__pool_keep(pool);
    /* From the last to the first: acquires go the other way, so these were used least. */
    for (uint32_t i = count; i-- > 0;) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        uint32_t state = perf__slot_state(slot);
        if (state == SLOT_BORROWED) {
            atomic_store_explicit(&slot->quiet_since_ms, now, memory_order_relaxed);
            report_leak(slot, now, next);
        } else if (state == SLOT_IDLE) {
            bool surplus = idle > keep;
            int why = idle_verdict(slot, now, surplus, next);
            bool check = !why && keep_alive_due(slot, now, next);
            if ((!why && !check) || !perf__slot_claim(slot, SLOT_BUSY))
                continue;
            int64_t ignored = -1; /* asked again: it may have been used in between */
            why = idle_verdict(slot, now, surplus, &ignored);
            if (why) {
                idle--;
                perf__pool_retire(slot, why);
            } else if (check && pool->options.no_threads) {
                check_now(slot, now);
            } else if (!check || !perf__pool_check_later(slot)) { /* the next upkeep tries again */
                perf__slot_set(slot, SLOT_IDLE);
                perf__pool_serve(pool);
            }
        }
    }
}

/* For hosts without our threads: opens what shall be idle. With the mutex, which it lets go of. */
static void refill_now(perf_pool *pool)
{
    pthread_mutex_t *mutex = &pool->root->mutex;
    int rc = PERF_OK;
    if (pool->root->graves) { /* what was ended a moment ago takes up room */
        pthread_mutex_unlock(mutex);
        perf__pool_bury(pool->root);
        pthread_mutex_lock(mutex);
    }
    while (!rc && perf__pool_count(pool, SLOT_IDLE) < perf__pool_keep(pool)) {
        struct perf__slot *slot = perf__pool_reserve(pool, perf__now_ms(&pool->clock));
        if (!slot)
            return;
        pthread_mutex_unlock(mutex);
        rc = perf__pool_open_slot(slot, pool->options.open_timeout_ms, SLOT_IDLE);
        pthread_mutex_lock(mutex);
    }
}

static void look_at_pool(perf_pool *pool, int64_t now, int64_t *next)
{
    uint32_t used = perf__pool_count(pool, SLOT_BORROWED);
    uint32_t waiting = atomic_load(&pool->queue_len);
    note_peak(pool, used, now);
    look_at_slots(pool, now, next);
    perf__pool_expire_requests(pool, now, next);
    if (pool->options.no_threads)
        refill_now(pool);
    else
        perf__pool_want(pool, now);
    if (used || pool->options.leak_ms > 0)
        sooner(next, pool->options.leak_ms > 0 && pool->options.leak_ms < WATCHFUL
                         ? pool->options.leak_ms
                         : WATCHFUL);
    if (now < pool->next_open_ms)
        sooner(next, pool->next_open_ms - now);
    else if (waiting && pool->total < pool->options.max_size)
        sooner(next, POOL_SOON);
    if (waiting)
        pool->fenced_ms = now;
    if (atomic_load(&pool->fencing)) {
        if (!waiting && now - pool->fenced_ms >= FENCING_REST && !perf__fence_symmetric)
            atomic_store(&pool->fencing, 0);
        else if (!perf__fence_symmetric)
            sooner(next, FENCING_REST);
    }
}

static void distrust(perf_pool *root)
{
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
        uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
        for (uint32_t i = 0; i < count; i++) {
            struct perf__slot *slot = perf__pool_slot(pool, i);
            if (!perf__slot_claim(slot, SLOT_BUSY))
                continue;
            int64_t since = atomic_load_explicit(&slot->since_ms, memory_order_relaxed);
            if (since > atomic_load_explicit(&slot->quiet_since_ms, memory_order_relaxed))
                atomic_store_explicit(&slot->quiet_since_ms, since, memory_order_relaxed);
            atomic_store_explicit(&slot->since_ms, INT64_MIN / 4, memory_order_relaxed);
            atomic_store_explicit(&slot->second, 0, memory_order_relaxed);
            atomic_store_explicit(&slot->alive_ms, INT64_MIN / 4, memory_order_relaxed);
            perf__slot_set(slot, SLOT_IDLE);
        }
        perf__pool_serve(pool);
    }
}

/* The wall clock goes on while a machine sleeps, or is set; either way idle connections are not
 * what they seem. */
static void notice_jump(perf_pool *root, int64_t now)
{
    int64_t offset = perf__realtime_coarse_ms(&root->clock) - now;
    if (root->real_offset_ms && llabs(offset - root->real_offset_ms) > CLOCK_JUMP) {
        perf__log(&root->host.log, PERF_LOG_INFO, "pool",
                  "the clocks moved apart by %lld ms: idle connections are validated before use",
                  (long long)(offset - root->real_offset_ms));
        distrust(root);
    }
    root->real_offset_ms = offset;
}

int64_t perf__pool_upkeep(perf_pool *root)
{
    int64_t next = -1;
    pthread_mutex_lock(&root->mutex);
    int64_t now = perf__now_ms(&root->clock);
    notice_jump(root, now);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool))
        look_at_pool(pool, now, &next);
    pthread_mutex_unlock(&root->mutex);
    return next;
}

/* ----------------------------------------------------------------- controls */

static int usable(const perf_pool *pool)
{
    if (!pool)
        return perf__fail(PERF_EINVAL, "the pool is NULL");
    return pool->fork_generation != perf__fork_generation ? perf__fail_forked() : PERF_OK;
}

int perf_pool_maintain(perf_pool *pool)
{
    int rc = usable(pool);
    if (rc)
        return rc;
    perf__pool_upkeep(pool);
    perf__pool_bury(pool);
    return PERF_OK;
}

int perf_pool_revalidate(perf_pool *pool)
{
    int rc = usable(pool);
    if (rc)
        return rc;
    pthread_mutex_lock(&pool->mutex);
    distrust(pool);
    pthread_mutex_unlock(&pool->mutex);
    return PERF_OK;
}

/* Those that end anyway, when they come back. */
static uint32_t doomed(const perf_pool *pool)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire), n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += atomic_load(&perf__pool_slot(pool, i)->doomed) != WHY_NOT;
    return n;
}

/* Ends up to `most` connections: idle ones now, borrowed ones when they come back. */
static void evict(perf_pool *pool, uint32_t most)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    for (uint32_t i = count; i-- > 0 && most;) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        if (perf__slot_claim(slot, SLOT_BUSY)) {
            perf__pool_retire(slot, WHY_EVICTED);
            most--;
        }
    }
    for (uint32_t i = count; i-- > 0 && most;) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        uint32_t not_doomed = WHY_NOT;
        if (perf__slot_state(slot) == SLOT_EMPTY ||
            !atomic_compare_exchange_strong(&slot->doomed, &not_doomed, WHY_EVICTED))
            continue;
        most--;
        if (perf__slot_claim(slot, SLOT_BUSY)) /* it came back at this moment */
            perf__pool_retire(slot, WHY_EVICTED);
    }
}

int perf_pool_evict_all(perf_pool *root)
{
    int rc = usable(root);
    if (rc)
        return rc;
    pthread_mutex_lock(&root->mutex);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
        atomic_fetch_add(&pool->epoch, 1);
        evict(pool, UINT32_MAX);
    }
    pthread_mutex_unlock(&root->mutex);
    if (root->options.no_threads)
        perf__pool_bury(root);
    return PERF_OK;
}

int perf_pool_suspend(perf_pool *root)
{
    int rc = usable(root);
    if (rc)
        return rc;
    pthread_mutex_lock(&root->mutex);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool))
        perf__pool_gate(pool, GATE_SUSPENDED, true);
    pthread_mutex_unlock(&root->mutex);
    return PERF_OK;
}

int perf_pool_resume(perf_pool *root)
{
    int rc = usable(root);
    if (rc)
        return rc;
    pthread_mutex_lock(&root->mutex);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
        perf__pool_gate(pool, GATE_SUSPENDED, false);
        /* Whoever waits may have to open a connection itself, so all look. */
        for (struct perf__waiter *w = pool->queue.head; w; w = w->next)
            if (!w->request)
                pthread_cond_signal(&w->cond);
        perf__pool_serve(pool);
        perf__pool_want(pool, perf__now_ms(&pool->clock));
    }
    pthread_mutex_unlock(&root->mutex);
    return PERF_OK;
}

int perf_pool_resize(perf_pool *root, uint64_t min_idle, uint64_t max_size)
{
    int rc = usable(root);
    if (rc)
        return rc;
    if ((rc = perf__check_range("max_size", (int64_t)max_size, 1, POOL_MAX_SIZE)) ||
        (rc = perf__check_range("min_idle", (int64_t)min_idle, 0, (int64_t)max_size)))
        return rc;
    pthread_mutex_lock(&root->mutex);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
        pool->options.min_idle = min_idle;
        pool->options.max_size = max_size;
        uint32_t staying = pool->total - doomed(pool);
        if (staying > max_size)
            evict(pool, staying - (uint32_t)max_size);
        perf__pool_want(pool, perf__now_ms(&pool->clock));
    }
    pthread_mutex_unlock(&root->mutex);
    if (root->options.no_threads)
        perf__pool_bury(root);
    return PERF_OK;
}
