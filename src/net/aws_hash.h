/* SPDX-License-Identifier: MIT */
/*
 * aws_hash.h - SHA-256 and HMAC-SHA-256 by libcrypto, without its set-up costs.
 *
 * OpenSSL 3 looks an algorithm up by name for each one-shot call (some 400 ns)
 * and HMAC() costs over 2 us. Here the algorithm is fetched once in a process,
 * and each thread keeps one context, freed when the thread ends. An HMAC is two
 * hashes over blocks laid out by the caller, so no keyed state is copied.
 * Any thread.
 */
#ifndef PERF_NET_AWS_HASH_H
#define PERF_NET_AWS_HASH_H

#include <libperf/types.h>

enum { PERF__SHA256_SIZE = 32, PERF__SHA256_BLOCK = 64 };

/** PERF_OK, or PERF_ENOMEM when libcrypto gives no context. */
int perf__sha256(const void *data, size_t len, uint8_t digest[PERF__SHA256_SIZE]);

/** key_len at most PERF__SHA256_BLOCK, or the key is hashed first. */
int perf__hmac_sha256(const void *key, size_t key_len, const void *data, size_t len,
                      uint8_t digest[PERF__SHA256_SIZE]);

/** len bytes as 2 * len lower-case digits; no zero byte behind. */
void perf__hex(char *out, const uint8_t *data, size_t len);

#endif
