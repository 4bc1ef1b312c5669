/* SPDX-License-Identifier: MIT */
/*
 * redis_many.c - many commands at once over several nodes, and commands in parts.
 *
 * Every command, and every part of one whose keys are in several slots, is a unit. In each round
 * the units that have no reply yet are put together by node, in their order, and sent as one op
 * for each ("lane"); all lanes are under way before the first is waited for. Units that were sent
 * elsewhere or told to come again are in the next round.
 */
#include "redis_router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "redis_reply.h"

struct unit {
    size_t argc;
    const perf_bytes *argv;
    struct perf__redis_search search;
    struct lane *lane; /* of this round */
    uint32_t slot;     /* of its reply there */
    bool asking;
    bool over;
    perf_redis_reply *reply;
};

struct lane {
    struct perf__redis_op op;
    struct perf__redis_node *node; /* held */
    struct perf__redis_link *link;
    perf_redis_reply **replies;
    char *bytes, *at;
    bool under_way;
};

struct round {
    struct perf__redis_router *router;
    const perf_allocator *allocator;
    int64_t deadline_ns;
    size_t unit_count, lane_count;
    struct unit *units;
    struct lane *lanes;
    size_t lane_room;
    int status; /* what a unit that has no reply ended with */
    char error[PERF__REDIS_SENTENCE];
};

static void remember(struct round *r, int status, const char *error)
{
    r->status = status;
    snprintf(r->error, sizeof r->error, "%s", error);
}

/* ---------------------------------------------------------------------- one round */

static struct lane *lane_of(struct round *r, struct perf__redis_node *node)
{
    for (size_t i = 0; i < r->lane_count; i++) {
        if (r->lanes[i].node == node) {
            perf__redis_node_let_go(node); /* once is enough */
            return &r->lanes[i];
        }
    }
    struct lane *lane = &r->lanes[r->lane_count++];
    memset(lane, 0, sizeof *lane);
    lane->node = node;
    return lane;
}

/* The lane of each unit. False: a failure that ends it all. */
static bool choose(struct round *r, bool *later)
{
    for (size_t i = 0; i < r->unit_count; i++) {
        struct unit *u = &r->units[i];
        struct perf__redis_node *node = NULL;
        u->lane = NULL;
        if (u->over)
            continue;
        u->asking = u->search.asking;
        int rc = r->router->way->pick(r->router, &u->search, &node);
        if (rc) {
            remember(r, rc == PERF_MISS ? PERF_EUNAVAILABLE : rc, perf_last_error());
            if (rc != PERF_MISS)
                return false;
            *later = true;
            continue;
        }
        u->search.asking = false;
        u->lane = lane_of(r, node);
        u->lane->op.expected += 1 + u->asking;
        u->slot = u->lane->op.expected - 1;
        u->lane->op.len +=
            perf__redis_encoded_size(u->argc, u->argv) + (u->asking ? PERF__REDIS_ASKING_LEN : 0);
    }
    return true;
}

static bool encode(struct round *r)
{
    for (size_t i = 0; i < r->lane_count; i++) {
        struct lane *lane = &r->lanes[i];
        size_t slots = lane->op.expected * sizeof *lane->replies;
        lane->replies = perf__calloc(r->allocator, 1, slots + lane->op.len);
        if (!lane->replies) {
            remember(r, perf__fail_nomem("commands"), perf_last_error());
            return false;
        }
        lane->at = lane->bytes = (char *)lane->replies + slots;
    }
    for (size_t i = 0; i < r->unit_count; i++) {
        struct unit *u = &r->units[i];
        if (!u->lane)
            continue;
        if (u->asking) {
            memcpy(u->lane->at, PERF__REDIS_ASKING, PERF__REDIS_ASKING_LEN);
            u->lane->at += PERF__REDIS_ASKING_LEN;
        }
        u->lane->at = perf__redis_encode(u->lane->at, u->argc, u->argv);
    }
    return true;
}

static void send_and_wait(struct round *r)
{
    for (size_t i = 0; i < r->lane_count; i++) {
        struct lane *lane = &r->lanes[i];
        lane->op.bytes = lane->bytes;
        lane->op.replies = lane->replies;
        lane->op.deadline_ns = r->deadline_ns;
        int rc = perf__redis_node_link(lane->node, &lane->link);
        if (!rc)
            rc = perf__redis_submit(lane->link, &lane->op);
        lane->under_way = !rc;
        if (rc) {
            lane->op.status = rc;
            snprintf(lane->op.error, sizeof lane->op.error, "%s", perf_last_error());
        }
    }
    for (size_t i = 0; i < r->lane_count; i++)
        if (r->lanes[i].under_way)
            perf__redis_wait(r->lanes[i].link, &r->lanes[i].op);
}

/* False: a unit ended without a reply. */
static bool collect(struct round *r, bool *later)
{
    bool ok = true;
    for (size_t i = 0; i < r->unit_count; i++) {
        struct unit *u = &r->units[i];
        struct lane *lane = u->lane;
        if (!lane)
            continue;
        perf_redis_reply_release(u->reply);
        u->reply = lane->replies[u->slot];
        lane->replies[u->slot] = NULL;
        enum perf__redis_verdict verdict =
            r->router->way->judge(r->router, &u->search, lane->node, lane->op.status, 1, &u->reply);
        u->over = verdict == PERF__REDIS_SETTLED;
        *later = *later || verdict == PERF__REDIS_LATER;
        if (lane->op.status) {
            remember(r, lane->op.status, lane->op.error);
            ok = ok && !u->over;
        }
    }
    return ok;
}

static void end_lanes(struct round *r)
{
    for (size_t i = 0; i < r->lane_count; i++) {
        struct lane *lane = &r->lanes[i];
        for (uint32_t k = 0; lane->replies && k < lane->op.expected; k++)
            perf_redis_reply_release(lane->replies[k]);
        perf__free(r->allocator, lane->replies);
        perf__redis_node_let_go(lane->node);
    }
    r->lane_count = 0;
}

static bool all_over(const struct round *r)
{
    for (size_t i = 0; i < r->unit_count; i++)
        if (!r->units[i].over)
            return false;
    return true;
}

static bool all_answered(const struct round *r)
{
    for (size_t i = 0; i < r->unit_count; i++)
        if (!r->units[i].reply)
            return false;
    return true;
}

/* Until every unit has its reply. */
static int go_round(struct round *r)
{
    struct perf__redis_search pauses = {0};
    while (!all_over(r)) {
        bool later = false;
        bool ok = choose(r, &later) && encode(r);
        if (ok) {
            send_and_wait(r);
            ok = collect(r, &later);
        }
        end_lanes(r);
        if (!ok)
            return perf__fail(r->status, "%s", r->error);
        if (later && !perf__redis_router_pause(r->router, &pauses, r->deadline_ns)) {
            if (atomic_load(&r->router->closing))
                return perf__fail(PERF_ECLOSED, "the client is closing");
            return all_answered(r) ? PERF_OK : perf__fail(r->status, "%s", r->error);
        }
    }
    return PERF_OK;
}

/* --------------------------------------------------------------- commands in parts */

/* A command, as its units. */
struct whole {
    size_t first, count; /* units */
    uint8_t split;       /* PERF__REDIS_WHOLE: one unit, its words as they are */
    size_t keys;
    uint32_t *unit_of, *place_in; /* of each key, from first; for SPLIT_GET */
};

struct key {
    int32_t slot;
    uint32_t number;
};

static int compare_keys(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

int perf__redis_fail_spans(const perf_bytes *argv)
{
    return perf__fail(PERF_EINVAL,
                      "the keys of %.*s are in several slots of the cluster, which no node can "
                      "serve at once; give them a {tag} in common",
                      (int)(argv[0].len > 40 ? 40 : argv[0].len), (const char *)argv[0].data);
}

int perf__redis_router_together(size_t count, const perf_redis_command *commands, size_t *first)
{
    int32_t slot = PERF__REDIS_ANY_NODE;
    for (size_t i = 0; i < count; i++) {
        struct perf__redis_place place = perf__redis_place_of(commands[i].argv, commands[i].argc);
        if (place.spans)
            return perf__redis_fail_spans(commands[i].argv);
        if (place.slot == PERF__REDIS_ANY_NODE)
            continue;
        if (slot != PERF__REDIS_ANY_NODE && place.slot != slot)
            return perf__fail(PERF_EINVAL,
                              "the transaction's commands %zu and %zu have keys in different slots "
                              "of the cluster, which no node can execute together; give all keys a "
                              "{tag} in common",
                              *first, i);
        if (slot == PERF__REDIS_ANY_NODE)
            *first = i;
        slot = place.slot;
    }
    return PERF_OK;
}

static size_t key_count(const perf_redis_command *c, struct perf__redis_place place)
{
    return (c->argc - 1) / place.step;
}

static bool is_split(struct perf__redis_place place)
{
    return place.spans && place.split != PERF__REDIS_WHOLE;
}

/* The parts of one command: its words by slot, each behind the command's name. words has room for
 * argc + keys of them. */
static size_t split_command(const perf_redis_command *c, struct perf__redis_place place,
                            struct key *keys, struct whole *w, struct unit *units,
                            perf_bytes *words)
{
    size_t n = key_count(c, place), count = 0;
    for (size_t i = 0; i < n; i++) {
        perf_bytes key = c->argv[1 + i * place.step];
        keys[i] = (struct key){perf__redis_slot(key.data, key.len), (uint32_t)i};
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 0; i < n; i++) {
        struct unit *u = &units[count];
        if (i == 0 || keys[i].slot != keys[i - 1].slot) {
            u->argv = words;
            u->argc = 1;
            u->search = (struct perf__redis_search){.slot = keys[i].slot, .reads = place.reads};
            *words++ = c->argv[0];
            count++;
        } else {
            u = &units[count - 1];
        }
        w->unit_of[keys[i].number] = (uint32_t)(count - 1);
        w->place_in[keys[i].number] = (uint32_t)((u->argc - 1) / place.step);
        for (size_t k = 0; k < place.step; k++, u->argc++)
            *words++ = c->argv[1 + keys[i].number * place.step + k];
    }
    w->count = count;
    w->split = place.split;
    w->keys = n;
    return count;
}

/* All that units need, in one block. */
struct plan {
    size_t unit_count, whole_count;
    struct unit *units;
    struct whole *wholes;
};

static int make_plan(const perf_allocator *allocator, size_t count,
                     const perf_redis_command *commands, struct plan *plan)
{
    size_t units = 0, words = 0, numbers = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        struct perf__redis_place place = perf__redis_place_of(commands[i].argv, commands[i].argc);
        if (place.spans && !is_split(place))
            return perf__redis_fail_spans(commands[i].argv);
        size_t keys = is_split(place) ? key_count(&commands[i], place) : 0;
        units += keys ? keys : 1;
        words += keys ? commands[i].argc + keys : 0;
        numbers += 2 * keys;
        most = keys > most ? keys : most;
    }
    char *block = perf__calloc(allocator, 1,
                               units * sizeof *plan->units + count * sizeof *plan->wholes +
                                   words * sizeof(perf_bytes) + most * sizeof(struct key) +
                                   numbers * sizeof(uint32_t));
    if (!block)
        return perf__fail_nomem("commands");
    plan->units = (struct unit *)block;
    plan->wholes = (struct whole *)(plan->units + units);
    perf_bytes *word = (perf_bytes *)(plan->wholes + count);
    struct key *keys = (struct key *)(word + words);
    uint32_t *number = (uint32_t *)(keys + most);
    plan->whole_count = count;

    for (size_t i = 0; i < count; i++) {
        const perf_redis_command *c = &commands[i];
        struct whole *w = &plan->wholes[i];
        struct perf__redis_place place = perf__redis_place_of(c->argv, c->argc);
        struct unit *u = &plan->units[plan->unit_count];
        w->first = plan->unit_count;
        if (is_split(place)) {
            size_t n = key_count(c, place);
            w->unit_of = number;
            w->place_in = number + n;
            number += 2 * n;
            split_command(c, place, keys, w, u, word);
            word += c->argc + n;
        } else {
            w->count = 1;
            u->argc = c->argc;
            u->argv = c->argv;
            u->search = (struct perf__redis_search){.slot = place.slot, .reads = place.reads};
        }
        plan->unit_count += w->count;
    }
    return PERF_OK;
}

/* An array of the elements where they were asked for, copied into one block. */
static int join_arrays(const perf_allocator *allocator, const struct whole *w,
                       perf_redis_reply *const *parts, perf_redis_reply **out)
{
    size_t bytes = 0;
    for (size_t i = 0; i < w->keys; i++) {
        const perf_redis_reply *part = parts[w->unit_of[i]];
        const perf_redis_reply *element = perf_redis_reply_element(part, w->place_in[i]);
        if (!element)
            return perf__fail(PERF_EPROTOCOL, "a node answered MGET with fewer values than keys");
        bytes += perf_redis_reply_size(element) + 1;
    }
    perf_redis_reply *joined = perf__redis_reply_new(allocator);
    struct perf__redis_chunk *chunk =
        joined ? perf__alloc(allocator, sizeof *chunk + w->keys * sizeof(perf_redis_reply) + bytes)
               : NULL;
    if (!chunk) {
        perf_redis_reply_release(joined);
        return perf__fail_nomem("a reply");
    }
    chunk->next = NULL;
    chunk->used = chunk->size = w->keys * sizeof(perf_redis_reply) + bytes;
    ((struct perf__redis_root *)joined)->chunks = chunk;
    perf_redis_reply *elements = (perf_redis_reply *)chunk->bytes;
    char *at = (char *)(elements + w->keys);
    for (size_t i = 0; i < w->keys; i++) {
        const perf_redis_reply *from =
            perf_redis_reply_element(parts[w->unit_of[i]], w->place_in[i]);
        elements[i] = *from;
        elements[i].root = false;
        if (from->type == PERF_REDIS_STRING || from->type == PERF_REDIS_STATUS ||
            from->type == PERF_REDIS_ERROR) {
            memcpy(at, from->u.data, from->size);
            at[from->size] = 0;
            elements[i].u.data = at;
            at += from->size + 1;
        } else if (from->type != PERF_REDIS_INTEGER) {
            elements[i] = (perf_redis_reply){.type = PERF_REDIS_NIL};
        }
    }
    joined->type = PERF_REDIS_ARRAY;
    joined->size = w->keys;
    joined->u.elements = elements;
    *out = joined;
    return PERF_OK;
}

/* One reply of a command's parts: an error among them, or what they are together. Takes from
 * parts what it hands out. */
static int join(const perf_allocator *allocator, const struct whole *w, perf_redis_reply **parts,
                perf_redis_reply **out)
{
    size_t chosen = 0;
    int64_t sum = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (perf_redis_reply_type(parts[i]) == PERF_REDIS_ERROR) {
            chosen = i;
            goto one;
        }
        sum += perf_redis_reply_integer(parts[i]);
    }
    if (w->split == PERF__REDIS_SPLIT_GET)
        return join_arrays(allocator, w, parts, out);
    if (w->split == PERF__REDIS_SPLIT_SUM && perf_redis_reply_type(parts[0]) == PERF_REDIS_INTEGER)
        parts[0]->u.integer = sum;
one:
    *out = parts[chosen];
    parts[chosen] = NULL;
    return PERF_OK;
}

int perf__redis_router_many(perf_redis *redis, size_t count, const perf_redis_command *commands,
                            int64_t deadline_ns, perf_redis_reply **replies)
{
    struct perf__redis_router *router = redis->route_data;
    const perf_allocator *allocator = &redis->host.allocator;
    struct round r = {.router = router, .allocator = allocator, .deadline_ns = deadline_ns};
    struct plan plan = {0};
    perf_redis_reply **parts = NULL;
    size_t made = 0;

    atomic_fetch_add(&router->inside, 1);
    int rc = make_plan(allocator, count, commands, &plan);
    if (rc)
        goto out;
    r.units = plan.units;
    r.unit_count = plan.unit_count;
    r.lanes = perf__calloc(allocator, plan.unit_count, sizeof *r.lanes);
    parts = perf__calloc(allocator, plan.unit_count, sizeof *parts);
    rc = r.lanes && parts ? go_round(&r) : perf__fail_nomem("commands");
    for (size_t i = 0; parts && i < plan.unit_count; i++) {
        parts[i] = plan.units[i].reply;
        perf__redis_search_end(&plan.units[i].search);
    }
    for (; !rc && made < count; made++) {
        perf_redis_reply *reply = NULL;
        rc = join(allocator, &plan.wholes[made], parts + plan.wholes[made].first, &reply);
        if (rc)
            break;
        replies[made] = reply;
    }
    while (rc && made)
        perf_redis_reply_release(replies[--made]);
    for (size_t i = 0; parts && i < plan.unit_count; i++)
        perf_redis_reply_release(parts[i]);
out:
    perf__free(allocator, parts);
    perf__free(allocator, r.lanes);
    perf__free(allocator, plan.units);
    perf__redis_router_leave(router);
    return rc;
}

/* ------------------------------------------------------- in parts, nobody waiting */

/* A command whose parts are trips of their own; the last that ends joins the replies. */
struct fan {
    struct perf__redis_router *router;
    struct perf__redis_trip *trip;
    struct plan plan;
    _Atomic size_t left;
    struct perf__redis_ending ending;
    perf_redis_reply **parts;
    struct perf__redis_trip trips[];
};

static void end_fan(struct fan *fan)
{
    struct perf__redis_router *router = fan->router;
    const perf_allocator *allocator = &router->redis->host.allocator;
    struct perf__redis_op *to = &fan->trip->op;
    perf_redis_reply *reply = NULL;
    size_t n = fan->plan.unit_count;
    to->status = PERF_OK;
    for (size_t i = 0; i < n && !to->status; i++) {
        to->status = fan->trips[i].op.status;
        memcpy(to->error, fan->trips[i].op.error, sizeof to->error);
    }
    if (!to->status) {
        to->status = join(allocator, &fan->plan.wholes[0], fan->parts, &reply);
        if (!to->status && !to->replies && (to->status = perf_redis_reply_status(reply)))
            perf__fail(to->status, "%s", perf_redis_reply_data(reply));
        if (to->status)
            snprintf(to->error, sizeof to->error, "%s", perf_last_error());
    }
    if (reply && to->replies) {
        perf_redis_reply_release(to->replies[0]);
        to->replies[0] = reply;
        reply = NULL;
    }
    perf_redis_reply_release(reply);
    for (size_t i = 0; i < n; i++)
        perf_redis_reply_release(fan->parts[i]);
    perf__free(allocator, fan->plan.units);
    perf__redis_router_tell(router, fan->trip, &fan->ending, fan);
}

static void part_over(struct perf__redis_op *op)
{
    struct fan *fan = op->ctx;
    if (atomic_fetch_sub(&fan->left, 1) == 1)
        end_fan(fan);
}

static int start_fan(struct perf__redis_router *router, struct perf__redis_trip *trip)
{
    const perf_allocator *allocator = &router->redis->host.allocator;
    perf_redis_command command = {trip->argc, trip->argv};
    struct plan plan = {0};
    size_t bytes = 0;
    int rc = make_plan(allocator, 1, &command, &plan);
    if (rc)
        return rc;
    for (size_t i = 0; i < plan.unit_count; i++)
        bytes += perf__redis_encoded_size(plan.units[i].argc, plan.units[i].argv);
    struct fan *fan = perf__calloc(
        allocator, 1,
        sizeof *fan + plan.unit_count * (sizeof *fan->trips + sizeof *fan->parts) + bytes);
    if (!fan) {
        perf__free(allocator, plan.units);
        return perf__fail_nomem("a command");
    }
    fan->router = router;
    fan->trip = trip;
    fan->plan = plan;
    fan->parts = (perf_redis_reply **)(fan->trips + plan.unit_count);
    atomic_store(&fan->left, plan.unit_count + 1); /* one more: until all are started */
    atomic_fetch_add(&router->inside, 1);
    char *at = (char *)(fan->parts + plan.unit_count);
    for (size_t i = 0; i < plan.unit_count; i++) {
        struct perf__redis_trip *part = &fan->trips[i];
        part->argc = plan.units[i].argc;
        part->argv = plan.units[i].argv;
        part->op.bytes = at;
        at = perf__redis_encode(at, part->argc, part->argv);
        part->op.len = (size_t)(at - part->op.bytes);
        part->op.expected = 1;
        part->op.deadline_ns = trip->op.deadline_ns;
        part->op.anywhere = trip->op.anywhere;
        part->op.replies = &fan->parts[i];
        part->op.done = part_over;
        part->op.ctx = fan;
        rc = perf__redis_router_start(router->redis, part);
        if (rc) { /* it will not be told */
            part->op.status = rc;
            snprintf(part->op.error, sizeof part->op.error, "%s", perf_last_error());
            atomic_fetch_sub(&fan->left, 1);
        }
    }
    part_over(&(struct perf__redis_op){.ctx = fan});
    return PERF_OK;
}

int perf__redis_router_start_split(struct perf__redis_router *router, struct perf__redis_trip *trip)
{
    if (trip->op.done)
        return start_fan(router, trip);
    trip->split = true;
    return PERF_OK;
}
