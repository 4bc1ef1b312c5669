/* SPDX-License-Identifier: MIT */
/*
 * aws_sqs.h - messages by SQS: sending, waiting for them, and being done with them.
 *
 *     perf_aws_shared("sqs", &sqs);
 *     perf_sqs_queue_url(sqs, "jobs", NULL, 0, url, sizeof url);
 *     perf_sqs_send(sqs, url, &message, 0, id, sizeof id);
 *
 *     perf_sqs_receive(sqs, url, &options, &list);          // waits up to 20 s
 *     for (i = 0; i < perf_sqs_messages_count(list); i++)
 *         ... perf_sqs_messages_body(list, i, &len) ...
 *     perf_sqs_delete(sqs, url, list, 0, NULL);             // all of them, one request
 *
 * What arrives and what was sent are held against SQS's MD5. A standard queue may deliver a message
 * twice. Everything else is perf_aws_call (aws.h).
 *
 * Any thread may call anything at any time. fork(): calls return PERF_EFORKED.
 */
#ifndef LIBPERF_AWS_SQS_H
#define LIBPERF_AWS_SQS_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/** The URL of a queue, into out with a zero byte; account: of its owner, NULL for the caller's own.
 *  PERF_ETOOSMALL; errors of perf_aws_call. Since 1.0. */
PERF_API int perf_sqs_queue_url(perf_aws *aws, const char *queue, const char *account,
                                int64_t timeout_ms, char *out, size_t out_size);

/* --------------------------------------------------------------------- send */

/** A message to be sent. Zero in a field means the default. */
typedef struct perf_sqs_message {
    size_t struct_size;
    perf_bytes body;        /**< UTF-8 text of at least 1 byte and at most 1 MiB */
    const char *attributes; /**< MessageAttributes: a JSON object as SQS wants it; NULL: none */
    const char *group_id;   /**< MessageGroupId; required for FIFO queues */
    const char *dedup_id;   /**< MessageDeduplicationId, of FIFO queues */
    int64_t delay_s;        /**< until it can be received, 1 to 900; 0: as the queue says */
} perf_sqs_message;
#define PERF_SQS_MESSAGE_INIT                        \
    {                                                \
        sizeof(perf_sqs_message), {0, 0}, 0, 0, 0, 0 \
    }

/** Sends one message. id, if not NULL, receives SQS's name for it with a zero byte.
 *  timeout_ms: 0: the client's. PERF_EPROTOCOL also: what SQS took is not what was sent.
 *  Errors of perf_aws_call. Since 1.0. */
PERF_API int perf_sqs_send(perf_aws *aws, const char *queue_url, const perf_sqs_message *message,
                           int64_t timeout_ms, char *id, size_t id_size);

/** How a batch ended, message by message. Immutable; valid until released. */
typedef struct perf_sqs_results perf_sqs_results;

/**
 * Sends count messages, by 10 and by 1 MiB. Those that SQS could not take for a reason of its own
 * are sent again, with growing pauses, until the time is over.
 *
 * PERF_OK: all are sent. Otherwise the error of the first that is not. *out, if out is not NULL, is
 * set also then, as soon as anything was asked for; the caller releases it. Since 1.0.
 */
PERF_API int perf_sqs_send_batch(perf_aws *aws, const char *queue_url,
                                 const perf_sqs_message *const *messages, size_t count,
                                 int64_t timeout_ms, perf_sqs_results **out);

/** How many results there are. Since 1.0. */
PERF_API size_t perf_sqs_results_count(const perf_sqs_results *results);

/** PERF_OK, PERF_EREMOTE (refused: see the code), PERF_EPROTOCOL, or what ended the batch before
 *  its turn; PERF_EINVAL beyond the last. Since 1.0. */
PERF_API int perf_sqs_results_status(const perf_sqs_results *results, size_t i);

/** SQS's code, such as "InvalidMessageContents"; "" if none. Since 1.0. */
PERF_API const char *perf_sqs_results_code(const perf_sqs_results *results, size_t i);

/** SQS's name for a message that was sent; "" if none. Since 1.0. */
PERF_API const char *perf_sqs_results_id(const perf_sqs_results *results, size_t i);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_sqs_results_release(perf_sqs_results *results);

/* ------------------------------------------------------------------ receive */

/** What to receive. Zero in a field means the default. */
typedef struct perf_sqs_receive_options {
    size_t struct_size;
    int64_t max_messages;   /**< 1 to 10; default 10 */
    int64_t wait_s;         /**< how long SQS waits for one, 1 to 20; default 20; -1: not at all */
    int64_t visibility_s;   /**< how long nobody else gets them; default: the queue's */
    int64_t attributes;     /**< 1: with all system and message attributes */
    int64_t timeout_ms;     /**< beyond the wait; default 5000 */
    const char *attempt_id; /**< ReceiveRequestAttemptId, of FIFO queues */
} perf_sqs_receive_options;
#define PERF_SQS_RECEIVE_OPTIONS_INIT                      \
    {                                                      \
        sizeof(perf_sqs_receive_options), 0, 0, 0, 0, 0, 0 \
    }

/** Messages that came. Immutable; valid until released. */
typedef struct perf_sqs_messages perf_sqs_messages;

/**
 * Waits for messages. None is a success with an empty list. options may be NULL. The caller
 * releases *out. PERF_EPROTOCOL also: a body does not match its MD5 (nothing is returned; the
 * messages come again). Errors of perf_aws_call. Since 1.0.
 */
PERF_API int perf_sqs_receive(perf_aws *aws, const char *queue_url,
                              const perf_sqs_receive_options *options, perf_sqs_messages **out);

/** How many. Since 1.0. */
PERF_API size_t perf_sqs_messages_count(const perf_sqs_messages *messages);

/** A body, with a zero byte behind it that is not counted; NULL beyond the last. Since 1.0. */
PERF_API const char *perf_sqs_messages_body(const perf_sqs_messages *messages, size_t i,
                                            size_t *len);

/** SQS's name for it. Since 1.0. */
PERF_API const char *perf_sqs_messages_id(const perf_sqs_messages *messages, size_t i);

/** What perf_sqs_delete_receipts wants to hear. Since 1.0. */
PERF_API const char *perf_sqs_messages_receipt(const perf_sqs_messages *messages, size_t i);

/** The whole message as SQS sent it: a JSON object with Attributes and MessageAttributes, no zero
 *  byte behind. Since 1.0. */
PERF_API const char *perf_sqs_messages_json(const perf_sqs_messages *messages, size_t i,
                                            size_t *len);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_sqs_messages_release(perf_sqs_messages *messages);

/* ------------------------------------------------------- delete, visibility */

/** Deletes all messages of a list. Results are in its order; see perf_sqs_send_batch. Since 1.0. */
PERF_API int perf_sqs_delete(perf_aws *aws, const char *queue_url,
                             const perf_sqs_messages *messages, int64_t timeout_ms,
                             perf_sqs_results **out);

/** Deletes count messages by their receipts, by 10. Since 1.0. */
PERF_API int perf_sqs_delete_receipts(perf_aws *aws, const char *queue_url,
                                      const char *const *receipts, size_t count, int64_t timeout_ms,
                                      perf_sqs_results **out);

/** From now on nobody gets these messages for visibility_s seconds, 0 to 43200; 0 gives them back.
 *  Since 1.0. */
PERF_API int perf_sqs_change_visibility(perf_aws *aws, const char *queue_url,
                                        const char *const *receipts, size_t count,
                                        int64_t visibility_s, int64_t timeout_ms,
                                        perf_sqs_results **out);

PERF_END_DECLS

#endif
