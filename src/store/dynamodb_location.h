/* SPDX-License-Identifier: MIT */
/*
 * dynamodb_location.h - what follows the names of tables in the location of something that is kept
 * in DynamoDB, and the client that it means. Used by the tier and by the queue.
 */
#ifndef PERF_STORE_DYNAMODB_LOCATION_H
#define PERF_STORE_DYNAMODB_LOCATION_H

#include <libperf/aws.h>
#include <stdbool.h>

enum {
    PERF__DYNAMODB_TABLE_SIZE = 1025, /* of a name, or an ARN */
    PERF__DYNAMODB_PREFIX_SIZE = 66,  /* with its '|' and a zero byte */
};

struct perf__dynamodb_location {
    char region[64], endpoint[512]; /* "": not said */
    bool consistent, packs;         /* true unless the location says 0 */
    char prefix[PERF__DYNAMODB_PREFIX_SIZE];
};

/* A table's name, or its ARN. */
bool perf__dynamodb_table(const char *text, size_t len, char out[PERF__DYNAMODB_TABLE_SIZE]);

/*
 * Reads "?region=...&endpoint=...&consistent=0&compress=0&prefix=...", or "". has_consistent: that
 * is among them. NULL, or what is wrong, for the end of a sentence.
 */
const char *perf__dynamodb_parameters(const char *text, bool has_consistent,
                                      struct perf__dynamodb_location *out);

/*
 * The client: the host's own; or, where the location says region or endpoint, one that *owns says
 * is to be closed; else the one that all of the process share. field: what the host's is called.
 */
int perf__dynamodb_client(const struct perf__dynamodb_location *location, perf_aws *given,
                          const char *field, const perf_host *host, perf_aws **out, bool *owns);

#endif
