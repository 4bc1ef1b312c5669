/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_pack.c - records made smaller by zstd: the service is paid by the KiB.
 *
 * Level 1, some hundred MB/s, is nothing beside a request. What comes back is
 * hostile: the size that the item claims was bounded by who read it, is what is
 * allocated, and must come out exactly. Pure functions; any thread.
 */
#include "dynamodb_pack.h"

#include "../base/alloc.h"
#include "../base/status.h"

#ifndef PERF_WITH_ZSTD
#define PERF_WITH_ZSTD 1
#endif

#if PERF_WITH_ZSTD

#include <zstd.h>

enum { LEVEL = 1, PACK_MIN = 1024 };

void perf__dynamodb_pack(const perf_allocator *a, perf_bytes record, uint8_t **out, size_t *len)
{
    /* At least an eighth less, or it is not worth a reader's while. */
    size_t room = record.len - record.len / 8;
    if (record.len < PACK_MIN)
        return;
    uint8_t *packed = perf__alloc(a, room);
    if (!packed)
        return;
    size_t n = ZSTD_compress(packed, room, record.data, record.len, LEVEL);
    if (ZSTD_isError(n)) { /* most often: no room */
        perf__free(a, packed);
        return;
    }
    *out = packed;
    *len = n;
}

int perf__dynamodb_unpack(const perf_allocator *a, const void *data, size_t len, size_t size,
                          uint8_t **out)
{
    uint8_t *record = perf__alloc(a, size + 1);
    if (!record)
        return perf__fail_nomem("a record read from DynamoDB");
    if (ZSTD_decompress(record, size, data, len) != size) {
        perf__free(a, record);
        return perf__fail(PERF_ECORRUPT, "a record does not unpack to the %zu bytes it claims",
                          size);
    }
    *out = record;
    return PERF_OK;
}

#else

void perf__dynamodb_pack(const perf_allocator *a, perf_bytes record, uint8_t **out, size_t *len)
{
    (void)a, (void)record, (void)out, (void)len;
}

int perf__dynamodb_unpack(const perf_allocator *a, const void *data, size_t len, size_t size,
                          uint8_t **out)
{
    (void)a, (void)data, (void)len, (void)size, (void)out;
    return perf__fail(PERF_EUNSUPPORTED, "the record is packed by zstd, and this libperf was built "
                                         "without it (WITH_ZSTD=0)");
}

#endif
