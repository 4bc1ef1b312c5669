/* SPDX-License-Identifier: MIT */
/*
 * aws_test.c - the AWS client against a peer that does as the script says: refusals that a client
 * mends, replies that are not whole, silence, the end of the client meanwhile; and no memory.
 */
#include <libperf/aws.h>
#include <libperf/aws_dynamodb.h>
#include <libperf/aws_sqs.h>
#include <sys/wait.h>

#include "../support/aws_fixture.h"
#include "http_peer.h"
#include "leaks.h"

#define JSON_REPLY(status, head, body_len, body)                               \
    "HTTP/1.1 " status "\r\nContent-Type: application/x-amz-json-1.0\r\n" head \
    "x-amzn-RequestId: id-of-peer\r\nContent-Length: " body_len "\r\n\r\n" body
#define FINE JSON_REPLY("200 OK", "", "8", "{\"a\":42}")

#define TOKEN TEST_SECRET_MARK "TOKEN"

static void *nothing(void *none)
{
    return none;
}

/* A sanitizer keeps a thread of its own from the first one on. */
static struct test_leaks leaks_begin(void)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, nothing, NULL), 0);
    pthread_join(thread, NULL);
    return test_leaks_begin();
}

static perf_aws *open_client(struct aws_home *h, const char *url, perf_aws_options o)
{
    perf_aws *aws = NULL;
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "%s", url);
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", TEST_SECRET_MARK, 1);
    setenv("AWS_SESSION_TOKEN", TOKEN, 1);
    o.service = o.service ? o.service : "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = endpoint;
    o.host = h ? h->host : NULL;
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

static void closed(struct aws_home *h, perf_aws *aws)
{
    cr_assert_eq(perf_aws_close(aws), PERF_OK, "%s", perf_last_error());
    cr_assert_null(strstr(h->log, "Signature="), "%s", h->log);
    cr_assert_null(strstr(h->log, TOKEN), "%s", h->log);
}

static int get(perf_aws *aws, int64_t timeout_ms, perf_aws_reply **reply)
{
    *reply = NULL;
    int rc = perf_aws_call(aws, "GetItem", "{}", 2, timeout_ms, reply);
    cr_assert_null(strstr(perf_last_error(), TEST_SECRET_MARK), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "Signature="), "%s", perf_last_error());
    return rc;
}

/* A call that ends well after so many attempts. */
static void succeeds(struct peer *p, int64_t attempts)
{
    struct aws_home h;
    perf_aws_reply *reply;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_client(&h, p->url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    cr_assert_eq(get(aws, 20000, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_aws_reply_body(reply), "{\"a\":42}");
    cr_assert_eq(perf_aws_reply_size(reply), 8);
    cr_assert_str_eq(perf_aws_reply_header(reply, "CONTENT-TYPE"), "application/x-amz-json-1.0");
    cr_assert_str_eq(perf_aws_reply_request_id(reply), "id-of-peer");
    cr_assert_eq(perf_aws_reply_attempts(reply), attempts);
    cr_assert_str_eq(perf_aws_error_code(), "");
    cr_assert_eq(atomic_load(&p->requests), attempts);
    perf_aws_reply_release(reply);
    closed(&h, aws);
    aws_home_end(&h);
    peer_stop(p);
}

/* A call that fails with this code after so many attempts. */
static void fails(struct peer *p, int code, const char *what, int64_t attempts)
{
    struct aws_home h;
    perf_aws_reply *reply;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_client(&h, p->url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    int rc = get(aws, 20000, &reply);
    cr_assert_eq(rc, code, "%s: %s", perf_strstatus(rc), perf_last_error());
    cr_assert(strstr(perf_last_error(), what), "%s", perf_last_error());
    cr_assert_null(reply);
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    cr_assert_eq(perf_aws_get_stats(aws, &stats), PERF_OK);
    cr_assert_eq((int64_t)stats.attempts, attempts);
    cr_assert_eq(stats.failed, 1);
    cr_assert_eq(stats.in_flight, 0);
    closed(&h, aws);
    aws_home_end(&h);
    peer_stop(p);
}

Test(aws_fault, replies_that_are_not_whole)
{
    PEER(half, {JSON_REPLY("200 OK", "", "100", "{\"a\""), CLOSE, NULL}, {FINE, KEEP, NULL});
    succeeds(&half, 2);
    PEER(cut, {NULL, RESET, NULL}, {FINE, KEEP, NULL});
    succeeds(&cut, 2);
    PEER(crc, {JSON_REPLY("200 OK", "x-amz-crc32: 1\r\n", "8", "{\"a\":42}"), KEEP, NULL},
         {JSON_REPLY("200 OK", "x-amz-crc32: not one\r\n", "8", "{\"a\":42}"), KEEP, NULL},
         {FINE, KEEP, NULL});
    succeeds(&crc, 3);
    PEER(right,
         {JSON_REPLY("200 OK", "x-amz-crc32: 3416512248\r\n", "8", "{\"a\":42}"), KEEP, NULL});
    succeeds(&right, 1);
    PEER(never, {JSON_REPLY("200 OK", "x-amz-crc32: 1\r\n", "8", "{\"a\":42}"), KEEP, NULL});
    fails(&never, PERF_EPROTOCOL, "x-amz-crc32", 4);
    PEER(garbage, {"SSH-2.0-OpenSSH_9.2\r\n", CLOSE, NULL});
    fails(&garbage, PERF_EPROTOCOL, "dynamodb GetItem", 4);
}

Test(aws_fault, errors_of_a_service)
{
    PEER(
        busy, {JSON_REPLY("500 Oops", "", "0", ""), KEEP, NULL},
        {JSON_REPLY("503 Busy", "x-amz-retry-after: 10\r\n", "0", ""), KEEP, NULL},
        {JSON_REPLY("400 Bad", "", "36", "{\"__type\":\"a#ThrottlingException\"}\n\n"), KEEP, NULL},
        {FINE, KEEP, NULL});
    succeeds(&busy, 4);
    PEER(no, {JSON_REPLY("400 Bad", "", "31", "{\"__type\":\"ValidationError\"}   "), KEEP, NULL});
    fails(&no, PERF_EREMOTE, "ValidationError", 1);
    PEER(moved,
         {JSON_REPLY("301 Moved", "Location: http://127.0.0.1:1/\r\n", "0", ""), KEEP, NULL});
    fails(&moved, PERF_EREMOTE, "301", 1);
    PEER(throttles,
         {JSON_REPLY("400 Bad", "", "34", "{\"__type\":\"a#ThrottlingException\"}"), KEEP, NULL});
    fails(&throttles, PERF_ETHROTTLED, "no more attempts", 4);
}

Test(aws_fault, clock_that_is_wrong)
{
    PEER(p,
         {JSON_REPLY("403 Forbidden", "Date: Fri, 15 Jan 2027 08:20:00 GMT\r\n", "35",
                     "{\"__type\":\"a#RequestTimeTooSkewed\"}"),
          KEEP, NULL},
         {FINE, KEEP, NULL});
    struct aws_home h;
    perf_aws_reply *reply;
    aws_home_begin(&h, NULL, NULL); /* its clock stands at 08:00:00 of that day */
    perf_aws *aws = open_client(&h, p.url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    cr_assert_eq(get(aws, 20000, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_reply_attempts(reply), 2);
    perf_aws_reply_release(reply);
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    cr_assert_eq(perf_aws_get_stats(aws, &stats), PERF_OK);
    cr_assert_eq(stats.clock_skew_ms, 20 * 60000);
    pthread_mutex_lock(&p.mutex);
    cr_assert(strcasestr(p.head, "x-amz-date: 20270115T082000Z"), "%s", p.head);
    pthread_mutex_unlock(&p.mutex);
    cr_assert_eq(get(aws, 20000, &reply), PERF_OK);
    cr_assert_eq(perf_aws_reply_attempts(reply), 1, "it is remembered");
    perf_aws_reply_release(reply);
    closed(&h, aws);
    aws_home_end(&h);
    peer_stop(&p);

    /* whose clock is right is refused once */
    PEER(q, {JSON_REPLY("403 Forbidden", "Date: Fri, 15 Jan 2027 08:00:05 GMT\r\n", "36",
                        "{\"__type\":\"a#SignatureDoesNotMatch\"}"),
             KEEP, NULL});
    fails(&q, PERF_EACCESS, "SignatureDoesNotMatch", 1);
}

struct giver {
    atomic_int asked;
};

/* Other keys each time. */
static int give_keys(void *ctx, int64_t timeout_ms, perf_aws_keys **out)
{
    struct giver *g = ctx;
    char id[32];
    (void)timeout_ms;
    snprintf(id, sizeof id, "AKID%d", atomic_fetch_add(&g->asked, 1));
    return perf_aws_keys_new(id, TEST_SECRET_MARK, TOKEN, 0, NULL, out);
}

Test(aws_fault, expired_token_is_replaced_once)
{
    static const char expired[] =
        JSON_REPLY("400 Bad", "", "36", "{\"__type\":\"a#ExpiredTokenException\"}");
    PEER(p, {expired, KEEP, NULL}, {FINE, KEEP, NULL}, {expired, KEEP, NULL});
    struct aws_home h;
    struct giver giver = {0};
    perf_aws_credentials_provider provider = PERF_AWS_CREDENTIALS_PROVIDER_INIT;
    perf_aws_credentials_options co = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    perf_aws_credentials *credentials;
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws_reply *reply;
    aws_home_begin(&h, NULL, NULL);
    provider.ctx = &giver;
    provider.get = give_keys;
    co.provider = &provider;
    co.host = h.host;
    cr_assert_eq(perf_aws_credentials_open(&co, &credentials), PERF_OK, "%s", perf_last_error());
    o.credentials = credentials;
    perf_aws *aws = open_client(&h, p.url, o);
    cr_assert_eq(get(aws, 20000, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_reply_attempts(reply), 2);
    cr_assert_eq(atomic_load(&giver.asked), 2);
    pthread_mutex_lock(&p.mutex);
    cr_assert(strstr(p.head, "Credential=AKID1/"), "%s", p.head);
    pthread_mutex_unlock(&p.mutex);
    perf_aws_reply_release(reply);

    /* they are refused for ever: it is tried with others once, and then told */
    cr_assert_eq(get(aws, 20000, &reply), PERF_EACCESS);
    cr_assert_str_eq(perf_aws_error_code(), "ExpiredTokenException");
    cr_assert_str_eq(perf_aws_error_request_id(), "id-of-peer");
    cr_assert_eq(perf_aws_error_status(), 400);
    cr_assert_eq(atomic_load(&giver.asked), 3);
    cr_assert_eq(atomic_load(&p.requests), 4);
    closed(&h, aws);
    perf_aws_credentials_close(credentials);
    aws_home_end(&h);
    peer_stop(&p);
}

/* ------------------------------------------------------------ silence and the end */

Test(aws_fault, silence_ends_in_time)
{
    struct test_leaks leaks = leaks_begin();
    PEER(p, {NULL, HANG, NULL});
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws_reply *reply;
    struct aws_home h;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_client(NULL, p.url, o);
    int64_t begin = now_ms();
    cr_assert_eq(get(aws, 300, &reply), PERF_ETIMEDOUT, "%s", perf_last_error());
    cr_assert_geq(now_ms() - begin, 290);
    cr_assert_lt(now_ms() - begin, 1000);
    cr_assert_eq(perf_aws_close(aws), PERF_OK);

    o.attempt_timeout_ms = 100;
    o.max_attempts = 2;
    aws = open_client(NULL, p.url, o);
    begin = now_ms();
    cr_assert_eq(get(aws, 20000, &reply), PERF_ETIMEDOUT, "%s", perf_last_error());
    cr_assert_lt(now_ms() - begin, 3000, "two attempts of 100 ms");
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    aws_home_end(&h);
    peer_stop(&p);
    test_leaks_end(&leaks);
}

struct ended {
    atomic_int calls, status;
};

static void on_done(void *ctx, int status, perf_aws_reply *reply)
{
    struct ended *e = ctx;
    cr_assert_null(reply);
    atomic_store(&e->status, status);
    atomic_fetch_add(&e->calls, 1);
}

static perf_aws_request a_request(perf_aws_done_fn done, void *ctx)
{
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    r.operation = "GetItem";
    r.body = (perf_bytes){"{}", 2};
    r.timeout_ms = 30000;
    r.done = done;
    r.done_ctx = ctx;
    return r;
}

Test(aws_fault, cancelled_and_closed_under_way)
{
    struct test_leaks leaks = leaks_begin();
    PEER(p, {NULL, HANG, NULL});
    struct aws_home h;
    struct ended e = {0, 0};
    perf_aws_operation *op;
    perf_aws_reply *reply = NULL;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_client(&h, p.url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    perf_aws_request r = a_request(NULL, NULL);
    cr_assert_eq(perf_aws_start(aws, &r, NULL), PERF_EINVAL, "nobody would learn of it");
    cr_assert_eq(perf_aws_start(aws, &r, &op), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_aws_operation_wait(op, 0, &reply), PERF_EBUSY);
    cr_assert_eq(perf_aws_operation_wait(op, 50, &reply), PERF_EBUSY);
    perf_aws_operation_cancel(op);
    cr_assert_eq(perf_aws_operation_wait(op, 10000, &reply), PERF_ECANCELED, "%s",
                 perf_last_error());
    perf_aws_operation_cancel(op);
    perf_aws_operation_release(op);
    int fd;
    cr_assert_eq(perf_aws_fd(aws, &fd), PERF_OK);
    cr_assert_eq(perf_aws_next_done(aws, &op), PERF_MISS);

    cr_assert_eq(perf_aws_start(aws, &r, &op), PERF_OK);
    cr_assert_eq(perf_aws_close(aws), PERF_EBUSY, "a handle is not released");
    perf_aws_operation_release(op);
    closed(&h, aws);

    aws = open_client(&h, p.url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    r = a_request(on_done, &e);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(perf_aws_start(aws, &r, NULL), PERF_OK, "%s", perf_last_error());
    int64_t begin = now_ms();
    closed(&h, aws);
    cr_assert_lt(now_ms() - begin, 3000);
    cr_assert_eq(atomic_load(&e.calls), 5);
    cr_assert_eq(atomic_load(&e.status), PERF_ECLOSED, "%s", perf_strerror(atomic_load(&e.status)));
    aws_home_end(&h);
    peer_stop(&p);
    test_leaks_end(&leaks);
}

/* -------------------------------------------------------------------- process */

static void *ask_for_shared(void *out)
{
    int rc = perf_aws_shared("dynamodb", out);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return NULL;
}

Test(aws_fault, one_client_for_all_threads_and_another_for_a_child)
{
    enum { THREADS = 8 };
    PEER(p, {FINE, KEEP, NULL});
    struct aws_home h;
    perf_aws *all[THREADS], *cloud;
    pthread_t threads[THREADS];
    perf_aws_reply *reply;
    aws_home_begin(&h, NULL, NULL);
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", TEST_SECRET_MARK, 1);
    setenv("AWS_REGION", "us-east-1", 1);
    p.url[strlen(p.url) - 1] = 0;
    setenv("AWS_ENDPOINT_URL_DYNAMODB", p.url, 1);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, ask_for_shared, &all[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i < THREADS; i++)
        cr_assert_eq(all[i], all[0]);
    cr_assert_str_eq(perf_aws_endpoint(all[0]), p.url);
    cr_assert_eq(perf_aws_shared("cloudwatch", &cloud), PERF_OK);
    cr_assert_eq(perf_aws_shared("monitoring", &all[1]), PERF_OK);
    cr_assert_eq(cloud, all[1]);
    cr_assert_eq(perf_aws_shared(NULL, &cloud), PERF_EINVAL);
    cr_assert_eq(get(all[0], 20000, &reply), PERF_OK, "%s", perf_last_error());
    perf_aws_reply_release(reply);
    pid_t child = fork();
    if (child == 0) {
        perf_aws *mine = NULL;
        perf_aws_operation *op;
        perf_aws_request r = a_request(NULL, NULL);
        int fd;
        if (perf_aws_call(all[0], "GetItem", "{}", 2, 1000, &reply) != PERF_EFORKED ||
            perf_aws_start(all[0], &r, &op) != PERF_EFORKED ||
            perf_aws_fd(all[0], &fd) != PERF_EFORKED ||
            perf_aws_next_done(all[0], &op) != PERF_EFORKED)
            _exit(1);
        if (perf_aws_shared("dynamodb", &mine) != PERF_OK || mine == all[0])
            _exit(2);
#ifndef __SANITIZE_THREAD__ /* it takes no threads in a child of a process that had some */
        if (perf_aws_call(mine, "GetItem", "{}", 2, 20000, &reply) != PERF_OK)
            _exit(3);
#endif
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child says %d",
              WEXITSTATUS(status));
    aws_home_end(&h);
    peer_stop(&p);
}

/* --------------------------------------------------------------------- memory */

/* All that a client does, once. The HTTP client below has its own such test. */
static int everything(struct aws_home *h, const char *url)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    perf_aws_reply *reply = NULL;
    perf_aws_operation *op = NULL;
    perf_aws_pages *pages = NULL;
    perf_dynamodb_batch *batch = NULL;
    perf_bytes key = {"{\"k\":{\"S\":\"a\"}}", 15};
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "%s", url);
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = endpoint;
    o.max_attempts = 1;
    o.host = h->host;
    int rc = perf_aws_open(&o, &aws);
    if (!rc)
        rc = perf_aws_call(aws, "GetItem", "{}", 2, 20000, &reply);
    perf_aws_reply_release(reply);
    reply = NULL;
    perf_aws_request r = a_request(NULL, NULL);
    if (!rc)
        rc = perf_aws_start(aws, &r, &op);
    if (!rc)
        rc = perf_aws_operation_wait(op, 20000, &reply);
    perf_aws_reply_release(reply);
    perf_aws_operation_release(op);
    reply = NULL;
    if (!rc)
        rc = perf_aws_pages_open(aws, "Scan", "{}", 2, NULL, NULL, &pages);
    if (!rc)
        rc = perf_aws_pages_next(pages, 20000, &reply);
    perf_aws_reply_release(reply);
    perf_aws_pages_close(pages);
    if (!rc)
        rc = perf_dynamodb_batch_get(aws, "t", &key, 1, NULL, &batch);
    perf_dynamodb_batch_release(batch);
    perf_aws_close(aws);
    return rc;
}

Test(aws_fault, every_allocation_fails_in_turn, .timeout = 120)
{
    PEER(p, {FINE, KEEP, NULL});
    struct aws_home h;
    aws_home_begin(&h, "[default]\nregion = eu-west-1\n", NULL);
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", TEST_SECRET_MARK, 1);
    p.url[strlen(p.url) - 1] = 0;
    cr_assert_eq(everything(&h, p.url), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(h.th.live, 0);
    int failed = 0;
    for (int at = 1;; at++) {
        h.th.failed = 0;
        h.th.fail_at = at;
        int rc = everything(&h, p.url);
        h.th.fail_at = 0;
        cr_assert_eq(h.th.live, 0, "%lld blocks are left after allocation %d failed: %s",
                     (long long)h.th.live, at, perf_strstatus(rc));
        if (!h.th.failed)
            break;
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "allocation %d: %s: %s", at,
                  perf_strstatus(rc), perf_last_error());
        failed += rc == PERF_ENOMEM;
    }
    cr_assert_gt(failed, 20);
    aws_home_end(&h);
    peer_stop(&p);
}
