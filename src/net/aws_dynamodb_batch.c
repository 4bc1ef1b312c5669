/* SPDX-License-Identifier: MIT */
/*
 * aws_dynamodb_batch.c - batches of any size: split, sent, and what the service
 * left out sent again until the time is over.
 *
 * What is to be done stands in a ring; a request takes its part from the front and
 * what it did not get done goes to the end. Items and left-overs are slices of the
 * replies, which are kept with the result. One thread at a time.
 */
#include <libperf/aws_dynamodb.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "aws_client.h"
#include "aws_json.h"

enum {
    GET_MAX = 100, /* the service's limits */
    WRITE_MAX = 25,
    REQUEST_BYTES = 15 << 20, /* of its 16 MiB */
    COUNT_MAX = 10000000,
    PAUSE_MS = 50, /* the longest first one; doubled each time */
    PAUSE_MAX_MS = 5000,
};

struct perf_dynamodb_batch {
    perf_allocator allocator;
    char *given;             /* a copy of the keys or requests */
    struct perf__json *ring; /* of them, or of what came back instead */
    size_t size, first, left;
    perf_aws_reply **replies;
    size_t reply_count, reply_cap;
    struct perf__json *items;
    size_t count, cap;
    int64_t requests, millicapacity;
};

/* What is the same for all requests of a batch. */
struct job {
    perf_aws *aws;
    perf_dynamodb_batch *batch;
    const char *table;
    bool write;
    perf_dynamodb_batch_options options;
    int64_t deadline_ns;
    int pauses; /* since the last request that went well */
};

static int check_table(const char *table)
{
    size_t len = table ? strnlen(table, 1025) : 0;
    int rc = perf__check_len("table", len, 1, 1024);
    for (size_t i = 0; !rc && i < len; i++)
        if (table[i] <= ' ' || table[i] > '~' || table[i] == '"' || table[i] == '\\')
            rc = perf__fail(PERF_EINVAL, "table has the byte 0x%02x; give a table's name or ARN",
                            (unsigned char)table[i]);
    return rc;
}

static int take_given(perf_dynamodb_batch *b, const perf_bytes *given, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (!given[i].data || given[i].len > REQUEST_BYTES)
            return perf__fail(PERF_EINVAL, "element %zu is NULL or longer than %d bytes", i,
                              REQUEST_BYTES);
        bytes += given[i].len;
    }
    b->given = perf__alloc(&b->allocator, bytes + 1);
    b->ring = perf__calloc(&b->allocator, count + 1, sizeof *b->ring);
    if (!b->given || !b->ring)
        return perf__fail_nomem("a batch");
    char *at = b->given;
    for (size_t i = 0; i < count; i++) {
        struct perf__json part;
        memcpy(at, given[i].data, given[i].len);
        if (perf__json_check(PERF_EINVAL, "an element of the batch", at, given[i].len, '{', &part))
            return perf__fail(PERF_EINVAL, "element %zu is no JSON object", i);
        b->ring[b->left++] = part;
        at += given[i].len;
    }
    b->size = count ? count : 1;
    return PERF_OK;
}

/* ------------------------------------------------------------------ request */

/* How many from the front make the next request. */
static size_t next_part(const struct job *j)
{
    const perf_dynamodb_batch *b = j->batch;
    size_t max = j->write ? WRITE_MAX : GET_MAX, n = 0, bytes = 0;
    while (n < max && n < b->left) {
        bytes += b->ring[(b->first + n) % b->size].len + 1;
        if (n && bytes > REQUEST_BYTES)
            break;
        n++;
    }
    return n;
}

static void write_request(const struct job *j, size_t n, struct perf__text *t)
{
    const perf_dynamodb_batch *b = j->batch;
    perf__text_puts(t, "{\"ReturnConsumedCapacity\":\"TOTAL\",\"RequestItems\":{\"");
    perf__text_puts(t, j->table);
    perf__text_puts(t, j->write ? "\":[" : "\":{\"Keys\":[");
    for (size_t i = 0; i < n; i++) {
        const struct perf__json *part = &b->ring[(b->first + i) % b->size];
        if (i)
            perf__text_puts(t, ",");
        perf__text_put(t, part->at, part->len);
    }
    perf__text_puts(t, "]");
    if (!j->write) {
        if (j->options.consistent)
            perf__text_puts(t, ",\"ConsistentRead\":true");
        if (j->options.projection) {
            perf__text_puts(t, ",\"ProjectionExpression\":");
            perf__text_put_json(t, j->options.projection, strlen(j->options.projection));
        }
        if (j->options.names) {
            perf__text_puts(t, ",\"ExpressionAttributeNames\":");
            perf__text_puts(t, j->options.names);
        }
        perf__text_puts(t, "}");
    }
    perf__text_puts(t, "}}");
}

/* -------------------------------------------------------------------- reply */

/* The array with room for need elements, or NULL; *cap is how many it has room for. */
static void *grow(const perf_allocator *a, void *array, size_t *cap, size_t need, size_t each)
{
    size_t wanted = *cap ? *cap : 8;
    if (need <= *cap)
        return array;
    while (wanted < need)
        wanted *= 2;
    void *bigger = perf__realloc(a, array, wanted * each);
    if (bigger)
        *cap = wanted;
    else
        perf__fail_nomem("the reply to a batch");
    return bigger;
}

static int too_much(void)
{
    return perf__fail(PERF_EPROTOCOL, "the reply to a batch has more than was asked for");
}

static void take_capacity(perf_dynamodb_batch *b, struct perf__json all)
{
    struct perf__json list, each, units;
    size_t at = 0;
    if (!perf__json_find(all, "ConsumedCapacity", '[', &list))
        return;
    while (perf__json_next(list, &at, NULL, &each))
        if (perf__json_find(each, "CapacityUnits", 0, &units))
            b->millicapacity += perf__json_thousandths(units);
}

static int take_items(perf_dynamodb_batch *b, struct perf__json all, size_t asked)
{
    struct perf__json tables, list, item;
    size_t at_table = 0, taken = 0;
    if (!perf__json_find(all, "Responses", '{', &tables))
        return PERF_OK;
    while (perf__json_next(tables, &at_table, NULL, &list)) {
        size_t at = 0;
        while (perf__json_next(list, &at, NULL, &item)) {
            if (++taken > asked)
                return too_much();
            struct perf__json *items =
                grow(&b->allocator, b->items, &b->cap, b->count + 1, sizeof *b->items);
            if (!items)
                return PERF_ENOMEM;
            b->items = items;
            b->items[b->count++] = item;
        }
    }
    return PERF_OK;
}

/* What was not done goes to the end of the ring, which lost as many at its front. */
static int take_left(perf_dynamodb_batch *b, struct perf__json all, bool write, size_t asked,
                     size_t *left)
{
    struct perf__json tables, list, part;
    size_t at_table = 0;
    *left = 0;
    if (!perf__json_find(all, write ? "UnprocessedItems" : "UnprocessedKeys", '{', &tables))
        return PERF_OK;
    while (perf__json_next(tables, &at_table, NULL, &list)) {
        size_t at = 0;
        if (!write && !perf__json_find(list, "Keys", '[', &list))
            continue;
        while (perf__json_next(list, &at, NULL, &part)) {
            if (*left == asked)
                return too_much();
            b->ring[(b->first + b->left) % b->size] = part;
            b->left++;
            ++*left;
        }
    }
    return PERF_OK;
}

/* Takes the reply. On an error the batch is as before, but for items that came twice then. */
static int take_reply(struct job *j, perf_aws_reply *reply, size_t asked, size_t *left)
{
    perf_dynamodb_batch *b = j->batch;
    struct perf__json all;
    size_t count = b->count, first = b->first, in_ring = b->left;
    perf_aws_reply **replies = grow(&b->allocator, b->replies, &b->reply_cap, b->reply_count + 1,
                                    sizeof(perf_aws_reply *));
    int rc = replies ? PERF_OK : PERF_ENOMEM;
    if (replies)
        b->replies = replies;
    if (!rc)
        rc = perf__json_check(PERF_EPROTOCOL, "the reply to a batch", perf_aws_reply_body(reply),
                              perf_aws_reply_size(reply), '{', &all);
    if (!rc && !j->write)
        rc = take_items(b, all, asked);
    if (!rc) { /* nothing fails from here on but a reply that lists too much */
        struct perf__json saved[GET_MAX];
        for (size_t i = 0; i < asked; i++)
            saved[i] = b->ring[(first + i) % b->size];
        b->first = (b->first + asked) % b->size;
        b->left -= asked;
        rc = take_left(b, all, j->write, asked, left);
        if (rc) {
            b->first = first;
            b->left = in_ring;
            for (size_t i = 0; i < asked; i++)
                b->ring[(first + i) % b->size] = saved[i];
        }
    }
    if (rc) {
        b->count = count;
        perf_aws_reply_release(reply);
        return rc;
    }
    take_capacity(b, all);
    if (b->count > count || *left)
        b->replies[b->reply_count++] = reply;
    else
        perf_aws_reply_release(reply);
    return PERF_OK;
}

/* --------------------------------------------------------------------- loop */

static int64_t left_ms(const struct job *j)
{
    int64_t left = j->deadline_ns - perf__now_ns(&j->aws->host.clock);
    return left > 0 ? (left + 999999) / 1000000 : 0;
}

/* PERF_ETHROTTLED: the time would be over then. */
static int pause_for_more(struct job *j)
{
    int64_t longest = j->pauses < 7 ? (int64_t)PAUSE_MS << j->pauses : PAUSE_MAX_MS;
    int64_t ms = (int64_t)(perf__thread_random() % (uint64_t)(longest + 1));
    j->pauses++;
    if (ms >= left_ms(j))
        return perf__fail(PERF_ETHROTTLED,
                          "dynamodb: %zu of the batch for table %.255s are left, and the time is "
                          "over; give it more time, or the table more capacity",
                          j->batch->left, j->table);
    return perf__aws_pause(j->aws, ms);
}

static int step(struct job *j)
{
    perf_dynamodb_batch *b = j->batch;
    struct perf__text t = {.allocator = &b->allocator};
    perf_aws_reply *reply = NULL;
    size_t n = next_part(j), left = 0;
    int64_t time = left_ms(j);
    if (time <= 0)
        return perf__fail(PERF_ETIMEDOUT,
                          "dynamodb: %zu of the batch for table %.255s are left, "
                          "and the time is over",
                          b->left, j->table);
    write_request(j, n, &t);
    int rc = t.failed ? perf__fail_nomem("a batch")
                      : perf_aws_call(j->aws, j->write ? "BatchWriteItem" : "BatchGetItem", t.data,
                                      t.len, time, &reply);
    perf__text_free(&t);
    b->requests++;
    if (rc == PERF_ETHROTTLED && left_ms(j) > 0)
        return pause_for_more(j);
    if (!rc)
        rc = take_reply(j, reply, n, &left);
    if (rc)
        return rc;
    if (left < n - n / 2) /* at least half of it: it flows */
        j->pauses = 0;
    return left ? pause_for_more(j) : PERF_OK;
}

static int run(perf_aws *aws, const char *what, bool write, const char *table,
               const perf_bytes *given, size_t count, const perf_dynamodb_batch_options *options,
               perf_dynamodb_batch **out)
{
    struct job j = {.aws = aws, .table = table, .write = write};
    if (out)
        *out = NULL;
    int rc = perf__aws_check_client(aws, what, "dynamodb", PERF_AWS_PROTOCOL_JSON);
    if (rc)
        return rc;
    if (!out || (!given && count))
        return perf__fail(PERF_EINVAL, "%s needs an array and a place for the result", what);
    rc = perf__options_take("perf_dynamodb_batch_options", options, &j.options, sizeof j.options);
    if (!rc)
        rc = check_table(table);
    if (!rc)
        rc = perf__check_range("count", count > COUNT_MAX ? INT64_MAX : (int64_t)count, 0,
                               COUNT_MAX);
    if (!rc)
        rc = perf__check_range("consistent", j.options.consistent, 0, 1);
    if (!rc)
        rc = perf__check_range("timeout_ms", j.options.timeout_ms, 0, INT64_MAX / 4000000);
    if (!rc && j.options.projection)
        rc = perf__check_utf8("projection", j.options.projection, strlen(j.options.projection));
    if (!rc && j.options.names) {
        struct perf__json names;
        rc = perf__json_check(PERF_EINVAL, "names", j.options.names, strlen(j.options.names), '{',
                              &names);
    }
    if (rc)
        return rc;
    perf_dynamodb_batch *b = perf__calloc(&aws->host.allocator, 1, sizeof *b);
    if (!b)
        return perf__fail_nomem("a batch");
    b->allocator = aws->host.allocator;
    j.batch = b;
    rc = take_given(b, given, count);
    if (rc) {
        perf_dynamodb_batch_release(b);
        return rc;
    }
    int64_t time = j.options.timeout_ms ? j.options.timeout_ms : aws->timeout_ms;
    int64_t inherited = perf_deadline_remaining_ms();
    if (inherited >= 0 && inherited < time)
        time = inherited;
    int64_t now = perf__now_ns(&aws->host.clock);
    j.deadline_ns = time > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + time * 1000000;
    while (!rc && b->left)
        rc = step(&j);
    *out = b;
    return rc;
}

int perf_dynamodb_batch_get(perf_aws *aws, const char *table, const perf_bytes *keys, size_t count,
                            const perf_dynamodb_batch_options *options, perf_dynamodb_batch **out)
{
    return run(aws, "perf_dynamodb_batch_get", false, table, keys, count, options, out);
}

int perf_dynamodb_batch_write(perf_aws *aws, const char *table, const perf_bytes *requests,
                              size_t count, const perf_dynamodb_batch_options *options,
                              perf_dynamodb_batch **out)
{
    return run(aws, "perf_dynamodb_batch_write", true, table, requests, count, options, out);
}

/* ------------------------------------------------------------------- result */

static const char *slice(const struct perf__json *s, size_t *len)
{
    if (len)
        *len = s ? s->len : 0;
    return s ? s->at : NULL;
}

size_t perf_dynamodb_batch_count(const perf_dynamodb_batch *b)
{
    return b ? b->count : 0;
}

const char *perf_dynamodb_batch_item(const perf_dynamodb_batch *b, size_t i, size_t *len)
{
    return slice(b && i < b->count ? &b->items[i] : NULL, len);
}

size_t perf_dynamodb_batch_left_count(const perf_dynamodb_batch *b)
{
    return b ? b->left : 0;
}

const char *perf_dynamodb_batch_left(const perf_dynamodb_batch *b, size_t i, size_t *len)
{
    return slice(b && i < b->left ? &b->ring[(b->first + i) % b->size] : NULL, len);
}

int64_t perf_dynamodb_batch_requests(const perf_dynamodb_batch *b)
{
    return b ? b->requests : 0;
}

int64_t perf_dynamodb_batch_millicapacity(const perf_dynamodb_batch *b)
{
    return b ? b->millicapacity : 0;
}

void perf_dynamodb_batch_release(perf_dynamodb_batch *b)
{
    if (!b)
        return;
    perf_allocator allocator = b->allocator;
    for (size_t i = 0; i < b->reply_count; i++)
        perf_aws_reply_release(b->replies[i]);
    perf__free(&allocator, b->replies);
    perf__free(&allocator, b->items);
    perf__free(&allocator, b->ring);
    perf__free(&allocator, b->given);
    perf__free(&allocator, b);
}
