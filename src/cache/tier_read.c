/* SPDX-License-Identifier: MIT */
/*
 * tier_read.c - gets: the changes that are not committed yet, then the store.
 *
 * A change is seen by reads from its submission until the store has it, so a
 * process reads its own writes. The mutex is taken only when something is
 * pending, and given up while a pending record is copied: a reference keeps it.
 * Any thread.
 */
#include "../base/alloc.h"
#include "../base/status.h"
#include "tier_impl.h"

static int count_read(struct perf__tier *t, int rc)
{
    perf__counters_add(&t->counters,
                       rc == PERF_OK     ? PERF__TIER_HITS
                       : rc == PERF_MISS ? PERF__TIER_MISSES
                                         : PERF__TIER_ERRORS,
                       1);
    return rc;
}

/* What the pending changes say about a record: true when they know. */
static bool read_pending(struct perf__tier *t, const perf_store_key *key, perf_store_reply *reply,
                         int *rc)
{
    if (!atomic_load_explicit(&t->pending.indexed, memory_order_acquire))
        return false;
    pthread_mutex_lock(&t->mutex);
    struct perf__change *change = perf__queue_find(&t->pending, key->id);
    struct perf__pending_record *record = change ? perf__change_record(change) : NULL;
    pthread_mutex_unlock(&t->mutex);
    if (!change)
        return false;
    reply->found = false;
    *rc = PERF_MISS;
    if (record) {
        *rc = perf_store_reply_set(reply, record->data, record->len);
        pthread_mutex_lock(&t->mutex);
        perf__record_release(&t->pending, record);
        pthread_mutex_unlock(&t->mutex);
    }
    return true;
}

int perf__tier_get(struct perf__tier *t, const perf_store_key *key, perf_store_reply *reply)
{
    int rc;
    struct perf__asked asked;
    if (!read_pending(t, key, reply, &rc)) {
        if ((rc = perf__tier_ask(t, &asked)))
            return rc;
        rc = perf__tier_answered(t, &asked, perf__store_get(t->store, key, reply));
    }
    return count_read(t, rc);
}

/* The keys that the pending changes know are answered; the others become one batch. */
int perf__tier_get_many(struct perf__tier *t, const perf_store_key *keys, size_t count,
                        perf_store_reply *const *replies)
{
    const perf_allocator *allocator = &t->host->allocator;
    const perf_store_key *asked = keys;
    perf_store_reply *const *answers = replies;
    perf_store_key *some_keys = NULL;
    perf_store_reply **some_replies = NULL;
    size_t left = count;
    int rc = PERF_OK;
    if (count > SIZE_MAX / sizeof *keys)
        return perf__fail_nomem("a batch get");
    if (atomic_load_explicit(&t->pending.indexed, memory_order_acquire)) {
        some_keys = perf__alloc(allocator, count * sizeof *some_keys);
        some_replies = perf__alloc(allocator, count * sizeof *some_replies);
        if (!some_keys || !some_replies) {
            rc = perf__fail_nomem("a batch get");
            goto out;
        }
        left = 0;
        for (size_t i = 0; i < count; i++) {
            int one;
            if (!read_pending(t, &keys[i], replies[i], &one)) {
                some_keys[left] = keys[i];
                some_replies[left++] = replies[i];
            } else if (one < 0) {
                rc = one;
                goto out;
            }
        }
        asked = some_keys;
        answers = some_replies;
    }
    bool skipped = false;
    if (left) {
        struct perf__asked call;
        skipped = (rc = perf__tier_ask(t, &call)) != PERF_OK;
        if (!skipped)
            rc =
                perf__tier_answered(t, &call, perf__store_get_many(t->store, asked, left, answers));
    }
    if (rc && !skipped)
        perf__counters_add(&t->counters, PERF__TIER_ERRORS, 1);
    size_t hits = 0;
    for (size_t i = 0; i < count; i++)
        hits += replies[i]->found;
    perf__counters_add(&t->counters, PERF__TIER_HITS, hits);
    if (!rc)
        perf__counters_add(&t->counters, PERF__TIER_MISSES, count - hits);
out:
    perf__free(allocator, some_keys);
    perf__free(allocator, some_replies);
    return rc;
}
