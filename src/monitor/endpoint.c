/* SPDX-License-Identifier: MIT */
/*
 * endpoint.c - where a request is counted: by the names of its endpoint and
 * method.
 *
 * A thread remembers where the last names led it, by a cheap hash of them, and
 * compares them whole; only what it does not remember is looked up under the
 * monitor's mutex. Endpoints are never taken away. Any thread.
 */
#include <string.h>

#include "../base/status.h"
#include "monitor_impl.h"

#define OTHER "_other"

/* ------------------------------------------------------------------ names and keys */

struct names {
    size_t endpoint_len, method_len;
    char key[ENDPOINT_MAX + 1 + METHOD_MAX + 1];
};

/* Both with a zero byte behind them, as they will be as labels: two endpoints whose labels were the
 * same would count in one histogram. */
static void names_of(struct names *n, const char *endpoint, const char *method)
{
    n->endpoint_len = perf__utf8_copy(n->key, ENDPOINT_MAX, endpoint);
    n->method_len = perf__utf8_copy(n->key + n->endpoint_len + 1, METHOD_MAX, method);
}

static uint32_t key_len(const struct names *n)
{
    return (uint32_t)(n->endpoint_len + n->method_len + 2);
}

/* ------------------------------------------------------------------------- making */

void perf__endpoint_free(perf_monitor *monitor, struct perf__endpoint *e)
{
    if (!e)
        return;
    perf__recent_free(monitor, e);
    perf__slowest_destroy(monitor, &e->slowest);
    perf__counters_destroy(&e->counts);
    perf__free(&monitor->host.allocator, e);
}

static int latency_of(perf_monitor *monitor, struct perf__endpoint *e)
{
    perf_metric_options o = PERF_METRIC_OPTIONS_INIT;
    o.name = "http_server_request_duration";
    o.help = "Time from the begin of a request to its end.";
    o.unit = "seconds";
    o.labels = "endpoint,method";
    o.scale = 1e-9;
    o.max_series = monitor->max_endpoints + 1;
    return perf_metrics_histogram(monitor->metrics, &o,
                                  (const char *[]){e->key, perf__endpoint_method(e)}, &e->latency);
}

/* Under the mutex. What the metrics refuse (PERF_ECONFLICT, PERF_EBUSY) is handed on: their
 * sentence says more than one of ours could. */
static int make(perf_monitor *monitor, const struct names *n, struct perf__endpoint **out)
{
    const perf_allocator *uthash_allocator = &monitor->host.allocator;
    struct perf__hash_key uthash_secret = monitor->secret;
    bool uthash_oom = false, counted = false, locked = false;
    int rc = PERF_ENOMEM;
    struct perf__endpoint *e = perf__calloc(uthash_allocator, 1, sizeof *e + key_len(n));
    if (!e)
        return perf__fail_nomem("an endpoint");
    e->key_len = key_len(n);
    e->method_at = (uint32_t)n->endpoint_len + 1;
    memcpy(e->key, n->key, e->key_len);
    atomic_init(&e->apdex_ms, monitor->apdex_ms);
    atomic_init(&e->error_status, monitor->error_status);
    if (monitor->count == monitor->room) {
        size_t room = monitor->room ? 2 * monitor->room : 16;
        void *all = perf__realloc(uthash_allocator, monitor->all, room * sizeof *monitor->all);
        if (!all)
            goto fail;
        monitor->all = all;
        monitor->room = room;
    }
    if (perf__counters_init(&e->counts, uthash_allocator, COUNTS))
        goto fail;
    counted = true;
    if (perf__slowest_init(&e->slowest))
        goto fail;
    locked = true;
    if ((rc = latency_of(monitor, e)))
        goto fail;
    rc = PERF_ENOMEM;
    if (!perf__recent_open(monitor, e))
        goto fail;
    HASH_ADD_KEYPTR(hh, monitor->by_key, e->key, e->key_len, e);
    if (uthash_oom)
        goto fail;
    monitor->all[monitor->count++] = e;
    *out = e;
    return PERF_OK;
fail:
    perf__recent_free(monitor, e);
    if (locked)
        perf__slowest_destroy(monitor, &e->slowest);
    if (counted)
        perf__counters_destroy(&e->counts);
    perf__free(uthash_allocator, e);
    return rc == PERF_ENOMEM ? perf__fail_nomem("an endpoint") : rc;
}

/* ------------------------------------------------------------------------ finding */

/* Under the mutex. */
static struct perf__endpoint *find(perf_monitor *monitor, const struct names *n)
{
    struct perf__hash_key uthash_secret = monitor->secret;
    struct perf__endpoint *e;
    HASH_FIND(hh, monitor->by_key, n->key, key_len(n), e);
    return e;
}

struct perf__endpoint *perf__endpoint_known(perf_monitor *monitor, const char *endpoint,
                                            const char *method)
{
    struct names n;
    names_of(&n, endpoint, method);
    return find(monitor, &n);
}

int perf__endpoint_make(perf_monitor *monitor, const char *endpoint, const char *method,
                        struct perf__endpoint **out)
{
    struct names n;
    names_of(&n, endpoint, method);
    if ((*out = find(monitor, &n)))
        return PERF_OK;
    return monitor->count >= monitor->max_endpoints ? PERF_MISS : make(monitor, &n, out);
}

/* Up to 8 bytes of a name of len bytes: its first ones, or those of a short one in some order. */
PERF__INLINE uint64_t head_of(const char *name, size_t len)
{
    uint64_t word = 0;
    uint32_t first, last;
    if (len >= 8) {
        memcpy(&word, name, 8);
    } else if (len >= 4) {
        memcpy(&first, name, 4);
        memcpy(&last, name + len - 4, 4);
        word = first | (uint64_t)last << 32;
    } else if (len) {
        word = (unsigned char)name[0] | (uint64_t)(unsigned char)name[len / 2] << 8 |
               (uint64_t)(unsigned char)name[len - 1] << 16;
    }
    return word;
}

/* Cheap, and not secret: names that fall on the same place only cost each other a look-up under
 * the mutex, in a table whose hash is secret. */
static size_t place_of(const char *endpoint, size_t len, const char *method, size_t method_len)
{
    uint64_t head = head_of(endpoint, len), tail = len >= 8 ? head_of(endpoint + len - 8, 8) : 0;
    return perf__mix64(head ^ tail * 0x9e3779b97f4a7c15u ^ head_of(method, method_len) << 24 ^
                       (uint64_t)len << 56) %
           NEAR;
}

/* False also where the names became others: such ones are looked up every time. */
PERF__INLINE bool is(const struct perf__endpoint *e, const char *endpoint, size_t len,
                     const char *method, size_t method_len)
{
    return e->method_at == len + 1 && e->key_len == len + method_len + 2 &&
           !memcmp(e->key, endpoint, len) && !memcmp(e->key + len + 1, method, method_len);
}

/* That of what is beyond max_endpoints; a host may have an endpoint of that name, too. */
static int other(perf_monitor *monitor, struct perf__endpoint **out)
{
    struct names n;
    names_of(&n, OTHER, "");
    *out = find(monitor, &n);
    return *out ? PERF_OK : make(monitor, &n, out);
}

static int find_slow(perf_monitor *monitor, const char *endpoint, const char *method,
                     struct perf__endpoint **out)
{
    pthread_mutex_lock(&monitor->mutex);
    int rc = perf__endpoint_make(monitor, endpoint, method, out);
    if (rc == PERF_MISS)
        rc = other(monitor, out);
    pthread_mutex_unlock(&monitor->mutex);
    return rc;
}

int perf__endpoint_find(perf_monitor *monitor, int slot, const char *endpoint, const char *method,
                        struct perf__endpoint **out)
{
    struct perf__lane *lane = &monitor->lanes[slot];
    if (!slot)
        return find_slow(monitor, endpoint, method, out);
    size_t len = strnlen(endpoint, ENDPOINT_MAX), method_len = strnlen(method, METHOD_MAX);
    size_t place = place_of(endpoint, len, method, method_len);
    if (__builtin_expect(!lane->near, 0))
        lane->near = perf__calloc(&monitor->host.allocator, NEAR, sizeof *lane->near);
    struct perf__endpoint *e = lane->near ? lane->near[place] : NULL;
    if (__builtin_expect(!e || !is(e, endpoint, len, method, method_len), 0)) {
        int rc = find_slow(monitor, endpoint, method, &e);
        if (rc)
            return rc;
        /* Not the one of those beyond max_endpoints: it would push out one that is found. */
        if (lane->near && is(e, endpoint, len, method, method_len))
            lane->near[place] = e;
    }
    *out = e;
    return PERF_OK;
}

uint64_t perf__endpoint_in_flight(const struct perf__endpoint *e)
{
    uint64_t over = perf__counters_sum(&e->counts, COUNT_DISCARDED);
    for (uint32_t i = COUNT_ENDED; i < COUNTS; i++)
        over += perf__counters_sum(&e->counts, i);
    uint64_t begun = perf__counters_sum(&e->counts, COUNT_BEGUN); /* last: over is never more */
    return begun > over ? begun - over : 0;
}
