/* SPDX-License-Identifier: MIT */
/* task_queue_progress_test.c - progress as a text: what is written is read, and strangers' is not.
 */
#include <math.h>
#include <string.h>

#include "../../src/task/queue_progress.h"
#include "test.h"

Test(task_queue_progress, what_is_written_is_read)
{
    char text[PERF__PROGRESS_SIZE + 8];
    perf_queue_task t = {.token = UINT64_MAX, .text = ""};
    perf_queue_beat b = {
        .token = UINT64_MAX, .fraction = 0.4, .done = UINT64_MAX, .total = UINT64_MAX};
    strcpy(text + perf__progress_write(text, &b), "a b");
    cr_assert(perf__progress_read(text, &t));
    cr_assert(t.fraction == 0.4 && t.done == UINT64_MAX && t.total == UINT64_MAX, "%s", text);
    cr_assert_str_eq(t.text, "a b");
    t = (perf_queue_task){.token = 7, .text = "of another attempt"};
    cr_assert(perf__progress_read(text, &t));
    cr_assert(t.fraction == 0 && !strcmp(t.text, "of another attempt"));
    const double odd[] = {NAN, -1, 2, INFINITY};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        b.fraction = odd[i];
        perf__progress_write(text, &b);
        t.token = b.token;
        cr_assert(perf__progress_read(text, &t) && t.fraction >= 0 && t.fraction <= 1);
    }
}

Test(task_queue_progress, damaged_ones_are_refused)
{
    static const char *const bad[] = {"", "7", "7 1", "7 1 2", "7 1 2 3", "7 1 2 3x", "x 1 2 3 t"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        perf_queue_task t = {.token = 7, .text = ""};
        cr_assert(!perf__progress_read(bad[i], &t), "%s", bad[i]);
    }
    perf_queue_task t = {.token = 7, .text = ""};
    cr_assert(perf__progress_read("7 99999999 2 3 ", &t) && t.fraction == 0);
}
