/* SPDX-License-Identifier: MIT */
/*
 * aws_answer.h - asking a service for keys, and reading its answer.
 *
 * Answers are hostile: bounded, and no part of them gets into an error but a
 * status and an error code of letters. Buffers that held secrets are wiped.
 */
#ifndef PERF_NET_AWS_ANSWER_H
#define PERF_NET_AWS_ANSWER_H

#include "aws_credentials.h"

/** "2026-01-31T12:34:56Z", with a fraction or an offset if there is one. */
bool perf__aws_parse_time(const char *text, int64_t *ms);

/** What the members are called that hold the keys. */
struct perf__aws_answer_names {
    const char *outer; /* the object that they are in; NULL: the whole */
    const char *id, *secret, *token, *expires;
    bool expires_is_ms; /* a number of milliseconds instead of a text */
    bool needs_token;
    bool has_version; /* "Version" must be 1 */
};
/** Keys from JSON. what names the source in errors. PERF_EPROTOCOL; PERF_EACCESS for one that has
 *  expired. */
int perf__aws_keys_from_json(const struct perf__aws_search *s, const char *what, const char *text,
                             size_t len, const struct perf__aws_answer_names *names,
                             perf_aws_keys **out);

/** One text member of a JSON object, copied; "" when it is not there. PERF_EPROTOCOL. */
int perf__aws_json_text(const char *what, const char *text, size_t len, const char *name, char *out,
                        size_t size);

/** A request for keys or for something on the way to them. */
struct perf__aws_question {
    const char *what;   /* for errors */
    const char *method; /* default GET */
    const char *url;
    const perf_http_header *headers;
    size_t header_count;
    perf_bytes body;
    int64_t timeout_ms; /* of one attempt */
    int attempts;
    bool direct; /* not through a proxy */
};
/** Sends it, again after failures, throttling and 5xx while attempts and time are left. PERF_OK
 *  with any status below 500. */
int perf__aws_ask(struct perf__aws_search *s, const struct perf__aws_question *q,
                  perf_http_reply **out);

/** The whole of a small file, with a zero byte behind and white space at its end taken away; wiped
 *  and freed by perf__aws_file_free. PERF_EIO naming it. */
int perf__aws_file_read(const perf_allocator *allocator, const char *path, char **out);
void perf__aws_file_free(const perf_allocator *allocator, char *text);

#endif
