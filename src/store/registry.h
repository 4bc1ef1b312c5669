/* SPDX-License-Identifier: MIT */
/* registry.h - the built-in backends by name. Private to this room. Any thread. */
#ifndef PERF_STORE_REGISTRY_H
#define PERF_STORE_REGISTRY_H

#include "store.h"

extern const perf_store_vtable perf__store_sqlite;   /* sqlite.c; absent with WITH_SQLITE=0 */
extern const perf_store_vtable perf__store_redis;    /* redis_store.c; absent with WITH_REDIS=0 */
extern const perf_store_vtable perf__store_dynamodb; /* dynamodb.c; absent with WITH_AWS=0 */

/* PERF_EINVAL that lists the names there are, or PERF_EUNSUPPORTED for a backend that this
 * build was made without. name may be NULL. */
int perf__store_fail_unknown(const char *name);

#endif
