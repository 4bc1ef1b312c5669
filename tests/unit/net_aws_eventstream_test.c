/* SPDX-License-Identifier: MIT */
/*
 * net_aws_eventstream_test.c - messages of the event stream: one whose bytes stand in the
 * specification, all types of headers there and back, bytes in any pieces, and damage of each byte.
 */
#include <libperf/aws_eventstream.h>

#include "seams.h"
#include "test.h"

static perf_eventstream *open_parser(const perf_eventstream_options *options)
{
    perf_eventstream *es = NULL;
    cr_assert_eq(perf_eventstream_open(options, &es), PERF_OK, "%s", perf_last_error());
    return es;
}

static perf_eventstream_header text(const char *name, const char *value)
{
    perf_eventstream_header h = PERF_EVENTSTREAM_HEADER_INIT;
    h.name = name;
    h.type = PERF_EVENTSTREAM_TEXT;
    h.bytes = (perf_bytes){value, strlen(value)};
    return h;
}

/* The specification's own examples: without headers and payload; with both. */
static const uint8_t empty_message[] = {0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00,
                                        0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff};
static const uint8_t json_message[] = "\x00\x00\x00\x3d\x00\x00\x00\x20\x07\xfd\x83\x96\x0c"
                                      "content-type\x07\x00\x10"
                                      "application/json{'foo':'bar'}\x8d\x9c\x08\xb1";

Test(eventstream, known_messages)
{
    perf_eventstream *es = open_parser(NULL);
    size_t used = 0, len = 9;
    cr_assert_eq(perf_eventstream_finish(es), PERF_OK);
    cr_assert_eq(perf_eventstream_feed(es, empty_message, sizeof empty_message, &used), PERF_OK,
                 "%s", perf_last_error());
    cr_assert_eq(used, sizeof empty_message);
    cr_assert_str_eq(perf_eventstream_payload(es, &len), "");
    cr_assert_eq(len, 0);
    cr_assert_null(perf_eventstream_text(es, "content-type"));

    cr_assert_eq(perf_eventstream_feed(es, json_message, sizeof json_message - 1, &used), PERF_OK,
                 "%s", perf_last_error());
    cr_assert_eq(used, sizeof json_message - 1);
    cr_assert_str_eq(perf_eventstream_text(es, "content-type"), "application/json");
    cr_assert_str_eq(perf_eventstream_payload(es, &len), "{'foo':'bar'}");
    cr_assert_eq(len, 13);
    cr_assert_eq(perf_eventstream_finish(es), PERF_OK);
    perf_eventstream_close(es);

    uint8_t made[256];
    size_t needed = 0;
    perf_eventstream_header h = text("content-type", "application/json");
    cr_assert_eq(perf_eventstream_encode(&h, 1, "{'foo':'bar'}", 13, made, sizeof made, &needed),
                 PERF_OK);
    cr_assert_eq(needed, sizeof json_message - 1);
    cr_assert_arr_eq(made, json_message, needed);
    cr_assert_eq(perf_eventstream_encode(NULL, 0, NULL, 0, made, sizeof made, &needed), PERF_OK);
    cr_assert_arr_eq(made, empty_message, sizeof empty_message);
}

enum { ALL = 14 };

static size_t make_all(uint8_t *out, size_t size, perf_eventstream_header *h)
{
    static const uint8_t uuid[16] = {1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    static const struct {
        int64_t type, number;
    } numbers[] = {{PERF_EVENTSTREAM_TRUE, 1},
                   {PERF_EVENTSTREAM_FALSE, 0},
                   {PERF_EVENTSTREAM_BYTE, -128},
                   {PERF_EVENTSTREAM_BYTE, 127},
                   {PERF_EVENTSTREAM_INT16, -32768},
                   {PERF_EVENTSTREAM_INT32, -2147483648LL},
                   {PERF_EVENTSTREAM_INT32, 2147483647},
                   {PERF_EVENTSTREAM_INT64, INT64_MIN},
                   {PERF_EVENTSTREAM_TIME, 1700000000123}};
    static const char *const names[ALL] = {"a", "b", "c", "d", "e",   "f",     "g",
                                           "h", "i", "j", "k", "uid", "empty", ":event-type"};
    size_t needed = 0;
    for (size_t i = 0; i < ALL; i++) {
        h[i] = (perf_eventstream_header)PERF_EVENTSTREAM_HEADER_INIT;
        h[i].name = names[i];
        if (i < 9) {
            h[i].type = numbers[i].type;
            h[i].number = numbers[i].number;
        }
    }
    h[9] = text("j", "gr\xc3\xbc\xc3\x9f"
                     "e");
    h[10].type = PERF_EVENTSTREAM_BYTES;
    h[10].bytes = (perf_bytes){"a\0b", 3};
    h[11].type = PERF_EVENTSTREAM_UUID;
    h[11].bytes = (perf_bytes){uuid, 16};
    h[12] = text("empty", "");
    h[13] = text(":event-type", "contentBlockDelta");
    cr_assert_eq(perf_eventstream_encode(h, ALL, "{\"x\":1}", 7, out, size, &needed), PERF_OK, "%s",
                 perf_last_error());
    return needed;
}

static void expect_all(perf_eventstream *es, const perf_eventstream_header *h)
{
    size_t len;
    for (size_t i = 0; i < ALL; i++) {
        perf_eventstream_header got = PERF_EVENTSTREAM_HEADER_INIT;
        cr_assert_eq(perf_eventstream_header_at(es, i, &got), PERF_OK);
        cr_assert_str_eq(got.name, h[i].name);
        cr_assert_eq(got.type, h[i].type, "header %zu", i);
        cr_assert_eq(got.number, h[i].number, "header %zu", i);
        cr_assert_eq(got.bytes.len, h[i].bytes.len);
        if (got.bytes.len)
            cr_assert_arr_eq(got.bytes.data, h[i].bytes.data, got.bytes.len);
        cr_assert_eq(((const char *)got.bytes.data)[got.bytes.len], 0);
    }
    perf_eventstream_header got = PERF_EVENTSTREAM_HEADER_INIT;
    cr_assert_eq(perf_eventstream_header_at(es, ALL, &got), PERF_MISS);
    cr_assert_str_eq(perf_eventstream_text(es, ":event-type"), "contentBlockDelta");
    cr_assert_null(perf_eventstream_text(es, "k"), "bytes are no text");
    cr_assert_str_eq(perf_eventstream_payload(es, &len), "{\"x\":1}");
}

Test(eventstream, all_types_in_pieces_of_any_size)
{
    uint8_t stream[3 * 512];
    perf_eventstream_header h[ALL];
    size_t one = make_all(stream, 512, h);
    memcpy(stream + one, stream, one);
    memcpy(stream + 2 * one, stream, one);
    for (size_t piece = 1; piece <= 3 * one; piece += piece < 40 ? 1 : 37) {
        perf_eventstream *es = open_parser(NULL);
        int seen = 0;
        for (size_t at = 0; at < 3 * one;) {
            size_t left = 3 * one - at, used = 0;
            int rc = perf_eventstream_feed(es, stream + at, piece < left ? piece : left, &used);
            cr_assert_geq(rc, 0, "%s", perf_last_error());
            at += used;
            if (rc == PERF_OK) {
                expect_all(es, h);
                seen++;
            } else {
                cr_assert_eq(rc, PERF_MISS);
                cr_assert_eq(perf_eventstream_finish(es), PERF_EPROTOCOL, "within a message");
            }
        }
        cr_assert_eq(seen, 3);
        cr_assert_eq(perf_eventstream_finish(es), PERF_OK);
        perf_eventstream_close(es);
    }
}

Test(eventstream, damage_anywhere_is_seen)
{
    uint8_t message[512], damaged[512];
    perf_eventstream_header h[ALL];
    size_t len = make_all(message, sizeof message, h);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        perf_eventstream *es = open_parser(NULL);
        size_t used = 0;
        memcpy(damaged, message, len);
        damaged[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = perf_eventstream_feed(es, damaged, len, &used);
        cr_assert_eq(rc, PERF_ECORRUPT, "bit %zu: %s", bit, perf_strstatus(rc));
        cr_assert_eq(perf_eventstream_feed(es, message, len, &used), PERF_ECORRUPT, "it stays so");
        cr_assert_eq(perf_eventstream_finish(es), PERF_ECORRUPT);
        perf_eventstream_close(es);
    }
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t crc_of(const uint8_t *data, size_t len)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

/* Lengths and headers as they are given, with checksums that are right. */
static int feed_made(uint32_t total, uint32_t headers_len, const char *headers, size_t len,
                     const perf_eventstream_options *options)
{
    uint8_t m[600] = {0};
    size_t used = 0;
    put32(m, total);
    put32(m + 4, headers_len);
    put32(m + 8, crc_of(m, 8));
    memcpy(m + 12, headers, len);
    if (total >= 16 && total <= sizeof m)
        put32(m + total - 4, crc_of(m, total - 4));
    perf_eventstream *es = open_parser(options);
    int rc = perf_eventstream_feed(es, m, total < sizeof m ? total : sizeof m, &used);
    perf_eventstream_close(es);
    return rc;
}

Test(eventstream, lengths_that_lie)
{
    perf_eventstream_options small = PERF_EVENTSTREAM_OPTIONS_INIT;
    small.max_message_bytes = 100;
    cr_assert_eq(feed_made(16, 0, "", 0, NULL), PERF_OK);
    cr_assert_eq(feed_made(15, 0, "", 0, NULL), PERF_EPROTOCOL);
    cr_assert_eq(feed_made(16, 1, "", 0, NULL), PERF_EPROTOCOL, "headers beyond the end");
    cr_assert_eq(feed_made(0xffffffff, 0, "", 0, NULL), PERF_ETOOBIG);
    cr_assert_eq(feed_made((16 << 20) + 1, 0, "", 0, NULL), PERF_ETOOBIG);
    cr_assert_eq(feed_made(16 << 20, 0, "", 0, NULL), PERF_MISS, "the largest");
    cr_assert_eq(feed_made(16 << 20, (128 << 10) + 1, "", 0, NULL), PERF_EPROTOCOL);
    cr_assert_eq(feed_made(101, 0, "", 0, &small), PERF_ETOOBIG);
    cr_assert_eq(feed_made(100, 0, "", 0, &small), PERF_OK);
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\x00\x00", 2}, /* no name */
        {"\x01"
         "a",
         2}, /* no type */
        {"\x01"
         "a\x0a",
         3}, /* no such type */
        {"\x01"
         "a\x02",
         3}, /* no byte */
        {"\x01"
         "a\x07\x00\x05xxxx",
         9}, /* text beyond the headers */
        {"\x01"
         "a\x09zzzzzzzzzzzzzzz",
         18}, /* 15 bytes of a UUID */
        {"\x05"
         "ab",
         3}, /* name beyond the headers */
        {"\x02"
         "a\x00\x00",
         4}, /* a zero byte in a name */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(feed_made((uint32_t)(16 + bad[i].len), (uint32_t)bad[i].len, bad[i].bytes,
                               bad[i].len, NULL),
                     PERF_EPROTOCOL, "case %zu", i);
}

Test(eventstream, what_cannot_be_written)
{
    perf_eventstream_header h = text("", "x");
    uint8_t out[64];
    size_t needed = 0;
    char long_name[300];
    memset(long_name, 'n', sizeof long_name);
    long_name[299] = 0;
    cr_assert_eq(perf_eventstream_encode(&h, 1, NULL, 0, out, 64, &needed), PERF_EINVAL);
    h.name = long_name;
    cr_assert_eq(perf_eventstream_encode(&h, 1, NULL, 0, out, 64, &needed), PERF_EINVAL);
    h.name = "n";
    h.type = PERF_EVENTSTREAM_BYTE;
    h.number = 128;
    cr_assert_eq(perf_eventstream_encode(&h, 1, NULL, 0, out, 64, &needed), PERF_EINVAL);
    h.type = PERF_EVENTSTREAM_UUID;
    cr_assert_eq(perf_eventstream_encode(&h, 1, NULL, 0, out, 64, &needed), PERF_EINVAL);
    h.type = 10;
    cr_assert_eq(perf_eventstream_encode(&h, 1, NULL, 0, out, 64, &needed), PERF_EINVAL);
    cr_assert_eq(perf_eventstream_encode(NULL, 0, "x", 16 << 20, out, 64, &needed), PERF_ETOOBIG);
    cr_assert_eq(perf_eventstream_encode(NULL, 0, "xyz", 3, NULL, 0, &needed), PERF_ETOOSMALL);
    cr_assert_eq(needed, 19);
    perf_eventstream_options o = PERF_EVENTSTREAM_OPTIONS_INIT;
    perf_eventstream *es = NULL;
    o.max_message_bytes = 15;
    cr_assert_eq(perf_eventstream_open(&o, &es), PERF_EINVAL);
    perf_eventstream_close(NULL);
}

Test(eventstream, each_allocation_fails_once)
{
    perf_eventstream_header h[ALL];
    uint8_t message[512];
    size_t len = make_all(message, sizeof message, h), used;
    for (int64_t n = 1;; n++) {
        struct test_host th;
        perf_eventstream_options o = PERF_EVENTSTREAM_OPTIONS_INIT;
        perf_eventstream *es = NULL;
        o.host = test_host_init(&th);
        th.fail_at = n;
        int rc = perf_eventstream_open(&o, &es);
        if (!rc)
            rc = perf_eventstream_feed(es, message, len, &used);
        perf_eventstream_close(es);
        cr_assert_eq(th.live, 0);
        if (!th.failed) {
            cr_assert_eq(rc, PERF_OK);
            cr_assert_gt(n, 2);
            break;
        }
        cr_assert_eq(rc, PERF_ENOMEM);
    }
}
