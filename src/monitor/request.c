/* SPDX-License-Identifier: MIT */
/*
 * request.c - what every request passes: begin, what is said of it, end.
 *
 * No lock and no shared line: a block from its thread's list of free ones, two
 * reads of the clock, two cells and a bucket. A thread that ends what others
 * begin gives what it has too many of to all. Any thread; a request belongs to
 * one at a time.
 */
#include <string.h>

#include "../base/status.h"
#include "monitor_impl.h"

/* Thread-local by nature: what this thread is doing. */
static _Thread_local perf_request *current __attribute__((tls_model("initial-exec")));

/* -------------------------------------------------------------------- free ones */

static perf_request *take_slow(perf_monitor *monitor)
{
    pthread_mutex_lock(&monitor->mutex);
    perf_request *r = monitor->free;
    if (r)
        monitor->free = r->next;
    pthread_mutex_unlock(&monitor->mutex);
    return r ? r : perf__alloc(&monitor->host.allocator, sizeof *r);
}

static perf_request *take(perf_monitor *monitor, int slot)
{
    struct perf__lane *lane = &monitor->lanes[slot];
    perf_request *r = lane->free;
    if (__builtin_expect(!slot || !r, 0))
        return take_slow(monitor);
    lane->free = r->next;
    lane->free_count--;
    return r;
}

static void give(perf_monitor *monitor, int slot, perf_request *r)
{
    struct perf__lane *lane = &monitor->lanes[slot];
    if (__builtin_expect(slot && lane->free_count < FREE_MAX, 1)) {
        r->next = lane->free;
        lane->free = r;
        lane->free_count++;
        return;
    }
    pthread_mutex_lock(&monitor->mutex);
    r->next = monitor->free;
    monitor->free = r;
    pthread_mutex_unlock(&monitor->mutex);
}

/* ---------------------------------------------------------------------- begin, end */

/* Copies text up to max bytes, with a zero byte. */
static void copy_text(char *out, const char *text, size_t max)
{
    size_t len = text ? strnlen(text, max) : 0;
    if (len)
        memcpy(out, text, len);
    out[len] = 0;
}

/* The last one entered goes first; one that is further down is taken out of the middle, so that no
 * order of a host's calls leaves behind a request that has ended. */
static void take_out(perf_request *r)
{
    for (perf_request **at = &current; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            r->next = NULL;
            return;
        }
}

int perf_monitor_begin(perf_monitor *monitor, const char *endpoint, const char *method,
                       const char *user, perf_request **out)
{
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_monitor_begin: out is NULL; give a place for it");
    *out = NULL;
    int rc = perf__monitor_check(monitor);
    if (rc)
        return rc;
    int slot = perf__thread_slot();
    struct perf__endpoint *e;
    if ((rc = perf__endpoint_find(monitor, slot, endpoint ? endpoint : "", method ? method : "",
                                  &e)))
        return rc;
    perf_request *r = take(monitor, slot);
    if (!r)
        return perf__fail_nomem("a request to be tracked");
    r->next = NULL;
    r->monitor = monitor;
    r->endpoint = e;
    r->status = 0;
    r->received = r->sent = 0;
    r->trace[0] = r->trace[1] = r->span_id = r->parent_id = 0;
    r->spans = r->spans_lost = 0;
    r->open_span = -1;
    r->failed = r->sampled = false;
    r->error[0] = 0;
    copy_text(r->user, user, USER_MAX);
    perf__counters_add_at(&e->counts, slot, COUNT_BEGUN, 1);
    r->begun_ns = perf__now_ns(monitor->clock);
    *out = r;
    return PERF_OK;
}

void perf_request_end(perf_request *r)
{
    if (!r || perf__monitor_check(r->monitor))
        return;
    take_out(r); /* a host that forgot to leave it: nothing may point to it */
    struct perf__endpoint *e = r->endpoint;
    int slot = perf__thread_slot();
    int64_t now = perf__now_ns(r->monitor->clock);
    int64_t ns = now > r->begun_ns ? now - r->begun_ns : 0;
    int64_t status = r->status ? r->status : r->failed ? 500 : 200;
    int64_t expected = atomic_load_explicit(&e->expected_ns, memory_order_relaxed);
    /* The time first: a tick looks at the histogram only where counts have changed. */
    if (__builtin_expect(expected != 0, 0))
        perf_histogram_record_expected(e->latency, (uint64_t)ns, (uint64_t)expected);
    else
        perf_histogram_record(e->latency, (uint64_t)ns);
    if (r->failed || status >= atomic_load_explicit(&e->error_status, memory_order_relaxed))
        perf__counters_add_at(&e->counts, slot, COUNT_ERRORS, 1);
    if (r->received)
        perf__counters_add_at(&e->counts, slot, COUNT_RECEIVED, r->received);
    if (r->sent)
        perf__counters_add_at(&e->counts, slot, COUNT_SENT, r->sent);
    perf__counters_add_at(&e->counts, slot, COUNT_ENDED + (uint32_t)(status / 100), 1);
    if (__builtin_expect(ns >= atomic_load_explicit(&e->slowest.from_ns, memory_order_relaxed),
                         0)) {
        r->status = status;
        perf__slowest_offer(r, now);
    }
    give(r->monitor, slot, r);
}

void perf_request_discard(perf_request *r)
{
    if (!r || perf__monitor_check(r->monitor))
        return;
    take_out(r); /* a host that forgot to leave it: nothing may point to it */
    int slot = perf__thread_slot();
    perf__counters_add_at(&r->endpoint->counts, slot, COUNT_DISCARDED, 1);
    give(r->monitor, slot, r);
}

/* ---------------------------------------------------------------- what is said of it */

void perf_request_set_status(perf_request *r, int64_t status)
{
    if (r)
        r->status = status >= 100 && status <= 599 ? status : 500;
}

void perf_request_fail(perf_request *r, const char *text)
{
    if (!r)
        return;
    r->failed = true;
    copy_text(r->error, text, ERROR_MAX);
}

void perf_request_add_bytes(perf_request *r, uint64_t received, uint64_t sent)
{
    if (!r)
        return;
    r->received += received;
    r->sent += sent;
}

/* One that is entered already comes to the top: it has one place in the list. */
void perf_request_enter(perf_request *r)
{
    if (!r)
        return;
    take_out(r);
    r->next = current;
    current = r;
}

void perf_request_leave(perf_request *r)
{
    if (r)
        take_out(r);
}

perf_request *perf_request_current(void)
{
    return current;
}

/* -------------------------------------------------------------------------- spans */

int64_t perf_request_span(perf_request *r, const char *name)
{
    if (!r)
        return -1;
    if (r->spans == SPANS_MAX) {
        r->spans_lost++;
        return -1;
    }
    int64_t number = r->spans++;
    struct perf__span *s = &r->span[number];
    copy_text(s->name, name, SPAN_NAME_MAX);
    s->parent = r->open_span;
    s->ended_ns = 0;
    r->open_span = (int32_t)number;
    s->begun_ns = perf__now_ns(r->monitor->clock);
    return number;
}

/* Those inside it, which were not ended, end with it. */
void perf_request_span_end(perf_request *r, int64_t span)
{
    if (!r || span < 0 || span >= r->spans || r->span[span].ended_ns)
        return;
    int64_t now = perf__now_ns(r->monitor->clock);
    bool inside = false;
    for (int64_t i = r->open_span; i >= 0 && !inside; i = r->span[i].parent)
        inside = i == span;
    r->span[span].ended_ns = now;
    while (inside && r->open_span >= 0) {
        struct perf__span *s = &r->span[r->open_span];
        bool last = r->open_span == span;
        if (!s->ended_ns)
            s->ended_ns = now;
        r->open_span = (int32_t)s->parent;
        if (last)
            break;
    }
}
