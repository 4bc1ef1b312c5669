/* SPDX-License-Identifier: MIT */
/*
 * tasks_claim.c - which tasks this process asks its queue for, and when.
 *
 * A thread claims as many as there are workers free, and so much more as keeps
 * all of them busy for some tens of milliseconds: round trips are then paid
 * while others run, and a batch is one transaction. How many that is follows how long tasks take;
 * long ones are not claimed ahead at all, for somebody else may be free.
 */
#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "tasks_impl.h"

enum {
    AHEAD_NS = 50000000, /* of work claimed ahead, for each worker */
    AHEAD_MAX = 256,     /* tasks claimed ahead; also the most in one call */
    ENDING_MAX = 256, /* ends that the queue has not taken yet: claim no more. As many may run again
                         after a crash */
    LOOK_MS = 1000,   /* at least so often the queue is asked, though it tells */
    RATE_MS = 50,     /* and so often while a kind waits for its rate */
    MINUTE_MS = 60000,
    KINDS_MAX = 256, /* on the stack of the claimer */
};

/* ------------------------------------------------------------------------ rooms */

/* How many tasks to have claimed ahead. With the mutex. */
static size_t ahead(const perf_tasks *t)
{
    int64_t each = AHEAD_NS / (t->run_ns > 0 ? t->run_ns : 1);
    size_t n = (size_t)(each < AHEAD_MAX ? each : AHEAD_MAX) * t->options.workers;
    return n < AHEAD_MAX ? n : AHEAD_MAX;
}

/* How many more of this kind may begin now. The rate is that of a window that slides: this minute's
 * count and the part of the last minute's that is still in it. With the mutex. */
static size_t room_of(struct perf__handler *h, int64_t now_ms, bool *rated)
{
    int64_t room = h->options.max_running - (int64_t)h->claimed;
    if (h->options.per_minute) {
        int64_t minute = now_ms / MINUTE_MS;
        if (minute != h->minute) {
            h->begun[1] = minute == h->minute + 1 ? h->begun[0] : 0;
            h->begun[0] = 0;
            h->minute = minute;
        }
        uint64_t left = (uint64_t)(MINUTE_MS - now_ms % MINUTE_MS);
        uint64_t before = (h->begun[1] * left + MINUTE_MS - 1) / MINUTE_MS;
        int64_t rate = h->options.per_minute - (int64_t)(h->begun[0] + before);
        if (rate < room) {
            room = rate;
            *rated = *rated || rate <= 0;
        }
    }
    return room > 0 ? (size_t)room : 0;
}

bool perf__tasks_has_room(const perf_tasks *t)
{
    /* Not one by one: a claim is a round trip. */
    return t->ready + t->running - t->pulled < t->options.workers + (ahead(t) + 1) / 2 &&
           t->ending < ENDING_MAX;
}

/* What to ask for. */
struct want {
    perf_queue_kind kinds[KINDS_MAX];
    const char *queues[PERF__TASK_QUEUES_MAX];
    size_t kind_count, max;
    bool rated;    /* some kind has had its tasks of this minute, */
    bool left_out; /* or as many run as may */
};

/* What to ask for; max 0: nothing. With the mutex. */
static void look_for(perf_tasks *t, struct want *w)
{
    int64_t now = perf__realtime_coarse_ms(&t->host.clock);
    uint64_t turn = t->turn++;
    w->kind_count = w->max = 0;
    w->rated = w->left_out = false;
    if (!perf__tasks_has_room(t))
        return;
    w->max = t->options.workers + ahead(t) - (t->ready + t->running - t->pulled);
    for (size_t i = 0; i < t->handler_count && w->kind_count < KINDS_MAX; i++) {
        /* More kinds than fit take turns. */
        size_t at = t->handler_count > KINDS_MAX ? (i + turn * KINDS_MAX) % t->handler_count : i;
        struct perf__handler *h = t->handlers[at];
        size_t room = room_of(h, now, &w->rated);
        w->left_out |= !room;
        if (!room)
            continue;
        if (room < w->max) /* any of those claimed may be of this kind */
            w->max = room;
        w->kinds[w->kind_count++] =
            (perf_queue_kind){h->kind, h->options.version_min, h->options.version_max};
    }
    if (!w->kind_count)
        w->max = 0;
    /* In one turn of eight another queue goes first, so that none starves. */
    size_t first = turn % 8 == 7 ? (size_t)(turn / 8) % t->queue_count : 0;
    w->queues[0] = t->queues[first];
    for (size_t i = 0, n = 1; i < t->queue_count; i++)
        if (i != first)
            w->queues[n++] = t->queues[i];
}

/* ----------------------------------------------------------------------- claims */

void perf__claim_free(struct perf__claim *c)
{
    const perf_allocator *a = &c->tasks->host.allocator;
    if (c->run_task)
        perf_task_release(c->run_task);
    perf__free(a, c->task);
    perf__free(a, c);
}

void perf__claim_done(struct perf__claim *c)
{
    perf_tasks *t = c->tasks;
    if (c->previous)
        c->previous->next = c->next;
    else
        t->claims = c->next;
    if (c->next)
        c->next->previous = c->previous;
    c->state = CLAIM_DONE;
    if (!c->pins)
        perf__claim_free(c);
}

/* A claim for a task of a reply; NULL: there is no memory. */
static struct perf__claim *adopt(perf_tasks *t, perf_queue_reply *reply, size_t i, bool pulled)
{
    struct perf__claim *c = perf__calloc(&t->host.allocator, 1, sizeof *c);
    if (!c)
        return NULL;
    c->tasks = t;
    c->task = perf__queue_reply_take(reply, i);
    c->pulled = pulled;
    c->snooze_ms = -1;
    c->lease_until_ms = c->task->lease_until_ms;
    pthread_mutex_lock(&t->mutex);
    c->handler = perf__tasks_handler(t, c->task->kind);
    c->timeout_ms = c->task->timeout_ms ? c->task->timeout_ms
                    : c->handler        ? c->handler->options.timeout_ms
                                        : 0;
    c->next = t->claims;
    if (c->next)
        c->next->previous = c;
    t->claims = c;
    if (c->handler) {
        bool ignored = false;
        (void)room_of(c->handler, perf__realtime_coarse_ms(&t->host.clock), &ignored);
        c->handler->claimed++;
        c->handler->begun[0]++;
    }
    if (pulled) {
        c->state = CLAIM_RUNNING;
        t->running++;
        t->pulled++;
    } else {
        if (t->ready_tail)
            t->ready_tail->next_in_line = c;
        else
            t->ready_head = c;
        t->ready_tail = c;
        t->ready++;
    }
    pthread_mutex_unlock(&t->mutex);
    return c;
}

void perf__tasks_dispatch(perf_tasks *t)
{
    while (t->ready_head && t->running - t->pulled < t->options.workers && !t->stopping) {
        struct perf__claim *c = t->ready_head;
        c->state = CLAIM_RUNNING; /* before a worker can see it */
        if (perf_task_submit(t->executor, perf__claim_run, c, NULL, NULL)) {
            c->state = CLAIM_READY;
            return; /* no memory now: the claimer tries again */
        }
        t->ready_head = c->next_in_line;
        if (!t->ready_head)
            t->ready_tail = NULL;
        c->next_in_line = NULL;
        t->ready--;
        t->running++;
    }
}

static int ask(perf_tasks *t, const struct want *w, perf_queue_reply *reply)
{
    perf_queue_claim want = {
        .struct_size = sizeof want,
        .queues = w->queues,
        .queues_count = t->queue_count,
        .kinds = w->kinds,
        .kinds_count = w->kind_count,
        .max = w->max,
        .worker = t->worker,
        .now_ms = perf__realtime_ms(&t->host.clock),
        .lease_ms = t->options.lease_ms,
    };
    return perf__task_queue_claim(t->queue, &want, reply);
}

/* Waits for the queue to have something. What was left out is not news to the queue: a wake for it
 * may come before the wait, which is therefore short. */
static void wait_for_tasks(perf_tasks *t, const struct want *w)
{
    int64_t ms = perf__task_queue_waits(t->queue) ? LOOK_MS : t->options.poll_ms;
    pthread_mutex_lock(&t->mutex);
    bool wake = t->wake_claimer;
    pthread_mutex_unlock(&t->mutex);
    if (wake)
        return;
    if (w->left_out && ms > RATE_MS)
        ms = RATE_MS;
    if (perf__task_queue_wait(t->queue, ms) != PERF_EUNSUPPORTED)
        return;
    pthread_mutex_lock(&t->mutex);
    if (!t->stopping)
        perf__cond_wait(&t->room, &t->mutex, perf__deadline_after(ms));
    pthread_mutex_unlock(&t->mutex);
}

/* The thread. */
void *perf__tasks_claimer(void *arg)
{
    perf_tasks *t = arg;
    perf_queue_reply reply = {.allocator = &t->host.allocator};
    uint32_t failures = 0;
    struct want w;
    pthread_mutex_lock(&t->mutex);
    while (!t->stopping) {
        perf__tasks_dispatch(t);
        t->wake_claimer = false;
        look_for(t, &w);
        if (!w.max) {
            t->claimer_waits = true;
            perf__cond_wait(&t->room, &t->mutex, perf__deadline_after(w.rated ? RATE_MS : LOOK_MS));
            t->claimer_waits = false;
            continue;
        }
        pthread_mutex_unlock(&t->mutex);
        int rc = ask(t, &w, &reply);
        for (size_t i = 0; !rc && i < reply.count; i++)
            if (!adopt(t, &reply, i, false))
                rc = perf__fail_nomem("a claimed task"); /* its lease passes */
        perf__tasks_count(t, COUNT_CLAIMED, reply.count);
        perf__queue_reply_free(&reply);
        if (rc == PERF_MISS)
            wait_for_tasks(t, &w);
        failures = rc < 0 ? failures + 1 : 0;
        if (failures)
            perf__tasks_queue_failed(t, "claim", rc, failures);
        pthread_mutex_lock(&t->mutex);
        int64_t until = failures ? perf__deadline_after(perf__tasks_back_off_ms(failures)) : 0;
        while (until && !t->stopping && perf__cond_wait(&t->room, &t->mutex, until))
            ;
    }
    t->claiming = false;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
    return NULL;
}

/* ------------------------------------------------------------------------ pulled */

/* One task for perf_tasks_claim. */
static int pull(perf_tasks *t, const char *kind, perf_queue_reply *reply, bool *rated)
{
    struct want *w = perf__alloc(&t->host.allocator, sizeof *w);
    if (!w)
        return perf__fail_nomem("a claim");
    pthread_mutex_lock(&t->mutex);
    struct perf__handler *h = kind ? perf__tasks_handler(t, kind) : NULL;
    int64_t now = perf__realtime_coarse_ms(&t->host.clock);
    w->kind_count = 0;
    if (kind)
        w->kinds[w->kind_count++] = (perf_queue_kind){kind, h ? h->options.version_min : 0,
                                                      h ? h->options.version_max : INT32_MAX};
    for (size_t i = 0; !kind && i < t->handler_count && w->kind_count < KINDS_MAX; i++)
        if (room_of(t->handlers[i], now, rated))
            w->kinds[w->kind_count++] =
                (perf_queue_kind){t->handlers[i]->kind, t->handlers[i]->options.version_min,
                                  t->handlers[i]->options.version_max};
    w->max = w->kind_count ? 1 : 0;
    for (size_t i = 0; i < t->queue_count; i++)
        w->queues[i] = t->queues[i];
    pthread_mutex_unlock(&t->mutex);
    int rc = w->max ? ask(t, w, reply) : PERF_MISS;
    perf__free(&t->host.allocator, w);
    return rc;
}

/* A run around a claimed task. */
static int begin_pulled(perf_tasks *t, perf_queue_reply *reply, perf_run **run)
{
    int rc = perf__run_open(&t->host, run);
    if (rc)
        return rc; /* the task's lease passes */
    struct perf__claim *c = adopt(t, reply, 0, true);
    if (!c) {
        perf__run_close(*run, PERF_ENOMEM);
        return perf__fail_nomem("a claimed task");
    }
    perf__run_set_claim(*run, c);
    perf__claim_begin(c, *run);
    return PERF_OK;
}

int perf_tasks_claim(perf_tasks *t, const char *kind, int64_t timeout_ms, perf_run **run)
{
    int rc = perf__tasks_usable(t);
    if (rc || (kind && (rc = perf__check_kind(kind))) ||
        (rc = perf__check_range("timeout_ms", timeout_ms, -1, INT32_MAX)))
        return rc;
    if (!run)
        return perf__fail(PERF_EINVAL, "perf_tasks_claim needs a place for the run");
    pthread_mutex_lock(&t->mutex);
    if (!kind && !t->handler_count)
        rc = perf__fail(PERF_EINVAL, "there is no handler; name a kind, or call perf_tasks_handle");
    else
        rc = perf__tasks_keep_start(t);
    pthread_mutex_unlock(&t->mutex);
    if (rc)
        return rc;
    perf_queue_reply reply = {.allocator = &t->host.allocator};
    int64_t until = timeout_ms > 0 ? perf__deadline_after(timeout_ms) : 0;
    for (;;) {
        bool rated = false;
        pthread_mutex_lock(&t->mutex);
        bool closing = t->closing;
        pthread_mutex_unlock(&t->mutex);
        if (closing)
            return perf__fail(PERF_ECLOSED, "the perf_tasks is being closed");
        rc = pull(t, kind, &reply, &rated);
        if (rc != PERF_MISS)
            break;
        int64_t left = LOOK_MS;
        if (timeout_ms >= 0)
            left = timeout_ms ? perf__deadline_left(until) : 0;
        if (left <= 0)
            return PERF_MISS;
        int64_t most = rated                              ? RATE_MS
                       : perf__task_queue_waits(t->queue) ? LOOK_MS
                                                          : t->options.poll_ms;
        if (left > most)
            left = most;
        if (perf__task_queue_wait(t->queue, left) == PERF_EUNSUPPORTED) {
            pthread_mutex_lock(&t->mutex);
            perf__cond_wait(&t->room, &t->mutex, perf__deadline_after(left));
            pthread_mutex_unlock(&t->mutex);
        }
    }
    if (rc < 0) {
        perf__tasks_queue_failed(t, "claim", rc, 1);
    } else {
        perf__tasks_count(t, COUNT_CLAIMED, reply.count);
        rc = begin_pulled(t, &reply, run);
    }
    perf__queue_reply_free(&reply);
    return rc;
}
