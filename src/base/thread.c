/* SPDX-License-Identifier: MIT */
/*
 * thread.c - hands out thread numbers and takes them back when threads end.
 *
 * The table is process-wide because threads are; it is touched once in a
 * thread's life, under a mutex. The mutex also orders the counter rows that one
 * thread leaves to the next one of the same number.
 */
#include "thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "hash.h"

_Thread_local int perf__thread_slot_cached __attribute__((tls_model("initial-exec"))) = -1;
_Thread_local uint64_t perf__thread_random_state __attribute__((tls_model("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t at_exit;
static bool have_key;
static bool taken[PERF__THREAD_SLOTS];

static void give_back(void *slot)
{
    pthread_mutex_lock(&mutex);
    taken[(intptr_t)slot] = false;
    pthread_mutex_unlock(&mutex);
    perf__thread_slot_cached = 0; /* what still runs in this thread shares */
}

static void make_key(void)
{
    have_key = !pthread_key_create(&at_exit, give_back);
}

int perf__thread_slot_assign(void)
{
    int slot = 0;
    pthread_once(&once, make_key);
    if (have_key) {
        pthread_mutex_lock(&mutex);
        for (int i = 1; i < PERF__THREAD_SLOTS && !slot; i++)
            if (!taken[i])
                slot = i;
        if (slot && !pthread_setspecific(at_exit, (void *)(intptr_t)slot))
            taken[slot] = true;
        else
            slot = 0;
        pthread_mutex_unlock(&mutex);
    }
    perf__thread_slot_cached = slot;
    return slot;
}

uint64_t perf__thread_random_seed(void)
{
    return perf__thread_random_state = perf__hash_random_key().k0 | 1;
}

int perf__thread_start(pthread_t *id, const char *name, void *(*main)(void *), void *argument)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(id, NULL, main, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed)
        pthread_setname_np(*id, name);
    return failed;
}
