/* SPDX-License-Identifier: MIT */
/*
 * queue_redis_open.c - the Redis queue's location, and its client.
 *
 * All keys of a store have the one hash tag {PREFIX}, so that in a cluster a
 * script finds them on one node. One thread; the host sees no handle before
 * it is whole.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "queue_redis.h"

enum { DEFAULT_TIMEOUT_MS = 5000, REPLY_MAX = 128 << 20 };

static const char default_prefix[] = "perf";

/* ------------------------------------------------------------------- location */

static int bad(const char *what)
{
    return perf__fail(PERF_EINVAL,
                      "perf_tasks_options.location of the queue \"redis\" %s; give "
                      "redis://user:password@host:port/db?prefix=name, rediss://..., or "
                      "unix:///path?db=0&prefix=name",
                      what);
}

static bool is_prefix(const char *text, size_t len)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return len > 0 && len <= PREFIX_MAX && strspn(text, allowed) >= len;
}

/* Takes prefix=NAME out of a query; what is not ours is kept at url, for the client to judge. */
static int take_query(const char *query, char prefix[PREFIX_MAX + 1], char *url)
{
    char before = '?';
    for (const char *at = query; *at;) {
        size_t len = strcspn(at, "&");
        if (len >= 7 && !memcmp(at, "prefix=", 7)) {
            if (!is_prefix(at + 7, len - 7))
                return bad("has a prefix that is not 1 to 64 letters, digits, '_' or '-'");
            memcpy(prefix, at + 7, len - 7);
            prefix[len - 7] = 0;
        } else if (len) {
            *url++ = before;
            memcpy(url, at, len);
            url += len;
            before = '&';
        }
        at += len + (at[len] == '&');
    }
    *url = 0;
    return PERF_OK;
}

/* *url is the caller's, and may hold a password. NULL: the location names no server. */
static int read_location(const perf_allocator *allocator, const char *location, bool has_server,
                         char prefix[PREFIX_MAX + 1], char **url)
{
    static const char scheme[] = "redis://";
    size_t server = strcspn(location, "?");
    const char *query = location + server + (location[server] == '?');
    *url = NULL;
    memcpy(prefix, default_prefix, sizeof default_prefix);
    if (!server && !has_server)
        return bad("names no server (REDIS_ENDPOINT is asked when there is no location)");
    char *text = perf__alloc(allocator, strlen(location) + sizeof scheme);
    if (!text)
        return perf__fail_nomem("the location of a redis queue");
    /* REDIS_ENDPOINT is often just host:port. */
    bool bare = server && !strstr(location, "://");
    size_t len = (size_t)sprintf(text, "%s%.*s", bare ? scheme : "", (int)server, location);
    int rc = take_query(query, prefix, text + len);
    if (!rc && !server && text[0])
        rc = bad("has a parameter that is not known, and no server");
    if (!rc && server) {
        *url = text;
        return PERF_OK;
    }
    explicit_bzero(text, strlen(text));
    perf__free(allocator, text);
    return rc;
}

/* ---------------------------------------------------------------- open, close */

static int open_client(struct redis_queue *q, const perf_queue_config *config, const char *url)
{
    perf_redis_options o;
    int rc = perf__options_take("perf_redis_options", config->user_ctx, &o, sizeof o);
    if (rc)
        return rc;
    o.url = url ? url : o.url;
    o.host = config->host;
    o.timeout_ms = q->timeout_ms;
    o.connect_timeout_ms = o.connect_timeout_ms ? o.connect_timeout_ms : q->timeout_ms;
    o.backoff_max_ms = o.backoff_max_ms ? o.backoff_max_ms : 1000;
    o.max_reply_bytes = o.max_reply_bytes ? o.max_reply_bytes : REPLY_MAX;
    o.client_name = o.client_name ? o.client_name : "libperf-tasks";
    return perf_redis_open(&o, &q->redis);
}

int perf__queue_redis_open(const perf_queue_config *config, void **out)
{
    const perf_allocator *allocator = config->host->allocator;
    const char *location = config->location ? config->location : "";
    char prefix[PREFIX_MAX + 1], *url;
    if (config->sync == PERF_SYNC_FULL)
        return perf__fail(PERF_EUNSUPPORTED,
                          "the queue \"redis\" is as durable as its server is; leave "
                          "perf_tasks_options.sync at PERF_SYNC_NORMAL, and give the server "
                          "appendfsync always");
    if (!location[0] && !config->user_ctx && !(location = getenv("REDIS_ENDPOINT")))
        location = "";
    struct redis_queue *q = perf__calloc(allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a redis queue");
    q->last = &q->first;
    q->allocator = *allocator;
    q->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    q->origin = perf__hash_random_key().k0;
    if (pthread_mutex_init(&q->mutex, NULL))
        goto no_mutex;
    if (perf__cond_init(&q->changed))
        goto no_cond;
    int rc = read_location(allocator, location, config->user_ctx != NULL, prefix, &url);
    if (!rc) {
        snprintf(q->base, sizeof q->base, "{%s}tasks", prefix);
        rc = perf__queue_redis_scripts(q);
    }
    if (!rc)
        rc = open_client(q, config, url);
    if (url)
        explicit_bzero(url, strlen(url));
    perf__free(allocator, url);
    if (rc)
        perf__queue_redis_close(q);
    else
        *out = q;
    return rc;

no_cond:
    pthread_mutex_destroy(&q->mutex);
no_mutex:
    perf__free(allocator, q);
    return perf__fail_nomem("the redis queue's locks");
}

void perf__queue_redis_close(void *queue)
{
    struct redis_queue *q = queue;
    (void)!perf_redis_subscriber_close(q->subscriber);
    (void)!perf_redis_close(q->redis);
    for (size_t i = 0; i < SCRIPTS; i++)
        perf_redis_script_free(q->scripts[i]);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    perf_allocator allocator = q->allocator;
    perf__free(&allocator, q);
}
