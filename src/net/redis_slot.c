/* SPDX-License-Identifier: MIT */
/*
 * redis_slot.c - keys into slots, commands into keys. Any thread.
 *
 * What is malformed, such as a count of keys that is no number, has no keys here: any node then
 * says what is wrong with it.
 */
#include "redis_slot.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/*
 * CRC-16/XMODEM (polynomial 0x1021, from 0). The eight shifts of a byte, worked out once: the
 * polynomial has so few bits that they are cheaper than a table's cache line.
 */
static uint16_t crc16(const uint8_t *p, size_t len)
{
    uint32_t crc = 0;
    for (; len; len--, p++) {
        uint32_t x = (crc >> 8 ^ *p) & 0xff;
        x ^= x >> 4;
        crc = (crc << 8 ^ x << 12 ^ x << 5 ^ x) & 0xffff;
    }
    return (uint16_t)crc;
}

int32_t perf__redis_slot(const void *key, size_t len)
{
    const uint8_t *p = key;
    const uint8_t *open = len ? memchr(p, '{', len) : NULL;
    if (open) {
        const uint8_t *tag = open + 1;
        size_t left = len - (size_t)(tag - p);
        const uint8_t *shut = left ? memchr(tag, '}', left) : NULL;
        if (shut && shut > tag) { /* {} is no tag */
            p = tag;
            len = (size_t)(shut - tag);
        }
    }
    return crc16(p, len) & (PERF__REDIS_SLOTS - 1);
}

/* --------------------------------------------------------------------- commands */

enum shape {
    NONE,    /* no keys */
    RANGE,   /* first to last by step; a last below 0 counts from the end */
    COUNTED, /* argument `first` says how many follow; with `last` 1, argument 1 is one, too */
    STREAMS, /* the first half of what follows the word STREAMS, sought from `first` */
    STORE,   /* argument 1, and what follows the last STORE or STOREDIST, sought from `first` */
    MIGRATE, /* argument 3, or what follows the word KEYS */
};

struct command {
    char name[22];
    uint8_t shape;
    int8_t first, last, step;
    bool reads;
    uint8_t split;
};

/* Sorted by name. Those that have one key, their first argument, and change something are left
 * out. */
static const struct command commands[] = {
    {"acl", NONE, 0, 0, 0, false, 0},
    {"asking", NONE, 0, 0, 0, false, 0},
    {"auth", NONE, 0, 0, 0, false, 0},
    {"bgrewriteaof", NONE, 0, 0, 0, false, 0},
    {"bgsave", NONE, 0, 0, 0, false, 0},
    {"bitcount", RANGE, 1, 1, 1, true, 0},
    {"bitfield_ro", RANGE, 1, 1, 1, true, 0},
    {"bitop", RANGE, 2, -1, 1, false, 0},
    {"bitpos", RANGE, 1, 1, 1, true, 0},
    {"blmove", RANGE, 1, 2, 1, false, 0},
    {"blmpop", COUNTED, 2, 0, 1, false, 0},
    {"blpop", RANGE, 1, -2, 1, false, 0},
    {"brpop", RANGE, 1, -2, 1, false, 0},
    {"brpoplpush", RANGE, 1, 2, 1, false, 0},
    {"bzmpop", COUNTED, 2, 0, 1, false, 0},
    {"bzpopmax", RANGE, 1, -2, 1, false, 0},
    {"bzpopmin", RANGE, 1, -2, 1, false, 0},
    {"client", NONE, 0, 0, 0, false, 0},
    {"cluster", NONE, 0, 0, 0, false, 0},
    {"command", NONE, 0, 0, 0, false, 0},
    {"config", NONE, 0, 0, 0, false, 0},
    {"copy", RANGE, 1, 2, 1, false, 0},
    {"dbsize", NONE, 0, 0, 0, false, 0},
    {"debug", NONE, 0, 0, 0, false, 0},
    {"del", RANGE, 1, -1, 1, false, PERF__REDIS_SPLIT_SUM},
    {"discard", NONE, 0, 0, 0, false, 0},
    {"dump", RANGE, 1, 1, 1, true, 0},
    {"echo", NONE, 0, 0, 0, false, 0},
    {"eval", COUNTED, 2, 0, 1, false, 0},
    {"eval_ro", COUNTED, 2, 0, 1, true, 0},
    {"evalsha", COUNTED, 2, 0, 1, false, 0},
    {"evalsha_ro", COUNTED, 2, 0, 1, true, 0},
    {"exec", NONE, 0, 0, 0, false, 0},
    {"exists", RANGE, 1, -1, 1, true, PERF__REDIS_SPLIT_SUM},
    {"expiretime", RANGE, 1, 1, 1, true, 0},
    {"failover", NONE, 0, 0, 0, false, 0},
    {"fcall", COUNTED, 2, 0, 1, false, 0},
    {"fcall_ro", COUNTED, 2, 0, 1, true, 0},
    {"flushall", NONE, 0, 0, 0, false, 0},
    {"flushdb", NONE, 0, 0, 0, false, 0},
    {"function", NONE, 0, 0, 0, false, 0},
    {"geodist", RANGE, 1, 1, 1, true, 0},
    {"geohash", RANGE, 1, 1, 1, true, 0},
    {"geopos", RANGE, 1, 1, 1, true, 0},
    {"georadius", STORE, 6, 0, 1, false, 0},
    {"georadius_ro", RANGE, 1, 1, 1, true, 0},
    {"georadiusbymember", STORE, 5, 0, 1, false, 0},
    {"georadiusbymember_ro", RANGE, 1, 1, 1, true, 0},
    {"geosearch", RANGE, 1, 1, 1, true, 0},
    {"geosearchstore", RANGE, 1, 2, 1, false, 0},
    {"get", RANGE, 1, 1, 1, true, 0},
    {"getbit", RANGE, 1, 1, 1, true, 0},
    {"getrange", RANGE, 1, 1, 1, true, 0},
    {"hello", NONE, 0, 0, 0, false, 0},
    {"hexists", RANGE, 1, 1, 1, true, 0},
    {"hget", RANGE, 1, 1, 1, true, 0},
    {"hgetall", RANGE, 1, 1, 1, true, 0},
    {"hkeys", RANGE, 1, 1, 1, true, 0},
    {"hlen", RANGE, 1, 1, 1, true, 0},
    {"hmget", RANGE, 1, 1, 1, true, 0},
    {"hrandfield", RANGE, 1, 1, 1, true, 0},
    {"hscan", RANGE, 1, 1, 1, true, 0},
    {"hstrlen", RANGE, 1, 1, 1, true, 0},
    {"hvals", RANGE, 1, 1, 1, true, 0},
    {"info", NONE, 0, 0, 0, false, 0},
    {"keys", NONE, 0, 0, 0, false, 0},
    {"lastsave", NONE, 0, 0, 0, false, 0},
    {"latency", NONE, 0, 0, 0, false, 0},
    {"lcs", RANGE, 1, 2, 1, true, 0},
    {"lindex", RANGE, 1, 1, 1, true, 0},
    {"llen", RANGE, 1, 1, 1, true, 0},
    {"lmove", RANGE, 1, 2, 1, false, 0},
    {"lmpop", COUNTED, 1, 0, 1, false, 0},
    {"lolwut", NONE, 0, 0, 0, false, 0},
    {"lpos", RANGE, 1, 1, 1, true, 0},
    {"lrange", RANGE, 1, 1, 1, true, 0},
    {"memory", RANGE, 2, 2, 1, true, 0},
    {"mget", RANGE, 1, -1, 1, true, PERF__REDIS_SPLIT_GET},
    {"migrate", MIGRATE, 3, 0, 1, false, 0},
    {"module", NONE, 0, 0, 0, false, 0},
    {"monitor", NONE, 0, 0, 0, false, 0},
    {"mset", RANGE, 1, -1, 2, false, PERF__REDIS_SPLIT_SET},
    {"msetnx", RANGE, 1, -1, 2, false, 0},
    {"multi", NONE, 0, 0, 0, false, 0},
    {"object", RANGE, 2, 2, 1, true, 0},
    {"pexpiretime", RANGE, 1, 1, 1, true, 0},
    {"pfcount", RANGE, 1, -1, 1, true, 0},
    {"pfdebug", RANGE, 2, 2, 1, false, 0},
    {"pfmerge", RANGE, 1, -1, 1, false, 0},
    {"pfselftest", NONE, 0, 0, 0, false, 0},
    {"ping", NONE, 0, 0, 0, false, 0},
    {"psubscribe", NONE, 0, 0, 0, false, 0},
    {"psync", NONE, 0, 0, 0, false, 0},
    {"pttl", RANGE, 1, 1, 1, true, 0},
    {"publish", NONE, 0, 0, 0, false, 0},
    {"pubsub", NONE, 0, 0, 0, false, 0},
    {"punsubscribe", NONE, 0, 0, 0, false, 0},
    {"quit", NONE, 0, 0, 0, false, 0},
    {"randomkey", NONE, 0, 0, 0, false, 0},
    {"readonly", NONE, 0, 0, 0, false, 0},
    {"readwrite", NONE, 0, 0, 0, false, 0},
    {"rename", RANGE, 1, 2, 1, false, 0},
    {"renamenx", RANGE, 1, 2, 1, false, 0},
    {"replconf", NONE, 0, 0, 0, false, 0},
    {"replicaof", NONE, 0, 0, 0, false, 0},
    {"reset", NONE, 0, 0, 0, false, 0},
    {"role", NONE, 0, 0, 0, false, 0},
    {"rpoplpush", RANGE, 1, 2, 1, false, 0},
    {"save", NONE, 0, 0, 0, false, 0},
    {"scan", NONE, 0, 0, 0, false, 0},
    {"scard", RANGE, 1, 1, 1, true, 0},
    {"script", NONE, 0, 0, 0, false, 0},
    {"sdiff", RANGE, 1, -1, 1, true, 0},
    {"sdiffstore", RANGE, 1, -1, 1, false, 0},
    {"select", NONE, 0, 0, 0, false, 0},
    {"shutdown", NONE, 0, 0, 0, false, 0},
    {"sinter", RANGE, 1, -1, 1, true, 0},
    {"sintercard", COUNTED, 1, 0, 1, true, 0},
    {"sinterstore", RANGE, 1, -1, 1, false, 0},
    {"sismember", RANGE, 1, 1, 1, true, 0},
    {"slaveof", NONE, 0, 0, 0, false, 0},
    {"slowlog", NONE, 0, 0, 0, false, 0},
    {"smembers", RANGE, 1, 1, 1, true, 0},
    {"smismember", RANGE, 1, 1, 1, true, 0},
    {"smove", RANGE, 1, 2, 1, false, 0},
    {"sort", STORE, 2, 0, 1, false, 0},
    {"sort_ro", RANGE, 1, 1, 1, true, 0},
    {"srandmember", RANGE, 1, 1, 1, true, 0},
    {"sscan", RANGE, 1, 1, 1, true, 0},
    {"ssubscribe", RANGE, 1, -1, 1, false, 0},
    {"strlen", RANGE, 1, 1, 1, true, 0},
    {"subscribe", NONE, 0, 0, 0, false, 0},
    {"substr", RANGE, 1, 1, 1, true, 0},
    {"sunion", RANGE, 1, -1, 1, true, 0},
    {"sunionstore", RANGE, 1, -1, 1, false, 0},
    {"sunsubscribe", RANGE, 1, -1, 1, false, 0},
    {"swapdb", NONE, 0, 0, 0, false, 0},
    {"sync", NONE, 0, 0, 0, false, 0},
    {"time", NONE, 0, 0, 0, false, 0},
    {"touch", RANGE, 1, -1, 1, true, PERF__REDIS_SPLIT_SUM},
    {"ttl", RANGE, 1, 1, 1, true, 0},
    {"type", RANGE, 1, 1, 1, true, 0},
    {"unlink", RANGE, 1, -1, 1, false, PERF__REDIS_SPLIT_SUM},
    {"unsubscribe", NONE, 0, 0, 0, false, 0},
    {"unwatch", NONE, 0, 0, 0, false, 0},
    {"wait", NONE, 0, 0, 0, false, 0},
    {"waitaof", NONE, 0, 0, 0, false, 0},
    {"watch", RANGE, 1, -1, 1, false, 0},
    {"xgroup", RANGE, 2, 2, 1, false, 0},
    {"xinfo", RANGE, 2, 2, 1, true, 0},
    {"xlen", RANGE, 1, 1, 1, true, 0},
    {"xpending", RANGE, 1, 1, 1, true, 0},
    {"xrange", RANGE, 1, 1, 1, true, 0},
    {"xread", STREAMS, 1, 0, 1, true, 0},
    {"xreadgroup", STREAMS, 4, 0, 1, false, 0},
    {"xrevrange", RANGE, 1, 1, 1, true, 0},
    {"zcard", RANGE, 1, 1, 1, true, 0},
    {"zcount", RANGE, 1, 1, 1, true, 0},
    {"zdiff", COUNTED, 1, 0, 1, true, 0},
    {"zdiffstore", COUNTED, 2, 1, 1, false, 0},
    {"zinter", COUNTED, 1, 0, 1, true, 0},
    {"zintercard", COUNTED, 1, 0, 1, true, 0},
    {"zinterstore", COUNTED, 2, 1, 1, false, 0},
    {"zlexcount", RANGE, 1, 1, 1, true, 0},
    {"zmpop", COUNTED, 1, 0, 1, false, 0},
    {"zmscore", RANGE, 1, 1, 1, true, 0},
    {"zrandmember", RANGE, 1, 1, 1, true, 0},
    {"zrange", RANGE, 1, 1, 1, true, 0},
    {"zrangebylex", RANGE, 1, 1, 1, true, 0},
    {"zrangebyscore", RANGE, 1, 1, 1, true, 0},
    {"zrangestore", RANGE, 1, 2, 1, false, 0},
    {"zrank", RANGE, 1, 1, 1, true, 0},
    {"zrevrange", RANGE, 1, 1, 1, true, 0},
    {"zrevrangebylex", RANGE, 1, 1, 1, true, 0},
    {"zrevrangebyscore", RANGE, 1, 1, 1, true, 0},
    {"zrevrank", RANGE, 1, 1, 1, true, 0},
    {"zscan", RANGE, 1, 1, 1, true, 0},
    {"zscore", RANGE, 1, 1, 1, true, 0},
    {"zunion", COUNTED, 1, 0, 1, true, 0},
    {"zunionstore", COUNTED, 2, 1, 1, false, 0},
};

static const struct command common = {"", RANGE, 1, 1, 1, false, 0};

/* Names are ASCII; the host's locale has no say. */
static int compare_word(perf_bytes word, const char *lower)
{
    const uint8_t *p = word.data;
    for (size_t i = 0; i < word.len; i++) {
        int c = p[i] >= 'A' && p[i] <= 'Z' ? p[i] + ('a' - 'A') : p[i];
        int d = c - (uint8_t)lower[i];
        if (d || !lower[i])
            return d ? d : 1;
    }
    return lower[word.len] ? -1 : 0;
}

static bool is_word(perf_bytes word, const char *lower)
{
    return compare_word(word, lower) == 0;
}

static int compare_command(const void *key, const void *element)
{
    const perf_bytes *word = key;
    const struct command *c = element;
    return compare_word(*word, c->name);
}

static const struct command *find(const perf_bytes *argv, size_t argc)
{
    const struct command *c = NULL;
    if (argc)
        c = bsearch(&argv[0], commands, sizeof commands / sizeof *commands, sizeof *commands,
                    compare_command);
    return c ? c : &common;
}

/* A decimal number below 1,000,000,000, or -1. */
static int64_t number(perf_bytes text)
{
    const uint8_t *p = text.data;
    int64_t n = 0;
    if (text.len < 1 || text.len > 9)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        n = 10 * n + (p[i] - '0');
    }
    return n;
}

/* The argument behind the last STORE or STOREDIST, or 0. SORT's patterns may look like one. */
static size_t stored_at(const perf_bytes *argv, size_t argc, size_t from)
{
    size_t at = 0;
    for (size_t i = from; i + 1 < argc; i++) {
        if (is_word(argv[i], "store") || is_word(argv[i], "storedist"))
            at = ++i;
        else if (is_word(argv[i], "by") || is_word(argv[i], "get"))
            i++;
    }
    return at;
}

static size_t find_word(const perf_bytes *argv, size_t argc, size_t from, const char *word)
{
    size_t at = from;
    while (at < argc && !is_word(argv[at], word))
        at++;
    return at;
}

static struct perf__redis_keys keys_of(const struct command *c, const perf_bytes *argv, size_t argc)
{
    struct perf__redis_keys keys = {.step = 1};
    size_t first = (size_t)c->first, at;
    int64_t count;

    switch (c->shape) {
    case RANGE:
        keys.begin = first;
        keys.step = (size_t)c->step;
        keys.end = c->last < 0 ? argc + 1 - (size_t)-c->last : (size_t)c->last + 1;
        if (keys.end > argc)
            keys.end = argc;
        break;
    case COUNTED:
        count = first < argc ? number(argv[first]) : -1;
        if (count < 0 || (size_t)count > argc - first - 1)
            break;
        keys.begin = first + 1;
        keys.end = keys.begin + (size_t)count;
        keys.also[0] = (size_t)c->last;
        break;
    case STREAMS:
        at = find_word(argv, argc, first, "streams") + 1;
        if (at >= argc)
            break;
        keys.begin = at;
        keys.end = at + (argc - at) / 2;
        break;
    case STORE:
        keys.begin = 1;
        keys.end = argc < 2 ? argc : 2;
        keys.also[1] = stored_at(argv, argc, first);
        break;
    case MIGRATE:
        if (argc > 3 && argv[3].len) {
            keys.begin = 3;
            keys.end = 4;
        } else {
            keys.begin = find_word(argv, argc, 6, "keys") + 1;
            keys.end = argc;
        }
        break;
    default:
        break;
    }
    if (keys.begin > keys.end)
        keys.end = keys.begin;
    return keys;
}

struct perf__redis_keys perf__redis_keys_of(const perf_bytes *argv, size_t argc)
{
    return keys_of(find(argv, argc), argv, argc);
}

static void add(struct perf__redis_place *place, perf_bytes key)
{
    int32_t slot = perf__redis_slot(key.data, key.len);
    if (place->slot == PERF__REDIS_ANY_NODE)
        place->slot = slot;
    else if (slot != place->slot)
        place->spans = true;
}

struct perf__redis_place perf__redis_place_of(const perf_bytes *argv, size_t argc)
{
    const struct command *c = find(argv, argc);
    struct perf__redis_keys keys = keys_of(c, argv, argc);
    struct perf__redis_place place = {.slot = PERF__REDIS_ANY_NODE,
                                      .reads = c->reads,
                                      .split = c->split,
                                      .step = (uint8_t)c->step};
    if (c->split && (argc - 1) % place.step)
        keys.end = keys.begin + 1; /* a key without its value: the first one's node may say so */
    if (keys.also[0])
        add(&place, argv[keys.also[0]]);
    for (size_t i = keys.begin; i < keys.end && !place.spans; i += keys.step)
        add(&place, argv[i]);
    if (keys.also[1])
        add(&place, argv[keys.also[1]]);
    return place;
}
