// SPDX-License-Identifier: MIT
/*
 * libperf's own policy, driven as the memory tier drives it: a hit without the lock, else an insert
 * and then a victim if it does not fit. The node of key k is at reference 2 (k + 1).
 */
#include "policies.h"

#include "../../../src/cache/policy.h"

#include <stdlib.h>

static uint32_t one(const void *ctx, uint32_t ref)
{
    (void)ctx;
    (void)ref;
    return 1;
}

static uint32_t hash_of(uint32_t key)
{
    uint64_t x = (key + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(x >> 32);
}

static uint64_t run_ours(const struct bench_trace *trace, size_t capacity)
{
    struct perf__node *nodes = bench_alloc(trace->keys + 1, sizeof *nodes);
    bool *resident = bench_alloc(trace->keys, sizeof *resident);
    struct perf__policy policy;
    struct perf__policy_config config = {
        .base = nodes, .weight = one, .capacity = capacity, .entries = (uint32_t)capacity};
    if (perf__policy_init(&policy, &config) != 0) {
        exit(1);
    }
    uint64_t hits = 0, used = 0;
    for (size_t i = 0; i < trace->requests; i++) {
        uint32_t key = trace->key[i];
        struct perf__node *node = &nodes[key + 1];
        if (resident[key]) {
            hits++;
            perf__policy_hit(&policy, node);
            continue;
        }
        node->hash = hash_of(key);
        resident[key] = true;
        used++;
        perf__policy_insert(&policy, (key + 1) * 2);
        if (used > capacity) {
            uint32_t victim = perf__policy_victim(&policy);
            resident[victim / 2 - 1] = false;
            used--;
        }
    }
    perf__policy_destroy(&policy);
    free(nodes);
    free(resident);
    return hits;
}

const struct bench_policy bench_our_policy[] = {{"libperf", run_ours}, {NULL, NULL}};
