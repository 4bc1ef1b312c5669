/* SPDX-License-Identifier: MIT */
/* aws_gzip.c - a body as one gzip member, by zlib in the host's memory. Any thread. */
#include <limits.h>
#include <zlib.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_client.h"

enum { GZIP_WINDOW = 15 + 16, LEVEL = 6, MEMORY = 8 };

static voidpf take(voidpf ctx, uInt count, uInt size)
{
    return perf__calloc(ctx, count, size);
}

static void give(voidpf ctx, voidpf block)
{
    perf__free(ctx, block);
}

int perf__gzip(const perf_allocator *allocator, const void *data, size_t len, char **out,
               size_t *out_len)
{
    perf_allocator a = *allocator;
    z_stream z = {.zalloc = take, .zfree = give, .opaque = &a};
    if (len > INT_MAX / 2)
        return perf__fail(PERF_ETOOBIG, "a body of %zu bytes is too long to be compressed", len);
    if (deflateInit2(&z, LEVEL, Z_DEFLATED, GZIP_WINDOW, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
        return perf__fail_nomem("compressing a body");
    size_t bound = deflateBound(&z, (uLong)len);
    char *packed = perf__alloc(allocator, bound);
    int rc = packed ? PERF_OK : perf__fail_nomem("compressing a body");
    if (!rc) {
        z.next_in = (z_const Bytef *)data;
        z.avail_in = (uInt)len;
        z.next_out = (Bytef *)packed;
        z.avail_out = (uInt)bound;
        if (deflate(&z, Z_FINISH) != Z_STREAM_END)
            rc = perf__fail_nomem("compressing a body"); /* the bound is one, so it is memory */
    }
    *out_len = bound - z.avail_out;
    deflateEnd(&z);
    if (rc)
        perf__free(allocator, packed);
    else
        *out = packed;
    return rc;
}
