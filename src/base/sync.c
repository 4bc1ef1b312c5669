/* SPDX-License-Identifier: MIT */
/* sync.c - waiting with a deadline on the monotonic clock. Any thread. */
#include "sync.h"

#include <errno.h>
#include <time.h>

#include "status.h"

int perf__cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr))
        return PERF_ENOMEM;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int rc = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return rc ? PERF_ENOMEM : PERF_OK;
}

int perf__locks_init(pthread_mutex_t *mutex, pthread_cond_t *cond, const char *what)
{
    if (pthread_mutex_init(mutex, NULL))
        return perf__fail_nomem(what);
    if (perf__cond_init(cond)) {
        pthread_mutex_destroy(mutex);
        return perf__fail_nomem(what);
    }
    return PERF_OK;
}

bool perf__cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_ns)
{
    if (deadline_ns <= 0) {
        pthread_cond_wait(cond, mutex);
        return true;
    }
    struct timespec t = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    return pthread_cond_timedwait(cond, mutex, &t) != ETIMEDOUT;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t perf__deadline_after(int64_t ms)
{
    if (ms <= 0)
        return 0;
    int64_t now = now_ns();
    return ms > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + ms * 1000000;
}

int64_t perf__deadline_left(int64_t deadline_ns)
{
    if (!deadline_ns)
        return INT64_MAX;
    int64_t left = deadline_ns - now_ns();
    return left > 0 ? left / 1000000 + (left % 1000000 != 0) : 0;
}
