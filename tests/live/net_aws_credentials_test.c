/* SPDX-License-Identifier: MIT */
/*
 * net_aws_credentials_test.c - the sources of keys that ask a service: roles and web identity of
 * moto's STS, which checks signatures; container agent, instance metadata and SSO portal as
 * nginx with AWS's documented answers, for AWS's own cannot be installed.
 */
#include <openssl/evp.h>

#include "aws_fixture.h"
#include "server.h"

#define SECRET(n) TEST_SECRET_MARK n

static char text[8192];

/* ------------------------------------------------------------------------ STS */

/* A role of moto has keys of its own making, so only their shape can be told. */
static void gives_role(struct aws_home *h, const char *profile, const char *source)
{
    perf_aws_keys *keys = NULL;
    perf_aws_credentials *c = aws_home_open(h, profile);
    cr_assert_eq(perf_aws_credentials_get(c, 0, &keys), PERF_OK, "%s", perf_last_error());
    cr_assert(!strncmp(perf_aws_keys_id(keys), "ASIA", 4), "%s", perf_aws_keys_id(keys));
    cr_assert(*perf_aws_keys_token(keys) && perf_aws_keys_expires_ms(keys) > 0);
    cr_assert_str_eq(perf_aws_credentials_source(c), source);
    perf_aws_keys_release(keys);
    perf_aws_credentials_close(c);
}

/* The clock of the tests stands in 2023 or so; a service would refuse that date. */
static void real_time(struct aws_home *h)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h->th.realtime_ms = (int64_t)now.tv_sec * 1000;
}

/* moto that checks signatures wants one even where STS wants none: a second one does not. */
static bool prepare_open(struct test_server *s)
{
    const char *python = test_server_python();
    if (!python)
        return false;
    test_server_arg(s, "%s", python);
    test_server_arg(s, "-m");
    test_server_arg(s, "moto.server");
    test_server_arg(s, "-p%d", s->port);
    return true;
}

static bool is_ready(struct test_server *s)
{
    return test_port_accepts(s->port);
}

static const struct test_server_kind moto_open = {
    .name = "moto-open",
    .deadline_ms = 60000,
    .prepare = prepare_open,
    .ready = is_ready,
};

Test(net_aws_credentials_live, web_identity_of_sts, .timeout = 120)
{
    struct test_server *moto = test_server_start(&moto_open, NULL);
    struct aws_home h;
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    aws_home_begin(&h, NULL, NULL);
    real_time(&h);
    snprintf(text, sizeof text,
             "[profile web]\nrole_arn = arn:aws:iam::123456789012:role/four\n"
             "web_identity_token_file = %s/token\n"
             "[profile chain]\nrole_arn = arn:aws:iam::123456789012:role/five\n"
             "source_profile = web\n",
             h.dir);
    aws_home_write(&h, ".aws/config", text);
    aws_home_write(&h, "token", SECRET("token") "\n");
    setenv("AWS_ENDPOINT_URL_STS", moto->url, 1);
    gives_role(&h, "web", "web-identity");
    gives_role(&h, "chain", "assume-role");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", aws_home_path(&h, "token"), 1);
    setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod", 1);
    gives_role(&h, NULL, "web-identity");
    test_server_stop(moto);
    aws_home_fails(&h, "web", PERF_EUNAVAILABLE, "");
    aws_home_end(&h);
}

Test(net_aws_credentials_live, roles_of_sts, .timeout = 120)
{
    struct test_server *moto = test_server_moto();
    struct aws_home h;
    if (!moto)
        PERF_TEST_SKIP(test_server_why());
    aws_home_begin(&h, NULL, NULL);
    real_time(&h);
    snprintf(text, sizeof text, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
             moto->access_key, moto->secret_key);
    aws_home_write(&h, ".aws/credentials", text);
    snprintf(text, sizeof text,
             "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/one\n"
             "source_profile = default\nrole_session_name = a=b@c\nexternal_id = x:y&z\n"
             "duration_seconds = 900\n"
             "[profile env]\nrole_arn = arn:aws:iam::123456789012:role/two\n"
             "credential_source = Environment\n"
             "[profile wrong]\nrole_arn = arn:aws:iam::123456789012:role/three\n"
             "source_profile = bad\n"
             "[profile bad]\naws_access_key_id = %s\naws_secret_access_key = " SECRET(
                 "W") "\n"
                      "[profile chain]\nrole_arn = arn:aws:iam::123456789012:role/five\n"
                      "source_profile = role\n",
             moto->access_key);
    aws_home_write(&h, ".aws/config", text);
    setenv("AWS_ENDPOINT_URL_STS", moto->url, 1);
    setenv("AWS_REGION", "eu-west-1", 1);
    gives_role(&h, "role", "assume-role");
    aws_home_fails(&h, "wrong", PERF_EACCESS, "SignatureDoesNotMatch");
    setenv("AWS_ACCESS_KEY_ID", moto->access_key, 1);
    setenv("AWS_SECRET_ACCESS_KEY", moto->secret_key, 1);
    gives_role(&h, "env", "assume-role");
    cr_assert_null(strstr(h.log, moto->secret_key));
    test_server_stop(moto);
    aws_home_end(&h);
}

/* ------------------------------------------------- agent, metadata, portal: nginx */

#define ANSWER(id)                                                                    \
    "{\"Code\":\"Success\",\"AccessKeyId\":\"" id "\",\"SecretAccessKey\":\"" SECRET( \
        "N") "\",\"Token\":\"" SECRET("T") "\",\"Expiration\":\"2126-01-31T12:00:00Z\"}"

static const char config[] =
    "    server {\n"
    "        listen 127.0.0.1:@PORT@;\n"
    "        underscores_in_headers on;\n"
    "        location = /agent {\n"
    "            if ($http_authorization != '" SECRET("auth") "') { return 401 '" SECRET(
        "no") "'; }\n"
              "            return 200 '" ANSWER(
                  "AAGENT") "';\n"
                            "        }\n"
                            "        location = /lacking { return 200 '{\"AccessKeyId\":\"" SECRET(
                                "i") "\"}'; }\n"
                                     "        location = /garbage { return 200 '" SECRET(
                                         "g") "'; }\n"
                                              "        location = /down { return 503; }\n"
                                              "        location = /latest/api/token {\n"
                                              "            if ($request_method != PUT) { return "
                                              "405; }\n"
                                              "            if "
                                              "($http_x_aws_ec2_metadata_token_ttl_seconds != "
                                              "21600) { return 400; }\n"
                                              "            return 200 '" SECRET(
                                                  "imds") "';\n"
                                                          "        }\n"
                                                          "        location = "
                                                          "/latest/meta-data/iam/"
                                                          "security-credentials/ {\n"
                                                          "            if "
                                                          "($http_x_aws_ec2_metadata_token != "
                                                          "'" SECRET(
                                                              "imds") "') { return 401; }\n"
                                                                      "            return 200 "
                                                                      "'the-role';\n"
                                                                      "        }\n"
                                                                      "        location = "
                                                                      "/latest/meta-data/iam/"
                                                                      "security-credentials/"
                                                                      "the-role {\n"
                                                                      "            if "
                                                                      "($http_x_aws_ec2_metadata_"
                                                                      "token != '" SECRET(
                                                                          "imds") "') { return "
                                                                                  "401; }\n"
                                                                                  "            "
                                                                                  "return 200 "
                                                                                  "'{\"Code\":"
                                                                                  "\"Success\","
                                                                                  "\"AccessKeyId\":"
                                                                                  "\"AINST\","
                                                                                  "\"SecretAccessKe"
                                                                                  "y\":"
                                                                                  "\"" SECRET("I") "\",\"Token\":\"" SECRET(
                                                                                      "T") "\","
                                                                                           "\"Expir"
                                                                                           "ation\""
                                                                                           ":\"2026"
                                                                                           "-01-"
                                                                                           "31T12:"
                                                                                           "00:"
                                                                                           "00Z\"}'"
                                                                                           ";\n"
                                                                                           "       "
                                                                                           " }\n"
                                                                                           "       "
                                                                                           " locati"
                                                                                           "on = "
                                                                                           "/federa"
                                                                                           "tion/"
                                                                                           "credent"
                                                                                           "ials "
                                                                                           "{\n"
                                                                                           "       "
                                                                                           "     "
                                                                                           "if "
                                                                                           "($http_"
                                                                                           "x_amz_"
                                                                                           "sso_"
                                                                                           "bearer_"
                                                                                           "token "
                                                                                           "!= "
                                                                                           "'" SECRET(
                                                                                               "ss"
                                                                                               "o") "') { return 401; }\n"
                                                                                                    "            if ($args != 'role_name=r%20s&account_id=123') { return 400; }\n"
                                                                                                    "            return 200 '{\"roleCredentials\":{\"accessKeyId\":\"ASSO\",\"secretAccessKey\":"
                                                                                                    "\"" SECRET("S") "\",\"sessionToken\":\"" SECRET(
                                                                                                        "T") "\",\"expiration\":4924929600000}}';\n"
                                                                                                             "        }\n"
                                                                                                             "    }\n";

static struct test_server *start(void)
{
    struct test_server *s = test_server_nginx(config, 0);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    return s;
}

static void set_url(const char *variable, const struct test_server *s, const char *path)
{
    snprintf(text, sizeof text, "http://127.0.0.1:%d%s", s->port, path);
    setenv(variable, text, 1);
}

Test(net_aws_credentials_live, container, .timeout = 60)
{
    struct test_server *s = start();
    struct aws_home h;
    aws_home_begin(&h, NULL, NULL);
    set_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", s, "/agent");
    aws_home_fails(&h, NULL, PERF_EACCESS, "401");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", SECRET("auth"), 1);
    aws_home_gives(&h, NULL, "AAGENT", "container");
    aws_home_write(&h, "token", SECRET("other"));
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", aws_home_path(&h, "token"), 1);
    aws_home_fails(&h, NULL, PERF_EACCESS, "401"); /* the file outranks the variable */
    aws_home_write(&h, "token", SECRET("auth") "\n");
    aws_home_gives(&h, NULL, "AAGENT", "container");
    set_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", s, "/lacking");
    aws_home_fails(&h, NULL, PERF_EPROTOCOL, "SecretAccessKey");
    set_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", s, "/garbage");
    aws_home_fails(&h, NULL, PERF_EPROTOCOL, "JSON");
    set_url("AWS_CONTAINER_CREDENTIALS_FULL_URI", s, "/down");
    aws_home_fails(&h, NULL, PERF_EUNAVAILABLE, "503");
    static const char *const refused[] = {
        "http://example.com/x",      "http://169.254.169.254/x", "http://127.0.0.1@example.com/x",
        "http://localhost.evil/x",   "ftp://127.0.0.1/x",        "http://[2001:db8::1]/x",
        "http://127.0.0.1.evil.de/", "http://[::1]evil/",        "http://169.254.170.2\\@evil/",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", refused[i], 1);
        aws_home_fails(&h, NULL, PERF_EINVAL, "loopback");
    }
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "no-slash", 1);
    aws_home_fails(&h, NULL, PERF_EINVAL, "slash");
    test_server_stop(s);
    aws_home_end(&h);
}

Test(net_aws_credentials_live, instance, .timeout = 60)
{
    struct test_server *s = start();
    struct aws_home h;
    aws_home_begin(&h, NULL, NULL);
    set_url("AWS_EC2_METADATA_SERVICE_ENDPOINT", s, "/");
    aws_home_fails(&h, NULL, PERF_EACCESS, "no AWS credentials"); /* it is disabled */
    unsetenv("AWS_EC2_METADATA_DISABLED");
    h.th.realtime_ms = 1767225600000; /* 2026-01-01 */
    aws_home_gives(&h, NULL, "AINST", "instance");
    h.th.realtime_ms = 1770000000000; /* they have ended: used on for 17 to 25 minutes */
    perf_aws_credentials *c = aws_home_open(&h, NULL);
    perf_aws_keys *keys = NULL;
    cr_assert_eq(perf_aws_credentials_get(c, 0, &keys), PERF_OK, "%s", perf_last_error());
    int64_t longer = perf_aws_keys_expires_ms(keys) - h.th.realtime_ms;
    cr_assert(longer >= 17 * 60000 && longer <= 25 * 60000, "%lld", (long long)longer);
    cr_assert(strstr(h.log, "another"));
    perf_aws_keys_release(keys);
    perf_aws_credentials_close(c);
    test_server_stop(s);
    aws_home_fails(&h, NULL, PERF_EACCESS, "no AWS credentials");
    aws_home_end(&h);
}

static void write_token(struct aws_home *h, const char *name, const char *end)
{
    unsigned char digest[20];
    char path[128], json[256];
    EVP_Digest(name, strlen(name), digest, NULL, EVP_sha1(), NULL);
    int at = snprintf(path, sizeof path, ".aws/sso/cache/");
    for (size_t i = 0; i < sizeof digest; i++)
        at += snprintf(path + at, sizeof path - (size_t)at, "%02x", digest[i]);
    snprintf(path + at, sizeof path - (size_t)at, ".json");
    snprintf(json, sizeof json, "{\"accessToken\": \"" SECRET("sso") "\", \"expiresAt\": \"%s\"}",
             end);
    mkdir(aws_home_path(h, ".aws/sso"), 0700);
    mkdir(aws_home_path(h, ".aws/sso/cache"), 0700);
    aws_home_write(h, path, json);
}

Test(net_aws_credentials_live, sso, .timeout = 60)
{
    struct test_server *s = start();
    struct aws_home h;
    aws_home_begin(&h,
                   "[profile new]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = r s\n"
                   "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp\n"
                   "[profile old]\nsso_region = eu-west-1\nsso_start_url = https://old\n"
                   "sso_account_id = 123\nsso_role_name = r s\n"
                   "[profile other]\nsso_session = corp\nsso_account_id = 9\nsso_role_name = r\n"
                   "[profile lacks]\nsso_account_id = 9\nsso_role_name = r\nsso_region = x\n"
                   "[profile lost]\nsso_session = gone\nsso_account_id = 9\nsso_role_name = r\n",
                   NULL);
    set_url("AWS_ENDPOINT_URL_SSO", s, "");
    aws_home_fails(&h, "new", PERF_EACCESS, "aws sso login");
    write_token(&h, "corp", "2126-01-01T00:00:00Z");
    aws_home_gives(&h, "new", "ASSO", "sso");
    write_token(&h, "https://old", "2001-01-01T00:00:00Z");
    aws_home_fails(&h, "old", PERF_EACCESS, "expired");
    write_token(&h, "https://old", "2126-01-01T00:00:00UTC");
    aws_home_gives(&h, "old", "ASSO", "sso");
    aws_home_fails(&h, "other", PERF_EACCESS, "400");
    aws_home_fails(&h, "lacks", PERF_EINVAL, "sso_start_url");
    aws_home_fails(&h, "lost", PERF_EINVAL, "gone");
    test_server_stop(s);
    aws_home_end(&h);
}
