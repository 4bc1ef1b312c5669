/* SPDX-License-Identifier: MIT */
/*
 * task_subject.h - the frame of the C and C++ subjects of bench-task.
 *
 *     program SUBJECT WORKERS TASKS
 *
 * One producer submits TASKS empty tasks (each adds one to a counter that all share) to WORKERS
 * threads and waits for the last one; a tenth before that warms up. Then, with the workers
 * asleep, one task after the other: the time from its submission to its beginning. Prints
 * {"ns": time a task, "submit_ns": the producer's part, "wake_us": the median}.
 */
#ifndef BENCH_TASK_SUBJECT_H
#define BENCH_TASK_SUBJECT_H

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TASK_WAKES = 300, TASK_PAUSE_US = 2000 };

/* Written by the tasks. C and C++ spell atomics differently; these are the builtins of both. */
static uint64_t task_done;
static uint64_t task_begun_ns;

static inline uint64_t task_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What a task does. */
static inline void task_empty(void)
{
    __atomic_fetch_add(&task_done, 1, __ATOMIC_RELAXED);
}

static inline void task_stamp(void)
{
    __atomic_store_n(&task_begun_ns, task_now(), __ATOMIC_RELEASE);
}

static int task_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static inline void task_wait_for(uint64_t count, void (*drive)(void))
{
    while (__atomic_load_n(&task_done, __ATOMIC_ACQUIRE) < count) {
        if (drive)
            drive();
        else
            sched_yield();
    }
}

/* submit: an empty task, stamp: one that stamps; drive: what the producer has to do meanwhile. */
static inline int task_main(uint64_t tasks, void (*submit)(void), void (*stamp)(void),
                            void (*drive)(void))
{
    static uint64_t wakes[TASK_WAKES];
    uint64_t warm = tasks / 10, begun, submitted, ended;
    for (uint64_t i = 0; i < warm; i++)
        submit();
    task_wait_for(warm, drive);
    begun = task_now();
    for (uint64_t i = 0; i < tasks; i++)
        submit();
    submitted = task_now();
    task_wait_for(warm + tasks, drive);
    ended = task_now();
    for (int i = 0; i < TASK_WAKES; i++) {
        const struct timespec pause = {0, TASK_PAUSE_US * 1000};
        uint64_t at;
        nanosleep(&pause, NULL);
        __atomic_store_n(&task_begun_ns, 0, __ATOMIC_RELAXED);
        at = task_now();
        stamp();
        while (!__atomic_load_n(&task_begun_ns, __ATOMIC_ACQUIRE))
            if (drive)
                drive();
            else
                sched_yield();
        wakes[i] = task_begun_ns - at;
    }
    qsort(wakes, TASK_WAKES, sizeof *wakes, task_compare);
    printf("{\"ns\": %.1f, \"submit_ns\": %.1f, \"wake_us\": %.2f}\n",
           (double)(ended - begun) / (double)tasks, (double)(submitted - begun) / (double)tasks,
           (double)wakes[TASK_WAKES / 2] / 1000.0);
    return 0;
}

static inline void task_arguments(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s SUBJECT WORKERS TASKS\n", argv[0]);
        exit(2);
    }
}

#endif
