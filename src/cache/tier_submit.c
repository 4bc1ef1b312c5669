/* SPDX-License-Identifier: MIT */
/*
 * tier_submit.c - changes on their way in, and waiting for them to be committed.
 *
 * A change gets the next ticket under the mutex, which is the order in which
 * changes are committed. Nobody here waits for a thread that may not come:
 * whoever wants room, a result or a flush, and finds no commit under way, makes
 * one (tier_commit.c). Any thread.
 */
#include "../base/status.h"
#include "tier_impl.h"

static bool has_room(const struct perf__tier *t, const struct perf__change *change, size_t max)
{
    const struct perf__tier_list *queue = &t->pending.queue;
    return !queue->count ||
           queue->bytes + perf__change_view((struct perf__change *)change)->bytes <= max;
}

int perf__tier_submit(struct perf__tier *t, const perf_store_op *op, uint64_t *ticket)
{
    if (op->kind < PERF_STORE_SET || op->kind > PERF_STORE_MARK)
        return perf__fail(PERF_EINVAL, "perf_store_op.kind is %lld; give a PERF_STORE_ operation",
                          (long long)op->kind);
    struct perf__change *change = perf__change_new(&t->host->allocator, op);
    if (!change)
        return perf__fail_nomem("a change on its way to a tier");
    int rc = PERF_OK;
    pthread_mutex_lock(&t->mutex);
    if (t->behind && t->drop_when_full && op->kind == PERF_STORE_SET &&
        !has_room(t, change, t->queue_max_bytes)) {
        perf_store_op remove = *op;
        remove.kind = PERF_STORE_REMOVE;
        struct perf__change *smaller = perf__change_new(&t->host->allocator, &remove);
        if (smaller) { /* else it waits for room like any other */
            perf__change_free(&t->pending, change);
            change = smaller;
            t->dropped++;
        }
    }
    /* Removals that stand for dropped records may go over the bound, within reason. */
    size_t max = t->drop_when_full ? 2 * t->queue_max_bytes : t->queue_max_bytes;
    while (t->behind && !has_room(t, change, max))
        perf__tier_commit_or_wait(t);
    if (perf__queue_append(&t->pending, change, t->behind)) {
        *ticket = perf__change_view(change)->ticket = ++t->next_ticket;
        perf__tier_kick(t);
    } else {
        perf__change_free(&t->pending, change);
        rc = perf__fail_nomem("a change on its way to a tier");
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

void perf__tier_push(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    if (t->pending.queue.first && !t->committing && !t->job_queued && !t->closing &&
        t->background && !perf__background_submit(t->background, &t->job))
        t->job_queued = true;
    pthread_mutex_unlock(&t->mutex);
}

int perf__tier_wait(struct perf__tier *t, uint64_t ticket)
{
    if (t->behind)
        return PERF_OK;
    pthread_mutex_lock(&t->mutex);
    while (t->done_ticket < ticket && (t->committing || t->pending.queue.first))
        perf__tier_commit_or_wait(t);
    int rc = perf__tier_find_failure(t, ticket);
    if (rc)
        perf__fail(rc, "%s", t->text);
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

int perf__tier_flush(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    uint64_t target = t->next_ticket;
    int rc = PERF_OK;
    bool tried = false;
    /* What an earlier failure left behind gets a try of its own; one is enough. */
    while (t->committing || t->done_ticket < target || (t->pending.repairs.first && !tried)) {
        if (!t->committing && !t->pending.queue.first && !t->pending.repairs.first)
            break;
        tried |= !t->committing;
        int one = perf__tier_commit_or_wait(t);
        if (one && !rc)
            rc = one;
    }
    perf__tier_kick(t);
    if (!rc)
        rc = t->lost_rc;
    if (rc)
        perf__fail(rc, "%s", t->text);
    t->lost_rc = PERF_OK;
    pthread_mutex_unlock(&t->mutex);
    int flushed = perf__store_flush(t->store);
    if (flushed)
        perf__counters_add(&t->counters, PERF__TIER_ERRORS, 1);
    return rc ? rc : flushed;
}
