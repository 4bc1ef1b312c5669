/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as what a Redis server sends, in pieces, and any bytes as a URL: bounds hold, what is
 * read is read the same however it is cut, and a URL that is refused is not repeated.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/net/redis.h"
#include "../../src/net/redis_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX = 2000 };

/* A number that depends on all that the reply says. */
static uint64_t look(const perf_redis_reply *r, int depth)
{
    uint64_t sum = (uint64_t)perf_redis_reply_type(r) * 31 + (uint64_t)perf_redis_reply_integer(r);
    size_t size = perf_redis_reply_size(r);
    if (depth > 20 || size > MAX)
        abort();
    if (perf_redis_reply_type(r) == PERF_REDIS_ARRAY) {
        for (size_t i = 0; i < size; i++)
            sum = sum * 1000003 + look(perf_redis_reply_element(r, i), depth + 1);
        return sum;
    }
    const char *text = perf_redis_reply_data(r);
    for (size_t i = 0; i < size; i++)
        sum = sum * 131 + (unsigned char)text[i];
    if (text[size])
        abort();
    return sum + size;
}

static uint64_t read_all(const uint8_t *data, size_t size, size_t piece)
{
    struct perf__redis_parser p;
    perf_redis_reply *none = NULL, *reply;
    uint64_t sum = 0;
    size_t at = 0, given = 0;
    int rc = 0;
    bool skipped = false;
    perf__redis_parser_init(&p, &perf__default_allocator, MAX);
    while (given < size && rc >= 0) {
        given = given + piece < size ? given + piece : size;
        char *copy = malloc(given - at + 1); /* so that a sanitizer sees one byte more */
        if (!copy)
            abort();
        memcpy(copy, data + at, given - at);
        char *exact = realloc(copy, given - at ? given - at : 1);
        const char *from = exact, *end = exact + (given - at);
        while (from < end && (rc = perf__redis_parse(&p, &from, end, &none, &reply)) == 1) {
            skipped |= p.status != PERF_OK;
            if (!p.status != !!reply)
                abort();
            if (reply)
                sum += look(reply, 0);
            perf_redis_reply_release(reply);
        }
        at += (size_t)(from - exact);
        free(exact);
    }
    skipped |= p.status != PERF_OK;
    perf__redis_parser_free(&p);
    /* Cut otherwise, garbage in a reply that is too large may be seen before that it is. */
    return rc < 0 || skipped ? 0 : sum;
}

static void read_url(const uint8_t *data, size_t size)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    char *url = malloc(size + 1), *room = malloc(size + 4);
    if (!url || !room)
        abort();
    memcpy(url, data, size);
    url[size] = '\0';
    size_t len = strlen(url);
    char *tight = realloc(room, len + 4);
    int rc = perf__redis_url_parse(&o, url, tight);
    if (rc && rc != PERF_EINVAL)
        abort();
    if (!rc &&
        (o.port < 0 || o.port > 65535 || o.db < 0 || (o.unix_socket && *o.unix_socket != '/') ||
         (o.hostname && strlen(o.hostname) > len) || (o.password && strlen(o.password) > len)))
        abort();
    free(tight);
    free(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t whole = read_all(data, size, size ? size : 1);
    if (whole && whole != read_all(data, size, 1))
        abort();
    if (whole && whole != read_all(data, size, 7))
        abort();
    read_url(data, size);
    return 0;
}
