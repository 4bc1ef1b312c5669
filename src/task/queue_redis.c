/* SPDX-License-Identifier: MIT */
/*
 * queue_redis.c - the queue of tasks in Redis: its verbs, and waiting.
 *
 * Every verb is a script that takes many tasks at once, so a batch is one round trip,
 * and the calls of many threads share the client's connection. A call whose
 * connection broke may have been executed: those that can be asked again without harm
 * are, and recognise what they did before.
 *
 * Who waits listens to the store's channel, on which a script says that something came
 * into an empty lane. While nobody can be heard, waits are short. Any thread.
 */
#include "queue_redis_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum {
    BEAT_WORDS = 4,
    END_WORDS = 8,
    CLAIM_MAX = 1000,
    CLAIM_BYTES = 16 << 20, /* a claim gives no more after so many */
    SWEEP_AT_ONCE = 500,
    REDRIVE_AT_ONCE = 500,
    POLL_MS = 100, /* waiting without being told */
};

/* ---------------------------------------------------------------------- claim */

static void note_seen(struct redis_queue *q, uint64_t seen)
{
    pthread_mutex_lock(&q->mutex);
    q->seen[perf__thread_slot()] = seen;
    pthread_mutex_unlock(&q->mutex);
}

static int add_claimed(struct redis_queue *q, const perf_redis_reply *one,
                       const perf_queue_claim *want, perf_queue_reply *reply)
{
    perf_queue_task t = {.state = PERF_TASK_RUNNING,
                         .started_ms = want->now_ms,
                         .lease_until_ms = want->now_ms + want->lease_ms,
                         .worker = want->worker};
    int64_t token;
    const char *id = perf__queue_redis_id(perf_redis_reply_element(one, 0));
    if (!id || !perf__queue_redis_number(perf_redis_reply_element(one, 1), &token) ||
        !perf__queue_redis_number(perf_redis_reply_element(one, 2), &t.attempts))
        return perf__queue_redis_damaged(q, id ? id : "?", "entry in a lane");
    t.token = (uint64_t)token;
    return perf__queue_redis_add(q, id, perf_redis_reply_element(one, 3), &t, reply);
}

static int redis_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply)
{
    struct redis_queue *q = queue;
    struct queue_words w;
    perf_redis_reply *r = NULL;
    size_t before = reply->count;
    pthread_mutex_lock(&q->mutex);
    uint64_t news = q->news;
    pthread_mutex_unlock(&q->mutex);
    note_seen(q, SEEN_FAILED);
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS + want->queues_count + 3 * want->kinds_count,
                                    NUMBER_SIZE * (HEAD_WORDS + 2 * want->kinds_count));
    if (rc)
        return rc;
    perf__queue_words_number(&w, want->now_ms);
    perf__queue_words_number(&w, want->lease_ms);
    perf__queue_words_text(&w, want->worker);
    perf__queue_words_number(&w, want->max < CLAIM_MAX ? (int64_t)want->max : CLAIM_MAX);
    perf__queue_words_number(&w, CLAIM_BYTES);
    perf__queue_words_number(&w, (int64_t)want->queues_count);
    for (size_t i = 0; i < want->queues_count; i++)
        perf__queue_words_text(&w, want->queues[i]);
    for (size_t i = 0; i < want->kinds_count; i++) {
        perf__queue_words_text(&w, want->kinds[i].kind);
        perf__queue_words_number(&w, want->kinds[i].version_min);
        perf__queue_words_number(&w, want->kinds[i].version_max);
    }
    rc = perf__queue_redis_ask(q, SCRIPT_CLAIM, &w, perf__deadline_after(q->timeout_ms), &r);
    perf__queue_words_close(&w);
    /* One that cannot be read is left to its lease; the others are worked on. */
    int failed = PERF_OK;
    for (size_t i = 0; !rc && i < perf_redis_reply_size(r); i++) {
        int one = add_claimed(q, perf_redis_reply_element(r, i), want, reply);
        failed = one ? one : failed;
    }
    perf_redis_reply_release(r);
    if (rc)
        return rc;
    note_seen(q, news);
    return reply->count > before ? PERF_OK : failed ? failed : PERF_MISS;
}

/* ------------------------------------------------------------- extend, finish */

static int read_outcome(const perf_redis_reply *r)
{
    static const int outcomes[] = {PERF_OK, PERF_ECONFLICT, PERF_ECANCELED};
    int64_t number = perf_redis_reply_integer(r);
    if (perf_redis_reply_type(r) != PERF_REDIS_INTEGER)
        return perf__queue_redis_error(r);
    return number >= 0 && number <= 2 ? outcomes[number] : PERF_ECONFLICT;
}

static int extend_portion(struct redis_queue *q, perf_queue_beat *beats, size_t count,
                          int64_t now_ms, int64_t deadline_ns)
{
    struct queue_words w;
    perf_redis_reply *r = NULL;
    size_t text = (HEAD_WORDS + 2 * count) * NUMBER_SIZE;
    for (size_t i = 0; i < count; i++)
        text += PERF__PROGRESS_SIZE + (beats[i].text ? strlen(beats[i].text) : 0);
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS + BEAT_WORDS * count, text);
    if (rc)
        return rc;
    perf__queue_words_number(&w, now_ms);
    for (size_t i = 0; i < count; i++) {
        const perf_queue_beat *b = &beats[i];
        perf__queue_words_text(&w, b->id);
        perf__queue_words_number(&w, (int64_t)b->token);
        perf__queue_words_number(&w, perf__queue_redis_bounded(b->lease_until_ms));
        char *from = w.at;
        w.at += perf__progress_write(from, b);
        w.at = stpcpy(w.at, b->text ? b->text : "") + 1;
        perf__queue_words_text(&w, from);
    }
    for (int i = 0; i < TRIES; i++) {
        rc = perf__queue_redis_ask(q, SCRIPT_EXTEND, &w, deadline_ns, &r);
        if (rc != PERF_EIO)
            break;
    }
    perf__queue_words_close(&w);
    if (!rc)
        rc = perf__queue_redis_count_is(r, count);
    for (size_t i = 0; !rc && i < count; i++)
        beats[i].status = read_outcome(perf_redis_reply_element(r, i));
    perf_redis_reply_release(r);
    return rc;
}

static int redis_extend(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms)
{
    struct redis_queue *q = queue;
    int64_t deadline = perf__deadline_after(q->timeout_ms);
    int rc = PERF_OK;
    for (size_t i = 0; i < count && !rc; i += PORTION)
        rc = extend_portion(q, beats + i, count - i < PORTION ? count - i : PORTION, now_ms,
                            deadline);
    return rc;
}

static int check_end(const perf_queue_end *e)
{
    if (e->result.len > BYTES_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "a result of %zu bytes is more than the %d that the queue \"redis\" "
                          "takes; put it elsewhere and return its name",
                          e->result.len, BYTES_MAX);
    return PERF_OK;
}

static int finish_portion(struct redis_queue *q, perf_queue_end *ends, size_t count,
                          int64_t deadline_ns)
{
    struct queue_words w;
    perf_redis_reply *r = NULL;
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS + END_WORDS * count,
                                    NUMBER_SIZE * (HEAD_WORDS + END_WORDS * count));
    if (rc)
        return rc;
    perf__queue_words_number(&w, 0);
    perf__queue_words_text(&w, "0");
    for (size_t i = 0; i < count; i++) {
        const perf_queue_end *e = &ends[i];
        perf__queue_words_text(&w, e->id);
        perf__queue_words_number(&w, (int64_t)e->token);
        perf__queue_words_number(&w, e->state);
        perf__queue_words_number(&w, perf__queue_redis_bounded(e->due_ms));
        perf__queue_words_number(&w, e->now_ms);
        perf__queue_words_number(&w, e->status);
        perf__queue_words_text(&w, e->error ? e->error : "");
        perf__queue_words_add(&w, e->result.len ? e->result : (perf_bytes){"", 0});
    }
    for (int i = 0; i < TRIES; i++) {
        rc = perf__queue_redis_ask(q, SCRIPT_FINISH, &w, deadline_ns, &r);
        if (rc != PERF_EIO)
            break;
        w.words[2] = (perf_bytes){"1", 1}; /* it may have been kept already */
    }
    perf__queue_words_close(&w);
    if (!rc)
        rc = perf__queue_redis_count_is(r, count);
    for (size_t i = 0; !rc && i < count; i++)
        ends[i].outcome = read_outcome(perf_redis_reply_element(r, i));
    perf_redis_reply_release(r);
    return rc;
}

static int redis_finish(void *queue, perf_queue_end *ends, size_t count)
{
    struct redis_queue *q = queue;
    int64_t deadline = perf__deadline_after(q->timeout_ms);
    int failed = PERF_OK;
    for (size_t i = 0; i < count;) {
        size_t n = 0, bytes = 0;
        int rc = PERF_OK;
        for (; i + n < count && n < PORTION; n++) {
            bytes += ends[i + n].result.len;
            if ((n && bytes > PORTION_BYTES) || (rc = check_end(&ends[i + n])))
                break;
        }
        if (n)
            rc = finish_portion(q, ends + i, n, deadline);
        n = n ? n : 1;
        for (size_t j = i; rc && j < i + n; j++)
            ends[j].outcome = rc;
        failed = rc && !failed ? rc : failed;
        i += n;
    }
    return failed;
}

/* --------------------------------------------------------------- steer, upkeep */

static int steer(struct redis_queue *q, const char *verb, const char *name, int64_t now_ms,
                 const char *from, perf_redis_reply **r)
{
    struct queue_words w;
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS, 2 * NUMBER_SIZE);
    if (rc)
        return rc;
    perf__queue_words_number(&w, now_ms);
    perf__queue_words_text(&w, verb);
    perf__queue_words_text(&w, name);
    perf__queue_words_text(&w, from);
    perf__queue_words_number(&w, REDRIVE_AT_ONCE);
    rc = perf__queue_redis_ask(q, SCRIPT_STEER, &w, perf__deadline_after(q->timeout_ms), r);
    perf__queue_words_close(&w);
    return rc;
}

static int redrive_all(struct redis_queue *q, const char *name, int64_t now_ms, uint64_t *n)
{
    char from[NUMBER_SIZE + 8] = "0";
    int rc = PERF_OK;
    while (!rc && from[0]) {
        perf_redis_reply *r = NULL;
        rc = steer(q, "all", name, now_ms, from, &r);
        if (!rc) {
            *n += (uint64_t)perf_redis_reply_integer(perf_redis_reply_element(r, 0));
            snprintf(from, sizeof from, "%s",
                     perf_redis_reply_data(perf_redis_reply_element(r, 1)));
        }
        perf_redis_reply_release(r);
    }
    return rc;
}

static int redis_control(void *queue, int verb, const char *name, int64_t now_ms, uint64_t *n)
{
    static const char *const verbs[] = {NULL,     "cancel", "redrive", "all",
                                        "remove", "pause",  "resume"};
    struct redis_queue *q = queue;
    perf_redis_reply *r = NULL;
    *n = 0;
    if (verb < PERF_QUEUE_CANCEL || verb > PERF_QUEUE_RESUME)
        return perf__fail(PERF_EINVAL,
                          "control was asked for %d; give PERF_QUEUE_CANCEL or another", verb);
    if (verb == PERF_QUEUE_REDRIVE_ALL)
        return redrive_all(q, name, now_ms, n);
    int rc = steer(q, verbs[verb], name, now_ms, "", &r);
    int64_t done = perf_redis_reply_integer(r);
    perf_redis_reply_release(r);
    if (rc)
        return rc;
    if (done == 2)
        return perf__fail(PERF_EBUSY, "task \"%.71s\" has not ended; cancel it first", name);
    *n = done > 0;
    return done || verb >= PERF_QUEUE_PAUSE ? PERF_OK : PERF_MISS;
}

static int sweep_some(struct redis_queue *q, int64_t now_ms, size_t budget, int64_t deadline_ns,
                      perf_queue_swept *swept, int64_t *most)
{
    struct queue_words w;
    perf_redis_reply *r = NULL;
    int64_t numbers[4] = {0};
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS, 2 * NUMBER_SIZE);
    if (rc)
        return rc;
    perf__queue_words_number(&w, now_ms);
    perf__queue_words_number(&w, (int64_t)budget);
    rc = perf__queue_redis_ask(q, SCRIPT_SWEEP, &w, deadline_ns, &r);
    perf__queue_words_close(&w);
    if (!rc)
        rc = perf__queue_redis_count_is(r, 6);
    for (size_t i = 0; !rc && i < 4; i++)
        numbers[i] = perf_redis_reply_integer(perf_redis_reply_element(r, i));
    if (!rc) {
        const perf_redis_reply *next = perf_redis_reply_element(r, 4);
        *most = numbers[0];
        swept->rescued += (uint64_t)numbers[1];
        swept->dead += (uint64_t)numbers[2];
        swept->removed += (uint64_t)numbers[3];
        swept->next_ms = 0;
        (void)perf__queue_redis_number(next, &swept->next_ms);
        rc = perf__queue_redis_error(perf_redis_reply_element(r, 5));
    }
    perf_redis_reply_release(r);
    return rc;
}

static int redis_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    struct redis_queue *q = queue;
    int64_t deadline = perf__deadline_after(q->timeout_ms);
    while (budget) {
        size_t some = budget < SWEEP_AT_ONCE ? budget : SWEEP_AT_ONCE;
        int64_t most = 0;
        int rc = sweep_some(q, now_ms, some, deadline, swept, &most);
        if (rc || most < (int64_t)some)
            return rc;
        budget -= some;
    }
    return PERF_OK;
}

/* ----------------------------------------------------------------------- wait */

/* The client's I/O thread. */
static void heard(void *ctx, perf_redis_subscriber *subscriber, const perf_redis_message *message)
{
    struct redis_queue *q = ctx;
    (void)subscriber;
    pthread_mutex_lock(&q->mutex);
    q->hears = message->kind != PERF_REDIS_DISCONNECTED;
    q->news++; /* also when it comes or goes: then anything may have been missed */
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

/* Begins to listen when somebody waits for the first time. */
static void listen(struct redis_queue *q)
{
    pthread_mutex_lock(&q->mutex);
    bool mine = !q->subscriber && !q->opening;
    q->opening = q->opening || mine;
    pthread_mutex_unlock(&q->mutex);
    if (!mine)
        return;
    char channel[BASE_MAX + 8];
    int len = snprintf(channel, sizeof channel, "%s:news", q->base);
    perf_redis_subscriber *subscriber = NULL;
    perf_redis_subscriber_options o = PERF_REDIS_SUBSCRIBER_OPTIONS_INIT;
    o.message = heard;
    o.message_ctx = q;
    if (!perf_redis_subscriber_open(q->redis, &o, &subscriber) &&
        perf_redis_subscribe(subscriber, channel, (size_t)len)) {
        (void)!perf_redis_subscriber_close(subscriber);
        subscriber = NULL;
    }
    pthread_mutex_lock(&q->mutex);
    q->subscriber = subscriber;
    q->opening = false;
    pthread_mutex_unlock(&q->mutex);
}

static int redis_wait(void *queue, int64_t timeout_ms)
{
    struct redis_queue *q = queue;
    if (timeout_ms > 0)
        listen(q);
    pthread_mutex_lock(&q->mutex);
    if (timeout_ms < 0) {
        q->wakes++;
        pthread_cond_broadcast(&q->changed);
    } else if (timeout_ms > 0) {
        uint64_t seen = q->seen[perf__thread_slot()], wakes = q->wakes;
        /* Threads without a number of their own share the first. */
        bool told = q->hears && seen != SEEN_FAILED && perf__thread_slot();
        int64_t deadline =
            perf__deadline_after(told || timeout_ms < POLL_MS ? timeout_ms : POLL_MS);
        while ((q->news == seen || seen == SEEN_FAILED) && q->wakes == wakes &&
               perf__cond_wait(&q->changed, &q->mutex, deadline))
            continue;
    }
    pthread_mutex_unlock(&q->mutex);
    return PERF_OK;
}

const perf_queue_vtable perf__queue_redis = {
    .struct_size = sizeof(perf_queue_vtable),
    .name = "redis",
    .capabilities = PERF_QUEUE_DURABLE | PERF_QUEUE_SHARED | PERF_QUEUE_PRIORITY |
                    PERF_QUEUE_UNIQUE | PERF_QUEUE_LIMIT | PERF_QUEUE_AFTER,
    .open = perf__queue_redis_open,
    .close = perf__queue_redis_close,
    .enqueue = perf__queue_redis_enqueue,
    .claim = redis_claim,
    .extend = redis_extend,
    .finish = redis_finish,
    .get = perf__queue_redis_get,
    .find = perf__queue_redis_find,
    .count = perf__queue_redis_count,
    .control = redis_control,
    .sweep = redis_sweep,
    .wait = redis_wait,
};
