/* SPDX-License-Identifier: MIT */
/*
 * queue_crash.c - kill -9 at random moments of who uses a queue; see queue_crash.h.
 *
 * The test starts itself again as two children at once (told so by environment
 * variables, and caught before main), which submit, claim and finish with several
 * threads on one queue and report each acknowledged step through a pipe. The parent
 * kills both, opens the queue and looks. Time is that of the round: leases of the one
 * before have passed.
 */
#include "queue_crash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/base/hash.h"
#include "queue_conformance.h"
#include "seams.h"
#include "test.h"

enum {
    CHILDREN = 2,
    THREADS = 3,
    ACK_FD = 3,
    LEASE = 1000,
    ROUND_MS = 10000,
    NUMBERS = 1 << 20,
    AT_ONCE = 4
};

enum step { SUBMITTED = 1, FINISHED = 2 };

struct ack {
    uint64_t step, n;
};

static struct perf__task_queue *open_queue(const struct queue_crash *at, struct perf__host *host)
{
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.backend = at->backend;
    options.location = at->location;
    if (perf__host_take(NULL, host) || perf__task_queue_open(&options, host, &queue)) {
        fprintf(stderr, "%s\n", perf_last_error());
        return NULL;
    }
    return queue;
}

static int claim_some(struct perf__task_queue *queue, int64_t now, perf_queue_reply *reply)
{
    const char *name = "q";
    perf_queue_kind kind = {"k", 0, 0};
    perf_queue_claim want = {sizeof want, &name, 1, &kind, 1, AT_ONCE, "w", now, LEASE};
    return perf__task_queue_claim(queue, &want, reply);
}

static int64_t finish_one(struct perf__task_queue *queue, const perf_queue_task *task, int64_t now)
{
    perf_queue_end end = {.struct_size = sizeof end,
                          .id = task->id,
                          .token = task->token,
                          .state = PERF_TASK_SUCCEEDED,
                          .now_ms = now,
                          .error = "",
                          .result = task->payload};
    int rc = perf__task_queue_finish(queue, &end, 1);
    return rc ? rc : end.outcome;
}

/* --------------------------------------------------------------------- child */

static struct {
    struct perf__task_queue *queue;
    struct perf__host host;
    int64_t now;
} child;

static void acknowledge(enum step step, uint64_t n)
{
    struct ack ack = {step, n};
    if (write(ACK_FD, &ack, sizeof ack) != (ssize_t)sizeof ack) /* whole: shorter than PIPE_BUF */
        _exit(3);
}

static void *work_for_ever(void *arg)
{
    perf_queue_reply reply = {.allocator = &child.host.allocator};
    for (uint64_t n = *(uint64_t *)arg;; n += (uint64_t)THREADS * CHILDREN) {
        char id[24];
        int status;
        perf_queue_task task = test_queue_task(id, child.now);
        snprintf(id, sizeof id, "%llu", (unsigned long long)n);
        task.keep_ms = INT64_MAX;
        task.max_attempts = -1;
        task.payload = (perf_bytes){id, strlen(id)};
        if (perf__task_queue_enqueue(child.queue, &task, 1, NULL, child.now, &status, NULL))
            _exit(2);
        acknowledge(SUBMITTED, n);
        int rc = claim_some(child.queue, child.now, &reply);
        if (rc < 0)
            _exit(4);
        for (size_t i = 0; rc == PERF_OK && i < reply.count; i++) {
            if (finish_one(child.queue, reply.tasks[i], child.now))
                _exit(5);
            acknowledge(FINISHED, strtoull(reply.tasks[i]->id, NULL, 10));
        }
        perf__queue_reply_free(&reply);
    }
    return NULL;
}

__attribute__((constructor)) static void become_the_child(void)
{
    const struct queue_crash at = {getenv("PERF_QUEUE_CRASH_BACKEND"),
                                   getenv("PERF_QUEUE_CRASH_LOCATION")};
    const char *first = getenv("PERF_QUEUE_CRASH_FIRST");
    const char *now = getenv("PERF_QUEUE_CRASH_NOW");
    if (!at.backend || !at.location || !first || !now)
        return;
    static uint64_t numbers[THREADS];
    perf_queue_swept swept;
    child.now = strtoll(now, NULL, 10);
    child.queue = open_queue(&at, &child.host);
    if (!child.queue || perf__task_queue_sweep(child.queue, child.now, 100000, &swept))
        _exit(6);
    pthread_t thread;
    for (uint64_t i = 0; i < THREADS; i++) {
        numbers[i] = strtoull(first, NULL, 10) + i * CHILDREN;
        if (pthread_create(&thread, NULL, work_for_ever, &numbers[i]))
            _exit(7);
    }
    pthread_join(thread, NULL);
    _exit(8);
}

/* -------------------------------------------------------------------- parent */

static pid_t start_child(const struct queue_crash *at, uint64_t first, int64_t now, int acks)
{
    char number[32], time[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)first);
    snprintf(time, sizeof time, "%lld", (long long)now);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (!pid) {
        setenv("PERF_QUEUE_CRASH_BACKEND", at->backend, 1);
        setenv("PERF_QUEUE_CRASH_LOCATION", at->location, 1);
        setenv("PERF_QUEUE_CRASH_FIRST", number, 1);
        setenv("PERF_QUEUE_CRASH_NOW", time, 1);
        if (acks == ACK_FD ? fcntl(ACK_FD, F_SETFD, 0) : dup2(acks, ACK_FD) < 0)
            _exit(9);
        execl("/proc/self/exe", "crash", (char *)NULL);
        _exit(10);
    }
    return pid;
}

static bool read_ack(int acks, struct ack *ack)
{
    ssize_t got;
    do
        got = read(acks, ack, sizeof *ack);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof *ack;
}

struct journal {
    unsigned char submitted[NUMBERS], finished[NUMBERS];
    uint64_t next, submits, ends;
};

static void note(struct journal *j, struct ack ack)
{
    cr_assert(ack.n < NUMBERS);
    if (ack.step == SUBMITTED) {
        j->submitted[ack.n]++;
        j->submits++;
    } else {
        j->finished[ack.n]++;
        j->ends++;
    }
    if (ack.n >= j->next)
        j->next = ack.n + 1;
}

static void check_all(struct journal *j, const struct queue_crash *at, bool drained)
{
    struct perf__host host;
    struct perf__task_queue *queue = open_queue(at, &host);
    cr_assert(queue != NULL);
    perf_queue_reply reply = {.allocator = &host.allocator};
    for (uint64_t n = 0; n < j->next; n++) {
        char id[24];
        snprintf(id, sizeof id, "%llu", (unsigned long long)n);
        cr_assert(j->finished[n] <= 1, "task %s ended %d times", id, j->finished[n]);
        if (!j->submitted[n] && !j->finished[n])
            continue;
        cr_assert(perf__task_queue_get(queue, id, &reply) == PERF_OK, "submitted %s is gone: %s",
                  id, perf_last_error());
        const perf_queue_task *t = reply.tasks[0];
        cr_assert(t->payload.len == strlen(id) && !memcmp(t->payload.data, id, strlen(id)));
        if (j->finished[n] || drained)
            cr_assert(t->state == PERF_TASK_SUCCEEDED, "the end of %s is gone", id);
        if (t->state == PERF_TASK_SUCCEEDED)
            cr_assert(t->result.len == strlen(id) && !memcmp(t->result.data, id, strlen(id)));
        perf__queue_reply_free(&reply);
    }
    perf__task_queue_close(queue);
}

/* What is left is done by the parent, once each. */
static void drain(struct journal *j, const struct queue_crash *at, int64_t now)
{
    struct perf__host host;
    struct perf__task_queue *queue = open_queue(at, &host);
    cr_assert(queue != NULL);
    perf_queue_reply reply = {.allocator = &host.allocator};
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(queue, now, 1000000, &swept) == PERF_OK);
    while (claim_some(queue, now, &reply) == PERF_OK) {
        for (size_t i = 0; i < reply.count; i++) {
            cr_assert(finish_one(queue, reply.tasks[i], now) == PERF_OK);
            note(j, (struct ack){FINISHED, strtoull(reply.tasks[i]->id, NULL, 10)});
        }
        perf__queue_reply_free(&reply);
    }
    perf_queue_counts counts;
    cr_assert(perf__task_queue_count(queue, "q", now, &counts) == PERF_OK);
    for (int64_t state = PERF_TASK_WAITING; state <= PERF_TASK_DEAD; state++)
        cr_assert(state == PERF_TASK_SUCCEEDED || !counts.by_state[state], "state %d: %d",
                  (int)state, (int)counts.by_state[state]);
    perf__task_queue_close(queue);
}

void queue_crash(const struct queue_crash *at, int rounds)
{
    struct journal *j = calloc(1, sizeof *j);
    int64_t now = 1000000;
    for (int round = 0; round < rounds; round++, now += ROUND_MS) {
        int ends[2];
        pid_t pids[CHILDREN];
        struct ack ack;
        uint64_t before = j->ends;
        cr_assert(!pipe2(ends, O_CLOEXEC));
        for (int i = 0; i < CHILDREN; i++)
            pids[i] = start_child(at, j->next + (uint64_t)i, now, ends[1]);
        close(ends[1]);
        /* From the first end on they are at work; the moment of their death is random. */
        bool killed = false;
        while (read_ack(ends[0], &ack)) {
            note(j, ack);
            if (killed || ack.step != FINISHED)
                continue;
            killed = true;
            for (int i = 0; i < CHILDREN; i++) {
                struct timespec pause = {0, (long)(perf__hash_random_key().k0 % 40000000)};
                nanosleep(&pause, NULL);
                kill(pids[i], SIGKILL);
            }
        }
        close(ends[0]);
        for (int i = 0; i < CHILDREN; i++) {
            int status;
            cr_assert(waitpid(pids[i], &status, 0) == pids[i]);
            cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child said %d",
                      status);
        }
        cr_assert(j->ends > before, "nothing was done");
        j->next += (uint64_t)THREADS * CHILDREN * 2; /* numbers in flight may be there or not */
        check_all(j, at, false);
    }
    drain(j, at, now);
    check_all(j, at, true);
    fprintf(stderr, "crash: %s: %d rounds, %llu submitted, %llu ended\n", at->backend, rounds,
            (unsigned long long)j->submits, (unsigned long long)j->ends);
    free(j);
}
