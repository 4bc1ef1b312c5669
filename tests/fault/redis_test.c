/* SPDX-License-Identifier: MIT */
/*
 * redis_test.c - the Redis client and a peer that answers as no server should: garbage, replies
 * that are cut, too many, too few, none at all, and refusals of who we are. Memory that fails under
 * all of it.
 */
#include <libperf/redis.h>

#include "leaks.h"
#include "redis_peer.h"
#include "seams.h"

/* SETNAME comes first on each connection; most scripts begin with its answer. */
#define HELLO           \
    {                   \
        "+OK\r\n", KEEP \
    }

static perf_redis *connect_to(const struct redis_peer *p, int64_t timeout_ms, const perf_host *host)
{
    perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
    perf_redis *redis = NULL;
    o.port = p->port;
    o.timeout_ms = timeout_ms;
    o.backoff_max_ms = 60;
    o.max_reply_bytes = 10000;
    o.host = host;
    int rc = perf_redis_open(&o, &redis);
    cr_assert(rc == PERF_OK || (host && rc == PERF_ENOMEM), "%s", perf_last_error());
    return redis;
}

static void broken(const char *text, enum redis_then then, int expected)
{
    REDIS_PEER(p, HELLO, {text, then}, HELLO, {"$5\r\nagain\r\n", KEEP});
    perf_redis *redis = connect_to(&p, 3000, NULL);
    perf_redis_reply *reply = NULL;
    int rc = PERF_REDIS_CALL(redis, &reply, "GET", "k");
    cr_assert_eq(rc, expected, "%s: %d %s", text, rc, perf_last_error());
    cr_assert_null(reply);
    cr_assert_neq(perf_last_error()[0], '\0');
    /* The connection is another one now, and nothing of the first is left. */
    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "GET", "k"), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_redis_reply_data(reply), "again");
    perf_redis_reply_release(reply);
    cr_assert_eq(atomic_load(&p.connections), 2);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, garbage_and_cut_replies)
{
    struct test_leaks leaks = test_leaks_begin();
    broken("HTTP/1.1 400 Bad Request\r\n\r\n", CLOSE, PERF_EPROTOCOL);
    broken("$5\r\nhello", CLOSE, PERF_EIO);
    broken("$5\r\nhelloxx", CLOSE, PERF_EPROTOCOL);
    broken("*3\r\n:1\r\n$100\r\nhalf", RESET, PERF_EIO);
    broken("*3\r\n:1\r\n!\r\n", CLOSE, PERF_EPROTOCOL);
    broken("$999999999999999999999\r\n", CLOSE, PERF_EPROTOCOL);
    broken("*1\r\n$9999999999\r\n", CLOSE, PERF_EPROTOCOL);
    broken("*-5\r\n", CLOSE, PERF_EPROTOCOL);
    broken(":12", CLOSE, PERF_EIO);
    broken("+", RESET, PERF_EIO);
    broken(NULL, CLOSE, PERF_EIO);
    test_leaks_end(&leaks);
}

Test(fault_redis, more_replies_than_commands)
{
    REDIS_PEER(p, HELLO, {"+A\r\n+B\r\n+C\r\n", KEEP}, HELLO, {"+D\r\n", KEEP});
    perf_redis *redis = connect_to(&p, 3000, NULL);
    perf_redis_reply *reply;
    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "GET", "k"), PERF_OK);
    cr_assert_str_eq(perf_redis_reply_data(reply), "A");
    perf_redis_reply_release(reply);
    cr_assert_eq(PERF_REDIS_CALL(redis, &reply, "GET", "k"), PERF_OK, "%s", perf_last_error());
    cr_assert_str_eq(perf_redis_reply_data(reply), "D", "nobody gets what was not for him");
    perf_redis_reply_release(reply);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, no_reply_at_all)
{
    REDIS_PEER(p, HELLO, {NULL, HANG});
    perf_redis *redis = connect_to(&p, 100, NULL);
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "GET", "k"), PERF_ETIMEDOUT);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, promises_that_are_too_large)
{
    REDIS_PEER(p, HELLO, {"$20000\r\nabc", HANG});
    perf_redis *redis = connect_to(&p, 100, NULL);
    cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "GET", "k"), PERF_ETIMEDOUT); /* still skipping */
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, a_server_that_hangs_up_at_once)
{
    REDIS_PEER(p, {NULL, CLOSE});
    perf_redis *redis = connect_to(&p, 200, NULL);
    int connections = 0, calls = 0;
    while (connections < 2 && calls++ < 50) { /* one call, unless the machine is busy */
        cr_assert_eq(PERF_REDIS_CALL(redis, NULL, "GET", "k"), PERF_EUNAVAILABLE);
        cr_assert_not_null(strstr(perf_last_error(), "closed"), "%s", perf_last_error());
        connections = atomic_load(&p.connections);
    }
    cr_assert_geq(connections, 2, "it tried again");
    cr_assert_lt(connections, 30 * calls, "but did not hammer it: %d", connections);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, refusals_repeat_no_secret)
{
    static const char *const refusals[] = {
        "-WRONGPASS invalid username-password pair 'hunter2'\r\n",
        "-ERR invalid password hunter2\r\n",
        "-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n",
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        REDIS_PEER(p, {refusals[i], KEEP}, HELLO);
        perf_redis_options o = PERF_REDIS_OPTIONS_INIT;
        struct test_host th;
        perf_redis *redis;
        o.host = test_host_init(&th);
        o.port = p.port;
        o.password = "hunter2";
        o.fail_fast = 1;
        cr_assert_eq(perf_redis_open(&o, &redis), PERF_OK);
        int rc = PERF_REDIS_CALL(redis, NULL, "GET", "k");
        cr_assert(rc == PERF_EACCESS || rc == PERF_EREMOTE, "%d", rc);
        cr_assert_null(strstr(perf_last_error(), "hunter2"), "%s", perf_last_error());
        cr_assert_eq(perf_redis_close(redis), PERF_OK);
        cr_assert_eq(atomic_load(&th.live), 0);
        redis_peer_stop(&p);
    }
}

/* What was written may have been executed: it is not said twice. */
Test(fault_redis, nothing_is_sent_twice)
{
    REDIS_PEER(p, HELLO, {NULL, LATER}, HELLO, {"+OK\r\n", KEEP});
    perf_redis *redis = connect_to(&p, 3000, NULL);
    perf_redis_pending *first, *second;
    perf_redis_reply *reply;
    perf_bytes incr[] = {{"INCR", 4}, {"n", 1}};
    cr_assert_eq(perf_redis_start(redis, 2, incr, 0, NULL, NULL, &first), PERF_OK);
    while (atomic_load(&p.commands) < 2)
        usleep(1000);
    cr_assert_eq(perf_redis_start(redis, 2, incr, 0, NULL, NULL, &second), PERF_OK);
    cr_assert_eq(perf_redis_pending_wait(first, -1, &reply), PERF_EIO);
    int rc = perf_redis_pending_wait(second, -1, &reply);
    cr_assert(rc == PERF_EIO || rc == PERF_OK, "%d %s", rc, perf_last_error());
    /* The second waited for the first one's reply, and so was not written: it is executed. */
    cr_assert_eq(atomic_load(&p.commands), rc == PERF_OK ? 4 : 3);
    if (!rc)
        perf_redis_reply_release(reply);
    perf_redis_pending_release(first);
    perf_redis_pending_release(second);
    cr_assert_eq(perf_redis_close(redis), PERF_OK);
    redis_peer_stop(&p);
}

Test(fault_redis, memory_that_fails)
{
    static const char nested[] = "*2\r\n$300\r\n"
                                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                                 "\r\n*1\r\n:1\r\n";
    int succeeded = 0;
    for (int at = 1; at < 60 && succeeded < 3; at++) {
        REDIS_PEER(p, HELLO, {nested, KEEP}, {nested, KEEP});
        struct test_host th;
        const perf_host *host = test_host_init(&th);
        perf_redis_reply *replies[2] = {NULL, NULL}, *reply = NULL;
        perf_bytes get[] = {{"GET", 3}, {"k", 1}};
        perf_redis_command two[] = {{2, get}, {2, get}};
        atomic_store(&th.fail_at, at);
        perf_redis *redis = connect_to(&p, 300, host);
        if (redis) {
            int rc = perf_redis_call(redis, 2, get, 0, &reply);
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM || rc == PERF_EUNAVAILABLE ||
                          rc == PERF_ETIMEDOUT,
                      "%d: %d %s", at, rc, perf_last_error());
            perf_redis_reply_release(reply);
            rc = perf_redis_call_many(redis, 2, two, 0, replies);
            cr_assert(rc == PERF_OK || rc == PERF_ENOMEM || rc == PERF_EUNAVAILABLE ||
                          rc == PERF_ETIMEDOUT,
                      "%d: %d %s", at, rc, perf_last_error());
            for (int i = 0; i < 2 && !rc; i++)
                perf_redis_reply_release(replies[i]);
            succeeded += !atomic_load(&th.failed);
            cr_assert_eq(perf_redis_close(redis), PERF_OK);
        }
        cr_assert_eq(atomic_load(&th.live), 0, "allocation %d", at);
        redis_peer_stop(&p);
    }
    cr_assert_eq(succeeded, 3, "all allocations were made to fail");
}
