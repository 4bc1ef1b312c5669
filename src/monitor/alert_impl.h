/* SPDX-License-Identifier: MIT */
/*
 * alert_impl.h - what the alert*.c files share: a rule with its state, windows
 * of counts, and the level of a stream.
 */
#ifndef PERF_MONITOR_ALERT_IMPL_H
#define PERF_MONITOR_ALERT_IMPL_H

#include <libperf/alert.h>
#include <pthread.h>
#include <stdbool.h>

#include "../base/options.h"
#include "../base/status.h"
#include "../base/uthash_host.h"

enum { PERF__ALERT_NAME = 64, PERF__ALERT_SUBJECT = 128, PERF__ALERT_LEARN = 60 };

/* -------------------------------------------------------------- alert_window */

struct perf__alert_sum {
    double bad, total;
};

/* Sums over the last long_count and short_count buckets. The newest is still being filled. */
struct perf__alert_window {
    int64_t width_ns, newest; /* number of the newest bucket since the clock's zero */
    uint32_t long_count, short_count;
    struct perf__alert_sum closed_long, closed_short; /* without the newest */
    struct perf__alert_sum *buckets;                  /* long_count of them, as a ring */
};

int perf__alert_window_init(struct perf__alert_window *w, const perf_allocator *allocator,
                            int64_t long_ms, int64_t short_ms);
void perf__alert_window_add(struct perf__alert_window *w, int64_t now_ns, double bad, double total);
void perf__alert_window_sums(struct perf__alert_window *w, int64_t now_ns,
                             struct perf__alert_sum *over_long, struct perf__alert_sum *over_short);

/* -------------------------------------------------------------- alert_change */

/* The level of a stream of logarithms, and how far it has left it. */
struct perf__alert_change {
    int64_t step_ns, step; /* number of the open step */
    double sum, count;     /* in the open step */
    double drift, limit, least, weight;
    int64_t direction;
    int learnt; /* steps; PERF__ALERT_LEARN: level and deviation are known */
    double level, deviation, last;
    double up, down; /* the cumulative sums */
    double learning[PERF__ALERT_LEARN];
};

void perf__alert_change_init(struct perf__alert_change *c, const perf_alert_rule *rule);
/** Takes a value at that time. firing: the level stays as it is. */
void perf__alert_change_add(struct perf__alert_change *c, int64_t now_ns, double value,
                            bool firing);
/** Closes a step whose time is over. */
void perf__alert_change_pass(struct perf__alert_change *c, int64_t now_ns, bool firing);
/** Begins anew with what comes. */
void perf__alert_change_forget(struct perf__alert_change *c);
bool perf__alert_change_broken(const struct perf__alert_change *c);
bool perf__alert_change_kept(const struct perf__alert_change *c);

/* --------------------------------------------------------------- alert_rule */

struct perf__alert_rule {
    perf_alert_rule options; /* with every default; its strings point into key */
    uint64_t id;
    bool made;             /* for a subject, by the rule for all */
    bool parent;           /* has made some */
    int state, told_state; /* told: OK, FIRING or MISSING */
    bool ever_fed, ever_told;
    int64_t since_ms;                             /* wall clock */
    int64_t fed_ns, pending_ns, kept_ns, told_ns; /* kept_ns -1: it is not kept now */
    int64_t fired_ns, resolved_ns;
    double value, threshold; /* last judged */
    bool broken, kept;
    uint64_t fed, fired, told, suppressed, unsaid; /* unsaid: since the last notice */
    uint64_t last_sequence;
    struct perf__alert_window windows[2];
    struct perf__alert_change *change;
    UT_hash_handle hh;
    uint32_t key_len;
    char key[PERF__ALERT_NAME + PERF__ALERT_SUBJECT]; /* name, zero, subject, zero */
};

/** Checks a rule and puts in the defaults. PERF_EINVAL. */
int perf__alert_rule_check(const perf_alert_rule *given, perf_alert_rule *own);
/** A new rule of options that were checked; NULL: no memory. */
struct perf__alert_rule *perf__alert_rule_new(const perf_allocator *allocator,
                                              const perf_alert_rule *options, int64_t now_ns);
void perf__alert_rule_free(const perf_allocator *allocator, struct perf__alert_rule *rule);
/** Name and subject as a key of up to sizeof rule->key bytes, cut; its length. */
uint32_t perf__alert_key(char *key, const char *name, const char *subject);
/** Judges what it has now: value, threshold, broken, kept. */
void perf__alert_rule_judge(struct perf__alert_rule *rule, int64_t now_ns);

/* ------------------------------------------------------------------- alert */

/* Events in a ring, from the oldest. */
struct perf__alert_ring {
    perf_alert_event *events;
    uint64_t size, first, count;
};

struct perf_alerts {
    struct perf__host host;
    uint64_t fork_generation;
    perf_alert_fn on_event;
    void *on_event_ctx;
    struct perf__hash_key secret;
    pthread_mutex_t mutex; /* around all below; on_event is called without it */
    uint64_t max_rules, count, generation, sequence;
    struct perf__alert_rule **rules; /* max_rules places; a place is the low half of an id */
    struct perf__alert_rule *by_key;
    struct perf__alert_ring history, queue;
    int fd;
};

int perf__alerts_check(const perf_alerts *alerts);

/* -------------------------------------------------------------- alert_event */

/** Takes the rule on by the time that has passed and what it was judged. True: event is to be told.
 *  Under the mutex, as all here. */
bool perf__alert_step(perf_alerts *alerts, struct perf__alert_rule *rule, int64_t now_ns, bool fed,
                      perf_alert_event *event);
void perf__alert_ring_put(struct perf__alert_ring *ring, const perf_alert_event *event);

#endif
