/* SPDX-License-Identifier: MIT */
/*
 * metrics_snapshot_test.c - what snapshots show: order, quantiles against exact
 * ones, differences, what callers tell, and life after the set's end.
 */
#include <libperf/metrics.h>
#include <math.h>
#include <time.h>

#include "../../src/base/hash.h"
#include "seams.h"
#include "test.h"

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s: %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)

static perf_metrics *m;
static perf_snapshot *s;

static perf_metric_options metric(const char *name, const char *labels)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    o.name = name;
    o.labels = labels;
    return o;
}

static perf_counter *counter(const char *name, const char *label, const char *value)
{
    perf_metric_options o = metric(name, label);
    perf_counter *c = NULL;
    OK(perf_metrics_counter(m, &o, &value, &c));
    return c;
}

static perf_histogram *histogram(const char *name, double scale)
{
    perf_metric_options o = metric(name, NULL);
    perf_histogram *h = NULL;
    o.scale = scale;
    OK(perf_metrics_histogram(m, &o, NULL, &h));
    return h;
}

static perf_series at(size_t i)
{
    perf_series series = PERF_SERIES_INIT;
    OK(perf_snapshot_series(s, i, &series));
    return series;
}

static perf_series find(const char *name, const char *value)
{
    size_t i;
    OK(perf_snapshot_find(s, name, &value, &i));
    return at(i);
}

Test(metrics_snapshot, is_sorted_and_finds)
{
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    struct test_host th;
    options.host = test_host_init(&th);
    options.labels = "zone=z1,service=api";
    OK(perf_metrics_open(&options, &m));
    perf_counter_add(counter("b", "k", "2"), 2);
    perf_counter_add(counter("b", "k", "1"), 1);
    perf_counter_add(counter("b", "k", "10"), 10);
    perf_counter_add(counter("a_total", NULL, NULL), 5);
    perf_metric_options o = metric("wait", "k");
    perf_gauge *g;
    o.unit = "seconds", o.help = "How long", o.scale = 1e-3;
    OK(perf_metrics_gauge(m, &o, (const char *[]){"x"}, &g));
    perf_gauge_set(g, 1500);
    OK(perf_metrics_snapshot(m, &s));
    cr_assert_eq(perf_snapshot_time_ms(s), atomic_load(&th.realtime_ms));
    static const char *const names[] = {"a", "b", "b", "b", "wait_seconds"};
    static const double values[] = {5, 1, 10, 2, 1.5};
    cr_assert_eq(perf_snapshot_count(s), 5);
    for (size_t i = 0; i < 5; i++) {
        cr_assert_str_eq(at(i).name, names[i]);
        cr_assert_eq(at(i).value, values[i]);
    }
    perf_series x = find("wait", "x");
    cr_assert_str_eq(find("wait_seconds", "x").name, x.name);
    cr_assert_str_eq(x.unit, "seconds");
    cr_assert_str_eq(x.help, "How long");
    cr_assert_eq(x.type, PERF_METRIC_GAUGE);
    cr_assert_eq(x.labels_count, 3);
    cr_assert_str_eq(x.label_names[0], "zone");
    cr_assert_str_eq(x.label_values[0], "z1");
    cr_assert_str_eq(x.label_values[1], "api");
    cr_assert_str_eq(x.label_names[2], "k");
    cr_assert_str_eq(x.label_values[2], "x");
    cr_assert_eq(find("a_total", NULL).value, 5);
    cr_assert_eq(find("b", "10").value, 10);
    const char *none = "3";
    size_t i;
    cr_assert_eq(perf_snapshot_find(s, "b", &none, &i), PERF_MISS);
    cr_assert_eq(perf_snapshot_find(s, "b", NULL, &i), PERF_MISS);
    cr_assert_eq(perf_snapshot_find(s, "wai", &none, &i), PERF_MISS);
    cr_assert_eq(perf_snapshot_find(s, "zzz", &none, &i), PERF_MISS);
    cr_assert_eq(perf_snapshot_find(s, NULL, &none, &i), PERF_EINVAL);
    cr_assert_eq(perf_snapshot_series(s, 5, &x), PERF_MISS);
    cr_assert_eq(perf_snapshot_series(s, 0, NULL), PERF_EINVAL);
    perf_metrics_close(m); /* a snapshot outlives its set */
    cr_assert_str_eq(at(4).name, "wait_seconds");
    perf_snapshot_release(s);
    perf_snapshot_release(NULL);
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* -------------------------------------------------------------- quantiles */

enum { N = 50000 };

static double unit(uint64_t i)
{
    return ((double)(perf__mix64(i) >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t i)
{
    return sqrt(-2 * log(unit(2 * i))) * cos(2 * 3.14159265358979 * unit(2 * i + 1));
}

/* Nanoseconds. */
static uint64_t shape(int kind, uint64_t i)
{
    switch (kind) {
    case 0:
        return (uint64_t)(unit(i) * 1e6); /* uniform */
    case 1:
        return (uint64_t)(-log(unit(i)) * 5e5); /* exponential */
    case 2:
        return (uint64_t)exp(13 + 1.5 * normal(i)); /* lognormal */
    case 3:
        return (uint64_t)(i % 10 ? 2e5 + 1e4 * normal(i) : 4e7 + 1e6 * normal(i)); /* two */
    case 4:
        return (uint64_t)(1000 / pow(unit(i), 1.2)); /* Pareto: a heavy tail */
    default:
        return 123457; /* constant */
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void within(double got, double exact, double error, int kind, double q)
{
    cr_assert(fabs(got - exact) <= exact * error, "shape %d, quantile %g: %.9g for %.9g", kind, q,
              got, exact);
}

Test(metrics_snapshot, quantiles_are_within_one_percent)
{
    static uint64_t values[N];
    static const double quantiles[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    for (int kind = 0; kind < 6; kind++) {
        OK(perf_metrics_open(NULL, &m));
        perf_histogram *h = histogram("h", 1e-9);
        double sum = 0;
        for (uint64_t i = 0; i < N; i++) {
            perf_histogram_record(h, values[i] = shape(kind, i + 1));
            sum += (double)values[i];
        }
        qsort(values, N, sizeof *values, compare);
        OK(perf_metrics_snapshot(m, &s));
        for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
            size_t rank = (size_t)(quantiles[i] * N);
            double exact = (double)values[rank < N ? rank : N - 1];
            within(perf_snapshot_quantile(s, 0, quantiles[i]), exact * 1e-9, 0.01, kind,
                   quantiles[i]);
            within((double)perf_histogram_quantile(h, quantiles[i]), exact, 0.01, kind,
                   quantiles[i]);
        }
        within(at(0).sum, sum * 1e-9, 1e-12, kind, -1);
        within(at(0).minimum, (double)values[0] * 1e-9, 0.01, kind, 0);
        within(at(0).maximum, (double)values[N - 1] * 1e-9, 0.01, kind, 1);
        cr_assert_eq(at(0).count, N);
        perf_snapshot_release(s);
        perf_metrics_close(m);
    }
}

Test(metrics_snapshot, all_of_uint64_has_a_bucket)
{
    OK(perf_metrics_open(NULL, &m));
    perf_histogram *h = histogram("h", 0);
    for (int bit = 0; bit < 64; bit++) {
        uint64_t value = UINT64_C(1) << bit;
        perf_histogram *one = histogram("one", 0);
        perf_histogram_record(h, value);
        perf_histogram_record(h, value - 1);
        (void)one;
    }
    perf_histogram_record(h, UINT64_MAX);
    cr_assert_eq(perf_histogram_count(h), 129);
    cr_assert_eq(perf_histogram_quantile(h, 0), 0);
    within((double)perf_histogram_quantile(h, 1), 18446744073709551615.0, 0.01, 0, 1);
    cr_assert_eq(perf_histogram_quantile(h, NAN), 0);
    perf_metrics_close(m);
}

Test(metrics_snapshot, missed_requests_are_made_up_for)
{
    OK(perf_metrics_open(NULL, &m));
    perf_histogram *h = histogram("h", 0);
    perf_histogram_record_expected(h, 100, 10); /* and 90, 80, ..., 10 */
    cr_assert_eq(perf_histogram_count(h), 10);
    cr_assert_eq(perf_histogram_quantile(h, 0), 10);
    cr_assert_eq(perf_histogram_quantile(h, 1), 100);
    perf_histogram_record_expected(h, 19, 10);
    perf_histogram_record_expected(h, 5, 0);
    cr_assert_eq(perf_histogram_count(h), 12);
    /* Too many to be recorded one by one: 1000 stand for them. */
    perf_histogram *many = histogram("many", 0), *exact = histogram("exact", 0);
    perf_histogram_record_expected(many, 1000000, 7);
    for (uint64_t value = 1000000; value >= 7; value -= 7)
        perf_histogram_record(exact, value);
    cr_assert_eq(perf_histogram_count(many), perf_histogram_count(exact));
    for (double q = 0.1; q < 1; q += 0.1)
        within((double)perf_histogram_quantile(many, q), (double)perf_histogram_quantile(exact, q),
               0.02, 0, q);
    OK(perf_metrics_snapshot(m, &s));
    within(find("many", NULL).sum, find("exact", NULL).sum, 0.001, 0, -1);
    perf_snapshot_release(s);
    perf_metrics_close(m);
}

Test(metrics_snapshot, shows_what_came_since_another)
{
    perf_snapshot *before;
    double values[4];
    uint64_t counts[4];
    OK(perf_metrics_open(NULL, &m));
    perf_histogram *h = histogram("h", 0.5);
    perf_histogram_record(h, 10);
    perf_histogram_record_many(h, 20, 3);
    OK(perf_metrics_snapshot(m, &before));
    perf_histogram *younger = histogram("younger", 0);
    perf_histogram_record(younger, 1);
    perf_histogram_record_many(h, 20, 2);
    perf_histogram_record(h, 15);
    OK(perf_metrics_snapshot(m, &s));
    cr_assert_eq(perf_snapshot_buckets(s, 0, NULL, values, counts, 4), 3);
    cr_assert(values[0] == 5 && values[1] == 7.5 && values[2] == 10);
    cr_assert(counts[0] == 1 && counts[1] == 1 && counts[2] == 5);
    cr_assert_eq(perf_snapshot_buckets(s, 0, before, values, counts, 1), 2);
    cr_assert(values[0] == 7.5 && counts[0] == 1);
    cr_assert_eq(perf_snapshot_buckets(s, 0, before, NULL, counts, 4), 2);
    cr_assert_eq(counts[1], 2);
    cr_assert_eq(perf_snapshot_buckets(s, 1, before, NULL, NULL, 0), 1);
    cr_assert_eq(perf_snapshot_buckets(s, 7, NULL, NULL, NULL, 0), 0);
    cr_assert_eq(perf_snapshot_quantile(s, 7, 0.5), 0);
    perf_snapshot_release(before);
    perf_snapshot_release(s);
    perf_metrics_close(m);
}

/* -------------------------------------------------------------------- asks */

struct asked {
    int calls, forget_itself;
    uint64_t id;
};

static void tell(void *ctx, perf_metrics_asked *asked)
{
    struct asked *a = ctx;
    perf_metric_options pool = metric("pool_open", "pool"), told = metric("told", NULL),
                        wrong = metric("counted", NULL);
    perf_snapshot *none;
    char name[16];
    a->calls++;
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "%d", i);
        OK(perf_metrics_tell_gauge(asked, &pool, (const char *[]){name}, 10 + i));
    }
    OK(perf_metrics_tell_counter(asked, &told, NULL, 2.5));
    OK(perf_metrics_tell_counter(asked, &told, NULL, 99));  /* the first is kept */
    OK(perf_metrics_tell_counter(asked, &wrong, NULL, 99)); /* counted: that is kept */
    wrong.labels = "x";
    cr_assert_eq(perf_metrics_tell_gauge(asked, &wrong, NULL, 1), PERF_EINVAL);
    wrong.labels = NULL;
    cr_assert_eq(perf_metrics_tell_gauge(asked, &wrong, NULL, 1), PERF_ECONFLICT);
    cr_assert_eq(perf_metrics_tell_gauge(NULL, &told, NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_metrics_snapshot(m, &none), PERF_EDEADLK);
    counter("made_meanwhile", NULL, NULL);
    if (a->forget_itself)
        perf_metrics_forget(m, a->id);
}

Test(metrics_snapshot, asks)
{
    struct asked a = {0, 0, 0}, b = {0, 1, 0};
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    options.max_series = 3;
    OK(perf_metrics_open(&options, &m));
    perf_counter_add(counter("counted", NULL, NULL), 1);
    OK(perf_metrics_ask(m, tell, &a, &a.id));
    OK(perf_metrics_ask(m, tell, &b, &b.id));
    cr_assert_neq(a.id, b.id);
    OK(perf_metrics_snapshot(m, &s));
    cr_assert(a.calls == 1 && b.calls == 1);
    cr_assert_eq(perf_snapshot_count(s), 7);
    cr_assert_eq(find("counted", NULL).value, 1);
    cr_assert_eq(find("told", NULL).value, 2.5);
    cr_assert_eq(find("pool_open", "2").value, 12);
    cr_assert_eq(find("pool_open", "_other").value, 2 * (13 + 14));
    cr_assert_str_eq(at(0).name, "counted");
    cr_assert_str_eq(at(1).name, "made_meanwhile");
    cr_assert_str_eq(at(6).name, "told");
    perf_snapshot_release(s);
    OK(perf_metrics_snapshot(m, &s));
    cr_assert(a.calls == 2 && b.calls == 1);
    perf_snapshot_release(s);
    perf_metrics_forget(m, a.id);
    perf_metrics_forget(m, 4711);
    perf_metrics_forget(NULL, 1);
    OK(perf_metrics_snapshot(m, &s));
    cr_assert_eq(a.calls, 2);
    cr_assert_eq(perf_snapshot_count(s), 2); /* what nobody tells is gone */
    perf_snapshot_release(s);
    cr_assert_eq(perf_metrics_ask(m, NULL, NULL, &a.id), PERF_EINVAL);
    OK(perf_metrics_ask(m, tell, &a, &a.id)); /* and is not forgotten: the close frees it */
    perf_metrics_close(m);
}

Test(metrics_snapshot, ten_thousand_series)
{
    static char name[16], value[16];
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    options.max_series = 10000;
    OK(perf_metrics_open(&options, &m));
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "n%d", i % 100);
        snprintf(value, sizeof value, "%d", i / 100);
        perf_counter_add(counter(name, "k", value), (uint64_t)i);
    }
    OK(perf_metrics_snapshot(m, &s));
    cr_assert_eq(perf_snapshot_count(s), 10000);
    double sum = 0;
    for (size_t i = 0; i < 10000; i++) {
        sum += at(i).value;
        if (i) {
            int order = strcmp(at(i - 1).name, at(i).name);
            cr_assert(order < 0 ||
                      (!order && strcmp(at(i - 1).label_values[0], at(i).label_values[0]) < 0));
        }
    }
    cr_assert_eq(sum, 9999.0 * 10000 / 2);
    perf_snapshot_release(s);
    perf_metrics_close(m);
}
