/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_look.c - looking at the DynamoDB queue.
 *
 * A task by its id is what it is now. Lists and counts are the indexes', a moment late.
 * Of a list without a user, every state and queue is a part of its own, in the order of
 * submission; the parts are merged, so that a page begins where the one before ended
 * whatever has moved meanwhile. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

enum {
    LOOK_AT = 1000, /* tasks that one find looks at */
    SEQ_DIGITS = 16,
    PLACE_SIZE = 128,
    PAGES_MAX = 100000,
};

int perf__queue_dynamodb_get(void *queue, const char *id, perf_queue_reply *reply)
{
    struct dynamodb_queue *q = queue;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    struct record r;
    if (strlen(id) >= ID_SIZE)
        return PERF_MISS; /* no id is so long */
    int rc = perf__queue_dynamodb_read_one(q, id, deadline, &r);
    if (!rc)
        rc = perf__queue_dynamodb_load(q, &r, PAYLOAD, deadline);
    if (!rc)
        rc = perf__queue_dynamodb_load(q, &r, RESULT, deadline);
    if (!rc)
        rc = perf__queue_dynamodb_add(&r, true, reply);
    perf__queue_dynamodb_record_free(q, &r);
    return rc;
}

/* ------------------------------------------------------------------------- find */

struct finding {
    const perf_queue_filter *filter;
    struct walk walk;
    char before[SEQ_DIGITS + 1]; /* the last that was seen; "g": none */
    struct entry last;           /* and on this page */
    char queues[32][65];
    size_t queue_count;
};

static bool is(const char *wanted, const char *value)
{
    return !wanted || !strcmp(wanted, value);
}

static bool matches(const perf_queue_filter *f, const perf_queue_task *t)
{
    return (!f->state || f->state == t->state) && is(f->user, t->user) && is(f->queue, t->queue) &&
           is(f->kind, t->kind) && is(f->batch, t->batch);
}

/* All states of a queue, or the one that is wanted. */
static int add_queue(struct finding *f, const char *queue)
{
    char low[PLACE_SIZE], high[PLACE_SIZE], state[2] = "0";
    int rc = PERF_OK;
    snprintf(low, sizeof low, "%s|", queue);
    snprintf(high, sizeof high, "%s|%s", queue, f->before);
    for (int s = PERF_TASK_WAITING; s <= PERF_TASK_DEAD && !rc; s++) {
        state[0] = (char)('0' + s);
        if (!f->filter->state || f->filter->state == s)
            rc = perf__queue_dynamodb_walk_add(&f->walk, "by_state", "", state, low, high);
    }
    return rc;
}

static int each_queue(void *ctx, const char *queue, int64_t version, const char *kind)
{
    struct finding *f = ctx;
    (void)version;
    if (!kind || strlen(queue) > 64)
        return PERF_OK;
    for (size_t i = 0; i < f->queue_count; i++)
        if (!strcmp(f->queues[i], queue))
            return PERF_OK;
    if (f->queue_count == sizeof f->queues / sizeof *f->queues)
        return perf__fail(PERF_EUNSUPPORTED,
                          "there are more than %zu queues; name one of them, or a user",
                          f->queue_count);
    snprintf(f->queues[f->queue_count++], sizeof *f->queues, "%s", queue);
    return add_queue(f, queue);
}

static int begin_find(struct finding *f)
{
    const perf_queue_filter *filter = f->filter;
    if (filter->user && filter->user[0])
        return perf__queue_dynamodb_walk_add(&f->walk, "by_user", "", filter->user, "0", f->before);
    if (filter->queue)
        return add_queue(f, filter->queue);
    int rc = perf__queue_dynamodb_lanes(f->walk.q, false, f->walk.deadline_ns);
    return rc ? rc : perf__queue_dynamodb_each_lane(f->walk.q, each_queue, f);
}

/* A cursor is the number of the last task that was seen; the next page is below it. */
static int read_cursor(const char *cursor, char before[SEQ_DIGITS + 1])
{
    snprintf(before, SEQ_DIGITS + 1, "g");
    if (!cursor)
        return PERF_OK;
    if (strlen(cursor) != SEQ_DIGITS || strspn(cursor, "0123456789abcdef") != SEQ_DIGITS)
        return perf__fail(PERF_EINVAL, "perf_tasks_filter.cursor is none of this queue's; give "
                                       "the one of the page before");
    memcpy(before, cursor, SEQ_DIGITS + 1);
    return PERF_OK;
}

/* The one before this: on the page before, or a task that has moved between two parts. Two
 * processes may have given two tasks the same number. */
static bool is_again(const struct finding *f, const struct entry *e)
{
    if (!f->last.id[0])
        return !strcmp(e->key, f->before);
    return !strcmp(e->id, f->last.id);
}

/* Up to count of those that match; *over: there are no more. */
static int find_some(struct finding *f, size_t count, size_t *found, bool *over,
                     perf_queue_reply *reply)
{
    struct dynamodb_queue *q = f->walk.q;
    struct entry entries[READ_MAX];
    struct record *records = perf__calloc(&q->allocator, READ_MAX, sizeof *records);
    const struct entry *e = NULL;
    size_t n = 0;
    int failed = PERF_OK, rc = records ? PERF_OK : perf__fail_nomem("a list of tasks");
    while (!rc && n < count && n < READ_MAX) {
        rc = perf__queue_dynamodb_walk_next(&f->walk, &e);
        if (rc || !e)
            break;
        if (is_again(f, e))
            continue;
        entries[n++] = f->last = *e;
    }
    *over = !rc && !e;
    if (!rc && n)
        rc = perf__queue_dynamodb_read_many(q, entries, n, true, f->walk.deadline_ns, records,
                                            &failed);
    for (size_t i = 0; i < n; i++) {
        if (!rc && records[i].t.id && matches(f->filter, &records[i].t)) {
            records[i].t.payload = records[i].t.result = (perf_bytes){"", 0};
            rc = perf__queue_dynamodb_add(&records[i], true, reply);
            (*found)++;
        }
        perf__queue_dynamodb_record_free(q, &records[i]);
    }
    perf__free(&q->allocator, records);
    return rc ? rc : failed;
}

int perf__queue_dynamodb_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply)
{
    struct dynamodb_queue *q = queue;
    size_t limit = filter->limit > 0 ? (size_t)filter->limit : 100, found = 0, looked = 0;
    bool over = false;
    struct finding f = {.filter = filter};
    f.walk = (struct walk){.q = q,
                           .page = limit < READ_MAX ? limit + 1 : READ_MAX,
                           .backward = true,
                           .deadline_ns = perf__queue_dynamodb_deadline(q)};
    int rc = read_cursor(filter->cursor, f.before);
    if (!rc)
        rc = begin_find(&f);
    while (!rc && !over && found < limit && looked < LOOK_AT) {
        size_t some = limit - found < READ_MAX ? limit - found : READ_MAX;
        rc = find_some(&f, some, &found, &over, reply);
        looked += some;
    }
    if (!rc && !over)
        rc = perf_queue_reply_cursor(reply, f.last.key);
    perf__queue_dynamodb_walk_free(&f.walk);
    return rc;
}

/* ----------------------------------------------------------------------- counts */

/* How many are in a state; *from is where to go on, or "". */
static void put_count(const struct dynamodb_queue *q, struct perf__text *t, const char *queue,
                      int state, const char *from)
{
    char low[PLACE_SIZE], high[PLACE_SIZE];
    snprintf(low, sizeof low, "%s|", queue);
    snprintf(high, sizeof high, "%s|g", queue);
    perf__text_putf(t,
                    "{\"TableName\":\"%s\",\"IndexName\":\"by_state\",\"Select\":\"COUNT\","
                    "\"KeyConditionExpression\":\"#h = :h AND #r BETWEEN :l AND :u\","
                    "\"ExpressionAttributeNames\":{\"#h\":\"state\",\"#r\":\"place\"},"
                    "\"ExpressionAttributeValues\":{\":h\":{\"S\":\"%s%d\"},",
                    q->tasks, q->prefix, state);
    perf__queue_dynamodb_put_s(t, ":l", *from ? from : low);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":u", high);
    perf__text_puts(t, "}}");
}

static int take_count(struct perf__json all, uint64_t *count, char from[PLACE_SIZE])
{
    struct perf__json number, last;
    uint64_t n;
    *from = 0;
    if (!perf__json_find(all, "Count", 0, &number) || !perf__json_uint(number, &n))
        return perf__fail(PERF_EPROTOCOL, "DynamoDB answered a Query without Count");
    *count += n;
    if (perf__json_find(all, "LastEvaluatedKey", '{', &last) &&
        perf__queue_dynamodb_text(last, "place", from, PLACE_SIZE - 1))
        memcpy(from + strlen(from), "!", 2); /* behind that one */
    return PERF_OK;
}

static int count_states(struct dynamodb_queue *q, const char *name, int64_t deadline_ns,
                        perf_queue_counts *counts)
{
    char from[PERF_TASK_DEAD + 1][PLACE_SIZE] = {""};
    bool more = true;
    int rc = PERF_OK;
    for (int pages = 0; more && !rc && pages < PAGES_MAX; pages++) {
        struct perf__aws_flown *r = perf__calloc(&q->allocator, PERF_TASK_DEAD, sizeof *r);
        int states[PERF_TASK_DEAD];
        size_t n = 0;
        if (!r)
            return perf__fail_nomem("the counts of a queue");
        for (int s = PERF_TASK_WAITING; s <= PERF_TASK_DEAD; s++) {
            if (pages && !from[s][0])
                continue;
            r[n].operation = "Query";
            r[n].body.allocator = &q->allocator;
            put_count(q, &r[n].body, name, s, from[s]);
            states[n++] = s;
        }
        rc = perf__queue_dynamodb_fly(q, r, n, deadline_ns);
        more = false;
        for (size_t i = 0; i < n && !rc; i++) {
            int s = states[i];
            rc = r[i].rc ? perf__queue_dynamodb_say(&r[i])
                         : take_count(r[i].all, &counts->by_state[s], from[s]);
            more = more || from[s][0];
        }
        perf__aws_flown_free(&q->allocator, r, n);
    }
    return rc;
}

/* The lanes of one queue, to find what goes first in it. */
struct oldest {
    struct walk walk;
    const char *queue;
    bool paused;
};

static int add_lane(void *ctx, const char *queue, int64_t version, const char *kind)
{
    struct oldest *o = ctx;
    char name[HASH_SIZE];
    if (strcmp(queue, o->queue) != 0)
        return PERF_OK;
    if (!kind) {
        o->paused = true;
        return PERF_OK;
    }
    snprintf(name, sizeof name, "%s|%" PRId64 "|%s", queue, version, kind);
    return perf__queue_dynamodb_walk_add(&o->walk, "by_lane", "r|", name, "0", "g");
}

int perf__queue_dynamodb_count(void *queue, const char *name, int64_t now_ms,
                               perf_queue_counts *counts)
{
    struct dynamodb_queue *q = queue;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    struct oldest o = {.walk = {.q = q, .page = 1, .deadline_ns = deadline}, .queue = name};
    const struct entry *first = NULL;
    (void)now_ms;
    int rc = perf__queue_dynamodb_lanes(q, true, deadline);
    if (!rc)
        rc = perf__queue_dynamodb_each_lane(q, add_lane, &o);
    if (!rc)
        rc = count_states(q, name, deadline, counts);
    if (!rc && counts->by_state[PERF_TASK_QUEUED])
        rc = perf__queue_dynamodb_walk_next(&o.walk, &first);
    if (!rc && first) {
        struct record r;
        rc = perf__queue_dynamodb_read_one(q, first->id, deadline, &r);
        if (!rc)
            counts->oldest_due_ms = r.t.due_ms;
        perf__queue_dynamodb_record_free(q, &r);
        rc = rc == PERF_MISS ? PERF_OK : rc;
    }
    counts->paused = o.paused;
    perf__queue_dynamodb_walk_free(&o.walk);
    return rc;
}
