// SPDX-License-Identifier: MIT
/* The eviction policy's contract, and that it adapts: see src/cache/policy.h. */
#include "../../src/cache/policy.h"

#include "test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define STRIDE 4u /* references a node: 32 bytes */

/* A cache of keys 0..keys-1 over a policy; key k has its node at slot[k]. */
struct model {
    struct perf__policy *policy;
    unsigned char *base;
    uint32_t *slot;   /* reference of a resident key's node, 0 when absent */
    uint32_t *key_at; /* by slot number: key + 1 */
    uint32_t *weights;
    uint32_t keys, slots;
    uint64_t held, capacity;
};

struct body {
    struct perf__node node;
    uint32_t key, weight;
};

static struct body *body_at(const struct model *m, uint32_t ref)
{
    return (struct body *)(void *)(m->base + (size_t)ref * 8);
}

static uint32_t weight_of(const void *ctx, uint32_t ref)
{
    return body_at(ctx, ref)->weight;
}

static uint32_t hash_of(uint32_t key)
{
    uint64_t x = (key + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
    return (uint32_t)(x >> 32);
}

static void open_model(struct model *m, uint32_t keys, uint64_t capacity, uint32_t entries)
{
    memset(m, 0, sizeof *m);
    m->keys = keys;
    m->slots = keys + 1;
    m->capacity = capacity;
    m->base = calloc((size_t)(m->slots + 1) * STRIDE, 8);
    m->slot = calloc(keys, sizeof *m->slot);
    m->policy = aligned_alloc(64, (sizeof *m->policy + 63) / 64 * 64);
    struct perf__policy_config config = {.base = m->base,
                                         .weight = weight_of,
                                         .weight_ctx = m,
                                         .capacity = capacity,
                                         .entries = entries};
    cr_assert(perf__policy_init(m->policy, &config) == 0);
}

static void close_model(struct model *m)
{
    perf__policy_destroy(m->policy);
    free(m->policy);
    free(m->base);
    free(m->slot);
}

static uint32_t evict(struct model *m)
{
    uint32_t ref = perf__policy_victim(m->policy);
    cr_assert(ref != 0, "nothing to evict from a cache that holds something");
    struct body *body = body_at(m, ref);
    cr_assert(m->slot[body->key] == ref, "the victim is not resident");
    m->slot[body->key] = 0;
    m->held -= body->weight;
    return body->key;
}

/* True on a hit. */
static bool request(struct model *m, uint32_t key, uint32_t weight)
{
    if (m->slot[key] != 0) {
        perf__policy_hit(m->policy, &body_at(m, m->slot[key])->node);
        return true;
    }
    uint32_t ref = (key + 1) * STRIDE;
    struct body *body = body_at(m, ref);
    body->node.hash = hash_of(key);
    body->key = key;
    body->weight = weight;
    m->slot[key] = ref;
    m->held += weight;
    perf__policy_insert(m->policy, ref);
    while (m->held > m->capacity) {
        evict(m);
    }
    return false;
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Every resident node is on exactly one list, both ways, and the weights add up. */
static void check_lists(const struct model *m)
{
    uint64_t weight = 0, resident = 0, linked = 0;
    for (size_t i = 0; i < sizeof m->policy->lists / sizeof *m->policy->lists; i++) {
        const struct perf__policy_list *list = &m->policy->lists[i];
        uint64_t list_weight = 0;
        uint32_t previous = 0;
        for (uint32_t ref = list->newest; ref != 0; ref = body_at(m, ref)->node.next) {
            cr_assert(body_at(m, ref)->node.prev == previous);
            cr_assert(m->slot[body_at(m, ref)->key] == ref);
            cr_assert(++linked <= m->keys, "a list goes in circles");
            list_weight += body_at(m, ref)->weight;
            previous = ref;
        }
        cr_assert(list->oldest == previous);
        cr_assert(list->weight == list_weight);
        cr_assert((m->policy->in_use[i / 64] >> i % 64 & 1) == (previous != 0));
        weight += list_weight;
    }
    for (uint32_t key = 0; key < m->keys; key++) {
        resident += m->slot[key] != 0;
    }
    cr_assert(linked == resident && linked == m->policy->entries);
    cr_assert(weight == m->held && weight == m->policy->held);
}

static void churn(uint32_t keys, uint64_t capacity, uint32_t entries, uint32_t most_weight)
{
    struct model m;
    open_model(&m, keys, capacity, entries);
    uint64_t random = 7;
    uint32_t spare = (keys + 1) * STRIDE; /* where one entry is moved to and back */
    for (uint32_t step = 0; step < 60000; step++) {
        uint32_t key = next_random(&random) % keys;
        key = next_random(&random) % 2 ? key : key % (keys / 8 + 1);
        uint32_t ref = m.slot[key], weight = 1 + next_random(&random) % most_weight;
        switch (ref == 0 ? 99 : next_random(&random) % 16) {
        case 0:
            perf__policy_remove(m.policy, ref);
            m.slot[key] = 0;
            m.held -= body_at(&m, ref)->weight;
            break;
        case 1: {
            uint32_t old = body_at(&m, ref)->weight;
            body_at(&m, ref)->weight = weight;
            m.held = m.held - old + weight;
            perf__policy_update(m.policy, ref, old);
            while (m.held > m.capacity) {
                evict(&m);
            }
            break;
        }
        case 2:
            memcpy(body_at(&m, spare), body_at(&m, ref), sizeof(struct body));
            m.slot[key] = spare;
            perf__policy_move(m.policy, ref, spare);
            memset(body_at(&m, ref), 0xEE, sizeof(struct body));
            request(&m, (key + 1) % keys, weight);
            if (m.slot[key] == spare) {
                memcpy(body_at(&m, ref), body_at(&m, spare), sizeof(struct body));
                m.slot[key] = ref;
                perf__policy_move(m.policy, spare, ref);
            }
            break;
        default:
            request(&m, key, weight);
        }
        if (step % 997 == 0) {
            check_lists(&m);
        }
    }
    check_lists(&m);
    while (m.held > 0) {
        evict(&m);
    }
    check_lists(&m);
    cr_assert(perf__policy_victim(m.policy) == 0, "an empty cache has no victim");
    close_model(&m);
}

Test(cache_policy, lists_stay_whole_with_records_for_all)
{
    churn(500, 100, 100, 1);
    churn(500, 5, 5, 1);
    churn(40, 1, 1, 1);
}

Test(cache_policy, lists_stay_whole_with_weights)
{
    churn(2000, 4000, 400, 50);
    churn(300, 60, 20, 90); /* some are heavier than the cache */
}

Test(cache_policy, lists_stay_whole_when_sampled)
{
    churn(60000, 20000, 20000, 1);
    churn(60000, 200000, 20000, 30);
}

Test(cache_policy, more_entries_than_announced_are_no_harm)
{
    churn(9000, 3000, 10, 1);
}

/* Hits of exact LRU on the same stream. */
static uint64_t lru_hits(const uint32_t *stream, size_t requests, uint32_t keys, uint32_t capacity)
{
    uint64_t *last = calloc(keys, sizeof *last), hits = 0;
    uint32_t *held = calloc(capacity, sizeof *held), used = 0;
    for (size_t i = 0; i < requests; i++) {
        uint32_t at = 0;
        while (at < used && held[at] != stream[i]) {
            at++;
        }
        hits += at < used;
        if (at == used && used == capacity) {
            at = 0;
            for (uint32_t j = 1; j < used; j++) {
                at = last[held[j]] < last[held[at]] ? j : at;
            }
        } else if (at == used) {
            used++;
        }
        held[at] = stream[i];
        last[stream[i]] = i + 1;
    }
    free(last);
    free(held);
    return hits;
}

static uint64_t our_hits(const uint32_t *stream, size_t requests, uint32_t keys, uint32_t capacity)
{
    struct model m;
    open_model(&m, keys, capacity, capacity);
    uint64_t hits = 0;
    for (size_t i = 0; i < requests; i++) {
        hits += request(&m, stream[i], 1);
    }
    close_model(&m);
    return hits;
}

enum { REQUESTS = 60000, CAPACITY = 100 };

Test(cache_policy, a_loop_larger_than_the_cache_still_hits)
{
    uint32_t *stream = calloc(REQUESTS, sizeof *stream);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        stream[i] = i % 200;
    }
    uint64_t lru = lru_hits(stream, REQUESTS, 200, CAPACITY);
    uint64_t ours = our_hits(stream, REQUESTS, 200, CAPACITY);
    cr_assert(lru == 0);
    cr_assert(ours > REQUESTS * 45 / 100, "%llu of the optimum's 50 %%", (unsigned long long)ours);
    free(stream);
}

Test(cache_policy, what_is_asked_twice_and_never_again_is_kept_till_then)
{
    uint32_t *stream = calloc(REQUESTS, sizeof *stream);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        stream[i] = i % 2 || i < 80 ? i / 2 : i / 2 - 40;
    }
    uint64_t lru = lru_hits(stream, REQUESTS, REQUESTS, CAPACITY);
    uint64_t ours = our_hits(stream, REQUESTS, REQUESTS, CAPACITY);
    cr_assert(lru > REQUESTS * 49 / 100);
    cr_assert(ours * 100 > lru * 98, "%llu against %llu", (unsigned long long)ours,
              (unsigned long long)lru);
    free(stream);
}

Test(cache_policy, changes_its_mind_when_the_stream_does)
{
    uint32_t *stream = calloc(REQUESTS, sizeof *stream);
    uint64_t random = 3;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        uint32_t near = next_random(&random) % 90;
        bool loop = i / 20000 % 2 == 0;
        stream[i] = loop ? i % 200 : 1000 + i / 4 + near;
    }
    uint64_t lru = lru_hits(stream, REQUESTS, REQUESTS, CAPACITY);
    uint64_t ours = our_hits(stream, REQUESTS, REQUESTS, CAPACITY);
    cr_assert(ours > lru + REQUESTS * 20 / 100, "%llu against %llu", (unsigned long long)ours,
              (unsigned long long)lru);
    free(stream);
}

static void *hit_the_first_64(void *argument)
{
    struct model *m = argument;
    for (uint32_t i = 0; i < 200000; i++) {
        perf__policy_hit(m->policy, &body_at(m, m->slot[i % 64])->node);
    }
    return NULL;
}

/* Small keys and a few heavy ones, all asked for at random: bytes found of those asked for. */
static double byte_hits(bool by_weight)
{
    enum { KEYS = 2200, HEAVY = 200, WEIGHT = 40, REQUESTS = 200000 };
    struct model m;
    open_model(&m, KEYS, 3000, 400);
    m.policy->council.by_weight = by_weight;
    uint64_t random = 11, found = 0, asked = 0;
    for (int i = 0; i < REQUESTS; i++) {
        bool heavy = next_random(&random) % 4 == 0;
        uint32_t a = next_random(&random) % 1000, b = next_random(&random) % 1000;
        uint32_t key = heavy ? a * b / 1000 * HEAVY / 1000 : HEAVY + (a * b / 1000) * 2;
        uint32_t weight = key < HEAVY ? WEIGHT : 1;
        asked += weight;
        found += request(&m, key, weight) ? weight : 0;
    }
    close_model(&m);
    return (double)found / (double)asked;
}

Test(cache_policy, a_host_that_bounds_weight_gets_weight)
{
    double by_count = byte_hits(false), by_weight = byte_hits(true);
    cr_assert(by_weight > by_count * 1.05, "%.3f by count, %.3f by weight", by_count, by_weight);
}

Test(cache_policy, hits_need_no_lock)
{
    struct model m;
    pthread_t threads[2];
    open_model(&m, 4000, 4000, 1000);
    for (uint32_t key = 0; key < 64; key++) {
        request(&m, key, 1);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert(pthread_create(&threads[i], NULL, hit_the_first_64, &m) == 0);
    }
    for (uint32_t key = 64; key < 4000; key++) {
        request(&m, key, 1);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    check_lists(&m);
    close_model(&m);
}

static void *no_memory(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return NULL;
}

static void no_free(void *ctx, void *memory)
{
    (void)ctx;
    (void)memory;
}

Test(cache_policy, says_so_when_memory_is_short)
{
    struct perf__policy policy;
    struct perf__policy_config config = {
        .weight = weight_of, .alloc = no_memory, .free = no_free, .entries = 100};
    cr_assert(perf__policy_init(&policy, &config) < 0);
    perf__policy_destroy(&policy);
}

Test(cache_policy, memory_is_bounded_and_told)
{
    static const struct {
        uint32_t entries;
        size_t most;
    } cases[] = {{1, 128u << 10}, {10000, 10000u * 288}, {1000000, 1000000u * 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__policy policy;
        struct perf__policy_config config = {.weight = weight_of, .entries = cases[i].entries};
        cr_assert(perf__policy_init(&policy, &config) == 0);
        cr_assert(perf__policy_memory(&policy) <= cases[i].most, "%zu bytes for %u",
                  perf__policy_memory(&policy), cases[i].entries);
        perf__policy_destroy(&policy);
    }
}
