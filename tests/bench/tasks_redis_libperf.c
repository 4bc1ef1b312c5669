/* SPDX-License-Identifier: MIT */
/*
 * tasks_redis_libperf.c - our durable queue in Redis for bench-task-redis.
 *
 *     tasks-redis-libperf PORT WORKERS TASKS BATCH
 *
 * One thread submits empty tasks by BATCH at once, WORKERS threads claim up to BATCH and
 * end them; prints tasks a second from the first submission to the last end.
 * It measures the queue below perf_tasks, so it links the static library.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/task/queue.h"

enum { BATCH_MAX = 512, WORKERS_MAX = 64 };

static struct {
    struct perf__host host;
    struct perf__task_queue *queue;
    long tasks, batch;
    atomic_long ended;
} run;

static void must(int rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s\n", perf_last_error());
    exit(1);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *work(void *arg)
{
    perf_queue_reply reply = {.allocator = &run.host.allocator};
    perf_queue_end ends[BATCH_MAX];
    const char *name = "default";
    perf_queue_kind kind = {"empty", 0, 0};
    (void)arg;
    while (run.ended < run.tasks) {
        perf_queue_claim want = {sizeof want,       &name,     1,        &kind, 1,
                                 (size_t)run.batch, "bench:1", now_ms(), 30000};
        int rc = perf__task_queue_claim(run.queue, &want, &reply);
        must(rc);
        if (rc == PERF_MISS) {
            must(perf__task_queue_wait(run.queue, 100));
            continue;
        }
        for (size_t i = 0; i < reply.count; i++)
            ends[i] = (perf_queue_end){.struct_size = sizeof *ends,
                                       .id = reply.tasks[i]->id,
                                       .token = reply.tasks[i]->token,
                                       .state = PERF_TASK_SUCCEEDED,
                                       .now_ms = now_ms(),
                                       .error = ""};
        must(perf__task_queue_finish(run.queue, ends, reply.count));
        run.ended += (long)reply.count;
        perf__queue_reply_free(&reply);
    }
    perf__task_queue_wake(run.queue);
    return NULL;
}

static void submit(void)
{
    static perf_queue_task tasks[BATCH_MAX];
    static char ids[BATCH_MAX][40];
    static int statuses[BATCH_MAX];
    long at_once = run.batch;
    for (long n = 0; n < run.tasks; n += at_once) {
        size_t count = 0;
        int64_t now = now_ms();
        for (; count < (size_t)at_once && n + (long)count < run.tasks; count++) {
            snprintf(ids[count], sizeof ids[count], "0123456789abcdef%08lx", n + (long)count);
            tasks[count] = (perf_queue_task){.struct_size = sizeof *tasks,
                                             .id = ids[count],
                                             .queue = "default",
                                             .kind = "empty",
                                             .user = "",
                                             .batch = "",
                                             .rank = now,
                                             .created_ms = now,
                                             .due_ms = now,
                                             .keep_ms = 604800000,
                                             .max_attempts = 10,
                                             .unique_key = "",
                                             .limit_key = "",
                                             .after = ""};
        }
        must(perf__task_queue_enqueue(run.queue, tasks, count, NULL, now, statuses, NULL));
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS_MAX];
    char location[64];
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    if (argc != 5)
        return 2;
    int workers = atoi(argv[2]);
    run.tasks = atol(argv[3]);
    run.batch = atol(argv[4]);
    if (workers < 1 || workers > WORKERS_MAX || run.batch < 1 || run.batch > BATCH_MAX)
        return 2;
    snprintf(location, sizeof location, "redis://127.0.0.1:%s", argv[1]);
    options.backend = "redis";
    options.location = location;
    must(perf__host_take(NULL, &run.host));
    must(perf__task_queue_open(&options, &run.host, &run.queue));
    double begin = seconds();
    for (int i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            return 1;
    submit();
    double submitted = seconds();
    for (int i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
    double ended = seconds();
    printf("{\"per_s\": %.0f, \"submit_per_s\": %.0f}\n", (double)run.tasks / (ended - begin),
           (double)run.tasks / (submitted - begin));
    perf__task_queue_close(run.queue);
    return 0;
}
