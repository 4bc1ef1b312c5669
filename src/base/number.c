/* SPDX-License-Identifier: MIT */
/* number.c - numbers as texts; see number.h. Any thread. */
#include "number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t perf__number_u64(char out[PERF__NUMBER_SIZE], uint64_t value)
{
    char reversed[20];
    size_t len = 0;
    do
        reversed[len++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < len; i++)
        out[i] = reversed[len - 1 - i];
    out[len] = 0;
    return len;
}

size_t perf__number_double(char out[PERF__NUMBER_SIZE], double value)
{
    char text[64];
    size_t len = 0;
    if (value >= 0 && value < 9e15 && value == floor(value))
        return perf__number_u64(out, (uint64_t)value);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    /* The host's locale may have another point, even of several bytes. */
    for (const char *p = text; *p && len < PERF__NUMBER_SIZE - 1; p++) {
        if (strchr("0123456789eE+-", *p))
            out[len++] = *p;
        else if (!len || out[len - 1] != '.')
            out[len++] = '.';
    }
    out[len] = 0;
    return len;
}
