/* SPDX-License-Identifier: MIT */
/*
 * redis.h - what the parts of the Redis client share: the client, and the route
 * that its commands take.
 *
 * A route is how a mode of operation finds the link for a command: one server
 * has one link, a cluster one for each node, Sentinel one whose address is asked
 * for. All public calls go through the client's route; adding a mode is one file
 * that fills one table, and a line in redis.c.
 */
#ifndef PERF_NET_REDIS_H
#define PERF_NET_REDIS_H

#include <pthread.h>
#include <sys/queue.h>

#include "redis_link.h"

/* An op and what a route needs to find its way: the words, valid until start returns, and for ops
 * that are waited for until wait returns. */
struct perf__redis_trip {
    struct perf__redis_op op;
    size_t argc;
    const perf_bytes *argv;        /* of the first command */
    struct perf__redis_link *link; /* where the op is: the route's to set */
    struct perf__redis_node *node; /* the same for a router's */
    bool split;                    /* it is several commands; wait sends them */
};

struct perf__redis_route {
    /* Makes redis->route_data from redis->options. Starts nothing. */
    int (*open)(perf_redis *redis);
    /* Ends all ops with PERF_ECLOSED, frees. Also after a failed open. */
    void (*close)(perf_redis *redis);
    /* Sends an op of one command (several when all go to one server: MULTI to EXEC). As
     * perf__redis_submit. With op.done, the op's memory is kept by whoever submits. */
    int (*start)(perf_redis *redis, struct perf__redis_trip *trip);
    /* Waits for it; without op.done. */
    void (*wait)(perf_redis *redis, struct perf__redis_trip *trip);
    /* Sends commands that need not go to one server; replies as perf_redis_call_many. NULL: they
     * are sent as one op by start. */
    int (*many)(perf_redis *redis, size_t count, const perf_redis_command *commands,
                int64_t deadline_ns, perf_redis_reply **replies);
    /* The address that a blocking command or a subscriber goes to; argc 0: any. Then
     * perf__redis_link_options of it. */
    int (*address)(perf_redis *redis, size_t argc, const perf_bytes *argv,
                   struct perf__redis_link_options *out);
    bool roams; /* it may be another one each time; address may block */
    /* A blocking command got this error from the server at *at. True: *at is where it is to go now,
     * if *asking with ASKING before. NULL: nobody is ever sent on. */
    bool (*learn)(perf_redis *redis, const char *error, struct perf__redis_address *at,
                  bool *asking);
    /* PERF_EINVAL unless one server can execute all commands; *first: the one that says which.
     * NULL: there is only one. */
    int (*together)(size_t count, const perf_redis_command *commands, size_t *first);
    void (*reconnect)(perf_redis *redis);
    void (*stats)(perf_redis *redis, perf_redis_stats *stats);
};

extern const struct perf__redis_route perf__redis_single;   /* redis.c */
extern const struct perf__redis_route perf__redis_cluster;  /* redis_cluster.c */
extern const struct perf__redis_route perf__redis_sentinel; /* redis_sentinel.c */

TAILQ_HEAD(perf__redis_pendings, perf_redis_pending);

struct perf_redis {
    struct perf__host host;
    uint64_t generation;
    perf_redis_options options; /* defaults filled in, URL read; its strings are below */
    char *strings;              /* wiped when it is closed */
    size_t strings_size;
    struct perf__redis_tls *tls;
    struct perf__redis_loop *loop;
    const struct perf__redis_route *route;
    void *route_data;
    struct perf__redis_link
        *_Atomic single;                   /* the route to one server: its link, once called for */
    struct perf__redis_blocking *blocking; /* the pool */

    pthread_mutex_t mutex; /* the lists, done_fd, greeting */
    pthread_cond_t changed;
    _Atomic int refs;
    _Atomic bool closing;
    struct perf__redis_pendings over;
    int done_fd;
    uint64_t subscribers;
    uint64_t blocked; /* threads in commands that block */
    char *greeting;   /* on_connect, encoded */
    size_t greeting_len;
    uint32_t greeting_replies;
    _Atomic uint64_t blocking_calls;
};

/* ---- redis.c ---- */
int perf__redis_check(perf_redis *redis);
void perf__redis_unref(perf_redis *redis);
/** The options of a link to the client's server, but for its address and callbacks. */
void perf__redis_link_defaults(perf_redis *redis, struct perf__redis_link_options *out);
/** greet of a link: on_connect's commands. ctx is the client. */
int perf__redis_greet(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                      uint32_t *expected);
/** event of a link: tells the host. ctx is the client. */
void perf__redis_event(void *ctx, struct perf__redis_link *link, int event, int status,
                       const char *error);

/* ---- redis_url.c ---- */
/** Fills fields that are not set from the URL; strings go to room, of strlen(url) + 4 bytes. */
int perf__redis_url_parse(perf_redis_options *o, const char *url, char *room);

/* ---- redis_call.c ---- */
/** The beginning of a call that waits: its deadline, or PERF_EINVAL, PERF_EFORKED, PERF_EDEADLK. */
int perf__redis_begin(perf_redis *redis, int64_t timeout_ms, int64_t *deadline_ns);
void perf__redis_trip_init(struct perf__redis_trip *trip, size_t argc, const perf_bytes *argv,
                           const char *bytes, size_t len, uint32_t expected, int64_t deadline_ns,
                           perf_redis_reply **replies);
/** The end of an op with one reply, which is released or becomes *out (out may be NULL): the op's
 *  status, or that of an error reply, with the sentence. */
int perf__redis_take_reply(struct perf__redis_op *op, perf_redis_reply *reply,
                           perf_redis_reply **out);

/* ---- redis_command.c ---- */
/** ASKING, encoded: what a node of a cluster wants to hear before a command that ASK sent on. */
#define PERF__REDIS_ASKING "*1\r\n$6\r\nASKING\r\n"
enum { PERF__REDIS_ASKING_LEN = sizeof PERF__REDIS_ASKING - 1 };
enum { PERF__REDIS_PLAIN, PERF__REDIS_BLOCKS, PERF__REDIS_REFUSED };
/** What kind of command it is. REFUSED: the sentence says what to use instead. */
int perf__redis_command_kind(size_t argc, const perf_bytes *argv);
/** PERF_EINVAL unless it is a command that can be encoded. */
int perf__redis_check_command(size_t argc, const perf_bytes *argv);

/* ---- redis_blocking.c ---- */
int perf__redis_call_blocking(perf_redis *redis, size_t argc, const perf_bytes *argv,
                              int64_t deadline_ns, perf_redis_reply **out);
void perf__redis_blocking_close(perf_redis *redis);

#endif
