/* SPDX-License-Identifier: MIT */
/*
 * bytes.h - little-endian numbers in byte strings, read and written with bounds.
 *
 * A reader that runs past its end turns bad and stays bad: parse everything,
 * then ask once. Values only, no threads involved.
 */
#ifndef PERF_BASE_BYTES_H
#define PERF_BASE_BYTES_H

#include <libperf/types.h>
#include <stdbool.h>
#include <string.h>

static inline uint16_t perf__load16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t perf__load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static inline uint64_t perf__load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline void perf__store16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void perf__store32(void *p, uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, sizeof v);
}

static inline void perf__store64(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, sizeof v);
}

/** Reads forward through hostile bytes. */
struct perf__reader {
    const uint8_t *at, *end;
    bool bad;
};

/** The next len bytes, or NULL and bad. */
static inline const uint8_t *perf__read(struct perf__reader *r, size_t len)
{
    if (r->bad || (size_t)(r->end - r->at) < len) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->at;
    r->at += len;
    return p;
}

static inline uint8_t perf__read8(struct perf__reader *r)
{
    const uint8_t *p = perf__read(r, 1);
    return p ? *p : 0;
}

static inline uint16_t perf__read16(struct perf__reader *r)
{
    const uint8_t *p = perf__read(r, 2);
    return p ? perf__load16(p) : 0;
}

static inline uint32_t perf__read32(struct perf__reader *r)
{
    const uint8_t *p = perf__read(r, 4);
    return p ? perf__load32(p) : 0;
}

static inline uint64_t perf__read64(struct perf__reader *r)
{
    const uint8_t *p = perf__read(r, 8);
    return p ? perf__load64(p) : 0;
}

#endif
