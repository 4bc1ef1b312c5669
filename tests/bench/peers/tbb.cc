/* SPDX-License-Identifier: MIT */
/*
 * tbb.cc - the peer tbb::concurrent_hash_map: a concurrent table with a reader lock in each
 * node and no eviction at all, so it takes part in the resident cases only.
 */
#include "../subject.h"

#include <oneapi/tbb/concurrent_hash_map.h>

namespace
{

struct hash_compare {
    static std::size_t hash(const bench_key &k)
    {
        __extension__ typedef unsigned __int128 wide;
        wide product =
            (wide)(k.word[0] ^ 0xa0761d6478bd642fULL) * (k.word[1] ^ 0xe7037ed1a0b428dbULL);
        return (std::size_t)product ^ (std::size_t)(product >> 64);
    }
    static bool equal(const bench_key &a, const bench_key &b)
    {
        return a.word[0] == b.word[0] && a.word[1] == b.word[1];
    }
};

using map_type = tbb::concurrent_hash_map<bench_key, bench_value, hash_compare>;
map_type *map;

} // namespace

static void subject_open(const struct bench *b)
{
    map = new map_type(b->keys);
}

static int subject_get(const struct bench_key *key, struct bench_value *out)
{
    map_type::const_accessor found;
    if (!map->find(found, *key)) {
        return 0;
    }
    *out = found->second;
    return 1;
}

static void subject_get_batch(const struct bench_key *keys, struct bench_value *out, int *found)
{
    for (int i = 0; i < BENCH_BATCH; i++) {
        found[i] = subject_get(&keys[i], &out[i]);
    }
}

static void subject_set(const struct bench_key *key, const struct bench_value *value)
{
    map_type::accessor at;
    map->insert(at, *key);
    at->second = *value;
}

int main(int argc, char **argv)
{
    return bench_main(argc, argv);
}
