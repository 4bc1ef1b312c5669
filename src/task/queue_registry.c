/* SPDX-License-Identifier: MIT */
/*
 * queue_registry.c - the built-in queues, one line each.
 *
 * A backend that the build leaves out keeps its line with no vtable, so that
 * asking for it says what is missing. Constant data, any thread.
 */
#include <stdio.h>
#include <string.h>

#include "../base/status.h"
#include "queue.h"

#ifndef PERF_WITH_SQLITE
#define PERF_WITH_SQLITE 1
#endif
#ifndef PERF_WITH_REDIS
#define PERF_WITH_REDIS 1
#endif

#ifndef PERF_WITH_AWS
#define PERF_WITH_AWS 1
#endif

#if PERF_WITH_SQLITE
#define SQLITE_BACKEND &perf__queue_sqlite
#else
#define SQLITE_BACKEND NULL
#endif
#if PERF_WITH_REDIS
#define REDIS_BACKEND &perf__queue_redis
#else
#define REDIS_BACKEND NULL
#endif
#if PERF_WITH_AWS
#define DYNAMODB_BACKEND &perf__queue_dynamodb
#else
#define DYNAMODB_BACKEND NULL
#endif

static const struct {
    const char *name, *flag;
    const perf_queue_vtable *vtable;
} backends[] = {
    {"sqlite", "WITH_SQLITE", SQLITE_BACKEND},
    {"memory", "", &perf__queue_memory},
    {"redis", "WITH_REDIS", REDIS_BACKEND},
    {"dynamodb", "WITH_AWS", DYNAMODB_BACKEND},
};

enum { BACKENDS = sizeof backends / sizeof *backends };

const perf_queue_vtable *perf__queue_builtin(const char *name)
{
    for (size_t i = 0; i < BACKENDS; i++)
        if (!strcmp(backends[i].name, name))
            return backends[i].vtable;
    return NULL;
}

int perf__queue_fail_unknown(const char *name)
{
    char names[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < BACKENDS; i++) {
        if (!strcmp(backends[i].name, name))
            return perf__fail(PERF_EUNSUPPORTED,
                              "this libperf was built without the queue \"%s\"; build it with %s=1 "
                              "or bring a queue of your own",
                              name, backends[i].flag);
        if (backends[i].vtable && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s\"%s\"",
                                     used ? ", " : "", backends[i].name);
    }
    return perf__fail(PERF_EINVAL, "perf_tasks_options.backend \"%.64s\" is unknown; built in: %s",
                      name, names);
}
