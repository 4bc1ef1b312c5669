/* SPDX-License-Identifier: MIT */
/*
 * invalidate.h - marks: killing a million entries by writing down one line.
 *
 * A mark says "everything of this kind and name with a stamp up to mine is
 * dead". Stamps are wall clock milliseconds made strictly increasing over
 * marks: whatever begins after a mark gets a greater stamp, whatever began
 * before (a load under way included) an equal or smaller one.
 *
 * Entries check themselves against the marks at most once per mark, because the
 * memory tier remembers up to which stamp it has asked. Any thread; the lock is
 * a leaf (see the lock order in src/README.md).
 */
#ifndef PERF_CACHE_INVALIDATE_H
#define PERF_CACHE_INVALIDATE_H

#include <libperf/types.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../base/hash.h"
#include "../base/options.h"

/* Kinds of marks; stored by durable tiers, so the numbers never change. */
enum {
    PERF__MARK_ALL = 1, /* name empty */
    PERF__MARK_NAMESPACE = 2,
    PERF__MARK_USER = 3,
    PERF__MARK_TAG = 4,
    PERF__MARK_PATTERN = 5, /* name: namespace (empty: all), a zero byte, the pattern */
};

enum { PERF__MARK_NAME_MAX = 255 + 1 + 1024 };

struct perf__mark;

struct perf__marks {
    const struct perf__host *host;
    struct perf__hash_key secret;
    pthread_rwlock_t lock;
    struct perf__mark *table;    /* by kind and name */
    struct perf__mark *patterns; /* those of the table that must be tried one by one */
    size_t count, pattern_count;
    int64_t ahead_ms;     /* by how much marks are ahead of this clock; see perf__marks_add */
    int64_t forgotten;    /* marks up to here may be gone: such entries count as dead */
    _Atomic int64_t last; /* stamp of the newest mark; 0 none */
    _Atomic int64_t now;  /* greatest stamp given out: the wall clock may go back */
};

/* What the marks look at in an entry. */
struct perf__marked {
    perf_bytes ns, user, key, tags; /* tags: strings of one length byte each */
    int64_t stamp;
};

int perf__marks_init(struct perf__marks *marks, const struct perf__host *host,
                     struct perf__hash_key secret);
void perf__marks_destroy(struct perf__marks *marks);

/* The stamp of something that begins now. */
int64_t perf__marks_stamp(struct perf__marks *marks);

/*
 * Makes a mark of this moment, or of ahead_ms later: with tiers that other machines write to, whose
 * clocks may be ahead of ours by as much, what they wrote before the mark must not outlive it. What
 * is written here after a mark has a stamp above it all the same. *stamp receives it. When there
 * are too many, the older half is replaced by one mark that kills everything as old as they are,
 * and *forgotten receives its stamp, else 0. PERF_OK, or PERF_ENOMEM with nothing changed.
 */
int perf__marks_add(struct perf__marks *marks, int kind, const void *name, size_t name_len,
                    int64_t *stamp, int64_t *forgotten);

/* Takes in a mark that a tier remembered. Also used for kind ALL. PERF_OK or PERF_ENOMEM. */
int perf__marks_restore(struct perf__marks *marks, int kind, const void *name, size_t name_len,
                        int64_t stamp);

/* Is it dead? */
bool perf__marks_dead(struct perf__marks *marks, const struct perf__marked *entry);

/* Calls each with the marks that concern an entry, whatever its stamp. Under the lock of the marks.
 */
void perf__marks_of(struct perf__marks *marks, const struct perf__marked *entry,
                    void (*each)(void *ctx, int kind, perf_bytes name, int64_t stamp), void *ctx);

/* All entries with a stamp up to this one have been asked and dealt with: the marks up to it
 * need not be kept. For caches without tiers below. */
void perf__marks_forget(struct perf__marks *marks, int64_t up_to);

static inline int64_t perf__marks_last(const struct perf__marks *marks)
{
    return atomic_load_explicit(&marks->last, memory_order_acquire);
}

/* A stamp for a write to memory alone, without a clock: the newest one given, if that is younger
 * than every mark; else as perf__marks_stamp. */
static inline int64_t perf__marks_stamp_again(struct perf__marks *marks)
{
    int64_t now = atomic_load_explicit(&marks->now, memory_order_acquire);
    return __builtin_expect(now > perf__marks_last(marks), 1) ? now : perf__marks_stamp(marks);
}

#endif
