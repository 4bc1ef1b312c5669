/* SPDX-License-Identifier: MIT */
/*
 * tasks.c - opening, starting, stopping and closing a queue of durable tasks.
 *
 * Opening starts nothing. Closing gives back what was claimed and has not
 * begun, waits for what runs, asks it to stop, and refuses while a handler does
 * not. Any thread, but for close.
 */
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "tasks_impl.h"

enum {
    WORKERS_MAX = 512,
    LAST_MS = 1000,     /* for what was asked to stop */
    WAKE_MS = 10,       /* between tries to wake the claimer */
    BACK_OFF_MS = 50,   /* after the first failure; doubles */
    BACK_OFF_MAX = 5000 /* ms */
};

static const int64_t DAY_MS = 86400000;

/* ------------------------------------------------------------- small and shared */

int perf__tasks_usable(perf_tasks *t)
{
    if (!t)
        return perf__fail(PERF_EINVAL, "the perf_tasks is NULL");
    return t->fork_generation != perf__fork_generation ? perf__fail_forked() : PERF_OK;
}

void perf__tasks_count(perf_tasks *t, uint32_t which, uint64_t n)
{
    if (n)
        perf__counters_add(&t->counters, which, n);
}

void perf__tasks_queue_failed(perf_tasks *t, const char *what, int rc, uint32_t failures)
{
    perf__tasks_count(t, COUNT_QUEUE_ERRORS, 1);
    if (failures == 1 || failures % 64 == 0)
        perf__log(&t->host.log, PERF_LOG_WARNING, "task",
                  "the queue's %s failed (%s): %s; it is tried again", what, perf_strstatus(rc),
                  perf_last_error());
}

struct perf__handler *perf__tasks_handler(const perf_tasks *t, const char *kind)
{
    for (size_t i = 0; i < t->handler_count; i++)
        if (!strcmp(t->handlers[i]->kind, kind))
            return t->handlers[i];
    return NULL;
}

int64_t perf__tasks_back_off_ms(uint32_t failures)
{
    int64_t most =
        failures > 7 ? BACK_OFF_MAX : (int64_t)BACK_OFF_MS << (failures ? failures - 1 : 0);
    if (most > BACK_OFF_MAX)
        most = BACK_OFF_MAX;
    return most / 2 + (int64_t)(perf__thread_random() % (uint64_t)(most / 2 + 1));
}

/* ------------------------------------------------------------------------- open */

static void use_default(uint64_t *field, uint64_t value)
{
    if (!*field)
        *field = value;
}

static void use_default_ms(int64_t *field, int64_t value)
{
    if (!*field)
        *field = value;
}

static int take_options(const perf_tasks_options *given, perf_tasks_options *o)
{
    int rc = perf__options_take("perf_tasks_options", given, o, sizeof *o);
    if (rc)
        return rc;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    use_default(&o->workers, processors < 2             ? 2
                             : processors > WORKERS_MAX ? WORKERS_MAX
                                                        : (uint64_t)processors);
    use_default_ms(&o->lease_ms, 30000);
    use_default_ms(&o->poll_ms, 200);
    use_default_ms(&o->keep_ms, 7 * DAY_MS);
    use_default(&o->max_payload, 1 << 20);
    use_default(&o->max_result, 16 << 20);
    if (!o->queues || !*o->queues)
        o->queues = "default";
    if ((rc = perf__check_range("workers", (int64_t)o->workers, 1, WORKERS_MAX)) ||
        (rc = perf__check_range("lease_ms", o->lease_ms, 100, DAY_MS)) ||
        (rc = perf__check_range("poll_ms", o->poll_ms, 1, 60000)) ||
        (rc = perf__check_range("keep_ms", o->keep_ms, 1, 36500 * DAY_MS)) ||
        (rc = perf__check_range("sync", o->sync, PERF_SYNC_NORMAL, PERF_SYNC_FULL)) ||
        (rc = perf__check_range("max_payload", (int64_t)o->max_payload, 1, 1 << 30)) ||
        (rc = perf__check_range("max_result", (int64_t)o->max_result, 1, 1 << 30)))
        return rc;
    return o->worker ? perf__check_text("worker", o->worker, 127) : PERF_OK;
}

/* "a,b" into names. */
static int take_queues(perf_tasks *t, const char *names)
{
    t->queue_names = perf__strndup(&t->host.allocator, names, strlen(names));
    if (!t->queue_names)
        return perf__fail_nomem("the names of queues");
    char *p = t->queue_names;
    for (;;) {
        size_t len = strcspn(p, ",");
        bool last = !p[len];
        p[len] = 0;
        if (perf__check_queue(p))
            return perf__fail(PERF_EINVAL,
                              "queues has \"%.80s\" where a name should be; give names of letters, "
                              "digits and \"._-:/\" separated by commas",
                              p);
        if (t->queue_count == PERF__TASK_QUEUES_MAX)
            return perf__fail(PERF_EINVAL, "queues has more than %d names; give fewer",
                              PERF__TASK_QUEUES_MAX);
        t->queues[t->queue_count++] = p;
        if (last)
            return PERF_OK;
        p += len + 1;
    }
}

/* "host:pid" */
static void name_worker(perf_tasks *t, const char *given)
{
    size_t size = sizeof t->worker;
    if (given) {
        memcpy(t->worker, given, strlen(given) + 1);
        return;
    }
    if (gethostname(t->worker, size - 16) || perf__check_text("worker", t->worker, size - 16))
        memcpy(t->worker, "host", 5);
    t->worker[size - 17] = 0;
    char digits[16];
    size_t n = 0, at = strlen(t->worker);
    for (unsigned pid = (unsigned)getpid(); pid || !n; pid /= 10)
        digits[n++] = (char)('0' + pid % 10);
    t->worker[at++] = ':';
    while (n)
        t->worker[at++] = digits[--n];
    t->worker[at] = 0;
}

/* Everything but threads, locks and the queue. */
static void free_tasks(perf_tasks *t)
{
    perf_allocator a = t->host.allocator; /* it is in the memory that goes */
    while (t->claims) {
        struct perf__claim *c = t->claims;
        t->claims = c->next;
        perf__claim_free(c);
    }
    perf__tasks_free_schedules(t);
    for (size_t i = 0; i < t->handler_count; i++) {
        struct perf__handler *h = t->handlers[i];
        if (h->options.free_ctx)
            h->options.free_ctx(h->ctx);
        perf__free(&a, h);
    }
    perf__free(&a, t->handlers);
    if (t->counters.allocator)
        perf__counters_destroy(&t->counters);
    perf__histogram_destroy(&t->runs);
    perf__histogram_destroy(&t->waits);
    perf__free(&a, t->queue_names);
    perf__free(&a, t);
}

static int init_locks(perf_tasks *t)
{
    if (pthread_mutex_init(&t->mutex, NULL))
        return PERF_ENOMEM;
    if (pthread_mutex_init(&t->id_mutex, NULL))
        goto no_id;
    if (perf__cond_init(&t->changed))
        goto no_changed;
    if (perf__cond_init(&t->keep))
        goto no_keep;
    if (perf__cond_init(&t->room))
        goto no_room;
    return PERF_OK;
no_room:
    pthread_cond_destroy(&t->keep);
no_keep:
    pthread_cond_destroy(&t->changed);
no_changed:
    pthread_mutex_destroy(&t->id_mutex);
no_id:
    pthread_mutex_destroy(&t->mutex);
    return PERF_ENOMEM;
}

static void destroy_locks(perf_tasks *t)
{
    pthread_cond_destroy(&t->room);
    pthread_cond_destroy(&t->keep);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->id_mutex);
    pthread_mutex_destroy(&t->mutex);
}

int perf_tasks_open(const perf_tasks_options *options, perf_tasks **out)
{
    perf_tasks_options own;
    struct perf__host host;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_tasks_open needs a place for the perf_tasks");
    int rc = take_options(options, &own);
    if (rc || (rc = perf__host_take(own.host, &host)) || (rc = perf__fork_arm()))
        return rc;
    perf_tasks *t = perf__calloc(&host.allocator, 1, sizeof *t);
    if (!t)
        return perf__fail_nomem("a perf_tasks");
    t->host = host;
    t->host.view = (perf_host){sizeof(perf_host), &t->host.allocator, &t->host.clock, &t->host.log};
    t->own_clock = host.clock.monotonic_ns != perf__default_clock.monotonic_ns;
    t->fork_generation = perf__fork_generation;
    t->run_ns = 1000000000; /* until we know better: claim little ahead */
    name_worker(t, own.worker);
    rc = take_queues(t, own.queues);
    if (!rc && (perf__counters_init(&t->counters, &t->host.allocator, COUNT_COUNT) ||
                perf__histogram_init(&t->runs, &t->host.allocator) ||
                perf__histogram_init(&t->waits, &t->host.allocator)))
        rc = perf__fail_nomem("the figures of a perf_tasks");
    if (rc)
        goto no_locks;
    if (init_locks(t)) {
        rc = perf__fail_nomem("the locks of a perf_tasks");
        goto no_locks;
    }
    rc = perf__task_queue_open(&own, &t->host, &t->queue);
    if (rc)
        goto no_queue;
    t->options = own;
    t->options.backend = t->options.location = t->options.queues = t->options.worker = NULL;
    t->options.vtable = NULL;
    t->options.host = NULL;
    *out = t;
    return PERF_OK;
no_queue:
    destroy_locks(t);
no_locks:
    free_tasks(t);
    return rc;
}

/* --------------------------------------------------------------------- handlers */

static int take_handler_options(const perf_handler_options *given, perf_handler_options *o)
{
    int rc = perf__options_take("perf_handler_options", given, o, sizeof *o);
    if (rc)
        return rc;
    use_default_ms(&o->max_attempts, PERF__DEFAULT_ATTEMPTS);
    use_default_ms(&o->backoff_ms, 1000);
    use_default_ms(&o->backoff_max_ms, o->backoff_ms > 3600000 ? o->backoff_ms : 3600000);
    use_default_ms(&o->max_running, INT32_MAX); /* the workers are bound enough */
    use_default_ms(&o->version_max, INT32_MAX);
    if ((rc = perf__check_range("max_attempts", o->max_attempts, -1, INT32_MAX)) ||
        (rc = perf__check_range("timeout_ms", o->timeout_ms, 0, 36500 * DAY_MS)) ||
        (rc = perf__check_range("backoff_ms", o->backoff_ms, 1, 365 * DAY_MS)) ||
        (rc =
             perf__check_range("backoff_max_ms", o->backoff_max_ms, o->backoff_ms, 365 * DAY_MS)) ||
        (rc = perf__check_range("max_running", o->max_running, 1, INT32_MAX)) ||
        (rc = perf__check_range("per_minute", o->per_minute, 0, INT32_MAX)) ||
        (rc = perf__check_range("version_min", o->version_min, 0, INT32_MAX)))
        return rc;
    return perf__check_range("version_max", o->version_max, o->version_min, INT32_MAX);
}

int perf_tasks_handle(perf_tasks *t, const char *kind, perf_task_fn fn, void *ctx,
                      const perf_handler_options *options)
{
    perf_handler_options own;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_kind(kind)) || (rc = take_handler_options(options, &own)))
        return rc;
    if (!fn)
        return perf__fail(PERF_EINVAL, "the handler of \"%s\" is NULL; give a function", kind);
    const perf_allocator *a = &t->host.allocator;
    struct perf__handler *h = perf__calloc(a, 1, sizeof *h);
    if (!h)
        return perf__fail_nomem("a handler");
    memcpy(h->kind, kind, strlen(kind) + 1);
    h->fn = fn;
    h->ctx = ctx;
    h->options = own;
    pthread_mutex_lock(&t->mutex);
    struct perf__handler **grown = NULL;
    if (t->started || t->claims)
        rc = perf__fail(PERF_EBUSY,
                        "work has begun; give the handler of \"%s\" before "
                        "perf_tasks_start",
                        kind);
    else if (perf__tasks_handler(t, kind))
        rc = perf__fail(PERF_EEXISTS, "\"%s\" has a handler; give one for each kind", kind);
    else if (!(grown = perf__realloc(a, t->handlers, (t->handler_count + 1) * sizeof *grown)))
        rc = perf__fail_nomem("a handler");
    if (!rc) {
        t->handlers = grown;
        t->handlers[t->handler_count++] = h;
    }
    pthread_mutex_unlock(&t->mutex);
    if (rc)
        perf__free(a, h);
    return rc;
}

int perf_tasks_hook(perf_tasks *t, const perf_task_hooks *hooks)
{
    perf_task_hooks own;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__options_take("perf_task_hooks", hooks, &own, sizeof own)))
        return rc;
    pthread_mutex_lock(&t->mutex);
    if (t->started || t->claims)
        rc = perf__fail(PERF_EBUSY, "work has begun; give hooks before perf_tasks_start");
    else if (t->hook_count == PERF__TASK_HOOKS_MAX)
        rc = perf__fail(PERF_EBUSY, "there are %d hooks; give fewer", PERF__TASK_HOOKS_MAX);
    else
        t->hooks[t->hook_count++] = own;
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

/* ------------------------------------------------------------------ start, stop */

static int open_executor(perf_tasks *t)
{
    perf_executor_options o = PERF_EXECUTOR_OPTIONS_INIT;
    o.min_threads = o.max_threads = t->options.workers;
    o.full = PERF_SUBMIT_FAIL; /* never: we submit as many as there are threads */
    o.name = "perf-task";
    o.host = &t->host.view;
    return perf_executor_open(&o, &t->executor);
}

int perf_tasks_start(perf_tasks *t)
{
    int rc = perf__tasks_usable(t);
    if (rc)
        return rc;
    pthread_mutex_lock(&t->mutex);
    if (t->started || t->stopping || t->closing) {
        rc = perf__fail(PERF_EBUSY, "the workers are %s",
                        t->started ? "started already" : "being stopped");
        goto out;
    }
    if (!t->handler_count) {
        rc = perf__fail(PERF_EINVAL, "there is no handler; call perf_tasks_handle first, or do not "
                                     "start in a process that only submits");
        goto out;
    }
    if ((!t->executor && (rc = open_executor(t))) || (rc = perf__tasks_keep_start(t)))
        goto out;
    t->claiming = true;
    if (perf__thread_start(&t->claimer, "perf-tasks", perf__tasks_claimer, t)) {
        t->claiming = false;
        rc = perf__fail_nomem("the thread that claims tasks");
        goto out;
    }
    t->started = true;
out:
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

/* What has not begun goes back to the queue, its attempt not counted. With the mutex. */
static void give_back_ready(perf_tasks *t)
{
    while (t->ready_head) {
        struct perf__claim *c = t->ready_head;
        c->end = (perf_queue_end){.state = PERF_TASK_WAITING, .error = ""};
        t->ready_head = c->next_in_line;
        if (!t->ready_head)
            t->ready_tail = NULL;
        t->ready--;
        perf__claim_end(c);
    }
}

/* Ends the claiming thread. With the mutex, which it lets go of. */
static void stop_claiming(perf_tasks *t)
{
    t->stopping = true;
    while (t->claiming) { /* a wake may come before its wait */
        pthread_cond_broadcast(&t->room);
        pthread_mutex_unlock(&t->mutex);
        perf__task_queue_wake(t->queue);
        pthread_mutex_lock(&t->mutex);
        if (t->claiming)
            perf__cond_wait(&t->changed, &t->mutex, perf__deadline_after(WAKE_MS));
    }
    if (t->started) {
        pthread_mutex_unlock(&t->mutex);
        pthread_join(t->claimer, NULL);
        pthread_mutex_lock(&t->mutex);
        t->started = false;
    }
    give_back_ready(t);
    pthread_mutex_unlock(&t->mutex);
    perf__tasks_send_ends(t);
    pthread_mutex_lock(&t->mutex);
}

/* Waits until nothing runs and every end is kept; with pulled ones or without. -1: for ever. With
 * the mutex. */
static bool wait_for_ends(perf_tasks *t, int64_t timeout_ms, bool pulled)
{
    int64_t deadline = timeout_ms > 0 ? perf__deadline_after(timeout_ms) : 0;
    bool quiet, again = timeout_ms != 0;
    t->watchers++;
    for (;;) {
        quiet = t->running == (pulled ? 0 : t->pulled) && !t->ending && !t->finishing;
        if (quiet || !again)
            break;
        again = perf__cond_wait(&t->changed, &t->mutex, deadline);
    }
    t->watchers--;
    return quiet;
}

int perf_tasks_stop(perf_tasks *t, int64_t timeout_ms)
{
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__check_range("timeout_ms", timeout_ms, -1, 36500 * DAY_MS)))
        return rc;
    pthread_mutex_lock(&t->mutex);
    if (t->stopping) {
        pthread_mutex_unlock(&t->mutex);
        return perf__fail(PERF_EBUSY, "the workers are being stopped by another thread");
    }
    stop_claiming(t);
    bool quiet = wait_for_ends(t, timeout_ms, false);
    t->stopping = false;
    size_t running = t->running - t->pulled;
    pthread_mutex_unlock(&t->mutex);
    return quiet ? PERF_OK
                 : perf__fail(PERF_ETIMEDOUT, "after %lld ms %zu tasks still run",
                              (long long)timeout_ms, running);
}

/* With the mutex. Names one, for the sentence. */
static int refuse_to_close(perf_tasks *t)
{
    struct perf__claim *c = t->claims;
    while (c && c->state != CLAIM_RUNNING)
        c = c->next;
    int rc = perf__fail(PERF_EBUSY,
                        "%zu tasks still run%s%s%s%s; handlers must look at perf_run_cancelled, "
                        "and what perf_tasks_claim gave needs perf_run_end; then close again",
                        t->running, c ? ", among them one of kind " : "", c ? c->task->kind : "",
                        c ? ": " : "", c ? c->task->id : "");
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

int perf_tasks_close(perf_tasks *t, int64_t drain_ms)
{
    if (!t)
        return PERF_OK;
    if (t->fork_generation != perf__fork_generation) { /* nothing here is ours but the memory */
        perf_executor_close(t->executor, 0);
        perf__task_queue_abandon(t->queue);
        free_tasks(t);
        return PERF_OK;
    }
    int rc = perf__check_range("drain_ms", drain_ms, -1, 36500 * DAY_MS);
    if (rc)
        return rc;
    pthread_mutex_lock(&t->mutex);
    t->closing = true;
    stop_claiming(t);
    if (!wait_for_ends(t, drain_ms, true)) {
        pthread_mutex_unlock(&t->mutex);
        perf__tasks_ask_to_stop(t, true);
        pthread_mutex_lock(&t->mutex);
        wait_for_ends(t, LAST_MS, true);
    }
    if (t->running)
        return refuse_to_close(t);
    if (t->ending)
        perf__log(&t->host.log, PERF_LOG_ERROR, "task",
                  "the ends of %zu tasks could not be recorded before the close; they run again",
                  t->ending);
    pthread_mutex_unlock(&t->mutex);
    if (t->executor && (rc = perf_executor_close(t->executor, LAST_MS)))
        return rc;
    t->executor = NULL;
    perf__tasks_keep_stop(t);
    perf__task_queue_close(t->queue);
    destroy_locks(t);
    free_tasks(t);
    return PERF_OK;
}

/* ------------------------------------------------------------------- statistics */

int perf_tasks_get_stats(perf_tasks *t, perf_tasks_stats *stats)
{
    size_t size;
    int rc = perf__tasks_usable(t);
    if (rc || (rc = perf__options_check_out("perf_tasks_stats", stats, &size)))
        return rc;
    struct perf__histogram_snapshot *s = perf__alloc(&t->host.allocator, sizeof *s);
    if (!s)
        return perf__fail_nomem("the figures of a perf_tasks");
    const struct perf__counters *c = &t->counters;
    perf_tasks_stats own = {
        .struct_size = sizeof own,
        .submitted = perf__counters_sum(c, COUNT_SUBMITTED),
        .duplicates = perf__counters_sum(c, COUNT_DUPLICATES),
        .claimed = perf__counters_sum(c, COUNT_CLAIMED),
        .succeeded = perf__counters_sum(c, COUNT_SUCCEEDED),
        .failed = perf__counters_sum(c, COUNT_FAILED),
        .cancelled = perf__counters_sum(c, COUNT_CANCELLED),
        .dead = perf__counters_sum(c, COUNT_DEAD),
        .retried = perf__counters_sum(c, COUNT_RETRIED),
        .snoozed = perf__counters_sum(c, COUNT_SNOOZED),
        .returned = perf__counters_sum(c, COUNT_RETURNED),
        .lost = perf__counters_sum(c, COUNT_LOST),
        .rescued = perf__counters_sum(c, COUNT_RESCUED),
        .removed = perf__counters_sum(c, COUNT_REMOVED),
        .queue_errors = perf__counters_sum(c, COUNT_QUEUE_ERRORS),
    };
    pthread_mutex_lock(&t->mutex);
    own.running = t->running;
    pthread_mutex_unlock(&t->mutex);
    perf__histogram_snapshot(&t->runs, s);
    own.run_p50_us = (int64_t)perf__histogram_quantile(s, 0.5);
    own.run_p99_us = (int64_t)perf__histogram_quantile(s, 0.99);
    perf__histogram_snapshot(&t->waits, s);
    own.wait_p50_us = (int64_t)perf__histogram_quantile(s, 0.5);
    own.wait_p99_us = (int64_t)perf__histogram_quantile(s, 0.99);
    perf__free(&t->host.allocator, s);
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
