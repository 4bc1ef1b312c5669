/* SPDX-License-Identifier: MIT */
/*
 * redis_store.c - records in a Redis server that other processes share.
 *
 * A get is one GET on the client's shared connection. Leases are made and ended by scripts;
 * changes are in redis_write.c. Any thread.
 */
#include "redis_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "registry.h"

enum {
    GROUP = 128, /* keys of one write to the server */
    PAGE = 1000  /* marks of one answer */
};

/* KEYS: lease. ARGV: milliseconds, token to renew or "". Microseconds since 1970 grow over expiry
 * and restart. */
static const char lease_text[] =
    "if ARGV[2]~='' then "
    "if redis.call('GET',KEYS[1])~=ARGV[2] then return false end "
    "redis.call('PEXPIRE',KEYS[1],ARGV[1]) return ARGV[2] end "
    "local t=redis.call('TIME') "
    "local token=t[1]..string.rep('0',6-#t[2])..t[2] "
    "if redis.call('SET',KEYS[1],token,'NX','PX',ARGV[1]) then return token end return false";

/* KEYS: lease. ARGV: token. */
static const char unlease_text[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('UNLINK',KEYS[1]) end return 0";

/* ----------------------------------------------------------------------- names */

/* A record's name, on the stack unless it is long. */
struct name {
    char room[512];
    char *text;
    size_t len;
};

/* With before and after around it, such as a lease's. */
static int make_name(const struct redis_store *s, const perf_store_key *key, bool is_lease,
                     struct name *name)
{
    const char *prefix = s->place.prefix;
    name->len = perf__redis_name_size(prefix, key) + (is_lease ? strlen(prefix) + 9 : 0);
    name->text = name->room;
    if (name->len + 1 > sizeof name->room &&
        !(name->text = perf__alloc(s->host.allocator, name->len + 1)))
        return perf__fail_nomem("the name of a Redis key");
    char *at = name->text;
    if (is_lease)
        at += sprintf(at, "%s.lease:{", prefix);
    at = perf__redis_name_write(at, prefix, key);
    if (is_lease)
        *at = '}';
    return PERF_OK;
}

static void free_name(const struct redis_store *s, struct name *name)
{
    if (name->text != name->room)
        perf__free(s->host.allocator, name->text);
}

/* ----------------------------------------------------------------------- reads */

/* What a server answered to GET. What can be no record is as good as a damaged one. */
static int give(const perf_redis_reply *got, perf_store_reply *reply)
{
    int64_t type = perf_redis_reply_type(got);
    if (type == PERF_REDIS_NIL)
        return PERF_MISS;
    if (type == PERF_REDIS_STRING)
        return perf_store_reply_set(reply, perf_redis_reply_data(got), perf_redis_reply_size(got));
    int rc = perf_redis_reply_status(got);
    if (!rc)
        return perf__fail(PERF_EPROTOCOL, "a Redis server answered GET with no string");
    if (perf_redis_error_kind(perf_redis_reply_data(got)) == PERF_REDIS_ERROR_WRONGTYPE)
        return perf_store_reply_set(reply, "", 0);
    return perf__fail(rc, "%.200s", perf_redis_reply_data(got));
}

static int get(struct redis_store *s, const perf_store_key *key, int64_t timeout_ms,
               perf_store_reply *reply)
{
    struct name name;
    perf_redis_reply *got = NULL;
    int rc = make_name(s, key, false, &name);
    if (rc)
        return rc;
    const perf_bytes argv[] = {{"GET", 3}, {name.text, name.len}};
    rc = perf_redis_call(s->redis, 2, argv, timeout_ms, &got);
    if (!rc)
        rc = give(got, reply);
    else if (rc == PERF_ETOOBIG ||
             (rc == PERF_EREMOTE &&
              perf_redis_error_kind(perf_last_error()) == PERF_REDIS_ERROR_WRONGTYPE))
        rc = perf_store_reply_set(reply, "", 0);
    perf_redis_reply_release(got);
    free_name(s, &name);
    return rc;
}

static int redis_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct redis_store *s = store;
    return get(s, key, s->timeout_ms, reply);
}

static int get_group(struct redis_store *s, const perf_store_key *keys, size_t count,
                     perf_store_reply *const *replies, int64_t deadline_ns)
{
    const char *prefix = s->place.prefix;
    perf_bytes argv[GROUP][2];
    perf_redis_command commands[GROUP];
    perf_redis_reply *got[GROUP];
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += perf__redis_name_size(prefix, &keys[i]);
    char *room = perf__alloc(s->host.allocator, size), *at = room;
    if (!room)
        return perf__fail_nomem("the names of Redis keys");
    for (size_t i = 0; i < count; i++) {
        char *end = perf__redis_name_write(at, prefix, &keys[i]);
        argv[i][0] = (perf_bytes){"GET", 3};
        argv[i][1] = (perf_bytes){at, (size_t)(end - at)};
        commands[i] = (perf_redis_command){2, argv[i]};
        at = end;
    }
    int rc = perf_redis_call_many(s->redis, count, commands, perf__redis_left(deadline_ns), got);
    perf__free(s->host.allocator, room);
    if (rc == PERF_ETOOBIG) { /* one of them: the others are had one by one */
        rc = PERF_OK;
        for (size_t i = 0; i < count && rc >= 0; i++)
            rc = get(s, &keys[i], perf__redis_left(deadline_ns), replies[i]);
        return rc < 0 ? rc : PERF_OK;
    }
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        int one = give(got[i], replies[i]);
        if (one < 0 && !rc)
            rc = one;
        perf_redis_reply_release(got[i]);
    }
    return rc;
}

static int redis_get_many(void *store, const perf_store_key *keys, size_t count,
                          perf_store_reply *const *replies)
{
    struct redis_store *s = store;
    int64_t deadline = perf__deadline_after(s->timeout_ms);
    int rc = PERF_OK;
    for (size_t i = 0; i < count && !rc; i += GROUP)
        rc = get_group(s, keys + i, count - i < GROUP ? count - i : GROUP, replies + i, deadline);
    return rc;
}

/* ----------------------------------------------------------------------- marks */

/* Members each with its score. */
static int take_pairs(const perf_redis_reply *pairs, perf_store_mark_fn each, void *ctx,
                      bool *enough)
{
    size_t count = perf_redis_reply_size(pairs);
    if (perf_redis_reply_type(pairs) != PERF_REDIS_ARRAY)
        return perf__fail(PERF_EPROTOCOL, "a Redis server answered with no list of marks");
    for (size_t i = 0; i + 1 < count && !*enough; i += 2) {
        const perf_redis_reply *member = perf_redis_reply_element(pairs, i);
        const perf_redis_reply *score = perf_redis_reply_element(pairs, i + 1);
        int64_t kind, stamp;
        perf_bytes name;
        if (perf__redis_mark_read(perf_redis_reply_data(member), perf_redis_reply_size(member),
                                  &kind, &name) &&
            perf__redis_number(perf_redis_reply_data(score), perf_redis_reply_size(score), &stamp))
            *enough = each(ctx, kind, name, stamp) != 0;
    }
    return PERF_OK;
}

/* One page of ZSCAN: a cursor, and such pairs. */
static int take_page(const perf_redis_reply *page, int64_t *cursor, perf_store_mark_fn each,
                     void *ctx, bool *enough)
{
    const perf_redis_reply *next = perf_redis_reply_element(page, 0);
    /* A cursor is a number of 64 bits; as text it is only handed back. */
    *cursor = (int64_t)strtoull(perf_redis_reply_data(next), NULL, 10);
    if (perf_redis_reply_type(next) != PERF_REDIS_STRING)
        return perf__fail(PERF_EPROTOCOL, "a Redis server answered ZSCAN with no page");
    return take_pairs(perf_redis_reply_element(page, 1), each, ctx, enough);
}

/* Those of since_ms or later. PERF_MISS: more than one answer should hold. */
static int young_marks(struct redis_store *s, int64_t since_ms, perf_store_mark_fn each, void *ctx,
                       int64_t deadline_ns)
{
    char since[PERF__REDIS_NUMBER];
    perf_redis_reply *got = NULL;
    bool enough = false;
    snprintf(since, sizeof since, "%" PRId64, since_ms);
    const perf_bytes argv[] = {perf__redis_text("ZRANGEBYSCORE"),
                               perf__redis_text(s->marks),
                               perf__redis_text(since),
                               perf__redis_text("+inf"),
                               perf__redis_text("WITHSCORES"),
                               perf__redis_text("LIMIT"),
                               perf__redis_text("0"),
                               perf__redis_text("1000")};
    int rc = perf_redis_call(s->redis, 8, argv, perf__redis_left(deadline_ns), &got);
    if (!rc)
        rc = perf_redis_reply_size(got) >= 2 * PAGE ? PERF_MISS
                                                    : take_pairs(got, each, ctx, &enough);
    perf_redis_reply_release(got);
    return rc;
}

static int redis_marks(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    enum { PAGES_MAX = 16 * PERF__REDIS_MARKS_MAX / PAGE };
    struct redis_store *s = store;
    int64_t deadline = perf__deadline_after(s->timeout_ms), cursor = 0;
    char birth[PERF__REDIS_NUMBER], at[PERF__REDIS_NUMBER];
    bool enough = false;
    snprintf(birth, sizeof birth, "%" PRId64,
             perf__realtime_ms(s->host.clock) + PERF__REDIS_SKEW_MS);
    /* Marks that are not there were lost: see libperf-redis(7). */
    const perf_bytes create[] = {
        {"ZADD", 4}, perf__redis_text(s->marks), {"NX", 2}, perf__redis_text(birth), {"1:", 2}};
    int rc = perf_redis_call(s->redis, 5, create, perf__redis_left(deadline), NULL);
    if (!rc && since_ms > 0 && (rc = young_marks(s, since_ms, each, ctx, deadline)) != PERF_MISS)
        return rc;
    rc = rc == PERF_MISS ? PERF_OK : rc;
    for (int page = 0; !rc && !enough && (!page || cursor); page++) {
        perf_redis_reply *got = NULL;
        if (page > PAGES_MAX)
            return perf__fail(PERF_EPROTOCOL, "%s on a Redis server does not end", s->marks);
        snprintf(at, sizeof at, "%" PRIu64, (uint64_t)cursor);
        const perf_bytes scan[] = {{"ZSCAN", 5},
                                   perf__redis_text(s->marks),
                                   perf__redis_text(at),
                                   {"COUNT", 5},
                                   {"1000", 4}};
        rc = perf_redis_call(s->redis, 5, scan, perf__redis_left(deadline), &got);
        if (!rc)
            rc = take_page(got, &cursor, each, ctx, &enough);
        perf_redis_reply_release(got);
    }
    return rc;
}

/* ---------------------------------------------------------------------- leases */

/* PERF_EBUSY of the client or server is no word about the lease. */
static int not_busy(int rc)
{
    return rc == PERF_EBUSY ? PERF_EUNAVAILABLE : rc;
}

/* What the script said. PERF_EBUSY: no. */
static int take_lease(const perf_redis_reply *got, uint64_t *token)
{
    int64_t number = 0;
    int rc = perf_redis_reply_status(got);
    if (rc)
        return perf__fail(not_busy(rc), "%.200s", perf_redis_reply_data(got));
    if (perf_redis_reply_type(got) == PERF_REDIS_NIL)
        return PERF_EBUSY;
    if (!perf__redis_number(perf_redis_reply_data(got), perf_redis_reply_size(got), &number))
        return perf__fail(PERF_EPROTOCOL, "a Redis server gave a lease that is no number");
    *token = (uint64_t)number;
    return PERF_OK;
}

/* The script's arguments for one key, in room that lives as long. */
struct lease_call {
    struct name name;
    char ttl[PERF__REDIS_NUMBER], token[PERF__REDIS_NUMBER];
    perf_bytes argv[6];
};

static int make_lease_call(const struct redis_store *s, const perf_store_key *key, int64_t ttl_ms,
                           uint64_t token, struct lease_call *c)
{
    int rc = make_name(s, key, true, &c->name);
    if (rc)
        return rc;
    int64_t px = ttl_ms < 1 ? 1 : ttl_ms > PERF__REDIS_PX_MAX ? PERF__REDIS_PX_MAX : ttl_ms;
    snprintf(c->ttl, sizeof c->ttl, "%" PRId64, px);
    c->token[0] = '\0';
    if (token)
        snprintf(c->token, sizeof c->token, "%" PRIu64, token);
    c->argv[0] = perf__redis_text("EVALSHA");
    c->argv[1] = perf__redis_text(perf_redis_script_sha1(s->lease));
    c->argv[2] = perf__redis_text("1");
    c->argv[3] = (perf_bytes){c->name.text, c->name.len};
    c->argv[4] = perf__redis_text(c->ttl);
    c->argv[5] = perf__redis_text(c->token);
    return PERF_OK;
}

static int lease(struct redis_store *s, const perf_store_key *key, int64_t ttl_ms, uint64_t *token,
                 int64_t timeout_ms)
{
    struct lease_call c;
    perf_redis_reply *got = NULL;
    int rc = make_lease_call(s, key, ttl_ms, *token, &c);
    if (rc)
        return rc;
    rc = not_busy(perf_redis_script_call(s->redis, s->lease, 1, 3, c.argv + 3, timeout_ms, &got));
    if (!rc)
        rc = take_lease(got, token);
    perf_redis_reply_release(got);
    free_name(s, &c.name);
    return rc;
}

static int redis_lease(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token)
{
    struct redis_store *s = store;
    return lease(s, key, ttl_ms, token, s->timeout_ms);
}

static int lease_group(struct redis_store *s, const perf_store_key *keys, size_t count,
                       int64_t ttl_ms, uint64_t *tokens, int64_t deadline_ns)
{
    perf_redis_command commands[GROUP];
    perf_redis_reply *got[GROUP] = {NULL};
    size_t made = 0;
    int rc = PERF_OK;
    struct lease_call *calls = perf__alloc(s->host.allocator, count * sizeof *calls);
    if (!calls)
        return perf__fail_nomem("leases of Redis keys");
    for (; made < count && !rc; made += !rc) {
        rc = make_lease_call(s, &keys[made], ttl_ms, tokens[made], &calls[made]);
        commands[made] = (perf_redis_command){6, calls[made].argv};
    }
    if (!rc)
        rc = not_busy(
            perf_redis_call_many(s->redis, count, commands, perf__redis_left(deadline_ns), got));
    for (size_t i = 0; i < count && !rc; i++) {
        int one = perf_redis_error_kind(perf_redis_reply_data(got[i])) == PERF_REDIS_ERROR_NOSCRIPT
                      ? lease(s, &keys[i], ttl_ms, &tokens[i], perf__redis_left(deadline_ns))
                      : take_lease(got[i], &tokens[i]);
        if (one == PERF_EBUSY)
            tokens[i] = 0;
        else
            rc = one;
    }
    for (size_t i = 0; i < made; i++) {
        perf_redis_reply_release(got[i]);
        free_name(s, &calls[i].name);
    }
    perf__free(s->host.allocator, calls);
    return rc;
}

static int redis_lease_many(void *store, const perf_store_key *keys, size_t count, int64_t ttl_ms,
                            uint64_t *tokens)
{
    struct redis_store *s = store;
    int64_t deadline = perf__deadline_after(s->timeout_ms);
    int rc = PERF_OK;
    for (size_t i = 0; i < count && !rc; i += GROUP)
        rc = lease_group(s, keys + i, count - i < GROUP ? count - i : GROUP, ttl_ms, tokens + i,
                         deadline);
    return rc;
}

static int redis_unlease(void *store, const perf_store_key *key, uint64_t token)
{
    struct redis_store *s = store;
    struct name name;
    char number[PERF__REDIS_NUMBER];
    int rc = make_name(s, key, true, &name);
    if (rc)
        return rc;
    int len = snprintf(number, sizeof number, "%" PRIu64, token);
    const perf_bytes argv[] = {{name.text, name.len}, {number, (size_t)len}};
    rc = not_busy(perf_redis_script_call(s->redis, s->unlease, 1, 2, argv, s->timeout_ms, NULL));
    free_name(s, &name);
    return rc;
}

/* ----------------------------------------------------------------- open, close */

static void redis_close(void *store)
{
    struct redis_store *s = store;
    perf__redis_hearing_stop(s);
    (void)!perf_redis_close(s->redis);
    perf__redis_hearing_destroy(s);
    perf__redis_write_destroy(s);
    perf_redis_script_free(s->lease);
    perf_redis_script_free(s->unlease);
    perf__free(s->host.allocator, s);
}

static int make_scripts(struct redis_store *s)
{
    const perf_allocator *a = s->host.allocator;
    int rc;
    if ((rc = perf_redis_script_new(a, lease_text, sizeof lease_text - 1, &s->lease)) ||
        (rc = perf_redis_script_new(a, unlease_text, sizeof unlease_text - 1, &s->unlease)))
        return rc;
    return perf__redis_write_init(s);
}

static int open_client(struct redis_store *s, const perf_store_config *config, const char *url)
{
    perf_redis_options o;
    int rc = perf__options_take("perf_redis_options", config->user_ctx, &o, sizeof o);
    if (rc)
        return rc;
    if (o.event)
        return perf__fail(PERF_EINVAL,
                          "perf_redis_options.event is set in the store_ctx of a redis "
                          "tier, which needs it for itself; leave it NULL");
    if (s->place.is_cluster)
        o.mode = PERF_REDIS_CLUSTER;
    s->place.is_cluster = o.mode == PERF_REDIS_CLUSTER;
    if (s->place.is_cluster && s->place.tracks && !s->place.may_choose)
        return perf__fail(PERF_EINVAL, "perf_tier_options.location of a redis tier has tracking=1, "
                                       "and a Redis Cluster tracks each node by itself; leave it "
                                       "out");
    s->place.tracks &= !s->place.is_cluster;
    if (o.read_replicas)
        return perf__fail(PERF_EINVAL,
                          "perf_redis_options.read_replicas is set in the store_ctx of a redis "
                          "tier, where replicas would bring back what was overwritten; leave it 0");
    o.url = url ? url : o.url;
    o.event = perf__redis_heed;
    o.event_ctx = s;
    o.host = &s->host;
    o.timeout_ms = s->timeout_ms;
    o.connect_timeout_ms = o.connect_timeout_ms ? o.connect_timeout_ms : s->timeout_ms;
    o.backoff_max_ms = o.backoff_max_ms ? o.backoff_max_ms : 1000;
    o.client_name = o.client_name ? o.client_name : "libperf-cache";
    o.fail_fast = 1; /* the cache goes on without */
    return perf_redis_open(&o, &s->redis);
}

static int redis_open(const perf_store_config *config, void **store)
{
    const perf_allocator *a = config->host->allocator;
    const char *location = config->location ? config->location : "";
    char *url = NULL;
    if (config->sync == PERF_SYNC_FULL)
        return perf__fail(PERF_EUNSUPPORTED, "a redis tier is as durable as its server is; leave "
                                             "perf_tier_options.sync at PERF_SYNC_NORMAL");
    if (!*location && !config->user_ctx && !(location = getenv("REDIS_ENDPOINT")))
        location = "";
    struct redis_store *s = perf__calloc(a, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a redis tier");
    s->host = *config->host;
    s->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : 1000;
    int rc = perf__redis_hearing_init(s);
    if (rc) {
        perf__free(a, s);
        return rc;
    }
    if ((rc = perf__redis_place_parse(a, location, config->user_ctx != NULL, &s->place, &url)) ||
        (rc = make_scripts(s)))
        goto out;
    struct perf__hash_key random = perf__hash_random_key();
    snprintf(s->origin, sizeof s->origin, "%016" PRIx64, random.k0);
    snprintf(s->marks, sizeof s->marks, "%s.marks", s->place.prefix);
    snprintf(s->changed, sizeof s->changed, "%s.changed", s->place.prefix);
    rc = open_client(s, config, url);
out:
    if (url)
        explicit_bzero(url, strlen(url)); /* it may hold a password */
    perf__free(a, url);
    if (rc)
        redis_close(s);
    else
        *store = s;
    return rc;
}

const perf_store_vtable perf__store_redis = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "redis",
    .capabilities = PERF_STORE_SHARED | PERF_STORE_PARTIAL | PERF_STORE_LEASES | PERF_STORE_REMOTE,
    .open = redis_open,
    .close = redis_close,
    .get = redis_get,
    .get_many = redis_get_many,
    .apply = perf__redis_apply,
    .marks = redis_marks,
    .listen = perf__redis_listen,
    .lease = redis_lease,
    .unlease = redis_unlease,
    .lease_many = redis_lease_many,
};
