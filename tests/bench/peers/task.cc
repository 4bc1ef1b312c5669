/* SPDX-License-Identifier: MIT */
/* task.cc - the peers oneTBB (task_arena::enqueue) and libuv (uv_queue_work) of bench-task. */
#include "../task_subject.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <uv.h>

namespace
{

tbb::task_arena *arena;

void tbb_submit()
{
    arena->enqueue([] { task_empty(); });
}

void tbb_stamp()
{
    arena->enqueue([] { task_stamp(); });
}

int run_tbb(int workers, uint64_t tasks)
{
    /* The arena of this thread's slot, too, which enqueue leaves to the workers. */
    tbb::global_control limit(tbb::global_control::max_allowed_parallelism,
                              static_cast<size_t>(workers) + 1);
    arena = new tbb::task_arena(workers, 0);
    return task_main(tasks, tbb_submit, tbb_stamp, nullptr);
}

uv_loop_t *loop;

void free_work(uv_work_t *work, int)
{
    free(work);
}

void uv_submit_with(uv_work_cb fn)
{
    auto *work = static_cast<uv_work_t *>(malloc(sizeof(uv_work_t)));
    if (!work || uv_queue_work(loop, work, fn, free_work)) {
        fputs("uv_queue_work\n", stderr);
        exit(1);
    }
}

void uv_submit()
{
    uv_submit_with([](uv_work_t *) { task_empty(); });
}

void uv_stamp()
{
    uv_submit_with([](uv_work_t *) { task_stamp(); });
}

void uv_drive()
{
    uv_run(loop, UV_RUN_NOWAIT);
}

int run_uv(int workers, uint64_t tasks)
{
    char size[16];
    snprintf(size, sizeof size, "%d", workers);
    setenv("UV_THREADPOOL_SIZE", size, 1);
    loop = uv_default_loop();
    return task_main(tasks, uv_submit, uv_stamp, uv_drive);
}

} // namespace

int main(int argc, char **argv)
{
    task_arguments(argc, argv);
    int workers = atoi(argv[2]);
    uint64_t tasks = strtoull(argv[3], nullptr, 10);
    return strcmp(argv[1], "libuv") ? run_tbb(workers, tasks) : run_uv(workers, tasks);
}
