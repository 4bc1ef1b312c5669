/* SPDX-License-Identifier: MIT */
/*
 * net_redis_slot_test.c - slots that a Redis 7.0 server gave for the same keys, and which words of
 * commands are keys.
 */
#include "../../src/net/redis_slot.h"

#include "redis_commands.h"
#include "test.h"

#include <stdint.h>

static int32_t slot_of(const char *key)
{
    return perf__redis_slot(key, strlen(key));
}

Test(redis_slot, as_the_server_computes_them)
{
    static const struct {
        const char *key;
        int32_t slot;
    } known[] = {
        {"123456789", 12739}, /* 0x31C3, the check value of CRC-16/XMODEM */
        {"foo", 12182},
        {"bar", 5061},
        {"hello", 866},
        {"a", 15495},
        {"", 0},
        {"{user1000}.following", 3443},
        {"{user1000}.followers", 3443},
        {"x{a}y{b}", 15495},
        {"foo{bar}{zap}", 5061},
        {"foo{{bar}}zap", 4015}, /* of "{bar" */
        {"foo{}{bar}", 8363},    /* an empty tag is none */
        {"{}", 15257},
        {"{", 4092},
        {"foo{bar", 15278},
        {"foo}bar{", 11073},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cr_assert_eq(slot_of(known[i].key), known[i].slot, "%s: %d", known[i].key,
                     (int)slot_of(known[i].key));
    cr_assert_eq(perf__redis_slot("a\0b\377", 4), 7390);
    cr_assert_eq(perf__redis_slot(NULL, 0), 0);
}

/* Bit by bit, as the definition says it. */
static uint16_t crc_of(const uint8_t *p, size_t len)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc ^= (uint16_t)(p[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

Test(redis_slot, every_pair_of_bytes)
{
    for (int i = 0; i < 65536; i++) {
        uint8_t key[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        cr_assert_eq(perf__redis_slot(key, 2), crc_of(key, 2) & 16383);
    }
}

enum { WORDS = 32 };

static size_t words_of(char *text, perf_bytes *argv)
{
    size_t argc = 0;
    char *rest = text;
    for (char *word; (word = strsep(&rest, " "));) {
        if (!strcmp(word, "\"\""))
            word = (char *)"";
        argv[argc++] = (perf_bytes){word, strlen(word)};
    }
    return argc;
}

static void keys_into(char *out, const perf_bytes *argv, size_t argc)
{
    struct perf__redis_keys keys = perf__redis_keys_of(argv, argc);
    char *end = out;
    *out = 0;
    if (keys.also[0])
        end += sprintf(end, "%s ", (const char *)argv[keys.also[0]].data);
    for (size_t i = keys.begin; i < keys.end; i += keys.step) {
        cr_assert_lt(i, argc);
        end += sprintf(end, "%s ", (const char *)argv[i].data);
    }
    if (keys.also[1])
        end += sprintf(end, "%s ", (const char *)argv[keys.also[1]].data);
    if (end > out)
        end[-1] = 0;
}

Test(redis_slot, keys_of_commands)
{
    for (size_t i = 0; i < sizeof test_redis_commands / sizeof *test_redis_commands; i++) {
        const struct test_redis_command *c = &test_redis_commands[i];
        char *text = strdup(c->words), found[200];
        perf_bytes argv[WORDS];
        size_t argc = words_of(text, argv);
        keys_into(found, argv, argc);
        cr_assert_str_eq(found, c->keys, "%s: %s", c->words, found);
        for (size_t shorter = 0; shorter < argc; shorter++) { /* nothing beyond what is there */
            keys_into(found, argv, shorter);
            perf__redis_place_of(argv, shorter);
        }
        free(text);
    }
}

static struct perf__redis_place place_of(const char *words)
{
    char *text = strdup(words);
    perf_bytes argv[WORDS];
    struct perf__redis_place place = perf__redis_place_of(argv, words_of(text, argv));
    free(text);
    return place;
}

Test(redis_slot, places)
{
    for (size_t i = 0; i < sizeof test_redis_keyless / sizeof *test_redis_keyless; i++)
        cr_assert_eq(place_of(test_redis_keyless[i]).slot, PERF__REDIS_ANY_NODE, "%s",
                     test_redis_keyless[i]);
    struct perf__redis_place r = place_of("GET a");
    cr_assert(r.slot == 15495 && r.reads && !r.spans && !r.split);
    r = place_of("set a v");
    cr_assert(r.slot == 15495 && !r.reads && !r.spans && !r.split);
    r = place_of("MGET a b");
    cr_assert(r.slot == 15495 && r.reads && r.spans && r.split == PERF__REDIS_SPLIT_GET);
    r = place_of("MGET a x{a}");
    cr_assert(!r.spans);
    r = place_of("MSET a 1 b 2");
    cr_assert(r.spans && !r.reads && r.split == PERF__REDIS_SPLIT_SET && r.step == 2);
    r = place_of("MSET a b c");
    cr_assert(r.slot == 15495 && !r.spans, "a node says that it is malformed");
    r = place_of("DEL a b");
    cr_assert(r.spans && r.split == PERF__REDIS_SPLIT_SUM && r.step == 1);
    r = place_of("RENAME a b");
    cr_assert(r.spans && !r.split);
    r = place_of("ZUNIONSTORE a 1 b");
    cr_assert(r.spans && r.slot == 15495);
    r = place_of("GEORADIUS a 1 2 3 m STORE b");
    cr_assert(r.spans);
    r = place_of("SPUBLISH a message"); /* the channel's slot, though the server calls it no key */
    cr_assert(r.slot == 15495 && !r.reads);
    r = place_of("JSON.SET a $ 1"); /* not known */
    cr_assert(r.slot == 15495 && !r.reads);
    cr_assert_eq(perf__redis_place_of(NULL, 0).slot, PERF__REDIS_ANY_NODE);
}

Test(redis_slot, counts_that_lie)
{
    static const char *const lies[] = {
        "EVAL text -1 a",
        "EVAL text 2 a",
        "EVAL text 99999999999999999999 a",
        "EVAL text 1x a",
        "EVAL text \"\" a",
        "EVAL text",
        "ZUNION 4294967297 a b",
        "ZUNIONSTORE",
        "XREAD STREAMS",
        "XREAD",
        "XREADGROUP STREAMS a",
        "MIGRATE host 6379 \"\" 0 1 KEYS",
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
        cr_assert_eq(place_of(lies[i]).slot, PERF__REDIS_ANY_NODE, "%s", lies[i]);
    cr_assert_eq(place_of("ZUNIONSTORE a 5 b").slot, PERF__REDIS_ANY_NODE);
}
