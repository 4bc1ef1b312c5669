/* SPDX-License-Identifier: MIT */
/*
 * redis_call.c - calls that wait: one command, many, a transaction.
 *
 * A call lives on its caller's stack, with the reply's block allocated and freed
 * by the caller's own thread. Any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis.h"
#include "redis_reply.h"

enum { ROOM = 1024, WORDS = 64 };

/* What the server says, without what it repeats of our arguments. */
static int fail_reply(const perf_redis_reply *reply)
{
    static const char quotes[] = ", with args beginning with";
    const char *text = reply->u.data, *cut = strstr(text, quotes);
    return perf__fail(perf_redis_reply_status(reply), "%.*s",
                      cut ? (int)(cut - text) : (int)(reply->size > 300 ? 300 : reply->size), text);
}

int perf__redis_take_reply(struct perf__redis_op *op, perf_redis_reply *reply,
                           perf_redis_reply **out)
{
    int rc = PERF_OK;
    if (op->status)
        rc = perf__fail(op->status, "%s", op->error);
    else if (reply && reply->type == PERF_REDIS_ERROR)
        rc = fail_reply(reply);
    if (!rc && out)
        *out = reply;
    else
        perf_redis_reply_release(reply);
    return rc;
}

int perf__redis_begin(perf_redis *redis, int64_t timeout_ms, int64_t *deadline_ns)
{
    int rc = perf__redis_check(redis);
    if (rc || (timeout_ms < 0 && (rc = perf__check_range("timeout_ms", timeout_ms, 0, INT64_MAX))))
        return rc;
    if (perf__redis_loop_is_here(redis->loop))
        return perf__fail(PERF_EDEADLK,
                          "a blocking call inside a callback of the same client would "
                          "wait for itself; use perf_redis_start");
    *deadline_ns = perf__redis_deadline(timeout_ms ? timeout_ms : redis->options.timeout_ms);
    return PERF_OK;
}

void perf__redis_trip_init(struct perf__redis_trip *trip, size_t argc, const perf_bytes *argv,
                           const char *bytes, size_t len, uint32_t expected, int64_t deadline_ns,
                           perf_redis_reply **replies)
{
    struct perf__redis_op *op = &trip->op;
    op->bytes = bytes;
    op->len = len;
    op->expected = expected;
    op->anywhere = false;
    op->deadline_ns = deadline_ns;
    op->replies = replies;
    op->done = NULL;
    op->ctx = NULL;
    op->status = PERF_OK;
    op->error[0] = '\0';
    atomic_init(&op->over, 0);
    trip->argc = argc;
    trip->argv = argv;
    trip->link = NULL;
}

static int send_one(perf_redis *redis, size_t argc, const perf_bytes *argv, int64_t deadline_ns,
                    perf_redis_reply **out)
{
    struct perf__redis_trip trip;
    const perf_allocator *a = &redis->host.allocator;
    char room[ROOM], *bytes = room;
    size_t size = perf__redis_encoded_size(argc, argv);
    if (size > sizeof room && !(bytes = perf__alloc(a, size)))
        return perf__fail_nomem("a Redis command");
    perf__redis_encode(bytes, argc, argv);
    perf_redis_reply *reply = perf__redis_reply_new(a);
    int rc = reply ? PERF_OK : perf__fail_nomem("a Redis reply");
    if (!rc) {
        perf__redis_trip_init(&trip, argc, argv, bytes, size, 1, deadline_ns, &reply);
        rc = redis->route->start(redis, &trip);
    }
    if (rc) {
        perf_redis_reply_release(reply);
    } else {
        redis->route->wait(redis, &trip); /* the client may be closing from here on */
        rc = perf__redis_take_reply(&trip.op, reply, out);
    }
    if (bytes != room)
        perf__free(a, bytes);
    return rc;
}

int perf_redis_call(perf_redis *redis, size_t argc, const perf_bytes *argv, int64_t timeout_ms,
                    perf_redis_reply **out)
{
    int64_t deadline_ns;
    int rc = perf__redis_begin(redis, timeout_ms, &deadline_ns);
    if (rc || (rc = perf__redis_check_command(argc, argv)))
        return rc;
    int kind = perf__redis_command_kind(argc, argv);
    if (__builtin_expect(kind != PERF__REDIS_PLAIN, 0))
        return kind == PERF__REDIS_REFUSED
                   ? PERF_EINVAL
                   : perf__redis_call_blocking(redis, argc, argv, deadline_ns, out);
    return send_one(redis, argc, argv, deadline_ns, out);
}

int perf_redis_call_text(perf_redis *redis, const char *const *words, int64_t timeout_ms,
                         perf_redis_reply **out)
{
    perf_bytes few[WORDS], *argv = few;
    size_t argc = 0;
    if (!words)
        return perf__fail(PERF_EINVAL,
                          "words is NULL; give strings, the last one followed by NULL");
    while (words[argc])
        argc++;
    int rc = perf__redis_check(redis);
    if (rc)
        return rc;
    if (argc > WORDS && !(argv = perf__calloc(&redis->host.allocator, argc, sizeof *argv)))
        return perf__fail_nomem("a Redis command");
    for (size_t i = 0; i < argc; i++)
        argv[i] = (perf_bytes){words[i], strlen(words[i])};
    rc = perf_redis_call(redis, argc, argv, timeout_ms, out);
    if (argv != few)
        perf__free(&redis->host.allocator, argv);
    return rc;
}

/* --------------------------------------------------------------------- many */

/* Encodes commands, between two others if there are such. */
static int encode_all(perf_redis *redis, size_t count, const perf_redis_command *commands,
                      const perf_redis_command *before, const perf_redis_command *after,
                      char **bytes, size_t *len)
{
    size_t size = before ? perf__redis_encoded_size(before->argc, before->argv) +
                               perf__redis_encoded_size(after->argc, after->argv)
                         : 0;
    for (size_t i = 0; i < count; i++)
        size += perf__redis_encoded_size(commands[i].argc, commands[i].argv);
    *bytes = perf__alloc(&redis->host.allocator, size);
    if (!*bytes)
        return perf__fail_nomem("Redis commands");
    *len = size;
    char *at = *bytes;
    if (before)
        at = perf__redis_encode(at, before->argc, before->argv);
    for (size_t i = 0; i < count; i++)
        at = perf__redis_encode(at, commands[i].argc, commands[i].argv);
    if (after)
        perf__redis_encode(at, after->argc, after->argv);
    return PERF_OK;
}

static int check_all(size_t count, const perf_redis_command *commands, bool may_block)
{
    enum { COUNT_MAX = 1 << 20 };
    if (!commands || !count || count > COUNT_MAX)
        return perf__fail(PERF_EINVAL, "count is %zu%s; give 1 to %d commands", count,
                          commands ? "" : " at NULL", COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        int rc = perf__redis_check_command(commands[i].argc, commands[i].argv);
        if (rc)
            return rc;
        int kind = perf__redis_command_kind(commands[i].argc, commands[i].argv);
        if (kind == PERF__REDIS_REFUSED)
            return PERF_EINVAL;
        if (kind == PERF__REDIS_BLOCKS && !may_block)
            return perf__fail(PERF_EUNSUPPORTED,
                              "%.*s may block, and would hold up the others; "
                              "call it by perf_redis_call",
                              (int)commands[i].argv[0].len, (const char *)commands[i].argv[0].data);
    }
    return PERF_OK;
}

static void release_all(size_t count, perf_redis_reply **replies)
{
    for (size_t i = 0; i < count; i++) {
        perf_redis_reply_release(replies[i]);
        replies[i] = NULL;
    }
}

/* Encoded commands as one op; on failure replies holds nothing. */
static int send_all(perf_redis *redis, const perf_redis_command *first, const char *bytes,
                    size_t len, size_t expected, int64_t deadline_ns, perf_redis_reply **replies)
{
    struct perf__redis_trip trip;
    memset(replies, 0, expected * sizeof *replies);
    perf__redis_trip_init(&trip, first->argc, first->argv, bytes, len, (uint32_t)expected,
                          deadline_ns, replies);
    int rc = redis->route->start(redis, &trip);
    if (rc)
        return rc;
    redis->route->wait(redis, &trip);
    if (!trip.op.status)
        return PERF_OK;
    release_all(expected, replies);
    return perf__fail(trip.op.status, "%s", trip.op.error);
}

int perf_redis_call_many(perf_redis *redis, size_t count, const perf_redis_command *commands,
                         int64_t timeout_ms, perf_redis_reply **replies)
{
    int64_t deadline_ns;
    char *bytes;
    size_t len;
    int rc = perf__redis_begin(redis, timeout_ms, &deadline_ns);
    if (rc || (rc = check_all(count, commands, false)))
        return rc;
    if (!replies)
        return perf__fail(PERF_EINVAL, "replies is NULL; give room for count of them");
    if (redis->route->many)
        return redis->route->many(redis, count, commands, deadline_ns, replies);
    if ((rc = encode_all(redis, count, commands, NULL, NULL, &bytes, &len)))
        return rc;
    rc = send_all(redis, commands, bytes, len, count, deadline_ns, replies);
    perf__free(&redis->host.allocator, bytes);
    return rc;
}

/* The array that EXEC gave, or why there is none: the first command that was refused says so. */
static int take_exec(size_t count, perf_redis_reply **replies, perf_redis_reply **out)
{
    for (size_t i = 0; i < count; i++)
        if (replies[i]->type == PERF_REDIS_ERROR)
            return fail_reply(replies[i]);
    if (replies[count - 1]->type != PERF_REDIS_ARRAY)
        return perf__fail(PERF_EPROTOCOL, "the server's reply to EXEC is no array");
    if (out) {
        *out = replies[count - 1];
        replies[count - 1] = NULL;
    }
    return PERF_OK;
}

int perf_redis_transaction(perf_redis *redis, size_t count, const perf_redis_command *commands,
                           int64_t timeout_ms, perf_redis_reply **out)
{
    static const perf_bytes multi_word = {"MULTI", 5}, exec_word = {"EXEC", 4};
    static const perf_redis_command multi = {1, &multi_word}, exec = {1, &exec_word};
    int64_t deadline_ns;
    char *bytes;
    size_t len;
    int rc = perf__redis_begin(redis, timeout_ms, &deadline_ns);
    if (rc || (rc = check_all(count, commands, true)))
        return rc;
    const perf_allocator *a = &redis->host.allocator;
    perf_redis_reply **replies = perf__calloc(a, count + 2, sizeof *replies);
    if (!replies)
        return perf__fail_nomem("a Redis transaction");
    rc = encode_all(redis, count, commands, &multi, &exec, &bytes, &len);
    if (!rc) {
        rc = send_all(redis, commands, bytes, len, count + 2, deadline_ns, replies);
        perf__free(a, bytes);
    }
    if (!rc)
        rc = take_exec(count + 2, replies, out);
    release_all(count + 2, replies);
    perf__free(a, replies);
    return rc;
}
