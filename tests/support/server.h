/* SPDX-License-Identifier: MIT */
/*
 * server.h - real servers for tests, on free loopback ports.
 *
 *     struct test_server *db = test_server_dynamodb();
 *     if (!db)
 *         PERF_TEST_SKIP(test_server_why());
 *     ... db->url ...
 *     test_server_stop(db);
 *
 * A test_server_*() returns when the server answers; NULL means that it could not be installed or
 * started, and test_server_why() says why. What is installed once, by
 * tests/support/servers/NAME.sh, lands in build/ and is pinned there.
 *
 * A server runs in a process group and a directory of its own. Its guard, a shell that waits for
 * the other end of a pipe to close, ends the one and removes the other when the test dies, however
 * that happens, and then shows the end of the server's log. Ports lie below those that the kernel
 * gives to clients and are reserved as long as the server is held, so that it can be restarted on
 * the same ones. All of this may be used from several threads, but one server only from one at a
 * time.
 *
 * A new kind of server is one file in tests/support/servers/: fill a struct test_server_kind and
 * call test_server_start.
 */
#ifndef TESTS_SERVER_H
#define TESTS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TEST_SERVER_PORTS 4
#define TEST_SERVER_ARGS  48

struct test_server;

struct test_server_kind {
    const char *name;
    int ports;                              /* how many it listens on; 1 if 0 */
    int deadline_ms;                        /* from start to ready; 10,000 if 0 */
    int stop_signal;                        /* how it is asked to end; SIGKILL if 0 */
    const char *scheme;                     /* of url; "http" if NULL */
    bool as_nobody;                         /* when root, run it as the user "nobody" */
    bool (*prepare)(struct test_server *s); /* once, before the first start: files, arguments */
    bool (*ready)(struct test_server *s);   /* after the ports accept; asked until true */
};

struct test_server {
    const struct test_server_kind *kind;
    char dir[64];                 /* its directory: files, log, sockets */
    int port;                     /* the first of the ports */
    int ports[TEST_SERVER_PORTS]; /* all on 127.0.0.1 */
    char url[64];                 /* scheme://127.0.0.1:port */
    char access_key[64];          /* moto: a user that may do everything */
    char secret_key[64];          /* of that user; Redis: the password */
    pid_t pid;                    /* leader of its process group; 0 while it does not run */

    /* for kinds: */
    char *args[TEST_SERVER_ARGS]; /* program and arguments, made by test_server_arg */
    char *env[TEST_SERVER_ARGS];  /* added to the environment, made by test_server_env */
    const void *given;            /* what the starter handed to test_server_start */
    /* for server.c: */
    int reserved[TEST_SERVER_PORTS];
    pid_t guard;
    int to_guard;
};

/* Why the last test_server_*() of this thread returned NULL or false; "" if none did. */
const char *test_server_why(void);

/* Ends the server, waits for it, removes its directory. NULL is no server. */
void test_server_stop(struct test_server *s);
/* kill -9, and waits for its end; the directory and the ports are kept. */
void test_server_kill(struct test_server *s);
/* Starts it again on the same ports, killing it before if it runs. */
bool test_server_restart(struct test_server *s);
/* SIGSTOP and SIGCONT. The kernel still accepts a paused server's connections, up to its backlog.
 */
void test_server_pause(struct test_server *s);
void test_server_resume(struct test_server *s);
/* Prints the last lines of the server's output on stderr. */
void test_server_log(const struct test_server *s);
/* The path of a file in the server's directory; valid until the next call in the thread. */
const char *test_server_file(const struct test_server *s, const char *name);

/* ------------------------------------------------------------------ the servers */

/*
 * nginx. http is the inside of its http {} block, in which @PORT@, @PORT2@, @PORT3@ and @PORT4@ are
 * ports of its own, @UPSTREAM@ is the number given, and @DIR@ is its directory. A block that names
 * @DIR@/cert.pem finds there a certificate for localhost and 127.0.0.1 and its key.pem, signed by
 * ca.pem, and other.pem for other.example with the same key and CA. What it logs about
 * requests is in access.log.
 */
struct test_server *test_server_nginx(const char *http, int upstream);
/*
 * nginx in front of another server: lets `rate` ("10r/s") and a burst of `burst` requests through
 * and answers the others as a throttling DynamoDB does: 400 with
 * ProvisionedThroughputExceededException and its x-amz-crc32.
 */
struct test_server *test_server_throttle(int upstream, const char *rate, int burst);
/*
 * moto, which acts S3, SQS, CloudWatch, STS, IAM, Bedrock and more, and checks signatures. A
 * restart forgets all, and access_key and secret_key are new. It takes some 2 s of CPU to start, as
 * does DynamoDB Local twice that: one of them had better serve several checks.
 */
struct test_server *test_server_moto(void);
/* The Python that has boto3 and moto, or NULL. */
const char *test_server_python(void);
/* DynamoDB Local, in memory. It takes any credentials. */
struct test_server *test_server_dynamodb(void);
/* The same, in a file: what it acknowledged outlives kill -9. It writes several times slower. */
struct test_server *test_server_dynamodb_kept(void);
/* PostgreSQL: user and database "postgres", no password, also on a Unix socket in s->dir. */
struct test_server *test_server_postgres(void);

/* What a Redis server is asked to be; NULL or zeroes: open to all, in memory only. */
struct test_redis {
    const char *password;      /* of the user "default" */
    const char *user;          /* an ACL user besides, who may do all */
    const char *user_password; /* its password */
    bool tls;                  /* it speaks TLS only: certificates as nginx's, see above */
    bool client_certificates;  /* with TLS: and wants one that ca.pem signed, such as cert.pem */
    bool appendonly;           /* what it acknowledged outlives kill -9 */
    const char *sentinel_password; /* test_redis_sentinel: of the sentinels themselves */
    const char *config;            /* more lines of redis.conf, each with its \n */
};
/* Redis, also on the Unix socket redis.sock in s->dir, which speaks plainly even with TLS. */
struct test_server *test_server_redis(const struct test_redis *asked);
/*
 * Runs redis-cli against a server, a node or a sentinel, with words as a shell reads them. Returns
 * malloc'd text without the \n at its end, or NULL if no answer came within 5 s; an error reply is
 * an answer.
 */
char *test_redis_cli(const struct test_server *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Whether redis-cli's answer is this one. */
bool test_redis_says(const struct test_server *s, const char *wanted, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * A Redis Cluster: nodes 0, 1 and 2 begin as masters of a third of the slots each, nodes 3, 4 and 5
 * as their replicas in that order. Each is a server of its own, which can be killed, restarted and
 * paused; a master that is gone is succeeded after some 2 to 3 s.
 */
#define TEST_REDIS_NODES 6
struct test_redis_cluster {
    struct test_server *nodes[TEST_REDIS_NODES];
};
struct test_redis_cluster *test_redis_cluster(const struct test_redis *asked);
/*
 * Waits until every node that runs says that the cluster is well, knows all others that run, and is
 * in step with its master if it has one.
 */
bool test_redis_cluster_settle(struct test_redis_cluster *c, int ms);
void test_redis_cluster_stop(struct test_redis_cluster *c);

/*
 * Redis under Sentinel: node 0 begins as the master "tested", nodes 1 and 2 as its replicas, and of
 * three sentinels two have to agree. A master that is gone is succeeded after some 1 to 2 s.
 */
struct test_redis_sentinel {
    struct test_server *nodes[3];
    struct test_server *sentinels[3];
};
struct test_redis_sentinel *test_redis_sentinel(const struct test_redis *asked);
/* The index in nodes of the master that most sentinels name, or -1. */
int test_redis_sentinel_master(const struct test_redis_sentinel *c);
/*
 * Waits until all sentinels that run name one master, which runs, and all nodes that run are the
 * master or in step with it.
 */
bool test_redis_sentinel_settle(struct test_redis_sentinel *c, int ms);
void test_redis_sentinel_stop(struct test_redis_sentinel *c);

/*
 * toxiproxy: its control port is s->port, its one proxy listens on s->ports[1]. A restart forgets
 * the toxics.
 */
struct test_server *test_server_toxiproxy(int upstream);
/*
 * Adds a toxic under a name, to what the server sends (downstream) or what it is sent.
 *     test_toxic_add(s, "slow", "latency", true, "\"latency\": 500");
 * Types and their attributes: latency (latency, jitter; ms), timeout (timeout; ms, 0 for ever; it
 * also ends when the side that it listens to closes), reset_peer (timeout; ms), slow_close (delay;
 * ms), bandwidth (rate; KB/s), limit_data (bytes).
 */
bool test_toxic_add(struct test_server *s, const char *name, const char *type, bool downstream,
                    const char *attributes);
bool test_toxic_remove(struct test_server *s, const char *name);
/* The proxy refuses connections and cuts those it has, or goes on. */
bool test_toxic_enable(struct test_server *s, bool enabled);

/* ----------------------------------------------------------------- for kinds */

struct test_server *test_server_start(const struct test_server_kind *kind, const void *given);
void test_server_arg(struct test_server *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void test_server_env(struct test_server *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Sets test_server_why and returns false. */
bool test_server_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, with the last lines of a file behind a heading. */
void test_server_fail_with(const char *heading, const char *path);
/*
 * Starts a program in the server's directory, or in ours for NULL, with its input from `input` (or
 * nothing, for -1), its output into the file `log` (or to our stderr), no other descriptor, and the
 * signals as they are at birth. Returns -1 if it cannot.
 */
pid_t test_server_spawn(const struct test_server *s, char *const argv[], int input,
                        const char *log);
/* Runs a program and waits: true if it exits with 0; else why has the end of what it printed. */
bool test_server_run(struct test_server *s, const char *const argv[]);
/* Runs tests/support/servers/NAME.sh, which installs what is missing. */
bool test_server_install(const char *name);
/* Makes ca.pem, cert.pem, other.pem and key.pem in the server's directory, as nginx's has them. */
bool test_server_certificates(struct test_server *s);
/* The root of the source tree, without a slash at its end. */
const char *test_server_root(void);
/* Writes a file in the server's directory. */
bool test_server_write(struct test_server *s, const char *name, const char *text);

/* ---------------------------------------------------------------- plain HTTP */

/*
 * One request to 127.0.0.1, for the control of servers and to look behind the library's own
 * client. headers is NULL or whole lines, each with \r\n. Returns the status or 0 if no answer
 * came within 10 s; *reply, if not NULL, is the malloc'd reply with its head, or NULL.
 */
int test_http(int port, const char *method, const char *path, const char *headers, const char *body,
              char **reply);
/* Whether a connection to 127.0.0.1:port is accepted. */
bool test_port_accepts(int port);

#endif
