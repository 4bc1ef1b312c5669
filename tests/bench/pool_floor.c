/* SPDX-License-Identifier: MIT */
/*
 * pool_floor.c - what the processor asks for: no queue, no clock, no statistics.
 *
 * floor: a thread tries the slot it had last, by one compare-and-swap, then the others in turn.
 * floor-mutex: a stack behind a mutex.
 */
#include "pool_subject.h"

enum { SLOTS = 64 };

static struct {
    _Alignas(64) _Atomic int taken;
} slots[SLOTS];
static int connections, stack[SLOTS], top;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came_back = PTHREAD_COND_INITIALIZER;
static _Thread_local int hint;

static __attribute__((noinline)) int acquire_by_hint(void)
{
    for (int at = hint;; at = at + 1 < connections ? at + 1 : 0) {
        int no = 0;
        if (atomic_compare_exchange_strong_explicit(&slots[at].taken, &no, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return hint = at;
    }
}

static __attribute__((noinline)) void release_by_hint(int at)
{
    atomic_store_explicit(&slots[at].taken, 0, memory_order_release);
}

static __attribute__((noinline)) int acquire_by_mutex(void)
{
    pthread_mutex_lock(&mutex);
    while (!top)
        pthread_cond_wait(&came_back, &mutex);
    int at = stack[--top];
    pthread_mutex_unlock(&mutex);
    return at;
}

static __attribute__((noinline)) void release_by_mutex(int at)
{
    pthread_mutex_lock(&mutex);
    stack[top++] = at;
    pthread_mutex_unlock(&mutex);
    pthread_cond_signal(&came_back);
}

static void *by_hint(void *argument)
{
    struct pool_thread *thread = argument;
    int at;
    hint = thread->number % connections;
    POOL_LOOP(thread, at = acquire_by_hint(), release_by_hint(at))
    return NULL;
}

static void *by_mutex(void *argument)
{
    struct pool_thread *thread = argument;
    int at;
    POOL_LOOP(thread, at = acquire_by_mutex(), release_by_mutex(at))
    return NULL;
}

int main(int argc, char **argv)
{
    static struct pool_run run;
    pool_arguments(&run, argc, argv);
    connections = run.connections < SLOTS ? run.connections : SLOTS;
    for (top = 0; top < connections; top++)
        stack[top] = top;
    return pool_main(&run, strcmp(argv[1], "floor-mutex") ? by_hint : by_mutex);
}
