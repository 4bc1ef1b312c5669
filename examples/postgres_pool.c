/* SPDX-License-Identifier: MIT */
/*
 * postgres_pool.c - a pool of PostgreSQL connections, by libpq.
 *
 *     cc postgres_pool.c $(pkg-config --cflags --libs libperf libpq) -pthread
 *     ./a.out [CONNINFO [SECONDS]]
 *
 * CONNINFO is what libpq takes ("host=localhost user=me"); by default it looks at PGHOST and its
 * kin. Eight threads share four connections, first for some queries and then for SECONDS. Restart
 * the server meanwhile: each change between "it works" and "it does not, because" is a line.
 * Without a server that answers it says so, and ends with 0.
 */
#include <libperf/macros.h>
#include <libperf/pool.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 8, CONNECTIONS = 4, QUERIES = 500 };

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* -------------------------------------------------------------- connections */

/* Waits for the socket, until deadline_ms. */
static int wait_for(PGconn *db, short events, int64_t deadline_ms)
{
    int64_t left = deadline_ms - now_ms();
    struct pollfd p = {PQsocket(db), events, 0};
    return left > 0 && p.fd >= 0 && poll(&p, 1, left < 60000 ? (int)left : 60000) > 0;
}

/* Not PQconnectdb, which takes as long as it takes: the pool says how long it may be. */
static int pg_open(void *conninfo, const char *key, int64_t timeout_ms, void **out)
{
    int64_t deadline = now_ms() + timeout_ms;
    PGconn *db = PQconnectStart(conninfo);
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    (void)key;
    if (!db)
        return PERF_ENOMEM;
    while (PQstatus(db) != CONNECTION_BAD && state != PGRES_POLLING_OK &&
           state != PGRES_POLLING_FAILED) {
        if (!wait_for(db, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
            break;
        state = PQconnectPoll(db);
    }
    if (state == PGRES_POLLING_OK && PQstatus(db) == CONNECTION_OK) {
        *out = db;
        return PERF_OK;
    }
    PQfinish(db);
    return now_ms() < deadline ? PERF_EUNAVAILABLE : PERF_ETIMEDOUT;
}

static void pg_close(void *ctx, void *db)
{
    (void)ctx;
    PQfinish(db);
}

/* An empty query: one round trip, and the server does nothing. */
static int pg_validate(void *ctx, void *conn, int64_t timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    PGconn *db = conn;
    PGresult *result;
    int rc = PERF_EIO;
    (void)ctx;
    if (!PQsendQuery(db, ""))
        return PERF_EIO;
    while (PQisBusy(db))
        if (!wait_for(db, POLLIN, deadline) || !PQconsumeInput(db))
            return PERF_EIO;
    while ((result = PQgetResult(db))) {
        if (PQresultStatus(result) == PGRES_EMPTY_QUERY)
            rc = PERF_OK;
        PQclear(result);
    }
    return rc;
}

/* The next borrower finds no transaction of ours. A broken connection fails here by itself. */
static int pg_reset(void *ctx, void *conn)
{
    PGconn *db = conn;
    (void)ctx;
    if (PQstatus(db) != CONNECTION_OK)
        return PERF_EIO;
    if (PQtransactionStatus(db) == PQTRANS_IDLE)
        return PERF_OK;
    PGresult *result = PQexec(db, "ROLLBACK");
    int rc = PQresultStatus(result) == PGRES_COMMAND_OK ? PERF_OK : PERF_EIO;
    PQclear(result);
    return rc;
}

static int pg_fd(void *ctx, void *conn)
{
    (void)ctx;
    return PQsocket(conn);
}

/* ------------------------------------------------------------------ queries */

/* The sum of two numbers, by the server. A code says what to do: PERF_EIO, ask again with another
 * connection; PERF_EUNAVAILABLE, the server is away; PERF_ETIMEDOUT, too much to do. */
static int add(perf_pool *pool, int a, int b, int *sum)
{
    char left[16], right[16];
    const char *values[] = {left, right};
    int rc = PERF_EIO;
    snprintf(left, sizeof left, "%d", a);
    snprintf(right, sizeof right, "%d", b);
    PERF_BORROW(pool, PGconn *, db, /* timeout_ms */ 1000) {
        PGresult *result =
            PQexecParams(db, "SELECT $1::int + $2::int", 2, NULL, values, NULL, NULL, 0);
        if (PQresultStatus(result) == PGRES_TUPLES_OK) {
            *sum = atoi(PQgetvalue(result, 0, 0));
            rc = PERF_OK;
        }
        PQclear(result);
        if (PQstatus(db) != CONNECTION_OK)
            PERF_BORROW_BROKEN(db);
    } else {
        rc = PERF_BORROW_STATUS(db);
    }
    return rc;
}

struct job {
    perf_pool *pool;
    int64_t until_ms; /* 0: QUERIES of them */
    _Atomic int last; /* the latest outcome, to tell when it changes */
    _Atomic int worked, failed, wrong;
};

static void *work(void *argument)
{
    struct job *job = argument;
    for (int i = 0; job->until_ms ? now_ms() < job->until_ms : i < QUERIES; i++) {
        int sum = -1, rc = add(job->pool, i, 1000, &sum);
        if (rc == PERF_OK)
            atomic_fetch_add(sum == i + 1000 ? &job->worked : &job->wrong, 1);
        else
            atomic_fetch_add(&job->failed, 1);
        if (job->until_ms && atomic_exchange(&job->last, rc) != rc) {
            printf("%s%s%s\n", perf_strstatus(rc), rc ? ": " : "", rc ? perf_strerror(rc) : "");
            fflush(stdout);
        }
        if (job->until_ms)
            poll(NULL, 0, 5);
    }
    return NULL;
}

static int run(struct job *job)
{
    pthread_t threads[THREADS];
    int started = 0;
    while (started < THREADS && !pthread_create(&threads[started], NULL, work, job))
        started++;
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return started == THREADS;
}

static void show(perf_pool *pool)
{
    perf_pool_stats s = PERF_POOL_STATS_INIT;
    perf_pool_get_stats(pool, &s);
    printf("borrowed %llu, opened %llu, failed to open %llu; closed: by peer %llu, discarded %llu, "
           "invalid %llu\n",
           (unsigned long long)s.acquires, (unsigned long long)s.opened,
           (unsigned long long)s.open_failures, (unsigned long long)s.closed_by_peer,
           (unsigned long long)s.closed_discarded, (unsigned long long)s.closed_invalid);
}

int main(int argc, char **argv)
{
    static char none[] = "";
    perf_connection_vtable vtable = {sizeof vtable, pg_open,  pg_close,
                                     pg_validate,   pg_reset, pg_fd};
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    perf_pool *pool = NULL;
    struct job job = {0};
    int failed = 0;
    options.vtable = &vtable;
    options.ctx = argc > 1 ? argv[1] : none;
    options.max_size = CONNECTIONS;
    options.open_timeout_ms = 3000;
    options.start = PERF_POOL_START_FAIL_FAST;
    int rc = perf_pool_open(&options, &pool);
    if (rc == PERF_EUNAVAILABLE || rc == PERF_ETIMEDOUT) {
        printf("No PostgreSQL answers (%s).\nStart one and name it: %s 'host=localhost user=me'\n",
               perf_strstatus(rc), argv[0]);
        return 0;
    }
    if (rc) {
        fprintf(stderr, "%s\n", perf_last_error());
        return 1;
    }

    job.pool = pool;
    if (!run(&job))
        return 1;
    printf("%d threads, %d connections at most: %d queries worked, %d failed, %d wrong\n", THREADS,
           CONNECTIONS, atomic_load(&job.worked), atomic_load(&job.failed),
           atomic_load(&job.wrong));
    failed = atomic_load(&job.failed) || atomic_load(&job.wrong);
    show(pool);

    if (argc > 2) {
        int sum = 0;
        job.until_ms = now_ms() + (int64_t)(1000 * atof(argv[2]));
        job.last = PERF_MISS;
        if (!run(&job))
            return 1;
        rc = add(pool, 1, 2, &sum);
        printf("at the end: %s, %d worked, %d failed, %d wrong\n", perf_strstatus(rc),
               atomic_load(&job.worked), atomic_load(&job.failed), atomic_load(&job.wrong));
        failed = rc || sum != 3 || atomic_load(&job.wrong);
        show(pool);
    }
    rc = perf_pool_close(pool);
    return failed || rc;
}
