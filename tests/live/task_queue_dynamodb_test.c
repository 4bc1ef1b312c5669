/* SPDX-License-Identifier: MIT */
/*
 * The DynamoDB queue against DynamoDB Local: promises, crashes of workers and of the server,
 * foreign items, the engine. Each part has a prefix of its own in one pair of tables.
 */
#include <libperf/aws_tables.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/task/queue_dynamodb.h"
#include "queue_conformance.h"
#include "queue_crash.h"
#include "queue_fixture.h"
#include "seams.h"
#include "server.h"
#include "test.h"

enum { EXACT = 120, MEMORY_STEP = 37 };

static const perf_host own = PERF_HOST_INIT;

/* ------------------------------------------------------------------------ tools */

struct fixture {
    struct test_server *server;
    perf_aws *aws;
    struct perf__host host;
    struct perf__task_queue *queue;
    perf_queue_reply reply;
    char location[256];
    int prefixes;
};

static void use_keys(void)
{
    test_unset_all("AWS_");
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "wJalrSECRETKEY", 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
}

static void make_tables(struct fixture *f)
{
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    perf_aws_tables_options t = PERF_AWS_TABLES_OPTIONS_INIT;
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = f->server->url;
    o.timeout_ms = o.attempt_timeout_ms = TEST_PATIENCE_MS;
    o.host = &own;
    cr_assert_eq(perf_aws_open(&o, &f->aws), PERF_OK, "%s", perf_last_error());
    t.aws = f->aws;
    t.tasks_table = "tasks";
    t.queue_table = "queue";
    t.tables = PERF_AWS_TABLE_TASKS | PERF_AWS_TABLE_QUEUE;
    cr_assert_eq(perf_aws_tables_ensure(&t, NULL), PERF_OK, "%s", perf_last_error());
}

/* A store that nobody has used before. */
static void empty(void *ctx)
{
    struct fixture *f = ctx;
    snprintf(f->location, sizeof f->location, "tasks,queue?region=us-east-1&endpoint=%s&prefix=p%d",
             f->server->url, ++f->prefixes);
}

static struct perf__task_queue *open_queue(struct fixture *f)
{
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.backend = "dynamodb";
    options.location = f->location;
    cr_assert(perf__task_queue_open(&options, &f->host, &queue) == PERF_OK, "%s",
              perf_last_error());
    return queue;
}

static void set_up(struct fixture *f, struct test_server *server)
{
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    *f = (struct fixture){.server = server};
    use_keys();
    make_tables(f);
    cr_assert(perf__host_take(NULL, &f->host) == PERF_OK);
    f->reply.allocator = &f->host.allocator;
    empty(f);
}

static void tear_down(struct fixture *f)
{
    perf__queue_reply_free(&f->reply);
    perf_aws_close(f->aws);
    test_server_stop(f->server);
}

static int call(struct fixture *f, const char *operation, const char *json, char *to, size_t size)
{
    perf_aws_reply *reply = NULL;
    int rc = perf_aws_call(f->aws, operation, json, strlen(json), 20000, &reply);
    if (to && !rc)
        snprintf(to, size, "%s", (const char *)perf_aws_reply_body(reply));
    perf_aws_reply_release(reply);
    return rc;
}

/* --------------------------------------------------------------------- location */

Test(task_queue_dynamodb, location_is_checked)
{
    static const struct {
        const char *location, *says;
    } bad[] = {
        {"tasks", "two names"},
        {"tasks,", "two names"},
        {"tasks,tasks", "same"},
        {"tasks,qu\"ue", "two names"},
        {"tasks,queue?prefix=", "prefix"},
        {"tasks,queue?prefix=a|b", "prefix"},
        {"tasks,queue?what=1", "unknown"},
        {"tasks,queue?compress=2", "value"},
        {"?region=a&region=b", "twice"},
    };
    struct perf__host host;
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    options.backend = "dynamodb";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.location = bad[i].location;
        cr_assert(perf__task_queue_open(&options, &host, &queue) == PERF_EINVAL, "%s",
                  bad[i].location);
        cr_assert(strstr(perf_last_error(), bad[i].says) != NULL, "%s", perf_last_error());
    }
}

/* ---------------------------------------------------------------------- strangers */

static void prefixes_are_apart(struct fixture *f)
{
    struct perf__task_queue *first = open_queue(f);
    empty(f);
    struct perf__task_queue *other = open_queue(f);
    cr_assert(put(first, "a") == PERF_OK, "%s", perf_last_error());
    cr_assert(claim(other, 1, &f->reply) == PERF_MISS && put(other, "a") == PERF_OK);
    cr_assert(claim(other, 1, &f->reply) == PERF_OK && claim(first, 1, &f->reply) == PERF_OK);
    perf__task_queue_close(other);
    perf__task_queue_close(first);
}

/* Two handles are what two processes are to each other. */
static void others_work_on_it(struct fixture *f)
{
    empty(f);
    struct perf__task_queue *first = open_queue(f), *other = open_queue(f);
    cr_assert(put(first, "a") == PERF_OK && claim(other, 1, &f->reply) == PERF_OK);
    uint64_t token = f->reply.tasks[0]->token;
    /* Its end, by a handle that did not claim it. */
    perf_queue_beat beat = {.struct_size = sizeof beat,
                            .id = "a",
                            .token = token,
                            .lease_until_ms = NOW + LEASE,
                            .text = "te\"xt"};
    cr_assert(perf__task_queue_extend(first, &beat, 1, NOW) == PERF_OK && beat.status == PERF_OK);
    cr_assert(finish(first, "a", token) == PERF_OK, "%s", perf_last_error());
    cr_assert(finish(other, "a", token) == PERF_ECONFLICT);
    /* What somebody asks for reaches who runs it. */
    cr_assert(put(first, "b") == PERF_OK && claim(other, 1, &f->reply) == PERF_OK);
    token = f->reply.tasks[0]->token;
    cr_assert(perf__task_queue_control(first, PERF_QUEUE_CANCEL, "b", NOW, NULL) == PERF_OK);
    beat = (perf_queue_beat){.struct_size = sizeof beat,
                             .id = "b",
                             .token = token,
                             .lease_until_ms = NOW + LEASE,
                             .text = ""};
    cr_assert(perf__task_queue_extend(other, &beat, 1, NOW) == PERF_OK);
    cr_assert(beat.status == PERF_ECANCELED);
    cr_assert(finish(other, "b", token) == PERF_OK, "%s", perf_last_error());
    perf__task_queue_close(other);
    perf__task_queue_close(first);
}

/* Two processes number their tasks by the same clock: a list has both. */
static void same_moment_is_two_tasks(struct fixture *f)
{
    struct test_host th;
    struct perf__host before = f->host;
    perf_queue_filter filter = {.struct_size = sizeof filter, .queue = "q", .limit = 10};
    empty(f);
    cr_assert(perf__host_take(test_host_init(&th), &f->host) == PERF_OK);
    struct perf__task_queue *first = open_queue(f), *other = open_queue(f);
    cr_assert(put(first, "a") == PERF_OK && put(other, "b") == PERF_OK);
    perf__queue_reply_free(&f->reply);
    cr_assert(perf__task_queue_find(first, &filter, &f->reply) == PERF_OK, "%s", perf_last_error());
    cr_assert(f->reply.count == 2, "%zu", f->reply.count);
    perf__task_queue_close(other);
    perf__task_queue_close(first);
    f->host = before;
}

static void foreign_items_are_named(struct fixture *f)
{
    char json[512];
    empty(f);
    f->queue = open_queue(f);
    cr_assert(put(f->queue, "a") == PERF_OK && put(f->queue, "b") == PERF_OK);
    static const char *const damages[] = {
        "SET kind = :x\",\"ExpressionAttributeValues\":{\":x\":{\"N\":\"7\"}}}",
        "SET st = :x\",\"ExpressionAttributeValues\":{\":x\":{\"N\":\"77\"}}}",
        "SET created = :x\",\"ExpressionAttributeValues\":{\":x\":{\"N\":\"1e40\"}}}",
        "SET priority = :x\",\"ExpressionAttributeValues\":{\":x\":{\"N\":\"9000\"}}}",
        "SET seq = :x\",\"ExpressionAttributeValues\":{\":x\":{\"S\":\"nonsense\"}}}",
        "SET payload_as = :x\",\"ExpressionAttributeValues\":{\":x\":{\"S\":\"z 99\"}}}",
        "SET payload_as = :x\",\"ExpressionAttributeValues\":{\":x\":{\"S\":\"r 9 9 1 7\"}}}",
        "SET payload_as = :x\",\"ExpressionAttributeValues\":{\":x\":{\"S\":\"z 9999999999\"}}}",
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        char id[8], pk[40];
        snprintf(id, sizeof id, "d%zu", i);
        cr_assert(put(f->queue, id) == PERF_OK);
        snprintf(pk, sizeof pk, "p%d|t|%s", f->prefixes, id);
        snprintf(json, sizeof json,
                 "{\"TableName\":\"tasks\",\"Key\":{\"pk\":{\"S\":\"%s\"},\"sk\":{\"S\":\"0\"}},"
                 "\"UpdateExpression\":\"%s",
                 pk, damages[i]);
        cr_assert(call(f, "UpdateItem", json, NULL, 0) == PERF_OK, "%s", perf_last_error());
        cr_assert(state_of(f->queue, id, &f->reply) == PERF_ECORRUPT, "%zu", i);
        cr_assert(strstr(perf_last_error(), id) || i == 5, "%s", perf_last_error());
    }
    int given = 0;
    while (claim(f->queue, 20, &f->reply) == PERF_OK)
        for (size_t i = 0; i < f->reply.count; i++)
            given += !strcmp(f->reply.tasks[i]->id, "a") || !strcmp(f->reply.tasks[i]->id, "b");
    cr_assert(given == 2, "the others go on");
    perf_queue_swept swept;
    perf__task_queue_sweep(f->queue, NOW + 10 * LEASE, 100, &swept);
    cr_assert(claim(f->queue, 20, &f->reply) == PERF_OK, "%s", perf_last_error());
    perf__task_queue_close(f->queue);
}

/* The newer one is damaged, and comes first. */
static void damaged_ones_keep_nobody_back(struct fixture *f)
{
    char json[512];
    uint64_t n = 0;
    empty(f);
    f->queue = open_queue(f);
    for (int i = 0; i < 2; i++) {
        cr_assert(put(f->queue, i ? "b" : "a") == PERF_OK &&
                  claim(f->queue, 1, &f->reply) == PERF_OK);
        perf_queue_end end = {.struct_size = sizeof end,
                              .id = f->reply.tasks[0]->id,
                              .token = f->reply.tasks[0]->token,
                              .state = PERF_TASK_DEAD,
                              .now_ms = NOW,
                              .error = ""};
        cr_assert(perf__task_queue_finish(f->queue, &end, 1) == PERF_OK);
    }
    snprintf(json, sizeof json,
             "{\"TableName\":\"tasks\",\"Key\":{\"pk\":{\"S\":\"p%d|t|b\"},\"sk\":{\"S\":\"0\"}},"
             "\"UpdateExpression\":\"REMOVE kind\"}",
             f->prefixes);
    cr_assert(call(f, "UpdateItem", json, NULL, 0) == PERF_OK, "%s", perf_last_error());
    cr_assert(perf__task_queue_control(f->queue, PERF_QUEUE_REDRIVE_ALL, "q", NOW, &n) ==
              PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), "\"b\"") && n == 1, "%s", perf_last_error());
    cr_assert(state_of(f->queue, "a", &f->reply) == PERF_TASK_QUEUED);
    perf__task_queue_close(f->queue);
}

/* Packed they are short, and they are loaded in the time of one call: so not all at once. */
static void long_ones_come_a_few_at_a_time(struct fixture *f)
{
    enum { LONG = 12 << 20 };
    char *zeros = calloc(1, LONG);
    empty(f);
    f->queue = open_queue(f);
    for (int i = 0; i < 3; i++) {
        const char *const ids[] = {"a", "b", "c"};
        int status;
        perf_queue_task task = test_queue_task(ids[i], NOW);
        task.payload = (perf_bytes){zeros, LONG};
        cr_assert(perf__task_queue_enqueue(f->queue, &task, 1, NULL, NOW, &status, NULL) == PERF_OK,
                  "%s", perf_last_error());
    }
    cr_assert(claim(f->queue, 10, &f->reply) == PERF_OK && f->reply.count == 2, "%zu",
              f->reply.count);
    cr_assert(f->reply.tasks[1]->payload.len == LONG);
    cr_assert(claim(f->queue, 10, &f->reply) == PERF_OK && f->reply.count == 1);
    perf__task_queue_close(f->queue);
    free(zeros);
}

/* All that a task had goes with it. */
static void nothing_is_left_behind(struct fixture *f)
{
    enum { LONG = 3 * 384 * 1024 };
    char reply[4096], *noise = malloc(LONG);
    int status;
    empty(f);
    f->queue = open_queue(f);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < LONG; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        noise[i] = (char)x;
    }
    perf_queue_task task = test_queue_task("a", NOW);
    task.user = "ann \"\\ \xc3\xbc";
    task.batch = "b";
    task.unique_key = "u";
    task.limit_key = "l";
    task.limit = 1;
    task.payload = (perf_bytes){noise, LONG};
    cr_assert(perf__task_queue_enqueue(f->queue, &task, 1, NULL, NOW, &status, NULL) == PERF_OK,
              "%s", perf_last_error());
    cr_assert(claim(f->queue, 1, &f->reply) == PERF_OK && f->reply.tasks[0]->payload.len == LONG);
    cr_assert(!memcmp(f->reply.tasks[0]->payload.data, noise, LONG));
    cr_assert_str_eq(f->reply.tasks[0]->user, task.user);
    cr_assert(finish(f->queue, "a", f->reply.tasks[0]->token) == PERF_OK);
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(f->queue, NOW + 1000, 10, &swept) == PERF_OK);
    cr_assert(swept.removed == 1);
    char json[256];
    snprintf(json, sizeof json,
             "{\"TableName\":\"tasks\",\"Select\":\"COUNT\",\"FilterExpression\":\"begins_with(pk, "
             ":p)\",\"ExpressionAttributeValues\":{\":p\":{\"S\":\"p%d|\"}}}",
             f->prefixes);
    cr_assert(call(f, "Scan", json, reply, sizeof reply) == PERF_OK, "%s", perf_last_error());
    cr_assert(strstr(reply, "\"Count\":0"), "%s", reply);
    perf__task_queue_close(f->queue);
    free(noise);
}

/* "a" as a process leaves it that dies between its end and "b", which waits for it. */
static void half_end(struct fixture *f)
{
    char json[600];
    empty(f);
    f->queue = open_queue(f);
    int status;
    perf_queue_task task = test_queue_task("b", NOW);
    task.after = "a";
    cr_assert(put_for(f->queue, "a", INT64_MAX) == PERF_OK &&
              claim(f->queue, 1, &f->reply) == PERF_OK);
    cr_assert(perf__task_queue_enqueue(f->queue, &task, 1, NULL, NOW, &status, NULL) == PERF_OK);
    snprintf(json, sizeof json,
             "{\"TableName\":\"tasks\",\"Key\":{\"pk\":{\"S\":\"p%d|t|a\"},\"sk\":{\"S\":\"0\"}},"
             "\"UpdateExpression\":\"SET st = :s, #i = :i, ended = :e, lane = :l ADD v :1\","
             "\"ExpressionAttributeNames\":{\"#i\":\"state\"},\"ExpressionAttributeValues\":{"
             "\":s\":{\"N\":\"5\"},\":i\":{\"S\":\"p%d|5\"},\":e\":{\"N\":\"%d\"},\":l\":{\"S\":"
             "\"p%d|x\"},\":1\":{\"N\":\"1\"}}}",
             f->prefixes, f->prefixes, NOW, f->prefixes);
    cr_assert(call(f, "UpdateItem", json, NULL, 0) == PERF_OK, "%s", perf_last_error());
    cr_assert(state_of(f->queue, "b", &f->reply) == PERF_TASK_WAITING);
}

/* A step was done and the next was not: sweeps make it good. */
static void half_done_ends_are_completed(struct fixture *f)
{
    half_end(f);
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(f->queue, NOW + LEASE, 10, &swept) == PERF_OK, "%s",
              perf_last_error());
    cr_assert(state_of(f->queue, "b", &f->reply) == PERF_TASK_QUEUED, "%d",
              (int)state_of(f->queue, "b", &f->reply));
    cr_assert(claim(f->queue, 1, &f->reply) == PERF_OK && !strcmp(f->reply.tasks[0]->id, "b"));
    perf__task_queue_close(f->queue);
}

/* So does who removes the record, for nobody else would know who waits. */
static void half_done_ends_are_completed_before_they_go(struct fixture *f)
{
    half_end(f);
    cr_assert(perf__task_queue_control(f->queue, PERF_QUEUE_REMOVE, "a", NOW, NULL) == PERF_OK,
              "%s", perf_last_error());
    cr_assert(state_of(f->queue, "a", &f->reply) == PERF_MISS &&
              state_of(f->queue, "b", &f->reply) == PERF_TASK_QUEUED);
    perf__task_queue_close(f->queue);
}

/* A thread has read the directory, and is held back with what it read. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool has_read, goes_on;
} held_back = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
static _Thread_local bool is_held_back;

static void *realloc_later(void *ctx, void *block, size_t size)
{
    (void)ctx;
    if (is_held_back && size == sizeof(struct known_lane)) {
        pthread_mutex_lock(&held_back.mutex);
        held_back.has_read = true;
        pthread_cond_broadcast(&held_back.changed);
        while (!held_back.goes_on)
            pthread_cond_wait(&held_back.changed, &held_back.mutex);
        pthread_mutex_unlock(&held_back.mutex);
    }
    return realloc(block, size);
}

static void *read_lanes(void *queue)
{
    is_held_back = true;
    cr_assert(perf__task_queue_control(queue, PERF_QUEUE_RESUME, "q2", NOW, NULL) == PERF_OK);
    return NULL;
}

static void own_pauses_are_known_at_once(struct fixture *f)
{
    struct test_host th;
    struct perf__host before = f->host;
    pthread_t thread;
    empty(f);
    test_host_init(&th);
    th.allocator.realloc = realloc_later;
    cr_assert(perf__host_take(&th.host, &f->host) == PERF_OK);
    f->queue = open_queue(f);
    cr_assert(put(f->queue, "a") == PERF_OK);
    cr_assert(!pthread_create(&thread, NULL, read_lanes, f->queue));
    pthread_mutex_lock(&held_back.mutex);
    while (!held_back.has_read)
        pthread_cond_wait(&held_back.changed, &held_back.mutex);
    pthread_mutex_unlock(&held_back.mutex);
    cr_assert(perf__task_queue_control(f->queue, PERF_QUEUE_PAUSE, "q", NOW, NULL) == PERF_OK);
    pthread_mutex_lock(&held_back.mutex);
    held_back.goes_on = true;
    pthread_cond_broadcast(&held_back.changed);
    pthread_mutex_unlock(&held_back.mutex);
    pthread_join(thread, NULL);
    cr_assert(claim(f->queue, 1, &f->reply) == PERF_MISS);
    perf__task_queue_close(f->queue);
    f->host = before;
}

/* ------------------------------------------------------------------------- figures */

struct figure {
    struct fixture *f;
    struct perf__task_queue *queue;
    int from, count;
    _Atomic int *ended;
    int wanted;
};

static void *submit_and_work(void *arg)
{
    struct figure *g = arg;
    perf_queue_reply reply = {.allocator = &g->f->host.allocator};
    for (int i = g->from; i < g->from + g->count; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        cr_assert(put_for(g->queue, id, INT64_MAX) == PERF_OK, "%s", perf_last_error());
    }
    while (*g->ended < g->wanted) {
        if (claim(g->queue, 8, &reply) != PERF_OK)
            continue;
        for (size_t i = 0; i < reply.count; i++) {
            const perf_queue_task *t = reply.tasks[i];
            cr_assert(finish(g->queue, t->id, t->token) == PERF_OK, "%s", perf_last_error());
            ++*g->ended;
        }
    }
    perf__queue_reply_free(&reply);
    return NULL;
}

static void figures(struct fixture *f)
{
    enum { THREADS = 8 };
    const char *asked = getenv("PERF_TASKS_FIGURES");
    int each = (asked ? atoi(asked) : 32) / THREADS;
    struct figure g[THREADS];
    pthread_t threads[THREADS];
    _Atomic int ended = 0;
    struct timespec from, to;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    perf_aws_stats before = PERF_AWS_STATS_INIT, after = PERF_AWS_STATS_INIT;
    struct perf__task_queue *queue;
    empty(f);
    options.backend = "dynamodb";
    options.queue_ctx = f->aws;
    snprintf(f->location, sizeof f->location, "tasks,queue?prefix=figures");
    options.location = f->location;
    cr_assert(perf__task_queue_open(&options, &f->host, &queue) == PERF_OK, "%s",
              perf_last_error());
    cr_assert(perf_aws_get_stats(f->aws, &before) == PERF_OK);
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < THREADS; i++) {
        g[i] = (struct figure){f, queue, i * each, each, &ended, THREADS * each};
        cr_assert(!pthread_create(&threads[i], NULL, submit_and_work, &g[i]));
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    cr_assert(perf_aws_get_stats(f->aws, &after) == PERF_OK);
    double s = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    fprintf(stderr, "queue_dynamodb: %.0f tasks/s by %d threads, %.1f requests each\n",
            THREADS * each / s, THREADS,
            (double)(after.attempts - before.attempts) / (THREADS * each));
    cr_assert(ended == THREADS * each);
    perf__task_queue_close(queue);
}

/* ----------------------------------------------------------------- a server that dies */

struct survivor {
    struct fixture *f;
    int from, wanted;
    _Atomic int *ended;
    _Atomic unsigned char *done;
    unsigned char *stored;
};

/* Submits its own numbers, and works on whatever it gets, while the server comes and goes. */
static void *survive(void *arg)
{
    struct survivor *w = arg;
    perf_queue_reply reply = {.allocator = &w->f->host.allocator};
    int64_t now = NOW;
    for (int n = w->from; *w->ended < w->wanted;) {
        char id[16];
        if (n < w->wanted) {
            snprintf(id, sizeof id, "%d", n);
            int rc = put_for(w->f->queue, id, INT64_MAX);
            if (rc == PERF_OK || rc == PERF_EEXISTS) { /* an id of our own, after an error */
                w->stored[n] = 1;
                n += 2;
            }
        }
        if (claim(w->f->queue, 4, &reply) != PERF_OK) {
            /* What a lost reply claimed comes back when its lease is over. */
            perf_queue_swept swept;
            perf__task_queue_sweep(w->f->queue, now += 2 * LEASE, 100, &swept);
            continue;
        }
        for (size_t i = 0; i < reply.count; i++) {
            const perf_queue_task *t = reply.tasks[i];
            int rc;
            do
                rc = finish(w->f->queue, t->id, t->token);
            while (rc && rc != PERF_ECONFLICT); /* told so, or not at all: it is still ours */
            w->done[atoi(t->id)] += rc == PERF_OK;
            *w->ended += rc == PERF_OK;
        }
    }
    perf__queue_reply_free(&reply);
    return NULL;
}

Test(task_queue_dynamodb, server_dies_and_comes_back_without_loss)
{
    enum { TASKS = 24, DEATHS = 1 };
    static struct fixture f;
    static unsigned char stored[TASKS];
    static _Atomic unsigned char done[TASKS];
    static _Atomic int ended;
    struct survivor all[2];
    pthread_t threads[2];
    set_up(&f, test_server_dynamodb_kept());
    f.queue = open_queue(&f);
    for (int i = 0; i < 2; i++) {
        all[i] = (struct survivor){&f, i, TASKS, &ended, done, stored};
        cr_assert(!pthread_create(&threads[i], NULL, survive, &all[i]));
    }
    for (int death = 1; death <= DEATHS; death++) {
        while (ended < death * TASKS / (DEATHS + 1))
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        test_server_kill(f.server);
        cr_assert(test_server_restart(f.server), "%s", test_server_why());
    }
    /* An end whose reply was lost may be told as a conflict: the records say when all are over. */
    perf_queue_counts counts = {0};
    while (counts.by_state[PERF_TASK_SUCCEEDED] < TASKS) {
        int rc = perf__task_queue_count(f.queue, "q", NOW, &counts);
        cr_assert(rc == PERF_OK || rc == PERF_EREJECTED, "%s", perf_last_error());
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    ended = TASKS;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int n = 0; n < TASKS; n++) {
        char id[16];
        snprintf(id, sizeof id, "%d", n);
        cr_assert(stored[n] && done[n] <= 1, "task %d: %d, ended %d times", n, stored[n], done[n]);
        cr_assert(state_of(f.queue, id, &f.reply) == PERF_TASK_SUCCEEDED, "task %d", n);
        cr_assert(f.reply.tasks[0]->result.len == 6);
    }
    perf__task_queue_close(f.queue);
    tear_down(&f);
}

/* --------------------------------------------------------------------- the engine */

static int twice(perf_run *run, void *ctx)
{
    perf_bytes payload;
    char text[64];
    (void)ctx;
    if (perf_run_payload(run, &payload))
        return PERF_EINVAL;
    int len = snprintf(text, sizeof text, "%.*s%.*s", (int)payload.len, (const char *)payload.data,
                       (int)payload.len, (const char *)payload.data);
    return perf_run_result(run, text, (size_t)len);
}

static void engine_works_with_it(struct fixture *f)
{
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    perf_tasks *tasks;
    perf_task_id ids[10];
    empty(f);
    options.backend = "dynamodb";
    options.location = f->location;
    options.workers = 4;
    options.poll_ms = 20;
    cr_assert(perf_tasks_open(&options, &tasks) == PERF_OK, "%s", perf_last_error());
    cr_assert(perf_tasks_handle(tasks, "twice", twice, NULL, NULL) == PERF_OK);
    cr_assert(perf_tasks_start(tasks) == PERF_OK, "%s", perf_last_error());
    for (int i = 0; i < 10; i++)
        cr_assert(perf_tasks_submit(tasks, "twice", "ab", 2, NULL, &ids[i]) == PERF_OK, "%s",
                  perf_last_error());
    for (int i = 0; i < 10; i++) {
        perf_task_record *record;
        cr_assert(perf_tasks_wait(tasks, ids[i].text, TEST_PATIENCE_MS, &record) == PERF_OK, "%s",
                  perf_last_error());
        cr_assert(record->state == PERF_TASK_SUCCEEDED);
        cr_assert(record->result.len == 4 && !memcmp(record->result.data, "abab", 4));
        perf_task_record_free(record);
    }
    cr_assert(perf_tasks_close(tasks, 1000) == PERF_OK);
}

/* ----------------------------------------------------------------------- the lot */

Test(task_queue_dynamodb, everything_on_one_server)
{
    static struct fixture f;
    set_up(&f, test_server_dynamodb());
    struct queue_conformance c = {.options = PERF_TASKS_OPTIONS_INIT,
                                  .empty = empty,
                                  .ctx = &f,
                                  .exact_tasks = EXACT,
                                  .no_memory_step = MEMORY_STEP};
    c.options.backend = "dynamodb";
    c.options.location = f.location;
    queue_conformance(&c);
    queue_survives_no_memory(&c);
    prefixes_are_apart(&f);
    others_work_on_it(&f);
    same_moment_is_two_tasks(&f);
    foreign_items_are_named(&f);
    damaged_ones_keep_nobody_back(&f);
    own_pauses_are_known_at_once(&f);
    long_ones_come_a_few_at_a_time(&f);
    nothing_is_left_behind(&f);
    half_done_ends_are_completed(&f);
    half_done_ends_are_completed_before_they_go(&f);
    engine_works_with_it(&f);
    figures(&f);
    /* PERF_TASKS_ROUNDS=20 for a long run. */
    const char *wanted = getenv("PERF_TASKS_ROUNDS");
    empty(&f);
    const struct queue_crash at = {"dynamodb", f.location};
    queue_crash(&at, wanted ? atoi(wanted) : 3);
    tear_down(&f);
}
