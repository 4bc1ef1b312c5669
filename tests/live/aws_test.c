/* SPDX-License-Identifier: MIT */
/*
 * aws_test.c - the AWS client against services that check what it does: moto, which verifies
 * signatures, and DynamoDB Local, which is Amazon's own.
 */
#include <libperf/perf.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

static const perf_host own = PERF_HOST_INIT;

static perf_aws *client(const char *service, const struct test_server *server, const char *id,
                        const char *secret, perf_aws_options o)
{
    perf_aws *aws = NULL;
    setenv("AWS_ACCESS_KEY_ID", id, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    unsetenv("AWS_SESSION_TOKEN");
    unsetenv("AWS_PROFILE");
    o.service = service;
    o.region = "us-east-1";
    o.endpoint_url = server->url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    if (!o.host)
        o.host = &own; /* keys of its own: the shared ones may be those of another test */
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

static int call(perf_aws *aws, const char *operation, const char *json, perf_aws_reply **reply)
{
    *reply = NULL;
    return perf_aws_call(aws, operation, json, strlen(json), 20000, reply);
}

static void must(perf_aws *aws, const char *operation, const char *json, const char *expect)
{
    perf_aws_reply *reply;
    int rc = call(aws, operation, json, &reply);
    cr_assert_eq(rc, PERF_OK, "%s: %s", operation, perf_last_error());
    cr_assert(strstr(perf_aws_reply_body(reply), expect), "%s: %s", operation,
              (const char *)perf_aws_reply_body(reply));
    cr_assert_eq(perf_aws_reply_status(reply), 200);
    perf_aws_reply_release(reply);
}

static const char TABLE[] =
    "{\"TableName\":\"things\",\"BillingMode\":\"PAY_PER_REQUEST\","
    "\"AttributeDefinitions\":[{\"AttributeName\":\"k\",\"AttributeType\":\"S\"}],"
    "\"KeySchema\":[{\"AttributeName\":\"k\",\"KeyType\":\"HASH\"}]}";
static const char PUT[] =
    "{\"TableName\":\"things\",\"Item\":{\"k\":{\"S\":\"a\"},\"v\":{\"N\":\"42\"}}}";
static const char GET[] = "{\"TableName\":\"things\",\"Key\":{\"k\":{\"S\":\"a\"}}}";

struct flock {
    _Atomic int done, failed;
};

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    struct flock *f = ctx;
    if (status || !strstr(perf_aws_reply_body(reply), "42"))
        atomic_fetch_add(&f->failed, 1);
    perf_aws_reply_release(reply);
    atomic_fetch_add(&f->done, 1);
}

static void many_at_once(perf_aws *aws)
{
    enum { CALLS = 200 };
    struct flock f = {0, 0};
    perf_aws_operation *ops[CALLS];
    for (int i = 0; i < CALLS; i++) {
        perf_aws_request r = PERF_AWS_REQUEST_INIT;
        r.operation = "GetItem";
        r.body = (perf_bytes){GET, strlen(GET)};
        r.done = i % 2 ? on_done : NULL;
        r.done_ctx = &f;
        r.timeout_ms = 30000;
        int rc = perf_aws_start(aws, &r, &ops[i]);
        cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    }
    int fd, fetched = 0;
    cr_assert_eq(perf_aws_fd(aws, &fd), PERF_OK);
    while (fetched < CALLS / 2) {
        struct pollfd p = {fd, POLLIN, 0};
        perf_aws_operation *op;
        perf_aws_reply *reply;
        cr_assert_gt(poll(&p, 1, 30000), 0, "nothing came");
        while (perf_aws_next_done(aws, &op) == PERF_OK) {
            int rc = perf_aws_operation_wait(op, 0, &reply);
            cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
            cr_assert(strstr(perf_aws_reply_body(reply), "42"));
            perf_aws_reply_release(reply);
            cr_assert_eq(perf_aws_operation_wait(op, 0, &reply), PERF_EINVAL);
            fetched++;
        }
    }
    for (int i = 0; i < 30000 && atomic_load(&f.done) < CALLS / 2; i++)
        poll(NULL, 0, 1);
    cr_assert_eq(atomic_load(&f.done), CALLS / 2);
    cr_assert_eq(atomic_load(&f.failed), 0);
    for (int i = 0; i < CALLS; i++)
        perf_aws_operation_release(ops[i]);
}

/* It may be over before it is cancelled. */
static void cancel(perf_aws *aws)
{
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    perf_aws_operation *op;
    perf_aws_reply *reply;
    r.operation = "GetItem";
    r.body = (perf_bytes){GET, strlen(GET)};
    cr_assert_eq(perf_aws_start(aws, &r, &op), PERF_OK);
    perf_aws_operation_cancel(op);
    int rc = perf_aws_operation_wait(op, 30000, &reply);
    cr_assert(rc == PERF_ECANCELED || rc == PERF_OK, "%s", perf_last_error());
    if (rc == PERF_OK)
        perf_aws_reply_release(reply);
    perf_aws_operation_release(op);
}

Test(aws_live, one_client_for_a_process)
{
    perf_aws *first, *second;
    setenv("AWS_REGION", "eu-central-1", 1);
    cr_assert_eq(perf_aws_shared("monitoring", &first), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_shared("cloudwatch", &second), PERF_OK);
    cr_assert_eq(first, second);
    cr_assert_str_eq(perf_aws_region(first), "eu-central-1");
    cr_assert_str_eq(perf_aws_endpoint(first), "https://monitoring.eu-central-1.amazonaws.com");
    cr_assert_eq(perf_aws_shared("sqs", &second), PERF_OK);
    cr_assert_neq(first, second);
}

Test(aws_live, dynamodb_local, .timeout = 120)
{
    struct test_server *server = test_server_dynamodb();
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws_reply *reply;
    perf_aws *aws = client("dynamodb", server, "AKIDEXAMPLE", "wJalrSECRETKEY", o);
    cr_assert_str_eq(perf_aws_region(aws), "us-east-1");
    cr_assert_str_eq(perf_aws_endpoint(aws), server->url);
    must(aws, "CreateTable", TABLE, "things");
    must(aws, "PutItem", PUT, "{}");
    must(aws, "GetItem", GET, "42");

    cr_assert_eq(call(aws, "CreateTable", TABLE, &reply), PERF_ECONFLICT);
    cr_assert_str_eq(perf_aws_error_code(), "ResourceInUseException");
    cr_assert_eq(perf_aws_error_status(), 400);
    cr_assert_eq(
        call(aws, "GetItem", "{\"TableName\":\"others\",\"Key\":{\"k\":{\"S\":\"a\"}}}", &reply),
        PERF_EREMOTE);
    cr_assert_str_eq(perf_aws_error_code(), "ResourceNotFoundException");
    cr_assert(strstr(perf_last_error(), "dynamodb GetItem: ResourceNotFoundException"), "%s",
              perf_last_error());
    cr_assert_neq(perf_aws_error_request_id()[0], 0);
    cr_assert_eq(call(aws, "GetItem", "not json", &reply), PERF_EREMOTE);
    cr_assert_null(reply);

    cr_assert_eq(call(aws, "GetItem", GET, &reply), PERF_OK);
    cr_assert_eq(perf_aws_reply_attempts(reply), 1);
    cr_assert_neq(perf_aws_reply_request_id(reply)[0], 0);
    perf_aws_reply_release(reply);
    many_at_once(aws);
    cancel(aws);
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    cr_assert_eq(perf_aws_get_stats(aws, &stats), PERF_OK);
    cr_assert_eq(stats.in_flight, 0);
    cr_assert_eq(stats.calls, 208);
    cr_assert_geq(stats.failed, 3);
    cr_assert_leq(stats.failed, 4);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    test_server_stop(server);
}

Test(aws_live, signatures_are_checked, .timeout = 120)
{
    struct test_server *moto = test_server_moto();
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws_reply *reply;
    perf_aws *sqs = client("sqs", moto, moto->access_key, moto->secret_key, o);
    must(sqs, "CreateQueue", "{\"QueueName\":\"q1\"}", "q1");
    cr_assert_eq(perf_aws_close(sqs), PERF_OK);

    /* From here on: the clients of perf_aws_shared, which another test of this process may have
     * asked for, keep what the first call of all opened. */
    struct test_leaks leaks = test_leaks_begin();
    perf_aws *sts = client("sts", moto, moto->access_key, moto->secret_key, o);
    must(sts, "GetCallerIdentity", "", "<Arn>");
    cr_assert_eq(perf_aws_close(sts), PERF_OK);

    perf_aws *wrong = client("sqs", moto, moto->access_key, "wrong-secret-0123456789", o);
    cr_assert_eq(call(wrong, "ListQueues", "{}", &reply), PERF_EACCESS);
    cr_assert_str_eq(perf_aws_error_code(), "SignatureDoesNotMatch", "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "wrong-secret"));
    cr_assert_eq(perf_aws_close(wrong), PERF_OK);

    wrong = client("sts", moto, moto->access_key, "wrong-secret-0123456789", o);
    cr_assert_eq(call(wrong, "GetCallerIdentity", "", &reply), PERF_EACCESS);
    cr_assert_eq(perf_aws_error_status(), 403);
    cr_assert_eq(perf_aws_close(wrong), PERF_OK);
    test_leaks_end(&leaks);
    test_server_stop(moto);
}
