/* SPDX-License-Identifier: MIT */
/*
 * pool_keys.c - a sub-pool for each key, made when first asked for.
 *
 * A child shares its root's mutex, threads and limits. Its memory lives as long
 * as the root, for threads remember slots; a child that is empty and unused is
 * given another key when max_keys is reached. With the root's mutex held.
 */
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "pool_impl.h"

static bool is_unused(const perf_pool *child)
{
    return !child->total && !child->users && !atomic_load(&child->queue_len);
}

static perf_pool *unused_child(perf_pool *root)
{
    for (perf_pool *child = root->child_list; child; child = child->next_child)
        if (is_unused(child))
            return child;
    return NULL;
}

static perf_pool *new_child(perf_pool *root, int *rc)
{
    const perf_allocator *allocator = &root->host.allocator;
    perf_pool *child = perf__pool_allocate(allocator);
    if (!child) {
        *rc = perf__fail_nomem("a sub-pool");
        return NULL;
    }
    *rc = perf__pool_init(child, &root->options, &root->host, root);
    if (*rc) {
        perf__pool_destroy(child);
        return NULL;
    }
    child->next_child = root->child_list;
    root->child_list = child;
    root->child_count++;
    return child;
}

perf_pool *perf__pool_child(perf_pool *root, const char *key, int *rc)
{
    const perf_allocator *uthash_allocator = &root->host.allocator;
    struct perf__hash_key uthash_secret = root->secret;
    bool uthash_oom = false, is_new = false;
    perf_pool *child = NULL;
    size_t len = strnlen(key, POOL_MAX_KEY + 1);
    if (!len || len > POOL_MAX_KEY) {
        *rc = perf__fail(PERF_EINVAL, "the key has %zu bytes; give 1 to %d", len, POOL_MAX_KEY);
        return NULL;
    }
    HASH_FIND(hh, root->children, key, len, child);
    *rc = PERF_OK;
    if (child)
        return child;

    char *copy = perf__strndup(uthash_allocator, key, len);
    if (!copy) {
        *rc = perf__fail_nomem("a sub-pool's key");
        return NULL;
    }
    if (root->child_count < root->options.max_keys) {
        child = new_child(root, rc);
        is_new = child;
    } else if (!(child = unused_child(root))) {
        *rc = perf__fail(PERF_EBUSY,
                         "all %llu sub-pools have connections; raise max_keys, or lower "
                         "idle_timeout_ms",
                         (unsigned long long)root->options.max_keys);
    }
    if (!child) {
        perf__free(uthash_allocator, copy);
        return NULL;
    }
    if (!is_new && child->hh.tbl)
        HASH_DEL(root->children, child);
    memset(&child->hh, 0, sizeof child->hh);
    perf__free(uthash_allocator, (void *)(uintptr_t)child->key);
    child->key = copy;
    child->open_error = 0;
    child->next_open_ms = child->backoff_ms = 0;
    child->window_peak = child->last_peak = 0;
    HASH_ADD_KEYPTR(hh, root->children, child->key, len, child);
    if (uthash_oom) { /* it stays in the list, without a name, for the next one */
        memset(&child->hh, 0, sizeof child->hh);
        *rc = perf__fail_nomem("a sub-pool's key");
        return NULL;
    }
    return child;
}
