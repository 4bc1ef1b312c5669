/* SPDX-License-Identifier: MIT */
/* net_aws_json_test.c - JSON where it lies, what is written for services, and gzip. */
#include <zlib.h>

#include "../../src/net/aws_client.h"
#include "../../src/net/aws_json.h"
#include "seams.h"
#include "test.h"

static int check(const char *text)
{
    struct perf__json all;
    return perf__json_check(PERF_EPROTOCOL, "it", text, strlen(text), 0, &all);
}

Test(net_aws_json, valid_and_not)
{
    static const char *const good[] = {"{}",
                                       " [ ] ",
                                       "\"\"",
                                       "0",
                                       "-0.5e+10",
                                       "12E3",
                                       "true",
                                       "null",
                                       "[1,2,[3,{\"a\":{}}],\"x\"]",
                                       "{\"a\":1,\"b\":[true,false,null],\"\":\"\\u00e4\\n\\\"\"}",
                                       "\t{\r\n\"a\" : [ 1 , 2 ] }\n"};
    static const char *const bad[] = {
        "",        "{",           "}",        "[",          "]",         "[1,]",  "[,1]",
        "{\"a\"}", "{a:1}",       "{\"a\":}", "{\"a\":1,}", "{\"a\" 1}", "[1 2]", "\"",
        "\"\\x\"", "\"\\u12g4\"", "\"\n\"",   "01",         "-",         "1.",    ".5",
        "1e",      "+1",          "tru",      "nullx",      "{} {}",     "[}",    "{]",
        "[1}",     "{\"a\":1]",   "\"\\",     "\"\\u123",   "[\"a\":1]", "{1:2}", "'a'"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert_eq(check(good[i]), PERF_OK, "%s: %s", good[i], perf_last_error());
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(check(bad[i]), PERF_EPROTOCOL, "%s", bad[i]);
    cr_assert(strstr(perf_last_error(), "it is no JSON"), "%s", perf_last_error());
}

Test(net_aws_json, depth_is_bounded)
{
    static char text[2 * 100000 + 1];
    for (int depth = PERF__JSON_DEPTH; depth <= 100000; depth = depth * 3 + 1) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        cr_assert_eq(check(text) == PERF_OK, depth <= PERF__JSON_DEPTH, "%d", depth);
    }
}

/* Every beginning of a text, and every byte of it changed, is read to the end of what is there:
 * under AddressSanitizer this is a proof. */
Test(net_aws_json, every_cut_and_every_byte)
{
    static const char text[] = "{\"a\":[1,-2.5e3,\"\\ud83d\\ude00\",{\"b\":null}],\"c\":\"\\n\"}";
    for (size_t len = 0; len < sizeof text; len++)
        for (int byte = -1; byte < 256; byte += byte < 0 ? 1 : 5) {
            struct perf__json all, name, value;
            char *copy = malloc(len + 1), *plain = malloc(len + 1);
            memcpy(copy, text, len);
            if (byte >= 0 && len)
                copy[len / 2] = (char)byte;
            if (!perf__json_check(PERF_EPROTOCOL, "it", copy, len, 0, &all)) {
                size_t at = 0, n = 0;
                while (perf__json_next(all, &at, &name, &value) && n++ < 100) {
                    cr_assert(value.at >= copy && value.at + value.len <= copy + len);
                    cr_assert_leq(perf__json_text(value, plain), value.len);
                }
            }
            free(copy);
            free(plain);
        }
}

Test(net_aws_json, members_and_elements)
{
    static const char text[] = " { \"n\" : 12345678901234567890123 , \"list\":[ 1,\"two\",[3] "
                               "],\"s\":\"a\", \"s\":\"b\"} ";
    struct perf__json all, value, name;
    size_t at = 0, n = 0;
    uint64_t number;
    cr_assert_eq(perf__json_check(PERF_EPROTOCOL, "it", text, strlen(text), '{', &all), PERF_OK);
    cr_assert(perf__json_find(all, "n", 0, &value));
    cr_assert(value.len == 23 && !memcmp(value.at, "12345678901234567890123", 23));
    cr_assert_not(perf__json_uint(value, &number), "too long");
    cr_assert_not(perf__json_find(all, "n", '"', &value));
    cr_assert_not(perf__json_find(all, "lis", 0, &value));
    cr_assert(perf__json_find(all, "s", '"', &value));
    cr_assert(value.len == 3 && value.at[1] == 'a', "the first of that name");
    cr_assert_not(perf__json_find(value, "s", 0, &value), "no object");
    cr_assert(perf__json_find(all, "list", '[', &value));
    struct perf__json element;
    while (perf__json_next(value, &at, NULL, &element))
        n++;
    cr_assert_eq(n, 3);
    cr_assert(element.len == 3 && element.at[0] == '[');
    for (at = n = 0; perf__json_next(all, &at, &name, &value); n++)
        cr_assert_gt(name.len, 0);
    cr_assert_eq(n, 4);
    cr_assert_eq(perf__json_check(PERF_EINVAL, "it", "[]", 2, '{', &all), PERF_EINVAL);
    at = 0;
    cr_assert_not(perf__json_next((struct perf__json){"[]", 2}, &at, NULL, &value));
    cr_assert(perf__json_uint((struct perf__json){"\"42\"", 4}, &number) && number == 42);
    cr_assert_not(perf__json_uint((struct perf__json){"4.2", 3}, &number));
}

static const char *plain(const char *json)
{
    static char out[256];
    size_t len = perf__json_text((struct perf__json){json, strlen(json)}, out);
    cr_assert_eq(out[len], 0);
    return out;
}

Test(net_aws_json, texts)
{
    char out[16];
    cr_assert_str_eq(plain("\"a\\\"b\\\\c\\/d\\n\\t\\r\\b\\f\""), "a\"b\\c/d\n\t\r\b\f");
    cr_assert_str_eq(plain("\"\\u0041\\u00e4\\u20ac\\ud83d\\ude00\""),
                     "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    cr_assert_str_eq(plain("\"\\ud83dx\""), "\xef\xbf\xbdx");
    cr_assert_str_eq(plain("\"\\ude00\\ud83d\""), "\xef\xbf\xbd\xef\xbf\xbd");
    cr_assert_str_eq(plain("\"\\ud83d\\u0041\""), "\xef\xbf\xbd"
                                                  "A");
    cr_assert_str_eq(plain("12"), "");
    perf__json_short((struct perf__json){"\"a\nlong one that is cut\"", 23}, out, sizeof out);
    cr_assert_str_eq(out, "a?long one that");
}

Test(net_aws_json, writing)
{
    struct test_host th;
    test_host_init(&th);
    struct perf__text t = {.allocator = &th.allocator};
    perf__text_put_json(&t, "a\"\\\n\x01\xc3\xa4", 7);
    perf__text_puts(&t, "|");
    perf__text_put_form(&t, "a b/\xc3\xa4&~", 8);
    perf__text_putf(&t, "|%d", 42);
    cr_assert_str_eq(t.data, "\"a\\u0022\\u005c\\u000a\\u0001\xc3\xa4\"|a+b%2F%C3%A4%26~|42");
    char out[32];
    perf__json_text((struct perf__json){t.data, (size_t)(strchr(t.data, '|') - t.data)}, out);
    cr_assert_str_eq(out, "a\"\\\n\x01\xc3\xa4");
    perf__text_free(&t);

    t = (struct perf__text){.allocator = &th.allocator};
    th.fail_at = 1;
    perf__text_puts(&t, "x");
    cr_assert(t.failed);
    perf__text_put(&t, "y", 1);
    cr_assert_eq(t.len, 0);
    perf__text_free(&t);
    cr_assert_eq(th.live, 0);
}

Test(net_aws_json, base64)
{
    struct perf__text t = {.allocator = &(perf_allocator){0}};
    struct test_host th;
    test_host_init(&th);
    uint8_t data[300], back[400];
    size_t len;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37 + i / 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        t = (struct perf__text){.allocator = &th.allocator};
        perf__text_put_base64(&t, data, n);
        cr_assert_eq(t.len, (n + 2) / 3 * 4);
        cr_assert(perf__base64_read(t.data ? t.data : "", t.len, back, &len));
        cr_assert_eq(len, n);
        cr_assert_arr_eq(back, data, n);
        perf__text_free(&t);
    }
    static const char *const bad[] = {"a",        "ab",     "abc",  "a===", "=abc",   "ab=c",
                                      "ab==abcd", "ab\ncd", "abc-", "====", "abc\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_not(perf__base64_read(bad[i], strlen(bad[i]), back, &len), "%s", bad[i]);
}

Test(net_aws_json, utf8)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\xc3\xa4",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "\xed\x9f\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc0\x80",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xc3z",
                                      "\xf0\x9f\x98"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert_eq(perf__check_utf8("it", good[i], strlen(good[i])), PERF_OK, "%zu", i);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(perf__check_utf8("it", bad[i], strlen(bad[i])), PERF_EINVAL, "%zu", i);
}

Test(net_aws_json, gzip)
{
    struct test_host th;
    test_host_init(&th);
    static char text[100000], back[100000];
    char *packed = NULL;
    size_t len;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)("MetricData.member."[i % 18] + (i * i) % 5);
    cr_assert_eq(perf__gzip(&th.allocator, text, sizeof text, &packed, &len), PERF_OK);
    cr_assert_lt(len, sizeof text / 10);
    z_stream z = {.next_in = (Bytef *)packed,
                  .avail_in = (uInt)len,
                  .next_out = (Bytef *)back,
                  .avail_out = sizeof back};
    cr_assert_eq(inflateInit2(&z, 15 + 16), Z_OK);
    cr_assert_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
    cr_assert_eq(z.total_out, sizeof back);
    inflateEnd(&z);
    cr_assert_arr_eq(back, text, sizeof text);
    th.allocator.free(&th, packed);
    for (int at = 1; at < 20; at++) {
        th.fail_at = at;
        int rc = perf__gzip(&th.allocator, text, sizeof text, &packed, &len);
        th.fail_at = 0;
        if (rc == PERF_OK) {
            th.allocator.free(&th, packed);
            cr_assert_gt(at, 3);
            break;
        }
        cr_assert_eq(rc, PERF_ENOMEM);
        cr_assert_eq(th.live, 0);
    }
    cr_assert_eq(th.live, 0);
}
