/* SPDX-License-Identifier: MIT */
/* hash.c - the parts of hash.h that need not be inline. Any thread. */
#include "hash.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct perf__hash128 perf__hash_bytes(struct perf__hash_key key, const void *data, size_t len)
{
    struct perf__sip s = perf__sip_begin(key);
    perf__sip_bytes(&s, data, len);
    struct perf__hash128 h;
    h.lo = perf__sip_low(&s);
    h.hi = perf__sip_high(&s);
    return h;
}

perf__uint128 perf__nh_sum(const struct perf__nh_key *key, const void *data, size_t len)
{
    const uint8_t *p = data;
    const uint64_t *k = key->words;
    perf__uint128 sum = 0;
    uint64_t a, b; /* the last two words */
    if (len > 16) {
        size_t left = len;
        for (; left > 16; left -= 16, p += 16, k += 2)
            sum += (perf__uint128)(perf__load64(p) + k[0]) * (perf__load64(p + 8) + k[1]);
        a = perf__load64(p + left - 16);
        b = perf__load64(p + left - 8);
    } else if (len >= 8) {
        a = perf__load64(p);
        b = perf__load64(p + len - 8);
    } else if (len >= 4) {
        a = perf__load32(p);
        b = perf__load32(p + len - 4);
    } else {
        a = len ? p[0] : 0;
        b = len ? (uint64_t)p[len / 2] << 8 | p[len - 1] : 0;
    }
    return sum + (perf__uint128)(a + k[0]) * (b + k[1]);
}

void perf__nh_init(struct perf__nh_key *nh, struct perf__hash_key key)
{
    uint64_t *words = nh->words;
    for (uint64_t i = 0; i < sizeof nh->words / sizeof *words; i++)
        words[i] = perf__hash_bytes(key, &i, sizeof i).hi;
    nh->fold = perf__hash_bytes(key, "fold", 4).hi | 1;
    nh->length = perf__hash_bytes(key, "length", 6).hi | 1;
}

struct perf__hash_key perf__hash_random_key(void)
{
    struct perf__hash_key key;
    if (getrandom(&key, sizeof key, 0) == (ssize_t)sizeof key)
        return key;
    /* No generator (a very early boot or a strict sandbox): addresses and clocks are
     * the best secret left, and a guessable key costs speed, never correctness. */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    key.k0 = perf__mix64((uint64_t)t.tv_nsec ^ (uint64_t)(uintptr_t)&key);
    key.k1 = perf__mix64((uint64_t)t.tv_sec ^ (uint64_t)getpid() << 32 ^ key.k0);
    return key;
}
