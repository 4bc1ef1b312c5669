/* SPDX-License-Identifier: MIT */
/*
 * net_aws_client_test.c - what a client makes of options, environment and profile; what it refuses
 * to send; and what it makes of a service's errors, hostile ones too.
 */
#include "../../src/net/aws_client.h"
#include "../../src/net/http_reply.h"
#include "aws_fixture.h"

static perf_aws *open_service(struct aws_home *h, const char *service)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    o.service = service;
    o.host = h->host;
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s: %s", service, perf_last_error());
    return aws;
}

/* Where a client of the service goes, with the environment as it is. */
static void goes_to(struct aws_home *h, const char *service, const char *endpoint)
{
    perf_aws *aws = open_service(h, service);
    cr_assert_str_eq(perf_aws_endpoint(aws), endpoint);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
}

static void refused(const perf_aws_options *o, const char *what)
{
    perf_aws *aws = NULL;
    cr_assert_eq(perf_aws_open(o, &aws), PERF_EINVAL, "%s", what);
    cr_assert(strstr(perf_last_error(), what), "%s", perf_last_error());
    cr_assert_null(aws);
}

Test(net_aws_client, endpoints)
{
    struct aws_home h;
    aws_home_begin(&h,
                   "[default]\nregion = eu-west-1\n"
                   "[profile local]\nregion = eu-central-1\nservices = here\n"
                   "[services here]\ns3 =\n  endpoint_url = http://s3.local:9000\n",
                   NULL);
    goes_to(&h, "dynamodb", "https://dynamodb.eu-west-1.amazonaws.com");
    goes_to(&h, "cloudwatch", "https://monitoring.eu-west-1.amazonaws.com");
    goes_to(&h, "iam", "https://iam.amazonaws.com");
    setenv("AWS_REGION", "us-west-2", 1);
    goes_to(&h, "sqs", "https://sqs.us-west-2.amazonaws.com");
    setenv("AWS_ENDPOINT_URL", "http://localhost:4566/", 1);
    goes_to(&h, "sqs", "http://localhost:4566");
    setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://localhost:8000", 1);
    goes_to(&h, "dynamodb", "http://localhost:8000");
    goes_to(&h, "sqs", "http://localhost:4566");
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", 1);
    goes_to(&h, "dynamodb", "https://dynamodb.us-west-2.amazonaws.com");
    test_unset_all("AWS_");
    setenv("AWS_PROFILE", "local", 1);
    goes_to(&h, "s3", "http://s3.local:9000");
    goes_to(&h, "sts", "https://sts.eu-central-1.amazonaws.com");
    unsetenv("AWS_PROFILE");

    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws;
    o.service = "dynamodb";
    o.region = "ap-south-1";
    o.endpoint_url = "https://example.com:444";
    o.host = h.host;
    setenv("AWS_ENDPOINT_URL", "http://localhost:4566/", 1);
    cr_assert_eq(perf_aws_open(&o, &aws), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_region(aws), "ap-south-1");
    cr_assert_str_eq(perf_aws_endpoint(aws), "https://example.com:444");
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    cr_assert_eq(perf_aws_close(NULL), PERF_OK);
    cr_assert_str_eq(perf_aws_region(NULL), "");
    aws_home_end(&h);
}

Test(net_aws_client, options_and_their_errors)
{
    struct aws_home h;
    aws_home_begin(&h, NULL, NULL);
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    o.host = h.host;
    refused(NULL, "service");
    refused(&o, "service");
    o.service = "dyna modb";
    refused(&o, "0x20");
    o.service = "";
    refused(&o, "service");
    o.service = "dynamodb";
    refused(&o, "AWS_REGION");
    o.region = "eu west";
    refused(&o, "region");
    o.region = "eu-west-1";
    static const char *const urls[] = {"localhost:8000", "ftp://localhost", "http://",
                                       "http://a/path",  "http://a?x=1",    "http://user:pw@a",
                                       "http://a b"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        o.endpoint_url = urls[i];
        refused(&o, "endpoint");
        cr_assert_null(strstr(perf_last_error(), "pw"));
    }
    o.endpoint_url = NULL;
    o.no_breaker = 2;
    refused(&o, "no_breaker");
    o.no_breaker = 1;
    o.max_attempts = 101;
    refused(&o, "max_attempts");
    o.max_attempts = 1;
    o.timeout_ms = -1;
    refused(&o, "timeout_ms");
    o.timeout_ms = 0;
    o.attempt_timeout_ms = INT64_MAX;
    refused(&o, "attempt_timeout_ms");
    o.attempt_timeout_ms = 0;
    o.protocol = 4;
    refused(&o, "protocol");
    o.service = "neverheardof";
    o.protocol = PERF_AWS_PROTOCOL_JSON;
    refused(&o, "target");
    o.protocol = PERF_AWS_PROTOCOL_QUERY;
    refused(&o, "api_version");
    o.api_version = "2020-01-01";
    perf_aws *aws;
    cr_assert_eq(perf_aws_open(&o, &aws), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    setenv("AWS_RETRY_MODE", "sometimes", 1);
    o.service = "dynamodb";
    o.protocol = 0;
    refused(&o, "sometimes");
    o.struct_size = 4;
    refused(&o, "struct_size");
    cr_assert_eq(perf_aws_open(&o, NULL), PERF_EINVAL);
    aws_home_end(&h);
}

/* A request that must not be sent: nothing listens where it would go. */
static void not_sent(perf_aws *aws, const perf_aws_request *r, const char *what)
{
    perf_aws_reply *reply = NULL;
    perf_aws_operation *op = NULL;
    cr_assert_eq(perf_aws_perform(aws, r, &reply), PERF_EINVAL, "%s", what);
    cr_assert(strstr(perf_last_error(), what), "%s", perf_last_error());
    cr_assert_eq(perf_aws_start(aws, r, &op), PERF_EINVAL, "%s", what);
    cr_assert_null(reply);
    cr_assert_null(op);
}

static int64_t read_nothing(void *ctx, void *buf, size_t size)
{
    (void)ctx, (void)buf, (void)size;
    return 0;
}

Test(net_aws_client, requests_and_their_errors)
{
    struct aws_home h;
    aws_home_begin(&h, "[default]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:1\n", NULL);
    perf_aws *rest = open_service(&h, "s3"), *json = open_service(&h, "dynamodb");
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    perf_aws_reply *reply = NULL;
    perf_http_header half = {"a", NULL};
    static char text[200];
    memset(text, 'x', sizeof text - 1);
    not_sent(rest, &r, "operation");
    r.operation = text;
    not_sent(rest, &r, "operation");
    r.operation = "Get Object";
    not_sent(rest, &r, "operation");
    r.operation = "GetObject";
    r.path = "a/b";
    not_sent(rest, &r, "path");
    r.path = "/a b";
    not_sent(rest, &r, "path");
    r.path = NULL;
    r.query = "a=\r\n";
    not_sent(rest, &r, "query");
    r.query = NULL;
    r.host_prefix = "evil/";
    not_sent(rest, &r, "host_prefix");
    r.host_prefix = NULL;
    r.header_count = 65;
    not_sent(rest, &r, "header_count");
    r.header_count = 1;
    not_sent(rest, &r, "headers[0]");
    r.headers = &half;
    not_sent(rest, &r, "headers[0]");
    r.header_count = 0;
    r.timeout_ms = -1;
    not_sent(rest, &r, "timeout_ms");
    r.timeout_ms = 0;
    r.read = read_nothing;
    r.read_len = -1;
    not_sent(rest, &r, "read_len");
    r.read_len = 0;
    not_sent(json, &r, "REST");
    r.body = (perf_bytes){"x", 1};
    not_sent(rest, &r, "body and read");

    cr_assert_eq(perf_aws_call(rest, "GetObject", NULL, 0, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_aws_call(NULL, "GetItem", NULL, 0, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_aws_call(json, "GetItem", NULL, 0, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_perform(json, NULL, &reply), PERF_EINVAL);
    cr_assert_eq(perf_aws_start(json, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_fd(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_next_done(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_aws_operation_wait(NULL, 0, NULL), PERF_EINVAL);
    perf_aws_operation_cancel(NULL);
    perf_aws_operation_release(NULL);
    perf_aws_reply_release(NULL);
    cr_assert_str_eq(perf_aws_reply_request_id(NULL), "");
    cr_assert_eq(perf_aws_reply_status(NULL), 0);
    cr_assert_eq(perf_aws_reply_size(NULL), 0);
    cr_assert_eq(perf_aws_reply_attempts(NULL), 0);
    cr_assert_null(perf_aws_reply_header(NULL, "a"));
    cr_assert_eq(perf_aws_get_stats(NULL, NULL), PERF_EINVAL);
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    cr_assert_eq(perf_aws_get_stats(json, &stats), PERF_OK);
    cr_assert_eq(stats.attempts, 0);
    cr_assert_eq(perf_aws_close(rest), PERF_OK);
    cr_assert_eq(perf_aws_close(json), PERF_OK);
    aws_home_end(&h);
    cr_assert_eq(h.th.live, 0);
}

/* --------------------------------------------------------------------- errors */

/* What is read out of a reply with this status, one header line (or NULL), and this body. */
static struct perf__aws_error read_error(int status, const char *header, const char *body,
                                         size_t len)
{
    struct test_host th;
    struct perf__aws_error e;
    char line[512];
    test_host_init(&th);
    perf_http_reply *reply = perf__http_reply_new(&th.allocator);
    int n = snprintf(line, sizeof line, "HTTP/1.1 %d X\r\n", status);
    cr_assert_eq(perf__http_reply_line(reply, line, (size_t)n, 65536), PERF_OK);
    if (header) {
        n = snprintf(line, sizeof line, "%s\r\n", header);
        cr_assert_eq(perf__http_reply_line(reply, line, (size_t)n, 65536), PERF_OK);
    }
    cr_assert_eq(perf__http_reply_line(reply, "\r\n", 2, 65536), PERF_OK);
    cr_assert_eq(perf__http_reply_append(reply, body, len, 1 << 20), PERF_OK);
    perf__aws_error_read(perf__aws_service_find("dynamodb"), reply, NULL, 0, &e);
    perf_http_reply_release(reply);
    cr_assert_eq(th.live, 0);
    return e;
}

static void reads(const char *header, const char *body, const char *code, const char *message)
{
    struct perf__aws_error e = read_error(400, header, body, strlen(body));
    cr_assert_str_eq(e.code, code);
    cr_assert_str_eq(e.message, message);
    cr_assert_eq(e.status, 400);
}

Test(net_aws_client, errors_are_read)
{
    reads(NULL, "{\"__type\":\"com.amazonaws.dynamodb.v20120810#SlowDown\",\"message\":\"no\"}",
          "SlowDown", "no");
    reads(NULL, " {\"code\":\"Bad:http://internal/\",\"Message\":\"N\"}", "Bad", "N");
    reads("x-amzn-ErrorType: Throttled:http://a/", "{\"message\":\"m\"}", "Throttled", "m");
    reads("x-amzn-query-error: AWS.Old.Name;Sender", "{\"__type\":\"new#NewName\"}", "NewName", "");
    reads("x-amzn-query-error: AWS.Old.Name;Sender", "", "AWS.Old.Name", "");
    reads(NULL,
          "<?xml version=\"1.0\"?><ErrorResponse><Error><Type>Sender</Type><Code>Denied</Code>"
          "<Message>who &amp; what</Message></Error><RequestId>id-1</RequestId></ErrorResponse>",
          "Denied", "who & what");
    reads(NULL, "<Error><Code>NoSuchKey</Code><Message>m</Message><RequestId>r</RequestId></Error>",
          "NoSuchKey", "m");
    struct perf__aws_error e = read_error(503, "x-amzn-RequestId: abc", "", 0);
    cr_assert_str_eq(e.request_id, "abc");
    cr_assert_str_eq(e.code, "");
    static const char xml[] = "<E><RequestID>q-9</RequestID></E>";
    e = read_error(503, NULL, xml, strlen(xml));
    cr_assert_str_eq(e.request_id, "q-9");
}

Test(net_aws_client, hostile_errors)
{
    static char big[200000];
    reads(NULL, "{\"__type\":\"a\x1b[31mb\",\"message\":\"x\\ny\\u0007\"}", "a?[31mb", "x?y?");
    reads(NULL, "{\"__type\":\"a\\u001bb\",\"message\":\"x\\ny\xc3\xa4\"}", "a?b", "x?y??");
    reads(NULL, "{\"__type\":7,\"message\":[]}", "", "");
    reads(NULL, "{\"__type\":\"Half", "", "");
    reads(NULL, "<!DOCTYPE a [<!ENTITY x \"y\">]><E><Code>&x;</Code></E>", "", "");
    reads(NULL, "<E><Code>Kept</Code><Message>half", "Kept", "");
    reads(NULL, "[\"__type\"]", "", "");
    reads(NULL, "\xff\xfe{", "", "");
    size_t n = (size_t)snprintf(big, sizeof big, "{\"__type\":\"");
    memset(big + n, 'A', 1000);
    n += 1000;
    n += (size_t)snprintf(big + n, sizeof big - n, "\",\"message\":\"");
    memset(big + n, 'B', 1000);
    n += 1000;
    n += (size_t)snprintf(big + n, sizeof big - n, "\"}");
    struct perf__aws_error e = read_error(400, NULL, big, n);
    cr_assert_eq(strlen(e.code), sizeof e.code - 1);
    cr_assert_eq(strlen(e.message), sizeof e.message - 1);
    for (n = 0; n + 3 < sizeof big; n += 3)
        memcpy(big + n, "<a>", 3);
    e = read_error(500, NULL, big, n);
    cr_assert_str_eq(e.code, "");
    memset(big, '[', sizeof big);
    big[0] = '{';
    e = read_error(500, NULL, big, sizeof big);
    cr_assert_str_eq(e.code, "");
    memset(big, 0, sizeof big);
    e = read_error(500, NULL, big, sizeof big);
    cr_assert_str_eq(e.message, "");
}

Test(net_aws_client, codes_become_status)
{
    static const struct {
        int http;
        const char *code;
        int status;
    } cases[] = {{404, "NoSuchKey", PERF_MISS},
                 {404, "", PERF_MISS},
                 {404, "NoSuchBucket", PERF_EREMOTE},
                 {400, "ResourceNotFoundException", PERF_EREMOTE},
                 {400, "ConditionalCheckFailedException", PERF_ECONFLICT},
                 {400, "TransactionCanceledException", PERF_ECONFLICT},
                 {412, "PreconditionFailed", PERF_ECONFLICT},
                 {409, "", PERF_ECONFLICT},
                 {400, "ProvisionedThroughputExceededException", PERF_ETHROTTLED},
                 {400, "ThrottlingException", PERF_ETHROTTLED},
                 {503, "SlowDown", PERF_ETHROTTLED},
                 {429, "", PERF_ETHROTTLED},
                 {403, "", PERF_EACCESS},
                 {400, "UnrecognizedClientException", PERF_EACCESS},
                 {400, "ExpiredTokenException", PERF_EACCESS},
                 {403, "SignatureDoesNotMatch", PERF_EACCESS},
                 {503, "", PERF_EUNAVAILABLE},
                 {502, "", PERF_EUNAVAILABLE},
                 {500, "InternalServerError", PERF_EREMOTE},
                 {400, "ValidationException", PERF_EREMOTE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__aws_error e = {.status = cases[i].http};
        snprintf(e.code, sizeof e.code, "%s", cases[i].code);
        cr_assert_eq(perf__aws_error_status_of(&e), cases[i].status, "%d %s: %s", cases[i].http,
                     cases[i].code, perf_strstatus(perf__aws_error_status_of(&e)));
    }
}

Test(net_aws_client, dates)
{
    cr_assert_eq(perf__aws_parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), 0);
    cr_assert_eq(perf__aws_parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), INT64_C(784111777000));
    cr_assert_eq(perf__aws_parse_date("Thu, 29 Feb 2024 23:59:59 GMT"), INT64_C(1709251199000));
    static const char *const bad[] = {"",
                                      "now",
                                      "Sun, 06 Xxx 1994 08:49:37 GMT",
                                      "Sun, 06 anF 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 0001 08:49:37 GMT",
                                      "Sun, 06 Nov 1994",
                                      "Sun, 99 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 99:99:99 GMT",
                                      "Sun, -6 Nov 1994 08:49:37 GMT"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(perf__aws_parse_date(bad[i]), -1, "%s", bad[i]);
    cr_assert_eq(perf__aws_parse_date(NULL), -1);
}

Test(net_aws_client, services)
{
    cr_assert_str_eq(perf__aws_service_find("dynamodb")->target, "DynamoDB_20120810");
    cr_assert_eq(perf__aws_service_find("monitoring")->protocol, PERF_AWS_PROTOCOL_QUERY);
    cr_assert_str_eq(perf__aws_service_find("bedrock-runtime")->signing_name, "bedrock");
    cr_assert(perf__aws_service_find("iam")->global);
    cr_assert_eq(perf__aws_service_find("unheard")->protocol, PERF_AWS_PROTOCOL_REST);
}
