/* SPDX-License-Identifier: MIT */
/*
 * hash.h - SipHash, the keyed hash that stands between hostile keys and our
 * tables.
 *
 * SipHash-1-3 with 64 or 128 bits of output (Aumasson and Bernstein, "SipHash:
 * a fast short-input PRF", INDOCRYPT 2012; the 1-3 rounds are what Rust, Ruby
 * and Python use for their tables). Whoever does not know the key cannot make
 * keys collide. Incremental, so that a prefix (namespace, user) can be absorbed
 * once and continued many times. Pure functions, any thread.
 */
#ifndef PERF_BASE_HASH_H
#define PERF_BASE_HASH_H

#include "bytes.h"

/* On the path of every get: a call would cost as much as the work. */
#define PERF__INLINE static inline __attribute__((always_inline))

struct perf__hash_key {
    uint64_t k0, k1;
};

struct perf__hash128 {
    uint64_t lo, hi;
};

struct perf__sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t perf__rotl64(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

PERF__INLINE void perf__sip_round(struct perf__sip *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = perf__rotl64(s->v1, 13) ^ s->v0;
    s->v3 = perf__rotl64(s->v3, 16) ^ s->v2;
    s->v0 = perf__rotl64(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = perf__rotl64(s->v1, 17) ^ s->v2;
    s->v3 = perf__rotl64(s->v3, 21) ^ s->v0;
    s->v2 = perf__rotl64(s->v2, 32);
}

static inline struct perf__sip perf__sip_begin(struct perf__hash_key key)
{
    return (struct perf__sip){
        key.k0 ^ 0x736f6d6570736575u,
        key.k1 ^ 0x646f72616e646f6du ^ 0xee, /* 0xee: the 128-bit variant */
        key.k0 ^ 0x6c7967656e657261u,
        key.k1 ^ 0x7465646279746573u,
    };
}

/** Absorbs one word. */
PERF__INLINE void perf__sip_word(struct perf__sip *s, uint64_t word)
{
    s->v3 ^= word;
    perf__sip_round(s);
    s->v0 ^= word;
}

/**
 * Absorbs len bytes as whole words and a last one that carries their length, so
 * that a sequence of strings is absorbed unambiguously.
 */
PERF__INLINE void perf__sip_bytes(struct perf__sip *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t left = len;
    for (; left >= 8; left -= 8, p += 8)
        perf__sip_word(s, perf__load64(p));
    uint64_t last = (uint64_t)len << 56;
    if (len >= 8 && left) { /* the tail in one load that overlaps what came before */
        last |= perf__load64(p + left - 8) >> (64 - 8 * left);
    } else if (left >= 4) {
        last |= perf__load32(p) | (uint64_t)perf__load32(p + left - 4) << (8 * (left - 4));
    } else if (left) {
        last |= p[0] | (uint64_t)p[left >> 1] << (8 * (left >> 1)) |
                (uint64_t)p[left - 1] << (8 * (left - 1));
    }
    perf__sip_word(s, last);
}

/** The low 64 bits; the state may be finished further with perf__sip_high. */
PERF__INLINE uint64_t perf__sip_low(struct perf__sip *s)
{
    s->v2 ^= 0xee;
    perf__sip_round(s);
    perf__sip_round(s);
    perf__sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/** The high 64 bits, after perf__sip_low. */
static inline uint64_t perf__sip_high(struct perf__sip *s)
{
    s->v1 ^= 0xdd;
    perf__sip_round(s);
    perf__sip_round(s);
    perf__sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/** SipHash-1-3-128 of one byte string. */
struct perf__hash128 perf__hash_bytes(struct perf__hash_key key, const void *data, size_t len);

__extension__ typedef unsigned __int128 perf__uint128;

/* The longest string that perf__nh takes. */
enum { PERF__NH_MAX = 128 };

/** Secret of perf__nh. */
struct perf__nh_key {
    uint64_t words[PERF__NH_MAX / 8];
    uint64_t fold, length; /* odd */
};

/** The sum of NH over a string that is not of the usual 8 to 16 bytes. */
perf__uint128 perf__nh_sum(const struct perf__nh_key *key, const void *data, size_t len);

/**
 * NH, the almost-universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz and Rogaway, "UMAC: fast
 * and secure message authentication", CRYPTO 1999), for strings up to PERF__NH_MAX bytes: one
 * multiplication for 16 bytes, an eighth of SipHash's instructions for a short key. For whoever
 * does not know the secret, any two strings collide with a probability of 2^-64 before the result
 * is folded and mixed; that is all a table needs, where nobody sees the hashes. The last two words
 * overlap those before them instead of being padded; the length is hashed, too. offset tells uses
 * of one secret apart.
 */
PERF__INLINE uint64_t perf__nh(const struct perf__nh_key *key, const void *data, size_t len,
                               uint64_t offset)
{
    perf__uint128 sum;
    if (__builtin_expect(len - 8 <= 8, 1)) {
        const uint8_t *p = data;
        sum = (perf__uint128)(perf__load64(p) + key->words[0]) *
              (perf__load64(p + len - 8) + key->words[1]);
    } else {
        sum = perf__nh_sum(key, data, len);
    }
    uint64_t h = (uint64_t)sum + len * key->length + offset;
    sum = (perf__uint128)(h ^ (uint64_t)(sum >> 64)) * key->fold;
    return (uint64_t)sum ^ (uint64_t)(sum >> 64);
}

/** Fills a secret for perf__nh from another one. */
void perf__nh_init(struct perf__nh_key *nh, struct perf__hash_key key);

/** A key that nobody can guess, from the kernel's generator. */
struct perf__hash_key perf__hash_random_key(void);

/** A cheap bijective mixer for numbers that are already secret or harmless (MurmurHash3's
 *  64-bit finaliser, Appleby, public domain). */
static inline uint64_t perf__mix64(uint64_t x)
{
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
    return x ^ (x >> 33);
}

#endif
