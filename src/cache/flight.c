/* SPDX-License-Identifier: MIT */
/*
 * flight.c - the life of one load: born, joined, run, landed, waited for.
 *
 * A flight watches its key, and notes a stamp when it begins. If the key was
 * written or deleted since, or a mark made, its result is not stored (it still
 * goes to those who joined before), and later callers begin a new flight
 * instead of joining. Any thread; see loader.h for the lock.
 */
#include "flight.h"
#include "lease.h"

#include <string.h>

/* The innermost flight that this thread is running: thread-local because it is about the
 * thread's own call stack. */
static _Thread_local struct perf__flight *running;

/*
 * Guards blocked_on of all flights: process-wide, because the loader of one cache may wait for a
 * load of another. Who sets it holds a reference to what it points to until it is cleared, so a
 * walk along it under this mutex meets living flights only. Taken under flights.mutex or alone.
 */
static pthread_mutex_t waits = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t waits_once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    pthread_mutex_lock(&waits);
}
static void after_fork(void)
{
    pthread_mutex_unlock(&waits);
}
static void survive_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

/* What this thread's innermost flight waits for, from now on; NULL: nothing. */
static void block_on(struct perf__flight *f)
{
    if (!running)
        return;
    pthread_mutex_lock(&waits);
    running->blocked_on = f;
    pthread_mutex_unlock(&waits);
}

int perf__flights_init(struct perf__flights *flights, const struct perf__host *host)
{
    memset(flights, 0, sizeof *flights);
    if (pthread_mutex_init(&flights->mutex, NULL))
        return perf__fail_nomem("the table of loads");
    flights->host = host;
    pthread_once(&waits_once, survive_forks);
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

void perf__flight_unref(struct perf__flight *f)
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
int perf__flight_new(const struct perf__op *op, const perf_loader *loader, int64_t now,
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
bool perf__flight_join(struct perf__flight *mine, bool waits_for, struct perf__flight **flight)
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
        other->waiters += waits_for;
        if (waits_for && !flights->closing) /* somebody waits again */
            atomic_store(&other->cancelled, false);
        *flight = other;
        pthread_mutex_unlock(&flights->mutex);
        flight_free(mine);
        return false;
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
    pthread_mutex_unlock(&flights->mutex);
    return true;
}

bool perf__flight_is_listed(const struct perf__op *op)
{
    struct perf__flights *flights = &op->cache->flights;
    struct perf__hash_key uthash_secret = op->cache->secret;
    struct perf__flight *f;
    pthread_mutex_lock(&flights->mutex);
    HASH_FIND(hh, flights->table, &op->key.hash, sizeof op->key.hash, f);
    bool listed = f && same_key(&f->op, op);
    pthread_mutex_unlock(&flights->mutex);
    return listed;
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
    f->write.leases = f->leases.token;
    f->hit = (struct perf__hit){.fresh_until = life.fresh_until,
                                .dead_at = life.dead_at,
                                .born = now,
                                .load_ms = f->write.load_ms};
    int rc = outdated(f) ? PERF_ECONFLICT : perf__write_all(op, now, &f->write, &f->hit.version);
    if (rc == PERF_ECONFLICT)
        perf__count(op, PERF__LOADS_DISCARDED, 1);
    else
        f->leases = (struct perf__leases){{0}}; /* the writes have ended them */
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
void perf__flight_land(struct perf__flight *f, int status)
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
void perf__flight_finish(struct perf__flight *f, int rc, int64_t load_ns)
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
    perf__flight_land(f, status);
}

void perf__flight_enter(struct perf__flight *f)
{
    f->outer = running;
    block_on(f);
    running = f;
}

void perf__flight_leave(struct perf__flight *f)
{
    running = f->outer;
    block_on(NULL);
}

static void land_found(struct perf__flight *f, const struct perf__found *found)
{
    int rc = perf_load_set(&f->load, found->record.value.data, found->record.value.len);
    f->hit = found->hit;
    perf__count(&f->op, PERF__TIER_HITS, 1);
    perf__flight_land(f, rc);
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
    int rc = perf__tiers_find(&f->op, now, &found);
    f->leases = found.leases;
    if (rc == PERF_OK) {
        if (found.hit.kind == PERF__ENTRY_VALUE && now < found.hit.fresh_until) {
            land_found(f, &found);
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
bool perf__flight_landed_meanwhile(struct perf__flight *f)
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
        perf__flight_land(f, rc);
        landed = true;
    }
    perf_value_release(value);
    return landed;
}

/* Has another process brought the value since we looked? Asks the first tier with leases only. */
static bool landed_from_others(struct perf__flight *f)
{
    const struct perf__op *op = &f->op;
    size_t tier = 0;
    while (tier < op->cache->tier_count && !perf__lease_wanted(op, tier))
        tier++;
    if (f->refresh || tier == op->cache->tier_count)
        return false;
    struct perf__found found;
    int64_t now = perf__cache_now(op->cache);
    bool landed = perf__tier_find(op, now, tier, &found) == PERF_OK &&
                  found.hit.kind == PERF__ENTRY_VALUE && now < found.hit.fresh_until;
    if (landed)
        land_found(f, &found);
    perf__found_free(&found);
    return landed;
}

/* Sleeps for a while. False: nobody waits for this flight any more. */
static bool pause_for(struct perf__flight *f, int64_t ms)
{
    struct perf__flights *flights = &f->op.cache->flights;
    int64_t until = perf__earlier(perf__deadline_after(ms), f->give_up_at);
    pthread_mutex_lock(&flights->mutex);
    while (perf__cond_wait(&f->done_cond, &flights->mutex, until))
        continue;
    pthread_mutex_unlock(&flights->mutex);
    return !atomic_load(&f->cancelled) && until != f->give_up_at;
}

/*
 * One process loads, the others wait until it has, or died, or our own time is over. True: the
 * flight has landed with what another brought, or is a refresh that another does.
 */
bool perf__flight_left_to_others(struct perf__flight *f)
{
    enum { FIRST_MS = 2, LAST_MS = 50 };
    const struct perf__op *op = &f->op;
    int64_t wait_ms = FIRST_MS;
    if (!op->cache->tier_count)
        return false;
    while (perf__leases_take(op, &f->leases) == PERF_EBUSY) {
        if (f->refresh) {
            perf__flight_land(f, PERF_EBUSY);
            return true;
        }
        if (!pause_for(f, wait_ms))
            return false;
        if (landed_from_others(f))
            return true;
        wait_ms = wait_ms < LAST_MS ? wait_ms * 2 : LAST_MS;
    }
    /* Whoever had it before may have brought the value between our look and our lease. */
    return landed_from_others(f);
}

/* The same look for many of a batch: takes those out that have landed. */
static size_t without_landed(struct perf__flight **flights, size_t n)
{
    enum { GROUP = PERF__TIER_GROUP };
    size_t tier = 0, left = 0;
    const struct perf__op *first = &flights[0]->op;
    perf_cache *cache = first->cache;
    while (tier < cache->tier_count && !perf__lease_wanted(first, tier))
        tier++;
    if (tier == cache->tier_count)
        return n;
    for (size_t from = 0; from < n; from += GROUP) {
        struct perf__op ops[GROUP];
        struct perf__found found[GROUP];
        int statuses[GROUP];
        size_t count = n - from < GROUP ? n - from : GROUP;
        int64_t now = perf__cache_now(cache);
        for (size_t i = 0; i < count; i++)
            ops[i] = flights[from + i]->op;
        perf__tier_find_many(ops, count, now, tier, found, statuses);
        for (size_t i = 0; i < count; i++) {
            struct perf__flight *f = flights[from + i];
            if (statuses[i] == PERF_OK && found[i].hit.kind == PERF__ENTRY_VALUE &&
                now < found[i].hit.fresh_until)
                land_found(f, &found[i]);
            else
                flights[left++] = f;
            perf__found_free(&found[i]);
        }
    }
    return left;
}

size_t perf__flights_take_leases(struct perf__flight **flights, size_t n, size_t *waiting)
{
    enum { GROUP = PERF__LEASES_GROUP };
    struct perf__flight *others[GROUP];
    size_t ours = 0, behind = 0; /* of all so far; those to wait for lie behind those to load */
    *waiting = 0;
    for (size_t from = 0; from < n; from += GROUP) {
        const struct perf__op *ops[GROUP];
        struct perf__leases *leases[GROUP];
        bool busy[GROUP];
        struct perf__flight *mine[GROUP];
        size_t count = n - from < GROUP ? n - from : GROUP, got = 0, wait = 0;
        for (size_t i = 0; i < count; i++) {
            ops[i] = &flights[from + i]->op;
            leases[i] = &flights[from + i]->leases;
        }
        perf__leases_take_many(ops, leases, count, busy);
        for (size_t i = 0; i < count; i++)
            *(busy[i] ? &others[wait++] : &mine[got++]) = flights[from + i];
        if (got)
            got = without_landed(mine, got);
        memmove(flights + ours + got, flights + ours, behind * sizeof *flights);
        memcpy(flights + ours, mine, got * sizeof *flights);
        ours += got;
        memcpy(flights + ours + behind, others, wait * sizeof *flights);
        behind += wait;
    }
    *waiting = behind;
    return ours;
}

/* ------------------------------------------------------------- renewing leases */

/* A loader that hangs must not keep the others waiting for ever. */
enum { RENEWED_TIMES = 10 };

void perf__flight_hold(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    if (!cache->tier_count || !perf__leases_any(&f->leases))
        return;
    int64_t ms = perf__lease_ms(&f->op), now = perf__cache_now(cache);
    pthread_mutex_lock(&cache->flights.mutex);
    f->renew_at = now + (ms + 1) / 2;
    f->renew_until = now + RENEWED_TIMES * ms;
    pthread_mutex_unlock(&cache->flights.mutex);
    perf__coherence_expect(cache, (ms + 1) / 2);
}

void perf__flight_let_go(struct perf__flight *f)
{
    pthread_mutex_lock(&f->op.cache->flights.mutex);
    f->renew_at = 0;
    pthread_mutex_unlock(&f->op.cache->flights.mutex);
}

/* A flight whose leases are due, held, and what they are; NULL: none. *next: when there will be. */
static struct perf__flight *next_due(struct perf__flights *flights, int64_t now, int64_t *next,
                                     struct perf__leases *leases)
{
    struct perf__flight *due = NULL;
    *next = INT64_MAX;
    pthread_mutex_lock(&flights->mutex);
    for (struct perf__flight *f = flights->table; f && !due; f = f->hh.next) {
        if (!f->renew_at || f->renew_at > f->renew_until)
            continue;
        if (f->renew_at <= now)
            due = f;
        else if (f->renew_at < *next)
            *next = f->renew_at;
    }
    if (due) {
        due->refs++;
        due->renew_at = now + (perf__lease_ms(&due->op) + 1) / 2;
        *leases = due->leases;
    }
    pthread_mutex_unlock(&flights->mutex);
    return due;
}

int64_t perf__flights_renew(perf_cache *cache, int64_t most)
{
    struct perf__flight *f;
    struct perf__leases leases;
    int64_t next, now = perf__cache_now(cache);
    while ((f = next_due(&cache->flights, now, &next, &leases))) {
        perf__leases_renew(&f->op, &leases);
        perf__flight_unref(f);
    }
    int64_t left = next == INT64_MAX ? most : next - perf__cache_now(cache);
    return left < 1 ? 1 : left < most ? left : most;
}

static void load(struct perf__flight *f);

void perf__flight_run(struct perf__flight *f)
{
    if (!perf__flight_landed_meanwhile(f) && !landed_from_tiers(f) &&
        !perf__flight_left_to_others(f))
        load(f);
    perf__leases_end(&f->op, &f->leases);
}

static void load(struct perf__flight *f)
{
    perf_cache *cache = f->op.cache;
    perf__flight_enter(f);
    if (!f->refresh)
        perf__count(&f->op, PERF__MISSES, 1);
    else
        perf__count(&f->op, PERF__REFRESHES, 1);
    int64_t begun = perf__now_ns(&cache->host.clock);
    perf__flight_hold(f);
    int rc = f->loader.load(&f->load, f->loader.ctx);
    perf__flight_let_go(f);
    int64_t load_ns = perf__now_ns(&cache->host.clock) - begun;
    perf__flight_leave(f);
    perf__flight_finish(f, rc, load_ns);
}

static void run_job(struct perf__job *job)
{
    struct perf__flight *f =
        (struct perf__flight *)((char *)job - offsetof(struct perf__flight, job));
    perf_cache *cache = f->op.cache;
    perf__flight_run(f);
    perf__flight_unref(f);
    perf__events_deliver(&cache->events);
}

/* Hands a flight to the background, with a ctx of its own. False: run it here. */
bool perf__flight_dispatch(struct perf__flight *f)
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

/* Would waiting for f close a circle? Under waits. */
static bool would_deadlock(const struct perf__flight *f)
{
    for (; f; f = f->blocked_on)
        for (const struct perf__flight *own = running; own; own = own->outer)
            if (f == own)
                return true;
    return false;
}

/* As block_on, unless that would close a circle: then false. */
static bool block_on_checked(struct perf__flight *f)
{
    if (!running)
        return true; /* nobody can be waiting for this thread */
    pthread_mutex_lock(&waits);
    bool circle = would_deadlock(f);
    if (!circle)
        running->blocked_on = f;
    pthread_mutex_unlock(&waits);
    return !circle;
}

/* Waits until a flight lands or the deadline passes (0: none). */
int perf__flight_wait(struct perf__flight *f, int64_t deadline)
{
    struct perf__flights *flights = &f->op.cache->flights;
    int rc = PERF_OK;
    pthread_mutex_lock(&flights->mutex);
    bool circle = !f->done && !block_on_checked(f);
    if (circle)
        rc = PERF_EDEADLK;
    while (!f->done && rc == PERF_OK)
        if (!perf__cond_wait(&f->done_cond, &flights->mutex, deadline) && !f->done)
            rc = PERF_ETIMEDOUT;
    if (!circle)
        block_on(NULL);
    if (--f->waiters == 0 && !f->done && !f->refresh)
        atomic_store(&f->cancelled, true);
    pthread_mutex_unlock(&flights->mutex);
    if (circle)
        perf__fail(rc, "a loader in namespace '%s' waits for its own key; load it directly",
                   f->op.ns->name);
    else if (rc)
        perf__fail(rc,
                   "the load in namespace '%s' took longer than the deadline; raise wait_ms "
                   "or the namespace's hard_timeout_ms, or give it a stale window",
                   f->op.ns->name);
    return rc;
}

/* Remembers the value in memory as what a flight may fall back to. */
void perf__flight_attach_stale(struct perf__flight *f, int64_t now)
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

/* Gives a landed flight's result to one caller. */
int perf__flight_give(const struct perf__op *op, const struct perf__out *out,
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
