/* SPDX-License-Identifier: MIT */
/*
 * redis_peer.h - a Redis server that does as it is told: a thread with a script of what to answer
 * to the n-th command that it reads, and what to do with the connection then.
 *
 *     REDIS_PEER(p, {"+OK\r\n", KEEP}, {"$5\r\nhel", CLOSE});
 *     ... p.port ...
 *     redis_peer_stop(&p);
 *
 * Commands are those of a well-behaved client: arrays of bulk strings.
 */
#ifndef TESTS_REDIS_PEER_H
#define TESTS_REDIS_PEER_H

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

enum redis_then { KEEP, CLOSE, RESET, HANG, LATER /* close after a while */ };

struct redis_answer {
    const char *text; /* NULL: nothing */
    enum redis_then then;
};

struct redis_peer {
    int listener, port;
    pthread_t thread;
    struct redis_answer answers[8]; /* to the first, second, ... of all; the last one repeats */
    int count;
    atomic_bool stop;
    atomic_int connections, commands;
};

static bool redis_peer_ready(struct redis_peer *p, int fd)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};
    while (!atomic_load(&p->stop))
        if (poll(&poll_fd, 1, 10) > 0)
            return true;
    return false;
}

static bool redis_peer_byte(struct redis_peer *p, int fd, char *c)
{
    return redis_peer_ready(p, fd) && recv(fd, c, 1, 0) == 1;
}

static bool redis_peer_number(struct redis_peer *p, int fd, long *out)
{
    char text[24];
    size_t len = 0;
    while (len < sizeof text - 1 && redis_peer_byte(p, fd, &text[len])) {
        if (text[len++] != '\n')
            continue;
        text[len] = '\0';
        *out = atol(text + 1);
        return true;
    }
    return false;
}

static bool redis_peer_command(struct redis_peer *p, int fd)
{
    long words, len;
    char c;
    if (!redis_peer_number(p, fd, &words))
        return false;
    for (long i = 0; i < words; i++) {
        if (!redis_peer_number(p, fd, &len))
            return false;
        for (long k = 0; k < len + 2; k++)
            if (!redis_peer_byte(p, fd, &c))
                return false;
    }
    return true;
}

static void redis_peer_serve(struct redis_peer *p, int fd)
{
    while (redis_peer_command(p, fd)) {
        int n = atomic_fetch_add(&p->commands, 1);
        struct redis_answer *a = &p->answers[n < p->count ? n : p->count - 1];
        char byte;
        if (a->text)
            (void)!send(fd, a->text, strlen(a->text), MSG_NOSIGNAL);
        switch (a->then) {
        case KEEP:
            continue;
        case LATER:
            usleep(200000);
            break;
        case RESET:
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
            break;
        case HANG:
            while (redis_peer_byte(p, fd, &byte))
                ;
            break;
        case CLOSE:
            break;
        }
        return;
    }
}

static void *redis_peer_main(void *arg)
{
    struct redis_peer *p = arg;
    while (redis_peer_ready(p, p->listener)) { /* one connection at a time */
        int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        atomic_fetch_add(&p->connections, 1);
        redis_peer_serve(p, fd);
        close(fd);
    }
    return NULL;
}

static void redis_peer_start(struct redis_peer *p, int count, const struct redis_answer *answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    memset(p, 0, sizeof *p);
    memcpy(p->answers, answers, (size_t)count * sizeof *answers);
    p->count = count;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(p->listener, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(p->listener, 64), 0);
    cr_assert_eq(getsockname(p->listener, (struct sockaddr *)&address, &size), 0);
    p->port = ntohs(address.sin_port);
    cr_assert_eq(pthread_create(&p->thread, NULL, redis_peer_main, p), 0);
}

static void redis_peer_stop(struct redis_peer *p)
{
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    close(p->listener);
}

#define REDIS_PEER(p, ...)                                                                       \
    struct redis_peer p;                                                                         \
    redis_peer_start(&p,                                                                         \
                     sizeof((struct redis_answer[]){__VA_ARGS__}) / sizeof(struct redis_answer), \
                     (struct redis_answer[]){__VA_ARGS__})

#endif
