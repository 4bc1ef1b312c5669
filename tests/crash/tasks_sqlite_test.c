/* SPDX-License-Identifier: MIT */
/*
 * kill -9 of workers and submitters at random moments, over SQLite.
 *
 * The test starts itself again as children (told so by the environment, and caught before main).
 * Every child keeps a journal, which the kernel has as soon as write returned:
 *
 *     S <id>           perf_tasks_submit said PERF_OK
 *     B <id> <attempt> a handler begins
 *     E <id> <attempt> a handler is about to return its result
 *
 * In the end the parent works off what is left, and compares. Nothing that was acknowledged is
 * lost; what ran twice did so because a process died, or the attempt's end was not yet
 * acknowledged. At moments of its choice it also looks at results: one that was recorded stays as
 * it was. PERF_TASKS_ROUNDS sets the number of kills.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/base/hash.h"
#include "tasks_fixture.h"

enum { DEFAULT_ROUNDS = 30, ID_SIZE = 72, TASKS_MAX = 400000, EXIT_BY_HANDLER = 30 };

static int journal = -1;
static bool leaves; /* handlers end their process */

static void note(char what, const char *id, long long n)
{
    char line[128];
    int len = snprintf(line, sizeof line, "%c %s %lld\n", what, id, n);
    if (write(journal, line, (size_t)len) != len)
        _exit(20);
}

static perf_tasks_options crash_options(const char *path)
{
    perf_tasks_options o = PERF_TASKS_OPTIONS_INIT;
    o.location = path;
    o.workers = 3;
    o.lease_ms = 400;
    o.poll_ms = 10;
    return o;
}

/* The result tells the attempt, so that a second one could be seen in it. */
static int journaled(perf_run *run, void *ctx)
{
    char result[64];
    (void)ctx;
    long long attempt = (long long)perf_run_attempt(run);
    note('B', perf_run_id(run), attempt);
    if (leaves)
        _exit(EXIT_BY_HANDLER);
    perf_bytes payload;
    if (perf_run_payload(run, &payload) || payload.len != strlen(perf_run_id(run)) ||
        memcmp(payload.data, perf_run_id(run), payload.len) != 0)
        _exit(21);
    if (perf__hash_random_key().k0 % 8 == 0)
        sleep_ms(1);
    int rc = perf_run_result(
        run, result,
        (size_t)snprintf(result, sizeof result, "by %d, %lld", (int)getpid(), attempt));
    note('E', perf_run_id(run), attempt);
    return rc;
}

/* --------------------------------------------------------------------- children */

static void work(const char *path)
{
    perf_tasks *tasks;
    perf_tasks_options o = crash_options(path);
    perf_handler_options h = PERF_HANDLER_OPTIONS_INIT;
    h.max_attempts = -1;
    if (perf_tasks_open(&o, &tasks) || perf_tasks_handle(tasks, "crash", journaled, NULL, &h) ||
        perf_tasks_start(tasks))
        _exit(10);
    for (;;)
        pause();
}

static void submit_for_ever(const char *path)
{
    perf_tasks *tasks;
    perf_tasks_options o = crash_options(path);
    if (perf_tasks_open(&o, &tasks))
        _exit(11);
    for (unsigned n = 0;; n++) {
        char id[ID_SIZE];
        perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
        snprintf(id, sizeof id, "%d-%u", (int)getpid(), n);
        s.id = id;
        s.max_attempts = -1;
        s.delay_ms = n % 5 ? 0 : 20;
        if (perf_tasks_submit(tasks, "crash", id, strlen(id), &s, NULL))
            _exit(12);
        note('S', id, 0);
    }
}

__attribute__((constructor)) static void become_a_child(void)
{
    const char *role = getenv("PERF_TASKS_CHILD");
    const char *path = getenv("PERF_TASKS_DB");
    const char *journal_path = getenv("PERF_TASKS_JOURNAL");
    if (!role || !path || !journal_path)
        return;
    journal = open(journal_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0)
        _exit(13);
    leaves = *role == 'l';
    if (*role == 'w' || leaves)
        work(path);
    submit_for_ever(path);
}

/* ----------------------------------------------------------------------- parent */

static pid_t start(const char *role, const char *path, const char *journal_path)
{
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (!pid) {
        setenv("PERF_TASKS_CHILD", role, 1);
        setenv("PERF_TASKS_DB", path, 1);
        setenv("PERF_TASKS_JOURNAL", journal_path, 1);
        execl("/proc/self/exe", "crash", (char *)NULL);
        _exit(14);
    }
    return pid;
}

static void kill_child(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a child said %d", status);
}

struct seen {
    char id[32];
    bool submitted;
    int begun, ended;
    char result[64]; /* as first seen */
};

static struct seen *all;
static size_t all_count;

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct seen *)a)->id, ((const struct seen *)b)->id);
}

/* Lines into tasks: a count of each kind. The last line may be cut: it was being written. */
static void read_journal(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[128];
    cr_assert_not_null(f);
    struct line {
        char id[32], what;
    } *lines = calloc(TASKS_MAX, sizeof *lines);
    size_t n = 0;
    while (fgets(line, sizeof line, f) && n < TASKS_MAX)
        if (strchr(line, '\n') && sscanf(line, "%c %31s", &lines[n].what, lines[n].id) == 2)
            n++;
    fclose(f);
    all = calloc(n + 1, sizeof *all);
    for (size_t i = 0; i < n; i++)
        memcpy(all[i].id, lines[i].id, sizeof all[i].id);
    qsort(all, n, sizeof *all, by_id);
    for (size_t i = 0; i < n; i++)
        if (!i || strcmp(all[i].id, all[all_count - 1].id) != 0)
            all[all_count++] = all[i];
    for (size_t i = 0; i < n; i++) {
        struct seen key;
        memcpy(key.id, lines[i].id, sizeof key.id);
        struct seen *s = bsearch(&key, all, all_count, sizeof *all, by_id);
        s->submitted |= lines[i].what == 'S';
        s->begun += lines[i].what == 'B';
        s->ended += lines[i].what == 'E';
    }
    free(lines);
}

/* Those that succeeded by now: id and result, kept to be compared with the end. */
struct kept {
    char id[32], result[64];
};

static size_t sample_results(perf_tasks *tasks, struct kept *kept, size_t room)
{
    perf_tasks_filter f = PERF_TASKS_FILTER_INIT;
    perf_tasks_list *list;
    size_t n = 0;
    f.state = PERF_TASK_SUCCEEDED;
    f.limit = 20;
    OK(perf_tasks_find(tasks, &f, &list));
    for (uint64_t i = 0; i < list->count && n < room; i++) {
        perf_task_record *r = NULL;
        OK(perf_tasks_get(tasks, list->records[i]->id, &r));
        snprintf(kept[n].id, sizeof kept[n].id, "%s", r->id);
        snprintf(kept[n++].result, sizeof kept->result, "%.*s", (int)r->result.len,
                 (const char *)r->result.data);
        perf_task_record_free(r);
    }
    perf_tasks_list_free(list);
    return n;
}

static bool all_done(perf_tasks *tasks)
{
    perf_tasks_counts c = PERF_TASKS_COUNTS_INIT;
    OK(perf_tasks_count(tasks, NULL, &c));
    return !c.waiting && !c.queued && !c.running && !c.retrying;
}

/* A task that takes its process with it has had an attempt each time, and no more than it may. */
Test(crash, a_handler_that_exits_has_its_attempts)
{
    enum { ATTEMPTS = 3 };
    char *path = test_temp_file("tasks.db"), journal_path[600];
    snprintf(journal_path, sizeof journal_path, "%s-journal.txt", path);
    perf_tasks_options o = crash_options(path);
    perf_submit_options s = PERF_SUBMIT_OPTIONS_INIT;
    perf_tasks *tasks;
    OK(perf_tasks_open(&o, &tasks)); /* it only submits and looks */
    s.id = "leaves";
    s.max_attempts = ATTEMPTS;
    OK(perf_tasks_submit(tasks, "crash", s.id, strlen(s.id), &s, NULL));
    for (int attempt = 1; attempt <= ATTEMPTS; attempt++) {
        int status;
        pid_t pid = start("leave", path, journal_path);
        cr_assert(waitpid(pid, &status, 0) == pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_BY_HANDLER, "it said %d",
                  status);
        perf_task_record *r = NULL;
        OK(perf_tasks_get(tasks, s.id, &r));
        cr_assert_eq(r->attempts, attempt, "%s", r->history);
        cr_assert_eq(r->state, PERF_TASK_RUNNING, "%s", r->history);
        perf_task_record_free(r);
    }
    /* Whoever finds the last lease over buries it, and runs it no more. */
    pid_t pid = start("leave", path, journal_path);
    perf_task_record *r = NULL;
    OK(perf_tasks_wait(tasks, s.id, 60000, &r));
    cr_assert_eq(r->state, PERF_TASK_DEAD, "%s", r->history);
    cr_assert_eq(r->attempts, ATTEMPTS);
    cr_assert_eq(r->status, PERF_ETIMEDOUT);
    perf_task_record_free(r);
    kill_child(pid);
    OK(perf_tasks_close(tasks, 10000));
    unlink(journal_path);
    test_remove_dir_of(path);
}

Test(crash, tasks_survive_kill)
{
    const char *wanted = getenv("PERF_TASKS_ROUNDS");
    int rounds = wanted ? atoi(wanted) : DEFAULT_ROUNDS;
    char *path = test_temp_file("tasks.db"), journal_path[600];
    snprintf(journal_path, sizeof journal_path, "%s-journal.txt", path);
    perf_tasks_options o = crash_options(path);
    perf_tasks *tasks;
    OK(perf_tasks_open(&o, &tasks));
    struct kept *kept = calloc((size_t)rounds * 20 + 1, sizeof *kept);
    size_t kept_count = 0;
    /* Two workers and a submitter; each round kills one of them and starts another. */
    static const char *const roles[] = {"work", "work", "submit"};
    pid_t pids[3];
    for (int i = 0; i < 3; i++)
        pids[i] = start(roles[i], path, journal_path);
    for (int round = 0; round < rounds; round++) {
        struct timespec pause = {0, 20000000 + (long)(perf__hash_random_key().k0 % 200000000)};
        nanosleep(&pause, NULL);
        int which = round % 3;
        kill_child(pids[which]);
        kept_count += sample_results(tasks, kept + kept_count, 20);
        pids[which] = start(roles[which], path, journal_path);
    }
    for (int i = 0; i < 3; i++)
        kill_child(pids[i]);

    /* What is left is done here. */
    journal = open(journal_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    OK(perf_tasks_handle(tasks, "crash", journaled, NULL, NULL));
    OK(perf_tasks_start(tasks));
    for (int tries = 0; !all_done(tasks); tries++) {
        cr_assert_lt(tries, 6000, "tasks are left over");
        sleep_ms(10);
    }
    OK(perf_tasks_stop(tasks, 10000));
    close(journal);
    read_journal(journal_path);

    size_t submitted = 0, twice = 0, unsaid = 0;
    for (size_t i = 0; i < all_count; i++) {
        struct seen *s = &all[i];
        perf_task_record *r = NULL;
        int rc = perf_tasks_get(tasks, s->id, &r);
        cr_assert_eq(rc, PERF_OK, "%s is lost: %s", s->id, perf_strstatus(rc));
        cr_assert_eq(r->state, PERF_TASK_SUCCEEDED, "%s: %s", s->id, r->history);
        cr_assert_gt(s->ended, 0, "%s succeeded but never ran", s->id);
        /* Its attempts are what was begun, or one that died before its first line. */
        cr_assert_geq(r->attempts, s->ended > 0 ? 1 : 0);
        cr_assert_leq(s->begun, r->attempts, "%s began %d times in %lld attempts: %s", s->id,
                      s->begun, (long long)r->attempts, r->history);
        submitted += s->submitted;
        unsaid += !s->submitted;
        twice += s->begun > 1;
        perf_task_record_free(r);
    }
    for (size_t i = 0; i < kept_count; i++) {
        perf_task_record *r = NULL;
        OK(perf_tasks_get(tasks, kept[i].id, &r));
        cr_assert(r->result.len == strlen(kept[i].result) &&
                      !memcmp(r->result.data, kept[i].result, r->result.len),
                  "the result of %s changed", kept[i].id);
        perf_task_record_free(r);
    }
    fprintf(
        stderr,
        "kill -9: %d kills, %zu tasks acknowledged, 0 lost; %zu results compared, 0 lost; %zu ran "
        "more than once, %zu were kept but not yet acknowledged\n",
        rounds, submitted, kept_count, twice, unsaid);
    cr_assert_gt(submitted, (size_t)rounds);
    cr_assert_leq(unsaid, (size_t)rounds + 3); /* at most one for each death */
    /* Only what a dead process had: on its workers, claimed ahead, and ended without an answer. */
    cr_assert_leq(twice, (size_t)(rounds + 3) * (3 + 256 + 256));
    OK(perf_tasks_close(tasks, 10000));
    free(kept);
    free(all);
    test_remove_dir_of(path);
}
