/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_blob.c - payloads and results of any length.
 *
 * A write costs by the whole item, and a task is written several times: so only what is
 * short is in its record. Longer bytes lie beside it, in items of their own that are
 * written once, before the record that names them, and have a random name: a
 * record never names what is not whole. How they are kept is a text: "r" or "z" (packed by
 * zstd), their size, and for those beside "r 900000 900000 3 0123456789abcdef": size as
 * stored, number of chunks, name. What nobody names any more goes by its time to live.
 * Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "../store/dynamodb_pack.h"
#include "queue_dynamodb.h"

enum { GRACE_DAYS = 400, SK_SIZE = 48 };

/* What a text says. */
struct how {
    bool zstd;
    uint64_t size, stored, chunks, name;
};

static bool read_how(const char *text, struct how *h)
{
    *h = (struct how){0};
    char kind = 0;
    int n = sscanf(text, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNx64, &kind, &h->size,
                   &h->stored, &h->chunks, &h->name);
    h->zstd = kind == 'z';
    if ((n != 2 && n != 5) || (kind != 'r' && kind != 'z') || h->size > BYTES_MAX)
        return false;
    return n == 2 || (h->stored && h->stored <= BYTES_MAX && h->chunks &&
                      (h->stored + CHUNK - 1) / CHUNK == h->chunks);
}

static void chunk_sk(uint64_t name, uint64_t number, char sk[SK_SIZE])
{
    snprintf(sk, SK_SIZE, "1|%016" PRIx64 "|%05" PRIu64, name, number);
}

int64_t perf__queue_dynamodb_expires(int64_t from_ms, int64_t keep_ms)
{
    int64_t keep_s = keep_ms / 1000, century = INT64_C(100) * 366 * 86400;
    return from_ms / 1000 + (keep_s < century ? keep_s : century) + (int64_t)GRACE_DAYS * 86400;
}

/* ---------------------------------------------------------------------- writing */

static void put_chunk(const struct dynamodb_queue *q, struct perf__text *t, const char *id,
                      const char *sk, const char *data, size_t len, int64_t expires_s)
{
    perf__text_putf(t, "{\"TableName\":\"%s\",\"Item\":{", q->tasks);
    perf__queue_dynamodb_put_pk(t, q, "t|", id);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, "sk", sk);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_n(t, "expires", expires_s);
    perf__text_puts(t, ",\"data\":{\"B\":\"");
    perf__text_put_base64(t, data, len);
    perf__text_puts(t, "\"}}}");
}

/* Some at a time, so that not all of a long one is in memory a second time. */
static int write_chunks(struct dynamodb_queue *q, const char *id, perf_bytes stored, uint64_t name,
                        int64_t expires_s, int64_t deadline_ns)
{
    enum { AT_ONCE = 4 };
    const char *data = stored.data;
    size_t chunks = (stored.len + CHUNK - 1) / CHUNK;
    int rc = PERF_OK;
    for (size_t from = 0; from < chunks && !rc; from += AT_ONCE) {
        size_t n = chunks - from < AT_ONCE ? chunks - from : AT_ONCE;
        struct perf__aws_flown *r = perf__calloc(&q->allocator, n, sizeof *r);
        if (!r)
            return perf__fail_nomem("a long payload");
        for (size_t i = 0; i < n; i++) {
            size_t at = (from + i) * CHUNK;
            char sk[SK_SIZE];
            chunk_sk(name, from + i, sk);
            r[i].operation = "PutItem";
            r[i].body.allocator = &q->allocator;
            put_chunk(q, &r[i].body, id, sk, data + at,
                      stored.len - at < CHUNK ? stored.len - at : CHUNK, expires_s);
        }
        rc = perf__queue_dynamodb_fly(q, r, n, deadline_ns);
        for (size_t i = 0; i < n && !rc; i++)
            if (r[i].rc)
                rc = perf__queue_dynamodb_say(&r[i]);
        perf__aws_flown_free(&q->allocator, r, n);
    }
    return rc;
}

int perf__queue_dynamodb_blob(struct dynamodb_queue *q, const char *id, perf_bytes bytes,
                              int64_t expires_s, int64_t deadline_ns, struct blob *out)
{
    size_t packed_len = 0;
    *out = (struct blob){.stored = bytes};
    if (bytes.len > BYTES_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "%zu bytes are more than the %d that a payload or result may have in "
                          "the queue \"dynamodb\"; put them elsewhere and give their name",
                          bytes.len, BYTES_MAX);
    if (q->packs && bytes.len)
        perf__dynamodb_pack(&q->allocator, bytes, &out->packed, &packed_len);
    if (out->packed)
        out->stored = (perf_bytes){out->packed, packed_len};
    char kind = out->packed ? 'z' : 'r';
    if (out->stored.len <= INLINE_MAX) {
        if (out->packed)
            snprintf(out->how, sizeof out->how, "z %zu", bytes.len);
        return PERF_OK;
    }
    uint64_t name = perf__hash_random_key().k0;
    snprintf(out->how, sizeof out->how, "%c %zu %zu %zu %016" PRIx64, kind, bytes.len,
             out->stored.len, (out->stored.len + CHUNK - 1) / CHUNK, name);
    int rc = write_chunks(q, id, out->stored, name, expires_s, deadline_ns);
    if (rc)
        perf__queue_dynamodb_blob_free(q, out);
    else
        out->stored = (perf_bytes){NULL, 0};
    return rc;
}

void perf__queue_dynamodb_blob_free(struct dynamodb_queue *q, struct blob *b)
{
    perf__free(&q->allocator, b->packed);
    b->packed = NULL;
}

/* ---------------------------------------------------------------------- reading */

/* A reply's chunk into its place. */
static int take_chunk(struct dynamodb_queue *q, const char *id, const struct perf__aws_flown *r,
                      uint8_t *to, size_t len)
{
    struct perf__json item, attribute, data;
    size_t got = 0;
    if (r->rc)
        return perf__queue_dynamodb_say(r);
    if (!perf__json_find(r->all, "Item", '{', &item) ||
        !perf__json_find(item, "data", '{', &attribute) ||
        !perf__json_find(attribute, "B", '"', &data))
        return perf__queue_dynamodb_damaged(id, "payload or result");
    uint8_t *bytes = perf__alloc(&q->allocator, data.len);
    if (!bytes)
        return perf__fail_nomem("a long payload");
    bool fine = perf__base64_read(data.at + 1, data.len - 2, bytes, &got) && got == len;
    if (fine)
        memcpy(to, bytes, len);
    perf__free(&q->allocator, bytes);
    return fine ? PERF_OK : perf__queue_dynamodb_damaged(id, "payload or result");
}

static int read_chunks(struct dynamodb_queue *q, const char *id, const struct how *h, uint8_t *to,
                       int64_t deadline_ns)
{
    size_t n = h->chunks;
    struct perf__aws_flown *r = perf__calloc(&q->allocator, n, sizeof *r);
    if (!r)
        return perf__fail_nomem("a long payload");
    for (size_t i = 0; i < n; i++) {
        char sk[SK_SIZE];
        chunk_sk(h->name, i, sk);
        r[i].operation = "GetItem";
        r[i].body.allocator = &q->allocator;
        perf__queue_dynamodb_put_key(&r[i].body, q, true, "t|", id, sk);
        perf__text_puts(&r[i].body, ",\"ConsistentRead\":true}");
    }
    int rc = perf__queue_dynamodb_fly(q, r, n, deadline_ns);
    for (size_t i = 0; i < n && !rc; i++) {
        size_t at = i * CHUNK, left = h->stored - at;
        rc = take_chunk(q, id, &r[i], to + at, left < CHUNK ? left : CHUNK);
    }
    perf__aws_flown_free(&q->allocator, r, n);
    return rc;
}

int perf__queue_dynamodb_load(struct dynamodb_queue *q, struct record *r, int which,
                              int64_t deadline_ns)
{
    perf_bytes *out = which == PAYLOAD ? &r->t.payload : &r->t.result;
    perf_bytes stored = r->stored[which];
    struct how h;
    uint8_t *own = NULL;
    *out = stored.len ? stored : (perf_bytes){"", 0};
    if (!r->how[which][0])
        return PERF_OK;
    if (!read_how(r->how[which], &h))
        return perf__queue_dynamodb_damaged(r->t.id, "payload_as or result_as");
    if (h.chunks) {
        own = perf__alloc(&q->allocator, h.stored);
        if (!own)
            return perf__fail_nomem("a long payload");
        int rc = read_chunks(q, r->t.id, &h, own, deadline_ns);
        if (rc) {
            perf__free(&q->allocator, own);
            return rc;
        }
        stored = (perf_bytes){own, h.stored};
    }
    if (h.zstd) {
        uint8_t *bytes = NULL;
        int rc = perf__dynamodb_unpack(&q->allocator, stored.data, stored.len, h.size, &bytes);
        perf__free(&q->allocator, own);
        if (rc)
            return rc;
        own = bytes;
        stored = (perf_bytes){own, h.size};
    }
    perf__free(&q->allocator, r->loaded[which]);
    r->loaded[which] = own;
    *out = stored;
    return PERF_OK;
}

size_t perf__queue_dynamodb_size(const struct record *r)
{
    size_t size = 0;
    for (size_t i = PAYLOAD; i <= RESULT; i++) {
        struct how h;
        size += r->how[i][0] && read_how(r->how[i], &h) ? h.size : r->stored[i].len;
    }
    return size;
}

void perf__queue_dynamodb_drop(struct dynamodb_queue *q, const char *id, const char *how,
                               int64_t deadline_ns)
{
    struct how h;
    if (!how[0] || !read_how(how, &h) || !h.chunks)
        return;
    struct perf__aws_flown *r = perf__calloc(&q->allocator, h.chunks, sizeof *r);
    for (size_t i = 0; r && i < h.chunks; i++) {
        char sk[SK_SIZE];
        chunk_sk(h.name, i, sk);
        r[i].operation = "DeleteItem";
        r[i].body.allocator = &q->allocator;
        perf__queue_dynamodb_put_key(&r[i].body, q, true, "t|", id, sk);
        perf__text_puts(&r[i].body, "}");
    }
    if (r)
        (void)perf__queue_dynamodb_fly(q, r, h.chunks, deadline_ns);
    perf__aws_flown_free(&q->allocator, r, h.chunks);
}
