/* SPDX-License-Identifier: MIT */
/*
 * cache.c - opening and closing a cache, the beginning of every call, and
 * upkeep. See cache_impl.h for the way a call goes on from here.
 *
 * Every public function may be called from any thread; only open and close are
 * alone with their handle.
 */
#include "cache_impl.h"

#include <inttypes.h>
#include <string.h>

/* ---------------------------------------------------- beginning of a call */

int perf__op_begin(struct perf__op *op, perf_cache *cache, const char *ns, const char *user,
                   const void *key, size_t key_len)
{
    return perf__op_begin_inline(op, cache, ns, user, key, key_len);
}

int perf__op_refuse_key(const void *key, size_t key_len)
{
    return key ? perf__check_len("key", key_len, 1, PERF__KEY_MAX)
               : perf__fail(PERF_EINVAL, "key is NULL; give 1 to %d bytes", PERF__KEY_MAX);
}

void perf__op_store_key(const struct perf__op *op, uint8_t id[PERF_STORE_ID_SIZE],
                        perf_store_key *key)
{
    struct perf__sip sip = op->ns->store_sip;
    perf__sip_bytes(&sip, op->key.user, op->key.user_len);
    perf__sip_bytes(&sip, op->key.key, op->key.key_len);
    perf__store64(id, perf__sip_low(&sip));
    perf__store64(id + 8, perf__sip_high(&sip));
    *key = (perf_store_key){id,
                            {op->ns->name, op->ns->name_len},
                            {op->key.user, op->key.user_len},
                            {op->key.key, op->key.key_len}};
}

/* ------------------------------------------------------ memory's questions */

static bool is_dead(void *ctx, const struct perf__entry_view *entry)
{
    perf_cache *cache = ctx;
    const struct perf__namespace *ns = perf__namespace_by_id(&cache->namespaces, entry->key.ns);
    struct perf__marked marked = {{ns->name, ns->name_len},
                                  {entry->key.user, entry->key.user_len},
                                  {entry->key.key, entry->key.key_len},
                                  {entry->tags, entry->tags_len},
                                  entry->stamp};
    return perf__marks_dead(&cache->marks, &marked);
}

static void has_left(void *ctx, int reason, const struct perf__entry_view *entry)
{
    perf_cache *cache = ctx;
    const struct perf__namespace *ns = perf__namespace_by_id(&cache->namespaces, entry->key.ns);
    if (entry->kind == PERF__ENTRY_VALUE)
        perf__events_push(&cache->events, reason, ns->name, entry);
}

/* -------------------------------------------------------------------- open */

static int open_tier(perf_cache *cache, const perf_tier_options *options)
{
    struct perf__tier **tier = &cache->tiers[cache->tier_count];
    int rc = perf__tier_open(options, &cache->host, cache->background, &cache->marks, tier);
    if (!rc)
        cache->tier_count++;
    return rc;
}

static int open_tiers(perf_cache *cache, const perf_cache_options *options)
{
    int rc = PERF_OK;
    if (options->durable_path) {
        perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
        tier.backend = "sqlite";
        tier.location = options->durable_path;
        tier.max_bytes = options->durable_max_bytes;
        return open_tier(cache, &tier);
    }
    /* The array's elements may be of an older or newer size than ours: step by theirs. */
    const char *at = (const char *)options->tiers;
    for (size_t i = 0; i < options->tier_count && !rc; i++) {
        perf_tier_options tier;
        size_t size;
        memcpy(&size, at, sizeof size);
        if (!(rc = perf__options_take("perf_tier_options", at, &tier, sizeof tier)))
            rc = open_tier(cache, &tier);
        at += size;
    }
    return rc;
}

static int check_options(perf_cache_options *o)
{
    int rc;
    if (!o->memory_max_bytes)
        o->memory_max_bytes = 64u << 20;
    if (!o->workers)
        o->workers = 2;
    if (!o->max_namespaces)
        o->max_namespaces = 1024;
    if ((rc = perf__check_range("memory_max_bytes", (int64_t)o->memory_max_bytes, 1 << 20,
                                (int64_t)1 << 46)) ||
        (rc = perf__check_range("memory_shards", (int64_t)o->memory_shards, 0, 256)) ||
        (rc = perf__check_range("workers", (int64_t)o->workers, 1, 64)) ||
        (rc = perf__check_range("max_namespaces", (int64_t)o->max_namespaces, 1, 65535)) ||
        (rc = perf__check_range("tier_count", (int64_t)o->tier_count, 0, PERF__TIERS_MAX)))
        return rc;
    if (o->memory_shards & (o->memory_shards - 1))
        return perf__fail(PERF_EINVAL, "memory_shards is %" PRIu64 "; give a power of two",
                          o->memory_shards);
    if (o->tier_count && !o->tiers)
        return perf__fail(PERF_EINVAL, "tiers is NULL; give tier_count tiers");
    if (o->durable_path && o->tier_count)
        return perf__fail(PERF_EINVAL, "durable_path and tiers are both set; give one of them");
    if (o->memory_max_entries && o->memory_max_weight)
        return perf__fail(PERF_EINVAL,
                          "memory_max_entries and memory_max_weight are both set; give one of "
                          "them");
    return PERF_OK;
}

static void cache_free(perf_cache *cache)
{
    perf_allocator allocator = cache->host.allocator;
    perf__coherence_destroy(&cache->coherence);
    if (cache->memory)
        perf__memory_close(cache->memory);
    perf__events_destroy(&cache->events);
    perf__flights_destroy(&cache->flights);
    perf__marks_destroy(&cache->marks);
    perf__namespaces_destroy(&cache->namespaces);
    for (size_t i = 0; i < PERF__ORDER_LOCKS; i++)
        pthread_mutex_destroy(&cache->order[i]);
    perf__free(&allocator, cache);
}

int perf_cache_open(const perf_cache_options *given, perf_cache **out)
{
    perf_cache_options options;
    struct perf__host host;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the handle");
    if ((rc = perf__options_take("perf_cache_options", given, &options, sizeof options)) ||
        (rc = check_options(&options)) || (rc = perf__host_take(options.host, &host)) ||
        (rc = perf__fork_arm()))
        return rc;
    perf_cache *cache = perf__calloc(&host.allocator, 1, sizeof *cache);
    if (!cache)
        return perf__fail_nomem("a cache");
    cache->host = host;
    cache->host.view = (perf_host){sizeof(perf_host), &cache->host.allocator, &cache->host.clock,
                                   &cache->host.log};
    cache->fork_generation = perf__fork_generation;
    cache->memory_max_weight = options.memory_max_weight;
    cache->secret = perf__hash_random_key();
    for (size_t i = 0; i < PERF__ORDER_LOCKS; i++)
        pthread_mutex_init(&cache->order[i], NULL); /* cannot fail with these attributes */
    const struct perf__memory_config memory = {
        .host = &cache->host,
        .max_bytes = options.memory_max_bytes,
        .max_entries = options.memory_max_entries,
        .max_weight = options.memory_max_weight,
        .shards = options.memory_shards,
        .max_namespaces = (uint32_t)options.max_namespaces,
        .ctx = cache,
        .dead = is_dead,
        .left = has_left,
    };
    if ((rc = perf__namespaces_init(&cache->namespaces, &cache->host.allocator, cache->secret,
                                    (uint32_t)options.max_namespaces)) ||
        (rc = perf__marks_init(&cache->marks, &cache->host, cache->secret)) ||
        (rc = perf__flights_init(&cache->flights, &cache->host)) ||
        (rc = perf__events_init(&cache->events, &cache->host)) ||
        (rc = perf__memory_open(&memory, &cache->memory)) ||
        (rc = perf__background_open(&cache->host, options.workers, &cache->background)) ||
        (rc = open_tiers(cache, &options)) ||
        (rc = perf__coherence_open(cache, options.coherence_ms)))
        goto failed;
    *out = cache;
    return PERF_OK;

failed:
    perf__coherence_close(cache);
    perf__background_close(cache->background);
    for (size_t i = 0; i < cache->tier_count; i++)
        (void)!perf__tier_close(cache->tiers[i]);
    cache_free(cache);
    return rc;
}

int perf_cache_close(perf_cache *cache)
{
    if (!cache)
        return PERF_OK;
    perf__cache_forget_default(cache);
    if (cache->fork_generation != perf__fork_generation) {
        /* A child: threads and locks are the parent's, and SQLite forbids touching its handles.
         * What can be freed without either is freed. */
        for (size_t i = 0; i < cache->tier_count; i++)
            perf__tier_abandon(cache->tiers[i]);
        perf__background_abandon(cache->background);
        cache_free(cache);
        return PERF_OK;
    }
    perf__flights_close(&cache->flights);
    perf__coherence_close(cache);
    perf__background_close(cache->background);
    int first = PERF_OK;
    for (size_t i = 0; i < cache->tier_count; i++) {
        int rc = perf__tier_close(cache->tiers[i]);
        if (rc && !first)
            first = rc;
    }
    cache_free(cache);
    return first;
}

/* ------------------------------------------------------------------ upkeep */

/* Does the sweeps of the tiers, by one thread at a time. */
static int64_t sweep_tiers(perf_cache *cache, size_t budget)
{
    int64_t done = 0, idle = 0;
    if (!atomic_compare_exchange_strong(&cache->maintaining, &idle, 1))
        return 0;
    int64_t wall = perf__realtime_coarse_ms(&cache->host.clock);
    for (size_t i = 0; i < cache->tier_count; i++)
        done += (int64_t)perf__tier_sweep(cache->tiers[i], wall, budget);
    atomic_store(&cache->maintaining, 0);
    return done;
}

static int64_t sweep_memory(perf_cache *cache, int64_t now, int64_t budget)
{
    bool swept_all = false;
    int64_t last = perf__marks_last(&cache->marks);
    int64_t done = perf__memory_maintain(cache->memory, now, budget, &swept_all);
    /* The mark may be newer than the sweep, but then swept_all is false. */
    if (swept_all && last && !cache->tier_count && last == perf__marks_last(&cache->marks))
        perf__marks_forget(&cache->marks, last);
    return done;
}

void perf__cache_upkeep_steps(perf_cache *cache)
{
    (void)!sweep_memory(cache, perf__cache_now(cache), 32);
    if (cache->tier_count && !(perf__thread_random() % 16))
        (void)!sweep_tiers(cache, 64);
}

int64_t perf_cache_maintain(perf_cache *cache, int64_t budget)
{
    if (perf__cache_check(cache) || budget <= 0)
        return 0;
    int64_t done = sweep_memory(cache, perf__cache_now(cache), budget);
    (void)perf__coherence_tick(cache);
    perf__coherence_ask(cache);
    if (cache->tier_count)
        (void)perf__flights_renew(cache, 1);
    if (cache->tier_count && done < budget)
        done += sweep_tiers(cache, (size_t)(budget - done));
    perf__events_deliver(&cache->events);
    return done;
}

int perf_cache_flush(perf_cache *cache)
{
    int first = perf__cache_check(cache);
    for (size_t i = 0; !first && i < cache->tier_count; i++)
        first = perf__tier_flush(cache->tiers[i]);
    return first;
}

/* ---------------------------------------------------------- configuration */

int perf_cache_configure_namespace(perf_cache *cache, const char *ns,
                                   const perf_namespace_options *given)
{
    perf_namespace_options o;
    struct perf__namespace *space;
    const int64_t forever = 1000LL * 365 * 24 * 3600 * 1000;
    int rc = perf__cache_check(cache);
    if (rc || (rc = perf__options_take("perf_namespace_options", given, &o, sizeof o)) ||
        (rc = perf__check_range("ttl_ms", o.ttl_ms, PERF_TTL_FOREVER, forever)) ||
        (rc = perf__check_range("jitter_percent", o.jitter_percent, 0, 50)) ||
        (rc = perf__check_range("stale_ms", o.stale_ms, 0, forever)) ||
        (rc = perf__check_range("negative_ttl_ms", o.negative_ttl_ms, 0, forever)) ||
        (rc = perf__check_range("error_ttl_ms", o.error_ttl_ms, 0, forever)) ||
        (rc = perf__check_range("soft_timeout_ms", o.soft_timeout_ms, 0, forever)) ||
        (rc = perf__check_range("hard_timeout_ms", o.hard_timeout_ms, 0, forever)) ||
        (rc = perf__check_range("early_refresh_permille", o.early_refresh_permille, 0, 100000)) ||
        (rc = perf__check_range("refresh_ahead_percent", o.refresh_ahead_percent, 0, 99)) ||
        (rc = perf__check_range("lease_ms", o.lease_ms, -1, forever)))
        return rc;
    uint64_t known = ((uint64_t)2 << cache->tier_count) - 1;
    if (o.tiers && o.tiers != UINT64_MAX && o.tiers & ~known)
        return perf__fail(PERF_EINVAL,
                          "tiers is 0x%" PRIx64 "; this cache has tiers 0x%" PRIx64
                          " (bit 0 memory, bit 1 the first below)",
                          o.tiers, known);
    if ((rc = perf__namespace_get(&cache->namespaces, ns, &space)))
        return rc;
    return perf__namespace_set_policy(&cache->namespaces, space, &o);
}
