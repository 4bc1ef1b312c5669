/* SPDX-License-Identifier: MIT */
/*
 * toxiproxy.c - a proxy with faults, between 127.0.0.1:ports[1] and another server.
 */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keep in step with toxiproxy.sh. */
#define PROGRAM "%s/build/bin/toxiproxy-v2.5.0"

static bool call(const struct test_server *s, const char *method, const char *path, int wanted,
                 const char *body)
{
    char *reply = NULL;
    int status =
        test_http(s->port, method, path, "Content-Type: application/json\r\n", body, &reply);
    if (status != wanted)
        test_server_fail("toxiproxy: %s %s %s: %.500s", method, path, body ? body : "",
                         reply ? reply : "no answer");
    free(reply);
    return status == wanted;
}

static bool prepare(struct test_server *s)
{
    char config[256];
    if (!test_server_install("toxiproxy"))
        return false;
    snprintf(config, sizeof config,
             "[{\"name\": \"proxy\", \"listen\": \"127.0.0.1:%d\", "
             "\"upstream\": \"127.0.0.1:%d\", \"enabled\": true}]\n",
             s->ports[1], *(const int *)s->given);
    if (!test_server_write(s, "proxies.json", config))
        return false;
    test_server_arg(s, PROGRAM, test_server_root());
    test_server_arg(s, "-host=127.0.0.1");
    test_server_arg(s, "-port=%d", s->port);
    test_server_arg(s, "-config=proxies.json");
    test_server_env(s, "LOG_LEVEL=info");
    return true;
}

static const struct test_server_kind toxiproxy = {
    .name = "toxiproxy",
    .ports = 2,
    .prepare = prepare,
};

struct test_server *test_server_toxiproxy(int upstream)
{
    return test_server_start(&toxiproxy, &upstream);
}

bool test_toxic_add(struct test_server *s, const char *name, const char *type, bool downstream,
                    const char *attributes)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"name\": \"%s\", \"type\": \"%s\", \"stream\": \"%s\", \"attributes\": {%s}}", name,
             type, downstream ? "downstream" : "upstream", attributes ? attributes : "");
    return call(s, "POST", "/proxies/proxy/toxics", 200, body);
}

bool test_toxic_remove(struct test_server *s, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "/proxies/proxy/toxics/%s", name);
    return call(s, "DELETE", path, 204, NULL);
}

bool test_toxic_enable(struct test_server *s, bool enabled)
{
    return call(s, "POST", "/proxies/proxy", 200,
                enabled ? "{\"enabled\": true}" : "{\"enabled\": false}");
}
