/* SPDX-License-Identifier: MIT */
/* fork.c - counts forks through pthread_atfork. Any thread. */
#include "fork.h"

#include <pthread.h>

#include "status.h"

uint64_t perf__fork_generation = 1;

/* Process-wide: pthread_atfork registers for the whole process, once. */
static pthread_once_t armed = PTHREAD_ONCE_INIT;
static int arm_result;

static void in_child(void)
{
    perf__fork_generation++;
}

static void arm(void)
{
    arm_result = pthread_atfork(NULL, NULL, in_child) ? PERF_ENOMEM : PERF_OK;
}

int perf__fork_arm(void)
{
    pthread_once(&armed, arm);
    return arm_result ? perf__fail_nomem("the fork guard") : PERF_OK;
}

int perf__fail_forked(void)
{
    return perf__fail(PERF_EFORKED,
                      "this handle was opened before fork(); open a new one in the child");
}
