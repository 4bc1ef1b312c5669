/* SPDX-License-Identifier: MIT */
/*
 * pool_queue.c - those who wait for a connection, and how they get one.
 *
 * The queue is in order of arrival. While the gate is open, its first is only
 * told that something came back and looks for itself, in competition with those
 * who come from outside; when it has been patient for long enough it closes the
 * gate, and connections are handed over in order. All under the root's mutex.
 */
#include "../base/clock.h"
#include "../base/fence.h"
#include "../base/status.h"
#include "pool_impl.h"

enum { VETTED_MS = 1000 };

static int64_t system_ns(void)
{
    return perf__now_ns(&perf__default_clock);
}

void perf__pool_enqueue(perf_pool *pool, struct perf__waiter *waiter, bool first)
{
    struct perf__waiters *q = &pool->queue;
    waiter->queued = true;
    waiter->head_since_ns = first || !q->head ? system_ns() : 0;
    waiter->prev = first ? NULL : q->tail;
    waiter->next = first ? q->head : NULL;
    *(waiter->prev ? &waiter->prev->next : &q->head) = waiter;
    *(waiter->next ? &waiter->next->prev : &q->tail) = waiter;
    atomic_store_explicit(&pool->head_signalled, 0, memory_order_relaxed);
    atomic_fetch_add(&pool->queue_len, 1);
    pool->fenced_ms = perf__now_ms(&pool->clock);
    if (atomic_exchange(&pool->fencing, 1))
        atomic_thread_fence(memory_order_seq_cst);
    else
        perf__fence_all(); /* whoever gives back from here on sees us, or we see the connection */
}

void perf__pool_gate(perf_pool *pool, uint32_t flag, bool closed)
{
    uint32_t gate = atomic_load(&pool->gate);
    gate = closed ? gate | flag : gate & ~flag;
    atomic_store(&pool->gate, gate);
    atomic_store(&pool->open_generation, gate ? 0 : pool->fork_generation);
}

static void set_starving(perf_pool *pool, bool on)
{
    perf__pool_gate(pool, GATE_STARVING, on);
}

void perf__pool_dequeue(struct perf__waiter *waiter)
{
    perf_pool *pool = waiter->pool;
    struct perf__waiters *q = &pool->queue;
    if (!waiter->queued)
        return;
    *(waiter->prev ? &waiter->prev->next : &q->head) = waiter->next;
    *(waiter->next ? &waiter->next->prev : &q->tail) = waiter->prev;
    waiter->queued = false;
    waiter->prev = waiter->next = NULL;
    atomic_fetch_sub(&pool->queue_len, 1);
    atomic_store_explicit(&pool->head_signalled, 0, memory_order_relaxed);
    struct perf__waiter *next = q->head;
    if (!next)
        set_starving(pool, false);
    else if (next->head_since_ns == 0) { /* it slept without a limit to its patience */
        next->head_since_ns = system_ns();
        if (!next->request)
            pthread_cond_signal(&next->cond);
    }
}

static bool any_idle(perf_pool *pool)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (perf__slot_state(perf__pool_slot(pool, i)) == SLOT_IDLE)
            return true;
    return false;
}

/* Nobody is there to wait while it is validated: otherwise it is checked or ended elsewhere. */
static bool is_lendable(struct perf__slot *slot)
{
    int64_t now = perf__now_ms(&slot->pool->clock);
    int why = perf__pool_is_fresh(slot, now) ? WHY_NOT : perf__pool_look(slot, now);
    /* One that was validated for us a moment ago is not sent away again because there still is
     * something to be read from its socket. */
    bool vetted = slot->work == WORK_CHECKED &&
                  now - atomic_load_explicit(&slot->alive_ms, memory_order_relaxed) < VETTED_MS;
    slot->work = WORK_OPEN;
    if (!why || (why == WHY_UNSURE && vetted))
        return true;
    if (why == WHY_UNSURE && perf__pool_check_later(slot))
        return false;
    slot->refused++;
    perf__pool_retire(slot, why == WHY_UNSURE ? WHY_INVALID : why);
    return false;
}

void perf__pool_serve(perf_pool *pool)
{
    struct perf__waiter *waiter;
    while ((waiter = pool->queue.head)) {
        uint32_t gate = atomic_load(&pool->gate);
        if (gate & (GATE_SUSPENDED | GATE_CLOSING))
            return;
        if (!waiter->request && !(gate & GATE_STARVING)) {
            if (any_idle(pool)) {
                atomic_store_explicit(&pool->head_signalled, 1, memory_order_relaxed);
                pthread_cond_signal(&waiter->cond);
            }
            return;
        }
        struct perf__slot *slot = perf__pool_claim(pool, SLOT_BORROWED);
        if (!slot) { /* a request cannot run out of patience by itself */
            if (waiter->request && system_ns() - waiter->head_since_ns >= POOL_PATIENCE_NS)
                set_starving(pool, true);
            return;
        }
        if (waiter->request && !is_lendable(slot))
            continue;
        perf__pool_dequeue(waiter);
        waiter->slot = slot;
        /* Strict order goes on while the next one has waited long, too; where connections are held
         * for less time than it takes to wake a thread, it would be all that is done. */
        if (pool->queue.head && system_ns() - pool->queue.head->begun_ns < POOL_STRICT_NS)
            set_starving(pool, false);
        if (waiter->request)
            perf__pool_answer(waiter->request, PERF_OK);
        else
            pthread_cond_signal(&waiter->cond);
    }
}

void perf__pool_record_wait(perf_pool *pool, int64_t since_ns)
{
    int64_t ns = perf__now_ns(&pool->clock) - since_ns;
    perf_pool *root = pool->root;
    uint64_t waited = ns > 0 ? (uint64_t)ns : 0;
    perf__histogram_record(&root->waits, waited);
    if (waited > atomic_load_explicit(&root->wait_max_ns, memory_order_relaxed))
        atomic_store_explicit(&root->wait_max_ns, waited, memory_order_relaxed);
}

int perf__pool_no_answer(perf_pool *pool, int64_t waited_ms)
{
    uint32_t gate = atomic_load(&pool->gate), waiting = atomic_load(&pool->queue_len);
    uint32_t others = waiting ? waiting - 1 : 0;
    perf__counters_add(&pool->counters, COUNT_TIMEOUTS, 1);
    if (pool->open_error && pool->total == pool->opening)
        return perf__fail(PERF_EUNAVAILABLE,
                          "no connection%s%s within %lld ms, for opening one failed with %s: %s",
                          *pool->key ? " to " : "", pool->key, (long long)waited_ms,
                          perf_strstatus(pool->open_error), pool->open_text);
    if (gate & GATE_SUSPENDED)
        return perf__fail(PERF_ETIMEDOUT,
                          "the pool was suspended all of the %lld ms; call perf_pool_resume",
                          (long long)waited_ms);
    return perf__fail(PERF_ETIMEDOUT,
                      "no connection%s%s came free within %lld ms: %u are out, %u are being "
                      "opened, max_size is %llu, and %u others wait; raise max_size or the "
                      "timeout, or hold connections for less time",
                      *pool->key ? " to " : "", pool->key, (long long)waited_ms,
                      perf__pool_count(pool, SLOT_BORROWED), pool->opening,
                      (unsigned long long)pool->options.max_size, others);
}

/* What the callers do when there are no threads to do it. With the mutex, which it lets go of. */
static struct perf__slot *open_by_myself(perf_pool *pool, int64_t timeout_ms)
{
    perf_pool *root = pool->root;
    if (root->graves) { /* what was retired takes up room until it is closed */
        pthread_mutex_unlock(&root->mutex);
        perf__pool_bury(root);
        pthread_mutex_lock(&root->mutex);
    }
    struct perf__slot *slot = perf__pool_reserve(pool, perf__now_ms(&pool->clock));
    if (!slot && root->graves) { /* another key made room */
        pthread_mutex_unlock(&root->mutex);
        perf__pool_bury(root);
        pthread_mutex_lock(&root->mutex);
        slot = perf__pool_reserve(pool, perf__now_ms(&pool->clock));
    }
    if (!slot)
        return NULL;
    pthread_mutex_unlock(&root->mutex);
    int64_t limit = pool->options.open_timeout_ms;
    int rc = perf__pool_open_slot(slot, timeout_ms >= 0 && timeout_ms < limit ? timeout_ms : limit,
                                  SLOT_BORROWED);
    perf__pool_bury(root);
    pthread_mutex_lock(&root->mutex);
    return rc ? NULL : slot;
}

/* Until when to sleep, on the system's clock; 0: for ever. */
static int64_t wake_up_ns(const perf_pool *pool, const struct perf__waiter *waiter,
                          int64_t deadline_ns)
{
    int64_t until = deadline_ns ? deadline_ns : INT64_MAX;
    uint32_t gate = atomic_load(&pool->gate);
    if (pool->queue.head == waiter && !(gate & (GATE_STARVING | GATE_SUSPENDED))) {
        int64_t patience = waiter->head_since_ns + POOL_PATIENCE_NS;
        until = patience < until ? patience : until;
    }
    if (pool->options.no_threads && pool->total < pool->options.max_size &&
        !(gate & GATE_SUSPENDED)) {
        int64_t left = pool->next_open_ms - perf__now_ms(&pool->clock);
        /* The host's clock may not be the system's. */
        int64_t retry = system_ns() + 1000000 * (left <= 0 ? POOL_SOON : left);
        until = retry < until ? retry : until;
    }
    return until == INT64_MAX ? 0 : until;
}

/* Waits in the queue for a slot, which may not be fresh. With the mutex. */
static int wait_for_slot(perf_pool *pool, struct perf__waiter *waiter, int64_t deadline_ns,
                         int64_t timeout_ms, struct perf__slot **out)
{
    perf_pool *root = pool->root;
    for (;;) {
        uint32_t gate = atomic_load(&pool->gate);
        if (!waiter->slot && (gate & GATE_CLOSING))
            return perf__fail(PERF_ECLOSED, "the pool is being closed");
        if (!waiter->slot && pool->queue.head == waiter && !(gate & GATE_SUSPENDED)) {
            atomic_store_explicit(&pool->head_signalled, 0, memory_order_relaxed);
            atomic_thread_fence(memory_order_seq_cst);
            waiter->slot = perf__pool_claim(pool, SLOT_BORROWED);
        }
        int64_t now_ns = system_ns();
        bool late = deadline_ns && now_ns >= deadline_ns;
        if (!waiter->slot && pool->options.no_threads && !late && !(gate & GATE_SUSPENDED)) {
            int64_t left = deadline_ns ? (deadline_ns - now_ns) / 1000000 + 1 : -1;
            struct perf__slot *slot = open_by_myself(pool, left);
            if (slot && waiter->slot) { /* somebody was faster */
                slot->refused++;
                perf__slot_set(slot, SLOT_IDLE);
                perf__pool_serve(pool);
            } else if (slot)
                waiter->slot = slot;
        }
        if (waiter->slot) {
            perf__pool_dequeue(waiter);
            perf__pool_serve(pool); /* there may be more, for the next ones */
            *out = waiter->slot;
            return PERF_OK;
        }
        if (late)
            return perf__pool_no_answer(pool, timeout_ms);
        perf__pool_want(pool, perf__now_ms(&pool->clock));
        perf__cond_wait(&waiter->cond, &root->mutex, wake_up_ns(pool, waiter, deadline_ns));
        if (!waiter->slot && pool->queue.head == waiter &&
            system_ns() - waiter->head_since_ns >= POOL_PATIENCE_NS)
            set_starving(pool, true);
    }
}

int perf__pool_wait(perf_pool *pool, const char *who, int64_t timeout_ms, void **conn)
{
    perf_pool *root = pool->root;
    struct perf__waiter waiter = {.pool = pool, .begun_ns = system_ns()};
    int64_t since_ns = perf__now_ns(&pool->clock);
    int64_t deadline_ns = timeout_ms < 0    ? 0
                          : timeout_ms == 0 ? waiter.begun_ns
                                            : perf__deadline_after(timeout_ms);
    struct perf__slot *slot = NULL;
    int rc, why;
    if (perf__cond_init(&waiter.cond))
        return perf__fail_nomem("a waiting caller");

    pthread_mutex_lock(&root->mutex);
    root->inside++;
    if (atomic_load(&pool->gate) & GATE_CLOSING) {
        rc = perf__fail(PERF_ECLOSED, "the pool is being closed");
        goto out;
    }
    if (atomic_load(&pool->queue_len) >= pool->options.max_waiting) {
        perf__counters_add(&pool->counters, COUNT_REJECTED, 1);
        rc = perf__fail(PERF_EBUSY,
                        "%llu callers wait for a connection already; raise max_waiting, or "
                        "send less",
                        (unsigned long long)pool->options.max_waiting);
        goto out;
    }
    if (!pool->options.no_threads && (rc = perf__pool_start_keeper(root)))
        goto out;
    perf__counters_add(&pool->counters, COUNT_WAITS, 1);
    pool->keeps_idle = true;
    perf__pool_enqueue(pool, &waiter, false);
    for (;;) {
        if (timeout_ms == 0)
            perf__pool_want(pool, perf__now_ms(&pool->clock)); /* for those who come later */
        rc = wait_for_slot(pool, &waiter, deadline_ns, timeout_ms, &slot);
        if (rc)
            break;
        int64_t now = perf__now_ms(&pool->clock);
        if (perf__pool_is_fresh(slot, now))
            break;
        pthread_mutex_unlock(&root->mutex);
        int64_t left = deadline_ns ? (deadline_ns - system_ns()) / 1000000 : -1;
        why = perf__pool_check(slot, now, left > 0 || !deadline_ns ? left : 0, false);
        pthread_mutex_lock(&root->mutex);
        if (!why)
            break;
        slot->refused++;
        perf__pool_retire(slot, why);
        waiter.slot = slot = NULL;
        perf__pool_enqueue(pool, &waiter, true);
    }
    perf__pool_dequeue(&waiter);
    perf__pool_serve(pool);
    if (!rc) {
        perf__pool_remember(slot);
        perf__pool_stamp(slot, who, perf__now_ms(&pool->clock));
        *conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
    }
    perf__pool_record_wait(pool, since_ns);
out:
    root->inside--;
    if (atomic_load(&pool->gate) & GATE_CLOSING)
        pthread_cond_broadcast(&root->settled);
    pthread_mutex_unlock(&root->mutex);
    pthread_cond_destroy(&waiter.cond);
    return rc;
}
