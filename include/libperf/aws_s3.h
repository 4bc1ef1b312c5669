/* SPDX-License-Identifier: MIT */
/*
 * aws_s3.h - objects in S3: in memory, as streams, in parts, by the thousand.
 *
 * In four lines:
 *
 *     perf_aws *s3;
 *     perf_aws_reply *reply;
 *     perf_aws_shared("s3", &s3);
 *     perf_s3_put(s3, "bucket", "a/key", data, len, 0);
 *     perf_s3_get(s3, "bucket", "a/key", 0, &reply);     // PERF_MISS: no such key
 *
 * perf_s3_upload sends files of any size in parallel parts and says how far it
 * is; perf_s3_list walks over buckets; perf_s3_presign makes links.
 *
 * Caveats first
 *  - Threads: a client serves any number of threads; an iterator one at a time.
 *    read, write and rewind of requests run on the HTTP client's I/O thread or
 *    inside the blocking call; read and progress of perf_s3_upload in the thread
 *    that called it.
 *  - Errors are those of perf_aws_call. PERF_MISS is said of keys; a bucket that
 *    is not there is PERF_EREMOTE, and perf_aws_error_code() "NoSuchBucket".
 *  - Buckets are put into the host name on AWS's own endpoints and where their
 *    names allow that; else (dots in the name, endpoint_url) into the path.
 *  - Integrity: what is sent from memory and in parts carries a CRC-32 that S3
 *    verifies and keeps; what is got as a whole is compared with it. Payloads are
 *    signed over plain http, and left to TLS over https. A stream over plain http
 *    is read twice, first to be hashed, unless its hash is given.
 *  - Keys and other texts are UTF-8 and are percent-encoded here: do not do so.
 */
#ifndef LIBPERF_AWS_S3_H
#define LIBPERF_AWS_S3_H

#include <libperf/aws.h>

PERF_BEGIN_DECLS

/* ------------------------------------------------------------------ the simple */

/** Gets an object into memory, up to 64 MiB, within timeout_ms (0: the client's). The caller
 *  releases *out. Since 1.0. */
PERF_API int perf_s3_get(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms,
                         perf_aws_reply **out);

/** Puts len bytes, up to 5 GiB. Since 1.0. */
PERF_API int perf_s3_put(perf_aws *s3, const char *bucket, const char *key, const void *data,
                         size_t len, int64_t timeout_ms);

/** Asks for an object's headers: Content-Length, ETag, Last-Modified, x-amz-meta-... PERF_MISS: no
 *  such key (or, for S3 does not say, no such bucket). The caller releases *out. Since 1.0. */
PERF_API int perf_s3_head(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms,
                          perf_aws_reply **out);

/** Deletes an object; that it is not there is no error. Since 1.0. */
PERF_API int perf_s3_delete(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms);

/**
 * Deletes count objects, a thousand by one request, each within timeout_ms. *failed (may be NULL)
 * receives how many were not deleted. PERF_EREMOTE, or a refusal's own code, when S3 kept some;
 * the sentence names the first of them. Since 1.0.
 */
PERF_API int perf_s3_delete_many(perf_aws *s3, const char *bucket, const char *const *keys,
                                 size_t count, int64_t timeout_ms, size_t *failed);

/** Copies an object of up to 5 GiB within S3, with its headers. Since 1.0. */
PERF_API int perf_s3_copy(perf_aws *s3, const char *from_bucket, const char *from_key,
                          const char *to_bucket, const char *to_key, int64_t timeout_ms);

/* --------------------------------------------------------------------- get, put */

/** How to get. Zero in a field means the default. */
typedef struct perf_s3_get_options {
    size_t struct_size;
    const char *version_id;    /**< default: the newest */
    const char *if_none_match; /**< an ETag with its quotes: an object that still has it is not
                                    sent, and perf_aws_reply_status says 304 */
    const char *if_match;      /**< PERF_ECONFLICT unless the object has this ETag */
    uint64_t offset;           /**< first byte wanted */
    uint64_t length;           /**< how many; default: to the end */
    perf_http_write_fn write;  /**< gets the bytes in order, instead of memory. A transfer that
                                    breaks goes on where it was, if the object is still the same */
    void *write_ctx;
    uint64_t max_body_bytes;         /**< without write; default 64 MiB */
    int64_t timeout_ms;              /**< for all of it; default the client's */
    const perf_http_header *headers; /**< any others */
    size_t header_count;             /**< at most 48 */
} perf_s3_get_options;
#define PERF_S3_GET_OPTIONS_INIT                                     \
    {                                                                \
        sizeof(perf_s3_get_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Gets an object, or a part of it. *out is the last reply, whose headers tell about the object; its
 * body is empty with write. options may be NULL.
 * Errors also: PERF_ECORRUPT (not what its checksum was made of; write has seen it by then);
 * PERF_ETOOBIG; write's own. Since 1.0.
 */
PERF_API int perf_s3_get_object(perf_aws *s3, const char *bucket, const char *key,
                                const perf_s3_get_options *options, perf_aws_reply **out);

/** How and what to put. Zero in a field means the default. */
typedef struct perf_s3_put_options {
    size_t struct_size;
    perf_bytes body;           /**< in memory; borrowed for the call */
    perf_http_read_fn read;    /**< instead of body: asked for it piece by piece */
    void *read_ctx;            /**< for read and rewind */
    int64_t read_len;          /**< bytes that read will give */
    perf_aws_rewind_fn rewind; /**< begins anew; NULL: what has begun is not tried again */
    const char *payload_hash;  /**< of what read will give, hexadecimal SHA-256: spares the first
                                    reading over plain http. "UNSIGNED-PAYLOAD": https only */
    const char *content_type;  /**< default application/octet-stream, which is S3's */
    const char *if_none_match; /**< "*": PERF_ECONFLICT if the key is there */
    const char *if_match;      /**< PERF_ECONFLICT unless the object has this ETag */
    const perf_http_header *headers; /**< any others: Cache-Control, x-amz-meta-..., x-amz-acl */
    size_t header_count;             /**< at most 48 */
    int64_t timeout_ms;              /**< default the client's */
} perf_s3_put_options;
#define PERF_S3_PUT_OPTIONS_INIT                                             \
    {                                                                        \
        sizeof(perf_s3_put_options), {0, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Puts an object by one request, up to 5 GiB. out may be NULL; else the caller releases *out,
 * which has the ETag. Errors also: PERF_EINVAL (a stream over plain http with neither rewind nor
 *  payload_hash); read's own. Since 1.0. */
PERF_API int perf_s3_put_object(perf_aws *s3, const char *bucket, const char *key,
                                const perf_s3_put_options *options, perf_aws_reply **out);

/* ----------------------------------------------------------------------- upload */

/** How far an upload is; total -1: not known. PERF_OK, or a negative code, which ends the upload
 *  with it. The thread that uploads; a few times a second. */
typedef int (*perf_s3_progress_fn)(void *ctx, int64_t sent, int64_t total);

/** What and how to upload. Zero in a field means the default. */
typedef struct perf_s3_upload_options {
    size_t struct_size;
    perf_http_read_fn read; /**< gives the next bytes; required. It may block */
    void *read_ctx;         /**< for read */
    int64_t total;          /**< bytes to be read; -1: up to its end */
    uint64_t part_bytes;    /**< at least 5 MiB; default 8 MiB, or more so that 10,000 parts are
                                 enough */
    int64_t max_in_flight;  /**< parts at once, each in memory; 1 to 64, default 4 */
    int64_t timeout_ms;     /**< for all of it; default none. A part has the client's */
    perf_s3_progress_fn progress;
    void *progress_ctx;
    const char *content_type;
    const perf_http_header *headers; /**< any others: Cache-Control, x-amz-meta-..., x-amz-acl */
    size_t header_count;             /**< at most 48 */
} perf_s3_upload_options;
#define PERF_S3_UPLOAD_OPTIONS_INIT                                     \
    {                                                                   \
        sizeof(perf_s3_upload_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/**
 * Uploads an object of up to 5 TiB: up to one part by a single request, more in parallel parts of
 * which max_in_flight are in memory. What fails is taken back, so that no parts stay to be paid
 * for; if even that fails, the sentence has the upload's id. out may be NULL; else it receives the
 * last reply, to be released.
 * Errors also: PERF_ETOOBIG; PERF_EINVAL (read ended before total bytes); read's and
 * progress's own. Since 1.0.
 */
PERF_API int perf_s3_upload(perf_aws *s3, const char *bucket, const char *key,
                            const perf_s3_upload_options *options, perf_aws_reply **out);

/* ------------------------------------------------------------------------- list */

/** A walk over a bucket's objects. */
typedef struct perf_s3_list perf_s3_list;

/** Which objects. Zero in a field means the default. */
typedef struct perf_s3_list_options {
    size_t struct_size;
    const char *prefix;      /**< only keys that begin so */
    const char *delimiter;   /**< such as "/": what has it behind the prefix is one common prefix */
    const char *start_after; /**< only keys behind this one */
    int64_t page_size;       /**< objects by one request, 1 to 1000; default 1000 */
    int64_t timeout_ms;      /**< of one request; default the client's */
} perf_s3_list_options;
#define PERF_S3_LIST_OPTIONS_INIT                   \
    {                                               \
        sizeof(perf_s3_list_options), 0, 0, 0, 0, 0 \
    }

/** An object, or a common prefix. Valid until the iterator is asked again or closed. */
typedef struct perf_s3_entry {
    size_t struct_size;
    const char *key;           /**< or the prefix, its delimiter included */
    int64_t is_prefix;         /**< 1: a common prefix, and the rest is zero */
    uint64_t size;             /**< bytes */
    const char *etag;          /**< with its quotes; "" */
    int64_t modified_ms;       /**< milliseconds since 1970 UTC */
    const char *storage_class; /**< such as "STANDARD"; "" */
} perf_s3_entry;
#define PERF_S3_ENTRY_INIT                      \
    {                                           \
        sizeof(perf_s3_entry), 0, 0, 0, 0, 0, 0 \
    }

/** Begins a walk; options may be NULL. Asks nobody yet. The client must outlive it. Since 1.0. */
PERF_API int perf_s3_list_open(perf_aws *s3, const char *bucket,
                               const perf_s3_list_options *options, perf_s3_list **out);

/** The next entry, in the order of keys within each page, objects first; PERF_MISS: there are no
 *  more. After another error the same page may be asked for again. Since 1.0. */
PERF_API int perf_s3_list_next(perf_s3_list *list, perf_s3_entry *entry);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_s3_list_close(perf_s3_list *list);

/* ---------------------------------------------------------------------- presign */

/**
 * Makes a link by which anybody may GET, PUT, HEAD or DELETE an object for expires_s seconds, 1 to
 * 604800, or until the keys that sign it end. url, of size bytes, receives it; 4096 are enough for
 * most. Errors: PERF_ETOOSMALL; PERF_EINVAL; those of perf_aws_credentials_get. Since 1.0.
 */
PERF_API int perf_s3_presign(perf_aws *s3, const char *method, const char *bucket, const char *key,
                             int64_t expires_s, char *url, size_t size);

PERF_END_DECLS

#endif
