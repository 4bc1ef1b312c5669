/* SPDX-License-Identifier: MIT */
/*
 * plot.c - latency over time as a page of its own: one SVG, no script, nothing
 * fetched, in the colours that the reader's system prefers. One thread.
 */
#include "demo.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 960,
    HEIGHT = 440,
    LEFT = 76,
    RIGHT = 16,
    TOP = 56,
    BOTTOM = 52,
    PHASES = 3,
    GAP = 14,
    SLICES = 80
};
static const double LOW = -1, HIGH = 6; /* powers of ten of a microsecond */

static const char STYLE[] =
    ":root{color-scheme:light dark;--back:#fff;--text:#1f2328;--soft:#59636e;--grid:#d8dee4;"
    "--p50:#0b62b8;--p99:#b3450b}"
    "@media(prefers-color-scheme:dark){:root{--back:#0d1117;--text:#e6edf3;--soft:#9aa4af;"
    "--grid:#30363d;--p50:#6cb6ff;--p99:#ffa657}}"
    "body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--back);"
    "color:var(--text);font:15px/1.5 system-ui,sans-serif}"
    "svg{width:100%;height:auto}svg text{fill:var(--soft);font:12px system-ui,sans-serif}"
    "svg .phase{fill:var(--text);font-weight:600}"
    ".grid{stroke:var(--grid)}.frame{fill:none;stroke:var(--grid)}"
    ".p50,.p99{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".p50{stroke:var(--p50)}.p99{stroke:var(--p99);stroke-dasharray:6 3}"
    "pre{overflow-x:auto;font-size:12px;line-height:1.35}";

static double y_of(double us)
{
    double power = log10(us > 0.1 ? us : 0.1);

    power = power > HIGH ? HIGH : power;
    return TOP + (HIGH - power) / (HIGH - LOW) * (HEIGHT - TOP - BOTTOM);
}

static double panel_width(void)
{
    return (double)(WIDTH - LEFT - RIGHT - GAP * (PHASES - 1)) / PHASES;
}

static void axis(FILE *out)
{
    static const char *const names[] = {"0.1 µs", "1 µs",  "10 µs",  "100 µs",
                                        "1 ms",   "10 ms", "100 ms", "1 s"};

    for (int i = 0; i < 8; i++) {
        double y = y_of(pow(10, LOW + i));

        fprintf(out,
                "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, names[i]);
    }
    fprintf(out,
            "<line class=\"p50\" x1=\"%d\" x2=\"%d\" y1=\"14\" y2=\"14\"/>"
            "<text x=\"%d\" y=\"18\">p50 of a slice</text>"
            "<line class=\"p99\" x1=\"%d\" x2=\"%d\" y1=\"14\" y2=\"14\"/>"
            "<text x=\"%d\" y=\"18\">p99 of a slice</text>\n",
            LEFT, LEFT + 30, LEFT + 38, LEFT + 150, LEFT + 180, LEFT + 188);
}

static void line(FILE *out, const char *name, const double *values, size_t n, double left)
{
    fprintf(out, "<polyline class=\"%s\" points=\"", name);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%.1f,%.1f ", left + ((double)i + 0.5) / (double)n * panel_width(),
                y_of(values[i]));
    fprintf(out, "\"><title>%s</title></polyline>\n", name);
}

/* One phase: its requests in the order they were made, cut into slices. */
static int panel(FILE *out, const char *title, const struct phase *phase, int number)
{
    double left = LEFT + number * (panel_width() + GAP), p50[SLICES], p99[SLICES];
    size_t n = phase->requests < SLICES ? phase->requests : SLICES;
    float *slice = malloc((phase->requests / (n ? n : 1) + 2) * sizeof *slice);

    if (!slice)
        return -1;
    for (size_t i = 0; i < n; i++) {
        size_t from = phase->requests * i / n, to = phase->requests * (i + 1) / n;

        memcpy(slice, phase->us + from, (to - from) * sizeof *slice);
        p50[i] = percentile(slice, to - from, 0.5);
        p99[i] = percentile(slice, to - from, 0.99);
    }
    free(slice);
    fprintf(out,
            "<rect class=\"frame\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>"
            "<text class=\"phase\" x=\"%.1f\" y=\"%d\">%s</text>"
            "<text x=\"%.1f\" y=\"%d\">%llu requests in %.1f s</text>\n",
            left, TOP, panel_width(), HEIGHT - TOP - BOTTOM, left, TOP - 10, title, left,
            HEIGHT - BOTTOM + 20, (unsigned long long)phase->requests, phase->seconds);
    line(out, "p50", p50, n, left);
    line(out, "p99", p99, n, left);
    return 0;
}

int plot_write(const char *path, const struct demo_plan *plan, const struct results *r)
{
    FILE *out = fopen(path, "w");
    int failed = 0;

    if (!out) {
        fprintf(stderr, "demo: cannot write %s: %s\n", path, strerror(errno));
        return -1;
    }
    fprintf(out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            "<meta name=\"viewport\" content=\"width=device-width\">"
            "<title>libperf demo: latency over time</title><style>%s</style></head><body>\n"
            "<h1>Latency over time</h1>\n"
            "<p>Each phase from left to right as its requests were made, in up to %d slices; the"
            " scale is logarithmic. Response time fell by %.1f&nbsp;%% (%llu requests answered"
            " both ways).</p>\n"
            "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"p50 and p99 latency of the three"
            " phases\">\n",
            STYLE, SLICES, r->reduction, (unsigned long long)r->compared, WIDTH, HEIGHT);
    axis(out);
    failed |= panel(out, "1 without libperf", &r->bare, 0);
    failed |= panel(out, "2 with libperf", &r->cached, 1);
    failed |= panel(out, "3 after a process restart", &r->restarted, 2);
    fprintf(out, "<text x=\"%d\" y=\"%d\">requests, in the order they were made</text></svg>\n",
            LEFT, HEIGHT - 8);
    fprintf(out, "<pre>"); /* the table has numbers and our own words: nothing to escape */
    report_table(out, plan, r);
    fprintf(out, "</pre></body></html>\n");
    failed |= ferror(out) != 0;
    failed |= fclose(out) != 0;
    if (failed)
        fprintf(stderr, "demo: cannot write %s\n", path);
    return failed ? -1 : 0;
}
