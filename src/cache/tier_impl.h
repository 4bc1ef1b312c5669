/* SPDX-License-Identifier: MIT */
/*
 * tier_impl.h - what the files of a tier share about it. Private to tier*.c.
 *
 * Lock order: the tier's mutex, then the background pool's. The store is called
 * without the mutex.
 */
#ifndef PERF_CACHE_TIER_IMPL_H
#define PERF_CACHE_TIER_IMPL_H

#include <libperf/resilience.h>
#include <pthread.h>

#include "../metrics/counter.h"
#include "tier.h"
#include "tier_queue.h"

enum {
    PERF__TIER_BATCH = 512,    /* changes of one commit */
    PERF__TIER_FAILURES = 128, /* results of failed changes that are remembered for their waiters */
    PERF__TIER_TEXT = 320
};

/* Counters. */
enum {
    PERF__TIER_HITS,
    PERF__TIER_MISSES,
    PERF__TIER_ERRORS,
    PERF__TIER_DAMAGED,
    PERF__TIER_SKIPPED,
    PERF__TIER_LEASES,
    PERF__TIER_COUNTS
};

/* Tickets first..last failed with rc. */
struct perf__tier_failure {
    uint64_t first, last;
    int rc;
};

struct perf__tier {
    const struct perf__host *host;
    struct perf__background *background;
    struct perf__store *store;
    bool behind, drop_when_full;
    size_t queue_max_bytes;
    perf_breaker *breaker;          /* of a remote store, else NULL */
    struct perf__marks *marks;      /* of the cache, for stamps; may be NULL */
    _Atomic int64_t distrust_until; /* records with a stamp up to this are not believed; 0 none */
    struct perf__counters counters;

    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a commit ended, the job ended, or the tier closes */

    /* Under the mutex. */
    struct perf__tier_queue pending;
    struct perf__job job;
    uint64_t next_ticket, done_ticket; /* all up to done_ticket are decided */
    bool committing, job_queued, closing;
    bool down; /* the last commit failed: say so once */
    uint64_t writes, commits, dropped, repaired;
    int lost_rc; /* first error of a write that nobody waits for, since the last flush */
    struct perf__tier_failure failures[PERF__TIER_FAILURES];
    size_t failure_count;       /* all that were ever written down; the oldest are overwritten */
    uint64_t forgotten_ticket;  /* the last ticket of those */
    char text[PERF__TIER_TEXT]; /* the sentence of the last failed commit */

    /* Owned by whoever set committing. */
    struct perf__change *batch[PERF__TIER_BATCH];
    perf_store_op ops[PERF__TIER_BATCH];
    size_t batch_size;
};

/* tier_breaker.c: one call of the store, which a breaker may forbid. */
struct perf__asked {
    uint64_t permit;
    int64_t begun_ms;
};

/* Gives a tier with a remote store its breaker. */
int perf__tier_open_breaker(struct perf__tier *t, int64_t timeout_ms);
/* Before a call. Forbidden: PERF_EUNAVAILABLE, and nothing was tried. */
int perf__tier_ask(struct perf__tier *t, struct perf__asked *asked);
/* After a call that was not forbidden: rc is what came of it, and is returned. */
int perf__tier_answered(struct perf__tier *t, const struct perf__asked *asked, int rc);

/* tier_commit.c, all under the mutex. perf__tier_commit makes one batch's commit: the mutex is
 * given up meanwhile, nobody else is committing, and something is pending. patient: tries again
 * when the store fails. Returns the store's error, or PERF_OK. */
int perf__tier_commit(struct perf__tier *t, bool patient);
/* Waits for a commit to end, or makes one. */
int perf__tier_commit_or_wait(struct perf__tier *t);
/* Sees to it that a write-behind queue empties. */
void perf__tier_kick(struct perf__tier *t);
/* The background's job; takes the mutex itself. */
void perf__tier_run_job(struct perf__job *job);

/* tier_repair.c, all under the mutex but the first. Failures that lie in the change and not in the
 * store: alone, the others may pass. */
bool perf__tier_is_refusal(int rc);
/* What became of the change with this ticket, which is decided. */
int perf__tier_find_failure(const struct perf__tier *t, uint64_t ticket);
/* A change that was not kept: who is told, what is counted, what stays behind. */
void perf__tier_lose(struct perf__tier *t, struct perf__change *change, int rc);
/* After a failure of the store: what would meet it too does not wait for its turn. */
void perf__tier_lose_more(struct perf__tier *t, int rc, size_t most);
/* Makes one mark of more repairs than may be kept. */
void perf__tier_summarise_repairs(struct perf__tier *t);

#endif
