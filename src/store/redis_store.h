/* SPDX-License-Identifier: MIT */
/*
 * redis_store.h - what the four files of the Redis backend share. Private to them.
 *
 * redis_names.c turns keys into names and back and reads the location, redis_hear.c
 * listens to what others change, redis_write.c writes, redis_store.c is the rest.
 * libperf-redis(7) says what lies on the server.
 */
#ifndef PERF_STORE_REDIS_STORE_H
#define PERF_STORE_REDIS_STORE_H

#include <libperf/backend/store.h>
#include <libperf/redis.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "../base/options.h"
#include "../base/sync.h"

enum {
    PERF__REDIS_PREFIX_MAX = 64,
    PERF__REDIS_NS_MAX = 255,
    PERF__REDIS_USER_MAX = 255,
    PERF__REDIS_KEY_MAX = 32767,
    PERF__REDIS_ORIGIN = 16,       /* hexadecimal digits that name one open store */
    PERF__REDIS_MARKS_MAX = 16384, /* as many as a cache keeps, see invalidate.c */
    PERF__REDIS_SKEW_MS = 100,     /* of clocks, as the cache assumes */
    PERF__REDIS_NUMBER = 24        /* digits */
};

/* Longest expiry, some 35,000 years: the server adds its own time to it. */
#define PERF__REDIS_PX_MAX ((int64_t)1 << 50)

static inline perf_bytes perf__redis_text(const char *bytes)
{
    return (perf_bytes){bytes, strlen(bytes)};
}

/* Milliseconds until a deadline, 1 at least. */
static inline int64_t perf__redis_left(int64_t deadline_ns)
{
    int64_t left = perf__deadline_left(deadline_ns);
    return left ? left : 1; /* 0 would be the client's own */
}

/* ---- redis_names.c: pure, any thread ---- */

/* What a location said besides where the server is. */
struct perf__redis_place {
    char prefix[PERF__REDIS_PREFIX_MAX + 1];
    bool tracks;     /* the server tells who listens; else the writers do */
    bool may_choose; /* tracks was not said */
    bool is_cluster;
};

/* Takes ours out of a location: *url receives the rest, malloced by the allocator, or NULL when it
 * names no server. PERF_EINVAL never quotes it. */
int perf__redis_place_parse(const perf_allocator *allocator, const char *location, bool has_server,
                            struct perf__redis_place *place, char **url);

/* The length of a record's name, and the name itself; returns the byte behind it. */
size_t perf__redis_name_size(const char *prefix, const perf_store_key *key);
char *perf__redis_name_write(char *at, const char *prefix, const perf_store_key *key);

/* Room for what a name is decoded into. */
struct perf__redis_names {
    char ns[PERF__REDIS_NS_MAX];
    char user[PERF__REDIS_USER_MAX];
    char key[PERF__REDIS_KEY_MAX];
};

/* The other way round, for hostile bytes: false unless perf__redis_name_write would write just
 * these. key's parts point into names. */
bool perf__redis_name_read(const char *prefix, const void *name, size_t len,
                           struct perf__redis_names *names, perf_store_key *key);

/* A mark as it is kept and published: the kind's digits, a colon, the name. False: foreign. */
bool perf__redis_mark_read(const void *member, size_t len, int64_t *kind, perf_bytes *name);

/* Decimal digits only, up to 2^53: what a score of a sorted set keeps exactly. */
bool perf__redis_number(const void *text, size_t len, int64_t *out);

/* ---- redis_hear.c ---- */

enum { PERF__REDIS_EARS = 3 }; /* channels listened to, at most */

/* What it takes to hear. All under the mutex, but for the thread and names. */
struct perf__redis_hearing {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t thread;
    bool ready, running, stops;
    const perf_store_listener *listener; /* NULL: nobody listens */
    perf_redis_subscriber *subscriber;
    unsigned subscribed;    /* a bit for each channel that the server has agreed to */
    unsigned wanted;        /* all of them */
    bool tried;             /* it is known whether there is anything to hear at present */
    uint64_t subscriptions; /* how often that began or ended */
    bool up;                /* the connection of the commands */
    uint64_t connections;   /* how often it came or went */
    bool deaf;              /* what the listener was told last */
    bool refused;           /* the log knows */
    char channels[PERF__REDIS_EARS][PERF__REDIS_PREFIX_MAX + 24];
    struct perf__redis_names names; /* I/O thread only */
};

/* Scripts that change records and marks. */
enum {
    PERF__REDIS_LAND,
    PERF__REDIS_MARK,
    PERF__REDIS_SET,
    PERF__REDIS_REMOVE,
    PERF__REDIS_WRITES
};

struct redis_store {
    perf_host host;
    perf_redis *redis;
    int64_t timeout_ms;
    struct perf__redis_place place;
    char origin[PERF__REDIS_ORIGIN + 1];
    char marks[PERF__REDIS_PREFIX_MAX + 8];    /* the key, and the channel */
    char changed[PERF__REDIS_PREFIX_MAX + 10]; /* the channel */
    perf_redis_script *lease, *unlease, *writes[PERF__REDIS_WRITES];
    struct perf__redis_hearing hearing;
};

/* ---- redis_write.c ---- */

int perf__redis_write_init(struct redis_store *store);
void perf__redis_write_destroy(struct redis_store *store);
int perf__redis_apply(void *store, const perf_store_op *ops, size_t count);

/* ---- redis_hear.c ---- */

int perf__redis_hearing_init(struct redis_store *store);
int perf__redis_listen(void *store, const perf_store_listener *listener);
/* perf_redis_options.event */
void perf__redis_heed(void *store, perf_redis *redis, int event);
/* Before the client is closed: ends the thread and the subscriber. */
void perf__redis_hearing_stop(struct redis_store *store);
/* After it. */
void perf__redis_hearing_destroy(struct redis_store *store);

#endif
