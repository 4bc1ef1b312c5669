/* SPDX-License-Identifier: MIT */
/*
 * tier_queue.c - lists and index of the changes a tier has not committed.
 *
 * The index is a uthash table over the ids, hashed under a random key since ids
 * may be chosen by an enemy, in memory of the handle's allocator. The tier's
 * mutex guards everything.
 */
#include "tier_queue.h"

#include "../base/alloc.h"

/* uthash takes its memory and its hash from macros, which find q where they are used. */
#define HASH_NONFATAL_OOM            1
#define uthash_malloc(size)          perf__alloc(q->allocator, (size))
#define uthash_free(block, size)     perf__free(q->allocator, (block))
#define uthash_nonfatal_oom(change)  ((change)->unindexed = true)
#define HASH_FUNCTION(id, len, hash) ((hash) = hash_id(q, (id)))
#include <uthash.h>
#include <utlist.h>

struct perf__change {
    struct perf__change_view view; /* first, so that the two convert */
    struct perf__change *prev, *next;
    struct perf__pending_record *record;
    UT_hash_handle hh;
    bool indexed, unindexed;
    uint8_t id[PERF_STORE_ID_SIZE];
    unsigned char names[]; /* ns, user, key, mark_name */
};

static unsigned hash_id(const struct perf__tier_queue *q, const void *id)
{
    return (unsigned)perf__hash_bytes(q->hash_key, id, PERF_STORE_ID_SIZE).lo;
}

void perf__queue_init(struct perf__tier_queue *q, const perf_allocator *allocator)
{
    q->allocator = allocator;
    q->hash_key = perf__hash_random_key();
}

struct perf__change_view *perf__change_view(struct perf__change *change)
{
    return &change->view;
}

struct perf__change *perf__change_next(const struct perf__change *change)
{
    return change->next;
}

/* -------------------------------------------------------------------- memory */

static perf_bytes copy(unsigned char **at, perf_bytes bytes)
{
    if (!bytes.len)
        return (perf_bytes){"", 0};
    perf_bytes own = {memcpy(*at, bytes.data, bytes.len), bytes.len};
    *at += bytes.len;
    return own;
}

struct perf__change *perf__change_new(const perf_allocator *allocator, const perf_store_op *op)
{
    bool set = op->kind == PERF_STORE_SET, mark = op->kind == PERF_STORE_MARK;
    perf_bytes none = {NULL, 0};
    perf_bytes ns = mark ? none : op->key.ns, user = mark ? none : op->key.user;
    perf_bytes key = mark ? none : op->key.key, name = mark ? op->mark_name : none;
    size_t names = ns.len + user.len + key.len + name.len;
    size_t record_len = set ? op->record.len : 0;
    if (names > SIZE_MAX / 4 || record_len > SIZE_MAX / 4)
        return NULL;
    struct perf__change *change = perf__calloc(allocator, 1, sizeof *change + names);
    if (!change)
        return NULL;
    if (set) {
        change->record = perf__alloc(allocator, sizeof *change->record + record_len);
        if (!change->record) {
            perf__free(allocator, change);
            return NULL;
        }
        change->record->refs = 1;
        change->record->len = record_len;
        if (record_len)
            memcpy(change->record->data, op->record.data, record_len);
    }
    struct perf__change_view *view = &change->view;
    unsigned char *at = change->names;
    view->op = *op;
    if (!mark)
        memcpy(change->id, op->key.id, sizeof change->id);
    view->op.key = (perf_store_key){change->id, copy(&at, ns), copy(&at, user), copy(&at, key)};
    view->op.mark_name = copy(&at, name);
    view->op.record = set ? (perf_bytes){change->record->data, record_len} : (perf_bytes){"", 0};
    view->bytes = sizeof *change + names + (set ? sizeof *change->record + record_len : 0);
    return change;
}

void perf__record_release(struct perf__tier_queue *q, struct perf__pending_record *record)
{
    if (record && !--record->refs)
        perf__free(q->allocator, record);
}

struct perf__pending_record *perf__change_record(struct perf__change *change)
{
    if (change->record)
        change->record->refs++;
    return change->record;
}

void perf__change_free(struct perf__tier_queue *q, struct perf__change *change)
{
    perf__record_release(q, change->record);
    perf__free(q->allocator, change);
}

/* --------------------------------------------------------------------- index */

struct perf__change *perf__queue_find(struct perf__tier_queue *q, const uint8_t *id)
{
    struct perf__change *found = NULL;
    HASH_FIND(hh, q->index, id, PERF_STORE_ID_SIZE, found);
    return found;
}

static void unindex(struct perf__tier_queue *q, struct perf__change *change)
{
    if (!change->indexed)
        return;
    HASH_DELETE(hh, q->index, change);
    change->indexed = false;
    atomic_fetch_sub_explicit(&q->indexed, 1, memory_order_release);
}

static bool reindex(struct perf__tier_queue *q, struct perf__change *change,
                    struct perf__change *older)
{
    /* First in, then out: the table may hold an id twice, and failing leaves the older one. */
    HASH_ADD(hh, q->index, id, PERF_STORE_ID_SIZE, change);
    if (change->unindexed)
        return false;
    change->indexed = true;
    atomic_fetch_add_explicit(&q->indexed, 1, memory_order_release);
    if (older)
        unindex(q, older);
    return true;
}

/* --------------------------------------------------------------------- lists */

static void append(struct perf__tier_list *list, struct perf__change *change)
{
    DL_APPEND(list->first, change);
    list->count++;
    list->bytes += change->view.bytes;
}

static void take_out(struct perf__tier_queue *q, struct perf__change *change)
{
    struct perf__tier_list *list = change->view.repair ? &q->repairs : &q->queue;
    DL_DELETE(list->first, change);
    list->count--;
    list->bytes -= change->view.bytes;
}

void perf__queue_drop(struct perf__tier_queue *q, struct perf__change *change)
{
    take_out(q, change);
    unindex(q, change);
    perf__change_free(q, change);
}

bool perf__queue_append(struct perf__tier_queue *q, struct perf__change *change, bool coalesce)
{
    if (change->view.op.kind != PERF_STORE_MARK) {
        struct perf__change *older = perf__queue_find(q, change->id);
        if (!reindex(q, change, older))
            return false;
        if (older && !older->view.in_flight && (coalesce || older->view.repair))
            perf__queue_drop(q, older);
    }
    append(&q->queue, change);
    return true;
}

void perf__queue_repair(struct perf__tier_queue *q, struct perf__change *change)
{
    struct perf__change_view *view = &change->view;
    view->in_flight = false;
    if (view->op.kind != PERF_STORE_MARK && !change->indexed) {
        perf__queue_drop(q, change);
        return;
    }
    if (view->repair)
        return;
    take_out(q, change);
    view->repair = true;
    if (view->op.kind == PERF_STORE_SET) {
        view->op.kind = PERF_STORE_REMOVE;
        view->op.record = (perf_bytes){"", 0};
        view->bytes -= sizeof *change->record + change->record->len;
        perf__record_release(q, change->record);
        change->record = NULL;
    }
    append(&q->repairs, change);
}

void perf__queue_clear(struct perf__tier_queue *q)
{
    while (q->repairs.first)
        perf__queue_drop(q, q->repairs.first);
    while (q->queue.first)
        perf__queue_drop(q, q->queue.first);
}
