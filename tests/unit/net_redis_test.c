/* SPDX-License-Identifier: MIT */
/*
 * net_redis_test.c - what the Redis client takes and refuses: options, URLs, commands, scripts;
 * what it says where nobody listens. No server: what talks to one is in tests/live and tests/fault.
 */
#include <libperf/redis.h>

#include <sys/wait.h>
#include <unistd.h>

#include "../../src/net/redis.h"
#include "leaks.h"
#include "seams.h"
#include "test.h"

static void refuse(const perf_redis_options *o, const char *field)
{
    perf_redis *redis = NULL;
    cr_assert_eq(perf_redis_open(o, &redis), PERF_EINVAL, "%s", field);
    cr_assert_null(redis);
    cr_assert_not_null(strstr(perf_last_error(), field), "%s: %s", field, perf_last_error());
}

Test(net_redis, options)
{
    struct test_leaks leaks = test_leaks_begin();
    perf_redis *redis;
#define REFUSE(field_, value)                            \
    do {                                                 \
        perf_redis_options o_ = PERF_REDIS_OPTIONS_INIT; \
        o_.field_ = value;                               \
        refuse(&o_, "perf_redis_options." #field_);      \
    } while (0)
    REFUSE(mode, 99);
    REFUSE(port, 65536);
    REFUSE(port, -1);
    REFUSE(db, -1);
    REFUSE(tls, 2);
    REFUSE(tls_insecure, -1);
    REFUSE(connect_timeout_ms, -1);
    REFUSE(timeout_ms, -5);
    REFUSE(backoff_min_ms, -1);
    REFUSE(backoff_max_ms, 1);
    REFUSE(fail_fast, 2);
    REFUSE(max_pending, 1u << 30);
    REFUSE(max_pending_bytes, 3);
    REFUSE(max_reply_bytes, 3);
    REFUSE(max_blocking, 5000);
    REFUSE(on_connect_count, 17);
    REFUSE(user, "u");
    REFUSE(key_file, "k");
    REFUSE(client_name, "a b");
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    o.on_connect_count = 1;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_EINVAL);
    o.on_connect_count = 0;
    o.tls = 1;
    o.ca_file = "/no/such/file.pem";
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_ETLS);
    cr_assert_not_null(strstr(perf_last_error(), "/no/such/file.pem"));
    cr_assert_eq(perf_redis_open(NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_open(NULL, &redis), PERF_OK);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    cr_assert_eq(perf_redis_close(NULL), PERF_OK);
    test_leaks_end(&leaks);
}

static int read_url(const char *url, perf_redis_options *o)
{
    static char room[300];
    *o = (perf_redis_options)PERF_REDIS_OPTIONS_INIT;
    return perf__redis_url_parse(o, url, room);
}

Test(net_redis, urls)
{
    perf_redis_options o;
    cr_assert_eq(read_url("redis://example.com", &o), PERF_OK);
    cr_assert_str_eq(o.hostname, "example.com");
    cr_assert_eq(o.port, 0);
    cr_assert_null(o.password);
    cr_assert_eq(read_url("rediss://us%40er:p%3Aa%2Fss@[::1]:7000/12", &o), PERF_OK);
    cr_assert_str_eq(o.user, "us@er");
    cr_assert_str_eq(o.password, "p:a/ss");
    cr_assert_str_eq(o.hostname, "::1");
    cr_assert_eq(o.port, 7000);
    cr_assert_eq(o.db, 12);
    cr_assert_eq(o.tls, 1);
    cr_assert_eq(read_url("redis://:secret@h:1/", &o), PERF_OK);
    cr_assert_null(o.user);
    cr_assert_str_eq(o.password, "secret");
    cr_assert_eq(read_url("redis://user:a@b@h", &o), PERF_OK);
    cr_assert_str_eq(o.password, "a@b");
    cr_assert_eq(read_url("unix:///run/redis.sock?db=3", &o), PERF_OK);
    cr_assert_str_eq(o.unix_socket, "/run/redis.sock");
    cr_assert_eq(o.db, 3);
    cr_assert_eq(read_url("redis+unix:///run/re%20dis.sock", &o), PERF_OK);
    cr_assert_str_eq(o.unix_socket, "/run/re dis.sock");

    /* Fields win. */
    static char room[300];
    o = (perf_redis_options)PERF_REDIS_OPTIONS_INIT;
    o.hostname = "mine";
    o.db = 5;
    o.password = "other";
    cr_assert_eq(perf__redis_url_parse(&o, "redis://:p@theirs:1/2", room), PERF_OK);
    cr_assert_str_eq(o.hostname, "mine");
    cr_assert_str_eq(o.password, "other");
    cr_assert_eq(o.db, 5);
    cr_assert_eq(o.port, 1);

    static const char *const bad[] = {
        "",
        "http://x",
        "redis://h:0x",
        "redis://h:",
        "redis://h:99999",
        "redis://h/x",
        "redis://h/1?a",
        "redis://hunter2:pass%zz@h",
        "redis://[::1",
        "redis://[::1]x",
        "unix://relative",
        "unix:///",
        "unix:///a?db=x",
        "redis://h#f",
        "redis://a%00b",
        "redis://:p%00@h",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(read_url(bad[i], &o), PERF_EINVAL, "%s", bad[i]);
        cr_assert_null(strstr(perf_last_error(), "hunter2"), "a secret in: %s", perf_last_error());
    }
}

#define WORD(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }

static int kind_of(const char *a, const char *b, const char *c)
{
    perf_bytes argv[] = {{a, strlen(a)}, {b, b ? strlen(b) : 0}, {c, c ? strlen(c) : 0}};
    return perf__redis_command_kind(c ? 3 : b ? 2 : 1, argv);
}

Test(net_redis, kinds_of_commands)
{
    static const char *const plain[] = {"GET",
                                        "SET",
                                        "INCR",
                                        "EVAL",
                                        "DEL",
                                        "XADD",
                                        "EXPIRE",
                                        "X",
                                        "BITCOUNT",
                                        "PUBLISH",
                                        "a_word_that_is_longer_than_any"};
    static const char *const refused[] = {
        "multi",   "EXEC",      "Watch",      "SELECT",  "AUTH",    "HELLO",        "QUIT", "RESET",
        "MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "DISCARD", "UNWATCH", "PUNSUBSCRIBE", "SYNC"};
    static const char *const blocks[] = {"BLPOP", "brpop",   "BLMOVE",     "BZPOPMIN",
                                         "WAIT",  "WAITAOF", "BRPOPLPUSH", "BLMPOP"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        cr_assert_eq(kind_of(plain[i], NULL, NULL), PERF__REDIS_PLAIN, "%s", plain[i]);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        cr_assert_eq(kind_of(refused[i], NULL, NULL), PERF__REDIS_REFUSED, "%s", refused[i]);
        cr_assert_not_null(strcasestr(perf_last_error(), refused[i]));
    }
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        cr_assert_eq(kind_of(blocks[i], NULL, NULL), PERF__REDIS_BLOCKS, "%s", blocks[i]);
    cr_assert_eq(kind_of("XREAD", "COUNT", "1"), PERF__REDIS_PLAIN);
    cr_assert_eq(kind_of("XREAD", "block", "1"), PERF__REDIS_BLOCKS);
    cr_assert_eq(kind_of("XREAD", "STREAMS", "block"), PERF__REDIS_PLAIN);
    cr_assert_eq(kind_of("CLIENT", "REPLY", "OFF"), PERF__REDIS_REFUSED);
    cr_assert_eq(kind_of("CLIENT", "ID", NULL), PERF__REDIS_PLAIN);
}

Test(net_redis, commands_are_encoded)
{
    perf_bytes argv[] = {WORD("SET"), WORD("k\r\n"), {NULL, 0}, WORD("0123456789")};
    static const char wanted[] =
        "*4\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n$10\r\n0123456789\r\n";
    char bytes[100];
    cr_assert_eq(perf__redis_encoded_size(4, argv), sizeof wanted - 1);
    cr_assert_eq(perf__redis_encode(bytes, 4, argv) - bytes, (ptrdiff_t)sizeof wanted - 1);
    cr_assert_arr_eq(bytes, wanted, sizeof wanted - 1);
    perf_bytes bad = {NULL, 5};
    cr_assert_eq(perf__redis_check_command(1, &bad), PERF_EINVAL);
    cr_assert_eq(perf__redis_check_command(0, argv), PERF_EINVAL);
    cr_assert_eq(perf__redis_check_command(1, &(perf_bytes){"", 0}), PERF_EINVAL);
}

Test(net_redis, errors_have_kinds)
{
    static const struct {
        const char *text;
        int kind, status;
    } cases[] = {
        {"NOAUTH Authentication required.", PERF_REDIS_ERROR_NOAUTH, PERF_EACCESS},
        {"WRONGPASS invalid", PERF_REDIS_ERROR_WRONGPASS, PERF_EACCESS},
        {"NOPERM this user", PERF_REDIS_ERROR_NOPERM, PERF_EACCESS},
        {"OOM command not allowed", PERF_REDIS_ERROR_OOM, PERF_ETHROTTLED},
        {"READONLY You can't", PERF_REDIS_ERROR_READONLY, PERF_EUNAVAILABLE},
        {"LOADING Redis is", PERF_REDIS_ERROR_LOADING, PERF_EUNAVAILABLE},
        {"BUSY Redis is busy", PERF_REDIS_ERROR_BUSY, PERF_EBUSY},
        {"BUSYGROUP exists", PERF_REDIS_ERROR_OTHER, PERF_EREMOTE},
        {"NOSCRIPT No", PERF_REDIS_ERROR_NOSCRIPT, PERF_EREMOTE},
        {"MOVED 1 a:1", PERF_REDIS_ERROR_MOVED, PERF_EREMOTE},
        {"ASK 1 a:1", PERF_REDIS_ERROR_ASK, PERF_EREMOTE},
        {"ERR max number of clients reached", PERF_REDIS_ERROR_MAXCLIENTS, PERF_ETHROTTLED},
        {"ERR something", PERF_REDIS_ERROR_OTHER, PERF_EREMOTE},
        {"EXECABORT", PERF_REDIS_ERROR_EXECABORT, PERF_EREMOTE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t kind;
        cr_assert_eq(perf__redis_error_status(cases[i].text, strlen(cases[i].text), &kind),
                     cases[i].status, "%s", cases[i].text);
        cr_assert_eq(kind, cases[i].kind, "%s", cases[i].text);
        cr_assert_eq(perf_redis_error_kind(cases[i].text), cases[i].kind);
    }
    cr_assert_eq(perf_redis_error_kind("redis 127.0.0.1:1: Connection refused"),
                 PERF_REDIS_ERROR_NONE);
    cr_assert_eq(perf_redis_error_kind(NULL), PERF_REDIS_ERROR_NONE);
    cr_assert_eq(perf_redis_error_kind(""), PERF_REDIS_ERROR_NONE);
}

Test(net_redis, scripts_have_a_sha1)
{
    perf_redis_script *script;
    cr_assert_eq(perf_redis_script_new(NULL, "return 1", 8, &script), PERF_OK);
    cr_assert_str_eq(perf_redis_script_sha1(script), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    perf_redis_script_free(script);
    perf_redis_script_free(NULL);
    cr_assert_str_eq(perf_redis_script_sha1(NULL), "");
    cr_assert_eq(perf_redis_script_new(NULL, NULL, 8, &script), PERF_EINVAL);
    cr_assert_eq(perf_redis_script_new(NULL, "return 1", 8, NULL), PERF_EINVAL);
}

/* A port where nobody listens. */
static perf_redis *nowhere(int64_t fail_fast, const perf_host *host)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis;
    o.url = "redis://:hunter2@127.0.0.1:1";
    o.fail_fast = fail_fast;
    o.backoff_max_ms = 60;
    o.host = host;
    cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK, "%s", perf_last_error());
    return redis;
}

Test(net_redis, arguments)
{
    perf_redis *redis = nowhere(1, NULL);
    perf_redis_reply *reply;
    perf_redis_pending *pending;
    perf_redis_subscriber *subscriber;
    perf_bytes get[] = {WORD("GET"), WORD("k")}, exec = WORD("EXEC"), blpop = WORD("BLPOP");
    perf_redis_command commands[] = {{2, get}, {1, &exec}}, blocking = {1, &blpop};
    int fd;
    cr_assert_eq(perf_redis_call(NULL, 2, get, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call(redis, 0, get, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call(redis, 2, NULL, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call(redis, 2, get, -1, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call(redis, 1, &exec, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call_text(redis, NULL, 0, &reply), PERF_EINVAL);
    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "MULTI"), PERF_EINVAL);
    cr_assert_eq(perf_redis_call_many(redis, 2, commands, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call_many(redis, 1, commands, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_call_many(redis, 0, commands, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_call_many(redis, 1, &blocking, 0, &reply), PERF_EUNSUPPORTED);
    cr_assert_eq(perf_redis_transaction(redis, 2, commands, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_start(redis, 1, &exec, 0, NULL, NULL, &pending), PERF_EINVAL);
    cr_assert_eq(perf_redis_start(redis, 1, &blpop, 0, NULL, NULL, &pending), PERF_EUNSUPPORTED);
    cr_assert_eq(perf_redis_pending_wait(NULL, 0, &reply), PERF_EINVAL);
    perf_redis_pending_release(NULL);
    cr_assert_eq(perf_redis_fd(redis, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_next_done(redis, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_next_done(redis, &pending), PERF_MISS);
    cr_assert_eq(perf_redis_set_on_connect(redis, NULL, 1), PERF_EINVAL);
    cr_assert_eq(perf_redis_set_on_connect(redis, commands, 99), PERF_EINVAL);
    cr_assert_eq(perf_redis_script_call(redis, NULL, 0, 0, NULL, 0, &reply), PERF_EINVAL);
    cr_assert_eq(perf_redis_get_stats(redis, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_reconnect(redis), PERF_OK);
    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, &subscriber), PERF_OK);
    cr_assert_eq(perf_redis_subscribe(subscriber, "", 0), PERF_EINVAL);
    cr_assert_eq(perf_redis_subscribe(subscriber, NULL, 3), PERF_EINVAL);
    cr_assert_eq(perf_redis_psubscribe(NULL, "a*", 2), PERF_EINVAL);
    cr_assert_eq(perf_redis_unsubscribe(subscriber, "a", 1), PERF_MISS);
    cr_assert_eq(perf_redis_punsubscribe(subscriber, "a", 1), PERF_MISS);
    cr_assert_eq(perf_redis_message_fd(subscriber, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_message_fd(subscriber, &fd), PERF_OK);
    cr_assert_eq(perf_redis_subscriber_id(subscriber), 0);
    cr_assert_eq(perf_redis_next_message(subscriber, 0, NULL), PERF_EINVAL);
    cr_assert_eq(perf_redis_close(redis), PERF_EBUSY);
    cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
    cr_assert_eq(perf_redis_subscriber_close(NULL), PERF_OK);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
}

Test(net_redis, nobody_listens)
{
    struct test_leaks leaks = test_leaks_begin();
    perf_redis *redis = nowhere(1, NULL);
    perf_redis_reply *reply;
    perf_redis_stats stats = PERF_REDIS_STATS_INIT;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "GET", "k"), PERF_EUNAVAILABLE);
        cr_assert_not_null(strstr(perf_last_error(), "127.0.0.1:1"), "%s", perf_last_error());
        cr_assert_not_null(strstr(perf_last_error(), "refused"), "%s", perf_last_error());
        cr_assert_null(strstr(perf_last_error(), "hunter2"));
    }
    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "BLPOP", "k", "1"), PERF_EUNAVAILABLE, "%s",
                 perf_last_error());
    cr_assert_eq(perf_redis_get_stats(redis, &stats), PERF_OK);
    cr_assert_geq(stats.connect_failures, 1);
    cr_assert_eq(stats.connected, 0);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);

    redis = nowhere(0, NULL); /* waits until its deadline */
    const char *const words[] = {"GET", "k", NULL};
    cr_assert_eq(perf_redis_call_text(redis, words, 150, &reply), PERF_EUNAVAILABLE);
    cr_assert_not_null(strstr(perf_last_error(), "deadline"), "%s", perf_last_error());
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    test_leaks_end(&leaks);
}

Test(net_redis, after_a_fork)
{
    perf_redis *redis = nowhere(1, NULL);
    perf_redis_subscriber *subscriber;
    perf_redis_pending *pending = NULL;
    perf_bytes get[] = {WORD("GET"), WORD("k")};
    perf_redis_message message = PERF_REDIS_MESSAGE_INIT;
    perf_redis_reply *reply;
    cr_assert_eq(perf_redis_subscriber_open(redis, NULL, &subscriber), PERF_OK);
    cr_assert_neq(PERF_REDIS_CALL(redis, NULL, "PING"), PERF_OK);
    pid_t child = fork();
    if (!child) {
        bool good = PERF_REDIS_CALL(redis, &reply, "GET", "k") == PERF_EFORKED &&
                    perf_redis_start(redis, 2, get, 0, NULL, NULL, &pending) == PERF_EFORKED &&
                    perf_redis_next_message(subscriber, 0, &message) == PERF_EFORKED &&
                    perf_redis_subscribe(subscriber, "a", 1) == PERF_EFORKED &&
                    perf_redis_subscriber_close(subscriber) == PERF_OK &&
                    perf_redis_close(redis) == PERF_OK;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
}

Test(net_redis, memory_that_fails)
{
    for (int at = 1; at < 60; at++) {
        struct test_host th;
        const perf_host *host = test_host_init(&th);
        perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
        perf_redis *redis = NULL;
        perf_redis_subscriber *subscriber = NULL;
        perf_bytes ping = WORD("PING");
        perf_redis_command command = {1, &ping};
        o.url = "redis://u:p@127.0.0.1:1";
        o.fail_fast = 1;
        o.timeout_ms = 100; /* a blocking command asks for a connection that long */
        o.host = host;
        o.on_connect = &command;
        o.on_connect_count = 1;
        atomic_store(&th.fail_at, at);
        int rc = perf_redis_open(&o, &redis);
        if (!rc) {
            rc = PERF_REDIS_CALL(redis, NULL, "PING");
            cr_assert(rc == PERF_ENOMEM || rc == PERF_EUNAVAILABLE, "%d: %s", rc,
                      perf_last_error());
            rc = PERF_REDIS_CALL(redis, NULL, "BLPOP", "a", "1");
            cr_assert(rc == PERF_ENOMEM || rc == PERF_EUNAVAILABLE, "%d: %s", rc,
                      perf_last_error());
            rc = perf_redis_subscriber_open(redis, NULL, &subscriber);
            if (!rc) {
                rc = perf_redis_subscribe(subscriber, "a", 1);
                cr_assert(rc == PERF_OK || rc == PERF_ENOMEM);
                cr_assert_eq(perf_redis_subscriber_close(subscriber), PERF_OK);
            } else {
                cr_assert_eq(rc, PERF_ENOMEM);
            }
            cr_assert_eq(perf_redis_close(redis), PERF_OK);
        } else {
            cr_assert_eq(rc, PERF_ENOMEM);
        }
        cr_assert_eq(atomic_load(&th.live), 0, "allocation %d", at);
    }
}
