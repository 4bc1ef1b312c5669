/* SPDX-License-Identifier: MIT */
/*
 * aws_config.c - environment and profile, asked in AWS's order.
 *
 * The environment is copied when the config is opened: a host that calls setenv
 * later in another thread then disturbs nobody. Order and names: AWS SDKs and
 * Tools Reference Guide, "Settings reference".
 */
#include "aws_config.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"

struct perf__aws_config {
    perf_allocator allocator;
    struct perf__aws_profiles *profiles;
    char *env; /* NAME=value, each ended by a zero byte; an empty one is the end */
    size_t env_size;
    bool is_explicit;
    char profile[256];
};

static bool is_wanted(const char *variable)
{
    return !strncmp(variable, "AWS_", 4) || !strncmp(variable, "HOME=", 5) ||
           !strncmp(variable, "PATH=", 5);
}

static int copy_environment(struct perf__aws_config *c)
{
    size_t size = 1;
    for (char **e = environ; e && *e; e++)
        size += is_wanted(*e) ? strlen(*e) + 1 : 0;
    c->env = perf__calloc(&c->allocator, 1, size);
    if (!c->env)
        return perf__fail_nomem("the environment");
    c->env_size = size;
    char *at = c->env;
    for (char **e = environ; e && *e; e++)
        if (is_wanted(*e)) {
            size_t len = strlen(*e) + 1;
            memcpy(at, *e, len);
            at += len;
        }
    return PERF_OK;
}

/* "~/x" lies in HOME; default_name does, too. */
static int load(struct perf__aws_config *c, enum perf__aws_file file, const char *variable,
                const char *default_name)
{
    char path[4096];
    const char *given = perf__aws_config_env(c, variable);
    const char *home = perf__aws_config_env(c, "HOME");
    int len;
    if (given && (given[0] != '~' || given[1] != '/'))
        len = snprintf(path, sizeof path, "%s", given);
    else if (home)
        len = snprintf(path, sizeof path, "%s/%s", home, given ? given + 2 : default_name);
    else
        return PERF_OK;
    if (len < 0 || (size_t)len >= sizeof path)
        return perf__fail(PERF_EINVAL, "%s is longer than a path may be", variable);
    return perf__aws_profiles_load(c->profiles, file, path);
}

static int choose_profile(struct perf__aws_config *c, const char *given)
{
    const char *name = given ? given : perf__aws_config_env(c, "AWS_PROFILE");
    if (!name)
        name = perf__aws_config_env(c, "AWS_DEFAULT_PROFILE");
    bool named = name != NULL;
    c->is_explicit = given != NULL;
    name = named ? name : "default";
    if (strlen(name) >= sizeof c->profile)
        return perf__fail(PERF_EINVAL, "the profile's name is longer than %zu bytes",
                          sizeof c->profile - 1);
    memcpy(c->profile, name, strlen(name) + 1);
    if (named && !perf__aws_profiles_has(c->profiles, PERF__AWS_PROFILE, name,
                                         PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE))
        return perf__fail(PERF_EINVAL,
                          "the AWS profile '%.100s' is in neither shared file; see AWS_PROFILE, "
                          "AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE",
                          name);
    return PERF_OK;
}

int perf__aws_config_open(const perf_allocator *allocator, const char *profile,
                          struct perf__aws_config **out)
{
    struct perf__aws_config *c = perf__calloc(allocator, 1, sizeof *c);
    if (!c)
        return perf__fail_nomem("AWS configuration");
    c->allocator = *allocator;
    int rc = perf__aws_profiles_new(allocator, &c->profiles);
    if (!rc)
        rc = copy_environment(c);
    if (!rc)
        rc = load(c, PERF__AWS_CONFIG_FILE, "AWS_CONFIG_FILE", ".aws/config");
    if (!rc)
        rc = load(c, PERF__AWS_CREDENTIALS_FILE, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    if (!rc)
        rc = choose_profile(c, profile);
    if (rc)
        perf__aws_config_close(c);
    else
        *out = c;
    return rc;
}

void perf__aws_config_close(struct perf__aws_config *c)
{
    if (!c)
        return;
    perf_allocator allocator = c->allocator;
    perf__aws_profiles_free(c->profiles);
    if (c->env)
        OPENSSL_cleanse(c->env, c->env_size);
    perf__free(&allocator, c->env);
    perf__free(&allocator, c);
}

const char *perf__aws_config_profile(const struct perf__aws_config *c, bool *explicit_name)
{
    if (explicit_name)
        *explicit_name = c->is_explicit;
    return c->profile;
}

const struct perf__aws_profiles *perf__aws_config_profiles(const struct perf__aws_config *c)
{
    return c->profiles;
}

const char *perf__aws_config_env(const struct perf__aws_config *c, const char *name)
{
    size_t len = strlen(name);
    for (const char *e = c->env; *e; e += strlen(e) + 1)
        if (!strncmp(e, name, len) && e[len] == '=')
            return e[len + 1] ? e + len + 1 : NULL;
    return NULL;
}

static const char *of_profile(const struct perf__aws_config *c, const char *key)
{
    const char *value =
        perf__aws_profiles_get(c->profiles, PERF__AWS_PROFILE, c->profile,
                               PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE, key, NULL);
    return value && *value ? value : NULL;
}

const char *perf__aws_config_get(const struct perf__aws_config *c, const char *variable,
                                 const char *key)
{
    const char *value = variable ? perf__aws_config_env(c, variable) : NULL;
    return value || !key ? value : of_profile(c, key);
}

bool perf__aws_config_flag(const struct perf__aws_config *c, const char *variable, const char *key)
{
    const char *value = perf__aws_config_get(c, variable, key);
    return value && !strcasecmp(value, "true");
}

int perf__aws_config_number(const struct perf__aws_config *c, const char *variable, const char *key,
                            int64_t min, int64_t max, int64_t fallback, int64_t *out)
{
    const char *text = perf__aws_config_get(c, variable, key);
    char *end = NULL;
    errno = 0;
    long long number = text ? strtoll(text, &end, 10) : fallback;
    if (text && (errno || end == text || *end || number < min || number > max))
        return perf__fail(PERF_EINVAL, "%s is not a number from %lld to %lld",
                          variable && perf__aws_config_env(c, variable) ? variable : key,
                          (long long)min, (long long)max);
    *out = number;
    return PERF_OK;
}

const char *perf__aws_config_region(const struct perf__aws_config *c)
{
    const char *region = perf__aws_config_env(c, "AWS_REGION");
    return region ? region : perf__aws_config_get(c, "AWS_DEFAULT_REGION", "region");
}

/* ---------------------------------------------------------------- endpoints */

/* Names in hosts, and the ids of the same services in variables and files. */
static const struct {
    const char *service, *id;
} ids[] = {
    {"monitoring", "cloudwatch"},
    {"logs", "cloudwatch_logs"},
    {"bedrock", "bedrock_runtime"},
    {"events", "eventbridge"},
    {"states", "sfn"},
    {"email", "ses"},
    {"streams.dynamodb", "dynamodb_streams"},
    {"portal.sso", "sso"},
};

static void service_id(const char *service, char *id, size_t size)
{
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (!strcmp(ids[i].service, service))
            service = ids[i].id;
    size_t len = strlen(service) < size ? strlen(service) : size - 1;
    for (size_t i = 0; i < len; i++)
        id[i] = service[i] == '-' || service[i] == ' ' || service[i] == '.' ? '_' : service[i];
    id[len] = '\0';
}

const char *perf__aws_config_endpoint(const struct perf__aws_config *c, const char *service)
{
    const int both = PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE;
    char id[64], variable[96] = "AWS_ENDPOINT_URL_";
    if (perf__aws_config_flag(c, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
                              "ignore_configured_endpoint_urls"))
        return NULL;
    service_id(service, id, sizeof id);
    size_t at = strlen(variable);
    for (size_t i = 0; id[i]; i++)
        variable[at++] = id[i] >= 'a' && id[i] <= 'z' ? (char)(id[i] - 0x20) : id[i];
    variable[at] = '\0';
    const char *url = perf__aws_config_env(c, variable);
    if (!url)
        url = perf__aws_config_env(c, "AWS_ENDPOINT_URL");
    const char *section = url ? NULL : of_profile(c, "services");
    if (section)
        url = perf__aws_profiles_get(c->profiles, PERF__AWS_SERVICES, section, both, id,
                                     "endpoint_url");
    if (!url)
        url = of_profile(c, "endpoint_url");
    return url && *url ? url : NULL;
}

bool perf__aws_config_dual_stack(const struct perf__aws_config *c)
{
    return perf__aws_config_flag(c, "AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint");
}

bool perf__aws_config_fips(const struct perf__aws_config *c)
{
    return perf__aws_config_flag(c, "AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
}

/* Which suffix a region's hosts have; the first prefix that fits counts. Dual-stack hosts have a
 * suffix of their own. Source: botocore's partitions.json and endpoints.json. */
static const struct {
    const char *prefix, *suffix, *dual_stack;
} partitions[] = {
    {"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
    {"us-gov-", "amazonaws.com", "api.aws"},
    {"us-isob-", "sc2s.sgov.gov", "api.aws.scloud"},
    {"us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"},
    {"eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"},
    {"us-iso-", "c2s.ic.gov", "api.aws.ic.gov"},
    {"eusc-", "amazonaws.eu", "api.amazonwebservices.eu"},
    {"", "amazonaws.com", "api.aws"},
};

static bool is_host_label(const char *text)
{
    size_t len = strlen(text);
    if (!len || len > 63 || *text == '-' || text[len - 1] == '-')
        return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == len;
}

int perf__aws_default_host(const char *service, const char *region, bool dual_stack, bool fips,
                           char *out, size_t size)
{
    if (!is_host_label(region)) /* else a request, signed, could go to anybody's host */
        return perf__fail(PERF_EINVAL, "the AWS region is not a host name's part, such as "
                                       "us-east-1; see AWS_REGION");
    size_t i = 0;
    while (strncmp(region, partitions[i].prefix, strlen(partitions[i].prefix)) != 0)
        i++;
    const char *dash_fips = fips ? "-fips" : "";
    int len;
    if (dual_stack && !strcmp(service, "s3")) /* older than the common rule */
        len = snprintf(out, size, "s3%s.dualstack.%s.%s", dash_fips, region, partitions[i].suffix);
    else
        len = snprintf(out, size, "%s%s.%s.%s", service, dash_fips, region,
                       dual_stack ? partitions[i].dual_stack : partitions[i].suffix);
    if (len < 0 || (size_t)len >= size)
        return perf__fail(PERF_ETOOSMALL, "the host name of an AWS service is too long");
    return PERF_OK;
}

int perf__aws_config_retry(const struct perf__aws_config *c, struct perf__aws_retry_config *out)
{
    struct perf__aws_retry_config own = {PERF__AWS_RETRY_STANDARD, 0, true};
    const char *mode = perf__aws_config_get(c, "AWS_RETRY_MODE", "retry_mode");
    const char *revision = perf__aws_config_env(c, "AWS_NEW_RETRIES_2026");
    if (mode && !strcasecmp(mode, "adaptive"))
        own.mode = PERF__AWS_RETRY_ADAPTIVE;
    else if (mode && !strcasecmp(mode, "legacy"))
        own.mode = PERF__AWS_RETRY_LEGACY;
    else if (mode && strcasecmp(mode, "standard"))
        return perf__fail(PERF_EINVAL,
                          "the AWS retry mode '%.32s' is none of standard, adaptive and legacy; "
                          "see AWS_RETRY_MODE",
                          mode);
    own.revision_2026 = !revision || strcasecmp(revision, "false") != 0;
    int rc = perf__aws_config_number(c, "AWS_MAX_ATTEMPTS", "max_attempts", 1, 100, 0,
                                     &own.max_attempts);
    if (!rc)
        *out = own;
    return rc;
}
