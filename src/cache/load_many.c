/* SPDX-License-Identifier: MIT */
/*
 * load_many.c - get_or_load for a batch: one call of the loader for all keys
 * that are missing and that nobody else is loading, here or in another process. Any thread.
 */
#include <string.h>

#include "flight.h"
#include "lease.h"

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
    item->status = perf__flight_give(&seat->op, &out, seat->flight, now);
    if (item->value)
        item->len = item->value->len;
}

/* Calls the loader for n flights, of which loads has room for as many handles. */
static void call_loader(struct perf__flight **flights, size_t n, perf_load **loads,
                        const perf_loader *loader)
{
    if (!n)
        return;
    perf_cache *cache = flights[0]->op.cache;
    for (size_t i = 0; i < n; i++) {
        loads[i] = &flights[i]->load;
        perf__count(&flights[i]->op, PERF__MISSES, 1);
        perf__flight_enter(flights[i]);
        perf__flight_hold(flights[i]);
    }
    int64_t begun = perf__now_ns(&cache->host.clock);
    int rc = loader->load_many(loads, n, loader->ctx);
    int64_t load_ns = perf__now_ns(&cache->host.clock) - begun;
    for (size_t i = n; i-- > 0;)
        perf__flight_leave(flights[i]);
    for (size_t i = 0; i < n; i++) { /* the leases of those behind last until it is their turn */
        struct perf__flight *f = flights[i];
        bool made = f->load.has_data || f->load.keep_stale;
        perf__flight_let_go(f);
        perf__flight_finish(f, rc == PERF_OK && !made ? PERF_MISS : rc,
                            i ? 0 : load_ns); /* the batch's time counts once */
    }
}

/* Runs load_many for the flights that are ours, in this thread: once, and once more if another
 * process was loading some of the keys and did not bring them. */
static int run_many(struct seat *seats, size_t count, const perf_loader *loader)
{
    perf_cache *cache = seats[0].op.cache;
    perf_load **loads = perf__calloc(&cache->host.allocator, count, 3 * sizeof *loads);
    struct perf__flight **flights = (struct perf__flight **)(loads + count), **all;
    size_t n = 0, waiting = 0, again = 0;
    for (size_t i = 0; i < count; i++) {
        struct perf__flight *f = seats[i].flight;
        if (!seats[i].leader)
            continue;
        if (!loads)
            perf__flight_land(f, PERF_ENOMEM);
        else if (!perf__flight_landed_meanwhile(f))
            flights[n++] = f;
    }
    if (!loads)
        return perf__fail_nomem("a batch of loads");
    all = flights + count;
    memcpy(all, flights, n * sizeof *all);
    size_t leased = n;
    if (n && cache->tier_count)
        n = perf__flights_take_leases(flights, n, &waiting);
    call_loader(flights, n, loads, loader); /* first ours: who waits for us may be waited for */
    for (size_t i = 0; i < waiting; i++)
        if (!perf__flight_left_to_others(flights[n + i]))
            flights[again++] = flights[n + i];
    call_loader(flights, again, loads, loader);
    for (size_t i = 0; i < leased; i++)
        perf__leases_end(&all[i]->op, &all[i]->leases);
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
        if ((rc = perf__flight_new(&seats[n].op, loader, now, &mine)))
            break;
        perf__flight_attach_stale(mine, now);
        seats[n].leader = perf__flight_join(mine, true, &seats[n].flight);
    }
    if (n) {
        int run_rc = run_many(seats, n, loader);
        rc = rc ? rc : run_rc;
    }
    int64_t deadline = perf__deadline_after(loader->wait_ms);
    for (size_t i = 0; i < n; i++) {
        struct perf__flight *f = seats[i].flight;
        int wait_rc = seats[i].leader
                          ? PERF_OK
                          : perf__flight_wait(f, perf__earlier(deadline, f->give_up_at));
        if (wait_rc)
            seats[i].item->status = wait_rc;
        else
            give_item(&seats[i], now);
        if (!seats[i].leader && !wait_rc)
            perf__count(&seats[i].op, PERF__LOADS_SUPPRESSED, 1);
        perf__flight_unref(f);
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
    perf__items_settle(items, count); /* of what an error kept from being asked for */
    for (size_t i = 0; i < count; i++)
        found += items[i].status == PERF_OK;
    if (hits)
        *hits = found;
    return rc;
}
