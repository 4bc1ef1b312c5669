/* SPDX-License-Identifier: MIT */
/*
 * loader.c - get_or_load: one load for all who ask, deadlines for each of them,
 * and stale values meanwhile. Any thread; see loader.h for the lock.
 */
#include <math.h>

#include "flight.h"

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
    enum refreshed result = KEEP_OLD;
    if (perf__flight_new(op, loader, now, &mine))
        return KEEP_OLD;
    mine->refresh = true;
    perf__flight_attach_stale(mine, now);
    bool leader = perf__flight_join(mine, soft_ms > 0, &f);
    bool here = leader && !perf__flight_dispatch(f);
    if (here) /* nobody can do it for us, and nobody else is doing it */
        perf__flight_run(f);
    if (here || (soft_ms > 0 && perf__flight_wait(f, perf__deadline_after(soft_ms)) == PERF_OK)) {
        if (f->status == PERF_OK) {
            *rc = perf__flight_give(op, out, f, now);
            result = GAVE_NEW;
        } else if (f->status == PERF_MISS) {
            result = GONE;
        }
    }
    perf__flight_unref(f);
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
    int rc = perf__flight_new(op, loader, now, &mine);
    if (rc)
        return rc;
    bool leader = perf__flight_join(mine, true, &f);
    int64_t deadline = perf__earlier(perf__deadline_after(loader->wait_ms), f->give_up_at);
    if (leader && !(deadline && perf__flight_dispatch(f)))
        perf__flight_run(f);
    else if (!(rc = perf__flight_wait(f, deadline)) && !leader)
        perf__count(op, PERF__LOADS_SUPPRESSED, 1);
    if (!rc)
        rc = perf__flight_give(op, out, f, now);
    perf__flight_unref(f);
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
