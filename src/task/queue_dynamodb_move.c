/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_move.c - records changed: read, changed here, and written in place of
 * the version that was read.
 *
 * Who finds another version there begins again. What runs under a limit key is counted
 * in an item of its own, in the same transaction. The end of a task that others wait
 * for has a second step, so it stands in the lane "x" until that is done: a process that
 * dies between them leaves it to somebody's sweep. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

enum { COUNT_DAYS = 400 }; /* that the count of a limit key is kept after its last use */

/* ---------------------------------------------------------------------- changes */

void perf__queue_dynamodb_set_end(struct record *r, int64_t state, int64_t now_ms, int64_t status,
                                  const char *error)
{
    r->t.state = state;
    r->t.ended_ms = now_ms;
    r->t.status = status;
    r->t.error = error;
    r->cancel = 0;
    r->pending = "";
}

void perf__queue_dynamodb_set_due(struct record *r, int64_t state, int64_t now_ms)
{
    r->t.state = r->pending[0]          ? PERF_TASK_WAITING
                 : r->t.due_ms > now_ms ? state
                                        : PERF_TASK_QUEUED;
}

void perf__queue_dynamodb_keep_line(struct record *r, struct perf__history *kept, int64_t now_ms,
                                    int64_t state, int64_t status, const char *error)
{
    bool last = r->t.token && r->t.token != (uint64_t)r->folded;
    perf__history_begin(kept, r->kept);
    if (last)
        perf__history_add(kept, r->t.started_ms, PERF_TASK_RUNNING, r->t.worker, PERF_OK, "");
    perf__history_add(kept, now_ms, state, last ? r->t.worker : "", status, error);
    r->folded = (int64_t)r->t.token;
    r->kept = kept->text;
}

/* ----------------------------------------------------------------------- writes */

void perf__queue_dynamodb_put_write(struct dynamodb_queue *q, struct perf__text *t,
                                    struct record *r)
{
    int64_t before = r->version++;
    perf__queue_dynamodb_nonce(q, r->own_echo);
    r->echo = r->own_echo;
    perf__text_putf(t, "{\"TableName\":\"%s\",\"Item\":", q->tasks);
    perf__queue_dynamodb_put_item(t, q, r);
    if (before)
        perf__text_putf(t,
                        ",\"ConditionExpression\":\"#v = :v\",\"ExpressionAttributeNames\":{"
                        "\"#v\":\"v\"},\"ExpressionAttributeValues\":{\":v\":{\"N\":\"%" PRId64
                        "\"}}}",
                        before);
    else
        perf__text_puts(t, ",\"ConditionExpression\":\"attribute_not_exists(pk)\"}");
}

static void put_limit(struct dynamodb_queue *q, struct perf__text *t, const struct record *r,
                      int limit)
{
    int64_t now_s = perf__realtime_ms(&q->clock) / 1000;
    perf__queue_dynamodb_put_key(t, q, false, "k|", r->t.limit_key, "0");
    perf__text_putf(t,
                    ",\"UpdateExpression\":\"ADD #n :d SET #x = :x\",\"ExpressionAttributeNames\":"
                    "{\"#n\":\"running\",\"#x\":\"expires\"},\"ExpressionAttributeValues\":{"
                    "\":d\":{\"N\":\"%d\"},\":x\":{\"N\":\"%" PRId64 "\"}",
                    limit, now_s + (int64_t)COUNT_DAYS * 86400);
    if (limit == LIMIT_TAKE)
        perf__text_putf(t,
                        ",\":m\":{\"N\":\"%" PRId64
                        "\"}},\"ConditionExpression\":\"attribute_not_exists(#n) OR #n < :m\"}",
                        r->t.limit);
    else
        perf__text_puts(t, "}}");
}

bool perf__queue_dynamodb_is_ours(struct dynamodb_queue *q, const struct record *r,
                                  int64_t deadline_ns)
{
    struct record now;
    int rc = perf__queue_dynamodb_read_one(q, r->t.id, deadline_ns, &now);
    bool ours = !rc && now.version == r->version && !strcmp(now.echo, r->own_echo);
    perf__queue_dynamodb_record_free(q, &now);
    return ours;
}

int perf__queue_dynamodb_write(struct dynamodb_queue *q, struct record *r, int limit,
                               int64_t deadline_ns)
{
    struct perf__text t = {.allocator = &q->allocator};
    if (limit == LIMIT_SAME || !r->t.limit_key[0]) {
        perf__queue_dynamodb_put_write(q, &t, r);
        int rc = perf__queue_dynamodb_call(q, "PutItem", &t, deadline_ns, NULL, NULL);
        if (rc == PERF_ECONFLICT && perf__queue_dynamodb_is_ours(q, r, deadline_ns))
            rc = PERF_OK;
        return rc;
    }
    int64_t before = r->version;
    for (int tries = 0;; tries++) {
        r->version = before;
        perf__queue_dynamodb_begin(q, &t);
        perf__queue_dynamodb_next(&t, "Put");
        perf__queue_dynamodb_put_write(q, &t, r);
        perf__queue_dynamodb_next(&t, "Update");
        put_limit(q, &t, r, limit);
        int rc = perf__queue_dynamodb_transact(q, &t, deadline_ns);
        if (rc == PERF_EBUSY && !(rc = perf__queue_dynamodb_pause(q, tries, deadline_ns)))
            continue;
        return rc;
    }
}

/* --------------------------------------------------------------------- followers */

bool perf__queue_dynamodb_in_list(const char *list, const char *id)
{
    size_t len = strlen(id);
    for (const char *at = list; *at;) {
        size_t part = strcspn(at, ",");
        if (part == len && !memcmp(at, id, len))
            return true;
        at += part + (at[part] == ',');
    }
    return false;
}

/* The list without an id, into out, which is as long. */
static void without(const char *list, const char *id, char *out)
{
    size_t len = strlen(id), used = 0;
    for (const char *at = list; *at;) {
        size_t part = strcspn(at, ",");
        if (part && (part != len || memcmp(at, id, len) != 0)) {
            if (used)
                out[used++] = ',';
            memcpy(out + used, at, part);
            used += part;
        }
        at += part + (at[part] == ',');
    }
    out[used] = 0;
}

/* Ids that are to be worked off. */
struct ids {
    const perf_allocator *allocator;
    char (*id)[ID_SIZE];
    size_t count, cap;
};

static int add_id(struct ids *ids, const char *id)
{
    if (ids->count == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 16;
        char(*grown)[ID_SIZE] = perf__realloc(ids->allocator, ids->id, cap * sizeof *grown);
        if (!grown)
            return perf__fail_nomem("tasks that wait for another");
        ids->id = grown;
        ids->cap = cap;
    }
    snprintf(ids->id[ids->count++], ID_SIZE, "%s", id);
    return PERF_OK;
}

static int followers_of(struct dynamodb_queue *q, const char *id, int64_t deadline_ns,
                        struct ids *out)
{
    char from[ID_SIZE + 2] = "!";
    int rc = PERF_OK;
    while (*from && !rc) {
        struct perf__text t = {.allocator = &q->allocator};
        struct perf__json all, items, item;
        perf_aws_reply *reply;
        size_t at = 0;
        perf__text_putf(&t,
                        "{\"TableName\":\"%s\",\"ConsistentRead\":true,\"KeyConditionExpression\":"
                        "\"#p = :p AND #s > :s\",\"ExpressionAttributeNames\":{\"#p\":\"pk\","
                        "\"#s\":\"sk\"},\"ExpressionAttributeValues\":{\":p\":{\"S\":\"%sf|%s\"},",
                        q->common, q->prefix, id);
        perf__queue_dynamodb_put_s(&t, ":s", from);
        perf__text_puts(&t, "}}");
        *from = 0;
        rc = perf__queue_dynamodb_call(q, "Query", &t, deadline_ns, &reply, &all);
        if (rc)
            return rc;
        if (!perf__json_find(all, "Items", '[', &items))
            rc = perf__fail(PERF_EPROTOCOL, "DynamoDB answered a Query without Items");
        while (!rc && perf__json_next(items, &at, NULL, &item)) {
            char one[ID_SIZE];
            if (perf__queue_dynamodb_text(item, "sk", one, sizeof one))
                rc = add_id(out, one);
        }
        if (!rc && perf__json_find(all, "LastEvaluatedKey", '{', &item))
            (void)perf__queue_dynamodb_text(item, "sk", from, sizeof from);
        perf_aws_reply_release(reply);
    }
    return rc;
}

/* One that waited for an ended task. It may end, too: then *ended. */
static int release_one(struct dynamodb_queue *q, const struct record *first, const char *id,
                       int64_t now_ms, int64_t deadline_ns, bool *ended)
{
    bool good = first->t.state == PERF_TASK_SUCCEEDED;
    for (int tries = 0;; tries++) {
        struct record r;
        int rc = perf__queue_dynamodb_read_one(q, id, deadline_ns, &r);
        if (!rc && r.t.state == PERF_TASK_WAITING &&
            perf__queue_dynamodb_in_list(r.pending, first->t.id)) {
            if (good || r.t.after_any_end) {
                without(r.pending, first->t.id, (char *)r.pending); /* it lies in our arena */
                perf__queue_dynamodb_set_due(&r, PERF_TASK_WAITING, now_ms);
            } else {
                *ended = r.followed != 0;
                perf__queue_dynamodb_set_end(&r, PERF_TASK_CANCELLED, now_ms, PERF_ECANCELED,
                                             "a task that it waited for did not succeed");
            }
            rc = perf__queue_dynamodb_write(q, &r, LIMIT_SAME, deadline_ns);
        }
        perf__queue_dynamodb_record_free(q, &r);
        if (rc == PERF_ECONFLICT || rc == PERF_EBUSY) {
            *ended = false;
            rc = perf__queue_dynamodb_pause(q, tries, deadline_ns);
            if (!rc)
                continue;
        }
        return rc == PERF_MISS ? PERF_OK : rc;
    }
}

static int forget_follower(struct dynamodb_queue *q, const char *id, const char *follower,
                           int64_t deadline_ns)
{
    struct perf__text t = {.allocator = &q->allocator};
    perf__queue_dynamodb_put_key(&t, q, false, "f|", id, follower);
    perf__text_puts(&t, "}");
    return perf__queue_dynamodb_call(q, "DeleteItem", &t, deadline_ns, NULL, NULL);
}

/* Nobody waits for it any more. If it has changed since it was read, it has been put back, and may
 * have others waiting by now: then it stays as it is. */
static int settle(struct dynamodb_queue *q, struct record *r, int64_t deadline_ns)
{
    int64_t before = r->version;
    r->followed = 0;
    for (int tries = 0;; tries++) {
        r->version = before;
        int rc = perf__queue_dynamodb_write(q, r, LIMIT_SAME, deadline_ns);
        if (rc == PERF_EBUSY && !(rc = perf__queue_dynamodb_pause(q, tries, deadline_ns)))
            continue;
        return rc == PERF_ECONFLICT ? PERF_OK : rc;
    }
}

static int release_all(struct dynamodb_queue *q, const char *id, int64_t now_ms,
                       int64_t deadline_ns, struct ids *ends)
{
    struct ids followers = {.allocator = &q->allocator};
    struct record first;
    int rc = perf__queue_dynamodb_read_one(q, id, deadline_ns, &first);
    bool waited_for = !rc && first.followed && perf__task_ended(first.t.state);
    if (waited_for)
        rc = followers_of(q, id, deadline_ns, &followers);
    for (size_t i = 0; i < followers.count && !rc; i++) {
        bool ended = false;
        rc = release_one(q, &first, followers.id[i], now_ms, deadline_ns, &ended);
        if (!rc && ended)
            rc = add_id(ends, followers.id[i]);
        if (!rc)
            rc = forget_follower(q, id, followers.id[i], deadline_ns);
    }
    if (!rc && waited_for)
        rc = settle(q, &first, deadline_ns);
    perf__queue_dynamodb_record_free(q, &first);
    perf__free(&q->allocator, followers.id);
    return rc;
}

int perf__queue_dynamodb_release(struct dynamodb_queue *q, const char *id, int64_t now_ms,
                                 int64_t deadline_ns)
{
    struct ids ends = {.allocator = &q->allocator};
    int rc = add_id(&ends, id);
    for (size_t i = 0; i < ends.count && !rc; i++) {
        char one[ID_SIZE]; /* the list may move */
        memcpy(one, ends.id[i], sizeof one);
        rc = release_all(q, one, now_ms, deadline_ns, &ends);
    }
    perf__free(&q->allocator, ends.id);
    return rc == PERF_MISS ? PERF_OK : rc;
}
