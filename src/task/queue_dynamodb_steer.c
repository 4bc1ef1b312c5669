/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_steer.c - steering the DynamoDB queue, and its upkeep.
 *
 * A sweep reads what is due in the lanes of those that wait, run, have ended, and have
 * others waiting for their end. It acts on each as its record is now, so several
 * sweeps at once do the same work in part, and no harm. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

/* ------------------------------------------------------------------------ removal */

static int delete_key(struct dynamodb_queue *q, struct perf__text *t, int64_t deadline_ns)
{
    int rc = perf__queue_dynamodb_call(q, "DeleteItem", t, deadline_ns, NULL, NULL);
    return rc == PERF_ECONFLICT ? PERF_OK : rc;
}

/* What is beside a record and its unique key go with it. PERF_ECONFLICT: it has changed. */
static int remove_record(struct dynamodb_queue *q, const struct record *r, int64_t deadline_ns)
{
    struct perf__text t = {.allocator = &q->allocator};
    if (r->t.unique_key[0]) {
        char name[PK_SIZE];
        snprintf(name, sizeof name, "%s|%s", r->t.kind, r->t.unique_key);
        perf__queue_dynamodb_put_key(&t, q, false, "u|", name, "0");
        perf__text_puts(&t, ",\"ConditionExpression\":\"#b = :b\",\"ExpressionAttributeNames\":{"
                            "\"#b\":\"by\"},\"ExpressionAttributeValues\":{");
        perf__queue_dynamodb_put_s(&t, ":b", r->by);
        perf__text_puts(&t, "}}");
        int rc = delete_key(q, &t, deadline_ns);
        if (rc)
            return rc;
    }
    perf__queue_dynamodb_put_key(&t, q, true, "t|", r->t.id, "0");
    perf__text_putf(&t,
                    ",\"ConditionExpression\":\"#v = :v OR attribute_not_exists(pk)\","
                    "\"ExpressionAttributeNames\":{\"#v\":\"v\"},\"ExpressionAttributeValues\":{"
                    "\":v\":{\"N\":\"%" PRId64 "\"}}}",
                    r->version);
    int rc = perf__queue_dynamodb_call(q, "DeleteItem", &t, deadline_ns, NULL, NULL);
    for (size_t i = PAYLOAD; i <= RESULT && !rc; i++)
        perf__queue_dynamodb_drop(q, r->t.id, r->how[i], deadline_ns);
    return rc;
}

/* ------------------------------------------------------------------------- steer */

static int cancel(struct dynamodb_queue *q, struct record *r, int64_t now_ms, int64_t deadline_ns)
{
    if (perf__task_ended(r->t.state))
        return PERF_MISS;
    if (r->t.state == PERF_TASK_RUNNING)
        r->cancel = 1;
    else
        perf__queue_dynamodb_set_end(r, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                                     "cancelled before it began");
    int rc = perf__queue_dynamodb_write(q, r, LIMIT_SAME, deadline_ns);
    if (!rc && r->followed && perf__task_ended(r->t.state))
        (void)!perf__queue_dynamodb_release(q, r->t.id, now_ms, deadline_ns);
    return rc;
}

static int redrive(struct dynamodb_queue *q, struct record *r, int64_t now_ms, int64_t deadline_ns)
{
    if (!perf__task_ended(r->t.state) || r->t.state == PERF_TASK_SUCCEEDED)
        return PERF_MISS;
    struct perf__history *kept = perf__calloc(&q->allocator, 2, sizeof *kept);
    char before[64];
    if (!kept)
        return perf__fail_nomem("a task that is put back");
    snprintf(before, sizeof before, "%s", r->how[RESULT]);
    perf__queue_dynamodb_keep_line(r, &kept[0], r->t.ended_ms, r->t.state, r->t.status, r->t.error);
    perf__queue_dynamodb_keep_line(r, &kept[1], now_ms, PERF_TASK_QUEUED, PERF_OK, "");
    r->t.state = PERF_TASK_QUEUED;
    r->t.attempts = r->t.ended_ms = r->t.deadline_ms = 0; /* who asks knows how late it is */
    r->t.due_ms = now_ms;
    r->t.rank = perf__task_rank(now_ms, r->t.priority);
    r->stored[RESULT] = (perf_bytes){"", 0};
    r->how[RESULT] = "";
    int rc = perf__queue_dynamodb_write(q, r, LIMIT_SAME, deadline_ns);
    if (!rc)
        perf__queue_dynamodb_drop(q, r->t.id, before, deadline_ns);
    perf__free(&q->allocator, kept);
    return rc;
}

/* PERF_ECONFLICT: look again. Those who wait for it are let go first: only it knows of them. */
static int remove_ended(struct dynamodb_queue *q, const struct record *r, int64_t now_ms,
                        int64_t deadline_ns)
{
    if (!r->followed)
        return remove_record(q, r, deadline_ns);
    int rc = perf__queue_dynamodb_release(q, r->t.id, now_ms, deadline_ns);
    return rc ? rc : PERF_ECONFLICT;
}

static int steer_one(struct dynamodb_queue *q, int verb, const char *id, int64_t now_ms)
{
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    if (strlen(id) >= ID_SIZE)
        return PERF_MISS; /* no id is so long */
    for (int tries = 0;; tries++) {
        struct record r;
        int rc = perf__queue_dynamodb_read_one(q, id, deadline, &r);
        bool busy = !rc && verb == PERF_QUEUE_REMOVE && !perf__task_ended(r.t.state);
        if (!rc && !busy)
            rc = verb == PERF_QUEUE_CANCEL    ? cancel(q, &r, now_ms, deadline)
                 : verb == PERF_QUEUE_REDRIVE ? redrive(q, &r, now_ms, deadline)
                                              : remove_ended(q, &r, now_ms, deadline);
        perf__queue_dynamodb_record_free(q, &r);
        if (busy)
            return perf__fail(PERF_EBUSY, "task \"%.71s\" has not ended; cancel it first", id);
        if ((rc == PERF_ECONFLICT || rc == PERF_EBUSY) &&
            !(rc = perf__queue_dynamodb_pause(q, tries, deadline)))
            continue;
        return rc;
    }
}

/* A task that is being changed by others is looked at again by who asks again; one that is damaged
 * does not keep back those behind it. */
static int redrive_all(struct dynamodb_queue *q, const char *queue, int64_t now_ms, uint64_t *n)
{
    char low[128], high[128];
    int damaged = PERF_OK;
    const struct entry *e;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    struct walk w = {.q = q, .page = READ_MAX, .backward = true, .deadline_ns = deadline};
    snprintf(low, sizeof low, "%s|", queue);
    snprintf(high, sizeof high, "%s|g", queue);
    int rc = perf__queue_dynamodb_walk_add(&w, "by_state", "", "8", low, high);
    while (!rc && !(rc = perf__queue_dynamodb_walk_next(&w, &e)) && e) {
        struct record r;
        w.deadline_ns = deadline = perf__queue_dynamodb_deadline(q); /* each has its time */
        rc = perf__queue_dynamodb_read_one(q, e->id, deadline, &r);
        if (!rc && (r.t.state != PERF_TASK_DEAD || strcmp(r.t.queue, queue) != 0))
            rc = PERF_MISS;
        if (!rc)
            rc = redrive(q, &r, now_ms, deadline);
        *n += rc == PERF_OK;
        perf__queue_dynamodb_record_free(q, &r);
        if (rc == PERF_ECORRUPT)
            damaged = rc;
        if (rc == PERF_MISS || rc == PERF_ECONFLICT || rc == PERF_EBUSY || rc == PERF_ECORRUPT)
            rc = PERF_OK;
    }
    perf__queue_dynamodb_walk_free(&w);
    return rc ? rc : damaged;
}

int perf__queue_dynamodb_control(void *queue, int verb, const char *name, int64_t now_ms,
                                 uint64_t *n)
{
    struct dynamodb_queue *q = queue;
    *n = 0;
    switch (verb) {
    case PERF_QUEUE_CANCEL:
    case PERF_QUEUE_REDRIVE:
    case PERF_QUEUE_REMOVE: {
        int rc = steer_one(q, verb, name, now_ms);
        *n = rc == PERF_OK;
        return rc;
    }
    case PERF_QUEUE_REDRIVE_ALL:
        return redrive_all(q, name, now_ms, n);
    case PERF_QUEUE_PAUSE:
    case PERF_QUEUE_RESUME:
        return perf__queue_dynamodb_pause_queue(q, name, verb == PERF_QUEUE_PAUSE, n);
    default:
        return perf__fail(PERF_EINVAL,
                          "control was asked for %d; give PERF_QUEUE_CANCEL or another", verb);
    }
}

/* ------------------------------------------------------------------------- sweep */

struct sweep {
    struct dynamodb_queue *q;
    int64_t now_ms, deadline_ns;
    perf_queue_swept *swept;
    struct perf__history *kept; /* READ_MAX of them, once one is needed */
    int failed;
};

static const char late[] = "its worker was not heard of within its lease";

/* What a lane does with a record that is in it: PERF_MISS: it is not, by now. A change that is
 * just a write is left to be sent with others: *sends. */
typedef int (*sweep_fn)(struct sweep *s, struct record *r, size_t i, bool *sends);

static int promote(struct sweep *s, struct record *r, size_t i, bool *sends)
{
    (void)i;
    if ((r->t.state != PERF_TASK_WAITING && r->t.state != PERF_TASK_RETRYING) || r->pending[0] ||
        r->t.due_ms > s->now_ms)
        return PERF_MISS;
    r->t.state = PERF_TASK_QUEUED;
    *sends = true;
    return PERF_OK;
}

static int rescue(struct sweep *s, struct record *r, size_t i, bool *sends)
{
    if (r->t.state != PERF_TASK_RUNNING || r->t.lease_until_ms > s->now_ms)
        return PERF_MISS;
    bool dead = r->t.max_attempts >= 0 && r->t.attempts >= r->t.max_attempts;
    if (r->cancel || dead) {
        perf__queue_dynamodb_set_end(r, r->cancel ? PERF_TASK_CANCELLED : PERF_TASK_DEAD, s->now_ms,
                                     PERF_ETIMEDOUT, late);
    } else {
        if (!s->kept)
            s->kept = perf__calloc(&s->q->allocator, READ_MAX, sizeof *s->kept);
        if (!s->kept)
            return perf__fail_nomem("a sweep");
        perf__queue_dynamodb_keep_line(r, &s->kept[i], s->now_ms, PERF_TASK_QUEUED, PERF_ETIMEDOUT,
                                       late);
        r->t.state = PERF_TASK_QUEUED;
        r->t.status = PERF_ETIMEDOUT;
        r->t.error = late;
    }
    if (!r->t.limit_key[0] && !r->followed) {
        *sends = true;
        return PERF_OK;
    }
    int rc = perf__queue_dynamodb_write(s->q, r, LIMIT_GIVE, s->deadline_ns);
    if (!rc && r->followed && perf__task_ended(r->t.state))
        rc = perf__queue_dynamodb_release(s->q, r->t.id, s->now_ms, s->deadline_ns);
    return rc;
}

static int release(struct sweep *s, struct record *r, size_t i, bool *sends)
{
    (void)i;
    (void)sends;
    return perf__task_ended(r->t.state) && r->followed
               ? perf__queue_dynamodb_release(s->q, r->t.id, s->now_ms, s->deadline_ns)
               : PERF_MISS;
}

static int forget(struct sweep *s, struct record *r, size_t i, bool *sends)
{
    (void)i;
    (void)sends;
    if (!perf__task_ended(r->t.state) || r->followed ||
        perf__queue_dynamodb_removal(r->t.ended_ms, r->t.keep_ms, r->t.unique_until_ms) > s->now_ms)
        return PERF_MISS;
    return remove_record(s->q, r, s->deadline_ns);
}

/* Writes those of a batch that are just that; done[i]: it was. */
static int send(struct sweep *s, struct record *records, const bool *sends, bool *done,
                size_t count)
{
    struct perf__aws_flown *r = perf__calloc(&s->q->allocator, count, sizeof *r);
    size_t n = 0, at = 0;
    if (!r)
        return perf__fail_nomem("a sweep");
    for (size_t i = 0; i < count; i++) {
        if (!sends[i])
            continue;
        r[n].operation = "PutItem";
        r[n].body.allocator = &s->q->allocator;
        perf__queue_dynamodb_put_write(s->q, &r[n++].body, &records[i]);
    }
    int rc = perf__queue_dynamodb_fly(s->q, r, n, s->deadline_ns);
    for (size_t i = 0; i < count && !rc; i++) {
        if (!sends[i])
            continue;
        done[i] = !r[at].rc;
        if (r[at].rc && r[at].rc != PERF_ECONFLICT && r[at].rc != PERF_EBUSY)
            s->failed = perf__queue_dynamodb_say(&r[at]);
        at++;
    }
    perf__aws_flown_free(&s->q->allocator, r, n);
    return rc;
}

static int act(struct sweep *s, const struct entry *entries, size_t count, sweep_fn fn,
               uint64_t *done, uint64_t *dead)
{
    struct record *records = perf__calloc(&s->q->allocator, count, sizeof *records);
    bool sends[READ_MAX] = {false}, is_done[READ_MAX] = {false};
    if (!records)
        return perf__fail_nomem("a sweep");
    int rc = perf__queue_dynamodb_read_many(s->q, entries, count, false, s->deadline_ns, records,
                                            &s->failed);
    for (size_t i = 0; i < count && !rc; i++) {
        int one = records[i].t.id ? fn(s, &records[i], i, &sends[i]) : PERF_MISS;
        is_done[i] = !one && !sends[i];
        if (one && one != PERF_MISS && one != PERF_ECONFLICT && one != PERF_EBUSY)
            s->failed = one;
    }
    if (!rc)
        rc = send(s, records, sends, is_done, count);
    for (size_t i = 0; i < count; i++) {
        *done += is_done[i];
        if (dead && is_done[i])
            *dead += records[i].t.state == PERF_TASK_DEAD;
        perf__queue_dynamodb_record_free(s->q, &records[i]);
    }
    perf__free(&s->q->allocator, records);
    return rc;
}

/* All that is due in a lane, budget at most. */
static int sweep_lane(struct sweep *s, const char *lane, size_t budget, sweep_fn fn, uint64_t *done,
                      uint64_t *dead)
{
    char high[KEY_SIZE];
    struct entry entries[READ_MAX];
    perf__queue_dynamodb_key(s->now_ms, 0, high);
    memcpy(high + 16, "~", 2); /* all of that time */
    struct walk w = {
        .q = s->q, .page = budget < READ_MAX ? budget : READ_MAX, .deadline_ns = s->deadline_ns};
    int rc = perf__queue_dynamodb_walk_add(&w, "by_lane", "", lane, "0", high);
    while (!rc && budget) {
        const struct entry *e = NULL;
        size_t n = 0;
        while (n < READ_MAX && n < budget && !(rc = perf__queue_dynamodb_walk_next(&w, &e)) && e)
            entries[n++] = *e;
        if (rc || !n)
            break;
        budget -= n;
        /* A long sweep is many calls; each has its time. */
        w.deadline_ns = s->deadline_ns = perf__queue_dynamodb_deadline(s->q);
        rc = act(s, entries, n, fn, done, dead);
    }
    perf__queue_dynamodb_walk_free(&w);
    return rc;
}

static int look_for_next(struct sweep *s)
{
    const struct entry *e = NULL;
    struct walk w = {.q = s->q, .page = 1, .deadline_ns = s->deadline_ns};
    int rc = perf__queue_dynamodb_walk_add(&w, "by_lane", "", "w", "0", "g");
    if (!rc)
        rc = perf__queue_dynamodb_walk_next(&w, &e);
    s->swept->next_ms = !rc && e ? perf__queue_dynamodb_key_number(e->key) : 0;
    perf__queue_dynamodb_walk_free(&w);
    return rc;
}

int perf__queue_dynamodb_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    struct dynamodb_queue *q = queue;
    uint64_t promoted = 0, released = 0;
    struct sweep *s = perf__calloc(&q->allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a sweep");
    s->q = q;
    s->now_ms = now_ms;
    s->swept = swept;
    s->deadline_ns = perf__queue_dynamodb_deadline(q);
    int rc = sweep_lane(s, "w", budget, promote, &promoted, NULL);
    if (!rc)
        rc = sweep_lane(s, "l", budget, rescue, &swept->rescued, &swept->dead);
    if (!rc)
        rc = sweep_lane(s, "x", budget, release, &released, NULL);
    if (!rc)
        rc = sweep_lane(s, "e", budget, forget, &swept->removed, NULL);
    if (!rc)
        rc = look_for_next(s);
    rc = rc ? rc : s->failed;
    perf__free(&q->allocator, s->kept);
    perf__free(&q->allocator, s);
    return rc;
}
