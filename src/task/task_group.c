/* SPDX-License-Identifier: MIT */
/*
 * task_group.c - several tasks that are waited for together.
 *
 * One mutex, a list of the living and a list of the ended that nobody has named
 * yet; the group holds both. Who waits inside a task runs members that have not
 * begun, the newest first, for the oldest are being taken by the others.
 */
#include <string.h>

#include "executor_impl.h"

struct perf_task_group {
    perf_executor *executor;
    perf_allocator allocator;
    perf_clock clock;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    perf_task *living; /* the newest first */
    struct perf__done *ended, **ended_last;
    uint64_t count;   /* living */
    uint64_t holders; /* the user and the living: the last one frees it */
    int failed;       /* what the first that failed returned */
    char *why;        /* and why */
};

int perf_task_group_open(perf_executor *e, perf_task_group **out)
{
    perf_task_group *g;
    int rc;
    if ((rc = perf__executor_usable(e)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the group");
    if (!(g = perf__calloc(&e->host.allocator, 1, sizeof *g)))
        return perf__fail_nomem("a group of tasks");
    g->executor = e;
    g->allocator = e->host.allocator;
    g->clock = e->host.clock;
    g->ended_last = &g->ended;
    g->holders = 1;
    if ((rc = perf__locks_init(&g->mutex, &g->changed, "a group's locks"))) {
        perf_allocator allocator = g->allocator;
        perf__free(&allocator, g);
        return rc;
    }
    *out = g;
    return PERF_OK;
}

/* Under the mutex, which it gives up. */
static void let_go(perf_task_group *g)
{
    bool last = --g->holders == 0;
    pthread_mutex_unlock(&g->mutex);
    if (!last)
        return;
    while (g->ended) {
        struct perf__done *done = g->ended;
        g->ended = done->next;
        perf__task_unref(done->task);
    }
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->mutex);
    perf__free(&g->allocator, g->why);
    perf__free(&g->allocator, g);
}

void perf_task_group_close(perf_task_group *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->mutex);
    let_go(g);
}

/* ------------------------------------------------------- who belongs to it */

static void unlink_living(perf_task_group *g, perf_task *task)
{
    *task->group_link = task->group_next;
    if (task->group_next)
        task->group_next->group_link = task->group_link;
    g->count--;
}

static void ended(struct perf__done *self, perf_task *task)
{
    perf_task_group *g = self->ctx;
    pthread_mutex_lock(&g->mutex);
    unlink_living(g, task);
    self->task = task; /* the hold of the living becomes that of the ended */
    self->next = NULL;
    *g->ended_last = self;
    g->ended_last = &self->next;
    if (task->status < 0 && !g->failed) {
        const char *why = perf_task_error(task);
        g->failed = task->status;
        g->why = perf__strndup(&g->allocator, why, strlen(why));
    }
    pthread_cond_broadcast(&g->changed);
    let_go(g);
}

void perf__group_add(perf_task_group *g, perf_task *task)
{
    task->group = g;
    task->group_done = (struct perf__done){.fn = ended, .ctx = g};
    task->group_done.next = atomic_load(&task->done);
    atomic_store(&task->done, &task->group_done);
    perf_task_retain(task);
    pthread_mutex_lock(&g->mutex);
    task->group_next = g->living;
    task->group_link = &g->living;
    if (g->living)
        g->living->group_link = &task->group_next;
    g->living = task;
    g->count++;
    g->holders++;
    pthread_mutex_unlock(&g->mutex);
}

void perf__group_forget(perf_task_group *g, perf_task *task)
{
    pthread_mutex_lock(&g->mutex);
    unlink_living(g, task);
    let_go(g);
    perf__task_unref(task);
}

/* -------------------------------------------------------------------- waiting */

static int check(perf_task_group *g)
{
    return g ? PERF_OK
             : perf__fail(PERF_EINVAL, "group is NULL; give one that perf_task_group_open made");
}

/* Under the mutex, which it gives up meanwhile: runs a member that has not begun. False: there is
 * none. */
static bool help(perf_task_group *g)
{
    perf_task *task = g->living;
    while (task && !perf__task_take(task))
        task = task->group_next;
    if (!task)
        return false;
    perf_task_retain(task);
    pthread_mutex_unlock(&g->mutex);
    perf__counters_add(&g->executor->counters, PERF__HELPED, 1);
    perf__task_run(task);
    perf__task_unref(task);
    pthread_mutex_lock(&g->mutex);
    return true;
}

/* Under the mutex: until done(g), or PERF_ETIMEDOUT. */
static int wait_until(perf_task_group *g, int64_t timeout_ms, bool (*done)(perf_task_group *))
{
    struct perf__worker *self = perf__worker_self;
    bool inside = self && self->executor == g->executor;
    bool system_clock = g->clock.monotonic_ns == perf__default_clock.monotonic_ns;
    int64_t until_ns = timeout_ms > 0 && timeout_ms < INT64_MAX / 2000000
                           ? perf__now_ns(&g->clock) + timeout_ms * 1000000
                           : 0;
    while (!done(g)) {
        if (!timeout_ms || (until_ns && perf__now_ns(&g->clock) >= until_ns))
            return perf__fail(PERF_ETIMEDOUT, "%llu tasks of the group have not ended",
                              (unsigned long long)g->count);
        if (inside && help(g))
            continue;
        if (inside)
            perf__block_begin(g->executor);
        perf__cond_wait(&g->changed, &g->mutex,
                        until_ns && !system_clock ? perf__deadline_after(2) : until_ns);
        if (inside)
            perf__block_end(g->executor);
    }
    return PERF_OK;
}

static bool all_ended(perf_task_group *g)
{
    return !g->count;
}

static bool one_ended(perf_task_group *g)
{
    return g->ended || !g->count;
}

int perf_task_group_wait(perf_task_group *g, int64_t timeout_ms)
{
    int rc;
    if ((rc = check(g)))
        return rc;
    pthread_mutex_lock(&g->mutex);
    rc = wait_until(g, timeout_ms, all_ended);
    if (!rc && g->failed)
        rc = perf__fail(g->failed, "%s", g->why && *g->why ? g->why : perf_strerror(g->failed));
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

int perf_task_group_next(perf_task_group *g, int64_t timeout_ms, perf_task **out)
{
    int rc;
    if ((rc = check(g)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "task is NULL; give a place for the task");
    pthread_mutex_lock(&g->mutex);
    rc = wait_until(g, timeout_ms, one_ended);
    if (!rc && !g->ended) {
        rc = PERF_MISS;
    } else if (!rc) {
        struct perf__done *done = g->ended;
        if (!(g->ended = done->next))
            g->ended_last = &g->ended;
        *out = done->task;
    }
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

int perf_task_group_cancel(perf_task_group *g)
{
    perf_task **tasks;
    size_t n = 0;
    int rc;
    if ((rc = check(g)))
        return rc;
    pthread_mutex_lock(&g->mutex);
    tasks = perf__alloc(&g->allocator, (size_t)g->count * sizeof *tasks);
    if (tasks) /* outside the lock, which the end of each takes */
        for (perf_task *task = g->living; task; task = task->group_next)
            tasks[n++] = perf_task_retain(task);
    pthread_mutex_unlock(&g->mutex);
    if (!tasks)
        return perf__fail_nomem("the tasks to cancel");
    for (size_t i = 0; i < n; i++) {
        perf_task_cancel(tasks[i]);
        perf__task_unref(tasks[i]);
    }
    perf__free(&g->allocator, tasks);
    return PERF_OK;
}
