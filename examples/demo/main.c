/* SPDX-License-Identifier: MIT */
/*
 * main.c - the demo's order of events: load, answer without libperf, answer
 * with it, start again as a new process and answer from what the disk kept.
 *
 * Environment: TRACE=file for requests of your own, DEMO_QUICK=1 for a small
 * run, DEMO_INDEX=file for a Packages file other than the machine's.
 */
#include "demo.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLOT_DIRECTORY "build/demo"
#define PLOT           PLOT_DIRECTORY "/latency.html"
#define RESTARTED      "--after-the-restart"

volatile sig_atomic_t demo_interrupted; /* written by the handler, read by the loops */

static const struct demo_plan FULL = {.max_records = 100000,
                                      .requests = 200000,
                                      .popular = 4000,
                                      .bare_seconds = 10,
                                      .cached_seconds = 20,
                                      .cold_keys = 64,
                                      .hot_keys = 500,
                                      .memory_bytes = 2 << 20};
static const struct demo_plan QUICK = {.max_records = 12000,
                                       .requests = 20000,
                                       .popular = 1000,
                                       .bare_seconds = 1,
                                       .cached_seconds = 5,
                                       .cold_keys = 8,
                                       .hot_keys = 50,
                                       .memory_bytes = 1 << 20};

static void on_signal(int number)
{
    (void)number;
    demo_interrupted = 1;
}

static const char *in_directory(const char *directory, const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%.4000s/%.40s", directory, name);
    return path;
}

/* The files in the demo's own temporary directory, and the directory. */
static void remove_directory(const char *directory)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(directory);
}

/* ------------------------------------------------------------------- restart */

/* The new process: opens the durable file of the one before and answers the same stream. */
static int be_restarted(const char *directory, const struct demo_plan *plan)
{
    struct package_index index;
    struct stream stream = {0};
    struct phase phase = {0};
    char path[PATH_MAX], database[PATH_MAX];
    int rc = -1;

    in_directory(directory, "packages.db", database);
    if (package_index_reopen(database, &index) != 0 ||
        stream_restore(in_directory(directory, "stream", path), plan, index.count, &stream) != 0)
        goto out;
    closure_use(database);
    rc = phase_cached(in_directory(directory, "cache.db", path), "3. after a restart", plan, &index,
                      &stream, &phase, NULL);
    if (rc == 0)
        rc = phase_save(&phase, in_directory(directory, "phase", path));
out:
    closure_thread_end();
    phase_free(&phase);
    stream_free(&stream);
    package_index_free(&index);
    return rc == 0 ? 0 : 1;
}

static int restart(const char *directory, const struct demo_plan *plan, struct phase *phase)
{
    char path[PATH_MAX];
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "demo", RESTARTED, directory, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "demo: the restarted process failed\n");
        return -1;
    }
    return phase_restore(in_directory(directory, "phase", path), plan->requests, phase);
}

/* ------------------------------------------------------------------ in order */

/* The floor that the default stream must reach. */
static int judge(const struct results *r)
{
    double hot = r->cached.hot_requests
                     ? 100.0 * (double)r->cached.hot_hits / (double)r->cached.hot_requests
                     : 0;
    int rc = 0;

    if (hot < 95) {
        fprintf(stderr, "demo: FAILED: hit rate of the hot part is %.2f %%, less than 95 %%\n",
                hot);
        rc = -1;
    }
    /* A time says as much of the machine as of us: told, not judged. */
    if (r->reduction < 60)
        fprintf(stderr,
                "demo: response time fell by %.1f %%; 60 to 80 %% is usual on a machine that is "
                "not busy\n",
                r->reduction);
    if (r->flight.loads != r->flight.keys) {
        fprintf(stderr, "demo: FAILED: %llu cold keys were loaded %llu times\n",
                (unsigned long long)r->flight.keys, (unsigned long long)r->flight.loads);
        rc = -1;
    }
    if (r->restarted.all.loader != 0) {
        fprintf(stderr, "demo: FAILED: after the restart %llu requests ran the body again\n",
                (unsigned long long)r->restarted.all.loader);
        rc = -1;
    }
    if (r->cached.bytes > r->cached.max_bytes || r->cached.failures || r->restarted.failures ||
        r->flight.failures) {
        fprintf(stderr, "demo: FAILED: requests failed, or the memory tier passed its limit\n");
        rc = -1;
    }
    return rc;
}

static int run(const char *directory, const struct demo_plan *plan, const char *trace)
{
    struct package_index index = {0};
    struct stream stream = {0};
    struct results results = {0};
    char path[PATH_MAX], database[PATH_MAX];
    double began = demo_now();
    int rc = -1;

    in_directory(directory, "packages.db", database);
    if (package_index_load(getenv("DEMO_INDEX"), database, plan->max_records, &index) != 0)
        goto out;
    printf("package index: %s: %zu packages, %zu dependencies, %zu provided names\n", index.source,
           index.count, index.depends, index.provides);
    if (trace ? stream_read(trace, plan, index.count, &stream)
              : stream_make(plan, index.count, &stream))
        goto out;
    printf("requests:      %s\n", stream.what);
    fflush(stdout);
    closure_use(database);
    if (phase_bare(plan, &index, &stream, &results.bare) != 0 ||
        phase_cached(in_directory(directory, "cache.db", path), "2. with libperf", plan, &index,
                     &stream, &results.cached, &results.flight) != 0)
        goto out;
    results.wanted = stream.count;
    stream.count = results.cached.requests; /* the restarted process replays what was answered */
    if (stream_save(&stream, in_directory(directory, "stream", path)) != 0 ||
        restart(directory, plan, &results.restarted) != 0 || results_compare(&results) != 0)
        goto out;
    report_table(stdout, plan, &results);
    mkdir("build", 0777);
    mkdir(PLOT_DIRECTORY, 0777);
    if (plot_write(PLOT, plan, &results) != 0)
        goto out;
    printf("plot                     %s\ntotal                    %9.1f s\n", PLOT,
           demo_now() - began);
    rc = trace ? 0 : judge(&results);
out:
    closure_thread_end();
    phase_free(&results.bare);
    phase_free(&results.cached);
    phase_free(&results.restarted);
    stream_free(&stream);
    package_index_free(&index);
    return rc;
}

int main(int argc, char **argv)
{
    const char *quick = getenv("DEMO_QUICK"), *trace = getenv("TRACE"), *tmp = getenv("TMPDIR");
    const struct demo_plan *plan = quick && *quick && strcmp(quick, "0") != 0 ? &QUICK : &FULL;
    struct sigaction action = {.sa_handler = on_signal};
    char directory[PATH_MAX];
    int rc;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (argc == 3 && strcmp(argv[1], RESTARTED) == 0)
        return be_restarted(argv[2], plan);
    if (argc != 1) {
        fprintf(stderr, "usage: [TRACE=file] [DEMO_QUICK=1] [DEMO_INDEX=file] %s\n", argv[0]);
        return 2;
    }
    snprintf(directory, sizeof directory, "%.3900s/libperf-demo-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(directory)) {
        fprintf(stderr, "demo: cannot make %s: %s\n", directory, strerror(errno));
        return 1;
    }
    rc = run(directory, plan, trace && *trace ? trace : NULL);
    remove_directory(directory);
    if (demo_interrupted)
        fprintf(stderr, "demo: interrupted\n");
    return rc == 0 ? 0 : 1;
}
