/* SPDX-License-Identifier: MIT */
/*
 * run.h - what the executor's half of the room and the durable half share.
 *
 * A durable task is run as a task of an executor: progress, result, the reason
 * of a failure, time and cancellation live in that, and the claim hangs on the
 * run. A run that nobody's thread drives (perf_tasks_claim) is a task without
 * an executor.
 */
#ifndef PERF_TASK_RUN_H
#define PERF_TASK_RUN_H

#include "../base/options.h"

#include <libperf/executor.h>

/* What a queue handed out; tasks_impl.h. */
struct perf__claim;

/* Hangs a claim on a run; the run does not own it. Before anybody asks for it. */
void perf__run_set_claim(perf_run *run, struct perf__claim *claim);
/* NULL in an executor's own task. */
struct perf__claim *perf__run_claim(const perf_run *run);

/* From now on the run has timeout_ms left (0: no end). On the thread of the run. */
void perf__run_set_timeout(perf_run *run, int64_t timeout_ms);

/* What the function left behind. Valid as long as the task. */
perf_bytes perf__run_result(const perf_run *run);
const char *perf__run_why(const perf_run *run);

/* The task of a run, for perf_task_cancel and perf_task_progress by other threads. */
perf_task *perf__run_task(const perf_run *run);

/* A run without an executor: RUNNING from the beginning. host must outlive it. PERF_ENOMEM. */
int perf__run_open(const struct perf__host *host, perf_run **out);
/* Ends its task with status and lets go of it. */
void perf__run_close(perf_run *run, int status);

#endif
