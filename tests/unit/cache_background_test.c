/* SPDX-License-Identifier: MIT */
/* The background threads: all jobs run, the bound holds, closing waits. */
#include "../../src/cache/background.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "seams.h"
#include "test.h"

struct counting {
    struct perf__job job; /* first, so that the two convert */
    struct perf__background *pool;
    atomic_int *inside, *most, *ran;
    atomic_bool *gate;
    int again; /* submits itself so many times more */
};

static void count(struct perf__job *job)
{
    struct counting *c = (struct counting *)job;
    int inside = atomic_fetch_add(c->inside, 1) + 1;
    int most = atomic_load(c->most);
    while (inside > most && !atomic_compare_exchange_weak(c->most, &most, inside))
        continue;
    while (c->gate && !atomic_load(c->gate))
        sched_yield();
    atomic_fetch_sub(c->inside, 1);
    /* The count is the last we do with a job that is not submitted again. */
    if (c->again-- > 0)
        cr_assert(perf__background_submit(c->pool, job) == PERF_OK);
    atomic_fetch_add(c->ran, 1);
}

struct fixture {
    struct test_host th;
    struct perf__host host;
    struct perf__background *pool;
    atomic_int inside, most, ran;
    atomic_bool gate;
};

static void set_up(struct fixture *f, uint64_t threads)
{
    *f = (struct fixture){0};
    cr_assert(perf__host_take(test_host_init(&f->th), &f->host) == PERF_OK);
    cr_assert(perf__background_open(&f->host, threads, &f->pool) == PERF_OK);
}

static struct counting job_of(struct fixture *f, bool gated)
{
    return (struct counting){.job = {count, NULL},
                             .pool = f->pool,
                             .inside = &f->inside,
                             .most = &f->most,
                             .ran = &f->ran,
                             .gate = gated ? &f->gate : NULL};
}

Test(background, jobs_run_on_no_more_threads_than_allowed)
{
    enum { JOBS = 100 };
    struct fixture f;
    set_up(&f, 3);
    static struct counting jobs[JOBS];
    for (size_t i = 0; i < JOBS; i++) {
        jobs[i] = job_of(&f, true);
        cr_assert(perf__background_submit(f.pool, &jobs[i].job) == PERF_OK);
    }
    while (atomic_load(&f.inside) < 3)
        sched_yield();
    atomic_store(&f.gate, true);
    perf__background_close(f.pool);
    cr_assert(atomic_load(&f.ran) == JOBS, "closing runs what is queued");
    cr_assert(atomic_load(&f.most) == 3, "%d at once", atomic_load(&f.most));
    cr_assert(f.th.live == 0);
}

Test(background, one_thread_keeps_the_order)
{
    struct fixture f;
    set_up(&f, 1);
    struct counting first = job_of(&f, true), second = job_of(&f, false);
    cr_assert(perf__background_submit(f.pool, &first.job) == PERF_OK);
    cr_assert(perf__background_submit(f.pool, &second.job) == PERF_OK);
    while (!atomic_load(&f.inside))
        sched_yield();
    cr_assert(atomic_load(&f.ran) == 0, "the second waits for the first");
    atomic_store(&f.gate, true);
    perf__background_close(f.pool);
    cr_assert(atomic_load(&f.ran) == 2 && atomic_load(&f.most) == 1);
}

Test(background, jobs_may_submit_while_it_closes)
{
    struct fixture f;
    set_up(&f, 2);
    struct counting job = job_of(&f, false);
    job.again = 1000;
    cr_assert(perf__background_submit(f.pool, &job.job) == PERF_OK);
    perf__background_close(f.pool);
    cr_assert(atomic_load(&f.ran) == 1001, "%d ran", atomic_load(&f.ran));
}

Test(background, no_work_no_thread)
{
    struct fixture f;
    set_up(&f, 2);
    perf__background_abandon(f.pool); /* would leak a running thread, if there were one */
    cr_assert(f.th.live == 0);
    perf__background_close(NULL);
    perf__background_abandon(NULL);
}

static void note_mask(struct perf__job *job)
{
    struct counting *c = (struct counting *)job;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    atomic_store(c->ran, sigismember(&mask, SIGTERM) && sigismember(&mask, SIGUSR1));
}

Test(background, threads_leave_signals_to_the_host)
{
    struct fixture f;
    set_up(&f, 1);
    struct counting job = job_of(&f, false);
    job.job.run = note_mask;
    cr_assert(perf__background_submit(f.pool, &job.job) == PERF_OK);
    perf__background_close(f.pool);
    cr_assert(atomic_load(&f.ran) == 1);
}

Test(background, failing_allocations_are_reported)
{
    struct fixture f;
    struct perf__background *pool;
    set_up(&f, 1);
    for (int64_t at = 1; at <= 2; at++) {
        f.th.fail_at = at;
        cr_assert(perf__background_open(&f.host, 2, &pool) == PERF_ENOMEM);
    }
    perf__background_close(f.pool);
    cr_assert(f.th.live == 0);
}
