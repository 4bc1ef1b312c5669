/* SPDX-License-Identifier: MIT */
/*
 * queue_dynamodb_open.c - the DynamoDB queue's location, and its client.
 *
 * Opening asks nobody, so that a service starts while its tables are out of reach. The client is
 * the host's (queue_ctx), or, when the location says region or endpoint, one of the queue's
 * own; else the one that all of the process share. One thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/hash.h"
#include "../base/status.h"
#include "queue_dynamodb.h"

enum { DEFAULT_TIMEOUT_MS = 10000 };

static const char default_tasks[] = "lms-async-tasks", default_common[] = "lms-background-queue";

/* ------------------------------------------------------------------- location */

static int bad(const char *location, const char *what)
{
    return perf__fail(PERF_EINVAL,
                      "perf_tasks_options.location \"%.160s\" of the queue \"dynamodb\": %s; a "
                      "location is \"tasks-table,queue-table?region=eu-west-1&endpoint="
                      "http://localhost:8000&compress=0&prefix=app\", all of it optional, each at "
                      "most once",
                      location, what);
}

static bool table_of(const char *variable, const char *fallback, char *out)
{
    const char *name = getenv(variable);
    name = name && *name ? name : fallback;
    return perf__dynamodb_table(name, strlen(name), out);
}

static int read_location(const char *text, struct dynamodb_queue *q,
                         struct perf__dynamodb_location *location)
{
    size_t len = strcspn(text, "?"), first = strcspn(text, ",?");
    if (!len) {
        if (!table_of("ASYNC_TASKS_TABLE", default_tasks, q->tasks) ||
            !table_of("BACKGROUND_QUEUE_TABLE", default_common, q->common))
            return perf__fail(PERF_EINVAL, "ASYNC_TASKS_TABLE or BACKGROUND_QUEUE_TABLE is no name "
                                           "of a table: give letters, digits, '_', '-' and '.'");
    } else if (first == len || !perf__dynamodb_table(text, first, q->tasks) ||
               !perf__dynamodb_table(text + first + 1, len - first - 1, q->common)) {
        return bad(text, "two names of tables, separated by a comma, come first");
    }
    if (!strcmp(q->tasks, q->common))
        return bad(text, "both tables are the same one");
    const char *wrong = perf__dynamodb_parameters(text + len, false, location);
    if (wrong)
        return bad(text, wrong);
    q->packs = location->packs;
    memcpy(q->prefix, location->prefix, sizeof q->prefix);
    return PERF_OK;
}

/* ---------------------------------------------------------------- open, close */

int perf__queue_dynamodb_open(const perf_queue_config *config, void **out)
{
    struct perf__dynamodb_location location;
    const perf_allocator *allocator = config->host->allocator;
    struct dynamodb_queue *q = perf__calloc(allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a dynamodb queue");
    q->allocator = *allocator;
    q->clock = *config->host->clock;
    q->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    q->origin = perf__hash_random_key().k0;
    if (pthread_mutex_init(&q->mutex, NULL)) {
        perf__free(allocator, q);
        return perf__fail_nomem("a dynamodb queue's lock");
    }
    int rc = read_location(config->location ? config->location : "", q, &location);
    if (!rc)
        rc = perf__dynamodb_client(&location, config->user_ctx, "perf_tasks_options.queue_ctx",
                                   config->host, &q->aws, &q->owns_aws);
    if (rc)
        perf__queue_dynamodb_close(q);
    else
        *out = q;
    return rc;
}

void perf__queue_dynamodb_close(void *queue)
{
    struct dynamodb_queue *q = queue;
    perf_allocator allocator = q->allocator;
    if (q->owns_aws)
        (void)!perf_aws_close(q->aws);
    perf__free(&allocator, q->lanes);
    pthread_mutex_destroy(&q->mutex);
    perf__free(&allocator, q);
}
