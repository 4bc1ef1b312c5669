/* SPDX-License-Identifier: MIT */
/* alert*.c: rules, their states in time, notices, and days with known incidents. */
#include <libperf/alert.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alert_day.h"
#include "seams.h"
#include "test.h"

struct told {
    struct test_host th;
    perf_alerts *alerts;
    int count;
    perf_alert_event last;
};

static void tell(void *ctx, const perf_alert_event *event)
{
    struct told *t = ctx;
    uint64_t id;
    t->count++;
    t->last = *event;
    cr_assert_eq(perf_alerts_find(t->alerts, event->name, event->subject, &id), PERF_OK,
                 "no lock is held");
}

static void open_with(struct told *t, perf_alerts_options o)
{
    o.host = test_host_init(&t->th);
    cr_assert_eq(perf_alerts_open(&o, &t->alerts), PERF_OK, "%s", perf_last_error());
}

static void begin(struct told *t)
{
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    *t = (struct told){.alerts = NULL};
    o.on_event = tell;
    o.on_event_ctx = t;
    open_with(t, o);
}

static void end(struct told *t)
{
    perf_alerts_close(t->alerts);
    cr_assert_eq(t->th.live, 0);
}

static uint64_t add(struct told *t, const perf_alert_rule *rule)
{
    uint64_t id = 0;
    cr_assert_eq(perf_alerts_add(t->alerts, rule, &id), PERF_OK, "%s", perf_last_error());
    return id;
}

/* Most tests have one rule. */
static uint64_t begin_with(struct told *t, perf_alert_rule rule)
{
    begin(t);
    return add(t, &rule);
}

static perf_alert_status status_of(struct told *t, uint64_t id)
{
    perf_alert_status s = PERF_ALERT_STATUS_INIT;
    cr_assert_eq(perf_alerts_status(t->alerts, id, &s), PERF_OK);
    return s;
}

static int state(struct told *t, uint64_t id)
{
    return (int)status_of(t, id).state;
}

/* These three return the state that the rule is in then. */
static int feed(struct told *t, uint64_t id, double value)
{
    cr_assert_eq(perf_alerts_feed(t->alerts, id, value), PERF_OK, "%s", perf_last_error());
    return state(t, id);
}

static int feed_counts(struct told *t, uint64_t id, uint64_t good, uint64_t bad)
{
    cr_assert_eq(perf_alerts_feed_counts(t->alerts, id, good, bad), PERF_OK, "%s",
                 perf_last_error());
    return state(t, id);
}

static int pass(struct told *t, uint64_t id, int64_t ms)
{
    test_host_advance(&t->th, ms);
    cr_assert_eq(perf_alerts_tick(t->alerts), PERF_OK);
    return state(t, id);
}

static void feed_to(struct told *t, const char *name, const char *subject, double value)
{
    cr_assert_eq(perf_alerts_feed_to(t->alerts, name, subject, value), PERF_OK, "%s",
                 perf_last_error());
}

/* So many notices by now, and the last was of this. */
static bool was_told(const struct told *t, int count, int64_t from, int64_t to)
{
    return t->count == count && t->last.from == from && t->last.to == to;
}

static perf_alert_rule rule_of(int64_t kind, double threshold)
{
    perf_alert_rule r = PERF_ALERT_RULE_INIT;
    r.name = "x";
    r.kind = kind;
    r.threshold = threshold;
    return r;
}

static perf_alert_rule above(double threshold)
{
    return rule_of(PERF_ALERT_ABOVE, threshold);
}

/* --------------------------------------------------------------- thresholds */

Test(monitor_alert, at_once_and_back)
{
    struct told t;
    uint64_t id = begin_with(&t, above(10));
    cr_assert(feed(&t, id, 10) == PERF_ALERT_OK && !t.count, "not above");
    cr_assert_eq(feed(&t, id, 10.5), PERF_ALERT_FIRING);
    cr_assert(was_told(&t, 1, PERF_ALERT_OK, PERF_ALERT_FIRING));
    cr_assert(t.last.value == 10.5 && t.last.threshold == 10 && t.last.rule == id &&
              t.last.sequence == 1 && !strcmp(t.last.name, "x") && !t.last.subject[0] &&
              t.last.time_ms == t.th.realtime_ms);
    pass(&t, id, 61000);
    cr_assert_eq(feed(&t, id, 9), PERF_ALERT_RESOLVED);
    cr_assert(was_told(&t, 2, PERF_ALERT_FIRING, PERF_ALERT_RESOLVED));
    cr_assert(pass(&t, id, 60000) == PERF_ALERT_OK && t.count == 2);
    end(&t);
}

Test(monitor_alert, below)
{
    struct told t;
    perf_alert_rule r = rule_of(PERF_ALERT_BELOW, 5);
    r.hysteresis = 2;
    uint64_t id = begin_with(&t, r);
    cr_assert_eq(feed(&t, id, 4), PERF_ALERT_FIRING);
    cr_assert_eq(feed(&t, id, 6), PERF_ALERT_FIRING, "not yet by the hysteresis");
    cr_assert_eq(feed(&t, id, 7), PERF_ALERT_RESOLVED);
    end(&t);
}

Test(monitor_alert, for_so_long_and_cleared_for_so_long)
{
    struct told t;
    perf_alert_rule r = above(10);
    r.hysteresis = 3;
    r.for_ms = 5000;
    r.clear_for_ms = 4000;
    r.interval_ms = -1;
    uint64_t id = begin_with(&t, r);
    cr_assert_eq(feed(&t, id, 11), PERF_ALERT_PENDING);
    pass(&t, id, 4999);
    cr_assert_eq(feed(&t, id, 9), PERF_ALERT_OK, "not above: from the beginning");
    feed(&t, id, 11);
    cr_assert(pass(&t, id, 4999) == PERF_ALERT_PENDING && !t.count);
    cr_assert(pass(&t, id, 1) == PERF_ALERT_FIRING && t.count == 1, "the last value stands");
    feed(&t, id, 8);
    cr_assert_eq(pass(&t, id, 10000), PERF_ALERT_FIRING, "below, and not by the hysteresis");
    feed(&t, id, 7);
    pass(&t, id, 3999);
    feed(&t, id, 8); /* from the beginning */
    feed(&t, id, 7);
    cr_assert_eq(pass(&t, id, 3999), PERF_ALERT_FIRING);
    pass(&t, id, 1);
    cr_assert(t.count == 2 && t.last.to == PERF_ALERT_RESOLVED);
    end(&t);
}

Test(monitor_alert, mean_of_a_window)
{
    struct told t;
    perf_alert_rule r = above(100);
    r.window_ms = 60000;
    r.min_count = 10;
    uint64_t id = begin_with(&t, r);
    for (int i = 0; i < 9; i++)
        cr_assert_eq(feed(&t, id, 1000), PERF_ALERT_OK, "too few");
    cr_assert_eq(feed(&t, id, 1000), PERF_ALERT_FIRING);
    for (int i = 0; i < 90; i++)
        feed(&t, id, 0);
    cr_assert(status_of(&t, id).value == 100 && state(&t, id) == PERF_ALERT_RESOLVED, "%g",
              status_of(&t, id).value);
    cr_assert_eq(feed(&t, id, 1e6), PERF_ALERT_FIRING);
    cr_assert_eq(pass(&t, id, 56000), PERF_ALERT_FIRING);
    cr_assert_eq(pass(&t, id, 4000), PERF_ALERT_RESOLVED, "nothing is left in the window");
    end(&t);
}

Test(monitor_alert, share_of_errors)
{
    struct told t;
    perf_alert_rule r = above(0.05);
    r.window_ms = 10000;
    uint64_t id = begin_with(&t, r);
    cr_assert_eq(feed_counts(&t, id, 95, 5), PERF_ALERT_OK);
    cr_assert_eq(feed_counts(&t, id, 0, 1), PERF_ALERT_FIRING);
    end(&t);
}

Test(monitor_alert, missing_data)
{
    struct told t;
    perf_alert_rule r = above(10);
    r.missing_ms = 30000;
    r.interval_ms = -1;
    uint64_t id = begin_with(&t, r);
    cr_assert_eq(pass(&t, id, 29999), PERF_ALERT_OK);
    cr_assert_eq(pass(&t, id, 1), PERF_ALERT_MISSING);
    cr_assert(was_told(&t, 1, PERF_ALERT_OK, PERF_ALERT_MISSING));
    pass(&t, id, 100000);
    cr_assert_eq(t.count, 1);
    cr_assert_eq(feed(&t, id, 1), PERF_ALERT_OK);
    cr_assert(was_told(&t, 2, PERF_ALERT_MISSING, PERF_ALERT_OK));
    feed(&t, id, 11);
    pass(&t, id, 30000);
    cr_assert(was_told(&t, 4, PERF_ALERT_FIRING, PERF_ALERT_MISSING));
    feed(&t, id, 11);
    cr_assert(was_told(&t, 5, PERF_ALERT_MISSING, PERF_ALERT_FIRING));
    end(&t);
}

/* ------------------------------------------------------------------ notices */

Test(monitor_alert, flapping_is_told_once_in_an_interval)
{
    struct told t;
    uint64_t id = begin_with(&t, above(10));
    for (int i = 0; i < 50; i++) { /* 50 s */
        feed(&t, id, i % 2 ? 5 : 15);
        pass(&t, id, 1000);
    }
    cr_assert(t.count == 1 && t.last.to == PERF_ALERT_FIRING);
    cr_assert(status_of(&t, id).fired == 25 && state(&t, id) == PERF_ALERT_RESOLVED);
    pass(&t, id, 9999);
    cr_assert_eq(t.count, 1);
    pass(&t, id, 1); /* what was told is no longer so */
    cr_assert(t.count == 2 && t.last.to == PERF_ALERT_RESOLVED && t.last.suppressed == 48, "%llu",
              (unsigned long long)t.last.suppressed);
    cr_assert(status_of(&t, id).suppressed == 48 && status_of(&t, id).told == 2);
    pass(&t, id, 600000);
    cr_assert_eq(t.count, 2);
    end(&t);
}

Test(monitor_alert, repeats_while_it_fires)
{
    struct told t;
    perf_alert_rule r = above(10);
    r.repeat_ms = 300000;
    uint64_t id = begin_with(&t, r);
    feed(&t, id, 11);
    for (int i = 0; i < 900; i++)
        pass(&t, id, 1000);
    cr_assert(was_told(&t, 4, PERF_ALERT_FIRING, PERF_ALERT_FIRING));
    end(&t);
}

static bool readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

Test(monitor_alert, notices_that_are_asked_for)
{
    struct told t;
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    perf_alert_event event = PERF_ALERT_EVENT_INIT;
    perf_alert_rule r = above(10);
    int fd = -1, again = -1;
    o.queue = 4;
    o.history = 8;
    r.interval_ms = -1;
    open_with(&t, o);
    uint64_t id = add(&t, &r);
    feed(&t, id, 11); /* before anybody asks */
    cr_assert_eq(perf_alerts_fd(t.alerts, &fd), PERF_OK);
    cr_assert(readable(fd));
    cr_assert_eq(perf_alerts_next(t.alerts, &event), PERF_OK);
    cr_assert(event.to == PERF_ALERT_FIRING && event.sequence == 1 && !readable(fd));
    cr_assert_eq(perf_alerts_next(t.alerts, &event), PERF_MISS);
    for (int i = 0; i < 10; i++)
        feed(&t, id, i % 2 ? 11 : 9);
    cr_assert(readable(fd));
    for (uint64_t i = 0; i < 4; i++) { /* the oldest are lost */
        cr_assert_eq(perf_alerts_next(t.alerts, &event), PERF_OK);
        cr_assert_eq(event.sequence, 8 + i);
    }
    cr_assert(perf_alerts_next(t.alerts, &event) == PERF_MISS && !readable(fd));
    cr_assert(perf_alerts_fd(t.alerts, &again) == PERF_OK && again == fd);
    uint64_t after = 0, count = 0;
    for (; perf_alerts_history(t.alerts, after, &event) == PERF_OK; count++) {
        cr_assert_eq(event.sequence, count + 4, "the last eight");
        after = event.sequence;
    }
    cr_assert(count == 8 && after == 11);
    cr_assert_eq(perf_alerts_history(t.alerts, 6, &event), PERF_OK);
    cr_assert_eq(event.sequence, 7);
    end(&t);
}

/* ----------------------------------------------------------- names, subjects */

Test(monitor_alert, defaults_and_endpoints_of_their_own)
{
    struct told t;
    uint64_t id, chat, all;
    perf_alert_rule slow = above(10000);
    slow.name = "response_time";
    slow.subject = "/api/report";
    begin_with(&t, slow);
    cr_assert_eq(perf_alerts_add_defaults(t.alerts), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_alerts_add_defaults(t.alerts), PERF_OK, "those that are there stay");
    feed_to(&t, "response_time", "/api/report", 5000);
    cr_assert_eq(t.count, 0);
    feed_to(&t, "response_time", "/api/chat", 3100);
    cr_assert(t.count == 1 && !strcmp(t.last.subject, "/api/chat") && t.last.threshold == 3000);
    cr_assert_eq(perf_alerts_find(t.alerts, "response_time", "/api/chat", &chat), PERF_OK);
    cr_assert_eq(perf_alerts_find(t.alerts, "response_time", NULL, &all), PERF_OK);
    cr_assert(chat != all && state(&t, all) == PERF_ALERT_OK, "each by itself");
    slow.subject = "/api/chat"; /* replaces what was made */
    id = add(&t, &slow);
    cr_assert_eq(perf_alerts_add(t.alerts, &slow, NULL), PERF_EEXISTS);
    cr_assert_eq(perf_alerts_feed(t.alerts, chat, 1), PERF_MISS, "its id is gone for good");
    cr_assert_eq(feed(&t, id, 9000), PERF_ALERT_OK);
    cr_assert_eq(perf_alerts_feed_counts_to(t.alerts, "error_rate", "", 30, 10), PERF_OK);
    cr_assert(t.count == 2 && !strcmp(t.last.name, "error_rate") && t.last.value == 0.25);
    for (int i = 0; i < 121; i++) {
        feed_to(&t, "cpu", NULL, 85);
        feed_to(&t, "memory", NULL, i < 70 ? 600e6 : 1e6);
        pass(&t, id, 1000);
    }
    perf_alert_event event = PERF_ALERT_EVENT_INIT;
    int cpu = 0, memory = 0;
    for (uint64_t after = 0; !perf_alerts_history(t.alerts, after, &event);
         after = event.sequence) {
        cpu += event.to == PERF_ALERT_FIRING && !strcmp(event.name, "cpu");
        memory += event.to == PERF_ALERT_FIRING && !strcmp(event.name, "memory");
    }
    cr_assert(cpu == 1 && memory == 1);
    cr_assert_eq(perf_alerts_remove(t.alerts, id), PERF_OK);
    cr_assert_eq(perf_alerts_remove(t.alerts, id), PERF_MISS);
    cr_assert_eq(perf_alerts_feed_to(t.alerts, "no such", "x", 1), PERF_MISS);
    end(&t);
}

Test(monitor_alert, names_of_strangers_take_bounded_memory)
{
    struct told t;
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    perf_alert_rule r = above(10);
    char name[400];
    o.max_rules = 50;
    open_with(&t, o);
    uint64_t all = add(&t, &r);
    for (int i = 0; i < 1000; i++) {
        memset(name, 0xff, sizeof name);
        snprintf(name, 20, "%d/", i);
        name[strlen(name)] = (char)0xff; /* long, and no UTF-8 */
        name[sizeof name - 1] = 0;
        feed_to(&t, "x", name, 1);
    }
    cr_assert_eq(status_of(&t, all).fed, 1000 - 49);
    r.name = "y";
    cr_assert_eq(perf_alerts_add(t.alerts, &r, NULL), PERF_EBUSY);
    end(&t);
}

/* ------------------------------------------------------------- burn, change */

/* The seconds until it is so, if each has so many requests. */
static int seconds_until(struct told *t, uint64_t id, int state_, uint64_t good, uint64_t bad,
                         int most)
{
    int seconds = 0;
    for (; seconds < most && state(t, id) != state_; seconds++) {
        feed_counts(t, id, good, bad);
        test_host_advance(&t->th, 1000);
    }
    return seconds;
}

Test(monitor_alert, burn_needs_both_windows)
{
    struct told t;
    uint64_t id = begin_with(&t, rule_of(PERF_ALERT_BURN, 0));
    /* As long as the longest window, without errors. */
    cr_assert_eq(seconds_until(&t, id, PERF_ALERT_FIRING, 10, 0, 6 * 3600), 6 * 3600);
    /* Half of all fail: 500 times the budget. The hour is over 14.4 after 104 s of it. */
    int seconds = seconds_until(&t, id, PERF_ALERT_FIRING, 5, 5, 600);
    cr_assert(seconds >= 100 && seconds <= 106, "after %d s", seconds);
    cr_assert(t.count == 1 && t.last.threshold == 14.4 && t.last.value >= 14.4);
    /* All is well again: the short window forgets within five minutes, as the long one does not
     * within an hour. */
    seconds = seconds_until(&t, id, PERF_ALERT_RESOLVED, 10, 0, 3600);
    cr_assert(seconds >= 240 && seconds <= 310, "resolved after %d s", seconds);
    end(&t);
}

Test(monitor_alert, burn_of_few_requests_says_nothing)
{
    struct told t;
    uint64_t id = begin_with(&t, rule_of(PERF_ALERT_BURN, 0));
    cr_assert_eq(feed_counts(&t, id, 0, 9), PERF_ALERT_OK);
    cr_assert_eq(feed_counts(&t, id, 0, 1), PERF_ALERT_FIRING);
    cr_assert_eq(pass(&t, id, 7 * 3600000), PERF_ALERT_RESOLVED, "all of it is forgotten");
    end(&t);
}

static int steps_until(struct told *t, uint64_t id, int state_, double value, int most)
{
    for (int i = 0; i < most; i++) {
        if (state(t, id) == state_)
            return i;
        feed(t, id, value * (i % 2 ? 1.02 : 0.98));
        pass(t, id, 1000);
    }
    return most;
}

Test(monitor_alert, change_up_down_and_adopted)
{
    struct told t;
    perf_alert_rule r = rule_of(PERF_ALERT_CHANGE, 0);
    r.direction = PERF_ALERT_BOTH;
    r.interval_ms = -1;
    uint64_t id = begin_with(&t, r);
    cr_assert_eq(steps_until(&t, id, PERF_ALERT_FIRING, 100, 300), 300);
    double level = status_of(&t, id).threshold;
    cr_assert(level > 95 && level < 105, "%g", level);
    feed(&t, id, 1e30); /* a single one is none, whatever it is; nor is a zero */
    pass(&t, id, 1000);
    feed(&t, id, 0);
    cr_assert_eq(pass(&t, id, 1000), PERF_ALERT_OK);
    int n = steps_until(&t, id, PERF_ALERT_FIRING, 200, 100);
    cr_assert(n >= 5 && n <= 7, "up, after %d", n);
    n = steps_until(&t, id, PERF_ALERT_RESOLVED, 100, 100);
    cr_assert(n >= 2 && n <= 30, "back, after %d", n);
    n = steps_until(&t, id, PERF_ALERT_FIRING, 50, 100);
    cr_assert(n >= 5 && n <= 15, "down, after %d", n);
    n = steps_until(&t, id, PERF_ALERT_RESOLVED, 50, 3000);
    cr_assert(n >= 1790 && n <= 1810, "adopted after %d", n);
    cr_assert_eq(steps_until(&t, id, PERF_ALERT_FIRING, 50, 300), 300);
    level = status_of(&t, id).threshold;
    cr_assert(level > 48 && level < 52, "%g", level);
    end(&t);
}

/* ------------------------------------------------------------ a day in a row */

static struct alert_day day(enum alert_day_kind kind)
{
    struct alert_day d;
    cr_assert_eq(alert_day_run(&d, kind, 42), PERF_OK, "%s", perf_last_error());
    for (int r = 0; r < DAY_RULES; r++) /* the mean of a minute is moved by a spike: it is so */
        cr_assert(!d.false_alarms[r] || (kind == DAY_SPIKES && r == DAY_SLOW), "%s: %s",
                  alert_day_names[kind], alert_day_rules[r]);
    return d;
}

static void within(const struct alert_day *d, int rule, int64_t least, int64_t most)
{
    cr_assert(d->detected_s[rule] >= least && d->detected_s[rule] <= most, "%s after %lld s",
              alert_day_rules[rule], (long long)d->detected_s[rule]);
}

Test(monitor_alert_day, quiet_and_spikes)
{
    struct alert_day d = day(DAY_QUIET);
    for (int r = 0; r < DAY_RULES; r++)
        cr_assert(!d.alarms[r] && !d.notices[r], "%s", alert_day_rules[r]);
    d = day(DAY_SPIKES);
    cr_assert(!d.alarms[DAY_CHANGE] && !d.alarms[DAY_BURN]);
}

Test(monitor_alert_day, steps_and_a_ramp)
{
    struct alert_day d = day(DAY_STEP);
    within(&d, DAY_SLOW, 1, 60);
    within(&d, DAY_CHANGE, 1, 10);
    d = day(DAY_SMALL_STEP);
    within(&d, DAY_CHANGE, 2, 120);
    cr_assert_eq(d.alarms[DAY_SLOW], 0);
    d = day(DAY_RAMP);
    within(&d, DAY_CHANGE, 60, 1500);
    within(&d, DAY_SLOW, 600, 2400);
}

Test(monitor_alert_day, flapping)
{
    struct alert_day d = day(DAY_FLAPPING);
    within(&d, DAY_CHANGE, 1, 10);
    for (int r = 0; r < DAY_RULES; r++)
        cr_assert_leq(d.notices[r], 62, "one in a minute");
}

Test(monitor_alert_day, errors)
{
    struct alert_day d = day(DAY_OUTAGE);
    within(&d, DAY_BURN, 20, 70);
    d = day(DAY_ERRORS);
    within(&d, DAY_BURN, 600, 1200);
    d = day(DAY_SLOW_ERRORS);
    within(&d, DAY_BURN, 9000, 15000);
}

Test(monitor_alert_day, leak)
{
    struct alert_day d = day(DAY_LEAK);
    within(&d, DAY_MEMORY, 60, 62);
    cr_assert_eq(d.notices[DAY_MEMORY], 1);
}

/* ------------------------------------------------------------------ the rest */

Test(monitor_alert, refuses)
{
    struct told t;
    uint64_t id, burn;
    begin(&t);
    static const struct {
        perf_alert_rule rule;
        const char *field;
    } wrong[] = {
        {{sizeof(perf_alert_rule), .kind = 1}, "name"},
        {{sizeof(perf_alert_rule), .name = "", .kind = 1}, "name"},
        {{sizeof(perf_alert_rule), .name = "a"}, "kind"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 5}, "kind"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 1, .for_ms = -1}, "for_ms"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 1, .threshold = NAN}, "threshold"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 1, .hysteresis = -1}, "hysteresis"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 3, .objective = 1.5}, "objective"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 3, .fast_long_ms = 300000}, "fast_long"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 4, .direction = 7}, "direction"},
        {{sizeof(perf_alert_rule), .name = "a", .kind = 4, .drift = NAN}, "drift"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cr_assert_eq(perf_alerts_add(t.alerts, &wrong[i].rule, &id), PERF_EINVAL, "%zu", i);
        cr_assert(strstr(perf_last_error(), wrong[i].field), "%s", perf_last_error());
    }
    cr_assert_eq(perf_alerts_add(t.alerts, NULL, &id), PERF_EINVAL);
    perf_alert_rule r = above(1);
    id = add(&t, &r);
    r.kind = PERF_ALERT_BURN;
    r.name = "b";
    r.threshold = 0;
    burn = add(&t, &r);
    cr_assert_eq(perf_alerts_feed(t.alerts, id, NAN), PERF_EINVAL);
    cr_assert_eq(perf_alerts_feed(t.alerts, id, INFINITY), PERF_EINVAL);
    cr_assert_eq(perf_alerts_feed(t.alerts, burn, 1), PERF_EINVAL);
    cr_assert_eq(perf_alerts_feed_counts(t.alerts, id, 1, 1), PERF_EINVAL);
    cr_assert_eq(perf_alerts_feed(t.alerts, 12345, 1), PERF_MISS);
    cr_assert_eq(perf_alerts_feed_to(t.alerts, NULL, NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_alerts_feed_counts_to(t.alerts, NULL, NULL, 1, 1), PERF_EINVAL);
    cr_assert_eq(perf_alerts_find(t.alerts, NULL, NULL, &id), PERF_EINVAL);
    cr_assert_eq(perf_alerts_next(t.alerts, NULL), PERF_EINVAL);
    cr_assert_eq(perf_alerts_fd(t.alerts, NULL), PERF_EINVAL);
    cr_assert_eq(perf_alerts_tick(NULL), PERF_EINVAL);
    cr_assert_eq(perf_alerts_open(NULL, NULL), PERF_EINVAL);
    int64_t value;
    cr_assert_eq(perf_constant("PERF_ALERT_MISSING", &value), PERF_OK);
    cr_assert_eq(value, PERF_ALERT_MISSING);
    pid_t child = fork();
    if (!child) {
        bool right = perf_alerts_feed(t.alerts, id, 1) == PERF_EFORKED &&
                     perf_alerts_tick(t.alerts) == PERF_EFORKED;
        perf_alerts_close(t.alerts);
        _exit(right ? 0 : 1);
    }
    int status = 1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    perf_alerts_close(NULL);
    end(&t);
}

Test(monitor_alert, without_memory)
{
    struct test_host th;
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    o.host = test_host_init(&th);
    for (int64_t fail = 1;; fail++) {
        perf_alerts *alerts = NULL;
        int rc, seen = 0;
        th.fail_at = fail;
        if (!(rc = perf_alerts_open(&o, &alerts))) {
            for (int kind = PERF_ALERT_ABOVE; kind <= PERF_ALERT_CHANGE; kind++) {
                perf_alert_rule r = rule_of(kind, 0);
                r.subject =
                    kind == PERF_ALERT_ABOVE ? "" : (const char *[]){"a", "b", "c"}[kind - 2];
                rc = perf_alerts_add(alerts, &r, NULL);
                cr_assert(!rc || rc == PERF_ENOMEM);
                seen += rc == PERF_ENOMEM;
            }
            rc = perf_alerts_feed_to(alerts, "x", "made", 1);
            cr_assert(!rc || rc == PERF_ENOMEM || rc == PERF_MISS);
            cr_assert_eq(perf_alerts_tick(alerts), PERF_OK);
        } else {
            cr_assert_eq(rc, PERF_ENOMEM);
        }
        perf_alerts_close(alerts);
        cr_assert_eq(th.live, 0);
        if (th.fail_at > 0) { /* it was not reached */
            cr_assert(fail > 10 && !seen);
            break;
        }
        th.fail_at = 0;
    }
}

struct crowd {
    perf_alerts *alerts;
    _Atomic int told;
};

static void count(void *ctx, const perf_alert_event *event)
{
    (void)event;
    ((struct crowd *)ctx)->told++;
}

static void *feed_often(void *arg)
{
    struct crowd *c = arg;
    perf_alert_event event = PERF_ALERT_EVENT_INIT;
    char subject[32];
    for (int i = 0; i < 2000; i++) {
        snprintf(subject, sizeof subject, "/%d", i % 20);
        cr_assert_eq(perf_alerts_feed_to(c->alerts, "x", subject, i % 3 ? 5 : 15), PERF_OK);
        if (i % 50 == 0) {
            cr_assert_eq(perf_alerts_tick(c->alerts), PERF_OK);
            perf_alerts_next(c->alerts, &event);
            perf_alerts_history(c->alerts, 0, &event);
        }
    }
    return NULL;
}

Test(monitor_alert, many_threads)
{
    struct crowd c = {NULL, 0};
    perf_alerts_options o = PERF_ALERTS_OPTIONS_INIT;
    perf_alert_rule r = above(10);
    pthread_t threads[4];
    o.on_event = count;
    o.on_event_ctx = &c;
    r.interval_ms = -1;
    cr_assert_eq(perf_alerts_open(&o, &c.alerts), PERF_OK);
    cr_assert_eq(perf_alerts_add(c.alerts, &r, NULL), PERF_OK);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, feed_often, &c), 0);
    uint64_t fed = 0, told = 0;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 20; i++) {
        char subject[32];
        uint64_t id;
        perf_alert_status s = PERF_ALERT_STATUS_INIT;
        snprintf(subject, sizeof subject, "/%d", i);
        cr_assert_eq(perf_alerts_find(c.alerts, "x", subject, &id), PERF_OK);
        cr_assert_eq(perf_alerts_status(c.alerts, id, &s), PERF_OK);
        fed += s.fed;
        told += s.told;
    }
    cr_assert_eq(fed, 8000);
    cr_assert_eq(told, (uint64_t)c.told);
    perf_alerts_close(c.alerts);
}
