/* SPDX-License-Identifier: MIT */
/*
 * aws_canonical.c - paths, queries and headers in the one form that both ends of
 * a signature must come to.
 *
 * Rules: AWS IAM User Guide, "Create a signed AWS API request"; RFC 3986 for
 * which bytes are unreserved. Where that leaves room, what AWS's own Python
 * client does decides. Pure functions, any thread.
 */
#include "aws_canonical.h"

#include <stdint.h>
#include <stdlib.h>
#include <strings.h>

enum { UNRESERVED = 1, HEX = 2, SPACE = 4 };

/* Of the bytes below 128, sixteen a row; those above have no class. */
#define U UNRESERVED
#define S SPACE
#define X (UNRESERVED | HEX)
/* clang-format off */
static const uint8_t classes[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, U, U, 0,
    X, X, X, X, X, X, X, X, X, X, 0, 0, 0, 0, 0, 0,
    0, X, X, X, X, X, X, U, U, U, U, U, U, U, U, U,
    U, U, U, U, U, U, U, U, U, U, U, 0, 0, 0, 0, U,
    0, X, X, X, X, X, X, U, U, U, U, U, U, U, U, U,
    U, U, U, U, U, U, U, U, U, U, U, 0, 0, 0, U, 0,
};
/* clang-format on */
#undef U
#undef S
#undef X

static bool has(char c, int class)
{
    return (classes[(unsigned char)c] & class) != 0;
}

static int hex_value(char c)
{
    return c <= '9' ? c - '0' : (c & ~0x20) - 'A' + 10;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* ----------------------------------------------------------------- encoding */

static void put_escape(struct perf__writer *w, char c)
{
    static const char digits[] = "0123456789ABCDEF";
    const char escape[3] = {'%', digits[(unsigned char)c >> 4], digits[c & 15]};
    perf__put(w, escape, sizeof escape);
}

void perf__put_encoded(struct perf__writer *w, const char *text, size_t len, int how)
{
    for (size_t i = 0; i < len;) {
        size_t plain = i;
        while (plain < len && has(text[plain], UNRESERVED))
            plain++;
        perf__put(w, text + i, plain - i);
        if ((i = plain) == len)
            break;
        char c = text[i];
        bool escape = c == '%' && len - i > 2 && has(text[i + 1], HEX) && has(text[i + 2], HEX);
        if (c == '/' && (how & PERF__KEEP_SLASH)) {
            perf__put_char(w, c);
        } else if (escape && (how & PERF__KEEP_ESCAPES)) {
            perf__put(w, text + i, 3);
            i += 2;
        } else if (escape && (how & PERF__REDO_ESCAPES)) {
            c = (char)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]));
            if (has(c, UNRESERVED))
                perf__put_char(w, c);
            else
                put_escape(w, c);
            i += 2;
        } else {
            put_escape(w, c);
        }
        i++;
    }
}

/* --------------------------------------------------------------------- path */

/* Where the last segment before at begins, counted from the slash before it. */
static char *drop_segment(char *start, char *at)
{
    while (at > start && *--at != '/')
        continue;
    return at;
}

void perf__put_canonical_path(struct perf__writer *w, const char *path, size_t len, bool raw,
                              bool encode_once)
{
    int how = PERF__KEEP_SLASH | (encode_once ? PERF__KEEP_ESCAPES : 0);
    if (raw) {
        perf__put_encoded(w, len ? path : "/", len ? len : 1, how);
        return;
    }
    char *start = w->at;
    const char *end = path + len;
    for (const char *p = path; p < end;) { /* an encoded segment holds no slash */
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t segment = (size_t)((slash ? slash : end) - p);
        if (segment == 2 && p[0] == '.' && p[1] == '.') {
            w->at = drop_segment(start, w->at);
        } else if (segment && !(segment == 1 && *p == '.')) {
            perf__put_char(w, '/');
            perf__put_encoded(w, p, segment, how);
        }
        p += segment + (slash ? 1 : 0);
    }
    if (w->at == start || (len && end[-1] == '/'))
        perf__put_char(w, '/');
}

/* -------------------------------------------------------------------- query */

size_t perf__aws_params_bound(const char *query)
{
    size_t count = 1;
    for (; (query = strchr(query, '&')); query++)
        count++;
    return count;
}

size_t perf__aws_params(struct perf__writer *w, const char *query, struct perf__aws_param *params)
{
    size_t count = 0;
    while (*query) {
        size_t len = strcspn(query, "&");
        if (len) {
            const char *equals = memchr(query, '=', len);
            size_t name_len = equals ? (size_t)(equals - query) : len;
            struct perf__aws_param *p = &params[count++];
            p->name = w->at;
            perf__put_encoded(w, query, name_len, PERF__REDO_ESCAPES);
            p->name_len = (size_t)(w->at - p->name);
            p->value = w->at;
            if (equals)
                perf__put_encoded(w, equals + 1, len - name_len - 1, PERF__REDO_ESCAPES);
            p->value_len = (size_t)(w->at - p->value);
        }
        query += len + (query[len] == '&');
    }
    return count;
}

static int compare_text(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_params(const void *a_, const void *b_)
{
    const struct perf__aws_param *a = a_, *b = b_;
    int order = compare_text(a->name, a->name_len, b->name, b->name_len);
    return order ? order : compare_text(a->value, a->value_len, b->value, b->value_len);
}

void perf__aws_params_sort(struct perf__aws_param *params, size_t count)
{
    if (count > 1)
        qsort(params, count, sizeof *params, compare_params); /* equal ones cannot be told apart */
}

/* ------------------------------------------------------------------ headers */

/* Proxies and tracers on the way may change or add these. */
static bool is_unsigned(const char *name, size_t len)
{
    static const char *const names[] = {
        "baggage",     "connection",          "expect",  "keep-alive",
        "upgrade",     "proxy-authorization", "te",      "proxy-authenticate",
        "traceparent", "tracestate",          "trailer", "transfer-encoding",
        "user-agent",  "x-amzn-trace-id",
    };
    static const char firsts[] = "bcekuptxBCEKUPTX";
    if (!memchr(firsts, *name, sizeof firsts - 1))
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (lower(*name) == *names[i] && strlen(names[i]) == len &&
            !strncasecmp(name, names[i], len))
            return true;
    return false;
}

static int compare_names(const struct perf__aws_signed_header *a,
                         const struct perf__aws_signed_header *b)
{
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    size_t len = a->name_len < b->name_len ? a->name_len : b->name_len;
    for (size_t i = 8; i < len; i++) {
        char x = lower(a->name[i]), y = lower(b->name[i]);
        if (x != y)
            return (unsigned char)x < (unsigned char)y ? -1 : 1;
    }
    return (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

size_t perf__aws_headers_add(struct perf__aws_signed_header *headers, size_t count,
                             const char *name, const char *value, size_t value_len)
{
    struct perf__aws_signed_header added = {name, value, strlen(name), 0, value_len};
    for (size_t i = 0; i < 8; i++)
        added.order = added.order << 8 | (unsigned char)(i < added.name_len ? lower(name[i]) : 0);
    size_t at = count;
    for (; at && compare_names(&headers[at - 1], &added) > 0; at--)
        headers[at] = headers[at - 1];
    headers[at] = added;
    return count + 1;
}

size_t perf__aws_headers(struct perf__aws_signed_header *out, const perf_http_header *headers,
                         size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_unsigned(headers[i].name, strlen(headers[i].name)))
            found = perf__aws_headers_add(out, found, headers[i].name, headers[i].value, 0);
    return found;
}

static void put_lower(struct perf__writer *w, const char *name, size_t len)
{
    if ((size_t)(w->end - w->at) < len) {
        w->bad = true;
        return;
    }
    for (size_t i = 0; i < len; i++)
        w->at[i] = lower(name[i]);
    w->at += len;
}

/* Without white space around, and each run of it inside as one space. */
static void put_value(struct perf__writer *w, const char *value)
{
    bool first = true;
    for (;;) {
        while (has(*value, SPACE))
            value++;
        if (!*value)
            return;
        size_t len = 1;
        while (value[len] && !has(value[len], SPACE))
            len++;
        if (!first)
            perf__put_char(w, ' ');
        first = false;
        perf__put(w, value, len);
        value += len;
    }
}

void perf__put_canonical_headers(struct perf__writer *w,
                                 const struct perf__aws_signed_header *headers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i && !compare_names(&headers[i - 1], &headers[i])) {
            perf__put_char(w, ',');
        } else {
            if (i)
                perf__put_char(w, '\n');
            put_lower(w, headers[i].name, headers[i].name_len);
            perf__put_char(w, ':');
        }
        if (headers[i].value_len)
            perf__put(w, headers[i].value, headers[i].value_len);
        else
            put_value(w, headers[i].value);
    }
    if (count)
        perf__put_char(w, '\n');
}

void perf__put_signed_headers(struct perf__writer *w, const struct perf__aws_signed_header *headers,
                              size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i && !compare_names(&headers[i - 1], &headers[i]))
            continue;
        if (i)
            perf__put_char(w, ';');
        put_lower(w, headers[i].name, headers[i].name_len);
    }
}
