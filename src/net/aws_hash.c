/* SPDX-License-Identifier: MIT */
/*
 * aws_hash.c - SHA-256 and HMAC-SHA-256 with what OpenSSL 3 would do anew for
 * each call done once: the algorithm once a process, the context once a thread.
 *
 * The fetched algorithm is never freed: threads may still hash while the
 * process ends. Any thread.
 */
#include "aws_hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "../base/status.h"

/* Process-wide by nature: libcrypto's own table is. Written once. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_exit;
static bool have_key;
static EVP_MD *sha256;

/* Thread-local: a context is for one thread, and making one costs as much as a short hash. */
static _Thread_local EVP_MD_CTX *context __attribute__((tls_model("initial-exec")));

static void free_context(void *ctx)
{
    context = NULL;
    EVP_MD_CTX_free(ctx);
}

static void fetch(void)
{
    have_key = !pthread_key_create(&at_exit, free_context);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static __attribute__((cold, noinline)) EVP_MD_CTX *make_context(void)
{
    pthread_once(&once, fetch);
    if (!sha256 || !have_key)
        return NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx && pthread_setspecific(at_exit, ctx)) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    return context = ctx;
}

static int no_hash(void)
{
    return perf__fail(PERF_ENOMEM, "libcrypto gives no SHA-256; is there memory, and a provider?");
}

int perf__sha256(const void *data, size_t len, uint8_t digest[PERF__SHA256_SIZE])
{
    EVP_MD_CTX *ctx = __builtin_expect(context != NULL, 1) ? context : make_context();
    if (!ctx || !EVP_DigestInit_ex2(ctx, sha256, NULL) ||
        (len && !EVP_DigestUpdate(ctx, data, len)) || !EVP_DigestFinal_ex(ctx, digest, NULL))
        return no_hash();
    return PERF_OK;
}

int perf__hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                      uint8_t digest[PERF__SHA256_SIZE])
{
    uint8_t inner[PERF__SHA256_BLOCK], outer[PERF__SHA256_BLOCK + PERF__SHA256_SIZE];
    uint8_t hashed[PERF__SHA256_SIZE];
    int rc = PERF_OK;
    if (key_len > PERF__SHA256_BLOCK) {
        rc = perf__sha256(key, key_len, hashed);
        key = hashed;
        key_len = sizeof hashed;
    }
    memset(inner, 0x36, sizeof inner);
    memset(outer, 0x5c, PERF__SHA256_BLOCK);
    for (size_t i = 0; i < key_len; i++) {
        uint8_t k = ((const uint8_t *)key)[i];
        inner[i] ^= k;
        outer[i] ^= k;
    }
    EVP_MD_CTX *ctx = context ? context : make_context();
    if (!rc && (!ctx || !EVP_DigestInit_ex2(ctx, sha256, NULL) ||
                !EVP_DigestUpdate(ctx, inner, sizeof inner) ||
                (len && !EVP_DigestUpdate(ctx, data, len)) ||
                !EVP_DigestFinal_ex(ctx, outer + PERF__SHA256_BLOCK, NULL)))
        rc = no_hash();
    if (!rc)
        rc = perf__sha256(outer, sizeof outer, digest);
    OPENSSL_cleanse(inner, sizeof inner);
    OPENSSL_cleanse(outer, sizeof outer);
    OPENSSL_cleanse(hashed, sizeof hashed);
    return rc;
}

void perf__hex(char *out, const uint8_t *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
}
