/* SPDX-License-Identifier: MIT */
/*
 * constant.c - every public constant by its name, for callers by FFI that
 * cannot read the headers. Any thread.
 */
#include <libperf/aws_auth.h>
#include <libperf/cache.h>
#include <libperf/pool.h>
#include <string.h>

#include "status.h"

static const struct {
    const char *name;
    int64_t value;
} constants[] = {
#define STATUS(name, value, text) {"PERF_" #name, value},
    PERF_STATUS_MAP(STATUS)
#undef STATUS
#define C(name)     \
    {               \
#name, name \
    }
        C(PERF_LOG_ERROR),
    C(PERF_LOG_WARNING),
    C(PERF_LOG_INFO),
    C(PERF_LOG_DEBUG),
    C(PERF_STORE_ID_SIZE),
    C(PERF_STORE_DURABLE),
    C(PERF_STORE_SHARED),
    C(PERF_STORE_SERIAL),
    C(PERF_STORE_PARTIAL),
    C(PERF_STORE_SET),
    C(PERF_STORE_REMOVE),
    C(PERF_STORE_MARK),
    C(PERF_TTL_DEFAULT),
    C(PERF_TTL_FOREVER),
    C(PERF_WRITE_THROUGH),
    C(PERF_WRITE_BEHIND),
    C(PERF_SYNC_NORMAL),
    C(PERF_SYNC_FULL),
    C(PERF_FULL_BLOCK),
    C(PERF_FULL_DROP),
    C(PERF_SET_ALWAYS),
    C(PERF_SET_IF_ABSENT),
    C(PERF_SET_IF_PRESENT),
    C(PERF_SET_IF_VERSION),
    C(PERF_EVENT_EVICTED),
    C(PERF_EVENT_EXPIRED),
    C(PERF_EVENT_DELETED),
    C(PERF_EVENT_REPLACED),
    C(PERF_EVENT_INVALIDATED),
    C(PERF_POOL_START_LAZY),
    C(PERF_POOL_START_BACKGROUND),
    C(PERF_POOL_START_FAIL_FAST),
    C(PERF_AWS_SIGN_HEADERS),
    C(PERF_AWS_SIGN_URL),
    C(PERF_AWS_SIGN_RAW_PATH),
    C(PERF_AWS_SIGN_ENCODE_ONCE),
    C(PERF_AWS_SIGN_CONTENT_HASH),
    C(PERF_AWS_SIGN_TOKEN_AFTER),
    C(PERF_AWS_SIGN_S3),
#undef C
};

int perf_constant(const char *name, int64_t *value)
{
    if (!name || !value)
        return perf__fail(PERF_EINVAL, "perf_constant needs a name and a place for the value");
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (!strcmp(constants[i].name, name)) {
            *value = constants[i].value;
            return PERF_OK;
        }
    return perf__fail(PERF_EINVAL, "there is no constant '%.64s'; see libperf(7)", name);
}
