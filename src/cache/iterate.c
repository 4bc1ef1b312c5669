/* SPDX-License-Identifier: MIT */
/*
 * iterate.c - a walk over memory, one shard's keys at a time.
 *
 * The keys of a shard are copied under its lock, so that a walk holds no lock
 * while the host works; writers to that shard wait for the copying. One thread
 * at a time per walk.
 */
#include "cache_impl.h"

#include <string.h>

/* One copied entry; the records lie one behind the other in bytes. */
struct slice_entry {
    uint32_t key_len, user_len;
    uint64_t value_len;
    int64_t fresh_until;
    uint16_t ns;
};

struct perf_cache_iter {
    perf_cache *cache;
    const struct perf__namespace *ns; /* NULL: all */
    bool nothing;                     /* the namespace does not exist */
    size_t shard;
    unsigned char *bytes;
    size_t len, cap, at;
    bool no_memory;
    int64_t now;
};

int perf_cache_iter_open(perf_cache *cache, const char *ns, perf_cache_iter **out)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "iter is NULL; give a place for the handle");
    perf_cache_iter *iter = perf__calloc(&cache->host.allocator, 1, sizeof *iter);
    if (!iter)
        return perf__fail_nomem("an iterator");
    iter->cache = cache;
    if (ns) {
        iter->ns = perf__namespace_find(&cache->namespaces, ns, strnlen(ns, PERF__NAME_MAX + 1));
        iter->nothing = !iter->ns;
    }
    *out = iter;
    return PERF_OK;
}

static bool reserve(perf_cache_iter *iter, size_t more)
{
    if (iter->cap - iter->len >= more)
        return true;
    size_t cap = iter->cap ? iter->cap * 2 : 16384;
    while (cap - iter->len < more)
        cap *= 2;
    unsigned char *bytes = perf__realloc(&iter->cache->host.allocator, iter->bytes, cap);
    if (!bytes)
        return false;
    iter->bytes = bytes;
    iter->cap = cap;
    return true;
}

static bool copy_entry(void *ctx, const struct perf__entry_view *view)
{
    perf_cache_iter *iter = ctx;
    if (view->kind != PERF__ENTRY_VALUE || view->fresh_until <= iter->now ||
        (iter->ns && view->key.ns != iter->ns->id))
        return true;
    struct slice_entry entry = {.key_len = view->key.key_len,
                                .user_len = view->key.user_len,
                                .value_len = view->value_len,
                                .fresh_until = view->fresh_until,
                                .ns = view->key.ns};
    if (!reserve(iter, sizeof entry + entry.user_len + 1 + entry.key_len)) {
        iter->no_memory = true;
        return false;
    }
    unsigned char *at = iter->bytes + iter->len;
    memcpy(at, &entry, sizeof entry);
    at += sizeof entry;
    memcpy(at, view->key.user, entry.user_len);
    at[entry.user_len] = '\0';
    memcpy(at + entry.user_len + 1, view->key.key, entry.key_len);
    iter->len += sizeof entry + entry.user_len + 1 + entry.key_len;
    return true;
}

/* Copies the keys of the next shard that has any. PERF_MISS at the end. */
static int next_shard(perf_cache_iter *iter)
{
    perf_cache *cache = iter->cache;
    iter->len = iter->at = 0;
    for (; !iter->len && iter->shard < perf__memory_shard_count(cache->memory); iter->shard++) {
        iter->now = perf__cache_now(cache);
        int rc = perf__memory_walk(cache->memory, iter->shard, iter->now, copy_entry, iter);
        if (rc < 0)
            return rc;
        if (iter->no_memory) {
            iter->no_memory = false;
            return perf__fail_nomem("the keys of a shard");
        }
    }
    return iter->len ? PERF_OK : PERF_MISS;
}

int perf_cache_iter_next(perf_cache_iter *iter, perf_cache_entry *out)
{
    if (!iter)
        return perf__fail(PERF_EINVAL, "iter is NULL; open one with perf_cache_iter_open");
    size_t size = 0;
    int rc = perf__cache_check(iter->cache);
    if (rc || (rc = perf__options_check_out("perf_cache_entry", out, &size)))
        return rc;
    if (iter->nothing)
        return PERF_MISS;
    if (iter->at == iter->len && (rc = next_shard(iter)))
        return rc;
    struct slice_entry entry;
    const unsigned char *at = iter->bytes + iter->at;
    memcpy(&entry, at, sizeof entry);
    at += sizeof entry;
    const struct perf__namespace *ns = perf__namespace_by_id(&iter->cache->namespaces, entry.ns);
    const perf_cache_entry ours = {
        .struct_size = sizeof ours,
        .ns = ns->name,
        .user = entry.user_len ? (const char *)at : NULL,
        .key = at + entry.user_len + 1,
        .key_len = entry.key_len,
        .value_len = entry.value_len,
        .ttl_ms =
            entry.fresh_until == PERF__NEVER ? PERF_TTL_FOREVER : entry.fresh_until - iter->now,
    };
    perf__options_give(out, size, &ours, sizeof ours);
    iter->at += sizeof entry + entry.user_len + 1 + entry.key_len;
    return PERF_OK;
}

void perf_cache_iter_close(perf_cache_iter *iter)
{
    if (!iter)
        return;
    const perf_allocator *a = &iter->cache->host.allocator;
    perf__free(a, iter->bytes);
    perf__free(a, iter);
}
