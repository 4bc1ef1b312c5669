/* SPDX-License-Identifier: MIT */
/*
 * lease.h - the right to bring what is being made into a tier that others share.
 *
 * A lease is taken before a value is loaded or read from a tier further down, and goes
 * along with the write: a tier that keeps leases leaves the write out when
 * anybody changed the key meanwhile. The first tier's lease is also what makes one
 * process load and the others wait. (Nishtala et al., "Scaling Memcache at Facebook", NSDI
 * 2013, section 3.2.1.) Plain data; belongs to one call or one flight.
 */
#ifndef PERF_CACHE_LEASE_H
#define PERF_CACHE_LEASE_H

#include "cache_impl.h"

/* A token that no tier ever gives: a write under it is always left out. */
#define PERF__LEASE_OF_OTHERS UINT64_MAX

/* Does tier number i keep leases, and does the namespace want them? */
bool perf__lease_wanted(const struct perf__op *op, size_t i);

/* Takes the lease of one tier, unless it is there already. PERF_OK, PERF_EBUSY (somebody else has
 * it) or the tier's error; in both cases the later write to this tier is left out. */
int perf__lease_take(const struct perf__op *op, size_t i, struct perf__leases *leases);

/* Takes those of all tiers; what the first tier that keeps leases said. PERF_OK without any. */
int perf__leases_take(const struct perf__op *op, struct perf__leases *leases);

enum { PERF__LEASES_GROUP = 64 };

/* The same for many keys of one namespace, a batch a tier. busy[k]: another has the first tier's
 * lease of ops[k]. A tier that fails makes nobody wait. */
void perf__leases_take_many(const struct perf__op *const *ops, struct perf__leases *const *leases,
                            size_t count, bool *busy);

/* How long a lease is taken for, in milliseconds. */
int64_t perf__lease_ms(const struct perf__op *op);
/* Has them all last that long from now on, those that are still held. */
void perf__leases_renew(const struct perf__op *op, const struct perf__leases *leases);
/* Is one of them ours? */
bool perf__leases_any(const struct perf__leases *leases);

/* Gives back those that no write has used. */
void perf__leases_end(const struct perf__op *op, struct perf__leases *leases);

#endif
