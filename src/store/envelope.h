/* SPDX-License-Identifier: MIT */
/*
 * envelope.h - what a value wears outside the process.
 *
 * A record carries version, times, flags, tags, the full key and a checksum, so
 * that whatever comes back can be believed or refused: a damaged or foreign one
 * is PERF_ECORRUPT, never a crash. The format is little-endian and documented
 * byte by byte in libperf-envelope(7). Pure functions, any thread.
 */
#ifndef PERF_STORE_ENVELOPE_H
#define PERF_STORE_ENVELOPE_H

#include <libperf/types.h>

struct perf__record {
    perf_bytes ns, user, key; /* user may be empty */
    perf_bytes value;
    perf_bytes tags;        /* strings of one length byte each */
    int64_t stamp_ms;       /* wall clock: when the value's making began (invalidate.h) */
    int64_t fresh_until_ms; /* wall clock; 0: never ends */
    int64_t dead_at_ms;     /* wall clock; 0: never */
    uint32_t load_ms;
    uint8_t kind; /* PERF__ENTRY_... of memory_tier.h */
};

/* Length of the envelope of a record; 0 when a part is longer than its field can say. */
size_t perf__envelope_size(const struct perf__record *record);

/* Writes exactly perf__envelope_size bytes. */
void perf__envelope_encode(const struct perf__record *record, void *out);

/* Parses hostile bytes; the parts point into data. PERF_OK, or PERF_ECORRUPT with the reason. */
int perf__envelope_decode(const void *data, size_t len, struct perf__record *record);

#endif
