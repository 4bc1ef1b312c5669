/* SPDX-License-Identifier: MIT */
/* aws_cloudwatch_test.c - CloudWatch as moto acts it, with signatures checked. */
#include <libperf/aws_cloudwatch.h>
#include <math.h>
#include <time.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

static const perf_host own = PERF_HOST_INIT;

static perf_aws *open_at(const struct test_server *server)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws *aws = NULL;
    setenv("AWS_ACCESS_KEY_ID", server->access_key, 1);
    setenv("AWS_SECRET_ACCESS_KEY", server->secret_key, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    unsetenv("AWS_SESSION_TOKEN");
    unsetenv("AWS_PROFILE");
    o.service = "cloudwatch";
    o.region = "us-east-1";
    o.endpoint_url = server->url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    if (!o.host)
        o.host = &own; /* keys of its own: the shared ones may be those of another test */
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

/* A statistic of a metric of the last and next hour, as moto's XML has it. */
static double statistic(perf_aws *cw, const char *name, const char *which, const char *dimension)
{
    char form[1024], from[48], to[48], open[32];
    time_t now = time(NULL) - 3600, later = now + 7200;
    struct tm tm;
    strftime(from, sizeof from, "%Y-%m-%dT%H%%3A%M%%3A%SZ", gmtime_r(&now, &tm));
    strftime(to, sizeof to, "%Y-%m-%dT%H%%3A%M%%3A%SZ", gmtime_r(&later, &tm));
    int n = snprintf(form, sizeof form,
                     "Namespace=my%%2Fapp&MetricName=%s&StartTime=%s&EndTime=%s&Period=86400"
                     "&Statistics.member.1=%s%s%s",
                     name, from, to, which,
                     dimension ? "&Dimensions.member.1.Name=host&Dimensions.member.1.Value=" : "",
                     dimension ? dimension : "");
    perf_aws_reply *reply;
    int rc = perf_aws_call(cw, "GetMetricStatistics", form, (size_t)n, 20000, &reply);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    snprintf(open, sizeof open, "<%s>", which);
    double sum = 0;
    bool any = false;
    for (const char *at = perf_aws_reply_body(reply); (at = strstr(at, open)); any = true) {
        at += strlen(open);
        sum += strtod(at, NULL);
    }
    cr_assert(any, "%s", (const char *)perf_aws_reply_body(reply));
    perf_aws_reply_release(reply);
    return sum;
}

static int put_one(perf_aws *cw, const perf_cloudwatch_datum *d)
{
    return perf_cloudwatch_put(cw, "my/app", &d, 1, 0, NULL);
}

static void refused(perf_aws *cw)
{
    perf_cloudwatch_datum d = PERF_CLOUDWATCH_DATUM_INIT;
    const perf_cloudwatch_datum *none = NULL;
    double counts[] = {-1};
    perf_cloudwatch_dimension hollow = {"host", ""};
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    d.value = 1;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL, "no name");
    d.name = "x";
    d.value = NAN;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.value = -INFINITY;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.value = 0x1p361;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.value = 1;
    d.values = &d.value;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL, "no value_count");
    d.value_count = 1;
    d.counts = counts;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.counts = NULL;
    d.resolution_s = 30;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.resolution_s = 60;
    d.dimensions = &hollow;
    d.dimension_count = 1;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.dimension_count = 31;
    cr_assert_eq(put_one(cw, &d), PERF_EINVAL);
    d.dimension_count = 0;
    cr_assert_eq(perf_cloudwatch_put(cw, "", &none, 0, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_cloudwatch_put(cw, "a", &none, 1, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_cloudwatch_put(cw, "a", NULL, 0, 0, NULL), PERF_OK);
    cr_assert_eq(perf_aws_get_stats(cw, &stats), PERF_OK);
    cr_assert_eq(stats.calls, 0, "nothing of this was sent");
}

static void single_values(perf_aws *cw)
{
    perf_cloudwatch_datum a = PERF_CLOUDWATCH_DATUM_INIT, b = a;
    perf_cloudwatch_dimension where[] = {{"host", "a b/\xc3\xbc&=+"}, {"zone", "1"}};
    const perf_cloudwatch_datum *all[] = {&a, &b};
    size_t done = 9;
    a.name = "Latency";
    a.value = 0.1;
    a.unit = "Milliseconds";
    b = a;
    b.value = -1.5e-7;
    b.name = "Small";
    b.resolution_s = 1;
    b.dimensions = where;
    b.dimension_count = 1;
    b.timestamp_ms = (int64_t)time(NULL) * 1000 - 61500;
    int rc = perf_cloudwatch_put(cw, "my/app", all, 2, 0, &done);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(done, 2);
    cr_assert_eq(statistic(cw, "Latency", "Sum", NULL), 0.1);
    cr_assert_eq(statistic(cw, "Small", "Sum", "a+b%2F%C3%BC%26%3D%2B"), -1.5e-7);
}

static void many_values(perf_aws *cw)
{
    enum { VALUES = 400, DATA = 2300 };
    static double values[VALUES], counts[VALUES];
    static perf_cloudwatch_datum data[DATA];
    static const perf_cloudwatch_datum *all[DATA];
    perf_aws_stats before = PERF_AWS_STATS_INIT, after = PERF_AWS_STATS_INIT;
    perf_cloudwatch_datum d = PERF_CLOUDWATCH_DATUM_INIT;
    double sum = 0;
    size_t done = 0;
    for (int i = 0; i < VALUES; i++) {
        values[i] = i + 0.25;
        counts[i] = 1 + i % 3;
        sum += values[i] * counts[i];
    }
    d.name = "Spread";
    d.values = values;
    d.counts = counts;
    d.value_count = VALUES;
    perf_aws_get_stats(cw, &before);
    int rc = put_one(cw, &d);
    perf_aws_get_stats(cw, &after);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(after.calls - before.calls, 1);
    cr_assert_lt(fabs(statistic(cw, "Spread", "Sum", NULL) - sum), 1e-6);

    for (int i = 0; i < DATA; i++) {
        data[i] = (perf_cloudwatch_datum)PERF_CLOUDWATCH_DATUM_INIT;
        data[i].name = "Ones";
        data[i].value = 1;
        all[i] = &data[i];
    }
    before = after;
    rc = perf_cloudwatch_put(cw, "my/app", all, DATA, 60000, &done);
    perf_aws_get_stats(cw, &after);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    cr_assert_eq(done, DATA);
    cr_assert_eq(statistic(cw, "Ones", "Sum", NULL), DATA);

    d.name = "Counted";
    d.counts = NULL;
    d.value_count = 3;
    cr_assert_eq(put_one(cw, &d), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(statistic(cw, "Counted", "SampleCount", NULL), 3);
}

Test(aws_cloudwatch, moto, .timeout = 180)
{
    struct test_server *moto = test_server_moto();
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    perf_aws *cw = open_at(moto);
    refused(cw);
    single_values(cw);
    cr_assert_eq(perf_aws_close(cw), PERF_OK);
    struct test_leaks leaks = test_leaks_begin();
    cw = open_at(moto);
    many_values(cw);
    cr_assert_eq(perf_aws_close(cw), PERF_OK);
    test_leaks_end(&leaks);
    test_server_stop(moto);
}
