/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_item.c - a task's record as an item, and back.
 *
 * One table of attributes says how both ways go. What is 0 or "" is left out. Besides
 * the record's own attributes an item has those that indexes order it by, which
 * follow from its state: a task stands in one lane at most. Items are read as hostile:
 * whoever can write to the table can write anything. Pure functions, any thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

enum { TEXT_MAX = 1 << 20, PRIORITY_MAX = 100 };

int perf__queue_dynamodb_damaged(const char *id, const char *what)
{
    return perf__fail(PERF_ECORRUPT,
                      "dynamodb queue: the %s of task \"%.71s\" is not what libperf wrote; remove "
                      "its item, or give the queue another prefix",
                      what, id);
}

/* ------------------------------------------------------------------- attributes */

enum type { NUMBER, TEXT };

static const struct attribute {
    const char *name;
    enum type type;
    size_t offset;
} attributes[] = {
    {"queue", TEXT, offsetof(struct record, t.queue)},
    {"kind", TEXT, offsetof(struct record, t.kind)},
    {"version", NUMBER, offsetof(struct record, t.version)},
    {"batch", TEXT, offsetof(struct record, t.batch)},
    {"owner", TEXT, offsetof(struct record, t.user)},
    {"priority", NUMBER, offsetof(struct record, t.priority)},
    {"order", NUMBER, offsetof(struct record, t.rank)},
    {"created", NUMBER, offsetof(struct record, t.created_ms)},
    {"due", NUMBER, offsetof(struct record, t.due_ms)},
    {"deadline", NUMBER, offsetof(struct record, t.deadline_ms)},
    {"keep", NUMBER, offsetof(struct record, t.keep_ms)},
    {"max", NUMBER, offsetof(struct record, t.max_attempts)},
    {"timeout", NUMBER, offsetof(struct record, t.timeout_ms)},
    {"unique", TEXT, offsetof(struct record, t.unique_key)},
    {"unique_until", NUMBER, offsetof(struct record, t.unique_until_ms)},
    {"limit_key", TEXT, offsetof(struct record, t.limit_key)},
    {"limit", NUMBER, offsetof(struct record, t.limit)},
    {"after", TEXT, offsetof(struct record, t.after)},
    {"any", NUMBER, offsetof(struct record, t.after_any_end)},
    {"st", NUMBER, offsetof(struct record, t.state)},
    {"attempts", NUMBER, offsetof(struct record, t.attempts)},
    {"token", NUMBER, offsetof(struct record, t.token)},
    {"lease", NUMBER, offsetof(struct record, t.lease_until_ms)},
    {"started", NUMBER, offsetof(struct record, t.started_ms)},
    {"ended", NUMBER, offsetof(struct record, t.ended_ms)},
    {"worker", TEXT, offsetof(struct record, t.worker)},
    {"status", NUMBER, offsetof(struct record, t.status)},
    {"error", TEXT, offsetof(struct record, t.error)},
    {"v", NUMBER, offsetof(struct record, version)},
    {"waited", NUMBER, offsetof(struct record, waited)},
    {"folded", NUMBER, offsetof(struct record, folded)},
    {"cancel", NUMBER, offsetof(struct record, cancel)},
    {"followed", NUMBER, offsetof(struct record, followed)},
    {"kept", TEXT, offsetof(struct record, kept)},
    {"progress", TEXT, offsetof(struct record, progress)},
    {"pending", TEXT, offsetof(struct record, pending)},
    {"by", TEXT, offsetof(struct record, by)},
    {"echo", TEXT, offsetof(struct record, echo)},
    {"payload_as", TEXT, offsetof(struct record, how[PAYLOAD])},
    {"result_as", TEXT, offsetof(struct record, how[RESULT])},
};

enum { ATTRIBUTES = sizeof attributes / sizeof *attributes };

static const char *const blobs[] = {[PAYLOAD] = "payload", [RESULT] = "result"};

/* ---------------------------------------------------------------------- indexes */

int64_t perf__queue_dynamodb_removal(int64_t ended_ms, int64_t keep_ms, int64_t unique_until_ms)
{
    int64_t at;
    if (__builtin_add_overflow(ended_ms, keep_ms, &at))
        at = INT64_MAX;
    return at > unique_until_ms ? at : unique_until_ms;
}

void perf__queue_dynamodb_key(int64_t number, uint64_t seq, char out[KEY_SIZE])
{
    snprintf(out, KEY_SIZE, "%016" PRIx64 "%016" PRIx64, (uint64_t)number ^ (UINT64_C(1) << 63),
             seq);
}

int64_t perf__queue_dynamodb_key_number(const char *key)
{
    char text[17];
    snprintf(text, sizeof text, "%s", key);
    return (int64_t)(strtoull(text, NULL, 16) ^ (UINT64_C(1) << 63));
}

/* Where it stands until it goes on: a lane, and its place there. False: nowhere. */
static bool lane_of(const struct record *r, char lane[HASH_SIZE], char key[KEY_SIZE])
{
    const perf_queue_task *t = &r->t;
    int64_t number;
    switch (t->state) {
    case PERF_TASK_WAITING:
    case PERF_TASK_RETRYING:
        if (r->pending[0])
            return false; /* somebody's end puts it where it goes */
        snprintf(lane, HASH_SIZE, "w");
        number = t->due_ms;
        break;
    case PERF_TASK_QUEUED:
        snprintf(lane, HASH_SIZE, "r|%s|%" PRId64 "|%s", t->queue, t->version, t->kind);
        number = t->rank;
        break;
    case PERF_TASK_RUNNING:
        snprintf(lane, HASH_SIZE, "l");
        number = t->lease_until_ms;
        break;
    default:
        snprintf(lane, HASH_SIZE, r->followed ? "x" : "e");
        number = r->followed
                     ? t->ended_ms
                     : perf__queue_dynamodb_removal(t->ended_ms, t->keep_ms, t->unique_until_ms);
    }
    perf__queue_dynamodb_key(number, r->seq, key);
    return true;
}

static void put_indexes(struct perf__text *t, const struct dynamodb_queue *q,
                        const struct record *r)
{
    char lane[HASH_SIZE], key[KEY_SIZE];
    perf__text_putf(t,
                    ",\"seq\":{\"S\":\"%016" PRIx64 "\"},\"place\":{\"S\":\"%s|%016" PRIx64
                    "\"},\"state\":{\"S\":\"%s%d\"}",
                    r->seq, r->t.queue, r->seq, q->prefix, (int)r->t.state);
    if (r->t.user[0]) {
        perf__text_putf(t, ",\"user\":{\"S\":\"%s", q->prefix);
        struct perf__text user = {.allocator = t->allocator};
        perf__text_put_json(&user, r->t.user, strlen(r->t.user));
        if (user.failed)
            t->failed = true;
        else
            perf__text_put(t, user.data + 1, user.len - 1);
        perf__text_puts(t, "}");
        perf__text_free(&user);
    }
    if (lane_of(r, lane, key))
        perf__text_putf(t, ",\"lane\":{\"S\":\"%s%s\"},\"rank\":{\"S\":\"%s\"}", q->prefix, lane,
                        key);
}

/* --------------------------------------------------------------------- to an item */

void perf__queue_dynamodb_put_item(struct perf__text *t, const struct dynamodb_queue *q,
                                   const struct record *r)
{
    perf__text_puts(t, "{");
    perf__queue_dynamodb_put_pk(t, q, "t|", r->t.id);
    perf__text_puts(t, ",\"sk\":{\"S\":\"0\"}");
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        const struct attribute *a = &attributes[i];
        const char *at = (const char *)r + a->offset;
        if (a->type == NUMBER) {
            int64_t number = *(const int64_t *)(const void *)at;
            if (!number)
                continue;
            perf__text_puts(t, ",");
            perf__queue_dynamodb_put_n(t, a->name, number);
        } else {
            const char *text = *(const char *const *)(const void *)at;
            if (!text[0])
                continue;
            perf__text_puts(t, ",");
            perf__queue_dynamodb_put_s(t, a->name, text);
        }
    }
    for (size_t i = PAYLOAD; i <= RESULT; i++) {
        if (!r->stored[i].len)
            continue;
        perf__text_putf(t, ",\"%s\":{\"B\":\"", blobs[i]);
        perf__text_put_base64(t, r->stored[i].data, r->stored[i].len);
        perf__text_puts(t, "\"}");
    }
    /* Who ends it has more to do than to end it. */
    if (r->t.limit_key[0] || r->followed || r->cancel)
        perf__text_puts(t, ",\"odd\":{\"N\":\"1\"}");
    put_indexes(t, q, r);
    perf__text_puts(t, "}");
}

/* ------------------------------------------------------------------ from an item */

/* Into the arena, with a zero byte; NULL: it is no text of ours. */
static const char *take_text(struct perf__json value, char **at)
{
    if (!value.len || value.at[0] != '"' || value.len > TEXT_MAX)
        return NULL;
    char *text = *at;
    size_t len = perf__json_text(value, text);
    *at += len + 1;
    return memchr(text, 0, len) || !perf__task_is_utf8(text, len) ? NULL : text;
}

static bool take_number(struct perf__json value, int64_t *out)
{
    char text[24], *end;
    perf__json_short(value, text, sizeof text);
    errno = 0;
    *out = strtoll(text, &end, 10);
    return end != text && !*end && !errno;
}

static bool take_blob(struct perf__json value, char **at, perf_bytes *out)
{
    size_t len;
    if (value.len < 2 || value.at[0] != '"' ||
        !perf__base64_read(value.at + 1, value.len - 2, (uint8_t *)*at, &len))
        return false;
    *out = (perf_bytes){*at, len};
    *at += len;
    return true;
}

static bool is_name(struct perf__json name, const char *text)
{
    return name.len == strlen(text) && !memcmp(name.at, text, name.len);
}

/* The one that an attribute holds: {"S":"..."} */
static bool inner(struct perf__json value, const char *type, struct perf__json *out)
{
    return value.len && value.at[0] == '{' && perf__json_find(value, type, '"', out);
}

bool perf__queue_dynamodb_text(struct perf__json item, const char *name, char *out, size_t size)
{
    struct perf__json attribute, value;
    if (!perf__json_find(item, name, '{', &attribute) || !inner(attribute, "S", &value) ||
        value.len > size) /* with its quotes, so a zero byte has room */
        return false;
    perf__json_text(value, out);
    return true;
}

/* The name of what is not sound, or NULL. */
static const char *read_attributes(struct perf__json item, struct record *r)
{
    struct perf__json name, value, own;
    size_t at = 0, next = 0;
    char *arena = r->arena;
    const char *pk = NULL;
    /* First, so that whatever is wrong has a name. */
    if (perf__json_find(item, "pk", '{', &value) && inner(value, "S", &own))
        pk = take_text(own, &arena);
    r->t.id = pk ? strrchr(pk, '|') : NULL;
    if (!r->t.id || strlen(++r->t.id) >= ID_SIZE)
        return "pk";
    while (perf__json_next(item, &at, &name, &value)) {
        size_t tries = 0;
        while (tries < ATTRIBUTES && !is_name(name, attributes[next].name)) {
            next = (next + 1) % ATTRIBUTES;
            tries++;
        }
        if (tries < ATTRIBUTES) {
            const struct attribute *a = &attributes[next];
            char *to = (char *)r + a->offset;
            if (a->type == NUMBER
                    ? !inner(value, "N", &own) || !take_number(own, (int64_t *)(void *)to)
                    : !inner(value, "S", &own) ||
                          !(*(const char **)(void *)to = take_text(own, &arena)))
                return a->name;
            continue;
        }
        for (size_t i = PAYLOAD; i <= RESULT; i++)
            if (is_name(name, blobs[i]) &&
                (!inner(value, "B", &own) || !take_blob(own, &arena, &r->stored[i])))
                return blobs[i];
        if (is_name(name, "seq")) {
            char seq[20], *end;
            if (!inner(value, "S", &own))
                return "seq";
            perf__json_short(own, seq, sizeof seq);
            r->seq = strtoull(seq, &end, 16);
            if (end == seq || *end)
                return "seq";
        }
    }
    return NULL;
}

/* As the library lets them be, so that they can be part of keys. */
static bool is_plain(const char *text)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/";
    size_t len = strlen(text);
    return len && len < ID_SIZE && strspn(text, allowed) == len;
}

/* One can be added to it for ever. */
static bool is_count(int64_t number)
{
    return number >= 0 && number < (int64_t)1 << 60;
}

int perf__queue_dynamodb_read(const struct dynamodb_queue *q, struct perf__json item,
                              struct record *r)
{
    static const perf_queue_task none = {.struct_size = sizeof none,
                                         .queue = "",
                                         .kind = "",
                                         .user = "",
                                         .batch = "",
                                         .unique_key = "",
                                         .limit_key = "",
                                         .after = "",
                                         .worker = "",
                                         .text = "",
                                         .error = "",
                                         .history = ""};
    *r = (struct record){.t = none,
                         .kept = "",
                         .progress = "",
                         .by = "",
                         .pending = "",
                         .echo = "",
                         .how = {"", ""}};
    r->arena = perf__alloc(&q->allocator, item.len + 64); /* decoded, nothing is longer */
    if (!r->arena)
        return perf__fail_nomem("a task read from DynamoDB");
    const char *wrong = read_attributes(item, r);
    if (!wrong && (!is_plain(r->t.id) || !is_plain(r->t.queue) || !is_plain(r->t.kind)))
        wrong = "id, queue or kind";
    if (!wrong && (r->t.state < PERF_TASK_WAITING || r->t.state > PERF_TASK_DEAD))
        wrong = "st";
    if (!wrong &&
        !(is_count(r->t.attempts) && is_count(r->version) && is_count((int64_t)r->t.token)))
        wrong = "attempts, v or token";
    if (!wrong && (r->t.priority < -PRIORITY_MAX || r->t.priority > PRIORITY_MAX))
        wrong = "priority";
    if (!wrong && r->progress[0] && !perf__progress_read(r->progress, &r->t))
        wrong = "progress";
    if (!wrong) {
        if (r->t.state == PERF_TASK_SUCCEEDED)
            r->t.fraction = 1;
        return PERF_OK;
    }
    (void)perf__queue_dynamodb_damaged(r->t.id ? r->t.id : "", wrong);
    r->t.id = NULL;
    return PERF_ECORRUPT;
}

void perf__queue_dynamodb_record_free(const struct dynamodb_queue *q, struct record *r)
{
    perf__free(&q->allocator, r->arena);
    perf__free(&q->allocator, r->loaded[PAYLOAD]);
    perf__free(&q->allocator, r->loaded[RESULT]);
    r->arena = NULL;
    r->loaded[PAYLOAD] = r->loaded[RESULT] = NULL;
}

int perf__queue_dynamodb_add(const struct record *r, bool history, perf_queue_reply *reply)
{
    struct perf__history h;
    perf_queue_task t = r->t;
    if (history) {
        perf__history_tell(&h, &t, r->kept, r->waited != 0,
                           t.token && t.token != (uint64_t)r->folded);
        t.history = h.text;
    }
    return perf_queue_reply_add(reply, &t);
}
