/* SPDX-License-Identifier: MIT */
/* pool_keys_test.c - sub-pools: apart, bounded together, and used again for other keys. */
#include "pool_fixture.h"

static struct link *borrow_key(struct backend *b, const char *key, int64_t timeout_ms)
{
    void *conn = NULL;
    int rc = perf_pool_acquire_key(b->pool, key, "test", timeout_ms, &conn);
    cr_assert_eq(rc, PERF_OK, "%s: %s", perf_strstatus(rc), perf_last_error());
    cr_assert_str_eq(((struct link *)conn)->key, key);
    return conn;
}

static perf_pool_options of(uint64_t max_size, uint64_t max_keys, uint64_t max_total)
{
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    options.max_size = max_size;
    options.max_keys = max_keys;
    options.max_total = max_total;
    return options;
}

Test(pool_keys, have_connections_of_their_own)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of(1, 3, 0), false);
    struct link *one = borrow_key(&b, "one", 5000), *two = borrow_key(&b, "two", 5000);
    cr_assert_neq(one, two);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "one", NULL, 10, &conn), PERF_ETIMEDOUT);
    cr_assert(strstr(perf_last_error(), "to one"), "%s", perf_last_error());
    give(&b, one);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "two", NULL, 10, &conn), PERF_ETIMEDOUT);
    give(&b, two);
    cr_assert_eq(borrow_key(&b, "one", 0), one);
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    cr_assert_eq(perf_pool_get_holder(b.pool, 0, &holder), PERF_OK);
    cr_assert_str_eq(holder.key, "one");
    cr_assert_str_eq(holder.who, "test");
    cr_assert_eq(holder.conn, (void *)one);
    give(&b, one);
    cr_assert_eq(backend_stats(&b).keys, 2);
    backend_close(&b);
}

Test(pool_keys, are_checked)
{
    struct backend b;
    void *conn;
    char longest[257];
    memset(longest, 'k', 256);
    longest[256] = 0;
    backend_open(&b, &link_plain, of(1, 3, 0), false);
    cr_assert_eq(perf_pool_acquire_key(b.pool, NULL, NULL, 0, &conn), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "", NULL, 0, &conn), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire_key(b.pool, longest, NULL, 0, &conn), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire_key(NULL, "a", NULL, 0, &conn), PERF_EINVAL);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "a", NULL, 0, NULL), PERF_EINVAL);
    longest[255] = 0;
    cr_assert_eq(perf_pool_acquire_key(b.pool, longest, NULL, 5000, &conn), PERF_OK);
    give(&b, conn);
    backend_close(&b);
}

Test(pool_keys, one_without_connections_is_given_another_name)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of(1, 2, 0), false);
    struct link *one = borrow_key(&b, "one", 5000), *two = borrow_key(&b, "two", 5000);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "three", NULL, 5000, &conn), PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "max_keys"), "%s", perf_last_error());
    perf_pool_holder holder = PERF_POOL_HOLDER_INIT;
    for (size_t i = 0; !perf_pool_get_holder(b.pool, i, &holder); i++)
        if (holder.conn == (void *)one)
            break;
    cr_assert_eq(perf_pool_discard(b.pool, one), PERF_OK);
    EVENTUALLY(backend_stats(&b).size == 1);
    struct link *three = borrow_key(&b, "three", 5000);
    cr_assert_str_eq(holder.key, "one"); /* although nothing has this name any more */
    give(&b, three);
    give(&b, two);
    cr_assert_eq(backend_stats(&b).keys, 2);
    backend_close(&b);
}

Test(pool_keys, share_max_total)
{
    struct backend b;
    void *conn;
    backend_open(&b, &link_plain, of(4, 4, 3), false);
    struct link *a1 = borrow_key(&b, "a", 5000), *a2 = borrow_key(&b, "a", 5000);
    struct link *b1 = borrow_key(&b, "b", 5000);
    cr_assert_eq(perf_pool_acquire_key(b.pool, "c", NULL, 30, &conn), PERF_ETIMEDOUT);
    give(&b, a1); /* idle, it makes room for another key */
    struct link *c1 = borrow_key(&b, "c", 5000);
    cr_assert_leq(atomic_load(&b.open_peak), 3);
    cr_assert_eq(backend_stats(&b).closed_idle, 1);
    give(&b, a2);
    give(&b, b1);
    give(&b, c1);
    cr_assert_eq(perf_pool_release(b.pool, c1), PERF_EINVAL);
    backend_close(&b);
}

Test(pool_keys, take_no_more_room_than_they_need)
{
    struct backend b;
    struct link *links[6];
    backend_open(&b, &link_plain, of(6, 2, 6), false);
    for (int i = 0; i < 6; i++)
        links[i] = borrow_key(&b, "a", 5000);
    for (int i = 0; i < 6; i++)
        give(&b, links[i]);
    atomic_store(&b.open_delay_ms, 30);
    give(&b, borrow_key(&b, "b", 5000));
    cr_assert_eq(backend_stats(&b).closed_idle, 1);
    backend_close(&b);
}

Test(pool_keys, get_room_from_connections_without_a_key)
{
    struct backend b;
    backend_open(&b, &link_plain, of(2, 2, 2), false);
    struct link *one = borrow(&b, 5000), *two = borrow(&b, 5000);
    give(&b, one);
    give(&b, two);
    give(&b, borrow_key(&b, "a", 5000));
    backend_close(&b);
}

Test(pool_keys, whoever_waits_goes_before_what_shall_be_idle)
{
    struct backend b;
    perf_pool_options options = of(2, 2, 2);
    options.min_idle = 2;
    backend_open(&b, &link_plain, options, false);
    give(&b, borrow_key(&b, "a", 5000));
    EVENTUALLY(backend_stats(&b).idle == 2);
    struct link *link = borrow_key(&b, "b", 5000);
    give(&b, link);
    sleep_ms(300); /* both want two, and there is room for two: nobody may take turns */
    cr_assert_leq(atomic_load(&b.opened), 6, "%d were opened", atomic_load(&b.opened));
    cr_assert_leq(atomic_load(&b.open_peak), 2);
    backend_close(&b);
}

Test(pool_keys, without_threads_room_is_made_at_once)
{
    struct backend b;
    backend_open(&b, &link_plain, of(2, 3, 2), true);
    give(&b, borrow_key(&b, "a", 5000));
    struct link *held = borrow_key(&b, "b", 5000);
    struct link *link = borrow_key(&b, "c", 5000);
    cr_assert_eq(backend_stats(&b).closed_idle, 1);
    give(&b, held);
    give(&b, link);
    backend_close(&b);
}

struct traveller {
    struct backend *b;
    pthread_t thread;
    unsigned seed;
    int wrong, served, refused, other;
};

static void *travel(void *argument)
{
    struct traveller *t = argument;
    for (int i = 0; i < 1500; i++) {
        char key[16];
        void *conn;
        t->seed = t->seed * 1103515245 + 12345;
        snprintf(key, sizeof key, "host%u", (t->seed >> 16) % 20);
        int rc = perf_pool_acquire_key(t->b->pool, key, "traveller", 50, &conn);
        if (!rc) {
            struct link *link = conn;
            t->served++;
            t->wrong += strcmp(link->key, key) != 0;
            t->wrong += atomic_fetch_add(&link->users, 1) != 0;
            atomic_fetch_sub(&link->users, 1);
            rc = i % 2 ? perf_pool_discard(t->b->pool, conn) : perf_pool_release(t->b->pool, conn);
            t->other += rc != PERF_OK;
            if (i % 16 == 0)
                perf_pool_evict_all(t->b->pool); /* so that sub-pools become empty */
        } else if (rc == PERF_EBUSY || rc == PERF_ETIMEDOUT) {
            t->refused++;
        } else {
            t->other++;
        }
    }
    return NULL;
}

Test(pool_keys, never_lend_the_connection_of_another_key, .timeout = 120)
{
    enum { THREADS = 8 };
    struct backend b;
    struct traveller t[THREADS];
    backend_open(&b, &link_plain, of(3, 4, 0), false);
    int served = 0, refused = 0;
    for (int i = 0; i < THREADS; i++) {
        t[i] = (struct traveller){.b = &b, .seed = 77u * (unsigned)i + 5};
        pthread_create(&t[i].thread, NULL, travel, &t[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i].thread, NULL);
        cr_assert_eq(t[i].wrong, 0);
        cr_assert_eq(t[i].other, 0);
        served += t[i].served;
        refused += t[i].refused;
    }
    cr_assert_gt(served, 500, "%d served, %d refused", served, refused);
    perf_pool_stats s = backend_stats(&b);
    cr_assert_eq(s.acquires, (uint64_t)served);
    cr_assert_eq(s.in_use, 0);
    cr_assert_leq(s.keys, 4);
    backend_close(&b);
    cr_assert_eq(atomic_load(&b.opened), atomic_load(&b.closed));
}

static void *wait_for_key(void *argument)
{
    struct backend *b = argument;
    void *conn;
    return perf_pool_acquire_key(b->pool, "nowhere", NULL, -1, &conn) == PERF_ECLOSED ? b : NULL;
}

Test(pool_keys, waiting_for_one_ends_with_the_pool)
{
    for (int i = 0; i < 20; i++) {
        struct backend b;
        pthread_t threads[4];
        backend_open(&b, &link_plain, of(1, 2, 0), false);
        atomic_store(&b.fail_opens, 1000000);
        for (int k = 0; k < 4; k++)
            pthread_create(&threads[k], NULL, wait_for_key, &b);
        EVENTUALLY(backend_stats(&b).waiting == 4);
        backend_close(&b);
        for (int k = 0; k < 4; k++) {
            void *result;
            pthread_join(threads[k], &result);
            cr_assert_eq(result, &b);
        }
    }
}
