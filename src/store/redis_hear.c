/* SPDX-License-Identifier: MIT */
/*
 * redis_hear.c - hearing what others change in a Redis server.
 *
 * The server tells by itself (CLIENT TRACKING in broadcast mode): the connection of
 * our commands asks it to send the names of all keys under our prefix that somebody
 * else changes to a second connection, which listens. NOLOOP keeps our own changes out.
 * Marks are published. So are removals, for what was not there the server does not call
 * changed, and yet somebody may be loading it; with tracking=0 all changes are.
 *
 * We hear only while both connections are there and the first has been told about the
 * second; at anything else we are deaf, and when it is over everything may have changed. One
 * thread sees to it: it makes the first connection, introduces the two, and asks each second
 * whether the first still answers, for a connection that has died without a word would leave
 * us believing that nothing changes. (The second does the same by itself.)
 *
 * In a cluster each node would track for itself, so the writers publish there, and one connection
 * to any node hears them all. But nodes tell each other without being sure that it arrives:
 * perf_store_vtable.listen says so to the cache, which asks as well.
 *
 * Callbacks run on the client's I/O thread. The mutex is held while the listener is told,
 * so that it hears of deafness and its end in their order; get and apply do not take it.
 */
#include "redis_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"

enum {
    PING_MS = 1000, /* silence after which each connection is asked, and how long it may take */
    AGAIN_MS = 100  /* after an introduction that failed */
};

enum { MARKS, CHANGES, INVALIDATIONS }; /* channels */

static const char invalidations[] = "__redis__:invalidate";

/* --------------------------------------------------------------- deaf and heard */

static void fall_deaf(struct perf__redis_hearing *h)
{
    if (!h->deaf && h->listener)
        h->listener->heard(h->listener->ctx, 1);
    h->deaf = true;
}

static void hear_again(struct perf__redis_hearing *h)
{
    if (h->deaf && h->listener)
        h->listener->heard(h->listener->ctx, 0);
    h->deaf = false;
    pthread_cond_broadcast(&h->wake); /* perf__redis_listen waits, too */
}

/* Something was lost on the way, or everything has changed. */
static void skip_a_beat(struct perf__redis_hearing *h)
{
    if (h->deaf)
        return; /* it will be asked for anyway */
    fall_deaf(h);
    hear_again(h);
}

/* -------------------------------------------------------------------- callbacks */

void perf__redis_heed(void *store, perf_redis *redis, int event)
{
    struct redis_store *s = store;
    struct perf__redis_hearing *h = &s->hearing;
    (void)redis;
    pthread_mutex_lock(&h->mutex);
    h->up = event == PERF_REDIS_UP;
    h->connections++;
    if (s->place.tracks)
        fall_deaf(h); /* a new connection is not introduced yet */
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->mutex);
}

static bool is_channel(const struct perf__redis_hearing *h, int which, perf_bytes name)
{
    size_t len = strlen(h->channels[which]);
    return len && name.len == len && !memcmp(name.data, h->channels[which], len);
}

/* Takes the word up to the next space. */
static perf_bytes take_word(perf_bytes *text)
{
    const char *space = text->len ? memchr(text->data, ' ', text->len) : NULL;
    perf_bytes word = {text->data, space ? (size_t)(space - (const char *)text->data) : text->len};
    size_t taken = word.len + (space != NULL);
    *text = (perf_bytes){(const char *)text->data + taken, text->len - taken};
    return word;
}

static bool is_own(const struct redis_store *s, perf_bytes origin)
{
    return origin.len == PERF__REDIS_ORIGIN && !memcmp(origin.data, s->origin, origin.len);
}

static void take_mark(const struct redis_store *s, perf_bytes text)
{
    const perf_store_listener *listener = s->hearing.listener;
    perf_bytes origin = take_word(&text), stamp = take_word(&text), name;
    int64_t kind, stamp_ms;
    if (!is_own(s, origin) && perf__redis_number(stamp.data, stamp.len, &stamp_ms) &&
        perf__redis_mark_read(text.data, text.len, &kind, &name))
        listener->marked(listener->ctx, kind, name, stamp_ms);
}

static void take_change(struct redis_store *s, perf_bytes name)
{
    const perf_store_listener *listener = s->hearing.listener;
    perf_store_key key;
    if (perf__redis_name_read(s->place.prefix, name.data, name.len, &s->hearing.names, &key))
        listener->changed(listener->ctx, &key);
}

static void take_message(struct redis_store *s, const perf_redis_message *message)
{
    struct perf__redis_hearing *h = &s->hearing;
    perf_bytes data = message->data;
    if (is_channel(h, MARKS, message->channel)) {
        take_mark(s, data);
    } else if (is_channel(h, CHANGES, message->channel)) {
        if (!is_own(s, take_word(&data)))
            take_change(s, data);
    } else if (!is_channel(h, INVALIDATIONS, message->channel)) {
        return;
    } else if (data.data) {
        take_change(s, data);
    } else { /* FLUSHALL */
        pthread_mutex_lock(&h->mutex);
        skip_a_beat(h);
        pthread_mutex_unlock(&h->mutex);
    }
}

static void take_notice(struct redis_store *s, const perf_redis_message *message)
{
    struct perf__redis_hearing *h = &s->hearing;
    pthread_mutex_lock(&h->mutex);
    if (message->kind == PERF_REDIS_SUBSCRIBED) {
        for (int i = 0; i < PERF__REDIS_EARS; i++)
            if (is_channel(h, i, message->channel))
                h->subscribed |= 1u << i;
        if (h->subscribed == h->wanted && !s->place.tracks)
            hear_again(h);
    } else if (message->kind == PERF_REDIS_DISCONNECTED) {
        h->subscribed = 0;
        fall_deaf(h);
    } else if (h->subscribed == h->wanted) { /* GAP: a message that could not be had */
        skip_a_beat(h);
    }
    h->subscriptions++;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->mutex);
}

static void on_message(void *ctx, perf_redis_subscriber *subscriber,
                       const perf_redis_message *message)
{
    (void)subscriber;
    if (message->kind == PERF_REDIS_MESSAGE)
        take_message(ctx, message);
    else
        take_notice(ctx, message);
}

/* ------------------------------------------------------------------- the thread */

/* Tells the server to send what others change to the connection that listens. */
static int introduce(struct redis_store *s)
{
    char id[24], prefix[PERF__REDIS_PREFIX_MAX + 2];
    perf_redis_reply *replies[2];
    int64_t number = perf_redis_subscriber_id(s->hearing.subscriber);
    int id_len = snprintf(id, sizeof id, "%" PRId64, number);
    int prefix_len = snprintf(prefix, sizeof prefix, "%s:", s->place.prefix);
    const perf_bytes off[] = {{"CLIENT", 6}, {"TRACKING", 8}, {"OFF", 3}};
    const perf_bytes on[] = {{"CLIENT", 6},   {"TRACKING", 8},      {"ON", 2},
                             {"REDIRECT", 8}, {id, (size_t)id_len}, {"BCAST", 5},
                             {"NOLOOP", 6},   {"PREFIX", 6},        {prefix, (size_t)prefix_len}};
    const perf_redis_command commands[] = {{3, off}, {9, on}};
    if (!number)
        return PERF_EUNAVAILABLE;
    int rc = perf_redis_call_many(s->redis, 2, commands, PING_MS, replies);
    if (rc)
        return rc;
    rc = perf_redis_reply_status(replies[1]);
    if (rc)
        perf__fail(rc, "%.200s", perf_redis_reply_data(replies[1]));
    perf_redis_reply_release(replies[0]);
    perf_redis_reply_release(replies[1]);
    return rc;
}

/* One attempt; the mutex is given up meanwhile. */
static void try_to_hear(struct redis_store *s)
{
    struct perf__redis_hearing *h = &s->hearing;
    uint64_t connections = h->connections, subscriptions = h->subscriptions;
    pthread_mutex_unlock(&h->mutex);
    int rc = introduce(s);
    pthread_mutex_lock(&h->mutex);
    bool same = h->up && connections == h->connections && subscriptions == h->subscriptions;
    if (!rc && same) {
        h->refused = false;
        hear_again(h);
        return;
    }
    /* A subscriber that has just gone is refused, too, and no news. */
    if (rc && same && !h->refused && rc != PERF_ETIMEDOUT && rc != PERF_EIO &&
        !strstr(perf_last_error(), "does not exist")) {
        h->refused = h->tried = true;
        perf__log(s->host.log, PERF_LOG_WARNING, "cache",
                  "a redis tier cannot be told what other processes change: %.200s; give its "
                  "location tracking=0 if the server does not know or allow CLIENT TRACKING",
                  perf_last_error());
    }
}

/* Makes the first connection, and finds out whether it is dead. */
static void ping(struct redis_store *s)
{
    struct perf__redis_hearing *h = &s->hearing;
    uint64_t connections = h->connections;
    bool was_up = h->up;
    static const perf_bytes word = {"PING", 4};
    pthread_mutex_unlock(&h->mutex);
    int rc = perf_redis_call(s->redis, 1, &word, PING_MS, NULL);
    pthread_mutex_lock(&h->mutex);
    h->tried |= rc != PERF_OK;
    if (rc != PERF_ETIMEDOUT || !was_up || connections != h->connections || s->place.is_cluster)
        return; /* of several nodes one that is slow is no reason to leave the others */
    pthread_mutex_unlock(&h->mutex);
    (void)!perf_redis_reconnect(s->redis);
    pthread_mutex_lock(&h->mutex);
}

static void *run(void *store)
{
    struct redis_store *s = store;
    struct perf__redis_hearing *h = &s->hearing;
    pthread_mutex_lock(&h->mutex);
    while (!h->stops) {
        bool can_hear = h->up && h->subscribed == h->wanted;
        uint64_t news = h->connections + h->subscriptions;
        if (s->place.tracks && h->deaf && can_hear)
            try_to_hear(s);
        else
            ping(s);
        can_hear = s->place.tracks && h->deaf && h->up && h->subscribed == h->wanted;
        int64_t until = perf__deadline_after(can_hear ? AGAIN_MS : PING_MS);
        if (!h->stops && news == h->connections + h->subscriptions)
            perf__cond_wait(&h->wake, &h->mutex, until);
    }
    pthread_mutex_unlock(&h->mutex);
    return NULL;
}

/* ----------------------------------------------------------- beginning and end */

int perf__redis_hearing_init(struct redis_store *s)
{
    struct perf__redis_hearing *h = &s->hearing;
    h->deaf = true;
    return perf__locks_init(&h->mutex, &h->wake, "the locks of a redis tier");
}

/* So that what is read right after the opening is heard of; a server that is down is not waited
 * for. */
static void wait_to_hear(struct redis_store *s)
{
    struct perf__redis_hearing *h = &s->hearing;
    int64_t until = perf__deadline_after(s->timeout_ms);
    bool in_time = true;
    pthread_mutex_lock(&h->mutex);
    while (h->deaf && !h->tried && in_time)
        in_time = perf__cond_wait(&h->wake, &h->mutex, until);
    pthread_mutex_unlock(&h->mutex);
}

int perf__redis_listen(void *store, const perf_store_listener *listener)
{
    struct redis_store *s = store;
    struct perf__redis_hearing *h = &s->hearing;
    perf_redis_subscriber_options o = PERF_REDIS_SUBSCRIBER_OPTIONS_INIT;
    o.message = on_message;
    o.message_ctx = s;
    o.ping_ms = PING_MS;
    snprintf(h->channels[MARKS], sizeof h->channels[MARKS], "%s", s->marks);
    snprintf(h->channels[CHANGES], sizeof h->channels[CHANGES], "%s", s->changed);
    if (s->place.tracks)
        snprintf(h->channels[INVALIDATIONS], sizeof h->channels[INVALIDATIONS], "%s",
                 invalidations);
    int ears = s->place.tracks ? INVALIDATIONS + 1 : CHANGES + 1;
    h->wanted = (1u << ears) - 1;
    h->listener = listener;
    listener->heard(listener->ctx, 1);
    int rc = perf_redis_subscriber_open(s->redis, &o, &h->subscriber);
    for (int i = 0; i < ears && !rc; i++)
        rc = perf_redis_subscribe(h->subscriber, h->channels[i], strlen(h->channels[i]));
    if (rc)
        return rc;
    if (perf__thread_start(&h->thread, "perf-redis-hear", run, s))
        return perf__fail(PERF_EUNAVAILABLE, "no thread could be started to hear what others "
                                             "change in Redis; raise the limit of threads");
    h->running = true;
    wait_to_hear(s);
    return s->place.is_cluster ? PERF_MISS : PERF_OK;
}

void perf__redis_hearing_stop(struct redis_store *s)
{
    struct perf__redis_hearing *h = &s->hearing;
    if (h->running) {
        pthread_mutex_lock(&h->mutex);
        h->stops = true;
        pthread_cond_broadcast(&h->wake);
        pthread_mutex_unlock(&h->mutex);
        pthread_join(h->thread, NULL);
    }
    (void)!perf_redis_subscriber_close(h->subscriber);
}

void perf__redis_hearing_destroy(struct redis_store *s)
{
    pthread_cond_destroy(&s->hearing.wake);
    pthread_mutex_destroy(&s->hearing.mutex);
}
