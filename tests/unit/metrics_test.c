/* SPDX-License-Identifier: MIT */
/* metrics_test.c - counters add up over threads; histograms keep their error bound. */
#include <pthread.h>
#include <stdlib.h>

#include "../../src/base/alloc.h"
#include "../../src/base/hash.h"
#include "../../src/metrics/histogram.h"
#include "seams.h"
#include "test.h"

enum { THREADS = 8, ADDS = 20000 };

static void *add_many(void *arg)
{
    struct perf__counters *set = arg;
    for (int i = 0; i < ADDS; i++) {
        perf__counters_add(set, 0, 1);
        perf__counters_add(set, 1, 3);
    }
    return NULL;
}

static void run_threads(struct perf__counters *set)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, add_many, set);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

Test(metrics_counter, sums_over_threads)
{
    struct perf__counters set;
    cr_assert_eq(perf__counters_init(&set, &perf__default_allocator, 2), PERF_OK);
    run_threads(&set);
    run_threads(&set); /* numbers are reused: the rows go on */
    cr_assert_eq(perf__counters_sum(&set, 0), 2u * THREADS * ADDS);
    cr_assert_eq(perf__counters_sum(&set, 1), 6u * THREADS * ADDS);
    uint64_t sums[2];
    perf__counters_sum_all(&set, sums);
    cr_assert_eq(sums[0], 2u * THREADS * ADDS);
    cr_assert_eq(sums[1], 6u * THREADS * ADDS);
    perf__counters_destroy(&set);
}

Test(metrics_counter, counts_without_memory_for_rows)
{
    struct test_host th;
    test_host_init(&th);
    struct perf__counters set;
    cr_assert_eq(perf__counters_init(&set, &th.allocator, 2), PERF_OK);
    atomic_store(&th.fail_at, 1);
    perf__counters_add(&set, 0, 5);
    cr_assert_eq(atomic_load(&th.failed), 1);
    cr_assert_eq(perf__counters_sum(&set, 0), 5);
    uint64_t sums[2];
    perf__counters_sum_all(&set, sums);
    cr_assert(sums[0] == 5 && sums[1] == 0);
    perf__counters_destroy(&set);
    cr_assert_eq(atomic_load(&th.live), 0);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(metrics_histogram, quantiles_are_within_one_percent)
{
    enum { N = 20000 };
    static uint64_t values[N];
    static struct perf__histogram_snapshot snapshot;
    static const double quantiles[] = {0, 0.01, 0.5, 0.9, 0.99, 0.999, 1};
    for (int shape = 0; shape < 4; shape++) {
        struct perf__histogram h;
        cr_assert_eq(perf__histogram_init(&h, &perf__default_allocator), PERF_OK);
        uint64_t sum = 0;
        for (uint64_t i = 0; i < N; i++) {
            uint64_t r = perf__mix64(i + 1 + (uint64_t)shape * N);
            values[i] = shape == 0   ? r % 1000
                        : shape == 1 ? r % 1000000000
                        : shape == 2 ? (uint64_t)1 << (r % 39)
                                     : 500 + r % 10;
            sum += values[i];
            perf__histogram_record(&h, values[i]);
        }
        qsort(values, N, sizeof *values, compare);
        perf__histogram_snapshot(&h, &snapshot);
        cr_assert_eq(snapshot.count, N);
        cr_assert_eq(snapshot.sum, sum);
        for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
            size_t rank = (size_t)(quantiles[i] * N);
            double exact = (double)values[rank < N ? rank : N - 1];
            double got = (double)perf__histogram_quantile(&snapshot, quantiles[i]);
            double error = exact > got ? exact - got : got - exact;
            cr_assert(error <= exact * 0.01, "shape %d q %g: %g for %g", shape, quantiles[i], got,
                      exact);
        }
        perf__histogram_destroy(&h);
    }
}

Test(metrics_histogram, snapshots_merge)
{
    static struct perf__histogram_snapshot a, b;
    struct perf__histogram x, y;
    cr_assert_eq(perf__histogram_init(&x, &perf__default_allocator), PERF_OK);
    cr_assert_eq(perf__histogram_init(&y, &perf__default_allocator), PERF_OK);
    perf__histogram_record(&x, 10);
    perf__histogram_record(&y, 1000);
    perf__histogram_record(&y, UINT64_MAX); /* counts as the largest */
    perf__histogram_snapshot(&x, &a);
    perf__histogram_snapshot(&y, &b);
    perf__histogram_merge(&a, &b);
    cr_assert_eq(a.count, 3);
    cr_assert_eq(perf__histogram_quantile(&a, 0), 10);
    cr_assert(perf__histogram_quantile(&a, 1) > (uint64_t)1 << 39);
    perf__histogram_destroy(&x);
    perf__histogram_destroy(&y);
}

Test(metrics_histogram, an_empty_one_has_no_quantiles)
{
    static struct perf__histogram_snapshot empty;
    cr_assert_eq(perf__histogram_quantile(&empty, 0.5), 0);
}
