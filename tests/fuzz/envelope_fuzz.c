/* SPDX-License-Identifier: MIT */
/*
 * Any bytes through the envelope's decoder: no crash, no read past the end, and
 * whatever is accepted encodes to the very same bytes. Each input is tried as
 * it is and with a right checksum, since an enemy can compute that one.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/hash.h"
#include "../../src/store/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *data, size_t size)
{
    struct perf__record record;
    if (perf__envelope_decode(data, size, &record))
        return;
    if (perf__envelope_size(&record) != size)
        abort();
    uint8_t *again = malloc(size);
    if (!again)
        return;
    perf__envelope_encode(&record, again);
    if (memcmp(again, data, size) != 0)
        abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(data, size);
    if (size < 8)
        return 0;
    uint8_t *sealed = malloc(size); /* exactly, so that a sanitizer sees one byte more */
    if (!sealed)
        return 0;
    memcpy(sealed, data, size);
    /* The magic number and version cost the fuzzer nothing to find, but time. */
    static const uint8_t start[5] = {0xb5, 'L', 'P', 'V', 1};
    if (size > sizeof start + 8)
        memcpy(sealed, start, sizeof start);
    struct perf__hash_key key = {0x206672657062696cu, 0x65706f6c65766e65u};
    perf__store64(sealed + size - 8, perf__hash_bytes(key, sealed, size - 8).lo);
    check(sealed, size);
    free(sealed);
    return 0;
}
