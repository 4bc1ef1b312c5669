/* SPDX-License-Identifier: MIT */
/*
 * macros.h - sugar over cache.h, pool.h, executor.h and monitor.h: a function
 * that remembers its results, one that runs in the background, a connection that
 * is given back, a request that is measured, handles that let go of themselves.
 *
 *     PERF_CACHED(get_course, struct course, "courses", 300000,
 *                 (uint64_t, id), (const char *, lang))
 *     {
 *         return db_load_course(id, lang, out);        // out is struct course *
 *     }
 *
 *     struct course c;
 *     int rc = get_course(42, "en", &c);
 *
 * The body runs on a miss only, and once for all who wait for the same
 * arguments. It fills *out and returns PERF_OK, PERF_MISS ("no such thing") or a
 * negative PERF_E code, and that is what the caller gets.
 *
 *     PERF_BORROW(pool, PGconn *, db, 50) { query(db); } else { busy(); }
 *
 * The connection is given back when its scope ends, by whatever way.
 *
 *     PERF_TASK(send_mail, (uint64_t, user), (const char *, text))
 *     {
 *         return perf_run_cancelled(run) ? PERF_ECANCELED : smtp_send(user, text);
 *     }
 *
 *     PERF_ASYNC(executor, &task, send_mail, 42, "hello");     // or NULL for &task
 *
 * The arguments are copied, strings too, and the body runs on the executor.
 *
 *     PERF_TRACK(monitor, "/api/chat", "POST", user) {
 *         PERF_SPAN("database") { query(db); }
 *     }
 *
 * The request is counted with its time, however its scope ends.
 *
 * Caveats first
 *  - Arguments make up the key: integers, bool, enums, float, double, strings
 *    (const char *, compared by content, NULL differs from "") and perf_bytes.
 *    Anything else does not compile. What the body reads beside its arguments
 *    is not in the key.
 *  - The result is copied as sizeof(result) bytes, so it must hold no pointers.
 *    Its bytes are zero before the body runs. In C++ it is trivially copyable.
 *    When its layout changes, raise the schema number (PERF_CACHED_SCHEMA):
 *    durable tiers outlive programs. sizeof(result) is in the key already.
 *  - The body may run on another thread (refresh, time limit), after its caller
 *    has returned. It sees its own copies of strings and bytes, valid until it
 *    returns; perf_bytes.data has no alignment.
 *  - Without a cache, with arguments of more than about 32 KiB, with a result
 *    over the cache's limit, or in a forked child, the body simply runs.
 *  - In C++ an exception that leaves the body becomes PERF_ELOAD.
 *  - A PERF_TASK copies strings, perf_bytes, numbers and structs. Of other pointers
 *    it copies the pointer: what that points to must outlive the task.
 *  - longjmp() over a PERF_AUTO or PERF_BORROW scope leaks what it holds.
 *  - PERF_BORROW, PERF_TRACK and PERF_SPAN are loops that run once: break and continue
 *    leave their scope, and not a loop around it. PERF_BORROW ends in an if: inside an if without
 * braces, an else that follows is its own.
 *  - A type with a comma in its name needs a typedef first.
 *
 * Everything here expands to calls of exported functions, so nothing in it is
 * out of reach for a caller without macros. Needs gcc or clang.
 */
#ifndef LIBPERF_MACROS_H
#define LIBPERF_MACROS_H

#if !defined(__GNUC__) ||                                                                    \
    (!defined(__cplusplus) && (!defined(__STDC_VERSION__) || __STDC_VERSION__ < 201112L)) || \
    (defined(__cplusplus) && __cplusplus < 201103L)
#error \
    "macros.h needs gcc or clang, C11 or C++11; <libperf/cache.h> and pool.h have the functions to call instead"
#endif

#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
#include <exception>
#endif

#include <libperf/cache.h>
#include <libperf/executor.h>
#include <libperf/monitor.h>
#include <libperf/pool.h>

/* ---------------------------------------------------------------- functions */

/**
 * PERF_CACHED(name, result, ns, ttl_ms, (type, argument)...)
 *
 * Defines int name(type argument..., result *out), with 0 to 8 arguments, whose
 * results live for ttl_ms milliseconds (or PERF_TTL_DEFAULT, PERF_TTL_FOREVER)
 * in namespace ns of perf_cache_default(). The body follows in braces. ns and
 * ttl_ms are expressions; they may use the arguments. A storage class may stand
 * before the macro: static PERF_CACHED(...). Any thread. Stale windows, negative
 * results and time limits are policy: perf_cache_configure_namespace.
 *
 * perf_cache_invalidate_pattern(cache, ns, "name:*") forgets all its results.
 *
 * Returns what the body returned, or an error of perf_cache_get_or_load_copy;
 * *out is set on PERF_OK only. Since 1.0.
 */
#define PERF_CACHED(name, ...) \
    PERF_CACHED_FULL(perf_cache_default(), PERF_SUGAR_NOBODY, 0, name, __VA_ARGS__)

/** PERF_CACHED in the cache that the expression gives at each call. Since 1.0. */
#define PERF_CACHED_IN(cache, name, ...) \
    PERF_CACHED_FULL(cache, PERF_SUGAR_NOBODY, 0, name, __VA_ARGS__)

/** PERF_CACHED with the number of the result's layout; raise it when that changes. Since 1.0. */
#define PERF_CACHED_SCHEMA(schema, name, ...) \
    PERF_CACHED_FULL(perf_cache_default(), PERF_SUGAR_NOBODY, schema, name, __VA_ARGS__)

/**
 * PERF_CACHED with everything: cache, user and schema number are expressions;
 * user may be an argument, and perf_cache_invalidate_user then forgets the
 * results made for that user. Since 1.0.
 */
#define PERF_CACHED_FULL(cache, user, schema, name, ...)                                         \
    PERF_SUGAR_JOIN(PERF_SUGAR_DEFINE_, PERF_SUGAR_COUNT(__VA_ARGS__, MANY, MANY, MANY, MANY, 8, \
                                                         7, 6, 5, 4, 3, 2, 1, 0, FEW, FEW, FEW)) \
    (cache, user, schema, name, __VA_ARGS__)

/**
 * The function that forgets one result: PERF_FORGET(get_course)(42, "en").
 * Only in the file that has the PERF_CACHED. Returns as perf_cache_delete;
 * PERF_MISS without a cache. Since 1.0.
 */
#define PERF_FORGET(name) perf_cached_forget_##name

/* ------------------------------------------------------------ in the background */

/**
 * PERF_TASK(name, (type, argument)...)
 *
 * Defines, with 0 to 8 arguments, what runs and what starts it:
 *
 *     int name(perf_run *run, type argument...);
 *     int name_submit(perf_executor *executor, const perf_task_options *options,
 *                     perf_task **task, type argument...);
 *
 * The body follows in braces: it may use run, and returns PERF_OK or a negative
 * PERF_E code. name_submit copies the arguments and submits the task as
 * perf_task_submit does; options and task may be NULL, and free_arg of the options
 * is not looked at. Strings (const char *, char *) and perf_bytes are copied with
 * their content, up to 1 MiB in all; numbers, enums and structs as they are; of
 * other pointers the pointer only. A storage class may stand before the macro:
 * static PERF_TASK(...). In C++ an exception that leaves the body becomes
 * PERF_ELOAD, and what it said the task's error.
 *
 * name_submit returns as perf_task_submit; PERF_ETOOBIG: more than 1 MiB; PERF_ENOMEM.
 * Any thread. Since 1.0.
 */
#define PERF_TASK(...)                                                                            \
    PERF_SUGAR_JOIN(PERF_SUGAR_TASK_, PERF_SUGAR_COUNT(__VA_ARGS__, MANY, MANY, MANY, MANY, MANY, \
                                                       MANY, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0))       \
    (__VA_ARGS__)

/**
 * PERF_ASYNC(executor, task, name, arguments...)
 *
 * name_submit with the default options: starts a PERF_TASK, in the file that defines it or any
 * that declares its name_submit. task is the address of a perf_task *, or NULL. Since 1.0.
 */
#define PERF_ASYNC(executor, task, ...)                                                           \
    PERF_SUGAR_JOIN(PERF_SUGAR_ASYNC_,                                                            \
                    PERF_SUGAR_COUNT(__VA_ARGS__, MORE, MORE, MORE, MORE, MORE, MORE, MORE, MORE, \
                                     MORE, MORE, MORE, MORE, MORE, MORE, ONE, ONE))               \
    (executor, task, __VA_ARGS__)

/* ------------------------------------------------------------------- scopes */

/**
 * PERF_AUTO(perf_value) v = NULL;
 *
 * A handle that is let go when its scope ends, by whatever way: the end, return,
 * break, goto, or a C++ exception. For perf_value, perf_cache_iter, perf_cache,
 * perf_pool, perf_pool_request, perf_task, perf_task_group (whose tasks go on), perf_metrics,
 * perf_snapshot, perf_monitor and perf_request_list.
 * Always initialise it. Since 1.0.
 */
#define PERF_AUTO(type) __attribute__((cleanup(perf_auto_##type))) type *

static inline void perf_auto_perf_value(perf_value **value)
{
    perf_value_release(*value);
}

static inline void perf_auto_perf_cache_iter(perf_cache_iter **iter)
{
    perf_cache_iter_close(*iter);
}

static inline void perf_auto_perf_cache(perf_cache **cache)
{
    (void)perf_cache_close(*cache);
}

static inline void perf_auto_perf_pool(perf_pool **pool)
{
    (void)perf_pool_close(*pool);
}

static inline void perf_auto_perf_pool_request(perf_pool_request **request)
{
    perf_pool_request_release(*request);
}

static inline void perf_auto_perf_task(perf_task **task)
{
    perf_task_release(*task);
}

static inline void perf_auto_perf_task_group(perf_task_group **group)
{
    perf_task_group_close(*group);
}

static inline void perf_auto_perf_metrics(perf_metrics **metrics)
{
    perf_metrics_close(*metrics);
}

static inline void perf_auto_perf_snapshot(perf_snapshot **snapshot)
{
    perf_snapshot_release(*snapshot);
}

static inline void perf_auto_perf_monitor(perf_monitor **monitor)
{
    (void)perf_monitor_close(*monitor);
}

static inline void perf_auto_perf_request_list(perf_request_list **list)
{
    perf_request_list_release(*list);
}

/* -------------------------------------------------------------- connections */

/**
 * PERF_BORROW(pool, PGconn *, db, 50) { query(db); } else { busy(); }
 *
 * Runs the first block with a connection, which is given back when the block
 * ends, by whatever way: its end, return, break, continue, goto, or a C++
 * exception. When none came within timeout_ms (0: do not wait; -1: wait for
 * ever) the second block runs, if there is one. Leaves the place in the source
 * as the borrower's name, for perf_pool_holder and leak reports. type is a
 * pointer. Any thread. Since 1.0.
 */
#define PERF_BORROW(pool, type, name, timeout_ms) \
    PERF_SUGAR_BORROW(pool, PERF_SUGAR_NOBODY, type, name, timeout_ms)

/** PERF_BORROW of a connection to key (perf_pool_acquire_key). Since 1.0. */
#define PERF_BORROW_KEY(pool, key, type, name, timeout_ms) \
    PERF_SUGAR_BORROW(pool, key, type, name, timeout_ms)

/** In a PERF_BORROW: the connection is broken, so the end of the scope closes it
 *  (perf_pool_discard) instead of giving it back. Since 1.0. */
#define PERF_BORROW_BROKEN(name) ((void)(perf_sugar_loan_##name.end = PERF_SUGAR_DISCARD))

/** In a PERF_BORROW: the end of the scope leaves the connection alone. It is to be released,
 *  discarded or detached by the caller, once. Since 1.0. */
#define PERF_BORROW_KEEP(name) ((void)(perf_sugar_loan_##name.end = PERF_SUGAR_KEEP))

/** In either block of a PERF_BORROW: what the acquire returned. Since 1.0. */
#define PERF_BORROW_STATUS(name) (perf_sugar_loan_##name.status)

/*
 * How PERF_BORROW works. Two loops that run once: one for the loan, one for the
 * connection, each declaring its variable. The loan is named after the
 * connection, so that what nests has different names and the macros above find it.
 */
enum { PERF_SUGAR_RELEASE, PERF_SUGAR_DISCARD, PERF_SUGAR_KEEP };

typedef struct perf_sugar_loan {
    perf_pool *pool;
    void *conn; /* NULL without one */
    int status;
    int over; /* 1: the block was entered */
    int64_t end;
} perf_sugar_loan;

static inline perf_sugar_loan perf_sugar_lend(perf_pool *pool, const char *key, const char *who,
                                              int64_t timeout_ms)
{
    perf_sugar_loan loan;

    loan.pool = pool;
    loan.conn = 0;
    loan.over = 0;
    loan.end = PERF_SUGAR_RELEASE;
    loan.status = key ? perf_pool_acquire_key(pool, key, who, timeout_ms, &loan.conn)
                      : perf_pool_acquire_as(pool, who, timeout_ms, &loan.conn);
    return loan;
}

static inline void perf_sugar_return(perf_sugar_loan *loan)
{
    if (loan->status != PERF_OK)
        return;
    if (loan->end == PERF_SUGAR_RELEASE)
        (void)perf_pool_release(loan->pool, loan->conn);
    else if (loan->end == PERF_SUGAR_DISCARD)
        (void)perf_pool_discard(loan->pool, loan->conn);
}

#define PERF_SUGAR_TEXT(x)   #x
#define PERF_SUGAR_NUMBER(x) PERF_SUGAR_TEXT(x)
#define PERF_SUGAR_HERE      __FILE__ ":" PERF_SUGAR_NUMBER(__LINE__)

#define PERF_SUGAR_BORROW(pool, key, type, name, timeout_ms)                                  \
    for (__attribute__((cleanup(perf_sugar_return))) perf_sugar_loan perf_sugar_loan_##name = \
             perf_sugar_lend(pool, key, PERF_SUGAR_HERE, timeout_ms);                         \
         !perf_sugar_loan_##name.over; perf_sugar_loan_##name.over = 1)                       \
        for (type name                                                                        \
             __attribute__((unused)) = PERF_SUGAR_CAST(type, perf_sugar_loan_##name.conn);    \
             !perf_sugar_loan_##name.over; perf_sugar_loan_##name.over = 1)                   \
            if (perf_sugar_loan_##name.status == PERF_OK)

/* ----------------------------------------------------------------- requests */

/**
 * PERF_TRACK(monitor, "/api/chat", "POST", user) { ... }
 *
 * Runs the block as one request (monitor.h), which is perf_request_current() in it and ends when
 * the block does, by whatever way: its end, return, break, continue, goto, or a C++ exception. When
 * it cannot be tracked the block runs all the same, and perf_request_current() is what it was. Any
 * thread. Since 1.0.
 */
#define PERF_TRACK(monitor, endpoint, method, user)                                             \
    PERF_SUGAR_TRACK(PERF_SUGAR_JOIN(perf_sugar_tracked_, __LINE__), monitor, endpoint, method, \
                     user)

/** PERF_SPAN("database") { ... } Runs the block as a span of perf_request_current(), if there is
 *  one. Any thread. Since 1.0. */
#define PERF_SPAN(name) PERF_SUGAR_SPAN(PERF_SUGAR_JOIN(perf_sugar_span_, __LINE__), name)

typedef struct perf_sugar_tracked {
    perf_request *request;
    int64_t span; /* of a PERF_SPAN */
    int64_t over; /* 1: the block was entered */
} perf_sugar_tracked;

static inline perf_sugar_tracked perf_sugar_track(perf_monitor *monitor, const char *endpoint,
                                                  const char *method, const char *user)
{
    perf_sugar_tracked tracked;

    tracked.over = 0;
    tracked.span = -1;
    tracked.request = 0;
    (void)perf_monitor_begin(monitor, endpoint, method, user, &tracked.request);
    perf_request_enter(tracked.request);
    return tracked;
}

static inline void perf_sugar_track_end(perf_sugar_tracked *tracked)
{
    perf_request_leave(tracked->request);
    perf_request_end(tracked->request);
}

static inline perf_sugar_tracked perf_sugar_span(const char *name)
{
    perf_sugar_tracked tracked;

    tracked.over = 0;
    tracked.request = perf_request_current();
    tracked.span = perf_request_span(tracked.request, name);
    return tracked;
}

static inline void perf_sugar_span_end(perf_sugar_tracked *tracked)
{
    perf_request_span_end(tracked->request, tracked->span);
}

#define PERF_SUGAR_TRACK(variable, monitor, endpoint, method, user)                       \
    for (__attribute__((cleanup(perf_sugar_track_end)))                                   \
         perf_sugar_tracked variable = perf_sugar_track(monitor, endpoint, method, user); \
         !variable.over; variable.over = 1)
#define PERF_SUGAR_SPAN(variable, name)                       \
    for (__attribute__((cleanup(perf_sugar_span_end)))        \
         perf_sugar_tracked variable = perf_sugar_span(name); \
         !variable.over; variable.over = 1)

/* --------------------------------------------------------------------- keys */

/*
 * From here on: how PERF_CACHED works. Names with "sugar" in them may change.
 *
 * The key of a call is the function's name, ':', sizeof(result), the schema
 * number, and each argument as a tag byte and its value in little-endian order;
 * strings and bytes carry their length, and strings also their final NUL. So
 * the key holds all arguments by value: whoever loads reads them back from the
 * key. A load in the background therefore needs no context of its own, and a
 * hit allocates nothing.
 */
enum {
    PERF_SUGAR_INLINE = 256,    /* keys up to here stay on the stack */
    PERF_SUGAR_MAX_KEY = 32767, /* longer ones are not cached */
    PERF_SUGAR_HEADER = 8       /* sizeof(result) and schema, 4 bytes each */
};

#define PERF_SUGAR_NOBODY PERF_SUGAR_CAST(const char *, 0)

#ifdef __cplusplus
#define PERF_SUGAR_CAST(type, value)       static_cast<type>(value)
#define PERF_SUGAR_ASSERT(condition, text) static_assert(condition, text)
#else
#define PERF_SUGAR_CAST(type, value)       ((type)(value))
#define PERF_SUGAR_ASSERT(condition, text) _Static_assert(condition, text)
#endif

typedef struct perf_sugar_key {
    unsigned char *data; /* NULL when the key could not be made */
    size_t len, cap;
    unsigned char local[PERF_SUGAR_INLINE];
} perf_sugar_key;

static inline void perf_sugar_key_close(perf_sugar_key *key)
{
    if (key->data != key->local)
        free(key->data);
}

/*
 * Makes room for more bytes, or gives the key up: when it would pass the limit,
 * or memory is short. Always len <= cap <= PERF_SUGAR_MAX_KEY.
 */
__attribute__((noinline, cold, unused)) static void perf_sugar_key_grow(perf_sugar_key *key,
                                                                        size_t more)
{
    unsigned char *grown = NULL;
    size_t cap = key->cap * 2;

    if (!key->data)
        return;
    if (more <= PERF_SUGAR_MAX_KEY - key->len) {
        if (cap < key->len + more)
            cap = key->len + more;
        if (cap > PERF_SUGAR_MAX_KEY)
            cap = PERF_SUGAR_MAX_KEY;
        grown = PERF_SUGAR_CAST(unsigned char *, malloc(cap));
    }
    if (grown)
        memcpy(grown, key->data, key->len);
    else
        key->len = cap = 0;
    perf_sugar_key_close(key);
    key->data = grown;
    key->cap = cap;
}

/* Room for len more bytes at the end of the key, or NULL. */
static inline unsigned char *perf_sugar_key_room(perf_sugar_key *key, size_t len)
{
    unsigned char *room;

    if (__builtin_expect(key->cap - key->len < len, 0))
        perf_sugar_key_grow(key, len);
    if (__builtin_expect(!key->data, 0))
        return NULL;
    room = key->data + key->len;
    key->len += len;
    return room;
}

/* The low bytes of a word (at most 8), in little-endian order. */
static inline void perf_sugar_store(unsigned char *to, uint64_t word, size_t bytes)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, bytes);
}

static inline uint64_t perf_sugar_fetch(const unsigned char *from, size_t bytes)
{
    uint64_t word = 0;

    memcpy(&word, from, bytes);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Begins a key; name_len counts the ':' at the end of name. */
static inline void perf_sugar_key_open(perf_sugar_key *key, const char *name, size_t name_len,
                                       size_t result_size, uint64_t schema)
{
    unsigned char *room;

    key->data = key->local;
    key->len = 0;
    key->cap = sizeof key->local;
    room = perf_sugar_key_room(key, name_len + PERF_SUGAR_HEADER);
    if (!room)
        return;
    memcpy(room, name, name_len);
    perf_sugar_store(room + name_len, result_size, 4);
    perf_sugar_store(room + name_len + 4, schema, 4);
}

static inline void perf_sugar_put_word(perf_sugar_key *key, char tag, uint64_t word, size_t bytes)
{
    unsigned char *room = perf_sugar_key_room(key, bytes + 1);

    if (!room)
        return;
    room[0] = PERF_SUGAR_CAST(unsigned char, tag);
    perf_sugar_store(room + 1, word, bytes);
}

/* nul: 1 to add a NUL that the length does not count. */
static inline void perf_sugar_put_data(perf_sugar_key *key, char tag, const void *data, size_t len,
                                       size_t nul)
{
    unsigned char *room;

    /* A length over the limit is asked for as it is, so that no sum wraps; it is refused. */
    room = perf_sugar_key_room(key, len > PERF_SUGAR_MAX_KEY ? len : len + nul + 5);
    if (!room)
        return;
    room[0] = PERF_SUGAR_CAST(unsigned char, tag);
    perf_sugar_store(room + 1, len, 4);
    if (len)
        memcpy(room + 5, data, len);
    if (nul)
        room[5 + len] = 0;
}

/* Reads the arguments back out of a private copy of the key. */
typedef struct perf_sugar_reader {
    unsigned char *data;
    const unsigned char *at, *end; /* at is NULL once something did not fit */
    unsigned char local[PERF_SUGAR_INLINE];
} perf_sugar_reader;

static inline void perf_sugar_reader_close(perf_sugar_reader *reader)
{
    if (reader->data != reader->local)
        free(reader->data);
}

/* The copy makes it harmless when a body writes into a char * argument. */
static inline int perf_sugar_reader_open(perf_sugar_reader *reader, const perf_load *load,
                                         size_t name_len)
{
    size_t len = 0;
    const void *key = perf_load_key(load, &len);

    if (!key || len < name_len + PERF_SUGAR_HEADER)
        return PERF_ECORRUPT;
    if (len > sizeof reader->local) {
        reader->data = PERF_SUGAR_CAST(unsigned char *, malloc(len));
        if (!reader->data)
            return PERF_ENOMEM;
    }
    memcpy(reader->data, key, len);
    reader->at = reader->data + name_len + PERF_SUGAR_HEADER;
    reader->end = reader->data + len;
    return PERF_OK;
}

/* The next len bytes, or NULL. */
static inline const unsigned char *perf_sugar_take(perf_sugar_reader *reader, uint64_t len)
{
    const unsigned char *at = reader->at;

    if (!at || len > PERF_SUGAR_CAST(uint64_t, reader->end - at)) {
        reader->at = NULL;
        return NULL;
    }
    reader->at = at + len;
    return at;
}

static inline uint64_t perf_sugar_take_word(perf_sugar_reader *reader, char tag, size_t bytes)
{
    const unsigned char *at = perf_sugar_take(reader, bytes + 1);

    if (!at || at[0] != PERF_SUGAR_CAST(unsigned char, tag)) {
        reader->at = NULL;
        return 0;
    }
    return perf_sugar_fetch(at + 1, bytes);
}

/* --------------------------------------------------- one pair for each type */

/* (suffix, type, tag): whole numbers are 8 bytes whatever their type was. */
#ifdef __cplusplus
#define PERF_SUGAR_BOOL bool
#else
#define PERF_SUGAR_BOOL _Bool
#endif
#define PERF_SUGAR_INTEGERS(X)     \
    X(bool, PERF_SUGAR_BOOL, 'u')  \
    X(char, char, 'i')             \
    X(schar, signed char, 'i')     \
    X(uchar, unsigned char, 'u')   \
    X(short, short, 'i')           \
    X(ushort, unsigned short, 'u') \
    X(int, int, 'i')               \
    X(uint, unsigned int, 'u')     \
    X(long, long, 'i')             \
    X(ulong, unsigned long, 'u')   \
    X(llong, long long, 'i')       \
    X(ullong, unsigned long long, 'u')
#define PERF_SUGAR_OTHERS(X)   \
    X(float, float, 'f')       \
    X(double, double, 'd')     \
    X(text, const char *, 's') \
    X(chars, char *, 's')      \
    X(bytes, perf_bytes, 'b')

#define PERF_SUGAR_INTEGER(suffix, type, tag)                                   \
    static inline void perf_sugar_put_##suffix(perf_sugar_key *key, type value) \
    {                                                                           \
        perf_sugar_put_word(key, tag, PERF_SUGAR_CAST(uint64_t, value), 8);     \
    }                                                                           \
    static inline type perf_sugar_take_##suffix(perf_sugar_reader *reader)      \
    {                                                                           \
        return PERF_SUGAR_CAST(type, perf_sugar_take_word(reader, tag, 8));     \
    }
PERF_SUGAR_INTEGERS(PERF_SUGAR_INTEGER)
#undef PERF_SUGAR_INTEGER

/* Floating point goes by its bits: 0.0 and -0.0 are two keys, NaN is one. */
static inline void perf_sugar_put_float(perf_sugar_key *key, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    perf_sugar_put_word(key, 'f', bits, 4);
}

static inline float perf_sugar_take_float(perf_sugar_reader *reader)
{
    uint32_t bits = PERF_SUGAR_CAST(uint32_t, perf_sugar_take_word(reader, 'f', 4));
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void perf_sugar_put_double(perf_sugar_key *key, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    perf_sugar_put_word(key, 'd', bits, 8);
}

static inline double perf_sugar_take_double(perf_sugar_reader *reader)
{
    uint64_t bits = perf_sugar_take_word(reader, 'd', 8);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void perf_sugar_put_text(perf_sugar_key *key, const char *value)
{
    if (value)
        perf_sugar_put_data(key, 's', value, strlen(value), 1);
    else
        perf_sugar_put_word(key, 'n', 0, 0);
}

static inline void perf_sugar_put_chars(perf_sugar_key *key, char *value)
{
    perf_sugar_put_text(key, value);
}

static inline char *perf_sugar_take_chars(perf_sugar_reader *reader)
{
    const unsigned char *at = reader->at;

    if (at && at < reader->end && *at == 'n') {
        reader->at = at + 1;
        return NULL;
    }
    at = perf_sugar_take(reader, perf_sugar_take_word(reader, 's', 4) + 1);
    if (!at)
        return NULL;
    return PERF_SUGAR_CAST(char *, PERF_SUGAR_CAST(void *, reader->data + (at - reader->data)));
}

static inline const char *perf_sugar_take_text(perf_sugar_reader *reader)
{
    return perf_sugar_take_chars(reader);
}

static inline void perf_sugar_put_bytes(perf_sugar_key *key, perf_bytes value)
{
    perf_sugar_put_data(key, 'b', value.data, value.len, 0);
}

static inline perf_bytes perf_sugar_take_bytes(perf_sugar_reader *reader)
{
    uint64_t len = perf_sugar_take_word(reader, 'b', 4);
    perf_bytes value;

    value.data = perf_sugar_take(reader, len);
    value.len = value.data ? PERF_SUGAR_CAST(size_t, len) : 0;
    return value;
}

/* ------------------------------------------------------- choosing by a type */

#ifdef __cplusplus

extern "C++" {
template <typename T, bool is_enum = __is_enum(T)> struct perf_sugar_type {
    enum { supported = 0 };
    static void put(perf_sugar_key *, const T &);
    static T take(perf_sugar_reader *);
};
template <typename T> struct perf_sugar_type<T, true> {
    typedef perf_sugar_type<__underlying_type(T)> whole;
    enum { supported = 1 };
    static void put(perf_sugar_key *key, T value)
    {
        whole::put(key, static_cast<__underlying_type(T)>(value));
    }
    static T take(perf_sugar_reader *reader)
    {
        return static_cast<T>(whole::take(reader));
    }
};
template <typename T> struct perf_sugar_type<const T, false> : perf_sugar_type<T> {
};
template <typename T> struct perf_sugar_type<const T, true> : perf_sugar_type<T> {
};
#define PERF_SUGAR_TRAIT(suffix, type, tag)              \
    template <> struct perf_sugar_type<type, false> {    \
        enum { supported = 1 };                          \
        static void put(perf_sugar_key *key, type value) \
        {                                                \
            perf_sugar_put_##suffix(key, value);         \
        }                                                \
        static type take(perf_sugar_reader *reader)      \
        {                                                \
            return perf_sugar_take_##suffix(reader);     \
        }                                                \
    };
PERF_SUGAR_INTEGERS(PERF_SUGAR_TRAIT)
PERF_SUGAR_OTHERS(PERF_SUGAR_TRAIT)
#undef PERF_SUGAR_TRAIT

template <typename T> struct perf_sugar_is_pointer {
    enum { value = 0 };
};
template <typename T> struct perf_sugar_is_pointer<T *> {
    enum { value = 1 };
};
}

#define PERF_SUGAR_SUPPORTED(type)      (perf_sugar_type<type>::supported != 0)
#define PERF_SUGAR_PUT(type, argument)  perf_sugar_type<type>::put(&perf_sugar_k, argument);
#define PERF_SUGAR_TAKE(type, argument) type argument = perf_sugar_type<type>::take(&perf_sugar_r);
#define PERF_SUGAR_CHECK_RESULT(type)                                                       \
    PERF_SUGAR_ASSERT(__is_trivially_copyable(type) && !perf_sugar_is_pointer<type>::value, \
                      "PERF_CACHED: the result (" #type ") must be trivially copyable and " \
                      "no pointer, for it is stored as its bytes")

#else

/* Never called: they let an unsupported type end in one assertion, not in five errors. */
void perf_sugar_put_unsupported(perf_sugar_key *key, ...);
int perf_sugar_take_unsupported(perf_sugar_reader *reader);

/* clang-format off */
#define PERF_SUGAR_CASE_PUT(suffix, type, tag) type: perf_sugar_put_##suffix,
#define PERF_SUGAR_CASE_TAKE(suffix, type, tag) type: perf_sugar_take_##suffix,
#define PERF_SUGAR_CASE_YES(suffix, type, tag) type: 1,
#define PERF_SUGAR_CASES(X) PERF_SUGAR_INTEGERS(X) PERF_SUGAR_OTHERS(X)

#define PERF_SUGAR_SUPPORTED(type) \
    _Generic(*(type *)0, PERF_SUGAR_CASES(PERF_SUGAR_CASE_YES) default: 0)
#define PERF_SUGAR_PUT(type, argument)                                  \
    _Generic(*(type *)0, PERF_SUGAR_CASES(PERF_SUGAR_CASE_PUT) default  \
             : perf_sugar_put_unsupported)(&perf_sugar_k, argument);
#define PERF_SUGAR_TAKE(type, argument)                                                  \
    type argument = _Generic(*(type *)0, PERF_SUGAR_CASES(PERF_SUGAR_CASE_TAKE) default  \
                             : perf_sugar_take_unsupported)(&perf_sugar_r);
/* clang-format on */

/* 5 is what gcc and clang call the class of pointers. */
#define PERF_SUGAR_CHECK_RESULT(type)                                      \
    PERF_SUGAR_ASSERT(__builtin_classify_type(*(type *)0) != 5,            \
                      "PERF_CACHED: the result (" #type ") is a pointer; " \
                      "what it points to would not be stored")

#endif

#define PERF_SUGAR_CHECK(type, argument)                                                  \
    PERF_SUGAR_ASSERT(PERF_SUGAR_SUPPORTED(type),                                         \
                      "PERF_CACHED: (" #type ", " #argument ") cannot be part of a key; " \
                      "use integers, enums, floating point, const char * or perf_bytes");
#define PERF_SUGAR_PARAM(type, argument) type argument,
#define PERF_SUGAR_PASS(type, argument)  argument,

/* ------------------------------------------------------------------ calling */

/* 1: answered, and *rc is the answer. 0: the body has to run without the cache. */
static inline int perf_sugar_get(perf_cache *cache, const char *ns, const char *user,
                                 perf_sugar_key *key, perf_load_fn load, int64_t ttl_ms, void *out,
                                 size_t size, int *rc)
{
    perf_set_options set = PERF_SET_OPTIONS_INIT;
    perf_loader loader = PERF_LOADER_INIT;
    size_t len = 0;

    if (__builtin_expect(!cache || !key->data || key->len > PERF_SUGAR_MAX_KEY, 0)) {
        perf_sugar_key_close(key);
        return 0;
    }
    set.ttl_ms = ttl_ms;
    loader.load = load;
    loader.ctx_is_static = 1; /* there is none: the arguments are in the key */
    loader.set = &set;
    *rc =
        perf_cache_get_or_load_copy(cache, ns, user, key->data, key->len, &loader, out, size, &len);
    perf_sugar_key_close(key);
    if (*rc == PERF_OK)
        return len == size;
    return *rc != PERF_EFORKED && *rc != PERF_ECLOSED && *rc != PERF_ETOOBIG &&
           *rc != PERF_ETOOSMALL;
}

static inline int perf_sugar_forget(perf_cache *cache, const char *ns, const char *user,
                                    perf_sugar_key *key)
{
    int rc = PERF_MISS;

    if (cache && key->data && key->len <= PERF_SUGAR_MAX_KEY)
        rc = perf_cache_delete(cache, ns, user, key->data, key->len);
    perf_sugar_key_close(key);
    return rc;
}

static inline void perf_sugar_free(void *block)
{
    void *owned;

    memcpy(&owned, block, sizeof owned); /* block is the address of a typed pointer */
    free(owned);
}

#if defined(__cplusplus) && defined(__EXCEPTIONS)
#define PERF_SUGAR_TRY try
#define PERF_SUGAR_CATCH   \
    catch (...)            \
    {                      \
        return PERF_ELOAD; \
    }
#else
#define PERF_SUGAR_TRY
#define PERF_SUGAR_CATCH
#endif

/*
 * What a PERF_CACHED becomes, in order: the prototype (which takes the storage
 * class), the body's prototype, the loader, the function, its forgetting, and
 * the head of the body. each is the macro that goes through the arguments;
 * listed has them as a parameter list of their own.
 */
/* clang-format off */
#define PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, each, listed, ...)      \
    int name(each(PERF_SUGAR_PARAM, __VA_ARGS__) result *out);                                 \
    static int perf_cached_body_##name(each(PERF_SUGAR_PARAM, __VA_ARGS__) result *out);       \
    static int perf_cached_load_##name(perf_load *perf_sugar_l, void *perf_sugar_c)            \
    {                                                                                          \
        each(PERF_SUGAR_CHECK, __VA_ARGS__)                                                    \
        PERF_SUGAR_CHECK_RESULT(result);                                                       \
        PERF_SUGAR_ASSERT(__alignof__(result) <= 2 * sizeof(void *),                           \
                          "PERF_CACHED: the result (" #result ") is over-aligned");            \
        __attribute__((cleanup(perf_sugar_reader_close))) perf_sugar_reader perf_sugar_r;      \
        int perf_sugar_rc;                                                                     \
                                                                                               \
        (void)perf_sugar_c;                                                                    \
        perf_sugar_r.data = perf_sugar_r.local;                                                \
        perf_sugar_rc = perf_sugar_reader_open(&perf_sugar_r, perf_sugar_l, sizeof #name);     \
        if (perf_sugar_rc != PERF_OK)                                                          \
            return perf_sugar_rc;                                                              \
        each(PERF_SUGAR_TAKE, __VA_ARGS__)                                                     \
        if (perf_sugar_r.at != perf_sugar_r.end)                                               \
            return PERF_ECORRUPT;                                                              \
        __attribute__((cleanup(perf_sugar_free))) result *perf_sugar_o =                       \
            PERF_SUGAR_CAST(result *, calloc(1, sizeof(result)));                              \
        if (!perf_sugar_o)                                                                     \
            return PERF_ENOMEM;                                                                \
        PERF_SUGAR_TRY                                                                         \
        {                                                                                      \
            perf_sugar_rc =                                                                    \
                perf_cached_body_##name(each(PERF_SUGAR_PASS, __VA_ARGS__) perf_sugar_o);      \
        }                                                                                      \
        PERF_SUGAR_CATCH                                                                       \
        if (perf_sugar_rc == PERF_OK)                                                          \
            perf_sugar_rc = perf_load_set(perf_sugar_l, perf_sugar_o, sizeof(result));         \
        return perf_sugar_rc;                                                                  \
    }                                                                                          \
    int name(each(PERF_SUGAR_PARAM, __VA_ARGS__) result *out)                                  \
    {                                                                                          \
        perf_sugar_key perf_sugar_k;                                                           \
        int perf_sugar_rc = PERF_OK;                                                           \
                                                                                               \
        perf_sugar_key_open(&perf_sugar_k, #name ":", sizeof #name, sizeof(result), schema);   \
        each(PERF_SUGAR_PUT, __VA_ARGS__)                                                      \
        if (perf_sugar_get(cache, ns, user, &perf_sugar_k, perf_cached_load_##name, ttl_ms,    \
                           out, sizeof(result), &perf_sugar_rc))                               \
            return perf_sugar_rc;                                                              \
        memset(PERF_SUGAR_CAST(void *, out), 0, sizeof(result));                               \
        PERF_SUGAR_TRY                                                                         \
        {                                                                                      \
            return perf_cached_body_##name(each(PERF_SUGAR_PASS, __VA_ARGS__) out);            \
        }                                                                                      \
        PERF_SUGAR_CATCH                                                                       \
    }                                                                                          \
    __attribute__((unused)) static int perf_cached_forget_##name(listed)                       \
    {                                                                                          \
        perf_sugar_key perf_sugar_k;                                                           \
                                                                                               \
        perf_sugar_key_open(&perf_sugar_k, #name ":", sizeof #name, sizeof(result), schema);   \
        each(PERF_SUGAR_PUT, __VA_ARGS__)                                                      \
        return perf_sugar_forget(cache, ns, user, &perf_sugar_k);                              \
    }                                                                                          \
    static int perf_cached_body_##name(each(PERF_SUGAR_PARAM, __VA_ARGS__) result *out)

#define PERF_SUGAR_JOIN(a, b) PERF_SUGAR_JOIN_NOW(a, b)
#define PERF_SUGAR_JOIN_NOW(a, b) a##b
#define PERF_SUGAR_COUNT(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, count, ...) count
#define PERF_SUGAR_NEXT(type, argument) , type argument
#define PERF_SUGAR_FIRST(type, argument) type argument

#define PERF_SUGAR_EACH_0(each, none)
#define PERF_SUGAR_EACH_1(each, a) each a
#define PERF_SUGAR_EACH_2(each, a, b) each a each b
#define PERF_SUGAR_EACH_3(each, a, b, c) each a each b each c
#define PERF_SUGAR_EACH_4(each, a, b, c, d) each a each b each c each d
#define PERF_SUGAR_EACH_5(each, a, b, c, d, e) each a each b each c each d each e
#define PERF_SUGAR_EACH_6(each, a, b, c, d, e, f) each a each b each c each d each e each f
#define PERF_SUGAR_EACH_7(each, a, b, c, d, e, f, g) \
    each a each b each c each d each e each f each g
#define PERF_SUGAR_EACH_8(each, a, b, c, d, e, f, g, h) \
    each a each b each c each d each e each f each g each h

#define PERF_SUGAR_DEFINE_0(cache, user, schema, name, result, ns, ttl_ms)                         \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_0,              \
                    void, )
#define PERF_SUGAR_DEFINE_1(cache, user, schema, name, result, ns, ttl_ms, a)                      \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_1,              \
                    PERF_SUGAR_FIRST a, a)
#define PERF_SUGAR_DEFINE_2(cache, user, schema, name, result, ns, ttl_ms, a, b)                   \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_2,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_1(PERF_SUGAR_NEXT, b), a, b)
#define PERF_SUGAR_DEFINE_3(cache, user, schema, name, result, ns, ttl_ms, a, b, c)                \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_3,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_2(PERF_SUGAR_NEXT, b, c), a, b, c)
#define PERF_SUGAR_DEFINE_4(cache, user, schema, name, result, ns, ttl_ms, a, b, c, d)             \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_4,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_3(PERF_SUGAR_NEXT, b, c, d), a, b, c, d)
#define PERF_SUGAR_DEFINE_5(cache, user, schema, name, result, ns, ttl_ms, a, b, c, d, e)          \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_5,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_4(PERF_SUGAR_NEXT, b, c, d, e),             \
                    a, b, c, d, e)
#define PERF_SUGAR_DEFINE_6(cache, user, schema, name, result, ns, ttl_ms, a, b, c, d, e, f)       \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_6,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_5(PERF_SUGAR_NEXT, b, c, d, e, f),          \
                    a, b, c, d, e, f)
#define PERF_SUGAR_DEFINE_7(cache, user, schema, name, result, ns, ttl_ms, a, b, c, d, e, f, g)    \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_7,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_6(PERF_SUGAR_NEXT, b, c, d, e, f, g),       \
                    a, b, c, d, e, f, g)
#define PERF_SUGAR_DEFINE_8(cache, user, schema, name, result, ns, ttl_ms, a, b, c, d, e, f, g, h) \
    PERF_SUGAR_EMIT(cache, user, schema, name, result, ns, ttl_ms, PERF_SUGAR_EACH_8,              \
                    PERF_SUGAR_FIRST a PERF_SUGAR_EACH_7(PERF_SUGAR_NEXT, b, c, d, e, f, g, h),    \
                    a, b, c, d, e, f, g, h)

#define PERF_SUGAR_DEFINE_FEW(cache, user, schema, name, ...)                              \
    PERF_SUGAR_ASSERT(0, "PERF_CACHED(" #name ", ...) needs a result type, a namespace and" \
                         " a time to live before the arguments");                          \
    int name(void)
#define PERF_SUGAR_DEFINE_MANY(cache, user, schema, name, ...)                   \
    PERF_SUGAR_ASSERT(0, "PERF_CACHED(" #name ", ...) takes at most 8 arguments"); \
    int name(void)
/* clang-format on */

/* -------------------------------------------------------------------- tasks */

/*
 * How PERF_TASK works. The arguments become the fields of a struct, which is
 * allocated together with the content of its strings and bytes, one after the
 * other behind it. The block is the task's argument, and freed as such.
 */
enum { PERF_SUGAR_MAX_CONTENT = 1 << 20 };

static inline size_t perf_sugar_text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* Stays over the limit once it is. */
static inline void perf_sugar_add(size_t *sum, size_t size)
{
    if (*sum <= PERF_SUGAR_MAX_CONTENT)
        *sum = size <= PERF_SUGAR_MAX_CONTENT - *sum ? *sum + size : PERF_SUGAR_MAX_CONTENT + 1;
}

static inline char *perf_sugar_keep(char **at, const void *data, size_t size)
{
    char *kept = *at;

    if (size)
        memcpy(kept, data, size);
    *at += size;
    return kept;
}

static inline char *perf_sugar_keep_text(char **at, const char *text)
{
    return text ? perf_sugar_keep(at, text, strlen(text) + 1) : NULL;
}

static inline perf_bytes perf_sugar_keep_bytes(char **at, perf_bytes bytes)
{
    if (bytes.data)
        bytes.data = perf_sugar_keep(at, bytes.data, bytes.len);
    return bytes;
}

static inline int perf_sugar_submit(perf_executor *executor, perf_task_fn fn, void *block,
                                    const perf_task_options *options, perf_task **task)
{
    perf_task_options own = PERF_TASK_OPTIONS_INIT;

    if (options && !options->struct_size) { /* to be refused, in the library's words */
        free(block);
        return perf_task_submit(executor, fn, NULL, options, task);
    }
    if (options)
        memcpy(&own, options,
               options->struct_size < sizeof own ? options->struct_size : sizeof own);
    own.struct_size = sizeof own;
    own.free_arg = free;
    return perf_task_submit(executor, fn, block, &own, task);
}

#ifdef __cplusplus

extern "C++" {
template <typename T> struct perf_sugar_kept {
    enum { supported = __is_trivially_copyable(T) };
    static size_t size(const T &)
    {
        return 0;
    }
    static const T &keep(char **, const T &value)
    {
        return value;
    }
};
template <typename T> struct perf_sugar_kept<const T> : perf_sugar_kept<T> {
};
template <typename T> struct perf_sugar_kept_not {
    enum { supported = 0 };
    template <typename Any> static size_t size(const Any &);
    template <typename Any> static T keep(char **, const Any &);
};
template <typename T> struct perf_sugar_kept<T &> : perf_sugar_kept_not<T &> {
};
template <typename T> struct perf_sugar_kept<T &&> : perf_sugar_kept_not<T &&> {
};
#define PERF_SUGAR_KEPT_NOT(type)                                          \
    template <> struct perf_sugar_kept<type> : perf_sugar_kept_not<type> { \
    };
PERF_SUGAR_KEPT_NOT(unsigned char *)
PERF_SUGAR_KEPT_NOT(const unsigned char *)
PERF_SUGAR_KEPT_NOT(signed char *)
PERF_SUGAR_KEPT_NOT(const signed char *)
PERF_SUGAR_KEPT_NOT(char **)
PERF_SUGAR_KEPT_NOT(const char **)
PERF_SUGAR_KEPT_NOT(char *const *)
PERF_SUGAR_KEPT_NOT(const char *const *)
#undef PERF_SUGAR_KEPT_NOT
template <> struct perf_sugar_kept<const char *> {
    enum { supported = 1 };
    static size_t size(const char *text)
    {
        return perf_sugar_text_size(text);
    }
    static char *keep(char **at, const char *text)
    {
        return perf_sugar_keep_text(at, text);
    }
};
template <> struct perf_sugar_kept<char *> : perf_sugar_kept<const char *> {
};
template <> struct perf_sugar_kept<perf_bytes> {
    enum { supported = 1 };
    static size_t size(perf_bytes bytes)
    {
        return bytes.len;
    }
    static perf_bytes keep(char **at, perf_bytes bytes)
    {
        return perf_sugar_keep_bytes(at, bytes);
    }
};
}

#define PERF_SUGAR_CAN_KEEP(type)       (perf_sugar_kept<type>::supported != 0)
#define PERF_SUGAR_CONTENT(type, value) perf_sugar_kept<type>::size(value)
#define PERF_SUGAR_KEEP(type, value)    perf_sugar_kept<type>::keep(&perf_sugar_at, value)

#else

/* Each is of its type whatever the argument is: the choices not taken must compile as well. */
static inline perf_bytes perf_sugar_no_bytes(void)
{
    perf_bytes none = {NULL, 0};

    return none;
}
/* clang-format off */
#define PERF_SUGAR_AS_TEXT(type, value) \
    _Generic(*(type *)0, const char *: (value), char *: (value), default: (const char *)0)
#define PERF_SUGAR_AS_BYTES(type, value) \
    _Generic(*(type *)0, perf_bytes: (value), default: perf_sugar_no_bytes())

#define PERF_SUGAR_CAN_KEEP(type)                                                           \
    _Generic(*(type *)0, unsigned char *: 0, const unsigned char *: 0, signed char *: 0,    \
             const signed char *: 0, char **: 0, const char **: 0, char *const *: 0,        \
             const char *const *: 0, default: 1)
#define PERF_SUGAR_CONTENT(type, value)                      \
    (perf_sugar_text_size(PERF_SUGAR_AS_TEXT(type, value)) + \
     PERF_SUGAR_AS_BYTES(type, value).len)
#define PERF_SUGAR_KEEP(type, value)                                                            \
    _Generic(*(type *)0,                                                                        \
             const char *: perf_sugar_keep_text(&perf_sugar_at, PERF_SUGAR_AS_TEXT(type, value)), \
             char *: perf_sugar_keep_text(&perf_sugar_at, PERF_SUGAR_AS_TEXT(type, value)),     \
             perf_bytes: perf_sugar_keep_bytes(&perf_sugar_at, PERF_SUGAR_AS_BYTES(type, value)), \
             default: (value))
/* clang-format on */

#endif

#if defined(__cplusplus) && defined(__EXCEPTIONS)
#define PERF_SUGAR_CATCH_TASK(run)                                               \
    catch (const std::exception &perf_sugar_e)                                   \
    {                                                                            \
        return perf_run_fail(run, PERF_ELOAD, perf_sugar_e.what());              \
    }                                                                            \
    catch (...)                                                                  \
    {                                                                            \
        return perf_run_fail(run, PERF_ELOAD, "an exception left the function"); \
    }
#else
#define PERF_SUGAR_CATCH_TASK(run)
#endif

#define PERF_SUGAR_FIELD(type, argument) type argument;
#define PERF_SUGAR_GIVE(type, argument)  , perf_sugar_b->argument
#define PERF_SUGAR_SUM(type, argument) \
    perf_sugar_add(&perf_sugar_n, PERF_SUGAR_CONTENT(type, argument));
#define PERF_SUGAR_VALUE(type, argument) , PERF_SUGAR_KEEP(type, argument)
#define PERF_SUGAR_CHECK_KEPT(type, argument)                                                 \
    PERF_SUGAR_ASSERT(PERF_SUGAR_CAN_KEEP(type),                                              \
                      "PERF_TASK: (" #type ", " #argument ") cannot be copied; use numbers, " \
                      "const char *, perf_bytes, plain structs or a pointer to one of these");

/*
 * What a PERF_TASK becomes, in order: the arguments as a struct, the two
 * prototypes (one declaration, so that a storage class is that of both), what
 * the executor calls, the starter, and the head of the body.
 */
/* clang-format off */
#define PERF_SUGAR_TASK(name, each, ...)                                                       \
    int name(perf_run *run each(PERF_SUGAR_NEXT, __VA_ARGS__)) __attribute__((unused)),        \
        name##_submit(perf_executor *perf_sugar_e, const perf_task_options *perf_sugar_o,      \
                      perf_task **perf_sugar_t each(PERF_SUGAR_NEXT, __VA_ARGS__))             \
            __attribute__((unused));                                                           \
    struct perf_task_arguments_##name {                                                        \
        size_t perf_sugar_size;                                                                \
        each(PERF_SUGAR_FIELD, __VA_ARGS__)                                                    \
    };                                                                                         \
    static int perf_task_run_##name(perf_run *perf_sugar_r, void *perf_sugar_a)                \
    {                                                                                          \
        struct perf_task_arguments_##name *perf_sugar_b =                                      \
            PERF_SUGAR_CAST(struct perf_task_arguments_##name *, perf_sugar_a);                \
                                                                                               \
        (void)perf_sugar_b;                                                                    \
        PERF_SUGAR_TRY                                                                         \
        {                                                                                      \
            return name(perf_sugar_r each(PERF_SUGAR_GIVE, __VA_ARGS__));                      \
        }                                                                                      \
        PERF_SUGAR_CATCH_TASK(perf_sugar_r)                                                    \
    }                                                                                          \
    int name##_submit(perf_executor *perf_sugar_e, const perf_task_options *perf_sugar_o,      \
                      perf_task **perf_sugar_t each(PERF_SUGAR_NEXT, __VA_ARGS__))             \
    {                                                                                          \
        each(PERF_SUGAR_CHECK_KEPT, __VA_ARGS__)                                               \
        PERF_SUGAR_ASSERT(__alignof__(struct perf_task_arguments_##name) <= 2 * sizeof(void *),\
                          "PERF_TASK(" #name ", ...): an argument is over-aligned");           \
        size_t perf_sugar_n = 0;                                                               \
        char *perf_sugar_at;                                                                   \
        void *perf_sugar_b;                                                                    \
                                                                                               \
        each(PERF_SUGAR_SUM, __VA_ARGS__)                                                      \
        if (perf_sugar_n > PERF_SUGAR_MAX_CONTENT)                                             \
            return PERF_ETOOBIG;                                                               \
        perf_sugar_b = malloc(sizeof(struct perf_task_arguments_##name) + perf_sugar_n);       \
        if (!perf_sugar_b)                                                                     \
            return PERF_ENOMEM;                                                                \
        perf_sugar_at = PERF_SUGAR_CAST(char *, perf_sugar_b) +                                \
                        sizeof(struct perf_task_arguments_##name);                             \
        struct perf_task_arguments_##name perf_sugar_v = {                                     \
            perf_sugar_n each(PERF_SUGAR_VALUE, __VA_ARGS__)};                                 \
        (void)perf_sugar_at;                                                                   \
        memcpy(perf_sugar_b, &perf_sugar_v, sizeof perf_sugar_v);                              \
        return perf_sugar_submit(perf_sugar_e, perf_task_run_##name, perf_sugar_b,             \
                                 perf_sugar_o, perf_sugar_t);                                  \
    }                                                                                          \
    int name(perf_run *run __attribute__((unused)) each(PERF_SUGAR_NEXT, __VA_ARGS__))

#define PERF_SUGAR_TASK_0(name) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_0, )
#define PERF_SUGAR_TASK_1(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_1, __VA_ARGS__)
#define PERF_SUGAR_TASK_2(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_2, __VA_ARGS__)
#define PERF_SUGAR_TASK_3(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_3, __VA_ARGS__)
#define PERF_SUGAR_TASK_4(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_4, __VA_ARGS__)
#define PERF_SUGAR_TASK_5(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_5, __VA_ARGS__)
#define PERF_SUGAR_TASK_6(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_6, __VA_ARGS__)
#define PERF_SUGAR_TASK_7(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_7, __VA_ARGS__)
#define PERF_SUGAR_TASK_8(name, ...) PERF_SUGAR_TASK(name, PERF_SUGAR_EACH_8, __VA_ARGS__)
#define PERF_SUGAR_TASK_MANY(name, ...)                                        \
    PERF_SUGAR_ASSERT(0, "PERF_TASK(" #name ", ...) takes at most 8 arguments"); \
    int name(void)

#define PERF_SUGAR_ASYNC_ONE(executor, task, name) name##_submit(executor, NULL, task)
#define PERF_SUGAR_ASYNC_MORE(executor, task, name, ...) \
    name##_submit(executor, NULL, task, __VA_ARGS__)
/* clang-format on */

#endif
