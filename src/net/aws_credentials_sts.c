/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_sts.c - keys of a role, from AWS's Security Token Service: for
 * whoever has other keys (AssumeRole), or a token of an identity provider
 * (AssumeRoleWithWebIdentity, as in EKS).
 *
 * A role's source profile may itself name a role; the profiles on the way are
 * remembered, so that a circle is an error. Source: STS API Reference, version
 * 2011-06-15 (query protocol, XML answers). Thread: the one that searches.
 */
#include <expat.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "aws_answer.h"
#include "aws_canonical.h"
#include "aws_credentials.h"
#include "aws_sign.h"

enum { FIELDS = 5, FIELD_MAX = 16384, BODY_EXTRA = 1024, ATTEMPT_MS = 10000, ATTEMPTS = 3 };

/* ----------------------------------------------------------------- the answer */

static const char *const field_names[FIELDS] = {"AccessKeyId", "SecretAccessKey", "SessionToken",
                                                "Expiration", "Code"};

struct answer {
    XML_Parser parser;
    int depth, field; /* the field that text belongs to now, or -1 */
    size_t len[FIELDS];
    char text[FIELDS][FIELD_MAX];
    bool bad;
};

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
    struct answer *a = ctx;
    (void)attributes;
    a->field = -1;
    if (++a->depth > 16) {
        a->bad = true;
        XML_StopParser(a->parser, XML_FALSE);
    }
    for (int i = 0; i < FIELDS; i++)
        if (!strcmp(name, field_names[i]) && !a->len[i])
            a->field = i;
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
    struct answer *a = ctx;
    (void)name;
    a->depth--;
    a->field = -1;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
    struct answer *a = ctx;
    if (a->field < 0)
        return;
    size_t *have = &a->len[a->field];
    if ((size_t)len >= FIELD_MAX - *have) {
        a->bad = true;
        XML_StopParser(a->parser, XML_FALSE);
        return;
    }
    memcpy(a->text[a->field] + *have, text, (size_t)len);
    *have += (size_t)len;
}

/* No entities of its own: an answer of STS has no document type. */
static void XMLCALL on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                               const XML_Char *public, int internal)
{
    struct answer *a = ctx;
    (void)name, (void)system, (void)public, (void)internal;
    a->bad = true;
    XML_StopParser(a->parser, XML_FALSE);
}

static int parse_answer(struct answer *a, perf_http_reply *reply)
{
    memset(a, 0, sizeof *a);
    a->field = -1;
    a->parser = XML_ParserCreate(NULL);
    if (!a->parser)
        return perf__fail_nomem("STS's answer");
    XML_SetUserData(a->parser, a);
    XML_SetElementHandler(a->parser, on_start, on_end);
    XML_SetCharacterDataHandler(a->parser, on_text);
    XML_SetStartDoctypeDeclHandler(a->parser, on_doctype);
    bool ok = XML_Parse(a->parser, perf_http_reply_body(reply), (int)perf_http_reply_size(reply),
                        1) == XML_STATUS_OK;
    XML_ParserFree(a->parser);
    return ok && !a->bad ? PERF_OK : PERF_EPROTOCOL;
}

/* A code of letters, such as AccessDenied; anything else is not repeated. */
static const char *safe_code(const char *code)
{
    size_t len = strspn(code, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.");
    return len && len < 64 && !code[len] ? code : "no code";
}

static int take_answer(struct perf__aws_search *s, const char *action, perf_http_reply *reply,
                       perf_aws_keys **out)
{
    int64_t status = perf_http_reply_status(reply), expires_ms = 0;
    struct answer *a = perf__alloc(&s->c->host.allocator, sizeof *a);
    if (!a)
        return perf__fail_nomem("STS's answer");
    int rc = parse_answer(a, reply);
    if (rc == PERF_ENOMEM) {
    } else if (status != 200) {
        rc = perf__fail(PERF_EACCESS, "STS refuses %s: %s (status %lld)", action,
                        rc ? "no code" : safe_code(a->text[4]), (long long)status);
    } else if (rc || !a->len[0] || !a->len[1] || !a->len[2] ||
               !perf__aws_parse_time(a->text[3], &expires_ms)) {
        rc = perf__fail(PERF_EPROTOCOL, "STS's answer to %s has no credentials", action);
    } else {
        rc = perf_aws_keys_new(a->text[0], a->text[1], a->text[2], expires_ms, &s->c->host.view,
                               out);
    }
    OPENSSL_cleanse(a, sizeof *a);
    perf__free(&s->c->host.allocator, a);
    return rc;
}

/* ---------------------------------------------------------------- the question */

struct form {
    struct perf__writer w;
    char *data;
    size_t size;
};

static void put_field(struct form *f, const char *name, const char *value)
{
    if (!value)
        return;
    perf__put_char(&f->w, '&');
    perf__put(&f->w, name, strlen(name));
    perf__put_char(&f->w, '=');
    perf__put_encoded(&f->w, value, strlen(value), 0);
}

static int begin_form(struct perf__aws_search *s, struct form *f, const char *action, size_t values)
{
    f->size = BODY_EXTRA + 3 * values;
    f->data = perf__alloc(&s->c->host.allocator, f->size);
    if (!f->data)
        return perf__fail_nomem("a request to STS");
    f->w = (struct perf__writer){f->data, f->data + f->size, false};
    perf__put(&f->w, "Version=2011-06-15&Action=", 26);
    perf__put(&f->w, action, strlen(action));
    return PERF_OK;
}

static void end_form(struct perf__aws_search *s, struct form *f)
{
    if (f->data)
        OPENSSL_cleanse(f->data, f->size);
    perf__free(&s->c->host.allocator, f->data);
}

/* scheme://host/path: where host begins, and its end. */
static bool split_url(const char *url, const char **host, size_t *host_len, const char **path)
{
    *host = strstr(url, "://");
    if (!*host)
        return false;
    *host += 3;
    *host_len = strcspn(*host, "/?#");
    *path = (*host)[*host_len] == '/' ? *host + *host_len : "/";
    return *host_len > 0 && *host_len < 256 && !memchr(*host, '@', *host_len);
}

static int endpoint(struct perf__aws_search *s, char *url, size_t size)
{
    const struct perf__aws_config *config = s->c->config;
    const char *given = perf__aws_config_endpoint(config, "sts");
    char host[256];
    if (!given) {
        int rc = perf__aws_default_host("sts", s->c->region, perf__aws_config_dual_stack(config),
                                        perf__aws_config_fips(config), host, sizeof host);
        if (rc)
            return rc;
    }
    int len = given ? snprintf(url, size, "%s", given) : snprintf(url, size, "https://%s/", host);
    if (len < 0 || (size_t)len >= size)
        return perf__fail(PERF_EINVAL, "the endpoint URL of STS is too long");
    return PERF_OK;
}

/* Sends the form, signed when keys are given. */
static int ask(struct perf__aws_search *s, const char *action, struct form *f, perf_aws_keys *keys,
               perf_aws_keys **out)
{
    char url[1024], host_value[256];
    const char *host = NULL, *path = NULL;
    size_t host_len = 0;
    struct perf__aws_signing signing;
    perf_http_reply *reply = NULL;
    int rc = endpoint(s, url, sizeof url);
    if (rc)
        return rc;
    if (f->w.bad || !split_url(url, &host, &host_len, &path))
        return perf__fail(PERF_EINVAL, f->w.bad ? "a role's settings are too long"
                                                : "the endpoint of STS is not an http URL; see "
                                                  "AWS_ENDPOINT_URL_STS");
    snprintf(host_value, sizeof host_value, "%.*s", (int)host_len, host);
    perf_http_header headers[8] = {
        {"Host", host_value},
        {"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"},
    };
    size_t count = 2;
    perf_bytes body = {f->data, (size_t)(f->w.at - f->data)};
    if (keys) {
        perf_aws_sign_request request = PERF_AWS_SIGN_REQUEST_INIT;
        request.method = "POST";
        request.path = path;
        request.headers = headers;
        request.header_count = count;
        request.payload = body;
        request.region = s->c->region;
        request.service = "sts";
        rc = perf__aws_sign(&signing, &s->c->host.allocator, keys, &request,
                            perf__realtime_ms(&s->c->host.clock));
        if (rc)
            return rc;
        for (size_t i = 0; i < signing.header_count; i++)
            headers[count++] = signing.headers[i];
    }
    const struct perf__aws_question question = {
        .what = "STS",
        .method = "POST",
        .url = url,
        .headers = headers,
        .header_count = count,
        .body = body,
        .timeout_ms = ATTEMPT_MS,
        .attempts = ATTEMPTS,
    };
    rc = perf__aws_ask(s, &question, &reply);
    if (keys)
        perf__aws_signing_end(&signing);
    if (!rc)
        rc = take_answer(s, action, reply, out);
    perf_http_reply_release(reply);
    return rc;
}

static void session_name(struct perf__aws_search *s, char *out, size_t size)
{
    snprintf(out, size, "libperf-%lld", (long long)(perf__realtime_ms(&s->c->host.clock) / 1000));
}

static size_t length(const char *text)
{
    return text ? strlen(text) : 0;
}

/* ----------------------------------------------------------------- the sources */

static int find_source_profile(struct perf__aws_search *s, const char *name, perf_aws_keys **out)
{
    const struct perf__aws_profiles *p = perf__aws_config_profiles(s->c->config);
    const int both = PERF__AWS_CONFIG_FILE | PERF__AWS_CREDENTIALS_FILE;
    const char *parent = s->profile;
    if (!perf__aws_profiles_has(p, PERF__AWS_PROFILE, name, both))
        return perf__fail(PERF_EINVAL,
                          "profile '%.64s' names a source_profile '%.64s' that is not "
                          "there",
                          parent, name);
    bool has_keys =
        perf__aws_profiles_get(p, PERF__AWS_PROFILE, name, both, "aws_access_key_id", NULL) ||
        perf__aws_profiles_get(p, PERF__AWS_PROFILE, name, both, "aws_secret_access_key", NULL);
    for (size_t i = 0; i < s->visited_count; i++) /* a profile may take the keys of its own */
        if (!strcmp(s->visited[i], name) && (strcmp(name, parent) != 0 || !has_keys))
            return perf__fail(PERF_EINVAL,
                              "source_profile goes in a circle: '%.64s' leads back to "
                              "'%.64s'",
                              parent, name);
    if (s->visited_count == PERF__AWS_PROFILE_DEPTH)
        return perf__fail(PERF_EINVAL, "source_profile is nested more than %d times",
                          PERF__AWS_PROFILE_DEPTH);
    bool was_in_chain = s->in_chain;
    s->profile = name;
    s->in_chain = true;
    int rc = has_keys ? PERF_MISS : perf__aws_from_role(s, out);
    if (rc == PERF_MISS)
        rc = perf__aws_from_profile(s, out);
    if (rc == PERF_MISS)
        rc = perf__fail(PERF_EACCESS, "the source_profile '%.64s' has no credentials", name);
    s->profile = parent;
    s->in_chain = was_in_chain;
    return rc;
}

static int find_source(struct perf__aws_search *s, perf_aws_keys **out)
{
    static const struct {
        const char *name;
        perf__aws_source_fn find;
    } places[] = {{"Environment", perf__aws_from_environment},
                  {"EcsContainer", perf__aws_from_container},
                  {"Ec2InstanceMetadata", perf__aws_from_instance}};
    const char *profile = perf__aws_search_get(s, "source_profile");
    const char *place = perf__aws_search_get(s, "credential_source");
    if (!profile == !place)
        return perf__fail(PERF_EINVAL,
                          "profile '%.64s' has a role_arn and needs one of source_profile and "
                          "credential_source, not %s",
                          s->profile, profile ? "both" : "none");
    if (profile)
        return find_source_profile(s, profile, out);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (!strcmp(places[i].name, place)) {
            int rc = places[i].find(s, out);
            return rc != PERF_MISS ? rc
                                   : perf__fail(PERF_EACCESS,
                                                "the credential_source %s of profile "
                                                "'%.64s' has no credentials",
                                                place, s->profile);
        }
    return perf__fail(PERF_EINVAL,
                      "profile '%.64s' has a credential_source that is none of "
                      "Environment, EcsContainer and Ec2InstanceMetadata",
                      s->profile);
}

static int check_duration(struct perf__aws_search *s, const char *duration)
{
    if (!duration || (strlen(duration) < 6 && strspn(duration, "0123456789") == strlen(duration)))
        return PERF_OK;
    return perf__fail(PERF_EINVAL, "duration_seconds of profile '%.64s' is no number of seconds",
                      s->profile);
}

int perf__aws_from_role(struct perf__aws_search *s, perf_aws_keys **out)
{
    const char *role = perf__aws_search_get(s, "role_arn");
    if (!role || perf__aws_search_get(s, "web_identity_token_file"))
        return PERF_MISS;
    const char *name = perf__aws_search_get(s, "role_session_name");
    const char *external = perf__aws_search_get(s, "external_id");
    const char *duration = perf__aws_search_get(s, "duration_seconds");
    if (perf__aws_search_get(s, "mfa_serial"))
        return perf__fail(PERF_EUNSUPPORTED,
                          "the role of profile '%.64s' wants an MFA code (mfa_serial), which a "
                          "library cannot ask for; use keys made by aws sts get-session-token",
                          s->profile);
    int rc = check_duration(s, duration);
    if (rc)
        return rc;
    perf_aws_keys *source = NULL;
    struct form f = {.data = NULL};
    char own_name[64];
    session_name(s, own_name, sizeof own_name);
    name = name ? name : own_name;
    if (s->visited_count < PERF__AWS_PROFILE_DEPTH)
        s->visited[s->visited_count++] = s->profile;
    rc = find_source(s, &source);
    if (!rc)
        rc = begin_form(s, &f, "AssumeRole", strlen(role) + strlen(name) + length(external) + 16);
    if (!rc) {
        put_field(&f, "RoleArn", role);
        put_field(&f, "RoleSessionName", name);
        put_field(&f, "ExternalId", external);
        put_field(&f, "DurationSeconds", duration);
        rc = ask(s, "AssumeRole", &f, source, out);
    }
    end_form(s, &f);
    perf_aws_keys_release(source);
    return rc;
}

/* The environment counts for the first profile only. */
static const char *web_setting(struct perf__aws_search *s, const char *variable, const char *key)
{
    bool is_explicit = false;
    perf__aws_config_profile(s->c->config, &is_explicit);
    const char *value =
        is_explicit || s->in_chain ? NULL : perf__aws_config_env(s->c->config, variable);
    return value ? value : perf__aws_search_get(s, key);
}

int perf__aws_from_web_identity(struct perf__aws_search *s, perf_aws_keys **out)
{
    const char *path = web_setting(s, "AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file");
    if (!path)
        return PERF_MISS;
    const char *role = web_setting(s, "AWS_ROLE_ARN", "role_arn");
    const char *name = web_setting(s, "AWS_ROLE_SESSION_NAME", "role_session_name");
    char own_name[64], *token = NULL;
    struct form f = {.data = NULL};
    if (!role)
        return perf__fail(PERF_EINVAL, "there is a web identity token, but no role; set "
                                       "AWS_ROLE_ARN or role_arn");
    session_name(s, own_name, sizeof own_name);
    name = name ? name : own_name;
    int rc = perf__aws_file_read(&s->c->host.allocator, path, &token);
    if (!rc)
        rc = begin_form(s, &f, "AssumeRoleWithWebIdentity",
                        strlen(role) + strlen(name) + strlen(token));
    if (!rc) {
        put_field(&f, "RoleArn", role);
        put_field(&f, "RoleSessionName", name);
        put_field(&f, "WebIdentityToken", token);
        rc = ask(s, "AssumeRoleWithWebIdentity", &f, NULL, out);
    }
    end_form(s, &f);
    perf__aws_file_free(&s->c->host.allocator, token);
    return rc;
}
