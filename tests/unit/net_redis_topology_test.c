/* SPDX-License-Identifier: MIT */
/*
 * net_redis_topology_test.c - replies to CLUSTER SLOTS, honest and hostile ones, addresses, and
 * redirections. The first reply is what a Redis 7.0 server says.
 */
#include "../../src/net/redis_topology.h"

#include "../../src/base/alloc.h"
#include "../../src/net/redis_reply.h"
#include "seams.h"
#include "test.h"

static const struct perf__redis_address asked = {"10.0.0.9", 7009};

static perf_redis_reply *reply_of(const char *bytes, size_t len)
{
    struct perf__redis_parser parser;
    perf_redis_reply *spare = NULL, *reply = NULL;
    const char *at = bytes;
    perf__redis_parser_init(&parser, &perf__default_allocator, 1 << 20);
    cr_assert_eq(perf__redis_parse(&parser, &at, bytes + len, &spare, &reply), 1, "%s", bytes);
    perf__redis_parser_free(&parser);
    return reply;
}

static int read_text(const char *bytes, struct perf__redis_topology **out)
{
    perf_redis_reply *reply = reply_of(bytes, strlen(bytes));
    int rc = perf__redis_topology_read(&perf__default_allocator, reply, &asked, out);
    perf_redis_reply_release(reply);
    return rc;
}

#define ID  "$40\r\n09dbe9720cda62f7865eabc5fd8857c5d2678366\r\n"
#define LOC "$9\r\n127.0.0.1\r\n"

Test(redis_topology, as_a_server_tells_it)
{
    static const char bytes[] = "*2\r\n"
                                "*4\r\n:0\r\n:8191\r\n"
                                "*4\r\n" LOC ":30001\r\n" ID "*0\r\n"
                                "*4\r\n" LOC ":30004\r\n" ID "*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"
                                "*5\r\n:8192\r\n:16383\r\n"
                                "*4\r\n" LOC ":30002\r\n" ID "*0\r\n"
                                "*4\r\n" LOC ":30005\r\n" ID "*0\r\n"
                                "*4\r\n" LOC ":30004\r\n" ID "*0\r\n";
    struct perf__redis_topology *t = NULL;
    cr_assert_eq(read_text(bytes, &t), PERF_OK, "%s", perf_last_error());
    cr_assert_eq(t->node_count, 4);
    cr_assert_eq(t->range_count, 2);
    cr_assert_str_eq(t->nodes[t->ranges[1].master].host, "127.0.0.1");
    cr_assert_eq(t->nodes[t->ranges[1].master].port, 30002);
    cr_assert(t->ranges[1].first == 8192 && t->ranges[1].last == 16383);
    cr_assert_eq(t->ranges[0].replica_count, 1);
    cr_assert_eq(t->ranges[1].replica_count, 2);
    cr_assert_eq(t->ranges[0].replicas[0], t->ranges[1].replicas[1], "each node once");
    perf__redis_topology_free(&perf__default_allocator, t);
}

Test(redis_topology, hosts_of_all_kinds)
{
    static const struct {
        const char *host, *is;
    } cases[] = {
        {"$-1\r\n", "10.0.0.9"}, /* it does not know its own: the one that was asked */
        {"$0\r\n\r\n", "10.0.0.9"},
        {"$3\r\n::1\r\n", "::1"},
        {"$13\r\na.example.com\r\n", "a.example.com"},
        {"$4\r\na b.\r\n", NULL},
        {"$4\r\na\nb.\r\n", NULL},
        {"$1\r\n?\r\n", NULL},
        {":5\r\n", NULL},
        {"*1\r\n:5\r\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__redis_topology *t = NULL;
        char bytes[200];
        snprintf(bytes, sizeof bytes, "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n%s:1\r\n", cases[i].host);
        int rc = read_text(bytes, &t);
        if (!cases[i].is) {
            cr_assert_eq(rc, PERF_EPROTOCOL, "%s", bytes);
            continue;
        }
        cr_assert_eq(rc, PERF_OK, "%s: %s", bytes, perf_last_error());
        cr_assert_str_eq(t->nodes[0].host, cases[i].is);
        perf__redis_topology_free(&perf__default_allocator, t);
    }
}

Test(redis_topology, what_no_cluster_says)
{
    static const char *const lies[] = {
        "+OK\r\n",
        "$-1\r\n",
        ":16384\r\n",
        "*0\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*0\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n" LOC ":1\r\n",
        "*1\r\n*3\r\n:-1\r\n:5\r\n*2\r\n" LOC ":1\r\n",
        "*1\r\n*3\r\n:7\r\n:5\r\n*2\r\n" LOC ":1\r\n",
        "*1\r\n*3\r\n$1\r\n0\r\n:5\r\n*2\r\n" LOC ":1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n" LOC,
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n" LOC ":0\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n" LOC ":65536\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n" LOC "$1\r\n1\r\n",
        "*1\r\n*4\r\n:0\r\n:5\r\n*2\r\n" LOC ":1\r\n:5\r\n",
        "*2\r\n*3\r\n:0\r\n:5\r\n*2\r\n" LOC ":1\r\n*0\r\n",
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct perf__redis_topology *t = NULL;
        cr_assert_eq(read_text(lies[i], &t), PERF_EPROTOCOL, "%s", lies[i]);
        cr_assert_not_null(strstr(perf_last_error(), "10.0.0.9:7009"), "%s", perf_last_error());
        cr_assert_null(t);
    }
}

/* ranges of one slot each, every one with a node of its own */
static char *many_nodes(int ranges)
{
    size_t size = (size_t)ranges * 80 + 40;
    char *bytes = malloc(size), *end = bytes;
    end += sprintf(end, "*%d\r\n", ranges);
    for (int i = 0; i < ranges; i++)
        end += sprintf(end, "*3\r\n:%d\r\n:%d\r\n*2\r\n" LOC ":%d\r\n", i % 16384, i % 16384,
                       1 + i % 65535);
    return bytes;
}

Test(redis_topology, bounds)
{
    static const struct {
        int ranges, rc;
    } cases[] = {{PERF__REDIS_NODES, PERF_OK},
                 {PERF__REDIS_NODES + 1, PERF_EPROTOCOL},
                 {16385, PERF_EPROTOCOL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__redis_topology *t = NULL;
        char *bytes = many_nodes(cases[i].ranges);
        perf_redis_reply *reply = reply_of(bytes, strlen(bytes));
        cr_assert_eq(perf__redis_topology_read(&perf__default_allocator, reply, &asked, &t),
                     cases[i].rc, "%d ranges: %s", cases[i].ranges, perf_last_error());
        perf__redis_topology_free(&perf__default_allocator, t);
        perf_redis_reply_release(reply);
        free(bytes);
    }
    /* More replicas than are remembered. */
    char text[1000], *end = text;
    end += sprintf(end, "*1\r\n*%d\r\n:0\r\n:16383\r\n", 3 + PERF__REDIS_REPLICAS + 3);
    for (int i = 0; i <= PERF__REDIS_REPLICAS + 3; i++)
        end += sprintf(end, "*2\r\n" LOC ":%d\r\n", 1 + i);
    struct perf__redis_topology *t = NULL;
    cr_assert_eq(read_text(text, &t), PERF_OK);
    cr_assert_eq(t->ranges[0].replica_count, PERF__REDIS_REPLICAS);
    perf__redis_topology_free(&perf__default_allocator, t);
}

Test(redis_topology, no_memory)
{
    struct test_host th;
    struct perf__redis_topology *t = NULL;
    const perf_host *host = test_host_init(&th);
    static const char bytes[] = "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n" LOC ":1\r\n";
    perf_redis_reply *reply = reply_of(bytes, sizeof bytes - 1);
    th.fail_at = 1;
    cr_assert_eq(perf__redis_topology_read(host->allocator, reply, &asked, &t), PERF_ENOMEM);
    cr_assert_eq(th.live, 0);
    perf_redis_reply_release(reply);
}

Test(redis_topology, addresses)
{
    static const struct {
        const char *text, *host;
        int port;
    } cases[] = {
        {"localhost", "localhost", 1},
        {"localhost:6379", "localhost", 6379},
        {"[::1]:6379", "::1", 6379},
        {"[::1]", "::1", 1},
        {"::1", "::1", 1},
        {"10.0.0.1:65535", "10.0.0.1", 65535},
        {"", NULL, 0},
        {":6379", NULL, 0},
        {"h:", NULL, 0},
        {"h:0", NULL, 0},
        {"h:65536", NULL, 0},
        {"h:6379x", NULL, 0},
        {"h:-1", NULL, 0},
        {"[::1", NULL, 0},
        {"[::1]x", NULL, 0},
        {"[]:1", NULL, 0},
        {"a b:1", NULL, 0},
        {"redis://h:1", NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__redis_address a;
        bool ok = perf__redis_address_read(cases[i].text, 1, &a);
        cr_assert_eq(ok, cases[i].host != NULL, "%s", cases[i].text);
        if (ok) {
            cr_assert_str_eq(a.host, cases[i].host);
            cr_assert_eq(a.port, cases[i].port);
        }
    }
}

Test(redis_topology, redirections)
{
    static const struct {
        const char *text, *host;
        int slot, port;
    } cases[] = {
        {"MOVED 3999 127.0.0.1:6381", "127.0.0.1", 3999, 6381},
        {"ASK 16383 h.example:1", "h.example", 16383, 1},
        {"MOVED 0 ::1:7000", "::1", 0, 7000},
        {"MOVED 5 :7000", "10.0.0.9", 5, 7000}, /* it does not know its own name */
        {"MOVED 16384 h:1", NULL, 0, 0},
        {"MOVED -1 h:1", NULL, 0, 0},
        {"MOVED x h:1", NULL, 0, 0},
        {"MOVED 1", NULL, 0, 0},
        {"MOVED  h:1", NULL, 0, 0},
        {"MOVED 1 h", NULL, 0, 0},
        {"MOVED 1 h:", NULL, 0, 0},
        {"MOVED 1 h:65536", NULL, 0, 0},
        {"MOVED 1 h h:1", NULL, 0, 0},
        {"MOVED", NULL, 0, 0},
        {"ERR x", NULL, 0, 0},
        {"ASKING 1 h:1", NULL, 0, 0},
        {"", NULL, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct perf__redis_address a;
        int32_t slot = 0;
        bool ok = perf__redis_redirect_read(cases[i].text, &asked, &slot, &a);
        cr_assert_eq(ok, cases[i].host != NULL, "%s", cases[i].text);
        if (ok) {
            cr_assert_str_eq(a.host, cases[i].host);
            cr_assert(a.port == cases[i].port && slot == cases[i].slot);
        }
    }
    char longest[300] = "MOVED 1 ";
    struct perf__redis_address a;
    int32_t slot;
    memset(longest + 8, 'h', 256);
    strcpy(longest + 264, ":1");
    cr_assert_not(perf__redis_redirect_read(longest, &asked, &slot, &a));
    strcpy(longest + 263, ":1");
    cr_assert(perf__redis_redirect_read(longest, &asked, &slot, &a));
    cr_assert_eq(strlen(a.host), 255);
}
