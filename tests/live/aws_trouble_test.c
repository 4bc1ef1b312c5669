/* SPDX-License-Identifier: MIT */
/*
 * aws_trouble_test.c - servers in trouble: one that throttles, one that is killed and comes back,
 * one that stands still; and what is heard of secrets meanwhile.
 */
#include <libperf/aws.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#include "aws_fixture.h"
#include "leaks.h"
#include "server.h"

static int64_t ms_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static const char FINE[] = "server { listen 127.0.0.1:@PORT@; location / { "
                           "default_type application/x-amz-json-1.0; return 200 '{}'; } }";

/* The log of the fixture, but the system's clock: this is about time. */
static perf_aws *open_at(struct aws_home *h, const char *url, perf_aws_options o)
{
    perf_aws *aws = NULL;
    static perf_host host;
    host = (perf_host){sizeof host, NULL, NULL, &h->th.log};
    setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1);
    setenv("AWS_SECRET_ACCESS_KEY", TEST_SECRET_MARK, 1);
    setenv("AWS_SESSION_TOKEN", TEST_SECRET_MARK "TOKEN", 1);
    o.service = "dynamodb";
    o.region = "us-east-1";
    o.endpoint_url = url;
    o.host = &host;
    int rc = perf_aws_open(&o, &aws);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    return aws;
}

static int call(perf_aws *aws, int64_t timeout_ms)
{
    perf_aws_reply *reply = NULL;
    int rc = perf_aws_call(aws, "ListTables", "{}", 2, timeout_ms, &reply);
    perf_aws_reply_release(reply);
    cr_assert_null(strstr(perf_last_error(), TEST_SECRET_MARK), "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "Signature="), "%s", perf_last_error());
    return rc;
}

static perf_aws_stats stats_of(perf_aws *aws)
{
    perf_aws_stats stats = PERF_AWS_STATS_INIT;
    cr_assert_eq(perf_aws_get_stats(aws, &stats), PERF_OK);
    return stats;
}

static void end(struct aws_home *h, perf_aws *aws)
{
    cr_assert_eq(perf_aws_close(aws), PERF_OK);
    cr_assert_null(strstr(h->log, "Signature="), "%s", h->log);
    aws_home_end(h);
}

Test(aws_trouble, throttled, .timeout = 60)
{
    struct test_server *fine = test_server_nginx(FINE, 0);
    if (!fine)
        PERF_TEST_SKIP(test_server_why());
    struct test_server *proxy = test_server_throttle(fine->port, "1r/m", 0);
    struct aws_home h;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_at(&h, proxy->url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    cr_assert_eq(call(aws, 10000), PERF_OK, "%s", perf_last_error());
    int64_t from = ms_now();
    cr_assert_eq(call(aws, 10000), PERF_ETHROTTLED, "%s", perf_last_error());
    cr_assert_lt(ms_now() - from, 10000);
    cr_assert_str_eq(perf_aws_error_code(), "ProvisionedThroughputExceededException");
    cr_assert_eq(perf_aws_error_status(), 400);
    perf_aws_stats s = stats_of(aws);
    cr_assert_eq(s.attempts, 1 + 4);
    cr_assert_eq(s.throttled, 4);
    cr_assert_eq(s.rejected, 0, "throttling does not open the breaker");
    from = ms_now();
    cr_assert_eq(call(aws, 120), PERF_ETHROTTLED, "%s", perf_last_error());
    cr_assert_lt(ms_now() - from, 400, "within its deadline");
    end(&h, aws);
    test_server_stop(proxy);
    test_server_stop(fine);
}

Test(aws_trouble, killed_and_restarted, .timeout = 60)
{
    struct test_server *server = test_server_nginx(FINE, 0);
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    struct aws_home h;
    perf_aws_options o = PERF_AWS_OPTIONS_INIT;
    aws_home_begin(&h, NULL, NULL);
    o.max_attempts = 1;
    perf_aws *aws = open_at(&h, server->url, o);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(call(aws, 5000), PERF_OK, "%s", perf_last_error());
    test_server_kill(server);
    int unavailable = 0, other = 0, rc;
    while ((rc = call(aws, 5000)) != PERF_EREJECTED && unavailable + other < 200) {
        unavailable += rc == PERF_EUNAVAILABLE;
        other += rc != PERF_EUNAVAILABLE && rc != PERF_EIO;
    }
    cr_assert_eq(rc, PERF_EREJECTED, "%s", perf_last_error());
    cr_assert_gt(unavailable, 0);
    cr_assert_eq(other, 0);
    int64_t from = ms_now();
    for (int i = 0; i < 100; i++)
        cr_assert_eq(call(aws, 5000), PERF_EREJECTED);
    cr_assert_lt(ms_now() - from, 500, "a refusal costs nothing");
    cr_assert_geq(stats_of(aws).rejected, 101);

    cr_assert(test_server_restart(server), "%s", test_server_why());
    from = ms_now();
    while ((rc = call(aws, 5000)) == PERF_EREJECTED && ms_now() - from < 20000)
        poll(NULL, 0, 20);
    cr_assert_eq(rc, PERF_OK, "%s", perf_last_error());
    for (int i = 0; i < 10; i++)
        cr_assert_eq(call(aws, 5000), PERF_OK, "%s", perf_last_error());
    end(&h, aws);
    test_server_stop(server);
}

Test(aws_trouble, stands_still, .timeout = 60)
{
    struct test_server *server = test_server_nginx(FINE, 0);
    if (!server)
        PERF_TEST_SKIP(test_server_why());
    struct test_leaks leaks = test_leaks_begin();
    struct aws_home h;
    perf_deadline before = PERF_DEADLINE_INIT;
    aws_home_begin(&h, NULL, NULL);
    perf_aws *aws = open_at(&h, server->url, (perf_aws_options)PERF_AWS_OPTIONS_INIT);
    cr_assert_eq(call(aws, 5000), PERF_OK, "%s", perf_last_error());
    test_server_pause(server);
    int64_t from = ms_now();
    cr_assert_eq(call(aws, 300), PERF_ETIMEDOUT, "%s", perf_last_error());
    cr_assert_geq(ms_now() - from, 290);
    cr_assert_lt(ms_now() - from, 800);
    cr_assert_eq(perf_deadline_enter(100, NULL, &before), PERF_OK);
    from = ms_now();
    cr_assert_eq(call(aws, 30000), PERF_ETIMEDOUT, "%s", perf_last_error());
    cr_assert_lt(ms_now() - from, 600, "the thread's deadline counts");
    perf_deadline_leave(&before);
    test_server_resume(server);
    cr_assert_eq(call(aws, 5000), PERF_OK, "%s", perf_last_error());
    end(&h, aws);
    test_leaks_end(&leaks);
    test_server_stop(server);
}
