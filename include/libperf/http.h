/* SPDX-License-Identifier: MIT */
/*
 * http.h - an HTTP client whose connections are ready before you need them.
 *
 * In five lines:
 *
 *     perf_http *http;
 *     perf_http_reply *reply;
 *     perf_http_open(NULL, &http);
 *     perf_http_get(http, "https://example.com/", 2000, &reply);
 *     use(perf_http_reply_status(reply), perf_http_reply_body(reply));
 *     perf_http_reply_release(reply);
 *
 * HTTP/1.1 and HTTP/2 over libcurl. Connections are kept alive and shared by all
 * threads. An I/O thread, which starts with the first request, serves whatever
 * nobody waits for; a thread that waits serves itself when that is cheaper.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_http_close. Callbacks of a request run on the I/O thread, or inside
 *    the blocking call that waits for this very request, never inside another
 *    one's: they must not block, and blocking calls in them say PERF_EDEADLK.
 *  - A status such as 404 or 503 is an answer: the call returns PERF_OK and the
 *    reply says which. Failures are replies that did not come whole.
 *  - Nothing is retried here; resilience.h does that for whoever wants it. But
 *    one thing: when the server had closed the kept connection before the first
 *    byte of its answer, GET, HEAD, PUT, DELETE, OPTIONS and TRACE are sent once
 *    more on another one. Others, which may have been done, fail with PERF_EIO.
 *  - TLS certificates and host names are verified; only an explicit option
 *    turns that off. Redirects are not followed. Only http and https.
 *  - fork(): a child must open its own client; calls return PERF_EFORKED.
 */
#ifndef LIBPERF_HTTP_H
#define LIBPERF_HTTP_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A client: connections, their limits, and the I/O thread. */
typedef struct perf_http perf_http;

/** What came back: status, headers, body. Immutable; valid until released. */
typedef struct perf_http_reply perf_http_reply;

/** A request under way, for those who do not wait for it. */
typedef struct perf_http_call perf_http_call;

/** Which version of HTTP to speak. */
enum {
    PERF_HTTP_VERSION_AUTO = 0, /**< HTTP/2 where TLS negotiates it, else HTTP/1.1 */
    PERF_HTTP_VERSION_1_1 = 1,
    PERF_HTTP_VERSION_2 = 2, /**< the same as AUTO for https; with prior knowledge for http */
};

/** How to open a client. Zero in a field means the default. */
typedef struct perf_http_options {
    size_t struct_size;
    int64_t version;               /**< PERF_HTTP_VERSION_...; default AUTO */
    uint64_t max_connections;      /**< requests under way at once, each on its own connection or
                                        (HTTP/2) as a stream of a shared one; default 256 */
    uint64_t max_host_connections; /**< the same to one host; default 64 */
    uint64_t max_queue;            /**< requests beyond these that may wait; default 1024 */
    int64_t idle_timeout_ms;       /**< an idle connection is not used after; default 50000, for
                                        services commonly drop theirs after 60 s. All are dropped
                                        when the process itself was frozen for as long */
    int64_t max_lifetime_ms;       /**< no connection is used longer, so that DNS changes are seen;
                                        default 300000 */
    int64_t connect_timeout_ms;    /**< name, TCP and TLS together; default 3000 */
    int64_t timeout_ms;            /**< of a request that gives none; default 30000 */
    int64_t first_byte_timeout_ms; /**< from the request sent to the reply's first byte; default:
                                       the request's timeout */
    uint64_t min_bytes_per_s;      /**< a body slower than this for stall_ms fails; default 1 */
    int64_t stall_ms;              /**< default 30000 */
    uint64_t max_body_bytes;       /**< of a reply kept in memory; default 64 MiB */
    uint64_t max_header_bytes;     /**< of a reply's headers together; default 256 KiB */
    int64_t dns_ttl_ms;            /**< names are asked for anew after, rounded up to seconds;
                                        default 5000 */
    const char *ca_file;           /**< PEM file of the CAs to trust; default: the system's */
    const char *ca_path;           /**< directory of such */
    const char *client_cert_file;  /**< PEM, for mutual TLS */
    const char *client_key_file;   /**< PEM */
    const char *proxy;             /**< proxy URL; NULL: https_proxy, http_proxy and no_proxy (or in
                                        capitals) of the environment, now; "": none */
    const char *user_agent;        /**< default "libperf/<version>" */
    const char *unix_socket;       /**< connect to this socket whatever the host; default none */
    int64_t tls_insecure;          /**< 1: accept any certificate. For tests only */
    const perf_host *host;         /**< allocator, clock, log */
} perf_http_options;
#define PERF_HTTP_OPTIONS_INIT                                                                    \
    {                                                                                             \
        sizeof(perf_http_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0                                                                                  \
    }

/** Opens a client; options may be NULL. Starts no thread and opens no socket. Since 1.0. */
PERF_API int perf_http_open(const perf_http_options *options, perf_http **out);

/** Fails what is under way with PERF_ECLOSED (and calls its done callbacks), stops the I/O thread,
 *  closes all. Calls blocked on this client return first; none may begin. Handles of calls and
 *  replies stay valid until released. PERF_EDEADLK inside a callback. NULL is allowed. In a forked
 *  child the connections are let go without a word to their peers. Since 1.0. */
PERF_API int perf_http_close(perf_http *http);

/** One header of a request. */
typedef struct perf_http_header {
    const char *name;
    const char *value;
} perf_http_header;

/** Gives the next bytes of a body to send: how many were put into buf, 0 at the end, or a
 *  negative PERF_E code, which ends the request with it. I/O thread, or the one that waits. */
typedef int64_t (*perf_http_read_fn)(void *ctx, void *buf, size_t size);

/** Takes the next bytes of a reply's body: PERF_OK, or a negative PERF_E code, which ends the
 *  request with it. The status and headers are known by then. I/O thread. */
typedef int (*perf_http_write_fn)(void *ctx, const perf_http_reply *so_far, const void *data,
                                  size_t len);

/** A request is over: status is PERF_OK and reply whole, or status says why not (reply may still
 *  be NULL or partial). The callee owns reply. I/O thread. */
typedef void (*perf_http_done_fn)(void *ctx, int status, perf_http_reply *reply);

/** A request. Zero in a field means the default. All is copied, but for the body (see copy_body)
 *  and what the callbacks' contexts point to. */
typedef struct perf_http_request {
    size_t struct_size;
    const char *method;              /**< default "GET", or "POST" with a body */
    const char *url;                 /**< required; sent as it is, dot segments included */
    const perf_http_header *headers; /**< line ends in them are refused; so are Transfer-Encoding,
                                          and a Content-Length that is not the body's */
    size_t header_count;
    perf_bytes body;        /**< in memory; borrowed until the request is over */
    int64_t copy_body;      /**< 1: copy body before returning */
    perf_http_read_fn read; /**< instead of body: asked for it piece by piece */
    void *read_ctx;
    int64_t read_len;         /**< bytes that read will give, 0 or more; -1: not known
                                   (HTTP/1.1 sends it chunked) */
    perf_http_write_fn write; /**< instead of keeping the reply's body: gets its pieces */
    void *write_ctx;
    int64_t timeout_ms; /**< for the whole request, waiting in queues included */
    int64_t first_byte_timeout_ms;
    uint64_t max_body_bytes; /**< PERF_ETOOBIG beyond; default the client's, or with write:
                                  no bound */
    perf_http_done_fn done;  /**< for perf_http_start: called when it is over */
    void *done_ctx;
} perf_http_request;
#define PERF_HTTP_REQUEST_INIT                                                         \
    {                                                                                  \
        sizeof(perf_http_request), 0, 0, 0, 0, {0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* ---------------------------------------------------------------- blocking */

/** Sends request and waits for its reply. Errors: PERF_EINVAL; PERF_ETIMEDOUT; PERF_EUNAVAILABLE
 *  (no connection: nothing was sent); PERF_EIO (it broke after sending: it may have been done);
 *  PERF_ETLS; PERF_EPROTOCOL (the reply is not HTTP or stops half way); PERF_ETOOBIG;
 *  PERF_EBUSY (the queue is full); PERF_ENOMEM; PERF_ECLOSED; a callback's own. Since 1.0. */
PERF_API int perf_http_perform(perf_http *http, const perf_http_request *request,
                               perf_http_reply **out);

/** GET url within timeout_ms (0: the client's default). Since 1.0. */
PERF_API int perf_http_get(perf_http *http, const char *url, int64_t timeout_ms,
                           perf_http_reply **out);

/* ------------------------------------------------------------- asynchronous */

/** Starts request. With request->done, that is called when it is over; without, ask by
 *  perf_http_call_wait or perf_http_next_done. out may be NULL; otherwise it receives a handle to
 *  be released. Fails at once with PERF_EINVAL, PERF_EBUSY, PERF_ENOMEM, PERF_ECLOSED or
 *  PERF_EFORKED, and then done is not called. Since 1.0. */
PERF_API int perf_http_start(perf_http *http, const perf_http_request *request,
                             perf_http_call **out);

/** Waits up to timeout_ms (0: just asks; -1: as long as it takes). PERF_MISS: not yet over, and it
 *  goes on. Otherwise what perf_http_perform would have said; *out is the caller's; a second call
 *  says PERF_EINVAL, as does one for a request with done. Since 1.0. */
PERF_API int perf_http_call_wait(perf_http_call *call, int64_t timeout_ms, perf_http_reply **out);

/** Ends a request with PERF_ECANCELED, unless it is over. Returns at once. Since 1.0. */
PERF_API void perf_http_call_cancel(perf_http_call *call);

/** Lets go of the handle; the request goes on. NULL is allowed. Since 1.0. */
PERF_API void perf_http_call_release(perf_http_call *call);

/** A file descriptor that is readable while a request started without done is over and was not
 *  yet fetched by perf_http_next_done. For poll, libuv, asyncio; never read it. Since 1.0. */
PERF_API int perf_http_fd(perf_http *http, int *out);

/** The next request that is over: *out is the call that perf_http_start gave (the caller still
 *  owns that one reference), to be asked by perf_http_call_wait(…, 0, …). PERF_MISS: none.
 * Since 1.0. */
PERF_API int perf_http_next_done(perf_http *http, perf_http_call **out);

/* -------------------------------------------------------------------- reply */

/** The status code, such as 200. Since 1.0. */
PERF_API int64_t perf_http_reply_status(const perf_http_reply *reply);

/** The value of the first header of this name (case-insensitive), or NULL. Since 1.0. */
PERF_API const char *perf_http_reply_header(const perf_http_reply *reply, const char *name);

/** The i-th header in the order received, or PERF_MISS behind the last. Since 1.0. */
PERF_API int perf_http_reply_header_at(const perf_http_reply *reply, size_t i, const char **name,
                                       const char **value);

/** The body in memory, with a zero byte behind it that is not counted. Since 1.0. */
PERF_API const void *perf_http_reply_body(const perf_http_reply *reply);

/** Its length in bytes. Since 1.0. */
PERF_API size_t perf_http_reply_size(const perf_http_reply *reply);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_http_reply_release(perf_http_reply *reply);

/* --------------------------------------------------------------- statistics */

/** What a client did so far. */
typedef struct perf_http_stats {
    size_t struct_size;
    uint64_t requests;         /**< started */
    uint64_t replies;          /**< whole replies, whatever their status */
    uint64_t failures;         /**< the others */
    uint64_t connects;         /**< connections opened */
    uint64_t reused;           /**< requests on a connection that was there */
    uint64_t open_connections; /**< now */
    uint64_t in_flight;        /**< requests now */
    uint64_t queued;           /**< of them waiting for a connection */
    uint64_t bytes_sent;
    uint64_t bytes_received;
} perf_http_stats;
#define PERF_HTTP_STATS_INIT                                  \
    {                                                         \
        sizeof(perf_http_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_http_get_stats(perf_http *http, perf_http_stats *stats);

PERF_END_DECLS

#endif
