/* SPDX-License-Identifier: MIT */
/*
 * http_peer.h - an HTTP server that does as it is told: a thread with a script of what to answer to
 * the n-th request, and what to do with the connection then.
 *
 *     PEER(p, {OK_REPLY, KEEP, NULL}, {NULL, CLOSE, NULL});
 *     ... p.url ...
 *     peer_stop(&p);
 */
#ifndef TESTS_HTTP_PEER_H
#define TESTS_HTTP_PEER_H

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

enum then { KEEP, CLOSE, RESET, HANG };

struct answer {
    const char *text; /* NULL: nothing */
    enum then then;
    const char *flood; /* after text: this again and again, until the client has enough */
};

struct peer {
    int listener, port;
    char url[64];
    pthread_t thread;
    struct answer answers[4]; /* to the first, second, ... request of all; the last one repeats */
    int count;
    atomic_bool stop;
    atomic_int connections, requests;
    _Atomic long long body_bytes;
    pthread_mutex_t mutex;
    char head[4096]; /* of the last request; mutex */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

__attribute__((unused)) static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* Readable, or the test wants to end? */
static bool ready(struct peer *p, int fd)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};
    while (!atomic_load(&p->stop))
        if (poll(&poll_fd, 1, 20) > 0)
            return true;
    return false;
}

/* Reads one request, head and body; false at the end of the connection. */
static bool read_request(struct peer *p, int fd)
{
    char buf[65536], head[sizeof p->head];
    size_t have = 0;
    char *end = NULL;
    while (!end) {
        if (!ready(p, fd) || have == sizeof head - 1)
            return false;
        ssize_t got = recv(fd, head + have, sizeof head - 1 - have, 0);
        if (got <= 0)
            return false;
        have += (size_t)got;
        head[have] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    const char *length = strcasestr(head, "\r\nContent-Length:");
    long long body = (long long)(have - (size_t)(end + 4 - head));
    bool chunked = strcasestr(head, "\r\nTransfer-Encoding: chunked") != NULL;
    long long want = length ? atoll(length + 17) : 0;
    if (strcasestr(head, "\r\nExpect: 100-continue")) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        (void)!send(fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL);
    }
    bool last_chunk = !chunked || strstr(end, "\r\n0\r\n\r\n");
    while (body < want || !last_chunk) {
        if (!ready(p, fd))
            return false;
        ssize_t got = recv(fd, buf, sizeof buf, 0);
        if (got <= 0)
            return false;
        body += got;
        last_chunk = last_chunk || (got >= 5 && !memcmp(buf + got - 5, "0\r\n\r\n", 5));
    }
    atomic_store(&p->body_bytes, body);
    end[4] = '\0';
    pthread_mutex_lock(&p->mutex);
    memcpy(p->head, head, sizeof head);
    pthread_mutex_unlock(&p->mutex);
    return true;
}

static void serve(struct peer *p, int fd)
{
    while (read_request(p, fd)) {
        int n = atomic_fetch_add(&p->requests, 1);
        struct answer *a = &p->answers[n < p->count ? n : p->count - 1];
        if (a->text)
            (void)!send(fd, a->text, strlen(a->text), MSG_NOSIGNAL);
        while (a->flood && !atomic_load(&p->stop) &&
               send(fd, a->flood, strlen(a->flood), MSG_NOSIGNAL) > 0)
            ;
        if (a->then == CLOSE)
            return;
        if (a->then == RESET) {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
            return;
        }
        if (a->then == HANG) {
            char byte; /* until the client leaves */
            while (ready(p, fd) && recv(fd, &byte, 1, 0) > 0)
                ;
            return;
        }
    }
}

struct connection {
    struct peer *peer;
    int fd;
    pthread_t thread;
};

static void *serve_thread(void *arg)
{
    struct connection *c = arg;
    serve(c->peer, c->fd);
    close(c->fd);
    return NULL;
}

static void *peer_main(void *arg)
{
    struct peer *p = arg;
    struct connection connections[64];
    int count = 0;
    while (count < 64 && ready(p, p->listener)) {
        struct connection *c = &connections[count];
        c->peer = p;
        c->fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        if (c->fd < 0)
            continue;
        atomic_fetch_add(&p->connections, 1);
        cr_assert_eq(pthread_create(&c->thread, NULL, serve_thread, c), 0);
        count++;
    }
    for (int i = 0; i < count; i++)
        pthread_join(connections[i].thread, NULL);
    return NULL;
}

static int listen_on_loopback(int backlog, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, backlog), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void peer_start(struct peer *p, int count, const struct answer *answers)
{
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->mutex, NULL);
    memcpy(p->answers, answers, (size_t)count * sizeof *answers);
    p->count = count;
    p->listener = listen_on_loopback(64, &p->port);
    snprintf(p->url, sizeof p->url, "http://127.0.0.1:%d/", p->port);
    cr_assert_eq(pthread_create(&p->thread, NULL, peer_main, p), 0);
}

static void peer_stop(struct peer *p)
{
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    close(p->listener);
}

#define PEER(p, ...)                                                               \
    struct peer p;                                                                 \
    peer_start(&p, sizeof((struct answer[]){__VA_ARGS__}) / sizeof(struct answer), \
               (struct answer[]){__VA_ARGS__})

#endif
