/* SPDX-License-Identifier: MIT */
/*
 * redis_link.h - one multiplexed connection to one server, which mends itself.
 *
 * A link takes encoded commands ("ops") from any thread and gives each its
 * replies, in the order of submission. It connects when the first op comes,
 * says who it is (AUTH, CLIENT SETNAME, SELECT, then the caller's own words),
 * and connects again, with back-off and jitter, whenever the connection breaks.
 *
 * What may be relied on
 *  - perf__redis_submit copies what it needs of op->bytes before it returns and
 *    does not wait for the network. An op is one unit: its commands are adjacent
 *    on the wire, and it has as many replies as it says.
 *  - From a submit that returned PERF_OK until it is over, an op belongs to the
 *    link; it ends exactly once, at its deadline at the latest: with PERF_OK and
 *    all replies (of which each may be an ERROR), or with a status, op->error
 *    and maybe some replies. Then op->done is called or, without, the waiting
 *    perf__redis_wait returns; either may free it.
 *  - op->done runs with no lock held: on the I/O thread, or with op->anywhere on
 *    whichever thread happens to read or submit. It may submit to any link.
 *  - An op that fails with PERF_EUNAVAILABLE was not written, and may be tried
 *    elsewhere; PERF_EIO, PERF_EPROTOCOL and PERF_ETIMEDOUT leave that open.
 *    One that was not written when the connection broke stays for the next.
 *  - Links of one loop share its I/O thread and none waits for another: names
 *    are resolved, and `where` is asked, on a thread of their own.
 *  - All times are nanoseconds of the real monotonic clock (perf__redis_now).
 *
 * Threads: all functions from any thread, but open and close of one link, which
 * nobody else may use then. perf__redis_wait and link_close not on the I/O thread.
 */
#ifndef PERF_NET_REDIS_LINK_H
#define PERF_NET_REDIS_LINK_H

#include <libperf/redis.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/options.h"

struct perf__redis_loop;
struct perf__redis_link;
struct perf__redis_tls;

enum { PERF__REDIS_SENTENCE = 300 }; /* room for why something failed */

/* Commands on their way, and where their replies go. On the stack of a caller that waits. */
struct perf__redis_op {
    /* Set by who submits; zero the rest. */
    const char *bytes; /* RESP requests, one behind the other */
    size_t len;
    uint32_t expected;          /* replies; 1 or more */
    bool anywhere;              /* done need not run on the I/O thread */
    int64_t deadline_ns;        /* INT64_MAX: none */
    perf_redis_reply **replies; /* expected slots: NULL, or one made by perf__redis_reply_new. NULL
                                   instead of an array: nobody wants them, but errors */
    void (*done)(struct perf__redis_op *op);
    void *ctx;

    /* Results. */
    int status;
    char error[PERF__REDIS_SENTENCE]; /* the sentence to a status; may hold bytes of the server's,
                                         made printable */

    /* The link's own. */
    _Atomic uint32_t over;
    bool crowd; /* submitted while others were under way, to a server nearby */
    uint32_t wave;
    struct perf__redis_op *next;
    uint64_t ticket;
};

/* Where a server is. */
struct perf__redis_address {
    char host[256]; /* name or numeric address; or the path of a Unix socket */
    int port;       /* 0: a Unix socket */
};

enum { PERF__REDIS_LINK_UP, PERF__REDIS_LINK_LOST, PERF__REDIS_LINK_FAILED /* to connect */ };

/* How to open a link. Strings and what pointers lead to are copied, but for tls. */
struct perf__redis_link_options {
    struct perf__redis_address address;
    /* Instead of address: asked before each connect. May block up to timeout_ms: it runs on a
     * thread of its own. PERF_OK, or a failed attempt, with the sentence by perf__fail. */
    int (*where)(void *ctx, int64_t timeout_ms, struct perf__redis_address *out);
    struct perf__redis_tls *tls; /* NULL: none; outlives the link */
    const char *server_name;     /* that its certificate must have; NULL: address.host */
    const char *user, *password, *client_name; /* NULL: none */
    int64_t db;
    int64_t connect_timeout_ms, backoff_min_ms, backoff_max_ms;
    bool fail_fast;
    bool once;       /* do not connect again: ops say PERF_EUNAVAILABLE from then on */
    bool listens;    /* for push: the I/O thread always reads */
    int64_t ping_ms; /* listens: a connection silent for so long is sent PING, and is lost when it
                        stays silent for as long again; 0: never */
    uint64_t max_pending, max_pending_bytes, max_reply_bytes;

    /* Further words on each new connection, before any op: called on the I/O thread; writes up to
     * *size encoded bytes to a block that the link frees (perf__alloc) and how many replies they
     * have. NULL: none. An error reply to one of them fails the connection. */
    int (*greet)(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                 uint32_t *expected);
    /* The replies to greet's words, in order. I/O thread. NULL: not interested. */
    void (*greeted)(void *ctx, uint32_t index, const perf_redis_reply *reply);
    /* PERF__REDIS_LINK_...; status and sentence say why for LOST and FAILED. I/O thread. */
    void (*event)(void *ctx, struct perf__redis_link *link, int event, int status,
                  const char *error);
    /* Replies that answer no op, such as messages; the callee owns it. NULL: they break the
     * connection. I/O thread. */
    void (*push)(void *ctx, struct perf__redis_link *link, perf_redis_reply *reply);
    void *ctx;
};

/** Nanoseconds of the real monotonic clock; exact to a few ms, cheap. */
int64_t perf__redis_now(void);
/** The deadline of a call: timeout_ms from now, but no later than this thread's own. */
int64_t perf__redis_deadline(int64_t timeout_ms);

/** One I/O thread for links; it starts with the first connection. host must outlive it. */
int perf__redis_loop_open(const struct perf__host *host, struct perf__redis_loop **out);
/** After its links were closed. Joins the thread. NULL is allowed. */
void perf__redis_loop_close(struct perf__redis_loop *loop);
/** Is this the loop's thread? */
bool perf__redis_loop_is_here(struct perf__redis_loop *loop);
/** Calls fn(ctx) on the I/O thread, soon; what is not yet called when the loop closes is called
 *  then. task must live until then. Starts the thread. PERF_OK or PERF_EIO. */
struct perf__redis_task {
    void (*fn)(void *ctx);
    void *ctx;
    struct perf__redis_task *next;
};
int perf__redis_loop_post(struct perf__redis_loop *loop, struct perf__redis_task *task);
/** Ends all links for good, ops with PERF_ECLOSED; they still have to be closed. No new ones. */
void perf__redis_loop_end_all(struct perf__redis_loop *loop);
/** In a forked child: closes descriptors and frees nothing. */
void perf__redis_loop_abandon(struct perf__redis_loop *loop);

int perf__redis_link_open(struct perf__redis_loop *loop,
                          const struct perf__redis_link_options *options,
                          struct perf__redis_link **out);
/** Ends all ops with PERF_ECLOSED, also those that are submitted from now on. NULL is allowed. */
void perf__redis_link_stop(struct perf__redis_link *link);
/** Ends all ops with PERF_ECLOSED and waits until the I/O thread and all threads in
 *  perf__redis_wait have let go of the link. NULL is allowed. */
void perf__redis_link_close(struct perf__redis_link *link);
/** Connects now, without an op. */
int perf__redis_link_start(struct perf__redis_link *link);
/** Leaves the connection; the next attempt begins at once. Any thread. */
void perf__redis_link_reconnect(struct perf__redis_link *link);
bool perf__redis_link_is_up(struct perf__redis_link *link);
/** The link's address, as it was last connected to. */
void perf__redis_link_address(struct perf__redis_link *link, struct perf__redis_address *out);
/** Adds what this link did to stats. */
void perf__redis_link_stats(struct perf__redis_link *link, perf_redis_stats *stats);

/** PERF_OK: the op is under way. Otherwise it never was, and the sentence is set:
 *  PERF_EBUSY, PERF_EUNAVAILABLE, PERF_EACCESS and PERF_ETLS (the last attempts ended so),
 *  PERF_ENOMEM, PERF_ECLOSED, PERF_EIO (no thread). */
int perf__redis_submit(struct perf__redis_link *link, struct perf__redis_op *op);
/** Waits until op is over; it has no done. May read and write for the others meanwhile. */
void perf__redis_wait(struct perf__redis_link *link, struct perf__redis_op *op);
/** Bytes outside any op, such as SUBSCRIBE on a link that listens: their replies go to push. Lost
 *  when there is no connection: greet says them then. */
int perf__redis_tell(struct perf__redis_link *link, const char *bytes, size_t len);

/* ---- redis_reply.c: replies under construction ---- */
perf_redis_reply *perf__redis_reply_new(const perf_allocator *allocator);

/* ---- redis_command.c ---- */
/** Bytes of the encoded command. */
size_t perf__redis_encoded_size(size_t argc, const perf_bytes *argv);
/** Writes it; returns behind its end. */
char *perf__redis_encode(char *at, size_t argc, const perf_bytes *argv);

/* ---- redis_error.c ---- */
/** PERF_E... of an error reply's text; *kind: PERF_REDIS_ERROR_... */
int perf__redis_error_status(const char *text, size_t len, int64_t *kind);

/* ---- redis_tls.c ---- */
int perf__redis_tls_new(const struct perf__host *host, const perf_redis_options *options,
                        struct perf__redis_tls **out);
void perf__redis_tls_free(struct perf__redis_tls *tls);

#endif
