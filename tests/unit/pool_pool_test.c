/* SPDX-License-Identifier: MIT */
/* pool_pool_test.c - lending, giving back, limits, opening that fails or is slow, controls. */
#include "pool_fixture.h"

static perf_pool_options of_size(uint64_t max_size)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = max_size;
    return options;
}

Test(pool, lends_the_same_connection_to_the_same_thread)
{
    struct backend b;
    backend_open(&b, &link_plain, of_size(4), false);
    struct link *first = borrow(&b, 5000);
    give(&b, first);
    for (int i = 0; i < 1000; i++) {
        struct link *again = borrow(&b, 5000);
        cr_assert_eq(again, first);
        give(&b, again);
    }
    perf_pool_stats s = backend_stats(&b);
    cr_assert_eq(s.acquires, 1001);
    cr_assert_eq(s.reused, 1000);
    cr_assert_eq(s.opened, 1);
    cr_assert_eq(s.idle, 1);
    cr_assert_eq(s.in_use, 0);
    cr_assert_eq(s.size, 1);
    backend_close(&b);
}

Test(pool, opens_as_many_as_are_needed_and_no_more)
{
    struct backend b;
    struct link *links[5];
    backend_open(&b, &link_plain, of_size(5), false);
    for (int i = 0; i < 5; i++)
        links[i] = borrow(&b, 5000);
    void *conn = NULL;
    cr_assert_eq(perf_pool_acquire(b.pool, 20, &conn), PERF_ETIMEDOUT);
    cr_assert_null(conn);
    cr_assert(strstr(perf_last_error(), "5 are out"), "%s", perf_last_error());
    cr_assert_eq(perf_pool_acquire(b.pool, 0, &conn), PERF_ETIMEDOUT);
    cr_assert_eq(backend_stats(&b).in_use, 5);
    for (int i = 0; i < 5; i++)
        give(&b, links[i]);
    perf_pool_stats s = backend_stats(&b);
    cr_assert_eq(s.opened, 5);
    cr_assert_eq(s.timeouts, 2);
    cr_assert_eq(s.acquires, 5);
    cr_assert_eq(atomic_load(&b.open_peak), 5);
    backend_close(&b);
}

Test(pool, knows_what_it_lent)
{
    struct backend b, other;
    backend_open(&b, &link_plain, of_size(2), false);
    backend_open(&other, &link_plain, of_size(2), false);
    struct link *link = borrow(&b, 5000);
    void *second;
    cr_assert_eq(perf_pool_acquire(b.pool, -2, &second), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "timeout_ms is -2"), "%s", perf_last_error());
    cr_assert_eq(perf_pool_release(other.pool, link), PERF_EINVAL);
    cr_assert_eq(perf_pool_release(b.pool, NULL), PERF_EINVAL);
    cr_assert_eq(perf_pool_release(b.pool, &b), PERF_EINVAL);
    give(&b, link);
    cr_assert_eq(perf_pool_release(b.pool, link), PERF_EINVAL, "released twice");
    cr_assert_eq(perf_pool_discard(b.pool, link), PERF_EINVAL);
    cr_assert_eq(perf_pool_detach(b.pool, link), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire(NULL, 0, (void **)&link), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire(b.pool, 0, NULL), PERF_EINVAL);
    backend_close(&other);
    backend_close(&b);
}

Test(pool, several_pools_and_several_connections_of_one_thread)
{
    struct backend b[6];
    struct link *links[6][3];
    for (int i = 0; i < 6; i++)
        backend_open(&b[i], &link_plain, of_size(3), false);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 6; i++)
            for (int k = 0; k < 3; k++)
                cr_assert_eq((links[i][k] = borrow(&b[i], 5000))->backend, &b[i]);
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 6; i++)
                give(&b[i], links[i][(k + round) % 3]);
    }
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(backend_stats(&b[i]).acquires, 150);
        cr_assert_eq(backend_stats(&b[i]).opened, 3);
        backend_close(&b[i]);
    }
}

static void *release_elsewhere(void *argument)
{
    void **both = argument;
    struct backend *b = both[0];
    give(b, both[1]);
    return NULL;
}

Test(pool, a_connection_may_be_released_on_another_thread)
{
    struct backend b;
    pthread_t thread;
    backend_open(&b, &link_plain, of_size(1), false);
    void *both[] = {&b, borrow(&b, 5000)};
    cr_assert_eq(pthread_create(&thread, NULL, release_elsewhere, both), 0);
    struct link *link = borrow(&b, 5000);
    cr_assert_eq(link, both[1]);
    pthread_join(thread, NULL);
    give(&b, link);
    backend_close(&b);
}

Test(pool, a_failing_backend_costs_no_room)
{
    struct backend b;
    struct link *links[3];
    void *conn;
    backend_open(&b, &link_plain, of_size(3), false);
    atomic_store(&b.fail_opens, 1000000);
    cr_assert_eq(perf_pool_acquire(b.pool, 120, &conn), PERF_EUNAVAILABLE);
    cr_assert(strstr(perf_last_error(), "opening one failed"), "%s", perf_last_error());
    cr_assert_gt(backend_stats(&b).open_failures, 0);
    cr_assert_eq(backend_stats(&b).size, 0);
    atomic_store(&b.fail_opens, 2);
    for (int i = 0; i < 3; i++)
        links[i] = borrow(&b, 10000);
    for (int i = 0; i < 3; i++)
        give(&b, links[i]);
    backend_close(&b);
}

Test(pool, a_slow_open_outlives_its_caller)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of_size(1), false);
    atomic_store(&b.open_delay_ms, 200);
    cr_assert_eq(perf_pool_acquire(b.pool, 20, &conn), PERF_ETIMEDOUT);
    EVENTUALLY(backend_stats(&b).idle == 1);
    give(&b, borrow(&b, 0));
    cr_assert_eq(atomic_load(&b.opened), 1);
    backend_close(&b);
}

static void *borrow_once(void *argument)
{
    struct backend *b = argument;
    struct link *link = borrow(b, 20000);
    sleep_ms(1);
    give(b, link);
    return NULL;
}

Test(pool, never_opens_more_at_once_than_allowed)
{
    enum { THREADS = 32 };
    struct backend b;
    pthread_t threads[THREADS];
    perf_pool_options options = of_size(16);
    options.max_opening = 3;
    backend_open(&b, &link_plain, options, false);
    atomic_store(&b.open_delay_ms, 5);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, borrow_once, &b);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_leq(atomic_load(&b.opening_peak), 3);
    cr_assert_leq(atomic_load(&b.open_peak), 16);
    cr_assert_eq(backend_stats(&b).acquires, THREADS);
    backend_close(&b);
}

Test(pool, fails_fast_when_asked)
{
    struct backend b;
    memset(&b, 0, sizeof b);
    perf_pool_options options = of_size(3);
    options.start = PERF_POOL_START_FAIL_FAST;
    options.vtable = &link_plain;
    options.ctx = &b;
    perf_pool *pool = NULL;
    atomic_store(&b.fail_opens, 1);
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EUNAVAILABLE);
    cr_assert_null(pool);
    cr_assert(strstr(perf_last_error(), "first connection"), "%s", perf_last_error());
    options.min_idle = 3;
    backend_open(&b, &link_plain, options, false);
    cr_assert_geq(atomic_load(&b.opened), 1);
    EVENTUALLY(backend_stats(&b).idle == 3);
    backend_close(&b);
}

Test(pool, discard_and_detach)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(1), false);
    struct link *broken = borrow(&b, 5000);
    int number = broken->number;
    cr_assert_eq(perf_pool_discard(b.pool, broken), PERF_OK);
    struct link *mine = borrow(&b, 5000);
    cr_assert_neq(mine->number, number);
    cr_assert_eq(perf_pool_detach(b.pool, mine), PERF_OK);
    struct link *next = borrow(&b, 5000); /* its place is free */
    cr_assert_neq(next, mine);
    cr_assert(!link_is_dead(mine));
    link_close(&b, mine);
    give(&b, next);
    perf_pool_stats s = backend_stats(&b);
    cr_assert_eq(s.closed_discarded, 1);
    cr_assert_eq(s.detached, 1);
    cr_assert_eq(s.size, 1);
    backend_close(&b);
}

Test(pool, reset_that_says_no_closes)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    give(&b, link);
    cr_assert_eq(atomic_load(&b.resets), 1);
    link = borrow(&b, 5000);
    int number = link->number;
    atomic_store(&b.fail_reset, 1);
    give(&b, link);
    atomic_store(&b.fail_reset, 0);
    link = borrow(&b, 5000);
    cr_assert_neq(link->number, number);
    cr_assert_eq(backend_stats(&b).closed_invalid, 1);
    give(&b, link);
    backend_close(&b);
}

Test(pool, a_socket_closed_by_its_peer_is_never_lent)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(2), false);
    struct link *link = borrow(&b, 5000);
    int number = link->number;
    give(&b, link);
    link_hang_up(link);
    EVENTUALLY(backend_stats(&b).closed_by_peer == 1);
    link = borrow(&b, 5000);
    cr_assert_neq(link->number, number);
    number = link->number;
    link_hang_up(link); /* while it is out */
    sleep_ms(20);
    give(&b, link);
    EVENTUALLY(backend_stats(&b).closed_by_peer == 2);
    link = borrow(&b, 5000);
    cr_assert_neq(link->number, number);
    give(&b, link);
    backend_close(&b);
}

Test(pool, evict_all_ends_idle_borrowed_and_opening_ones)
{
    struct backend b;
    backend_open(&b, &link_full, of_size(3), false);
    struct link *held = borrow(&b, 5000), *idle = borrow(&b, 5000);
    int held_number = held->number;
    give(&b, idle);
    atomic_store(&b.open_delay_ms, 100);
    void *conn;
    struct link *again = borrow(&b, 5000);
    cr_assert_eq(again, idle);
    cr_assert_eq(perf_pool_acquire(b.pool, 1, &conn),
                 PERF_ETIMEDOUT); /* a third one is on its way */
    give(&b, again);
    cr_assert_eq(perf_pool_evict_all(b.pool), PERF_OK);
    cr_assert(!link_is_dead(held));
    EVENTUALLY(backend_stats(&b).closed_evicted == 2);
    give(&b, held);
    EVENTUALLY(backend_stats(&b).closed_evicted == 3);
    struct link *fresh = borrow(&b, 5000);
    cr_assert_gt(fresh->number, 3);
    cr_assert_neq(fresh->number, held_number);
    give(&b, fresh);
    backend_close(&b);
}

Test(pool, suspend_and_resume)
{
    struct backend b;
    pthread_t thread;
    void *conn;
    backend_open(&b, &link_plain, of_size(2), false);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(perf_pool_suspend(b.pool), PERF_OK);
    cr_assert_eq(perf_pool_acquire(b.pool, 10, &conn), PERF_ETIMEDOUT);
    cr_assert(strstr(perf_last_error(), "suspended"), "%s", perf_last_error());
    pthread_create(&thread, NULL, borrow_once, &b);
    EVENTUALLY(backend_stats(&b).waiting == 1);
    cr_assert_eq(perf_pool_resume(b.pool), PERF_OK);
    pthread_join(thread, NULL);
    cr_assert_eq(backend_stats(&b).acquires, 2);
    backend_close(&b);
}

Test(pool, resize_down_and_up)
{
    struct backend b;
    struct link *links[4];
    void *conn;
    backend_open(&b, &link_plain, of_size(4), false);
    for (int i = 0; i < 4; i++)
        links[i] = borrow(&b, 5000);
    give(&b, links[0]);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 2), PERF_OK);
    EVENTUALLY(backend_stats(&b).size == 3);
    give(&b, links[1]);
    give(&b, links[2]);
    give(&b, links[3]);
    EVENTUALLY(backend_stats(&b).size == 2);
    links[0] = borrow(&b, 5000);
    links[1] = borrow(&b, 5000);
    cr_assert_eq(perf_pool_acquire(b.pool, 10, &conn), PERF_ETIMEDOUT);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 3), PERF_OK);
    links[2] = borrow(&b, 5000);
    for (int i = 0; i < 3; i++)
        give(&b, links[i]);
    cr_assert_eq(perf_pool_resize(b.pool, 3, 2), PERF_EINVAL);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 0), PERF_EINVAL);
    cr_assert_eq(perf_pool_resize(b.pool, 0, 5000), PERF_EINVAL);
    backend_close(&b);
}

static void *wait_for_ever(void *argument)
{
    struct backend *b = argument;
    void *conn;
    return perf_pool_acquire(b->pool, -1, &conn) == PERF_ECLOSED ? b : NULL;
}

Test(pool, close_ends_waits_and_refuses_while_something_is_out)
{
    struct backend b;
    pthread_t thread;
    void *result;
    backend_open(&b, &link_plain, of_size(1), false);
    void *conn;
    cr_assert_eq(perf_pool_acquire_as(b.pool, "test.c:1", 5000, &conn), PERF_OK);
    pthread_create(&thread, NULL, wait_for_ever, &b);
    EVENTUALLY(backend_stats(&b).waiting == 1);
    cr_assert_eq(perf_pool_close(b.pool), PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "test.c:1"), "%s", perf_last_error());
    pthread_join(thread, &result);
    cr_assert_eq(result, &b);
    cr_assert_eq(perf_pool_acquire(b.pool, 5000, &conn), PERF_ECLOSED);
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
    cr_assert_str_eq(holder.who, "test.c:1");
    cr_assert_eq(perf_pool_get_holder(b.pool, 1, &holder), PERF_MISS);
    give(&b, holder.conn);
    backend_close(&b);
}

Test(pool, waiting_is_bounded)
{
    struct backend b;
    pthread_t thread;
    void *conn;
    perf_pool_options options = of_size(1);
    options.max_waiting = 1;
    backend_open(&b, &link_plain, options, false);
    struct link *link = borrow(&b, 5000);
    pthread_create(&thread, NULL, borrow_once, &b);
    EVENTUALLY(backend_stats(&b).waiting == 1);
    cr_assert_eq(perf_pool_acquire(b.pool, 5000, &conn), PERF_EBUSY);
    give(&b, link);
    pthread_join(thread, NULL);
    cr_assert_eq(backend_stats(&b).rejected, 1);
    backend_close(&b);
}

static int nothing(void *ctx, const char *key, int64_t timeout_ms, void **conn)
{
    (void)ctx, (void)key, (void)timeout_ms, (void)conn;
    return PERF_OK; /* and gives no connection */
}

Test(pool, options_are_checked_and_named)
{
    perf_pool *pool = NULL;
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    cr_assert_eq(perf_pool_open(NULL, &pool), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "vtable"));
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    perf_connection_vtable half = {sizeof half, link_open, NULL, NULL, NULL, NULL};
    options.vtable = &half;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "close"));
    options.vtable = &link_plain;
    options.max_size = 4097;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "max_size is 4097"), "%s", perf_last_error());
    options.max_size = 4;
    options.min_idle = 5;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "min_idle is 5"), "%s", perf_last_error());
    options.min_idle = 0;
    options.validate_after_ms = -2;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    options.validate_after_ms = 0;
    options.struct_size = 3;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_EINVAL);
    cr_assert_null(pool);
    cr_assert_eq(perf_pool_close(NULL), PERF_OK);

    perf_connection_vtable lying = {sizeof lying, nothing, link_close, NULL, NULL, NULL};
    options = of_size(1);
    options.vtable = &lying;
    cr_assert_eq(perf_pool_open(&options, &pool), PERF_OK);
    void *conn;
    cr_assert_eq(perf_pool_acquire(pool, 100, &conn), PERF_EUNAVAILABLE);
    cr_assert_eq(perf_pool_close(pool), PERF_OK);
}
