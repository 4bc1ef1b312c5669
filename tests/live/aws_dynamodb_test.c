/* SPDX-License-Identifier: MIT */
/*
 * aws_dynamodb_test.c - batches, pages and the table of bytes against DynamoDB Local, and batches
 * through a proxy that throttles. One server serves all: it takes seconds to start.
 */
#include <libperf/aws_dynamodb.h>
#include <time.h>

#include "leaks.h"
#include "seams.h"
#include "server.h"
#include "test.h"

static const perf_host own = PERF_HOST_INIT;

static perf_aws *open_at(const char *url, const perf_host *host)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "wJalrSECRETKEY", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    unsetenv("AWS_SESSION_TOKEN");
    unsetenv("AWS_PROFILE");
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.host = host;
    if (!o.host)
        o.host = &own; /* keys of its own: the shared ones may be those of another test */
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

static void must(perf_aws *aws, const char *operation, const char *json)
{
    perf_aws_reply *reply = NULL;
    int rc = perf_aws_call(aws, operation, json, strlen(json), 20000, &reply);
    cr_assert_eq(rc, PERF_OK, "%s: %s", operation, perf_last_error());
    perf_aws_reply_release(reply);
}

static const char TABLE[] =
    "{\"TableName\":\"things\",\"BillingMode\":\"PAY_PER_REQUEST\","
    "\"AttributeDefinitions\":[{\"AttributeName\":\"k\",\"AttributeType\":\"S\"}],"
    "\"KeySchema\":[{\"AttributeName\":\"k\",\"KeyType\":\"HASH\"}]}";
static const char PAIRS[] =
    "{\"TableName\":\"pairs\",\"BillingMode\":\"PAY_PER_REQUEST\","
    "\"AttributeDefinitions\":[{\"AttributeName\":\"a\",\"AttributeType\":\"B\"},"
    "{\"AttributeName\":\"b\",\"AttributeType\":\"B\"}],"
    "\"KeySchema\":[{\"AttributeName\":\"a\",\"KeyType\":\"HASH\"},"
    "{\"AttributeName\":\"b\",\"KeyType\":\"RANGE\"}]}";

enum { MANY = 230 };
static char texts[MANY][128];
static perf_bytes parts[MANY];

/* Digits that a double cannot hold must arrive as they were. */
#define LONG_NUMBER "12345678901234567890123456789012345678"

static void make_puts(void)
{
    for (int i = 0; i < MANY; i++) {
        int n = snprintf(texts[i], sizeof texts[i],
                         "{\"PutRequest\":{\"Item\":{\"k\":{\"S\":\"key %d\"},"
                         "\"n\":{\"N\":\"" LONG_NUMBER "\"}}}}",
                         i);
        parts[i] = (perf_bytes){texts[i], (size_t)n};
    }
}

static void make_keys(void)
{
    for (int i = 0; i < MANY; i++) {
        int n = snprintf(texts[i], sizeof texts[i], "{\"k\":{\"S\":\"key %d\"}}", i);
        parts[i] = (perf_bytes){texts[i], (size_t)n};
    }
}

static void all_are_there(perf_aws *aws, const perf_dynamodb_batch_options *o)
{
    perf_dynamodb_batch *batch;
    bool seen[MANY] = {false};
    make_keys();
    int rc = perf_dynamodb_batch_get(aws, "things", parts, MANY, o, &batch);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_dynamodb_batch_count(batch), MANY);
    cr_assert_eq(perf_dynamodb_batch_left_count(batch), 0);
    for (size_t i = 0; i < MANY; i++) {
        size_t len;
        char item[256];
        int number = -1;
        const char *at = perf_dynamodb_batch_item(batch, i, &len);
        cr_assert(len < sizeof item);
        memcpy(item, at, len);
        item[len] = 0;
        cr_assert(strstr(item, LONG_NUMBER), "%s", item);
        const char *key = strstr(item, "key ");
        cr_assert(key && sscanf(key, "key %d", &number) == 1);
        cr_assert(number >= 0 && number < MANY && !seen[number]);
        seen[number] = true;
    }
    cr_assert_null(perf_dynamodb_batch_item(batch, MANY, NULL));
    cr_assert_null(perf_dynamodb_batch_left(batch, 0, NULL));
    perf_dynamodb_batch_release(batch);
}

static void batches(perf_aws *aws)
{
    perf_dynamodb_batch *batch;
    perf_dynamodb_batch_options o = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    make_puts();
    int rc = perf_dynamodb_batch_write(aws, "things", parts, MANY, NULL, &batch);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_dynamodb_batch_left_count(batch), 0);
    cr_assert_eq(perf_dynamodb_batch_count(batch), 0);
    cr_assert_geq(perf_dynamodb_batch_requests(batch), (MANY + 24) / 25);
    cr_assert_geq(perf_dynamodb_batch_millicapacity(batch), MANY * 1000);
    perf_dynamodb_batch_release(batch);
    o.consistent = 1;
    all_are_there(aws, &o);
    o.projection = "#n";
    o.names = "{\"#n\":\"n\"}";
    rc = perf_dynamodb_batch_get(aws, "things", parts, 3, &o, &batch);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_dynamodb_batch_count(batch), 3);
    size_t len;
    const char *item = perf_dynamodb_batch_item(batch, 0, &len);
    cr_assert_null(memmem(item, len, "key ", 4));
    perf_dynamodb_batch_release(batch);

    cr_assert_eq(perf_dynamodb_batch_get(aws, "things", NULL, 0, NULL, &batch), PERF_OK);
    cr_assert_eq(perf_dynamodb_batch_requests(batch), 0);
    perf_dynamodb_batch_release(batch);
    perf_bytes bad = {"[1]", 3};
    cr_assert_eq(perf_dynamodb_batch_get(aws, "things", &bad, 1, NULL, &batch), PERF_EINVAL);
    cr_assert_null(batch);
    cr_assert_eq(perf_dynamodb_batch_get(aws, "others", parts, 1, NULL, &batch), PERF_EREMOTE);
    cr_assert_eq(perf_dynamodb_batch_left_count(batch), 1);
    perf_dynamodb_batch_release(batch);
}

static void pages(perf_aws *aws)
{
    perf_aws_pages *list;
    perf_aws_reply *page;
    const char *scan = "{\"TableName\":\"things\",\"Limit\":50,\"ExclusiveStartKey\":null}";
    int rc = perf_aws_pages_open(aws, "Scan", scan, strlen(scan), NULL, NULL, &list);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    int found = 0, count = 0;
    scan = "{\"TableName\":\"things\",\"Limit\":50}";
    perf_aws_pages_close(list);
    cr_assert_eq(perf_aws_pages_open(aws, "Scan", scan, strlen(scan), NULL, NULL, &list), PERF_OK);
    while ((rc = perf_aws_pages_next(list, 0, &page)) == PERF_OK) {
        for (const char *at = perf_aws_reply_body(page); (at = strstr(at, "\"S\":\"key ")); at++)
            found++;
        perf_aws_reply_release(page);
        count++;
    }
    cr_assert_eq(rc, PERF_MISS, "%s", perf_last_error());
    cr_assert_eq(count, 5);
    cr_assert_geq(found, MANY); /* the keys of the tokens are among them */
    cr_assert_eq(perf_aws_pages_next(list, 0, &page), PERF_MISS);
    perf_aws_pages_close(list);

    cr_assert_eq(perf_aws_pages_open(aws, "Scan", "[]", 2, NULL, NULL, &list), PERF_EINVAL);
    cr_assert_eq(perf_aws_pages_open(aws, "Scan", "{}", 2, "a", NULL, &list), PERF_EINVAL);
    cr_assert_eq(perf_aws_pages_open(aws, "Scan", NULL, 0, "a", "b\"", &list), PERF_EINVAL);
    cr_assert_eq(perf_aws_pages_open(aws, "Scan", NULL, 0, NULL, NULL, &list), PERF_OK);
    cr_assert_eq(perf_aws_pages_next(list, 0, &page), PERF_EREMOTE); /* no TableName */
    perf_aws_pages_close(list);
}

static void throttled(int upstream, perf_aws *direct)
{
    struct test_server *proxy = test_server_throttle(upstream, "20r/s", 3);
    cr_assert_not_null(proxy, "%s", test_server_why());
    perf_aws *aws = open_at(proxy->url, NULL);
    perf_dynamodb_batch *batch;
    perf_dynamodb_batch_options o = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    o.timeout_ms = 60000;
    make_puts();
    int rc = perf_dynamodb_batch_write(aws, "things", parts, MANY, &o, &batch);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    perf_dynamodb_batch_release(batch);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);
    all_are_there(direct, NULL);

    proxy = test_server_throttle(upstream, "1r/m", 1);
    aws = open_at(proxy->url, NULL);
    o.timeout_ms = 3000;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    rc = perf_dynamodb_batch_get(aws, "things", parts, 0, &o, &batch);
    perf_dynamodb_batch_release(batch);
    make_keys();
    rc = perf_dynamodb_batch_get(aws, "things", parts, MANY, &o, &batch);
    clock_gettime(CLOCK_MONOTONIC, &to);
    cr_assert(rc == PERF_ETHROTTLED || rc == PERF_ETIMEDOUT, "%s", perf_last_error());
    cr_assert_leq(to.tv_sec - from.tv_sec, 4);
    cr_assert_gt(perf_dynamodb_batch_left_count(batch), 0);
    cr_assert_eq(perf_dynamodb_batch_left_count(batch) + perf_dynamodb_batch_count(batch), MANY);
    size_t len;
    cr_assert_not_null(perf_dynamodb_batch_left(batch, 0, &len));
    cr_assert_gt(len, 0);
    perf_dynamodb_batch_release(batch);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(proxy);
}

#define GET(t, k, v)    perf_dynamodb_table_get(t, k, strlen(k), NULL, 0, v)
#define PUT(t, k, b, o) perf_dynamodb_table_put(t, k, strlen(k), NULL, 0, b, sizeof b, o, &version)
#define DELETE(t, k, o) perf_dynamodb_table_delete(t, k, strlen(k), NULL, 0, o)

static void bytes_in_table(const char *url)
{
    struct test_host th;
    perf_aws *aws = open_at(url, test_host_init(&th));
    perf_dynamodb_table *t;
    perf_dynamodb_value *v;
    perf_dynamodb_table_options o = PERF_DYNAMODB_TABLE_OPTIONS_INIT;
    perf_dynamodb_put_options p = PERF_DYNAMODB_PUT_OPTIONS_INIT;
    static char data[5000];
    int64_t version = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7);
    o.aws = aws;
    o.table = "things";
    o.key_name = "k";
    o.ttl_name = "ends";
    o.version_name = "version";
    o.consistent = 1;
    cr_assert_eq(perf_dynamodb_table_open(&o, &t), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(GET(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", &v), PERF_MISS, "%s", perf_last_error());
    cr_assert_eq(PUT(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", data, NULL), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_neq(version, 0);
    cr_assert_eq(GET(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", &v), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_dynamodb_value_size(v), sizeof data);
    cr_assert_arr_eq(perf_dynamodb_value_data(v), data, sizeof data);
    cr_assert_eq(perf_dynamodb_value_version(v), version);
    cr_assert_eq(perf_dynamodb_value_ends_s(v), 0);
    perf_dynamodb_value_release(v);

    /* compare and set */
    p.condition = PERF_DYNAMODB_IF_VERSION;
    p.version = version;
    int64_t old = version;
    cr_assert_eq(PUT(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", "two", &p), PERF_OK, "%s", perf_last_error());
    cr_assert_neq(version, old);
    cr_assert_eq(PUT(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", "three", &p), PERF_ECONFLICT);
    cr_assert_eq(DELETE(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", &p), PERF_ECONFLICT);
    p.version = version;
    cr_assert_eq(DELETE(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", &p), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(DELETE(t, "gr\xc3\xbc\xc3\x9f \"x\"\n", NULL), PERF_OK);

    /* what is over is a miss, and gives way */
    p.condition = PERF_DYNAMODB_IF_ABSENT;
    p.ttl_s = 100;
    cr_assert_eq(PUT(t, "short", "one", &p), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(PUT(t, "short", "two", &p), PERF_ECONFLICT);
    cr_assert_eq(GET(t, "short", &v), PERF_OK);
    cr_assert_gt(perf_dynamodb_value_ends_s(v), 0);
    perf_dynamodb_value_release(v);
    test_host_advance(&th, 101000);
    cr_assert_eq(GET(t, "short", &v), PERF_MISS);
    p.condition = PERF_DYNAMODB_IF_VERSION;
    p.version = version;
    cr_assert_eq(PUT(t, "short", "two", &p), PERF_ECONFLICT, "it is over");
    p.condition = PERF_DYNAMODB_IF_ABSENT;
    cr_assert_eq(PUT(t, "short", "two", &p), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(GET(t, "short", &v), PERF_OK);
    cr_assert_arr_eq(perf_dynamodb_value_data(v), "two", 4);
    perf_dynamodb_value_release(v);

    /* what others wrote there is no value */
    must(aws, "PutItem",
         "{\"TableName\":\"things\",\"Item\":{\"k\":{\"S\":\"odd\"},\"value\":{\"S\":\"text\"}}}");
    cr_assert_eq(GET(t, "odd", &v), PERF_ECORRUPT);
    must(aws, "PutItem",
         "{\"TableName\":\"things\",\"Item\":{\"k\":{\"S\":\"odd\"},\"value\":{\"B\":\"YQ==\"},"
         "\"ends\":{\"N\":\"1.5\"}}}");
    cr_assert_eq(GET(t, "odd", &v), PERF_ECORRUPT);

    static char big[400 * 1024 + 1];
    cr_assert_eq(PUT(t, "big", big, NULL), PERF_ETOOBIG);
    cr_assert_eq(GET(t, "\xff", &v), PERF_EINVAL);
    cr_assert_eq(GET(t, "", &v), PERF_EINVAL);
    cr_assert_eq(perf_dynamodb_table_get(t, "a", 1, "b", 1, &v), PERF_EINVAL);
    p.condition = PERF_DYNAMODB_IF_ABSENT;
    cr_assert_eq(DELETE(t, "a", &p), PERF_EINVAL);
    perf_dynamodb_table_close(t);

    o.table = "pairs";
    o.key_name = "a";
    o.sort_name = "b";
    o.key_type = PERF_DYNAMODB_BINARY;
    o.ttl_name = o.version_name = NULL;
    o.value_name = "a name with blanks";
    cr_assert_eq(perf_dynamodb_table_open(&o, &t), PERF_OK, "%s", perf_last_error());
    version = 1;
    int rc = perf_dynamodb_table_put(t, "\xff\0x", 3, "\0", 1, NULL, 0, NULL, &version);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(version, 0);
    cr_assert_eq(perf_dynamodb_table_get(t, "\xff\0x", 3, "\0", 1, &v), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(perf_dynamodb_value_size(v), 0);
    perf_dynamodb_value_release(v);
    cr_assert_eq(perf_dynamodb_table_get(t, "\xff\0x", 3, "\1", 1, &v), PERF_MISS);
    p = (perf_dynamodb_put_options)PERF_DYNAMODB_PUT_OPTIONS_INIT;
    p.ttl_s = 1;
    rc = perf_dynamodb_table_put(t, "a", 1, "b", 1, NULL, 0, &p, NULL);
    cr_assert_eq(rc, PERF_EINVAL, "no ttl_name");
    p.ttl_s = 0;
    p.condition = PERF_DYNAMODB_IF_VERSION;
    rc = perf_dynamodb_table_put(t, "a", 1, "b", 1, NULL, 0, &p, NULL);
    cr_assert_eq(rc, PERF_EINVAL, "no version_name");
    perf_dynamodb_table_close(t);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    cr_assert_eq(th.live, 0);
}

Test(aws_dynamodb, local, .timeout = 240)
{
    struct test_server *server = test_server_dynamodb();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *aws = open_at(server->url, NULL);
    must(aws, "CreateTable", TABLE);
    must(aws, "CreateTable", PAIRS);
    struct test_leaks leaks = test_leaks_begin();
    batches(aws);
    pages(aws);
    bytes_in_table(server->url);
    test_leaks_end(&leaks);
    throttled(server->port, aws);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(server);
}
