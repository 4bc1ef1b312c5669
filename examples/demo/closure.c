/* SPDX-License-Identifier: MIT */
/*
 * closure.c - the expensive question: all that a package depends on, directly
 * or not, and how much room that takes.
 *
 * Each thread asks over a connection of its own. The function is the same in
 * all phases: without a default cache its body simply runs.
 */
#include "demo.h"

#include <libperf/perf.h>
#include <sqlite3.h>
#include <stdatomic.h>

/* A name that no package has is taken for a virtual one, and its first provider is used. */
static const char QUERY[] =
    "WITH RECURSIVE closure(id) AS ("
    "  SELECT id FROM package WHERE name = ?1"
    "  UNION"
    "  SELECT coalesce(p.id,"
    "                  (SELECT min(v.package) FROM provides v WHERE v.name = d.target))"
    "  FROM closure c JOIN depends d ON d.package = c.id"
    "       LEFT JOIN package p ON p.name = d.target)"
    "SELECT p.name, p.installed_kib, count(*) OVER (), sum(p.installed_kib) OVER ()"
    "  FROM closure c JOIN package p ON p.id = c.id"
    "  ORDER BY p.installed_kib DESC, p.name LIMIT ?2";

static const char *database;              /* set once, before any thread asks */
static _Thread_local sqlite3 *connection; /* SQLite connections are not for sharing */
static _Thread_local sqlite3_stmt *query;
static _Thread_local uint64_t runs_here;
static atomic_uint_fast64_t runs;

void closure_use(const char *path)
{
    database = path;
}

uint64_t closure_runs_here(void)
{
    return runs_here;
}

uint64_t closure_runs(void)
{
    return runs;
}

void closure_thread_end(void)
{
    sqlite3_finalize(query);
    sqlite3_close(connection);
    query = NULL;
    connection = NULL;
}

static int connect_thread(void)
{
    if (query)
        return PERF_OK;
    if (sqlite3_open_v2(database, &connection, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) ==
            SQLITE_OK &&
        sqlite3_prepare_v2(connection, QUERY, -1, &query, NULL) == SQLITE_OK)
        return PERF_OK;
    closure_thread_end();
    return PERF_EIO;
}

static PERF_CACHED(closure_of, struct closure, "closures", 3600000, (const char *, package))
{
    int rc = connect_thread();
    int step;

    runs++;
    runs_here++;
    if (rc != PERF_OK)
        return rc;
    sqlite3_bind_text(query, 1, package, -1, SQLITE_STATIC);
    sqlite3_bind_int(query, 2, DEMO_BIGGEST);
    while ((step = sqlite3_step(query)) == SQLITE_ROW && out->shown < DEMO_BIGGEST) {
        const unsigned char *name = sqlite3_column_text(query, 0);

        snprintf(out->biggest[out->shown].name, sizeof out->biggest[0].name, "%.47s",
                 name ? (const char *)name : "");
        out->biggest[out->shown].kib = (uint64_t)sqlite3_column_int64(query, 1);
        out->packages = (uint32_t)sqlite3_column_int64(query, 2);
        out->installed_kib = (uint64_t)sqlite3_column_int64(query, 3);
        out->shown++;
    }
    sqlite3_reset(query);
    sqlite3_clear_bindings(query);
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        return PERF_EIO;
    return out->packages ? PERF_OK : PERF_MISS;
}

int ask_closure(const char *package, struct closure *out)
{
    return closure_of(package, out);
}
