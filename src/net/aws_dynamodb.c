/* SPDX-License-Identifier: MIT */
/*
 * aws_dynamodb.c - a table of bytes under keys.
 *
 * A version is a random number of the writer's choice. When a conditional write
 * is refused after more than one attempt, the refusal may be the echo of our own
 * first attempt, whose reply was lost: then the item has our version, and a read
 * tells. Any thread; a table does not change once it is open.
 */
#include <libperf/aws_dynamodb.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "aws_client.h"
#include "aws_json.h"

enum {
    ATTRIBUTE_MAX = 255,   /* of an attribute */
    ITEM_MAX = 400 * 1024, /* the service's limit, names and keys included */
    KEY_MAX = 2048,
    SORT_MAX = 1024,
};

struct perf_dynamodb_table {
    perf_aws *aws;
    perf_allocator allocator;
    char table[1025];
    char key[ATTRIBUTE_MAX + 1], sort[ATTRIBUTE_MAX + 1], value[ATTRIBUTE_MAX + 1],
        ttl[ATTRIBUTE_MAX + 1], version[ATTRIBUTE_MAX + 1]; /* "": none */
    bool binary, consistent;
    int64_t timeout_ms;
};

struct perf_dynamodb_value {
    perf_allocator allocator;
    uint64_t version, ends_s;
    size_t len;
    uint8_t data[];
};

/* A key as the caller gave it. */
struct key {
    const void *key, *sort;
    size_t key_len, sort_len;
};

/* ---------------------------------------------------------------- open, close */

static int copy_name(const char *field, const char *given, const char *otherwise, char *out,
                     size_t size)
{
    const char *text = given ? given : otherwise;
    if (!text)
        return PERF_OK;
    size_t len = strnlen(text, size);
    int rc = perf__check_len(field, len, 1, size - 1);
    for (size_t i = 0; !rc && i < len; i++)
        if (text[i] < ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\')
            rc = perf__fail(PERF_EINVAL,
                            "%s has the byte 0x%02x; printable ASCII but '\"' and '\\' is what it "
                            "may have",
                            field, (unsigned char)text[i]);
    if (!rc)
        memcpy(out, text, len + 1);
    return rc;
}

int perf_dynamodb_table_open(const perf_dynamodb_table_options *options, perf_dynamodb_table **out)
{
    perf_dynamodb_table_options o;
    int rc = perf__options_take("perf_dynamodb_table_options", options, &o, sizeof o);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "the place for the table is NULL");
    if (!rc)
        rc = perf__aws_check_client(o.aws, "perf_dynamodb_table_open", "dynamodb",
                                    PERF_AWS_PROTOCOL_JSON);
    if (rc)
        return rc;
    if (!o.table || !o.key_name)
        return perf__fail(PERF_EINVAL, "perf_dynamodb_table_options.table and .key_name are "
                                       "required");
    if ((rc = perf__check_range("key_type", o.key_type, 0, PERF_DYNAMODB_BINARY)) ||
        (rc = perf__check_range("consistent", o.consistent, 0, 1)) ||
        (rc = perf__check_range("timeout_ms", o.timeout_ms, 0, INT64_MAX / 4000000)))
        return rc;
    perf_dynamodb_table *t = perf__calloc(&o.aws->host.allocator, 1, sizeof *t);
    if (!t)
        return perf__fail_nomem("a table");
    t->aws = o.aws;
    t->allocator = o.aws->host.allocator;
    t->binary = o.key_type == PERF_DYNAMODB_BINARY;
    t->consistent = o.consistent;
    t->timeout_ms = o.timeout_ms;
    if ((rc = copy_name("table", o.table, NULL, t->table, sizeof t->table)) ||
        (rc = copy_name("key_name", o.key_name, NULL, t->key, sizeof t->key)) ||
        (rc = copy_name("sort_name", o.sort_name, NULL, t->sort, sizeof t->sort)) ||
        (rc = copy_name("value_name", o.value_name, "value", t->value, sizeof t->value)) ||
        (rc = copy_name("ttl_name", o.ttl_name, NULL, t->ttl, sizeof t->ttl)) ||
        (rc = copy_name("version_name", o.version_name, NULL, t->version, sizeof t->version))) {
        perf_dynamodb_table_close(t);
        return rc;
    }
    *out = t;
    return PERF_OK;
}

void perf_dynamodb_table_close(perf_dynamodb_table *t)
{
    if (!t)
        return;
    perf_allocator allocator = t->allocator;
    perf__free(&allocator, t);
}

/* -------------------------------------------------------------------- request */

static int check_call(const perf_dynamodb_table *t, const struct key *k)
{
    if (!t)
        return perf__fail(PERF_EINVAL, "the table is NULL");
    if (t->aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if ((!k->key && k->key_len) || (!k->sort && k->sort_len))
        return perf__fail(PERF_EINVAL, "a key is NULL and has a length");
    int rc = perf__check_len("key", k->key_len, 1, KEY_MAX);
    if (!rc)
        rc = *t->sort ? perf__check_len("sort", k->sort_len, 1, SORT_MAX)
                      : perf__check_len("sort", k->sort_len, 0, 0);
    if (!rc && !t->binary)
        rc = perf__check_utf8("key", k->key, k->key_len);
    if (!rc && !t->binary)
        rc = perf__check_utf8("sort", k->sort, k->sort_len);
    return rc;
}

static void put_part(const perf_dynamodb_table *t, struct perf__text *x, const char *name,
                     const void *data, size_t len)
{
    perf__text_putf(x, "\"%s\":{\"%c\":", name, t->binary ? 'B' : 'S');
    if (t->binary) {
        perf__text_puts(x, "\"");
        perf__text_put_base64(x, data, len);
        perf__text_puts(x, "\"}");
    } else {
        perf__text_put_json(x, data, len);
        perf__text_puts(x, "}");
    }
}

/* The key's attributes, without braces. */
static void put_key(const perf_dynamodb_table *t, struct perf__text *x, const struct key *k)
{
    put_part(t, x, t->key, k->key, k->key_len);
    if (*t->sort) {
        perf__text_puts(x, ",");
        put_part(t, x, t->sort, k->sort, k->sort_len);
    }
}

static void put_table(const perf_dynamodb_table *t, struct perf__text *x)
{
    perf__text_puts(x, "{\"TableName\":\"");
    perf__text_puts(x, t->table);
    perf__text_puts(x, "\"");
}

static int send(const perf_dynamodb_table *t, const char *operation, struct perf__text *x,
                perf_aws_reply **out)
{
    int rc = x->failed ? perf__fail_nomem("a request")
                       : perf_aws_call(t->aws, operation, x->data, x->len, t->timeout_ms, out);
    perf__text_free(x);
    return rc;
}

/* Seconds since 1970, by the service's clock as far as it is known. */
static int64_t now_s(const perf_dynamodb_table *t)
{
    return (perf__realtime_ms(&t->aws->host.clock) + atomic_load(&t->aws->skew_ms)) / 1000;
}

/* ------------------------------------------------------------------------ get */

static int corrupt(const perf_dynamodb_table *t, const char *attribute)
{
    return perf__fail(PERF_ECORRUPT, "dynamodb: an item of table %.255s has no %s that can be read",
                      t->table, attribute);
}

static bool read_number(struct perf__json item, const char *name, uint64_t *out)
{
    struct perf__json attribute, number;
    return perf__json_find(item, name, '{', &attribute) &&
           perf__json_find(attribute, "N", '"', &number) && perf__json_uint(number, out);
}

/* Has an attribute of that name at all. */
static bool has(struct perf__json item, const char *name)
{
    struct perf__json any;
    return *name && perf__json_find(item, name, 0, &any);
}

static int read_item(const perf_dynamodb_table *t, struct perf__json item,
                     perf_dynamodb_value **out)
{
    struct perf__json attribute, text;
    uint64_t ends = 0, version = 0;
    if (has(item, t->ttl) && !read_number(item, t->ttl, &ends))
        return corrupt(t, t->ttl);
    if (ends && ends <= (uint64_t)now_s(t))
        return PERF_MISS;
    if (has(item, t->version) && !read_number(item, t->version, &version))
        return corrupt(t, t->version);
    if (!perf__json_find(item, t->value, '{', &attribute) ||
        !perf__json_find(attribute, "B", '"', &text))
        return corrupt(t, t->value);
    perf_dynamodb_value *v = perf__alloc(&t->allocator, sizeof *v + text.len);
    if (!v)
        return perf__fail_nomem("a value");
    v->allocator = t->allocator;
    v->version = version;
    v->ends_s = ends;
    size_t len = perf__json_text(text, (char *)v->data);
    if (!perf__base64_read((const char *)v->data, len, v->data, &v->len)) {
        perf__free(&t->allocator, v);
        return corrupt(t, t->value);
    }
    *out = v;
    return PERF_OK;
}

static int get(const perf_dynamodb_table *t, const struct key *k, bool consistent,
               perf_dynamodb_value **out)
{
    struct perf__text x = {.allocator = &t->allocator};
    struct perf__json all, item;
    perf_aws_reply *reply = NULL;
    put_table(t, &x);
    perf__text_puts(&x, ",\"Key\":{");
    put_key(t, &x, k);
    perf__text_putf(&x, "},\"ConsistentRead\":%s", consistent ? "true" : "false");
    perf__text_puts(&x, ",\"ProjectionExpression\":\"#v");
    perf__text_puts(&x, *t->ttl ? ",#t" : "");
    perf__text_puts(&x, *t->version ? ",#n" : "");
    perf__text_putf(&x, "\",\"ExpressionAttributeNames\":{\"#v\":\"%s\"", t->value);
    if (*t->ttl)
        perf__text_putf(&x, ",\"#t\":\"%s\"", t->ttl);
    if (*t->version)
        perf__text_putf(&x, ",\"#n\":\"%s\"", t->version);
    perf__text_puts(&x, "}}");
    int rc = send(t, "GetItem", &x, &reply);
    if (rc)
        return rc;
    rc = perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(reply),
                          perf_aws_reply_size(reply), '{', &all);
    if (!rc)
        rc = perf__json_find(all, "Item", '{', &item) ? read_item(t, item, out) : PERF_MISS;
    perf_aws_reply_release(reply);
    return rc;
}

int perf_dynamodb_table_get(perf_dynamodb_table *t, const void *key, size_t key_len,
                            const void *sort, size_t sort_len, perf_dynamodb_value **out)
{
    struct key k = {key, sort, key_len, sort_len};
    if (!out)
        return perf__fail(PERF_EINVAL, "the place for the value is NULL");
    int rc = check_call(t, &k);
    return rc ? rc : get(t, &k, t->consistent, out);
}

/* ---------------------------------------------------------------- put, delete */

static int take_put_options(const perf_dynamodb_table *t, const perf_dynamodb_put_options *given,
                            perf_dynamodb_put_options *o)
{
    int rc = perf__options_take("perf_dynamodb_put_options", given, o, sizeof *o);
    if (!rc)
        rc = perf__check_range("ttl_s", o->ttl_s, 0, INT64_C(100000000000));
    if (!rc)
        rc = perf__check_range("condition", o->condition, 0, PERF_DYNAMODB_IF_VERSION);
    if (rc)
        return rc;
    if (o->ttl_s && !*t->ttl)
        return perf__fail(PERF_EINVAL, "ttl_s is given, and the table was opened without ttl_name");
    if (o->condition == PERF_DYNAMODB_IF_VERSION && !*t->version)
        return perf__fail(PERF_EINVAL, "condition is PERF_DYNAMODB_IF_VERSION, and the table was "
                                       "opened without version_name");
    return PERF_OK;
}

/* The condition and what its expression names, with the comma before it. */
static void put_condition(const perf_dynamodb_table *t, struct perf__text *x,
                          const perf_dynamodb_put_options *o)
{
    bool absent = o->condition == PERF_DYNAMODB_IF_ABSENT;
    bool names_ttl = *t->ttl;
    if (o->condition == PERF_DYNAMODB_ALWAYS)
        return;
    perf__text_puts(x, ",\"ConditionExpression\":\"");
    if (absent)
        perf__text_puts(x, names_ttl ? "attribute_not_exists(#k) OR #t <= :s"
                                     : "attribute_not_exists(#k)");
    else
        perf__text_puts(x, names_ttl ? "#n = :n AND (attribute_not_exists(#t) OR #t > :s)"
                                     : "#n = :n");
    perf__text_putf(x, "\",\"ExpressionAttributeNames\":{\"%s\":\"%s\"", absent ? "#k" : "#n",
                    absent ? t->key : t->version);
    if (names_ttl)
        perf__text_putf(x, ",\"#t\":\"%s\"", t->ttl);
    perf__text_puts(x, "}");
    if (absent && !names_ttl)
        return;
    perf__text_puts(x, ",\"ExpressionAttributeValues\":{");
    if (!absent)
        perf__text_putf(x, "\":n\":{\"N\":\"%lld\"}", (long long)o->version);
    if (names_ttl)
        perf__text_putf(x, "%s\":s\":{\"N\":\"%lld\"}", absent ? "" : ",", (long long)now_s(t));
    perf__text_puts(x, "}");
}

/* Was the write that was refused our own, sent twice? */
static bool is_ours(const perf_dynamodb_table *t, const struct key *k, uint64_t version)
{
    perf_dynamodb_value *now = NULL;
    if (get(t, k, true, &now))
        return false;
    bool ours = now->version == version;
    perf_dynamodb_value_release(now);
    return ours;
}

int perf_dynamodb_table_put(perf_dynamodb_table *t, const void *key, size_t key_len,
                            const void *sort, size_t sort_len, const void *value, size_t value_len,
                            const perf_dynamodb_put_options *options, int64_t *new_version)
{
    struct key k = {key, sort, key_len, sort_len};
    perf_dynamodb_put_options o;
    perf_aws_reply *reply = NULL;
    int rc = check_call(t, &k);
    if (!rc)
        rc = take_put_options(t, options, &o);
    if (rc)
        return rc;
    if (!value && value_len)
        return perf__fail(PERF_EINVAL, "value is NULL and has a length");
    if (value_len > ITEM_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "the value has %zu bytes, and an item of DynamoDB at most "
                          "%d; compress or split it",
                          value_len, ITEM_MAX);
    uint64_t version = *t->version ? (perf__hash_random_key().k0 >> 2) | 1 : 0;
    struct perf__text x = {.allocator = &t->allocator};
    put_table(t, &x);
    perf__text_puts(&x, ",\"Item\":{");
    put_key(t, &x, &k);
    perf__text_putf(&x, ",\"%s\":{\"B\":\"", t->value);
    perf__text_put_base64(&x, value, value_len);
    perf__text_puts(&x, "\"}");
    if (o.ttl_s)
        perf__text_putf(&x, ",\"%s\":{\"N\":\"%" PRId64 "\"}", t->ttl, now_s(t) + o.ttl_s);
    if (version)
        perf__text_putf(&x, ",\"%s\":{\"N\":\"%llu\"}", t->version, (unsigned long long)version);
    perf__text_puts(&x, "}");
    put_condition(t, &x, &o);
    perf__text_puts(&x, "}");
    rc = send(t, "PutItem", &x, &reply);
    perf_aws_reply_release(reply);
    if (rc == PERF_ECONFLICT && version && perf__aws_error_attempts() > 1) {
        if (is_ours(t, &k, version))
            rc = PERF_OK;
        else
            perf__fail(rc, "dynamodb PutItem: the condition does not hold (asked again)");
    }
    if (!rc && new_version)
        *new_version = (int64_t)version;
    return rc;
}

int perf_dynamodb_table_delete(perf_dynamodb_table *t, const void *key, size_t key_len,
                               const void *sort, size_t sort_len,
                               const perf_dynamodb_put_options *options)
{
    struct key k = {key, sort, key_len, sort_len};
    perf_dynamodb_put_options o;
    perf_aws_reply *reply = NULL;
    int rc = check_call(t, &k);
    if (!rc)
        rc = take_put_options(t, options, &o);
    if (rc)
        return rc;
    if (o.condition == PERF_DYNAMODB_IF_ABSENT)
        return perf__fail(PERF_EINVAL, "PERF_DYNAMODB_IF_ABSENT makes no sense of a delete");
    struct perf__text x = {.allocator = &t->allocator};
    put_table(t, &x);
    perf__text_puts(&x, ",\"Key\":{");
    put_key(t, &x, &k);
    perf__text_puts(&x, "}");
    put_condition(t, &x, &o);
    perf__text_puts(&x, "}");
    rc = send(t, "DeleteItem", &x, &reply);
    perf_aws_reply_release(reply);
    return rc;
}

/* ---------------------------------------------------------------------- value */

const void *perf_dynamodb_value_data(const perf_dynamodb_value *v)
{
    return v ? v->data : NULL;
}

size_t perf_dynamodb_value_size(const perf_dynamodb_value *v)
{
    return v ? v->len : 0;
}

int64_t perf_dynamodb_value_version(const perf_dynamodb_value *v)
{
    return v ? (int64_t)v->version : 0;
}

int64_t perf_dynamodb_value_ends_s(const perf_dynamodb_value *v)
{
    return v ? (int64_t)v->ends_s : 0;
}

void perf_dynamodb_value_release(perf_dynamodb_value *v)
{
    if (!v)
        return;
    perf_allocator allocator = v->allocator;
    perf__free(&allocator, v);
}
