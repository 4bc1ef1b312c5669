/* SPDX-License-Identifier: MIT */
/*
 * aws_text.c - writing what services read: JSON, base64 and forms, into one text
 * that grows. One thread at a time.
 */
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_json.h"

/* Room for len more bytes and a zero byte, or NULL. */
static char *room(struct perf__text *t, size_t len)
{
    if (t->failed)
        return NULL;
    if (len >= t->cap - t->len) {
        size_t cap = t->cap ? t->cap : 256;
        while (cap - t->len <= len && cap <= SIZE_MAX / 4)
            cap *= 2;
        char *data = cap - t->len > len ? perf__realloc(t->allocator, t->data, cap) : NULL;
        if (!data) {
            t->failed = true;
            return NULL;
        }
        t->data = data;
        t->cap = cap;
    }
    return t->data + t->len;
}

static void added(struct perf__text *t, size_t len)
{
    t->len += len;
    t->data[t->len] = 0;
}

void perf__text_put(struct perf__text *t, const void *data, size_t len)
{
    char *at = room(t, len);
    if (!at)
        return;
    if (len)
        memcpy(at, data, len);
    added(t, len);
}

void perf__text_puts(struct perf__text *t, const char *text)
{
    perf__text_put(t, text, strlen(text));
}

void perf__text_putf(struct perf__text *t, const char *format, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, format);
    int len = vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    if (len < 0 || (size_t)len >= sizeof line)
        t->failed = true; /* callers put only short things this way */
    else
        perf__text_put(t, line, (size_t)len);
}

void perf__text_put_json(struct perf__text *t, const void *data, size_t len)
{
    const unsigned char *from = data;
    perf__text_put(t, "\"", 1);
    size_t plain = 0;
    for (size_t i = 0; i < len; i++) {
        if (from[i] >= ' ' && from[i] != '"' && from[i] != '\\')
            continue;
        perf__text_put(t, from + plain, i - plain);
        perf__text_putf(t, "\\u%04x", from[i]);
        plain = i + 1;
    }
    perf__text_put(t, len ? from + plain : from, len - plain);
    perf__text_put(t, "\"", 1);
}

void perf__text_put_base64(struct perf__text *t, const void *data, size_t len)
{
    const uint8_t *from = data;
    const size_t piece_max = 3 << 20; /* EVP_EncodeBlock counts in int */
    while (len) {
        size_t piece = len < piece_max ? len : piece_max;
        char *at = room(t, (piece + 2) / 3 * 4);
        if (!at)
            return;
        int n = EVP_EncodeBlock((unsigned char *)at, from, (int)piece);
        added(t, (size_t)n);
        from += piece;
        len -= piece;
    }
}

void perf__text_put_form(struct perf__text *t, const void *data, size_t len)
{
    const unsigned char *from = data;
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < len; i++) {
        unsigned char c = from[i];
        bool plain = ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9') ||
                     (c && strchr("-_.~", c));
        char code[3] = {'%', digits[c >> 4], digits[c & 15]};
        if (plain || c == ' ')
            perf__text_put(t, plain ? (const char *)&from[i] : "+", 1);
        else
            perf__text_put(t, code, 3);
    }
}

void perf__text_free(struct perf__text *t)
{
    perf__free(t->allocator, t->data);
    t->data = NULL;
    t->len = t->cap = 0;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool perf__base64_read(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    uint8_t *put = out;
    if (len % 4)
        return false;
    for (size_t i = 0; i < len; i += 4) {
        int a = sextet(text[i]), b = sextet(text[i + 1]), c = sextet(text[i + 2]),
            d = sextet(text[i + 3]);
        size_t bytes = 3;
        if (i + 4 == len && text[i + 3] == '=') {
            d = 0;
            bytes = 2;
            if (text[i + 2] == '=') {
                c = 0;
                bytes = 1;
            }
        }
        if ((a | b | c | d) < 0)
            return false;
        uint32_t word = (uint32_t)a << 18 | (uint32_t)b << 12 | (uint32_t)c << 6 | (uint32_t)d;
        *put++ = (uint8_t)(word >> 16);
        if (bytes > 1)
            *put++ = (uint8_t)(word >> 8);
        if (bytes > 2)
            *put++ = (uint8_t)word;
    }
    *out_len = (size_t)(put - out);
    return true;
}

/* How many bytes a character has that begins here; 0: none (RFC 3629). */
static size_t character(const uint8_t *at, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (n == 1)
        return 1;
    if (!n || n > left || at[0] > 0xf4)
        return 0;
    uint32_t c = at[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (at[i] & 0x3f);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

int perf__check_utf8(const char *field, const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0, n; i < len; i += n) {
        n = character(at + i, len - i);
        if (!n)
            return perf__fail(PERF_EINVAL, "%s is no UTF-8: see byte %zu (0x%02x)", field, i,
                              at[i]);
    }
    return PERF_OK;
}
