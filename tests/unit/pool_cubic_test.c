/* SPDX-License-Identifier: MIT */
/*
 * cubic.c: the same numbers as botocore 1.44.5's own limiter, and the bucket.
 *
 * The table was made by driving ClientRateLimiter with the same replies at the
 * same times (scratch script, not kept): number of the reply, rate and measured
 * rate in thousandths.
 */
#include <math.h>

#include "../../src/pool/cubic.h"
#include "seams.h"
#include "test.h"

Test(pool_cubic, the_rate_of_botocore)
{
    static const int throttled[] = {30, 31, 70, 150, 260};
    static const int expected[][3] = {
        {0, 500, 0},         {5, 500, 0},         {9, 500, 16000},     {10, 500, 16000},
        {20, 500, 19200},    {29, 1350, 19840},   {30, 13888, 19840},  {31, 9722, 19840},
        {32, 10001, 19840},  {45, 12581, 19968},  {69, 13879, 20000},  {70, 9715, 20000},
        {71, 9995, 20000},   {100, 13751, 20000}, {149, 16084, 20000}, {150, 11259, 20000},
        {151, 11568, 20000}, {199, 16086, 20000}, {220, 16008, 8004},  {259, 16000, 8000},
        {260, 5600, 8000},   {261, 6062, 8000},   {300, 16000, 8000},  {350, 16000, 8000},
        {399, 16000, 8000},
    };
    struct test_host th;
    struct perf__cubic c;
    size_t seen = 0;
    test_host_init(&th);
    atomic_store(&th.monotonic_ns, INT64_C(1000000000000)); /* on a whole second, as there */
    perf__cubic_init(&c, &th.clock);
    for (int i = 0; i < 400; i++) {
        bool slow = false;
        double rate, measured;
        test_host_advance(&th, i < 200 ? 50 : 125);
        for (size_t k = 0; k < sizeof throttled / sizeof *throttled; k++)
            slow |= throttled[k] == i;
        perf__cubic_reply(&c, slow);
        perf__cubic_read(&c, &rate, &measured);
        if (expected[seen][0] == i) {
            cr_assert(fabs(rate * 1000 - expected[seen][1]) < 1.5, "reply %d: %f", i, rate);
            cr_assert(fabs(measured * 1000 - expected[seen][2]) < 1.5, "reply %d: %f", i, measured);
            seen++;
        }
    }
    cr_assert_eq(seen, sizeof expected / sizeof *expected);
    perf__cubic_destroy(&c);
}

Test(pool_cubic, the_bucket_gives_what_the_rate_allows)
{
    struct test_host th;
    struct perf__cubic c;
    double rate, measured;
    int64_t wait;
    test_host_init(&th);
    perf__cubic_init(&c, &th.clock);
    for (int i = 0; i < 100; i++) {
        test_host_advance(&th, 100);
        cr_assert(perf__cubic_take(&c, 0, &wait) && wait == 0, "no limit before a throttle");
        perf__cubic_reply(&c, false);
    }
    perf__cubic_reply(&c, true);
    perf__cubic_read(&c, &rate, &measured);
    cr_assert(rate > 6.5 && rate < 7.5, "%f", rate);
    int given = 0;
    for (int i = 0; i < 10000; i++) { /* ten seconds in steps of one ms, nothing replied */
        test_host_advance(&th, 1);
        while (perf__cubic_take(&c, 0, &wait))
            given++;
        cr_assert_gt(wait, 0);
    }
    cr_assert(given >= (int)(rate * 10) && given <= (int)(rate * 10 + rate) + 1, "%d at %f", given,
              rate);
    perf__cubic_destroy(&c);
}

Test(pool_cubic, never_below_half_a_request_a_second)
{
    struct test_host th;
    struct perf__cubic c;
    double rate, measured;
    test_host_init(&th);
    perf__cubic_init(&c, &th.clock);
    for (int i = 0; i < 50; i++) {
        test_host_advance(&th, 10000);
        perf__cubic_reply(&c, true);
        perf__cubic_read(&c, &rate, &measured);
        cr_assert_geq(rate, 0.5);
    }
    perf__cubic_destroy(&c);
}
