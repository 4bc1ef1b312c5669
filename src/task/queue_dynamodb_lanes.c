/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_lanes.c - which queues there are, of which kinds and versions they
 * have tasks, and which are paused.
 *
 * The directory is one partition of the second table, so one Query reads it. Who
 * submits a task puts its lane there first, once; lanes stay. What was read is good for
 * half a second, and what this process changes it knows at once. The mutex of the queue
 * guards what is known; no request is made under it. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "queue_dynamodb.h"

enum { KNOWN_MS = 500, LANES_MAX = 10000 };

static void name_of(const char *queue, int64_t version, const char *kind, struct known_lane *out)
{
    snprintf(out->name, sizeof out->name, "%s|%" PRId64 "|%s", queue, version, kind);
}

/* With the mutex. */
static size_t find(const struct dynamodb_queue *q, const char *name)
{
    size_t i = 0;
    while (i < q->lane_count && strcmp(q->lanes[i].name, name) != 0)
        i++;
    return i;
}

/* With the mutex. Without memory it is asked for again. */
static void learn(struct dynamodb_queue *q, const char *name)
{
    q->lane_changes++;
    if (find(q, name) < q->lane_count)
        return;
    struct known_lane *grown =
        perf__realloc(&q->allocator, q->lanes, (q->lane_count + 1) * sizeof *grown);
    if (!grown)
        return;
    q->lanes = grown;
    snprintf(q->lanes[q->lane_count++].name, sizeof grown->name, "%s", name);
}

static void forget(struct dynamodb_queue *q, const char *name)
{
    size_t i = find(q, name);
    q->lane_changes++;
    if (i < q->lane_count)
        q->lanes[i] = q->lanes[--q->lane_count];
}

static int put(struct dynamodb_queue *q, const char *name, int64_t deadline_ns)
{
    struct perf__text t = {.allocator = &q->allocator};
    perf__text_putf(&t, "{\"TableName\":\"%s\",\"Item\":{", q->common);
    perf__queue_dynamodb_put_pk(&t, q, "", "queues");
    perf__text_puts(&t, ",");
    perf__queue_dynamodb_put_s(&t, "sk", name);
    perf__text_puts(&t, "}}");
    return perf__queue_dynamodb_call(q, "PutItem", &t, deadline_ns, NULL, NULL);
}

int perf__queue_dynamodb_need_lane(struct dynamodb_queue *q, const perf_queue_task *t,
                                   int64_t deadline_ns)
{
    struct known_lane lane;
    name_of(t->queue, t->version, t->kind, &lane);
    pthread_mutex_lock(&q->mutex);
    bool known = find(q, lane.name) < q->lane_count;
    pthread_mutex_unlock(&q->mutex);
    int rc = known ? PERF_OK : put(q, lane.name, deadline_ns);
    if (rc || known)
        return rc;
    pthread_mutex_lock(&q->mutex);
    learn(q, lane.name);
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

/* Adds a page to lanes; *from becomes where the next one begins, or "". */
static int take_page(const struct dynamodb_queue *q, struct perf__json all,
                     struct known_lane **lanes, size_t *count, char *from, size_t size)
{
    struct perf__json items, item, last;
    size_t at = 0;
    *from = 0;
    if (!perf__json_find(all, "Items", '[', &items))
        return perf__fail(PERF_EPROTOCOL, "DynamoDB answered a Query without Items");
    while (perf__json_next(items, &at, NULL, &item) && *count < LANES_MAX) {
        struct known_lane lane;
        if (!perf__queue_dynamodb_text(item, "sk", lane.name, sizeof lane.name))
            continue;
        struct known_lane *grown =
            perf__realloc(&q->allocator, *lanes, (*count + 1) * sizeof *grown);
        if (!grown)
            return perf__fail_nomem("the names of queues");
        *lanes = grown;
        grown[(*count)++] = lane;
    }
    if (perf__json_find(all, "LastEvaluatedKey", '{', &last))
        (void)perf__queue_dynamodb_text(last, "sk", from, size);
    return PERF_OK;
}

/* The whole directory; *lanes is to be freed, in any case. */
static int read_all(struct dynamodb_queue *q, int64_t deadline_ns, struct known_lane **lanes,
                    size_t *count)
{
    char from[200] = " ";
    int rc = PERF_OK;
    *lanes = NULL;
    *count = 0;
    while (*from && !rc) {
        struct perf__text t = {.allocator = &q->allocator};
        struct perf__json all;
        perf_aws_reply *reply;
        perf__text_putf(
            &t,
            "{\"TableName\":\"%s\",\"ConsistentRead\":true,\"KeyConditionExpression\":"
            "\"#p = :p AND #s > :s\",\"ExpressionAttributeNames\":{\"#p\":\"pk\","
            "\"#s\":\"sk\"},\"ExpressionAttributeValues\":{\":p\":{\"S\":\"%squeues\"},",
            q->common, q->prefix);
        perf__queue_dynamodb_put_s(&t, ":s", from);
        perf__text_puts(&t, "}}");
        rc = perf__queue_dynamodb_call(q, "Query", &t, deadline_ns, &reply, &all);
        if (!rc) {
            rc = take_page(q, all, lanes, count, from, sizeof from);
            perf_aws_reply_release(reply);
        }
    }
    return rc;
}

int perf__queue_dynamodb_lanes(struct dynamodb_queue *q, bool fresh, int64_t deadline_ns)
{
    for (;;) {
        struct known_lane *lanes;
        size_t count;
        pthread_mutex_lock(&q->mutex);
        bool known = !fresh && q->lanes_until_ns && perf__deadline_left(q->lanes_until_ns);
        uint64_t changes = q->lane_changes;
        pthread_mutex_unlock(&q->mutex);
        if (known)
            return PERF_OK;
        int64_t until = perf__deadline_after(KNOWN_MS);
        int rc = read_all(q, deadline_ns, &lanes, &count);
        pthread_mutex_lock(&q->mutex);
        bool current = changes == q->lane_changes;
        if (!rc && current) {
            struct known_lane *old = q->lanes;
            q->lanes = lanes;
            q->lane_count = count;
            q->lanes_until_ns = until;
            lanes = old;
        }
        pthread_mutex_unlock(&q->mutex);
        perf__free(&q->allocator, lanes);
        /* What this process changed meanwhile may not be in it: again. */
        if (rc || current)
            return rc;
    }
}

/* Splits a name where it lies; kind NULL: it is that of a queue that is paused. */
static bool split(char *name, int64_t *version, const char **kind)
{
    char *at = strchr(name, '|'), *end;
    *kind = NULL;
    *version = 0;
    if (!at)
        return true;
    *at++ = 0;
    *version = strtoll(at, &end, 10);
    *kind = end + 1;
    return end != at && *end == '|' && end[1];
}

int perf__queue_dynamodb_each_lane(struct dynamodb_queue *q, perf__lane_fn each, void *ctx)
{
    int rc = PERF_OK;
    for (size_t i = 0; !rc; i++) {
        struct known_lane lane;
        int64_t version;
        const char *kind;
        pthread_mutex_lock(&q->mutex);
        bool there = i < q->lane_count;
        if (there)
            lane = q->lanes[i];
        pthread_mutex_unlock(&q->mutex);
        if (!there)
            break;
        if (split(lane.name, &version, &kind))
            rc = each(ctx, lane.name, version, kind);
    }
    return rc;
}

int perf__queue_dynamodb_pause_queue(struct dynamodb_queue *q, const char *queue, bool paused,
                                     uint64_t *n)
{
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    int rc = perf__queue_dynamodb_lanes(q, true, deadline);
    if (rc)
        return rc;
    pthread_mutex_lock(&q->mutex);
    bool was = find(q, queue) < q->lane_count;
    pthread_mutex_unlock(&q->mutex);
    if (paused) {
        rc = put(q, queue, deadline);
    } else {
        struct perf__text t = {.allocator = &q->allocator};
        perf__queue_dynamodb_put_key(&t, q, false, "", "queues", queue);
        perf__text_puts(&t, "}");
        rc = perf__queue_dynamodb_call(q, "DeleteItem", &t, deadline, NULL, NULL);
    }
    if (rc)
        return rc;
    *n = was != paused;
    pthread_mutex_lock(&q->mutex);
    if (paused)
        learn(q, queue);
    else
        forget(q, queue);
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}
