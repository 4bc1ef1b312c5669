/* SPDX-License-Identifier: MIT */
/*
 * queue_redis_enqueue.c - how tasks come into the Redis queue.
 *
 * A call may be sent again when its connection broke, and recognises what it did before.
 * Submissions of threads that would wait for the server anyway share a call. Any thread.
 */
#include "queue_redis_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "turn.h"

enum {
    TASK_WORDS = 44, /* of one task */
    TASK_NUMBERS = 14,
    SENDING_MAX = 2, /* calls at once */
    ERROR_MAX = 512,
    UNIQUE_MAX = 2048
};

/* -------------------------------------------------------------------- enqueue */

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

static void add_field(struct queue_words *w, const char *name, const char *text)
{
    if (!text[0])
        return;
    perf__queue_words_text(w, name);
    perf__queue_words_text(w, text);
}

static void add_number_field(struct queue_words *w, const char *name, int64_t number)
{
    if (!number)
        return;
    perf__queue_words_text(w, name);
    perf__queue_words_number(w, number);
}

/* In the order that the script expects: eight fields that every task has, then others. */
static void add_task(struct queue_words *w, const perf_queue_task *t)
{
    perf__queue_words_text(w, t->id);
    size_t length = w->count++, from = w->count;
    perf__queue_words_text(w, "queue");
    perf__queue_words_text(w, t->queue);
    perf__queue_words_text(w, "kind");
    perf__queue_words_text(w, t->kind);
    perf__queue_words_text(w, "version");
    perf__queue_words_number(w, t->version);
    perf__queue_words_text(w, "due");
    perf__queue_words_number(w, t->due_ms);
    perf__queue_words_text(w, "rank");
    perf__queue_words_number(w, t->rank);
    perf__queue_words_text(w, "created");
    perf__queue_words_number(w, t->created_ms);
    perf__queue_words_text(w, "keep");
    perf__queue_words_number(w, perf__queue_redis_bounded(t->keep_ms));
    perf__queue_words_text(w, "max");
    perf__queue_words_number(w, t->max_attempts);
    add_field(w, "user", t->user);
    add_field(w, "batch", t->batch);
    add_number_field(w, "priority", t->priority);
    add_number_field(w, "deadline", perf__queue_redis_bounded(t->deadline_ms));
    add_number_field(w, "timeout", t->timeout_ms);
    add_field(w, "unique", t->unique_key);
    add_number_field(w, "unique_until",
                     t->unique_key[0] ? perf__queue_redis_bounded(t->unique_until_ms) : 0);
    add_field(w, "limit_key", t->limit_key);
    add_number_field(w, "limit", !t->limit_key[0] ? 0 : t->limit < 1 ? 1 : t->limit);
    add_field(w, "after", t->after);
    add_number_field(w, "any", t->after[0] && t->after_any_end);
    if (t->payload.len) {
        perf__queue_words_text(w, "payload");
        perf__queue_words_add(w, t->payload);
    }
    size_t end = w->count;
    w->count = length;
    perf__queue_words_number(w, (int64_t)(end - from));
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
        return perf__queue_redis_error(r);
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
    struct queue_words w;
    char call[40];
    int64_t now = 0, deadline = 0;
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS + count * TASK_WORDS,
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
    perf__queue_words_number(&w, now);
    perf__queue_words_text(&w, call);
    perf__queue_words_number(&w, (int64_t)count);
    for (const struct submission *s = first; s; s = s->next)
        for (size_t i = 0; i < s->count; i++)
            add_task(&w, &s->tasks[i]);
    for (int i = 0; i < TRIES; i++) {
        rc = perf__queue_redis_ask(q, SCRIPT_ENQUEUE, &w, deadline, r);
        if (rc != PERF_EIO)
            break;
    }
    perf__queue_words_close(&w);
    return rc ? rc : perf__queue_redis_count_is(*r, count);
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

int perf__queue_redis_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                              void *transaction, int64_t now_ms, int *statuses,
                              char (*existing)[72])
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
