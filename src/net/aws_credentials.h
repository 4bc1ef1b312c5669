/* SPDX-License-Identifier: MIT */
/*
 * aws_credentials.h - what the sources of keys share.
 *
 * A source is a function that looks in one place: PERF_OK and keys; PERF_MISS
 * when that place is not set up, so that the next one is asked; or an error
 * when it is set up and fails, which ends the search. Sources run in the thread
 * that asked, one at a time, without a lock held.
 */
#ifndef PERF_NET_AWS_CREDENTIALS_H
#define PERF_NET_AWS_CREDENTIALS_H

#include <libperf/aws_auth.h>
#include <pthread.h>
#include <stdbool.h>

#include "../base/options.h"
#include "aws_config.h"

enum { PERF__AWS_PROFILE_DEPTH = 8 };

struct perf_aws_credentials {
    struct perf__host host;
    uint64_t fork_generation;
    struct perf__aws_config *config; /* NULL with a provider */
    char region[64];
    perf_aws_credentials_provider provider; /* get NULL: the chain */
    int64_t timeout_ms;
    perf_http *given_http;

    /* One search at a time, by whoever set refreshing. */
    perf_http *own_http, *direct_http; /* opened when first needed; direct: without a proxy */

    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    bool refreshing;
    bool rejected; /* keys are refused by a service */
    perf_aws_keys *keys;
    const char *source;
    int64_t ahead_ms;    /* how long before their end they are refreshed */
    uint64_t failures;   /* in a row */
    int64_t retry_at_ns; /* host's monotonic clock; no refresh before, after a failure */
    int failure;         /* the last one's code and sentence */
    char why[256];
};

/** One search. */
struct perf__aws_search {
    perf_aws_credentials *c;
    const char *profile;
    int64_t deadline_ns; /* system's monotonic clock */
    const char *source;  /* what found the keys */
    const char *visited[PERF__AWS_PROFILE_DEPTH];
    size_t visited_count;
    bool in_chain; /* a source profile: the environment does not count */
};

/** Milliseconds left, at least 0 and at most most. */
int64_t perf__aws_left_ms(const struct perf__aws_search *s, int64_t most);
/** A key of the search's profile, or NULL. */
const char *perf__aws_search_get(const struct perf__aws_search *s, const char *key);

/* The sources. */
typedef int (*perf__aws_source_fn)(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_environment(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_role(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_web_identity(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_sso(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_credentials_file(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_process(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_config_file(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_container(struct perf__aws_search *s, perf_aws_keys **out);
int perf__aws_from_instance(struct perf__aws_search *s, perf_aws_keys **out);
/** Those that one profile speaks of, without its role. */
int perf__aws_from_profile(struct perf__aws_search *s, perf_aws_keys **out);

#endif
