/* SPDX-License-Identifier: MIT */
/*
 * Any bytes through the decoder of Redis key names: no crash, no read past the end, and what is
 * accepted is written as the very same bytes. The same for published marks' members.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/store/redis_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const void *name, size_t size)
{
    static struct perf__redis_names names;
    perf_store_key key;
    if (!perf__redis_name_read("perf", name, size, &names, &key))
        return;
    if (perf__redis_name_size("perf", &key) != size)
        abort();
    char *again = malloc(size);
    if (!again)
        return;
    perf__redis_name_write(again, "perf", &key);
    if (memcmp(again, name, size) != 0)
        abort();
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t kind;
    perf_bytes name;
    check(data, size);
    if (perf__redis_mark_read(data, size, &kind, &name) &&
        (const uint8_t *)name.data + name.len != data + size)
        abort();
    char *ours = malloc(size + 5);
    if (!ours)
        return 0;
    memcpy(ours, "perf:", 5);
    memcpy(ours + 5, data, size);
    check(ours, size + 5);
    free(ours);
    return 0;
}
