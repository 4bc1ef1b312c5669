/* SPDX-License-Identifier: MIT */
/*
 * net_http_test.c - what the HTTP client takes and refuses, and how it reads header lines. No
 * server: what talks to one is in tests/live and tests/fault.
 */
#include <libperf/http.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/base/alloc.h"
#include "../../src/net/http.h"
#include "leaks.h"
#include "seams.h"
#include "test.h"

/* --------------------------------------------------------------- header lines */

static perf_http_reply *lines(const char *text, uint64_t max, int expected)
{
    perf_http_reply *reply = perf__http_reply_new(&perf__default_allocator);
    int rc = PERF_OK;
    cr_assert_not_null(reply);
    while (*text && !rc) {
        size_t len = strcspn(text, "\n") + 1;
        rc = perf__http_reply_line(reply, text, len, max);
        text += len;
    }
    cr_assert_eq(rc, expected, "%d", rc);
    return reply;
}

Test(net_http, reads_headers)
{
    perf_http_reply *r = lines("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Empty:\r\n"
                               "X-Twice: a\r\nx-twice: b\r\nX-Folded: one\r\n\ttwo\r\n"
                               "no colon here\r\n: no name\r\n \tX: folded, too\r\n\r\n",
                               1000, PERF_OK);
    const char *name = NULL, *value = NULL;
    cr_assert_eq(perf_http_reply_status(r), 200);
    cr_assert_str_eq(perf_http_reply_header(r, "content-type"), "text/plain");
    cr_assert_str_eq(perf_http_reply_header(r, "x-empty"), "");
    cr_assert_str_eq(perf_http_reply_header(r, "X-TWICE"), "a");
    cr_assert_str_eq(perf_http_reply_header(r, "x-folded"), "one two X: folded, too");
    cr_assert_null(perf_http_reply_header(r, "absent"));
    cr_assert_null(perf_http_reply_header(r, "x-twic"));
    cr_assert_eq(perf_http_reply_header_at(r, 3, &name, &value), PERF_OK);
    cr_assert_str_eq(name, "x-twice");
    cr_assert_str_eq(value, "b");
    cr_assert_eq(perf_http_reply_header_at(r, 5, &name, &value), PERF_MISS);
    cr_assert_eq(perf_http_reply_header_at(NULL, 0, &name, &value), PERF_EINVAL);
    cr_assert_eq(perf_http_reply_size(r), 0);
    cr_assert_str_eq(perf_http_reply_body(r), "");
    perf_http_reply_release(r);
    perf_http_reply_release(NULL);
}

Test(net_http, interim_replies_and_trailers)
{
    perf_http_reply *r = lines("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                               "HTTP/2 204 \r\nA: b\r\n\r\n",
                               1000, PERF_OK);
    cr_assert_eq(perf_http_reply_status(r), 204);
    cr_assert_null(perf_http_reply_header(r, "link"), "it was the interim reply's");
    r->in_body = true;
    cr_assert_eq(perf__http_reply_line(r, "Checksum: 7\r\n", 13, 1000), PERF_OK);
    cr_assert_eq(perf__http_reply_line(r, "HTTP/1.1: odd\r\n", 15, 1000), PERF_OK);
    cr_assert_str_eq(perf_http_reply_header(r, "checksum"), "7");
    cr_assert_eq(perf_http_reply_status(r), 204);
    perf_http_reply_release(r);
}

Test(net_http, refuses_bad_lines)
{
    static const char *const bad[] = {"HTTP/1.1\r\n",
                                      "HTTP/1.1 20\r\n",
                                      "HTTP/1.1 20x\r\n",
                                      "HTTP/1.1 2000\r\n",
                                      "HTTP/1.1 099 \r\n",
                                      "Name: value\r\n",
                                      "\r\n",
                                      "HTTP/1.1 200 OK\r\n  folded\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        perf_http_reply_release(lines(bad[i], 1000, PERF_EPROTOCOL));
    perf_http_reply *r = lines("HTTP/1.1 200 OK\r\n", 1000, PERF_OK);
    cr_assert_eq(perf__http_reply_line(r, "A: b\0c\r\n", 8, 1000), PERF_EPROTOCOL);
    perf_http_reply_release(r);
    perf_http_reply_release(lines("HTTP/1.1 200 OK\r\nName: 123456789\r\n", 30, PERF_ETOOBIG));

    char line[40];
    r = lines("HTTP/1.1 200 OK\r\n", 1 << 20, PERF_OK);
    for (int i = 0; i < PERF__HTTP_HEADERS_MAX; i++) {
        int len = snprintf(line, sizeof line, "Header-%d: %d\r\n", i, i);
        cr_assert_eq(perf__http_reply_line(r, line, (size_t)len, 1 << 20), PERF_OK);
    }
    cr_assert_eq(perf__http_reply_line(r, "One: more\r\n", 11, 1 << 20), PERF_ETOOBIG);
    cr_assert_str_eq(perf_http_reply_header(r, "header-1000"), "1000");
    perf_http_reply_release(r);
}

Test(net_http, bodies_are_bounded)
{
    static char block[5000];
    memset(block, 'b', sizeof block);
    perf_http_reply *r = lines("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", 1000, PERF_OK);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(perf__http_reply_append(r, block, sizeof block, 20000), PERF_OK);
    cr_assert_eq(perf__http_reply_append(r, block, 1, 20000), PERF_ETOOBIG);
    cr_assert_eq(perf_http_reply_size(r), 20000);
    cr_assert_eq(strlen(perf_http_reply_body(r)), 20000);
    perf_http_reply_release(r);

    /* What is promised and would be too much is not waited for. */
    r = lines("HTTP/1.1 200 OK\r\nContent-Length: 20001\r\n\r\n", 1000, PERF_OK);
    cr_assert_eq(perf__http_reply_append(r, block, 1, 20000), PERF_ETOOBIG);
    perf_http_reply_release(r);
    static const char *const lengths[] = {"", "x", "-1", "99999999999999999999", "1e3"};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char text[100];
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", lengths[i]);
        r = lines(text, 1000, PERF_OK);
        cr_assert_eq(perf__http_reply_length(r), -1, "%s", lengths[i]);
        cr_assert_eq(perf__http_reply_append(r, block, 10, 100), PERF_OK);
        perf_http_reply_release(r);
    }
}

/* --------------------------------------------------------------------- options */

static void refuse_options(const perf_http_options *o, const char *field)
{
    perf_http *http = NULL;
    cr_assert_eq(perf_http_open(o, &http), PERF_EINVAL);
    cr_assert_null(http);
    cr_assert_not_null(strstr(perf_last_error(), field), "%s: %s", field, perf_last_error());
}

Test(net_http, options)
{
    struct test_leaks leaks = test_leaks_begin();
#define REFUSE(field_, value)                              \
    do {                                                   \
        perf_http_options o_ = PERF_HTTP_OPTIONS_INIT;     \
        o_.field_ = value;                                 \
        refuse_options(&o_, "perf_http_options." #field_); \
    } while (0)
    REFUSE(version, 3);
    REFUSE(max_connections, 1u << 30);
    REFUSE(max_host_connections, UINT64_MAX);
    REFUSE(max_queue, 1u << 30);
    REFUSE(idle_timeout_ms, -1);
    REFUSE(max_lifetime_ms, -1);
    REFUSE(connect_timeout_ms, -1);
    REFUSE(timeout_ms, INT64_MAX);
    REFUSE(first_byte_timeout_ms, -5);
    REFUSE(stall_ms, -1);
    REFUSE(min_bytes_per_s, UINT64_MAX);
    REFUSE(max_body_bytes, UINT64_MAX);
    REFUSE(max_header_bytes, 1);
    REFUSE(dns_ttl_ms, -1);
    REFUSE(tls_insecure, 2);
    REFUSE(user_agent, "a\r\nb: c");
    REFUSE(client_key_file, "key.pem");
#undef REFUSE
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.struct_size = 3;
    refuse_options(&o, "struct_size");
    cr_assert_eq(perf_http_open(NULL, NULL), PERF_EINVAL);
    perf_http *http = NULL;
    cr_assert_eq(perf_http_open(NULL, &http), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(test_leaks_fds(), leaks.fds, "opening opens no descriptor");
    cr_assert_eq(test_leaks_threads(), leaks.threads, "and starts no thread");
    cr_assert_eq(perf_http_close(http), PERF_OK);
    cr_assert_eq(perf_http_close(NULL), PERF_OK);
    test_leaks_end(&leaks);
}

/* -------------------------------------------------------------------- requests */

static void refuse_request(perf_http *http, const perf_http_request *r, const char *why)
{
    perf_http_reply *reply = NULL;
    perf_http_call *call = NULL;
    cr_assert_eq(perf_http_perform(http, r, &reply), PERF_EINVAL, "%s: %s", why, perf_last_error());
    cr_assert_not_null(strstr(perf_last_error(), why), "%s: %s", why, perf_last_error());
    cr_assert_eq(perf_http_start(http, r, &call), PERF_EINVAL);
    cr_assert(!reply && !call);
}

static int64_t nothing(void *ctx, void *buf, size_t size)
{
    (void)ctx, (void)buf, (void)size;
    return 0;
}

Test(net_http, requests)
{
    struct test_host th;
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http *http = NULL;
    o.host = test_host_init(&th);
    cr_assert_eq(perf_http_open(&o, &http), PERF_OK);
    const perf_http_request base = PERF_HTTP_REQUEST_INIT;
    perf_http_request r = base;
    refuse_request(http, NULL, "NULL");
    refuse_request(http, &r, "url");

    static char long_url[70000];
    memset(long_url, 'u', sizeof long_url - 1);
    static char long_host[400] = "http://";
    memset(long_host + 7, 'h', 300);
    const struct {
        const char *url, *why;
    } urls[] = {
        {"", "neither"},
        {"ftp://host/", "neither"},
        {"file:///etc/passwd", "neither"},
        {"httpx://host/", "neither"},
        {"http://", "host"},
        {"https:///path", "host"},
        {"http://host:0/", "port"},
        {"http://host:65536/", "port"},
        {"http://host:8o/", "port"},
        {"http://host:1234567/", "port"},
        {"http://[::1/", "host"},
        {"http://user:secret@host/", "user"},
        {"http://secret@host/", "user"},
        {"http://host/a b", "blank"},
        {"http://host/a\r\nX: y", "blank"},
        {"http://ho<st/", "'<'"},
        {"http://ho\\st/", "'\\'"},
        {long_url, "longer"},
        {long_host, "host"},
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        r = base;
        r.url = urls[i].url;
        refuse_request(http, &r, urls[i].why);
        cr_assert_null(strstr(perf_last_error(), "secret"), "%s", perf_last_error());
    }

#define REFUSE(why, ...)               \
    do {                               \
        r = base;                      \
        r.url = "http://127.0.0.1:1/"; \
        __VA_ARGS__;                   \
        refuse_request(http, &r, why); \
    } while (0)
    REFUSE("method", r.method = "");
    REFUSE("method", r.method = "GET / HTTP/1.1\r\nX:");
    REFUSE("method", r.method = "AVERYLONGMETHODNAMETHATNOBODYHASEVER");
    REFUSE("timeout_ms", r.timeout_ms = -1);
    REFUSE("first_byte_timeout_ms", r.first_byte_timeout_ms = -1);
    REFUSE("read_len", r.read_len = -2);
    REFUSE("copy_body", r.copy_body = 2);
    REFUSE("body", r.body.len = 1);
    REFUSE("both", r.body = ((perf_bytes){"x", 1}); r.read = nothing);
    REFUSE("headers", r.header_count = 1);
    REFUSE("header_count", r.header_count = 100000);
    REFUSE("struct_size", r.struct_size = 1);
    const perf_http_header headers[] = {{"", "v"},
                                        {NULL, "v"},
                                        {"Name", NULL},
                                        {"Na me", "v"},
                                        {"Name:", "v"},
                                        {"Name\r\nOther", "v"},
                                        {"Name", "v\r\nOther: w"},
                                        {"Name", "v\n"},
                                        {"Transfer-Encoding", "chunked"},
                                        {"Content-Length", "5"},
                                        {"content-length", "00"}};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        REFUSE("headers[0]", r.headers = &headers[i]; r.header_count = 1);
#undef REFUSE

    perf_http_reply *reply = NULL;
    cr_assert_eq(perf_http_perform(NULL, &r, &reply), PERF_EINVAL);
    cr_assert_eq(perf_http_perform(http, &r, NULL), PERF_EINVAL);
    cr_assert_eq(perf_http_call_wait(NULL, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_http_fd(http, NULL), PERF_EINVAL);
    cr_assert_eq(perf_http_next_done(http, NULL), PERF_EINVAL);
    cr_assert_eq(perf_http_get_stats(http, NULL), PERF_EINVAL);
    perf_http_call_cancel(NULL);
    perf_http_call_release(NULL);
    perf_http_stats stats = PERF_HTTP_STATS_INIT;
    cr_assert_eq(perf_http_get_stats(http, &stats), PERF_OK);
    cr_assert_eq(stats.requests, 0, "nothing of this was a request");
    perf_http_close(http);
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* What becomes of a request: looked at before it is sent. */
Test(net_http, a_request_is_copied)
{
    perf_http *http = NULL;
    cr_assert_eq(perf_http_open(NULL, &http), PERF_OK);
    char url[] = "HTTPS://Example.COM/Path?Query#f", value[] = " v", body[] = "body";
    perf_http_header headers[] = {
        {"Content-Length", "4"}, {"Name", value}, {"Empty", ""}, {"Accept", "text/html"}};
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_call *call = NULL;
    r.url = url;
    r.headers = headers;
    r.header_count = 4;
    r.body = (perf_bytes){body, 4};
    r.copy_body = 1;
    cr_assert_eq(perf__http_call_make(http, &r, &call), PERF_OK, "%s", perf_last_error());
    memset(url, 'x', sizeof url - 1);
    memset(value, 'x', sizeof value - 1);
    memset(body, 'x', sizeof body - 1);
    cr_assert_str_eq(call->url, "HTTPS://Example.COM/Path?Query#f");
    cr_assert_str_eq(call->name, "https://example.com:443");
    cr_assert_str_eq(call->method, "POST");
    cr_assert(call->body_len == 4 && !memcmp(call->body, "body", 4));
    const char *expected[] = {"Name: v", "Empty;", "Accept: text/html", "Content-Type:", "Expect:"};
    const struct curl_slist *line = call->headers;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++, line = line->next) {
        cr_assert_not_null(line);
        cr_assert_str_eq(line->data, expected[i]);
    }
    cr_assert_null(line);
    perf__http_call_free(call);

    const struct {
        const char *url, *name;
    } names[] = {{"http://[::1]:8080/x", "http://[::1]:8080"},
                 {"http://a:/", "http://a:80"},
                 {"https://a?q", "https://a:443"},
                 {"http://a#f", "http://a:80"},
                 {"http://a/b@c:d", "http://a:80"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        r = (perf_http_request)PERF_HTTP_REQUEST_INIT;
        r.url = names[i].url;
        cr_assert_eq(perf__http_call_make(http, &r, &call), PERF_OK, "%s", perf_last_error());
        cr_assert_str_eq(call->name, names[i].name);
        perf__http_call_free(call);
    }
    perf_http_close(http);
}

/* ------------------------------------------------------------- nobody to talk to */

static int closed_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

Test(net_http, a_closed_port)
{
    perf_http *first = NULL; /* what a first thread brings along is no leak */
    perf_http_reply *none = NULL;
    cr_assert_eq(perf_http_open(NULL, &first), PERF_OK);
    cr_assert_eq(perf_http_get(first, "http://127.0.0.1:1/", 0, &none), PERF_EUNAVAILABLE);
    perf_http_close(first);
    struct test_leaks leaks = test_leaks_begin();
    struct test_host th;
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http *http = NULL;
    perf_http_reply *reply = NULL;
    char url[64];
    o.host = test_host_init(&th);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/x?secret", closed_port());
    cr_assert_eq(perf_http_open(&o, &http), PERF_OK);
    cr_assert_eq(perf_http_get(http, url, 0, &reply), PERF_EUNAVAILABLE);
    cr_assert_not_null(strstr(perf_last_error(), "GET http://127.0.0.1:"), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "secret"), "%s", perf_last_error());
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_call *call = NULL, *done = NULL;
    r.url = url;
    cr_assert_eq(perf_http_start(http, &r, &call), PERF_OK);
    cr_assert_eq(perf_http_call_wait(call, -1, &reply), PERF_EUNAVAILABLE);
    cr_assert_eq(perf_http_call_wait(call, -1, &reply), PERF_EINVAL, "fetched already");
    cr_assert_eq(perf_http_next_done(http, &done), PERF_MISS, "fetched already");
    perf_http_stats stats = PERF_HTTP_STATS_INIT;
    cr_assert_eq(perf_http_get_stats(http, &stats), PERF_OK);
    cr_assert_eq(stats.requests, 2);
    cr_assert_eq(stats.failures, 2);
    cr_assert_eq(stats.connects + stats.reused + stats.in_flight + stats.queued, 0);
    cr_assert_eq(perf_http_close(http), PERF_OK);
    cr_assert_neq(atomic_load(&th.live), 0, "the call is still held");
    perf_http_call_cancel(call);
    perf_http_call_release(call);
    cr_assert_eq(atomic_load(&th.live), 0);
    test_leaks_end(&leaks);
}
