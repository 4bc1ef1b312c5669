/* SPDX-License-Identifier: MIT */
/* kill -9 of processes that share a SQLite queue. PERF_CRASH_ROUNDS sets the number of rounds. */
#include <stdlib.h>

#include "queue_crash.h"
#include "seams.h"
#include "test.h"

enum { DEFAULT_ROUNDS = 10 };

Test(crash, queued_tasks_survive_kill_and_end_once)
{
    const char *wanted = getenv("PERF_CRASH_ROUNDS");
    char *path = test_temp_file("queue.db");
    const struct queue_crash at = {"sqlite", path};
    queue_crash(&at, wanted ? atoi(wanted) : DEFAULT_ROUNDS);
    test_remove_dir_of(path);
}
