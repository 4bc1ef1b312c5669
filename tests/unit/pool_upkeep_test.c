/* SPDX-License-Identifier: MIT */
/* pool_upkeep_test.c - what is done in time, under a clock that the test moves; and a process that
 * is stopped. */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pool_fixture.h"

static perf_pool_options of_size(uint64_t max_size)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = max_size;
    options.max_lifetime_ms = options.idle_timeout_ms = options.keep_alive_ms = -1;
    return options;
}

static void pass(struct backend *b, int64_t ms)
{
    test_host_advance(&b->th, ms);
    cr_assert_eq(perf_pool_maintain(b->pool), PERF_OK);
}

static void open_many(struct backend *b, int count)
{
    struct link *links[32];
    for (int i = 0; i < count; i++)
        links[i] = borrow(b, 5000);
    for (int i = 0; i < count; i++)
        give(b, links[i]);
}

Test(pool_upkeep, opens_keep_their_distance)
{
    struct backend b;
    void *conn;
    perf_pool_options options = of_size(3);
    options.open_interval_ms = 1000;
    backend_open(&b, &link_plain, options, true);
    struct link *one = borrow(&b, 5000);
    test_host_advance(&b.th, 999);
    cr_assert_eq(perf_pool_acquire(b.pool, 5, &conn), PERF_ETIMEDOUT);
    cr_assert_eq(atomic_load(&b.opened), 1);
    test_host_advance(&b.th, 1);
    struct link *two = borrow(&b, 5000);
    give(&b, one);
    give(&b, two);
    backend_close(&b);
}

Test(pool_upkeep, failed_opens_back_off)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of_size(3), true);
    atomic_store(&b.fail_opens, 1000000);
    int64_t backoff = 50;
    uint64_t failures = 0;
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(perf_pool_acquire(b.pool, 3, &conn), PERF_EUNAVAILABLE);
        cr_assert_eq(backend_stats(&b).open_failures, ++failures);
        test_host_advance(&b.th, backoff / 2 - 1);
        cr_assert_eq(perf_pool_acquire(b.pool, 3, &conn), PERF_EUNAVAILABLE);
        cr_assert_eq(backend_stats(&b).open_failures, failures, "too early");
        test_host_advance(&b.th, backoff - (backoff / 2 - 1));
        backoff = backoff < 2500 ? 2 * backoff : 5000;
    }
    atomic_store(&b.fail_opens, 0);
    give(&b, borrow(&b, 5000));
    struct link *link = borrow(&b, 5000), *next = borrow(&b, 5000); /* forgotten by a success */
    give(&b, link);
    give(&b, next);
    cr_assert_eq(backend_stats(&b).timeouts, 20);
    backend_close(&b);
}

Test(pool_upkeep, connections_grow_old_and_not_all_at_once)
{
    enum { COUNT = 24 };
    struct backend b;
    perf_pool_options options = of_size(COUNT);
    options.max_lifetime_ms = 10000;
    backend_open(&b, &link_plain, options, true);
    open_many(&b, COUNT);
    pass(&b, 8999);
    cr_assert_eq(backend_stats(&b).closed_lifetime, 0);
    int steps = 0;
    uint64_t before = 0;
    for (int i = 0; i < 10; i++) {
        pass(&b, i ? 100 : 101);
        uint64_t closed = backend_stats(&b).closed_lifetime;
        steps += closed > before;
        before = closed;
    }
    cr_assert_eq(before, COUNT);
    cr_assert_gt(steps, 1);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.opened), COUNT + 1);
    backend_close(&b);
}

Test(pool_upkeep, an_old_connection_is_not_lent)
{
    struct backend b;
    perf_pool_options options = of_size(1);
    options.max_lifetime_ms = 1000;
    backend_open(&b, &link_plain, options, true);
    give(&b, borrow(&b, 5000));
    test_host_advance(&b.th, 1000);
    struct link *link = borrow(&b, 5000);
    cr_assert_eq(link->number, 2);
    test_host_advance(&b.th, 1000); /* while it is out */
    give(&b, link);
    link = borrow(&b, 5000);
    cr_assert_eq(link->number, 3);
    give(&b, link);
    cr_assert_eq(backend_stats(&b).closed_lifetime, 2);
    backend_close(&b);
}

Test(pool_upkeep, idle_connections_above_min_idle_are_closed)
{
    struct backend b;
    perf_pool_options options = of_size(6);
    options.idle_timeout_ms = 1000;
    options.min_idle = 2;
    backend_open(&b, &link_plain, options, true);
    open_many(&b, 5);
    pass(&b, 999);
    cr_assert_eq(backend_stats(&b).size, 5);
    pass(&b, 1);
    cr_assert_eq(backend_stats(&b).size, 2);
    cr_assert_eq(backend_stats(&b).closed_idle, 3);
    pass(&b, 100000);
    cr_assert_eq(backend_stats(&b).size, 2);
    cr_assert_eq(atomic_load(&b.opened), 5);
    backend_close(&b);
}

Test(pool_upkeep, min_idle_is_filled_at_once)
{
    struct backend b;
    perf_pool_options options = of_size(3);
    options.max_lifetime_ms = 1000;
    options.min_idle = 3;
    options.start = PERF_POOL_START_BACKGROUND;
    backend_open(&b, &link_plain, options, true);
    cr_assert_eq(backend_stats(&b).idle, 3);
    pass(&b, 1000); /* all are too old, and the new ones need their places */
    cr_assert_eq(backend_stats(&b).idle, 3);
    cr_assert_eq(backend_stats(&b).closed_lifetime, 3);
    cr_assert_eq(perf_pool_discard(b.pool, borrow(&b, 0)), PERF_OK);
    pass(&b, 0);
    cr_assert_eq(backend_stats(&b).idle, 3);
    backend_close(&b);
}

Test(pool_upkeep, idle_connections_are_kept_alive)
{
    struct backend b;
    perf_pool_options options = of_size(3);
    options.keep_alive_ms = 5000;
    backend_open(&b, &link_full, options, true);
    open_many(&b, 3);
    pass(&b, 4999);
    cr_assert_eq(atomic_load(&b.validations), 0);
    pass(&b, 1);
    cr_assert_eq(atomic_load(&b.validations), 3);
    pass(&b, 4999);
    cr_assert_eq(atomic_load(&b.validations), 3);
    atomic_store(&b.fail_validate, 1);
    pass(&b, 1);
    cr_assert_eq(atomic_load(&b.validations), 6);
    cr_assert_eq(backend_stats(&b).closed_invalid, 3);
    cr_assert_eq(backend_stats(&b).size, 0);
    backend_close(&b);
}

Test(pool_upkeep, validation_is_due_after_a_while)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(2), true);
    give(&b, borrow(&b, 5000));
    test_host_advance(&b.th, 999);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), 0);
    test_host_advance(&b.th, 1000);
    struct link *link = borrow(&b, 5000);
    cr_assert_eq(link->number, 1);
    cr_assert_eq(atomic_load(&b.validations), 1);
    give(&b, link);
    test_host_advance(&b.th, 1000);
    atomic_store(&b.fail_validate, 1);
    link = borrow(&b, 5000);
    cr_assert_eq(link->number, 2);
    give(&b, link);
    perf_pool_stats s = backend_stats(&b);
    cr_assert_eq(s.validations, 2);
    cr_assert_eq(s.closed_invalid, 1);
    cr_assert_eq(s.acquires, 4);
    cr_assert_eq(s.reused, 2);
    backend_close(&b);
}

Test(pool_upkeep, adaptive_keeps_what_was_needed)
{
    struct backend b;
    struct link *links[6];
    perf_pool_options options = of_size(8);
    options.adaptive = 1;
    options.min_idle = 1;
    backend_open(&b, &link_plain, options, true);
    for (int i = 0; i < 6; i++)
        links[i] = borrow(&b, 5000);
    pass(&b, 1);
    cr_assert_eq(backend_stats(&b).peak_in_use, 6);
    for (int i = 0; i < 6; i++)
        give(&b, links[i]);
    pass(&b, 61000);
    cr_assert_eq(backend_stats(&b).idle, 6);
    cr_assert_eq(perf_pool_discard(b.pool, borrow(&b, 0)), PERF_OK);
    pass(&b, 1);
    cr_assert_eq(backend_stats(&b).idle, 6, "it is replaced");
    pass(&b, 61000);
    pass(&b, 61000);
    cr_assert_eq(backend_stats(&b).idle, 1, "forgotten after two minutes");
    backend_close(&b);
}

Test(pool_upkeep, leaks_are_reported_once_for_each_use)
{
    struct backend b;
    void *conn;
    perf_pool_options options = of_size(2);
    options.leak_ms = 100;
    backend_open(&b, &link_plain, options, true);
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    for (uint64_t use = 1; use <= 2; use++) {
        cr_assert_eq(perf_pool_acquire_as(b.pool, "worker.c:42", 5000, &conn), PERF_OK);
        int64_t lines = atomic_load(&b.th.logged);
        pass(&b, 99);
        cr_assert_eq(backend_stats(&b).leaks, use - 1);
        cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
        cr_assert_eq(holder.is_leak, 0);
        pass(&b, 1);
        pass(&b, 1000);
        cr_assert_eq(backend_stats(&b).leaks, use);
        cr_assert_eq(atomic_load(&b.th.logged), lines + 1);
        cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
        cr_assert_eq(holder.is_leak, 1);
        cr_assert_eq(holder.held_ms, 1100);
        cr_assert_eq(holder.thread, (int64_t)syscall(SYS_gettid));
        cr_assert_str_eq(holder.who, "worker.c:42");
        cr_assert_str_eq(holder.key, "");
        cr_assert_eq(holder.conn, conn);
        give(&b, conn);
    }
    cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_MISS);
    backend_close(&b);
}

Test(pool_upkeep, a_clock_jump_and_revalidate_make_idle_connections_suspect)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(2), true);
    cr_assert_eq(perf_pool_maintain(b.pool), PERF_OK);
    give(&b, borrow(&b, 5000));
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), 0);
    atomic_fetch_add(&b.th.realtime_ms, 900);
    cr_assert_eq(perf_pool_maintain(b.pool), PERF_OK);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), 0);
    atomic_fetch_add(&b.th.realtime_ms, 60000); /* the machine slept */
    cr_assert_eq(perf_pool_maintain(b.pool), PERF_OK);
    int validations = atomic_load(&b.validations);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), validations + 1);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), validations + 1);
    cr_assert_eq(perf_pool_revalidate(b.pool), PERF_OK);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(atomic_load(&b.validations), validations + 2);
    backend_close(&b);
}

Test(pool_upkeep, a_smaller_pool_loses_no_more_than_it_must)
{
    struct backend b;
    struct link *links[4];
    backend_open(&b, &link_plain, of_size(4), true);
    for (int i = 0; i < 4; i++)
        links[i] = borrow(&b, 5000);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 3), PERF_OK);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 2), PERF_OK);
    for (int i = 0; i < 2; i++)
        give(&b, links[i]);
    pass(&b, 1); /* it must not end what is idle because the others are still out */
    cr_assert_eq(backend_stats(&b).size, 4, "two that stay and two that end on return");
    give(&b, links[2]);
    give(&b, links[3]);
    pass(&b, 1);
    cr_assert_eq(backend_stats(&b).size, 2);
    cr_assert_eq(backend_stats(&b).closed_evicted, 2);
    backend_close(&b);
}

#ifndef __SANITIZE_THREAD__ /* it allows no threads in a child of a process that had some */
/* In a process of its own: borrows once, waits to be told, borrows again. */
static void be_frozen(int theirs, int orders, int answers)
{
    struct backend b;
    char order;
    backend_open(&b, &link_full, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    close(atomic_exchange(&link->peer, -1));
    dup2(theirs, link->fd); /* whose other end another process has */
    give(&b, link);
    if (write(answers, "r", 1) != 1 || read(orders, &order, 1) != 1)
        _exit(3);
    link = borrow(&b, 5000);
    char answer = link_is_dead(link) ? 'd' : 'l';
    if (write(answers, &answer, 1) != 1)
        _exit(4);
    give(&b, link);
    _exit(perf_pool_close(b.pool) ? 5 : 0);
}

Test(pool_upkeep, a_process_that_was_stopped_gets_no_dead_connection)
{
    int pair[2], orders[2], answers[2], status = 0;
    char answer = 0;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    cr_assert_eq(pipe(orders), 0);
    cr_assert_eq(pipe(answers), 0);
    pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        be_frozen(pair[1], orders[0], answers[1]);
    }
    close(pair[1]);
    cr_assert_eq(read(answers[0], &answer, 1), 1);
    kill(child, SIGSTOP);
    cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
    cr_assert(WIFSTOPPED(status));
    close(pair[0]);
    cr_assert_eq(write(orders[1], "g", 1), 1);
    kill(child, SIGCONT);
    cr_assert_eq(read(answers[0], &answer, 1), 1);
    cr_assert_eq(answer, 'l');
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    close(orders[0]);
    close(orders[1]);
    close(answers[0]);
    close(answers[1]);
}
#endif
