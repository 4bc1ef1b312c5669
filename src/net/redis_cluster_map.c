/* SPDX-License-Identifier: MIT */
/*
 * redis_cluster_map.c - keeping the map of a Redis Cluster, on the router's thread.
 *
 * Who finds the map wrong wants a new one; however many do, one node at a time is asked CLUSTER
 * SLOTS, at most every 100 ms: first nodes that are connected and well, from a random one on, then
 * the others, then the seeds, until one answers. The thread does not wait for the answer, it hears
 * of it.
 */
#include "redis_cluster.h"

#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/thread.h"

enum { APART_MS = 100, ANSWER_MS = 1000, RETIRE_MS = 1000 };

static const char question[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";

static int64_t ms(int64_t n)
{
    return n * 1000000;
}

int perf__redis_cluster_want(struct perf__redis_cluster *cluster, bool newer)
{
    struct perf__redis_router *router = &cluster->router;
    pthread_mutex_lock(&router->mutex);
    int rc = perf__redis_router_wake(router);
    if (!cluster->refresh.wanted && (newer || !cluster->refresh.asked)) {
        cluster->refresh.wanted = true;
        pthread_cond_broadcast(&router->changed);
    }
    pthread_mutex_unlock(&router->mutex);
    return rc;
}

/* ------------------------------------------------------------------------ members */

static bool is_closed(struct perf__redis_member *m)
{
    return atomic_load(&m->node.holds) & PERF__REDIS_NODE_CLOSED;
}

uint32_t perf__redis_cluster_number(struct perf__redis_cluster *cluster,
                                    const struct perf__redis_address *address)
{
    uint32_t count = atomic_load(&cluster->member_count), free_place = 0;
    struct perf__redis_member *m;
    for (uint32_t i = 1; i <= count; i++) {
        m = perf__redis_member_at(cluster, i);
        if (is_closed(m))
            free_place = i;
        else if (perf__redis_address_equal(&m->node.address, address))
            return i;
    }
    if (free_place) {
        m = perf__redis_member_at(cluster, free_place);
        m->node.address = *address;
        atomic_store(&m->node.suspect_until_ns, 0);
        atomic_fetch_and(&m->node.holds, ~(uint32_t)PERF__REDIS_NODE_CLOSED);
        return free_place;
    }
    if (count == PERF__REDIS_NODES) {
        perf__fail(PERF_EBUSY, "the cluster has more than %d nodes", PERF__REDIS_NODES);
        return 0;
    }
    m = perf__calloc(&cluster->router.redis->host.allocator, 1, sizeof *m);
    if (!m) {
        perf__fail_nomem("a node of the cluster");
        return 0;
    }
    m->node.router = &cluster->router;
    m->node.address = *address;
    atomic_store_explicit(&cluster->members[count], m, memory_order_release);
    atomic_store_explicit(&cluster->member_count, count + 1, memory_order_release);
    return count + 1;
}

/* Closes those that left the cluster and that nobody holds. With the mutex, let go meanwhile. */
static void retire(struct perf__redis_cluster *cluster, int64_t now)
{
    struct perf__redis_router *router = &cluster->router;
    bool more = false;
    for (uint32_t i = 1; i <= atomic_load(&cluster->member_count); i++) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, i);
        uint32_t nobody = 0;
        if (m->present || is_closed(m))
            continue;
        if (!atomic_compare_exchange_strong(&m->node.holds, &nobody, PERF__REDIS_NODE_CLOSED)) {
            more = true;
            continue;
        }
        struct perf__redis_link *link = atomic_exchange(&m->node.link, NULL);
        pthread_mutex_unlock(&router->mutex);
        perf__redis_link_close(link);
        pthread_mutex_lock(&router->mutex);
    }
    cluster->retire_ns = more ? now + ms(RETIRE_MS) : INT64_MAX;
}

/* ------------------------------------------------------------------------ the map */

/* What a node is, told to those who are choosing meanwhile. */
static void set_role(struct perf__redis_member *m, const struct perf__redis_range *mastered,
                     const uint32_t *numbers)
{
    uint16_t count = mastered ? mastered->replica_count : 0;
    for (uint16_t i = 0; i < count; i++)
        atomic_store(&m->replicas[i], (uint16_t)numbers[mastered->replicas[i]]);
    atomic_store(&m->replica_count, count);
    atomic_store(&m->master, mastered != NULL);
}

/* A topology becomes the map: each slot and each node changes at once, from what it was to what it
 * is. Mutex. */
static int apply(struct perf__redis_cluster *cluster, const struct perf__redis_topology *t)
{
    uint32_t numbers[PERF__REDIS_NODES];                               /* by node of the topology */
    const struct perf__redis_range *mastered[PERF__REDIS_NODES] = {0}; /* by number - 1 */
    bool present[PERF__REDIS_NODES] = {false};
    uint16_t owners[PERF__REDIS_SLOTS] = {0};
    for (size_t i = 0; i < t->node_count; i++) {
        if (!(numbers[i] = perf__redis_cluster_number(cluster, &t->nodes[i])))
            return PERF_ENOMEM;
        present[numbers[i] - 1] = true;
    }
    for (size_t i = 0; i < t->range_count; i++) {
        const struct perf__redis_range *range = &t->ranges[i];
        mastered[numbers[range->master] - 1] = range;
        for (uint32_t slot = range->first; slot <= range->last; slot++)
            owners[slot] = (uint16_t)numbers[range->master];
    }
    for (uint32_t i = 0; i < atomic_load(&cluster->member_count); i++) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, i + 1);
        m->present = present[i];
        set_role(m, mastered[i], numbers);
    }
    for (uint32_t slot = 0; slot < PERF__REDIS_SLOTS; slot++)
        atomic_store_explicit(&cluster->slots[slot], owners[slot], memory_order_release);
    atomic_store(&cluster->known, true);
    return PERF_OK;
}

/* ---------------------------------------------------------------------- questions */

static void add_candidate(struct perf__redis_refresh *r, uint32_t number)
{
    for (size_t i = 0; i < r->candidate_count; i++)
        if (r->candidates[i] == number)
            return;
    if (number && r->candidate_count < PERF__REDIS_NODES)
        r->candidates[r->candidate_count++] = (uint16_t)number;
}

static void choose_candidates(struct perf__redis_cluster *cluster, int64_t now)
{
    struct perf__redis_refresh *r = &cluster->refresh;
    uint32_t count = atomic_load(&cluster->member_count);
    uint32_t start = count ? (uint32_t)(perf__thread_random() % count) : 0;
    r->candidate_count = r->next = 0;
    for (int choosy = 1; choosy >= 0; choosy--) {
        for (uint32_t i = 0; i < count; i++) {
            uint32_t number = 1 + (start + i) % count;
            struct perf__redis_member *m = perf__redis_member_at(cluster, number);
            struct perf__redis_link *link = atomic_load(&m->node.link);
            bool well = link && perf__redis_link_is_up(link) &&
                        atomic_load(&m->node.suspect_until_ns) <= now;
            if (m->present && !is_closed(m) && (well || !choosy))
                add_candidate(r, number);
        }
    }
    r->seeded = false;
}

/* Seeds, when nobody else answers: they may be names of nodes that are known by others. */
static bool add_seeds(struct perf__redis_cluster *cluster)
{
    struct perf__redis_refresh *r = &cluster->refresh;
    for (size_t i = 0; i < cluster->seed_count && !r->seeded; i++)
        add_candidate(r, perf__redis_cluster_number(cluster, &cluster->seeds[i]));
    r->seeded = true;
    return r->next < r->candidate_count;
}

static void answered(struct perf__redis_op *op)
{
    struct perf__redis_cluster *cluster = op->ctx;
    pthread_mutex_lock(&cluster->router.mutex);
    cluster->refresh.answered = true;
    pthread_cond_broadcast(&cluster->router.changed);
    pthread_mutex_unlock(&cluster->router.mutex);
}

static void failed(struct perf__redis_cluster *cluster, int status, const char *error)
{
    cluster->refresh.status = status;
    snprintf(cluster->refresh.error, sizeof cluster->refresh.error, "%s", error);
}

/* Asks the next candidate that can be asked. With the mutex, let go meanwhile. */
static void ask_next(struct perf__redis_cluster *cluster)
{
    struct perf__redis_router *router = &cluster->router;
    struct perf__redis_refresh *r = &cluster->refresh;
    while (!atomic_load(&router->closing) && (r->next < r->candidate_count || add_seeds(cluster))) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, r->candidates[r->next++]);
        struct perf__redis_link *link = NULL;
        if (!perf__redis_node_hold(&m->node))
            continue;
        r->address = m->node.address;
        r->answered = false;
        r->reply = NULL;
        r->op = (struct perf__redis_op){.bytes = question,
                                        .len = sizeof question - 1,
                                        .expected = 1,
                                        .replies = &r->reply,
                                        .done = answered,
                                        .ctx = cluster};
        r->asked = &m->node;
        pthread_mutex_unlock(&router->mutex);
        int rc = perf__redis_node_link(&m->node, &link);
        if (!rc) {
            int64_t limit = perf__redis_link_is_up(link)
                                ? ANSWER_MS
                                : router->redis->options.connect_timeout_ms;
            r->op.deadline_ns = perf__redis_now() + ms(limit);
            rc = perf__redis_submit(link, &r->op);
        }
        pthread_mutex_lock(&router->mutex);
        if (!rc)
            return;
        failed(cluster, rc, perf_last_error());
        perf__redis_node_let_go(&m->node);
        r->asked = NULL;
    }
    if (!atomic_load(&cluster->known)) /* who waits for the first map may want to know */
        perf__redis_router_changed(router);
}

static bool is_cluster_error(const perf_redis_reply *reply)
{
    return perf_redis_reply_type(reply) == PERF_REDIS_ERROR &&
           strstr(perf_redis_reply_data(reply), "cluster support disabled");
}

/* The answer of the one that was asked. */
static void take_answer(struct perf__redis_cluster *cluster, int64_t now)
{
    struct perf__redis_router *router = &cluster->router;
    struct perf__redis_refresh *r = &cluster->refresh;
    const perf_allocator *allocator = &router->redis->host.allocator;
    struct perf__redis_topology *t = NULL;
    int rc = r->op.status ? perf__fail(r->op.status, "%s", r->op.error)
                          : perf_redis_reply_status(r->reply);
    if (r->op.status)
        atomic_store(&r->asked->suspect_until_ns, now + ms(ANSWER_MS));
    else if (is_cluster_error(r->reply))
        rc = perf__fail(PERF_EUNSUPPORTED, "%s:%d is no node of a Redis Cluster; use mode SINGLE",
                        r->address.host, r->address.port);
    else if (rc)
        perf__fail(rc, "%s", perf_redis_reply_data(r->reply));
    else
        rc = perf__redis_topology_read(allocator, r->reply, &r->address, &t);
    if (!rc)
        rc = apply(cluster, t);
    perf__redis_topology_free(allocator, t);
    perf_redis_reply_release(r->reply);
    r->reply = NULL;
    perf__redis_node_let_go(r->asked);
    r->asked = NULL;
    if (rc) {
        failed(cluster, rc, perf_last_error());
        ask_next(cluster);
        return;
    }
    failed(cluster, PERF_OK, "");
    atomic_fetch_add(&cluster->refreshes, 1);
    r->due_ns = now + cluster->refresh_ns;
    cluster->retire_ns = now;
    perf__redis_router_changed(router);
}

int64_t perf__redis_cluster_errands(struct perf__redis_router *router, int64_t now)
{
    struct perf__redis_cluster *cluster = perf__redis_cluster_of(router);
    struct perf__redis_refresh *r = &cluster->refresh;
    int64_t next;

    if (r->asked && r->answered)
        take_answer(cluster, now);
    if (!r->asked && cluster->retire_ns <= now && cluster->retire_ns)
        retire(cluster, now);
    if (!r->asked && r->due_ns && r->due_ns <= now)
        r->wanted = true;
    next = r->begun_ns + ms(APART_MS);
    if (!r->asked && r->wanted && (!r->begun_ns || next <= now)) {
        r->wanted = false;
        r->begun_ns = now;
        r->due_ns = now + cluster->refresh_ns;
        choose_candidates(cluster, now);
        ask_next(cluster);
    }
    if (r->asked) /* its end is heard of */
        return r->answered ? now : INT64_MAX;
    next = r->wanted ? r->begun_ns + ms(APART_MS) : r->due_ns ? r->due_ns : INT64_MAX;
    return cluster->retire_ns && cluster->retire_ns < next ? cluster->retire_ns : next;
}

void perf__redis_cluster_forget(struct perf__redis_cluster *cluster)
{
    struct perf__redis_refresh *r = &cluster->refresh;
    if (r->asked)
        perf__redis_node_let_go(r->asked);
    r->asked = NULL;
    perf_redis_reply_release(r->reply);
    r->reply = NULL;
}
