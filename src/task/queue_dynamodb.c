/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb.c - the queue of tasks in DynamoDB: attempts kept and ended, and all of it put
 * together.
 *
 * A task is one item, which holds all of its state; every step is one write of that item, on
 * the condition that it is as it was read. So a step is done or not, and done once, without
 * locks and whoever dies. Three sparse indexes order the items: in by_lane a task stands where
 * it goes on (due ones by rank, waiting ones by time, running ones by lease, ended ones by when
 * they are forgotten), and leaves by the very write that changes its state. Indexes are written a
 * moment late: a task may be found a moment later, or in vain, and never is lost, for its own
 * item says where it stands. What several tasks have in common (a unique key, a limit key, who
 * waits for whom) is in a second table and changes with them in a transaction.
 *
 * The end of a plain task is one conditional update, for what it takes is known from its claim;
 * that of any other reads the record first. There is no channel that tells: who waits asks again.
 * Any thread.
 */
#include "queue_dynamodb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { PORTION = 128 };

/* ----------------------------------------------------------------------- extend */

static void put_beat(struct dynamodb_queue *q, struct perf__text *t, const perf_queue_beat *b,
                     uint64_t seq)
{
    char key[KEY_SIZE], numbers[PERF__PROGRESS_SIZE];
    struct perf__text progress = {.allocator = &q->allocator};
    perf__queue_dynamodb_key(b->lease_until_ms, seq, key);
    (void)perf__progress_write(numbers, b);
    perf__text_puts(&progress, numbers);
    perf__text_puts(&progress, b->text ? b->text : "");
    perf__queue_dynamodb_put_key(t, q, true, "t|", b->id, "0");
    perf__text_puts(t, ",\"UpdateExpression\":\"SET #l = :l, #p = :p, #r = :r, #c = "
                       "if_not_exists(#c, :0) ADD #v :1\",\"ConditionExpression\":\"#t = :t AND #s "
                       "= :s\",\"ReturnValues\":\"UPDATED_NEW\",\"ExpressionAttributeNames\":{"
                       "\"#l\":\"lease\",\"#p\":\"progress\",\"#r\":\"rank\",\"#c\":\"cancel\","
                       "\"#v\":\"v\",\"#t\":\"token\",\"#s\":\"st\"},"
                       "\"ExpressionAttributeValues\":{\":0\":{\"N\":\"0\"},\":1\":{\"N\":\"1\"},");
    perf__queue_dynamodb_put_n(t, ":l", b->lease_until_ms);
    perf__text_putf(t, ",\":t\":{\"N\":\"%" PRIu64 "\"},\":s\":{\"N\":\"%d\"},", b->token,
                    PERF_TASK_RUNNING);
    perf__queue_dynamodb_put_s(t, ":r", key);
    perf__text_puts(t, ",\":p\":{\"S\":");
    if (progress.failed)
        t->failed = true;
    else
        perf__text_put_json(t, progress.data, progress.len);
    perf__text_puts(t, "}}}");
    perf__text_free(&progress);
}

/* seq of the beats' tasks: known, or read. false: it is not there. */
static int seq_of(struct dynamodb_queue *q, const char *id, uint64_t token, int64_t deadline_ns,
                  uint64_t *seq)
{
    struct record r;
    pthread_mutex_lock(&q->mutex);
    const struct held *h = perf__queue_dynamodb_held(q, id);
    bool known = h->token == token && !strcmp(h->id, id);
    *seq = h->seq;
    pthread_mutex_unlock(&q->mutex);
    if (known)
        return PERF_OK;
    int rc = perf__queue_dynamodb_read_one(q, id, deadline_ns, &r);
    *seq = r.seq;
    perf__queue_dynamodb_record_free(q, &r);
    return rc;
}

static int64_t read_beat(const struct perf__aws_flown *r)
{
    struct perf__json attributes, cancel, number;
    uint64_t wanted = 0;
    if (r->rc)
        return perf__queue_dynamodb_say(r);
    if (perf__json_find(r->all, "Attributes", '{', &attributes) &&
        perf__json_find(attributes, "cancel", '{', &cancel) &&
        perf__json_find(cancel, "N", '"', &number))
        (void)perf__json_uint(number, &wanted);
    return wanted ? PERF_ECANCELED : PERF_OK;
}

static int dynamodb_extend(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms)
{
    struct dynamodb_queue *q = queue;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    struct perf__aws_flown *r = perf__calloc(&q->allocator, count, sizeof *r);
    size_t n = 0, at = 0;
    (void)now_ms;
    if (!r)
        return perf__fail_nomem("signs of life");
    for (size_t i = 0; i < count; i++) {
        uint64_t seq = 0;
        int rc = seq_of(q, beats[i].id, beats[i].token, deadline, &seq);
        beats[i].status = rc == PERF_MISS ? PERF_ECONFLICT : rc;
        if (rc)
            continue;
        r[n].operation = "UpdateItem";
        r[n].body.allocator = &q->allocator;
        put_beat(q, &r[n++].body, &beats[i], seq);
    }
    int rc = perf__queue_dynamodb_fly(q, r, n, deadline), failed = PERF_OK;
    for (size_t i = 0; i < count && !rc; i++) {
        if (!beats[i].status)
            beats[i].status = read_beat(&r[at++]);
        if (beats[i].status && beats[i].status != PERF_ECONFLICT &&
            beats[i].status != PERF_ECANCELED)
            failed = (int)beats[i].status;
    }
    perf__aws_flown_free(&q->allocator, r, n);
    if (failed == PERF_EBUSY) /* somebody's transaction: the next beat comes */
        failed = PERF_EUNAVAILABLE;
    return rc ? rc : failed;
}

/* ----------------------------------------------------------------------- finish */

/* An end on its way. */
struct ending {
    perf_queue_end *end;
    struct blob result;
    struct held held;
    char echo[NONCE_SIZE];
    bool fast;
};

static const char *error_of(const perf_queue_end *e)
{
    return e->error ? e->error : "";
}

/* One update, if nothing hangs on it. */
static void put_end(struct dynamodb_queue *q, struct perf__text *t, const struct ending *g)
{
    const perf_queue_end *e = g->end;
    char key[KEY_SIZE];
    bool result = g->result.stored.len > 0;
    perf__queue_dynamodb_key(
        perf__queue_dynamodb_removal(e->now_ms, g->held.keep_ms, g->held.unique_until_ms),
        g->held.seq, key);
    perf__queue_dynamodb_put_key(t, q, true, "t|", e->id, "0");
    perf__text_putf(t,
                    ",\"UpdateExpression\":\"SET #s = :s, #i = :i, #e = :e, #u = :u, #m = :m, #l "
                    "= :l, #r = :r, #h = :h, #c = :c%s ADD #v :1\",",
                    result ? ", #b = :b" : "");
    perf__text_puts(t, "\"ConditionExpression\":\"#t = :t AND #s = :run AND "
                       "attribute_not_exists(#o)\",\"ExpressionAttributeNames\":{\"#s\":\"st\","
                       "\"#i\":\"state\",\"#e\":\"ended\",\"#u\":\"status\",\"#m\":\"error\","
                       "\"#l\":\"lane\",\"#r\":\"rank\",\"#h\":\"result_as\",\"#c\":\"echo\","
                       "\"#v\":\"v\",\"#t\":\"token\",\"#o\":\"odd\"");
    perf__text_putf(t, "%s},\"ExpressionAttributeValues\":{", result ? ",\"#b\":\"result\"" : "");
    perf__queue_dynamodb_put_n(t, ":s", e->state);
    perf__text_putf(t,
                    ",\":i\":{\"S\":\"%s%d\"},\":l\":{\"S\":\"%se\"},\":run\":{\"N\":\"%d\"},"
                    "\":t\":{\"N\":\"%" PRIu64 "\"},\":1\":{\"N\":\"1\"},",
                    q->prefix, (int)e->state, q->prefix, PERF_TASK_RUNNING, e->token);
    perf__queue_dynamodb_put_n(t, ":e", e->now_ms);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_n(t, ":u", e->status);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":m", error_of(e));
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":r", key);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":h", g->result.how);
    perf__text_puts(t, ",");
    perf__queue_dynamodb_put_s(t, ":c", g->echo);
    if (result) {
        perf__text_puts(t, ",\":b\":{\"B\":\"");
        perf__text_put_base64(t, g->result.stored.data, g->result.stored.len);
        perf__text_puts(t, "\"}");
    }
    perf__text_puts(t, "}}");
}

/* The record as it is after the end. */
static void apply_end(struct record *r, const struct ending *g, struct perf__history *kept)
{
    const perf_queue_end *e = g->end;
    int64_t state = e->state;
    if (!perf__task_ended(state) && r->cancel)
        state = PERF_TASK_CANCELLED;
    r->stored[RESULT] = g->result.stored;
    r->how[RESULT] = g->result.how;
    if (perf__task_ended(state)) {
        perf__queue_dynamodb_set_end(r, state, e->now_ms, e->status, error_of(e));
        return;
    }
    bool later = e->due_ms > e->now_ms;
    r->t.attempts -= state == PERF_TASK_WAITING;
    r->t.status = e->status;
    r->t.error = error_of(e);
    if (e->due_ms > 0) {
        r->t.due_ms = e->due_ms;
        r->t.rank = perf__task_rank(e->due_ms, r->t.priority);
    }
    perf__queue_dynamodb_keep_line(r, kept, e->now_ms, later ? state : PERF_TASK_QUEUED, e->status,
                                   error_of(e));
    r->t.state = later ? state : PERF_TASK_QUEUED;
}

static int finish_slowly(struct dynamodb_queue *q, const struct ending *g, int64_t deadline_ns)
{
    const perf_queue_end *e = g->end;
    struct perf__history *kept = perf__alloc(&q->allocator, sizeof *kept);
    if (!kept)
        return perf__fail_nomem("the end of a task");
    int rc = PERF_OK;
    for (int tries = 0;; tries++) {
        struct record r;
        char before[64] = "";
        bool followed = false;
        rc = perf__queue_dynamodb_read_one(q, e->id, deadline_ns, &r);
        if (rc == PERF_MISS) {
            rc = PERF_ECONFLICT;
        } else if (!rc && (r.t.state != PERF_TASK_RUNNING || r.t.token != e->token)) {
            /* Not ours any more; or just that, when the reply of a first try was lost. */
            bool echo = g->fast && r.t.token == e->token && !strcmp(r.echo, g->echo);
            perf__queue_dynamodb_record_free(q, &r);
            rc = echo ? PERF_OK : PERF_ECONFLICT;
            break;
        } else if (!rc) {
            snprintf(before, sizeof before, "%s", r.how[RESULT]);
            apply_end(&r, g, kept);
            followed = r.followed && perf__task_ended(r.t.state);
            rc = perf__queue_dynamodb_write(q, &r, LIMIT_GIVE, deadline_ns);
            if (rc == PERF_ECONFLICT) /* a beat, or somebody who wants it to stop */
                rc = PERF_EBUSY;
        }
        perf__queue_dynamodb_record_free(q, &r);
        if (rc == PERF_EBUSY && !(rc = perf__queue_dynamodb_pause(q, tries, deadline_ns)))
            continue;
        if (!rc && before[0])
            perf__queue_dynamodb_drop(q, e->id, before, deadline_ns);
        /* The end is kept; those who wait are let go, now or by a sweep. */
        if (!rc && followed)
            (void)!perf__queue_dynamodb_release(q, e->id, e->now_ms, deadline_ns);
        break;
    }
    perf__free(&q->allocator, kept);
    return rc;
}

static void prepare_end(struct dynamodb_queue *q, struct ending *g, perf_queue_end *e,
                        int64_t deadline_ns)
{
    g->end = e;
    pthread_mutex_lock(&q->mutex);
    g->held = *perf__queue_dynamodb_held(q, e->id);
    pthread_mutex_unlock(&q->mutex);
    bool known = g->held.token == e->token && !strcmp(g->held.id, e->id);
    int64_t keep = known ? g->held.keep_ms : 0;
    perf__queue_dynamodb_nonce(q, g->echo);
    e->outcome = perf__queue_dynamodb_blob(q, e->id, e->result,
                                           perf__queue_dynamodb_expires(e->now_ms, keep),
                                           deadline_ns, &g->result);
    g->fast = !e->outcome && known && g->held.plain && perf__task_ended(e->state);
}

static int finish_portion(struct dynamodb_queue *q, perf_queue_end *ends, size_t count,
                          int64_t deadline_ns)
{
    struct ending *endings = perf__calloc(&q->allocator, count, sizeof *endings);
    struct perf__aws_flown *r = perf__calloc(&q->allocator, count, sizeof *r);
    size_t n = 0, at = 0;
    int rc = endings && r ? PERF_OK : perf__fail_nomem("the ends of tasks"), failed = PERF_OK;
    for (size_t i = 0; i < count && !rc; i++) {
        prepare_end(q, &endings[i], &ends[i], deadline_ns);
        if (!endings[i].fast)
            continue;
        r[n].operation = "UpdateItem";
        r[n].body.allocator = &q->allocator;
        put_end(q, &r[n++].body, &endings[i]);
    }
    if (!rc)
        rc = perf__queue_dynamodb_fly(q, r, n, deadline_ns);
    for (size_t i = 0; i < count && !rc; i++) {
        perf_queue_end *e = &ends[i];
        struct ending *g = &endings[i];
        bool slow = !g->fast && !e->outcome;
        if (g->fast) {
            e->outcome = r[at].rc ? perf__queue_dynamodb_say(&r[at]) : PERF_OK;
            at++;
            slow = e->outcome == PERF_ECONFLICT || e->outcome == PERF_EBUSY;
        }
        if (slow)
            e->outcome = finish_slowly(q, g, deadline_ns);
        if (e->outcome == PERF_ECONFLICT && g->result.how[0])
            perf__queue_dynamodb_drop(q, e->id, g->result.how, deadline_ns);
        if (e->outcome && e->outcome != PERF_ECONFLICT)
            failed = (int)e->outcome;
    }
    for (size_t i = 0; i < count && endings; i++)
        perf__queue_dynamodb_blob_free(q, &endings[i].result);
    if (r)
        perf__aws_flown_free(&q->allocator, r, n);
    perf__free(&q->allocator, endings);
    for (size_t i = 0; rc && i < count; i++)
        ends[i].outcome = rc;
    return rc ? rc : failed;
}

static int dynamodb_finish(void *queue, perf_queue_end *ends, size_t count)
{
    struct dynamodb_queue *q = queue;
    int64_t deadline = perf__queue_dynamodb_deadline(q);
    int failed = PERF_OK;
    for (size_t i = 0; i < count; i += PORTION) {
        int rc = finish_portion(q, ends + i, count - i < PORTION ? count - i : PORTION, deadline);
        failed = failed ? failed : rc;
    }
    return failed;
}

const perf_queue_vtable perf__queue_dynamodb = {
    .struct_size = sizeof(perf_queue_vtable),
    .name = "dynamodb",
    .capabilities = PERF_QUEUE_DURABLE | PERF_QUEUE_SHARED | PERF_QUEUE_PRIORITY |
                    PERF_QUEUE_UNIQUE | PERF_QUEUE_LIMIT | PERF_QUEUE_AFTER,
    .open = perf__queue_dynamodb_open,
    .close = perf__queue_dynamodb_close,
    .enqueue = perf__queue_dynamodb_enqueue,
    .claim = perf__queue_dynamodb_claim,
    .extend = dynamodb_extend,
    .finish = dynamodb_finish,
    .get = perf__queue_dynamodb_get,
    .find = perf__queue_dynamodb_find,
    .count = perf__queue_dynamodb_count,
    .control = perf__queue_dynamodb_control,
    .sweep = perf__queue_dynamodb_sweep,
};
