/* SPDX-License-Identifier: MIT */
/*
 * Any pattern against any key: the matcher ends, reads nothing past either, and
 * agrees with a plain recursive reading of the same rules on small inputs. Then
 * the pattern goes through the public call, which must agree with the matcher.
 */
#include <libperf/cache.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/base/glob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *copy_of(const uint8_t *data, size_t size)
{
    void *copy = malloc(size ? size : 1); /* exactly, so that a sanitizer sees one byte more */
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

/* Without classes and quotes: the rules are too few to get wrong. */
static bool plain_match(const uint8_t *p, size_t p_len, const uint8_t *s, size_t s_len)
{
    if (!p_len)
        return !s_len;
    if (*p == '*')
        return plain_match(p + 1, p_len - 1, s, s_len) ||
               (s_len && plain_match(p, p_len, s + 1, s_len - 1));
    return s_len && (*p == '?' || *p == *s) && plain_match(p + 1, p_len - 1, s + 1, s_len - 1);
}

static void through_the_cache(const uint8_t *pattern, size_t pattern_len, const uint8_t *key,
                              size_t key_len, bool matches)
{
    static perf_cache *cache; /* one for all inputs: opening costs more than the rest */
    char text[1025];
    size_t len = 0;
    if (!pattern_len || pattern_len > 1024 || memchr(pattern, 0, pattern_len) || !key_len ||
        key_len > 32767)
        return;
    memcpy(text, pattern, pattern_len);
    text[pattern_len] = '\0';
    if (!cache && perf_cache_open(NULL, &cache))
        abort();
    if (perf_cache_set(cache, "ns", NULL, key, key_len, "v", 1, 0) ||
        perf_cache_invalidate_pattern(cache, "ns", text))
        abort();
    int rc = perf_cache_get_copy(cache, "ns", NULL, key, key_len, NULL, 0, &len);
    if (rc != (matches ? PERF_MISS : PERF_ETOOSMALL))
        abort();
    perf_cache_clear(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t pattern_len = data[0] % size;
    uint8_t *pattern = copy_of(data + 1, pattern_len);
    size_t key_len = size - 1 - pattern_len;
    uint8_t *key = copy_of(data + 1 + pattern_len, key_len);
    bool matches = perf__glob_match(pattern, pattern_len, key, key_len);
    bool plain = pattern_len <= 10 && key_len <= 14 && !memchr(pattern, '[', pattern_len) &&
                 !memchr(pattern, '\\', pattern_len);
    if (plain && plain_match(pattern, pattern_len, key, key_len) != matches)
        abort();
    through_the_cache(pattern, pattern_len, key, key_len, matches);
    free(pattern);
    free(key);
    return 0;
}
