/* SPDX-License-Identifier: MIT */
/*
 * monitor_impl.h - what the files of the monitor share. Private to them.
 *
 * monitor.c opens, closes and ticks; request.c is what every request passes;
 * endpoint.c finds where it is counted; recent.c keeps what the last seconds and
 * hours were like; slowest.c keeps examples; trace.c has identities.
 *
 * A request costs no lock: it is a block from its thread's own list, its endpoint
 * is remembered by its thread, and it is counted in cells of its thread.
 *
 * Lock order: monitor.mutex (a snapshot of the metrics holds their mutex "asking" above it), then
 * that of the metrics, or an endpoint's slowest.mutex.
 */
#ifndef PERF_MONITOR_MONITOR_IMPL_H
#define PERF_MONITOR_MONITOR_IMPL_H

#include <libperf/monitor.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/fork.h"
#include "../base/options.h"
#include "../base/thread.h"
#include "../base/uthash_host.h"
#include "../metrics/counter.h"
#include "../metrics/label.h"

enum {
    ENDPOINT_MAX = PERF__VALUE_MAX,
    METHOD_MAX = 16,
    USER_MAX = 63,
    ERROR_MAX = 127,
    SPAN_NAME_MAX = 31,
    SPANS_MAX = 32,
    SLOWEST_MAX = 64,
    NEAR = 256,       /* endpoints that a thread remembers; a power of two */
    FREE_MAX = 64,    /* requests that a thread keeps for its next ones */
    WINDOWS = 4,      /* 10 s, 1 min, 5 min, 1 h */
    WINDOW_SLOTS = 10 /* parts of a window: that is how finely it slides */
};

/* --------------------------------------------------------------- what is counted */

/* The cells of an endpoint. Those from COUNT_ENDED on are by the hundreds of the status. */
enum {
    COUNT_BEGUN,
    COUNT_DISCARDED,
    COUNT_ERRORS,
    COUNT_RECEIVED,
    COUNT_SENT,
    COUNT_ENDED,
    COUNTS = COUNT_ENDED + 6
};

/* Buckets of a histogram that are not empty, by their number. */
struct perf__bucket {
    uint32_t index, count;
};
struct perf__buckets {
    struct perf__bucket *all;
    uint32_t count, room;
};

/* What happened in a part of a window. */
struct perf__slot {
    int64_t number; /* of the part, since the clock's zero; 0: empty */
    uint64_t counts[COUNTS], sum_ns;
    struct perf__buckets buckets;
};

struct perf__recent {
    struct perf__slot slots[WINDOW_SLOTS];
};

/* A request that was slow. Immutable but for its references. */
struct perf__span {
    char name[SPAN_NAME_MAX + 1];
    int64_t begun_ns, ended_ns; /* of the clock; ended 0: not yet */
    int64_t parent;
};
struct perf__kept {
    _Atomic uint32_t references;
    uint32_t spans, spans_lost;
    int64_t begun_ms, begun_ns, duration_ns, status;
    uint64_t received, sent;
    const char *endpoint, *method; /* behind the spans: a list may outlive its monitor */
    char trace_id[33], span_id[17], parent_id[17];
    char user[USER_MAX + 1], error[ERROR_MAX + 1];
    struct perf__span span[];
};

struct perf__slowest {
    pthread_mutex_t mutex;
    _Atomic int64_t from_ns; /* what is faster is not worth the lock */
    uint32_t count;
    struct perf__kept *kept[SLOWEST_MAX];
};

struct perf__endpoint {
    UT_hash_handle hh; /* by key, under monitor.mutex */
    perf_histogram *latency;
    /* What another monitor of the same metrics had counted in it before; NULL: nothing. */
    struct perf__histogram_snapshot *before;
    struct perf__counters counts;
    _Atomic int64_t apdex_ms, error_status, expected_ns; /* 0 of expected_ns: none */
    struct perf__slowest slowest;
    /* Of the tick, under monitor.mutex. */
    uint64_t last[COUNTS], last_sum_ns;
    struct perf__buckets last_buckets;
    struct perf__recent windows[WINDOWS];
    uint32_t method_at; /* in key */
    uint32_t key_len;   /* both names with their zero bytes */
    char key[];
};

static inline const char *perf__endpoint_method(const struct perf__endpoint *e)
{
    return e->key + e->method_at;
}

/* ------------------------------------------------------------------- the monitor */

struct perf_request {
    struct perf_request *next; /* in a list of free ones, or the one entered before it */
    perf_monitor *monitor;
    struct perf__endpoint *endpoint;
    int64_t begun_ns;
    int64_t status; /* 0: not set */
    uint64_t received, sent;
    uint64_t trace[2], span_id, parent_id; /* span_id 0: no identity yet */
    uint32_t spans, spans_lost;
    int32_t open_span; /* the innermost one; -1: none */
    bool failed, sampled;
    char user[USER_MAX + 1];
    char error[ERROR_MAX + 1];
    struct perf__span span[SPANS_MAX];
};

/* What belongs to one thread. */
struct perf__lane {
    _Alignas(64) struct perf_request *free;
    uint32_t free_count;
    struct perf__endpoint **near; /* NEAR of them, or NULL */
};

struct perf_monitor {
    struct perf__host host;
    const perf_clock *clock;
    uint64_t fork_generation;
    struct perf__hash_key secret;
    perf_metrics *metrics;
    bool own_metrics;
    uint64_t asked_id; /* perf_metrics_ask */
    uint64_t max_endpoints;
    uint32_t slowest;
    int64_t slowest_ms, apdex_ms, error_status;
    int64_t opened_ms;

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t wake;
    bool running, stops;
    pthread_t thread;
    int64_t ticked_ms;
    struct perf__endpoint *by_key;
    struct perf__endpoint **all; /* in the order they came; never taken out */
    size_t count, room;
    struct perf_request *free; /* given back by threads that end more than they begin */

    struct perf__lane lanes[PERF__THREAD_SLOTS]; /* [0] under the mutex */
};

/* PERF_EINVAL or PERF_EFORKED; the sentence is set. */
int perf__monitor_check(perf_monitor *monitor);

/* ---------------------------------------------------------------------- endpoint.c */

/* The endpoint of these names, made if need be, or the one of those beyond max_endpoints.
 * PERF_ENOMEM, or what the metrics refuse its histogram with. Any thread. */
int perf__endpoint_find(perf_monitor *monitor, int slot, const char *endpoint, const char *method,
                        struct perf__endpoint **out);
/* The same under monitor.mutex; PERF_MISS, without a sentence: it would be beyond max_endpoints. */
int perf__endpoint_make(perf_monitor *monitor, const char *endpoint, const char *method,
                        struct perf__endpoint **out);
/* The same without making it, under monitor.mutex. */
struct perf__endpoint *perf__endpoint_known(perf_monitor *monitor, const char *endpoint,
                                            const char *method);
void perf__endpoint_free(perf_monitor *monitor, struct perf__endpoint *e);
uint64_t perf__endpoint_in_flight(const struct perf__endpoint *e);

/* ------------------------------------------------------------------------ recent.c */

/* Remembers what is in e's histogram already. False: no memory. */
bool perf__recent_open(perf_monitor *monitor, struct perf__endpoint *e);
/* Moves what was counted since the last tick into the windows. Under monitor.mutex. False: no
 * memory, and it will be moved by the next tick. */
bool perf__recent_tick(perf_monitor *monitor, struct perf__endpoint *e, int64_t now_ms);
void perf__recent_free(perf_monitor *monitor, struct perf__endpoint *e);

/* ----------------------------------------------------------------------- slowest.c */

int perf__slowest_init(struct perf__slowest *s);
void perf__slowest_destroy(perf_monitor *monitor, struct perf__slowest *s);
void perf__slowest_offer(struct perf_request *r, int64_t now_ns);
/* Lets go of those that are older than the monitor keeps them. */
void perf__slowest_expire(perf_monitor *monitor, struct perf__slowest *s, int64_t realtime_ms);

/* ------------------------------------------------------------------------- trace.c */

/* Gives a request an identity, if it has none. */
void perf__trace_name(struct perf_request *r);

#endif
