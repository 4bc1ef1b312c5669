/* SPDX-License-Identifier: MIT */
/*
 * aws_sign.c - AWS Signature Version 4, in headers or in a URL.
 *
 * Source: AWS IAM User Guide, "Create a signed AWS API request". The canonical
 * request is built in one buffer whose size is bounded before, then three
 * hashes are taken: the payload's, the canonical request's, and the HMAC of the
 * string to sign under a signing key that the keys remember. Any thread.
 */
#include "aws_sign.h"

#include <openssl/crypto.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "aws_canonical.h"
#include "aws_hash.h"
#include "aws_keys.h"

#define ALGORITHM    "AWS4-HMAC-SHA256"
#define EMPTY_HASH   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define EXTRA_PARAMS 6

/* A request with its defaults filled in, and what it comes to on the way. */
struct job {
    struct perf__aws_signing *s;
    perf_aws_keys *keys;
    const perf_aws_sign_request *request;
    const char *method, *path, *query, *region, *service, *hash;
    size_t method_len, path_len, query_len, region_len, service_len, hash_len;
    size_t names_len, values_len; /* of all headers */
    uint64_t flags;
    int64_t expires_s;
    bool url, hash_is_header;
    char *scope; /* "20150830/us-east-1/dynamodb/aws4_request" */
    size_t scope_len;
    struct perf__aws_signed_header *headers;
    size_t header_count;
    struct perf__aws_param *params;
    size_t param_count;
    char expires[16];
    struct perf__aws_text signed_headers;
};

/* --------------------------------------------------------------------- time */

static void put_digits(char *out, int64_t value, int digits)
{
    while (digits--) {
        out[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static void write_date(char *out, int64_t time_ms)
{
    int64_t seconds = time_ms / 1000, days = seconds / 86400 + 719468, rest = seconds % 86400;
    int64_t era = days / 146097, day_of_era = days % 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153, day = day_of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    put_digits(out, year_of_era + era * 400 + (month <= 2), 4);
    put_digits(out + 4, month, 2);
    put_digits(out + 6, day, 2);
    out[8] = 'T';
    put_digits(out + 9, rest / 3600, 2);
    put_digits(out + 11, rest / 60 % 60, 2);
    put_digits(out + 13, rest % 60, 2);
    memcpy(out + 15, "Z", 2);
}

/* ----------------------------------------------------------------- checking */

static bool is_word(const char *text)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '/')
            return false;
    return *text != '\0';
}

/* Headers that the signer adds would be there twice. */
static int check_headers(struct job *j)
{
    const perf_aws_sign_request *r = j->request;
    bool host = false;
    if (r->header_count > PERF__AWS_SIGN_HEADERS_MAX)
        return perf__fail(PERF_EINVAL, "header_count is %zu; at most %d", r->header_count,
                          PERF__AWS_SIGN_HEADERS_MAX);
    if (r->header_count && !r->headers)
        return perf__fail(PERF_EINVAL, "header_count is %zu, but headers is NULL", r->header_count);
    for (size_t i = 0; i < r->header_count; i++) {
        const char *name = r->headers[i].name, *value = r->headers[i].value;
        if (!name || !*name || !value)
            return perf__fail(PERF_EINVAL, "headers[%zu] has no name or no value", i);
        size_t len = strlen(name);
        j->names_len += len;
        j->values_len += strlen(value);
        for (size_t k = 0; k < len; k++)
            if ((unsigned char)name[k] <= ' ' || (unsigned char)name[k] >= 0x7f || name[k] == ':')
                return perf__fail(PERF_EINVAL, "headers[%zu].name holds what no name has", i);
        if ((name[0] | 0x20) == 'h') {
            host = host || !strcasecmp(name, "host");
        } else if ((name[0] | 0x20) == 'x' || (name[0] | 0x20) == 'a') {
            if (!strcasecmp(name, "authorization") || !strcasecmp(name, "x-amz-date") ||
                !strcasecmp(name, "x-amz-security-token"))
                return perf__fail(PERF_EINVAL,
                                  "headers hold %s, which the signer adds; leave it out", name);
            if (!strcasecmp(name, "x-amz-content-sha256")) {
                if (j->hash_is_header || r->payload_hash)
                    return perf__fail(PERF_EINVAL, "the payload's hash is given twice");
                j->hash_is_header = true;
                j->hash = value;
            }
        }
    }
    if (!host)
        return perf__fail(PERF_EINVAL, "headers have no Host; add the one that is sent");
    return PERF_OK;
}

static int check(struct job *j)
{
    const perf_aws_sign_request *r = j->request;
    j->method = r->method ? r->method : "GET";
    j->path = r->path && *r->path ? r->path : "/";
    j->query = r->query ? r->query : "";
    j->region = r->region;
    j->service = r->service;
    j->hash = r->payload_hash;
    j->url = r->form == PERF_AWS_SIGN_URL;
    if (!j->region || !is_word(j->region))
        return perf__fail(PERF_EINVAL, "region is missing or no name; give one such as us-east-1");
    if (!j->service || !is_word(j->service))
        return perf__fail(PERF_EINVAL, "service is missing or no name; give one such as dynamodb");
    if (!is_word(j->method))
        return perf__fail(PERF_EINVAL, "method is no word");
    if (j->path[0] != '/')
        return perf__fail(PERF_EINVAL, "path must begin with a slash");
    if (r->form != PERF_AWS_SIGN_HEADERS && r->form != PERF_AWS_SIGN_URL)
        return perf__fail(PERF_EINVAL, "form is %lld; use PERF_AWS_SIGN_HEADERS or _URL",
                          (long long)r->form);
    if (r->flags > 15)
        return perf__fail(PERF_EINVAL, "flags is %llu; use PERF_AWS_SIGN_... bits",
                          (unsigned long long)r->flags);
    if (r->expires_s < 0 || r->expires_s > 604800)
        return perf__fail(PERF_EINVAL, "expires_s is %lld; a URL works for 1 to 604800 seconds",
                          (long long)r->expires_s);
    if (r->payload.len && !r->payload.data)
        return perf__fail(PERF_EINVAL, "payload has a length, but no data");
    j->flags = r->flags;
    bool s3 = !j->flags && !strncmp(j->service, "s3", 2);
    if (s3)
        j->flags = PERF_AWS_SIGN_S3;
    j->expires_s = r->expires_s ? r->expires_s : 3600;
    int rc = check_headers(j);
    if (rc)
        return rc;
    if (!j->hash && j->url && (j->flags & PERF_AWS_SIGN_S3) == PERF_AWS_SIGN_S3 && !r->payload.len)
        j->hash = "UNSIGNED-PAYLOAD";
    if (j->hash && !is_word(j->hash))
        return perf__fail(PERF_EINVAL, "the payload's hash is no word");
    j->method_len = strlen(j->method);
    j->path_len = strlen(j->path);
    j->query_len = strlen(j->query);
    j->region_len = strlen(j->region);
    j->service_len = strlen(j->service);
    return PERF_OK;
}

/* --------------------------------------------------------------------- room */

/* More than all that will be written. Encoding makes three bytes of one. */
static size_t bound(const struct job *j)
{
    size_t scope = 32 + j->region_len + j->service_len;
    size_t names = j->names_len + j->request->header_count + 64;
    size_t query = 3 * j->query_len;
    if (j->url)
        query += 3 * (j->keys->id_len + 1 + scope + names + j->keys->token_len) + 256;
    size_t params = (perf__aws_params_bound(j->query) + EXTRA_PARAMS) * sizeof *j->params;
    size_t canonical = j->method_len + 3 * j->path_len + query + 2 * names + j->values_len +
                       j->request->header_count + j->keys->token_len + j->hash_len + 256;
    size_t target = j->path_len + (j->url ? query : j->query_len) + 256;
    size_t authorization = j->keys->id_len + scope + names + 160;
    return params + query + canonical + target + authorization + 3 * scope + 256;
}

static int make_room(struct job *j, struct perf__writer *w)
{
    struct perf__aws_signing *s = j->s;
    size_t need = bound(j);
    w->at = s->room;
    w->end = s->room + sizeof s->room;
    if (need > sizeof s->room) {
        s->heap = perf__alloc(s->allocator, need);
        if (!s->heap)
            return perf__fail_nomem("signing a request");
        w->at = s->heap;
        w->end = s->heap + need;
    }
    return PERF_OK;
}

/* ------------------------------------------------------------------ the parts */

static int hash_payload(struct job *j)
{
    const perf_bytes *payload = &j->request->payload;
    if (!j->hash && !payload->len) {
        j->hash = EMPTY_HASH;
    } else if (!j->hash) {
        uint8_t digest[PERF__SHA256_SIZE];
        int rc = perf__sha256(payload->data, payload->len, digest);
        if (rc)
            return rc;
        perf__hex(j->s->payload_hash, digest, sizeof digest);
        j->s->payload_hash[64] = '\0';
        j->hash = j->s->payload_hash;
    }
    j->hash_len = strlen(j->hash);
    return PERF_OK;
}

/* Ends a text with a zero byte, and says where it began. */
static struct perf__aws_text end_text(struct perf__writer *w, char *start)
{
    struct perf__aws_text text = {start, (size_t)(w->at - start)};
    perf__put_char(w, '\0');
    return text;
}

static void put_scope(struct job *j, struct perf__writer *w)
{
    j->scope = w->at;
    perf__put(w, j->s->date, 8);
    perf__put_char(w, '/');
    perf__put(w, j->region, j->region_len);
    perf__put_char(w, '/');
    perf__put(w, j->service, j->service_len);
    perf__put(w, "/aws4_request", 13);
    j->scope_len = end_text(w, j->scope).len;
}

static void add_header(struct job *j, const char *name, const char *value, size_t value_len,
                       bool is_signed)
{
    j->s->headers[j->s->header_count++] = (perf_http_header){name, value};
    if (is_signed)
        j->header_count =
            perf__aws_headers_add(j->headers, j->header_count, name, value, value_len);
}

static void collect_headers(struct job *j)
{
    const perf_aws_sign_request *r = j->request;
    j->header_count = perf__aws_headers(j->headers, r->headers, r->header_count);
    if (j->url)
        return;
    add_header(j, "X-Amz-Date", j->s->date, 16, true);
    if (j->keys->token_len)
        add_header(j, "X-Amz-Security-Token", j->keys->token, j->keys->token_len,
                   !(j->flags & PERF_AWS_SIGN_TOKEN_AFTER));
    if ((j->flags & PERF_AWS_SIGN_CONTENT_HASH) && !j->hash_is_header)
        add_header(j, "X-Amz-Content-Sha256", j->hash, j->hash_len, true);
}

static void add_param(struct job *j, const char *name, const char *value, size_t value_len)
{
    j->params[j->param_count++] = (struct perf__aws_param){name, value, strlen(name), value_len};
}

static void put_param(struct perf__writer *w, const struct perf__aws_param *p)
{
    perf__put(w, p->name, p->name_len);
    perf__put_char(w, '=');
    perf__put(w, p->value, p->value_len);
}

/* Takes the query apart and, for a URL, adds the parameters of the signature, which also go to
 * the target's end in the order that others write them in. */
static void collect_params(struct job *j, struct perf__writer *w)
{
    struct perf__aws_text *target = &j->s->target;
    j->param_count = perf__aws_params(w, j->query, j->params);
    char *token = w->at;
    if (j->url)
        perf__put_encoded(w, j->keys->token, j->keys->token_len, 0);
    size_t token_len = (size_t)(w->at - token);
    size_t first = j->param_count;
    if (j->url) {
        char *at = w->at;
        add_param(j, "X-Amz-Algorithm", ALGORITHM, sizeof ALGORITHM - 1);
        perf__put_encoded(w, j->keys->id, j->keys->id_len, 0);
        perf__put(w, "%2F", 3);
        perf__put_encoded(w, j->scope, j->scope_len, 0);
        add_param(j, "X-Amz-Credential", at, (size_t)(w->at - at));
        add_param(j, "X-Amz-Date", j->s->date, 16);
        at = w->at;
        perf__put_encoded(w, j->signed_headers.data, j->signed_headers.len, 0);
        add_param(j, "X-Amz-SignedHeaders", at, (size_t)(w->at - at));
        size_t digits = 1;
        for (int64_t n = j->expires_s; n > 9; n /= 10)
            digits++;
        put_digits(j->expires, j->expires_s, (int)digits);
        add_param(j, "X-Amz-Expires", j->expires, digits);
        if (token_len && !(j->flags & PERF_AWS_SIGN_TOKEN_AFTER))
            add_param(j, "X-Amz-Security-Token", token, token_len);
    }
    target->data = w->at;
    perf__put(w, j->path, j->path_len);
    if (j->query_len || j->url)
        perf__put_char(w, '?');
    perf__put(w, j->query, j->query_len);
    for (size_t i = first; i < j->param_count; i++) {
        if (i > first || j->query_len)
            perf__put_char(w, '&');
        put_param(w, &j->params[i]);
    }
    if (j->url && token_len && (j->flags & PERF_AWS_SIGN_TOKEN_AFTER)) {
        struct perf__aws_param after = {"X-Amz-Security-Token", token, 20, token_len};
        perf__put_char(w, '&');
        put_param(w, &after);
    }
    if (j->url) {
        perf__put(w, "&X-Amz-Signature=", 17);
        perf__put(w, EMPTY_HASH, 64); /* filled in when it is known */
    }
    *target = end_text(w, target->data);
    perf__aws_params_sort(j->params, j->param_count);
}

static void put_canonical(struct job *j, struct perf__writer *w)
{
    char *start = w->at;
    perf__put(w, j->method, j->method_len);
    perf__put_char(w, '\n');
    perf__put_canonical_path(w, j->path, j->path_len, j->flags & PERF_AWS_SIGN_RAW_PATH,
                             j->flags & PERF_AWS_SIGN_ENCODE_ONCE);
    perf__put_char(w, '\n');
    for (size_t i = 0; i < j->param_count; i++) {
        if (i)
            perf__put_char(w, '&');
        put_param(w, &j->params[i]);
    }
    perf__put_char(w, '\n');
    perf__put_canonical_headers(w, j->headers, j->header_count);
    perf__put_char(w, '\n');
    perf__put(w, j->signed_headers.data, j->signed_headers.len);
    perf__put_char(w, '\n');
    perf__put(w, j->hash, j->hash_len);
    j->s->canonical = end_text(w, start);
}

static int put_to_sign(struct job *j, struct perf__writer *w)
{
    uint8_t digest[PERF__SHA256_SIZE];
    char hex[64], *start = w->at;
    int rc = perf__sha256(j->s->canonical.data, j->s->canonical.len, digest);
    if (rc)
        return rc;
    perf__hex(hex, digest, sizeof digest);
    perf__put(w, ALGORITHM "\n", sizeof ALGORITHM);
    perf__put(w, j->s->date, 16);
    perf__put_char(w, '\n');
    perf__put(w, j->scope, j->scope_len);
    perf__put_char(w, '\n');
    perf__put(w, hex, sizeof hex);
    j->s->to_sign = end_text(w, start);
    return PERF_OK;
}

static void put_authorization(struct job *j, struct perf__writer *w)
{
    char *start = w->at;
    perf__put(w, ALGORITHM " Credential=", sizeof ALGORITHM + 11);
    perf__put(w, j->keys->id, j->keys->id_len);
    perf__put_char(w, '/');
    perf__put(w, j->scope, j->scope_len);
    perf__put(w, ", SignedHeaders=", 16);
    perf__put(w, j->signed_headers.data, j->signed_headers.len);
    perf__put(w, ", Signature=", 12);
    perf__put(w, j->s->signature, 64);
    add_header(j, "Authorization", end_text(w, start).data, 0, false);
}

/* ------------------------------------------------------------------- in whole */

static int sign_into(struct job *j, struct perf__writer *w)
{
    uint8_t key[PERF__AWS_DIGEST], digest[PERF__SHA256_SIZE];
    struct perf__aws_signing *s = j->s;
    j->params = (struct perf__aws_param *)(void *)w->at; /* room and heap are aligned for it */
    w->at += (perf__aws_params_bound(j->query) + EXTRA_PARAMS) * sizeof *j->params;
    put_scope(j, w);
    collect_headers(j);
    char *names = w->at;
    perf__put_signed_headers(w, j->headers, j->header_count);
    j->signed_headers = end_text(w, names);
    collect_params(j, w);
    put_canonical(j, w);
    int rc = put_to_sign(j, w);
    if (!rc)
        rc = perf__aws_signing_key(j->keys, j->scope, j->region_len, j->service_len, key);
    if (!rc)
        rc = perf__hmac_sha256(key, sizeof key, s->to_sign.data, s->to_sign.len, digest);
    OPENSSL_cleanse(key, sizeof key);
    if (rc)
        return rc;
    perf__hex(s->signature, digest, sizeof digest);
    s->signature[64] = '\0';
    if (!w->bad && j->url)
        memcpy(s->target.data + s->target.len - 64, s->signature, 64);
    if (!j->url)
        put_authorization(j, w);
    return w->bad ? perf__fail(PERF_ETOOBIG, "the request is too large to be signed") : PERF_OK;
}

int perf__aws_sign(struct perf__aws_signing *s, const perf_allocator *allocator,
                   perf_aws_keys *keys, const perf_aws_sign_request *request, int64_t now_ms)
{
    struct perf__aws_signed_header headers[PERF__AWS_SIGN_HEADERS_MAX + 4];
    struct job j;
    struct perf__writer w = {0};
    memset(&j, 0, sizeof j);
    j.s = s;
    j.keys = keys;
    j.request = request;
    j.headers = headers;
    s->allocator = allocator;
    s->heap = NULL;
    s->header_count = 0;
    s->used = 0;
    int64_t time_ms = request->time_ms ? request->time_ms : now_ms;
    if (time_ms < 0 || time_ms > 253402300799999)
        return perf__fail(PERF_EINVAL, "time_ms is %lld; give milliseconds since 1970",
                          (long long)time_ms);
    int rc = check(&j);
    if (rc)
        return rc;
    if (keys->expires_ms && keys->expires_ms <= time_ms)
        return perf__fail(PERF_EACCESS, "the credentials have expired; get new ones");
    write_date(s->date, time_ms);
    rc = hash_payload(&j);
    if (!rc)
        rc = make_room(&j, &w);
    if (!rc)
        rc = sign_into(&j, &w);
    if (keys->token_len) /* the only secret in there */
        s->used = (size_t)(w.at - (s->heap ? s->heap : s->room));
    if (rc)
        perf__aws_signing_end(s);
    return rc;
}

void perf__aws_signing_end(struct perf__aws_signing *s)
{
    if (s->used)
        explicit_bzero(s->heap ? s->heap : s->room, s->used); /* kilobytes: the faster of two */
    perf__free(s->allocator, s->heap);
    s->heap = NULL;
    s->used = 0;
}
