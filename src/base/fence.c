/* SPDX-License-Identifier: MIT */
/* fence.c - the rare side of fence.h. Any thread. */
#include "fence.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

bool perf__fence_symmetric;

/* Registration is per process and inherited over fork(). */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void register_process(void)
{
    perf__fence_symmetric =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
}

void perf__fence_init(void)
{
    pthread_once(&once, register_process);
}

void perf__fence_all(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (!perf__fence_symmetric)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}
