/* SPDX-License-Identifier: MIT */
/*
 * redis_router.c - journeys of ops from node to node; see redis_router.h for the threads.
 *
 * An op that is waited for begins without a journey: it goes to its node's link as it is, and only
 * when the answer is not the last one is a journey made for it.
 */
#include "redis_router.h"

#include <stdio.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"

/* The pause after the n-th attempt: doubling, with jitter. */
enum { PAUSE_MIN_MS = 4, PAUSE_MAX_MS = 200, LEAVING_MS = 5 };

struct perf__redis_journey {
    struct perf__redis_op op; /* the attempt under way */
    struct perf__redis_router *router;
    struct perf__redis_trip *trip;
    struct perf__redis_search search;
    struct perf__redis_node *node; /* held while the attempt is under way */
    perf_redis_reply **replies;    /* of ASKING, then of the commands */
    char *bytes;                   /* ASKING, then the commands; NULL: not made yet */
    TAILQ_ENTRY(perf__redis_journey) entry;
    int64_t due_ns;
    uint64_t version; /* of the map when it began to pause */
    struct perf__redis_ending ending;
};

static const perf_allocator *memory(const struct perf__redis_router *router)
{
    return &router->redis->host.allocator;
}

/* ------------------------------------------------------------------------- nodes */

bool perf__redis_node_hold(struct perf__redis_node *node)
{
    if (!(atomic_fetch_add(&node->holds, 1) & PERF__REDIS_NODE_CLOSED))
        return true;
    atomic_fetch_sub(&node->holds, 1);
    return false;
}

void perf__redis_node_let_go(struct perf__redis_node *node)
{
    atomic_fetch_sub(&node->holds, 1);
}

int perf__redis_node_link(struct perf__redis_node *node, struct perf__redis_link **out)
{
    int rc = PERF_OK;
    struct perf__redis_link *link = atomic_load_explicit(&node->link, memory_order_acquire);
    if (!link) {
        pthread_mutex_lock(&node->router->mutex);
        link = atomic_load(&node->link);
        if (!link)
            rc = atomic_load(&node->router->closing)
                     ? perf__fail(PERF_ECLOSED, "the client is closing")
                     : node->router->way->connect(node, &link);
        if (!rc)
            atomic_store_explicit(&node->link, link, memory_order_release);
        pthread_mutex_unlock(&node->router->mutex);
    }
    if (!rc)
        *out = link;
    return rc;
}

int perf__redis_router_greet(struct perf__redis_router *router, const char *words, size_t n,
                             char **bytes, size_t *len, uint32_t *expected)
{
    char *both = perf__alloc(memory(router), n + *len);
    if (both) {
        memcpy(both, words, n);
        if (*len)
            memcpy(both + n, *bytes, *len);
    }
    perf__free(memory(router), *bytes);
    *bytes = both;
    *len = both ? n + *len : 0;
    *expected = both ? 1 + *expected : 0;
    return both ? PERF_OK : perf__fail_nomem("a greeting");
}

/* ---------------------------------------------------------------------- searches */

struct perf__redis_search perf__redis_search_begin(size_t argc, const perf_bytes *argv)
{
    struct perf__redis_place place = perf__redis_place_of(argv, argc);
    return (struct perf__redis_search){.slot = place.slot, .reads = place.reads};
}

void perf__redis_search_end(struct perf__redis_search *search)
{
    if (search->target)
        perf__redis_node_let_go(search->target);
    search->target = NULL;
}

static int64_t pause_ns(struct perf__redis_search *search)
{
    int64_t ms = search->pauses < 6 ? PAUSE_MIN_MS << search->pauses : PAUSE_MAX_MS;
    if (ms > PAUSE_MAX_MS)
        ms = PAUSE_MAX_MS;
    search->pauses++;
    return ms * 500000 + (int64_t)(perf__thread_random() % (uint64_t)(ms * 500000));
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool perf__redis_router_pause(struct perf__redis_router *router, struct perf__redis_search *search,
                              int64_t deadline_ns)
{
    int64_t until = perf__redis_now() + pause_ns(search);
    if (until >= deadline_ns)
        return false;
    atomic_fetch_add(&router->retried, 1);
    pthread_mutex_lock(&router->mutex);
    uint64_t version = atomic_load(&router->version);
    while (!atomic_load(&router->closing) && version == atomic_load(&router->version) &&
           perf__cond_wait(&router->changed, &router->mutex, until))
        ;
    pthread_mutex_unlock(&router->mutex);
    return !atomic_load(&router->closing);
}

/* ---------------------------------------------------------------------- journeys */

/* While closing, by the mutex: whoever destroys it waits for that. Before, the count is the last
 * that is touched. */
void perf__redis_router_leave(struct perf__redis_router *router)
{
    if (!atomic_load(&router->closing)) {
        atomic_fetch_sub(&router->inside, 1);
        return;
    }
    pthread_mutex_lock(&router->mutex);
    atomic_fetch_sub(&router->inside, 1);
    pthread_cond_broadcast(&router->changed);
    pthread_mutex_unlock(&router->mutex);
}

static struct perf__redis_journey *make_journey(struct perf__redis_router *router,
                                                struct perf__redis_trip *trip,
                                                const struct perf__redis_search *search)
{
    size_t slots = (size_t)trip->op.expected + 1;
    struct perf__redis_journey *j = perf__calloc(memory(router), 1,
                                                 sizeof *j + slots * sizeof(perf_redis_reply *) +
                                                     PERF__REDIS_ASKING_LEN + trip->op.len);
    if (!j)
        return NULL;
    j->router = router;
    j->trip = trip;
    j->search = *search;
    j->replies = (perf_redis_reply **)(j + 1);
    j->bytes = (char *)(j->replies + slots);
    memcpy(j->bytes, PERF__REDIS_ASKING, PERF__REDIS_ASKING_LEN);
    memcpy(j->bytes + PERF__REDIS_ASKING_LEN, trip->op.bytes, trip->op.len);
    return j;
}

static void drop_replies(struct perf__redis_journey *j)
{
    for (size_t i = 0; i <= j->trip->op.expected; i++) {
        perf_redis_reply_release(j->replies[i]);
        j->replies[i] = NULL;
    }
}

static void keep_sentence(struct perf__redis_op *op, int status)
{
    op->status = status;
    snprintf(op->error, sizeof op->error, "%s", perf_last_error());
}

static enum perf__redis_verdict judge(struct perf__redis_journey *j)
{
    struct perf__redis_router *router = j->router;
    return router->way->judge(router, &j->search, j->node, j->op.status, j->trip->op.expected,
                              j->replies + 1);
}

/*
 * Begins an attempt. True: it is under way, and j may be gone already if nobody waits for it.
 * False: it is not, and *verdict says what to do.
 */
static bool attempt(struct perf__redis_journey *j, void (*done)(struct perf__redis_op *op),
                    enum perf__redis_verdict *verdict)
{
    struct perf__redis_router *router = j->router;
    struct perf__redis_link *link = NULL;
    int rc = router->way->pick(router, &j->search, &j->node);
    bool asking = j->search.asking;
    size_t skip = asking ? 0 : PERF__REDIS_ASKING_LEN;

    drop_replies(j);
    memset(&j->op, 0, sizeof j->op);
    if (rc) {
        keep_sentence(&j->op, rc == PERF_MISS ? PERF_EUNAVAILABLE : rc);
        *verdict = rc == PERF_MISS ? PERF__REDIS_LATER : PERF__REDIS_SETTLED;
        return false;
    }
    j->op.bytes = j->bytes + skip;
    j->op.len = PERF__REDIS_ASKING_LEN - skip + j->trip->op.len;
    j->op.expected = j->trip->op.expected + asking;
    j->op.replies = j->replies + !asking;
    j->op.deadline_ns = j->trip->op.deadline_ns;
    j->op.anywhere = j->trip->op.anywhere;
    j->op.done = done;
    j->op.ctx = j;
    j->search.asking = false;
    rc = perf__redis_node_link(j->node, &link);
    if (!rc) {
        j->trip->link = link;
        rc = perf__redis_submit(link, &j->op);
    }
    if (!rc)
        return true;
    keep_sentence(&j->op, rc);
    *verdict = judge(j);
    perf__redis_node_let_go(j->node);
    return false;
}

/* Moves the results to where they are wanted. */
static void hand_out(struct perf__redis_journey *j)
{
    struct perf__redis_op *to = &j->trip->op;
    to->status = j->op.status;
    memcpy(to->error, j->op.error, sizeof to->error);
    for (size_t i = 0; i < to->expected; i++) {
        perf_redis_reply *reply = j->replies[1 + i];
        int error = perf_redis_reply_status(reply);
        if (!to->replies && error && !to->status) {
            to->status = error;
            snprintf(to->error, sizeof to->error, "%s", perf_redis_reply_data(reply));
        } else if (to->replies && reply) {
            perf_redis_reply_release(to->replies[i]);
            to->replies[i] = reply;
            j->replies[1 + i] = NULL;
        }
    }
    drop_replies(j);
    perf__redis_search_end(&j->search);
}

static void tell(void *ctx)
{
    struct perf__redis_ending *ending = ctx;
    struct perf__redis_router *router = ending->router;
    struct perf__redis_trip *trip = ending->trip;
    perf__free(memory(router), ending->block);
    trip->op.done(&trip->op);
    perf__redis_router_leave(router);
}

void perf__redis_router_tell(struct perf__redis_router *router, struct perf__redis_trip *trip,
                             struct perf__redis_ending *ending, void *block)
{
    *ending = (struct perf__redis_ending){.trip = trip, .router = router, .block = block};
    ending->task.fn = tell;
    ending->task.ctx = ending;
    if (trip->op.anywhere || perf__redis_loop_is_here(router->redis->loop) ||
        perf__redis_loop_post(router->redis->loop, &ending->task) != PERF_OK)
        tell(ending);
}

static void end_journey(struct perf__redis_journey *j)
{
    hand_out(j);
    perf__redis_router_tell(j->router, j->trip, &j->ending, j);
}

/* The client closes: whatever it was told before. */
static void give_up(struct perf__redis_journey *j)
{
    drop_replies(j);
    keep_sentence(&j->op, perf__fail(PERF_ECLOSED, "the client is closing"));
}

static void park(struct perf__redis_journey *j)
{
    struct perf__redis_router *router = j->router;
    int64_t until = perf__redis_now() + pause_ns(&j->search);
    bool parked = false;
    if (until < j->trip->op.deadline_ns) {
        atomic_fetch_add(&router->retried, 1);
        pthread_mutex_lock(&router->mutex);
        if (!atomic_load(&router->closing) && perf__redis_router_wake(router) == PERF_OK) {
            j->due_ns = until;
            j->version = atomic_load(&router->version);
            TAILQ_INSERT_TAIL(&router->paused, j, entry);
            pthread_cond_broadcast(&router->changed);
            parked = true;
        }
        pthread_mutex_unlock(&router->mutex);
    }
    if (parked)
        return;
    if (atomic_load(&router->closing))
        give_up(j);
    end_journey(j);
}

static void attempt_over(struct perf__redis_op *op);

static void go_on(struct perf__redis_journey *j, enum perf__redis_verdict verdict)
{
    while (verdict == PERF__REDIS_ELSEWHERE)
        if (attempt(j, attempt_over, &verdict))
            return;
    if (verdict == PERF__REDIS_LATER)
        park(j);
    else
        end_journey(j);
}

static void attempt_over(struct perf__redis_op *op)
{
    struct perf__redis_journey *j = op->ctx;
    enum perf__redis_verdict verdict = judge(j);
    perf__redis_node_let_go(j->node);
    go_on(j, verdict);
}

/* ------------------------------------------------------------------ start and wait */

/* Nobody waits: a journey from the beginning. */
static int start_journey(struct perf__redis_router *router, struct perf__redis_trip *trip,
                         const struct perf__redis_search *search)
{
    enum perf__redis_verdict verdict;
    uint64_t most = router->redis->options.max_pending;
    if ((uint64_t)atomic_load(&router->inside) > most) /* those that pause are in no link */
        return perf__fail(PERF_EBUSY,
                          "%llu commands are under way, as many as "
                          "perf_redis_options.max_pending allows",
                          (unsigned long long)most);
    struct perf__redis_journey *j = make_journey(router, trip, search);
    if (!j)
        return perf__fail_nomem("a command");
    atomic_fetch_add(&router->inside, 1);
    do {
        if (attempt(j, attempt_over, &verdict))
            return PERF_OK;
    } while (verdict == PERF__REDIS_ELSEWHERE);
    if (verdict == PERF__REDIS_LATER) {
        park(j);
        return PERF_OK;
    }
    int rc = perf__fail(j->op.status, "%s", j->op.error);
    perf__redis_search_end(&j->search);
    drop_replies(j);
    perf__free(memory(router), j);
    perf__redis_router_leave(router);
    return rc;
}

/* Somebody will wait: as it is, if all goes well. */
static void start_direct(struct perf__redis_router *router, struct perf__redis_trip *trip,
                         struct perf__redis_search *search)
{
    struct perf__redis_node *node;
    if (router->way->pick(router, search, &node) != PERF_OK)
        return;
    if (perf__redis_node_link(node, &trip->link) == PERF_OK &&
        perf__redis_submit(trip->link, &trip->op) == PERF_OK) {
        trip->node = node;
        return;
    }
    trip->link = NULL;
    perf__redis_node_let_go(node);
}

static int begin(struct perf__redis_router *router, struct perf__redis_trip *trip)
{
    struct perf__redis_place place = perf__redis_place_of(trip->argv, trip->argc);
    struct perf__redis_search search = {.slot = place.slot, .reads = place.reads};
    trip->link = NULL;
    trip->node = NULL;
    trip->split = false;
    if (atomic_load(&router->closing))
        return perf__fail(PERF_ECLOSED, "the client is closing");
    if (trip->op.expected > 1)
        search.reads = false; /* a transaction: the others may change something */
    if (place.spans && router->way->splits && trip->op.expected == 1)
        return place.split ? perf__redis_router_start_split(router, trip)
                           : perf__redis_fail_spans(trip->argv);
    if (trip->op.done)
        return start_journey(router, trip, &search);
    if (trip->op.replies) /* else nobody would see that it has to be sent again */
        start_direct(router, trip, &search);
    return PERF_OK;
}

int perf__redis_router_start(perf_redis *redis, struct perf__redis_trip *trip)
{
    struct perf__redis_router *router = redis->route_data;
    bool waits = !trip->op.done; /* one that does not may be over, and freed, when begin returns */
    atomic_fetch_add(&router->inside, 1);
    int rc = begin(router, trip);
    if (rc || !waits) /* else the call is inside until it has waited */
        perf__redis_router_leave(router);
    return rc;
}

/* The rest of its way, on this thread. */
static void finish_waiting(struct perf__redis_router *router, struct perf__redis_trip *trip,
                           const struct perf__redis_search *search,
                           enum perf__redis_verdict verdict)
{
    struct perf__redis_journey *j = make_journey(router, trip, search);
    if (!j) {
        keep_sentence(&trip->op, perf__fail_nomem("a command"));
        return;
    }
    j->op.status = trip->op.status;
    memcpy(j->op.error, trip->op.error, sizeof j->op.error);
    for (size_t i = 0; i < trip->op.expected && trip->op.replies; i++) {
        j->replies[1 + i] = trip->op.replies[i];
        trip->op.replies[i] = NULL;
    }
    while (verdict != PERF__REDIS_SETTLED) {
        if (verdict == PERF__REDIS_LATER &&
            !perf__redis_router_pause(router, &j->search, trip->op.deadline_ns))
            break;
        if (attempt(j, NULL, &verdict)) {
            perf__redis_wait(trip->link, &j->op);
            verdict = judge(j);
            perf__redis_node_let_go(j->node);
        }
    }
    if (atomic_load(&router->closing) && verdict != PERF__REDIS_SETTLED)
        give_up(j);
    hand_out(j);
    perf__free(memory(router), j);
}

static void wait_for_parts(perf_redis *redis, struct perf__redis_trip *trip)
{
    struct perf__redis_op *to = &trip->op;
    perf_redis_command command = {trip->argc, trip->argv};
    perf_redis_reply *reply = NULL;
    int rc = perf__redis_router_many(redis, 1, &command, to->deadline_ns, &reply);
    if (!rc && to->replies) {
        perf_redis_reply_release(to->replies[0]);
        to->replies[0] = reply;
        reply = NULL;
    }
    if (!rc && (rc = perf_redis_reply_status(reply)))
        perf__fail(rc, "%s", perf_redis_reply_data(reply));
    if (rc)
        keep_sentence(to, rc);
    perf_redis_reply_release(reply);
}

/* What nearly every call ends with. */
static bool is_plain(const struct perf__redis_op *op)
{
    return op->status == PERF_OK && op->expected == 1 &&
           perf_redis_reply_type(op->replies[0]) != PERF_REDIS_ERROR;
}

static void wait_for_one(struct perf__redis_router *router, struct perf__redis_trip *trip)
{
    enum perf__redis_verdict verdict = PERF__REDIS_ELSEWHERE; /* it was not sent yet */
    struct perf__redis_search search;
    if (trip->node) {
        perf__redis_wait(trip->link, &trip->op);
        if (is_plain(&trip->op)) {
            perf__redis_node_let_go(trip->node);
            return;
        }
    }
    search = perf__redis_search_begin(trip->argc, trip->argv);
    if (trip->op.expected > 1)
        search.reads = false;
    if (trip->node) {
        verdict = router->way->judge(router, &search, trip->node, trip->op.status,
                                     trip->op.expected, trip->op.replies);
        perf__redis_node_let_go(trip->node);
    }
    if (verdict != PERF__REDIS_SETTLED)
        finish_waiting(router, trip, &search, verdict);
    else
        perf__redis_search_end(&search);
}

void perf__redis_router_wait(perf_redis *redis, struct perf__redis_trip *trip)
{
    struct perf__redis_router *router = redis->route_data;
    if (trip->split)
        wait_for_parts(redis, trip);
    else
        wait_for_one(router, trip);
    perf__redis_router_leave(router);
}

/* -------------------------------------------------------------------- the thread */

/* Those whose pause is over; their next attempts are begun without the mutex. */
static void take_due(struct perf__redis_router *router, int64_t now,
                     struct perf__redis_journeys *due, int64_t *next)
{
    struct perf__redis_journey *j, *following;
    for (j = TAILQ_FIRST(&router->paused); j; j = following) {
        following = TAILQ_NEXT(j, entry);
        if (j->due_ns <= now || j->version != atomic_load(&router->version) ||
            atomic_load(&router->closing)) {
            TAILQ_REMOVE(&router->paused, j, entry);
            TAILQ_INSERT_TAIL(due, j, entry);
        } else {
            *next = earlier(*next, j->due_ns);
        }
    }
}

static void resume(struct perf__redis_journeys *due)
{
    for (struct perf__redis_journey *j; (j = TAILQ_FIRST(due));) {
        TAILQ_REMOVE(due, j, entry);
        if (!atomic_load(&j->router->closing)) {
            go_on(j, PERF__REDIS_ELSEWHERE);
        } else {
            give_up(j);
            end_journey(j);
        }
    }
}

static void *run(void *ctx)
{
    struct perf__redis_router *router = ctx;
    struct perf__redis_journeys due = TAILQ_HEAD_INITIALIZER(due);
    pthread_mutex_lock(&router->mutex);
    while (!atomic_load(&router->closing)) {
        int64_t now = perf__redis_now(), next = router->way->errands(router, now);
        take_due(router, now, &due, &next);
        if (!TAILQ_EMPTY(&due)) {
            pthread_mutex_unlock(&router->mutex);
            resume(&due);
            pthread_mutex_lock(&router->mutex);
        } else if (!atomic_load(&router->closing)) {
            perf__cond_wait(&router->changed, &router->mutex, next == INT64_MAX ? 0 : next);
        }
    }
    pthread_mutex_unlock(&router->mutex);
    return NULL;
}

int perf__redis_router_wake(struct perf__redis_router *router)
{
    if (!router->has_thread && !atomic_load(&router->closing)) {
        if (perf__thread_start(&router->thread, "perf-redis-map", run, router) != 0)
            return perf__fail(PERF_EIO, "no thread could be started for the map of Redis' nodes");
        router->has_thread = true;
    }
    return PERF_OK;
}

void perf__redis_router_changed(struct perf__redis_router *router)
{
    atomic_fetch_add(&router->version, 1);
    pthread_cond_broadcast(&router->changed);
}

int perf__redis_router_init(struct perf__redis_router *router, perf_redis *redis,
                            const struct perf__redis_way *way)
{
    router->redis = redis;
    router->way = way;
    TAILQ_INIT(&router->paused);
    if (perf__cond_init(&router->changed) != PERF_OK)
        return perf__fail_nomem("a Redis client");
    pthread_mutex_init(&router->mutex, NULL);
    return PERF_OK;
}

void perf__redis_router_stop(struct perf__redis_router *router)
{
    struct perf__redis_journeys rest = TAILQ_HEAD_INITIALIZER(rest);
    pthread_mutex_lock(&router->mutex);
    atomic_store(&router->closing, true);
    pthread_cond_broadcast(&router->changed);
    pthread_mutex_unlock(&router->mutex);
    if (router->has_thread)
        pthread_join(router->thread, NULL);
    pthread_mutex_lock(&router->mutex);
    TAILQ_CONCAT(&rest, &router->paused, entry);
    pthread_mutex_unlock(&router->mutex);
    resume(&rest);
}

void perf__redis_router_destroy(struct perf__redis_router *router)
{
    pthread_mutex_lock(&router->mutex);
    while (atomic_load(&router->inside)) /* one that left just before closing does not signal */
        perf__cond_wait(&router->changed, &router->mutex, perf__deadline_after(LEAVING_MS));
    pthread_mutex_unlock(&router->mutex);
    pthread_cond_destroy(&router->changed);
    pthread_mutex_destroy(&router->mutex);
}
