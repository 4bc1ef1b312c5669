/* SPDX-License-Identifier: MIT */
/*
 * run.c - what the function of a task sees: may it go on, what it gives back, how far it is.
 *
 * Progress is made when it is first told, so that tasks without pay nothing for
 * it. A run belongs to its function; progress is read by anybody.
 */
#include "run.h"

#include <string.h>

#include "executor_impl.h"

enum { WHY_BYTES = 255 };

void perf__run_begin(perf_run *run, perf_task *task)
{
    run->task = task;
}

void perf__run_destroy(perf_run *run)
{
    const perf_allocator *a = &run->task->allocator;
    perf__free(a, run->why);
    perf__free(a, run->result);
}

static int check(const perf_run *run)
{
    return run ? PERF_OK
               : perf__fail(PERF_EINVAL, "run is NULL; give the one that the function was given");
}

/* --------------------------------------------------------------- may it go on */

int perf_run_cancelled(perf_run *run)
{
    if (!run)
        return check(run);
    int64_t deadline_ns = atomic_load_explicit(&run->deadline_ns, memory_order_relaxed);
    for (const perf_task *task = run->task; task; task = task->parent) {
        uint32_t word = atomic_load_explicit(&task->word, memory_order_relaxed);
        if (word & PERF__CANCEL || (word & PERF__STATE_MASK) == PERF_TASK_CANCELLED)
            return PERF_ECANCELED;
        if (word & PERF__EXPIRED)
            return PERF_ETIMEDOUT;
    }
    if (deadline_ns && perf__now_ns(&run->task->clock) >= deadline_ns)
        return PERF_ETIMEDOUT;
    const perf_executor *e = run->task->executor;
    return e && atomic_load_explicit(&e->state, memory_order_relaxed) == PERF__STOPPING
               ? PERF_ECANCELED
               : PERF_OK;
}

int64_t perf_run_remaining_ms(perf_run *run)
{
    if (!run)
        return check(run);
    int64_t deadline_ns = atomic_load_explicit(&run->deadline_ns, memory_order_relaxed);
    if (!deadline_ns)
        return -1;
    int64_t left = deadline_ns - perf__now_ns(&run->task->clock);
    return left > 0 ? left / 1000000 : 0;
}

void perf__run_set_timeout(perf_run *run, int64_t timeout_ms)
{
    atomic_store(&run->deadline_ns,
                 timeout_ms ? perf__now_ns(&run->task->clock) + timeout_ms * 1000000 : 0);
}

/* -------------------------------------------------------------- what it gives */

int perf_run_result(perf_run *run, const void *data, size_t len)
{
    int rc;
    if ((rc = check(run)))
        return rc;
    if (!data && len)
        return perf__fail(PERF_EINVAL, "data is NULL and len is %zu; give bytes, or 0", len);
    void *copy = perf__strndup(&run->task->allocator, data ? data : "", len);
    if (!copy)
        return perf__fail_nomem("a result");
    perf__free(&run->task->allocator, run->result);
    run->result = copy;
    run->result_len = len;
    return PERF_OK;
}

/* At most max bytes of text, cut where a character begins. */
static size_t cut(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);
    if (len <= max)
        return len;
    for (len = max; len && ((unsigned char)text[len] & 0xc0) == 0x80;)
        len--;
    return len;
}

int perf_run_fail(perf_run *run, int status, const char *why)
{
    if (!run)
        return check(run);
    const perf_allocator *a = &run->task->allocator;
    char *copy = why ? perf__strndup(a, why, cut(why, WHY_BYTES)) : NULL;
    if (copy) { /* without memory the status has to do */
        perf__free(a, run->why);
        run->why = copy;
    }
    return status;
}

int perf_run_input(const perf_run *run, perf_bytes *input)
{
    int rc;
    if ((rc = check(run)))
        return rc;
    if (!input)
        return perf__fail(PERF_EINVAL, "input is NULL; give a place for it");
    const perf_task *previous = run->task->previous;
    if (!previous)
        return PERF_MISS;
    *input = (perf_bytes){previous->run.result, previous->run.result_len};
    return PERF_OK;
}

/* ------------------------------------------------------------------ progress */

static struct perf__progress *progress_of(perf_task *task)
{
    struct perf__progress *p = atomic_load_explicit(&task->progress, memory_order_acquire);
    if (p || !(p = perf__calloc(&task->allocator, 1, sizeof *p)))
        return p;
    pthread_mutex_init(&p->mutex, NULL); /* cannot fail with these attributes */
    struct perf__progress *first = NULL;
    if (!atomic_compare_exchange_strong(&task->progress, &first, p)) {
        perf__free(&task->allocator, p);
        p = first;
    }
    return p;
}

int perf_run_progress(perf_run *run, double fraction, const char *text)
{
    int rc;
    if ((rc = check(run)))
        return rc;
    if (!(fraction >= 0 && fraction <= 1)) /* not a number is refused, too */
        return perf__fail(PERF_EINVAL, "fraction is %g; give 0 to 1", fraction);
    struct perf__progress *p = progress_of(run->task);
    if (!p)
        return perf__fail_nomem("progress");
    pthread_mutex_lock(&p->mutex);
    p->now.fraction = fraction;
    if (text) {
        size_t len = cut(text, sizeof p->now.text - 1);
        memcpy(p->now.text, text, len);
        p->now.text[len] = 0;
    }
    pthread_mutex_unlock(&p->mutex);
    return PERF_OK;
}

int perf_run_count(perf_run *run, uint64_t done, uint64_t total)
{
    int rc;
    if ((rc = check(run)))
        return rc;
    struct perf__progress *p = progress_of(run->task);
    if (!p)
        return perf__fail_nomem("progress");
    pthread_mutex_lock(&p->mutex);
    p->now.done = done;
    p->now.total = total;
    if (total)
        p->now.fraction = done < total ? (double)done / (double)total : 1;
    pthread_mutex_unlock(&p->mutex);
    return PERF_OK;
}

int perf_task_progress(perf_task *task, perf_progress *out)
{
    perf_progress now = PERF_PROGRESS_INIT;
    size_t size;
    int rc;
    if (!task)
        return perf__fail(PERF_EINVAL, "task is NULL; give one that was submitted");
    if ((rc = perf__options_check_out("perf_progress", out, &size)))
        return rc;
    struct perf__progress *p = atomic_load_explicit(&task->progress, memory_order_acquire);
    if (p) {
        pthread_mutex_lock(&p->mutex);
        now = p->now;
        pthread_mutex_unlock(&p->mutex);
    }
    int state = perf_task_state(task);
    now.struct_size = sizeof now;
    now.remaining_ms = -1;
    if (state == PERF_TASK_SUCCEEDED)
        now.fraction = 1;
    int64_t started_ns = atomic_load_explicit(&task->run.started_ns, memory_order_relaxed);
    if (state >= PERF_TASK_RUNNING && started_ns) {
        int64_t ns = perf__now_ns(&task->clock) - started_ns;
        now.elapsed_ms = ns > 0 ? ns / 1000000 : 0;
        if (ns > 0)
            now.rate = (now.done ? (double)now.done : now.fraction) * 1e9 / (double)ns;
        if (now.fraction > 0)
            now.remaining_ms = (int64_t)((1 - now.fraction) / now.fraction * (double)ns / 1e6);
    }
    perf__options_give(out, size, &now, sizeof now);
    return PERF_OK;
}

/* ------------------------------------------------------- for the durable half */

void perf__run_set_claim(perf_run *run, struct perf__claim *claim)
{
    run->claim = claim;
}

struct perf__claim *perf__run_claim(const perf_run *run)
{
    return run ? run->claim : NULL;
}

perf_bytes perf__run_result(const perf_run *run)
{
    return (perf_bytes){run->result, run->result_len};
}

const char *perf__run_why(const perf_run *run)
{
    return run->why ? run->why : "";
}

perf_task *perf__run_task(const perf_run *run)
{
    return run->task;
}

int perf__run_open(const struct perf__host *host, perf_run **out)
{
    perf_task *task = perf__calloc(&host->allocator, 1, sizeof *task);
    if (!task)
        return perf__fail_nomem("a run");
    atomic_init(&task->refs, 1);
    atomic_init(&task->word, PERF_TASK_RUNNING);
    task->allocator = host->allocator;
    task->clock = host->clock;
    task->name = "";
    task->fd = -1;
    perf__run_begin(&task->run, task);
    atomic_store(&task->run.started_ns, perf__now_ns(&task->clock));
    *out = &task->run;
    return PERF_OK;
}

void perf__run_close(perf_run *run, int status)
{
    perf__task_end(run->task, status, status < 0 ? PERF_TASK_FAILED : PERF_TASK_SUCCEEDED);
    perf__task_unref(run->task);
}
