/* SPDX-License-Identifier: MIT */
/*
 * label.c - names of labels, and their values: bytes of strangers, which
 * become bounded, valid UTF-8. Pure functions, any thread.
 */
#include <string.h>

#include "../base/status.h"
#include "metrics_impl.h"

/* ------------------------------------------------------------------- UTF-8 */

/* The length of the well-formed character at p, or 0 (Unicode 15, table 3-7). Stops at a zero. */
static size_t character(const unsigned char *p)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t len;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        low = 0xa0; /* shorter forms exist */
    else if (p[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f; /* beyond U+10FFFF */
    for (size_t i = 1; i < len; i++) {
        if (p[i] < low || p[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

size_t perf__utf8_copy(char *out, size_t max, const char *text)
{
    size_t used = 0;
    while (*text) {
        size_t len = character((const unsigned char *)text);
        const char *from = len ? text : "\xef\xbf\xbd";
        size_t put = len ? len : 3;
        if (used + put > max)
            break;
        memcpy(out + used, from, put);
        used += put;
        text += len ? len : 1;
    }
    out[used] = '\0';
    return used;
}

/* ------------------------------------------------------------------ labels */

bool perf__label_is_name(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') ||
              text[i] == '_' || (i && text[i] >= '0' && text[i] <= '9')))
            return false;
    return len > 0;
}

void perf__words_point(const char *text, uint32_t count, const char **out)
{
    for (uint32_t i = 0; i < count; i++, text += strlen(text) + 1)
        out[i] = text;
}

static bool has_word(const struct perf__words *words, const char *text, size_t len)
{
    const char *at = words->text;
    for (uint32_t i = 0; i < words->count; i++, at += strlen(at) + 1)
        if (strlen(at) == len && !memcmp(at, text, len))
            return true;
    return false;
}

int perf__labels_parse(const char *names, int type, struct perf__words *out)
{
    out->count = out->len = 0;
    if (!names || !*names)
        return PERF_OK;
    for (;;) {
        size_t len = strcspn(names, ",");
        if (out->count == PERF__LABELS_MAX)
            return perf__fail(PERF_EINVAL, "labels has more than %d names", PERF__LABELS_MAX);
        if (len > PERF__VALUE_MAX || !perf__label_is_name(names, len))
            return perf__fail(PERF_EINVAL,
                              "labels has \"%.64s\", whose first name is no [a-zA-Z_][a-zA-Z0-9_]* "
                              "of up to %d bytes; separate names by commas, without blanks",
                              names, PERF__VALUE_MAX);
        if (!strncmp(names, "__", 2) ||
            (type == PERF_METRIC_HISTOGRAM && len == 2 && !memcmp(names, "le", 2)))
            return perf__fail(PERF_EINVAL, "label \"%.*s\" is reserved by Prometheus; rename it",
                              (int)len, names);
        if (has_word(out, names, len))
            return perf__fail(PERF_EINVAL, "labels has \"%.*s\" twice", (int)len, names);
        memcpy(out->text + out->len, names, len);
        out->len += (uint32_t)len;
        out->text[out->len++] = '\0';
        out->count++;
        if (!names[len])
            return PERF_OK;
        names += len + 1;
    }
}

int perf__values_take(uint32_t labels, const char *const *values, struct perf__words *out)
{
    out->count = out->len = 0;
    for (uint32_t i = 0; i < labels; i++) {
        if (!values || !values[i])
            return perf__fail(PERF_EINVAL, "values[%u] is NULL; give one for each of %u labels", i,
                              labels);
        out->len += (uint32_t)perf__utf8_copy(out->text + out->len, PERF__VALUE_MAX, values[i]) + 1;
        out->count++;
    }
    return PERF_OK;
}
