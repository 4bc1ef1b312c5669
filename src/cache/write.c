/* SPDX-License-Identifier: MIT */
/*
 * write.c - a set's way down: memory and the tiers below, in one order for all.
 *
 * Memory and the tiers' queues take a write under one of a few order locks
 * chosen by the key, so that both see a key's writes in the same order; waiting
 * for the tiers' commit happens after it. Any thread.
 */
#include "cache_impl.h"
#include "lease.h"
#include "memory_plain.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int tags_pack(const char *const *tags, size_t count, uint8_t *buf, uint32_t *len)
{
    uint32_t at = 0;
    if (count > PERF__TAGS_MAX)
        return perf__fail(PERF_EINVAL, "tag_count is %zu; give at most %d", count, PERF__TAGS_MAX);
    if (count && !tags)
        return perf__fail(PERF_EINVAL, "tags is NULL; give tag_count names");
    for (size_t i = 0; i < count; i++) {
        size_t tag_len = tags[i] ? strnlen(tags[i], PERF__NAME_MAX + 1) : 0;
        int rc = perf__check_len("tag", tag_len, 1, PERF__NAME_MAX);
        if (rc)
            return rc;
        buf[at] = (uint8_t)tag_len;
        memcpy(buf + at + 1, tags[i], tag_len);
        at += 1 + (uint32_t)tag_len;
    }
    *len = at;
    return PERF_OK;
}

int perf__write_prepare(const struct perf__op *op, int64_t now, const perf_set_options *given,
                        struct perf__write *write, uint8_t tag_buf[PERF__TAG_BYTES])
{
    perf_set_options options;
    struct perf__life life;
    int rc;
    *write = (struct perf__write){.weight = 1, .tags = tag_buf};
    if ((rc = perf__options_take("perf_set_options", given, &options, sizeof options)) ||
        (rc = perf__check_range("mode", options.mode, PERF_SET_ALWAYS, PERF_SET_IF_VERSION)) ||
        (rc = perf__life_of(op, now, options.ttl_ms, options.stale_ms, &life)) ||
        (rc = tags_pack(options.tags, options.tag_count, tag_buf, &write->tags_len)))
        return rc;
    write->fresh_until = life.fresh_until;
    write->dead_at = life.dead_at;
    write->stamp = perf__marks_stamp(&op->cache->marks);
    write->mode = options.mode;
    write->version = options.version;
    if (options.weight) {
        uint64_t max = op->cache->memory_max_weight;
        if (max && options.weight > max) {
            perf__count(op, PERF__REJECTIONS, 1);
            return perf__fail(PERF_ETOOBIG,
                              "weight is %" PRIu64 "; the cache's memory_max_weight is %" PRIu64,
                              options.weight, max);
        }
        write->weight = options.weight;
    }
    return PERF_OK;
}

/* Queues one change of a key for every tier of the namespace. Under the key's order lock. */
static void submit(const struct perf__op *op, perf_store_op *store_op, const uint64_t *leases,
                   uint64_t *tickets, int *statuses)
{
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        statuses[i] = PERF_MISS; /* not asked */
        if (!perf__op_uses_tier(op, i))
            continue;
        store_op->lease = leases ? leases[i] : 0;
        statuses[i] = perf__tier_submit(op->cache->tiers[i], store_op, &tickets[i]);
        if (statuses[i] == PERF_ENOMEM && store_op->kind == PERF_STORE_SET) {
            /* The tier must not go on with the older record; forgetting takes less memory. */
            perf_store_op forget = {.kind = PERF_STORE_REMOVE, .key = store_op->key};
            (void)!perf__tier_submit(op->cache->tiers[i], &forget, &tickets[i]);
        }
    }
}

static int wait_for(const struct perf__op *op, const uint64_t *tickets, const int *statuses)
{
    int first = PERF_OK;
    for (size_t i = 0; i < op->cache->tier_count; i++) {
        int rc = statuses[i] == PERF_OK ? perf__tier_wait(op->cache->tiers[i], tickets[i])
                 : statuses[i] < 0      ? statuses[i]
                                        : PERF_OK;
        if (rc && !first)
            first = rc;
    }
    return first;
}

/* The envelope of a write, in memory of the caller's to free. NULL with *rc set. */
static void *seal(const struct perf__op *op, int64_t now, const struct perf__write *write,
                  perf_store_op *store_op, int *rc)
{
    const struct perf__record record = {
        .ns = {op->ns->name, op->ns->name_len},
        .user = {op->key.user, op->key.user_len},
        .key = {op->key.key, op->key.key_len},
        .value = {write->data, write->len},
        .tags = {write->tags, write->tags_len},
        .stamp_ms = write->stamp,
        .fresh_until_ms = perf__life_to_wall(op->cache, now, write->fresh_until),
        .dead_at_ms = perf__life_to_wall(op->cache, now, write->dead_at),
        .load_ms = write->load_ms,
        .kind = write->kind,
    };
    size_t size = perf__envelope_size(&record);
    if (!size) {
        *rc = perf__fail(PERF_ETOOBIG, "value is %zu bytes long; give at most 1 GiB", write->len);
        return NULL;
    }
    void *envelope = perf__alloc(&op->cache->host.allocator, size);
    if (!envelope) {
        *rc = perf__fail_nomem("a record for the tiers below");
        return NULL;
    }
    perf__envelope_encode(&record, envelope);
    store_op->kind = PERF_STORE_SET;
    store_op->record = (perf_bytes){envelope, size};
    store_op->expire_ms = record.dead_at_ms;
    return envelope;
}

/* The part in memory. A value too large for it may still live below. */
static int put_memory(const struct perf__op *op, int64_t now, const struct perf__write *given,
                      uint64_t *version)
{
    perf_cache *cache = op->cache;
    struct perf__write own = *given, *write = &own;
    perf__coherence_cap(cache, op->policy->tiers, SIZE_MAX, now, &own.fresh_until, &own.dead_at);
    if (!perf__op_uses_memory(op)) {
        if (write->mode != PERF_SET_ALWAYS)
            return perf__fail(PERF_EUNSUPPORTED,
                              "namespace '%s' does not use memory, where conditions are decided; "
                              "add bit 0 to its tiers",
                              op->ns->name);
        if (write->watch && atomic_load_explicit(&write->watch->moved, memory_order_acquire))
            return PERF_ECONFLICT;
        (void)!perf__memory_delete(cache->memory, &op->key,
                                   PERF_EVENT_DELETED); /* tells those who watch the key */
        return PERF_OK;
    }
    int rc = perf__memory_put(cache->memory, &op->key, now, write, version);
    if (rc == PERF_ETOOBIG) {
        perf__count(op, PERF__REJECTIONS, 1);
        for (size_t i = 0; i < cache->tier_count; i++)
            if (perf__op_uses_tier(op, i) && write->kind == PERF__ENTRY_VALUE)
                return PERF_OK;
    }
    return rc;
}

int perf__write_all(const struct perf__op *op, int64_t now, const struct perf__write *write,
                    uint64_t *version)
{
    perf_cache *cache = op->cache;
    uint64_t max = op->policy->options.max_value_bytes;
    uint64_t own_version = 0;
    int rc = PERF_OK;
    if (!version)
        version = &own_version;
    if (max && write->len > max) {
        perf__count(op, PERF__REJECTIONS, 1);
        if (write->mode == PERF_SET_ALWAYS && !write->watch)
            (void)!perf__delete_all(op); /* the caller has overwritten it: nothing stale */
        return perf__fail(PERF_ETOOBIG, "value is %zu bytes long; namespace '%s' takes %" PRIu64,
                          write->len, op->ns->name, max);
    }
    if (!cache->tier_count) {
        rc = put_memory(op, now, write, version);
    } else {
        perf_store_op store_op = {0};
        uint8_t id[PERF_STORE_ID_SIZE];
        uint64_t tickets[PERF__TIERS_MAX];
        int statuses[PERF__TIERS_MAX];
        perf__op_store_key(op, id, &store_op.key);
        void *envelope = seal(op, now, write, &store_op, &rc);
        if (!envelope) {
            if (rc == PERF_ENOMEM && write->mode == PERF_SET_ALWAYS && !write->watch)
                (void)!perf__delete_all(op); /* the caller has overwritten it: nothing stale */
            return rc;
        }
        pthread_mutex_t *order = &cache->order[op->key.hash % PERF__ORDER_LOCKS];
        pthread_mutex_lock(order);
        rc = put_memory(op, now, write, version);
        bool lost = rc == PERF_ENOMEM; /* memory dropped the old value, so the tiers must too */
        if (lost)
            store_op = (perf_store_op){.kind = PERF_STORE_REMOVE, .key = store_op.key};
        if (rc == PERF_OK || lost)
            submit(op, &store_op, write->leases, tickets, statuses);
        pthread_mutex_unlock(order);
        perf__free(&cache->host.allocator, envelope);
        if (rc == PERF_OK || lost) {
            int tier_rc = wait_for(op, tickets, statuses);
            rc = rc ? rc : tier_rc;
        }
    }
    perf__cache_upkeep(cache);
    perf__events_deliver(&cache->events);
    return rc;
}

int perf__write_negative(const struct perf__op *op, int64_t now, const struct perf__write *write,
                         bool remove_below)
{
    perf_cache *cache = op->cache;
    uint64_t version, tickets[PERF__TIERS_MAX];
    int statuses[PERF__TIERS_MAX], rc;
    if (!cache->tier_count || !remove_below) {
        rc = put_memory(op, now, write, &version);
    } else {
        perf_store_op store_op = {.kind = PERF_STORE_REMOVE};
        uint8_t id[PERF_STORE_ID_SIZE];
        perf__op_store_key(op, id, &store_op.key);
        pthread_mutex_t *order = &cache->order[op->key.hash % PERF__ORDER_LOCKS];
        pthread_mutex_lock(order);
        rc = put_memory(op, now, write, &version);
        if (rc != PERF_ECONFLICT) /* a newer write has come */
            submit(op, &store_op, NULL, tickets, statuses);
        pthread_mutex_unlock(order);
        if (rc != PERF_ECONFLICT) {
            int tier_rc = wait_for(op, tickets, statuses);
            rc = rc ? rc : tier_rc;
        }
    }
    perf__cache_upkeep(cache);
    return rc;
}

/* ------------------------------------------------------------ public calls */

/*
 * Memory decides conditions by what it holds, and it holds stale values and remembered
 * failures too, which to a caller are absent: a condition on one of those becomes a
 * condition on its version.
 */
static int resolve_condition(const struct perf__op *op, int64_t now, struct perf__write *write)
{
    struct perf__hit hit;
    size_t len;
    int status;
    if (write->mode == PERF_SET_ALWAYS)
        return PERF_OK;
    perf__promote(op, now);
    enum perf__state state =
        perf__memory_lookup(op, &(struct perf__out){.len = &len}, &now, &hit, &status);
    if (state != PERF__STALE && state != PERF__NEGATIVE)
        return PERF_OK;
    if (write->mode != PERF_SET_IF_ABSENT)
        return PERF_MISS;
    write->mode = PERF_SET_IF_VERSION;
    write->version = hit.version;
    return PERF_OK;
}

/* The common end of set and put. */
static int put_prepared(const struct perf__op *op, int64_t now, struct perf__write *write,
                        uint64_t *version)
{
    bool add = write->mode == PERF_SET_IF_ABSENT;
    int rc = resolve_condition(op, now, write);
    if (rc)
        return rc;
    rc = perf__write_all(op, now, write, version);
    if (add && rc == PERF_ECONFLICT)
        rc = PERF_EEXISTS;
    if (rc == PERF_OK)
        perf__count(op, PERF__SETS, 1);
    return rc;
}

static int begin_put(struct perf__op *op, perf_cache *cache, const char *ns, const char *user,
                     const void *key, size_t key_len, const void *data, size_t len)
{
    int rc = perf__op_begin_inline(op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!data && len)
        return perf__fail(PERF_EINVAL, "data is NULL; give %zu bytes", len);
    __builtin_prefetch(perf__memory_spot(cache->memory, op->key.hash).bucket);
    return PERF_OK;
}

/* The usual set, of a value without an end over one of the same length, in memory alone. False:
 * nothing was done. */
static bool overwrite_plain(perf_cache *cache, const char *ns, const char *user, const void *key,
                            size_t key_len, const void *data, size_t len, int64_t ttl_ms)
{
    struct perf__namespace *space = perf__plain_namespace(cache, ns, user);
    int thread = perf__thread_slot();
    if (!space || thread <= 0 || cache->tier_count || !key || key_len - 1 >= PERF__NH_MAX ||
        !data || len - 1 >= UINT16_MAX || ttl_ms > 0 || ttl_ms < PERF_TTL_FOREVER)
        return false;
    const perf_namespace_options *policy =
        &atomic_load_explicit(&space->policy, memory_order_acquire)->options;
    if ((ttl_ms == PERF_TTL_DEFAULT && policy->ttl_ms > 0) ||
        (policy->max_value_bytes && len > policy->max_value_bytes))
        return false;
    struct perf__plain want = {.hash =
                                   perf__nh(&cache->namespaces.nh, key, key_len, space->nh_offset),
                               .key = key,
                               .key_len = key_len,
                               .header = space->header | key_len,
                               .buf = (void *)(uintptr_t)data, /* only read */
                               .cap = len,
                               .thread = thread};
    if (!perf__memory_overwrite_plain(cache->memory, &want, perf__marks_stamp_again(&cache->marks)))
        return false;
    perf__counters_add_at(&space->counts, thread, PERF__SETS, 1);
    perf__cache_upkeep(cache);
    perf__events_deliver(&cache->events);
    return true;
}

int perf_cache_set(perf_cache *cache, const char *ns, const char *user, const void *key,
                   size_t key_len, const void *data, size_t len, int64_t ttl_ms)
{
    struct perf__op op;
    struct perf__life life;
    if (overwrite_plain(cache, ns, user, key, key_len, data, len, ttl_ms))
        return PERF_OK;
    int rc = begin_put(&op, cache, ns, user, key, key_len, data, len);
    if (rc)
        return rc;
    int64_t now = perf__cache_now(cache);
    if ((rc = perf__life_of(&op, now, ttl_ms, 0, &life)))
        return rc;
    struct perf__write write = {.data = data,
                                .len = len,
                                .fresh_until = life.fresh_until,
                                .dead_at = life.dead_at,
                                .stamp = perf__marks_stamp(&cache->marks),
                                .weight = 1};
    return put_prepared(&op, now, &write, NULL);
}

int perf_cache_put(perf_cache *cache, const char *ns, const char *user, const void *key,
                   size_t key_len, const void *data, size_t len, const perf_set_options *options,
                   uint64_t *version)
{
    struct perf__op op;
    struct perf__write write;
    uint8_t tag_buf[PERF__TAG_BYTES];
    int rc = begin_put(&op, cache, ns, user, key, key_len, data, len);
    if (rc)
        return rc;
    int64_t now = perf__cache_now(cache);
    if ((rc = perf__write_prepare(&op, now, options, &write, tag_buf))) {
        if (rc == PERF_ETOOBIG && write.mode == PERF_SET_ALWAYS)
            (void)!perf__delete_all(&op);
        return rc;
    }
    write.data = data;
    write.len = len;
    return put_prepared(&op, now, &write, version);
}

int perf__delete_all(const struct perf__op *op)
{
    perf_cache *cache = op->cache;
    if (!cache->tier_count)
        return perf__memory_delete(cache->memory, &op->key, PERF_EVENT_DELETED);
    perf_store_op store_op = {.kind = PERF_STORE_REMOVE};
    uint8_t id[PERF_STORE_ID_SIZE];
    uint64_t tickets[PERF__TIERS_MAX];
    int statuses[PERF__TIERS_MAX];
    perf__op_store_key(op, id, &store_op.key);
    pthread_mutex_t *order = &cache->order[op->key.hash % PERF__ORDER_LOCKS];
    pthread_mutex_lock(order);
    int rc = perf__memory_delete(cache->memory, &op->key, PERF_EVENT_DELETED);
    submit(op, &store_op, NULL, tickets, statuses);
    pthread_mutex_unlock(order);
    int tier_rc = wait_for(op, tickets, statuses);
    return tier_rc ? tier_rc : rc;
}

int perf_cache_delete(perf_cache *cache, const char *ns, const char *user, const void *key,
                      size_t key_len)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    rc = perf__delete_all(&op);
    perf__count(&op, PERF__DELETES, 1);
    perf__events_deliver(&cache->events);
    return rc;
}

/* Gives the record of a key in one tier a new life. Under the key's order lock. */
static int touch_tier(const struct perf__op *op, int64_t now, const struct perf__life *life,
                      size_t i, uint64_t *ticket)
{
    perf_cache *cache = op->cache;
    struct perf__tier *tier = cache->tiers[i];
    struct perf__leases leases = {{0}};
    perf_store_reply reply = {.allocator = &cache->host.allocator};
    struct perf__record record;
    perf_store_op store_op = {.kind = PERF_STORE_SET};
    uint8_t id[PERF_STORE_ID_SIZE];
    perf__op_store_key(op, id, &store_op.key);
    void *envelope = NULL;
    /* Another process may write between our reading and writing: its value must stay. */
    if (perf__lease_wanted(op, i) && perf__lease_take(op, i, &leases))
        return PERF_MISS;
    store_op.lease = leases.token[i];
    int rc = perf__tier_get(tier, &store_op.key, &reply);
    if (rc || perf__envelope_decode(reply.data, reply.len, &record))
        goto out;
    record.fresh_until_ms = perf__life_to_wall(cache, now, life->fresh_until);
    record.dead_at_ms = perf__life_to_wall(cache, now, life->dead_at);
    size_t size = perf__envelope_size(&record);
    envelope = perf__alloc(&cache->host.allocator, size);
    if (!envelope) {
        rc = perf__fail_nomem("a record for the tiers below");
        goto out;
    }
    perf__envelope_encode(&record, envelope);
    store_op.record = (perf_bytes){envelope, size};
    store_op.expire_ms = record.dead_at_ms;
    rc = perf__tier_submit(tier, &store_op, ticket);
    leases.token[i] = 0;
out:
    perf__leases_end(op, &leases);
    perf__free(&cache->host.allocator, envelope);
    perf__reply_free(&reply);
    return rc;
}

int perf_cache_touch(perf_cache *cache, const char *ns, const char *user, const void *key,
                     size_t key_len, int64_t ttl_ms)
{
    struct perf__op op;
    struct perf__life life;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    int64_t now = perf__cache_now(cache);
    if ((rc = perf__life_of(&op, now, ttl_ms, 0, &life)))
        return rc;
    perf__promote(&op, now);
    struct perf__hit hit;
    size_t len;
    int status;
    enum perf__state state =
        perf__memory_lookup(&op, &(struct perf__out){.len = &len}, &now, &hit, &status);
    if (state == PERF__NEGATIVE || state == PERF__STALE)
        return PERF_MISS;
    uint64_t tickets[PERF__TIERS_MAX];
    int statuses[PERF__TIERS_MAX];
    pthread_mutex_t *order = &cache->order[op.key.hash % PERF__ORDER_LOCKS];
    pthread_mutex_lock(order);
    struct perf__life here = life;
    perf__coherence_cap(cache, op.policy->tiers, SIZE_MAX, now, &here.fresh_until, &here.dead_at);
    rc = perf__memory_touch(cache->memory, &op.key, now, here.fresh_until, here.dead_at);
    for (size_t i = 0; i < cache->tier_count; i++)
        statuses[i] =
            perf__op_uses_tier(&op, i) ? touch_tier(&op, now, &life, i, &tickets[i]) : PERF_MISS;
    pthread_mutex_unlock(order);
    for (size_t i = 0; i < cache->tier_count; i++)
        if (statuses[i] == PERF_OK && rc == PERF_MISS)
            rc = PERF_OK; /* too large for memory, but alive below */
    int tier_rc = wait_for(&op, tickets, statuses);
    perf__events_deliver(&cache->events);
    return tier_rc ? tier_rc : rc;
}

/* A decimal int64 in len bytes, and nothing else. */
static bool parse_decimal(const char *text, size_t len, int64_t *number)
{
    bool negative = len && *text == '-';
    int64_t n = 0;
    if (len == (size_t)negative)
        return false;
    for (size_t i = negative; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_sub_overflow(n, text[i] - '0', &n)) /* downwards: reaches INT64_MIN */
            return false;
    }
    if (!negative && n == INT64_MIN)
        return false;
    *number = negative ? n : -n;
    return true;
}

int perf_cache_incr(perf_cache *cache, const char *ns, const char *user, const void *key,
                    size_t key_len, int64_t delta, int64_t initial, int64_t ttl_ms, int64_t *result)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    do {
        int64_t now = perf__cache_now(cache), number;
        char text[24];
        size_t len;
        struct perf__hit hit;
        struct perf__write write;
        uint8_t tag_buf[PERF__TAG_BYTES];
        int status;
        perf_set_options options = PERF_SET_OPTIONS_INIT;
        options.ttl_ms = ttl_ms;
        if ((rc = perf__write_prepare(&op, now, &options, &write, tag_buf)))
            return rc;
        perf__promote(&op, now);
        struct perf__out out = {.buf = text, .cap = sizeof text, .len = &len};
        enum perf__state state = perf__memory_lookup(&op, &out, &now, &hit, &status);
        if (state == PERF__FRESH) {
            if (status != PERF_OK || !parse_decimal(text, len, &number))
                return perf__fail(PERF_ECONFLICT, "the value is not a decimal number; delete it "
                                                  "or use another key");
            if (__builtin_add_overflow(number, delta, &number))
                return perf__fail(PERF_EINVAL, "delta is %" PRId64 "; the sum would overflow",
                                  delta);
            write.mode = PERF_SET_IF_VERSION;
            write.version = hit.version;
            write.fresh_until = hit.fresh_until;
            write.dead_at = hit.dead_at;
        } else {
            number = initial;
            write.mode = state == PERF__ABSENT ? PERF_SET_IF_ABSENT : PERF_SET_IF_VERSION;
            write.version = hit.version;
        }
        write.data = text;
        write.len = (size_t)snprintf(text, sizeof text, "%" PRId64, number);
        rc = perf__write_all(&op, now, &write, NULL);
        if (rc == PERF_OK) {
            perf__count(&op, PERF__SETS, 1);
            if (result)
                *result = number;
        }
    } while (rc == PERF_ECONFLICT || rc == PERF_EEXISTS || rc == PERF_MISS);
    return rc;
}
