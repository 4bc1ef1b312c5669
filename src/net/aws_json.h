/* SPDX-License-Identifier: MIT */
/*
 * aws_json.h - JSON where it lies: a value is a slice of the text it came in.
 *
 * Batches and pages hand parts of a reply on, to the host or back to the service;
 * they must arrive as they came, numbers with all their digits. So nothing is
 * turned into a tree. A whole text is checked once by perf__json_check; the
 * others then look into what passed it.
 *
 *     struct perf__json items, item;
 *     size_t at = 0;
 *     if (perf__json_find(reply, "Items", '[', &items))
 *         while (perf__json_next(items, &at, NULL, &item))
 *             ...
 *
 * Hostile bytes: depth is bounded and no step leaves the slice. Any thread; what
 * is read is not changed.
 */
#ifndef PERF_NET_AWS_JSON_H
#define PERF_NET_AWS_JSON_H

#include <libperf/types.h>
#include <stdbool.h>

enum { PERF__JSON_DEPTH = 128 };

/** A value without the white space around it. */
struct perf__json {
    const char *at;
    size_t len;
};

/** Is the text one value (kind: its first byte, '{' or '['; 0: any) and nothing else? PERF_OK and
 *  *out, or code with a sentence that names what it is and where it goes wrong. */
int perf__json_check(int code, const char *what, const void *text, size_t len, char kind,
                     struct perf__json *out);

/** The next element of an array, or member of an object and its name (without the quotes, escapes
 *  as they are). *at is 0 at first. False at the end. */
bool perf__json_next(struct perf__json container, size_t *at, struct perf__json *name,
                     struct perf__json *value);

/** The member of that name, if it is there and begins with kind (0: any). */
bool perf__json_find(struct perf__json object, const char *name, char kind,
                     struct perf__json *value);

/** The characters of a string, escapes resolved (a lone surrogate becomes U+FFFD), with a zero byte
 *  behind; out has room for string.len bytes. Returns their number. */
size_t perf__json_text(struct perf__json string, char *out);

/** A short text of printable ASCII, cut to size; others become '?'. "" for what is no string. */
void perf__json_short(struct perf__json string, char *out, size_t size);

/** A number without sign or fraction, in quotes or not. */
bool perf__json_uint(struct perf__json value, uint64_t *out);

/** A number in thousandths: 12.5 is 12500. 0 for what is no plain number. */
int64_t perf__json_thousandths(struct perf__json value);

/* ------------------------------------------------------------------ writing */

/** A text that grows. Once memory was short it stays failed, and nothing more is added. */
struct perf__text {
    const perf_allocator *allocator;
    char *data; /* with a zero byte behind, once something was added */
    size_t len, cap;
    bool failed;
};

void perf__text_put(struct perf__text *t, const void *data, size_t len);
void perf__text_puts(struct perf__text *t, const char *text);
void perf__text_putf(struct perf__text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** A JSON string in quotes. The bytes are to be UTF-8. */
void perf__text_put_json(struct perf__text *t, const void *data, size_t len);
/** Base64 without quotes. */
void perf__text_put_base64(struct perf__text *t, const void *data, size_t len);
/** As in forms: a blank is '+', and all but letters, digits and "-_.~" is percent-encoded. */
void perf__text_put_form(struct perf__text *t, const void *data, size_t len);
void perf__text_free(struct perf__text *t);

/** Base64 with padding into out, which has room for len / 4 * 3 bytes. False if it is none. */
bool perf__base64_read(const char *text, size_t len, uint8_t *out, size_t *out_len);

/** PERF_OK, or PERF_EINVAL naming field: bytes that are no UTF-8. */
int perf__check_utf8(const char *field, const void *data, size_t len);

#endif
