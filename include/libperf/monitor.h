/* SPDX-License-Identifier: MIT */
/*
 * monitor.h - know every request: how many, how fast, how they ended, and where
 * the slow ones spent their time.
 *
 * In six lines (with macros.h):
 *
 *     perf_monitor_open(NULL, &monitor);
 *     PERF_TRACK(monitor, "/api/chat", "POST", user) {
 *         PERF_SPAN("database") { query(db); }
 *         perf_request_set_status(perf_request_current(), 200);
 *     }
 *     perf_monitor_get_stats(monitor, "/api/chat", "POST", 60000, &stats);   // the last minute
 *
 * Caveats first
 *  - endpoint is the route ("/courses/:id"), not the path: an endpoint takes memory as long as
 *    the monitor lives. Beyond max_endpoints all others are counted as one, "_other".
 *  - A request belongs to one thread at a time. It may be begun on one and ended on another;
 *    perf_request_current() is what the calling thread has entered.
 *  - Measuring never breaks what is measured: every perf_request_ function takes NULL and does
 *    nothing, and a begin that fails gives NULL.
 *  - Latencies of windows and quantiles are within 0.8 %. What happened since
 *    the last tick (a second, made by a thread of the monitor) is in no window yet.
 *  - fork(): a child must open a monitor of its own. Calls on an inherited one do nothing
 *    or return PERF_EFORKED; perf_monitor_close there frees memory only.
 *
 * The parts, simple to expert: open, requests, spans, figures, the slowest,
 * traces across services, settings of one endpoint.
 */
#ifndef LIBPERF_MONITOR_H
#define LIBPERF_MONITOR_H

#include <libperf/metrics.h>
#include <libperf/types.h>

PERF_BEGIN_DECLS

/** What watches the requests of a process. */
typedef struct perf_monitor perf_monitor;

/** One request that is under way. */
typedef struct perf_request perf_request;

/* -------------------------------------------------------------- open, close */

/** How to open a monitor. Zero in a field means the default; durations are in milliseconds. */
typedef struct perf_monitor_options {
    size_t struct_size;
    perf_metrics *metrics;  /**< where the figures are kept, too, as the metrics
                                 http_server_request_duration_seconds, http_server_requests,
                                 http_server_active_requests and http_server_..._bytes; must
                                 outlive the monitor, and have no other at the same time; NULL: a
                                 set of its own */
    uint64_t max_endpoints; /**< up to 100000; default 1000 */
    uint64_t slowest;       /**< examples kept of each endpoint, up to 64; default 8 */
    int64_t slowest_ms;     /**< for how long one is kept; default 3600000 */
    int64_t apdex_ms;       /**< a request that takes no longer satisfies, up to four times that is
                                 tolerated; default 500 */
    int64_t error_status;   /**< a status from here on is an error; default 500 */
    int64_t manual;         /**< 1: no thread; the host calls perf_monitor_tick each second */
    const perf_host *host;  /**< allocator, clock, log */
} perf_monitor_options;
#define PERF_MONITOR_OPTIONS_INIT                            \
    {                                                        \
        sizeof(perf_monitor_options), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a monitor, and starts its thread unless told not to; options may be NULL.
 *  PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_monitor_open(const perf_monitor_options *options, perf_monitor **out);

/** Stops the thread and frees. PERF_EBUSY: requests are under way, and nothing is freed. NULL is
 *  allowed. Since 1.0. */
PERF_API int perf_monitor_close(perf_monitor *monitor);

/** Does what is due each second. Any thread. Since 1.0. */
PERF_API int perf_monitor_tick(perf_monitor *monitor);

/** The set that the figures are in. Valid as long as the monitor. Since 1.0. */
PERF_API perf_metrics *perf_monitor_metrics(perf_monitor *monitor);

/* ----------------------------------------------------------------- requests */

/**
 * Begins a request. endpoint and method: UTF-8 (what is none becomes U+FFFD) of up to 128 and 16
 * bytes (longer ones are cut), NULL counts as ""; user: of examples only, up to 63 bytes, NULL:
 * none. All are copied. *out must be ended. PERF_EINVAL, PERF_ENOMEM, PERF_EFORKED; PERF_ECONFLICT,
 * PERF_EBUSY: the set of metrics has another metric of that name, or max_metrics; then *out is
 * NULL. Any thread. Since 1.0.
 */
PERF_API int perf_monitor_begin(perf_monitor *monitor, const char *endpoint, const char *method,
                                const char *user, perf_request **out);

/** Ends it: counts it with the time since it was begun. The request is gone. Without a
 *  status and a failure it counts as 200. Since 1.0. */
PERF_API void perf_request_end(perf_request *request);

/** Its status, as of HTTP (100 to 599; others count as 500). Since 1.0. */
PERF_API void perf_request_set_status(perf_request *request, int64_t status);

/** It failed: an error, whatever its status. text (up to 127 bytes, copied; NULL: none) is kept
 *  with examples; no secrets in it. Since 1.0. */
PERF_API void perf_request_fail(perf_request *request, const char *text);

/** Adds to what was received for it and sent by it, in bytes. Since 1.0. */
PERF_API void perf_request_add_bytes(perf_request *request, uint64_t received, uint64_t sent);

/** Forgets it: it is not counted. The request is gone. Since 1.0. */
PERF_API void perf_request_discard(perf_request *request);

/** Makes it this thread's current one, until perf_request_leave, which makes that current which
 *  was before. Both are called on the same thread, before it is ended. Entering one again only
 * makes it the current one. Since 1.0. */
PERF_API void perf_request_enter(perf_request *request);
PERF_API void perf_request_leave(perf_request *request);

/** What this thread has entered last and not left; NULL: nothing. Since 1.0. */
PERF_API perf_request *perf_request_current(void);

/* -------------------------------------------------------------------- spans */

/**
 * A part of a request: begun inside the last one that is not ended, up to 32 in a request
 * (more are not kept, but counted). name up to 31 bytes, copied. Returns its
 * number, for the end; -1: not kept. A span not ended ends with its request. Since 1.0.
 */
PERF_API int64_t perf_request_span(perf_request *request, const char *name);
PERF_API void perf_request_span_end(perf_request *request, int64_t span);

/* ------------------------------------------------------------------ figures */

/** How requests went, in a window or since the monitor was opened. */
typedef struct perf_request_stats {
    size_t struct_size;
    int64_t window_ms;       /**< what the figures are of; shorter after the open */
    uint64_t requests;       /**< ended */
    uint64_t errors;         /**< of those, failed or with an error's status */
    uint64_t in_flight;      /**< now */
    uint64_t by_class[6];    /**< requests by the hundreds of their status: [2] is 200 to 299 */
    uint64_t received, sent; /**< bytes */
    double per_second, error_rate; /**< requests in a second; errors of requests, 0 to 1 */
    double apdex;                  /**< (satisfied + tolerated / 2) of requests, 0 to 1; 1: none */
    double mean_ms, min_ms, max_ms;
    double p50_ms, p75_ms, p90_ms, p95_ms, p99_ms, p999_ms, p9999_ms;
} perf_request_stats;
#define PERF_REQUEST_STATS_INIT                                                                   \
    {                                                                                             \
        sizeof(perf_request_stats), 0, 0, 0, 0, {0, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0, 0, 0, 0                                                                         \
    }

/** Windows that are kept. */
enum {
    PERF_WINDOW_ALL = 0, /**< since the monitor was opened */
    PERF_WINDOW_10S = 10000,
    PERF_WINDOW_1M = 60000,
    PERF_WINDOW_5M = 300000,
    PERF_WINDOW_1H = 3600000
};

/** The figures of an endpoint and method in PERF_WINDOW_...; endpoint NULL: of all together.
 *  PERF_MISS: there was none; PERF_EINVAL: no such window. Any thread. Since 1.0. */
PERF_API int perf_monitor_get_stats(perf_monitor *monitor, const char *endpoint, const char *method,
                                    int64_t window_ms, perf_request_stats *stats);

/** How many endpoints with methods there are, and the names of number i, valid as long as the
 *  monitor (PERF_MISS: no such). Since 1.0. */
PERF_API size_t perf_monitor_endpoints(perf_monitor *monitor);
PERF_API int perf_monitor_endpoint(perf_monitor *monitor, size_t i, const char **endpoint,
                                   const char **method);

/* -------------------------------------------------------------- the slowest */

/** Requests that were kept; immutable. */
typedef struct perf_request_list perf_request_list;

/** One of them. Strings live as long as the list. */
typedef struct perf_request_record {
    size_t struct_size;
    const char *endpoint, *method, *user, *error; /**< never NULL */
    const char *trace_id, *span_id;               /**< 32 and 16 hexadecimal digits */
    const char *parent_id;                        /**< of the caller's span; "": none */
    int64_t begun_ms;                             /**< wall clock */
    int64_t status;
    double duration_ms;
    uint64_t received, sent;
    uint64_t spans;      /**< kept */
    uint64_t spans_lost; /**< not kept */
} perf_request_record;
#define PERF_REQUEST_RECORD_INIT                                              \
    {                                                                         \
        sizeof(perf_request_record), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** A part of it. */
typedef struct perf_span_record {
    size_t struct_size;
    const char *name;
    int64_t parent; /**< the number of the span that it is in; -1: of the request itself */
    double begun_ms, duration_ms; /**< after the request's begin */
} perf_span_record;
#define PERF_SPAN_RECORD_INIT                \
    {                                        \
        sizeof(perf_span_record), 0, 0, 0, 0 \
    }

/** The slowest requests of an endpoint and method (NULL: of all), slowest first. Release the
 *  list. PERF_MISS: no such endpoint; PERF_ENOMEM. Since 1.0. */
PERF_API int perf_monitor_slowest(perf_monitor *monitor, const char *endpoint, const char *method,
                                  perf_request_list **out);
PERF_API void perf_request_list_release(perf_request_list *list);

/** How many; number i; span j of number i. PERF_MISS: no such. Since 1.0. */
PERF_API size_t perf_request_list_count(const perf_request_list *list);
PERF_API int perf_request_list_get(const perf_request_list *list, size_t i,
                                   perf_request_record *out);
PERF_API int perf_request_list_span(const perf_request_list *list, size_t i, size_t j,
                                    perf_span_record *out);

/* --------------------------------------------------- traces across services */

/**
 * Takes over the caller's traceparent header ("00-<trace>-<span>-<flags>", W3C Trace Context,
 * level 1). One that is not valid is ignored, as the standard wants it: PERF_EINVAL. NULL is none:
 * PERF_OK. Since 1.0.
 */
PERF_API int perf_request_set_traceparent(perf_request *request, const char *traceparent);

/** Writes the traceparent for a call to another service: 55 characters and a zero byte. Of a
 *  request NULL: PERF_MISS, and out is "". PERF_ETOOSMALL. Since 1.0. */
PERF_API int perf_request_get_traceparent(perf_request *request, char *out, size_t out_size);

/* ------------------------------------------------- settings of one endpoint */

/** Zero in a field means what the monitor's options say. */
typedef struct perf_endpoint_options {
    size_t struct_size;
    int64_t apdex_ms;
    int64_t error_status;
    int64_t expected_ms; /**< the interval in which a closed-loop caller sends: slower requests also
                              count those that waited behind them (perf_histogram_record_expected);
                              0: none */
} perf_endpoint_options;
#define PERF_ENDPOINT_OPTIONS_INIT             \
    {                                          \
        sizeof(perf_endpoint_options), 0, 0, 0 \
    }

/** Sets them for requests that end from now on. PERF_EINVAL names the field; PERF_EBUSY: there are
 *  max_endpoints; else as perf_monitor_begin. Since 1.0. */
PERF_API int perf_monitor_configure(perf_monitor *monitor, const char *endpoint, const char *method,
                                    const perf_endpoint_options *options);

PERF_END_DECLS

#endif
