/* SPDX-License-Identifier: MIT */
/* quiesce.c - the writer's side of quiesce.h. Any thread. */
#include "quiesce.h"

#include <pthread.h>
#include <sched.h>

struct perf__reader_slot perf__reader_slots[PERF__THREAD_SLOTS];

/* The fork handler is per process. */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The other threads are gone, and some may have been between begin and end. */
static void in_child(void)
{
    for (int i = 0; i < PERF__THREAD_SLOTS; i++)
        atomic_store_explicit(&perf__reader_slots[i].busy, 0, memory_order_relaxed);
}

static void register_process(void)
{
    pthread_atfork(NULL, NULL, in_child);
    perf__fence_init();
}

void perf__quiesce_init(void)
{
    pthread_once(&once, register_process);
}

void perf__quiesce_wait(void)
{
    perf__fence_all();
    for (int i = 1; i < PERF__THREAD_SLOTS; i++) {
        uint64_t busy = atomic_load_explicit(&perf__reader_slots[i].busy, memory_order_acquire);
        while (busy % 2 &&
               busy == atomic_load_explicit(&perf__reader_slots[i].busy, memory_order_acquire))
            sched_yield();
    }
}
