/* SPDX-License-Identifier: MIT */
/*
 * aws_sqs_batch.c - sending, deleting and hiding many messages, 10 a request.
 *
 * A window of 10 slides over the messages. What SQS could not do for a reason of
 * its own stays at the window's front and goes out again with the next request,
 * so that messages of a group keep their order as well as they can. Any thread.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "aws_client.h"
#include "aws_sqs.h"

enum {
    BATCH_MAX = 10,
    COUNT_MAX = 1000000,
    RECEIPT_MAX = 4096,
    PAUSE_MS = 50,
    PAUSE_MAX_MS = 5000,
    BYTES_MAX = PERF__SQS_BYTES, /* of messages with their attributes, unescaped */
};

struct result {
    int status;
    char code[64], id[64];
};

struct perf_sqs_results {
    perf_allocator allocator;
    size_t count;
    struct result results[];
};

struct job {
    perf_aws *aws;
    const char *queue_url, *operation;
    size_t count;
    /* one of them: */
    const perf_sqs_message *const *messages;
    const char *const *receipts;
    const perf_sqs_messages *list;
    int64_t visibility_s; /* -1: delete */

    perf_sqs_results *results;
    int64_t deadline_ns;
    size_t window[BATCH_MAX], in_window, next;
    int pauses;
};

static const char *receipt_of(const struct job *j, size_t i)
{
    return j->list ? perf_sqs_messages_receipt(j->list, i) : j->receipts[i];
}

/* A caller's message as one of this version; it was checked before. */
static perf_sqs_message message_of(const struct job *j, size_t i)
{
    perf_sqs_message m;
    perf__options_take("perf_sqs_message", j->messages[i], &m, sizeof m);
    return m;
}

static size_t bytes_of(const struct job *j, size_t i)
{
    if (!j->messages)
        return 0;
    perf_sqs_message m = message_of(j, i);
    return m.body.len + (m.attributes ? strlen(m.attributes) : 0);
}

static int check_all(const struct job *j)
{
    int rc = perf__sqs_check(j->aws, "a batch of SQS", j->queue_url);
    if (!rc)
        rc = perf__check_range("count", j->count > COUNT_MAX ? INT64_MAX : (int64_t)j->count, 0,
                               COUNT_MAX);
    if (!rc && j->count && !j->messages && !j->receipts && !j->list)
        rc = perf__fail(PERF_EINVAL, "the array is NULL");
    for (size_t i = 0; !rc && i < j->count; i++) {
        perf_sqs_message m;
        if (j->messages) {
            rc = j->messages[i] ? perf__sqs_check_message(j->messages[i], &m)
                                : perf__fail(PERF_EINVAL, "messages[%zu] is NULL", i);
        } else {
            const char *receipt = receipt_of(j, i);
            size_t len = receipt ? strnlen(receipt, RECEIPT_MAX + 1) : 0;
            rc = perf__check_len("a receipt", len, 1, RECEIPT_MAX);
            if (!rc)
                rc = perf__check_utf8("a receipt", receipt, len);
        }
    }
    return rc;
}

/* ------------------------------------------------------------------- request */

static void fill_window(struct job *j)
{
    size_t bytes = 0;
    for (size_t i = 0; i < j->in_window; i++)
        bytes += bytes_of(j, j->window[i]);
    while (j->in_window < BATCH_MAX && j->next < j->count) {
        bytes += bytes_of(j, j->next);
        if (j->in_window && bytes > BYTES_MAX)
            break;
        j->window[j->in_window++] = j->next++;
    }
}

static void write_request(const struct job *j, struct perf__text *t)
{
    perf__sqs_begin(t, j->aws, j->queue_url);
    perf__text_puts(t, ",\"Entries\":[");
    for (size_t i = 0; i < j->in_window; i++) {
        perf__text_putf(t, "%s{\"Id\":\"%zu\",", i ? "," : "", i);
        if (j->messages) {
            perf_sqs_message m = message_of(j, j->window[i]);
            perf__sqs_put_message(t, &m);
        } else {
            const char *receipt = receipt_of(j, j->window[i]);
            perf__text_puts(t, "\"ReceiptHandle\":");
            perf__text_put_json(t, receipt, strlen(receipt));
            if (j->visibility_s >= 0)
                perf__text_putf(t, ",\"VisibilityTimeout\":%lld", (long long)j->visibility_s);
        }
        perf__text_puts(t, "}");
    }
    perf__text_puts(t, "]}");
}

/* --------------------------------------------------------------------- reply */

/* Which of the window an entry of the reply speaks of; in_window if none. */
static size_t place_of(const struct job *j, struct perf__json entry)
{
    struct perf__json id;
    uint64_t n;
    if (!perf__json_find(entry, "Id", '"', &id) || !perf__json_uint(id, &n) || n >= j->in_window)
        return j->in_window;
    return (size_t)n;
}

static void take_sent(const struct job *j, struct perf__json entry, size_t i)
{
    struct result *r = &j->results->results[i];
    struct perf__json id;
    r->status = PERF_OK;
    r->code[0] = 0;
    if (!j->messages)
        return;
    if (perf__json_find(entry, "MessageId", '"', &id))
        perf__json_short(id, r->id, sizeof r->id);
    perf_sqs_message m = message_of(j, i);
    if (!perf__sqs_has_md5(entry, "MD5OfMessageBody", m.body.data, m.body.len))
        r->status = perf__fail(PERF_EPROTOCOL,
                               "sqs: what SQS took of message %zu has another MD5 "
                               "than what was sent",
                               i);
}

/* PERF_OK and how many stay in the window, or PERF_EPROTOCOL: nothing can be said of some. */
static int take_reply(struct job *j, const perf_aws_reply *reply)
{
    struct perf__json all, list, entry, part;
    bool told[BATCH_MAX] = {false}, again[BATCH_MAX] = {false};
    size_t at = 0, kept = 0;
    int rc = perf__json_check(PERF_EPROTOCOL, "SQS's reply", perf_aws_reply_body(reply),
                              perf_aws_reply_size(reply), '{', &all);
    if (rc)
        return rc;
    if (perf__json_find(all, "Successful", '[', &list))
        while (perf__json_next(list, &at, NULL, &entry)) {
            size_t place = place_of(j, entry);
            if (place == j->in_window || told[place])
                return perf__fail(PERF_EPROTOCOL, "SQS's reply speaks of what was not asked");
            told[place] = true;
            take_sent(j, entry, j->window[place]);
        }
    at = 0;
    if (perf__json_find(all, "Failed", '[', &list))
        while (perf__json_next(list, &at, NULL, &entry)) {
            size_t place = place_of(j, entry);
            if (place == j->in_window || told[place])
                return perf__fail(PERF_EPROTOCOL, "SQS's reply speaks of what was not asked");
            struct result *r = &j->results->results[j->window[place]];
            told[place] = true;
            again[place] = perf__json_find(entry, "SenderFault", 'f', &part);
            r->status = PERF_EREMOTE;
            if (perf__json_find(entry, "Code", '"', &part))
                perf__json_short(part, r->code, sizeof r->code);
        }
    for (size_t i = 0; i < j->in_window; i++) {
        if (!told[i])
            return perf__fail(PERF_EPROTOCOL, "SQS's reply does not speak of all messages");
        if (again[i])
            j->window[kept++] = j->window[i];
    }
    j->in_window = kept;
    return PERF_OK;
}

/* ---------------------------------------------------------------------- loop */

static int64_t left_ms(const struct job *j)
{
    int64_t left = j->deadline_ns - perf__now_ns(&j->aws->host.clock);
    return left > 0 ? (left + 999999) / 1000000 : 0;
}

/* Those left have the code that SQS gave them, if any. */
static int pause_for_more(struct job *j)
{
    int64_t longest = j->pauses < 7 ? (int64_t)PAUSE_MS << j->pauses : PAUSE_MAX_MS;
    int64_t ms = (int64_t)(perf__thread_random() % (uint64_t)(longest + 1));
    j->pauses++;
    if (ms >= left_ms(j))
        return perf__fail(PERF_ETHROTTLED, "sqs %s: some messages are left, and the time is over",
                          j->operation);
    return perf__aws_pause(j->aws, ms);
}

static int step(struct job *j)
{
    struct perf__text t;
    perf_aws_reply *reply = NULL;
    int64_t time = left_ms(j);
    if (time <= 0)
        return perf__fail(PERF_ETIMEDOUT, "sqs %s: some messages are left, and the time is over",
                          j->operation);
    fill_window(j);
    write_request(j, &t);
    int rc = t.failed ? perf__fail_nomem("a batch")
                      : perf_aws_call(j->aws, j->operation, t.data, t.len, time, &reply);
    perf__text_free(&t);
    if (rc == PERF_ETHROTTLED && left_ms(j) > 0)
        return pause_for_more(j);
    if (!rc)
        rc = take_reply(j, reply);
    perf_aws_reply_release(reply);
    if (rc)
        return rc;
    if (j->in_window)
        return pause_for_more(j);
    j->pauses = 0;
    return PERF_OK;
}

/* The batch's own status: of the first that failed. */
static int sum_up(const struct job *j)
{
    for (size_t i = 0; i < j->count; i++) {
        const struct result *r = &j->results->results[i];
        if (r->status == PERF_EREMOTE)
            return perf__fail(r->status, "sqs %s: message %zu: %s", j->operation, i,
                              *r->code ? r->code : "refused");
        if (r->status)
            return r->status;
    }
    return PERF_OK;
}

static int run(struct job *j, int64_t timeout_ms, perf_sqs_results **out)
{
    if (out)
        *out = NULL;
    int rc = check_all(j);
    if (!rc)
        rc = perf__check_range("timeout_ms", timeout_ms, 0, INT64_MAX / 4000000);
    if (rc)
        return rc;
    perf_aws *aws = j->aws;
    size_t size = sizeof *j->results + j->count * sizeof(struct result);
    j->results = perf__calloc(&aws->host.allocator, 1, size);
    if (!j->results)
        return perf__fail_nomem("the results of a batch");
    j->results->allocator = aws->host.allocator;
    j->results->count = j->count;
    for (size_t i = 0; i < j->count; i++)
        j->results->results[i].status = PERF_ECANCELED; /* its turn has not come */

    int64_t time = timeout_ms ? timeout_ms : aws->timeout_ms;
    int64_t inherited = perf_deadline_remaining_ms();
    if (inherited >= 0 && inherited < time)
        time = inherited;
    int64_t now = perf__now_ns(&aws->host.clock);
    j->deadline_ns = time > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + time * 1000000;
    while (!rc && (j->in_window || j->next < j->count))
        rc = step(j);
    if (rc) { /* what ended it is what those have that had no answer */
        for (size_t i = 0; i < j->count; i++)
            if (j->results->results[i].status == PERF_ECANCELED)
                j->results->results[i].status = rc;
    } else {
        rc = sum_up(j);
    }
    if (out)
        *out = j->results;
    else
        perf_sqs_results_release(j->results);
    return rc;
}

int perf_sqs_send_batch(perf_aws *aws, const char *queue_url,
                        const perf_sqs_message *const *messages, size_t count, int64_t timeout_ms,
                        perf_sqs_results **out)
{
    struct job j = {.aws = aws,
                    .queue_url = queue_url,
                    .operation = "SendMessageBatch",
                    .messages = messages,
                    .count = count};
    return run(&j, timeout_ms, out);
}

int perf_sqs_delete(perf_aws *aws, const char *queue_url, const perf_sqs_messages *messages,
                    int64_t timeout_ms, perf_sqs_results **out)
{
    struct job j = {.aws = aws,
                    .queue_url = queue_url,
                    .operation = "DeleteMessageBatch",
                    .list = messages,
                    .count = perf_sqs_messages_count(messages),
                    .visibility_s = -1};
    return run(&j, timeout_ms, out);
}

int perf_sqs_delete_receipts(perf_aws *aws, const char *queue_url, const char *const *receipts,
                             size_t count, int64_t timeout_ms, perf_sqs_results **out)
{
    struct job j = {.aws = aws,
                    .queue_url = queue_url,
                    .operation = "DeleteMessageBatch",
                    .receipts = receipts,
                    .count = count,
                    .visibility_s = -1};
    return run(&j, timeout_ms, out);
}

int perf_sqs_change_visibility(perf_aws *aws, const char *queue_url, const char *const *receipts,
                               size_t count, int64_t visibility_s, int64_t timeout_ms,
                               perf_sqs_results **out)
{
    struct job j = {.aws = aws,
                    .queue_url = queue_url,
                    .operation = "ChangeMessageVisibilityBatch",
                    .receipts = receipts,
                    .count = count,
                    .visibility_s = visibility_s};
    int rc = perf__check_range("visibility_s", visibility_s, 0, 43200);
    return rc ? rc : run(&j, timeout_ms, out);
}

/* ------------------------------------------------------------------- results */

static const struct result *find(const perf_sqs_results *results, size_t i)
{
    return results && i < results->count ? &results->results[i] : NULL;
}

size_t perf_sqs_results_count(const perf_sqs_results *results)
{
    return results ? results->count : 0;
}

int perf_sqs_results_status(const perf_sqs_results *results, size_t i)
{
    const struct result *r = find(results, i);
    return r ? r->status : PERF_EINVAL;
}

const char *perf_sqs_results_code(const perf_sqs_results *results, size_t i)
{
    const struct result *r = find(results, i);
    return r ? r->code : "";
}

const char *perf_sqs_results_id(const perf_sqs_results *results, size_t i)
{
    const struct result *r = find(results, i);
    return r ? r->id : "";
}

void perf_sqs_results_release(perf_sqs_results *results)
{
    if (!results)
        return;
    perf_allocator allocator = results->allocator;
    perf__free(&allocator, results);
}
