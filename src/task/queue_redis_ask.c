/* SPDX-License-Identifier: MIT */
/* queue_redis_ask.c - arguments of the Redis queue's scripts, and asking them. Any thread. */
#include "queue_redis_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"

int perf__queue_words_open(struct queue_words *w, struct redis_queue *q, size_t words, size_t text)
{
    *w = (struct queue_words){.allocator = &q->allocator};
    w->words = perf__alloc(w->allocator, words * sizeof *w->words + text);
    if (!w->words)
        return perf__fail_nomem("a call of the redis queue");
    w->at = (char *)(w->words + words);
    w->words[w->count++] = (perf_bytes){q->base, strlen(q->base)};
    return PERF_OK;
}

void perf__queue_words_add(struct queue_words *w, perf_bytes bytes)
{
    w->words[w->count++] = bytes;
}

void perf__queue_words_text(struct queue_words *w, const char *text)
{
    perf__queue_words_add(w, (perf_bytes){text, strlen(text)});
}

void perf__queue_words_number(struct queue_words *w, int64_t number)
{
    char *from = w->at;
    w->at += snprintf(from, NUMBER_SIZE, "%" PRId64, number) + 1;
    perf__queue_words_add(w, (perf_bytes){from, (size_t)(w->at - from) - 1});
}

void perf__queue_words_close(struct queue_words *w)
{
    perf__free(w->allocator, w->words);
}

/* Milliseconds that are left, 1 at least. */
static int64_t left_of(int64_t deadline_ns)
{
    int64_t left = perf__deadline_left(deadline_ns);
    return left ? left : 1; /* 0 would be the client's own */
}

int perf__queue_redis_ask(struct redis_queue *q, enum queue_script script,
                          const struct queue_words *w, int64_t deadline_ns, perf_redis_reply **out)
{
    int rc = perf_redis_script_call(q->redis, q->scripts[script], 1, w->count, w->words,
                                    left_of(deadline_ns), out);
    if (rc == PERF_EREMOTE)
        rc = perf__queue_redis_fail(rc, perf_last_error());
    return rc == PERF_EBUSY ? perf__fail(PERF_EUNAVAILABLE, "the Redis server, or its client, is "
                                                            "busy; try again later")
                            : rc;
}

int perf__queue_redis_count_is(const perf_redis_reply *r, size_t count)
{
    return perf_redis_reply_type(r) == PERF_REDIS_ARRAY && perf_redis_reply_size(r) == count
               ? PERF_OK
               : perf__fail(PERF_EPROTOCOL, "a Redis server answered %zu of %zu tasks of a queue",
                            perf_redis_reply_size(r), count);
}

int perf__queue_redis_error(const perf_redis_reply *r)
{
    int rc = perf_redis_reply_status(r);
    return rc ? perf__queue_redis_fail(rc, perf_redis_reply_data(r)) : PERF_OK;
}

int64_t perf__queue_redis_bounded(int64_t number)
{
    return number < EXACT_MAX / 2 ? number : EXACT_MAX / 2;
}
