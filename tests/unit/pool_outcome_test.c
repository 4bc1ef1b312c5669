/* SPDX-License-Identifier: MIT */
/* outcome.c: what codes and replies mean, code for code. */
#include <libperf/resilience.h>

#include "test.h"

Test(pool_outcome, the_fourteen_throttling_codes)
{
    static const char *const codes[] = {"Throttling",
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
                                        "EC2ThrottledException"};
    cr_assert_eq(sizeof codes / sizeof *codes, 14);
    for (size_t i = 0; i < 14; i++) {
        cr_assert_eq(perf_outcome_of_http(400, codes[i]), PERF_OUTCOME_THROTTLED, "%s", codes[i]);
        cr_assert_eq(perf_outcome_of_http(503, codes[i]), PERF_OUTCOME_THROTTLED, "%s", codes[i]);
    }
    cr_assert_eq(perf_outcome_of_http(429, NULL), PERF_OUTCOME_THROTTLED);
    cr_assert_eq(perf_outcome_of_http(429, "Whatever"), PERF_OUTCOME_THROTTLED);
}

Test(pool_outcome, transient_replies)
{
    static const char *const codes[] = {"RequestTimeout", "RequestTimeoutException",
                                        "IDPCommunicationError",
                                        "ReplicatedWriteConflictException"};
    static const int64_t statuses[] = {0, 500, 502, 503, 504};
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(perf_outcome_of_http(400, codes[i]), PERF_OUTCOME_TRANSIENT, "%s", codes[i]);
    for (size_t i = 0; i < 5; i++)
        cr_assert_eq(perf_outcome_of_http(statuses[i], NULL), PERF_OUTCOME_TRANSIENT, "%d",
                     (int)statuses[i]);
    /* modelled as retryable and not as a throttle, though it comes with 429 */
    cr_assert_eq(perf_outcome_of_http(429, "ModelNotReadyException"), PERF_OUTCOME_TRANSIENT);
}

Test(pool_outcome, answers)
{
    cr_assert_eq(perf_outcome_of_http(200, NULL), PERF_OUTCOME_SUCCESS);
    cr_assert_eq(perf_outcome_of_http(200, ""), PERF_OUTCOME_SUCCESS);
    cr_assert_eq(perf_outcome_of_http(304, NULL), PERF_OUTCOME_SUCCESS);
    cr_assert_eq(perf_outcome_of_http(301, "PermanentRedirect"), PERF_OUTCOME_PERMANENT);
    cr_assert_eq(perf_outcome_of_http(404, NULL), PERF_OUTCOME_PERMANENT);
    cr_assert_eq(perf_outcome_of_http(400, "ValidationException"), PERF_OUTCOME_PERMANENT);
    cr_assert_eq(perf_outcome_of_http(501, NULL), PERF_OUTCOME_PERMANENT);
}

Test(pool_outcome, codes_as_services_write_them)
{
    cr_assert_eq(perf_outcome_of_http(400, "com.amazonaws.dynamodb.v20120810#ThrottlingException"),
                 PERF_OUTCOME_THROTTLED);
    cr_assert_eq(perf_outcome_of_http(400, "SlowDown:http://internal.amazon.com/coral/"),
                 PERF_OUTCOME_THROTTLED);
    cr_assert_eq(perf_outcome_of_http(400, "a#RequestTimeout:b"), PERF_OUTCOME_TRANSIENT);
    cr_assert_eq(perf_outcome_of_http(400, "SlowDownNot"), PERF_OUTCOME_PERMANENT);
    cr_assert_eq(perf_outcome_of_http(400, "Slow"), PERF_OUTCOME_PERMANENT);
    cr_assert_eq(perf_outcome_of_http(400, "#"), PERF_OUTCOME_PERMANENT);
}

Test(pool_outcome, statuses)
{
    static const struct {
        int status, kind;
    } all[] = {
        {PERF_OK, PERF_OUTCOME_SUCCESS},
        {PERF_MISS, PERF_OUTCOME_SUCCESS},
        {7, PERF_OUTCOME_SUCCESS},
        {PERF_EIO, PERF_OUTCOME_TRANSIENT},
        {PERF_EUNAVAILABLE, PERF_OUTCOME_TRANSIENT},
        {PERF_EPROTOCOL, PERF_OUTCOME_TRANSIENT},
        {PERF_ETLS, PERF_OUTCOME_TRANSIENT},
        {PERF_ELOAD, PERF_OUTCOME_TRANSIENT},
        {PERF_ETIMEDOUT, PERF_OUTCOME_TIMEOUT},
        {PERF_ETHROTTLED, PERF_OUTCOME_THROTTLED},
        {PERF_EBUSY, PERF_OUTCOME_THROTTLED},
        {PERF_EREJECTED, PERF_OUTCOME_REJECTED},
        {PERF_EINVAL, PERF_OUTCOME_IGNORED},
        {PERF_ENOMEM, PERF_OUTCOME_IGNORED},
        {PERF_ECANCELED, PERF_OUTCOME_IGNORED},
        {PERF_ECLOSED, PERF_OUTCOME_IGNORED},
        {PERF_EFORKED, PERF_OUTCOME_IGNORED},
        {PERF_EDEADLK, PERF_OUTCOME_IGNORED},
        {PERF_ETOOSMALL, PERF_OUTCOME_IGNORED},
        {PERF_EACCESS, PERF_OUTCOME_PERMANENT},
        {PERF_EREMOTE, PERF_OUTCOME_PERMANENT},
        {PERF_ECONFLICT, PERF_OUTCOME_PERMANENT},
        {PERF_ECORRUPT, PERF_OUTCOME_PERMANENT},
        {-999, PERF_OUTCOME_PERMANENT},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cr_assert_eq(perf_outcome_of_status(all[i].status), all[i].kind, "%d", all[i].status);
}
