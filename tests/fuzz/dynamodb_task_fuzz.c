/* SPDX-License-Identifier: MIT */
/*
 * Any JSON as the item of a task in DynamoDB: no crash, no read past the end; and what is
 * believed is a task that, written again and read again, is the same.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/task/queue_dynamodb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dynamodb_queue queue;

static void expect(bool holds)
{
    if (!holds)
        abort();
}

static void same(const struct record *a, const struct record *b)
{
    expect(!strcmp(a->t.id, b->t.id) && !strcmp(a->t.queue, b->t.queue));
    expect(!strcmp(a->t.kind, b->t.kind) && !strcmp(a->t.user, b->t.user));
    expect(!strcmp(a->t.error, b->t.error) && !strcmp(a->kept, b->kept));
    expect(!strcmp(a->pending, b->pending) && !strcmp(a->how[PAYLOAD], b->how[PAYLOAD]));
    expect(a->t.state == b->t.state && a->t.due_ms == b->t.due_ms && a->seq == b->seq);
    expect(a->t.token == b->t.token && a->version == b->version);
    expect(a->stored[RESULT].len == b->stored[RESULT].len);
}

static void check_item(struct perf__json item)
{
    struct perf__text t = {.allocator = &queue.allocator};
    perf_queue_reply reply = {.allocator = &queue.allocator};
    struct record first, second;
    struct perf__json again;
    int rc = perf__queue_dynamodb_read(&queue, item, &first);
    if (!rc) {
        expect(strlen(first.t.id) < ID_SIZE && first.t.queue[0] && first.t.kind[0]);
        expect(first.t.state >= PERF_TASK_WAITING && first.t.state <= PERF_TASK_DEAD);
        expect(perf__queue_dynamodb_add(&first, true, &reply) == PERF_OK);
        perf__queue_dynamodb_put_item(&t, &queue, &first);
        expect(!t.failed);
        expect(!perf__json_check(PERF_EPROTOCOL, "it", t.data, t.len, '{', &again));
        expect(!perf__queue_dynamodb_read(&queue, again, &second));
        same(&first, &second);
        perf__queue_dynamodb_record_free(&queue, &second);
    }
    perf__queue_dynamodb_record_free(&queue, &first);
    perf__queue_reply_free(&reply);
    perf__text_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct perf__json item;
    queue.allocator = perf__default_allocator;
    char *text = malloc(size + 1); /* exactly, so that a sanitizer sees one byte more */
    if (!text)
        return 0;
    memcpy(text, data, size);
    if (!perf__json_check(PERF_EPROTOCOL, "it", text, size, '{', &item))
        check_item(item);
    free(text);
    return 0;
}
