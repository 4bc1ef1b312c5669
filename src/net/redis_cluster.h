/* SPDX-License-Identifier: MIT */
/*
 * redis_cluster.h - what the two halves of the cluster's way share.
 *
 * The map is 16,384 numbers of nodes, read and written one by one: each slot moves by itself, and
 * a command that goes to the wrong node is told the right one. So no reader needs a lock, and MOVED
 * changes one number. Nodes have a place each, which is used again for another node when theirs has
 * left the cluster and nobody holds it; a reader that still has its number then asks the wrong
 * node, and is told.
 */
#ifndef PERF_NET_REDIS_CLUSTER_H
#define PERF_NET_REDIS_CLUSTER_H

#include "redis_router.h"
#include "redis_topology.h"

struct perf__redis_member {
    struct perf__redis_node node; /* first */
    /* Mutex, but what is atomic. */
    bool present; /* in the last topology */
    _Atomic bool master;
    _Atomic uint16_t replica_count;
    _Atomic uint16_t replicas[PERF__REDIS_REPLICAS]; /* numbers, from 1 */
};

/* A question to a node, what the map is. */
struct perf__redis_refresh {
    struct perf__redis_op op;
    perf_redis_reply *reply;
    struct perf__redis_node *asked; /* held; NULL: nobody is asked now */
    struct perf__redis_address address;
    bool wanted, answered, seeded;
    int64_t begun_ns, due_ns;
    int status; /* of the last one as a whole, and its sentence */
    char error[PERF__REDIS_SENTENCE];
    uint16_t candidates[PERF__REDIS_NODES]; /* numbers, from 1 */
    size_t candidate_count, next;
};

struct perf__redis_cluster {
    struct perf__redis_router router;                              /* first */
    _Atomic uint16_t slots[PERF__REDIS_SLOTS];                     /* numbers, from 1; 0: nobody */
    struct perf__redis_member *_Atomic members[PERF__REDIS_NODES]; /* number - 1; never freed before
                                                                       the end */
    _Atomic uint32_t member_count;                                 /* places in use */
    _Atomic bool known;                                            /* a map was read */
    int64_t refresh_ns;
    uint64_t max_redirects;
    bool read_replicas;

    /* Mutex. */
    struct perf__redis_refresh refresh;
    struct perf__redis_address *seeds;
    size_t seed_count;
    int64_t retire_ns; /* when to look for nodes that left */
    _Atomic uint64_t refreshes;
};

static inline struct perf__redis_cluster *perf__redis_cluster_of(struct perf__redis_router *router)
{
    return (struct perf__redis_cluster *)router;
}

/** The member of a number from 1 to member_count. */
static inline struct perf__redis_member *perf__redis_member_at(struct perf__redis_cluster *cluster,
                                                               uint32_t number)
{
    return atomic_load_explicit(&cluster->members[number - 1], memory_order_acquire);
}

/* ---- redis_cluster_map.c ---- */
/** The map is wanted, soon; newer: also if one is being asked for, which may be as old as the one
 *  that was found wrong. Without the mutex. */
int perf__redis_cluster_want(struct perf__redis_cluster *cluster, bool newer);
/** The number of the node at an address, made if it is new; 0 and the sentence if it cannot. Mutex.
 */
uint32_t perf__redis_cluster_number(struct perf__redis_cluster *cluster,
                                    const struct perf__redis_address *address);
int64_t perf__redis_cluster_errands(struct perf__redis_router *router, int64_t now_ns);
/** Ends a question under way; its link is closed. */
void perf__redis_cluster_forget(struct perf__redis_cluster *cluster);

#endif
