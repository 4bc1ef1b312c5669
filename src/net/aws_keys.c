/* SPDX-License-Identifier: MIT */
/*
 * aws_keys.c - making, counting and wiping keys, and their signing keys.
 *
 * Any thread. A signing key is read under its slot's sequence number; who finds
 * none derives it and writes the next slot under a mutex.
 */
#include "aws_keys.h"

#include <openssl/crypto.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_hash.h"

/* What could end a header line, or was never in a key. */
static bool is_printable(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

int perf_aws_keys_new(const char *access_key_id, const char *secret_access_key,
                      const char *session_token, int64_t expires_ms, const perf_host *host,
                      perf_aws_keys **out)
{
    struct perf__host own;
    int rc = perf__host_take(host, &own);
    if (rc)
        return rc;
    if (!session_token)
        session_token = "";
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_aws_keys_new needs a place for the keys");
    if (!access_key_id || !*access_key_id || !secret_access_key || !*secret_access_key)
        return perf__fail(PERF_EINVAL, "access key id and secret must both be given");
    if (!is_printable(access_key_id) || !is_printable(secret_access_key) ||
        !is_printable(session_token))
        return perf__fail(PERF_EINVAL, "the access key id, secret or session token holds a space, "
                                       "a line end or another character that no key has");
    size_t id_len = strlen(access_key_id), secret_len = strlen(secret_access_key);
    size_t token_len = strlen(session_token);
    if (id_len > 1024 || secret_len > 4096 || token_len > 65536)
        return perf__fail(PERF_EINVAL, "the access key id, secret or session token is longer than "
                                       "any that AWS gives out");
    if (expires_ms < 0)
        return perf__fail(PERF_EINVAL, "expires_ms is %lld; give 0 or a time",
                          (long long)expires_ms);
    size_t size = sizeof(perf_aws_keys) + id_len + secret_len + token_len + 3;
    perf_aws_keys *keys = perf__calloc(&own.allocator, 1, size);
    if (!keys)
        return perf__fail_nomem("AWS keys");
    keys->allocator = own.allocator;
    keys->size = size;
    keys->expires_ms = expires_ms;
    keys->id_len = id_len;
    keys->secret_len = secret_len;
    keys->token_len = token_len;
    keys->id = (char *)(keys + 1);
    keys->secret = keys->id + id_len + 1;
    keys->token = keys->secret + secret_len + 1;
    memcpy(keys->id, access_key_id, id_len);
    memcpy(keys->secret, secret_access_key, secret_len);
    memcpy(keys->token, session_token, token_len);
    atomic_init(&keys->references, 1);
    pthread_mutex_init(&keys->writing, NULL); /* cannot fail without attributes */
    *out = keys;
    return PERF_OK;
}

int perf__aws_keys_extend(perf_aws_keys *keys, int64_t expires_ms, perf_aws_keys **out)
{
    perf_host host = PERF_HOST_INIT;
    host.allocator = &keys->allocator;
    return perf_aws_keys_new(keys->id, keys->secret, keys->token, expires_ms, &host, out);
}

perf_aws_keys *perf_aws_keys_share(perf_aws_keys *keys)
{
    if (keys)
        atomic_fetch_add_explicit(&keys->references, 1, memory_order_relaxed);
    return keys;
}

void perf_aws_keys_release(perf_aws_keys *keys)
{
    if (!keys || atomic_fetch_sub_explicit(&keys->references, 1, memory_order_acq_rel) != 1)
        return;
    perf_allocator allocator = keys->allocator;
    pthread_mutex_destroy(&keys->writing);
    OPENSSL_cleanse(keys, keys->size);
    perf__free(&allocator, keys);
}

const char *perf_aws_keys_id(const perf_aws_keys *keys)
{
    return keys->id;
}

const char *perf_aws_keys_secret(const perf_aws_keys *keys)
{
    return keys->secret;
}

const char *perf_aws_keys_token(const perf_aws_keys *keys)
{
    return keys->token;
}

int64_t perf_aws_keys_expires_ms(const perf_aws_keys *keys)
{
    return keys->expires_ms;
}

/* ------------------------------------------------------------- signing keys */

static bool slot_read(struct perf__aws_scope_slot *slot, const uint64_t *scope, uint64_t *key)
{
    uint64_t before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
    if (!before || (before & 1))
        return false;
    for (size_t i = 0; i < PERF__AWS_SCOPE_MAX / 8; i++)
        if (atomic_load_explicit(&slot->scope[i], memory_order_relaxed) != scope[i])
            return false;
    for (size_t i = 0; i < PERF__AWS_DIGEST / 8; i++)
        key[i] = atomic_load_explicit(&slot->key[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&slot->sequence, memory_order_relaxed) == before;
}

static void slot_write(perf_aws_keys *keys, const uint64_t *scope, const uint64_t *key)
{
    if (pthread_mutex_trylock(&keys->writing))
        return; /* another one is kept just now; and nobody waits for a thread lost in a fork */
    struct perf__aws_scope_slot *slot = &keys->slots[keys->next_slot++ % PERF__AWS_SCOPE_SLOTS];
    uint64_t sequence = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < PERF__AWS_SCOPE_MAX / 8; i++)
        atomic_store_explicit(&slot->scope[i], scope[i], memory_order_relaxed);
    for (size_t i = 0; i < PERF__AWS_DIGEST / 8; i++)
        atomic_store_explicit(&slot->key[i], key[i], memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence + 2, memory_order_release);
    pthread_mutex_unlock(&keys->writing);
}

/* AWS General Reference, "Create a signed AWS API request", step 4. */
static int derive(perf_aws_keys *keys, const char *scope, size_t region_len, size_t service_len,
                  uint8_t *key)
{
    size_t len = keys->secret_len + 4;
    uint8_t *secret = perf__alloc(&keys->allocator, len);
    if (!secret)
        return perf__fail_nomem("a signing key");
    static const uint8_t prefix[4] = {'A', 'W', 'S', '4'};
    memcpy(secret, prefix, sizeof prefix);
    for (size_t i = 0; i < keys->secret_len; i++) /* bytes, not a string */
        secret[4 + i] = (uint8_t)keys->secret[i];
    int rc = perf__hmac_sha256(secret, len, scope, 8, key);
    if (!rc)
        rc = perf__hmac_sha256(key, PERF__AWS_DIGEST, scope + 9, region_len, key);
    if (!rc)
        rc = perf__hmac_sha256(key, PERF__AWS_DIGEST, scope + 10 + region_len, service_len, key);
    if (!rc)
        rc = perf__hmac_sha256(key, PERF__AWS_DIGEST, "aws4_request", 12, key);
    OPENSSL_cleanse(secret, len);
    perf__free(&keys->allocator, secret);
    return rc;
}

int perf__aws_signing_key(perf_aws_keys *keys, const char *scope, size_t region_len,
                          size_t service_len, uint8_t key[PERF__AWS_DIGEST])
{
    size_t len = 10 + region_len + service_len; /* without the constant end */
    if (len > PERF__AWS_SCOPE_MAX)
        return derive(keys, scope, region_len, service_len, key);
    uint64_t name[PERF__AWS_SCOPE_MAX / 8] = {0}, words[PERF__AWS_DIGEST / 8];
    memcpy(name, scope, len);
    for (size_t i = 0; i < PERF__AWS_SCOPE_SLOTS; i++)
        if (slot_read(&keys->slots[i], name, words)) {
            memcpy(key, words, sizeof words);
            OPENSSL_cleanse(words, sizeof words);
            return PERF_OK;
        }
    int rc = derive(keys, scope, region_len, service_len, key);
    if (!rc) {
        memcpy(words, key, sizeof words);
        slot_write(keys, name, words);
        OPENSSL_cleanse(words, sizeof words);
    }
    return rc;
}
