/* SPDX-License-Identifier: MIT */
/*
 * redis_blocking.c - commands that block, each on a connection of its own that a
 * pool lends.
 *
 * A pooled connection is a link that connects once; the pool's keys are the
 * servers' addresses, so that a cluster's nodes have theirs. The pool is made by
 * the first such command. A connection whose command timed out is thrown away:
 * its reply is still to come. Any thread.
 */
#include <libperf/pool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "redis.h"

struct perf__redis_blocking {
    perf_redis *redis;
    perf_pool *pool;
};

/* "host port", or a path: hosts have no spaces. */
static int address_of(const char *key, struct perf__redis_address *out)
{
    const char *space = *key == '/' ? NULL : strrchr(key, ' ');
    size_t len = space ? (size_t)(space - key) : strlen(key);
    if (len >= sizeof out->host)
        return perf__fail(PERF_EINVAL, "the name of a Redis server is too long");
    memcpy(out->host, key, len);
    out->host[len] = '\0';
    out->port = space ? atoi(space + 1) : 0;
    return PERF_OK;
}

static int open_connection(void *ctx, const char *key, int64_t timeout_ms, void **conn)
{
    static const char ping[] = "*1\r\n$4\r\nPING\r\n";
    struct perf__redis_blocking *blocking = ctx;
    perf_redis *redis = blocking->redis;
    struct perf__redis_link_options options;
    struct perf__redis_link *link;
    perf__redis_link_defaults(redis, &options);
    int rc = address_of(key, &options.address);
    options.once = true;
    if (timeout_ms < options.connect_timeout_ms)
        options.connect_timeout_ms = timeout_ms > 0 ? timeout_ms : 1;
    if (rc || (rc = perf__redis_link_open(redis->loop, &options, &link)))
        return rc;
    struct perf__redis_trip trip;
    perf__redis_trip_init(&trip, 0, NULL, ping, sizeof ping - 1, 1,
                          perf__redis_now() + options.connect_timeout_ms * 1000000, NULL);
    rc = perf__redis_submit(link, &trip.op);
    if (!rc) {
        perf__redis_wait(link, &trip.op);
        if (trip.op.status)
            rc = perf__fail(trip.op.status, "%s", trip.op.error);
    }
    if (rc)
        perf__redis_link_close(link);
    else
        *conn = link;
    return rc;
}

static void close_connection(void *ctx, void *conn)
{
    (void)ctx;
    perf__redis_link_close(conn);
}

static int validate(void *ctx, void *conn, int64_t timeout_ms)
{
    (void)ctx, (void)timeout_ms;
    return perf__redis_link_is_up(conn) ? PERF_OK : PERF_EIO; /* its loss is noticed at once */
}

static int open_pool(perf_redis *redis, struct perf__redis_blocking **out)
{
    perf_connection_vtable vtable = {
        sizeof vtable, open_connection, close_connection, validate, NULL, NULL};
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    struct perf__redis_blocking *blocking =
        perf__calloc(&redis->host.allocator, 1, sizeof *blocking);
    if (!blocking)
        return perf__fail_nomem("the pool of Redis connections");
    blocking->redis = redis;
    options.vtable = &vtable;
    options.ctx = blocking;
    options.max_size = redis->options.max_blocking;
    options.max_keys = 1024;
    options.max_total = redis->options.max_blocking;
    options.open_timeout_ms = redis->options.connect_timeout_ms;
    options.validate_after_ms = 1;
    options.idle_timeout_ms = 60000;
    perf_host host = redis->host.view;
    options.host = &host;
    int rc = perf_pool_open(&options, &blocking->pool);
    if (rc)
        perf__free(&redis->host.allocator, blocking);
    else
        *out = blocking;
    return rc;
}

static int get_pool(perf_redis *redis, perf_pool **out)
{
    int rc = PERF_OK;
    pthread_mutex_lock(&redis->mutex);
    if (atomic_load(&redis->closing))
        rc = perf__fail(PERF_ECLOSED, "the Redis client is closing");
    else if (!redis->blocking)
        rc = open_pool(redis, &redis->blocking);
    if (!rc) {
        *out = redis->blocking->pool;
        redis->blocked++;
    }
    pthread_mutex_unlock(&redis->mutex);
    return rc;
}

static int64_t left_ms(int64_t deadline_ns)
{
    int64_t left = deadline_ns - perf__redis_now();
    return deadline_ns == INT64_MAX ? -1 : left <= 0 ? 0 : left / 1000000 + 1;
}

static int call_on(perf_redis *redis, struct perf__redis_link *link, size_t argc,
                   const perf_bytes *argv, bool asking, int64_t deadline_ns, perf_redis_reply **out,
                   bool *keep)
{
    const perf_allocator *a = &redis->host.allocator;
    struct perf__redis_trip trip;
    size_t before = asking ? PERF__REDIS_ASKING_LEN : 0;
    size_t size = before + perf__redis_encoded_size(argc, argv);
    char *bytes = perf__alloc(a, size);
    perf_redis_reply *replies[] = {NULL, perf__redis_reply_new(a)}; /* to ASKING, to the command */
    int rc = bytes && replies[1] ? PERF_OK : perf__fail_nomem("a Redis command");
    if (!rc) {
        memcpy(bytes, PERF__REDIS_ASKING, before);
        perf__redis_encode(bytes + before, argc, argv);
        perf__redis_trip_init(&trip, argc, argv, bytes, size, asking ? 2 : 1, deadline_ns,
                              &replies[asking ? 0 : 1]);
        rc = perf__redis_submit(link, &trip.op);
    }
    *keep = false;
    if (rc) {
        perf_redis_reply_release(replies[1]);
    } else {
        perf__redis_wait(link, &trip.op);
        *keep = !trip.op.status;
        perf_redis_reply_release(replies[0]);
        rc = perf__redis_take_reply(&trip.op, replies[1], out);
    }
    perf__free(a, bytes);
    return rc;
}

/* On a connection to this server. */
static int call_at(perf_redis *redis, const struct perf__redis_address *address, size_t argc,
                   const perf_bytes *argv, bool asking, int64_t deadline_ns, perf_redis_reply **out)
{
    char key[272];
    perf_pool *pool = NULL;
    void *conn;
    bool keep;
    int rc = get_pool(redis, &pool);
    if (rc)
        return rc;
    if (address->port)
        snprintf(key, sizeof key, "%s %d", address->host, address->port);
    else
        snprintf(key, sizeof key, "%s", address->host);
    rc = perf_pool_acquire_key(pool, key, "a blocking command", left_ms(deadline_ns), &conn);
    if (!rc) {
        atomic_fetch_add(&redis->blocking_calls, 1);
        rc = call_on(redis, conn, argc, argv, asking, deadline_ns, out, &keep);
        if (keep) {
            perf_pool_release(pool, conn);
        } else {
            perf__redis_link_reconnect(conn); /* now: what it would still pop would be lost */
            perf_pool_discard(pool, conn);
        }
    }
    pthread_mutex_lock(&redis->mutex);
    redis->blocked--;
    pthread_cond_broadcast(&redis->changed);
    pthread_mutex_unlock(&redis->mutex);
    return rc;
}

int perf__redis_call_blocking(perf_redis *redis, size_t argc, const perf_bytes *argv,
                              int64_t deadline_ns, perf_redis_reply **out)
{
    enum { SERVERS = 4 }; /* that send it on */
    const struct perf__redis_route *route = redis->route;
    struct perf__redis_link_options options;
    bool asking = false;
    perf__redis_link_defaults(redis, &options);
    int rc = route->address(redis, argc, argv, &options);
    if (rc)
        return rc;
    for (int i = 0; i < SERVERS; i++) {
        rc = call_at(redis, &options.address, argc, argv, asking, deadline_ns, out);
        if (!rc || !route->learn ||
            !route->learn(redis, perf_last_error(), &options.address, &asking))
            break;
    }
    return rc;
}

void perf__redis_blocking_close(perf_redis *redis)
{
    struct perf__redis_blocking *blocking = redis->blocking;
    perf_pool_request *guard = NULL;
    if (!blocking)
        return;
    perf__redis_loop_end_all(redis->loop); /* those that block return now */
    /* Those that wait for a connection are sent away by a close; the request keeps it from freeing
     * the pool under a thread that is about to ask. */
    if (perf_pool_start(blocking->pool, NULL, NULL, 0, NULL, NULL, &guard) == PERF_OK)
        perf_pool_close(blocking->pool);
    pthread_mutex_lock(&redis->mutex);
    while (redis->blocked)
        perf__cond_wait(&redis->changed, &redis->mutex, 0);
    pthread_mutex_unlock(&redis->mutex);
    perf_pool_request_release(guard);
    perf_pool_close(blocking->pool);
    perf__free(&redis->host.allocator, blocking);
    redis->blocking = NULL;
}
