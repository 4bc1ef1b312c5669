/* SPDX-License-Identifier: MIT */
/*
 * aws_s3.h - what S3's files share: a request being made, and the checksums.
 *
 *     struct perf__s3_call c;
 *     rc = perf__s3_begin(&c, s3, "PutObject", "PUT", bucket, key);
 *     perf__s3_header(&c, "content-type", type);
 *     perf__s3_query(&c, "partNumber", "1");
 *     rc = perf__s3_send(&c, &reply);
 *
 * Everything lies in the struct, which is not to be moved; mistakes are kept
 * until it is sent. One thread's.
 */
#ifndef PERF_NET_AWS_S3_H
#define PERF_NET_AWS_S3_H

#include <libperf/aws_s3.h>

#include "aws_canonical.h"
#include "aws_client.h"

enum {
    PERF__S3_KEY_MAX = 1024,
    PERF__S3_BUCKET_MAX = 255,
    PERF__S3_HEADERS = 64,
    PERF__S3_GIVEN_HEADERS = 48,
    PERF__S3_DIGEST_TEXT = 65,
    PERF__S3_CRC_TEXT = 12,
};

struct perf__s3_call {
    perf_aws *aws;
    perf_aws_request request;
    perf_http_header headers[PERF__S3_HEADERS];
    struct perf__writer query;
    int rc;
    char host_prefix[PERF__S3_BUCKET_MAX + 2];
    char hash[PERF__S3_DIGEST_TEXT], crc[PERF__S3_CRC_TEXT];
    char path[3 * (PERF__S3_KEY_MAX + PERF__S3_BUCKET_MAX) + 4];
    char query_text[16384];
};

/** key NULL: the bucket itself. */
int perf__s3_begin(struct perf__s3_call *c, perf_aws *s3, const char *operation, const char *method,
                   const char *bucket, const char *key);
/** value NULL: none. Both are borrowed. */
void perf__s3_header(struct perf__s3_call *c, const char *name, const char *value);
/** The caller's own, with the field's name for errors. */
void perf__s3_headers(struct perf__s3_call *c, const perf_http_header *headers, size_t count);
/** value NULL: none; "": the name alone. It is copied. */
void perf__s3_query(struct perf__s3_call *c, const char *name, const char *value);
/** A body in memory: with its CRC-32, and over plain http signed. data must stay. */
int perf__s3_body(struct perf__s3_call *c, const void *data, size_t len);
/** Makes c->request ready. */
int perf__s3_end(struct perf__s3_call *c);
int perf__s3_send(struct perf__s3_call *c, perf_aws_reply **out);

/** A 200 may hold an error: then its code. PERF_OK otherwise. */
int perf__s3_check_reply(perf_aws *s3, const char *operation, const perf_aws_reply *reply);

/** Base64 of a CRC-32, as in x-amz-checksum-crc32. */
void perf__s3_crc_text(uint32_t crc, char out[PERF__S3_CRC_TEXT]);

#endif
