/* SPDX-License-Identifier: MIT */
/* shared_store.c - see shared_store.h. One mutex; listeners are called without it. */
#include "shared_store.h"

#include <stdlib.h>
#include <string.h>

struct shared_store {
    struct shared_world *world;
    const perf_store_listener *listener;
};

void shared_world_init(struct shared_world *w, perf_clock *clock)
{
    memset(w, 0, sizeof *w);
    pthread_mutex_init(&w->mutex, NULL);
    w->clock = clock;
}

void shared_world_end(struct shared_world *w)
{
    for (size_t i = 0; i < w->record_count; i++)
        free(w->records[i].data);
    pthread_mutex_destroy(&w->mutex);
}

static int shared_open(const perf_store_config *config, void **store)
{
    struct shared_world *w = config->user_ctx;
    struct shared_store *s = calloc(1, sizeof *s);
    s->world = w;
    pthread_mutex_lock(&w->mutex);
    for (size_t i = 0; i < SHARED_STORES && s; i++) {
        if (!w->stores[i]) {
            w->stores[i] = s;
            break;
        }
    }
    pthread_mutex_unlock(&w->mutex);
    *store = s;
    return PERF_OK;
}

static void shared_close(void *store)
{
    struct shared_store *s = store;
    pthread_mutex_lock(&s->world->mutex);
    for (size_t i = 0; i < SHARED_STORES; i++)
        if (s->world->stores[i] == s)
            s->world->stores[i] = NULL;
    pthread_mutex_unlock(&s->world->mutex);
    free(s);
}

/* With the mutex. */
static struct shared_record *find(struct shared_world *w, const uint8_t *id)
{
    for (size_t i = 0; i < w->record_count; i++)
        if (!memcmp(w->records[i].id, id, PERF_STORE_ID_SIZE))
            return &w->records[i];
    if (w->record_count == SHARED_RECORDS)
        abort();
    struct shared_record *r = &w->records[w->record_count++];
    memset(r, 0, sizeof *r);
    memcpy(r->id, id, PERF_STORE_ID_SIZE);
    return r;
}

static void run_hook(struct shared_world *w, void (*_Atomic *hook)(void *))
{
    void (*fn)(void *) = atomic_exchange(hook, NULL);
    if (fn)
        fn(w->hook_ctx);
}

static int shared_get(void *store, const perf_store_key *key, perf_store_reply *reply)
{
    struct shared_world *w = ((struct shared_store *)store)->world;
    atomic_fetch_add(&w->gets, 1);
    if (atomic_load(&w->fails))
        return PERF_EUNAVAILABLE;
    pthread_mutex_lock(&w->mutex);
    struct shared_record *r = find(w, key->id);
    int rc = r->data ? perf_store_reply_set(reply, r->data, r->len) : PERF_MISS;
    pthread_mutex_unlock(&w->mutex);
    run_hook(w, &w->in_get); /* the answer is on its way, and something happens */
    return rc;
}

/* With the mutex. True: others are to be told. */
static bool change(struct shared_world *w, const perf_store_op *op)
{
    struct shared_record *r = find(w, op->key.id);
    bool set = op->kind == PERF_STORE_SET;
    if (set && op->lease &&
        (r->lease != op->lease ||
         w->clock->monotonic_ns(w->clock->ctx) / 1000000 >= r->lease_until_ms)) {
        atomic_fetch_add(&w->left_out, 1);
        return false;
    }
    atomic_fetch_add(&w->sets, set);
    r->lease = 0;
    free(r->data);
    r->data = set ? malloc(op->record.len + 1) : NULL;
    r->len = set ? op->record.len : 0;
    if (set)
        memcpy(r->data, op->record.data, op->record.len);
    return true;
}

static void mark(struct shared_world *w, const perf_store_op *op)
{
    size_t i = 0;
    while (i < w->mark_count &&
           (w->marks[i].kind != op->mark_kind || w->marks[i].len != op->mark_name.len ||
            memcmp(w->marks[i].name, op->mark_name.data, op->mark_name.len)))
        i++;
    if (i == SHARED_MARKS || op->mark_name.len > sizeof w->marks[i].name)
        abort();
    if (i == w->mark_count) {
        w->marks[i].kind = op->mark_kind;
        w->marks[i].len = op->mark_name.len;
        memcpy(w->marks[i].name, op->mark_name.data, op->mark_name.len);
        w->mark_count++;
    }
    if (op->mark_stamp_ms > w->marks[i].stamp_ms)
        w->marks[i].stamp_ms = op->mark_stamp_ms;
}

static void tell(struct shared_store *from, const perf_store_op *op)
{
    struct shared_world *w = from->world;
    struct shared_store *others[SHARED_STORES];
    size_t n = 0;
    if (atomic_load(&w->deaf))
        return;
    pthread_mutex_lock(&w->mutex);
    for (size_t i = 0; i < SHARED_STORES; i++)
        if (w->stores[i] && w->stores[i] != from && w->stores[i]->listener)
            others[n++] = w->stores[i];
    pthread_mutex_unlock(&w->mutex);
    for (size_t i = 0; i < n; i++) {
        const perf_store_listener *l = others[i]->listener;
        if (op->kind == PERF_STORE_MARK)
            l->marked(l->ctx, op->mark_kind, op->mark_name, op->mark_stamp_ms);
        else
            l->changed(l->ctx, &op->key);
    }
}

static int shared_apply(void *store, const perf_store_op *ops, size_t count)
{
    struct shared_store *s = store;
    struct shared_world *w = s->world;
    run_hook(w, &w->in_apply);
    if (atomic_load(&w->fails))
        return PERF_EUNAVAILABLE;
    for (size_t i = 0; i < count; i++) {
        bool kept = true;
        pthread_mutex_lock(&w->mutex);
        if (ops[i].kind == PERF_STORE_MARK)
            mark(w, &ops[i]);
        else
            kept = change(w, &ops[i]);
        pthread_mutex_unlock(&w->mutex);
        if (kept)
            tell(s, &ops[i]);
    }
    return PERF_OK;
}

static int shared_marks(void *store, int64_t since_ms, perf_store_mark_fn each, void *ctx)
{
    struct shared_world *w = ((struct shared_store *)store)->world;
    atomic_fetch_add(&w->marks_asked, 1);
    if (atomic_load(&w->fails))
        return PERF_EUNAVAILABLE;
    pthread_mutex_lock(&w->mutex);
    atomic_store(&w->marks_since, since_ms);
    for (size_t i = 0; i < w->mark_count; i++)
        if (w->marks[i].stamp_ms >= since_ms &&
            each(ctx, w->marks[i].kind, (perf_bytes){w->marks[i].name, w->marks[i].len},
                 w->marks[i].stamp_ms))
            break;
    pthread_mutex_unlock(&w->mutex);
    return PERF_OK;
}

static int shared_listen(void *store, const perf_store_listener *listener)
{
    struct shared_store *s = store;
    pthread_mutex_lock(&s->world->mutex);
    s->listener = listener;
    pthread_mutex_unlock(&s->world->mutex);
    return PERF_OK;
}

static int shared_lease(void *store, const perf_store_key *key, int64_t ttl_ms, uint64_t *token)
{
    struct shared_world *w = ((struct shared_store *)store)->world;
    int rc = PERF_EBUSY;
    if (atomic_load(&w->fails))
        return PERF_EUNAVAILABLE;
    int64_t now = w->clock->monotonic_ns(w->clock->ctx) / 1000000;
    pthread_mutex_lock(&w->mutex);
    struct shared_record *r = find(w, key->id);
    bool renews = *token != 0, free = !r->lease || now >= r->lease_until_ms;
    if (renews ? !free && r->lease == *token : free) {
        r->lease = renews ? *token : ++w->last_token;
        *token = r->lease;
        r->lease_until_ms = now + ttl_ms;
        rc = PERF_OK;
    }
    pthread_mutex_unlock(&w->mutex);
    atomic_fetch_add(renews ? &w->renewals : &w->leases, rc == PERF_OK);
    return rc;
}

static int shared_unlease(void *store, const perf_store_key *key, uint64_t token)
{
    struct shared_world *w = ((struct shared_store *)store)->world;
    pthread_mutex_lock(&w->mutex);
    struct shared_record *r = find(w, key->id);
    if (r->lease == token)
        r->lease = 0;
    pthread_mutex_unlock(&w->mutex);
    return PERF_OK;
}

void shared_world_deafen(struct shared_world *w, bool deaf)
{
    struct shared_store *stores[SHARED_STORES];
    atomic_store(&w->deaf, deaf);
    pthread_mutex_lock(&w->mutex);
    memcpy(stores, w->stores, sizeof stores);
    pthread_mutex_unlock(&w->mutex);
    for (size_t i = 0; i < SHARED_STORES; i++)
        if (stores[i] && stores[i]->listener)
            stores[i]->listener->heard(stores[i]->listener->ctx, deaf);
}

static const perf_store_vtable shared = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "shared",
    .capabilities = PERF_STORE_SHARED | PERF_STORE_PARTIAL | PERF_STORE_LEASES | PERF_STORE_REMOTE,
    .open = shared_open,
    .close = shared_close,
    .get = shared_get,
    .apply = shared_apply,
    .marks = shared_marks,
    .listen = shared_listen,
    .lease = shared_lease,
    .unlease = shared_unlease,
};

static const perf_store_vtable mute = {
    .struct_size = sizeof(perf_store_vtable),
    .name = "mute",
    .capabilities = PERF_STORE_SHARED | PERF_STORE_PARTIAL | PERF_STORE_REMOTE,
    .open = shared_open,
    .close = shared_close,
    .get = shared_get,
    .apply = shared_apply,
    .marks = shared_marks,
};

perf_tier_options shared_tier(struct shared_world *w)
{
    perf_tier_options o = PERF_TIER_OPTIONS_INIT;
    o.store = &shared;
    o.store_ctx = w;
    return o;
}

perf_tier_options shared_mute_tier(struct shared_world *w)
{
    perf_tier_options o = shared_tier(w);
    o.store = &mute;
    return o;
}
