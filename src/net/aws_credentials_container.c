/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials_container.c - keys of an ECS task or an EKS pod, from the agent
 * beside it.
 *
 * A full URI over plain HTTP is asked only where it cannot leave the machine:
 * loopback, or the agents' own addresses. Source: AWS SDKs and Tools Reference
 * Guide, "Container credential provider". Thread: the one that searches.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "aws_answer.h"
#include "aws_credentials.h"

enum { ATTEMPT_MS = 2000, ATTEMPTS = 3 };

static bool is_allowed_host(const char *host, size_t len)
{
    static const char *const agents[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23",
                                         "localhost"};
    char text[64];
    struct in_addr v4;
    struct in6_addr v6;
    if (len >= sizeof text)
        return false;
    memcpy(text, host, len);
    text[len] = '\0';
    for (size_t i = 0; i < sizeof agents / sizeof *agents; i++)
        if (!strcmp(text, agents[i]))
            return true;
    if (inet_pton(AF_INET, text, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool is_allowed(const char *url)
{
    if (!strncmp(url, "https://", 8))
        return true;
    if (strncmp(url, "http://", 7) != 0)
        return false;
    const char *host = url + 7;
    size_t len = strcspn(host, "/?#");
    if (memchr(host, '@', len) || memchr(host, '\\', len))
        return false;
    if (*host == '[') {
        size_t inside = strcspn(host + 1, "]/?#");
        return host[1 + inside] == ']' && strchr(":/?#", host[2 + inside]) &&
               is_allowed_host(host + 1, inside);
    }
    return is_allowed_host(host, strcspn(host, ":/?#"));
}

int perf__aws_from_container(struct perf__aws_search *s, perf_aws_keys **out)
{
    static const struct perf__aws_answer_names names = {
        .id = "AccessKeyId",
        .secret = "SecretAccessKey",
        .token = "Token",
        .expires = "Expiration",
        .needs_token = true,
    };
    const struct perf__aws_config *config = s->c->config;
    const char *relative = perf__aws_config_env(config, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = perf__aws_config_env(config, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *path = perf__aws_config_env(config, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = perf__aws_config_env(config, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
    char url[2048], *from_file = NULL;
    perf_http_reply *reply = NULL;
    if (!relative && !full)
        return PERF_MISS;
    if (relative && *relative != '/')
        return perf__fail(PERF_EINVAL, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with "
                                       "a slash");
    int len = relative ? snprintf(url, sizeof url, "http://169.254.170.2%s", relative)
                       : snprintf(url, sizeof url, "%s", full);
    if (len < 0 || (size_t)len >= sizeof url)
        return perf__fail(PERF_EINVAL, "the container's credentials URI is too long");
    if (!is_allowed(url))
        return perf__fail(PERF_EINVAL, "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http "
                                       "to a loopback or container agent's address");
    int rc = path ? perf__aws_file_read(&s->c->host.allocator, path, &from_file) : PERF_OK;
    if (rc)
        return rc;
    token = from_file ? from_file : token;
    if (token && strpbrk(token, "\r\n"))
        rc = perf__fail(PERF_EINVAL, "the container's authorization token holds a line end");
    const perf_http_header headers[] = {{"Accept", "application/json"}, {"Authorization", token}};
    const struct perf__aws_question question = {
        .what = "the container's credentials",
        .url = url,
        .headers = headers,
        .header_count = token ? 2 : 1,
        .timeout_ms = ATTEMPT_MS,
        .attempts = ATTEMPTS,
        .direct = strncmp(url, "https://", 8) != 0,
    };
    if (!rc)
        rc = perf__aws_ask(s, &question, &reply);
    if (!rc && perf_http_reply_status(reply) != 200)
        rc = perf__fail(PERF_EACCESS,
                        "the container's credentials: the agent answered with status "
                        "%lld",
                        (long long)perf_http_reply_status(reply));
    if (!rc)
        rc = perf__aws_keys_from_json(s, question.what, perf_http_reply_body(reply),
                                      perf_http_reply_size(reply), &names, out);
    perf_http_reply_release(reply);
    perf__aws_file_free(&s->c->host.allocator, from_file);
    return rc;
}
