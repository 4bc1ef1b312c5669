/* SPDX-License-Identifier: MIT */
/*
 * test.h - Criterion, or a shim with the same names where Criterion cannot run.
 *
 * Criterion forks a sandbox for every test, which ThreadSanitizer does not
 * survive. The shim runs the same sources in one process: what it offers is
 * what our tests use.
 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

/* Time for a call whose time is not what the test is about, in ms: on a busy machine a server that
 * has just been started answers after seconds. */
enum { TEST_PATIENCE_MS = 60000 };

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TEST_WITHOUT_CRITERION

#include <criterion/criterion.h>

#define PERF_TEST_SKIP(reason)                              \
    do {                                                    \
        if (getenv("CI") && !strcmp(getenv("CI"), "true"))  \
            cr_assert_fail("skipped under CI: %s", reason); \
        fprintf(stderr, "SKIPPED: %s\n", reason);           \
        cr_skip_test("%s", reason);                         \
    } while (0)

#else

#include <string.h>

struct shim_test {
    const char *suite, *name;
    void (*run)(void);
    struct shim_test *next;
    void (*init)(void);
    void (*fini)(void);
    double timeout; /* accepted and ignored, as are the next two */
    int disabled, signal, exit_code;
    const char *description;
};

void shim_register(struct shim_test *test);
void shim_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5), noreturn));
void shim_skip(const char *reason) __attribute__((noreturn));

#define Test(suite_, name_, ...)                                                          \
    static void shim_##suite_##_##name_(void);                                            \
    static struct shim_test shim_test_##suite_##_##name_ = {                              \
        .suite = #suite_, .name = #name_, .run = shim_##suite_##_##name_, ##__VA_ARGS__}; \
    __attribute__((constructor)) static void shim_reg_##suite_##_##name_(void)            \
    {                                                                                     \
        shim_register(&shim_test_##suite_##_##name_);                                     \
    }                                                                                     \
    static void shim_##suite_##_##name_(void)

#define SHIM_CHECK(condition, text, ...)                         \
    do {                                                         \
        if (!(condition))                                        \
            shim_fail(__FILE__, __LINE__, text, "" __VA_ARGS__); \
    } while (0)
#define cr_assert(condition, ...)      SHIM_CHECK(condition, #condition, ##__VA_ARGS__)
#define cr_assert_not(condition, ...)  SHIM_CHECK(!(condition), "not " #condition, ##__VA_ARGS__)
#define cr_assert_eq(a, b, ...)        SHIM_CHECK((a) == (b), #a " == " #b, ##__VA_ARGS__)
#define cr_assert_neq(a, b, ...)       SHIM_CHECK((a) != (b), #a " != " #b, ##__VA_ARGS__)
#define cr_assert_lt(a, b, ...)        SHIM_CHECK((a) < (b), #a " < " #b, ##__VA_ARGS__)
#define cr_assert_leq(a, b, ...)       SHIM_CHECK((a) <= (b), #a " <= " #b, ##__VA_ARGS__)
#define cr_assert_gt(a, b, ...)        SHIM_CHECK((a) > (b), #a " > " #b, ##__VA_ARGS__)
#define cr_assert_geq(a, b, ...)       SHIM_CHECK((a) >= (b), #a " >= " #b, ##__VA_ARGS__)
#define cr_assert_null(a, ...)         SHIM_CHECK((a) == NULL, #a " == NULL", ##__VA_ARGS__)
#define cr_assert_not_null(a, ...)     SHIM_CHECK((a) != NULL, #a " != NULL", ##__VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)    SHIM_CHECK(!strcmp(a, b), #a " equals " #b, ##__VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)   SHIM_CHECK(strcmp(a, b), #a " differs from " #b, ##__VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) SHIM_CHECK(!memcmp(a, b, n), #a " equals " #b, ##__VA_ARGS__)
#define cr_assert_arr_neq(a, b, n, ...) \
    SHIM_CHECK(memcmp(a, b, n), #a " differs from " #b, ##__VA_ARGS__)
#define cr_assert_fail(...)    SHIM_CHECK(0, "fail", ##__VA_ARGS__)
#define cr_fatal(...)          SHIM_CHECK(0, "fatal", ##__VA_ARGS__)
#define cr_expect              cr_assert
#define cr_expect_eq           cr_assert_eq
#define cr_expect_neq          cr_assert_neq
#define cr_expect_str_eq       cr_assert_str_eq
#define cr_log_info(...)       fprintf(stderr, __VA_ARGS__)
#define cr_skip_test(...)      shim_skip("" __VA_ARGS__)
#define PERF_TEST_SKIP(reason) shim_skip(reason)

#endif

#endif
