/* SPDX-License-Identifier: MIT */
/*
 * deadline.c - the time that this thread has left, inherited by what it calls.
 *
 * Thread-local by contract: two words, no memory, no lock. A deadline is kept as
 * a time on the clock it was given by; two on different clocks are compared by
 * what is left.
 */
#include <string.h>

#include "../base/status.h"
#include "part.h"

static _Thread_local struct {
    const perf_clock *clock; /* NULL: no deadline */
    int64_t at_ns;
} current __attribute__((tls_model("initial-exec")));

int64_t perf__deadline_left_ns(void)
{
    if (!current.clock)
        return -1;
    int64_t left = current.at_ns - perf__now_ns(current.clock);
    return left > 0 ? left : 0;
}

void perf__deadline_push(const perf_clock *clock, int64_t at_ns, perf_deadline *previous)
{
    int64_t left = perf__deadline_left_ns();
    previous->clock = current.clock;
    previous->at_ns = current.clock ? current.at_ns : -1;
    if (left >= 0) {
        int64_t now = perf__now_ns(clock);
        if (at_ns - now >= left)
            return; /* the outer one is nearer: it stays, on its own clock */
    } else if (at_ns == INT64_MAX) {
        return;
    }
    current.clock = clock;
    current.at_ns = at_ns;
}

int perf_deadline_enter(int64_t ms, const perf_clock *clock, perf_deadline *previous)
{
    if (!previous || previous->struct_size != sizeof *previous)
        return perf__fail(PERF_EINVAL, "previous is NULL or was not set by PERF_DEADLINE_INIT; "
                                       "it is needed to leave the deadline");
    if (clock && !clock->monotonic_ns)
        return perf__fail(PERF_EINVAL, "clock lacks monotonic_ns; give it, or NULL");
    if (!clock)
        clock = &perf__default_clock;
    perf__deadline_push(clock, ms < 0 ? INT64_MAX : perf__add_ms(perf__now_ns(clock), ms),
                        previous);
    return PERF_OK;
}

void perf_deadline_leave(const perf_deadline *previous)
{
    if (!previous || previous->struct_size != sizeof *previous)
        return;
    current.clock = previous->clock;
    current.at_ns = previous->at_ns;
}

int64_t perf_deadline_remaining_ms(void)
{
    int64_t left = perf__deadline_left_ns();
    return left < 0 ? -1 : perf__ceil_ms(left);
}

/* Digits from the end: a header must not depend on the locale. */
int perf_deadline_format(char *buf, size_t cap)
{
    enum { LONGEST = 21 };
    int64_t ms = perf_deadline_remaining_ms();
    if (!buf)
        return perf__fail(PERF_EINVAL, "buf is NULL; give at least 21 bytes");
    if (cap < LONGEST)
        return perf__fail(PERF_ETOOSMALL, "cap is %zu; give at least 21 bytes", cap);
    if (ms < 0)
        return PERF_MISS;
    char digits[LONGEST];
    size_t at = sizeof digits;
    digits[--at] = 0;
    do {
        digits[--at] = (char)('0' + ms % 10);
        ms /= 10;
    } while (ms);
    memcpy(buf, digits + at, sizeof digits - at);
    return PERF_OK;
}

int perf_deadline_parse(const char *text, size_t len, int64_t *ms)
{
    const int64_t day = 86400000;
    int64_t value = 0;
    if (!text || !ms)
        return perf__fail(PERF_EINVAL, "text or ms is NULL; give both");
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return perf__fail(PERF_EPROTOCOL,
                              "a deadline has byte 0x%02x at %zu; it must be the "
                              "milliseconds left in digits",
                              (unsigned char)text[i], i);
        value = value * 10 + (text[i] - '0');
        if (value > day)
            return perf__fail(PERF_EPROTOCOL, "a deadline is over a day; it must be the "
                                              "milliseconds left, up to 86400000");
    }
    if (!len)
        return perf__fail(PERF_EPROTOCOL, "a deadline is empty; it must be the milliseconds left");
    *ms = value;
    return PERF_OK;
}
