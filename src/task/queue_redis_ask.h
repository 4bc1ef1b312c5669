/* SPDX-License-Identifier: MIT */
/*
 * queue_redis_ask.h - asking the scripts of the Redis queue. Private to its files.
 */
#ifndef PERF_TASK_QUEUE_REDIS_ASK_H
#define PERF_TASK_QUEUE_REDIS_ASK_H

#include "queue_redis.h"

enum {
    HEAD_WORDS = 10, /* of a call, beside those of its tasks */
    TRIES = 4,       /* of a call whose connection broke */
};

/* Arguments of a script, the first of them KEYS[1]; numbers and other texts lie behind them. */
struct queue_words {
    const perf_allocator *allocator;
    perf_bytes *words;
    size_t count;
    char *at;
};

/* Room for so many words, and so many bytes of texts behind them; the first word is the store's
 * name.
 */
int perf__queue_words_open(struct queue_words *w, struct redis_queue *q, size_t words, size_t text);
void perf__queue_words_close(struct queue_words *w);
/* What is pointed to must live until the close. */
void perf__queue_words_add(struct queue_words *w, perf_bytes bytes);
void perf__queue_words_text(struct queue_words *w, const char *text);
/* Takes NUMBER_SIZE of the texts. */
void perf__queue_words_number(struct queue_words *w, int64_t number);

/* PERF_EBUSY says something about a task; a server's, or the client's, does not. */
int perf__queue_redis_ask(struct redis_queue *q, enum queue_script script,
                          const struct queue_words *w, int64_t deadline_ns, perf_redis_reply **out);
/* An array of count answers, or PERF_EPROTOCOL. */
int perf__queue_redis_count_is(const perf_redis_reply *r, size_t count);
/* The error that an answer is, or PERF_OK. */
int perf__queue_redis_error(const perf_redis_reply *r);
/* A time, so that Lua keeps it exactly. */
int64_t perf__queue_redis_bounded(int64_t number);

#endif
