/* SPDX-License-Identifier: MIT */
/*
 * tier.h - one tier below memory: a store with an ordered queue of changes.
 *
 * Changes of all threads become few commits. perf__tier_submit takes a change
 * in order and returns a ticket; perf__tier_wait returns when it is committed:
 * the first waiter becomes the leader and commits everything queued so far for
 * all of them (group commit without a thread). With write-behind a background
 * job does that instead, and reads look into the queue first, so a process
 * always reads its own writes. Any thread.
 */
#ifndef PERF_CACHE_TIER_H
#define PERF_CACHE_TIER_H

#include "../store/store.h"
#include "background.h"
#include "invalidate.h"

struct perf__tier;

/* options are checked and completed here (names field, value, fix). background may be used
 * from now on; it, host and marks (NULL: the clock gives stamps) outlive the tier. */
int perf__tier_open(const perf_tier_options *options, const struct perf__host *host,
                    struct perf__background *background, struct perf__marks *marks,
                    struct perf__tier **out);

/* Commits what is queued, closes the store. First error of a lost write, or PERF_OK. */
int perf__tier_close(struct perf__tier *tier);
void perf__tier_abandon(struct perf__tier *tier); /* after fork(), in the child */

/* Queues one change (everything copied); changes are committed in the order of submission.
 * *ticket is for perf__tier_wait. Never blocks on the store, except for room in a full
 * write-behind queue (PERF_FULL_BLOCK). PERF_OK or PERF_ENOMEM. */
int perf__tier_submit(struct perf__tier *tier, const perf_store_op *op, uint64_t *ticket);

/* Write-through: returns when the ticket's change is committed, with its result.
 * Write-behind: returns PERF_OK at once. */
int perf__tier_wait(struct perf__tier *tier, uint64_t ticket);

/* Has what was submitted committed soon, by a background thread, though nobody waits for it. */
void perf__tier_push(struct perf__tier *tier);

/* Reads, seeing queued changes first. As perf__store_get. A failing store is an error. */
int perf__tier_get(struct perf__tier *tier, const perf_store_key *key, perf_store_reply *reply);
int perf__tier_get_many(struct perf__tier *tier, const perf_store_key *keys, size_t count,
                        perf_store_reply *const *replies);

/* Marks that a tier gets later than this after they were made are as of then, and who asks for
 * young marks only goes back so far before what it has read: more than that, and clocks and the
 * time of a call. */
enum { PERF__MARKS_LATE_MS = 10000, PERF__MARKS_OVERLAP_MS = 60000 };

/* Those with a stamp of since_ms or later. */
int perf__tier_marks(struct perf__tier *tier, int64_t since_ms, perf_store_mark_fn each, void *ctx);
int perf__tier_flush(struct perf__tier *tier);
size_t perf__tier_sweep(struct perf__tier *tier, int64_t now_ms, size_t budget);

/* Tries to write what the tier missed while it failed, if anything and if its breaker lets it. */
void perf__tier_recover(struct perf__tier *tier);
/* Is a record with this stamp older than a removal that the tier may have missed? */
bool perf__tier_distrusts(const struct perf__tier *tier, int64_t stamp);

/* For tiers that other processes share; as the entries of perf_store_vtable. */
uint64_t perf__tier_capabilities(const struct perf__tier *tier);
int perf__tier_listen(struct perf__tier *tier, const perf_store_listener *listener);
int perf__tier_lease(struct perf__tier *tier, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t *token);
/* *token is 0 before. For many: tokens[i] becomes 0 where somebody else has the lease. */
int perf__tier_lease_many(struct perf__tier *tier, const perf_store_key *keys, size_t count,
                          int64_t ttl_ms, uint64_t *tokens);
/* PERF_EBUSY: it is held no more. */
int perf__tier_renew(struct perf__tier *tier, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t token);
void perf__tier_unlease(struct perf__tier *tier, const perf_store_key *key, uint64_t token);

/* The cache found a record it could not believe: counts it. */
void perf__tier_count_damaged(struct perf__tier *tier);
void perf__tier_stats(struct perf__tier *tier, perf_tier_stats *stats);

#endif
