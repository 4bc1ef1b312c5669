/* SPDX-License-Identifier: MIT */
/*
 * queue_fixture.h - one step in the life of a task, in queue "q" and at the time NOW: for the tests
 * of a single queue, beside the promises of all (queue_conformance.h).
 */
#ifndef TESTS_QUEUE_FIXTURE_H
#define TESTS_QUEUE_FIXTURE_H

#include "queue_conformance.h"

enum { NOW = 1000000, LEASE = 30000 };

static inline int put_for(struct perf__task_queue *queue, const char *id, int64_t keep_ms)
{
    int status;
    perf_queue_task task = test_queue_task(id, NOW);
    task.keep_ms = keep_ms;
    task.max_attempts = -1;
    perf__task_queue_enqueue(queue, &task, 1, NULL, NOW, &status, NULL);
    return status;
}

static inline int put(struct perf__task_queue *queue, const char *id)
{
    return put_for(queue, id, 1000);
}

/* The reply has what was claimed, instead of what it had. */
static inline int claim(struct perf__task_queue *queue, size_t max, perf_queue_reply *reply)
{
    const char *name = "q";
    perf_queue_kind kind = {"k", 0, 0};
    perf_queue_claim want = {sizeof want, &name, 1, &kind, 1, max, "w", NOW, LEASE};
    perf__queue_reply_free(reply);
    return perf__task_queue_claim(queue, &want, reply);
}

static inline int finish(struct perf__task_queue *queue, const char *id, uint64_t token)
{
    perf_queue_end end = {.struct_size = sizeof end,
                          .id = id,
                          .token = token,
                          .state = PERF_TASK_SUCCEEDED,
                          .now_ms = NOW,
                          .error = "",
                          .result = {"result", 6}};
    int rc = perf__task_queue_finish(queue, &end, 1);
    return rc ? rc : (int)end.outcome;
}

/* Or why it cannot be said; the reply has the task. */
static inline int64_t state_of(struct perf__task_queue *queue, const char *id,
                               perf_queue_reply *reply)
{
    perf__queue_reply_free(reply);
    int rc = perf__task_queue_get(queue, id, reply);
    return rc == PERF_OK ? reply->tasks[0]->state : rc;
}

#endif
