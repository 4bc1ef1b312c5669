/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_write.c - makes changes, in the order and the requests that the service
 * allows.
 *
 * A batch must not name a key twice, has no conditions and no order. So of the
 * changes of one key only the last counts: a write without a lease replaces all
 * before it and ends the lease that those after it would need. What is left goes
 * out in four steps, each safe to stop after: the marks; the chunks of long records,
 * under a version that nobody knows yet; short records and removals, in batches;
 * and alone, what has a condition or replaces chunks. When it fails between them,
 * part of the changes are made (PERF_STORE_PARTIAL). Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/hash.h"
#include "../base/options.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "dynamodb.h"

enum { BATCH = 25 }; /* of a request: the service's limit */

struct change {
    const perf_store_op *op;
    size_t key_at; /* its partition key in the arena, with a zero byte behind */
    bool is_void;  /* another change makes it so */
    size_t turn;   /* of several of one key that go alone */
    uint8_t *packed;
    struct dynamodb_record record; /* of a SET */
};

struct writing {
    struct dynamodb_store *store;
    int64_t deadline_ns, now_ms;
    struct change *changes;
    size_t count;
    struct perf__text keys;
};

static const char *key_of(const struct writing *w, const struct change *c)
{
    return w->keys.data + c->key_at;
}

static bool is_set(const struct change *c)
{
    return c->op->kind == PERF_STORE_SET;
}

/* ------------------------------------------------------------------ prepare */

static int by_key(const void *a, const void *b, void *ctx)
{
    const struct writing *w = ctx;
    const struct change *one = &w->changes[*(const size_t *)a];
    const struct change *two = &w->changes[*(const size_t *)b];
    int order = strcmp(key_of(w, one), key_of(w, two));
    return order ? order : (one > two) - (one < two);
}

/* Neighbours with the same key. After one without a lease, and before it, nothing else counts. */
static void decide(struct writing *w, const size_t *order, size_t from, size_t to)
{
    size_t plain = to;
    for (size_t i = from; i < to; i++)
        if (!is_set(&w->changes[order[i]]) || !w->changes[order[i]].op->lease)
            plain = i;
    for (size_t i = from; i < to; i++) {
        w->changes[order[i]].is_void = plain < to && i != plain;
        w->changes[order[i]].turn = plain < to ? 0 : i - from;
    }
}

static int decide_all(struct writing *w)
{
    const perf_allocator *a = &w->store->allocator;
    size_t *order = perf__calloc(a, w->count, sizeof *order), n = 0;
    if (!order)
        return perf__fail_nomem("changes for DynamoDB");
    for (size_t i = 0; i < w->count; i++)
        if (w->changes[i].op->kind != PERF_STORE_MARK)
            order[n++] = i;
    qsort_r(order, n, sizeof *order, by_key, w);
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && !strcmp(key_of(w, &w->changes[order[from]]),
                                              key_of(w, &w->changes[order[to]]));)
            to++;
        decide(w, order, from, to);
    }
    perf__free(a, order);
    return PERF_OK;
}

/* The bytes that are stored, and in how many items. */
static int make_record(struct writing *w, struct change *c)
{
    struct dynamodb_store *s = w->store;
    struct dynamodb_record *r = &c->record;
    size_t packed_len = 0;
    r->body = c->op->record;
    r->size = r->body.len;
    r->expires_s = perf__dynamodb_expires(c->op->expire_ms, w->now_ms);
    if (r->size > DYNAMODB_RECORD_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "a record of %zu bytes is more than the %d that the dynamodb tier takes; "
                          "set max_value_bytes for its namespace",
                          r->size, DYNAMODB_RECORD_MAX);
    if (s->packs)
        perf__dynamodb_pack(&s->allocator, r->body, &c->packed, &packed_len);
    if (c->packed) {
        r->zstd = true;
        r->body = (perf_bytes){c->packed, packed_len};
    }
    if (r->body.len > DYNAMODB_ITEM_ROOM) {
        r->chunks = (r->body.len + DYNAMODB_CHUNK - 1) / DYNAMODB_CHUNK;
        snprintf(r->version, sizeof r->version, "%016" PRIx64, perf__hash_random_key().k0);
    }
    return PERF_OK;
}

/* All that can be refused is refused here, before anything is changed. */
static int prepare(struct writing *w, const perf_store_op *ops, size_t count)
{
    struct dynamodb_key pk;
    w->changes = perf__calloc(&w->store->allocator, count, sizeof *w->changes);
    if (!w->changes)
        return perf__fail_nomem("changes for DynamoDB");
    w->count = count;
    for (size_t i = 0; i < count; i++) {
        w->changes[i].op = &ops[i];
        if (ops[i].kind < PERF_STORE_SET || ops[i].kind > PERF_STORE_MARK)
            return perf__fail(PERF_EINVAL,
                              "perf_store_op.kind is %" PRId64 "; give a PERF_STORE_ operation",
                              ops[i].kind);
        if (ops[i].kind == PERF_STORE_MARK)
            continue;
        perf__dynamodb_key(w->store, &ops[i].key, &pk);
        w->changes[i].key_at = w->keys.len;
        perf__text_put(&w->keys, pk.text, pk.len + 1);
    }
    int rc = w->keys.failed ? perf__fail_nomem("changes for DynamoDB") : decide_all(w);
    for (size_t i = 0; !rc && i < count; i++)
        if (is_set(&w->changes[i]) && !w->changes[i].is_void)
            rc = make_record(w, &w->changes[i]);
    return rc;
}

/* -------------------------------------------------------------------- marks */

/* The mark, or its copy for those who ask for what is new. */
static void put_mark(struct writing *w, struct perf__text *t, const perf_store_op *op, bool news)
{
    struct dynamodb_key pk;
    char sort[DYNAMODB_SORT_MAX + 1];
    perf__dynamodb_marks_key(w->store, &pk);
    if (news)
        perf__dynamodb_news_sort(op->mark_stamp_ms, op->mark_kind, op->mark_name, sort);
    else
        perf__dynamodb_mark_sort(op->mark_kind, op->mark_name, sort);
    perf__dynamodb_begin(t, w->store);
    perf__text_puts(t, ",\"Key\":");
    perf__dynamodb_put_key(t, pk.text, sort);
    perf__text_puts(t, ",\"UpdateExpression\":\"SET #s = :s, #k = :k, #n = :n, #x = :x\","
                       "\"ConditionExpression\":\"attribute_not_exists(#s) OR #s < :s\","
                       "\"ExpressionAttributeNames\":{\"#s\":\"stamp\",\"#k\":\"kind\",\"#n\":"
                       "\"name\",\"#x\":\"expires\"},\"ExpressionAttributeValues\":{");
    perf__text_putf(t,
                    "\":s\":{\"N\":\"%" PRId64 "\"},\":k\":{\"N\":\"%" PRId64
                    "\"},\":x\":{\"N\":\"%" PRId64 "\"},\":n\":{\"B\":\"",
                    op->mark_stamp_ms, op->mark_kind,
                    w->now_ms / 1000 +
                        (int64_t)(news ? DYNAMODB_NEWS_DAYS : DYNAMODB_MARK_DAYS) * 86400);
    perf__text_put_base64(t, op->mark_name.data, op->mark_name.len);
    perf__text_puts(t, "\"}}}");
}

static bool is_mark(const struct change *c)
{
    return c->op->kind == PERF_STORE_MARK;
}

/* Of several marks of one name the youngest says it all. */
static void decide_marks(struct writing *w, size_t *left)
{
    *left = 0;
    for (size_t i = 0; i < w->count; i++) {
        const perf_store_op *one = w->changes[i].op;
        if (!is_mark(&w->changes[i]))
            continue;
        for (size_t j = 0; j < w->count && !w->changes[i].is_void; j++) {
            const perf_store_op *two = w->changes[j].op;
            w->changes[i].is_void =
                i != j && is_mark(&w->changes[j]) && one->mark_kind == two->mark_kind &&
                one->mark_name.len == two->mark_name.len &&
                (!one->mark_name.len ||
                 !memcmp(one->mark_name.data, two->mark_name.data, one->mark_name.len)) &&
                (one->mark_stamp_ms < two->mark_stamp_ms ||
                 (one->mark_stamp_ms == two->mark_stamp_ms && i < j));
        }
        *left += !w->changes[i].is_void;
    }
}

/* A condition that does not hold: a younger mark is there. */
static int write_marks(struct writing *w)
{
    struct dynamodb_store *s = w->store;
    struct perf__aws_flown *requests = NULL;
    size_t count, n = 0;
    decide_marks(w, &count);
    if (!count)
        return PERF_OK;
    requests = perf__calloc(&s->allocator, count, 2 * sizeof *requests);
    if (!requests)
        return perf__fail_nomem("marks for DynamoDB");
    for (size_t i = 0; i < 2 * w->count; i++)
        if (is_mark(&w->changes[i / 2]) && !w->changes[i / 2].is_void) {
            requests[n].body.allocator = &s->allocator;
            put_mark(w, &requests[n++].body, w->changes[i / 2].op, i % 2);
        }
    int rc = perf__dynamodb_call_all(s, "UpdateItem", requests, n, DYNAMODB_WRITES, w->deadline_ns);
    perf__aws_flown_free(&s->allocator, requests, n);
    return rc;
}

/* ------------------------------------------------------------------ batches */

/* Requests of a batch: their texts one behind the other. */
struct requests {
    struct perf__text text;
    size_t *ends;
    size_t count, cap;
};

static void end_request(struct requests *q)
{
    if (q->count == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 32;
        size_t *bigger = perf__realloc(q->text.allocator, q->ends, cap * sizeof *bigger);
        if (!bigger) {
            q->text.failed = true;
            return;
        }
        q->ends = bigger;
        q->cap = cap;
    }
    q->ends[q->count++] = q->text.len;
}

static void drop_requests(struct requests *q)
{
    perf__text_free(&q->text);
    perf__free(q->text.allocator, q->ends);
}

/* What the service leaves out is sent again and again, until the time is over. */
static int send_patiently(struct writing *w, const perf_bytes *parts, size_t count)
{
    struct dynamodb_store *s = w->store;
    perf_dynamodb_batch_options options = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    perf_dynamodb_batch *batch = NULL;
    options.timeout_ms = perf__deadline_left(w->deadline_ns);
    if (!options.timeout_ms)
        return perf__dynamodb_too_late(s);
    int rc = perf_dynamodb_batch_write(s->aws, s->table, parts, count, &options, &batch);
    perf__dynamodb_count(s, DYNAMODB_WRITES, (uint64_t)perf_dynamodb_batch_millicapacity(batch));
    perf_dynamodb_batch_release(batch);
    return rc ? perf__dynamodb_failed(s, rc) : PERF_OK;
}

/* Adds to left what a request did not get done: all of its parts, or what its reply lists. */
static int take_left(const struct perf__aws_flown *r, const perf_bytes *parts, size_t count,
                     perf_bytes *left, size_t *n)
{
    struct perf__json tables, list, part;
    size_t at_table = 0, end = *n + count;
    if (r->rc == PERF_ETHROTTLED) {
        memmove(left + *n, parts, count * sizeof *parts);
        *n = end;
    }
    if (r->rc == PERF_ETHROTTLED ||
        (!r->rc && !perf__json_find(r->all, "UnprocessedItems", '{', &tables)))
        return PERF_OK;
    if (r->rc)
        return perf__fail(r->rc, "%s", r->why);
    while (perf__json_next(tables, &at_table, NULL, &list)) {
        size_t at = 0;
        while (perf__json_next(list, &at, NULL, &part)) {
            if (*n == end)
                return perf__fail(PERF_EPROTOCOL, "DynamoDB left out more than it was sent");
            left[(*n)++] = (perf_bytes){part.at, part.len};
        }
    }
    return PERF_OK;
}

/* As many requests as it takes, together; parts becomes what is left, and is sent once more. */
static int send_together(struct writing *w, perf_bytes *parts, size_t count)
{
    struct dynamodb_store *s = w->store;
    size_t n = (count + BATCH - 1) / BATCH, left = 0;
    struct perf__aws_flown *requests = perf__calloc(&s->allocator, n, sizeof *requests);
    if (!requests)
        return perf__fail_nomem("a batch for DynamoDB");
    for (size_t i = 0; i < n; i++) {
        struct perf__text *t = &requests[i].body;
        t->allocator = &s->allocator;
        perf__text_puts(t, "{\"ReturnConsumedCapacity\":\"TOTAL\",\"RequestItems\":{\"");
        perf__text_puts(t, s->table);
        perf__text_puts(t, "\":[");
        for (size_t j = i * BATCH; j < count && j < (i + 1) * BATCH; j++) {
            perf__text_put(t, ",", j > i * BATCH);
            perf__text_put(t, parts[j].data, parts[j].len);
        }
        perf__text_puts(t, "]}}");
    }
    int rc =
        perf__dynamodb_call_all(s, "BatchWriteItem", requests, n, DYNAMODB_WRITES, w->deadline_ns);
    if (rc == PERF_ETHROTTLED)
        rc = PERF_OK;
    for (size_t i = 0; !rc && i < n; i++) {
        size_t from = i * BATCH, size = count - from < BATCH ? count - from : BATCH;
        rc = take_left(&requests[i], parts + from, size, parts, &left);
    }
    if (!rc && left)
        rc = send_patiently(w, parts, left);
    perf__aws_flown_free(&s->allocator, requests, n);
    return rc;
}

/* Sends them; drops them in any case. */
static int send_requests(struct writing *w, struct requests *q)
{
    const perf_allocator *a = &w->store->allocator;
    perf_bytes *parts = NULL;
    size_t from = 0;
    int rc = PERF_OK;
    if (!q->count && !q->text.failed)
        goto out;
    if (!q->text.failed)
        parts = perf__calloc(a, q->count, sizeof *parts);
    if (!parts) {
        rc = perf__fail_nomem("a batch for DynamoDB");
        goto out;
    }
    for (size_t i = 0; i < q->count; i++) {
        parts[i] = (perf_bytes){q->text.data + from, q->ends[i] - from};
        from = q->ends[i];
    }
    rc = q->count > BATCH ? send_together(w, parts, q->count) : send_patiently(w, parts, q->count);
out:
    perf__free(a, parts);
    drop_requests(q);
    return rc;
}

/* Those of one record, so that only one long record is in memory a second time. */
static int write_chunks(struct writing *w, const struct change *c)
{
    struct requests q = {.text = {.allocator = &w->store->allocator}};
    for (size_t i = 0; i < c->record.chunks; i++) {
        perf__text_puts(&q.text, "{\"PutRequest\":{\"Item\":");
        perf__dynamodb_put_chunk(&q.text, key_of(w, c), &c->record, i);
        perf__text_puts(&q.text, "}}");
        end_request(&q);
    }
    return send_requests(w, &q);
}

static void remove_chunks(struct writing *w, const char *pk, const struct dynamodb_item *head)
{
    struct requests q = {.text = {.allocator = &w->store->allocator}};
    for (uint64_t i = 0; i < head->chunks; i++) {
        perf__text_puts(&q.text, "{\"DeleteRequest\":{\"Key\":");
        perf__dynamodb_put_chunk_key(&q.text, pk, head->version, (size_t)i);
        perf__text_puts(&q.text, "}}");
        end_request(&q);
    }
    (void)!send_requests(w, &q); /* the service deletes what stays when its time is over */
}

static bool goes_alone(const struct change *c)
{
    return is_set(c) && (c->op->lease || c->record.chunks);
}

static int write_batch(struct writing *w)
{
    struct requests q = {.text = {.allocator = &w->store->allocator}};
    for (size_t i = 0; i < w->count; i++) {
        const struct change *c = &w->changes[i];
        if (is_mark(c) || c->is_void || goes_alone(c))
            continue;
        if (is_set(c)) {
            perf__text_puts(&q.text, "{\"PutRequest\":{\"Item\":");
            perf__dynamodb_put_head(&q.text, w->store, key_of(w, c), &c->op->key, &c->record,
                                    w->now_ms);
        } else {
            perf__text_puts(&q.text, "{\"DeleteRequest\":{\"Key\":");
            perf__dynamodb_put_key(&q.text, key_of(w, c), "0");
        }
        perf__text_puts(&q.text, "}}");
        end_request(&q);
    }
    return send_requests(w, &q);
}

/* -------------------------------------------------------------------- alone */

static void put_alone(struct writing *w, struct perf__text *t, const struct change *c)
{
    perf__dynamodb_begin(t, w->store);
    perf__text_puts(t, ",\"Item\":");
    perf__dynamodb_put_head(t, w->store, key_of(w, c), &c->op->key, &c->record, w->now_ms);
    if (c->record.chunks)
        perf__text_puts(t, ",\"ReturnValues\":\"ALL_OLD\"");
    if (c->op->lease)
        perf__dynamodb_put_held(t, c->op->lease, w->now_ms);
    perf__text_puts(t, "}");
}

/* The chunks of what was there before, which nothing names any more. (Not after a condition that
 * did not hold: it may be the echo of our own write, whose reply was lost.) */
static void clean_up(struct writing *w, const struct change *c, const struct perf__aws_flown *r)
{
    struct perf__json old;
    struct dynamodb_item before;
    if (r->rc || !c->record.chunks || !perf__json_find(r->all, "Attributes", '{', &old))
        return;
    perf__dynamodb_item_read(old, 0, &before);
    if (before.kind == ITEM_CHUNKED && strcmp(before.version, c->record.version) != 0)
        remove_chunks(w, key_of(w, c), &before);
}

/* Those whose turn it is. What has a lease that is not held any more is left out. */
static int write_alone(struct writing *w, size_t turn, size_t *done)
{
    struct dynamodb_store *s = w->store;
    size_t *which = perf__calloc(&s->allocator, w->count, sizeof *which), n = 0;
    struct perf__aws_flown *requests = NULL;
    int rc = which ? PERF_OK : perf__fail_nomem("changes for DynamoDB");
    for (size_t i = 0; which && i < w->count; i++)
        if (!w->changes[i].is_void && goes_alone(&w->changes[i]) && w->changes[i].turn == turn)
            which[n++] = i;
    if (n)
        requests = perf__calloc(&s->allocator, n, sizeof *requests);
    if (n && !requests)
        rc = perf__fail_nomem("changes for DynamoDB");
    for (size_t i = 0; requests && i < n; i++) {
        requests[i].body.allocator = &s->allocator;
        put_alone(w, &requests[i].body, &w->changes[which[i]]);
    }
    if (requests)
        rc = perf__dynamodb_call_all(s, "PutItem", requests, n, DYNAMODB_WRITES, w->deadline_ns);
    for (size_t i = 0; requests && i < n; i++)
        clean_up(w, &w->changes[which[i]], &requests[i]);
    perf__aws_flown_free(&s->allocator, requests, n);
    perf__free(&s->allocator, which);
    *done = n;
    return rc;
}

int perf__dynamodb_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct dynamodb_store *s = store;
    struct writing w = {.store = s,
                        .deadline_ns = perf__deadline_after(s->timeout_ms),
                        .now_ms = perf__realtime_ms(&s->clock),
                        .keys = {.allocator = &s->allocator}};
    int rc = prepare(&w, ops, count);
    if (!rc)
        rc = write_marks(&w);
    for (size_t i = 0; !rc && i < w.count; i++)
        if (!w.changes[i].is_void && w.changes[i].record.chunks)
            rc = write_chunks(&w, &w.changes[i]);
    if (!rc)
        rc = write_batch(&w);
    for (size_t turn = 0, done = 1; !rc && done; turn++)
        rc = write_alone(&w, turn, &done);
    for (size_t i = 0; i < w.count; i++)
        perf__free(&s->allocator, w.changes[i].packed);
    perf__free(&s->allocator, w.changes);
    perf__text_free(&w.keys);
    return rc;
}
