/* SPDX-License-Identifier: MIT */
/*
 * aws_bedrock.c - requests to Bedrock's runtime, and hearing what it streams.
 *
 * Source: Amazon Bedrock Runtime API Reference. An event's payload is JSON; that
 * of InvokeModelWithResponseStream wraps the model's own JSON into base64, which
 * is taken off here. Any thread; an ear is one thread's at a time.
 */
#include "aws_bedrock.h"

#include <cjson/cJSON.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "aws_canonical.h"

/* -------------------------------------------------------------------- the request */

static void add(struct perf__bedrock_call *c, const char *name, const char *value)
{
    if (value)
        c->headers[c->request.header_count++] = (perf_http_header){name, value};
}

static int check(perf_aws *bedrock, const char *model_id, const void *body, size_t len)
{
    if (!bedrock || !model_id || (len && !body))
        return perf__fail(PERF_EINVAL, "Bedrock needs a client, a model id and a body");
    if (bedrock->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (bedrock->service.protocol != PERF_AWS_PROTOCOL_REST ||
        strcmp(bedrock->signing_name, "bedrock") != 0)
        return perf__fail(PERF_EINVAL,
                          "the client is one of %s; open one for the service \"bedrock-runtime\"",
                          bedrock->name);
    return perf__check_len("model_id", strnlen(model_id, PERF__BEDROCK_MODEL_MAX + 1), 1,
                           PERF__BEDROCK_MODEL_MAX);
}

int perf__bedrock_begin(struct perf__bedrock_call *c, perf_aws *bedrock, int64_t kind,
                        bool streamed, const char *model_id, const void *body, size_t len,
                        const perf_bedrock_options *options)
{
    static const perf_aws_request none = PERF_AWS_REQUEST_INIT;
    bool invoke = kind == PERF_BEDROCK_INVOKE;
    int rc = check(bedrock, model_id, body, len);
    if (!rc)
        rc = perf__options_take("perf_bedrock_options", options, &c->options, sizeof c->options);
    if (!rc && kind != PERF_BEDROCK_INVOKE && kind != PERF_BEDROCK_CONVERSE)
        rc = perf__fail(PERF_EINVAL,
                        "kind is %lld; give PERF_BEDROCK_INVOKE or "
                        "PERF_BEDROCK_CONVERSE",
                        (long long)kind);
    const perf_bedrock_options *o = &c->options;
    if (!rc && !o->guardrail_id != !o->guardrail_version)
        rc = perf__fail(PERF_EINVAL, "guardrail_id and guardrail_version go together");
    if (!rc && !invoke && (o->accept || o->guardrail_id || o->trace || o->latency))
        rc = perf__fail(PERF_EINVAL, "accept, guardrail_id, trace and latency are for invoke; "
                                     "converse has them in its JSON");
    if (rc)
        return rc;
    const char *what = invoke ? (streamed ? "/invoke-with-response-stream" : "/invoke")
                              : (streamed ? "/converse-stream" : "/converse");
    struct perf__writer w = {c->path, c->path + sizeof c->path - 1, false};
    perf__put(&w, "/model/", 7);
    perf__put_encoded(&w, model_id, strlen(model_id), 0);
    perf__put(&w, what, strlen(what));
    *w.at = 0;
    c->request = none;
    c->request.operation = invoke ? (streamed ? "InvokeModelWithResponseStream" : "InvokeModel")
                                  : (streamed ? "ConverseStream" : "Converse");
    c->request.method = "POST";
    c->request.path = c->path;
    c->request.headers = c->headers;
    c->request.body = (perf_bytes){body, len};
    c->request.timeout_ms = o->timeout_ms;
    add(c, "content-type", o->content_type ? o->content_type : "application/json");
    if (streamed && invoke)
        add(c, "x-amzn-bedrock-accept", o->accept);
    else
        add(c, "accept", o->accept);
    if (streamed)
        add(c, "accept", "application/vnd.amazon.eventstream");
    add(c, "x-amzn-bedrock-guardrailidentifier", o->guardrail_id);
    add(c, "x-amzn-bedrock-guardrailversion", o->guardrail_version);
    add(c, "x-amzn-bedrock-trace", o->trace);
    add(c, "x-amzn-bedrock-performanceconfig-latency", o->latency);
    return PERF_OK;
}

static int ask(perf_aws *bedrock, int64_t kind, const char *model_id, const void *body, size_t len,
               const perf_bedrock_options *options, perf_aws_reply **out)
{
    struct perf__bedrock_call c;
    if (!out)
        return perf__fail(PERF_EINVAL, "there is no place for Bedrock's reply");
    int rc = perf__bedrock_begin(&c, bedrock, kind, false, model_id, body, len, options);
    return rc ? rc : perf_aws_perform(bedrock, &c.request, out);
}

int perf_bedrock_invoke(perf_aws *bedrock, const char *model_id, const void *body, size_t len,
                        const perf_bedrock_options *options, perf_aws_reply **out)
{
    return ask(bedrock, PERF_BEDROCK_INVOKE, model_id, body, len, options, out);
}

int perf_bedrock_converse(perf_aws *bedrock, const char *model_id, const void *json, size_t len,
                          const perf_bedrock_options *options, perf_aws_reply **out)
{
    return ask(bedrock, PERF_BEDROCK_CONVERSE, model_id, json, len, options, out);
}

/* ------------------------------------------------------------------------- the ear */

int perf__bedrock_ear_open(struct perf__bedrock_ear *ear, perf_aws *aws, int64_t kind,
                           perf_bedrock_event_fn on_event, void *ctx)
{
    perf_eventstream_options o = PERF_EVENTSTREAM_OPTIONS_INIT;
    memset(ear, 0, sizeof *ear);
    ear->aws = aws;
    ear->kind = kind;
    ear->on_event = on_event;
    ear->ctx = ctx;
    o.host = &aws->host.view;
    return perf_eventstream_open(&o, &ear->events);
}

void perf__bedrock_ear_close(struct perf__bedrock_ear *ear)
{
    perf_eventstream_close(ear->events);
    ear->events = NULL;
}

static void put_text(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text && text[n] && n + 1 < size; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = 0;
}

/* Exceptions of a stream have names of their own, beside those of replies. */
static int status_of(const struct perf__aws_error *e)
{
    static const struct {
        const char *code;
        int status;
    } known[] = {{"throttlingException", PERF_ETHROTTLED},
                 {"serviceUnavailableException", PERF_EUNAVAILABLE},
                 {"modelTimeoutException", PERF_ETIMEDOUT},
                 {"accessDeniedException", PERF_EACCESS}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcasecmp(known[i].code, e->code))
            return known[i].status;
    return perf__aws_error_status_of(e);
}

static int on_exception(struct perf__bedrock_ear *ear, const char *code, const char *message)
{
    const char *data = perf_eventstream_payload(ear->events, NULL);
    cJSON *json = message ? NULL : cJSON_Parse(data);
    if (json) {
        message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "message"));
        if (!message)
            message =
                cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "originalMessage"));
    }
    ear->error.status = 200;
    put_text(ear->error.code, sizeof ear->error.code, code ? code : "unnamed");
    put_text(ear->error.message, sizeof ear->error.message, message);
    cJSON_Delete(json);
    return perf__fail(status_of(&ear->error), "%s: %s: %s (within its stream)", ear->aws->name,
                      ear->error.code, ear->error.message);
}

/* {"bytes": "<base64>", ...}: the bytes. *out is freed by the caller. */
static int unwrap(struct perf__bedrock_ear *ear, const char *json, size_t len, char **out,
                  size_t *out_len)
{
    const perf_allocator *a = &ear->aws->host.allocator;
    cJSON *object = cJSON_ParseWithLength(json, len);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "bytes"));
    size_t n = text ? strlen(text) : 0;
    char *bytes = NULL;
    int rc = PERF_EPROTOCOL;
    if (text && n % 4 == 0 && n < INT32_MAX) {
        bytes = perf__alloc(a, n / 4 * 3 + 1);
        int got = bytes
                      ? EVP_DecodeBlock((unsigned char *)bytes, (const unsigned char *)text, (int)n)
                      : 0;
        rc = !bytes ? PERF_ENOMEM : got < 0 ? PERF_EPROTOCOL : PERF_OK;
        if (!rc) {
            *out_len = (size_t)got - (n && text[n - 1] == '=') - (n > 1 && text[n - 2] == '=');
            bytes[*out_len] = 0;
        }
    }
    cJSON_Delete(object);
    if (rc == PERF_OK) {
        *out = bytes;
        return rc;
    }
    perf__free(a, bytes);
    return rc == PERF_ENOMEM ? perf__fail_nomem("an event of Bedrock")
                             : perf__fail(rc, "a chunk of Bedrock's stream has no base64 in it");
}

static int on_message(struct perf__bedrock_ear *ear)
{
    const char *kind = perf_eventstream_text(ear->events, ":message-type");
    const char *type = perf_eventstream_text(ear->events, ":event-type");
    size_t len;
    const char *json = perf_eventstream_payload(ear->events, &len);
    if (kind && !strcmp(kind, "exception"))
        return on_exception(ear, perf_eventstream_text(ear->events, ":exception-type"), NULL);
    if (kind && !strcmp(kind, "error")) {
        const char *message = perf_eventstream_text(ear->events, ":error-message");
        return on_exception(ear, perf_eventstream_text(ear->events, ":error-code"),
                            message ? message : "");
    }
    if (!type)
        return perf__fail(PERF_EPROTOCOL, "an event of Bedrock's stream has no type");
    if (ear->kind != PERF_BEDROCK_INVOKE || strcmp(type, "chunk") != 0)
        return ear->on_event(ear->ctx, type, json, len);
    char *bytes = NULL;
    int rc = unwrap(ear, json, len, &bytes, &len);
    if (!rc)
        rc = ear->on_event(ear->ctx, type, bytes, len);
    perf__free(&ear->aws->host.allocator, bytes);
    return rc;
}

int perf__bedrock_ear_hear(void *ctx, const perf_http_reply *reply, const void *data, size_t len)
{
    struct perf__bedrock_ear *ear = ctx;
    const char *at = data, *id = perf_http_reply_header(reply, "x-amzn-requestid");
    if (!*ear->error.request_id)
        put_text(ear->error.request_id, sizeof ear->error.request_id, id);
    while (len && !ear->rc) {
        size_t used = 0;
        int rc = perf_eventstream_feed(ear->events, at, len, &used);
        if (rc == PERF_OK) {
            rc = on_message(ear);
            if (rc > 0) /* PERF_MISS is no way to end it */
                rc = perf__fail(PERF_ECANCELED, "on_event returned %d", rc);
        }
        at += used;
        len -= used;
        if (rc < 0) {
            ear->rc = rc;
            snprintf(ear->why, sizeof ear->why, "%s", perf_last_error());
        }
    }
    return ear->rc;
}

int perf__bedrock_ear_end(struct perf__bedrock_ear *ear, int rc)
{
    if (ear->rc) {
        if (ear->error.status)
            perf__aws_error_remember(&ear->error);
        return perf__fail(ear->rc, "%s", ear->why);
    }
    return rc ? rc : perf_eventstream_finish(ear->events);
}

static int hear(perf_aws *bedrock, int64_t kind, const char *model_id, const void *body, size_t len,
                const perf_bedrock_options *options, perf_bedrock_event_fn on_event, void *ctx)
{
    struct perf__bedrock_call c;
    struct perf__bedrock_ear ear;
    perf_aws_reply *reply = NULL;
    if (!on_event)
        return perf__fail(PERF_EINVAL, "on_event is NULL; or use perf_bedrock_stream_open");
    int rc = perf__bedrock_begin(&c, bedrock, kind, true, model_id, body, len, options);
    if (!rc)
        rc = perf__bedrock_ear_open(&ear, bedrock, kind, on_event, ctx);
    if (rc)
        return rc;
    c.request.write = perf__bedrock_ear_hear;
    c.request.write_ctx = &ear;
    rc = perf_aws_perform(bedrock, &c.request, &reply);
    rc = perf__bedrock_ear_end(&ear, rc);
    perf_aws_reply_release(reply);
    perf__bedrock_ear_close(&ear);
    return rc;
}

int perf_bedrock_invoke_stream(perf_aws *bedrock, const char *model_id, const void *body,
                               size_t len, const perf_bedrock_options *options,
                               perf_bedrock_event_fn on_event, void *ctx)
{
    return hear(bedrock, PERF_BEDROCK_INVOKE, model_id, body, len, options, on_event, ctx);
}

int perf_bedrock_converse_stream(perf_aws *bedrock, const char *model_id, const void *json,
                                 size_t len, const perf_bedrock_options *options,
                                 perf_bedrock_event_fn on_event, void *ctx)
{
    return hear(bedrock, PERF_BEDROCK_CONVERSE, model_id, json, len, options, on_event, ctx);
}
