/* SPDX-License-Identifier: MIT */
/*
 * aws_eventstream.c - reading and writing event-stream messages.
 *
 * A message is: total length, length of headers, CRC-32 of those 8 bytes;
 * headers; payload; CRC-32 of all before. Big-endian. Source: "Amazon Event
 * Stream Specification" of the Smithy documentation. The prelude is checked
 * before memory is had for the rest, and the rest before any of it is shown.
 * A parser is one thread's at a time.
 */
#include <libperf/aws_eventstream.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "../base/alloc.h"
#include "../base/options.h"
#include "../base/status.h"

enum {
    PRELUDE = 12,
    TRAILER = 4,
    MESSAGE_MAX = 16 << 20,
    HEADERS_MAX = 128 << 10,
    COUNT_MAX = 256
};

struct perf_eventstream {
    perf_allocator allocator;
    size_t max;
    uint8_t prelude[PRELUDE];
    size_t total, headers_len; /* of the message being read; 0: the prelude is not whole */
    size_t have;
    uint8_t *message; /* total bytes and a zero byte, without the prelude */
    size_t message_size;
    char *text; /* of headers, zero-terminated each */
    size_t text_size;
    perf_eventstream_header headers[COUNT_MAX];
    size_t count;
    const uint8_t *payload; /* NULL: no message is whole */
    size_t payload_len;
    int rc;
    char why[160];
};

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t crc_of(uint32_t crc, const void *data, size_t len)
{
    return (uint32_t)crc32_z(crc, data, len);
}

/* ------------------------------------------------------------------ open, close */

int perf_eventstream_open(const perf_eventstream_options *options, perf_eventstream **out)
{
    perf_eventstream_options own;
    struct perf__host host;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_eventstream_open needs a place for the parser");
    int rc = perf__options_take("perf_eventstream_options", options, &own, sizeof own);
    if (!rc && own.max_message_bytes)
        rc = perf__check_range("max_message_bytes", (int64_t)own.max_message_bytes,
                               PRELUDE + TRAILER, MESSAGE_MAX);
    if (rc || (rc = perf__host_take(own.host, &host)))
        return rc;
    perf_eventstream *es = perf__calloc(&host.allocator, 1, sizeof *es);
    if (!es)
        return perf__fail_nomem("an event stream");
    es->allocator = host.allocator;
    es->max = own.max_message_bytes ? (size_t)own.max_message_bytes : MESSAGE_MAX;
    *out = es;
    return PERF_OK;
}

void perf_eventstream_close(perf_eventstream *es)
{
    if (!es)
        return;
    perf_allocator allocator = es->allocator;
    perf__free(&allocator, es->message);
    perf__free(&allocator, es->text);
    perf__free(&allocator, es);
}

/* ------------------------------------------------------------------------- read */

static int fail(perf_eventstream *es, int rc, const char *why)
{
    es->rc = rc;
    strncpy(es->why, why, sizeof es->why - 1);
    es->payload = NULL;
    es->count = 0;
    return perf__fail(rc, "%s", es->why);
}

/* NULL: no memory, and the old block stays. */
static void *grow(perf_eventstream *es, void *block, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return block;
    size_t doubled = *size * 2 > es->max ? wanted : *size * 2;
    if (doubled < wanted)
        doubled = wanted;
    void *more = perf__realloc(&es->allocator, block, doubled);
    if (more)
        *size = doubled;
    return more;
}

static int take_prelude(perf_eventstream *es)
{
    uint32_t total = get32(es->prelude), headers = get32(es->prelude + 4);
    if (crc_of(0, es->prelude, 8) != get32(es->prelude + 8))
        return fail(es, PERF_ECORRUPT, "the checksum of a message's lengths does not match");
    if (headers > HEADERS_MAX || total < PRELUDE + TRAILER || headers > total - (PRELUDE + TRAILER))
        return fail(es, PERF_EPROTOCOL, "a message's lengths do not fit each other");
    if (total > es->max)
        return fail(es, PERF_ETOOBIG, "a message is longer than max_message_bytes");
    uint8_t *message = grow(es, es->message, &es->message_size, total - PRELUDE + 1);
    es->message = message ? message : es->message;
    char *text = message ? grow(es, es->text, &es->text_size, headers + 1) : NULL;
    if (!text)
        return fail(es, PERF_ENOMEM, "out of memory for a message of an event stream");
    es->text = text;
    es->total = total;
    es->headers_len = headers;
    return PERF_OK;
}

struct reader {
    const uint8_t *at, *end;
    char *text; /* room for what was read, as text */
};

static uint64_t get_number(struct reader *r, size_t len, bool *ok)
{
    uint64_t v = 0;
    *ok = *ok && (size_t)(r->end - r->at) >= len;
    for (size_t i = 0; *ok && i < len; i++)
        v = v << 8 | *r->at++;
    return v;
}

/* Each text takes one byte more than on the wire, where a length of one or two stands before it. */
static const char *get_text(struct reader *r, size_t len, bool *ok)
{
    char *text = r->text;
    *ok = *ok && (size_t)(r->end - r->at) >= len;
    if (!*ok)
        return NULL;
    memcpy(text, r->at, len);
    text[len] = 0;
    r->at += len;
    r->text += len + 1;
    return text;
}

static bool take_header(struct reader *r, perf_eventstream_header *h)
{
    bool ok = true;
    size_t len = (size_t)get_number(r, 1, &ok);
    h->struct_size = sizeof *h;
    h->name = get_text(r, len, &ok);
    if (!ok || !len || memchr(h->name, 0, len))
        return false;
    h->type = (int64_t)get_number(r, 1, &ok);
    h->number = 0;
    h->bytes = (perf_bytes){"", 0};
    switch (ok ? h->type : -1) {
    case PERF_EVENTSTREAM_TRUE:
        h->number = 1;
        break;
    case PERF_EVENTSTREAM_FALSE:
        break;
    case PERF_EVENTSTREAM_BYTE:
        h->number = (int64_t)get_number(r, 1, &ok);
        h->number -= h->number > INT8_MAX ? 256 : 0;
        break;
    case PERF_EVENTSTREAM_INT16:
        h->number = (int16_t)get_number(r, 2, &ok);
        break;
    case PERF_EVENTSTREAM_INT32:
        h->number = (int32_t)get_number(r, 4, &ok);
        break;
    case PERF_EVENTSTREAM_INT64:
    case PERF_EVENTSTREAM_TIME:
        h->number = (int64_t)get_number(r, 8, &ok);
        break;
    case PERF_EVENTSTREAM_BYTES:
    case PERF_EVENTSTREAM_TEXT:
        h->bytes.len = (size_t)get_number(r, 2, &ok);
        h->bytes.data = get_text(r, h->bytes.len, &ok);
        break;
    case PERF_EVENTSTREAM_UUID: /* the byte of its type has made room for the zero behind it */
        h->bytes = (perf_bytes){get_text(r, 16, &ok), 16};
        break;
    default:
        return false;
    }
    return ok;
}

static int take_message(perf_eventstream *es)
{
    size_t len = es->total - PRELUDE - TRAILER;
    uint32_t crc = crc_of(crc_of(0, es->prelude, PRELUDE), es->message, len);
    if (crc != get32(es->message + len))
        return fail(es, PERF_ECORRUPT, "the checksum of a message does not match");
    struct reader r = {es->message, es->message + es->headers_len, es->text};
    es->count = 0;
    while (r.at < r.end) {
        if (es->count == COUNT_MAX || !take_header(&r, &es->headers[es->count]))
            return fail(es, PERF_EPROTOCOL, "a message's headers cannot be read");
        es->count++;
    }
    es->payload = es->message + es->headers_len;
    es->payload_len = len - es->headers_len;
    es->message[len] = 0;
    return PERF_OK;
}

int perf_eventstream_feed(perf_eventstream *es, const void *data, size_t len, size_t *used)
{
    const uint8_t *from = data;
    if (!es || !used || (len && !data))
        return perf__fail(PERF_EINVAL, "perf_eventstream_feed needs a parser, bytes, and a place "
                                       "for how many were taken");
    *used = 0;
    if (es->rc)
        return perf__fail(es->rc, "%s", es->why);
    if (es->payload) { /* the last message was seen */
        es->payload = NULL;
        es->count = 0;
        es->have = es->total = 0;
    }
    while (*used < len) {
        size_t until = es->total ? es->total : PRELUDE;
        size_t n = until - es->have < len - *used ? until - es->have : len - *used;
        memcpy(es->total ? es->message + (es->have - PRELUDE) : es->prelude + es->have,
               from + *used, n);
        es->have += n;
        *used += n;
        if (es->have < until)
            break;
        int rc = es->total ? take_message(es) : take_prelude(es);
        if (rc || es->payload)
            return rc;
    }
    return PERF_MISS;
}

int perf_eventstream_finish(perf_eventstream *es)
{
    if (!es)
        return perf__fail(PERF_EINVAL, "the parser is NULL");
    if (es->rc)
        return perf__fail(es->rc, "%s", es->why);
    if (es->have && !es->payload)
        return perf__fail(PERF_EPROTOCOL, "the event stream ends within a message");
    return PERF_OK;
}

const void *perf_eventstream_payload(const perf_eventstream *es, size_t *len)
{
    bool whole = es && es->payload;
    if (len)
        *len = whole ? es->payload_len : 0;
    return whole ? (const void *)es->payload : "";
}

const char *perf_eventstream_text(const perf_eventstream *es, const char *name)
{
    for (size_t i = 0; es && name && i < es->count; i++)
        if (es->headers[i].type == PERF_EVENTSTREAM_TEXT && !strcmp(es->headers[i].name, name))
            return es->headers[i].bytes.data;
    return NULL;
}

int perf_eventstream_header_at(const perf_eventstream *es, size_t i,
                               perf_eventstream_header *header)
{
    size_t size;
    if (!es)
        return perf__fail(PERF_EINVAL, "the parser is NULL");
    int rc = perf__options_check_out("perf_eventstream_header", header, &size);
    if (rc)
        return rc;
    if (i >= es->count)
        return PERF_MISS;
    perf__options_give(header, size, &es->headers[i], sizeof es->headers[i]);
    return PERF_OK;
}

/* ------------------------------------------------------------------------ write */

/* Bytes of the value on the wire; -1: it cannot be. */
static int64_t value_size(const perf_eventstream_header *h)
{
    static const int sizes[] = {0, 0, 1, 2, 4, 8, 0, 0, 8, 16};
    static const int bits[] = {0, 0, 8, 16, 32, 64, 0, 0, 64, 0};
    if (h->type < 0 || h->type > PERF_EVENTSTREAM_UUID || (h->bytes.len && !h->bytes.data))
        return -1;
    if (h->type == PERF_EVENTSTREAM_BYTES || h->type == PERF_EVENTSTREAM_TEXT)
        return h->bytes.len <= INT16_MAX ? 2 + (int64_t)h->bytes.len : -1;
    if (h->type == PERF_EVENTSTREAM_UUID && h->bytes.len != 16)
        return -1;
    int width = bits[h->type];
    if (width && width < 64 &&
        (h->number >= (int64_t)1 << (width - 1) || h->number < -((int64_t)1 << (width - 1))))
        return -1;
    return sizes[h->type];
}

static uint8_t *put_header(uint8_t *at, const perf_eventstream_header *h)
{
    size_t name = strlen(h->name);
    size_t size = (size_t)value_size(h);
    *at++ = (uint8_t)name;
    memcpy(at, h->name, name);
    at += name;
    *at++ = (uint8_t)h->type;
    if (h->type == PERF_EVENTSTREAM_BYTES || h->type == PERF_EVENTSTREAM_TEXT) {
        *at++ = (uint8_t)(h->bytes.len >> 8);
        *at++ = (uint8_t)h->bytes.len;
        size = h->bytes.len;
    }
    if (h->bytes.len && (h->type == PERF_EVENTSTREAM_BYTES || h->type == PERF_EVENTSTREAM_TEXT ||
                         h->type == PERF_EVENTSTREAM_UUID)) {
        memcpy(at, h->bytes.data, size);
        return at + size;
    }
    for (size_t i = 0; i < size; i++)
        *at++ = (uint8_t)((uint64_t)h->number >> (8 * (size - 1 - i)));
    return at;
}

int perf_eventstream_encode(const perf_eventstream_header *headers, size_t count,
                            const void *payload, size_t len, void *out, size_t size, size_t *needed)
{
    perf_eventstream_header h;
    size_t headers_len = 0;
    if (!needed || (count && !headers) || (len && !payload) || (size && !out))
        return perf__fail(PERF_EINVAL, "perf_eventstream_encode was given NULL for what has a "
                                       "length, or no place for the length");
    if (count > COUNT_MAX)
        return perf__fail(PERF_EINVAL, "%zu headers are too many; give at most %d", count,
                          COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        int rc = perf__options_take("perf_eventstream_header", &headers[i], &h, sizeof h);
        if (rc)
            return rc;
        size_t name = h.name ? strnlen(h.name, 256) : 0;
        if (!name || name > 255)
            return perf__fail(PERF_EINVAL, "headers[%zu].name has %zu bytes; give 1 to 255", i,
                              name);
        if (value_size(&h) < 0)
            return perf__fail(PERF_EINVAL,
                              "headers[%zu] has a type that is none, or a value that does not fit "
                              "its type %lld",
                              i, (long long)h.type);
        headers_len += 2 + name + (size_t)value_size(&h);
    }
    if (headers_len > HEADERS_MAX || len > MESSAGE_MAX - PRELUDE - TRAILER - headers_len)
        return perf__fail(PERF_ETOOBIG, "the message is longer than %d bytes", MESSAGE_MAX);
    size_t total = PRELUDE + headers_len + len + TRAILER;
    *needed = total;
    if (size < total)
        return perf__fail(PERF_ETOOSMALL, "the message has %zu bytes, and size is %zu", total,
                          size);
    uint8_t *message = out, *at = message + PRELUDE;
    put32(message, (uint32_t)total);
    put32(message + 4, (uint32_t)headers_len);
    put32(message + 8, crc_of(0, message, 8));
    for (size_t i = 0; i < count; i++)
        at = put_header(at, &headers[i]);
    if (len)
        memcpy(at, payload, len);
    put32(at + len, crc_of(0, message, total - TRAILER));
    return PERF_OK;
}
