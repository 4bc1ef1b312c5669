/* SPDX-License-Identifier: MIT */
/*
 * aws_call.c - one call: its attempts, what they mean, and waiting in between.
 *
 * The pieces are used by blocking calls (here) and by asynchronous ones
 * (aws_async.c). A call is one thread's at a time.
 */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "aws_client.h"

/* Clocks that differ by less are not why a signature was refused: services allow 5 minutes. */
static const int64_t SKEW_MS = 240000;

enum { GZIP_FROM = 1024 }; /* shorter bodies do not gain */

/* -------------------------------------------------------------------- begin */

static int check_text(const char *field, const char *text, const char *allowed)
{
    size_t len = text ? strnlen(text, 65536) : 0;
    int rc = perf__check_len(field, len, 0, 32768);
    if (rc)
        return rc;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c >= 0x7f ||
            (allowed && !strchr(allowed, c) && !((c | 32) >= 'a' && (c | 32) <= 'z') &&
             !(c >= '0' && c <= '9')))
            return perf__fail(PERF_EINVAL,
                              "perf_aws_request.%s has the byte 0x%02x at %zu, which does not "
                              "belong there; percent-encode it",
                              field, c, i);
    }
    return PERF_OK;
}

int perf__aws_check_request(const perf_aws *aws, const perf_aws_request *given,
                            perf_aws_request *own)
{
    int rc = perf__options_take("perf_aws_request", given, own, sizeof *own);
    if (rc)
        return rc;
    if (!own->operation || !*own->operation)
        return perf__fail(PERF_EINVAL, "perf_aws_request.operation is empty; name it, such as "
                                       "GetItem");
    rc = perf__check_len("operation", strnlen(own->operation, PERF__AWS_NAME_MAX), 1,
                         PERF__AWS_NAME_MAX - 1);
    if (!rc)
        rc = check_text("operation", own->operation, "_-");
    if (!rc)
        rc = check_text("path", own->path, NULL);
    if (!rc)
        rc = check_text("query", own->query, NULL);
    if (!rc)
        rc = check_text("host_prefix", own->host_prefix, ".-");
    if (!rc)
        rc = perf__check_range("header_count", (int64_t)own->header_count, 0, 64);
    if (!rc)
        rc = perf__check_range("timeout_ms", own->timeout_ms, 0, INT64_MAX / 1000000);
    if (!rc)
        rc = perf__check_range("attempt_timeout_ms", own->attempt_timeout_ms, 0,
                               INT64_MAX / 1000000);
    if (rc)
        return rc;
    for (size_t i = 0; i < own->header_count; i++)
        if (!own->headers || !own->headers[i].name || !own->headers[i].value)
            return perf__fail(PERF_EINVAL,
                              "perf_aws_request.headers[%zu] has a NULL; give a name "
                              "and a value",
                              i);
    if (own->path && *own->path && own->path[0] != '/')
        return perf__fail(PERF_EINVAL, "perf_aws_request.path is '%.64s'; begin it with '/'",
                          own->path);
    if (own->read && own->body.len)
        return perf__fail(PERF_EINVAL, "perf_aws_request has body and read; give one of them");
    if (own->read && own->read_len < 0)
        return perf__fail(PERF_EINVAL,
                          "perf_aws_request.read_len is %lld; AWS wants to know the "
                          "length, 0 or more",
                          (long long)own->read_len);
    if (aws->service.protocol != PERF_AWS_PROTOCOL_REST && own->read)
        return perf__fail(PERF_EINVAL, "perf_aws_request.read is for REST services; give %s a body",
                          aws->name);
    return PERF_OK;
}

int perf__aws_check_client(const perf_aws *aws, const char *what, const char *service,
                           int64_t protocol)
{
    if (!aws)
        return perf__fail(PERF_EINVAL, "%s needs a client", what);
    if (service && strcmp(aws->name, service) != 0)
        return perf__fail(PERF_EINVAL, "%s is for %s, and the client is one of %s; open another",
                          what, service, aws->name);
    if (aws->service.protocol != protocol)
        return perf__fail(PERF_EINVAL, "%s needs a client with another protocol than that of %s",
                          what, aws->name);
    return aws->fork_generation != perf__fork_generation ? perf__fail_forked() : PERF_OK;
}

static void make_invocation_id(char out[40])
{
    uint64_t a = perf__thread_random(), b = perf__thread_random();
    snprintf(out, 40, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(a >> 32),
             (unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff),
             (unsigned)(0x8000 | (b >> 48 & 0x3fff)), (unsigned long long)(b & 0xffffffffffffull));
}

static int make_url(struct perf__aws_call *c)
{
    const perf_aws *aws = c->aws;
    const char *prefix = c->request->host_prefix ? c->request->host_prefix : "";
    bool rest = aws->service.protocol == PERF_AWS_PROTOCOL_REST;
    c->path = rest && c->request->path && *c->request->path ? c->request->path : "/";
    c->query = rest && c->request->query && *c->request->query ? c->request->query : NULL;
    int len = snprintf(c->host, sizeof c->host, "%s%s", prefix, aws->endpoint_host);
    if (len < 0 || (size_t)len >= sizeof c->host)
        return perf__fail(PERF_EINVAL,
                          "the host name made of host_prefix and endpoint is too long");
    size_t size = strlen(aws->endpoint) + strlen(prefix) + strlen(c->path) +
                  (c->query ? strlen(c->query) : 0) + 3;
    char *url = c->url_room;
    if (size > sizeof c->url_room) {
        url = c->url_heap = perf__alloc(&aws->host.allocator, size);
        if (!url)
            return perf__fail_nomem("the URL of a request");
    }
    snprintf(url, size, "%.*s%s%s%s%s", (int)(aws->endpoint_host - aws->endpoint), aws->endpoint,
             c->host, c->path, c->query ? "?" : "", c->query ? c->query : "");
    c->url = url;
    return PERF_OK;
}

/* Action and version, and what the host gave. */
static int make_form(struct perf__aws_call *c)
{
    const perf_aws *aws = c->aws;
    char head[2 * PERF__AWS_NAME_MAX + 32];
    int len =
        snprintf(head, sizeof head, "Action=%s&Version=%s", c->request->operation, aws->version);
    size_t size = (size_t)len + 1 + c->body.len;
    c->body_heap = perf__alloc(&aws->host.allocator, size + 1);
    if (!c->body_heap)
        return perf__fail_nomem("the body of a request");
    memcpy(c->body_heap, head, (size_t)len);
    size = (size_t)len;
    if (c->body.len) {
        c->body_heap[size++] = '&';
        memcpy(c->body_heap + size, c->body.data, c->body.len);
        size += c->body.len;
    }
    c->body = (perf_bytes){c->body_heap, size};
    return PERF_OK;
}

static int compress_body(struct perf__aws_call *c)
{
    char *packed;
    size_t len;
    int rc = perf__gzip(&c->aws->host.allocator, c->body.data, c->body.len, &packed, &len);
    if (rc)
        return rc;
    perf__free(&c->aws->host.allocator, c->body_heap);
    c->body_heap = packed;
    c->body = (perf_bytes){packed, len};
    c->gzipped = true;
    return PERF_OK;
}

static int make_body(struct perf__aws_call *c)
{
    const perf_aws *aws = c->aws;
    c->body = c->request->body;
    if (aws->service.protocol == PERF_AWS_PROTOCOL_JSON) {
        snprintf(c->target, sizeof c->target, "%s.%s", aws->target, c->request->operation);
        if (!c->body.len)
            c->body = (perf_bytes){"{}", 2};
    }
    if (aws->service.protocol == PERF_AWS_PROTOCOL_QUERY) {
        int rc = make_form(c);
        if (rc)
            return rc;
    }
    return c->request->flags & PERF_AWS_GZIP && c->body.len > GZIP_FROM ? compress_body(c)
                                                                        : PERF_OK;
}

int perf__aws_begin(struct perf__aws_call *c, perf_aws *aws, const perf_aws_request *request)
{
    static const perf_retry_call none = PERF_RETRY_CALL_INIT;
    c->aws = aws;
    c->request = request;
    c->url_heap = c->body_heap = c->error_body = NULL;
    c->error_len = 0;
    c->keys = NULL;
    c->attempt = 0;
    c->tried_other_keys = c->tried_other_clock = c->has_permit = c->has_written = false;
    c->admitted = false;
    c->signed_ = c->gzipped = false;
    c->error.code[0] = c->error.message[0] = c->error.request_id[0] = 0;
    c->error.status = c->error.attempts = 0;
    perf__aws_error_remember(&c->error);
    c->retry = none;
    c->begun_ns = perf__now_ns(&aws->host.clock);
    c->timeout_ms = request->timeout_ms ? request->timeout_ms : aws->timeout_ms;
    int64_t inherited = perf_deadline_remaining_ms();
    if (inherited >= 0 && inherited < c->timeout_ms)
        c->timeout_ms = inherited;
    c->deadline_ns = c->timeout_ms > (INT64_MAX - c->begun_ns) / 1000000
                         ? INT64_MAX
                         : c->begun_ns + c->timeout_ms * 1000000;
    make_invocation_id(c->invocation);
    int rc = make_url(c);
    if (!rc)
        rc = make_body(c);
    c->retries = !(request->flags & PERF_AWS_NO_RETRY);
    if (!rc && c->retries)
        rc = perf_retry_begin(aws->retry, c->timeout_ms > 0 ? c->timeout_ms : 1,
                              request->flags & PERF_AWS_LONG_POLL ? PERF_RETRY_LONG_POLL : 0,
                              &c->retry);
    if (rc) {
        perf__free(&aws->host.allocator, c->url_heap);
        perf__free(&aws->host.allocator, c->body_heap);
        return rc;
    }
    atomic_fetch_add(&aws->in_flight, 1);
    perf__counters_add(&aws->counters, PERF__AWS_COUNT_CALLS, 1);
    return PERF_OK;
}

void perf__aws_end(struct perf__aws_call *c)
{
    perf_aws *aws = c->aws;
    if (c->has_permit)
        perf_breaker_release(aws->breaker, c->permit);
    if (c->signed_)
        perf__aws_signing_end(&c->signing);
    if (c->retries)
        perf_retry_end(&c->retry);
    perf_aws_keys_release(c->keys);
    perf__free(&aws->host.allocator, c->url_heap);
    perf__free(&aws->host.allocator, c->body_heap);
    perf__free(&aws->host.allocator, c->error_body);
    int64_t took = perf__now_ns(&aws->host.clock) - c->begun_ns;
    perf__histogram_record(&aws->latency, took > 0 ? (uint64_t)took : 0);
    pthread_mutex_lock(&aws->mutex); /* who closes may free aws as soon as this is unlocked */
    atomic_fetch_sub(&aws->in_flight, 1);
    if (atomic_load(&aws->closing))
        pthread_cond_broadcast(&aws->changed);
    pthread_mutex_unlock(&aws->mutex);
}

int64_t perf__aws_left_of_call(const struct perf__aws_call *c)
{
    if (c->deadline_ns == INT64_MAX)
        return INT64_MAX / 1000000;
    int64_t left = c->deadline_ns - perf__now_ns(&c->aws->host.clock);
    return left > 0 ? (left + 999999) / 1000000 : 0;
}

/* ------------------------------------------------------------------ attempt */

static int collect_error(struct perf__aws_call *c, const void *data, size_t len)
{
    if (!c->error_body) {
        c->error_body = perf__alloc(&c->aws->host.allocator, PERF__AWS_ERROR_BODY);
        if (!c->error_body)
            return perf__fail_nomem("the reply of a service");
    }
    size_t room = PERF__AWS_ERROR_BODY - c->error_len;
    memcpy(c->error_body + c->error_len, data, len < room ? len : room);
    c->error_len += len < room ? len : room;
    return PERF_OK;
}

/* The host gets what it asked for, and not what was said instead. */
static int pass_on(void *ctx, const perf_http_reply *so_far, const void *data, size_t len)
{
    struct perf__aws_call *c = ctx;
    int64_t status = perf_http_reply_status(so_far);
    if (status < 200 || status > 299)
        return collect_error(c, data, len);
    c->has_written = true;
    return c->request->write(c->request->write_ctx, so_far, data, len);
}

static void add_header(struct perf__aws_call *c, size_t *n, const char *name, const char *value)
{
    c->headers[(*n)++] = (perf_http_header){name, value};
}

static const char *method_of(const struct perf__aws_call *c)
{
    if (c->aws->service.protocol != PERF_AWS_PROTOCOL_REST)
        return "POST";
    if (c->request->method && *c->request->method)
        return c->request->method;
    return c->body.len || c->request->read ? "POST" : "GET";
}

static int sign(struct perf__aws_call *c, size_t *n)
{
    perf_aws *aws = c->aws;
    perf_aws_sign_request r = PERF_AWS_SIGN_REQUEST_INIT;
    r.method = method_of(c);
    r.path = c->path;
    r.query = c->query;
    r.headers = c->headers;
    r.header_count = *n;
    r.payload = c->body;
    r.payload_hash = c->request->payload_hash;
    if (!r.payload_hash && c->request->read)
        r.payload_hash = "UNSIGNED-PAYLOAD";
    if (c->gzipped && strncmp(aws->signing_name, "s3", 2) !=
                          0) /* whoever unpacks before checking has to be told what was hashed */
        r.flags |= PERF_AWS_SIGN_CONTENT_HASH;
    r.region = aws->signing_region;
    r.service = aws->signing_name;
    int64_t now = perf__realtime_ms(&aws->host.clock) + atomic_load(&aws->skew_ms);
    if (c->signed_)
        perf__aws_signing_end(&c->signing);
    c->signed_ = false;
    int rc = perf__aws_sign(&c->signing, &aws->host.allocator, c->keys, &r, now);
    if (rc)
        return rc;
    c->signed_ = true;
    for (size_t i = 0; i < c->signing.header_count; i++)
        c->headers[(*n)++] = c->signing.headers[i];
    return PERF_OK;
}

int perf__aws_attempt(struct perf__aws_call *c)
{
    perf_aws *aws = c->aws;
    const perf_aws_request *r = c->request;
    size_t n = 0;
    c->attempt++;
    if (r->read && c->attempt > 1) {
        int rc = r->rewind(r->read_ctx);
        if (rc)
            return rc;
    }
    c->error_len = 0;
    add_header(c, &n, "host", c->host); /* only to be signed: the HTTP client sends its own */
    if (aws->service.json)
        add_header(c, &n, "content-type", aws->service.json);
    if (*c->target && aws->service.protocol == PERF_AWS_PROTOCOL_JSON)
        add_header(c, &n, "x-amz-target", c->target);
    if (c->gzipped)
        add_header(c, &n, "content-encoding", "gzip");
    for (size_t i = 0; i < r->header_count; i++)
        c->headers[n++] = r->headers[i];
    if (!(r->flags & PERF_AWS_ANONYMOUS)) {
        int rc = sign(c, &n);
        if (rc)
            return rc;
    }
    snprintf(c->attempt_text, sizeof c->attempt_text, "attempt=%lld; max=%lld",
             (long long)c->attempt, (long long)(c->retries ? c->retry.max_attempts : 1));
    add_header(c, &n, "amz-sdk-invocation-id", c->invocation);
    add_header(c, &n, "amz-sdk-request", c->attempt_text);

    static const perf_http_request none = PERF_HTTP_REQUEST_INIT;
    int64_t left = perf__aws_left_of_call(c);
    int64_t limit = r->attempt_timeout_ms ? r->attempt_timeout_ms : aws->attempt_timeout_ms;
    if (left <= 0)
        return perf__fail(PERF_ETIMEDOUT, "the %lld ms of the call are over",
                          (long long)c->timeout_ms);
    c->http = none;
    c->http.method = method_of(c);
    c->http.url = c->url;
    c->http.headers = c->headers + 1;
    c->http.header_count = n - 1;
    c->http.body = c->body;
    c->http.read = r->read;
    c->http.read_ctx = r->read_ctx;
    c->http.read_len = r->read_len;
    c->http.max_body_bytes = r->max_body_bytes;
    c->http.timeout_ms = limit && limit < left && !(r->flags & PERF_AWS_LONG_POLL) ? limit : left;
    if (r->write) {
        c->http.write = pass_on;
        c->http.write_ctx = c;
    }
    c->attempt_ns = perf__now_ns(&aws->host.clock);
    perf__counters_add(&aws->counters, PERF__AWS_COUNT_ATTEMPTS, 1);
    return PERF_OK;
}

int perf__aws_admit(struct perf__aws_call *c, int64_t *wait_ms)
{
    perf_aws *aws = c->aws;
    *wait_ms = 0;
    bool asked = c->admitted;
    c->admitted = false;
    if (c->retries && !asked) {
        int rc = perf_retry_acquire(&c->retry, wait_ms);
        if (rc)
            return rc;
    }
    if (!aws->breaker || c->has_permit)
        return PERF_OK;
    int rc = perf_breaker_try(aws->breaker, &c->permit);
    if (rc == PERF_EREJECTED)
        perf__counters_add(&aws->counters, PERF__AWS_COUNT_REJECTED, 1);
    c->has_permit = !rc;
    return rc;
}

/* -------------------------------------------------------------------- judge */

/* DynamoDB says what its reply's CRC-32 is, for TCP's own checksum has been seen to miss things. */
static bool is_intact(const struct perf__aws_call *c, const perf_http_reply *reply)
{
    const char *given = perf_http_reply_header(reply, "x-amz-crc32");
    if (!given || c->request->write) /* the caller has the body, not we */
        return true;
    unsigned long long expected;
    char end;
    if (sscanf(given, "%10llu%c", &expected, &end) != 1)
        return false;
    return crc32_z(0, perf_http_reply_body(reply), perf_http_reply_size(reply)) == expected;
}

static int64_t retry_after(const perf_http_reply *reply)
{
    const char *text = perf_http_reply_header(reply, "x-amz-retry-after");
    long long ms;
    char end;
    return text && sscanf(text, "%9lld%c", &ms, &end) == 1 && ms > 0 ? ms : 0;
}

/* A refusal that a look at the service's clock explains is mended by signing with that. */
static bool mend_clock(struct perf__aws_call *c, const perf_http_reply *reply)
{
    perf_aws *aws = c->aws;
    int64_t theirs = perf__aws_parse_date(perf_http_reply_header(reply, "date"));
    if (theirs < 0 || c->tried_other_clock || !perf__aws_error_is_clock(c->error.code))
        return false;
    int64_t skew = theirs - perf__realtime_ms(&aws->host.clock);
    int64_t change = skew - atomic_load(&aws->skew_ms);
    if (change < SKEW_MS && change > -SKEW_MS)
        return false;
    c->tried_other_clock = true;
    atomic_store(&aws->skew_ms, skew);
    return true;
}

static bool mend_keys(struct perf__aws_call *c)
{
    if (c->tried_other_keys || !c->keys || !perf__aws_error_is_expired(c->error.code))
        return false;
    c->tried_other_keys = true;
    perf_aws_credentials_reject(c->aws->credentials, c->keys);
    return true;
}

/* The outcome of an attempt, and the status that the call ends with if it was the last one. */
static int outcome_of(struct perf__aws_call *c, int status, const perf_http_reply *reply,
                      perf_outcome *outcome)
{
    if (status) {
        snprintf(c->why, sizeof c->why, "%.255s", perf_last_error());
        c->error.status = 0;
        outcome->kind = perf_outcome_of_status(status);
        return status;
    }
    int64_t http_status = perf_http_reply_status(reply);
    outcome->retry_after_ms = retry_after(reply);
    if ((http_status >= 200 && http_status <= 299) || http_status == 304) {
        outcome->kind = PERF_OUTCOME_SUCCESS;
        if (is_intact(c, reply))
            return PERF_OK;
        outcome->kind = PERF_OUTCOME_TRANSIENT;
        snprintf(c->why, sizeof c->why, "the reply does not match its x-amz-crc32");
        return PERF_EPROTOCOL;
    }
    perf__aws_error_read(&c->aws->service, reply, c->error_len ? c->error_body : NULL, c->error_len,
                         &c->error);
    outcome->kind = perf_outcome_of_http(http_status, c->error.code);
    if (outcome->kind == PERF_OUTCOME_SUCCESS) /* 1xx and 3xx are no answers here */
        outcome->kind = PERF_OUTCOME_PERMANENT;
    if (mend_clock(c, reply) || mend_keys(c))
        outcome->kind = PERF_OUTCOME_TRANSIENT;
    return perf__aws_error_status_of(&c->error);
}

static const char *why_no_more(const struct perf__aws_call *c)
{
    switch (c->retries ? c->retry.reason : PERF_RETRY_NOT_RETRYABLE) {
    case PERF_RETRY_ATTEMPTS:
        return "; no more attempts";
    case PERF_RETRY_BUDGET:
        return "; the retry budget is empty";
    case PERF_RETRY_DEADLINE:
        return "; no time for another attempt";
    default:
        return "";
    }
}

static int say(const struct perf__aws_call *c, int status)
{
    const struct perf__aws_error *e = &c->error;
    const char *operation = c->request->operation;
    if (e->status)
        return perf__fail(status, "%s %s: %s: %s (HTTP %lld, request %s, attempt %lld%s)",
                          c->aws->name, operation, *e->code ? e->code : "refused", e->message,
                          (long long)e->status, *e->request_id ? e->request_id : "unnamed",
                          (long long)c->attempt, why_no_more(c));
    return perf__fail(status, "%s %s at %s: %s (attempt %lld%s)", c->aws->name, operation,
                      c->aws->endpoint, c->why, (long long)c->attempt, why_no_more(c));
}

int perf__aws_give_up(struct perf__aws_call *c, int status)
{
    perf__counters_add(&c->aws->counters, PERF__AWS_COUNT_FAILED, 1);
    if (!c->error.status) {
        snprintf(c->why, sizeof c->why, "%.255s", perf_last_error());
        return perf__fail(status, "%s %s: %s", c->aws->name, c->request->operation, c->why);
    }
    perf__aws_error_remember(&c->error);
    return say(c, status);
}

static int succeed(struct perf__aws_call *c, perf_http_reply *http, perf_aws_reply **out)
{
    perf_aws_reply *reply = perf__alloc(&c->aws->host.allocator, sizeof *reply);
    if (!reply) {
        perf_http_reply_release(http);
        return perf__aws_give_up(c, perf__fail_nomem("the reply of a service"));
    }
    *reply = (perf_aws_reply){c->aws->host.allocator, http, c->attempt};
    perf__counters_add(&c->aws->counters, PERF__AWS_COUNT_SUCCEEDED, 1);
    *out = reply;
    return PERF_OK;
}

int perf__aws_judge(struct perf__aws_call *c, int status, perf_http_reply *reply, bool *again,
                    int64_t *delay_ms, perf_aws_reply **out)
{
    perf_outcome outcome = PERF_OUTCOME_INIT;
    perf_aws *aws = c->aws;
    int rc = outcome_of(c, status, reply, &outcome);
    int64_t took = (perf__now_ns(&aws->host.clock) - c->attempt_ns) / 1000000;
    *again = false;
    *delay_ms = 0;
    if (c->has_permit)
        perf_breaker_report(aws->breaker, c->permit, outcome.kind, took);
    c->has_permit = false;
    if (outcome.kind == PERF_OUTCOME_THROTTLED)
        perf__counters_add(&aws->counters, PERF__AWS_COUNT_THROTTLED, 1);
    bool repeatable = !(c->request->read && !c->request->rewind) && !c->has_written;
    if (c->retries && (repeatable || outcome.kind == PERF_OUTCOME_SUCCESS))
        *again = perf_retry_next(&c->retry, &outcome, delay_ms) == PERF_OK;
    if (rc == PERF_OK)
        return succeed(c, reply, out);
    perf_http_reply_release(reply);
    if (*again)
        return rc;
    perf__counters_add(&aws->counters, PERF__AWS_COUNT_FAILED, 1);
    c->error.attempts = c->attempt;
    perf__aws_error_remember(&c->error);
    return say(c, rc);
}

/* ----------------------------------------------------------------- blocking */

int perf__aws_pause(perf_aws *aws, int64_t ms)
{
    int64_t until = perf__deadline_after(ms);
    int rc = PERF_OK;
    if (ms <= 0)
        return PERF_OK;
    pthread_mutex_lock(&aws->mutex);
    while (!atomic_load(&aws->closing) && perf__cond_wait(&aws->changed, &aws->mutex, until))
        ;
    if (atomic_load(&aws->closing))
        rc = perf__fail(PERF_ECLOSED, "the client is being closed");
    pthread_mutex_unlock(&aws->mutex);
    return rc;
}

static int attempts(struct perf__aws_call *c, perf_aws_reply **out)
{
    perf_aws *aws = c->aws;
    for (;;) {
        int64_t wait_ms, delay_ms;
        perf_http_reply *reply = NULL;
        bool again;
        int rc = perf__aws_admit(c, &wait_ms);
        if (!rc)
            rc = perf__aws_pause(aws, wait_ms);
        if (!rc && !(c->request->flags & PERF_AWS_ANONYMOUS)) {
            perf_aws_keys_release(c->keys);
            c->keys = NULL;
            int64_t left = perf__aws_left_of_call(c);
            rc = perf_aws_credentials_get(aws->credentials, left > 0 ? left : 1, &c->keys);
        }
        if (!rc)
            rc = perf__aws_attempt(c);
        if (rc)
            return perf__aws_give_up(c, rc);
        rc = perf_http_perform(aws->http, &c->http, &reply);
        rc = perf__aws_judge(c, rc, reply, &again, &delay_ms, out);
        if (!again && delay_ms > 0)
            perf__aws_pause(aws, delay_ms); /* a long poll never spins */
        if (!again)
            return rc;
        rc = perf__aws_pause(aws, delay_ms);
        if (rc)
            return perf__aws_give_up(c, rc);
    }
}

int perf_aws_perform(perf_aws *aws, const perf_aws_request *request, perf_aws_reply **out)
{
    struct perf__aws_call call;
    perf_aws_request own;
    if (!aws || !request || !out)
        return perf__fail(PERF_EINVAL, "perf_aws_perform needs a client, a request and a place for "
                                       "the reply");
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    int rc = perf__aws_check_request(aws, request, &own);
    if (!rc && atomic_load(&aws->closing))
        rc = perf__fail(PERF_ECLOSED, "the client is being closed");
    if (!rc)
        rc = perf__aws_begin(&call, aws, &own);
    if (rc)
        return rc;
    rc = attempts(&call, out);
    perf__aws_end(&call);
    return rc;
}

int perf_aws_call(perf_aws *aws, const char *operation, const void *body, size_t len,
                  int64_t timeout_ms, perf_aws_reply **out)
{
    perf_aws_request request = PERF_AWS_REQUEST_INIT;
    if (aws && aws->service.protocol == PERF_AWS_PROTOCOL_REST)
        return perf__fail(PERF_EINVAL, "%s is a REST service; use perf_aws_perform", aws->name);
    request.operation = operation;
    request.body = (perf_bytes){body, len};
    request.timeout_ms = timeout_ms;
    return perf_aws_perform(aws, &request, out);
}
