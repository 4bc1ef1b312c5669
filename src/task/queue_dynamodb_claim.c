/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_claim.c - who gets what.
 *
 * Lanes are read by rank, the records that they name are read as they are now, and
 * each is written on the condition that nobody has changed it since: so whatever the
 * index says, a task is given once. What is read at once is marked for the other threads of this
 * process, which then take what comes behind it; other processes that were faster are
 * noticed by the condition.
 *
 * A task whose limit key is full is passed over, and stays in its lane: a claim reads
 * on until it has enough or the lane ends. Any thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

enum {
    CLAIM_MAX = 1000,
    CLAIM_BYTES = 16 << 20, /* a claim takes no more after so many: it has to load them in time */
    PAGE_MIN = 16,
    LIMITS_MAX = 64, /* limit keys that one claim remembers */
};

/* How many run under a limit key, as far as this claim knows. */
struct limit {
    uint64_t key;    /* its hash */
    int64_t running; /* -1: not known (any more) */
};

/* Of a claim under way. */
struct claiming {
    struct dynamodb_queue *q;
    const perf_queue_claim *want;
    perf_queue_reply *reply;
    struct walk walk;
    const char *queue; /* whose lanes are looked for */
    bool paused;
    int64_t deadline_ns;
    size_t given, bytes, limit_count;
    struct limit limits[LIMITS_MAX];
    int failed; /* of a task that could not be given */
    /* What is looked at now. */
    struct entry entries[READ_MAX];
    struct record records[READ_MAX];
    bool marked[READ_MAX], won[READ_MAX];
    size_t count;
};

/* ------------------------------------------------------------------------- marks */

/* Names are strangers': none may be made to look like another. */
static uint64_t hash_of(const struct dynamodb_queue *q, const char *text)
{
    return perf__hash_bytes((struct perf__hash_key){q->origin, 0}, text, strlen(text)).lo;
}

struct held *perf__queue_dynamodb_held(struct dynamodb_queue *q, const char *id)
{
    return &q->held[hash_of(q, id) % HELD];
}

static _Atomic uint64_t *mark_of(struct dynamodb_queue *q, const char *id)
{
    return &q->marks[hash_of(q, id) % MARKS];
}

/* False: another thread has it. */
static bool mark(struct claiming *c, const char *id, bool *marked)
{
    uint64_t none = 0, own = (uint64_t)(uintptr_t)c;
    *marked = atomic_compare_exchange_strong(mark_of(c->q, id), &none, own);
    return *marked || none == own; /* two of ours may share one */
}

static void unmark(struct claiming *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->marked[i])
            atomic_store(mark_of(c->q, c->entries[i].id), 0);
        perf__queue_dynamodb_record_free(c->q, &c->records[i]);
    }
    c->count = 0;
}

/* ------------------------------------------------------------------------- lanes */

static int note_pause(void *ctx, const char *queue, int64_t version, const char *kind)
{
    struct claiming *c = ctx;
    (void)version;
    c->paused = c->paused || (!kind && !strcmp(queue, c->queue));
    return PERF_OK;
}

static int add_lane(void *ctx, const char *queue, int64_t version, const char *kind)
{
    struct claiming *c = ctx;
    char name[HASH_SIZE];
    if (!kind || strcmp(queue, c->queue) != 0)
        return PERF_OK;
    for (size_t i = 0; i < c->want->kinds_count; i++) {
        const perf_queue_kind *k = &c->want->kinds[i];
        if (strcmp(k->kind, kind) || version < k->version_min || version > k->version_max)
            continue;
        snprintf(name, sizeof name, "%s|%" PRId64 "|%s", queue, version, kind);
        return perf__queue_dynamodb_walk_add(&c->walk, "by_lane", "r|", name, "0", "g");
    }
    return PERF_OK;
}

/* ------------------------------------------------------------------------- giving */

/* How many run under its limit key, at the least. */
static int ask_running(struct claiming *c, const struct record *r, int64_t *running)
{
    struct perf__text t = {.allocator = &c->q->allocator};
    struct perf__json all, item, attribute, value;
    perf_aws_reply *reply;
    uint64_t number = 0;
    perf__queue_dynamodb_put_key(&t, c->q, false, "k|", r->t.limit_key, "0");
    perf__text_puts(&t, ",\"ConsistentRead\":true}");
    int rc = perf__queue_dynamodb_call(c->q, "GetItem", &t, c->deadline_ns, &reply, &all);
    if (rc)
        return rc;
    if (perf__json_find(all, "Item", '{', &item) &&
        perf__json_find(item, "running", '{', &attribute) &&
        perf__json_find(attribute, "N", '"', &value))
        (void)perf__json_uint(value, &number);
    *running = number > INT64_MAX ? INT64_MAX : (int64_t)number;
    perf_aws_reply_release(reply);
    return PERF_OK;
}

static struct limit *limit_of(struct claiming *c, uint64_t key)
{
    size_t i = 0;
    while (i < c->limit_count && c->limits[i].key != key)
        i++;
    return i < c->limit_count ? &c->limits[i] : NULL;
}

static void note_running(struct claiming *c, uint64_t key, int64_t running)
{
    struct limit *known = limit_of(c, key);
    if (!known && c->limit_count < LIMITS_MAX)
        known = &c->limits[c->limit_count++];
    if (known)
        *known = (struct limit){key, running};
}

/* RUNNING, and ours once it is written. */
static void begin(struct claiming *c, struct record *r)
{
    uint64_t token = perf__queue_dynamodb_numbers(c->q, 1);
    perf_queue_task *t = &r->t;
    t->state = PERF_TASK_RUNNING;
    t->attempts++;
    t->token = token > t->token ? token : t->token + 1; /* somebody's clock may be ahead */
    t->lease_until_ms = c->want->now_ms + c->want->lease_ms;
    t->started_ms = c->want->now_ms;
    t->worker = c->want->worker;
    t->fraction = 0;
    t->done = t->total = 0;
    t->text = "";
    r->progress = "";
}

/* It came too late; whether that could be written is for the next one to see. */
static void end_late(struct claiming *c, struct record *r)
{
    perf__queue_dynamodb_set_end(r, PERF_TASK_CANCELLED, c->want->now_ms, PERF_ETIMEDOUT,
                                 "not begun before its deadline");
    int rc = perf__queue_dynamodb_write(c->q, r, LIMIT_SAME, c->deadline_ns);
    if (!rc && r->followed)
        rc = perf__queue_dynamodb_release(c->q, r->t.id, c->want->now_ms, c->deadline_ns);
    if (rc && rc != PERF_ECONFLICT && rc != PERF_EBUSY)
        c->failed = rc;
}

/* True: it is ours. A transaction that must fail costs, too: so who is full is asked before. */
static bool take_limited(struct claiming *c, struct record *r)
{
    uint64_t key = hash_of(c->q, r->t.limit_key);
    const struct limit *known = limit_of(c, key);
    int64_t running = known ? known->running : -1;
    int rc = running < 0 ? ask_running(c, r, &running) : PERF_OK;
    bool full = !rc && running >= r->t.limit;
    if (!rc && !full) {
        begin(c, r);
        rc = perf__queue_dynamodb_write(c->q, r, LIMIT_TAKE, c->deadline_ns);
        running = rc ? -1 : running + 1;
    }
    note_running(c, key, running);
    if (rc && rc != PERF_ECONFLICT)
        c->failed = rc;
    return !rc && !full;
}

/* Those without a limit key, at once. */
static int take_plain(struct claiming *c, const bool *plain, size_t count)
{
    struct perf__aws_flown *r = perf__calloc(&c->q->allocator, count, sizeof *r);
    size_t n = 0, sent;
    if (!r)
        return perf__fail_nomem("a claim");
    for (size_t i = 0; i < c->count; i++) {
        if (!plain[i])
            continue;
        begin(c, &c->records[i]);
        r[n].operation = "PutItem";
        r[n].body.allocator = &c->q->allocator;
        perf__queue_dynamodb_put_write(c->q, &r[n++].body, &c->records[i]);
    }
    sent = n;
    int rc = perf__queue_dynamodb_fly(c->q, r, sent, c->deadline_ns);
    n = 0;
    for (size_t i = 0; i < c->count && !rc; i++) {
        if (!plain[i])
            continue;
        c->won[i] =
            !r[n].rc || (r[n].rc == PERF_ECONFLICT && r[n].attempts > 1 &&
                         perf__queue_dynamodb_is_ours(c->q, &c->records[i], c->deadline_ns));
        if (r[n].rc && r[n].rc != PERF_ECONFLICT && r[n].rc != PERF_EBUSY)
            c->failed = perf__queue_dynamodb_say(&r[n]);
        n++;
    }
    perf__aws_flown_free(&c->q->allocator, r, sent);
    return rc;
}

/* What is known of it makes its end cheap. */
static void hold(struct dynamodb_queue *q, const struct record *r)
{
    pthread_mutex_lock(&q->mutex);
    struct held *h = perf__queue_dynamodb_held(q, r->t.id);
    snprintf(h->id, sizeof h->id, "%s", r->t.id);
    h->token = r->t.token;
    h->seq = r->seq;
    h->keep_ms = r->t.keep_ms;
    h->unique_until_ms = r->t.unique_until_ms;
    h->plain = r->t.attempts == 1 && !r->how[RESULT][0] && !r->t.limit_key[0] && !r->followed;
    pthread_mutex_unlock(&q->mutex);
}

/* One that cannot be given is left to its lease. */
static void give(struct claiming *c, struct record *r)
{
    int rc = perf__queue_dynamodb_load(c->q, r, PAYLOAD, c->deadline_ns);
    if (!rc)
        rc = perf__queue_dynamodb_load(c->q, r, RESULT, c->deadline_ns);
    if (!rc)
        rc = perf__queue_dynamodb_add(r, false, c->reply);
    if (rc) {
        c->failed = rc;
        return;
    }
    hold(c->q, r);
    c->given++;
    c->bytes += r->t.payload.len + r->t.result.len;
}

/* As many entries as are wanted, marked. */
static int look_ahead(struct claiming *c)
{
    size_t left = c->want->max < CLAIM_MAX ? c->want->max : CLAIM_MAX;
    const struct entry *e = NULL;
    int rc = PERF_OK;
    left -= c->given;
    while (c->count < left && c->count < READ_MAX) {
        rc = perf__queue_dynamodb_walk_next(&c->walk, &e);
        if (rc || !e)
            break;
        if (mark(c, e->id, &c->marked[c->count]))
            c->entries[c->count++] = *e;
    }
    return rc;
}

/* Takes what it can of those looked at. */
static int take(struct claiming *c)
{
    bool plain[READ_MAX] = {false};
    size_t plains = 0, bytes = c->bytes;
    int rc = perf__queue_dynamodb_read_many(c->q, c->entries, c->count, false, c->deadline_ns,
                                            c->records, &c->failed);
    memset(c->won, 0, sizeof c->won);
    for (size_t i = 0; i < c->count && !rc && bytes < CLAIM_BYTES; i++) {
        struct record *r = &c->records[i];
        char key[KEY_SIZE];
        if (!r->t.id || r->t.state != PERF_TASK_QUEUED)
            continue;
        perf__queue_dynamodb_key(r->t.rank, r->seq, key);
        if (strcmp(key, c->entries[i].key) != 0)
            continue; /* of an earlier life: its own entry comes */
        if (r->t.deadline_ms && c->want->now_ms >= r->t.deadline_ms && !r->t.started_ms) {
            end_late(c, r);
            continue;
        }
        bytes += perf__queue_dynamodb_size(r);
        if (r->t.limit_key[0])
            c->won[i] = take_limited(c, r);
        else
            plains += plain[i] = true;
    }
    if (!rc && plains)
        rc = take_plain(c, plain, plains);
    for (size_t i = 0; i < c->count && !rc; i++)
        if (c->won[i])
            give(c, &c->records[i]);
    return rc;
}

static int claim_from(struct claiming *c, const char *queue)
{
    size_t max = c->want->max < READ_MAX ? c->want->max : READ_MAX;
    c->queue = queue;
    c->paused = false;
    c->walk = (struct walk){.q = c->q, .page = 2 * max + PAGE_MIN, .deadline_ns = c->deadline_ns};
    int rc = perf__queue_dynamodb_each_lane(c->q, note_pause, c);
    if (!rc && !c->paused)
        rc = perf__queue_dynamodb_each_lane(c->q, add_lane, c);
    while (!rc && c->walk.count && c->given < c->want->max && c->given < CLAIM_MAX &&
           c->bytes < CLAIM_BYTES) {
        rc = look_ahead(c);
        if (rc || !c->count)
            break;
        rc = take(c);
        unmark(c);
    }
    unmark(c);
    perf__queue_dynamodb_walk_free(&c->walk);
    return rc;
}

int perf__queue_dynamodb_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply)
{
    struct dynamodb_queue *q = queue;
    struct claiming *c = perf__calloc(&q->allocator, 1, sizeof *c);
    if (!c)
        return perf__fail_nomem("a claim");
    c->q = q;
    c->want = want;
    c->reply = reply;
    c->deadline_ns = perf__queue_dynamodb_deadline(q);
    int rc = perf__queue_dynamodb_lanes(q, false, c->deadline_ns);
    for (size_t i = 0; i < want->queues_count && !rc && !c->given; i++)
        rc = claim_from(c, want->queues[i]);
    bool given = c->given > 0;
    rc = rc ? rc : c->failed;
    perf__free(&q->allocator, c);
    return given ? PERF_OK : rc ? rc : PERF_MISS;
}
