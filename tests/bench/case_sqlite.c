/* SPDX-License-Identifier: MIT */
/*
 * case_sqlite.c - reading from the SQLite tier against a bare prepared statement.
 *
 * usage: case-sqlite floor|libperf FILE KEYS OPS
 *
 * floor     one connection, WAL, 4 MiB of page cache as the tier has, no mutex; one prepared
 *           SELECT by a 16-byte primary key in a loop.
 * libperf   a namespace that uses the tier below memory only, so that each get reads the file.
 *
 * Both store the same 64-byte values, read keys evenly at random, and copy the value out.
 */
#include <libperf/cache.h>

#include <sqlite3.h>

#include "protocol.h"

static sqlite3 *db;
static sqlite3_stmt *statement;
static perf_cache *cache;

static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "case-sqlite: %s: %s\n", what,
                db != NULL ? sqlite3_errmsg(db) : perf_last_error());
        exit(1);
    }
}

static void floor_open(const char *path, uint32_t keys)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    must(sqlite3_open_v2(path, &db, flags, NULL) == SQLITE_OK, "open");
    must(sqlite3_exec(db,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-4096;"
                      "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;"
                      "BEGIN",
                      NULL, NULL, NULL) == SQLITE_OK,
         "create");
    must(sqlite3_prepare_v2(db, "INSERT INTO kv VALUES (?, ?)", -1, &statement, NULL) == SQLITE_OK,
         "prepare");
    for (uint32_t i = 0; i < keys; i++) {
        struct bench_key key = bench_make_key(i);
        struct bench_value value = bench_make_value(&key);
        sqlite3_bind_blob(statement, 1, &key, sizeof key, SQLITE_STATIC);
        sqlite3_bind_blob(statement, 2, &value, sizeof value, SQLITE_STATIC);
        must(sqlite3_step(statement) == SQLITE_DONE, "insert");
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    must(sqlite3_exec(db, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) == SQLITE_OK,
         "commit");
    must(sqlite3_prepare_v3(db, "SELECT v FROM kv WHERE k = ?", -1, SQLITE_PREPARE_PERSISTENT,
                            &statement, NULL) == SQLITE_OK,
         "prepare");
}

static int floor_get(const struct bench_key *key, struct bench_value *out)
{
    int found = 0;
    sqlite3_bind_blob(statement, 1, key, sizeof *key, SQLITE_STATIC);
    if (sqlite3_step(statement) == SQLITE_ROW &&
        sqlite3_column_bytes(statement, 0) == (int)sizeof *out) {
        memcpy(out, sqlite3_column_blob(statement, 0), sizeof *out);
        found = 1;
    }
    sqlite3_reset(statement);
    return found;
}

static void tier_open(const char *path, uint32_t keys)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.backend = "sqlite";
    tier.location = path;
    tier.write_mode = PERF_WRITE_BEHIND; /* for the filling only */
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    options.tiers = &tier;
    options.tier_count = 1;
    must(perf_cache_open(&options, &cache) == PERF_OK, "open");
    perf_namespace_options below = PERF_NAMESPACE_OPTIONS_INIT;
    below.tiers = 2; /* bit 1: the first tier below memory, and not memory */
    must(perf_cache_configure_namespace(cache, "bench", &below) == PERF_OK, "namespace");
    for (uint32_t i = 0; i < keys; i++) {
        struct bench_key key = bench_make_key(i);
        struct bench_value value = bench_make_value(&key);
        must(perf_cache_set(cache, "bench", NULL, &key, sizeof key, &value, sizeof value,
                            PERF_TTL_FOREVER) == PERF_OK,
             "set");
    }
    must(perf_cache_flush(cache) == PERF_OK, "flush");
}

static int tier_get(const struct bench_key *key, struct bench_value *out)
{
    size_t len;
    return perf_cache_get_copy(cache, "bench", NULL, key, sizeof *key, out, sizeof *out, &len) ==
           PERF_OK;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: case-sqlite floor|libperf FILE KEYS OPS\n");
        return 2;
    }
    int is_floor = strcmp(argv[1], "floor") == 0;
    uint32_t keys = (uint32_t)strtoul(argv[3], NULL, 10);
    size_t ops = (size_t)strtoul(argv[4], NULL, 10);
    (is_floor ? floor_open : tier_open)(argv[2], keys);
    int (*get)(const struct bench_key *, struct bench_value *) = is_floor ? floor_get : tier_get;
    bench_ready();
    for (uint64_t seed = 0; bench_next_run(); seed += ops) {
        uint64_t hits = 0;
        uint64_t wrong = 0;
        uint64_t checksum = 0;
        uint64_t begin = bench_now_ns();
        for (size_t n = 0; n < ops; n++) {
            struct bench_key key = bench_make_key((uint32_t)(bench_splitmix64(seed + n) % keys));
            struct bench_value out;
            if (get(&key, &out)) {
                hits++;
                wrong += out.word[0] != key.word[0] || out.word[7] != key.word[1] + 7;
                checksum += out.word[0] + out.word[7];
            }
        }
        double ns = (double)(bench_now_ns() - begin) / (double)ops;
        printf("{\"ns\":%.1f,\"gets\":%zu,\"hits\":%" PRIu64 ",\"wrong\":%" PRIu64
               ",\"checksum\":\"%016" PRIx64 "\"}\n",
               ns, ops, hits, wrong, checksum);
        fflush(stdout);
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    perf_cache_close(cache);
    return 0;
}
