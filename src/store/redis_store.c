/* SPDX-License-Identifier: MIT */
/*
 * redis_store.c - records in a Redis server that other processes share.
 *
 * A get is one GET on the client's shared connection. apply is one transaction, sent
 * in one write: MULTI, for each change what sets or unlinks the record and ends its
 * lease, EXEC. Expiries are sent as a time from now, for the server's clock is another.
 *
 * The trick: a leased set must be kept only while its lease is held, which takes a
 * script, but what a script writes comes back to its own author as a change by others
 * (CLIENT TRACKING's NOLOOP does not look through scripts). So the script only lays
 * the record down beside, and a RENAME behind it, which then finds it or nothing, is
 * what changes the record. Every script may be run again: what it would do twice its lease
 * forbids, or is the same. So a server that has forgotten them is told once more. Any thread.
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
    GROUP = 128,           /* keys of one write to the server */
    RECORD_MAX = 32 << 20, /* half of what the client reads and writes at once */
    MARKS_MAX = 16384,     /* as many as a cache keeps, see invalidate.c */
    MARK_NAME_MAX = 4096,
    PAGE = 1000,   /* marks of one answer */
    SKEW_MS = 100, /* of clocks, as the cache assumes */
    COMMANDS = 3,
    WORDS = 16, /* of one change, at most */
    NUMBER = 24
};

/* Longest expiry, some 35,000 years: the server adds its own time to it. */
static const int64_t max_px = (int64_t)1 << 50;

/* KEYS: where the record is laid down, lease. ARGV: token, record, milliseconds or "". */
static const char land_text[] = "if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end "
                                "if ARGV[3]=='' then redis.call('SET',KEYS[1],ARGV[2]) "
                                "else redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) end "
                                "redis.call('UNLINK',KEYS[2]) return 1";

/* KEYS: lease. ARGV: milliseconds. Microseconds since 1970 grow over expiry and restart. */
static const char lease_text[] =
    "local t=redis.call('TIME') "
    "local token=t[1]..string.rep('0',6-#t[2])..t[2] "
    "if redis.call('SET',KEYS[1],token,'NX','PX',ARGV[1]) then return token end return false";

/* KEYS: lease. ARGV: token. */
static const char unlease_text[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('UNLINK',KEYS[1]) end return 0";

/*
 * KEYS: marks, which are the channel, too. ARGV: origin, member, stamp, birth, most. See
 * libperf-redis(7) on the mark "1:" that is there from the birth of the set. It is published first,
 * which a server that is full does all the same.
 */
static const char mark_text[] = "local key,member,stamp=KEYS[1],ARGV[2],ARGV[3] "
                                "local had=redis.call('ZSCORE',key,member) "
                                "if had and tonumber(had)>=tonumber(stamp) then return 0 end "
                                "redis.call('PUBLISH',key,ARGV[1]..' '..stamp..' '..member) "
                                "redis.call('ZADD',key,'NX',ARGV[4],'1:') "
                                "redis.call('ZADD',key,stamp,member) "
                                "local count=redis.call('ZCARD',key) "
                                "if count>tonumber(ARGV[5]) then "
                                "local half=math.floor(count/2) "
                                "local old=redis.call('ZRANGE',key,half,half,'WITHSCORES')[2] "
                                "local all=tonumber(redis.call('ZSCORE',key,'1:')) "
                                "redis.call('ZREMRANGEBYSCORE',key,'-inf',old) "
                                "if all<=tonumber(old) then redis.call('ZADD',key,old,'1:') end "
                                "redis.call('PUBLISH',key,'- '..old..' 1:') end "
                                "return 1";

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

static perf_bytes text(const char *bytes)
{
    return (perf_bytes){bytes, strlen(bytes)};
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

/* Milliseconds that are left, 1 at least. */
static int64_t left_of(int64_t deadline_ns)
{
    int64_t left = (deadline_ns - perf__deadline_after(0)) / 1000000;
    return left > 1 ? left : 1;
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
    int rc = perf_redis_call_many(s->redis, count, commands, left_of(deadline_ns), got);
    perf__free(s->host.allocator, room);
    if (rc == PERF_ETOOBIG) { /* one of them: the others are had one by one */
        rc = PERF_OK;
        for (size_t i = 0; i < count && rc >= 0; i++)
            rc = get(s, &keys[i], left_of(deadline_ns), replies[i]);
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

/* ---------------------------------------------------------------------- writes */

/* A transaction under construction. */
struct plan {
    perf_redis_command *commands;
    perf_bytes *words; /* of all commands */
    char *text, *at;   /* names and numbers */
    size_t count, words_used;
    bool only_removes;
};

static void add_word(struct plan *p, perf_bytes word)
{
    p->words[p->words_used++] = word;
    p->commands[p->count].argc++;
}

static void begin_command(struct plan *p, const char *name)
{
    p->commands[p->count] = (perf_redis_command){0, p->words + p->words_used};
    add_word(p, text(name));
}

static void end_command(struct plan *p)
{
    p->count++;
}

static perf_bytes add_number(struct plan *p, int64_t number)
{
    char *from = p->at;
    p->at += sprintf(from, "%" PRId64, number);
    return (perf_bytes){from, (size_t)(p->at - from)};
}

static perf_bytes add_name(struct plan *p, const struct redis_store *s, const char *what,
                           const perf_store_key *key, perf_bytes *record)
{
    char *from = p->at;
    p->at += sprintf(from, "%s.%s:{", s->place.prefix, what);
    record->data = p->at;
    p->at = perf__redis_name_write(p->at, s->place.prefix, key);
    record->len = (size_t)(p->at - (const char *)record->data);
    *p->at++ = '}';
    return (perf_bytes){from, (size_t)(p->at - from)};
}

static size_t text_size(const struct redis_store *s, const perf_store_op *op)
{
    size_t prefix = strlen(s->place.prefix);
    if (op->kind == PERF_STORE_MARK)
        return 4 * NUMBER + op->mark_name.len;
    size_t name = prefix + 16 + perf__redis_name_size(s->place.prefix, &op->key);
    return 2 * NUMBER + (op->lease ? 2 : 1) * name + PERF__REDIS_ORIGIN + 1 + name;
}

/* How long a record has to live, as a word; no data: for ever. */
static perf_bytes add_life(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    if (op->expire_ms <= 0)
        return (perf_bytes){NULL, 0};
    int64_t life = op->expire_ms - perf__realtime_ms(s->host.clock);
    return add_number(p, life < 1 ? 1 : life > max_px ? max_px : life);
}

static void plan_set(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    perf_bytes record;
    perf_bytes lease = add_name(p, s, "lease", &op->key, &record), life = add_life(p, s, op);
    if (op->lease) {
        perf_bytes same, beside = add_name(p, s, "load", &op->key, &same);
        char *token = p->at;
        p->at += sprintf(token, "%" PRIu64, op->lease);
        begin_command(p, "EVALSHA");
        add_word(p, text(perf_redis_script_sha1(s->land)));
        add_word(p, text("2"));
        add_word(p, beside);
        add_word(p, lease);
        add_word(p, (perf_bytes){token, (size_t)(p->at - token)});
        add_word(p, op->record);
        add_word(p, life.data ? life : text(""));
        end_command(p);
        begin_command(p, "RENAME");
        add_word(p, beside);
        add_word(p, record);
        end_command(p);
        return;
    }
    begin_command(p, "UNLINK");
    add_word(p, lease);
    end_command(p);
    begin_command(p, "SET");
    add_word(p, record);
    add_word(p, op->record);
    if (life.data) {
        add_word(p, text("PX"));
        add_word(p, life);
    }
    end_command(p);
}

static void plan_remove(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    perf_bytes record, lease = add_name(p, s, "lease", &op->key, &record);
    begin_command(p, "UNLINK");
    add_word(p, lease);
    add_word(p, record);
    end_command(p);
}

static void plan_mark(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    char *member = p->at;
    p->at += sprintf(member, "%" PRId64 ":", op->mark_kind);
    if (op->mark_name.len)
        memcpy(p->at, op->mark_name.data, op->mark_name.len);
    p->at += op->mark_name.len;
    begin_command(p, "EVALSHA");
    add_word(p, text(perf_redis_script_sha1(s->mark)));
    add_word(p, text("1"));
    add_word(p, text(s->marks));
    add_word(p, text(s->origin));
    add_word(p, (perf_bytes){member, (size_t)(p->at - member)});
    add_word(p, add_number(p, op->mark_stamp_ms));
    add_word(p, add_number(p, perf__realtime_ms(s->host.clock) + SKEW_MS));
    add_word(p, add_number(p, MARKS_MAX));
    end_command(p);
}

/* For those who are not told by tracking: see redis_hear.c. */
static void plan_publish(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    char *message = p->at;
    p->at += sprintf(message, "%s ", s->origin);
    p->at = perf__redis_name_write(p->at, s->place.prefix, &op->key);
    begin_command(p, "PUBLISH");
    add_word(p, text(s->changed));
    add_word(p, (perf_bytes){message, (size_t)(p->at - message)});
    end_command(p);
}

static void plan_op(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    if (op->kind == PERF_STORE_SET)
        plan_set(p, s, op);
    else if (op->kind == PERF_STORE_REMOVE)
        plan_remove(p, s, op);
    else
        plan_mark(p, s, op);
    if (op->kind == PERF_STORE_REMOVE || (op->kind == PERF_STORE_SET && !s->place.tracks))
        plan_publish(p, s, op);
}

/* What the server refused first, if anything; not a RENAME that found nothing, for its lease was
 * over. */
static int look(const struct plan *p, const perf_redis_reply *replies)
{
    bool is_over = false;
    if (perf_redis_reply_size(replies) != p->count)
        return perf__fail(PERF_EPROTOCOL, "a Redis server answered %zu of %zu commands",
                          perf_redis_reply_size(replies), p->count);
    for (size_t i = 0; i < p->count; i++) {
        const perf_redis_reply *one = perf_redis_reply_element(replies, i);
        const char *name = p->commands[i].argv->data;
        int rc = perf_redis_reply_status(one);
        if (rc && !(is_over && !strcmp(name, "RENAME")))
            return perf__fail(rc, "%.200s", perf_redis_reply_data(one));
        is_over = !rc && !strcmp(name, "EVALSHA") && !perf_redis_reply_integer(one);
    }
    return PERF_OK;
}

static int tell_scripts(struct redis_store *s, int64_t timeout_ms)
{
    static const char *const texts[] = {land_text, mark_text};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const perf_bytes argv[] = {{"SCRIPT", 6}, {"LOAD", 4}, text(texts[i])};
        int rc = perf_redis_call(s->redis, 3, argv, timeout_ms, NULL);
        if (rc)
            return rc;
    }
    return PERF_OK;
}

/* Removals need no transaction, and in one a server that is full would refuse them. */
static int run_removals(struct redis_store *s, const struct plan *p, int64_t timeout_ms)
{
    perf_redis_reply **replies = perf__calloc(s->host.allocator, p->count, sizeof *replies);
    if (!replies)
        return perf__fail_nomem("removals of Redis records");
    int rc = perf_redis_call_many(s->redis, p->count, p->commands, timeout_ms, replies);
    for (size_t i = 0; !rc && i < p->count; i++)
        if ((rc = perf_redis_reply_status(replies[i])))
            perf__fail(rc, "%.200s", perf_redis_reply_data(replies[i]));
    for (size_t i = 0; i < p->count; i++)
        perf_redis_reply_release(replies[i]);
    perf__free(s->host.allocator, (void *)replies);
    return rc;
}

static int run_plan(struct redis_store *s, const struct plan *p, int64_t timeout_ms)
{
    perf_redis_reply *replies = NULL;
    int rc;
    if (p->count == 1) {
        rc = perf_redis_call(s->redis, p->commands->argc, p->commands->argv, timeout_ms, NULL);
    } else if (p->only_removes) {
        return run_removals(s, p, timeout_ms);
    } else {
        rc = perf_redis_transaction(s->redis, p->count, p->commands, timeout_ms, &replies);
        if (!rc)
            rc = look(p, replies);
    }
    perf_redis_reply_release(replies);
    return rc;
}

static int check_op(const perf_store_op *op)
{
    if (op->kind < PERF_STORE_SET || op->kind > PERF_STORE_MARK)
        return perf__fail(PERF_EINVAL,
                          "perf_store_op.kind is %" PRId64 "; give a PERF_STORE_ "
                          "operation",
                          op->kind);
    if (op->kind == PERF_STORE_SET && op->record.len > RECORD_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "a record of %zu bytes is more than the %d that a redis tier takes; set "
                          "max_value_bytes",
                          op->record.len, RECORD_MAX);
    if (op->kind != PERF_STORE_MARK)
        return PERF_OK;
    int rc =
        perf__check_range("perf_store_op.mark_stamp_ms", op->mark_stamp_ms, 0, (int64_t)1 << 53);
    if (!rc)
        rc = perf__check_range("perf_store_op.mark_kind", op->mark_kind, 0, (int64_t)1 << 53);
    return rc ? rc
              : perf__check_len("perf_store_op.mark_name", op->mark_name.len, 0, MARK_NAME_MAX);
}

static int redis_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct redis_store *s = store;
    const perf_allocator *a = s->host.allocator;
    int64_t deadline = perf__deadline_after(s->timeout_ms);
    struct plan p = {0};
    size_t size = 0;
    int rc = PERF_OK;
    for (size_t i = 0; i < count; i++) {
        if ((rc = check_op(&ops[i])))
            return rc;
        size += text_size(s, &ops[i]);
    }
    p.commands = perf__calloc(a, count * COMMANDS, sizeof *p.commands);
    p.words = perf__calloc(a, count * WORDS, sizeof *p.words);
    p.text = p.at = perf__alloc(a, size);
    if (!p.commands || !p.words || !p.text) {
        rc = perf__fail_nomem("changes of Redis records");
        goto out;
    }
    p.only_removes = true;
    for (size_t i = 0; i < count; i++) {
        plan_op(&p, s, &ops[i]);
        p.only_removes &= ops[i].kind == PERF_STORE_REMOVE;
    }
    rc = run_plan(s, &p, left_of(deadline));
    if (rc == PERF_EREMOTE &&
        perf_redis_error_kind(perf_last_error()) == PERF_REDIS_ERROR_NOSCRIPT &&
        !(rc = tell_scripts(s, left_of(deadline))))
        rc = run_plan(s, &p, left_of(deadline)); /* all, in order; publishes may be twice */
out:
    perf__free(a, p.commands);
    perf__free(a, p.words);
    perf__free(a, p.text);
    return rc;
}

/* ----------------------------------------------------------------------- marks */

/* One page of ZSCAN: a cursor, and members each with its score. */
static int take_page(const perf_redis_reply *page, int64_t *cursor, perf_store_mark_fn each,
                     void *ctx, bool *enough)
{
    const perf_redis_reply *next = perf_redis_reply_element(page, 0);
    const perf_redis_reply *pairs = perf_redis_reply_element(page, 1);
    size_t count = perf_redis_reply_size(pairs);
    /* A cursor is a number of 64 bits; as text it is only handed back. */
    *cursor = (int64_t)strtoull(perf_redis_reply_data(next), NULL, 10);
    if (perf_redis_reply_type(next) != PERF_REDIS_STRING ||
        perf_redis_reply_type(pairs) != PERF_REDIS_ARRAY)
        return perf__fail(PERF_EPROTOCOL, "a Redis server answered ZSCAN with no page");
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

static int redis_marks(void *store, perf_store_mark_fn each, void *ctx)
{
    enum { PAGES_MAX = 16 * MARKS_MAX / PAGE };
    struct redis_store *s = store;
    int64_t deadline = perf__deadline_after(s->timeout_ms), cursor = 0;
    char birth[NUMBER], at[NUMBER];
    bool enough = false;
    snprintf(birth, sizeof birth, "%" PRId64, perf__realtime_ms(s->host.clock) + SKEW_MS);
    /* Marks that are not there were lost: see libperf-redis(7). */
    const perf_bytes create[] = {{"ZADD", 4}, text(s->marks), {"NX", 2}, text(birth), {"1:", 2}};
    int rc = perf_redis_call(s->redis, 5, create, left_of(deadline), NULL);
    for (int page = 0; !rc && !enough && (!page || cursor); page++) {
        perf_redis_reply *got = NULL;
        if (page > PAGES_MAX)
            return perf__fail(PERF_EPROTOCOL, "%s on a Redis server does not end", s->marks);
        snprintf(at, sizeof at, "%" PRIu64, (uint64_t)cursor);
        const perf_bytes scan[] = {
            {"ZSCAN", 5}, text(s->marks), text(at), {"COUNT", 5}, {"1000", 4}};
        rc = perf_redis_call(s->redis, 5, scan, left_of(deadline), &got);
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

static int redis_lease(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token)
{
    struct redis_store *s = store;
    struct name name;
    char ttl[NUMBER];
    perf_redis_reply *got = NULL;
    int rc = make_name(s, key, true, &name);
    if (rc)
        return rc;
    int len = snprintf(ttl, sizeof ttl, "%" PRId64,
                       ttl_ms < 1        ? 1
                       : ttl_ms > max_px ? max_px
                                         : ttl_ms);
    const perf_bytes argv[] = {{name.text, name.len}, {ttl, (size_t)len}};
    rc = not_busy(perf_redis_script_call(s->redis, s->lease, 1, 2, argv, s->timeout_ms, &got));
    if (!rc && perf_redis_reply_type(got) == PERF_REDIS_NIL) {
        rc = PERF_EBUSY;
    } else if (!rc) {
        int64_t number = 0;
        if (!perf__redis_number(perf_redis_reply_data(got), perf_redis_reply_size(got), &number))
            rc = perf__fail(PERF_EPROTOCOL, "a Redis server gave a lease that is no number");
        *token = (uint64_t)number;
    }
    perf_redis_reply_release(got);
    free_name(s, &name);
    return rc;
}

static int redis_unlease(void *store, const perf_store_key *key, uint64_t token)
{
    struct redis_store *s = store;
    struct name name;
    char number[NUMBER];
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
    perf_redis_script_free(s->land);
    perf_redis_script_free(s->lease);
    perf_redis_script_free(s->unlease);
    perf_redis_script_free(s->mark);
    perf__free(s->host.allocator, s);
}

static int make_scripts(struct redis_store *s)
{
    const perf_allocator *a = s->host.allocator;
    int rc;
    if ((rc = perf_redis_script_new(a, land_text, sizeof land_text - 1, &s->land)) ||
        (rc = perf_redis_script_new(a, lease_text, sizeof lease_text - 1, &s->lease)) ||
        (rc = perf_redis_script_new(a, unlease_text, sizeof unlease_text - 1, &s->unlease)))
        return rc;
    return perf_redis_script_new(a, mark_text, sizeof mark_text - 1, &s->mark);
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
    .apply = redis_apply,
    .marks = redis_marks,
    .listen = perf__redis_listen,
    .lease = redis_lease,
    .unlease = redis_unlease,
};
