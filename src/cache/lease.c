/* SPDX-License-Identifier: MIT */
/*
 * lease.c - taking and giving back leases of the tiers below. Any thread.
 */
#include "lease.h"

#include <string.h>

/* How long a load may take before another process may try: longer than nearly all loads, shorter
 * than anybody wants to wait for a process that died while it loaded. */
enum { LEASE_MS = 5000 };

bool perf__lease_wanted(const struct perf__op *op, size_t i)
{
    return op->policy->options.lease_ms >= 0 && perf__op_uses_tier(op, i) &&
           perf__tier_capabilities(op->cache->tiers[i]) & PERF_STORE_LEASES;
}

int perf__lease_take(const struct perf__op *op, size_t i, struct perf__leases *leases)
{
    uint64_t *token = &leases->token[i];
    if (*token && *token != PERF__LEASE_OF_OTHERS)
        return PERF_OK;
    perf_store_key key;
    uint8_t id[PERF_STORE_ID_SIZE];
    perf__op_store_key(op, id, &key);
    int64_t ms = op->policy->options.lease_ms;
    int rc = perf__tier_lease(op->cache->tiers[i], &key, ms ? ms : LEASE_MS, token);
    if (rc)
        *token = PERF__LEASE_OF_OTHERS;
    return rc;
}

int perf__leases_take(const struct perf__op *op, struct perf__leases *leases)
{
    bool first = true;
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        if (!perf__lease_wanted(op, i))
            continue;
        int rc = perf__lease_take(op, i, leases);
        if (first && rc == PERF_EBUSY)
            return rc; /* who loads brings it to the other tiers, too */
        first = false;
    }
    return PERF_OK;
}

void perf__leases_end(const struct perf__op *op, struct perf__leases *leases)
{
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        uint64_t token = leases->token[i];
        leases->token[i] = 0;
        if (!token || token == PERF__LEASE_OF_OTHERS)
            continue;
        perf_store_key key;
        uint8_t id[PERF_STORE_ID_SIZE];
        perf__op_store_key(op, id, &key);
        perf__tier_unlease(op->cache->tiers[i], &key, token);
    }
}
