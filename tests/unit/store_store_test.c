/* SPDX-License-Identifier: MIT */
/* The dispatch: defaults for missing entries, versions of the vtable, what backends return. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "seams.h"
#include "store_conformance.h"
#include "test.h"

/* A small store in memory with only the required entries: 1024 slots, found by scanning. */
enum { SLOTS = 1024 };

struct slots {
    struct {
        uint8_t id[PERF_STORE_ID_SIZE];
        unsigned char *data;
        size_t len;
        bool used;
    } slot[SLOTS];
    atomic_int inside, overlaps, closed;
    int fail_with; /* what get and apply return when not 0 */
};

static struct slots *opened; /* the one of the running test */

static int slots_open(const perf_store_config *config, void **store)
{
    if (config->user_ctx)
        return *(int *)config->user_ctx;
    *store = opened = calloc(1, sizeof *opened);
    return PERF_OK;
}

static void slots_close(void *store)
{
    struct slots *s = store;
    for (size_t i = 0; i < SLOTS; i++)
        free(s->slot[i].data);
    free(s);
    opened = NULL;
}

static void enter(struct slots *s)
{
    if (atomic_fetch_add(&s->inside, 1))
        atomic_fetch_add(&s->overlaps, 1);
}

static void leave(struct slots *s)
{
    atomic_fetch_sub(&s->inside, 1);
}

static size_t slot_of(struct slots *s, const uint8_t *id, bool take)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (s->slot[i].used && !memcmp(s->slot[i].id, id, PERF_STORE_ID_SIZE))
            return i;
    for (size_t i = 0; take && i < SLOTS; i++)
        if (!s->slot[i].used)
            return i;
    return SLOTS;
}

static int slots_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct slots *s = store;
    if (s->fail_with)
        return s->fail_with;
    enter(s);
    size_t i = slot_of(s, key->id, false);
    int rc = i == SLOTS ? PERF_MISS : perf_store_reply_set(reply, s->slot[i].data, s->slot[i].len);
    leave(s);
    return rc;
}

static int slots_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct slots *s = store;
    if (s->fail_with)
        return s->fail_with;
    enter(s);
    for (size_t n = 0; n < count; n++) {
        if (ops[n].kind == PERF_STORE_MARK)
            continue;
        size_t i = slot_of(s, ops[n].key.id, true);
        s->slot[i].used = ops[n].kind == PERF_STORE_SET;
        if (!s->slot[i].used)
            continue;
        memcpy(s->slot[i].id, ops[n].key.id, PERF_STORE_ID_SIZE);
        free(s->slot[i].data);
        s->slot[i].data = malloc(ops[n].record.len + 1);
        s->slot[i].len = ops[n].record.len;
        if (ops[n].record.len)
            memcpy(s->slot[i].data, ops[n].record.data, ops[n].record.len);
    }
    leave(s);
    return PERF_OK;
}

static const perf_store_vtable slots = {
    .struct_size = sizeof slots,
    .name = "slots",
    .capabilities = PERF_STORE_SERIAL,
    .open = slots_open,
    .close = slots_close,
    .get = slots_get,
    .apply = slots_apply,
};

static struct perf__host host;

static int open_with(const perf_store_vtable *vtable, void *ctx, struct perf__store **store)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.store = vtable;
    tier.store_ctx = ctx;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    return perf__store_open(&tier, &host, store);
}

Test(store, the_required_entries_are_enough)
{
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    tier.store = &slots;
    store_conformance(&tier);
}

Test(store, missing_entries_have_defaults)
{
    struct perf__store *store;
    cr_assert(open_with(&slots, NULL, &store) == PERF_OK);
    size_t removed = 7;
    perf_store_usage usage;
    cr_assert(perf__store_sweep(store, 0, 10, &removed) == PERF_OK && removed == 0);
    cr_assert(perf__store_flush(store) == PERF_OK);
    cr_assert(perf__store_marks(store, 0, NULL, NULL) == PERF_OK);
    cr_assert(perf__store_usage(store, &usage) == PERF_OK && !usage.records && !usage.bytes);
    cr_assert(!strcmp(perf__store_name(store), "slots"));
    cr_assert(perf__store_capabilities(store) == PERF_STORE_SERIAL);
    perf__store_close(store);
}

Test(store, each_required_entry_is_asked_for_by_name)
{
    struct perf__store *store;
    perf_store_vtable v = slots;
    v.get = NULL;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL && strstr(perf_last_error(), ".get "));
    v = slots;
    v.apply = NULL;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL && strstr(perf_last_error(), ".apply "));
    v = slots;
    v.open = NULL;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL && strstr(perf_last_error(), ".open "));
    v = slots;
    v.close = NULL;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL && strstr(perf_last_error(), ".close "));
    v = slots;
    v.name = NULL;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL && strstr(perf_last_error(), ".name "));
    v.name = "";
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL);
    v = slots;
    v.capabilities = 1 << 20;
    cr_assert(open_with(&v, NULL, &store) == PERF_EINVAL &&
              strstr(perf_last_error(), "capabilities"));
}

Test(store, older_and_newer_vtables)
{
    struct perf__store *store;
    perf_store_vtable old = slots;
    old.struct_size = offsetof(perf_store_vtable, marks);
    memset(&old.marks, 0xff, sizeof old - old.struct_size); /* not part of it */
    cr_assert(open_with(&old, NULL, &store) == PERF_OK, "%s", perf_last_error());
    size_t removed;
    cr_assert(perf__store_sweep(store, 0, 1, &removed) == PERF_OK);
    perf__store_close(store);
    old.struct_size = offsetof(perf_store_vtable, apply);
    cr_assert(open_with(&old, NULL, &store) == PERF_EINVAL);

    struct {
        perf_store_vtable known;
        void *newer;
    } future = {slots, NULL};
    future.known.struct_size = sizeof future;
    cr_assert(open_with(&future.known, NULL, &store) == PERF_OK);
    perf__store_close(store);
    future.newer = &future;
    cr_assert(open_with(&future.known, NULL, &store) == PERF_EINVAL);
    future.known.struct_size = 0;
    cr_assert(open_with(&future.known, NULL, &store) == PERF_EINVAL);
}

Test(store, backends_are_found_by_name_and_listed)
{
    struct perf__store *store;
    perf_tier_options tier = PERF_TIER_OPTIONS_INIT;
    cr_assert(perf__host_take(NULL, &host) == PERF_OK);
    cr_assert(perf__store_open(&tier, &host, &store) == PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "backend"), "%s", perf_last_error());
    tier.backend = "sqlight";
    cr_assert(perf__store_open(&tier, &host, &store) == PERF_EINVAL);
    cr_assert(strstr(perf_last_error(), "\"sqlight\""), "%s", perf_last_error());
    cr_assert(perf__store_builtin("sqlight") == NULL && perf__store_builtin(NULL) == NULL);
    tier.backend = "sqlite";
    int rc = perf__store_open(&tier, &host, &store); /* with no location */
    if (perf__store_builtin("sqlite"))
        cr_assert(rc == PERF_EINVAL && strstr(perf_last_error(), "location"));
    else
        cr_assert(rc == PERF_EUNSUPPORTED && strstr(perf_last_error(), "built without"), "%s",
                  perf_last_error());
}

Test(store, what_backends_return_is_checked)
{
    struct perf__store *store;
    int failure = PERF_EUNAVAILABLE;
    cr_assert(open_with(&slots, &failure, &store) == PERF_EUNAVAILABLE);
    cr_assert(strstr(perf_last_error(), "\"slots\": open failed"), "%s", perf_last_error());
    failure = PERF_OK; /* and no store */
    cr_assert(open_with(&slots, &failure, &store) == PERF_EINVAL);

    cr_assert(open_with(&slots, NULL, &store) == PERF_OK);
    struct test_key own;
    perf_store_op op = test_set(&own, 1, "x", 1, 0);
    perf_store_reply reply = {.allocator = &host.allocator};
    opened->fail_with = PERF_EIO;
    cr_assert(perf__store_get(store, &op.key, &reply) == PERF_EIO);
    cr_assert(strstr(perf_last_error(), "get failed: input/output"), "%s", perf_last_error());
    cr_assert(perf__store_apply(store, &op, 1) == PERF_EIO);
    opened->fail_with = 42;
    cr_assert(perf__store_get(store, &op.key, &reply) == PERF_EIO);
    cr_assert(perf__store_apply(store, &op, 1) == PERF_EIO);
    opened->fail_with = PERF_MISS;
    cr_assert(perf__store_apply(store, &op, 1) == PERF_EIO, "apply cannot miss");
    opened->fail_with = 0;
    cr_assert(perf__store_apply(store, &op, 0) == PERF_OK);
    cr_assert(perf__store_get(store, &op.key, &reply) == PERF_MISS && !reply.found);
    perf__store_close(store);
}

static void *hammer(void *arg)
{
    struct test_key own;
    for (uint64_t i = 0; i < 500; i++) {
        perf_store_op op = test_set(&own, i % 50, "x", 1, 0);
        perf__store_apply(arg, &op, 1);
        test_has(arg, &host.allocator, i % 50, "x", 1);
    }
    return NULL;
}

Test(store, serial_backends_are_never_called_twice_at_once)
{
    struct perf__store *store;
    cr_assert(open_with(&slots, NULL, &store) == PERF_OK);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        cr_assert(!pthread_create(&threads[i], NULL, hammer, store));
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert(atomic_load(&opened->overlaps) == 0);
    perf__store_close(store);
}

Test(store, replies_grow_and_survive_a_failing_allocator)
{
    struct test_host th;
    test_host_init(&th);
    perf_store_reply reply = {.allocator = &th.allocator};
    cr_assert(perf_store_reply_set(&reply, "abc", 3) == PERF_OK && reply.found);
    unsigned char *first = reply.data;
    cr_assert(perf_store_reply_set(&reply, "", 0) == PERF_OK && reply.len == 0);
    cr_assert(reply.data == first, "a buffer serves many replies");
    static char big[5000];
    th.fail_at = 1;
    cr_assert(perf_store_reply_set(&reply, big, sizeof big) == PERF_ENOMEM);
    cr_assert(perf_store_reply_set(&reply, big, sizeof big) == PERF_OK && reply.len == sizeof big);
    cr_assert(perf_store_reply_set(&reply, NULL, 1) == PERF_EINVAL);
    cr_assert(perf_store_reply_set(NULL, "x", 1) == PERF_EINVAL);
    perf__reply_free(&reply);
    cr_assert(th.live == 0);
}
