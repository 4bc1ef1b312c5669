/* SPDX-License-Identifier: MIT */
/* redis_reply.c - making, reading and releasing replies. A reply is of one thread at a time while
 * it is made, and of any afterwards. */
#include "redis_reply.h"

#include "../base/alloc.h"
#include "redis_link.h"

perf_redis_reply *perf__redis_reply_new(const perf_allocator *allocator)
{
    struct perf__redis_root *root = perf__alloc(allocator, sizeof *root);
    if (!root)
        return NULL;
    root->reply = (perf_redis_reply){.type = PERF_REDIS_NIL, .root = true};
    root->allocator = *allocator;
    root->bulk = NULL;
    root->chunks = NULL;
    return &root->reply;
}

void perf_redis_reply_release(perf_redis_reply *reply)
{
    if (!reply || !reply->root)
        return;
    struct perf__redis_root *root = (struct perf__redis_root *)reply;
    perf_allocator allocator = root->allocator;
    while (root->chunks) {
        struct perf__redis_chunk *next = root->chunks->next;
        perf__free(&allocator, root->chunks);
        root->chunks = next;
    }
    perf__free(&allocator, root->bulk);
    perf__free(&allocator, root);
}

static bool has_text(const perf_redis_reply *reply)
{
    return reply && (reply->type == PERF_REDIS_STRING || reply->type == PERF_REDIS_STATUS ||
                     reply->type == PERF_REDIS_ERROR);
}

int64_t perf_redis_reply_type(const perf_redis_reply *reply)
{
    return reply ? reply->type : PERF_REDIS_NIL;
}

int64_t perf_redis_reply_integer(const perf_redis_reply *reply)
{
    return reply && reply->type == PERF_REDIS_INTEGER ? reply->u.integer : 0;
}

const char *perf_redis_reply_data(const perf_redis_reply *reply)
{
    return has_text(reply) ? reply->u.data : "";
}

size_t perf_redis_reply_size(const perf_redis_reply *reply)
{
    return has_text(reply) || perf_redis_reply_type(reply) == PERF_REDIS_ARRAY ? reply->size : 0;
}

const perf_redis_reply *perf_redis_reply_element(const perf_redis_reply *reply, size_t i)
{
    return reply && reply->type == PERF_REDIS_ARRAY && i < reply->size ? &reply->u.elements[i]
                                                                       : NULL;
}

int perf_redis_reply_status(const perf_redis_reply *reply)
{
    int64_t kind;
    return reply && reply->type == PERF_REDIS_ERROR
               ? perf__redis_error_status(reply->u.data, reply->size, &kind)
               : PERF_OK;
}
