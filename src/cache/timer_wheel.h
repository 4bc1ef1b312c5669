/* SPDX-License-Identifier: MIT */
/*
 * timer_wheel.h - which entries end next, in O(1) for each of them.
 *
 * A hierarchical timing wheel (Varghese and Lauck, SOSP 1987): four wheels of
 * 64 slots with ticks of 64 ms, 4 s, 4 min and 4.7 h. Entries are linked through
 * their extension. Advancing does a bounded number of steps a call and goes on
 * the next time; an entry past its end is a miss at once all the same, so the
 * wheel decides only when its memory comes back. Under the shard's lock.
 */
#ifndef PERF_CACHE_TIMER_WHEEL_H
#define PERF_CACHE_TIMER_WHEEL_H

#include "entry.h"

enum { PERF__WHEEL_LEVELS = 4, PERF__WHEEL_SLOTS = 64, PERF__WHEEL_TICK_SHIFT = 6 };

struct perf__timer_wheel {
    unsigned char *base; /* of references */
    int64_t tick;        /* everything before it has been dealt with */
    uint64_t count;
    uint64_t occupied[PERF__WHEEL_LEVELS]; /* a bit a slot */
    uint32_t slots[PERF__WHEEL_LEVELS][PERF__WHEEL_SLOTS];
    uint32_t cascading[PERF__WHEEL_LEVELS]; /* slots taken off a level, to be sorted in anew */
};

void perf__wheel_init(struct perf__timer_wheel *wheel, unsigned char *base, int64_t now);
void perf__wheel_add(struct perf__timer_wheel *wheel, uint32_t ref);
void perf__wheel_remove(struct perf__timer_wheel *wheel, uint32_t ref);
/* The entry lives at new_ref now, its bytes already copied. */
void perf__wheel_move(struct perf__timer_wheel *wheel, uint32_t old_ref, uint32_t new_ref);

/* The next entry whose dead_at has come, taken off the wheel, or 0. *budget counts down the
 * steps; at 0 it stops. */
uint32_t perf__wheel_expired(struct perf__timer_wheel *wheel, int64_t now, int64_t *budget);

#endif
