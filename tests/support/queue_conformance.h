/* SPDX-License-Identifier: MIT */
/*
 * queue_conformance.h - what every queue must do, whatever it is made of.
 *
 * A queue's test gives the options that name it (or bring its vtable), and a
 * function that empties its location; the suite opens it through the library's
 * own dispatch and asserts the promises of backend/queue.h one by one. Time is
 * passed by now_ms, so nothing sleeps. What the queue's capabilities leave
 * out is not asked for, but must be refused.
 */
#ifndef TESTS_QUEUE_CONFORMANCE_H
#define TESTS_QUEUE_CONFORMANCE_H

#include "../../src/task/queue.h"

struct queue_conformance {
    perf_tasks_options options;
    void (*empty)(void *ctx); /* NULL: an opened queue is empty */
    void *ctx;
    int exact_tasks;    /* that threads share in one check; 0: 10000. Fewer for slow emulators */
    int no_memory_step; /* every so-many-th allocation fails; 0: every */
};

/* Runs every check, each on an empty queue. */
void queue_conformance(const struct queue_conformance *c);

/* Every allocation (or every few) fails once: nothing leaks, nothing is half done. */
void queue_survives_no_memory(const struct queue_conformance *c);

/* A task of queue "q" and kind "k", due at now_ms. */
perf_queue_task test_queue_task(const char *id, int64_t now_ms);

#endif
