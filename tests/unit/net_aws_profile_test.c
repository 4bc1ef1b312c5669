/* SPDX-License-Identifier: MIT */
/* net_aws_profile_test.c - AWS's shared files, and what they and the environment come to. */
#include <stdio.h>
#include <unistd.h>

#include "../../src/base/alloc.h"
#include "../../src/net/aws_config.h"
#include "seams.h"
#include "test.h"

enum { BOTH = PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE };

static struct perf__aws_profiles *parse(enum perf__aws_file file, const char *text)
{
    struct perf__aws_profiles *p = NULL;
    cr_assert_eq(perf__aws_profiles_new(&perf__default_allocator, &p), PERF_OK);
    cr_assert_eq(perf__aws_profiles_parse(p, file, "file", text, strlen(text)), PERF_OK, "%s",
                 perf_last_error());
    return p;
}

static const char *profile(const struct perf__aws_profiles *p, const char *name, const char *key)
{
    return perf__aws_profiles_get(p, PERF__AWS_PROFILE, name, BOTH, key, NULL);
}

Test(net_aws_profile, config_file)
{
    struct perf__aws_profiles *p = parse(PERF__AWS_CONFIG_FILE, "\xef\xbb\xbf# comment\r\n"
                                                                "[default]\r\n"
                                                                "Region = eu-west-1\r\n"
                                                                "  ; an indented comment\n"
                                                                "output: json\n"
                                                                "empty =\n"
                                                                "[profile dev]  trailing\n"
                                                                "region=us-east-1 # kept\n"
                                                                "text = one\n"
                                                                "   two\n"
                                                                "\n"
                                                                "   three = 3\n"
                                                                "s3 =\n"
                                                                "  addressing_style = path\n"
                                                                "  max = 3\n"
                                                                "after = x\n"
                                                                "[profile \"with space\"]\n"
                                                                "a = 1\n"
                                                                "[sso-session corp]\n"
                                                                "sso_region = r\n"
                                                                "[services local]\n"
                                                                "dynamodb =\n"
                                                                "\tendpoint_url = http://d\n"
                                                                "[dev]\n"
                                                                "region = not-a-profile\n"
                                                                "[profile dev]\n"
                                                                "region = eu-central-1\n"
                                                                "more = y\n");
    cr_assert_str_eq(profile(p, "default", "region"), "eu-west-1");
    cr_assert_str_eq(profile(p, "default", "OUTPUT"), "json");
    cr_assert_str_eq(profile(p, "default", "empty"), "");
    cr_assert_str_eq(profile(p, "dev", "region"), "eu-central-1");
    cr_assert_str_eq(profile(p, "dev", "more"), "y");
    cr_assert_str_eq(profile(p, "dev", "text"), "one\ntwo\nthree = 3");
    cr_assert_str_eq(profile(p, "dev", "after"), "x");
    cr_assert_str_eq(perf__aws_profiles_get(p, PERF__AWS_PROFILE, "dev", BOTH, "s3", "max"), "3");
    cr_assert_null(perf__aws_profiles_get(p, PERF__AWS_PROFILE, "dev", BOTH, "s3", "min"));
    cr_assert_null(profile(p, "dev", "addressing_style"));
    cr_assert_str_eq(profile(p, "with space", "a"), "1");
    cr_assert_str_eq(
        perf__aws_profiles_get(p, PERF__AWS_SSO_SESSION, "corp", BOTH, "sso_region", NULL), "r");
    cr_assert_str_eq(
        perf__aws_profiles_get(p, PERF__AWS_SERVICES, "local", BOTH, "dynamodb", "endpoint_url"),
        "http://d");
    cr_assert(perf__aws_profiles_has(p, PERF__AWS_PROFILE, "dev", PERF__AWS_CONFIG_FILE));
    cr_assert(!perf__aws_profiles_has(p, PERF__AWS_PROFILE, "dev", PERF__AWS_CREDENTIALS_FILE));
    cr_assert(!perf__aws_profiles_has(p, PERF__AWS_PROFILE, "corp", BOTH));
    perf__aws_profiles_free(p);
    perf__aws_profiles_free(NULL);
}

Test(net_aws_profile, credentials_outrank_config)
{
    struct perf__aws_profiles *p =
        parse(PERF__AWS_CREDENTIALS_FILE, "[dev]\naws_access_key_id = A\nregion = c\n");
    const char *config = "[profile dev]\naws_access_key_id = B\nother = o\n";
    cr_assert_eq(perf__aws_profiles_parse(p, PERF__AWS_CONFIG_FILE, "f", config, strlen(config)),
                 PERF_OK);
    cr_assert_str_eq(profile(p, "dev", "aws_access_key_id"), "A");
    cr_assert_str_eq(profile(p, "dev", "other"), "o");
    cr_assert_str_eq(perf__aws_profiles_get(p, PERF__AWS_PROFILE, "dev", PERF__AWS_CONFIG_FILE,
                                            "aws_access_key_id", NULL),
                     "B");
    perf__aws_profiles_free(p);
}

Test(net_aws_profile, errors_name_file_and_line_but_no_value)
{
    static const struct {
        const char *text, *where;
    } bad[] = {
        {"aws_secret_access_key = SECRET\n", "my/file:1:"},
        {"[default]\n\nSECRET\n", "my/file:3:"},
        {"[default\nSECRET = SECRET\n", "my/file:1:"},
        {"[]\n", "my/file:1:"},
        {"[default]\n = SECRET\n", "my/file:2:"},
        {"[default]\ns3 =\n  SECRET\n", "my/file:3:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct perf__aws_profiles *p;
        cr_assert_eq(perf__aws_profiles_new(&perf__default_allocator, &p), PERF_OK);
        cr_assert_eq(perf__aws_profiles_parse(p, PERF__AWS_CREDENTIALS_FILE, "my/file", bad[i].text,
                                              strlen(bad[i].text)),
                     PERF_EINVAL, "%zu", i);
        cr_assert(strstr(perf_last_error(), bad[i].where), "%s", perf_last_error());
        cr_assert_null(strstr(perf_last_error(), "SECRET"), "%s", perf_last_error());
        cr_assert_eq(perf__aws_profiles_parse(p, PERF__AWS_CONFIG_FILE, "z", "[a]\nb\0=c", 9),
                     PERF_EINVAL);
        perf__aws_profiles_free(p);
    }
}

/* No variable of the machine, and files of our own. */
static char *home_with(const char *config, const char *credentials)
{
    test_unset_all("AWS_");
    char *path = test_temp_file("config"), other[512];
    snprintf(other, sizeof other, "%.*scredentials", (int)(strrchr(path, '/') - path + 1), path);
    const char *texts[2] = {config, credentials}, *names[2] = {path, other};
    for (int i = 0; i < 2; i++) {
        FILE *f = texts[i] ? fopen(names[i], "w") : NULL;
        if (f) {
            fputs(texts[i], f);
            fclose(f);
        }
    }
    setenv("AWS_CONFIG_FILE", path, 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", other, 1);
    return path;
}

static struct perf__aws_config *open_config(const char *name)
{
    struct perf__aws_config *c = NULL;
    cr_assert_eq(perf__aws_config_open(&perf__default_allocator, name, &c), PERF_OK, "%s",
                 perf_last_error());
    return c;
}

Test(net_aws_profile, region_and_profile)
{
    char *path = home_with("[default]\nregion = r-default\n[profile p]\nregion = r-p\n", NULL);
    bool is_explicit = true;
    struct perf__aws_config *c = open_config(NULL);
    cr_assert_str_eq(perf__aws_config_region(c), "r-default");
    cr_assert_str_eq(perf__aws_config_profile(c, &is_explicit), "default");
    cr_assert(!is_explicit);
    perf__aws_config_close(c);
    setenv("AWS_PROFILE", "p", 1);
    c = open_config(NULL);
    cr_assert_str_eq(perf__aws_config_region(c), "r-p");
    perf__aws_config_close(c);
    setenv("AWS_DEFAULT_REGION", "r-env-default", 1);
    c = open_config("default");
    setenv("AWS_REGION", "r-env", 1); /* too late for this one */
    cr_assert_str_eq(perf__aws_config_region(c), "r-env-default");
    cr_assert_str_eq(perf__aws_config_profile(c, &is_explicit), "default");
    cr_assert(is_explicit);
    perf__aws_config_close(c);
    c = open_config(NULL);
    cr_assert_str_eq(perf__aws_config_region(c), "r-env");
    perf__aws_config_close(c);
    cr_assert_eq(perf__aws_config_open(&perf__default_allocator, "absent", &c), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "absent"));
    test_remove_dir_of(path);
}

Test(net_aws_profile, endpoints)
{
    char *path = home_with("[default]\nservices = local\nendpoint_url = http://profile\n"
                           "[services local]\ndynamodb =\n  endpoint_url = http://section\n"
                           "cloudwatch =\n  endpoint_url = http://cw\n",
                           NULL);
    struct perf__aws_config *c = open_config(NULL);
    cr_assert_str_eq(perf__aws_config_endpoint(c, "dynamodb"), "http://section");
    cr_assert_str_eq(perf__aws_config_endpoint(c, "monitoring"), "http://cw");
    cr_assert_str_eq(perf__aws_config_endpoint(c, "s3"), "http://profile");
    perf__aws_config_close(c);
    setenv("AWS_ENDPOINT_URL", "http://all", 1);
    setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://bedrock", 1);
    c = open_config(NULL);
    cr_assert_str_eq(perf__aws_config_endpoint(c, "dynamodb"), "http://all");
    cr_assert_str_eq(perf__aws_config_endpoint(c, "bedrock-runtime"), "http://bedrock");
    perf__aws_config_close(c);
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE", 1);
    c = open_config(NULL);
    cr_assert_null(perf__aws_config_endpoint(c, "dynamodb"));
    perf__aws_config_close(c);
    test_remove_dir_of(path);
}

Test(net_aws_profile, default_hosts)
{
    static const struct {
        const char *service, *region;
        bool dual_stack, fips;
        const char *host;
    } rows[] = {
        {"dynamodb", "us-east-1", false, false, "dynamodb.us-east-1.amazonaws.com"},
        {"s3", "cn-north-1", false, false, "s3.cn-north-1.amazonaws.com.cn"},
        {"sqs", "us-gov-west-1", false, true, "sqs-fips.us-gov-west-1.amazonaws.com"},
        {"s3", "eu-west-1", true, false, "s3.dualstack.eu-west-1.amazonaws.com"},
        {"lambda", "eu-west-1", true, false, "lambda.eu-west-1.api.aws"},
        {"sts", "us-iso-east-1", false, false, "sts.us-iso-east-1.c2s.ic.gov"},
        {"sns", "us-isob-east-1", false, false, "sns.us-isob-east-1.sc2s.sgov.gov"},
        {"bedrock-runtime", "us-west-2", false, false, "bedrock-runtime.us-west-2.amazonaws.com"},
    };
    char host[256];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(perf__aws_default_host(rows[i].service, rows[i].region, rows[i].dual_stack,
                                            rows[i].fips, host, sizeof host),
                     PERF_OK);
        cr_assert_str_eq(host, rows[i].host);
    }
    cr_assert_eq(perf__aws_default_host("sts", "x.evil.example/", false, false, host, sizeof host),
                 PERF_EINVAL);
    cr_assert_eq(perf__aws_default_host("sts", "us-east-1", false, false, host, 10),
                 PERF_ETOOSMALL);
}

Test(net_aws_profile, retries)
{
    char *path = home_with("[default]\nretry_mode = adaptive\nmax_attempts = 7\n", NULL);
    struct perf__aws_retry_config retry;
    struct perf__aws_config *c = open_config(NULL);
    cr_assert_eq(perf__aws_config_retry(c, &retry), PERF_OK);
    cr_assert(retry.mode == PERF__AWS_RETRY_ADAPTIVE && retry.max_attempts == 7);
    cr_assert(retry.revision_2026);
    perf__aws_config_close(c);
    setenv("AWS_RETRY_MODE", "standard", 1);
    setenv("AWS_MAX_ATTEMPTS", "3x", 1);
    setenv("AWS_NEW_RETRIES_2026", "false", 1);
    setenv("AWS_USE_FIPS_ENDPOINT", "true", 1);
    c = open_config(NULL);
    cr_assert_eq(perf__aws_config_retry(c, &retry), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "AWS_MAX_ATTEMPTS"));
    cr_assert(perf__aws_config_fips(c) && !perf__aws_config_dual_stack(c));
    perf__aws_config_close(c);
    setenv("AWS_MAX_ATTEMPTS", "2", 1);
    c = open_config(NULL);
    cr_assert_eq(perf__aws_config_retry(c, &retry), PERF_OK);
    cr_assert(retry.mode == PERF__AWS_RETRY_STANDARD && retry.max_attempts == 2);
    cr_assert(!retry.revision_2026);
    perf__aws_config_close(c);
    test_remove_dir_of(path);
}

Test(net_aws_profile, every_allocation_may_fail)
{
    struct test_host th;
    test_host_init(&th);
    char *path = home_with("[default]\na = b\n[profile p]\nc =\n d = e\n", "[default]\nx = y\n");
    int rc = PERF_ENOMEM;
    for (int i = 1; rc && i < 30; i++) {
        struct perf__aws_config *c = NULL;
        th.fail_at = i;
        rc = perf__aws_config_open(&th.allocator, NULL, &c);
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM);
        perf__aws_config_close(c);
        cr_assert_eq(th.live, 0);
    }
    cr_assert_eq(rc, PERF_OK);
    test_remove_dir_of(path);
}
