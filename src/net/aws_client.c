/* SPDX-License-Identifier: MIT */
/*
 * aws_client.c - opening and closing a client: what options, environment, profile
 * and the table of services say, in that order. Opening asks nobody.
 */
#include "aws_client.h"

#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "aws_config.h"

enum { COMMON_TIMEOUT_MS = 60000 };

static int copy_name(const char *field, const char *text, char *out, size_t size)
{
    size_t len = strnlen(text, size);
    int rc = perf__check_len(field, len, 1, size - 1);
    if (rc)
        return rc;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9') && !strchr("-_.", c))
            return perf__fail(PERF_EINVAL,
                              "%s '%.64s' has the byte 0x%02x; letters, digits, '-', "
                              "'_' and '.' are what such names have",
                              field, text, c);
    }
    memcpy(out, text, len + 1);
    return PERF_OK;
}

static int take_options(const perf_aws_options *given, perf_aws_options *o)
{
    int rc = perf__options_take("perf_aws_options", given, o, sizeof *o);
    if (rc)
        return rc;
    if (!o->service)
        return perf__fail(PERF_EINVAL, "perf_aws_options.service is NULL; name it, such as "
                                       "\"dynamodb\"");
    if (!strcmp(o->service, "cloudwatch")) /* what people call it, and what its host is called */
        o->service = "monitoring";
    if ((rc = perf__check_range("no_breaker", o->no_breaker, 0, 1)) ||
        (rc = perf__check_range("retry_mode", o->retry_mode, 0, PERF_RETRY_ADAPTIVE)) ||
        (rc = perf__check_range("max_attempts", o->max_attempts, 0, 100)) ||
        (rc = perf__check_range("timeout_ms", o->timeout_ms, 0, INT64_MAX / 1000000)) ||
        (rc = perf__check_range("attempt_timeout_ms", o->attempt_timeout_ms, 0,
                                INT64_MAX / 1000000)) ||
        (rc = perf__check_range("protocol", o->protocol, 0, PERF_AWS_PROTOCOL_REST)))
        return rc;
    return PERF_OK;
}

/* What is known of the service, with what the options say instead. */
static int describe(perf_aws *aws, const perf_aws_options *o)
{
    static const char *const content[] = {NULL, "application/x-amz-json-1.1",
                                          "application/x-www-form-urlencoded; charset=utf-8", NULL};
    int rc = copy_name("service", o->service, aws->name, sizeof aws->name);
    if (rc)
        return rc;
    aws->service = *perf__aws_service_find(aws->name);
    if (o->protocol && o->protocol != aws->service.protocol) {
        aws->service.protocol = o->protocol;
        aws->service.json = content[o->protocol];
    }
    const char *target = o->target ? o->target : aws->service.target;
    const char *version = o->api_version ? o->api_version : aws->service.version;
    const char *signing = o->signing_name             ? o->signing_name
                          : aws->service.signing_name ? aws->service.signing_name
                                                      : aws->name;
    if (aws->service.protocol == PERF_AWS_PROTOCOL_JSON && !target)
        return perf__fail(PERF_EINVAL,
                          "what stands before the dot in X-Amz-Target is not known of "
                          "%s; set perf_aws_options.target",
                          aws->name);
    if (aws->service.protocol == PERF_AWS_PROTOCOL_QUERY && !version)
        return perf__fail(PERF_EINVAL,
                          "the API version of %s is not known; set "
                          "perf_aws_options.api_version",
                          aws->name);
    if (target && (rc = copy_name("target", target, aws->target, sizeof aws->target)))
        return rc;
    if (version && (rc = copy_name("api_version", version, aws->version, sizeof aws->version)))
        return rc;
    if ((rc = copy_name("signing_name", signing, aws->signing_name, sizeof aws->signing_name)))
        return rc;
    int64_t common = aws->service.timeout_ms ? aws->service.timeout_ms : COMMON_TIMEOUT_MS;
    aws->timeout_ms = o->timeout_ms ? o->timeout_ms : common;
    aws->attempt_timeout_ms =
        o->attempt_timeout_ms ? o->attempt_timeout_ms : aws->service.attempt_timeout_ms;
    return PERF_OK;
}

static int place(perf_aws *aws, const perf_aws_options *o, const struct perf__aws_config *config)
{
    const char *region = o->region ? o->region : perf__aws_config_region(config);
    const char *endpoint =
        o->endpoint_url ? o->endpoint_url : perf__aws_config_endpoint(config, aws->name);
    char host[256];
    if (!region && aws->service.global)
        region = "us-east-1";
    if (!region)
        return perf__fail(PERF_EINVAL, "no AWS region is known; set AWS_REGION or "
                                       "perf_aws_options.region");
    int rc = copy_name("region", region, aws->region, sizeof aws->region);
    if (rc)
        return rc;
    snprintf(aws->signing_region, sizeof aws->signing_region, "%s",
             aws->service.global ? "us-east-1" : aws->region);
    if (!endpoint) {
        rc = perf__aws_default_host(aws->name, aws->region, perf__aws_config_dual_stack(config),
                                    perf__aws_config_fips(config), host, sizeof host);
        if (rc)
            return rc;
        if (aws->service.global)
            snprintf(host, sizeof host, "%s.amazonaws.com", aws->name);
        snprintf(aws->endpoint, sizeof aws->endpoint, "https://%s", host);
    } else {
        size_t len = strnlen(endpoint, sizeof aws->endpoint);
        while (len && endpoint[len - 1] == '/')
            len--;
        snprintf(aws->endpoint, sizeof aws->endpoint, "%.*s", (int)len, endpoint);
        aws->own_endpoint = true;
    }
    aws->https = !strncmp(aws->endpoint, "https://", 8);
    const char *at = aws->https                              ? aws->endpoint + 8
                     : !strncmp(aws->endpoint, "http://", 7) ? aws->endpoint + 7
                                                             : NULL;
    /* A path, a query or a name with a password would have to be signed, or hidden. */
    if (!at || !*at || at[strcspn(at, "/?#@ \t\r\n\\")])
        return perf__fail(PERF_EINVAL,
                          "the endpoint of %s is not http:// or https:// with a host "
                          "and perhaps a port; see AWS_ENDPOINT_URL",
                          aws->name);
    aws->endpoint_host = at;
    return PERF_OK;
}

static int make_retry(perf_aws *aws, const perf_aws_options *o,
                      const struct perf__aws_config *config)
{
    struct perf__aws_retry_config said;
    perf_retry_options r = PERF_RETRY_OPTIONS_INIT;
    bool dynamodb = !strcmp(aws->name, "dynamodb");
    if (o->retry) {
        aws->retry = o->retry;
        return PERF_OK;
    }
    int rc = perf__aws_config_retry(config, &said);
    if (rc)
        return rc;
    r.mode = o->retry_mode                                               ? o->retry_mode
             : said.mode == PERF__AWS_RETRY_ADAPTIVE                     ? PERF_RETRY_ADAPTIVE
             : said.revision_2026 && said.mode != PERF__AWS_RETRY_LEGACY ? PERF_RETRY_STANDARD
                                                                         : PERF_RETRY_STANDARD_2020;
    r.max_attempts = o->max_attempts ? o->max_attempts : said.max_attempts;
    if (dynamodb && r.mode != PERF_RETRY_STANDARD_2020) {
        r.base_ms = 25;
        r.max_attempts = r.max_attempts ? r.max_attempts : 4;
    }
    r.host = &aws->host.view;
    rc = perf_retry_open(&r, &aws->retry);
    aws->owns_retry = !rc;
    return rc;
}

static int make_breaker(perf_aws *aws, const perf_aws_options *o)
{
    perf_breaker_options b = PERF_BREAKER_OPTIONS_INIT;
    aws->breaker = o->breaker;
    if (o->breaker || o->no_breaker)
        return PERF_OK;
    /* A remote that is down is asked again soon: a call that is refused costs nothing. */
    b.window = PERF_BREAKER_TIME;
    b.window_ms = 10000;
    b.minimum_calls = 20;
    b.open_ms = 1000;
    b.open_max_ms = 30000;
    b.half_open_calls = 3;
    b.slow_ms = 86400000; /* long answers are not this breaker's matter */
    b.host = &aws->host.view;
    int rc = perf_breaker_open(&b, &aws->breaker);
    aws->owns_breaker = !rc;
    return rc;
}

static int make_credentials(perf_aws *aws, const perf_aws_options *o)
{
    perf_aws_credentials_options c = PERF_AWS_CREDENTIALS_OPTIONS_INIT;
    int rc;
    aws->credentials = o->credentials;
    if (o->credentials)
        return PERF_OK;
    if (!o->profile && !o->host) {
        rc = perf__aws_credentials_share(&aws->credentials);
        aws->shares_credentials = !rc;
        return rc;
    }
    c.profile = o->profile;
    c.region = aws->region;
    c.http = aws->http;
    c.host = &aws->host.view;
    rc = perf_aws_credentials_open(&c, &aws->credentials);
    aws->owns_credentials = !rc;
    return rc;
}

/* What close and a failed open have in common; nobody uses the client any more. */
static void free_client(perf_aws *aws)
{
    if (aws->owns_credentials)
        perf_aws_credentials_close(aws->credentials);
    if (aws->shares_credentials)
        perf__aws_credentials_unshare();
    if (aws->owns_retry)
        perf_retry_close(aws->retry);
    if (aws->owns_breaker)
        perf_breaker_close(aws->breaker);
    if (aws->shares_http)
        perf__aws_http_unshare();
    if (aws->counters.allocator)
        perf__counters_destroy(&aws->counters);
    perf__histogram_destroy(&aws->latency);
    perf_allocator allocator = aws->host.allocator;
    perf__free(&allocator, aws);
}

int perf_aws_open(const perf_aws_options *options, perf_aws **out)
{
    perf_aws_options own;
    struct perf__host host;
    struct perf__aws_config *config = NULL;
    perf_aws *aws = NULL;
    bool has_mutex = false, has_cond = false, has_work = false;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_aws_open needs a place for the client");
    int rc = take_options(options, &own);
    if (rc || (rc = perf__host_take(own.host, &host)) || (rc = perf__fork_arm()))
        return rc;
    aws = perf__calloc(&host.allocator, 1, sizeof *aws);
    if (!aws)
        return perf__fail_nomem("an AWS client");
    aws->host = host;
    aws->host.view =
        (perf_host){sizeof(perf_host), &aws->host.allocator, &aws->host.clock, &aws->host.log};
    aws->fork_generation = perf__fork_generation;
    aws->done_fd = -1;
    if ((rc = describe(aws, &own)) ||
        (rc = perf__aws_config_open(&aws->host.allocator, own.profile, &config)) ||
        (rc = place(aws, &own, config)))
        goto out;
    aws->http = own.http;
    if (!aws->http) {
        if ((rc = perf__aws_http_share(&aws->http)))
            goto out;
        aws->shares_http = true;
    }
    if ((rc = make_retry(aws, &own, config)) || (rc = make_breaker(aws, &own)) ||
        (rc = make_credentials(aws, &own)))
        goto out;
    if (perf__counters_init(&aws->counters, &aws->host.allocator, PERF__AWS_COUNTS) ||
        perf__histogram_init(&aws->latency, &aws->host.allocator)) {
        rc = perf__fail_nomem("an AWS client's statistics");
        goto out;
    }
    has_mutex = !pthread_mutex_init(&aws->mutex, NULL);
    has_cond = has_mutex && !perf__cond_init(&aws->changed);
    has_work = has_cond && !perf__cond_init(&aws->work);
    if (!has_work) {
        rc = perf__fail_nomem("an AWS client's lock");
        goto out;
    }
    *out = aws;
out:
    perf__aws_config_close(config);
    if (rc) {
        if (has_cond)
            pthread_cond_destroy(&aws->changed);
        if (has_mutex)
            pthread_mutex_destroy(&aws->mutex);
        free_client(aws);
    }
    return rc;
}

int perf_aws_close(perf_aws *aws)
{
    if (!aws)
        return PERF_OK;
    if (aws->fork_generation != perf__fork_generation) {
        free_client(aws);
        return PERF_OK;
    }
    pthread_mutex_lock(&aws->mutex);
    atomic_store(&aws->closing, true);
    pthread_cond_broadcast(&aws->changed);
    pthread_cond_signal(&aws->work);
    pthread_mutex_unlock(&aws->mutex);
    perf__aws_stop_async(aws);
    pthread_mutex_lock(&aws->mutex);
    while (atomic_load(&aws->in_flight))
        perf__cond_wait(&aws->changed, &aws->mutex, 0);
    uint64_t handles = aws->handles;
    pthread_mutex_unlock(&aws->mutex);
    if (handles)
        return perf__fail(PERF_EBUSY,
                          "%llu operations were not released; release them and close again",
                          (unsigned long long)handles);
    pthread_cond_destroy(&aws->work);
    pthread_cond_destroy(&aws->changed);
    pthread_mutex_destroy(&aws->mutex);
    free_client(aws);
    return PERF_OK;
}

const char *perf_aws_region(const perf_aws *aws)
{
    return aws ? aws->region : "";
}

const char *perf_aws_endpoint(const perf_aws *aws)
{
    return aws ? aws->endpoint : "";
}

int perf_aws_get_stats(perf_aws *aws, perf_aws_stats *stats)
{
    perf_aws_stats s = PERF_AWS_STATS_INIT;
    size_t size;
    if (!aws)
        return perf__fail(PERF_EINVAL, "the client is NULL");
    int rc = perf__options_check_out("perf_aws_stats", stats, &size);
    if (rc)
        return rc;
    if (aws->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    struct perf__histogram_snapshot *snapshot = perf__alloc(&aws->host.allocator, sizeof *snapshot);
    if (!snapshot)
        return perf__fail_nomem("a snapshot of an AWS client");
    perf__histogram_snapshot(&aws->latency, snapshot);
    s.latency_p50_ns = perf__histogram_quantile(snapshot, 0.5);
    s.latency_p99_ns = perf__histogram_quantile(snapshot, 0.99);
    perf__free(&aws->host.allocator, snapshot);
    s.calls = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_CALLS);
    s.succeeded = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_SUCCEEDED);
    s.failed = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_FAILED);
    s.attempts = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_ATTEMPTS);
    s.throttled = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_THROTTLED);
    s.rejected = perf__counters_sum(&aws->counters, PERF__AWS_COUNT_REJECTED);
    s.in_flight = (uint64_t)atomic_load(&aws->in_flight);
    s.clock_skew_ms = atomic_load(&aws->skew_ms);
    perf__options_give(stats, size, &s, sizeof s);
    return PERF_OK;
}
