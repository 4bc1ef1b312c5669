/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_read.c - finds records, one or many, and lists the marks.
 *
 * A record that is too long for an item lies in chunks, which carry a version of
 * their own; the head names the version, so chunks of two writes never mix. A
 * chunk that is missing means that the record was replaced meanwhile: the head is
 * read once more, and what is missing then is a miss. An item that is none of ours
 * is given up as no bytes at all, which the cache counts as damaged. Any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "dynamodb.h"

/* A get under way. */
struct read {
    struct dynamodb_store *store;
    int64_t deadline_ns;
    int64_t now_ms;
};

static struct read begin(struct dynamodb_store *s)
{
    return (struct read){s, perf__deadline_after(s->timeout_ms), perf__realtime_ms(&s->clock)};
}

/* No envelope is empty: the cache sees a damaged record, counts it, and goes on. */
static int damaged(perf_store_reply *reply)
{
    return perf_store_reply_set(reply, "", 0);
}

/* The stored bytes of a record, unpacked, become the reply. */
static int deliver(const struct read *r, const struct dynamodb_item *item, const uint8_t *data,
                   size_t len, perf_store_reply *reply)
{
    const perf_allocator *a = &r->store->allocator;
    uint8_t *record = NULL;
    if (!item->zstd)
        return len == item->size ? perf_store_reply_set(reply, data, len) : damaged(reply);
    int rc = perf__dynamodb_unpack(a, data, len, (size_t)item->size, &record);
    if (rc == PERF_ECORRUPT || rc == PERF_EUNSUPPORTED)
        return damaged(reply);
    if (!rc)
        rc = perf_store_reply_set(reply, record, (size_t)item->size);
    perf__free(a, record);
    return rc;
}

static int deliver_whole(const struct read *r, const struct dynamodb_item *item,
                         perf_store_reply *reply)
{
    uint8_t *data;
    size_t len;
    int rc = perf__dynamodb_bytes(&r->store->allocator, item->record, &data, &len);
    if (rc == PERF_ECORRUPT)
        return damaged(reply);
    if (rc)
        return rc;
    rc = deliver(r, item, data, len, reply);
    perf__free(&r->store->allocator, data);
    return rc;
}

/* ------------------------------------------------------------------- chunks */

/* Which of the chunks it is, by its sort key "1|version|00007"; -1: none of them. */
static int64_t chunk_number(struct perf__json item, const struct dynamodb_item *head)
{
    enum { BEFORE = 2 + DYNAMODB_VERSION + 1, DIGITS = 5 };
    char sort[64], before[BEFORE + 1];
    int64_t number = 0;
    perf__dynamodb_item_key(item, "sk", sort, sizeof sort);
    snprintf(before, sizeof before, "1|%s|", head->version);
    if (strlen(sort) != BEFORE + DIGITS || memcmp(sort, before, BEFORE) != 0)
        return -1;
    for (const char *at = sort + BEFORE; *at; at++) {
        if (*at < '0' || *at > '9')
            return -1;
        number = number * 10 + (*at - '0');
    }
    return (uint64_t)number < head->chunks ? number : -1;
}

/* The chunks of a batch in their order. False: one is missing. */
static bool sort_chunks(const struct dynamodb_item *head, const perf_dynamodb_batch *batch,
                        struct perf__json *parts)
{
    struct perf__json item, attribute, base64;
    for (size_t i = 0; i < perf_dynamodb_batch_count(batch); i++) {
        item.at = perf_dynamodb_batch_item(batch, i, &item.len);
        int64_t number = chunk_number(item, head);
        if (number >= 0 && perf__json_find(item, "record", '{', &attribute) &&
            perf__json_find(attribute, "B", '"', &base64))
            parts[number] = base64;
    }
    for (size_t i = 0; i < head->chunks; i++)
        if (!parts[i].at)
            return false;
    return true;
}

/* Puts the chunks of a batch into one piece of memory. PERF_MISS: one is missing. */
static int join(const struct read *r, const struct dynamodb_item *head,
                const perf_dynamodb_batch *batch, perf_store_reply *reply)
{
    const perf_allocator *a = &r->store->allocator;
    struct perf__json parts[DYNAMODB_CHUNKS_MAX] = {{NULL, 0}};
    size_t used = 0;
    if (!sort_chunks(head, batch, parts))
        return PERF_MISS;
    uint8_t *all = perf__alloc(a, (size_t)head->packed_size);
    int rc = all ? PERF_OK : perf__fail_nomem("a record read from DynamoDB");
    for (size_t i = 0; !rc && i < head->chunks; i++) {
        uint8_t *data = NULL;
        size_t len = 0;
        rc = perf__dynamodb_bytes(a, parts[i], &data, &len);
        if (!rc && len > head->packed_size - used)
            rc = PERF_ECORRUPT;
        if (!rc && len)
            memcpy(all + used, data, len);
        used += len;
        perf__free(a, data);
    }
    if (!rc)
        rc = used == head->packed_size ? deliver(r, head, all, used, reply) : PERF_ECORRUPT;
    perf__free(a, all);
    return rc == PERF_ECORRUPT ? damaged(reply) : rc;
}

static int fetch_chunks(const struct read *r, const char *pk, const struct dynamodb_item *head,
                        bool consistent, perf_store_reply *reply)
{
    struct dynamodb_store *s = r->store;
    perf_dynamodb_batch_options options = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    perf_dynamodb_batch *batch = NULL;
    perf_bytes keys[DYNAMODB_CHUNKS_MAX];
    size_t ends[DYNAMODB_CHUNKS_MAX], from = 0, count = (size_t)head->chunks;
    struct perf__text t = {.allocator = &s->allocator};
    for (size_t i = 0; i < count; i++) {
        perf__dynamodb_put_chunk_key(&t, pk, head->version, i);
        ends[i] = t.len;
    }
    for (size_t i = 0; !t.failed && i < count; i++) {
        keys[i] = (perf_bytes){t.data + from, ends[i] - from};
        from = ends[i];
    }
    options.consistent = consistent;
    options.timeout_ms = perf__deadline_left(r->deadline_ns);
    int rc = t.failed ? perf__fail_nomem("the keys of a record's chunks")
             : !options.timeout_ms
                 ? perf__dynamodb_too_late(s)
                 : perf_dynamodb_batch_get(s->aws, s->table, keys, count, &options, &batch);
    perf__text_free(&t);
    perf__dynamodb_count(s, DYNAMODB_READS, (uint64_t)perf_dynamodb_batch_millicapacity(batch));
    if (!rc)
        rc = join(r, head, batch, reply);
    else
        rc = perf__dynamodb_failed(s, rc);
    perf_dynamodb_batch_release(batch);
    return rc;
}

/* ---------------------------------------------------------------------- get */

static int get_head(const struct read *r, const char *pk, bool consistent, perf_aws_reply **reply,
                    struct dynamodb_item *item)
{
    struct dynamodb_store *s = r->store;
    struct perf__text t = {.allocator = &s->allocator};
    struct perf__json all, found;
    perf__dynamodb_begin(&t, s);
    perf__text_puts(&t, ",\"Key\":");
    perf__dynamodb_put_key(&t, pk, "0");
    perf__text_puts(&t, consistent ? ",\"ConsistentRead\":true}" : "}");
    int rc = perf__dynamodb_call(s, "GetItem", &t, DYNAMODB_READS, r->deadline_ns, reply, &all);
    if (rc)
        return rc;
    memset(item, 0, sizeof *item);
    if (perf__json_find(all, "Item", '{', &found))
        perf__dynamodb_item_read(found, r->now_ms, item);
    return PERF_OK;
}

/* The chunks that a head names; when some are gone, those that the next head names. */
static int deliver_chunked(const struct read *r, const char *pk, struct dynamodb_item head,
                           perf_store_reply *reply)
{
    int rc = fetch_chunks(r, pk, &head, r->store->consistent, reply);
    if (rc != PERF_MISS)
        return rc;
    perf_aws_reply *answer = NULL;
    rc = get_head(r, pk, true, &answer, &head);
    if (!rc)
        rc = head.kind == ITEM_WHOLE     ? deliver_whole(r, &head, reply)
             : head.kind == ITEM_CHUNKED ? fetch_chunks(r, pk, &head, true, reply)
             : head.kind == ITEM_DAMAGED ? damaged(reply)
                                         : PERF_MISS;
    perf_aws_reply_release(answer);
    return rc;
}

static int deliver_item(const struct read *r, const char *pk, const struct dynamodb_item *item,
                        perf_store_reply *reply)
{
    switch (item->kind) {
    case ITEM_WHOLE:
        return deliver_whole(r, item, reply);
    case ITEM_CHUNKED:
        return deliver_chunked(r, pk, *item, reply);
    case ITEM_DAMAGED:
        return damaged(reply);
    default:
        return PERF_MISS;
    }
}

int perf__dynamodb_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct dynamodb_store *s = store;
    struct read r = begin(s);
    struct dynamodb_key pk;
    struct dynamodb_item item;
    perf_aws_reply *answer = NULL;
    perf__dynamodb_key(s, key, &pk);
    int rc = get_head(&r, pk.text, s->consistent, &answer, &item);
    if (!rc)
        rc = deliver_item(&r, pk.text, &item, reply);
    perf_aws_reply_release(answer);
    return rc;
}

/* ----------------------------------------------------------------- get_many */

/* The keys of a batch: texts in one arena, and an order in which equal ones are neighbours. */
struct wanted {
    struct perf__text texts; /* each with a zero byte */
    size_t *at;              /* where a key's text is, by its number */
    size_t *order;           /* numbers, sorted by text */
    size_t count;
};

static const char *text_of(const struct wanted *w, size_t number)
{
    return w->texts.data + w->at[number];
}

static int by_text(const void *a, const void *b, void *ctx)
{
    return strcmp(text_of(ctx, *(const size_t *)a), text_of(ctx, *(const size_t *)b));
}

static int want(struct dynamodb_store *s, const perf_store_key *keys, size_t count,
                struct wanted *w)
{
    struct dynamodb_key pk;
    w->texts.allocator = &s->allocator;
    w->at = perf__calloc(&s->allocator, count, sizeof *w->at);
    w->order = perf__calloc(&s->allocator, count, sizeof *w->order);
    w->count = count;
    for (size_t i = 0; w->at && w->order && i < count; i++) {
        perf__dynamodb_key(s, &keys[i], &pk);
        w->at[i] = w->texts.len;
        w->order[i] = i;
        perf__text_put(&w->texts, pk.text, pk.len + 1);
    }
    if (!w->at || !w->order || w->texts.failed)
        return perf__fail_nomem("a batch get");
    qsort_r(w->order, count, sizeof *w->order, by_text, w);
    return PERF_OK;
}

static void forget(struct dynamodb_store *s, struct wanted *w)
{
    perf__text_free(&w->texts);
    perf__free(&s->allocator, w->at);
    perf__free(&s->allocator, w->order);
}

/* The first place in the order with that text, or count. */
static size_t find(const struct wanted *w, const char *text)
{
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(text_of(w, w->order[middle]), text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->count && !strcmp(text_of(w, w->order[low]), text) ? low : w->count;
}

/* Each key once, for the service refuses a batch that asks twice. */
static int ask(const struct read *r, const struct wanted *w, perf_dynamodb_batch **batch)
{
    struct dynamodb_store *s = r->store;
    perf_dynamodb_batch_options options = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    struct perf__text t = {.allocator = &s->allocator};
    perf_bytes *keys = perf__calloc(&s->allocator, w->count, sizeof *keys);
    size_t n = 0;
    for (size_t i = 0; keys && i < w->count; i++) {
        const char *text = text_of(w, w->order[i]);
        if (i && !strcmp(text, text_of(w, w->order[i - 1])))
            continue;
        size_t from = t.len;
        perf__dynamodb_put_key(&t, text, "0");
        keys[n++].len = t.len - from;
    }
    const char *at = t.data;
    for (size_t i = 0; keys && !t.failed && i < n; i++) {
        keys[i].data = at;
        at += keys[i].len;
    }
    options.consistent = s->consistent;
    options.timeout_ms = s->timeout_ms;
    int rc = !keys || t.failed
                 ? perf__fail_nomem("a batch get")
                 : perf_dynamodb_batch_get(s->aws, s->table, keys, n, &options, batch);
    perf__dynamodb_count(s, DYNAMODB_READS, (uint64_t)perf_dynamodb_batch_millicapacity(*batch));
    perf__text_free(&t);
    perf__free(&s->allocator, keys);
    return rc ? perf__dynamodb_failed(s, rc) : PERF_OK;
}

int perf__dynamodb_get_many(void *store, const perf_store_key *keys, size_t count,
                            perf_store_reply *const *replies)
{
    struct dynamodb_store *s = store;
    struct read r = begin(s);
    struct wanted w = {0};
    perf_dynamodb_batch *batch = NULL;
    int rc = want(s, keys, count, &w);
    if (!rc)
        rc = ask(&r, &w, &batch);
    /* What came before a failure is as good as any. */
    for (size_t i = 0; i < perf_dynamodb_batch_count(batch); i++) {
        struct perf__json found;
        struct dynamodb_item item;
        char pk[DYNAMODB_KEY_MAX + 3];
        found.at = perf_dynamodb_batch_item(batch, i, &found.len);
        perf__dynamodb_item_key(found, "pk", pk, sizeof pk);
        perf__dynamodb_item_read(found, r.now_ms, &item);
        for (size_t at = find(&w, pk); at < count && !strcmp(text_of(&w, w.order[at]), pk); at++) {
            int one = deliver_item(&r, pk, &item, replies[w.order[at]]);
            if (one < 0 && !rc)
                rc = one;
        }
    }
    perf_dynamodb_batch_release(batch);
    forget(s, &w);
    return rc;
}

/* -------------------------------------------------------------------- marks */

/* The marks of a page. PERF_MISS: the listing was stopped. */
static int take_marks(const struct read *r, const perf_aws_reply *page, perf_store_mark_fn each,
                      void *ctx)
{
    struct dynamodb_store *s = r->store;
    struct perf__json all, list, item, capacity, units;
    size_t at = 0;
    int rc = perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(page),
                              perf_aws_reply_size(page), '{', &all);
    if (rc)
        return rc;
    if (perf__json_find(all, "ConsumedCapacity", '{', &capacity) &&
        perf__json_find(capacity, "CapacityUnits", 0, &units))
        perf__dynamodb_count(s, DYNAMODB_READS, (uint64_t)perf__json_thousandths(units));
    if (!perf__json_find(all, "Items", '[', &list))
        return PERF_OK;
    bool stopped = false;
    while (!rc && !stopped && perf__json_next(list, &at, NULL, &item)) {
        int64_t kind, stamp_ms;
        uint8_t *name = NULL;
        size_t len;
        rc =
            perf__dynamodb_mark_read(&s->allocator, item, r->now_ms, &kind, &name, &len, &stamp_ms);
        if (!rc && each(ctx, kind, (perf_bytes){name, len}, stamp_ms))
            stopped = true;
        perf__free(&s->allocator, name);
        rc = rc == PERF_MISS ? PERF_OK : rc; /* one that cannot be read */
    }
    if (!rc && stopped)
        rc = PERF_MISS;
    return rc;
}

int perf__dynamodb_marks(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    struct dynamodb_store *s = store;
    struct read r = begin(s);
    struct dynamodb_key pk;
    perf_aws_pages *pages = NULL;
    perf_aws_reply *page;
    struct perf__text t = {.allocator = &s->allocator};
    perf__dynamodb_marks_key(s, &pk);
    /* Copies by time lie behind all marks, for as long as DYNAMODB_NEWS_DAYS. */
    bool news = since_ms > 0 && since_ms > r.now_ms - (int64_t)DYNAMODB_NEWS_DAYS * 86400000 / 2;
    char sort[DYNAMODB_SORT_MAX + 1];
    perf__dynamodb_news_sort(news ? since_ms : 0, 0, (perf_bytes){"", 0}, sort);
    perf__dynamodb_begin(&t, s);
    perf__text_puts(&t, ",\"ConsistentRead\":true,\"KeyConditionExpression\":\"#p = :p AND #s ");
    perf__text_puts(&t, news ? ">= :s" : "< :s");
    perf__text_puts(&t, "\",\"ExpressionAttributeNames\":{\"#p\":\"pk\",\"#s\":\"sk\"},"
                        "\"ExpressionAttributeValues\":{\":p\":{\"S\":\"");
    perf__text_puts(&t, pk.text);
    perf__text_puts(&t, "\"},\":s\":{\"S\":\"");
    perf__text_puts(&t, sort);
    perf__text_puts(&t, "\"}}}");
    int rc = t.failed ? perf__fail_nomem("the request for marks")
                      : perf_aws_pages_open(s->aws, "Query", t.data, t.len, NULL, NULL, &pages);
    perf__text_free(&t);
    while (!rc) {
        int64_t left = perf__deadline_left(r.deadline_ns);
        rc = left ? perf_aws_pages_next(pages, left, &page) : perf__dynamodb_too_late(s);
        if (rc)
            break;
        rc = take_marks(&r, page, each, ctx);
        perf_aws_reply_release(page);
    }
    perf_aws_pages_close(pages);
    return rc == PERF_MISS ? PERF_OK : perf__dynamodb_failed(s, rc);
}
