/* SPDX-License-Identifier: MIT */
/*
 * leaks.h - did a test leave descriptors or threads behind?
 *
 *     struct test_leaks leaks = test_leaks_begin();
 *     ...
 *     test_leaks_end(&leaks); // asserts that there are no more than before
 *
 * What a first use keeps for the process (a resolver's socket, OpenSSL's files) is to be used once
 * before test_leaks_begin.
 */
#ifndef TESTS_LEAKS_H
#define TESTS_LEAKS_H

struct test_leaks {
    int fds, threads;
};

struct test_leaks test_leaks_begin(void);
/* Waits up to 5 s for threads that are ending, then asserts, listing what is open. */
void test_leaks_end(const struct test_leaks *before);
/* The counts by themselves. */
int test_leaks_fds(void);
int test_leaks_threads(void);

#endif
