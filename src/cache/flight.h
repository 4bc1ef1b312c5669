/* SPDX-License-Identifier: MIT */
/*
 * flight.h - one load under way, shared by the files that begin, run and wait for
 * loads: flight.c (its life), load.c (what the loader sees), loader.c (get_or_load)
 * and load_many.c (the same for a batch). See loader.h.
 */
#ifndef PERF_CACHE_FLIGHT_H
#define PERF_CACHE_FLIGHT_H

#include "loader.h"

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
    uint32_t refs, waiters; /* the leader is a waiter from birth */
    bool listed, done, refresh;
    struct perf__flight
        *blocked_on;               /* what the thread that runs this one waits for; see flight.c */
    int64_t renew_at, renew_until; /* of the leases, on the cache's clock; 0: not now */
    /* Written before the flight is shared, or by the thread that runs it before done */
    perf_loader loader; /* ctx is ours when own_ctx */
    bool own_ctx;
    struct perf__write write;
    struct perf__watch watch;
    struct perf__leases leases; /* under which the result is written */
    perf_value *stale;          /* what may be served if the load fails */
    perf_load load;
    struct perf__hit hit; /* of the result */
    int status;
    int64_t give_up_at; /* hard limit, on perf__cond_wait's clock; 0 none */
    atomic_bool cancelled;
    struct perf__flight *outer; /* the flight whose loader began this one in the same thread */
    uint8_t tag_buf[PERF__TAG_BYTES];
    char bytes[]; /* user with a zero byte, key */
};

/* A flight for op, with copies of all that the caller owns. One reference. PERF_OK, PERF_ENOMEM, or
 * what is wrong with the loader's options. */
int perf__flight_new(const struct perf__op *op, const perf_loader *loader, int64_t now,
                     struct perf__flight **out);
void perf__flight_unref(struct perf__flight *f);

/* Joins the flight of a key, or lists mine as its flight: *flight is the one to use, with a
 * reference for the caller; mine is consumed. True when it is mine, to be run by the caller. A
 * joiner that waits_for the flight counts as a waiter at once and calls perf__flight_wait. */
bool perf__flight_join(struct perf__flight *mine, bool waits_for, struct perf__flight **flight);

/* Is this key being loaded? */
bool perf__flight_is_listed(const struct perf__op *op);

/* Remembers the value in memory as what a flight may fall back to. */
void perf__flight_attach_stale(struct perf__flight *f, int64_t now);

/* Hands a flight to the background, with a ctx of its own. False: run it here. */
bool perf__flight_dispatch(struct perf__flight *f);
void perf__flight_run(struct perf__flight *f);

/* The parts of a run, for a batch that runs many at once: has another flight brought the value
 * meanwhile; around the loader's call, for the circles of waiting loads; what the loader returned;
 * waking those who wait (the caller's reference stays). */
bool perf__flight_landed_meanwhile(struct perf__flight *f);
void perf__flight_enter(struct perf__flight *f);
void perf__flight_leave(struct perf__flight *f);
void perf__flight_finish(struct perf__flight *f, int rc, int64_t load_ns);
void perf__flight_land(struct perf__flight *f, int status);

/* The same for leases: take those of many, and put those to wait for behind those to load (returns
 * how many that are; the others of the n have landed); wait for another process until it has
 * brought the value (true) or we have the lease or no time; renew while a loader runs. */
size_t perf__flights_take_leases(struct perf__flight **flights, size_t n, size_t *waiting);
bool perf__flight_left_to_others(struct perf__flight *f);
void perf__flight_hold(struct perf__flight *f);
void perf__flight_let_go(struct perf__flight *f);

/* Waits until a flight lands or the deadline passes (0: none); ends one wait of a joiner, or the
 * leader's. PERF_OK, PERF_ETIMEDOUT, PERF_EDEADLK. */
int perf__flight_wait(struct perf__flight *f, int64_t deadline);

/* Gives a landed flight's result to one caller. */
int perf__flight_give(const struct perf__op *op, const struct perf__out *out,
                      struct perf__flight *f, int64_t now);

/* Of two deadlines, of which 0 is none. */
static inline int64_t perf__earlier(int64_t a, int64_t b)
{
    return !a ? b : !b ? a : a < b ? a : b;
}

#endif
