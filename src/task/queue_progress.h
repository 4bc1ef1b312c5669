/* SPDX-License-Identifier: MIT */
/*
 * queue_progress.h - what the queues over a network keep of a run's progress, as one text:
 * "TOKEN MILLIONTHS DONE TOTAL TEXT", of the attempt of that token. Whole numbers, so that
 * processes of different locales read each other. Values only, any thread.
 */
#ifndef PERF_TASK_QUEUE_PROGRESS_H
#define PERF_TASK_QUEUE_PROGRESS_H

#include <libperf/backend/queue.h>
#include <stdbool.h>

enum { PERF__PROGRESS_SIZE = 96 };

/* All but the text, which goes behind it; returns the length. */
size_t perf__progress_write(char out[PERF__PROGRESS_SIZE], const perf_queue_beat *beat);

/* Into task, if it is of the attempt of its token; its text stays where it lies. False: damaged. */
bool perf__progress_read(const char *text, perf_queue_task *task);

#endif
