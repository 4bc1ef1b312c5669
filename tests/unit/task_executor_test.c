/* SPDX-License-Identifier: MIT */
/* The executor: threads, queues, priorities, what happens when full, growing, closing. */
#include <libperf/executor.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leaks.h"
#include "seams.h"
#include "test.h"

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s, %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)

static perf_executor *open_with(uint64_t min, uint64_t max, uint64_t max_queued, int64_t full)
{
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e;
    o.min_threads = min;
    o.max_threads = max;
    o.max_queued = max_queued;
    o.full = full;
    o.full_timeout_ms = 50;
    OK(perf_executor_open(&o, &e));
    return e;
}

/* A door that tasks wait behind. */
static pthread_mutex_t door_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t door_cond = PTHREAD_COND_INITIALIZER;
static bool door_open;
static atomic_int behind, ran;

static void door(bool open)
{
    pthread_mutex_lock(&door_mutex);
    door_open = open;
    pthread_cond_broadcast(&door_cond);
    pthread_mutex_unlock(&door_mutex);
}

static void wait_at_door(void *unused)
{
    (void)unused;
    atomic_fetch_add(&behind, 1);
    pthread_mutex_lock(&door_mutex);
    while (!door_open)
        pthread_cond_wait(&door_cond, &door_mutex);
    pthread_mutex_unlock(&door_mutex);
    atomic_fetch_add(&ran, 1);
}

static int task_at_door(perf_run *run, void *unused)
{
    (void)run;
    wait_at_door(unused);
    return PERF_OK;
}

static void until(atomic_int *value, int wanted)
{
    for (int i = 0; i < 20000 && atomic_load(value) < wanted; i++)
        usleep(500);
    cr_assert_geq(atomic_load(value), wanted);
}

static void begin(void)
{
    atomic_store(&behind, 0);
    atomic_store(&ran, 0);
    door(false);
}

static void count(void *n)
{
    atomic_fetch_add((atomic_int *)n, 1);
}

Test(task_executor, options_are_checked)
{
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e = NULL;
    o.min_threads = 600;
    cr_assert_eq(perf_executor_open(&o, &e), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "min_threads") && strstr(perf_last_error(), "600"));
    o.min_threads = 4;
    o.max_threads = 3;
    cr_assert_eq(perf_executor_open(&o, &e), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "max_threads"));
    o.max_threads = 0;
    o.full = 9;
    cr_assert_eq(perf_executor_open(&o, &e), PERF_EINVAL);
    o.full = 0;
    o.name = "a name that is too long";
    cr_assert_eq(perf_executor_open(&o, &e), PERF_EINVAL);
    cr_assert_null(e);
    cr_assert_eq(perf_executor_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_executor_post(NULL, count, NULL), PERF_EINVAL);
    cr_assert_eq(perf_executor_close(NULL, 0), PERF_OK);
    cr_assert_eq(perf_executor_resize(NULL, 1, 1), PERF_EINVAL);
}

Test(task_executor, runs_everything_once_from_many_threads, .timeout = 60)
{
    struct test_leaks leaks = test_leaks_begin();
    enum { THREADS = 4, EACH = 20000 };
    static atomic_int n;
    perf_executor *e = open_with(3, 3, 1024, PERF_SUBMIT_BLOCK);
    pthread_t threads[THREADS];
    atomic_store(&n, 0);
    extern void *task_executor_poster(void *);
    struct {
        perf_executor *e;
        atomic_int *n;
        int each;
    } job = {e, &n, EACH};
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, task_executor_poster, &job);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    OK(perf_executor_drain(e, 30000));
    cr_assert_eq(atomic_load(&n), THREADS * EACH);
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    OK(perf_executor_get_stats(e, &s));
    cr_assert_eq(s.submitted, (uint64_t)THREADS * EACH);
    cr_assert_eq(s.completed, s.submitted);
    cr_assert_eq(s.queued, 0);
    cr_assert_eq(s.running, 0);
    cr_assert_leq(s.threads_max, 3);
    OK(perf_executor_close(e, 1000));
    test_leaks_end(&leaks);
}

void *task_executor_poster(void *arg)
{
    struct {
        perf_executor *e;
        atomic_int *n;
        int each;
    } *job = arg;
    for (int i = 0; i < job->each; i++)
        while (perf_executor_post(job->e, count, job->n) == PERF_EBUSY)
            ; /* the machine is slow: the queue was full for longer than full_timeout_ms */
    return NULL;
}

Test(task_executor, full_blocks_fails_or_runs_in_the_caller, .timeout = 60)
{
    begin();
    perf_executor *e = open_with(1, 1, 4, PERF_SUBMIT_FAIL);
    static atomic_int n;
    atomic_store(&n, 0);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    for (int i = 0; i < 4; i++)
        OK(perf_executor_post(e, count, &n));
    cr_assert_eq(perf_executor_post(e, count, &n), PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "max_queued is 4"));
    door(true);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&n), 4);

    begin();
    atomic_store(&n, 0);
    e = open_with(1, 1, 4, PERF_SUBMIT_RUN);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    for (int i = 0; i < 6; i++)
        OK(perf_executor_post(e, count, &n));
    cr_assert_eq(atomic_load(&n), 2); /* the two that found no room */
    door(true);
    OK(perf_executor_drain(e, 5000));
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    OK(perf_executor_get_stats(e, &s));
    cr_assert_eq(s.ran_in_caller, 2);
    cr_assert_eq(s.completed, 7);
    OK(perf_executor_close(e, 5000));

    begin();
    e = open_with(1, 1, 2, PERF_SUBMIT_BLOCK);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    OK(perf_executor_post(e, count, &n));
    OK(perf_executor_post(e, count, &n));
    cr_assert_eq(perf_executor_post(e, count, &n), PERF_EBUSY); /* after full_timeout_ms */
    door(true);
    OK(perf_executor_close(e, 5000));
}

static atomic_int order_next;
static int order[64];

static int note(perf_run *run, void *what)
{
    (void)run;
    order[atomic_fetch_add(&order_next, 1)] = (int)(intptr_t)what;
    return PERF_OK;
}

Test(task_executor, higher_priorities_first_and_none_starves, .timeout = 60)
{
    begin();
    atomic_store(&order_next, 0);
    perf_executor *e = open_with(1, 1, 1024, PERF_SUBMIT_FAIL);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    for (int i = 0; i < 40; i++) {
        o.priority = i < 2 ? PERF_PRIORITY_LOW : i < 4 ? PERF_PRIORITY_NORMAL : PERF_PRIORITY_HIGH;
        OK(perf_task_submit(e, note, (void *)(intptr_t)o.priority, &o, NULL));
    }
    door(true);
    OK(perf_executor_drain(e, 10000));
    int low_at = 0, high = 0;
    for (int i = 0; i < 40; i++) {
        high += i < 16 && order[i] == PERF_PRIORITY_HIGH;
        if (order[i] == PERF_PRIORITY_LOW && !low_at)
            low_at = i + 1;
    }
    cr_assert_geq(high, 13);   /* of the first sixteen, one or two turns are the others' */
    cr_assert_leq(low_at, 17); /* and the low ones do not wait for all high ones */
    cr_assert_eq(atomic_load(&order_next), 40);
    OK(perf_executor_close(e, 1000));
}

Test(task_executor, grows_while_tasks_wait_and_shrinks_when_idle, .timeout = 60)
{
    begin();
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e;
    o.min_threads = 1;
    o.max_threads = 4;
    o.grow_after_ms = 5;
    o.idle_timeout_ms = 30;
    OK(perf_executor_open(&o, &e));
    for (int i = 0; i < 8; i++)
        OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 4);
    usleep(30000);
    cr_assert_eq(atomic_load(&behind), 4); /* and not more than max_threads */
    door(true);
    OK(perf_executor_drain(e, 10000));
    cr_assert_eq(atomic_load(&ran), 8);
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    for (int i = 0; i < 4000; i++) {
        OK(perf_executor_get_stats(e, &s));
        if (s.threads == 1)
            break;
        usleep(1000);
    }
    cr_assert_eq(s.threads, 1);
    cr_assert_eq(s.threads_max, 4);
    begin(); /* a thread that has ended is replaced */
    for (int i = 0; i < 4; i++)
        OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 4);
    door(true);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&ran), 4);
}

Test(task_executor, grows_for_what_comes_while_all_are_busy, .timeout = 60)
{
    begin();
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e;
    o.min_threads = 1;
    o.max_threads = 3;
    o.grow_after_ms = 5;
    OK(perf_executor_open(&o, &e));
    for (int i = 1; i <= 3; i++) {
        OK(perf_executor_post(e, wait_at_door, NULL));
        until(&behind, i);
        usleep(20000); /* nothing has waited for some ticks when the next one comes */
    }
    door(true);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&ran), 3);
}

Test(task_executor, resize, .timeout = 60)
{
    begin();
    perf_executor *e = open_with(1, 1, 64, PERF_SUBMIT_FAIL);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    OK(perf_executor_resize(e, 3, 3));
    for (int i = 0; i < 4; i++)
        OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 3);
    cr_assert_eq(perf_executor_resize(e, 3, 2), PERF_EINVAL);
    OK(perf_executor_resize(e, 1, 1));
    door(true);
    OK(perf_executor_drain(e, 5000));
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    for (int i = 0; i < 4000; i++) {
        OK(perf_executor_get_stats(e, &s));
        if (s.threads == 1)
            break;
        usleep(1000);
    }
    cr_assert_eq(s.threads, 1);
    OK(perf_executor_close(e, 1000));
}

static int until_cancelled(perf_run *run, void *unused)
{
    (void)unused;
    atomic_fetch_add(&behind, 1);
    int rc;
    while (!(rc = perf_run_cancelled(run)))
        usleep(200);
    return rc;
}

Test(task_executor, close_drains_then_stops, .timeout = 60)
{
    begin();
    perf_executor *e = open_with(1, 1, 64, PERF_SUBMIT_FAIL);
    perf_task *running, *queued;
    static atomic_int n;
    atomic_store(&n, 0);
    OK(perf_task_submit(e, until_cancelled, NULL, NULL, &running));
    until(&behind, 1);
    OK(perf_task_submit(e, note, NULL, NULL, &queued));
    OK(perf_executor_post(e, count, &n));
    OK(perf_executor_close(e, 20));
    cr_assert_eq(perf_task_wait(running, 0, NULL), PERF_ECANCELED);
    cr_assert_eq(perf_task_state(running), PERF_TASK_CANCELLED);
    cr_assert_eq(perf_task_wait(queued, 0, NULL), PERF_ECANCELED);
    cr_assert_eq(atomic_load(&n), 0);
    perf_task_release(running);
    perf_task_release(queued);

    begin(); /* one that does not listen: nothing is freed under it */
    e = open_with(1, 1, 64, PERF_SUBMIT_FAIL);
    OK(perf_executor_post(e, wait_at_door, NULL));
    until(&behind, 1);
    cr_assert_eq(perf_executor_close(e, 1), PERF_EBUSY);
    cr_assert_eq(perf_executor_post(e, count, &n), PERF_ECLOSED);
    door(true);
    OK(perf_executor_close(e, 1000));
    cr_assert_eq(atomic_load(&ran), 1);
}

static perf_executor *own;

static int close_it(perf_run *run, void *rc)
{
    (void)run;
    ((int *)rc)[0] = perf_executor_close(own, 10);
    ((int *)rc)[1] = perf_executor_drain(own, 10);
    return PERF_OK;
}

Test(task_executor, a_task_cannot_close_its_own)
{
    int rc[2] = {0, 0};
    perf_task *task;
    own = open_with(1, 1, 64, PERF_SUBMIT_FAIL);
    OK(perf_task_submit(own, close_it, rc, NULL, &task));
    OK(perf_task_wait(task, 10000, NULL));
    cr_assert_eq(rc[0], PERF_EDEADLK);
    cr_assert_eq(rc[1], PERF_EDEADLK);
    perf_task_release(task);
    OK(perf_executor_close(own, 1000));
}

#ifndef TEST_WITHOUT_CRITERION /* ThreadSanitizer ends children that start threads */
Test(task_executor, a_forked_child_opens_its_own, .timeout = 60)
{
    static atomic_int n;
    atomic_store(&n, 0);
    perf_executor *e = open_with(2, 2, 64, PERF_SUBMIT_FAIL);
    OK(perf_executor_post(e, count, &n));
    OK(perf_executor_drain(e, 5000));
    pid_t child = fork();
    if (!child) {
        bool right = perf_executor_post(e, count, &n) == PERF_EFORKED &&
                     perf_executor_drain(e, 10) == PERF_EFORKED &&
                     perf_executor_close(e, 0) == PERF_OK;
        perf_executor *mine = NULL;
        right = right && !perf_executor_open(NULL, &mine) && !perf_executor_post(mine, count, &n) &&
                !perf_executor_close(mine, 5000) && atomic_load(&n) == 2;
        _exit(right ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(perf_executor_close(e, 1000));
}
#endif

Test(task_executor, adaptive_stays_within_its_bounds, .timeout = 60)
{
    begin();
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e;
    o.min_threads = 2;
    o.max_threads = 6;
    o.grow_after_ms = 2;
    o.adaptive = 1;
    OK(perf_executor_open(&o, &e));
    for (int i = 0; i < 12; i++)
        OK(perf_task_submit(e, task_at_door, NULL, NULL, NULL));
    until(&behind, 2);
    usleep(30000);
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    OK(perf_executor_get_stats(e, &s));
    cr_assert(s.threads >= 2 && s.threads <= 6);
    door(true);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&ran), 12);
}

Test(task_executor, every_allocation_fails_once, .timeout = 60)
{
    struct test_host th;
    for (int64_t at = 1; at < 100; at++) {
        perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
        perf_executor *e = NULL;
        perf_task *task = NULL;
        perf_task_group *group = NULL;
        static atomic_int n;
        o.host = test_host_init(&th);
        o.max_queued = 64;
        o.min_threads = 1;
        atomic_store(&th.fail_at, at);
        int rc = perf_executor_open(&o, &e);
        perf_task_options to = PERF_TASK_OPTIONS_INIT;
        if (!rc)
            rc = perf_task_group_open(e, &group);
        to.group = group;
        to.timeout_ms = 1000000;
        if (!rc)
            rc = perf_executor_post(e, count, &n);
        if (!rc)
            rc = perf_task_submit(e, note, NULL, &to, &task);
        if (!rc)
            rc = perf_task_on_done(task, NULL, NULL) == PERF_EINVAL ? PERF_OK : PERF_EIO;
        if (!rc)
            rc = perf_task_wait(task, -1, NULL);
        atomic_store(&order_next, 0);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%s", perf_last_error());
        perf_task_release(task);
        perf_task_group_close(group);
        OK(perf_executor_close(e, 5000));
        cr_assert_eq(atomic_load(&th.live), 0, "%d blocks", (int)atomic_load(&th.live));
        if (!atomic_load(&th.failed))
            return;
    }
    cr_assert_fail("it never came to an end");
}
