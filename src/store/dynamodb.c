/* SPDX-License-Identifier: MIT */
/*
 * dynamodb.c - the DynamoDB backend: records in a table that many processes share.
 *
 * Nothing is kept here but what the service was last heard to say about its size.
 * Every call is one or a few requests by a client that is pooled, signs and tries
 * again, all within timeout_ms. The service deletes what is over, hours late; reads
 * do not wait for that. Any thread.
 */
#include "dynamodb.h"

#include "../base/status.h"
#include "../base/sync.h"
#include "registry.h"

/* The service counts its items every six hours or so: asking more often says nothing new. */
static const int64_t ask_again_ms = 300000;

static void take_number(struct perf__json table, const char *name, uint64_t *out)
{
    struct perf__json value;
    if (perf__json_find(table, name, 0, &value))
        perf__json_uint(value, out);
}

static int ask_size(struct dynamodb_store *s, uint64_t *records, uint64_t *bytes)
{
    struct perf__text t = {.allocator = &s->allocator};
    struct perf__json all, table;
    perf_aws_reply *reply = NULL;
    perf__text_puts(&t, "{\"TableName\":\"");
    perf__text_puts(&t, s->table);
    perf__text_puts(&t, "\"}");
    int rc = perf__dynamodb_call(s, "DescribeTable", &t, DYNAMODB_READS,
                                 perf__deadline_after(s->timeout_ms), &reply, &all);
    if (!rc && perf__json_find(all, "Table", '{', &table)) {
        take_number(table, "ItemCount", records);
        take_number(table, "TableSizeBytes", bytes);
    }
    perf_aws_reply_release(reply);
    return rc;
}

/* Whoever finds the figures old asks; others get the old ones meanwhile. */
static int dynamodb_usage(void *store, perf_store_usage *usage)
{
    struct dynamodb_store *s = store;
    int rc = PERF_OK;
    pthread_mutex_lock(&s->mutex);
    uint64_t records = s->records, bytes = s->bytes;
    bool asks = !s->asked_again_ns || !perf__deadline_left(s->asked_again_ns);
    if (asks)
        s->asked_again_ns = perf__deadline_after(ask_again_ms);
    pthread_mutex_unlock(&s->mutex);
    if (asks) {
        rc = ask_size(s, &records, &bytes);
        pthread_mutex_lock(&s->mutex);
        s->records = records;
        s->bytes = bytes;
        pthread_mutex_unlock(&s->mutex);
    }
    usage->records = records;
    usage->bytes = bytes;
    usage->read_units_milli = atomic_load_explicit(&s->read_units, memory_order_relaxed);
    usage->write_units_milli = atomic_load_explicit(&s->write_units, memory_order_relaxed);
    return rc;
}

const perf_store_vtable perf__store_dynamodb = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "dynamodb",
    .capabilities = PERF_STORE_DURABLE | PERF_STORE_SHARED | PERF_STORE_PARTIAL |
                    PERF_STORE_LEASES | PERF_STORE_REMOTE,
    .open = perf__dynamodb_open,
    .close = perf__dynamodb_close,
    .get = perf__dynamodb_get,
    .get_many = perf__dynamodb_get_many,
    .apply = perf__dynamodb_apply,
    .marks = perf__dynamodb_marks,
    .usage = dynamodb_usage,
    .lease = perf__dynamodb_lease,
    .unlease = perf__dynamodb_unlease,
    .lease_many = perf__dynamodb_lease_many,
};
