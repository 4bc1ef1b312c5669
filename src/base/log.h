/* SPDX-License-Identifier: MIT */
/* log.h - one line to the host's log; nothing when there is none. Any thread. */
#ifndef PERF_BASE_LOG_H
#define PERF_BASE_LOG_H

#include <libperf/types.h>

void perf__log(const perf_log *log, int level, const char *module, const char *format, ...)
    __attribute__((format(printf, 4, 5), cold));

#endif
