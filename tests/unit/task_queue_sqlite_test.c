/* SPDX-License-Identifier: MIT */
/* The SQLite queue: the promises of every queue, and those of its file. */
#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "queue_conformance.h"
#include "seams.h"
#include "test.h"

static void remove_file(void *ctx)
{
    char name[512];
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", (const char *)ctx, ends[i]);
        unlink(name);
    }
}

static struct queue_conformance in_file(char *path)
{
    struct queue_conformance c = {
        .options = PERF_TASKS_OPTIONS_INIT, .empty = remove_file, .ctx = path};
    c.options.backend = "sqlite";
    c.options.location = path;
    return c;
}

Test(task_queue_sqlite, keeps_the_promises)
{
    char *path = test_temp_file("queue.db");
    struct queue_conformance c = in_file(path);
    queue_conformance(&c);
    test_remove_dir_of(path);
}

Test(task_queue_sqlite, survives_without_memory)
{
    char *path = test_temp_file("queue.db");
    struct queue_conformance c = in_file(path);
    queue_survives_no_memory(&c);
    test_remove_dir_of(path);
}

/* ------------------------------------------------------------------- the file */

static struct perf__host host;

static int open_at(const char *path, struct perf__task_queue **queue)
{
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.location = path; /* and the default backend */
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    return perf__task_queue_open(&options, &host, queue);
}

static int put(struct perf__task_queue *queue, const char *id, void *transaction)
{
    int status;
    perf_queue_task task = test_queue_task(id, 1000);
    perf__task_queue_enqueue(queue, &task, 1, transaction, 1000, &status, NULL);
    return status;
}

static int get(struct perf__task_queue *queue, const char *id)
{
    perf_queue_reply reply = {.allocator = &host.allocator};
    int rc = perf__task_queue_get(queue, id, &reply);
    perf__queue_reply_free(&reply);
    return rc;
}

static int claim(struct perf__task_queue *queue)
{
    perf_queue_reply reply = {.allocator = &host.allocator};
    const char *name = "q";
    perf_queue_kind kind = {"k", 0, 0};
    perf_queue_claim want = {sizeof want, &name, 1, &kind, 1, 10, "w", 1000, 1000};
    int rc = perf__task_queue_claim(queue, &want, &reply);
    perf__queue_reply_free(&reply);
    return rc;
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    cr_assert(sqlite3_open(path, &db) == SQLITE_OK);
    cr_assert(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

Test(task_queue_sqlite, full_sync_is_taken)
{
    char *path = test_temp_file("queue.db");
    struct queue_conformance c = in_file(path);
    struct perf__task_queue *queue;
    c.options.sync = PERF_SYNC_FULL;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    cr_assert(perf__task_queue_open(&c.options, &host, &queue) == PERF_OK);
    cr_assert(put(queue, "a", NULL) == PERF_OK && claim(queue) == PERF_OK);
    perf__task_queue_close(queue);
    test_remove_dir_of(path);
}

Test(task_queue_sqlite, tasks_survive_and_files_are_private)
{
    char *path = test_temp_file("queue.db");
    struct perf__task_queue *queue;
    cr_assert(open_at(path, &queue) == PERF_OK, "%s", perf_last_error());
    cr_assert(put(queue, "a", NULL) == PERF_OK);
    perf__task_queue_close(queue);
    struct stat st;
    cr_assert(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    cr_assert(open_at(path, &queue) == PERF_OK);
    cr_assert(get(queue, "a") == PERF_OK && claim(queue) == PERF_OK);
    perf__task_queue_close(queue);
    test_remove_dir_of(path);
}

/* Two handles on one file are what two processes are to each other. */
Test(task_queue_sqlite, others_are_seen_and_noticed)
{
    char *path = test_temp_file("queue.db");
    struct perf__task_queue *one, *two;
    cr_assert(open_at(path, &one) == PERF_OK && open_at(path, &two) == PERF_OK);
    cr_assert(claim(two) == PERF_MISS);
    cr_assert(put(one, "a", NULL) == PERF_OK);
    cr_assert(perf__task_queue_wait(two, 10000) == PERF_OK);
    cr_assert(claim(two) == PERF_OK && claim(one) == PERF_MISS);
    cr_assert(put(two, "b", NULL) == PERF_OK && claim(one) == PERF_OK);
    cr_assert(perf__task_queue_control(one, PERF_QUEUE_PAUSE, "q", 1, NULL) == PERF_OK);
    cr_assert(put(two, "c", NULL) == PERF_OK && claim(two) == PERF_MISS, "paused by the other");
    perf__task_queue_close(one);
    perf__task_queue_close(two);
    test_remove_dir_of(path);
}

/* ------------------------------------------------------- in one transaction */

enum { MEETING_THREADS = 6, MEETING_EACH = 4, MEETING_ROUNDS = 20 };

struct meeting {
    struct perf__task_queue *queue;
    int thread, round;
    perf_queue_reply reply;
};

/* Submits tasks of falling rank: one alone, the others in one call. */
static void *submit_at_meeting(void *arg)
{
    struct meeting *m = arg;
    char ids[MEETING_EACH][72];
    perf_queue_task tasks[MEETING_EACH];
    int statuses[MEETING_EACH];
    for (int i = 0; i < MEETING_EACH; i++) {
        snprintf(ids[i], sizeof ids[i], "%d-%d-%d", m->round, m->thread, i);
        tasks[i] = test_queue_task(ids[i], 1000);
        tasks[i].rank = 100 * m->thread - i;
    }
    cr_assert(perf__task_queue_enqueue(m->queue, tasks, 1, NULL, 1000, statuses, NULL) == PERF_OK);
    cr_assert(perf__task_queue_enqueue(m->queue, tasks + 1, MEETING_EACH - 1, NULL, 1000, statuses,
                                       NULL) == PERF_OK);
    return NULL;
}

static void *claim_at_meeting(void *arg)
{
    struct meeting *m = arg;
    const char *name = "q";
    perf_queue_kind kind = {"k", 0, 0};
    perf_queue_claim want = {sizeof want, &name, 1, &kind, 1, 10, "w", 1000, 1000};
    int rc = perf__task_queue_claim(m->queue, &want, &m->reply);
    cr_assert(rc == (m->reply.count ? PERF_OK : PERF_MISS));
    return NULL;
}

/* Every task that was claimed is RUNNING for who claimed it, in order, and its end is taken. */
static size_t finish_in_order(struct meeting *m)
{
    size_t count = m->reply.count;
    perf_queue_reply seen = {.allocator = &host.allocator};
    for (size_t i = 0; i < count; i++) {
        const perf_queue_task *t = m->reply.tasks[i];
        cr_assert(!i || m->reply.tasks[i - 1]->rank <= t->rank);
        cr_assert(t->state == PERF_TASK_RUNNING && t->attempts == 1);
        cr_assert(perf__task_queue_get(m->queue, t->id, &seen) == PERF_OK);
        const perf_queue_task *kept = seen.tasks[i];
        cr_assert(kept->state == PERF_TASK_RUNNING && kept->token == t->token);
        cr_assert(kept->attempts == 1 && !strcmp(kept->worker, "w") && kept->rank == t->rank);
        cr_assert(kept->lease_until_ms == t->lease_until_ms && kept->lease_until_ms == 2000);
        cr_assert(kept->started_ms == 1000 && kept->payload.len == t->payload.len);
        perf_queue_end end = {.struct_size = sizeof end,
                              .id = t->id,
                              .token = t->token,
                              .state = PERF_TASK_SUCCEEDED,
                              .now_ms = 1000,
                              .error = ""};
        cr_assert(perf__task_queue_finish(m->queue, &end, 1) == PERF_OK && !end.outcome);
    }
    perf__queue_reply_free(&seen);
    perf__queue_reply_free(&m->reply);
    return count;
}

/*
 * Claims and submissions of one transaction: somebody else has the file's lock while they gather.
 * A task then goes to its claim without having been queued, or it is queued; never both, or none.
 */
Test(task_queue_sqlite, claims_and_submissions_meet)
{
    char *path = test_temp_file("queue.db");
    struct perf__task_queue *queue;
    sqlite3 *other;
    cr_assert(open_at(path, &queue) == PERF_OK && sqlite3_open(path, &other) == SQLITE_OK);
    for (int round = 0; round < MEETING_ROUNDS; round++) {
        struct meeting m[MEETING_THREADS];
        pthread_t threads[MEETING_THREADS];
        while (sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
            continue;
        for (int i = 0; i < MEETING_THREADS; i++) {
            m[i] = (struct meeting){queue, i, round, {.allocator = &host.allocator}};
            bool claims = i && i == round % MEETING_THREADS; /* in some rounds nobody does */
            cr_assert(!pthread_create(&threads[i], NULL,
                                      claims ? claim_at_meeting : submit_at_meeting, &m[i]));
            sched_yield();
        }
        cr_assert(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
        for (int i = 0; i < MEETING_THREADS; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < MEETING_THREADS; i++)
            finish_in_order(&m[i]);
        do
            claim_at_meeting(&m[0]);
        while (finish_in_order(&m[0]));
    }
    perf_queue_counts counts = {.struct_size = sizeof counts};
    cr_assert(perf__task_queue_count(queue, "q", 1000, &counts) == PERF_OK);
    size_t claimers = MEETING_ROUNDS - (MEETING_ROUNDS + MEETING_THREADS - 1) / MEETING_THREADS;
    size_t all = (MEETING_ROUNDS * MEETING_THREADS - claimers) * MEETING_EACH;
    cr_assert(counts.by_state[PERF_TASK_SUCCEEDED] == all, "%llu of %zu",
              (unsigned long long)counts.by_state[PERF_TASK_SUCCEEDED], all);
    cr_assert(!counts.by_state[PERF_TASK_QUEUED] && !counts.by_state[PERF_TASK_RUNNING]);
    sqlite3_close(other);
    perf__task_queue_close(queue);
    test_remove_dir_of(path);
}

/* --------------------------------------------------------------------- ends */

/* Claims the one task that is there at now, and returns its token. */
static uint64_t claim_at(struct perf__task_queue *queue, int64_t now)
{
    perf_queue_reply reply = {.allocator = &host.allocator};
    const char *name = "q";
    perf_queue_kind kind = {"k", 0, 0};
    perf_queue_claim want = {sizeof want, &name, 1, &kind, 1, 10, "w", now, 1000};
    cr_assert(perf__task_queue_claim(queue, &want, &reply) == PERF_OK && reply.count == 1);
    uint64_t token = reply.tasks[0]->token;
    perf__queue_reply_free(&reply);
    return token;
}

static int finish(struct perf__task_queue *queue, const char *id, uint64_t token, int64_t now)
{
    perf_queue_end end = {.struct_size = sizeof end,
                          .id = id,
                          .token = token,
                          .state = PERF_TASK_SUCCEEDED,
                          .now_ms = now,
                          .error = ""};
    cr_assert(perf__task_queue_finish(queue, &end, 1) == PERF_OK);
    return (int)end.outcome;
}

/* A queue remembers what it claimed, but believes the file. */
Test(task_queue_sqlite, ends_are_judged_by_the_file)
{
    char *path = test_temp_file("queue.db");
    struct perf__task_queue *one, *two;
    perf_queue_swept swept;
    cr_assert(open_at(path, &one) == PERF_OK && open_at(path, &two) == PERF_OK);

    cr_assert(put(one, "a", NULL) == PERF_OK);
    uint64_t token = claim_at(one, 1000);
    cr_assert(finish(one, "b", token, 1001) == PERF_ECONFLICT, "not the task of this token");
    cr_assert(finish(two, "a", token, 1001) == PERF_OK, "whoever has the token");
    cr_assert(finish(one, "a", token, 1001) == PERF_ECONFLICT, "it has ended");

    cr_assert(put(one, "c", NULL) == PERF_OK);
    token = claim_at(one, 1000);
    cr_assert(perf__task_queue_sweep(two, 3000, 10, &swept) == PERF_OK && swept.rescued == 1);
    cr_assert(finish(one, "c", token, 3000) == PERF_ECONFLICT, "its lease has passed");
    uint64_t next = claim_at(two, 3000);
    cr_assert(finish(one, "c", token, 3001) == PERF_ECONFLICT, "another has it");
    cr_assert(finish(two, "c", next, 3001) == PERF_OK);

    /* What waits for it came after the claim, and from elsewhere. */
    cr_assert(put(one, "d", NULL) == PERF_OK);
    token = claim_at(one, 1000);
    perf_queue_task follower = test_queue_task("e", 1000);
    int status;
    follower.after = "d";
    cr_assert(perf__task_queue_enqueue(two, &follower, 1, NULL, 1000, &status, NULL) == PERF_OK);
    cr_assert(finish(one, "d", token, 1001) == PERF_OK);
    cr_assert(finish(one, "e", claim_at(one, 1001), 1002) == PERF_OK);

    perf_queue_counts counts;
    cr_assert(perf__task_queue_count(two, "q", 1002, &counts) == PERF_OK);
    uint64_t ended = counts.by_state[PERF_TASK_SUCCEEDED];
    cr_assert(ended == 3 && swept.removed == 1, "a, whose time was over, was swept");
    cr_assert(!counts.by_state[PERF_TASK_RUNNING] && !counts.by_state[PERF_TASK_QUEUED] &&
              !counts.by_state[PERF_TASK_WAITING]);
    perf__task_queue_close(one);
    perf__task_queue_close(two);
    test_remove_dir_of(path);
}

Test(task_queue_sqlite, tasks_come_with_the_hosts_transaction)
{
    char *path = test_temp_file("app.db");
    struct perf__task_queue *queue;
    sqlite3 *db, *other;
    sql(path, "CREATE TABLE orders(id INTEGER PRIMARY KEY); PRAGMA user_version=7");
    cr_assert(open_at(path, &queue) == PERF_OK, "beside the host's tables: %s", perf_last_error());
    cr_assert(sqlite3_open(path, &db) == SQLITE_OK);
    cr_assert(put(queue, "a", db) == PERF_EINVAL && strstr(perf_last_error(), "BEGIN"));
    cr_assert(!sqlite3_exec(db, "BEGIN IMMEDIATE; INSERT INTO orders VALUES(1)", 0, 0, 0));
    cr_assert(put(queue, "a", db) == PERF_OK, "%s", perf_last_error());
    cr_assert(put(queue, "a", db) == PERF_EEXISTS);
    cr_assert(get(queue, "a") == PERF_MISS, "not before it commits");
    cr_assert(!sqlite3_exec(db, "ROLLBACK", 0, 0, 0));
    cr_assert(get(queue, "a") == PERF_MISS && claim(queue) == PERF_MISS);
    cr_assert(!sqlite3_exec(db, "BEGIN IMMEDIATE; INSERT INTO orders VALUES(1)", 0, 0, 0));
    cr_assert(put(queue, "a", db) == PERF_OK && put(queue, "b", db) == PERF_OK);
    cr_assert(!sqlite3_exec(db, "COMMIT", 0, 0, 0));
    cr_assert(perf__task_queue_wait(queue, 10000) == PERF_OK);
    cr_assert(get(queue, "b") == PERF_OK && claim(queue) == PERF_OK);
    char *elsewhere = test_temp_file("other.db");
    cr_assert(sqlite3_open(elsewhere, &other) == SQLITE_OK);
    cr_assert(!sqlite3_exec(other, "BEGIN", 0, 0, 0));
    cr_assert(put(queue, "c", other) == PERF_EINVAL && strstr(perf_last_error(), "another file"));
    sqlite3_close(other);
    sqlite3_close(db);
    perf__task_queue_close(queue);
    sql(path, "SELECT 1/(count(*) = 1) FROM orders; SELECT 1/(user_version = 7) FROM "
              "pragma_user_version");
    test_remove_dir_of(elsewhere);
    test_remove_dir_of(path);
}

Test(task_queue_sqlite, foreign_and_damaged_files_are_refused_and_left_alone)
{
    char *path = test_temp_file("queue.db");
    struct perf__task_queue *queue;
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is no database\n", f);
    fclose(f);
    cr_assert(open_at(path, &queue) == PERF_ECORRUPT && strstr(perf_last_error(), path), "%s",
              perf_last_error());
    struct stat st;
    cr_assert(!stat(path, &st) && st.st_size == 20000);
    remove_file(path);
    sql(path, "CREATE TABLE perf_queue(a, b)");
    cr_assert(open_at(path, &queue) == PERF_ECORRUPT, "%s", perf_last_error());
    remove_file(path);
    cr_assert(open_at(path, &queue) == PERF_OK && put(queue, "a", NULL) == PERF_OK);
    perf__task_queue_close(queue);
    sql(path, "UPDATE perf_queue SET n=99 WHERE key=0");
    cr_assert(open_at(path, &queue) == PERF_EINVAL && strstr(perf_last_error(), "format 99"));
    sql(path, "UPDATE perf_queue SET n=1 WHERE key=0");
    cr_assert(open_at(path, &queue) == PERF_OK && get(queue, "a") == PERF_OK, "nothing was lost");
    perf__task_queue_close(queue);
    cr_assert(open_at("/nowhere/queue.db", &queue) == PERF_EIO);
    cr_assert(open_at("/", &queue) == PERF_EINVAL || open_at("/", &queue) == PERF_EIO);
    test_remove_dir_of(path);
}

/* What a stranger wrote into the file is refused where it is read, and harms nobody. */
Test(task_queue_sqlite, strings_and_numbers_of_the_file_are_checked)
{
    static const char *const spoils[] = {
        "UPDATE perf_queue_tasks SET state=77",
        "UPDATE perf_queue_tasks SET state=0",
        "UPDATE perf_queue_tasks SET lane=4711",
        "UPDATE perf_queue_tasks SET user=x'ff00ff'",
        "UPDATE perf_queue_tasks SET error=CAST(x'41ff' AS TEXT)",
        "UPDATE perf_queue_tasks SET kept=CAST(x'410042' AS TEXT)",
        "UPDATE perf_queue_tasks SET worker=CAST(zeroblob(3000000) AS TEXT)",
        "UPDATE perf_queue_tasks SET flags=flags|24",
    };
    char *path = test_temp_file("queue.db");
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        struct perf__task_queue *queue;
        remove_file(path);
        cr_assert(open_at(path, &queue) == PERF_OK && put(queue, "a", NULL) == PERF_OK);
        sql(path, spoils[i]);
        cr_assert(get(queue, "a") == PERF_ECORRUPT, "%s", spoils[i]);
        cr_assert(strstr(perf_last_error(), path));
        claim(queue);
        perf_queue_counts counts;
        perf_queue_swept swept;
        perf__task_queue_count(queue, "q", 1000, &counts);
        perf__task_queue_sweep(queue, 1 << 30, 10, &swept);
        cr_assert(put(queue, "b", NULL) == PERF_OK, "others go on");
        cr_assert(get(queue, "b") == PERF_OK);
        perf__task_queue_close(queue);
    }
    test_remove_dir_of(path);
}
