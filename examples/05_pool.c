/* SPDX-License-Identifier: MIT */
/*
 * 05_pool.c - borrow connections instead of opening them.
 *
 *     cc 05_pool.c $(pkg-config --cflags --libs libperf) -pthread && ./a.out
 *
 * The server is in this program: it sends back every byte, but hangs up on a '!'. Four threads
 * share three connections to it; then the server hangs up on idle ones, on one in use, and at last
 * all are out. Exit code 0 if all went as it should.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <libperf/macros.h>
#include <libperf/pool.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, CALLS = 2000, CONNECTIONS = 3 };

static int surprises;

static void expect(int is_so, const char *what)
{
    if (is_so)
        return;
    fprintf(stderr, "not as expected: %s\n", what);
    surprises++;
}

/* ------------------------------------------------------------------- server */

struct server {
    int listener;
    int hang_up[2]; /* a byte in this pipe: hang up on everybody; its end: stop */
    struct sockaddr_in address;
    pthread_t thread;
};

static void *serve(void *argument)
{
    struct server *s = argument;
    struct pollfd fds[2 + 64] = {{s->listener, POLLIN, 0}, {s->hang_up[0], POLLIN, 0}};
    nfds_t count = 2;
    char byte;
    for (int running = 1; running;) {
        poll(fds, count, -1);
        if (fds[1].revents) {
            running = read(s->hang_up[0], &byte, 1) == 1;
            while (count > 2)
                close(fds[--count].fd);
            continue;
        }
        for (nfds_t i = 2; i < count; i++) {
            if (!fds[i].revents)
                continue;
            if (read(fds[i].fd, &byte, 1) == 1 && byte != '!' && write(fds[i].fd, &byte, 1) == 1)
                continue;
            close(fds[i].fd);
            fds[i] = fds[--count];
        }
        if (fds[0].revents && count < sizeof fds / sizeof *fds)
            fds[count++] = (struct pollfd){accept(s->listener, NULL, NULL), POLLIN, 0};
    }
    return NULL;
}

static int server_start(struct server *s)
{
    socklen_t size = sizeof s->address;
    s->address.sin_family = AF_INET;
    s->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    return s->listener < 0 || bind(s->listener, (struct sockaddr *)&s->address, size) ||
           listen(s->listener, 64) ||
           getsockname(s->listener, (struct sockaddr *)&s->address, &size) || pipe(s->hang_up) ||
           pthread_create(&s->thread, NULL, serve, s);
}

static void server_hang_up(struct server *s)
{
    if (write(s->hang_up[1], "x", 1) != 1)
        abort();
}

static void server_stop(struct server *s)
{
    close(s->hang_up[1]);
    pthread_join(s->thread, NULL);
    close(s->hang_up[0]);
    close(s->listener);
}

/* -------------------------------------------------------------- connections */

/* This is all that the pool has to know. A connection is any pointer of ours. */
struct conn {
    int fd;
};

static int conn_open(void *ctx, const char *key, int64_t timeout_ms, void **out)
{
    const struct server *s = ctx;
    struct conn *c = malloc(sizeof *c);
    (void)key;
    (void)timeout_ms; /* a connect to this machine takes no time */
    if (!c)
        return PERF_ENOMEM;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || fcntl(c->fd, F_SETFD, FD_CLOEXEC) ||
        connect(c->fd, (const struct sockaddr *)&s->address, sizeof s->address)) {
        if (c->fd >= 0)
            close(c->fd);
        free(c);
        return PERF_EUNAVAILABLE;
    }
    *out = c;
    return PERF_OK;
}

static void conn_close(void *ctx, void *conn)
{
    struct conn *c = conn;
    (void)ctx;
    close(c->fd);
    free(c);
}

static int echo(struct conn *c, char sent)
{
    char received = 0;
    if (send(c->fd, &sent, 1, MSG_NOSIGNAL) != 1 || recv(c->fd, &received, 1, 0) != 1)
        return PERF_EIO;
    return received == sent ? PERF_OK : PERF_ECORRUPT;
}

static int conn_validate(void *ctx, void *conn, int64_t timeout_ms)
{
    (void)ctx;
    (void)timeout_ms;
    return echo(conn, '?');
}

static int conn_fd(void *ctx, void *conn)
{
    (void)ctx;
    return ((struct conn *)conn)->fd;
}

/* ---------------------------------------------------------------- what it does */

/* The way to use it: borrow for as long as needed and no longer. */
static int call(perf_pool *pool, char byte)
{
    int rc = PERF_EUNAVAILABLE;
    PERF_BORROW(pool, struct conn *, c, /* timeout_ms */ 2000) {
        rc = echo(c, byte);
        if (rc != PERF_OK)
            PERF_BORROW_BROKEN(c); /* not for the next one */
    } else {
        rc = PERF_BORROW_STATUS(c);
    }
    return rc;
}

static void *work(void *pool)
{
    intptr_t failures = 0;
    for (int i = 0; i < CALLS; i++)
        failures += call(pool, (char)('a' + i % 26)) != PERF_OK;
    return (void *)failures;
}

static void many_calls(perf_pool *pool)
{
    pthread_t threads[THREADS];
    perf_pool_stats stats = PERF_POOL_STATS_INIT;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, pool))
            abort();
    for (int i = 0; i < THREADS; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        expect(!failures, "every call of every thread succeeds");
    }
    perf_pool_get_stats(pool, &stats);
    printf("%d calls by %d threads: %llu connections opened, %.2f %% reused\n", THREADS * CALLS,
           THREADS, (unsigned long long)stats.opened,
           100.0 * (double)stats.reused / (double)stats.acquires);
    expect(stats.opened <= CONNECTIONS, "no more connections than max_size");
    expect(stats.reused * 100 >= stats.acquires * 99, "nearly all calls reuse a connection");
}

static void a_peer_that_dies(perf_pool *pool, struct server *s)
{
    perf_pool_stats before = PERF_POOL_STATS_INIT, after = PERF_POOL_STATS_INIT;
    perf_pool_get_stats(pool, &before);
    server_hang_up(s);
    do { /* until the news is here, of all of them */
        usleep(1000);
        perf_pool_get_stats(pool, &after);
    } while (after.closed_by_peer - before.closed_by_peer < before.idle);
    expect(call(pool, 'x') == PERF_OK, "a call after the server hung up on idle connections");
    expect(call(pool, '!') == PERF_EIO, "a call whose connection breaks is told");
    expect(call(pool, 'y') == PERF_OK, "the next call has another connection");
    perf_pool_get_stats(pool, &after);
    printf("the server hung up: %llu idle ones replaced, %llu found broken in use\n",
           (unsigned long long)after.closed_by_peer, (unsigned long long)after.closed_discarded);
    expect(after.closed_discarded == before.closed_discarded + 1, "one was discarded");
}

static void all_are_out(perf_pool *pool)
{
    void *held[CONNECTIONS];
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    int status = PERF_OK;
    for (int i = 0; i < CONNECTIONS; i++)
        expect(perf_pool_acquire_as(pool, "all_are_out", 2000, &held[i]) == PERF_OK, "one of all");
    PERF_BORROW(pool, struct conn *, c, /* timeout_ms */ 20) {
        expect(0, "there was one more");
    } else {
        status = PERF_BORROW_STATUS(c);
        printf("busy: %s: %s\n", perf_strstatus(status), perf_last_error());
    }
    expect(status == PERF_ETIMEDOUT, "with all connections out, a call times out");
    for (size_t i = 0; perf_pool_get_holder(pool, i, &holder) == PERF_OK; i++)
        printf("    held for %lld ms by %s\n", (long long)holder.held_ms,
               holder.who ? holder.who : "?");
    for (int i = 0; i < CONNECTIONS; i++)
        expect(perf_pool_release(pool, held[i]) == PERF_OK, "each goes back once");
    expect(perf_pool_release(pool, held[0]) == PERF_EINVAL, "and not twice");
}

int main(void)
{
    perf_connection_vtable vtable = {sizeof vtable, conn_open,     conn_close,
                                     conn_validate, /* reset */ 0, conn_fd};
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    perf_pool_stats stats = PERF_POOL_STATS_INIT;
    perf_pool *pool = NULL;
    struct server server = {0};
    if (server_start(&server)) {
        perror("no server");
        return 1;
    }
    options.vtable = &vtable;
    options.ctx = &server;
    options.max_size = CONNECTIONS;
    options.start = PERF_POOL_START_FAIL_FAST; /* a wrong address is told here, and not later */
    if (perf_pool_open(&options, &pool)) {
        fprintf(stderr, "%s\n", perf_last_error());
        return 1;
    }
    many_calls(pool);
    a_peer_that_dies(pool, &server);
    all_are_out(pool);

    perf_pool_get_stats(pool, &stats);
    printf("at the end: %llu open, %llu idle; %llu borrowed, %llu waited, p99 of these %.3f ms\n",
           (unsigned long long)stats.size, (unsigned long long)stats.idle,
           (unsigned long long)stats.acquires, (unsigned long long)stats.waits,
           (double)stats.wait_p99_ns / 1e6);
    expect(stats.in_use == 0, "nothing is out at the end");
    expect(perf_pool_close(pool) == PERF_OK, "the pool closes");
    server_stop(&server);
    return surprises != 0;
}
