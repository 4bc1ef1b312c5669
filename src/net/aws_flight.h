/* SPDX-License-Identifier: MIT */
/*
 * aws_flight.h - calls of one JSON service that do not depend on each other, made
 * together and waited for.
 *
 * A few of them are under way at any time: one after the other they would take
 * longer than their caller has. They end in callbacks on the client's threads, which
 * only write down what happened. Any thread.
 */
#ifndef PERF_NET_AWS_FLIGHT_H
#define PERF_NET_AWS_FLIGHT_H

#include <libperf/aws.h>

#include "aws_json.h"

struct perf__aws_flight;

/* A request, and what became of it. */
struct perf__aws_flown {
    const char *operation;
    struct perf__text body; /* with its allocator */
    int rc;                 /* as perf_aws_call's */
    perf_aws_reply *reply;
    struct perf__json all; /* for who checks the reply; valid as long as that */
    struct perf__aws_flight *flight;
    int64_t attempts;        /* of a failure: how many it took, */
    char code[64], why[320]; /* AWS's code, and the sentence */
};

/* Makes count calls, at_once of them under way, until deadline_ns; what is too late has
 * PERF_ETIMEDOUT. PERF_OK: requests[i].rc says what became of each. PERF_ENOMEM: nothing was sent.
 * perf__aws_flown_free is due in any case. */
int perf__aws_fly(perf_aws *aws, struct perf__aws_flown *requests, size_t count, size_t at_once,
                  int64_t deadline_ns);

/* Frees replies, bodies and the array. NULL is allowed. */
void perf__aws_flown_free(const perf_allocator *a, struct perf__aws_flown *requests, size_t count);

#endif
