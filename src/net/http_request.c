/* SPDX-License-Identifier: MIT */
/*
 * http_request.c - a caller's request, checked and copied into one block.
 *
 * What could split a request in two (line ends, lengths that disagree) or show
 * a secret in an error (user and password in the URL) is refused here. Any
 * thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "http.h"

enum {
    URL_MAX = 65536,
    HOST_MAX = 255,
    METHOD_MAX = 31,
    HEADERS_MAX = 256,
    HEADER_BYTES_MAX = 1 << 20,
    NAME_MAX_ = HOST_MAX + 16, /* https://...:65535 */
    EXPECT_ABOVE = 1 << 20,    /* a streamed body beyond this asks before it is sent */
    DAY_MS = 86400000,
};

/* Headers that curl adds by itself, unless told so. */
enum { NO_ACCEPT, NO_TYPE, NO_EXPECT, SUPPRESSED };
static const char *const suppressed[SUPPRESSED] = {"Accept:", "Content-Type:", "Expect:"};

static bool same_name(const char *a, const char *b, size_t b_len)
{
    size_t i = 0;
    for (; i < b_len && a[i]; i++) {
        char x = a[i] >= 'A' && a[i] <= 'Z' ? (char)(a[i] + 32) : a[i];
        char y = b[i] >= 'A' && b[i] <= 'Z' ? (char)(b[i] + 32) : b[i];
        if (x != y)
            return false;
    }
    return i == b_len && !a[i];
}

/* RFC 9110, 5.6.2: what methods and header names are made of. */
static bool is_token(const char *text, size_t max)
{
    size_t len = 0;
    for (; text[len]; len++)
        if (len == max || !strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                                  text[len]))
            return false;
    return len > 0;
}

static const char *end_of_host(const char *at)
{
    if (*at == '[') {
        const char *end = strchr(at, ']');
        return end ? end + 1 : at;
    }
    while (*at && !strchr(":/?#", *at))
        at++;
    return at;
}

/* Fills name with scheme://host:port in lower case. The text of the URL is not shown: it may hold a
 * signature. */
static int parse_url(const char *url, size_t *len, bool *https, char name[NAME_MAX_])
{
    if (!url)
        return perf__fail(PERF_EINVAL, "perf_http_request.url is NULL; give one");
    *len = strnlen(url, URL_MAX + 1);
    if (*len > URL_MAX)
        return perf__fail(PERF_EINVAL, "perf_http_request.url is longer than %d bytes", URL_MAX);
    for (size_t i = 0; i < *len; i++)
        if ((unsigned char)url[i] <= ' ' || url[i] == 0x7f)
            return perf__fail(PERF_EINVAL,
                              "perf_http_request.url holds a blank or control character at byte "
                              "%zu; percent-encode it",
                              i);
    *https = !strncasecmp(url, "https://", 8);
    if (!*https && strncasecmp(url, "http://", 7) != 0)
        return perf__fail(PERF_EINVAL,
                          "perf_http_request.url begins with neither http:// nor https://");
    const char *host = url + (*https ? 8 : 7);
    const char *end = host + strcspn(host, "/?#"), *host_end = end_of_host(host);
    if (memchr(host, '@', (size_t)(end - host)))
        return perf__fail(PERF_EINVAL, "perf_http_request.url holds a user or password; send an "
                                       "Authorization header instead");
    size_t host_len = (size_t)(host_end - host);
    if (!host_len || host_len > HOST_MAX || host_end > end)
        return perf__fail(PERF_EINVAL,
                          "perf_http_request.url has no host, or one longer than %d bytes",
                          HOST_MAX);
    for (const char *c = host; *host != '[' && c < host_end; c++)
        if (strchr("\"<>\\^`{|}[]%", *c))
            return perf__fail(PERF_EINVAL, "the host in perf_http_request.url holds a '%c'", *c);
    unsigned port = *https ? 443 : 80;
    if (host_end < end) {
        if (*host_end != ':' || end - host_end > 6)
            return perf__fail(PERF_EINVAL, "the port in perf_http_request.url is no number");
        if (end - host_end > 1)
            port = 0;
        for (const char *c = host_end + 1; c < end; c++) {
            if (*c < '0' || *c > '9')
                return perf__fail(PERF_EINVAL, "the port in perf_http_request.url is no number");
            port = port * 10 + (unsigned)(*c - '0');
        }
        if (!port || port > 65535)
            return perf__fail(PERF_EINVAL,
                              "the port in perf_http_request.url is %u; give 1 to 65535", port);
    }
    snprintf(name, NAME_MAX_, "%s://%.*s:%u", *https ? "https" : "http", (int)host_len, host, port);
    for (char *c = name; *c; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + 32);
    return PERF_OK;
}

/* Decides what becomes of one header: kept, left out, or refused. */
static int check_header(const perf_http_header *header, size_t i, int64_t body_len, bool *keep,
                        bool given[SUPPRESSED], size_t *bytes)
{
    *keep = true;
    if (!header->name || !header->value || !is_token(header->name, HEADER_BYTES_MAX))
        return perf__fail(PERF_EINVAL,
                          "perf_http_request.headers[%zu] lacks a name or value, or its name has "
                          "characters that no header name may have",
                          i);
    if (strpbrk(header->value, "\r\n"))
        return perf__fail(PERF_EINVAL,
                          "the value of perf_http_request.headers[%zu], %.64s, holds a line end", i,
                          header->name);
    if (!strcasecmp(header->name, "transfer-encoding"))
        return perf__fail(PERF_EINVAL,
                          "perf_http_request.headers[%zu] is Transfer-Encoding; leave "
                          "it out and set read_len to -1",
                          i);
    if (!strcasecmp(header->name, "content-length")) {
        char length[24];
        snprintf(length, sizeof length, "%lld", (long long)body_len);
        if (strcmp(header->value, length) != 0)
            return perf__fail(PERF_EINVAL,
                              "perf_http_request.headers[%zu] is a Content-Length that is not the "
                              "body's; leave it out",
                              i);
        *keep = false;
        return PERF_OK;
    }
    for (int s = 0; s < SUPPRESSED; s++)
        if (same_name(header->name, suppressed[s], strlen(suppressed[s]) - 1))
            given[s] = true;
    *bytes += strlen(header->name) + strlen(header->value) + 3;
    if (*bytes > HEADER_BYTES_MAX)
        return perf__fail(PERF_EINVAL, "perf_http_request.headers are more than %d bytes together",
                          HEADER_BYTES_MAX);
    return PERF_OK;
}

static int check_numbers(const perf_http_request *r)
{
    int rc;
    if ((rc = perf__check_range("perf_http_request.timeout_ms", r->timeout_ms, 0, DAY_MS)) ||
        (rc = perf__check_range("perf_http_request.first_byte_timeout_ms", r->first_byte_timeout_ms,
                                0, DAY_MS)) ||
        (rc = perf__check_range("perf_http_request.read_len", r->read_len, -1, INT64_MAX)) ||
        (rc = perf__check_range("perf_http_request.copy_body", r->copy_body, 0, 1)) ||
        (rc = perf__check_range("perf_http_request.header_count", (int64_t)r->header_count, 0,
                                HEADERS_MAX)))
        return rc;
    if (r->header_count && !r->headers)
        return perf__fail(PERF_EINVAL, "perf_http_request.headers is NULL, header_count is %zu",
                          r->header_count);
    if (r->body.len && !r->body.data)
        return perf__fail(PERF_EINVAL, "perf_http_request.body.data is NULL, body.len is %zu",
                          r->body.len);
    if (r->read && r->body.data)
        return perf__fail(PERF_EINVAL,
                          "perf_http_request has both body and read; give one of them");
    if (r->method && !is_token(r->method, METHOD_MAX))
        return perf__fail(PERF_EINVAL,
                          "perf_http_request.method is empty, longer than %d bytes, or holds a "
                          "character that no method may have",
                          METHOD_MAX);
    return PERF_OK;
}

static bool is_idempotent(const char *method)
{
    static const char *const those[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < sizeof those / sizeof *those; i++)
        if (!strcmp(method, those[i]))
            return true;
    return false;
}

static char *copy(char **at, const void *data, size_t len)
{
    char *to = *at;
    if (len)
        memcpy(to, data, len);
    *at += len;
    return to;
}

/* "name: value"; curl takes "name;" for an empty one, and "name:" for none at all. */
static char *copy_header(char **at, const perf_http_header *header)
{
    const char *value = header->value + strspn(header->value, " \t");
    char *line = copy(at, header->name, strlen(header->name));
    copy(at, *value ? ": " : ";", *value ? 2 : 1);
    copy(at, value, strlen(value) + 1);
    return line;
}

static void link_header(perf_http_call *call, struct curl_slist *node, char *line,
                        struct curl_slist **last)
{
    *node = (struct curl_slist){line, NULL};
    if (*last)
        (*last)->next = node;
    else
        call->headers = node;
    *last = node;
}

int perf__http_call_make(perf_http *http, const perf_http_request *request, perf_http_call **out)
{
    perf_http_request r;
    char name[NAME_MAX_];
    bool https = false, given[SUPPRESSED] = {false};
    size_t url_len = 0, header_bytes = 0, kept = 0;
    if (!request)
        return perf__fail(PERF_EINVAL, "request is NULL; give a perf_http_request");
    int rc = perf__options_take("perf_http_request", request, &r, sizeof r);
    if (rc || (rc = check_numbers(&r)) || (rc = parse_url(r.url, &url_len, &https, name)))
        return rc;
    bool has_body = r.body.data || r.read;
    const char *method = r.method ? r.method : has_body ? "POST" : "GET";
    for (size_t i = 0; i < r.header_count; i++) {
        bool keep;
        if ((rc = check_header(&r.headers[i], i, r.read ? r.read_len : (int64_t)r.body.len, &keep,
                               given, &header_bytes)))
            return rc;
        kept += keep;
    }

    size_t nodes = kept + SUPPRESSED, name_size = strlen(name) + 1,
           method_size = strlen(method) + 1;
    size_t size = sizeof **out + nodes * sizeof(struct curl_slist) + header_bytes + url_len + 1 +
                  name_size + method_size;
    if (__builtin_add_overflow(size, r.copy_body ? r.body.len : 0, &size))
        return perf__fail_nomem("a request");
    perf_http_call *call = perf__alloc(&http->host.allocator, size);
    if (!call)
        return perf__fail_nomem("a request");
    memset(call, 0, sizeof *call);
    struct curl_slist *node = (struct curl_slist *)(call + 1), *last = NULL;
    char *at = (char *)(node + nodes);

    call->http = http;
    call->refs = 1;
    call->method = copy(&at, method, method_size);
    call->url = copy(&at, r.url, url_len + 1);
    call->name = copy(&at, name, name_size);
    call->https = https;
    call->idempotent = is_idempotent(method);
    call->has_body = has_body;
    call->read = r.read;
    call->read_ctx = r.read_ctx;
    call->read_len = r.read_len;
    call->write = r.write;
    call->write_ctx = r.write_ctx;
    call->done = r.done;
    call->done_ctx = r.done_ctx;
    call->first_byte_ms =
        r.first_byte_timeout_ms ? r.first_byte_timeout_ms : http->options.first_byte_timeout_ms;
    call->max_body = r.max_body_bytes ? r.max_body_bytes
                     : r.write        ? UINT64_MAX
                                      : http->options.max_body_bytes;
    call->start_ms = perf__http_now_ms();
    call->deadline_ms = call->start_ms + (r.timeout_ms ? r.timeout_ms : http->options.timeout_ms);
    call->expect = r.read && (r.read_len < 0 || r.read_len > EXPECT_ABOVE);
    for (size_t i = 0; i < r.header_count; i++)
        if (strcasecmp(r.headers[i].name, "content-length") != 0)
            link_header(call, node++, copy_header(&at, &r.headers[i]), &last);
    for (int s = 0; s < SUPPRESSED; s++)
        if (!given[s] && !(s == NO_EXPECT && call->expect) && (s == NO_ACCEPT || has_body))
            link_header(call, node++, (char *)(uintptr_t)suppressed[s], &last);
    call->body_len = r.body.len;
    call->body = r.copy_body ? copy(&at, r.body.data, r.body.len) : r.body.data;
    *out = call;
    return PERF_OK;
}

void perf__http_call_free(perf_http_call *call)
{
    perf_http_reply_release(call->reply);
    perf__free(&call->http->host.allocator, call);
}

int perf__http_call_fail(perf_http_call *call, int status, const char *format, ...)
{
    int at = snprintf(call->error, sizeof call->error, "%s %.100s: ", call->method, call->name);
    va_list args;
    va_start(args, format);
    vsnprintf(call->error + at, sizeof call->error - (size_t)at, format, args);
    va_end(args);
    call->status = status;
    return status;
}
