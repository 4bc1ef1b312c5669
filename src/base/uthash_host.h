/* SPDX-License-Identifier: MIT */
/*
 * uthash_host.h - uthash with the host's allocator and a keyed hash.
 *
 * Include instead of <uthash.h>. Where a table is changed, three names must be
 * in scope: `const perf_allocator *uthash_allocator`, `struct perf__hash_key
 * uthash_secret`, and `bool uthash_oom`, which becomes true (and the element is
 * not added) when there is no memory. Our names come from outside, so the hash
 * is SipHash under the process's secret and not uthash's own.
 */
#ifndef PERF_BASE_UTHASH_HOST_H
#define PERF_BASE_UTHASH_HOST_H

#include "alloc.h"
#include "hash.h"

#define HASH_NONFATAL_OOM            1
#define uthash_malloc(size)          perf__alloc(uthash_allocator, size)
#define uthash_free(block, size)     perf__free(uthash_allocator, block)
#define uthash_nonfatal_oom(element) (uthash_oom = true)
#define HASH_FUNCTION(key, len, value) \
    ((value) = (unsigned)perf__hash_bytes(uthash_secret, key, len).lo)

#include <uthash.h>

#endif
