/* SPDX-License-Identifier: MIT */
/*
 * task.c - a task from its submission to its end.
 *
 * One word holds its state and what it was asked. Whoever moves the word from
 * QUEUED (or WAITING) has the task: a thread that runs it, somebody who waits for
 * it, its timer, or whoever cancels it. The item in a queue may outlive that
 * and finds the task taken; it is one of the holders. Any thread.
 */
#include "executor_impl.h"

#include <string.h>
#include <unistd.h>

#include "../base/log.h"
#include "../base/thread.h"

/* The stack of done entries after the end was told. Never written. */
static struct perf__done closed;

enum { MEASURE_EVERY = 16 }; /* one task in so many is timed for the histograms */

/* ------------------------------------------------------------------- holders */

perf_task *perf_task_retain(perf_task *task)
{
    if (task)
        atomic_fetch_add_explicit(&task->refs, 1, memory_order_relaxed);
    return task;
}

void perf__task_unref(perf_task *task)
{
    while (task && atomic_fetch_sub_explicit(&task->refs, 1, memory_order_acq_rel) == 1) {
        perf_allocator allocator = task->allocator;
        struct perf__progress *progress = atomic_load(&task->progress);
        perf_task *parent = task->parent;
        if (task->fd >= 0)
            close(task->fd);
        perf__run_destroy(&task->run);
        if (progress)
            pthread_mutex_destroy(&progress->mutex);
        perf__free(&allocator, progress);
        perf__task_unref(task->previous); /* one at most: a chain lets go as it goes on */
        perf__free(&allocator, task);
        task = parent;
    }
}

void perf_task_release(perf_task *task)
{
    perf__task_unref(task);
}

/* ---------------------------------------------------------------------- make */

static int check_options(const perf_task_options *o)
{
    int rc;
    if ((rc = perf__check_range("priority", o->priority, PERF_PRIORITY_LOW, PERF_PRIORITY_HIGH)) ||
        (rc = perf__check_range("timeout_ms", o->timeout_ms, 0, INT64_MAX / 4000000)) ||
        (rc = perf__check_range("delay_ms", o->delay_ms, 0, INT64_MAX / 4000000)) ||
        (rc = perf__check_range("notify", o->notify, 0, 1)))
        return rc;
    return PERF_OK;
}

static void call_user(struct perf__done *self, perf_task *task)
{
    self->user(self->ctx, task);
}

static void push_done(perf_task *task, struct perf__done *done)
{
    done->next = atomic_load(&task->done);
    atomic_store(&task->done, done); /* nobody else knows the task yet */
}

int perf__task_new(perf_executor *e, perf_task_fn fn, void *arg, const perf_task_options *given,
                   int64_t interval_ms, perf_task **out)
{
    perf_task_options o;
    perf_task *task = NULL;
    int rc;
    if ((rc = perf__options_take("perf_task_options", given, &o, sizeof o)))
        return rc;
    if ((rc = perf__executor_usable(e)) || (rc = check_options(&o)))
        goto refused;
    rc = fn ? PERF_OK : perf__fail(PERF_EINVAL, "fn is NULL; give a function to run");
    if (!rc && !(task = perf__calloc(&e->host.allocator, 1, sizeof *task)))
        rc = perf__fail_nomem("a task");
    if (rc)
        goto refused;
    atomic_init(&task->refs, 1);
    atomic_init(&task->word, PERF_TASK_WAITING);
    task->executor = e;
    task->allocator = e->host.allocator;
    task->clock = e->host.clock;
    task->fn = fn;
    task->arg = arg;
    task->free_arg = o.free_arg;
    task->name = o.name ? o.name : "";
    task->priority = (int32_t)(PERF__NORMAL - o.priority);
    task->interval_ns = interval_ms * 1000000;
    task->fd = -1;
    perf__run_begin(&task->run, task);
    if (o.timeout_ms || o.delay_ms) {
        int64_t now = perf__now_ns(&e->host.clock);
        atomic_store(&task->run.deadline_ns, o.timeout_ms ? now + o.timeout_ms * 1000000 : 0);
        task->due_ns = o.delay_ms ? now + o.delay_ms * 1000000 : 0;
    }
    if (o.parent) {
        task->parent = perf_task_retain(o.parent->task);
        int64_t theirs = atomic_load(&o.parent->deadline_ns);
        int64_t own = atomic_load(&task->run.deadline_ns);
        if (theirs && (!own || theirs < own))
            atomic_store(&task->run.deadline_ns, theirs);
    }
    if (o.notify) {
        task->notify_done = (struct perf__done){.fn = perf__notify, .ctx = e};
        push_done(task, &task->notify_done);
    }
    if (o.group)
        perf__group_add(o.group, task);
    if (o.done) {
        task->own_done = (struct perf__done){.fn = call_user, .user = o.done, .ctx = o.done_ctx};
        push_done(task, &task->own_done);
    }
    task->timed = interval_ms || task->due_ns || atomic_load(&task->run.deadline_ns);
    *out = task;
    return PERF_OK;

refused:
    if (o.free_arg)
        o.free_arg(arg);
    return rc;
}

/* Could not be submitted: as if it had never been, but for its argument. */
static void unmake(perf_task *task)
{
    if (task->group)
        perf__group_forget(task->group, task);
    if (task->free_arg)
        task->free_arg(task->arg);
    perf__task_unref(task);
}

/* -------------------------------------------------------------------- submit */

/* Its item holds it. */
static int put(perf_task *task, bool force)
{
    perf_executor *e = task->executor;
    int priority = task->priority;
    perf_task_retain(task);
    int rc = perf__submit(e, priority, (struct perf__item){perf__task_item, task}, force);
    if (rc)
        perf__task_unref(task);
    return rc;
}

static bool measured(void)
{
    return perf__thread_random() % MEASURE_EVERY == 0;
}

int perf__task_begin(perf_task *task, bool force)
{
    int64_t start_ns = task->due_ns;
    int64_t deadline_ns = atomic_load(&task->run.deadline_ns);
    int rc;
    if (start_ns) { /* it stays WAITING */
        if (deadline_ns && deadline_ns < start_ns)
            start_ns = deadline_ns;
        return perf__timer_set(task->executor, task, start_ns);
    }
    if (deadline_ns && (rc = perf__timer_set(task->executor, task, deadline_ns)))
        return rc;
    if (measured())
        task->submitted_ns = perf__now_ns(&task->clock);
    uint32_t waiting = PERF_TASK_WAITING;
    if (!atomic_compare_exchange_strong(&task->word, &waiting, PERF_TASK_QUEUED))
        return PERF_OK; /* its deadline came before it could be queued, and has ended it */
    if ((rc = put(task, force)) && deadline_ns)
        perf__timer_clear(task->executor, task);
    return rc;
}

int perf_task_submit(perf_executor *e, perf_task_fn fn, void *arg, const perf_task_options *options,
                     perf_task **out)
{
    perf_task *task;
    int rc;
    if ((rc = perf__task_new(e, fn, arg, options, 0, &task)))
        return rc;
    if ((rc = perf__task_begin(task, false))) {
        unmake(task);
        return rc;
    }
    if (out)
        *out = task;
    else
        perf__task_unref(task);
    return PERF_OK;
}

int perf_task_every(perf_executor *e, int64_t interval_ms, perf_task_fn fn, void *arg,
                    const perf_task_options *options, perf_task **out)
{
    perf_task *task;
    int rc;
    if ((rc = perf__check_range("interval_ms", interval_ms, 1, INT64_MAX / 4000000)))
        return rc;
    if ((rc = perf__task_new(e, fn, arg, options, interval_ms, &task)))
        return rc;
    if (!task->due_ns) /* the first time is one interval from now */
        task->due_ns = perf__now_ns(&task->clock) + task->interval_ns;
    if ((rc = perf__task_begin(task, false))) {
        unmake(task);
        return rc;
    }
    if (out)
        *out = task;
    else
        perf__task_unref(task);
    return PERF_OK;
}

void perf__task_enqueue(perf_task *task)
{
    perf_executor *e = task->executor;
    uint32_t word = perf__task_word(task);
    int rc;
    do {
        if ((word & PERF__STATE_MASK) != PERF_TASK_WAITING)
            return;
    } while (!atomic_compare_exchange_weak(
        &task->word, &word, (word & ~(uint32_t)PERF__STATE_MASK) | PERF_TASK_QUEUED));
    if (measured())
        task->submitted_ns = perf__now_ns(&task->clock);
    if (atomic_load(&e->state) == PERF__STOPPING)
        perf__task_drop(task, PERF_ECANCELED);
    else if ((rc = put(task, true)))
        perf__task_drop(task, rc);
}

/* ----------------------------------------------------------------------- end */

bool perf__task_has_ended(const perf_task *task)
{
    return (perf__task_word(task) & PERF__STATE_MASK) >= PERF_TASK_SUCCEEDED;
}

void perf__task_end(perf_task *task, int status, int state)
{
    void *arg = task->arg;
    void (*free_arg)(void *) = task->free_arg;
    perf_task *previous = task->previous;
    if (task->timed)
        perf__timer_clear(task->executor, task);
    task->status = status;
    task->previous = NULL;
    if (free_arg)
        free_arg(arg);
    uint32_t word = atomic_exchange(&task->word, (uint32_t)state);
    if (word & PERF__WAITED)
        perf__futex_wake_all(&task->word);
    struct perf__done *done = atomic_exchange(&task->done, &closed);
    while (done) {
        struct perf__done *next = done->next;
        done->fn(done, task);
        done = next;
    }
    perf__task_unref(previous);
}

void perf__task_call(perf_task *task, struct perf__done *done)
{
    struct perf__done *first = atomic_load(&task->done);
    do {
        if (first == &closed) {
            done->fn(done, task);
            return;
        }
        done->next = first;
    } while (!atomic_compare_exchange_weak(&task->done, &first, done));
}

/* From WAITING or QUEUED to RUNNING or an end. */
static bool leave_queue(perf_task *task, bool queued_only)
{
    uint32_t word = perf__task_word(task);
    do {
        uint32_t state = word & PERF__STATE_MASK;
        if (state != PERF_TASK_QUEUED && (queued_only || state != PERF_TASK_WAITING))
            return false;
    } while (!atomic_compare_exchange_weak(
        &task->word, &word, (word & ~(uint32_t)PERF__STATE_MASK) | PERF_TASK_RUNNING));
    return true;
}

bool perf__task_take(perf_task *task)
{
    return leave_queue(task, true);
}

/* RUNNING by leave_queue, but it shall not run. */
static void end_unrun(perf_task *task, int status)
{
    perf__counters_add(&task->executor->counters, PERF__UNRUN, 1);
    if (status == PERF_ETIMEDOUT)
        perf_run_fail(&task->run, status, "its time was over before it could begin");
    perf__task_end(task, status, PERF_TASK_CANCELLED);
}

bool perf__task_drop(perf_task *task, int status)
{
    if (!leave_queue(task, false))
        return false;
    end_unrun(task, status);
    return true;
}

int perf_task_cancel(perf_task *task)
{
    if (!task)
        return perf__fail(PERF_EINVAL, "task is NULL; give one that was submitted");
    if (perf__task_drop(task, PERF_ECANCELED))
        return PERF_OK;
    uint32_t word = perf__task_word(task);
    do {
        if ((word & PERF__STATE_MASK) >= PERF_TASK_SUCCEEDED)
            return PERF_MISS;
    } while (!atomic_compare_exchange_weak(&task->word, &word, word | PERF__CANCEL));
    /* A recurring one may have gone back to waiting before it could see that. */
    perf__task_drop(task, PERF_ECANCELED);
    return PERF_OK;
}

/* Its timer: the delay is over, or the time. */
void perf__task_due(perf_task *task)
{
    perf_executor *e = task->executor;
    int64_t deadline_ns = atomic_load(&task->run.deadline_ns);
    if (deadline_ns && perf__now_ns(&e->host.clock) >= deadline_ns) {
        if (!perf__task_drop(task, PERF_ETIMEDOUT))
            atomic_fetch_or(&task->word, PERF__EXPIRED); /* no harm if it has just ended */
        return;
    }
    if (deadline_ns && !task->interval_ns)
        perf__timer_set(e, task, deadline_ns); /* or it is noticed when it begins */
    perf__task_enqueue(task);
}

/* ----------------------------------------------------------------------- run */

/* Runs again after its interval, or at once if that has passed. */
static bool comes_again(perf_task *task, int status)
{
    perf_executor *e = task->executor;
    if (status < 0) {
        perf__counters_add(&e->counters, PERF__FAILED, 1);
        perf__log(&e->host.log, PERF_LOG_WARNING, "executor", "recurring task \"%s\" failed: %s",
                  task->name, perf_strstatus(status));
    }
    if (perf_run_cancelled(&task->run) || atomic_load(&e->state) != PERF__OPEN)
        return false;
    int64_t now = perf__now_ns(&task->clock), next = task->due_ns + task->interval_ns;
    uint32_t word = perf__task_word(task);
    do {
        if (word & (PERF__CANCEL | PERF__EXPIRED))
            return false;
    } while (!atomic_compare_exchange_weak(&task->word, &word,
                                           (word & PERF__WAITED) | PERF_TASK_WAITING));
    int64_t deadline_ns = atomic_load(&task->run.deadline_ns);
    if (next < now)
        next = now;
    if (perf__timer_set(e, task, deadline_ns && deadline_ns < next ? deadline_ns : next))
        perf__task_drop(task, PERF_ECANCELED); /* the executor closes, or no memory */
    return true;
}

static int end_state(perf_task *task, int status)
{
    if (status >= 0)
        return PERF_TASK_SUCCEEDED;
    return status == PERF_ECANCELED || (status == PERF_ETIMEDOUT && perf_run_cancelled(&task->run))
               ? PERF_TASK_CANCELLED
               : PERF_TASK_FAILED;
}

static int call(perf_task *task)
{
    perf_executor *e = task->executor;
    struct perf__worker *self = perf__worker_self;
    struct perf__running here = {task, self ? self->running : NULL};
    uint64_t permit = 0;
    bool counted = e->limit && !perf_adaptive_limit_try(e->limit, &permit);
    if (self)
        self->running = &here;
    int status = task->fn(&task->run, task->arg);
    if (self)
        self->running = here.outer;
    if (counted)
        perf_adaptive_limit_release(e->limit, permit, perf_outcome_of_status(status));
    if (status < 0 && !task->run.why)
        perf_run_fail(&task->run, status, perf_last_error());
    return status;
}

void perf__task_run(perf_task *task)
{
    perf_executor *e = task->executor;
    int64_t begun_ns = task->submitted_ns ? perf__now_ns(&task->clock) : 0;
    int stop = perf_run_cancelled(&task->run);
    if (!stop && atomic_load_explicit(&e->state, memory_order_relaxed) == PERF__STOPPING)
        stop = PERF_ECANCELED;
    if (stop) {
        end_unrun(task, stop);
        return;
    }
    if (begun_ns)
        perf__histogram_record(&e->wait_ns, (uint64_t)(begun_ns - task->submitted_ns));
    atomic_store_explicit(&task->run.started_ns, perf__now_ms(&task->clock) * 1000000,
                          memory_order_relaxed);
    int status = call(task);
    if (begun_ns)
        perf__histogram_record(&e->run_ns, (uint64_t)(perf__now_ns(&task->clock) - begun_ns));
    if (task->interval_ns && comes_again(task, status))
        return;
    if (status < 0 && !task->interval_ns)
        perf__counters_add(&e->counters, PERF__FAILED, 1);
    perf__task_end(task, status, end_state(task, status));
}

void perf__task_item(void *arg)
{
    perf_task *task = arg;
    if (perf__task_take(task))
        perf__task_run(task);
    else /* taken by another: by who waited for it, or it was cancelled */
        perf__counters_add(&task->executor->counters, PERF__DROPPED, 1);
    perf__task_unref(task);
}

/* --------------------------------------------------------------------- chain */

struct link {
    struct perf__done done;
    perf_task *next; /* held */
};

static void go_on(struct perf__done *self, perf_task *task)
{
    struct link *link = (struct link *)self;
    perf_task *next = link->next;
    perf_allocator allocator = task->allocator;
    if (task->status >= 0) {
        next->previous = perf_task_retain(task);
        perf__task_enqueue(next);
    } else if (leave_queue(next, false)) {
        perf__counters_add(&next->executor->counters, PERF__UNRUN, 1);
        perf_run_fail(&next->run, task->status, perf_task_error(task));
        perf__task_end(next, task->status, perf_task_state(task));
    }
    perf__task_unref(next);
    perf__free(&allocator, link);
}

int perf_task_then(perf_task *task, perf_task_fn fn, void *arg, const perf_task_options *options,
                   perf_task **out)
{
    perf_task *next;
    struct link *link;
    int rc;
    if (!task)
        return perf__fail(PERF_EINVAL, "task is NULL; give one that was submitted");
    if ((rc = perf__task_new(task->executor, fn, arg, options, 0, &next)))
        return rc;
    if (!(link = perf__calloc(&next->allocator, 1, sizeof *link))) {
        unmake(next);
        return perf__fail_nomem("a chain of tasks");
    }
    int64_t deadline_ns = atomic_load(&next->run.deadline_ns);
    if (deadline_ns && (rc = perf__timer_set(next->executor, next, deadline_ns))) {
        perf__free(&next->allocator, link);
        unmake(next);
        return rc;
    }
    link->done.fn = go_on;
    link->next = perf_task_retain(next);
    if (out)
        *out = perf_task_retain(next);
    perf__task_call(task, &link->done);
    perf__task_unref(next);
    return PERF_OK;
}
