/* SPDX-License-Identifier: MIT */
/* perf_tasks over a Redis server that dies while tasks are submitted and run. */
#include <stdio.h>
#include <stdlib.h>

#include "server.h"
#include "tasks_fixture.h"

enum { TASKS = 400, SUBMITTERS = 4, DEATHS = 3, LARGE = 10 << 20 };

struct scene {
    struct test_server *server;
    perf_tasks *tasks;
    _Atomic int accepted;
};

/* Its payload is its number: every fifth one fails for good, the others say it again. */
static int tell_number(perf_run *run, void *ctx)
{
    perf_bytes p;
    char number[16];
    (void)ctx;
    int rc = perf_run_payload(run, &p);
    if (rc)
        return rc;
    snprintf(number, sizeof number, "%.*s", (int)p.len, (const char *)p.data);
    if (atoi(number) % 5 == 0)
        return perf_run_fail(run, PERF_EINVAL, "a fifth one");
    return perf_run_result(run, p.data, p.len);
}

static int be_large(perf_run *run, void *ctx)
{
    (void)ctx;
    char *result = malloc(LARGE);
    memset(result, 'x', LARGE);
    int rc = perf_run_result(run, result, LARGE);
    free(result);
    return rc;
}

static void scene_open(struct scene *s, const struct test_redis *asked)
{
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    *s = (struct scene){.server = test_server_redis(asked)};
    if (!s->server)
        PERF_TEST_SKIP(test_server_why());
    o.backend = "redis";
    o.location = s->server->url;
    o.workers = 4;
    o.lease_ms = 2000; /* what a lost reply has claimed comes back so soon */
    h.max_attempts = -1;
    OK(perf_tasks_open(&o, &s->tasks));
    OK(perf_tasks_handle(s->tasks, "number", tell_number, NULL, &h));
    OK(perf_tasks_handle(s->tasks, "large", be_large, NULL, &h));
    OK(perf_tasks_start(s->tasks));
}

static void scene_close(struct scene *s)
{
    OK(perf_tasks_close(s->tasks, 10000));
    test_server_stop(s->server);
}

struct submitter {
    struct scene *scene;
    int first;
};

static void *submit_numbers(void *arg)
{
    struct submitter *own = arg;
    for (int n = own->first; n < TASKS; n += SUBMITTERS) {
        char number[16], id[24];
        perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
        int len = snprintf(number, sizeof number, "%d", n), rc;
        snprintf(id, sizeof id, "number-%d", n);
        o.id = id;
        /* After an error it may be there already. */
        while (
            (rc = perf_tasks_submit(own->scene->tasks, "number", number, (size_t)len, &o, NULL)) &&
            rc != PERF_EEXISTS)
            sleep_ms(1);
        atomic_fetch_add(&own->scene->accepted, 1);
    }
    return NULL;
}

/* The record of a task, also while the server is away; the caller frees it. */
static perf_task_record *end_of(struct scene *s, const char *id)
{
    perf_task_record *r = NULL;
    for (int tries = 0; perf_tasks_wait(s->tasks, id, 1000, &r) != PERF_OK; tries++) {
        cr_assert(tries < 1000, "%s has not ended: %s", id, perf_last_error());
        sleep_ms(20); /* an error comes at once */
    }
    return r;
}

Test(task_engine_redis, server_dies_and_every_task_ends_as_recorded)
{
    static const struct test_redis durable = {.appendonly = true, .config = "appendfsync always\n"};
    struct scene s;
    struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    scene_open(&s, &durable);
    for (int i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){&s, i};
        cr_assert(!pthread_create(&threads[i], NULL, submit_numbers, &submitters[i]));
    }
    for (int death = 1; death <= DEATHS; death++) {
        EVENTUALLY(atomic_load(&s.accepted) >= death * TASKS / (DEATHS + 1));
        test_server_kill(s.server);
        cr_assert(test_server_restart(s.server), "%s", test_server_why());
    }
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(threads[i], NULL);
    for (int n = 0; n < TASKS; n++) {
        char number[16], id[24];
        snprintf(number, sizeof number, "%d", n);
        snprintf(id, sizeof id, "number-%d", n);
        perf_task_record *r = end_of(&s, id);
        if (n % 5 == 0) {
            cr_assert_eq(r->state, PERF_TASK_FAILED, "%s: %s", id, r->history);
            cr_assert_eq(r->status, PERF_EINVAL);
            cr_assert_str_eq(r->error, "a fifth one");
        } else {
            cr_assert_eq(r->state, PERF_TASK_SUCCEEDED, "%s: %s", id, r->history);
            cr_assert(r->result.len == strlen(number) &&
                      !memcmp(r->result.data, number, r->result.len));
        }
        perf_task_record_free(r);
    }
    perf_tasks_counts c = PERF_TASKS_COUNTS_INIT;
    OK(perf_tasks_count(s.tasks, NULL, &c));
    cr_assert_eq(c.succeeded, TASKS - TASKS / 5);
    cr_assert_eq(c.failed, TASKS / 5);
    cr_assert_eq(c.waiting + c.queued + c.running + c.retrying + c.cancelled + c.dead, 0);
    scene_close(&s);
}

Test(task_engine_redis, a_large_result_is_kept)
{
    struct scene s;
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    scene_open(&s, NULL);
    o.id = "large";
    OK(perf_tasks_submit(s.tasks, "large", "", 0, &o, NULL));
    perf_task_record *r = end_of(&s, "large");
    cr_assert_eq(r->state, PERF_TASK_SUCCEEDED, "%s", r->history);
    cr_assert_eq(r->result.len, LARGE);
    cr_assert(((const char *)r->result.data)[0] == 'x' &&
              ((const char *)r->result.data)[LARGE - 1] == 'x');
    perf_task_record_free(r);
    scene_close(&s);
}
