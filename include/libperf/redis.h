/* SPDX-License-Identifier: MIT */
/*
 * redis.h - a Redis client whose threads share one connection, and gain by it.
 *
 * In six lines:
 *
 *     perf_redis *redis;
 *     perf_redis_reply *reply;
 *     perf_redis_open(NULL, &redis); // 127.0.0.1:6379
 *     if (PERF_REDIS_CALL(redis, &reply, "GET", "greeting") == PERF_OK)
 *         use(perf_redis_reply_data(reply), perf_redis_reply_size(reply));
 *     perf_redis_reply_release(reply);
 *
 * Commands of all threads go down one connection, many in one write, and each
 * caller gets the reply to its own: pipelining that nobody has to write. What
 * would hold up the others (BLPOP, XREAD BLOCK, ...) goes by itself to a small
 * pool of further connections.
 *
 * Caveats first
 *  - Threads: every function may be called from any thread at any time, except
 *    perf_redis_close. Callbacks run on the client's I/O thread: they must not
 *    block, and blocking calls in them say PERF_EDEADLK.
 *  - The connection is shared, so commands that change it for all are refused
 *    with PERF_EINVAL: MULTI, EXEC, WATCH (use perf_redis_transaction),
 *    SUBSCRIBE and its kin (perf_redis_subscriber_open), SELECT, AUTH, HELLO
 *    (options), MONITOR, QUIT, RESET, CLIENT REPLY.
 *  - An error reply makes a call fail with a code, and perf_last_error() begins
 *    with the server's own word for it, such as WRONGTYPE. Elements of arrays
 *    and replies of perf_redis_call_many may be errors, too: ask
 *    perf_redis_reply_status.
 *  - A command that may have been executed is never sent again: when its
 *    connection breaks, it fails with PERF_EIO. One that was not written yet
 *    goes to the next connection within its deadline.
 *  - A call ends at its deadline: the least of timeout_ms and the thread's
 *    perf_deadline_enter. PERF_ETIMEDOUT does not say that the command was not,
 *    or will not be, executed.
 *  - TLS certificates and names are verified; only an explicit option turns
 *    that off.
 *  - fork(): a child must open its own client; calls return PERF_EFORKED.
 *
 * The parts, simple to expert: open, call, reply, many at once and
 * transactions, scripts, asynchronous calls, publish and subscribe, statistics.
 */
#ifndef LIBPERF_REDIS_H
#define LIBPERF_REDIS_H

#include <libperf/types.h>

PERF_BEGIN_DECLS

/** A client: one connection for all, a few for commands that block, an I/O thread. */
typedef struct perf_redis perf_redis;

/** What came back. Immutable; valid until released. */
typedef struct perf_redis_reply perf_redis_reply;

/** A command under way, for those who do not wait for it. */
typedef struct perf_redis_pending perf_redis_pending;

/** A script and its SHA-1. */
typedef struct perf_redis_script perf_redis_script;

/** A connection that listens to channels. */
typedef struct perf_redis_subscriber perf_redis_subscriber;

/** One command: argv[0] is its name, the others are its arguments. Any bytes. */
typedef struct perf_redis_command {
    size_t argc;
    const perf_bytes *argv;
} perf_redis_command;

/* -------------------------------------------------------------- open, close */

/** What there is at the other end. */
enum {
    PERF_REDIS_SINGLE = 0 /**< one server */
};

/** What an event callback hears of the shared connection. */
enum {
    PERF_REDIS_UP = 1,  /**< it is there, and the commands of on_connect were accepted */
    PERF_REDIS_LOST = 2 /**< it is gone; the next one is being opened */
};

/** The shared connection came or went. I/O thread; must not block. */
typedef void (*perf_redis_event_fn)(void *ctx, perf_redis *redis, int event);

/** How to open a client. Zero in a field means the default; durations are in milliseconds. */
typedef struct perf_redis_options {
    size_t struct_size;
    const char *url;         /**< redis://[user[:password]@]host[:port][/db], rediss:// for TLS, or
                                  unix:///path[?db=1]; user and password may be %-encoded, and a
                                  password alone is ":password@". Fields below that are set win over
                                  what it says. Default "redis://127.0.0.1:6379" */
    const char *hostname;    /**< name or address */
    const char *unix_socket; /**< path; instead of hostname and port */
    const char *user; /**< for ACLs, with password; default: none, or the server's "default" */
    const char *password;
    const char *client_name;    /**< shown by CLIENT LIST; default "libperf" */
    const char *ca_file;        /**< PEM file of the CAs to trust; default: the system's */
    const char *ca_path;        /**< directory of such */
    const char *cert_file;      /**< PEM, for mutual TLS */
    const char *key_file;       /**< PEM */
    const char *server_name;    /**< that the certificate must have; default: hostname */
    int64_t mode;               /**< PERF_REDIS_...; default SINGLE */
    int64_t port;               /**< default 6379 */
    int64_t db;                 /**< default 0 */
    int64_t tls;                /**< 1: TLS 1.2 or later */
    int64_t tls_insecure;       /**< 1: accept any certificate. For tests only */
    int64_t connect_timeout_ms; /**< name, TCP, TLS and AUTH together; default 3000 */
    int64_t timeout_ms;         /**< of a call that gives none; default 5000 */
    int64_t backoff_min_ms;     /**< after a failed connect the next waits for so long, doubling up
                                     to the maximum, each with jitter; default 50 */
    int64_t backoff_max_ms;     /**< default 2000 */
    int64_t fail_fast;          /**< 1: calls say PERF_EUNAVAILABLE at once while the server cannot
                                     be reached; 0: they wait for it until their deadline */
    uint64_t max_pending;       /**< commands without a reply, those given up included; further ones
                                     get PERF_EBUSY; default 65536 */
    uint64_t max_pending_bytes; /**< of commands not yet written; default 64 MiB */
    uint64_t max_reply_bytes;   /**< of one reply: PERF_ETOOBIG beyond; default 64 MiB */
    uint64_t max_blocking;      /**< connections for commands that block; default 8 */
    const perf_redis_command *on_connect; /**< sent on each new shared connection before anything
                                               else; an error reply to one makes it unusable */
    uint64_t on_connect_count;            /**< up to 16 */
    perf_redis_event_fn event;            /**< told when the shared connection comes and goes */
    void *event_ctx;
    const perf_host *host; /**< allocator, clock, log */
} perf_redis_options;
#define PERF_REDIS_OPTIONS_INIT                                                                    \
    {                                                                                              \
        sizeof(perf_redis_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0, 0, 0, 0, 0, 0, 0, 0                                                              \
    }

/** Opens a client; options may be NULL. Starts no thread and opens no socket: the first call does.
 *  Errors: PERF_EINVAL names the field, the value and the fix; PERF_ETLS (a file of certificates
 *  cannot be used); PERF_ENOMEM. Since 1.0. */
PERF_API int perf_redis_open(const perf_redis_options *options, perf_redis **out);

/** Fails what is under way with PERF_ECLOSED, calls its callbacks, closes all connections, stops
 *  the I/O thread. Calls blocked on this client return first; none may begin. Subscribers must have
 *  been closed (PERF_EBUSY). Pending handles and replies stay valid until released. PERF_EDEADLK
 *  inside a callback. NULL is allowed. Since 1.0. */
PERF_API int perf_redis_close(perf_redis *redis);

/** Replaces the commands of perf_redis_options.on_connect, from the next connection on. They are
 *  copied. Any thread. Since 1.0. */
PERF_API int perf_redis_set_on_connect(perf_redis *redis, const perf_redis_command *commands,
                                       size_t count);

/** Leaves the shared connection for a new one: commands that were written end with PERF_EIO. For a
 *  failover, or new on_connect commands. Since 1.0. */
PERF_API int perf_redis_reconnect(perf_redis *redis);

/* --------------------------------------------------------------------- call */

/**
 * Sends a command and waits for its reply. timeout_ms 0: the client's default. *out must be
 * released; out may be NULL when nobody wants to know.
 * Errors: PERF_EINVAL; PERF_ETIMEDOUT; PERF_EUNAVAILABLE (there is no connection and nothing was
 * sent; or the server says LOADING, READONLY, MASTERDOWN, CLUSTERDOWN); PERF_EIO (the connection
 * broke: it may have been executed); PERF_EACCESS (NOAUTH, WRONGPASS, NOPERM); PERF_ETLS;
 * PERF_EBUSY (max_pending; or the server says BUSY, TRYAGAIN); PERF_ETHROTTLED (the server is out
 * of memory or clients: OOM); PERF_EREMOTE (any other error reply); PERF_ETOOBIG (the reply);
 * PERF_EPROTOCOL; PERF_ENOMEM; PERF_ECLOSED; PERF_EDEADLK; PERF_EFORKED. Since 1.0.
 */
PERF_API int perf_redis_call(perf_redis *redis, size_t argc, const perf_bytes *argv,
                             int64_t timeout_ms, perf_redis_reply **out);

/** The same with C strings, the last one followed by NULL. Since 1.0. */
PERF_API int perf_redis_call_text(perf_redis *redis, const char *const *words, int64_t timeout_ms,
                                  perf_redis_reply **out);

/** The same with the words written out: PERF_REDIS_CALL(redis, &reply, "INCR", "visits"). */
#define PERF_REDIS_CALL(redis, out, ...) \
    perf_redis_call_text(redis, (const char *const[]){__VA_ARGS__, 0}, 0, out)

/** Which error an error text begins with. Others are PERF_REDIS_ERROR_OTHER. */
enum {
    PERF_REDIS_ERROR_NONE = 0,
    PERF_REDIS_ERROR_OTHER = 1,
    PERF_REDIS_ERROR_NOAUTH = 2,
    PERF_REDIS_ERROR_WRONGPASS = 3,
    PERF_REDIS_ERROR_NOPERM = 4,
    PERF_REDIS_ERROR_OOM = 5,
    PERF_REDIS_ERROR_READONLY = 6,
    PERF_REDIS_ERROR_LOADING = 7,
    PERF_REDIS_ERROR_BUSY = 8,
    PERF_REDIS_ERROR_NOSCRIPT = 9,
    PERF_REDIS_ERROR_WRONGTYPE = 10,
    PERF_REDIS_ERROR_MOVED = 11,
    PERF_REDIS_ERROR_ASK = 12,
    PERF_REDIS_ERROR_TRYAGAIN = 13,
    PERF_REDIS_ERROR_CLUSTERDOWN = 14,
    PERF_REDIS_ERROR_CROSSSLOT = 15,
    PERF_REDIS_ERROR_MASTERDOWN = 16,
    PERF_REDIS_ERROR_EXECABORT = 17,
    PERF_REDIS_ERROR_NOREPLICAS = 18,
    PERF_REDIS_ERROR_MAXCLIENTS = 19
};

/** PERF_REDIS_ERROR_... of a text such as perf_last_error() or perf_redis_reply_data() of an error;
 *  NONE if it is not an error reply's. NULL: NONE. Since 1.0. */
PERF_API int64_t perf_redis_error_kind(const char *text);

/* -------------------------------------------------------------------- reply */

/** What a reply is. */
enum {
    PERF_REDIS_NIL = 0,     /**< nothing: no such key */
    PERF_REDIS_STRING = 1,  /**< bytes */
    PERF_REDIS_STATUS = 2,  /**< a word such as OK */
    PERF_REDIS_ERROR = 3,   /**< a text such as "WRONGTYPE Operation against ..." */
    PERF_REDIS_INTEGER = 4, /**< a number */
    PERF_REDIS_ARRAY = 5    /**< replies */
};

/** PERF_REDIS_...; NIL for NULL. Since 1.0. */
PERF_API int64_t perf_redis_reply_type(const perf_redis_reply *reply);

/** The number of an INTEGER; 0 for others. Since 1.0. */
PERF_API int64_t perf_redis_reply_integer(const perf_redis_reply *reply);

/** The bytes of a STRING, STATUS or ERROR, with a zero byte behind them that is not counted; ""
 *  for others. Since 1.0. */
PERF_API const char *perf_redis_reply_data(const perf_redis_reply *reply);

/** How many bytes; of an ARRAY: how many elements. Since 1.0. */
PERF_API size_t perf_redis_reply_size(const perf_redis_reply *reply);

/** The i-th element of an ARRAY, which lives as long as the array and is not released; NULL beyond.
 *  Since 1.0. */
PERF_API const perf_redis_reply *perf_redis_reply_element(const perf_redis_reply *reply, size_t i);

/** PERF_OK, or for an ERROR the code that perf_redis_call would have returned. Since 1.0. */
PERF_API int perf_redis_reply_status(const perf_redis_reply *reply);

/** Not for elements. NULL is allowed. Since 1.0. */
PERF_API void perf_redis_reply_release(perf_redis_reply *reply);

/* ---------------------------------------------- many at once, transactions */

/**
 * Sends commands in one write and waits for all replies. replies has room for count of them; on
 * PERF_OK each must be released, and each may be an error. On failure none is handed out, and any
 * prefix of the commands may have been executed. None may be one that blocks. Errors: as
 * perf_redis_call. Since 1.0.
 */
PERF_API int perf_redis_call_many(perf_redis *redis, size_t count,
                                  const perf_redis_command *commands, int64_t timeout_ms,
                                  perf_redis_reply **replies);

/**
 * The same between MULTI and EXEC: no other client's command comes in between, and all are
 * executed or none. *out is the array of their replies, of which each may be an error; commands
 * that the server does not accept make it PERF_EREMOTE (EXECABORT), and none is executed.
 * Since 1.0.
 */
PERF_API int perf_redis_transaction(perf_redis *redis, size_t count,
                                    const perf_redis_command *commands, int64_t timeout_ms,
                                    perf_redis_reply **out);

/* ------------------------------------------------------------------ scripts */

/** Keeps a Lua script and its SHA-1. Talks to nobody. allocator NULL: malloc. Since 1.0. */
PERF_API int perf_redis_script_new(const perf_allocator *allocator, const char *text, size_t len,
                                   perf_redis_script **out);

/** NULL is allowed. Since 1.0. */
PERF_API void perf_redis_script_free(perf_redis_script *script);

/** Its SHA-1 in 40 hexadecimal digits. Since 1.0. */
PERF_API const char *perf_redis_script_sha1(const perf_redis_script *script);

/** Runs a script by its SHA-1, and where the server does not know it, once by its text. The first
 *  keys of argv are KEYS, the others ARGV. Errors: as perf_redis_call. Since 1.0. */
PERF_API int perf_redis_script_call(perf_redis *redis, const perf_redis_script *script, size_t keys,
                                    size_t argc, const perf_bytes *argv, int64_t timeout_ms,
                                    perf_redis_reply **out);

/* ------------------------------------------------------------- asynchronous */

/** A command is over: status and reply as perf_redis_call gives them; text is what perf_last_error
 *  would say, or "". The callee owns reply. I/O thread. */
typedef void (*perf_redis_done_fn)(void *ctx, int status, const char *text,
                                   perf_redis_reply *reply);

/**
 * Starts a command, which is copied. With done, that is called when it is over; without, ask by
 * perf_redis_pending_wait or perf_redis_next_done. out may be NULL; otherwise it receives a handle
 * to be released. Fails at once with PERF_EINVAL, PERF_EBUSY, PERF_EUNAVAILABLE (fail_fast),
 * PERF_ENOMEM, PERF_ECLOSED or PERF_EFORKED, and then done is not called. Commands that block are
 * refused with PERF_EUNSUPPORTED. Since 1.0.
 */
PERF_API int perf_redis_start(perf_redis *redis, size_t argc, const perf_bytes *argv,
                              int64_t timeout_ms, perf_redis_done_fn done, void *ctx,
                              perf_redis_pending **out);

/** Waits up to timeout_ms (0: just asks; -1: as long as it takes). PERF_MISS: not yet over, and it
 *  goes on. Otherwise what perf_redis_call would have said; *out is the caller's; a second call
 * says PERF_EINVAL, as does one for a command with done. Since 1.0. */
PERF_API int perf_redis_pending_wait(perf_redis_pending *pending, int64_t timeout_ms,
                                     perf_redis_reply **out);

/** Lets go of the handle; the command goes on. NULL is allowed. Since 1.0. */
PERF_API void perf_redis_pending_release(perf_redis_pending *pending);

/** A file descriptor that is readable while a command started without done is over and was not yet
 *  fetched by perf_redis_next_done. For poll, libuv, asyncio; never read it. Since 1.0. */
PERF_API int perf_redis_fd(perf_redis *redis, int *out);

/** The next command that is over: *out is the handle that perf_redis_start gave (the caller still
 *  owns that one reference), to be asked by perf_redis_pending_wait(..., 0, ...). PERF_MISS: none.
 *  Commands started without done and without out are not named. Since 1.0. */
PERF_API int perf_redis_next_done(perf_redis *redis, perf_redis_pending **out);

/* ---------------------------------------------------- publish and subscribe */

/** What a subscriber hears. */
enum {
    PERF_REDIS_MESSAGE = 1,      /**< somebody published */
    PERF_REDIS_SUBSCRIBED = 2,   /**< from now on this channel's, or pattern's, messages come */
    PERF_REDIS_DISCONNECTED = 3, /**< the connection is gone: nothing is heard until GAP */
    PERF_REDIS_GAP = 4 /**< it is back, and all is subscribed again; messages may have been
                            lost in between, or dropped when max_queued were waiting */
};

/** One message. Bytes are valid during the callback, or until the next perf_redis_next_message. The
 *  keys of one invalidation of CLIENT TRACKING (channel "__redis__:invalidate") are a message each;
 *  "all keys" is a message whose data.data is NULL. */
typedef struct perf_redis_message {
    size_t struct_size;
    int64_t kind;       /**< PERF_REDIS_MESSAGE, ... */
    perf_bytes channel; /**< where it was published; SUBSCRIBED: the channel or pattern */
    perf_bytes pattern; /**< by which it was heard; no data: by the channel itself */
    perf_bytes data;
} perf_redis_message;
#define PERF_REDIS_MESSAGE_INIT                        \
    {                                                  \
        sizeof(perf_redis_message), 0, {0, 0}, {0, 0}, \
        {                                              \
            0, 0                                       \
        }                                              \
    }

/** I/O thread; must not block. */
typedef void (*perf_redis_message_fn)(void *ctx, perf_redis_subscriber *subscriber,
                                      const perf_redis_message *message);

/** How to listen. */
typedef struct perf_redis_subscriber_options {
    size_t struct_size;
    perf_redis_message_fn message; /**< NULL: messages wait for perf_redis_next_message */
    void *message_ctx;
    uint64_t
        max_queued; /**< that wait; further ones are dropped, and a GAP says so; default 10000 */
    uint64_t max_queued_bytes; /**< the same in bytes; default 16 MiB */
    int64_t ping_ms; /**< a connection that was silent for so long is asked for a sign of life, and
                          replaced when none comes within as much; default 10000 */
} perf_redis_subscriber_options;
#define PERF_REDIS_SUBSCRIBER_OPTIONS_INIT                   \
    {                                                        \
        sizeof(perf_redis_subscriber_options), 0, 0, 0, 0, 0 \
    }

/** Opens a connection of its own that listens, by the client's address and credentials. It is
 * opened in the background, and again whenever it is lost, with all that is subscribed. options may
 * be NULL. Must be closed before the client. Since 1.0. */
PERF_API int perf_redis_subscriber_open(perf_redis *redis,
                                        const perf_redis_subscriber_options *options,
                                        perf_redis_subscriber **out);

/** Ends it; when it returns, no callback runs or will. PERF_EDEADLK inside its callback. NULL is
 *  allowed. Since 1.0. */
PERF_API int perf_redis_subscriber_close(perf_redis_subscriber *subscriber);

/** Listens to a channel from now on. Does not wait: SUBSCRIBED says when the server agreed. Twice
 * is once. Errors: PERF_EINVAL, PERF_ENOMEM, PERF_EBUSY (more than 10000). Since 1.0. */
PERF_API int perf_redis_subscribe(perf_redis_subscriber *subscriber, const void *channel,
                                  size_t len);

/** The same for all channels that a pattern matches (*, ?, [a-z]). Since 1.0. */
PERF_API int perf_redis_psubscribe(perf_redis_subscriber *subscriber, const void *pattern,
                                   size_t len);

/** Listens no more. PERF_MISS: it did not. Messages on their way may still come. Since 1.0. */
PERF_API int perf_redis_unsubscribe(perf_redis_subscriber *subscriber, const void *channel,
                                    size_t len);

/** The same for a pattern. Since 1.0. */
PERF_API int perf_redis_punsubscribe(perf_redis_subscriber *subscriber, const void *pattern,
                                     size_t len);

/** The next message: PERF_OK, or PERF_MISS when none came within timeout_ms (0: just asks; -1: as
 *  long as it takes). For one thread at a time. PERF_EINVAL with a message callback. Since 1.0. */
PERF_API int perf_redis_next_message(perf_redis_subscriber *subscriber, int64_t timeout_ms,
                                     perf_redis_message *out);

/** A file descriptor that is readable while messages wait. Never read it. Since 1.0. */
PERF_API int perf_redis_message_fd(perf_redis_subscriber *subscriber, int *out);

/** The server's number of this connection (CLIENT ID), as CLIENT TRACKING ... REDIRECT wants it; 0
 *  while it is not connected. Since 1.0. */
PERF_API int64_t perf_redis_subscriber_id(perf_redis_subscriber *subscriber);

/* --------------------------------------------------------------- statistics */

/** What a client did so far. */
typedef struct perf_redis_stats {
    size_t struct_size;
    uint64_t commands;      /**< sent or to be sent on the shared connection */
    uint64_t replies;       /**< whole replies, errors included */
    uint64_t error_replies; /**< of them errors */
    uint64_t timeouts;      /**< commands that ended with PERF_ETIMEDOUT */
    uint64_t rejected;      /**< commands that ended with PERF_EBUSY at once */
    uint64_t pending;       /**< commands without a reply now */
    uint64_t writes; /**< system calls that sent; commands / writes is what pipelining gains */
    uint64_t reads;  /**< system calls that received something */
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t connects; /**< shared connections that came up */
    uint64_t connect_failures;
    uint64_t lost;           /**< shared connections that broke */
    uint64_t connected;      /**< 1: it is up now */
    uint64_t blocking_calls; /**< commands on connections of the pool */
    uint64_t subscribers;    /**< open now */
} perf_redis_stats;
#define PERF_REDIS_STATS_INIT                                                    \
    {                                                                            \
        sizeof(perf_redis_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/** Fills stats. Since 1.0. */
PERF_API int perf_redis_get_stats(perf_redis *redis, perf_redis_stats *stats);

PERF_END_DECLS

#endif
