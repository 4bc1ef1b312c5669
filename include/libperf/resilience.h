/* SPDX-License-Identifier: MIT */
/*
 * resilience.h - never be taken down by what is on the other end.
 *
 * In five lines:
 *
 *     perf_policy *policy;
 *     perf_policy_options opt = PERF_POLICY_OPTIONS_INIT;
 *     perf_retry_open(NULL, &opt.retry);
 *     perf_breaker_open(NULL, &opt.breaker);
 *     perf_policy_open(&opt, &policy);
 *     rc = perf_policy_run(policy, ask_the_service, &question, 2000);
 *
 * Each part also works alone: a deadline, retries with a budget, a circuit
 * breaker, a bulkhead, a rate limiter, an adaptive limit, hedged requests, a
 * fallback. A policy only puts them around a function in the right order.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    the _close functions, after which the handle is gone. A perf_retry_call is
 *    one call's state and belongs to one thread at a time.
 *  - Only perf_..._run, _acquire with a timeout, and nothing else, ever wait.
 *    All others return at once, so that an I/O thread may use them.
 *  - A retry or a hedge does the work again. The other end must be able to
 *    stand that: the library cannot know whether a request is idempotent.
 *  - Limits count in this process only.
 *  - fork(): a child must open its own handles. Calls on an inherited one
 *    return PERF_EFORKED; those without a result do nothing.
 *  - Waits: timeout_ms 0 means do not wait, -1 as long as it takes. Limits of a
 *    whole call: 0 or -1 means none. The thread's deadline holds in any case.
 *
 * The parts, simple to expert: outcomes, deadline, run functions, retry,
 * breaker, bulkhead, rate limit, adaptive limit, hedge, fallback, policy.
 */
#ifndef LIBPERF_RESILIENCE_H
#define LIBPERF_RESILIENCE_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/* ----------------------------------------------------------------- outcomes */

/** What became of an attempt, as far as the parts need to know. */
enum {
    PERF_OUTCOME_SUCCESS = 0,   /**< an answer, also "not there" */
    PERF_OUTCOME_TRANSIENT = 1, /**< failed, and may work in a moment */
    PERF_OUTCOME_TIMEOUT = 2,   /**< no answer in time; retried like TRANSIENT */
    PERF_OUTCOME_THROTTLED = 3, /**< the other end lives, and asks for fewer requests */
    PERF_OUTCOME_PERMANENT = 4, /**< the other end answered, and will not answer otherwise */
    PERF_OUTCOME_REJECTED = 5,  /**< refused here by a breaker or limit, before it was tried */
    PERF_OUTCOME_IGNORED = 6    /**< says nothing of the other end: cancelled, no memory */
};

/** An outcome with what the other end said about coming back. */
typedef struct perf_outcome {
    size_t struct_size;
    int64_t kind;           /**< PERF_OUTCOME_... */
    int64_t retry_after_ms; /**< what it asked to wait (x-amz-retry-after); 0: nothing */
} perf_outcome;
#define PERF_OUTCOME_INIT          \
    {                              \
        sizeof(perf_outcome), 0, 0 \
    }

/**
 * The outcome of a status: PERF_OK, PERF_MISS and any positive number are
 * SUCCESS, PERF_EIO, PERF_EUNAVAILABLE, PERF_EPROTOCOL, PERF_ETLS and
 * PERF_ELOAD are TRANSIENT, PERF_ETIMEDOUT is TIMEOUT, PERF_ETHROTTLED and
 * PERF_EBUSY are THROTTLED, PERF_EREJECTED is REJECTED; what is our own doing
 * (PERF_EINVAL, PERF_ENOMEM, PERF_ECANCELED, ...) is IGNORED; the rest, unknown
 * codes too, is PERMANENT. Never fails. Since 1.0.
 */
PERF_API int perf_outcome_of_status(int status);

/**
 * The outcome of an HTTP reply by the rules of the AWS SDKs: status is the
 * reply's (0: none came), code the service's error code or NULL; a namespace
 * before '#' and a tail after ':' are skipped. Throttling codes and 429 are
 * THROTTLED; 500, 502, 503, 504, no reply and transient codes are TRANSIENT;
 * below 400 without a code is SUCCESS; the rest is PERMANENT. Never fails.
 * Since 1.0. Source: botocore 1.44, retries/standard.py, and the models' own
 * marks (DynamoDB, Bedrock).
 */
PERF_API int perf_outcome_of_http(int64_t status, const char *code);

/* ----------------------------------------------------------------- deadline */

/*
 * A deadline belongs to a thread and to all that it calls: whatever waits or
 * retries in this header ends by it. An inner one can only be nearer.
 *
 *     perf_deadline outer = PERF_DEADLINE_INIT;
 *     perf_deadline_enter(800, NULL, &outer);
 *     ... everything here has 800 ms together ...
 *     perf_deadline_leave(&outer);
 */

/** The deadline that held before; for perf_deadline_leave. Read nothing from it. */
typedef struct perf_deadline {
    size_t struct_size;
    const perf_clock *clock;
    int64_t at_ns; /**< on that clock; -1: none */
} perf_deadline;
#define PERF_DEADLINE_INIT          \
    {                               \
        sizeof(perf_deadline), 0, 0 \
    }

/**
 * This thread has ms milliseconds from now, or what it had if that is less;
 * negative: no limit beyond that one. clock is what it is measured by, and must
 * live until perf_deadline_leave; NULL: the system's. *previous receives what
 * held before. PERF_EINVAL if previous is NULL or not initialised. Since 1.0.
 */
PERF_API int perf_deadline_enter(int64_t ms, const perf_clock *clock, perf_deadline *previous);

/** Goes back to what held before; innermost first, in the same thread. Since 1.0. */
PERF_API void perf_deadline_leave(const perf_deadline *previous);

/** Milliseconds that this thread has left, 0 when they are over, -1 without a deadline. Since 1.0.
 */
PERF_API int64_t perf_deadline_remaining_ms(void);

/**
 * The thread's remaining milliseconds as decimal text, for a header of a
 * request to another service. PERF_MISS without a deadline; PERF_ETOOSMALL
 * under 21 bytes. Since 1.0.
 */
PERF_API int perf_deadline_format(char *buf, size_t cap);

/**
 * Reads such text of len bytes from outside: digits only, at most a day;
 * PERF_EPROTOCOL otherwise. For perf_deadline_enter. Since 1.0.
 */
PERF_API int perf_deadline_parse(const char *text, size_t len, int64_t *ms);

/* ------------------------------------------------------------ run functions */

/** One attempt under way, seen from inside the function that makes it. */
typedef struct perf_attempt perf_attempt;

/**
 * Does the work once: returns PERF_OK, PERF_MISS or a positive number of its
 * own when it has an answer, else a negative code. Runs in the thread of the
 * perf_..._run call; a hedge runs in a thread of its own at the same time.
 */
typedef int (*perf_run_fn)(perf_attempt *attempt, void *ctx);

/** Which attempt this is: 1, 2, 3, ... Since 1.0. */
PERF_API int64_t perf_attempt_number(const perf_attempt *attempt);

/** How many there may be at most. Since 1.0. */
PERF_API int64_t perf_attempt_max(const perf_attempt *attempt);

/** 1 when this is the second of two that run at once. Since 1.0. */
PERF_API int perf_attempt_is_hedge(const perf_attempt *attempt);

/** Milliseconds until the deadline, 0 when it is over, -1 without one. Since 1.0. */
PERF_API int64_t perf_attempt_remaining_ms(const perf_attempt *attempt);

/** 1 when the other of two has won: stop and return PERF_ECANCELED. Since 1.0. */
PERF_API int perf_attempt_cancelled(const perf_attempt *attempt);

/**
 * Asks to be the one whose result counts, before the result is written to where
 * both would write it. PERF_OK, for one of the two only and for a sole attempt
 * always, or PERF_ECANCELED: leave ctx alone and return that. After PERF_OK the
 * function must succeed. A function that does not ask is asked for when it
 * returns. Since 1.0.
 */
PERF_API int perf_attempt_commit(perf_attempt *attempt);

/** Says more of the outcome than the status can: its kind and what the other end
 *  asked to wait. Copied. PERF_EINVAL for an unknown kind. Since 1.0. */
PERF_API int perf_attempt_set_outcome(perf_attempt *attempt, const perf_outcome *outcome);

/* ------------------------------------------------------------------- budget */

/*
 * What retries and hedges may cost together. They take from it, successes give
 * back; when it is empty there are no more of them until things work again, so
 * that a service in trouble is not asked three times as much.
 */

/** A budget, to be shared by retries and hedges. */
typedef struct perf_budget perf_budget;

/** Opens a budget that starts full; capacity 0: 500. host may be NULL. Since 1.0. */
PERF_API int perf_budget_open(int64_t capacity, const perf_host *host, perf_budget **out);

/** Frees it, after everything that uses it. NULL is allowed. Since 1.0. */
PERF_API int perf_budget_close(perf_budget *budget);

/** Takes amount (1 or more) whole, or PERF_EREJECTED and nothing. Since 1.0. */
PERF_API int perf_budget_take(perf_budget *budget, int64_t amount);

/** Gives amount back, as far as the capacity goes. Since 1.0. */
PERF_API void perf_budget_give(perf_budget *budget, int64_t amount);

/** What is in it now: 0 to the capacity. Since 1.0. */
PERF_API int64_t perf_budget_available(const perf_budget *budget);

/* -------------------------------------------------------------------- retry */

/** When and how to try again: a policy and a budget, shared by many calls. */
typedef struct perf_retry perf_retry;

/** The AWS retry modes. */
enum {
    PERF_RETRY_STANDARD = 0,      /**< AWS standard as revised in 2026 */
    PERF_RETRY_STANDARD_2020 = 1, /**< AWS standard as it was before */
    PERF_RETRY_ADAPTIVE = 2       /**< STANDARD, and a rate that throttles push down */
};

/** How to retry. Zero in a field means the default, which is the mode's. */
typedef struct perf_retry_options {
    size_t struct_size;
    int64_t mode;                /**< PERF_RETRY_... */
    int64_t max_attempts;        /**< the first one included, 1..100; default 3 (AWS: 4 for
                                      DynamoDB) */
    int64_t base_ms;             /**< attempt i (from 0) waits rand(0, 1) * min(base_ms * 2^i,
                                      max_delay_ms); default 50 (AWS: 25 for DynamoDB), 1000 in
                                      STANDARD_2020 */
    int64_t throttle_base_ms;    /**< the same after THROTTLED; default 1000 */
    int64_t max_delay_ms;        /**< default 20000 */
    int64_t retry_after_over_ms; /**< how far retry_after_ms may go beyond the computed delay;
                                      default 5000; STANDARD_2020 ignores retry_after_ms */
    perf_budget *budget;         /**< shared with others, must outlive this; NULL: one of its own */
    int64_t budget_capacity;     /**< of its own one; default 500 */
    int64_t cost;                /**< of a retry; default 14, 5 in STANDARD_2020 */
    int64_t timeout_cost;        /**< of one after TIMEOUT; default 14, 10 in STANDARD_2020 */
    int64_t throttle_cost;       /**< of one after THROTTLED; default 5 */
    int64_t refund;              /**< a call that succeeds at once gives this back; default 1.
                                      One that succeeds by retrying gives its last cost back */
    const perf_host *host;       /**< allocator, clock, log */
} perf_retry_options;
#define PERF_RETRY_OPTIONS_INIT                                           \
    {                                                                     \
        sizeof(perf_retry_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a retry policy; options may be NULL. PERF_EINVAL names the field, the value and
 *  the fix; PERF_ENOMEM. Since 1.0. */
PERF_API int perf_retry_open(const perf_retry_options *options, perf_retry **out);

/** Frees it; no call may be under way. NULL is allowed. Since 1.0. */
PERF_API int perf_retry_close(perf_retry *retry);

/** The budget it takes from, to share with others; valid as long as retry. Since 1.0. */
PERF_API perf_budget *perf_retry_get_budget(perf_retry *retry);

/** Calls fn until it succeeds or there is a reason to stop, and sleeps between the attempts.
 *  timeout_ms is for all of it together. Returns what the last attempt returned; the error
 *  text then says why there was no further one. PERF_ETIMEDOUT when there was no time for
 *  even one. Since 1.0. */
PERF_API int perf_retry_run(perf_retry *retry, perf_run_fn fn, void *ctx, int64_t timeout_ms);

/*
 * The same for those who must not sleep (an event loop): the library decides,
 * the caller waits.
 *
 *     perf_retry_call call = PERF_RETRY_CALL_INIT;
 *     perf_retry_begin(retry, 2000, 0, &call);
 *     do {
 *         perf_retry_acquire(&call, &wait_ms);     // adaptive: wait that long first
 *         ... one attempt; outcome.kind = ... ...
 *     } while (perf_retry_next(&call, &outcome, &delay_ms) == PERF_OK && wait(delay_ms));
 *     perf_retry_end(&call);
 */

/** Why perf_retry_next said what it said. */
enum {
    PERF_RETRY_AGAIN = 0,         /**< there is another attempt */
    PERF_RETRY_DONE = 1,          /**< this one succeeded */
    PERF_RETRY_NOT_RETRYABLE = 2, /**< another one would end the same */
    PERF_RETRY_ATTEMPTS = 3,      /**< max_attempts are used up */
    PERF_RETRY_BUDGET = 4,        /**< the budget is empty */
    PERF_RETRY_DEADLINE = 5       /**< the delay would end after the deadline */
};

/** Flags of perf_retry_begin. */
enum {
    PERF_RETRY_LONG_POLL = 1 /**< a polling call (SQS ReceiveMessage): the delay is kept also
                                  when the budget is empty, so that polling never spins */
};

/** One logical call: lives where the caller likes; to be read only. */
typedef struct perf_retry_call {
    size_t struct_size;
    perf_retry *retry;
    int64_t deadline_ns;  /**< on the clock of retry; 0: none */
    int64_t attempt;      /**< the number of the attempt under way: 1, 2, ... */
    int64_t max_attempts; /**< for the amz-sdk-request header */
    int64_t flags;
    int64_t reason; /**< PERF_RETRY_AGAIN ... PERF_RETRY_DEADLINE */
    int64_t taken;  /**< from the budget for the attempt under way */
} perf_retry_call;
#define PERF_RETRY_CALL_INIT                         \
    {                                                \
        sizeof(perf_retry_call), 0, 0, 0, 0, 0, 0, 0 \
    }

/** Begins a call that may take timeout_ms in all. flags: 0 or PERF_RETRY_LONG_POLL. retry must
 *  outlive it. Since 1.0. */
PERF_API int perf_retry_begin(perf_retry *retry, int64_t timeout_ms, int64_t flags,
                              perf_retry_call *call);

/** Before each attempt. *wait_ms is how long to wait first: 0 but in ADAPTIVE mode. PERF_ETIMEDOUT
 *  when that would end after the deadline (nothing is taken). Since 1.0. */
PERF_API int perf_retry_acquire(perf_retry_call *call, int64_t *wait_ms);

/** After each attempt. PERF_OK: try again after *delay_ms. Otherwise it is over, and call->reason
 *  says why: PERF_MISS after a success; PERF_ETIMEDOUT for PERF_RETRY_DEADLINE; PERF_EREJECTED for
 *  the other reasons. *delay_ms is then 0, but for a long poll on an empty budget: how long to wait
 *  before the failure is passed on. Never beyond the deadline. Since 1.0. */
PERF_API int perf_retry_next(perf_retry_call *call, const perf_outcome *outcome, int64_t *delay_ms);

/** Ends the call, whatever its state; a call that was not begun is left alone. Since 1.0. */
PERF_API void perf_retry_end(perf_retry_call *call);

/** What a retry policy did so far. */
typedef struct perf_retry_stats {
    size_t struct_size;
    uint64_t calls;           /**< begun */
    uint64_t attempts;        /**< judged by perf_retry_next */
    uint64_t retries;         /**< attempts that were granted after another one */
    uint64_t succeeded_first; /**< calls that succeeded at once */
    uint64_t succeeded_later; /**< calls that succeeded by a retry */
    uint64_t not_retryable;   /**< calls that failed, by reason */
    uint64_t out_of_attempts;
    uint64_t out_of_budget;
    uint64_t out_of_time;
    uint64_t throttled;       /**< attempts that were throttled */
    uint64_t waited_ms;       /**< delays granted, all together */
    int64_t budget_available; /**< now */
    int64_t limiting;         /**< 1: the adaptive rate is in force */
    int64_t rate_milli;       /**< that rate: thousandths of a request a second */
    int64_t measured_milli;   /**< the rate at which requests were made, the same way */
} perf_retry_stats;
#define PERF_RETRY_STATS_INIT                                                 \
    {                                                                         \
        sizeof(perf_retry_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_retry_get_stats(perf_retry *retry, perf_retry_stats *stats);

/* ------------------------------------------------------------------ breaker */

/*
 * Stops asking what does not answer. CLOSED: all may pass, and failures are
 * counted. OPEN: nobody passes for open_ms. HALF_OPEN: a few probes pass, and
 * what they meet closes or opens it again. Defaults are those of resilience4j.
 */

/** A circuit breaker; one for each thing that can fail by itself. */
typedef struct perf_breaker perf_breaker;

/** States of a breaker. */
enum {
    PERF_BREAKER_CLOSED = 0,
    PERF_BREAKER_OPEN = 1,
    PERF_BREAKER_HALF_OPEN = 2,
    PERF_BREAKER_FORCED_OPEN = 3, /**< open until perf_breaker_force says otherwise */
    PERF_BREAKER_DISABLED = 4     /**< all may pass, nothing is counted */
};

/** What the rates are taken of. */
enum {
    PERF_BREAKER_COUNT = 0, /**< the last window_calls calls, exactly */
    PERF_BREAKER_TIME = 1   /**< the calls of the last window_ms, to a sixteenth of it */
};

/** One change of state. */
typedef struct perf_breaker_change {
    size_t struct_size;
    uint64_t sequence; /**< 1, 2, 3, ... of this breaker */
    int64_t from;      /**< PERF_BREAKER_... */
    int64_t to;        /**< PERF_BREAKER_... */
    int64_t time_ms;   /**< wall clock, since 1970 */
} perf_breaker_change;
#define PERF_BREAKER_CHANGE_INIT                \
    {                                           \
        sizeof(perf_breaker_change), 0, 0, 0, 0 \
    }

/** Is told of a change, in the thread that caused it, with no lock held. */
typedef void (*perf_breaker_change_fn)(void *ctx, const perf_breaker_change *change);

/** How to open a breaker. Zero in a field means the default. */
typedef struct perf_breaker_options {
    size_t struct_size;
    int64_t window;           /**< PERF_BREAKER_COUNT (default) or _TIME */
    int64_t window_calls;     /**< 1..32767; default 100 */
    int64_t window_ms;        /**< 16 or more; default 100000 */
    int64_t minimum_calls;    /**< in the window before rates count; default 100; at most
                                   window_calls with PERF_BREAKER_COUNT */
    int64_t failure_percent;  /**< opens from this share of failures on, 1..100; default 50 */
    int64_t slow_ms;          /**< a call that took longer is slow; default 60000 */
    int64_t slow_percent;     /**< opens from this share of slow calls on, 1..100; default 100 */
    int64_t half_open_calls;  /**< probes that decide, 1..1000; default 10 */
    int64_t open_ms;          /**< how long it stays open; default 60000 */
    int64_t open_max_ms;      /**< it stays open twice as long each time it opens again, up to
                                   this; default open_ms: always the same */
    int64_t probe_timeout_ms; /**< a probe not reported by then is given to another; default
                                   60000 */
    int64_t failure_kinds;    /**< sum of 1 << PERF_OUTCOME_...; default TRANSIENT and TIMEOUT:
                                   throttling and refusals show that the other end lives */
    perf_breaker_change_fn on_change; /**< may be NULL */
    void *ctx;                        /**< handed to on_change */
    const perf_host *host;            /**< allocator, clock, log */
} perf_breaker_options;
#define PERF_BREAKER_OPTIONS_INIT                                                 \
    {                                                                             \
        sizeof(perf_breaker_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a breaker (CLOSED); options may be NULL. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_breaker_open(const perf_breaker_options *options, perf_breaker **out);

/** Frees it. NULL is allowed. Since 1.0. */
PERF_API int perf_breaker_close(perf_breaker *breaker);

/** Before a call. PERF_OK: go on, and report *permit afterwards; PERF_EREJECTED: do not. Takes no
 *  lock while CLOSED. Since 1.0. */
PERF_API int perf_breaker_try(perf_breaker *breaker, uint64_t *permit);

/** After the call, once: what became of it (PERF_OUTCOME_...) and how long it took in milliseconds.
 *  A permit of an earlier state, or of a probe that was reported or given to another, counts for
 *  nothing. IGNORED and REJECTED count as perf_breaker_release. Takes no lock while CLOSED, but to
 *  move on by a sixteenth of a TIME window. Since 1.0. */
PERF_API void perf_breaker_report(perf_breaker *breaker, uint64_t permit, int64_t kind,
                                  int64_t duration_ms);

/** Gives a permit back that was not used. Since 1.0. */
PERF_API void perf_breaker_release(perf_breaker *breaker, uint64_t permit);

/** PERF_BREAKER_..., or PERF_EFORKED. OPEN turns HALF_OPEN by the first call after open_ms.
 *  Since 1.0. */
PERF_API int perf_breaker_state(perf_breaker *breaker);

/** Puts it into a state, whatever it has seen; counting begins anew. Since 1.0. */
PERF_API int perf_breaker_force(perf_breaker *breaker, int64_t state);

/** The oldest change not yet fetched, or PERF_MISS. The last 32 are kept. Since 1.0. */
PERF_API int perf_breaker_poll_change(perf_breaker *breaker, perf_breaker_change *change);

/** What a breaker saw so far. */
typedef struct perf_breaker_stats {
    size_t struct_size;
    int64_t state;            /**< PERF_BREAKER_... */
    int64_t until_probe_ms;   /**< OPEN: time until probes may pass */
    uint64_t window_calls;    /**< in the window now */
    uint64_t window_failures; /**< of them */
    uint64_t window_slow;     /**< of them */
    uint64_t permitted;       /**< in all */
    uint64_t rejected;
    uint64_t succeeded; /**< reported and counted */
    uint64_t failed;
    uint64_t slow;
    uint64_t late;         /**< reports that counted for nothing */
    uint64_t lost_probes;  /**< probes that were not reported in time */
    uint64_t opened;       /**< times it opened */
    uint64_t lost_changes; /**< changes that nobody fetched */
} perf_breaker_stats;
#define PERF_BREAKER_STATS_INIT                                              \
    {                                                                        \
        sizeof(perf_breaker_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_breaker_get_stats(perf_breaker *breaker, perf_breaker_stats *stats);

/* ----------------------------------------------------------------- bulkhead */

/** At most so many at once, and a short queue for those who come too early. */
typedef struct perf_bulkhead perf_bulkhead;

/** How to open a bulkhead. Zero in a field means the default. */
typedef struct perf_bulkhead_options {
    size_t struct_size;
    int64_t max_concurrent; /**< 1..1000000; default 25 */
    int64_t max_waiting;    /**< threads that may wait; default 1000; -1: none */
    const perf_host *host;  /**< allocator, clock, log */
} perf_bulkhead_options;
#define PERF_BULKHEAD_OPTIONS_INIT             \
    {                                          \
        sizeof(perf_bulkhead_options), 0, 0, 0 \
    }

/** Opens a bulkhead; options may be NULL. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_bulkhead_open(const perf_bulkhead_options *options, perf_bulkhead **out);

/** Frees it; nobody may be inside or waiting. NULL is allowed. Since 1.0. */
PERF_API int perf_bulkhead_close(perf_bulkhead *bulkhead);

/** Comes in, first come first served, waiting up to timeout_ms (0: not; -1: as long as it takes).
 *  PERF_EREJECTED: no place, and no waiting or too many waiting; PERF_ETIMEDOUT: waited in vain.
 *  Since 1.0. */
PERF_API int perf_bulkhead_acquire(perf_bulkhead *bulkhead, int64_t timeout_ms);

/** Goes out again; once for each acquire, in any thread. Since 1.0. */
PERF_API void perf_bulkhead_release(perf_bulkhead *bulkhead);

/** Another max_concurrent from now on; who is inside stays. Since 1.0. */
PERF_API int perf_bulkhead_resize(perf_bulkhead *bulkhead, int64_t max_concurrent);

/** What a bulkhead did so far. */
typedef struct perf_bulkhead_stats {
    size_t struct_size;
    int64_t max_concurrent;
    int64_t in_use;  /**< now */
    int64_t waiting; /**< now */
    uint64_t acquired;
    uint64_t waited; /**< of them after waiting */
    uint64_t rejected;
    uint64_t timed_out;
} perf_bulkhead_stats;
#define PERF_BULKHEAD_STATS_INIT                         \
    {                                                    \
        sizeof(perf_bulkhead_stats), 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_bulkhead_get_stats(perf_bulkhead *bulkhead, perf_bulkhead_stats *stats);

/* --------------------------------------------------------------- rate limit */

/** At most so many in a stretch of time: a token bucket, exact over any time. */
typedef struct perf_rate_limit perf_rate_limit;

/** How to open a rate limit. Zero in a field means the default. */
typedef struct perf_rate_limit_options {
    size_t struct_size;
    int64_t permits;       /**< in period_ms, 1..1000000000; default 50 */
    int64_t period_ms;     /**< 1..86400000; default 1000 */
    int64_t burst;         /**< how many may go at once after a pause; default permits */
    const perf_host *host; /**< allocator, clock, log */
} perf_rate_limit_options;
#define PERF_RATE_LIMIT_OPTIONS_INIT                \
    {                                               \
        sizeof(perf_rate_limit_options), 0, 0, 0, 0 \
    }

/** Opens a rate limit with a full bucket; options may be NULL. PERF_EINVAL, PERF_ENOMEM.
 *  Since 1.0. */
PERF_API int perf_rate_limit_open(const perf_rate_limit_options *options, perf_rate_limit **out);

/** Frees it. NULL is allowed. Since 1.0. */
PERF_API int perf_rate_limit_close(perf_rate_limit *limit);

/** Takes permits (1..burst) now, or PERF_EREJECTED and none. Takes no lock. Since 1.0. */
PERF_API int perf_rate_limit_try(perf_rate_limit *limit, int64_t permits);

/** Takes permits that become due in *wait_ms; the caller waits that long. PERF_EREJECTED, and none,
 *  when that is more than max_wait_ms (-1: any). Since 1.0. */
PERF_API int perf_rate_limit_reserve(perf_rate_limit *limit, int64_t permits, int64_t max_wait_ms,
                                     int64_t *wait_ms);

/** Gives back permits that were not used. Since 1.0. */
PERF_API void perf_rate_limit_cancel(perf_rate_limit *limit, int64_t permits);

/** Takes permits and sleeps until they are due. PERF_EREJECTED at once, and none, when that is
 *  later than timeout_ms or the thread's deadline. Since 1.0. */
PERF_API int perf_rate_limit_acquire(perf_rate_limit *limit, int64_t permits, int64_t timeout_ms);

/** What a rate limit did so far. */
typedef struct perf_rate_limit_stats {
    size_t struct_size;
    int64_t available;  /**< now; negative: reserved ahead of time */
    uint64_t permitted; /**< permits */
    uint64_t rejected;  /**< permits */
    uint64_t waited;    /**< calls that had to wait */
} perf_rate_limit_stats;
#define PERF_RATE_LIMIT_STATS_INIT                \
    {                                             \
        sizeof(perf_rate_limit_stats), 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_rate_limit_get_stats(perf_rate_limit *limit, perf_rate_limit_stats *stats);

/* ----------------------------------------------------------- adaptive limit */

/** As many at once as the other end can bear, found by latency and failures. */
typedef struct perf_adaptive_limit perf_adaptive_limit;

/** How the limit is found. */
enum {
    PERF_LIMIT_VEGAS = 0, /**< from the queue that latency shows: Brakmo and Peterson, "TCP Vegas",
                               IEEE JSAC 1995, as Netflix's concurrency-limits uses it */
    PERF_LIMIT_AIMD = 1   /**< one more while all is well, a tenth less after a failure: Chiu and
                               Jain, 1989 */
};

/** How to open an adaptive limit. Zero in a field means the default. */
typedef struct perf_adaptive_limit_options {
    size_t struct_size;
    int64_t algorithm;     /**< PERF_LIMIT_VEGAS (default) or _AIMD */
    int64_t initial;       /**< default 20 */
    int64_t min;           /**< default 1 */
    int64_t max;           /**< up to 1000000; default 1000 */
    int64_t window_ms;     /**< the limit is thought over this often; default 100 */
    int64_t window_calls;  /**< and only after this many calls; default 10 */
    int64_t baseline_ms;   /**< the least latency is measured anew this often, at half the limit;
                                default 30000 */
    const perf_host *host; /**< allocator, clock, log */
} perf_adaptive_limit_options;
#define PERF_ADAPTIVE_LIMIT_OPTIONS_INIT                            \
    {                                                               \
        sizeof(perf_adaptive_limit_options), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens an adaptive limit; options may be NULL. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_adaptive_limit_open(const perf_adaptive_limit_options *options,
                                      perf_adaptive_limit **out);

/** Frees it. NULL is allowed. Since 1.0. */
PERF_API int perf_adaptive_limit_close(perf_adaptive_limit *limit);

/** Before a call. PERF_OK: go on, and release *permit afterwards; PERF_EREJECTED: too many are
 * under way. Takes no lock. Since 1.0. */
PERF_API int perf_adaptive_limit_try(perf_adaptive_limit *limit, uint64_t *permit);

/** After the call, once: what became of it. SUCCESS and PERMANENT give a latency; TIMEOUT,
 * THROTTLED and TRANSIENT are signs of too much; the others say nothing. Since 1.0. */
PERF_API void perf_adaptive_limit_release(perf_adaptive_limit *limit, uint64_t permit,
                                          int64_t kind);

/** What an adaptive limit knows. */
typedef struct perf_adaptive_limit_stats {
    size_t struct_size;
    int64_t limit;     /**< now */
    int64_t in_flight; /**< now */
    int64_t least_us;  /**< the latency without a queue, as far as known, in microseconds */
    int64_t recent_us; /**< the average of the last window */
    uint64_t permitted;
    uint64_t rejected;
    uint64_t dropped; /**< released as signs of too much */
} perf_adaptive_limit_stats;
#define PERF_ADAPTIVE_LIMIT_STATS_INIT                         \
    {                                                          \
        sizeof(perf_adaptive_limit_stats), 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_adaptive_limit_get_stats(perf_adaptive_limit *limit,
                                           perf_adaptive_limit_stats *stats);

/* -------------------------------------------------------------------- hedge */

/*
 * A second request when the first one takes unusually long; the first to
 * succeed wins and the other is told to stop (Dean and Barroso, "The Tail at
 * Scale", CACM 2013). Only for requests that may be made twice. Each costs from
 * a budget, so that a slow service is not asked twice as much.
 */

/** When to hedge. */
typedef struct perf_hedge perf_hedge;

/** How to hedge. Zero in a field means the default. */
typedef struct perf_hedge_options {
    size_t struct_size;
    int64_t delay_ms; /**< after this long; default: after quantile_percent of recent ones */
    int64_t quantile_percent; /**< 1..99; default 95 */
    int64_t min_delay_ms;     /**< never sooner; default 1 */
    int64_t min_calls;        /**< recorded before the quantile counts, 1..256; default 32 */
    perf_budget *budget;   /**< shared with the retries, must outlive this; NULL: its own, of 500,
                                to which each success without a hedge gives 1 */
    int64_t cost;          /**< of a hedge; default 14 */
    int64_t max_threads;   /**< that perf_hedge_run starts when needed; default 4 */
    const perf_host *host; /**< allocator, clock, log */
} perf_hedge_options;
#define PERF_HEDGE_OPTIONS_INIT                            \
    {                                                      \
        sizeof(perf_hedge_options), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a hedge; options may be NULL. Starts no thread. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_hedge_open(const perf_hedge_options *options, perf_hedge **out);

/** Stops its threads and frees it; no run may be under way. NULL is allowed. Since 1.0. */
PERF_API int perf_hedge_close(perf_hedge *hedge);

/** How long to wait for the first request before a second one; PERF_MISS while too few latencies
 *  are known. Since 1.0. */
PERF_API int perf_hedge_delay_ms(perf_hedge *hedge, int64_t *delay_ms);

/** May there be a second one now? PERF_OK, and it is paid for; or PERF_EREJECTED. Since 1.0. */
PERF_API int perf_hedge_allow(perf_hedge *hedge);

/** A call is over: how long its winner took in milliseconds, and whether it was a hedge (1) or not
 *  (0). Since 1.0. */
PERF_API void perf_hedge_record(perf_hedge *hedge, int64_t latency_ms, int won_by_hedge);

/**
 * Runs fn in this thread and, if it is not over after the delay, a second time
 * in a thread of the hedge. Returns when both are over, so ctx may live on the
 * stack: the loser should look at perf_attempt_cancelled, and must not write to
 * ctx without perf_attempt_commit. Returns what the winner returned, or without
 * one what the first returned. Without a thread to be had it just runs fn.
 * Since 1.0.
 */
PERF_API int perf_hedge_run(perf_hedge *hedge, perf_run_fn fn, void *ctx, int64_t timeout_ms);

/** What a hedge did so far. */
typedef struct perf_hedge_stats {
    size_t struct_size;
    uint64_t calls;   /**< recorded */
    uint64_t hedges;  /**< second requests allowed */
    uint64_t won;     /**< calls that a second one won */
    uint64_t refused; /**< second requests that the budget did not allow */
    int64_t delay_ms; /**< now; -1: not known yet */
    int64_t threads;  /**< running */
} perf_hedge_stats;
#define PERF_HEDGE_STATS_INIT                      \
    {                                              \
        sizeof(perf_hedge_stats), 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_hedge_get_stats(perf_hedge *hedge, perf_hedge_stats *stats);

/* ----------------------------------------------------------------- fallback */

/** Makes something useful out of a failure: gets the status that all else ended with and the
 *  ctx of the call; returns what the call then returns. In the calling thread. */
typedef int (*perf_fallback_fn)(void *ctx, void *call_ctx, int status);

/** What to do when the rest failed. */
typedef struct perf_fallback {
    size_t struct_size;
    perf_fallback_fn fn; /**< called, or NULL: value is copied to out */
    void *ctx;           /**< handed to fn */
    const void *value;
    size_t value_len; /**< bytes */
    void *out;
    int64_t kinds; /**< for which outcomes: sum of 1 << PERF_OUTCOME_...; default TRANSIENT,
                        TIMEOUT, THROTTLED and REJECTED */
} perf_fallback;
#define PERF_FALLBACK_INIT                      \
    {                                           \
        sizeof(perf_fallback), 0, 0, 0, 0, 0, 0 \
    }

/** Falls back from status, if it is of its kinds; otherwise returns status as it is. PERF_EINVAL if
 *  fallback is neither a function nor a value. Since 1.0. */
PERF_API int perf_fallback_apply(const perf_fallback *fallback, void *call_ctx, int status);

/* ------------------------------------------------------------------- policy */

/*
 * The parts around one function, in this order, outermost first:
 *
 *     fallback - deadline - retry - breaker - rate limit - bulkhead -
 *     adaptive limit - hedge - the function
 *
 * The deadline is for all attempts together. The breaker sees each attempt, and
 * before anything is taken or waited for. What waits (rate limit, bulkhead) is
 * inside, so that waiting is not mistaken for slowness, and outside of what
 * measures latency. Each part may be missing, and may be shared by policies.
 */

/** The parts, put together. */
typedef struct perf_policy perf_policy;

/** Which outcome a status is, for hosts with statuses of their own: PERF_OUTCOME_..., or -1 for
 * what perf_outcome_of_status says. Asked for each status, PERF_OK too. In the calling thread. */
typedef int (*perf_classify_fn)(void *ctx, int status);

/** What to put together; NULL leaves a part out. The parts must outlive the policy. */
typedef struct perf_policy_options {
    size_t struct_size;
    const perf_fallback *fallback; /**< copied; what it points to is not */
    int64_t timeout_ms;            /**< of a call that gives none; default: no limit */
    int64_t attempt_timeout_ms;    /**< of each attempt; default: no limit of its own */
    perf_retry *retry;
    perf_breaker *breaker;
    perf_rate_limit *rate_limit;
    perf_bulkhead *bulkhead;
    perf_adaptive_limit *adaptive_limit;
    perf_hedge *hedge;         /**< only if the function may be run twice at once */
    int64_t max_wait_ms;       /**< longest wait in rate limit and bulkhead, each; default 0:
                                    none; -1: as long as the deadline allows */
    perf_classify_fn classify; /**< NULL: perf_outcome_of_status */
    void *classify_ctx;
    const perf_host *host; /**< allocator, clock, log */
} perf_policy_options;
#define PERF_POLICY_OPTIONS_INIT                                           \
    {                                                                      \
        sizeof(perf_policy_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Puts a policy together. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_policy_open(const perf_policy_options *options, perf_policy **out);

/** Frees the policy, not the parts; no run may be under way. NULL is allowed. Since 1.0. */
PERF_API int perf_policy_close(perf_policy *policy);

/** Runs fn within the policy. timeout_ms: for all of it; 0: the policy's; -1: no limit. Returns
 * what fn or the fallback returned, PERF_EREJECTED when a part refused it, PERF_ETIMEDOUT when time
 * was over before it began. Since 1.0. */
PERF_API int perf_policy_run(perf_policy *policy, perf_run_fn fn, void *ctx, int64_t timeout_ms);

/** What a policy did so far. */
typedef struct perf_policy_stats {
    size_t struct_size;
    uint64_t calls;
    uint64_t succeeded; /**< by fn */
    uint64_t failed;    /**< what the caller got was a failure */
    uint64_t rejected;  /**< attempts refused by a part */
    uint64_t fallbacks; /**< calls that the fallback answered */
    uint64_t timed_out; /**< calls whose deadline passed */
} perf_policy_stats;
#define PERF_POLICY_STATS_INIT                      \
    {                                               \
        sizeof(perf_policy_stats), 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_policy_get_stats(perf_policy *policy, perf_policy_stats *stats);

PERF_END_DECLS

#endif
