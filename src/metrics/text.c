/* SPDX-License-Identifier: MIT */
/*
 * text.c - writing by pieces, numbers as texts, and the calls that choose a
 * format. One text belongs to one thread.
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "metrics_impl.h"

static void flush(struct perf__text *t)
{
    if (t->rc == PERF_OK && t->len)
        t->rc = t->write(t->ctx, t->piece, t->len);
    t->len = 0;
}

void perf__text_bytes(struct perf__text *t, const char *data, size_t len)
{
    while (len) {
        size_t part = sizeof t->piece - t->len;
        if (part > len)
            part = len;
        memcpy(t->piece + t->len, data, part);
        t->len += part;
        data += part;
        len -= part;
        if (t->len == sizeof t->piece)
            flush(t);
    }
}

void perf__text(struct perf__text *t, const char *string)
{
    perf__text_bytes(t, string, strlen(string));
}

void perf__text_u64(struct perf__text *t, uint64_t value)
{
    char out[PERF__NUMBER_SIZE];
    perf__text_bytes(t, out, perf__number_u64(out, value));
}

void perf__text_number(struct perf__text *t, double value, const char *const special[3])
{
    char out[PERF__NUMBER_SIZE];
    if (isnan(value))
        perf__text(t, special[0]);
    else if (isinf(value))
        perf__text(t, special[value > 0 ? 1 : 2]);
    else
        perf__text_bytes(t, out, perf__number_double(out, value));
}

/* ----------------------------------------------------------------- formats */

const char *perf_metrics_content_type(int format)
{
    switch (format) {
    case PERF_METRICS_PROMETHEUS:
        return "text/plain; version=0.0.4; charset=utf-8";
    case PERF_METRICS_OPENMETRICS:
        return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    case PERF_METRICS_JSON:
        return "application/json";
    default:
        return "";
    }
}

static int check(int format, perf_write_fn write)
{
    if (!*perf_metrics_content_type(format))
        return perf__fail(PERF_EINVAL, "format is %d; give PERF_METRICS_PROMETHEUS or another",
                          format);
    return write ? PERF_OK : perf__fail(PERF_EINVAL, "write is NULL; give a function");
}

int perf_snapshot_write(const perf_snapshot *s, int format, perf_write_fn write, void *ctx)
{
    int rc = check(format, write);
    if (rc)
        return rc;
    if (!s)
        return perf__fail(PERF_EINVAL, "snapshot is NULL; make one first");
    const perf_allocator *allocator = &s->metrics->host.allocator;
    struct perf__text *t = perf__alloc(allocator, sizeof *t);
    if (!t)
        return perf__fail_nomem("a text");
    t->write = write;
    t->ctx = ctx;
    t->rc = PERF_OK;
    t->len = 0;
    if (format == PERF_METRICS_JSON)
        perf__text_json(t, s);
    else
        perf__text_prometheus(t, s, format == PERF_METRICS_OPENMETRICS);
    flush(t);
    rc = t->rc;
    perf__free(allocator, t);
    return rc;
}

int perf_metrics_write(perf_metrics *metrics, int format, perf_write_fn write, void *ctx)
{
    perf_snapshot *s;
    int rc;
    if ((rc = check(format, write)) || (rc = perf_metrics_snapshot(metrics, &s)))
        return rc;
    rc = perf_snapshot_write(s, format, write, ctx);
    perf_snapshot_release(s);
    return rc;
}
