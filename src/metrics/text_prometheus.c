/* SPDX-License-Identifier: MIT */
/*
 * text_prometheus.c - Prometheus' text format 0.0.4, and OpenMetrics 1.0, which
 * differs in a counter's name, in units, in how a whole bound is written, in
 * examples and in its last line. One text belongs to one thread.
 */
#include <stdio.h>
#include <string.h>

#include "metrics_impl.h"

static const char *const special[3] = {"NaN", "+Inf", "-Inf"};

enum {
    /* A label: its name, ="", and a value each of whose bytes may take two; a comma. */
    BLOCK_MAX = 2 * PERF__LABELS_MAX * (PERF__VALUE_MAX + 2 * PERF__VALUE_MAX + 4),
};

struct writer {
    struct perf__text *t;
    const perf_snapshot *s;
    bool open; /* OpenMetrics */
    const struct perf__metric *metric;
    size_t labels_len;
    char labels[BLOCK_MAX]; /* of the series at hand, without braces */
    uint8_t bound_lens[PERF__BOUNDS_MAX];
    char bounds[PERF__BOUNDS_MAX][40]; /* of the metric at hand: le="0.1" */
};

static void escaped(struct perf__text *t, const char *text, bool quotes)
{
    for (;;) {
        size_t plain = strcspn(text, quotes ? "\\\n\"" : "\\\n");
        perf__text_bytes(t, text, plain);
        text += plain;
        if (!*text)
            return;
        perf__text(t, *text == '\n' ? "\\n" : *text == '"' ? "\\\"" : "\\\\");
        text++;
    }
}

static size_t append(char *out, const char *text, bool escape)
{
    size_t len = 0;
    for (; *text; text++) {
        if (escape && (*text == '\\' || *text == '"' || *text == '\n')) {
            out[len++] = '\\';
            out[len++] = *text == '\n' ? 'n' : *text;
        } else {
            out[len++] = *text;
        }
    }
    return len;
}

static void begin_series(struct writer *w, const struct perf__series *series)
{
    size_t len = 0;
    for (uint32_t i = 0; i < series->metric->labels_count; i++) {
        if (i)
            w->labels[len++] = ',';
        len += append(w->labels + len, series->metric->labels[i], false);
        w->labels[len++] = '=';
        w->labels[len++] = '"';
        len += append(w->labels + len, series->values[i], true);
        w->labels[len++] = '"';
    }
    w->labels_len = len;
}

/* "# TYPE name type" and its like. A counter's name in 0.0.4 is that of its lines. */
static void meta(struct writer *w, const char *what, const char *text, bool escape)
{
    perf__text(w->t, what);
    perf__text(w->t, w->metric->name);
    if (!w->open && w->metric->type == PERF_METRIC_COUNTER)
        perf__text(w->t, "_total");
    perf__text(w->t, " ");
    if (escape)
        escaped(w->t, text, w->open);
    else
        perf__text(w->t, text);
    perf__text(w->t, "\n");
}

static void begin_metric(struct writer *w, const struct perf__metric *metric)
{
    static const char *const types[] = {"", "counter", "gauge", "histogram"};
    w->metric = metric;
    if (*metric->help)
        meta(w, "# HELP ", metric->help, true);
    meta(w, "# TYPE ", types[metric->type], false);
    if (w->open && *metric->unit)
        meta(w, "# UNIT ", metric->unit, false);
    for (uint32_t i = 0; i < metric->bounds_count; i++) {
        char number[32];
        perf__number_double(number, metric->bounds[i]);
        int len = snprintf(w->bounds[i], sizeof w->bounds[i], "le=\"%s%s\"", number,
                           w->open && !strpbrk(number, ".e") ? ".0" : "");
        w->bound_lens[i] = (uint8_t)len;
    }
}

/* The beginning of a line, up to the value. le may be empty. */
static void line(struct writer *w, const char *suffix, const char *le, size_t le_len)
{
    perf__text(w->t, w->metric->name);
    perf__text(w->t, suffix);
    if (w->labels_len || le_len) {
        perf__text_bytes(w->t, "{", 1);
        perf__text_bytes(w->t, w->labels, w->labels_len);
        if (w->labels_len && le_len)
            perf__text_bytes(w->t, ",", 1);
        perf__text_bytes(w->t, le, le_len);
        perf__text_bytes(w->t, "}", 1);
    }
    perf__text_bytes(w->t, " ", 1);
}

static void example(struct writer *w, const struct perf__item *item, uint32_t number)
{
    if (!w->open || item->examples == SIZE_MAX)
        return;
    const struct perf__example *e = &w->s->examples[item->examples + number];
    if (!e->time_ms)
        return;
    perf__text(w->t, " # {trace_id=\"");
    perf__text(w->t, e->trace_id);
    perf__text(w->t, "\"} ");
    perf__text_number(w->t, perf__scaled(w->metric, (double)e->value), special);
    perf__text(w->t, " ");
    perf__text_number(w->t, (double)e->time_ms / 1000, special);
}

static void histogram(struct writer *w, const struct perf__item *item)
{
    const struct perf__filled *filled = w->s->filled + item->filled;
    uint64_t below = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < w->metric->bounds_count; i++) {
        while (at < item->filled_count && filled[at].bucket < w->metric->limits[i])
            below += filled[at++].count;
        line(w, "_bucket", w->bounds[i], w->bound_lens[i]);
        perf__text_u64(w->t, below);
        example(w, item, i);
        perf__text(w->t, "\n");
    }
    line(w, "_bucket", "le=\"+Inf\"", 9);
    perf__text_u64(w->t, item->count);
    example(w, item, w->metric->bounds_count);
    perf__text(w->t, "\n");
    line(w, "_sum", "", 0);
    perf__text_number(w->t, item->value, special);
    perf__text(w->t, "\n");
    line(w, "_count", "", 0);
    perf__text_u64(w->t, item->count);
    perf__text(w->t, "\n");
}

static void simple(struct writer *w, const struct perf__item *item)
{
    line(w, w->metric->type == PERF_METRIC_COUNTER ? "_total" : "", "", 0);
    if (w->metric->type == PERF_METRIC_COUNTER && !item->told && w->metric->scale == 1)
        perf__text_u64(w->t, item->count); /* exact also beyond 2^53 */
    else
        perf__text_number(w->t, item->value, special);
    perf__text(w->t, "\n");
}

void perf__text_prometheus(struct perf__text *t, const perf_snapshot *s, bool open)
{
    struct writer w = {.t = t, .s = s, .open = open};
    for (size_t i = 0; i < s->count && t->rc == PERF_OK; i++) {
        const struct perf__item *item = &s->items[i];
        /* A metric that is both counted and told is one, though it is described twice. */
        if (!w.metric || strcmp(w.metric->name, item->series->metric->name) != 0)
            begin_metric(&w, item->series->metric);
        begin_series(&w, item->series);
        if (item->series->metric->type == PERF_METRIC_HISTOGRAM)
            histogram(&w, item);
        else
            simple(&w, item);
    }
    if (open)
        perf__text(t, "# EOF\n");
}
