/* SPDX-License-Identifier: MIT */
/*
 * report.c - the progress bar, the comparison of what both phases answered, and
 * the table. One thread.
 */
#include "demo.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void progress(const char *title, double done, double total)
{
    static const char *current; /* the phase on show; only the main thread shows one */
    static double shown;
    double now = demo_now(), share = total > 0 ? done / total : 1;
    int filled = (int)(share * 30);

    if (!isatty(STDERR_FILENO)) {
        if (current != title)
            fprintf(stderr, "%s ...\n", title);
        current = title;
        return;
    }
    if (current == title && now - shown < 0.1 && done < total)
        return;
    current = title;
    shown = now;
    fprintf(stderr, "\r\033[K%-26s [%.*s%.*s] %3d%%%s", title, filled,
            "##############################", 30 - filled, "..............................",
            (int)(share * 100), done >= total ? "\n" : "");
}

static int by_value(const void *a, const void *b)
{
    const float *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

double percentile(float *values, size_t n, double share)
{
    size_t at = (size_t)(share * (double)n);

    if (n == 0)
        return 0;
    qsort(values, n, sizeof *values, by_value);
    return (double)values[at < n ? at : n - 1];
}

static double mean(const float *values, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)values[i];
    return n ? sum / (double)n : 0;
}

int results_compare(struct results *r)
{
    float *without = malloc(r->bare.requests * sizeof *without);
    float *with = malloc(r->bare.requests * sizeof *with);
    size_t n = 0;

    if (!without || !with) {
        free(without);
        free(with);
        return -1;
    }
    for (size_t i = 0; i < r->bare.requests; i++) {
        if (r->bare.position[i] >= r->cached.requests)
            continue; /* its time was over before it came to this one */
        without[n] = r->bare.us[i];
        with[n++] = r->cached.us[r->bare.position[i]];
    }
    r->compared = n;
    r->bare_mean = mean(without, n);
    r->cached_mean = mean(with, n);
    r->bare_p50 = percentile(without, n, 0.5);
    r->bare_p99 = percentile(without, n, 0.99);
    r->cached_p50 = percentile(with, n, 0.5);
    r->cached_p99 = percentile(with, n, 0.99);
    r->reduction = r->bare_mean > 0 ? 100 * (1 - r->cached_mean / r->bare_mean) : 0;
    free(without);
    free(with);
    return 0;
}

/* --------------------------------------------------------------------- table */

static double percent(uint64_t part, uint64_t all)
{
    return all ? 100.0 * (double)part / (double)all : 0;
}

static void row(FILE *out, const char *title, const struct answered *a, const float *us, size_t n,
                double hot)
{
    float *sorted = malloc((n ? n : 1) * sizeof *sorted);
    char hot_text[16] = "-";

    if (!sorted)
        return;
    memcpy(sorted, us, n * sizeof *sorted);
    if (hot >= 0)
        snprintf(hot_text, sizeof hot_text, "%.2f%%", hot);
    fprintf(out, "%-24s %9llu %8.2f%% %8.2f%% %8.2f%% %9s", title, (unsigned long long)a->requests,
            percent(a->memory, a->requests), percent(a->disk, a->requests),
            percent(a->loader, a->requests), hot_text);
    fprintf(out, " %9.1f", percentile(sorted, n, 0.5));
    fprintf(out, " %9.1f %9.1f\n", percentile(sorted, n, 0.99), mean(sorted, n));
    free(sorted);
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

void report_table(FILE *out, const struct demo_plan *plan, const struct results *r)
{
    const struct phase *c = &r->cached, *again = &r->restarted;
    size_t first = again->requests < DEMO_FIRST ? again->requests : DEMO_FIRST;
    double mean_all = mean(c->us, c->requests);
    double saved = (r->bare_mean - mean_all) * (double)c->requests / 1e6;

    fprintf(out, "\n%-24s %9s %9s %9s %9s %9s %9s %9s %9s\n", "phase", "requests", "memory",
            "sqlite", "loader", "hot part", "p50 us", "p99 us", "mean us");
    row(out, "1 without libperf", &r->bare.all, r->bare.us, r->bare.requests, -1);
    row(out, "2 with libperf", &c->all, c->us, c->requests, percent(c->hot_hits, c->hot_requests));
    row(out, "3 after a restart", &again->all, again->us, again->requests,
        percent(again->hot_hits, again->hot_requests));
    if (again->first.requests)
        row(out, "  its first requests", &again->first, again->us, first, -1);
    fprintf(
        out,
        "(memory, sqlite, loader: who answered. hot part: hit rate of requests for the %zu most\n"
        " requested packages, %.1f %% of all.)\n\n",
        plan->hot_keys, percent(c->hot_requests, c->requests));

    if (c->requests < r->wanted)
        fprintf(out, "Phase 2's time was over after %llu of the stream's %llu requests.\n\n",
                (unsigned long long)c->requests, (unsigned long long)r->wanted);
    fprintf(out, "the same %llu requests without and with, spread evenly over phase 2's stream:\n",
            (unsigned long long)r->compared);
    fprintf(out, "  p50                    %9.1f us -> %9.1f us\n", r->bare_p50, r->cached_p50);
    fprintf(out, "  p99                    %9.1f us -> %9.1f us\n", r->bare_p99, r->cached_p99);
    fprintf(out,
            "  mean                   %9.1f us -> %9.1f us   response time reduced by %.1f %%\n",
            r->bare_mean, r->cached_mean, r->reduction);
    fprintf(out, "time saved in phase 2    %9.1f s of %.1f s that %llu requests would have taken\n",
            saved, r->bare_mean * (double)c->requests / 1e6, (unsigned long long)c->requests);
    if (r->flight.requests)
        fprintf(out,
                "single flight            %9llu requests of %d threads for %llu cold keys ran the"
                " body %llu times;\n"
                "  loads suppressed       %9llu (%llu waited for the load under way, the others"
                " came after it)\n",
                (unsigned long long)r->flight.requests, DEMO_THREADS,
                (unsigned long long)r->flight.keys, (unsigned long long)r->flight.loads,
                (unsigned long long)(r->flight.requests - r->flight.loads),
                (unsigned long long)r->flight.waited);
    fprintf(out,
            "memory tier              %9.2f MiB of %.2f MiB (%.1f %%), %llu entries, %llu"
            " evictions\n",
            mib(c->bytes), mib(c->max_bytes), percent(c->bytes, c->max_bytes),
            (unsigned long long)c->entries, (unsigned long long)c->evictions);
    fprintf(out, "sqlite tier              %9.2f MiB, %llu records\n", mib(c->disk_bytes),
            (unsigned long long)c->disk_records);
}
