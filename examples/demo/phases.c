/* SPDX-License-Identifier: MIT */
/*
 * phases.c - answers the stream without libperf and with it, and measures.
 *
 * The stream is answered by one thread, so that a latency is the answer's own;
 * the part about single flight has a barrier before each cold key, behind which
 * all its threads ask at once.
 */
#include "demo.h"

#include <libperf/perf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double demo_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int phase_begin(struct phase *phase, size_t requests)
{
    memset(phase, 0, sizeof *phase);
    phase->us = malloc(requests * sizeof *phase->us);
    phase->position = malloc(requests * sizeof *phase->position);
    return phase->us && phase->position ? 0 : -1;
}

void phase_free(struct phase *phase)
{
    free(phase->us);
    free(phase->position);
    memset(phase, 0, sizeof *phase);
}

/* Asks for one package and notes how long it took; 1 when the body ran for it. */
static int ask(struct phase *phase, const struct package_index *index, const struct stream *stream,
               size_t position)
{
    struct closure answer;
    uint64_t runs = closure_runs_here();
    double began = demo_now();
    int rc = ask_closure(index->names[stream->keys[position]], &answer);

    phase->us[phase->requests] = (float)((demo_now() - began) * 1e6);
    phase->position[phase->requests] = (uint32_t)position;
    phase->requests++;
    phase->failures += rc != PERF_OK;
    return closure_runs_here() != runs;
}

/*
 * The whole stream would take minutes, so a sample is answered, spread evenly
 * over the stream: multiples of the golden ratio, modulo 1, which are even at
 * whichever of them the time is over.
 */
int phase_bare(const struct demo_plan *plan, const struct package_index *index,
               const struct stream *stream, struct phase *phase)
{
    unsigned char *seen = calloc(stream->count, 1);
    double began = demo_now(), at = 0, now = began;

    if (phase_begin(phase, stream->count) != 0 || !seen) {
        free(seen);
        return -1;
    }
    perf_cache_set_default(NULL);
    for (size_t i = 0; i < stream->count && !demo_interrupted; i++) {
        size_t position = (size_t)(at * (double)stream->count);

        at += 0.6180339887498949;
        at -= at >= 1;
        if (seen[position])
            continue;
        seen[position] = 1;
        ask(phase, index, stream, position);
        now = demo_now();
        if (now - began > plan->bare_seconds)
            break;
        progress("1. without libperf", now - began, plan->bare_seconds);
    }
    progress("1. without libperf", 1, 1);
    phase->seconds = now - began;
    phase->all.requests = phase->all.loader = phase->requests;
    free(seen);
    return demo_interrupted ? -1 : 0;
}

/* ------------------------------------------------------------- single flight */

struct team {
    const struct package_index *index;
    const uint32_t *keys;
    size_t count;
    pthread_mutex_t gate; /* closed until all have been started */
    pthread_barrier_t barrier;
    atomic_uint_fast64_t failures;
};

static void *ask_together(void *arg)
{
    struct team *team = arg;
    struct closure answer;

    pthread_mutex_lock(&team->gate);
    pthread_mutex_unlock(&team->gate);
    for (size_t i = 0; i < team->count; i++) {
        pthread_barrier_wait(&team->barrier);
        if (ask_closure(team->index->names[team->keys[i]], &answer) != PERF_OK)
            team->failures++;
    }
    closure_thread_end();
    return NULL;
}

/* Packages that the stream never asks for and that depend on a good deal. */
static size_t find_cold(const struct package_index *index, const struct stream *stream,
                        uint32_t *cold, size_t wanted)
{
    unsigned char *asked = calloc(index->count, 1);
    uint64_t random = 7;
    size_t found = 0;

    if (!asked)
        return 0;
    for (size_t i = 0; i < stream->count; i++)
        asked[stream->keys[i]] = 1;
    perf_cache *cache = perf_cache_set_default(NULL); /* look without leaving a trace */
    for (size_t tries = 0; found < wanted && tries < wanted * 20; tries++) {
        uint32_t package = (uint32_t)(demo_random(&random) % index->count);
        struct closure answer;

        if (asked[package] || ask_closure(index->names[package], &answer) != PERF_OK)
            continue;
        if (answer.packages < 40 && tries < wanted * 15)
            continue;
        asked[package] = 1;
        cold[found++] = package;
    }
    perf_cache_set_default(cache);
    free(asked);
    return found;
}

static int run_flight(perf_cache *cache, const struct demo_plan *plan,
                      const struct package_index *index, const struct stream *stream,
                      struct flight *flight)
{
    perf_cache_stats before = PERF_CACHE_STATS_INIT, after = PERF_CACHE_STATS_INIT;
    uint32_t *cold = malloc(plan->cold_keys * sizeof *cold);
    struct team team = {.index = index, .keys = cold, .gate = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[DEMO_THREADS];
    size_t started = 0;
    uint64_t runs;
    int rc = -1;

    if (!cold)
        return -1;
    team.count = find_cold(index, stream, cold, plan->cold_keys);
    if (pthread_barrier_init(&team.barrier, NULL, DEMO_THREADS) != 0)
        goto out;
    runs = closure_runs();
    perf_cache_get_stats(cache, NULL, &before);
    pthread_mutex_lock(&team.gate);
    while (started < DEMO_THREADS &&
           pthread_create(&threads[started], NULL, ask_together, &team) == 0)
        started++;
    if (started < DEMO_THREADS)
        team.count = 0; /* too few to pass the barrier */
    pthread_mutex_unlock(&team.gate);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    pthread_barrier_destroy(&team.barrier);
    perf_cache_get_stats(cache, NULL, &after);
    flight->keys = team.count;
    flight->requests = team.count * DEMO_THREADS;
    flight->loads = closure_runs() - runs;
    flight->waited = after.loads_suppressed - before.loads_suppressed;
    flight->failures = team.failures;
    rc = team.count ? 0 : -1;
    if (rc != 0)
        fprintf(stderr, "demo: no cold packages, or too few threads, for the single flight part\n");
out:
    free(cold);
    return rc;
}

/* ---------------------------------------------------------------- with libperf */

/* From the cache's own statistics; loader calls are counted by whoever made them. */
static void count_answers(perf_cache *cache, const struct phase *phase, uint64_t loads,
                          struct answered *answered)
{
    perf_cache_stats stats = PERF_CACHE_STATS_INIT;

    perf_cache_get_stats(cache, NULL, &stats);
    answered->requests = phase->requests;
    answered->memory = stats.memory_hits;
    answered->loader = loads;
    answered->disk = stats.hits > stats.memory_hits ? stats.hits - stats.memory_hits : 0;
}

int phase_cached(const char *durable, const char *title, const struct demo_plan *plan,
                 const struct package_index *index, const struct stream *stream,
                 struct phase *phase, struct flight *flight)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_cache_stats stats = PERF_CACHE_STATS_INIT;
    perf_tier_stats tier = PERF_TIER_STATS_INIT;
    perf_cache *cache = NULL;
    double began, now;
    uint64_t loads = 0;
    int ran, rc = -1;

    options.memory_max_bytes = plan->memory_bytes;
    options.durable_path = durable;
    if (phase_begin(phase, stream->count) != 0)
        return -1;
    if (perf_cache_open(&options, &cache) != PERF_OK) {
        fprintf(stderr, "demo: cannot open the cache: %s\n", perf_last_error());
        return -1;
    }
    perf_cache_set_default(cache);
    now = began = demo_now();
    for (size_t i = 0; i < stream->count && !demo_interrupted; i++) {
        ran = ask(phase, index, stream, i);
        loads += (uint64_t)ran;
        phase->hot_requests += stream->is_hot[stream->keys[i]];
        phase->hot_hits += stream->is_hot[stream->keys[i]] && !ran;
        if (i + 1 == DEMO_FIRST)
            count_answers(cache, phase, loads, &phase->first);
        if (ran || i % 256 == 0) {
            now = demo_now();
            if (now - began > plan->cached_seconds)
                break;
            progress(title, (double)i, (double)stream->count);
        }
    }
    phase->seconds = demo_now() - began;
    count_answers(cache, phase, loads, &phase->all);
    progress(title, 1, 1);
    perf_cache_get_stats(cache, NULL, &stats);
    phase->bytes = stats.bytes;
    phase->max_bytes = stats.max_bytes;
    phase->entries = stats.entries;
    phase->evictions = stats.evictions;
    if (perf_cache_get_tier_stats(cache, 0, &tier) == PERF_OK) {
        phase->disk_records = tier.records;
        phase->disk_bytes = tier.bytes;
    }
    rc = flight && !demo_interrupted ? run_flight(cache, plan, index, stream, flight) : 0;
    perf_cache_set_default(NULL);
    if (perf_cache_close(cache) != PERF_OK) {
        fprintf(stderr, "demo: closing the cache: %s\n", perf_last_error());
        rc = -1;
    }
    return demo_interrupted ? -1 : rc;
}

/* --------------------------------------------------- across the process restart */

int phase_save(const struct phase *phase, const char *path)
{
    FILE *out = fopen(path, "wb");
    int failed;

    if (!out)
        return -1;
    failed = fwrite(phase, sizeof *phase, 1, out) != 1;
    failed |= fwrite(phase->us, sizeof *phase->us, phase->requests, out) != phase->requests;
    failed |= fclose(out) != 0;
    return failed ? -1 : 0;
}

int phase_restore(const char *path, size_t max_requests, struct phase *phase)
{
    FILE *in = fopen(path, "rb");
    int rc = -1;

    memset(phase, 0, sizeof *phase);
    if (!in)
        return -1;
    if (fread(phase, sizeof *phase, 1, in) == 1 && phase->requests <= max_requests) {
        phase->position = NULL; /* the other process's pointers mean nothing here */
        phase->us = malloc(phase->requests * sizeof *phase->us);
        if (phase->us &&
            fread(phase->us, sizeof *phase->us, phase->requests, in) == phase->requests)
            rc = 0;
    } else {
        memset(phase, 0, sizeof *phase);
    }
    fclose(in);
    return rc;
}
