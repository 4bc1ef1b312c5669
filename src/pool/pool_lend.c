/* SPDX-License-Identifier: MIT */
/*
 * pool_lend.c - the fast path: lending a connection and taking it back.
 *
 * Alone, an acquire is a look at what this thread had last, one compare-and-swap
 * and a look at the second that it is; a release is a plain store. Statistics
 * live in the slot, in the line that both write anyway. Any thread.
 */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/fence.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "pool_impl.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Thread-local by nature: which connection this thread had last, of a few pools, the latest first.
 * The fast path looks at the first one only. */
static _Thread_local struct perf__pool_hint hints[POOL_HINTS]
    __attribute__((tls_model("initial-exec")));
static _Thread_local int32_t thread_id __attribute__((tls_model("initial-exec")));

static int32_t ask_thread_id(void)
{
    return thread_id = (int32_t)syscall(SYS_gettid);
}

void perf__pool_remember(struct perf__slot *slot)
{
    struct perf__pool_hint hint = {slot->pool->id, slot};
    for (int i = 0; i < POOL_HINTS; i++) {
        struct perf__pool_hint before = hints[i];
        hints[i] = hint;
        if (before.pool_id == hints[0].pool_id)
            return;
        hint = before;
    }
}

static struct perf__slot *remembered(const perf_pool *pool)
{
    for (int i = 0; i < POOL_HINTS; i++)
        if (hints[i].pool_id == pool->id)
            return hints[i].slot;
    return NULL;
}

/* ------------------------------------------------------------------ acquire */

enum { A_SECOND = 1000 };

static inline __attribute__((always_inline)) int64_t now_ms(const perf_pool *pool)
{
    struct timespec t;
    if (UNLIKELY(!pool->system_clock))
        return pool->clock.monotonic_ns(pool->clock.ctx) / 1000000;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + (int64_t)((uint64_t)t.tv_nsec / 1000000);
}

static inline __attribute__((always_inline)) bool
is_fresh(const perf_pool *pool, const struct perf__slot *slot, int64_t now_ms)
{
    return now_ms - atomic_load_explicit(&slot->since_ms, memory_order_relaxed) < pool->quiet_ms &&
           now_ms < atomic_load_explicit(&slot->expires_ms, memory_order_relaxed) &&
           !atomic_load_explicit(&slot->doomed, memory_order_relaxed);
}

bool perf__pool_is_fresh(struct perf__slot *slot, int64_t now_ms)
{
    return is_fresh(slot->pool, slot, now_ms);
}

/* A store that changes nothing is left out: a store costs more than a comparison here, for the next
 * compare-and-swap waits until all stores have reached the cache. */
static inline __attribute__((always_inline)) void stamp_borrower(struct perf__slot *slot,
                                                                 const char *who)
{
    if (UNLIKELY(atomic_load_explicit(&slot->who, memory_order_relaxed) != who))
        atomic_store_explicit(&slot->who, who, memory_order_relaxed);
    int32_t id = thread_id;
    if (UNLIKELY(atomic_load_explicit(&slot->thread, memory_order_relaxed) != id || !id))
        atomic_store_explicit(&slot->thread, id ? id : ask_thread_id(), memory_order_relaxed);
}

/* second: what time(2) said before now_ms was read, or 0. */
static inline __attribute__((always_inline)) void stamp(struct perf__slot *slot, const char *who,
                                                        int64_t now_ms, int64_t second)
{
    if (UNLIKELY(atomic_load_explicit(&slot->since_ms, memory_order_relaxed) != now_ms))
        atomic_store_explicit(&slot->since_ms, now_ms, memory_order_relaxed);
    if (atomic_load_explicit(&slot->expires_ms, memory_order_relaxed) - now_ms <= A_SECOND)
        second = 0;
    if (atomic_load_explicit(&slot->second, memory_order_relaxed) != second)
        atomic_store_explicit(&slot->second, second, memory_order_relaxed);
    stamp_borrower(slot, who);
}

void perf__pool_stamp(struct perf__slot *slot, const char *who, int64_t now_ms)
{
    stamp(slot, who, now_ms, 0);
}

/* Was it lent in this second, and is there no reason to look at it? */
static inline __attribute__((always_inline)) bool is_fresh_by_second(const struct perf__slot *slot,
                                                                     int64_t second)
{
    return second && atomic_load_explicit(&slot->second, memory_order_relaxed) == second &&
           !atomic_load_explicit(&slot->doomed, memory_order_relaxed);
}

/* From the first slot on, so that the last ones become idle for long and can be closed. */
struct perf__slot *perf__pool_claim(perf_pool *pool, uint32_t as)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        if (perf__slot_claim(slot, as))
            return slot;
    }
    return NULL;
}

int perf__pool_look(struct perf__slot *slot, int64_t now_ms)
{
    const perf_pool *pool = slot->pool;
    int why = (int)atomic_load_explicit(&slot->doomed, memory_order_relaxed);
    if (why)
        return why;
    if (now_ms >= atomic_load_explicit(&slot->expires_ms, memory_order_relaxed))
        return WHY_LIFETIME;
    bool readable = false;
    if (perf__slot_peer_closed(slot, &readable))
        return WHY_PEER;
    int64_t since = atomic_load_explicit(&slot->since_ms, memory_order_relaxed);
    int64_t alive = atomic_load_explicit(&slot->alive_ms, memory_order_relaxed);
    int64_t after = pool->options.validate_after_ms;
    bool due = after >= 0 && now_ms - (since > alive ? since : alive) >= after;
    return pool->vtable.validate && (due || readable) ? WHY_UNSURE : WHY_NOT;
}

int perf__pool_check(struct perf__slot *slot, int64_t now_ms, int64_t budget_ms, bool always)
{
    perf_pool *pool = slot->pool;
    int why = perf__pool_look(slot, now_ms);
    if (why != WHY_UNSURE && !(why == WHY_NOT && always && pool->vtable.validate))
        return why;
    int64_t budget = pool->options.validate_timeout_ms;
    if (budget_ms >= 0 && budget_ms < budget)
        budget = budget_ms > 0 ? budget_ms : 1;
    perf__counters_add(&pool->counters, COUNT_VALIDATIONS, 1);
    if (pool->vtable.validate(pool->ctx, atomic_load_explicit(&slot->conn, memory_order_relaxed),
                              budget))
        return WHY_INVALID;
    atomic_store_explicit(&slot->alive_ms, perf__now_ms(&pool->clock), memory_order_relaxed);
    return WHY_NOT;
}

/* An idle connection, with a little patience: who holds one may give it back at any moment. */
static struct perf__slot *claim_patiently(perf_pool *pool)
{
    enum { ROUNDS = 4, PAUSES = 8 };
    struct perf__slot *slot = NULL;
    for (int round = 0; round < ROUNDS; round++) {
        if (atomic_load_explicit(&pool->gate, memory_order_relaxed))
            return NULL;
        if ((slot = perf__pool_claim(pool, SLOT_BORROWED)) ||
            atomic_load_explicit(&pool->queue_len, memory_order_relaxed) ||
            !atomic_load_explicit(&pool->slot_count, memory_order_relaxed))
            return slot;
        for (int i = 0; i < PAUSES; i++)
            perf__pause();
    }
    return slot;
}

/* slot: one that is claimed but not fresh, or NULL. */
static __attribute__((noinline)) int acquire_slowly(perf_pool *pool, struct perf__slot *slot,
                                                    const char *who, int64_t timeout_ms,
                                                    void **conn)
{
    if (pool->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (timeout_ms < -1) {
        if (slot)
            perf__pool_give_back(slot);
        return perf__fail(PERF_EINVAL, "timeout_ms is %lld; give -1 (for ever), 0, or more",
                          (long long)timeout_ms);
    }
    int64_t now = perf__now_ms(&pool->clock), begun = now;
    struct perf__slot *mine = slot ? NULL : remembered(pool);
    if (mine && mine->pool == pool && !atomic_load_explicit(&pool->gate, memory_order_relaxed) &&
        perf__slot_claim(mine, SLOT_BORROWED)) {
        perf__pool_remember(mine);
        slot = mine;
    }
    while (slot || (slot = claim_patiently(pool))) {
        int64_t left = timeout_ms < 0             ? -1
                       : timeout_ms > now - begun ? timeout_ms - (now - begun)
                                                  : 0;
        int why = is_fresh(pool, slot, now) ? WHY_NOT : perf__pool_check(slot, now, left, false);
        now = perf__now_ms(&pool->clock);
        if (!why) {
            perf__pool_remember(slot);
            stamp(slot, who, now, 0);
            *conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
            return PERF_OK;
        }
        pthread_mutex_lock(&pool->root->mutex);
        slot->refused++;
        perf__pool_retire(slot, why);
        pthread_mutex_unlock(&pool->root->mutex);
        slot = NULL;
    }
    if (timeout_ms > 0)
        timeout_ms = timeout_ms > now - begun ? timeout_ms - (now - begun) : 0;
    return perf__pool_wait(pool, who, timeout_ms, conn);
}

/* The slot is claimed; the exact time decides. Apart, so that the usual case needs no stack. */
static __attribute__((noinline)) int acquire_by_clock(perf_pool *pool, struct perf__slot *slot,
                                                      int64_t second, const char *who,
                                                      int64_t timeout_ms, void **conn)
{
    int64_t now = now_ms(pool);
    if (UNLIKELY(!is_fresh(pool, slot, now)))
        return acquire_slowly(pool, slot, who, timeout_ms, conn);
    stamp(slot, who, now, second);
    *conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
    return PERF_OK;
}

static inline __attribute__((always_inline)) int acquire(perf_pool *pool, const char *who,
                                                         int64_t timeout_ms, void **conn)
{
    if (UNLIKELY(!pool || !conn))
        return perf__fail(PERF_EINVAL, "perf_pool_acquire needs a pool and a place for the "
                                       "connection");
    const struct perf__pool_hint *hint = &hints[0];
    struct perf__slot *slot = hint->slot;
    if (LIKELY(hint->pool_id == pool->id && slot->pool == pool &&
               atomic_load_explicit(&pool->open_generation, memory_order_relaxed) ==
                   perf__fork_generation)) {
        if (LIKELY(perf__slot_claim(slot, SLOT_BORROWED))) {
            int64_t second = pool->by_seconds ? (int64_t)time(NULL) : 0;
            if (UNLIKELY(!is_fresh_by_second(slot, second)))
                return acquire_by_clock(pool, slot, second, who, timeout_ms, conn);
            stamp_borrower(slot, who);
            *conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
            return PERF_OK;
        }
    }
    return acquire_slowly(pool, NULL, who, timeout_ms, conn);
}

int perf_pool_acquire(perf_pool *pool, int64_t timeout_ms, void **conn)
{
    return acquire(pool, NULL, timeout_ms, conn);
}

int perf_pool_acquire_as(perf_pool *pool, const char *who, int64_t timeout_ms, void **conn)
{
    return acquire(pool, who, timeout_ms, conn);
}

int perf_pool_acquire_key(perf_pool *pool, const char *key, const char *who, int64_t timeout_ms,
                          void **conn)
{
    size_t len = key ? strnlen(key, POOL_MAX_KEY + 1) : 0;
    if (!pool || !conn || !len || len > POOL_MAX_KEY)
        return perf__fail(PERF_EINVAL,
                          "perf_pool_acquire_key needs a pool, a place for the connection and a "
                          "key of 1 to %d bytes; it has %zu",
                          POOL_MAX_KEY, len);
    if (pool->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    int rc = PERF_OK;
    pthread_mutex_lock(&pool->mutex);
    perf_pool *child = perf__pool_child(pool, key, &rc);
    if (child)
        child->users++;
    pthread_mutex_unlock(&pool->mutex);
    if (!child)
        return rc;
    rc = acquire(child, who, timeout_ms, conn);
    pthread_mutex_lock(&pool->mutex);
    child->users--;
    if (atomic_load(&child->gate) & GATE_CLOSING) /* who closes waits for this */
        pthread_cond_broadcast(&pool->settled);
    pthread_mutex_unlock(&pool->mutex);
    return rc;
}

/* ------------------------------------------------------------------ release */

static __attribute__((noinline)) void give_back_fenced(perf_pool *pool)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&pool->queue_len, memory_order_relaxed) ||
        atomic_load_explicit(&pool->head_signalled, memory_order_relaxed))
        return;
    pthread_mutex_lock(&pool->root->mutex);
    perf__pool_serve(pool);
    pthread_mutex_unlock(&pool->root->mutex);
}

static inline __attribute__((always_inline)) void give_back(struct perf__slot *slot)
{
    perf_pool *pool = slot->pool;
    perf__slot_set(slot, SLOT_IDLE);
    /* Only the compiler is held back here; see the top of pool_impl.h. */
    atomic_signal_fence(memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&pool->fencing, memory_order_relaxed)))
        give_back_fenced(pool);
}

void perf__pool_give_back(struct perf__slot *slot)
{
    give_back(slot);
}

static struct perf__slot *find_in(perf_pool *pool, const void *conn)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        if (atomic_load_explicit(&slot->conn, memory_order_relaxed) == conn &&
            perf__slot_state(slot) == SLOT_BORROWED)
            return slot;
    }
    return NULL;
}

static struct perf__slot *find_borrowed(perf_pool *pool, const void *conn)
{
    if (!conn)
        return NULL;
    struct perf__slot *slot = remembered(pool);
    if (slot && atomic_load_explicit(&slot->conn, memory_order_relaxed) == conn &&
        perf__slot_state(slot) == SLOT_BORROWED)
        return slot;
    slot = find_in(pool, conn);
    if (slot)
        return slot;
    pthread_mutex_lock(&pool->mutex);
    for (perf_pool *child = pool->child_list; child && !slot; child = child->next_child)
        slot = find_in(child, conn);
    pthread_mutex_unlock(&pool->mutex);
    return slot;
}

/* The slot of a borrowed connection, or an error in *rc. */
static struct perf__slot *find(perf_pool *pool, const void *conn, int *rc)
{
    if (UNLIKELY(!pool)) {
        *rc = perf__fail(PERF_EINVAL, "the pool is NULL");
        return NULL;
    }
    if (UNLIKELY(pool->fork_generation != perf__fork_generation)) {
        *rc = perf__fail_forked();
        return NULL;
    }
    struct perf__slot *slot = find_borrowed(pool, conn);
    if (!slot)
        *rc = perf__fail(PERF_EINVAL, "this connection is not borrowed from this pool; release "
                                      "each one once, to where it came from");
    return slot;
}

static __attribute__((noinline)) int end_borrowed(struct perf__slot *slot, int why)
{
    perf_pool *root = slot->pool->root;
    pthread_mutex_lock(&root->mutex);
    perf__pool_retire(slot, why);
    pthread_mutex_unlock(&root->mutex);
    if (root->options.no_threads)
        perf__pool_bury(root);
    return PERF_OK;
}

static __attribute__((noinline)) int release_slowly(perf_pool *pool, void *conn)
{
    int rc = PERF_OK;
    struct perf__slot *slot = find(pool, conn, &rc);
    if (!slot)
        return rc;
    int why = (int)atomic_load_explicit(&slot->doomed, memory_order_relaxed);
    if (!why && pool->vtable.reset && pool->vtable.reset(pool->ctx, conn))
        why = WHY_INVALID;
    if (why)
        return end_borrowed(slot, why);
    give_back(slot);
    return PERF_OK;
}

int perf_pool_release(perf_pool *pool, void *conn)
{
    if (UNLIKELY(!pool))
        return perf__fail(PERF_EINVAL, "the pool is NULL");
    const struct perf__pool_hint *hint = &hints[0];
    struct perf__slot *slot = hint->slot;
    if (LIKELY(hint->pool_id == pool->id && pool->fork_generation == perf__fork_generation &&
               !pool->vtable.reset && conn &&
               atomic_load_explicit(&slot->conn, memory_order_relaxed) == conn &&
               perf__slot_state(slot) == SLOT_BORROWED &&
               !atomic_load_explicit(&slot->doomed, memory_order_relaxed))) {
        give_back(slot);
        return PERF_OK;
    }
    return release_slowly(pool, conn);
}

int perf_pool_discard(perf_pool *pool, void *conn)
{
    int rc = PERF_OK;
    struct perf__slot *slot = find(pool, conn, &rc);
    return slot ? end_borrowed(slot, WHY_DISCARDED) : rc;
}

int perf_pool_detach(perf_pool *pool, void *conn)
{
    int rc = PERF_OK;
    struct perf__slot *slot = find(pool, conn, &rc);
    if (!slot)
        return rc;
    perf_pool *owner = slot->pool, *root = owner->root;
    pthread_mutex_lock(&root->mutex);
    perf__pool_unwatch(slot);
    perf__pool_vacate(slot);
    perf__counters_add(&owner->counters, COUNT_DETACHED, 1);
    perf__pool_want(owner, perf__now_ms(&owner->clock));
    pthread_mutex_unlock(&root->mutex);
    return PERF_OK;
}
