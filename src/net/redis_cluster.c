/* SPDX-License-Identifier: MIT */
/*
 * redis_cluster.c - Redis Cluster: the node for each command, and what its answers mean.
 *
 *   MOVED        the slot has another master: the map learns it, the command goes there
 *   ASK          the slot is on its way, and this key is there already: once, after ASKING
 *   TRYAGAIN     some of its keys are, some are not: later
 *   CLUSTERDOWN  no majority, or a master died and has no successor yet: later
 *   LOADING      the node has just started: later
 *   MASTERDOWN   a replica without its master: later, and not there
 */
#include "redis_cluster.h"

#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/thread.h"

enum { SUSPECT_MS = 1000, SEEDS_MAX = 64, REFRESH_MS = 30000, REDIRECTS = 8 };

static void suspect(struct perf__redis_node *node)
{
    atomic_store(&node->suspect_until_ns, perf__redis_now() + SUSPECT_MS * 1000000LL);
}

static bool is_suspect(struct perf__redis_node *node)
{
    int64_t until = atomic_load_explicit(&node->suspect_until_ns, memory_order_relaxed);
    return until && until > perf__redis_now();
}

/* -------------------------------------------------------------------------- pick */

/* Any master, rather one that is well. */
static struct perf__redis_node *hold_any_master(struct perf__redis_cluster *cluster)
{
    uint32_t count = atomic_load(&cluster->member_count);
    uint32_t start = count ? (uint32_t)(perf__thread_random() % count) : 0;
    for (int choosy = 1; choosy >= 0; choosy--) {
        for (uint32_t i = 0; i < count; i++) {
            struct perf__redis_member *m = perf__redis_member_at(cluster, 1 + (start + i) % count);
            if (atomic_load(&m->master) && !(choosy && is_suspect(&m->node)) &&
                perf__redis_node_hold(&m->node))
                return &m->node;
        }
    }
    return NULL;
}

/* One of its replicas that is well, or NULL. */
static struct perf__redis_node *hold_replica(struct perf__redis_cluster *cluster,
                                             struct perf__redis_member *master)
{
    uint32_t count = atomic_load(&master->replica_count);
    uint32_t start = count ? (uint32_t)(perf__thread_random() % count) : 0;
    for (uint32_t i = 0; i < count && i < PERF__REDIS_REPLICAS; i++) {
        uint32_t number =
            atomic_load(&master->replicas[(start + i) % count % PERF__REDIS_REPLICAS]);
        struct perf__redis_member *m = number ? perf__redis_member_at(cluster, number) : NULL;
        if (m && !is_suspect(&m->node) && perf__redis_node_hold(&m->node))
            return &m->node;
    }
    return NULL;
}

/* Why there is no node for a command. */
static int none(struct perf__redis_cluster *cluster, int32_t slot)
{
    struct perf__redis_router *router = &cluster->router;
    int rc = perf__redis_cluster_want(cluster, atomic_load(&cluster->known));
    if (rc)
        return rc;
    pthread_mutex_lock(&router->mutex);
    if (atomic_load(&cluster->known) && slot == PERF__REDIS_ANY_NODE)
        rc = perf__fail(PERF_MISS, "no master of the cluster is known");
    else if (atomic_load(&cluster->known))
        rc = perf__fail(PERF_MISS, "slot %d is served by no node that is known", (int)slot);
    else if (!cluster->refresh.status)
        rc = perf__fail(PERF_MISS, "no node of the cluster was asked yet");
    else
        rc = perf__fail(cluster->refresh.status, "%s", cluster->refresh.error);
    pthread_mutex_unlock(&router->mutex);
    /* Nodes that cannot be reached may be soon. */
    bool soon = rc == PERF_EUNAVAILABLE || rc == PERF_ETIMEDOUT || rc == PERF_EIO;
    return soon && !router->redis->options.fail_fast ? PERF_MISS : rc;
}

static int pick(struct perf__redis_router *router, struct perf__redis_search *search,
                struct perf__redis_node **out)
{
    struct perf__redis_cluster *cluster = perf__redis_cluster_of(router);
    struct perf__redis_node *node = search->target;
    if (atomic_load_explicit(&router->closing, memory_order_relaxed))
        return perf__fail(PERF_ECLOSED, "the client is closing");
    search->target = NULL;
    if (!node && search->slot == PERF__REDIS_ANY_NODE) {
        node = hold_any_master(cluster);
    } else if (!node) {
        uint32_t number = atomic_load_explicit(&cluster->slots[search->slot], memory_order_acquire);
        struct perf__redis_member *master = number ? perf__redis_member_at(cluster, number) : NULL;
        if (master && cluster->read_replicas && search->reads)
            node = hold_replica(cluster, master);
        if (!node && master && perf__redis_node_hold(&master->node))
            node = &master->node;
    }
    if (!node)
        return none(cluster, search->slot);
    *out = node;
    return PERF_OK;
}

/* ------------------------------------------------------------------------- judge */

/* The error that says where or when: the only reply's, or why a transaction was not accepted. */
static const char *refusal(uint32_t count, perf_redis_reply *const *replies, int64_t *kind)
{
    for (uint32_t i = 0; i < count; i++) {
        if (perf_redis_reply_type(replies[i]) != PERF_REDIS_ERROR)
            continue;
        const char *text = perf_redis_reply_data(replies[i]);
        *kind = perf_redis_error_kind(text);
        switch (*kind) {
        case PERF_REDIS_ERROR_MOVED:
        case PERF_REDIS_ERROR_ASK:
        case PERF_REDIS_ERROR_TRYAGAIN:
        case PERF_REDIS_ERROR_CLUSTERDOWN:
        case PERF_REDIS_ERROR_LOADING:
        case PERF_REDIS_ERROR_MASTERDOWN:
            return text;
        default:
            break;
        }
    }
    return NULL;
}

/* A transaction of which something was executed is not sent again. */
static bool was_executed(uint32_t count, perf_redis_reply *const *replies)
{
    return count > 1 && perf_redis_reply_type(replies[count - 1]) != PERF_REDIS_ERROR;
}

/*
 * Another slot than we think is that of a command whose keys we do not know: it goes where it is
 * sent. But not a transaction, which has keys on several nodes then.
 */
static enum perf__redis_verdict redirect(struct perf__redis_cluster *cluster,
                                         struct perf__redis_search *search,
                                         struct perf__redis_node *node, const char *text, bool ask,
                                         bool single)
{
    struct perf__redis_router *router = &cluster->router;
    struct perf__redis_address to;
    struct perf__redis_member *m = NULL;
    int32_t slot;

    pthread_mutex_lock(&router->mutex);
    struct perf__redis_address from = node->address;
    bool ok = perf__redis_redirect_read(text, &from, &slot, &to) &&
              (single || slot == search->slot) && search->redirects++ < cluster->max_redirects;
    uint32_t number = ok ? perf__redis_cluster_number(cluster, &to) : 0;
    if (number)
        m = perf__redis_member_at(cluster, number);
    if (m && (ask || slot != search->slot) && perf__redis_node_hold(&m->node))
        search->target = &m->node;
    if (m && !ask)
        atomic_store_explicit(&cluster->slots[slot], (uint16_t)number, memory_order_release);
    pthread_mutex_unlock(&router->mutex);
    if (!m)
        return PERF__REDIS_SETTLED;
    search->asking = ask && search->target;
    atomic_fetch_add(ask ? &router->asked : &router->moved, 1);
    if (!ask)
        perf__redis_cluster_want(cluster, true);
    return PERF__REDIS_ELSEWHERE;
}

static enum perf__redis_verdict judge(struct perf__redis_router *router,
                                      struct perf__redis_search *search,
                                      struct perf__redis_node *node, int status, uint32_t count,
                                      perf_redis_reply *const *replies)
{
    struct perf__redis_cluster *cluster = perf__redis_cluster_of(router);
    int64_t kind = 0;
    switch (status) {
    case PERF_OK:
        break;
    case PERF_EUNAVAILABLE: /* it was not sent */
        suspect(node);
        perf__redis_cluster_want(cluster, true);
        return router->redis->options.fail_fast ? PERF__REDIS_SETTLED : PERF__REDIS_LATER;
    case PERF_ETIMEDOUT:
    case PERF_EIO:
        suspect(node);
        perf__redis_cluster_want(cluster, true);
        return PERF__REDIS_SETTLED;
    default:
        return PERF__REDIS_SETTLED;
    }
    const char *text = refusal(count, replies, &kind);
    if (!text || was_executed(count, replies))
        return PERF__REDIS_SETTLED;
    switch (kind) {
    case PERF_REDIS_ERROR_MOVED:
    case PERF_REDIS_ERROR_ASK:
        return redirect(cluster, search, node, text, kind == PERF_REDIS_ERROR_ASK, count == 1);
    case PERF_REDIS_ERROR_TRYAGAIN:
        return PERF__REDIS_LATER;
    case PERF_REDIS_ERROR_CLUSTERDOWN:
        perf__redis_cluster_want(cluster, true);
        return PERF__REDIS_LATER;
    default:
        suspect(node);
        return PERF__REDIS_LATER;
    }
}

/* ------------------------------------------------------------------------- links */

static const char readonly[] = "*1\r\n$8\r\nREADONLY\r\n";

/* With read_replicas every node is told that reads may be stale: it may become a replica. */
static int greet(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                 uint32_t *expected)
{
    struct perf__redis_node *node = ctx;
    struct perf__redis_cluster *cluster = perf__redis_cluster_of(node->router);
    perf_redis *redis = node->router->redis;
    int rc = perf__redis_greet(redis, link, bytes, len, expected);
    if (!rc && cluster->read_replicas)
        rc = perf__redis_router_greet(node->router, readonly, sizeof readonly - 1, bytes, len,
                                      expected);
    return rc;
}

static void event(void *ctx, struct perf__redis_link *link, int what, int status, const char *error)
{
    struct perf__redis_node *node = ctx;
    if (what == PERF__REDIS_LINK_UP) {
        atomic_store(&node->suspect_until_ns, 0);
    } else {
        suspect(node);
        perf__redis_cluster_want(perf__redis_cluster_of(node->router), true);
    }
    perf__redis_event(node->router->redis, link, what, status, error);
}

static int connect_node(struct perf__redis_node *node, struct perf__redis_link **out)
{
    perf_redis *redis = node->router->redis;
    struct perf__redis_link_options options;
    perf__redis_link_defaults(redis, &options);
    options.address = node->address;
    options.server_name = redis->options.server_name;
    options.fail_fast = true; /* waiting is the router's: another node may take over */
    options.greet = greet;
    options.event = event;
    options.ctx = node;
    return perf__redis_link_open(redis->loop, &options, out);
}

static const struct perf__redis_way way = {
    .splits = true,
    .pick = pick,
    .judge = judge,
    .connect = connect_node,
    .errands = perf__redis_cluster_errands,
};

/* ------------------------------------------------------------------------- route */

static int take_seeds(struct perf__redis_cluster *cluster, perf_redis *redis)
{
    const perf_redis_options *o = &redis->options;
    if (o->seed_count && !o->seeds)
        return perf__fail(PERF_EINVAL, "seed_count is %llu, and seeds is NULL; give as many",
                          (unsigned long long)o->seed_count);
    cluster->seeds =
        perf__calloc(&redis->host.allocator, o->seed_count + 1, sizeof *cluster->seeds);
    if (!cluster->seeds)
        return perf__fail_nomem("a Redis client");
    if (o->unix_socket)
        return perf__fail(PERF_EINVAL, "unix_socket is given; a Redis Cluster is reached by the "
                                       "url of a node");
    snprintf(cluster->seeds[0].host, sizeof cluster->seeds[0].host, "%s", o->hostname);
    cluster->seeds[0].port = (int)o->port;
    cluster->seed_count = 1;
    for (uint64_t i = 0; i < o->seed_count; i++)
        if (!o->seeds[i] || !perf__redis_address_read(o->seeds[i], (int)o->port,
                                                      &cluster->seeds[cluster->seed_count++]))
            return perf__fail(PERF_EINVAL, "seeds[%llu] is \"%.80s\"; give \"host:port\"",
                              (unsigned long long)i, o->seeds[i] ? o->seeds[i] : "(NULL)");
    return PERF_OK;
}

static int route_open(perf_redis *redis)
{
    perf_redis_options *o = &redis->options;
    int rc = perf__check_range("seed_count", (int64_t)o->seed_count, 0, SEEDS_MAX);
    if (!rc)
        rc = perf__check_range("refresh_ms", o->refresh_ms, 0, 86400000);
    if (!rc)
        rc = perf__check_range("max_redirects", (int64_t)o->max_redirects, 0, 1000);
    if (!rc)
        rc = perf__check_range("read_replicas", o->read_replicas, 0, 1);
    if (!rc && o->db)
        rc = perf__fail(PERF_EINVAL, "db is %lld; a Redis Cluster has only 0", (long long)o->db);
    if (rc)
        return rc;
    struct perf__redis_cluster *cluster = perf__calloc(&redis->host.allocator, 1, sizeof *cluster);
    if (!cluster)
        return perf__fail_nomem("a Redis client");
    rc = perf__redis_router_init(&cluster->router, redis, &way);
    if (rc) {
        perf__free(&redis->host.allocator, cluster);
        return rc;
    }
    redis->route_data = cluster;
    cluster->refresh_ns = (o->refresh_ms ? o->refresh_ms : REFRESH_MS) * 1000000LL;
    cluster->max_redirects = o->max_redirects ? o->max_redirects : REDIRECTS;
    cluster->read_replicas = o->read_replicas == 1;
    rc = take_seeds(cluster, redis);
    o->seeds = NULL; /* the caller's */
    o->seed_count = 0;
    return rc;
}

static void route_close(perf_redis *redis)
{
    struct perf__redis_cluster *cluster = redis->route_data;
    const perf_allocator *allocator = &redis->host.allocator;
    if (!cluster)
        return;
    perf__redis_router_stop(&cluster->router);
    for (uint32_t i = 1; i <= atomic_load(&cluster->member_count); i++) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, i);
        perf__redis_link_stop(atomic_load(&m->node.link));
    }
    perf__redis_cluster_forget(cluster);
    perf__redis_router_destroy(&cluster->router);
    for (uint32_t i = 1; i <= atomic_load(&cluster->member_count); i++) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, i);
        perf__redis_link_close(atomic_load(&m->node.link));
        perf__free(allocator, m);
    }
    perf__free(allocator, cluster->seeds);
    perf__free(allocator, cluster);
    redis->route_data = NULL;
}

/* For commands that block and subscribers: they have links of their own. */
static int route_address(perf_redis *redis, size_t argc, const perf_bytes *argv,
                         struct perf__redis_link_options *out)
{
    struct perf__redis_cluster *cluster = redis->route_data;
    struct perf__redis_router *router = &cluster->router;
    struct perf__redis_search search = perf__redis_search_begin(argc, argv);
    struct perf__redis_node *node = NULL;
    int64_t deadline = perf__redis_deadline(redis->options.connect_timeout_ms);
    if (argc && perf__redis_place_of(argv, argc).spans)
        return perf__redis_fail_spans(argv);
    search.reads = false;
    atomic_fetch_add(&router->inside, 1);
    int rc = pick(router, &search, &node);
    while (rc == PERF_MISS && perf__redis_router_pause(router, &search, deadline))
        rc = pick(router, &search, &node);
    if (!rc) {
        pthread_mutex_lock(&router->mutex);
        out->address = node->address;
        pthread_mutex_unlock(&router->mutex);
        perf__redis_node_let_go(node);
    }
    perf__redis_router_leave(router);
    return rc == PERF_MISS ? perf__fail(PERF_EUNAVAILABLE, "%s", perf_last_error()) : rc;
}

static bool route_learn(perf_redis *redis, const char *error, struct perf__redis_address *at,
                        bool *asking)
{
    struct perf__redis_cluster *cluster = redis->route_data;
    struct perf__redis_router *router = &cluster->router;
    int64_t kind = perf_redis_error_kind(error);
    struct perf__redis_address to;
    int32_t slot;
    if ((kind != PERF_REDIS_ERROR_MOVED && kind != PERF_REDIS_ERROR_ASK) ||
        !perf__redis_redirect_read(error, at, &slot, &to))
        return false;
    *at = to;
    *asking = kind == PERF_REDIS_ERROR_ASK;
    if (*asking) {
        atomic_fetch_add(&router->asked, 1);
        return true;
    }
    pthread_mutex_lock(&router->mutex);
    uint32_t number = perf__redis_cluster_number(cluster, &to);
    if (number)
        atomic_store(&cluster->slots[slot], (uint16_t)number);
    pthread_mutex_unlock(&router->mutex);
    atomic_fetch_add(&router->moved, 1);
    perf__redis_cluster_want(cluster, true);
    return true;
}

/* Calls fn with the link of each node that has one. */
static void each_link(struct perf__redis_cluster *cluster,
                      void (*fn)(struct perf__redis_link *link, void *ctx), void *ctx)
{
    for (uint32_t i = 1; i <= atomic_load(&cluster->member_count); i++) {
        struct perf__redis_member *m = perf__redis_member_at(cluster, i);
        if (!perf__redis_node_hold(&m->node))
            continue;
        struct perf__redis_link *link = atomic_load(&m->node.link);
        if (link)
            fn(link, ctx);
        perf__redis_node_let_go(&m->node);
    }
}

static void reconnect_link(struct perf__redis_link *link, void *ctx)
{
    (void)ctx;
    perf__redis_link_reconnect(link);
}

static void route_reconnect(perf_redis *redis)
{
    struct perf__redis_cluster *cluster = redis->route_data;
    each_link(cluster, reconnect_link, NULL);
    perf__redis_cluster_want(cluster, true);
}

static void add_stats(struct perf__redis_link *link, void *ctx)
{
    perf__redis_link_stats(link, ctx);
}

static void route_stats(perf_redis *redis, perf_redis_stats *stats)
{
    struct perf__redis_cluster *cluster = redis->route_data;
    each_link(cluster, add_stats, stats);
    stats->moved = atomic_load(&cluster->router.moved);
    stats->asked = atomic_load(&cluster->router.asked);
    stats->retried = atomic_load(&cluster->router.retried);
    stats->refreshes = atomic_load(&cluster->refreshes);
    for (uint32_t i = 1; i <= atomic_load(&cluster->member_count); i++)
        stats->nodes += !(atomic_load(&perf__redis_member_at(cluster, i)->node.holds) &
                          PERF__REDIS_NODE_CLOSED);
}

const struct perf__redis_route perf__redis_cluster = {
    .open = route_open,
    .close = route_close,
    .start = perf__redis_router_start,
    .wait = perf__redis_router_wait,
    .many = perf__redis_router_many,
    .address = route_address,
    .roams = true,
    .learn = route_learn,
    .together = perf__redis_router_together,
    .reconnect = route_reconnect,
    .stats = route_stats,
};
