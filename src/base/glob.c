/* SPDX-License-Identifier: MIT */
/*
 * glob.c - matching with one point of return: when a match fails behind a '*',
 * only the last '*' needs to take one byte more, since an earlier one could
 * only lead to the same place. Any thread.
 */
#include "glob.h"

#include <stdint.h>

/* Matches c against the class that begins behind '[' at p; sets *next behind the ']'. Returns
 * 1 or 0, or -1 when the class has no end. */
static int class_match(const uint8_t *p, const uint8_t *end, uint8_t c, const uint8_t **next)
{
    bool negate = p < end && (*p == '!' || *p == '^'), hit = false;
    p += negate;
    for (const uint8_t *first = p; p < end; p++) {
        if (*p == ']' && p > first) {
            *next = p + 1;
            return hit != negate;
        }
        if (*p == '\\' && p + 1 < end)
            p++;
        uint8_t low = *p, high = low;
        if (end - p > 2 && p[1] == '-' && p[2] != ']') {
            high = p[2];
            p += 2;
            if (high == '\\' && p + 1 < end)
                high = *++p;
        }
        hit |= low <= c && c <= high;
    }
    return -1;
}

/* Matches one byte against one element (not '*') at p; sets *next behind the element. */
static bool element_match(const uint8_t *p, const uint8_t *end, uint8_t c, const uint8_t **next)
{
    *next = p + 1;
    if (*p == '?')
        return true;
    if (*p == '[') {
        int hit = class_match(p + 1, end, c, next);
        if (hit >= 0)
            return hit;
        *next = p + 1;
    } else if (*p == '\\' && p + 1 < end) {
        p++;
        *next = p + 1;
    }
    return *p == c;
}

bool perf__glob_match(const void *pattern, size_t pattern_len, const void *text, size_t text_len)
{
    const uint8_t *p = pattern, *p_end = p + pattern_len;
    const uint8_t *t = text, *t_end = t + text_len;
    const uint8_t *star = NULL, *star_text = NULL, *next;
    while (t < t_end) {
        if (p < p_end && *p == '*') {
            star = ++p;
            star_text = t;
        } else if (p < p_end && element_match(p, p_end, *t, &next)) {
            p = next;
            t++;
        } else if (star) {
            p = star;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}
