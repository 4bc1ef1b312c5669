/* SPDX-License-Identifier: MIT */
/*
 * aws_bedrock.h - asking models in Amazon Bedrock, and hearing them while they
 * still speak.
 *
 * In five lines:
 *
 *     perf_aws *bedrock;
 *     perf_aws_shared("bedrock-runtime", &bedrock);
 *     perf_bedrock_converse_stream(bedrock, "amazon.nova-lite-v1:0", json, len, NULL, on_event,
 * me);
 *     ...
 *     int on_event(void *me, const char *type, const void *json, size_t len) { ... }
 *
 * What is said and heard is JSON of Bedrock's own API (Converse), or of the
 * model (InvokeModel); libperf neither makes nor reads it.
 *
 * Caveats first
 *  - Threads: a client serves any number of threads, a stream one at a time.
 *    on_event runs inside the call or on the HTTP client's I/O thread; it must
 *    not block or call the blocking functions. The pull form has no callback.
 *  - Once an event was delivered, a call is not tried again: what a model would
 *    say anew is something else.
 *  - Errors are those of perf_aws_call, also for exceptions within a stream:
 *    PERF_ETHROTTLED (throttlingException), PERF_ETIMEDOUT
 *    (modelTimeoutException), PERF_EUNAVAILABLE (serviceUnavailableException),
 *    PERF_EREMOTE (modelStreamErrorException and others); perf_aws_error_code()
 *    says which. PERF_ECORRUPT and PERF_EPROTOCOL: a damaged or cut stream.
 */
#ifndef LIBPERF_AWS_BEDROCK_H
#define LIBPERF_AWS_BEDROCK_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/** How to ask. Zero in a field means the default. */
typedef struct perf_bedrock_options {
    size_t struct_size;
    const char *content_type;      /**< of the body; default application/json */
    const char *accept;            /**< invoke: of the answer; default the model's */
    const char *guardrail_id;      /**< invoke: a guardrail to apply; converse has it in its JSON */
    const char *guardrail_version; /**< required with guardrail_id */
    const char *trace;             /**< invoke: "ENABLED", "DISABLED" or "ENABLED_FULL" */
    const char *latency;           /**< invoke: "standard" or "optimized" */
    int64_t timeout_ms;            /**< for all of it; default the client's */
    uint64_t max_queue_bytes;      /**< of events that wait for perf_bedrock_stream_next; more is
                                        PERF_ETOOBIG; default 64 MiB */
} perf_bedrock_options;
#define PERF_BEDROCK_OPTIONS_INIT                            \
    {                                                        \
        sizeof(perf_bedrock_options), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Invokes a model (an id, an ARN, or a profile's) with len bytes in its own format. options may be
 *  NULL. The caller releases *out. Since 1.0. */
PERF_API int perf_bedrock_invoke(perf_aws *bedrock, const char *model_id, const void *body,
                                 size_t len, const perf_bedrock_options *options,
                                 perf_aws_reply **out);

/** Converses with a model: the JSON of Converse in, and out. The caller releases *out.
 *  Since 1.0. */
PERF_API int perf_bedrock_converse(perf_aws *bedrock, const char *model_id, const void *json,
                                   size_t len, const perf_bedrock_options *options,
                                   perf_aws_reply **out);

/* ---------------------------------------------------------------------- streams */

/** An event: its type, such as "contentBlockDelta", and its JSON with a zero byte behind. Events of
 *  perf_bedrock_invoke_stream are of the type "chunk", and their JSON is the model's. PERF_OK, or a
 *  negative code, which ends the stream with it. */
typedef int (*perf_bedrock_event_fn)(void *ctx, const char *type, const void *json, size_t len);

/** The same as perf_bedrock_invoke, hearing the answer piece by piece. Returns when it is over.
 *  Since 1.0. */
PERF_API int perf_bedrock_invoke_stream(perf_aws *bedrock, const char *model_id, const void *body,
                                        size_t len, const perf_bedrock_options *options,
                                        perf_bedrock_event_fn on_event, void *ctx);

/** The same as perf_bedrock_converse, hearing the answer piece by piece. Returns when it is over.
 *  Since 1.0. */
PERF_API int perf_bedrock_converse_stream(perf_aws *bedrock, const char *model_id, const void *json,
                                          size_t len, const perf_bedrock_options *options,
                                          perf_bedrock_event_fn on_event, void *ctx);

/** What a stream asks. */
enum {
    PERF_BEDROCK_INVOKE = 1,  /**< InvokeModelWithResponseStream */
    PERF_BEDROCK_CONVERSE = 2 /**< ConverseStream */
};

/** An answer that is being heard, for those who ask for events. */
typedef struct perf_bedrock_stream perf_bedrock_stream;

/** Begins to ask; body is copied. kind: PERF_BEDROCK_... The client must outlive the stream.
 *  Since 1.0. */
PERF_API int perf_bedrock_stream_open(perf_aws *bedrock, int64_t kind, const char *model_id,
                                      const void *body, size_t len,
                                      const perf_bedrock_options *options,
                                      perf_bedrock_stream **out);

/**
 * Waits up to timeout_ms (0: just asks; -1: as long as it takes) for the next event; what *type and
 * *json receive is valid until the stream is asked again. PERF_EBUSY: none yet. PERF_MISS: the
 * answer is complete. Otherwise how the stream ended, after its last event; the same again when
 * asked again. Since 1.0.
 */
PERF_API int perf_bedrock_stream_next(perf_bedrock_stream *stream, int64_t timeout_ms,
                                      const char **type, const void **json, size_t *len);

/** A file descriptor that is readable while perf_bedrock_stream_next has something to say. Never
 *  read it. Valid as long as the stream. Since 1.0. */
PERF_API int perf_bedrock_stream_fd(perf_bedrock_stream *stream, int *out);

/** Ends what is under way and frees the stream. NULL is allowed. Since 1.0. */
PERF_API void perf_bedrock_stream_close(perf_bedrock_stream *stream);

PERF_END_DECLS

#endif
