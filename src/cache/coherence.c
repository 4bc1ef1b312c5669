/* SPDX-License-Identifier: MIT */
/*
 * coherence.c - hearing what other processes change, and what to do when it is
 * not heard.
 *
 * Nothing here is on the way of a get. A report finds its entry by the names in
 * it and drops it; a load or a copy of that key that is under way has its watch
 * moved by the same step, so that it cannot bring the old value back, whichever of the two
 * comes first. Any thread; the thread of this file holds no lock of the room while it calls tiers.
 */
#include "coherence.h"

#include "../base/log.h"
#include "../base/thread.h"
#include "cache_impl.h"

enum {
    TICK_MS = 250, /* how soon a tier that is back is told what it missed */
    ASK_MS = 5000, /* default of coherence_ms for remote tiers */
    MIN_ASK_MS = 10,
    MAX_ASK_MS = 3600000,
    SKEW_MS = 100, /* of clocks that NTP keeps; more is documented as wrong */
};

/* ------------------------------------------------------------- what stores tell */

static void changed(void *ctx, const perf_store_key *key)
{
    struct perf__hearing *h = ctx;
    perf_cache *cache = h->cache;
    atomic_fetch_add_explicit(&h->heard, 1, memory_order_relaxed);
    if (key->ns.len > PERF__NAME_MAX || key->user.len > PERF__NAME_MAX || !key->key.len ||
        key->key.len > PERF__KEY_MAX)
        return; /* not ours */
    struct perf__namespace *ns =
        perf__namespace_find(&cache->namespaces, key->ns.data, key->ns.len);
    if (!ns)
        return; /* nobody here has used it yet */
    const struct perf__key own = {
        .hash = perf__key_hash(&cache->namespaces, ns, key->user.data, key->user.len, key->key.data,
                               key->key.len),
        .user = key->user.data,
        .key = key->key.data,
        .key_len = (uint32_t)key->key.len,
        .ns = ns->id,
        .user_len = (uint8_t)key->user.len,
    };
    (void)!perf__memory_delete(cache->memory, &own, PERF_EVENT_INVALIDATED);
}

int perf__coherence_take_mark(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    perf_cache *cache = ctx;
    if (kind < PERF__MARK_ALL || kind > PERF__MARK_PATTERN)
        return 0; /* of a newer libperf */
    int rc = perf__marks_restore(&cache->marks, (int)kind, name.data, name.len, stamp_ms);
    perf__memory_set_suspect(cache->memory, perf__marks_last(&cache->marks));
    return rc;
}

static void marked(void *ctx, int64_t kind, perf_bytes name, int64_t stamp_ms)
{
    struct perf__hearing *h = ctx;
    atomic_fetch_add_explicit(&h->heard, 1, memory_order_relaxed);
    if (perf__coherence_take_mark(h->cache, kind, name, stamp_ms))
        atomic_store(&h->gap, true); /* no memory for it: as if it had not been heard */
}

static void heard(void *ctx, int deaf)
{
    struct perf__hearing *h = ctx;
    struct perf__coherence *c = &h->cache->coherence;
    atomic_store(&h->deaf, deaf != 0);
    if (deaf)
        return;
    atomic_fetch_add_explicit(&h->gaps, 1, memory_order_relaxed);
    atomic_store(&h->gap, true);
    pthread_mutex_lock(&c->mutex);
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
}

void perf__coherence_cap(const perf_cache *cache, uint64_t tiers, size_t from, int64_t now,
                         int64_t *fresh_until, int64_t *dead_at)
{
    const struct perf__coherence *c = &cache->coherence;
    bool asked = from == SIZE_MAX ? tiers & c->asked && !(tiers & c->listening)
                                  : c->hearing[from].asked || atomic_load(&c->hearing[from].deaf);
    int64_t end = now + c->ask_ms;
    if (!asked || c->ask_ms < 0)
        return;
    if (*fresh_until > end)
        *fresh_until = end;
    if (*dead_at > end)
        *dead_at = end;
}

/* -------------------------------------------------------------------- the thread */

/* As in perf_namespace_options.tiers. */
static uint64_t bit_of(size_t tier)
{
    return (uint64_t)2 << tier;
}

/* Does the entry's namespace use the tier that could not tell? */
static bool is_doubtful(void *ctx, const struct perf__entry_view *entry)
{
    const struct perf__hearing *h = ctx;
    const perf_cache *cache = h->cache;
    const struct perf__namespace *ns = perf__namespace_by_id(&cache->namespaces, entry->key.ns);
    return atomic_load_explicit(&ns->policy, memory_order_acquire)->tiers &
           bit_of((size_t)(h - cache->coherence.hearing));
}

/* Reads the marks of a tier, or only those that are younger than what was read before. */
static int read_marks(struct perf__hearing *h, bool all)
{
    perf_cache *cache = h->cache;
    int64_t now = perf__realtime_ms(&cache->host.clock), last = atomic_load(&h->read_ms);
    int64_t since = last < now ? last : now; /* the clock may have been put back */
    since = all || !last || since < PERF__MARKS_OVERLAP_MS ? 0 : since - PERF__MARKS_OVERLAP_MS;
    int rc = perf__tier_marks(h->tier, since, perf__coherence_take_mark, cache);
    if (!rc)
        atomic_store(&h->read_ms, now);
    return rc;
}

/* It is heard again: first the marks that were missed, then everything else that may be old. */
static bool close_gap(struct perf__hearing *h)
{
    perf_cache *cache = h->cache;
    atomic_store(&h->gap, false);
    if (read_marks(h, true)) {
        atomic_store(&h->gap, true); /* it is gone again: memory goes on until it is back */
        return false;
    }
    perf__memory_drop_if(cache->memory, is_doubtful, h);
    perf__log(&cache->host.log, PERF_LOG_INFO, "cache",
              "changes by other processes are heard again; what memory held is asked anew");
    return true;
}

bool perf__coherence_tick(perf_cache *cache)
{
    bool closed = true;
    for (size_t i = 0; i < cache->tier_count; i++) {
        struct perf__hearing *h = &cache->coherence.hearing[i];
        if (!h->remote && !h->asked && !h->listens)
            continue;
        perf__tier_recover(h->tier);
        if (atomic_load(&h->gap) && !atomic_load(&h->deaf))
            closed &= close_gap(h);
    }
    return closed;
}

void perf__coherence_ask(perf_cache *cache)
{
    struct perf__coherence *c = &cache->coherence;
    int64_t now = perf__cache_now(cache), last = atomic_load(&c->asked_ms);
    /* Half the bound: asked at most that long ago, and the answer takes a while too. */
    if (c->ask_ms < 0 || (last && now - last < c->ask_ms / 2) ||
        !atomic_compare_exchange_strong(&c->asked_ms, &last, now ? now : 1))
        return; /* too early, or another thread does it */
    for (size_t i = 0; i < cache->tier_count; i++)
        if (c->hearing[i].asked)
            (void)!read_marks(&c->hearing[i], false);
}

void perf__coherence_expect(perf_cache *cache, int64_t ms)
{
    struct perf__coherence *c = &cache->coherence;
    if (ms > TICK_MS)
        return; /* it looks by itself */
    pthread_mutex_lock(&c->mutex);
    c->news = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
}

static void *run(void *ctx)
{
    perf_cache *cache = ctx;
    struct perf__coherence *c = &cache->coherence;
    int64_t most_ms = c->ask_ms > 0 && c->ask_ms / 2 < TICK_MS ? c->ask_ms / 2 : TICK_MS;
    pthread_mutex_lock(&c->mutex);
    while (!c->stops) {
        c->news = false;
        pthread_mutex_unlock(&c->mutex);
        bool closed = perf__coherence_tick(cache);
        perf__coherence_ask(cache);
        int64_t wait_ms = perf__flights_renew(cache, most_ms);
        pthread_mutex_lock(&c->mutex);
        bool gap = false;
        for (size_t i = 0; i < cache->tier_count; i++)
            gap |= atomic_load(&c->hearing[i].gap) && !atomic_load(&c->hearing[i].deaf);
        if (!c->stops && !c->news && !(gap && closed)) /* what came meanwhile is done at once */
            perf__cond_wait(&c->wake, &c->mutex, perf__deadline_after(wait_ms));
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* -------------------------------------------------------------------- open, close */

static int listen_to(perf_cache *cache, size_t i, int64_t ask_ms)
{
    struct perf__hearing *h = &cache->coherence.hearing[i];
    uint64_t capabilities = perf__tier_capabilities(cache->tiers[i]);
    h->cache = cache;
    h->tier = cache->tiers[i];
    h->remote = capabilities & PERF_STORE_REMOTE;
    h->listener = (perf_store_listener){sizeof h->listener, h, changed, marked, heard};
    if (!(capabilities & PERF_STORE_SHARED))
        return PERF_OK;
    int rc = perf__tier_listen(h->tier, &h->listener);
    h->listens = rc == PERF_OK || rc == PERF_MISS;
    h->leases = capabilities & PERF_STORE_LEASES;
    h->asked =
        (rc == PERF_EUNSUPPORTED || rc == PERF_MISS) && (ask_ms > 0 || (!ask_ms && h->remote));
    if (rc == PERF_OK)
        cache->coherence.listening |= bit_of(i);
    if (h->asked)
        cache->coherence.asked |= bit_of(i);
    return rc == PERF_EUNSUPPORTED || rc == PERF_MISS ? PERF_OK : rc;
}

int perf__coherence_open(perf_cache *cache, int64_t ask_ms)
{
    struct perf__coherence *c = &cache->coherence;
    int rc = PERF_OK;
    if (ask_ms != -1 && ask_ms != 0 &&
        (rc = perf__check_range("coherence_ms", ask_ms, MIN_ASK_MS, MAX_ASK_MS)))
        return rc;
    rc = perf__locks_init(&c->mutex, &c->wake, "the locks of what other processes change");
    if (rc)
        return rc;
    c->ready = true;
    c->ask_ms = ask_ms ? ask_ms : ASK_MS;
    bool needed = false;
    for (size_t i = 0; i < cache->tier_count && !rc; i++) {
        rc = listen_to(cache, i, ask_ms);
        if (c->hearing[i].remote)
            cache->marks.ahead_ms = SKEW_MS;
        needed |= c->hearing[i].remote || c->hearing[i].listens || c->hearing[i].asked ||
                  c->hearing[i].leases;
    }
    for (size_t i = 0; i < cache->tier_count && !rc; i++) {
        if (!atomic_load(&c->hearing[i].deaf))
            atomic_store(&c->hearing[i].gap, false); /* heard before anything was read */
        rc = read_marks(&c->hearing[i], true);
        if (rc &&
            c->hearing[i].remote) { /* it may be back soon: nothing of it is believed till then */
            atomic_store(&c->hearing[i].gap, true);
            rc = PERF_OK;
        }
    }
    if (rc || !needed)
        return rc;
    if (perf__thread_start(&c->thread, "perf-coherence", run, cache))
        return perf__fail(PERF_EUNAVAILABLE, "no thread could be started to hear what other "
                                             "processes change; raise the limit of threads");
    c->running = true;
    return PERF_OK;
}

void perf__coherence_close(perf_cache *cache)
{
    struct perf__coherence *c = &cache->coherence;
    if (!c->running)
        return;
    pthread_mutex_lock(&c->mutex);
    c->stops = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(c->thread, NULL);
    c->running = false;
}

void perf__coherence_destroy(struct perf__coherence *c)
{
    if (!c->ready)
        return;
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->mutex);
    c->ready = false;
}
