/* SPDX-License-Identifier: MIT */
/*
 * alert.h - rules over numbers, and being told when one is broken.
 *
 * In six lines:
 *
 *     perf_alerts_options options = PERF_ALERTS_OPTIONS_INIT;
 *     options.on_event = tell;            // void tell(void *ctx, const perf_alert_event *event)
 *     perf_alerts_open(&options, &alerts);
 *     perf_alerts_add_defaults(alerts);   // 3000 ms, 512 MiB, 80 %, 5 % of errors
 *     perf_alerts_feed_to(alerts, "response_time", "/api/chat", 3512);   // after each request
 *     perf_alerts_tick(alerts);           // every second or so
 *
 * Caveats first
 *  - Nothing happens by itself: no thread is started. What is due in time (a duration
 *    that is over, data that is missing, a notice that had to wait) is seen by the
 *    next perf_alerts_feed of that rule, or by perf_alerts_tick, which looks at all.
 *  - A rule tells of FIRING, of its end, and of missing data, and no more often than once
 *    in interval_ms. What happened meanwhile is counted in the next event, and if
 *    what was told last is no longer so, it is told once the interval is over.
 *  - A rule without a subject is for all subjects: the first value for one makes a rule of its own
 *    with the same limits. When max_rules are there, values of further ones go to the
 *    common rule, so names of strangers take bounded memory.
 *  - on_event is called on the thread that fed or ticked, with no lock held; two threads may
 *    be in it at once, and sequence tells the order.
 *  - Threads: any function from any thread, but perf_alerts_close.
 *  - fork(): calls on inherited alerts return PERF_EFORKED; open them again.
 *
 * The parts, simple to expert: open, rules, feeding, being told, looking.
 */
#ifndef LIBPERF_ALERT_H
#define LIBPERF_ALERT_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** Rules with their states. */
typedef struct perf_alerts perf_alerts;

/** Where a rule stands. */
enum {
    PERF_ALERT_OK = 1,       /**< kept */
    PERF_ALERT_PENDING = 2,  /**< broken, for less than for_ms */
    PERF_ALERT_FIRING = 3,   /**< broken */
    PERF_ALERT_RESOLVED = 4, /**< kept again, for less than interval_ms */
    PERF_ALERT_MISSING = 5   /**< nothing was fed for missing_ms */
};

/** Something that happened to a rule. PENDING and the way back from it are no events. */
typedef struct perf_alert_event {
    size_t struct_size;
    uint64_t sequence;   /**< 1, 2, 3 ... as things happened */
    uint64_t rule;       /**< its id */
    int64_t time_ms;     /**< wall clock */
    int64_t from, to;    /**< PERF_ALERT_...; told: from is what was told last */
    double value;        /**< what was judged */
    double threshold;    /**< by what */
    uint64_t suppressed; /**< events since the one told last that were not told themselves */
    char name[64];
    char subject[128]; /**< "": of all */
} perf_alert_event;
#define PERF_ALERT_EVENT_INIT                                  \
    {                                                          \
        sizeof(perf_alert_event), 0, 0, 0, 0, 0, 0, 0, 0, {0}, \
        {                                                      \
            0                                                  \
        }                                                      \
    }

/* -------------------------------------------------------------- open, close */

/** Is told of an event, which is valid during the call. Must not close the alerts. */
typedef void (*perf_alert_fn)(void *ctx, const perf_alert_event *event);

/** How to open alerts. Zero in a field means the default. */
typedef struct perf_alerts_options {
    size_t struct_size;
    uint64_t max_rules;     /**< up to 100000; default 1000 */
    uint64_t history;       /**< events that are remembered, up to 65536; default 256 */
    uint64_t queue;         /**< notices that wait for perf_alerts_next, up to 65536; the oldest are
                                 lost beyond; default 64 */
    perf_alert_fn on_event; /**< is told; NULL: ask perf_alerts_next */
    void *on_event_ctx;
    const perf_host *host; /**< allocator, clock, log */
} perf_alerts_options;
#define PERF_ALERTS_OPTIONS_INIT                      \
    {                                                 \
        sizeof(perf_alerts_options), 0, 0, 0, 0, 0, 0 \
    }

/** Opens alerts without rules; options may be NULL. PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_alerts_open(const perf_alerts_options *options, perf_alerts **out);

/** Frees them; no other thread may use them. NULL is allowed. Since 1.0. */
PERF_API void perf_alerts_close(perf_alerts *alerts);

/* -------------------------------------------------------------------- rules */

/** What a rule is about. */
enum {
    PERF_ALERT_ABOVE = 1, /**< broken by a value above threshold */
    PERF_ALERT_BELOW = 2, /**< below it */
    PERF_ALERT_BURN = 3,  /**< by errors that use up the budget of an objective too fast: over a
                               long and a short window at once, for two pairs of them ("The Site
                               Reliability Workbook", 2018, chapter 5) */
    PERF_ALERT_CHANGE = 4 /**< by values that are no longer like those before: Page's cumulative sum
                               ("Continuous inspection schemes", Biometrika 41, 1954) of their
                               logarithms against a level that moves slowly and is not
                               carried away by outliers (Huber, 1964). For positive values */
};

/** Directions of a change. */
enum { PERF_ALERT_UP = 0, PERF_ALERT_DOWN = 1, PERF_ALERT_BOTH = 2 };

/** A rule. Zero in a field means the default; strings are copied. */
typedef struct perf_alert_rule {
    size_t struct_size;
    const char *name;     /**< what is measured, up to 63 bytes; required */
    const char *subject;  /**< of what, such as an endpoint, up to 127 bytes; NULL: of all */
    int64_t kind;         /**< PERF_ALERT_ABOVE ...; required */
    int64_t for_ms;       /**< must be broken for so long; default 0: at once */
    int64_t clear_for_ms; /**< must be kept for so long to be resolved; default 0 */
    int64_t interval_ms;  /**< tells no more often; default 60000, -1: always */
    int64_t repeat_ms;    /**< tells again while it is firing; default 0: never */
    int64_t missing_ms;   /**< not fed for so long: MISSING; default 0: never */
    uint64_t min_count; /**< fewer values or counts in the window break nothing, default 1; of BURN:
                             fewer bad ones in the long window, default 10 */

    /* ABOVE and BELOW */
    double threshold;
    double hysteresis; /**< is kept again only so far on the other side; default 0 */
    int64_t window_ms; /**< judges the mean of the last so many ms (of counts: the share of
                            bad ones); default 0: each value by itself */

    /* BURN */
    double objective;                    /**< share of good ones, such as 0.999; default 0.999 */
    double fast_factor, slow_factor;     /**< times what would just use up the budget; 14.4 and 6 */
    int64_t fast_long_ms, fast_short_ms; /**< default 1 h and 5 min; long is 2 to 100 times short */
    int64_t slow_long_ms, slow_short_ms; /**< default 6 h and 30 min */

    /* CHANGE, in standard deviations of the mean of a step */
    double drift;      /**< of each step, is ignored; default 1 */
    double limit;      /**< of the sum, default 15: a jump by 5 deviations is seen after 6 steps */
    double least;      /**< no less is taken as a deviation, as a share; default 0.05 */
    int64_t direction; /**< PERF_ALERT_UP ...; default UP */
    int64_t step_ms;   /**< default 1000 */
    int64_t baseline_ms; /**< how slowly the level moves; default 1800000. The first 60
                              steps with values teach it */
    int64_t adopt_ms;    /**< firing for so long, what is new becomes normal; default 1800000 */
} perf_alert_rule;
#define PERF_ALERT_RULE_INIT                                                                       \
    {                                                                                              \
        sizeof(perf_alert_rule), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0, 0, 0                                                                             \
    }

/**
 * Adds a rule; *id (may be NULL) names it. One that was made for a subject by the rule for all is
 * replaced. PERF_EINVAL, PERF_EEXISTS: there is one of that name and subject; PERF_EBUSY:
 * max_rules; PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_alerts_add(perf_alerts *alerts, const perf_alert_rule *rule, uint64_t *id);

/**
 * Adds four rules for all subjects, but those whose name is there: "response_time" above 3000 (ms,
 * mean of a minute), "memory" above 536870912 (bytes, for a minute), "cpu" above 80 (percent,
 * for two minutes), "error_rate" above 0.05 (counts, of five minutes, of 20 or more). An
 * endpoint that may be slower gets a rule of its own: the same name, with its subject.
 * PERF_EBUSY, PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_alerts_add_defaults(perf_alerts *alerts);

/** Removes a rule. Nothing is told. PERF_MISS: no such. Since 1.0. */
PERF_API int perf_alerts_remove(perf_alerts *alerts, uint64_t id);

/** *id of the rule of that name and subject (NULL: of all). PERF_MISS: none. Since 1.0. */
PERF_API int perf_alerts_find(perf_alerts *alerts, const char *name, const char *subject,
                              uint64_t *id);

/* ------------------------------------------------------------------ feeding */

/** A value for a rule that is no BURN. PERF_MISS: no such rule; PERF_EINVAL: not a finite number,
 *  or a BURN. Takes a mutex and no memory. Since 1.0. */
PERF_API int perf_alerts_feed(perf_alerts *alerts, uint64_t id, double value);

/** So many good and bad ones, for a BURN or a rule with window_ms (whose value is then the share of
 *  bad ones). PERF_MISS, PERF_EINVAL. Since 1.0. */
PERF_API int perf_alerts_feed_counts(perf_alerts *alerts, uint64_t id, uint64_t good, uint64_t bad);

/** The same for the rule of that name and subject, or the one for all, which makes one for the
 *  subject. PERF_MISS: no rule has that name; PERF_ENOMEM. Since 1.0. */
PERF_API int perf_alerts_feed_to(perf_alerts *alerts, const char *name, const char *subject,
                                 double value);
PERF_API int perf_alerts_feed_counts_to(perf_alerts *alerts, const char *name, const char *subject,
                                        uint64_t good, uint64_t bad);

/** Looks at what time alone has changed. Since 1.0. */
PERF_API int perf_alerts_tick(perf_alerts *alerts);

/* --------------------------------------------------------------- being told */

/** *fd: readable while perf_alerts_next has something. Never read or close it. PERF_EIO: the
 *  system has none. Since 1.0. */
PERF_API int perf_alerts_fd(perf_alerts *alerts, int *fd);

/** The next notice, as on_event would get (and got) it. PERF_MISS: none now. Since 1.0. */
PERF_API int perf_alerts_next(perf_alerts *alerts, perf_alert_event *event);

/* ------------------------------------------------------------------ looking */

/** A rule now. */
typedef struct perf_alert_status {
    size_t struct_size;
    int64_t state;       /**< PERF_ALERT_OK ... */
    int64_t since_ms;    /**< wall clock */
    double value;        /**< last judged: the value, mean or share; BURN: times the budget;
                              CHANGE: the mean of the last step */
    double threshold;    /**< by what; CHANGE: what it has been so far, 0 while it is learnt */
    uint64_t fed;        /**< calls */
    uint64_t fired;      /**< how often it went to FIRING */
    uint64_t told;       /**< notices */
    uint64_t suppressed; /**< events that were not told */
    char name[64];
    char subject[128];
} perf_alert_status;
#define PERF_ALERT_STATUS_INIT                                  \
    {                                                           \
        sizeof(perf_alert_status), 0, 0, 0, 0, 0, 0, 0, 0, {0}, \
        {                                                       \
            0                                                   \
        }                                                       \
    }

/** How a rule stands. PERF_MISS: no such. Since 1.0. */
PERF_API int perf_alerts_status(perf_alerts *alerts, uint64_t id, perf_alert_status *status);

/** The first remembered event with a sequence above after: start with 0, go on with its
 *  sequence. PERF_MISS: none. Since 1.0. */
PERF_API int perf_alerts_history(perf_alerts *alerts, uint64_t after, perf_alert_event *event);

PERF_END_DECLS

#endif
