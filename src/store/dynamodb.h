/* SPDX-License-Identifier: MIT */
/*
 * dynamodb.h - what the files of the DynamoDB backend share. Private to them.
 *
 * dynamodb_location.c and dynamodb_open.c read the location and open, dynamodb_call.c makes the
 * calls, dynamodb_item.c knows what items look like, dynamodb_pack.c makes records smaller,
 * dynamodb_read.c and dynamodb_write.c read and write, dynamodb_lease.c keeps leases,
 * dynamodb.c puts them together. The items are documented in libperf-dynamodb(7).
 */
#ifndef PERF_STORE_DYNAMODB_H
#define PERF_STORE_DYNAMODB_H

#include <libperf/aws_dynamodb.h>
#include <libperf/backend/store.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../net/aws_flight.h"
#include "../net/aws_json.h"
#include "dynamodb_location.h"
#include "dynamodb_pack.h"

enum {
    DYNAMODB_FORMAT = 1,
    DYNAMODB_KEY_MAX = 1024,         /* of a partition key: it is the sort key of indexes, too */
    DYNAMODB_SORT_MAX = 1024,        /* the service's limit of those */
    DYNAMODB_ITEM_ROOM = 392 * 1024, /* of an item's 400 KiB, for the record */
    DYNAMODB_CHUNK = 384 * 1024,
    DYNAMODB_CHUNKS_MAX = 96,
    DYNAMODB_RECORD_MAX = 32 << 20,
    DYNAMODB_VERSION = 16, /* hexadecimal digits */
    DYNAMODB_RECORD_DAYS = 365,
    DYNAMODB_MARK_DAYS = 400,
    DYNAMODB_NEWS_DAYS = 1, /* of the copy of a mark that is found by its time */
};

struct dynamodb_store {
    perf_allocator allocator;
    perf_clock clock;
    perf_aws *aws;
    bool owns_aws, consistent, packs;
    char table[PERF__DYNAMODB_TABLE_SIZE];
    char prefix[PERF__DYNAMODB_PREFIX_SIZE]; /* with its '|', or "" */
    int64_t timeout_ms;
    _Atomic uint64_t read_units, write_units; /* thousandths */
    _Atomic uint64_t last_token;              /* of a lease */
    pthread_mutex_t mutex;                    /* guards the rest: what usage asked last */
    int64_t asked_again_ns;                   /* not before; 0: never asked */
    uint64_t records, bytes;
};

/* ------------------------------------------------------ dynamodb_item.c: keys */

/* A partition key, with a zero byte behind. */
struct dynamodb_key {
    char text[DYNAMODB_KEY_MAX + 1];
    size_t len;
};
void perf__dynamodb_key(const struct dynamodb_store *s, const perf_store_key *key,
                        struct dynamodb_key *out);
/* "<prefix>!marks", and the sort key of a mark below it; sort has DYNAMODB_SORT_MAX + 1 bytes. */
void perf__dynamodb_marks_key(const struct dynamodb_store *s, struct dynamodb_key *out);
void perf__dynamodb_mark_sort(int64_t kind, perf_bytes name, char *sort);
/* The sort key of its copy, by time and behind all others; without kind (0) where a time's begin.
 */
void perf__dynamodb_news_sort(int64_t stamp_ms, int64_t kind, perf_bytes name, char *sort);

/* ----------------------------------------------------- dynamodb_item.c: items */

/* What a head item says: ITEM_NONE no record (a lease, or one whose time is over); ITEM_DAMAGED
 * something that is none of ours. */
enum { ITEM_NONE, ITEM_WHOLE, ITEM_CHUNKED, ITEM_DAMAGED };

struct dynamodb_item {
    int kind;
    struct perf__json record; /* WHOLE: base64, in quotes */
    uint64_t size;            /* of the record, unpacked; bounded */
    bool zstd;
    uint64_t chunks, packed_size; /* CHUNKED; bounded */
    char version[DYNAMODB_VERSION + 1];
};

/* Hostile bytes that are JSON. */
void perf__dynamodb_item_read(struct perf__json item, int64_t now_ms, struct dynamodb_item *out);
/* The text of a key attribute ("pk", "sk"); "" when there is none of at most size - 1 bytes. */
void perf__dynamodb_item_key(struct perf__json item, const char *name, char *out, size_t size);
/* The bytes of {"B":"..."}, or of the base64 text itself; the caller frees *out. PERF_ECORRUPT. */
int perf__dynamodb_bytes(const perf_allocator *a, struct perf__json base64, uint8_t **out,
                         size_t *len);
/* A mark. PERF_MISS if it is none that can be read, or over; PERF_ENOMEM. The name is the caller's
 * to free. */
int perf__dynamodb_mark_read(const perf_allocator *a, struct perf__json item, int64_t now_ms,
                             int64_t *kind, uint8_t **name, size_t *name_len, int64_t *stamp_ms);

/* A record on its way into the table. */
struct dynamodb_record {
    perf_bytes body; /* as it is stored */
    size_t size;     /* before it was packed */
    bool zstd;
    size_t chunks; /* 0: in one item */
    char version[DYNAMODB_VERSION + 1];
    int64_t expires_s;
};
/* When a record or a mark is to be deleted by the service, in seconds since 1970. */
int64_t perf__dynamodb_expires(int64_t expire_ms, int64_t now_ms);
/* The head's attributes in braces; a chunk's. */
void perf__dynamodb_put_head(struct perf__text *t, const struct dynamodb_store *s, const char *pk,
                             const perf_store_key *key, const struct dynamodb_record *record,
                             int64_t now_ms);
void perf__dynamodb_put_chunk(struct perf__text *t, const char *pk,
                              const struct dynamodb_record *record, size_t number);
void perf__dynamodb_put_chunk_key(struct perf__text *t, const char *pk, const char *version,
                                  size_t number);
/* {"pk":...,"sk":...} */
void perf__dynamodb_put_key(struct perf__text *t, const char *pk, const char *sk);

/* ------------------------------------------------------------- dynamodb_open.c */

int perf__dynamodb_open(const perf_store_config *config, void **out);
void perf__dynamodb_close(void *store);
/* Strictly reads a location into s (table, prefix, consistent, packs) and location. */
int perf__dynamodb_location(const char *text, struct dynamodb_store *s,
                            struct perf__dynamodb_location *location);

/* ------------------------------------------------------------- dynamodb_call.c */

enum { DYNAMODB_READS, DYNAMODB_WRITES };

/* A call that has until deadline_ns (perf__deadline_after). Frees body. Counts what it consumed.
 * PERF_ECONFLICT means that its condition did not hold, and nothing else. */
int perf__dynamodb_call(struct dynamodb_store *s, const char *operation, struct perf__text *body,
                        int units, int64_t deadline_ns, perf_aws_reply **out,
                        struct perf__json *all);
/* The same for count at once, a few of them under way at any time; requests[i].rc says what became
 * of each. Returns the first failure that is no PERF_ECONFLICT. perf__aws_flown_free is
 * due in any case. */
int perf__dynamodb_call_all(struct dynamodb_store *s, const char *operation,
                            struct perf__aws_flown *requests, size_t count, int units,
                            int64_t deadline_ns);
int perf__dynamodb_too_late(const struct dynamodb_store *s);
/* Improves the sentence of a failed call of this thread, and returns its code. */
int perf__dynamodb_failed(const struct dynamodb_store *s, int rc);
void perf__dynamodb_count(struct dynamodb_store *s, int units, uint64_t thousandths);
/* {"TableName":...,"ReturnConsumedCapacity":"TOTAL" without the closing brace. */
void perf__dynamodb_begin(struct perf__text *t, const struct dynamodb_store *s);

/* ------------------------------------------------- dynamodb_read.c, _write.c, _lease.c */

int perf__dynamodb_get(void *store, const perf_store_key *key, perf_store_reply *reply);
int perf__dynamodb_get_many(void *store, const perf_store_key *keys, size_t count,
                            perf_store_reply *const *replies);
int perf__dynamodb_marks(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx);
int perf__dynamodb_apply(void *store, const perf_store_op *ops, size_t count);
int perf__dynamodb_lease(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token);
int perf__dynamodb_lease_many(void *store, const perf_store_key *keys, size_t count, int64_t ttl_ms,
                              uint64_t *tokens);
int perf__dynamodb_unlease(void *store, const perf_store_key *key, uint64_t token);
/* The condition of a leased write, with the comma before it. */
void perf__dynamodb_put_held(struct perf__text *t, uint64_t token, int64_t now_ms);

#endif
