/* SPDX-License-Identifier: MIT */
/*
 * shim.c - the runner that stands in for Criterion under ThreadSanitizer: all
 * tests in one process, one after the other, in the order of their names.
 *
 * The assertions of a failing test end it by longjmp, so a test that fails may
 * leak; the process then fails as a whole anyway.
 */
#include "test.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

static struct shim_test *tests;
static pthread_t runner;
static jmp_buf out_of_test;
static int failed, skipped;

void shim_register(struct shim_test *test)
{
    struct shim_test **at = &tests;
    while (*at && (strcmp((*at)->suite, test->suite) < 0 ||
                   (!strcmp((*at)->suite, test->suite) && strcmp((*at)->name, test->name) < 0)))
        at = &(*at)->next;
    test->next = *at;
    *at = test;
}

void shim_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: %s ", file, line, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    if (!pthread_equal(pthread_self(), runner))
        abort(); /* another thread's stack is no place to jump to */
    failed++;
    longjmp(out_of_test, 1);
}

void shim_skip(const char *reason)
{
    fprintf(stderr, "SKIPPED: %s\n", reason);
    if (getenv("CI"))
        failed++;
    else
        skipped++;
    longjmp(out_of_test, 1);
}

int main(int argc, char **argv)
{
    int count = 0;
    runner = pthread_self();
    const char *only = argc > 1 ? argv[1] : NULL; /* suite or suite/name */
    for (struct shim_test *t = tests; t; t = t->next) {
        char full[256];
        snprintf(full, sizeof full, "%s/%s", t->suite, t->name);
        if (t->disabled || (only && strcmp(only, t->suite) && strcmp(only, full)))
            continue;
        int before = failed;
        count++;
        if (!setjmp(out_of_test)) {
            if (t->init)
                t->init();
            t->run();
            if (t->fini)
                t->fini();
        }
        if (failed != before)
            fprintf(stderr, "FAILED: %s\n", full);
    }
    printf("%d passed, %d failed, %d skipped\n", count - failed - skipped, failed, skipped);
    return failed != 0;
}
