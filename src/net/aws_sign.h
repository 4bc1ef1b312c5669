/* SPDX-License-Identifier: MIT */
/*
 * aws_sign.h - Signature Version 4 into the caller's memory, for the path of
 * every request.
 *
 *     struct perf__aws_signing s;
 *     int rc = perf__aws_sign(&s, &allocator, keys, &request, now_ms);
 *     ... s.headers[0 .. s.header_count) are to be added, or s.target to be sent ...
 *     perf__aws_signing_end(&s);
 *
 * All text lies in s.room, and on the heap only when a request is larger than
 * that. The added headers point into s, the keys and the request. s must not be moved.
 * perf__aws_signing_end wipes what was signed.
 */
#ifndef PERF_NET_AWS_SIGN_H
#define PERF_NET_AWS_SIGN_H

#include <libperf/aws_auth.h>

enum {
    PERF__AWS_SIGN_ROOM = 4096,
    PERF__AWS_SIGN_HEADERS_MAX = 256,
};

struct perf__aws_text {
    char *data; /* a zero byte is behind it */
    size_t len;
};

struct perf__aws_signing {
    perf_http_header headers[4];
    size_t header_count;
    struct perf__aws_text canonical, to_sign, target;
    char signature[65];
    char date[17];         /* "20150830T123600Z" */
    char payload_hash[65]; /* unless the caller gave one */
    const perf_allocator *allocator;
    char *heap;  /* NULL: all is in room */
    size_t used; /* bytes to be wiped */
    char room[PERF__AWS_SIGN_ROOM];
};

/** request is a whole struct of this version; its host is not looked at. now_ms: where its time_ms
 *  is 0. On failure nothing is to be ended. */
int perf__aws_sign(struct perf__aws_signing *s, const perf_allocator *allocator,
                   perf_aws_keys *keys, const perf_aws_sign_request *request, int64_t now_ms);

void perf__aws_signing_end(struct perf__aws_signing *s);

#endif
