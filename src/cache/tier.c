/* SPDX-License-Identifier: MIT */
/*
 * tier.c - many threads' changes become few commits, in order.
 *
 * One commit is under way at a time. Whoever needs one and finds none takes the
 * oldest changes as a batch, commits them without holding the mutex, and wakes
 * those who wait: a leader and its followers (DeWitt et al., "Implementation
 * techniques for main memory database systems", SIGMOD 1984, on group commit).
 * With write-behind a background job is the leader; a caller leads only when it
 * waits for room or for a flush, so no caller ever waits for a thread that may
 * not come.
 *
 * A change is seen by reads from its submission until the store has it. When
 * the store fails, callers are told (write-through) or the batch is tried again
 * a few times and given up (write-behind); either way the record's older
 * version must not come back, so a removal stays behind as a repair that goes
 * first with the next commit. A batch that the store refuses because of what is
 * in it is taken apart, so that one bad change fails alone. When there are more
 * repairs than the queue may hold, they become one mark: everything in the tier
 * that is older than now is dead.
 *
 * A remote store is behind a breaker: once it has failed for a while nobody waits
 * for it, and perf__tier_recover tries now and then.
 *
 * Memory for a commit is taken when the tier is opened: committing never fails
 * for want of it. Lock order: the tier's mutex, then the background pool's.
 */
#include "tier.h"

#include <libperf/resilience.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/log.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../metrics/counter.h"
#include "tier_queue.h"

enum {
    BATCH_CHANGES = 512,
    BATCH_BYTES = 1 << 20,
    ATTEMPTS = 4, /* of a write-behind batch, 10, 40 and 160 ms apart */
    FIRST_BACKOFF_MS = 10,
    BACKOFF_FACTOR = 4,
    FAILURE_RANGES = 128, /* results of failed changes that are remembered for their waiters */
    TEXT_SIZE = 320,
    MAX_TIMEOUT_MS = 3600000,
    DEFAULT_TIMEOUT_MS = 1000,
    MIN_QUEUE_BYTES = 4096,
    DEFAULT_QUEUE_BYTES = 16 << 20,
    BREAKER_CALLS = 4, /* the last so many decide: the first calls of an outage pay for it */
    BREAKER_OPEN_MS = 250,
    BREAKER_OPEN_MAX_MS = 2000
};

static const uint64_t default_max_bytes = (uint64_t)1 << 30;

enum { COUNT_HITS, COUNT_MISSES, COUNT_ERRORS, COUNT_DAMAGED, COUNT_SKIPPED, COUNT_LEASES, COUNTS };

/* Tickets first..last failed with rc. */
struct failure {
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
    struct failure failures[FAILURE_RANGES];
    size_t failure_count;      /* all that were ever written down; the oldest are overwritten */
    uint64_t forgotten_ticket; /* the last ticket of those */
    char text[TEXT_SIZE];      /* the sentence of the last failed commit */

    /* Owned by whoever set committing. */
    struct perf__change *batch[BATCH_CHANGES];
    perf_store_op ops[BATCH_CHANGES];
    size_t batch_size;
};

/* -------------------------------------------------------------- open, close */

static void run_job(struct perf__job *job);

static int complete_options(const perf_tier_options *given, perf_tier_options *own)
{
    int rc = perf__options_take("perf_tier_options", given, own, sizeof *own);
    if (rc)
        return rc;
    if (!own->max_bytes)
        own->max_bytes = default_max_bytes;
    if (!own->timeout_ms)
        own->timeout_ms = DEFAULT_TIMEOUT_MS;
    if (!own->queue_max_bytes)
        own->queue_max_bytes = DEFAULT_QUEUE_BYTES;
    if ((rc = perf__check_range("perf_tier_options.timeout_ms", own->timeout_ms, 1,
                                MAX_TIMEOUT_MS)) ||
        (rc = perf__check_range("perf_tier_options.write_mode", own->write_mode, PERF_WRITE_THROUGH,
                                PERF_WRITE_BEHIND)) ||
        (rc = perf__check_range("perf_tier_options.sync", own->sync, PERF_SYNC_NORMAL,
                                PERF_SYNC_FULL)) ||
        (rc = perf__check_range("perf_tier_options.queue_full", own->queue_full, PERF_FULL_BLOCK,
                                PERF_FULL_DROP)))
        return rc;
    if (own->queue_max_bytes < MIN_QUEUE_BYTES || own->queue_max_bytes > SIZE_MAX / 4)
        return perf__fail(PERF_EINVAL, "perf_tier_options.queue_max_bytes is %llu; give %d or more",
                          (unsigned long long)own->queue_max_bytes, MIN_QUEUE_BYTES);
    return PERF_OK;
}

/* Throttling counts: a tier that refuses is no help either, and the source has the value. */
static int open_breaker(struct perf__tier *t, int64_t timeout_ms)
{
    perf_breaker_options o = PERF_BREAKER_OPTIONS_INIT;
    if (!(perf__store_capabilities(t->store) & PERF_STORE_REMOTE))
        return PERF_OK;
    o.window_calls = o.minimum_calls = BREAKER_CALLS;
    o.failure_percent = 100;
    o.slow_ms = 2 * timeout_ms;
    o.half_open_calls = 1;
    o.open_ms = BREAKER_OPEN_MS;
    o.open_max_ms = BREAKER_OPEN_MAX_MS;
    o.probe_timeout_ms = 2 * timeout_ms;
    o.failure_kinds =
        1 << PERF_OUTCOME_TRANSIENT | 1 << PERF_OUTCOME_TIMEOUT | 1 << PERF_OUTCOME_THROTTLED;
    o.host = &t->host->view;
    return perf_breaker_open(&o, &t->breaker);
}

int perf__tier_open(const perf_tier_options *options, const struct perf__host *host,
                    struct perf__background *background, struct perf__marks *marks,
                    struct perf__tier **out)
{
    perf_tier_options own;
    int rc = complete_options(options, &own);
    if (rc)
        return rc;
    struct perf__tier *t = perf__calloc(&host->allocator, 1, sizeof *t);
    if (!t)
        return perf__fail_nomem("a tier");
    t->host = host;
    t->background = background;
    t->marks = marks;
    t->behind = own.write_mode == PERF_WRITE_BEHIND;
    t->drop_when_full = own.queue_full == PERF_FULL_DROP;
    t->queue_max_bytes = (size_t)own.queue_max_bytes;
    t->job.run = run_job;
    perf__queue_init(&t->pending, &host->allocator);
    rc = perf__counters_init(&t->counters, &host->allocator, COUNTS);
    if (rc)
        goto no_counters;
    if (pthread_mutex_init(&t->mutex, NULL)) {
        rc = perf__fail_nomem("a tier's locks");
        goto no_mutex;
    }
    if (perf__cond_init(&t->changed)) {
        rc = perf__fail_nomem("a tier's locks");
        goto no_cond;
    }
    rc = perf__store_open(&own, host, &t->store);
    if (rc)
        goto no_store;
    rc = open_breaker(t, own.timeout_ms);
    if (rc)
        goto no_breaker;
    *out = t;
    return PERF_OK;

no_breaker:
    perf__store_close(t->store);
no_store:
    pthread_cond_destroy(&t->changed);
no_cond:
    pthread_mutex_destroy(&t->mutex);
no_mutex:
    perf__counters_destroy(&t->counters);
no_counters:
    perf__free(&host->allocator, t);
    return rc;
}

/* ------------------------------------------------------------------ failures */

/* Failures that lie in the change and not in the store: alone, the others may pass. */
static bool is_refusal(int rc)
{
    return rc == PERF_EINVAL || rc == PERF_ETOOBIG || rc == PERF_ENOMEM || rc == PERF_EUNSUPPORTED;
}

/* Writes down what a waiter will be told. */
static void remember_failure(struct perf__tier *t, uint64_t ticket, int rc)
{
    struct failure *newest = &t->failures[(t->failure_count - 1) % FAILURE_RANGES];
    if (t->failure_count && newest->last + 1 == ticket && newest->rc == rc) {
        newest->last = ticket;
        return;
    }
    struct failure *slot = &t->failures[t->failure_count % FAILURE_RANGES];
    if (t->failure_count >= FAILURE_RANGES)
        t->forgotten_ticket = slot->last;
    *slot = (struct failure){ticket, ticket, rc};
    t->failure_count++;
}

static int find_failure(const struct perf__tier *t, uint64_t ticket)
{
    size_t kept = t->failure_count < FAILURE_RANGES ? t->failure_count : FAILURE_RANGES;
    for (size_t i = 0; i < kept; i++)
        if (ticket >= t->failures[i].first && ticket <= t->failures[i].last)
            return t->failures[i].rc;
    /* So many failed in between that ours may have been forgotten: never claim success. */
    return ticket <= t->forgotten_ticket ? PERF_EIO : PERF_OK;
}

/* A change that was not kept: who is told, what is counted, what stays behind. */
static void lose(struct perf__tier *t, struct perf__change *change, int rc)
{
    struct perf__change_view *view = perf__change_view(change);
    if (!view->repair) {
        t->done_ticket = view->ticket;
        if (t->behind)
            t->dropped++;
        else
            remember_failure(t, view->ticket, rc);
        if ((t->behind || t->closing) && !t->lost_rc)
            t->lost_rc = rc;
    }
    if (is_refusal(rc))
        perf__queue_drop(&t->pending, change);
    else
        perf__queue_repair(&t->pending, change);
}

/* -------------------------------------------------------------------- breaker */

/* One call of the store, which a breaker may forbid. */
struct asked {
    uint64_t permit;
    int64_t begun_ms;
};

/* Forbidden: PERF_EUNAVAILABLE, and nothing was tried. */
static int ask(struct perf__tier *t, struct asked *asked)
{
    if (!t->breaker)
        return PERF_OK;
    if (perf_breaker_try(t->breaker, &asked->permit) == PERF_OK) {
        asked->begun_ms = perf__now_ms(&t->host->clock);
        return PERF_OK;
    }
    perf__counters_add(&t->counters, COUNT_SKIPPED, 1);
    return perf__fail(PERF_EUNAVAILABLE,
                      "tier \"%s\" has failed a moment ago and is left alone for now",
                      perf__store_name(t->store));
}

static int answered(struct perf__tier *t, const struct asked *asked, int rc)
{
    if (t->breaker)
        perf_breaker_report(t->breaker, asked->permit, perf_outcome_of_status(rc),
                            perf__now_ms(&t->host->clock) - asked->begun_ms);
    return rc;
}

bool perf__tier_distrusts(const struct perf__tier *t, int64_t stamp)
{
    return stamp <= atomic_load_explicit(&t->distrust_until, memory_order_relaxed);
}

/*
 * More repairs than may be kept: what they would have removed must stay dead all the same. One
 * mark says so to the store, when it is back, and through it to other processes; until then this
 * process believes nothing older that the tier says.
 */
static void summarise_repairs(struct perf__tier *t)
{
    int64_t stamp = t->marks ? perf__marks_stamp(t->marks) : perf__realtime_ms(&t->host->clock);
    const perf_store_op op = {
        .kind = PERF_STORE_MARK, .mark_kind = PERF__MARK_ALL, .mark_stamp_ms = stamp};
    struct perf__change *mark = perf__change_new(&t->host->allocator, &op);
    if (!mark || !perf__queue_append(&t->pending, mark, false)) {
        if (mark)
            perf__change_free(&t->pending, mark);
        return; /* no memory now: the repairs stay a little above their bound */
    }
    atomic_store_explicit(&t->distrust_until, stamp, memory_order_relaxed);
    while (t->pending.repairs.first)
        perf__queue_drop(&t->pending, t->pending.repairs.first);
    perf__queue_repair(&t->pending, mark);
}

/* ------------------------------------------------------------------- commits */

/* Those who ask for young marks only must not miss one that comes late. To kill a little more is
 * allowed: a cache may forget anything. */
static void refresh_mark(struct perf__tier *t, perf_store_op *op)
{
    int64_t now = perf__realtime_ms(&t->host->clock);
    if (op->kind == PERF_STORE_MARK && op->mark_stamp_ms > 0 &&
        op->mark_stamp_ms < now - PERF__MARKS_LATE_MS)
        op->mark_stamp_ms = now;
}

static void take_list(struct perf__tier *t, const struct perf__tier_list *list, size_t *bytes)
{
    for (struct perf__change *c = list->first; c && t->batch_size < BATCH_CHANGES;
         c = perf__change_next(c)) {
        struct perf__change_view *view = perf__change_view(c);
        if (t->batch_size && *bytes + view->bytes > BATCH_BYTES)
            return;
        *bytes += view->bytes;
        view->in_flight = true;
        refresh_mark(t, &view->op);
        t->ops[t->batch_size] = view->op;
        t->batch[t->batch_size++] = c;
    }
}

/* One by one, after the store refused them together. Without the mutex. */
static int apply_apart(struct perf__tier *t)
{
    int rc = PERF_OK;
    for (size_t i = 0; i < t->batch_size; i++) {
        struct perf__change_view *view = perf__change_view(t->batch[i]);
        if (rc && !is_refusal(rc)) {
            view->rc = rc; /* the store itself went away meanwhile */
            continue;
        }
        perf_store_op op = t->ops[i];
        rc = view->rc = perf__store_apply(t->store, &op, 1);
        if (is_refusal(rc) && op.kind == PERF_STORE_SET) {
            /* What was there before is no longer true. */
            char text[TEXT_SIZE];
            strncpy(text, perf_last_error(), sizeof text - 1);
            text[sizeof text - 1] = '\0';
            op.kind = PERF_STORE_REMOVE;
            op.record = (perf_bytes){"", 0};
            int removed = perf__store_apply(t->store, &op, 1);
            if (removed && !is_refusal(removed))
                rc = view->rc = removed;
            else
                perf__fail(rc, "%s", text);
        }
    }
    return rc && !is_refusal(rc) ? rc : PERF_OK;
}

/* Commits ops; every change of the batch gets its rc. Returns an error that is the store's. */
static int apply_batch(struct perf__tier *t)
{
    struct asked asked;
    int rc = ask(t, &asked);
    if (!rc)
        rc = answered(t, &asked, perf__store_apply(t->store, t->ops, t->batch_size));
    if (is_refusal(rc))
        return apply_apart(t);
    for (size_t i = 0; i < t->batch_size; i++)
        perf__change_view(t->batch[i])->rc = rc;
    return rc;
}

/* Between two attempts; ends early when the tier closes. */
static bool back_off(struct perf__tier *t, int64_t ms)
{
    int64_t deadline = perf__deadline_after(ms);
    pthread_mutex_lock(&t->mutex);
    while (!t->closing && perf__cond_wait(&t->changed, &t->mutex, deadline))
        continue;
    bool go_on = !t->closing;
    pthread_mutex_unlock(&t->mutex);
    return go_on;
}

/* After a failure of the store: what would meet it too does not wait for its turn. */
static void lose_more(struct perf__tier *t, int rc, size_t most)
{
    for (; t->pending.queue.first && most; most--)
        lose(t, t->pending.queue.first, rc);
}

/* Books what apply_batch left. */
static void settle(struct perf__tier *t, int rc)
{
    size_t kept = 0, from_queue = 0, failed = 0;
    for (size_t i = 0; i < t->batch_size; i++) {
        struct perf__change_view *view = perf__change_view(t->batch[i]);
        from_queue += !view->repair;
        if (view->rc) {
            failed++;
            lose(t, t->batch[i], view->rc);
            continue;
        }
        kept++;
        t->repaired += view->repair;
        if (!view->repair)
            t->done_ticket = view->ticket;
        perf__queue_drop(&t->pending, t->batch[i]);
    }
    t->writes += kept;
    t->commits += kept > 0;
    if (failed)
        perf__counters_add(&t->counters, COUNT_ERRORS, 1);
    if (rc && !t->behind)
        lose_more(t, rc, SIZE_MAX);
    else if (rc && !from_queue)
        lose_more(t, rc, BATCH_CHANGES);
    if (t->pending.repairs.bytes > t->queue_max_bytes)
        summarise_repairs(t);
}

/* Once a burst: a store that fails a thousand times is one event. Without the mutex. */
static void report(struct perf__tier *t, int rc, bool was_down)
{
    const char *name = perf__store_name(t->store);
    if (rc && !was_down)
        perf__log(&t->host->log, PERF_LOG_WARNING, "cache",
                  "tier \"%s\" fails, its writes are lost until it works again: %s", name, t->text);
    else if (!rc && was_down)
        perf__log(&t->host->log, PERF_LOG_INFO, "cache", "tier \"%s\" works again", name);
}

/*
 * Commits one batch; the mutex is held, given up meanwhile, and held again.
 * Nobody else is committing and something is pending. patient: try again when
 * the store fails. Returns the store's error, or PERF_OK.
 */
static int commit(struct perf__tier *t, bool patient)
{
    t->committing = true;
    t->batch_size = 0;
    size_t bytes = 0;
    take_list(t, &t->pending.repairs, &bytes);
    take_list(t, &t->pending.queue, &bytes);
    bool was_down = t->down;
    int attempts = patient && !was_down && !t->closing ? ATTEMPTS : 1;
    pthread_mutex_unlock(&t->mutex);

    int64_t backoff_ms = FIRST_BACKOFF_MS;
    int rc = apply_batch(t);
    while (rc && --attempts && back_off(t, backoff_ms)) {
        backoff_ms *= BACKOFF_FACTOR;
        rc = apply_batch(t);
    }

    pthread_mutex_lock(&t->mutex);
    bool any_failed = rc != PERF_OK;
    for (size_t i = 0; i < t->batch_size && !any_failed; i++)
        any_failed = perf__change_view(t->batch[i])->rc != PERF_OK;
    if (any_failed) {
        strncpy(t->text, perf_last_error(), sizeof t->text - 1);
        t->text[sizeof t->text - 1] = '\0';
    }
    t->down = rc != PERF_OK;
    settle(t, rc);
    if ((rc != 0) != was_down) {
        pthread_mutex_unlock(&t->mutex);
        report(t, rc, was_down);
        pthread_mutex_lock(&t->mutex);
    }
    t->committing = false;
    pthread_cond_broadcast(&t->changed);
    return rc;
}

/* Sees to it that a write-behind queue empties. The mutex is held. */
static void kick(struct perf__tier *t)
{
    while (t->behind && t->pending.queue.first && !t->committing && !t->job_queued && !t->closing) {
        if (t->background && !perf__background_submit(t->background, &t->job)) {
            t->job_queued = true;
            return;
        }
        commit(t, false); /* no thread to be had: the caller does it */
    }
}

/* One batch a run: others' jobs come in between. */
static void run_job(struct perf__job *job)
{
    struct perf__tier *t = (struct perf__tier *)((char *)job - offsetof(struct perf__tier, job));
    pthread_mutex_lock(&t->mutex);
    if (t->pending.queue.first && !t->committing)
        commit(t, true);
    t->job_queued = false;
    kick(t);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mutex);
}

/* ------------------------------------------------------------------- changes */

/* Waits for a commit to end, or makes one. The mutex is held. */
static int commit_or_wait(struct perf__tier *t)
{
    if (!t->committing)
        return commit(t, false);
    perf__cond_wait(&t->changed, &t->mutex, 0);
    return PERF_OK;
}

static bool has_room(const struct perf__tier *t, const struct perf__change *change, size_t max)
{
    const struct perf__tier_list *queue = &t->pending.queue;
    return !queue->count ||
           queue->bytes + perf__change_view((struct perf__change *)change)->bytes <= max;
}

int perf__tier_submit(struct perf__tier *t, const perf_store_op *op, uint64_t *ticket)
{
    if (op->kind < PERF_STORE_SET || op->kind > PERF_STORE_MARK)
        return perf__fail(PERF_EINVAL, "perf_store_op.kind is %lld; give a PERF_STORE_ operation",
                          (long long)op->kind);
    struct perf__change *change = perf__change_new(&t->host->allocator, op);
    if (!change)
        return perf__fail_nomem("a change on its way to a tier");
    int rc = PERF_OK;
    pthread_mutex_lock(&t->mutex);
    if (t->behind && t->drop_when_full && op->kind == PERF_STORE_SET &&
        !has_room(t, change, t->queue_max_bytes)) {
        perf_store_op remove = *op;
        remove.kind = PERF_STORE_REMOVE;
        struct perf__change *smaller = perf__change_new(&t->host->allocator, &remove);
        if (smaller) { /* else it waits for room like any other */
            perf__change_free(&t->pending, change);
            change = smaller;
            t->dropped++;
        }
    }
    /* Removals that stand for dropped records may go over the bound, within reason. */
    size_t max = t->drop_when_full ? 2 * t->queue_max_bytes : t->queue_max_bytes;
    while (t->behind && !has_room(t, change, max))
        commit_or_wait(t);
    if (perf__queue_append(&t->pending, change, t->behind)) {
        *ticket = perf__change_view(change)->ticket = ++t->next_ticket;
        kick(t);
    } else {
        perf__change_free(&t->pending, change);
        rc = perf__fail_nomem("a change on its way to a tier");
    }
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

void perf__tier_push(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    if (t->pending.queue.first && !t->committing && !t->job_queued && !t->closing &&
        t->background && !perf__background_submit(t->background, &t->job))
        t->job_queued = true;
    pthread_mutex_unlock(&t->mutex);
}

int perf__tier_wait(struct perf__tier *t, uint64_t ticket)
{
    if (t->behind)
        return PERF_OK;
    pthread_mutex_lock(&t->mutex);
    while (t->done_ticket < ticket && (t->committing || t->pending.queue.first))
        commit_or_wait(t);
    int rc = find_failure(t, ticket);
    if (rc)
        perf__fail(rc, "%s", t->text);
    pthread_mutex_unlock(&t->mutex);
    return rc;
}

void perf__tier_recover(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    if (t->pending.repairs.first && !t->committing && !t->closing)
        commit(t, false);
    pthread_mutex_unlock(&t->mutex);
}

int perf__tier_flush(struct perf__tier *t)
{
    pthread_mutex_lock(&t->mutex);
    uint64_t target = t->next_ticket;
    int rc = PERF_OK;
    bool tried = false;
    /* What an earlier failure left behind gets a try of its own; one is enough. */
    while (t->committing || t->done_ticket < target || (t->pending.repairs.first && !tried)) {
        if (!t->committing && !t->pending.queue.first && !t->pending.repairs.first)
            break;
        tried |= !t->committing;
        int one = commit_or_wait(t);
        if (one && !rc)
            rc = one;
    }
    kick(t);
    if (!rc)
        rc = t->lost_rc;
    if (rc)
        perf__fail(rc, "%s", t->text);
    t->lost_rc = PERF_OK;
    pthread_mutex_unlock(&t->mutex);
    int flushed = perf__store_flush(t->store);
    if (flushed)
        perf__counters_add(&t->counters, COUNT_ERRORS, 1);
    return rc ? rc : flushed;
}

int perf__tier_close(struct perf__tier *t)
{
    if (!t)
        return PERF_OK;
    pthread_mutex_lock(&t->mutex);
    t->closing = true;
    pthread_cond_broadcast(&t->changed);
    while (t->committing || t->job_queued)
        perf__cond_wait(&t->changed, &t->mutex, 0);
    int rc = PERF_OK;
    while (!rc && (t->pending.queue.first || t->pending.repairs.first))
        rc = commit(t, false);
    if (rc)
        lose_more(t, rc, SIZE_MAX);
    if (t->lost_rc)
        rc = t->lost_rc;
    if (rc)
        perf__fail(rc, "%s", t->text);
    perf__queue_clear(&t->pending);
    pthread_mutex_unlock(&t->mutex);
    perf__store_close(t->store);
    (void)!perf_breaker_close(t->breaker);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mutex);
    perf__counters_destroy(&t->counters);
    perf__free(&t->host->allocator, t);
    return rc;
}

void perf__tier_abandon(struct perf__tier *t)
{
    if (!t)
        return;
    /* The mutex may be held by a thread that does not exist here; we are alone. A batch in
     * flight is still listed, so this finds everything. */
    perf__queue_clear(&t->pending);
    perf__store_abandon(t->store);
    (void)!perf_breaker_close(t->breaker);
    perf__counters_destroy(&t->counters);
    perf__free(&t->host->allocator, t);
}

/* --------------------------------------------------------------------- reads */

static int count_read(struct perf__tier *t, int rc)
{
    perf__counters_add(&t->counters,
                       rc == PERF_OK     ? COUNT_HITS
                       : rc == PERF_MISS ? COUNT_MISSES
                                         : COUNT_ERRORS,
                       1);
    return rc;
}

/* What the pending changes say about a record: true when they know. */
static bool read_pending(struct perf__tier *t, const perf_store_key *key, perf_store_reply *reply,
                         int *rc)
{
    if (!atomic_load_explicit(&t->pending.indexed, memory_order_acquire))
        return false;
    pthread_mutex_lock(&t->mutex);
    struct perf__change *change = perf__queue_find(&t->pending, key->id);
    struct perf__pending_record *record = change ? perf__change_record(change) : NULL;
    pthread_mutex_unlock(&t->mutex);
    if (!change)
        return false;
    reply->found = false;
    *rc = PERF_MISS;
    if (record) {
        *rc = perf_store_reply_set(reply, record->data, record->len);
        pthread_mutex_lock(&t->mutex);
        perf__record_release(&t->pending, record);
        pthread_mutex_unlock(&t->mutex);
    }
    return true;
}

int perf__tier_get(struct perf__tier *t, const perf_store_key *key, perf_store_reply *reply)
{
    int rc;
    struct asked asked;
    if (!read_pending(t, key, reply, &rc)) {
        if ((rc = ask(t, &asked)))
            return rc;
        rc = answered(t, &asked, perf__store_get(t->store, key, reply));
    }
    return count_read(t, rc);
}

/* The keys that the pending changes know are answered; the others become one batch. */
int perf__tier_get_many(struct perf__tier *t, const perf_store_key *keys, size_t count,
                        perf_store_reply *const *replies)
{
    const perf_allocator *allocator = &t->host->allocator;
    const perf_store_key *asked = keys;
    perf_store_reply *const *answers = replies;
    perf_store_key *some_keys = NULL;
    perf_store_reply **some_replies = NULL;
    size_t left = count;
    int rc = PERF_OK;
    if (count > SIZE_MAX / sizeof *keys)
        return perf__fail_nomem("a batch get");
    if (atomic_load_explicit(&t->pending.indexed, memory_order_acquire)) {
        some_keys = perf__alloc(allocator, count * sizeof *some_keys);
        some_replies = perf__alloc(allocator, count * sizeof *some_replies);
        if (!some_keys || !some_replies) {
            rc = perf__fail_nomem("a batch get");
            goto out;
        }
        left = 0;
        for (size_t i = 0; i < count; i++) {
            int one;
            if (!read_pending(t, &keys[i], replies[i], &one)) {
                some_keys[left] = keys[i];
                some_replies[left++] = replies[i];
            } else if (one < 0) {
                rc = one;
                goto out;
            }
        }
        asked = some_keys;
        answers = some_replies;
    }
    bool skipped = false;
    if (left) {
        struct asked call;
        skipped = (rc = ask(t, &call)) != PERF_OK;
        if (!skipped)
            rc = answered(t, &call, perf__store_get_many(t->store, asked, left, answers));
    }
    if (rc && !skipped)
        perf__counters_add(&t->counters, COUNT_ERRORS, 1);
    size_t hits = 0;
    for (size_t i = 0; i < count; i++)
        hits += replies[i]->found;
    perf__counters_add(&t->counters, COUNT_HITS, hits);
    if (!rc)
        perf__counters_add(&t->counters, COUNT_MISSES, count - hits);
out:
    perf__free(allocator, some_keys);
    perf__free(allocator, some_replies);
    return rc;
}

int perf__tier_marks(struct perf__tier *t, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    struct asked asked;
    int rc = ask(t, &asked);
    if (rc)
        return rc;
    rc = answered(t, &asked, perf__store_marks(t->store, since_ms, each, ctx));
    if (rc)
        perf__counters_add(&t->counters, COUNT_ERRORS, 1);
    return rc;
}

size_t perf__tier_sweep(struct perf__tier *t, int64_t now_ms, size_t budget)
{
    size_t removed = 0;
    if (perf__store_sweep(t->store, now_ms, budget, &removed))
        perf__counters_add(&t->counters, COUNT_ERRORS, 1);
    return removed;
}

/* ------------------------------------------------------------ shared by processes */

uint64_t perf__tier_capabilities(const struct perf__tier *t)
{
    return perf__store_capabilities(t->store);
}

int perf__tier_listen(struct perf__tier *t, const perf_store_listener *listener)
{
    return perf__store_listen(t->store, listener);
}

int perf__tier_lease(struct perf__tier *t, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t *token)
{
    struct asked asked;
    int rc = ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__store_lease(t->store, key, ttl_ms, token);
    (void)!answered(t, &asked, rc == PERF_EBUSY ? PERF_OK : rc);
    if (rc == PERF_OK)
        perf__counters_add(&t->counters, COUNT_LEASES, 1);
    return rc;
}

int perf__tier_lease_many(struct perf__tier *t, const perf_store_key *keys, size_t count,
                          int64_t ttl_ms, uint64_t *tokens)
{
    struct asked asked;
    int rc = ask(t, &asked);
    if (rc)
        return rc;
    rc = answered(t, &asked, perf__store_lease_many(t->store, keys, count, ttl_ms, tokens));
    uint64_t given = 0;
    for (size_t i = 0; i < count && !rc; i++)
        given += tokens[i] != 0;
    perf__counters_add(&t->counters, COUNT_LEASES, given);
    return rc;
}

int perf__tier_renew(struct perf__tier *t, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t token)
{
    struct asked asked;
    int rc = ask(t, &asked);
    if (rc)
        return rc;
    rc = perf__store_renew(t->store, key, ttl_ms, token);
    (void)!answered(t, &asked, rc == PERF_EBUSY ? PERF_OK : rc);
    return rc;
}

void perf__tier_unlease(struct perf__tier *t, const perf_store_key *key, uint64_t token)
{
    struct asked asked;
    if (ask(t, &asked) == PERF_OK) /* else it ends by itself */
        (void)!answered(t, &asked, perf__store_unlease(t->store, key, token));
}

/* ---------------------------------------------------------------- statistics */

void perf__tier_count_damaged(struct perf__tier *t)
{
    perf__counters_add(&t->counters, COUNT_DAMAGED, 1);
}

void perf__tier_stats(struct perf__tier *t, perf_tier_stats *stats)
{
    perf_store_usage usage;
    perf__store_usage(t->store, &usage); /* all zero when the store cannot say */
    *stats = (perf_tier_stats){.struct_size = sizeof *stats};
    stats->backend = perf__store_name(t->store);
    stats->hits = perf__counters_sum(&t->counters, COUNT_HITS);
    stats->misses = perf__counters_sum(&t->counters, COUNT_MISSES);
    stats->errors = perf__counters_sum(&t->counters, COUNT_ERRORS);
    stats->damaged = perf__counters_sum(&t->counters, COUNT_DAMAGED);
    stats->records = usage.records;
    stats->bytes = usage.bytes;
    stats->read_units_milli = usage.read_units_milli;
    stats->write_units_milli = usage.write_units_milli;
    pthread_mutex_lock(&t->mutex);
    stats->writes = t->writes;
    stats->commits = t->commits;
    stats->dropped = t->dropped;
    stats->queued = t->pending.queue.count + t->pending.repairs.count;
    stats->repairs = t->pending.repairs.count;
    stats->repaired = t->repaired;
    pthread_mutex_unlock(&t->mutex);
    stats->skipped = perf__counters_sum(&t->counters, COUNT_SKIPPED);
    stats->leases = perf__counters_sum(&t->counters, COUNT_LEASES);
    stats->breaker = t->breaker ? perf_breaker_state(t->breaker) : PERF_BREAKER_CLOSED;
}
