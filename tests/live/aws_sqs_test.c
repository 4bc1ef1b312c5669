/* SPDX-License-Identifier: MIT */
/*
 * aws_sqs_test.c - SQS as moto acts it, with signatures checked; and an nginx that answers as SQS
 * should not: with another MD5, and with half of what it was asked.
 */
#include <libperf/aws_sqs.h>
#include <time.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

static char url[512];

static const perf_host own = PERF_HOST_INIT;

static perf_aws *open_at(const struct test_server *server, const char *id, const char *secret)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    setenv("AWS_ACCESS_KEY_ID", id, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    unsetenv("AWS_SESSION_TOKEN");
    unsetenv("AWS_PROFILE");
    o.service = "sqs";
    o.region = "us-east-1";
    o.endpoint_url = server->url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    if (!o.host)
        o.host = &own; /* keys of its own: the shared ones may be those of another test */
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

static void create(perf_aws *sqs, const char *name)
{
    char json[256];
    perf_aws_reply *reply;
    int n = snprintf(json, sizeof json, "{\"QueueName\":\"%s\"}", name);
    int rc = perf_aws_call(sqs, "CreateQueue", json, (size_t)n, 20000, &reply);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    perf_aws_reply_release(reply);
    rc = perf_sqs_queue_url(sqs, name, NULL, 0, url, sizeof url);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert(strstr(url, name), "%s", url);
}

static int64_t ms_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#define BODY "Gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80 \"quoted\" \\ \n<x>&"

static void one_message(perf_aws *sqs)
{
    perf_sqs_message m = PERF_SQS_MESSAGE_INIT;
    perf_sqs_receive_options o = PERF_SQS_RECEIVE_OPTIONS_INIT;
    perf_sqs_messages *list;
    char id[128], small[4];
    size_t len;
    m.body = (perf_bytes){BODY, strlen(BODY)};
    m.attributes = "{\"kind\":{\"DataType\":\"String\",\"StringValue\":\"greeting\"}}";
    int rc = perf_sqs_send(sqs, url, &m, 0, id, sizeof id);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    o.wait_s = 5;
    o.attributes = 1;
    rc = perf_sqs_receive(sqs, url, &o, &list);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_sqs_messages_count(list), 1);
    cr_assert_str_eq(perf_sqs_messages_body(list, 0, &len), BODY);
    cr_assert_eq(len, strlen(BODY));
    cr_assert_str_eq(perf_sqs_messages_id(list, 0), id);
    const char *json = perf_sqs_messages_json(list, 0, &len);
    cr_assert(memmem(json, len, "greeting", 8));
    cr_assert_null(perf_sqs_messages_body(list, 1, NULL));

    /* it comes back at once when we give it back */
    const char *receipt = perf_sqs_messages_receipt(list, 0);
    rc = perf_sqs_change_visibility(sqs, url, &receipt, 1, 0, 0, NULL);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    perf_sqs_messages_release(list);
    rc = perf_sqs_receive(sqs, url, &o, &list);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_sqs_messages_count(list), 1);
    rc = perf_sqs_delete(sqs, url, list, 0, NULL);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    perf_sqs_messages_release(list);

    /* nothing: waits as long as it said, and is a success */
    int64_t from = ms_now();
    o.wait_s = 2;
    rc = perf_sqs_receive(sqs, url, &o, &list);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_sqs_messages_count(list), 0);
    cr_assert_geq(ms_now() - from, 1500);
    perf_sqs_messages_release(list);
    from = ms_now();
    o.wait_s = -1;
    cr_assert_eq(perf_sqs_receive(sqs, url, &o, &list), PERF_OK, "%s", perf_last_error());
    cr_assert_leq(ms_now() - from, 1500);
    perf_sqs_messages_release(list);

    cr_assert_eq(perf_sqs_queue_url(sqs, "first", NULL, 0, small, sizeof small), PERF_ETOOSMALL);
    cr_assert_eq(perf_sqs_queue_url(sqs, "absent", NULL, 0, url, sizeof url), PERF_EREMOTE);
    cr_assert(strstr(perf_aws_error_code(), "NonExistent") ||
                  strstr(perf_aws_error_code(), "DoesNotExist"),
              "%s", perf_aws_error_code());
}

static void batches(perf_aws *sqs)
{
    enum { MANY = 33 };
    perf_sqs_message m[MANY];
    const perf_sqs_message *all[MANY];
    static char bodies[MANY][32];
    perf_sqs_results *results;
    perf_sqs_messages *list;
    perf_sqs_receive_options o = PERF_SQS_RECEIVE_OPTIONS_INIT;
    for (int i = 0; i < MANY; i++) {
        m[i] = (perf_sqs_message)PERF_SQS_MESSAGE_INIT;
        snprintf(bodies[i], sizeof bodies[i], "message %d", i);
        m[i].body = (perf_bytes){bodies[i], strlen(bodies[i])};
        all[i] = &m[i];
    }
    create(sqs, "batches");
    int rc = perf_sqs_send_batch(sqs, url, all, MANY, 0, &results);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_sqs_results_count(results), MANY);
    for (size_t i = 0; i < MANY; i++) {
        cr_assert_eq(perf_sqs_results_status(results, i), PERF_OK);
        cr_assert_neq(perf_sqs_results_id(results, i)[0], 0);
        cr_assert_str_eq(perf_sqs_results_code(results, i), "");
    }
    cr_assert_eq(perf_sqs_results_status(results, MANY), PERF_EINVAL);
    perf_sqs_results_release(results);

    bool seen[MANY] = {false};
    size_t got = 0;
    o.wait_s = 1;
    while (got < MANY) {
        cr_assert_eq(perf_sqs_receive(sqs, url, &o, &list), PERF_OK, "%s", perf_last_error());
        size_t n = perf_sqs_messages_count(list);
        cr_assert(n > 0 && n <= 10);
        const char *receipts[10];
        for (size_t i = 0; i < n; i++) {
            int number = -1;
            cr_assert_eq(sscanf(perf_sqs_messages_body(list, i, NULL), "message %d", &number), 1);
            cr_assert(number >= 0 && number < MANY && !seen[number]);
            seen[number] = true;
            receipts[i] = perf_sqs_messages_receipt(list, i);
        }
        got += n;
        rc = perf_sqs_delete_receipts(sqs, url, receipts, n, 0, &results);
        cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
        cr_assert_eq(perf_sqs_results_count(results), n);
        perf_sqs_results_release(results);
        perf_sqs_messages_release(list);
    }

    /* three of 400 KiB are two requests */
    static char big[3][400 * 1024];
    for (int i = 0; i < 3; i++) {
        memset(big[i], 'a' + i, sizeof big[i]);
        m[i].body = (perf_bytes){big[i], sizeof big[i]};
    }
    perf_aws_stats before = PERF_AWS_STATS_INIT, after = PERF_AWS_STATS_INIT;
    perf_aws_get_stats(sqs, &before);
    rc = perf_sqs_send_batch(sqs, url, all, 3, 0, NULL);
    perf_aws_get_stats(sqs, &after);
    cr_assert_eq(after.calls - before.calls, 2, "%s", perf_last_error());
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());

    const char *wrong[] = {"no receipt"};
    rc = perf_sqs_delete_receipts(sqs, url, wrong, 1, 0, &results);
    if (rc == PERF_EREMOTE && perf_sqs_results_count(results))
        cr_assert_eq(perf_sqs_results_status(results, 0), PERF_EREMOTE);
    perf_sqs_results_release(results);
}

static void refused(perf_aws *sqs)
{
    perf_sqs_message m = PERF_SQS_MESSAGE_INIT;
    const perf_sqs_message *none[] = {NULL};
    perf_sqs_receive_options o = PERF_SQS_RECEIVE_OPTIONS_INIT;
    perf_sqs_messages *list;
    const char *receipt = "r";
    cr_assert_eq(perf_sqs_send(sqs, url, &m, 0, NULL, 0), PERF_EINVAL, "no body");
    m.body = (perf_bytes){"\xff", 1};
    cr_assert_eq(perf_sqs_send(sqs, url, &m, 0, NULL, 0), PERF_EINVAL, "no UTF-8");
    m.body = (perf_bytes){"x", 1};
    m.attributes = "{";
    cr_assert_eq(perf_sqs_send(sqs, url, &m, 0, NULL, 0), PERF_EINVAL, "no JSON");
    m.attributes = NULL;
    m.delay_s = 901;
    cr_assert_eq(perf_sqs_send(sqs, url, &m, 0, NULL, 0), PERF_EINVAL);
    cr_assert_eq(perf_sqs_send_batch(sqs, url, none, 1, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_sqs_send_batch(sqs, NULL, none, 0, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_sqs_change_visibility(sqs, url, &receipt, 1, -1, 0, NULL), PERF_EINVAL);
    o.max_messages = 11;
    cr_assert_eq(perf_sqs_receive(sqs, url, &o, &list), PERF_EINVAL);
    o.max_messages = 0;
    o.wait_s = 21;
    cr_assert_eq(perf_sqs_receive(sqs, url, &o, &list), PERF_EINVAL);
    cr_assert_eq(perf_sqs_receive(NULL, url, NULL, &list), PERF_EINVAL);
}

Test(aws_sqs, moto, .timeout = 180)
{
    struct test_server *moto = test_server_moto();
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *sqs = open_at(moto, moto->access_key, moto->secret_key);
    create(sqs, "first");
    struct test_leaks leaks = test_leaks_begin();
    refused(sqs);
    one_message(sqs);
    batches(sqs);
    test_leaks_end(&leaks);
    cr_assert_eq(perf_aws_close(sqs), PERF_OK);
    test_server_stop(moto);
}

/* What nginx answers to everything. */
static int receive_from(const char *json, bool send)
{
    char block[1024];
    snprintf(block, sizeof block,
             "server { listen 127.0.0.1:@PORT@; location / { "
             "default_type application/x-amz-json-1.0; return 200 '%s'; } }",
             json);
    struct test_server *nginx = test_server_nginx(block, 0);
    cr_assert_not_null(nginx, "%s", test_server_why());
    perf_aws *sqs = open_at(nginx, "AKIDEXAMPLE", "SECRETEXAMPLE");
    perf_sqs_messages *list = NULL;
    perf_sqs_message m = PERF_SQS_MESSAGE_INIT;
    const perf_sqs_message *all[] = {&m, &m};
    m.body = (perf_bytes){"hello", 5};
    int rc = send ? perf_sqs_send_batch(sqs, "http://q/1/a", all, 2, 3000, NULL)
                  : perf_sqs_receive(sqs, "http://q/1/a", NULL, &list);
    perf_sqs_messages_release(list);
    cr_assert_eq(perf_aws_close(sqs), PERF_OK);
    test_server_stop(nginx);
    return rc;
}

#define MESSAGE(body, md5)                                                         \
    "{\"Messages\":[{\"MessageId\":\"1\",\"ReceiptHandle\":\"r\",\"Body\":\"" body \
    "\",\"MD5OfBody\":\"" md5 "\"}]}"
#define HELLO_MD5 "5d41402abc4b2a76b9719d911017c592"

Test(aws_sqs, replies_are_checked, .timeout = 60)
{
    struct test_server *there = test_server_nginx("server { listen 127.0.0.1:@PORT@; }", 0);
    if (!there)
        PERF_TEST_SKIP(test_server_why());
    test_server_stop(there);
    cr_assert_eq(receive_from(MESSAGE("hello", HELLO_MD5), false), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(receive_from(MESSAGE("hellO", HELLO_MD5), false), PERF_EPROTOCOL);
    cr_assert_eq(receive_from("{\"Messages\":[{\"Body\":\"hello\"}]}", false), PERF_EPROTOCOL);
    cr_assert_eq(receive_from("{\"Messages\":[", false), PERF_EPROTOCOL);
    cr_assert_eq(receive_from("{\"Successful\":[{\"Id\":\"0\",\"MessageId\":\"a\","
                              "\"MD5OfMessageBody\":\"" HELLO_MD5 "\"},{\"Id\":\"1\","
                              "\"MessageId\":\"b\",\"MD5OfMessageBody\":\"" HELLO_MD5 "\"}]}",
                              true),
                 PERF_OK, "%s", perf_last_error());
    cr_assert_eq(receive_from("{\"Successful\":[{\"Id\":\"0\",\"MessageId\":\"a\","
                              "\"MD5OfMessageBody\":\"" HELLO_MD5 "\"}]}",
                              true),
                 PERF_EPROTOCOL, "not a word of the second");
    cr_assert_eq(receive_from("{\"Successful\":[{\"Id\":\"7\"}]}", true), PERF_EPROTOCOL);
    cr_assert_eq(receive_from("{\"Failed\":[{\"Id\":\"0\",\"Code\":\"Bad\",\"SenderFault\":true},"
                              "{\"Id\":\"1\",\"Code\":\"Bad\",\"SenderFault\":true}]}",
                              true),
                 PERF_EREMOTE);
    cr_assert(strstr(perf_last_error(), "Bad"), "%s", perf_last_error());
    cr_assert_eq(receive_from("{\"Failed\":[{\"Id\":\"0\",\"Code\":\"Ours\",\"SenderFault\":false},"
                              "{\"Id\":\"1\",\"Code\":\"Ours\",\"SenderFault\":false}]}",
                              true),
                 PERF_ETHROTTLED, "tried until the time was over");
}
