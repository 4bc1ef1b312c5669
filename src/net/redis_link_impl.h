/* SPDX-License-Identifier: MIT */
/*
 * redis_link_impl.h - a link from the inside, for the files that are one.
 *
 * How a command travels. A submitter appends its bytes to `out` and its op to the
 * ring, under the mutex. If no write is on its way it swaps `out` for an empty
 * buffer and sends; otherwise the reply that ends the one on its way sends all
 * that has gathered meanwhile, so that batches form by themselves and while one
 * half of the threads wait for the server, the other half fills the next batch.
 * Whoever waits first for a reply becomes the reader: it polls the socket, and
 * gives all replies of what it read to their ops under one lock. It wakes the
 * others by `waves`: all ops that went out in one write sleep on the same word,
 * so one system call wakes all whose replies came together; in a crowd most do
 * not sleep at all, but give others their turn (redis_wait.c). When its own reply
 * is there it leaves, and wakes one of those still waiting to read on; the I/O
 * thread reads when nobody waits. A single caller thus makes the system calls
 * that it would make with a socket of its own, and no thread is woken for it.
 *
 * Who may touch what: "mutex" needs it; "reader" belongs to whoever holds that
 * role, "writer" likewise; "loop" is the I/O thread's. The socket is closed only
 * by the I/O thread when both roles are free.
 */
#ifndef PERF_NET_REDIS_LINK_IMPL_H
#define PERF_NET_REDIS_LINK_IMPL_H

#include <pthread.h>
#include <sys/queue.h>

#include "redis_link.h"
#include "redis_reply.h"
#include "redis_tls.h"

enum { PERF__REDIS_WAVES = 64, PERF__REDIS_READ = 64 << 10 };

struct perf__redis_buffer {
    char *bytes;
    size_t len, space;
};

/* An op that has been submitted and has not all its replies. */
struct perf__redis_slot {
    struct perf__redis_op *op; /* NULL: given up; its replies are dropped */
    uint64_t end;              /* of its bytes, in the stream of this connection */
    uint32_t expected, got;
    uint32_t wave; /* the write that carries it */
};

enum {
    PERF__REDIS_IDLE,       /* nobody wants it yet */
    PERF__REDIS_PAUSED,     /* until retry_ns, then it connects */
    PERF__REDIS_RESOLVING,  /* a thread looks for addresses */
    PERF__REDIS_CONNECTING, /* TCP */
    PERF__REDIS_HANDSHAKE,  /* TLS */
    PERF__REDIS_GREETING,   /* AUTH and what follows */
    PERF__REDIS_IS_UP,
    PERF__REDIS_BROKEN, /* the socket is dead; reader and writer are asked to leave */
    PERF__REDIS_ENDED,  /* `once`, and it is over; or closed */
};

/* Who reads. */
enum {
    PERF__REDIS_NOBODY_MAY, /* there is no connection */
    PERF__REDIS_FREE,
    PERF__REDIS_CALLER,
    PERF__REDIS_THREAD,
};

struct perf__redis_wave {
    _Atomic uint32_t word, sleepers;
};

struct perf__redis_link {
    struct perf__redis_loop *loop;
    const perf_allocator *allocator;
    struct perf__redis_link_options options;
    char *strings;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* closed; or a waiter has left */

    /* Mutex. */
    int state;
    bool closing, closed, reconnect;
    bool writing;              /* somebody is the writer */
    bool loop_writes, blocked; /* it is the I/O thread; and the socket is full */
    bool read_wanted;          /* the I/O thread is to read */
    struct perf__redis_buffer out;
    uint64_t appended; /* end of out, in the stream of this connection */
    uint64_t flushed;  /* what the kernel took of it */
    uint64_t popped;   /* end of the slot before head */
    struct perf__redis_slot *ring;
    uint64_t head, tail, mask; /* slots of [head, tail) */
    uint32_t wave;             /* the next write */
    uint32_t flights;          /* writes that may be on their way at once */
    uint32_t measured_wave;
    int64_t wave_sent_ns[PERF__REDIS_WAVES];
    int64_t window_ns, least_ns, last_least_ns; /* shortest round trips */
    int64_t next_deadline; /* of ops with done, at the earliest; INT64_MAX: none */
    struct perf__redis_op *finished, **finished_end; /* for the I/O thread to call done */
    int64_t last_async_ns;
    int failed, broken; /* why the last attempt failed, and the last connection broke */
    char failure[PERF__REDIS_SENTENCE], why_broken[160];
    char label[80]; /* who the peer is, for sentences */
    struct perf__redis_address connected_to;
    perf_redis_stats stats;

    _Atomic int reader;
    _Atomic int64_t turns_from_ns; /* nobody gives turns before */
    _Atomic int inside;            /* ops that are waited for */
    struct perf__redis_wave waves[PERF__REDIS_WAVES];

    /* Writer. */
    struct perf__redis_buffer sending;
    size_t sent;

    /* Reader. */
    char *input;
    size_t input_at, input_len;
    struct perf__redis_parser parser;
    _Atomic uint64_t reads, bytes_in;

    /* Loop; fd and session also reader and writer while it is up. */
    int fd;
    struct perf__redis_session *session;
    uint32_t watched;
    bool in_epoll;
    bool serving; /* what is submitted on the I/O thread is seen to at the end of this service */
    int64_t timer_ns, retry_ns, connect_by_ns, up_ns, heard_ns, pinged_ns, resolve_by_ns;
    unsigned failures;
    struct perf__redis_resolve *resolve;
    struct perf__redis_buffer greeting;
    size_t greeting_sent;
    uint32_t greeting_left, greeting_own, greeting_count, greeting_ignore;
    TAILQ_ENTRY(perf__redis_link) all; /* the loop's mutex */

    /* The loop's mutex. */
    struct perf__redis_link *next_attention;
    bool attention;
};

/* ---- redis_end.c ---- */
/** Ends an op. With the mutex; what is to be called or woken afterwards is collected. */
struct perf__redis_ended {
    struct perf__redis_op *anywhere;
    uint64_t waves; /* a bit each */
    bool thread;
};
void perf__redis_end(struct perf__redis_link *link, struct perf__redis_ended *ended,
                     struct perf__redis_op *op, int status, const char *error);
/** Calls and wakes. Without the mutex. */
void perf__redis_settle(struct perf__redis_link *link, struct perf__redis_ended *ended);
/** Calls done of the ops in link->finished. I/O thread, without the mutex. */
void perf__redis_call_finished(struct perf__redis_link *link);
/** Ends ops with done whose deadline has passed. With the mutex. */
void perf__redis_expire(struct perf__redis_link *link, struct perf__redis_ended *ended,
                        int64_t now_ns);
/** The status, and into text the sentence, of an op whose time is over. With the mutex. */
int perf__redis_late_status(struct perf__redis_link *link, const struct perf__redis_slot *slot,
                            const struct perf__redis_op *op, char *text, size_t size);
/** This is the I/O thread, and it is about to do all that is due on this link. */
bool perf__redis_is_served(struct perf__redis_link *link);

/* ---- redis_send.c ---- */
/** The connection is dead: sets state and failure, wakes reader and writer, calls the loop. With
 *  the mutex. */
void perf__redis_break(struct perf__redis_link *link, int status, const char *why);
/** Drops given-up ops and, with all, every op that may have been written, from ring and out, which
 *  then begins a new stream. With the mutex; nobody writes. */
void perf__redis_restart_stream(struct perf__redis_link *link, struct perf__redis_ended *ended,
                                bool all, int status, const char *error);
/** May what is in out be written now, by who asks? With the mutex. */
bool perf__redis_may_write(struct perf__redis_link *link);
/** A reply to this write has come: how far away is the server? With the mutex. */
void perf__redis_measure(struct perf__redis_link *link, uint32_t wave);
/** Sends what is in out. Whoever set link->writing. */
void perf__redis_flush(struct perf__redis_link *link);
bool perf__redis_buffer_add(const perf_allocator *allocator, struct perf__redis_buffer *b,
                            const char *bytes, size_t len);

/* ---- redis_receive.c ---- */
/** Reads once. Reader. False: nothing came, or the connection broke. */
bool perf__redis_read_once(struct perf__redis_link *link);

/* ---- redis_wait.c ---- */
/** Wakes up to count of those who sleep on the wave of this number. Without the mutex. */
void perf__redis_wake(struct perf__redis_link *link, int number, int count);
/** The monotonic clock to the nanosecond. */
int64_t perf__redis_precise_now(void);

/* ---- redis_connect.c: all on the I/O thread ---- */
/** Does whatever is due on a link: after events of its socket, a timer or a call for attention. */
void perf__redis_serve(struct perf__redis_link *link, uint32_t events, int64_t now_ns);

/* ---- redis_loop.c ---- */
/** The loop is to serve this link. Any thread, also with the link's mutex. */
void perf__redis_attend(struct perf__redis_link *link);
/** perf__redis_loop_end_all was called. */
bool perf__redis_loop_ends(struct perf__redis_loop *loop);
int perf__redis_loop_add(struct perf__redis_link *link);
void perf__redis_loop_remove(struct perf__redis_link *link);
/** Tells epoll about the link's socket; 0: only a peer that leaves. */
void perf__redis_loop_watch(struct perf__redis_link *link, uint32_t events);
void perf__redis_loop_forget(struct perf__redis_link *link);
const struct perf__host *perf__redis_loop_host(struct perf__redis_loop *loop);

#endif
