/* SPDX-License-Identifier: MIT */
/*
 * 09_redis.c - a shared counter, a batch, a transaction, a script, and news by publish/subscribe.
 *
 *     cc 09_redis.c $(pkg-config --cflags --libs libperf) && ./a.out redis://127.0.0.1:6379
 *
 * Without arguments it asks a port of this machine where nobody listens, to show what failures
 * look like: a code to act upon, and a sentence to read.
 */
#include <libperf/redis.h>
#include <stdio.h>
#include <string.h>

#define TEXT(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }
#define COMMAND(argv)                       \
    {                                       \
        sizeof(argv) / sizeof *(argv), argv \
    }

static int failed(const char *what, int rc)
{
    printf("%s: %s: %s\n", what, perf_strstatus(rc), perf_last_error());
    return 1;
}

/* The simplest way: words in, a reply out. */
static int one_command(perf_redis *redis)
{
    perf_redis_reply *reply;
    int rc = PERF_REDIS_CALL(redis, &reply, "INCR", "example:visits");
    if (rc != PERF_OK)
        return failed("INCR", rc);
    printf("visit %lld\n", (long long)perf_redis_reply_integer(reply));
    perf_redis_reply_release(reply);
    return 0;
}

/* Any bytes; both commands in one write, and nobody's in between. */
static int transaction(perf_redis *redis)
{
    static const perf_bytes set[] = {TEXT("SET"), TEXT("example:\0key"), TEXT("a\r\nvalue"),
                                     TEXT("PX"), TEXT("60000")};
    static const perf_bytes get[] = {TEXT("GET"), TEXT("example:\0key")};
    static const perf_redis_command both[] = {COMMAND(set), COMMAND(get)};
    perf_redis_reply *reply;
    int rc = perf_redis_transaction(redis, 2, both, /* timeout_ms */ 1000, &reply);
    if (rc != PERF_OK)
        return failed("transaction", rc);
    const perf_redis_reply *value = perf_redis_reply_element(reply, 1);
    printf("%zu bytes came back\n", perf_redis_reply_size(value));
    perf_redis_reply_release(reply);
    return 0;
}

/* Runs by its SHA-1; the text goes over the network only where it is not known yet. */
static int script(perf_redis *redis)
{
    static const char text[] = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    static const perf_bytes argv[] = {TEXT("example:total"), TEXT("5")};
    perf_redis_script *add;
    perf_redis_reply *reply;
    int rc = perf_redis_script_new(NULL, text, sizeof text - 1, &add);
    if (rc != PERF_OK)
        return failed("script", rc);
    rc = perf_redis_script_call(redis, add, 1, 2, argv, 1000, &reply);
    perf_redis_script_free(add);
    if (rc != PERF_OK)
        return failed("script", rc);
    printf("total %lld\n", (long long)perf_redis_reply_integer(reply));
    perf_redis_reply_release(reply);
    return 0;
}

/* A connection of its own listens; after a lost connection it says that there was a gap. */
static int news(perf_redis *redis)
{
    perf_redis_subscriber *subscriber;
    perf_redis_message message = PERF_REDIS_MESSAGE_INIT;
    int rc = perf_redis_subscriber_open(redis, NULL, &subscriber);
    if (rc != PERF_OK)
        return failed("subscriber", rc);
    rc = perf_redis_subscribe(subscriber, "example:news", strlen("example:news"));
    while (rc == PERF_OK && (rc = perf_redis_next_message(subscriber, 2000, &message)) == PERF_OK) {
        if (message.kind == PERF_REDIS_SUBSCRIBED)
            rc = PERF_REDIS_CALL(redis, NULL, "PUBLISH", "example:news", "hello");
        if (message.kind == PERF_REDIS_GAP)
            puts("what is cached may be out of date");
        if (message.kind == PERF_REDIS_MESSAGE) {
            printf("%.*s says %.*s\n", (int)message.channel.len, (const char *)message.channel.data,
                   (int)message.data.len, (const char *)message.data.data);
            break;
        }
    }
    perf_redis_subscriber_close(subscriber);
    return rc == PERF_OK ? 0 : failed("news", rc);
}

int main(int argc, char **argv)
{
    perf_redis_options options = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    options.url = argc > 1 ? argv[1] : "redis://127.0.0.1:1";
    options.fail_fast = argc <= 1;
    int rc = perf_redis_open(&options, &redis);
    if (rc != PERF_OK)
        return failed("open", rc);
    int bad = one_command(redis);
    if (argc > 1)
        bad = bad || transaction(redis) || script(redis) || news(redis);
    else
        bad = !bad; /* it had to fail */
    if (perf_redis_close(redis) != PERF_OK)
        bad = failed("close", PERF_EDEADLK);
    return bad;
}
