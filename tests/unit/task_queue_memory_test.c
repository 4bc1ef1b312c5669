/* SPDX-License-Identifier: MIT */
/* The queue in memory, and the dispatch that all queues are called through. */
#include "../../src/task/heap.h"
#include "queue_conformance.h"
#include "test.h"

static struct queue_conformance memory(void)
{
    struct queue_conformance c = {.options = PERF_TASKS_OPTIONS_INIT};
    c.options.backend = "memory";
    return c;
}

Test(task_queue_memory, keeps_the_promises)
{
    struct queue_conformance c = memory();
    queue_conformance(&c);
}

Test(task_queue_memory, survives_without_memory)
{
    struct queue_conformance c = memory();
    queue_survives_no_memory(&c);
}

Test(task_queue_memory, heaps_give_the_least)
{
    enum { COUNT = 2000 };
    static struct perf__heap_node nodes[COUNT];
    struct perf__heap heap = {NULL};
    uint64_t random = 1;
    for (uint64_t i = 0; i < COUNT; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        perf__heap_add(&heap, &nodes[i], (int64_t)(random >> 56), i);
    }
    for (size_t i = 0; i < COUNT; i += 3) {
        perf__heap_remove(&heap, &nodes[i]);
        cr_assert(!perf__heap_in(&nodes[i]));
    }
    int64_t key = -1;
    uint64_t number = 0;
    size_t left = 0;
    for (; heap.least; left++) {
        struct perf__heap_node *node = heap.least;
        cr_assert(node->key > key || (node->key == key && node->number > number));
        key = node->key;
        number = node->number;
        perf__heap_remove(&heap, node);
    }
    cr_assert(left == COUNT - (COUNT + 2) / 3);
}

/* ----------------------------------------------------------------- dispatch */

static int open_with(const perf_queue_vtable *vtable, const char *backend)
{
    static struct perf__host host;
    struct perf__task_queue *queue;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.vtable = vtable;
    options.backend = backend;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    int rc = perf__task_queue_open(&options, &host, &queue);
    if (rc == PERF_OK)
        perf__task_queue_close(queue);
    return rc;
}

Test(task_queue, unknown_backends_and_missing_entries_are_named)
{
    cr_assert(open_with(NULL, "carrier-pigeon") == PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "carrier-pigeon") && strstr(perf_last_error(), "memory"));
    perf_queue_vtable v = perf__queue_memory;
    cr_assert(open_with(&v, NULL) == PERF_OK);
    v.claim = NULL;
    cr_assert(open_with(&v, NULL) == PERF_EINVAL && strstr(perf_last_error(), ".claim"));
    v = perf__queue_memory;
    v.name = "";
    cr_assert(open_with(&v, NULL) == PERF_EINVAL && strstr(perf_last_error(), "name"));
    v = perf__queue_memory;
    v.capabilities |= 1u << 20;
    cr_assert(open_with(&v, NULL) == PERF_EINVAL && strstr(perf_last_error(), "capabilities"));
}

/* A queue of a host's that can do little: the memory queue with entries taken away. */
Test(task_queue, defaults_for_what_is_missing)
{
    struct perf__host host;
    struct perf__task_queue *queue;
    perf_queue_vtable v = perf__queue_memory;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    v.wait = NULL;
    v.find = NULL;
    v.flush = NULL;
    v.name = "small";
    v.capabilities = PERF_QUEUE_SERIAL;
    options.vtable = &v;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    cr_assert(perf__task_queue_open(&options, &host, &queue) == PERF_OK);
    perf_queue_reply reply = {.allocator = &host.allocator};
    perf_queue_filter filter = {.struct_size = sizeof filter};
    cr_assert(!perf__task_queue_waits(queue) &&
              perf__task_queue_wait(queue, 1) == PERF_EUNSUPPORTED);
    perf__task_queue_wake(queue);
    cr_assert(perf__task_queue_flush(queue) == PERF_OK);
    cr_assert(perf__task_queue_find(queue, &filter, &reply) == PERF_EUNSUPPORTED);
    cr_assert_str_eq(perf__task_queue_name(queue), "small");
    struct {
        const char *word;
        perf_queue_task task;
    } asks[] = {{"priority", test_queue_task("a", 1)},
                {"unique_key", test_queue_task("b", 1)},
                {"limit_key", test_queue_task("c", 1)},
                {"after", test_queue_task("d", 1)},
                {"transaction", test_queue_task("e", 1)}};
    asks[0].task.priority = 1;
    asks[1].task.unique_key = "k";
    asks[2].task.limit_key = "k";
    asks[3].task.after = "x";
    for (size_t i = 0; i < 5; i++) {
        int status = 0;
        char existing[72];
        int rc = perf__task_queue_enqueue(queue, &asks[i].task, 1, i == 4 ? &status : NULL, 1,
                                          &status, &existing);
        cr_assert(rc == PERF_EUNSUPPORTED && status == rc &&
                  strstr(perf_last_error(), asks[i].word) && strstr(perf_last_error(), "small"));
    }
    perf__queue_reply_free(&reply);
    perf__task_queue_close(queue);
}

Test(task_queue, replies_copy_and_check)
{
    struct perf__host host;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    perf_queue_reply reply = {.allocator = &host.allocator};
    perf_queue_task task = test_queue_task("id", 1);
    char id[] = "own";
    task.id = id;
    task.error = NULL;
    cr_assert(perf_queue_reply_add(&reply, &task) == PERF_OK);
    id[0] = 'x';
    cr_assert_str_eq(reply.tasks[0]->id, "own");
    cr_assert_str_eq(reply.tasks[0]->error, "");
    task.payload = (perf_bytes){NULL, 4};
    cr_assert(perf_queue_reply_add(&reply, &task) == PERF_EINVAL);
    task = test_queue_task("id", 1);
    task.struct_size = 4;
    cr_assert(perf_queue_reply_add(&reply, &task) == PERF_EINVAL);
    cr_assert(perf_queue_reply_add(NULL, &task) == PERF_EINVAL);
    cr_assert(perf_queue_reply_cursor(&reply, NULL) == PERF_EINVAL);
    cr_assert(perf_queue_reply_cursor(&reply, "one") == PERF_OK);
    cr_assert(perf_queue_reply_cursor(&reply, "two") == PERF_OK);
    cr_assert_str_eq(reply.cursor, "two");
    perf_queue_task *own = perf__queue_reply_take(&reply, 0);
    perf__queue_reply_free(&reply);
    cr_assert_str_eq(own->id, "own");
    host.allocator.free(host.allocator.ctx, own);
}
