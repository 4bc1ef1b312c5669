/* SPDX-License-Identifier: MIT */
/*
 * redis_receive.c - bytes that came in, as replies to their ops. For whoever is the reader.
 */
#include "redis_link_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

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
        perf__redis_measure(link, slot->wave);
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
            bool flush =
                perf__redis_may_write(link); /* first, so that the server works while others wake */
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
