/* SPDX-License-Identifier: MIT */
/* dynamodb_pack.h - bytes made smaller by zstd before they go to DynamoDB. Any thread. */
#ifndef PERF_STORE_DYNAMODB_PACK_H
#define PERF_STORE_DYNAMODB_PACK_H

#include <libperf/types.h>

/* A smaller text for the same bytes into *out (the caller's to free), or *out stays NULL: not worth
 * it, or no memory. */
void perf__dynamodb_pack(const perf_allocator *a, perf_bytes record, uint8_t **out, size_t *len);
/* Back to exactly size bytes. PERF_ECORRUPT; PERF_EUNSUPPORTED: built without zstd; PERF_ENOMEM. */
int perf__dynamodb_unpack(const perf_allocator *a, const void *data, size_t len, size_t size,
                          uint8_t **out);

#endif
