/* SPDX-License-Identifier: MIT */
/* redis_script.c - scripts by their SHA-1. A script is immutable: any thread. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis.h"

enum { SHA1 = 20, FEW = 32 };

struct perf_redis_script {
    perf_allocator allocator;
    char sha1[2 * SHA1 + 1];
    size_t len;
    char text[];
};

int perf_redis_script_new(const perf_allocator *allocator, const char *text, size_t len,
                          perf_redis_script **out)
{
    perf_host seams = PERF_HOST_INIT;
    struct perf__host host;
    seams.allocator = allocator;
    int rc = perf__host_take(&seams, &host);
    if (rc)
        return rc;
    if (!text || !len || !out)
        return perf__fail(PERF_EINVAL, "text, len or out is missing; give a script and a place");
    unsigned char digest[SHA1];
    unsigned size = 0;
    perf_redis_script *script = perf__alloc(&host.allocator, sizeof *script + len);
    if (!script || EVP_Digest(text, len, digest, &size, EVP_sha1(), NULL) != 1 || size != SHA1) {
        perf__free(&host.allocator, script);
        return perf__fail_nomem("a Redis script and its SHA-1");
    }
    script->allocator = host.allocator;
    script->len = len;
    memcpy(script->text, text, len);
    for (int i = 0; i < SHA1; i++)
        snprintf(script->sha1 + 2 * i, 3, "%02x", digest[i]);
    *out = script;
    return PERF_OK;
}

void perf_redis_script_free(perf_redis_script *script)
{
    if (!script)
        return;
    perf_allocator allocator = script->allocator;
    perf__free(&allocator, script);
}

const char *perf_redis_script_sha1(const perf_redis_script *script)
{
    return script ? script->sha1 : "";
}

int perf_redis_script_call(perf_redis *redis, const perf_redis_script *script, size_t keys,
                           size_t argc, const perf_bytes *argv, int64_t timeout_ms,
                           perf_redis_reply **out)
{
    perf_bytes few[FEW], *all = few;
    char number[24];
    int rc = perf__redis_check(redis);
    if (rc)
        return rc;
    if (!script || (argc && !argv) || keys > argc)
        return perf__fail(PERF_EINVAL, "script or argv is NULL, or keys is %zu of %zu arguments",
                          keys, argc);
    const perf_allocator *a = &redis->host.allocator;
    if (argc + 3 > FEW && !(all = perf__calloc(a, argc + 3, sizeof *all)))
        return perf__fail_nomem("the arguments of a Redis script");
    all[0] = (perf_bytes){"EVALSHA", 7};
    all[1] = (perf_bytes){script->sha1, sizeof script->sha1 - 1};
    all[2] = (perf_bytes){number, (size_t)snprintf(number, sizeof number, "%zu", keys)};
    if (argc)
        memcpy(all + 3, argv, argc * sizeof *argv);
    rc = perf_redis_call(redis, argc + 3, all, timeout_ms, out);
    if (rc == PERF_EREMOTE &&
        perf_redis_error_kind(perf_last_error()) == PERF_REDIS_ERROR_NOSCRIPT) {
        all[0] = (perf_bytes){"EVAL", 4};
        all[1] = (perf_bytes){script->text, script->len};
        rc = perf_redis_call(redis, argc + 3, all, timeout_ms, out);
    }
    if (all != few)
        perf__free(a, all);
    return rc;
}
