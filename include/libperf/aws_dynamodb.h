/* SPDX-License-Identifier: MIT */
/*
 * aws_dynamodb.h - what of DynamoDB is worth more than one call: batches of any
 * size, and a table of bytes under keys.
 *
 *     perf_dynamodb_table_options o = PERF_DYNAMODB_TABLE_OPTIONS_INIT;
 *     o.aws = ddb, o.table = "sessions", o.key_name = "id";
 *     o.value_name = "data", o.ttl_name = "expires";
 *     perf_dynamodb_table_open(&o, &table);
 *     perf_dynamodb_table_put(table, "u7", 2, NULL, 0, data, len, NULL, NULL);
 *     perf_dynamodb_table_get(table, "u7", 2, NULL, 0, &value);
 *
 * Everything else is perf_aws_call (aws.h) with DynamoDB's own JSON.
 *
 * Any thread may call anything at any time, except close and release. Handles
 * must be closed before the client. fork(): calls return PERF_EFORKED.
 */
#ifndef LIBPERF_AWS_DYNAMODB_H
#define LIBPERF_AWS_DYNAMODB_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/* ------------------------------------------------------------------ batches */

/** What a batch came to: items, and what was not done. Immutable; valid until released. */
typedef struct perf_dynamodb_batch perf_dynamodb_batch;

/** Options of a batch. Zero in a field means the default. */
typedef struct perf_dynamodb_batch_options {
    size_t struct_size;
    int64_t consistent;     /**< get; 1: strongly consistent reads, which cost twice */
    const char *projection; /**< get: a ProjectionExpression; default all attributes */
    const char *names;      /**< get: its ExpressionAttributeNames, a JSON object */
    int64_t timeout_ms;     /**< for everything together; default: the client's */
} perf_dynamodb_batch_options;
#define PERF_DYNAMODB_BATCH_OPTIONS_INIT                \
    {                                                   \
        sizeof(perf_dynamodb_batch_options), 0, 0, 0, 0 \
    }

/**
 * Fetches count items of a table by their keys, each a JSON object such as {"id":{"S":"a"}}; no key
 * twice. They are asked for by 100; what the service leaves out is asked for again, with growing
 * pauses, until the time is over. options may be NULL.
 *
 * *out is set also when something failed after the first request: it then holds what came, and
 * what is left; otherwise it is NULL. The caller releases it. Items come in any order; one that is
 * not there is not among them.
 * Errors: PERF_ETHROTTLED or PERF_ETIMEDOUT (the time is over, and keys are left), and those of
 * perf_aws_call. Since 1.0.
 */
PERF_API int perf_dynamodb_batch_get(perf_aws *aws, const char *table, const perf_bytes *keys,
                                     size_t count, const perf_dynamodb_batch_options *options,
                                     perf_dynamodb_batch **out);

/**
 * Puts and deletes count items of a table. Each request is a JSON object such as
 * {"PutRequest":{"Item":{...}}} or {"DeleteRequest":{"Key":{...}}}; no key twice. They are sent by
 * 25, or fewer to stay below 16 MB; the rest is as for perf_dynamodb_batch_get. A batch is no
 * transaction: when it fails, part of it may be written. Since 1.0.
 */
PERF_API int perf_dynamodb_batch_write(perf_aws *aws, const char *table, const perf_bytes *requests,
                                       size_t count, const perf_dynamodb_batch_options *options,
                                       perf_dynamodb_batch **out);

/** How many items came; 0 for a write. Since 1.0. */
PERF_API size_t perf_dynamodb_batch_count(const perf_dynamodb_batch *batch);

/** The JSON of an item as the service sent it, no zero byte behind; NULL beyond the last. Since
 *  1.0. */
PERF_API const char *perf_dynamodb_batch_item(const perf_dynamodb_batch *batch, size_t i,
                                              size_t *len);

/** How many keys or requests were not done; 0 after success. Since 1.0. */
PERF_API size_t perf_dynamodb_batch_left_count(const perf_dynamodb_batch *batch);

/** The JSON of one of them. Since 1.0. */
PERF_API const char *perf_dynamodb_batch_left(const perf_dynamodb_batch *batch, size_t i,
                                              size_t *len);

/** How many requests it took. Since 1.0. */
PERF_API int64_t perf_dynamodb_batch_requests(const perf_dynamodb_batch *batch);

/** Capacity units that were consumed, in thousandths. Since 1.0. */
PERF_API int64_t perf_dynamodb_batch_millicapacity(const perf_dynamodb_batch *batch);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_dynamodb_batch_release(perf_dynamodb_batch *batch);

/* ------------------------------------------------------------ table of bytes */

/** A table, and which attribute is what. */
typedef struct perf_dynamodb_table perf_dynamodb_table;

/** What a get found. Immutable; valid until released. */
typedef struct perf_dynamodb_value perf_dynamodb_value;

/** How keys are kept. */
enum {
    PERF_DYNAMODB_STRING = 0, /**< text, which must be UTF-8 */
    PERF_DYNAMODB_BINARY = 1  /**< any bytes */
};

/** How to open a table. All is copied, but for aws. */
typedef struct perf_dynamodb_table_options {
    size_t struct_size;
    perf_aws *aws;            /**< a client of "dynamodb"; must outlive the handle; required */
    const char *table;        /**< its name; required */
    const char *key_name;     /**< the partition key; required */
    const char *sort_name;    /**< the sort key; NULL: the table has none */
    const char *value_name;   /**< the value's bytes; default "value" */
    const char *ttl_name;     /**< when it ends, in seconds since 1970, as DynamoDB's own TTL wants
                                   it; NULL: nothing ends */
    const char *version_name; /**< a number that every write changes; NULL: no conditional writes
                                   but PERF_DYNAMODB_IF_ABSENT */
    int64_t key_type;         /**< of both keys: PERF_DYNAMODB_... */
    int64_t consistent;       /**< 1: gets are strongly consistent */
    int64_t timeout_ms;       /**< of a call; default: the client's */
} perf_dynamodb_table_options;
#define PERF_DYNAMODB_TABLE_OPTIONS_INIT                                  \
    {                                                                     \
        sizeof(perf_dynamodb_table_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Opens a table; asks nobody. Errors: PERF_EINVAL; PERF_ENOMEM. Since 1.0. */
PERF_API int perf_dynamodb_table_open(const perf_dynamodb_table_options *options,
                                      perf_dynamodb_table **out);

/** No call on it may be under way. NULL is allowed. Since 1.0. */
PERF_API void perf_dynamodb_table_close(perf_dynamodb_table *table);

/**
 * Reads a value; sort is NULL and 0 for a table without sort key. An item whose time is over is a
 * miss, even while the service has not deleted it. The caller releases *out.
 * PERF_MISS; PERF_ECORRUPT: an item that is not of this shape; errors of perf_aws_call. Since 1.0.
 */
PERF_API int perf_dynamodb_table_get(perf_dynamodb_table *table, const void *key, size_t key_len,
                                     const void *sort, size_t sort_len, perf_dynamodb_value **out);

/** What a write depends on. */
enum {
    PERF_DYNAMODB_ALWAYS = 0,    /**< nothing */
    PERF_DYNAMODB_IF_ABSENT = 1, /**< there is no item, or its time is over */
    PERF_DYNAMODB_IF_VERSION = 2 /**< the item is there, not over, and has that version */
};

/** Options of a put and a delete. Zero in a field means the default. */
typedef struct perf_dynamodb_put_options {
    size_t struct_size;
    int64_t ttl_s;     /**< put: seconds until it ends; 0: never */
    int64_t condition; /**< PERF_DYNAMODB_...; default ALWAYS */
    int64_t version;   /**< for IF_VERSION */
} perf_dynamodb_put_options;
#define PERF_DYNAMODB_PUT_OPTIONS_INIT             \
    {                                              \
        sizeof(perf_dynamodb_put_options), 0, 0, 0 \
    }

/**
 * Writes a value, replacing the whole item. A version is a random number, not the next one: so a
 * write whose reply was lost and that was sent again is told from somebody else's.
 * options may be NULL; so may new_version, which receives what version the item has now (0 without
 * version_name). PERF_ECONFLICT: the condition did not hold; PERF_ETOOBIG: more than the
 * 400 KiB of an item; errors of perf_aws_call. Since 1.0.
 */
PERF_API int perf_dynamodb_table_put(perf_dynamodb_table *table, const void *key, size_t key_len,
                                     const void *sort, size_t sort_len, const void *value,
                                     size_t value_len, const perf_dynamodb_put_options *options,
                                     int64_t *new_version);

/** Deletes an item; that there is none is success, but for IF_VERSION. options may be NULL.
 *  Errors as perf_dynamodb_table_put. Since 1.0. */
PERF_API int perf_dynamodb_table_delete(perf_dynamodb_table *table, const void *key, size_t key_len,
                                        const void *sort, size_t sort_len,
                                        const perf_dynamodb_put_options *options);

/** The bytes. Since 1.0. */
PERF_API const void *perf_dynamodb_value_data(const perf_dynamodb_value *value);

/** Their number. Since 1.0. */
PERF_API size_t perf_dynamodb_value_size(const perf_dynamodb_value *value);

/** Its version; 0 if it has none. Since 1.0. */
PERF_API int64_t perf_dynamodb_value_version(const perf_dynamodb_value *value);

/** When it ends, in seconds since 1970; 0: never. Since 1.0. */
PERF_API int64_t perf_dynamodb_value_ends_s(const perf_dynamodb_value *value);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_dynamodb_value_release(perf_dynamodb_value *value);

PERF_END_DECLS

#endif
