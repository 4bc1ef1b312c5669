/* SPDX-License-Identifier: MIT */
/*
 * aws_shared.c - what all clients of a process share: one HTTP client, one set of
 * credentials, and one client for each service.
 *
 * Process-wide on purpose: connections, keys and budgets are worth most when
 * everything uses the same. One mutex, which is held while one is opened (that
 * reads files, and asks nobody). A forked child begins with none of them: what
 * it inherited belongs to threads that it does not have, and stays where it is.
 */
#include <string.h>

#include "../base/fork.h"
#include "../base/status.h"
#include "aws_client.h"

enum { SERVICES_MAX = 64 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct {
    perf_http *http;
    perf_aws_credentials *credentials;
    uint64_t http_users, credentials_users;
    perf_aws *services[SERVICES_MAX];
    size_t service_count;
    uint64_t generation;
} shared;

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&mutex);
}

static void arm(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

static void lock(void)
{
    pthread_once(&once, arm);
    pthread_mutex_lock(&mutex);
    if (shared.generation != perf__fork_generation) {
        memset(&shared, 0, sizeof shared);
        shared.generation = perf__fork_generation;
    }
}

int perf__aws_http_share(perf_http **out)
{
    int rc = PERF_OK;
    lock();
    if (!shared.http) {
        perf_http_options options = PERF_HTTP_OPTIONS_INIT;
        options.max_connections = 512;
        options.max_host_connections = 256;
        options.max_queue = 8192;
        rc = perf_http_open(&options, &shared.http);
    }
    if (!rc) {
        shared.http_users++;
        *out = shared.http;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

void perf__aws_http_unshare(void)
{
    perf_http *last = NULL;
    lock();
    if (shared.http_users && --shared.http_users == 0) {
        last = shared.http;
        shared.http = NULL;
    }
    pthread_mutex_unlock(&mutex);
    perf_http_close(last);
}

int perf__aws_credentials_share(perf_aws_credentials **out)
{
    int rc = PERF_OK;
    lock();
    if (!shared.credentials)
        rc = perf_aws_credentials_open(NULL, &shared.credentials);
    if (!rc) {
        shared.credentials_users++;
        *out = shared.credentials;
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

void perf__aws_credentials_unshare(void)
{
    perf_aws_credentials *last = NULL;
    lock();
    if (shared.credentials_users && --shared.credentials_users == 0) {
        last = shared.credentials;
        shared.credentials = NULL;
    }
    pthread_mutex_unlock(&mutex);
    perf_aws_credentials_close(last);
}

static perf_aws *find(const char *service)
{
    for (size_t i = 0; i < shared.service_count; i++)
        if (!strcmp(shared.services[i]->name, service))
            return shared.services[i];
    return NULL;
}

int perf_aws_shared(const char *service, perf_aws **out)
{
    perf_aws_options options = PERF_AWS_OPTIONS_INIT;
    perf_aws *fresh = NULL;
    if (!service || !out)
        return perf__fail(PERF_EINVAL,
                          "perf_aws_shared needs a service and a place for the client");
    if (!strcmp(service, "cloudwatch"))
        service = "monitoring";
    lock();
    perf_aws *aws = find(service);
    pthread_mutex_unlock(&mutex);
    if (aws) {
        *out = aws;
        return PERF_OK;
    }
    options.service = service;
    int rc = perf_aws_open(&options, &fresh);
    if (rc)
        return rc;
    lock();
    aws = find(fresh->name); /* somebody may have been faster */
    if (!aws && shared.service_count < SERVICES_MAX) {
        aws = shared.services[shared.service_count++] = fresh;
        fresh = NULL;
    }
    pthread_mutex_unlock(&mutex);
    perf_aws_close(fresh);
    if (!aws)
        return perf__fail(PERF_EBUSY, "%d services have a shared client already; use perf_aws_open",
                          SERVICES_MAX);
    *out = aws;
    return PERF_OK;
}
