/* SPDX-License-Identifier: MIT */
/*
 * part.c - opening a part, waiting by the host's clock, and what a function
 * sees of its attempt. Any thread.
 */
#include "part.h"

#include <string.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"

int perf__part_open(const char *what, const perf_host *given, size_t size, uint32_t counters,
                    void *out)
{
    struct perf__host host;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for %s", what);
    if ((rc = perf__host_take(given, &host)) || (rc = perf__fork_arm()))
        return rc;
    struct perf__part *part = perf__calloc(&host.allocator, 1, size);
    if (!part)
        return perf__fail_nomem(what);
    part->host = host;
    part->host.view =
        (perf_host){sizeof(perf_host), &part->host.allocator, &part->host.clock, &part->host.log};
    part->fork_generation = perf__fork_generation;
    if ((rc = perf__counters_init(&part->counters, &part->host.allocator, counters))) {
        perf__free(&host.allocator, part);
        return rc;
    }
    memcpy(out, &part, sizeof part);
    return PERF_OK;
}

void perf__part_free(struct perf__part *part)
{
    perf_allocator allocator = part->host.allocator;
    perf__counters_destroy(&part->counters);
    perf__free(&allocator, part);
}

int perf__part_refuse(const struct perf__part *part, const char *what)
{
    if (!part)
        return perf__fail(PERF_EINVAL, "%s is NULL; open one first", what);
    return perf__fail_forked();
}

/* -------------------------------------------------------------------- time */

int64_t perf__deadline_on(const perf_clock *clock, int64_t timeout_ms)
{
    int64_t left = perf__deadline_left_ns();
    if (timeout_ms <= 0 && left < 0)
        return 0;
    int64_t now = perf__now_ns(clock);
    int64_t end = timeout_ms > 0 ? perf__add_ms(now, timeout_ms) : INT64_MAX;
    if (left >= 0 && end - now > left)
        end = now + left;
    return end > 0 ? end : 1;
}

int64_t perf__wait_until(const perf_clock *clock, int64_t timeout_ms)
{
    if (timeout_ms)
        return perf__deadline_on(clock, timeout_ms);
    int64_t now = perf__now_ns(clock);
    return now > 0 ? now : 1;
}

static bool is_system_clock(const perf_clock *clock)
{
    return clock->monotonic_ns == perf__default_clock.monotonic_ns;
}

void perf__sleep_until(const perf_clock *clock, int64_t until_ns)
{
    for (int64_t now; (now = perf__now_ns(clock)) < until_ns;) {
        int64_t left = until_ns - now;
        if (left > 1000000 && !is_system_clock(clock))
            left = 1000000;
        struct timespec t = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
        nanosleep(&t, NULL); /* woken by a signal: goes on with what is left */
    }
}

int64_t perf__cond_deadline(const perf_clock *clock, int64_t now_ns, int64_t until_ns)
{
    if (is_system_clock(clock))
        return until_ns;
    int64_t left = until_ns ? perf__ceil_ms(until_ns - now_ns) : 1;
    return perf__deadline_after(left > 1 || left < 1 ? 1 : left);
}

/* ---------------------------------------------------------------- attempts */

int64_t perf_attempt_number(const perf_attempt *attempt)
{
    return attempt ? attempt->number : 0;
}

int64_t perf_attempt_max(const perf_attempt *attempt)
{
    return attempt ? attempt->max : 0;
}

int perf_attempt_is_hedge(const perf_attempt *attempt)
{
    return attempt && attempt->hedge;
}

int64_t perf_attempt_remaining_ms(const perf_attempt *attempt)
{
    if (!attempt || !attempt->deadline_ns)
        return -1;
    return perf__ceil_ms(attempt->deadline_ns - perf__now_ns(attempt->clock));
}

int perf_attempt_cancelled(const perf_attempt *attempt)
{
    if (!attempt || !attempt->race)
        return 0;
    int winner = atomic_load_explicit(&attempt->race->winner, memory_order_acquire);
    return winner && winner != attempt->hedge + 1;
}

int perf_attempt_commit(perf_attempt *attempt)
{
    if (!attempt)
        return perf__fail(PERF_EINVAL, "attempt is NULL; give the one that the function got");
    int nobody = 0, me = attempt->hedge + 1;
    if (!attempt->race || atomic_compare_exchange_strong(&attempt->race->winner, &nobody, me) ||
        nobody == me)
        return PERF_OK;
    return perf__fail(PERF_ECANCELED, "the other of two attempts has won; its result counts");
}

int perf_attempt_set_outcome(perf_attempt *attempt, const perf_outcome *outcome)
{
    perf_outcome own;
    int rc;
    if (!attempt || !outcome)
        return perf__fail(PERF_EINVAL, "attempt or outcome is NULL; give both");
    if ((rc = perf__options_take("perf_outcome", outcome, &own, sizeof own)))
        return rc;
    if (!perf__kind_valid(own.kind))
        return perf__fail(PERF_EINVAL, "kind is %lld; give a PERF_OUTCOME_ constant",
                          (long long)own.kind);
    attempt->kind = (int)own.kind;
    attempt->retry_after_ms = own.retry_after_ms;
    return PERF_OK;
}

int perf__attempt_run(struct perf_attempt *attempt, perf_run_fn fn, void *ctx)
{
    perf_deadline before = PERF_DEADLINE_INIT;
    if (attempt->deadline_ns)
        perf__deadline_push(attempt->clock, attempt->deadline_ns, &before);
    int rc = fn(attempt, ctx);
    if (attempt->deadline_ns)
        perf_deadline_leave(&before);
    if (rc >= 0 && attempt->race && perf_attempt_commit(attempt))
        rc = PERF_ECANCELED;
    return rc;
}
