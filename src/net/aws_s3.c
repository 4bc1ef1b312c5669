/* SPDX-License-Identifier: MIT */
/*
 * aws_s3.c - a request to S3: where a bucket goes, how a key is encoded, which
 * checksums a body wears; and the operations that are one request.
 *
 * Sources: Amazon S3 API Reference; "Checking object integrity" of its user
 * guide. Any thread.
 */
#include "aws_s3.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "../base/alloc.h"
#include "../base/fork.h"
#include "../base/status.h"
#include "aws_hash.h"
#include "aws_xml.h"

/* -------------------------------------------------------------------- a request */

static int check_bucket(const char *bucket)
{
    size_t len = bucket ? strnlen(bucket, PERF__S3_BUCKET_MAX + 1) : 0;
    int rc = perf__check_len("bucket", len, 1, PERF__S3_BUCKET_MAX);
    for (size_t i = 0; !rc && i < len; i++) {
        unsigned char b = (unsigned char)bucket[i];
        if (!((b | 32) >= 'a' && (b | 32) <= 'z') && !(b >= '0' && b <= '9') && !strchr(".-_", b))
            rc = perf__fail(PERF_EINVAL,
                            "the bucket's name has the byte 0x%02x at %zu; letters, digits, '-', "
                            "'.' and '_' are what they have",
                            b, i);
    }
    if (!rc && (!strcmp(bucket, ".") || !strcmp(bucket, "..")))
        rc = perf__fail(PERF_EINVAL, "'%s' is no bucket's name", bucket);
    return rc;
}

/* May the name stand before the host? TLS certificates of AWS cover one label. */
static bool is_host_label(const char *bucket)
{
    size_t len = strlen(bucket);
    if (len < 3 || len > 63 || bucket[0] == '-' || bucket[len - 1] == '-')
        return false;
    return strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int perf__s3_begin(struct perf__s3_call *c, perf_aws *s3, const char *operation, const char *method,
                   const char *bucket, const char *key)
{
    static const perf_aws_request none = PERF_AWS_REQUEST_INIT;
    if (!s3)
        return perf__fail(PERF_EINVAL, "the client is NULL; open one for the service \"s3\"");
    if (s3->fork_generation != perf__fork_generation)
        return perf__fail_forked();
    if (strncmp(s3->signing_name, "s3", 2) != 0 || s3->service.protocol != PERF_AWS_PROTOCOL_REST)
        return perf__fail(PERF_EINVAL, "the client is one of %s; open one for the service \"s3\"",
                          s3->name);
    int rc = check_bucket(bucket);
    if (!rc && key)
        rc = perf__check_len("key", strnlen(key, PERF__S3_KEY_MAX + 1), 1, PERF__S3_KEY_MAX);
    if (rc)
        return rc;
    c->aws = s3;
    c->rc = PERF_OK;
    c->request = none;
    c->request.operation = operation;
    c->request.method = method;
    c->request.path = c->path;
    c->request.headers = c->headers;
    c->query =
        (struct perf__writer){c->query_text, c->query_text + sizeof c->query_text - 1, false};
    c->host_prefix[0] = 0;
    struct perf__writer w = {c->path, c->path + sizeof c->path - 1, false};
    perf__put_char(&w, '/');
    if (!s3->own_endpoint && is_host_label(bucket)) {
        snprintf(c->host_prefix, sizeof c->host_prefix, "%s.", bucket);
        c->request.host_prefix = c->host_prefix;
    } else {
        perf__put(&w, bucket, strlen(bucket));
        if (key)
            perf__put_char(&w, '/');
    }
    if (key)
        perf__put_encoded(&w, key, strlen(key), PERF__KEEP_SLASH);
    *w.at = 0;
    return PERF_OK;
}

void perf__s3_header(struct perf__s3_call *c, const char *name, const char *value)
{
    if (!value)
        return;
    if (c->request.header_count == PERF__S3_HEADERS) {
        c->rc = perf__fail(PERF_EINVAL, "there are more than %d headers", PERF__S3_HEADERS);
        return;
    }
    c->headers[c->request.header_count++] = (perf_http_header){name, value};
}

void perf__s3_headers(struct perf__s3_call *c, const perf_http_header *headers, size_t count)
{
    if (count > PERF__S3_GIVEN_HEADERS || (count && !headers)) {
        c->rc = perf__fail(PERF_EINVAL, "header_count is %zu%s; give 0 to %d", count,
                           headers ? "" : ", and headers NULL", PERF__S3_GIVEN_HEADERS);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (!headers[i].name || !headers[i].value) {
            c->rc = perf__fail(PERF_EINVAL, "headers[%zu] has a NULL; give a name and a value", i);
            return;
        }
        perf__s3_header(c, headers[i].name, headers[i].value);
    }
}

void perf__s3_query(struct perf__s3_call *c, const char *name, const char *value)
{
    if (!value)
        return;
    if (c->query.at != c->query_text)
        perf__put_char(&c->query, '&');
    perf__put_encoded(&c->query, name, strlen(name), 0);
    perf__put_char(&c->query, '=');
    perf__put_encoded(&c->query, value, strlen(value), 0);
}

void perf__s3_crc_text(uint32_t crc, char out[PERF__S3_CRC_TEXT])
{
    const uint8_t bytes[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                              (uint8_t)crc};
    EVP_EncodeBlock((unsigned char *)out, bytes, 4);
}

int perf__s3_body(struct perf__s3_call *c, const void *data, size_t len)
{
    uint8_t digest[PERF__SHA256_SIZE];
    if (len && !data)
        return perf__fail(PERF_EINVAL, "the data are NULL, and their length is %zu", len);
    perf__s3_crc_text((uint32_t)crc32_z(0, len ? data : (const void *)"", len), c->crc);
    perf__s3_header(c, "x-amz-sdk-checksum-algorithm", "CRC32");
    perf__s3_header(c, "x-amz-checksum-crc32", c->crc);
    c->request.body = (perf_bytes){data, len};
    c->request.payload_hash = "UNSIGNED-PAYLOAD";
    if (c->aws->https)
        return PERF_OK;
    int rc = perf__sha256(len ? data : "", len, digest);
    perf__hex(c->hash, digest, sizeof digest);
    c->hash[PERF__S3_DIGEST_TEXT - 1] = 0;
    c->request.payload_hash = c->hash;
    return rc;
}

int perf__s3_end(struct perf__s3_call *c)
{
    *c->query.at = 0;
    c->request.query = c->query_text;
    if (!c->rc && c->query.bad)
        c->rc = perf__fail(PERF_EINVAL, "the texts of the request are too long for a URL");
    return c->rc;
}

int perf__s3_send(struct perf__s3_call *c, perf_aws_reply **out)
{
    perf_aws_reply *reply = NULL;
    int rc = perf__s3_end(c);
    if (!rc)
        rc = perf_aws_perform(c->aws, &c->request, &reply);
    if (rc)
        return rc;
    if (out)
        *out = reply;
    else
        perf_aws_reply_release(reply);
    return PERF_OK;
}

int perf__s3_check_reply(perf_aws *s3, const char *operation, const perf_aws_reply *reply)
{
    struct perf__aws_error error;
    perf__aws_error_read(&s3->service, reply->http, NULL, 0, &error);
    if (!*error.code)
        return PERF_OK;
    perf__aws_error_remember(&error);
    return perf__fail(perf__aws_error_status_of(&error),
                      "s3 %s: %s: %s (within HTTP %lld, request %s)", operation, error.code,
                      error.message, (long long)error.status, error.request_id);
}

/* --------------------------------------------------------------- one request each */

int perf_s3_get(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms,
                perf_aws_reply **out)
{
    perf_s3_get_options o = PERF_S3_GET_OPTIONS_INIT;
    o.timeout_ms = timeout_ms;
    return perf_s3_get_object(s3, bucket, key, &o, out);
}

int perf_s3_put(perf_aws *s3, const char *bucket, const char *key, const void *data, size_t len,
                int64_t timeout_ms)
{
    perf_s3_put_options o = PERF_S3_PUT_OPTIONS_INIT;
    o.body = (perf_bytes){data, len};
    o.timeout_ms = timeout_ms;
    return perf_s3_put_object(s3, bucket, key, &o, NULL);
}

static int check_key(const char *key)
{
    return key ? PERF_OK : perf__fail(PERF_EINVAL, "the key is NULL");
}

int perf_s3_head(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms,
                 perf_aws_reply **out)
{
    struct perf__s3_call c;
    int rc = check_key(key);
    if (!rc && !out)
        rc = perf__fail(PERF_EINVAL, "perf_s3_head needs a place for the reply");
    if (!rc)
        rc = perf__s3_begin(&c, s3, "HeadObject", "HEAD", bucket, key);
    if (rc)
        return rc;
    c.request.timeout_ms = timeout_ms;
    return perf__s3_send(&c, out);
}

int perf_s3_delete(perf_aws *s3, const char *bucket, const char *key, int64_t timeout_ms)
{
    struct perf__s3_call c;
    int rc = check_key(key);
    if (!rc)
        rc = perf__s3_begin(&c, s3, "DeleteObject", "DELETE", bucket, key);
    if (rc)
        return rc;
    c.request.timeout_ms = timeout_ms;
    rc = perf__s3_send(&c, NULL);
    return rc == PERF_MISS ? PERF_OK : rc;
}

int perf_s3_copy(perf_aws *s3, const char *from_bucket, const char *from_key, const char *to_bucket,
                 const char *to_key, int64_t timeout_ms)
{
    struct perf__s3_call c, from;
    perf_aws_reply *reply = NULL;
    char source[sizeof c.path + PERF__S3_BUCKET_MAX];
    int rc = from_key ? check_key(to_key) : check_key(from_key);
    if (!rc)
        rc = perf__s3_begin(&from, s3, "CopyObject", "PUT", from_bucket, from_key);
    if (!rc)
        rc = perf__s3_begin(&c, s3, "CopyObject", "PUT", to_bucket, to_key);
    if (rc)
        return rc;
    if (*from.host_prefix)
        snprintf(source, sizeof source, "/%s%s", from_bucket, from.path);
    else
        snprintf(source, sizeof source, "%s", from.path);
    perf__s3_header(&c, "x-amz-copy-source", source);
    c.request.timeout_ms = timeout_ms;
    rc = perf__s3_send(&c, &reply);
    if (!rc)
        rc = perf__s3_check_reply(s3, "CopyObject", reply);
    perf_aws_reply_release(reply);
    return rc;
}

/* ------------------------------------------------------------------- delete many */

enum { DELETE_MAX = 1000 };

struct kept {
    size_t count;
    struct perf__aws_error first;
    char key[65];
    char last_key[65], last_code[96], last_message[256];
};

static void copy_text(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        out[n] = (unsigned char)text[n] < ' ' || text[n] == 127 ? '?' : text[n];
    out[n] = 0;
}

static int on_deleted(void *ctx, const char *path, const char *text, size_t len)
{
    struct kept *k = ctx;
    (void)len;
    if (!strcmp(path, "DeleteResult/Error/Key")) {
        copy_text(k->last_key, sizeof k->last_key, text);
    } else if (!strcmp(path, "DeleteResult/Error/Code")) {
        copy_text(k->last_code, sizeof k->last_code, text);
    } else if (!strcmp(path, "DeleteResult/Error/Message")) {
        copy_text(k->last_message, sizeof k->last_message, text);
    } else if (!strcmp(path, "DeleteResult/Error")) {
        if (!k->count++) {
            memcpy(k->key, k->last_key, sizeof k->key);
            memcpy(k->first.code, k->last_code, sizeof k->first.code);
            memcpy(k->first.message, k->last_message, sizeof k->first.message);
        }
    }
    return PERF_OK;
}

static int delete_some(perf_aws *s3, const char *bucket, const char *const *keys, size_t count,
                       int64_t timeout_ms, struct kept *kept)
{
    static const char head[] =
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>";
    static const char open[] = "<Object><Key>", close[] = "</Key></Object>", tail[] = "</Delete>";
    struct perf__s3_call c;
    perf_aws_reply *reply = NULL;
    size_t size = sizeof head + sizeof tail;
    int rc = perf__s3_begin(&c, s3, "DeleteObjects", "POST", bucket, NULL);
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++)
        size += sizeof open + sizeof close + perf__xml_escape(NULL, keys[i]);
    char *body = perf__alloc(&s3->host.allocator, size);
    if (!body)
        return perf__fail_nomem("a list of keys to delete");
    char *at = stpcpy(body, head);
    for (size_t i = 0; i < count; i++) {
        at = stpcpy(at, open);
        at += perf__xml_escape(at, keys[i]);
        at = stpcpy(at, close);
    }
    at = stpcpy(at, tail);
    perf__s3_query(&c, "delete", "");
    perf__s3_header(&c, "content-type", "application/xml");
    c.request.timeout_ms = timeout_ms;
    rc = perf__s3_body(&c, body, (size_t)(at - body));
    if (!rc)
        rc = perf__s3_send(&c, &reply);
    if (!rc)
        rc = perf__xml_read(&s3->host.allocator, "S3's answer to DeleteObjects",
                            perf_aws_reply_body(reply), perf_aws_reply_size(reply), on_deleted,
                            kept);
    perf_aws_reply_release(reply);
    perf__free(&s3->host.allocator, body);
    return rc;
}

int perf_s3_delete_many(perf_aws *s3, const char *bucket, const char *const *keys, size_t count,
                        int64_t timeout_ms, size_t *failed)
{
    struct kept kept = {0};
    size_t done = 0;
    int rc = PERF_OK;
    if (count && !keys)
        return perf__fail(PERF_EINVAL, "perf_s3_delete_many needs keys");
    for (size_t i = 0; i < count; i++) {
        rc = keys[i] ? perf__check_len("key", strnlen(keys[i], PERF__S3_KEY_MAX + 1), 1,
                                       PERF__S3_KEY_MAX)
                     : perf__fail(PERF_EINVAL, "keys[%zu] is NULL", i);
        if (rc)
            return rc;
    }
    while (!rc && done < count) {
        size_t n = count - done < DELETE_MAX ? count - done : DELETE_MAX;
        rc = delete_some(s3, bucket, keys + done, n, timeout_ms, &kept);
        done += rc ? 0 : n;
    }
    if (failed)
        *failed = count - done + kept.count;
    if (rc || !kept.count)
        return rc;
    kept.first.status = 200;
    perf__aws_error_remember(&kept.first);
    return perf__fail(perf__aws_error_status_of(&kept.first),
                      "s3 DeleteObjects: %zu of %zu were kept; '%s': %s: %s", kept.count, count,
                      kept.key, kept.first.code, kept.first.message);
}

/* ----------------------------------------------------------------------- presign */

int perf_s3_presign(perf_aws *s3, const char *method, const char *bucket, const char *key,
                    int64_t expires_s, char *url, size_t size)
{
    struct perf__s3_call c;
    perf_aws_sign_request r = PERF_AWS_SIGN_REQUEST_INIT;
    perf_aws_keys *keys = NULL;
    perf_aws_signature *signature = NULL;
    char host[640];
    int rc = check_key(key);
    if (!rc && (!url || !method ||
                (strcmp(method, "GET") != 0 && strcmp(method, "PUT") != 0 &&
                 strcmp(method, "HEAD") != 0 && strcmp(method, "DELETE") != 0)))
        rc = perf__fail(PERF_EINVAL, "perf_s3_presign needs a place for the link, and as method "
                                     "GET, PUT, HEAD or DELETE");
    if (!rc)
        rc = perf__check_range("expires_s", expires_s, 1, 604800);
    if (!rc)
        rc = perf__s3_begin(&c, s3, "Presign", method, bucket, key);
    if (!rc)
        rc = perf_aws_credentials_get(s3->credentials, 0, &keys);
    if (rc)
        return rc;
    snprintf(host, sizeof host, "%s%s", c.host_prefix, s3->endpoint_host);
    const perf_http_header header = {"host", host};
    r.method = method;
    r.path = c.path;
    r.headers = &header;
    r.header_count = 1;
    r.region = s3->signing_region;
    r.service = s3->signing_name;
    r.form = PERF_AWS_SIGN_URL;
    r.expires_s = expires_s;
    r.flags = PERF_AWS_SIGN_S3;
    r.host = &s3->host.view;
    r.payload_hash = "UNSIGNED-PAYLOAD";
    r.time_ms = s3->host.clock.realtime_ms(s3->host.clock.ctx) + atomic_load(&s3->skew_ms);
    rc = perf_aws_sign(keys, &r, &signature);
    if (!rc) {
        int len = snprintf(url, size, "%.*s%s%s", (int)(s3->endpoint_host - s3->endpoint),
                           s3->endpoint, host, perf_aws_signature_target(signature));
        if (len < 0 || (size_t)len >= size) {
            if (size)
                memset(url, 0, size);
            rc = perf__fail(PERF_ETOOSMALL, "the link has %d bytes and a zero, and size is %zu",
                            len, size);
        }
    }
    perf_aws_signature_release(signature);
    perf_aws_keys_release(keys);
    return rc;
}
