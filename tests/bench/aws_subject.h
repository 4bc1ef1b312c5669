/* SPDX-License-Identifier: MIT */
/*
 * aws_subject.h - the harness of the C subjects of bench-aws: GetItem of one item, over and over.
 *
 * usage: PROGRAM URL. For each line "run MODE CALLS" it makes so many calls and prints what one
 * cost the process in CPU (user and system, all of its threads) and how long all took. A subject
 * defines subject_run, which counts in *wrong the replies that lack the value.
 */
#ifndef BENCH_AWS_SUBJECT_H
#define BENCH_AWS_SUBJECT_H

#include "protocol.h"

#include <stdatomic.h>
#include <sys/resource.h>

enum { BENCH_AWS_FLIGHT = 64, BENCH_AWS_VALUE = 1000 };

static const char bench_aws_request[] = "{\"TableName\":\"bench\",\"Key\":{\"k\":{\"S\":\"a\"}}}";

/* Makes `calls` calls in that mode; false if there is no such mode. */
static int subject_run(const char *mode, unsigned calls, _Atomic unsigned *wrong);

/* The value, letters in turn, as aws_driver.py put it; the rest of the item is the key. */
static inline const char *bench_aws_value(void)
{
    static char value[BENCH_AWS_VALUE + 1];
    if (!value[0])
        for (int i = BENCH_AWS_VALUE - 1; i >= 0; i--)
            value[i] = (char)('a' + i % 26);
    return value;
}

/* Whether the text of a reply holds the value. A search for all of it would cost more than the
 * client: its name is found and the rest compared. */
static inline int bench_aws_holds_value(const char *text, size_t len)
{
    static const char name[] = "\"v\":{\"S\":\"";
    const char *found = memmem(text, len, name, sizeof name - 1);
    size_t rest = found ? len - (size_t)(found - text) : 0;
    return rest > sizeof name + BENCH_AWS_VALUE &&
           !memcmp(found + sizeof name - 1, bench_aws_value(), BENCH_AWS_VALUE) &&
           found[sizeof name - 1 + BENCH_AWS_VALUE] == '"';
}

static inline double bench_cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Calls of one mode shared out among threads: each takes the next until none is left. */
struct bench_aws_share {
    void (*work)(struct bench_aws_share *share);
    _Atomic long left;
    _Atomic unsigned *wrong;
};

static inline int bench_aws_take(struct bench_aws_share *share)
{
    return atomic_fetch_sub(&share->left, 1) > 0;
}

static inline void *bench_aws_thread(void *ctx)
{
    struct bench_aws_share *share = ctx;
    share->work(share);
    return NULL;
}

static inline void bench_aws_threads(struct bench_aws_share *share, unsigned threads)
{
    pthread_t thread[BENCH_AWS_FLIGHT];
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, bench_aws_thread, share))
            bench_die("pthread_create");
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

static inline void bench_aws_loop(void)
{
    char line[64], mode[16];
    unsigned calls;
    (void)bench_aws_value(); /* laid out before there are threads */
    bench_ready();
    while (fgets(line, sizeof line, stdin) && sscanf(line, "run %15s %u", mode, &calls) == 2) {
        _Atomic unsigned wrong = 0;
        double cpu = bench_cpu_us();
        uint64_t start = bench_now_ns();
        if (!subject_run(mode, calls, &wrong))
            return;
        double seconds = (double)(bench_now_ns() - start) / 1e9;
        printf("{\"calls\": %u, \"cpu_us\": %.3f, \"per_s\": %.1f, \"wrong\": %u}\n", calls,
               (bench_cpu_us() - cpu) / calls, calls / seconds, atomic_load(&wrong));
        fflush(stdout);
    }
}

#endif
