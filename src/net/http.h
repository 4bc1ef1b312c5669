/* SPDX-License-Identifier: MIT */
/*
 * http.h - what the parts of the HTTP client share.
 *
 * One curl multi handle serves all requests of a client. Whoever may touch it
 * sits at "the wheel": the I/O thread, or a thread inside a blocking call, which
 * then needs no other thread to be woken for its request. The mutex guards the
 * calls' stages, the queues and who is at the wheel; what is marked "wheel"
 * below belongs to whoever sits there and needs no lock.
 */
#ifndef PERF_NET_HTTP_H
#define PERF_NET_HTTP_H

#include <curl/curl.h>
#include <libperf/http.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "../base/options.h"
#include "../base/uthash_host.h"
#include "http_reply.h"

struct perf__http_easy;
struct perf__http_waiter;

TAILQ_HEAD(perf__http_calls, perf_http_call);
TAILQ_HEAD(perf__http_hosts, perf__http_host);
TAILQ_HEAD(perf__http_waiters, perf__http_waiter);

/* What is known about one scheme://host:port, and who waits for a connection to it. Mutex. */
struct perf__http_host {
    UT_hash_handle hh;
    TAILQ_ENTRY(perf__http_host) turn; /* in http->turns while anyone waits */
    struct perf__http_calls waiting;
    uint64_t active;
    _Atomic bool speaks_h1; /* its last reply was HTTP/1: do not wait to share a connection */
    char name[];
};

enum {
    PERF__HTTP_WAITING,  /* in its host's queue */
    PERF__HTTP_ADMITTED, /* in http->inbox */
    PERF__HTTP_RUNNING,  /* in the multi handle */
    PERF__HTTP_OVER,
};

/* One request. Its strings follow it in the same block. */
struct perf_http_call {
    struct perf_http *http; /* a reference, for the handle may outlive perf_http_close */

    /* Written once, by perf__http_call_make. */
    const char *method, *url, *name; /* name: scheme://host:port, which errors may show */
    struct curl_slist *headers;
    const void *body;
    size_t body_len;
    perf_http_read_fn read;
    void *read_ctx;
    int64_t read_len;
    perf_http_write_fn write;
    void *write_ctx;
    perf_http_done_fn done;
    void *done_ctx;
    int64_t first_byte_ms;
    uint64_t max_body;
    int64_t start_ms, deadline_ms; /* real monotonic clock, as is all time of this room */
    bool has_body, https, idempotent, expect;

    /* Mutex. */
    TAILQ_ENTRY(perf_http_call) all;   /* until over */
    TAILQ_ENTRY(perf_http_call) queue; /* of its host, the inbox, or over and not fetched */
    struct perf__http_host *host;
    int stage, refs, waiters;
    struct perf__http_waiter *asleep; /* those of them that sleep */
    bool blocking;                    /* of perf_http_perform: no handle of it is out */
    bool listed;                      /* in http->over */
    bool fetched, cancel;

    /* Wheel; of the caller's once over. */
    struct perf__http_easy *easy;
    struct perf_http_call *next_finished;
    perf_http_reply *reply;
    int64_t check_ms;              /* look at it again then */
    int64_t sent_ms;               /* 0: no connection yet */
    int64_t stall_ms, stall_bytes; /* begin of the window, and what had come by then */
    int64_t bytes_in, bytes_out;
    int64_t sent_bytes; /* of a body that is read */
    int attempts;
    long connects;                     /* connections opened for it */
    bool first_byte, read_done, ended; /* ended: among the finished */
    int failed;                        /* a callback's or limit's own status; 0: none */
    int status;
    char error[256];
};

/* A thread that waits for a call, asleep on state. Mutex, but for state. */
enum { PERF__HTTP_ASLEEP, PERF__HTTP_AT_WHEEL, PERF__HTTP_CALL_OVER };
struct perf__http_waiter {
    TAILQ_ENTRY(perf__http_waiter) link;
    struct perf__http_waiter *next; /* of the same call */
    perf_http_call *call;
    bool linked;
    _Atomic uint32_t state;
};

/* What the wheel knows of a socket. */
struct perf__http_socket {
    uint32_t wanted;  /* EPOLLIN, EPOLLOUT: what curl asks for; 0: it is idle */
    uint32_t watched; /* what epoll was told */
    bool open;        /* a connection's, not one of curl's helpers */
    bool dead;        /* the peer closed it, or we did */
    int64_t idle_ms;  /* since when it is idle */
    ino_t inode;      /* of the socket that we opened: is it still this one? */
};

/* A curl easy handle and what is set on it, so that only changes are set. Wheel. */
struct perf__http_easy {
    CURL *curl;
    struct perf_http *http;
    perf_http_call *call;
    struct perf__http_easy *next;
    int shape;
    long version;
    int share; /* CURLOPT_PIPEWAIT */
    int proxy; /* 0: of http, 1: of https */
    bool custom;
    char method[32];
    char error[CURL_ERROR_SIZE];
};

enum {
    PERF__HTTP_NOBODY_DRIVES,
    PERF__HTTP_HANDED_OVER, /* to a waiter that is about to wake */
    PERF__HTTP_CALLER_DRIVES,
    PERF__HTTP_THREAD_DRIVES,
};

struct perf_http {
    struct perf__host host;
    uint64_t generation;
    perf_http_options options; /* defaults filled in; its strings are below */
    char *strings;
    const char *http_proxy, *https_proxy, *no_proxy;
    bool mask_sigpipe;  /* this libcurl writes to TLS sockets without MSG_NOSIGNAL */
    bool no_shared_h2c; /* it cannot use a connection of cleartext HTTP/2 twice */

    pthread_mutex_t mutex;
    pthread_cond_t thread_wakes; /* the I/O thread, away from the wheel */
    pthread_cond_t left;         /* perf_http_close: the last caller has left */
    pthread_t thread, driver_thread;
    bool started, closing, sleeping, attention;
    bool thread_rests;  /* without a time to wake at */
    int driver, inside; /* inside: threads in blocking calls */
    _Atomic int refs;
    struct perf__http_calls all, inbox, over;
    struct perf__http_waiters waiters;
    struct perf__http_hosts turns;
    struct perf__http_host *hosts;
    struct perf__hash_key secret;
    uint64_t active, callbacks, unattended;
    int64_t next_check_ms;
    int done_fd;
    perf_http_stats stats;

    /* Wheel. */
    CURLM *multi;
    CURLSH *share;
    CURL *sweeper;
    int epoll_fd, wake_fd;
    int64_t timer_ms; /* -1: none */
    struct perf__http_socket *sockets;
    size_t socket_slots;
    _Atomic uint64_t open_sockets; /* written at the wheel */
    struct perf__http_easy *easies;
    perf_http_call *finished;
    int64_t last_ms[3]; /* when a request last began, by the clocks that a freeze moves */
};

/* ---- http_wheel.c ---- */
/* All but the last with the mutex held. */
/** Into the queue, with a reference for the wheel; starts the I/O thread if need be. attended: the
 *  caller waits at once. */
int perf__http_submit(perf_http *http, perf_http_call *call, bool attended);
/** Waits until the call is over (true) or until_ms has come; may take the wheel meanwhile. The
 *  caller has counted itself in call->waiters and http->inside, and is out of both afterwards, when
 *  the mutex is not held any more. */
bool perf__http_wait(perf_http *http, perf_http_call *call, int64_t until_ms);
void perf__http_cancel(perf_http *http, perf_http_call *call);
/** Is this thread inside a callback of this client? */
bool perf__http_is_driver(perf_http *http);
/** Ends all calls and the thread, and sees all blocked callers out. */
void perf__http_stop_thread(perf_http *http);

/* ---- http.c ---- */
int perf__http_check(perf_http *http);
/** Drops a reference; frees the client with the last one. The mutex is not held. */
void perf__http_unref(perf_http *http);

/* ---- http_request.c ---- */
/** Checks and copies; *out is off all lists, with one reference. */
int perf__http_call_make(perf_http *http, const perf_http_request *request, perf_http_call **out);
void perf__http_call_free(perf_http_call *call);
/** What was asked of whom, without secrets: "GET https://host:443". */
int perf__http_call_fail(perf_http_call *call, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- http_queue.c: admission. All with the mutex held. ---- */
int perf__http_admit(perf_http *http, perf_http_call *call);
/** The call is over, or will never run: lets the next one in. */
void perf__http_depart(perf_http *http, perf_http_call *call);
void perf__http_hosts_free(perf_http *http);

/* ---- http_loop.c: the wheel ---- */
int64_t perf__http_now_ms(void); /* any thread */
int perf__http_loop_open(perf_http *http);
void perf__http_loop_close(perf_http *http);
/** In a forked child: the descriptors only. */
void perf__http_loop_abandon(perf_http *http);
/** Into the multi handle; on failure the call is among the finished. */
void perf__http_loop_start(perf_http *http, perf_http_call *call);
/** Takes a running call out, with call->status and its sentence set; then finishes it. */
void perf__http_loop_stop(perf_http *http, perf_http_call *call);
/** Puts a call that is in no handle among the finished. */
void perf__http_loop_finish(perf_http *http, perf_http_call *call);
/** Does what is due now. */
void perf__http_loop_turn(perf_http *http);
/** Waits for sockets, curl's timer, or a wake-up, at most until until_ms; then does what came. */
void perf__http_loop_wait(perf_http *http, int64_t until_ms);
/** Ends perf__http_loop_wait. Any thread. */
void perf__http_loop_wake(perf_http *http);
/** Closes connections that were idle for too long, or whose peer has left. */
void perf__http_loop_sweep(perf_http *http);
/* ---- http_easy.c ---- */
struct perf__http_easy *perf__http_easy_take(perf_http *http, perf_http_call *call);
void perf__http_easy_give(perf_http *http, struct perf__http_easy *easy);
void perf__http_easy_free(struct perf__http_easy *easy);

/* ---- http_error.c ---- */
/** Is the call over time? Then its status is set; otherwise check_ms is. Wheel and mutex. */
bool perf__http_late(perf_http *http, perf_http_call *call, int64_t now_ms);
/** Sets call->status and its sentence from what curl says. */
void perf__http_outcome(perf_http_call *call, CURLcode code);

/* Socket callbacks of an easy handle, in http_loop.c. */
curl_socket_t perf__http_socket_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *addr);
int perf__http_socket_close(void *ctx, curl_socket_t fd);

#endif
