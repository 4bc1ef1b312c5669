/* SPDX-License-Identifier: MIT */
/*
 * kill -9 at random moments: everything that was acknowledged is there.
 *
 * The test starts itself again as a child (told so by an environment variable,
 * and caught before main), which writes with several threads through a
 * write-through tier and reports each acknowledged number through a pipe. The
 * parent kills it, opens the same file and looks. PERF_CRASH_ROUNDS sets the
 * number of rounds.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/base/hash.h"
#include "../../src/cache/tier.h"
#include "seams.h"
#include "store_conformance.h"
#include "test.h"

enum { THREADS = 4, DEFAULT_ROUNDS = 20, ACK_FD = 3, RECORD_MAX = 3000 };

/* Record n is made of n, so that it can be checked without being remembered. */
static size_t make_record(uint64_t n, unsigned char *record)
{
    size_t len = 16 + (size_t)(perf__mix64(n) % (RECORD_MAX - 16));
    for (size_t i = 0; i < len; i++)
        record[i] = (unsigned char)(n * 131 + i * 7);
    return len;
}

static perf_tier_options options_for(const char *path)
{
    perf_tier_options options = PERF_TIER_OPTIONS_INIT;
    options.backend = "sqlite";
    options.location = path;
    options.timeout_ms = 10000;
    return options;
}

/* --------------------------------------------------------------------- child */

struct writer {
    struct perf__tier *tier;
    uint64_t first;
};

static void *write_for_ever(void *arg)
{
    struct writer *w = arg;
    unsigned char record[RECORD_MAX];
    for (uint64_t n = w->first;; n += THREADS) {
        struct test_key own;
        uint64_t ticket;
        size_t len = make_record(n, record);
        perf_store_op op = test_set(&own, n, record, len, n % 2 ? 0 : INT64_MAX);
        if (perf__tier_submit(w->tier, &op, &ticket) || perf__tier_wait(w->tier, ticket))
            _exit(2);
        if (write(ACK_FD, &n, sizeof n) != (ssize_t)sizeof n) /* whole: shorter than PIPE_BUF */
            _exit(3);
    }
    return NULL;
}

__attribute__((constructor)) static void become_the_child(void)
{
    const char *path = getenv("PERF_CRASH_CHILD");
    const char *first = getenv("PERF_CRASH_FIRST");
    if (!path || !first)
        return;
    static struct perf__host host;
    static struct writer writers[THREADS];
    struct perf__tier *tier;
    perf_tier_options options = options_for(path);
    if (perf__host_take(NULL, &host) || perf__tier_open(&options, &host, NULL, NULL, &tier))
        _exit(4);
    pthread_t thread;
    for (uint64_t i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){tier, strtoull(first, NULL, 10) + i};
        if (pthread_create(&thread, NULL, write_for_ever, &writers[i]))
            _exit(5);
    }
    pthread_join(thread, NULL);
    _exit(6);
}

/* -------------------------------------------------------------------- parent */

static pid_t start_child(const char *path, uint64_t first, int *acks)
{
    int ends[2];
    char number[32];
    cr_assert(!pipe2(ends, O_CLOEXEC));
    snprintf(number, sizeof number, "%llu", (unsigned long long)first);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (!pid) {
        setenv("PERF_CRASH_CHILD", path, 1);
        setenv("PERF_CRASH_FIRST", number, 1);
        if (ends[1] == ACK_FD ? fcntl(ACK_FD, F_SETFD, 0) : dup2(ends[1], ACK_FD) < 0)
            _exit(7);
        execl("/proc/self/exe", "crash", (char *)NULL);
        _exit(8);
    }
    close(ends[1]);
    *acks = ends[0];
    return pid;
}

static bool read_ack(int acks, uint64_t *n)
{
    ssize_t got;
    do
        got = read(acks, n, sizeof *n);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof *n;
}

static void check_all(const char *path, const uint64_t *acked, size_t count)
{
    struct perf__host host;
    struct perf__store *store;
    unsigned char record[RECORD_MAX];
    perf_tier_options options = options_for(path);
    options.max_bytes = (uint64_t)1 << 30;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    cr_assert(perf__store_open(&options, &host, &store) == PERF_OK, "%s", perf_last_error());
    for (size_t i = 0; i < count; i++) {
        size_t len = make_record(acked[i], record);
        cr_assert(test_has(store, &host.allocator, acked[i], record, len),
                  "acknowledged %llu is gone", (unsigned long long)acked[i]);
    }
    perf_store_usage usage;
    cr_assert(perf__store_usage(store, &usage) == PERF_OK && usage.records >= count);
    perf__store_close(store);
}

Test(crash, what_was_acknowledged_survives_kill)
{
    const char *wanted = getenv("PERF_CRASH_ROUNDS");
    int rounds = wanted ? atoi(wanted) : DEFAULT_ROUNDS;
    char *path = test_temp_file("crash.db");
    uint64_t *acked = NULL, next = 1;
    size_t count = 0, room = 0;
    for (int round = 0; round < rounds; round++) {
        int acks;
        pid_t pid = start_child(path, next, &acks);
        uint64_t n;
        size_t before = count;
        /* From the first one on it is at work; the moment of its death is random. */
        struct timespec pause = {0, (long)(perf__hash_random_key().k0 % 30000000)};
        bool killed = false;
        while (read_ack(acks, &n)) {
            if (count == room) {
                room = room ? 2 * room : 4096;
                acked = realloc(acked, room * sizeof *acked);
                cr_assert(acked != NULL);
            }
            acked[count++] = n;
            if (n >= next)
                next = n + 1;
            if (!killed) {
                nanosleep(&pause, NULL);
                kill(pid, SIGKILL);
                killed = true;
            }
        }
        close(acks);
        int status;
        cr_assert(waitpid(pid, &status, 0) == pid);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the child said %d", status);
        cr_assert(count > before, "the child acknowledged nothing");
        next += THREADS; /* numbers in flight may be there or not */
        check_all(path, acked, count);
    }
    free(acked);
    test_remove_dir_of(path);
}
