/* SPDX-License-Identifier: MIT */
/*
 * constant.c - every public constant by its name, for callers by FFI that
 * cannot read the headers. Any thread.
 */
#include <libperf/aws.h>
#include <libperf/aws_auth.h>
#include <libperf/aws_bedrock.h>
#include <libperf/aws_dynamodb.h>
#include <libperf/aws_eventstream.h>
#include <libperf/cache.h>
#include <libperf/http.h>
#include <libperf/pool.h>
#include <libperf/redis.h>
#include <libperf/resilience.h>
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
    C(PERF_STORE_LEASES),
    C(PERF_STORE_REMOTE),
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
    C(PERF_HTTP_VERSION_AUTO),
    C(PERF_HTTP_VERSION_1_1),
    C(PERF_HTTP_VERSION_2),
    C(PERF_OUTCOME_SUCCESS),
    C(PERF_OUTCOME_TRANSIENT),
    C(PERF_OUTCOME_TIMEOUT),
    C(PERF_OUTCOME_THROTTLED),
    C(PERF_OUTCOME_PERMANENT),
    C(PERF_OUTCOME_REJECTED),
    C(PERF_OUTCOME_IGNORED),
    C(PERF_RETRY_STANDARD),
    C(PERF_RETRY_STANDARD_2020),
    C(PERF_RETRY_ADAPTIVE),
    C(PERF_RETRY_AGAIN),
    C(PERF_RETRY_DONE),
    C(PERF_RETRY_NOT_RETRYABLE),
    C(PERF_RETRY_ATTEMPTS),
    C(PERF_RETRY_BUDGET),
    C(PERF_RETRY_DEADLINE),
    C(PERF_RETRY_LONG_POLL),
    C(PERF_BREAKER_CLOSED),
    C(PERF_BREAKER_OPEN),
    C(PERF_BREAKER_HALF_OPEN),
    C(PERF_BREAKER_FORCED_OPEN),
    C(PERF_BREAKER_DISABLED),
    C(PERF_BREAKER_COUNT),
    C(PERF_BREAKER_TIME),
    C(PERF_LIMIT_VEGAS),
    C(PERF_LIMIT_AIMD),
    C(PERF_AWS_PROTOCOL_AUTO),
    C(PERF_AWS_PROTOCOL_JSON),
    C(PERF_AWS_PROTOCOL_QUERY),
    C(PERF_AWS_PROTOCOL_REST),
    C(PERF_AWS_NO_RETRY),
    C(PERF_AWS_LONG_POLL),
    C(PERF_AWS_ANONYMOUS),
    C(PERF_AWS_GZIP),
    C(PERF_DYNAMODB_STRING),
    C(PERF_DYNAMODB_BINARY),
    C(PERF_DYNAMODB_ALWAYS),
    C(PERF_DYNAMODB_IF_ABSENT),
    C(PERF_DYNAMODB_IF_VERSION),
    C(PERF_AWS_SIGN_HEADERS),
    C(PERF_AWS_SIGN_URL),
    C(PERF_AWS_SIGN_RAW_PATH),
    C(PERF_AWS_SIGN_ENCODE_ONCE),
    C(PERF_AWS_SIGN_CONTENT_HASH),
    C(PERF_AWS_SIGN_TOKEN_AFTER),
    C(PERF_AWS_SIGN_S3),
    C(PERF_BEDROCK_INVOKE),
    C(PERF_BEDROCK_CONVERSE),
    C(PERF_EVENTSTREAM_TRUE),
    C(PERF_EVENTSTREAM_FALSE),
    C(PERF_EVENTSTREAM_BYTE),
    C(PERF_EVENTSTREAM_INT16),
    C(PERF_EVENTSTREAM_INT32),
    C(PERF_EVENTSTREAM_INT64),
    C(PERF_EVENTSTREAM_BYTES),
    C(PERF_EVENTSTREAM_TEXT),
    C(PERF_EVENTSTREAM_TIME),
    C(PERF_EVENTSTREAM_UUID),
    C(PERF_REDIS_SINGLE),
    C(PERF_REDIS_UP),
    C(PERF_REDIS_LOST),
    C(PERF_REDIS_ERROR_NONE),
    C(PERF_REDIS_ERROR_OTHER),
    C(PERF_REDIS_ERROR_NOAUTH),
    C(PERF_REDIS_ERROR_WRONGPASS),
    C(PERF_REDIS_ERROR_NOPERM),
    C(PERF_REDIS_ERROR_OOM),
    C(PERF_REDIS_ERROR_READONLY),
    C(PERF_REDIS_ERROR_LOADING),
    C(PERF_REDIS_ERROR_BUSY),
    C(PERF_REDIS_ERROR_NOSCRIPT),
    C(PERF_REDIS_ERROR_WRONGTYPE),
    C(PERF_REDIS_ERROR_MOVED),
    C(PERF_REDIS_ERROR_ASK),
    C(PERF_REDIS_ERROR_TRYAGAIN),
    C(PERF_REDIS_ERROR_CLUSTERDOWN),
    C(PERF_REDIS_ERROR_CROSSSLOT),
    C(PERF_REDIS_ERROR_MASTERDOWN),
    C(PERF_REDIS_ERROR_EXECABORT),
    C(PERF_REDIS_ERROR_NOREPLICAS),
    C(PERF_REDIS_ERROR_MAXCLIENTS),
    C(PERF_REDIS_NIL),
    C(PERF_REDIS_STRING),
    C(PERF_REDIS_STATUS),
    C(PERF_REDIS_ERROR),
    C(PERF_REDIS_INTEGER),
    C(PERF_REDIS_ARRAY),
    C(PERF_REDIS_MESSAGE),
    C(PERF_REDIS_SUBSCRIBED),
    C(PERF_REDIS_DISCONNECTED),
    C(PERF_REDIS_GAP),
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
