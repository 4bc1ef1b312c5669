/* SPDX-License-Identifier: MIT */
/*
 * status.c - status codes as text, and the per-thread sentence of the last
 * failure.
 *
 * The sentence lives in thread-local storage, so no thread sees another's and
 * failing needs no memory.
 */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Thread-local by contract: perf_last_error() speaks of this thread only. */
static _Thread_local char last_error[512];

static const struct {
    int value;
    const char *name, *text;
} statuses[] = {
#define ROW(name, value, text) {value, "PERF_" #name, text},
    PERF_STATUS_MAP(ROW)
#undef ROW
};

const char *perf_strerror(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].value == status)
            return statuses[i].text;
    return "unknown status";
}

const char *perf_strstatus(int status)
{
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i].value == status)
            return statuses[i].name;
    return "PERF_UNKNOWN";
}

const char *perf_last_error(void)
{
    return last_error;
}

int perf__fail(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(last_error, sizeof last_error, format, args);
    va_end(args);
    return code;
}

int perf__fail_nomem(const char *what)
{
    return perf__fail(PERF_ENOMEM, "no memory for %s; lower the limits or free some", what);
}
