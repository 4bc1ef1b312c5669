/* SPDX-License-Identifier: MIT */
/*
 * redis_wait.c - waiting for an op, and reading for the others meanwhile.
 *
 * Any thread but the I/O thread. Whoever finds nobody reading does so; the others give turns or
 * sleep. While ops are waited for, somebody reads, or is awake and looks for a reader before it
 * sleeps.
 */
#include "redis_link_impl.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <libperf/resilience.h>

enum {
    LOOK_FOR_WAITER = 64, /* slots */
    TURNS = 16,           /* that who waits gives to others before it sleeps */
};
static const int64_t SLOW_TURN_NS = 1000000, REST_NS = 10000000;

int64_t perf__redis_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t perf__redis_deadline(int64_t timeout_ms)
{
    int64_t left = perf_deadline_remaining_ms(), now = perf__redis_now();
    int64_t ms = left >= 0 && left < timeout_ms ? left : timeout_ms;
    return ms > (INT64_MAX - now) / 1000000 ? INT64_MAX : now + ms * 1000000;
}

int64_t perf__redis_precise_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Sleeps while *word is seen, until the deadline. False: it passed. */
static bool futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
    struct timespec t = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen,
                      deadline_ns == INT64_MAX ? NULL : &t, NULL, FUTEX_BITSET_MATCH_ANY);
    return rc == 0 || errno != ETIMEDOUT;
}

void perf__redis_wake(struct perf__redis_link *link, int number, int count)
{
    struct perf__redis_wave *wave = &link->waves[number];
    atomic_fetch_add(&wave->word, 1);
    if (atomic_load(&wave->sleepers))
        syscall(SYS_futex, &wave->word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* Gives up reading: to somebody who waits, or to the I/O thread. */
static void leave_reader(struct perf__redis_link *link)
{
    int heir = -1;
    bool attend = false;
    pthread_mutex_lock(&link->mutex);
    if (link->state != PERF__REDIS_IS_UP) {
        atomic_store(&link->reader, PERF__REDIS_NOBODY_MAY);
        attend = true;
    } else {
        atomic_store(&link->reader, PERF__REDIS_FREE);
        uint64_t last = link->head + LOOK_FOR_WAITER;
        last = last < link->tail ? last : link->tail;
        for (uint64_t i = link->head; i < last && heir < 0; i++) {
            struct perf__redis_op *op = link->ring[i & link->mask].op;
            if (op && !op->done)
                heir = (int)op->wave;
        }
        if (heir < 0 && link->head != link->tail)
            attend = link->read_wanted = true;
    }
    pthread_mutex_unlock(&link->mutex);
    if (heir >= 0)
        perf__redis_wake(link, heir, 1);
    if (attend)
        perf__redis_attend(link);
}

static bool is_over(struct perf__redis_op *op)
{
    return atomic_load_explicit(&op->over, memory_order_acquire);
}

/*
 * In a crowd that waits for a server nearby, who waits gives others their turn before it sleeps:
 * they fill the next batch or read meanwhile, and when it is its turn again, the reply is often
 * there. Switching to another thread costs about half of what being put to sleep and woken does. A
 * turn that took long was a stranger's, who keeps it for a whole slice: then nobody gives turns for
 * a while.
 */
static bool may_give_turn(struct perf__redis_link *link, const struct perf__redis_op *op, int given)
{
    return op->crowd && given < TURNS &&
           perf__redis_now() >= atomic_load_explicit(&link->turns_from_ns, memory_order_relaxed);
}

static void give_turn(struct perf__redis_link *link)
{
    int64_t begun = perf__redis_precise_now();
    sched_yield();
    int64_t now = perf__redis_precise_now();
    if (now - begun > SLOW_TURN_NS)
        atomic_store_explicit(&link->turns_from_ns, now + REST_NS, memory_order_relaxed);
}

/* Reads what there is and leaves the role; true: op is not over, and may give others their turn. */
static bool read_in_turn(struct perf__redis_link *link, struct perf__redis_op *op)
{
    perf__redis_read_once(link);
    if (is_over(op)) {
        leave_reader(link);
        return false;
    }
    /* Who sleeps need not be told: we come back before we sleep, too. */
    pthread_mutex_lock(&link->mutex);
    bool up = link->state == PERF__REDIS_IS_UP;
    atomic_store(&link->reader, up ? PERF__REDIS_FREE : PERF__REDIS_NOBODY_MAY);
    pthread_mutex_unlock(&link->mutex);
    if (!up)
        perf__redis_attend(link);
    return true;
}

/* Reads for all until op is over, its deadline passes, or the connection breaks. */
static void read_until(struct perf__redis_link *link, struct perf__redis_op *op)
{
    struct pollfd poll_fd = {link->fd, POLLIN, 0};
    while (!is_over(op)) {
        int timeout = -1;
        if (op->deadline_ns != INT64_MAX) {
            int64_t left = op->deadline_ns - perf__redis_now();
            if (left <= 0)
                return;
            timeout = left > (int64_t)INT_MAX * 1000000 ? INT_MAX : (int)(left / 1000000 + 1);
        }
        if (poll(&poll_fd, 1, timeout) > 0 && !perf__redis_read_once(link)) {
            pthread_mutex_lock(&link->mutex);
            bool broken = link->state != PERF__REDIS_IS_UP;
            pthread_mutex_unlock(&link->mutex);
            if (broken)
                return;
        }
    }
}

/* The deadline has passed: takes the op back, unless it is over. */
static void give_up(struct perf__redis_link *link, struct perf__redis_op *op)
{
    pthread_mutex_lock(&link->mutex);
    if (!atomic_load(&op->over)) {
        struct perf__redis_slot *slot = &link->ring[op->ticket & link->mask];
        op->status = perf__redis_late_status(link, slot, op, op->error, sizeof op->error);
        link->stats.timeouts += op->status == PERF_ETIMEDOUT;
        slot->op = NULL;
        atomic_store(&op->over, 1);
    }
    pthread_mutex_unlock(&link->mutex);
}

void perf__redis_wait(struct perf__redis_link *link, struct perf__redis_op *op)
{
    struct perf__redis_wave *wave = &link->waves[op->wave];
    int given = 0; /* turns */
    while (!is_over(op)) {
        uint32_t seen = atomic_load(&wave->word);
        int role = PERF__REDIS_FREE;
        bool turn = may_give_turn(link, op, given);
        if (is_over(op))
            break;
        if (atomic_load_explicit(&link->reader, memory_order_relaxed) == PERF__REDIS_FREE &&
            atomic_compare_exchange_strong(&link->reader, &role, PERF__REDIS_CALLER)) {
            if (turn) {
                turn = read_in_turn(link, op);
            } else {
                read_until(link, op);
                leave_reader(link);
                if (perf__redis_now() >= op->deadline_ns)
                    give_up(link, op);
            }
            if (!turn)
                continue;
        }
        if (turn) {
            give_turn(link);
            given++;
            continue;
        }
        atomic_fetch_add(&wave->sleepers, 1);
        bool late = !futex_wait(&wave->word, seen, op->deadline_ns);
        atomic_fetch_sub(&wave->sleepers, 1);
        if (late)
            give_up(link, op);
    }
    atomic_fetch_sub(&link->inside, 1); /* the link may be gone from here on */
}
