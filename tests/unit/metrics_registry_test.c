/* SPDX-License-Identifier: MIT */
/*
 * metrics_registry_test.c - metrics and series are found again, bounded and
 * checked; labels of strangers become harmless; what counts is exact over
 * threads, also without memory.
 */
#include <libperf/metrics.h>
#include <math.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/base/thread.h"
#include "seams.h"
#include "test.h"

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s: %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)
#define FAILS(call, code, words)                                                                  \
    do {                                                                                          \
        int rc_ = (call);                                                                         \
        cr_assert_eq(rc_, code, #call ": %s: %s", perf_strstatus(rc_), perf_last_error());        \
        cr_assert(strstr(perf_last_error(), words), "%s lacks \"%s\"", perf_last_error(), words); \
    } while (0)

static perf_metrics *open_with(const perf_metrics_options *options)
{
    perf_metrics *m = NULL;
    OK(perf_metrics_open(options, &m));
    return m;
}

static perf_metric_options metric(const char *name, const char *labels)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    o.name = name;
    o.labels = labels;
    return o;
}

static perf_counter *counter(perf_metrics *m, const char *name, const char *labels,
                             const char *const *values)
{
    perf_metric_options o = metric(name, labels);
    perf_counter *c = NULL;
    OK(perf_metrics_counter(m, &o, values, &c));
    return c;
}

/* ------------------------------------------------------------ the registry */

Test(metrics_registry, a_series_is_found_again)
{
    perf_metrics *m = open_with(NULL);
    perf_counter *a = counter(m, "x", "k,l", (const char *[]){"1", "2"});
    perf_counter *b = counter(m, "x", "k,l", (const char *[]){"12", ""});
    cr_assert_neq(a, b);
    cr_assert_eq(a, counter(m, "x", "k,l", (const char *[]){"1", "2"}));
    cr_assert_eq(a, counter(m, "x_total", "k,l", (const char *[]){"1", "2"}));
    cr_assert_eq(b, counter(m, "x", "k,l", (const char *[]){"12", ""}));
    perf_counter_add(a, 3);
    perf_counter_add(a, 4);
    cr_assert_eq(perf_counter_value(a), 7);
    cr_assert_eq(perf_counter_value(b), 0);
    /* More than one chunk. */
    perf_counter *many[700];
    char value[16];
    for (int i = 0; i < 700; i++) {
        snprintf(value, sizeof value, "%d", i);
        many[i] = counter(m, "many", "k", (const char *[]){value});
        perf_counter_add(many[i], (uint64_t)i);
    }
    for (int i = 0; i < 700; i++)
        cr_assert_eq(perf_counter_value(many[i]), (uint64_t)i);
    perf_metrics_close(m);
    perf_metrics_close(NULL);
}

Test(metrics_registry, gauges_go_up_and_down)
{
    perf_metrics *m = open_with(NULL);
    perf_metric_options o = metric("g", NULL);
    perf_gauge *g;
    OK(perf_metrics_gauge(m, &o, NULL, &g));
    cr_assert_eq(perf_gauge_value(g), 0);
    perf_gauge_set(g, 2.5);
    perf_gauge_add(g, -4);
    cr_assert_eq(perf_gauge_value(g), -1.5);
    perf_metrics_close(m);
}

Test(metrics_registry, no_series_counts_nothing)
{
    perf_counter_add(NULL, 1);
    perf_gauge_set(NULL, 1);
    perf_gauge_add(NULL, 1);
    perf_histogram_record(NULL, 1);
    perf_histogram_record_many(NULL, 1, 2);
    perf_histogram_record_expected(NULL, 1, 2);
    perf_histogram_record_example(NULL, 1, "t");
    cr_assert_eq(perf_counter_value(NULL), 0);
    cr_assert_eq(perf_gauge_value(NULL), 0);
    cr_assert_eq(perf_histogram_count(NULL), 0);
    cr_assert_eq(perf_histogram_quantile(NULL, 0.5), 0);
}

Test(metrics_registry, says_what_is_wrong)
{
    perf_metrics *m = open_with(NULL);
    perf_metric_options o = metric("x", "k"), bad;
    perf_counter *c;
    perf_gauge *g;
    perf_histogram *h;
    const char *one[] = {"1"};
    OK(perf_metrics_counter(m, &o, one, &c));
    FAILS(perf_metrics_open(NULL, NULL), PERF_EINVAL, "out");
    FAILS(perf_metrics_counter(m, &o, one, NULL), PERF_EINVAL, "out");
    FAILS(perf_metrics_gauge(m, &o, one, NULL), PERF_EINVAL, "out");
    FAILS(perf_metrics_histogram(m, &o, one, NULL), PERF_EINVAL, "out");
    FAILS(perf_metrics_counter(NULL, &o, one, &c), PERF_EINVAL, "metrics is NULL");
    FAILS(perf_metrics_counter(m, NULL, one, &c), PERF_EINVAL, "name");
    FAILS(perf_metrics_counter(m, &o, NULL, &c), PERF_EINVAL, "values[0]");
    FAILS(perf_metrics_counter(m, &o, (const char *[]){NULL}, &c), PERF_EINVAL, "values[0]");
    FAILS(perf_metrics_gauge(m, &o, one, &g), PERF_ECONFLICT, "type");
    bad = o, bad.labels = "k,l";
    FAILS(perf_metrics_counter(m, &bad, (const char *[]){"", ""}, &c), PERF_ECONFLICT, "labels");
    bad = o, bad.scale = 2;
    FAILS(perf_metrics_counter(m, &bad, one, &c), PERF_ECONFLICT, "scale");
    bad = metric("y_seconds", NULL);
    OK(perf_metrics_gauge(m, &bad, NULL, &g));
    bad.name = "y", bad.unit = "seconds"; /* the same name in the texts */
    FAILS(perf_metrics_gauge(m, &bad, NULL, &g), PERF_ECONFLICT, "unit");
    static const char *const names[] = {"", "1x", "a b", "a-b", "\xc3\xa4", "x\n"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bad = metric(names[i], NULL);
        FAILS(perf_metrics_counter(m, &bad, NULL, &c), PERF_EINVAL, "name is");
    }
    char name[202];
    memset(name, 'n', 201);
    name[201] = '\0';
    bad = metric(name, NULL);
    FAILS(perf_metrics_counter(m, &bad, NULL, &c), PERF_EINVAL, "200");
    name[200] = '\0';
    OK(perf_metrics_counter(m, &bad, NULL, &c));
    static const char *const labels[] = {",",   "a,",  "a,,b", "a b", "1",
                                         "__a", "a,a", "a\"",  "a=b", "a,b,c,d,e,f,g,h,i,j,k"};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        bad = metric("z", labels[i]);
        FAILS(perf_metrics_counter(m, &bad, one, &c), PERF_EINVAL, "label");
    }
    bad = metric("z", "le");
    FAILS(perf_metrics_histogram(m, &bad, one, &h), PERF_EINVAL, "reserved");
    bad = metric("z", NULL), bad.scale = NAN;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "scale");
    bad.scale = -1;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "scale");
    bad = metric("z", NULL), bad.unit = "per second";
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "unit");
    bad = metric("z", NULL), bad.max_series = 1000001;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "max_series");
    static const double falling[] = {1, 1}, endless[] = {1, INFINITY};
    bad = metric("z", NULL), bad.bounds = falling, bad.bounds_count = 2;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "bounds[1]");
    bad.bounds = endless;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "bounds[1]");
    bad.bounds_count = 65;
    FAILS(perf_metrics_histogram(m, &bad, NULL, &h), PERF_EINVAL, "65");
    perf_metrics_close(m);
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    static const char *const sets[] = {"a", "a=1,", "=1", "a=1,a=2", "le=1", "a=1,b"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        options.labels = sets[i];
        FAILS(perf_metrics_open(&options, &m), PERF_EINVAL, "label");
    }
    options.labels = NULL;
    options.max_series = UINT64_MAX;
    FAILS(perf_metrics_open(&options, &m), PERF_EINVAL, "max_series");
    options.max_series = 0;
    options.labels = "k=set";
    m = open_with(&options);
    FAILS(perf_metrics_counter(m, &o, one, &c), PERF_EINVAL, "whole set");
    perf_metrics_close(m);
}

Test(metrics_registry, lines_of_texts_have_one_owner)
{
    perf_metrics *m = open_with(NULL);
    perf_metric_options h = metric("h", NULL), c = metric("h_count", NULL),
                        g = metric("g_sum", NULL), t = metric("t", NULL);
    perf_histogram *histogram;
    perf_counter *count;
    perf_gauge *gauge;
    OK(perf_metrics_histogram(m, &h, NULL, &histogram));
    FAILS(perf_metrics_counter(m, &c, NULL, &count), PERF_ECONFLICT, "\"h\"");
    OK(perf_metrics_gauge(m, &g, NULL, &gauge));
    h.name = "g";
    FAILS(perf_metrics_histogram(m, &h, NULL, &histogram), PERF_ECONFLICT, "\"g_sum\"");
    OK(perf_metrics_counter(m, &t, NULL, &count));
    t.name = "t_total";
    FAILS(perf_metrics_gauge(m, &t, NULL, &gauge), PERF_ECONFLICT, "\"t\"");
    t.name = "t_bucket"; /* a counter has no such line */
    OK(perf_metrics_gauge(m, &t, NULL, &gauge));
    perf_metrics_close(m);
}

Test(metrics_registry, too_many_series_share_one)
{
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    options.max_metrics = 2;
    options.max_series = 3;
    perf_metrics *m = open_with(&options);
    perf_counter *other = NULL, *c;
    char value[16];
    for (int i = 0; i < 10; i++) {
        snprintf(value, sizeof value, "%d", i);
        c = counter(m, "x", "k,l", (const char *[]){value, "v"});
        perf_counter_add(c, 1);
        if (i >= 3) {
            cr_assert(!other || other == c);
            other = c;
        }
    }
    cr_assert_eq(other, counter(m, "x", "k,l", (const char *[]){"_other", "_other"}));
    cr_assert_eq(perf_counter_value(other), 7);
    cr_assert_eq(perf_counter_value(counter(m, "x", "k,l", (const char *[]){"1", "v"})), 1);
    counter(m, "y", NULL, NULL);
    perf_metric_options o = metric("z", NULL);
    FAILS(perf_metrics_counter(m, &o, NULL, &c), PERF_EBUSY, "max_metrics");

    perf_snapshot *s;
    perf_series series = PERF_SERIES_INIT;
    size_t i;
    OK(perf_metrics_snapshot(m, &s));
    cr_assert_eq(perf_snapshot_count(s), 6);
    OK(perf_snapshot_find(s, "perf_metrics_overflowed", (const char *[]){"x"}, &i));
    OK(perf_snapshot_series(s, i, &series));
    cr_assert_eq(series.value, 7);
    OK(perf_snapshot_find(s, "x", (const char *[]){"_other", "_other"}, &i));
    perf_snapshot_release(s);
    perf_metrics_close(m);
}

Test(metrics_registry, a_caller_may_have_the_name_of_the_count_of_those)
{
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    options.max_series = 1;
    perf_metrics *m = open_with(&options);
    perf_metric_options o = metric("perf_metrics_overflowed", NULL);
    perf_gauge *g;
    OK(perf_metrics_gauge(m, &o, NULL, &g));
    perf_counter_add(counter(m, "x", "k", (const char *[]){"1"}), 1);
    perf_counter_add(counter(m, "x", "k", (const char *[]){"2"}), 2);
    cr_assert_eq(perf_counter_value(counter(m, "x", "k", (const char *[]){"_other"})), 2);
    perf_metrics_close(m);
}

/* The value of the only series of metric "x". */
static const char *as_label(const char *value, char *out)
{
    perf_metrics *m = open_with(NULL);
    perf_snapshot *s;
    perf_series series = PERF_SERIES_INIT;
    counter(m, "x", "k", (const char *[]){value});
    OK(perf_metrics_snapshot(m, &s));
    OK(perf_snapshot_series(s, 0, &series));
    cr_assert_str_eq(series.label_names[0], "k");
    strcpy(out, series.label_values[0]);
    perf_snapshot_release(s);
    perf_metrics_close(m);
    return out;
}

Test(metrics_registry, labels_of_strangers_become_utf8)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* zero in two bytes */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"}, /* cut short */
        {"\"\\\n", "\"\\\n"},
    };
    char out[256], value[300];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_str_eq(as_label(cases[i][0], out), cases[i][1], "case %zu", i);
    memset(value, 'a', sizeof value);
    value[299] = '\0';
    cr_assert_eq(strlen(as_label(value, out)), 128);
    memcpy(value + 127, "\xc3\xa4", 2); /* a character on the border is left out whole */
    cr_assert_eq(strlen(as_label(value, out)), 127);
    memset(value, 0xff, 299);
    cr_assert_eq(strlen(as_label(value, out)), 126); /* 42 of three bytes */
}

/* ----------------------------------------------------------------- threads */

enum { THREADS = 8, ROUNDS = 20000 };

struct shared {
    perf_metrics *metrics;
    perf_counter *counter;
    perf_gauge *gauge;
    perf_histogram *histogram;
    pthread_barrier_t barrier;
    _Atomic bool stop;
};

static void shared_open(struct shared *s, const perf_host *host)
{
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    perf_metric_options c = metric("c", NULL), g = metric("g", NULL), h = metric("h", NULL);
    memset(s, 0, sizeof *s);
    options.host = host;
    s->metrics = open_with(&options);
    OK(perf_metrics_counter(s->metrics, &c, NULL, &s->counter));
    OK(perf_metrics_gauge(s->metrics, &g, NULL, &s->gauge));
    OK(perf_metrics_histogram(s->metrics, &h, NULL, &s->histogram));
}

static void *count_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        perf_counter_add(s->counter, 3);
        perf_gauge_add(s->gauge, 1);
        perf_histogram_record(s->histogram, (uint64_t)i);
    }
    return NULL;
}

Test(metrics_threads, count_exactly)
{
    struct shared s;
    shared_open(&s, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count_many, &s);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(perf_counter_value(s.counter), 3u * THREADS * ROUNDS);
    cr_assert_eq(perf_gauge_value(s.gauge), THREADS * ROUNDS);
    cr_assert_eq(perf_histogram_count(s.histogram), THREADS * ROUNDS);
    perf_metrics_close(s.metrics);
}

static void *count_together(void *arg)
{
    struct shared *s = arg;
    pthread_barrier_wait(&s->barrier); /* all are there: some have no number */
    for (int i = 0; i < 100; i++) {
        perf_counter_add(s->counter, 1);
        perf_histogram_record(s->histogram, 1000);
    }
    pthread_barrier_wait(&s->barrier);
    return NULL;
}

Test(metrics_threads, more_than_have_numbers_count_exactly)
{
    enum { MANY = PERF__THREAD_SLOTS + 20 };
    static pthread_t threads[MANY];
    struct shared s;
    shared_open(&s, NULL);
    pthread_barrier_init(&s.barrier, NULL, MANY);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, count_together, &s), 0);
    for (int i = 0; i < MANY; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(perf_counter_value(s.counter), MANY * 100);
    cr_assert_eq(perf_histogram_count(s.histogram), MANY * 100);
    pthread_barrier_destroy(&s.barrier);
    perf_metrics_close(s.metrics);
}

static void *record_until_told(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&s->stop)) {
        perf_counter_add(s->counter, 1);
        perf_histogram_record(s->histogram, 100); /* a bucket of its own: sums are exact */
        perf_histogram_record_example(s->histogram, 100, "abc");
    }
    return NULL;
}

static void *register_until_told(void *arg)
{
    struct shared *s = arg;
    char value[16];
    for (int i = 0; !atomic_load(&s->stop); i++) {
        snprintf(value, sizeof value, "%d", i % 3000);
        counter(s->metrics, "r", "k", (const char *[]){value});
    }
    return NULL;
}

Test(metrics_threads, snapshots_are_consistent_meanwhile)
{
    struct shared s;
    pthread_t threads[4];
    uint64_t counted = 0, recorded = 0;
    shared_open(&s, NULL);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, record_until_told, &s);
    pthread_create(&threads[3], NULL, register_until_told, &s);
    for (int i = 0; i < 200; i++) {
        perf_snapshot *snapshot;
        perf_series c = PERF_SERIES_INIT, h = PERF_SERIES_INIT;
        size_t at;
        double middle;
        uint64_t count = 0;
        OK(perf_metrics_snapshot(s.metrics, &snapshot));
        OK(perf_snapshot_find(snapshot, "c", NULL, &at));
        OK(perf_snapshot_series(snapshot, at, &c));
        OK(perf_snapshot_find(snapshot, "h", NULL, &at));
        OK(perf_snapshot_series(snapshot, at, &h));
        cr_assert_geq((uint64_t)c.value, counted);
        cr_assert_geq(h.count, recorded);
        cr_assert_leq(h.sum, 100.0 * (double)h.count);
        perf_snapshot_buckets(snapshot, at, NULL, &middle, &count, 1);
        cr_assert_eq(count, h.count);
        counted = (uint64_t)c.value;
        recorded = h.count;
        perf_snapshot_release(snapshot);
    }
    atomic_store(&s.stop, true);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(perf_histogram_count(s.histogram), 2 * perf_counter_value(s.counter));
    perf_metrics_close(s.metrics);
}

/* -------------------------------------------------------------- no memory */

static _Atomic bool refuse;

static void *alloc_or_not(void *ctx, size_t size)
{
    (void)ctx;
    return atomic_load(&refuse) ? NULL : malloc(size);
}

static void *realloc_or_not(void *ctx, void *block, size_t size)
{
    (void)ctx;
    return atomic_load(&refuse) ? NULL : realloc(block, size);
}

static void plain_free(void *ctx, void *block)
{
    (void)ctx;
    free(block);
}

Test(metrics_memory, nothing_is_lost_without_it)
{
    perf_allocator allocator = PERF_ALLOCATOR_INIT;
    allocator.alloc = alloc_or_not;
    allocator.realloc = realloc_or_not;
    allocator.free = plain_free;
    perf_host host = PERF_HOST_INIT;
    host.allocator = &allocator;
    struct shared s;
    shared_open(&s, &host);
    atomic_store(&refuse, true);
    perf_counter_add(s.counter, 5);
    perf_histogram_record(s.histogram, 1000);
    perf_histogram_record_many(s.histogram, 1000000, 2);
    perf_histogram_record_example(s.histogram, 3, "abc");
    cr_assert_eq(perf_counter_value(s.counter), 5);
    cr_assert_eq(perf_histogram_count(s.histogram), 4);
    double got = (double)perf_histogram_quantile(s.histogram, 0.4); /* by its octave alone */
    cr_assert(got >= 512 && got < 1024, "%g", got);
    perf_snapshot *snapshot;
    cr_assert_eq(perf_metrics_snapshot(s.metrics, &snapshot), PERF_ENOMEM);
    atomic_store(&refuse, false);
    perf_histogram_record(s.histogram, 1000);
    perf_counter_add(s.counter, 1);
    cr_assert_eq(perf_counter_value(s.counter), 6);
    perf_series series = PERF_SERIES_INIT;
    size_t at;
    OK(perf_metrics_snapshot(s.metrics, &snapshot));
    OK(perf_snapshot_find(snapshot, "h", NULL, &at));
    OK(perf_snapshot_series(snapshot, at, &series));
    cr_assert_eq(series.count, 5);
    cr_assert_eq(series.sum, 2002003);
    perf_snapshot_release(snapshot);
    perf_metrics_close(s.metrics);
}

static void tell_some(void *ctx, perf_metrics_asked *asked)
{
    perf_metric_options o = metric("told", "k");
    *(int *)ctx = perf_metrics_tell_gauge(asked, &o, (const char *[]){"1"}, 1);
}

static int ignore_text(void *ctx, const char *data, size_t len)
{
    (void)ctx, (void)data, (void)len;
    return PERF_OK;
}

/* Everything once; the first failure ends it. */
static int use_all(const perf_host *host)
{
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    perf_metric_options c = metric("c", "k"), g = metric("g", NULL), h = metric("h", NULL);
    perf_metrics *m = NULL;
    perf_counter *count;
    perf_gauge *gauge;
    perf_histogram *histogram = NULL;
    int rc, told = PERF_OK;
    uint64_t id;
    options.host = host;
    options.labels = "a=b";
    options.max_series = 1;
    if ((rc = perf_metrics_open(&options, &m)))
        return rc;
    if ((rc = perf_metrics_counter(m, &c, (const char *[]){"1"}, &count)) ||
        (rc = perf_metrics_counter(m, &c, (const char *[]){"2"}, &count)) ||
        (rc = perf_metrics_gauge(m, &g, NULL, &gauge)) ||
        (rc = perf_metrics_histogram(m, &h, NULL, &histogram)) ||
        (rc = perf_metrics_ask(m, tell_some, &told, &id)))
        goto out;
    perf_histogram_record_example(histogram, 10, "abc"); /* never fails */
    cr_assert_eq(perf_histogram_count(histogram), 1);
    if ((rc = perf_metrics_write(m, PERF_METRICS_OPENMETRICS, ignore_text, NULL)) == PERF_OK)
        rc = told;
out:
    perf_metrics_close(m);
    return rc;
}

Test(metrics_memory, each_allocation_may_fail)
{
    struct test_host th;
    const perf_host *host = test_host_init(&th);
    int rc, i = 0, failed = 0;
    do {
        atomic_store(&th.fail_at, ++i);
        rc = use_all(host);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%d: %s: %s", i, perf_strstatus(rc),
                  perf_last_error());
        failed += rc == PERF_ENOMEM;
        cr_assert_eq(atomic_load(&th.live), 0, "allocation %d: %lld blocks are left", i,
                     (long long)atomic_load(&th.live));
    } while (atomic_exchange(&th.fail_at, 0) == 0);
    cr_assert_gt(failed, 15);
    cr_assert_eq(rc, PERF_OK);
}

Test(metrics_fork, a_child_counts_harmlessly_and_is_told)
{
    struct shared s;
    shared_open(&s, NULL);
    perf_counter_add(s.counter, 1);
    pid_t pid = fork();
    if (!pid) {
        perf_snapshot *snapshot;
        perf_metric_options o = metric("c", NULL);
        uint64_t id;
        perf_counter_add(s.counter, 1);
        perf_histogram_record(s.histogram, 7);
        int good = perf_counter_value(s.counter) == 2 &&
                   perf_metrics_snapshot(s.metrics, &snapshot) == PERF_EFORKED &&
                   perf_metrics_ask(s.metrics, tell_some, &id, &id) == PERF_EFORKED &&
                   perf_metrics_counter(s.metrics, &o, NULL, &s.counter) == PERF_EFORKED;
        perf_metrics_forget(s.metrics, 1);
        perf_metrics_close(s.metrics);
        _exit(good ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
    cr_assert_eq(perf_counter_value(s.counter), 1);
    perf_metrics_close(s.metrics);
}
