/* SPDX-License-Identifier: MIT */
/* queue_conformance.c - the promises of backend/queue.h, asserted. */
#include "queue_conformance.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "seams.h"
#include "test.h"

enum { NOW = 1000000, LEASE = 30000, MINUTE = 60000 };

struct under_test {
    struct perf__task_queue *queue;
    struct perf__host host;
    perf_queue_reply reply;
    char existing[72];
    int64_t now;
    int few; /* tasks that threads share; 0: many */
};

static void open_queue(struct under_test *u, const struct queue_conformance *c,
                       const perf_host *host)
{
    if (c->empty)
        c->empty(c->ctx);
    *u = (struct under_test){.now = NOW, .few = c->exact_tasks};
    cr_assert(perf__host_take(host, &u->host) == PERF_OK);
    u->reply.allocator = &u->host.allocator;
    cr_assert(perf__task_queue_open(&c->options, &u->host, &u->queue) == PERF_OK, "%s",
              perf_last_error());
}

static void close_queue(struct under_test *u)
{
    perf__queue_reply_free(&u->reply);
    perf__task_queue_close(u->queue);
}

perf_queue_task test_queue_task(const char *id, int64_t now_ms)
{
    return (perf_queue_task){
        .struct_size = sizeof(perf_queue_task),
        .id = id,
        .queue = "q",
        .kind = "k",
        .user = "",
        .batch = "",
        .rank = now_ms,
        .created_ms = now_ms,
        .due_ms = now_ms,
        .keep_ms = 1000,
        .max_attempts = 3,
        .unique_key = "",
        .limit_key = "",
        .after = "",
        .payload = {"payload", 7},
        .worker = "",
        .text = "",
        .error = "",
        .result = {"", 0},
        .history = "",
    };
}

static int put(struct under_test *u, const perf_queue_task *task)
{
    int status = 1;
    int rc = perf__task_queue_enqueue(u->queue, task, 1, NULL, u->now, &status, &u->existing);
    cr_assert(status == PERF_EEXISTS ? rc == PERF_OK : rc == status, "%d, %d: %s", rc, status,
              perf_last_error());
    return status;
}

static int put_id(struct under_test *u, const char *id)
{
    perf_queue_task task = test_queue_task(id, u->now);
    return put(u, &task);
}

static int claim_kind(struct under_test *u, const char *queue, const char *kind, size_t max)
{
    perf_queue_kind kinds[] = {{kind, INT64_MIN, INT64_MAX}};
    perf_queue_claim want = {.struct_size = sizeof want,
                             .queues = &queue,
                             .queues_count = 1,
                             .kinds = kinds,
                             .kinds_count = 1,
                             .max = max,
                             .worker = "w1",
                             .now_ms = u->now,
                             .lease_ms = LEASE};
    perf__queue_reply_free(&u->reply);
    return perf__task_queue_claim(u->queue, &want, &u->reply);
}

/* The next task, or NULL; valid until the next claim or look. */
static const perf_queue_task *claim(struct under_test *u)
{
    int rc = claim_kind(u, "q", "k", 1);
    cr_assert(rc == PERF_OK || rc == PERF_MISS, "%s", perf_last_error());
    cr_assert(u->reply.count == (rc == PERF_OK));
    return rc == PERF_OK ? u->reply.tasks[0] : NULL;
}

/* Claims, and it must be this one; its token. */
static uint64_t claim_id(struct under_test *u, const char *id)
{
    const perf_queue_task *task = claim(u);
    cr_assert(task != NULL, "nothing to claim instead of %s", id);
    cr_assert(!strcmp(task->id, id), "claimed %s instead of %s", task->id, id);
    return task->token;
}

static int64_t finish_with(struct under_test *u, perf_queue_end end)
{
    end.struct_size = sizeof end;
    end.now_ms = u->now;
    end.outcome = 1;
    int rc = perf__task_queue_finish(u->queue, &end, 1);
    cr_assert(rc == PERF_OK || end.outcome == rc);
    return end.outcome;
}

static int64_t finish(struct under_test *u, const char *id, uint64_t token, int64_t state)
{
    return finish_with(u,
                       (perf_queue_end){.id = id,
                                        .token = token,
                                        .state = state,
                                        .due_ms = 0,
                                        .status = state == PERF_TASK_SUCCEEDED ? PERF_OK : PERF_EIO,
                                        .error = state == PERF_TASK_SUCCEEDED ? "" : "broken"});
}

static const perf_queue_task *get(struct under_test *u, const char *id)
{
    perf__queue_reply_free(&u->reply);
    int rc = perf__task_queue_get(u->queue, id, &u->reply);
    cr_assert(rc == PERF_OK || rc == PERF_MISS, "%s", perf_last_error());
    return rc == PERF_OK ? u->reply.tasks[0] : NULL;
}

static int64_t state_of(struct under_test *u, const char *id)
{
    const perf_queue_task *task = get(u, id);
    return task ? task->state : 0;
}

#define STATE(id, expected)                                                                \
    do {                                                                                   \
        int64_t state_ = state_of(u, id);                                                  \
        cr_assert(state_ == (expected), "%s is %lld instead of %d", id, (long long)state_, \
                  (int)(expected));                                                        \
    } while (0)

static int64_t beat(struct under_test *u, const char *id, uint64_t token, int64_t lease)
{
    perf_queue_beat b = {.struct_size = sizeof b,
                         .id = id,
                         .token = token,
                         .lease_until_ms = lease,
                         .fraction = 0.5,
                         .done = 5,
                         .total = 10,
                         .text = "half"};
    cr_assert(perf__task_queue_extend(u->queue, &b, 1, u->now) == PERF_OK);
    return b.status;
}

static perf_queue_swept sweep(struct under_test *u, size_t budget)
{
    perf_queue_swept swept;
    cr_assert(perf__task_queue_sweep(u->queue, u->now, budget, &swept) == PERF_OK, "%s",
              perf_last_error());
    return swept;
}

static int control(struct under_test *u, int verb, const char *name)
{
    return perf__task_queue_control(u->queue, verb, name, u->now, NULL);
}

static perf_queue_counts count(struct under_test *u)
{
    perf_queue_counts counts;
    cr_assert(perf__task_queue_count(u->queue, "q", u->now, &counts) == PERF_OK, "%s",
              perf_last_error());
    return counts;
}

/* -------------------------------------------------------------------- checks */

static void check_basics(struct under_test *u)
{
    cr_assert(claim(u) == NULL && get(u, "a") == NULL);
    perf_queue_task task = test_queue_task("a", u->now);
    task.user = "ann";
    task.batch = "night";
    task.deadline_ms = u->now + 5000;
    task.timeout_ms = 77;
    task.version = 3;
    cr_assert(put(u, &task) == PERF_OK);
    const perf_queue_task *t = get(u, "a");
    cr_assert(t && t->state == PERF_TASK_QUEUED && !t->attempts && !t->token && !t->started_ms);
    cr_assert(!strcmp(t->queue, "q") && !strcmp(t->kind, "k") && !strcmp(t->user, "ann") &&
              !strcmp(t->batch, "night"));
    cr_assert(t->deadline_ms == u->now + 5000 && t->timeout_ms == 77 && t->version == 3 &&
              t->max_attempts == 3 && t->keep_ms == 1000 && t->created_ms == u->now);
    cr_assert(t->payload.len == 7 && !memcmp(t->payload.data, "payload", 7));
    cr_assert(!strcmp(t->worker, "") && !strcmp(t->error, "") && !strcmp(t->unique_key, ""));
    cr_assert(put_id(u, "a") == PERF_EEXISTS && !strcmp(u->existing, "a"));

    u->now += 10;
    t = claim(u);
    cr_assert(t && t->state == PERF_TASK_RUNNING && t->attempts == 1 && t->token > 0);
    cr_assert(t->lease_until_ms == u->now + LEASE && t->started_ms == u->now && t->version == 3);
    cr_assert(t->payload.len == 7 && !strcmp(t->worker, "w1"));
    uint64_t token = t->token;
    cr_assert(claim(u) == NULL, "one worker at a time");

    cr_assert(beat(u, "a", token + 1, u->now + 2 * LEASE) == PERF_ECONFLICT);
    cr_assert(beat(u, "b", token, u->now + 2 * LEASE) == PERF_ECONFLICT);
    cr_assert(beat(u, "a", token, u->now + 2 * LEASE) == PERF_OK);
    t = get(u, "a");
    cr_assert(t->fraction == 0.5 && t->done == 5 && t->total == 10 && !strcmp(t->text, "half"));
    cr_assert(t->lease_until_ms == u->now + 2 * LEASE);

    u->now += 10;
    cr_assert(finish(u, "a", token + 1, PERF_TASK_SUCCEEDED) == PERF_ECONFLICT);
    cr_assert(finish_with(u, (perf_queue_end){.id = "a",
                                              .token = token,
                                              .state = PERF_TASK_SUCCEEDED,
                                              .error = "",
                                              .result = {"res\0ult", 7}}) == PERF_OK);
    cr_assert(finish(u, "a", token, PERF_TASK_FAILED) == PERF_ECONFLICT, "an end comes once");
    cr_assert(beat(u, "a", token, u->now + LEASE) == PERF_ECONFLICT);
    t = get(u, "a");
    cr_assert(t->state == PERF_TASK_SUCCEEDED && t->ended_ms == u->now && t->status == PERF_OK);
    cr_assert(t->result.len == 7 && !memcmp(t->result.data, "res\0ult", 7) && t->fraction == 1);
    cr_assert_str_eq(t->history,
                     "1000000 QUEUED - 0\n1000010 RUNNING w1 0\n1000020 SUCCEEDED w1 0\n");
    cr_assert(claim(u) == NULL);
}

static void check_many(struct under_test *u)
{
    enum { COUNT = 10 };
    char ids[COUNT][8], existing[COUNT][72];
    perf_queue_task tasks[COUNT];
    int statuses[COUNT];
    for (int i = 0; i < COUNT; i++) {
        snprintf(ids[i], sizeof ids[i], "t%d", i % 9); /* the last one is a second t0 */
        tasks[i] = test_queue_task(ids[i], u->now);
    }
    cr_assert(perf__task_queue_enqueue(u->queue, tasks, COUNT, NULL, u->now, statuses, existing) ==
              PERF_OK);
    for (int i = 0; i < COUNT; i++)
        cr_assert(statuses[i] == (i < 9 ? PERF_OK : PERF_EEXISTS));
    cr_assert(perf__task_queue_enqueue(u->queue, tasks, COUNT, NULL, u->now, statuses, NULL) ==
              PERF_OK);
    cr_assert(claim_kind(u, "other", "k", 10) == PERF_MISS);
    cr_assert(claim_kind(u, "q", "other", 10) == PERF_MISS);
    cr_assert(claim_kind(u, "q", "k", 4) == PERF_OK && u->reply.count == 4);
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        cr_assert(!strcmp(u->reply.tasks[i]->id, ids[i]), "first in, first out");
        cr_assert(u->reply.tasks[i]->token > last, "tokens grow");
        last = u->reply.tasks[i]->token;
    }
    perf_queue_end ends[4];
    for (int i = 0; i < 4; i++)
        ends[i] = (perf_queue_end){.struct_size = sizeof *ends,
                                   .id = ids[i],
                                   .token = i == 2 ? 12345 : u->reply.tasks[i]->token,
                                   .state = PERF_TASK_SUCCEEDED,
                                   .now_ms = u->now,
                                   .error = ""};
    cr_assert(perf__task_queue_finish(u->queue, ends, 4) == PERF_OK);
    for (int i = 0; i < 4; i++)
        cr_assert(ends[i].outcome == (i == 2 ? PERF_ECONFLICT : PERF_OK));
    cr_assert(claim_kind(u, "q", "k", 100) == PERF_OK && u->reply.count == 5);
    cr_assert(claim_kind(u, "q", "k", 100) == PERF_MISS);
}

static void check_versions_and_queues(struct under_test *u)
{
    perf_queue_task task = test_queue_task("old", u->now);
    task.version = 1;
    cr_assert(put(u, &task) == PERF_OK);
    task = test_queue_task("new", u->now);
    task.version = 5;
    cr_assert(put(u, &task) == PERF_OK);
    task = test_queue_task("low", u->now - 100);
    task.queue = "low";
    cr_assert(put(u, &task) == PERF_OK);
    task = test_queue_task("kind2", u->now - 1);
    task.kind = "k2";
    cr_assert(put(u, &task) == PERF_OK);
    const char *queues[] = {"q", "low"};
    perf_queue_kind kinds[] = {{"k2", 0, 0}, {"k", 4, 9}};
    perf_queue_claim want = {.struct_size = sizeof want,
                             .queues = queues,
                             .queues_count = 2,
                             .kinds = kinds,
                             .kinds_count = 2,
                             .max = 1,
                             .worker = "w",
                             .now_ms = u->now,
                             .lease_ms = LEASE};
    static const char *const expected[] = {"kind2", "new"};
    for (int i = 0; i < 2; i++) {
        perf__queue_reply_free(&u->reply);
        cr_assert(perf__task_queue_claim(u->queue, &want, &u->reply) == PERF_OK);
        cr_assert_str_eq(u->reply.tasks[0]->id, expected[i]);
    }
    kinds[1].version_min = 0;
    kinds[1].version_max = 0;
    perf__queue_reply_free(&u->reply);
    cr_assert(perf__task_queue_claim(u->queue, &want, &u->reply) == PERF_OK);
    cr_assert_str_eq(u->reply.tasks[0]->id, "low", "when the first queue has nothing for it");
    claim_id(u, "old");
}

static void check_retries(struct under_test *u)
{
    cr_assert(put_id(u, "a") == PERF_OK);
    uint64_t token = claim_id(u, "a");
    cr_assert(finish_with(u, (perf_queue_end){.id = "a",
                                              .token = token,
                                              .state = PERF_TASK_RETRYING,
                                              .due_ms = u->now + 500,
                                              .status = PERF_EIO,
                                              .error = "no\ndisk"}) == PERF_OK);
    const perf_queue_task *t = get(u, "a");
    cr_assert(t->state == PERF_TASK_RETRYING && t->attempts == 1 && t->status == PERF_EIO);
    cr_assert(t->due_ms == u->now + 500 && !strcmp(t->error, "no\ndisk"));
    perf_queue_swept swept = sweep(u, 10);
    cr_assert(swept.next_ms == u->now + 500 && claim(u) == NULL);
    u->now += 500;
    cr_assert(claim(u) == NULL, "a sweep promotes it");
    cr_assert(sweep(u, 10).next_ms == 0);
    cr_assert(claim_id(u, "a") > token);
    token = u->reply.tasks[0]->token;
    cr_assert(u->reply.tasks[0]->attempts == 2);
    cr_assert(finish(u, "a", token, PERF_TASK_RETRYING) == PERF_OK);
    STATE("a", PERF_TASK_QUEUED); /* due_ms 0: at once */
    token = claim_id(u, "a");
    cr_assert(u->reply.tasks[0]->attempts == 3);
    /* Snoozed: not counted. */
    cr_assert(finish_with(u, (perf_queue_end){.id = "a",
                                              .token = token,
                                              .state = PERF_TASK_WAITING,
                                              .due_ms = u->now + 100,
                                              .error = ""}) == PERF_OK);
    t = get(u, "a");
    cr_assert(t->state == PERF_TASK_WAITING && t->attempts == 2);
    u->now += 100;
    sweep(u, 10);
    token = claim_id(u, "a");
    cr_assert(finish(u, "a", token, PERF_TASK_DEAD) == PERF_OK);
    t = get(u, "a");
    cr_assert(t->state == PERF_TASK_DEAD && t->status == PERF_EIO && t->attempts == 3);
    cr_assert_str_eq(t->history, "1000000 QUEUED - 0\n1000000 RUNNING w1 0\n"
                                 "1000000 RETRYING w1 -11 no disk\n1000500 RUNNING w1 0\n"
                                 "1000500 QUEUED w1 -11 broken\n1000500 RUNNING w1 0\n"
                                 "1000500 WAITING w1 0\n1000600 RUNNING w1 0\n"
                                 "1000600 DEAD w1 -11 broken\n");
    /* A history does not grow without bound. */
    cr_assert(control(u, PERF_QUEUE_REDRIVE, "a") == PERF_OK);
    for (int i = 0; i < 50; i++) {
        token = claim_id(u, "a");
        cr_assert(finish(u, "a", token, PERF_TASK_RETRYING) == PERF_OK);
    }
    t = get(u, "a");
    size_t lines = 0;
    for (const char *at = t->history; *at; at++)
        lines += *at == '\n';
    cr_assert(lines <= 32 && lines >= 30, "%zu lines", lines);
    cr_assert(!strncmp(t->history, "1000000 QUEUED", 14), "and keeps its first line");
    token = claim_id(u, "a");
    cr_assert(finish(u, "a", token, PERF_TASK_RUNNING) == PERF_EINVAL);
    cr_assert(finish(u, "a", token, PERF_TASK_SUCCEEDED) == PERF_OK);
}

static void check_leases(struct under_test *u)
{
    cr_assert(put_id(u, "a") == PERF_OK && put_id(u, "b") == PERF_OK);
    uint64_t a = claim_id(u, "a"), b = claim_id(u, "b");
    cr_assert(beat(u, "b", b, u->now + 3 * LEASE) == PERF_OK);
    u->now += LEASE - 1;
    cr_assert(sweep(u, 10).rescued == 0);
    u->now += 1;
    perf_queue_swept swept = sweep(u, 10);
    cr_assert(swept.rescued == 1 && swept.dead == 0);
    const perf_queue_task *t = get(u, "a");
    cr_assert(t->state == PERF_TASK_QUEUED && t->attempts == 1 && t->status == PERF_ETIMEDOUT);
    cr_assert(finish(u, "a", a, PERF_TASK_SUCCEEDED) == PERF_ECONFLICT, "late");
    cr_assert(beat(u, "a", a, u->now + LEASE) == PERF_ECONFLICT, "late");
    uint64_t again = claim_id(u, "a");
    cr_assert(again > a && again > b);
    cr_assert(finish(u, "a", a, PERF_TASK_SUCCEEDED) == PERF_ECONFLICT, "later still");
    u->now += LEASE;
    cr_assert(sweep(u, 10).rescued == 1);
    claim_id(u, "a"); /* the third and last */
    u->now += LEASE;
    swept = sweep(u, 10);
    cr_assert(swept.rescued == 2 && swept.dead == 1, "b too is late now");
    t = get(u, "a");
    cr_assert(t->state == PERF_TASK_DEAD && t->ended_ms == u->now && t->attempts == 3 &&
              strstr(t->error, "lease"));
    STATE("b", PERF_TASK_QUEUED);
    /* Without a bound. */
    perf_queue_task task = test_queue_task("c", u->now - 1000000);
    task.max_attempts = -1;
    cr_assert(put(u, &task) == PERF_OK);
    for (int i = 0; i < 10; i++) {
        claim_id(u, "c");
        u->now += LEASE;
        cr_assert(sweep(u, 10).dead == 0);
    }
}

static void check_order(struct under_test *u)
{
    static const struct {
        const char *id;
        int64_t priority, due;
    } tasks[] = {
        {"plain", 0, 0},
        {"high", 3, 0},
        {"low", -3, 0},
        {"older", 0, -1},
        {"aged", -3, -3 * MINUTE - 1},
    };
    static const char *const expected[] = {"high", "aged", "older", "plain", "low"};
    for (size_t i = 0; i < 5; i++) {
        perf_queue_task task = test_queue_task(tasks[i].id, u->now);
        task.priority = tasks[i].priority;
        task.due_ms = u->now + tasks[i].due;
        task.rank = perf__task_rank(task.due_ms, task.priority);
        cr_assert(put(u, &task) == PERF_OK);
    }
    /* "aged" and "older" have ranks -1 and -1: first in, first out; "older" came first. */
    claim_id(u, expected[0]);
    claim_id(u, "older");
    claim_id(u, "aged");
    claim_id(u, expected[3]);
    claim_id(u, expected[4]);
    cr_assert(claim(u) == NULL);
    /* Many at once come in order, over several kinds of the claim. */
    cr_assert(put_id(u, "z1") == PERF_OK);
    perf_queue_task task = test_queue_task("y", u->now);
    task.priority = 9;
    task.rank = perf__task_rank(task.due_ms, 9);
    cr_assert(put(u, &task) == PERF_OK && put_id(u, "z2") == PERF_OK);
    cr_assert(claim_kind(u, "q", "k", 3) == PERF_OK && u->reply.count == 3);
    cr_assert(!strcmp(u->reply.tasks[0]->id, "y") && !strcmp(u->reply.tasks[1]->id, "z1") &&
              !strcmp(u->reply.tasks[2]->id, "z2"));
}

static void check_delay_and_deadline(struct under_test *u)
{
    perf_queue_task task = test_queue_task("later", u->now);
    task.due_ms = task.rank = u->now + 1000;
    cr_assert(put(u, &task) == PERF_OK);
    STATE("later", PERF_TASK_WAITING);
    cr_assert(claim(u) == NULL && sweep(u, 10).next_ms == u->now + 1000);
    u->now += 999;
    sweep(u, 10);
    cr_assert(claim(u) == NULL);
    u->now += 1;
    sweep(u, 10);
    uint64_t token = claim_id(u, "later");
    cr_assert(finish(u, "later", token, PERF_TASK_SUCCEEDED) == PERF_OK);

    task = test_queue_task("stale", u->now);
    task.deadline_ms = u->now + 50;
    cr_assert(put(u, &task) == PERF_OK);
    task = test_queue_task("begun", u->now);
    task.deadline_ms = u->now + 50;
    task.rank = u->now - 1;
    cr_assert(put(u, &task) == PERF_OK && put_id(u, "fresh") == PERF_OK);
    token = claim_id(u, "begun");
    cr_assert(finish(u, "begun", token, PERF_TASK_RETRYING) == PERF_OK);
    u->now += 50;
    claim_id(u, "begun"); /* it had begun in time */
    claim_id(u, "fresh");
    const perf_queue_task *t = get(u, "stale");
    cr_assert(t->state == PERF_TASK_CANCELLED && t->status == PERF_ETIMEDOUT &&
              strstr(t->error, "deadline") && t->ended_ms == u->now);
}

static int put_unique(struct under_test *u, const char *id, const char *key, int64_t until)
{
    perf_queue_task task = test_queue_task(id, u->now);
    task.unique_key = key;
    task.unique_until_ms = until;
    task.keep_ms = 100000;
    return put(u, &task);
}

static void check_unique(struct under_test *u)
{
    cr_assert(put_unique(u, "a", "key", 0) == PERF_OK);
    cr_assert(put_unique(u, "b", "key", 0) == PERF_EEXISTS && !strcmp(u->existing, "a"));
    cr_assert(get(u, "b") == NULL);
    cr_assert_str_eq(get(u, "a")->unique_key, "key");
    perf_queue_task task = test_queue_task("kind2", u->now);
    task.kind = "k2";
    task.unique_key = "key";
    cr_assert(put(u, &task) == PERF_OK, "of this kind");
    uint64_t token = claim_id(u, "a");
    cr_assert(put_unique(u, "b", "key", 0) == PERF_EEXISTS, "it runs");
    cr_assert(finish(u, "a", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    cr_assert(put_unique(u, "b", "key", 0) == PERF_OK, "it has ended");
    cr_assert(put_unique(u, "c", "key", 0) == PERF_EEXISTS && !strcmp(u->existing, "b"));
    cr_assert(control(u, PERF_QUEUE_CANCEL, "b") == PERF_OK);
    /* Held for a time, whatever became of it. */
    cr_assert(put_unique(u, "d", "key", u->now + 1000) == PERF_OK);
    token = claim_id(u, "d");
    cr_assert(finish(u, "d", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    u->now += 999;
    cr_assert(put_unique(u, "e", "key", 0) == PERF_EEXISTS && !strcmp(u->existing, "d"));
    u->now += 1;
    cr_assert(put_unique(u, "e", "key", u->now + 10) == PERF_OK);
    u->now += 10;
    cr_assert(put_unique(u, "f", "key", 0) == PERF_EEXISTS, "it is on the way still");
    token = claim_id(u, "e");
    cr_assert(finish(u, "e", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    /* The record stays as long as its key is held. */
    perf_queue_task held = test_queue_task("g", u->now);
    held.unique_key = "other";
    held.unique_until_ms = u->now + 5000;
    held.keep_ms = 1;
    cr_assert(put(u, &held) == PERF_OK);
    token = claim_id(u, "g");
    cr_assert(finish(u, "g", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    u->now += 4999;
    sweep(u, 100);
    cr_assert(put_unique(u, "h", "other", 0) == PERF_EEXISTS);
    u->now += 1;
    sweep(u, 100);
    cr_assert(get(u, "g") == NULL && put_unique(u, "h", "other", 0) == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "h") == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_REMOVE, "h") == PERF_OK);
    cr_assert(put_unique(u, "i", "other", 0) == PERF_OK, "keys go with their records");
}

static perf_queue_task limited(const char *id, const char *key, int64_t limit, int64_t rank)
{
    perf_queue_task task = test_queue_task(id, NOW);
    task.limit_key = key;
    task.limit = limit;
    task.rank = rank;
    task.max_attempts = -1;
    return task;
}

static void check_limits(struct under_test *u)
{
    for (int i = 0; i < 6; i++) {
        char id[16];
        snprintf(id, sizeof id, "l%d", i);
        perf_queue_task task = limited(id, "key", 2, NOW + i);
        cr_assert(put(u, &task) == PERF_OK);
    }
    cr_assert(put_id(u, "free") == PERF_OK); /* its rank is that of l0, but it came later */
    cr_assert(claim_kind(u, "q", "k", 10) == PERF_OK && u->reply.count == 3);
    cr_assert(!strcmp(u->reply.tasks[0]->id, "l0") && !strcmp(u->reply.tasks[1]->id, "free") &&
              !strcmp(u->reply.tasks[2]->id, "l1"));
    uint64_t l0 = u->reply.tasks[0]->token, l1 = u->reply.tasks[2]->token;
    cr_assert(finish(u, "free", u->reply.tasks[1]->token, PERF_TASK_SUCCEEDED) == PERF_OK);
    cr_assert(claim(u) == NULL && count(u).by_state[PERF_TASK_QUEUED] == 4);
    /* One that comes late but goes first. */
    perf_queue_task first = limited("first", "key", 2, NOW - 5);
    cr_assert(put(u, &first) == PERF_OK);
    cr_assert(claim(u) == NULL);
    cr_assert(finish(u, "l0", l0, PERF_TASK_SUCCEEDED) == PERF_OK);
    uint64_t token = claim_id(u, "first");
    cr_assert(claim(u) == NULL);
    /* One that ends, one that comes again: both free their place. */
    cr_assert(finish(u, "first", token, PERF_TASK_RETRYING) == PERF_OK);
    cr_assert(finish(u, "l1", l1, PERF_TASK_FAILED) == PERF_OK);
    claim_id(u, "first");
    claim_id(u, "l2");
    cr_assert(claim(u) == NULL);
    /* A dead worker's place is free after its lease. */
    u->now += LEASE;
    cr_assert(sweep(u, 10).rescued == 2);
    claim_id(u, "first");
    claim_id(u, "l2");
    cr_assert(claim(u) == NULL);
    /* Cancelled while put aside. */
    cr_assert(control(u, PERF_QUEUE_CANCEL, "l4") == PERF_OK);
    u->now += LEASE;
    cr_assert(sweep(u, 10).rescued == 2);
    uint64_t a = claim_id(u, "first"), b = claim_id(u, "l2");
    cr_assert(finish(u, "first", a, PERF_TASK_SUCCEEDED) == PERF_OK);
    cr_assert(finish(u, "l2", b, PERF_TASK_SUCCEEDED) == PERF_OK);
    claim_id(u, "l3");
    claim_id(u, "l5");
    cr_assert(claim(u) == NULL);
}

struct limit_run {
    struct perf__task_queue *queue;
    atomic_int running, worst, done, conflicts;
    int wanted;
};

static void *work_within_limit(void *arg)
{
    struct limit_run *run = arg;
    struct under_test u = {.queue = run->queue, .now = NOW};
    cr_assert(perf__host_take(NULL, &u.host) == PERF_OK);
    u.reply.allocator = &u.host.allocator;
    while (atomic_load(&run->done) < run->wanted) {
        const perf_queue_task *t = claim(&u);
        if (!t)
            continue;
        int running = atomic_fetch_add(&run->running, 1) + 1, worst = atomic_load(&run->worst);
        while (running > worst && !atomic_compare_exchange_weak(&run->worst, &worst, running))
            continue;
        atomic_fetch_sub(&run->running, 1);
        if (finish(&u, t->id, t->token, PERF_TASK_SUCCEEDED) != PERF_OK)
            atomic_fetch_add(&run->conflicts, 1);
        atomic_fetch_add(&run->done, 1);
    }
    perf__queue_reply_free(&u.reply);
    return NULL;
}

static void check_limit_threads(struct under_test *u)
{
    struct limit_run run = {.queue = u->queue, .wanted = u->few ? u->few / 10 : 300};
    for (int i = 0; i < run.wanted; i++) {
        char id[16];
        snprintf(id, sizeof id, "lt%d", i);
        perf_queue_task task = limited(id, "key", 2, NOW);
        cr_assert(put(u, &task) == PERF_OK);
    }
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        cr_assert(!pthread_create(&threads[i], NULL, work_within_limit, &run));
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    cr_assert(run.done == run.wanted && !run.conflicts && run.worst <= 2, "%d at once", run.worst);
}

static int put_after(struct under_test *u, const char *id, const char *after, int64_t any)
{
    perf_queue_task task = test_queue_task(id, u->now);
    task.after = after;
    task.after_any_end = any;
    return put(u, &task);
}

static void check_after(struct under_test *u)
{
    cr_assert(put_after(u, "x", "nobody", 0) == PERF_EINVAL && strstr(perf_last_error(), "nobody"));
    cr_assert(get(u, "x") == NULL);
    cr_assert(put_id(u, "a") == PERF_OK && put_id(u, "b") == PERF_OK);
    cr_assert(put_after(u, "chain1", "a", 0) == PERF_OK);
    cr_assert(put_after(u, "chain2", "chain1", 0) == PERF_OK);
    cr_assert(put_after(u, "both", "a,b,a", 0) == PERF_OK);
    STATE("both", PERF_TASK_WAITING);
    uint64_t a = claim_id(u, "a"), b = claim_id(u, "b");
    cr_assert(claim(u) == NULL);
    u->now += 1000000;
    sweep(u, 10); /* leases pass, but those that wait for others go on waiting */
    STATE("both", PERF_TASK_WAITING);
    a = claim_id(u, "a");
    b = claim_id(u, "b");
    cr_assert(finish(u, "a", a, PERF_TASK_SUCCEEDED) == PERF_OK);
    uint64_t token = claim_id(u, "chain1");
    cr_assert(claim(u) == NULL);
    cr_assert(finish(u, "chain1", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    claim_id(u, "chain2");
    cr_assert(finish(u, "b", b, PERF_TASK_RETRYING) == PERF_OK, "no end");
    b = claim_id(u, "b");
    cr_assert(finish(u, "b", b, PERF_TASK_SUCCEEDED) == PERF_OK);
    claim_id(u, "both");
    /* After what has ended already. */
    cr_assert(put_after(u, "late", "a,b", 0) == PERF_OK);
    claim_id(u, "late");

    /* Failure goes down the chain, except where any end will do. */
    cr_assert(put_id(u, "f") == PERF_OK);
    cr_assert(put_after(u, "f1", "f", 0) == PERF_OK && put_after(u, "f2", "f1", 0) == PERF_OK);
    cr_assert(put_after(u, "any", "f2", 1) == PERF_OK && put_after(u, "f3", "f2", 0) == PERF_OK);
    token = claim_id(u, "f");
    cr_assert(finish(u, "f", token, PERF_TASK_FAILED) == PERF_OK);
    STATE("f1", PERF_TASK_CANCELLED);
    STATE("f2", PERF_TASK_CANCELLED);
    STATE("f3", PERF_TASK_CANCELLED);
    cr_assert(strstr(get(u, "f1")->error, "did not succeed"));
    token = claim_id(u, "any");
    cr_assert(finish(u, "any", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    cr_assert(put_after(u, "f4", "f", 0) == PERF_OK);
    STATE("f4", PERF_TASK_CANCELLED);
    cr_assert(put_after(u, "f5", "f", 1) == PERF_OK);
    claim_id(u, "f5");

    /* One that waits is cancelled and forgotten; its predecessor ends all the same. */
    cr_assert(put_id(u, "p") == PERF_OK && put_after(u, "gone", "p", 0) == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "gone") == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_REMOVE, "gone") == PERF_OK);
    cr_assert(put_after(u, "stays", "p", 0) == PERF_OK);
    token = claim_id(u, "p");
    cr_assert(finish(u, "p", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    claim_id(u, "stays");
    cr_assert(claim(u) == NULL && get(u, "gone") == NULL);
    /* And a delay is kept. */
    cr_assert(put_id(u, "d") == PERF_OK);
    perf_queue_task task = test_queue_task("delayed", u->now);
    task.after = "d";
    task.due_ms = task.rank = u->now + 100;
    cr_assert(put(u, &task) == PERF_OK);
    token = claim_id(u, "d");
    cr_assert(finish(u, "d", token, PERF_TASK_SUCCEEDED) == PERF_OK);
    cr_assert(claim(u) == NULL);
    u->now += 100;
    sweep(u, 10);
    claim_id(u, "delayed");
}

static void check_cancel(struct under_test *u)
{
    cr_assert(control(u, PERF_QUEUE_CANCEL, "nobody") == PERF_MISS);
    perf_queue_task task = test_queue_task("waits", u->now);
    task.due_ms = u->now + 5;
    cr_assert(put(u, &task) == PERF_OK && put_id(u, "queued") == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "waits") == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "queued") == PERF_OK);
    STATE("waits", PERF_TASK_CANCELLED);
    STATE("queued", PERF_TASK_CANCELLED);
    cr_assert(get(u, "queued")->status == PERF_ECANCELED);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "queued") == PERF_MISS);
    u->now += 5;
    sweep(u, 10);
    cr_assert(claim(u) == NULL);
    /* RUNNING: told by the next beat. */
    cr_assert(put_id(u, "runs") == PERF_OK);
    uint64_t token = claim_id(u, "runs");
    cr_assert(control(u, PERF_QUEUE_CANCEL, "runs") == PERF_OK);
    STATE("runs", PERF_TASK_RUNNING);
    cr_assert(beat(u, "runs", token, u->now + LEASE) == PERF_ECANCELED);
    cr_assert(finish(u, "runs", token, PERF_TASK_CANCELLED) == PERF_OK);
    STATE("runs", PERF_TASK_CANCELLED);
    /* Not retried, and not rescued. */
    cr_assert(put_id(u, "again") == PERF_OK);
    token = claim_id(u, "again");
    cr_assert(control(u, PERF_QUEUE_CANCEL, "again") == PERF_OK);
    cr_assert(finish(u, "again", token, PERF_TASK_RETRYING) == PERF_OK);
    STATE("again", PERF_TASK_CANCELLED);
    cr_assert(put_id(u, "died") == PERF_OK);
    claim_id(u, "died");
    cr_assert(control(u, PERF_QUEUE_CANCEL, "died") == PERF_OK);
    u->now += LEASE;
    perf_queue_swept swept = sweep(u, 10);
    cr_assert(swept.rescued == 1 && swept.dead == 0);
    STATE("died", PERF_TASK_CANCELLED);
    /* RETRYING. */
    cr_assert(put_id(u, "retrying") == PERF_OK);
    token = claim_id(u, "retrying");
    cr_assert(finish_with(u, (perf_queue_end){.id = "retrying",
                                              .token = token,
                                              .state = PERF_TASK_RETRYING,
                                              .due_ms = u->now + 9,
                                              .error = ""}) == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_CANCEL, "retrying") == PERF_OK);
    STATE("retrying", PERF_TASK_CANCELLED);
}

static void check_redrive_and_remove(struct under_test *u)
{
    static const int64_t ends[] = {PERF_TASK_DEAD, PERF_TASK_DEAD, PERF_TASK_FAILED,
                                   PERF_TASK_SUCCEEDED};
    static const char *const ids[] = {"dead1", "dead2", "failed", "fine"};
    for (size_t i = 0; i < 4; i++) {
        cr_assert(put_id(u, ids[i]) == PERF_OK);
        cr_assert(control(u, PERF_QUEUE_REDRIVE, ids[i]) == PERF_MISS, "it has not ended");
        cr_assert(control(u, PERF_QUEUE_REMOVE, ids[i]) == PERF_EBUSY);
        uint64_t token = claim_id(u, ids[i]);
        cr_assert(control(u, PERF_QUEUE_REMOVE, ids[i]) == PERF_EBUSY);
        cr_assert(finish(u, ids[i], token, ends[i]) == PERF_OK);
    }
    cr_assert(control(u, PERF_QUEUE_REDRIVE, "fine") == PERF_MISS);
    cr_assert(control(u, PERF_QUEUE_REDRIVE, "nobody") == PERF_MISS);
    cr_assert(control(u, PERF_QUEUE_REMOVE, "nobody") == PERF_MISS);
    u->now += 7;
    cr_assert(control(u, PERF_QUEUE_REDRIVE, "failed") == PERF_OK);
    const perf_queue_task *t = get(u, "failed");
    cr_assert(t->state == PERF_TASK_QUEUED && !t->attempts && !t->ended_ms && t->due_ms == u->now);
    cr_assert_str_eq(t->history, "1000000 QUEUED - 0\n1000000 RUNNING w1 0\n"
                                 "1000000 FAILED w1 -11 broken\n1000007 QUEUED - 0\n");
    claim_id(u, "failed");
    uint64_t n = 99;
    cr_assert(perf__task_queue_control(u->queue, PERF_QUEUE_REDRIVE_ALL, "other", u->now, &n) ==
                  PERF_OK &&
              !n);
    cr_assert(perf__task_queue_control(u->queue, PERF_QUEUE_REDRIVE_ALL, "q", u->now, &n) ==
                  PERF_OK &&
              n == 2);
    claim_id(u, "dead1");
    claim_id(u, "dead2");
    cr_assert(control(u, PERF_QUEUE_REMOVE, "fine") == PERF_OK);
    cr_assert(get(u, "fine") == NULL && put_id(u, "fine") == PERF_OK, "its id is free");
    cr_assert(control(u, 99, "fine") == PERF_EINVAL);
}

static void check_pause(struct under_test *u)
{
    cr_assert(control(u, PERF_QUEUE_RESUME, "q") == PERF_OK);
    cr_assert(control(u, PERF_QUEUE_PAUSE, "q") == PERF_OK, "before there is any task");
    cr_assert(count(u).paused == 1);
    cr_assert(put_id(u, "a") == PERF_OK && claim(u) == NULL);
    perf_queue_task task = test_queue_task("b", u->now);
    task.queue = "q2";
    cr_assert(put(u, &task) == PERF_OK);
    cr_assert(claim_kind(u, "q2", "k", 1) == PERF_OK, "others go on");
    cr_assert(control(u, PERF_QUEUE_RESUME, "q") == PERF_OK && count(u).paused == 0);
    claim_id(u, "a");
}

static size_t find_all(struct under_test *u, perf_queue_filter f, char *ids, size_t size)
{
    char cursor[128] = "";
    size_t found = 0;
    ids[0] = 0;
    f.struct_size = sizeof f;
    do {
        perf__queue_reply_free(&u->reply);
        f.cursor = cursor[0] ? cursor : NULL;
        cr_assert(perf__task_queue_find(u->queue, &f, &u->reply) == PERF_OK, "%s",
                  perf_last_error());
        cr_assert(u->reply.count <= (size_t)f.limit);
        for (size_t i = 0; i < u->reply.count; i++) {
            size_t len = strlen(ids);
            snprintf(ids + len, size - len, "%s%s", len ? " " : "", u->reply.tasks[i]->id);
            cr_assert(!u->reply.tasks[i]->payload.len && !u->reply.tasks[i]->result.len);
        }
        found += u->reply.count;
        snprintf(cursor, sizeof cursor, "%s", u->reply.cursor ? u->reply.cursor : "");
        /* What comes meanwhile is newer than the page: it is not seen. */
        char id[24];
        static int added;
        snprintf(id, sizeof id, "new%d", added++);
        perf_queue_task task = test_queue_task(id, u->now);
        task.queue = "noise";
        task.user = "noise";
        cr_assert(put(u, &task) == PERF_OK);
    } while (cursor[0]);
    return found;
}

static void check_find(struct under_test *u)
{
    static const struct {
        const char *id, *queue, *kind, *user, *batch;
    } tasks[] = {
        {"1", "q", "k", "ann", "b1"}, {"2", "q", "k", "bob", "b1"},   {"3", "q", "k2", "ann", ""},
        {"4", "q2", "k", "ann", ""},  {"5", "q", "k", "", "b2"},      {"6", "q", "k", "ann", "b2"},
        {"7", "q", "k", "bob", "b2"}, {"8", "q2", "k2", "bob", "b1"},
    };
    for (size_t i = 0; i < 8; i++) {
        perf_queue_task task = test_queue_task(tasks[i].id, u->now);
        task.queue = tasks[i].queue;
        task.kind = tasks[i].kind;
        task.user = tasks[i].user;
        task.batch = tasks[i].batch;
        cr_assert(put(u, &task) == PERF_OK);
    }
    static const int64_t ends[] = {PERF_TASK_SUCCEEDED, PERF_TASK_DEAD, PERF_TASK_FAILED};
    static const char *const ids[] = {"1", "2", "5"};
    for (size_t i = 0; i < 3; i++) {
        uint64_t token = claim_id(u, ids[i]);
        cr_assert(finish(u, ids[i], token, ends[i]) == PERF_OK);
    }
    claim_id(u, "6");
    cr_assert(control(u, PERF_QUEUE_CANCEL, "7") == PERF_OK);
    static const struct {
        perf_queue_filter filter;
        const char *ids;
    } looks[] = {
        {{.queue = "q", .limit = 2}, "7 6 5 3 2 1"},
        {{.queue = "q", .limit = 3}, "7 6 5 3 2 1"},
        {{.queue = "q", .limit = 100}, "7 6 5 3 2 1"},
        {{.user = "ann", .limit = 1}, "6 4 3 1"},
        {{.user = "ann", .queue = "q", .limit = 2}, "6 3 1"},
        {{.batch = "b1", .limit = 2}, "8 2 1"},
        {{.batch = "b2", .user = "bob", .limit = 2}, "7"},
        {{.kind = "k2", .limit = 1}, "8 3"},
        {{.state = PERF_TASK_DEAD, .limit = 5}, "2"},
        {{.state = PERF_TASK_FAILED, .limit = 5}, "5"},
        {{.state = PERF_TASK_CANCELLED, .limit = 5}, "7"},
        {{.state = PERF_TASK_SUCCEEDED, .limit = 5}, "1"},
        {{.state = PERF_TASK_RUNNING, .limit = 5}, "6"},
        {{.state = PERF_TASK_QUEUED, .queue = "q2", .limit = 1}, "8 4"},
        {{.user = "nobody", .limit = 1}, ""},
    };
    char found[256];
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        find_all(u, looks[i].filter, found, sizeof found);
        cr_assert(!strcmp(found, looks[i].ids), "look %zu: \"%s\" instead of \"%s\"", i, found,
                  looks[i].ids);
    }
    perf_queue_filter bad = {.struct_size = sizeof bad, .limit = 5, .cursor = "not a cursor"};
    cr_assert(perf__task_queue_find(u->queue, &bad, &u->reply) == PERF_EINVAL);
}

static void check_counts(struct under_test *u)
{
    perf_queue_counts c = count(u);
    for (int i = 0; i < 9; i++)
        cr_assert(!c.by_state[i]);
    cr_assert(!c.oldest_due_ms && !c.paused);
    perf_queue_task task = test_queue_task("w", u->now);
    task.due_ms = u->now + 10;
    cr_assert(put(u, &task) == PERF_OK);
    u->now += 3;
    static const char *const ids[] = {"a", "b", "c", "d", "e", "f", "g"};
    static const int64_t ends[] = {PERF_TASK_RETRYING, PERF_TASK_SUCCEEDED, PERF_TASK_FAILED,
                                   PERF_TASK_CANCELLED, PERF_TASK_DEAD};
    for (size_t i = 0; i < 7; i++)
        cr_assert(put_id(u, ids[i]) == PERF_OK);
    for (size_t i = 0; i < 5; i++) {
        uint64_t token = claim_id(u, ids[i]);
        cr_assert(finish_with(u, (perf_queue_end){.id = ids[i],
                                                  .token = token,
                                                  .state = ends[i],
                                                  .due_ms = u->now + 5,
                                                  .error = ""}) == PERF_OK);
    }
    claim_id(u, "f");
    c = count(u);
    for (int i = 1; i < 9; i++)
        cr_assert(c.by_state[i] == 1, "state %d: %d", i, (int)c.by_state[i]);
    cr_assert(c.oldest_due_ms == u->now);
}

static void check_sweep(struct under_test *u)
{
    for (int i = 0; i < 10; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%d", i);
        perf_queue_task task = test_queue_task(id, u->now);
        task.due_ms = task.rank = u->now + 10 + i;
        cr_assert(put(u, &task) == PERF_OK);
    }
    u->now += 100;
    perf_queue_swept swept = sweep(u, 4);
    cr_assert(count(u).by_state[PERF_TASK_QUEUED] == 4, "a budget of four");
    cr_assert(swept.next_ms == NOW + 14);
    sweep(u, 100);
    cr_assert(claim_kind(u, "q", "k", 10) == PERF_OK && u->reply.count == 10);
    perf_queue_end ends[10];
    for (size_t i = 0; i < 10; i++) {
        cr_assert(u->reply.tasks[i]->due_ms == NOW + 10 + (int64_t)i);
        ends[i] = (perf_queue_end){.struct_size = sizeof *ends,
                                   .id = u->reply.tasks[i]->id,
                                   .token = u->reply.tasks[i]->token,
                                   .state = PERF_TASK_SUCCEEDED,
                                   .now_ms = u->now,
                                   .error = ""};
    }
    cr_assert(perf__task_queue_finish(u->queue, ends, 10) == PERF_OK);
    u->now += 999;
    cr_assert(sweep(u, 100).removed == 0, "keep_ms is a second");
    u->now += 1;
    cr_assert(sweep(u, 6).removed == 6);
    cr_assert(sweep(u, 100).removed == 4 && sweep(u, 100).removed == 0);
    cr_assert(get(u, "s0") == NULL && count(u).by_state[PERF_TASK_SUCCEEDED] == 0);
    cr_assert(put_id(u, "s0") == PERF_OK, "its id is free");
}

static void check_sizes(struct under_test *u)
{
    enum { HUGE_LEN = 10 << 20 };
    unsigned char *bytes = malloc(HUGE_LEN);
    for (size_t i = 0; i < HUGE_LEN; i++)
        bytes[i] = (unsigned char)(i * 31 % 251);
    static const size_t lens[] = {0, 1, 1023, 1024, 1025, 4096, 70000, HUGE_LEN};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        size_t len = lens[i];
        char id[8];
        snprintf(id, sizeof id, "z%zu", i);
        perf_queue_task task = test_queue_task(id, u->now);
        task.payload = (perf_bytes){bytes, len};
        cr_assert(put(u, &task) == PERF_OK);
        const perf_queue_task *t = claim(u);
        cr_assert(t && t->payload.len == len && !memcmp(t->payload.data, bytes, len));
        cr_assert(finish_with(u, (perf_queue_end){.id = id,
                                                  .token = t->token,
                                                  .state = PERF_TASK_SUCCEEDED,
                                                  .error = "",
                                                  .result = {bytes, len}}) == PERF_OK);
        t = get(u, id);
        cr_assert(t->payload.len == len && !memcmp(t->payload.data, bytes, len));
        cr_assert(t->result.len == len && !memcmp(t->result.data, bytes, len), "%zu bytes", len);
    }
    u->now += 1000;
    cr_assert(sweep(u, 100).removed == sizeof lens / sizeof *lens);
    free(bytes);
}

/* ------------------------------------------------------------------- threads */

enum { EXACT_TASKS = 10000, EXACT_THREADS = 8 };

struct exact {
    struct perf__task_queue *queue;
    int wanted;
    atomic_int next, ended;
    atomic_uchar seen[EXACT_TASKS];
};

static void *submit_and_work(void *arg)
{
    struct exact *e = arg;
    struct under_test u = {.queue = e->queue, .now = NOW};
    cr_assert(perf__host_take(NULL, &u.host) == PERF_OK);
    u.reply.allocator = &u.host.allocator;
    while (atomic_load(&e->ended) < e->wanted) {
        int n = atomic_fetch_add(&e->next, 1);
        if (n < e->wanted) {
            char id[16];
            snprintf(id, sizeof id, "x%d", n);
            cr_assert(put_id(&u, id) == PERF_OK);
        }
        int rc = claim_kind(&u, "q", "k", 3);
        if (rc == PERF_MISS)
            perf__task_queue_wait(u.queue, 1);
        for (size_t i = 0; rc == PERF_OK && i < u.reply.count; i++) {
            const perf_queue_task *t = u.reply.tasks[i];
            atomic_fetch_add(&e->seen[atoi(t->id + 1)], 1);
            cr_assert(finish(&u, t->id, t->token, PERF_TASK_SUCCEEDED) == PERF_OK);
            atomic_fetch_add(&e->ended, 1);
        }
    }
    perf__queue_reply_free(&u.reply);
    return NULL;
}

static void check_exactly_once(struct under_test *u)
{
    struct exact *e = calloc(1, sizeof *e);
    e->queue = u->queue;
    e->wanted = u->few ? u->few : EXACT_TASKS;
    pthread_t threads[EXACT_THREADS];
    for (int i = 0; i < EXACT_THREADS; i++)
        cr_assert(!pthread_create(&threads[i], NULL, submit_and_work, e));
    for (int i = 0; i < EXACT_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < e->wanted; i++)
        cr_assert(e->seen[i] == 1, "task %d was given %d times", i, e->seen[i]);
    cr_assert(count(u).by_state[PERF_TASK_SUCCEEDED] == (uint64_t)e->wanted);
    free(e);
}

static void *wait_for_a_task(void *arg)
{
    struct under_test *u = arg;
    const perf_queue_task *t;
    while (!(t = claim(u)))
        perf__task_queue_wait(u->queue, 60000);
    cr_assert(finish(u, t->id, t->token, PERF_TASK_SUCCEEDED) == PERF_OK);
    while (perf__task_queue_wait(u->queue, 60000) == PERF_OK && !claim(u))
        ; /* the wake-up, or the second task */
    return NULL;
}

static void check_wait(struct under_test *u)
{
    if (!perf__task_queue_waits(u->queue))
        return;
    struct under_test other = {.queue = u->queue, .now = u->now};
    cr_assert(perf__host_take(NULL, &other.host) == PERF_OK);
    other.reply.allocator = &other.host.allocator;
    pthread_t thread;
    cr_assert(!pthread_create(&thread, NULL, wait_for_a_task, &other));
    cr_assert(put_id(u, "a") == PERF_OK);
    while (state_of(u, "a") != PERF_TASK_SUCCEEDED)
        perf__task_queue_wait(u->queue, 1);
    cr_assert(put_id(u, "b") == PERF_OK);
    perf__task_queue_wake(u->queue);
    pthread_join(thread, NULL);
    STATE("b", PERF_TASK_RUNNING);
    perf__queue_reply_free(&other.reply);
    cr_assert(perf__task_queue_flush(u->queue) == PERF_OK);
}

/* ------------------------------------------------------------------- the lot */

static const struct {
    void (*check)(struct under_test *u);
    uint64_t needs;
} checks[] = {
    {check_basics, 0},
    {check_many, 0},
    {check_versions_and_queues, 0},
    {check_retries, 0},
    {check_leases, 0},
    {check_order, PERF_QUEUE_PRIORITY},
    {check_delay_and_deadline, 0},
    {check_unique, PERF_QUEUE_UNIQUE},
    {check_limits, PERF_QUEUE_LIMIT},
    {check_limit_threads, PERF_QUEUE_LIMIT},
    {check_after, PERF_QUEUE_AFTER},
    {check_cancel, 0},
    {check_redrive_and_remove, 0},
    {check_pause, 0},
    {check_find, 0},
    {check_counts, 0},
    {check_sweep, 0},
    {check_sizes, 0},
    {check_exactly_once, 0},
    {check_wait, 0},
};

void queue_conformance(const struct queue_conformance *c)
{
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        struct under_test u;
        open_queue(&u, c, NULL);
        uint64_t can = perf__task_queue_capabilities(u.queue);
        if ((can & checks[i].needs) == checks[i].needs)
            checks[i].check(&u);
        close_queue(&u);
    }
}

/* Everything once; whatever fails must fail with PERF_ENOMEM, and leave the queue whole. */
static int use_everything(struct perf__task_queue *queue, struct under_test *u)
{
    int worst = PERF_OK, status;
    perf_queue_task first = test_queue_task("a", NOW), task = test_queue_task("b", NOW);
    task.unique_key = "u";
    task.limit_key = "l";
    task.limit = 1;
    task.user = "ann";
    task.after = "a";
    u->queue = queue;
    int rc = perf__task_queue_enqueue(queue, &first, 1, NULL, NOW, &status, &u->existing);
    worst = rc ? rc : worst;
    rc = rc ? rc : perf__task_queue_enqueue(queue, &task, 1, NULL, NOW, &status, &u->existing);
    worst = rc ? rc : worst;
    rc = claim_kind(u, "q", "k", 2);
    worst = rc < 0 ? rc : worst;
    if (rc == PERF_OK) {
        const perf_queue_task *t = u->reply.tasks[0];
        perf_queue_beat b = {.struct_size = sizeof b,
                             .id = t->id,
                             .token = t->token,
                             .lease_until_ms = NOW + LEASE,
                             .text = "text"};
        rc = perf__task_queue_extend(queue, &b, 1, NOW);
        worst = rc ? rc : worst;
        perf_queue_end end = {.struct_size = sizeof end,
                              .id = t->id,
                              .token = t->token,
                              .state = PERF_TASK_RETRYING,
                              .now_ms = NOW,
                              .error = "error",
                              .status = PERF_EIO};
        rc = perf__task_queue_finish(queue, &end, 1);
        worst = end.outcome ? (int)end.outcome : worst;
    }
    perf__queue_reply_free(&u->reply);
    rc = perf__task_queue_get(queue, "a", &u->reply);
    worst = rc < 0 ? rc : worst;
    perf_queue_filter f = {.struct_size = sizeof f, .limit = 1};
    rc = perf__task_queue_find(queue, &f, &u->reply);
    worst = rc < 0 ? rc : worst;
    perf_queue_counts counts;
    rc = perf__task_queue_count(queue, "q", NOW, &counts);
    worst = rc < 0 ? rc : worst;
    rc = perf__task_queue_control(queue, PERF_QUEUE_CANCEL, "a", NOW, NULL);
    worst = rc < 0 ? rc : worst;
    rc = perf__task_queue_control(queue, PERF_QUEUE_PAUSE, "q9", NOW, NULL);
    worst = rc < 0 ? rc : worst;
    perf_queue_swept swept;
    rc = perf__task_queue_sweep(queue, NOW + 100000, 10, &swept);
    worst = rc < 0 ? rc : worst;
    perf__queue_reply_free(&u->reply);
    return worst;
}

void queue_survives_no_memory(const struct queue_conformance *c)
{
    struct test_host th;
    const perf_host *view = test_host_init(&th);
    bool done = false;
    for (int64_t at = 1; !done; at += c->no_memory_step ? c->no_memory_step : 1) {
        cr_assert(at < 2000, "no end of allocations");
        struct under_test u = {.now = NOW};
        struct perf__task_queue *queue = NULL;
        if (c->empty)
            c->empty(c->ctx);
        cr_assert(perf__host_take(view, &u.host) == PERF_OK);
        u.reply.allocator = &u.host.allocator;
        int64_t failed = th.failed;
        th.fail_at = at;
        int rc = perf__task_queue_open(&c->options, &u.host, &queue);
        if (rc == PERF_OK) {
            rc = use_everything(queue, &u);
            th.fail_at = 0;
            /* It works as if nothing had been. */
            cr_assert(put_id(&u, "last") == PERF_OK, "after allocation %d: %s", (int)at,
                      perf_last_error());
            int claimed;
            while ((claimed = claim_kind(&u, "q", "k", 1)) == PERF_OK &&
                   strcmp(u.reply.tasks[0]->id, "last"))
                ;
            cr_assert(claimed == PERF_OK, "after allocation %d nothing can be claimed", (int)at);
            perf__queue_reply_free(&u.reply);
            perf__task_queue_close(queue);
        }
        th.fail_at = 0;
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "allocation %d: %d %s", (int)at, rc,
                  perf_last_error());
        cr_assert(th.live == 0, "allocation %d: %d blocks remain", (int)at, (int)th.live);
        done = th.failed == failed;
    }
}
