/* SPDX-License-Identifier: MIT */
/*
 * subject_libperf.c - our subject: the memory tier through the public API, as a host links it
 * (the shared library, get_copy, set, get_many).
 */
#include <libperf/cache.h>

#include "subject.h"

static const char space[] = "bench";
static perf_cache *cache;

static void check(int status, const char *what)
{
    if (status != PERF_OK) {
        fprintf(stderr, "libperf: %s: %s: %s\n", what, perf_strerror(status), perf_last_error());
        exit(1);
    }
}

static void subject_open(const struct bench *b)
{
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    /* The number of entries is the bound, as for the peers; bytes are ample. */
    options.memory_max_entries = b->capacity;
    options.memory_max_bytes = (uint64_t)b->capacity * 256 + ((uint64_t)64 << 20);
    check(perf_cache_open(&options, &cache), "open");
}

static int subject_get(const struct bench_key *key, struct bench_value *out)
{
    size_t len;
    return perf_cache_get_copy(cache, space, NULL, key, sizeof *key, out, sizeof *out, &len) ==
           PERF_OK;
}

static void subject_get_batch(const struct bench_key *keys, struct bench_value *out, int *found)
{
    perf_lookup items[BENCH_BATCH];
    for (int i = 0; i < BENCH_BATCH; i++) {
        items[i] = (perf_lookup){
            .key = &keys[i], .key_len = sizeof keys[i], .buf = &out[i], .cap = sizeof out[i]};
    }
    check(perf_cache_get_many(cache, space, NULL, items, BENCH_BATCH, NULL), "get_many");
    for (int i = 0; i < BENCH_BATCH; i++) {
        found[i] = items[i].status == PERF_OK;
    }
}

static void subject_set(const struct bench_key *key, const struct bench_value *value)
{
    check(perf_cache_set(cache, space, NULL, key, sizeof *key, value, sizeof *value,
                         PERF_TTL_FOREVER),
          "set");
}

int main(int argc, char **argv)
{
    int status = bench_main(argc, argv);
    perf_cache_close(cache);
    return status;
}
