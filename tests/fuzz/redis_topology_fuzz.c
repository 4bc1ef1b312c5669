/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a node's reply to CLUSTER SLOTS and as a redirection; and as the words of a command,
 * of which some are keys. What is accepted is within its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/base/alloc.h"
#include "../../src/net/redis_reply.h"
#include "../../src/net/redis_slot.h"
#include "../../src/net/redis_topology.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct perf__redis_address asked = {"node.example", 7000};

static void need(bool is)
{
    if (!is)
        abort();
}

static void check_address(const struct perf__redis_address *a)
{
    size_t len = strnlen(a->host, sizeof a->host);
    need(len >= 1 && len <= PERF__REDIS_HOST_MAX && !strpbrk(a->host, " \r\n"));
    need(a->port >= 1 && a->port <= 65535);
}

static void as_reply(const uint8_t *data, size_t size)
{
    struct perf__redis_parser parser;
    struct perf__redis_topology *t = NULL;
    perf_redis_reply *spare = NULL, *reply = NULL;
    const char *at = (const char *)data;
    perf__redis_parser_init(&parser, &perf__default_allocator, 1 << 20);
    if (perf__redis_parse(&parser, &at, at + size, &spare, &reply) == 1 && reply &&
        perf__redis_topology_read(&perf__default_allocator, reply, &asked, &t) == PERF_OK) {
        need(t->node_count >= 1 && t->node_count <= PERF__REDIS_NODES && t->range_count >= 1);
        for (size_t i = 0; i < t->node_count; i++)
            check_address(&t->nodes[i]);
        for (size_t i = 0; i < t->range_count; i++) {
            const struct perf__redis_range *r = &t->ranges[i];
            need(r->first <= r->last && r->last < PERF__REDIS_SLOTS);
            need(r->master < t->node_count && r->replica_count <= PERF__REDIS_REPLICAS);
            for (size_t k = 0; k < r->replica_count; k++)
                need(r->replicas[k] < t->node_count);
        }
        perf__redis_topology_free(&perf__default_allocator, t);
    }
    perf_redis_reply_release(reply);
    perf__redis_parser_free(&parser);
}

static void as_redirection(const char *text)
{
    struct perf__redis_address to;
    int32_t slot = -1;
    if (perf__redis_redirect_read(text, &asked, &slot, &to)) {
        check_address(&to);
        need(slot >= 0 && slot < PERF__REDIS_SLOTS);
    }
    if (perf__redis_address_read(text, 1, &to))
        check_address(&to);
}

/* Words end with a zero byte. */
static void as_command(const uint8_t *data, size_t size)
{
    perf_bytes argv[64];
    size_t argc = 0;
    for (const uint8_t *end = data + size; data < end && argc < 64;) {
        const uint8_t *zero = memchr(data, 0, (size_t)(end - data));
        size_t len = (size_t)((zero ? zero : end) - data);
        argv[argc++] = (perf_bytes){data, len};
        data += len + (zero != NULL);
    }
    struct perf__redis_keys keys = perf__redis_keys_of(argv, argc);
    struct perf__redis_place place = perf__redis_place_of(argv, argc);
    need(keys.step >= 1 && keys.begin <= keys.end && (keys.end <= argc || keys.begin == keys.end));
    need(keys.also[0] < (argc ? argc : 1) && keys.also[1] < (argc ? argc : 1));
    need(place.slot >= PERF__REDIS_ANY_NODE && place.slot < PERF__REDIS_SLOTS);
    need(!place.spans || place.slot >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    need(text != NULL);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    as_reply(data, size);
    as_redirection(text);
    as_command(data, size);
    free(text);
    return 0;
}
