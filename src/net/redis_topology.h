/* SPDX-License-Identifier: MIT */
/*
 * redis_topology.h - who serves which slots of a Redis Cluster, as one of its nodes says.
 *
 * A topology is what one reply to CLUSTER SLOTS said; it never changes. Any thread.
 */
#ifndef PERF_NET_REDIS_TOPOLOGY_H
#define PERF_NET_REDIS_TOPOLOGY_H

#include "redis_link.h"

enum {
    PERF__REDIS_NODES = 1024,  /* more nodes than a cluster can have and be well */
    PERF__REDIS_REPLICAS = 8,  /* of a master; further ones are not read from */
    PERF__REDIS_HOST_MAX = 255 /* bytes of a name or address */
};

/* Slots first to last, and the nodes' numbers. */
struct perf__redis_range {
    uint16_t first, last;
    uint16_t master;
    uint16_t replica_count;
    uint16_t replicas[PERF__REDIS_REPLICAS];
};

struct perf__redis_topology {
    size_t node_count, range_count;
    struct perf__redis_address *nodes; /* each once */
    struct perf__redis_range *ranges;  /* as told: later ones win */
};

/**
 * Reads a reply to CLUSTER SLOTS. asked is the node that gave it, for nodes that do not know their
 * own address. PERF_EPROTOCOL with a sentence, for what no cluster says: slots or ports out of
 * bounds, names that are none, too many nodes, no slots at all; PERF_ENOMEM.
 */
int perf__redis_topology_read(const perf_allocator *allocator, const perf_redis_reply *reply,
                              const struct perf__redis_address *asked,
                              struct perf__redis_topology **out);
/** NULL is allowed. */
void perf__redis_topology_free(const perf_allocator *allocator, struct perf__redis_topology *t);

/** Reads "MOVED 3999 10.0.0.1:6381" or "ASK ...": false if it is neither, or not whole. An empty
 *  host is asked's. */
bool perf__redis_redirect_read(const char *text, const struct perf__redis_address *asked,
                               int32_t *slot, struct perf__redis_address *out);

/** "host:port", "[::1]:port", or a host alone, with port as the default. */
bool perf__redis_address_read(const char *text, int port, struct perf__redis_address *out);

bool perf__redis_address_equal(const struct perf__redis_address *a,
                               const struct perf__redis_address *b);

#endif
