/* SPDX-License-Identifier: MIT */
/*
 * aws_config.h - what environment and profile say about region, endpoints and
 * retries, and the host names that follow.
 *
 * The environment (AWS_* and HOME) and the files are read once, by open; from
 * then on it is read-only, for any thread. Strings live as long as the config.
 */
#ifndef PERF_NET_AWS_CONFIG_H
#define PERF_NET_AWS_CONFIG_H

#include <stdbool.h>

#include "aws_profile.h"

struct perf__aws_config;

/** profile NULL: AWS_PROFILE, then AWS_DEFAULT_PROFILE, then "default". PERF_EINVAL naming file and
 *  line; PERF_EINVAL when a profile that was named is not there. */
int perf__aws_config_open(const perf_allocator *allocator, const char *profile,
                          struct perf__aws_config **out);
void perf__aws_config_close(struct perf__aws_config *c);

/** The name of the profile, and whether the caller (not the environment) named it. */
const char *perf__aws_config_profile(const struct perf__aws_config *c, bool *explicit_name);
const struct perf__aws_profiles *perf__aws_config_profiles(const struct perf__aws_config *c);

/** A variable as it was at open; NULL when unset or empty. */
const char *perf__aws_config_env(const struct perf__aws_config *c, const char *name);
/** The variable, else the key of the profile, else NULL. Either may be NULL. */
const char *perf__aws_config_get(const struct perf__aws_config *c, const char *variable,
                                 const char *key);
/** The same as a truth value: "true" without regard to case. */
bool perf__aws_config_flag(const struct perf__aws_config *c, const char *variable, const char *key);
/** The same as a number from min to max; fallback when unset. PERF_EINVAL naming it. */
int perf__aws_config_number(const struct perf__aws_config *c, const char *variable, const char *key,
                            int64_t min, int64_t max, int64_t fallback, int64_t *out);

/** AWS_REGION, AWS_DEFAULT_REGION, the profile's region, or NULL. */
const char *perf__aws_config_region(const struct perf__aws_config *c);

/** The configured URL of a service ("dynamodb", "monitoring", ...), or NULL: AWS_ENDPOINT_URL_X,
 *  AWS_ENDPOINT_URL, the profile's services section, its endpoint_url; none of them when
 *  AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true. */
const char *perf__aws_config_endpoint(const struct perf__aws_config *c, const char *service);

/** Whether services are to be reached over dual-stack or FIPS endpoints. */
bool perf__aws_config_dual_stack(const struct perf__aws_config *c);
bool perf__aws_config_fips(const struct perf__aws_config *c);

enum { PERF__AWS_RETRY_STANDARD, PERF__AWS_RETRY_ADAPTIVE, PERF__AWS_RETRY_LEGACY };
struct perf__aws_retry_config {
    int64_t mode;         /* default standard */
    int64_t max_attempts; /* the first included; 0: the mode's */
    bool revision_2026;   /* AWS_NEW_RETRIES_2026, default true */
};
int perf__aws_config_retry(const struct perf__aws_config *c, struct perf__aws_retry_config *out);

/** The default host of a service in a region, without scheme: "dynamodb.us-east-1.amazonaws.com".
 *  PERF_EINVAL for a region that is no host name; PERF_ETOOSMALL. */
int perf__aws_default_host(const char *service, const char *region, bool dual_stack, bool fips,
                           char *out, size_t size);

#endif
