/* SPDX-License-Identifier: MIT */
/*
 * events.c - the queue of entries that left, and its two ways out: callback or
 * poll. The queue is bounded: an event that finds no memory is dropped, and of
 * a full poll queue the oldest one is. Any thread.
 */
#include "events.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "cache_impl.h"

struct perf__event {
    struct perf__event *next;
    perf_cache_event event;
    char bytes[]; /* user with a zero byte, then key */
};

int perf__events_init(struct perf__events *events, const struct perf__host *host)
{
    memset(events, 0, sizeof *events);
    if (pthread_mutex_init(&events->mutex, NULL))
        return perf__fail_nomem("the event queue");
    events->host = host;
    events->last = &events->first;
    events->fd = -1;
    return PERF_OK;
}

static struct perf__event *take(struct perf__events *events)
{
    struct perf__event *event = events->first;
    if (!event)
        return NULL;
    events->first = event->next;
    if (!events->first)
        events->last = &events->first;
    events->count--;
    return event;
}

static void drop_all(struct perf__events *events)
{
    struct perf__event *event;
    while ((event = take(events)))
        perf__free(&events->host->allocator, event);
    perf__free(&events->host->allocator, events->polled);
    events->polled = NULL;
    atomic_store(&events->pending, 0);
}

void perf__events_destroy(struct perf__events *events)
{
    if (!events->host)
        return;
    drop_all(events);
    if (events->fd >= 0)
        close(events->fd);
    pthread_mutex_destroy(&events->mutex);
    events->host = NULL;
}

void perf__events_push(struct perf__events *events, int reason, const char *ns,
                       const struct perf__entry_view *entry)
{
    size_t user_len = entry->key.user_len, key_len = entry->key.key_len;
    struct perf__event *event =
        perf__alloc(&events->host->allocator, sizeof *event + user_len + 1 + key_len);
    if (!event)
        return;
    char *user = event->bytes, *key = event->bytes + user_len + 1;
    if (user_len)
        memcpy(user, entry->key.user, user_len);
    user[user_len] = '\0';
    memcpy(key, entry->key.key, key_len);
    event->next = NULL;
    event->event = (perf_cache_event){sizeof(perf_cache_event), reason, ns,
                                      user_len ? user : NULL,   key,    key_len,
                                      entry->value_len};

    struct perf__event *dropped = NULL;
    pthread_mutex_lock(&events->mutex);
    if (!events->fn && events->count >= events->capacity)
        dropped = take(events);
    *events->last = event;
    events->last = &event->next;
    events->count++;
    if (events->fn)
        atomic_fetch_add_explicit(&events->pending, 1, memory_order_relaxed);
    else if (events->fd >= 0)
        (void)!write(events->fd, &(uint64_t){1}, sizeof(uint64_t));
    pthread_mutex_unlock(&events->mutex);
    perf__free(&events->host->allocator, dropped);
}

void perf__events_deliver_slow(struct perf__events *events)
{
    for (;;) {
        pthread_mutex_lock(&events->mutex);
        perf_cache_event_fn fn = events->fn;
        void *ctx = events->ctx;
        struct perf__event *event = fn ? take(events) : NULL;
        if (event)
            atomic_fetch_sub_explicit(&events->pending, 1, memory_order_relaxed);
        pthread_mutex_unlock(&events->mutex);
        if (!event)
            return;
        fn(ctx, &event->event);
        perf__free(&events->host->allocator, event);
    }
}

int perf_cache_listen(perf_cache *cache, uint64_t mask, size_t capacity, perf_cache_event_fn fn,
                      void *ctx)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (mask & ~(uint64_t)31)
        return perf__fail(PERF_EINVAL, "mask is %llu; combine PERF_EVENT_... values",
                          (unsigned long long)mask);
    if (mask && !fn && !capacity)
        return perf__fail(PERF_EINVAL, "capacity is 0; a queue to be polled needs room for events");
    struct perf__events *events = &cache->events;
    perf__memory_set_event_mask(cache->memory, 0);
    pthread_mutex_lock(&events->mutex);
    drop_all(events);
    events->fn = fn;
    events->ctx = ctx;
    events->capacity = capacity;
    pthread_mutex_unlock(&events->mutex);
    perf__memory_set_event_mask(cache->memory, mask);
    return PERF_OK;
}

int perf_cache_poll_event(perf_cache *cache, perf_cache_event *out)
{
    size_t size = 0;
    int rc = perf__cache_check(cache);
    if (rc || (rc = perf__options_check_out("perf_cache_event", out, &size)))
        return rc;
    struct perf__events *events = &cache->events;
    pthread_mutex_lock(&events->mutex);
    struct perf__event *event = events->fn ? NULL : take(events);
    perf__free(&events->host->allocator, events->polled);
    events->polled = event;
    if (!events->count && events->fd >= 0)
        (void)!read(events->fd, &(uint64_t){0}, sizeof(uint64_t));
    pthread_mutex_unlock(&events->mutex);
    if (!event)
        return PERF_MISS;
    perf__options_give(out, size, &event->event, sizeof event->event);
    return PERF_OK;
}

int perf_cache_event_fd(perf_cache *cache, int *fd)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (!fd)
        return perf__fail(PERF_EINVAL, "fd is NULL; give a place for the descriptor");
    struct perf__events *events = &cache->events;
    pthread_mutex_lock(&events->mutex);
    if (events->fd < 0)
        events->fd = eventfd(events->count ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    *fd = events->fd;
    pthread_mutex_unlock(&events->mutex);
    return *fd >= 0 ? PERF_OK
                    : perf__fail(PERF_EIO, "no eventfd could be made; raise the limit of open "
                                           "files");
}
