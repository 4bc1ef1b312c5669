/* SPDX-License-Identifier: MIT */
/*
 * types.h - what every libperf call has in common: status codes, the options
 * rule, and the three seams (allocator, clock, log) that a host may replace.
 *
 * A host rarely includes this file by itself: <libperf/cache.h> brings it along.
 */
#ifndef LIBPERF_TYPES_H
#define LIBPERF_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define PERF_BEGIN_DECLS extern "C" {
#define PERF_END_DECLS   }
#else
#define PERF_BEGIN_DECLS
#define PERF_END_DECLS
#endif

/** Marks the functions that leave the shared library; everything else is hidden. */
#if defined(__GNUC__) || defined(__clang__)
#define PERF_API __attribute__((visibility("default")))
#else
#define PERF_API
#endif

PERF_BEGIN_DECLS

/* ------------------------------------------------------------------ status */

/*
 * Every fallible call returns int: PERF_OK (0), PERF_MISS (1: not there, which
 * is an answer and not an error), or a negative PERF_E code. Results come
 * through the last pointers, and those are not touched on failure.
 *
 * One table makes the constants, their names and their texts.
 */
#define PERF_STATUS_MAP(X)                                                                \
    X(OK, 0, "success")                                                                   \
    X(MISS, 1, "not in the cache")                                                        \
    X(EINVAL, -1, "invalid argument or option")                                           \
    X(ENOMEM, -2, "out of memory")                                                        \
    X(ETOOSMALL, -3, "the caller's buffer is too small")                                  \
    X(ETOOBIG, -4, "the key or value is larger than its limit")                           \
    X(EEXISTS, -5, "already there")                                                       \
    X(ECONFLICT, -6, "changed by somebody else in the meantime")                          \
    X(ETIMEDOUT, -7, "the deadline passed")                                               \
    X(ECANCELED, -8, "cancelled")                                                         \
    X(ECLOSED, -9, "the handle is closing")                                               \
    X(EFORKED, -10, "the handle was opened before fork(); open it again in this process") \
    X(EIO, -11, "input/output failed")                                                    \
    X(ECORRUPT, -12, "stored data is damaged")                                            \
    X(EBUSY, -13, "busy: a queue or lock is full or held")                                \
    X(EUNSUPPORTED, -14, "not supported by this backend or build")                        \
    X(ELOAD, -15, "the loader failed")                                                    \
    X(EUNAVAILABLE, -16, "the backend cannot be reached now")                             \
    X(EDEADLK, -17, "the call would wait for itself")                                     \
    X(EREJECTED, -18, "refused by a breaker or a limit before it was tried")              \
    X(ETHROTTLED, -19, "the service asks for fewer requests")                             \
    X(EACCESS, -20, "credentials are missing, expired or refused")                        \
    X(EREMOTE, -21, "the service answered with an error")                                 \
    X(EPROTOCOL, -22, "the reply is not what the protocol allows")                        \
    X(ETLS, -23, "TLS failed: the peer's certificate or ours was refused")

enum {
#define PERF_STATUS_ENUM(name, value, text) PERF_##name = value,
    PERF_STATUS_MAP(PERF_STATUS_ENUM)
#undef PERF_STATUS_ENUM
};

/**
 * The text of a status code, such as "out of memory".
 * Static storage, never NULL. Any thread. Since 1.0.
 */
PERF_API const char *perf_strerror(int status);

/** The name of a status code, such as "PERF_ENOMEM"; "PERF_UNKNOWN" for others. Since 1.0. */
PERF_API const char *perf_strstatus(int status);

/**
 * What the last failing call of this thread had to say: what happened, to what,
 * and what to do about it. Never contains values, keys of secrets, or passwords.
 * Valid until this thread's next failing call; "" if none failed yet. Since 1.0.
 */
PERF_API const char *perf_last_error(void);

/**
 * The value of a public constant by its name ("PERF_MISS", "PERF_TTL_FOREVER"),
 * for callers that cannot read C headers.
 * Returns PERF_OK, or PERF_EINVAL for an unknown name. Any thread. Since 1.0.
 */
PERF_API int perf_constant(const char *name, int64_t *value);

/* ------------------------------------------------------------------- bytes */

/** Borrowed bytes: a pointer and a length in bytes. data may be NULL when len is 0. */
typedef struct perf_bytes {
    const void *data;
    size_t len;
} perf_bytes;

/** What "it is kept" means on disk. */
enum {
    PERF_SYNC_NORMAL = 0, /**< survives kill -9 of the process, not always a power cut */
    PERF_SYNC_FULL = 1    /**< survives a power cut too; slower */
};

/* ----------------------------------------------------------------- options */

/*
 * The options rule. Every options struct begins with size_t struct_size, which
 * its PERF_..._INIT macro sets. Zero in a field means the default. A library
 * that is newer than the caller sees missing fields as zero; a library that is
 * older accepts a larger struct only if the part it does not know is all zero.
 */

/* ------------------------------------------------------------------- seams */

/**
 * Where memory comes from. All three functions are required, may be called from
 * any thread at once, and behave as malloc, realloc and free do; alloc returns
 * memory aligned for any type. Since 1.0.
 */
typedef struct perf_allocator {
    size_t struct_size;
    void *ctx;
    void *(*alloc)(void *ctx, size_t size);
    void *(*realloc)(void *ctx, void *block, size_t size);
    void (*free)(void *ctx, void *block);
} perf_allocator;
#define PERF_ALLOCATOR_INIT                \
    {                                      \
        sizeof(perf_allocator), 0, 0, 0, 0 \
    }

/**
 * What time it is. monotonic_ns never goes back; realtime_ms is the wall clock,
 * milliseconds since 1970 UTC. Both are called from any thread, often. Tests
 * move time through this seam. Since 1.0.
 */
typedef struct perf_clock {
    size_t struct_size;
    void *ctx;
    int64_t (*monotonic_ns)(void *ctx);
    int64_t (*realtime_ms)(void *ctx);
} perf_clock;
#define PERF_CLOCK_INIT             \
    {                               \
        sizeof(perf_clock), 0, 0, 0 \
    }

/** Log levels, most severe first. */
enum { PERF_LOG_ERROR = 1, PERF_LOG_WARNING = 2, PERF_LOG_INFO = 3, PERF_LOG_DEBUG = 4 };

/**
 * Where log lines go; by default nowhere, for the library never prints. write
 * is called from any thread with one line without a newline; it must not call
 * back into the handle that logs. Messages with a level above max_level are not
 * made. Since 1.0.
 */
typedef struct perf_log {
    size_t struct_size;
    void *ctx;
    void (*write)(void *ctx, int level, const char *module, const char *message);
    int64_t max_level;
} perf_log;
#define PERF_LOG_INIT                         \
    {                                         \
        sizeof(perf_log), 0, 0, PERF_LOG_INFO \
    }

/**
 * The seams of one handle together. A NULL member means the default: malloc,
 * the system's clocks, silence. The structs are copied when a handle is opened;
 * their ctx must outlive that handle. Since 1.0.
 */
typedef struct perf_host {
    size_t struct_size;
    const perf_allocator *allocator;
    const perf_clock *clock;
    const perf_log *log;
} perf_host;
#define PERF_HOST_INIT             \
    {                              \
        sizeof(perf_host), 0, 0, 0 \
    }

PERF_END_DECLS

#endif
