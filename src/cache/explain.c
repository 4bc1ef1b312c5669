/* SPDX-License-Identifier: MIT */
/*
 * explain.c - where a key is, since when, and why a get does or does not find it.
 *
 * For people who debug: it looks into every place a get would look into, in the
 * same order, and says what is there instead of stopping at the first. It changes
 * nothing but statistics. Any thread.
 */
#include <libperf/resilience.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "flight.h"
#include "lease.h"

/* JSON into the caller's buffer, and what it would have needed. */
struct writer {
    char *buf;
    size_t cap, len;
    bool more; /* an element of the list came before */
};

static __attribute__((format(printf, 2, 3))) void put(struct writer *w, const char *format, ...)
{
    va_list args;
    size_t room = w->len < w->cap ? w->cap - w->len : 0;
    va_start(args, format);
    int n = vsnprintf(room ? w->buf + w->len : NULL, room, format, args);
    va_end(args);
    if (n > 0)
        w->len += (size_t)n;
}

/* Bytes as a JSON string: those that are not plain ASCII as \u00XX, whatever they mean. */
static void put_bytes(struct writer *w, perf_bytes bytes)
{
    const unsigned char *at = bytes.data;
    put(w, "\"");
    for (size_t i = 0; i < bytes.len; i++) {
        if (at[i] < 0x20 || at[i] > 0x7e || at[i] == '"' || at[i] == '\\')
            put(w, "\\u%04x", at[i]);
        else
            put(w, "%c", at[i]);
    }
    put(w, "\"");
}

static void put_life(struct writer *w, const struct perf__hit *hit, int64_t now)
{
    if (hit->fresh_until == PERF__NEVER)
        put(w, ",\"ttl_ms\":null");
    else
        put(w, ",\"ttl_ms\":%" PRId64, hit->fresh_until - now);
    if (hit->dead_at != PERF__NEVER && hit->dead_at != hit->fresh_until)
        put(w, ",\"dead_in_ms\":%" PRId64, hit->dead_at - now);
    if (hit->born)
        put(w, ",\"age_ms\":%" PRId64, now - hit->born);
    if (hit->load_ms)
        put(w, ",\"load_ms\":%" PRIu32, hit->load_ms);
}

static void put_memory(struct writer *w, const struct perf__op *op, int64_t now)
{
    static const char *const states[] = {"absent", "fresh", "stale", "negative"};
    struct perf__hit hit;
    size_t len = 0;
    int status;
    if (!perf__op_uses_memory(op)) {
        put(w, "\"memory\":{\"state\":\"unused\"}");
        return;
    }
    enum perf__state state =
        perf__memory_lookup(op, &(struct perf__out){.len = &len}, &now, &hit, &status);
    put(w, "\"memory\":{\"state\":\"%s\"", states[state]);
    if (state == PERF__NEGATIVE)
        put(w, ",\"remembered\":\"%s\"", perf_strstatus(status));
    else if (state != PERF__ABSENT)
        put(w, ",\"bytes\":%zu,\"version\":%" PRIu64, len, hit.version);
    if (state != PERF__ABSENT)
        put_life(w, &hit, now);
    put(w, "}");
}

static void put_tier(struct writer *w, const struct perf__op *op, int64_t now, size_t i)
{
    perf_cache *cache = op->cache;
    const struct perf__hearing *hearing = &cache->coherence.hearing[i];
    struct perf__found found = {.reply.allocator = &cache->host.allocator};
    uint8_t id[PERF_STORE_ID_SIZE];
    perf_store_key key;
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    perf__op_store_key(op, id, &key);
    perf__tier_stats(cache->tiers[i], &stats);
    put(w, "{\"backend\":");
    put_bytes(w, (perf_bytes){stats.backend, strlen(stats.backend)});
    if (!perf__op_uses_tier(op, i)) {
        put(w, ",\"state\":\"unused\"}");
        return;
    }
    int rc = perf__tier_get(cache->tiers[i], &key, &found.reply);
    if (rc == PERF_OK) {
        const char *why = NULL;
        rc = perf__read_judge(op, now, i, &found, &why);
        put(w, ",\"state\":\"%s\",\"bytes\":%zu", rc == PERF_OK ? "found" : why, found.reply.len);
        if (found.record.stamp_ms) {
            put(w, ",\"written_ms\":%" PRId64, found.record.stamp_ms);
            put_life(w, &found.hit, now);
        }
    } else if (rc == PERF_MISS) {
        put(w, ",\"state\":\"absent\"");
    } else {
        put(w, ",\"state\":\"failing\",\"error\":");
        put_bytes(w, (perf_bytes){perf_last_error(), strlen(perf_last_error())});
    }
    put(w, ",\"breaker\":\"%s\",\"repairs\":%" PRIu64 ",\"tells\":%s",
        stats.breaker == PERF_BREAKER_CLOSED ? "closed" : "open", stats.repairs,
        hearing->listens ? atomic_load(&hearing->deaf) ? "\"not now\"" : "true" : "false");
    put(w, "}");
    perf__found_free(&found);
}

static void put_mark(void *ctx, int kind, perf_bytes name, int64_t stamp)
{
    static const char *const kinds[] = {"", "all", "namespace", "user", "tag", "pattern"};
    struct writer *w = ctx;
    put(w, "%s{\"kind\":\"%s\",\"name\":", w->more ? "," : "", kinds[kind]);
    w->more = true;
    put_bytes(w, name);
    put(w, ",\"stamp_ms\":%" PRId64 "}", stamp);
}

int perf_cache_explain(perf_cache *cache, const char *ns, const char *user, const void *key,
                       size_t key_len, char *buf, size_t cap, size_t *len)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!len || (!buf && cap))
        return perf__fail(PERF_EINVAL, "%s is NULL; give a place for it", len ? "buf" : "len");
    struct writer w = {buf, cap, 0, false};
    int64_t now = perf__cache_now(cache);
    uint8_t id[PERF_STORE_ID_SIZE];
    perf_store_key store_key;
    perf__op_store_key(&op, id, &store_key);
    put(&w, "{\"namespace\":");
    put_bytes(&w, store_key.ns);
    put(&w, ",\"user\":");
    if (store_key.user.len)
        put_bytes(&w, store_key.user);
    else
        put(&w, "null");
    put(&w, ",\"key\":");
    put_bytes(&w, store_key.key);
    put(&w, ",\"id\":\"");
    for (size_t i = 0; i < sizeof id; i++)
        put(&w, "%02x", id[i]);
    put(&w, "\",\"now_ms\":%" PRId64 ",\"loading\":%s,", perf__realtime_ms(&cache->host.clock),
        perf__flight_is_listed(&op) ? "true" : "false");
    put_memory(&w, &op, now);
    put(&w, ",\"tiers\":[");
    for (size_t i = 0; i < cache->tier_count; i++) {
        put(&w, i ? "," : "");
        put_tier(&w, &op, now, i);
    }
    put(&w, "],\"marks\":[");
    const struct perf__marked marked = {store_key.ns, store_key.user, store_key.key, {"", 0}, 0};
    perf__marks_of(&cache->marks, &marked, put_mark, &w);
    put(&w, "]}");
    *len = w.len;
    return w.len < cap ? PERF_OK : PERF_ETOOSMALL;
}
