/* SPDX-License-Identifier: MIT */
/*
 * redis_fixture.h - what the live tests of the Redis client have in common.
 */
#ifndef TESTS_REDIS_FIXTURE_H
#define TESTS_REDIS_FIXTURE_H

#include <libperf/redis.h>
#include <pthread.h>
#include <stdarg.h>
#include <time.h>

#include "leaks.h"
#include "server.h"
#include "test.h"

static inline int64_t fixture_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void fixture_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

#define OK(call)                                                                \
    do {                                                                        \
        int rc_ = (call);                                                       \
        cr_assert_eq(rc_, PERF_OK, "%s: %d %s", #call, rc_, perf_last_error()); \
    } while (0)

/* One server, by default a plain one; without a program for it the test is skipped. */
static inline struct test_server *fixture_start(const struct test_redis *asked)
{
    static const struct test_redis plain;
    struct test_server *s = test_server_redis(asked ? asked : &plain);
    if (!s)
        PERF_TEST_SKIP(test_server_why());
    return s;
}

static inline void *fixture_nothing(void *ctx)
{
    return ctx;
}

/* A sanitizer's own thread comes with the first of ours: before leaks are counted. */
static inline struct test_leaks fixture_leaks_begin(void)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, fixture_nothing, NULL), 0);
    pthread_join(thread, NULL);
    return test_leaks_begin();
}

/* A command from words parted by blanks; the reply is the caller's, also on failure (NULL). */
static inline int fixture_call(perf_redis *redis, perf_redis_reply **out, int64_t timeout_ms,
                               const char *format, ...)
{
    char text[4096], *rest = text;
    const char *words[512];
    size_t argc = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *word; (word = strsep(&rest, " "));)
        words[argc++] = word;
    words[argc] = NULL;
    *out = NULL;
    return perf_redis_call_text(redis, words, timeout_ms, out);
}

/* Asserts that the command is answered by this text, status or number; "(nil)" for none. */
#define fixture_expect(redis, wanted, ...)                                                      \
    do {                                                                                        \
        perf_redis_reply *reply_;                                                               \
        char number_[32];                                                                       \
        int rc_ = fixture_call(redis, &reply_, 5000, __VA_ARGS__);                              \
        cr_assert_eq(rc_, PERF_OK, "%s", perf_last_error());                                    \
        snprintf(number_, sizeof number_, "%lld", (long long)perf_redis_reply_integer(reply_)); \
        const char *is_ = perf_redis_reply_type(reply_) == PERF_REDIS_NIL ? "(nil)"             \
                          : perf_redis_reply_type(reply_) == PERF_REDIS_INTEGER                 \
                              ? number_                                                         \
                              : perf_redis_reply_data(reply_);                                  \
        cr_assert_str_eq(is_, wanted, "%s instead of %s", is_, wanted);                         \
        perf_redis_reply_release(reply_);                                                       \
    } while (0)

static inline perf_redis_stats fixture_stats(perf_redis *redis)
{
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    cr_assert_eq(perf_redis_get_stats(redis, &stats), PERF_OK);
    return stats;
}

#endif
