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

enum { DEFAULT_TIMEOUT_MS = 10000, REGION_SIZE = 64, ENDPOINT_SIZE = 512 };

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

static bool is_made_of(const char *text, size_t len, const char *others)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') ||
              ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') ||
              (text[i] && strchr(others, text[i]))))
            return false;
    return len > 0;
}

static bool take_text(const char *value, size_t len, const char *others, char *out, size_t size)
{
    if (len >= size || !is_made_of(value, len, others))
        return false;
    memcpy(out, value, len);
    out[len] = 0;
    return true;
}

/* A table's name, or its ARN. */
static bool take_table(const char *text, size_t len, char *out, size_t size)
{
    return len >= 3 && take_text(text, len, "_.-:/", out, size);
}

static bool table_of(const char *variable, const char *fallback, char *out, size_t size)
{
    const char *name = getenv(variable);
    name = name && *name ? name : fallback;
    return take_table(name, strlen(name), out, size);
}

enum { REGION, ENDPOINT, COMPRESS, PREFIX, PARAMETERS };

static int read_parameters(const char *location, const char *at, struct dynamodb_queue *q,
                           char *region, char *endpoint)
{
    static const char *const names[PARAMETERS] = {"region=", "endpoint=", "compress=", "prefix="};
    bool seen[PARAMETERS] = {false};
    while (*at) {
        at++;
        size_t which = 0, part = strcspn(at, "&");
        while (which < PARAMETERS && strncmp(at, names[which], strlen(names[which])) != 0)
            which++;
        if (which == PARAMETERS)
            return bad(location, "an unknown parameter");
        if (seen[which])
            return bad(location, "a parameter is there twice");
        seen[which] = true;
        const char *value = at + strlen(names[which]);
        size_t len = part - strlen(names[which]);
        bool fine = which == REGION     ? take_text(value, len, "-", region, REGION_SIZE)
                    : which == ENDPOINT ? take_text(value, len, ":/.-_[]", endpoint, ENDPOINT_SIZE)
                    : which == COMPRESS
                        ? len == 1 && (*value == '0' || *value == '1')
                        : take_text(value, len, "_.-", q->prefix, sizeof q->prefix - 1);
        if (!fine)
            return bad(location, which == PREFIX
                                     ? "prefix has 1 to 64 letters, digits, '_', '-', '.'"
                                     : "a parameter's value cannot be read");
        if (which == COMPRESS)
            q->packs = *value == '1';
        at += part;
    }
    if (*q->prefix)
        memcpy(q->prefix + strlen(q->prefix), "|", 2);
    return PERF_OK;
}

static int read_location(const char *location, struct dynamodb_queue *q, char *region,
                         char *endpoint)
{
    size_t len = strcspn(location, "?"), first = strcspn(location, ",?");
    if (!len) {
        if (!table_of("ASYNC_TASKS_TABLE", default_tasks, q->tasks, sizeof q->tasks) ||
            !table_of("BACKGROUND_QUEUE_TABLE", default_common, q->common, sizeof q->common))
            return perf__fail(PERF_EINVAL, "ASYNC_TASKS_TABLE or BACKGROUND_QUEUE_TABLE is no name "
                                           "of a table: give letters, digits, '_', '-' and '.'");
    } else if (first == len || !take_table(location, first, q->tasks, sizeof q->tasks) ||
               !take_table(location + first + 1, len - first - 1, q->common, sizeof q->common)) {
        return bad(location, "two names of tables, separated by a comma, come first");
    }
    if (!strcmp(q->tasks, q->common))
        return bad(location, "both tables are the same one");
    return read_parameters(location, location + len, q, region, endpoint);
}

/* ---------------------------------------------------------------- open, close */

static int open_client(struct dynamodb_queue *q, const perf_queue_config *config,
                       const char *region, const char *endpoint)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    if (config->user_ctx && (*region || *endpoint))
        return perf__fail(PERF_EINVAL,
                          "perf_tasks_options.queue_ctx is a client, so the location cannot have "
                          "region or endpoint");
    q->aws = config->user_ctx;
    if (q->aws)
        return PERF_OK;
    if (!*region && !*endpoint)
        return perf_aws_shared("dynamodb", &q->aws);
    options.service = "dynamodb";
    options.region = *region ? region : NULL;
    options.endpoint_url = *endpoint ? endpoint : NULL;
    options.host = config->host;
    int rc = perf_aws_open(&options, &q->aws);
    q->owns_aws = !rc;
    return rc;
}

int perf__queue_dynamodb_open(const perf_queue_config *config, void **out)
{
    char region[REGION_SIZE] = "", endpoint[ENDPOINT_SIZE] = "";
    const perf_allocator *allocator = config->host->allocator;
    struct dynamodb_queue *q = perf__calloc(allocator, 1, sizeof *q);
    if (!q)
        return perf__fail_nomem("a dynamodb queue");
    q->allocator = *allocator;
    q->clock = *config->host->clock;
    q->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    q->origin = perf__hash_random_key().k0;
    q->packs = true;
    if (pthread_mutex_init(&q->mutex, NULL)) {
        perf__free(allocator, q);
        return perf__fail_nomem("a dynamodb queue's lock");
    }
    int rc = read_location(config->location ? config->location : "", q, region, endpoint);
    if (!rc)
        rc = open_client(q, config, region, endpoint);
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
