/* SPDX-License-Identifier: MIT */
/*
 * aws_error.c - what a service says when it refuses: code, message, request id.
 *
 * Every protocol has its place for them; all are hostile bytes, so they are
 * bounded, and what is no printable ASCII becomes '?'. Any thread.
 */
#include <cjson/cJSON.h>
#include <expat.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "aws_client.h"

/* Thread-local by contract: it speaks of this thread's last call only. */
static _Thread_local struct perf__aws_error last;

void perf__aws_error_remember(const struct perf__aws_error *error)
{
    last = *error;
}

const char *perf_aws_error_code(void)
{
    return last.code;
}

int64_t perf_aws_error_status(void)
{
    return last.status;
}

const char *perf_aws_error_request_id(void)
{
    return last.request_id;
}

int64_t perf__aws_error_attempts(void)
{
    return last.attempts;
}

static void put(char *out, size_t size, const char *text, size_t len)
{
    size_t n = 0;
    for (; n < len && n + 1 < size && text[n]; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = 0;
}

/* "com.amazonaws.dynamodb.v20120810#SlowDown:http://..." is SlowDown. */
static void put_code(char *out, size_t size, const char *text)
{
    const char *hash = strchr(text, '#');
    if (hash)
        text = hash + 1;
    put(out, size, text, strcspn(text, ":;,"));
}

/* --------------------------------------------------------------------- XML */

struct xml {
    XML_Parser parser;
    struct perf__aws_error *out;
    char text[512];
    size_t len;
    unsigned depth;
};

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct xml *x = ctx;
    (void)name, (void)attributes;
    x->len = 0;
    if (++x->depth > 16)
        XML_StopParser(x->parser, XML_FALSE);
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    struct xml *x = ctx;
    size_t room = sizeof x->text - 1 - x->len;
    size_t n = len > 0 && (size_t)len < room ? (size_t)len : room;
    memcpy(x->text + x->len, text, n);
    x->len += n;
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    struct xml *x = ctx;
    struct perf__aws_error *e = x->out;
    x->text[x->len] = 0;
    if (!strcmp(name, "Code") && !*e->code)
        put_code(e->code, sizeof e->code, x->text);
    else if (!strcmp(name, "Message") && !*e->message)
        put(e->message, sizeof e->message, x->text, x->len);
    else if ((!strcmp(name, "RequestId") || !strcmp(name, "RequestID")) && !*e->request_id)
        put(e->request_id, sizeof e->request_id, x->text, x->len);
    x->len = 0;
    x->depth--;
}

/* No document of AWS has a DTD; entities are how XML bombs are made. */
static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    struct xml *x = ctx;
    (void)name, (void)system, (void)public, (void)internal;
    XML_StopParser(x->parser, XML_FALSE);
}

static void read_xml(const char *body, size_t len, struct perf__aws_error *out)
{
    struct xml x = {.parser = XML_ParserCreate(NULL), .out = out};
    if (!x.parser)
        return;
    XML_SetUserData(x.parser, &x);
    XML_SetElementHandler(x.parser, on_start, on_end);
    XML_SetCharacterDataHandler(x.parser, on_text);
    XML_SetStartDoctypeDeclHandler(x.parser, on_doctype);
    XML_Parse(x.parser, body, (int)len, 1); /* what was read before a fault counts */
    XML_ParserFree(x.parser);
}

/* -------------------------------------------------------------------- JSON */

static const char *member(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static void read_json(const char *body, size_t len, struct perf__aws_error *out)
{
    cJSON *object = cJSON_ParseWithLength(body, len);
    if (!object)
        return;
    const char *code = member(object, "__type");
    if (!code)
        code = member(object, "code");
    if (code && !*out->code)
        put_code(out->code, sizeof out->code, code);
    const char *message = member(object, "message");
    if (!message)
        message = member(object, "Message");
    if (message)
        put(out->message, sizeof out->message, message, strlen(message));
    cJSON_Delete(object);
}

/* --------------------------------------------------------------------- both */

static void from_header(const perf_http_reply *reply, const char *name, char *out, size_t size)
{
    const char *value = *out ? NULL : perf_http_reply_header(reply, name);
    if (value)
        put(out, size, value, strlen(value));
}

void perf__aws_error_read(const struct perf__aws_service *service, const perf_http_reply *reply,
                          const char *body, size_t len, struct perf__aws_error *out)
{
    memset(out, 0, sizeof *out);
    out->status = perf_http_reply_status(reply);
    const char *type = perf_http_reply_header(reply, "x-amzn-errortype");
    if (type)
        put_code(out->code, sizeof out->code, type);
    /* Services with two protocols in one say the other's code here: "code;Sender". */
    const char *query = perf_http_reply_header(reply, "x-amzn-query-error");
    (void)service;
    from_header(reply, "x-amzn-requestid", out->request_id, sizeof out->request_id);
    from_header(reply, "x-amz-request-id", out->request_id, sizeof out->request_id);
    if (!body) {
        body = perf_http_reply_body(reply);
        len = perf_http_reply_size(reply);
    }
    if (len > PERF__AWS_ERROR_BODY)
        len = PERF__AWS_ERROR_BODY;
    size_t blank = 0;
    while (blank < len && strchr(" \t\r\n", body[blank]))
        blank++;
    if (blank < len && body[blank] == '<')
        read_xml(body + blank, len - blank, out);
    else if (blank < len && body[blank] == '{')
        read_json(body + blank, len - blank, out);
    if (!*out->code && query)
        put_code(out->code, sizeof out->code, query);
}

static bool is_one_of(const char *code, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(code, *list))
            return true;
    return false;
}

bool perf__aws_error_is_clock(const char *code)
{
    static const char *const codes[] = {"RequestTimeTooSkewed",  "RequestExpired",
                                        "RequestInTheFuture",    "InvalidSignatureException",
                                        "SignatureDoesNotMatch", "AuthFailure",
                                        "AccessDeniedException", NULL};
    return is_one_of(code, codes);
}

bool perf__aws_error_is_expired(const char *code)
{
    static const char *const codes[] = {"ExpiredToken", "ExpiredTokenException",
                                        "TokenRefreshRequired", NULL};
    return is_one_of(code, codes);
}

int perf__aws_error_status_of(const struct perf__aws_error *e)
{
    static const char *const access[] = {"AccessDenied",
                                         "AccessDeniedException",
                                         "UnrecognizedClientException",
                                         "InvalidClientTokenId",
                                         "InvalidAccessKeyId",
                                         "SignatureDoesNotMatch",
                                         "InvalidSignatureException",
                                         "IncompleteSignature",
                                         "MissingAuthenticationToken",
                                         "MissingAuthenticationTokenException",
                                         "NotAuthorized",
                                         "OptInRequired",
                                         "RequestTimeTooSkewed",
                                         "RequestExpired",
                                         "AuthFailure",
                                         NULL};
    static const char *const conflict[] = {
        "ConditionalCheckFailedException", "TransactionCanceledException",
        "TransactionConflictException",    "PreconditionFailed",
        "ConditionalRequestConflict",      "OperationAborted",
        "ResourceInUseException",          NULL};
    static const char *const missing[] = {"NoSuchKey", "NoSuchVersion", NULL};
    if (is_one_of(e->code, missing) || (e->status == 404 && !*e->code))
        return PERF_MISS;
    if (is_one_of(e->code, conflict) || e->status == 409 || e->status == 412)
        return PERF_ECONFLICT;
    if (perf_outcome_of_http(e->status, e->code) == PERF_OUTCOME_THROTTLED)
        return PERF_ETHROTTLED;
    if (is_one_of(e->code, access) || perf__aws_error_is_expired(e->code) || e->status == 401 ||
        e->status == 403)
        return PERF_EACCESS;
    if (e->status == 503 || e->status == 502 || e->status == 504)
        return PERF_EUNAVAILABLE;
    return PERF_EREMOTE;
}

int64_t perf__aws_parse_date(const char *text)
{
    struct tm t = {0};
    char month[4];
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (!text || sscanf(text, "%*3c, %2d %3s %4d %2d:%2d:%2d GMT", &t.tm_mday, month, &t.tm_year,
                        &t.tm_hour, &t.tm_min, &t.tm_sec) != 6)
        return -1;
    const char *at = strstr(months, month);
    if (!at || strlen(month) != 3 || (at - months) % 3 || t.tm_year < 1970 || t.tm_year > 9999)
        return -1;
    if (t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour < 0 || t.tm_hour > 23 || t.tm_min < 0 ||
        t.tm_min > 59 || t.tm_sec < 0 || t.tm_sec > 60)
        return -1;
    t.tm_mon = (int)(at - months) / 3;
    t.tm_year -= 1900;
    return (int64_t)timegm(&t) * 1000;
}
