/* SPDX-License-Identifier: MIT */
/*
 * redis.c - opening and closing a client, its options, statistics, and the route
 * to a single server.
 *
 * Nothing but memory is had before the first call. Any thread.
 */
#include "redis.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"

enum { DAY_MS = 86400000, COUNT_MAX = 1 << 24, ON_CONNECT_MAX = 16 };

/* ------------------------------------------------------------------- options */

static void set_default(int64_t *field, int64_t value)
{
    *field = *field ? *field : value;
}

static void set_default_u(uint64_t *field, uint64_t value)
{
    *field = *field ? *field : value;
}

static int check_options(perf_redis_options *o)
{
    if (!o->hostname && !o->unix_socket)
        o->hostname = "127.0.0.1";
    if (!o->client_name)
        o->client_name = "libperf";
    set_default(&o->port, 6379);
    set_default(&o->connect_timeout_ms, 3000);
    set_default(&o->timeout_ms, 5000);
    set_default(&o->backoff_min_ms, 50);
    set_default(&o->backoff_max_ms, 2000);
    set_default_u(&o->max_pending, 65536);
    set_default_u(&o->max_pending_bytes, 64u << 20);
    set_default_u(&o->max_reply_bytes, 64u << 20);
    set_default_u(&o->max_blocking, 8);
#define RANGE(field, min, max)                                                               \
    (rc = perf__check_range("perf_redis_options." #field, (int64_t)o->field, (int64_t)(min), \
                            (int64_t)(max)))
    int rc;
    if (RANGE(mode, PERF_REDIS_SINGLE, PERF_REDIS_SINGLE) || RANGE(port, 1, 65535) ||
        RANGE(db, 0, 1 << 20) || RANGE(tls, 0, 1) || RANGE(tls_insecure, 0, 1) ||
        RANGE(connect_timeout_ms, 1, DAY_MS) || RANGE(timeout_ms, 1, DAY_MS) ||
        RANGE(backoff_min_ms, 1, DAY_MS) || RANGE(backoff_max_ms, o->backoff_min_ms, DAY_MS) ||
        RANGE(fail_fast, 0, 1) || RANGE(max_pending, 1, COUNT_MAX) ||
        RANGE(max_pending_bytes, 1024, INT64_MAX / 4) ||
        RANGE(max_reply_bytes, 1024, INT64_MAX / 4) || RANGE(max_blocking, 1, 4096) ||
        RANGE(on_connect_count, 0, ON_CONNECT_MAX))
        return rc;
#undef RANGE
    if (strlen(o->unix_socket ? o->unix_socket : o->hostname) >=
        sizeof((struct perf__redis_address *)0)->host)
        return perf__fail(PERF_EINVAL, "perf_redis_options.hostname or unix_socket has over 255 "
                                       "bytes");
    if (o->user && !o->password)
        return perf__fail(PERF_EINVAL,
                          "perf_redis_options.user is set without password; give both");
    if (o->key_file && !o->cert_file)
        return perf__fail(PERF_EINVAL, "perf_redis_options.key_file is set without cert_file; give "
                                       "both");
    if (strpbrk(o->client_name, " \r\n\t"))
        return perf__fail(PERF_EINVAL, "perf_redis_options.client_name holds white space");
    return PERF_OK;
}

/* Copies all strings of the options into one block. */
static int copy_strings(perf_redis *redis)
{
    perf_redis_options *o = &redis->options;
    const char **const fields[] = {&o->hostname,    &o->unix_socket, &o->user,    &o->password,
                                   &o->client_name, &o->ca_file,     &o->ca_path, &o->cert_file,
                                   &o->key_file,    &o->server_name};
    enum { FIELDS = sizeof fields / sizeof *fields };
    size_t size = 1;
    for (int i = 0; i < FIELDS; i++)
        size += *fields[i] ? strlen(*fields[i]) + 1 : 0;
    char *at = redis->strings = perf__alloc(&redis->host.allocator, size);
    redis->strings_size = size;
    if (!at)
        return perf__fail_nomem("a Redis client");
    for (int i = 0; i < FIELDS; i++) {
        if (!*fields[i])
            continue;
        size = strlen(*fields[i]) + 1;
        *fields[i] = memcpy(at, *fields[i], size);
        at += size;
    }
    o->url = NULL;
    return PERF_OK;
}

/* Options with the URL read and defaults set, their strings still the caller's or in *room. */
static int take_options(const perf_redis_options *given, perf_redis_options *own,
                        struct perf__host *host, char **room)
{
    int rc = perf__options_take("perf_redis_options", given, own, sizeof *own);
    if (rc || (rc = perf__host_take(own->host, host)))
        return rc;
    own->host = NULL;
    if (own->url) {
        /* Each part loses a separator and gains a zero. */
        *room = perf__alloc(&host->allocator, strlen(own->url) + 4);
        if (!*room)
            return perf__fail_nomem("a Redis client");
        if ((rc = perf__redis_url_parse(own, own->url, *room)))
            return rc;
    }
    return check_options(own);
}

static void wipe(const struct perf__host *host, char *text, size_t size)
{
    if (text)
        explicit_bzero(text, size);
    perf__free(&host->allocator, text);
}

/* ---------------------------------------------------------------- on connect */

static int encode_all(const perf_allocator *allocator, size_t count,
                      const perf_redis_command *commands, char **bytes, size_t *len)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        int rc = perf__redis_check_command(commands[i].argc, commands[i].argv);
        if (rc)
            return rc;
        size += perf__redis_encoded_size(commands[i].argc, commands[i].argv);
    }
    *bytes = size ? perf__alloc(allocator, size) : NULL;
    if (size && !*bytes)
        return perf__fail_nomem("the commands of perf_redis_options.on_connect");
    *len = size;
    char *at = *bytes;
    for (size_t i = 0; i < count; i++)
        at = perf__redis_encode(at, commands[i].argc, commands[i].argv);
    return PERF_OK;
}

int perf_redis_set_on_connect(perf_redis *redis, const perf_redis_command *commands, size_t count)
{
    char *bytes = NULL;
    size_t len = 0;
    int rc = perf__redis_check(redis);
    if (rc || (rc = perf__check_range("count", (int64_t)count, 0, ON_CONNECT_MAX)))
        return rc;
    if (count && !commands)
        return perf__fail(PERF_EINVAL, "commands is NULL; give count of them");
    if ((rc = encode_all(&redis->host.allocator, count, commands, &bytes, &len)))
        return rc;
    pthread_mutex_lock(&redis->mutex);
    char *before = redis->greeting;
    redis->greeting = bytes;
    redis->greeting_len = len;
    redis->greeting_replies = (uint32_t)count;
    pthread_mutex_unlock(&redis->mutex);
    perf__free(&redis->host.allocator, before);
    return PERF_OK;
}

int perf__redis_greet(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                      uint32_t *expected)
{
    (void)link;
    perf_redis *redis = ctx;
    int rc = PERF_OK;
    pthread_mutex_lock(&redis->mutex);
    if (redis->greeting_len) {
        *bytes = perf__alloc(&redis->host.allocator, redis->greeting_len);
        if (*bytes) {
            memcpy(*bytes, redis->greeting, redis->greeting_len);
            *len = redis->greeting_len;
            *expected = redis->greeting_replies;
        } else {
            rc = perf__fail_nomem("the commands of perf_redis_options.on_connect");
        }
    }
    pthread_mutex_unlock(&redis->mutex);
    return rc;
}

void perf__redis_event(void *ctx, struct perf__redis_link *link, int event, int status,
                       const char *error)
{
    (void)link;
    perf_redis *redis = ctx;
    if (event != PERF__REDIS_LINK_UP && status != PERF_ECLOSED)
        perf__log(&redis->host.log, PERF_LOG_WARNING, "redis", "%s", error);
    if (!redis->options.event || event == PERF__REDIS_LINK_FAILED)
        return;
    redis->options.event(redis->options.event_ctx, redis,
                         event == PERF__REDIS_LINK_UP ? PERF_REDIS_UP : PERF_REDIS_LOST);
}

/* ------------------------------------------------------------- the single route */

void perf__redis_link_defaults(perf_redis *redis, struct perf__redis_link_options *out)
{
    const perf_redis_options *o = &redis->options;
    *out = (struct perf__redis_link_options){
        .tls = redis->tls,
        .server_name = o->server_name,
        .user = o->user,
        .password = o->password,
        .client_name = o->client_name,
        .db = o->db,
        .connect_timeout_ms = o->connect_timeout_ms,
        .backoff_min_ms = o->backoff_min_ms,
        .backoff_max_ms = o->backoff_max_ms,
        .fail_fast = o->fail_fast,
        .max_pending = o->max_pending,
        .max_pending_bytes = o->max_pending_bytes,
        .max_reply_bytes = o->max_reply_bytes,
    };
}

static int single_address(perf_redis *redis, size_t argc, const perf_bytes *argv,
                          struct perf__redis_link_options *out)
{
    (void)argc, (void)argv;
    const perf_redis_options *o = &redis->options;
    snprintf(out->address.host, sizeof out->address.host, "%s",
             o->unix_socket ? o->unix_socket : o->hostname);
    out->address.port = o->unix_socket ? 0 : (int)o->port;
    return PERF_OK;
}

/* The link is made by the first call, for it brings the I/O thread. */
static int single_link(perf_redis *redis, struct perf__redis_link **out)
{
    struct perf__redis_link *link = atomic_load_explicit(&redis->single, memory_order_acquire);
    int rc = PERF_OK;
    if (!link) {
        pthread_mutex_lock(&redis->mutex);
        link = atomic_load(&redis->single);
        if (!link) {
            struct perf__redis_link_options options;
            perf__redis_link_defaults(redis, &options);
            single_address(redis, 0, NULL, &options);
            options.greet = perf__redis_greet;
            options.event = perf__redis_event;
            options.ctx = redis;
            rc = perf__redis_link_open(redis->loop, &options, &link);
            if (!rc)
                atomic_store(&redis->single, link);
        }
        pthread_mutex_unlock(&redis->mutex);
    }
    *out = link;
    return rc;
}

static int single_open(perf_redis *redis)
{
    (void)redis;
    return PERF_OK;
}

static void single_close(perf_redis *redis)
{
    perf__redis_link_close(atomic_exchange(&redis->single, NULL));
}

static int single_start(perf_redis *redis, struct perf__redis_trip *trip)
{
    int rc = single_link(redis, &trip->link);
    return rc ? rc : perf__redis_submit(trip->link, &trip->op);
}

static void single_wait(perf_redis *redis, struct perf__redis_trip *trip)
{
    (void)redis;
    perf__redis_wait(trip->link, &trip->op);
}

static void single_reconnect(perf_redis *redis)
{
    struct perf__redis_link *link = atomic_load(&redis->single);
    if (link)
        perf__redis_link_reconnect(link);
}

static void single_stats(perf_redis *redis, perf_redis_stats *stats)
{
    struct perf__redis_link *link = atomic_load(&redis->single);
    if (link)
        perf__redis_link_stats(link, stats);
}

const struct perf__redis_route perf__redis_single = {
    .open = single_open,
    .close = single_close,
    .start = single_start,
    .wait = single_wait,
    .address = single_address,
    .reconnect = single_reconnect,
    .stats = single_stats,
};

/* ------------------------------------------------------------- open and close */

void perf__redis_unref(perf_redis *redis)
{
    if (atomic_fetch_sub(&redis->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&redis->mutex);
    pthread_cond_destroy(&redis->changed);
    perf_allocator allocator = redis->host.allocator;
    perf__free(&allocator, redis);
}

int perf_redis_open(const perf_redis_options *options, perf_redis **out)
{
    perf_redis_options own;
    struct perf__host host;
    char *room = NULL;
    perf_redis *redis = NULL;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the client");
    int rc = perf__fork_arm();
    if (rc || (rc = take_options(options, &own, &host, &room)))
        goto out;
    redis = perf__calloc(&host.allocator, 1, sizeof *redis);
    if (!redis || pthread_mutex_init(&redis->mutex, NULL)) {
        perf__free(&host.allocator, redis);
        redis = NULL;
        rc = perf__fail_nomem("a Redis client");
        goto out;
    }
    if (perf__cond_init(&redis->changed)) {
        pthread_mutex_destroy(&redis->mutex);
        perf__free(&host.allocator, redis);
        redis = NULL;
        rc = perf__fail_nomem("a Redis client");
        goto out;
    }
    redis->host = host;
    redis->host.view.allocator = &redis->host.allocator;
    redis->host.view.clock = &redis->host.clock;
    redis->host.view.log = &redis->host.log;
    redis->options = own;
    redis->generation = perf__fork_generation;
    redis->done_fd = -1;
    atomic_init(&redis->refs, 1);
    TAILQ_INIT(&redis->over);
    redis->route = &perf__redis_single;
    if ((rc = copy_strings(redis)) ||
        (rc = perf_redis_set_on_connect(redis, own.on_connect, own.on_connect_count)) ||
        (own.tls && (rc = perf__redis_tls_new(&redis->host, &redis->options, &redis->tls))) ||
        (rc = perf__redis_loop_open(&redis->host, &redis->loop)) ||
        (rc = redis->route->open(redis)))
        goto out;
    redis->options.on_connect = NULL;
    *out = redis;
    redis = NULL;
out:
    wipe(&host, room, room ? strlen(own.url ? own.url : "") + 4 : 0);
    if (redis)
        perf_redis_close(redis);
    return rc;
}

int perf_redis_close(perf_redis *redis)
{
    if (!redis)
        return PERF_OK;
    if (redis->generation != perf__fork_generation) {
        /* Another process lives on these connections: no good-byes, and the memory stays. */
        perf__redis_loop_abandon(redis->loop);
        if (redis->done_fd >= 0)
            close(redis->done_fd);
        return PERF_OK;
    }
    if (redis->loop && perf__redis_loop_is_here(redis->loop))
        return perf__fail(PERF_EDEADLK, "perf_redis_close inside a callback of this client would "
                                        "wait for itself");
    pthread_mutex_lock(&redis->mutex);
    uint64_t subscribers = redis->subscribers;
    pthread_mutex_unlock(&redis->mutex);
    if (subscribers)
        return perf__fail(PERF_EBUSY, "%llu subscribers are open; close them first",
                          (unsigned long long)subscribers);
    atomic_store(&redis->closing, true);
    perf__redis_blocking_close(redis);
    redis->route->close(redis);
    perf__redis_loop_close(redis->loop);
    perf__redis_tls_free(redis->tls);
    perf__free(&redis->host.allocator, redis->greeting);
    wipe(&redis->host, redis->strings, redis->strings_size);
    pthread_mutex_lock(&redis->mutex);
    redis->loop = NULL;
    if (redis->done_fd >= 0)
        close(redis->done_fd);
    redis->done_fd = -1;
    pthread_mutex_unlock(&redis->mutex);
    perf__redis_unref(redis);
    return PERF_OK;
}

int perf__redis_check(perf_redis *redis)
{
    if (__builtin_expect(!redis, 0))
        return perf__fail(PERF_EINVAL, "redis is NULL; open one by perf_redis_open");
    return __builtin_expect(redis->generation == perf__fork_generation, 1) ? PERF_OK
                                                                           : perf__fail_forked();
}

int perf_redis_reconnect(perf_redis *redis)
{
    int rc = perf__redis_check(redis);
    if (!rc)
        redis->route->reconnect(redis);
    return rc;
}

int perf_redis_get_stats(perf_redis *redis, perf_redis_stats *stats)
{
    perf_redis_stats now = PERF_REDIS_STATS_INIT;
    size_t size = 0;
    int rc = perf__redis_check(redis);
    if (rc || (rc = perf__options_check_out("perf_redis_stats", stats, &size)))
        return rc;
    redis->route->stats(redis, &now);
    now.blocking_calls = atomic_load(&redis->blocking_calls);
    pthread_mutex_lock(&redis->mutex);
    now.subscribers = redis->subscribers;
    pthread_mutex_unlock(&redis->mutex);
    perf__options_give(stats, size, &now, sizeof now);
    return PERF_OK;
}
