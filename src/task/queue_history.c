/* SPDX-License-Identifier: MIT */
/* queue_history.c - lines of a task's history; see queue_history.h. */
#include "queue_history.h"

#include <stdio.h>
#include <string.h>

#include "queue.h"

enum { WORKER_MAX = 64, SENTENCE_MAX = 240 };

/* As PERF_TASK_... counts. */
static const char *const state_names[] = {
    "", "WAITING", "QUEUED", "RUNNING", "RETRYING", "SUCCEEDED", "FAILED", "CANCELLED", "DEAD"};

void perf__history_begin(struct perf__history *h, const char *kept)
{
    h->len = strnlen(kept, PERF__HISTORY_MAX - 3 * PERF__HISTORY_LINE);
    memcpy(h->text, kept, h->len);
    /* A line that was cut is no line. */
    while (h->len && h->text[h->len - 1] != '\n')
        h->len--;
    h->text[h->len] = 0;
    h->lines = 0;
    for (size_t i = 0; i < h->len; i++)
        h->lines += h->text[i] == '\n';
}

static void drop_oldest(struct perf__history *h)
{
    const char *end = memchr(h->text, '\n', h->len);
    size_t line = end ? (size_t)(end - h->text) + 1 : h->len;
    memmove(h->text, h->text + line, h->len - line + 1);
    h->len -= line;
    h->lines--;
}

/* Up to max bytes of text, cut between characters, in one line, without a space if it is a word. */
static void put(struct perf__history *h, const char *text, size_t max, bool word)
{
    size_t len = strnlen(text, max + 1);
    if (len > max)
        for (len = max; len && ((unsigned char)text[len] & 0xc0) == 0x80;)
            len--;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        h->text[h->len++] = c < ' ' || (word && c == ' ') ? (word ? '_' : ' ') : (char)c;
    }
}

static void add_line(struct perf__history *h, int64_t time_ms, int64_t state, const char *worker,
                     int64_t status, const char *sentence)
{
    const char *name =
        state >= PERF_TASK_WAITING && state <= PERF_TASK_DEAD ? state_names[state] : "?";
    h->len += (size_t)snprintf(h->text + h->len, sizeof h->text - h->len, "%lld %s ",
                               (long long)time_ms, name);
    put(h, worker[0] ? worker : "-", WORKER_MAX, true);
    h->len += (size_t)snprintf(h->text + h->len, sizeof h->text - h->len, " %lld%s",
                               (long long)status, sentence[0] ? " " : "");
    put(h, sentence, SENTENCE_MAX, false);
    h->text[h->len++] = '\n';
    h->text[h->len] = 0;
    h->lines++;
}

void perf__history_add(struct perf__history *h, int64_t time_ms, int64_t state, const char *worker,
                       int64_t status, const char *sentence)
{
    while (h->lines >= PERF__HISTORY_KEPT)
        drop_oldest(h);
    add_line(h, time_ms, state, worker, status, sentence);
}

void perf__history_tell(struct perf__history *h, const perf_queue_task *task, const char *kept,
                        bool waited, bool last_attempt)
{
    struct perf__history between;
    perf__history_begin(&between, kept);
    while (between.lines > PERF__HISTORY_KEPT)
        drop_oldest(&between);
    perf__history_begin(h, "");
    add_line(h, task->created_ms, waited ? PERF_TASK_WAITING : PERF_TASK_QUEUED, "", PERF_OK, "");
    memcpy(h->text + h->len, between.text, between.len + 1);
    h->len += between.len;
    h->lines += between.lines;
    if (last_attempt)
        add_line(h, task->started_ms, PERF_TASK_RUNNING, task->worker, PERF_OK, "");
    if (perf__task_ended(task->state))
        add_line(h, task->ended_ms, task->state, task->worker, task->status, task->error);
}
