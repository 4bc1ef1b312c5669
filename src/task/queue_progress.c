/* SPDX-License-Identifier: MIT */
/* queue_progress.c - a run's progress as a text; see queue_progress.h. Any thread. */
#include "queue_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { WHOLE = 1000000 };

size_t perf__progress_write(char out[PERF__PROGRESS_SIZE], const perf_queue_beat *b)
{
    double fraction = b->fraction > 0 ? b->fraction < 1 ? b->fraction : 1 : 0; /* also NaN */
    return (size_t)snprintf(out, PERF__PROGRESS_SIZE, "%" PRIu64 " %d %" PRIu64 " %" PRIu64 " ",
                            b->token, (int)(fraction * WHOLE), b->done, b->total);
}

bool perf__progress_read(const char *text, perf_queue_task *t)
{
    char *at;
    uint64_t token = strtoull(text, &at, 10), millionths = strtoull(at, &at, 10);
    uint64_t done = strtoull(at, &at, 10), total = strtoull(at, &at, 10);
    if (*at != ' ')
        return false;
    if (token != t->token)
        return true;
    t->fraction = millionths <= WHOLE ? (double)millionths / WHOLE : 0;
    t->done = done;
    t->total = total;
    t->text = at + 1;
    return true;
}
