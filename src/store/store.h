/* SPDX-License-Identifier: MIT */
/*
 * store.h - an opened storage backend, with a default for every slot.
 *
 * Wraps a perf_store_vtable: fills in the fallbacks that backend/store.h
 * promises, serialises calls for PERF_STORE_SERIAL, and finds built-in backends
 * by name. Any thread.
 */
#ifndef PERF_STORE_STORE_H
#define PERF_STORE_STORE_H

#include <libperf/backend/store.h>
#include <libperf/cache.h>
#include <stdbool.h>

#include "../base/options.h"

struct perf__store;

/* The library's side of a reply: get fills data; perf__reply_free lets go of it. */
struct perf_store_reply {
    const perf_allocator *allocator;
    unsigned char *data;
    size_t len, cap;
    bool found;
};

void perf__reply_free(perf_store_reply *reply);

/* Opens the backend a tier names (or brings). host outlives the store. PERF_EINVAL names an
 * unknown backend and lists the known ones. */
int perf__store_open(const perf_tier_options *tier, const struct perf__host *host,
                     struct perf__store **out);
void perf__store_close(struct perf__store *store); /* NULL ok */
/* After fork(), in the child: frees our memory, does not touch the backend (SQLite forbids it). */
void perf__store_abandon(struct perf__store *store);

const char *perf__store_name(const struct perf__store *store);
uint64_t perf__store_capabilities(const struct perf__store *store);

int perf__store_get(struct perf__store *store, const perf_store_key *key, perf_store_reply *reply);
int perf__store_get_many(struct perf__store *store, const perf_store_key *keys, size_t count,
                         perf_store_reply *const *replies);
int perf__store_apply(struct perf__store *store, const perf_store_op *ops, size_t count);
int perf__store_marks(struct perf__store *store, int64_t since_ms, perf_store_mark_fn each,
                      void *ctx);
int perf__store_sweep(struct perf__store *store, int64_t now_ms, size_t budget, size_t *removed);
int perf__store_flush(struct perf__store *store);
int perf__store_usage(struct perf__store *store, perf_store_usage *usage);
/* PERF_EUNSUPPORTED when the backend has no such thing. */
int perf__store_listen(struct perf__store *store, const perf_store_listener *listener);
int perf__store_lease(struct perf__store *store, const perf_store_key *key, int64_t ttl_ms,
                      uint64_t *token);
/* Of a token that is not 0. */
int perf__store_renew(struct perf__store *store, const perf_store_key *key, int64_t ttl_ms,
                      uint64_t token);
int perf__store_lease_many(struct perf__store *store, const perf_store_key *keys, size_t count,
                           int64_t ttl_ms, uint64_t *tokens);
int perf__store_unlease(struct perf__store *store, const perf_store_key *key, uint64_t token);

/* Built-in backends, one line each in registry.c. NULL when unknown. */
const perf_store_vtable *perf__store_builtin(const char *name);

#endif
