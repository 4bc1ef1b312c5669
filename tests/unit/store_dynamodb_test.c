/* SPDX-License-Identifier: MIT */
/*
 * The DynamoDB backend without a service: locations, keys, items of strangers, packing. What it
 * does with a service is in tests/live/store_dynamodb_test.c.
 */
#include <stdlib.h>

#include "../../src/store/dynamodb.h"
#include "../../src/base/alloc.h"
#include "../../src/store/store.h"
#include "seams.h"
#include "store_conformance.h"
#include "test.h"

static struct dynamodb_store store;
static struct perf__dynamodb_location where;

static int take(const char *location)
{
    memset(&store, 0, sizeof store);
    return perf__dynamodb_location(location, &store, &where);
}

Test(store_dynamodb, locations)
{
    cr_assert_eq(take("my-table_1.x"), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(store.table, "my-table_1.x");
    cr_assert(store.consistent && store.packs && !*store.prefix && !*where.region &&
              !*where.endpoint);
    cr_assert_eq(take("arn:aws:dynamodb:us-east-1:123456789012:table/t?consistent=0"), PERF_OK);
    cr_assert_str_eq(store.table, "arn:aws:dynamodb:us-east-1:123456789012:table/t");
    cr_assert(!store.consistent);
    cr_assert_eq(take("tab?prefix=a.b-c_1&endpoint=http://[::1]:8000&region=eu-west-1&compress=0&"
                      "consistent=1"),
                 PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(store.prefix, "a.b-c_1|");
    cr_assert_str_eq(where.region, "eu-west-1");
    cr_assert_str_eq(where.endpoint, "http://[::1]:8000");
    cr_assert(!store.packs && store.consistent);
    static const char *const bad[] = {"",
                                      "ab",
                                      "?region=x",
                                      "a table",
                                      "tab?",
                                      "tab?region",
                                      "tab?region=",
                                      "tab?region=a b",
                                      "tab?regions=a",
                                      "tab?Region=a",
                                      "tab?region=a&",
                                      "tab?region=a&&prefix=b",
                                      "tab?region=a&region=a",
                                      "tab?consistent=2",
                                      "tab?consistent=true",
                                      "tab?consistent=01",
                                      "tab?prefix=a|b",
                                      "tab?prefix=a%20",
                                      "tab?region=a?prefix=b",
                                      "tab\xc3\xbc"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(take(bad[i]), PERF_EINVAL, "%s", bad[i]);
        cr_assert(strstr(perf_last_error(), "a location is \"table\" or"), "%s", perf_last_error());
    }
    char longest[1200];
    memset(longest, 'a', sizeof longest);
    longest[1025] = 0;
    cr_assert_eq(take(longest), PERF_EINVAL);
    longest[1024] = 0;
    cr_assert_eq(take(longest), PERF_OK);
    memcpy(longest, "tab?prefix=", 11);
    longest[11 + 65] = 0;
    cr_assert_eq(take(longest), PERF_EINVAL);
    longest[11 + 64] = 0;
    cr_assert_eq(take(longest), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(strlen(store.prefix), 65);
}

Test(store_dynamodb, opens_by_name_and_asks_nobody)
{
    struct test_host th;
    struct perf__host host;
    struct perf__store *opened;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    test_unset_all("AWS_");
    unsetenv("CACHE_TABLE_NAME");
    cr_assert_eq(perf__host_take(test_host_init(&th), &host), PERF_OK);
    tier.backend = "dynamodb";
    tier.location = "tab?region=us-east-1&endpoint=http://127.0.0.1:1";
    cr_assert_eq(perf__store_open(&tier, &host, &opened), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf__store_capabilities(opened), PERF_STORE_DURABLE | PERF_STORE_SHARED |
                                                       PERF_STORE_PARTIAL | PERF_STORE_LEASES |
                                                       PERF_STORE_REMOTE);
    cr_assert_eq(perf__store_listen(opened, NULL), PERF_EUNSUPPORTED);
    perf__store_close(opened);
    cr_assert_eq(th.live, 0);
    tier.store_ctx = &th; /* not looked at */
    cr_assert_eq(perf__store_open(&tier, &host, &opened), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "store_ctx is a client"), "%s", perf_last_error());
    tier.store_ctx = NULL;
    tier.location = NULL;
    setenv("CACHE_TABLE_NAME", "no good", 1);
    cr_assert_eq(perf__store_open(&tier, &host, &opened), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "\"no good\""), "%s", perf_last_error());
    unsetenv("CACHE_TABLE_NAME");
    tier.location = "tab?region=us-east-1&endpoint=http://127.0.0.1:1";
    for (int64_t at = 1; at < 60; at++) {
        th.fail_at = at;
        int rc = perf__store_open(&tier, &host, &opened);
        th.fail_at = 0;
        if (rc == PERF_OK)
            perf__store_close(opened);
        else
            cr_assert_eq(rc, PERF_ENOMEM, "%s", perf_last_error());
        cr_assert_eq(th.live, 0);
    }
}

static const char *key_text(const char *ns, const char *user, const char *key, size_t len)
{
    static struct dynamodb_key out;
    const perf_store_key k = {
        (const uint8_t *)"0123456789abcdef", {ns, strlen(ns)}, {user, strlen(user)}, {key, len}};
    perf__dynamodb_key(&store, &k, &out);
    cr_assert_eq(strlen(out.text), out.len);
    cr_assert_leq(out.len, DYNAMODB_KEY_MAX);
    return out.text;
}

Test(store_dynamodb, keys)
{
    static char big[32767];
    memset(big, 'x', sizeof big);
    take("tab");
    cr_assert_str_eq(key_text("courses", "ann", "42", 2), "courses|ann|42");
    cr_assert_str_eq(key_text("a|b", "", "\0 %\"\\~\x7f\xff/#", 11),
                     "a%7Cb||%00%20%25%22%5C~%7F%FF/#%00");
    cr_assert_eq(strlen(key_text("n", "u", big, 1020)), 1024);
    cr_assert_str_eq(key_text("n", "u", "%#", 2), "n|u|%25#");
    const char *hashed = key_text("n", "u", big, 1021);
    cr_assert(!strncmp(hashed, "n|u|%#", 6) && strlen(hashed) == 4 + 66, "%s", hashed);
    static char names[256];
    memset(names, '\xfc', 255);
    hashed = key_text(names, names, big, sizeof big);
    cr_assert_eq(strlen(hashed), 66 + 1 + 66 + 1 + 66, "%s", hashed);
    take("tab?prefix=p");
    cr_assert_str_eq(key_text("n", "", "k", 1), "p|n||k");
    struct dynamodb_key marks;
    perf__dynamodb_marks_key(&store, &marks);
    cr_assert_str_eq(marks.text, "p|!marks");
    char sort[DYNAMODB_SORT_MAX + 1];
    perf__dynamodb_mark_sort(4, (perf_bytes){"red", 3}, sort);
    cr_assert_str_eq(sort, "4|red");
    perf__dynamodb_mark_sort(INT64_MIN, (perf_bytes){big, 1280}, sort);
    cr_assert_eq(strlen(sort), 21 + 66);
}

static struct dynamodb_item item;

static int read_item(const char *text)
{
    perf__dynamodb_item_read((struct perf__json){text, strlen(text)}, 5000000, &item);
    return item.kind;
}

#define RECORD "\"record\":{\"B\":\"YWJj\"}"
#define KNOWN  "{\"format\":{\"N\":\"1\"},\"size\":{\"N\":\"3\"}"
#define CHUNKS                                                                    \
    ",\"chunks\":{\"N\":\"2\"},\"packed_size\":{\"N\":\"5\"},\"version\":{\"S\":" \
    "\"00000000000000ff\"}"

Test(store_dynamodb, items)
{
    cr_assert_eq(read_item("{}"), ITEM_NONE);
    cr_assert_eq(read_item(KNOWN "}"), ITEM_NONE);
    cr_assert_eq(read_item("{\"lease\":{\"N\":\"5\"}}"), ITEM_NONE);
    cr_assert_eq(read_item(KNOWN "," RECORD "}"), ITEM_WHOLE);
    cr_assert(item.size == 3 && !item.zstd);
    cr_assert_eq(read_item(KNOWN ",\"packed\":{\"S\":\"zstd\"}," RECORD "}"), ITEM_WHOLE);
    cr_assert(item.zstd);
    cr_assert_eq(read_item(KNOWN ",\"expires\":{\"N\":\"5001\"}," RECORD "}"), ITEM_WHOLE);
    cr_assert_eq(read_item(KNOWN ",\"expires\":{\"N\":\"5000\"}," RECORD "}"), ITEM_NONE);
    cr_assert_eq(read_item(KNOWN CHUNKS "}"), ITEM_CHUNKED);
    cr_assert(item.chunks == 2 && item.packed_size == 5);
    cr_assert_str_eq(item.version, "00000000000000ff");
    static const char *const damaged[] = {
        "{" RECORD "}",
        "{\"format\":{\"N\":\"1\"}," RECORD "}",
        "{\"size\":{\"N\":\"3\"}," RECORD "}",
        "{\"format\":{\"N\":\"2\"},\"size\":{\"N\":\"3\"}," RECORD "}",
        "{\"format\":{\"S\":\"1\"},\"size\":{\"N\":\"3\"}," RECORD "}",
        KNOWN ",\"record\":{\"S\":\"YWJj\"}}",
        KNOWN ",\"record\":[]}",
        KNOWN ",\"expires\":{\"N\":\"-1\"}," RECORD "}",
        KNOWN ",\"expires\":{\"N\":\"1e9\"}," RECORD "}",
        KNOWN ",\"packed\":{\"S\":\"gzip\"}," RECORD "}",
        "{\"format\":{\"N\":\"1\"},\"size\":{\"N\":\"33554433\"}," RECORD "}",
        KNOWN CHUNKS "," RECORD "}",
        KNOWN ",\"chunks\":{\"N\":\"1\"}}",
        KNOWN ",\"version\":{\"S\":\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"0\"},\"packed_size\":{\"N\":\"5\"},\"version\":{\"S\":"
              "\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"97\"},\"packed_size\":{\"N\":\"500\"},\"version\":{\"S\":"
              "\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"9223372036854775807\"},\"packed_size\":{\"N\":\"5\"},"
              "\"version\":{\"S\":\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"6\"},\"packed_size\":{\"N\":\"5\"},\"version\":{\"S\":"
              "\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"1\"},\"packed_size\":{\"N\":\"401409\"},\"version\":{\"S\":"
              "\"00000000000000ff\"}}",
        KNOWN ",\"chunks\":{\"N\":\"1\"},\"packed_size\":{\"N\":\"5\"},\"version\":{\"S\":"
              "\"00000000000000FF\"}}",
        KNOWN ",\"chunks\":{\"N\":\"1\"},\"packed_size\":{\"N\":\"5\"},\"version\":{\"S\":"
              "\"\\u0030000000000f\"}}",
    };
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++)
        cr_assert_eq(read_item(damaged[i]), ITEM_DAMAGED, "%zu: %s", i, damaged[i]);

    /* what is over is absent whatever else it is; nothing here is read beyond its end */
    char text[512];
    size_t len = strlen(KNOWN CHUNKS "," RECORD "}");
    for (size_t cut = 0; cut < len; cut++) {
        char *part = malloc(cut ? cut : 1);
        memcpy(part, KNOWN CHUNKS "," RECORD "}", cut);
        perf__dynamodb_item_read((struct perf__json){part, cut}, 0, &item);
        perf__dynamodb_item_key((struct perf__json){part, cut}, "pk", text, sizeof text);
        free(part);
    }
    static const char keyed[] = "{\"pk\":{\"S\":\"a\\u007cb\"},\"sk\":{\"N\":\"1\"}}";
    perf__dynamodb_item_key((struct perf__json){keyed, strlen(keyed)}, "pk", text, sizeof text);
    cr_assert_str_eq(text, "a|b");
    perf__dynamodb_item_key((struct perf__json){keyed, strlen(keyed)}, "sk", text, sizeof text);
    cr_assert_str_eq(text, "");
    perf__dynamodb_item_key((struct perf__json){keyed, strlen(keyed)}, "pk", text, 9);
    cr_assert_str_eq(text, "", "longer than there is room for");
}

Test(store_dynamodb, lives)
{
    const int64_t year_s = INT64_C(365) * 86400;
    cr_assert_eq(perf__dynamodb_expires(0, 1000000), 1000 + year_s);
    cr_assert_eq(perf__dynamodb_expires(-5, 1000000), 1000 + year_s);
    cr_assert_eq(perf__dynamodb_expires(1000001, 1000000), 1001);
    cr_assert_eq(perf__dynamodb_expires(2000000, 1000000), 2000);
    cr_assert_eq(perf__dynamodb_expires(INT64_MAX, 1000000), 1000 + year_s);
    cr_assert_gt(DYNAMODB_MARK_DAYS, DYNAMODB_RECORD_DAYS);
}

Test(store_dynamodb, packing)
{
    enum { LEN = 300000 };
    struct test_host th;
    uint8_t *text = malloc(LEN), *packed = NULL, *back = NULL;
    size_t len = 0;
    test_host_init(&th);
    for (size_t i = 0; i < LEN; i++)
        text[i] = (uint8_t)("what repeats itself "[i % 20]);
    perf__dynamodb_pack(&th.allocator, (perf_bytes){text, LEN}, &packed, &len);
    if (!PERF_WITH_ZSTD) {
        cr_assert_null(packed);
        cr_assert_eq(perf__dynamodb_unpack(&th.allocator, "x", 1, 1, &back), PERF_EUNSUPPORTED);
        free(text);
        return;
    }
    cr_assert_not_null(packed);
    cr_assert_lt(len, LEN / 10);
    cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, len, LEN, &back), PERF_OK);
    cr_assert_arr_eq(back, text, LEN);
    perf__free(&th.allocator, back);
    cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, len, LEN - 1, &back), PERF_ECORRUPT);
    cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, len, LEN + 1, &back), PERF_ECORRUPT);
    cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, len, 0, &back), PERF_ECORRUPT);
    for (size_t cut = 0; cut < len; cut++)
        cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, cut, LEN, &back), PERF_ECORRUPT);
    for (size_t at = 0; at < len; at++) { /* damaged: refused, or other bytes, but no crash */
        packed[at] ^= 0x55;
        if (perf__dynamodb_unpack(&th.allocator, packed, len, LEN, &back) == PERF_OK)
            perf__free(&th.allocator, back);
        packed[at] ^= 0x55;
    }
    th.fail_at = 1;
    cr_assert_eq(perf__dynamodb_unpack(&th.allocator, packed, len, LEN, &back), PERF_ENOMEM);
    perf__free(&th.allocator, packed);
    packed = NULL;
    th.fail_at = 1;
    perf__dynamodb_pack(&th.allocator, (perf_bytes){text, LEN}, &packed, &len);
    cr_assert_null(packed, "no memory: it stays as it is");
    perf__dynamodb_pack(&th.allocator, (perf_bytes){text, 1000}, &packed, &len);
    cr_assert_null(packed, "not worth it");
    uint64_t x = 1;
    for (size_t i = 0; i < LEN; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        text[i] = (uint8_t)x;
    }
    perf__dynamodb_pack(&th.allocator, (perf_bytes){text, LEN}, &packed, &len);
    cr_assert_null(packed, "noise");
    cr_assert_eq(th.live, 0);
    free(text);
}
