/* SPDX-License-Identifier: MIT */
/*
 * queue_redis.h - what the files of the Redis queue share. Private to them.
 *
 * queue_redis_open.c reads the location and opens the client, queue_redis_lua.c has
 * the scripts, queue_redis_ask.c asks them, queue_redis_read.c turns replies into tasks,
 * queue_redis_enqueue.c and _look.c have verbs, and queue_redis.c has the others and waiting.
 */
#ifndef PERF_TASK_QUEUE_REDIS_H
#define PERF_TASK_QUEUE_REDIS_H

#include <libperf/redis.h>
#include <stdatomic.h>

#include "../base/sync.h"
#include "../base/thread.h"
#include "queue.h"
#include "queue_history.h"
#include "queue_progress.h"

enum queue_script {
    SCRIPT_ENQUEUE,
    SCRIPT_CLAIM,
    SCRIPT_EXTEND,
    SCRIPT_FINISH,
    SCRIPT_STEER,
    SCRIPT_SWEEP,
    SCRIPT_FIND,
    SCRIPT_COUNT,
    SCRIPTS
};

enum {
    PREFIX_MAX = 64,
    BASE_MAX = PREFIX_MAX + 16,
    NUMBER_SIZE = 24,                /* of a number as text */
    SEQ_SIZE = 13,                   /* digits in front of an id in a sorted set */
    BYTES_MAX = 32 * 1024 * 1024,    /* of a payload or result */
    PORTION_BYTES = 4 * 1024 * 1024, /* of one call; a task alone may have more */
    PORTION = 128                    /* tasks of one call */
};

/* Numbers of Lua are exact up to here. */
#define EXACT_MAX ((int64_t)1 << 53)

struct submission;

struct redis_queue {
    perf_allocator allocator;
    perf_redis *redis;
    perf_redis_script *scripts[SCRIPTS];
    int64_t timeout_ms;
    char base[BASE_MAX]; /* the name of the store's hash, which begins all others */
    uint64_t origin;
    _Atomic uint64_t calls;

    pthread_mutex_t mutex;            /* of what follows */
    struct submission *first, **last; /* waiting to be sent */
    size_t sending;                   /* calls that submit, under way */
    pthread_cond_t changed;
    perf_redis_subscriber *subscriber; /* NULL until somebody waits */
    bool opening;                      /* somebody opens it */
    bool hears;                        /* it is subscribed */
    uint64_t news, wakes;
    uint64_t seen[PERF__THREAD_SLOTS]; /* news before a thread's last claim, or SEEN_FAILED */
};

/* A claim that failed may have left anything. */
#define SEEN_FAILED UINT64_MAX

/* -------------------------------------------------------- queue_redis_open.c */

int perf__queue_redis_open(const perf_queue_config *config, void **out);
void perf__queue_redis_close(void *queue);

/* --------------------------------------------------------- queue_redis_lua.c */

int perf__queue_redis_scripts(struct redis_queue *q);

/* ------------------------------------- queue_redis_enqueue.c, queue_redis_look.c */

int perf__queue_redis_enqueue(void *queue, const perf_queue_task *tasks, size_t count,
                              void *transaction, int64_t now_ms, int *statuses,
                              char (*existing)[72]);
int perf__queue_redis_get(void *queue, const char *id, perf_queue_reply *reply);
int perf__queue_redis_find(void *queue, const perf_queue_filter *filter, perf_queue_reply *reply);
int perf__queue_redis_count(void *queue, const char *name, int64_t now_ms,
                            perf_queue_counts *counts);

/* -------------------------------------------------------- queue_redis_read.c */

/* Fails with what a script, or the server, answered. */
int perf__queue_redis_fail(int status, const char *text) __attribute__((cold));
int perf__queue_redis_damaged(const struct redis_queue *q, const char *id, const char *what)
    __attribute__((cold));
/* A whole number, or false. */
bool perf__queue_redis_number(const perf_redis_reply *r, int64_t *out);
/* The id in a member of a sorted set, or NULL. */
const char *perf__queue_redis_id(const perf_redis_reply *member);
/*
 * Adds the task whose fields are names and values in turn. claimed: what a claim has made of it
 * since they were read, of which state, attempts, token, lease_until_ms, started_ms and worker are
 * taken; NULL: nothing.
 */
int perf__queue_redis_add(const struct redis_queue *q, const char *id,
                          const perf_redis_reply *fields, const perf_queue_task *claimed,
                          perf_queue_reply *reply);

#endif
