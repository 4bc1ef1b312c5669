/* SPDX-License-Identifier: MIT */
/*
 * alert_event.c - from state to state, and what of it is told.
 *
 * Every event is remembered; a notice is due when what the listener was told last
 * (kept, firing or missing) is no longer so and the rule's interval is over. So a
 * listener is never told more often, and never left with what is not true. Under
 * the mutex of the alerts.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/clock.h"
#include "alert_impl.h"

void perf__alert_ring_put(struct perf__alert_ring *ring, const perf_alert_event *event)
{
    if (ring->count == ring->size) { /* the oldest is lost */
        ring->first = (ring->first + 1) % ring->size;
        ring->count--;
    }
    ring->events[(ring->first + ring->count++) % ring->size] = *event;
}

static perf_alert_event describe(perf_alerts *alerts, const struct perf__alert_rule *rule, int from,
                                 int to)
{
    perf_alert_event event = {
        .struct_size = sizeof event,
        .sequence = rule->last_sequence,
        .rule = rule->id,
        .time_ms = perf__realtime_ms(&alerts->host.clock),
        .from = from,
        .to = to,
        .value = rule->value,
        .threshold = rule->threshold,
        .suppressed = rule->unsaid,
    };
    memcpy(event.name, rule->options.name, strlen(rule->options.name));
    memcpy(event.subject, rule->options.subject, strlen(rule->options.subject));
    return event;
}

/* Goes to a state. Only what a listener may want to know is an event. */
static void go_to(perf_alerts *alerts, struct perf__alert_rule *rule, int state)
{
    int from = rule->state;
    rule->state = state;
    rule->since_ms = perf__realtime_ms(&alerts->host.clock);
    if (state == PERF_ALERT_PENDING || (state == PERF_ALERT_OK && from != PERF_ALERT_MISSING))
        return;
    rule->last_sequence = ++alerts->sequence;
    perf_alert_event event = describe(alerts, rule, from, state);
    event.suppressed = 0;
    perf__alert_ring_put(&alerts->history, &event);
    rule->suppressed++; /* until it is told */
    rule->unsaid++;
}

static bool passed(int64_t now_ns, int64_t since_ns, int64_t ms)
{
    return now_ns - since_ns >= ms * 1000000;
}

static void fire(perf_alerts *alerts, struct perf__alert_rule *rule, int64_t now_ns)
{
    rule->fired++;
    rule->fired_ns = now_ns;
    rule->kept_ns = -1;
    go_to(alerts, rule, PERF_ALERT_FIRING);
}

static void take_on(perf_alerts *alerts, struct perf__alert_rule *rule, int64_t now_ns)
{
    const perf_alert_rule *o = &rule->options;
    switch (rule->state) {
    case PERF_ALERT_FIRING:
        if (!rule->kept) {
            rule->kept_ns = -1;
            return;
        }
        if (rule->kept_ns < 0)
            rule->kept_ns = now_ns;
        if (passed(now_ns, rule->kept_ns, o->clear_for_ms)) {
            rule->resolved_ns = now_ns;
            go_to(alerts, rule, PERF_ALERT_RESOLVED);
        }
        return;
    case PERF_ALERT_PENDING:
        if (!rule->broken)
            go_to(alerts, rule, PERF_ALERT_OK);
        else if (passed(now_ns, rule->pending_ns, o->for_ms))
            fire(alerts, rule, now_ns);
        return;
    default:
        if (rule->broken) {
            rule->pending_ns = now_ns;
            if (o->for_ms)
                go_to(alerts, rule, PERF_ALERT_PENDING);
            else
                fire(alerts, rule, now_ns);
        } else if (rule->state == PERF_ALERT_RESOLVED &&
                   passed(now_ns, rule->resolved_ns, o->interval_ms)) {
            go_to(alerts, rule, PERF_ALERT_OK);
        }
    }
}

/* What a listener is to believe. */
static int to_tell(const struct perf__alert_rule *rule)
{
    return rule->state == PERF_ALERT_FIRING || rule->state == PERF_ALERT_MISSING ? rule->state
                                                                                 : PERF_ALERT_OK;
}

static bool notice(perf_alerts *alerts, struct perf__alert_rule *rule, int64_t now_ns,
                   perf_alert_event *event)
{
    const perf_alert_rule *o = &rule->options;
    int state = to_tell(rule);
    bool changed = state != rule->told_state;
    bool again = state == PERF_ALERT_FIRING && o->repeat_ms && rule->ever_told &&
                 passed(now_ns, rule->told_ns, o->repeat_ms);
    if (!(changed || again) || (rule->ever_told && !passed(now_ns, rule->told_ns, o->interval_ms)))
        return false;
    bool ended = state == PERF_ALERT_OK && rule->told_state == PERF_ALERT_FIRING;
    if (rule->unsaid) { /* the one that is being told was counted, too */
        rule->unsaid--;
        rule->suppressed--;
    }
    *event = describe(alerts, rule, rule->told_state, ended ? PERF_ALERT_RESOLVED : state);
    rule->unsaid = 0;
    rule->told++;
    rule->told_state = state;
    rule->told_ns = now_ns;
    rule->ever_told = true;
    return true;
}

static void wake(perf_alerts *alerts)
{
    const uint64_t one = 1;
    while (alerts->fd >= 0 && write(alerts->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

bool perf__alert_step(perf_alerts *alerts, struct perf__alert_rule *rule, int64_t now_ns, bool fed,
                      perf_alert_event *event)
{
    const perf_alert_rule *o = &rule->options;
    if (fed) {
        rule->fed_ns = now_ns;
        rule->ever_fed = true;
        if (rule->state == PERF_ALERT_MISSING)
            go_to(alerts, rule, PERF_ALERT_OK);
    }
    perf__alert_rule_judge(rule, now_ns);
    if (o->missing_ms && passed(now_ns, rule->fed_ns, o->missing_ms) &&
        (rule->ever_fed || !rule->parent)) {
        if (rule->state != PERF_ALERT_MISSING)
            go_to(alerts, rule, PERF_ALERT_MISSING);
    } else if (rule->state != PERF_ALERT_MISSING) {
        take_on(alerts, rule, now_ns);
    }
    if (!notice(alerts, rule, now_ns, event))
        return false;
    bool empty = !alerts->queue.count;
    perf__alert_ring_put(&alerts->queue, event);
    if (empty)
        wake(alerts);
    return true;
}

/* ------------------------------------------------------- asking for notices */

int perf_alerts_fd(perf_alerts *alerts, int *fd)
{
    int rc;
    if ((rc = perf__alerts_check(alerts)))
        return rc;
    if (!fd)
        return perf__fail(PERF_EINVAL, "fd is NULL; give a place for the descriptor");
    pthread_mutex_lock(&alerts->mutex);
    if (alerts->fd < 0 && (alerts->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0 &&
        alerts->queue.count)
        wake(alerts);
    if (alerts->fd >= 0)
        *fd = alerts->fd;
    else
        rc = perf__fail(PERF_EIO, "no descriptor for alerts: %s", strerror(errno));
    pthread_mutex_unlock(&alerts->mutex);
    return rc;
}

int perf_alerts_next(perf_alerts *alerts, perf_alert_event *event)
{
    size_t size;
    int rc;
    if ((rc = perf__alerts_check(alerts)) ||
        (rc = perf__options_check_out("perf_alert_event", event, &size)))
        return rc;
    pthread_mutex_lock(&alerts->mutex);
    struct perf__alert_ring *q = &alerts->queue;
    if (q->count) {
        perf__options_give(event, size, &q->events[q->first], sizeof *event);
        q->first = (q->first + 1) % q->size;
        uint64_t count;
        if (!--q->count)
            while (alerts->fd >= 0 && read(alerts->fd, &count, sizeof count) < 0 && errno == EINTR)
                ;
    } else {
        rc = PERF_MISS;
    }
    pthread_mutex_unlock(&alerts->mutex);
    return rc;
}

int perf_alerts_history(perf_alerts *alerts, uint64_t after, perf_alert_event *event)
{
    size_t size;
    int rc;
    if ((rc = perf__alerts_check(alerts)) ||
        (rc = perf__options_check_out("perf_alert_event", event, &size)))
        return rc;
    pthread_mutex_lock(&alerts->mutex);
    const struct perf__alert_ring *h = &alerts->history;
    /* They are numbered without gaps, and the newest has the number of the last one. */
    uint64_t oldest = alerts->sequence - h->count;
    uint64_t skip = after > oldest ? after - oldest : 0;
    if (skip < h->count)
        perf__options_give(event, size, &h->events[(h->first + skip) % h->size], sizeof *event);
    else
        rc = PERF_MISS;
    pthread_mutex_unlock(&alerts->mutex);
    return rc;
}
