/* SPDX-License-Identifier: MIT */
/* The Redis queue against real servers: promises, clusters, crashes of the server, strangers. */
#include <libperf/redis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/base/sync.h"
#include "queue_conformance.h"
#include "queue_crash.h"
#include "queue_fixture.h"
#include "seams.h"
#include "server.h"
#include "test.h"

/* --------------------------------------------------------------------- promises */

static void empty_server(void *ctx)
{
    cr_assert(test_redis_says(ctx, "OK", "FLUSHALL"), "%s", test_server_why());
}

static struct test_server *start(const struct test_redis *asked)
{
    struct test_server *server = test_server_redis(asked);
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    return server;
}

Test(task_queue_redis, keeps_the_promises)
{
    struct test_server *server = start(NULL);
    struct queue_conformance c = {
        .options = PERF_TASKS_OPTIONS_INIT, .empty = empty_server, .ctx = server};
    c.options.backend = "redis";
    c.options.location = server->url;
    queue_conformance(&c);
    test_server_stop(server);
}

Test(task_queue_redis, survives_without_memory)
{
    struct test_server *server = start(NULL);
    struct queue_conformance c = {
        .options = PERF_TASKS_OPTIONS_INIT, .empty = empty_server, .ctx = server};
    c.options.backend = "redis";
    c.options.location = server->url;
    queue_survives_no_memory(&c);
    test_server_stop(server);
}

static void empty_cluster(void *ctx)
{
    struct test_redis_cluster *cluster = ctx;
    for (int i = 0; i < 3; i++)
        empty_server(cluster->nodes[i]);
}

Test(task_queue_redis, keeps_the_promises_on_a_cluster)
{
    struct test_redis_cluster *cluster = test_redis_cluster(NULL);
    if (!cluster)
        PERF_TEST_SKIP(test_server_why());
    perf_redis_options redis = PERF_REDIS_OPTIONS_INIT;
    redis.mode = PERF_REDIS_CLUSTER;
    redis.url = cluster->nodes[0]->url;
    struct queue_conformance c = {
        .options = PERF_TASKS_OPTIONS_INIT, .empty = empty_cluster, .ctx = cluster};
    c.options.backend = "redis";
    c.options.queue_ctx = &redis;
    c.options.location = "?prefix=of-the-cluster"; /* each prefix is a slot, on one of the three */
    queue_conformance(&c);
    test_redis_cluster_stop(cluster);
}

/* ------------------------------------------------------------------------ tools */

struct fixture {
    struct test_server *server;
    struct perf__host host;
    struct perf__task_queue *queue;
    perf_queue_reply reply;
};

static struct perf__task_queue *open_at(struct fixture *f, const char *parameters)
{
    char location[200];
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    snprintf(location, sizeof location, "%s%s", f->server->url, parameters);
    options.backend = "redis";
    options.location = location;
    cr_assert(perf__task_queue_open(&options, &f->host, &queue) == PERF_OK, "%s",
              perf_last_error());
    return queue;
}

static void set_up(struct fixture *f, const struct test_redis *asked)
{
    *f = (struct fixture){.server = start(asked)};
    cr_assert(perf__host_take(NULL, &f->host) == PERF_OK);
    f->reply.allocator = &f->host.allocator;
    f->queue = open_at(f, "");
}

static void tear_down(struct fixture *f)
{
    perf__queue_reply_free(&f->reply);
    perf__task_queue_close(f->queue);
    test_server_stop(f->server);
}

/* ---------------------------------------------------------------------- location */

Test(task_queue_redis, location_is_checked)
{
    static const struct {
        const char *location, *says;
    } bad[] = {
        {"redis://localhost?prefix=", "prefix"},
        {"redis://localhost?prefix=a{b", "prefix"},
        {"redis://localhost?what=1", "query"},
        {"?prefix=a", "server"},
    };
    struct perf__host host;
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    options.backend = "redis";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.location = bad[i].location;
        cr_assert(perf__task_queue_open(&options, &host, &queue) == PERF_EINVAL, "%s",
                  bad[i].location);
        cr_assert(strstr(perf_last_error(), bad[i].says) != NULL, "%s", perf_last_error());
    }
    options.location = "redis://localhost";
    options.sync = PERF_SYNC_FULL;
    cr_assert(perf__task_queue_open(&options, &host, &queue) == PERF_EUNSUPPORTED);
    cr_assert(strstr(perf_last_error(), "appendfsync") != NULL);
}

/* A server that does not answer: every entry returns within the time that the queue was given. */
Test(task_queue_redis, a_paused_server_holds_nobody, .timeout = 60)
{
    struct fixture f;
    set_up(&f, NULL);
    const perf_queue_config config = {.struct_size = sizeof config,
                                      .location = f.server->url,
                                      .timeout_ms = 300,
                                      .host = &f.host.view};
    void *queue;
    int status;
    uint64_t n;
    char existing[72];
    perf_queue_task task = test_queue_task("a", NOW);
    perf_queue_counts counts = {.struct_size = sizeof counts};
    perf_queue_swept swept = {.struct_size = sizeof swept};
    cr_assert(perf__queue_redis.open(&config, &queue) == PERF_OK, "%s", perf_last_error());
    cr_assert(perf__queue_redis.enqueue(queue, &task, 1, NULL, NOW, &status, &existing) == PERF_OK);
    test_server_pause(f.server);
    task.id = "b";
    cr_assert(perf__queue_redis.enqueue(queue, &task, 1, NULL, NOW, &status, &existing) < 0);
    cr_assert(perf__queue_redis.count(queue, "q", NOW, &counts) < 0);
    cr_assert(perf__queue_redis.control(queue, PERF_QUEUE_PAUSE, "q", NOW, &n) < 0);
    cr_assert(perf__queue_redis.sweep(queue, NOW, 10, &swept) < 0);
    test_server_resume(f.server);
    perf__queue_redis.close(queue);
    tear_down(&f);
}

Test(task_queue_redis, prefixes_are_apart)
{
    struct fixture f;
    set_up(&f, NULL);
    struct perf__task_queue *other = open_at(&f, "/0?prefix=other");
    cr_assert(put(f.queue, "a") == PERF_OK);
    cr_assert(claim(other, 1, &f.reply) == PERF_MISS && put(other, "a") == PERF_OK);
    cr_assert(claim(other, 1, &f.reply) == PERF_OK && claim(f.queue, 1, &f.reply) == PERF_OK);
    cr_assert(test_redis_says(f.server, "1", "EXISTS {other}tasks:t:a"));
    perf__task_queue_close(other);
    tear_down(&f);
}

/* ----------------------------------------------------------------------- waiting */

struct waiter {
    struct fixture *f;
    struct perf__task_queue *queue;
    struct timespec woken;
};

static void *wait_for_one(void *arg)
{
    struct waiter *w = arg;
    perf_queue_reply reply = {.allocator = &w->f->host.allocator};
    while (claim(w->queue, 1, &reply) == PERF_MISS)
        cr_assert(perf__task_queue_wait(w->queue, 60000) == PERF_OK);
    clock_gettime(CLOCK_MONOTONIC, &w->woken);
    cr_assert(reply.count == 1);
    perf__queue_reply_free(&reply);
    return NULL;
}

/* Two handles are what two processes are to each other. */
Test(task_queue_redis, who_waits_hears_of_others)
{
    struct fixture f;
    struct timespec put_at;
    pthread_t thread;
    set_up(&f, NULL);
    struct waiter w = {.f = &f, .queue = open_at(&f, "")};
    cr_assert(put(f.queue, "first") == PERF_OK && claim(f.queue, 1, &f.reply) == PERF_OK);
    cr_assert(!pthread_create(&thread, NULL, wait_for_one, &w));
    while (!test_redis_says(f.server, "{perf}tasks:news\n1", "PUBSUB NUMSUB {perf}tasks:news"))
        continue;
    nanosleep(&(struct timespec){0, 150000000}, NULL); /* longer than it would poll */
    clock_gettime(CLOCK_MONOTONIC, &put_at);
    cr_assert(put(f.queue, "a") == PERF_OK);
    pthread_join(thread, NULL);
    int64_t us =
        (w.woken.tv_sec - put_at.tv_sec) * 1000000 + (w.woken.tv_nsec - put_at.tv_nsec) / 1000;
    fprintf(stderr, "queue_redis: from submission to claim by another one: %d us\n", (int)us);
    cr_assert(us < 50000, "%d us", (int)us);
    perf__task_queue_close(w.queue);
    tear_down(&f);
}

/* --------------------------------------------------------------------- strangers */

Test(task_queue_redis, foreign_keys_are_named)
{
    struct fixture f;
    set_up(&f, NULL);
    cr_assert(test_redis_says(f.server, "OK", "SET {perf}tasks:t:a foreign"));
    cr_assert(put(f.queue, "a") == PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), "{perf}tasks:t:a") != NULL, "%s", perf_last_error());
    cr_assert(state_of(f.queue, "a", &f.reply) == PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), "{perf}tasks:t:a") != NULL, "%s", perf_last_error());

    cr_assert(put(f.queue, "b") == PERF_OK && put(f.queue, "c") == PERF_OK);
    cr_assert(test_redis_says(f.server, "1", "HSET {perf}tasks:t:b attempts nonsense"));
    cr_assert(test_redis_says(f.server, "1", "HSET {perf}tasks:t:b max x attempts y ended z"));
    cr_assert(state_of(f.queue, "b", &f.reply) == PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), "{perf}tasks:t:b") != NULL, "%s", perf_last_error());
    cr_assert(claim(f.queue, 5, &f.reply) == PERF_OK, "%s", perf_last_error());
    cr_assert(f.reply.count == 1 && !strcmp(f.reply.tasks[0]->id, "c"), "the others go on");

    cr_assert(test_redis_says(f.server, "1", "DEL {perf}tasks:all"));
    cr_assert(test_redis_says(f.server, "OK", "SET {perf}tasks:all foreign"));
    perf_queue_filter filter = {.struct_size = sizeof filter, .limit = 5};
    perf__queue_reply_free(&f.reply);
    cr_assert(perf__task_queue_find(f.queue, &filter, &f.reply) == PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), "{perf}tasks:all") != NULL, "%s", perf_last_error());
    tear_down(&f);
}

/* Indexes that name what is not there, or not as they say, are passed by. */
Test(task_queue_redis, damaged_indexes_are_passed_by)
{
    static const char *const members[] = {"", "x", "0000000000001nobody",
                                          "zzzzzzzzzzzzzsomebody-with-no-number"};
    struct fixture f;
    set_up(&f, NULL);
    cr_assert(put(f.queue, "a") == PERF_OK);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        static const char *const keys[] = {"r:q 0 k", "wait", "lease", "ended", "all"};
        for (size_t j = 0; j < sizeof keys / sizeof *keys; j++)
            cr_assert(test_redis_says(f.server, "1", "ZADD '{perf}tasks:%s' 0 '%s'", keys[j],
                                      members[i]));
    }
    perf_queue_swept swept;
    perf_queue_filter filter = {.struct_size = sizeof filter, .limit = 5};
    cr_assert(perf__task_queue_sweep(f.queue, NOW, 100, &swept) == PERF_OK, "%s",
              perf_last_error());
    cr_assert(!swept.rescued && !swept.removed);
    cr_assert(claim(f.queue, 10, &f.reply) == PERF_OK && f.reply.count == 1, "%s",
              perf_last_error());
    cr_assert(finish(f.queue, "a", f.reply.tasks[0]->token) == PERF_OK);
    perf__queue_reply_free(&f.reply);
    cr_assert(perf__task_queue_find(f.queue, &filter, &f.reply) == PERF_OK, "%s",
              perf_last_error());
    cr_assert(f.reply.count == 1);
    tear_down(&f);
}

/* A server that is full takes no more, but lets go. */
Test(task_queue_redis, full_server_still_works_off)
{
    struct fixture f;
    set_up(&f, NULL);
    cr_assert(put(f.queue, "a") == PERF_OK);
    cr_assert(test_redis_says(f.server, "OK", "CONFIG SET maxmemory 1"));
    cr_assert(put(f.queue, "b") == PERF_ETHROTTLED, "%s", perf_last_error());
    cr_assert(claim(f.queue, 1, &f.reply) == PERF_OK, "%s", perf_last_error());
    cr_assert(finish(f.queue, "a", f.reply.tasks[0]->token) == PERF_OK, "%s", perf_last_error());
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(f.queue, NOW + 1000, 10, &swept) == PERF_OK);
    cr_assert(swept.removed == 1);
    tear_down(&f);
}

/* ----------------------------------------------------------------------- crashes */

Test(task_queue_redis, nothing_is_left_behind)
{
    struct fixture f;
    set_up(&f, NULL);
    perf_queue_task task = test_queue_task("a", NOW);
    task.user = "ann";
    task.batch = "b";
    task.unique_key = "u";
    task.limit_key = "l";
    task.limit = 1;
    int status;
    cr_assert(perf__task_queue_enqueue(f.queue, &task, 1, NULL, NOW, &status, NULL) == PERF_OK);
    cr_assert(claim(f.queue, 1, &f.reply) == PERF_OK);
    cr_assert(finish(f.queue, "a", f.reply.tasks[0]->token) == PERF_OK);
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(f.queue, NOW + 1000, 10, &swept) == PERF_OK);
    cr_assert(swept.removed == 1);
    char *keys = test_redis_cli(f.server, "KEYS '*' | sort");
    cr_assert_str_eq(keys, "{perf}tasks\n{perf}tasks:q:q");
    free(keys);
    tear_down(&f);
}

/* Submissions of many threads share calls; each has the answer to its own. */
static void *submit_variously(void *arg)
{
    struct fixture *f = ((void **)arg)[0];
    const char *name = ((void **)arg)[1];
    for (int n = 0; n < 40; n++) {
        char ids[3][72], absent[80], existing[3][72] = {"", "", ""};
        int statuses[3];
        perf_queue_task tasks[3];
        for (int i = 0; i < 3; i++) {
            snprintf(ids[i], sizeof ids[i], "%s-%d-%d", name, n, i);
            tasks[i] = test_queue_task(ids[i], NOW);
        }
        snprintf(absent, sizeof absent, "absent-%s-%d", name, n);
        tasks[1].after = absent;
        cr_assert(perf__task_queue_enqueue(f->queue, &tasks[0], 1, NULL, NOW, statuses, existing) ==
                  PERF_OK);
        cr_assert(perf__task_queue_enqueue(f->queue, tasks, 3, NULL, NOW, statuses, existing) ==
                  PERF_EINVAL);
        cr_assert(strstr(perf_last_error(), absent), "%s", perf_last_error());
        cr_assert(statuses[0] == PERF_EEXISTS && !strcmp(existing[0], ids[0]));
        cr_assert(statuses[1] == PERF_EINVAL && statuses[2] == PERF_OK && !existing[2][0]);
    }
    return NULL;
}

Test(task_queue_redis, who_shares_a_call_has_its_own_answers)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct fixture f;
    pthread_t threads[8];
    void *args[8][2];
    set_up(&f, NULL);
    for (int i = 0; i < 8; i++) {
        args[i][0] = &f;
        args[i][1] = (void *)(uintptr_t)names[i];
        cr_assert(!pthread_create(&threads[i], NULL, submit_variously, args[i]));
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    perf_queue_counts counts;
    cr_assert(perf__task_queue_count(f.queue, "q", NOW, &counts) == PERF_OK);
    cr_assert(counts.by_state[PERF_TASK_QUEUED] == 8 * 40 * 2);
    tear_down(&f);
}

struct client_run {
    struct fixture *f;
    struct perf__task_queue *queue;
    int first, step, wanted;
    _Atomic int *ended;
    unsigned char *stored;
    _Atomic unsigned char *done;
};

/* Submits its own numbers, and works on whatever it gets, while servers come and go. */
static void *work(void *arg)
{
    struct client_run *run = arg;
    perf_queue_reply reply = {.allocator = &run->f->host.allocator};
    for (int n = run->first; *run->ended < run->wanted;) {
        char id[16];
        if (n < run->wanted) {
            snprintf(id, sizeof id, "%d", n);
            int rc = put_for(run->queue, id, INT64_MAX);
            if (rc == PERF_OK || rc == PERF_EEXISTS) { /* an id of our own, after an error */
                run->stored[n] = 1;
                n += run->step;
            }
        }
        if (claim(run->queue, 2, &reply) != PERF_OK)
            continue;
        for (size_t i = 0; i < reply.count; i++) {
            const perf_queue_task *t = reply.tasks[i];
            int rc;
            do
                rc = finish(run->queue, t->id, t->token);
            while (rc && rc != PERF_ECONFLICT); /* told so, or not at all: it is still ours */
            run->done[atoi(t->id)] += rc == PERF_OK;
        }
    }
    perf__queue_reply_free(&reply);
    return NULL;
}

Test(task_queue_redis, server_dies_and_comes_back_without_loss)
{
    enum { TASKS = 600, THREADS = 3, DEATHS = 4 };
    static const struct test_redis durable = {.appendonly = true, .config = "appendfsync always\n"};
    static unsigned char stored[TASKS];
    static _Atomic unsigned char done[TASKS];
    static _Atomic int ended;
    struct fixture f;
    struct client_run runs[THREADS];
    pthread_t threads[THREADS];
    set_up(&f, &durable);
    for (int i = 0; i < THREADS; i++) {
        runs[i] = (struct client_run){&f, f.queue, i, THREADS, TASKS, &ended, stored, done};
        cr_assert(!pthread_create(&threads[i], NULL, work, &runs[i]));
    }
    /* Deaths come while it works; what a lost reply claimed comes back when its lease is over. */
    perf_queue_counts counts = {0};
    perf_queue_swept swept;
    for (int death = 1; ended < TASKS;) {
        nanosleep(&(struct timespec){0, 2000000}, NULL);
        if (perf__task_queue_count(f.queue, "q", NOW, &counts) != PERF_OK)
            continue;
        ended = (int)counts.by_state[PERF_TASK_SUCCEEDED];
        if (death <= DEATHS && ended > death * TASKS / (DEATHS + 1)) {
            death++;
            test_server_kill(f.server);
            cr_assert(test_server_restart(f.server), "%s", test_server_why());
        }
        if (counts.by_state[PERF_TASK_RUNNING] && !counts.by_state[PERF_TASK_QUEUED])
            perf__task_queue_sweep(f.queue, NOW + LEASE, 1000, &swept);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int n = 0; n < TASKS; n++) {
        char id[16];
        snprintf(id, sizeof id, "%d", n);
        cr_assert(stored[n] && done[n] <= 1, "task %d: %d, ended %d times", n, stored[n], done[n]);
        cr_assert(state_of(f.queue, id, &f.reply) == PERF_TASK_SUCCEEDED, "task %d", n);
        cr_assert(f.reply.tasks[0]->result.len == 6);
    }
    cr_assert(counts.by_state[PERF_TASK_SUCCEEDED] == TASKS, "%d",
              (int)counts.by_state[PERF_TASK_SUCCEEDED]);
    tear_down(&f);
}

/* What a call stored before its connection broke is no duplicate when it asks again. */
static void *cut_connections(void *arg)
{
    struct client_run *run = arg;
    while (*run->ended < run->wanted)
        free(test_redis_cli(run->f->server, "CLIENT KILL TYPE normal"));
    return NULL;
}

Test(task_queue_redis, broken_connections_make_no_duplicates)
{
    enum { TASKS = 2000 };
    struct fixture f;
    static _Atomic int ended;
    pthread_t thread;
    set_up(&f, NULL);
    struct client_run run = {.f = &f, .ended = &ended, .wanted = TASKS};
    cr_assert(!pthread_create(&thread, NULL, cut_connections, &run));
    for (int n = 0; n < TASKS; n++) {
        char id[16];
        snprintf(id, sizeof id, "%d", n);
        int rc = put(f.queue, id);
        cr_assert(rc == PERF_OK, "%d: %s", rc, perf_last_error());
        ended++;
    }
    pthread_join(thread, NULL);
    perf_queue_counts counts;
    cr_assert(perf__task_queue_count(f.queue, "q", NOW, &counts) == PERF_OK);
    cr_assert(counts.by_state[PERF_TASK_QUEUED] == TASKS);
    tear_down(&f);
}

/* PERF_TASKS_ROUNDS=200 for a long run. */
Test(task_queue_redis, workers_die_without_loss)
{
    const char *wanted = getenv("PERF_TASKS_ROUNDS");
    struct test_server *server = start(NULL);
    const struct queue_crash at = {"redis", server->url};
    queue_crash(&at, wanted ? atoi(wanted) : 20);
    test_server_stop(server);
}
