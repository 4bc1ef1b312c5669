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

static bool is_made_of(const char *text, size_t len, const char *others)
{
    for (size_t i = 0; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') ||
              ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') ||
              (text[i] && strchr(others, text[i]))))
            return false;
    return len > 0;
}

static bool take_flag(const char *value, size_t len, bool *out)
{
    *out = *value == '1';
    return len == 1 && (*value == '0' || *value == '1');
}

static bool take_text(const char *value, size_t len, const char *others, char *out, size_t size)
{
    if (len >= size || !is_made_of(value, len, others))
        return false;
    memcpy(out, value, len);
    out[len] = 0;
    return true;
}

enum { REGION, ENDPOINT, CONSISTENT, COMPRESS, PREFIX, PARAMETERS };

int perf__dynamodb_location(const char *location, struct dynamodb_store *s, char *region,
                            char *endpoint)
{
    static const char *const names[PARAMETERS] = {
        "region=", "endpoint=", "consistent=", "compress=", "prefix="};
    bool seen[PARAMETERS] = {false};
    *region = *endpoint = *s->prefix = 0;
    s->consistent = s->packs = true;
    size_t len = strcspn(location, "?");
    /* A name, or an ARN. */
    if (len < 3 || !take_text(location, len, "_.-:/", s->table, sizeof s->table))
        return bad(location, "the table's name has letters, digits, '_', '-' and '.', 3 or more");
    const char *at = location + len;
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
        len = part - strlen(names[which]);
        bool fine = which == REGION       ? take_text(value, len, "-", region, 64)
                    : which == ENDPOINT   ? take_text(value, len, ":/.-_[]", endpoint, 512)
                    : which == CONSISTENT ? take_flag(value, len, &s->consistent)
                    : which == COMPRESS
                        ? take_flag(value, len, &s->packs)
                        : take_text(value, len, "_.-", s->prefix, sizeof s->prefix - 1);
        if (!fine)
            return bad(location, which == PREFIX
                                     ? "prefix has 1 to 64 letters, digits, '_', '-', '.'"
                                     : "a parameter's value cannot be read");
        at += part;
    }
    if (*s->prefix) {
        len = strlen(s->prefix);
        memcpy(s->prefix + len, "|", 2);
    }
    return PERF_OK;
}

/* -------------------------------------------------------------- open, close */

static int open_client(struct dynamodb_store *s, const perf_store_config *config,
                       const char *region, const char *endpoint)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    if (config->user_ctx && (*region || *endpoint))
        return perf__fail(PERF_EINVAL, "dynamodb tier: perf_tier_options.store_ctx is a client, so "
                                       "the location cannot have region or endpoint");
    s->aws = config->user_ctx;
    if (s->aws)
        return PERF_OK;
    if (!*region && !*endpoint)
        return perf_aws_shared("dynamodb", &s->aws);
    options.service = "dynamodb";
    options.region = *region ? region : NULL;
    options.endpoint_url = *endpoint ? endpoint : NULL;
    options.host = config->host;
    int rc = perf_aws_open(&options, &s->aws);
    s->owns_aws = !rc;
    return rc;
}

int perf__dynamodb_open(const perf_store_config *config, void **out)
{
    char region[64], endpoint[512];
    const char *location = config->location;
    if (!location || !*location)
        location = getenv("CACHE_TABLE_NAME");
    if (!location || !*location)
        location = default_table;
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
    int rc = perf__dynamodb_location(location, s, region, endpoint);
    if (!rc)
        rc = open_client(s, config, region, endpoint);
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
