/* SPDX-License-Identifier: MIT */
/*
 * notify.c - ended tasks by one descriptor, for event loops that cannot be called back.
 *
 * A list under the executor's mutex and an eventfd that is readable while the
 * list is not empty. Any thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "executor_impl.h"

/* Under the mutex. */
static void set_readable(perf_executor *e)
{
    const uint64_t one = 1;
    if (e->notify_fd >= 0)
        while (write(e->notify_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
}

void perf__notify(struct perf__done *done, perf_task *task)
{
    perf_executor *e = done->ctx;
    perf_task_retain(task);
    done->task = task;
    done->next = NULL;
    pthread_mutex_lock(&e->mutex);
    bool first = !e->notify_first;
    *e->notify_last = done;
    e->notify_last = &done->next;
    if (first)
        set_readable(e);
    pthread_mutex_unlock(&e->mutex);
}

int perf_executor_fd(perf_executor *e, int *out)
{
    int rc;
    if ((rc = perf__executor_usable(e)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "fd is NULL; give a place for the descriptor");
    pthread_mutex_lock(&e->mutex);
    if (e->notify_fd < 0 && (e->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0 &&
        e->notify_first)
        set_readable(e);
    if (e->notify_fd >= 0)
        *out = e->notify_fd;
    else
        rc = perf__fail(PERF_EIO, "no descriptor for an executor: %s", strerror(errno));
    pthread_mutex_unlock(&e->mutex);
    return rc;
}

int perf_executor_next(perf_executor *e, perf_task **out)
{
    struct perf__done *done;
    int rc;
    if ((rc = perf__executor_usable(e)))
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "task is NULL; give a place for the task");
    pthread_mutex_lock(&e->mutex);
    if ((done = e->notify_first)) {
        e->notify_first = done->next;
        if (!e->notify_first) {
            uint64_t count;
            e->notify_last = &e->notify_first;
            while (e->notify_fd >= 0 && read(e->notify_fd, &count, sizeof count) < 0 &&
                   errno == EINTR)
                ;
        }
    }
    pthread_mutex_unlock(&e->mutex);
    if (!done)
        return PERF_MISS;
    *out = done->task;
    return PERF_OK;
}

void perf__notify_close(perf_executor *e)
{
    while (e->notify_first) {
        struct perf__done *done = e->notify_first;
        e->notify_first = done->next;
        perf__task_unref(done->task);
    }
    if (e->notify_fd >= 0)
        close(e->notify_fd);
    e->notify_fd = -1;
}
