/* SPDX-License-Identifier: MIT */
/*
 * redis_send.c - the bytes of ops on their way out: what is kept of them, when they are written and
 * by whom, and what a broken connection leaves to be written again.
 *
 * "With the mutex" unless said otherwise; the writer's system calls are made without it.
 */
#include "redis_link_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "../base/alloc.h"

enum {
    FIRST_BUFFER = 16 << 10,
    KEEP_BUFFER = 1 << 20, /* a larger one is given back when it is empty */
    ROUNDS = 4,            /* writes for others, before the I/O thread takes over */
};

bool perf__redis_buffer_add(const perf_allocator *allocator, struct perf__redis_buffer *b,
                            const char *bytes, size_t len)
{
    if (b->space - b->len < len) {
        size_t space = b->space ? b->space : FIRST_BUFFER;
        while (space - b->len < len)
            space *= 2;
        char *grown = perf__realloc(allocator, b->bytes, space);
        if (!grown)
            return false;
        b->bytes = grown;
        b->space = space;
    }
    memcpy(b->bytes + b->len, bytes, len);
    b->len += len;
    return true;
}

static void empty_buffer(struct perf__redis_link *link, struct perf__redis_buffer *b)
{
    b->len = 0;
    if (b->space <= KEEP_BUFFER)
        return;
    perf__free(link->allocator, b->bytes);
    *b = (struct perf__redis_buffer){NULL, 0, 0};
}

/* Where the byte at a place of the stream is: ops lie whole in one buffer. */
static const char *byte_at(struct perf__redis_link *link, uint64_t place)
{
    uint64_t out = link->appended - link->out.len;
    return place >= out ? link->out.bytes + (place - out)
                        : link->sending.bytes + (place + link->sending.len - out);
}

void perf__redis_restart_stream(struct perf__redis_link *link, struct perf__redis_ended *ended,
                                bool all, int status, const char *error)
{
    struct perf__redis_buffer kept = {NULL, 0, 0};
    uint64_t begin = link->popped, to = link->head;
    for (uint64_t i = link->head; i < link->tail; i++) {
        struct perf__redis_slot slot = link->ring[i & link->mask];
        struct perf__redis_op *op = slot.op;
        bool written = begin < link->flushed;
        size_t len = (size_t)(slot.end - begin);
        const char *bytes = op && !written ? byte_at(link, begin) : NULL;
        begin = slot.end;
        if (!op)
            continue;
        if (written || all) {
            perf__redis_end(link, ended, op, status, error);
            continue;
        }
        if (!perf__redis_buffer_add(link->allocator, &kept, bytes, len)) {
            perf__redis_end(link, ended, op, PERF_ENOMEM, "no memory to keep a Redis command");
            continue;
        }
        slot.end = kept.len;
        slot.wave = link->wave;
        op->ticket = to;
        link->ring[to++ & link->mask] = slot;
    }
    link->tail = to;
    perf__free(link->allocator, link->out.bytes);
    link->out = kept;
    empty_buffer(link, &link->sending);
    link->sent = 0;
    link->appended = kept.len;
    link->flushed = link->popped = 0;
}

/* Writes on their way whose replies are not all here. */
static uint32_t in_flight(const struct perf__redis_link *link)
{
    return link->head == link->tail ? 0 : link->wave - link->ring[link->head & link->mask].wave;
}

/*
 * How many writes may be on their way at once: as many as the shortest round trip of the last
 * seconds is in tenths of a millisecond. With a server nearby that is one: commands of other
 * threads gather while it is on its way, which costs them less than a write for each would, and the
 * reply that ends it sends them. With one further away nobody waits for long either.
 */
void perf__redis_measure(struct perf__redis_link *link, uint32_t wave)
{
    enum { FLIGHT_NS = 100000, FLIGHTS_MAX = 32 };
    static const int64_t window_ns = 5000000000;
    if (wave == link->measured_wave)
        return;
    link->measured_wave = wave;
    int64_t now = perf__redis_precise_now(),
            trip = now - link->wave_sent_ns[wave % PERF__REDIS_WAVES];
    if (now - link->window_ns > window_ns) {
        link->last_least_ns = link->window_ns ? link->least_ns : trip;
        link->window_ns = now;
        link->least_ns = trip;
    }
    link->least_ns = trip < link->least_ns ? trip : link->least_ns;
    int64_t least = link->least_ns < link->last_least_ns ? link->least_ns : link->last_least_ns;
    int64_t flights = 1 + least / FLIGHT_NS;
    link->flights = flights > FLIGHTS_MAX ? FLIGHTS_MAX : (uint32_t)flights;
}

bool perf__redis_may_write(struct perf__redis_link *link)
{
    return link->state == PERF__REDIS_IS_UP && !link->writing && link->out.len &&
           in_flight(link) < link->flights;
}

void perf__redis_break(struct perf__redis_link *link, int status, const char *why)
{
    if (link->state != PERF__REDIS_IS_UP)
        return;
    snprintf(link->why_broken, sizeof link->why_broken, "%s", why);
    link->broken = status;
    link->state = PERF__REDIS_BROKEN;
    shutdown(link->fd, SHUT_RDWR); /* ends the reader's poll */
    int role = PERF__REDIS_FREE;
    atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_NOBODY_MAY);
    perf__redis_attend(link);
}

static ssize_t send_some(struct perf__redis_link *link, const char *bytes, size_t len)
{
    return link->session ? perf__redis_session_write(link->session, bytes, len)
                         : send(link->fd, bytes, len, MSG_NOSIGNAL);
}

void perf__redis_flush(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->blocked = false;
    for (int round = 0; link->state == PERF__REDIS_IS_UP; round++) {
        if (link->sent == link->sending.len) {
            if (!link->out.len || in_flight(link) >= link->flights)
                break;
            if (round == ROUNDS && !link->loop_writes) { /* own bytes are out; not for ever */
                link->loop_writes = true;
                pthread_mutex_unlock(&link->mutex);
                perf__redis_attend(link);
                return;
            }
            empty_buffer(link, &link->sending);
            struct perf__redis_buffer swap = link->sending;
            link->sending = link->out;
            link->out = swap;
            link->sent = 0;
            link->wave_sent_ns[link->wave++ % PERF__REDIS_WAVES] = perf__redis_precise_now();
        }
        size_t from = link->sent, len = link->sending.len;
        pthread_mutex_unlock(&link->mutex);
        ssize_t n = send_some(link, link->sending.bytes + from, len - from);
        int error = errno;
        pthread_mutex_lock(&link->mutex);
        link->stats.writes++;
        if (n > 0) {
            link->sent += (size_t)n;
            link->flushed += (uint64_t)n;
            link->stats.bytes_sent += (uint64_t)n;
        } else if (error == EAGAIN) {
            link->loop_writes = link->blocked = true;
            pthread_mutex_unlock(&link->mutex);
            perf__redis_attend(link);
            return;
        } else if (error != EINTR) {
            perf__redis_break(link, PERF_EIO, strerror(error));
        }
    }
    link->writing = link->loop_writes = false;
    bool broken = link->state != PERF__REDIS_IS_UP;
    pthread_mutex_unlock(&link->mutex);
    if (broken)
        perf__redis_attend(link);
}
