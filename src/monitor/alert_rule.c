/* SPDX-License-Identifier: MIT */
/*
 * alert_rule.c - a rule: its options with their defaults, what it remembers,
 * and whether it is broken now. Under the mutex of the alerts, or before anybody
 * knows the rule.
 */
#include <math.h>
#include <string.h>

#include "../base/alloc.h"
#include "alert_impl.h"

#define YEAR_MS INT64_C(31536000000)

static int check_ms(const char *field, int64_t *value, int64_t preset, int64_t min)
{
    if (!*value)
        *value = preset;
    return perf__check_range(field, *value, min, YEAR_MS);
}

static int check_number(const char *field, double *value, double preset, double min, double max)
{
    if (*value == 0)
        *value = preset;
    if (*value >= min && *value <= max) /* false for what is no number */
        return PERF_OK;
    return perf__fail(PERF_EINVAL, "%s is %g; give %g to %g", field, *value, min, max);
}

static int check_pair(const char *name, int64_t long_ms, int64_t short_ms)
{
    if (long_ms / 2 >= short_ms && long_ms / 100 <= short_ms)
        return PERF_OK;
    return perf__fail(PERF_EINVAL,
                      "%s_long_ms is %lld and %s_short_ms %lld; the long one is 2 to 100 times "
                      "the short one",
                      name, (long long)long_ms, name, (long long)short_ms);
}

static int check_threshold(perf_alert_rule *o)
{
    int rc;
    if (!isfinite(o->threshold))
        return perf__fail(PERF_EINVAL, "threshold is not a finite number; give one");
    if ((rc = check_number("hysteresis", &o->hysteresis, 0, 0, 1e300)))
        return rc;
    return perf__check_range("window_ms", o->window_ms, 0, YEAR_MS);
}

static int check_burn(perf_alert_rule *o)
{
    int rc;
    if ((rc = check_number("objective", &o->objective, 0.999, 1e-9, 1 - 1e-9)) ||
        (rc = check_number("fast_factor", &o->fast_factor, 14.4, 1e-3, 1e9)) ||
        (rc = check_number("slow_factor", &o->slow_factor, 6, 1e-3, 1e9)) ||
        (rc = check_ms("fast_long_ms", &o->fast_long_ms, 3600000, 2)) ||
        (rc = check_ms("fast_short_ms", &o->fast_short_ms, 300000, 1)) ||
        (rc = check_ms("slow_long_ms", &o->slow_long_ms, 6 * 3600000, 2)) ||
        (rc = check_ms("slow_short_ms", &o->slow_short_ms, 1800000, 1)) ||
        (rc = check_pair("fast", o->fast_long_ms, o->fast_short_ms)))
        return rc;
    return check_pair("slow", o->slow_long_ms, o->slow_short_ms);
}

static int check_change(perf_alert_rule *o)
{
    int rc;
    if ((rc = check_number("drift", &o->drift, 1, 0.01, 3)) ||
        (rc = check_number("limit", &o->limit, 15, 1, 1e6)) ||
        (rc = check_number("least", &o->least, 0.05, 1e-6, 10)) ||
        (rc = perf__check_range("direction", o->direction, PERF_ALERT_UP, PERF_ALERT_BOTH)) ||
        (rc = check_ms("step_ms", &o->step_ms, 1000, 1)) ||
        (rc = check_ms("baseline_ms", &o->baseline_ms, 1800000, o->step_ms)))
        return rc;
    return check_ms("adopt_ms", &o->adopt_ms, 1800000, o->step_ms);
}

int perf__alert_rule_check(const perf_alert_rule *given, perf_alert_rule *o)
{
    int rc;
    if (!given)
        return perf__fail(PERF_EINVAL, "rule is NULL; give one");
    if ((rc = perf__options_take("perf_alert_rule", given, o, sizeof *o)))
        return rc;
    if (!o->name)
        return perf__fail(PERF_EINVAL, "name is NULL; say what the rule is about");
    if (!o->subject)
        o->subject = "";
    if (!o->min_count)
        o->min_count = o->kind == PERF_ALERT_BURN ? 10 : 1;
    if ((rc = perf__check_len("name", strlen(o->name), 1, PERF__ALERT_NAME - 1)) ||
        (rc = perf__check_len("subject", strlen(o->subject), 0, PERF__ALERT_SUBJECT - 1)) ||
        (rc = perf__check_range("kind", o->kind, PERF_ALERT_ABOVE, PERF_ALERT_CHANGE)) ||
        (rc = check_ms("for_ms", &o->for_ms, 0, 0)) ||
        (rc = check_ms("clear_for_ms", &o->clear_for_ms, 0, 0)) ||
        (rc = check_ms("interval_ms", &o->interval_ms, 60000, -1)) ||
        (rc = check_ms("repeat_ms", &o->repeat_ms, 0, 0)) ||
        (rc = check_ms("missing_ms", &o->missing_ms, 0, 0)))
        return rc;
    return o->kind == PERF_ALERT_BURN     ? check_burn(o)
           : o->kind == PERF_ALERT_CHANGE ? check_change(o)
                                          : check_threshold(o);
}

uint32_t perf__alert_key(char *key, const char *name, const char *subject)
{
    size_t name_len = strnlen(name, PERF__ALERT_NAME - 1);
    size_t subject_len = strnlen(subject, PERF__ALERT_SUBJECT - 1);
    memcpy(key, name, name_len);
    key[name_len] = 0;
    memcpy(key + name_len + 1, subject, subject_len);
    key[name_len + 1 + subject_len] = 0;
    return (uint32_t)(name_len + subject_len + 2);
}

struct perf__alert_rule *perf__alert_rule_new(const perf_allocator *allocator,
                                              const perf_alert_rule *o, int64_t now_ns)
{
    struct perf__alert_rule *rule = perf__calloc(allocator, 1, sizeof *rule);
    int rc = PERF_OK;
    if (!rule)
        return NULL;
    rule->options = *o;
    rule->key_len = perf__alert_key(rule->key, o->name, o->subject);
    rule->options.name = rule->key;
    rule->options.subject = rule->key + strlen(rule->key) + 1;
    rule->state = rule->told_state = PERF_ALERT_OK;
    rule->fed_ns = now_ns;
    rule->kept_ns = -1;
    rule->kept = true;
    if (o->kind == PERF_ALERT_BURN) {
        rc = perf__alert_window_init(&rule->windows[0], allocator, o->fast_long_ms,
                                     o->fast_short_ms);
        if (!rc)
            rc = perf__alert_window_init(&rule->windows[1], allocator, o->slow_long_ms,
                                         o->slow_short_ms);
    } else if (o->kind == PERF_ALERT_CHANGE) {
        rule->change = perf__calloc(allocator, 1, sizeof *rule->change);
        if (rule->change)
            perf__alert_change_init(rule->change, o);
        else
            rc = PERF_ENOMEM;
    } else if (o->window_ms) {
        rc = perf__alert_window_init(&rule->windows[0], allocator, o->window_ms, o->window_ms);
    }
    if (rc) {
        perf__alert_rule_free(allocator, rule);
        return NULL;
    }
    return rule;
}

void perf__alert_rule_free(const perf_allocator *allocator, struct perf__alert_rule *rule)
{
    perf__free(allocator, rule->windows[0].buckets);
    perf__free(allocator, rule->windows[1].buckets);
    perf__free(allocator, rule->change);
    perf__free(allocator, rule);
}

/* ------------------------------------------------------------------ judging */

static void judge_value(struct perf__alert_rule *rule)
{
    const perf_alert_rule *o = &rule->options;
    double over =
        o->kind == PERF_ALERT_ABOVE ? rule->value - o->threshold : o->threshold - rule->value;
    rule->threshold = o->threshold;
    rule->broken = over > 0;
    rule->kept = !rule->broken && over <= -o->hysteresis;
}

static void judge_window(struct perf__alert_rule *rule, int64_t now_ns)
{
    struct perf__alert_sum all, ignored;
    perf__alert_window_sums(&rule->windows[0], now_ns, &all, &ignored);
    if (all.total < (double)rule->options.min_count || all.total <= 0) {
        rule->broken = false; /* too few to say anything: what was wrong is over */
        rule->kept = true;
        return;
    }
    rule->value = all.bad / all.total;
    judge_value(rule);
}

static void judge_burn(struct perf__alert_rule *rule, int64_t now_ns)
{
    const perf_alert_rule *o = &rule->options;
    const double factors[2] = {o->fast_factor, o->slow_factor}, budget = 1 - o->objective;
    double worst = -1;
    rule->broken = false;
    for (int i = 0; i < 2; i++) {
        struct perf__alert_sum a, b;
        perf__alert_window_sums(&rule->windows[i], now_ns, &a, &b);
        double over_long = a.total > 0 ? a.bad / a.total / budget : 0;
        double over_short = b.total > 0 ? b.bad / b.total / budget : 0;
        double burn = over_long < over_short ? over_long : over_short;
        rule->broken = rule->broken || (burn >= factors[i] && a.bad >= (double)o->min_count);
        if (burn / factors[i] > worst) { /* says the pair that is nearest to its factor */
            worst = burn / factors[i];
            rule->value = burn;
            rule->threshold = factors[i];
        }
    }
    rule->kept = !rule->broken;
}

static void judge_change(struct perf__alert_rule *rule, int64_t now_ns)
{
    struct perf__alert_change *c = rule->change;
    bool firing = rule->state == PERF_ALERT_FIRING;
    perf__alert_change_pass(c, now_ns, firing);
    if (firing && now_ns - rule->fired_ns >= rule->options.adopt_ms * 1000000)
        perf__alert_change_forget(c);
    rule->value = exp(c->last);
    rule->threshold = c->learnt == PERF__ALERT_LEARN ? exp(c->level) : 0;
    rule->broken = perf__alert_change_broken(c);
    rule->kept = perf__alert_change_kept(c);
}

void perf__alert_rule_judge(struct perf__alert_rule *rule, int64_t now_ns)
{
    if (rule->options.kind == PERF_ALERT_BURN)
        judge_burn(rule, now_ns);
    else if (rule->options.kind == PERF_ALERT_CHANGE)
        judge_change(rule, now_ns);
    else if (rule->options.window_ms)
        judge_window(rule, now_ns);
    else if (rule->ever_fed)
        judge_value(rule); /* the last one stands until there is another */
}
