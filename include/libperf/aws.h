/* SPDX-License-Identifier: MIT */
/*
 * aws.h - any AWS service, by one pooled client that signs, retries and gives
 * up in time.
 *
 * In four lines:
 *
 *     perf_aws *ddb;
 *     perf_aws_reply *reply;
 *     perf_aws_shared("dynamodb", &ddb);          // region, keys, endpoint: from the environment
 *     perf_aws_call(ddb, "GetItem", json, json_len, 1000, &reply);
 *     ... perf_aws_reply_body(reply), perf_aws_reply_size(reply) ...
 *     perf_aws_reply_release(reply);
 *
 * aws_dynamodb.h, aws_s3.h, aws_sqs.h, aws_cloudwatch.h and aws_bedrock.h hold
 * what is worth more than one call; every other operation of every service is
 * reached from here.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_aws_close. Callbacks run on the HTTP client's I/O thread or on the
 *    client's own; they must not block or call the blocking functions.
 *  - A call may be sent more than once (retries). AWS's own services stand
 *    that, or take a token that makes them (ClientRequestToken and its kin).
 *  - perf_aws_open reads the environment and AWS's shared files; it asks nobody.
 *    Keys are found by the first call (aws_auth.h).
 *  - Errors name service, operation, AWS's own code and the request id. Secrets
 *    never reach errors or logs.
 *  - fork(): a child must open its own client; calls return PERF_EFORKED.
 *    perf_aws_shared opens a new one there by itself.
 */
#ifndef LIBPERF_AWS_H
#define LIBPERF_AWS_H

#include <libperf/aws_auth.h>
#include <libperf/http.h>
#include <libperf/resilience.h>
#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A client of one service in one region. */
typedef struct perf_aws perf_aws;

/** What a service answered. Immutable; valid until released. */
typedef struct perf_aws_reply perf_aws_reply;

/* -------------------------------------------------------------- open, close */

/** How a service wants to be spoken to. */
enum {
    PERF_AWS_PROTOCOL_AUTO = 0,  /**< as is known of the service */
    PERF_AWS_PROTOCOL_JSON = 1,  /**< a JSON body, the operation in X-Amz-Target */
    PERF_AWS_PROTOCOL_QUERY = 2, /**< a form body with Action and Version; XML comes back */
    PERF_AWS_PROTOCOL_REST = 3   /**< method, path and query say it all */
};

/** How to open a client. Zero in a field means the default. */
typedef struct perf_aws_options {
    size_t struct_size;
    const char *service;      /**< as in its host name: "dynamodb", "s3", "sqs", "monitoring",
                                   "bedrock-runtime", "sts", ...; required */
    const char *region;       /**< default: AWS_REGION, AWS_DEFAULT_REGION, the profile's */
    const char *profile;      /**< of the shared files; default AWS_PROFILE, else "default" */
    const char *endpoint_url; /**< "http://host:port"; default: AWS_ENDPOINT_URL_<SERVICE>,
                                   AWS_ENDPOINT_URL, the profile's, else AWS's own */
    perf_aws_credentials *credentials; /**< must outlive the client; default: those of the
                                            process, shared by all clients */
    perf_http *http;            /**< must outlive the client; default: one shared by all clients */
    perf_retry *retry;          /**< must outlive the client; default: of its own, see retry_mode */
    perf_breaker *breaker;      /**< must outlive the client; default: of its own. It counts broken
                                     connections, time-outs and 5xx, not throttling */
    int64_t no_breaker;         /**< 1: none */
    int64_t retry_mode;         /**< PERF_RETRY_...; default AWS_RETRY_MODE, else standard */
    int64_t max_attempts;       /**< default AWS_MAX_ATTEMPTS, else 3 (DynamoDB: 4) */
    int64_t timeout_ms;         /**< of a call that gives none, retries included; default by
                                     service: dynamodb 10000, sqs and monitoring 30000, s3 and
                                     bedrock-runtime 300000, others 60000 */
    int64_t attempt_timeout_ms; /**< of one attempt; default by service: dynamodb 3000, sqs and
                                   monitoring 10000, others the call's */
    int64_t protocol;           /**< PERF_AWS_PROTOCOL_... */
    const char *target;         /**< JSON: what stands before the dot in X-Amz-Target, such as
                                     "DynamoDB_20120810"; default as is known of the service */
    const char *api_version;    /**< QUERY: such as "2011-06-15"; default as is known */
    const char *signing_name;   /**< default as is known, else service */
    const perf_host *host;      /**< allocator, clock, log */
} perf_aws_options;
#define PERF_AWS_OPTIONS_INIT                                                          \
    {                                                                                  \
        sizeof(perf_aws_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Opens a client. *out is the caller's, to be closed with perf_aws_close.
 * Errors: PERF_EINVAL (an option, the region, the shared files); PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_aws_open(const perf_aws_options *options, perf_aws **out);

/** Ends calls under way with PERF_ECLOSED and frees the client. NULL is allowed. No other call
 *  on the handle may begin. Since 1.0. */
PERF_API int perf_aws_close(perf_aws *aws);

/**
 * The one client of this process for a service, configured by the environment
 * and opened when first asked for. It is never closed; all threads share it. A
 * forked child gets another one. Errors as perf_aws_open. Since 1.0.
 */
PERF_API int perf_aws_shared(const char *service, perf_aws **out);

/** The region. Valid as long as the client. Since 1.0. */
PERF_API const char *perf_aws_region(const perf_aws *aws);

/** Scheme, host and port that it speaks to. Valid as long as the client. Since 1.0. */
PERF_API const char *perf_aws_endpoint(const perf_aws *aws);

/* --------------------------------------------------------------------- call */

/**
 * Calls an operation of a JSON or query service and waits for its answer. body:
 * the JSON text, or for a query service "Name=value&..." percent-encoded without
 * Action and Version; len bytes. timeout_ms is for all attempts together; 0: the
 * client's default; the thread's deadline (resilience.h) counts, too.
 * The caller releases *out.
 *
 * Errors: PERF_ETIMEDOUT; PERF_EUNAVAILABLE, PERF_EIO, PERF_ETLS,
 * PERF_EPROTOCOL (no answer, or not a whole one); PERF_ETHROTTLED;
 * PERF_EACCESS (keys missing or refused, or not allowed); PERF_ECONFLICT (a
 * condition did not hold, or 409 and 412); PERF_MISS (S3: no such key, or 404
 * without a code); PERF_EREMOTE (any other error of the service);
 * PERF_EREJECTED (the breaker is open); PERF_ECLOSED; PERF_EFORKED;
 * PERF_ENOMEM; PERF_EINVAL. perf_aws_error_code() says AWS's own. Since 1.0.
 */
PERF_API int perf_aws_call(perf_aws *aws, const char *operation, const void *body, size_t len,
                           int64_t timeout_ms, perf_aws_reply **out);

/** Flags of a request. */
enum {
    PERF_AWS_NO_RETRY = 1,  /**< one attempt */
    PERF_AWS_LONG_POLL = 2, /**< it waits on purpose (ReceiveMessage): no attempt timeout, and a
                                 pause also when the retry budget is empty */
    PERF_AWS_ANONYMOUS = 4, /**< do not sign */
    PERF_AWS_GZIP = 8       /**< compress a body of more than 1 KiB; of the services known here only
                                 CloudWatch takes that */
};

/** Begins the body anew, for another attempt: PERF_OK, or an error that ends the call. */
typedef int (*perf_aws_rewind_fn)(void *ctx);

/** A call is over; the callee owns reply, which is NULL unless status is PERF_OK. */
typedef void (*perf_aws_done_fn)(void *ctx, int status, perf_aws_reply *reply);

/** A request in full. Zero in a field means the default. All is copied, but for the body and what
 *  the contexts point to. */
typedef struct perf_aws_request {
    size_t struct_size;
    const char *operation;   /**< such as "GetItem"; required, for REST in messages only */
    const char *method;      /**< REST: default "GET", or "POST" with a body */
    const char *path;        /**< REST: percent-encoded, begins with '/'; default "/" */
    const char *query;       /**< REST: percent-encoded, without '?' */
    const char *host_prefix; /**< goes before the endpoint's host, such as "bucket." */
    const perf_http_header *headers;
    size_t header_count;
    perf_bytes body;           /**< borrowed until the call is over */
    perf_http_read_fn read;    /**< instead of body: asked for it piece by piece */
    void *read_ctx;            /**< for read and rewind */
    int64_t read_len;          /**< bytes that read will give */
    perf_aws_rewind_fn rewind; /**< NULL: a call that has begun to read is not tried again */
    const char *payload_hash;  /**< of what read will give: hexadecimal SHA-256, or
                                    "UNSIGNED-PAYLOAD", the default */
    perf_http_write_fn write;  /**< gets the pieces of a successful reply's body */
    void *write_ctx;
    uint64_t max_body_bytes;    /**< of a reply kept in memory; default 64 MiB */
    int64_t timeout_ms;         /**< for all attempts together; 0: the client's */
    int64_t attempt_timeout_ms; /**< of one; 0: the client's */
    uint64_t flags;             /**< PERF_AWS_... */
    perf_aws_done_fn done;      /**< for perf_aws_start */
    void *done_ctx;
} perf_aws_request;
#define PERF_AWS_REQUEST_INIT                                                                      \
    {                                                                                              \
        sizeof(perf_aws_request), 0, 0, 0, 0, 0, 0, 0, {0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0                                                                                      \
    }

/** Sends request and waits. Errors as perf_aws_call; a callback's own. Since 1.0. */
PERF_API int perf_aws_perform(perf_aws *aws, const perf_aws_request *request, perf_aws_reply **out);

/* -------------------------------------------------------------------- pages */

/** A list that comes in pages. One thread at a time. */
typedef struct perf_aws_pages perf_aws_pages;

/**
 * Prepares to walk through all pages of an operation of a JSON service; asks nobody yet. body: the
 * JSON object of the first request, len bytes, copied; 0: "{}". token_out names the member of a
 * reply that says where the next page begins, token_in the one of the next request that gets it.
 * Both NULL: as is known of the operation (DynamoDB's Query, Scan and ListTables; else NextToken,
 * or nextToken of CloudWatch Logs).
 * The caller closes *out before the client. Errors: PERF_EINVAL; PERF_ENOMEM; PERF_EFORKED.
 * Since 1.0.
 */
PERF_API int perf_aws_pages_open(perf_aws *aws, const char *operation, const void *body, size_t len,
                                 const char *token_in, const char *token_out, perf_aws_pages **out);

/** Fetches the next page; the caller releases *out. PERF_MISS: there is none. After an error that
 *  is not PERF_EPROTOCOL the same page may be asked for again. Errors as perf_aws_call;
 *  PERF_EPROTOCOL also for a page that leads to itself. Since 1.0. */
PERF_API int perf_aws_pages_next(perf_aws_pages *pages, int64_t timeout_ms, perf_aws_reply **out);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_aws_pages_close(perf_aws_pages *pages);

/* ------------------------------------------------------------- asynchronous */

/** A call under way. */
typedef struct perf_aws_operation perf_aws_operation;

/** Starts request. With request->done, that is called when it is over and out may be NULL; without,
 *  ask by perf_aws_operation_wait or perf_aws_next_done. A non-NULL out receives a handle to be
 *  released. Since 1.0. */
PERF_API int perf_aws_start(perf_aws *aws, const perf_aws_request *request,
                            perf_aws_operation **out);

/** Waits up to timeout_ms (0: just asks; -1: as long as it takes). PERF_EBUSY: not over yet.
 *  Otherwise what perf_aws_perform would have said; a second time PERF_EINVAL. Since 1.0. */
PERF_API int perf_aws_operation_wait(perf_aws_operation *operation, int64_t timeout_ms,
                                     perf_aws_reply **out);

/** Ends it with PERF_ECANCELED, unless it is over. Returns at once. Since 1.0. */
PERF_API void perf_aws_operation_cancel(perf_aws_operation *operation);

/** Lets go of the handle; the call goes on. NULL is allowed. Since 1.0. */
PERF_API void perf_aws_operation_release(perf_aws_operation *operation);

/** A file descriptor that is readable while an operation started without done is over and was not
 *  yet named by perf_aws_next_done. Never read it. Since 1.0. */
PERF_API int perf_aws_fd(perf_aws *aws, int *out);

/** The next operation that is over; still owned by whoever started it. PERF_MISS: none.
 *  Since 1.0. */
PERF_API int perf_aws_next_done(perf_aws *aws, perf_aws_operation **out);

/* -------------------------------------------------------------------- reply */

/** The HTTP status, such as 200. Since 1.0. */
PERF_API int64_t perf_aws_reply_status(const perf_aws_reply *reply);

/** The value of a header (case-insensitive), or NULL. Since 1.0. */
PERF_API const char *perf_aws_reply_header(const perf_aws_reply *reply, const char *name);

/** The body, with a zero byte behind it that is not counted. Since 1.0. */
PERF_API const void *perf_aws_reply_body(const perf_aws_reply *reply);

/** Its length in bytes. Since 1.0. */
PERF_API size_t perf_aws_reply_size(const perf_aws_reply *reply);

/** AWS's id of the request, for its support; "" if none. Since 1.0. */
PERF_API const char *perf_aws_reply_request_id(const perf_aws_reply *reply);

/** How many attempts it took. Since 1.0. */
PERF_API int64_t perf_aws_reply_attempts(const perf_aws_reply *reply);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_aws_reply_release(perf_aws_reply *reply);

/* ------------------------------------------------------------------- errors */

/** AWS's code of this thread's last call that a service answered with an error, such as
 *  "ResourceNotFoundException"; "" if none. Valid until this thread's next call. Since 1.0. */
PERF_API const char *perf_aws_error_code(void);

/** The HTTP status of the same; 0 if none. Since 1.0. */
PERF_API int64_t perf_aws_error_status(void);

/** AWS's id of that request; "" if none. Since 1.0. */
PERF_API const char *perf_aws_error_request_id(void);

/* --------------------------------------------------------------- statistics */

/** What a client did so far. */
typedef struct perf_aws_stats {
    size_t struct_size;
    uint64_t calls;          /**< begun */
    uint64_t succeeded;      /**< answered with success */
    uint64_t failed;         /**< the others that are over */
    uint64_t attempts;       /**< requests sent */
    uint64_t throttled;      /**< attempts that were answered so */
    uint64_t rejected;       /**< calls that the breaker refused */
    uint64_t in_flight;      /**< calls now */
    int64_t clock_skew_ms;   /**< AWS's clock minus ours, as far as it was corrected */
    uint64_t latency_p50_ns; /**< of calls, retries included */
    uint64_t latency_p99_ns;
} perf_aws_stats;
#define PERF_AWS_STATS_INIT                                  \
    {                                                        \
        sizeof(perf_aws_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_aws_get_stats(perf_aws *aws, perf_aws_stats *stats);

PERF_END_DECLS

#endif
