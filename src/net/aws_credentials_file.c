/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_file.c - keys that are written down: in the environment, the
 * credentials file, the config file. Thread: the one that searches.
 */
#include <stdint.h>
#include <string.h>

#include "../base/status.h"
#include "aws_answer.h"
#include "aws_credentials.h"

int perf__aws_from_environment(struct perf__aws_search *s, perf_aws_keys **out)
{
    const struct perf__aws_config *config = s->c->config;
    const char *id = perf__aws_config_env(config, "AWS_ACCESS_KEY_ID");
    const char *secret = perf__aws_config_env(config, "AWS_SECRET_ACCESS_KEY");
    const char *token = perf__aws_config_env(config, "AWS_SESSION_TOKEN");
    const char *end = perf__aws_config_env(config, "AWS_CREDENTIAL_EXPIRATION");
    int64_t expires_ms = 0;
    if (!id)
        return PERF_MISS;
    if (!secret)
        return perf__fail(PERF_EACCESS,
                          "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
    if (!token)
        token = perf__aws_config_env(config, "AWS_SECURITY_TOKEN"); /* its name of old */
    if (end && !perf__aws_parse_time(end, &expires_ms))
        return perf__fail(PERF_EINVAL, "AWS_CREDENTIAL_EXPIRATION is not a time such as "
                                       "2030-01-31T12:00:00Z");
    return perf_aws_keys_new(id, secret, token, expires_ms, &s->c->host.view, out);
}

static int from_file(struct perf__aws_search *s, int file, const char *what, perf_aws_keys **out)
{
    const struct perf__aws_profiles *p = perf__aws_config_profiles(s->c->config);
#define VALUE(key) perf__aws_profiles_get(p, PERF__AWS_PROFILE, s->profile, file, key, NULL)
    const char *id = VALUE("aws_access_key_id"), *secret = VALUE("aws_secret_access_key");
    const char *token = VALUE("aws_session_token");
    if (!token)
        token = VALUE("aws_security_token");
#undef VALUE
    if (!id)
        return PERF_MISS;
    if (!secret || !*secret || !*id)
        return perf__fail(PERF_EACCESS,
                          "profile '%.64s' of the AWS %s file needs both aws_access_key_id and "
                          "aws_secret_access_key",
                          s->profile, what);
    return perf_aws_keys_new(id, secret, token, 0, &s->c->host.view, out);
}

int perf__aws_from_credentials_file(struct perf__aws_search *s, perf_aws_keys **out)
{
    return from_file(s, PERF__AWS_CREDENTIALS_FILE, "credentials", out);
}

int perf__aws_from_config_file(struct perf__aws_search *s, perf_aws_keys **out)
{
    return from_file(s, PERF__AWS_CONFIG_FILE, "config", out);
}
