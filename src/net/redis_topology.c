/* SPDX-License-Identifier: MIT */
/*
 * redis_topology.c - what nodes say of their cluster, checked word by word. Any thread.
 *
 * CLUSTER SLOTS is an array of [first, last, master, replica...], in which a node is
 * [host, port, ...]. A host may be nil or empty: the one that was asked.
 */
#include "redis_topology.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis_slot.h"

/* Letters, digits and what numeric addresses have; anything else is no host. */
static bool is_host(const char *text, size_t len)
{
    if (len == 0 || len > PERF__REDIS_HOST_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr(".-_:%", c)) ||
            !c)
            return false;
    }
    return true;
}

static bool take_host(const char *text, size_t len, struct perf__redis_address *out)
{
    if (!is_host(text, len))
        return false;
    memcpy(out->host, text, len);
    out->host[len] = 0;
    return true;
}

/* Decimal digits up to end, at most max; -1 if they are not that. */
static int64_t number(const char *text, const char *end, int64_t max)
{
    int64_t n = 0;
    if (text == end)
        return -1;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        n = 10 * n + (*text - '0');
        if (n > max)
            return -1;
    }
    return n;
}

bool perf__redis_address_equal(const struct perf__redis_address *a,
                               const struct perf__redis_address *b)
{
    return a->port == b->port && !strcmp(a->host, b->host);
}

bool perf__redis_address_read(const char *text, int port, struct perf__redis_address *out)
{
    const char *end = text + strlen(text), *colon = strrchr(text, ':');
    if (*text == '[') {
        const char *shut = strchr(text, ']');
        if (!shut || (shut[1] && shut[1] != ':'))
            return false;
        colon = shut[1] ? shut + 1 : NULL;
        text++;
        end = shut;
    } else if (colon && strchr(text, ':') != colon) {
        colon = NULL; /* a numeric address of IPv6 without a port */
    } else if (colon) {
        end = colon;
    }
    out->port = colon ? (int)number(colon + 1, colon + strlen(colon), 65535) : port;
    return out->port > 0 && take_host(text, (size_t)(end - text), out);
}

bool perf__redis_redirect_read(const char *text, const struct perf__redis_address *asked,
                               int32_t *slot, struct perf__redis_address *out)
{
    const char *space, *colon;
    if (!strncmp(text, "MOVED ", 6))
        text += 6;
    else if (!strncmp(text, "ASK ", 4))
        text += 4;
    else
        return false;
    space = strchr(text, ' ');
    if (!space || (*slot = (int32_t)number(text, space, PERF__REDIS_SLOTS - 1)) < 0)
        return false;
    text = space + 1;
    colon = strrchr(text, ':'); /* numeric addresses of IPv6 stand here without brackets */
    if (!colon || (out->port = (int)number(colon + 1, colon + strlen(colon), 65535)) < 1)
        return false;
    if (colon == text) {
        memcpy(out->host, asked->host, sizeof out->host);
        return true;
    }
    return take_host(text, (size_t)(colon - text), out);
}

/* --------------------------------------------------------------- CLUSTER SLOTS */

struct reading {
    struct perf__redis_topology *t;
    const struct perf__redis_address *asked;
    size_t room; /* for nodes */
};

static int malformed(const struct reading *r, const char *what)
{
    return perf__fail(PERF_EPROTOCOL, "the reply of %s:%d to CLUSTER SLOTS has %s", r->asked->host,
                      r->asked->port, what);
}

static int64_t bounded(const perf_redis_reply *reply, int64_t max)
{
    int64_t n = perf_redis_reply_integer(reply);
    return perf_redis_reply_type(reply) == PERF_REDIS_INTEGER && n >= 0 && n <= max ? n : -1;
}

/* The number of the node that an element speaks of. */
static int read_node(struct reading *r, const perf_redis_reply *reply, uint16_t *number_out)
{
    const perf_redis_reply *host = perf_redis_reply_element(reply, 0);
    struct perf__redis_topology *t = r->t;
    struct perf__redis_address at;
    int64_t port = bounded(perf_redis_reply_element(reply, 1), 65535);
    size_t len = perf_redis_reply_size(host), i;

    if (port < 1)
        return malformed(r, "a node without a port");
    at.port = (int)port;
    if (perf_redis_reply_type(host) == PERF_REDIS_NIL ||
        (perf_redis_reply_type(host) == PERF_REDIS_STRING && len == 0))
        memcpy(at.host, r->asked->host, sizeof at.host);
    else if (perf_redis_reply_type(host) != PERF_REDIS_STRING ||
             !take_host(perf_redis_reply_data(host), len, &at))
        return malformed(r, "a node whose host is none");

    for (i = 0; i < t->node_count && !perf__redis_address_equal(&at, &t->nodes[i]); i++)
        ;
    if (i == r->room)
        return malformed(r, "too many nodes");
    if (i == t->node_count)
        t->nodes[t->node_count++] = at;
    *number_out = (uint16_t)i;
    return PERF_OK;
}

static int read_range(struct reading *r, const perf_redis_reply *reply)
{
    struct perf__redis_range *range = &r->t->ranges[r->t->range_count];
    int64_t first = bounded(perf_redis_reply_element(reply, 0), PERF__REDIS_SLOTS - 1);
    int64_t last = bounded(perf_redis_reply_element(reply, 1), PERF__REDIS_SLOTS - 1);
    size_t count = perf_redis_reply_size(reply);

    if (perf_redis_reply_type(reply) != PERF_REDIS_ARRAY || count < 3)
        return malformed(r, "an element that is no range of slots");
    if (first < 0 || last < first)
        return malformed(r, "a range of slots out of bounds");
    range->first = (uint16_t)first;
    range->last = (uint16_t)last;
    int rc = read_node(r, perf_redis_reply_element(reply, 2), &range->master);
    for (size_t i = 3; !rc && i < count && range->replica_count < PERF__REDIS_REPLICAS; i++)
        rc = read_node(r, perf_redis_reply_element(reply, i),
                       &range->replicas[range->replica_count++]);
    r->t->range_count++;
    return rc;
}

int perf__redis_topology_read(const perf_allocator *allocator, const perf_redis_reply *reply,
                              const struct perf__redis_address *asked,
                              struct perf__redis_topology **out)
{
    struct reading r = {.asked = asked};
    size_t ranges = perf_redis_reply_size(reply);
    int rc = PERF_OK;

    if (perf_redis_reply_type(reply) != PERF_REDIS_ARRAY || ranges > PERF__REDIS_SLOTS)
        return malformed(&r, "no list of slots");
    if (ranges == 0)
        return malformed(&r, "no slots; nothing is served yet");
    r.room = ranges * (1 + PERF__REDIS_REPLICAS);
    if (r.room > PERF__REDIS_NODES)
        r.room = PERF__REDIS_NODES;
    r.t = perf__calloc(allocator, 1,
                       sizeof *r.t + r.room * sizeof *r.t->nodes + ranges * sizeof *r.t->ranges);
    if (!r.t)
        return perf__fail_nomem("a cluster's topology");
    r.t->nodes = (struct perf__redis_address *)(r.t + 1);
    r.t->ranges = (struct perf__redis_range *)(r.t->nodes + r.room);
    for (size_t i = 0; !rc && i < ranges; i++)
        rc = read_range(&r, perf_redis_reply_element(reply, i));
    if (rc)
        perf__redis_topology_free(allocator, r.t);
    else
        *out = r.t;
    return rc;
}

void perf__redis_topology_free(const perf_allocator *allocator, struct perf__redis_topology *t)
{
    perf__free(allocator, t);
}
