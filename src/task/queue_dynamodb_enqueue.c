/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_enqueue.c - how tasks come into the DynamoDB queue.
 *
 * A plain task is one write on the condition that there is none of its id; those of a
 * batch go out together. One with a unique key, or after others, is a transaction with
 * what it has in common with them: nothing of it is there unless all is. Each record
 * names the call that submitted it, so that a write whose reply was lost is no duplicate
 * of itself. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "queue_dynamodb.h"

enum {
    PORTION = 128,                   /* tasks that go out together */
    SEQ_BITS = 12,                   /* of chance, below the number of a submission */
    PORTION_BYTES = 8 * 1024 * 1024, /* of their payloads; one alone may have more */
    NAME_MAX_LEN = 1024,             /* of what is part of a key */
    LIVE_MAX = 48,                   /* tasks to wait for, of those that have not ended */
};

/* A task on its way. */
struct coming {
    const perf_queue_task *task;
    struct record record;
    struct blob payload;
    char by[NONCE_SIZE];
    bool odd; /* not just a write */
};

static int check_task(const perf_queue_task *t)
{
    const struct {
        const char *name, *text;
    } names[] = {{"perf_submit_options.unique_key", t->unique_key},
                 {"perf_submit_options.limit_key", t->limit_key},
                 {"perf_submit_options.user", t->user},
                 {"perf_submit_options.batch", t->batch}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int rc = perf__check_len(names[i].name, strlen(names[i].text), 0, NAME_MAX_LEN);
        if (rc)
            return rc;
    }
    return perf__check_len("id of a task", strlen(t->id), 1, ID_SIZE - 1);
}

static int prepare(struct dynamodb_queue *q, struct coming *c, const perf_queue_task *task,
                   uint64_t seq, int64_t now_ms, int64_t deadline_ns)
{
    int rc = check_task(task);
    if (!rc)
        rc = perf__queue_dynamodb_need_lane(q, task, deadline_ns);
    if (!rc)
        rc = perf__queue_dynamodb_blob(
            q, task->id, task->payload,
            perf__queue_dynamodb_expires(task->due_ms > now_ms ? task->due_ms : now_ms,
                                         task->keep_ms),
            deadline_ns, &c->payload);
    if (rc)
        return rc;
    perf__queue_dynamodb_nonce(q, c->by);
    c->task = task;
    c->odd = task->unique_key[0] || task->after[0];
    c->record = (struct record){.t = *task,
                                .seq = seq,
                                .kept = "",
                                .progress = "",
                                .by = c->by,
                                .pending = "",
                                .echo = "",
                                .stored = {c->payload.stored},
                                .how = {c->payload.how, ""}};
    perf_queue_task *t = &c->record.t;
    t->attempts = t->lease_until_ms = t->started_ms = t->ended_ms = t->status = 0;
    t->token = 0;
    t->worker = t->error = "";
    t->limit = !t->limit_key[0] ? 0 : t->limit < 1 ? 1 : t->limit;
    perf__queue_dynamodb_set_due(&c->record, PERF_TASK_WAITING, now_ms);
    c->record.waited = t->state == PERF_TASK_WAITING;
    return PERF_OK;
}

static void drop(struct dynamodb_queue *q, struct coming *c, int status, int64_t deadline_ns)
{
    /* Of a write that may have succeeded the payload stays. */
    if (c->task && (status == PERF_EEXISTS || status == PERF_EINVAL))
        perf__queue_dynamodb_drop(q, c->task->id, c->payload.how, deadline_ns);
    perf__queue_dynamodb_blob_free(q, &c->payload);
}

/* There is one of its id, or there was: ours? */
static int who_is_there(struct dynamodb_queue *q, const struct coming *c, int64_t deadline_ns,
                        char existing[72])
{
    struct record r;
    int rc = perf__queue_dynamodb_read_one(q, c->task->id, deadline_ns, &r);
    if (!rc && strcmp(r.by, c->by) != 0) {
        snprintf(existing, 72, "%s", c->task->id);
        rc = PERF_EEXISTS;
    }
    perf__queue_dynamodb_record_free(q, &r);
    return rc;
}

/* ---------------------------------------------------------------------- unique */

/* Who holds a unique key. */
struct holder {
    bool there, is_record;
    char id[ID_SIZE], by[NONCE_SIZE];
    int64_t version; /* of its record */
};

static void unique_name(const perf_queue_task *t, char out[PK_SIZE])
{
    snprintf(out, PK_SIZE, "%s|%s", t->kind, t->unique_key);
}

/* PERF_EEXISTS: it is held. */
static int look_at_holder(struct dynamodb_queue *q, const struct coming *c, int64_t now_ms,
                          int64_t deadline_ns, struct holder *h, char existing[72])
{
    struct perf__text t = {.allocator = &q->allocator};
    struct perf__json all, item;
    perf_aws_reply *reply;
    char name[PK_SIZE];
    *h = (struct holder){0};
    unique_name(c->task, name);
    perf__queue_dynamodb_put_key(&t, q, false, "u|", name, "0");
    perf__text_puts(&t, ",\"ConsistentRead\":true}");
    int rc = perf__queue_dynamodb_call(q, "GetItem", &t, deadline_ns, &reply, &all);
    if (rc)
        return rc;
    h->there = perf__json_find(all, "Item", '{', &item);
    if (h->there && (!perf__queue_dynamodb_text(item, "id", h->id, sizeof h->id) ||
                     !perf__queue_dynamodb_text(item, "by", h->by, sizeof h->by)))
        rc = perf__queue_dynamodb_damaged(c->task->id, "unique key");
    perf_aws_reply_release(reply);
    if (rc || !h->there)
        return rc;
    struct record r;
    rc = perf__queue_dynamodb_read_one(q, h->id, deadline_ns, &r);
    h->is_record = !rc && !strcmp(r.by, h->by);
    h->version = r.version;
    if (rc == PERF_MISS)
        rc = PERF_OK;
    if (!rc && h->is_record && strcmp(h->by, c->by) != 0 &&
        (!perf__task_ended(r.t.state) || r.t.unique_until_ms > now_ms)) {
        snprintf(existing, 72, "%s", h->id);
        rc = PERF_EEXISTS;
    }
    perf__queue_dynamodb_record_free(q, &r);
    return rc;
}

/* The key becomes ours, if it is as it was; what it was of stays ended. */
static void put_unique(struct dynamodb_queue *q, struct perf__text *t, const struct coming *c,
                       const struct holder *h)
{
    char name[PK_SIZE];
    unique_name(c->task, name);
    perf__queue_dynamodb_next(t, "Put");
    perf__text_putf(t, "{\"TableName\":\"%s\",\"Item\":{", q->common);
    perf__queue_dynamodb_put_pk(t, q, "u|", name);
    perf__text_puts(t, ",\"sk\":{\"S\":\"0\"},");
    perf__queue_dynamodb_put_s(t, "id", c->task->id);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, "by", c->by);
    if (!h->there) {
        perf__text_puts(t, "},\"ConditionExpression\":\"attribute_not_exists(pk)\"}");
        return;
    }
    perf__text_puts(t, "},\"ConditionExpression\":\"#b = :b\",\"ExpressionAttributeNames\":{"
                       "\"#b\":\"by\"},\"ExpressionAttributeValues\":{");
    perf__queue_dynamodb_put_s(t, ":b", h->by);
    perf__text_puts(t, "}}");
    if (!h->is_record || !strcmp(h->id, c->task->id))
        return;
    perf__queue_dynamodb_next(t, "ConditionCheck");
    perf__queue_dynamodb_put_key(t, q, true, "t|", h->id, "0");
    perf__text_putf(t,
                    ",\"ConditionExpression\":\"#v = :v\",\"ExpressionAttributeNames\":{\"#v\":"
                    "\"v\"},\"ExpressionAttributeValues\":{\":v\":{\"N\":\"%" PRId64 "\"}}}",
                    h->version);
}

/* ------------------------------------------------------------------------ after */

static int no_such_task(const char *id)
{
    return perf__fail(PERF_EINVAL,
                      "perf_submit_options.after names \"%.71s\", and there is no such task; "
                      "submit it first, or keep its record longer",
                      id);
}

/* What a task waits for: those that have not ended, in live (ids and commas). */
static int look_at_firsts(struct dynamodb_queue *q, const perf_queue_task *t, int64_t deadline_ns,
                          struct perf__text *live, bool *failed)
{
    size_t count = 0;
    *failed = false;
    for (const char *at = t->after; *at;) {
        size_t len = strcspn(at, ",");
        char id[ID_SIZE];
        struct record r;
        snprintf(id, sizeof id, "%.*s", (int)(len < sizeof id ? len : sizeof id - 1), at);
        at += len + (at[len] == ',');
        if (!len || (live->data && perf__queue_dynamodb_in_list(live->data, id)))
            continue;
        int rc =
            len >= sizeof id ? PERF_MISS : perf__queue_dynamodb_read_one(q, id, deadline_ns, &r);
        if (rc == PERF_MISS)
            return no_such_task(id);
        if (!rc && !perf__task_ended(r.t.state)) {
            perf__text_putf(live, "%s%s", live->len ? "," : "", id);
            count++;
        } else if (!rc && r.t.state != PERF_TASK_SUCCEEDED && !t->after_any_end) {
            *failed = true;
        }
        perf__queue_dynamodb_record_free(q, &r);
        if (rc)
            return rc;
    }
    if (live->failed)
        return perf__fail_nomem("a task that waits for others");
    if (count > LIVE_MAX)
        return perf__fail(PERF_EINVAL,
                          "perf_submit_options.after names %zu tasks that have not ended, and the "
                          "queue \"dynamodb\" lets one wait for %d; put tasks between them",
                          count, LIVE_MAX);
    return PERF_OK;
}

/* Each of live has a follower from now on, if it has not ended. */
static void put_followers(struct dynamodb_queue *q, struct perf__text *t, const char *live,
                          const char *id)
{
    for (const char *at = live; *at;) {
        size_t len = strcspn(at, ",");
        char first[ID_SIZE];
        snprintf(first, sizeof first, "%.*s", (int)len, at);
        at += len + (at[len] == ',');
        perf__queue_dynamodb_next(t, "Put");
        perf__text_putf(t, "{\"TableName\":\"%s\",\"Item\":{", q->common);
        perf__queue_dynamodb_put_pk(t, q, "f|", first);
        perf__text_puts(t, ",");
        perf__queue_dynamodb_put_s(t, "sk", id);
        perf__text_puts(t, "}}");
        perf__queue_dynamodb_next(t, "Update");
        perf__queue_dynamodb_put_key(t, q, true, "t|", first, "0");
        perf__text_putf(t,
                        ",\"UpdateExpression\":\"SET #f = :one, #o = :one ADD #v :one\","
                        "\"ConditionExpression\":\"#t < :end\",\"ExpressionAttributeNames\":{"
                        "\"#f\":\"followed\",\"#o\":\"odd\",\"#v\":\"v\",\"#t\":\"st\"},"
                        "\"ExpressionAttributeValues\":{\":one\":{\"N\":\"1\"},\":end\":{\"N\":"
                        "\"%d\"}}}",
                        PERF_TASK_SUCCEEDED);
    }
}

static int enqueue_odd(struct dynamodb_queue *q, struct coming *c, int64_t now_ms,
                       int64_t deadline_ns, char existing[72])
{
    for (int tries = 0;; tries++) {
        struct perf__text live = {.allocator = &q->allocator}, t;
        struct holder h = {0};
        struct record r = c->record; /* as it was: a try changes it */
        bool failed = false;
        int rc = PERF_OK;
        if (c->task->after[0])
            rc = look_at_firsts(q, c->task, deadline_ns, &live, &failed);
        if (!rc && c->task->unique_key[0])
            rc = look_at_holder(q, c, now_ms, deadline_ns, &h, existing);
        if (!rc) {
            if (failed) {
                perf__queue_dynamodb_set_end(&r, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                                             "a task that it waited for did not succeed");
                r.waited = 0;
            } else if (live.len) {
                r.pending = live.data;
                r.t.state = PERF_TASK_WAITING;
                r.waited = 1;
            }
            perf__queue_dynamodb_begin(q, &t);
            perf__queue_dynamodb_next(&t, "Put");
            perf__queue_dynamodb_put_write(q, &t, &r);
            if (c->task->unique_key[0])
                put_unique(q, &t, c, &h);
            if (live.len && !failed)
                put_followers(q, &t, live.data, c->task->id);
            rc = perf__queue_dynamodb_transact(q, &t, deadline_ns);
        }
        perf__text_free(&live);
        if (rc == PERF_ECONFLICT) {
            rc = who_is_there(q, c, deadline_ns, existing);
            if (rc == PERF_MISS) /* then another condition, and the next look knows better */
                rc = PERF_EBUSY;
        }
        if (rc == PERF_EBUSY && !(rc = perf__queue_dynamodb_pause(q, tries, deadline_ns)))
            continue;
        return rc;
    }
}

/* ------------------------------------------------------------------------- many */

/* One of that id goes before it in this batch. */
static bool is_second(const struct coming *coming, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (coming[j].task && !strcmp(coming[j].task->id, coming[i].task->id))
            return true;
    return false;
}

static int enqueue_plain(struct dynamodb_queue *q, struct coming *coming, size_t count,
                         int64_t deadline_ns, int *statuses, char (*existing)[72])
{
    struct perf__aws_flown *r = perf__calloc(&q->allocator, count, sizeof *r);
    size_t n = 0, sent;
    if (!r)
        return perf__fail_nomem("tasks to be submitted");
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] || coming[i].odd)
            continue;
        r[n].operation = "PutItem";
        r[n].body.allocator = &q->allocator;
        perf__queue_dynamodb_put_write(q, &r[n++].body, &coming[i].record);
    }
    int rc = perf__queue_dynamodb_fly(q, r, n, deadline_ns);
    sent = n;
    n = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        if (statuses[i] || coming[i].odd)
            continue;
        statuses[i] = r[n].rc ? perf__queue_dynamodb_say(&r[n]) : PERF_OK;
        n++;
        if (statuses[i] == PERF_ECONFLICT)
            statuses[i] = who_is_there(q, &coming[i], deadline_ns, existing[i]);
        /* It was there and is not any more, or somebody's transaction has it: again. */
        if (statuses[i] == PERF_MISS || statuses[i] == PERF_EBUSY) {
            coming[i].odd = true;
            coming[i].record.version = 0;
            statuses[i] = PERF_OK;
        }
    }
    perf__aws_flown_free(&q->allocator, r, sent);
    return rc;
}

static int enqueue_portion(struct dynamodb_queue *q, const perf_queue_task *tasks, size_t count,
                           int64_t now_ms, int64_t deadline_ns, int *statuses, char (*existing)[72])
{
    struct coming *coming = perf__calloc(&q->allocator, count, sizeof *coming);
    for (size_t i = 0; i < count && !coming; i++)
        statuses[i] = PERF_ENOMEM;
    if (!coming)
        return perf__fail_nomem("tasks to be submitted");
    uint64_t number = perf__queue_dynamodb_numbers(q, count);
    int first = PERF_OK;
    for (size_t i = 0; i < count; i++) {
        uint64_t seq = (number + i) << SEQ_BITS | perf__thread_random() >> (64 - SEQ_BITS);
        statuses[i] = prepare(q, &coming[i], &tasks[i], seq, now_ms, deadline_ns);
        if (!statuses[i] && is_second(coming, i))
            coming[i].odd = true;
        first = first ? first : statuses[i];
    }
    int rc = enqueue_plain(q, coming, count, deadline_ns, statuses, existing);
    for (size_t i = 0; i < count; i++) {
        if (!rc && !statuses[i] && coming[i].odd)
            statuses[i] = enqueue_odd(q, &coming[i], now_ms, deadline_ns, existing[i]);
        if (rc && !statuses[i])
            statuses[i] = rc;
        if (!first && statuses[i] != PERF_EEXISTS)
            first = statuses[i];
        drop(q, &coming[i], statuses[i], deadline_ns);
    }
    perf__free(&q->allocator, coming);
    return first;
}

int perf__queue_dynamodb_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                                 void *transaction, int64_t now_ms, int *statuses,
                                 char (*existing)[72])
{
    struct dynamodb_queue *q = queue;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    int failed = PERF_OK;
    (void)transaction; /* refused before it comes here */
    for (size_t i = 0; i < count;) {
        size_t n = 0, bytes = 0;
        for (; i + n < count && n < PORTION; n++) {
            bytes += tasks[i + n].payload.len;
            if (n && bytes > PORTION_BYTES)
                break;
        }
        int rc = enqueue_portion(q, tasks + i, n, now_ms, deadline, statuses + i, existing + i);
        failed = failed ? failed : rc;
        i += n;
    }
    return failed;
}
