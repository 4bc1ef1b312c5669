/* SPDX-License-Identifier: MIT */
/*
 * tasks_fixture.h - a queue of tasks whose time stands still until the test moves it (or goes by
 * itself), with handlers that do what the test wants.
 */
#ifndef TESTS_TASKS_FIXTURE_H
#define TESTS_TASKS_FIXTURE_H

#include <libperf/task.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "leaks.h"
#include "seams.h"
#include "test.h"

struct works {
    struct test_host th;
    perf_tasks *tasks;
    _Atomic int runs, running, peak; /* of all handlers */
    _Atomic int fail_with;           /* what `obey` returns, so often: */
    _Atomic int fail_times;
    _Atomic bool hold;   /* `linger` stays until this is false, or it is asked to stop */
    _Atomic bool hang;   /* `ignore` stays until this is false, whatever it is asked */
    _Atomic int stopped; /* what perf_run_cancelled said to the last that was asked to stop */
    char *path;          /* of SQLite's file; NULL: memory */
    struct test_leaks leaks;
};

static inline void sleep_ms(int64_t ms)
{
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* Waits until the condition holds, for what other threads do; fails after twenty seconds. */
#define EVENTUALLY(condition)                                  \
    do {                                                       \
        for (int tries_ = 0; !(condition); tries_++) {         \
            cr_assert_lt(tries_, 20000, "never: " #condition); \
            sleep_ms(1);                                       \
        }                                                      \
    } while (0)

#define OK(call)                                                                              \
    do {                                                                                      \
        int rc_ = (call);                                                                     \
        cr_assert_eq(rc_, PERF_OK, #call ": %s: %s", perf_strstatus(rc_), perf_last_error()); \
    } while (0)

#define FAILS(call, code, words)                                                                  \
    do {                                                                                          \
        int rc_ = (call);                                                                         \
        cr_assert_eq(rc_, code, #call ": %s: %s", perf_strstatus(rc_), perf_last_error());        \
        cr_assert(strstr(perf_last_error(), words), "%s lacks \"%s\"", perf_last_error(), words); \
    } while (0)

static inline void works_enter(struct works *w)
{
    int now = atomic_fetch_add(&w->running, 1) + 1, old = atomic_load(&w->peak);
    while (now > old && !atomic_compare_exchange_weak(&w->peak, &old, now))
        ;
    atomic_fetch_add(&w->runs, 1);
}

/* Succeeds with its payload as the result, or fails as told. */
static inline int obey(perf_run *run, void *ctx)
{
    struct works *w = ctx;
    works_enter(w);
    perf_bytes p;
    int rc = perf_run_payload(run, &p);
    rc = rc ? rc : perf_run_result(run, p.data, p.len);
    if (atomic_load(&w->fail_times) > 0) {
        atomic_fetch_sub(&w->fail_times, 1);
        rc = perf_run_fail(run, atomic_load(&w->fail_with), "as told");
    }
    atomic_fetch_sub(&w->running, 1);
    return rc;
}

static inline int linger(perf_run *run, void *ctx)
{
    struct works *w = ctx;
    int rc;
    works_enter(w);
    while (!(rc = perf_run_cancelled(run)) && atomic_load(&w->hold))
        sleep_ms(1);
    if (rc)
        atomic_store(&w->stopped, rc);
    atomic_fetch_sub(&w->running, 1);
    return rc;
}

static inline int ignore(perf_run *run, void *ctx)
{
    struct works *w = ctx;
    works_enter(w);
    /* Only the first attempt hangs. */
    while (perf_run_attempt(run) == 1 && atomic_load(&w->hang))
        sleep_ms(1);
    atomic_fetch_sub(&w->running, 1);
    return perf_run_result(run, "late", 4);
}

static inline void *do_nothing(void *arg)
{
    return arg;
}

/* options as the test wants them, but for backend, location and host. durable: SQLite. manual: a
 * clock that the test moves. Handlers for the kinds "obey", "linger" and "ignore". */
static inline void works_open(struct works *w, perf_tasks_options options, bool durable,
                              bool manual)
{
    pthread_t first; /* after it ThreadSanitizer has its own, too */
    memset(w, 0, sizeof *w);
    cr_assert(!pthread_create(&first, NULL, do_nothing, NULL) && !pthread_join(first, NULL));
    w->leaks = test_leaks_begin();
    const perf_host *host = test_host_init(&w->th);
    if (!manual)
        w->th.host.clock = NULL;
    if (durable)
        w->path = test_temp_file("tasks.db");
    if (!options.vtable)
        options.backend = durable ? "sqlite" : "memory";
    options.location = w->path;
    options.host = host;
    OK(perf_tasks_open(&options, &w->tasks));
}

static inline void works_handle(struct works *w, const perf_handler_options *options)
{
    OK(perf_tasks_handle(w->tasks, "obey", obey, w, options));
    OK(perf_tasks_handle(w->tasks, "linger", linger, w, options));
    OK(perf_tasks_handle(w->tasks, "ignore", ignore, w, options));
}

static inline void works_close(struct works *w)
{
    OK(perf_tasks_close(w->tasks, 10000));
    cr_assert_eq(atomic_load(&w->th.live), 0, "%lld blocks leaked",
                 (long long)atomic_load(&w->th.live));
    if (w->path)
        test_remove_dir_of(w->path);
    test_leaks_end(&w->leaks);
}

static inline perf_task_id submit(struct works *w, const char *kind, const char *payload,
                                  const perf_submit_options *options)
{
    perf_task_id id = {""};
    OK(perf_tasks_submit(w->tasks, kind, payload, strlen(payload), options, &id));
    return id;
}

/* The task's record; the caller frees it. */
static inline perf_task_record *record_of(struct works *w, const char *id)
{
    perf_task_record *r = NULL;
    OK(perf_tasks_get(w->tasks, id, &r));
    return r;
}

static inline int64_t state_of(struct works *w, const char *id)
{
    perf_task_record *r = record_of(w, id);
    int64_t state = r->state;
    perf_task_record_free(r);
    return state;
}

static inline int64_t attempts_of(struct works *w, const char *id)
{
    perf_task_record *r = record_of(w, id);
    int64_t attempts = r->attempts;
    perf_task_record_free(r);
    return attempts;
}

static inline void ends_as(struct works *w, const char *id, int64_t state)
{
    perf_task_record *r = NULL;
    OK(perf_tasks_wait(w->tasks, id, 20000, &r));
    cr_assert_eq(r->state, state, "%s ended as %lld (%s), not %lld: %s", id, (long long)r->state,
                 r->error, (long long)state, r->history);
    perf_task_record_free(r);
}

static inline perf_tasks_stats works_stats(struct works *w)
{
    perf_tasks_stats s = PERF_TASKS_STATS_INIT;
    OK(perf_tasks_get_stats(w->tasks, &s));
    return s;
}

#endif
