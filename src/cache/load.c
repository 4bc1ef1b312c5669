/* SPDX-License-Identifier: MIT */
/* load.c - what a loader sees and fills. On the thread that runs the loader. */
#include "flight.h"

#include <string.h>

const void *perf_load_key(const perf_load *load, size_t *key_len)
{
    *key_len = load->flight->op.key.key_len;
    return load->flight->op.key.key;
}

const char *perf_load_namespace(const perf_load *load)
{
    return load->flight->op.ns->name;
}

const char *perf_load_user(const perf_load *load)
{
    return load->flight->op.user_text;
}

int perf_load_set(perf_load *load, const void *data, size_t len)
{
    if (!data && len)
        return perf__fail(PERF_EINVAL, "data is NULL; give %zu bytes", len);
    if (len > 1u << 30)
        return perf__fail(PERF_ETOOBIG, "value is %zu bytes long; give at most 1 GiB", len);
    const perf_allocator *a = &load->flight->op.cache->host.allocator;
    unsigned char *copy = perf__alloc(a, len);
    if (!copy)
        return perf__fail_nomem("a loaded value");
    if (len)
        memcpy(copy, data, len);
    perf__free(a, load->data);
    load->data = copy;
    load->len = len;
    load->has_data = true;
    load->keep_stale = false;
    return PERF_OK;
}

int perf_load_set_ttl(perf_load *load, int64_t ttl_ms, int64_t stale_ms)
{
    struct perf__life life;
    int rc = perf__life_of(&load->flight->op, 0, ttl_ms, stale_ms, &life);
    if (rc)
        return rc;
    load->ttl_ms = ttl_ms;
    load->stale_ms = stale_ms;
    return PERF_OK;
}

int perf_load_add_tag(perf_load *load, const char *tag)
{
    struct perf__flight *f = load->flight;
    size_t len = tag ? strnlen(tag, PERF__NAME_MAX + 1) : 0;
    int rc = perf__check_len("tag", len, 1, PERF__NAME_MAX);
    if (rc)
        return rc;
    if (f->write.tags_len + 1 + len > sizeof f->tag_buf)
        return perf__fail(PERF_EINVAL, "the value has too many tags; give at most %d",
                          PERF__TAGS_MAX);
    pthread_mutex_t *mutex = &f->op.cache->flights.mutex; /* joiners ask whether a mark has them */
    pthread_mutex_lock(mutex);
    f->tag_buf[f->write.tags_len] = (uint8_t)len;
    memcpy(f->tag_buf + f->write.tags_len + 1, tag, len);
    f->write.tags_len += 1 + (uint32_t)len;
    pthread_mutex_unlock(mutex);
    return PERF_OK;
}

int perf_load_cancelled(const perf_load *load)
{
    const struct perf__flight *f = load->flight;
    return atomic_load_explicit(&f->cancelled, memory_order_relaxed) ||
           !perf__deadline_left(f->give_up_at);
}

const void *perf_load_stale(const perf_load *load, size_t *len)
{
    const perf_value *stale = load->flight->stale;
    *len = stale ? stale->len : 0;
    return stale ? stale->data : NULL;
}

int perf_load_keep_stale(perf_load *load)
{
    if (!load->flight->stale)
        return PERF_MISS;
    load->keep_stale = true;
    return PERF_OK;
}
