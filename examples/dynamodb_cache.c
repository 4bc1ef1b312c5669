/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_cache.c - one cache for many processes: memory in front of a DynamoDB table.
 *
 *     cc dynamodb_cache.c $(pkg-config --cflags --libs libperf)
 *     AWS_ENDPOINT_URL_DYNAMODB=http://localhost:8000 ./a.out    # DynamoDB Local
 *
 * Without AWS_ENDPOINT_URL_DYNAMODB it says so and leaves your account alone. The table is made
 * when it is missing, which in production is done once, by whoever deploys
 * (perf_aws_tables_ensure(3)).
 */
#include <libperf/perf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what, int rc)
{
    printf("%s: %s\n    %s\n", what, perf_strstatus(rc), perf_last_error());
    return 1;
}

static perf_cache *open_cache(perf_aws *ddb)
{
    perf_tier_options shared = PERF_TIER_OPTIONS_INIT;
    perf_cache_options options = PERF_CACHE_OPTIONS_INIT;
    perf_cache *cache = NULL;

    shared.backend = "dynamodb"; /* the table is CACHE_TABLE_NAME, or named by location */
    shared.store_ctx = ddb;      /* without it: the client that all of the process share */
    shared.timeout_ms = 3000;
    options.tiers = &shared;
    options.tier_count = 1;
    int rc = perf_cache_open(&options, &cache);
    if (rc)
        failed("cache", rc);
    return cache;
}

static void look(const char *who, perf_cache *cache, const char *user)
{
    char text[64];
    size_t len;
    int rc = perf_cache_get_copy(cache, "greetings", user, "en", 2, text, sizeof text, &len);
    if (rc == PERF_OK)
        printf("%s finds \"%.*s\" for %s\n", who, (int)len, text, user);
    else
        printf("%s finds nothing for %s: %s\n", who, user, perf_strstatus(rc));
}

int main(void)
{
    perf_aws_options client = PERF_AWS_OPTIONS_INIT;
    perf_aws_tables_options tables = PERF_AWS_TABLES_OPTIONS_INIT;
    perf_aws_tables_report *report;
    perf_tier_stats stats = PERF_TIER_STATS_INIT;
    perf_aws *ddb;

    if (!getenv("AWS_ENDPOINT_URL_DYNAMODB")) {
        puts("AWS_ENDPOINT_URL_DYNAMODB is not set: start DynamoDB Local and name it there.");
        return 0;
    }
    client.service = "dynamodb";
    client.region = getenv("AWS_REGION") ? NULL : "us-east-1";
    int rc = perf_aws_open(&client, &ddb);
    if (rc)
        return failed("client", rc);
    tables.aws = ddb;
    tables.tables = PERF_AWS_TABLE_CACHE;
    tables.timeout_ms = 20000;
    rc = perf_aws_tables_ensure(&tables, &report);
    if (rc) {
        perf_aws_close(ddb);
        return failed("table", rc);
    }
    fputs(perf_aws_tables_text(report), stdout);
    perf_aws_tables_release(report);

    /* Two processes, played by two caches: each has a memory of its own. */
    perf_cache *here = open_cache(ddb), *there = here ? open_cache(ddb) : NULL;
    if (there) {
        perf_cache_set(here, "greetings", "ann", "en", 2, "hello, Ann", 10, /* ttl_ms */ 60000);
        perf_cache_set(here, "greetings", "bob", "en", 2, "hello, Bob", 10, 60000);
        look("the other process", there, "ann");
        perf_cache_invalidate_user(here, "ann");
        perf_cache_close(there);
        there = open_cache(ddb); /* a third one: nothing in its memory, the mark in the table */
        if (there) {
            look("a new process", there, "ann");
            look("a new process", there, "bob");
            perf_cache_get_tier_stats(there, 0, &stats);
            printf("it consumed %.1f read units\n", (double)stats.read_units_milli / 1000);
        }
    }
    rc = !there;
    perf_cache_close(there);
    perf_cache_close(here);
    perf_aws_close(ddb);
    return rc;
}
