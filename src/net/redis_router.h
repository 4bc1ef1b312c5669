/* SPDX-License-Identifier: MIT */
/*
 * redis_router.h - commands that find their way among several servers.
 *
 * A router sends an op to a node's link, looks at how it ended, and if the answer was "not here" or
 * "not now", sends it again: elsewhere at once, or after a pause. Which node, and what an answer
 * means, is the way's to say: redis_cluster.c and redis_sentinel.c have one each. What is sent
 * again is only what is known not to have been executed.
 *
 * Threads: one that waits does all this itself. Ops that nobody waits for are sent on by whoever
 * hears of their end; their pauses, and the ways' own errands, are the router's thread's, which
 * starts when first needed. It never waits for the network. The mutex guards the paused, the ways'
 * maps and nodes' addresses; it is held while links are opened, but no callback runs under it.
 */
#ifndef PERF_NET_REDIS_ROUTER_H
#define PERF_NET_REDIS_ROUTER_H

#include "redis.h"
#include "redis_slot.h"

struct perf__redis_router;

/* One server. Held while used: see perf__redis_node_hold. */
struct perf__redis_node {
    struct perf__redis_router *router;
    struct perf__redis_link *_Atomic link; /* NULL: not opened yet */
    _Atomic uint32_t holds;                /* and PERF__REDIS_NODE_CLOSED */
    _Atomic int64_t suspect_until_ns;      /* it failed lately: rather ask another one */
    struct perf__redis_address address;    /* mutex */
};
enum { PERF__REDIS_NODE_CLOSED = 1 << 30 };

/* Where a command is to be sent next, and how often it was. */
struct perf__redis_search {
    int32_t slot; /* PERF__REDIS_ANY_NODE: wherever */
    bool reads;   /* a replica may answer */
    bool asking;  /* the next attempt says ASKING before */
    uint32_t redirects, pauses;
    struct perf__redis_node *target; /* where it was sent; held; NULL: where the map says */
};

enum perf__redis_verdict {
    PERF__REDIS_SETTLED,   /* so be it */
    PERF__REDIS_ELSEWHERE, /* again, at once */
    PERF__REDIS_LATER,     /* again, after a pause */
};

struct perf__redis_way {
    bool splits; /* a command's keys may be on several nodes */
    /* Finds a node and holds it. PERF_MISS: there is none now, but may be soon; or a failure. Both
     * set the sentence. */
    int (*pick)(struct perf__redis_router *router, struct perf__redis_search *search,
                struct perf__redis_node **out);
    /* What the end of an attempt means: its status, and replies if that is PERF_OK. */
    enum perf__redis_verdict (*judge)(struct perf__redis_router *router,
                                      struct perf__redis_search *search,
                                      struct perf__redis_node *node, int status, uint32_t count,
                                      perf_redis_reply *const *replies);
    /* Opens a node's link, when it is first held. Mutex. */
    int (*connect)(struct perf__redis_node *node, struct perf__redis_link **out);
    /* The router's thread: does what is due, with the mutex, which it may let go meanwhile; returns
     * when it is next, INT64_MAX for never. */
    int64_t (*errands)(struct perf__redis_router *router, int64_t now_ns);
};

TAILQ_HEAD(perf__redis_journeys, perf__redis_journey);

struct perf__redis_router {
    perf_redis *redis;
    const struct perf__redis_way *way;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* the map, the paused, an answer, closing, inside is 0 */
    pthread_t thread;
    bool has_thread;
    _Atomic bool closing;
    _Atomic uint64_t version; /* of the map: pauses end when it changes */
    _Atomic int64_t inside;   /* calls that wait, and journeys */
    struct perf__redis_journeys paused;
    _Atomic uint64_t moved, asked, retried;
};

int perf__redis_router_init(struct perf__redis_router *router, perf_redis *redis,
                            const struct perf__redis_way *way);
/** Starts the router's thread if it does not run. Mutex. */
int perf__redis_router_wake(struct perf__redis_router *router);
/** Ends the thread and what is paused; from then on nothing is sent. The way's links are to be
 *  closed next, and then perf__redis_router_destroy waits until nobody is inside. */
void perf__redis_router_stop(struct perf__redis_router *router);
void perf__redis_router_destroy(struct perf__redis_router *router);
/** The map has changed: what pauses goes on. Mutex. */
void perf__redis_router_changed(struct perf__redis_router *router);

/** Holds a node, which must not have been freed. False: it is closed. */
bool perf__redis_node_hold(struct perf__redis_node *node);
void perf__redis_node_let_go(struct perf__redis_node *node);
/** Its link, opened if need be; the node is held. Without the mutex. */
int perf__redis_node_link(struct perf__redis_node *node, struct perf__redis_link **out);

/** Puts a command, encoded, before what a link says in greeting. On failure nothing is left. */
int perf__redis_router_greet(struct perf__redis_router *router, const char *words, size_t n,
                             char **bytes, size_t *len, uint32_t *expected);

/** A call or a journey is over. */
void perf__redis_router_leave(struct perf__redis_router *router);

/** Functions of struct perf__redis_route; redis->route_data begins with the router. */
int perf__redis_router_start(perf_redis *redis, struct perf__redis_trip *trip);
void perf__redis_router_wait(perf_redis *redis, struct perf__redis_trip *trip);

/* ---- redis_many.c ---- */
int perf__redis_router_many(perf_redis *redis, size_t count, const perf_redis_command *commands,
                            int64_t deadline_ns, perf_redis_reply **replies);
/** What perf__redis_router_start does for a command whose keys are in several slots. */
int perf__redis_router_start_split(struct perf__redis_router *router,
                                   struct perf__redis_trip *trip);
/** Function of struct perf__redis_route: all keys of all commands are to be in one slot. */
int perf__redis_router_together(size_t count, const perf_redis_command *commands, size_t *first);
/** PERF_EINVAL: the command's keys are in several slots, and it cannot be split. */
int perf__redis_fail_spans(const perf_bytes *argv);

/* ---- for both ---- */
struct perf__redis_search perf__redis_search_begin(size_t argc, const perf_bytes *argv);
/** Forgets where it was sent. */
void perf__redis_search_end(struct perf__redis_search *search);
/** Waits as long as a search that was told LATER has to. False: its deadline comes first, or the
 *  client closes. Inside. */
bool perf__redis_router_pause(struct perf__redis_router *router, struct perf__redis_search *search,
                              int64_t deadline_ns);
/** Calls trip->op.done where it may run. */
struct perf__redis_ending {
    struct perf__redis_task task;
    struct perf__redis_trip *trip;
    struct perf__redis_router *router;
    void *block; /* freed before; this struct is in it */
};
void perf__redis_router_tell(struct perf__redis_router *router, struct perf__redis_trip *trip,
                             struct perf__redis_ending *ending, void *block);

#endif
