/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_imds.c - keys of an EC2 instance's role, from its metadata
 * service, version 2 only: a token first, then the role's name, then its keys.
 *
 * When the service is not there, this is no instance, and the search goes on.
 * Static stability: keys that the service hands out although they have ended or
 * soon will are taken to work for another 17 to 25 minutes, since in an outage
 * AWS goes on accepting them. Source: EC2 User Guide, "Instance metadata".
 * Thread: the one that searches.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/thread.h"
#include "aws_answer.h"
#include "aws_credentials.h"
#include "aws_keys.h"

#define ROLE_PATH "latest/meta-data/iam/security-credentials/"

enum { TOKEN_MAX = 1024, ROLE_MAX = 256, REFRESH_AHEAD_MS = 15 * 60000 };

struct service {
    struct perf__aws_search *s;
    char base[512]; /* ends with a slash */
    char token[TOKEN_MAX];
    int64_t timeout_ms;
    int attempts;
};

static int find_service(struct service *m)
{
    const struct perf__aws_config *config = m->s->c->config;
    const char *base = perf__aws_config_get(config, "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                                            "ec2_metadata_service_endpoint");
    const char *mode = perf__aws_config_get(config, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                                            "ec2_metadata_service_endpoint_mode");
    int64_t seconds = 1, attempts = 1;
    if (!base)
        base =
            mode && !strcasecmp(mode, "ipv6") ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
    size_t len = strlen(base);
    if (len + 2 > sizeof m->base)
        return perf__fail(PERF_EINVAL, "AWS_EC2_METADATA_SERVICE_ENDPOINT is too long");
    snprintf(m->base, sizeof m->base, "%s%s", base, len && base[len - 1] == '/' ? "" : "/");
    int rc = perf__aws_config_number(config, "AWS_METADATA_SERVICE_TIMEOUT",
                                     "metadata_service_timeout", 1, 60, 1, &seconds);
    if (!rc)
        rc = perf__aws_config_number(config, "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
                                     "metadata_service_num_attempts", 1, 20, 1, &attempts);
    m->timeout_ms = seconds * 1000;
    m->attempts = (int)attempts;
    return rc;
}

/* PERF_MISS: the service is not there, or has nothing at this path. */
static int get(struct service *m, const char *method, const char *path, const char *rest,
               perf_http_reply **out)
{
    char url[1024];
    bool is_put = !strcmp(method, "PUT");
    const perf_http_header header = {is_put ? "x-aws-ec2-metadata-token-ttl-seconds"
                                            : "x-aws-ec2-metadata-token",
                                     is_put ? "21600" : m->token};
    int len = snprintf(url, sizeof url, "%s%s%s", m->base, path, rest);
    if (len < 0 || (size_t)len >= sizeof url)
        return perf__fail(PERF_EINVAL, "the URL of the instance's metadata is too long");
    const struct perf__aws_question question = {
        .what = "the instance's metadata",
        .method = method,
        .url = url,
        .headers = &header,
        .header_count = 1,
        .timeout_ms = m->timeout_ms,
        .attempts = m->attempts,
        .direct = true,
    };
    int rc = perf__aws_ask(m->s, &question, out);
    if (rc)
        return rc == PERF_ENOMEM || rc == PERF_EINVAL ? rc : PERF_MISS;
    if (perf_http_reply_status(*out) == 200 && perf_http_reply_size(*out))
        return PERF_OK;
    perf_http_reply_release(*out);
    *out = NULL;
    return PERF_MISS;
}

/* The first line of an answer, of printable characters. */
static int get_line(struct service *m, const char *method, const char *path, char *line,
                    size_t size)
{
    perf_http_reply *reply;
    int rc = get(m, method, path, "", &reply);
    if (rc)
        return rc;
    const char *body = perf_http_reply_body(reply);
    size_t len = strcspn(body, "\r\n");
    bool fits = len && len < size;
    for (size_t i = 0; fits && i < len; i++)
        fits = body[i] > ' ' && body[i] < 0x7f;
    if (fits) {
        memcpy(line, body, len);
        line[len] = '\0';
    } else {
        rc = perf__fail(PERF_EPROTOCOL, "the instance's metadata: no line of text was answered");
    }
    perf_http_reply_release(reply);
    return rc;
}

static int extend(struct service *m, perf_aws_keys **keys)
{
    perf_aws_credentials *c = m->s->c;
    int64_t now = perf__realtime_ms(&c->host.clock), end = perf_aws_keys_expires_ms(*keys);
    int64_t ahead = REFRESH_AHEAD_MS + 120000 + (int64_t)(perf__thread_random() % 480001);
    if (!end || end - ahead > now)
        return PERF_OK;
    perf_aws_keys *longer;
    int rc = perf__aws_keys_extend(*keys, now + ahead, &longer);
    if (rc)
        return rc;
    perf__log(&c->host.log, PERF_LOG_WARNING, "aws",
              "the instance's credentials end soon, and there are no newer ones; they are used for "
              "another %lld minutes",
              (long long)(ahead / 60000));
    perf_aws_keys_release(*keys);
    *keys = longer;
    return PERF_OK;
}

int perf__aws_from_instance(struct perf__aws_search *s, perf_aws_keys **out)
{
    static const struct perf__aws_answer_names names = {
        .id = "AccessKeyId",
        .secret = "SecretAccessKey",
        .token = "Token",
        .expires = "Expiration",
        .needs_token = true,
    };
    struct service m = {.s = s};
    char role[ROLE_MAX];
    perf_http_reply *reply = NULL;
    perf_aws_keys *keys = NULL;
    if (perf__aws_config_flag(s->c->config, "AWS_EC2_METADATA_DISABLED", NULL))
        return PERF_MISS;
    int rc = find_service(&m);
    if (!rc)
        rc = get_line(&m, "PUT", "latest/api/token", m.token, sizeof m.token);
    if (!rc)
        rc = get_line(&m, "GET", ROLE_PATH, role, sizeof role);
    if (!rc)
        rc = get(&m, "GET", ROLE_PATH, role, &reply);
    if (!rc)
        rc = perf__aws_keys_from_json(s, "the instance's metadata", perf_http_reply_body(reply),
                                      perf_http_reply_size(reply), &names, &keys);
    if (!rc)
        rc = extend(&m, &keys);
    perf_http_reply_release(reply);
    if (rc)
        perf_aws_keys_release(keys);
    else
        *out = keys;
    return rc;
}
