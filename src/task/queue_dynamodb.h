/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb.h - what the files of the DynamoDB queue share. Private to them.
 *
 * queue_dynamodb_open.c reads the location and opens, _call.c makes requests,
 * _item.c knows what a record looks like, _blob.c keeps long payloads, _walk.c reads
 * indexes in order, _lanes.c remembers which lanes there are, _move.c changes records,
 * _enqueue.c, _claim.c, _look.c and _steer.c have the verbs, and queue_dynamodb.c ends
 * attempts and puts them together. The items are documented in libperf-tasks-dynamodb(7).
 */
#ifndef PERF_TASK_QUEUE_DYNAMODB_H
#define PERF_TASK_QUEUE_DYNAMODB_H

#include <pthread.h>
#include <stdatomic.h>

#include "../net/aws_flight.h"
#include "../store/dynamodb_location.h"
#include "queue.h"
#include "queue_history.h"
#include "queue_progress.h"

enum {
    ID_SIZE = 72,      /* of a task */
    KEY_SIZE = 36,     /* of what orders an index: two numbers of 16 digits */
    HASH_SIZE = 300,   /* of a lane's name */
    PK_SIZE = 2049,    /* of a partition key */
    NONCE_SIZE = 34,   /* of the name of a call */
    INLINE_MAX = 4096, /* a longer payload is kept beside its record */
    CHUNK = 384 * 1024,
    BYTES_MAX = 32 << 20,
    MARKS = 4096,
    HELD = 1024,
    READ_MAX = 100, /* items of one BatchGetItem */
};

/* What is known of a task that this process runs, so that its end is one request. */
struct held {
    char id[ID_SIZE];
    uint64_t token, seq;
    int64_t keep_ms, unique_until_ms;
    bool plain; /* first attempt, nothing hangs on it */
};

struct known_lane {
    char name[2 * 65 + 24]; /* "queue|version|kind", or just "queue": paused */
};

struct dynamodb_queue {
    perf_allocator allocator;
    perf_clock clock;
    perf_aws *aws;
    bool owns_aws, packs;
    char tasks[PERF__DYNAMODB_TABLE_SIZE], common[PERF__DYNAMODB_TABLE_SIZE];
    char prefix[PERF__DYNAMODB_PREFIX_SIZE]; /* with its '|', or "" */
    int64_t timeout_ms;
    uint64_t origin;
    _Atomic uint64_t calls, last_number;
    _Atomic uint64_t marks[MARKS]; /* what some thread is about to claim */

    pthread_mutex_t mutex; /* of what follows */
    struct known_lane *lanes;
    size_t lane_count;
    int64_t lanes_until_ns; /* known that long */
    uint64_t lane_changes;  /* made by this process */
    struct held held[HELD]; /* by a hash of the id */
};

/* -------------------------------------------------------- queue_dynamodb_open.c */

int perf__queue_dynamodb_open(const perf_queue_config *config, void **out);
void perf__queue_dynamodb_close(void *queue);

/* -------------------------------------------------------- queue_dynamodb_call.c */

/* Numbers that grow, n of them: microseconds since 1970, or more than the last. The first. */
uint64_t perf__queue_dynamodb_numbers(struct dynamodb_queue *q, uint64_t n);
/* A name that no other call has. */
void perf__queue_dynamodb_nonce(struct dynamodb_queue *q, char out[NONCE_SIZE]);
/* Calls of this queue end by then. */
int64_t perf__queue_dynamodb_deadline(const struct dynamodb_queue *q);

/*
 * One request; frees body. *out (and all) only with PERF_OK, and out may be NULL. PERF_ECONFLICT: a
 * condition did not hold. PERF_EBUSY: somebody else's transaction was in the way: again.
 */
int perf__queue_dynamodb_call(struct dynamodb_queue *q, const char *operation,
                              struct perf__text *body, int64_t deadline_ns, perf_aws_reply **out,
                              struct perf__json *all);
/* Many; requests[i].rc as above. Fails only when nothing was sent. */
int perf__queue_dynamodb_fly(struct dynamodb_queue *q, struct perf__aws_flown *requests,
                             size_t count, int64_t deadline_ns);
/* Waits a little before the next try. PERF_ETIMEDOUT: the time is over. */
int perf__queue_dynamodb_pause(struct dynamodb_queue *q, int tries, int64_t deadline_ns);
/* What a flown request said, as this thread's error. */
int perf__queue_dynamodb_say(const struct perf__aws_flown *r);

/* A transaction: begin, then put_ of items each in braces, end. */
void perf__queue_dynamodb_begin(struct dynamodb_queue *q, struct perf__text *t);
void perf__queue_dynamodb_next(struct perf__text *t, const char *verb); /* ,{"Put": */
int perf__queue_dynamodb_transact(struct dynamodb_queue *q, struct perf__text *t,
                                  int64_t deadline_ns);

/* {"TableName":"...","Key":{...} with no closing brace; kind: "t|" and the like. */
void perf__queue_dynamodb_put_key(struct perf__text *t, const struct dynamodb_queue *q,
                                  bool of_tasks, const char *kind, const char *name,
                                  const char *sk);
/* "name":{"S":"prefix kind text"} */
void perf__queue_dynamodb_put_pk(struct perf__text *t, const struct dynamodb_queue *q,
                                 const char *kind, const char *name);
void perf__queue_dynamodb_put_s(struct perf__text *t, const char *name, const char *text);
void perf__queue_dynamodb_put_n(struct perf__text *t, const char *name, int64_t number);

/* -------------------------------------------------------- queue_dynamodb_item.c */

/* A task as its item has it. Its strings are in arena, or the caller's. */
struct record {
    perf_queue_task t; /* without payload and result until they are loaded */
    char *arena;
    uint8_t *loaded[2]; /* payload and result */
    uint64_t seq;       /* in the order of submission */
    int64_t version;    /* of the item */
    int64_t waited, folded, cancel, followed;
    const char *kept, *progress, *by, *pending, *echo;
    perf_bytes stored[2]; /* what is in the item of payload and result, */
    const char *how[2];   /* and how: see queue_dynamodb_blob.c */
    char own_echo[NONCE_SIZE];
};

/* Reads an item. PERF_ECORRUPT names the task and the attribute. record_free is due in any case. */
int perf__queue_dynamodb_read(const struct dynamodb_queue *q, struct perf__json item,
                              struct record *r);
void perf__queue_dynamodb_record_free(const struct dynamodb_queue *q, struct record *r);
/* The item in braces. */
void perf__queue_dynamodb_put_item(struct perf__text *t, const struct dynamodb_queue *q,
                                   const struct record *r);
/* When an ended one is forgotten. */
int64_t perf__queue_dynamodb_removal(int64_t ended_ms, int64_t keep_ms, int64_t unique_until_ms);
/* A key of an index: by number, then in the order of submission. */
void perf__queue_dynamodb_key(int64_t number, uint64_t seq, char out[KEY_SIZE]);
/* The number in one; 0: none. */
int64_t perf__queue_dynamodb_key_number(const char *key);
/* A short text of an attribute. False: there is none, or none so short. */
bool perf__queue_dynamodb_text(struct perf__json item, const char *name, char *out, size_t size);
/* To a reply; history: with it. */
int perf__queue_dynamodb_add(const struct record *r, bool history, perf_queue_reply *reply);
int perf__queue_dynamodb_damaged(const char *id, const char *what) __attribute__((cold));

/* -------------------------------------------------------- queue_dynamodb_blob.c */

enum { PAYLOAD, RESULT };

/* Bytes on their way into a record. */
struct blob {
    uint8_t *packed;
    perf_bytes stored;
    char how[64];
};

/* Packs, and writes what is too long for the record beside it. blob_free is due after success. */
int perf__queue_dynamodb_blob(struct dynamodb_queue *q, const char *id, perf_bytes bytes,
                              int64_t expires_s, int64_t deadline_ns, struct blob *out);
void perf__queue_dynamodb_blob_free(struct dynamodb_queue *q, struct blob *b);
/* Fills t.payload (or result) of a record. */
int perf__queue_dynamodb_load(struct dynamodb_queue *q, struct record *r, int which,
                              int64_t deadline_ns);
/* How many bytes payload and result will have. */
size_t perf__queue_dynamodb_size(const struct record *r);
/* Removes what lies beside a record; failing, it is left to its time to live. */
void perf__queue_dynamodb_drop(struct dynamodb_queue *q, const char *id, const char *how,
                               int64_t deadline_ns);
/* When what lies beside a record is no longer needed by anybody, in seconds. */
int64_t perf__queue_dynamodb_expires(int64_t from_ms, int64_t keep_ms);

/* -------------------------------------------------------- queue_dynamodb_walk.c */

struct entry {
    char id[ID_SIZE], key[KEY_SIZE]; /* key: the last 32 (forward) or 16 digits */
};

/* Where a walk reads: an index, its hash, and which part. */
struct source {
    const char *index; /* "by_lane", "by_state", "by_user" */
    char *hash;        /* freed with the walk */
    char low[140], high[140];
    struct entry *page;
    size_t count, at;
    bool more;
};

/* Sources merged: forward by key, backward by the order of submission. */
struct walk {
    struct dynamodb_queue *q;
    struct source *sources;
    size_t count, cap, page;
    bool backward;
    int64_t deadline_ns;
};

int perf__queue_dynamodb_walk_add(struct walk *w, const char *index, const char *kind,
                                  const char *name, const char *low, const char *high);
/* The next entry, valid until the one after it; NULL in *out: no more. */
int perf__queue_dynamodb_walk_next(struct walk *w, const struct entry **out);
void perf__queue_dynamodb_walk_free(struct walk *w);

/* The items of up to READ_MAX ids, as they are now; records[i].t.id is NULL where there is none,
 * and failed is said of those that cannot be read. looks: without payload, result. */
int perf__queue_dynamodb_read_many(struct dynamodb_queue *q, const struct entry *entries,
                                   size_t count, bool looks, int64_t deadline_ns,
                                   struct record *records, int *failed);
/* PERF_MISS. */
int perf__queue_dynamodb_read_one(struct dynamodb_queue *q, const char *id, int64_t deadline_ns,
                                  struct record *r);

/* ------------------------------------------------------- queue_dynamodb_lanes.c */

/* Is in the directory when it returns. */
int perf__queue_dynamodb_need_lane(struct dynamodb_queue *q, const perf_queue_task *t,
                                   int64_t deadline_ns);
/* Reads the directory when what is known is old, or fresh is wanted. */
int perf__queue_dynamodb_lanes(struct dynamodb_queue *q, bool fresh, int64_t deadline_ns);
/* Calls each with queue, version and kind of every lane (kind NULL: the queue is paused). With what
 * is known. */
typedef int (*perf__lane_fn)(void *ctx, const char *queue, int64_t version, const char *kind);
int perf__queue_dynamodb_each_lane(struct dynamodb_queue *q, perf__lane_fn each, void *ctx);
int perf__queue_dynamodb_pause_queue(struct dynamodb_queue *q, const char *queue, bool paused,
                                     uint64_t *n);

/* -------------------------------------------------------- queue_dynamodb_move.c */

/* What a write does to the count of a limit key. */
enum { LIMIT_SAME = 0, LIMIT_TAKE = 1, LIMIT_GIVE = -1 };

/* The request that writes a record in place of the version that was read. */
void perf__queue_dynamodb_put_write(struct dynamodb_queue *q, struct perf__text *t,
                                    struct record *r);
/* Of a write whose condition did not hold: because our own first try had succeeded? */
bool perf__queue_dynamodb_is_ours(struct dynamodb_queue *q, const struct record *r,
                                  int64_t deadline_ns);
/* Writes it, with its limit key's count. PERF_ECONFLICT: it is another one by now. */
int perf__queue_dynamodb_write(struct dynamodb_queue *q, struct record *r, int limit,
                               int64_t deadline_ns);
void perf__queue_dynamodb_set_end(struct record *r, int64_t state, int64_t now_ms, int64_t status,
                                  const char *error);
/* QUEUED, or WAITING until it is due. */
void perf__queue_dynamodb_set_due(struct record *r, int64_t state, int64_t now_ms);
/* Adds a line to its history; kept must outlive the record. */
void perf__queue_dynamodb_keep_line(struct record *r, struct perf__history *kept, int64_t now_ms,
                                    int64_t state, int64_t status, const char *error);
/* Lets those go on who wait for an ended task. Again is no harm. */
int perf__queue_dynamodb_release(struct dynamodb_queue *q, const char *id, int64_t now_ms,
                                 int64_t deadline_ns);
bool perf__queue_dynamodb_in_list(const char *list, const char *id);

/* --------------------------------------------------------------------- the verbs */

int perf__queue_dynamodb_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                                 void *transaction, int64_t now_ms, int *statuses,
                                 char (*existing)[72]);
int perf__queue_dynamodb_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply);
int perf__queue_dynamodb_get(void *queue, const char *id, perf_queue_reply *reply);
int perf__queue_dynamodb_find(void *queue, const perf_queue_filter *f, perf_queue_reply *reply);
int perf__queue_dynamodb_count(void *queue, const char *name, int64_t now_ms,
                               perf_queue_counts *counts);
int perf__queue_dynamodb_control(void *queue, int verb, const char *name, int64_t now_ms,
                                 uint64_t *n);
int perf__queue_dynamodb_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept);
/* The slot of an id in held. With the mutex. */
struct held *perf__queue_dynamodb_held(struct dynamodb_queue *q, const char *id);

#endif
