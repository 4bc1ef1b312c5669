/* SPDX-License-Identifier: MIT */
/* base_test.c - status, options, hashing, patterns, threads, version. */
#include <libperf/perf.h>
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/base/bytes.h"
#include "../../src/base/fork.h"
#include "../../src/base/glob.h"
#include "../../src/base/hash.h"
#include "../../src/base/number.h"
#include "../../src/base/options.h"
#include "../../src/base/status.h"
#include "../../src/base/sync.h"
#include "../../src/base/thread.h"
#include "seams.h"
#include "test.h"

Test(base, every_status_has_a_name_and_a_text)
{
#define CHECK(name, value, text)                  \
    cr_assert_str_eq(perf_strerror(value), text); \
    cr_assert_str_eq(perf_strstatus(value), "PERF_" #name);
    PERF_STATUS_MAP(CHECK)
#undef CHECK
    cr_assert_str_eq(perf_strerror(-9999), "unknown status");
    cr_assert_str_eq(perf_strstatus(77), "PERF_UNKNOWN");
}

static void *fail_elsewhere(void *arg)
{
    perf__fail(PERF_EIO, "another thread's trouble");
    return arg;
}

Test(base, last_error_belongs_to_the_thread)
{
    pthread_t thread;
    cr_assert_eq(perf__fail(PERF_EINVAL, "field %s is %d", "x", 7), PERF_EINVAL);
    pthread_create(&thread, NULL, fail_elsewhere, NULL);
    pthread_join(thread, NULL);
    cr_assert_str_eq(perf_last_error(), "field x is 7");
}

Test(base, constants_by_name)
{
    int64_t value = 0;
    cr_assert_eq(perf_constant("PERF_TTL_FOREVER", &value), PERF_OK);
    cr_assert_eq(value, PERF_TTL_FOREVER);
    cr_assert_eq(perf_constant("PERF_EDEADLK", &value), PERF_OK);
    cr_assert_eq(value, PERF_EDEADLK);
    cr_assert_eq(perf_constant("PERF_NO_SUCH", &value), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "PERF_NO_SUCH"));
    cr_assert_eq(perf_constant(NULL, &value), PERF_EINVAL);
}

Test(base, version_agrees_with_the_header)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", PERF_VERSION_MAJOR, PERF_VERSION_MINOR,
             PERF_VERSION_PATCH);
    cr_assert_str_eq(perf_version(), text);
    cr_assert_eq(perf_version_number(), PERF_VERSION_NUMBER);
}

/* An options struct as it was, is, and may become. */
struct small_options {
    size_t struct_size;
    int64_t a;
};
struct options {
    size_t struct_size;
    int64_t a, b;
};
struct large_options {
    size_t struct_size;
    int64_t a, b, c;
};

Test(base, options_of_other_versions)
{
    struct options own;
    struct small_options small = {sizeof small, 1};
    cr_assert_eq(perf__options_take("options", &small, &own, sizeof own), PERF_OK);
    cr_assert_eq(own.a, 1);
    cr_assert_eq(own.b, 0);

    struct large_options large = {sizeof large, 1, 2, 0};
    cr_assert_eq(perf__options_take("options", &large, &own, sizeof own), PERF_OK);
    cr_assert_eq(own.b, 2);
    large.c = 3;
    cr_assert_eq(perf__options_take("options", &large, &own, sizeof own), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "byte 24"));

    small.struct_size = 0;
    cr_assert_eq(perf__options_take("options", &small, &own, sizeof own), PERF_EINVAL);
    small.struct_size = (size_t)-1;
    cr_assert_eq(perf__options_take("options", &small, &own, sizeof own), PERF_EINVAL);
    cr_assert_eq(perf__options_take("options", NULL, &own, sizeof own), PERF_OK);
    cr_assert_eq(own.struct_size, sizeof own);
}

Test(base, siphash_is_deterministic_and_keyed)
{
    uint8_t text[64];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)i;
    struct perf__hash_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u}, other = {1, 2};
    for (size_t len = 0; len < sizeof text; len++) {
        struct perf__hash128 h = perf__hash_bytes(key, text, len);
        cr_assert_neq(h.lo, perf__hash_bytes(other, text, len).lo);
        cr_assert_neq(h.hi, perf__hash_bytes(other, text, len).hi);
        if (len) { /* every bit of every byte matters */
            for (int bit = 0; bit < 8; bit++) {
                text[len - 1] ^= (uint8_t)(1 << bit);
                cr_assert_neq(h.lo, perf__hash_bytes(key, text, len).lo);
                text[len - 1] ^= (uint8_t)(1 << bit);
            }
        }
    }
}

Test(base, siphash_matches_a_plain_implementation)
{
    /* SipHash written down once more, byte by byte, straight from the paper. */
    struct perf__hash_key key = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    uint8_t text[40];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 7 + 3);
#define ROTL(x, b) (uint64_t)(((x) << (b)) | ((x) >> (64 - (b))))
#define ROUND                                                     \
    do {                                                          \
        v0 += v1, v1 = ROTL(v1, 13), v1 ^= v0, v0 = ROTL(v0, 32); \
        v2 += v3, v3 = ROTL(v3, 16), v3 ^= v2;                    \
        v0 += v3, v3 = ROTL(v3, 21), v3 ^= v0;                    \
        v2 += v1, v1 = ROTL(v1, 17), v1 ^= v2, v2 = ROTL(v2, 32); \
    } while (0)
    for (size_t len = 0; len <= sizeof text; len++) {
        uint64_t v0 = key.k0 ^ 0x736f6d6570736575u, v1 = key.k1 ^ 0x646f72616e646f6du ^ 0xee;
        uint64_t v2 = key.k0 ^ 0x6c7967656e657261u, v3 = key.k1 ^ 0x7465646279746573u;
        for (size_t i = 0; i <= len; i += 8) {
            uint64_t word = 0;
            for (size_t j = 0; j < 8; j++)
                if (i + j < len)
                    word |= (uint64_t)text[i + j] << (8 * j);
            if (i + 8 > len)
                word |= (uint64_t)len << 56;
            v3 ^= word;
            ROUND;
            v0 ^= word;
        }
        v2 ^= 0xee;
        ROUND;
        ROUND;
        ROUND;
        uint64_t lo = v0 ^ v1 ^ v2 ^ v3;
        v1 ^= 0xdd;
        ROUND;
        ROUND;
        ROUND;
        uint64_t hi = v0 ^ v1 ^ v2 ^ v3;
        struct perf__hash128 h = perf__hash_bytes(key, text, len);
        cr_assert_eq(h.lo, lo, "length %zu", len);
        cr_assert_eq(h.hi, hi, "length %zu", len);
    }
}

Test(base, nh_spreads_and_is_keyed)
{
    struct perf__nh_key key, other;
    perf__nh_init(&key, (struct perf__hash_key){1, 2});
    perf__nh_init(&other, (struct perf__hash_key){1, 3});
    uint8_t text[PERF__NH_MAX] = {0};
    for (size_t len = 1; len <= sizeof text; len++) {
        uint64_t h = perf__nh(&key, text, len, 0);
        cr_assert_neq(h, perf__nh(&other, text, len, 0));
        cr_assert_neq(h, perf__nh(&key, text, len, 1));
        cr_assert_neq(h, perf__nh(&key, text, len - 1, 0)); /* zero bytes count, */
        for (size_t bit = 0; bit < 8 * len; bit++) {        /* and every bit does */
            text[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cr_assert_neq(h, perf__nh(&key, text, len, 0));
            text[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    /* Counting keys fill 1024 buckets evenly, by the low bits and by those of tag and shard:
     * chi-square with 1023 degrees of freedom stays below 1200 except once in ten thousand. */
    static uint32_t buckets[3][1024];
    const double n = 64 * 1024;
    for (uint64_t i = 0; i < 64 * 1024; i++) {
        uint64_t words[2] = {i, 0}, h = perf__nh(&key, words, sizeof words, 0);
        buckets[0][h & 1023]++;
        buckets[1][h >> 32 & 1023]++;
        buckets[2][h >> 40 & 1023]++;
    }
    for (int k = 0; k < 3; k++) {
        double chi = 0;
        for (int i = 0; i < 1024; i++)
            chi += (buckets[k][i] - n / 1024) * (buckets[k][i] - n / 1024) / (n / 1024);
        cr_assert(chi < 1200, "bits %d: %g", k, chi);
    }
}

static bool glob(const char *pattern, const char *text)
{
    return perf__glob_match(pattern, strlen(pattern), text, strlen(text));
}

Test(base, glob_patterns)
{
    cr_assert(glob("", ""));
    cr_assert(!glob("", "a"));
    cr_assert(glob("*", ""));
    cr_assert(glob("user:*:name", "user:42:name"));
    cr_assert(!glob("user:*:name", "user:42:age"));
    cr_assert(glob("*a*b*c", "xxaxxbxxc"));
    cr_assert(!glob("*a*b*c", "xxaxxcxxb"));
    cr_assert(glob("?bc", "abc"));
    cr_assert(!glob("?bc", "bc"));
    cr_assert(glob("[a-c]x", "bx"));
    cr_assert(!glob("[a-c]x", "dx"));
    cr_assert(glob("[!a-c]x", "dx"));
    cr_assert(glob("[]]x", "]x"));
    cr_assert(glob("\\*", "*"));
    cr_assert(!glob("\\*", "a"));
    cr_assert(glob("[abc", "[abc"));
    cr_assert(glob("a\\", "a\\"));
    cr_assert(glob("[\\]]", "]"));
    cr_assert(perf__glob_match("a*\0z", 4, "abc\0z", 5));
}

Test(base, glob_is_not_exponential)
{
    char text[4096], pattern[64];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof pattern; i += 2) {
        pattern[i] = 'a';
        pattern[i + 1] = '*';
    }
    pattern[sizeof pattern - 1] = 'b';
    cr_assert(!perf__glob_match(pattern, sizeof pattern, text, sizeof text));
}

Test(base, reader_stops_at_the_end)
{
    uint8_t bytes[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct perf__reader r = {bytes, bytes + sizeof bytes, false};
    cr_assert_eq(perf__read16(&r), 0x0201);
    cr_assert_eq(perf__read64(&r), 0x0a09080706050403u);
    cr_assert(!r.bad);
    cr_assert_eq(perf__read8(&r), 0);
    cr_assert(r.bad);
    cr_assert_null(perf__read(&r, 0));
}

static void *thread_number(void *arg)
{
    *(int *)arg = perf__thread_slot();
    return NULL;
}

Test(base, thread_numbers_are_reused)
{
    int first = 0, second = 0, mine = perf__thread_slot();
    pthread_t thread;
    cr_assert(mine > 0);
    pthread_create(&thread, NULL, thread_number, &first);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, thread_number, &second);
    pthread_join(thread, NULL);
    cr_assert_neq(first, mine);
    cr_assert_eq(first, second);
}

Test(base, fork_changes_the_generation)
{
    cr_assert_eq(perf__fork_arm(), PERF_OK);
    uint64_t before = perf__fork_generation;
    pid_t child = fork();
    if (child == 0)
        _exit(perf__fork_generation == before ? 1 : 0);
    int status = -1;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(perf__fork_generation, before);
}

Test(base, incomplete_seams_are_refused)
{
    struct perf__host own;
    perf_allocator allocator = PERF_ALLOCATOR_INIT;
    perf_host host = PERF_HOST_INIT;
    host.allocator = &allocator;
    cr_assert_eq(perf__host_take(&host, &own), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "perf_allocator"));
    perf_clock clock = PERF_CLOCK_INIT;
    host.allocator = NULL;
    host.clock = &clock;
    cr_assert_eq(perf__host_take(&host, &own), PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "perf_clock"));
}

Test(base, what_is_left_of_a_deadline)
{
    cr_assert_eq(perf__deadline_left(0), INT64_MAX, "0 is never");
    cr_assert_eq(perf__deadline_left(1), 0, "long ago");
    int64_t left = perf__deadline_left(perf__deadline_after(60000));
    cr_assert(left > 0 && left <= 60000, "%lld", (long long)left);
    cr_assert_gt(perf__deadline_left(INT64_MAX), 0);
}

Test(base, numbers_as_texts)
{
    static const struct {
        double value;
        const char *text;
    } known[] = {{0, "0"},
                 {1, "1"},
                 {-1, "-1"},
                 {0.1, "0.1"},
                 {1e300, "1e+300"},
                 {-2.5, "-2.5"},
                 {123456789, "123456789"}};
    const double odd[] = {1.0 / 3, 2e-308, 0x1.fffffffffffffp1023, 9e15, 1e15 + 0.5};
    char out[PERF__NUMBER_SIZE];
    /* A comma for a point, where the machine has such a locale. */
    (void)!setlocale(LC_NUMERIC, "de_DE.UTF-8");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        cr_assert_eq(perf__number_double(out, known[i].value), strlen(known[i].text));
        cr_assert_str_eq(out, known[i].text);
    }
    setlocale(LC_NUMERIC, "C");
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        perf__number_double(out, odd[i]);
        cr_assert_eq(strtod(out, NULL), odd[i], "%s", out);
    }
    cr_assert_eq(perf__number_u64(out, UINT64_MAX), 20);
    cr_assert_str_eq(out, "18446744073709551615");
}
