/* SPDX-License-Identifier: MIT */
/*
 * http_reply.c - what came back.
 *
 * Every byte is the peer's choice: lines, counts and sizes are bounded before
 * anything is kept. Small replies need one block for the headers and one for
 * the body.
 */
#include "http_reply.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

perf_http_reply *perf__http_reply_new(const perf_allocator *allocator)
{
    perf_http_reply *reply = perf__alloc(allocator, sizeof *reply);
    if (!reply)
        return NULL;
    memset(reply, 0, offsetof(struct perf_http_reply, inline_fields));
    reply->allocator = *allocator;
    reply->text = reply->inline_text;
    reply->text_size = sizeof reply->inline_text;
    reply->fields = reply->inline_fields;
    reply->field_slots = PERF__HTTP_INLINE_HEADERS;
    return reply;
}

/* Makes *block, of *size elements, hold need; the inline one is copied out of. */
static bool grow(perf_http_reply *reply, void **block, void *in_place, size_t *size, size_t need,
                 size_t unit)
{
    if (need <= *size)
        return true;
    size_t wanted = *size * 2 > need ? *size * 2 : need;
    void *bigger;
    if (*block == in_place) {
        bigger = perf__alloc(&reply->allocator, wanted * unit);
        if (bigger)
            memcpy(bigger, in_place, *size * unit);
    } else {
        bigger = perf__realloc(&reply->allocator, *block, wanted * unit);
    }
    if (!bigger)
        return false;
    *block = bigger;
    *size = wanted;
    return true;
}

static bool grow_text(perf_http_reply *reply, size_t more)
{
    void *block = reply->text;
    bool grown =
        grow(reply, &block, reply->inline_text, &reply->text_size, reply->text_len + more, 1);
    reply->text = block;
    return grown;
}

static void put(perf_http_reply *reply, const char *text, size_t len)
{
    memcpy(reply->text + reply->text_len, text, len);
    reply->text_len += len;
    reply->text[reply->text_len++] = '\0';
}

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **text, size_t *len)
{
    while (*len && blank(**text))
        ++*text, --*len;
    while (*len && blank((*text)[*len - 1]))
        --*len;
}

/* "HTTP/1.1 200 OK" begins a reply, which forgets an interim one before it. */
static int status_line(perf_http_reply *reply, const char *line, size_t len)
{
    const char *space = memchr(line, ' ', len);
    size_t left = space ? len - (size_t)(space - line) - 1 : 0;
    if (left < 3)
        return PERF_EPROTOCOL;
    int64_t status = 0;
    for (int i = 1; i <= 3; i++) {
        if (space[i] < '0' || space[i] > '9')
            return PERF_EPROTOCOL;
        status = status * 10 + (space[i] - '0');
    }
    if (status < 100 || (left > 3 && !blank(space[4])))
        return PERF_EPROTOCOL;
    reply->status = status;
    reply->field_count = 0;
    reply->text_len = 0;
    reply->in_headers = true;
    return PERF_OK;
}

/* A line that begins with a blank belongs to the value before it (RFC 9112, 5.2). */
static int folded(perf_http_reply *reply, const char *line, size_t len)
{
    if (!reply->field_count)
        return PERF_EPROTOCOL;
    trim(&line, &len);
    if (!len)
        return PERF_OK;
    if (!grow_text(reply, len + 1))
        return PERF_ENOMEM;
    reply->text[reply->text_len - 1] = ' ';
    put(reply, line, len);
    return PERF_OK;
}

int perf__http_reply_line(perf_http_reply *reply, const char *line, size_t len, uint64_t max_bytes)
{
    reply->header_bytes += len;
    if (reply->header_bytes > max_bytes)
        return PERF_ETOOBIG;
    while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    if (memchr(line, '\0', len))
        return PERF_EPROTOCOL;
    if (!reply->in_headers && !reply->in_body && len > 5 && !memcmp(line, "HTTP/", 5))
        return status_line(reply, line, len);
    if (!reply->status)
        return PERF_EPROTOCOL;
    if (!len) {
        reply->in_headers = false;
        return PERF_OK;
    }
    if (blank(*line))
        return folded(reply, line, len);
    const char *colon = memchr(line, ':', len);
    if (!colon || colon == line)
        return PERF_OK; /* not a header; others ignore it, too */
    if (reply->field_count == PERF__HTTP_HEADERS_MAX)
        return PERF_ETOOBIG;

    const char *name = line, *value = colon + 1;
    size_t name_len = (size_t)(colon - line), value_len = len - name_len - 1;
    trim(&name, &name_len);
    trim(&value, &value_len);
    void *fields = reply->fields;
    bool grown = grow(reply, &fields, reply->inline_fields, &reply->field_slots,
                      reply->field_count + 1, sizeof *reply->fields);
    reply->fields = fields;
    if (!grown || !grow_text(reply, name_len + value_len + 2))
        return PERF_ENOMEM;
    struct perf__http_field *field = &reply->fields[reply->field_count++];
    field->name = (uint32_t)reply->text_len;
    put(reply, name, name_len);
    field->value = (uint32_t)reply->text_len;
    put(reply, value, value_len);
    return PERF_OK;
}

int64_t perf__http_reply_length(const perf_http_reply *reply)
{
    const char *text = perf_http_reply_header(reply, "content-length");
    if (!text || !*text)
        return -1;
    int64_t length = 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || length > INT64_MAX / 10 - 1)
            return -1;
        length = length * 10 + (*text - '0');
    }
    return length;
}

int perf__http_reply_append(perf_http_reply *reply, const void *data, size_t len,
                            uint64_t max_bytes)
{
    /* What the peer promises is only believed up to a megabyte ahead of what it sends. */
    const size_t believed = 1 << 20;
    if (len > max_bytes - reply->body_len)
        return PERF_ETOOBIG;
    size_t need = reply->body_len + len + 1;
    if (need > reply->body_size) {
        size_t wanted = reply->body_size * 2 > need ? reply->body_size * 2 : need;
        if (!reply->body) {
            int64_t promised = perf__http_reply_length(reply);
            if (promised > 0 && (uint64_t)promised > max_bytes)
                return PERF_ETOOBIG;
            size_t ahead = promised < (int64_t)believed ? (size_t)(promised + 1) : believed;
            wanted = promised > 0 && ahead > wanted ? ahead : wanted;
        }
        char *body = perf__realloc(&reply->allocator, reply->body, wanted);
        if (!body)
            return PERF_ENOMEM;
        reply->body = body;
        reply->body_size = wanted;
    }
    memcpy(reply->body + reply->body_len, data, len);
    reply->body_len += len;
    reply->body[reply->body_len] = '\0';
    return PERF_OK;
}

int64_t perf_http_reply_status(const perf_http_reply *reply)
{
    return reply ? reply->status : 0;
}

/* Not strcasecmp, which asks the locale. */
static bool same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        unsigned char x = (unsigned char)*a, y = (unsigned char)*b;
        if (x != y && ((x | 32) != (y | 32) || (x | 32) < 'a' || (x | 32) > 'z'))
            return false;
        if (!x)
            return true;
    }
}

const char *perf_http_reply_header(const perf_http_reply *reply, const char *name)
{
    if (!reply || !name)
        return NULL;
    for (size_t i = 0; i < reply->field_count; i++)
        if (same_name(reply->text + reply->fields[i].name, name))
            return reply->text + reply->fields[i].value;
    return NULL;
}

int perf_http_reply_header_at(const perf_http_reply *reply, size_t i, const char **name,
                              const char **value)
{
    if (!reply || !name || !value)
        return perf__fail(PERF_EINVAL, "perf_http_reply_header_at needs a reply and two places");
    if (i >= reply->field_count)
        return PERF_MISS;
    *name = reply->text + reply->fields[i].name;
    *value = reply->text + reply->fields[i].value;
    return PERF_OK;
}

const void *perf_http_reply_body(const perf_http_reply *reply)
{
    return reply && reply->body ? reply->body : "";
}

size_t perf_http_reply_size(const perf_http_reply *reply)
{
    return reply ? reply->body_len : 0;
}

void perf_http_reply_release(perf_http_reply *reply)
{
    if (!reply)
        return;
    perf_allocator allocator = reply->allocator;
    if (reply->text != reply->inline_text)
        perf__free(&allocator, reply->text);
    if (reply->fields != reply->inline_fields)
        perf__free(&allocator, reply->fields);
    perf__free(&allocator, reply->body);
    perf__free(&allocator, reply);
}
