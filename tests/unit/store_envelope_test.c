/* SPDX-License-Identifier: MIT */
/* The envelope: what goes in comes out, and whatever is damaged is refused. */
#include "../../src/store/envelope.h"

#include <stdlib.h>
#include <string.h>

#include "../../src/base/hash.h"
#include "test.h"

static const struct perf__record sample = {
    .ns = {"courses", 7},
    .user = {"ann", 3},
    .key = {"\0key\xff", 5},
    .value = {"the value", 9},
    .tags = {"\003red\005green", 10},
    .stamp_ms = 1700000000123,
    .fresh_until_ms = 1700000300123,
    .dead_at_ms = 1700000400123,
    .load_ms = 17,
    .kind = 1,
};

static bool same_bytes(perf_bytes a, perf_bytes b)
{
    return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

static bool same(const struct perf__record *a, const struct perf__record *b)
{
    return same_bytes(a->ns, b->ns) && same_bytes(a->user, b->user) && same_bytes(a->key, b->key) &&
           same_bytes(a->value, b->value) && same_bytes(a->tags, b->tags) &&
           a->stamp_ms == b->stamp_ms && a->fresh_until_ms == b->fresh_until_ms &&
           a->dead_at_ms == b->dead_at_ms && a->load_ms == b->load_ms && a->kind == b->kind;
}

static unsigned char *encode(const struct perf__record *record, size_t *len)
{
    *len = perf__envelope_size(record);
    cr_assert(*len > 0);
    unsigned char *bytes = malloc(*len); /* exactly, so that a sanitizer sees one byte more */
    perf__envelope_encode(record, bytes);
    return bytes;
}

static void check_roundtrip(const struct perf__record *record)
{
    size_t len;
    unsigned char *bytes = encode(record, &len);
    struct perf__record back;
    cr_assert(perf__envelope_decode(bytes, len, &back) == PERF_OK, "%s", perf_last_error());
    cr_assert(same(record, &back));
    free(bytes);
}

/* Gives the changed bytes a right checksum, to reach the checks behind it. */
static int decode_sealed(unsigned char *bytes, size_t len)
{
    struct perf__hash_key key = {0x206672657062696cu, 0x65706f6c65766e65u};
    perf__store64(bytes + len - 8, perf__hash_bytes(key, bytes, len - 8).lo);
    struct perf__record back;
    return perf__envelope_decode(bytes, len, &back);
}

Test(envelope, what_goes_in_comes_out)
{
    check_roundtrip(&sample);
    struct perf__record r = {.ns = {"n", 1}, .key = {"k", 1}};
    check_roundtrip(&r);
    static char big[70000];
    memset(big, 'x', sizeof big);
    static unsigned char tags[16 * 256];
    for (size_t i = 0; i < 16; i++)
        tags[i * 256] = 255;
    r = (struct perf__record){.ns = {big, 255},
                              .user = {big, 255},
                              .key = {big, 32767},
                              .value = {big, sizeof big},
                              .tags = {tags, sizeof tags},
                              .stamp_ms = INT64_MIN,
                              .fresh_until_ms = INT64_MAX,
                              .dead_at_ms = INT64_MAX,
                              .load_ms = UINT32_MAX};
    check_roundtrip(&r);
}

/* The bytes of format 1 may never change: records outlive libraries. */
Test(envelope, the_format_is_what_the_manual_says)
{
    struct perf__record r = {.ns = {"n", 1},
                             .key = {"k", 1},
                             .value = {"v", 1},
                             .tags = {"\001t", 2},
                             .stamp_ms = 1,
                             .fresh_until_ms = 2,
                             .dead_at_ms = 3,
                             .load_ms = 4};
    static const unsigned char expected[] = {
        0xb5, 'L', 'P', 'V', 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,   0,   2, 0,   0,  0, 0,
        0,    0,   0,   3,   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,   0,   0, 0,   0,  4, 0,
        0,    0,   1,   0,   1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 'n', 'k', 1, 't', 'v'};
    size_t len;
    unsigned char *bytes = encode(&r, &len);
    cr_assert(len == sizeof expected + 8 && !memcmp(bytes, expected, sizeof expected));
    cr_assert(perf__load64(bytes + len - 8) == 0x310b911a94ae55d1u, "%llx",
              (unsigned long long)perf__load64(bytes + len - 8));
    free(bytes);
}

Test(envelope, every_truncation_is_refused)
{
    size_t len;
    unsigned char *bytes = encode(&sample, &len);
    for (size_t cut = 0; cut < len; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        struct perf__record back;
        cr_assert(perf__envelope_decode(part, cut, &back) == PERF_ECORRUPT, "%zu bytes", cut);
        cr_assert(cut < 64 || decode_sealed(part, cut) == PERF_ECORRUPT, "%zu bytes", cut);
        free(part);
    }
    struct perf__record back;
    cr_assert(perf__envelope_decode(NULL, 0, &back) == PERF_ECORRUPT);
    bytes = realloc(bytes, len + 1);
    bytes[len] = 0;
    cr_assert(perf__envelope_decode(bytes, len + 1, &back) == PERF_ECORRUPT, "one byte more");
    cr_assert(decode_sealed(bytes, len + 1) == PERF_ECORRUPT);
    free(bytes);
}

Test(envelope, every_changed_byte_is_refused)
{
    size_t len;
    unsigned char *bytes = encode(&sample, &len);
    for (size_t at = 0; at < len; at++)
        for (int flip = 1; flip < 256; flip++) {
            bytes[at] ^= (unsigned char)flip;
            struct perf__record back;
            cr_assert(perf__envelope_decode(bytes, len, &back) == PERF_ECORRUPT, "byte %zu", at);
            bytes[at] ^= (unsigned char)flip;
        }
    free(bytes);
}

/* An enemy can compute the checksum: what it covers must stand on its own. */
Test(envelope, a_right_checksum_does_not_excuse_the_rest)
{
    static const struct {
        size_t at;
        unsigned char value;
    } lies[] = {{4, 2},     {5, 2},   {6, 1},  {7, 1},     {23, 0x80}, {31, 0x80}, {32, 1},
                {39, 9},    {44, 0},  {44, 8}, {44, 255},  {45, 4},    {46, 0},    {46, 6},
                {47, 0x80}, {48, 11}, {50, 1}, {51, 0xff}, {52, 8},    {53, 1},    {55, 0xff}};
    size_t len;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        unsigned char *bytes = encode(&sample, &len);
        bytes[lies[i].at] = lies[i].value;
        cr_assert(decode_sealed(bytes, len) == PERF_ECORRUPT, "byte %zu = %d", lies[i].at,
                  lies[i].value);
        free(bytes);
    }
    /* Tags that are empty, too long, or end in the middle of one. */
    static const unsigned char tags[][2] = {{0, 0}, {2, 'x'}, {255, 0}, {1, 'x'}};
    for (size_t i = 0; i < 4; i++) {
        struct perf__record r = sample;
        r.tags = (perf_bytes){tags[i], 2};
        unsigned char *bytes = encode(&r, &len);
        struct perf__record back;
        cr_assert(perf__envelope_decode(bytes, len, &back) == (i == 3 ? PERF_OK : PERF_ECORRUPT));
        free(bytes);
    }
}

Test(envelope, parts_too_long_for_their_fields_have_no_size)
{
    struct perf__record r = sample;
    r.ns.len = 0;
    cr_assert(perf__envelope_size(&r) == 0);
    r.ns.len = 256;
    cr_assert(perf__envelope_size(&r) == 0);
    r = sample;
    r.user.len = 256;
    cr_assert(perf__envelope_size(&r) == 0);
    r = sample;
    r.key.len = 0;
    cr_assert(perf__envelope_size(&r) == 0);
    r.key.len = 32768;
    cr_assert(perf__envelope_size(&r) == 0);
    r = sample;
    r.tags.len = 65536;
    cr_assert(perf__envelope_size(&r) == 0);
    r = sample;
    r.value.len = (size_t)UINT32_MAX + 1;
    cr_assert(perf__envelope_size(&r) == 0);
    r.value.len = SIZE_MAX;
    cr_assert(perf__envelope_size(&r) == 0);
}
