/* SPDX-License-Identifier: MIT */
/*
 * store.c - calls a backend through its vtable, with a default for every slot.
 *
 * The vtable is copied when the store is opened, as large as this library knows
 * it: an older, smaller one simply lacks the newer entries. What a backend of
 * the host's returns is checked, since it is foreign code; what it fails with
 * gets a sentence, since it cannot set one itself. With PERF_STORE_SERIAL a
 * mutex is held around every call. Any thread.
 */
#include "store.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "registry.h"

enum {
    CAPABILITIES = PERF_STORE_DURABLE | PERF_STORE_SHARED | PERF_STORE_SERIAL | PERF_STORE_PARTIAL |
                   PERF_STORE_LEASES | PERF_STORE_REMOTE,
    NAME_MAX_LEN = 63,
    REPLY_ROUND = 256 /* reply buffers grow in steps, so that one serves many gets */
};

struct perf__store {
    perf_allocator allocator;
    perf_store_vtable vtable;
    void *store;
    pthread_mutex_t serial;
    bool built_in;
    char name[NAME_MAX_LEN + 1];
};

/* ------------------------------------------------------------------ replies */

int perf_store_reply_set(perf_store_reply *reply, const void *data, size_t len)
{
    if (!reply || (!data && len))
        return perf__fail(PERF_EINVAL, "perf_store_reply_set was given no %s",
                          reply ? "data" : "reply");
    if (len > reply->cap || !reply->data) {
        if (len > SIZE_MAX - REPLY_ROUND)
            return perf__fail_nomem("a record read from a store");
        size_t cap = (len + REPLY_ROUND - 1) / REPLY_ROUND * REPLY_ROUND;
        /* Not realloc: it would copy bytes that are replaced anyway. */
        unsigned char *grown = perf__alloc(reply->allocator, cap);
        if (!grown)
            return perf__fail_nomem("a record read from a store");
        perf__free(reply->allocator, reply->data);
        reply->data = grown;
        reply->cap = cap;
    }
    if (len)
        memcpy(reply->data, data, len);
    reply->len = len;
    reply->found = true;
    return PERF_OK;
}

void perf__reply_free(perf_store_reply *reply)
{
    perf__free(reply->allocator, reply->data);
    reply->data = NULL;
    reply->len = reply->cap = 0;
    reply->found = false;
}

/* -------------------------------------------------------------- open, close */

static int check_vtable(const perf_store_vtable *v)
{
    const char *missing = !v->name    ? "name"
                          : !v->open  ? "open"
                          : !v->close ? "close"
                          : !v->get   ? "get"
                          : !v->apply ? "apply"
                                      : NULL;
    if (missing)
        return perf__fail(PERF_EINVAL,
                          "perf_store_vtable.%s is missing; name, open, close, get and apply are "
                          "required",
                          missing);
    int rc = perf__check_len("perf_store_vtable.name", strnlen(v->name, NAME_MAX_LEN + 1), 1,
                             NAME_MAX_LEN);
    if (!rc && v->capabilities & PERF_STORE_LEASES && (!v->lease || !v->unlease))
        rc = perf__fail(PERF_EINVAL,
                        "perf_store_vtable.capabilities has PERF_STORE_LEASES and %s is NULL; give "
                        "it, or take the flag away",
                        v->lease ? "unlease" : "lease");
    if (!rc && v->capabilities & ~(uint64_t)CAPABILITIES)
        rc = perf__fail(PERF_EINVAL,
                        "perf_store_vtable.capabilities is 0x%llx; this libperf knows 0x%x",
                        (unsigned long long)v->capabilities, (unsigned)CAPABILITIES);
    return rc;
}

static void lock(struct perf__store *s)
{
    if (s->vtable.capabilities & PERF_STORE_SERIAL)
        pthread_mutex_lock(&s->serial);
}

static void unlock(struct perf__store *s)
{
    if (s->vtable.capabilities & PERF_STORE_SERIAL)
        pthread_mutex_unlock(&s->serial);
}

/* What a call returned, with a sentence for failures of the host's own backends. */
static int check(const struct perf__store *s, const char *call, int rc, bool may_miss)
{
    if (rc == PERF_OK || (rc == PERF_MISS && may_miss))
        return rc;
    if (rc > 0)
        return perf__fail(PERF_EIO,
                          "store \"%s\": %s returned %d, which is not a status it may return",
                          s->name, call, rc);
    if (!s->built_in)
        perf__fail(rc, "store \"%s\": %s failed: %s", s->name, call, perf_strerror(rc));
    return rc;
}

int perf__store_open(const perf_tier_options *tier, const struct perf__host *host,
                     struct perf__store **out)
{
    const perf_store_vtable *given = tier->store ? tier->store : perf__store_builtin(tier->backend);
    if (!given)
        return perf__store_fail_unknown(tier->backend);
    perf_store_vtable vtable;
    int rc = perf__options_take("perf_store_vtable", given, &vtable, sizeof vtable);
    if (rc || (rc = check_vtable(&vtable)))
        return rc;
    struct perf__store *s = perf__calloc(&host->allocator, 1, sizeof *s);
    if (!s)
        return perf__fail_nomem("a store");
    s->allocator = host->allocator;
    s->vtable = vtable;
    s->built_in = !tier->store;
    memcpy(s->name, vtable.name, strlen(vtable.name));
    if (pthread_mutex_init(&s->serial, NULL)) {
        rc = perf__fail_nomem("a store's lock");
        goto no_mutex;
    }
    perf_store_config config = {
        .struct_size = sizeof config,
        .location = tier->location,
        .max_bytes = tier->max_bytes,
        .timeout_ms = tier->timeout_ms,
        .sync = tier->sync,
        .user_ctx = tier->store_ctx,
        .host = &host->view,
    };
    rc = check(s, "open", vtable.open(&config, &s->store), false);
    if (!rc && !s->store)
        rc = perf__fail(PERF_EINVAL,
                        "store \"%s\": open returned PERF_OK but left the store pointer NULL; "
                        "give it any other address",
                        s->name);
    if (rc)
        goto not_open;
    *out = s;
    return PERF_OK;

not_open:
    pthread_mutex_destroy(&s->serial);
no_mutex:
    perf__free(&host->allocator, s);
    return rc;
}

void perf__store_close(struct perf__store *s)
{
    if (!s)
        return;
    lock(s);
    s->vtable.close(s->store);
    unlock(s);
    pthread_mutex_destroy(&s->serial);
    perf__store_abandon(s);
}

void perf__store_abandon(struct perf__store *s)
{
    if (!s)
        return;
    perf_allocator allocator = s->allocator;
    perf__free(&allocator, s);
}

const char *perf__store_name(const struct perf__store *s)
{
    return s->name;
}

uint64_t perf__store_capabilities(const struct perf__store *s)
{
    return s->vtable.capabilities;
}

/* -------------------------------------------------------------------- reads */

/* One get under the lock; a reply counts only when the backend says so too. */
static int get_one(struct perf__store *s, const perf_store_key *key, perf_store_reply *reply)
{
    reply->found = false;
    int rc = check(s, "get", s->vtable.get(s->store, key, reply), true);
    if (rc == PERF_OK && !reply->found)
        return perf__fail(PERF_EIO, "store \"%s\": get returned PERF_OK but set no reply", s->name);
    if (rc != PERF_OK)
        reply->found = false;
    return rc;
}

int perf__store_get(struct perf__store *s, const perf_store_key *key, perf_store_reply *reply)
{
    lock(s);
    int rc = get_one(s, key, reply);
    unlock(s);
    return rc;
}

int perf__store_get_many(struct perf__store *s, const perf_store_key *keys, size_t count,
                         perf_store_reply *const *replies)
{
    int rc = PERF_OK;
    for (size_t i = 0; i < count; i++)
        replies[i]->found = false;
    lock(s);
    if (s->vtable.get_many && count) {
        rc = check(s, "get_many", s->vtable.get_many(s->store, keys, count, replies), true);
        if (rc == PERF_MISS)
            rc = PERF_OK;
    } else {
        /* One bad record does not hide the others; the first failure is reported. */
        for (size_t i = 0; i < count; i++) {
            int one = get_one(s, &keys[i], replies[i]);
            if (one < 0 && rc == PERF_OK)
                rc = one;
        }
    }
    unlock(s);
    return rc;
}

int perf__store_marks(struct perf__store *s, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    if (!s->vtable.marks)
        return PERF_OK;
    lock(s);
    int rc = check(s, "marks", s->vtable.marks(s->store, since_ms, each, ctx), false);
    unlock(s);
    return rc;
}

int perf__store_usage(struct perf__store *s, perf_store_usage *usage)
{
    *usage = (perf_store_usage){.struct_size = sizeof *usage};
    if (!s->vtable.usage)
        return PERF_OK;
    lock(s);
    int rc = check(s, "usage", s->vtable.usage(s->store, usage), false);
    unlock(s);
    return rc;
}

/* ------------------------------------------------------------------- writes */

int perf__store_apply(struct perf__store *s, const perf_store_op *ops, size_t count)
{
    if (!count)
        return PERF_OK;
    lock(s);
    int rc = check(s, "apply", s->vtable.apply(s->store, ops, count), false);
    unlock(s);
    return rc;
}

int perf__store_sweep(struct perf__store *s, int64_t now_ms, size_t budget, size_t *removed)
{
    *removed = 0;
    if (!s->vtable.sweep || !budget)
        return PERF_OK;
    lock(s);
    int rc = check(s, "sweep", s->vtable.sweep(s->store, now_ms, budget, removed), false);
    unlock(s);
    return rc;
}

int perf__store_flush(struct perf__store *s)
{
    if (!s->vtable.flush)
        return PERF_OK;
    lock(s);
    int rc = check(s, "flush", s->vtable.flush(s->store), false);
    unlock(s);
    return rc;
}

/* ---------------------------------------------------------- shared by processes */

int perf__store_listen(struct perf__store *s, const perf_store_listener *listener)
{
    if (!s->vtable.listen)
        return PERF_EUNSUPPORTED;
    lock(s);
    int rc = s->vtable.listen(s->store, listener);
    unlock(s);
    return rc == PERF_EUNSUPPORTED ? rc : check(s, "listen", rc, true);
}

static int lease_one(struct perf__store *s, const perf_store_key *key, int64_t ttl_ms,
                     uint64_t *token)
{
    int rc = s->vtable.lease(s->store, key, ttl_ms, token);
    if (rc == PERF_EBUSY)
        return rc;
    rc = check(s, "lease", rc, false);
    if (!rc && !*token)
        return perf__fail(PERF_EIO, "store \"%s\": lease returned PERF_OK and no token", s->name);
    return rc;
}

int perf__store_lease(struct perf__store *s, const perf_store_key *key, int64_t ttl_ms,
                      uint64_t *token)
{
    if (!(s->vtable.capabilities & PERF_STORE_LEASES))
        return PERF_EUNSUPPORTED;
    *token = 0;
    lock(s);
    int rc = lease_one(s, key, ttl_ms, token);
    unlock(s);
    return rc;
}

int perf__store_renew(struct perf__store *s, const perf_store_key *key, int64_t ttl_ms,
                      uint64_t token)
{
    if (!(s->vtable.capabilities & PERF_STORE_LEASES))
        return PERF_EUNSUPPORTED;
    lock(s);
    int rc = lease_one(s, key, ttl_ms, &token);
    unlock(s);
    return rc;
}

int perf__store_lease_many(struct perf__store *s, const perf_store_key *keys, size_t count,
                           int64_t ttl_ms, uint64_t *tokens)
{
    if (!(s->vtable.capabilities & PERF_STORE_LEASES))
        return PERF_EUNSUPPORTED;
    int rc = PERF_OK;
    lock(s);
    if (s->vtable.lease_many && count)
        rc = check(s, "lease_many", s->vtable.lease_many(s->store, keys, count, ttl_ms, tokens),
                   false);
    else
        for (size_t i = 0; i < count && !rc; i++)
            if ((rc = lease_one(s, &keys[i], ttl_ms, &tokens[i])) == PERF_EBUSY)
                rc = PERF_OK, tokens[i] = 0;
    unlock(s);
    return rc;
}

int perf__store_unlease(struct perf__store *s, const perf_store_key *key, uint64_t token)
{
    if (!(s->vtable.capabilities & PERF_STORE_LEASES))
        return PERF_EUNSUPPORTED;
    lock(s);
    int rc = check(s, "unlease", s->vtable.unlease(s->store, key, token), false);
    unlock(s);
    return rc;
}
