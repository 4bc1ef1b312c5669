/* SPDX-License-Identifier: MIT */
/*
 * breaker.c - the circuit breaker: CLOSED, OPEN, HALF_OPEN and back.
 *
 * One word holds the state and its number, the generation, which grows with
 * every change. While CLOSED nothing else is looked at before a call, and after
 * it the window counts; both without a lock. All else happens rarely, under the
 * mutex. A permit carries the generation (and while HALF_OPEN its probe's place
 * and ticket), so a report of an earlier state is known as such. Any thread;
 * on_change is called with no lock held.
 */
#include <pthread.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "window.h"

enum {
    PERMITTED,
    REJECTED,
    SUCCEEDED,
    FAILED,
    SLOW,
    LATE,
    LOST_PROBES,
    OPENED,
    COUNTERS,
    CHANGES_KEPT = 32,
    STATE_BITS = 3,
};

/* One place for a probe while HALF_OPEN. */
struct probe {
    enum { PROBE_FREE, PROBE_OUT, PROBE_DONE } state;
    uint16_t ticket; /* of its newest holder */
    int64_t since_ns;
};

struct perf_breaker {
    struct perf__part part;
    perf_breaker_options options;
    _Atomic uint64_t state; /* generation << STATE_BITS | PERF_BREAKER_... */
    _Atomic int64_t open_until_ns;
    struct perf__window window;
    pthread_mutex_t mutex; /* for all that follows, and for changing state */
    bool has_mutex;
    int64_t openings; /* one after the other, without a CLOSED in between */
    struct probe *probes;
    struct perf__window_sums probed;
    perf_breaker_change changes[CHANGES_KEPT];
    uint64_t first_change, next_change, lost_changes;
};

/* A permit: 1 bit set, so that none is 0; 15 bits of place, 16 of ticket, 32 of generation. */
static uint64_t permit_of(uint64_t state, uint32_t place, uint16_t ticket)
{
    return UINT64_C(1) << 63 | (uint64_t)place << 48 | (uint64_t)ticket << 32 |
           (uint32_t)(state >> STATE_BITS);
}

static int state_of(uint64_t word)
{
    return (int)(word & ((1u << STATE_BITS) - 1));
}

static uint16_t generation_of(uint64_t word)
{
    return (uint16_t)(word >> STATE_BITS);
}

/* ------------------------------------------------------------- open, close */

static int check_options(perf_breaker_options *o)
{
    const int64_t all = (1 << (PERF_OUTCOME_IGNORED + 1)) - 1;
    int rc;
    if ((rc = perf__check_range("window", o->window, PERF_BREAKER_COUNT, PERF_BREAKER_TIME)) ||
        (rc = perf__option("window_calls", &o->window_calls, 100, 1, PERF__WINDOW_MAX_CALLS)) ||
        (rc = perf__option("window_ms", &o->window_ms, 100000, PERF__WINDOW_SLICES,
                           PERF__LONG_MS)) ||
        (rc = perf__option("minimum_calls", &o->minimum_calls, 100, 1, 1000000)) ||
        (rc = perf__option("failure_percent", &o->failure_percent, 50, 1, 100)) ||
        (rc = perf__option("slow_ms", &o->slow_ms, 60000, 1, PERF__LONG_MS)) ||
        (rc = perf__option("slow_percent", &o->slow_percent, 100, 1, 100)) ||
        (rc = perf__option("half_open_calls", &o->half_open_calls, 10, 1, 1000)) ||
        (rc = perf__option("open_ms", &o->open_ms, 60000, 1, PERF__LONG_MS)) ||
        (rc =
             perf__option("open_max_ms", &o->open_max_ms, o->open_ms, o->open_ms, PERF__LONG_MS)) ||
        (rc = perf__option("probe_timeout_ms", &o->probe_timeout_ms, 60000, 1, PERF__LONG_MS)) ||
        (rc = perf__option("failure_kinds", &o->failure_kinds,
                           1 << PERF_OUTCOME_TRANSIENT | 1 << PERF_OUTCOME_TIMEOUT, 1, all)))
        return rc;
    if (o->window == PERF_BREAKER_COUNT && o->minimum_calls > o->window_calls)
        o->minimum_calls = o->window_calls;
    return PERF_OK;
}

static void breaker_free(perf_breaker *breaker)
{
    bool usable = perf__part_usable(&breaker->part);
    perf__window_destroy(&breaker->window, usable);
    if (breaker->has_mutex && usable)
        pthread_mutex_destroy(&breaker->mutex);
    perf__free(&breaker->part.host.allocator, breaker->probes);
    perf__part_free(&breaker->part);
}

int perf_breaker_open(const perf_breaker_options *given, perf_breaker **out)
{
    perf_breaker_options options;
    perf_breaker *breaker;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the breaker");
    if ((rc = perf__options_take("perf_breaker_options", given, &options, sizeof options)) ||
        (rc = check_options(&options)) ||
        (rc = perf__part_open("a breaker", options.host, sizeof *breaker, COUNTERS, &breaker)))
        return rc;
    const perf_allocator *allocator = &breaker->part.host.allocator;
    bool by_time = options.window == PERF_BREAKER_TIME;
    breaker->options = options;
    breaker->probes =
        perf__calloc(allocator, (size_t)options.half_open_calls, sizeof *breaker->probes);
    if (!breaker->probes) {
        rc = perf__fail_nomem("a breaker's probes");
        goto out;
    }
    if ((rc = perf__window_init(&breaker->window, allocator,
                                by_time ? 0 : (uint32_t)options.window_calls,
                                options.window_ms * 1000000)))
        goto out;
    pthread_mutex_init(&breaker->mutex, NULL); /* cannot fail with these attributes */
    breaker->has_mutex = true;
    perf__window_reset(&breaker->window, 0, perf__part_now(&breaker->part));
    *out = breaker;
out:
    if (rc)
        breaker_free(breaker);
    return rc;
}

int perf_breaker_close(perf_breaker *breaker)
{
    if (breaker)
        breaker_free(breaker);
    return PERF_OK;
}

/* ------------------------------------------------------------ changing state */

/* Under the mutex. *change is for tell(), after it. */
static void change_to(perf_breaker *breaker, int64_t to, int64_t now_ns,
                      perf_breaker_change *change)
{
    uint64_t old = atomic_load_explicit(&breaker->state, memory_order_relaxed);
    uint64_t generation = (old >> STATE_BITS) + 1;
    if (to == PERF_BREAKER_OPEN) {
        int64_t open_ms = breaker->options.open_ms;
        for (int64_t i = 0; i < breaker->openings && open_ms < breaker->options.open_max_ms; i++)
            open_ms *= 2;
        if (open_ms > breaker->options.open_max_ms)
            open_ms = breaker->options.open_max_ms;
        breaker->openings++;
        atomic_store(&breaker->open_until_ns, perf__add_ms(now_ns, open_ms));
        perf__part_count(&breaker->part, OPENED);
    } else if (to != PERF_BREAKER_HALF_OPEN) {
        breaker->openings = 0;
    }
    for (int64_t i = 0; i < breaker->options.half_open_calls; i++)
        breaker->probes[i].state = PROBE_FREE;
    breaker->probed = (struct perf__window_sums){0, 0, 0};
    perf__window_reset(&breaker->window, (uint16_t)generation, now_ns);
    *change = (perf_breaker_change){
        .struct_size = sizeof *change,
        .sequence = breaker->next_change + 1,
        .from = state_of(old),
        .to = to,
        .time_ms = perf__realtime_ms(&breaker->part.host.clock),
    };
    if (breaker->next_change - breaker->first_change == CHANGES_KEPT) {
        breaker->first_change++;
        breaker->lost_changes++;
    }
    breaker->changes[breaker->next_change++ % CHANGES_KEPT] = *change;
    atomic_store_explicit(&breaker->state, generation << STATE_BITS | (uint64_t)to,
                          memory_order_release);
}

static void tell(perf_breaker *breaker, const perf_breaker_change *change)
{
    if (change->sequence && breaker->options.on_change)
        breaker->options.on_change(breaker->options.ctx, change);
}

static bool reaches(uint32_t part, uint32_t whole, int64_t percent)
{
    return part && (int64_t)part * 100 >= (int64_t)whole * percent;
}

/* ------------------------------------------------------------------- before */

static int reject(perf_breaker *breaker, int state, int64_t now_ns)
{
    perf__part_count(&breaker->part, REJECTED);
    if (state == PERF_BREAKER_FORCED_OPEN)
        return perf__fail(PERF_EREJECTED,
                          "the breaker was forced open; perf_breaker_force ends it");
    if (state == PERF_BREAKER_HALF_OPEN)
        return perf__fail(PERF_EREJECTED, "the breaker is half open and all %lld probes are out",
                          (long long)breaker->options.half_open_calls);
    int64_t left = perf__ceil_ms(atomic_load(&breaker->open_until_ns) - now_ns);
    return perf__fail(PERF_EREJECTED,
                      "the breaker is open, for too much failed; it probes in %lld "
                      "ms",
                      (long long)left);
}

/* Under the mutex: a place that is free or whose holder has vanished. */
static bool take_probe(perf_breaker *breaker, int64_t now_ns, uint64_t *permit)
{
    const perf_breaker_options *o = &breaker->options;
    struct probe *found = NULL;
    for (int64_t i = 0; i < o->half_open_calls; i++) {
        struct probe *probe = &breaker->probes[i];
        if (probe->state == PROBE_FREE) {
            found = probe;
            break;
        }
        if (!found && probe->state == PROBE_OUT &&
            now_ns >= perf__add_ms(probe->since_ns, o->probe_timeout_ms))
            found = probe;
    }
    if (!found)
        return false;
    if (found->state == PROBE_OUT)
        perf__part_count(&breaker->part, LOST_PROBES);
    found->state = PROBE_OUT;
    found->ticket++;
    found->since_ns = now_ns;
    *permit =
        permit_of(atomic_load(&breaker->state), (uint32_t)(found - breaker->probes), found->ticket);
    return true;
}

/* OPEN may have to become HALF_OPEN first. */
static int try_slow(perf_breaker *breaker, uint64_t *permit)
{
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    int64_t now = perf__part_now(&breaker->part);
    if (state_of(atomic_load(&breaker->state)) == PERF_BREAKER_OPEN &&
        now < atomic_load(&breaker->open_until_ns))
        return reject(breaker, PERF_BREAKER_OPEN, now);
    bool granted = false;
    pthread_mutex_lock(&breaker->mutex);
    uint64_t word = atomic_load(&breaker->state);
    if (state_of(word) == PERF_BREAKER_OPEN && now >= atomic_load(&breaker->open_until_ns))
        change_to(breaker, PERF_BREAKER_HALF_OPEN, now, &change);
    word = atomic_load(&breaker->state);
    int state = state_of(word);
    if (state == PERF_BREAKER_HALF_OPEN) {
        granted = take_probe(breaker, now, permit);
    } else if (state == PERF_BREAKER_CLOSED || state == PERF_BREAKER_DISABLED) {
        granted = true;
        *permit = permit_of(word, 0, 0);
    }
    pthread_mutex_unlock(&breaker->mutex);
    tell(breaker, &change);
    if (!granted)
        return reject(breaker, state, now);
    perf__part_count(&breaker->part, PERMITTED);
    return PERF_OK;
}

int perf_breaker_try(perf_breaker *breaker, uint64_t *permit)
{
    int rc = perf__part_check(breaker ? &breaker->part : NULL, "breaker");
    if (rc)
        return rc;
    if (!permit)
        return perf__fail(PERF_EINVAL, "permit is NULL; give a place for it, to report it later");
    uint64_t word = atomic_load_explicit(&breaker->state, memory_order_acquire);
    int state = state_of(word);
    if (__builtin_expect(state != PERF_BREAKER_CLOSED && state != PERF_BREAKER_DISABLED, 0))
        return try_slow(breaker, permit);
    *permit = permit_of(word, 0, 0);
    perf__part_count(&breaker->part, PERMITTED);
    return PERF_OK;
}

/* -------------------------------------------------------------------- after */

static void report_closed(perf_breaker *breaker, uint64_t word, int flags)
{
    const perf_breaker_options *o = &breaker->options;
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    bool by_time = o->window == PERF_BREAKER_TIME, torn;
    struct perf__window_sums s =
        perf__window_add(&breaker->window, generation_of(word), flags,
                         by_time ? perf__part_now(&breaker->part) : 0, &torn);
    if (torn || s.calls < o->minimum_calls ||
        (!reaches(s.failed, s.calls, o->failure_percent) &&
         !reaches(s.slow, s.calls, o->slow_percent)))
        return;
    pthread_mutex_lock(&breaker->mutex);
    if (atomic_load(&breaker->state) == word)
        change_to(breaker, PERF_BREAKER_OPEN, perf__part_now(&breaker->part), &change);
    pthread_mutex_unlock(&breaker->mutex);
    tell(breaker, &change);
}

/* Under the mutex: does what the probes met so far already decide? -1: not yet. */
static int64_t verdict(const perf_breaker *breaker)
{
    const perf_breaker_options *o = &breaker->options;
    uint32_t whole = (uint32_t)o->half_open_calls, missing = whole - breaker->probed.calls;
    if (reaches(breaker->probed.failed, whole, o->failure_percent) ||
        reaches(breaker->probed.slow, whole, o->slow_percent))
        return PERF_BREAKER_OPEN;
    if (!reaches(breaker->probed.failed + missing, whole, o->failure_percent) &&
        !reaches(breaker->probed.slow + missing, whole, o->slow_percent))
        return PERF_BREAKER_CLOSED;
    return -1;
}

/* Finds the probe of a permit and takes it back; false for a late one. flags -1: unused. */
static bool report_probe(perf_breaker *breaker, uint64_t word, uint64_t permit, int flags)
{
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    bool counts = false;
    uint32_t place = (uint32_t)(permit >> 48) & 0x7fff;
    pthread_mutex_lock(&breaker->mutex);
    if (atomic_load(&breaker->state) == word && place < breaker->options.half_open_calls) {
        struct probe *probe = &breaker->probes[place];
        counts = probe->state == PROBE_OUT && probe->ticket == (uint16_t)(permit >> 32);
        if (counts && flags < 0) {
            probe->state = PROBE_FREE;
        } else if (counts) {
            probe->state = PROBE_DONE;
            breaker->probed.calls++;
            breaker->probed.failed += flags & PERF__CALL_FAILED ? 1 : 0;
            breaker->probed.slow += flags & PERF__CALL_SLOW ? 1 : 0;
            int64_t to = verdict(breaker);
            if (to >= 0)
                change_to(breaker, to, perf__part_now(&breaker->part), &change);
        }
    }
    pthread_mutex_unlock(&breaker->mutex);
    tell(breaker, &change);
    return counts;
}

void perf_breaker_report(perf_breaker *breaker, uint64_t permit, int64_t kind, int64_t duration_ms)
{
    if (!breaker || !perf__part_usable(&breaker->part) || !permit)
        return;
    const perf_breaker_options *o = &breaker->options;
    int flags = -1;
    if (perf__kind_valid(kind) && kind != PERF_OUTCOME_IGNORED && kind != PERF_OUTCOME_REJECTED)
        flags = (o->failure_kinds >> kind & 1 ? PERF__CALL_FAILED : 0) |
                (duration_ms > o->slow_ms ? PERF__CALL_SLOW : 0);
    uint64_t word = atomic_load_explicit(&breaker->state, memory_order_acquire);
    bool counts = (uint32_t)permit == (uint32_t)(word >> STATE_BITS);
    if (counts && state_of(word) == PERF_BREAKER_HALF_OPEN)
        counts = report_probe(breaker, word, permit, flags);
    else if (counts && state_of(word) == PERF_BREAKER_CLOSED && flags >= 0)
        report_closed(breaker, word, flags);
    if (!counts) {
        perf__part_count(&breaker->part, LATE);
    } else if (flags >= 0) {
        perf__part_count(&breaker->part, flags & PERF__CALL_FAILED ? FAILED : SUCCEEDED);
        if (flags & PERF__CALL_SLOW)
            perf__part_count(&breaker->part, SLOW);
    }
}

void perf_breaker_release(perf_breaker *breaker, uint64_t permit)
{
    perf_breaker_report(breaker, permit, PERF_OUTCOME_IGNORED, 0);
}

/* ------------------------------------------------------- looking and forcing */

int perf_breaker_state(perf_breaker *breaker)
{
    int rc = perf__part_check(breaker ? &breaker->part : NULL, "breaker");
    return rc ? rc : state_of(atomic_load(&breaker->state));
}

int perf_breaker_force(perf_breaker *breaker, int64_t state)
{
    perf_breaker_change change = PERF_BREAKER_CHANGE_INIT;
    int rc;
    if ((rc = perf__part_check(breaker ? &breaker->part : NULL, "breaker")) ||
        (rc = perf__check_range("state", state, PERF_BREAKER_CLOSED, PERF_BREAKER_DISABLED)))
        return rc;
    pthread_mutex_lock(&breaker->mutex);
    change_to(breaker, state, perf__part_now(&breaker->part), &change);
    pthread_mutex_unlock(&breaker->mutex);
    tell(breaker, &change);
    return PERF_OK;
}

int perf_breaker_poll_change(perf_breaker *breaker, perf_breaker_change *change)
{
    perf_breaker_change own;
    size_t size;
    bool found;
    int rc;
    if ((rc = perf__part_check(breaker ? &breaker->part : NULL, "breaker")) ||
        (rc = perf__options_check_out("perf_breaker_change", change, &size)))
        return rc;
    pthread_mutex_lock(&breaker->mutex);
    if ((found = breaker->first_change < breaker->next_change))
        own = breaker->changes[breaker->first_change++ % CHANGES_KEPT];
    pthread_mutex_unlock(&breaker->mutex);
    if (!found)
        return PERF_MISS;
    perf__options_give(change, size, &own, sizeof own);
    return PERF_OK;
}

int perf_breaker_get_stats(perf_breaker *breaker, perf_breaker_stats *stats)
{
    size_t size;
    int rc;
    if ((rc = perf__part_check(breaker ? &breaker->part : NULL, "breaker")) ||
        (rc = perf__options_check_out("perf_breaker_stats", stats, &size)))
        return rc;
    const struct perf__part *part = &breaker->part;
    int64_t now = perf__part_now(part);
    pthread_mutex_lock(&breaker->mutex);
    int state = state_of(atomic_load(&breaker->state));
    uint64_t lost_changes = breaker->lost_changes;
    struct perf__window_sums s = state == PERF_BREAKER_HALF_OPEN
                                     ? breaker->probed
                                     : perf__window_read(&breaker->window, now);
    int64_t until = atomic_load(&breaker->open_until_ns);
    pthread_mutex_unlock(&breaker->mutex);
    perf_breaker_stats own = {
        .struct_size = sizeof own,
        .state = state,
        .until_probe_ms = state == PERF_BREAKER_OPEN ? perf__ceil_ms(until - now) : 0,
        .window_calls = s.calls,
        .window_failures = s.failed,
        .window_slow = s.slow,
        .permitted = perf__part_sum(part, PERMITTED),
        .rejected = perf__part_sum(part, REJECTED),
        .succeeded = perf__part_sum(part, SUCCEEDED),
        .failed = perf__part_sum(part, FAILED),
        .slow = perf__part_sum(part, SLOW),
        .late = perf__part_sum(part, LATE),
        .lost_probes = perf__part_sum(part, LOST_PROBES),
        .opened = perf__part_sum(part, OPENED),
        .lost_changes = lost_changes,
    };
    perf__options_give(stats, size, &own, sizeof own);
    return PERF_OK;
}
