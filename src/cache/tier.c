/* SPDX-License-Identifier: MIT */
/*
 * tier.c - a tier below memory as a whole: opened, closed, swept, counted.
 *
 * A tier is a store with an ordered queue of changes before it. Other files
 * have what it does: tier_submit.c takes changes in, tier_commit.c brings them
 * to the store, tier_repair.c sees to what a failing store missed,
 * tier_breaker.c leaves a failing store alone, tier_read.c reads, and
 * tier_shared.c has what processes tell each other through a store. Closing
 * commits what is queued. Any thread; closing when nobody uses the tier.
 */
#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "tier_impl.h"

enum {
    MAX_TIMEOUT_MS = 3600000,
    DEFAULT_TIMEOUT_MS = 1000,
    MIN_QUEUE_BYTES = 4096,
    DEFAULT_QUEUE_BYTES = 16 << 20
};

static const uint64_t default_max_bytes = (uint64_t)1 << 30;

static int complete_options(const perf_tier_options *given, perf_tier_options *own)
{
    int rc = perf__options_take("perf_tier_options", given, own, sizeof *own);
    if (rc)
        return rc;
    if (!own->max_bytes)
        own->max_bytes = default_max_bytes;
    if (!own->timeout_ms)
        own->timeout_ms = DEFAULT_TIMEOUT_MS;
    if (!own->queue_max_bytes)
        own->queue_max_bytes = DEFAULT_QUEUE_BYTES;
    if ((rc = perf__check_range("perf_tier_options.timeout_ms", own->timeout_ms, 1,
                                MAX_TIMEOUT_MS)) ||
        (rc = perf__check_range("perf_tier_options.write_mode", own->write_mode, PERF_WRITE_THROUGH,
                                PERF_WRITE_BEHIND)) ||
        (rc = perf__check_range("perf_tier_options.sync", own->sync, PERF_SYNC_NORMAL,
                                PERF_SYNC_FULL)) ||
        (rc = perf__check_range("perf_tier_options.queue_full", own->queue_full, PERF_FULL_BLOCK,
                                PERF_FULL_DROP)))
        return rc;
    if (own->queue_max_bytes < MIN_QUEUE_BYTES || own->queue_max_bytes > SIZE_MAX / 4)
        return perf__fail(PERF_EINVAL, "perf_tier_options.queue_max_bytes is %llu; give %d or more",
                          (unsigned long long)own->queue_max_bytes, MIN_QUEUE_BYTES);
    return PERF_OK;
}

int perf__tier_open(const perf_tier_options *options, const struct perf__host *host,
                    struct perf__background *background, struct perf__marks *marks,
                    struct perf__tier **out)
{
    perf_tier_options own;
    int rc = complete_options(options, &own);
    if (rc)
        return rc;
    struct perf__tier *t = perf__calloc(&host->allocator, 1, sizeof *t);
    if (!t)
        return perf__fail_nomem("a tier");
    t->host = host;
    t->background = background;
    t->marks = marks;
    t->behind = own.write_mode == PERF_WRITE_BEHIND;
    t->drop_when_full = own.queue_full == PERF_FULL_DROP;
    t->queue_max_bytes = (size_t)own.queue_max_bytes;
    t->job.run = perf__tier_run_job;
    perf__queue_init(&t->pending, &host->allocator);
    rc = perf__counters_init(&t->counters, &host->allocator, PERF__TIER_COUNTS);
    if (rc)
        goto no_counters;
    rc = perf__locks_init(&t->mutex, &t->changed, "a tier's locks");
    if (rc)
        goto no_locks;
    rc = perf__store_open(&own, host, &t->store);
    if (rc)
        goto no_store;
    rc = perf__tier_open_breaker(t, own.timeout_ms);
    if (rc)
        goto no_breaker;
    *out = t;
    return PERF_OK;

no_breaker:
    perf__store_close(t->store);
no_store:
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mutex);
no_locks:
    perf__counters_destroy(&t->counters);
no_counters:
    perf__free(&host->allocator, t);
    return rc;
}

int perf__tier_close(struct perf__tier *t)
{
    if (!t)
        return PERF_OK;
    pthread_mutex_lock(&t->mutex);
    t->closing = true;
    pthread_cond_broadcast(&t->changed);
    while (t->committing || t->job_queued)
        perf__cond_wait(&t->changed, &t->mutex, 0);
    int rc = PERF_OK;
    while (!rc && (t->pending.queue.first || t->pending.repairs.first))
        rc = perf__tier_commit(t, false);
    if (rc)
        perf__tier_lose_more(t, rc, SIZE_MAX);
    if (t->lost_rc)
        rc = t->lost_rc;
    if (rc)
        perf__fail(rc, "%s", t->text);
    perf__queue_clear(&t->pending);
    pthread_mutex_unlock(&t->mutex);
    perf__store_close(t->store);
    (void)!perf_breaker_close(t->breaker);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mutex);
    perf__counters_destroy(&t->counters);
    perf__free(&t->host->allocator, t);
    return rc;
}

void perf__tier_abandon(struct perf__tier *t)
{
    if (!t)
        return;
    /* The mutex may be held by a thread that does not exist here; we are alone. A batch in
     * flight is still listed, so this finds everything. */
    perf__queue_clear(&t->pending);
    perf__store_abandon(t->store);
    (void)!perf_breaker_close(t->breaker);
    perf__counters_destroy(&t->counters);
    perf__free(&t->host->allocator, t);
}

size_t perf__tier_sweep(struct perf__tier *t, int64_t now_ms, size_t budget)
{
    size_t removed = 0;
    if (perf__store_sweep(t->store, now_ms, budget, &removed))
        perf__counters_add(&t->counters, PERF__TIER_ERRORS, 1);
    return removed;
}

void perf__tier_count_damaged(struct perf__tier *t)
{
    perf__counters_add(&t->counters, PERF__TIER_DAMAGED, 1);
}

void perf__tier_stats(struct perf__tier *t, perf_tier_stats *stats)
{
    perf_store_usage usage;
    perf__store_usage(t->store, &usage); /* all zero when the store cannot say */
    *stats = (perf_tier_stats){.struct_size = sizeof *stats};
    stats->backend = perf__store_name(t->store);
    stats->hits = perf__counters_sum(&t->counters, PERF__TIER_HITS);
    stats->misses = perf__counters_sum(&t->counters, PERF__TIER_MISSES);
    stats->errors = perf__counters_sum(&t->counters, PERF__TIER_ERRORS);
    stats->damaged = perf__counters_sum(&t->counters, PERF__TIER_DAMAGED);
    stats->records = usage.records;
    stats->bytes = usage.bytes;
    stats->read_units_milli = usage.read_units_milli;
    stats->write_units_milli = usage.write_units_milli;
    pthread_mutex_lock(&t->mutex);
    stats->writes = t->writes;
    stats->commits = t->commits;
    stats->dropped = t->dropped;
    stats->queued = t->pending.queue.count + t->pending.repairs.count;
    stats->repairs = t->pending.repairs.count;
    stats->repaired = t->repaired;
    pthread_mutex_unlock(&t->mutex);
    stats->skipped = perf__counters_sum(&t->counters, PERF__TIER_SKIPPED);
    stats->leases = perf__counters_sum(&t->counters, PERF__TIER_LEASES);
    stats->breaker = t->breaker ? perf_breaker_state(t->breaker) : PERF_BREAKER_CLOSED;
}
