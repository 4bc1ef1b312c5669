/* SPDX-License-Identifier: MIT */
/*
 * pool_test.c - every allocation of a pool fails once. Whatever fails says so, and nothing is
 * lost: no block, no connection, no place for one.
 */
#include "../support/pool_fixture.h"

enum { SIZE = 18 }; /* more than one chunk of slots */

/* Takes the first answer that is not about memory as final; what fails for want of it is tried
 * again, as a host would. */
static int try_again(struct backend *b, int *refusals, const char *key, struct link **link)
{
    for (int i = 0; i < 3; i++) {
        void *conn = NULL;
        int rc = key ? perf_pool_acquire_key(b->pool, key, "fault", 300, &conn)
                     : perf_pool_acquire(b->pool, 300, &conn);
        *link = conn;
        if (!rc)
            return PERF_OK;
        cr_assert_null(conn);
        cr_assert(rc == PERF_ENOMEM || rc == PERF_ETIMEDOUT || rc == PERF_EUNAVAILABLE, "%d", rc);
        ++*refusals;
    }
    return PERF_ENOMEM;
}

static void use(struct backend *b, bool threads, int *refusals)
{
    struct link *links[SIZE], *one, *two;
    void *conn = NULL;
    for (int i = 0; i < SIZE; i++)
        cr_assert_eq(try_again(b, refusals, NULL, &links[i]), PERF_OK);
    for (int i = 0; i < SIZE; i++)
        give(b, links[i]);
    cr_assert_eq(try_again(b, refusals, "one", &one), PERF_OK);
    cr_assert_eq(try_again(b, refusals, "two", &two), PERF_OK);
    cr_assert_eq(perf_pool_discard(b->pool, one), PERF_OK);
    perf_pool_stats s = PERF_POOL_STATS_INIT;
    for (int i = 0; perf_pool_get_stats(b->pool, &s) && i < 2; i++)
        ++*refusals;
    cr_assert_eq(s.in_use, 1);
    give(b, two);
    cr_assert_eq(perf_pool_resize(b->pool, 2, SIZE + 2), PERF_OK);
    cr_assert_eq(perf_pool_maintain(b->pool), PERF_OK);
    cr_assert_eq(perf_pool_evict_all(b->pool), PERF_OK);
    if (threads) {
        perf_pool_request *request = NULL;
        for (int i = 0; i < 2 && !request; i++)
            if (perf_pool_start(b->pool, "one", "fault", 20000, NULL, NULL, &request))
                ++*refusals;
        cr_assert_not_null(request);
        EVENTUALLY(perf_pool_request_take(request, &conn) == PERF_OK);
        give(b, conn);
        perf_pool_request_release(request);
    }
}

static void fail_each(bool threads)
{
    int failures = 0, refusals = 0;
    for (int64_t i = 1; i < 500; i++) {
        struct backend b;
        memset(&b, 0, sizeof b);
        perf_pool_options options = PERF_POOL_OPTIONS_INIT;
        options.vtable = &link_plain;
        options.ctx = &b;
        options.max_size = SIZE;
        options.max_keys = 2;
        options.host = test_host_init(&b.th);
        b.th.host.clock = NULL;
        options.no_threads = !threads;
        atomic_store(&b.th.fail_at, i);
        int rc = perf_pool_open(&options, &b.pool);
        if (rc) {
            cr_assert_eq(rc, PERF_ENOMEM);
            cr_assert_null(b.pool);
            refusals++;
        } else {
            use(&b, threads, &refusals);
            cr_assert_eq(perf_pool_close(b.pool), PERF_OK, "%s", perf_last_error());
        }
        cr_assert_eq(atomic_load(&b.th.live), 0, "blocks leaked when %lld failed", (long long)i);
        cr_assert_eq(atomic_load(&b.open_now), 0);
        if (!atomic_load(&b.th.failed))
            break;
        failures++;
    }
    cr_assert_gt(failures, 8, "only %d allocations", failures);
    cr_assert_lt(failures, 400);
    cr_assert_gt(refusals, 0);
}

Test(pool_fault, every_allocation_fails_once, .timeout = 120)
{
    fail_each(true);
}

Test(pool_fault, every_allocation_fails_once_without_threads, .timeout = 120)
{
    fail_each(false);
}
