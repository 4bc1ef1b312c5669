/* SPDX-License-Identifier: MIT */
/*
 * task_wait.c - the end of a task: waited for, polled, called back, or by a descriptor.
 *
 * Waiting is sleeping on the task's word. Inside a task of the same executor, a
 * task that has not begun is taken and run here, on the waiter's stack; for one
 * that runs, the executor gets one more thread meanwhile, so that
 * tasks waiting for tasks never use up all threads. Any thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "executor_impl.h"

static int check(const perf_task *task)
{
    return task ? PERF_OK : perf__fail(PERF_EINVAL, "task is NULL; give one that was submitted");
}

int perf_task_state(const perf_task *task)
{
    return task ? (int)(perf__task_word(task) & PERF__STATE_MASK) : check(task);
}

const char *perf_task_error(const perf_task *task)
{
    return task && perf__task_has_ended(task) && task->run.why ? task->run.why : "";
}

int perf__task_answer(perf_task *task, perf_bytes *result)
{
    if (result)
        *result = (perf_bytes){task->run.result, task->run.result_len};
    if (task->status < 0)
        perf__fail(task->status, "%s", task->run.why ? task->run.why : perf_strerror(task->status));
    return task->status;
}

bool perf__task_sleep(perf_task *task, int64_t until_ns)
{
    bool system_clock = task->clock.monotonic_ns == perf__default_clock.monotonic_ns;
    for (;;) {
        uint32_t word = perf__task_word(task);
        int64_t left_ns = -1;
        if ((word & PERF__STATE_MASK) >= PERF_TASK_SUCCEEDED)
            return true;
        if (until_ns && (left_ns = until_ns - perf__now_ns(&task->clock)) <= 0)
            return false;
        if (until_ns && !system_clock)
            left_ns = 1000000; /* the host's clock may jump */
        if (!(word & PERF__WAITED) &&
            !atomic_compare_exchange_strong(&task->word, &word, word | PERF__WAITED))
            continue;
        perf__futex_wait(&task->word, word | PERF__WAITED, left_ns);
    }
}

/* Does this thread run task, at any depth? Then it would wait for itself. */
static bool runs_here(const struct perf__worker *self, const perf_task *task)
{
    for (const struct perf__running *r = self ? self->running : NULL; r; r = r->outer)
        if (r->task == task)
            return true;
    return false;
}

int perf_task_wait(perf_task *task, int64_t timeout_ms, perf_bytes *result)
{
    struct perf__worker *self = perf__worker_self;
    int64_t until_ns = 0;
    bool ended;
    int rc;
    if ((rc = check(task)))
        return rc;
    if (perf__task_has_ended(task))
        return perf__task_answer(task, result);
    if (runs_here(self, task))
        return perf__fail(PERF_EDEADLK, "the task \"%s\" waits for itself", task->name);
    if (!timeout_ms)
        return perf__fail(PERF_ETIMEDOUT, "the task has not ended");
    if (timeout_ms > 0 && timeout_ms < INT64_MAX / 2000000)
        until_ns = perf__now_ns(&task->clock) + timeout_ms * 1000000;
    if (self && self->executor == task->executor && perf__task_take(task)) {
        perf__counters_add(&task->executor->counters, PERF__HELPED, 1);
        perf__task_run(task);
    }
    if (self)
        perf__block_begin(self->executor);
    ended = perf__task_sleep(task, until_ns);
    if (self)
        perf__block_end(self->executor);
    if (!ended)
        return perf__fail(PERF_ETIMEDOUT, "the task has not ended within %lld ms",
                          (long long)timeout_ms);
    return perf__task_answer(task, result);
}

/* -------------------------------------------------- callbacks and descriptors */

static void call_and_free(struct perf__done *self, perf_task *task)
{
    perf_allocator allocator = task->allocator;
    self->user(self->ctx, task);
    perf__free(&allocator, self);
}

int perf_task_on_done(perf_task *task, perf_task_done_fn done, void *ctx)
{
    struct perf__done *entry;
    int rc;
    if ((rc = check(task)))
        return rc;
    if (!done)
        return perf__fail(PERF_EINVAL, "done is NULL; give a function to call");
    if (!(entry = perf__calloc(&task->allocator, 1, sizeof *entry)))
        return perf__fail_nomem("a callback");
    *entry = (struct perf__done){.fn = call_and_free, .user = done, .ctx = ctx};
    perf__task_call(task, entry);
    return PERF_OK;
}

static void make_readable(struct perf__done *self, perf_task *task)
{
    const uint64_t one = 1;
    perf_allocator allocator = task->allocator;
    while (write(task->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    perf__free(&allocator, self);
}

int perf_task_fd(perf_task *task, int *out)
{
    /* Process-wide, for two callers that ask for the same task's first; held for a moment once
     * for each task that is watched. */
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct perf__done *entry = NULL;
    int rc;
    if ((rc = check(task)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "fd is NULL; give a place for the descriptor");
    pthread_mutex_lock(&mutex);
    if (task->fd < 0) {
        if (!(entry = perf__calloc(&task->allocator, 1, sizeof *entry)))
            rc = perf__fail_nomem("the descriptor of a task");
        else if ((task->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
            rc = perf__fail(PERF_EIO, "no descriptor for a task: %s", strerror(errno));
    }
    pthread_mutex_unlock(&mutex);
    if (rc) {
        perf__free(&task->allocator, entry);
        return rc;
    }
    if (entry) {
        entry->fn = make_readable;
        perf__task_call(task, entry);
    }
    *out = task->fd;
    return PERF_OK;
}
