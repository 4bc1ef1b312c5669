/* SPDX-License-Identifier: MIT */
/* seams.c - test clock, counting and failing allocator, temporary files. */
#include "seams.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails_now(struct test_host *th)
{
    if (!atomic_load(&th->fail_at) || atomic_fetch_sub(&th->fail_at, 1) != 1)
        return 0;
    atomic_fetch_add(&th->failed, 1);
    return 1;
}

static void *counted_alloc(void *ctx, size_t size)
{
    struct test_host *th = ctx;
    void *block = fails_now(th) ? NULL : malloc(size);
    if (block)
        atomic_fetch_add(&th->live, 1);
    return block;
}

static void *counted_realloc(void *ctx, void *block, size_t size)
{
    struct test_host *th = ctx;
    if (fails_now(th))
        return NULL;
    void *grown = realloc(block, size);
    if (grown && !block)
        atomic_fetch_add(&th->live, 1);
    return grown;
}

static void counted_free(void *ctx, void *block)
{
    struct test_host *th = ctx;
    if (block)
        atomic_fetch_sub(&th->live, 1);
    free(block);
}

static int64_t test_monotonic(void *ctx)
{
    return atomic_load(&((struct test_host *)ctx)->monotonic_ns);
}

static int64_t test_realtime(void *ctx)
{
    return atomic_load(&((struct test_host *)ctx)->realtime_ms);
}

static void count_line(void *ctx, int level, const char *module, const char *message)
{
    (void)level, (void)module, (void)message;
    atomic_fetch_add(&((struct test_host *)ctx)->logged, 1);
}

const perf_host *test_host_init(struct test_host *th)
{
    memset(th, 0, sizeof *th);
    th->allocator =
        (perf_allocator){sizeof th->allocator, th, counted_alloc, counted_realloc, counted_free};
    th->clock = (perf_clock){sizeof th->clock, th, test_monotonic, test_realtime};
    th->log = (perf_log){sizeof th->log, th, count_line, PERF_LOG_DEBUG};
    th->host = (perf_host){sizeof th->host, &th->allocator, &th->clock, &th->log};
    atomic_store(&th->monotonic_ns, (int64_t)1000 * 1000000000);
    atomic_store(&th->realtime_ms, (int64_t)1800000000000);
    return &th->host;
}

void test_host_advance(struct test_host *th, int64_t ms)
{
    atomic_fetch_add(&th->monotonic_ns, ms * 1000000);
    atomic_fetch_add(&th->realtime_ms, ms);
}

char *test_temp_file(const char *name)
{
    const char *base = getenv("TMPDIR");
    char dir[512];
    snprintf(dir, sizeof dir, "%s/libperf-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        abort();
    }
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (!path)
        abort();
    snprintf(path, size, "%s/%s", dir, name);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void test_remove_dir_of(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash) {
        *slash = '\0';
        nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    free(path);
}

void test_unset_all(const char *prefix)
{
    extern char **environ;
    char name[128];
    for (char **e = environ; *e;) {
        size_t len = strcspn(*e, "=");
        if (strncmp(*e, prefix, strlen(prefix)) || len >= sizeof name) {
            e++;
            continue;
        }
        memcpy(name, *e, len);
        name[len] = 0;
        unsetenv(name);
        e = environ; /* the list has moved */
    }
}
