/* SPDX-License-Identifier: MIT */
/* queue_redis_look.c - tasks of the Redis queue as others see them. Any thread. */
#include "queue_redis_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

enum { LOOK_AT = 2000 }; /* tasks that one find looks at */

/* ----------------------------------------------------------------------- look */

int perf__queue_redis_get(void *queue, const char *id, perf_queue_reply *reply)
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
static void add_wanted(struct queue_words *w, const char *text)
{
    if (!text) {
        perf__queue_words_text(w, "");
        return;
    }
    char *from = w->at;
    w->at += sprintf(from, "=%s", text) + 1;
    perf__queue_words_text(w, from);
}

static size_t length_of(const char *text)
{
    return text ? strlen(text) + 2 : 0;
}

int perf__queue_redis_find(void *queue, const perf_queue_filter *f, perf_queue_reply *reply)
{
    struct redis_queue *q = queue;
    struct queue_words w;
    perf_redis_reply *r = NULL;
    char before[NUMBER_SIZE] = "+inf";
    if (f->cursor) {
        size_t len = strlen(f->cursor);
        if (!len || len > 16 || strspn(f->cursor, "0123456789") != len)
            return perf__fail(PERF_EINVAL, "perf_tasks_filter.cursor is none of this queue's; give "
                                           "the one of the page before");
        snprintf(before, sizeof before, "(%s", f->cursor);
    }
    int rc =
        perf__queue_words_open(&w, q, HEAD_WORDS + 6,
                               HEAD_WORDS * NUMBER_SIZE + length_of(f->user) + length_of(f->batch) +
                                   length_of(f->queue) + length_of(f->kind));
    if (rc)
        return rc;
    perf__queue_words_number(&w, 0);
    perf__queue_words_text(&w, before);
    perf__queue_words_number(&w, f->limit > 0 ? f->limit : 100);
    perf__queue_words_number(&w, LOOK_AT);
    add_wanted(&w, f->user);
    add_wanted(&w, f->batch);
    add_wanted(&w, f->queue);
    add_wanted(&w, f->kind);
    perf__queue_words_number(&w, f->state);
    rc = perf__queue_redis_ask(q, SCRIPT_FIND, &w, perf__deadline_after(q->timeout_ms), &r);
    perf__queue_words_close(&w);
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

int perf__queue_redis_count(void *queue, const char *name, int64_t now_ms,
                            perf_queue_counts *counts)
{
    struct redis_queue *q = queue;
    struct queue_words w;
    perf_redis_reply *r = NULL;
    int rc = perf__queue_words_open(&w, q, HEAD_WORDS, NUMBER_SIZE);
    if (rc)
        return rc;
    perf__queue_words_number(&w, now_ms);
    perf__queue_words_text(&w, name);
    rc = perf__queue_redis_ask(q, SCRIPT_COUNT, &w, perf__deadline_after(q->timeout_ms), &r);
    perf__queue_words_close(&w);
    if (!rc)
        rc = read_counts(q, r, counts);
    perf_redis_reply_release(r);
    return rc;
}
