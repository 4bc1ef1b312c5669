/* SPDX-License-Identifier: MIT */
/*
 * net_redis_parse_test.c - replies from bytes, cut at every place; bounds; garbage; memory that
 * fails.
 */
#include <libperf/redis.h>

#include "../../src/base/alloc.h"
#include "../../src/net/redis_reply.h"
#include "../../src/net/redis_link.h"
#include "seams.h"
#include "test.h"

/* Parses text in pieces of at most `piece` bytes, as a reader does; the status of the last reply,
 * or what the parser said. */
static int parse(const struct perf_allocator *a, const char *text, size_t len, size_t piece,
                 uint64_t max, perf_redis_reply **out)
{
    struct perf__redis_parser p;
    perf_redis_reply *none = NULL, *reply = NULL;
    const char *at = text;
    int rc = 0;
    size_t given = 0;
    perf__redis_parser_init(&p, a, max);
    *out = NULL;
    while (!rc && given < len) {
        given = given + piece < len ? given + piece : len;
        /* A copy that ends there, so that a sanitizer sees one byte more. */
        size_t have = given - (size_t)(at - text);
        char *copy = malloc(have ? have : 1);
        memcpy(copy, at, have);
        const char *from = copy;
        rc = perf__redis_parse(&p, &from, copy + have, &none, &reply);
        at += from - copy;
        free(copy);
    }
    int status = rc == 1 ? p.status : rc ? rc : PERF_MISS;
    if (rc == 1 && !p.status)
        *out = reply;
    if (rc == 1)
        cr_assert_eq((size_t)(at - text), len, "it must end at its end: %zu of %zu",
                     (size_t)(at - text), len);
    perf__redis_parser_free(&p);
    return status;
}

static perf_redis_reply *whole(const char *text, size_t len)
{
    perf_redis_reply *reply = NULL;
    for (size_t piece = 1; piece <= len; piece++) {
        perf_redis_reply_release(reply);
        int rc = parse(&perf__default_allocator, text, len, piece, 1 << 20, &reply);
        cr_assert_eq(rc, PERF_OK, "%s in pieces of %zu: %d", text, piece, rc);
    }
    return reply;
}

#define WHOLE(text) whole(text, sizeof(text) - 1)

Test(net_redis_parse, simple_types)
{
    perf_redis_reply *r = WHOLE("+OK\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_STATUS);
    cr_assert_str_eq(perf_redis_reply_data(r), "OK");
    cr_assert_eq(perf_redis_reply_size(r), 2);
    cr_assert_eq(perf_redis_reply_status(r), PERF_OK);
    perf_redis_reply_release(r);

    r = WHOLE("-WRONGTYPE Operation\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_ERROR);
    cr_assert_eq(perf_redis_reply_status(r), PERF_EREMOTE);
    cr_assert_eq(perf_redis_error_kind(perf_redis_reply_data(r)), PERF_REDIS_ERROR_WRONGTYPE);
    perf_redis_reply_release(r);

    r = WHOLE(":-9223372036854775808\r\n");
    cr_assert_eq(perf_redis_reply_integer(r), INT64_MIN);
    cr_assert_eq(perf_redis_reply_size(r), 0);
    perf_redis_reply_release(r);

    r = WHOLE("$-1\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_NIL);
    cr_assert_str_eq(perf_redis_reply_data(r), "");
    perf_redis_reply_release(r);

    r = WHOLE("$0\r\n\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_STRING);
    cr_assert_eq(perf_redis_reply_size(r), 0);
    perf_redis_reply_release(r);

    r = WHOLE("$7\r\na\0b\r\nc\n\r\n");
    cr_assert_eq(perf_redis_reply_size(r), 7);
    cr_assert_arr_eq(perf_redis_reply_data(r), "a\0b\r\nc\n", 8);
    perf_redis_reply_release(r);

    r = WHOLE("*-1\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_NIL);
    perf_redis_reply_release(r);
    r = WHOLE("*0\r\n");
    cr_assert_eq(perf_redis_reply_type(r), PERF_REDIS_ARRAY);
    cr_assert_null(perf_redis_reply_element(r, 0));
    perf_redis_reply_release(r);
}

Test(net_redis_parse, arrays)
{
    perf_redis_reply *r =
        WHOLE("*5\r\n$1\r\na\r\n:7\r\n*2\r\n+QUEUED\r\n*1\r\n$-1\r\n-ERR no\r\n*0\r\n");
    cr_assert_eq(perf_redis_reply_size(r), 5);
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(r, 0)), "a");
    cr_assert_eq(perf_redis_reply_integer(perf_redis_reply_element(r, 1)), 7);
    const perf_redis_reply *inner = perf_redis_reply_element(r, 2);
    cr_assert_eq(perf_redis_reply_type(inner), PERF_REDIS_ARRAY);
    cr_assert_eq(perf_redis_reply_type(perf_redis_reply_element(inner, 0)), PERF_REDIS_STATUS);
    inner = perf_redis_reply_element(inner, 1);
    cr_assert_eq(perf_redis_reply_size(inner), 1);
    cr_assert_eq(perf_redis_reply_type(perf_redis_reply_element(inner, 0)), PERF_REDIS_NIL);
    cr_assert_eq(perf_redis_reply_status(perf_redis_reply_element(r, 3)), PERF_EREMOTE);
    cr_assert_eq(perf_redis_reply_type(perf_redis_reply_element(r, 4)), PERF_REDIS_ARRAY);
    cr_assert_null(perf_redis_reply_element(r, 5));
    /* An element is no reply of its own. */
    perf_redis_reply_release((perf_redis_reply *)perf_redis_reply_element(r, 0));
    perf_redis_reply_release(r);
    perf_redis_reply_release(NULL);
    cr_assert_eq(perf_redis_reply_type(NULL), PERF_REDIS_NIL);
    cr_assert_eq(perf_redis_reply_status(NULL), PERF_OK);
    cr_assert_null(perf_redis_reply_element(NULL, 0));
}

Test(net_redis_parse, one_reply_after_the_other)
{
    static const char text[] = "*2\r\n:1\r\n:2\r\n+A\r\n*1\r\n$3\r\nabc\r\n$200\r\n";
    struct perf__redis_parser p;
    perf_redis_reply *spare = NULL, *r;
    const char *at = text, *end = text + sizeof text - 1;
    perf__redis_parser_init(&p, &perf__default_allocator, 1 << 20);
    for (int i = 0; i < 3; i++) {
        spare = perf__redis_reply_new(&perf__default_allocator);
        perf_redis_reply *mine = spare;
        cr_assert_eq(perf__redis_parse(&p, &at, end, &spare, &r), 1);
        cr_assert_null(spare);
        cr_assert_eq(r, mine, "the spare one is used");
        perf_redis_reply_release(r);
    }
    cr_assert_eq(perf__redis_parse(&p, &at, end, &spare, &r), 0);
    cr_assert_eq(at, end);
    perf__redis_parser_reset(&p); /* another connection */
    at = text;
    cr_assert_eq(perf__redis_parse(&p, &at, end, &spare, &r), 1);
    cr_assert_eq(perf_redis_reply_size(r), 2);
    perf_redis_reply_release(r);
    perf__redis_parser_free(&p);
}

Test(net_redis_parse, large_strings)
{
    enum { BIG = 700000 };
    char *text = malloc(BIG + 100);
    size_t head = (size_t)sprintf(text, "$%d\r\n", BIG), len = head + BIG + 2;
    memset(text + head, 'x', BIG);
    memcpy(text + head + BIG, "\r\n", 2);
    static const size_t pieces[] = {1000, 65536, BIG, BIG + 50};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        perf_redis_reply *r;
        cr_assert_eq(parse(&perf__default_allocator, text, len, pieces[i], BIG, &r), PERF_OK);
        cr_assert_eq(perf_redis_reply_size(r), BIG);
        cr_assert_eq(strlen(perf_redis_reply_data(r)), BIG);
        perf_redis_reply_release(r);
        /* One byte too many: skipped to its end. */
        cr_assert_eq(parse(&perf__default_allocator, text, len, pieces[i], BIG - 1, &r),
                     PERF_ETOOBIG);
    }
    free(text);
}

Test(net_redis_parse, arrays_that_are_too_large_are_skipped)
{
    perf_redis_reply *r;
    char text[8000];
    size_t len = (size_t)sprintf(text, "*200\r\n");
    for (int i = 0; i < 200; i++)
        len += (size_t)sprintf(text + len, "*2\r\n:%d\r\n$5\r\nhello\r\n", i);
    for (size_t piece = 1; piece < 300; piece += 7) {
        cr_assert_eq(parse(&perf__default_allocator, text, len, piece, 1 << 20, &r), PERF_OK);
        perf_redis_reply_release(r);
        cr_assert_eq(parse(&perf__default_allocator, text, len, piece, 10000, &r), PERF_ETOOBIG);
    }
    /* What is only promised is not allocated. */
    static const char promise[] = "*2000000000\r\n*2000000000\r\n$2000000000\r\n";
    struct test_host th;
    test_host_init(&th);
    cr_assert_eq(parse(&th.allocator, promise, sizeof promise - 1, 5, 1 << 20, &r), PERF_MISS);
    cr_assert_eq(atomic_load(&th.live), 0);
    static const char bulk[] = "$1000000\r\nabc";
    cr_assert_eq(parse(&th.allocator, bulk, sizeof bulk - 1, 5, 1 << 20, &r), PERF_MISS);
    cr_assert_eq(atomic_load(&th.live), 0);
}

Test(net_redis_parse, garbage)
{
    static const char *const bad[] = {
        "HTTP/1.1 400 Bad Request\r\n",
        "\r\n",
        "+OK\n",
        "$abc\r\n",
        "$-2\r\n",
        ":\r\n",
        ":1x\r\n",
        ":92233720368547758080\r\n",
        "$3\r\nabcde\r\n",
        "*-2\r\n",
        "*1\r\n!x\r\n",
        "*1\r\n$3\r\nabcd\r\n",
        "*1\r\n:x\r\n",
        "*99999999999\r\n",
        "*1\r\n$99999999999\r\n",
        "$\r\n",
        "*\r\n",
        "%1\r\n+a\r\n+b\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t piece = 1; piece < 40; piece += 3) {
            perf_redis_reply *r;
            int rc = parse(&perf__default_allocator, bad[i], strlen(bad[i]), piece, 1 << 20, &r);
            cr_assert_eq(rc, PERF_EPROTOCOL, "%s: %d", bad[i], rc);
            cr_assert_null(r);
        }
    /* A line without an end is not waited for. */
    char *line = malloc(PERF__REDIS_LINE_MAX + 10);
    perf_redis_reply *r;
    memset(line, '+', PERF__REDIS_LINE_MAX + 10);
    cr_assert_eq(
        parse(&perf__default_allocator, line, PERF__REDIS_LINE_MAX + 10, 50000, 1 << 20, &r),
        PERF_EPROTOCOL);
    free(line);
}

Test(net_redis_parse, memory_that_fails)
{
    static const char text[] = "*3\r\n$1\r\na\r\n*2\r\n+B\r\n:3\r\n$5\r\nhello\r\n";
    char big[2000];
    size_t len = (size_t)sprintf(big, "$1000\r\n");
    memset(big + len, 'x', 1000);
    memcpy(big + len + 1000, "\r\n", 2);
    len += 1002;
    for (int at = 1; at < 6; at++) {
        struct test_host th;
        perf_redis_reply *r;
        test_host_init(&th);
        atomic_store(&th.fail_at, at);
        int rc = parse(&th.allocator, text, sizeof text - 1, 3, 1 << 20, &r);
        cr_assert_eq(rc, atomic_load(&th.failed) ? PERF_ENOMEM : PERF_OK);
        perf_redis_reply_release(r);
        cr_assert_eq(atomic_load(&th.live), 0);
        atomic_store(&th.failed, 0);
        atomic_store(&th.fail_at, at);
        rc = parse(&th.allocator, big, len, at % 2 ? 100 : 2000, 1 << 20, &r);
        cr_assert_eq(rc, atomic_load(&th.failed) ? PERF_ENOMEM : PERF_OK);
        perf_redis_reply_release(r);
        cr_assert_eq(atomic_load(&th.live), 0);
    }
}
