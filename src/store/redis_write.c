/* SPDX-License-Identifier: MIT */
/*
 * redis_write.c - changes of records in a Redis server, and their leases' end.
 *
 * How depends on who tells the other processes. With tracking the server does, and apply is
 * one transaction, sent in one write: MULTI, for each change what sets or unlinks the
 * record and ends its lease, EXEC. The trick: a leased set must be kept only while its lease is
 * held, which takes a script, but what a script writes comes back to its own author as a change by
 * others (CLIENT TRACKING's NOLOOP does not look through scripts). So the script only lays the
 * record down beside, and a RENAME behind it, which then finds it or nothing, is what changes
 * the record.
 *
 * Without tracking the writer publishes, and each change is one script that changes, ends
 * the lease and publishes: atomic also on a node of a cluster, where keys of several changes are on
 * several nodes, and never heard of before it is made. All are sent at once, a write for each
 * node. In a cluster a command may have to come again, so two changes of one key are not under way
 * together.
 *
 * Expiries are sent as a time from now, for the server's clock is another. Every script may be run
 * again: what it would do twice its lease forbids, or is the same. So a server that has forgotten
 * them is told once more. Any thread.
 */
#include "redis_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/bytes.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"

enum {
    RECORD_MAX = 32 << 20, /* half of what the client reads and writes at once */
    MARK_NAME_MAX = 4096,
    COMMANDS = 3, /* of one change, at most */
    WORDS = 16    /* of them all */
};

/* KEYS: where the record is laid down, lease. ARGV: token, record, milliseconds or "". */
static const char land_text[] = "if redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end "
                                "if ARGV[3]=='' then redis.call('SET',KEYS[1],ARGV[2]) "
                                "else redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) end "
                                "redis.call('UNLINK',KEYS[2]) return 1";

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

/* KEYS: record, lease. ARGV: token or "", record, milliseconds or "", channel, message. */
static const char set_text[] =
    "if ARGV[1]~='' and redis.call('GET',KEYS[2])~=ARGV[1] then return 0 end "
    "if ARGV[3]=='' then redis.call('SET',KEYS[1],ARGV[2]) "
    "else redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) end "
    "redis.call('UNLINK',KEYS[2]) redis.call('PUBLISH',ARGV[4],ARGV[5]) return 1";

/* KEYS: record, lease. ARGV: channel, message. */
static const char remove_text[] =
    "redis.call('UNLINK',KEYS[1],KEYS[2]) redis.call('PUBLISH',ARGV[1],ARGV[2]) return 1";

static const struct {
    const char *text;
    size_t len;
} texts[PERF__REDIS_WRITES] = {
    [PERF__REDIS_LAND] = {land_text, sizeof land_text - 1},
    [PERF__REDIS_MARK] = {mark_text, sizeof mark_text - 1},
    [PERF__REDIS_SET] = {set_text, sizeof set_text - 1},
    [PERF__REDIS_REMOVE] = {remove_text, sizeof remove_text - 1},
};

int perf__redis_write_init(struct redis_store *s)
{
    int rc = PERF_OK;
    for (size_t i = 0; i < PERF__REDIS_WRITES && !rc; i++)
        rc = perf_redis_script_new(s->host.allocator, texts[i].text, texts[i].len, &s->writes[i]);
    return rc;
}

void perf__redis_write_destroy(struct redis_store *s)
{
    for (size_t i = 0; i < PERF__REDIS_WRITES; i++)
        perf_redis_script_free(s->writes[i]);
}

/* ------------------------------------------------------------------- the plan */

/* Commands under construction. */
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
    add_word(p, perf__redis_text(name));
}

static void begin_script(struct plan *p, const struct redis_store *s, int which, const char *keys)
{
    begin_command(p, "EVALSHA");
    add_word(p, perf__redis_text(perf_redis_script_sha1(s->writes[which])));
    add_word(p, perf__redis_text(keys));
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
        return 4 * PERF__REDIS_NUMBER + op->mark_name.len;
    size_t name = prefix + 16 + perf__redis_name_size(s->place.prefix, &op->key);
    return 2 * PERF__REDIS_NUMBER + (op->lease ? 2 : 1) * name + PERF__REDIS_ORIGIN + 1 + name;
}

/* How long a record has to live, as a word; no data: for ever. */
static perf_bytes add_life(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    if (op->expire_ms <= 0)
        return (perf_bytes){NULL, 0};
    int64_t life = op->expire_ms - perf__realtime_ms(s->host.clock);
    return add_number(p, life < 1 ? 1 : life > PERF__REDIS_PX_MAX ? PERF__REDIS_PX_MAX : life);
}

static perf_bytes add_token(struct plan *p, const perf_store_op *op)
{
    char *token = p->at;
    p->at += sprintf(token, "%" PRIu64, op->lease);
    return (perf_bytes){token, (size_t)(p->at - token)};
}

static void plan_set(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    perf_bytes record;
    perf_bytes lease = add_name(p, s, "lease", &op->key, &record), life = add_life(p, s, op);
    if (op->lease) {
        perf_bytes same, beside = add_name(p, s, "load", &op->key, &same);
        perf_bytes token = add_token(p, op);
        begin_script(p, s, PERF__REDIS_LAND, "2");
        add_word(p, beside);
        add_word(p, lease);
        add_word(p, token);
        add_word(p, op->record);
        add_word(p, life.data ? life : perf__redis_text(""));
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
        add_word(p, perf__redis_text("PX"));
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
    begin_script(p, s, PERF__REDIS_MARK, "1");
    add_word(p, perf__redis_text(s->marks));
    add_word(p, perf__redis_text(s->origin));
    add_word(p, (perf_bytes){member, (size_t)(p->at - member)});
    add_word(p, add_number(p, op->mark_stamp_ms));
    add_word(p, add_number(p, perf__realtime_ms(s->host.clock) + PERF__REDIS_SKEW_MS));
    add_word(p, add_number(p, PERF__REDIS_MARKS_MAX));
    end_command(p);
}

/* What others are to be told of a change, and where: two words. */
static void add_message(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    char *message = p->at;
    p->at += sprintf(message, "%s ", s->origin);
    p->at = perf__redis_name_write(p->at, s->place.prefix, &op->key);
    add_word(p, perf__redis_text(s->changed));
    add_word(p, (perf_bytes){message, (size_t)(p->at - message)});
}

/* The whole change as one script. */
static void plan_published(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    perf_bytes record, lease = add_name(p, s, "lease", &op->key, &record);
    bool is_set = op->kind == PERF_STORE_SET;
    begin_script(p, s, is_set ? PERF__REDIS_SET : PERF__REDIS_REMOVE, "2");
    add_word(p, record);
    add_word(p, lease);
    if (is_set) {
        perf_bytes life = add_life(p, s, op);
        add_word(p, op->lease ? add_token(p, op) : perf__redis_text(""));
        add_word(p, op->record);
        add_word(p, life.data ? life : perf__redis_text(""));
    }
    add_message(p, s, op);
    end_command(p);
}

static void plan_op(struct plan *p, const struct redis_store *s, const perf_store_op *op)
{
    if (op->kind == PERF_STORE_MARK) {
        plan_mark(p, s, op);
    } else if (!s->place.tracks) {
        plan_published(p, s, op);
    } else if (op->kind == PERF_STORE_SET) {
        plan_set(p, s, op);
    } else {
        plan_remove(p, s, op);
        begin_command(p, "PUBLISH"); /* what was not there the server does not call changed */
        add_message(p, s, op);
        end_command(p);
    }
}

/* ---------------------------------------------------------------- transactions */

/* The error of a reply, if it is one. */
static int failed(const perf_redis_reply *reply)
{
    int rc = perf_redis_reply_status(reply);
    return rc ? perf__fail(rc, "%.200s", perf_redis_reply_data(reply)) : PERF_OK;
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
    static const int used[] = {PERF__REDIS_LAND, PERF__REDIS_MARK};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
        const perf_bytes argv[] = {
            {"SCRIPT", 6}, {"LOAD", 4}, {texts[used[i]].text, texts[used[i]].len}};
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
        rc = failed(replies[i]);
    for (size_t i = 0; i < p->count; i++)
        perf_redis_reply_release(replies[i]);
    perf__free(s->host.allocator, (void *)replies);
    return rc;
}

static int run_once(struct redis_store *s, const struct plan *p, int64_t timeout_ms)
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

static int run_transaction(struct redis_store *s, const struct plan *p, int64_t deadline_ns)
{
    int rc = run_once(s, p, perf__redis_left(deadline_ns));
    if (rc == PERF_EREMOTE &&
        perf_redis_error_kind(perf_last_error()) == PERF_REDIS_ERROR_NOSCRIPT &&
        !(rc = tell_scripts(s, perf__redis_left(deadline_ns))))
        rc = run_once(s, p, perf__redis_left(deadline_ns)); /* all, in order */
    return rc;
}

/* --------------------------------------------------------------------- scripts */

/* How many from the first on are certainly of different keys: ids are hashes. */
static size_t wave(const perf_store_op *ops, size_t count)
{
    uint8_t seen[8192] = {0};
    size_t n = 0;
    for (; n < count; n++) {
        if (ops[n].kind == PERF_STORE_MARK)
            continue; /* in any order */
        unsigned hash = perf__load32(ops[n].key.id) & 0xffff;
        if (seen[hash / 8] >> hash % 8 & 1)
            break;
        seen[hash / 8] |= (uint8_t)(1u << hash % 8);
    }
    return n;
}

/* The text in place of the SHA-1, for a node that does not know it. */
static void spell_out(const struct plan *p, const struct redis_store *s, perf_redis_command *c)
{
    perf_bytes *words = &p->words[c->argv - p->words];
    for (size_t i = 0; i < PERF__REDIS_WRITES; i++) {
        if (words[1].data == perf_redis_script_sha1(s->writes[i])) {
            words[0] = perf__redis_text("EVAL");
            words[1] = (perf_bytes){texts[i].text, texts[i].len};
            return;
        }
    }
}

/* Commands at once. *unknown: so many of the first are now those that a node did not know. */
static int run_some(struct redis_store *s, const struct plan *p, perf_redis_command *commands,
                    size_t count, size_t *unknown, int64_t deadline_ns)
{
    perf_redis_reply **replies = perf__calloc(s->host.allocator, count, sizeof *replies);
    if (!replies)
        return perf__fail_nomem("changes of Redis records");
    int rc =
        perf_redis_call_many(s->redis, count, commands, perf__redis_left(deadline_ns), replies);
    *unknown = 0;
    for (size_t i = 0; i < count; i++) {
        int one = rc ? PERF_OK : failed(replies[i]);
        if (one == PERF_EREMOTE &&
            perf_redis_error_kind(perf_redis_reply_data(replies[i])) == PERF_REDIS_ERROR_NOSCRIPT) {
            spell_out(p, s, &commands[i]);
            commands[(*unknown)++] = commands[i];
        } else if (one) {
            rc = one;
        }
        perf_redis_reply_release(replies[i]);
    }
    perf__free(s->host.allocator, (void *)replies);
    return rc;
}

static int run_scripts(struct redis_store *s, const struct plan *p, const perf_store_op *ops,
                       int64_t deadline_ns)
{
    int rc = PERF_OK;
    for (size_t from = 0, n; from < p->count && !rc; from += n) {
        size_t unknown, again;
        n = wave(ops + from, p->count - from);
        rc = run_some(s, p, p->commands + from, n, &unknown, deadline_ns);
        if (!rc && unknown)
            rc = run_some(s, p, p->commands + from, unknown, &again, deadline_ns);
    }
    return rc;
}

/* ----------------------------------------------------------------------- apply */

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

int perf__redis_apply(void *store, const perf_store_op *ops, size_t count)
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
    rc = s->place.tracks ? run_transaction(s, &p, deadline) : run_scripts(s, &p, ops, deadline);
out:
    perf__free(a, p.commands);
    perf__free(a, p.words);
    perf__free(a, p.text);
    return rc;
}
