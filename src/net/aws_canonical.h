/* SPDX-License-Identifier: MIT */
/*
 * aws_canonical.h - the parts of Signature Version 4's canonical request.
 *
 * Written into memory that the caller has made large enough; a writer that is
 * full turns bad and stays bad, so nothing is ever written past its end. Pure
 * functions, any thread.
 */
#ifndef PERF_NET_AWS_CANONICAL_H
#define PERF_NET_AWS_CANONICAL_H

#include <libperf/http.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct perf__writer {
    char *at, *end;
    bool bad;
};

static inline void perf__put(struct perf__writer *w, const char *text, size_t len)
{
    if ((size_t)(w->end - w->at) < len) {
        w->bad = true;
        return;
    }
    if (len)
        memcpy(w->at, text, len);
    w->at += len;
}

static inline void perf__put_char(struct perf__writer *w, char c)
{
    perf__put(w, &c, 1);
}

/** How bytes other than letters, digits and "-._~" are encoded. */
enum {
    PERF__KEEP_SLASH = 1,
    PERF__KEEP_ESCAPES = 2, /* "%2f" stays as it is; else its '%' is encoded */
    PERF__REDO_ESCAPES = 4, /* "%2f" becomes "%2F", and "%41" becomes "A" */
};
void perf__put_encoded(struct perf__writer *w, const char *text, size_t len, int how);

/** path with "." and ".." resolved and doubled slashes made one, unless raw; then encoded. */
void perf__put_canonical_path(struct perf__writer *w, const char *path, size_t len, bool raw,
                              bool encode_once);

/** One parameter, already encoded. */
struct perf__aws_param {
    const char *name, *value;
    size_t name_len, value_len;
};

/** How many parameters perf__aws_params may find. */
size_t perf__aws_params_bound(const char *query);
/** Takes a query apart, writing its encoded parts by w. Returns their number, in their order. */
size_t perf__aws_params(struct perf__writer *w, const char *query, struct perf__aws_param *params);
/** By name, then by value, as bytes. */
void perf__aws_params_sort(struct perf__aws_param *params, size_t count);

/** One header that is signed. */
struct perf__aws_signed_header {
    const char *name, *value;
    size_t name_len;
    uint64_t order;   /* the name's first eight bytes, lower-case, so that they compare at once */
    size_t value_len; /* known, and value is without white space; 0: to be trimmed */
};

/** Those of headers that are signed, sorted by lower-case name; equal names stay in their order. */
size_t perf__aws_headers(struct perf__aws_signed_header *out, const perf_http_header *headers,
                         size_t count);
/** Puts one more where it belongs. */
size_t perf__aws_headers_add(struct perf__aws_signed_header *headers, size_t count,
                             const char *name, const char *value, size_t value_len);
/** "name:value\n" for each name; the values of one name joined by commas. */
void perf__put_canonical_headers(struct perf__writer *w,
                                 const struct perf__aws_signed_header *headers, size_t count);
/** "host;x-amz-date". */
void perf__put_signed_headers(struct perf__writer *w, const struct perf__aws_signed_header *headers,
                              size_t count);

#endif
