/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_call.c - the calls of the DynamoDB backend: within their time, counted,
 * and failing with a sentence that helps.
 *
 * Requests that do not depend on each other go out together, a few at a time
 * (aws_flight.h). Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "dynamodb.h"

enum {
    UNDER_WAY = 8,        /* of one flight, at any time */
    LEAST_REFUSED = 1000, /* a refused condition consumes, too, and does not say how much */
};

int perf__dynamodb_too_late(const struct dynamodb_store *s)
{
    return perf__fail(PERF_ETIMEDOUT,
                      "dynamodb tier %.255s: not done within timeout_ms (%lld); give it more time",
                      s->table, (long long)s->timeout_ms);
}

void perf__dynamodb_count(struct dynamodb_store *s, int units, uint64_t thousandths)
{
    atomic_fetch_add_explicit(units == DYNAMODB_READS ? &s->read_units : &s->write_units,
                              thousandths, memory_order_relaxed);
}

void perf__dynamodb_begin(struct perf__text *t, const struct dynamodb_store *s)
{
    perf__text_puts(t, "{\"TableName\":\"");
    perf__text_puts(t, s->table);
    perf__text_puts(t, "\",\"ReturnConsumedCapacity\":\"TOTAL\"");
}

/* ------------------------------------------------------------------ results */

/* code: AWS's own, of the call that failed with rc; its sentence is this thread's. */
static int failed(const struct dynamodb_store *s, int rc, const char *code)
{
    if (rc == PERF_EREMOTE && !strcmp(code, "ResourceNotFoundException"))
        return perf__fail(rc,
                          "dynamodb tier: there is no table %.255s in %s at %.200s; create it with "
                          "perf_aws_tables_ensure(), or name another in perf_tier_options.location "
                          "or CACHE_TABLE_NAME",
                          s->table, perf_aws_region(s->aws), perf_aws_endpoint(s->aws));
    /* Somebody's transaction has the item: for another time, and not an answer. */
    if (rc == PERF_ECONFLICT && strcmp(code, "ConditionalCheckFailedException") != 0) {
        char why[320];
        snprintf(why, sizeof why, "%s", perf_last_error());
        return perf__fail(PERF_EUNAVAILABLE, "%s", why);
    }
    return rc;
}

int perf__dynamodb_failed(const struct dynamodb_store *s, int rc)
{
    return failed(s, rc, perf_aws_error_code());
}

/* What became of a call: the reply is checked, and what it consumed counted. */
static int judge(struct dynamodb_store *s, int rc, const char *code, int units,
                 perf_aws_reply **reply, struct perf__json *all)
{
    struct perf__json capacity, each, number;
    size_t at = 0;
    if (rc)
        rc = failed(s, rc, code);
    if (rc == PERF_ECONFLICT)
        perf__dynamodb_count(s, units, LEAST_REFUSED);
    if (rc)
        return rc;
    rc = perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(*reply),
                          perf_aws_reply_size(*reply), '{', all);
    if (rc) {
        perf_aws_reply_release(*reply);
        *reply = NULL;
        return rc;
    }
    if (!perf__json_find(*all, "ConsumedCapacity", 0, &capacity))
        return PERF_OK;
    if (perf__json_find(capacity, "CapacityUnits", 0, &number))
        perf__dynamodb_count(s, units, (uint64_t)perf__json_thousandths(number));
    while (capacity.at[0] == '[' && perf__json_next(capacity, &at, NULL, &each)) /* of a batch */
        if (perf__json_find(each, "CapacityUnits", 0, &number))
            perf__dynamodb_count(s, units, (uint64_t)perf__json_thousandths(number));
    return PERF_OK;
}

/* ---------------------------------------------------------------------- one */

int perf__dynamodb_call(struct dynamodb_store *s, const char *operation, struct perf__text *body,
                        int units, int64_t deadline_ns, perf_aws_reply **out,
                        struct perf__json *all)
{
    int64_t left = perf__deadline_left(deadline_ns);
    int rc = PERF_OK;
    *out = NULL;
    if (body->failed)
        rc = perf__fail_nomem("a request to DynamoDB");
    else if (!left)
        rc = perf__dynamodb_too_late(s);
    else
        rc = judge(s, perf_aws_call(s->aws, operation, body->data, body->len, left, out),
                   perf_aws_error_code(), units, out, all);
    perf__text_free(body);
    return rc;
}

/* --------------------------------------------------------------------- many */

int perf__dynamodb_call_all(struct dynamodb_store *s, const char *operation,
                            struct perf__aws_flown *requests, size_t count, int units,
                            int64_t deadline_ns)
{
    const struct perf__aws_flown *first = NULL; /* that failed */
    for (size_t i = 0; i < count; i++)
        requests[i].operation = operation;
    int rc = perf__aws_fly(s->aws, requests, count, UNDER_WAY, deadline_ns);
    for (size_t i = 0; !rc && i < count; i++) {
        struct perf__aws_flown *r = &requests[i];
        if (r->rc)
            perf__fail(r->rc, "%s", r->why);
        r->rc = judge(s, r->rc, r->code, units, &r->reply, &r->all);
        if (r->rc && r->rc != PERF_ECONFLICT) {
            snprintf(r->why, sizeof r->why, "%s", perf_last_error());
            first = first ? first : r;
        }
    }
    return first ? perf__fail(first->rc, "%s", first->why) : rc;
}
