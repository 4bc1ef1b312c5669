/* SPDX-License-Identifier: MIT */
/*
 * tier_commit.c - many threads' changes become few commits, in order.
 *
 * One commit is under way at a time. Whoever needs one and finds none takes the
 * oldest changes as a batch, commits them without holding the mutex, and wakes
 * those who wait: a leader and its followers (DeWitt et al., "Implementation
 * techniques for main memory database systems", SIGMOD 1984, on group commit).
 * With write-behind a background job is the leader; a caller leads only when it
 * waits for room or for a flush, so no caller ever waits for a thread that may
 * not come.
 *
 * When the store fails, callers are told (write-through) or the batch is tried
 * again a few times and given up (write-behind). A batch that the store refuses
 * because of what is in it is taken apart, so that one bad change fails alone.
 *
 * Memory for a commit is taken when the tier is opened: committing never fails
 * for want of it.
 */
#include <string.h>

#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "tier_impl.h"

enum {
    BATCH_BYTES = 1 << 20,
    ATTEMPTS = 4, /* of a write-behind batch, 10, 40 and 160 ms apart */
    FIRST_BACKOFF_MS = 10,
    BACKOFF_FACTOR = 4
};

/* Those who ask for young marks only must not miss one that comes late. To kill a little more is
 * allowed: a cache may forget anything. */
static void refresh_mark(struct perf__tier *t, perf_store_op *op)
{
    int64_t now = perf__realtime_ms(&t->host->clock);
    if (op->kind == PERF_STORE_MARK && op->mark_stamp_ms > 0 &&
        op->mark_stamp_ms < now - PERF__MARKS_LATE_MS)
        op->mark_stamp_ms = now;
}

static void take_list(struct perf__tier *t, const struct perf__tier_list *list, size_t *bytes)
{
    for (struct perf__change *c = list->first; c && t->batch_size < PERF__TIER_BATCH;
         c = perf__change_next(c)) {
        struct perf__change_view *view = perf__change_view(c);
        if (t->batch_size && *bytes + view->bytes > BATCH_BYTES)
            return;
        *bytes += view->bytes;
        view->in_flight = true;
        refresh_mark(t, &view->op);
        t->ops[t->batch_size] = view->op;
        t->batch[t->batch_size++] = c;
    }
}

/* One by one, after the store refused them together. Without the mutex. */
static int apply_apart(struct perf__tier *t)
{
    int rc = PERF_OK;
    for (size_t i = 0; i < t->batch_size; i++) {
        struct perf__change_view *view = perf__change_view(t->batch[i]);
        if (rc && !perf__tier_is_refusal(rc)) {
            view->rc = rc; /* the store itself went away meanwhile */
            continue;
        }
        perf_store_op op = t->ops[i];
        rc = view->rc = perf__store_apply(t->store, &op, 1);
        if (perf__tier_is_refusal(rc) && op.kind == PERF_STORE_SET) {
            /* What was there before is no longer true. */
            char text[PERF__TIER_TEXT];
            strncpy(text, perf_last_error(), sizeof text - 1);
            text[sizeof text - 1] = '\0';
            op.kind = PERF_STORE_REMOVE;
            op.record = (perf_bytes){"", 0};
            int removed = perf__store_apply(t->store, &op, 1);
            if (removed && !perf__tier_is_refusal(removed))
                rc = view->rc = removed;
            else
                perf__fail(rc, "%s", text);
        }
    }
    return rc && !perf__tier_is_refusal(rc) ? rc : PERF_OK;
}

/* Commits ops; every change of the batch gets its rc. Returns an error that is the store's. */
static int apply_batch(struct perf__tier *t)
{
    struct perf__asked asked;
    int rc = perf__tier_ask(t, &asked);
    if (!rc)
        rc = perf__tier_answered(t, &asked, perf__store_apply(t->store, t->ops, t->batch_size));
    if (perf__tier_is_refusal(rc))
        return apply_apart(t);
    for (size_t i = 0; i < t->batch_size; i++)
        perf__change_view(t->batch[i])->rc = rc;
    return rc;
}

/* Between two attempts; ends early when the tier closes. */
static bool back_off(struct perf__tier *t, int64_t ms)
{
    int64_t deadline = perf__deadline_after(ms);
    pthread_mutex_lock(&t->mutex);
    while (!t->closing && perf__cond_wait(&t->changed, &t->mutex, deadline))
        continue;
    bool go_on = !t->closing;
    pthread_mutex_unlock(&t->mutex);
    return go_on;
}

/* Books what apply_batch left. */
static void settle(struct perf__tier *t, int rc)
{
    size_t kept = 0, from_queue = 0, failed = 0;
    for (size_t i = 0; i < t->batch_size; i++) {
        struct perf__change_view *view = perf__change_view(t->batch[i]);
        from_queue += !view->repair;
        if (view->rc) {
            failed++;
            perf__tier_lose(t, t->batch[i], view->rc);
            continue;
        }
        kept++;
        t->repaired += view->repair;
        if (!view->repair)
            t->done_ticket = view->ticket;
        perf__queue_drop(&t->pending, t->batch[i]);
    }
    t->writes += kept;
    t->commits += kept > 0;
    if (failed)
        perf__counters_add(&t->counters, PERF__TIER_ERRORS, 1);
    if (rc && !t->behind)
        perf__tier_lose_more(t, rc, SIZE_MAX);
    else if (rc && !from_queue)
        perf__tier_lose_more(t, rc, PERF__TIER_BATCH);
    if (t->pending.repairs.bytes > t->queue_max_bytes)
        perf__tier_summarise_repairs(t);
}

/* Once a burst: a store that fails a thousand times is one event. Without the mutex. */
static void report(struct perf__tier *t, int rc, bool was_down)
{
    const char *name = perf__store_name(t->store);
    if (rc && !was_down)
        perf__log(&t->host->log, PERF_LOG_WARNING, "cache",
                  "tier \"%s\" fails, its writes are lost until it works again: %s", name, t->text);
    else if (!rc && was_down)
        perf__log(&t->host->log, PERF_LOG_INFO, "cache", "tier \"%s\" works again", name);
}

int perf__tier_commit(struct perf__tier *t, bool patient)
{
    t->committing = true;
    t->batch_size = 0;
    size_t bytes = 0;
    take_list(t, &t->pending.repairs, &bytes);
    take_list(t, &t->pending.queue, &bytes);
    bool was_down = t->down;
    int attempts = patient && !was_down && !t->closing ? ATTEMPTS : 1;
    pthread_mutex_unlock(&t->mutex);

    int64_t backoff_ms = FIRST_BACKOFF_MS;
    int rc = apply_batch(t);
    while (rc && --attempts && back_off(t, backoff_ms)) {
        backoff_ms *= BACKOFF_FACTOR;
        rc = apply_batch(t);
    }

    pthread_mutex_lock(&t->mutex);
    bool any_failed = rc != PERF_OK;
    for (size_t i = 0; i < t->batch_size && !any_failed; i++)
        any_failed = perf__change_view(t->batch[i])->rc != PERF_OK;
    if (any_failed) {
        strncpy(t->text, perf_last_error(), sizeof t->text - 1);
        t->text[sizeof t->text - 1] = '\0';
    }
    t->down = rc != PERF_OK;
    settle(t, rc);
    if ((rc != 0) != was_down) {
        pthread_mutex_unlock(&t->mutex);
        report(t, rc, was_down);
        pthread_mutex_lock(&t->mutex);
    }
    t->committing = false;
    pthread_cond_broadcast(&t->changed);
    return rc;
}

int perf__tier_commit_or_wait(struct perf__tier *t)
{
    if (!t->committing)
        return perf__tier_commit(t, false);
    perf__cond_wait(&t->changed, &t->mutex, 0);
    return PERF_OK;
}

void perf__tier_kick(struct perf__tier *t)
{
    while (t->behind && t->pending.queue.first && !t->committing && !t->job_queued && !t->closing) {
        if (t->background && !perf__background_submit(t->background, &t->job)) {
            t->job_queued = true;
            return;
        }
        perf__tier_commit(t, false); /* no thread to be had: the caller does it */
    }
}

/* One batch a run: others' jobs come in between. */
void perf__tier_run_job(struct perf__job *job)
{
    struct perf__tier *t = (struct perf__tier *)((char *)job - offsetof(struct perf__tier, job));
    pthread_mutex_lock(&t->mutex);
    if (t->pending.queue.first && !t->committing)
        perf__tier_commit(t, true);
    t->job_queued = false;
    perf__tier_kick(t);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}
