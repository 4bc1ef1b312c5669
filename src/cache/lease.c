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

int64_t perf__lease_ms(const struct perf__op *op)
{
    int64_t ms = op->policy->options.lease_ms;
    return ms ? ms : LEASE_MS;
}

static bool is_own(uint64_t token)
{
    return token && token != PERF__LEASE_OF_OTHERS;
}

int perf__lease_take(const struct perf__op *op, size_t i, struct perf__leases *leases)
{
    uint64_t *token = &leases->token[i];
    if (is_own(*token))
        return PERF_OK;
    perf_store_key key;
    uint8_t id[PERF_STORE_ID_SIZE];
    perf__op_store_key(op, id, &key);
    *token = 0;
    int rc = perf__tier_lease(op->cache->tiers[i], &key, perf__lease_ms(op), token);
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

/* Those of one tier, for the keys of a group that are not others' already. decides: who has this
 * tier's lease loads. */
static void take_group(const struct perf__op *const *ops, struct perf__leases *const *leases,
                       size_t count, size_t i, bool decides, bool *busy)
{
    perf_store_key keys[PERF__LEASES_GROUP];
    uint8_t ids[PERF__LEASES_GROUP][PERF_STORE_ID_SIZE];
    uint64_t tokens[PERF__LEASES_GROUP] = {0};
    size_t asked[PERF__LEASES_GROUP], n = 0;
    for (size_t k = 0; k < count; k++) {
        if (busy[k] || is_own(leases[k]->token[i]))
            continue;
        perf__op_store_key(ops[k], ids[n], &keys[n]);
        asked[n++] = k;
    }
    if (!n)
        return;
    int rc =
        perf__tier_lease_many(ops[0]->cache->tiers[i], keys, n, perf__lease_ms(ops[0]), tokens);
    for (size_t k = 0; k < n; k++) {
        leases[asked[k]]->token[i] = rc || !tokens[k] ? PERF__LEASE_OF_OTHERS : tokens[k];
        busy[asked[k]] = decides && !rc && !tokens[k];
    }
    for (size_t k = 0; k < n && rc; k++) /* some may have been given */
        if (tokens[k])
            perf__tier_unlease(ops[0]->cache->tiers[i], &keys[k], tokens[k]);
}

void perf__leases_take_many(const struct perf__op *const *ops, struct perf__leases *const *leases,
                            size_t count, bool *busy)
{
    bool first = true;
    memset(busy, 0, count * sizeof *busy);
    for (size_t i = 0; i < ops[0]->cache->tier_count; i++) {
        if (!perf__lease_wanted(ops[0], i))
            continue;
        for (size_t from = 0; from < count; from += PERF__LEASES_GROUP) {
            size_t n = count - from < PERF__LEASES_GROUP ? count - from : PERF__LEASES_GROUP;
            take_group(ops + from, leases + from, n, i, first, busy + from);
        }
        first = false;
    }
}

void perf__leases_renew(const struct perf__op *op, const struct perf__leases *leases)
{
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        uint64_t token = leases->token[i];
        if (!is_own(token))
            continue;
        perf_store_key key;
        uint8_t id[PERF_STORE_ID_SIZE];
        perf__op_store_key(op, id, &key);
        (void)!perf__tier_renew(op->cache->tiers[i], &key, perf__lease_ms(op), token);
    }
}

bool perf__leases_any(const struct perf__leases *leases)
{
    for (size_t i = 0; i < PERF__TIERS_MAX; i++)
        if (is_own(leases->token[i]))
            return true;
    return false;
}

void perf__leases_end(const struct perf__op *op, struct perf__leases *leases)
{
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        uint64_t token = leases->token[i];
        leases->token[i] = 0;
        if (!is_own(token))
            continue;
        perf_store_key key;
        uint8_t id[PERF_STORE_ID_SIZE];
        perf__op_store_key(op, id, &key);
        perf__tier_unlease(op->cache->tiers[i], &key, token);
    }
}
