/* SPDX-License-Identifier: MIT */
/*
 * pool_work.c - opening, checking and closing connections, and the threads that
 * do it.
 *
 * Workers open and check; they come when there is work and go when there is
 * none. The keeper sleeps in epoll on the sockets of all connections, closes
 * what was retired, runs the upkeep and calls back. A slot that is being worked
 * on is busy, so nobody else touches it. The vtable is called without the mutex.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "pool_impl.h"

/* ------------------------------------------------------------------ sockets */

static int descriptor_of(const struct perf__slot *slot)
{
    const perf_pool *pool = slot->pool;
    if (!pool->vtable.fd)
        return -1;
    return pool->vtable.fd(pool->ctx, atomic_load_explicit(&slot->conn, memory_order_relaxed));
}

bool perf__slot_peer_closed(const struct perf__slot *slot, bool *readable)
{
    struct pollfd p = {descriptor_of(slot), POLLIN | POLLRDHUP, 0};
    if (p.fd < 0 || poll(&p, 1, 0) <= 0)
        return false;
    *readable = p.revents & POLLIN;
    return p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
}

/* Edge-triggered and only for the peer's closing: it costs nothing while the connection is used. */
static void watch(struct perf__slot *slot)
{
    perf_pool *root = slot->pool->root;
    slot->watched = -1;
    if (root->epoll < 0)
        return;
    int fd = descriptor_of(slot);
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = slot};
    if (fd >= 0 && !epoll_ctl(root->epoll, EPOLL_CTL_ADD, fd, &event))
        slot->watched = fd;
}

void perf__pool_unwatch(struct perf__slot *slot)
{
    if (slot->watched >= 0)
        epoll_ctl(slot->pool->root->epoll, EPOLL_CTL_DEL, slot->watched, NULL);
    slot->watched = -1;
}

static void peer_closed(struct perf__slot *slot)
{
    uint32_t not_doomed = WHY_NOT;
    if (perf__slot_claim(slot, SLOT_BUSY)) { /* asked again: the event may be an old one */
        bool readable;
        if (perf__slot_peer_closed(slot, &readable)) {
            pthread_mutex_lock(&slot->pool->root->mutex);
            perf__pool_retire(slot, WHY_PEER);
            pthread_mutex_unlock(&slot->pool->root->mutex);
        } else {
            perf__pool_give_back(slot);
        }
    } else if (perf__slot_state(slot) == SLOT_BORROWED) {
        atomic_compare_exchange_strong(&slot->doomed, &not_doomed, WHY_PEER);
    }
}

/* ------------------------------------------------------------------ closing */

void perf__pool_vacate(struct perf__slot *slot)
{
    perf_pool *pool = slot->pool;
    if (perf__slot_uses(slot) - slot->refused != slot->uses_before)
        perf__counters_add(&pool->counters, COUNT_FIRST_LENDS, 1);
    atomic_store_explicit(&slot->conn, NULL, memory_order_relaxed);
    atomic_store_explicit(&slot->doomed, WHY_NOT, memory_order_relaxed);
    perf__slot_set(slot, SLOT_EMPTY);
    pool->total--;
    pool->root->total_all--;
}

static void opening_failed(perf_pool *pool, int rc)
{
    int64_t now = perf__now_ms(&pool->clock);
    pool->backoff_ms = pool->backoff_ms ? 2 * pool->backoff_ms : POOL_BACKOFF_MIN;
    if (pool->backoff_ms > POOL_BACKOFF_MAX)
        pool->backoff_ms = POOL_BACKOFF_MAX;
    /* Half fixed, half random: the opens of many processes must not come in step. */
    pool->next_open_ms = now + pool->backoff_ms / 2 +
                         (int64_t)(perf__thread_random() % (uint64_t)(pool->backoff_ms / 2 + 1));
    pool->open_error = rc;
    snprintf(pool->open_text, sizeof pool->open_text, "%.250s", perf_last_error());
    perf__counters_add(&pool->counters, COUNT_OPEN_FAILURES, 1);
    perf__log(&pool->host.log, PERF_LOG_WARNING, "pool",
              "opening a connection%s%s failed with %s: %s; next attempt in %lld ms",
              *pool->key ? " to " : "", pool->key, perf_strstatus(rc), pool->open_text,
              (long long)(pool->next_open_ms - now));
}

/* Opened a moment ago and dead before its first use: as good as an open that failed, so that the
 * next one is not opened at once. */
static void note_stillborn(const struct perf__slot *slot, int why)
{
    perf_pool *pool = slot->pool;
    int64_t now = perf__now_ms(&pool->clock);
    if ((why == WHY_PEER || why == WHY_INVALID) && now - slot->opened_ms < POOL_BACKOFF_MAX &&
        now >= pool->next_open_ms && perf__slot_uses(slot) - slot->refused == slot->uses_before)
        opening_failed(pool, perf__fail(PERF_EIO, "a new connection was dead before its first "
                                                  "use"));
}

void perf__pool_retire(struct perf__slot *slot, int why)
{
    perf_pool *root = slot->pool->root;
    perf__slot_set(slot, SLOT_BUSY);
    slot->why = why;
    slot->next = root->graves;
    root->graves = slot;
    perf__counters_add(&slot->pool->counters, COUNT_CLOSED + (uint32_t)why, 1);
    note_stillborn(slot, why);
    if (root->options.no_threads)
        return; /* the caller buries it, or the next upkeep */
    perf__pool_wake_keeper(root);
}

/* A connection is gone: somebody may open one. Where max_total was in the way, that is first who
 * waits, of whatever key. */
static void share_room(perf_pool *pool)
{
    perf_pool *root = pool->root;
    int64_t now = perf__now_ms(&pool->clock);
    if (root->total_all + 1 >= root->options.max_total)
        for (perf_pool *other = root; other; other = perf__pool_next(root, other))
            if (atomic_load(&other->queue_len))
                perf__pool_want(other, now);
    perf__pool_want(pool, now);
}

void perf__pool_bury(perf_pool *root)
{
    pthread_mutex_lock(&root->mutex);
    for (struct perf__slot *slot; (slot = root->graves);) {
        perf_pool *pool = slot->pool;
        void *conn = atomic_load_explicit(&slot->conn, memory_order_relaxed);
        root->graves = slot->next;
        perf__pool_unwatch(slot);
        root->burying++;
        pthread_mutex_unlock(&root->mutex);
        pool->vtable.close(pool->ctx, conn);
        pthread_mutex_lock(&root->mutex);
        root->burying--;
        perf__pool_vacate(slot);
        share_room(pool);
        pthread_cond_broadcast(&root->settled);
    }
    pthread_mutex_unlock(&root->mutex);
}

/* ------------------------------------------------------------------ opening */

static struct perf__slot *empty_slot(perf_pool *pool)
{
    uint32_t count = atomic_load_explicit(&pool->slot_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        struct perf__slot *slot = perf__pool_slot(pool, i);
        if (perf__slot_state(slot) == SLOT_EMPTY)
            return slot;
    }
    if (count == POOL_MAX_SIZE)
        return NULL;
    _Static_assert(sizeof(struct perf__slot) % 64 == 0, "slots share no line");
    /* The host's allocator aligns for any type, not for lines: a line more, and rounding. */
    char *block =
        perf__calloc(&pool->host.allocator, 1, sizeof(struct perf__slot) * POOL_CHUNK + 64);
    if (!block)
        return NULL;
    struct perf__slot *chunk =
        (struct perf__slot *)(void *)(block + (64 - (uintptr_t)block % 64) % 64);
    for (uint32_t i = 0; i < POOL_CHUNK; i++) {
        chunk[i].pool = pool;
        chunk[i].index = count + i;
        chunk[i].watched = -1;
    }
    pool->blocks[count / POOL_CHUNK] = block;
    atomic_store_explicit(&pool->chunks[count / POOL_CHUNK], chunk, memory_order_release);
    atomic_store_explicit(&pool->slot_count, count + POOL_CHUNK, memory_order_release);
    return &chunk[0];
}

/* max_total is reached: an idle connection of another key makes room for who waits, and for nothing
 * else, or the keys would take it from each other for ever. One at a time. */
static void make_room(perf_pool *pool)
{
    perf_pool *root = pool->root;
    if (!atomic_load(&pool->queue_len) || root->graves || root->burying)
        return;
    for (perf_pool *other = root; other; other = perf__pool_next(root, other)) {
        struct perf__slot *slot = other == pool ? NULL : perf__pool_claim(other, SLOT_BUSY);
        if (slot) {
            perf__pool_retire(slot, WHY_IDLE);
            return;
        }
    }
}

struct perf__slot *perf__pool_reserve(perf_pool *pool, int64_t now_ms)
{
    perf_pool *root = pool->root;
    if (pool->total >= pool->options.max_size || pool->opening >= pool->options.max_opening ||
        now_ms < pool->next_open_ms || (atomic_load(&pool->gate) & (GATE_SUSPENDED | GATE_CLOSING)))
        return NULL;
    if (root->total_all >= root->options.max_total) {
        make_room(pool);
        return NULL;
    }
    struct perf__slot *slot = empty_slot(pool);
    if (!slot)
        return NULL;
    perf__slot_set(slot, SLOT_BUSY);
    slot->work = WORK_OPEN;
    slot->epoch = atomic_load(&pool->epoch);
    slot->uses_before = perf__slot_uses(slot) - slot->refused;
    pool->total++;
    root->total_all++;
    pool->opening++;
    pool->next_open_ms = now_ms + pool->options.open_interval_ms;
    return slot;
}

int perf__pool_open_slot(struct perf__slot *slot, int64_t timeout_ms, uint32_t as)
{
    perf_pool *pool = slot->pool, *root = pool->root;
    void *conn = NULL;
    int64_t begun = perf__now_ns(&pool->clock);
    perf__fail(PERF_EIO, "it gave no reason");
    int rc = pool->vtable.open(pool->ctx, pool->key, timeout_ms, &conn);
    int64_t took = perf__now_ns(&pool->clock) - begun, now = perf__now_ms(&pool->clock);
    if (!rc && !conn)
        rc = perf__fail(PERF_EINVAL, "open returned PERF_OK and no connection");

    pthread_mutex_lock(&root->mutex);
    pool->opening--;
    if (rc) {
        perf__pool_vacate(slot);
        opening_failed(pool, rc);
    } else {
        int64_t life = pool->options.max_lifetime_ms;
        if (life > 0)
            life -= (int64_t)(perf__thread_random() % (uint64_t)(life / 10 + 1));
        pool->open_error = 0;
        pool->backoff_ms = 0;
        slot->opened_ms = now;
        atomic_store_explicit(&slot->expires_ms, life > 0 ? now + life : INT64_MAX,
                              memory_order_relaxed);
        atomic_store_explicit(&slot->conn, conn, memory_order_relaxed);
        atomic_store_explicit(&slot->since_ms, now, memory_order_relaxed);
        atomic_store_explicit(&slot->second, 0, memory_order_relaxed);
        atomic_store_explicit(&slot->alive_ms, now, memory_order_relaxed);
        atomic_store_explicit(&slot->quiet_since_ms, now, memory_order_relaxed);
        watch(slot);
        perf__counters_add(&pool->counters, COUNT_OPENED, 1);
        perf__histogram_record(&root->opens, took > 0 ? (uint64_t)took : 0);
        if (slot->epoch != atomic_load(&pool->epoch)) { /* evicted while it was being opened */
            perf__pool_retire(slot, WHY_EVICTED);
            rc = PERF_ECANCELED;
        } else {
            perf__slot_set(slot, as);
            if (as == SLOT_IDLE)
                perf__pool_serve(pool);
        }
    }
    pthread_cond_broadcast(&root->settled);
    pthread_mutex_unlock(&root->mutex);
    return rc;
}

/* ------------------------------------------------------------------ workers */

static void check_slot(struct perf__slot *slot)
{
    int64_t now = perf__now_ms(&slot->pool->clock);
    int why = perf__pool_check(slot, now, -1, true);
    perf_pool *pool = slot->pool, *root = pool->root;
    pthread_mutex_lock(&root->mutex);
    if (why) {
        perf__pool_retire(slot, why);
    } else {
        now = perf__now_ms(&pool->clock);
        atomic_store_explicit(&slot->alive_ms, now, memory_order_relaxed);
        slot->work = WORK_CHECKED;
        perf__slot_set(slot, SLOT_IDLE);
        perf__pool_serve(pool);
    }
    pthread_mutex_unlock(&root->mutex);
}

static struct perf__slot *take_work(perf_pool *root)
{
    struct perf__slot *slot = root->work_head;
    if (slot && !(root->work_head = slot->next))
        root->work_tail = NULL;
    return slot;
}

static void *worker_main(void *argument)
{
    struct perf__worker *self = argument;
    perf_pool *root = self->root;
    struct perf__slot *slot;
    pthread_mutex_lock(&root->mutex);
    while ((slot = take_work(root))) {
        pthread_mutex_unlock(&root->mutex);
        if (slot->work == WORK_OPEN)
            perf__pool_open_slot(slot, slot->pool->options.open_timeout_ms, SLOT_IDLE);
        else
            check_slot(slot);
        pthread_mutex_lock(&root->mutex);
        perf__pool_want(slot->pool, perf__now_ms(&slot->pool->clock));
    }
    self->running = false;
    self->finished = true;
    pthread_cond_broadcast(&root->settled);
    pthread_mutex_unlock(&root->mutex);
    return NULL;
}

static bool more_workers(perf_pool *root)
{
    uint32_t limit = (uint32_t)root->options.max_opening, running = 0;
    struct perf__worker *unused = NULL;
    for (uint32_t i = 0; i < limit; i++) {
        struct perf__worker *worker = &root->workers[i];
        running += worker->running;
        if (!worker->running && !unused)
            unused = worker;
    }
    if (!unused)
        return running > 0;
    if (unused->finished) /* it needs the mutex no more, so this does not wait for long */
        pthread_join(unused->thread, NULL);
    unused->finished = false;
    unused->root = root;
    unused->running = !perf__thread_start(&unused->thread, "perf-pool-work", worker_main, unused);
    return unused->running || running > 0;
}

static void give_work(struct perf__slot *slot)
{
    perf_pool *root = slot->pool->root;
    slot->next = NULL;
    *(root->work_tail ? &root->work_tail->next : &root->work_head) = slot;
    root->work_tail = slot;
}

bool perf__pool_check_later(struct perf__slot *slot)
{
    perf_pool *root = slot->pool->root;
    if (!more_workers(root)) {
        perf__log(&root->host.log, PERF_LOG_ERROR, "pool", "no thread could be started");
        return false;
    }
    slot->refused += perf__slot_state(slot) == SLOT_BORROWED;
    perf__slot_set(slot, SLOT_BUSY);
    slot->work = WORK_CHECK;
    give_work(slot);
    return true;
}

/* Those who wait elsewhere take the room that is left under max_total. */
static uint32_t room_for_idle(const perf_pool *pool)
{
    perf_pool *root = pool->root;
    uint64_t taken = root->total_all, limit = root->options.max_total;
    if (limit - (taken < limit ? taken : limit) <= POOL_MAX_SIZE)
        for (perf_pool *other = root; other; other = perf__pool_next(root, other))
            taken += other == pool ? 0 : atomic_load(&other->queue_len);
    uint64_t room = taken < limit ? limit - taken : 0;
    return room < POOL_MAX_SIZE ? (uint32_t)room : POOL_MAX_SIZE;
}

/* As many as wait, beyond those that are on their way; and as many as shall be idle. */
static uint32_t wanted(perf_pool *pool)
{
    uint32_t waiting = atomic_load(&pool->queue_len);
    uint32_t idle = perf__pool_count(pool, SLOT_IDLE);
    uint32_t keep = pool->keeps_idle ? perf__pool_keep(pool) : 0;
    uint32_t ready = idle + pool->opening;
    uint32_t for_queue = waiting > ready ? waiting - ready : 0;
    uint32_t for_keep = keep > ready ? keep - ready : 0;
    if (for_keep > for_queue) {
        uint32_t room = room_for_idle(pool);
        for_keep = for_keep < room ? for_keep : room;
    }
    return for_queue > for_keep ? for_queue : for_keep;
}

void perf__pool_want(perf_pool *pool, int64_t now_ms)
{
    perf_pool *root = pool->root;
    if (pool->options.no_threads) {
        if (pool->queue.head) /* it opens one itself, and the next one is told then */
            pthread_cond_signal(&pool->queue.head->cond);
        return;
    }
    for (uint32_t n = wanted(pool); n; n--) {
        struct perf__slot *slot = perf__pool_reserve(pool, now_ms);
        if (!slot) {
            /* A matter of time: the keeper has to know when to come back. It knows if it asked. */
            if (pool->total < pool->options.max_size && root->keeper_runs &&
                !pthread_equal(root->keeper, pthread_self()))
                perf__pool_wake_keeper(root);
            return;
        }
        if (!more_workers(root)) {
            pool->opening--;
            perf__pool_vacate(slot);
            opening_failed(pool, perf__fail(PERF_ENOMEM, "no thread could be started"));
            return;
        }
        give_work(slot);
    }
}

/* ------------------------------------------------------------------- keeper */

static void *keeper_main(void *argument)
{
    perf_pool *root = argument;
    int64_t sleep_ms = 0;
    for (;;) {
        struct epoll_event events[64];
        int timeout = sleep_ms < 0 ? -1 : sleep_ms > 60000 ? 60000 : (int)sleep_ms;
        int n = epoll_wait(root->epoll, events, 64, timeout);
        for (int i = 0; i < n; i++) {
            uint64_t count;
            if (events[i].data.ptr)
                peer_closed(events[i].data.ptr);
            else if (read(root->wake, &count, sizeof count) < 0)
                continue; /* somebody was faster; nothing is lost */
        }
        pthread_mutex_lock(&root->mutex);
        bool stop = root->keeper_stops;
        pthread_mutex_unlock(&root->mutex);
        perf__pool_bury(root);
        perf__pool_call_back(root);
        if (stop)
            return NULL;
        sleep_ms = perf__pool_upkeep(root);
    }
}

int perf__pool_start_keeper(perf_pool *root)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (root->keeper_runs)
        return PERF_OK;
    root->epoll = epoll_create1(EPOLL_CLOEXEC);
    root->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (root->epoll >= 0 && root->wake >= 0 &&
        !epoll_ctl(root->epoll, EPOLL_CTL_ADD, root->wake, &event) &&
        !perf__thread_start(&root->keeper, "perf-pool", keeper_main, root)) {
        root->keeper_runs = true;
        return PERF_OK;
    }
    int error = errno;
    if (root->epoll >= 0)
        close(root->epoll);
    if (root->wake >= 0)
        close(root->wake);
    root->epoll = root->wake = -1;
    return perf__fail(PERF_ENOMEM,
                      "the pool's thread could not be started: %s; allow more "
                      "threads or files, or set no_threads",
                      strerror(error));
}

void perf__pool_wake_keeper(perf_pool *root)
{
    uint64_t one = 1;
    if (root->keeper_runs && write(root->wake, &one, sizeof one) < 0)
        return; /* full: it is awake */
}

/* Without the mutex. */
void perf__pool_stop_threads(perf_pool *root)
{
    pthread_mutex_lock(&root->mutex);
    bool runs = root->keeper_runs;
    root->keeper_stops = true;
    perf__pool_wake_keeper(root);
    pthread_mutex_unlock(&root->mutex);
    if (runs)
        pthread_join(root->keeper, NULL);
    for (uint32_t i = 0; i < POOL_MAX_OPENING; i++) {
        struct perf__worker *worker = &root->workers[i];
        pthread_mutex_lock(&root->mutex);
        bool started = worker->running || worker->finished;
        pthread_mutex_unlock(&root->mutex);
        if (started)
            pthread_join(worker->thread, NULL);
    }
    if (root->epoll >= 0)
        close(root->epoll);
    if (root->wake >= 0)
        close(root->wake);
}
