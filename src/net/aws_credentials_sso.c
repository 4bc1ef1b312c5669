/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_sso.c - keys for who has logged in by "aws sso login": the
 * token that the AWS CLI left in ~/.aws/sso/cache is exchanged for a role's.
 *
 * The library does not log in, nor does it prolong the token. Source: AWS SDKs
 * and Tools Reference Guide, "IAM Identity Center credential provider". Thread:
 * the one that searches.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/status.h"
#include "aws_answer.h"
#include "aws_canonical.h"
#include "aws_credentials.h"
#include "aws_hash.h"

enum { TOKEN_MAX = 16384, ATTEMPT_MS = 5000, ATTEMPTS = 3, SHA1_SIZE = 20 };

struct login {
    const char *account, *role, *session, *start_url, *region;
};

static const char *session_get(struct perf__aws_search *s, const char *session, const char *key)
{
    const char *value =
        perf__aws_profiles_get(perf__aws_config_profiles(s->c->config), PERF__AWS_SSO_SESSION,
                               session, PERF__AWS_CONFIG_FILE, key, NULL);
    return value && *value ? value : NULL;
}

static int find_login(struct perf__aws_search *s, struct login *l)
{
    l->account = perf__aws_search_get(s, "sso_account_id");
    l->role = perf__aws_search_get(s, "sso_role_name");
    if (!l->account && !l->role)
        return PERF_MISS;
    l->session = perf__aws_search_get(s, "sso_session");
    if (l->session &&
        !perf__aws_profiles_has(perf__aws_config_profiles(s->c->config), PERF__AWS_SSO_SESSION,
                                l->session, PERF__AWS_CONFIG_FILE))
        return perf__fail(PERF_EINVAL,
                          "profile '%.64s' names an sso_session '%.64s' that is not "
                          "in the config file",
                          s->profile, l->session);
    l->start_url = l->session ? session_get(s, l->session, "sso_start_url")
                              : perf__aws_search_get(s, "sso_start_url");
    l->region = l->session ? session_get(s, l->session, "sso_region")
                           : perf__aws_search_get(s, "sso_region");
    const char *missing = !l->account     ? "sso_account_id"
                          : !l->role      ? "sso_role_name"
                          : !l->start_url ? "sso_start_url"
                          : !l->region    ? "sso_region"
                                          : NULL;
    return missing ? perf__fail(PERF_EINVAL, "profile '%.64s' is set up for SSO, but %s is missing",
                                s->profile, missing)
                   : PERF_OK;
}

/* The CLI names the file by the SHA-1 of the session or start URL: a name, not a protection. */
static int read_token(struct perf__aws_search *s, const struct login *l, char *token)
{
    const char *name = l->session ? l->session : l->start_url;
    const char *home = perf__aws_config_env(s->c->config, "HOME");
    uint8_t digest[SHA1_SIZE];
    char hex[2 * SHA1_SIZE + 1] = "", path[4096], end[64], *text = NULL;
    int64_t expires_ms = 0;
    if (!EVP_Digest(name, strlen(name), digest, NULL, EVP_sha1(), NULL))
        return perf__fail(PERF_ENOMEM,
                          "libcrypto gives no SHA-1; is there memory, and a provider?");
    perf__hex(hex, digest, sizeof digest);
    int len = snprintf(path, sizeof path, "%s/.aws/sso/cache/%s.json", home ? home : "", hex);
    if (len < 0 || (size_t)len >= sizeof path)
        return perf__fail(PERF_EINVAL, "HOME is longer than a path may be");
    int rc = perf__aws_file_read(&s->c->host.allocator, path, &text);
    if (rc == PERF_EIO)
        return perf__fail(PERF_EACCESS, "profile '%.64s' has no SSO token; run aws sso login",
                          s->profile);
    if (!rc)
        rc = perf__aws_json_text("the SSO token's file", text, strlen(text), "accessToken", token,
                                 TOKEN_MAX);
    if (!rc)
        rc = perf__aws_json_text("the SSO token's file", text, strlen(text), "expiresAt", end,
                                 sizeof end);
    if (!rc && (!*token || strpbrk(token, "\r\n") || !perf__aws_parse_time(end, &expires_ms)))
        rc = perf__fail(PERF_EPROTOCOL, "the SSO token's file has no token; run aws sso login");
    if (!rc && expires_ms <= perf__realtime_ms(&s->c->host.clock))
        rc = perf__fail(PERF_EACCESS,
                        "the SSO token of profile '%.64s' has expired; run aws sso "
                        "login",
                        s->profile);
    perf__aws_file_free(&s->c->host.allocator, text);
    return rc;
}

static int make_url(struct perf__aws_search *s, const struct login *l, char *url, size_t size)
{
    char host[256];
    const char *given = perf__aws_config_endpoint(s->c->config, "sso");
    int rc = given
                 ? PERF_OK
                 : perf__aws_default_host("portal.sso", l->region, false, false, host, sizeof host);
    if (rc)
        return rc;
    struct perf__writer w = {url, url + size - 1, false};
    perf__put(&w, given ? "" : "https://", given ? 0 : 8);
    const char *base = given ? given : host;
    size_t base_len = strlen(base);
    perf__put(&w, base, base_len && base[base_len - 1] == '/' ? base_len - 1 : base_len);
    perf__put(&w, "/federation/credentials?role_name=", 34);
    perf__put_encoded(&w, l->role, strlen(l->role), 0);
    perf__put(&w, "&account_id=", 12);
    perf__put_encoded(&w, l->account, strlen(l->account), 0);
    *w.at = '\0';
    return w.bad ? perf__fail(PERF_EINVAL, "the SSO settings of profile '%.64s' are too long",
                              s->profile)
                 : PERF_OK;
}

int perf__aws_from_sso(struct perf__aws_search *s, perf_aws_keys **out)
{
    static const struct perf__aws_answer_names names = {
        .outer = "roleCredentials",
        .id = "accessKeyId",
        .secret = "secretAccessKey",
        .token = "sessionToken",
        .expires = "expiration",
        .expires_is_ms = true,
        .needs_token = true,
    };
    struct login l = {NULL, NULL, NULL, NULL, NULL};
    char token[TOKEN_MAX] = "", url[2048];
    perf_http_reply *reply = NULL;
    int rc = find_login(s, &l);
    if (rc)
        return rc;
    rc = read_token(s, &l, token);
    if (!rc)
        rc = make_url(s, &l, url, sizeof url);
    const perf_http_header header = {"x-amz-sso_bearer_token", token};
    const struct perf__aws_question question = {
        .what = "SSO",
        .url = url,
        .headers = &header,
        .header_count = 1,
        .timeout_ms = ATTEMPT_MS,
        .attempts = ATTEMPTS,
    };
    if (!rc)
        rc = perf__aws_ask(s, &question, &reply);
    if (!rc && perf_http_reply_status(reply) != 200)
        rc = perf__fail(PERF_EACCESS,
                        "SSO refuses the role of profile '%.64s' (status %lld); run "
                        "aws sso login",
                        s->profile, (long long)perf_http_reply_status(reply));
    if (!rc)
        rc = perf__aws_keys_from_json(s, "SSO", perf_http_reply_body(reply),
                                      perf_http_reply_size(reply), &names, out);
    perf_http_reply_release(reply);
    OPENSSL_cleanse(token, sizeof token);
    return rc;
}
