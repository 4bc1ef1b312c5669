/* SPDX-License-Identifier: MIT */
/*
 * task_durable.c - durable tasks through the public API: submitted, run and recorded.
 *
 *     task-durable BACKEND LOCATION THREADS TASKS
 *
 * THREADS threads submit TASKS empty tasks, each acknowledged before its thread goes on, while
 * the workers of the same process run them. Prints {"per_s": tasks a second until the last end
 * is recorded, "submit_us": a submission's median}.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libperf/task.h>

enum { THREADS_MAX = 64 };

static perf_tasks *tasks;
static uint64_t each;
static uint32_t *took_ns[THREADS_MAX];

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int nothing(perf_run *run, void *unused)
{
    (void)run;
    (void)unused;
    return PERF_OK;
}

static void *submit(void *number)
{
    uint32_t *took = took_ns[(uintptr_t)number];
    for (uint64_t i = 0; i < each; i++) {
        uint64_t at = now();
        if (perf_tasks_submit(tasks, "nothing", "payload", 7, NULL, NULL))
            die("perf_tasks_submit");
        took[i] = (uint32_t)(now() - at);
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    perf_tasks_stats stats = PERF_TASKS_STATS_INIT;
    pthread_t ids[THREADS_MAX];
    if (argc != 5) {
        fprintf(stderr, "usage: %s BACKEND LOCATION THREADS TASKS\n", argv[0]);
        return 2;
    }
    uintptr_t threads = strtoul(argv[3], NULL, 10);
    if (!threads || threads > THREADS_MAX)
        return 2;
    each = strtoull(argv[4], NULL, 10) / threads;
    options.backend = argv[1];
    options.location = argv[2];
    if (perf_tasks_open(&options, &tasks) ||
        perf_tasks_handle(tasks, "nothing", nothing, NULL, NULL) || perf_tasks_start(tasks))
        die("perf_tasks_open");
    for (uintptr_t i = 0; i < threads; i++)
        if (!(took_ns[i] = malloc(each * sizeof(uint32_t))))
            return 1;
    uint64_t begun = now();
    for (uintptr_t i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, submit, (void *)i);
    for (uintptr_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    do {
        nanosleep(&(struct timespec){0, 500000}, NULL);
        if (perf_tasks_get_stats(tasks, &stats))
            die("perf_tasks_get_stats");
    } while (stats.succeeded < each * threads);
    double seconds = (double)(now() - begun) / 1e9;
    qsort(took_ns[0], each, sizeof(uint32_t), compare);
    printf("{\"per_s\": %.0f, \"submit_us\": %.1f}\n", (double)(each * threads) / seconds,
           took_ns[0][each / 2] / 1000.0);
    return perf_tasks_close(tasks, 1000) ? 1 : 0;
}
