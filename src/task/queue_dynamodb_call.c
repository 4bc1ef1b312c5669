/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_call.c - the requests of the DynamoDB queue: within their time, and
 * failing with a sentence that helps.
 *
 * The client tries again by itself. A write that it sent twice may fail on the
 * condition that its own first try made false; so records carry the name of the
 * call that wrote them, and transactions a token. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "queue_dynamodb.h"

enum { UNDER_WAY = 16, PAUSE_MS = 8, PAUSE_MAX_MS = 200 };

uint64_t perf__queue_dynamodb_numbers(struct dynamodb_queue *q, uint64_t n)
{
    uint64_t now = (uint64_t)perf__realtime_ms(&q->clock) * 1000;
    uint64_t last = atomic_load(&q->last_number), first;
    do
        first = last + 1 > now ? last + 1 : now;
    while (!atomic_compare_exchange_weak(&q->last_number, &last, first + n - 1));
    return first;
}

void perf__queue_dynamodb_nonce(struct dynamodb_queue *q, char out[NONCE_SIZE])
{
    snprintf(out, NONCE_SIZE, "%016" PRIx64 "%" PRIx64, q->origin, atomic_fetch_add(&q->calls, 1));
}

int64_t perf__queue_dynamodb_deadline(const struct dynamodb_queue *q)
{
    return perf__deadline_after(q->timeout_ms);
}

/* --------------------------------------------------------------------- results */

/* code: AWS's own, of the call that failed with rc; its sentence is this thread's. */
static int failed(const struct dynamodb_queue *q, int rc, const char *code)
{
    if (rc == PERF_EREMOTE && !strcmp(code, "ResourceNotFoundException"))
        return perf__fail(rc,
                          "dynamodb queue: there is no table %.255s or %.255s, or it lacks an "
                          "index, in %s; call perf_aws_tables_ensure(), or name others in "
                          "perf_tasks_options.location",
                          q->tasks, q->common, perf_aws_region(q->aws));
    if (rc != PERF_ECONFLICT || !strcmp(code, "ConditionalCheckFailedException"))
        return rc;
    /* A transaction lists its reasons; when none of them is a condition, others were in the way. */
    return strstr(perf_last_error(), "ConditionalCheckFailed") ? rc : PERF_EBUSY;
}

int perf__queue_dynamodb_call(struct dynamodb_queue *q, const char *operation,
                              struct perf__text *body, int64_t deadline_ns, perf_aws_reply **out,
                              struct perf__json *all)
{
    perf_aws_reply *reply = NULL;
    struct perf__json checked;
    int64_t left = perf__deadline_left(deadline_ns);
    int rc;
    if (out)
        *out = NULL;
    if (body->failed)
        rc = perf__fail_nomem("a request to DynamoDB");
    else if (!left)
        rc = perf__fail(PERF_ETIMEDOUT, "dynamodb queue: not done within %lld ms",
                        (long long)q->timeout_ms);
    else
        rc = perf_aws_call(q->aws, operation, body->data, body->len, left, &reply);
    if (rc)
        rc = failed(q, rc, perf_aws_error_code());
    else
        rc = perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(reply),
                              perf_aws_reply_size(reply), '{', &checked);
    perf__text_free(body);
    if (rc || !out) {
        perf_aws_reply_release(reply);
        return rc;
    }
    *out = reply;
    *all = checked;
    return PERF_OK;
}

int perf__queue_dynamodb_say(const struct perf__aws_flown *r)
{
    return perf__fail(r->rc, "%s", r->why);
}

int perf__queue_dynamodb_fly(struct dynamodb_queue *q, struct perf__aws_flown *requests,
                             size_t count, int64_t deadline_ns)
{
    int rc = count ? perf__aws_fly(q->aws, requests, count, UNDER_WAY, deadline_ns) : PERF_OK;
    for (size_t i = 0; !rc && i < count; i++) {
        struct perf__aws_flown *r = &requests[i];
        if (r->rc) {
            (void)perf__queue_dynamodb_say(r);
            r->rc = failed(q, r->rc, r->code);
        } else {
            r->rc =
                perf__json_check(PERF_EPROTOCOL, "DynamoDB's reply", perf_aws_reply_body(r->reply),
                                 perf_aws_reply_size(r->reply), '{', &r->all);
        }
        if (r->rc)
            snprintf(r->why, sizeof r->why, "%s", perf_last_error());
    }
    return rc;
}

int perf__queue_dynamodb_pause(struct dynamodb_queue *q, int tries, int64_t deadline_ns)
{
    int64_t most = tries < 5 ? PAUSE_MS << tries : PAUSE_MAX_MS;
    if (perf__deadline_left(deadline_ns) <= most)
        return perf__fail(PERF_ETIMEDOUT,
                          "dynamodb queue: others were in the way for %lld ms; try again",
                          (long long)q->timeout_ms);
    int64_t us = (int64_t)(perf__thread_random() % (uint64_t)(most * 1000)) + 500;
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
    return PERF_OK;
}

/* ---------------------------------------------------------------------- writing */

void perf__queue_dynamodb_put_s(struct perf__text *t, const char *name, const char *text)
{
    perf__text_putf(t, "\"%s\":{\"S\":", name);
    perf__text_put_json(t, text, strlen(text));
    perf__text_puts(t, "}");
}

void perf__queue_dynamodb_put_n(struct perf__text *t, const char *name, int64_t number)
{
    perf__text_putf(t, "\"%s\":{\"N\":\"%" PRId64 "\"}", name, number);
}

void perf__queue_dynamodb_put_pk(struct perf__text *t, const struct dynamodb_queue *q,
                                 const char *kind, const char *name)
{
    char pk[PK_SIZE];
    snprintf(pk, sizeof pk, "%s%s%s", q->prefix, kind, name);
    perf__queue_dynamodb_put_s(t, "pk", pk);
}

void perf__queue_dynamodb_put_key(struct perf__text *t, const struct dynamodb_queue *q,
                                  bool of_tasks, const char *kind, const char *name, const char *sk)
{
    perf__text_putf(t, "{\"TableName\":\"%s\",\"Key\":{", of_tasks ? q->tasks : q->common);
    perf__queue_dynamodb_put_pk(t, q, kind, name);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, "sk", sk);
    perf__text_puts(t, "}");
}

/* ----------------------------------------------------------------- transactions */

void perf__queue_dynamodb_begin(struct dynamodb_queue *q, struct perf__text *t)
{
    char nonce[NONCE_SIZE];
    perf__queue_dynamodb_nonce(q, nonce);
    *t = (struct perf__text){.allocator = &q->allocator};
    perf__text_putf(t, "{\"ClientRequestToken\":\"%s\",\"TransactItems\":[", nonce);
}

void perf__queue_dynamodb_next(struct perf__text *t, const char *verb)
{
    bool first = t->len && t->data[t->len - 1] == '[';
    perf__text_putf(t, "%s{\"%s\":", first ? "" : "},", verb);
}

int perf__queue_dynamodb_transact(struct dynamodb_queue *q, struct perf__text *t,
                                  int64_t deadline_ns)
{
    perf__text_puts(t, "}]}");
    return perf__queue_dynamodb_call(q, "TransactWriteItems", t, deadline_ns, NULL, NULL);
}
