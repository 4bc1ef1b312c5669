/* SPDX-License-Identifier: MIT */
/*
 * aws_eventstream.h - messages of the type application/vnd.amazon.eventstream,
 * in which Bedrock, Transcribe, Lambda and others answer while they still work.
 *
 * In five lines:
 *
 *     perf_eventstream *es;
 *     perf_eventstream_open(NULL, &es);
 *     while (len && (rc = perf_eventstream_feed(es, data, len, &used)) >= 0) {
 *         if (rc == PERF_OK)                          // a message is whole
 *             use(perf_eventstream_text(es, ":event-type"), perf_eventstream_payload(es, &size));
 *         data += used, len -= used;
 *     }
 *
 * aws_bedrock.h does this by itself.
 *
 * Caveats first
 *  - Threads: one at a time for each parser.
 *  - Bytes are taken to be hostile: both checksums, all lengths and types are
 *    looked at before anything is believed.
 */
#ifndef LIBPERF_AWS_EVENTSTREAM_H
#define LIBPERF_AWS_EVENTSTREAM_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A parser, and the message that it read last. */
typedef struct perf_eventstream perf_eventstream;

/** How to open a parser. Zero in a field means the default. */
typedef struct perf_eventstream_options {
    size_t struct_size;
    uint64_t max_message_bytes; /**< a longer message is an error; default and bound 16 MiB */
    const perf_host *host;      /**< allocator */
} perf_eventstream_options;
#define PERF_EVENTSTREAM_OPTIONS_INIT          \
    {                                          \
        sizeof(perf_eventstream_options), 0, 0 \
    }

/** What a header holds, numbered as on the wire. */
enum {
    PERF_EVENTSTREAM_TRUE = 0,
    PERF_EVENTSTREAM_FALSE = 1,
    PERF_EVENTSTREAM_BYTE = 2,  /**< number */
    PERF_EVENTSTREAM_INT16 = 3, /**< number */
    PERF_EVENTSTREAM_INT32 = 4, /**< number */
    PERF_EVENTSTREAM_INT64 = 5, /**< number */
    PERF_EVENTSTREAM_BYTES = 6, /**< bytes */
    PERF_EVENTSTREAM_TEXT = 7,  /**< bytes: UTF-8 */
    PERF_EVENTSTREAM_TIME = 8,  /**< number: milliseconds since 1970 UTC */
    PERF_EVENTSTREAM_UUID = 9   /**< bytes: 16 of them */
};

/** A header of a message. When read, what it points to is valid until the parser is fed again. */
typedef struct perf_eventstream_header {
    size_t struct_size;
    const char *name; /**< 1 to 255 bytes */
    int64_t type;     /**< PERF_EVENTSTREAM_... */
    int64_t number;   /**< 1 and 0 for TRUE and FALSE */
    perf_bytes bytes; /**< when read, a zero byte that is not counted is behind them */
} perf_eventstream_header;
#define PERF_EVENTSTREAM_HEADER_INIT              \
    {                                             \
        sizeof(perf_eventstream_header), 0, 0, 0, \
        {                                         \
            0, 0                                  \
        }                                         \
    }

/** Opens a parser; options may be NULL. Errors: PERF_EINVAL, PERF_ENOMEM. Since 1.0. */
PERF_API int perf_eventstream_open(const perf_eventstream_options *options, perf_eventstream **out);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_eventstream_close(perf_eventstream *es);

/**
 * Takes bytes up to the end of the next message; they may come in any pieces. *used receives how
 * many were taken. PERF_OK: a message is whole, and rest of the bytes is for the next call.
 * PERF_MISS: all were taken, and more are wanted.
 * Errors, after which the parser says the same again: PERF_ECORRUPT (a checksum does not match);
 * PERF_EPROTOCOL (lengths or types that cannot be); PERF_ETOOBIG; PERF_ENOMEM. Since 1.0.
 */
PERF_API int perf_eventstream_feed(perf_eventstream *es, const void *data, size_t len,
                                   size_t *used);

/** The stream is over: PERF_OK, or PERF_EPROTOCOL if that is within a message. Since 1.0. */
PERF_API int perf_eventstream_finish(perf_eventstream *es);

/** The payload of the message; *len its length in bytes. A zero byte that is not counted is behind
 *  it. Valid until the parser is fed again. Since 1.0. */
PERF_API const void *perf_eventstream_payload(const perf_eventstream *es, size_t *len);

/** The value of the first header of this name if it is text, or NULL. Valid until the parser is fed
 *  again. Since 1.0. */
PERF_API const char *perf_eventstream_text(const perf_eventstream *es, const char *name);

/** The i-th header of the message, or PERF_MISS behind the last. Since 1.0. */
PERF_API int perf_eventstream_header_at(const perf_eventstream *es, size_t i,
                                        perf_eventstream_header *header);

/**
 * Writes a message into out, of size bytes; *needed receives its length, also with PERF_ETOOSMALL.
 * out may be NULL when size is 0. payload may be NULL when len is 0.
 * Errors: PERF_EINVAL (a header); PERF_ETOOBIG (beyond 16 MiB). Any thread. Since 1.0.
 */
PERF_API int perf_eventstream_encode(const perf_eventstream_header *headers, size_t count,
                                     const void *payload, size_t len, void *out, size_t size,
                                     size_t *needed);

PERF_END_DECLS

#endif
