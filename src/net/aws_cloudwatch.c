/* SPDX-License-Identifier: MIT */
/*
 * aws_cloudwatch.c - PutMetricData. Any thread.
 *
 * A datum is written behind the others; when the request has become too long for
 * that, it is cut off again and begins the next one.
 */
#include <libperf/aws_cloudwatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/number.h"
#include "../base/status.h"
#include "aws_client.h"
#include "aws_json.h"

enum {
    DATA_MAX = 1000, /* the service's limits */
    VALUES_MAX = 150,
    DIMENSIONS_MAX = 30,
    BYTES_MAX = 1000000 - 200, /* without Action, Version and Namespace */
    COUNT_MAX = 10000000,
};

static const double value_max = 0x1p360;

struct job {
    perf_aws *aws;
    const char *name_space;
    struct perf__text text;
    size_t in_text; /* metric data */
    size_t whole;   /* data that are in text or sent to their end */
    size_t sent;
    int64_t now_ms, deadline_ns;
};

/* ---------------------------------------------------------------------- check */

static int check_name(const char *field, const char *text, size_t max)
{
    size_t len = text ? strnlen(text, max + 1) : 0;
    int rc = perf__check_len(field, len, 1, max);
    return rc ? rc : perf__check_utf8(field, text, len);
}

static int check_value(const char *field, double value, double min)
{
    if (isfinite(value) && value >= min && value <= value_max)
        return PERF_OK;
    return perf__fail(PERF_EINVAL,
                      "perf_cloudwatch_datum.%s has %g; CloudWatch takes what is "
                      "finite and from %g to 2^360",
                      field, value, min);
}

static int check_datum(const perf_cloudwatch_datum *d)
{
    int rc = check_name("perf_cloudwatch_datum.name", d->name, 255);
    if (!rc)
        rc = perf__check_range("dimension_count",
                               d->dimension_count > DIMENSIONS_MAX ? INT64_MAX
                                                                   : (int64_t)d->dimension_count,
                               0, DIMENSIONS_MAX);
    if (!rc && d->dimension_count && !d->dimensions)
        rc = perf__fail(PERF_EINVAL, "perf_cloudwatch_datum.dimensions is NULL");
    for (size_t i = 0; !rc && i < d->dimension_count; i++) {
        rc = check_name("a dimension's name", d->dimensions[i].name, 255);
        if (!rc)
            rc = check_name("a dimension's value", d->dimensions[i].value, 1024);
    }
    if (!rc && d->unit)
        rc = check_name("perf_cloudwatch_datum.unit", d->unit, 64);
    if (!rc && d->resolution_s && d->resolution_s != 1 && d->resolution_s != 60)
        rc = perf__fail(PERF_EINVAL, "resolution_s is %lld; give 1 or 60",
                        (long long)d->resolution_s);
    if (!rc)
        rc = perf__check_range("timestamp_ms", d->timestamp_ms, 0, INT64_C(253402300799999));
    if (!rc && (!d->values) != (d->value_count == 0))
        rc = perf__fail(PERF_EINVAL, "perf_cloudwatch_datum: values and value_count go together");
    if (!rc && !d->values)
        rc = check_value("value", d->value, -value_max);
    for (size_t i = 0; !rc && i < d->value_count; i++) {
        rc = check_value("values", d->values[i], -value_max);
        if (!rc && d->counts)
            rc = check_value("counts", d->counts[i], 0);
    }
    return rc;
}

/* -------------------------------------------------------------------- writing */

static void put_number(struct perf__text *t, double value)
{
    char text[PERF__NUMBER_SIZE];
    size_t n = perf__number_double(text, value);
    for (size_t i = 0; i < n; i++)
        perf__text_puts(t, text[i] == '+' ? "%2B" : (char[]){text[i], 0});
}

static void put_text(struct perf__text *t, const char *text)
{
    perf__text_put_form(t, text, strlen(text));
}

/* "&MetricData.member.N." */
static void put_head(struct job *j)
{
    perf__text_putf(&j->text, "&MetricData.member.%zu.", j->in_text + 1);
}

static void put_time(struct job *j, int64_t ms)
{
    char text[64];
    struct tm tm;
    time_t s = (time_t)(ms / 1000);
    gmtime_r(&s, &tm);
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d%%3A%02d%%3A%02d.%03dZ", tm.tm_year + 1900,
             tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ms % 1000));
    put_head(j);
    perf__text_putf(&j->text, "Timestamp=%s", text);
}

static void put_datum(struct job *j, const perf_cloudwatch_datum *d, size_t first, size_t n)
{
    struct perf__text *t = &j->text;
    put_head(j);
    perf__text_puts(t, "MetricName=");
    put_text(t, d->name);
    for (size_t i = 0; i < d->dimension_count; i++) {
        put_head(j);
        perf__text_putf(t, "Dimensions.member.%zu.Name=", i + 1);
        put_text(t, d->dimensions[i].name);
        put_head(j);
        perf__text_putf(t, "Dimensions.member.%zu.Value=", i + 1);
        put_text(t, d->dimensions[i].value);
    }
    put_time(j, d->timestamp_ms ? d->timestamp_ms : j->now_ms);
    if (d->unit) {
        put_head(j);
        perf__text_puts(t, "Unit=");
        put_text(t, d->unit);
    }
    if (d->resolution_s) {
        put_head(j);
        perf__text_putf(t, "StorageResolution=%lld", (long long)d->resolution_s);
    }
    if (!d->values) {
        put_head(j);
        perf__text_puts(t, "Value=");
        put_number(t, d->value);
    }
    for (size_t i = 0; i < n; i++) {
        put_head(j);
        perf__text_putf(t, "Values.member.%zu=", i + 1);
        put_number(t, d->values[first + i]);
        put_head(j);
        perf__text_putf(t, "Counts.member.%zu=", i + 1);
        put_number(t, d->counts ? d->counts[first + i] : 1);
    }
}

/* -------------------------------------------------------------------- sending */

static void begin(struct job *j)
{
    j->in_text = 0;
    j->text.len = 0;
    perf__text_puts(&j->text, "Namespace=");
    put_text(&j->text, j->name_space);
}

static int flush(struct job *j)
{
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    perf_aws_reply *reply = NULL;
    if (j->text.failed)
        return perf__fail_nomem("metric data");
    int64_t left = (j->deadline_ns - perf__now_ns(&j->aws->host.clock)) / 1000000;
    if (left <= 0)
        return perf__fail(PERF_ETIMEDOUT,
                          "monitoring PutMetricData: the time is over after %zu "
                          "data",
                          j->sent);
    r.operation = "PutMetricData";
    r.body = (perf_bytes){j->text.data, j->text.len};
    r.timeout_ms = left;
    r.flags = PERF_AWS_GZIP;
    int rc = perf_aws_perform(j->aws, &r, &reply);
    perf_aws_reply_release(reply);
    if (rc)
        return rc;
    j->sent = j->whole;
    begin(j);
    return PERF_OK;
}

/* Up to 150 values of a datum behind the others, which are sent before if there is no room. */
static int add(struct job *j, const perf_cloudwatch_datum *d, size_t first, size_t n)
{
    size_t before = j->text.len;
    put_datum(j, d, first, n);
    if (j->in_text && (j->text.len > BYTES_MAX || j->in_text == DATA_MAX)) {
        j->text.len = before;
        int rc = flush(j);
        if (rc)
            return rc;
        put_datum(j, d, first, n);
    }
    j->in_text++;
    return PERF_OK;
}

static int add_whole(struct job *j, const perf_cloudwatch_datum *d)
{
    size_t first = 0;
    do {
        size_t n = d->value_count - first;
        if (n > VALUES_MAX)
            n = VALUES_MAX;
        int rc = add(j, d, first, n);
        if (rc)
            return rc;
        first += n;
    } while (first < d->value_count);
    j->whole++;
    return PERF_OK;
}

int perf_cloudwatch_put(perf_aws *aws, const char *name_space,
                        const perf_cloudwatch_datum *const *data, size_t count, int64_t timeout_ms,
                        size_t *done)
{
    struct job j = {.aws = aws, .name_space = name_space};
    perf_cloudwatch_datum d;
    if (done)
        *done = 0;
    int rc =
        perf__aws_check_client(aws, "perf_cloudwatch_put", "monitoring", PERF_AWS_PROTOCOL_QUERY);
    if (!rc)
        rc = check_name("the namespace", name_space, 255);
    if (!rc)
        rc = perf__check_range("count", count > COUNT_MAX ? INT64_MAX : (int64_t)count, 0,
                               COUNT_MAX);
    if (!rc)
        rc = perf__check_range("timeout_ms", timeout_ms, 0, INT64_MAX / 4000000);
    if (!rc && !data && count)
        rc = perf__fail(PERF_EINVAL, "data is NULL");
    for (size_t i = 0; !rc && i < count; i++) {
        rc = data[i] ? perf__options_take("perf_cloudwatch_datum", data[i], &d, sizeof d)
                     : perf__fail(PERF_EINVAL, "data[%zu] is NULL", i);
        if (!rc)
            rc = check_datum(&d);
    }
    if (rc || !count)
        return rc;
    int64_t time = timeout_ms ? timeout_ms : aws->timeout_ms, now = perf__now_ns(&aws->host.clock);
    j.deadline_ns = time > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + time * 1000000;
    j.now_ms = perf__realtime_ms(&aws->host.clock) + atomic_load(&aws->skew_ms);
    j.text.allocator = &aws->host.allocator;
    begin(&j);
    for (size_t i = 0; !rc && i < count; i++) {
        rc = perf__options_take("perf_cloudwatch_datum", data[i], &d, sizeof d);
        if (!rc)
            rc = add_whole(&j, &d);
    }
    if (!rc)
        rc = flush(&j);
    perf__text_free(&j.text);
    if (done)
        *done = j.sent;
    return rc;
}
