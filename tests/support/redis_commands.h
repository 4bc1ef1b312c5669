/* SPDX-License-Identifier: MIT */
/*
 * redis_commands.h - commands and which of their words are keys, for the unit test of our table and
 * for the live one, which asks a server whether it agrees.
 */
#ifndef TESTS_REDIS_COMMANDS_H
#define TESTS_REDIS_COMMANDS_H

/* Words are parted by one blank; "" stands for an empty one. */
struct test_redis_command {
    const char *words, *keys;
};

static const struct test_redis_command test_redis_commands[] = {
    {"GET a", "a"},
    {"gEt a", "a"},
    {"SET a v EX 10", "a"},
    {"INCR a", "a"},
    {"HSET a f v g w", "a"},
    {"APPEND a v", "a"},
    {"MGET a b c", "a b c"},
    {"MSET a 1 b 2 c 3", "a b c"},
    {"MSETNX a 1 b 2", "a b"},
    {"DEL a b", "a b"},
    {"UNLINK a", "a"},
    {"EXISTS a a b", "a a b"},
    {"TOUCH a b", "a b"},
    {"RENAME a b", "a b"},
    {"COPY a b DB 1", "a b"},
    {"BITOP AND d a b", "d a b"},
    {"BLPOP a b 0", "a b"},
    {"BRPOPLPUSH a b 0", "a b"},
    {"BLMOVE a b LEFT RIGHT 0", "a b"},
    {"BZPOPMIN a b 0", "a b"},
    {"BLMPOP 0 2 a b LEFT", "a b"},
    {"LMPOP 2 a b LEFT COUNT 3", "a b"},
    {"ZMPOP 1 a MIN", "a"},
    {"BZMPOP 1 2 a b MAX", "a b"},
    {"EVAL text 2 a b c d", "a b"},
    {"EVAL_RO text 1 a b", "a"},
    {"EVALSHA sha 3 a b c", "a b c"},
    {"FCALL f 1 a b", "a"},
    {"SINTERCARD 2 a b LIMIT 1", "a b"},
    {"SUNIONSTORE d a b", "d a b"},
    {"ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"},
    {"ZINTERSTORE d 1 a AGGREGATE MAX", "d a"},
    {"ZDIFFSTORE d 2 a b", "d a b"},
    {"ZUNION 2 a b WITHSCORES", "a b"},
    {"ZINTERCARD 2 a b LIMIT 5", "a b"},
    {"ZRANGESTORE d a 0 -1", "d a"},
    {"GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m", "d a"},
    {"GEORADIUS a 1 2 3 m STORE d", "a d"},
    {"GEORADIUS a 1 2 3 m WITHDIST ASC", "a"},
    {"GEORADIUSBYMEMBER a m 3 m STOREDIST d", "a d"},
    {"SORT a BY store GET store LIMIT 0 5 STORE d", "a d"},
    {"SORT a", "a"},
    {"XADD a * f v", "a"},
    {"XREAD COUNT 2 STREAMS a b 0 0", "a b"},
    {"XREAD BLOCK 0 streams a $", "a"},
    {"XREADGROUP GROUP streams c STREAMS a b > >", "a b"},
    {"XGROUP CREATE a g $", "a"},
    {"XINFO STREAM a", "a"},
    {"OBJECT ENCODING a", "a"},
    {"MEMORY USAGE a", "a"},
    {"PFCOUNT a b", "a b"},
    {"PFMERGE d a b", "d a b"},
    {"LCS a b LEN", "a b"},
    {"SMOVE a b m", "a b"},
    {"WATCH a b", "a b"},
    {"MIGRATE host 6379 a 0 1000", "a"},
    {"MIGRATE host 6379 \"\" 0 1000 REPLACE KEYS a b", "a b"},
};

/* No keys, or not what the server's own form of the command is. */
static const char *const test_redis_keyless[] = {
    "PING",
    "ECHO a",
    "INFO",
    "CLUSTER SLOTS",
    "PUBLISH a message",
    "SCRIPT LOAD text",
    "SCAN 0",
    "KEYS *",
    "DBSIZE",
    "FLUSHALL",
    "WAIT 1 0",
    "EVAL text 0 a b",
    "CONFIG GET a",
    "SUBSCRIBE a",
};

#endif
