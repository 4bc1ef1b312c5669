/* SPDX-License-Identifier: MIT */
/* The durable half of the task room: over the memory queue, and over SQLite where files matter. */
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/task/queue.h"
#include "tasks_fixture.h"

static const perf_tasks_options defaults = PERF_TASKS_OPTIONS_INIT;

static perf_tasks_options workers(uint64_t n)
{
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    o.workers = n;
    return o;
}

/* A test for each queue. */
#define BOTH(name)                                               \
    static void name(bool durable);                              \
    Test(tasks, name##_in_memory)                                \
    {                                                            \
        name(false);                                             \
    }                                                            \
    Test(tasks, name##_in_sqlite, .disabled = !PERF_WITH_SQLITE) \
    {                                                            \
        name(true);                                              \
    }                                                            \
    static void name(bool durable)

BOTH(a_task_is_run_and_its_record_says_all)
{
    struct works w;
    works_open(&w, defaults, durable, false);
    works_handle(&w, NULL);
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    o.user = "u1";
    o.batch = "b1";
    o.version = 3;
    perf_task_id id = submit(&w, "obey", "hello", &o);
    cr_assert_eq(strlen(id.text), 26);
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_QUEUED);
    FAILS(perf_tasks_wait(w.tasks, id.text, 1, NULL), PERF_ETIMEDOUT, "after 1 ms");
    OK(perf_tasks_start(w.tasks));
    perf_task_record *r;
    OK(perf_tasks_wait(w.tasks, id.text, 20000, &r));
    cr_assert_eq(r->state, PERF_TASK_SUCCEEDED, "%s", r->error);
    cr_assert_str_eq(r->id, id.text);
    cr_assert_str_eq(r->kind, "obey");
    cr_assert_str_eq(r->user, "u1");
    cr_assert_str_eq(r->batch, "b1");
    cr_assert_str_eq(r->queue, "default");
    cr_assert_eq(r->version, 3);
    cr_assert_eq(r->attempts, 1);
    cr_assert_eq(r->max_attempts, 10);
    cr_assert_eq(r->status, PERF_OK);
    cr_assert(r->result.len == 5 && !memcmp(r->result.data, "hello", 5));
    cr_assert(r->payload.len == 5 && !memcmp(r->payload.data, "hello", 5));
    cr_assert(r->created_ms && r->started_ms >= r->created_ms && r->ended_ms >= r->started_ms);
    cr_assert(strchr(r->worker, ':') && strstr(r->history, r->worker), "%s", r->history);
    perf_task_record_free(r);
    perf_tasks_counts counts = PERF_TASKS_COUNTS_INIT;
    OK(perf_tasks_count(w.tasks, NULL, &counts));
    cr_assert(counts.succeeded == 1 && !counts.queued && !counts.running);
    perf_tasks_stats s = works_stats(&w);
    cr_assert(s.submitted == 1 && s.claimed == 1 && s.succeeded == 1 && !s.lost && !s.running);
    cr_assert(s.run_p99_us >= 0 && s.wait_p50_us >= 0 && !s.queue_errors);
    FAILS(perf_tasks_start(w.tasks), PERF_EBUSY, "started already");
    FAILS(perf_tasks_handle(w.tasks, "late", obey, &w, NULL), PERF_EBUSY, "before");
    OK(perf_tasks_remove(w.tasks, id.text));
    cr_assert_eq(perf_tasks_get(w.tasks, id.text, &r), PERF_MISS);
    cr_assert_eq(perf_tasks_wait(w.tasks, id.text, 100, NULL), PERF_MISS);
    works_close(&w);
}

Test(tasks, options_are_checked_by_name)
{
    perf_tasks *t = NULL;
    perf_tasks_options o = defaults;
#define WRONG(field, value, words) \
    o = defaults;                  \
    o.backend = "memory";          \
    o.field = value;               \
    FAILS(perf_tasks_open(&o, &t), PERF_EINVAL, words)
    WRONG(workers, 513, "workers is 513; give 1 to 512");
    WRONG(lease_ms, 99, "lease_ms is 99");
    WRONG(poll_ms, -1, "poll_ms is -1");
    WRONG(keep_ms, -1, "keep_ms is -1");
    WRONG(sync, 2, "sync is 2");
    WRONG(max_payload, (uint64_t)1 << 40, "max_payload");
    WRONG(max_result, (uint64_t)1 << 40, "max_result");
    WRONG(queues, "a,,b", "queues has \"\"");
    WRONG(queues, "a b", "queues has \"a b\"");
    WRONG(worker, "\x01", "worker is not UTF-8");
    WRONG(backend, "punched-cards", "punched-cards");
#undef WRONG
    FAILS(perf_tasks_open(&defaults, NULL), PERF_EINVAL, "needs a place");
    cr_assert_null(t);
}

Test(tasks, submissions_and_handlers_are_checked_by_name)
{
    struct works w;
    works_open(&w, defaults, false, true);
    works_handle(&w, NULL);
    perf_submit_options s;
#define WRONG(field, value, words)                     \
    s = (perf_submit_options)PERF_SUBMIT_OPTIONS_INIT; \
    s.field = value;                                   \
    FAILS(perf_tasks_submit(w.tasks, "obey", "", 0, &s, NULL), PERF_EINVAL, words)
    static char long_text[200];
    memset(long_text, 'a', sizeof long_text - 1);
    WRONG(user, long_text, "user is 129 bytes long; give 0 to 128");
    WRONG(user, "\xff", "user is not UTF-8");
    WRONG(user, "\xed\xa0\x80", "user is not UTF-8");
    WRONG(user, "a\nb", "at byte 1");
    WRONG(queue, "no blanks", "queue has a character at byte 2");
    WRONG(id, "", "id is 0 bytes long");
    WRONG(id, "a/b", "id has a character at byte 1");
    WRONG(id, long_text, "id is 65 bytes long");
    WRONG(priority, 10, "priority is 10; give -9 to 9");
    WRONG(delay_ms, -1, "delay_ms is -1");
    WRONG(at_ms, -1, "at_ms is -1");
    WRONG(max_attempts, -2, "max_attempts is -2");
    WRONG(timeout_ms, -1, "timeout_ms is -1");
    WRONG(deadline_ms, -1, "deadline_ms is -1");
    WRONG(keep_ms, -1, "keep_ms is -1");
    WRONG(version, -1, "version is -1");
    WRONG(unique_ms, 5, "unique_ms is 5 without a unique_key");
    WRONG(limit, 5, "limit is 5 without a limit_key");
    WRONG(limit_key, long_text, "limit_key is 129 bytes long");
    WRONG(after, "a,,b", "after has \"\"");
    WRONG(after, "a b", "after has \"a b\"");
    WRONG(after_any_end, 1, "after_any_end is 1 without");
    WRONG(batch, long_text, "batch is 129");
    WRONG(struct_size, 3, "perf_submit_options.struct_size");
#undef WRONG
    FAILS(perf_tasks_submit(w.tasks, "", "", 0, NULL, NULL), PERF_EINVAL, "kind is 0 bytes");
    FAILS(perf_tasks_submit(w.tasks, "a b", "", 0, NULL, NULL), PERF_EINVAL, "kind has");
    FAILS(perf_tasks_submit(w.tasks, NULL, "", 0, NULL, NULL), PERF_EINVAL, "kind is NULL");
    FAILS(perf_tasks_submit(w.tasks, "obey", NULL, 1, NULL, NULL), PERF_EINVAL, "payload");
    FAILS(perf_tasks_submit(w.tasks, "obey", "", (1 << 20) + 1, NULL, NULL), PERF_ETOOBIG,
          "max_payload");
    FAILS(perf_tasks_submit(NULL, "obey", "", 0, NULL, NULL), PERF_EINVAL, "NULL");
    perf_handler_options h;
#define WRONG(field, value, words)                       \
    h = (perf_handler_options)PERF_HANDLER_OPTIONS_INIT; \
    h.field = value;                                     \
    FAILS(perf_tasks_handle(w.tasks, "k", obey, &w, &h), PERF_EINVAL, words)
    WRONG(max_attempts, -2, "max_attempts");
    WRONG(timeout_ms, -1, "timeout_ms");
    WRONG(backoff_ms, -1, "backoff_ms");
    WRONG(backoff_max_ms, 1, "backoff_max_ms is 1; give 1000 to");
    WRONG(max_running, -1, "max_running");
    WRONG(per_minute, -1, "per_minute");
    WRONG(version_min, -1, "version_min");
    WRONG(version_max, -1, "version_max");
#undef WRONG
    FAILS(perf_tasks_handle(w.tasks, "k", NULL, &w, NULL), PERF_EINVAL, "is NULL");
    FAILS(perf_tasks_handle(w.tasks, "obey", obey, &w, NULL), PERF_EEXISTS, "has a handler");
    perf_task_record *r;
    FAILS(perf_tasks_get(w.tasks, "a b", &r), PERF_EINVAL, "id has");
    FAILS(perf_tasks_get(w.tasks, "a", NULL), PERF_EINVAL, "needs a place");
    cr_assert_eq(perf_tasks_get(w.tasks, "a", &r), PERF_MISS);
    cr_assert_eq(perf_tasks_cancel(w.tasks, "a"), PERF_MISS);
    cr_assert_eq(perf_tasks_redrive(w.tasks, "a"), PERF_MISS);
    cr_assert_eq(perf_tasks_remove(w.tasks, "a"), PERF_MISS);
    works_close(&w);
}

Test(tasks, what_a_queue_cannot_do_is_refused_by_name)
{
    struct works w;
    works_open(&w, defaults, false, true);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    s.transaction = &s;
    FAILS(perf_tasks_submit(w.tasks, "obey", "", 0, &s, NULL), PERF_EUNSUPPORTED, "transaction");
    FAILS(perf_tasks_start(w.tasks), PERF_EINVAL, "no handler");
    works_close(&w);
}

BOTH(failures_are_retried_and_then_dead)
{
    struct works w;
    works_open(&w, defaults, durable, true);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.max_attempts = 3;
    h.backoff_ms = 60000;
    works_handle(&w, &h);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.fail_with, PERF_EIO);
    atomic_store(&w.fail_times, 2);
    perf_task_id id = submit(&w, "obey", "x", NULL);
    EVENTUALLY(state_of(&w, id.text) == PERF_TASK_RETRYING || works_stats(&w).retried);
    perf_task_record *r = record_of(&w, id.text);
    cr_assert_eq(r->status, PERF_EIO);
    cr_assert_str_eq(r->error, "as told");
    perf_task_record_free(r);
    /* Full jitter: at most a minute, then two. */
    test_host_advance(&w.th, 60001);
    EVENTUALLY(works_stats(&w).retried == 2);
    test_host_advance(&w.th, 120001);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 3);

    atomic_store(&w.fail_times, 3);
    id = submit(&w, "obey", "x", NULL);
    for (uint64_t n = 3; n <= 4; n++) {
        EVENTUALLY(works_stats(&w).retried == n);
        test_host_advance(&w.th, 120001);
    }
    ends_as(&w, id.text, PERF_TASK_DEAD);
    cr_assert_eq(works_stats(&w).dead, 1);

    OK(perf_tasks_redrive(w.tasks, id.text));
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 1);
    cr_assert_eq(perf_tasks_redrive(w.tasks, id.text), PERF_MISS);
    uint64_t n = 7;
    OK(perf_tasks_redrive_all(w.tasks, NULL, &n));
    cr_assert_eq(n, 0);
    works_close(&w);
}

static _Atomic int verdict;
static int decide(void *ctx, perf_run *run, int status, int64_t *delay_ms)
{
    struct works *w = ctx;
    cr_assert(w->tasks && status == PERF_EIO && *perf_run_id(run));
    *delay_ms = 10;
    return atomic_load(&verdict);
}

Test(tasks, who_decides_about_errors)
{
    struct works w;
    works_open(&w, defaults, false, true);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.on_error = decide;
    h.max_attempts = 2;
    OK(perf_tasks_handle(w.tasks, "decide", obey, &w, &h));
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.fail_with, PERF_EINVAL);
    atomic_store(&w.fail_times, 1);
    perf_task_id id = submit(&w, "obey", "", NULL);
    ends_as(&w, id.text, PERF_TASK_FAILED);

    atomic_store(&w.fail_with, PERF_EIO);
    atomic_store(&w.fail_times, 1);
    atomic_store(&verdict, PERF_RETRY_NEVER);
    id = submit(&w, "decide", "", NULL);
    ends_as(&w, id.text, PERF_TASK_FAILED);

    /* Five that are not counted, with room for two. */
    atomic_store(&w.fail_times, 5);
    atomic_store(&verdict, PERF_RETRY_UNCOUNTED);
    id = submit(&w, "decide", "", NULL);
    for (uint64_t n = 1; n <= 5; n++) {
        EVENTUALLY(works_stats(&w).retried == n);
        test_host_advance(&w.th, 10);
    }
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 1);
    works_close(&w);
}

static int snooze(perf_run *run, void *ctx)
{
    struct works *w = ctx;
    if (atomic_fetch_add(&w->runs, 1) < 3)
        return perf_run_snooze(run, 60000);
    return PERF_OK;
}

static int say_nothing(perf_run *run, void *ctx)
{
    (void)run, (void)ctx;
    return PERF_EREMOTE;
}

static int say_nonsense(perf_run *run, void *ctx)
{
    (void)run, (void)ctx;
    return 5;
}

static int say_too_much(perf_run *run, void *ctx)
{
    static char much[1025];
    (void)ctx;
    return perf_run_result(run, much, sizeof much);
}

BOTH(snoozing_costs_no_attempt)
{
    struct works w;
    works_open(&w, defaults, durable, true);
    OK(perf_tasks_handle(w.tasks, "snooze", snooze, &w, NULL));
    OK(perf_tasks_start(w.tasks));
    perf_task_id id = submit(&w, "snooze", "", NULL);
    for (uint64_t n = 1; n <= 3; n++) {
        EVENTUALLY(works_stats(&w).snoozed == n);
        cr_assert_eq(state_of(&w, id.text), PERF_TASK_WAITING);
        test_host_advance(&w.th, 60000);
    }
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 1);
    works_close(&w);
}

Test(tasks, answers_that_are_none)
{
    struct works w;
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    o.max_result = 1024;
    works_open(&w, o, false, true);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.max_attempts = 1;
    OK(perf_tasks_handle(w.tasks, "nothing", say_nothing, &w, &h));
    OK(perf_tasks_handle(w.tasks, "nonsense", say_nonsense, &w, NULL));
    OK(perf_tasks_handle(w.tasks, "much", say_too_much, &w, NULL));
    OK(perf_tasks_start(w.tasks));
    static const struct {
        const char *kind, *error;
        int64_t state, status;
    } cases[] = {
        {"nothing", "the service answered with an error", PERF_TASK_DEAD, PERF_EREMOTE},
        {"nonsense", "the handler returned no status of libperf", PERF_TASK_FAILED, PERF_EINVAL},
        {"much", "the result is larger than perf_tasks_options.max_result", PERF_TASK_FAILED,
         PERF_ETOOBIG},
    };
    for (size_t i = 0; i < 3; i++) {
        perf_task_id id = submit(&w, cases[i].kind, "", NULL);
        ends_as(&w, id.text, cases[i].state);
        perf_task_record *r = record_of(&w, id.text);
        cr_assert_str_eq(r->error, cases[i].error);
        cr_assert_eq(r->status, cases[i].status);
        cr_assert_eq(r->result.len, 0);
        perf_task_record_free(r);
    }
    works_close(&w);
}

BOTH(what_runs_is_asked_to_stop)
{
    struct works w;
    works_open(&w, workers(2), durable, true);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hold, true);
    perf_task_id id = submit(&w, "linger", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    OK(perf_tasks_cancel(w.tasks, id.text)); /* the time stands still: it is told at once */
    ends_as(&w, id.text, PERF_TASK_CANCELLED);
    cr_assert_eq(atomic_load(&w.stopped), PERF_ECANCELED);
    cr_assert_eq(perf_tasks_cancel(w.tasks, id.text), PERF_MISS);
    /* What waits ends at once. */
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    o.delay_ms = 1000000;
    id = submit(&w, "obey", "", &o);
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_WAITING);
    FAILS(perf_tasks_remove(w.tasks, id.text), PERF_EBUSY, "");
    OK(perf_tasks_cancel(w.tasks, id.text));
    ends_as(&w, id.text, PERF_TASK_CANCELLED);
    OK(perf_tasks_redrive(w.tasks, id.text));
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}

BOTH(a_timeout_is_of_an_attempt)
{
    struct works w;
    works_open(&w, defaults, durable, true);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hold, true);
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    o.timeout_ms = 5000;
    o.max_attempts = 1;
    perf_task_id id = submit(&w, "linger", "", &o);
    EVENTUALLY(atomic_load(&w.running) == 1);
    sleep_ms(20);
    cr_assert_eq(atomic_load(&w.running), 1);
    test_host_advance(&w.th, 5001);
    ends_as(&w, id.text, PERF_TASK_DEAD);
    cr_assert_eq(atomic_load(&w.stopped), PERF_ETIMEDOUT);
    perf_task_record *r = record_of(&w, id.text);
    cr_assert_eq(r->status, PERF_ETIMEDOUT);
    perf_task_record_free(r);
    works_close(&w);
}

/* The clock on the wall is set, while that of the machine goes on. */
BOTH(the_clock_is_set)
{
    enum { HOUR_MS = 3600000 };
    struct works w;
    works_open(&w, workers(2), durable, true);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hold, true);
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    o.delay_ms = HOUR_MS / 2;
    perf_task_id running = submit(&w, "linger", "", NULL);
    perf_task_id delayed = submit(&w, "obey", "", &o);
    EVENTUALLY(atomic_load(&w.running) == 1);

    atomic_fetch_sub(&w.th.realtime_ms, HOUR_MS);
    perf_task_id id = submit(&w, "obey", "", NULL); /* nothing waits for the hour to come again */
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(state_of(&w, delayed.text), PERF_TASK_WAITING);
    cr_assert_eq(state_of(&w, running.text), PERF_TASK_RUNNING);

    /* What is due by now runs. What runs already keeps its lease. */
    atomic_fetch_add(&w.th.realtime_ms, 2 * HOUR_MS);
    ends_as(&w, delayed.text, PERF_TASK_SUCCEEDED);
    id = submit(&w, "obey", "", NULL);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    atomic_store(&w.hold, false);
    ends_as(&w, running.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, running.text), 1);
    OK(perf_tasks_stop(w.tasks, 10000));
    perf_tasks_stats stats = works_stats(&w);
    cr_assert_eq(stats.succeeded, 4);
    cr_assert_eq(stats.failed + stats.dead + stats.cancelled, 0);
    works_close(&w);
}

enum { LARGE = 10 << 20 };

static int be_large(perf_run *run, void *ctx)
{
    (void)ctx;
    char *result = malloc(LARGE);
    memset(result, 'x', LARGE);
    int rc = perf_run_result(run, result, LARGE);
    free(result);
    return rc;
}

BOTH(a_large_result_is_kept)
{
    struct works w;
    works_open(&w, defaults, durable, false);
    OK(perf_tasks_handle(w.tasks, "large", be_large, NULL, NULL));
    OK(perf_tasks_start(w.tasks));
    perf_task_id id = submit(&w, "large", "", NULL);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    perf_task_record *r = record_of(&w, id.text);
    cr_assert_eq(r->result.len, LARGE);
    const char *result = r->result.data;
    cr_assert(result[0] == 'x' && !memcmp(result, result + 1, LARGE - 1));
    perf_task_record_free(r);
    works_close(&w);
}

/* A lease is kept as long as the handler runs; beyond its time and a lease it is not. */
BOTH(a_handler_that_hangs_loses_its_task)
{
    struct works w;
    perf_tasks_options o = workers(2);
    o.lease_ms = 9000;
    works_open(&w, o, durable, true);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hang, true);
    perf_task_id id = submit(&w, "ignore", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    for (int i = 0; i < 20; i++) { /* without a timeout: for ever */
        perf_task_record *r = record_of(&w, id.text);
        int64_t lease = r->lease_ms;
        perf_task_record_free(r);
        test_host_advance(&w.th, 3001);
        EVENTUALLY((r = record_of(&w, id.text), perf_task_record_free(r),
                    r = record_of(&w, id.text), lease = r->lease_ms - lease,
                    perf_task_record_free(r), true));
        sleep_ms(10);
    }
    cr_assert_eq(atomic_load(&w.runs), 1);
    cr_assert_eq(works_stats(&w).lost, 0);
    atomic_store(&w.hang, false);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);

    atomic_store(&w.hang, true);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    s.timeout_ms = 1000;
    id = submit(&w, "ignore", "", &s);
    EVENTUALLY(atomic_load(&w.runs) == 2);
    for (int i = 0; i < 200 && atomic_load(&w.runs) == 2; i++) {
        test_host_advance(&w.th, 1000);
        sleep_ms(20);
    }
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED); /* by the other worker */
    cr_assert_eq(attempts_of(&w, id.text), 2);
    cr_assert_eq(works_stats(&w).rescued, 1);
    atomic_store(&w.hang, false);
    EVENTUALLY(works_stats(&w).lost == 1); /* the late end is refused */
    works_close(&w);
}

Test(tasks, closing_gives_back_what_runs_and_what_was_claimed_ahead)
{
    struct works w;
    works_open(&w, workers(2), true, false);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hold, true);
    perf_task_id ids[20];
    for (int i = 0; i < 20; i++)
        ids[i] = submit(&w, "linger", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 2);
    perf_tasks *second;
    perf_tasks_options o = workers(4);
    o.location = w.path;
    OK(perf_tasks_open(&o, &second));
    OK(perf_tasks_close(w.tasks, 0));
    w.tasks = second;
    for (int i = 0; i < 20; i++) {
        perf_task_record *r = record_of(&w, ids[i].text);
        cr_assert_eq(r->state, PERF_TASK_QUEUED, "%lld: %s", (long long)r->state, r->history);
        cr_assert_eq(r->attempts, 0);
        perf_task_record_free(r);
    }
    atomic_store(&w.hold, false);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    for (int i = 0; i < 20; i++)
        ends_as(&w, ids[i].text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}

Test(tasks, a_close_that_cannot_be)
{
    struct works w;
    works_open(&w, workers(1), false, false);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hang, true);
    perf_task_id id = submit(&w, "ignore", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    FAILS(perf_tasks_close(w.tasks, 10), PERF_EBUSY, id.text);
    atomic_store(&w.hang, false);
    works_close(&w);
}

Test(tasks, stopped_and_started_again)
{
    struct works w;
    works_open(&w, workers(2), false, false);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    atomic_store(&w.hold, true);
    perf_task_id id = submit(&w, "linger", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    FAILS(perf_tasks_stop(w.tasks, 10), PERF_ETIMEDOUT, "1 tasks still run");
    atomic_store(&w.hold, false);
    OK(perf_tasks_stop(w.tasks, 20000));
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_SUCCEEDED);
    id = submit(&w, "obey", "", NULL);
    sleep_ms(30);
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_QUEUED);
    OK(perf_tasks_start(w.tasks));
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}

BOTH(the_same_task_twice)
{
    struct works w;
    works_open(&w, defaults, durable, true);
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    perf_task_id first, second = {""};
    o.id = "order-17";
    first = submit(&w, "obey", "", &o);
    cr_assert_str_eq(first.text, "order-17");
    FAILS(perf_tasks_submit(w.tasks, "obey", "", 0, &o, &second), PERF_EEXISTS, "order-17");
    cr_assert_str_eq(second.text, "order-17");
    o.id = NULL;
    o.unique_key = "user 5";
    first = submit(&w, "obey", "", &o);
    FAILS(perf_tasks_submit(w.tasks, "obey", "", 0, &o, &second), PERF_EEXISTS, first.text);
    cr_assert_str_eq(second.text, first.text);
    perf_submission many[3] = {0};
    for (int i = 0; i < 3; i++)
        many[i] =
            (perf_submission){.struct_size = sizeof *many, .kind = "obey", .payload = {"p", 1}};
    many[1].options = &o;
    many[2].kind = "not a kind";
    cr_assert_eq(perf_tasks_submit_many(w.tasks, many, 3), PERF_EINVAL);
    cr_assert_eq(many[0].status, PERF_OK);
    cr_assert_eq(many[1].status, PERF_EEXISTS);
    cr_assert_str_eq(many[1].id.text, first.text);
    cr_assert_eq(many[2].status, PERF_EINVAL);
    cr_assert_eq(state_of(&w, many[0].id.text), PERF_TASK_QUEUED);
    cr_assert_eq(works_stats(&w).duplicates, 3);
    works_close(&w);
}

Test(tasks, so_many_of_a_kind_at_once_and_a_minute)
{
    struct works w;
    works_open(&w, workers(8), false, true);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.max_running = 2;
    OK(perf_tasks_handle(w.tasks, "few", linger, &w, &h));
    h = (perf_handler_options)PERF_HANDLER_OPTIONS_INIT;
    h.per_minute = 5;
    OK(perf_tasks_handle(w.tasks, "slowly", obey, &w, &h));
    perf_task_id ids[12];
    atomic_store(&w.hold, true);
    for (int i = 0; i < 12; i++)
        ids[i] = submit(&w, "few", "", NULL);
    OK(perf_tasks_start(w.tasks));
    EVENTUALLY(atomic_load(&w.running) == 2);
    sleep_ms(50);
    cr_assert_eq(atomic_load(&w.running), 2);
    atomic_store(&w.hold, false);
    for (int i = 0; i < 12; i++)
        ends_as(&w, ids[i].text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(atomic_load(&w.peak), 2);

    atomic_store(&w.runs, 0);
    for (int i = 0; i < 12; i++)
        ids[i] = submit(&w, "slowly", "", NULL);
    EVENTUALLY(atomic_load(&w.runs) == 5);
    sleep_ms(150);
    cr_assert_eq(atomic_load(&w.runs), 5);
    test_host_advance(&w.th, 120000);
    EVENTUALLY(atomic_load(&w.runs) == 10);
    test_host_advance(&w.th, 120000);
    for (int i = 0; i < 12; i++)
        ends_as(&w, ids[i].text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}

Test(tasks, versions_and_kinds_of_others_are_left_alone)
{
    struct works w;
    works_open(&w, defaults, false, false);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.version_min = 2;
    h.version_max = 3;
    OK(perf_tasks_handle(w.tasks, "obey", obey, &w, &h));
    OK(perf_tasks_start(w.tasks));
    perf_task_id ids[4];
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    for (int i = 0; i < 4; i++) {
        o.version = i + 1;
        ids[i] = submit(&w, "obey", "", &o);
    }
    perf_task_id other = submit(&w, "of-others", "", NULL);
    ends_as(&w, ids[1].text, PERF_TASK_SUCCEEDED);
    ends_as(&w, ids[2].text, PERF_TASK_SUCCEEDED);
    sleep_ms(20);
    cr_assert_eq(state_of(&w, ids[0].text), PERF_TASK_QUEUED);
    cr_assert_eq(state_of(&w, ids[3].text), PERF_TASK_QUEUED);
    cr_assert_eq(state_of(&w, other.text), PERF_TASK_QUEUED);
    works_close(&w);
}

BOTH(schedules_submit_each_time_once)
{
    struct works w;
    works_open(&w, defaults, durable, true); /* 2027-01-15T08:00:00Z */
    OK(perf_tasks_handle(w.tasks, "obey", obey, &w, NULL));
    OK(perf_tasks_start(w.tasks));
    perf_submit_options o = PERF_SUBMIT_OPTIONS_INIT;
    o.user = "clock";
    OK(perf_tasks_schedule(w.tasks, "nightly", "30 2 * * *", "Europe/Berlin", "obey", "p", 1, &o));
    FAILS(perf_tasks_schedule(w.tasks, "no name", "* * * * *", NULL, "obey", "", 0, NULL),
          PERF_EINVAL, "name has");
    FAILS(perf_tasks_schedule(w.tasks, "n", "* * 30 2 *", NULL, "obey", "", 0, NULL), PERF_EINVAL,
          "names no time");
    FAILS(perf_tasks_schedule(w.tasks, "n", "x * * * *", NULL, "obey", "", 0, NULL), PERF_EINVAL,
          "minute \"x\"");
    FAILS(perf_tasks_schedule(w.tasks, "n", "* * * * *", "X", "obey", "", 0, NULL), PERF_EINVAL,
          "time zone");
    o.id = "x";
    FAILS(perf_tasks_schedule(w.tasks, "n", "* * * * *", NULL, "obey", "", 0, &o), PERF_EINVAL,
          "id is set");
    perf_tasks *second = NULL; /* another process, as it were */
    if (durable) {
        perf_tasks_options second_options = PERF_TASKS_OPTIONS_INIT;
        second_options.location = w.path;
        second_options.host = &w.th.host;
        OK(perf_tasks_open(&second_options, &second));
        OK(perf_tasks_schedule(second, "nightly", "30 2 * * *", "Europe/Berlin", "obey", "p", 1,
                               NULL));
    }
    sleep_ms(30);
    cr_assert_eq(atomic_load(&w.runs), 0);
    test_host_advance(&w.th, (int64_t)17 * 3600000 + 1800000); /* to 2027-01-16T01:30:00Z */
    EVENTUALLY(atomic_load(&w.runs) == 1);
    ends_as(&w, "nightly:20270116T013000Z", PERF_TASK_SUCCEEDED);
    if (second) {
        perf_tasks_stats s = PERF_TASKS_STATS_INIT;
        do {
            OK(perf_tasks_get_stats(second, &s));
            s.submitted += works_stats(&w).submitted;
            s.duplicates += works_stats(&w).duplicates;
        } while (s.submitted + s.duplicates < 2);
        cr_assert_eq(s.submitted, 1);
        cr_assert_eq(s.duplicates, 1);
        OK(perf_tasks_close(second, 0));
    }
    /* A machine that slept over two times runs one of them. */
    test_host_advance(&w.th, (int64_t)48 * 3600000 + 60000);
    EVENTUALLY(atomic_load(&w.runs) == 2);
    test_host_advance(&w.th, (int64_t)24 * 3600000);
    EVENTUALLY(atomic_load(&w.runs) == 3);
    OK(perf_tasks_unschedule(w.tasks, "nightly"));
    cr_assert_eq(perf_tasks_unschedule(w.tasks, "nightly"), PERF_MISS);
    test_host_advance(&w.th, (int64_t)24 * 3600000);
    sleep_ms(30);
    cr_assert_eq(atomic_load(&w.runs), 3);
    works_close(&w);
}

/* ------------------------------------------------------------------------- hooks */

struct trace {
    char text[256];
    int refuse;
};

static int before_a(void *ctx, perf_run *run)
{
    struct trace *t = ctx;
    strcat(strcat(t->text, "a>"), perf_run_kind(run));
    return PERF_OK;
}

static int before_b(void *ctx, perf_run *run)
{
    struct trace *t = ctx;
    strcat(t->text, " b>");
    return t->refuse ? perf_run_fail(run, t->refuse, "not today") : PERF_OK;
}

static void after_a(void *ctx, perf_run *run, int status, int state)
{
    struct trace *t = ctx;
    (void)run;
    snprintf(t->text + strlen(t->text), 64, " <a %d %d", status, state);
}

static void after_b(void *ctx, perf_run *run, int status, int state)
{
    (void)run, (void)status, (void)state;
    strcat(((struct trace *)ctx)->text, " <b");
}

Test(tasks, hooks_nest_around_a_run)
{
    struct works w;
    struct trace trace = {"", 0};
    works_open(&w, workers(1), false, true);
    works_handle(&w, NULL);
    perf_task_hooks a = PERF_TASK_HOOKS_INIT, b = PERF_TASK_HOOKS_INIT;
    a.ctx = b.ctx = &trace;
    a.before = before_a;
    a.after = after_a;
    b.before = before_b;
    b.after = after_b;
    OK(perf_tasks_hook(w.tasks, &a));
    OK(perf_tasks_hook(w.tasks, &b));
    OK(perf_tasks_start(w.tasks));
    FAILS(perf_tasks_hook(w.tasks, &a), PERF_EBUSY, "before perf_tasks_start");
    perf_task_id id = submit(&w, "obey", "", NULL);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_str_eq(trace.text, "a>obey b> <b <a 0 5");
    trace.text[0] = 0;
    trace.refuse = PERF_EINVAL;
    id = submit(&w, "obey", "", NULL);
    ends_as(&w, id.text, PERF_TASK_FAILED);
    cr_assert_str_eq(trace.text, "a>obey b> <b <a -1 6");
    cr_assert_eq(atomic_load(&w.runs), 1);
    works_close(&w);
}

/* ------------------------------------------------------------------------ pulled */

BOTH(tasks_can_be_pulled)
{
    struct works w;
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    o.lease_ms = 9000;
    works_open(&w, o, durable, true);
    perf_run *run = NULL;
    FAILS(perf_tasks_claim(w.tasks, NULL, 0, &run), PERF_EINVAL, "name a kind");
    cr_assert_eq(perf_tasks_claim(w.tasks, "pulled", 0, &run), PERF_MISS);
    cr_assert_eq(perf_tasks_claim(w.tasks, "pulled", 20, &run), PERF_MISS);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    s.user = "u";
    s.version = 4;
    perf_task_id id = submit(&w, "pulled", "load", &s);
    OK(perf_tasks_claim(w.tasks, "pulled", 1000, &run));
    cr_assert_str_eq(perf_run_id(run), id.text);
    cr_assert_str_eq(perf_run_kind(run), "pulled");
    cr_assert_str_eq(perf_run_user(run), "u");
    cr_assert_eq(perf_run_version(run), 4);
    cr_assert_eq(perf_run_attempt(run), 1);
    perf_bytes payload;
    OK(perf_run_payload(run, &payload));
    cr_assert(payload.len == 4 && !memcmp(payload.data, "load", 4));
    FAILS(perf_run_payload(run, NULL), PERF_EINVAL, "payload");
    OK(perf_run_cancelled(run));
    OK(perf_run_progress(run, 0.5, "half\nway"));
    test_host_advance(&w.th, 3001); /* a beat takes it along */
    perf_task_record *r = NULL;
    for (int i = 0; i < 20000; i++) {
        r = record_of(&w, id.text);
        if (r->fraction > 0)
            break;
        perf_task_record_free(r);
        sleep_ms(1);
    }
    cr_assert(r->fraction > 0.49 && r->fraction < 0.51);
    cr_assert_str_eq(r->text, "half way");
    cr_assert_eq(r->state, PERF_TASK_RUNNING);
    perf_task_record_free(r);
    OK(perf_run_result(run, "done", 4));
    OK(perf_run_end(run, PERF_OK));
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);

    id = submit(&w, "pulled", "", NULL);
    OK(perf_tasks_claim(w.tasks, "pulled", 1000, &run));
    OK(perf_tasks_cancel(w.tasks, id.text));
    EVENTUALLY(perf_run_cancelled(run) == PERF_ECANCELED);
    OK(perf_run_end(run, PERF_ECANCELED));
    ends_as(&w, id.text, PERF_TASK_CANCELLED);
    FAILS(perf_run_end(NULL, 0), PERF_EINVAL, "perf_tasks_claim");
    FAILS(perf_run_payload(NULL, &payload), PERF_EINVAL, "durable");
    FAILS(perf_run_snooze(NULL, 1), PERF_EINVAL, "durable");
    works_close(&w);
}

/* ----------------------------------------------------------------------- queues */

Test(tasks, queues_have_an_order_and_can_be_paused)
{
    struct works w;
    perf_tasks_options o = workers(1);
    o.queues = "first,second";
    works_open(&w, o, false, false);
    works_handle(&w, NULL);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    s.queue = "first";
    OK(perf_tasks_pause(w.tasks, "first"));
    perf_task_id one = submit(&w, "obey", "", &s);
    s.queue = "second";
    perf_task_id two = submit(&w, "obey", "", &s);
    OK(perf_tasks_start(w.tasks));
    ends_as(&w, two.text, PERF_TASK_SUCCEEDED);
    sleep_ms(20);
    cr_assert_eq(state_of(&w, one.text), PERF_TASK_QUEUED);
    perf_tasks_counts c = PERF_TASKS_COUNTS_INIT;
    OK(perf_tasks_count(w.tasks, "first", &c));
    cr_assert(c.paused == 1 && c.queued == 1);
    OK(perf_tasks_resume(w.tasks, "first"));
    ends_as(&w, one.text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}

BOTH(lists_come_in_pages)
{
    struct works w;
    works_open(&w, defaults, durable, true);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    for (int i = 0; i < 25; i++) {
        s.user = i % 2 ? "odd" : "even";
        submit(&w, "obey", "x", &s);
        test_host_advance(&w.th, 1);
    }
    perf_tasks_filter f = PERF_TASKS_FILTER_INIT;
    f.user = "odd";
    f.limit = 5;
    char cursor[600];
    uint64_t seen = 0;
    int64_t newest = INT64_MAX;
    for (int pages = 0; pages < 30; pages++) {
        perf_tasks_list *list;
        OK(perf_tasks_find(w.tasks, &f, &list));
        for (uint64_t i = 0; i < list->count; i++) {
            cr_assert_str_eq(list->records[i]->user, "odd");
            cr_assert_leq(list->records[i]->created_ms, newest);
            cr_assert_eq(list->records[i]->payload.len, 0);
            newest = list->records[i]->created_ms;
        }
        seen += list->count;
        bool last = !list->cursor;
        if (!last)
            f.cursor = strcpy(cursor, list->cursor);
        perf_tasks_list_free(list);
        if (last)
            break;
    }
    cr_assert_eq(seen, 12);
    perf_tasks_list *list;
    f.limit = 1001;
    FAILS(perf_tasks_find(w.tasks, &f, &list), PERF_EINVAL, "limit is 1001");
    works_close(&w);
}

/* ----------------------------------------------------------------------- outages */

static _Atomic bool out; /* the memory queue cannot be reached */

static int out_claim(void *queue, const perf_queue_claim *want, perf_queue_reply *reply)
{
    return atomic_load(&out) ? PERF_EUNAVAILABLE : perf__queue_memory.claim(queue, want, reply);
}

static int out_extend(void *queue, perf_queue_beat *beats, size_t count, int64_t now_ms)
{
    return atomic_load(&out) ? PERF_EUNAVAILABLE
                             : perf__queue_memory.extend(queue, beats, count, now_ms);
}

static int out_finish(void *queue, perf_queue_end *ends, size_t count)
{
    return atomic_load(&out) ? PERF_EUNAVAILABLE : perf__queue_memory.finish(queue, ends, count);
}

static int out_sweep(void *queue, int64_t now_ms, size_t budget, perf_queue_swept *swept)
{
    return atomic_load(&out) ? PERF_EUNAVAILABLE
                             : perf__queue_memory.sweep(queue, now_ms, budget, swept);
}

static void outage_open(struct works *w, perf_queue_vtable *vtable)
{
    perf_tasks_options o = workers(2);
    *vtable = perf__queue_memory;
    vtable->claim = out_claim;
    vtable->extend = out_extend;
    vtable->finish = out_finish;
    vtable->sweep = out_sweep;
    o.vtable = vtable;
    o.lease_ms = 30000;
    atomic_store(&out, false);
    works_open(w, o, false, true);
    works_handle(w, NULL);
    OK(perf_tasks_start(w->tasks));
    atomic_store(&w->hold, true);
}

Test(tasks, a_short_outage_costs_no_result)
{
    struct works w;
    perf_queue_vtable vtable;
    outage_open(&w, &vtable);
    perf_task_id id = submit(&w, "linger", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    atomic_store(&out, true);
    atomic_store(&w.hold, false); /* it ends, and nobody can be told */
    EVENTUALLY(atomic_load(&w.running) == 0);
    for (int i = 0; i < 20; i++) {
        uint64_t errors = works_stats(&w).queue_errors;
        test_host_advance(&w.th, 1000);
        EVENTUALLY(works_stats(&w).queue_errors > errors);
    }
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_RUNNING);
    atomic_store(&out, false);
    for (int i = 0; i < 1000 && state_of(&w, id.text) == PERF_TASK_RUNNING; i++) {
        test_host_advance(&w.th, 1000);
        sleep_ms(10);
    }
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 1);
    cr_assert_eq(works_stats(&w).lost, 0);
    cr_assert_eq(atomic_load(&w.runs), 1);
    works_close(&w);
}

Test(tasks, after_a_long_outage_a_task_runs_again)
{
    struct works w;
    perf_queue_vtable vtable;
    outage_open(&w, &vtable);
    perf_task_id id = submit(&w, "linger", "", NULL);
    EVENTUALLY(atomic_load(&w.running) == 1);
    atomic_store(&out, true);
    atomic_store(&w.hold, false);
    EVENTUALLY(atomic_load(&w.running) == 0);
    for (int i = 0; i < 1000 && !works_stats(&w).lost; i++) {
        test_host_advance(&w.th, 5000);
        sleep_ms(10);
    }
    cr_assert_eq(works_stats(&w).lost, 1);
    atomic_store(&out, false);
    test_host_advance(&w.th, 5000);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    cr_assert_eq(attempts_of(&w, id.text), 2);
    cr_assert_eq(atomic_load(&w.runs), 2);
    works_close(&w);
}

Test(tasks, a_pulled_task_that_was_lost)
{
    struct works w;
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    o.lease_ms = 9000;
    works_open(&w, o, false, true);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    s.timeout_ms = 1000;
    perf_task_id id = submit(&w, "pulled", "", &s);
    perf_run *run = NULL, *second = NULL;
    OK(perf_tasks_claim(w.tasks, "pulled", 1000, &run));
    for (int i = 0; i < 1000 && !works_stats(&w).rescued; i++) {
        test_host_advance(&w.th, 1000);
        sleep_ms(10);
    }
    OK(perf_tasks_claim(w.tasks, "pulled", 1000, &second));
    cr_assert_eq(perf_run_attempt(second), 2);
    FAILS(perf_run_end(run, PERF_OK), PERF_ECONFLICT, "lease of this task was lost");
    cr_assert_eq(perf_run_snooze(second, 5000), PERF_EBUSY);
    OK(perf_run_end(second, PERF_EBUSY));
    cr_assert_eq(state_of(&w, id.text), PERF_TASK_WAITING);
    works_close(&w);
}

/* ------------------------------------------------------------------- many at once */

enum { SUBMITTERS = 4, EACH = 300 };

static void *submit_many(void *arg)
{
    struct works *w = arg;
    for (int i = 0; i < EACH; i += 10) {
        perf_submission many[10];
        for (int k = 0; k < 10; k++)
            many[k] =
                (perf_submission){.struct_size = sizeof *many, .kind = "obey", .payload = {"x", 1}};
        OK(perf_tasks_submit_many(w->tasks, many, 10));
        OK(perf_tasks_wait(w->tasks, many[9].id.text, 20000, NULL));
    }
    return NULL;
}

BOTH(every_task_of_many_threads_runs_once)
{
    struct works w;
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.max_running = 4; /* and other kinds without work: a wait must hear that there is room again */
    works_open(&w, workers(4), durable, false);
    works_handle(&w, &h);
    OK(perf_tasks_start(w.tasks));
    pthread_t threads[SUBMITTERS];
    for (int i = 0; i < SUBMITTERS; i++)
        cr_assert(!pthread_create(&threads[i], NULL, submit_many, &w));
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_join(threads[i], NULL);
    EVENTUALLY(works_stats(&w).succeeded == SUBMITTERS * EACH);
    cr_assert_eq(atomic_load(&w.runs), SUBMITTERS * EACH);
    perf_tasks_stats s = works_stats(&w);
    cr_assert(!s.lost && !s.retried && s.submitted == SUBMITTERS * EACH);
    works_close(&w);
}

#ifndef TEST_WITHOUT_CRITERION
Test(tasks, a_forked_child_is_told_so)
{
    struct works w;
    works_open(&w, defaults, true, false);
    works_handle(&w, NULL);
    OK(perf_tasks_start(w.tasks));
    pid_t pid = fork();
    if (!pid) {
        perf_task_record *r;
        bool ok = perf_tasks_submit(w.tasks, "obey", "", 0, NULL, NULL) == PERF_EFORKED &&
                  perf_tasks_get(w.tasks, "x", &r) == PERF_EFORKED &&
                  perf_tasks_start(w.tasks) == PERF_EFORKED &&
                  perf_tasks_close(w.tasks, 0) == PERF_OK;
        _exit(ok ? 0 : 1);
    }
    int status;
    cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
    perf_task_id id = submit(&w, "obey", "", NULL);
    ends_as(&w, id.text, PERF_TASK_SUCCEEDED);
    works_close(&w);
}
#endif

/* Whatever allocation fails, nothing leaks or hangs, and what was kept is run in the end. */
Test(tasks, no_memory)
{
    for (int64_t n = 1; n < 400; n += n < 60 ? 1 : 7) {
        struct test_host th;
        struct works w = {0};
        perf_tasks_options o = workers(2);
        o.backend = "memory";
        o.lease_ms = 100;
        o.host = test_host_init(&th);
        th.host.clock = NULL;
        atomic_store(&th.fail_at, n);
        int rc = perf_tasks_open(&o, &w.tasks);
        perf_task_id id = {""};
        if (!rc)
            rc = perf_tasks_handle(w.tasks, "obey", obey, &w, NULL);
        if (!rc)
            rc =
                perf_tasks_schedule(w.tasks, "s", "@yearly", "Europe/Berlin", "obey", "p", 1, NULL);
        if (!rc)
            rc = perf_tasks_submit(w.tasks, "obey", "x", 1, NULL, &id);
        if (!rc)
            rc = perf_tasks_start(w.tasks);
        if (!rc) {
            perf_task_record *r = NULL;
            rc = perf_tasks_wait(w.tasks, id.text, 20000, &r);
            cr_assert(rc == PERF_ENOMEM || r->state == PERF_TASK_SUCCEEDED ||
                          r->state == PERF_TASK_DEAD,
                      "%lld: %s", (long long)n, perf_strstatus(rc));
            perf_task_record_free(r);
        }
        cr_assert(rc == PERF_OK || rc == PERF_ENOMEM, "%lld: %s: %s", (long long)n,
                  perf_strstatus(rc), perf_last_error());
        atomic_store(&th.fail_at, 0);
        OK(perf_tasks_close(w.tasks, 10000));
        cr_assert_eq(atomic_load(&th.live), 0, "%lld: %lld blocks", (long long)n,
                     (long long)atomic_load(&th.live));
        if (!atomic_load(&th.failed))
            break;
    }
}
