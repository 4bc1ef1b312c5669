/* SPDX-License-Identifier: MIT */
/*
 * redis_test.c - the Redis client against a real server: every type of reply, batches,
 * transactions, scripts, callbacks and descriptors, commands that block, channels, ACLs, TLS in its
 * refusals, Unix sockets, and many threads on one connection.
 */
#include <libperf/redis.h>
#include <libperf/resilience.h>

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "leaks.h"
#include "redis_fixture.h"

static perf_redis *connect_to(const struct test_server *s)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    o.url = s->url;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK, "%s", perf_last_error());
    return redis;
}

/* A command whose reply is a number or a text, which must be this. */
static void says(perf_redis *redis, const char *wanted, const char *const *words)
{
    perf_redis_reply *reply = NULL;
    char text[40];
    OK(perf_redis_call_text(redis, words, 0, &reply));
    const char *got = perf_redis_reply_data(reply);
    if (perf_redis_reply_type(reply) == PERF_REDIS_INTEGER) {
        snprintf(text, sizeof text, "%lld", (long long)perf_redis_reply_integer(reply));
        got = text;
    }
    cr_assert_str_eq(got, wanted, "%s: %s", words[0], got);
    perf_redis_reply_release(reply);
}
#define SAYS(redis, wanted, ...) says(redis, wanted, (const char *const[]){__VA_ARGS__, NULL})

#define WORD(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }

Test(redis, replies)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    perf_redis_reply *reply;
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    SAYS(redis, "OK", "SET", "k", "value");
    SAYS(redis, "value", "GET", "k");
    SAYS(redis, "1", "INCR", "n");
    SAYS(redis, "", "GET", "absent");
    OK(PERF_REDIS_CALL(redis, &reply, "GET", "absent"));
    cr_assert_eq(perf_redis_reply_type(reply), PERF_REDIS_NIL);
    perf_redis_reply_release(reply);
    OK(PERF_REDIS_CALL(redis, NULL, "RPUSH", "l", "a", "b", "c"));
    OK(PERF_REDIS_CALL(redis, &reply, "LRANGE", "l", "0", "-1"));
    cr_assert_eq(perf_redis_reply_size(reply), 3);
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 2)), "c");
    perf_redis_reply_release(reply);
    OK(PERF_REDIS_CALL(redis, &reply, "EVAL",
                       "return {1,{2,{3,'x'}},false,redis.status_reply('S')}", "0"));
    cr_assert_eq(perf_redis_reply_size(reply), 4);
    const perf_redis_reply *e = perf_redis_reply_element(perf_redis_reply_element(reply, 1), 1);
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(e, 1)), "x");
    cr_assert_eq(perf_redis_reply_type(perf_redis_reply_element(reply, 2)), PERF_REDIS_NIL);
    cr_assert_eq(perf_redis_reply_type(perf_redis_reply_element(reply, 3)), PERF_REDIS_STATUS);
    perf_redis_reply_release(reply);

    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "INCR", "k"), PERF_EREMOTE);
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "LPUSH", "k", "x"), PERF_EREMOTE);
    cr_assert_eq(perf_redis_error_kind(perf_last_error()), PERF_REDIS_ERROR_WRONGTYPE);
    /* The server repeats the arguments of what it does not know; we do not. */
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "NOSUCH", "hunter2"), PERF_EREMOTE);
    cr_assert_null(strstr(perf_last_error(), "hunter2"), "%s", perf_last_error());

    /* Any bytes, empty and large ones. */
    char *big = malloc(3000000);
    memset(big, 'b', 3000000);
    big[1234567] = '\0';
    perf_bytes set[] = {WORD("SET"), WORD("a\0\r\nb"), {big, 3000000}},
               get[] = {WORD("GET"), WORD("a\0\r\nb")};
    OK(perf_redis_call(redis, 3, set, 0, NULL));
    OK(perf_redis_call(redis, 2, get, 0, &reply));
    cr_assert_eq(perf_redis_reply_size(reply), 3000000);
    cr_assert_arr_eq(perf_redis_reply_data(reply), big, 3000000);
    perf_redis_reply_release(reply);
    set[2] = (perf_bytes){NULL, 0};
    OK(perf_redis_call(redis, 3, set, 0, NULL));
    OK(perf_redis_call(redis, 2, get, 0, &reply));
    cr_assert_eq(perf_redis_reply_type(reply), PERF_REDIS_STRING);
    cr_assert_eq(perf_redis_reply_size(reply), 0);
    perf_redis_reply_release(reply);
    free(big);
    const char *words[120] = {"RPUSH", "many"};
    for (int i = 2; i < 119; i++)
        words[i] = "x";
    says(redis, "117", words);
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_eq(stats.connected, 1);
    cr_assert_eq(stats.connects, 1);
    cr_assert_eq(stats.pending, 0);
    cr_assert_eq(stats.commands, stats.replies);
    cr_assert_eq(stats.error_replies, 3);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis, batches_and_transactions)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    enum { COUNT = 2000 };
    static perf_redis_command commands[COUNT];
    static perf_redis_reply *replies[COUNT];
    perf_bytes incr[] = {WORD("INCR"), WORD("n")}, push[] = {WORD("LPUSH"), WORD("n"), WORD("x")};
    for (int i = 0; i < COUNT; i++)
        commands[i] = i == 7 ? (perf_redis_command){3, push} : (perf_redis_command){2, incr};
    OK(perf_redis_call_many(redis, COUNT, commands, 0, replies));
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(perf_redis_reply_status(replies[i]), i == 7 ? PERF_EREMOTE : PERF_OK);
        if (i != 7)
            cr_assert_eq(perf_redis_reply_integer(replies[i]), i < 7 ? i + 1 : i);
        perf_redis_reply_release(replies[i]);
    }
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_lt(stats.writes, 50, "%llu writes", (unsigned long long)stats.writes);

    perf_redis_reply *reply = NULL;
    OK(perf_redis_transaction(redis, 3, commands + 6, 0, &reply));
    cr_assert_eq(perf_redis_reply_size(reply), 3);
    cr_assert_eq(perf_redis_reply_integer(perf_redis_reply_element(reply, 0)), COUNT);
    cr_assert_eq(perf_redis_reply_status(perf_redis_reply_element(reply, 1)), PERF_EREMOTE);
    perf_redis_reply_release(reply);
    OK(perf_redis_transaction(redis, 1, commands, 0, NULL));
    perf_bytes bad[] = {WORD("SET"), WORD("n")};
    perf_redis_command refused[] = {{2, incr}, {2, bad}};
    reply = NULL;
    cr_assert_eq(perf_redis_transaction(redis, 2, refused, 0, &reply), PERF_EREMOTE);
    cr_assert_not_null(strstr(perf_last_error(), "wrong number of arguments"), "%s",
                       perf_last_error());
    cr_assert_null(reply);
    SAYS(redis, "2002", "GET", "n");
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis, scripts)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    perf_redis_script *script;
    perf_redis_reply *reply;
    static const char text[] = "return {KEYS[1], ARGV[1], #ARGV}";
    perf_bytes argv[40] = {WORD("key"), WORD("one")};
    for (int i = 2; i < 40; i++)
        argv[i] = (perf_bytes)WORD("more");
    OK(perf_redis_script_new(NULL, text, sizeof text - 1, &script));
    for (int i = 0; i < 3; i++) {
        size_t argc = i == 2 ? 40 : 2;
        if (i == 1)
            SAYS(redis, "OK", "SCRIPT", "FLUSH");
        OK(perf_redis_script_call(redis, script, 1, argc, argv, 0, &reply));
        cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 0)), "key");
        cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "one");
        cr_assert_eq(perf_redis_reply_integer(perf_redis_reply_element(reply, 2)),
                     (int64_t)argc - 1);
        perf_redis_reply_release(reply);
    }
    cr_assert_eq(perf_redis_script_call(redis, script, 3, 2, argv, 0, &reply), PERF_EINVAL);
    perf_redis_script_free(script);
    OK(perf_redis_script_new(NULL, "return redis.error_reply('ERR mine')", 36, &script));
    cr_assert_eq(perf_redis_script_call(redis, script, 0, 0, NULL, 0, NULL), PERF_EREMOTE);
    cr_assert_not_null(strstr(perf_last_error(), "mine"));
    perf_redis_script_free(script);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

/* ------------------------------------------------------------------ asynchronous */

struct counted {
    perf_redis *redis;
    _Atomic int done, wrong;
    int64_t last;
};

static void count(void *ctx, int status, const char *text, perf_redis_reply *reply)
{
    struct counted *c = ctx;
    /* In the order of the commands, which each add one. */
    bool right = !status && !*text && perf_redis_reply_integer(reply) == ++c->last;
    right = right && PERF_REDIS_CALL(c->redis, NULL, "PING") == PERF_EDEADLK;
    right = right && perf_redis_close(c->redis) == PERF_EDEADLK;
    c->wrong += !right;
    perf_redis_reply_release(reply);
    c->done++;
}

static void wait_until(_Atomic int *value, int wanted)
{
    int64_t until = fixture_now_ms() + 10000;
    while (atomic_load(value) < wanted && fixture_now_ms() < until)
        usleep(1000);
    cr_assert_eq(atomic_load(value), wanted);
}

Test(redis, callbacks)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    struct counted c = {.redis = redis};
    perf_bytes incr[] = {WORD("INCR"), WORD("n")};
    perf_redis_pending *pending;
    perf_redis_reply *reply;
    enum { COUNT = 20000 };
    for (int i = 0; i < COUNT; i++)
        OK(perf_redis_start(redis, 2, incr, 0, count, &c, NULL));
    wait_until(&c.done, COUNT);
    cr_assert_eq(c.wrong, 0);
    OK(perf_redis_start(redis, 2, incr, 0, count, &c, &pending));
    cr_assert_eq(perf_redis_pending_wait(pending, 0, &reply), PERF_EINVAL);
    wait_until(&c.done, COUNT + 1);
    perf_redis_pending_release(pending);
    SAYS(redis, "20002", "INCR", "n"); /* a caller reads again */
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_lt(stats.writes, COUNT, "they share writes");
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis, pull)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    perf_redis_pending *pending[50], *next;
    perf_redis_reply *reply;
    char text[20];
    int fd, found = 0;
    OK(perf_redis_fd(redis, &fd));
    struct pollfd p = {fd, POLLIN, 0};
    cr_assert_eq(poll(&p, 1, 0), 0);
    for (int i = 0; i < 50; i++) {
        perf_bytes echo[] = {WORD("ECHO"), {text, (size_t)snprintf(text, sizeof text, "%d", i)}};
        OK(perf_redis_start(redis, 2, echo, 0, NULL, NULL, &pending[i]));
    }
    perf_bytes ping = WORD("PING"), wrong[] = {WORD("LPUSH"), WORD("s"), WORD("x")};
    OK(perf_redis_start(redis, 1, &ping, 0, NULL, NULL, NULL)); /* nobody wants to know */
    while (found < 50 && poll(&p, 1, 10000) == 1)
        while (perf_redis_next_done(redis, &next) == PERF_OK) {
            OK(perf_redis_pending_wait(next, 0, &reply));
            cr_assert_eq(next, pending[found]);
            cr_assert_eq(atoi(perf_redis_reply_data(reply)), found++);
            perf_redis_reply_release(reply);
            cr_assert_eq(perf_redis_pending_wait(next, 0, &reply), PERF_EINVAL);
            perf_redis_pending_release(next);
        }
    cr_assert_eq(found, 50);
    cr_assert_eq(poll(&p, 1, 0), 0);

    SAYS(redis, "OK", "SET", "s", "text");
    OK(perf_redis_start(redis, 3, wrong, 0, NULL, NULL, &next));
    cr_assert_eq(perf_redis_pending_wait(next, -1, &reply), PERF_EREMOTE);
    cr_assert_eq(perf_redis_error_kind(perf_last_error()), PERF_REDIS_ERROR_WRONGTYPE);
    perf_redis_pending_release(next);
    /* Released before it is over, and asked after the client has gone. */
    perf_bytes sleep[] = {WORD("DEBUG"), WORD("SLEEP"), WORD("0.2")};
    OK(perf_redis_start(redis, 3, sleep, 0, NULL, NULL, &next));
    OK(perf_redis_start(redis, 1, &ping, 0, NULL, NULL, &pending[0]));
    cr_assert_eq(perf_redis_pending_wait(pending[0], 10, &reply), PERF_MISS);
    perf_redis_pending_release(next);
    OK(perf_redis_close(redis));
    cr_assert_eq(perf_redis_pending_wait(pending[0], 0, &reply), PERF_ECLOSED);
    perf_redis_pending_release(pending[0]);
    test_server_stop(s);
}

/* ------------------------------------------------------------ many threads */

struct worker {
    perf_redis *redis;
    int number, wrong;
    pthread_t thread;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    char key[20], value[40];
    for (int i = 0; i < 300; i++) {
        perf_redis_reply *reply = NULL;
        snprintf(key, sizeof key, "t%d", w->number);
        snprintf(value, sizeof value, "%d of %d", i, w->number);
        if (PERF_REDIS_CALL(w->redis, NULL, "SET", key, value) ||
            PERF_REDIS_CALL(w->redis, &reply, "GET", key) ||
            strcmp(perf_redis_reply_data(reply), value) != 0)
            w->wrong++;
        perf_redis_reply_release(reply);
    }
    return NULL;
}

Test(redis, threads_share_a_connection)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *first = connect_to(s); /* what a first use keeps, such as a thread's number */
    OK(PERF_REDIS_CALL(first, NULL, "PING"));
    OK(perf_redis_close(first));
    struct test_leaks leaks = test_leaks_begin();
    perf_redis *redis = connect_to(s);
    enum { THREADS = 64 };
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.redis = redis, .number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        cr_assert_eq(workers[i].wrong, 0);
    }
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_eq(stats.connects, 1);
    cr_assert_eq(stats.commands, THREADS * 600);
    cr_assert_lt(stats.writes * 2, stats.commands, "%llu writes for %llu commands",
                 (unsigned long long)stats.writes, (unsigned long long)stats.commands);
    OK(perf_redis_close(redis));
    test_leaks_end(&leaks);
    test_server_stop(s);
}

static void wait_for_blocked(const struct test_server *s, int count)
{
    char wanted[40];
    snprintf(wanted, sizeof wanted, "blocked_clients:%d\r", count);
    for (int64_t until = fixture_now_ms() + 10000; fixture_now_ms() < until;) {
        char *text = test_redis_cli(s, "INFO clients");
        bool there = text && strstr(text, wanted);
        free(text);
        if (there)
            return;
    }
    cr_assert_fail("there are not %d blocked clients", count);
}

static void *wait_for_list(void *ctx)
{
    perf_redis *redis = ctx;
    perf_redis_reply *reply = NULL;
    int rc = PERF_REDIS_CALL(redis, &reply, "BLPOP", "queue", "5");
    bool right = !rc && !strcmp(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "item");
    perf_redis_reply_release(reply);
    return right ? NULL : ctx;
}

Test(redis, commands_that_block_do_not_hold_up_others)
{
    struct test_server *s = fixture_start(NULL);
    struct test_leaks leaks;
    pthread_t threads[4];
    perf_redis *redis = connect_to(s);
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    OK(perf_redis_close(redis));
    leaks = test_leaks_begin();
    redis = connect_to(s);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_list, redis), 0);
    wait_for_blocked(s, 4);
    SAYS(redis, "PONG", "PING"); /* not behind them */
    SAYS(redis, "4", "RPUSH", "queue", "item", "item", "item", "item");
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        cr_assert_null(wrong);
    }
    /* The deadline holds, whatever the command says; what is given up is not read by the next. */
    static const char *const words[] = {"BLPOP", "queue", "60", NULL};
    int64_t begun = fixture_now_ms();
    cr_assert_eq(perf_redis_call_text(redis, words, 200, NULL), PERF_ETIMEDOUT);
    cr_assert_lt(fixture_now_ms() - begun, 2000);
    wait_for_blocked(s, 0);
    OK(PERF_REDIS_CALL(redis, NULL, "RPUSH", "queue", "1"));
    SAYS(redis, "1", "LLEN", "queue");
    perf_redis_reply *reply;
    OK(PERF_REDIS_CALL(redis, &reply, "BLPOP", "queue", "1"));
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "1");
    perf_redis_reply_release(reply);
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    OK(perf_redis_get_stats(redis, &stats));
    cr_assert_eq(stats.blocking_calls, 6);
    OK(perf_redis_close(redis));
    test_leaks_end(&leaks);
    test_server_stop(s);
}

static void *block_for_long(void *ctx)
{
    return PERF_REDIS_CALL(ctx, NULL, "BLPOP", "queue", "4") == PERF_ECLOSED ? NULL : ctx;
}

Test(redis, close_ends_those_that_block)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    pthread_t thread;
    void *wrong;
    cr_assert_eq(pthread_create(&thread, NULL, block_for_long, redis), 0);
    wait_for_blocked(s, 1);
    int64_t begun = fixture_now_ms();
    OK(perf_redis_close(redis));
    pthread_join(thread, &wrong);
    cr_assert_null(wrong);
    cr_assert_lt(fixture_now_ms() - begun, 2000);
    test_server_stop(s);
}

Test(redis, deadlines_are_inherited)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis = connect_to(s);
    perf_deadline before = PERF_DEADLINE_INIT;
    OK(PERF_REDIS_CALL(redis, NULL, "PING"));
    test_server_pause(s);
    int64_t begun = fixture_now_ms();
    perf_deadline_enter(150, NULL, &before);
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "PING"), PERF_ETIMEDOUT, "%s", perf_last_error());
    perf_deadline_leave(&before);
    cr_assert_geq(fixture_now_ms() - begun, 140);
    cr_assert_lt(fixture_now_ms() - begun, 2000);
    test_server_resume(s);
    SAYS(redis, "x", "ECHO", "x"); /* the reply that is late is nobody's */
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

/* -------------------------------------------------------------- who we are */

static int try_open(perf_redis_options *o, perf_redis **out)
{
    OK(perf_redis_open(o, out));
    return PERF_REDIS_CALL(*out, NULL, "PING");
}

Test(redis, passwords_and_users)
{
    struct test_redis asked = {
        .password = "pass:w/rd", .user = "worker", .user_password = "s3cret!"};
    struct test_server *s = fixture_start(&asked);
    perf_redis *redis;
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.port = s->port;
    o.client_name = "tester";
    cr_assert_eq(try_open(&o, &redis), PERF_EACCESS, "%s", perf_last_error());
    OK(perf_redis_close(redis));
    o.password = "wrong-hunter2";
    o.timeout_ms = 60000; /* it is not waited for what cannot become better */
    int64_t begun = fixture_now_ms();
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(i ? PERF_REDIS_CALL(redis, NULL, "PING") : try_open(&o, &redis), PERF_EACCESS);
        cr_assert_null(strstr(perf_last_error(), "hunter2"), "%s", perf_last_error());
        cr_assert_not_null(strstr(perf_last_error(), "WRONGPASS"), "%s", perf_last_error());
    }
    cr_assert_lt(fixture_now_ms() - begun, 10000);
    OK(perf_redis_close(redis));
    o.password = "pass:w/rd";
    OK(try_open(&o, &redis));
    SAYS(redis, "tester", "CLIENT", "GETNAME");
    OK(perf_redis_close(redis));
    o.user = "worker";
    o.password = "s3cret!";
    o.db = 3;
    OK(try_open(&o, &redis));
    SAYS(redis, "worker", "ACL", "WHOAMI");
    OK(PERF_REDIS_CALL(redis, NULL, "SET", "in", "three"));
    OK(perf_redis_close(redis));
    o.user = o.password = NULL;
    o.db = 0;
    char url[100];
    snprintf(url, sizeof url, "redis://worker:s3cret%%21@127.0.0.1:%d/3", s->port);
    o.url = url;
    OK(try_open(&o, &redis));
    SAYS(redis, "three", "GET", "in");
    OK(perf_redis_close(redis));
    snprintf(url, sizeof url, "unix://%s/redis.sock?db=3", s->dir);
    o.port = 0;
    o.password = "pass:w/rd";
    OK(try_open(&o, &redis));
    SAYS(redis, "three", "GET", "in");
    OK(perf_redis_close(redis));
    o.db = 99;
    cr_assert_eq(try_open(&o, &redis), PERF_EREMOTE, "%s", perf_last_error());
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis, words_on_connect)
{
    struct test_server *s = fixture_start(NULL);
    perf_redis *redis;
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_bytes name[] = {WORD("CLIENT"), WORD("SETNAME"), WORD("by-hand")};
    perf_bytes other[] = {WORD("CLIENT"), WORD("SETNAME"), WORD("another")}, bad = WORD("NOSUCH");
    perf_redis_command commands[] = {{3, name}}, later[] = {{3, other}}, wrong[] = {{1, &bad}};
    o.url = s->url;
    o.on_connect = commands;
    o.on_connect_count = 1;
    OK(try_open(&o, &redis));
    SAYS(redis, "by-hand", "CLIENT", "GETNAME");
    OK(perf_redis_set_on_connect(redis, later, 1));
    SAYS(redis, "by-hand", "CLIENT", "GETNAME");
    OK(perf_redis_reconnect(redis));
    SAYS(redis, "another", "CLIENT", "GETNAME");
    OK(perf_redis_close(redis));
    o.on_connect = wrong;
    o.backoff_max_ms = 100;
    cr_assert_eq(try_open(&o, &redis), PERF_EREMOTE);
    cr_assert_not_null(strstr(perf_last_error(), "unknown command"), "%s", perf_last_error());
    OK(perf_redis_set_on_connect(redis, NULL, 0));
    int rc;
    for (int64_t until = fixture_now_ms() + 5000;
         (rc = PERF_REDIS_CALL(redis, NULL, "PING")) && fixture_now_ms() < until;)
        usleep(1000);
    OK(rc);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

/* -------------------------------------------------------------------------- TLS */

Test(redis, tls)
{
    struct test_redis asked = {.tls = true};
    struct test_server *s = fixture_start(&asked);
    perf_redis *redis;
    char ca[100];
    snprintf(ca, sizeof ca, "%s/ca.pem", s->dir);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.url = s->url;
    o.ca_file = ca;
    o.timeout_ms = 60000;
    OK(try_open(&o, &redis));
    char *big = malloc(1000000);
    memset(big, 'x', 1000000);
    perf_bytes set[] = {WORD("SET"), WORD("k"), {big, 1000000}};
    perf_redis_reply *reply;
    OK(perf_redis_call(redis, 3, set, 0, NULL));
    OK(PERF_REDIS_CALL(redis, &reply, "GET", "k"));
    cr_assert_eq(perf_redis_reply_size(reply), 1000000);
    perf_redis_reply_release(reply);
    free(big);
    static struct worker workers[16];
    for (int i = 0; i < 16; i++) {
        workers[i] = (struct worker){.redis = redis, .number = i};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(workers[i].thread, NULL);
        cr_assert_eq(workers[i].wrong, 0);
    }
    OK(perf_redis_close(redis));

    o.ca_file = NULL; /* the system's, which do not know this one */
    cr_assert_eq(try_open(&o, &redis), PERF_ETLS);
    cr_assert_not_null(strstr(perf_last_error(), "certificate"), "%s", perf_last_error());
    OK(perf_redis_close(redis));
    o.tls_insecure = 1;
    OK(try_open(&o, &redis));
    OK(perf_redis_close(redis));
    o.tls_insecure = 0;
    o.ca_file = ca;
    o.server_name = "other.example";
    cr_assert_eq(try_open(&o, &redis), PERF_ETLS);
    cr_assert_not_null(strstr(perf_last_error(), "mismatch"), "%s", perf_last_error());
    OK(perf_redis_close(redis));
    o.server_name = "localhost";
    OK(try_open(&o, &redis));
    OK(perf_redis_close(redis));
    /* Plain bytes to a TLS port, and the other way round. */
    perf_redis_options plain = PERF_REDIS_OPTIONS_INIT;
    plain.port = s->port;
    plain.fail_fast = 1;
    cr_assert_neq(try_open(&plain, &redis), PERF_OK);
    OK(perf_redis_close(redis));
    test_server_stop(s);
}

Test(redis, tls_with_client_certificates)
{
    struct test_redis asked = {.tls = true, .client_certificates = true};
    struct test_server *s = fixture_start(&asked);
    perf_redis *redis;
    char ca[100], cert[100], key[100];
    snprintf(ca, sizeof ca, "%s/ca.pem", s->dir);
    snprintf(cert, sizeof cert, "%s/cert.pem", s->dir);
    snprintf(key, sizeof key, "%s/key.pem", s->dir);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.url = s->url;
    o.ca_file = ca;
    o.fail_fast = 1;
    int rc = try_open(&o, &redis);
    cr_assert(rc == PERF_ETLS || rc == PERF_EUNAVAILABLE || rc == PERF_EIO, "%d %s", rc,
              perf_last_error());
    OK(perf_redis_close(redis));
    o.cert_file = cert;
    o.key_file = key;
    OK(try_open(&o, &redis));
    OK(perf_redis_close(redis));
    o.key_file = ca; /* no key at all */
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_ETLS);
    test_server_stop(s);
}
