/* SPDX-License-Identifier: MIT */
/*
 * outcome.c - what a status, an HTTP reply or a service's error code means for
 * whoever thinks about trying again. Pure functions, any thread.
 *
 * The codes are those that the AWS SDKs share (botocore 1.44.5: the lists of
 * retries/standard.py and special.py, and the errors that the models of
 * DynamoDB and Bedrock mark as retryable without throttling).
 */
#include <libperf/resilience.h>
#include <string.h>

static const char *const throttled[] = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
};

static const char *const transient[] = {
    "RequestTimeout",
    "RequestTimeoutException",
    "IDPCommunicationError",            /* STS */
    "ReplicatedWriteConflictException", /* DynamoDB */
    "ModelNotReadyException",           /* Bedrock: comes with 429 and is no throttle */
};

static int is_among(const char *const *list, size_t count, const char *code, size_t len)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) == len && !memcmp(list[i], code, len))
            return 1;
    return 0;
}

int perf_outcome_of_http(int64_t status, const char *code)
{
    if (code && *code) {
        /* com.amazonaws.dynamodb.v20120810#SlowDown:http://... */
        const char *hash = strchr(code, '#');
        if (hash)
            code = hash + 1;
        size_t len = strcspn(code, ":");
        if (is_among(throttled, sizeof throttled / sizeof *throttled, code, len))
            return PERF_OUTCOME_THROTTLED;
        if (is_among(transient, sizeof transient / sizeof *transient, code, len))
            return PERF_OUTCOME_TRANSIENT;
    }
    switch (status) {
    case 429:
        return PERF_OUTCOME_THROTTLED;
    case 0:
    case 500:
    case 502:
    case 503:
    case 504:
        return PERF_OUTCOME_TRANSIENT;
    default:
        return status < 400 && !(code && *code) ? PERF_OUTCOME_SUCCESS : PERF_OUTCOME_PERMANENT;
    }
}

int perf_outcome_of_status(int status)
{
    switch (status) {
    case PERF_EIO:
    case PERF_EUNAVAILABLE:
    case PERF_EPROTOCOL:
    case PERF_ETLS:
    case PERF_ELOAD:
        return PERF_OUTCOME_TRANSIENT;
    case PERF_ETIMEDOUT:
        return PERF_OUTCOME_TIMEOUT;
    case PERF_ETHROTTLED:
    case PERF_EBUSY:
        return PERF_OUTCOME_THROTTLED;
    case PERF_EREJECTED:
        return PERF_OUTCOME_REJECTED;
    case PERF_EINVAL:
    case PERF_ENOMEM:
    case PERF_ETOOSMALL:
    case PERF_ECANCELED:
    case PERF_ECLOSED:
    case PERF_EFORKED:
    case PERF_EDEADLK:
        return PERF_OUTCOME_IGNORED;
    default:
        return status >= 0 ? PERF_OUTCOME_SUCCESS : PERF_OUTCOME_PERMANENT;
    }
}
