/* SPDX-License-Identifier: MIT */
/*
 * tier_repair.c - changes that the store did not take: who is told, and what
 * stays behind until it can be made good.
 *
 * The older version of a record whose change was lost must not come back, so a
 * removal stays behind as a repair that goes first with the next commit; that
 * is made by the next change, or by perf__tier_recover now and then. When there
 * are more repairs than the queue may hold, they become one mark: everything in
 * the tier that is older than now is dead. Results of failed changes are kept
 * for those who wait, as ranges of tickets, in a ring.
 *
 * Under the tier's mutex, but for the two that any thread may call:
 * perf__tier_distrusts, which takes none, and perf__tier_recover.
 */
#include "../base/clock.h"
#include "tier_impl.h"

bool perf__tier_is_refusal(int rc)
{
    return rc == PERF_EINVAL || rc == PERF_ETOOBIG || rc == PERF_ENOMEM || rc == PERF_EUNSUPPORTED;
}

/* Writes down what a waiter will be told. */
static void remember_failure(struct perf__tier *t, uint64_t ticket, int rc)
{
    struct perf__tier_failure *newest = &t->failures[(t->failure_count - 1) % PERF__TIER_FAILURES];
    if (t->failure_count && newest->last + 1 == ticket && newest->rc == rc) {
        newest->last = ticket;
        return;
    }
    struct perf__tier_failure *slot = &t->failures[t->failure_count % PERF__TIER_FAILURES];
    if (t->failure_count >= PERF__TIER_FAILURES)
        t->forgotten_ticket = slot->last;
    *slot = (struct perf__tier_failure){ticket, ticket, rc};
    t->failure_count++;
}

int perf__tier_find_failure(const struct perf__tier *t, uint64_t ticket)
{
    size_t kept = t->failure_count < PERF__TIER_FAILURES ? t->failure_count : PERF__TIER_FAILURES;
    for (size_t i = 0; i < kept; i++)
        if (ticket >= t->failures[i].first && ticket <= t->failures[i].last)
            return t->failures[i].rc;
    /* So many failed in between that ours may have been forgotten: never claim success. */
    return ticket <= t->forgotten_ticket ? PERF_EIO : PERF_OK;
}

void perf__tier_lose(struct perf__tier *t, struct perf__change *change, int rc)
{
    struct perf__change_view *view = perf__change_view(change);
    if (!view->repair) {
        t->done_ticket = view->ticket;
        if (t->behind)
            t->dropped++;
        else
            remember_failure(t, view->ticket, rc);
        if ((t->behind || t->closing) && !t->lost_rc)
            t->lost_rc = rc;
    }
    if (perf__tier_is_refusal(rc))
        perf__queue_drop(&t->pending, change);
    else
        perf__queue_repair(&t->pending, change);
}

void perf__tier_lose_more(struct perf__tier *t, int rc, size_t most)
{
    for (; t->pending.queue.first && most; most--)
        perf__tier_lose(t, t->pending.queue.first, rc);
}

/*
 * More repairs than may be kept: what they would have removed must stay dead all the same. One
 * mark says so to the store, when it is back, and through it to other processes; until then this
 * process believes nothing older that the tier says.
 */
void perf__tier_summarise_repairs(struct perf__tier *t)
{
    int64_t stamp = t->marks ? perf__marks_stamp(t->marks) : perf__realtime_ms(&t->host->clock);
    const perf_store_op op = {
        .kind = PERF_STORE_MARK, .mark_kind = PERF__MARK_ALL, .mark_stamp_ms = stamp};
    struct perf__change *mark = perf__change_new(&t->host->allocator, &op);
    if (!mark || !perf__queue_append(&t->pending, mark, false)) {
        if (mark)
            perf__change_free(&t->pending, mark);
        return; /* no memory now: the repairs stay a little above their bound */
    }
    atomic_store_explicit(&t->distrust_until, stamp, memory_order_relaxed);
    while (t->pending.repairs.first)
        perf__queue_drop(&t->pending, t->pending.repairs.first);
    perf__queue_repair(&t->pending, mark);
}

bool perf__tier_distrusts(const struct perf__tier *t, int64_t stamp)
{
    return stamp <= atomic_load_explicit(&t->distrust_until, memory_order_relaxed);
}

void perf__tier_recover(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    if (t->pending.repairs.first && !t->committing && !t->closing)
        perf__tier_commit(t, false);
    pthread_mutex_unlock(&t->mutex);
}
