/* SPDX-License-Identifier: MIT */
/*
 * redis_cluster_test.c - the Redis client against a real cluster: slots over nodes, commands in
 * parts, slots that move under load, masters that are killed or stand still.
 */
#include <libperf/redis.h>

#include <pthread.h>
#include <stdatomic.h>

#include "../../src/net/redis_slot.h"
#include "leaks.h"
#include "redis_commands.h"
#include "redis_fixture.h"
#include "seams.h"

static perf_redis *open_with(struct test_redis_cluster *c, perf_redis_options *o)
{
    perf_redis *redis = NULL;
    char url[80];
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", c->nodes[0]->port);
    o->url = url;
    o->mode = PERF_REDIS_CLUSTER;
    cr_assert_eq(perf_redis_open(o, &redis), PERF_OK, "%s", perf_last_error());
    return redis;
}

static perf_redis *open_client(struct test_redis_cluster *c)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    return open_with(c, &o);
}

static struct test_redis_cluster *start(const struct test_redis *asked)
{
    struct test_redis_cluster *c = test_redis_cluster(asked);
    if (!c)
        PERF_TEST_SKIP(test_server_why());
    return c;
}

/* ------------------------------------------------------------- one that is well */

static void slots_over_nodes(struct test_redis_cluster *c, perf_redis *redis)
{
    int64_t all = 0;
    for (int i = 0; i < 300; i++)
        fixture_expect(redis, "OK", "SET key:%d value:%d", i, i);
    for (int i = 0; i < 300; i++) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "value:%d", i);
        fixture_expect(redis, wanted, "GET key:%d", i);
    }
    for (int n = 0; n < 3; n++) { /* each master has its part, and nobody else */
        char *size = test_redis_cli(c->nodes[n], "DBSIZE");
        cr_assert(size && atoi(size) > 50, "%s", size);
        all += atoi(size);
        free(size);
    }
    cr_assert_eq(all, 300);
    perf_redis_stats s = fixture_stats(redis);
    cr_assert_eq(s.nodes, 6);
    cr_assert_eq(s.moved, 0, "the map is known before the first command");
    cr_assert_eq(s.refreshes, 1);
    cr_assert_geq(s.connects, 3);
}

static void commands_in_parts(perf_redis *redis)
{
    perf_redis_reply *reply;
    fixture_expect(redis, "OK", "MSET a 1 b 2 c 3 d 4 {a}x 5 e 6");
    cr_assert_eq(fixture_call(redis, &reply, 0, "MGET e a nothing b {a}x a d key:7"), PERF_OK, "%s",
                 perf_last_error());
    static const char *const wanted[] = {"6", "1", NULL, "2", "5", "1", "4", "value:7"};
    cr_assert_eq(perf_redis_reply_type(reply), PERF_REDIS_ARRAY);
    cr_assert_eq(perf_redis_reply_size(reply), 8);
    for (size_t i = 0; i < 8; i++) {
        const perf_redis_reply *e = perf_redis_reply_element(reply, i);
        cr_assert_eq(perf_redis_reply_type(e), wanted[i] ? PERF_REDIS_STRING : PERF_REDIS_NIL);
        cr_assert_str_eq(perf_redis_reply_data(e), wanted[i] ? wanted[i] : "");
    }
    perf_redis_reply_release(reply);

    fixture_expect(redis, "4", "EXISTS a b a nothing c");
    fixture_expect(redis, "3", "TOUCH a b nothing c");
    fixture_expect(redis, "2", "UNLINK d e nothing");
    fixture_expect(redis, "3", "DEL a b c nothing d");
    fixture_expect(redis, "5", "GET {a}x");

    /* What is malformed is the server's to refuse. */
    cr_assert_eq(fixture_call(redis, &reply, 0, "MSET a 1 b"), PERF_EREMOTE);

    static const char *const whole[] = {"RENAME a b",        "SUNION a b",
                                        "MSETNX a 1 b 2",    "ZUNIONSTORE a 2 b c",
                                        "EVAL return 2 a b", "PFCOUNT a b"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        cr_assert_eq(fixture_call(redis, &reply, 0, "%s", whole[i]), PERF_EINVAL, "%s", whole[i]);
        cr_assert_not_null(strstr(perf_last_error(), "several slots"), "%s", perf_last_error());
        cr_assert_not_null(strstr(perf_last_error(), "{tag}"), "%s", perf_last_error());
    }
    fixture_expect(redis, "OK", "MSET {t}a 1 {t}b 2");
    fixture_expect(redis, "OK", "RENAME {t}a {t}c");
    fixture_expect(redis, "1", "GET {t}c");
}

static void many_at_once(perf_redis *redis)
{
    enum { COUNT = 500 };
    static char words[COUNT][4][32];
    static perf_bytes argv[COUNT][6];
    static perf_redis_command commands[COUNT];
    static perf_redis_reply *replies[COUNT];
    for (int i = 0; i < COUNT; i++) {
        static const char *const names[] = {"SET", "APPEND", "GET", "MGET", "LPUSH"};
        int kind = i % 5;
        size_t argc = 2;
        snprintf(words[i][0], 32, "%s", names[kind]);
        snprintf(words[i][1], 32, "many:%d", i / 5);
        snprintf(words[i][2], 32, kind == 3 ? "key:%d" : "%d,", i);
        snprintf(words[i][3], 32, "key:%d", i % 300);
        argc += kind == 3 ? 2 : kind != 2;
        for (size_t w = 0; w < argc; w++)
            argv[i][w] = (perf_bytes){words[i][w], strlen(words[i][w])};
        commands[i] = (perf_redis_command){argc, argv[i]};
    }
    memset(replies, 0xee, sizeof replies); /* they need not be anything before */
    cr_assert_eq(perf_redis_call_many(redis, COUNT, commands, 0, replies), PERF_OK, "%s",
                 perf_last_error());
    for (int i = 0; i < COUNT; i += 5) { /* the order of one key's commands, and of the replies */
        char both[64];
        snprintf(both, sizeof both, "%d,%d,", i, i + 1);
        cr_assert_str_eq(perf_redis_reply_data(replies[i]), "OK");
        cr_assert_eq(perf_redis_reply_integer(replies[i + 1]), (int64_t)strlen(both));
        cr_assert_str_eq(perf_redis_reply_data(replies[i + 2]), both);
        cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(replies[i + 3], 0)), both);
        cr_assert_eq(perf_redis_reply_size(replies[i + 3]), 3);
        cr_assert_eq(perf_redis_error_kind(perf_redis_reply_data(replies[i + 4])),
                     PERF_REDIS_ERROR_WRONGTYPE);
    }
    for (int i = 0; i < COUNT; i++)
        perf_redis_reply_release(replies[i]);

    perf_bytes spans[] = {{"SUNION", 6}, {"a", 1}, {"b", 1}};
    commands[1] = (perf_redis_command){3, spans};
    cr_assert_eq(perf_redis_call_many(redis, 3, commands, 0, replies), PERF_EINVAL);
}

static void scripts_and_transactions(perf_redis *redis)
{
    static const char text[] = "redis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], ARGV[1]}";
    perf_redis_script *script;
    perf_redis_reply *reply;
    cr_assert_eq(perf_redis_script_new(NULL, text, sizeof text - 1, &script), PERF_OK);
    for (int i = 0; i < 20; i++) { /* on all nodes, of which none knows it at first */
        char key[32];
        snprintf(key, sizeof key, "script:%d", i);
        perf_bytes argv[] = {{key, strlen(key)}, {"hello", 5}};
        cr_assert_eq(perf_redis_script_call(redis, script, 1, 2, argv, 0, &reply), PERF_OK, "%s",
                     perf_last_error());
        cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 0)), key);
        perf_redis_reply_release(reply);
        fixture_expect(redis, "hello", "GET script:%d", i);
    }
    perf_redis_script_free(script);

    perf_bytes incr[] = {{"INCR", 4}, {"{t}n", 4}}, get[] = {{"GET", 3}, {"{t}n", 4}},
               other[] = {{"GET", 3}, {"a", 1}};
    perf_redis_command commands[] = {{2, incr}, {2, incr}, {2, get}};
    cr_assert_eq(perf_redis_transaction(redis, 3, commands, 0, &reply), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 2)), "2");
    perf_redis_reply_release(reply);
    commands[2] = (perf_redis_command){2, other};
    cr_assert_eq(perf_redis_transaction(redis, 3, commands, 0, &reply), PERF_EINVAL);
    cr_assert_not_null(strstr(perf_last_error(), "different slots"), "%s", perf_last_error());
    perf_bytes ping[] = {{"PING", 4}};
    commands[0] = (perf_redis_command){1, ping};
    commands[2] = (perf_redis_command){2, get};
    for (int i = 0; i < 10; i++) { /* the first one with a key says where */
        cr_assert_eq(perf_redis_transaction(redis, 3, commands, 0, &reply), PERF_OK, "%s",
                     perf_last_error());
        perf_redis_reply_release(reply);
    }
    fixture_expect(redis, "12", "GET {t}n");
    fixture_expect(redis, "OK", "SET {t}n 2");
    fixture_expect(redis, "2", "GET {t}n");
}

static _Atomic int done_calls;

static void on_done(void *ctx, int status, const char *text, perf_redis_reply *reply)
{
    const char *wanted = ctx;
    const perf_redis_reply *one = perf_redis_reply_type(reply) == PERF_REDIS_ARRAY
                                      ? perf_redis_reply_element(reply, 1)
                                      : reply;
    if (status == PERF_OK && !strcmp(perf_redis_reply_data(one), wanted))
        atomic_fetch_add(&done_calls, 1);
    else
        fprintf(stderr, "%d %s: %s instead of %s\n", status, text, perf_redis_reply_data(one),
                wanted);
    perf_redis_reply_release(reply);
}

static void asynchronous(perf_redis *redis)
{
    enum { COUNT = 100 };
    static char keys[COUNT][32], values[COUNT][32];
    atomic_store(&done_calls, 0);
    for (int i = 0; i < COUNT; i++) {
        snprintf(keys[i], sizeof keys[i], "key:%d", i);
        snprintf(values[i], sizeof values[i], "value:%d", i);
        perf_bytes get[] = {{"GET", 3}, {keys[i], strlen(keys[i])}};
        perf_bytes mget[] = {{"MGET", 4}, {"a", 1}, get[1], {"b", 1}};
        cr_assert_eq(perf_redis_start(redis, 2, get, 0, on_done, values[i], NULL), PERF_OK);
        cr_assert_eq(perf_redis_start(redis, 4, mget, 0, on_done, values[i], NULL), PERF_OK);
    }
    for (int ms = 0; atomic_load(&done_calls) < 2 * COUNT; ms += 5) {
        cr_assert_lt(ms, 5000, "%d of %d", atomic_load(&done_calls), 2 * COUNT);
        fixture_sleep_ms(5);
    }
    perf_bytes del[] = {{"DEL", 3}, {"key:1", 5}, {"key:2", 5}, {"key:3", 5}};
    perf_bytes spans[] = {{"RENAME", 6}, {"key:1", 5}, {"key:2", 5}};
    perf_redis_pending *pending;
    perf_redis_reply *reply;
    cr_assert_eq(perf_redis_start(redis, 4, del, 0, NULL, NULL, &pending), PERF_OK);
    cr_assert_eq(perf_redis_pending_wait(pending, 5000, &reply), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(perf_redis_reply_integer(reply), 3);
    perf_redis_reply_release(reply);
    perf_redis_pending_release(pending);
    cr_assert_eq(perf_redis_start(redis, 3, spans, 0, NULL, NULL, &pending), PERF_EINVAL);
}

static void blocking_and_news(perf_redis *redis)
{
    perf_redis_subscriber *subscriber;
    perf_redis_message m = PERF_REDIS_MESSAGE_INIT;
    perf_redis_reply *reply;
    fixture_expect(redis, "1", "LPUSH list:a x");
    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP list:a 1"), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "x");
    perf_redis_reply_release(reply);
    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP list:a list:b 1"), PERF_EINVAL);

    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, &subscriber), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(perf_redis_subscribe(subscriber, "news", 4), PERF_OK);
    cr_assert_eq(perf_redis_next_message(subscriber, 5000, &m), PERF_OK);
    cr_assert_eq(m.kind, PERF_REDIS_SUBSCRIBED);
    cr_assert_eq(fixture_call(redis, &reply, 0, "PUBLISH news hello"), PERF_OK);
    perf_redis_reply_release(reply);
    cr_assert_eq(perf_redis_next_message(subscriber, 5000, &m), PERF_OK); /* any node tells all */
    cr_assert_eq(m.kind, PERF_REDIS_MESSAGE);
    cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
}

/* OBJECT by a name that we do not know: its first argument is no key, so nodes send it on. */
static void unknown_commands(perf_redis *redis)
{
    for (int i = 10; i < 30; i++)
        fixture_expect(redis, "embstr", "THING ENCODING key:%d", i);
    cr_assert_gt(fixture_stats(redis).moved, 0);
    cr_assert_lt(fixture_stats(redis).moved, 21);
}

Test(redis_cluster, commands_find_their_nodes)
{
    struct test_redis asked = {.config = "rename-command OBJECT THING\n"};
    struct test_redis_cluster *c = start(&asked);
    struct test_leaks leaks = fixture_leaks_begin();
    perf_redis *redis = open_client(c);
    slots_over_nodes(c, redis);
    commands_in_parts(redis);
    many_at_once(redis);
    scripts_and_transactions(redis);
    asynchronous(redis);
    blocking_and_news(redis);
    fixture_expect(redis, "PONG", "PING");
    unknown_commands(redis);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
    test_redis_cluster_stop(c);
}

/* ---------------------------------------------------------------- reads, refresh */

static int64_t calls_of(struct test_server *node, const char *command)
{
    char *text = test_redis_cli(node, "INFO commandstats"), name[64];
    int64_t calls = 0;
    snprintf(name, sizeof name, "cmdstat_%s:calls=", command);
    const char *at = text ? strstr(text, name) : NULL;
    if (at)
        calls = atoll(at + strlen(name));
    free(text);
    return calls;
}

Test(redis_cluster, replicas_read_and_the_map_is_read_again)
{
    struct test_redis_cluster *c = start(NULL);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis_reply *reply;
    o.read_replicas = 1;
    o.refresh_ms = 100;
    perf_redis *redis = open_with(c, &o);
    for (int i = 0; i < 60; i++) {
        fixture_expect(redis, "OK", "SET key:%d value", i);
        cr_assert_eq(fixture_call(redis, &reply, 0, "GET key:%d", i), PERF_OK);
        perf_redis_reply_release(reply); /* it may not have come to the replica yet */
    }
    int64_t replicas = 0, masters = 0;
    for (int i = 0; i < 3; i++) {
        masters += calls_of(c->nodes[i], "get");
        replicas += calls_of(c->nodes[3 + i], "get");
    }
    cr_assert_eq(replicas, 60);
    cr_assert_eq(masters, 0);
    cr_assert_eq(fixture_stats(redis).moved, 0);

    uint64_t before = fixture_stats(redis).refreshes;
    for (int ms = 0; fixture_stats(redis).refreshes < before + 3; ms += 10) {
        cr_assert_lt(ms, 5000);
        fixture_sleep_ms(10);
    }
    for (int i = 3; i < 6; i++)
        test_server_kill(c->nodes[i]);
    for (int i = 0; i < 60; i++) /* now the masters have to */
        fixture_expect(redis, "value", "GET key:%d", i);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_redis_cluster_stop(c);
}

/* ------------------------------------------------- connections of their own kind */

/* Blocking commands are sent on, too; a subscriber whose node dies listens to another one. */
Test(redis_cluster, blocking_commands_and_subscribers_find_others)
{
    struct test_redis_cluster *c = start(NULL);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis_subscriber *subscriber;
    perf_redis_message m = PERF_REDIS_MESSAGE_INIT;
    perf_redis_reply *reply;
    char *id = test_redis_cli(c->nodes[0], "CLUSTER MYID");
    o.refresh_ms = 3600000;
    perf_redis *redis = open_with(c, &o);
    fixture_expect(redis, "1", "LPUSH a x"); /* slot 15495, on node 2 */
    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP a 1"), PERF_OK);
    perf_redis_reply_release(reply);
    for (int i = 2; i >= 0; i--)
        cr_assert(test_redis_says(c->nodes[i], "OK", "CLUSTER SETSLOT 15495 NODE %s", id), "%s",
                  test_server_why());
    free(id);
    cr_assert(test_redis_says(c->nodes[0], "1", "LPUSH a y"), "%s", test_server_why());
    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP a 1"), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "y");
    perf_redis_reply_release(reply);
    cr_assert_eq(fixture_stats(redis).moved, 1);

    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, &subscriber), PERF_OK);
    cr_assert_eq(perf_redis_subscribe(subscriber, "news", 4), PERF_OK);
    cr_assert_eq(perf_redis_next_message(subscriber, 5000, &m), PERF_OK);
    for (int i = 0; i < TEST_REDIS_NODES; i++) {
        char *clients = test_redis_cli(c->nodes[i], "CLIENT LIST TYPE pubsub");
        if (clients && *clients)
            test_server_kill(c->nodes[i]);
        free(clients);
    }
    do
        cr_assert_eq(perf_redis_next_message(subscriber, 15000, &m), PERF_OK);
    while (m.kind != PERF_REDIS_GAP);
    /* While the others find out that one is missing, they refuse. */
    for (int64_t until = fixture_now_ms() + 15000; m.kind != PERF_REDIS_MESSAGE;) {
        cr_assert_lt(fixture_now_ms(), until);
        fixture_call(redis, &reply, 1000, "PUBLISH news hello");
        perf_redis_reply_release(reply);
        if (perf_redis_next_message(subscriber, 100, &m) != PERF_OK)
            m.kind = 0;
    }
    cr_assert_eq(m.data.len, 5);
    cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_redis_cluster_stop(c);
}

/* ------------------------------------------------------------------------- load */

enum { THREADS = 4, COUNTERS = 8 };

struct load {
    perf_redis *redis;
    const char *pattern; /* of keys */
    int number;
    int64_t timeout_ms, longest_ms, errors;
    int64_t acknowledged[COUNTERS], uncertain[COUNTERS];
    _Atomic int64_t ok;
    char last_error[200];
    pthread_t thread;
};

static _Atomic bool stop_load;

static void *increment(void *ctx)
{
    struct load *l = ctx;
    for (int i = 0; !atomic_load(&stop_load); i = (i + 1) % COUNTERS) {
        char key[64];
        perf_redis_reply *reply = NULL;
        int64_t begin = fixture_now_ms();
        snprintf(key, sizeof key, l->pattern, l->number, i);
        perf_bytes argv[] = {{"INCR", 4}, {key, strlen(key)}};
        int rc = perf_redis_call(l->redis, 2, argv, l->timeout_ms, &reply);
        int64_t took = fixture_now_ms() - begin;
        l->longest_ms = took > l->longest_ms ? took : l->longest_ms;
        if (rc == PERF_OK) {
            l->acknowledged[i]++;
            atomic_fetch_add(&l->ok, 1);
        } else {
            l->errors++;
            l->uncertain[i]++;
            snprintf(l->last_error, sizeof l->last_error, "%s: %.150s", perf_strstatus(rc),
                     perf_last_error());
        }
        perf_redis_reply_release(reply);
    }
    return NULL;
}

static void begin_load(struct load *loads, perf_redis *redis, const char *pattern,
                       int64_t timeout_ms)
{
    atomic_store(&stop_load, false);
    for (int i = 0; i < THREADS; i++) {
        loads[i] = (struct load){
            .redis = redis, .pattern = pattern, .number = i, .timeout_ms = timeout_ms};
        cr_assert_eq(pthread_create(&loads[i].thread, NULL, increment, &loads[i]), 0);
    }
}

static void end_load(struct load *loads)
{
    atomic_store(&stop_load, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(loads[i].thread, NULL);
}

/* Every thread gets further. */
static void wait_for_progress(struct load *loads, int more, int ms)
{
    for (int i = 0; i < THREADS; i++) {
        int64_t until = fixture_now_ms() + ms, from = atomic_load(&loads[i].ok);
        while (atomic_load(&loads[i].ok) < from + more) {
            cr_assert_lt(fixture_now_ms(), until, "thread %d stands still: %s", i,
                         loads[i].last_error);
            fixture_sleep_ms(5);
        }
    }
}

/* --------------------------------------------------------------------- migration */

static void set_slot(struct test_server *node, int slot, const char *state, const char *id)
{
    cr_assert(test_redis_says(node, "OK", "CLUSTER SETSLOT %d %s %s", slot, state, id), "%s",
              test_server_why());
}

static void migrate_key(struct test_server *from, struct test_server *to, const char *key)
{
    char *text = test_redis_cli(from, "MIGRATE 127.0.0.1 %d '%s' 0 5000", to->port, key);
    cr_assert(text && (!strcmp(text, "OK") || !strcmp(text, "NOKEY")), "%s", text);
    free(text);
}

/* While a slot moves, a blocking command waits where new keys of it come to be. */
Test(redis_cluster, blocking_commands_are_sent_on_while_a_slot_moves)
{
    enum { SLOT = 15495 }; /* of {a}, on node 2 */
    struct test_redis_cluster *c = start(NULL);
    struct test_server *from = c->nodes[2], *to = c->nodes[0];
    char *from_id = test_redis_cli(from, "CLUSTER MYID"),
         *to_id = test_redis_cli(to, "CLUSTER MYID");
    perf_redis_reply *reply;
    perf_redis *redis = open_client(c);
    fixture_expect(redis, "1", "LPUSH {a}stays x");
    set_slot(to, SLOT, "IMPORTING", from_id);
    set_slot(from, SLOT, "MIGRATING", to_id);

    cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP {a}stays 1"), PERF_OK, "%s",
                 perf_last_error());
    perf_redis_reply_release(reply);
    cr_assert_eq(fixture_stats(redis).asked, 0);

    fixture_expect(redis, "1", "LPUSH {a}new y"); /* by ASK, too */
    for (int i = 0; i < 2; i++) {                 /* the second time there is nothing */
        cr_assert_eq(fixture_call(redis, &reply, 2000, "BLPOP {a}new 0.05"), PERF_OK, "%s",
                     perf_last_error());
        cr_assert_eq(perf_redis_reply_type(reply), i ? PERF_REDIS_NIL : PERF_REDIS_ARRAY);
        if (!i)
            cr_assert_str_eq(perf_redis_reply_data(perf_redis_reply_element(reply, 1)), "y");
        perf_redis_reply_release(reply);
    }
    perf_redis_stats s = fixture_stats(redis);
    cr_assert_eq(s.asked, 3);
    cr_assert_eq(s.moved, 0);
    cr_assert_eq(s.blocking_calls, 5);

    free(from_id);
    free(to_id);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_redis_cluster_stop(c);
}

struct reader {
    perf_redis *redis;
    pthread_t thread;
    _Atomic bool begun;
    int rc;
    char error[200];
};

/* Two keys of the slot while one of them has moved: TRYAGAIN, until both have. */
static void *read_both(void *ctx)
{
    struct reader *r = ctx;
    perf_redis_reply *reply = NULL;
    atomic_store(&r->begun, true);
    r->rc = fixture_call(r->redis, &reply, 20000, "MGET {a}stays {a}goes");
    snprintf(r->error, sizeof r->error, "%s", perf_last_error());
    if (!r->rc && perf_redis_reply_size(reply) != 2)
        r->rc = PERF_EPROTOCOL;
    perf_redis_reply_release(reply);
    return NULL;
}

static void check_sums(perf_redis *redis, struct load *loads)
{
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < COUNTERS; i++) {
            char key[64];
            perf_redis_reply *reply;
            snprintf(key, sizeof key, loads[t].pattern, t, i);
            cr_assert_eq(fixture_call(redis, &reply, 0, "GET %s", key), PERF_OK);
            int64_t is = atoll(perf_redis_reply_data(reply));
            cr_assert(is >= loads[t].acknowledged[i] &&
                          is <= loads[t].acknowledged[i] + loads[t].uncertain[i],
                      "%s is %lld after %lld and %lld that are uncertain", key, (long long)is,
                      (long long)loads[t].acknowledged[i], (long long)loads[t].uncertain[i]);
            perf_redis_reply_release(reply);
        }
    }
}

Test(redis_cluster, a_slot_moves_under_load)
{
    enum { SLOT = 15495 }; /* of {a} */
    struct test_redis_cluster *c = start(NULL);
    struct test_server *from = c->nodes[2], *to = c->nodes[0];
    struct test_leaks leaks = fixture_leaks_begin();
    struct load loads[THREADS];
    struct reader reader = {0};
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.refresh_ms = 3600000; /* what is learnt is learnt from answers */
    perf_redis *redis = open_with(c, &o);
    char *from_id = test_redis_cli(from, "CLUSTER MYID"),
         *to_id = test_redis_cli(to, "CLUSTER MYID");
    cr_assert(from_id && to_id);

    fixture_expect(redis, "OK", "MSET {a}stays 1 {a}goes 2");
    begin_load(loads, redis, "{a}:%d:%d", 5000);
    wait_for_progress(loads, 50, 10000);
    cr_assert_eq(fixture_stats(redis).moved + fixture_stats(redis).asked, 0);

    set_slot(to, SLOT, "IMPORTING", from_id);
    set_slot(from, SLOT, "MIGRATING", to_id);
    migrate_key(from, to, "{a}goes");
    for (int t = 0; t < THREADS; t++) {
        char key[32];
        snprintf(key, sizeof key, "{a}:%d:0", t);
        migrate_key(from, to, key);
    }
    fixture_expect(redis, "2", "GET {a}goes");
    fixture_expect(redis, "1", "GET {a}stays");
    wait_for_progress(loads, 50, 10000);
    perf_redis_stats s = fixture_stats(redis);
    cr_assert_geq(s.asked, 1 + THREADS);
    cr_assert_eq(s.moved, 0);

    perf_bytes incr[] = {{"INCR", 4}, {"{a}new", 6}};
    perf_redis_command both[] = {{2, incr}, {2, incr}};
    perf_redis_reply *exec;
    cr_assert_eq(perf_redis_transaction(redis, 2, both, 0, &exec), PERF_OK, "%s",
                 perf_last_error());
    cr_assert_eq(perf_redis_reply_integer(perf_redis_reply_element(exec, 1)), 2);
    perf_redis_reply_release(exec);
    cr_assert(test_redis_says(from, "0", "EXISTS {a}new") || strstr(test_server_why(), "ASK"), "%s",
              test_server_why());

    reader.redis = redis;
    cr_assert_eq(pthread_create(&reader.thread, NULL, read_both, &reader), 0);
    for (int ms = 0; fixture_stats(redis).retried < 2; ms += 5) {
        cr_assert_lt(ms, 5000, "nobody was told TRYAGAIN");
        fixture_sleep_ms(5);
    }
    migrate_key(from, to, "{a}stays");
    for (int t = 0; t < THREADS; t++) {
        for (int i = 1; i < COUNTERS; i++) {
            char key[32];
            snprintf(key, sizeof key, "{a}:%d:%d", t, i);
            migrate_key(from, to, key);
            if (t == 0 && i == 3) { /* many in one go, some of them here and some there */
                static perf_bytes argv[COUNTERS][2];
                static char keys[COUNTERS][32];
                perf_redis_command commands[COUNTERS];
                perf_redis_reply *replies[COUNTERS];
                for (int k = 0; k < COUNTERS; k++) {
                    snprintf(keys[k], sizeof keys[k], "{a}:0:%d", k);
                    argv[k][0] = (perf_bytes){"STRLEN", 6};
                    argv[k][1] = (perf_bytes){keys[k], strlen(keys[k])};
                    commands[k] = (perf_redis_command){2, argv[k]};
                }
                cr_assert_eq(perf_redis_call_many(redis, COUNTERS, commands, 0, replies), PERF_OK,
                             "%s", perf_last_error());
                for (int k = 0; k < COUNTERS; k++) {
                    cr_assert_gt(perf_redis_reply_integer(replies[k]), 0, "%d: %s", k,
                                 perf_redis_reply_data(replies[k]));
                    perf_redis_reply_release(replies[k]);
                }
            }
        }
    }
    pthread_join(reader.thread, NULL);
    cr_assert_eq(reader.rc, PERF_OK, "%s", reader.error);
    set_slot(to, SLOT, "NODE", to_id);
    set_slot(from, SLOT, "NODE", to_id);
    set_slot(c->nodes[1], SLOT, "NODE", to_id);
    wait_for_progress(loads, 50, 10000);
    end_load(loads);
    s = fixture_stats(redis);
    cr_assert_geq(s.moved, 1);
    cr_assert_geq(s.refreshes, 2);
    for (int t = 0; t < THREADS; t++)
        cr_assert_eq(loads[t].errors, 0, "%s", loads[t].last_error);
    check_sums(redis, loads);
    cr_log_info("moved %llu, asked %llu, retried %llu, refreshes %llu\n",
                (unsigned long long)s.moved, (unsigned long long)s.asked,
                (unsigned long long)s.retried, (unsigned long long)s.refreshes);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    free(from_id);
    free(to_id);
    test_leaks_end(&leaks);
    test_redis_cluster_stop(c);
}

/* ---------------------------------------------------------------------- failover */

static void check_delays(struct load *loads, int64_t limit_ms)
{
    for (int t = 0; t < THREADS; t++) {
        cr_assert_lt(loads[t].longest_ms, limit_ms);
        cr_log_info("thread %d: %lld ok, %lld errors, longest %lld ms, last: %s\n", t,
                    (long long)loads[t].ok, (long long)loads[t].errors,
                    (long long)loads[t].longest_ms, loads[t].last_error);
    }
}

Test(redis_cluster, a_master_is_killed_under_load)
{
    struct test_redis_cluster *c = start(NULL);
    struct test_leaks leaks = fixture_leaks_begin();
    struct load loads[THREADS];
    perf_redis *redis = open_client(c);
    begin_load(loads, redis, "n:%d:%d", 1000);
    wait_for_progress(loads, 100, 10000);
    test_server_kill(c->nodes[1]);
    wait_for_progress(loads, 8 * COUNTERS, 20000); /* on all of its keys, wherever they are */
    cr_assert(test_server_restart(c->nodes[1]), "%s", test_server_why());
    wait_for_progress(loads, 100, 10000);
    end_load(loads);
    check_delays(loads, 1000 + 400);
    for (int i = 0; i < 100; i++)
        fixture_expect(redis, "OK", "SET after:%d x", i);

    /* With time enough, a failover is a delay and no error. */
    begin_load(loads, redis, "m:%d:%d", 15000);
    wait_for_progress(loads, 100, 10000);
    test_server_kill(c->nodes[4]); /* it is the master now */
    wait_for_progress(loads, 8 * COUNTERS, 20000);
    end_load(loads);
    check_delays(loads, 15000);
    for (int t = 0; t < THREADS; t++) /* but for what was on its way when it died */
        cr_assert_leq(loads[t].errors, 1, "%s", loads[t].last_error);
    cr_assert_gt(fixture_stats(redis).retried, 0);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
    test_redis_cluster_stop(c);
}

Test(redis_cluster, a_master_stands_still_under_load)
{
    struct test_redis_cluster *c = start(NULL);
    struct test_leaks leaks = fixture_leaks_begin();
    struct load loads[THREADS];
    perf_redis *redis = open_client(c);
    begin_load(loads, redis, "n:%d:%d", 500);
    wait_for_progress(loads, 100, 10000);
    test_server_pause(c->nodes[1]);
    wait_for_progress(loads, 8 * COUNTERS, 20000);
    test_server_resume(c->nodes[1]);
    wait_for_progress(loads, 100, 10000);
    end_load(loads);
    check_delays(loads, 500 + 400);
    for (int i = 0; i < 100; i++)
        fixture_expect(redis, "OK", "SET after:%d x", i);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
    test_redis_cluster_stop(c);
}

/* Closed in the middle of everything: calls say so, and nothing stays behind. */
Test(redis_cluster, closed_while_a_master_is_gone)
{
    enum { ASYNC = 40 };
    struct test_redis_cluster *c = start(NULL);
    struct test_leaks leaks = fixture_leaks_begin();
    struct test_host th;
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis_pending *pending[ASYNC];
    o.host = test_host_init(&th);
    perf_redis *redis = open_with(c, &o);
    for (int i = 0; i < 3; i++) {
        fixture_expect(redis, "OK", "SET k:%d v", i);
        test_server_pause(c->nodes[3 + i]); /* no successor */
    }
    test_server_kill(c->nodes[0]);
    for (int i = 0; i < ASYNC; i++) {
        char key[32];
        snprintf(key, sizeof key, "k:%d", i);
        perf_bytes mset[] = {{"MSET", 4}, {key, strlen(key)}, {"v", 1}, {"b", 1}, {"v", 1}};
        cr_assert_eq(perf_redis_start(redis, 5, mset, 60000, NULL, NULL, &pending[i]), PERF_OK,
                     "%s", perf_last_error());
    }
    for (int ms = 0; fixture_stats(redis).retried < 1; ms += 5) {
        cr_assert_lt(ms, 5000, "nobody pauses");
        fixture_sleep_ms(5);
    }
    int64_t begin = fixture_now_ms();
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    cr_assert_lt(fixture_now_ms() - begin, 2000);
    for (int i = 0; i < ASYNC; i++) {
        perf_redis_reply *reply = NULL;
        int rc = perf_redis_pending_wait(pending[i], 0, &reply);
        cr_assert(rc == PERF_OK || rc == PERF_ECLOSED || rc == PERF_EIO, "%s: %s",
                  perf_strstatus(rc), perf_last_error());
        perf_redis_reply_release(reply);
        perf_redis_pending_release(pending[i]);
    }
    cr_assert_eq(th.live, 0);
    test_leaks_end(&leaks);
    test_redis_cluster_stop(c);
}

/* --------------------------------------------------------------------- the rest */

/* The keys of a command, parted by blanks, as our table finds them. */
static void our_keys(char *out, const perf_bytes *argv, size_t argc)
{
    struct perf__redis_keys keys = perf__redis_keys_of(argv, argc);
    *out = 0;
    if (keys.also[0])
        sprintf(out + strlen(out), "%s ", (const char *)argv[keys.also[0]].data);
    for (size_t i = keys.begin; i < keys.end; i += keys.step)
        sprintf(out + strlen(out), "%s ", (const char *)argv[i].data);
    if (keys.also[1])
        sprintf(out + strlen(out), "%s ", (const char *)argv[keys.also[1]].data);
}

/* Of every command that the server has, and whose keys have fixed places: the same keys, and the
 * same opinion whether it only reads. */
static int compare_commands(perf_redis *redis)
{
    perf_redis_reply *all;
    int compared = 0;
    cr_assert_eq(fixture_call(redis, &all, 0, "COMMAND"), PERF_OK);
    for (size_t i = 0; i < perf_redis_reply_size(all); i++) {
        const perf_redis_reply *c = perf_redis_reply_element(all, i);
        const char *name = perf_redis_reply_data(perf_redis_reply_element(c, 0));
        const perf_redis_reply *flags = perf_redis_reply_element(c, 2);
        int64_t first = perf_redis_reply_integer(perf_redis_reply_element(c, 3));
        int64_t last = perf_redis_reply_integer(perf_redis_reply_element(c, 4));
        int64_t step = perf_redis_reply_integer(perf_redis_reply_element(c, 5));
        bool reads = false, movable = false;
        for (size_t f = 0; f < perf_redis_reply_size(flags); f++) {
            const char *flag = perf_redis_reply_data(perf_redis_reply_element(flags, f));
            reads = reads || !strcmp(flag, "readonly");
            movable = movable || !strcmp(flag, "movablekeys");
        }
        bool subcommands = perf_redis_reply_size(perf_redis_reply_element(c, 9)) > 0;
        if (movable || subcommands)
            continue;
        perf_bytes argv[] = {{name, strlen(name)}, {"k1", 2}, {"k2", 2}, {"k3", 2}, {"k4", 2}};
        char ours[100], theirs[100] = "";
        last = last < 0 ? 5 + last : last;
        for (int64_t k = first; first && k <= last; k += step)
            sprintf(theirs + strlen(theirs), "k%d ", (int)k);
        our_keys(ours, argv, 5);
        cr_assert_str_eq(ours, theirs, "%s has \"%s\", and we think \"%s\"", name, theirs, ours);
        if (first)
            cr_assert_eq(perf__redis_place_of(argv, 5).reads, reads, "%s", name);
        compared++;
    }
    perf_redis_reply_release(all);
    return compared;
}

Test(redis_cluster, the_server_agrees_with_our_table)
{
    struct test_server *single = test_server_redis(NULL);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis = NULL;
    if (!single)
        PERF_TEST_SKIP(test_server_why());
    o.url = single->url;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    cr_assert_gt(compare_commands(redis), 150);
    for (size_t i = 0; i < sizeof test_redis_commands / sizeof *test_redis_commands; i++) {
        const struct test_redis_command *c = &test_redis_commands[i];
        char *text = strdup(c->words), *rest = text, theirs[200] = "";
        const char *words[40] = {"COMMAND", "GETKEYS"};
        size_t argc = 2;
        perf_redis_reply *reply;
        for (char *word; (word = strsep(&rest, " "));)
            words[argc++] = strcmp(word, "\"\"") ? word : "";
        int rc = perf_redis_call_text(redis, words, 0, &reply);
        cr_assert_eq(rc, PERF_OK, "%s: %s", c->words, perf_last_error());
        for (size_t k = 0; k < perf_redis_reply_size(reply); k++)
            sprintf(theirs + strlen(theirs), "%s%s", k ? " " : "",
                    perf_redis_reply_data(perf_redis_reply_element(reply, k)));
        cr_assert_str_eq(theirs, c->keys, "%s: %s", c->words, theirs);
        perf_redis_reply_release(reply);
        free(text);
    }
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_server_stop(single);
}

Test(redis_cluster, tls_and_a_password)
{
    struct test_redis asked = {.tls = true, .password = "secret"};
    struct test_redis_cluster *c = start(&asked);
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis = NULL;
    char url[100], ca[100];
    snprintf(url, sizeof url, "rediss://:secret@localhost:%d", c->nodes[4]->port);
    snprintf(ca, sizeof ca, "%s/ca.pem", c->nodes[0]->dir);
    o.url = url;
    o.ca_file = ca;
    o.mode = PERF_REDIS_CLUSTER;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK, "%s", perf_last_error());
    for (int i = 0; i < 60; i++)
        fixture_expect(redis, "OK", "SET key:%d value", i);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    perf_redis_reply *reply;
    snprintf(url, sizeof url, "rediss://:wrong@localhost:%d", c->nodes[4]->port);
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    cr_assert_eq(fixture_call(redis, &reply, 5000, "GET a"), PERF_EACCESS, "%s", perf_last_error());
    cr_assert_null(strstr(perf_last_error(), "wrong"));
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_redis_cluster_stop(c);
}

Test(redis_cluster, who_is_no_cluster_and_who_is_not_there)
{
    struct test_server *single = test_server_redis(NULL);
    if (!single)
        PERF_TEST_SKIP(test_server_why());
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis = NULL;
    perf_redis_reply *reply;
    const char *seeds[] = {"127.0.0.1:1", "127.0.0.1:1"};
    char url[80];
    o.mode = PERF_REDIS_CLUSTER;
    o.url = url;
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", single->port);
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    cr_assert_eq(fixture_call(redis, &reply, 5000, "GET a"), PERF_EUNSUPPORTED, "%s",
                 perf_last_error());
    cr_assert_not_null(strstr(perf_last_error(), "no node of a Redis Cluster"), "%s",
                       perf_last_error());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    snprintf(url, sizeof url, "redis://127.0.0.1:1");
    o.seeds = seeds;
    o.seed_count = 2;
    o.fail_fast = 1;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    int64_t begin = fixture_now_ms();
    cr_assert_eq(fixture_call(redis, &reply, 5000, "GET a"), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    cr_assert_lt(fixture_now_ms() - begin, 2000);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    o.fail_fast = 0;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    begin = fixture_now_ms();
    cr_assert_eq(fixture_call(redis, &reply, 600, "GET a"), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    int64_t took = fixture_now_ms() - begin;
    cr_assert(took > 300 && took < 1000, "%lld ms", (long long)took);
    perf_bytes get[] = {{"GET", 3}, {"a", 1}};
    perf_redis_pending *pending;
    cr_assert_eq(perf_redis_start(redis, 2, get, 500, NULL, NULL, &pending), PERF_OK);
    cr_assert_eq(perf_redis_pending_wait(pending, 5000, &reply), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    perf_redis_pending_release(pending);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    /* Those that pause are pending, too. */
    o.max_pending = 10;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(perf_redis_start(redis, 2, get, 60000, NULL, NULL, NULL), PERF_OK, "%d: %s", i,
                     perf_last_error());
    cr_assert_eq(perf_redis_start(redis, 2, get, 60000, NULL, NULL, NULL), PERF_EBUSY);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_server_stop(single);
}

Test(redis_cluster, options_that_cannot_be)
{
    const char *seeds[] = {"127.0.0.1:99999"};
    perf_redis *redis = NULL;
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.mode = PERF_REDIS_CLUSTER;
    o.db = 1;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    o.db = 0;
    o.seed_count = 1;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    o.seeds = seeds;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    cr_assert_not_null(strstr(perf_last_error(), "99999"));
    o.seed_count = 65;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    o.seed_count = 0;
    o.unix_socket = "/tmp/x";
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    o.unix_socket = NULL;
    o.refresh_ms = -1;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    cr_assert_not_null(strstr(perf_last_error(), "refresh_ms"));
}

/* Each allocation fails once: errors, but no leak, and the next call may work. */
Test(redis_cluster, each_allocation_fails_once)
{
    struct test_redis_cluster *c = start(NULL);
    for (int64_t n = 1;; n++) {
        struct test_host th;
        perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
        perf_redis *redis = NULL;
        perf_redis_reply *reply = NULL;
        char url[80];
        snprintf(url, sizeof url, "redis://127.0.0.1:%d", c->nodes[0]->port);
        o.url = url;
        o.mode = PERF_REDIS_CLUSTER;
        o.read_replicas = 1;
        o.timeout_ms = 3000;
        o.backoff_min_ms = 1;
        o.host = test_host_init(&th);
        th.fail_at = n;
        int rc = perf_redis_open(&o, &redis);
        if (!rc) {
            static const char *const words[] = {"MSET a 1 b 2 c 3", "MGET a b c", "GET a",
                                                "DEL a b c"};
            for (size_t i = 0; i < 4; i++) {
                fixture_call(redis, &reply, 0, "%s", words[i]);
                perf_redis_reply_release(reply);
            }
            perf_bytes mget[] = {{"MGET", 4}, {"a", 1}, {"b", 1}, {"c", 1}};
            perf_redis_pending *pending = NULL;
            rc = perf_redis_start(redis, 4, mget, 0, NULL, NULL, &pending);
            if (!rc && perf_redis_pending_wait(pending, -1, &reply) == PERF_OK)
                perf_redis_reply_release(reply);
            perf_redis_pending_release(pending);
            rc = perf_redis_close(redis);
            cr_assert_eq(rc, PERF_OK);
        }
        cr_assert_eq(th.live, 0, "after the %lldth", (long long)n);
        if (!th.failed) {
            cr_assert_gt(n, 30);
            break;
        }
    }
    test_redis_cluster_stop(c);
}
