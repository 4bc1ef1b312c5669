/* SPDX-License-Identifier: MIT */
/* value.c - the handle that a get returns. Immutable, any thread may release it. */
#include "value.h"

#include "../base/alloc.h"

perf_value *perf__value_new(const perf_allocator *allocator, size_t len)
{
    size_t size;
    if (__builtin_add_overflow(sizeof(perf_value), len, &size))
        return NULL;
    perf_value *value = perf__alloc(allocator, size);
    if (!value)
        return NULL;
    *value = (perf_value){
        .data = value->bytes, .len = len, .ttl_ms = PERF_TTL_FOREVER, .allocator = *allocator};
    return value;
}

const void *perf_value_data(const perf_value *value)
{
    return value->data;
}

size_t perf_value_size(const perf_value *value)
{
    return value->len;
}

uint64_t perf_value_version(const perf_value *value)
{
    return value->version;
}

int64_t perf_value_ttl_ms(const perf_value *value)
{
    return value->ttl_ms;
}

int perf_value_is_stale(const perf_value *value)
{
    return value->stale;
}

void perf_value_release(perf_value *value)
{
    if (!value)
        return;
    if (value->unpin)
        value->unpin(value->owner, value->pin);
    perf_allocator allocator = value->allocator;
    perf__free(&allocator, value);
}
