/* SPDX-License-Identifier: MIT */
/*
 * tier_shared.c - what processes that share a store tell each other through it:
 * marks, news of changes, and leases.
 *
 * The store does it all; here calls that may wait for it go by the breaker, and
 * leases and errors are counted. That somebody else has a lease is an answer, not
 * a failure of the store. Any thread.
 */
#include "tier_impl.h"

uint64_t perf__tier_capabilities(const struct perf__tier *t)
{
    return perf__store_capabilities(t->store);
}

int perf__tier_marks(struct perf__tier *t, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    struct perf__asked asked;
    int rc = perf__tier_ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__tier_answered(t, &asked, perf__store_marks(t->store, since_ms, each, ctx));
    if (rc)
        perf__counters_add(&t->counters, PERF__TIER_ERRORS, 1);
    return rc;
}

int perf__tier_listen(struct perf__tier *t, const perf_store_listener *listener)
{
    return perf__store_listen(t->store, listener);
}

int perf__tier_lease(struct perf__tier *t, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t *token)
{
    struct perf__asked asked;
    int rc = perf__tier_ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__store_lease(t->store, key, ttl_ms, token);
    (void)!perf__tier_answered(t, &asked, rc == PERF_EBUSY ? PERF_OK : rc);
    if (rc == PERF_OK)
        perf__counters_add(&t->counters, PERF__TIER_LEASES, 1);
    return rc;
}

int perf__tier_lease_many(struct perf__tier *t, const perf_store_key *keys, size_t count,
                          int64_t ttl_ms, uint64_t *tokens)
{
    struct perf__asked asked;
    int rc = perf__tier_ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__tier_answered(t, &asked,
                             perf__store_lease_many(t->store, keys, count, ttl_ms, tokens));
    uint64_t given = 0;
    for (size_t i = 0; i < count && !rc; i++)
        given += tokens[i] != 0;
    perf__counters_add(&t->counters, PERF__TIER_LEASES, given);
    return rc;
}

int perf__tier_renew(struct perf__tier *t, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t token)
{
    struct perf__asked asked;
    int rc = perf__tier_ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__store_renew(t->store, key, ttl_ms, token);
    (void)!perf__tier_answered(t, &asked, rc == PERF_EBUSY ? PERF_OK : rc);
    return rc;
}

void perf__tier_unlease(struct perf__tier *t, const perf_store_key *key, uint64_t token)
{
    struct perf__asked asked;
    if (perf__tier_ask(t, &asked) == PERF_OK) /* else it ends by itself */
        (void)!perf__tier_answered(t, &asked, perf__store_unlease(t->store, key, token));
}
