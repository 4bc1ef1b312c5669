/* SPDX-License-Identifier: MIT */
/*
 * redis_parse.c - bytes into replies; see redis_reply.h. One thread at a time.
 *
 * For an array two readers go over the bytes: ours, which only counts elements
 * and so finds the end (each element takes one from what is to come, each array
 * adds its length), and hiredis', which is fed exactly this reply's bytes and
 * makes the elements. When ours finds that it would be too large, hiredis' is not
 * fed any more.
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis_link.h"
#include "redis_reply.h"

enum { START, BULK, SKIP, NESTED, NESTED_BULK };
enum { FIRST_BULK = 256 << 10, CHUNK = 1024 };

/* ------------------------------------------------- hiredis' reader: elements */

static void *take_room(struct perf__redis_parser *p, size_t size)
{
    struct perf__redis_root *root = p->into;
    struct perf__redis_chunk *chunk = root->chunks;
    size = (size + 15) & ~(size_t)15;
    if (!chunk || chunk->size - chunk->used < size) {
        size_t grown = chunk ? chunk->size * 2 : CHUNK;
        grown = grown > FIRST_BULK ? FIRST_BULK : grown;
        grown = grown < size ? size : grown;
        chunk = perf__alloc(p->allocator, sizeof *chunk + grown);
        if (!chunk) {
            p->status = PERF_ENOMEM;
            return NULL;
        }
        chunk->next = root->chunks;
        chunk->used = 0;
        chunk->size = grown;
        root->chunks = chunk;
    }
    void *room = chunk->bytes + chunk->used;
    chunk->used += size;
    return room;
}

static perf_redis_reply *place_of(const redisReadTask *task)
{
    struct perf__redis_parser *p = task->privdata;
    perf_redis_reply *parent = task->parent ? task->parent->obj : NULL;
    return parent ? &parent->u.elements[task->idx] : &p->into->reply;
}

static void *make_string(const redisReadTask *task, char *text, size_t len)
{
    perf_redis_reply *reply = place_of(task);
    char *data = take_room(task->privdata, len + 1);
    if (!data)
        return NULL;
    memcpy(data, text, len);
    data[len] = '\0';
    reply->type = task->type == REDIS_REPLY_ERROR    ? PERF_REDIS_ERROR
                  : task->type == REDIS_REPLY_STATUS ? PERF_REDIS_STATUS
                                                     : PERF_REDIS_STRING;
    reply->size = len;
    reply->u.data = data;
    return reply;
}

#if HIREDIS_MAJOR >= 1
static void *make_array(const redisReadTask *task, size_t given)
#else
static void *make_array(const redisReadTask *task, int given)
#endif
{
    size_t count = (size_t)given;
    perf_redis_reply *reply = place_of(task);
    /* Our reader has refused what would overflow here. */
    perf_redis_reply *elements = take_room(task->privdata, count * sizeof *elements);
    if (!elements)
        return NULL;
    memset(elements, 0, count * sizeof *elements);
    reply->type = PERF_REDIS_ARRAY;
    reply->size = count;
    reply->u.elements = elements;
    return reply;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    perf_redis_reply *reply = place_of(task);
    reply->type = PERF_REDIS_INTEGER;
    reply->u.integer = value;
    return reply;
}

static void *make_nil(const redisReadTask *task)
{
    return place_of(task); /* zeroed: it is one */
}

static void free_nothing(void *object)
{
    (void)object; /* the root owns all */
}

#if HIREDIS_MAJOR >= 1
static void *make_double(const redisReadTask *task, double value, char *text, size_t len)
{
    (void)value;
    return make_string(task, text, len);
}

static void *make_bool(const redisReadTask *task, int value)
{
    return make_integer(task, value);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = make_string,
    .createArray = make_array,
    .createInteger = make_integer,
    .createNil = make_nil,
    .freeObject = free_nothing,
#if HIREDIS_MAJOR >= 1
    .createDouble = make_double,
    .createBool = make_bool,
#endif
};

static void drop_reader(struct perf__redis_parser *p)
{
    if (p->reader)
        redisReaderFree(p->reader);
    p->reader = NULL;
}

/* The bytes of an array that our reader went over. */
static int feed(struct perf__redis_parser *p, const char *from, const char *to)
{
    void *object = NULL;
    if (p->status || from == to)
        return PERF_OK;
    if (!p->reader && (p->reader = redisReaderCreateWithFunctions(&functions)))
        p->reader->privdata = p;
    if (!p->reader || redisReaderFeed(p->reader, from, (size_t)(to - from)) ||
        redisReaderGetReply(p->reader, &object)) {
        bool memory = p->status == PERF_ENOMEM || !p->reader || p->reader->err == REDIS_ERR_OOM;
        drop_reader(p);
        if (!memory)
            return PERF_EPROTOCOL;
        p->status = PERF_ENOMEM;
        return PERF_OK;
    }
    return p->elements || object ? PERF_OK : PERF_EPROTOCOL;
}

/* ------------------------------------------------------------------- parsing */

void perf__redis_parser_init(struct perf__redis_parser *p, const perf_allocator *allocator,
                             uint64_t max_reply_bytes)
{
    memset(p, 0, sizeof *p);
    p->allocator = allocator;
    p->max = max_reply_bytes;
}

void perf__redis_parser_reset(struct perf__redis_parser *p)
{
    if (p->into)
        perf_redis_reply_release(&p->into->reply);
    if (p->state != START)
        drop_reader(p);
    p->into = NULL;
    p->state = START;
}

void perf__redis_parser_free(struct perf__redis_parser *p)
{
    perf__redis_parser_reset(p);
    drop_reader(p);
}

/* A decimal number up to the line end, which lies within [at, end). */
static bool read_number(const char *at, const char *end, int64_t *out)
{
    bool minus = at < end && *at == '-';
    const char *digit = at + (minus || (at < end && *at == '+'));
    uint64_t value = 0;
    if (digit == end || end - digit > 19)
        return false;
    for (; digit < end; digit++) {
        unsigned d = (unsigned)(*digit - '0');
        if (d > 9)
            return false;
        value = value * 10 + d;
    }
    if (value > (uint64_t)INT64_MAX + minus)
        return false;
    *out = minus ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

/* The line end of a line that begins at `at`, or NULL. */
static const char *line_end(const char *at, const char *end)
{
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    return newline;
}

static int too_long(const char *at, const char *end)
{
    return end - at >= PERF__REDIS_LINE_MAX ? PERF_EPROTOCOL : 0;
}

static void give_up(struct perf__redis_parser *p, int status)
{
    p->status = status;
    drop_reader(p);
    if (p->into) /* what it has so far is not needed any more */
        perf_redis_reply_release(&p->into->reply);
    p->into = NULL;
}

static int finish(struct perf__redis_parser *p, perf_redis_reply **reply)
{
    if (p->status) {
        give_up(p, p->status);
        *reply = NULL;
    } else {
        *reply = &p->into->reply;
        p->into = NULL;
    }
    p->state = START;
    return 1;
}

static void set_text(struct perf__redis_parser *p, int type, const char *text, size_t len)
{
    struct perf__redis_root *root = p->into;
    char *data = root->room;
    if (len >= sizeof root->room) {
        data = root->bulk = perf__alloc(p->allocator, len + 1);
        if (!data) {
            p->status = PERF_ENOMEM;
            return;
        }
    }
    memcpy(data, text, len);
    data[len] = '\0';
    root->reply.type = type;
    root->reply.size = len;
    root->reply.u.data = data;
}

/* Of a bulk's last `left` bytes the first `take` are at hand: does it end as it must? */
static bool ends_well(const char *at, size_t take, uint64_t left)
{
    return (left < 2 || left - 2 >= take || at[left - 2] == '\r') &&
           (left - 1 >= take || at[left - 1] == '\n');
}

/* A bulk that is not here as a whole: its memory grows with what really comes. */
static int bulk_more(struct perf__redis_parser *p, const char **at, const char *end,
                     perf_redis_reply **reply)
{
    size_t there = (size_t)(end - *at);
    size_t take = there < p->left ? there : (size_t)p->left;
    struct perf__redis_root *root = p->into;
    if (!ends_well(*at, take, p->left))
        return PERF_EPROTOCOL;
    if (p->state == BULK && !p->status && take) {
        size_t whole = p->have + (size_t)p->left, need = p->have + take;
        if (need > p->space) {
            size_t space = p->space ? p->space * 2 : FIRST_BULK;
            space = space < need ? need : space;
            space = space > whole ? whole : space;
            char *grown = perf__realloc(p->allocator, root->bulk, space);
            if (!grown) {
                give_up(p, PERF_ENOMEM);
            } else {
                root->bulk = grown;
                p->space = space;
            }
        }
        if (!p->status) {
            memcpy(root->bulk + p->have, *at, take);
            p->have += take;
        }
    }
    *at += take;
    p->left -= take;
    if (p->left)
        return 0;
    if (p->state == BULK && !p->status) {
        size_t len = p->have - 2;
        root->bulk[len] = '\0';
        root->reply.type = PERF_REDIS_STRING;
        root->reply.size = len;
        root->reply.u.data = root->bulk;
    }
    return finish(p, reply);
}

static int bulk(struct perf__redis_parser *p, const char **at, const char *end, int64_t len,
                perf_redis_reply **reply)
{
    if (len == -1)
        return finish(p, reply);
    if (len < 0 || len > INT64_MAX - 2)
        return PERF_EPROTOCOL;
    if (!p->status && (uint64_t)len > p->max)
        give_up(p, PERF_ETOOBIG);
    if (end - *at >= len + 2) {
        if (memcmp(*at + len, "\r\n", 2) != 0)
            return PERF_EPROTOCOL;
        if (!p->status)
            set_text(p, PERF_REDIS_STRING, *at, (size_t)len);
        *at += len + 2;
        return finish(p, reply);
    }
    p->left = (uint64_t)len + 2;
    p->have = p->space = 0;
    p->state = p->status ? SKIP : BULK;
    return bulk_more(p, at, end, reply);
}

/* Counts on through an array's bytes. */
static int nested(struct perf__redis_parser *p, const char **at, const char *end,
                  perf_redis_reply **reply)
{
    const char *from = *at;
    while (p->elements) {
        if (p->state == NESTED_BULK) {
            size_t there = (size_t)(end - *at);
            size_t take = there < p->left ? there : (size_t)p->left;
            if (!ends_well(*at, take, p->left))
                return PERF_EPROTOCOL;
            *at += take;
            p->left -= take;
            if (p->left)
                break;
            p->state = NESTED;
            p->elements--;
            continue;
        }
        if (*at == end)
            break;
        const char *newline = line_end(*at, end);
        if (!newline) {
            if (too_long(*at, end))
                return PERF_EPROTOCOL;
            break;
        }
        int64_t number = 0;
        char type = **at;
        size_t line = (size_t)(newline - *at);
        if (line < 2 || newline[-1] != '\r')
            return PERF_EPROTOCOL;
        switch (type) {
        case '+':
        case '-':
            p->weight += line;
            p->elements--;
            break;
        case ':':
            if (!read_number(*at + 1, newline - 1, &number))
                return PERF_EPROTOCOL;
            p->elements--;
            break;
        case '$':
        case '*':
            if (!read_number(*at + 1, newline - 1, &number) || number < -1 || number > INT32_MAX)
                return PERF_EPROTOCOL;
            if (type == '*') {
                p->elements += (uint64_t)(number > 0 ? number : 0) - 1;
                p->weight += sizeof(perf_redis_reply) * (uint64_t)(number > 0 ? number : 0);
                if (p->elements > INT64_MAX / 2)
                    return PERF_EPROTOCOL;
            } else if (number < 0) {
                p->elements--;
            } else {
                p->weight += (uint64_t)number;
                p->left = (uint64_t)number + 2;
                p->state = NESTED_BULK;
            }
            break;
        default:
            return PERF_EPROTOCOL;
        }
        *at = newline + 1;
        if (!p->status && p->weight > p->max)
            give_up(p, PERF_ETOOBIG);
    }
    int rc = feed(p, from, *at);
    return rc ? rc : p->elements ? 0 : finish(p, reply);
}

int perf__redis_parse(struct perf__redis_parser *p, const char **at, const char *end,
                      perf_redis_reply **spare, perf_redis_reply **reply)
{
    if (p->state == BULK || p->state == SKIP)
        return bulk_more(p, at, end, reply);
    if (p->state != START)
        return nested(p, at, end, reply);
    if (*at == end)
        return 0;
    const char *newline = line_end(*at, end);
    if (!newline)
        return too_long(*at, end);
    if (newline - *at < 2 || newline[-1] != '\r')
        return PERF_EPROTOCOL;

    const char *text = *at + 1, *stop = newline - 1;
    int64_t number = 0;
    char type = **at;
    p->status = PERF_OK;
    p->into = (struct perf__redis_root *)(*spare ? *spare : perf__redis_reply_new(p->allocator));
    *spare = NULL;
    if (!p->into)
        p->status = PERF_ENOMEM;
    switch (type) {
    case '+':
    case '-':
        if (!p->status)
            set_text(p, type == '+' ? PERF_REDIS_STATUS : PERF_REDIS_ERROR, text,
                     (size_t)(stop - text));
        *at = newline + 1;
        return finish(p, reply);
    case ':':
        if (!read_number(text, stop, &number))
            return PERF_EPROTOCOL;
        if (!p->status) {
            p->into->reply.type = PERF_REDIS_INTEGER;
            p->into->reply.u.integer = number;
        }
        *at = newline + 1;
        return finish(p, reply);
    case '$':
        if (!read_number(text, stop, &number))
            return PERF_EPROTOCOL;
        *at = newline + 1;
        return bulk(p, at, end, number, reply);
    case '*':
        p->state = NESTED;
        p->elements = 1;
        p->weight = 0;
        return nested(p, at, end, reply);
    default:
        return PERF_EPROTOCOL;
    }
}
