/* SPDX-License-Identifier: MIT */
/*
 * aws_keys.h - keys with the signing keys that were derived from them.
 *
 * A signing key is four HMACs away from the secret and good for one day, region
 * and service. The last few live in the perf_aws_keys they belong to, so they
 * are found without hashing the secret and end with it. Reading takes no lock:
 * each slot is a sequence lock over atomic words.
 */
#ifndef PERF_NET_AWS_KEYS_H
#define PERF_NET_AWS_KEYS_H

#include <libperf/aws_auth.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/options.h"

enum {
    PERF__AWS_SCOPE_MAX = 64, /* longer ones are derived each time */
    PERF__AWS_SCOPE_SLOTS = 8,
    PERF__AWS_DIGEST = 32,
};

struct perf__aws_scope_slot {
    _Atomic uint64_t sequence; /* odd: being written; 0: empty */
    _Atomic uint64_t scope[PERF__AWS_SCOPE_MAX / 8];
    _Atomic uint64_t key[PERF__AWS_DIGEST / 8];
};

struct perf_aws_keys {
    perf_allocator allocator;
    atomic_size_t references;
    int64_t expires_ms;
    size_t id_len, secret_len, token_len;
    char *id, *secret, *token; /* in one block behind this struct */
    size_t size;               /* of the whole block, to be wiped */
    pthread_mutex_t writing;
    unsigned next_slot;
    struct perf__aws_scope_slot slots[PERF__AWS_SCOPE_SLOTS];
};

/** The signing key for scope ("20150830/us-east-1/dynamodb/aws4_request", whose parts begin at 0,
 *  region and service). PERF_OK, or PERF_ENOMEM and such from libcrypto. */
int perf__aws_signing_key(perf_aws_keys *keys, const char *scope, size_t region_len,
                          size_t service_len, uint8_t key[PERF__AWS_DIGEST]);

/** The same keys with another end. */
int perf__aws_keys_extend(perf_aws_keys *keys, int64_t expires_ms, perf_aws_keys **out);

#endif
