/* SPDX-License-Identifier: MIT */
/*
 * http_test.c - the HTTP client against peers that misbehave: garbage, half replies, silence, cut
 * connections, floods; and against its own host: cancelled, closed, forked, out of memory.
 */
#include <libperf/http.h>

#include <dlfcn.h>
#include <netdb.h>
#include <sys/wait.h>

#include "http_peer.h"
#include "leaks.h"
#include "seams.h"
#include "test.h"

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

/* One GET by a client with these options: its status, and the sentence holds what. */
static void expect_get(const perf_http_options *options, const char *url, int expected,
                       const char *what)
{
    perf_http *http = open_client(options);
    perf_http_reply *reply = NULL;
    int64_t begin = now_ms();
    int rc = perf_http_get(http, url, 5000, &reply);
    cr_assert_eq(rc, expected, "%s: %s", perf_strstatus(rc), perf_last_error());
    cr_assert(rc == PERF_OK || strstr(perf_last_error(), what), "%s", perf_last_error());
    cr_assert_lt(now_ms() - begin, 4000, "took %lld ms", (long long)(now_ms() - begin));
    perf_http_reply_release(reply);
    cr_assert_eq(perf_http_close(http), PERF_OK);
}

static void expect_of(struct answer answer, const perf_http_options *options, int expected,
                      const char *what)
{
    struct test_leaks leaks = test_leaks_begin();
    PEER(p, answer);
    expect_get(options, p.url, expected, what);
    peer_stop(&p);
    test_leaks_end(&leaks);
}

/* ------------------------------------------------------------- broken replies */

Test(http_fault, not_http)
{
    expect_of((struct answer){"SSH-2.0-OpenSSH_9.2\r\n", CLOSE, NULL}, NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){"\x15\x03\x01\x02\x03garbage\r\n\r\n", CLOSE, NULL}, NULL,
              PERF_EPROTOCOL, "");
    expect_of((struct answer){"HTTP/1.1 abc\r\n\r\n", CLOSE, NULL}, NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){"<html>old</html>", CLOSE, NULL}, NULL, PERF_EPROTOCOL, "");
}

Test(http_fault, closed_without_an_answer)
{
    expect_of((struct answer){NULL, CLOSE, NULL}, NULL, PERF_EIO, "may have been done");
    expect_of((struct answer){NULL, RESET, NULL}, NULL, PERF_EIO, "may have been done");
}

Test(http_fault, half_a_reply)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    expect_of((struct answer){head, CLOSE, NULL}, NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){head, RESET, NULL}, NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                              CLOSE, NULL},
              NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhel\r\n",
                              CLOSE, NULL},
              NULL, PERF_EPROTOCOL, "");
    expect_of((struct answer){"HTTP/1.1 200 OK\r\nContent-Le", CLOSE, NULL}, NULL, PERF_EPROTOCOL,
              "");
}

Test(http_fault, too_much)
{
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.max_header_bytes = 8192;
    o.max_body_bytes = 10000;
    static char long_line[200000];
    memcpy(long_line, "HTTP/1.1 200 OK\r\nX: ", 20);
    memset(long_line + 20, 'x', sizeof long_line - 21);
    expect_of((struct answer){"HTTP/1.1 200 OK\r\n", HANG, "Name: value\r\n"}, &o, PERF_ETOOBIG,
              "max_header_bytes");
    expect_of((struct answer){long_line, HANG, NULL}, &o, PERF_ETOOBIG, "header");
    expect_of((struct answer){"HTTP/1.1 100 Continue\r\n\r\n", HANG, "HTTP/1.1 102 Wait\r\n\r\n"},
              &o, PERF_ETOOBIG, "max_header_bytes");
    o.max_header_bytes = 1 << 20;
    expect_of((struct answer){"HTTP/1.1 200 OK\r\n", HANG, "Name: value\r\n"}, &o, PERF_ETOOBIG,
              "too many");
    expect_of((struct answer){"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\nx", HANG, NULL}, &o,
              PERF_ETOOBIG, "max_body_bytes");
    expect_of((struct answer){"HTTP/1.1 200 OK\r\n\r\n", HANG, "endless"}, &o, PERF_ETOOBIG,
              "max_body_bytes");
}

Test(http_fault, silence)
{
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.timeout_ms = 200; /* expect_get gives its own */
    o.first_byte_timeout_ms = 200;
    expect_of((struct answer){NULL, HANG, NULL}, &o, PERF_ETIMEDOUT, "first_byte_timeout_ms");
    o.first_byte_timeout_ms = 0;
    o.stall_ms = 200;
    o.min_bytes_per_s = 1000;
    expect_of((struct answer){"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", HANG, NULL}, &o,
              PERF_ETIMEDOUT, "min_bytes_per_s");
    PEER(p, {NULL, HANG, NULL});
    perf_http *http = open_client(&o);
    perf_http_reply *reply = NULL;
    int64_t begin = now_ms();
    cr_assert_eq(perf_http_get(http, p.url, 150, &reply), PERF_ETIMEDOUT);
    cr_assert_not_null(strstr(perf_last_error(), "waiting for the reply"), "%s", perf_last_error());
    int64_t took = now_ms() - begin;
    cr_assert(took >= 150 && took < 1500, "took %lld ms", (long long)took);
    cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_ETIMEDOUT, "the client's own");
    perf_http_close(http);
    peer_stop(&p);
}

/* ------------------------------------------------------------------ connecting */

Test(http_fault, nobody_listens)
{
    int port, fd = listen_on_loopback(1, &port);
    char url[64];
    close(fd);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/secret?X-Amz-Signature=abc", port);
    expect_get(NULL, url, PERF_EUNAVAILABLE, "GET http://127.0.0.1:");
    cr_assert_null(strstr(perf_last_error(), "secret"), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "Signature"), "%s", perf_last_error());
    expect_get(NULL, "http://does-not-exist.invalid/", PERF_EUNAVAILABLE, "resolve");
}

/* A listener whose queue is full takes no notice of further connections. */
Test(http_fault, black_hole)
{
    int port, fds[64], count = 0, fd = listen_on_loopback(0, &port);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool full = false;
    while (!full && count < 64) {
        int s = fds[count++] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(s, (struct sockaddr *)&address, sizeof address);
        struct pollfd poll_fd = {s, POLLOUT, 0};
        full = poll(&poll_fd, 1, 100) == 0;
    }
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    if (full) {
        perf_http_options o = PERF_HTTP_OPTIONS_INIT;
        o.connect_timeout_ms = 200;
        expect_get(&o, url, PERF_EUNAVAILABLE, "connect_timeout_ms");
    }
    while (count)
        close(fds[--count]);
    close(fd);
    if (!full)
        PERF_TEST_SKIP("this kernel's listeners never fill up");
}

/* Stands before the system's resolver: one name takes for ever. */
static atomic_bool resolver_may_go_on;
__attribute__((visibility("default"))) int getaddrinfo(const char *restrict node,
                                                       const char *restrict service,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict result)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (node && !strcmp(node, "slow.test")) {
        while (!atomic_load(&resolver_may_go_on))
            sleep_ms(10);
        return EAI_AGAIN;
    }
    return real(node, service, hints, result);
}

Test(http_fault, slow_resolver)
{
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.connect_timeout_ms = 200;
    atomic_store(&resolver_may_go_on, false);
    expect_get(&o, "http://slow.test/", PERF_EUNAVAILABLE, "connect_timeout_ms");
    perf_http *http = open_client(NULL);
    perf_http_reply *reply = NULL;
    int64_t begin = now_ms();
    cr_assert_eq(perf_http_get(http, "http://slow.test/", 200, &reply), PERF_ETIMEDOUT);
    cr_assert_not_null(strstr(perf_last_error(), "connecting"), "%s", perf_last_error());
    perf_http_close(http);
    cr_assert_lt(now_ms() - begin, 2000);
    atomic_store(&resolver_may_go_on, true);
}

/* ------------------------------------------------------------ kept connections */

Test(http_fault, kept_connection_closed_by_the_server)
{
    PEER(p, {OK_REPLY, CLOSE, NULL});
    perf_http *http = open_client(NULL);
    for (int i = 0; i < 3; i++) {
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        perf_http_reply *reply = NULL;
        r.url = p.url;
        r.body = (perf_bytes){"x", 1};
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
        perf_http_reply_release(reply);
        sleep_ms(30); /* the close arrives */
    }
    cr_assert_eq(atomic_load(&p.connections), 3);
    perf_http_close(http);
    peer_stop(&p);
}

/* The server reads a second request on the connection and closes it without a word. */
Test(http_fault, idempotent_requests_are_sent_once_more)
{
    PEER(p, {OK_REPLY, KEEP, NULL}, {NULL, CLOSE, NULL}, {OK_REPLY, KEEP, NULL},
         {NULL, CLOSE, NULL});
    perf_http *http = open_client(NULL);
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_reply *reply = NULL;
    r.url = p.url;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
        perf_http_reply_release(reply);
    }
    cr_assert_eq(atomic_load(&p.requests), 3);
    cr_assert_eq(atomic_load(&p.connections), 2);
    /* From here on every one is closed: a POST is sent once, a GET twice, and no more. */
    r.method = "POST";
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_EIO);
    cr_assert_not_null(strstr(perf_last_error(), "may have been done"), "%s", perf_last_error());
    cr_assert_eq(atomic_load(&p.requests), 4);
    perf_http_close(http);
    peer_stop(&p);

    PEER(q, {OK_REPLY, KEEP, NULL}, {NULL, CLOSE, NULL}, {NULL, CLOSE, NULL});
    http = open_client(NULL);
    r.method = "GET";
    r.url = q.url;
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_OK, "%s", perf_last_error());
    perf_http_reply_release(reply);
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_EIO);
    cr_assert_eq(atomic_load(&q.requests), 3);
    perf_http_close(http);
    peer_stop(&q);
}

static bool open_connections_become(perf_http *http, uint64_t expected, int within_ms)
{
    for (; within_ms > 0; within_ms -= 20) {
        if (stats_of(http).open_connections == expected)
            return true;
        sleep_ms(20);
    }
    return false;
}

Test(http_fault, idle_connections_are_closed)
{
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http_reply *reply;
    o.idle_timeout_ms = 300;
    PEER(p, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(&o);
    cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_OK);
    perf_http_reply_release(reply);
    cr_assert_eq(stats_of(http).open_connections, 1);
    cr_assert(open_connections_become(http, 0, 4000), "still open");
    cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_OK);
    perf_http_reply_release(reply);
    cr_assert_eq(stats_of(http).connects, 2);
    perf_http_close(http);
    peer_stop(&p);

    /* And those that the peer has left do not linger, either. */
    o.idle_timeout_ms = 20000; /* a look each 2.5 s */
    PEER(q, {OK_REPLY, CLOSE, NULL});
    http = open_client(&o);
    cr_assert_eq(perf_http_get(http, q.url, 0, &reply), PERF_OK);
    perf_http_reply_release(reply);
    cr_assert(open_connections_become(http, 0, 8000), "still open");
    perf_http_close(http);
    peer_stop(&q);
}

Test(http_fault, a_frozen_process_does_not_use_old_connections)
{
    struct test_host th;
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http_reply *reply;
    o.host = test_host_init(&th);
    PEER(p, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(&o);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_OK);
        perf_http_reply_release(reply);
        test_host_advance(&th, i ? 60000 : 40000);
    }
    cr_assert_eq(atomic_load(&p.connections), 2, "%d", atomic_load(&p.connections));
    perf_http_close(http);
    cr_assert_eq(atomic_load(&th.live), 0);
    peer_stop(&p);
}

/* ------------------------------------------------------------------ the queue */

static perf_http_call *start_get(perf_http *http, const char *url, int64_t timeout_ms)
{
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_call *call = NULL;
    r.url = url;
    r.timeout_ms = timeout_ms;
    cr_assert_eq(perf_http_start(http, &r, &call), PERF_OK, "%s", perf_last_error());
    return call;
}

static void expect_end(perf_http_call *call, int64_t within_ms, int expected)
{
    perf_http_reply *reply = NULL;
    int rc = perf_http_call_wait(call, within_ms, &reply);
    cr_assert_eq(rc, expected, "%s: %s", perf_strstatus(rc), perf_last_error());
    perf_http_reply_release(reply);
    perf_http_call_release(call);
}

Test(http_fault, the_queue_is_bounded_and_timed)
{
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.max_connections = 2;
    o.max_host_connections = 1;
    o.max_queue = 2;
    PEER(slow, {NULL, HANG, NULL});
    PEER(fast, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(&o);
    perf_http_call *first = start_get(http, slow.url, 5000);
    perf_http_call *second = start_get(http, slow.url, 150);
    perf_http_call *third = start_get(http, slow.url, 5000);
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    r.url = slow.url;
    cr_assert_eq(perf_http_start(http, &r, NULL), PERF_EBUSY);
    cr_assert_not_null(strstr(perf_last_error(), "max_queue"), "%s", perf_last_error());
    perf_http_stats stats = stats_of(http);
    cr_assert_eq(stats.queued, 2);
    cr_assert_eq(stats.in_flight, 3);
    cr_assert_eq(stats.requests, 3);

    /* A host that does not answer takes nothing from another. */
    perf_http_reply *reply;
    cr_assert_eq(perf_http_get(http, fast.url, 2000, &reply), PERF_OK, "%s", perf_last_error());
    perf_http_reply_release(reply);

    expect_end(second, 3000, PERF_ETIMEDOUT);
    cr_assert_not_null(strstr(perf_last_error(), "free connection"), "%s", perf_last_error());
    perf_http_call_cancel(third);
    expect_end(third, 3000, PERF_ECANCELED);
    cr_assert_eq(atomic_load(&slow.requests), 1);
    perf_http_call *fourth = start_get(http, slow.url, 200);
    cr_assert_eq(perf_http_call_wait(first, 0, &reply), PERF_MISS);
    perf_http_call_cancel(first);
    expect_end(first, 3000, PERF_ECANCELED);
    expect_end(fourth, 3000, PERF_ETIMEDOUT);
    cr_assert_eq(atomic_load(&slow.requests), 2, "the freed place was used");
    perf_http_close(http);
    peer_stop(&slow);
    peer_stop(&fast);
}

/* Calls to one host go in the order they came, whatever their number. */
Test(http_fault, first_come_first_served)
{
    enum { CALLS = 20 };
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.max_connections = 1;
    PEER(p, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(&o);
    perf_http_call *calls[CALLS], *done = NULL;
    struct pollfd poll_fd = {.events = POLLIN};
    cr_assert_eq(perf_http_fd(http, &poll_fd.fd), PERF_OK);
    for (int i = 0; i < CALLS; i++)
        calls[i] = start_get(http, p.url, 0);
    for (int i = 0; i < CALLS; i++) {
        while (perf_http_next_done(http, &done) == PERF_MISS)
            cr_assert_eq(poll(&poll_fd, 1, 5000), 1);
        cr_assert(done == calls[i], "call %d is out of turn", i);
        expect_end(done, 0, PERF_OK);
    }
    cr_assert_eq(perf_http_next_done(http, &done), PERF_MISS);
    cr_assert_eq(poll(&poll_fd, 1, 0), 0, "readable, and nothing is there");
    cr_assert_eq(stats_of(http).connects, 1);
    perf_http_close(http);
    peer_stop(&p);
}

/* ---------------------------------------------------------------- callbacks */

struct told {
    perf_http *http;
    atomic_int calls;
    int status, inner, inner_close;
    int64_t reply_status;
    char error[256];
};

static void on_done(void *ctx, int status, perf_http_reply *reply)
{
    struct told *told = ctx;
    perf_http_reply *other;
    told->status = status;
    snprintf(told->error, sizeof told->error, "%s", perf_last_error());
    told->reply_status = perf_http_reply_status(reply);
    told->inner = perf_http_get(told->http, "http://127.0.0.1/", 0, &other);
    told->inner_close = perf_http_close(told->http);
    perf_http_reply_release(reply);
    atomic_fetch_add(&told->calls, 1);
}

static bool told_within(struct told *told, int calls, int ms)
{
    for (; ms > 0 && atomic_load(&told->calls) < calls; ms -= 5)
        sleep_ms(5);
    return atomic_load(&told->calls) == calls;
}

Test(http_fault, done_callback)
{
    PEER(p, {OK_REPLY, KEEP, NULL}, {NULL, HANG, NULL});
    perf_http *http = open_client(NULL);
    struct told told = {.http = http};
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_call *call = NULL;
    perf_http_reply *reply = NULL;
    r.url = p.url;
    r.done = on_done;
    r.done_ctx = &told;
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_EINVAL, "done is for start");
    cr_assert_eq(perf_http_start(http, &r, NULL), PERF_OK);
    cr_assert(told_within(&told, 1, 5000));
    cr_assert_eq(told.status, PERF_OK);
    cr_assert_eq(told.reply_status, 200);
    cr_assert_eq(told.inner, PERF_EDEADLK);
    cr_assert_eq(told.inner_close, PERF_EDEADLK);

    cr_assert_eq(perf_http_start(http, &r, &call), PERF_OK);
    cr_assert_eq(perf_http_call_wait(call, 0, &reply), PERF_EINVAL);
    sleep_ms(50);
    perf_http_call_cancel(call);
    perf_http_call_release(call);
    cr_assert(told_within(&told, 2, 5000));
    cr_assert_eq(told.status, PERF_ECANCELED);
    cr_assert_not_null(strstr(told.error, "cancelled"), "%s", told.error);
    perf_http_close(http);
    peer_stop(&p);
}

static int refuse(void *ctx, const perf_http_reply *so_far, const void *data, size_t len)
{
    (void)data, (void)len;
    *(int64_t *)ctx = perf_http_reply_status(so_far);
    return PERF_ECORRUPT;
}

struct source {
    int64_t left, fail_at;
};

static int64_t give(void *ctx, void *buf, size_t size)
{
    struct source *s = ctx;
    if (s->fail_at && s->left <= s->fail_at)
        return PERF_ECORRUPT;
    int64_t n = s->left < (int64_t)size ? s->left : (int64_t)size;
    memset(buf, 'u', (size_t)n);
    s->left -= n;
    return n;
}

Test(http_fault, streams)
{
    PEER(p, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(NULL);
    perf_http_reply *reply = NULL;
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    int64_t status = 0;
    r.url = p.url;
    r.write = refuse;
    r.write_ctx = &status;
    cr_assert_eq(perf_http_perform(http, &r, &reply), PERF_ECORRUPT);
    cr_assert_eq(status, 200, "the status is known before the body");

    const int64_t mb = 1 << 20;
    struct {
        int64_t len, read_len, fail_at;
        int expected;
        const char *head;
    } cases[] = {
        {100, 100, 0, PERF_OK, "Content-Length: 100\r\n"},
        {0, 0, 0, PERF_OK, "Content-Length: 0\r\n"},
        {5 * mb, 5 * mb, 0, PERF_OK, "Expect: 100-continue\r\n"},
        {3 * mb, -1, 0, PERF_OK, "Transfer-Encoding: chunked\r\n"},
        {50, 100, 0, PERF_EINVAL, NULL},
        {5 * mb, 5 * mb, mb, PERF_ECORRUPT, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct source source = {cases[i].len, cases[i].fail_at};
        r = (perf_http_request)PERF_HTTP_REQUEST_INIT;
        r.method = "PUT";
        r.url = p.url;
        r.read = give;
        r.read_ctx = &source;
        r.read_len = cases[i].read_len;
        reply = NULL;
        int rc = perf_http_perform(http, &r, &reply);
        cr_assert_eq(rc, cases[i].expected, "case %zu: %s: %s", i, perf_strstatus(rc),
                     perf_last_error());
        perf_http_reply_release(reply);
        if (rc)
            continue;
        pthread_mutex_lock(&p.mutex);
        cr_assert_not_null(strstr(p.head, cases[i].head), "case %zu: %s", i, p.head);
        cr_assert(!strncmp(p.head, "PUT / HTTP/1.1\r\n", 16), "%s", p.head);
        pthread_mutex_unlock(&p.mutex);
        cr_assert_geq(atomic_load(&p.body_bytes), cases[i].len);
    }
    perf_http_close(http);
    peer_stop(&p);
}

/* -------------------------------------------------------------- close, fork */

struct performer {
    perf_http *http;
    const char *url;
    atomic_int *ends;
};

static void *perform_until_closed(void *arg)
{
    struct performer *me = arg;
    perf_http_reply *reply = NULL;
    int rc = perf_http_get(me->http, me->url, 0, &reply);
    cr_assert_eq(rc, PERF_ECLOSED, "%s: %s", perf_strstatus(rc), perf_last_error());
    atomic_fetch_add(me->ends, 1);
    return NULL;
}

Test(http_fault, close_ends_what_is_under_way)
{
    enum { THREADS = 8, CALLS = 16 };
    struct test_leaks leaks = test_leaks_begin();
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    o.max_host_connections = 12; /* some run, some wait */
    PEER(p, {NULL, HANG, NULL});
    perf_http *http = open_client(&o);
    pthread_t threads[THREADS];
    atomic_int ends = 0;
    struct performer performer = {http, p.url, &ends};
    struct told told = {.http = http};
    perf_http_call *calls[CALLS];
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, perform_until_closed, &performer), 0);
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    r.url = p.url;
    for (int i = 0; i < CALLS; i++)
        calls[i] = start_get(http, p.url, 0);
    r.done = on_done;
    r.done_ctx = &told;
    for (int i = 0; i < CALLS; i++)
        cr_assert_eq(perf_http_start(http, &r, NULL), PERF_OK);
    while (stats_of(http).in_flight < THREADS + 2 * CALLS)
        sleep_ms(5);
    sleep_ms(50);
    cr_assert_eq(perf_http_close(http), PERF_OK);
    cr_assert_eq(atomic_load(&told.calls), CALLS);
    cr_assert_eq(told.status, PERF_ECLOSED);
    for (int i = 0; i < CALLS; i++)
        expect_end(calls[i], -1, PERF_ECLOSED); /* handles outlive the client */
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&ends), THREADS);
    peer_stop(&p);
    test_leaks_end(&leaks);
}

#ifndef __SANITIZE_THREAD__
Test(http_fault, fork)
{
    PEER(p, {OK_REPLY, KEEP, NULL});
    perf_http *http = open_client(NULL);
    perf_http_reply *reply = NULL;
    cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_OK);
    perf_http_reply_release(reply);
    pid_t child = fork();
    if (!child) {
        perf_http_stats stats = PERF_HTTP_STATS_INIT;
        perf_http_call *call;
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        int fd;
        r.url = p.url;
        _exit(perf_http_get(http, p.url, 0, &reply) == PERF_EFORKED &&
                      perf_http_start(http, &r, &call) == PERF_EFORKED &&
                      perf_http_fd(http, &fd) == PERF_EFORKED &&
                      perf_http_next_done(http, &call) == PERF_EFORKED &&
                      perf_http_get_stats(http, &stats) == PERF_EFORKED &&
                      perf_http_close(http) == PERF_OK
                  ? 0
                  : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    /* The parent's connection has not heard of it. */
    cr_assert_eq(perf_http_get(http, p.url, 0, &reply), PERF_OK);
    perf_http_reply_release(reply);
    cr_assert_eq(atomic_load(&p.connections), 1);
    perf_http_close(http);
    peer_stop(&p);
}
#endif

/* ------------------------------------------------------------------- memory */

/* One whole life of a client, in which the n-th allocation fails; false when none did. */
static bool live_with_failure(struct peer *p, int64_t n)
{
    struct test_host th;
    perf_http_options o = PERF_HTTP_OPTIONS_INIT;
    perf_http *http = NULL;
    o.host = test_host_init(&th);
    atomic_store(&th.fail_at, n);
    int rc = perf_http_open(&o, &http);
    for (int i = 0; i < 3 && !rc; i++) {
        perf_http_request r = PERF_HTTP_REQUEST_INIT;
        perf_http_reply *reply = NULL;
        r.url = p->url;
        r.body = (perf_bytes){"body", 4};
        r.copy_body = 1;
        int end = perf_http_perform(http, &r, &reply);
        cr_assert(end == PERF_OK || end == PERF_ENOMEM || end == PERF_EUNAVAILABLE, "%s: %s",
                  perf_strstatus(end), perf_last_error());
        cr_assert(end || !strcmp(perf_http_reply_body(reply), "hello"));
        perf_http_reply_release(reply);
        perf_http_call *call = NULL;
        end = perf_http_start(http, &r, &call);
        cr_assert(end == PERF_OK || end == PERF_ENOMEM);
        if (!end) {
            end = perf_http_call_wait(call, -1, &reply);
            cr_assert(end == PERF_OK || end == PERF_ENOMEM || end == PERF_EUNAVAILABLE);
            if (!end)
                perf_http_reply_release(reply);
            perf_http_call_release(call);
        }
    }
    cr_assert(rc == PERF_OK || rc == PERF_ENOMEM);
    perf_http_close(http);
    cr_assert_eq(atomic_load(&th.live), 0, "allocation %lld: %lld blocks leaked", (long long)n,
                 (long long)atomic_load(&th.live));
    return atomic_load(&th.failed) != 0;
}

Test(http_fault, every_allocation_fails_once)
{
    char headers[3000] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"; /* beyond the first blocks */
    for (int i = 0; i < 40; i++)
        snprintf(headers + strlen(headers), sizeof headers - strlen(headers),
                 "X-Header-%d: some value that takes room\r\n", i);
    strcat(headers, "\r\nhello");
    int64_t n = 1;
    for (bool failed = true; failed; n++) {
        PEER(p, {headers, KEEP, NULL});
        failed = live_with_failure(&p, n);
        peer_stop(&p);
    }
    cr_assert_gt(n, 10, "only %lld allocations", (long long)n);
}
