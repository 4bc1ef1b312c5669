/* SPDX-License-Identifier: MIT */
/*
 * envelope.c - packs a record into bytes and takes hostile bytes apart again.
 *
 *     0  4  magic b5 4c 50 56        40  4  load_ms
 *     4  1  format version, 1        44  1  length of ns, 1..255
 *     5  1  kind                     45  1  length of user, 0..255
 *     6  2  flags, 0                 46  2  length of key, 1..32767
 *     8  8  stamp_ms                 48  4  length of tags, 0..65535
 *    16  8  fresh_until_ms           52  4  length of value
 *    24  8  dead_at_ms               56     ns, user, key, tags, value
 *    32  8  reserved, 0               -  8  checksum of all bytes before it
 *
 * Numbers are little-endian. The checksum is the first half of SipHash-1-3-128
 * under a fixed, public key: it finds damage, it is no proof of who wrote the
 * record. Every length is checked against the bytes that are there, and they
 * must add up exactly, so one record has one encoding. Pure functions, any
 * thread.
 */
#include "envelope.h"

#include "../base/bytes.h"
#include "../base/hash.h"
#include "../base/status.h"

enum {
    FORMAT_VERSION = 1,
    HEADER_SIZE = 56,
    CHECKSUM_SIZE = 8,
    NAME_MAX_LEN = 255,
    KEY_MAX_LEN = 32767,
    TAGS_MAX_LEN = 65535,
    KIND_LAST = 1 /* 0 a value, 1 a remembered "no such thing" */
};

static const uint8_t magic[4] = {0xb5, 'L', 'P', 'V'};

/* "libperf " and "envelope": public on purpose, see above. */
static const struct perf__hash_key checksum_key = {0x206672657062696cu, 0x65706f6c65766e65u};

static bool in_range(size_t value, size_t min, size_t max)
{
    return value >= min && value <= max;
}

/* Are these strings of one length byte each, none empty, that fill len exactly? */
static bool tags_valid(const uint8_t *tags, size_t len)
{
    while (len) {
        size_t step = (size_t)tags[0] + 1;
        if (step == 1 || step > len)
            return false;
        tags += step;
        len -= step;
    }
    return true;
}

size_t perf__envelope_size(const struct perf__record *record)
{
    if (!in_range(record->ns.len, 1, NAME_MAX_LEN) || record->user.len > NAME_MAX_LEN ||
        !in_range(record->key.len, 1, KEY_MAX_LEN) || record->tags.len > TAGS_MAX_LEN ||
        record->value.len > UINT32_MAX)
        return 0;
    size_t names = record->ns.len + record->user.len + record->key.len + record->tags.len;
    size_t size;
    if (__builtin_add_overflow(HEADER_SIZE + CHECKSUM_SIZE + names, record->value.len, &size))
        return 0;
    return size;
}

static uint8_t *put(uint8_t *at, perf_bytes part)
{
    if (part.len)
        memcpy(at, part.data, part.len);
    return at + part.len;
}

void perf__envelope_encode(const struct perf__record *record, void *out)
{
    uint8_t *start = out;
    memset(start, 0, HEADER_SIZE);
    memcpy(start, magic, sizeof magic);
    start[4] = FORMAT_VERSION;
    start[5] = record->kind;
    perf__store64(start + 8, (uint64_t)record->stamp_ms);
    perf__store64(start + 16, (uint64_t)record->fresh_until_ms);
    perf__store64(start + 24, (uint64_t)record->dead_at_ms);
    perf__store32(start + 40, record->load_ms);
    start[44] = (uint8_t)record->ns.len;
    start[45] = (uint8_t)record->user.len;
    perf__store16(start + 46, (uint16_t)record->key.len);
    perf__store32(start + 48, (uint32_t)record->tags.len);
    perf__store32(start + 52, (uint32_t)record->value.len);
    uint8_t *at = start + HEADER_SIZE;
    at = put(at, record->ns);
    at = put(at, record->user);
    at = put(at, record->key);
    at = put(at, record->tags);
    at = put(at, record->value);
    perf__store64(at, perf__hash_bytes(checksum_key, start, (size_t)(at - start)).lo);
}

static int corrupt(const char *reason)
{
    return perf__fail(PERF_ECORRUPT,
                      "a stored record is damaged or foreign: %s; it is treated as a miss", reason);
}

static perf_bytes take(struct perf__reader *r, size_t len)
{
    return (perf_bytes){perf__read(r, len), len};
}

int perf__envelope_decode(const void *data, size_t len, struct perf__record *record)
{
    if (!data || len < HEADER_SIZE + CHECKSUM_SIZE)
        return corrupt("it is too short");
    const uint8_t *start = data;
    if (memcmp(start, magic, sizeof magic) != 0)
        return corrupt("its magic number is wrong");
    if (start[4] != FORMAT_VERSION)
        return corrupt("its format version is unknown");
    size_t body = len - CHECKSUM_SIZE;
    if (perf__load64(start + body) != perf__hash_bytes(checksum_key, start, body).lo)
        return corrupt("its checksum is wrong");

    struct perf__record found = {0};
    struct perf__reader r = {start + 5, start + body, false};
    found.kind = perf__read8(&r);
    uint16_t flags = perf__read16(&r);
    found.stamp_ms = (int64_t)perf__read64(&r);
    found.fresh_until_ms = (int64_t)perf__read64(&r);
    found.dead_at_ms = (int64_t)perf__read64(&r);
    uint64_t reserved = perf__read64(&r);
    found.load_ms = perf__read32(&r);
    size_t ns_len = perf__read8(&r), user_len = perf__read8(&r), key_len = perf__read16(&r);
    size_t tags_len = perf__read32(&r), value_len = perf__read32(&r);
    if (flags || reserved || found.kind > KIND_LAST)
        return corrupt("it uses features that are unknown");
    if (found.fresh_until_ms < 0 || found.dead_at_ms < 0)
        return corrupt("its times are negative");
    if (!ns_len || !in_range(key_len, 1, KEY_MAX_LEN) || tags_len > TAGS_MAX_LEN)
        return corrupt("a length is out of range");
    found.ns = take(&r, ns_len);
    found.user = take(&r, user_len);
    found.key = take(&r, key_len);
    found.tags = take(&r, tags_len);
    found.value = take(&r, value_len);
    if (r.bad || r.at != r.end)
        return corrupt("its lengths do not add up");
    if (!tags_valid(found.tags.data, tags_len))
        return corrupt("its tags are malformed");
    *record = found;
    return PERF_OK;
}
