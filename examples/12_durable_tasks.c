/* SPDX-License-Identifier: MIT */
/*
 * 12_durable_tasks.c - work that is still there when the process is not.
 *
 * A child process submits twenty reports, works on them, and is killed by
 * kill -9 in the middle. The parent opens the same file, shows what is left, and has
 * it done: what the child had under way runs again, what it had finished does
 * not.
 */
#include <libperf/task.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REPORTS = 20, KILLED_AFTER = 7 };

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* Writes a report. At least once: it may run again, so it must not mind. */
static int write_report(perf_run *run, void *ctx)
{
    int *left = ctx; /* how many until the accident; NULL: there is none */
    perf_bytes course;
    char text[64];
    int rc = perf_run_payload(run, &course);
    if (rc)
        return rc;
    for (int page = 1; page <= 5; page++) {
        if ((rc = perf_run_cancelled(run)))
            return rc;
        perf_run_progress(run, page / 5.0, "writing");
        sleep_ms(2);
    }
    if (left && --*left < 0)
        kill(getpid(), SIGKILL);
    int len = snprintf(text, sizeof text, "report on %.*s, attempt %lld", (int)course.len,
                       (const char *)course.data, (long long)perf_run_attempt(run));
    return perf_run_result(run, text, (size_t)len);
}

static int open_tasks(const char *path, perf_tasks **tasks)
{
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.location = path;
    options.workers = 1;
    options.lease_ms = 300; /* so that the example does not last: give it its default */
    return perf_tasks_open(&options, tasks);
}

static void child(const char *path)
{
    perf_tasks *tasks;
    int left = KILLED_AFTER;
    if (open_tasks(path, &tasks) || perf_tasks_handle(tasks, "report", write_report, &left, NULL))
        _exit(1);
    for (int i = 0; i < REPORTS; i++) {
        char id[32], course[32];
        perf_submit_options options = PERF_SUBMIT_OPTIONS_INIT;
        snprintf(id, sizeof id, "report-%02d", i); /* submitted twice, it is there once */
        int len = snprintf(course, sizeof course, "course %d", i);
        options.id = id;
        options.user = "teacher";
        if (perf_tasks_submit(tasks, "report", course, (size_t)len, &options, NULL))
            _exit(2);
    }
    if (perf_tasks_start(tasks))
        _exit(3);
    pause();
    _exit(4);
}

static int show(perf_tasks *tasks, const char *when)
{
    perf_tasks_counts c = PERF_TASKS_COUNTS_INIT;
    int rc = perf_tasks_count(tasks, NULL, &c);
    if (!rc)
        printf("%-16s %2llu queued, %llu running, %2llu succeeded\n", when,
               (unsigned long long)c.queued, (unsigned long long)c.running,
               (unsigned long long)c.succeeded);
    return rc;
}

static int finish(perf_tasks *tasks)
{
    int rc = show(tasks, "after kill -9:");
    if (rc || (rc = perf_tasks_handle(tasks, "report", write_report, NULL, NULL)) ||
        (rc = perf_tasks_start(tasks)))
        return rc;
    for (int i = 0; i < REPORTS && !rc; i++) {
        char id[32];
        perf_task_record *r = NULL;
        snprintf(id, sizeof id, "report-%02d", i);
        rc = perf_tasks_wait(tasks, id, 10000, &r);
        if (!rc && r->state != PERF_TASK_SUCCEEDED)
            rc = PERF_EREMOTE;
        if (!rc && r->attempts > 1)
            printf("%s ran again:\n  %.*s\n  %s\n", id, (int)r->result.len,
                   (const char *)r->result.data, r->history);
        perf_task_record_free(r);
    }
    return rc ? rc : show(tasks, "in the end:");
}

int main(void)
{
    char dir[] = "/tmp/libperf-example-XXXXXX", path[64], command[96];
    perf_tasks *tasks = NULL;
    int status, rc;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/tasks.db", dir);
    pid_t pid = fork();
    if (!pid)
        child(path);
    waitpid(pid, &status, 0);
    printf("the child %s\n", WIFSIGNALED(status) ? "was killed" : "failed");
    rc = open_tasks(path, &tasks);
    if (!rc)
        rc = finish(tasks);
    if (rc)
        fprintf(stderr, "%s: %s\n", perf_strerror(rc), perf_last_error());
    int closed = perf_tasks_close(tasks, 1000);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return rc || closed || system(command) || !WIFSIGNALED(status);
}
