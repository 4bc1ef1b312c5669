/* SPDX-License-Identifier: MIT */
/*
 * http_test.c - the HTTP client against nginx: connections shared by threads, HTTP/2, TLS in all
 * its refusals, proxies and Unix sockets, streams, restarts; and through toxiproxy, which breaks
 * what is between.
 */
#include <libperf/http.h>

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

static const char config[] =
    "    keepalive_requests 1000000;\n"
    "    ssl_certificate_key @DIR@/key.pem;\n"
    "    client_max_body_size 100m;\n"
    "    server {\n" /* HTTP/1.1 */
    "        listen 127.0.0.1:@PORT@;\n"
    "        location / { return 200 \"$request_method $request_uri\"; }\n"
    "        location /echo { return 200 \"$content_length $http_x_a|$http_user_agent|$http_accept|"
    "$http_expect|$content_type\"; }\n"
    "        location /status { return 503 sorry; }\n"
    "        location /files/ { alias @DIR@/; }\n"
    "        location /slow/ { alias @DIR@/; limit_rate 20k; }\n"
    "        location /moved { return 302 /elsewhere; }\n"
    "    }\n"
    "    server {\n" /* TLS and HTTP/2 */
    "        listen 127.0.0.1:@PORT2@ ssl http2;\n"
    "        http2_max_concurrent_streams 200;\n"
    "        ssl_certificate @DIR@/cert.pem;\n"
    "        location / { return 200 $server_protocol; }\n"
    "        location /files/ { alias @DIR@/; }\n"
    "    }\n"
    "    server {\n" /* TLS with another's name, HTTP/1.1 only */
    "        listen 127.0.0.1:@PORT3@ ssl;\n"
    "        ssl_certificate @DIR@/other.pem;\n"
    "        location / { return 200 $server_protocol; }\n"
    "    }\n"
    "    server {\n" /* TLS that wants the client's certificate */
    "        listen 127.0.0.1:@PORT4@ ssl;\n"
    "        ssl_certificate @DIR@/cert.pem;\n"
    "        ssl_client_certificate @DIR@/ca.pem;\n"
    "        ssl_verify_client on;\n"
    "        location / { return 200 $ssl_client_s_dn; }\n"
    "    }\n";

static void *nothing(void *arg)
{
    return arg;
}

static struct test_server *start(void)
{
    pthread_t first; /* ThreadSanitizer starts one of its own with it, which is no leak */
    if (!pthread_create(&first, NULL, nothing, NULL))
        pthread_join(first, NULL);
    struct test_server *s = test_server_nginx(config, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    return s;
}

static perf_http *open_client(const perf_http_options *options)
{
    perf_http *http = NULL;
    cr_assert_eq(perf_http_open(options, &http), PERF_OK, "%s", perf_last_error());
    return http;
}

static perf_http_stats stats_of(perf_http *http)
{
    perf_http_stats stats = PERF_HTTP_STATS_INIT;
    cr_assert_eq(perf_http_get_stats(http, &stats), PERF_OK);
    return stats;
}

static const char *url_of(const struct test_server *s, int port, const char *path)
{
    static _Thread_local char url[256];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", port ? "https" : "http", s->ports[port], path);
    return url;
}

static void expect_body(perf_http *http, const char *url, const char *expected)
{
    perf_http_reply *reply = NULL;
    cr_assert_eq(perf_http_get(http, url, 5000, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_http_reply_body(reply), expected);
    perf_http_reply_release(reply);
}

static void expect_failure(const perf_http_options *o, const char *url, int expected)
{
    perf_http *http = open_client(o);
    perf_http_reply *reply = NULL;
    int rc = perf_http_get(http, url, 5000, &reply);
    cr_assert_eq(rc, expected, "%s: %s", perf_strstatus(rc), perf_last_error());
    perf_http_close(http);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------- requests */

Test(http_live, requests_and_replies)
{
    struct test_server *s = start();
    struct test_leaks leaks = test_leaks_begin();
    perf_http *http = open_client(NULL);
    expect_body(http, url_of(s, 0, "/a/../b//c?x=%2F&y"), "GET /a/../b//c?x=%2F&y");

    perf_http_header headers[] = {{"X-A", " spaced value "}, {"X-Empty", ""}};
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_reply *reply = NULL;
    r.url = url_of(s, 0, "/echo");
    r.headers = headers;
    r.header_count = 2;
    r.body = (perf_bytes){"0123456789", 10};
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
    const char *body = perf_http_reply_body(reply);
    cr_assert(!strncmp(body, "10 spaced value|libperf/", 24), "%s", body);
    cr_assert_not_null(strstr(body, "|||"), "nothing that was not asked for: %s", body);
    cr_assert_eq(perf_http_reply_size(reply), strlen(body));
    perf_http_reply_release(reply);

    const char *methods[] = {"GET", "HEAD", "DELETE", "PUT", "POST", "PATCH", "OPTIONS", "GET"};
    for (int i = 0; i < 8; i++) {
        char expected[64];
        r = (perf_http_request)PERF_HTTP_REQUEST_INIT;
        r.method = methods[i];
        r.url = url_of(s, 0, "/m");
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(perf_http_reply_status(reply), 200);
        snprintf(expected, sizeof expected, i == 1 ? "" : "%s /m", methods[i]);
        cr_assert_str_eq(perf_http_reply_body(reply), expected);
        perf_http_reply_release(reply);
    }

    cr_assert_eq(perf_http_get(http, url_of(s, 0, "/status"), 0, &reply), PERF_OK);
    cr_assert_eq(perf_http_reply_status(reply), 503);
    cr_assert_str_eq(perf_http_reply_header(reply, "SERVER"),
                     perf_http_reply_header(reply, "server"));
    const char *name = NULL, *value = NULL;
    size_t count = 0;
    while (perf_http_reply_header_at(reply, count, &name, &value) == PERF_OK)
        count++;
    cr_assert_geq(count, 4);
    perf_http_reply_release(reply);
    cr_assert_eq(perf_http_get(http, url_of(s, 0, "/moved"), 0, &reply), PERF_OK);
    cr_assert_eq(perf_http_reply_status(reply), 302, "redirects are the caller's");
    perf_http_reply_release(reply);

    perf_http_stats stats = stats_of(http);
    cr_assert_eq(stats.connects, 1);
    cr_assert_eq(stats.reused, stats.requests - 1);
    cr_assert_eq(stats.replies, stats.requests);
    cr_assert_gt(stats.bytes_sent, 500);
    cr_assert_gt(stats.bytes_received, 1000);
    perf_http_close(http);
    test_leaks_end(&leaks);
    test_server_stop(s);
}

enum { THREADS = 8, EACH = 300 };

struct worker {
    perf_http *http;
    const char *url;
    int id;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char url[320], expected[64];
    for (int i = 0; i < EACH; i++) {
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        perf_http_reply *reply = NULL;
        snprintf(url, sizeof url, "%s%d/%d", w->url, w->id, i);
        snprintf(expected, sizeof expected, "POST /t/%d/%d", w->id, i);
        r.url = url;
        r.body = (perf_bytes){expected, strlen(expected)};
        if (i % 3) {
            cr_assert_eq(perf_http_perform(w->http, &r, &reply), PERF_OK, "%s", perf_last_error());
        } else {
            perf_http_call *call = NULL;
            cr_assert_eq(perf_http_start(w->http, &r, &call), PERF_OK, "%s", perf_last_error());
            cr_assert_eq(perf_http_call_wait(call, -1, &reply), PERF_OK, "%s", perf_last_error());
            perf_http_call_release(call);
        }
        cr_assert_str_eq(perf_http_reply_body(reply), expected);
        perf_http_reply_release(reply);
    }
    return NULL;
}

Test(http_live, threads_share_connections)
{
    struct test_server *s = start();
    struct test_leaks leaks = test_leaks_begin();
    perf_http *http = open_client(NULL);
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    char url[256];
    snprintf(url, sizeof url, "%s", url_of(s, 0, "/t/"));
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){http, url, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    perf_http_stats stats = stats_of(http);
    cr_assert_eq(stats.requests, THREADS * EACH);
    cr_assert_eq(stats.replies, THREADS * EACH);
    cr_assert_leq(stats.connects, THREADS, "%llu connections", (unsigned long long)stats.connects);
    cr_assert_eq(stats.reused + stats.connects, THREADS * EACH);
    cr_assert_eq(stats.in_flight, 0);
    perf_http_close(http);
    test_leaks_end(&leaks);
    test_server_stop(s);
}

/* ------------------------------------------------------------------ TLS, HTTP/2 */

Test(http_live, http2_shares_one_connection)
{
    enum { PARALLEL = 32 };
    struct test_server *s = start();
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http_call *calls[PARALLEL];
    char ca[128];
    snprintf(ca, sizeof ca, "%s", test_server_file(s, "ca.pem"));
    o.ca_file = ca;
    perf_http *http = open_client(&o);
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    r.url = url_of(s, 1, "/");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < PARALLEL; i++)
            cr_assert_eq(perf_http_start(http, &r, &calls[i]), PERF_OK, "%s", perf_last_error());
        for (int i = 0; i < PARALLEL; i++) {
            perf_http_reply *reply = NULL;
            cr_assert_eq(perf_http_call_wait(calls[i], -1, &reply), PERF_OK, "%s",
                         perf_last_error());
            cr_assert_str_eq(perf_http_reply_body(reply), "HTTP/2.0");
            cr_assert_eq(perf_http_reply_status(reply), 200);
            cr_assert_not_null(perf_http_reply_header(reply, "Content-Length"));
            perf_http_reply_release(reply);
            perf_http_call_release(calls[i]);
        }
    }
    cr_assert_eq(stats_of(http).connects, 1, "%llu connections",
                 (unsigned long long)stats_of(http).connects);
    perf_http_close(http);

    o.version = PERF_HTTP_VERSION_1_1;
    http = open_client(&o);
    expect_body(http, url_of(s, 1, "/"), "HTTP/1.1");
    perf_http_close(http);
    test_server_stop(s);
}

/* A name that no certificate of the machine vouches for, and the ways to be content. */
Test(http_live, certificates)
{
    struct test_server *s = start();
    char ca[128], cert[128], key[128], hashed[400];
    snprintf(ca, sizeof ca, "%s", test_server_file(s, "ca.pem"));
    snprintf(cert, sizeof cert, "%s", test_server_file(s, "cert.pem"));
    snprintf(key, sizeof key, "%s", test_server_file(s, "key.pem"));
    perf_http_options none = PERF_HTTP_OPTIONS_INIT, trusting = none, careless = none, mutual;
    trusting.ca_file = ca;
    careless.tls_insecure = 1;
    mutual = trusting;
    mutual.client_cert_file = cert;
    mutual.client_key_file = key;

    expect_failure(&none, url_of(s, 1, "/"), PERF_ETLS);
    cr_assert_not_null(strstr(perf_last_error(), "certificate"), "%s", perf_last_error());
    expect_failure(&trusting, url_of(s, 2, "/"), PERF_ETLS); /* another's name */
    perf_http *http = open_client(&trusting);
    expect_body(http, url_of(s, 1, "/"), "HTTP/2.0");
    perf_http_close(http);
    http = open_client(&careless);
    expect_body(http, url_of(s, 1, "/"), "HTTP/2.0");
    expect_body(http, url_of(s, 2, "/"), "HTTP/1.1");
    perf_http_close(http);

    http = open_client(&mutual);
    expect_body(http, url_of(s, 3, "/"), "CN=localhost");
    perf_http_close(http);
    http = open_client(&trusting);
    perf_http_reply *reply = NULL;
    cr_assert_eq(perf_http_get(http, url_of(s, 3, "/"), 0, &reply), PERF_OK);
    cr_assert_eq(perf_http_reply_status(reply), 400, "nginx says so in HTTP");
    perf_http_reply_release(reply);
    perf_http_close(http);

    snprintf(hashed, sizeof hashed, "mkdir %s/cas && cp %s %s/cas/ && openssl rehash %s/cas",
             s->dir, ca, s->dir, s->dir);
    cr_assert(test_server_run(s, (const char *const[]){"sh", "-c", hashed, NULL}), "%s",
              test_server_why());
    snprintf(hashed, sizeof hashed, "%s/cas", s->dir);
    perf_http_options directory = none;
    directory.ca_path = hashed;
    http = open_client(&directory);
    expect_body(http, url_of(s, 1, "/"), "HTTP/2.0");
    perf_http_close(http);

    trusting.ca_file = "/nonexistent/ca.pem";
    expect_failure(&trusting, url_of(s, 1, "/"), PERF_ETLS);
    expect_failure(&careless, "https://127.0.0.1:1/", PERF_EUNAVAILABLE);
    char plain[64];
    snprintf(plain, sizeof plain, "https://127.0.0.1:%d/", s->port);
    expect_failure(&careless, plain, PERF_ETLS);
    test_server_stop(s);
}

/* HTTP/2 without TLS, when it is asked for. */
Test(http_live, http2_by_prior_knowledge)
{
    static const char cleartext[] = "    server {\n"
                                    "        listen 127.0.0.1:@PORT@ http2;\n"
                                    "        location / { return 200 $server_protocol; }\n"
                                    "    }\n";
    struct test_server *s = test_server_nginx(cleartext, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.version = PERF_HTTP_VERSION_2;
    perf_http *http = open_client(&o);
    expect_body(http, url_of(s, 0, "/"), "HTTP/2.0");
    expect_body(http, url_of(s, 0, "/"), "HTTP/2.0");
    perf_http_close(http);
    test_server_stop(s);
}

/* ----------------------------------------------------------- ways to the server */

Test(http_live, unix_socket_and_proxy)
{
    static const char by_socket[] =
        "    server {\n"
        "        listen 127.0.0.1:@PORT@;\n"
        "        listen unix:@DIR@/socket;\n"
        "        location / { return 200 \"$request_method $request_uri\"; }\n"
        "    }\n";
    struct test_server *s = test_server_nginx(by_socket, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    char path[128];
    snprintf(path, sizeof path, "%s", test_server_file(s, "socket"));
    o.unix_socket = path;
    perf_http *http = open_client(&o);
    expect_body(http, "http://anything/by-socket", "GET /by-socket");
    perf_http_close(http);

    /* nginx is no proxy, but answers a request that is sent to one. */
    o.unix_socket = NULL;
    o.proxy = s->url;
    http = open_client(&o);
    expect_body(http, "http://no-such-host.invalid/by-proxy", "GET /by-proxy");
    perf_http_close(http);

    /* From the environment, once: at the opening. */
    setenv("http_proxy", s->url, 1);
    setenv("no_proxy", "direct.invalid", 1);
    http = open_client(NULL);
    o.proxy = "";
    perf_http *without = open_client(&o);
    unsetenv("http_proxy");
    unsetenv("no_proxy");
    expect_body(http, "http://no-such-host.invalid/by-env", "GET /by-env");
    perf_http_reply *reply = NULL;
    cr_assert_eq(perf_http_get(http, "http://direct.invalid/", 0, &reply), PERF_EUNAVAILABLE);
    cr_assert_eq(perf_http_get(without, "http://no-such-host.invalid/", 0, &reply),
                 PERF_EUNAVAILABLE);
    perf_http_close(http);
    perf_http_close(without);
    test_server_stop(s);
}

/* ---------------------------------------------------------------------- streams */

struct sink {
    uint64_t bytes, sum;
    int64_t status;
};

static int take(void *ctx, const perf_http_reply *so_far, const void *data, size_t len)
{
    struct sink *sink = ctx;
    const unsigned char *bytes = data;
    sink->status = perf_http_reply_status(so_far);
    for (size_t i = 0; i < len; i++)
        sink->sum = sink->sum * 31 + bytes[i];
    sink->bytes += len;
    return PERF_OK;
}

enum { BIG = 20 << 20 };

/* A file of BIG bytes that nginx serves; returns the sum over its bytes. */
static uint64_t big_file(struct test_server *s)
{
    unsigned char *bytes = malloc(BIG);
    cr_assert_not_null(bytes);
    struct sink sink = {0, 0, 0};
    for (size_t i = 0; i < BIG; i++)
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    take(&sink, NULL, bytes, BIG);
    FILE *file = fopen(test_server_file(s, "big"), "wb");
    cr_assert_eq(fwrite(bytes, 1, BIG, file), BIG);
    fclose(file);
    chmod(test_server_file(s, "big"), 0644);
    free(bytes);
    return sink.sum;
}

Test(http_live, large_bodies)
{
    struct test_server *s = start();
    uint64_t sum = big_file(s);
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.tls_insecure = 1;
    perf_http *http = open_client(&o);
    for (int port = 0; port < 2; port++) {
        struct sink sink = {0, 0, 0};
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        perf_http_reply *reply = NULL;
        r.url = url_of(s, port, "/files/big");
        r.write = take;
        r.write_ctx = &sink;
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
        cr_assert_eq(sink.status, 200);
        cr_assert_eq(sink.bytes, BIG);
        cr_assert_eq(sink.sum, sum);
        cr_assert_eq(perf_http_reply_size(reply), 0);
        perf_http_reply_release(reply);

        r.write = NULL;
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
        struct sink whole = {0, 0, 0};
        take(&whole, reply, perf_http_reply_body(reply), perf_http_reply_size(reply));
        cr_assert(whole.bytes == BIG && whole.sum == sum);
        perf_http_reply_release(reply);
        r.max_body_bytes = BIG - 1;
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_ETOOBIG);
    }
    perf_http_close(http);
    test_server_stop(s);
}

/* --------------------------------------------------------- a server that goes */

Test(http_live, server_killed_paused_restarted)
{
    struct test_server *s = start();
    struct test_leaks leaks = test_leaks_begin();
    big_file(s);
    perf_http *http = open_client(NULL);
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_call *call = NULL;
    perf_http_reply *reply = NULL;
    r.url = url_of(s, 0, "/slow/big"); /* would take minutes */
    int64_t begin = now_ms();
    cr_assert_eq(perf_http_start(http, &r, &call), PERF_OK);
    cr_assert_eq(perf_http_call_wait(call, 300, &reply), PERF_MISS);
    test_server_kill(s);
    int rc = perf_http_call_wait(call, 5000, &reply);
    cr_assert(rc == PERF_EPROTOCOL || rc == PERF_EIO, "%s: %s", perf_strstatus(rc),
              perf_last_error());
    cr_assert_lt(now_ms() - begin, 5000);
    perf_http_call_release(call);
    cr_assert_eq(perf_http_get(http, url_of(s, 0, "/"), 1000, &reply), PERF_EUNAVAILABLE);

    cr_assert(test_server_restart(s), "%s", test_server_why());
    expect_body(http, url_of(s, 0, "/x"), "GET /x");
    cr_assert(test_server_restart(s), "%s", test_server_why());
    expect_body(http, url_of(s, 0, "/y"), "GET /y"); /* the kept connection was a dead one */

    test_server_pause(s);
    begin = now_ms();
    cr_assert_eq(perf_http_get(http, url_of(s, 0, "/"), 300, &reply), PERF_ETIMEDOUT);
    cr_assert_lt(now_ms() - begin, 3000);
    test_server_resume(s);
    expect_body(http, url_of(s, 0, "/z"), "GET /z");
    perf_http_close(http);
    test_leaks_end(&leaks);
    test_server_stop(s);
}

/* Cancelling and closing while requests come and go from all sides. */
static void *churn(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < EACH; i++) {
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        perf_http_reply *reply = NULL;
        perf_http_call *call = NULL;
        r.url = w->url;
        r.timeout_ms = i % 7 == 0 ? 1 : 5000;
        int rc = perf_http_start(w->http, &r, &call);
        if (rc == PERF_ECLOSED)
            break;
        cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
        if (i % 3 == 0)
            perf_http_call_cancel(call);
        if (i % 5) {
            rc = perf_http_call_wait(call, -1, &reply);
            cr_assert(rc == PERF_OK || (rc == PERF_ECANCELED && i % 3 == 0) || rc == PERF_ETIMEDOUT,
                      "%s: %s", perf_strstatus(rc), perf_last_error());
            if (!rc)
                perf_http_reply_release(reply);
        }
        perf_http_call_release(call);
    }
    return NULL;
}

Test(http_live, churn)
{
    struct test_server *s = start();
    struct test_leaks leaks = test_leaks_begin();
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.max_host_connections = 4;
    perf_http *http = open_client(&o);
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    char url[256];
    snprintf(url, sizeof url, "%s", url_of(s, 0, "/"));
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){http, url, i};
        cr_assert_eq(pthread_create(&threads[i], NULL, churn, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    perf_http_stats stats = stats_of(http);
    cr_assert_eq(stats.requests, THREADS * EACH);
    cr_assert_leq(stats.open_connections, 4);
    expect_body(http, url, "GET /");
    perf_http_close(http);
    test_leaks_end(&leaks);
    test_server_stop(s);
}

/* ------------------------------------------------------------------- toxiproxy */

/* A proxy for each, since toxiproxy may hang when a toxic is taken from a broken connection. */
Test(http_live, broken_networks)
{
    struct test_server *back = start(), *s = test_server_toxiproxy(back->port);
    if (!s) {
        test_server_stop(back);
        PERF_TEST_SKIP(test_server_why());
    }
    big_file(back);
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.first_byte_timeout_ms = 1000;
    o.stall_ms = 500;
    o.min_bytes_per_s = 100000;
    perf_http *http = open_client(&o);
    perf_http_reply *reply = NULL;
    char url[160];
    const struct {
        const char *path, *type, *attributes;
        int expected, or_else;
    } cases[] = {
        {"/files/big", "limit_data", "\"bytes\": 100000", PERF_EPROTOCOL, PERF_EIO},
        {"/", "reset_peer", "\"timeout\": 0", PERF_EIO, PERF_EIO},
        {"/files/big", "bandwidth", "\"rate\": 10", PERF_ETIMEDOUT, PERF_ETIMEDOUT},
        {"/", "timeout", "\"timeout\": 0", PERF_ETIMEDOUT, PERF_ETIMEDOUT},
        {"/", "latency", "\"latency\": 200", PERF_OK, PERF_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct test_server *broken = test_server_toxiproxy(back->port);
        cr_assert_not_null(broken, "%s", test_server_why());
        cr_assert(test_toxic_add(broken, "toxic", cases[i].type, true, cases[i].attributes), "%s",
                  test_server_why());
        snprintf(url, sizeof url, "http://127.0.0.1:%d%s", broken->ports[1], cases[i].path);
        int64_t begin = now_ms();
        reply = NULL;
        int rc = perf_http_get(http, url, 5000, &reply);
        cr_assert(rc == cases[i].expected || rc == cases[i].or_else, "%s: %s: %s", cases[i].type,
                  perf_strstatus(rc), perf_last_error());
        perf_http_reply_release(reply);
        cr_assert_lt(now_ms() - begin, 4500, "%s", cases[i].type);
        test_server_stop(broken);
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", s->ports[1]);
    for (int i = 0; i < 2; i++) {
        expect_body(http, url, "GET /");
        cr_assert(test_toxic_enable(s, false));
        int rc = perf_http_get(http, url, 2000, &reply); /* sent, if the connection broke late */
        cr_assert(rc == PERF_EUNAVAILABLE || rc == PERF_EIO, "%s: %s", perf_strstatus(rc),
                  perf_last_error());
        cr_assert(test_toxic_enable(s, true));
    }
    expect_body(http, url, "GET /");
    perf_http_close(http);
    test_server_stop(s);
    test_server_stop(back);
}
