/* SPDX-License-Identifier: MIT */
/*
 * trace.c - who a request is to other services: W3C Trace Context, level 1
 * (https://www.w3.org/TR/trace-context-1/). An identity is made when somebody asks
 * for it. A request belongs to one thread at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "monitor_impl.h"

enum { PARENT_LEN = 55 }; /* 2 version, 32 trace, 16 span, 2 flags, and dashes */

static uint64_t random_not_zero(void)
{
    uint64_t n = perf__thread_random();
    return n ? n : 1;
}

void perf__trace_name(struct perf_request *r)
{
    if (!r->trace[0] && !r->trace[1]) {
        r->trace[0] = random_not_zero();
        r->trace[1] = random_not_zero();
        r->sampled = true;
    }
    if (!r->span_id)
        r->span_id = random_not_zero();
}

/* Digits in lower case only, as the standard has it. */
static bool read_hex(const char *text, int digits, uint64_t *out)
{
    uint64_t n = 0;
    for (int i = 0; i < digits; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        n = n << 4 | (uint64_t)digit;
    }
    *out = n;
    return true;
}

int perf_request_set_traceparent(perf_request *r, const char *text)
{
    uint64_t version, trace[2], parent, flags;
    if (!r || !text)
        return PERF_OK;
    size_t len = strnlen(text, PARENT_LEN + 1);
    if (len < PARENT_LEN || text[2] != '-' || text[35] != '-' || text[52] != '-' ||
        !read_hex(text, 2, &version) || version == 0xff ||
        (len > PARENT_LEN && (!version || text[PARENT_LEN] != '-')) ||
        !read_hex(text + 3, 16, &trace[0]) || !read_hex(text + 19, 16, &trace[1]) ||
        !read_hex(text + 36, 16, &parent) || !read_hex(text + 53, 2, &flags) ||
        !(trace[0] | trace[1]) || !parent)
        return perf__fail(PERF_EINVAL,
                          "traceparent \"%.60s\" is not valid; it is "
                          "\"00-<32 digits>-<16 digits>-<2 digits>\" in lower case, and the "
                          "request is as if it had none",
                          text);
    r->trace[0] = trace[0];
    r->trace[1] = trace[1];
    r->parent_id = parent;
    r->sampled = flags & 1;
    r->span_id = 0;
    return PERF_OK;
}

int perf_request_get_traceparent(perf_request *r, char *out, size_t out_size)
{
    if (!out || !out_size)
        return perf__fail(PERF_EINVAL, "out is NULL or has no room; give at least %d bytes",
                          PARENT_LEN + 1);
    out[0] = 0;
    if (!r)
        return PERF_MISS;
    if (out_size <= PARENT_LEN)
        return perf__fail(PERF_ETOOSMALL, "out_size is %zu; a traceparent needs %d bytes", out_size,
                          PARENT_LEN + 1);
    perf__trace_name(r);
    (void)!snprintf(out, out_size, "00-%016" PRIx64 "%016" PRIx64 "-%016" PRIx64 "-%02x",
                    r->trace[0], r->trace[1], r->span_id, r->sampled ? 1u : 0u);
    return PERF_OK;
}
