/* SPDX-License-Identifier: MIT */
/* options.c - checks what a caller hands in, and says what is wrong with it. Any thread. */
#include "options.h"

#include <string.h>

#include "alloc.h"
#include "clock.h"
#include "status.h"

/* No options struct will ever be this large: a struct_size beyond it is garbage. */
enum { OPTIONS_SIZE_MAX = 4096 };

int perf__options_take(const char *type, const void *given, void *own, size_t own_size)
{
    memset(own, 0, own_size);
    memcpy(own, &own_size, sizeof own_size);
    if (!given)
        return PERF_OK;
    size_t size;
    memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > OPTIONS_SIZE_MAX)
        return perf__fail(PERF_EINVAL,
                          "%s.struct_size is %zu; initialise the struct with its _INIT macro", type,
                          size);
    if (size > own_size) {
        const unsigned char *tail = (const unsigned char *)given + own_size;
        for (size_t i = 0; i < size - own_size; i++)
            if (tail[i])
                return perf__fail(PERF_EINVAL,
                                  "%s sets a field at byte %zu that this libperf does not know; "
                                  "use a newer libperf or leave the field zero",
                                  type, own_size + i);
        size = own_size;
    }
    memcpy(own, given, size);
    memcpy(own, &own_size, sizeof own_size);
    return PERF_OK;
}

int perf__options_check_out(const char *type, const void *theirs, size_t *size)
{
    if (theirs)
        memcpy(size, theirs, sizeof *size);
    if (!theirs || *size < 2 * sizeof *size || *size > OPTIONS_SIZE_MAX)
        return perf__fail(PERF_EINVAL,
                          "%s is NULL or its struct_size is not set; use its _INIT "
                          "macro",
                          type);
    return PERF_OK;
}

void perf__options_give(void *theirs, size_t their_size, const void *ours, size_t our_size)
{
    size_t size = their_size < our_size ? their_size : our_size;
    memset(theirs, 0, their_size);
    memcpy(theirs, ours, size);
    memcpy(theirs, &their_size, sizeof their_size);
}

int perf__check_range(const char *field, int64_t value, int64_t min, int64_t max)
{
    if (value >= min && value <= max)
        return PERF_OK;
    return perf__fail(PERF_EINVAL, "%s is %lld; give %lld to %lld", field, (long long)value,
                      (long long)min, (long long)max);
}

int perf__check_len(const char *field, size_t len, size_t min, size_t max)
{
    if (len >= min && len <= max)
        return PERF_OK;
    return perf__fail(PERF_EINVAL, "%s is %zu bytes long; give %zu to %zu", field, len, min, max);
}

int perf__host_take(const perf_host *given, struct perf__host *own)
{
    perf_host host;
    int rc = perf__options_take("perf_host", given, &host, sizeof host);
    if (rc)
        return rc;
    if ((rc = perf__options_take("perf_allocator", host.allocator, &own->allocator,
                                 sizeof own->allocator)) ||
        (rc = perf__options_take("perf_clock", host.clock, &own->clock, sizeof own->clock)) ||
        (rc = perf__options_take("perf_log", host.log, &own->log, sizeof own->log)))
        return rc;
    if (!host.allocator)
        own->allocator = perf__default_allocator;
    else if (!own->allocator.alloc || !own->allocator.realloc || !own->allocator.free)
        return perf__fail(PERF_EINVAL,
                          "perf_allocator lacks alloc, realloc or free; give all three");
    if (!host.clock)
        own->clock = perf__default_clock;
    else if (!own->clock.monotonic_ns || !own->clock.realtime_ms)
        return perf__fail(PERF_EINVAL, "perf_clock lacks monotonic_ns or realtime_ms; give both");
    own->view = (perf_host){sizeof(perf_host), &own->allocator, &own->clock, &own->log};
    return PERF_OK;
}
