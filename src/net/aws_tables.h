/* SPDX-License-Identifier: MIT */
/*
 * aws_tables.h - the design of libperf's four DynamoDB tables, and what the files
 * that make and check them share. Constant data; a look belongs to one thread.
 *
 * All have a partition key "pk" and a sort key "sk", both texts, and their time to
 * live in "expires". One item can so be several (a long value in pieces), and what
 * belongs together is one Query. What the attributes of indexes mean, and which
 * question each answers:
 *
 *   cache    by_user       user, pk      what is kept for a user (to show, to erase)
 *            by_namespace  ns, pk        what is kept in a namespace
 *   metrics  by_metric     metric, sk    all series of a metric over time; one series over
 *                                        time is a Query of the table itself
 *   tasks    by_user       user, seq     a user's tasks, newest first, in pages
 *            by_state      state, place  what runs in a queue, what failed there last; how many
 *            by_lane       lane, rank    where a task stands until it goes on: the first item of a
 *                                        lane is the next one to do
 *   queue    (none)                      names of queues and what they have in common: unique
 *                                        keys, limit keys, who waits for whom
 *
 * Indexes hold keys only, but for metrics: a write to an item whose key attributes stay the same
 * then costs nothing in the index, and a cache and tasks under way are overwritten far more often
 * than listed. An index answers late (eventually consistent): who takes an item from one decides
 * by a condition on the item itself.
 */
#ifndef PERF_NET_AWS_TABLES_H
#define PERF_NET_AWS_TABLES_H

#include <libperf/aws_tables.h>
#include <stdbool.h>

#include "aws_json.h"

enum { PERF__TABLES = 4, PERF__TABLE_INDEXES = 3, PERF__TABLE_NAME_MAX = 255 };

struct perf__table_index {
    const char *name, *hash, *range; /* NULL: no more indexes */
    char range_type;                 /* 'S' or 'N'; hash is 'S' */
    const char *projection;
};

struct perf__table_design {
    int64_t flag;
    const char *role, *variable, *fallback;
    const char *actions[9]; /* that libperf's own calls need at run time; NULL: no more */
    struct perf__table_index indexes[PERF__TABLE_INDEXES];
};

extern const struct perf__table_design perf__tables[PERF__TABLES];

/* The names that the options, the environment or the design give, and a valid set of flags. */
struct perf__table_names {
    char name[PERF__TABLES][PERF__TABLE_NAME_MAX + 1];
    int64_t flags;
};
int perf__tables_name(const perf_aws_tables_options *options, struct perf__table_names *out);

/* What a table is like now. */
struct perf__table_look {
    bool exists;
    bool busy;         /* something of it is being made or changed */
    char status[24];   /* of what is busy */
    bool provisioned;  /* paid by provisioned units: an index needs some, too */
    uint64_t units[2]; /* of the table: read, write */
    bool has_ttl;      /* on, or being turned on */
    bool has_index[PERF__TABLE_INDEXES];
    char attributes[4096]; /* its AttributeDefinitions, a JSON array; "" when it is longer */
};

/* Reads a reply of DescribeTable, or of DescribeTimeToLive. PERF_EEXISTS: the table is another
 * one; PERF_EPROTOCOL. */
int perf__table_look(const struct perf__table_design *design, const char *name, const void *reply,
                     size_t len, struct perf__table_look *look);
int perf__table_look_ttl(const char *name, const void *reply, size_t len,
                         struct perf__table_look *look);

/* Requests. */
void perf__table_put_create(struct perf__text *t, const struct perf__table_design *design,
                            const char *name);
void perf__table_put_index(struct perf__text *t, const struct perf__table_design *design,
                           const char *name, size_t index, const struct perf__table_look *look);

#endif
