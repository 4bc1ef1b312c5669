/* SPDX-License-Identifier: MIT */
/*
 * tier_breaker.c - a remote store that fails is left alone for a while.
 *
 * Once it has failed for a while nobody waits for it: calls are skipped, and
 * now and then one of them is let through to see whether it works again. Local
 * stores have no breaker. Any thread, without the tier's mutex.
 */
#include "../base/clock.h"
#include "../base/status.h"
#include "tier_impl.h"

enum {
    BREAKER_CALLS = 4, /* the last so many decide: the first calls of an outage pay for it */
    BREAKER_OPEN_MS = 250,
    BREAKER_OPEN_MAX_MS = 2000
};

/* Throttling counts: a tier that refuses is no help either, and the source has the value. */
int perf__tier_open_breaker(struct perf__tier *t, int64_t timeout_ms)
{
    perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;
    if (!(perf__store_capabilities(t->store) & PERF_STORE_REMOTE))
        return PERF_OK;
    o.window_calls = o.minimum_calls = BREAKER_CALLS;
    o.failure_percent = 100;
    o.slow_ms = 2 * timeout_ms;
    o.half_open_calls = 1;
    o.open_ms = BREAKER_OPEN_MS;
    o.open_max_ms = BREAKER_OPEN_MAX_MS;
    o.probe_timeout_ms = 2 * timeout_ms;
    o.failure_kinds =
        1 << PERF_OUTCOME_TRANSIENT | 1 << PERF_OUTCOME_TIMEOUT | 1 << PERF_OUTCOME_THROTTLED;
    o.host = &t->host->view;
    return perf_breaker_open(&o, &t->breaker);
}

int perf__tier_ask(struct perf__tier *t, struct perf__asked *asked)
{
    if (!t->breaker)
        return PERF_OK;
    if (perf_breaker_try(t->breaker, &asked->permit) == PERF_OK) {
        asked->begun_ms = perf__now_ms(&t->host->clock);
        return PERF_OK;
    }
    perf__counters_add(&t->counters, PERF__TIER_SKIPPED, 1);
    return perf__fail(PERF_EUNAVAILABLE,
                      "tier \"%s\" has failed a moment ago and is left alone for now",
                      perf__store_name(t->store));
}

int perf__tier_answered(struct perf__tier *t, const struct perf__asked *asked, int rc)
{
    if (t->breaker)
        perf_breaker_report(t->breaker, asked->permit, perf_outcome_of_status(rc),
                            perf__now_ms(&t->host->clock) - asked->begun_ms);
    return rc;
}
