/* SPDX-License-Identifier: MIT */
/*
 * aws_s3_object.c - getting and putting one object, in memory or as a stream.
 *
 * A download that breaks after its first byte goes on with a Range where it
 * was, under If-Match of the ETag it began with, so that two versions are never
 * mixed. That goes on as long as each attempt brings something; attempts that
 * bring nothing are the client's own to repeat. Any thread.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "../base/alloc.h"
#include "../base/clock.h"
#include "../base/status.h"
#include "aws_hash.h"
#include "aws_s3.h"

/* --------------------------------------------------------------------------- get */

struct download {
    perf_http_write_fn write;
    void *ctx;
    uint64_t begin; /* of the object, where the caller's first byte is */
    uint64_t got;   /* bytes that write has seen */
    bool fresh;     /* this attempt has brought nothing yet */
    bool whole;     /* a GET without a range, whose checksum can be compared */
    int failed;     /* write's own code */
    uint32_t crc;
    char expected[PERF__S3_CRC_TEXT]; /* "": not known */
    char etag[160];
};

/* Keeps S3's CRC-32 of the whole object, if it is one: those made of parts end with "-<parts>". */
static void keep_checksum(char *out, const char *text)
{
    out[0] = 0;
    if (text && strlen(text) == 8 && !strchr(text, '-'))
        memcpy(out, text, 9);
}

static int begin_piece(struct download *d, const perf_http_reply *reply)
{
    const char *range = perf_http_reply_header(reply, "content-range");
    unsigned long long first, wanted = d->begin + d->got;
    if (d->got == 0) {
        const char *etag = perf_http_reply_header(reply, "etag");
        snprintf(d->etag, sizeof d->etag, "%s", etag && strlen(etag) < sizeof d->etag ? etag : "");
        if (d->whole)
            keep_checksum(d->expected, perf_http_reply_header(reply, "x-amz-checksum-crc32"));
    }
    if (wanted == 0 && perf_http_reply_status(reply) == 200)
        return PERF_OK;
    if (perf_http_reply_status(reply) != 206 || !range ||
        sscanf(range, "bytes %19llu-", &first) != 1 || first != wanted)
        return perf__fail(PERF_EPROTOCOL, "S3 was asked for byte %llu and answered with others",
                          wanted);
    return PERF_OK;
}

static int on_bytes(void *ctx, const perf_http_reply *reply, const void *data, size_t len)
{
    struct download *d = ctx;
    if (d->fresh) {
        d->failed = begin_piece(d, reply);
        if (d->failed)
            return d->failed;
        d->fresh = false;
    }
    if (*d->expected)
        d->crc = (uint32_t)crc32_z(d->crc, data, len);
    d->failed = d->write(d->ctx, reply, data, len);
    d->got += len;
    return d->failed;
}

static int check_crc(const char *expected, uint32_t crc, const char *bucket)
{
    char found[PERF__S3_CRC_TEXT];
    perf__s3_crc_text(crc, found);
    if (!*expected || !strcmp(expected, found))
        return PERF_OK;
    return perf__fail(PERF_ECORRUPT, "an object of '%.64s' has the CRC-32 %s, and S3 says %s",
                      bucket, found, expected);
}

static bool goes_on(const struct download *d, int rc)
{
    bool broke = rc == PERF_EIO || rc == PERF_EPROTOCOL || rc == PERF_ETIMEDOUT ||
                 rc == PERF_EUNAVAILABLE || rc == PERF_ETLS;
    return broke && !d->failed && !d->fresh && *d->etag;
}

static int send_get(perf_aws *s3, const char *bucket, const char *key, const perf_s3_get_options *o,
                    struct download *d, int64_t timeout_ms, perf_aws_reply **out)
{
    struct perf__s3_call c;
    char range[64];
    int rc = perf__s3_begin(&c, s3, "GetObject", "GET", bucket, key);
    if (rc)
        return rc;
    uint64_t first = d->begin + d->got;
    if (o->length)
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)first,
                 (unsigned long long)(o->offset + o->length - 1));
    else
        snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)first);
    perf__s3_query(&c, "versionId", o->version_id);
    perf__s3_header(&c, "range", first || o->length ? range : NULL);
    perf__s3_header(&c, "x-amz-checksum-mode", d->whole ? "ENABLED" : NULL);
    perf__s3_header(&c, "if-match", d->got ? d->etag : o->if_match);
    perf__s3_header(&c, "if-none-match", d->got ? NULL : o->if_none_match);
    perf__s3_headers(&c, o->headers, o->header_count);
    c.request.timeout_ms = timeout_ms;
    c.request.max_body_bytes = o->max_body_bytes;
    if (o->write) {
        c.request.write = on_bytes;
        c.request.write_ctx = d;
        d->fresh = true;
    }
    return perf__s3_send(&c, out);
}

int perf_s3_get_object(perf_aws *s3, const char *bucket, const char *key,
                       const perf_s3_get_options *options, perf_aws_reply **out)
{
    perf_s3_get_options o;
    perf_aws_reply *reply = NULL;
    int rc = perf__options_take("perf_s3_get_options", options, &o, sizeof o);
    if (!rc && (!s3 || !key || !out))
        rc = perf__fail(PERF_EINVAL, "perf_s3_get_object needs a client, a key and a place for the "
                                     "reply");
    if (!rc)
        rc = perf__check_range("timeout_ms", o.timeout_ms, 0, INT64_MAX / 1000000);
    if (!rc && (o.offset > INT64_MAX / 2 || o.length > INT64_MAX / 2))
        rc = perf__fail(PERF_EINVAL, "offset or length is larger than any object");
    if (rc)
        return rc;
    struct download d = {.write = o.write, .ctx = o.write_ctx, .begin = o.offset};
    d.whole = !o.offset && !o.length;
    int64_t timeout_ms = o.timeout_ms ? o.timeout_ms : s3->timeout_ms, left = timeout_ms;
    int64_t begun_ms = perf__now_ms(&s3->host.clock);
    do {
        rc = send_get(s3, bucket, key, &o, &d, left, &reply);
        left = timeout_ms - (perf__now_ms(&s3->host.clock) - begun_ms);
    } while (rc && left > 0 && goes_on(&d, rc));
    if (rc)
        return d.got && rc == PERF_MISS /* it was deleted meanwhile */
                   ? perf__fail(PERF_ECONFLICT, "the object is gone, after %llu bytes of it",
                                (unsigned long long)d.got)
                   : rc;
    if (!o.write && d.whole && perf_aws_reply_status(reply) == 200) {
        keep_checksum(d.expected, perf_aws_reply_header(reply, "x-amz-checksum-crc32"));
        if (*d.expected)
            d.crc = (uint32_t)crc32_z(0, perf_aws_reply_body(reply), perf_aws_reply_size(reply));
    }
    rc = check_crc(d.expected, d.crc, bucket);
    if (rc)
        perf_aws_reply_release(reply);
    else
        *out = reply;
    return rc;
}

/* --------------------------------------------------------------------------- put */

/* Reads the stream once for its hash and checksum. */
static int hash_stream(const perf_s3_put_options *o, struct perf__s3_call *c)
{
    enum { PIECE = 65536 };
    const perf_allocator *a = &c->aws->host.allocator;
    uint8_t *piece = perf__alloc(a, PIECE), digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    uint32_t crc = 0;
    int64_t left = o->read_len, n = 0;
    int rc = PERF_OK;
    if (!piece || !sha || EVP_DigestInit_ex(sha, EVP_sha256(), NULL) != 1) {
        rc = perf__fail_nomem("the hash of a stream");
        goto out;
    }
    while (left > 0 && (n = o->read(o->read_ctx, piece, left < PIECE ? (size_t)left : PIECE)) > 0) {
        if (n > left || n > PIECE || EVP_DigestUpdate(sha, piece, (size_t)n) != 1) {
            rc = perf__fail(PERF_EINVAL, "read gave more bytes than it was asked for");
            goto out;
        }
        crc = (uint32_t)crc32_z(crc, piece, (size_t)n);
        left -= n;
    }
    if (n < 0) {
        rc = n < INT32_MIN ? PERF_EIO : (int)n;
    } else if (left) {
        rc = perf__fail(PERF_EINVAL, "read ended %lld bytes before read_len", (long long)left);
    } else if (EVP_DigestFinal_ex(sha, digest, NULL) != 1) {
        rc = perf__fail_nomem("the hash of a stream");
    } else {
        perf__hex(c->hash, digest, PERF__SHA256_SIZE);
        c->hash[PERF__S3_DIGEST_TEXT - 1] = 0;
        c->request.payload_hash = c->hash;
        perf__s3_crc_text(crc, c->crc);
        perf__s3_header(c, "x-amz-sdk-checksum-algorithm", "CRC32");
        perf__s3_header(c, "x-amz-checksum-crc32", c->crc);
        rc = o->rewind(o->read_ctx);
    }
out:
    EVP_MD_CTX_free(sha);
    perf__free(a, piece);
    return rc;
}

static int put_stream(const perf_s3_put_options *o, struct perf__s3_call *c)
{
    int rc = perf__check_range("read_len", o->read_len, 0, INT64_MAX);
    if (!rc && o->body.len)
        rc = perf__fail(PERF_EINVAL, "perf_s3_put_options has body and read; give one of them");
    if (rc)
        return rc;
    c->request.read = o->read;
    c->request.read_ctx = o->read_ctx;
    c->request.read_len = o->read_len;
    c->request.rewind = o->rewind;
    c->request.payload_hash = o->payload_hash ? o->payload_hash : "UNSIGNED-PAYLOAD";
    if (c->aws->https)
        return PERF_OK;
    if (!o->payload_hash && o->rewind)
        return hash_stream(o, c);
    if (!o->payload_hash || !strcmp(o->payload_hash, "UNSIGNED-PAYLOAD"))
        return perf__fail(PERF_EINVAL,
                          "over plain http the payload must be signed; give rewind, so that the "
                          "stream can be hashed first, or its SHA-256 as payload_hash");
    return PERF_OK;
}

int perf_s3_put_object(perf_aws *s3, const char *bucket, const char *key,
                       const perf_s3_put_options *options, perf_aws_reply **out)
{
    perf_s3_put_options o;
    struct perf__s3_call c;
    int rc = perf__options_take("perf_s3_put_options", options, &o, sizeof o);
    if (!rc && !key)
        rc = perf__fail(PERF_EINVAL, "the key is NULL");
    if (!rc)
        rc = perf__s3_begin(&c, s3, "PutObject", "PUT", bucket, key);
    if (rc)
        return rc;
    perf__s3_header(&c, "content-type",
                    o.content_type ? o.content_type : "application/octet-stream");
    perf__s3_header(&c, "if-match", o.if_match);
    perf__s3_header(&c, "if-none-match", o.if_none_match);
    perf__s3_headers(&c, o.headers, o.header_count);
    rc = o.read ? put_stream(&o, &c) : perf__s3_body(&c, o.body.data, o.body.len);
    if (rc)
        return rc;
    c.request.timeout_ms = o.timeout_ms;
    return perf__s3_send(&c, out);
}
