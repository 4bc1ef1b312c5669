/* SPDX-License-Identifier: MIT */
/*
 * case_queue.c - what a queue of durable tasks can do, without the workers around it.
 *
 *     case-queue FILE [memory|sqlite [normal|full [SECONDS [THREADS]]]]
 *
 * Prints tasks a second from submission to recorded end, each acknowledged before
 * its thread goes on, for 1, 4, 8 and 32 threads; and what one submission and one claim cost
 * with 10k, 100k and 1M tasks queued. With THREADS, only the first, for so many. Links the static
 * library: the queue is called below the public API.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../../src/task/queue.h"

enum { BATCH = 32, THREADS_MAX = 64 };

struct run {
    struct perf__task_queue *queue;
    struct perf__host *host;
    atomic_ullong submitted, ended;
    atomic_bool stop;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static perf_queue_task make_task(const char *id, const void *payload, size_t len)
{
    return (perf_queue_task){.struct_size = sizeof(perf_queue_task),
                             .id = id,
                             .queue = "default",
                             .kind = "resize",
                             .user = "",
                             .batch = "",
                             .rank = 1000,
                             .created_ms = 1000,
                             .due_ms = 1000,
                             .keep_ms = 1000000,
                             .max_attempts = 10,
                             .unique_key = "",
                             .limit_key = "",
                             .after = "",
                             .payload = {payload, len},
                             .worker = "",
                             .text = "",
                             .error = "",
                             .history = ""};
}

static void submit(struct run *run, const char *id)
{
    static const char payload[100] = "{}";
    perf_queue_task task = make_task(id, payload, sizeof payload);
    int status;
    char existing[72];
    if (perf__task_queue_enqueue(run->queue, &task, 1, NULL, 1000, &status, &existing) || status)
        die("enqueue");
}

static int claim(struct run *run, perf_queue_reply *reply, size_t max)
{
    static const char *const queue = "default";
    perf_queue_kind kind = {"resize", 0, 0};
    perf_queue_claim want = {.struct_size = sizeof want,
                             .queues = &queue,
                             .queues_count = 1,
                             .kinds = &kind,
                             .kinds_count = 1,
                             .max = max,
                             .worker = "host:1234",
                             .now_ms = 1000,
                             .lease_ms = 30000};
    int rc = perf__task_queue_claim(run->queue, &want, reply);
    if (rc < 0)
        die("claim");
    return rc;
}

/* Half of the threads submit, one task a call; the others claim a few and end them together. */
static void *work(void *arg)
{
    struct run *run = arg;
    perf_queue_reply reply = {.allocator = &run->host->allocator};
    while (!atomic_load(&run->stop)) {
        for (int i = 0; i < BATCH; i++) {
            char id[40];
            snprintf(id, sizeof id, "%016llx-abcdefgh", atomic_fetch_add(&run->submitted, 1));
            submit(run, id);
        }
        if (claim(run, &reply, BATCH) == PERF_OK) {
            perf_queue_end ends[BATCH];
            for (size_t i = 0; i < reply.count; i++)
                ends[i] = (perf_queue_end){.struct_size = sizeof *ends,
                                           .id = reply.tasks[i]->id,
                                           .token = reply.tasks[i]->token,
                                           .state = PERF_TASK_SUCCEEDED,
                                           .now_ms = 1001,
                                           .error = "",
                                           .result = {"done", 4}};
            if (perf__task_queue_finish(run->queue, ends, reply.count))
                die("finish");
            atomic_fetch_add(&run->ended, reply.count);
        }
        perf__queue_reply_free(&reply);
    }
    return NULL;
}

static void measure(struct run *run, int threads, double time)
{
    pthread_t ids[THREADS_MAX];
    atomic_store(&run->stop, false);
    unsigned long long before = atomic_load(&run->ended);
    double began = seconds(), cpu = cpu_seconds();
    for (int i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, work, run);
    usleep((useconds_t)(time * 1e6));
    atomic_store(&run->stop, true);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    double ended = (double)(atomic_load(&run->ended) - before);
    printf("%2d threads: %8.0f tasks/s, %6.1f us of processor time a task\n", threads,
           ended / (seconds() - began), (cpu_seconds() - cpu) / ended * 1e6);
    fflush(stdout);
}

static void fill(struct run *run, size_t from, size_t to)
{
    static char ids[1000][32];
    static perf_queue_task tasks[1000];
    static int statuses[1000];
    static char existing[1000][72];
    while (from < to) {
        size_t n = to - from < 1000 ? to - from : 1000;
        for (size_t i = 0; i < n; i++) {
            snprintf(ids[i], sizeof ids[i], "f%015zx", from + i);
            tasks[i] = make_task(ids[i], "{}", 2);
        }
        if (perf__task_queue_enqueue(run->queue, tasks, n, NULL, 1000, statuses, existing))
            die("fill");
        from += n;
    }
}

static void curve(struct run *run)
{
    static const size_t sizes[] = {10000, 100000, 1000000};
    size_t have = 0;
    for (size_t i = 0; i < 3; i++) {
        enum { ROUNDS = 2000 };
        double began = seconds();
        fill(run, have, sizes[i]);
        double filled = (seconds() - began) / (double)(sizes[i] - have);
        have = sizes[i];
        began = seconds();
        for (int j = 0; j < ROUNDS; j++) {
            char id[40];
            snprintf(id, sizeof id, "s%zu-%d", i, j);
            submit(run, id);
        }
        double submitted = (seconds() - began) / ROUNDS;
        perf_queue_reply reply = {.allocator = &run->host->allocator};
        began = seconds();
        for (int j = 0; j < ROUNDS; j++) {
            if (claim(run, &reply, 1) != PERF_OK)
                die("claim");
            perf__queue_reply_free(&reply);
        }
        printf("%8zu queued: submit %6.2f us alone, %5.2f us of a thousand; claim %6.2f us\n",
               sizes[i], submitted * 1e6, filled * 1e6, (seconds() - began) / ROUNDS * 1e6);
        fflush(stdout);
    }
}

static struct perf__task_queue *open_queue(struct perf__host *host, char **argv, int argc)
{
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    char name[4096];
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", argv[1], ends[i]);
        unlink(name);
    }
    options.location = argv[1];
    options.backend = argc > 2 ? argv[2] : "sqlite";
    options.sync = argc > 3 && !strcmp(argv[3], "full") ? PERF_SYNC_FULL : PERF_SYNC_NORMAL;
    if (perf__task_queue_open(&options, host, &queue))
        die("open");
    return queue;
}

int main(int argc, char **argv)
{
    static struct perf__host host;
    static struct run run;
    if (argc < 2 || perf__host_take(NULL, &host)) {
        fprintf(stderr, "usage: %s FILE [memory|sqlite [normal|full [SECONDS [THREADS]]]]\n",
                argv[0]);
        return 2;
    }
    double time = argc > 4 ? atof(argv[4]) : 2;
    run.host = &host;
    run.queue = open_queue(&host, argv, argc);
    static const int each[] = {1, 4, 8, 32};
    int only = argc > 5 ? atoi(argv[5]) : 0;
    if (only > THREADS_MAX)
        only = THREADS_MAX;
    for (size_t i = 0; !only && i < sizeof each / sizeof *each; i++)
        measure(&run, each[i], time);
    if (only > 0)
        measure(&run, only, time);
    perf__task_queue_close(run.queue);
    if (only > 0)
        return 0;
    run.queue = open_queue(&host, argv, argc);
    curve(&run);
    perf__task_queue_close(run.queue);
    return 0;
}
