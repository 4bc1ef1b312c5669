/* SPDX-License-Identifier: MIT */
/*
 * tasks_run.c - running one task, and what becomes of it.
 *
 * A run that succeeded, failed or wants to come again is judged on its own
 * thread, by its handler's options; its end then goes to tasks_end.c. What a
 * handler asks about its task, it asks here.
 */
#include <string.h>

#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "tasks_impl.h"

/* Those of pulled tasks of kinds without a handler. */
static const perf_handler_options plain = {
    .max_attempts = PERF__DEFAULT_ATTEMPTS,
    .backoff_ms = 1000,
    .backoff_max_ms = 3600000,
};

static const perf_handler_options *options_of(const struct perf__claim *c)
{
    return c->handler ? &c->handler->options : &plain;
}

/* ---------------------------------------------------------------------- judging */

/* Full jitter: anything up to the doubled base. */
static int64_t back_off(const perf_handler_options *o, int64_t attempt)
{
    int64_t most = o->backoff_ms;
    for (int64_t i = 1; i < attempt && most < o->backoff_max_ms; i++)
        most *= 2; /* both are a year at most */
    if (most > o->backoff_max_ms)
        most = o->backoff_max_ms;
    return (int64_t)(perf__thread_random() % (uint64_t)(most + 1));
}

static int default_verdict(int status)
{
    return status == PERF_EINVAL || status == PERF_EUNSUPPORTED || status == PERF_ECORRUPT ||
                   status == PERF_ETOOBIG
               ? PERF_RETRY_NEVER
               : PERF_RETRY_BY_POLICY;
}

static void judge_failure(struct perf__claim *c, perf_run *run, int status, int64_t now)
{
    const perf_handler_options *o = options_of(c);
    perf_queue_end *end = &c->end;
    int64_t delay = back_off(o, c->task->attempts);
    int verdict = default_verdict(status);
    if (o->on_error) {
        verdict = o->on_error(c->handler->ctx, run, status, &delay);
        if (delay < 0)
            delay = 0;
    }
    end->due_ms = delay > INT64_MAX - now ? INT64_MAX : now + delay;
    if (verdict == PERF_RETRY_NEVER) {
        end->state = PERF_TASK_FAILED;
        c->count_as = COUNT_FAILED;
    } else if (verdict == PERF_RETRY_UNCOUNTED) {
        end->state = PERF_TASK_WAITING;
        c->count_as = COUNT_RETRIED;
    } else if (c->task->max_attempts >= 0 && c->task->attempts >= c->task->max_attempts) {
        end->state = PERF_TASK_DEAD;
        c->count_as = COUNT_DEAD;
    } else {
        end->state = PERF_TASK_RETRYING;
        c->count_as = COUNT_RETRIED;
    }
}

/* Why it failed: what the handler said, or the last call of the library that failed in it (of a
 * pulled one nobody knows which calls were its own), or the code. */
static void take_why(struct perf__claim *c, const perf_run *run, int status)
{
    const char *why = perf__run_why(run);
    if ((!why || !*why) && !c->pulled)
        why = perf_last_error();
    if (!why || !*why)
        why = perf_strerror(status);
    perf__copy_text(c->why, sizeof c->why, why);
}

void perf__claim_judge(struct perf__claim *c, perf_run *run, int status)
{
    perf_tasks *t = c->tasks;
    int64_t now = perf__realtime_ms(&t->host.clock);
    perf_bytes result = perf__run_result(run);
    pthread_mutex_lock(&t->mutex);
    bool cancelled = c->cancelled, returning = c->returning;
    pthread_mutex_unlock(&t->mutex);
    c->end = (perf_queue_end){.error = ""};
    if (status == PERF_OK && result.len > t->options.max_result)
        status = perf_run_fail(run, PERF_ETOOBIG,
                               "the result is larger than perf_tasks_options.max_result");
    else if (status > 0)
        status = perf_run_fail(run, PERF_EINVAL, "the handler returned no status of libperf");
    c->end.status = status;
    if (status == PERF_OK) {
        c->end.state = PERF_TASK_SUCCEEDED;
        c->end.result = result;
        c->count_as = COUNT_SUCCEEDED;
        return;
    }
    if (c->snooze_ms >= 0 && status == PERF_EBUSY) {
        c->end.state = PERF_TASK_WAITING;
        c->end.due_ms = now + c->snooze_ms;
        c->end.status = PERF_OK;
        c->count_as = COUNT_SNOOZED;
        return;
    }
    take_why(c, run, status);
    c->end.error = c->why;
    if (cancelled) {
        c->end.state = PERF_TASK_CANCELLED;
        c->count_as = COUNT_CANCELLED;
    } else if (returning) {
        c->end.state = PERF_TASK_WAITING;
        c->count_as = COUNT_RETURNED;
    } else {
        judge_failure(c, run, status, now);
    }
}

/* ---------------------------------------------------------------------- running */

void perf__claim_begin(struct perf__claim *c, perf_run *run)
{
    perf_tasks *t = c->tasks;
    int64_t waited = perf__realtime_ms(&t->host.clock) - c->task->due_ms;
    perf__histogram_record(&t->waits, waited > 0 ? (uint64_t)waited * 1000 : 0);
    pthread_mutex_lock(&t->mutex);
    c->begun_ns = perf__now_ns(&t->host.clock);
    c->run_task = perf_task_retain(perf__run_task(run));
    pthread_mutex_unlock(&t->mutex);
    if (c->timeout_ms)
        perf__run_set_timeout(run, c->timeout_ms);
}

static int call(struct perf__claim *c, perf_run *run)
{
    perf_tasks *t = c->tasks;
    int status = PERF_OK;
    size_t entered = 0;
    perf__fail(PERF_OK, "%s", ""); /* what failed before is none of this run's */
    while (!status && entered < t->hook_count) {
        const perf_task_hooks *h = &t->hooks[entered++];
        if (h->before)
            status = h->before(h->ctx, run);
    }
    if (!status)
        status = c->handler->fn(run, c->handler->ctx);
    perf__claim_judge(c, run, status);
    while (entered) { /* as blocks nest */
        const perf_task_hooks *h = &t->hooks[--entered];
        if (h->after)
            h->after(h->ctx, run, status, (int)c->end.state);
    }
    return status;
}

/* What a worker does with a claim. */
int perf__claim_run(perf_run *run, void *claim)
{
    struct perf__claim *c = claim;
    perf_tasks *t = c->tasks;
    int status = PERF_ECANCELED;
    perf__run_set_claim(run, c);
    perf__claim_begin(c, run);
    pthread_mutex_lock(&t->mutex);
    bool wanted = c->handler && !c->cancelled && !c->lost && !c->returning;
    pthread_mutex_unlock(&t->mutex);
    if (wanted) {
        status = call(c, run);
        int64_t took = perf__now_ns(&t->host.clock) - c->begun_ns;
        perf__histogram_record(&t->runs, took > 0 ? (uint64_t)took / 1000 : 0);
        pthread_mutex_lock(&t->mutex);
        t->run_ns += (took - t->run_ns) / 8;
    } else { /* while it waited for a worker */
        pthread_mutex_lock(&t->mutex);
        bool cancelled = c->cancelled;
        c->end = (perf_queue_end){
            .state = cancelled ? PERF_TASK_CANCELLED : PERF_TASK_WAITING,
            .status = cancelled ? PERF_ECANCELED : PERF_OK,
            .error = cancelled ? "cancelled before it began" : "",
        };
        c->count_as = cancelled ? COUNT_CANCELLED : COUNT_RETURNED;
    }
    perf__claim_end(c);
    perf__tasks_dispatch(t);
    pthread_mutex_unlock(&t->mutex);
    perf__tasks_send_ends(t);
    return status;
}

int perf_run_end(perf_run *run, int status)
{
    struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    if (!c || !c->pulled)
        return perf__fail(PERF_EINVAL, "the run is not one that perf_tasks_claim gave");
    perf_tasks *t = c->tasks;
    int rc = perf__tasks_usable(t);
    if (rc)
        return rc;
    perf__claim_judge(c, run, status);
    int64_t took = perf__now_ns(&t->host.clock) - c->begun_ns;
    perf__histogram_record(&t->runs, took > 0 ? (uint64_t)took / 1000 : 0);
    perf__run_close(run, status < 0 ? status : PERF_OK); /* c->run_task keeps the result */
    pthread_mutex_lock(&t->mutex);
    c->pins++;
    perf__claim_end(c);
    pthread_mutex_unlock(&t->mutex);
    perf__tasks_send_ends(t);
    pthread_mutex_lock(&t->mutex);
    t->watchers++;
    while (c->state != CLAIM_DONE)
        pthread_cond_wait(&t->changed, &t->mutex); /* the keeper sends it again, or gives it up */
    t->watchers--;
    bool lost = c->lost;
    if (!--c->pins)
        perf__claim_free(c);
    pthread_mutex_unlock(&t->mutex);
    return lost ? perf__fail(PERF_ECONFLICT, "the lease of this task was lost, and somebody else "
                                             "has it; its end was not recorded")
                : PERF_OK;
}

/* --------------------------------------------------------------- inside a task */

int perf_run_payload(const perf_run *run, perf_bytes *payload)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    if (!payload)
        return perf__fail(PERF_EINVAL, "payload is NULL; give a place for it");
    if (!c)
        return perf__fail(PERF_EINVAL, "the run is not that of a durable task; call this in a "
                                       "handler of perf_tasks_handle, or after perf_tasks_claim");
    *payload = c->task->payload;
    return PERF_OK;
}

const char *perf_run_id(const perf_run *run)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    return c ? c->task->id : "";
}

const char *perf_run_kind(const perf_run *run)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    return c ? c->task->kind : "";
}

const char *perf_run_user(const perf_run *run)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    return c ? c->task->user : "";
}

int64_t perf_run_attempt(const perf_run *run)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    return c ? c->task->attempts : 1;
}

int64_t perf_run_version(const perf_run *run)
{
    const struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    return c ? c->task->version : 0;
}

int perf_run_snooze(perf_run *run, int64_t delay_ms)
{
    struct perf__claim *c = run ? perf__run_claim(run) : NULL;
    if (!c)
        return perf__fail(PERF_EINVAL, "only a durable task can be run again later; submit an "
                                       "executor's again with delay_ms");
    int rc = perf__check_range("delay_ms", delay_ms, 0, (int64_t)36500 * 86400000);
    if (rc)
        return rc;
    c->snooze_ms = delay_ms;
    return PERF_EBUSY;
}
