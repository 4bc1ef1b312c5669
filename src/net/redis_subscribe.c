/* SPDX-License-Identifier: MIT */
/*
 * redis_subscribe.c - listening to channels on a connection of its own.
 *
 * What is subscribed is kept in a table, and said again on each new connection.
 * A message goes to the callback, on the I/O thread, or into a queue with bounds;
 * whoever misses something, by a lost connection or a full queue, is told by GAP.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/uthash_host.h"
#include "redis.h"
#include "redis_reply.h"

enum { NAMES_MAX = 10000, NAME_MAX_BYTES = 1 << 20 };

/* A channel or pattern; the first byte of the name tells which. */
struct name {
    UT_hash_handle hh;
    size_t len;
    char text[];
};

struct item {
    STAILQ_ENTRY(item) link;
    perf_redis_message message;
    size_t size;
    char bytes[];
};

struct perf_redis_subscriber {
    perf_redis *redis;
    struct perf__redis_link *sub;
    perf_redis_message_fn message;
    void *message_ctx;
    uint64_t max_queued, max_queued_bytes;
    _Atomic int64_t id;
    /* I/O thread. */
    bool was_up;
    uint64_t awaited; /* answers to what was said again; then GAP */

    pthread_mutex_t mutex;
    pthread_cond_t arrived;
    struct name *names;
    struct perf__hash_key secret;
    STAILQ_HEAD(, item) items;
    struct item *current; /* what perf_redis_next_message gave last */
    uint64_t queued, queued_bytes;
    bool dropped, closing;
    int fd;
};

#define uthash_secret subscriber->secret

/* ------------------------------------------------------------------ messages */

static char *keep(char **at, perf_bytes *bytes)
{
    char *begin = *at;
    if (bytes->len)
        memcpy(begin, bytes->data, bytes->len);
    if (bytes->data)
        bytes->data = begin;
    *at += bytes->len;
    return begin;
}

static void put(perf_redis_subscriber *subscriber, struct item *item)
{
    if (STAILQ_EMPTY(&subscriber->items) && subscriber->fd >= 0)
        (void)!write(subscriber->fd, &(uint64_t){1}, sizeof(uint64_t));
    STAILQ_INSERT_TAIL(&subscriber->items, item, link);
    subscriber->queued++;
    subscriber->queued_bytes += item->size;
    pthread_cond_signal(&subscriber->arrived);
}

/* With the mutex. Notices are few, and are not bounded. */
static void enqueue(perf_redis_subscriber *subscriber, const perf_redis_message *message)
{
    size_t size = message->channel.len + message->pattern.len + message->data.len;
    bool full = message->kind == PERF_REDIS_MESSAGE &&
                (subscriber->queued >= subscriber->max_queued ||
                 subscriber->queued_bytes + size > subscriber->max_queued_bytes);
    struct item *item =
        full ? NULL : perf__alloc(&subscriber->redis->host.allocator, sizeof *item + size);
    if (!item) {
        subscriber->dropped = true;
        return;
    }
    item->message = *message;
    item->size = size;
    char *at = item->bytes;
    keep(&at, &item->message.channel);
    keep(&at, &item->message.pattern);
    keep(&at, &item->message.data);
    put(subscriber, item);
}

static void deliver(perf_redis_subscriber *subscriber, const perf_redis_message *message)
{
    if (subscriber->message) {
        subscriber->message(subscriber->message_ctx, subscriber, message);
        return;
    }
    pthread_mutex_lock(&subscriber->mutex);
    enqueue(subscriber, message);
    pthread_mutex_unlock(&subscriber->mutex);
}

static void notice(perf_redis_subscriber *subscriber, int64_t kind, perf_bytes channel)
{
    perf_redis_message message = PERF_REDIS_MESSAGE_INIT;
    message.kind = kind;
    message.channel = channel;
    deliver(subscriber, &message);
}

static bool is_word(const perf_redis_reply *reply, const char *word)
{
    return reply->type == PERF_REDIS_STRING && reply->size == strlen(word) &&
           !strncasecmp(reply->u.data, word, reply->size);
}

static perf_bytes bytes_of(const perf_redis_reply *reply)
{
    return (perf_bytes){perf_redis_reply_data(reply), perf_redis_reply_size(reply)};
}

/* What a channel brought: CLIENT TRACKING sends arrays of keys, or nothing for "all keys". */
static void deliver_data(perf_redis_subscriber *subscriber, perf_redis_message *message,
                         const perf_redis_reply *data)
{
    if (data->type == PERF_REDIS_ARRAY) {
        for (size_t i = 0; i < data->size; i++) {
            message->data = bytes_of(&data->u.elements[i]);
            if (data->u.elements[i].type == PERF_REDIS_STRING)
                deliver(subscriber, message);
        }
        return;
    }
    if (data->type != PERF_REDIS_NIL)
        message->data = bytes_of(data);
    deliver(subscriber, message);
}

/* The server has heard of one more of what was said again. */
static void answered(perf_redis_subscriber *subscriber)
{
    if (subscriber->awaited && !--subscriber->awaited)
        notice(subscriber, PERF_REDIS_GAP, (perf_bytes){NULL, 0});
}

static void on_push(void *ctx, struct perf__redis_link *link, perf_redis_reply *reply)
{
    perf_redis_subscriber *subscriber = ctx;
    (void)link;
    if (!reply) { /* too large, or no memory for it */
        notice(subscriber, PERF_REDIS_GAP, (perf_bytes){NULL, 0});
        return;
    }
    perf_redis_message message = PERF_REDIS_MESSAGE_INIT;
    const perf_redis_reply *e = reply->type == PERF_REDIS_ARRAY ? reply->u.elements : NULL;
    message.kind = PERF_REDIS_MESSAGE;
    if (e && reply->size == 3 && is_word(&e[0], "message")) {
        message.channel = bytes_of(&e[1]);
        deliver_data(subscriber, &message, &e[2]);
    } else if (e && reply->size == 4 && is_word(&e[0], "pmessage")) {
        message.pattern = bytes_of(&e[1]);
        message.channel = bytes_of(&e[2]);
        deliver_data(subscriber, &message, &e[3]);
    } else if (e && reply->size == 3 &&
               (is_word(&e[0], "subscribe") || is_word(&e[0], "psubscribe"))) {
        notice(subscriber, PERF_REDIS_SUBSCRIBED, bytes_of(&e[1]));
        answered(subscriber);
    } else if (reply->type == PERF_REDIS_ERROR) { /* such as NOPERM for this channel */
        perf__log(&subscriber->redis->host.log, PERF_LOG_WARNING, "redis", "a subscription: %.200s",
                  reply->u.data);
        answered(subscriber);
    } /* else: PONG, unsubscribe */
    perf_redis_reply_release(reply);
}

/* --------------------------------------------------------------- connections */

static int on_greet(void *ctx, struct perf__redis_link *link, char **bytes, size_t *len,
                    uint32_t *expected)
{
    static const char words[] = "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";
    perf_redis_subscriber *subscriber = ctx;
    (void)link;
    *bytes = perf__strndup(&subscriber->redis->host.allocator, words, sizeof words - 1);
    if (!*bytes)
        return perf__fail_nomem("a greeting to a Redis server");
    *len = sizeof words - 1;
    *expected = 1;
    return PERF_OK;
}

static void on_greeted(void *ctx, uint32_t index, const perf_redis_reply *reply)
{
    perf_redis_subscriber *subscriber = ctx;
    (void)index;
    atomic_store(&subscriber->id, perf_redis_reply_integer(reply));
}

static int say(perf_redis_subscriber *subscriber, const char *command, const char *text, size_t len)
{
    const perf_allocator *a = &subscriber->redis->host.allocator;
    perf_bytes argv[] = {{command, strlen(command)}, {text, len}};
    size_t size = perf__redis_encoded_size(2, argv);
    char *bytes = perf__alloc(a, size);
    if (!bytes)
        return perf__fail_nomem("words to a Redis server");
    perf__redis_encode(bytes, 2, argv);
    int rc = perf__redis_tell(subscriber->sub, bytes, size);
    perf__free(a, bytes);
    return rc;
}

static void on_event(void *ctx, struct perf__redis_link *link, int event, int status,
                     const char *error)
{
    perf_redis_subscriber *subscriber = ctx;
    if (event != PERF__REDIS_LINK_UP) {
        atomic_store(&subscriber->id, 0);
        if (event == PERF__REDIS_LINK_LOST && status != PERF_ECLOSED)
            notice(subscriber, PERF_REDIS_DISCONNECTED, (perf_bytes){NULL, 0});
        return;
    }
    (void)error;
    int rc = PERF_OK;
    uint64_t said = 0;
    /* Held while it is said, so that a name that comes now is said once at least, and after these.
     */
    pthread_mutex_lock(&subscriber->mutex);
    for (struct name *n = subscriber->names; n && !rc; n = n->hh.next, said++)
        rc = say(subscriber, n->text[0] == 'p' ? "PSUBSCRIBE" : "SUBSCRIBE", n->text + 1,
                 n->len - 1);
    pthread_mutex_unlock(&subscriber->mutex);
    if (rc)
        perf__redis_link_reconnect(link); /* no memory: once more, later */
    /* What is published before the server has heard all of it is lost, too. */
    subscriber->awaited = subscriber->was_up ? said : 0;
    if (subscriber->was_up && !said)
        notice(subscriber, PERF_REDIS_GAP, (perf_bytes){NULL, 0});
    subscriber->was_up = true;
}

/* --------------------------------------------------------------- open, close */

static void free_subscriber(perf_redis_subscriber *subscriber)
{
    const perf_allocator *uthash_allocator = &subscriber->redis->host.allocator;
    struct name *name, *next;
    HASH_ITER (hh, subscriber->names, name, next) {
        HASH_DELETE(hh, subscriber->names, name);
        perf__free(uthash_allocator, name);
    }
    while (!STAILQ_EMPTY(&subscriber->items)) {
        struct item *item = STAILQ_FIRST(&subscriber->items);
        STAILQ_REMOVE_HEAD(&subscriber->items, link);
        perf__free(uthash_allocator, item);
    }
    perf__free(uthash_allocator, subscriber->current);
    if (subscriber->fd >= 0)
        close(subscriber->fd);
    pthread_cond_destroy(&subscriber->arrived);
    pthread_mutex_destroy(&subscriber->mutex);
    perf__free(uthash_allocator, subscriber);
}

static int take_options(const perf_redis_subscriber_options *given,
                        perf_redis_subscriber_options *own)
{
    int rc = perf__options_take("perf_redis_subscriber_options", given, own, sizeof *own);
    if (rc)
        return rc;
    own->max_queued = own->max_queued ? own->max_queued : 10000;
    own->max_queued_bytes = own->max_queued_bytes ? own->max_queued_bytes : 16u << 20;
    own->ping_ms = own->ping_ms ? own->ping_ms : 10000;
    return perf__check_range("perf_redis_subscriber_options.ping_ms", own->ping_ms, 1, 86400000);
}

int perf_redis_subscriber_open(perf_redis *redis, const perf_redis_subscriber_options *options,
                               perf_redis_subscriber **out)
{
    perf_redis_subscriber_options own;
    struct perf__redis_link_options link;
    int rc = perf__redis_check(redis);
    if (rc || (rc = take_options(options, &own)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the subscriber");
    perf__redis_link_defaults(redis, &link);
    if ((rc = redis->route->address(redis, 0, NULL, &link)))
        return rc;
    perf_redis_subscriber *subscriber = perf__calloc(&redis->host.allocator, 1, sizeof *subscriber);
    if (!subscriber || pthread_mutex_init(&subscriber->mutex, NULL)) {
        perf__free(&redis->host.allocator, subscriber);
        return perf__fail_nomem("a Redis subscriber");
    }
    if (perf__cond_init(&subscriber->arrived)) {
        pthread_mutex_destroy(&subscriber->mutex);
        perf__free(&redis->host.allocator, subscriber);
        return perf__fail_nomem("a Redis subscriber");
    }
    subscriber->redis = redis;
    subscriber->message = own.message;
    subscriber->message_ctx = own.message_ctx;
    subscriber->max_queued = own.max_queued;
    subscriber->max_queued_bytes = own.max_queued_bytes;
    subscriber->secret = perf__hash_random_key();
    subscriber->fd = -1;
    STAILQ_INIT(&subscriber->items);
    link.db = 0; /* channels belong to none */
    link.listens = true;
    link.ping_ms = own.ping_ms;
    link.greet = on_greet;
    link.greeted = on_greeted;
    link.event = on_event;
    link.push = on_push;
    link.ctx = subscriber;
    if ((rc = perf__redis_link_open(redis->loop, &link, &subscriber->sub))) {
        free_subscriber(subscriber);
        return rc;
    }
    pthread_mutex_lock(&redis->mutex);
    redis->subscribers++;
    pthread_mutex_unlock(&redis->mutex);
    perf__redis_link_start(subscriber->sub);
    *out = subscriber;
    return PERF_OK;
}

static int check(perf_redis_subscriber *subscriber)
{
    if (!subscriber)
        return perf__fail(PERF_EINVAL,
                          "subscriber is NULL; open one by perf_redis_subscriber_open");
    return perf__redis_check(subscriber->redis);
}

int perf_redis_subscriber_close(perf_redis_subscriber *subscriber)
{
    if (!subscriber || subscriber->redis->generation != perf__fork_generation)
        return PERF_OK; /* in a forked child the memory stays */
    perf_redis *redis = subscriber->redis;
    if (perf__redis_loop_is_here(redis->loop))
        return perf__fail(PERF_EDEADLK, "perf_redis_subscriber_close inside a callback of its "
                                        "client would wait for itself");
    pthread_mutex_lock(&subscriber->mutex);
    subscriber->closing = true;
    pthread_cond_broadcast(&subscriber->arrived);
    pthread_mutex_unlock(&subscriber->mutex);
    perf__redis_link_close(subscriber->sub);
    free_subscriber(subscriber);
    pthread_mutex_lock(&redis->mutex);
    redis->subscribers--;
    pthread_mutex_unlock(&redis->mutex);
    return PERF_OK;
}

/* ---------------------------------------------------------------- subscribing */

static int add(perf_redis_subscriber *subscriber, char kind, const void *text, size_t len)
{
    int rc = check(subscriber);
    if (rc || (rc = perf__check_len(kind == 'p' ? "pattern" : "channel", len, 1, NAME_MAX_BYTES)))
        return rc;
    if (!text)
        return perf__fail(PERF_EINVAL, "the name is NULL; give its bytes");
    const perf_allocator *uthash_allocator = &subscriber->redis->host.allocator;
    struct name *name = perf__alloc(uthash_allocator, sizeof *name + len + 1), *known = NULL;
    bool uthash_oom = false;
    if (!name)
        return perf__fail_nomem("the name of a channel");
    memset(name, 0, sizeof *name);
    name->len = len + 1;
    name->text[0] = kind;
    memcpy(name->text + 1, text, len);
    pthread_mutex_lock(&subscriber->mutex);
    HASH_FIND(hh, subscriber->names, name->text, name->len, known);
    if (!known && HASH_COUNT(subscriber->names) >= NAMES_MAX)
        rc = perf__fail(PERF_EBUSY,
                        "%d channels and patterns are subscribed, which is the limit; "
                        "use a pattern or another subscriber",
                        NAMES_MAX);
    if (!known && !rc) {
        HASH_ADD(hh, subscriber->names, text[0], name->len, name);
        if (uthash_oom)
            rc = perf__fail_nomem("the name of a channel");
        else
            rc = say(subscriber, kind == 'p' ? "PSUBSCRIBE" : "SUBSCRIBE", text, len);
        if (rc && !uthash_oom)
            HASH_DELETE(hh, subscriber->names, name);
    }
    pthread_mutex_unlock(&subscriber->mutex);
    if (known || rc)
        perf__free(uthash_allocator, name);
    return rc;
}

static int take_away(perf_redis_subscriber *subscriber, char kind, const void *text, size_t len)
{
    int rc = check(subscriber);
    if (rc || (rc = perf__check_len(kind == 'p' ? "pattern" : "channel", len, 1, NAME_MAX_BYTES)))
        return rc;
    const perf_allocator *uthash_allocator = &subscriber->redis->host.allocator;
    char *key = perf__alloc(uthash_allocator, len + 1);
    struct name *known = NULL;
    if (!key)
        return perf__fail_nomem("the name of a channel");
    key[0] = kind;
    memcpy(key + 1, text, len);
    pthread_mutex_lock(&subscriber->mutex);
    HASH_FIND(hh, subscriber->names, key, len + 1, known);
    if (known) {
        HASH_DELETE(hh, subscriber->names, known);
        rc = say(subscriber, kind == 'p' ? "PUNSUBSCRIBE" : "UNSUBSCRIBE", text, len);
    }
    pthread_mutex_unlock(&subscriber->mutex);
    perf__free(uthash_allocator, known);
    perf__free(uthash_allocator, key);
    return known ? rc : PERF_MISS;
}

int perf_redis_subscribe(perf_redis_subscriber *subscriber, const void *channel, size_t len)
{
    return add(subscriber, 'c', channel, len);
}

int perf_redis_psubscribe(perf_redis_subscriber *subscriber, const void *pattern, size_t len)
{
    return add(subscriber, 'p', pattern, len);
}

int perf_redis_unsubscribe(perf_redis_subscriber *subscriber, const void *channel, size_t len)
{
    return take_away(subscriber, 'c', channel, len);
}

int perf_redis_punsubscribe(perf_redis_subscriber *subscriber, const void *pattern, size_t len)
{
    return take_away(subscriber, 'p', pattern, len);
}

/* ----------------------------------------------------------------------- pull */

int perf_redis_next_message(perf_redis_subscriber *subscriber, int64_t timeout_ms,
                            perf_redis_message *out)
{
    size_t size = 0;
    int rc = check(subscriber);
    if (rc || (rc = perf__options_check_out("perf_redis_message", out, &size)) ||
        (rc = perf__check_range("timeout_ms", timeout_ms, -1, INT64_MAX / 2000000)))
        return rc;
    if (subscriber->message)
        return perf__fail(PERF_EINVAL, "this subscriber has a message callback, which gets them");
    if (timeout_ms && perf__redis_loop_is_here(subscriber->redis->loop))
        return perf__fail(PERF_EDEADLK, "waiting inside a callback of its client would wait for "
                                        "itself");
    perf_redis_message gap = PERF_REDIS_MESSAGE_INIT;
    int64_t until = timeout_ms < 0 ? 0 : perf__deadline_after(timeout_ms);
    bool late = !timeout_ms;
    pthread_mutex_lock(&subscriber->mutex);
    while (STAILQ_EMPTY(&subscriber->items) && !subscriber->dropped && !late &&
           !subscriber->closing)
        late = !perf__cond_wait(&subscriber->arrived, &subscriber->mutex, until);
    struct item *item = STAILQ_FIRST(&subscriber->items);
    if (item) {
        STAILQ_REMOVE_HEAD(&subscriber->items, link);
        subscriber->queued--;
        subscriber->queued_bytes -= item->size;
        if (STAILQ_EMPTY(&subscriber->items) && subscriber->fd >= 0)
            (void)!read(subscriber->fd, &(uint64_t){0}, sizeof(uint64_t));
        perf__free(&subscriber->redis->host.allocator, subscriber->current);
        subscriber->current = item;
        perf__options_give(out, size, &item->message, sizeof item->message);
    } else if (subscriber->dropped) { /* after all that was kept */
        subscriber->dropped = false;
        gap.kind = PERF_REDIS_GAP;
        perf__options_give(out, size, &gap, sizeof gap);
    } else {
        rc = PERF_MISS;
    }
    pthread_mutex_unlock(&subscriber->mutex);
    return rc;
}

int perf_redis_message_fd(perf_redis_subscriber *subscriber, int *out)
{
    int rc = check(subscriber);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the descriptor");
    pthread_mutex_lock(&subscriber->mutex);
    if (subscriber->fd < 0)
        subscriber->fd = eventfd(!STAILQ_EMPTY(&subscriber->items), EFD_CLOEXEC | EFD_NONBLOCK);
    int fd = subscriber->fd;
    pthread_mutex_unlock(&subscriber->mutex);
    if (fd < 0)
        return perf__fail(PERF_EIO,
                          "no event descriptor could be had: %s; raise the limit of open files",
                          strerror(errno));
    *out = fd;
    return PERF_OK;
}

int64_t perf_redis_subscriber_id(perf_redis_subscriber *subscriber)
{
    return check(subscriber) ? 0 : atomic_load(&subscriber->id);
}
