/* SPDX-License-Identifier: MIT */
/*
 * seams.h - a clock that tests move and an allocator that fails when told.
 *
 *     struct test_host th;
 *     perf_cache_options opt = PERF_CACHE_OPTIONS_INIT;
 *     opt.host = test_host_init(&th);
 *     ... test_host_advance(&th, 1000);      // a second passes
 *     th.fail_at = 3;                        // the third allocation from now fails
 */
#ifndef TESTS_SEAMS_H
#define TESTS_SEAMS_H

#include <libperf/types.h>
#include <stdatomic.h>

struct test_host {
    perf_allocator allocator;
    perf_clock clock;
    perf_log log;
    perf_host host;
    _Atomic int64_t monotonic_ns, realtime_ms;
    _Atomic int64_t fail_at; /* counts down; the allocation that reaches 0 fails; 0: none fails */
    _Atomic int64_t live;    /* blocks not freed */
    _Atomic int64_t failed;  /* allocations that were made to fail */
    _Atomic int64_t logged;  /* lines */
};

/* Starts at a fixed date; the host's view points into th. */
const perf_host *test_host_init(struct test_host *th);
void test_host_advance(struct test_host *th, int64_t ms);

/* A new empty directory, for the file name given: returns a malloc'd "<dir>/name". Removed by
 * test_remove_dir_of(path). */
char *test_temp_file(const char *name);
void test_remove_dir_of(char *path);

/* No variable whose name begins so: tests of one process see each other's environment. */
void test_unset_all(const char *prefix);

#endif
