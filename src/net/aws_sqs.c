/* SPDX-License-Identifier: MIT */
/*
 * aws_sqs.c - receiving messages, and sending one. Any thread.
 *
 * A list keeps its reply; names, bodies and receipts are unescaped into one block
 * beside it, which the reply's length bounds.
 */
#include <libperf/aws_sqs.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_client.h"
#include "aws_sqs.h"

enum { RECEIVE_MAX = 10, WAIT_MAX_S = 20, BEYOND_WAIT_MS = 5000, VISIBILITY_MAX_S = 43200 };

struct message {
    struct perf__json json;
    const char *body, *id, *receipt;
    size_t body_len;
};

struct perf_sqs_messages {
    perf_allocator allocator;
    perf_aws_reply *reply;
    char *text;
    size_t count;
    struct message messages[RECEIVE_MAX];
};

/* -------------------------------------------------------------------- shared */

int perf__sqs_check(const perf_aws *aws, const char *what, const char *queue_url)
{
    int rc = perf__aws_check_client(aws, what, "sqs", PERF_AWS_PROTOCOL_JSON);
    if (rc)
        return rc;
    size_t len = queue_url ? strnlen(queue_url, 1025) : 0;
    rc = perf__check_len("queue_url", len, 1, 1024);
    for (size_t i = 0; !rc && i < len; i++)
        if (queue_url[i] <= ' ' || queue_url[i] > '~')
            rc = perf__fail(PERF_EINVAL,
                            "queue_url has the byte 0x%02x; give the URL that "
                            "perf_sqs_queue_url gives",
                            (unsigned char)queue_url[i]);
    return rc;
}

void perf__sqs_begin(struct perf__text *t, const perf_aws *aws, const char *queue_url)
{
    *t = (struct perf__text){.allocator = &aws->host.allocator};
    perf__text_puts(t, "{\"QueueUrl\":");
    perf__text_put_json(t, queue_url, strlen(queue_url));
}

bool perf__sqs_has_md5(struct perf__json object, const char *member, const void *data, size_t len)
{
    char theirs[40], ours[40];
    struct perf__json text;
    uint8_t digest[64];
    unsigned size = 0;
    if (!perf__json_find(object, member, '"', &text))
        return false;
    perf__json_short(text, theirs, sizeof theirs);
    if (!EVP_Digest(data, len, digest, &size, EVP_md5(), NULL) || size != 16)
        return true; /* a libcrypto without MD5, as FIPS has it */
    perf__hex(ours, digest, size);
    ours[32] = 0;
    return !strcmp(ours, theirs);
}

int perf__sqs_check_message(const perf_sqs_message *given, perf_sqs_message *m)
{
    int rc = perf__options_take("perf_sqs_message", given, m, sizeof *m);
    if (!rc)
        rc = perf__check_len("body", m->body.data ? m->body.len : 0, 1, PERF__SQS_BYTES);
    if (!rc)
        rc = perf__check_utf8("body", m->body.data, m->body.len);
    if (!rc)
        rc = perf__check_range("delay_s", m->delay_s, 0, 900);
    if (!rc && m->attributes) {
        struct perf__json ignored;
        rc = perf__json_check(PERF_EINVAL, "perf_sqs_message.attributes", m->attributes,
                              strlen(m->attributes), '{', &ignored);
    }
    if (!rc && m->group_id)
        rc = perf__check_len("group_id", strnlen(m->group_id, 129), 1, 128);
    if (!rc && m->dedup_id)
        rc = perf__check_len("dedup_id", strnlen(m->dedup_id, 129), 1, 128);
    return rc;
}

static void put_named(struct perf__text *t, const char *name, const char *text)
{
    if (!text)
        return;
    perf__text_putf(t, ",\"%s\":", name);
    perf__text_put_json(t, text, strlen(text));
}

void perf__sqs_put_message(struct perf__text *t, const perf_sqs_message *m)
{
    perf__text_puts(t, "\"MessageBody\":");
    perf__text_put_json(t, m->body.data, m->body.len);
    if (m->attributes) {
        perf__text_puts(t, ",\"MessageAttributes\":");
        perf__text_puts(t, m->attributes);
    }
    put_named(t, "MessageGroupId", m->group_id);
    put_named(t, "MessageDeduplicationId", m->dedup_id);
    if (m->delay_s)
        perf__text_putf(t, ",\"DelaySeconds\":%lld", (long long)m->delay_s);
}

/* Sends t, frees it, and reads the reply's object. */
static int ask(perf_aws *aws, const char *operation, struct perf__text *t, int64_t timeout_ms,
               perf_aws_reply **reply, struct perf__json *all)
{
    *reply = NULL;
    int rc = t->failed ? perf__fail_nomem("a request")
                       : perf_aws_call(aws, operation, t->data, t->len, timeout_ms, reply);
    perf__text_free(t);
    if (!rc)
        rc = perf__json_check(PERF_EPROTOCOL, "SQS's reply", perf_aws_reply_body(*reply),
                              perf_aws_reply_size(*reply), '{', all);
    if (rc) {
        perf_aws_reply_release(*reply);
        *reply = NULL;
    }
    return rc;
}

/* ----------------------------------------------------------------- queue, send */

/* A text of the reply into the caller's room. */
static int give_text(const perf_aws *aws, struct perf__json all, const char *name, char *out,
                     size_t size)
{
    struct perf__json text;
    if (!perf__json_find(all, name, '"', &text))
        return perf__fail(PERF_EPROTOCOL, "SQS's reply has no %s", name);
    char *plain = perf__alloc(&aws->host.allocator, text.len);
    if (!plain)
        return perf__fail_nomem("a name of SQS's");
    size_t len = perf__json_text(text, plain);
    int rc = len < size ? PERF_OK
                        : perf__fail(PERF_ETOOSMALL,
                                     "the %s has %zu bytes, and there is room for "
                                     "%zu with the zero byte",
                                     name, len, size);
    if (!rc)
        memcpy(out, plain, len + 1);
    perf__free(&aws->host.allocator, plain);
    return rc;
}

int perf_sqs_queue_url(perf_aws *aws, const char *queue, const char *account, int64_t timeout_ms,
                       char *out, size_t out_size)
{
    perf_aws_reply *reply;
    struct perf__json all;
    int rc = perf__aws_check_client(aws, "perf_sqs_queue_url", "sqs", PERF_AWS_PROTOCOL_JSON);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "the place for the URL is NULL");
    if (!rc)
        rc = perf__check_len("queue", queue ? strnlen(queue, 129) : 0, 1, 128);
    if (!rc && account)
        rc = perf__check_len("account", strnlen(account, 65), 1, 64);
    if (!rc)
        rc = perf__check_utf8("queue", queue, strlen(queue));
    if (!rc && account)
        rc = perf__check_utf8("account", account, strlen(account));
    if (rc)
        return rc;
    struct perf__text t = {.allocator = &aws->host.allocator};
    perf__text_puts(&t, "{\"QueueName\":");
    perf__text_put_json(&t, queue, strlen(queue));
    put_named(&t, "QueueOwnerAWSAccountId", account);
    perf__text_puts(&t, "}");
    rc = ask(aws, "GetQueueUrl", &t, timeout_ms, &reply, &all);
    if (!rc)
        rc = give_text(aws, all, "QueueUrl", out, out_size);
    perf_aws_reply_release(reply);
    return rc;
}

int perf_sqs_send(perf_aws *aws, const char *queue_url, const perf_sqs_message *message,
                  int64_t timeout_ms, char *id, size_t id_size)
{
    perf_sqs_message m;
    perf_aws_reply *reply;
    struct perf__json all;
    struct perf__text t;
    int rc = perf__sqs_check(aws, "perf_sqs_send", queue_url);
    if (!rc)
        rc = perf__sqs_check_message(message, &m);
    if (rc)
        return rc;
    perf__sqs_begin(&t, aws, queue_url);
    perf__text_puts(&t, ",");
    perf__sqs_put_message(&t, &m);
    perf__text_puts(&t, "}");
    rc = ask(aws, "SendMessage", &t, timeout_ms, &reply, &all);
    if (!rc && !perf__sqs_has_md5(all, "MD5OfMessageBody", m.body.data, m.body.len))
        rc = perf__fail(PERF_EPROTOCOL, "sqs SendMessage: what SQS took has another MD5 than what "
                                        "was sent");
    if (!rc && id)
        rc = give_text(aws, all, "MessageId", id, id_size);
    perf_aws_reply_release(reply);
    return rc;
}

/* -------------------------------------------------------------------- receive */

static int read_message(struct perf__json json, char **at, struct message *m)
{
    struct perf__json body, id, receipt;
    if (!perf__json_find(json, "Body", '"', &body) ||
        !perf__json_find(json, "MessageId", '"', &id) ||
        !perf__json_find(json, "ReceiptHandle", '"', &receipt))
        return perf__fail(PERF_EPROTOCOL,
                          "a message of SQS lacks its body, its name or its receipt");
    m->json = json;
    m->body = *at;
    m->body_len = perf__json_text(body, *at);
    *at += m->body_len + 1;
    m->id = *at;
    *at += perf__json_text(id, *at) + 1;
    m->receipt = *at;
    *at += perf__json_text(receipt, *at) + 1;
    if (!perf__sqs_has_md5(json, "MD5OfBody", m->body, m->body_len))
        return perf__fail(PERF_EPROTOCOL, "sqs ReceiveMessage: a body does not match its MD5");
    return PERF_OK;
}

static int read_messages(perf_sqs_messages *list, struct perf__json all)
{
    struct perf__json messages, each;
    size_t at_message = 0;
    if (!perf__json_find(all, "Messages", '[', &messages))
        return PERF_OK;
    list->text = perf__alloc(&list->allocator, messages.len + 1);
    if (!list->text)
        return perf__fail_nomem("messages");
    char *at = list->text;
    while (perf__json_next(messages, &at_message, NULL, &each)) {
        if (list->count == RECEIVE_MAX)
            return perf__fail(PERF_EPROTOCOL, "SQS sent more than %d messages", RECEIVE_MAX);
        int rc = read_message(each, &at, &list->messages[list->count]);
        if (rc)
            return rc;
        list->count++;
    }
    return PERF_OK;
}

int perf_sqs_receive(perf_aws *aws, const char *queue_url, const perf_sqs_receive_options *options,
                     perf_sqs_messages **out)
{
    perf_sqs_receive_options o;
    perf_aws_request r = PERF_AWS_REQUEST_INIT;
    struct perf__json all;
    struct perf__text t;
    int rc = perf__sqs_check(aws, "perf_sqs_receive", queue_url);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "the place for the messages is NULL");
    if (!rc)
        rc = perf__options_take("perf_sqs_receive_options", options, &o, sizeof o);
    if (!rc &&
        !((rc = perf__check_range("max_messages", o.max_messages, 0, RECEIVE_MAX)) ||
          (rc = perf__check_range("wait_s", o.wait_s, -1, WAIT_MAX_S)) ||
          (rc = perf__check_range("visibility_s", o.visibility_s, 0, VISIBILITY_MAX_S)) ||
          (rc = perf__check_range("attributes", o.attributes, 0, 1)) ||
          (rc = perf__check_range("timeout_ms", o.timeout_ms, 0, 86400000))) &&
        o.attempt_id)
        rc = perf__check_len("attempt_id", strnlen(o.attempt_id, 129), 1, 128);
    if (rc)
        return rc;
    int64_t wait_s = o.wait_s < 0 ? 0 : o.wait_s ? o.wait_s : WAIT_MAX_S;
    perf__sqs_begin(&t, aws, queue_url);
    perf__text_putf(&t, ",\"MaxNumberOfMessages\":%lld,\"WaitTimeSeconds\":%lld",
                    (long long)(o.max_messages ? o.max_messages : RECEIVE_MAX), (long long)wait_s);
    if (o.visibility_s)
        perf__text_putf(&t, ",\"VisibilityTimeout\":%lld", (long long)o.visibility_s);
    if (o.attributes)
        perf__text_puts(&t, ",\"MessageSystemAttributeNames\":[\"All\"],"
                            "\"MessageAttributeNames\":[\"All\"]");
    put_named(&t, "ReceiveRequestAttemptId", o.attempt_id);
    perf__text_puts(&t, "}");

    perf_sqs_messages *list = perf__calloc(&aws->host.allocator, 1, sizeof *list);
    rc = t.failed || !list ? perf__fail_nomem("messages") : PERF_OK;
    if (!rc) {
        list->allocator = aws->host.allocator;
        r.operation = "ReceiveMessage";
        r.body = (perf_bytes){t.data, t.len};
        r.timeout_ms = wait_s * 1000 + (o.timeout_ms ? o.timeout_ms : BEYOND_WAIT_MS);
        r.flags = wait_s ? PERF_AWS_LONG_POLL : 0;
        rc = perf_aws_perform(aws, &r, &list->reply);
    }
    perf__text_free(&t);
    if (!rc)
        rc = perf__json_check(PERF_EPROTOCOL, "SQS's reply", perf_aws_reply_body(list->reply),
                              perf_aws_reply_size(list->reply), '{', &all);
    if (!rc)
        rc = read_messages(list, all);
    if (rc)
        perf_sqs_messages_release(list);
    else
        *out = list;
    return rc;
}

size_t perf_sqs_messages_count(const perf_sqs_messages *list)
{
    return list ? list->count : 0;
}

static const struct message *find(const perf_sqs_messages *list, size_t i)
{
    return list && i < list->count ? &list->messages[i] : NULL;
}

const char *perf_sqs_messages_body(const perf_sqs_messages *list, size_t i, size_t *len)
{
    const struct message *m = find(list, i);
    if (len)
        *len = m ? m->body_len : 0;
    return m ? m->body : NULL;
}

const char *perf_sqs_messages_id(const perf_sqs_messages *list, size_t i)
{
    const struct message *m = find(list, i);
    return m ? m->id : NULL;
}

const char *perf_sqs_messages_receipt(const perf_sqs_messages *list, size_t i)
{
    const struct message *m = find(list, i);
    return m ? m->receipt : NULL;
}

const char *perf_sqs_messages_json(const perf_sqs_messages *list, size_t i, size_t *len)
{
    const struct message *m = find(list, i);
    if (len)
        *len = m ? m->json.len : 0;
    return m ? m->json.at : NULL;
}

void perf_sqs_messages_release(perf_sqs_messages *list)
{
    if (!list)
        return;
    perf_allocator allocator = list->allocator;
    perf_aws_reply_release(list->reply);
    perf__free(&allocator, list->text);
    perf__free(&allocator, list);
}
