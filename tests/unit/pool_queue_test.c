/* SPDX-License-Identifier: MIT */
/* pool_queue_test.c - who waits, in which order, for how long, and that nobody is forgotten. */
#include "pool_fixture.h"

static perf_pool_options of_size(uint64_t max_size)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = max_size;
    return options;
}

/* Without threads, and yet with the system's clock. */
static void open_without_threads(struct backend *b, perf_pool_options options)
{
    memset(b, 0, sizeof *b);
    options.vtable = &link_full;
    options.ctx = b;
    options.host = test_host_init(&b->th);
    b->th.host.clock = NULL;
    options.no_threads = 1;
    cr_assert_eq(perf_pool_open(&options, &b->pool), PERF_OK, "%s", perf_last_error());
}

static int64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct customer {
    struct backend *b;
    pthread_t thread;
    int64_t timeout_ms;
    _Atomic int *turn;
    _Atomic bool *stop;
    int served, rc;
};

static void *wait_turn(void *argument)
{
    struct customer *c = argument;
    void *conn;
    c->rc = perf_pool_acquire(c->b->pool, c->timeout_ms, &conn);
    if (c->rc)
        return NULL;
    if (c->turn)
        c->served = atomic_fetch_add(c->turn, 1);
    sleep_ms(3);
    c->rc = perf_pool_release(c->b->pool, conn);
    return NULL;
}

Test(pool_queue, whoever_waits_long_is_served_in_the_order_of_arrival)
{
    enum { CUSTOMERS = 8 };
    struct backend b;
    struct customer customers[CUSTOMERS];
    _Atomic int turn = 0;
    backend_open(&b, &link_plain, of_size(1), false);
    struct link *link = borrow(&b, 5000);
    for (int i = 0; i < CUSTOMERS; i++) {
        customers[i] = (struct customer){.b = &b, .timeout_ms = 20000, .turn = &turn};
        pthread_create(&customers[i].thread, NULL, wait_turn, &customers[i]);
        EVENTUALLY(backend_stats(&b).waiting == (uint64_t)i + 1);
    }
    sleep_ms(5);
    give(&b, link);
    for (int i = 0; i < CUSTOMERS; i++) {
        pthread_join(customers[i].thread, NULL);
        cr_assert_eq(customers[i].rc, PERF_OK);
        cr_assert_eq(customers[i].served, i);
    }
    cr_assert_eq(backend_stats(&b).waits, CUSTOMERS + 1);
    backend_close(&b);
}

static void *hammer(void *argument)
{
    struct customer *c = argument;
    while (!c->rc && !atomic_load(c->stop)) {
        void *conn;
        c->rc = perf_pool_acquire(c->b->pool, 20000, &conn);
        if (!c->rc)
            c->rc = perf_pool_release(c->b->pool, conn);
        c->served++;
    }
    return NULL;
}

static void with_hammers(struct backend *b, void (*run)(struct backend *b))
{
    enum { HAMMERS = 3 };
    struct customer hammers[HAMMERS];
    _Atomic bool stop = false;
    backend_open(b, &link_plain, of_size(1), false);
    for (int i = 0; i < HAMMERS; i++) {
        hammers[i] = (struct customer){.b = b, .stop = &stop};
        pthread_create(&hammers[i].thread, NULL, hammer, &hammers[i]);
    }
    run(b);
    atomic_store(&stop, true);
    for (int i = 0; i < HAMMERS; i++) {
        pthread_join(hammers[i].thread, NULL);
        cr_assert_eq(hammers[i].rc, PERF_OK);
    }
    backend_close(b);
}

static void borrow_now_and_then(struct backend *b)
{
    for (int i = 0; i < 50; i++) {
        int64_t begun = clock_ms(CLOCK_MONOTONIC);
        struct link *link = borrow(b, 10000);
        cr_assert_lt(clock_ms(CLOCK_MONOTONIC) - begun, 3000);
        sleep_ms(1);
        give(b, link);
    }
}

Test(pool_queue, a_hammering_thread_cannot_starve_one_that_waits)
{
    struct backend b;
    with_hammers(&b, borrow_now_and_then);
}

static void ask_now_and_then(struct backend *b)
{
    for (int i = 0; i < 50; i++) {
        perf_pool_request *request;
        void *conn = NULL;
        cr_assert_eq(perf_pool_start(b->pool, NULL, "asker", 10000, NULL, NULL, &request), PERF_OK);
        EVENTUALLY(perf_pool_request_take(request, &conn) == PERF_OK);
        give(b, conn);
        perf_pool_request_release(request);
    }
}

Test(pool_queue, nor_a_request)
{
    struct backend b;
    with_hammers(&b, ask_now_and_then);
}

/* One waits for ever while another has the only connection, which then is no more. */
static void loses_it(int (*lose)(struct backend *b, struct link *link))
{
    struct backend b;
    open_without_threads(&b, of_size(1));
    struct customer c = {.b = &b, .timeout_ms = 8000};
    struct link *link = borrow(&b, 5000);
    pthread_create(&c.thread, NULL, wait_turn, &c);
    EVENTUALLY(backend_stats(&b).waiting == 1);
    sleep_ms(5);
    int64_t begun = clock_ms(CLOCK_MONOTONIC);
    cr_assert_eq(lose(&b, link), PERF_OK);
    pthread_join(c.thread, NULL);
    cr_assert_eq(c.rc, PERF_OK);
    cr_assert_lt(clock_ms(CLOCK_MONOTONIC) - begun, 4000);
    backend_close(&b);
}

static int lose_by_discard(struct backend *b, struct link *link)
{
    return perf_pool_discard(b->pool, link);
}

static int lose_by_detach(struct backend *b, struct link *link)
{
    int rc = perf_pool_detach(b->pool, link);
    link_close(b, link);
    return rc;
}

static int lose_by_reset(struct backend *b, struct link *link)
{
    atomic_store(&b->fail_reset, 1);
    int rc = perf_pool_release(b->pool, link);
    atomic_store(&b->fail_reset, 0);
    return rc;
}

static int lose_nothing_and_grow(struct backend *b, struct link *link)
{
    int rc = perf_pool_resize(b->pool, 0, 2);
    EVENTUALLY(atomic_load(&b->opened) == 2);
    return rc ? rc : perf_pool_release(b->pool, link);
}

Test(pool_queue, without_threads_a_discarded_one_makes_room)
{
    loses_it(lose_by_discard);
}

Test(pool_queue, without_threads_a_detached_one_makes_room)
{
    loses_it(lose_by_detach);
}

Test(pool_queue, without_threads_one_that_cannot_be_reset_makes_room)
{
    loses_it(lose_by_reset);
}

Test(pool_queue, without_threads_a_larger_pool_makes_room)
{
    loses_it(lose_nothing_and_grow);
}

Test(pool_queue, without_threads_the_failed_open_of_another_makes_room)
{
    struct backend b;
    open_without_threads(&b, of_size(1));
    struct customer opener = {.b = &b, .timeout_ms = 150};
    struct customer c = {.b = &b, .timeout_ms = 8000};
    atomic_store(&b.open_delay_ms, 200);
    atomic_store(&b.fail_opens, 1);
    pthread_create(&opener.thread, NULL, wait_turn, &opener);
    EVENTUALLY(atomic_load(&b.opening) == 1);
    pthread_create(&c.thread, NULL, wait_turn, &c);
    int64_t begun = clock_ms(CLOCK_MONOTONIC);
    pthread_join(opener.thread, NULL);
    cr_assert_eq(opener.rc, PERF_EUNAVAILABLE, "%d", opener.rc);
    pthread_join(c.thread, NULL);
    cr_assert_eq(c.rc, PERF_OK, "%d", c.rc);
    cr_assert_lt(clock_ms(CLOCK_MONOTONIC) - begun, 4000);
    backend_close(&b);
}

static int hang_and_refuse(void *ctx, void *conn, int64_t timeout_ms)
{
    (void)ctx, (void)conn;
    sleep_ms(timeout_ms);
    return PERF_EIO;
}

Test(pool_queue, many_dead_connections_do_not_add_up)
{
    enum { SIZE = 8 };
    struct backend b;
    struct link *links[SIZE];
    perf_connection_vtable hanging = {sizeof hanging,  link_open, link_close,
                                      hang_and_refuse, NULL,      NULL};
    perf_pool_options options = of_size(SIZE);
    options.validate_after_ms = 20;
    options.validate_timeout_ms = 400;
    backend_open(&b, &hanging, options, false);
    for (int i = 0; i < SIZE; i++)
        links[i] = borrow(&b, 5000);
    for (int i = 0; i < SIZE; i++)
        give(&b, links[i]);
    sleep_ms(60);
    int64_t begun = clock_ms(CLOCK_MONOTONIC);
    void *conn;
    int rc = perf_pool_acquire(b.pool, 30, &conn);
    cr_assert_lt(clock_ms(CLOCK_MONOTONIC) - begun, 350, "the deadline was 30 ms");
    if (!rc)
        give(&b, conn);
    backend_close(&b);
}

Test(pool_queue, waiting_for_a_dead_backend_costs_no_processor)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of_size(4), false);
    atomic_store(&b.fail_opens, 1000000);
    cr_assert_eq(perf_pool_acquire(b.pool, 200, &conn), PERF_EUNAVAILABLE);
    int64_t begun = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    cr_assert_eq(perf_pool_acquire(b.pool, 1000, &conn), PERF_EUNAVAILABLE);
    cr_assert_lt(clock_ms(CLOCK_PROCESS_CPUTIME_ID) - begun, 300);
    backend_close(&b);
}

Test(pool_queue, nor_does_a_suspended_pool)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of_size(4), false);
    give(&b, borrow(&b, 5000));
    cr_assert_eq(perf_pool_suspend(b.pool), PERF_OK);
    int64_t begun = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    cr_assert_eq(perf_pool_acquire(b.pool, 700, &conn), PERF_ETIMEDOUT);
    cr_assert_lt(clock_ms(CLOCK_PROCESS_CPUTIME_ID) - begun, 250);
    cr_assert_eq(perf_pool_resume(b.pool), PERF_OK);
    give(&b, borrow(&b, 0));
    backend_close(&b);
}
