/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_walk.c - indexes read in order, several of them as one, and the
 * records that they name.
 *
 * An index answers late: an entry may name a task that is somewhere else by now, and
 * one that has just come may not be there yet. So an entry is only a hint; whoever acts
 * reads the record itself, which is always up to date. One thread at a time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libperf/aws_dynamodb.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "queue_dynamodb.h"

/* ------------------------------------------------------------------------ walks */

static const struct {
    const char *name, *hash, *range;
} indexes[] = {
    {"by_lane", "lane", "rank"}, {"by_state", "state", "place"}, {"by_user", "user", "seq"}};

int perf__queue_dynamodb_walk_add(struct walk *w, const char *index, const char *kind,
                                  const char *name, const char *low, const char *high)
{
    const perf_allocator *a = &w->q->allocator;
    if (w->count == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 8;
        struct source *grown = perf__realloc(a, w->sources, cap * sizeof *grown);
        if (!grown)
            return perf__fail_nomem("a list of tasks");
        w->sources = grown;
        w->cap = cap;
    }
    struct source *s = &w->sources[w->count];
    *s = (struct source){.index = index, .more = true};
    size_t size = strlen(w->q->prefix) + strlen(kind) + strlen(name) + 1;
    s->hash = perf__alloc(a, size);
    s->page = perf__calloc(a, w->page, sizeof *s->page);
    w->count++;
    if (!s->hash || !s->page)
        return perf__fail_nomem("a list of tasks");
    snprintf(s->hash, size, "%s%s%s", w->q->prefix, kind, name);
    snprintf(s->low, sizeof s->low, "%s", low);
    snprintf(s->high, sizeof s->high, "%s", high);
    return PERF_OK;
}

void perf__queue_dynamodb_walk_free(struct walk *w)
{
    for (size_t i = 0; i < w->count; i++) {
        perf__free(&w->q->allocator, w->sources[i].hash);
        perf__free(&w->q->allocator, w->sources[i].page);
    }
    perf__free(&w->q->allocator, w->sources);
    *w = (struct walk){.q = w->q};
}

static size_t index_of(const struct source *s)
{
    size_t i = 0;
    while (strcmp(indexes[i].name, s->index) != 0)
        i++;
    return i;
}

static void put_query(struct perf__text *t, const struct walk *w, const struct source *s)
{
    size_t i = index_of(s);
    perf__text_putf(t,
                    "{\"TableName\":\"%s\",\"IndexName\":\"%s\",\"Limit\":%zu,"
                    "\"ScanIndexForward\":%s,\"KeyConditionExpression\":\"#h = :h AND #r BETWEEN "
                    ":l AND :u\",\"ExpressionAttributeNames\":{\"#h\":\"%s\",\"#r\":\"%s\"},"
                    "\"ExpressionAttributeValues\":{",
                    w->q->tasks, s->index, w->page, w->backward ? "false" : "true", indexes[i].hash,
                    indexes[i].range);
    perf__queue_dynamodb_put_s(t, ":h", s->hash);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":l", s->low);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":u", s->high);
    perf__text_puts(t, "}}");
}

/* What follows the last key begins behind it: keys of one index have one length. */
static void go_behind(struct source *s, bool backward, const char *last)
{
    size_t len = strlen(last);
    if (!backward) {
        snprintf(s->low, sizeof s->low, "%s!", last);
    } else if (len && len + 2 < sizeof s->high) {
        memcpy(s->high, last, len + 1);
        s->high[len - 1]--;
        memcpy(s->high + len, "~", 2);
    }
}

static int take_page(const struct walk *w, struct source *s, struct perf__json all)
{
    struct perf__json items, item, more;
    size_t at = 0;
    char pk[PK_SIZE], key[128] = "";
    const char *range = indexes[index_of(s)].range;
    s->count = s->at = 0;
    if (!perf__json_find(all, "Items", '[', &items))
        return perf__fail(PERF_EPROTOCOL, "DynamoDB answered a Query without Items");
    while (s->count < w->page && perf__json_next(items, &at, NULL, &item)) {
        if (!perf__queue_dynamodb_text(item, "pk", pk, sizeof pk) ||
            !perf__queue_dynamodb_text(item, range, key, sizeof key))
            continue; /* no key of ours is so long */
        const char *id = strrchr(pk, '|');
        size_t keep = w->backward ? 16 : 32, len = strlen(key);
        if (!id || strlen(id + 1) >= ID_SIZE || len < keep)
            continue;
        struct entry *e = &s->page[s->count++];
        snprintf(e->id, sizeof e->id, "%s", id + 1);
        snprintf(e->key, sizeof e->key, "%.35s", key + len - keep);
    }
    s->more = perf__json_find(all, "LastEvaluatedKey", '{', &more);
    if (s->more && !perf__queue_dynamodb_text(more, range, key, sizeof key))
        s->more = false;
    if (s->more)
        go_behind(s, w->backward, key);
    return PERF_OK;
}

/* All sources that have nothing, at once. */
static int fill(struct walk *w)
{
    const perf_allocator *a = &w->q->allocator;
    size_t n = 0, done = 0;
    for (size_t i = 0; i < w->count; i++)
        n += w->sources[i].at == w->sources[i].count && w->sources[i].more;
    if (!n)
        return PERF_OK;
    struct perf__aws_flown *r = perf__calloc(a, n, sizeof *r);
    if (!r)
        return perf__fail_nomem("a list of tasks");
    for (size_t i = 0; i < w->count; i++) {
        if (w->sources[i].at != w->sources[i].count || !w->sources[i].more)
            continue;
        r[done].operation = "Query";
        r[done].body.allocator = a;
        put_query(&r[done++].body, w, &w->sources[i]);
    }
    int rc = perf__queue_dynamodb_fly(w->q, r, n, w->deadline_ns);
    done = 0;
    for (size_t i = 0; i < w->count && !rc; i++) {
        if (w->sources[i].at != w->sources[i].count || !w->sources[i].more)
            continue;
        rc = r[done].rc ? perf__queue_dynamodb_say(&r[done])
                        : take_page(w, &w->sources[i], r[done].all);
        done++;
    }
    perf__aws_flown_free(a, r, n);
    return rc;
}

int perf__queue_dynamodb_walk_next(struct walk *w, const struct entry **out)
{
    struct source *first = NULL;
    bool dry = true;
    *out = NULL;
    /* A page may be empty though there are more. */
    for (int tries = 0; dry && tries < 1000; tries++) {
        dry = false;
        for (size_t i = 0; i < w->count; i++)
            dry = dry || (w->sources[i].at == w->sources[i].count && w->sources[i].more);
        int rc = dry ? fill(w) : PERF_OK;
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < w->count; i++) {
        struct source *s = &w->sources[i];
        if (s->at == s->count)
            continue;
        int order = first ? strcmp(s->page[s->at].key, first->page[first->at].key) : 0;
        if (!first || (w->backward ? order > 0 : order < 0))
            first = s;
    }
    if (first)
        *out = &first->page[first->at++];
    return PERF_OK;
}

/* ---------------------------------------------------------------------- records */

int perf__queue_dynamodb_read_one(struct dynamodb_queue *q, const char *id, int64_t deadline_ns,
                                  struct record *r)
{
    struct perf__text t = {.allocator = &q->allocator};
    struct perf__json all, item;
    perf_aws_reply *reply;
    *r = (struct record){.arena = NULL};
    perf__queue_dynamodb_put_key(&t, q, true, "t|", id, "0");
    perf__text_puts(&t, ",\"ConsistentRead\":true}");
    int rc = perf__queue_dynamodb_call(q, "GetItem", &t, deadline_ns, &reply, &all);
    if (rc)
        return rc;
    rc = perf__json_find(all, "Item", '{', &item) ? perf__queue_dynamodb_read(q, item, r)
                                                  : PERF_MISS;
    perf_aws_reply_release(reply);
    return rc;
}

/* Where an item goes: to the entry of its id. */
static void place(struct dynamodb_queue *q, struct perf__json item, const struct entry *entries,
                  size_t count, struct record *records, int *failed)
{
    struct record r;
    int rc = perf__queue_dynamodb_read(q, item, &r);
    if (rc) {
        *failed = rc;
        perf__queue_dynamodb_record_free(q, &r);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!records[i].t.id && !strcmp(entries[i].id, r.t.id)) {
            records[i] = r;
            return;
        }
    perf__queue_dynamodb_record_free(q, &r);
}

/* No key may be asked for twice. */
static bool is_first(const struct entry *entries, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!strcmp(entries[j].id, entries[i].id))
            return false;
    return true;
}

int perf__queue_dynamodb_read_many(struct dynamodb_queue *q, const struct entry *entries,
                                   size_t count, bool looks, int64_t deadline_ns,
                                   struct record *records, int *failed)
{
    static const char names[] =
        "{\"#a\":\"queue\",\"#b\":\"kind\",\"#c\":\"version\",\"#d\":\"batch\",\"#e\":\"owner\","
        "\"#f\":\"priority\",\"#g\":\"order\",\"#h\":\"created\",\"#i\":\"due\",\"#j\":"
        "\"deadline\",\"#k\":\"keep\",\"#l\":\"max\",\"#m\":\"timeout\",\"#n\":\"unique\",\"#o\":"
        "\"unique_until\",\"#p\":\"limit_key\",\"#q\":\"limit\",\"#r\":\"after\",\"#s\":\"any\","
        "\"#t\":\"st\",\"#u\":\"attempts\",\"#v\":\"token\",\"#w\":\"lease\",\"#x\":\"started\","
        "\"#y\":\"ended\",\"#z\":\"worker\",\"#A\":\"status\",\"#B\":\"error\",\"#C\":\"waited\","
        "\"#D\":\"folded\",\"#E\":\"kept\",\"#F\":\"progress\",\"#G\":\"pk\",\"#H\":\"seq\"}";
    static const char projection[] =
        "#a,#b,#c,#d,#e,#f,#g,#h,#i,#j,#k,#l,#m,#n,#o,#p,#q,#r,#s,#t,#u,#v,#w,#x,#y,#z,#A,#B,#C,"
        "#D,#E,#F,#G,#H";
    struct perf__text t = {.allocator = &q->allocator};
    perf_dynamodb_batch_options options = PERF_DYNAMODB_BATCH_OPTIONS_INIT;
    perf_dynamodb_batch *batch = NULL;
    perf_bytes keys[READ_MAX];
    size_t ends[READ_MAX], n = 0;
    memset(records, 0, count * sizeof *records);
    for (size_t i = 0; i < count; i++) {
        if (!is_first(entries, i))
            continue;
        perf__text_puts(&t, "{");
        perf__queue_dynamodb_put_pk(&t, q, "t|", entries[i].id);
        perf__text_puts(&t, ",\"sk\":{\"S\":\"0\"}}");
        ends[n++] = t.len;
    }
    options.consistent = 1;
    options.timeout_ms = perf__deadline_left(deadline_ns);
    options.projection = looks ? projection : NULL;
    options.names = looks ? names : NULL;
    int rc = t.failed ? perf__fail_nomem("a list of tasks")
             : !options.timeout_ms
                 ? perf__fail(PERF_ETIMEDOUT, "dynamodb queue: not done within %lld ms",
                              (long long)q->timeout_ms)
                 : PERF_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        size_t from = i ? ends[i - 1] : 0;
        keys[i] = (perf_bytes){t.data + from, ends[i] - from};
    }
    if (!rc && n)
        rc = perf_dynamodb_batch_get(q->aws, q->tasks, keys, n, &options, &batch);
    perf__text_free(&t);
    for (size_t i = 0; !rc && i < perf_dynamodb_batch_count(batch); i++) {
        struct perf__json item;
        item.at = perf_dynamodb_batch_item(batch, i, &item.len);
        place(q, item, entries, count, records, failed);
    }
    perf_dynamodb_batch_release(batch);
    return rc;
}
