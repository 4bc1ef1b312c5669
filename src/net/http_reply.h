/* SPDX-License-Identifier: MIT */
/*
 * http_reply.h - a reply while it comes in: headers in one arena, body behind
 * one pointer, both bounded. One thread at a time.
 */
#ifndef PERF_NET_HTTP_REPLY_H
#define PERF_NET_HTTP_REPLY_H

#include <libperf/http.h>
#include <stdbool.h>

enum {
    PERF__HTTP_HEADERS_MAX = 1024, /* headers of one reply */
    PERF__HTTP_INLINE_HEADERS = 16,
    PERF__HTTP_INLINE_TEXT = 640,
};

struct perf__http_field {
    uint32_t name, value; /* offsets into text */
};

struct perf_http_reply {
    perf_allocator allocator;
    int64_t status;
    bool in_headers, in_body;
    uint64_t header_bytes; /* all that came, 1xx replies included */
    char *text;
    size_t text_len, text_size;
    struct perf__http_field *fields;
    size_t field_count, field_slots;
    char *body;
    size_t body_len, body_size;
    struct perf__http_field inline_fields[PERF__HTTP_INLINE_HEADERS];
    char inline_text[PERF__HTTP_INLINE_TEXT];
};

perf_http_reply *perf__http_reply_new(const perf_allocator *allocator);

/** Takes one header line as it came, line end included: a status line, a header, or the empty line
 *  behind them. PERF_OK, PERF_ENOMEM, PERF_EPROTOCOL, or PERF_ETOOBIG beyond max_bytes. Sets no
 *  sentence. */
int perf__http_reply_line(perf_http_reply *reply, const char *line, size_t len, uint64_t max_bytes);

/** Appends to the body. PERF_OK, PERF_ENOMEM, or PERF_ETOOBIG beyond max_bytes. No sentence. */
int perf__http_reply_append(perf_http_reply *reply, const void *data, size_t len,
                            uint64_t max_bytes);

/** What Content-Length says, or -1. */
int64_t perf__http_reply_length(const perf_http_reply *reply);

#endif
