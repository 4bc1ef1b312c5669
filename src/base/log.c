/* SPDX-License-Identifier: MIT */
/* log.c - formats a line and hands it to the host. Any thread; no lock, no memory. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void perf__log(const perf_log *log, int level, const char *module, const char *format, ...)
{
    if (!log->write || level > log->max_level)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log->write(log->ctx, level, module, line);
}
