/* SPDX-License-Identifier: MIT */
/* redis_command.c - commands into bytes, and which commands may share a connection. Pure. */
#include <string.h>
#include <strings.h>

#include "../base/status.h"
#include "redis.h"

enum { ARGS_MAX = 1 << 20, BULK_MAX = 512 << 20 }; /* what the server itself accepts */

/* ------------------------------------------------------------------ encoding */

static size_t digits(uint64_t n)
{
    size_t count = 1;
    for (; n >= 10; n /= 10)
        count++;
    return count;
}

static char *put_number(char *at, char type, uint64_t n)
{
    *at++ = type;
    size_t count = digits(n);
    for (size_t i = count; i--; n /= 10)
        at[i] = (char)('0' + n % 10);
    at += count;
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

size_t perf__redis_encoded_size(size_t argc, const perf_bytes *argv)
{
    size_t size = 3 + digits(argc);
    for (size_t i = 0; i < argc; i++)
        size += 5 + digits(argv[i].len) + argv[i].len;
    return size;
}

char *perf__redis_encode(char *at, size_t argc, const perf_bytes *argv)
{
    at = put_number(at, '*', argc);
    for (size_t i = 0; i < argc; i++) {
        at = put_number(at, '$', argv[i].len);
        if (argv[i].len)
            memcpy(at, argv[i].data, argv[i].len);
        at += argv[i].len;
        *at++ = '\r';
        *at++ = '\n';
    }
    return at;
}

int perf__redis_check_command(size_t argc, const perf_bytes *argv)
{
    if (!argv || !argc || argc > ARGS_MAX)
        return perf__fail(PERF_EINVAL, "argc is %zu; give 1 to %d words, the first one a command",
                          argc, ARGS_MAX);
    for (size_t i = 0; i < argc; i++)
        if (argv[i].len > BULK_MAX || (argv[i].len && !argv[i].data))
            return perf__fail(PERF_EINVAL,
                              "argv[%zu] has %zu bytes%s; give up to 512 MiB, at an address", i,
                              argv[i].len, argv[i].data ? "" : " at NULL");
    if (!argv[0].len)
        return perf__fail(PERF_EINVAL, "argv[0] is empty; give the name of a command");
    return PERF_OK;
}

/* -------------------------------------------------------------------- kinds */

/* Commands that are not PLAIN, by length; a word of two is asked for its second. */
static const struct {
    const char *name, *second, *instead;
    int kind;
} odd[] = {
    {"AUTH", NULL, "perf_redis_options.user and password", PERF__REDIS_REFUSED},
    {"EXEC", NULL, "perf_redis_transaction", PERF__REDIS_REFUSED},
    {"QUIT", NULL, "perf_redis_close", PERF__REDIS_REFUSED},
    {"SYNC", NULL, "a replica", PERF__REDIS_REFUSED},
    {"WAIT", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BLPOP", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BRPOP", NULL, NULL, PERF__REDIS_BLOCKS},
    {"HELLO", NULL, "perf_redis_options; it speaks RESP2", PERF__REDIS_REFUSED},
    {"MULTI", NULL, "perf_redis_transaction", PERF__REDIS_REFUSED},
    {"PSYNC", NULL, "a replica", PERF__REDIS_REFUSED},
    {"RESET", NULL, "perf_redis_reconnect", PERF__REDIS_REFUSED},
    {"WATCH", NULL, "perf_redis_script_call", PERF__REDIS_REFUSED},
    {"XREAD", "BLOCK", NULL, PERF__REDIS_BLOCKS},
    {"BLMOVE", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BLMPOP", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BZMPOP", NULL, NULL, PERF__REDIS_BLOCKS},
    {"CLIENT", "REPLY", "calls without out", PERF__REDIS_REFUSED},
    {"SELECT", NULL, "perf_redis_options.db", PERF__REDIS_REFUSED},
    {"DISCARD", NULL, "perf_redis_transaction", PERF__REDIS_REFUSED},
    {"MONITOR", NULL, "a client of its own", PERF__REDIS_REFUSED},
    {"UNWATCH", NULL, "perf_redis_script_call", PERF__REDIS_REFUSED},
    {"WAITAOF", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BZPOPMAX", NULL, NULL, PERF__REDIS_BLOCKS},
    {"BZPOPMIN", NULL, NULL, PERF__REDIS_BLOCKS},
    {"SUBSCRIBE", NULL, "perf_redis_subscribe", PERF__REDIS_REFUSED},
    {"BRPOPLPUSH", NULL, NULL, PERF__REDIS_BLOCKS},
    {"PSUBSCRIBE", NULL, "perf_redis_psubscribe", PERF__REDIS_REFUSED},
    {"SSUBSCRIBE", NULL, "perf_redis_subscribe", PERF__REDIS_REFUSED},
    {"XREADGROUP", "BLOCK", NULL, PERF__REDIS_BLOCKS},
    {"UNSUBSCRIBE", NULL, "perf_redis_unsubscribe", PERF__REDIS_REFUSED},
    {"PUNSUBSCRIBE", NULL, "perf_redis_punsubscribe", PERF__REDIS_REFUSED},
    {"SUNSUBSCRIBE", NULL, "perf_redis_unsubscribe", PERF__REDIS_REFUSED},
};

static bool is(perf_bytes word, const char *name)
{
    return word.len == strlen(name) && !strncasecmp(word.data, name, word.len);
}

/* BLOCK stands among the options, which end with STREAMS; CLIENT's second word is its own. */
static bool has_word(size_t argc, const perf_bytes *argv, const char *name)
{
    bool streams = *name == 'B';
    for (size_t i = 1; i < argc && (streams || i == 1); i++) {
        if (is(argv[i], name))
            return true;
        if (streams && is(argv[i], "STREAMS"))
            return false;
    }
    return false;
}

int perf__redis_command_kind(size_t argc, const perf_bytes *argv)
{
    perf_bytes name = argv[0];
    if (name.len < 4 || name.len > 12) /* GET, SET, DEL, ... */
        return PERF__REDIS_PLAIN;
    const char *text = name.data;
    switch (text[0] & ~0x20) { /* the first letter rules most of the others out */
    case 'A':
    case 'B':
    case 'C':
    case 'D':
    case 'E':
    case 'H':
    case 'M':
    case 'P':
    case 'Q':
    case 'R':
    case 'S':
    case 'U':
    case 'W':
    case 'X':
        break;
    default:
        return PERF__REDIS_PLAIN;
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        if (((odd[i].name[0] ^ text[0]) & ~0x20) || !is(name, odd[i].name) ||
            (odd[i].second && !has_word(argc, argv, odd[i].second)))
            continue;
        if (odd[i].kind == PERF__REDIS_REFUSED)
            perf__fail(PERF_EINVAL,
                       "%s would change the connection that all threads share; use %s instead",
                       odd[i].name, odd[i].instead);
        return odd[i].kind;
    }
    return PERF__REDIS_PLAIN;
}
