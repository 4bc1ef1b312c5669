/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_lease.c - the right to make a record, as two attributes of its item.
 *
 * They lie in the item because every write replaces the whole item: so a write ends
 * the lease in the same act, without a second request. A record that is not there
 * yet gets an item with the lease alone, which no read takes for a record and which
 * the service deletes later.
 *
 * A token is the time and some random bits: it grows from lease to lease (one that
 * has ended began before now), and it is known before it is sent, so that a request
 * whose reply was lost recognises its own work when it is sent again. Any thread.
 */
#include <inttypes.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "dynamodb.h"

enum { RANDOM_BITS = 21, KEPT_S = 3600 };

/* Greater than those before it in this process, and as far as clocks agree in all. */
static uint64_t new_token(struct dynamodb_store *s, int64_t now_ms)
{
    uint64_t random = perf__hash_random_key().k0 & (((uint64_t)1 << RANDOM_BITS) - 1);
    uint64_t token = ((uint64_t)(now_ms > 0 ? now_ms : 0) << RANDOM_BITS | random) + 1;
    uint64_t last = atomic_load(&s->last_token);
    do {
        if (token <= last)
            token = last + 1;
    } while (!atomic_compare_exchange_weak(&s->last_token, &last, token));
    return token;
}

void perf__dynamodb_put_held(struct perf__text *t, uint64_t token, int64_t now_ms)
{
    perf__text_putf(t,
                    ",\"ConditionExpression\":\"#l = :l AND #u > :n\",\"ExpressionAttributeNames\":"
                    "{\"#l\":\"lease\",\"#u\":\"lease_until\"},\"ExpressionAttributeValues\":"
                    "{\":l\":{\"N\":\"%" PRIu64 "\"},\":n\":{\"N\":\"%" PRId64 "\"}}",
                    token, now_ms);
}

static void put_key_of(struct perf__text *t, const struct dynamodb_store *s,
                       const perf_store_key *key)
{
    struct dynamodb_key pk;
    perf__dynamodb_key(s, key, &pk);
    perf__dynamodb_begin(t, s);
    perf__text_puts(t, ",\"Key\":");
    perf__dynamodb_put_key(t, pk.text, "0");
}

static int check_ttl(int64_t ttl_ms)
{
    return ttl_ms > 0 && ttl_ms <= INT64_C(86400000)
               ? PERF_OK
               : perf__fail(PERF_EINVAL, "a lease's ttl_ms is %lld; give 1 to 86400000",
                            (long long)ttl_ms);
}

/* The request that takes a lease, under a token that is made here, or renews that of *token. */
static void put_lease(struct perf__text *t, struct dynamodb_store *s, const perf_store_key *key,
                      int64_t ttl_ms, uint64_t *token)
{
    int64_t now_ms = perf__realtime_ms(&s->clock);
    bool renews = *token != 0;
    if (!renews)
        *token = new_token(s, now_ms);
    put_key_of(t, s, key);
    perf__text_puts(t,
                    ",\"UpdateExpression\":\"SET #l = :l, #u = :u, #x = if_not_exists(#x, :x)\",");
    perf__text_puts(t, renews ? "\"ConditionExpression\":\"#l = :l AND #u > :n\","
                              : "\"ConditionExpression\":\"attribute_not_exists(#l) OR #u <= :n OR "
                                "#l = :l\",");
    perf__text_puts(t, "\"ExpressionAttributeNames\":{\"#l\":\"lease\",\"#u\":\"lease_until\","
                       "\"#x\":\"expires\"},");
    perf__text_putf(t,
                    "\"ExpressionAttributeValues\":{\":l\":{\"N\":\"%" PRIu64
                    "\"},\":u\":{\"N\":\"%" PRId64 "\"},\":n\":{\"N\":\"%" PRId64
                    "\"},\":x\":{\"N\":\"%" PRId64 "\"}}}",
                    *token, now_ms + ttl_ms, now_ms, (now_ms + ttl_ms) / 1000 + KEPT_S);
}

int perf__dynamodb_lease(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token)
{
    struct dynamodb_store *s = store;
    struct perf__text t = {.allocator = &s->allocator};
    struct perf__json all;
    perf_aws_reply *reply = NULL;
    uint64_t own = *token;
    int rc = check_ttl(ttl_ms);
    if (rc)
        return rc;
    put_lease(&t, s, key, ttl_ms, &own);
    rc = perf__dynamodb_call(s, "UpdateItem", &t, DYNAMODB_WRITES,
                             perf__deadline_after(s->timeout_ms), &reply, &all);
    perf_aws_reply_release(reply);
    if (rc == PERF_ECONFLICT)
        return perf__fail(PERF_EBUSY, "dynamodb tier %.255s: somebody else has the lease",
                          s->table);
    if (!rc)
        *token = own;
    return rc;
}

int perf__dynamodb_lease_many(void *store, const perf_store_key *keys, size_t count, int64_t ttl_ms,
                              uint64_t *tokens)
{
    struct dynamodb_store *s = store;
    int rc = check_ttl(ttl_ms);
    if (rc)
        return rc;
    struct perf__aws_flown *requests = perf__calloc(&s->allocator, count, sizeof *requests);
    if (!requests)
        return perf__fail_nomem("leases in DynamoDB");
    for (size_t i = 0; i < count; i++) {
        requests[i].body.allocator = &s->allocator;
        put_lease(&requests[i].body, s, &keys[i], ttl_ms, &tokens[i]);
    }
    rc = perf__dynamodb_call_all(s, "UpdateItem", requests, count, DYNAMODB_WRITES,
                                 perf__deadline_after(s->timeout_ms));
    for (size_t i = 0; i < count; i++)
        if (requests[i].rc)
            tokens[i] = 0; /* somebody else's, or who knows */
    perf__aws_flown_free(&s->allocator, requests, count);
    return rc;
}

int perf__dynamodb_unlease(void *store, const perf_store_key *key, uint64_t token)
{
    struct dynamodb_store *s = store;
    struct perf__text t = {.allocator = &s->allocator};
    struct perf__json all;
    perf_aws_reply *reply = NULL;
    put_key_of(&t, s, key);
    perf__text_putf(&t,
                    ",\"UpdateExpression\":\"REMOVE #l, #u\",\"ConditionExpression\":\"#l = :l\","
                    "\"ExpressionAttributeNames\":{\"#l\":\"lease\",\"#u\":\"lease_until\"},"
                    "\"ExpressionAttributeValues\":{\":l\":{\"N\":\"%" PRIu64 "\"}}}",
                    token);
    int rc = perf__dynamodb_call(s, "UpdateItem", &t, DYNAMODB_WRITES,
                                 perf__deadline_after(s->timeout_ms), &reply, &all);
    perf_aws_reply_release(reply);
    return rc == PERF_ECONFLICT ? PERF_OK : rc; /* not held any more */
}
