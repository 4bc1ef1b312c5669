/* SPDX-License-Identifier: MIT */
/*
 * queue_crash.h - kill -9 at random moments of who uses a queue: what was acknowledged
 * is there, and no task ends twice. For queues that several processes share.
 */
#ifndef TESTS_QUEUE_CRASH_H
#define TESTS_QUEUE_CRASH_H

struct queue_crash {
    const char *backend, *location; /* of an empty queue; children open it, too */
};

void queue_crash(const struct queue_crash *at, int rounds);

#endif
