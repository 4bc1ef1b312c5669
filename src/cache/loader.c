/* SPDX-License-Identifier: MIT */
/*
 * loader.c - get_or_load: one load for all who ask, deadlines for each of them,
 * stale values meanwhile, and nothing brought back that was invalidated during
 * the load.
 *
 * A flight watches its key, and notes a stamp when it begins. If the
 * key was written or deleted since, or a mark made, its result is not stored
 * (it still goes to those who joined before), and later callers begin a new
 * flight instead of joining. Any thread; see loader.h for the lock.
 */
#include "loader.h"

#include <math.h>
#include <string.h>

#include "../base/uthash_host.h"
#include "cache_impl.h"

/* What a loader sees and fills. */
struct perf_load {
    struct perf__flight *flight;
    unsigned char *data;
    size_t len;
    bool has_data, keep_stale;
    int64_t ttl_ms, stale_ms;
};

struct perf__flight {
    UT_hash_handle hh;
    uint64_t hash;      /* key of the table */
    struct perf__op op; /* its strings are in bytes */
    struct perf__job job;
    pthread_cond_t done_cond;
    /* Under flights.mutex */
    uint32_t refs, waiters; /* the leader is a waiter from birth, except of a refresh */
    bool listed, done, refresh;
    struct perf__flight *blocked_on; /* what the thread that runs this one waits for */
    /* Written before the flight is shared, or by the thread that runs it before done */
    perf_loader loader; /* ctx is ours when own_ctx */
    bool own_ctx;
    struct perf__write write;
    struct perf__watch watch;
    perf_value *stale; /* what may be served if the load fails */
    perf_load load;
    struct perf__hit hit; /* of the result */
    int status;
    int64_t give_up_at; /* hard limit, on perf__cond_wait's clock; 0 none */
    atomic_bool cancelled;
    struct perf__flight *outer; /* the flight whose loader began this one in the same thread */
    uint8_t tag_buf[PERF__TAG_BYTES];
    char bytes[]; /* user with a zero byte, key */
};

/* The innermost flight that this thread is running: thread-local because it is about the
 * thread's own call stack. */
static _Thread_local struct perf__flight *running;

int perf__flights_init(struct perf__flights *flights, const struct perf__host *host)
{
    memset(flights, 0, sizeof *flights);
    if (pthread_mutex_init(&flights->mutex, NULL))
        return perf__fail_nomem("the table of loads");
    flights->host = host;
    return PERF_OK;
}

void perf__flights_close(struct perf__flights *flights)
{
    if (!flights->host)
        return;
    pthread_mutex_lock(&flights->mutex);
    flights->closing = true;
    for (struct perf__flight *f = flights->table; f; f = f->hh.next)
        atomic_store(&f->cancelled, true);
    pthread_mutex_unlock(&flights->mutex);
}

void perf__flights_destroy(struct perf__flights *flights)
{
    if (flights->host)
        pthread_mutex_destroy(&flights->mutex);
    flights->host = NULL;
}

/* ------------------------------------------------------- seen by a loader */

const void *perf_load_key(const perf_load *load, size_t *key_len)
{
    *key_len = load->flight->op.key.key_len;
    return load->flight->op.key.key;
}

const char *perf_load_namespace(const perf_load *load)
{
    return load->flight->op.ns->name;
}

const char *perf_load_user(const perf_load *load)
{
    return load->flight->op.user_text;
}

int perf_load_set(perf_load *load, const void *data, size_t len)
{
    if (!data && len)
        return perf__fail(PERF_EINVAL, "data is NULL; give %zu bytes", len);
    if (len > 1u << 30)
        return perf__fail(PERF_ETOOBIG, "value is %zu bytes long; give at most 1 GiB", len);
    const perf_allocator *a = &load->flight->op.cache->host.allocator;
    unsigned char *copy = perf__alloc(a, len);
    if (!copy)
        return perf__fail_nomem("a loaded value");
    if (len)
        memcpy(copy, data, len);
    perf__free(a, load->data);
    load->data = copy;
    load->len = len;
    load->has_data = true;
    load->keep_stale = false;
    return PERF_OK;
}

int perf_load_set_ttl(perf_load *load, int64_t ttl_ms, int64_t stale_ms)
{
    struct perf__life life;
    int rc = perf__life_of(&load->flight->op, 0, ttl_ms, stale_ms, &life);
    if (rc)
        return rc;
    load->ttl_ms = ttl_ms;
    load->stale_ms = stale_ms;
    return PERF_OK;
}

int perf_load_add_tag(perf_load *load, const char *tag)
{
    struct perf__flight *f = load->flight;
    size_t len = tag ? strnlen(tag, PERF__NAME_MAX + 1) : 0;
    int rc = perf__check_len("tag", len, 1, PERF__NAME_MAX);
    if (rc)
        return rc;
    if (f->write.tags_len + 1 + len > sizeof f->tag_buf)
        return perf__fail(PERF_EINVAL, "the value has too many tags; give at most %d",
                          PERF__TAGS_MAX);
    f->tag_buf[f->write.tags_len] = (uint8_t)len;
    memcpy(f->tag_buf + f->write.tags_len + 1, tag, len);
    f->write.tags_len += 1 + (uint32_t)len;
    return PERF_OK;
}

int perf_load_cancelled(const perf_load *load)
{
    const struct perf__flight *f = load->flight;
    return atomic_load_explicit(&f->cancelled, memory_order_relaxed) ||
           (f->give_up_at && perf__deadline_after(1) > f->give_up_at);
}

const void *perf_load_stale(const perf_load *load, size_t *len)
{
    const perf_value *stale = load->flight->stale;
    *len = stale ? stale->len : 0;
    return stale ? stale->data : NULL;
}

int perf_load_keep_stale(perf_load *load)
{
    if (!load->flight->stale)
        return PERF_MISS;
    load->keep_stale = true;
    return PERF_OK;
}

/* --------------------------------------------------------- life of a flight */

static void flight_free(struct perf__flight *f)
{
    const perf_allocator *a = &f->op.cache->host.allocator;
    if (f->own_ctx && f->loader.ctx_free)
        f->loader.ctx_free(f->loader.ctx);
    if (f->write.watch)
        perf__memory_unwatch(f->op.cache->memory, &f->watch);
    perf_value_release(f->stale);
    perf__free(a, f->load.data);
    pthread_cond_destroy(&f->done_cond);
    perf__free(a, f);
}

static void flight_unref(struct perf__flight *f)
{
    struct perf__flights *flights = &f->op.cache->flights;
    pthread_mutex_lock(&flights->mutex);
    bool last = --f->refs == 0;
    pthread_mutex_unlock(&flights->mutex);
    if (last)
        flight_free(f);
}

/* May this loader run after the caller has gone? */
static bool can_outlive(const perf_loader *loader)
{
    return !loader->ctx || loader->ctx_is_static || loader->ctx_clone;
}

/* A flight for op, with copies of all that the caller owns. One reference. */
static int flight_new(const struct perf__op *op, const perf_loader *loader, int64_t now,
                      struct perf__flight **out)
{
    perf_cache *cache = op->cache;
    const perf_allocator *a = &cache->host.allocator;
    size_t user_len = op->key.user_len, key_len = op->key.key_len;
    struct perf__flight *f = perf__calloc(a, 1, sizeof *f + user_len + 1 + key_len);
    if (!f)
        return perf__fail_nomem("a load");
    if (perf__cond_init(&f->done_cond)) {
        perf__free(a, f);
        return perf__fail_nomem("a load");
    }
    f->hash = op->key.hash;
    f->refs = f->waiters = 1;
    f->op = *op;
    if (user_len)
        memcpy(f->bytes, op->key.user, user_len);
    memcpy(f->bytes + user_len + 1, op->key.key, key_len);
    f->op.key.user = f->bytes;
    f->op.key.key = f->bytes + user_len + 1;
    f->op.user_text = op->user_text ? f->bytes : NULL;
    f->load.flight = f;
    f->loader = *loader;
    if (loader->set) {
        f->load.ttl_ms = loader->set->ttl_ms;
        f->load.stale_ms = loader->set->stale_ms;
    }
    int rc = perf__write_prepare(&f->op, now, loader->set, &f->write, f->tag_buf);
    if (!rc && f->write.mode != PERF_SET_ALWAYS)
        rc = perf__fail(PERF_EINVAL, "mode is %lld; a loader's options take PERF_SET_ALWAYS only",
                        (long long)f->write.mode);
    if (rc) {
        flight_free(f);
        return rc;
    }
    f->loader.set = NULL; /* the caller's; all of it has been taken over */
    f->write.watch = &f->watch;
    perf__memory_watch(cache->memory, &f->op.key, &f->watch);
    int64_t hard = op->policy->options.hard_timeout_ms;
    f->give_up_at = perf__deadline_after(hard);
    *out = f;
    return PERF_OK;
}

static bool same_key(const struct perf__op *a, const struct perf__op *b)
{
    return a->ns == b->ns && a->key.user_len == b->key.user_len &&
           a->key.key_len == b->key.key_len && !memcmp(a->key.user, b->key.user, a->key.user_len) &&
           !memcmp(a->key.key, b->key.key, a->key.key_len);
}

/* Was the key written, deleted or invalidated since the flight began? */
static bool outdated(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    struct perf__marked marked = {{f->op.ns->name, f->op.ns->name_len},
                                  {f->op.key.user, f->op.key.user_len},
                                  {f->op.key.key, f->op.key.key_len},
                                  {f->write.tags, f->write.tags_len},
                                  f->write.stamp};
    return atomic_load_explicit(&f->watch.moved, memory_order_acquire) ||
           perf__marks_dead(&cache->marks, &marked);
}

static void delist(struct perf__flights *flights, struct perf__flight *f)
{
    const perf_allocator *uthash_allocator = &flights->host->allocator;
    if (f->listed)
        HASH_DEL(flights->table, f);
    f->listed = false;
}

/*
 * Joins the flight of a key, or lists mine as its flight: *flight is the one to use, with a
 * reference for the caller; mine is consumed. *leader says whether it is mine to run.
 */
static int flight_join(struct perf__flight *mine, struct perf__flight **flight, bool *leader)
{
    struct perf__flights *flights = &mine->op.cache->flights;
    const perf_allocator *uthash_allocator = &flights->host->allocator;
    struct perf__hash_key uthash_secret = mine->op.cache->secret;
    bool uthash_oom = false;
    struct perf__flight *other;
    pthread_mutex_lock(&flights->mutex);
    HASH_FIND(hh, flights->table, &mine->hash, sizeof mine->hash, other);
    bool same = other && same_key(&other->op, &mine->op);
    if (same && !outdated(other)) {
        other->refs++;
        if (!flights->closing) /* somebody waits again */
            atomic_store(&other->cancelled, false);
        *flight = other;
        *leader = false;
        pthread_mutex_unlock(&flights->mutex);
        flight_free(mine);
        return PERF_OK;
    }
    if (same)
        delist(flights, other);
    if (same || !other) {
        HASH_ADD(hh, flights->table, hash, sizeof mine->hash, mine);
        mine->listed = !uthash_oom; /* without memory it flies alone: slower, not wrong */
    }
    if (flights->closing)
        atomic_store(&mine->cancelled, true);
    *flight = mine;
    *leader = true;
    pthread_mutex_unlock(&flights->mutex);
    return PERF_OK;
}

/* ------------------------------------------------------------------ running */

static int loader_status(struct perf__flight *f, int rc)
{
    if (rc == PERF_OK && !f->load.has_data && !f->load.keep_stale)
        return perf__fail(PERF_ELOAD,
                          "the loader of namespace '%s' returned PERF_OK without perf_load_set; "
                          "set a value or return PERF_MISS",
                          f->op.ns->name);
    if (rc > PERF_MISS)
        return perf__fail(PERF_ELOAD,
                          "the loader of namespace '%s' returned %d; return PERF_OK, PERF_MISS or "
                          "a negative code",
                          f->op.ns->name, rc);
    return rc;
}

/* Stores what a successful load made, in memory and below. */
static void store_value(struct perf__flight *f, int64_t now)
{
    const struct perf__op *op = &f->op;
    struct perf__life life;
    if (perf__life_of(op, now, f->load.ttl_ms, f->load.stale_ms, &life))
        return;
    f->write.data = f->load.data;
    f->write.len = f->load.len;
    f->write.fresh_until = life.fresh_until;
    f->write.dead_at = life.dead_at;
    f->hit = (struct perf__hit){.fresh_until = life.fresh_until,
                                .dead_at = life.dead_at,
                                .born = now,
                                .load_ms = f->write.load_ms};
    if (outdated(f) || perf__write_all(op, now, &f->write, &f->hit.version) == PERF_ECONFLICT)
        perf__count(op, PERF__LOADS_DISCARDED, 1);
}

/* Remembers a failure or "no such thing" for a while, where the namespace wants it. */
static void store_failure(struct perf__flight *f, int64_t now, int status)
{
    const perf_namespace_options *policy = &f->op.policy->options;
    int64_t ttl = status == PERF_MISS ? policy->negative_ttl_ms : policy->error_ttl_ms;
    if (outdated(f))
        return;
    if (ttl <= 0) {
        if (f->stale && status == PERF_MISS) /* the source has it no more */
            (void)!perf__delete_all(&f->op);
        return;
    }
    if (f->stale && status != PERF_MISS) {
        /* The stale value counts as fresh that long, so that a failing source is not asked by
         * every reader. */
        int64_t dead_at = f->hit.dead_at, until = now + ttl < dead_at ? now + ttl : dead_at;
        (void)!perf__memory_touch(f->op.cache->memory, &f->op.key, now, until, dead_at);
        return;
    }
    uint8_t bytes[sizeof(uint32_t)];
    perf__store32(bytes, (uint32_t)status);
    f->write.data = bytes;
    f->write.len = sizeof bytes;
    f->write.fresh_until = f->write.dead_at = now + ttl;
    f->write.kind = PERF__ENTRY_NEGATIVE;
    (void)!perf__write_negative(&f->op, now, &f->write, f->stale && status == PERF_MISS);
}

/* Wakes the waiters; the caller's reference stays. */
static void flight_land(struct perf__flight *f, int status)
{
    struct perf__flights *flights = &f->op.cache->flights;
    pthread_mutex_lock(&flights->mutex);
    f->status = status;
    f->done = true;
    delist(flights, f);
    pthread_cond_broadcast(&f->done_cond);
    pthread_mutex_unlock(&flights->mutex);
}

/* Takes in what a loader returned: stores, counts, lands. */
static void flight_finish(struct perf__flight *f, int rc, int64_t load_ns)
{
    perf_cache *cache = f->op.cache;
    int status = loader_status(f, rc);
    int64_t now = perf__cache_now(cache);
    if (status == PERF_OK && f->load.keep_stale &&
        (status = perf_load_set(&f->load, f->stale->data, f->stale->len)) == PERF_OK)
        f->load.keep_stale = true;
    f->write.load_ms =
        load_ns > 0 ? (uint32_t)(load_ns / 1000000 < UINT32_MAX / 2 ? (load_ns + 999999) / 1000000
                                                                    : UINT32_MAX / 2)
                    : 0;
    perf__count(&f->op, PERF__LOAD_NS, (uint64_t)(load_ns > 0 ? load_ns : 0));
    if (status == PERF_OK) {
        perf__count(&f->op, PERF__LOADS, 1);
        store_value(f, now);
    } else {
        perf__count(&f->op, status == PERF_MISS ? PERF__LOADS : PERF__LOAD_FAILURES, 1);
        store_failure(f, now, status);
    }
    flight_land(f, status);
}

static void enter(struct perf__flight *f)
{
    struct perf__flights *flights = &f->op.cache->flights;
    f->outer = running;
    if (running) {
        pthread_mutex_lock(&flights->mutex);
        running->blocked_on = f;
        pthread_mutex_unlock(&flights->mutex);
    }
    running = f;
}

static void leave(struct perf__flight *f)
{
    struct perf__flights *flights = &f->op.cache->flights;
    running = f->outer;
    if (running) {
        pthread_mutex_lock(&flights->mutex);
        running->blocked_on = NULL;
        pthread_mutex_unlock(&flights->mutex);
    }
}

/* Looks below before loading. True when the value was there and the flight has landed. */
static bool landed_from_tiers(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    if (f->refresh || !cache->tier_count)
        return false;
    struct perf__found found;
    int64_t now = perf__cache_now(cache);
    bool landed = false;
    if (perf__tiers_find(&f->op, now, &found) == PERF_OK) {
        if (found.hit.kind == PERF__ENTRY_VALUE && now < found.hit.fresh_until) {
            int rc = perf_load_set(&f->load, found.record.value.data, found.record.value.len);
            f->hit = found.hit;
            perf__count(&f->op, PERF__TIER_HITS, 1);
            flight_land(f, rc);
            landed = true;
        } else if (found.hit.kind == PERF__ENTRY_VALUE && !f->stale) {
            perf_value *stale = NULL;
            struct perf__out out = {.value = &stale};
            (void)!perf__out_give(&f->op, &out, found.record.value.data, found.record.value.len,
                                  &found.hit, now);
            f->stale = stale;
            f->hit = found.hit;
        }
    }
    perf__found_free(&found);
    return landed;
}

/* Another flight may have landed between our miss and our listing: without this look, its
 * joiners-to-be would load again. */
static bool landed_meanwhile(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    struct perf__hit hit;
    perf_value *value = NULL;
    int64_t now = perf__cache_now(cache);
    bool landed = false;
    if (f->refresh || perf__memory_get(cache->memory, &f->op.key, now, &value, &hit) != PERF_OK)
        return false;
    if (hit.kind == PERF__ENTRY_VALUE && now < hit.fresh_until) {
        int rc = perf_load_set(&f->load, value->data, value->len);
        f->hit = hit;
        perf__count(&f->op, PERF__MEMORY_HITS, 1);
        flight_land(f, rc);
        landed = true;
    }
    perf_value_release(value);
    return landed;
}

static void flight_run(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    if (landed_meanwhile(f) || landed_from_tiers(f))
        return;
    enter(f);
    if (!f->refresh)
        perf__count(&f->op, PERF__MISSES, 1);
    else
        perf__count(&f->op, PERF__REFRESHES, 1);
    int64_t begun = perf__now_ns(&cache->host.clock);
    int rc = f->loader.load(&f->load, f->loader.ctx);
    int64_t load_ns = perf__now_ns(&cache->host.clock) - begun;
    leave(f);
    flight_finish(f, rc, load_ns);
}

static void run_job(struct perf__job *job)
{
    struct perf__flight *f =
        (struct perf__flight *)((char *)job - offsetof(struct perf__flight, job));
    perf_cache *cache = f->op.cache;
    flight_run(f);
    flight_unref(f);
    perf__events_deliver(&cache->events);
}

/* Hands a flight to the background, with a ctx of its own. False: run it here. */
static bool flight_dispatch(struct perf__flight *f)
{
    struct perf__flights *flights = &f->op.cache->flights;
    if (running || !can_outlive(&f->loader))
        return false; /* a load begun inside a load stays in its thread: the background may be
                         full of threads that wait for just this one */
    if (f->loader.ctx && !f->loader.ctx_is_static) {
        void *clone = f->loader.ctx_clone(f->loader.ctx);
        if (!clone)
            return false;
        f->loader.ctx = clone;
        f->own_ctx = true;
    }
    f->job.run = run_job;
    pthread_mutex_lock(&flights->mutex);
    f->refs++;
    pthread_mutex_unlock(&flights->mutex);
    if (perf__background_submit(f->op.cache->background, &f->job) == PERF_OK)
        return true;
    pthread_mutex_lock(&flights->mutex);
    f->refs--;
    pthread_mutex_unlock(&flights->mutex);
    return false;
}

/* Would waiting for f close a circle? Under flights.mutex. */
static bool would_deadlock(const struct perf__flight *f)
{
    for (; f; f = f->blocked_on)
        for (const struct perf__flight *own = running; own; own = own->outer)
            if (f == own)
                return true;
    return false;
}

/* Waits until a flight lands or the deadline passes (0: none). */
static int flight_wait(struct perf__flight *f, bool leader, int64_t deadline)
{
    struct perf__flights *flights = &f->op.cache->flights;
    int rc = PERF_OK;
    pthread_mutex_lock(&flights->mutex);
    if (!f->done && would_deadlock(f)) {
        pthread_mutex_unlock(&flights->mutex);
        return perf__fail(PERF_EDEADLK,
                          "a loader in namespace '%s' waits for its own key; load it directly",
                          f->op.ns->name);
    }
    f->waiters += !leader;
    if (running)
        running->blocked_on = f;
    while (!f->done && rc == PERF_OK)
        if (!perf__cond_wait(&f->done_cond, &flights->mutex, deadline) && !f->done)
            rc = PERF_ETIMEDOUT;
    if (running)
        running->blocked_on = NULL;
    if (--f->waiters == 0 && !f->done && !f->refresh)
        atomic_store(&f->cancelled, true);
    pthread_mutex_unlock(&flights->mutex);
    if (rc)
        perf__fail(rc,
                   "the load in namespace '%s' took longer than the deadline; raise wait_ms "
                   "or the namespace's hard_timeout_ms, or give it a stale window",
                   f->op.ns->name);
    return rc;
}

/* ----------------------------------------------------------------- asking */

static int64_t earlier(int64_t a, int64_t b)
{
    return !a ? b : !b ? a : a < b ? a : b;
}

/* Gives a landed flight's result to one caller. */
static int give_result(const struct perf__op *op, const struct perf__out *out,
                       struct perf__flight *f, int64_t now)
{
    if (f->status == PERF_OK)
        return perf__out_give(op, out, f->load.data, f->load.len, &f->hit, now);
    if (f->status != PERF_MISS && f->stale) { /* fail-safe */
        struct perf__hit hit = f->hit;
        hit.fresh_until = now;
        perf__count(op, PERF__MEMORY_HITS, 1);
        perf__count(op, PERF__STALE_HITS, 1);
        return perf__out_give(op, out, f->stale->data, f->stale->len, &hit, now);
    }
    if (f->status < 0)
        perf__fail(f->status, "the loader of namespace '%s' failed: %s", op->ns->name,
                   perf_strstatus(f->status));
    return f->status;
}

/* Remembers the value in memory as what a flight may fall back to. */
static void attach_stale(struct perf__flight *f, int64_t now)
{
    struct perf__hit hit;
    perf_value *value = NULL;
    if (perf__memory_get(f->op.cache->memory, &f->op.key, now, &value, &hit) != PERF_OK)
        return;
    if (hit.kind == PERF__ENTRY_VALUE) {
        f->stale = value;
        f->hit = hit;
    } else {
        perf_value_release(value);
    }
}

/* What a refresh means for the caller who found an old value. */
enum refreshed { KEEP_OLD, GAVE_NEW, GONE };

/*
 * Refreshes a key whose present value can be served. With a soft limit the caller waits that
 * long for the new one. *rc: for GAVE_NEW, how giving it went.
 */
static enum refreshed refresh(const struct perf__op *op, const perf_loader *loader,
                              const struct perf__out *out, int64_t now, int64_t soft_ms, int *rc)
{
    struct perf__flight *mine, *f;
    bool leader;
    enum refreshed result = KEEP_OLD;
    if (flight_new(op, loader, now, &mine))
        return KEEP_OLD;
    mine->refresh = true;
    attach_stale(mine, now);
    flight_join(mine, &f, &leader);
    bool here = leader && !flight_dispatch(f);
    if (here) /* nobody can do it for us, and nobody else is doing it */
        flight_run(f);
    if (here || (soft_ms > 0 && flight_wait(f, leader, perf__deadline_after(soft_ms)) == PERF_OK)) {
        if (f->status == PERF_OK) {
            *rc = give_result(op, out, f, now);
            result = GAVE_NEW;
        } else if (f->status == PERF_MISS) {
            result = GONE;
        }
    }
    flight_unref(f);
    return result;
}

/* XFetch: refresh early with a probability that rises toward the end of life, the sooner the
 * longer the load takes (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache
 * Stampede Prevention", VLDB 2015). Or after a fixed share of the life. */
static bool wants_refresh(const struct perf__op *op, const struct perf__hit *hit, int64_t now)
{
    const perf_namespace_options *policy = &op->policy->options;
    int64_t left = hit->fresh_until - now, life = hit->fresh_until - hit->born;
    if (policy->refresh_ahead_percent &&
        now - hit->born >= life / 100 * policy->refresh_ahead_percent +
                               life % 100 * policy->refresh_ahead_percent / 100)
        return true;
    if (!policy->early_refresh_permille || !hit->load_ms)
        return false;
    double scale = (double)hit->load_ms * (double)policy->early_refresh_permille / 1000;
    if ((double)left > 37 * scale) /* beyond -ln of the smallest u below */
        return false;
    double u = ((double)(perf__thread_random() >> 11) + 1) * 0x1p-53;
    return -log(u) * scale >= (double)left;
}

static void out_release(const struct perf__out *out)
{
    if (out->value) {
        perf_value_release(*out->value);
        *out->value = NULL;
    }
}

static int load_missing(const struct perf__op *op, const perf_loader *loader,
                        const struct perf__out *out, int64_t now)
{
    struct perf__flight *mine, *f;
    bool leader;
    int rc = flight_new(op, loader, now, &mine);
    if (rc)
        return rc;
    flight_join(mine, &f, &leader);
    int64_t deadline = earlier(perf__deadline_after(loader->wait_ms), f->give_up_at);
    if (leader && !(deadline && flight_dispatch(f)))
        flight_run(f);
    else if (!(rc = flight_wait(f, leader, deadline)) && !leader)
        perf__count(op, PERF__LOADS_SUPPRESSED, 1);
    if (!rc)
        rc = give_result(op, out, f, now);
    flight_unref(f);
    return rc;
}

/* out holds the present value: gives it, or a newer one in its place. */
static int serve_and_refresh(const struct perf__op *op, const perf_loader *loader,
                             const struct perf__out *out, enum perf__state state, int64_t now)
{
    perf_value *value = NULL;
    size_t len = 0;
    int rc = PERF_OK;
    struct perf__out fresh = *out;
    if (out->value)
        fresh.value = &value;
    else
        fresh.len = &len;
    int64_t soft_ms = state == PERF__STALE ? op->policy->options.soft_timeout_ms : 0;
    switch (refresh(op, loader, &fresh, now, soft_ms, &rc)) {
    case KEEP_OLD:
        perf__count(op, PERF__MEMORY_HITS, 1);
        if (state == PERF__STALE)
            perf__count(op, PERF__STALE_HITS, 1);
        return PERF_OK;
    case GONE:
        out_release(out);
        return PERF_MISS;
    case GAVE_NEW:
        break;
    }
    out_release(out);
    if (out->value)
        *out->value = value;
    else
        *out->len = len;
    return rc;
}

static int get_or_load(const struct perf__op *op, const perf_loader *given,
                       const struct perf__out *out)
{
    perf_loader loader;
    perf_cache *cache = op->cache;
    int64_t now = 0;
    struct perf__hit hit;
    int status;
    enum perf__state state = perf__memory_lookup(op, out, &now, &hit, &status);
    if (state == PERF__FRESH &&
        (!perf__hit_ends(&hit) || status != PERF_OK || !wants_refresh(op, &hit, now))) {
        perf__count(op, PERF__MEMORY_HITS, 1);
        return status;
    }
    if (state == PERF__NEGATIVE) {
        perf__count(op, PERF__NEGATIVE_HITS, 1);
        return status == PERF_MISS ? PERF_MISS
                                   : perf__fail(status,
                                                "the loader of namespace '%s' failed a "
                                                "moment ago: %s",
                                                op->ns->name, perf_strstatus(status));
    }
    int rc = perf__options_take("perf_loader", given, &loader, sizeof loader);
    if (rc)
        goto failed;
    if (!loader.load) {
        rc = perf__fail(PERF_EINVAL, "perf_loader.load is NULL; give the function that loads");
        goto failed;
    }
    if (!now)
        now = perf__cache_now(cache);
    if (state == PERF__ABSENT) {
        rc = load_missing(op, &loader, out, now);
    } else if (status != PERF_OK) {
        perf__count(op, PERF__STALE_HITS, 1);
        return status; /* the caller's buffer is too small for the present value */
    } else {
        rc = serve_and_refresh(op, &loader, out, state, now);
    }
    perf__events_deliver(&cache->events);
    return rc;

failed:
    if (state == PERF__FRESH || state == PERF__STALE)
        out_release(out);
    return rc;
}

int perf_cache_get_or_load(perf_cache *cache, const char *ns, const char *user, const void *key,
                           size_t key_len, const perf_loader *loader, perf_value **value)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!value || !loader)
        return perf__fail(PERF_EINVAL, "%s is NULL; give one", value ? "loader" : "value");
    perf_value *got = NULL;
    rc = get_or_load(&op, loader, &(struct perf__out){.value = &got});
    if (rc == PERF_OK)
        *value = got;
    return rc;
}

int perf_cache_get_or_load_copy(perf_cache *cache, const char *ns, const char *user,
                                const void *key, size_t key_len, const perf_loader *loader,
                                void *buf, size_t cap, size_t *len)
{
    struct perf__op op;
    int rc = perf__op_begin(&op, cache, ns, user, key, key_len);
    if (rc)
        return rc;
    if (!loader || !len || (!buf && cap))
        return perf__fail(PERF_EINVAL, "%s is NULL; give one",
                          !loader ? "loader"
                          : !len  ? "len"
                                  : "buf");
    return get_or_load(&op, loader, &(struct perf__out){.buf = buf, .cap = cap, .len = len});
}

/* ------------------------------------------------------------------- batch */

/* One missing item of a batch and the flight that brings it. */
struct seat {
    perf_lookup *item;
    struct perf__op op;
    struct perf__flight *flight;
    bool leader;
};

static void give_item(struct seat *seat, int64_t now)
{
    perf_lookup *item = seat->item;
    struct perf__out out = {item->buf ? NULL : &item->value, item->buf, item->cap, &item->len};
    item->status = give_result(&seat->op, &out, seat->flight, now);
    if (item->value)
        item->len = item->value->len;
}

/* Runs load_many once for the flights that are ours, in this thread. */
static int run_many(struct seat *seats, size_t count, const perf_loader *loader)
{
    perf_cache *cache = seats[0].op.cache;
    perf_load **loads = perf__calloc(&cache->host.allocator, count, sizeof *loads);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        struct perf__flight *f = seats[i].flight;
        if (!seats[i].leader)
            continue;
        if (!loads) {
            flight_land(f, PERF_ENOMEM);
            continue;
        }
        if (landed_meanwhile(f))
            continue;
        perf__count(&f->op, PERF__MISSES, 1);
        loads[n++] = &f->load;
    }
    if (!loads)
        return perf__fail_nomem("a batch of loads");
    if (n) {
        for (size_t i = 0; i < n; i++)
            enter(loads[i]->flight);
        int64_t begun = perf__now_ns(&cache->host.clock);
        int rc = loader->load_many(loads, n, loader->ctx);
        int64_t load_ns = perf__now_ns(&cache->host.clock) - begun;
        for (size_t i = n; i-- > 0;)
            leave(loads[i]->flight);
        for (size_t i = 0; i < n; i++) {
            struct perf__flight *f = loads[i]->flight;
            bool made = f->load.has_data || f->load.keep_stale;
            flight_finish(f, rc == PERF_OK && !made ? PERF_MISS : rc,
                          i ? 0 : load_ns); /* the batch's time counts once */
        }
    }
    perf__free(&cache->host.allocator, loads);
    return PERF_OK;
}

static int load_missing_many(struct seat *seats, size_t count, const perf_loader *loader,
                             int64_t now)
{
    int rc = PERF_OK;
    size_t n = 0;
    for (; n < count; n++) { /* the same key twice in a batch joins its own flight */
        struct perf__flight *mine;
        if ((rc = flight_new(&seats[n].op, loader, now, &mine)))
            break;
        attach_stale(mine, now);
        flight_join(mine, &seats[n].flight, &seats[n].leader);
    }
    if (n) {
        int run_rc = run_many(seats, n, loader);
        rc = rc ? rc : run_rc;
    }
    int64_t deadline = perf__deadline_after(loader->wait_ms);
    for (size_t i = 0; i < n; i++) {
        struct perf__flight *f = seats[i].flight;
        int wait_rc =
            seats[i].leader ? PERF_OK : flight_wait(f, false, earlier(deadline, f->give_up_at));
        if (wait_rc)
            seats[i].item->status = wait_rc;
        else
            give_item(&seats[i], now);
        if (!seats[i].leader && !wait_rc)
            perf__count(&seats[i].op, PERF__LOADS_SUPPRESSED, 1);
        flight_unref(f);
    }
    return rc;
}

int perf_cache_get_or_load_many(perf_cache *cache, const char *ns, const char *user,
                                perf_lookup *items, size_t count, const perf_loader *given,
                                size_t *hits)
{
    perf_loader loader;
    int rc = perf__cache_check(cache);
    if (rc)
        return rc;
    if ((!items && count) || !given)
        return perf__fail(PERF_EINVAL, "%s is NULL; give one", given ? "items" : "loader");
    if ((rc = perf__options_take("perf_loader", given, &loader, sizeof loader)))
        return rc;
    if (!loader.load_many)
        return perf__fail(PERF_EINVAL, "perf_loader.load_many is NULL; give the function that "
                                       "loads a batch");
    if ((rc = perf__get_many(cache, ns, user, items, count, false))) {
        perf__items_settle(items, count);
        return rc;
    }
    size_t missing = 0, found = 0;
    for (size_t i = 0; i < count; i++)
        missing += items[i].status == PERF__ITEM_ABSENT;
    struct seat *seats = NULL;
    if (missing) {
        seats = perf__calloc(&cache->host.allocator, missing, sizeof *seats);
        if (!seats) {
            perf__items_settle(items, count);
            return perf__fail_nomem("a batch of loads");
        }
        size_t n = 0;
        for (size_t i = 0; i < count && !rc; i++) {
            if (items[i].status != PERF__ITEM_ABSENT)
                continue;
            items[i].status = PERF_MISS;
            seats[n].item = &items[i];
            rc = perf__op_begin(&seats[n++].op, cache, ns, user, items[i].key, items[i].key_len);
        }
        if (!rc)
            rc = load_missing_many(seats, missing, &loader, perf__cache_now(cache));
        perf__free(&cache->host.allocator, seats);
        perf__events_deliver(&cache->events);
    }
    for (size_t i = 0; i < count; i++)
        found += items[i].status == PERF_OK;
    if (hits)
        *hits = found;
    return rc;
}
