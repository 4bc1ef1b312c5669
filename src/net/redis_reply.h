/* SPDX-License-Identifier: MIT */
/*
 * redis_reply.h - a reply in memory, and the parser that makes it from bytes.
 *
 * A reply is one block with room for a small string; only what is larger, or
 * nested, costs further blocks. The parser is fed as the bytes come. It reads
 * +status, -error, :integer and $bulk itself, the bulk's bytes straight to where
 * they stay; arrays go through hiredis' reader, whose objects are our elements.
 * It always knows where a reply ends, so that one that is too large, or for
 * which there is no memory, is skipped and the next one read.
 */
#ifndef PERF_NET_REDIS_REPLY_H
#define PERF_NET_REDIS_REPLY_H

#include <libperf/redis.h>
#include <stdbool.h>

struct redisReader;

struct perf_redis_reply {
    int32_t type;
    bool root;
    size_t size; /* bytes or elements */
    union {
        int64_t integer;
        const char *data;
        perf_redis_reply *elements;
    } u;
};

enum { PERF__REDIS_ROOM = 136 };

struct perf__redis_chunk {
    struct perf__redis_chunk *next;
    size_t used, size;
    char bytes[];
};

/* A reply that is released, and what belongs to it. */
struct perf__redis_root {
    perf_redis_reply reply;
    perf_allocator allocator;
    char *bulk;                       /* a string of its own block */
    struct perf__redis_chunk *chunks; /* of elements */
    char room[PERF__REDIS_ROOM];
};

struct perf__redis_parser {
    const perf_allocator *allocator;
    uint64_t max; /* bytes of a reply */
    struct redisReader *reader;

    /* The reply under way. */
    int state;
    int status; /* PERF_OK, or why it will not be handed out */
    struct perf__redis_root *into;
    uint64_t left;      /* of a bulk: bytes to come, with the line end */
    size_t have, space; /* of a bulk: bytes there, and bytes allocated */
    uint64_t elements;  /* of an array: to come, at any depth */
    uint64_t weight;    /* of an array: bytes that it costs */
};

enum { PERF__REDIS_LINE_MAX = 32768 }; /* of status, error, integer and the lengths of others */

void perf__redis_parser_init(struct perf__redis_parser *p, const perf_allocator *allocator,
                             uint64_t max_reply_bytes);
/** Forgets a reply that is under way: the connection is another one. */
void perf__redis_parser_reset(struct perf__redis_parser *p);
void perf__redis_parser_free(struct perf__redis_parser *p);

/**
 * Reads on from *at, at most to end. 1: a reply ends at *at; p->status says whether it is whole
 * (PERF_OK and *reply), too large or without memory (and *reply is NULL). 0: everything useful up
 * to *at was taken, more bytes are needed; what lies behind *at is less than PERF__REDIS_LINE_MAX
 * and must be given again. PERF_EPROTOCOL: these are no replies.
 * *spare, a reply of perf__redis_reply_new or NULL, is used for the next one if it is not NULL,
 * and becomes NULL then.
 */
int perf__redis_parse(struct perf__redis_parser *p, const char **at, const char *end,
                      perf_redis_reply **spare, perf_redis_reply **reply);

#endif
