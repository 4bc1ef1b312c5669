/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_open.c - reads the location of a DynamoDB tier and opens it.
 *
 * Opening asks nobody, so that a service starts while its table is out of reach.
 * The client is the host's (store_ctx), or, when the location says region or
 * endpoint, one of the tier's own; else the one that all of the process share.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/options.h"
#include "../base/status.h"
#include "dynamodb.h"

enum { DEFAULT_TIMEOUT_MS = 1000 };

static const char default_table[] = "lms-performance-cache";

/* ----------------------------------------------------------------- location */

static int bad(const char *location, const char *what)
{
    return perf__fail(PERF_EINVAL,
                      "dynamodb tier \"%.160s\": %s; a location is \"table\" or "
                      "\"table?region=eu-west-1&endpoint=http://localhost:8000&consistent=0&"
                      "compress=0&prefix=app\", each of these at most once",
                      location, what);
}

int perf__dynamodb_location(const char *text, struct dynamodb_store *s,
                            struct perf__dynamodb_location *location)
{
    size_t len = strcspn(text, "?");
    if (!perf__dynamodb_table(text, len, s->table))
        return bad(text, "the table's name has letters, digits, '_', '-' and '.', 3 or more");
    const char *wrong = perf__dynamodb_parameters(text + len, true, location);
    if (wrong)
        return bad(text, wrong);
    s->consistent = location->consistent;
    s->packs = location->packs;
    memcpy(s->prefix, location->prefix, sizeof s->prefix);
    return PERF_OK;
}

/* -------------------------------------------------------------- open, close */

int perf__dynamodb_open(const perf_store_config *config, void **out)
{
    struct perf__dynamodb_location location;
    const char *text = config->location;
    if (!text || !*text)
        text = getenv("CACHE_TABLE_NAME");
    if (!text || !*text)
        text = default_table;
    struct dynamodb_store *s = perf__calloc(config->host->allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a dynamodb tier");
    s->allocator = *config->host->allocator;
    s->clock = *config->host->clock;
    s->timeout_ms = config->timeout_ms > 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    if (pthread_mutex_init(&s->mutex, NULL)) {
        perf__free(config->host->allocator, s);
        return perf__fail_nomem("a dynamodb tier's lock");
    }
    int rc = perf__dynamodb_location(text, s, &location);
    if (!rc)
        rc = perf__dynamodb_client(&location, config->user_ctx, "perf_tier_options.store_ctx",
                                   config->host, &s->aws, &s->owns_aws);
    if (rc) {
        perf__dynamodb_close(s);
        return rc;
    }
    *out = s;
    return PERF_OK;
}

void perf__dynamodb_close(void *store)
{
    struct dynamodb_store *s = store;
    perf_allocator allocator = s->allocator;
    if (s->owns_aws)
        (void)!perf_aws_close(s->aws);
    pthread_mutex_destroy(&s->mutex);
    perf__free(&allocator, s);
}
