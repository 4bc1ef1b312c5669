/* SPDX-License-Identifier: MIT */
/*
 * worker.c - what a thread of an executor does: find an item, run it, sleep.
 *
 * A thread looks into its own queue, then takes a handful from the common one,
 * then half of what another thread has (work stealing: Blumofe and Leiserson,
 * JACM 1999; the queue and the rule for waking are those of Go's scheduler).
 *
 * Waking. Whoever puts an item wakes a sleeper only if no thread is searching,
 * and a searching thread that finds something wakes the next one. So a stream
 * of items costs its producer no system call. Nothing is missed because both
 * sides first write and then read with a full fence between: who puts, an item
 * and then the counts of sleepers and searchers; who goes to sleep or stops searching,
 * that count and then the queues.
 */
#include "executor_impl.h"

#include "../base/thread.h"

enum {
    SEARCH_ROUNDS = 32, /* looks at all queues before a thread goes to sleep */
    PAUSES = 16,        /* between two of them */
};

_Thread_local struct perf__worker *perf__worker_self __attribute__((tls_model("initial-exec")));

/* ------------------------------------------------------------ the own queue */

uint32_t perf__worker_count(const struct perf__worker *w)
{
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    uint32_t n = atomic_load_explicit(&w->tail, memory_order_acquire) - head;
    return n <= PERF__LOCAL_ITEMS ? n : 0;
}

static void write_item(struct perf__worker *w, uint32_t at, struct perf__item item)
{
    at &= PERF__LOCAL_ITEMS - 1;
    atomic_store_explicit(&w->items[at].fn, item.fn, memory_order_relaxed);
    atomic_store_explicit(&w->items[at].arg, item.arg, memory_order_relaxed);
}

/* What is read is only true if head has not moved since. */
static struct perf__item read_item(struct perf__worker *w, uint32_t at)
{
    at &= PERF__LOCAL_ITEMS - 1;
    return (struct perf__item){atomic_load_explicit(&w->items[at].fn, memory_order_relaxed),
                               atomic_load_explicit(&w->items[at].arg, memory_order_relaxed)};
}

/* By the owner only. False: it is full. */
bool perf__worker_put(struct perf__worker *w, struct perf__item item)
{
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&w->head, memory_order_acquire) >= PERF__LOCAL_ITEMS)
        return false;
    write_item(w, tail, item);
    atomic_store_explicit(&w->tail, tail + 1, memory_order_release);
    return true;
}

/* By the owner only. */
static bool get(struct perf__worker *w, struct perf__item *item)
{
    uint32_t head = atomic_load_explicit(&w->head, memory_order_acquire);
    do {
        if (head == atomic_load_explicit(&w->tail, memory_order_relaxed))
            return false;
        *item = read_item(w, head);
    } while (!atomic_compare_exchange_weak_explicit(&w->head, &head, head + 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    return true;
}

/* Half of what victim has: one to run, the others into the own queue, which is empty. */
static bool steal(struct perf__worker *w, struct perf__worker *victim, struct perf__item *item)
{
    uint32_t tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&victim->head, memory_order_acquire), n;
    do {
        n = atomic_load_explicit(&victim->tail, memory_order_acquire) - head;
        n -= n / 2;
        if (!n)
            return false;
        if (n > PERF__LOCAL_ITEMS / 2) { /* head was old when tail was read */
            head = atomic_load_explicit(&victim->head, memory_order_acquire);
            n = 0;
            continue;
        }
        *item = read_item(victim, head);
        for (uint32_t i = 1; i < n; i++)
            write_item(w, tail + i - 1, read_item(victim, head + i));
    } while (!n || !atomic_compare_exchange_weak_explicit(
                       &victim->head, &head, head + n, memory_order_acq_rel, memory_order_acquire));
    atomic_store_explicit(&w->tail, tail + n - 1, memory_order_release);
    atomic_fetch_add_explicit(&w->stolen, n, memory_order_relaxed);
    return true;
}

static bool steal_from_any(struct perf__worker *w, struct perf__item *item)
{
    perf_executor *e = w->executor;
    uint32_t slots = atomic_load_explicit(&e->slots, memory_order_acquire);
    uint32_t first = (uint32_t)perf__thread_random();
    for (uint32_t i = 0; i < slots; i++) {
        struct perf__worker *victim =
            atomic_load_explicit(&e->workers[(first + i) % slots], memory_order_acquire);
        if (victim && victim != w && steal(w, victim, item))
            return true;
    }
    return false;
}

/* --------------------------------------------------------- the common queue */

/* The own queue must be empty when more than one is wanted. */
static bool take(struct perf__worker *w, int priority, uint32_t max, struct perf__item *item)
{
    perf_executor *e = w->executor;
    struct perf__ring *ring = atomic_load_explicit(&e->rings[priority], memory_order_acquire);
    struct perf__item items[PERF__TAKE];
    uint32_t n, tail;
    if (!ring || !(n = perf__ring_take(ring, items, max)))
        return false;
    *item = items[0];
    if (n > 1) {
        tail = atomic_load_explicit(&w->tail, memory_order_relaxed);
        for (uint32_t i = 1; i < n; i++)
            write_item(w, tail + i - 1, items[i]);
        atomic_store_explicit(&w->tail, tail + n - 1, memory_order_release);
    }
    perf__submit_made_room(e);
    return true;
}

static bool find(struct perf__worker *w, struct perf__item *item)
{
    uint32_t turn = w->tick++ % 16;
    if (turn == 0 && take(w, PERF__LOW, 1, item))
        return true;
    if (turn == 8 && take(w, PERF__NORMAL, 1, item)) /* before what this thread gave itself */
        return true;
    return take(w, PERF__HIGH, 1, item) || get(w, item) ||
           take(w, PERF__NORMAL, PERF__TAKE, item) || take(w, PERF__LOW, 1, item) ||
           steal_from_any(w, item);
}

/* Is there anything that find would find? */
static bool anything(perf_executor *e)
{
    for (int p = 0; p < PERF__PRIORITIES; p++) {
        struct perf__ring *ring = atomic_load_explicit(&e->rings[p], memory_order_acquire);
        if (ring && !perf__ring_empty(ring))
            return true;
    }
    uint32_t slots = atomic_load_explicit(&e->slots, memory_order_acquire);
    for (uint32_t i = 0; i < slots; i++) {
        struct perf__worker *w = atomic_load_explicit(&e->workers[i], memory_order_acquire);
        if (w && perf__worker_count(w))
            return true;
    }
    return false;
}

/* ---------------------------------------------------------- sleep and waking */

static bool take_token(perf_executor *e)
{
    uint32_t n = atomic_load(&e->tokens);
    while (n)
        if (atomic_compare_exchange_weak(&e->tokens, &n, n - 1))
            return true;
    return false;
}

/* A sleeper that leaves by itself looks for tokens after it has uncounted itself. If the last one
 * did so before there were any, those who count as searching would never search. */
static void take_back(perf_executor *e)
{
    while (!atomic_load(&e->sleepers) && take_token(e))
        atomic_fetch_sub(&e->searching, 1);
}

void perf__worker_wake(perf_executor *e)
{
    uint32_t none = 0;
    if (!atomic_load_explicit(&e->sleepers, memory_order_relaxed) ||
        atomic_load_explicit(&e->searching, memory_order_relaxed) ||
        !atomic_compare_exchange_strong(&e->searching, &none, 1))
        return;
    atomic_fetch_add(&e->tokens, 1); /* whoever takes it is the one that is searching */
    perf__futex_wake(&e->tokens, 1);
    take_back(e);
}

void perf__worker_wake_all(perf_executor *e)
{
    uint32_t n = atomic_load(&e->sleepers);
    atomic_fetch_add(&e->searching, n);
    atomic_fetch_add(&e->tokens, n);
    perf__futex_wake_all(&e->tokens);
    take_back(e);
}

/* It has found something. If nobody looks for more, somebody should. */
static void stop_searching(struct perf__worker *w)
{
    perf_executor *e = w->executor;
    w->searching = false;
    if (atomic_fetch_sub(&e->searching, 1) == 1 && anything(e))
        perf__submit_notify(e);
}

static void tell_drainers(perf_executor *e)
{
    pthread_mutex_lock(&e->mutex);
    if (e->drainers)
        pthread_cond_broadcast(&e->idle);
    pthread_mutex_unlock(&e->mutex);
}

/* Sleeps until there may be work; false: the thread shall end. */
static bool sleep_here(struct perf__worker *w)
{
    perf_executor *e = w->executor;
    int64_t idle_ns = 0; /* how long it has slept without being woken */
    atomic_fetch_add_explicit(&w->parked, 1, memory_order_relaxed);
    if (w->searching) {
        w->searching = false;
        atomic_fetch_sub(&e->searching, 1);
    }
    atomic_fetch_add(&e->sleepers, 1);
    tell_drainers(e);
    while (!take_token(e)) {
        if (atomic_load(&e->state) == PERF__STOPPING || anything(e)) {
            atomic_fetch_sub(&e->sleepers, 1);
            if (!take_token(e)) /* nobody has counted it as searching */
                atomic_fetch_add(&e->searching, 1);
            w->searching = true; /* so that it looks for others when it has found something */
            return true;
        }
        if (idle_ns) { /* no sleeper any more when it is decided, so that nobody counts on it */
            atomic_fetch_sub(&e->sleepers, 1);
            if (take_token(e)) {
                w->searching = true;
                return true;
            }
            if (perf__shrink(e, idle_ns))
                return false;
            atomic_fetch_add(&e->sleepers, 1);
            idle_ns = 0;
            continue;
        }
        int64_t timeout_ns = perf__idle_ns(e), slept = perf__now_ns(&perf__default_clock);
        perf__futex_wait(&e->tokens, 0, timeout_ns);
        if (timeout_ns >= 0 && perf__now_ns(&perf__default_clock) - slept >= timeout_ns)
            idle_ns = timeout_ns;
    }
    atomic_fetch_sub(&e->sleepers, 1);
    w->searching = true;
    return true;
}

static bool search(struct perf__worker *w, struct perf__item *item)
{
    perf_executor *e = w->executor;
    if (!w->searching) { /* one is enough */
        uint32_t none = 0;
        if (!atomic_compare_exchange_strong(&e->searching, &none, 1))
            return false;
        w->searching = true;
    }
    for (int round = 0; round < SEARCH_ROUNDS; round++) {
        if (find(w, item))
            return true;
        for (int i = 0; i < PAUSES; i++)
            perf__pause();
    }
    return false;
}

void *perf__worker_main(void *arg)
{
    struct perf__worker *w = arg;
    perf_executor *e = w->executor;
    struct perf__item item;
    perf__worker_self = w;
    for (;;) {
        if (!find(w, &item) && !search(w, &item)) {
            if (atomic_load(&e->state) == PERF__STOPPING)
                break;
            if (!sleep_here(w))
                goto ended; /* counted out already */
            continue;
        }
        if (w->searching)
            stop_searching(w);
        if (__builtin_expect(
                atomic_load_explicit(&e->state, memory_order_relaxed) == PERF__STOPPING, 0) &&
            item.fn != perf__task_item)
            perf__counters_add(&e->counters, PERF__DROPPED, 1); /* a post; a task sees it itself */
        else
            item.fn(item.arg);
        atomic_store_explicit(&w->done, atomic_load_explicit(&w->done, memory_order_relaxed) + 1,
                              memory_order_release);
    }
    if (w->searching) {
        w->searching = false;
        atomic_fetch_sub(&e->searching, 1);
    }
    atomic_fetch_sub(&e->threads, 1);
ended:
    perf__worker_self = NULL;
    pthread_mutex_lock(&e->mutex);
    atomic_store(&w->ended, true); /* it takes no lock any more: who holds this one may join it */
    pthread_cond_broadcast(&e->idle);
    pthread_mutex_unlock(&e->mutex);
    return NULL;
}
