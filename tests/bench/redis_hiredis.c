/* SPDX-License-Identifier: MIT */
/* redis_hiredis.c - the floor of bench-redis: hiredis with a connection for each thread. */
#include <hiredis/hiredis.h>

#include "redis_subject.h"

static void *redis_begin(struct redis_thread *thread)
{
    redisContext *context = redisConnect("127.0.0.1", thread->run->port);
    if (!context || context->err)
        bench_die("redisConnect");
    return context;
}

static void redis_end(void *context)
{
    redisFree(context);
}

static redisReply *command(void *context, int argc, const char **argv, const size_t *lens)
{
    redisReply *reply = redisCommandArgv(context, argc, argv, lens);
    if (!reply || reply->type == REDIS_REPLY_ERROR)
        bench_die("redisCommandArgv");
    return reply;
}

static void redis_set(void *context, const char *key, size_t key_len, const char *value)
{
    freeReplyObject(
        command(context, 3, (const char *[]){"SET", key, value}, (const size_t[]){3, key_len, 64}));
}

static bool redis_get(void *context, const char *key, size_t key_len, const char *value)
{
    redisReply *reply =
        command(context, 2, (const char *[]){"GET", key}, (const size_t[]){3, key_len});
    bool right = reply->len == 64 && !memcmp(reply->str, value, 64);
    freeReplyObject(reply);
    return right;
}

int main(int argc, char **argv)
{
    return redis_main(argc, argv);
}
