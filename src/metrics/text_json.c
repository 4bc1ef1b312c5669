/* SPDX-License-Identifier: MIT */
/*
 * text_json.c - a snapshot as JSON (RFC 8259), an object a line. What JSON has no
 * numbers for is null. One text belongs to one thread.
 */
#include <stdio.h>

#include "metrics_impl.h"

static const char *const special[3] = {"null", "null", "null"};

static void string(struct perf__text *t, const char *text)
{
    char code[8];
    perf__text(t, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') {
            perf__text(t, c == '"' ? "\\\"" : "\\\\");
        } else if (c < 0x20) {
            snprintf(code, sizeof code, "\\u%04x", c);
            perf__text(t, code);
        } else {
            perf__text_bytes(t, p, 1);
        }
    }
    perf__text(t, "\"");
}

static void member(struct perf__text *t, const char *name, double value)
{
    perf__text(t, ",\"");
    perf__text(t, name);
    perf__text(t, "\":");
    perf__text_number(t, value, special);
}

static void distribution(struct perf__text *t, const perf_snapshot *s, size_t i)
{
    const struct perf__item *item = &s->items[i];
    perf__text(t, ",\"count\":");
    perf__text_u64(t, item->count);
    member(t, "sum", item->value);
    member(t, "p50", perf_snapshot_quantile(s, i, 0.5));
    member(t, "p90", perf_snapshot_quantile(s, i, 0.9));
    member(t, "p99", perf_snapshot_quantile(s, i, 0.99));
    member(t, "p999", perf_snapshot_quantile(s, i, 0.999));
    member(t, "max", perf_snapshot_quantile(s, i, 1));
}

void perf__text_json(struct perf__text *t, const perf_snapshot *s)
{
    static const char *const types[] = {"", "counter", "gauge", "histogram"};
    perf__text(t, "[");
    for (size_t i = 0; i < s->count && t->rc == PERF_OK; i++) {
        const struct perf__item *item = &s->items[i];
        const struct perf__metric *metric = item->series->metric;
        perf__text(t, i ? ",\n{\"name\":" : "\n{\"name\":");
        string(t, metric->name);
        perf__text(t, ",\"type\":");
        string(t, types[metric->type]);
        perf__text(t, ",\"unit\":");
        string(t, metric->unit);
        perf__text(t, ",\"labels\":{");
        for (uint32_t j = 0; j < metric->labels_count; j++) {
            perf__text(t, j ? "," : "");
            string(t, metric->labels[j]);
            perf__text(t, ":");
            string(t, item->series->values[j]);
        }
        perf__text(t, "}");
        if (metric->type == PERF_METRIC_HISTOGRAM)
            distribution(t, s, i);
        else
            member(t, "value", item->value);
        perf__text(t, "}");
    }
    perf__text(t, "\n]\n");
}
