/* SPDX-License-Identifier: MIT */
/*
 * A text and, behind its zero byte, any bytes as a time zone's file: both end, read nothing past
 * them, and what they agree on goes forward in time and is a time that the text names.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/task/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t begin[] = {0, 1800000000000, 4102444800000};
    struct perf__cron cron;
    struct perf__zone *zone = NULL;
    size_t len = strnlen((const char *)data, size);
    char *text = malloc(len + 1);
    if (!text)
        abort();
    memcpy(text, data, len);
    text[len] = 0;
    int rc = perf__cron_parse(text, &cron);
    if (rc && strncmp(perf_last_error(), "cron: ", 6) != 0)
        abort();
    if (len < size) {
        uint8_t *file = malloc(size - len); /* exactly, so that a sanitizer sees one byte more */
        if (!file)
            abort();
        memcpy(file, data + len + 1, size - len - 1);
        (void)perf__zone_read(&perf__default_allocator, "fuzz", file, size - len - 1, &zone);
        free(file);
    }
    if (!zone && perf__zone_open(&perf__default_allocator, NULL, &zone))
        abort();
    for (size_t i = 0; i < 3 && !rc; i++) {
        int64_t at = begin[i], next;
        for (int k = 0; k < 5 && !perf__cron_after(&cron, zone, at, &next); k++) {
            if (next <= at)
                abort();
            at = next;
        }
    }
    perf__zone_free(&perf__default_allocator, zone);
    free(text);
    return 0;
}
