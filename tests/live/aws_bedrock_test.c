/* SPDX-License-Identifier: MIT */
/*
 * aws_bedrock_test.c - the Bedrock client: InvokeModel against moto; streams, which moto has not,
 * from files of event-stream bytes that nginx serves and toxiproxy cuts into slow pieces. Our
 * encoder makes them, and botocore's parser, which is another's work, reads the same in them.
 */
#include <libperf/aws_bedrock.h>
#include <libperf/aws_eventstream.h>

#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

#define OK(call) cr_assert_eq((call), PERF_OK, "%s", perf_last_error())
#define IS(code, call)                                                               \
    do {                                                                             \
        int got_ = (call);                                                           \
        cr_assert_eq(got_, code, "%s: %s", perf_strstatus(got_), perf_last_error()); \
    } while (0)

static perf_aws_keys *keys;

static int give_keys(void *ctx, int64_t timeout_ms, perf_aws_keys **out)
{
    (void)ctx, (void)timeout_ms;
    *out = perf_aws_keys_share(keys);
    return PERF_OK;
}

struct client {
    perf_aws_credentials *credentials;
    perf_http *http;
    perf_aws *aws;
};

static void begin(struct client *c, const char *url, const char *id, const char *secret)
{
    perf_aws_credentials_provider p = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials_options co = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    OK(perf_aws_keys_new(id, secret, NULL, 0, NULL, &keys));
    p.get = give_keys;
    co.provider = &p;
    OK(perf_aws_credentials_open(&co, &c->credentials));
    OK(perf_http_open(NULL, &c->http));
    o.service = "bedrock-runtime";
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.credentials = c->credentials;
    o.http = c->http;
    OK(perf_aws_open(&o, &c->aws));
}

static void end(struct client *c)
{
    OK(perf_aws_close(c->aws));
    perf_http_close(c->http);
    OK(perf_aws_credentials_close(c->credentials));
    perf_aws_keys_release(keys);
}

Test(bedrock_live, invoke, .timeout = 120)
{
    struct test_server *moto = test_server_moto();
    struct client c;
    perf_aws_reply *reply = NULL;
    static const char body[] = "{\"inputText\": \"hello\"}";
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    begin(&c, moto->url, moto->access_key, moto->secret_key);
    OK(perf_bedrock_invoke(c.aws, "amazon.titan-text-lite-v1:0", body, sizeof body - 1, NULL,
                           &reply));
    cr_assert_eq(perf_aws_reply_status(reply), 200);
    cr_assert_gt(perf_aws_reply_size(reply), 0);
    perf_aws_reply_release(reply);
    IS(PERF_EINVAL, perf_bedrock_invoke(c.aws, "", body, 1, NULL, &reply));
    perf_bedrock_options o = PERF_BEDROCK_OPTIONS_INIT;
    o.guardrail_id = "g";
    IS(PERF_EINVAL, perf_bedrock_invoke(c.aws, "m", body, 1, &o, &reply));
    end(&c);
    begin(&c, moto->url, moto->access_key, "notTheSecret");
    IS(PERF_EACCESS, perf_bedrock_invoke(c.aws, "amazon.titan-text-lite-v1:0", body,
                                         sizeof body - 1, NULL, &reply));
    end(&c);
    test_server_stop(moto);
}

/* ----------------------------------------------------------------------- recordings */

static void append(FILE *f, const char *kind, const char *name, const char *value,
                   const char *payload)
{
    perf_eventstream_header h[3] = {PERF_EVENTSTREAM_HEADER_INIT, PERF_EVENTSTREAM_HEADER_INIT,
                                    PERF_EVENTSTREAM_HEADER_INIT};
    const char *const texts[3][2] = {
        {name, value}, {":content-type", "application/json"}, {":message-type", kind}};
    uint8_t out[4096];
    size_t len = 0;
    for (int i = 0; i < 3; i++) {
        h[i].name = texts[i][0];
        h[i].type = PERF_EVENTSTREAM_TEXT;
        h[i].bytes = (perf_bytes){texts[i][1], strlen(texts[i][1])};
    }
    OK(perf_eventstream_encode(h, 3, payload, strlen(payload), out, sizeof out, &len));
    cr_assert_eq(fwrite(out, 1, len, f), len);
}

enum { DELTAS = 100 };

static FILE *create(struct test_server *s, const char *name)
{
    FILE *f = fopen(test_server_file(s, name), "w");
    cr_assert_not_null(f);
    return f;
}

static void put_deltas(FILE *f, int count)
{
    append(f, "event", ":event-type", "messageStart", "{\"role\":\"assistant\"}");
    for (int i = 0; i < count; i++) {
        char json[200];
        snprintf(json, sizeof json,
                 "{\"contentBlockIndex\":0,\"delta\":{\"text\":\"w\xc3\xb6rd %d \"}}", i);
        append(f, "event", ":event-type", "contentBlockDelta", json);
    }
}

static void make_recordings(struct test_server *s)
{
    FILE *f = create(s, "converse");
    put_deltas(f, DELTAS);
    append(f, "event", ":event-type", "messageStop", "{\"stopReason\":\"end_turn\"}");
    fclose(f);
    f = create(s, "cut");
    put_deltas(f, 3);
    cr_assert_eq(fwrite("\0\0\1", 1, 3, f), 3);
    fclose(f);
    f = create(s, "damaged");
    put_deltas(f, 3);
    fseek(f, -6, SEEK_END);
    fputc('#', f);
    fclose(f);
    f = create(s, "throttled");
    put_deltas(f, 2);
    append(f, "exception", ":exception-type", "throttlingException",
           "{\"message\":\"Too many tokens\"}");
    fclose(f);
    f = create(s, "broken");
    append(f, "exception", ":exception-type", "modelStreamErrorException",
           "{\"message\":\"it fell over\",\"originalStatusCode\":500}");
    fclose(f);
    f = create(s, "invoke");
    /* {"outputText":"one"} and {"outputText":"tw"} and nothing, in base64 */
    append(f, "event", ":event-type", "chunk",
           "{\"bytes\":\"eyJvdXRwdXRUZXh0Ijoib25lIn0=\",\"p\":\"abc\"}");
    append(f, "event", ":event-type", "chunk", "{\"bytes\":\"eyJvdXRwdXRUZXh0IjoidHcifQ==\"}");
    append(f, "event", ":event-type", "chunk", "{\"bytes\":\"\"}");
    fclose(f);
    f = create(s, "nonsense");
    append(f, "event", ":event-type", "chunk", "{\"bytes\":\"!!!!\"}");
    fclose(f);
}

/* The model's name is the recording's; POSTed to, nginx serves a file as if it were GET. */
static const char config[] =
    "    server {\n"
    "        listen 127.0.0.1:@PORT@;\n"
    "        default_type application/vnd.amazon.eventstream;\n"
    "        error_page 405 =200 $uri;\n"
    "        add_header x-amzn-RequestId the-request always;\n"
    "        location = /model/forbidden/converse-stream {\n"
    "            add_header x-amzn-errortype 'AccessDeniedException:http://x/' always;\n"
    "            default_type application/json;\n"
    "            return 403 '{\"message\":\"no\"}';\n"
    "        }\n"
    "        location ~ ^/model/.+/(converse|invoke)$ {\n"
    "            default_type application/json;\n"
    "            return 200 '{\"uri\":\"$request_uri\",\"type\":\"$content_type\","
    "\"guard\":\"$http_x_amzn_bedrock_guardrailidentifier\",\"auth\":\"$http_authorization\"}';\n"
    "        }\n"
    "        location ~ ^/model/([a-z]+)/ { rewrite ^/model/([a-z]+)/ /$1 last; }\n"
    "        location / { root @DIR@; }\n"
    "    }\n";

struct heard {
    int count;
    char types[256], all[8192];
    int64_t first_ms, last_ms;
    int fail_with;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int hear(void *ctx, const char *type, const void *json, size_t len)
{
    struct heard *h = ctx;
    cr_assert_eq(strlen(json), len);
    snprintf(h->types + strlen(h->types), sizeof h->types - strlen(h->types), "%c", type[0]);
    snprintf(h->all + strlen(h->all), sizeof h->all - strlen(h->all), "%s", (const char *)json);
    h->last_ms = now_ms();
    if (!h->count++)
        h->first_ms = h->last_ms;
    return h->fail_with;
}

static const char ask[] = "{\"messages\":[]}";

static int converse(struct client *c, const char *model, struct heard *h)
{
    memset(h, 0, sizeof *h);
    return perf_bedrock_converse_stream(c->aws, model, ask, sizeof ask - 1, NULL, hear, h);
}

static void expect_all_deltas(const struct heard *h)
{
    cr_assert_eq(h->count, DELTAS + 2);
    const char *at = h->all;
    for (int i = 0; i < DELTAS; i++) {
        char word[32];
        snprintf(word, sizeof word, "w\xc3\xb6rd %d ", i);
        at = strstr(at, word);
        cr_assert_not_null(at, "%s, in order", word);
    }
    cr_assert_not_null(strstr(at, "end_turn"));
}

static void what_botocore_reads(struct test_server *s)
{
    static const char script[] =
        "import sys, json\n"
        "from botocore.eventstream import EventStreamBuffer\n"
        "b = EventStreamBuffer()\n"
        "b.add_data(open('converse', 'rb').read())\n"
        "m = list(b)\n"
        "assert len(m) == 102, len(m)\n"
        "for i, x in enumerate(m[1:101]):\n"
        "    assert x.headers == {':event-type': 'contentBlockDelta', ':message-type': 'event',\n"
        "        ':content-type': 'application/json'}, x.headers\n"
        "    assert json.loads(x.payload)['delta']['text'] == 'w\\u00f6rd %d ' % i\n";
    const char *python = test_server_python();
    if (!python) {
        fprintf(stderr, "SKIPPED: botocore's reading: %s\n", test_server_why());
        return;
    }
    const char *const argv[] = {python, "-c", script, NULL};
    cr_assert(test_server_run(s, argv), "%s", test_server_why());
}

/* ---------------------------------------------------------------------------- streams */

static void pull(struct client *c, const char *model, int expected, struct heard *h)
{
    perf_bedrock_stream *stream = NULL;
    const char *type;
    const void *json;
    size_t len;
    int fd = -1, rc;
    memset(h, 0, sizeof *h);
    OK(perf_bedrock_stream_open(c->aws, PERF_BEDROCK_CONVERSE, model, ask, sizeof ask - 1, NULL,
                                &stream));
    OK(perf_bedrock_stream_fd(stream, &fd));
    for (;;) {
        rc = perf_bedrock_stream_next(stream, 0, &type, &json, &len);
        if (rc == PERF_EBUSY) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            cr_assert_eq(poll(&p, 1, 10000), 1, "something to say");
            continue;
        }
        if (rc != PERF_OK)
            break;
        hear(h, type, json, len);
    }
    IS(expected, rc);
    IS(expected, perf_bedrock_stream_next(stream, -1, &type, &json, &len));
    perf_bedrock_stream_close(stream);
}

static void endings(struct client *c)
{
    struct heard h;
    IS(PERF_EPROTOCOL, converse(c, "cut", &h));
    cr_assert_eq(h.count, 4);
    IS(PERF_ECORRUPT, converse(c, "damaged", &h));
    cr_assert_eq(h.count, 3);
    IS(PERF_ETHROTTLED, converse(c, "throttled", &h));
    cr_assert_eq(h.count, 3, "once, and not again");
    cr_assert_str_eq(perf_aws_error_code(), "throttlingException");
    cr_assert_str_eq(perf_aws_error_request_id(), "the-request");
    cr_assert_not_null(strstr(perf_last_error(), "Too many tokens"), "%s", perf_last_error());
    IS(PERF_EREMOTE, converse(c, "broken", &h));
    cr_assert_str_eq(perf_aws_error_code(), "modelStreamErrorException");
    IS(PERF_EACCESS, converse(c, "forbidden", &h));
    cr_assert_eq(h.count, 0);
    cr_assert_str_eq(perf_aws_error_code(), "AccessDeniedException");
    pull(c, "cut", PERF_EPROTOCOL, &h);
    pull(c, "throttled", PERF_ETHROTTLED, &h);
    cr_assert_str_eq(perf_aws_error_code(), "throttlingException");
    pull(c, "forbidden", PERF_EACCESS, &h);

    memset(&h, 0, sizeof h);
    h.fail_with = PERF_ECANCELED;
    IS(PERF_ECANCELED,
       perf_bedrock_converse_stream(c->aws, "converse", ask, sizeof ask - 1, NULL, hear, &h));
    cr_assert_eq(h.count, 1);
}

static void invoked(struct client *c)
{
    struct heard h = {0};
    OK(perf_bedrock_invoke_stream(c->aws, "invoke", ask, sizeof ask - 1, NULL, hear, &h));
    cr_assert_eq(h.count, 3);
    cr_assert_str_eq(h.all, "{\"outputText\":\"one\"}{\"outputText\":\"tw\"}");
    IS(PERF_EPROTOCOL,
       perf_bedrock_invoke_stream(c->aws, "nonsense", ask, sizeof ask - 1, NULL, hear, &h));
}

static void requests(struct client *c)
{
    static const char arn[] = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x-v1:0";
    perf_bedrock_options o = PERF_BEDROCK_OPTIONS_INIT;
    perf_aws_reply *reply = NULL;
    OK(perf_bedrock_converse(c->aws, arn, ask, sizeof ask - 1, NULL, &reply));
    const char *body = perf_aws_reply_body(reply);
    cr_assert_not_null(strstr(body, "\"/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-"
                                    "profile%2Fus.x-v1%3A0/converse\""),
                       "%s", body);
    cr_assert_not_null(strstr(body, "/us-east-1/bedrock/aws4_request"), "%s", body);
    cr_assert_not_null(strstr(body, "\"type\":\"application/json\""), "%s", body);
    perf_aws_reply_release(reply);
    o.guardrail_id = "g1";
    o.guardrail_version = "2";
    OK(perf_bedrock_invoke(c->aws, "m", ask, sizeof ask - 1, &o, &reply));
    cr_assert_not_null(strstr(perf_aws_reply_body(reply), "\"guard\":\"g1\""));
    perf_aws_reply_release(reply);
    IS(PERF_EINVAL, perf_bedrock_converse(c->aws, "m", ask, sizeof ask - 1, &o, &reply));
}

static void closed_early(struct client *c)
{
    perf_bedrock_options o = PERF_BEDROCK_OPTIONS_INIT;
    perf_bedrock_stream *stream = NULL;
    const char *type;
    const void *json;
    size_t len;
    for (int i = 0; i < 20; i++) {
        OK(perf_bedrock_stream_open(c->aws, PERF_BEDROCK_CONVERSE, "converse", ask, sizeof ask - 1,
                                    NULL, &stream));
        if (i & 1)
            OK(perf_bedrock_stream_next(stream, 5000, &type, &json, &len));
        perf_bedrock_stream_close(stream);
    }
    o.max_queue_bytes = 300;
    OK(perf_bedrock_stream_open(c->aws, PERF_BEDROCK_CONVERSE, "converse", ask, sizeof ask - 1, &o,
                                &stream));
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); /* nobody asks meanwhile */
    int rc;
    while ((rc = perf_bedrock_stream_next(stream, 5000, &type, &json, &len)) == PERF_OK)
        ;
    IS(PERF_ETOOBIG, rc);
    perf_bedrock_stream_close(stream);
    IS(PERF_EINVAL, perf_bedrock_stream_open(c->aws, 3, "m", ask, 1, NULL, &stream));
}

Test(bedrock_live, streams, .timeout = 120)
{
    struct test_server *s = test_server_nginx(config, 0);
    struct client c;
    struct heard h;
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    make_recordings(s);
    what_botocore_reads(s);
    struct test_leaks leaks = test_leaks_begin();
    begin(&c, s->url, "AKIDEXAMPLE", "secret");
    OK(converse(&c, "converse", &h));
    expect_all_deltas(&h);
    pull(&c, "converse", PERF_MISS, &h);
    expect_all_deltas(&h);
    endings(&c);
    invoked(&c);
    requests(&c);
    closed_early(&c);
    end(&c);
    test_leaks_end(&leaks);
    test_server_stop(s);
}

Test(bedrock_live, slow_pieces, .timeout = 120)
{
    struct test_server *s = test_server_nginx(config, 0);
    struct client c;
    struct heard h;
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    make_recordings(s);
    struct test_server *proxy = test_server_toxiproxy(s->port);
    if (!proxy) {
        test_server_stop(s);
        PERF_TEST_SKIP(test_server_why());
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", proxy->ports[1]);
    begin(&c, url, "AKIDEXAMPLE", "secret");
    /* Pieces of a few bytes, which end anywhere in a message. */
    cr_assert(test_toxic_add(proxy, "slices", "slicer", true,
                             "\"average_size\": 23, \"size_variation\": 20, \"delay\": 500"),
              "%s", test_server_why());
    OK(converse(&c, "converse", &h));
    expect_all_deltas(&h);
    cr_assert_gt(h.last_ms - h.first_ms, 200, "heard as it came: %lld ms",
                 (long long)(h.last_ms - h.first_ms));
    pull(&c, "converse", PERF_MISS, &h);
    expect_all_deltas(&h);
    cr_assert_gt(h.last_ms - h.first_ms, 200);
    cr_assert(test_toxic_add(proxy, "cut", "limit_data", true, "\"bytes\": 4000"));
    int rc = converse(&c, "converse", &h);
    cr_assert(rc == PERF_EPROTOCOL || rc == PERF_EIO, "%s: %s", perf_strstatus(rc),
              perf_last_error());
    cr_assert(h.count > 10 && h.count < DELTAS, "%d", h.count);
    end(&c);
    test_server_stop(proxy);
    test_server_stop(s);
}
