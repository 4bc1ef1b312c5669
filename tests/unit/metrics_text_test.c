/* SPDX-License-Identifier: MIT */
/*
 * metrics_text_test.c - the three texts: as they are written in full, and read
 * back by a parser of their own.
 */
#include <libperf/metrics.h>
#include <locale.h>
#include <math.h>

#if PERF_WITH_AWS
#include <cjson/cJSON.h>
#endif

#include "seams.h"
#include "test.h"

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s: %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)

/* ---------------------------------------------------------------- fixtures */

static char text[1 << 20];
static size_t text_len, pieces, largest;

static int keep(void *ctx, const char *data, size_t len)
{
    (void)ctx;
    cr_assert_lt(text_len + len, sizeof text);
    memcpy(text + text_len, data, len);
    text[text_len += len] = '\0';
    pieces++;
    largest = len > largest ? len : largest;
    return PERF_OK;
}

static const char *written(perf_metrics *m, int format)
{
    text_len = pieces = largest = 0;
    text[0] = '\0';
    OK(perf_metrics_write(m, format, keep, NULL));
    return text;
}

static perf_metric_options metric(const char *name, const char *labels)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    o.name = name;
    o.labels = labels;
    return o;
}

static void tell(void *ctx, perf_metrics_asked *asked)
{
    perf_metric_options o = metric("up", NULL);
    (void)ctx;
    OK(perf_metrics_tell_gauge(asked, &o, NULL, 1));
}

/* One of each, in a set with a label. */
static perf_metrics *one_of_each(struct test_host *th)
{
    static const double bounds[] = {0.01, 0.1, 2};
    perf_metrics_options options = PERF_METRICS_OPTIONS_INIT;
    perf_metric_options c = metric("http_requests", "method"), g = metric("temperature", NULL),
                        h = metric("latency", "path");
    perf_metrics *m;
    perf_counter *count;
    perf_gauge *gauge;
    perf_histogram *histogram;
    uint64_t id;
    options.host = test_host_init(th);
    options.labels = "service=api";
    c.help = "Requests\nanswered \\ \"all\"";
    g.unit = "celsius";
    h.unit = "seconds", h.scale = 1e-9, h.bounds = bounds, h.bounds_count = 3;
    OK(perf_metrics_open(&options, &m));
    OK(perf_metrics_counter(m, &c, (const char *[]){"G\"E\\T\n"}, &count));
    OK(perf_metrics_gauge(m, &g, NULL, &gauge));
    OK(perf_metrics_histogram(m, &h, (const char *[]){"/"}, &histogram));
    OK(perf_metrics_ask(m, tell, NULL, &id));
    perf_counter_add(count, UINT64_MAX);
    perf_gauge_set(gauge, -2.5);
    perf_histogram_record(histogram, 5000000);
    perf_histogram_record_example(histogram, 50000000, "4bf92f3577b34da6");
    perf_histogram_record_example(histogram, 50000000, "no\"quotes");
    perf_histogram_record_many(histogram, UINT64_C(10000000000), 2);
    return m;
}

Test(metrics_text, prometheus_in_full)
{
    struct test_host th;
    perf_metrics *m = one_of_each(&th);
    cr_assert_str_eq(
        written(m, PERF_METRICS_PROMETHEUS),
        "# HELP http_requests_total Requests\\nanswered \\\\ \"all\"\n"
        "# TYPE http_requests_total counter\n"
        "http_requests_total{service=\"api\",method=\"G\\\"E\\\\T\\n\"} 18446744073709551615\n"
        "# TYPE latency_seconds histogram\n"
        "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"0.01\"} 1\n"
        "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"0.1\"} 3\n"
        "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"2\"} 3\n"
        "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"+Inf\"} 5\n"
        "latency_seconds_sum{service=\"api\",path=\"/\"} 20.105\n"
        "latency_seconds_count{service=\"api\",path=\"/\"} 5\n"
        "# TYPE temperature_celsius gauge\n"
        "temperature_celsius{service=\"api\"} -2.5\n"
        "# TYPE up gauge\n"
        "up{service=\"api\"} 1\n",
        "%s", text);
    perf_metrics_close(m);
    cr_assert_eq(atomic_load(&th.live), 0);
}

Test(metrics_text, openmetrics_in_full)
{
    struct test_host th;
    perf_metrics *m = one_of_each(&th);
    char expected[2000];
    snprintf(expected, sizeof expected,
             "# HELP http_requests Requests\\nanswered \\\\ \\\"all\\\"\n"
             "# TYPE http_requests counter\n"
             "http_requests_total{service=\"api\",method=\"G\\\"E\\\\T\\n\"} 18446744073709551615\n"
             "# TYPE latency_seconds histogram\n"
             "# UNIT latency_seconds seconds\n"
             "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"0.01\"} 1\n"
             "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"0.1\"} 3 "
             "# {trace_id=\"4bf92f3577b34da6\"} 0.05 %.15g\n"
             "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"2.0\"} 3\n"
             "latency_seconds_bucket{service=\"api\",path=\"/\",le=\"+Inf\"} 5\n"
             "latency_seconds_sum{service=\"api\",path=\"/\"} 20.105\n"
             "latency_seconds_count{service=\"api\",path=\"/\"} 5\n"
             "# TYPE temperature_celsius gauge\n"
             "# UNIT temperature_celsius celsius\n"
             "temperature_celsius{service=\"api\"} -2.5\n"
             "# TYPE up gauge\n"
             "up{service=\"api\"} 1\n"
             "# EOF\n",
             (double)atomic_load(&th.realtime_ms) / 1000);
    cr_assert_str_eq(written(m, PERF_METRICS_OPENMETRICS), expected, "%s", text);
    perf_metrics_close(m);
}

Test(metrics_text, formats_have_types_and_limits)
{
    perf_metrics *m;
    perf_snapshot *s;
    OK(perf_metrics_open(NULL, &m));
    OK(perf_metrics_snapshot(m, &s));
    for (int format = PERF_METRICS_PROMETHEUS; format <= PERF_METRICS_JSON; format++)
        cr_assert_gt(strlen(perf_metrics_content_type(format)), 10);
    cr_assert_str_eq(perf_metrics_content_type(0), "");
    cr_assert_eq(perf_metrics_write(m, 0, keep, NULL), PERF_EINVAL);
    cr_assert_eq(perf_metrics_write(m, 4, keep, NULL), PERF_EINVAL);
    cr_assert_eq(perf_metrics_write(m, 1, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_metrics_write(NULL, 1, keep, NULL), PERF_EINVAL);
    cr_assert_eq(perf_snapshot_write(NULL, 1, keep, NULL), PERF_EINVAL);
    text[text_len = 0] = '\0';
    OK(perf_snapshot_write(s, PERF_METRICS_PROMETHEUS, keep, NULL));
    cr_assert_str_eq(text, "");
    cr_assert_str_eq(written(m, PERF_METRICS_OPENMETRICS), "# EOF\n");
    cr_assert_str_eq(written(m, PERF_METRICS_JSON), "[\n]\n");
    perf_snapshot_release(s);
    perf_metrics_close(m);
}

static int refuse_second(void *ctx, const char *data, size_t len)
{
    (void)data;
    cr_assert_leq(len, 16384);
    return ++*(int *)ctx == 2 ? PERF_EIO : PERF_OK;
}

Test(metrics_text, comes_in_pieces_until_refused)
{
    perf_metrics *m;
    perf_metric_options o = metric("x", "k");
    perf_counter *c;
    char value[16];
    int calls = 0;
    OK(perf_metrics_open(NULL, &m));
    for (int i = 0; i < 3000; i++) {
        snprintf(value, sizeof value, "%d", i);
        o.max_series = 3000;
        OK(perf_metrics_counter(m, &o, (const char *[]){value}, &c));
    }
    written(m, PERF_METRICS_PROMETHEUS);
    cr_assert_eq(largest, 16384);
    cr_assert_eq(pieces, text_len / 16384 + 1);
    cr_assert_eq(perf_metrics_write(m, PERF_METRICS_PROMETHEUS, refuse_second, &calls), PERF_EIO);
    cr_assert_eq(calls, 2);
    perf_metrics_close(m);
}

/* ------------------------------------------------------------- read back */

static const double numbers[] = {
    0.1,       1.0 / 3, -1e-300, 1e300, 5e-324, 123456789.125,           -0.5,
    1e15,      1e22,    4e9,     9e15,  0.3,    2.2250738585072014e-308, 1e16 + 2,
    0.1 + 0.2, -17};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static perf_metrics *with_numbers(void)
{
    perf_metrics *m;
    perf_metric_options o = metric("n", "i");
    perf_gauge *g;
    char value[16];
    OK(perf_metrics_open(NULL, &m));
    for (int i = 0; i < NUMBERS; i++) {
        snprintf(value, sizeof value, "%02d", i);
        OK(perf_metrics_gauge(m, &o, (const char *[]){value}, &g));
        perf_gauge_set(g, numbers[i]);
    }
    return m;
}

Test(metrics_text, numbers_read_back_as_they_were)
{
    perf_metrics *m = with_numbers();
    char key[32];
    written(m, PERF_METRICS_PROMETHEUS);
    for (int i = 0; i < NUMBERS; i++) {
        snprintf(key, sizeof key, "n{i=\"%02d\"} ", i);
        const char *found = strstr(text, key);
        cr_assert(found && strtod(found + strlen(key), NULL) == numbers[i], "%g in %s", numbers[i],
                  text);
    }
    cr_assert(strstr(text, "} 0.1\n") && strstr(text, "} 0.30000000000000004\n") &&
              strstr(text, "} 4000000000\n"));
    perf_metrics_close(m);
}

Test(metrics_text, numbers_do_not_know_the_locale)
{
    static const char *const locales[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
    perf_metrics *m = with_numbers();
    char *plain = strdup(written(m, PERF_METRICS_JSON));
    for (size_t i = 0; i < sizeof locales / sizeof *locales; i++)
        if (setlocale(LC_NUMERIC, locales[i])) /* where it is installed */
            cr_assert_str_eq(written(m, PERF_METRICS_JSON), plain);
    setlocale(LC_NUMERIC, "C");
    free(plain);
    perf_metrics_close(m);
}

Test(metrics_text, numbers_that_are_none)
{
    perf_metrics *m;
    perf_metric_options o = metric("n", "i");
    perf_gauge *g;
    OK(perf_metrics_open(NULL, &m));
    OK(perf_metrics_gauge(m, &o, (const char *[]){"a"}, &g));
    perf_gauge_set(g, NAN);
    OK(perf_metrics_gauge(m, &o, (const char *[]){"b"}, &g));
    perf_gauge_set(g, INFINITY);
    OK(perf_metrics_gauge(m, &o, (const char *[]){"c"}, &g));
    perf_gauge_set(g, -INFINITY);
    cr_assert_str_eq(written(m, PERF_METRICS_PROMETHEUS),
                     "# TYPE n gauge\nn{i=\"a\"} NaN\nn{i=\"b\"} +Inf\nn{i=\"c\"} -Inf\n");
    cr_assert(strstr(written(m, PERF_METRICS_JSON), "\"labels\":{\"i\":\"b\"},\"value\":null}"));
    perf_metrics_close(m);
}

/* Undoes the escapes of a label's value up to its quote, and returns what is behind that. */
static const char *unescape(const char *p, char *out)
{
    for (; *p != '"'; p++) {
        cr_assert(*p && *p != '\n');
        if (*p != '\\') {
            *out++ = *p;
            continue;
        }
        p++;
        cr_assert(*p == 'n' || *p == '\\' || *p == '"');
        *out++ = *p == 'n' ? '\n' : *p;
    }
    *out = '\0';
    return p + 1;
}

static const char *const hostile[] = {
    "plain",        "\"", "\\",           "\n",       "\\n",        "a\"} 1\nevil{x=\"",
    "\x01\x7f\t\r", "{}", "\xc3\xa4\xff", "# HELP x", "le=\"0.1\"", "</script>"};
enum { HOSTILE = sizeof hostile / sizeof *hostile };

static perf_metrics *with_hostile(void)
{
    perf_metrics *m;
    perf_metric_options o = metric("x", "k");
    perf_counter *c;
    OK(perf_metrics_open(NULL, &m));
    for (int i = 0; i < HOSTILE; i++) {
        OK(perf_metrics_counter(m, &o, &hostile[i], &c));
        perf_counter_add(c, (uint64_t)i + 100);
    }
    return m;
}

static const char *expected_label(int i)
{
    return strcmp(hostile[i], "\xc3\xa4\xff") ? hostile[i] : "\xc3\xa4\xef\xbf\xbd";
}

Test(metrics_text, hostile_labels_read_back)
{
    perf_metrics *m = with_hostile();
    char value[256];
    int lines = 0;
    const char *p = written(m, PERF_METRICS_PROMETHEUS);
    cr_assert_eq(strncmp(p, "# TYPE x_total counter\n", 23), 0);
    for (p += 23; *p; lines++) {
        cr_assert_eq(strncmp(p, "x_total{k=\"", 11), 0, "%s", p);
        p = unescape(p + 11, value);
        cr_assert_eq(strncmp(p, "} ", 2), 0);
        char *end;
        long i = strtol(p + 2, &end, 10) - 100;
        cr_assert(*end == '\n' && i >= 0 && i < HOSTILE);
        cr_assert_str_eq(value, expected_label((int)i));
        p = end + 1;
    }
    cr_assert_eq(lines, HOSTILE);
    perf_metrics_close(m);
}

#if PERF_WITH_AWS
Test(metrics_text, json_reads_back)
{
    perf_metrics *m = with_hostile();
    perf_metric_options o = metric("h", NULL);
    perf_histogram *h;
    o.unit = "seconds", o.scale = 1e-3;
    OK(perf_metrics_histogram(m, &o, NULL, &h));
    for (uint64_t i = 1; i <= 100; i++)
        perf_histogram_record(h, i);
    cJSON *all = cJSON_Parse(written(m, PERF_METRICS_JSON));
    cr_assert(cJSON_IsArray(all), "%s", text);
    cr_assert_eq(cJSON_GetArraySize(all), HOSTILE + 1);
    cJSON *first = cJSON_GetArrayItem(all, 0);
    cr_assert_str_eq(cJSON_GetObjectItem(first, "name")->valuestring, "h_seconds");
    cr_assert_str_eq(cJSON_GetObjectItem(first, "type")->valuestring, "histogram");
    cr_assert_str_eq(cJSON_GetObjectItem(first, "unit")->valuestring, "seconds");
    cr_assert_eq(cJSON_GetObjectItem(first, "count")->valuedouble, 100);
    cr_assert_eq(cJSON_GetObjectItem(first, "sum")->valuedouble, 5.05);
    cr_assert_eq(cJSON_GetObjectItem(first, "p50")->valuedouble, 0.051);
    cr_assert_eq(cJSON_GetObjectItem(first, "p99")->valuedouble, 0.1);
    cr_assert_eq(cJSON_GetObjectItem(first, "max")->valuedouble, 0.1);
    for (int i = 1; i <= HOSTILE; i++) {
        cJSON *item = cJSON_GetArrayItem(all, i);
        int number = (int)cJSON_GetObjectItem(item, "value")->valuedouble - 100;
        cr_assert(number >= 0 && number < HOSTILE);
        cr_assert_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(item, "labels"), "k")->valuestring,
                         expected_label(number));
    }
    cJSON_Delete(all);
    perf_metrics_close(m);
}
#endif

Test(metrics_text, bounds_are_never_overstated)
{
    static const double bounds[] = {-1, 0, 1, 100, 1000, 1e300};
    perf_metrics *m;
    perf_metric_options o = metric("h", NULL);
    perf_histogram *h;
    o.bounds = bounds, o.bounds_count = 6;
    OK(perf_metrics_open(NULL, &m));
    OK(perf_metrics_histogram(m, &o, NULL, &h));
    perf_histogram_record(h, 0);
    perf_histogram_record(h, 1);
    perf_histogram_record(h, 100);
    perf_histogram_record(h, 101);
    perf_histogram_record(h, 991);  /* in 984 to 991 */
    perf_histogram_record(h, 999);  /* in 992 to 999 */
    perf_histogram_record(h, 1000); /* in 1000 to 1007: surely below it only in the next line */
    written(m, PERF_METRICS_PROMETHEUS);
    static const char *const lines[] = {
        "le=\"-1\"} 0\n",   "le=\"0\"} 1\n",      "le=\"1\"} 2\n",    "le=\"100\"} 3\n",
        "le=\"1000\"} 6\n", "le=\"1e+300\"} 7\n", "le=\"+Inf\"} 7\n", "h_count 7\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        cr_assert(strstr(text, lines[i]), "no %s in %s", lines[i], text);
    perf_metrics_close(m);
}
