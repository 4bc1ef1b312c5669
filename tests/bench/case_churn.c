/* SPDX-License-Identifier: MIT */
/*
 * case_churn.c - does resident memory keep to the limit? Ten million operations, half sets and
 * half gets, by two threads over 200,000 keys with values of 64 B to 64 KiB (log-uniform), many
 * times what fits.
 *
 * usage: case-churn PATTERN LIMIT_MIB OPS
 *
 * PATTERN uniform draws all sizes all the time; drift changes in five phases (all, small, large,
 * small, all), which is what strands memory in allocators that keep sizes apart.
 *
 * Prints the greatest resident memory of the whole process and by how much it is above
 * limit * 1.05 (the aim: at most 16 MiB; negative is below).
 */
#include <libperf/cache.h>

#include <math.h>

#include "protocol.h"

#define KEYS      200000
#define THREADS   2
#define MAX_VALUE 65536

static perf_cache *cache;
static size_t ops_per_thread;
static int drift;

struct worker {
    uint64_t random;
    uint64_t hits;
    uint64_t failures;
};

static uint64_t next_random(uint64_t *state)
{
    return bench_splitmix64((*state)++);
}

/* Bounds of the sizes, as exponents of two, in one fifth of the run. */
static size_t draw_size(struct worker *w, size_t phase)
{
    static const double low[] = {6, 6, 13, 6, 6};
    static const double high[] = {16, 9, 16, 9, 16};
    size_t p = drift ? phase : 0;
    double unit = (double)(next_random(&w->random) >> 11) * 0x1p-53;
    return (size_t)exp2(low[p] + unit * (high[p] - low[p]));
}

static void *work(void *arg)
{
    struct worker *w = arg;
    static const unsigned char source[MAX_VALUE]; /* what is stored does not matter */
    unsigned char *out = malloc(MAX_VALUE);
    if (out == NULL) {
        bench_die("malloc");
    }
    for (size_t n = 0; n < ops_per_thread; n++) {
        uint64_t r = next_random(&w->random);
        uint64_t key = bench_splitmix64((r >> 8) % KEYS);
        if ((r & 1) != 0) {
            int rc = perf_cache_set(cache, "churn", NULL, &key, sizeof key, source,
                                    draw_size(w, n * 5 / ops_per_thread), PERF_TTL_FOREVER);
            w->failures += rc != PERF_OK;
        } else {
            size_t len;
            w->hits += perf_cache_get_copy(cache, "churn", NULL, &key, sizeof key, out, MAX_VALUE,
                                           &len) == PERF_OK;
        }
    }
    free(out);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: case-churn uniform|drift LIMIT_MIB OPS\n");
        return 2;
    }
    drift = strcmp(argv[1], "drift") == 0;
    double limit = strtod(argv[2], NULL) * 0x1p20;
    ops_per_thread = (size_t)strtoul(argv[3], NULL, 10) / THREADS;

    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.memory_max_bytes = (uint64_t)limit;
    if (perf_cache_open(&options, &cache) != PERF_OK) {
        fprintf(stderr, "case-churn: %s\n", perf_last_error());
        return 1;
    }
    bench_ready();
    while (bench_next_run()) {
        pthread_t threads[THREADS];
        struct worker workers[THREADS];
        uint64_t begin = bench_now_ns();
        for (int t = 0; t < THREADS; t++) {
            workers[t] = (struct worker){.random = (uint64_t)t << 40};
            if (pthread_create(&threads[t], NULL, work, &workers[t]) != 0) {
                bench_die("pthread_create");
            }
        }
        struct worker sum = {0, 0, 0};
        for (int t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
            sum.hits += workers[t].hits;
            sum.failures += workers[t].failures;
        }
        double ns = (double)(bench_now_ns() - begin) / (double)ops_per_thread;
        double peak = bench_peak_rss_bytes();
        printf("{\"ns\":%.1f,\"hits\":%" PRIu64 ",\"failures\":%" PRIu64
               ",\"limit_mib\":%.1f,\"max_rss_mib\":%.1f,\"above_mib\":%.1f}\n",
               ns, sum.hits, sum.failures, limit * 0x1p-20, peak * 0x1p-20,
               (peak - limit * 1.05) * 0x1p-20);
        fflush(stdout);
    }
    perf_cache_close(cache);
    return 0;
}
