/* SPDX-License-Identifier: MIT */
/*
 * moto.c - moto with signature checking on.
 *
 * moto lets the first three actions through unsigned. They make a user, its key, and a policy that
 * allows it everything; a restart forgets them and makes others.
 */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *test_server_python(void)
{
    static _Thread_local char path[600];
    if (!test_server_install("moto"))
        return NULL;
    snprintf(path, sizeof path, "%s/build/venv/bin/python", test_server_root());
    return path;
}

static bool prepare(struct test_server *s)
{
    const char *python = test_server_python();
    if (!python)
        return false;
    test_server_arg(s, "%s", python);
    test_server_arg(s, "-m");
    test_server_arg(s, "moto.server");
    test_server_arg(s, "-p%d", s->port);
    test_server_env(s, "INITIAL_NO_AUTH_ACTION_COUNT=3");
    return true;
}

/* Copies what stands between <tag> and </tag>. */
static bool element(const char *xml, const char *tag, char *to, size_t size)
{
    char open[40];
    snprintf(open, sizeof open, "<%s>", tag);
    const char *from = xml ? strstr(xml, open) : NULL;
    size_t len = from ? strcspn(from + strlen(open), "<") : size;
    if (len >= size)
        return false;
    memcpy(to, from + strlen(open), len);
    to[len] = 0;
    return true;
}

static char *iam(const struct test_server *s, const char *body)
{
    static const char headers[] =
        "Content-Type: application/x-www-form-urlencoded\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=none/20250101/us-east-1/iam/aws4_request, "
        "SignedHeaders=host, Signature=none\r\n";
    char *reply = NULL;
    if (test_http(s->port, "POST", "/", headers, body, &reply) == 200)
        return reply;
    test_server_fail("moto: %.200s: %.400s", body, reply ? reply : "no answer");
    free(reply);
    return NULL;
}

static bool ready(struct test_server *s)
{
    char *user = iam(s, "Action=CreateUser&Version=2010-05-08&UserName=tester");
    char *policy =
        user ? iam(s, "Action=PutUserPolicy&Version=2010-05-08&UserName=tester&PolicyName=all&"
                      "PolicyDocument=%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B"
                      "%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22%2A%22%2C%22Resource%22"
                      "%3A%22%2A%22%7D%5D%7D")
             : NULL;
    char *key = policy ? iam(s, "Action=CreateAccessKey&Version=2010-05-08&UserName=tester") : NULL;
    bool ok = key && element(key, "AccessKeyId", s->access_key, sizeof s->access_key) &&
              element(key, "SecretAccessKey", s->secret_key, sizeof s->secret_key);
    free(user);
    free(policy);
    free(key);
    return ok;
}

static const struct test_server_kind moto = {
    .name = "moto",
    .deadline_ms = 60000,
    .prepare = prepare,
    .ready = ready,
};

struct test_server *test_server_moto(void)
{
    return test_server_start(&moto, NULL);
}
