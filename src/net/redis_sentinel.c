/* SPDX-License-Identifier: MIT */
/*
 * redis_sentinel.c - a master that sentinels name, and that may be another one tomorrow.
 *
 * There is one link, to whoever is the master. Before each connect the sentinels are asked, from
 * the one on that answered last, until one names it; the connection itself is asked for its ROLE,
 * since a sentinel may be behind. All sentinels are listened to: the first that says +switch-master
 * makes the link leave for the new one. Whoever is told READONLY has found a master that is none
 * any more: the link leaves, and the command, which was not executed, is sent again.
 *
 * Threads: sentinels are asked on the thread that resolves names for the link; the rest is as
 * redis_router.h says.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "redis_router.h"
#include "redis_topology.h"

enum {
    SENTINELS_MAX = 64,
    SENTINEL_PORT = 26379,
    ASK_MS = 1000,  /* for one sentinel's answer */
    APART_MS = 100, /* between two rounds of asking */
    SETTLE_MS =
        200, /* a connection younger than this is not left for READONLY: it was the old one */
    PING_MS = 5000,
};

struct perf__redis_sentinel {
    struct perf__redis_router router; /* first */
    struct perf__redis_node node; /* the master's; its address is the last that was one. Mutex */
    struct perf__redis_tls *tls;  /* for sentinels; the client's */
    char *strings, *master_name, *user, *password;
    size_t strings_size;
    struct perf__redis_link *ears[SENTINELS_MAX]; /* mutex */
    int64_t named_ns;                             /* when. Mutex */
    _Atomic int64_t up_ns;                        /* the link came up; 0: it is not a master */
    _Atomic uint64_t failovers;
    _Atomic size_t first; /* the sentinel to ask first */
    size_t count;
    struct perf__redis_address sentinels[];
};

static struct perf__redis_sentinel *sentinel_of(struct perf__redis_router *router)
{
    return (struct perf__redis_sentinel *)router;
}

static int closing(void)
{
    return perf__fail(PERF_ECLOSED, "the client is closing");
}

/* ----------------------------------------------------------------- asking sentinels */

static void sentinel_options(struct perf__redis_sentinel *s, size_t i,
                             struct perf__redis_link_options *out)
{
    perf__redis_link_defaults(s->router.redis, out);
    out->address = s->sentinels[i];
    out->tls = s->tls;
    out->user = s->user;
    out->password = s->password;
    out->db = 0;
}

static int read_name(struct perf__redis_sentinel *s, size_t i, const perf_redis_reply *reply,
                     struct perf__redis_address *out)
{
    const perf_redis_reply *host = perf_redis_reply_element(reply, 0);
    const perf_redis_reply *port = perf_redis_reply_element(reply, 1);
    char text[PERF__REDIS_HOST_MAX + 16];
    if (perf_redis_reply_type(reply) == PERF_REDIS_NIL)
        return perf__fail(PERF_EUNAVAILABLE, "sentinel %s:%d does not know the master \"%s\"",
                          s->sentinels[i].host, s->sentinels[i].port, s->master_name);
    int n =
        snprintf(text, sizeof text, strchr(perf_redis_reply_data(host), ':') ? "[%s]:%s" : "%s:%s",
                 perf_redis_reply_data(host), perf_redis_reply_data(port));
    if (n < 0 || (size_t)n >= sizeof text || !perf__redis_address_read(text, 0, out))
        return perf__fail(PERF_EPROTOCOL, "sentinel %s:%d names a master that is no address",
                          s->sentinels[i].host, s->sentinels[i].port);
    return PERF_OK;
}

static int ask(struct perf__redis_sentinel *s, size_t i, int64_t timeout_ms,
               struct perf__redis_address *out)
{
    const perf_allocator *allocator = &s->router.redis->host.allocator;
    struct perf__redis_link_options options;
    struct perf__redis_link *link = NULL;
    perf_redis_reply *reply = NULL;
    perf_bytes argv[] = {
        {"SENTINEL", 8}, {"GET-MASTER-ADDR-BY-NAME", 23}, {s->master_name, strlen(s->master_name)}};
    size_t len = perf__redis_encoded_size(3, argv);
    struct perf__redis_op op = {.len = len, .expected = 1, .replies = &reply};
    char *bytes = perf__alloc(allocator, len);
    if (!bytes)
        return perf__fail_nomem("a question to a sentinel");
    perf__redis_encode(bytes, 3, argv);
    op.bytes = bytes;
    op.deadline_ns = perf__redis_now() + timeout_ms * 1000000;
    sentinel_options(s, i, &options);
    options.once = true;
    options.connect_timeout_ms = timeout_ms;
    int rc = perf__redis_link_open(s->router.redis->loop, &options, &link);
    if (!rc)
        rc = perf__redis_submit(link, &op);
    if (!rc) {
        perf__redis_wait(link, &op);
        if (op.status)
            rc = perf__fail(op.status, "%s", op.error);
        else if ((rc = perf_redis_reply_status(reply)))
            perf__fail(rc, "sentinel %s:%d: %s", s->sentinels[i].host, s->sentinels[i].port,
                       perf_redis_reply_data(reply));
        else
            rc = read_name(s, i, reply, out);
    }
    perf_redis_reply_release(reply);
    perf__redis_link_close(link);
    perf__free(allocator, bytes);
    return rc;
}

/* A master that turned out to be none is not asked for without a pause. */
static bool take_turn(struct perf__redis_sentinel *s)
{
    pthread_mutex_lock(&s->router.mutex);
    int64_t until = s->named_ns ? s->named_ns + APART_MS * 1000000LL : 0;
    while (!atomic_load(&s->router.closing) && perf__redis_now() < until)
        perf__cond_wait(&s->router.changed, &s->router.mutex, until);
    pthread_mutex_unlock(&s->router.mutex);
    return !atomic_load(&s->router.closing);
}

static int find_master(struct perf__redis_sentinel *s, int64_t timeout_ms,
                       struct perf__redis_address *out)
{
    int64_t until = perf__redis_now() + timeout_ms * 1000000;
    size_t first = atomic_load(&s->first);
    int rc = PERF_EUNAVAILABLE;
    for (size_t n = 0; n < s->count; n++) {
        size_t i = (first + n) % s->count;
        int64_t left = (until - perf__redis_now()) / 1000000;
        if (atomic_load(&s->router.closing))
            return closing();
        if (left <= 0)
            break;
        rc = ask(s, i, left < ASK_MS ? left : ASK_MS, out);
        if (!rc) {
            atomic_store(&s->first, i);
            return PERF_OK;
        }
        perf__log(&s->router.redis->host.log, PERF_LOG_WARNING, "redis", "%s", perf_last_error());
    }
    char last[PERF__REDIS_SENTENCE];
    snprintf(last, sizeof last, "%s", perf_last_error());
    return perf__fail(rc, "none of %zu sentinels names the master \"%s\"; the last one: %s",
                      s->count, s->master_name, last);
}

static int where(void *ctx, int64_t timeout_ms, struct perf__redis_address *out)
{
    struct perf__redis_node *node = ctx;
    struct perf__redis_sentinel *s = sentinel_of(node->router);
    if (!take_turn(s))
        return closing();
    int rc = find_master(s, timeout_ms, out);
    pthread_mutex_lock(&s->router.mutex);
    s->named_ns = perf__redis_now();
    pthread_mutex_unlock(&s->router.mutex);
    return rc;
}

/* ------------------------------------------------------------------------ the ears */

static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$14\r\n+switch-master\r\n";

static int greet_sentinel(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                          uint32_t *expected)
{
    struct perf__redis_sentinel *s = ctx;
    (void)link;
    return perf__redis_router_greet(&s->router, subscribe, sizeof subscribe - 1, bytes, len,
                                    expected);
}

/* "name old-host old-port new-host new-port": is it ours, and who is it now? */
static bool read_switch(struct perf__redis_sentinel *s, const char *text,
                        struct perf__redis_address *out)
{
    size_t n = strlen(s->master_name);
    char host[PERF__REDIS_HOST_MAX + 1];
    int port;
    if (strncmp(text, s->master_name, n) != 0 || text[n] != ' ' ||
        sscanf(text + n, " %*255s %*5d %255s %5d", host, &port) != 2)
        return false;
    memcpy(out->host, host, sizeof host);
    out->port = port;
    return true;
}

static void heard(void *ctx, struct perf__redis_link *link, perf_redis_reply *reply)
{
    struct perf__redis_sentinel *s = ctx;
    struct perf__redis_address now, is;
    struct perf__redis_link *master = atomic_load(&s->node.link);
    const perf_redis_reply *kind = perf_redis_reply_element(reply, 0);
    (void)link;
    if (master && !strcmp(perf_redis_reply_data(kind), "message") &&
        read_switch(s, perf_redis_reply_data(perf_redis_reply_element(reply, 2)), &now)) {
        perf__redis_link_address(master, &is);
        if (!perf__redis_address_equal(&is, &now)) {
            perf__log(&s->router.redis->host.log, PERF_LOG_INFO, "redis", "the master is now %s:%d",
                      now.host, now.port);
            perf__redis_link_reconnect(master);
        }
    }
    perf_redis_reply_release(reply);
}

/* Listens to all that are not listened to yet. Mutex. */
static int open_ears(struct perf__redis_sentinel *s)
{
    for (size_t i = 0; i < s->count; i++) {
        struct perf__redis_link_options options;
        if (s->ears[i])
            continue;
        sentinel_options(s, i, &options);
        options.listens = true;
        options.ping_ms = PING_MS;
        options.greet = greet_sentinel;
        options.push = heard;
        options.ctx = s;
        int rc = perf__redis_link_open(s->router.redis->loop, &options, &s->ears[i]);
        if (!rc)
            rc = perf__redis_link_start(s->ears[i]);
        if (rc)
            return rc;
    }
    return PERF_OK;
}

/* ------------------------------------------------------------------------ the link */

static const char role[] = "*1\r\n$4\r\nROLE\r\n";

static int greet(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                 uint32_t *expected)
{
    struct perf__redis_node *node = ctx;
    perf_redis *redis = node->router->redis;
    int rc = perf__redis_greet(redis, link, bytes, len, expected);
    if (!rc)
        rc = perf__redis_router_greet(node->router, role, sizeof role - 1, bytes, len, expected);
    return rc;
}

static void greeted(void *ctx, uint32_t index, const perf_redis_reply *reply)
{
    struct perf__redis_node *node = ctx;
    struct perf__redis_sentinel *s = sentinel_of(node->router);
    if (index == 0) {
        const char *is = perf_redis_reply_data(perf_redis_reply_element(reply, 0));
        atomic_store(&s->up_ns, strcmp(is, "master") ? 0 : perf__redis_now());
    }
}

static void remember_master(struct perf__redis_sentinel *s, struct perf__redis_link *link)
{
    struct perf__redis_address is;
    perf__redis_link_address(link, &is);
    pthread_mutex_lock(&s->router.mutex);
    if (s->node.address.port && !perf__redis_address_equal(&s->node.address, &is))
        atomic_fetch_add(&s->failovers, 1);
    s->node.address = is;
    pthread_mutex_unlock(&s->router.mutex);
}

static void event(void *ctx, struct perf__redis_link *link, int what, int status, const char *error)
{
    struct perf__redis_node *node = ctx;
    struct perf__redis_sentinel *s = sentinel_of(node->router);
    perf_redis *redis = node->router->redis;
    if (what == PERF__REDIS_LINK_UP && !atomic_load(&s->up_ns)) {
        perf__log(&redis->host.log, PERF_LOG_WARNING, "redis",
                  "who the sentinels name is no master; asking again");
        perf__redis_link_reconnect(link); /* nothing was sent yet */
        return;
    }
    if (what == PERF__REDIS_LINK_UP)
        remember_master(s, link);
    else if (what == PERF__REDIS_LINK_LOST && !atomic_load(&s->up_ns))
        return; /* nobody was told that it was up */
    perf__redis_event(redis, link, what, status, error);
}

static int connect_master(struct perf__redis_node *node, struct perf__redis_link **out)
{
    struct perf__redis_sentinel *s = sentinel_of(node->router);
    struct perf__redis_link_options options;
    int rc = open_ears(s);
    if (rc)
        return rc;
    perf__redis_link_defaults(node->router->redis, &options);
    snprintf(options.address.host, sizeof options.address.host, "%.100s", s->master_name);
    options.where = where;
    options.greet = greet;
    options.greeted = greeted;
    options.event = event;
    options.ctx = node;
    return perf__redis_link_open(node->router->redis->loop, &options, out);
}

static int pick(struct perf__redis_router *router, struct perf__redis_search *search,
                struct perf__redis_node **out)
{
    struct perf__redis_sentinel *s = sentinel_of(router);
    (void)search;
    if (atomic_load(&router->closing) || !perf__redis_node_hold(&s->node))
        return closing();
    *out = &s->node;
    return PERF_OK;
}

static enum perf__redis_verdict judge(struct perf__redis_router *router,
                                      struct perf__redis_search *search,
                                      struct perf__redis_node *node, int status, uint32_t count,
                                      perf_redis_reply *const *replies)
{
    struct perf__redis_sentinel *s = sentinel_of(router);
    (void)search;
    int64_t kind = PERF_REDIS_ERROR_NONE;
    for (uint32_t i = 0; !status && i < count && kind != PERF_REDIS_ERROR_READONLY; i++)
        if (perf_redis_reply_type(replies[i]) == PERF_REDIS_ERROR)
            kind = perf_redis_error_kind(perf_redis_reply_data(replies[i]));
    if (kind == PERF_REDIS_ERROR_READONLY &&
        perf__redis_now() - atomic_load(&s->up_ns) > SETTLE_MS * 1000000LL)
        perf__redis_link_reconnect(atomic_load(&node->link));
    bool later = kind == PERF_REDIS_ERROR_READONLY || kind == PERF_REDIS_ERROR_LOADING ||
                 kind == PERF_REDIS_ERROR_MASTERDOWN;
    /* Of several commands some may have been executed. */
    return later && count == 1 ? PERF__REDIS_LATER : PERF__REDIS_SETTLED;
}

static int64_t errands(struct perf__redis_router *router, int64_t now_ns)
{
    (void)router, (void)now_ns;
    return INT64_MAX;
}

static const struct perf__redis_way way = {
    .pick = pick,
    .judge = judge,
    .connect = connect_master,
    .errands = errands,
};

/* ------------------------------------------------------------------------- route */

static char *copy(char **at, const char *text)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *begin = memcpy(*at, text, size);
    *at += size;
    return begin;
}

static int take_options(struct perf__redis_sentinel *s, const perf_redis_options *o)
{
    const perf_allocator *allocator = &s->router.redis->host.allocator;
    const char *const texts[] = {o->master_name, o->sentinel_user, o->sentinel_password};
    for (size_t i = 0; i < 3; i++)
        s->strings_size += texts[i] ? strlen(texts[i]) + 1 : 0;
    char *at = s->strings = perf__alloc(allocator, s->strings_size);
    if (!at)
        return perf__fail_nomem("a Redis client");
    s->master_name = copy(&at, o->master_name);
    s->user = copy(&at, o->sentinel_user);
    s->password = copy(&at, o->sentinel_password);
    s->tls = o->sentinel_tls ? s->router.redis->tls : NULL;
    for (; s->count < o->seed_count; s->count++) {
        const char *seed = o->seeds[s->count];
        if (!seed || !perf__redis_address_read(seed, SENTINEL_PORT, &s->sentinels[s->count]))
            return perf__fail(PERF_EINVAL, "seeds[%zu] is \"%.80s\"; give \"host:port\"", s->count,
                              seed ? seed : "(NULL)");
    }
    return PERF_OK;
}

static int check(const perf_redis_options *o)
{
    int rc = perf__check_range("sentinel_tls", o->sentinel_tls, 0, 1);
    if (!rc)
        rc = perf__check_range("seed_count", (int64_t)o->seed_count, 1, SENTINELS_MAX);
    if (rc)
        return rc;
    if (!o->seeds)
        return perf__fail(PERF_EINVAL, "seeds is NULL; give the addresses of the sentinels");
    if (!o->master_name || !*o->master_name || strpbrk(o->master_name, " \r\n"))
        return perf__fail(PERF_EINVAL,
                          "master_name is \"%.80s\"; give the name by which the "
                          "sentinels know the master",
                          o->master_name ? o->master_name : "(NULL)");
    if (o->sentinel_tls && !o->tls)
        return perf__fail(PERF_EINVAL, "sentinel_tls is 1, and tls is 0; sentinels that speak TLS "
                                       "watch servers that do: give both");
    if (o->sentinel_user && !o->sentinel_password)
        return perf__fail(PERF_EINVAL, "sentinel_user is given without sentinel_password");
    return PERF_OK;
}

static int route_open(perf_redis *redis)
{
    perf_redis_options *o = &redis->options;
    const perf_allocator *allocator = &redis->host.allocator;
    int rc = check(o);
    if (rc)
        return rc;
    struct perf__redis_sentinel *s =
        perf__calloc(allocator, 1, sizeof *s + o->seed_count * sizeof *s->sentinels);
    if (!s)
        return perf__fail_nomem("a Redis client");
    rc = perf__redis_router_init(&s->router, redis, &way);
    if (rc) {
        perf__free(allocator, s);
        return rc;
    }
    redis->route_data = s;
    s->node.router = &s->router;
    rc = take_options(s, o);
    o->seeds = NULL; /* the caller's, and copied */
    o->master_name = o->sentinel_user = o->sentinel_password = NULL;
    return rc;
}

static void route_close(perf_redis *redis)
{
    struct perf__redis_sentinel *s = redis->route_data;
    const perf_allocator *allocator = &redis->host.allocator;
    if (!s)
        return;
    perf__redis_router_stop(&s->router);
    for (size_t i = 0; i < s->count; i++)
        perf__redis_link_close(s->ears[i]);
    perf__redis_link_stop(atomic_load(&s->node.link));
    perf__redis_router_destroy(&s->router);
    perf__redis_link_close(atomic_load(&s->node.link));
    if (s->strings)
        explicit_bzero(s->strings, s->strings_size);
    perf__free(allocator, s->strings);
    perf__free(allocator, s);
    redis->route_data = NULL;
}

/* For commands that block and subscribers: the master that was named last, or is now. */
static int route_address(perf_redis *redis, size_t argc, const perf_bytes *argv,
                         struct perf__redis_link_options *out)
{
    struct perf__redis_sentinel *s = redis->route_data;
    struct perf__redis_link *link = atomic_load(&s->node.link);
    (void)argc, (void)argv;
    if (link && perf__redis_link_is_up(link)) {
        perf__redis_link_address(link, &out->address);
        return PERF_OK;
    }
    atomic_fetch_add(&s->router.inside, 1);
    int rc = find_master(s, redis->options.connect_timeout_ms, &out->address);
    perf__redis_router_leave(&s->router);
    return rc;
}

static void route_reconnect(perf_redis *redis)
{
    struct perf__redis_sentinel *s = redis->route_data;
    struct perf__redis_link *link = atomic_load(&s->node.link);
    if (link)
        perf__redis_link_reconnect(link);
}

static void route_stats(perf_redis *redis, perf_redis_stats *stats)
{
    struct perf__redis_sentinel *s = redis->route_data;
    struct perf__redis_link *link = atomic_load(&s->node.link);
    if (link)
        perf__redis_link_stats(link, stats);
    stats->retried = atomic_load(&s->router.retried);
    stats->failovers = atomic_load(&s->failovers);
}

const struct perf__redis_route perf__redis_sentinel = {
    .open = route_open,
    .close = route_close,
    .start = perf__redis_router_start,
    .wait = perf__redis_router_wait,
    .address = route_address,
    .roams = true,
    .reconnect = route_reconnect,
    .stats = route_stats,
};
