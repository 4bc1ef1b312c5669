/* SPDX-License-Identifier: MIT */
/* task_libperf.c - our subjects of bench-task: "libperf" posts, "libperf-task" submits tasks, which
 * can be waited for and cancelled. */
#include <libperf/executor.h>

#include "task_subject.h"

static perf_executor *executor;

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, perf_last_error());
    exit(1);
}

static void post_empty(void *unused)
{
    (void)unused;
    task_empty();
}

static void post_stamp(void *unused)
{
    (void)unused;
    task_stamp();
}

static void post(void)
{
    if (perf_executor_post(executor, post_empty, NULL))
        die("perf_executor_post");
}

static void stamp(void)
{
    if (perf_executor_post(executor, post_stamp, NULL))
        die("perf_executor_post");
}

static int run_empty(perf_run *run, void *unused)
{
    (void)run;
    (void)unused;
    task_empty();
    return PERF_OK;
}

static void submit(void)
{
    if (perf_task_submit(executor, run_empty, NULL, NULL, NULL))
        die("perf_task_submit");
}

int main(int argc, char **argv)
{
    perf_executor_options options = PERF_EXECUTOR_OPTIONS_INIT;
    int rc;
    task_arguments(argc, argv);
    options.min_threads = strtoul(argv[2], NULL, 10);
    if (perf_executor_open(&options, &executor))
        die("perf_executor_open");
    rc = task_main(strtoull(argv[3], NULL, 10), strcmp(argv[1], "libperf") ? submit : post, stamp,
                   NULL);
    return perf_executor_close(executor, -1) ? 1 : rc;
}
