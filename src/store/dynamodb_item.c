/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_item.c - what items look like: keys that people can read, and attributes.
 *
 * A record's partition key is "namespace|user|key" with a few bytes percent-encoded,
 * so that it can be computed and read by anybody; only a key too long for the
 * service is replaced by its hash. What is read comes from strangers: every number
 * is bounded before it is believed. Pure functions; any thread.
 */
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "dynamodb.h"

/* --------------------------------------------------------------------- keys */

static bool is_plain(unsigned char c)
{
    return c > ' ' && c <= '~' && c != '"' && c != '%' && c != '\\' && c != '|';
}

/* Bytes as text that needs no escapes in JSON. Returns the length that it takes; what does not fit
 * into size - 1 is not written, and then the text is not to be used. */
static size_t escape(perf_bytes bytes, char *out, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    const unsigned char *from = bytes.data;
    size_t n = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        size_t need = is_plain(from[i]) ? 1 : 3;
        if (n + need < size) {
            out[n] = need == 1 ? (char)from[i] : '%';
            if (need == 3) {
                out[n + 1] = digits[from[i] >> 4];
                out[n + 2] = digits[from[i] & 15];
            }
        }
        n += need;
    }
    if (size)
        out[n < size ? n : size - 1] = 0;
    return n;
}

/* "%#" and the SHA-256 of bytes: no escaped text begins so. */
static void put_hash(perf_bytes bytes, char *out)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    SHA256(bytes.data, bytes.len, hash);
    out += sprintf(out, "%%#");
    for (size_t i = 0; i < sizeof hash; i++)
        out += sprintf(out, "%02x", hash[i]);
}

/* A part of a key in at most max bytes and a zero byte; returns its length. max >= HASH_TEXT. */
enum { HASH_TEXT = 2 + 2 * SHA256_DIGEST_LENGTH, NAME_TEXT = 255 };

static size_t put_part(perf_bytes bytes, char *out, size_t max)
{
    if (escape(bytes, out, max + 1) > max)
        put_hash(bytes, out);
    return strlen(out);
}

void perf__dynamodb_key(const struct dynamodb_store *s, const perf_store_key *key,
                        struct dynamodb_key *out)
{
    size_t n = strlen(s->prefix);
    memcpy(out->text, s->prefix, n);
    n += put_part(key->ns, out->text + n, NAME_TEXT);
    out->text[n++] = '|';
    n += put_part(key->user, out->text + n, NAME_TEXT);
    out->text[n++] = '|';
    out->len = n + put_part(key->key, out->text + n, DYNAMODB_KEY_MAX - n);
}

void perf__dynamodb_marks_key(const struct dynamodb_store *s, struct dynamodb_key *out)
{
    out->len = (size_t)snprintf(out->text, sizeof out->text, "%s!marks", s->prefix);
}

void perf__dynamodb_mark_sort(int64_t kind, perf_bytes name, char *sort)
{
    size_t n = (size_t)sprintf(sort, "%" PRId64 "|", kind);
    put_part(name, sort + n, DYNAMODB_SORT_MAX - n);
}

void perf__dynamodb_news_sort(int64_t stamp_ms, int64_t kind, perf_bytes name, char *sort)
{
    size_t n = (size_t)sprintf(sort, "~%019" PRId64 "|", stamp_ms > 0 ? stamp_ms : 0);
    if (!kind)
        return;
    n += (size_t)sprintf(sort + n, "%" PRId64 "|", kind);
    put_part(name, sort + n, DYNAMODB_SORT_MAX - n);
}

/* ------------------------------------------------------------------ reading */

static bool is(struct perf__json name, const char *text)
{
    size_t len = strlen(text);
    return name.len == len && !memcmp(name.at, text, len);
}

/* {"N":"12"} */
static bool number(struct perf__json attribute, uint64_t *out)
{
    struct perf__json text;
    return perf__json_find(attribute, "N", '"', &text) && perf__json_uint(text, out);
}

static bool is_over(uint64_t expires_s, int64_t now_ms)
{
    return expires_s && expires_s <= (uint64_t)(now_ms > 0 ? now_ms : 0) / 1000;
}

/* Exactly as many hexadecimal digits as a version has. */
static bool read_version(struct perf__json attribute, char *out)
{
    struct perf__json text;
    *out = 0;
    if (!perf__json_find(attribute, "S", '"', &text) || text.len != DYNAMODB_VERSION + 2)
        return false;
    perf__json_short(text, out, DYNAMODB_VERSION + 1);
    return strspn(out, "0123456789abcdef") == DYNAMODB_VERSION;
}

void perf__dynamodb_item_read(struct perf__json item, int64_t now_ms, struct dynamodb_item *out)
{
    struct perf__json name, value, text;
    size_t at = 0;
    uint64_t format = 0, expires = 0;
    bool fine = true, has_record = false, has_size = false;
    memset(out, 0, sizeof *out);
    while (perf__json_next(item, &at, &name, &value)) {
        bool good = true;
        if (is(name, "record")) {
            has_record = good = perf__json_find(value, "B", '"', &out->record);
        } else if (is(name, "format")) {
            good = number(value, &format);
        } else if (is(name, "expires")) {
            good = number(value, &expires);
        } else if (is(name, "size")) {
            has_size = good = number(value, &out->size);
        } else if (is(name, "packed")) {
            out->zstd = good = perf__json_find(value, "S", '"', &text) && is(text, "\"zstd\"");
        } else if (is(name, "chunks")) {
            good = number(value, &out->chunks) && out->chunks;
        } else if (is(name, "packed_size")) {
            good = number(value, &out->packed_size);
        } else if (is(name, "version")) {
            good = read_version(value, out->version);
        }
        fine = fine && good;
    }
    bool has_chunks = out->chunks || *out->version || out->packed_size;
    if (fine && (is_over(expires, now_ms) || (!has_record && !has_chunks)))
        return; /* ITEM_NONE */
    out->kind = ITEM_DAMAGED;
    if (!fine || format != DYNAMODB_FORMAT || !has_size || out->size > DYNAMODB_RECORD_MAX ||
        has_record == has_chunks)
        return;
    /* No chunk is empty, and none larger than an item can be. */
    if (has_chunks &&
        (!*out->version || !out->chunks || out->chunks > DYNAMODB_CHUNKS_MAX ||
         out->packed_size < out->chunks || out->packed_size > out->chunks * DYNAMODB_ITEM_ROOM))
        return;
    out->kind = has_record ? ITEM_WHOLE : ITEM_CHUNKED;
}

void perf__dynamodb_item_key(struct perf__json item, const char *name, char *out, size_t size)
{
    struct perf__json attribute, text;
    *out = 0;
    if (perf__json_find(item, name, '{', &attribute) &&
        perf__json_find(attribute, "S", '"', &text) && text.len <= size)
        perf__json_text(text, out); /* writes at most text.len - 1 bytes, its zero included */
}

int perf__dynamodb_bytes(const perf_allocator *a, struct perf__json base64, uint8_t **out,
                         size_t *len)
{
    uint8_t *data = perf__alloc(a, base64.len + 1);
    if (!data)
        return perf__fail_nomem("a record read from DynamoDB");
    size_t text = perf__json_text(base64, (char *)data);
    if (!perf__base64_read((const char *)data, text, data, len)) {
        perf__free(a, data);
        return perf__fail(PERF_ECORRUPT, "a binary attribute is no base64");
    }
    *out = data;
    return PERF_OK;
}

int perf__dynamodb_mark_read(const perf_allocator *a, struct perf__json item, int64_t now_ms,
                             int64_t *kind, uint8_t **name, size_t *name_len, int64_t *stamp_ms)
{
    struct perf__json attribute, text;
    uint64_t k, stamp, expires = 0;
    if (perf__json_find(item, "expires", '{', &attribute) &&
        (!number(attribute, &expires) || is_over(expires, now_ms)))
        return PERF_MISS;
    if (!perf__json_find(item, "kind", '{', &attribute) || !number(attribute, &k) ||
        !perf__json_find(item, "stamp", '{', &attribute) || !number(attribute, &stamp) ||
        k > INT64_MAX || stamp > INT64_MAX || !perf__json_find(item, "name", '{', &attribute) ||
        !perf__json_find(attribute, "B", '"', &text))
        return PERF_MISS;
    *kind = (int64_t)k;
    *stamp_ms = (int64_t)stamp;
    int rc = perf__dynamodb_bytes(a, text, name, name_len);
    return rc == PERF_ECORRUPT ? PERF_MISS : rc;
}

/* ------------------------------------------------------------------ writing */

int64_t perf__dynamodb_expires(int64_t expire_ms, int64_t now_ms)
{
    int64_t last = now_ms / 1000 + (int64_t)DYNAMODB_RECORD_DAYS * 86400;
    int64_t wanted = expire_ms / 1000 + (expire_ms % 1000 != 0);
    return expire_ms <= 0 || wanted > last ? last : wanted;
}

static void put_text(struct perf__text *t, const char *name, const char *text)
{
    perf__text_putf(t, "\"%s\":{\"S\":\"", name);
    perf__text_puts(t, text);
    perf__text_puts(t, "\"}");
}

static void put_number(struct perf__text *t, const char *name, int64_t number_)
{
    perf__text_putf(t, ",\"%s\":{\"N\":\"%" PRId64 "\"}", name, number_);
}

static void put_bytes(struct perf__text *t, const char *name, const void *data, size_t len)
{
    perf__text_putf(t, ",\"%s\":{\"B\":\"", name);
    perf__text_put_base64(t, data, len);
    perf__text_puts(t, "\"}");
}

/* Without the closing brace. */
static void put_keys(struct perf__text *t, const char *pk, const char *sk)
{
    perf__text_puts(t, "{");
    put_text(t, "pk", pk);
    perf__text_puts(t, ",");
    put_text(t, "sk", sk);
}

void perf__dynamodb_put_key(struct perf__text *t, const char *pk, const char *sk)
{
    put_keys(t, pk, sk);
    perf__text_puts(t, "}");
}

/* What the indexes find: as it is in the partition key. */
static void put_name(struct perf__text *t, const struct dynamodb_store *s, const char *attribute,
                     perf_bytes name)
{
    char text[sizeof s->prefix + NAME_TEXT];
    size_t n = strlen(s->prefix);
    if (!name.len)
        return;
    memcpy(text, s->prefix, n);
    put_part(name, text + n, NAME_TEXT);
    perf__text_puts(t, ",");
    put_text(t, attribute, text);
}

void perf__dynamodb_put_head(struct perf__text *t, const struct dynamodb_store *s, const char *pk,
                             const perf_store_key *key, const struct dynamodb_record *record,
                             int64_t now_ms)
{
    put_keys(t, pk, "0");
    put_name(t, s, "ns", key->ns);
    put_name(t, s, "user", key->user);
    put_number(t, "format", DYNAMODB_FORMAT);
    put_number(t, "size", (int64_t)record->size);
    put_number(t, "written", now_ms);
    put_number(t, "expires", record->expires_s);
    if (record->zstd)
        perf__text_puts(t, ",\"packed\":{\"S\":\"zstd\"}");
    if (record->chunks) {
        put_number(t, "chunks", (int64_t)record->chunks);
        put_number(t, "packed_size", (int64_t)record->body.len);
        perf__text_puts(t, ",");
        put_text(t, "version", record->version);
    } else {
        put_bytes(t, "record", record->body.data, record->body.len);
    }
    perf__text_puts(t, "}");
}

/* "1|version|00007" */
static const char *chunk_sort(const char *version, size_t number_, char out[40])
{
    snprintf(out, 40, "1|%.16s|%05zu", version, number_);
    return out;
}

void perf__dynamodb_put_chunk(struct perf__text *t, const char *pk,
                              const struct dynamodb_record *record, size_t number_)
{
    char sort[40];
    size_t from = number_ * DYNAMODB_CHUNK, left = record->body.len - from;
    put_keys(t, pk, chunk_sort(record->version, number_, sort));
    put_number(t, "expires", record->expires_s);
    put_bytes(t, "record", (const uint8_t *)record->body.data + from,
              left < DYNAMODB_CHUNK ? left : DYNAMODB_CHUNK);
    perf__text_puts(t, "}");
}

void perf__dynamodb_put_chunk_key(struct perf__text *t, const char *pk, const char *version,
                                  size_t number_)
{
    char sort[40];
    perf__dynamodb_put_key(t, pk, chunk_sort(version, number_, sort));
}
