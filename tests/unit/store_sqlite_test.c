/* SPDX-License-Identifier: MIT */
/* The SQLite backend: promises, bound, foreign and damaged files, several connections. */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "seams.h"
#include "store_conformance.h"
#include "test.h"

struct fixture {
    struct perf__host host;
    perf_tier_options tier;
    char *path;
    struct perf__store *store;
};

static void set_up(struct fixture *f)
{
    *f = (struct fixture){.tier = PERF_TIER_OPTIONS_INIT, .path = test_temp_file("tier.db")};
    cr_assert(perf__host_take(NULL, &f->host) == PERF_OK);
    f->tier.backend = "sqlite";
    f->tier.location = f->path;
    f->tier.max_bytes = 64 << 20;
    f->tier.timeout_ms = 2000;
}

static int open_store(struct fixture *f)
{
    return perf__store_open(&f->tier, &f->host, &f->store);
}

static void tear_down(struct fixture *f)
{
    perf__store_close(f->store);
    test_remove_dir_of(f->path);
}

static int put(struct perf__store *store, uint64_t n, const void *data, size_t len, int64_t expire)
{
    struct test_key key;
    perf_store_op op = test_set(&key, n, data, len, expire);
    return perf__store_apply(store, &op, 1);
}

static bool has(struct fixture *f, uint64_t n, const void *data, size_t len)
{
    return test_has(f->store, &f->host.allocator, n, data, len);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    cr_assert(sqlite3_open(path, &db) == SQLITE_OK);
    cr_assert(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

static off_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? -1 : st.st_size;
}

Test(sqlite, keeps_the_promises_of_a_store)
{
    struct fixture f;
    set_up(&f);
    store_conformance(&f.tier);
    f.tier.sync = PERF_SYNC_FULL;
    unlink(f.path);
    store_conformance(&f.tier);
    tear_down(&f);
}

Test(sqlite, files_are_private)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    cr_assert(put(f.store, 1, "x", 1, 0) == PERF_OK);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        char name[512];
        struct stat st;
        snprintf(name, sizeof name, "%s%s", f.path, suffixes[i]);
        cr_assert(!stat(name, &st) && (st.st_mode & 0777) == 0600, "%s", name);
    }
    tear_down(&f);
}

Test(sqlite, a_refused_batch_leaves_nothing)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    struct test_key one, two;
    perf_store_op ops[2] = {test_set(&one, 1, "x", 1, 0), test_set(&two, 2, "y", 1, 0)};
    ops[1].kind = 99;
    cr_assert(perf__store_apply(f.store, ops, 2) == PERF_EINVAL);
    cr_assert(!has(&f, 1, "x", 1));
    ops[1].kind = PERF_STORE_SET;
    size_t len = 33 << 20;
    char *big = calloc(1, len);
    ops[1].record = (perf_bytes){big, len};
    cr_assert(perf__store_apply(f.store, ops, 2) == PERF_ETOOBIG);
    cr_assert(!has(&f, 1, "x", 1));
    free(big);
    tear_down(&f);
}

/* The file, its log, and what usage() says all stay within the bound while ten times as much is
 * written; what was read lately is kept rather than what was not. */
Test(sqlite, the_bound_holds)
{
    enum { BOUND = 2 << 20, RECORDS = 20000, HOT = 100 };
    struct fixture f;
    set_up(&f);
    f.tier.max_bytes = BOUND;
    cr_assert(open_store(&f) == PERF_OK);
    static unsigned char data[4000];
    perf_store_op ops[16];
    struct test_key keys[16];
    size_t filled = 0;
    for (uint64_t n = 0; n < RECORDS; n++) {
        size_t len = (size_t)(n * 2654435761u % sizeof data);
        ops[filled] = test_set(&keys[filled], n, data, len, 0);
        if (++filled == 16) {
            cr_assert(perf__store_apply(f.store, ops, filled) == PERF_OK, "%s", perf_last_error());
            filled = 0;
            cr_assert(size_of(f.path) <= BOUND, "the file has %lld bytes",
                      (long long)size_of(f.path));
            for (uint64_t hot = 0; hot < HOT && n > HOT; hot += 7)
                has(&f, hot, data, (size_t)(hot * 2654435761u % sizeof data));
        }
    }
    char log[512];
    snprintf(log, sizeof log, "%s-wal", f.path);
    cr_assert(size_of(log) <= BOUND, "the log has %lld bytes", (long long)size_of(log));
    perf_store_usage usage;
    cr_assert(perf__store_usage(f.store, &usage) == PERF_OK);
    cr_assert(usage.bytes <= BOUND && usage.bytes > BOUND / 2, "%llu bytes",
              (unsigned long long)usage.bytes);
    cr_assert(usage.records > 300 && usage.evictions == RECORDS - usage.records,
              "%llu records, %llu evicted", (unsigned long long)usage.records,
              (unsigned long long)usage.evictions);
    int read_and_kept = 0, unread_and_kept = 0;
    for (uint64_t n = 0; n < HOT; n++) {
        bool kept = has(&f, n, data, (size_t)(n * 2654435761u % sizeof data));
        *(n % 7 ? &unread_and_kept : &read_and_kept) += kept;
    }
    cr_assert(read_and_kept >= 14, "%d of 15 hot records kept", read_and_kept);
    cr_assert(unread_and_kept <= 8, "%d of 85 cold records kept", unread_and_kept);
    tear_down(&f);
}

Test(sqlite, a_lowered_bound_is_reached_by_sweeping)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    static char data[1000];
    for (uint64_t n = 0; n < 1000; n++)
        cr_assert(put(f.store, n, data, sizeof data, 0) == PERF_OK);
    perf__store_close(f.store);
    f.tier.max_bytes = 256 << 10;
    cr_assert(open_store(&f) == PERF_OK);
    size_t removed;
    int sweeps = 0;
    do {
        cr_assert(perf__store_sweep(f.store, 0, 50, &removed) == PERF_OK);
        cr_assert(removed <= 50, "%zu removed", removed);
    } while (removed && ++sweeps < 1000);
    perf_store_usage usage;
    cr_assert(perf__store_usage(f.store, &usage) == PERF_OK);
    cr_assert(usage.bytes <= f.tier.max_bytes && usage.records > 100);
    cr_assert(sweeps >= 10, "it took %d sweeps", sweeps);
    tear_down(&f);
}

Test(sqlite, expired_records_go_oldest_first)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    for (uint64_t n = 0; n < 10; n++)
        cr_assert(put(f.store, n, "x", 1, 100 - (int64_t)n) == PERF_OK);
    size_t removed;
    cr_assert(perf__store_sweep(f.store, 100, 3, &removed) == PERF_OK && removed == 3);
    cr_assert(has(&f, 0, "x", 1) && has(&f, 6, "x", 1) && !has(&f, 7, "x", 1));
    cr_assert(put(f.store, 0, "x", 1, 0) == PERF_OK);
    cr_assert(perf__store_sweep(f.store, 1000, 100, &removed) == PERF_OK && removed == 6);
    cr_assert(has(&f, 0, "x", 1), "a new life counts, not the old one");
    perf_store_usage usage;
    cr_assert(perf__store_usage(f.store, &usage) == PERF_OK);
    cr_assert(usage.expired == 9 && usage.records == 1);
    tear_down(&f);
}

Test(sqlite, a_foreign_database_is_left_alone)
{
    struct fixture f;
    set_up(&f);
    run_sql(f.path, "CREATE TABLE theirs(x); INSERT INTO theirs VALUES(1)");
    off_t before = size_of(f.path);
    cr_assert(open_store(&f) == PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), f.path) && strstr(perf_last_error(), "another program"),
              "%s", perf_last_error());
    cr_assert(size_of(f.path) == before);
    run_sql(f.path, "INSERT INTO theirs SELECT x+1 FROM theirs");
    tear_down(&f);
}

Test(sqlite, another_layout_or_format_is_refused)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    perf__store_close(f.store);
    f.store = NULL;
    run_sql(f.path, "PRAGMA user_version=2");
    cr_assert(open_store(&f) == PERF_EINVAL && strstr(perf_last_error(), "format 2"), "%s",
              perf_last_error());
    run_sql(f.path, "PRAGMA user_version=1; CREATE TRIGGER t AFTER INSERT ON records BEGIN "
                    "DELETE FROM marks; END");
    cr_assert(open_store(&f) == PERF_ECORRUPT, "%s", perf_last_error());
    run_sql(f.path, "DROP TRIGGER t; DROP TABLE marks; CREATE TABLE marks(kind, name, stamp)");
    cr_assert(open_store(&f) == PERF_ECORRUPT && strstr(perf_last_error(), "tables"), "%s",
              perf_last_error());
    tear_down(&f);
}

Test(sqlite, a_text_file_is_left_alone)
{
    struct fixture f;
    set_up(&f);
    FILE *file = fopen(f.path, "w");
    for (int i = 0; i < 100; i++)
        fprintf(file, "line %d of a novel that nobody wants to lose\n", i);
    fclose(file);
    off_t before = size_of(f.path);
    cr_assert(open_store(&f) == PERF_ECORRUPT);
    cr_assert(strstr(perf_last_error(), f.path) && strstr(perf_last_error(), "move it away"), "%s",
              perf_last_error());
    cr_assert(size_of(f.path) == before);
    tear_down(&f);
}

/* Whatever the damage, calls fail with a code and a sentence, or find less; they never crash and
 * never invent. */
Test(sqlite, damage_is_an_error_that_names_file_and_fix)
{
    enum { RECORDS = 500 };
    struct fixture f;
    set_up(&f);
    static char data[600];
    int corrupt = 0;
    for (int seed = 0; seed < 20; seed++) {
        unlink(f.path);
        cr_assert(open_store(&f) == PERF_OK, "%s", perf_last_error());
        for (uint64_t n = 0; n < RECORDS; n++)
            cr_assert(put(f.store, n, data, sizeof data, 0) == PERF_OK);
        perf__store_close(f.store);
        f.store = NULL;
        int fd = open(f.path, O_RDWR);
        cr_assert(fd >= 0);
        off_t size = size_of(f.path);
        char junk[4096];
        memset(junk, 0x5a + seed, sizeof junk);
        for (int page = 1; page < 8; page++) {
            off_t at = (seed * 7919 + page * 104729) % (size / 4096) * 4096;
            if (at || seed % 5 == 0)
                cr_assert(pwrite(fd, junk, sizeof junk, at) == (ssize_t)sizeof junk);
        }
        close(fd);
        int rc = open_store(&f);
        if (!rc) {
            for (uint64_t n = 0; n < RECORDS; n++) {
                struct test_key own;
                perf_store_key key = test_key(&own, n);
                perf_store_reply reply = {.allocator = &f.host.allocator};
                int one = perf__store_get(f.store, &key, &reply);
                cr_assert(one == PERF_OK || one == PERF_MISS || one == PERF_ECORRUPT, "%d", one);
                rc = one < 0 ? one : rc;
                perf__reply_free(&reply);
            }
            size_t removed;
            perf__store_sweep(f.store, INT64_MAX, 1000, &removed);
            put(f.store, 1, data, sizeof data, 5);
        }
        if (rc) {
            cr_assert(rc == PERF_ECORRUPT, "%d: %s", rc, perf_last_error());
            cr_assert(strstr(perf_last_error(), f.path), "%s", perf_last_error());
            corrupt++;
        }
        perf__store_close(f.store);
        f.store = NULL;
    }
    cr_assert(corrupt >= 15, "only %d of 20 damaged files were noticed", corrupt);
    tear_down(&f);
}

Test(sqlite, two_connections_see_each_other)
{
    struct fixture f;
    set_up(&f);
    cr_assert(open_store(&f) == PERF_OK);
    struct perf__store *other;
    cr_assert(perf__store_open(&f.tier, &f.host, &other) == PERF_OK, "%s", perf_last_error());
    for (uint64_t n = 0; n < 200; n++)
        cr_assert(put(n % 2 ? f.store : other, n, &n, sizeof n, 0) == PERF_OK);
    for (uint64_t n = 0; n < 200; n++)
        cr_assert(test_has(n % 2 ? other : f.store, &f.host.allocator, n, &n, sizeof n));
    perf__store_close(other);
    cr_assert(put(f.store, 999, "still", 5, 0) == PERF_OK);
    perf_store_usage usage;
    cr_assert(perf__store_usage(f.store, &usage) == PERF_OK && usage.records == 201);
    tear_down(&f);
}

Test(sqlite, a_held_lock_is_busy_after_the_timeout)
{
    struct fixture f;
    set_up(&f);
    f.tier.timeout_ms = 20;
    cr_assert(open_store(&f) == PERF_OK);
    cr_assert(put(f.store, 1, "x", 1, 5) == PERF_OK);
    sqlite3 *db;
    cr_assert(sqlite3_open(f.path, &db) == SQLITE_OK);
    cr_assert(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    cr_assert(put(f.store, 2, "y", 1, 0) == PERF_EBUSY);
    cr_assert(strstr(perf_last_error(), "timeout_ms"), "%s", perf_last_error());
    cr_assert(has(&f, 1, "x", 1), "readers do not wait for writers");
    size_t removed;
    cr_assert(perf__store_sweep(f.store, 10, 10, &removed) == PERF_OK && !removed,
              "upkeep gives way");
    cr_assert(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    cr_assert(put(f.store, 2, "y", 1, 0) == PERF_OK);
    tear_down(&f);
}

Test(sqlite, bad_locations_and_bounds_are_named)
{
    struct fixture f;
    set_up(&f);
    f.tier.location = NULL;
    cr_assert(open_store(&f) == PERF_EINVAL && strstr(perf_last_error(), "location"));
    f.tier.location = "/no/such/directory/tier.db";
    cr_assert(open_store(&f) == PERF_EIO && strstr(perf_last_error(), "/no/such/directory"));
    f.tier.location = "/tmp";
    cr_assert(open_store(&f) == PERF_EINVAL && strstr(perf_last_error(), "regular file"));
    f.tier.location = f.path;
    f.tier.max_bytes = 100;
    cr_assert(open_store(&f) == PERF_EINVAL && strstr(perf_last_error(), "max_bytes"));
    tear_down(&f);
}

/* SQLite would read these names as a database in memory and as a URI. */
Test(sqlite, odd_names_are_files)
{
    struct fixture f;
    set_up(&f);
    char dir[512];
    snprintf(dir, sizeof dir, "%s", f.path);
    *strrchr(dir, '/') = '\0';
    cr_assert(!chdir(dir));
    static const char *const names[] = {":memory:", "file:x?mode=memory"};
    for (size_t i = 0; i < 2; i++) {
        f.tier.location = names[i];
        cr_assert(open_store(&f) == PERF_OK, "%s", perf_last_error());
        cr_assert(put(f.store, 1, "x", 1, 0) == PERF_OK);
        perf__store_close(f.store);
        f.store = NULL;
        cr_assert(size_of(names[i]) > 0, "%s", names[i]);
        cr_assert(open_store(&f) == PERF_OK && has(&f, 1, "x", 1));
        perf__store_close(f.store);
        f.store = NULL;
        unlink(names[i]);
    }
    cr_assert(!chdir("/"));
    tear_down(&f);
}

Test(sqlite, failing_allocations_leave_nothing_behind)
{
    struct fixture f;
    set_up(&f);
    struct test_host th;
    cr_assert(perf__host_take(test_host_init(&th), &f.host) == PERF_OK);
    int64_t failures = 0;
    for (int64_t at = 1; at < 100; at++) {
        th.fail_at = at;
        int rc = open_store(&f);
        int64_t missed = th.fail_at;
        th.fail_at = 0;
        if (!rc) {
            cr_assert(missed > 0);
            break;
        }
        cr_assert(rc == PERF_ENOMEM, "%s", perf_last_error());
        cr_assert(th.live == 0, "%lld blocks leaked", (long long)th.live);
        failures++;
    }
    cr_assert(failures >= 3);
    tear_down(&f);
    cr_assert(th.live == 0);
}
