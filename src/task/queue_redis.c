/* SPDX-License-Identifier: MIT */
/*
 * queue_redis.c - the queue of tasks in Redis: its verbs, and waiting.
 *
 * Every verb is a script that takes many tasks at once, so a batch is one round trip,
 * and the calls of many threads share the client's connection. A call whose
 * connection broke may have been executed: those that can be asked again without harm
 * are, and recognise what they did before. Submissions of threads that would wait for the
 * server anyway share a call.
 *
 * Who waits listens to the store's channel, on which a script says that something came
 * into an empty lane. While nobody can be heard, waits are short. Any thread.
 */
#include "queue_redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "turn.h"

enum {
    TASK_WORDS = 44, /* of one task to be enqueued */
    TASK_NUMBERS = 14,
    BEAT_WORDS = 4,
    END_WORDS = 8,
    HEAD_WORDS = 10,
    PROGRESS_SIZE = 128, /* without its text */
    CLAIM_MAX = 1000,
    CLAIM_BYTES = 16 << 20, /* a claim gives no more after so many */
    SWEEP_AT_ONCE = 500,
    REDRIVE_AT_ONCE = 500,
    LOOK_AT = 2000, /* tasks that one find looks at */
    TRIES = 4,
    SENDING_MAX = 2, /* calls that submit, at once */
    ERROR_MAX = 512,
    POLL_MS = 100, /* waiting without being told */
    UNIQUE_MAX = 2048
};

/* -------------------------------------------------------------- asking scripts */

/* Arguments of a script, the first of them KEYS[1]; numbers and other texts lie behind them. */
struct words {
    const perf_allocator *allocator;
    perf_bytes *words;
    size_t count;
    char *at;
};

static int words_open(struct words *w, struct redis_queue *q, size_t words, size_t text)
{
    *w = (struct words){.allocator = &q->allocator};
    w->words = perf__alloc(w->allocator, words * sizeof *w->words + text);
    if (!w->words)
        return perf__fail_nomem("a call of the redis queue");
    w->at = (char *)(w->words + words);
    w->words[w->count++] = (perf_bytes){q->base, strlen(q->base)};
    return PERF_OK;
}

static void add_bytes(struct words *w, perf_bytes bytes)
{
    w->words[w->count++] = bytes;
}

static void add_text(struct words *w, const char *text)
{
    add_bytes(w, (perf_bytes){text, strlen(text)});
}

static void add_number(struct words *w, int64_t number)
{
    char *from = w->at;
    w->at += snprintf(from, NUMBER_SIZE, "%" PRId64, number) + 1;
    add_bytes(w, (perf_bytes){from, (size_t)(w->at - from) - 1});
}

static void words_close(struct words *w)
{
    perf__free(w->allocator, w->words);
}

/* Milliseconds that are left, 1 at least. */
static int64_t left_of(int64_t deadline_ns)
{
    int64_t left = perf__deadline_left(deadline_ns);
    return left ? left : 1; /* 0 would be the client's own */
}

/* PERF_EBUSY says something about a task; a server's, or the client's, does not. */
static int ask(struct redis_queue *q, enum queue_script script, const struct words *w,
               int64_t deadline_ns, perf_redis_reply **out)
{
    int rc = perf_redis_script_call(q->redis, q->scripts[script], 1, w->count, w->words,
                                    left_of(deadline_ns), out);
    if (rc == PERF_EREMOTE)
        rc = perf__queue_redis_fail(rc, perf_last_error());
    return rc == PERF_EBUSY ? perf__fail(PERF_EUNAVAILABLE, "the Redis server, or its client, is "
                                                            "busy; try again later")
                            : rc;
}

/* An array of count answers, or PERF_EPROTOCOL. */
static int check_count(const perf_redis_reply *r, size_t count)
{
    return perf_redis_reply_type(r) == PERF_REDIS_ARRAY && perf_redis_reply_size(r) == count
               ? PERF_OK
               : perf__fail(PERF_EPROTOCOL, "a Redis server answered %zu of %zu tasks of a queue",
                            perf_redis_reply_size(r), count);
}

/* The error that an answer is, or PERF_OK. */
static int error_of(const perf_redis_reply *r)
{
    int rc = perf_redis_reply_status(r);
    return rc ? perf__queue_redis_fail(rc, perf_redis_reply_data(r)) : PERF_OK;
}

/* -------------------------------------------------------------------- enqueue */

static int64_t bounded(int64_t number)
{
    return number < EXACT_MAX / 2 ? number : EXACT_MAX / 2;
}

static int check_task(const perf_queue_task *t)
{
    const struct {
        const char *name;
        int64_t number;
    } exact[] = {{"due_ms", t->due_ms},   {"rank", t->rank},
                 {"version", t->version}, {"created_ms", t->created_ms},
                 {"limit", t->limit},     {"max_attempts", t->max_attempts}};
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (exact[i].number > EXACT_MAX || exact[i].number < -EXACT_MAX)
            return perf__fail(PERF_EINVAL,
                              "%s of a task is %" PRId64 "; the queue \"redis\" keeps numbers up "
                              "to 2^53",
                              exact[i].name, exact[i].number);
    if (t->payload.len > BYTES_MAX)
        return perf__fail(PERF_ETOOBIG,
                          "a payload of %zu bytes is more than the %d that the queue \"redis\" "
                          "takes; put it elsewhere and submit its name",
                          t->payload.len, BYTES_MAX);
    return perf__check_len("perf_submit_options.unique_key", strlen(t->unique_key), 0, UNIQUE_MAX);
}

static void add_field(struct words *w, const char *name, const char *text)
{
    if (!text[0])
        return;
    add_text(w, name);
    add_text(w, text);
}

static void add_number_field(struct words *w, const char *name, int64_t number)
{
    if (!number)
        return;
    add_text(w, name);
    add_number(w, number);
}

/* In the order that the script expects: eight fields that every task has, then others. */
static void add_task(struct words *w, const perf_queue_task *t)
{
    add_text(w, t->id);
    size_t length = w->count++, from = w->count;
    add_text(w, "queue");
    add_text(w, t->queue);
    add_text(w, "kind");
    add_text(w, t->kind);
    add_text(w, "version");
    add_number(w, t->version);
    add_text(w, "due");
    add_number(w, t->due_ms);
    add_text(w, "rank");
    add_number(w, t->rank);
    add_text(w, "created");
    add_number(w, t->created_ms);
    add_text(w, "keep");
    add_number(w, bounded(t->keep_ms));
    add_text(w, "max");
    add_number(w, t->max_attempts);
    add_field(w, "user", t->user);
    add_field(w, "batch", t->batch);
    add_number_field(w, "priority", t->priority);
    add_number_field(w, "deadline", bounded(t->deadline_ms));
    add_number_field(w, "timeout", t->timeout_ms);
    add_field(w, "unique", t->unique_key);
    add_number_field(w, "unique_until", t->unique_key[0] ? bounded(t->unique_until_ms) : 0);
    add_field(w, "limit_key", t->limit_key);
    add_number_field(w, "limit", !t->limit_key[0] ? 0 : t->limit < 1 ? 1 : t->limit);
    add_field(w, "after", t->after);
    add_number_field(w, "any", t->after[0] && t->after_any_end);
    if (t->payload.len) {
        add_text(w, "payload");
        add_bytes(w, t->payload);
    }
    size_t end = w->count;
    w->count = length;
    add_number(w, (int64_t)(end - from));
    w->count = end;
}

/* 0; an id that is there; or in an array the id that after names in vain. */
static int read_enqueued(const perf_redis_reply *r, char existing[72])
{
    const char *id = perf_redis_reply_data(r);
    switch (perf_redis_reply_type(r)) {
    case PERF_REDIS_INTEGER:
        return PERF_OK;
    case PERF_REDIS_STRING:
        snprintf(existing, 72, "%s", id);
        return PERF_EEXISTS;
    case PERF_REDIS_ARRAY:
        return perf__fail(PERF_EINVAL,
                          "perf_submit_options.after names \"%.71s\", and there is no such task; "
                          "submit it first, or keep its record longer",
                          perf_redis_reply_data(perf_redis_reply_element(r, 0)));
    default:
        return error_of(r);
    }
}

/* Tasks of one caller, on its stack. */
struct submission {
    struct submission *next;
    _Atomic uint32_t turn;
    const perf_queue_task *tasks;
    size_t count, bytes;
    int *statuses;
    char (*existing)[72];
    int64_t now_ms, deadline_ns;
    int rc;                /* of the call; what became of tasks is in statuses */
    char error[ERROR_MAX]; /* the last sentence, for the caller's thread */
};

static void keep_error(struct submission *s)
{
    size_t len = strnlen(perf_last_error(), ERROR_MAX - 1);
    memcpy(s->error, perf_last_error(), len);
    s->error[len] = 0;
}

/* One call for several submissions, which lasts until the last of their deadlines. */
static int call_enqueue(struct redis_queue *q, const struct submission *first, size_t count,
                        perf_redis_reply **r)
{
    struct words w;
    char call[40];
    int64_t now = 0, deadline = 0;
    int rc = words_open(&w, q, HEAD_WORDS + count * TASK_WORDS,
                        NUMBER_SIZE * (HEAD_WORDS + count * TASK_NUMBERS));
    if (rc)
        return rc;
    for (const struct submission *s = first; s; s = s->next) {
        now = s->now_ms > now ? s->now_ms : now;
        deadline = s->deadline_ns > deadline ? s->deadline_ns : deadline;
    }
    /* What this very call has stored is no duplicate, when it has to be asked again. */
    snprintf(call, sizeof call, "%016" PRIx64 "%" PRIx64 ".", q->origin,
             atomic_fetch_add(&q->calls, 1));
    add_number(&w, now);
    add_text(&w, call);
    add_number(&w, (int64_t)count);
    for (const struct submission *s = first; s; s = s->next)
        for (size_t i = 0; i < s->count; i++)
            add_task(&w, &s->tasks[i]);
    for (int i = 0; i < TRIES; i++) {
        rc = ask(q, SCRIPT_ENQUEUE, &w, deadline, r);
        if (rc != PERF_EIO)
            break;
    }
    words_close(&w);
    return rc ? rc : check_count(*r, count);
}

/* Sends a list, and gives each what became of it. */
static void send_list(struct redis_queue *q, struct submission *first)
{
    perf_redis_reply *r = NULL;
    size_t count = 0, at = 0;
    for (const struct submission *s = first; s; s = s->next)
        count += s->count;
    int rc = call_enqueue(q, first, count, &r);
    for (struct submission *s = first; s; s = s->next) {
        bool failed = rc != PERF_OK;
        s->rc = rc;
        for (size_t i = 0; !rc && i < s->count; i++) {
            s->statuses[i] = read_enqueued(perf_redis_reply_element(r, at++), s->existing[i]);
            failed = failed || (s->statuses[i] && s->statuses[i] != PERF_EEXISTS);
        }
        if (failed)
            keep_error(s);
    }
    perf_redis_reply_release(r);
}

/* Takes from those that wait as many as go in one call; NULL: nobody waits. With the mutex. */
static struct submission *take_list(struct redis_queue *q)
{
    struct submission *first = q->first, *last = first;
    if (!first)
        return NULL;
    size_t count = first->count, bytes = first->bytes;
    while (last->next && count + last->next->count <= PORTION &&
           bytes + last->next->bytes <= PORTION_BYTES) {
        last = last->next;
        count += last->count;
        bytes += last->bytes;
    }
    q->first = last->next;
    if (!q->first)
        q->last = &q->first;
    last->next = NULL;
    return first;
}

/*
 * Sends what is given together with what other threads bring meanwhile: a script that takes many
 * tasks costs the server little more than one that takes a single task. As long as few calls
 * are under way nobody waits for company; who comes later is sent by the first of those who wait.
 */
static int submit(struct redis_queue *q, struct submission *own)
{
    pthread_mutex_lock(&q->mutex);
    bool leads = q->sending < SENDING_MAX;
    q->sending += leads;
    if (!leads) {
        *q->last = own;
        q->last = &own->next;
    }
    pthread_mutex_unlock(&q->mutex);
    if (!leads)
        leads = perf__turn_wait(&own->turn) == TURN_LEADS;
    if (leads) {
        send_list(q, own);
        pthread_mutex_lock(&q->mutex);
        struct submission *leader = take_list(q);
        q->sending -= !leader;
        pthread_mutex_unlock(&q->mutex);
        if (leader)
            perf__turn_tell(&leader->turn, TURN_LEADS);
        for (struct submission *s = own->next, *next; s; s = next) {
            next = s->next;
            perf__turn_tell(&s->turn, TURN_DONE);
        }
    }
    return own->rc;
}

/* How many of the first tasks are sound and go in one call; 0: the first is not, and rc says why.
 */
static size_t portion_of(const perf_queue_task *tasks, size_t count, size_t *bytes, int *rc)
{
    size_t n = 0;
    *bytes = 0;
    *rc = PERF_OK;
    for (; n < count && n < PORTION; n++) {
        if ((n && *bytes + tasks[n].payload.len > PORTION_BYTES) || (*rc = check_task(&tasks[n])))
            break;
        *bytes += tasks[n].payload.len;
    }
    return n;
}

static int redis_enqueue(void *queue, const perf_queue_task *tasks, size_t count, void *transaction,
                         int64_t now_ms, int *statuses, char (*existing)[72])
{
    struct redis_queue *q = queue;
    int64_t deadline = perf__deadline_after(q->timeout_ms);
    int failed = PERF_OK;
    (void)transaction; /* refused before it comes here */
    for (size_t i = 0; i < count;) {
        int rc;
        size_t bytes, n = portion_of(tasks + i, count - i, &bytes, &rc);
        if (n) {
            struct submission own = {.tasks = tasks + i,
                                     .count = n,
                                     .bytes = bytes,
                                     .statuses = statuses + i,
                                     .existing = existing + i,
                                     .now_ms = now_ms,
                                     .deadline_ns = deadline};
            rc = submit(q, &own);
            if (own.error[0])
                perf__fail(rc, "%s", own.error);
        }
        n = n ? n : 1;
        for (size_t j = i; j < i + n; j++) {
            statuses[j] = rc ? rc : statuses[j];
            if (statuses[j] && statuses[j] != PERF_EEXISTS && !failed)
                failed = statuses[j];
        }
        i += n;
    }
    return failed;
}

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
    struct words w;
    perf_redis_reply *r = NULL;
    size_t before = reply->count;
    pthread_mutex_lock(&q->mutex);
    uint64_t news = q->news;
    pthread_mutex_unlock(&q->mutex);
    note_seen(q, SEEN_FAILED);
    int rc = words_open(&w, q, HEAD_WORDS + want->queues_count + 3 * want->kinds_count,
                        NUMBER_SIZE * (HEAD_WORDS + 2 * want->kinds_count));
    if (rc)
        return rc;
    add_number(&w, want->now_ms);
    add_number(&w, want->lease_ms);
    add_text(&w, want->worker);
    add_number(&w, want->max < CLAIM_MAX ? (int64_t)want->max : CLAIM_MAX);
    add_number(&w, CLAIM_BYTES);
    add_number(&w, (int64_t)want->queues_count);
    for (size_t i = 0; i < want->queues_count; i++)
        add_text(&w, want->queues[i]);
    for (size_t i = 0; i < want->kinds_count; i++) {
        add_text(&w, want->kinds[i].kind);
        add_number(&w, want->kinds[i].version_min);
        add_number(&w, want->kinds[i].version_max);
    }
    rc = ask(q, SCRIPT_CLAIM, &w, perf__deadline_after(q->timeout_ms), &r);
    words_close(&w);
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
        return error_of(r);
    return number >= 0 && number <= 2 ? outcomes[number] : PERF_ECONFLICT;
}

static int extend_portion(struct redis_queue *q, perf_queue_beat *beats, size_t count,
                          int64_t now_ms, int64_t deadline_ns)
{
    struct words w;
    perf_redis_reply *r = NULL;
    size_t text = (HEAD_WORDS + 2 * count) * NUMBER_SIZE;
    for (size_t i = 0; i < count; i++)
        text += PROGRESS_SIZE + (beats[i].text ? strlen(beats[i].text) : 0);
    int rc = words_open(&w, q, HEAD_WORDS + BEAT_WORDS * count, text);
    if (rc)
        return rc;
    add_number(&w, now_ms);
    for (size_t i = 0; i < count; i++) {
        const perf_queue_beat *b = &beats[i];
        add_text(&w, b->id);
        add_number(&w, (int64_t)b->token);
        add_number(&w, bounded(b->lease_until_ms));
        char *from = w.at;
        w.at += sprintf(from, "%" PRIu64 " %.6g %" PRIu64 " %" PRIu64 " %s", b->token, b->fraction,
                        b->done, b->total, b->text ? b->text : "") +
                1;
        add_text(&w, from);
    }
    for (int i = 0; i < TRIES; i++) {
        rc = ask(q, SCRIPT_EXTEND, &w, deadline_ns, &r);
        if (rc != PERF_EIO)
            break;
    }
    words_close(&w);
    if (!rc)
        rc = check_count(r, count);
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
    if (!perf__task_ended(e->state) && e->state != PERF_TASK_RETRYING &&
        e->state != PERF_TASK_WAITING)
        return perf__fail(PERF_EINVAL,
                          "perf_queue_end.state is %lld; give an end, RETRYING or WAITING",
                          (long long)e->state);
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
    struct words w;
    perf_redis_reply *r = NULL;
    int rc = words_open(&w, q, HEAD_WORDS + END_WORDS * count,
                        NUMBER_SIZE * (HEAD_WORDS + END_WORDS * count));
    if (rc)
        return rc;
    add_number(&w, 0);
    add_text(&w, "0");
    for (size_t i = 0; i < count; i++) {
        const perf_queue_end *e = &ends[i];
        add_text(&w, e->id);
        add_number(&w, (int64_t)e->token);
        add_number(&w, e->state);
        add_number(&w, bounded(e->due_ms));
        add_number(&w, e->now_ms);
        add_number(&w, e->status);
        add_text(&w, e->error ? e->error : "");
        add_bytes(&w, e->result.len ? e->result : (perf_bytes){"", 0});
    }
    for (int i = 0; i < TRIES; i++) {
        rc = ask(q, SCRIPT_FINISH, &w, deadline_ns, &r);
        if (rc != PERF_EIO)
            break;
        w.words[2] = (perf_bytes){"1", 1}; /* it may have been kept already */
    }
    words_close(&w);
    if (!rc)
        rc = check_count(r, count);
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

/* ----------------------------------------------------------------------- look */

static int redis_get(void *queue, const char *id, perf_queue_reply *reply)
{
    struct redis_queue *q = queue;
    char key[BASE_MAX + 80];
    perf_redis_reply *r = NULL;
    int len = snprintf(key, sizeof key, "%s:t:%s", q->base, id);
    if (len < 0 || (size_t)len >= sizeof key)
        return PERF_MISS; /* no id is so long */
    const perf_bytes argv[] = {{"HGETALL", 7}, {key, (size_t)len}};
    int rc = perf_redis_call(q->redis, 2, argv, q->timeout_ms, &r);
    if (rc == PERF_EREMOTE &&
        perf_redis_error_kind(perf_last_error()) == PERF_REDIS_ERROR_WRONGTYPE)
        return perf__queue_redis_damaged(q, id, "type");
    if (!rc)
        rc = perf_redis_reply_size(r) ? perf__queue_redis_add(q, id, r, NULL, reply) : PERF_MISS;
    perf_redis_reply_release(r);
    return rc;
}

/* A filter's text: nothing, or = and what it must be. */
static void add_wanted(struct words *w, const char *text)
{
    if (!text) {
        add_text(w, "");
        return;
    }
    char *from = w->at;
    w->at += sprintf(from, "=%s", text) + 1;
    add_text(w, from);
}

static size_t length_of(const char *text)
{
    return text ? strlen(text) + 2 : 0;
}

static int redis_find(void *queue, const perf_queue_filter *f, perf_queue_reply *reply)
{
    struct redis_queue *q = queue;
    struct words w;
    perf_redis_reply *r = NULL;
    char before[NUMBER_SIZE] = "+inf";
    if (f->cursor) {
        size_t len = strlen(f->cursor);
        if (!len || len > 16 || strspn(f->cursor, "0123456789") != len)
            return perf__fail(PERF_EINVAL, "perf_tasks_filter.cursor is none of this queue's; give "
                                           "the one of the page before");
        snprintf(before, sizeof before, "(%s", f->cursor);
    }
    int rc = words_open(&w, q, HEAD_WORDS + 6,
                        HEAD_WORDS * NUMBER_SIZE + length_of(f->user) + length_of(f->batch) +
                            length_of(f->queue) + length_of(f->kind));
    if (rc)
        return rc;
    add_number(&w, 0);
    add_text(&w, before);
    add_number(&w, f->limit > 0 ? f->limit : 100);
    add_number(&w, LOOK_AT);
    add_wanted(&w, f->user);
    add_wanted(&w, f->batch);
    add_wanted(&w, f->queue);
    add_wanted(&w, f->kind);
    add_number(&w, f->state);
    rc = ask(q, SCRIPT_FIND, &w, perf__deadline_after(q->timeout_ms), &r);
    words_close(&w);
    for (size_t i = 1; !rc && i < perf_redis_reply_size(r); i++) {
        const perf_redis_reply *one = perf_redis_reply_element(r, i);
        const char *id = perf__queue_redis_id(perf_redis_reply_element(one, 0));
        rc = id ? perf__queue_redis_add(q, id, perf_redis_reply_element(one, 3), NULL, reply)
                : perf__queue_redis_damaged(q, "?", "entry in a list");
    }
    if (!rc && perf_redis_reply_size(perf_redis_reply_element(r, 0)))
        rc = perf_queue_reply_cursor(reply, perf_redis_reply_data(perf_redis_reply_element(r, 0)));
    perf_redis_reply_release(r);
    return rc;
}

static int read_counts(struct redis_queue *q, const perf_redis_reply *r, perf_queue_counts *counts)
{
    const perf_redis_reply *due = perf_redis_reply_element(r, 0);
    const perf_redis_reply *pairs = perf_redis_reply_element(r, 1);
    int64_t number;
    if (perf_redis_reply_size(due) && !perf__queue_redis_number(due, &counts->oldest_due_ms))
        return perf__fail(PERF_ECORRUPT, "redis queue: a task of %s:t: has a due that is none",
                          q->base);
    for (size_t i = 0; i + 1 < perf_redis_reply_size(pairs); i += 2) {
        const char *name = perf_redis_reply_data(perf_redis_reply_element(pairs, i));
        if (!strcmp(name, "paused"))
            counts->paused = 1;
        if (name[0] < '1' || name[0] > '8' || name[1])
            continue;
        if (!perf__queue_redis_number(perf_redis_reply_element(pairs, i + 1), &number) ||
            number < 0)
            return perf__fail(PERF_ECORRUPT,
                              "redis queue: the count %s of a queue under %s:q: is none", name,
                              q->base);
        counts->by_state[name[0] - '0'] = (uint64_t)number;
    }
    return PERF_OK;
}

static int redis_count(void *queue, const char *name, int64_t now_ms, perf_queue_counts *counts)
{
    struct redis_queue *q = queue;
    struct words w;
    perf_redis_reply *r = NULL;
    int rc = words_open(&w, q, HEAD_WORDS, NUMBER_SIZE);
    if (rc)
        return rc;
    add_number(&w, now_ms);
    add_text(&w, name);
    rc = ask(q, SCRIPT_COUNT, &w, perf__deadline_after(q->timeout_ms), &r);
    words_close(&w);
    if (!rc)
        rc = read_counts(q, r, counts);
    perf_redis_reply_release(r);
    return rc;
}

/* --------------------------------------------------------------- steer, upkeep */

static int steer(struct redis_queue *q, const char *verb, const char *name, int64_t now_ms,
                 const char *from, perf_redis_reply **r)
{
    struct words w;
    int rc = words_open(&w, q, HEAD_WORDS, 2 * NUMBER_SIZE);
    if (rc)
        return rc;
    add_number(&w, now_ms);
    add_text(&w, verb);
    add_text(&w, name);
    add_text(&w, from);
    add_number(&w, REDRIVE_AT_ONCE);
    rc = ask(q, SCRIPT_STEER, &w, perf__deadline_after(q->timeout_ms), r);
    words_close(&w);
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
    struct words w;
    perf_redis_reply *r = NULL;
    int64_t numbers[4] = {0};
    int rc = words_open(&w, q, HEAD_WORDS, 2 * NUMBER_SIZE);
    if (rc)
        return rc;
    add_number(&w, now_ms);
    add_number(&w, (int64_t)budget);
    rc = ask(q, SCRIPT_SWEEP, &w, deadline_ns, &r);
    words_close(&w);
    if (!rc)
        rc = check_count(r, 6);
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
        rc = error_of(perf_redis_reply_element(r, 5));
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
    .enqueue = redis_enqueue,
    .claim = redis_claim,
    .extend = redis_extend,
    .finish = redis_finish,
    .get = redis_get,
    .find = redis_find,
    .count = redis_count,
    .control = redis_control,
    .sweep = redis_sweep,
    .wait = redis_wait,
};
