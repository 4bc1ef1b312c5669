/* SPDX-License-Identifier: MIT */
/*
 * redis_submit.c - ops into the ring, and their bytes into `out`; whether the submitter writes, the
 * I/O thread does, or the reply that is under way will make somebody do it. Any thread.
 */
#include "redis_link_impl.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum {
    FIRST_SLOTS = 64,
    CROWD = 4, /* ops under way, from which on others have something to do while one waits */
};

static bool grow_ring(struct perf__redis_link *link)
{
    uint64_t size = link->ring ? 2 * (link->mask + 1) : FIRST_SLOTS;
    struct perf__redis_slot *ring = perf__alloc(link->allocator, size * sizeof *ring);
    if (!ring)
        return false;
    for (uint64_t i = link->head; i < link->tail; i++)
        ring[i & (size - 1)] = link->ring[i & link->mask];
    perf__free(link->allocator, link->ring);
    link->ring = ring;
    link->mask = size - 1;
    return true;
}

static bool is_full(const struct perf__redis_link *link, size_t len)
{
    return link->tail - link->head >= link->options.max_pending ||
           link->out.len + link->sending.len + len > link->options.max_pending_bytes;
}

/* With the mutex. */
static int admit(struct perf__redis_link *link, const struct perf__redis_op *op)
{
    if (link->closing)
        return perf__fail(PERF_ECLOSED, "the Redis client is closing");
    if (link->state != PERF__REDIS_IS_UP && link->failed &&
        (link->options.fail_fast || link->state == PERF__REDIS_ENDED ||
         link->failed != PERF_EUNAVAILABLE))
        return perf__fail(link->failed, "%s: %s", link->label, link->failure);
    if (__builtin_expect(is_full(link, op->len), 0)) {
        if (link->state != PERF__REDIS_IS_UP && !link->flushed && !link->writing) {
            struct perf__redis_ended none = {NULL, 0, false}; /* given-up ops make room */
            perf__redis_restart_stream(link, &none, false, PERF_OK, "");
        }
        if (is_full(link, op->len)) {
            link->stats.rejected++;
            return perf__fail(PERF_EBUSY,
                              "%s: %llu commands with %zu bytes are pending, and these %zu bytes "
                              "would exceed perf_redis_options.max_pending or max_pending_bytes",
                              link->label, (unsigned long long)(link->tail - link->head),
                              link->out.len + link->sending.len, op->len);
        }
    }
    if ((!link->ring || link->tail - link->head > link->mask) && !grow_ring(link))
        return perf__fail_nomem("pending Redis commands");
    if (!perf__redis_buffer_add(link->allocator, &link->out, op->bytes, op->len))
        return perf__fail_nomem("Redis commands to be written");
    return PERF_OK;
}

/* What a submitter has to do next. */
enum { NOTHING, FLUSH, ATTEND };

int perf__redis_submit(struct perf__redis_link *link, struct perf__redis_op *op)
{
    pthread_mutex_lock(&link->mutex);
    int rc = admit(link, op);
    if (rc) {
        pthread_mutex_unlock(&link->mutex);
        return rc;
    }
    atomic_store_explicit(&op->over, 0, memory_order_relaxed);
    link->appended += op->len;
    op->status = PERF_OK;
    op->error[0] = '\0';
    op->wave = link->wave % PERF__REDIS_WAVES;
    op->ticket = link->tail;
    link->ring[link->tail++ & link->mask] =
        (struct perf__redis_slot){op, link->appended, op->expected, 0, link->wave};
    link->stats.commands += op->expected;
    op->crowd = link->tail - link->head >= CROWD && link->flights == 1;
    int next = NOTHING;
    if (perf__redis_may_write(link)) {
        link->writing = true;
        link->loop_writes = op->done;
        next = op->done ? ATTEND : FLUSH;
    }
    if (!op->done) {
        atomic_fetch_add_explicit(&link->inside, 1, memory_order_relaxed);
    } else if (op->deadline_ns < link->next_deadline) {
        link->next_deadline = op->deadline_ns;
        next = next == NOTHING ? ATTEND : next;
    }
    if (link->state == PERF__REDIS_IDLE) {
        link->state = PERF__REDIS_PAUSED;
        next = ATTEND;
    }
    if (op->done) {
        link->last_async_ns = perf__redis_now();
        if (link->state == PERF__REDIS_IS_UP && !link->read_wanted &&
            atomic_load(&link->reader) == PERF__REDIS_FREE) {
            link->read_wanted = true; /* nobody waits for it, so the I/O thread is to read */
            next = ATTEND;
        }
    }
    pthread_mutex_unlock(&link->mutex);
    if (next == FLUSH)
        perf__redis_flush(link);
    else if (next == ATTEND && !perf__redis_is_served(link))
        perf__redis_attend(link);
    return PERF_OK;
}

int perf__redis_tell(struct perf__redis_link *link, const char *bytes, size_t len)
{
    pthread_mutex_lock(&link->mutex);
    bool up = link->state == PERF__REDIS_IS_UP;
    bool ok = !up || perf__redis_buffer_add(link->allocator, &link->out, bytes, len);
    if (up && ok) {
        link->appended += len;
        link->popped = link->appended;
        if (!link->writing)
            link->writing = link->loop_writes = true;
    }
    pthread_mutex_unlock(&link->mutex);
    if (!ok)
        return perf__fail_nomem("words to a Redis server");
    if (up)
        perf__redis_attend(link);
    return PERF_OK;
}
