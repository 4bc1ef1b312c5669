/* SPDX-License-Identifier: MIT */
/*
 * redis_end.c - how ops end: answered, failed or late, and who is called or woken then.
 *
 * An op ends under the mutex; what that makes somebody do is collected, and done without it.
 */
#include "redis_link_impl.h"

#include <limits.h>
#include <stdio.h>

void perf__redis_end(struct perf__redis_link *link, struct perf__redis_ended *ended,
                     struct perf__redis_op *op, int status, const char *error)
{
    if (status && !op->status) {
        op->status = status;
        snprintf(op->error, sizeof op->error, "%s", error);
    }
    if (op->status == PERF_ETIMEDOUT)
        link->stats.timeouts++;
    if (!op->done) {
        ended->waves |= (uint64_t)1 << op->wave;
        atomic_store_explicit(&op->over, 1, memory_order_release); /* its memory may be gone */
        return;
    }
    if (op->anywhere) {
        op->next = ended->anywhere; /* the other way round; perf__redis_settle turns it */
        ended->anywhere = op;
        return;
    }
    op->next = NULL;
    *link->finished_end = op;
    link->finished_end = &op->next;
    ended->thread = true;
}

/* The I/O thread is about to do all that is due on this link, and we are it. */
bool perf__redis_is_served(struct perf__redis_link *link)
{
    return perf__redis_loop_is_here(link->loop) && link->serving;
}

void perf__redis_settle(struct perf__redis_link *link, struct perf__redis_ended *ended)
{
    struct perf__redis_op *op = ended->anywhere, *turned = NULL, *next;
    while (op) {
        next = op->next;
        op->next = turned;
        turned = op;
        op = next;
    }
    while (turned) {
        next = turned->next;
        turned->done(turned);
        turned = next;
    }
    while (ended->waves) {
        int wave = __builtin_ctzll(ended->waves);
        ended->waves &= ended->waves - 1;
        perf__redis_wake(link, wave, INT_MAX);
    }
    if (ended->thread && !perf__redis_is_served(link))
        perf__redis_attend(link);
    *ended = (struct perf__redis_ended){NULL, 0, false};
}

void perf__redis_call_finished(struct perf__redis_link *link)
{
    pthread_mutex_lock(&link->mutex);
    struct perf__redis_op *op = link->finished;
    link->finished = NULL;
    link->finished_end = &link->finished;
    pthread_mutex_unlock(&link->mutex);
    while (op) {
        struct perf__redis_op *next = op->next;
        op->done(op);
        op = next;
    }
}

/* May bytes from this place of the stream have left? While somebody sends, nobody knows. */
static bool may_be_written(const struct perf__redis_link *link, uint64_t place)
{
    return place <
           (link->writing && !link->blocked ? link->appended - link->out.len : link->flushed);
}

int perf__redis_late_status(struct perf__redis_link *link, const struct perf__redis_slot *slot,
                            const struct perf__redis_op *op, char *text, size_t size)
{
    if (link->state == PERF__REDIS_IS_UP || may_be_written(link, slot->end - op->len)) {
        snprintf(text, size, "%s: no reply within the deadline", link->label);
        return PERF_ETIMEDOUT;
    }
    snprintf(text, size, "%.70s: no connection within the deadline: %.180s", link->label,
             link->failed ? link->failure : "still connecting");
    return PERF_EUNAVAILABLE;
}

void perf__redis_expire(struct perf__redis_link *link, struct perf__redis_ended *ended,
                        int64_t now_ns)
{
    char text[PERF__REDIS_SENTENCE];
    if (now_ns < link->next_deadline)
        return;
    link->next_deadline = INT64_MAX;
    for (uint64_t i = link->head; i < link->tail; i++) {
        struct perf__redis_slot *slot = &link->ring[i & link->mask];
        struct perf__redis_op *op = slot->op;
        if (!op || !op->done)
            continue;
        if (op->deadline_ns <= now_ns) {
            int status = perf__redis_late_status(link, slot, op, text, sizeof text);
            slot->op = NULL;
            perf__redis_end(link, ended, op, status, text);
        } else if (op->deadline_ns < link->next_deadline) {
            link->next_deadline = op->deadline_ns;
        }
    }
}
