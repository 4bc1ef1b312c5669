/* SPDX-License-Identifier: MIT */
/*
 * pool_impl.h - what the files of the pool share.
 *
 * A pool is a row of slots. A slot is empty, or holds a connection that is idle,
 * borrowed, or busy (being opened, checked or closed). Who turns a slot's state
 * from idle by compare-and-swap owns its connection; that and a plain store to
 * give it back are the whole fast path. Everything else - the queue of those who
 * wait, opening, closing, keys - is done under the one mutex of the root pool.
 *
 * The trick: giving back is a plain store, after which the releaser looks
 * whether anybody waits. Between the two stands no fence; instead, whoever is
 * the first to wait makes all other threads execute one (membarrier(2)), then
 * looks at the slots again. While anybody waits, and for a while after, releasers
 * fence by themselves (`fencing`). Dice, Huang and Yang, "Asymmetric Dekker
 * synchronization" (2001) is the idea; see fence.h.
 *
 * The second trick: the coarse clock costs twice as much as all the rest of an acquire, and
 * time(2) a fifth of it. A connection that was lent in this very second of the wall clock was in
 * use less than a second ago, so unless somebody wants to know better (`by_seconds`), one look at
 * the clock a second is enough.
 *
 * The third trick: who comes from outside may take an idle connection before
 * those who wait, for waking a thread takes longer than some connections are
 * held. But when the first of the queue has been that for POOL_PATIENCE_NS, the
 * gate closes: everybody queues and connections are handed over in order, until
 * those who wait have not waited long (POOL_STRICT_NS). Go's sync.Mutex
 * alternates in the same way.
 */
#ifndef PERF_POOL_POOL_IMPL_H
#define PERF_POOL_POOL_IMPL_H

#include <libperf/pool.h>
#include <pthread.h>
#include <stdatomic.h>

#include "../base/options.h"
#include "../base/sync.h"
#include "../base/uthash_host.h"
#include "../metrics/counter.h"
#include "../metrics/histogram.h"

enum {
    POOL_MAX_SIZE = 4096,
    POOL_CHUNK = 16, /* slots allocated at once */
    POOL_MAX_KEY = 255,
    POOL_MAX_OPENING = 64,
    POOL_HINTS = 4, /* pools a thread remembers its last connection of */
    POOL_PATIENCE_NS = 100000,
    POOL_STRICT_NS = 1000000,
    POOL_SOON = 20,        /* ms to the next look when only time or others can make room */
    POOL_BACKOFF_MIN = 50, /* ms after the first failed open, doubling */
    POOL_BACKOFF_MAX = 5000,
};

enum { SLOT_EMPTY, SLOT_IDLE, SLOT_BORROWED, SLOT_BUSY };

/* Why a connection ends. 0 in slot.doomed: it does not. */
enum {
    WHY_NOT,
    WHY_IDLE,
    WHY_LIFETIME,
    WHY_PEER,
    WHY_INVALID,
    WHY_DISCARDED,
    WHY_EVICTED,
    WHY_CLOSING, /* the pool's own end */
    WHY_COUNT,
    WHY_UNSURE /* only validate can tell */
};

/* What a worker is to do with a busy slot. */
enum { WORK_OPEN, WORK_CHECK, WORK_CHECKED };

struct perf__slot {
    /* One line of the cache, written by the borrower alone (but for the first two). */
    _Alignas(64) _Atomic uint64_t word; /* SLOT_..., and above it how often it was lent */
    _Atomic(void *) conn;
    perf_pool *pool;
    _Atomic int64_t since_ms; /* when it was last lent */
    _Atomic int64_t expires_ms;
    _Atomic int64_t second; /* of the wall clock, in which it may be lent without a look at the
                               exact time; see perf_pool.by_seconds */
    _Atomic(const char *) who;
    _Atomic int32_t thread;
    _Atomic uint32_t doomed; /* WHY_...: end it when it is free */

    /* The rest changes seldom: under the mutex, or by the owner of a busy slot. */
    _Alignas(64) int64_t opened_ms;
    _Atomic int64_t alive_ms;       /* last time it was known to be alive, beside since_ms */
    _Atomic int64_t quiet_since_ms; /* last time upkeep saw it in use, or its opening */
    uint64_t uses_before;           /* uses when this connection came */
    uint64_t refused;               /* uses that were none: it was found dead before */
    uint32_t index;
    uint32_t epoch; /* of its opening; see perf_pool.epoch */
    int32_t work, why;
    uint64_t leaked_use; /* the use that was reported as a leak */
    int watched;         /* descriptor in the epoll set, or -1 */
    struct perf__slot *next;
};

/* Somebody in the queue: a thread on its own stack, or a perf_pool_request. */
struct perf__waiter {
    struct perf__waiter *prev, *next;
    perf_pool *pool;
    struct perf__slot *slot; /* handed over */
    bool queued;
    int64_t begun_ns;           /* the system's clock, as is the next */
    int64_t head_since_ns;      /* 0: it has not been the first yet */
    perf_pool_request *request; /* NULL: a thread */
    pthread_cond_t cond;
};

struct perf__waiters {
    struct perf__waiter *head, *tail;
};

/* Reasons why nobody may take an idle connection past the queue. */
enum { GATE_STARVING = 1, GATE_SUSPENDED = 2, GATE_CLOSING = 4 };

enum {
    COUNT_WAITS,
    COUNT_TIMEOUTS,
    COUNT_REJECTED,
    COUNT_OPENED,
    COUNT_OPEN_FAILURES,
    COUNT_VALIDATIONS,
    COUNT_DETACHED,
    COUNT_LEAKS,
    COUNT_FIRST_LENDS, /* of connections that are gone */
    COUNT_CLOSED,      /* + WHY_... */
    COUNT_COUNT = COUNT_CLOSED + WHY_COUNT
};

struct perf__worker {
    pthread_t thread;
    perf_pool *root;
    bool running, finished;
};

struct perf_pool {
    /* Read by every acquire and release, written almost never. */
    uint64_t id;                      /* unique in the process; a child has its root's */
    _Atomic uint64_t open_generation; /* fork_generation while the gate is open, else 0 */
    int64_t quiet_ms;                 /* a connection lent so recently is lent without a look */
    _Atomic uint32_t fencing;         /* releasers must fence and look at queue_len */
    bool system_clock;
    bool by_seconds; /* the time need be known to a second only */
    _Atomic uint32_t gate;
    uint64_t fork_generation;
    perf_clock clock;
    perf_connection_vtable vtable;
    void *ctx;
    _Atomic uint32_t slot_count; /* slots that exist; they never go away */
    _Atomic(struct perf__slot *) chunks[POOL_MAX_SIZE / POOL_CHUNK];

    /* From here on under root->mutex, unless atomic. */
    _Alignas(64) _Atomic uint32_t queue_len;
    _Atomic uint32_t head_signalled; /* the first of the queue is about to look by itself */
    struct perf__waiters queue;
    void *blocks[POOL_MAX_SIZE / POOL_CHUNK]; /* what the allocator gave for the chunks */
    perf_pool *root;                          /* itself unless it is a sub-pool */
    const char *key;                          /* "" of the root */
    struct perf__host host;
    perf_pool_options options;
    uint32_t total, opening, peak;
    _Atomic uint32_t epoch; /* raised by evict_all: what was being opened before is old, too */
    uint32_t users;         /* threads inside acquire_key for this child */
    bool keeps_idle;        /* min_idle counts: always, but with a lazy start from first need on */
    int64_t next_open_ms, backoff_ms;
    int64_t fenced_ms;   /* when somebody last had to wait */
    int64_t adaptive_ms; /* start of this window, with the peaks of this and the last one */
    uint32_t window_peak, last_peak;
    int open_error; /* of the last failed open; 0 after a success */
    char open_text[256];
    struct perf__counters counters;
    perf_pool *next_child;
    UT_hash_handle hh;

    /* The root's only. */
    pthread_mutex_t mutex;
    pthread_cond_t settled; /* something ended that close waits for */
    perf_pool *children, *child_list;
    void *memory; /* what the allocator gave, before it was aligned */
    uint32_t child_count, total_all;
    struct perf__slot *work_head, *work_tail; /* for workers */
    struct perf__slot *graves;                /* for the keeper to close */
    uint32_t burying;                         /* connections being closed, no graves any more */
    uint32_t calling;                         /* callbacks under way */
    uint32_t inside;                          /* threads that wait in this pool */
    uint32_t requests;                        /* that nobody released yet */
    struct perf__worker workers[POOL_MAX_OPENING];
    pthread_t keeper;
    bool keeper_runs, keeper_stops;
    int epoll, wake;                                  /* the keeper's; -1 before it runs */
    perf_pool_request *answered_head, *answered_tail; /* callbacks to be called by the keeper */
    perf_pool_request *done_head, *done_tail;         /* answers for perf_pool_next */
    int done_fd;
    int64_t real_offset_ms; /* wall clock minus monotonic at the last upkeep */
    struct perf__histogram waits, opens;
    _Atomic uint64_t wait_max_ns;
    struct perf__hash_key secret;
};

struct perf_pool_request {
    struct perf__waiter waiter;
    const char *who;
    int64_t deadline_ms; /* INT64_MAX: none */
    int64_t begun_ns;
    perf_pool_ready_fn ready;
    void *ctx;
    int status;                    /* PERF_MISS until there is an answer */
    bool taken, released, calling; /* calling: the keeper is in ready */
    perf_pool_request *next;
};

/* What a thread remembers: of the pool with this id it last had this slot. The slot's memory
 * lives as long as that pool, so the id is looked at first. */
struct perf__pool_hint {
    uint64_t pool_id;
    struct perf__slot *slot;
};

static inline struct perf__slot *perf__pool_slot(const perf_pool *pool, uint32_t i)
{
    struct perf__slot *chunk =
        atomic_load_explicit(&pool->chunks[i / POOL_CHUNK], memory_order_acquire);
    return &chunk[i % POOL_CHUNK];
}

/* The word of a slot: two bits of state, and the count of uses. One store for both. */
enum { SLOT_STATE = 3, SLOT_USE = 4 };

static inline uint32_t perf__slot_state(const struct perf__slot *slot)
{
    return (uint32_t)atomic_load_explicit(&slot->word, memory_order_acquire) & SLOT_STATE;
}

static inline uint64_t perf__slot_uses(const struct perf__slot *slot)
{
    return atomic_load_explicit(&slot->word, memory_order_relaxed) / SLOT_USE;
}

static inline uint64_t perf__slot_word(uint64_t word, uint32_t state)
{
    return ((word & ~(uint64_t)SLOT_STATE) | state) + (state == SLOT_BORROWED ? SLOT_USE : 0);
}

/* By the owner of a slot that is not idle. */
static inline void perf__slot_set(struct perf__slot *slot, uint32_t state)
{
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    atomic_store_explicit(&slot->word, perf__slot_word(word, state), memory_order_release);
}

static inline bool perf__slot_claim(struct perf__slot *slot, uint32_t as)
{
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    return (word & SLOT_STATE) == SLOT_IDLE &&
           atomic_compare_exchange_strong_explicit(&slot->word, &word, perf__slot_word(word, as),
                                                   memory_order_acquire, memory_order_relaxed);
}

/* pool_lend.c */
struct perf__slot *perf__pool_claim(perf_pool *pool, uint32_t as);
void perf__pool_stamp(struct perf__slot *slot, const char *who, int64_t now_ms);
bool perf__pool_is_fresh(struct perf__slot *slot, int64_t now_ms);
/* May the connection of a slot that the caller owns be lent? WHY_NOT: yes. Does not wait. */
int perf__pool_look(struct perf__slot *slot, int64_t now_ms);
/* The same, and never unsure: calls validate for up to budget_ms when that is due, or `always`.
 * Without the mutex. */
int perf__pool_check(struct perf__slot *slot, int64_t now_ms, int64_t budget_ms, bool always);
/* Makes an owned slot idle and serves who waits; without the mutex. */
void perf__pool_give_back(struct perf__slot *slot);
/* What this thread borrowed last. */
void perf__pool_remember(struct perf__slot *slot);

/* pool_queue.c; all with the mutex held */
void perf__pool_gate(perf_pool *pool, uint32_t flag, bool closed);
void perf__pool_serve(perf_pool *pool);
void perf__pool_enqueue(perf_pool *pool, struct perf__waiter *waiter, bool first);
void perf__pool_dequeue(struct perf__waiter *waiter);
int perf__pool_wait(perf_pool *pool, const char *who, int64_t timeout_ms, void **conn);
void perf__pool_record_wait(perf_pool *pool, int64_t since_ns);
int perf__pool_no_answer(perf_pool *pool, int64_t waited_ms);

/* pool_work.c; with the mutex held unless it says otherwise */
/* Begins as many opens as are wanted and allowed; without threads, tells who waits first. */
void perf__pool_want(perf_pool *pool, int64_t now_ms);
/* Reserves an empty slot as busy, or NULL at the limits. */
struct perf__slot *perf__pool_reserve(perf_pool *pool, int64_t now_ms);
/* Opens into a reserved slot; called without the mutex, returns without it. The slot becomes
 * `as`, or empty on failure. */
int perf__pool_open_slot(struct perf__slot *slot, int64_t timeout_ms, uint32_t as);
/* Ends the connection of a slot that the caller owns. */
void perf__pool_retire(struct perf__slot *slot, int why);
/* Makes an owned slot empty: its connection is gone. */
void perf__pool_vacate(struct perf__slot *slot);
/* Has an owned slot validated by a worker; false, and nothing is changed, when none can be had. */
bool perf__pool_check_later(struct perf__slot *slot);
int perf__pool_start_keeper(perf_pool *root);
void perf__pool_wake_keeper(perf_pool *root);
void perf__pool_stop_threads(perf_pool *root);
/* Closes what was retired; takes and gives the mutex. */
void perf__pool_bury(perf_pool *root);
void perf__pool_unwatch(struct perf__slot *slot);
bool perf__slot_peer_closed(const struct perf__slot *slot, bool *readable);

/* pool_upkeep.c; takes the mutex. Returns when it wants to be called again, ms from now. */
int64_t perf__pool_upkeep(perf_pool *root);
uint32_t perf__pool_count(const perf_pool *pool, uint32_t state);
/* How many idle connections to keep ready at least; with the mutex. */
uint32_t perf__pool_keep(const perf_pool *pool);
/* Goes through a root and its children: NULL behind the last. */
static inline perf_pool *perf__pool_next(perf_pool *root, perf_pool *pool)
{
    return pool == root ? root->child_list : pool->next_child;
}

/* pool_request.c; with the mutex held */
void perf__pool_answer(perf_pool_request *request, int status);
void perf__pool_expire_requests(perf_pool *pool, int64_t now_ms, int64_t *next_ms);
/* Calls the callbacks that are due; without the mutex. */
void perf__pool_call_back(perf_pool *root);

/* pool_keys.c; with the mutex held */
perf_pool *perf__pool_child(perf_pool *root, const char *key, int *rc);

/* pool.c */
int perf__pool_init(perf_pool *pool, const perf_pool_options *options,
                    const struct perf__host *host, perf_pool *root);
/* Zeroed and on a line of its own. */
perf_pool *perf__pool_allocate(const perf_allocator *allocator);
/* Frees the pool itself, too. */
void perf__pool_destroy(perf_pool *pool);

#endif
