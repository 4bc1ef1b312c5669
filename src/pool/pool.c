/* SPDX-License-Identifier: MIT */
/*
 * pool.c - opening and closing a pool.
 *
 * Opening checks what the caller gave and starts nothing, unless `start` says
 * so. Closing ends those who wait, lets opens under way finish, and refuses while
 * connections are out. Not for several threads at once.
 */
#include "pool_impl.h"

#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fence.h"
#include "../base/fork.h"
#include "../base/status.h"

static const int64_t SECOND_MS = 1000, DAY_MS = 86400000;

static void use_default(uint64_t *field, uint64_t value)
{
    if (!*field)
        *field = value;
}

static void use_default_ms(int64_t *field, int64_t value)
{
    if (!*field)
        *field = value;
}

static int take_options(const perf_pool_options *given, perf_pool_options *o,
                        perf_connection_vtable *vtable)
{
    int rc = perf__options_take("perf_pool_options", given, o, sizeof *o);
    if (rc)
        return rc;
    if (!o->vtable)
        return perf__fail(PERF_EINVAL, "perf_pool_options.vtable is NULL; give a "
                                       "perf_connection_vtable");
    rc = perf__options_take("perf_connection_vtable", o->vtable, vtable, sizeof *vtable);
    if (rc)
        return rc;
    if (!vtable->open || !vtable->close)
        return perf__fail(PERF_EINVAL, "perf_connection_vtable lacks open or close; give both");
    use_default(&o->max_size, 10);
    use_default_ms(&o->open_timeout_ms, 10000);
    use_default(&o->max_opening, 2);
    use_default_ms(&o->max_lifetime_ms, 1800000);
    use_default_ms(&o->idle_timeout_ms, 600000);
    use_default_ms(&o->validate_after_ms, SECOND_MS);
    use_default_ms(&o->validate_timeout_ms, 1000);
    use_default_ms(&o->keep_alive_ms, 120000);
    use_default(&o->max_waiting, 10000);
    use_default(&o->max_keys, 64);
    if ((rc = perf__check_range("max_size", (int64_t)o->max_size, 1, POOL_MAX_SIZE)) ||
        (rc = perf__check_range("min_idle", (int64_t)o->min_idle, 0, (int64_t)o->max_size)) ||
        (rc = perf__check_range("start", o->start, 0, PERF_POOL_START_FAIL_FAST)) ||
        (rc = perf__check_range("open_timeout_ms", o->open_timeout_ms, 1, DAY_MS)) ||
        (rc = perf__check_range("max_opening", (int64_t)o->max_opening, 1, POOL_MAX_OPENING)) ||
        (rc = perf__check_range("open_interval_ms", o->open_interval_ms, 0, DAY_MS)) ||
        (rc = perf__check_range("max_lifetime_ms", o->max_lifetime_ms, -1, 365 * DAY_MS)) ||
        (rc = perf__check_range("idle_timeout_ms", o->idle_timeout_ms, -1, 365 * DAY_MS)) ||
        (rc = perf__check_range("validate_after_ms", o->validate_after_ms, -1, DAY_MS)) ||
        (rc = perf__check_range("validate_timeout_ms", o->validate_timeout_ms, 1, DAY_MS)) ||
        (rc = perf__check_range("keep_alive_ms", o->keep_alive_ms, -1, 365 * DAY_MS)) ||
        (rc = perf__check_range("max_waiting", (int64_t)o->max_waiting, 1, 1000000)) ||
        (rc = perf__check_range("leak_ms", o->leak_ms, 0, 365 * DAY_MS)) ||
        (rc = perf__check_range("max_keys", (int64_t)o->max_keys, 1, 65536)) ||
        (rc = perf__check_range("adaptive", o->adaptive, 0, 1)) ||
        (rc = perf__check_range("no_threads", o->no_threads, 0, 1)) ||
        (rc = perf__check_range("socket_trust_ms", o->socket_trust_ms, 0, DAY_MS)))
        return rc;
    use_default(&o->max_total, o->max_keys * o->max_size);
    return perf__check_range("max_total", (int64_t)o->max_total, 1,
                             (int64_t)(o->max_keys * o->max_size));
}

/* For how long a connection is lent again without a look at it. */
static int64_t quiet_ms(const perf_pool *pool)
{
    int64_t quiet = DAY_MS;
    if (pool->vtable.validate && pool->options.validate_after_ms >= 0)
        quiet = pool->options.validate_after_ms;
    if (pool->vtable.fd && quiet > pool->options.socket_trust_ms)
        quiet = pool->options.socket_trust_ms;
    return quiet;
}

/* Is a time of use that is up to a second old good enough for all who ask for it? */
static bool by_seconds(const perf_pool *pool)
{
    const perf_pool_options *o = &pool->options;
    return pool->system_clock && pool->quiet_ms >= SECOND_MS && o->leak_ms <= 0 &&
           (o->idle_timeout_ms < 0 || o->idle_timeout_ms >= 10 * SECOND_MS);
}

int perf__pool_init(perf_pool *pool, const perf_pool_options *options,
                    const struct perf__host *host, perf_pool *root)
{
    /* Process-wide: ids must differ between pools, for threads remember them. */
    static _Atomic uint64_t last_id;
    pool->root = root;
    pool->id = root == pool ? atomic_fetch_add(&last_id, 1) + 1 : root->id;
    pool->options = *options;
    pool->host = *host;
    pool->host.view.allocator = &pool->host.allocator;
    pool->host.view.clock = &pool->host.clock;
    pool->host.view.log = &pool->host.log;
    pool->clock = host->clock;
    pool->system_clock = host->clock.monotonic_ns == perf__default_clock.monotonic_ns;
    pool->fork_generation = perf__fork_generation;
    pool->epoll = pool->wake = pool->done_fd = -1;
    if (root != pool) {
        pool->vtable = root->vtable;
        pool->ctx = root->ctx;
        pool->quiet_ms = root->quiet_ms;
        pool->by_seconds = root->by_seconds;
    }
    perf__pool_gate(pool, atomic_load(&root->gate) & ~(uint32_t)GATE_STARVING, true);
    atomic_store(&pool->fencing, perf__fence_symmetric);
    int rc = perf__counters_init(&pool->counters, &pool->host.allocator, COUNT_COUNT);
    return rc ? perf__fail_nomem("a pool's counters") : PERF_OK;
}

void perf__pool_destroy(perf_pool *pool)
{
    for (size_t i = 0; i < sizeof pool->blocks / sizeof *pool->blocks; i++)
        perf__free(&pool->host.allocator, pool->blocks[i]);
    if (pool->counters.allocator)
        perf__counters_destroy(&pool->counters);
    if (pool->root != pool)
        perf__free(&pool->host.allocator, (void *)(uintptr_t)pool->key);
    perf_allocator allocator = pool->host.allocator; /* it is in the memory that goes */
    perf__free(&allocator, pool->memory);
}

perf_pool *perf__pool_allocate(const perf_allocator *allocator)
{
    char *memory = perf__calloc(allocator, 1, sizeof(perf_pool) + 64);
    if (!memory)
        return NULL;
    perf_pool *pool = (perf_pool *)(void *)(memory + (64 - (uintptr_t)memory % 64) % 64);
    pool->memory = memory;
    return pool;
}

/* Everything but connections, threads and locks. */
static void free_pool(perf_pool *pool)
{
    perf_allocator allocator = pool->host.allocator;
    const perf_allocator *uthash_allocator = &allocator;
    HASH_CLEAR(hh, pool->children);
    for (perf_pool *child = pool->child_list, *next; child; child = next) {
        next = child->next_child;
        perf__pool_destroy(child);
    }
    if (pool->done_fd >= 0)
        close(pool->done_fd);
    perf__histogram_destroy(&pool->waits);
    perf__histogram_destroy(&pool->opens);
    perf__pool_destroy(pool);
}

static int open_first(perf_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    struct perf__slot *slot = perf__pool_reserve(pool, perf__now_ms(&pool->clock));
    pthread_mutex_unlock(&pool->mutex);
    if (!slot)
        return perf__fail_nomem("the first connection");
    int rc = perf__pool_open_slot(slot, pool->options.open_timeout_ms, SLOT_IDLE);
    if (!rc)
        return PERF_OK;
    return perf__fail(rc, "the first connection could not be opened: %s", pool->open_text);
}

static int start(perf_pool *pool)
{
    int rc = PERF_OK;
    if (pool->options.start == PERF_POOL_START_LAZY)
        return PERF_OK;
    if (!pool->options.no_threads) {
        pthread_mutex_lock(&pool->mutex);
        rc = perf__pool_start_keeper(pool);
        pthread_mutex_unlock(&pool->mutex);
    }
    if (!rc && pool->options.start == PERF_POOL_START_FAIL_FAST)
        rc = open_first(pool);
    if (rc)
        return rc;
    pthread_mutex_lock(&pool->mutex);
    pool->keeps_idle = true;
    pthread_mutex_unlock(&pool->mutex);
    perf__pool_upkeep(pool);
    return PERF_OK;
}

int perf_pool_open(const perf_pool_options *options, perf_pool **out)
{
    perf_pool_options own;
    perf_connection_vtable vtable;
    struct perf__host host;
    perf_pool *pool = NULL;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_pool_open needs a place for the pool");
    int rc = take_options(options, &own, &vtable);
    if (rc || (rc = perf__host_take(own.host, &host)) || (rc = perf__fork_arm()))
        return rc;
    perf__fence_init();

    pool = perf__pool_allocate(&host.allocator);
    if (!pool)
        return perf__fail_nomem("a pool");
    pool->vtable = vtable;
    pool->ctx = own.ctx;
    own.vtable = NULL;
    own.host = NULL;
    pool->key = "";
    rc = perf__pool_init(pool, &own, &host, pool);
    if (rc)
        goto fail;
    pool->quiet_ms = quiet_ms(pool);
    pool->by_seconds = by_seconds(pool);
    pool->secret = perf__hash_random_key();
    if (perf__histogram_init(&pool->waits, &pool->host.allocator) ||
        perf__histogram_init(&pool->opens, &pool->host.allocator)) {
        rc = perf__fail_nomem("a pool's histograms");
        goto fail;
    }
    rc = perf__locks_init(&pool->mutex, &pool->settled, "a pool's locks");
    if (rc)
        goto fail;
    rc = start(pool);
    if (rc) {
        char why[512];
        strncpy(why, perf_last_error(), sizeof why - 1);
        why[sizeof why - 1] = 0;
        perf_pool_close(pool);
        return perf__fail(rc, "%s", why);
    }
    *out = pool;
    return PERF_OK;
fail:
    free_pool(pool);
    return rc;
}

static uint32_t busy(const perf_pool *pool)
{
    return perf__pool_count(pool, SLOT_BUSY);
}

/* Nobody waits, opens or checks any more. With the mutex, which waiting lets go of. */
static void settle(perf_pool *root)
{
    for (;;) {
        bool quiet = !root->inside && !root->answered_head && !root->calling;
        for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool)) {
            quiet = quiet && !busy(pool) && !pool->users;
            for (struct perf__waiter *w = pool->queue.head, *next; w; w = next) {
                next = w->next;
                if (!w->request) {
                    pthread_cond_signal(&w->cond);
                    continue;
                }
                perf__pool_dequeue(w);
                perf__pool_answer(w->request, PERF_ECLOSED);
                quiet = false;
            }
        }
        if (quiet)
            return;
        if (root->options.no_threads) {
            pthread_mutex_unlock(&root->mutex);
            perf__pool_bury(root);
            pthread_mutex_lock(&root->mutex);
        }
        /* A limit, for the last of these may have ended without the mutex. */
        perf__cond_wait(&root->settled, &root->mutex, perf__deadline_after(20));
    }
}

static int refuse_to_close(perf_pool *root, uint32_t out)
{
    perf_pool_holder oldest = PERF_POOL_HOLDER_INIT, holder = PERF_POOL_HOLDER_INIT;
    for (size_t i = 0; !perf_pool_get_holder(root, i, &holder); i++)
        if (holder.held_ms >= oldest.held_ms)
            oldest = holder;
    return perf__fail(PERF_EBUSY,
                      "%u connections are still out, the oldest for %lld ms to %s (thread %lld), "
                      "and %u requests were not released; release them and close again",
                      out, (long long)oldest.held_ms, oldest.who ? oldest.who : "an unnamed caller",
                      (long long)oldest.thread, root->requests);
}

int perf_pool_close(perf_pool *root)
{
    if (!root)
        return PERF_OK;
    if (root->fork_generation != perf__fork_generation) { /* nothing here is ours */
        if (root->epoll >= 0)
            close(root->epoll);
        if (root->wake >= 0)
            close(root->wake);
        free_pool(root);
        return PERF_OK;
    }
    uint32_t out = 0;
    pthread_mutex_lock(&root->mutex);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool))
        perf__pool_gate(pool, GATE_CLOSING, true);
    settle(root);
    for (perf_pool *pool = root; pool; pool = perf__pool_next(root, pool))
        out += perf__pool_count(pool, SLOT_BORROWED);
    uint32_t requests = root->requests;
    for (perf_pool *pool = root; pool && !out && !requests; pool = perf__pool_next(root, pool))
        for (struct perf__slot *slot; (slot = perf__pool_claim(pool, SLOT_BUSY));)
            perf__pool_retire(slot, WHY_CLOSING);
    pthread_mutex_unlock(&root->mutex);
    if (out || requests)
        return refuse_to_close(root, out);
    perf__pool_stop_threads(root);
    perf__pool_bury(root);
    pthread_cond_destroy(&root->settled);
    pthread_mutex_destroy(&root->mutex);
    free_pool(root);
    return PERF_OK;
}
