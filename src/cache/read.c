/* SPDX-License-Identifier: MIT */
/*
 * read.c - a get's way down: memory, then the tiers below, and back up with
 * what was found there. Any thread; a memory hit takes no lock.
 */
#include "cache_impl.h"
#include "lease.h"
#include "memory_plain.h"

#include <string.h>

static int64_t ttl_left(const struct perf__hit *hit, int64_t now)
{
    if (!perf__hit_ends(hit))
        return PERF_TTL_FOREVER;
    return hit->fresh_until > now ? hit->fresh_until - now : 0;
}

static void describe(perf_value *value, const struct perf__hit *hit, int64_t now)
{
    value->version = hit->version;
    value->ttl_ms = ttl_left(hit, now);
    value->stale = value->ttl_ms == 0;
}

int perf__out_give(const struct perf__op *op, const struct perf__out *out, const void *data,
                   size_t len, const struct perf__hit *hit, int64_t now)
{
    if (!out->value) {
        *out->len = len;
        if (len > out->cap)
            return PERF_ETOOSMALL;
        if (len)
            memcpy(out->buf, data, len);
        return PERF_OK;
    }
    perf_value *value = perf__value_new(&op->cache->host.allocator, len);
    if (!value)
        return perf__fail_nomem("a value");
    if (len)
        memcpy(value->bytes, data, len);
    describe(value, hit, now);
    *out->value = value;
    return PERF_OK;
}

/* What a negative entry holds: the status that the loader returned. */
static int negative_status(const void *data, size_t len)
{
    return len == sizeof(uint32_t) ? (int)perf__load32(data) : PERF_MISS;
}

enum perf__state perf__memory_lookup(const struct perf__op *op, const struct perf__out *out,
                                     int64_t *now, struct perf__hit *hit, int *status)
{
    perf_cache *cache = op->cache;
    if (!perf__op_uses_memory(op)) {
        *status = PERF_MISS;
        return PERF__ABSENT;
    }
    /* The tier takes 0 as "before every end": whether the entry has ended is asked below, and
     * only for those that can, since reading the clock costs as much as a lookup. */
    perf_value *value = NULL;
    int rc = out->value ? perf__memory_get(cache->memory, &op->key, *now, &value, hit)
                        : perf__memory_get_copy(cache->memory, &op->key, *now, out->buf, out->cap,
                                                out->len, hit);
    *status = rc;
    if (rc != PERF_OK && rc != PERF_ETOOSMALL)
        return rc == PERF_MISS ? PERF__ABSENT : PERF__FRESH;
    enum perf__state state = PERF__FRESH;
    if (perf__hit_ends(hit)) {
        if (!*now)
            *now = perf__cache_now(cache);
        state = *now >= hit->dead_at       ? PERF__ABSENT
                : *now >= hit->fresh_until ? PERF__STALE
                                           : PERF__FRESH;
    }
    if (hit->kind == PERF__ENTRY_NEGATIVE && state != PERF__ABSENT) {
        uint8_t bytes[sizeof(uint32_t)];
        size_t len = value ? value->len : *out->len;
        if (value) {
            *status = negative_status(value->data, len);
        } else if (rc == PERF_OK) {
            *status = negative_status(out->buf, len);
        } else { /* the caller's buffer is smaller than a status: read it once more */
            rc = perf__memory_get_copy(cache->memory, &op->key, *now, bytes, sizeof bytes, &len,
                                       hit);
            *status = rc ? PERF_MISS : negative_status(bytes, len);
        }
        state = PERF__NEGATIVE;
    }
    if (value) {
        if (state == PERF__FRESH || state == PERF__STALE) {
            describe(value, hit, *now);
            *out->value = value;
        } else {
            perf_value_release(value);
        }
    }
    return state;
}

/* ------------------------------------------------------------ tiers below */

void perf__found_free(struct perf__found *found)
{
    perf__reply_free(&found->reply);
}

static int disbelieve(const char **why, const char *word)
{
    *why = word;
    return PERF_MISS;
}

/* The right key, alive, not dead by a mark? */
int perf__read_judge(const struct perf__op *op, int64_t now, size_t i, struct perf__found *found,
                     const char **why)
{
    perf_cache *cache = op->cache;
    struct perf__record *record = &found->record;
    if (perf__envelope_decode(found->reply.data, found->reply.len, record)) {
        perf__count(op, PERF__DAMAGED, 1);
        perf__tier_count_damaged(cache->tiers[i]);
        return disbelieve(why, "damaged");
    }
    const struct perf__key *key = &op->key;
    if (record->ns.len != op->ns->name_len ||
        memcmp(record->ns.data, op->ns->name, record->ns.len) ||
        record->user.len != key->user_len ||
        (key->user_len && memcmp(record->user.data, key->user, key->user_len)) ||
        record->key.len != key->key_len || memcmp(record->key.data, key->key, key->key_len)) {
        perf__count(op, PERF__COLLISIONS, 1);
        return disbelieve(why, "of another key");
    }
    int64_t wall = perf__realtime_coarse_ms(&cache->host.clock);
    found->hit = (struct perf__hit){
        .fresh_until = perf__life_from_wall(cache, now, record->fresh_until_ms),
        .dead_at = perf__life_from_wall(cache, now, record->dead_at_ms),
        .born = now - (wall > record->stamp_ms ? wall - record->stamp_ms : 0),
        .load_ms = record->load_ms,
        .kind = record->kind,
    };
    if (found->hit.dead_at < found->hit.fresh_until)
        found->hit.dead_at = found->hit.fresh_until;
    if (now >= found->hit.dead_at)
        return disbelieve(why, "expired");
    struct perf__marked marked = {record->ns, record->user, record->key, record->tags,
                                  record->stamp_ms};
    /* A stamp from the future (the clock went back, or is wrong over there) proves nothing: any
     * mark kills it. Those of writers who are a little ahead are no such thing. */
    if (record->stamp_ms > wall + 2 * cache->marks.ahead_ms &&
        record->stamp_ms > perf__marks_last(&cache->marks))
        marked.stamp = record->stamp_ms = 1;
    if (perf__tier_distrusts(cache->tiers[i], marked.stamp))
        return disbelieve(why, "not believed until the tier is repaired");
    return perf__marks_dead(&cache->marks, &marked) ? disbelieve(why, "invalidated") : PERF_OK;
}

static int judge(const struct perf__op *op, int64_t now, size_t i, struct perf__found *found)
{
    const char *why;
    return perf__read_judge(op, now, i, found, &why);
}

/* Copies what tier number i had into memory and the tiers above i. Failures only cost speed. */
static void promote(const struct perf__op *op, int64_t now, size_t i, struct perf__watch *watch,
                    struct perf__found *found)
{
    perf_cache *cache = op->cache;
    const struct perf__record *record = &found->record;
    perf__coherence_cap(cache, op->policy->tiers, i, now, &found->hit.fresh_until,
                        &found->hit.dead_at);
    struct perf__write write = {
        .data = record->value.data,
        .len = record->value.len,
        .fresh_until = found->hit.fresh_until,
        .dead_at = found->hit.dead_at,
        .stamp = record->stamp_ms,
        .weight = 1,
        .tags = record->tags.data,
        .tags_len = (uint32_t)record->tags.len,
        .load_ms = record->load_ms,
        .kind = record->kind,
        .is_copy = true,
        .watch = watch,
    };
    if (perf__op_uses_memory(op) &&
        perf__memory_put(cache->memory, &op->key, now, &write, &found->hit.version) != PERF_OK)
        return;
    uint8_t id[PERF_STORE_ID_SIZE];
    perf_store_op store_op = {.kind = PERF_STORE_SET,
                              .record = {found->reply.data, found->reply.len},
                              .expire_ms = record->dead_at_ms};
    perf__op_store_key(op, id, &store_op.key);
    for (size_t above = 0; above < i; above++) {
        uint64_t ticket, *token = &found->leases.token[above];
        if (!perf__op_uses_tier(op, above))
            continue;
        store_op.lease = *token;
        if (perf__lease_wanted(op, above) && !*token)
            continue; /* of a batch: without a lease it might undo what another process did */
        if (*token != PERF__LEASE_OF_OTHERS &&
            !perf__tier_submit(cache->tiers[above], &store_op, &ticket) &&
            perf__tier_capabilities(cache->tiers[above]) & PERF_STORE_SHARED)
            perf__tier_push(cache->tiers[above]); /* the others want it, too */
        *token = 0;                               /* the write ends it */
    }
}

int perf__tiers_find(const struct perf__op *op, int64_t now, struct perf__found *found)
{
    int status;
    perf__tiers_find_many(op, 1, now, found, &status);
    return status;
}

int perf__tier_find(const struct perf__op *op, int64_t now, size_t i, struct perf__found *found)
{
    perf_store_key key;
    uint8_t id[PERF_STORE_ID_SIZE];
    struct perf__watch watch;
    *found = (struct perf__found){.reply.allocator = &op->cache->host.allocator};
    perf__op_store_key(op, id, &key);
    perf__memory_watch(op->cache->memory, &op->key, &watch);
    int rc = perf__tier_get(op->cache->tiers[i], &key, &found->reply);
    if (!rc && !(rc = judge(op, now, i, found)))
        promote(op, now, i, &watch, found);
    perf__memory_unwatch(op->cache->memory, &watch);
    return rc;
}

/* Is there a tier of the namespace further down? */
static bool goes_on_below(const struct perf__op *op, size_t i)
{
    while (++i < op->cache->tier_count)
        if (perf__op_uses_tier(op, i))
            return true;
    return false;
}

/* Asks one tier for those of a group that are still missing. */
enum { GROUP = PERF__TIER_GROUP };

static void ask_tier(const struct perf__op *ops, size_t count, int64_t now, size_t tier,
                     struct perf__watch *watches, struct perf__found *found, int *statuses)
{
    perf_store_key keys[GROUP];
    uint8_t ids[GROUP][PERF_STORE_ID_SIZE];
    perf_store_reply *replies[GROUP];
    size_t asked[GROUP], n = 0;
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] == PERF_OK || !perf__op_uses_tier(&ops[i], tier))
            continue;
        perf__op_store_key(&ops[i], ids[n], &keys[n]);
        found[i].reply.found = false;
        replies[n] = &found[i].reply;
        asked[n++] = i;
    }
    if (!n)
        return;
    perf_cache *cache = ops[0].cache;
    int rc = perf__tier_get_many(cache->tiers[tier], keys, n, replies);
    for (size_t k = 0; k < n; k++) {
        size_t i = asked[k];
        if (rc < 0) {
            if (statuses[i] == PERF_MISS)
                statuses[i] = rc;
        } else if (found[i].reply.found && judge(&ops[i], now, tier, &found[i]) == PERF_OK) {
            statuses[i] = PERF_OK;
            promote(&ops[i], now, tier, &watches[i], &found[i]);
        }
    }
}

void perf__tier_find_many(const struct perf__op *ops, size_t count, int64_t now, size_t tier,
                          struct perf__found *found, int *statuses)
{
    perf_cache *cache = ops[0].cache;
    struct perf__watch watches[GROUP];
    for (size_t i = 0; i < count; i++) {
        found[i] = (struct perf__found){.reply.allocator = &cache->host.allocator};
        statuses[i] = PERF_MISS;
        perf__memory_watch(cache->memory, &ops[i].key, &watches[i]);
    }
    ask_tier(ops, count, now, tier, watches, found, statuses);
    for (size_t i = 0; i < count; i++)
        perf__memory_unwatch(cache->memory, &watches[i]);
}

void perf__tiers_find_many(const struct perf__op *ops, size_t count, int64_t now,
                           struct perf__found *found, int *statuses)
{
    perf_cache *cache = ops[0].cache;
    for (size_t i = 0; i < count; i++) {
        found[i] = (struct perf__found){.reply.allocator = &cache->host.allocator};
        statuses[i] = PERF_MISS;
    }
    for (size_t first = 0; cache->tier_count && first < count; first += GROUP) {
        size_t n = count - first < GROUP ? count - first : GROUP;
        struct perf__watch watches[GROUP]; /* a write that comes between must win */
        for (size_t i = 0; i < n; i++)
            perf__memory_watch(cache->memory, &ops[first + i].key, &watches[i]);
        for (size_t tier = 0; tier < cache->tier_count; tier++) {
            ask_tier(ops + first, n, now, tier, watches, found + first, statuses + first);
            /* Before it is read from below: see lease.h. A batch is not worth a call for each key.
             */
            if (count == 1 && statuses[0] == PERF_MISS && perf__lease_wanted(ops, tier) &&
                goes_on_below(ops, tier))
                (void)!perf__lease_take(ops, tier, &found->leases);
        }
        for (size_t i = 0; i < n; i++)
            perf__memory_unwatch(cache->memory, &watches[i]);
    }
}

void perf__promote(const struct perf__op *op, int64_t now)
{
    perf_cache *cache = op->cache;
    struct perf__hit hit;
    size_t len;
    if (!cache->tier_count ||
        perf__memory_get_copy(cache->memory, &op->key, now, NULL, 0, &len, &hit) != PERF_MISS)
        return;
    struct perf__found found;
    (void)!perf__tiers_find(op, now, &found); /* a failing tier has nothing to promote */
    perf__leases_end(op, &found.leases);
    perf__found_free(&found);
}

/* ------------------------------------------------------------- plain gets */

static int get(const struct perf__op *op, const struct perf__out *out)
{
    int64_t now = 0;
    struct perf__hit hit;
    int status;
    enum perf__state state = perf__memory_lookup(op, out, &now, &hit, &status);
    if (__builtin_expect(state == PERF__FRESH, 1)) {
        perf__count(op, PERF__MEMORY_HITS, 1);
        return status;
    }
    if (state == PERF__STALE && out->value) { /* for those with a loader only */
        perf_value_release(*out->value);
        *out->value = NULL;
    }
    if (state == PERF__NEGATIVE) {
        perf__count(op, PERF__NEGATIVE_HITS, 1);
        perf__count(op, PERF__MISSES, 1);
        return PERF_MISS;
    }
    if (state == PERF__ABSENT && op->cache->tier_count) {
        if (!now)
            now = perf__cache_now(op->cache);
        struct perf__found found;
        status = perf__tiers_find(op, now, &found);
        perf__leases_end(op, &found.leases);
        if (status == PERF_OK && found.hit.kind == PERF__ENTRY_VALUE &&
            now < found.hit.fresh_until) {
            perf__count(op, PERF__TIER_HITS, 1);
            status = perf__out_give(op, out, found.record.value.data, found.record.value.len,
                                    &found.hit, now);
            perf__found_free(&found);
            perf__events_deliver(&op->cache->events);
            return status;
        }
        perf__found_free(&found);
        perf__events_deliver(&op->cache->events);
        if (status < 0) {
            perf__count(op, PERF__MISSES, 1);
            return status;
        }
    }
    perf__count(op, PERF__MISSES, 1);
    return PERF_MISS;
}

int perf_cache_get(perf_cache *cache, const char *ns, const char *user, const void *key,
                   size_t key_len, perf_value **value)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!value)
        return perf__fail(PERF_EINVAL, "value is NULL; give a place for the handle");
    perf_value *got = NULL;
    rc = get(&op, &(struct perf__out){.value = &got});
    if (rc == PERF_OK)
        *value = got;
    return rc;
}

static __attribute__((noinline)) int get_copy(perf_cache *cache, const char *ns, const char *user,
                                              const void *key, size_t key_len, void *buf,
                                              size_t cap, size_t *len)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!len || (!buf && cap))
        return perf__fail(PERF_EINVAL, "%s is NULL; give a place for it", len ? "buf" : "len");
    struct perf__plain want = {.hash = op.key.hash,
                               .key = key,
                               .key_len = key_len,
                               .header = op.ns->header | key_len,
                               .buf = buf,
                               .cap = cap,
                               .len = len,
                               .thread = perf__thread_slot()};
    if (!op.key.user_len && key_len <= PERF__NH_MAX && want.thread > 0 &&
        perf__op_uses_memory(&op) && perf__memory_search_plain(cache->memory, &want)) {
        perf__count(&op, PERF__MEMORY_HITS, 1);
        return PERF_OK;
    }
    return get(&op, &(struct perf__out){.buf = buf, .cap = cap, .len = len});
}

static inline bool plain_lookup(const void *key, size_t key_len, const void *buf, size_t cap)
{
    return key && key_len - 1 < PERF__NH_MAX && (buf || !cap);
}

int perf_cache_get_copy(perf_cache *cache, const char *ns, const char *user, const void *key,
                        size_t key_len, void *buf, size_t cap, size_t *len)
{
    struct perf__namespace *space = perf__plain_namespace(cache, ns, user);
    struct perf__plain want = {.key = key,
                               .key_len = key_len,
                               .buf = buf,
                               .cap = cap,
                               .len = len,
                               .thread = perf__thread_slot_cached};
    if (!space || !len || !plain_lookup(key, key_len, buf, cap))
        goto others;
    if (want.thread <= 0)
        goto others;
    want.hash = perf__nh(&cache->namespaces.nh, key, key_len, space->nh_offset);
    want.header = space->header | key_len;
    enum perf__plain_get got = perf__memory_get_plain(cache->memory, &want);
    if (__builtin_expect(got == PERF__PLAIN_HIT, 1)) {
        perf__counters_add_at(&space->counts, want.thread, PERF__MEMORY_HITS, 1);
        return PERF_OK;
    }
    if (got == PERF__PLAIN_ABSENT && !cache->tier_count) {
        perf__counters_add_at(&space->counts, want.thread, PERF__MISSES, 1);
        return PERF_MISS;
    }
others:
    return get_copy(cache, ns, user, key, key_len, buf, cap, len);
}

int perf_cache_ttl(perf_cache *cache, const char *ns, const char *user, const void *key,
                   size_t key_len, int64_t *ttl_ms)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!ttl_ms)
        return perf__fail(PERF_EINVAL, "ttl_ms is NULL; give a place for it");
    int64_t now = perf__cache_now(cache);
    perf__promote(&op, now);
    size_t len;
    struct perf__hit hit;
    int status;
    enum perf__state state =
        perf__memory_lookup(&op, &(struct perf__out){.len = &len}, &now, &hit, &status);
    if (state != PERF__FRESH)
        return PERF_MISS;
    *ttl_ms = ttl_left(&hit, now);
    return PERF_OK;
}

/* ------------------------------------------------------------------- batch */

/* Memory's answer for one item; true when the item is settled. */
static bool item_from_memory(const struct perf__op *op, perf_lookup *item, bool plain, int64_t *now)
{
    struct perf__hit hit;
    perf_value *value = NULL;
    struct perf__out out = {item->buf ? NULL : &value, item->buf, item->cap, &item->len};
    int status;
    enum perf__state state = perf__memory_lookup(op, &out, now, &hit, &status);
    if (state == PERF__FRESH) {
        perf__count(op, PERF__MEMORY_HITS, 1);
        if (value) {
            item->value = value;
            item->len = value->len;
        }
        item->status = status;
        return true;
    }
    perf_value_release(value);
    if (state == PERF__NEGATIVE) {
        perf__count(op, PERF__NEGATIVE_HITS, 1);
        if (plain)
            perf__count(op, PERF__MISSES, 1);
        item->status = plain ? PERF_MISS : status;
    }
    return state == PERF__NEGATIVE;
}

static void items_from_tiers(const struct perf__op *ops, perf_lookup *const *items, size_t count,
                             int64_t now)
{
    struct perf__found found[GROUP];
    int statuses[GROUP];
    perf__tiers_find_many(ops, count, now, found, statuses);
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] == PERF_OK && found[i].hit.kind == PERF__ENTRY_VALUE &&
            now < found[i].hit.fresh_until) {
            struct perf__out out = {items[i]->buf ? NULL : &items[i]->value, items[i]->buf,
                                    items[i]->cap, &items[i]->len};
            perf__count(&ops[i], PERF__TIER_HITS, 1);
            items[i]->status = perf__out_give(&ops[i], &out, found[i].record.value.data,
                                              found[i].record.value.len, &found[i].hit, now);
            items[i]->len = found[i].record.value.len;
        } else if (statuses[i] < 0) {
            items[i]->status = statuses[i];
        }
        perf__found_free(&found[i]);
    }
}

/*
 * Settles those items of a group that are plain and in memory, and lists the others in rest. The
 * work goes in three passes, so that the cache misses of all items overlap.
 */
static size_t plain_items(perf_cache *cache, struct perf__namespace *space, perf_lookup *items,
                          size_t count, perf_lookup **rest)
{
    const struct perf__memory_tier *memory = cache->memory;
    struct perf__spot spots[GROUP];
    struct perf__entry *entries[GROUP];
    uint64_t hashes[GROUP];
    size_t left = 0;
    const int thread = perf__thread_slot();
    for (size_t i = 0; i < count; i++) {
        const perf_lookup *item = &items[i];
        spots[i].bucket = NULL;
        if (__builtin_expect(
                item->buf && plain_lookup(item->key, item->key_len, item->buf, item->cap), 1)) {
            hashes[i] = perf__nh(&cache->namespaces.nh, item->key, item->key_len, space->nh_offset);
            spots[i] = perf__memory_spot(memory, hashes[i]);
            __builtin_prefetch(spots[i].bucket);
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct perf__spot *spot = &spots[i];
        entries[i] = NULL;
        if (__builtin_expect(!spot->bucket, 0))
            continue;
        spot->version = atomic_load_explicit(&spot->bucket->version, memory_order_acquire);
        uint32_t match = perf__bucket_match(spot->bucket, perf__index_tag(hashes[i]));
        if (__builtin_expect(match && !(spot->version % 2), 1)) {
            const char *entry =
                (const char *)(entries[i] = perf__memory_slot(spot->shard, spot->bucket, match));
            __builtin_prefetch(entry);
            __builtin_prefetch(entry + 64);
            __builtin_prefetch(entry + 111); /* of small entries, seldom more than a third line */
        }
    }
    for (size_t i = 0; i < count; i++) {
        perf_lookup *item = &items[i];
        struct perf__plain want = {.hash = hashes[i],
                                   .key = item->key,
                                   .key_len = item->key_len,
                                   .header = space->header | item->key_len,
                                   .buf = item->buf,
                                   .cap = item->cap,
                                   .len = &item->len,
                                   .thread = thread};
        if (__builtin_expect(entries[i] && perf__memory_take(memory, &spots[i], entries[i], &want),
                             1)) {
            item->status = PERF_OK;
        } else {
            struct perf__plain again = want;
            if (spots[i].bucket && perf__memory_search_plain(memory, &again))
                item->status = PERF_OK;
            else
                rest[left++] = item;
        }
    }
    if (left < count)
        perf__counters_add_at(&space->counts, thread, PERF__MEMORY_HITS, count - left);
    return left;
}

int perf__get_many(perf_cache *cache, const char *ns, const char *user, perf_lookup *items,
                   size_t count, bool plain)
{
    int64_t now = 0;
    for (size_t i = 0; i < count; i++) {
        items[i].status = PERF__ITEM_ABSENT;
        items[i].value = NULL;
        items[i].len = 0;
    }
    struct perf__namespace *space = perf__plain_namespace(cache, ns, user);
    if (perf__thread_slot() == 0)
        space = NULL;
    for (size_t first = 0; first < count; first += GROUP) {
        size_t n = count - first < GROUP ? count - first : GROUP, missing = 0;
        struct perf__op ops[GROUP];
        perf_lookup *rest[GROUP];
        if (space) {
            n = plain_items(cache, space, items + first, n, rest);
        } else {
            for (size_t i = 0; i < n; i++)
                rest[i] = &items[first + i];
        }
        for (size_t i = 0; i < n; i++) {
            int rc = perf__op_begin(&ops[i], cache, ns, user, rest[i]->key, rest[i]->key_len);
            if (rc)
                return rc;
        }
        for (size_t i = 0; i < n; i++) {
            if (item_from_memory(&ops[i], rest[i], plain, &now))
                continue;
            ops[missing] = ops[i];
            rest[missing++] = rest[i];
        }
        if (missing && cache->tier_count) {
            if (!now)
                now = perf__cache_now(cache);
            items_from_tiers(ops, rest, missing, now);
            perf__events_deliver(&cache->events);
        }
    }
    return PERF_OK;
}

size_t perf__items_settle(perf_lookup *items, size_t count)
{
    size_t absent = 0;
    for (size_t i = 0; i < count; i++)
        if (items[i].status == PERF__ITEM_ABSENT) {
            items[i].status = PERF_MISS;
            absent++;
        }
    return absent;
}

int perf_cache_get_many(perf_cache *cache, const char *ns, const char *user, perf_lookup *items,
                        size_t count, size_t *hits)
{
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if (!items && count)
        return perf__fail(PERF_EINVAL, "items is NULL; give an array of count lookups");
    rc = perf__get_many(cache, ns, user, items, count, true);
    if (rc) {
        perf__items_settle(items, count);
        return rc;
    }
    size_t missed = 0, found = 0;
    for (size_t i = 0; i < count; i++) {
        found += items[i].status == PERF_OK;
        if (__builtin_expect(items[i].status == PERF__ITEM_ABSENT, 0)) {
            items[i].status = PERF_MISS;
            missed++;
        }
    }
    struct perf__namespace *space = NULL;
    if (missed && !perf__namespace_get(&cache->namespaces, ns, &space))
        perf__counters_add(&space->counts, PERF__MISSES, missed);
    if (hits)
        *hits = found;
    return PERF_OK;
}
