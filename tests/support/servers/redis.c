/* SPDX-License-Identifier: MIT */
/*
 * redis.c - Redis: one server, a cluster of six, or three under three sentinels.
 *
 * Nodes are made one after the other and introduced to each other when all of them run, because a
 * server is ready by itself: only the cluster as a whole can say that it is well. What a node knows
 * of the others is in files of its directory, so a restart finds them again.
 */
#include "server.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOTS        16384
#define MASTERS      3
#define MASTER_NAME  "tested"
#define NODE_TIMEOUT 1500 /* ms; less, and a busy machine looks like a broken one */

/* What prepare needs to know of a server. */
struct plan {
    const struct test_redis *asked;
    const char *lines;        /* of its role */
    const char *certificates; /* a directory that has them; NULL: make new ones */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

/* -------------------------------------------------------------------- redis-cli */

static char *ask(const struct test_server *s, const char *format, va_list args)
{
    char words[2048], command[3072], tls[300] = "", password[100] = "";
    size_t size = 4096, len = 0, n;
    char *text;
    FILE *f;

    vsnprintf(words, sizeof words, format, args);
    if (s->secret_key[0])
        snprintf(password, sizeof password, "REDISCLI_AUTH='%s'", s->secret_key);
    if (!strncmp(s->url, "rediss", 6))
        snprintf(tls, sizeof tls, "--tls --cacert %s/ca.pem --cert %s/cert.pem --key %s/key.pem",
                 s->dir, s->dir, s->dir);
    snprintf(command, sizeof command,
             "%s timeout -s KILL 5 redis-cli -h 127.0.0.1 -p %d %s %s 2>/dev/null", password,
             s->port, tls, words);
    f = popen(command, "re");
    text = malloc(size);
    if (!f || !text)
        abort();
    while ((n = fread(text + len, 1, size - len - 1, f)) > 0) {
        len += n;
        if (len + 1 == size && !(text = realloc(text, size *= 2)))
            abort();
    }
    text[len] = 0;
    if (len && text[len - 1] == '\n')
        text[len - 1] = 0;
    if (pclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

char *test_redis_cli(const struct test_server *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = ask(s, format, args);
    va_end(args);
    return text;
}

bool test_redis_says(const struct test_server *s, const char *wanted, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = ask(s, format, args);
    va_end(args);
    bool says = text && !strcmp(text, wanted);
    if (!says)
        test_server_fail("%s at port %d: \"%s\" answers \"%.200s\"", s->kind->name, s->port, format,
                         text ? text : "nothing");
    free(text);
    return says;
}

/* Whether an answer has this in it. */
static bool mentions(const struct test_server *s, const char *words, const char *part)
{
    char *text = test_redis_cli(s, "%s", words);
    bool found = text && strstr(text, part);
    if (!found)
        test_server_fail("%s at port %d: %s does not say %s", s->kind->name, s->port, words, part);
    free(text);
    return found;
}

/* ------------------------------------------------------------------------ server */

static bool certificates(struct test_server *s, const char *from)
{
    char command[300];
    if (!from)
        return test_server_certificates(s);
    snprintf(command, sizeof command, "cp %s/*.pem .", from);
    return test_server_run(s, (const char *const[]){"sh", "-c", command, NULL});
}

static void transport(FILE *f, const struct test_server *s, const struct test_redis *asked)
{
    if (!asked->tls) {
        fprintf(f, "port %d\n", s->port);
        return;
    }
    fprintf(f,
            "port 0\ntls-port %d\ntls-ca-cert-file ca.pem\ntls-cert-file cert.pem\n"
            "tls-key-file key.pem\ntls-replication yes\ntls-auth-clients %s\n",
            s->port, asked->client_certificates ? "yes" : "no");
}

static bool prepare(struct test_server *s)
{
    const struct plan *plan = s->given;
    const struct test_redis *asked = plan->asked;
    FILE *f;

    if (asked->tls && !certificates(s, plan->certificates))
        return false;
    f = fopen(test_server_file(s, "redis.conf"), "w");
    if (!f)
        return test_server_fail("redis.conf cannot be written");
    transport(f, s, asked);
    fprintf(f,
            "bind 127.0.0.1\nprotected-mode no\nunixsocket redis.sock\nsave \"\"\n"
            "appendonly %s\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n"
            "enable-debug-command yes\n",
            asked->appendonly ? "yes" : "no");
    if (asked->password) {
        fprintf(f, "requirepass %s\nmasterauth %s\n", asked->password, asked->password);
        snprintf(s->secret_key, sizeof s->secret_key, "%s", asked->password);
    }
    if (asked->user)
        fprintf(f, "user %s on >%s ~* &* +@all\n", asked->user, asked->user_password);
    if (plan->lines)
        fputs(plan->lines, f);
    if (asked->config)
        fputs(asked->config, f);
    if (s->kind->ports == 2)
        fprintf(f, "cluster-port %d\n%s", s->ports[1], asked->tls ? "tls-cluster yes\n" : "");
    if (fclose(f) != 0)
        return test_server_fail("redis.conf cannot be written");
    test_server_arg(s, "redis-server");
    test_server_arg(s, "redis.conf");
    return true;
}

static bool ready(struct test_server *s)
{
    return test_redis_says(s, "PONG", "PING"); /* it says LOADING before */
}

static const struct test_server_kind plain = {
    .name = "redis",
    .scheme = "redis",
    .prepare = prepare,
    .ready = ready,
};

static const struct test_server_kind with_tls = {
    .name = "redis",
    .scheme = "rediss",
    .prepare = prepare,
    .ready = ready,
};

static const struct test_redis nothing_special;

struct test_server *test_server_redis(const struct test_redis *asked)
{
    struct plan plan = {.asked = asked ? asked : &nothing_special};
    return test_server_start(plan.asked->tls ? &with_tls : &plain, &plan);
}

/* ----------------------------------------------------------------------- cluster */

static const struct test_server_kind node_plain = {
    .name = "redis-node",
    .ports = 2, /* the second is the bus */
    .scheme = "redis",
    .prepare = prepare,
    .ready = ready,
};

static const struct test_server_kind node_with_tls = {
    .name = "redis-node",
    .ports = 2,
    .scheme = "rediss",
    .prepare = prepare,
    .ready = ready,
};

/* Every master its slots and an epoch of its own, and each node is introduced to the first. */
static bool introduce(struct test_redis_cluster *c)
{
    for (int i = 0; i < TEST_REDIS_NODES; i++) {
        struct test_server *node = c->nodes[i];
        if (i < MASTERS && !test_redis_says(node, "OK", "CLUSTER ADDSLOTSRANGE %d %d",
                                            i * SLOTS / MASTERS, (i + 1) * SLOTS / MASTERS - 1))
            return false;
        if (!test_redis_says(node, "OK", "CLUSTER SET-CONFIG-EPOCH %d", i + 1))
            return false;
        if (i && !test_redis_says(c->nodes[0], "OK", "CLUSTER MEET 127.0.0.1 %d %d", node->port,
                                  node->ports[1]))
            return false;
    }
    return true;
}

/* A node can be told to replicate only a master that it has heard of. */
static bool assign_replicas(struct test_redis_cluster *c, int64_t until)
{
    for (int i = MASTERS; i < TEST_REDIS_NODES; i++) {
        char *id = test_redis_cli(c->nodes[i - MASTERS], "CLUSTER MYID");
        bool ok = false;
        while (id && !(ok = test_redis_says(c->nodes[i], "OK", "CLUSTER REPLICATE %s", id)) &&
               now_ms() < until)
            sleep_ms(20);
        free(id);
        if (!ok)
            return false;
    }
    return true;
}

static bool node_settled(struct test_redis_cluster *c, const struct test_server *node)
{
    char *slots, port[16];
    bool ok;
    if (!mentions(node, "CLUSTER INFO", "cluster_state:ok"))
        return false;
    if (!mentions(node, "INFO replication", "role:master") &&
        !mentions(node, "INFO replication", "master_link_status:up"))
        return false;
    slots = test_redis_cli(node, "CLUSTER SLOTS");
    ok = slots != NULL;
    for (int i = 0; ok && i < TEST_REDIS_NODES; i++) {
        snprintf(port, sizeof port, "\n%d\n", c->nodes[i]->port);
        ok = !c->nodes[i]->pid || strstr(slots, port);
        if (!ok)
            test_server_fail("the node at port %d does not list the one at port %d", node->port,
                             c->nodes[i]->port);
    }
    free(slots);
    return ok;
}

bool test_redis_cluster_settle(struct test_redis_cluster *c, int ms)
{
    int64_t until = now_ms() + ms;
    for (;;) {
        bool settled = true;
        for (int i = 0; settled && i < TEST_REDIS_NODES; i++)
            settled = !c->nodes[i]->pid || node_settled(c, c->nodes[i]);
        if (settled || now_ms() > until)
            return settled;
        sleep_ms(50);
    }
}

struct test_redis_cluster *test_redis_cluster(const struct test_redis *asked)
{
    struct test_redis_cluster *c = calloc(1, sizeof *c);
    struct plan plan = {.asked = asked ? asked : &nothing_special};
    char lines[300];
    if (!c)
        abort();
    snprintf(lines, sizeof lines,
             "cluster-enabled yes\ncluster-node-timeout %d\ncluster-announce-ip 127.0.0.1\n"
             "cluster-replica-validity-factor 0\ncluster-allow-replica-migration no\n",
             NODE_TIMEOUT);
    plan.lines = lines;
    for (int i = 0; i < TEST_REDIS_NODES; i++) {
        c->nodes[i] = test_server_start(plan.asked->tls ? &node_with_tls : &node_plain, &plan);
        if (!c->nodes[i])
            goto out;
        plan.certificates = c->nodes[0]->dir;
    }
    if (introduce(c) && assign_replicas(c, now_ms() + 10000) && test_redis_cluster_settle(c, 20000))
        return c;
    fprintf(stderr, "%s\n", test_server_why());
out:
    test_redis_cluster_stop(c);
    return NULL;
}

void test_redis_cluster_stop(struct test_redis_cluster *c)
{
    if (!c)
        return;
    for (int i = 0; i < TEST_REDIS_NODES; i++)
        test_server_stop(c->nodes[i]);
    free(c);
}

/* ---------------------------------------------------------------------- sentinel */

struct sentinel_plan {
    const struct test_redis *asked;
    const struct test_server *master;
};

static bool sentinel_prepare(struct test_server *s)
{
    const struct sentinel_plan *plan = s->given;
    const char *mine = plan->asked->sentinel_password;
    if (plan->asked->tls && !certificates(s, plan->master->dir))
        return false;
    FILE *f = fopen(test_server_file(s, "sentinel.conf"), "w");
    if (!f)
        return test_server_fail("sentinel.conf cannot be written");
    transport(f, s, plan->asked);
    fprintf(f,
            "bind 127.0.0.1\nprotected-mode no\n"
            "sentinel monitor " MASTER_NAME " 127.0.0.1 %d 2\n"
            "sentinel down-after-milliseconds " MASTER_NAME " 1000\n"
            "sentinel failover-timeout " MASTER_NAME " 3000\n"
            "sentinel parallel-syncs " MASTER_NAME " 2\n",
            plan->master->port);
    if (plan->asked->password)
        fprintf(f, "sentinel auth-pass " MASTER_NAME " %s\n", plan->asked->password);
    if (mine) {
        fprintf(f, "requirepass %s\nsentinel sentinel-pass %s\n", mine, mine);
        snprintf(s->secret_key, sizeof s->secret_key, "%s", mine);
    }
    if (fclose(f) != 0)
        return test_server_fail("sentinel.conf cannot be written");
    test_server_arg(s, "redis-server");
    test_server_arg(s, "sentinel.conf");
    test_server_arg(s, "--sentinel");
    return true;
}

static const struct test_server_kind sentinel = {
    .name = "redis-sentinel",
    .scheme = "redis",
    .prepare = sentinel_prepare,
    .ready = ready,
};

static const struct test_server_kind sentinel_with_tls = {
    .name = "redis-sentinel",
    .scheme = "rediss",
    .prepare = sentinel_prepare,
    .ready = ready,
};

/* The port of the master as a sentinel names it; 0 if it does not. */
static int named_by(const struct test_server *s)
{
    char *text = test_redis_cli(s, "SENTINEL GET-MASTER-ADDR-BY-NAME " MASTER_NAME);
    int port = 0;
    if (!text || sscanf(text, "127.0.0.1\n%d", &port) != 1)
        port = 0;
    free(text);
    return port;
}

int test_redis_sentinel_master(const struct test_redis_sentinel *c)
{
    int ports[3], of = -1;
    for (int i = 0; i < 3; i++)
        ports[i] = c->sentinels[i]->pid ? named_by(c->sentinels[i]) : 0;
    for (int n = 0; n < 3; n++) {
        int votes = 0;
        for (int i = 0; i < 3; i++)
            votes += ports[i] == c->nodes[n]->port;
        if (votes >= 2)
            of = n;
    }
    return of;
}

static bool sentinel_settled(struct test_redis_sentinel *c)
{
    int master = test_redis_sentinel_master(c);
    char part[40];
    if (master < 0 || !c->nodes[master]->pid)
        return test_server_fail("the sentinels do not agree on a master");
    for (int i = 0; i < 3; i++) {
        const struct test_server *s = c->sentinels[i];
        if (s->pid &&
            (named_by(s) != c->nodes[master]->port || !mentions(s, "INFO sentinel", "status=ok") ||
             !mentions(s, "INFO sentinel", "slaves=2,sentinels=3")))
            return false;
    }
    snprintf(part, sizeof part, "master_port:%d\r\nmaster_link_status:up", c->nodes[master]->port);
    for (int i = 0; i < 3; i++) {
        const struct test_server *node = c->nodes[i];
        if (node->pid && !mentions(node, "INFO replication", i == master ? "role:master" : part))
            return false;
    }
    return true;
}

bool test_redis_sentinel_settle(struct test_redis_sentinel *c, int ms)
{
    for (int64_t until = now_ms() + ms; !sentinel_settled(c); sleep_ms(50))
        if (now_ms() > until)
            return false;
    return true;
}

struct test_redis_sentinel *test_redis_sentinel(const struct test_redis *asked)
{
    struct test_redis_sentinel *c = calloc(1, sizeof *c);
    struct plan plan = {.asked = asked ? asked : &nothing_special};
    struct sentinel_plan sentinel_plan = {.asked = plan.asked};
    char lines[100];
    if (!c)
        abort();
    for (int i = 0; i < 3; i++) {
        c->nodes[i] = test_server_start(plan.asked->tls ? &with_tls : &plain, &plan);
        if (!c->nodes[i])
            goto out;
        plan.certificates = c->nodes[0]->dir;
        snprintf(lines, sizeof lines, "replicaof 127.0.0.1 %d\n", c->nodes[0]->port);
        plan.lines = lines;
    }
    sentinel_plan.master = c->nodes[0];
    for (int i = 0; i < 3; i++) {
        c->sentinels[i] =
            test_server_start(plan.asked->tls ? &sentinel_with_tls : &sentinel, &sentinel_plan);
        if (!c->sentinels[i])
            goto out;
    }
    if (test_redis_sentinel_settle(c, 20000))
        return c;
    fprintf(stderr, "%s\n", test_server_why());
out:
    test_redis_sentinel_stop(c);
    return NULL;
}

void test_redis_sentinel_stop(struct test_redis_sentinel *c)
{
    if (!c)
        return;
    for (int i = 0; i < 3; i++) {
        test_server_stop(c->sentinels[i]);
        test_server_stop(c->nodes[i]);
    }
    free(c);
}
