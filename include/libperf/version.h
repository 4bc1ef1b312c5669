/* SPDX-License-Identifier: MIT */
/*
 * version.h - which libperf these headers describe, and which one is loaded.
 *
 * Semantic versioning: a change of MAJOR changes the soname; MINOR adds; PATCH
 * mends. The macros describe the headers a program was compiled with, the
 * functions describe the library it runs with.
 */
#ifndef LIBPERF_VERSION_H
#define LIBPERF_VERSION_H

#include <libperf/types.h>

#define PERF_VERSION_MAJOR 1
#define PERF_VERSION_MINOR 0
#define PERF_VERSION_PATCH 0

/** One number that grows with every release: MAJOR * 1000000 + MINOR * 1000 + PATCH. */
#define PERF_VERSION_NUMBER \
    (PERF_VERSION_MAJOR * 1000000 + PERF_VERSION_MINOR * 1000 + PERF_VERSION_PATCH)

PERF_BEGIN_DECLS

/** The loaded library's PERF_VERSION_NUMBER. Any thread. Since 1.0. */
PERF_API int perf_version_number(void);

/** The loaded library's version as text, such as "1.0.0". Static storage. Any thread. Since 1.0. */
PERF_API const char *perf_version(void);

PERF_END_DECLS

#endif
