/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what a server sends, line by line, and any bytes as the request of a careless
 * caller: bounds hold, every accepted header is found again, no line end gets through, and what is
 * refused names its field.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(perf_http_reply *reply)
{
    const char *name, *value;
    size_t i = 0;
    for (; perf_http_reply_header_at(reply, i, &name, &value) == PERF_OK; i++)
        if (!*name || strpbrk(name, "\n:") || strchr(value, '\n') ||
            !perf_http_reply_header(reply, name))
            abort();
    if (i > PERF__HTTP_HEADERS_MAX)
        abort();
    if (perf_http_reply_size(reply) > 512 ||
        strlen(perf_http_reply_body(reply)) > perf_http_reply_size(reply))
        abort();
    if (perf_http_reply_status(reply) &&
        (perf_http_reply_status(reply) < 100 || perf_http_reply_status(reply) > 999))
        abort();
}

static void receive(const uint8_t *data, size_t size)
{
    perf_http_reply *reply = perf__http_reply_new(&perf__default_allocator);
    int rc = PERF_OK;
    if (!reply)
        return;
    while (size && !rc && !reply->in_body) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) + 1 : size;
        char *line = malloc(len); /* exactly, so that a sanitizer sees one byte more */
        if (!line)
            abort();
        memcpy(line, data, len);
        bool was_in_headers = reply->in_headers;
        rc = perf__http_reply_line(reply, line, len, 2048);
        free(line);
        data += len;
        size -= len;
        if (!rc && was_in_headers && !reply->in_headers && reply->status >= 200)
            reply->in_body = true;
    }
    if (!rc && size && !perf__http_reply_append(reply, data, size / 2, 512))
        perf__http_reply_append(reply, data + size / 2, size - size / 2, 512);
    check_reply(reply);
    perf_http_reply_release(reply);
}

/* The strings of a request, each up to the next zero byte. */
static const char *next(char **at, const char *end)
{
    const char *text = *at;
    *at += strlen(text);
    if (*at < end)
        ++*at;
    return text;
}

static void send_request(const uint8_t *data, size_t size)
{
    static perf_http *http; /* one for all inputs; it is never used to send */
    if (!http && perf_http_open(NULL, &http))
        abort();
    char *text = malloc(size + 1), *at = text;
    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    const char *end = text + size;
    perf_http_request r = PERF_HTTP_REQUEST_INIT;
    perf_http_header headers[3];
    r.url = next(&at, end);
    r.method = next(&at, end);
    for (int i = 0; i < 3; i++) {
        headers[i].name = next(&at, end);
        headers[i].value = next(&at, end);
    }
    r.headers = headers;
    r.header_count = size % 4;
    if (!*r.method)
        r.method = NULL;
    r.body = (perf_bytes){at, (size_t)(end - at)};
    r.copy_body = 1;
    perf_http_call *call;
    int rc = perf__http_call_make(http, &r, &call);
    if (rc && (rc != PERF_EINVAL || !strstr(perf_last_error(), "perf_http_request")))
        abort();
    if (!rc) {
        if (strpbrk(call->url, "\r\n \t") || strpbrk(call->method, "\r\n \t") ||
            strcmp(call->url, r.url) != 0 || strchr(call->name, '@'))
            abort();
        for (struct curl_slist *line = call->headers; line; line = line->next)
            if (strpbrk(line->data, "\r\n"))
                abort();
        if (call->body_len && memcmp(call->body, at, call->body_len) != 0)
            abort();
        perf__http_call_free(call);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    receive(data, size);
    send_request(data, size);
    return 0;
}
