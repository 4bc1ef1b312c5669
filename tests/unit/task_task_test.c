/* SPDX-License-Identifier: MIT */
/* Tasks of an executor: waiting, cancelling, time, progress, groups, chains, recurring work. */
#include <libperf/executor.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leaks.h"
#include "seams.h"
#include "test.h"

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s, %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)

static perf_executor *open_one(uint64_t threads, const perf_host *host)
{
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    perf_executor *e;
    o.min_threads = threads;
    o.host = host;
    OK(perf_executor_open(&o, &e));
    return e;
}

static void until_state(perf_task *task, int state)
{
    for (int i = 0; i < 20000 && perf_task_state(task) != state; i++)
        usleep(500);
    cr_assert_eq(perf_task_state(task), state);
}

static atomic_int calls, freed;

static int say_hello(perf_run *run, void *arg)
{
    atomic_fetch_add(&calls, 1);
    return perf_run_result(run, arg, strlen(arg));
}

static int fail(perf_run *run, void *arg)
{
    (void)arg;
    return perf_run_fail(run, PERF_EIO, "the disk is gone");
}

static atomic_int left_ms;

static int until_cancelled(perf_run *run, void *arg)
{
    (void)arg;
    int rc;
    atomic_store(&left_ms, (int)perf_run_remaining_ms(run));
    while (!(rc = perf_run_cancelled(run)))
        usleep(200);
    return rc;
}

static void free_arg(void *arg)
{
    (void)arg;
    atomic_fetch_add(&freed, 1);
}

Test(task_task, gives_a_result_or_a_reason, .timeout = 60)
{
    perf_executor *e = open_one(2, NULL);
    perf_task *task;
    perf_bytes result;
    OK(perf_task_submit(e, say_hello, "hello", NULL, &task));
    OK(perf_task_wait(task, 10000, &result));
    cr_assert(result.len == 5 && !memcmp(result.data, "hello", 5));
    cr_assert_eq(perf_task_state(task), PERF_TASK_SUCCEEDED);
    cr_assert_str_eq(perf_task_error(task), "");
    OK(perf_task_wait(task, 0, &result)); /* as often as one likes */
    perf_task_release(task);

    OK(perf_task_submit(e, fail, NULL, NULL, &task));
    cr_assert_eq(perf_task_wait(task, 10000, NULL), PERF_EIO);
    cr_assert_str_eq(perf_last_error(), "the disk is gone");
    cr_assert_str_eq(perf_task_error(task), "the disk is gone");
    cr_assert_eq(perf_task_state(task), PERF_TASK_FAILED);
    cr_assert_eq(perf_task_cancel(task), PERF_MISS);
    perf_task_release(task);

    cr_assert_eq(perf_task_submit(e, NULL, NULL, NULL, &task), PERF_EINVAL);
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    o.priority = 2;
    o.free_arg = free_arg;
    atomic_store(&freed, 0);
    cr_assert_eq(perf_task_submit(e, fail, NULL, &o, &task), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "priority"));
    cr_assert_eq(atomic_load(&freed), 1);
    o.priority = 0;
    OK(perf_task_submit(e, fail, NULL, &o, NULL));
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&freed), 2);
}

Test(task_task, is_cancelled_before_and_while_it_runs, .timeout = 60)
{
    perf_executor *e = open_one(1, NULL);
    perf_task *running, *queued;
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    o.free_arg = free_arg;
    atomic_store(&freed, 0);
    atomic_store(&calls, 0);
    OK(perf_task_submit(e, until_cancelled, NULL, NULL, &running));
    until_state(running, PERF_TASK_RUNNING);
    OK(perf_task_submit(e, say_hello, "x", &o, &queued));
    cr_assert_eq(perf_task_wait(queued, 0, NULL), PERF_ETIMEDOUT);
    cr_assert_eq(perf_task_state(queued), PERF_TASK_QUEUED);
    OK(perf_task_cancel(queued));
    cr_assert_eq(perf_task_wait(queued, 0, NULL), PERF_ECANCELED);
    cr_assert_eq(perf_task_state(queued), PERF_TASK_CANCELLED);
    cr_assert_eq(atomic_load(&freed), 1);
    OK(perf_task_cancel(running));
    cr_assert_eq(perf_task_wait(running, 10000, NULL), PERF_ECANCELED);
    cr_assert_eq(perf_task_state(running), PERF_TASK_CANCELLED);
    perf_task_release(running);
    perf_task_release(queued);
    OK(perf_executor_drain(e, 5000));
    perf_executor_stats s = PERF_EXECUTOR_STATS_INIT;
    OK(perf_executor_get_stats(e, &s));
    cr_assert_eq(s.cancelled, 1);
    cr_assert_eq(s.completed, 1);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&calls), 0);
}

Test(task_task, has_a_time, .timeout = 60)
{
    struct test_host th;
    perf_executor *e = open_one(1, test_host_init(&th));
    perf_task *running, *queued, *delayed;
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    atomic_store(&left_ms, 0);
    o.timeout_ms = 1000;
    OK(perf_task_submit(e, until_cancelled, NULL, &o, &running));
    until_state(running, PERF_TASK_RUNNING);
    for (int i = 0; i < 20000 && !atomic_load(&left_ms); i++)
        usleep(500);
    cr_assert_eq(atomic_load(&left_ms), 1000);
    OK(perf_task_submit(e, say_hello, "x", &o, &queued));
    test_host_advance(&th, 1001);
    cr_assert_eq(perf_task_wait(queued, -1, NULL), PERF_ETIMEDOUT);
    cr_assert_eq(perf_task_state(queued), PERF_TASK_CANCELLED);
    cr_assert_eq(perf_task_wait(running, -1, NULL), PERF_ETIMEDOUT);
    perf_task_release(running);
    perf_task_release(queued);

    o.timeout_ms = 0;
    o.delay_ms = 5000;
    OK(perf_task_submit(e, say_hello, "later", &o, &delayed));
    cr_assert_eq(perf_task_state(delayed), PERF_TASK_WAITING);
    OK(perf_executor_drain(e, 5000)); /* does not wait for it */
    test_host_advance(&th, 4999);
    usleep(20000);
    cr_assert_eq(perf_task_state(delayed), PERF_TASK_WAITING);
    test_host_advance(&th, 1);
    OK(perf_task_wait(delayed, -1, NULL));
    perf_task_release(delayed);

    OK(perf_task_submit(e, say_hello, "never", &o, &delayed));
    OK(perf_executor_close(e, 1000));
    cr_assert_eq(perf_task_state(delayed), PERF_TASK_CANCELLED);
    perf_task_release(delayed);
    cr_assert_eq(atomic_load(&th.live), 0);
}

static int children(perf_run *run, void *arg)
{
    perf_task *child;
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    o.parent = run;
    int rc = perf_task_submit(arg, until_cancelled, NULL, &o, &child);
    if (rc)
        return rc;
    rc = perf_task_wait(child, -1, NULL);
    perf_task_release(child);
    return rc;
}

Test(task_task, children_end_with_their_parent, .timeout = 60)
{
    perf_executor *e = open_one(2, NULL);
    perf_task *parent;
    OK(perf_task_submit(e, children, e, NULL, &parent));
    until_state(parent, PERF_TASK_RUNNING);
    usleep(5000);
    OK(perf_task_cancel(parent));
    cr_assert_eq(perf_task_wait(parent, 20000, NULL), PERF_ECANCELED);
    perf_task_release(parent);
    OK(perf_executor_close(e, 5000));
}

/* ------------------------------------------------------- waiting inside tasks */

struct fib {
    perf_executor *e;
    int n, result;
};

static int fib(perf_run *run, void *arg)
{
    struct fib *f = arg;
    if (f->n < 2) {
        f->result = f->n;
        return PERF_OK;
    }
    struct fib a = {f->e, f->n - 1, 0}, b = {f->e, f->n - 2, 0};
    perf_task *task;
    int rc = perf_task_submit(f->e, fib, &a, NULL, &task);
    if (rc)
        return rc;
    rc = fib(run, &b);
    int other = perf_task_wait(task, -1, NULL);
    perf_task_release(task);
    f->result = a.result + b.result;
    return rc ? rc : other;
}

Test(task_task, tasks_wait_for_tasks_on_one_thread, .timeout = 120)
{
    for (uint64_t threads = 1; threads <= 3; threads++) {
        perf_executor *e = open_one(threads, NULL);
        struct fib f = {e, 16, 0};
        perf_task *task;
        OK(perf_task_submit(e, fib, &f, NULL, &task));
        OK(perf_task_wait(task, 60000, NULL));
        cr_assert_eq(f.result, 987);
        perf_task_release(task);
        OK(perf_executor_close(e, 5000));
    }
}

static perf_task *_Atomic self_task;

static int wait_for_self(perf_run *run, void *arg)
{
    (void)run;
    (void)arg;
    perf_task *task;
    while (!(task = atomic_load(&self_task)))
        usleep(100);
    return perf_task_wait(task, -1, NULL);
}

Test(task_task, waiting_for_itself_is_noticed, .timeout = 60)
{
    perf_executor *e = open_one(1, NULL);
    perf_task *task;
    atomic_store(&self_task, NULL);
    OK(perf_task_submit(e, wait_for_self, NULL, NULL, &task));
    atomic_store(&self_task, task);
    cr_assert_eq(perf_task_wait(task, 20000, NULL), PERF_EDEADLK);
    perf_task_release(task);
    OK(perf_executor_close(e, 5000));
}

/* A chain behind a task that is queued behind the waiter: only one more thread can help. */
static int wait_for_chain(perf_run *run, void *arg)
{
    (void)run;
    perf_task *first, *next;
    int rc = perf_task_submit(arg, say_hello, "a", NULL, &first);
    if (rc)
        return rc;
    rc = perf_task_then(first, say_hello, "b", NULL, &next);
    if (!rc)
        rc = perf_task_wait(next, 20000, NULL);
    perf_task_release(first);
    perf_task_release(next);
    return rc;
}

Test(task_task, a_waiting_thread_is_replaced, .timeout = 60)
{
    perf_executor *e = open_one(1, NULL);
    perf_task *task;
    OK(perf_task_submit(e, wait_for_chain, e, NULL, &task));
    OK(perf_task_wait(task, 30000, NULL));
    perf_task_release(task);
    OK(perf_executor_close(e, 5000));
}

/* ------------------------------------------------------------------- progress */

static atomic_int stage;

static int work(perf_run *run, void *arg)
{
    (void)arg;
    cr_assert_eq(perf_run_progress(run, 1.5, NULL), PERF_EINVAL);
    OK(perf_run_progress(run, 0.25, "reading \xc3\xa9t\xc3\xa9"));
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2)
        usleep(100);
    OK(perf_run_count(run, 30, 40));
    atomic_store(&stage, 3);
    while (atomic_load(&stage) != 4)
        usleep(100);
    return PERF_OK;
}

Test(task_task, tells_its_progress, .timeout = 60)
{
    struct test_host th;
    perf_executor *e = open_one(1, test_host_init(&th));
    perf_progress p = PERF_PROGRESS_INIT;
    perf_task *task;
    atomic_store(&stage, 0);
    OK(perf_task_submit(e, work, NULL, NULL, &task));
    while (atomic_load(&stage) != 1)
        usleep(100);
    test_host_advance(&th, 1000);
    OK(perf_task_progress(task, &p));
    cr_assert(fabs(p.fraction - 0.25) < 1e-9);
    cr_assert_str_eq(p.text, "reading \xc3\xa9t\xc3\xa9");
    cr_assert_eq(p.elapsed_ms, 1000);
    cr_assert_eq(p.remaining_ms, 3000);
    atomic_store(&stage, 2);
    while (atomic_load(&stage) != 3)
        usleep(100);
    test_host_advance(&th, 2000);
    OK(perf_task_progress(task, &p));
    cr_assert(fabs(p.fraction - 0.75) < 1e-9);
    cr_assert(fabs(p.rate - 10) < 1e-6); /* 30 in three seconds */
    cr_assert_eq(p.remaining_ms, 1000);
    cr_assert(p.done == 30 && p.total == 40);
    atomic_store(&stage, 4);
    OK(perf_task_wait(task, -1, NULL));
    OK(perf_task_progress(task, &p));
    cr_assert(fabs(p.fraction - 1) < 1e-9);
    perf_task_release(task);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* -------------------------------------------------- callbacks and descriptors */

static void ended(void *ctx, perf_task *task)
{
    cr_assert_geq(perf_task_state(task), PERF_TASK_SUCCEEDED);
    atomic_fetch_add((atomic_int *)ctx, 1);
}

Test(task_task, is_called_back_and_polled, .timeout = 60)
{
    struct test_leaks leaks = test_leaks_begin();
    static atomic_int n;
    atomic_store(&n, 0);
    perf_executor *e = open_one(2, NULL);
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    perf_task *task, *next;
    o.done = ended;
    o.done_ctx = &n;
    o.notify = 1;
    OK(perf_task_submit(e, say_hello, "x", &o, &task));
    OK(perf_task_on_done(task, ended, &n));
    int fd, again, all;
    OK(perf_task_fd(task, &fd));
    OK(perf_task_fd(task, &again));
    OK(perf_executor_fd(e, &all));
    cr_assert_eq(fd, again);
    struct pollfd p[2] = {{fd, POLLIN, 0}, {all, POLLIN, 0}};
    while (poll(p, 2, 20000) == 1) /* one of them may be a moment earlier */
        ;
    cr_assert(p[0].revents & POLLIN);
    cr_assert(p[1].revents & POLLIN);
    OK(perf_executor_next(e, &next));
    cr_assert_eq(next, task);
    cr_assert_eq(perf_executor_next(e, &next), PERF_MISS);
    cr_assert_eq(poll(&p[1], 1, 0), 0);
    OK(perf_task_on_done(task, ended, &n)); /* at once */
    OK(perf_executor_drain(e, 5000));
    cr_assert_eq(atomic_load(&n), 3);
    perf_task_release(perf_task_retain(task));
    perf_task_release(task);
    perf_task_release(task); /* that of perf_executor_next */
    OK(perf_task_submit(e, say_hello, "nobody asks for it", &o, NULL));
    OK(perf_executor_close(e, 5000));
    test_leaks_end(&leaks);
}

/* --------------------------------------------------------------------- groups */

static int add(perf_run *run, void *arg)
{
    (void)run;
    atomic_fetch_add((atomic_int *)arg, 1);
    return PERF_OK;
}

static int fan_out(perf_run *run, void *arg)
{
    (void)run;
    perf_executor *e = arg;
    static atomic_int n;
    perf_task_group *group;
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    atomic_store(&n, 0);
    int rc = perf_task_group_open(e, &group);
    o.group = group;
    for (int i = 0; !rc && i < 1000; i++)
        rc = perf_task_submit(e, add, &n, &o, NULL);
    if (!rc)
        rc = perf_task_group_wait(group, 30000);
    perf_task_group_close(group);
    return rc || atomic_load(&n) == 1000 ? rc : PERF_EIO;
}

Test(task_task, groups, .timeout = 60)
{
    struct test_host th;
    perf_executor *e = open_one(2, test_host_init(&th));
    perf_task_group *group;
    perf_task_options o = PERF_TASK_OPTIONS_INIT;
    perf_task *task;
    int failed = 0, n = 0, rc;
    OK(perf_task_group_open(e, &group));
    OK(perf_task_group_wait(group, 0)); /* nobody is in it */
    cr_assert_eq(perf_task_group_next(group, 0, &task), PERF_MISS);
    o.group = group;
    for (int i = 0; i < 10; i++)
        OK(perf_task_submit(e, i == 4 ? fail : say_hello, "x", &o, NULL));
    while ((rc = perf_task_group_next(group, -1, &task)) == PERF_OK) {
        failed += perf_task_state(task) == PERF_TASK_FAILED;
        n++;
        perf_task_release(task);
    }
    cr_assert_eq(rc, PERF_MISS);
    cr_assert_eq(n, 10);
    cr_assert_eq(failed, 1);
    cr_assert_eq(perf_task_group_wait(group, -1), PERF_EIO);
    cr_assert_str_eq(perf_last_error(), "the disk is gone");
    perf_task_group_close(group);

    OK(perf_task_group_open(e, &group));
    o.group = group;
    for (int i = 0; i < 8; i++)
        OK(perf_task_submit(e, until_cancelled, NULL, &o, NULL));
    cr_assert_eq(perf_task_group_wait(group, 0), PERF_ETIMEDOUT);
    OK(perf_task_group_cancel(group));
    cr_assert_eq(perf_task_group_wait(group, -1), PERF_ECANCELED);
    perf_task_group_close(group);

    OK(perf_task_submit(e, fan_out, e, NULL, &task));
    OK(perf_task_wait(task, -1, NULL));
    perf_task_release(task);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&th.live), 0, "%d", (int)atomic_load(&th.live));
}

/* --------------------------------------------------------------------- chains */

static int append(perf_run *run, void *arg)
{
    perf_bytes in = {"", 0};
    int rc = perf_run_input(run, &in);
    cr_assert(rc == PERF_OK || rc == PERF_MISS);
    char text[64];
    int n = snprintf(text, sizeof text, "%.*s%s", (int)in.len, (const char *)in.data,
                     (const char *)arg);
    return perf_run_result(run, text, (size_t)n);
}

Test(task_task, chains, .timeout = 60)
{
    struct test_host th;
    perf_executor *e = open_one(2, test_host_init(&th));
    perf_task *a, *b, *c;
    perf_bytes result;
    OK(perf_task_submit(e, append, "one", NULL, &a));
    OK(perf_task_then(a, append, " two", NULL, &b));
    OK(perf_task_then(b, append, " three", NULL, &c));
    perf_task_release(a);
    perf_task_release(b);
    OK(perf_task_wait(c, -1, &result));
    cr_assert_eq(result.len, 13);
    cr_assert(!memcmp(result.data, "one two three", 13));
    perf_task_release(c);

    atomic_store(&calls, 0);
    OK(perf_task_submit(e, fail, NULL, NULL, &a));
    OK(perf_task_then(a, say_hello, "x", NULL, &b));
    OK(perf_task_then(b, say_hello, "x", NULL, &c));
    cr_assert_eq(perf_task_wait(c, -1, NULL), PERF_EIO);
    cr_assert_str_eq(perf_last_error(), "the disk is gone");
    cr_assert_eq(atomic_load(&calls), 0);
    perf_task_release(a);
    perf_task_release(b);
    perf_task_release(c);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* ------------------------------------------------------------------ recurring */

Test(task_task, comes_again, .timeout = 60)
{
    struct test_host th;
    static atomic_int n;
    atomic_store(&n, 0);
    perf_executor *e = open_one(1, test_host_init(&th));
    perf_task *task, *failing;
    OK(perf_task_every(e, 1000, add, &n, NULL, &task));
    OK(perf_task_every(e, 1000, fail, NULL, NULL, &failing));
    for (int round = 1; round <= 3; round++) {
        usleep(5000);
        cr_assert_eq(atomic_load(&n), round - 1);
        test_host_advance(&th, 1000);
        for (int i = 0; i < 20000 && atomic_load(&n) < round; i++)
            usleep(500);
        cr_assert_eq(atomic_load(&n), round);
    }
    OK(perf_task_cancel(task));
    cr_assert_eq(perf_task_wait(task, -1, NULL), PERF_ECANCELED);
    test_host_advance(&th, 5000);
    usleep(10000);
    cr_assert_eq(atomic_load(&n), 3);
    cr_assert_lt(perf_task_state(failing), PERF_TASK_SUCCEEDED);
    cr_assert_eq(perf_task_every(e, 0, add, &n, NULL, NULL), PERF_EINVAL);
    perf_task_release(task);
    perf_task_release(failing);
    OK(perf_executor_close(e, 5000));
    cr_assert_eq(atomic_load(&th.live), 0);
}

/* --------------------------------------------------------------------- a storm */

static perf_executor *storm_executor;

static void *storm(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < 3000; i++) {
        perf_task_options o = PERF_TASK_OPTIONS_INIT;
        perf_task *task, *next = NULL;
        o.priority = (int)(rand_r(&seed) % 3) - 1;
        o.timeout_ms = rand_r(&seed) % 4 ? 0 : 1 + rand_r(&seed) % 3;
        o.delay_ms = rand_r(&seed) % 8 ? 0 : 1;
        while (perf_task_submit(storm_executor, say_hello, "x", &o, &task))
            ;
        if (rand_r(&seed) % 3 == 0)
            OK(perf_task_then(task, say_hello, "y", NULL, &next));
        if (rand_r(&seed) % 3 == 0)
            perf_task_cancel(task);
        if (rand_r(&seed) % 2)
            perf_task_wait(task, -1, NULL);
        perf_task_release(task);
        perf_task_release(next);
    }
    return NULL;
}

Test(task_task, a_storm_from_four_threads, .timeout = 120)
{
    struct test_host th;
    perf_host host = *test_host_init(&th);
    host.clock = NULL;
    pthread_t threads[4];
    storm_executor = open_one(2, &host);
    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, storm, (void *)(i + 1));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    OK(perf_executor_close(storm_executor, 20000));
    cr_assert_eq(atomic_load(&th.live), 0, "%d", (int)atomic_load(&th.live));
}
