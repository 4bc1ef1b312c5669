/* SPDX-License-Identifier: MIT */
/*
 * leaks.c - counts /proc/self/fd and /proc/self/task.
 *
 * A thread that was joined may still be listed for a moment, as the kernel takes it off the list
 * only after it has woken the joiner: hence the wait.
 */
#include "leaks.h"

#include "test.h"

#include <dirent.h>
#include <time.h>
#include <unistd.h>

static int count(const char *path, int without)
{
    DIR *dir = opendir(path);
    int n = 0;
    if (!dir)
        return -1;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2 - without; /* "." and ".." */
}

int test_leaks_fds(void)
{
    return count("/proc/self/fd", 1); /* the one it is read through */
}

int test_leaks_threads(void)
{
    return count("/proc/self/task", 0);
}

struct test_leaks test_leaks_begin(void)
{
    struct test_leaks now = {test_leaks_fds(), test_leaks_threads()};
    cr_assert(now.fds > 0 && now.threads > 0, "/proc is not there");
    return now;
}

static void list_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[300], to[256];
        ssize_t n;
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        n = readlink(path, to, sizeof to - 1);
        if (n > 0)
            fprintf(stderr, "    fd %s: %.*s\n", entry->d_name, (int)n, to);
    }
    if (dir)
        closedir(dir);
}

void test_leaks_end(const struct test_leaks *before)
{
    struct test_leaks now = {0, 0};
    for (int waited = 0; waited < 5000; waited += 5) {
        now.fds = test_leaks_fds();
        now.threads = test_leaks_threads();
        if (now.fds <= before->fds && now.threads <= before->threads)
            return; /* fewer: what an earlier test of this process left has ended meanwhile */
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    list_fds();
    cr_assert_leq(now.fds, before->fds, "descriptors: %d, were %d", now.fds, before->fds);
    cr_assert_leq(now.threads, before->threads, "threads: %d, were %d", now.threads,
                  before->threads);
}
