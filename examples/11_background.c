/* SPDX-License-Identifier: MIT */
/*
 * 11_background.c - work on a few threads, watched while it goes on.
 *
 * Makes an index of a folder: each file is a task that counts its words, and
 * one parent task goes through the folder and waits for them. The main thread
 * does what a terminal or a page would: it shows how far everything is.
 *
 *     ./11_background [directory]          default: include, or this directory
 */
#include <ctype.h>
#include <dirent.h>
#include <libperf/executor.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 10000, SIZE_MAX_READ = 16 << 20 };

struct file {
    char path[1024];
    size_t bytes, words;
};

struct folder {
    perf_executor *executor;
    struct file *files;
    size_t count;
};

/* A file: counts its words, and looks now and then whether anybody still wants that. */
static int count_words(perf_run *run, void *arg)
{
    struct file *file = arg;
    FILE *in = fopen(file->path, "r");
    bool inside = false;
    if (!in)
        return perf_run_fail(run, PERF_EIO, "the file cannot be opened");
    for (int c; (c = getc(in)) != EOF; file->bytes++) {
        if (file->bytes % 65536 == 0 && perf_run_cancelled(run)) {
            fclose(in);
            return PERF_ECANCELED;
        }
        file->words += !inside && !isspace(c);
        inside = !isspace(c);
    }
    fclose(in);
    return PERF_OK;
}

/* Below path, without links. */
static void walk(struct folder *folder, const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *e; (e = readdir(dir)) && folder->count < FILES_MAX;) {
        struct file *file = &folder->files[folder->count];
        struct stat st;
        if (e->d_name[0] == '.' || snprintf(file->path, sizeof file->path, "%s/%s", path,
                                            e->d_name) >= (int)sizeof file->path)
            continue;
        if (lstat(file->path, &st))
            continue;
        if (S_ISDIR(st.st_mode)) {
            char below[sizeof file->path];
            memcpy(below, file->path, sizeof below);
            walk(folder, below);
        } else if (S_ISREG(st.st_mode) && st.st_size <= SIZE_MAX_READ) {
            folder->count++;
        }
    }
    closedir(dir);
}

/* The folder: one task for each file, all of them parts of this one. */
static int index_folder(perf_run *run, void *arg)
{
    struct folder *folder = arg;
    perf_task_group *group = NULL;
    int rc = perf_task_group_open(folder->executor, &group);
    perf_task_options options = PERF_TASK_OPTIONS_INIT;
    options.name = "count_words";
    options.group = group;
    options.parent = run; /* cancelled with it */
    for (size_t i = 0; i < folder->count && !rc; i++)
        rc = perf_task_submit(folder->executor, count_words, &folder->files[i], &options, NULL);
    perf_task *ended;
    for (uint64_t done = 1; !rc && !(rc = perf_task_group_next(group, -1, &ended)); done++) {
        perf_run_count(run, done, folder->count);
        perf_task_release(ended);
    }
    if (rc == PERF_MISS) /* all have been named */
        rc = perf_task_group_wait(group, -1);
    perf_task_group_close(group);
    return rc;
}

static int by_words(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    return (x->words < y->words) - (x->words > y->words);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : access("include", R_OK) ? "." : "include";
    struct folder folder = {NULL, calloc(FILES_MAX, sizeof *folder.files), 0};
    perf_task *task = NULL;
    if (!folder.files)
        return 1;
    walk(&folder, path);
    if (perf_executor_open(NULL, &folder.executor) ||
        perf_task_submit(folder.executor, index_folder, &folder, NULL, &task)) {
        fprintf(stderr, "%s\n", perf_last_error());
        return 1;
    }
    int rc;
    do {
        rc = perf_task_wait(task, 50, NULL);
        perf_progress p = PERF_PROGRESS_INIT;
        if (!perf_task_progress(task, &p) && isatty(STDERR_FILENO))
            fprintf(stderr, "\r%llu of %llu files", (unsigned long long)p.done,
                    (unsigned long long)p.total);
    } while (rc == PERF_ETIMEDOUT && perf_task_state(task) < PERF_TASK_SUCCEEDED);
    if (rc)
        fprintf(stderr, "%s: %s\n", perf_strerror(rc), perf_task_error(task));
    perf_task_release(task);

    size_t words = 0;
    for (size_t i = 0; i < folder.count; i++)
        words += folder.files[i].words;
    qsort(folder.files, folder.count, sizeof *folder.files, by_words);
    printf("%s: %zu words in %zu files; the longest:\n", path, words, folder.count);
    for (size_t i = 0; i < folder.count && i < 5; i++)
        printf("%8zu  %s\n", folder.files[i].words, folder.files[i].path);
    perf_executor_stats stats = PERF_EXECUTOR_STATS_INIT;
    if (!perf_executor_get_stats(folder.executor, &stats))
        printf("%llu tasks on %llu threads, half of them in less than %lld us\n",
               (unsigned long long)stats.completed, (unsigned long long)stats.threads,
               (long long)stats.run_p50_ns / 1000);
    int closed = perf_executor_close(folder.executor, 10000);
    free(folder.files);
    return rc || closed;
}
