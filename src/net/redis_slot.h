/* SPDX-License-Identifier: MIT */
/*
 * redis_slot.h - where in a Redis Cluster a command belongs.
 *
 *     struct perf__redis_place place = perf__redis_place_of(argv, argc);
 *     if (place.slot == PERF__REDIS_ANY_NODE) ...   // it names no key
 *     if (place.spans) ...                          // its keys live in several slots
 *
 * A cluster knows 16,384 slots; a key's slot is its CRC-16, or that of what stands between the
 * first { and the next }, so that users can put keys together. Which arguments are keys is in a
 * table of the commands that differ from the common form, in which the first argument is the only
 * key; a command that is not known is taken for one of those. Pure functions, any thread.
 */
#ifndef PERF_NET_REDIS_SLOT_H
#define PERF_NET_REDIS_SLOT_H

#include <libperf/types.h>
#include <stdbool.h>

enum { PERF__REDIS_SLOTS = 16384, PERF__REDIS_ANY_NODE = -1 };

/* How a command whose keys span slots is done in parts, and what makes one reply of theirs. */
enum {
    PERF__REDIS_WHOLE,     /* not at all */
    PERF__REDIS_SPLIT_GET, /* MGET: an array, in the order asked */
    PERF__REDIS_SPLIT_SET, /* MSET: OK */
    PERF__REDIS_SPLIT_SUM, /* DEL and its kin: a sum */
};

struct perf__redis_place {
    int32_t slot;  /* of the first key, or PERF__REDIS_ANY_NODE */
    bool spans;    /* another key has another slot */
    bool reads;    /* it changes nothing, so a replica may answer */
    uint8_t split; /* PERF__REDIS_WHOLE, ... */
    uint8_t step;  /* of a command that can be split: arguments for each key */
};

/** The slot of a key. */
int32_t perf__redis_slot(const void *key, size_t len);

/** Where a command belongs. argc may be 0; argv[0] is its name, in any case. */
struct perf__redis_place perf__redis_place_of(const perf_bytes *argv, size_t argc);

/** The arguments that are keys: also[0], then begin, begin + step, ... below end, then also[1];
 *  0 in also: none. */
struct perf__redis_keys {
    size_t begin, end, step;
    size_t also[2];
};
struct perf__redis_keys perf__redis_keys_of(const perf_bytes *argv, size_t argc);

#endif
