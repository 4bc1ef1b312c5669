/* SPDX-License-Identifier: MIT */
/*
 * slowest.c - examples of the slowest requests of each endpoint, with their spans.
 *
 * Those that are faster than all that are kept see it by one read. One that
 * comes while another is being put is not kept: nobody waits for an example.
 * What is kept is immutable and counted by who reads it. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/status.h"
#include "monitor_impl.h"

int perf__slowest_init(struct perf__slowest *s)
{
    if (pthread_mutex_init(&s->mutex, NULL))
        return perf__fail_nomem("the lock of the slowest requests");
    return PERF_OK;
}

static void unref(const perf_allocator *allocator, struct perf__kept *x)
{
    if (x && atomic_fetch_sub(&x->references, 1) == 1)
        perf__free(allocator, x);
}

void perf__slowest_destroy(perf_monitor *monitor, struct perf__slowest *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        unref(&monitor->host.allocator, s->kept[i]);
    pthread_mutex_destroy(&s->mutex);
}

/* --------------------------------------------------------------------------- keeping */

static struct perf__kept *example_of(struct perf_request *r, int64_t now_ns)
{
    perf_monitor *m = r->monitor;
    const struct perf__endpoint *e = r->endpoint;
    struct perf__kept *x =
        perf__calloc(&m->host.allocator, 1, sizeof *x + r->spans * sizeof x->span[0] + e->key_len);
    if (!x)
        return NULL;
    perf__trace_name(r);
    atomic_init(&x->references, 1);
    char *key = (char *)&x->span[r->spans];
    memcpy(key, e->key, e->key_len);
    x->endpoint = key;
    x->method = key + e->method_at;
    x->duration_ns = now_ns - r->begun_ns;
    x->begun_ns = r->begun_ns;
    x->begun_ms = perf__realtime_ms(m->clock) - x->duration_ns / 1000000;
    x->status = r->status;
    x->received = r->received;
    x->sent = r->sent;
    x->spans = r->spans;
    x->spans_lost = r->spans_lost;
    (void)!snprintf(x->trace_id, sizeof x->trace_id, "%016" PRIx64 "%016" PRIx64, r->trace[0],
                    r->trace[1]);
    (void)!snprintf(x->span_id, sizeof x->span_id, "%016" PRIx64, r->span_id);
    if (r->parent_id)
        (void)!snprintf(x->parent_id, sizeof x->parent_id, "%016" PRIx64, r->parent_id);
    memcpy(x->user, r->user, sizeof x->user);
    memcpy(x->error, r->error, sizeof x->error);
    memcpy(x->span, r->span, r->spans * sizeof x->span[0]);
    for (uint32_t i = 0; i < x->spans; i++)
        if (!x->span[i].ended_ns)
            x->span[i].ended_ns = now_ns;
    return x;
}

/* What a request must exceed to be kept. Under the mutex. */
static void set_threshold(const perf_monitor *m, struct perf__slowest *s)
{
    int64_t least = 0;
    if (s->count >= m->slowest) {
        least = INT64_MAX;
        for (uint32_t i = 0; i < s->count; i++)
            if (s->kept[i]->duration_ns < least)
                least = s->kept[i]->duration_ns;
        least++;
    }
    atomic_store_explicit(&s->from_ns, least, memory_order_relaxed);
}

static struct perf__kept **fastest(struct perf__slowest *s)
{
    struct perf__kept **least = &s->kept[0];
    for (uint32_t i = 1; i < s->count; i++)
        if (s->kept[i]->duration_ns < (*least)->duration_ns)
            least = &s->kept[i];
    return least;
}

void perf__slowest_offer(struct perf_request *r, int64_t now_ns)
{
    perf_monitor *m = r->monitor;
    struct perf__slowest *s = &r->endpoint->slowest;
    if (pthread_mutex_trylock(&s->mutex))
        return;
    struct perf__kept *x = example_of(r, now_ns), *gone = NULL;
    if (x && s->count < m->slowest) {
        s->kept[s->count++] = x;
    } else if (x) {
        struct perf__kept **place = fastest(s);
        gone = (*place)->duration_ns < x->duration_ns ? *place : x;
        if (gone != x)
            *place = x;
    }
    set_threshold(m, s);
    pthread_mutex_unlock(&s->mutex);
    unref(&m->host.allocator, gone);
}

void perf__slowest_expire(perf_monitor *monitor, struct perf__slowest *s, int64_t realtime_ms)
{
    pthread_mutex_lock(&s->mutex);
    for (uint32_t i = 0; i < s->count;) {
        struct perf__kept *x = s->kept[i];
        if (realtime_ms - x->begun_ms < monitor->slowest_ms) {
            i++;
            continue;
        }
        s->kept[i] = s->kept[--s->count];
        unref(&monitor->host.allocator, x);
    }
    set_threshold(monitor, s);
    pthread_mutex_unlock(&s->mutex);
}

/* --------------------------------------------------------------------------- reading */

struct perf_request_list {
    perf_allocator allocator;
    size_t count;
    struct perf__kept *all[];
};

static int slower(const void *a, const void *b)
{
    int64_t x = (*(struct perf__kept *const *)a)->duration_ns;
    int64_t y = (*(struct perf__kept *const *)b)->duration_ns;
    return (x < y) - (x > y);
}

static void take_from(perf_request_list *list, struct perf__slowest *s)
{
    pthread_mutex_lock(&s->mutex);
    for (uint32_t i = 0; i < s->count; i++) {
        atomic_fetch_add(&s->kept[i]->references, 1);
        list->all[list->count++] = s->kept[i];
    }
    pthread_mutex_unlock(&s->mutex);
}

int perf_monitor_slowest(perf_monitor *monitor, const char *endpoint, const char *method,
                         perf_request_list **out)
{
    int rc = perf__monitor_check(monitor);
    if (rc)
        return rc;
    if (!out)
        return perf__fail(PERF_EINVAL, "perf_monitor_slowest: out is NULL; give a place for it");
    pthread_mutex_lock(&monitor->mutex);
    struct perf__endpoint *one =
        endpoint ? perf__endpoint_known(monitor, endpoint, method ? method : "") : NULL;
    size_t endpoints = endpoint ? 1 : monitor->count;
    perf_request_list *list = NULL;
    if (endpoint && !one) {
        rc = PERF_MISS;
    } else if (!(list = perf__calloc(&monitor->host.allocator, 1,
                                     sizeof *list +
                                         endpoints * monitor->slowest * sizeof list->all[0]))) {
        rc = perf__fail_nomem("a list of requests");
    } else {
        list->allocator = monitor->host.allocator;
        if (one)
            take_from(list, &one->slowest);
        for (size_t i = 0; !one && i < monitor->count; i++)
            take_from(list, &monitor->all[i]->slowest);
    }
    pthread_mutex_unlock(&monitor->mutex);
    if (rc)
        return rc;
    if (list->count)
        qsort(list->all, list->count, sizeof list->all[0], slower);
    *out = list;
    return PERF_OK;
}

void perf_request_list_release(perf_request_list *list)
{
    if (!list)
        return;
    perf_allocator allocator = list->allocator;
    for (size_t i = 0; i < list->count; i++)
        unref(&allocator, list->all[i]);
    perf__free(&allocator, list);
}

size_t perf_request_list_count(const perf_request_list *list)
{
    return list ? list->count : 0;
}

static double in_ms(int64_t ns)
{
    return (double)ns / 1e6;
}

int perf_request_list_get(const perf_request_list *list, size_t i, perf_request_record *out)
{
    size_t size;
    int rc = perf__options_check_out("perf_request_record", out, &size);
    if (rc || i >= perf_request_list_count(list))
        return rc ? rc : PERF_MISS;
    const struct perf__kept *x = list->all[i];
    perf_request_record own = {
        .struct_size = sizeof own,
        .endpoint = x->endpoint,
        .method = x->method,
        .user = x->user,
        .error = x->error,
        .trace_id = x->trace_id,
        .span_id = x->span_id,
        .parent_id = x->parent_id,
        .begun_ms = x->begun_ms,
        .status = x->status,
        .duration_ms = in_ms(x->duration_ns),
        .received = x->received,
        .sent = x->sent,
        .spans = x->spans,
        .spans_lost = x->spans_lost,
    };
    perf__options_give(out, size, &own, sizeof own);
    return PERF_OK;
}

int perf_request_list_span(const perf_request_list *list, size_t i, size_t j, perf_span_record *out)
{
    size_t size;
    int rc = perf__options_check_out("perf_span_record", out, &size);
    if (rc || i >= perf_request_list_count(list) || j >= list->all[i]->spans)
        return rc ? rc : PERF_MISS;
    const struct perf__kept *x = list->all[i];
    const struct perf__span *s = &x->span[j];
    perf_span_record own = {
        .struct_size = sizeof own,
        .name = s->name,
        .parent = s->parent,
        .begun_ms = in_ms(s->begun_ns - x->begun_ns),
        .duration_ms = in_ms(s->ended_ns - s->begun_ns),
    };
    perf__options_give(out, size, &own, sizeof own);
    return PERF_OK;
}
