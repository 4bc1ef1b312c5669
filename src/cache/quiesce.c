/* SPDX-License-Identifier: MIT */
/* quiesce.c - the writer's side of quiesce.h. Any thread. */
#include "quiesce.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

struct perf__reader_slot perf__reader_slots[PERF__THREAD_SLOTS];
bool perf__quiesce_needs_fence;

/* Registration is per process and inherited over fork(). */
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
    perf__quiesce_needs_fence =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
}

void perf__quiesce_init(void)
{
    pthread_once(&once, register_process);
}

void perf__quiesce_wait(void)
{
    if (perf__quiesce_needs_fence)
        atomic_thread_fence(memory_order_seq_cst);
    else
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (int i = 1; i < PERF__THREAD_SLOTS; i++) {
        uint64_t busy = atomic_load_explicit(&perf__reader_slots[i].busy, memory_order_acquire);
        while (busy % 2 &&
               busy == atomic_load_explicit(&perf__reader_slots[i].busy, memory_order_acquire))
            sched_yield();
    }
}
