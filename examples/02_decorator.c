/* SPDX-License-Identifier: MIT */
/*
 * 02_decorator.c - PERF_CACHED: a function whose body runs only on a miss, and
 * once for all threads that wait for the same arguments.
 *
 * Shows: keys made of typed arguments, "no such thing", forgetting one result
 * and all of them, and that without a cache the function simply runs.
 */
#include <libperf/perf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct course {
    uint64_t id;
    char title[48];
};

static atomic_int bodies_run;

PERF_CACHED(get_course, struct course, "courses", 300000, (uint64_t, id), (const char *, lang))
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* a slow database */
    bodies_run++;
    if (id == 0)
        return PERF_MISS;
    out->id = id;
    snprintf(out->title, sizeof out->title, "%s %d", strcmp(lang, "de") ? "course" : "Kurs",
             (int)id);
    return PERF_OK;
}

static void show(uint64_t id, const char *lang)
{
    struct course c;
    int before = bodies_run;
    int rc = get_course(id, lang, &c);

    printf("  get_course(%d, %s) -> %-16s %s\n", (int)id, lang,
           rc == PERF_OK ? c.title : perf_strerror(rc), bodies_run > before ? "ran" : "cached");
}

static void *ask(void *arg)
{
    struct course c;

    (void)arg;
    return get_course(99, "en", &c) == PERF_OK ? NULL : &bodies_run;
}

int main(void)
{
    PERF_AUTO(perf_cache) cache = NULL;
    pthread_t threads[8];
    void *failed = NULL, *result;
    size_t started = 0;

    puts("without a cache the body runs each time:");
    show(42, "en");
    show(42, "en");

    if (perf_cache_open(NULL, &cache) != PERF_OK)
        return 1;
    perf_cache_set_default(cache);

    puts("with one:");
    show(42, "en");
    show(42, "en");
    show(42, "de");
    show(0, "en");

    puts("forgetting one result, then all of the function's:");
    PERF_FORGET(get_course)(42, "en");
    show(42, "en");
    show(42, "de");
    perf_cache_invalidate_pattern(cache, "courses", "get_course:*");
    show(42, "de");

    int before = bodies_run;
    while (started < 8 && !pthread_create(&threads[started], NULL, ask, NULL))
        started++;
    for (size_t i = 0; i < started; i++) {
        pthread_join(threads[i], &result);
        failed = result ? result : failed;
    }
    printf("%zu threads asked at once, the body ran %d time(s)\n", started, bodies_run - before);

    perf_cache_set_default(NULL);
    return failed != NULL;
}
