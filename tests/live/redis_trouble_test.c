/* SPDX-License-Identifier: MIT */
/*
 * redis_trouble_test.c - the Redis client while its server is killed, restarted, paused, full, busy
 * or in the way; and channels through all of that.
 */
#include <libperf/redis.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leaks.h"
#include "redis_fixture.h"

struct seen {
    _Atomic int up, lost;
};

static void on_event(void *ctx, perf_redis *redis, int event)
{
    struct seen *seen = ctx;
    (void)redis;
    if (event == PERF_REDIS_UP)
        seen->up++;
    else
        seen->lost++;
}

static perf_redis *connect_to(const struct test_server *s, struct seen *seen, int64_t fail_fast)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    o.url = s->url;
    o.timeout_ms = 10000;
    o.backoff_max_ms = 200;
    o.fail_fast = fail_fast;
    o.event = seen ? on_event : NULL;
    o.event_ctx = seen;
    OK(perf_redis_open(&o, &redis));
    return redis;
}

static void wait_for(_Atomic int *value, int wanted)
{
    for (int64_t until = fixture_now_ms() + 10000;
         atomic_load(value) < wanted && fixture_now_ms() < until;)
        usleep(1000);
    cr_assert_geq(atomic_load(value), wanted);
}

Test(redis_trouble, killed_and_restarted)
{
    struct test_server *s = fixture_start(NULL);
    struct seen seen = {0};
    perf_redis *redis = connect_to(s, &seen, 0);
    OK(PERF_REDIS_CALL(redis, NULL, "SET", "k", "v"));
    for (int round = 1; round <= 3; round++) {
        test_server_kill(s);
        wait_for(&seen.lost, round); /* noticed although nobody uses it */
        cr_assert(test_server_restart(s));
        OK(PERF_REDIS_CALL(redis, NULL, "PING")); /* within its deadline, without a failure */
        cr_assert_geq(atomic_load(&seen.up), round + 1);
    }
    /* While it is away, a call waits until its deadline and says why. */
    test_server_kill(s);
    wait_for(&seen.lost, 4); /* a call before that may be written in vain, and says PERF_EIO */
    const char *const words[] = {"GET", "k", NULL};
    cr_assert_eq(perf_redis_call_text(redis, words, 1000, NULL), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    cr_assert_not_null(strstr(perf_last_error(), "refused"), "%s", perf_last_error());
    OK(perf_redis_close(redis));

    redis = connect_to(s, NULL, 1);
    int64_t begun = fixture_now_ms();
    for (int i = 0; i < 100; i++)
        cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "PING"), PERF_EUNAVAILABLE);
    cr_assert_lt(fixture_now_ms() - begun, 3000, "at once");
    cr_assert(test_server_restart(s));
    int rc;
    while ((rc = PERF_REDIS_CALL(redis, NULL, "PING")) && fixture_now_ms() - begun < 10000)
        usleep(1000);
    OK(rc);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

struct worker {
    perf_redis *redis;
    atomic_bool *stop;
    int number, wrong, odd;
    int64_t done, failed;
    pthread_t thread;
};

/* Each counter is this thread's own: what was acknowledged must be there, and what failed may be.
 */
static void *work(void *ctx)
{
    struct worker *w = ctx;
    char key[20];
    snprintf(key, sizeof key, "n%d", w->number);
    while (!atomic_load(w->stop)) {
        perf_redis_reply *reply = NULL;
        int rc = PERF_REDIS_CALL(w->redis, &reply, "ECHO", key);
        if (!rc && strcmp(perf_redis_reply_data(reply), key) != 0)
            w->wrong++;
        if (rc && rc != PERF_EIO && rc != PERF_EUNAVAILABLE && rc != PERF_ETIMEDOUT &&
            !(rc == PERF_EUNAVAILABLE && perf_redis_error_kind(perf_last_error())))
            w->odd = rc;
        perf_redis_reply_release(reply);
        w->done += !rc;
        w->failed += !!rc;
    }
    return NULL;
}

Test(redis_trouble, threads_while_it_is_killed_again_and_again)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    struct test_leaks leaks = test_leaks_begin();
    enum { THREADS = 24 };
    static struct worker workers[THREADS];
    atomic_bool stop = false;
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.redis = redis, .number = i, .stop = &stop};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        usleep(60000);
        test_server_kill(s);
        cr_assert(test_server_restart(s));
    }
    usleep(100000);
    atomic_store(&stop, true);
    int64_t done = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        cr_assert_eq(workers[i].wrong, 0);
        cr_assert_eq(workers[i].odd, 0, "%d", workers[i].odd);
        done += workers[i].done;
    }
    cr_assert_gt(done, THREADS);
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    test_leaks_end(&leaks);
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_geq(stats.lost, 1); /* it may have been killed while connecting, too */
    cr_assert_eq(stats.pending, 0);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

static void ignore(void *ctx, int status, const char *text, perf_redis_reply *reply)
{
    _Atomic int *counts = ctx;
    (void)text;
    perf_redis_reply_release(reply);
    counts[status == PERF_OK ? 0 : status == PERF_ETIMEDOUT ? 1 : 2]++;
}

Test(redis_trouble, a_paused_server_and_bounds)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    _Atomic int counts[3] = {0, 0, 0};
    static char big[100000];
    perf_bytes echo[] = {{"ECHO", 4}, {big, sizeof big}}, ping = {"PING", 4};
    o.url = s->url;
    o.max_pending = 1000;
    o.max_pending_bytes = 20 << 20;
    OK(perf_redis_open(&o, &redis));
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    test_server_pause(s);
    int rc, started = 0;
    while (!(rc = perf_redis_start(redis, 2, echo, 1000, ignore, counts, NULL)) && started < 5000)
        started++;
    cr_assert_eq(rc, PERF_EBUSY, "%d after %d", rc, started);
    cr_assert_not_null(strstr(perf_last_error(), "max_pending"), "%s", perf_last_error());
    cr_assert_gt(started, 100);
    cr_assert_lt(started, 1000, "by the bytes");
    while (!(rc = perf_redis_start(redis, 1, &ping, 1000, ignore, counts, NULL)) && started < 5000)
        started++;
    cr_assert_eq(rc, PERF_EBUSY);
    cr_assert_leq(started, 1000);
    int64_t begun = fixture_now_ms();
    wait_for(&counts[1], started); /* all at their deadline */
    cr_assert_lt(fixture_now_ms() - begun, 5000);
    test_server_resume(s);
    begun = fixture_now_ms();
    while ((rc = perf_redis_call(redis, 1, &ping, 0, NULL)) == PERF_EBUSY &&
           fixture_now_ms() - begun < 10000)
        usleep(1000);
    OK(rc);
    cr_assert_eq(counts[0] + counts[2], 0);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

struct late {
    perf_redis *redis;
    int rc;
    int64_t took;
};

static void *call_late(void *ctx)
{
    struct late *late = ctx;
    const char *const words[] = {"PING", NULL};
    int64_t begun = fixture_now_ms();
    late->rc = perf_redis_call_text(late->redis, words, 300, NULL);
    late->took = fixture_now_ms() - begun;
    return NULL;
}

Test(redis_trouble, every_callers_deadline_holds)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    enum { THREADS = 200 };
    static struct late late[THREADS];
    static pthread_t threads[THREADS];
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    test_server_pause(s);
    for (int i = 0; i < THREADS; i++) {
        late[i].redis = redis;
        cr_assert_eq(pthread_create(&threads[i], NULL, call_late, &late[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(late[i].rc, PERF_ETIMEDOUT);
        cr_assert_geq(late[i].took, 290);
        cr_assert_lt(late[i].took, 3000);
    }
    test_server_resume(s);
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_eq(stats.timeouts, THREADS);
    cr_assert_eq(stats.pending, 0);
    cr_assert_eq(stats.connects, 1);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

static void *wait_for_close(void *ctx)
{
    const char *const words[] = {"PING", NULL};
    return (void *)(intptr_t)perf_redis_call_text(ctx, words, 20000, NULL);
}

Test(redis_trouble, close_ends_those_who_wait)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    enum { THREADS = 20 };
    pthread_t threads[THREADS];
    _Atomic int counts[3] = {0, 0, 0};
    perf_bytes ping = {"PING", 4};
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    test_server_pause(s);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_close, redis), 0);
    for (int i = 0; i < 10; i++)
        OK(perf_redis_start(redis, 1, &ping, 0, ignore, counts, NULL));
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    for (int64_t until = fixture_now_ms() + 5000;
         stats.pending < THREADS + 10 && fixture_now_ms() < until;) {
        OK(perf_redis_get_stats(redis, &stats));
        usleep(1000);
    }
    cr_assert_eq(stats.pending, THREADS + 10);
    OK(perf_redis_close(redis));
    cr_assert_eq(counts[2], 10, "their callbacks were called");
    for (int i = 0; i < THREADS; i++) {
        void *rc;
        pthread_join(threads[i], &rc);
        cr_assert_eq((intptr_t)rc, PERF_ECLOSED);
    }
    test_server_resume(s);
    test_server_stop(s);
}

Test(redis_trouble, what_the_server_refuses)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    OK(PERF_REDIS_CALL(redis, NULL, "CONFIG", "SET", "maxmemory", "1"));
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "SET", "k", "v"), PERF_ETHROTTLED);
    cr_assert_eq(perf_redis_error_kind(perf_last_error()), PERF_REDIS_ERROR_OOM);
    OK(PERF_REDIS_CALL(redis, NULL, "CONFIG", "SET", "maxmemory", "0"));
    OK(PERF_REDIS_CALL(redis, NULL, "CONFIG", "SET", "min-replicas-to-write", "1"));
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "SET", "k", "v"), PERF_EUNAVAILABLE);
    cr_assert_eq(perf_redis_error_kind(perf_last_error()), PERF_REDIS_ERROR_NOREPLICAS);
    OK(PERF_REDIS_CALL(redis, NULL, "CONFIG", "SET", "min-replicas-to-write", "0"));
    OK(PERF_REDIS_CALL(redis, NULL, "REPLICAOF", "127.0.0.1", "1"));
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "SET", "k", "v"), PERF_EUNAVAILABLE);
    cr_assert_eq(perf_redis_error_kind(perf_last_error()), PERF_REDIS_ERROR_READONLY);
    OK(PERF_REDIS_CALL(redis, NULL, "REPLICAOF", "NO", "ONE"));
    /* Thrown out by the server: noticed, and back again. */
    for (int i = 0; i < 3; i++) {
        free(test_redis_cli(s, "CLIENT KILL TYPE normal"));
        int rc = PERF_REDIS_CALL(redis, NULL, "PING");
        cr_assert(rc == PERF_OK || rc == PERF_EIO, "%s", perf_last_error());
    }
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis_trouble, a_reply_that_is_too_large_harms_no_other)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    perf_redis_reply *replies[3], *reply;
    perf_bytes get[] = {{"GET", 3}, {"big", 3}}, ping = {"PING", 4};
    perf_bytes range[] = {{"LRANGE", 6}, {"l", 1}, {"0", 1}, {"-1", 2}};
    perf_redis_command three[] = {{1, &ping}, {2, get}, {1, &ping}};
    o.url = s->url;
    o.max_reply_bytes = 10000;
    OK(perf_redis_open(&o, &redis));
    OK(PERF_REDIS_CALL(redis, NULL, "SETRANGE", "big", "500000", "x"));
    OK(PERF_REDIS_CALL(redis, NULL, "EVAL", "for i=1,2000 do redis.call('RPUSH','l',i) end", "0"));
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(perf_redis_call(redis, 2, get, 0, &reply), PERF_ETOOBIG);
        cr_assert_eq(perf_redis_call(redis, 4, range, 0, &reply), PERF_ETOOBIG);
        cr_assert_eq(perf_redis_call_many(redis, 3, three, 0, replies), PERF_ETOOBIG);
        OK(PERF_REDIS_CALL(redis, &reply, "ECHO", "x"));
        cr_assert_str_eq(perf_redis_reply_data(reply), "x");
        perf_redis_reply_release(reply);
    }
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_eq(stats.connects, 1);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

/* ---------------------------------------------------------------- channels */

static int64_t next_kind(perf_redis_subscriber *sub, perf_redis_message *m)
{
    *m = (perf_redis_message)PERF_REDIS_MESSAGE_INIT;
    OK(perf_redis_next_message(sub, 10000, m));
    return m->kind;
}

static bool is(perf_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && !memcmp(bytes.data, text, bytes.len);
}

Test(redis_trouble, channels)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    struct test_leaks leaks = test_leaks_begin();
    perf_redis_subscriber *sub;
    perf_redis_message m;
    int fd;
    OK(perf_redis_subscriber_open(redis, NULL, &sub));
    OK(perf_redis_message_fd(sub, &fd));
    struct pollfd p = {fd, POLLIN, 0};
    cr_assert_eq(perf_redis_next_message(sub, 10, &(perf_redis_message)PERF_REDIS_MESSAGE_INIT),
                 PERF_MISS);
    OK(perf_redis_subscribe(sub, "news", 4));
    OK(perf_redis_subscribe(sub, "news", 4));
    OK(perf_redis_psubscribe(sub, "a*", 2));
    cr_assert_eq(next_kind(sub, &m), PERF_REDIS_SUBSCRIBED);
    cr_assert_eq(next_kind(sub, &m), PERF_REDIS_SUBSCRIBED);
    cr_assert_gt(perf_redis_subscriber_id(sub), 0);
    OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "news", "hello"));
    OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "abc", "world"));
    cr_assert_eq(poll(&p, 1, 5000), 1);
    cr_assert_eq(next_kind(sub, &m), PERF_REDIS_MESSAGE);
    cr_assert(is(m.channel, "news") && is(m.data, "hello") && !m.pattern.data);
    cr_assert_eq(next_kind(sub, &m), PERF_REDIS_MESSAGE);
    cr_assert(is(m.channel, "abc") && is(m.data, "world") && is(m.pattern, "a*"));
    cr_assert_eq(poll(&p, 1, 0), 0);
    for (int round = 0; round < 2; round++) {
        int64_t id = perf_redis_subscriber_id(sub);
        test_server_kill(s);
        cr_assert_eq(next_kind(sub, &m), PERF_REDIS_DISCONNECTED);
        cr_assert_eq(perf_redis_subscriber_id(sub), 0);
        if (!round)
            OK(perf_redis_subscribe(sub, "late", 4)); /* while there is no connection */
        cr_assert(test_server_restart(s));
        int subscribed = 0;
        bool gap = false;
        while (!gap || subscribed < 3) {
            int64_t kind = next_kind(sub, &m);
            gap |= kind == PERF_REDIS_GAP;
            subscribed += kind == PERF_REDIS_SUBSCRIBED;
        }
        (void)id;
        cr_assert_gt(perf_redis_subscriber_id(sub), 0);
        OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "late", "x"));
        cr_assert_eq(next_kind(sub, &m), PERF_REDIS_MESSAGE);
        cr_assert(is(m.channel, "late"));
    }
    OK(perf_redis_unsubscribe(sub, "news", 4));
    OK(perf_redis_punsubscribe(sub, "a*", 2));
    cr_assert_eq(perf_redis_unsubscribe(sub, "news", 4), PERF_MISS);
    perf_redis_reply *reply;
    int64_t heard = 1;
    for (int64_t until = fixture_now_ms() + 5000; heard && fixture_now_ms() < until;) {
        OK(PERF_REDIS_CALL(redis, &reply, "PUBLISH", "abc", "x"));
        heard = perf_redis_reply_integer(reply);
        perf_redis_reply_release(reply);
    }
    cr_assert_eq(heard, 0);
    OK(perf_redis_subscriber_close(sub));
    test_leaks_end(&leaks);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

struct heard {
    _Atomic int messages, subscribed, disconnected, gaps, wrong;
};

static void on_message(void *ctx, perf_redis_subscriber *sub, const perf_redis_message *m)
{
    struct heard *heard = ctx;
    heard->wrong += perf_redis_subscriber_close(sub) != PERF_EDEADLK;
    heard->messages += m->kind == PERF_REDIS_MESSAGE;
    heard->subscribed += m->kind == PERF_REDIS_SUBSCRIBED;
    heard->disconnected += m->kind == PERF_REDIS_DISCONNECTED;
    heard->gaps += m->kind == PERF_REDIS_GAP;
}

Test(redis_trouble, channels_by_callback_and_a_silent_server)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    perf_redis_subscriber_options o = PERF_REDIS_SUBSCRIBER_OPTIONS_INIT;
    perf_redis_subscriber *sub;
    struct heard heard = {0};
    perf_redis_message m = PERF_REDIS_MESSAGE_INIT;
    o.message = on_message;
    o.message_ctx = &heard;
    o.ping_ms = 100;
    OK(perf_redis_subscriber_open(redis, &o, &sub));
    OK(perf_redis_subscribe(sub, "c", 1));
    wait_for(&heard.subscribed, 1);
    for (int i = 0; i < 500; i++)
        OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "c", "x"));
    wait_for(&heard.messages, 500);
    cr_assert_eq(perf_redis_next_message(sub, 0, &m), PERF_EINVAL);
    usleep(300000); /* pings are answered: it stays */
    cr_assert_eq(heard.disconnected, 0);
    test_server_pause(s);
    wait_for(&heard.disconnected, 1);
    test_server_resume(s);
    wait_for(&heard.gaps, 1);
    wait_for(&heard.subscribed, 2);
    OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "c", "x"));
    wait_for(&heard.messages, 501);
    cr_assert_eq(heard.wrong, 0);
    OK(perf_redis_subscriber_close(sub));
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis_trouble, a_listener_that_is_too_slow_is_told)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s, NULL, 0);
    perf_redis_subscriber_options o = PERF_REDIS_SUBSCRIBER_OPTIONS_INIT;
    perf_redis_subscriber *sub;
    perf_redis_message m;
    o.max_queued = 5;
    OK(perf_redis_subscriber_open(redis, &o, &sub));
    OK(perf_redis_subscribe(sub, "c", 1));
    cr_assert_eq(next_kind(sub, &m), PERF_REDIS_SUBSCRIBED);
    for (int i = 0; i < 20; i++)
        OK(PERF_REDIS_CALL(redis, NULL, "PUBLISH", "c", "x"));
    int messages = 0;
    int64_t kind;
    usleep(50000);
    while ((kind = next_kind(sub, &m)) != PERF_REDIS_GAP)
        messages += kind == PERF_REDIS_MESSAGE;
    cr_assert_eq(messages, 5);
    OK(perf_redis_subscriber_close(sub));
    OK(perf_redis_close(redis));
    test_server_stop(s);
}
