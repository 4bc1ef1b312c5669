/* SPDX-License-Identifier: MIT */
/*
 * describe.c - what a caller says of a metric, checked; its full name, and the
 * buckets that texts show. Pure functions, any thread.
 */
#include <math.h>
#include <string.h>

#include "../base/status.h"
#include "metrics_impl.h"

/* In seconds. */
static const double time_bounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                     0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                     1,      2.5,     5,      10,    30,     60};
/* Of what is counted or measured in bytes. */
static const double power_bounds[] = {1,        4,        16,        64,        256,     1024,
                                      4096,     16384,    65536,     262144,    1048576, 4194304,
                                      16777216, 67108864, 268435456, 1073741824};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool is_name(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] != ':' && !perf__label_is_name(text + i, 1) &&
            !(i && text[i] >= '0' && text[i] <= '9'))
            return false;
    return len > 0;
}

static bool ends_in(const char *text, size_t len, const char *end, size_t end_len)
{
    return len > end_len && text[len - end_len - 1] == '_' &&
           !memcmp(text + len - end_len, end, end_len);
}

size_t perf__name_len(const char *name, int type)
{
    size_t len = strnlen(name, PERF__NAME_MAX + 1);
    return type == PERF_METRIC_COUNTER && ends_in(name, len, "total", 5) ? len - 6 : len;
}

static int describe_name(const perf_metric_options *o, struct perf__description *d)
{
    if (!o->name)
        return perf__fail(PERF_EINVAL, "perf_metric_options.name is NULL; give a name");
    size_t len = strnlen(o->name, PERF__NAME_MAX + 1);
    if (len > PERF__NAME_MAX || !is_name(o->name, len))
        return perf__fail(PERF_EINVAL,
                          "name is \"%.64s\"; give [a-zA-Z_:][a-zA-Z0-9_:]* of up to %d bytes",
                          o->name, PERF__NAME_MAX);
    len = perf__name_len(o->name, d->type);
    memcpy(d->name, o->name, len);
    d->given_len = len;
    size_t unit_len = o->unit ? strnlen(o->unit, PERF__NAME_MAX + 1) : 0;
    if (unit_len) {
        if (unit_len > PERF__NAME_MAX || !perf__label_is_name(o->unit, unit_len))
            return perf__fail(PERF_EINVAL, "unit is \"%.64s\"; give a word such as \"seconds\"",
                              o->unit);
        memcpy(d->unit, o->unit, unit_len);
        if (!ends_in(d->name, len, d->unit, unit_len)) {
            d->name[len++] = '_';
            memcpy(d->name + len, d->unit, unit_len);
            len += unit_len;
        }
    }
    d->unit[unit_len] = '\0';
    d->name[len] = '\0';
    d->name_len = len;
    return PERF_OK;
}

static int describe_bounds(const perf_metric_options *o, struct perf__description *d)
{
    d->bounds = NULL;
    d->bounds_count = 0;
    if (d->type != PERF_METRIC_HISTOGRAM)
        return PERF_OK;
    if (!o->bounds || !o->bounds_count) {
        bool time = d->scale == 1e-9 || d->scale == 1e-6 || d->scale == 1e-3;
        d->bounds = time ? time_bounds : power_bounds;
        d->bounds_count = time ? COUNT(time_bounds) : COUNT(power_bounds);
        return PERF_OK;
    }
    if (o->bounds_count > PERF__BOUNDS_MAX)
        return perf__fail(PERF_EINVAL, "bounds_count is %zu; give up to %d", o->bounds_count,
                          PERF__BOUNDS_MAX);
    for (size_t i = 0; i < o->bounds_count; i++)
        if (!isfinite(o->bounds[i]) || (i && o->bounds[i] <= o->bounds[i - 1]))
            return perf__fail(PERF_EINVAL,
                              "bounds[%zu] is %g; each is to be finite and above the one before", i,
                              o->bounds[i]);
    d->bounds = o->bounds;
    d->bounds_count = (uint32_t)o->bounds_count;
    return PERF_OK;
}

int perf__describe(const perf_metric_options *given, int type, const struct perf__table *table,
                   struct perf__description *d)
{
    perf_metric_options o;
    int rc;
    if ((rc = perf__options_take("perf_metric_options", given, &o, sizeof o)))
        return rc;
    d->type = type;
    d->own = false;
    if (!isfinite(o.scale) || o.scale < 0)
        return perf__fail(PERF_EINVAL, "scale is %g; give a number above 0", o.scale);
    d->scale = o.scale > 0 ? o.scale : 1;
    if (o.max_series > 1000000)
        return perf__fail(PERF_EINVAL, "max_series is %llu; give 1 to 1000000",
                          (unsigned long long)o.max_series);
    d->max_series = o.max_series ? o.max_series : table->max_series;
    if ((rc = describe_name(&o, d)) || (rc = perf__labels_parse(o.labels, type, &d->labels)) ||
        (rc = describe_bounds(&o, d)))
        return rc;
    perf__utf8_copy(d->help, PERF__HELP_MAX, o.help ? o.help : "");
    return PERF_OK;
}
