/* SPDX-License-Identifier: MIT */
/* redis_link.c - submitting, writing, reading and waiting; redis_link_impl.h tells how. */
#include "redis_link_impl.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <libperf/resilience.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"

enum {
    FIRST_SLOTS = 64,
    FIRST_BUFFER = 16 << 10,
    KEEP_BUFFER = 1 << 20, /* a larger one is given back when it is empty */
    ROUNDS = 4,            /* writes for others, before the I/O thread takes over */
    LOOK_FOR_WAITER = 64,  /* slots */
};

int64_t perf__redis_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t perf__redis_deadline(int64_t timeout_ms)
{
    int64_t left = perf_deadline_remaining_ms(), now = perf__redis_now();
    int64_t ms = left >= 0 && left < timeout_ms ? left : timeout_ms;
    return ms > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + ms * 1000000;
}

/* ------------------------------------------------------------------- waiting */

/* Sleeps while *word is seen, until the deadline. False: it passed. */
static bool futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
    struct timespec t = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen,
                      deadline_ns == INT64_MAX ? NULL : &t, NULL, FUTEX_BITSET_MATCH_ANY);
    return rc == 0 || errno != ETIMEDOUT;
}

static void wake_wave(struct perf__redis_wave *wave, int count)
{
    atomic_fetch_add(&wave->word, 1);
    if (atomic_load(&wave->sleepers))
        syscall(SYS_futex, &wave->word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---------------------------------------------------------------- ending ops */

void perf__redis_end(struct perf__redis_link *link, struct perf__redis_ended *ended,
                     struct perf__redis_op *op, int status, const char *error)
{
    if (status && !op->status) {
        op->status = status;
        snprintf(op->error, sizeof op->error, "%s", error);
    }
    if (op->status == PERF_ETIMEDOUT)
        link->stats.timeouts++;
    if (!op->done) {
        ended->waves |= (uint64_t)1 << op->wave;
        atomic_store_explicit(&op->over, 1, memory_order_release); /* its memory may be gone */
        return;
    }
    if (op->anywhere) {
        op->next = ended->anywhere; /* the other way round; perf__redis_settle turns it */
        ended->anywhere = op;
        return;
    }
    op->next = NULL;
    *link->finished_end = op;
    link->finished_end = &op->next;
    ended->thread = true;
}

void perf__redis_settle(struct perf__redis_link *link, struct perf__redis_ended *ended)
{
    struct perf__redis_op *op = ended->anywhere, *turned = NULL, *next;
    while (op) {
        next = op->next;
        op->next = turned;
        turned = op;
        op = next;
    }
    while (turned) {
        next = turned->next;
        turned->done(turned);
        turned = next;
    }
    while (ended->waves) {
        int wave = __builtin_ctzll(ended->waves);
        ended->waves &= ended->waves - 1;
        wake_wave(&link->waves[wave], INT_MAX);
    }
    if (ended->thread)
        perf__redis_attend(link);
    *ended = (struct perf__redis_ended){NULL, 0, false};
}

void perf__redis_call_finished(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    struct perf__redis_op *op = link->finished;
    link->finished = NULL;
    link->finished_end = &link->finished;
    pthread_mutex_unlock(&link->mutex);
    while (op) {
        struct perf__redis_op *next = op->next;
        op->done(op);
        op = next;
    }
}

/* May bytes from this place of the stream have left? While somebody sends, nobody knows. */
static bool may_be_written(const struct perf__redis_link *link, uint64_t place)
{
    return place <
           (link->writing && !link->blocked ? link->appended - link->out.len : link->flushed);
}

/* An op whose time is over. */
static int late_status(struct perf__redis_link *link, const struct perf__redis_slot *slot,
                       const struct perf__redis_op *op, char *text, size_t size)
{
    if (link->state == PERF__REDIS_IS_UP || may_be_written(link, slot->end - op->len)) {
        snprintf(text, size, "%s: no reply within the deadline", link->label);
        return PERF_ETIMEDOUT;
    }
    snprintf(text, size, "%.70s: no connection within the deadline: %.90s", link->label,
             link->failed ? link->failure : "still connecting");
    return PERF_EUNAVAILABLE;
}

void perf__redis_expire(struct perf__redis_link *link, struct perf__redis_ended *ended,
                        int64_t now_ns)
{
    char text[sizeof((struct perf__redis_op *)0)->error];
    if (now_ns < link->next_deadline)
        return;
    link->next_deadline = INT64_MAX;
    for (uint64_t i = link->head; i < link->tail; i++) {
        struct perf__redis_slot *slot = &link->ring[i & link->mask];
        struct perf__redis_op *op = slot->op;
        if (!op || !op->done)
            continue;
        if (op->deadline_ns <= now_ns) {
            int status = late_status(link, slot, op, text, sizeof text);
            slot->op = NULL;
            perf__redis_end(link, ended, op, status, text);
        } else if (op->deadline_ns < link->next_deadline) {
            link->next_deadline = op->deadline_ns;
        }
    }
}

/* ------------------------------------------------------------------- buffers */

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

/* ---------------------------------------------------------------- submitting */

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

/* Writes on their way whose replies are not all here. */
static uint32_t in_flight(const struct perf__redis_link *link)
{
    return link->head == link->tail ? 0 : link->wave - link->ring[link->head & link->mask].wave;
}

static int64_t precise_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/*
 * How many writes may be on their way at once: as many as the shortest round trip of the last
 * seconds is in tenths of a millisecond. With a server nearby that is one: commands of other
 * threads gather while it is on its way, which costs them less than a write for each would, and the
 * reply that ends it sends them. With one further away nobody waits for long either.
 */
static void measure(struct perf__redis_link *link, uint32_t wave)
{
    enum { FLIGHT_NS = 100000, FLIGHTS_MAX = 32 };
    static const int64_t window_ns = 5000000000;
    if (wave == link->measured_wave)
        return;
    link->measured_wave = wave;
    int64_t now = precise_now(), trip = now - link->wave_sent_ns[wave % PERF__REDIS_WAVES];
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

/* With the mutex: may what is in out be written now, by who asks? */
static bool may_write(struct perf__redis_link *link)
{
    return link->state == PERF__REDIS_IS_UP && !link->writing && link->out.len &&
           in_flight(link) < link->flights;
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
    int next = NOTHING;
    if (may_write(link)) {
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
    else if (next == ATTEND)
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

/* ------------------------------------------------------------------- writing */

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
            link->wave_sent_ns[link->wave++ % PERF__REDIS_WAVES] = precise_now();
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

/* ------------------------------------------------------------------- reading */

/* With the mutex: a reply for the op at head. */
static void deliver(struct perf__redis_link *link, struct perf__redis_ended *ended,
                    perf_redis_reply *reply, int status)
{
    struct perf__redis_slot *slot = &link->ring[link->head & link->mask];
    struct perf__redis_op *op = slot->op;
    uint32_t index = slot->got++;
    link->stats.replies++;
    link->stats.error_replies += reply && reply->type == PERF_REDIS_ERROR;
    if (op && status && !op->status) {
        op->status = status;
        snprintf(op->error, sizeof op->error,
                 status == PERF_ETOOBIG
                     ? "%s: a reply is larger than perf_redis_options.max_reply_bytes"
                     : "%s: no memory for a reply",
                 link->label);
    }
    if (op && op->replies) {
        op->replies[index] = reply;
    } else {
        if (op && reply && reply->type == PERF_REDIS_ERROR && !op->status) {
            op->status = perf_redis_reply_status(reply);
            snprintf(op->error, sizeof op->error, "%s", reply->u.data);
        }
        perf_redis_reply_release(reply);
    }
    if (slot->got < slot->expected)
        return;
    link->popped = slot->end;
    link->head++;
    if (op)
        perf__redis_end(link, ended, op, PERF_OK, "");
}

/* Replies out of what was read, to their ops. Reader, with the mutex. */
static void take_replies(struct perf__redis_link *link, struct perf__redis_ended *ended)
{
    perf_redis_reply *none = NULL, *reply;
    const char *at = link->input + link->input_at, *end = link->input + link->input_len;
    while (at < end && link->state == PERF__REDIS_IS_UP) {
        perf_redis_reply **spare = &none;
        if (link->head == link->tail) {
            perf__redis_break(link, PERF_EPROTOCOL, "the server sent what nobody asked for");
            break;
        }
        struct perf__redis_slot *slot = &link->ring[link->head & link->mask];
        measure(link, slot->wave);
        if (slot->op && slot->op->replies)
            spare = &slot->op->replies[slot->got];
        int rc = perf__redis_parse(&link->parser, &at, end, spare, &reply);
        if (rc == 1) {
            deliver(link, ended, reply, link->parser.status);
        } else if (rc < 0) {
            perf__redis_break(link, PERF_EPROTOCOL, "the server's bytes are no Redis replies");
        } else {
            break;
        }
    }
    link->input_at = (size_t)(at - link->input);
}

/* The same for a link that listens: I/O thread, no mutex, for it alone reads. */
static void push_replies(struct perf__redis_link *link)
{
    perf_redis_reply *none = NULL, *reply;
    const char *at = link->input + link->input_at, *end = link->input + link->input_len;
    int rc = 0;
    while (at < end && (rc = perf__redis_parse(&link->parser, &at, end, &none, &reply)) == 1)
        if (link->parser.status) /* a message that is lost, for the caller to notice */
            link->options.push(link->options.ctx, link, NULL);
        else
            link->options.push(link->options.ctx, link, reply);
    link->input_at = (size_t)(at - link->input);
    if (rc < 0) {
        pthread_mutex_lock(&link->mutex);
        perf__redis_break(link, PERF_EPROTOCOL, "the server's bytes are no Redis replies");
        pthread_mutex_unlock(&link->mutex);
    }
}

bool perf__redis_read_once(struct perf__redis_link *link)
{
    struct perf__redis_ended ended = {NULL, 0, false};
    ssize_t n;
    bool more, any = false;
    do {
        /* What is left is the beginning of a line; the parser takes all else. */
        if (link->input_at) {
            memmove(link->input, link->input + link->input_at, link->input_len - link->input_at);
            link->input_len -= link->input_at;
            link->input_at = 0;
        }
        size_t room = PERF__REDIS_READ - link->input_len;
        char *to = link->input + link->input_len;
        n = link->session ? perf__redis_session_read(link->session, to, room)
                          : recv(link->fd, to, room, 0);
        if (n <= 0)
            break;
        atomic_fetch_add_explicit(&link->reads, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&link->bytes_in, (uint64_t)n, memory_order_relaxed);
        link->input_len += (size_t)n;
        any = true;
        if (link->options.listens) {
            push_replies(link);
            more = (size_t)n == room || link->session;
        } else {
            pthread_mutex_lock(&link->mutex);
            take_replies(link, &ended);
            /* TLS may have read more than it gave; the socket then stays silent. */
            more = link->state == PERF__REDIS_IS_UP && ((size_t)n == room || link->session);
            bool flush = may_write(link); /* first, so that the server works while others wake */
            link->writing |= flush;
            pthread_mutex_unlock(&link->mutex);
            if (flush)
                perf__redis_flush(link);
            perf__redis_settle(link, &ended);
        }
    } while (more);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return any;
    int error = n ? errno : 0;
    pthread_mutex_lock(&link->mutex);
    perf__redis_break(link, PERF_EIO, error ? strerror(error) : "the server closed the connection");
    pthread_mutex_unlock(&link->mutex);
    return false;
}

/* ------------------------------------------------------------- taking turns */

/* Gives up reading: to somebody who waits, or to the I/O thread. */
static void leave_reader(struct perf__redis_link *link)
{
    int heir = -1;
    bool attend = false;
    pthread_mutex_lock(&link->mutex);
    if (link->state != PERF__REDIS_IS_UP) {
        atomic_store(&link->reader, PERF__REDIS_NOBODY_MAY);
        attend = true;
    } else {
        atomic_store(&link->reader, PERF__REDIS_FREE);
        uint64_t last = link->head + LOOK_FOR_WAITER;
        last = last < link->tail ? last : link->tail;
        for (uint64_t i = link->head; i < last && heir < 0; i++) {
            struct perf__redis_op *op = link->ring[i & link->mask].op;
            if (op && !op->done)
                heir = (int)op->wave;
        }
        if (heir < 0 && link->head != link->tail)
            attend = link->read_wanted = true;
    }
    pthread_mutex_unlock(&link->mutex);
    if (heir >= 0)
        wake_wave(&link->waves[heir], 1);
    if (attend)
        perf__redis_attend(link);
}

static bool is_over(struct perf__redis_op *op)
{
    return atomic_load_explicit(&op->over, memory_order_acquire);
}

/* Reads for all until op is over, its deadline passes, or the connection breaks. */
static void read_until(struct perf__redis_link *link, struct perf__redis_op *op)
{
    struct pollfd poll_fd = {link->fd, POLLIN, 0};
    while (!is_over(op)) {
        int timeout = -1;
        if (op->deadline_ns != INT64_MAX) {
            int64_t left = op->deadline_ns - perf__redis_now();
            if (left <= 0)
                return;
            timeout = left > (int64_t)INT_MAX * 1000000 ? INT_MAX : (int)(left / 1000000 + 1);
        }
        if (poll(&poll_fd, 1, timeout) > 0 && !perf__redis_read_once(link)) {
            pthread_mutex_lock(&link->mutex);
            bool broken = link->state != PERF__REDIS_IS_UP;
            pthread_mutex_unlock(&link->mutex);
            if (broken)
                return;
        }
    }
}

/* The deadline has passed: takes the op back, unless it is over. */
static void give_up(struct perf__redis_link *link, struct perf__redis_op *op)
{
    pthread_mutex_lock(&link->mutex);
    if (!atomic_load(&op->over)) {
        struct perf__redis_slot *slot = &link->ring[op->ticket & link->mask];
        op->status = late_status(link, slot, op, op->error, sizeof op->error);
        link->stats.timeouts += op->status == PERF_ETIMEDOUT;
        slot->op = NULL;
        atomic_store(&op->over, 1);
    }
    pthread_mutex_unlock(&link->mutex);
}

/*
 * Neither spins nor yields before it sleeps: on two processors that are shared with others, each
 * was measured to gain less than what it loses when a stranger gets the turn.
 */
void perf__redis_wait(struct perf__redis_link *link, struct perf__redis_op *op)
{
    struct perf__redis_wave *wave = &link->waves[op->wave];
    while (!is_over(op)) {
        uint32_t seen = atomic_load(&wave->word);
        int role = PERF__REDIS_FREE;
        if (is_over(op))
            break;
        if (atomic_load_explicit(&link->reader, memory_order_relaxed) == PERF__REDIS_FREE &&
            atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_CALLER)) {
            read_until(link, op);
            leave_reader(link);
            if (perf__redis_now() >= op->deadline_ns)
                give_up(link, op);
            continue;
        }
        atomic_fetch_add(&wave->sleepers, 1);
        bool late = !futex_wait(&wave->word, seen, op->deadline_ns);
        atomic_fetch_sub(&wave->sleepers, 1);
        if (late)
            give_up(link, op);
    }
    atomic_fetch_sub(&link->inside, 1); /* the link may be gone from here on */
}

/* --------------------------------------------------------------- open, close */

static int copy_strings(struct perf__redis_link *link)
{
    struct perf__redis_link_options *o = &link->options;
    const char **const fields[] = {&o->server_name, &o->user, &o->password, &o->client_name};
    enum { FIELDS = sizeof fields / sizeof *fields };
    size_t size = 1;
    for (int i = 0; i < FIELDS; i++)
        size += *fields[i] ? strlen(*fields[i]) + 1 : 0;
    char *at = link->strings = perf__alloc(link->allocator, size);
    if (!at)
        return PERF_ENOMEM;
    for (int i = 0; i < FIELDS; i++) {
        if (!*fields[i])
            continue;
        size = strlen(*fields[i]) + 1;
        *fields[i] = memcpy(at, *fields[i], size);
        at += size;
    }
    return PERF_OK;
}

static void free_link(struct perf__redis_link *link)
{
    const perf_allocator *a = link->allocator;
    perf__redis_parser_free(&link->parser);
    perf__free(a, link->out.bytes);
    perf__free(a, link->sending.bytes);
    perf__free(a, link->greeting.bytes);
    perf__free(a, link->ring);
    perf__free(a, link->input);
    perf__free(a, link->strings);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->mutex);
    perf__free(a, link);
}

int perf__redis_link_open(struct perf__redis_loop *loop,
                          const struct perf__redis_link_options *options,
                          struct perf__redis_link **out)
{
    const perf_allocator *a = &perf__redis_loop_host(loop)->allocator;
    struct perf__redis_link *link = perf__calloc(a, 1, sizeof *link);
    if (!link || pthread_mutex_init(&link->mutex, NULL)) {
        perf__free(a, link);
        return perf__fail_nomem("a Redis connection");
    }
    if (perf__cond_init(&link->changed)) {
        pthread_mutex_destroy(&link->mutex);
        perf__free(a, link);
        return perf__fail_nomem("a Redis connection");
    }
    link->loop = loop;
    link->allocator = a;
    link->options = *options;
    link->fd = -1;
    link->finished_end = &link->finished;
    link->next_deadline = link->timer_ns = INT64_MAX;
    link->flights = 1;
    link->connected_to = options->address;
    snprintf(link->label, sizeof link->label, "redis %.60s", options->address.host);
    perf__redis_parser_init(&link->parser, a, options->max_reply_bytes);
    link->input = perf__alloc(a, PERF__REDIS_READ);
    if (!link->input || copy_strings(link)) {
        free_link(link);
        return perf__fail_nomem("a Redis connection");
    }
    int rc = perf__redis_loop_add(link);
    if (rc) {
        free_link(link);
        return rc;
    }
    *out = link;
    return PERF_OK;
}

void perf__redis_link_stop(struct perf__redis_link *link)
{
    if (!link)
        return;
    pthread_mutex_lock(&link->mutex);
    link->closing = true;
    perf__redis_attend(link);
    while (!link->closed)
        pthread_cond_wait(&link->changed, &link->mutex);
    pthread_mutex_unlock(&link->mutex);
}

void perf__redis_link_close(struct perf__redis_link *link)
{
    if (!link)
        return;
    perf__redis_link_stop(link);
    while (atomic_load(&link->inside)) /* they were woken, and only have to leave */
        nanosleep(&(struct timespec){0, 100000}, NULL);
    perf__redis_loop_remove(link);
    perf__redis_call_finished(link);
    free_link(link);
}

int perf__redis_link_start(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool idle = link->state == PERF__REDIS_IDLE;
    if (idle)
        link->state = PERF__REDIS_PAUSED;
    pthread_mutex_unlock(&link->mutex);
    if (idle)
        perf__redis_attend(link);
    return PERF_OK;
}

void perf__redis_link_reconnect(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    link->reconnect = true;
    perf__redis_break(link, PERF_EIO, "the connection was left for a new one");
    pthread_mutex_unlock(&link->mutex);
    perf__redis_attend(link);
}

bool perf__redis_link_is_up(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    bool up = link->state == PERF__REDIS_IS_UP;
    pthread_mutex_unlock(&link->mutex);
    return up;
}

void perf__redis_link_address(struct perf__redis_link *link, struct perf__redis_address *out)
{
    pthread_mutex_lock(&link->mutex);
    *out = link->connected_to;
    pthread_mutex_unlock(&link->mutex);
}

void perf__redis_link_stats(struct perf__redis_link *link, perf_redis_stats *stats)
{
    pthread_mutex_lock(&link->mutex);
    const perf_redis_stats *s = &link->stats;
    stats->commands += s->commands;
    stats->replies += s->replies;
    stats->error_replies += s->error_replies;
    stats->timeouts += s->timeouts;
    stats->rejected += s->rejected;
    stats->pending += link->tail - link->head;
    stats->writes += s->writes;
    stats->reads += atomic_load(&link->reads);
    stats->bytes_sent += s->bytes_sent;
    stats->bytes_received += atomic_load(&link->bytes_in);
    stats->connects += s->connects;
    stats->connect_failures += s->connect_failures;
    stats->lost += s->lost;
    stats->connected += link->state == PERF__REDIS_IS_UP;
    pthread_mutex_unlock(&link->mutex);
}
