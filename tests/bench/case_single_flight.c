/* SPDX-License-Identifier: MIT */
/*
 * case_single_flight.c - 64 threads ask for one cold key at the same moment; how often does the
 * loader run? Each run takes a fresh key. The loader works for 50 ms, as a slow query would.
 */
#include <libperf/cache.h>

#include <stdatomic.h>

#include "protocol.h"

#define THREADS 64

static perf_cache *cache;
static pthread_barrier_t barrier;
static atomic_uint loads;
static atomic_uint answers;

static int load(perf_load *load_handle, void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&loads, 1);
    nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    return perf_load_set(load_handle, "value", 5);
}

static void *work(void *arg)
{
    const uint64_t *key = arg;
    perf_loader loader = PERF_LOADER_INIT;
    loader.load = load;
    perf_value *value;
    pthread_barrier_wait(&barrier);
    if (perf_cache_get_or_load(cache, "flight", NULL, key, sizeof *key, &loader, &value) ==
        PERF_OK) {
        if (perf_value_size(value) == 5 && memcmp(perf_value_data(value), "value", 5) == 0) {
            atomic_fetch_add(&answers, 1);
        }
        perf_value_release(value);
    }
    return NULL;
}

int main(void)
{
    if (perf_cache_open(NULL, &cache) != PERF_OK) {
        fprintf(stderr, "case-single-flight: %s\n", perf_last_error());
        return 1;
    }
    bench_ready();
    for (uint64_t key = 0; bench_next_run(); key++) {
        pthread_t threads[THREADS];
        atomic_store(&loads, 0);
        atomic_store(&answers, 0);
        pthread_barrier_init(&barrier, NULL, THREADS);
        for (int t = 0; t < THREADS; t++) {
            if (pthread_create(&threads[t], NULL, work, &key) != 0) {
                bench_die("pthread_create");
            }
        }
        for (int t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
        }
        pthread_barrier_destroy(&barrier);
        printf("{\"loads\":%u,\"answers\":%u,\"threads\":%d}\n", atomic_load(&loads),
               atomic_load(&answers), THREADS);
        fflush(stdout);
    }
    perf_cache_close(cache);
    return 0;
}
