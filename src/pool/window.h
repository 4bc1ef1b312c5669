/* SPDX-License-Identifier: MIT */
/*
 * window.h - how many of the last calls failed or were slow, without a lock.
 *
 * Two kinds. The last n calls: a ring of n outcomes and one word with their
 * sums. The last while: sixteen words, each the sums of a sixteenth of it; a
 * mutex is taken only to empty the next one. Every word carries the number of
 * the breaker's state ("generation") in which it was written, so a call that
 * began in an earlier state can neither count nor be counted. Any thread.
 */
#ifndef PERF_POOL_WINDOW_H
#define PERF_POOL_WINDOW_H

#include "part.h"

#include <pthread.h>

enum {
    PERF__WINDOW_SLICES = 16,
    PERF__WINDOW_MAX_CALLS = 32767,
    PERF__CALL_FAILED = 1,
    PERF__CALL_SLOW = 2,
};

struct perf__window_sums {
    uint32_t calls, failed, slow;
};

struct perf__window {
    const perf_allocator *allocator;
    uint32_t calls;   /* of the ring; 0: by time */
    int64_t slice_ns; /* by time */
    _Atomic uint32_t *ring;
    _Atomic uint32_t head;
    _Atomic uint64_t sums; /* of the ring */
    _Atomic uint64_t slices[PERF__WINDOW_SLICES];
    _Atomic int64_t slice; /* the number of the newest */
    pthread_mutex_t mutex; /* to move on to the next slice, and to begin anew */
    bool has_mutex;
};

/* calls 0: by time. PERF_OK or PERF_ENOMEM. */
int perf__window_init(struct perf__window *w, const perf_allocator *allocator, uint32_t calls,
                      int64_t span_ns);
/* usable: false in a forked child. */
void perf__window_destroy(struct perf__window *w, bool usable);

/** Forgets everything; from now on this generation counts. */
void perf__window_reset(struct perf__window *w, uint16_t generation, int64_t now_ns);

/** Counts a call (flags: PERF__CALL_...) and says what the window then holds. *torn: the sums were
 *  being changed by another one at that moment and must not be judged. */
struct perf__window_sums perf__window_add(struct perf__window *w, uint16_t generation, int flags,
                                          int64_t now_ns, bool *torn);

/** What it holds. */
struct perf__window_sums perf__window_read(struct perf__window *w, int64_t now_ns);

#endif
