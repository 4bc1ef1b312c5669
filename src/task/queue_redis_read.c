/* SPDX-License-Identifier: MIT */
/*
 * queue_redis_read.c - what a Redis server says, as tasks and as errors.
 *
 * Whoever can write to the server can write anything under our keys: numbers,
 * texts and states are checked, and what is not ours is PERF_ECORRUPT with the name
 * of its key. Any thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/status.h"
#include "queue_redis.h"

enum { TEXT_MAX = 1 << 20, ASIDE = 9, SAID_MAX = 300 };

/* --------------------------------------------------------------------- errors */

int perf__queue_redis_fail(int status, const char *text)
{
    char said[SAID_MAX + 1]; /* text may be perf_last_error's own */
    snprintf(said, sizeof said, "%s", text);
    if (strncmp(said, "FOREIGN ", 8) && strncmp(said, "DAMAGED ", 8))
        return perf__fail(status, "%s", said);
    return perf__fail(PERF_ECORRUPT,
                      "redis queue: the key %s; it is not what libperf wrote: remove it, or give "
                      "the queue another prefix",
                      said + 8);
}

int perf__queue_redis_damaged(const struct redis_queue *q, const char *id, const char *what)
{
    return perf__fail(PERF_ECORRUPT,
                      "redis queue: the key %s:t:%.71s: its %s is not what libperf wrote; remove "
                      "it, or give the queue another prefix",
                      q->base, id, what);
}

/* --------------------------------------------------------------------- values */

bool perf__queue_redis_number(const perf_redis_reply *r, int64_t *out)
{
    const char *text = perf_redis_reply_data(r);
    size_t len = perf_redis_reply_size(r);
    if (perf_redis_reply_type(r) == PERF_REDIS_INTEGER) {
        *out = perf_redis_reply_integer(r);
        return true;
    }
    if (perf_redis_reply_type(r) != PERF_REDIS_STRING || !len || len >= NUMBER_SIZE ||
        strspn(text, "-0123456789") != len)
        return false;
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return end == text + len && !errno;
}

static bool is_text(const perf_redis_reply *r)
{
    const char *text = perf_redis_reply_data(r);
    size_t len = perf_redis_reply_size(r);
    return perf_redis_reply_type(r) == PERF_REDIS_STRING && len <= TEXT_MAX &&
           !memchr(text, 0, len) && perf__task_is_utf8(text, len);
}

const char *perf__queue_redis_id(const perf_redis_reply *member)
{
    size_t len = perf_redis_reply_size(member);
    return is_text(member) && len > SEQ_SIZE && len <= SEQ_SIZE + 71
               ? perf_redis_reply_data(member) + SEQ_SIZE
               : NULL;
}

/* --------------------------------------------------------------------- fields */

/* Those of a task's hash that go into a field as they are. */
static const struct field {
    const char *name;
    enum { NUMBER, TEXT, BYTES } type;
    size_t offset;
} fields[] = {
    {"queue", TEXT, offsetof(perf_queue_task, queue)},
    {"kind", TEXT, offsetof(perf_queue_task, kind)},
    {"version", NUMBER, offsetof(perf_queue_task, version)},
    {"due", NUMBER, offsetof(perf_queue_task, due_ms)},
    {"rank", NUMBER, offsetof(perf_queue_task, rank)},
    {"created", NUMBER, offsetof(perf_queue_task, created_ms)},
    {"keep", NUMBER, offsetof(perf_queue_task, keep_ms)},
    {"max", NUMBER, offsetof(perf_queue_task, max_attempts)},
    {"payload", BYTES, offsetof(perf_queue_task, payload)},
    {"state", NUMBER, offsetof(perf_queue_task, state)},
    {"token", NUMBER, offsetof(perf_queue_task, token)},
    {"lease", NUMBER, offsetof(perf_queue_task, lease_until_ms)},
    {"started", NUMBER, offsetof(perf_queue_task, started_ms)},
    {"worker", TEXT, offsetof(perf_queue_task, worker)},
    {"attempts", NUMBER, offsetof(perf_queue_task, attempts)},
    {"ended", NUMBER, offsetof(perf_queue_task, ended_ms)},
    {"status", NUMBER, offsetof(perf_queue_task, status)},
    {"error", TEXT, offsetof(perf_queue_task, error)},
    {"result", BYTES, offsetof(perf_queue_task, result)},
    {"user", TEXT, offsetof(perf_queue_task, user)},
    {"batch", TEXT, offsetof(perf_queue_task, batch)},
    {"priority", NUMBER, offsetof(perf_queue_task, priority)},
    {"deadline", NUMBER, offsetof(perf_queue_task, deadline_ms)},
    {"timeout", NUMBER, offsetof(perf_queue_task, timeout_ms)},
    {"unique", TEXT, offsetof(perf_queue_task, unique_key)},
    {"unique_until", NUMBER, offsetof(perf_queue_task, unique_until_ms)},
    {"limit_key", TEXT, offsetof(perf_queue_task, limit_key)},
    {"limit", NUMBER, offsetof(perf_queue_task, limit)},
    {"after", TEXT, offsetof(perf_queue_task, after)},
    {"any", NUMBER, offsetof(perf_queue_task, after_any_end)},
};

enum { FIELDS = sizeof fields / sizeof *fields };

/* What else is needed to tell its history. */
struct beside {
    const char *kept, *progress;
    int64_t waited, folded;
};

static bool read_field(const struct field *f, const perf_redis_reply *value, perf_queue_task *t)
{
    char *at = (char *)t + f->offset;
    perf_bytes bytes = {perf_redis_reply_data(value), perf_redis_reply_size(value)};
    if (f->type == NUMBER)
        return perf__queue_redis_number(value, (int64_t *)(void *)at);
    if (f->type == TEXT) {
        memcpy(at, &bytes.data, sizeof bytes.data);
        return is_text(value);
    }
    memcpy(at, &bytes, sizeof bytes);
    return perf_redis_reply_type(value) == PERF_REDIS_STRING;
}

static bool read_beside(const char *name, const perf_redis_reply *value, struct beside *b)
{
    const char *text = perf_redis_reply_data(value);
    if (!strcmp(name, "kept"))
        b->kept = text;
    else if (!strcmp(name, "progress"))
        b->progress = text;
    else if (!strcmp(name, "waited"))
        return perf__queue_redis_number(value, &b->waited);
    else if (!strcmp(name, "folded"))
        return !text[0] || perf__queue_redis_number(value, &b->folded);
    else
        return true; /* of a newer libperf, or only the scripts' */
    return is_text(value);
}

/* The name of what is not sound, or NULL. */
static const char *read_fields(const perf_redis_reply *pairs, perf_queue_task *t, struct beside *b)
{
    size_t count = perf_redis_reply_size(pairs), next = 0;
    if (perf_redis_reply_type(pairs) != PERF_REDIS_ARRAY || count % 2)
        return "hash";
    for (size_t i = 0; i < count; i += 2) {
        const char *name = perf_redis_reply_data(perf_redis_reply_element(pairs, i));
        const perf_redis_reply *value = perf_redis_reply_element(pairs, i + 1);
        size_t tries = 0;
        /* They mostly come in one order. */
        while (tries < FIELDS && strcmp(fields[next].name, name)) {
            next = (next + 1) % FIELDS;
            tries++;
        }
        if (tries < FIELDS ? !read_field(&fields[next], value, t) : !read_beside(name, value, b))
            return tries < FIELDS ? fields[next].name : "history";
    }
    return NULL;
}

int perf__queue_redis_add(const struct redis_queue *q, const char *id,
                          const perf_redis_reply *pairs, const perf_queue_task *claimed,
                          perf_queue_reply *reply)
{
    perf_queue_task t = {.struct_size = sizeof t, .id = id, .worker = "", .error = ""};
    struct beside b = {.kept = ""};
    struct perf__history history;
    const char *wrong = read_fields(pairs, &t, &b);
    if (!wrong && (!t.queue || !t.kind))
        wrong = "queue or kind";
    if (!wrong && (t.state < PERF_TASK_WAITING || t.state > ASIDE))
        wrong = "state";
    if (!wrong && b.progress && !perf__progress_read(b.progress, &t))
        wrong = "progress";
    if (wrong)
        return perf__queue_redis_damaged(q, id, wrong);
    if (claimed) {
        t.state = claimed->state;
        t.attempts = claimed->attempts;
        t.token = claimed->token;
        t.lease_until_ms = claimed->lease_until_ms;
        t.started_ms = claimed->started_ms;
        t.worker = claimed->worker;
        t.fraction = 0;
        t.done = t.total = 0;
        t.text = "";
        return perf_queue_reply_add(reply, &t); /* who claims has no use for its history */
    }
    if (t.state == ASIDE)
        t.state = PERF_TASK_QUEUED;
    if (t.state == PERF_TASK_SUCCEEDED)
        t.fraction = 1;
    perf__history_tell(&history, &t, b.kept, b.waited != 0,
                       t.token && t.token != (uint64_t)b.folded);
    t.history = history.text;
    return perf_queue_reply_add(reply, &t);
}
