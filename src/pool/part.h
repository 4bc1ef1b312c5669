/* SPDX-License-Identifier: MIT */
/*
 * part.h - what all parts of resilience.h have in common: how they open, what
 * they notice of a fork, what an attempt looks like, how they wait.
 */
#ifndef PERF_POOL_PART_H
#define PERF_POOL_PART_H

#include <libperf/resilience.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/options.h"
#include "../metrics/counter.h"

/** The first member of every handle. */
struct perf__part {
    struct perf__host host;
    uint64_t fork_generation;
    struct perf__counters counters;
};

/**
 * Makes a zeroed handle of size bytes that begins with a perf__part with so many counters.
 * what: for the error text. The options were taken before; out is checked here.
 */
int perf__part_open(const char *what, const perf_host *host, size_t size, uint32_t counters,
                    void *out);

/** Frees it. For a handle that could be opened, and may be half done. */
void perf__part_free(struct perf__part *part);

/** PERF_OK, PERF_EINVAL for NULL, PERF_EFORKED. */
static inline int perf__part_check(const struct perf__part *part, const char *what);

int perf__part_refuse(const struct perf__part *part, const char *what) __attribute__((cold));

static inline int perf__part_check(const struct perf__part *part, const char *what)
{
    if (__builtin_expect(part && part->fork_generation == perf__fork_generation, 1))
        return PERF_OK;
    return perf__part_refuse(part, what);
}

static inline bool perf__part_usable(const struct perf__part *part)
{
    return part && part->fork_generation == perf__fork_generation;
}

static inline int64_t perf__part_now(const struct perf__part *part)
{
    return perf__now_ns(&part->host.clock);
}

static inline void perf__part_count(struct perf__part *part, uint32_t index)
{
    perf__counters_add(&part->counters, index, 1);
}

static inline uint64_t perf__part_sum(const struct perf__part *part, uint32_t index)
{
    return perf__counters_sum(&part->counters, index);
}

/** An option that is zero becomes its default; then its range is checked. */
static inline int perf__option(const char *field, int64_t *value, int64_t preset, int64_t min,
                               int64_t max)
{
    if (!*value)
        *value = preset;
    return perf__check_range(field, *value, min, max);
}

/* ------------------------------------------------------------------- time */

/* The longest time that an option may say: ten years. Sums of a few never overflow. */
#define PERF__LONG_MS INT64_C(315360000000)

/** now_ns + ms, at most INT64_MAX. */
static inline int64_t perf__add_ms(int64_t now_ns, int64_t ms)
{
    return ms > (INT64_MAX - now_ns) / 1000000 ? INT64_MAX : now_ns + ms * 1000000;
}

/** Nanoseconds as whole milliseconds, rounded up; never negative. */
static inline int64_t perf__ceil_ms(int64_t ns)
{
    return ns <= 0 ? 0 : ns / 1000000 + (ns % 1000000 != 0);
}

/** Nanoseconds left to this thread, 0 when they are over, -1 without a deadline. */
int64_t perf__deadline_left_ns(void);

/** perf_deadline_enter to the nanosecond: at_ns is a time on clock. */
void perf__deadline_push(const perf_clock *clock, int64_t at_ns, perf_deadline *previous);

/**
 * The time on a clock at which a call ends that may take timeout_ms (0 or less: any time) in a
 * thread that may have a deadline: 0 when there is no end, otherwise positive.
 */
int64_t perf__deadline_on(const perf_clock *clock, int64_t timeout_ms);

/** The same for a wait: timeout_ms 0 is now, negative is without a limit of its own. */
int64_t perf__wait_until(const perf_clock *clock, int64_t timeout_ms);

/** Sleeps until that time of the clock. A clock of the host's own is looked at each millisecond. */
void perf__sleep_until(const perf_clock *clock, int64_t until_ns);

/** What to give to perf__cond_wait so that a wait until until_ns (0: no limit) of the clock does
 * not oversleep: the caller looks at the clock again afterwards. */
int64_t perf__cond_deadline(const perf_clock *clock, int64_t now_ns, int64_t until_ns);

/* --------------------------------------------------------------- attempts */

/** Two attempts at once: who counts. */
struct perf__race {
    _Atomic int winner; /* 0: nobody yet; 1: the first; 2: the hedge */
};

struct perf_attempt {
    const perf_clock *clock;
    int64_t deadline_ns; /* 0: none */
    int64_t number, max;
    int64_t retry_after_ms;
    int kind; /* -1: by the status */
    int hedge;
    struct perf__race *race; /* NULL: the only one */
};

static inline bool perf__kind_valid(int64_t kind)
{
    return kind >= PERF_OUTCOME_SUCCESS && kind <= PERF_OUTCOME_IGNORED;
}

/** Runs fn as this attempt, under its deadline; makes sure of the race. */
int perf__attempt_run(struct perf_attempt *attempt, perf_run_fn fn, void *ctx);

#endif
