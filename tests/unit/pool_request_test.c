/* SPDX-License-Identifier: MIT */
/* pool_request_test.c - asking without waiting, and the end of a pool: by close and by fork. */
#include <sys/wait.h>

#include "leaks.h"
#include "pool_fixture.h"

static perf_pool_options of_size(uint64_t max_size)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = max_size;
    return options;
}

struct answer {
    _Atomic int calls, status;
    void *_Atomic conn;
    _Atomic int delay_ms;
};

static void on_ready(void *ctx, int status, void *conn)
{
    struct answer *a = ctx;
    if (atomic_load(&a->delay_ms))
        sleep_ms(atomic_load(&a->delay_ms));
    atomic_store(&a->status, status);
    atomic_store(&a->conn, conn);
    atomic_fetch_add(&a->calls, 1);
}

static perf_pool_request *ask(struct backend *b, int64_t timeout_ms)
{
    perf_pool_request *request = NULL;
    int rc = perf_pool_start(b->pool, NULL, "asker", timeout_ms, NULL, NULL, &request);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return request;
}

Test(pool_request, calls_back)
{
    struct backend b;
    struct answer a = {0}, late = {0};
    backend_open(&b, &link_full, of_size(1), false);
    cr_assert_eq(perf_pool_start(b.pool, NULL, "me", 5000, on_ready, &a, NULL), PERF_OK);
    EVENTUALLY(atomic_load(&a.calls) == 1);
    cr_assert_eq(atomic_load(&a.status), PERF_OK);
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
    cr_assert_str_eq(holder.who, "me");
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 30, on_ready, &late, NULL), PERF_OK);
    EVENTUALLY(atomic_load(&late.calls) == 1);
    cr_assert_eq(atomic_load(&late.status), PERF_ETIMEDOUT);
    cr_assert_null(atomic_load(&late.conn));
    give(&b, atomic_load(&a.conn));
    cr_assert_eq(backend_stats(&b).timeouts, 1);
    backend_close(&b);
}

Test(pool_request, is_fetched_when_the_descriptor_says_so)
{
    struct backend b;
    perf_pool_request *requests[4], *next;
    void *conns[4], *none;
    int fd = -1;
    backend_open(&b, &link_plain, of_size(2), false);
    cr_assert_eq(perf_pool_fd(b.pool, &fd), PERF_OK);
    struct pollfd p = {fd, POLLIN, 0};
    for (int i = 0; i < 4; i++)
        requests[i] = ask(&b, 20000);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(poll(&p, 1, 10000), 1);
        cr_assert_eq(perf_pool_next(b.pool, &next), PERF_OK);
        cr_assert_eq(next, requests[i], "in the order of arrival");
        cr_assert_eq(perf_pool_request_take(next, &conns[i]), PERF_OK);
        cr_assert_eq(perf_pool_request_take(next, &none), PERF_EINVAL);
        if (i == 1) {
            cr_assert_eq(poll(&p, 1, 20), 0, "both are out");
            cr_assert_eq(perf_pool_next(b.pool, &next), PERF_MISS);
            cr_assert_eq(perf_pool_request_take(requests[2], &none), PERF_MISS);
        }
        if (i >= 1)
            give(&b, conns[i - 1]);
    }
    give(&b, conns[3]);
    cr_assert_eq(poll(&p, 1, 0), 0);
    for (int i = 0; i < 4; i++)
        perf_pool_request_release(requests[i]);
    backend_close(&b);
}

Test(pool_request, misses_its_deadline)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    perf_pool_request *soon = ask(&b, 20), *later = ask(&b, 20000), *now = ask(&b, 0);
    EVENTUALLY(perf_pool_request_take(soon, &conn) == PERF_ETIMEDOUT);
    EVENTUALLY(perf_pool_request_take(now, &conn) == PERF_ETIMEDOUT);
    cr_assert_eq(perf_pool_request_take(later, &conn), PERF_MISS);
    give(&b, link);
    EVENTUALLY(perf_pool_request_take(later, &conn) == PERF_OK);
    give(&b, conn);
    atomic_store(&b.fail_opens, 1000000);
    cr_assert_eq(perf_pool_evict_all(b.pool), PERF_OK);
    EVENTUALLY(backend_stats(&b).size == 0);
    perf_pool_request *never = ask(&b, 100);
    EVENTUALLY(perf_pool_request_take(never, &conn) == PERF_EUNAVAILABLE);
    perf_pool_request_release(soon);
    perf_pool_request_release(now);
    perf_pool_request_release(later);
    perf_pool_request_release(never);
    backend_close(&b);
}

Test(pool_request, is_cancelled_in_every_state)
{
    struct backend b;
    void *conn;
    struct answer a = {.delay_ms = 50};
    perf_pool_request *request, *next;
    backend_open(&b, &link_plain, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    perf_pool_request_release(NULL);
    perf_pool_request_release(ask(&b, 20000)); /* it waits */
    cr_assert_eq(backend_stats(&b).waiting, 0);
    request = ask(&b, 20000); /* it has one, and was not named */
    give(&b, link);
    EVENTUALLY(backend_stats(&b).in_use == 1 && !backend_stats(&b).waiting);
    perf_pool_request_release(request);
    cr_assert_eq(backend_stats(&b).in_use, 0);
    request = ask(&b, 20000); /* it has one, and was named */
    EVENTUALLY(perf_pool_next(b.pool, &next) == PERF_OK);
    cr_assert_eq(next, request);
    perf_pool_request_release(request);
    cr_assert_eq(backend_stats(&b).in_use, 0);
    request = ask(&b, 20000); /* it was taken: the connection is the caller's */
    EVENTUALLY(perf_pool_request_take(request, &conn) == PERF_OK);
    perf_pool_request_release(request);
    cr_assert_eq(backend_stats(&b).in_use, 1);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 20000, on_ready, &a, &request), PERF_OK);
    perf_pool_request_release(request); /* before its callback */
    give(&b, conn);
    sleep_ms(20);
    cr_assert_eq(atomic_load(&a.calls), 0);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 20000, on_ready, &a, &request), PERF_OK);
    cr_assert_eq(perf_pool_request_take(request, &conn), PERF_EINVAL, "it calls back");
    sleep_ms(20); /* in or before its callback */
    perf_pool_request_release(request);
    EVENTUALLY(backend_stats(&b).in_use == (uint64_t)atomic_load(&a.calls));
    EVENTUALLY(atomic_load(&a.calls) == 1);
    give(&b, atomic_load(&a.conn));
    backend_close(&b);
}

Test(pool_request, of_a_key)
{
    struct backend b;
    void *conn;
    perf_pool_request *request;
    backend_open(&b, &link_plain, of_size(1), false);
    cr_assert_eq(perf_pool_start(b.pool, "db1", NULL, 5000, NULL, NULL, &request), PERF_OK);
    EVENTUALLY(perf_pool_request_take(request, &conn) == PERF_OK);
    cr_assert_str_eq(((struct link *)conn)->key, "db1");
    give(&b, conn);
    perf_pool_request_release(request);
    cr_assert_eq(perf_pool_start(b.pool, "", NULL, 5000, NULL, NULL, &request), PERF_EINVAL);
    backend_close(&b);
}

Test(pool_request, is_refused)
{
    struct backend b;
    perf_pool_request *request, *waiting;
    perf_pool_options options = of_size(1);
    options.max_waiting = 1;
    backend_open(&b, &link_plain, options, true);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 0, NULL, NULL, &request), PERF_EUNSUPPORTED);
    backend_close(&b);
    backend_open(&b, &link_plain, options, false);
    cr_assert_eq(perf_pool_start(NULL, NULL, NULL, 0, NULL, NULL, &request), PERF_EINVAL);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 0, NULL, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, -2, NULL, NULL, &request), PERF_EINVAL);
    struct link *link = borrow(&b, 5000);
    waiting = ask(&b, -1);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 0, NULL, NULL, &request), PERF_EBUSY);
    perf_pool_request_release(waiting);
    give(&b, link);
    backend_close(&b);
}

Test(pool_request, is_served_although_its_socket_has_something_to_say)
{
    struct backend b;
    void *conn = NULL;
    backend_open(&b, &link_full, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    cr_assert_eq(write(atomic_load(&link->peer), "notice", 6), 6);
    give(&b, link);
    perf_pool_request *request = ask(&b, 5000);
    EVENTUALLY(perf_pool_request_take(request, &conn) == PERF_OK);
    cr_assert_eq(conn, (void *)link);
    cr_assert_leq(atomic_load(&b.validations), 2);
    give(&b, conn);
    perf_pool_request_release(request);
    backend_close(&b);
}

Test(pool_request, is_answered_when_the_pool_ends)
{
    struct backend b;
    void *conn;
    struct answer a = {.delay_ms = 60};
    backend_open(&b, &link_plain, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    perf_pool_request *request = ask(&b, -1), *never;
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, -1, on_ready, &a, NULL), PERF_OK);
    cr_assert_eq(perf_pool_close(b.pool), PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "1 requests"), "%s", perf_last_error());
    cr_assert_eq(atomic_load(&a.calls), 1, "close waits for callbacks");
    cr_assert_eq(atomic_load(&a.status), PERF_ECLOSED);
    cr_assert_eq(perf_pool_request_take(request, &conn), PERF_ECLOSED);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, 0, NULL, NULL, &never), PERF_ECLOSED);
    perf_pool_request_release(request);
    give(&b, link);
    backend_close(&b);
}

Test(pool_request, with_a_slow_callback_does_not_keep_a_pool_from_its_end)
{
    struct backend b;
    struct answer a = {.delay_ms = 80};
    backend_open(&b, &link_plain, of_size(1), false);
    atomic_store(&b.fail_opens, 1000000);
    cr_assert_eq(perf_pool_start(b.pool, NULL, NULL, -1, on_ready, &a, NULL), PERF_OK);
    sleep_ms(20);
    backend_close(&b);
    cr_assert_eq(atomic_load(&a.calls), 1);
    cr_assert_eq(atomic_load(&a.status), PERF_ECLOSED);
}

Test(pool_end, leaves_no_thread_no_descriptor_no_connection)
{
    struct test_leaks leaks = test_leaks_begin();
    for (int i = 0; i < 10; i++) {
        struct backend b;
        struct link *links[8];
        int fd;
        backend_open(&b, &link_full, of_size(8), false);
        atomic_store(&b.fail_opens, i % 3);
        cr_assert_eq(perf_pool_fd(b.pool, &fd), PERF_OK);
        for (int k = 0; k < 8; k++)
            links[k] = borrow(&b, 5000);
        cr_assert_eq(perf_pool_discard(b.pool, links[0]), PERF_OK);
        link_hang_up(links[1]);
        for (int k = 1; k < 8; k++)
            give(&b, links[k]);
        atomic_store(&b.open_delay_ms, 20);
        perf_pool_request *request = ask(&b, 1000);
        perf_pool_request_release(request);
        cr_assert_eq(perf_pool_evict_all(b.pool), PERF_OK);
        void *conn;
        if (!perf_pool_acquire(b.pool, 5, &conn)) /* one is being opened now */
            give(&b, conn);
        backend_close(&b);
        cr_assert_eq(atomic_load(&b.opened), atomic_load(&b.closed));
    }
    test_leaks_end(&leaks);
}

static int in_child(struct backend *b, perf_pool_request *request, struct link *link, int fds)
{
    void *conn;
    perf_pool_request *other;
    perf_pool_stats s = PERF_POOL_STATS_INIT;
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    int fd, closed = atomic_load(&b->closed);
    int answers[] = {
        perf_pool_acquire(b->pool, 1000, &conn),
        perf_pool_acquire_key(b->pool, "k", NULL, 1000, &conn),
        perf_pool_release(b->pool, link),
        perf_pool_discard(b->pool, link),
        perf_pool_detach(b->pool, link),
        perf_pool_evict_all(b->pool),
        perf_pool_revalidate(b->pool),
        perf_pool_suspend(b->pool),
        perf_pool_resume(b->pool),
        perf_pool_resize(b->pool, 0, 1),
        perf_pool_maintain(b->pool),
        perf_pool_start(b->pool, NULL, NULL, 0, NULL, NULL, &other),
        perf_pool_request_take(request, &conn),
        perf_pool_fd(b->pool, &fd),
        perf_pool_next(b->pool, &other),
        perf_pool_get_holder(b->pool, 0, &holder),
        perf_pool_get_stats(b->pool, &s),
    };
    for (int i = 0; i < (int)(sizeof answers / sizeof *answers); i++)
        if (answers[i] != PERF_EFORKED)
            return 10 + i;
    perf_pool_request_release(request);
    if (perf_pool_close(b->pool) || atomic_load(&b->closed) != closed)
        return 2;
    return test_leaks_fds() == fds - 3 ? 0 : 3; /* epoll, eventfd, and that of perf_pool_fd */
}

Test(pool_end, by_fork)
{
    struct backend b;
    int status = 0, fd;
    backend_open(&b, &link_full, of_size(2), false);
    struct link *link = borrow(&b, 5000), *idle = borrow(&b, 5000);
    perf_pool_request *request = ask(&b, -1);
    cr_assert_eq(perf_pool_fd(b.pool, &fd), PERF_OK);
    int fds = test_leaks_fds();
    pid_t child = fork();
    if (child == 0)
        _exit(in_child(&b, request, link, fds));
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    perf_pool_request_release(request);
    cr_assert(!link_is_dead(link)); /* the parent goes on */
    give(&b, link);
    give(&b, idle);
    struct link *again = borrow(&b, 5000);
    cr_assert(again == link || again == idle);
    give(&b, again);
    backend_close(&b);
}
