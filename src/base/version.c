/* SPDX-License-Identifier: MIT */
/* version.c - which libperf is loaded. Any thread. */
#include <libperf/version.h>

#define TEXT(x)                           #x
#define VERSION_TEXT(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

int perf_version_number(void)
{
    return PERF_VERSION_NUMBER;
}

const char *perf_version(void)
{
    return VERSION_TEXT(PERF_VERSION_MAJOR, PERF_VERSION_MINOR, PERF_VERSION_PATCH);
}
