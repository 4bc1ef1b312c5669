/* SPDX-License-Identifier: MIT */
/*
 * Any JSON as an item of a DynamoDB table, whole, as a chunk, and as a mark: no crash, no read past
 * the end, and what is believed is within its bounds. What follows a zero byte is unpacked as zstd.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/store/dynamodb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_item(struct perf__json item)
{
    const perf_allocator *a = &perf__default_allocator;
    struct dynamodb_item out;
    char text[DYNAMODB_KEY_MAX + 3];
    uint8_t *bytes = NULL;
    size_t len = 0;
    int64_t kind, stamp;
    perf__dynamodb_item_read(item, 1000000, &out);
    if (out.kind == ITEM_WHOLE || out.kind == ITEM_CHUNKED) {
        if (out.size > DYNAMODB_RECORD_MAX)
            abort();
        if (out.kind == ITEM_CHUNKED &&
            (!out.chunks || out.chunks > DYNAMODB_CHUNKS_MAX ||
             out.packed_size > out.chunks * DYNAMODB_ITEM_ROOM || strlen(out.version) != 16))
            abort();
        if (out.kind == ITEM_WHOLE && !perf__dynamodb_bytes(a, out.record, &bytes, &len)) {
            if (len > out.record.len)
                abort();
            perf__free(a, bytes);
        }
    }
    perf__dynamodb_item_key(item, "pk", text, sizeof text);
    perf__dynamodb_item_key(item, "sk", text, 64);
    if (!perf__dynamodb_mark_read(a, item, 1000000, &kind, &bytes, &len, &stamp)) {
        if (kind < 0 || stamp < 0)
            abort();
        perf__free(a, bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct perf__json item;
    uint8_t *record = NULL;
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    if (zero) {
        size_t left = size - (size_t)(zero - data) - 1;
        if (!perf__dynamodb_unpack(&perf__default_allocator, zero + 1, left, left * 7 % 5000,
                                   &record))
            perf__free(&perf__default_allocator, record);
        size = (size_t)(zero - data);
    }
    char *text = malloc(size + 1); /* exactly, so that a sanitizer sees one byte more */
    if (!text)
        return 0;
    memcpy(text, data, size);
    if (!perf__json_check(PERF_EPROTOCOL, "it", text, size, '{', &item))
        check_item(item);
    free(text);
    return 0;
}
