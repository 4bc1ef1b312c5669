/* SPDX-License-Identifier: MIT */
/*
 * store_conformance.h - what every storage backend must do, whatever it is made of.
 *
 * A backend's test gives the tier options that name it (or bring its vtable)
 * and an empty location; the suite opens it through the library's own dispatch
 * and asserts the promises of backend/store.h one by one.
 */
#ifndef TESTS_STORE_CONFORMANCE_H
#define TESTS_STORE_CONFORMANCE_H

#include "../../src/store/store.h"

/* Runs every check. The location is empty before and holds records after. */
void store_conformance(const perf_tier_options *tier);

/* An id and a key for number n, well mixed as real ones are. The pointers are into own. */
struct test_key {
    uint8_t id[PERF_STORE_ID_SIZE];
    char name[24];
};
perf_store_key test_key(struct test_key *own, uint64_t n);

perf_store_op test_set(struct test_key *own, uint64_t n, const void *data, size_t len,
                       int64_t expire_ms);
perf_store_op test_remove(struct test_key *own, uint64_t n);
perf_store_op test_mark(int64_t kind, const char *name, int64_t stamp_ms);

/* Is there a record for n, and is it these bytes? */
bool test_has(struct perf__store *store, const perf_allocator *allocator, uint64_t n,
              const void *data, size_t len);

#endif
