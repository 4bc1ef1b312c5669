/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as an event stream. Checksums keep random bytes out, so the fuzzer's are also wrapped
 * into messages whose checksums are right and whose headers are theirs. What is read is the same in
 * one piece and in many, and what was read can be written and read again.
 */
#include <libperf/aws_eventstream.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void write_again(const perf_eventstream *es)
{
    static uint8_t out[65536];
    perf_eventstream_header h[256];
    size_t count = 0, len, needed = 0;
    const void *payload = perf_eventstream_payload(es, &len);
    for (; count < 256; count++) {
        h[count] = (perf_eventstream_header)PERF_EVENTSTREAM_HEADER_INIT;
        if (perf_eventstream_header_at(es, count, &h[count]))
            break;
        if (((const char *)h[count].bytes.data)[h[count].bytes.len])
            abort();
        if (h[count].bytes.len > INT16_MAX) /* read, but not written */
            return;
    }
    if (perf_eventstream_encode(h, count, payload, len, out, sizeof out, &needed))
        abort();
    perf_eventstream *other;
    size_t used;
    if (perf_eventstream_open(NULL, &other))
        return;
    if (perf_eventstream_feed(other, out, needed, &used) || used != needed)
        abort();
    size_t again;
    if (memcmp(perf_eventstream_payload(other, &again), payload, len) != 0 || again != len)
        abort();
    perf_eventstream_close(other);
}

/* How many messages, and how it ended. */
static int read_all(const uint8_t *data, size_t size, size_t piece, int *messages)
{
    perf_eventstream_options o = PERF_EVENTSTREAM_OPTIONS_INIT;
    perf_eventstream *es;
    int rc = PERF_MISS;
    *messages = 0;
    o.max_message_bytes = 65536;
    if (perf_eventstream_open(&o, &es))
        return PERF_ENOMEM;
    while (size && rc >= 0) {
        size_t n = piece < size ? piece : size, used;
        uint8_t *copy = malloc(n); /* exactly, so that a sanitizer sees one byte more */
        if (!copy)
            abort();
        memcpy(copy, data, n);
        rc = perf_eventstream_feed(es, copy, n, &used);
        free(copy);
        if (used > n || (rc == PERF_MISS && used != n))
            abort();
        if (rc == PERF_OK) {
            ++*messages;
            perf_eventstream_text(es, ":event-type");
            write_again(es);
        }
        data += used;
        size -= used;
    }
    if (rc >= 0)
        rc = perf_eventstream_finish(es);
    perf_eventstream_close(es);
    return rc;
}

static void compare(const uint8_t *data, size_t size)
{
    int whole, pieces;
    int rc = read_all(data, size, size ? size : 1, &whole);
    if (read_all(data, size, 7, &pieces) != rc || whole != pieces)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    compare(data, size);
    if (size < 2 || size > 8000)
        return 0;
    uint8_t *message = malloc(size + 16);
    uint32_t headers = (uint32_t)(data[0] | data[1] << 8) % (uint32_t)(size - 1);
    size_t total = size - 2 + 16;
    if (!message)
        abort();
    put32(message, (uint32_t)total);
    put32(message + 4, headers);
    put32(message + 8, (uint32_t)crc32(0, message, 8));
    memcpy(message + 12, data + 2, size - 2);
    put32(message + total - 4, (uint32_t)crc32(0, message, (uInt)(total - 4)));
    compare(message, total);
    free(message);
    return 0;
}
