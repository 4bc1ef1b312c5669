/* SPDX-License-Identifier: MIT */
/* pool_libperf.c - our subject of bench-pool: connections that cost nothing to open. */
#include <libperf/pool.h>

#include "pool_subject.h"

static perf_pool *pool;

static int open_connection(void *ctx, const char *key, int64_t timeout_ms, void **conn)
{
    (void)ctx, (void)key, (void)timeout_ms;
    *conn = malloc(16);
    return *conn ? PERF_OK : PERF_ENOMEM;
}

static void close_connection(void *ctx, void *conn)
{
    (void)ctx;
    free(conn);
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static void acquire(void **conn)
{
    if (perf_pool_acquire(pool, 30000, conn) != PERF_OK)
        fail("acquire");
}

static void release(void *conn)
{
    if (perf_pool_release(pool, conn) != PERF_OK)
        fail("release");
}

static void *body(void *argument)
{
    struct pool_thread *thread = argument;
    void *conn;
    POOL_LOOP(thread, acquire(&conn), release(conn))
    return NULL;
}

int main(int argc, char **argv)
{
    static struct pool_run run;
    perf_connection_vtable vtable = {sizeof vtable, open_connection, close_connection, NULL, NULL,
                                     NULL};
    perf_pool_options options = PERF_POOL_OPTIONS_INIT;
    perf_pool_stats stats = PERF_POOL_STATS_INIT;
    pool_arguments(&run, argc, argv);
    options.vtable = &vtable;
    options.max_size = options.min_idle = (uint64_t)run.connections;
    options.start = PERF_POOL_START_FAIL_FAST;
    if (perf_pool_open(&options, &pool) != PERF_OK)
        fail("open");
    do { /* all are open before anybody asks */
        pool_sleep_us(1000);
        if (perf_pool_get_stats(pool, &stats) != PERF_OK)
            fail("stats");
    } while (stats.idle < options.min_idle);
    int rc = pool_main(&run, body);
    if (perf_pool_close(pool) != PERF_OK)
        fail("close");
    return rc;
}
