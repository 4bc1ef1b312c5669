/* SPDX-License-Identifier: MIT */
/*
 * bulkhead.c - at most so many at once; who comes too early waits in line.
 *
 * One word counts who is inside and who waits. While nobody waits, coming and
 * going are one compare-and-swap each. Whoever finds it full joins a list under
 * the mutex; whoever leaves then hands its place to the first in the list, so
 * that nobody who comes later gets in between. Any thread.
 */
#include <pthread.h>

#include "../base/status.h"
#include "../base/sync.h"
#include "part.h"

enum { ACQUIRED, WAITED, REJECTED, TIMED_OUT, COUNTERS };

/* Lives on the stack of who waits. */
struct waiter {
    struct waiter *next, *previous;
    pthread_cond_t cond;
    bool granted;
};

struct perf_bulkhead {
    struct perf__part part;
    _Atomic uint64_t word; /* waiting << 32 | inside; waiting changes under the mutex only */
    _Atomic int64_t max_concurrent;
    int64_t max_waiting;
    pthread_mutex_t mutex;
    struct waiter *first, *last;
};

static uint32_t inside(uint64_t word)
{
    return (uint32_t)word;
}

static uint32_t waiting(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

#define ONE_WAITING (UINT64_C(1) << 32)

int perf_bulkhead_open(const perf_bulkhead_options *given, perf_bulkhead **out)
{
    perf_bulkhead_options options;
    perf_bulkhead *b;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the bulkhead");
    if ((rc = perf__options_take("perf_bulkhead_options", given, &options, sizeof options)) ||
        (rc = perf__option("max_concurrent", &options.max_concurrent, 25, 1, 1000000)) ||
        (rc = perf__option("max_waiting", &options.max_waiting, 1000, -1, 1000000)) ||
        (rc = perf__part_open("a bulkhead", options.host, sizeof *b, COUNTERS, &b)))
        return rc;
    atomic_init(&b->max_concurrent, options.max_concurrent);
    b->max_waiting = options.max_waiting < 0 ? 0 : options.max_waiting;
    pthread_mutex_init(&b->mutex, NULL); /* cannot fail with these attributes */
    *out = b;
    return PERF_OK;
}

int perf_bulkhead_close(perf_bulkhead *b)
{
    if (!b)
        return PERF_OK;
    if (perf__part_usable(&b->part))
        pthread_mutex_destroy(&b->mutex);
    perf__part_free(&b->part);
    return PERF_OK;
}

/* In at once, if nobody waits and there is a place. */
static bool enter(perf_bulkhead *b)
{
    uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
    do {
        if (waiting(word) || inside(word) >= atomic_load(&b->max_concurrent))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&b->word, &word, word + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

/* Under the mutex: in, or counted as waiting. */
static bool enter_or_queue(perf_bulkhead *b)
{
    uint64_t word = atomic_load(&b->word), next;
    bool in;
    do {
        in = !waiting(word) && inside(word) < atomic_load(&b->max_concurrent);
        next = in ? word + 1 : word + ONE_WAITING;
    } while (!atomic_compare_exchange_weak(&b->word, &word, next));
    return in;
}

static void unlink_waiter(perf_bulkhead *b, struct waiter *w)
{
    *(w->previous ? &w->previous->next : &b->first) = w->next;
    *(w->next ? &w->next->previous : &b->last) = w->previous;
    atomic_fetch_sub(&b->word, ONE_WAITING);
}

/* Under the mutex: the first in line is in; its place is already counted. */
static void grant_first(perf_bulkhead *b)
{
    struct waiter *w = b->first;
    unlink_waiter(b, w);
    w->granted = true;
    pthread_cond_signal(&w->cond);
}

/* Under the mutex, which it gives up while it waits. */
static bool wait_in_line(perf_bulkhead *b, struct waiter *w, int64_t until_ns)
{
    const perf_clock *clock = &b->part.host.clock;
    w->previous = b->last;
    *(b->last ? &b->last->next : &b->first) = w;
    b->last = w;
    while (!w->granted) {
        int64_t now = perf__now_ns(clock);
        if (until_ns && now >= until_ns)
            break;
        perf__cond_wait(&w->cond, &b->mutex, perf__cond_deadline(clock, now, until_ns));
    }
    if (!w->granted)
        unlink_waiter(b, w);
    return w->granted;
}

int perf_bulkhead_acquire(perf_bulkhead *b, int64_t timeout_ms)
{
    struct waiter w = {NULL, NULL, PTHREAD_COND_INITIALIZER, false};
    int rc = perf__part_check(b ? &b->part : NULL, "bulkhead");
    if (rc)
        return rc;
    if (__builtin_expect(enter(b), 1)) {
        perf__part_count(&b->part, ACQUIRED);
        return PERF_OK;
    }
    if (!timeout_ms || !b->max_waiting) {
        perf__part_count(&b->part, REJECTED);
        return perf__fail(PERF_EREJECTED, "the bulkhead is full: %lld at once",
                          (long long)atomic_load(&b->max_concurrent));
    }
    int64_t until = perf__wait_until(&b->part.host.clock, timeout_ms);
    if (perf__cond_init(&w.cond))
        return perf__fail_nomem("a place in a bulkhead's line");
    pthread_mutex_lock(&b->mutex);
    if (waiting(atomic_load(&b->word)) >= b->max_waiting) {
        perf__part_count(&b->part, REJECTED);
        rc = perf__fail(PERF_EREJECTED, "the bulkhead is full and %lld are waiting",
                        (long long)b->max_waiting);
    } else if (enter_or_queue(b)) {
        perf__part_count(&b->part, ACQUIRED);
    } else if (wait_in_line(b, &w, until)) {
        perf__part_count(&b->part, ACQUIRED);
        perf__part_count(&b->part, WAITED);
    } else {
        perf__part_count(&b->part, TIMED_OUT);
        rc = perf__fail(PERF_ETIMEDOUT, "waited in vain for one of the bulkhead's %lld places",
                        (long long)atomic_load(&b->max_concurrent));
    }
    pthread_mutex_unlock(&b->mutex);
    pthread_cond_destroy(&w.cond);
    return rc;
}

void perf_bulkhead_release(perf_bulkhead *b)
{
    if (!b || !perf__part_usable(&b->part))
        return;
    uint64_t word = atomic_load_explicit(&b->word, memory_order_relaxed);
    do {
        if (!inside(word)) /* released once too often: better ignored than wrapped around */
            return;
        if (waiting(word))
            break;
    } while (!atomic_compare_exchange_weak_explicit(&b->word, &word, word - 1, memory_order_release,
                                                    memory_order_relaxed));
    if (!waiting(word))
        return;
    pthread_mutex_lock(&b->mutex);
    /* All who waited may have given up by now, or there may be fewer places than before. */
    if (b->first && inside(atomic_load(&b->word)) <= atomic_load(&b->max_concurrent))
        grant_first(b);
    else
        atomic_fetch_sub(&b->word, 1);
    pthread_mutex_unlock(&b->mutex);
}

int perf_bulkhead_resize(perf_bulkhead *b, int64_t max_concurrent)
{
    int rc;
    if ((rc = perf__part_check(b ? &b->part : NULL, "bulkhead")) ||
        (rc = perf__check_range("max_concurrent", max_concurrent, 1, 1000000)))
        return rc;
    pthread_mutex_lock(&b->mutex);
    atomic_store(&b->max_concurrent, max_concurrent);
    while (b->first && inside(atomic_load(&b->word)) < max_concurrent) {
        atomic_fetch_add(&b->word, 1);
        grant_first(b);
    }
    pthread_mutex_unlock(&b->mutex);
    return PERF_OK;
}

int perf_bulkhead_get_stats(perf_bulkhead *b, perf_bulkhead_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(b ? &b->part : NULL, "bulkhead")) ||
        (rc = perf__options_check_out("perf_bulkhead_stats", stats, &size)))
        return rc;
    uint64_t word = atomic_load(&b->word);
    perf_bulkhead_stats own = {
        .struct_size = sizeof own,
        .max_concurrent = atomic_load(&b->max_concurrent),
        .in_use = inside(word),
        .waiting = waiting(word),
        .acquired = perf__part_sum(&b->part, ACQUIRED),
        .waited = perf__part_sum(&b->part, WAITED),
        .rejected = perf__part_sum(&b->part, REJECTED),
        .timed_out = perf__part_sum(&b->part, TIMED_OUT),
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
