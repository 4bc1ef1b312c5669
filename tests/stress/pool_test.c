/* SPDX-License-Identifier: MIT */
/*
 * pool_test.c - many threads on few connections that die at random, and then everything at once.
 *
 * Each connection knows how many borrow it (never more than one) and whether its peer hung up. The
 * number of borrowings is PERF_STRESS_OPS (all threads together).
 */
#include "../../src/base/thread.h"
#include "pool_fixture.h"

/* An assertion in another thread than the test's own could not be reported. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, perf_last_error()); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { THREADS = 32, SIZE = 16 };

struct crowd {
    struct backend b;
    uint64_t ops; /* of each thread */
    bool controls;
    _Atomic uint64_t lent_dead, killed, refused, borrowed;
    _Atomic bool stop;
};

static uint64_t operations(uint64_t all)
{
    const char *given = getenv("PERF_STRESS_OPS");
    uint64_t n = given ? strtoull(given, NULL, 10) : all;
    return n / THREADS ? n / THREADS : 1;
}

static void use(struct crowd *c, struct link *link)
{
    CHECK(atomic_fetch_add(&link->users, 1) == 0);
    /* A peer that hangs up in this very moment is nobody's fault; only these threads make peers
     * hang up, while they have the connection or have just given it back. */
    if (link->peer < 0)
        atomic_fetch_add(&c->lent_dead, 1);
    /* A detached one is no longer the pool's, until the thread that has it closes it. */
    CHECK(atomic_load(&c->b.open_now) <= SIZE + (c->controls ? THREADS : 0));
    atomic_fetch_add(&c->borrowed, 1);
}

static void *borrow_many(void *argument)
{
    struct crowd *c = argument;
    for (uint64_t i = 0; i < c->ops; i++) {
        void *conn;
        int rc = perf_pool_acquire(c->b.pool, 20000, &conn);
        CHECK((rc) == PERF_OK);
        struct link *link = conn;
        uint64_t dice = perf__thread_random() % 1000;
        use(c, link);
        if (dice < 10) { /* one of a hundred dies, and half of its users notice */
            link_hang_up(link);
            atomic_fetch_add(&c->killed, 1);
        }
        atomic_fetch_sub(&link->users, 1);
        if (dice < 5 || (c->controls && dice == 20))
            rc = perf_pool_discard(c->b.pool, conn);
        else if (c->controls && dice == 21) {
            rc = perf_pool_detach(c->b.pool, conn);
            link_close(&c->b, conn);
        } else
            rc = perf_pool_release(c->b.pool, conn);
        CHECK((rc) == PERF_OK);
    }
    return NULL;
}

static void *control(void *argument)
{
    struct crowd *c = argument;
    while (!atomic_load(&c->stop)) {
        switch (perf__thread_random() % 6) {
        case 0:
            CHECK((perf_pool_evict_all(c->b.pool)) == PERF_OK);
            break;
        case 1:
            CHECK((perf_pool_revalidate(c->b.pool)) == PERF_OK);
            break;
        case 2:
            CHECK((perf_pool_maintain(c->b.pool)) == PERF_OK);
            break;
        case 3:
            CHECK((perf_pool_resize(c->b.pool, 1, 1 + perf__thread_random() % SIZE)) == PERF_OK);
            break;
        case 4:
            backend_stats(&c->b);
            break;
        default:
            CHECK((perf_pool_suspend(c->b.pool)) == PERF_OK);
            CHECK((perf_pool_resume(c->b.pool)) == PERF_OK);
        }
        sleep_ms(1);
    }
    return NULL;
}

static void run(struct crowd *c, uint64_t all, bool controls)
{
    pthread_t threads[THREADS], controller;
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = SIZE;
    options.max_opening = 4;
    memset(c, 0, sizeof *c);
    c->ops = operations(all);
    c->controls = controls;
    backend_open(&c->b, &link_full, options, false);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, borrow_many, c);
    if (controls)
        pthread_create(&controller, NULL, control, c);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&c->stop, true);
    if (controls)
        pthread_join(controller, NULL);
    perf_pool_stats s = backend_stats(&c->b);
    printf("%llu borrowings, %llu killed, %llu lent dead, reuse %.4f, opened %llu, waits %llu, "
           "by peer %llu, invalid %llu\n",
           (unsigned long long)s.acquires, (unsigned long long)c->killed,
           (unsigned long long)c->lent_dead, (double)s.reused / (double)s.acquires,
           (unsigned long long)s.opened, (unsigned long long)s.waits,
           (unsigned long long)s.closed_by_peer, (unsigned long long)s.closed_invalid);
    cr_assert_eq(s.acquires, atomic_load(&c->borrowed));
    cr_assert_eq(s.in_use, 0);
    cr_assert_eq(atomic_load(&c->lent_dead), 0, "a closed socket was lent");
    cr_assert_leq(atomic_load(&c->b.opening_peak), 4);
}

Test(pool_stress, connections_that_die_at_random, .timeout = 600)
{
    struct crowd c;
    run(&c, 1000000, false);
    perf_pool_stats s = backend_stats(&c.b);
    cr_assert_geq(s.reused * 10, s.acquires * 9);
    cr_assert_eq(s.timeouts, 0);
    backend_close(&c.b);
    cr_assert_eq(atomic_load(&c.b.opened), atomic_load(&c.b.closed));
}

Test(pool_stress, everything_at_once, .timeout = 600)
{
    struct crowd c;
    run(&c, 300000, true);
    backend_close(&c.b);
    cr_assert_eq(atomic_load(&c.b.opened), atomic_load(&c.b.closed));
}
