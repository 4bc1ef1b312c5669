/* SPDX-License-Identifier: MIT */
/*
 * pool_fixture.h - connections that are real sockets (socketpair), and a backend that counts them,
 * refuses or delays opens, and hangs up when told.
 */
#ifndef TESTS_POOL_FIXTURE_H
#define TESTS_POOL_FIXTURE_H

#include <libperf/pool.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "seams.h"
#include "test.h"

struct backend {
    struct test_host th;
    perf_pool *pool;
    _Atomic int open_now, open_peak, opened, closed; /* connections */
    _Atomic int opening, opening_peak;               /* calls of open under way */
    _Atomic int fail_opens;                          /* so many next opens fail */
    _Atomic int open_delay_ms;
    _Atomic int validations, resets;
    _Atomic int fail_validate, fail_reset; /* 1: say no */
};

struct link {
    struct backend *backend;
    int fd;           /* our end */
    _Atomic int peer; /* the other one's; -1 once that one hung up */
    int number;
    char key[64];
    _Atomic int users; /* borrowers at once: never more than one */
};

static inline void sleep_ms(int64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static inline void raise_peak(_Atomic int *peak, int value)
{
    int old = atomic_load(peak);
    while (value > old && !atomic_compare_exchange_weak(peak, &old, value))
        ;
}

static inline int link_open(void *ctx, const char *key, int64_t timeout_ms, void **conn)
{
    struct backend *b = ctx;
    int pair[2], rc = PERF_EUNAVAILABLE;
    (void)timeout_ms;
    raise_peak(&b->opening_peak, atomic_fetch_add(&b->opening, 1) + 1);
    if (atomic_load(&b->open_delay_ms))
        sleep_ms(atomic_load(&b->open_delay_ms));
    if (atomic_load(&b->fail_opens) > 0) {
        atomic_fetch_sub(&b->fail_opens, 1);
        goto out;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        goto out;
    struct link *link = calloc(1, sizeof *link);
    link->backend = b;
    link->fd = pair[0];
    link->peer = pair[1];
    link->number = atomic_fetch_add(&b->opened, 1) + 1;
    strncpy(link->key, key, sizeof link->key - 1);
    raise_peak(&b->open_peak, atomic_fetch_add(&b->open_now, 1) + 1);
    *conn = link;
    rc = PERF_OK;
out:
    atomic_fetch_sub(&b->opening, 1);
    return rc;
}

static inline void link_hang_up(struct link *link)
{
    int peer = atomic_exchange(&link->peer, -1);
    if (peer >= 0)
        close(peer); /* the pool may free link from here on */
}

static inline void link_close(void *ctx, void *conn)
{
    struct backend *b = ctx;
    struct link *link = conn;
    link_hang_up(link);
    close(link->fd);
    free(link);
    atomic_fetch_add(&b->closed, 1);
    atomic_fetch_sub(&b->open_now, 1);
}

static inline bool link_is_dead(const struct link *link)
{
    struct pollfd p = {link->fd, POLLIN | POLLRDHUP, 0};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static inline int link_validate(void *ctx, void *conn, int64_t timeout_ms)
{
    struct backend *b = ctx;
    (void)timeout_ms;
    atomic_fetch_add(&b->validations, 1);
    return atomic_load(&b->fail_validate) || link_is_dead(conn) ? PERF_EIO : PERF_OK;
}

static inline int link_reset(void *ctx, void *conn)
{
    struct backend *b = ctx;
    (void)conn;
    atomic_fetch_add(&b->resets, 1);
    return atomic_load(&b->fail_reset) ? PERF_EIO : PERF_OK;
}

static inline int link_fd(void *ctx, void *conn)
{
    (void)ctx;
    return ((struct link *)conn)->fd;
}

static const perf_connection_vtable link_full = {sizeof link_full, link_open,  link_close,
                                                 link_validate,    link_reset, link_fd};
static const perf_connection_vtable link_plain = {
    sizeof link_plain, link_open, link_close, NULL, NULL, NULL};

/* options as the test wants them, but for vtable, ctx and host. manual: a clock that the test
 * moves, and no threads. */
static inline void backend_open(struct backend *b, const perf_connection_vtable *vtable,
                                perf_pool_options options, bool manual)
{
    memset(b, 0, sizeof *b);
    const perf_host *host = test_host_init(&b->th);
    if (!manual)
        b->th.host.clock = NULL;
    options.vtable = vtable;
    options.ctx = b;
    options.host = host;
    options.no_threads = manual;
    int rc = perf_pool_open(&options, &b->pool);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
}

static inline void backend_close(struct backend *b)
{
    cr_assert_eq(perf_pool_close(b->pool), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(atomic_load(&b->open_now), 0, "connections were left open");
    cr_assert_eq(atomic_load(&b->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&b->th.live));
}

static inline perf_pool_stats backend_stats(struct backend *b)
{
    perf_pool_stats s = PERF_POOL_STATS_INIT;
    cr_assert_eq(perf_pool_get_stats(b->pool, &s), PERF_OK);
    return s;
}

static inline struct link *borrow(struct backend *b, int64_t timeout_ms)
{
    void *conn = NULL;
    int rc = perf_pool_acquire(b->pool, timeout_ms, &conn);
    cr_assert_eq(rc, PERF_OK, "%s: %s", perf_strstatus(rc), perf_last_error());
    return conn;
}

static inline void give(struct backend *b, struct link *link)
{
    cr_assert_eq(perf_pool_release(b->pool, link), PERF_OK, "%s", perf_last_error());
}

/* Waits until the condition holds, for what other threads do; fails after ten seconds. */
#define EVENTUALLY(condition)                                  \
    do {                                                       \
        for (int tries_ = 0; !(condition); tries_++) {         \
            cr_assert_lt(tries_, 10000, "never: " #condition); \
            sleep_ms(1);                                       \
        }                                                      \
    } while (0)

#endif
