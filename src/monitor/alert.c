/* SPDX-License-Identifier: MIT */
/*
 * alert.c - alerts: opening, their rules by id and by name, and what they are fed.
 *
 * One mutex around it all, for microseconds at most; the listener is called
 * after it was let go. Any thread.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "alert_impl.h"

int perf__alerts_check(const perf_alerts *alerts)
{
    if (!alerts)
        return perf__fail(PERF_EINVAL, "alerts is NULL; open some first");
    return alerts->fork_generation == perf__fork_generation ? PERF_OK : perf__fail_forked();
}

/* -------------------------------------------------------------- open, close */

static int check_size(const char *field, uint64_t *value, uint64_t preset, int64_t max)
{
    if (!*value)
        *value = preset;
    return perf__check_range(field, *value > INT64_MAX ? INT64_MAX : (int64_t)*value, 1, max);
}

int perf_alerts_open(const perf_alerts_options *given, perf_alerts **out)
{
    perf_alerts_options o;
    struct perf__host host;
    int rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "out is NULL; give a place for the alerts");
    if ((rc = perf__options_take("perf_alerts_options", given, &o, sizeof o)) ||
        (rc = check_size("max_rules", &o.max_rules, 1000, 100000)) ||
        (rc = check_size("history", &o.history, 256, 65536)) ||
        (rc = check_size("queue", &o.queue, 64, 65536)) || (rc = perf__host_take(o.host, &host)) ||
        (rc = perf__fork_arm()))
        return rc;
    perf_alerts *alerts = perf__calloc(&host.allocator, 1, sizeof *alerts);
    if (!alerts)
        return perf__fail_nomem("alerts");
    alerts->host = host;
    alerts->fork_generation = perf__fork_generation;
    alerts->on_event = o.on_event;
    alerts->on_event_ctx = o.on_event_ctx;
    alerts->max_rules = o.max_rules;
    alerts->history.size = o.history;
    alerts->queue.size = o.queue;
    alerts->fd = -1;
    alerts->secret = perf__hash_random_key();
    alerts->rules = perf__calloc(&host.allocator, o.max_rules, sizeof(struct perf__alert_rule *));
    alerts->history.events = perf__calloc(&host.allocator, o.history, sizeof(perf_alert_event));
    alerts->queue.events = perf__calloc(&host.allocator, o.queue, sizeof(perf_alert_event));
    if (!alerts->rules || !alerts->history.events || !alerts->queue.events ||
        pthread_mutex_init(&alerts->mutex, NULL)) {
        perf__free(&host.allocator, alerts->rules);
        perf__free(&host.allocator, alerts->history.events);
        perf__free(&host.allocator, alerts->queue.events);
        perf__free(&host.allocator, alerts);
        return perf__fail_nomem("alerts");
    }
    *out = alerts;
    return PERF_OK;
}

/* Takes a rule out and frees it. Under the mutex. */
static void drop(perf_alerts *alerts, struct perf__alert_rule *rule)
{
    const perf_allocator *uthash_allocator = &alerts->host.allocator;
    HASH_DEL(alerts->by_key, rule);
    alerts->rules[(uint32_t)rule->id] = NULL;
    alerts->count--;
    perf__alert_rule_free(&alerts->host.allocator, rule);
}

void perf_alerts_close(perf_alerts *alerts)
{
    if (!alerts)
        return;
    for (uint64_t i = 0; i < alerts->max_rules; i++)
        if (alerts->rules[i])
            drop(alerts, alerts->rules[i]);
    if (alerts->fd >= 0)
        close(alerts->fd);
    pthread_mutex_destroy(&alerts->mutex);
    perf_allocator allocator = alerts->host.allocator;
    perf__free(&allocator, alerts->rules);
    perf__free(&allocator, alerts->history.events);
    perf__free(&allocator, alerts->queue.events);
    perf__free(&allocator, alerts);
}

/* -------------------------------------------------------------------- rules */

static struct perf__alert_rule *by_id(const perf_alerts *alerts, uint64_t id)
{
    uint32_t place = (uint32_t)id;
    struct perf__alert_rule *rule = place < alerts->max_rules ? alerts->rules[place] : NULL;
    return rule && rule->id == id ? rule : NULL;
}

static struct perf__alert_rule *by_name(perf_alerts *alerts, const char *name, const char *subject)
{
    struct perf__hash_key uthash_secret = alerts->secret;
    char key[PERF__ALERT_NAME + PERF__ALERT_SUBJECT];
    struct perf__alert_rule *rule;
    uint32_t len = perf__alert_key(key, name, subject ? subject : "");
    HASH_FIND(hh, alerts->by_key, key, len, rule);
    return rule;
}

/* Makes a rule of checked options; NULL with a sentence. Under the mutex. */
static struct perf__alert_rule *make(perf_alerts *alerts, const perf_alert_rule *options, int *rc)
{
    const perf_allocator *uthash_allocator = &alerts->host.allocator;
    struct perf__hash_key uthash_secret = alerts->secret;
    bool uthash_oom = false;
    if (alerts->count == alerts->max_rules) {
        *rc = perf__fail(PERF_EBUSY, "there are %llu rules; remove some, or give more max_rules",
                         (unsigned long long)alerts->count);
        return NULL;
    }
    struct perf__alert_rule *rule =
        perf__alert_rule_new(uthash_allocator, options, perf__now_ns(&alerts->host.clock));
    if (rule)
        HASH_ADD(hh, alerts->by_key, key, rule->key_len, rule);
    if (!rule || uthash_oom) {
        if (rule)
            perf__alert_rule_free(uthash_allocator, rule);
        *rc = perf__fail_nomem("an alert's rule");
        return NULL;
    }
    uint32_t place = 0;
    while (alerts->rules[place])
        place++;
    alerts->rules[place] = rule;
    alerts->count++;
    rule->id = ++alerts->generation << 32 | place; /* so an id is never used twice */
    rule->since_ms = perf__realtime_ms(&alerts->host.clock);
    return rule;
}

int perf_alerts_add(perf_alerts *alerts, const perf_alert_rule *given, uint64_t *id)
{
    perf_alert_rule o;
    int rc;
    if ((rc = perf__alerts_check(alerts)) || (rc = perf__alert_rule_check(given, &o)))
        return rc;
    pthread_mutex_lock(&alerts->mutex);
    struct perf__alert_rule *rule = by_name(alerts, o.name, o.subject);
    if (rule && rule->made) {
        drop(alerts, rule);
        rule = NULL;
    }
    if (rule)
        rc = perf__fail(PERF_EEXISTS, "there is a rule \"%s\" for \"%s\"; remove it first", o.name,
                        o.subject);
    else if ((rule = make(alerts, &o, &rc)) && id)
        *id = rule->id;
    pthread_mutex_unlock(&alerts->mutex);
    return rc;
}

int perf_alerts_add_defaults(perf_alerts *alerts)
{
    static const perf_alert_rule defaults[] = {
        {.struct_size = sizeof(perf_alert_rule),
         .name = "response_time",
         .kind = PERF_ALERT_ABOVE,
         .threshold = 3000,
         .hysteresis = 300,
         .window_ms = 60000,
         .clear_for_ms = 60000},
        {.struct_size = sizeof(perf_alert_rule),
         .name = "memory",
         .kind = PERF_ALERT_ABOVE,
         .threshold = 512.0 * 1048576,
         .hysteresis = 25.0 * 1048576,
         .for_ms = 60000,
         .clear_for_ms = 60000},
        {.struct_size = sizeof(perf_alert_rule),
         .name = "cpu",
         .kind = PERF_ALERT_ABOVE,
         .threshold = 80,
         .hysteresis = 5,
         .for_ms = 120000,
         .clear_for_ms = 60000},
        {.struct_size = sizeof(perf_alert_rule),
         .name = "error_rate",
         .kind = PERF_ALERT_ABOVE,
         .threshold = 0.05,
         .hysteresis = 0.01,
         .window_ms = 300000,
         .min_count = 20,
         .clear_for_ms = 60000},
    };
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        int rc = perf_alerts_add(alerts, &defaults[i], NULL);
        if (rc && rc != PERF_EEXISTS)
            return rc;
    }
    return PERF_OK;
}

int perf_alerts_remove(perf_alerts *alerts, uint64_t id)
{
    int rc;
    if ((rc = perf__alerts_check(alerts)))
        return rc;
    pthread_mutex_lock(&alerts->mutex);
    struct perf__alert_rule *rule = by_id(alerts, id);
    if (rule)
        drop(alerts, rule);
    pthread_mutex_unlock(&alerts->mutex);
    return rule ? PERF_OK : PERF_MISS;
}

int perf_alerts_find(perf_alerts *alerts, const char *name, const char *subject, uint64_t *id)
{
    int rc;
    if ((rc = perf__alerts_check(alerts)))
        return rc;
    if (!name || !id)
        return perf__fail(PERF_EINVAL, "name or id is NULL; give both");
    pthread_mutex_lock(&alerts->mutex);
    struct perf__alert_rule *rule = by_name(alerts, name, subject);
    if (rule)
        *id = rule->id;
    pthread_mutex_unlock(&alerts->mutex);
    return rule ? PERF_OK : PERF_MISS;
}

int perf_alerts_status(perf_alerts *alerts, uint64_t id, perf_alert_status *status)
{
    size_t size;
    int rc;
    if ((rc = perf__alerts_check(alerts)) ||
        (rc = perf__options_check_out("perf_alert_status", status, &size)))
        return rc;
    pthread_mutex_lock(&alerts->mutex);
    const struct perf__alert_rule *rule = by_id(alerts, id);
    if (rule) {
        perf_alert_status own = {
            .struct_size = sizeof own,
            .state = rule->state,
            .since_ms = rule->since_ms,
            .value = rule->value,
            .threshold = rule->threshold,
            .fed = rule->fed,
            .fired = rule->fired,
            .told = rule->told,
            .suppressed = rule->suppressed,
        };
        memcpy(own.name, rule->options.name, strlen(rule->options.name));
        memcpy(own.subject, rule->options.subject, strlen(rule->options.subject));
        perf__options_give(status, size, &own, sizeof own);
    }
    pthread_mutex_unlock(&alerts->mutex);
    return rule ? PERF_OK : PERF_MISS;
}

/* ------------------------------------------------------------------ feeding */

/* What is fed: a value, or counts. */
struct food {
    bool counts;
    double value, bad, total;
};

static int check_food(const struct perf__alert_rule *rule, const struct food *food)
{
    const perf_alert_rule *o = &rule->options;
    bool threshold = o->kind == PERF_ALERT_ABOVE || o->kind == PERF_ALERT_BELOW;
    if (food->counts && o->kind != PERF_ALERT_BURN && !(threshold && o->window_ms))
        return perf__fail(PERF_EINVAL,
                          "rule \"%s\" takes no counts; feed a value, or give it a "
                          "window_ms",
                          o->name);
    if (!food->counts && o->kind == PERF_ALERT_BURN)
        return perf__fail(PERF_EINVAL, "rule \"%s\" takes counts of good and bad; feed those",
                          o->name);
    return PERF_OK;
}

static void eat(struct perf__alert_rule *rule, const struct food *food, int64_t now_ns)
{
    const perf_alert_rule *o = &rule->options;
    rule->fed++;
    if (o->kind == PERF_ALERT_BURN) {
        perf__alert_window_add(&rule->windows[0], now_ns, food->bad, food->total);
        perf__alert_window_add(&rule->windows[1], now_ns, food->bad, food->total);
    } else if (o->kind == PERF_ALERT_CHANGE) {
        perf__alert_change_add(rule->change, now_ns, food->value, rule->state == PERF_ALERT_FIRING);
    } else if (o->window_ms) {
        perf__alert_window_add(&rule->windows[0], now_ns, food->bad, food->total);
    } else {
        rule->value = food->value;
    }
}

/* The rule that feeds for name and subject go to; made if need be. Under the mutex. */
static struct perf__alert_rule *rule_for(perf_alerts *alerts, const char *name, const char *subject,
                                         int *rc)
{
    struct perf__alert_rule *rule = by_name(alerts, name, subject), *all;
    if (rule || !subject || !*subject)
        return rule;
    if (!(all = by_name(alerts, name, NULL)))
        return NULL;
    if (alerts->count == alerts->max_rules)
        return all;
    perf_alert_rule o = all->options;
    o.subject = subject;
    if ((rule = make(alerts, &o, rc)))
        rule->made = all->parent = true;
    return rule;
}

static int feed(perf_alerts *alerts, uint64_t id, const char *name, const char *subject,
                const struct food *food)
{
    perf_alert_event event;
    bool tell = false;
    int rc;
    if ((rc = perf__alerts_check(alerts)))
        return rc;
    if (!food->counts && !isfinite(food->value))
        return perf__fail(PERF_EINVAL, "value is not a finite number; give one");
    pthread_mutex_lock(&alerts->mutex);
    struct perf__alert_rule *rule = name ? rule_for(alerts, name, subject, &rc) : by_id(alerts, id);
    if (!rule)
        rc = rc ? rc : PERF_MISS;
    else if (!(rc = check_food(rule, food))) {
        int64_t now = perf__now_ns(&alerts->host.clock);
        eat(rule, food, now);
        tell = perf__alert_step(alerts, rule, now, true, &event);
    }
    pthread_mutex_unlock(&alerts->mutex);
    if (tell && alerts->on_event)
        alerts->on_event(alerts->on_event_ctx, &event);
    return rc;
}

static struct food of_value(double value)
{
    return (struct food){false, value, value, 1};
}

static struct food of_counts(uint64_t good, uint64_t bad)
{
    return (struct food){true, 0, (double)bad, (double)good + (double)bad};
}

int perf_alerts_feed(perf_alerts *alerts, uint64_t id, double value)
{
    struct food food = of_value(value);
    return feed(alerts, id, NULL, NULL, &food);
}

int perf_alerts_feed_counts(perf_alerts *alerts, uint64_t id, uint64_t good, uint64_t bad)
{
    struct food food = of_counts(good, bad);
    return feed(alerts, id, NULL, NULL, &food);
}

int perf_alerts_feed_to(perf_alerts *alerts, const char *name, const char *subject, double value)
{
    struct food food = of_value(value);
    if (!name)
        return perf__fail(PERF_EINVAL, "name is NULL; give a rule's");
    return feed(alerts, 0, name, subject, &food);
}

int perf_alerts_feed_counts_to(perf_alerts *alerts, const char *name, const char *subject,
                               uint64_t good, uint64_t bad)
{
    struct food food = of_counts(good, bad);
    if (!name)
        return perf__fail(PERF_EINVAL, "name is NULL; give a rule's");
    return feed(alerts, 0, name, subject, &food);
}

int perf_alerts_tick(perf_alerts *alerts)
{
    int rc;
    if ((rc = perf__alerts_check(alerts)))
        return rc;
    for (uint64_t i = 0; i < alerts->max_rules; i++) {
        perf_alert_event event;
        pthread_mutex_lock(&alerts->mutex);
        /* Without telling, many are looked at in one turn; not all, so that feeds get theirs. */
        bool tell = false;
        for (uint64_t end = i + 64; i < end && i < alerts->max_rules; i++)
            if (alerts->rules[i] &&
                (tell = perf__alert_step(alerts, alerts->rules[i],
                                         perf__now_ns(&alerts->host.clock), false, &event)))
                break;
        if (!tell)
            i--; /* the loop's own step */
        pthread_mutex_unlock(&alerts->mutex);
        if (tell && alerts->on_event)
            alerts->on_event(alerts->on_event_ctx, &event);
    }
    return PERF_OK;
}
