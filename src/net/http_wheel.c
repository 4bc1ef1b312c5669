/* SPDX-License-Identifier: MIT */
/*
 * http_wheel.c - who drives the multi handle, and how calls begin and end.
 *
 * The I/O thread drives while requests are under way that nobody waits for, or
 * that have callbacks. A thread in a blocking call takes the wheel itself when
 * it is free: its request then costs no wake-up of another thread, and those
 * are half of what a small request costs. It serves all other requests until
 * its own is over, then hands the wheel to another thread that waits, or to the
 * I/O thread (the leader/followers pattern; Schmidt et al., "Leader/Followers",
 * PLoP 2000). Callbacks therefore run on the I/O thread, or on the thread whose
 * own blocking call they belong to, and never on a stranger's.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../base/status.h"
#include "../base/sync.h"
#include "../base/thread.h"
#include "http.h"

enum { SWEEPS_PER_TIMEOUT = 8, SWEEP_MAX_MS = 5000, SWEEP_MIN_MS = 100 };

static bool has_callbacks(const perf_http_call *call)
{
    return call->done || call->read || call->write;
}

/* May a thread that waits for this call drive? Not if it ran the callbacks of others. */
static bool may_drive(const perf_http *http, const perf_http_call *call)
{
    return http->callbacks == (call->read || call->write) && !(call->done);
}

static struct perf__http_waiter *eligible_waiter(const perf_http *http)
{
    struct perf__http_waiter *waiter;
    TAILQ_FOREACH(waiter, &http->waiters, link)
    if (waiter->call->stage != PERF__HTTP_OVER && may_drive(http, waiter->call))
        return waiter;
    return NULL;
}

/* ------------------------------------------------------------------ sleeping */

static void futex_wake(_Atomic uint32_t *state)
{
    syscall(SYS_futex, state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The sleeper may have seen the new state and be gone before the second line: then somebody else
 * who sleeps at this address wakes, and looks at its state again. */
static void wake(_Atomic uint32_t *state, uint32_t news)
{
    atomic_store_explicit(state, news, memory_order_release);
    futex_wake(state);
}

/* Until the state is another, or until_ms of the monotonic clock. */
static void sleep_on(_Atomic uint32_t *state, int64_t until_ms)
{
    struct timespec until = {(time_t)(until_ms / 1000), (long)(until_ms % 1000) * 1000000};
    while (atomic_load_explicit(state, memory_order_acquire) == PERF__HTTP_ASLEEP)
        if (syscall(SYS_futex, state, FUTEX_WAIT_BITSET_PRIVATE, PERF__HTTP_ASLEEP,
                    until_ms == INT64_MAX ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY) &&
            errno == ETIMEDOUT)
            return;
}

static void unlink_waiter(perf_http *http, struct perf__http_waiter *waiter)
{
    struct perf__http_waiter **at = &waiter->call->asleep;
    while (*at != waiter)
        at = &(*at)->next;
    *at = waiter->next;
    TAILQ_REMOVE(&http->waiters, waiter, link);
    waiter->linked = false;
}

/* -------------------------------------------------------------------- the wheel */

static void take_wheel(perf_http *http, int driver)
{
    http->driver = driver;
    http->driver_thread = pthread_self();
}

/* Lets go, and sees to it that somebody drives while there is something to do. */
static void release_wheel(perf_http *http)
{
    http->driver = PERF__HTTP_NOBODY_DRIVES;
    if (TAILQ_EMPTY(&http->all)) {
        if (http->closing || (http->thread_rests && atomic_load(&http->open_sockets)))
            pthread_cond_signal(&http->thread_wakes);
        return;
    }
    struct perf__http_waiter *waiter = eligible_waiter(http);
    if (!waiter) {
        pthread_cond_signal(&http->thread_wakes);
        return;
    }
    http->driver = PERF__HTTP_HANDED_OVER;
    unlink_waiter(http, waiter);
    wake(&waiter->state, PERF__HTTP_AT_WHEEL);
}

/* News for whoever drives. */
static void wake_driver(perf_http *http)
{
    if (http->driver == PERF__HTTP_NOBODY_DRIVES) {
        pthread_cond_signal(&http->thread_wakes);
    } else if (http->sleeping) {
        http->sleeping = false;
        perf__http_loop_wake(http);
    }
}

/* ---------------------------------------------------------- ends of calls */

static void count_end(perf_http *http, const perf_http_call *call)
{
    perf_http_stats *s = &http->stats;
    s->in_flight--;
    *(call->status == PERF_OK ? &s->replies : &s->failures) += 1;
    s->connects += (uint64_t)call->connects;
    s->reused += call->sent_ms && !call->connects;
    s->bytes_sent += (uint64_t)call->bytes_out;
    s->bytes_received += (uint64_t)call->bytes_in;
}

static void count_out(perf_http *http)
{
    if (!--http->inside && http->closing)
        pthread_cond_signal(&http->left);
}

/* The call is in no handle any more: off all lists. Whoever sleeps for it is counted out and among
 * *sleepers, to be woken without the mutex. True: nobody knows the call any more. */
static bool settle(perf_http *http, perf_http_call *call, struct perf__http_waiter **sleepers)
{
    perf__http_depart(http, call);
    TAILQ_REMOVE(&http->all, call, all);
    count_end(http, call);
    http->callbacks -= has_callbacks(call);
    http->unattended -= !call->waiters;
    while (call->asleep) {
        struct perf__http_waiter *waiter = call->asleep;
        unlink_waiter(http, waiter);
        waiter->next = *sleepers;
        *sleepers = waiter;
        call->waiters--;
        count_out(http);
    }
    if (call->done)
        return false; /* it is told first */
    call->refs--;
    if (call->refs && !call->blocking) {
        TAILQ_INSERT_TAIL(&http->over, call, queue);
        call->listed = true;
        if (http->done_fd >= 0)
            (void)!write(http->done_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    return !call->refs;
}

/* The host's word for it, with no lock held. */
static void tell(perf_http_call *call)
{
    perf_http_reply *reply = call->reply;
    call->reply = NULL;
    if (call->status)
        perf__fail(call->status, "%s", call->error);
    call->done(call->done_ctx, call->status, reply);
}

static bool settle_finished(perf_http *http)
{
    perf_http_call *call = http->finished, *to_tell = NULL, *unowned = NULL;
    struct perf__http_waiter *sleepers = NULL;
    if (!call)
        return false;
    http->finished = NULL;
    while (call) {
        perf_http_call *next = call->next_finished;
        bool tells = call->done != NULL;
        if (settle(http, call, &sleepers) || tells) {
            perf_http_call **list = tells ? &to_tell : &unowned;
            call->next_finished = *list;
            *list = call;
        }
        call = next;
    }
    if (!to_tell && !unowned && !sleepers)
        return true;
    pthread_mutex_unlock(&http->mutex);
    while (sleepers) {
        struct perf__http_waiter *next = sleepers->next; /* gone when it is awake */
        wake(&sleepers->state, PERF__HTTP_CALL_OVER);
        sleepers = next;
    }
    for (call = to_tell; call; call = call->next_finished)
        tell(call);
    pthread_mutex_lock(&http->mutex);
    while ((call = to_tell)) {
        to_tell = call->next_finished;
        if (!--call->refs) {
            call->next_finished = unowned;
            unowned = call;
        }
    }
    while ((call = unowned)) {
        unowned = call->next_finished;
        atomic_fetch_sub(&http->refs, 1); /* not the last: the client's own is dropped by close */
        perf__http_call_free(call);
    }
    return true;
}

/* Its status is set: out of curl, or out of the queue when it is settled. */
static void end_call(perf_http *http, perf_http_call *call)
{
    if (call->stage == PERF__HTTP_RUNNING)
        perf__http_loop_stop(http, call);
    else
        perf__http_loop_finish(http, call);
}

/* Cancelled calls, or all when the client closes. */
static void attend(perf_http *http)
{
    perf_http_call *call;
    http->attention = false;
    TAILQ_FOREACH(call, &http->all, all)
    {
        if (call->ended || !(http->closing || call->cancel))
            continue;
        if (http->closing)
            perf__http_call_fail(call, PERF_ECLOSED, "the client was closed");
        else
            perf__http_call_fail(call, PERF_ECANCELED, "cancelled");
        end_call(http, call);
    }
}

static void check_deadlines(perf_http *http, int64_t now)
{
    perf_http_call *call;
    int64_t next = INT64_MAX;
    TAILQ_FOREACH(call, &http->all, all)
    {
        if (call->ended)
            continue;
        if (now >= call->check_ms && perf__http_late(http, call, now))
            end_call(http, call);
        else if (call->check_ms < next)
            next = call->check_ms;
    }
    http->next_check_ms = next;
}

/* ------------------------------------------------------------------ driving */

static bool may_leave(const perf_http *http, const perf_http_call *own, int64_t until, int64_t now)
{
    if (own)
        return own->stage == PERF__HTTP_OVER || now >= until || !may_drive(http, own);
    return TAILQ_EMPTY(&http->all) || (!http->unattended && eligible_waiter(http));
}

/* Starts what was let in. The mutex is held on entry and exit. */
static void start_admitted(perf_http *http)
{
    struct perf__http_calls batch = TAILQ_HEAD_INITIALIZER(batch);
    perf_http_call *call;
    TAILQ_CONCAT(&batch, &http->inbox, queue);
    TAILQ_FOREACH(call, &batch, queue)
    call->stage = PERF__HTTP_RUNNING;
    pthread_mutex_unlock(&http->mutex);
    while ((call = TAILQ_FIRST(&batch))) {
        TAILQ_REMOVE(&batch, call, queue);
        perf__http_loop_start(http, call);
    }
    perf__http_loop_turn(http);
    pthread_mutex_lock(&http->mutex);
}

/* Drives until own is over or until_ms has come; the I/O thread (own is NULL) while it is needed.
 * With the wheel taken; the mutex is held on entry and exit. */
static void drive(perf_http *http, const perf_http_call *own, int64_t until_ms)
{
    for (;;) {
        if (settle_finished(http))
            continue;
        int64_t now = perf__http_now_ms();
        if (may_leave(http, own, until_ms, now))
            return;
        if (http->attention)
            attend(http);
        if (now >= http->next_check_ms)
            check_deadlines(http, now);
        if (http->finished)
            continue;
        if (!TAILQ_EMPTY(&http->inbox)) {
            start_admitted(http);
            continue;
        }
        int64_t until = http->next_check_ms < until_ms ? http->next_check_ms : until_ms;
        http->sleeping = true;
        pthread_mutex_unlock(&http->mutex);
        perf__http_loop_turn(http);
        if (!http->finished)
            perf__http_loop_wait(http, until);
        pthread_mutex_lock(&http->mutex);
        http->sleeping = false;
    }
}

/* This libcurl may raise SIGPIPE on a TLS socket; on the I/O thread all signals are blocked. */
static void drive_without_sigpipe(perf_http *http, const perf_http_call *own, int64_t until_ms)
{
    sigset_t pipe, before;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    drive(http, own, until_ms);
    if (!sigismember(&before, SIGPIPE)) {
        sigtimedwait(&pipe, NULL, &(struct timespec){0, 0});
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}

/* A caller's turn at the wheel. */
static void drive_for(perf_http *http, const perf_http_call *own, int64_t until_ms)
{
    (http->mask_sigpipe ? drive_without_sigpipe : drive)(http, own, until_ms);
    release_wheel(http);
}

bool perf__http_is_driver(perf_http *http)
{
    return (http->driver == PERF__HTTP_THREAD_DRIVES || http->driver == PERF__HTTP_CALLER_DRIVES) &&
           pthread_equal(http->driver_thread, pthread_self());
}

/* Sleeps with the mutex released; true, and still released: the call is over. */
static bool sleep_for(perf_http *http, perf_http_call *call, int64_t until_ms)
{
    struct perf__http_waiter self = {.call = call, .next = call->asleep, .linked = true};
    atomic_init(&self.state, PERF__HTTP_ASLEEP);
    call->asleep = &self;
    TAILQ_INSERT_TAIL(&http->waiters, &self, link);
    if (http->driver == PERF__HTTP_NOBODY_DRIVES)
        pthread_cond_signal(&http->thread_wakes);
    pthread_mutex_unlock(&http->mutex);
    sleep_on(&self.state, until_ms);
    if (atomic_load_explicit(&self.state, memory_order_acquire) == PERF__HTTP_CALL_OVER)
        return true;
    pthread_mutex_lock(&http->mutex);
    if (atomic_load(&self.state) == PERF__HTTP_AT_WHEEL) {
        take_wheel(http, PERF__HTTP_CALLER_DRIVES);
        drive_for(http, call, until_ms);
        return false;
    }
    if (self.linked) {
        unlink_waiter(http, &self);
        return false;
    }
    /* Settled just when the time was up, and about to be woken: that comes here yet. */
    pthread_mutex_unlock(&http->mutex);
    sleep_on(&self.state, INT64_MAX);
    return true;
}

bool perf__http_wait(perf_http *http, perf_http_call *call, int64_t until_ms)
{
    while (call->stage != PERF__HTTP_OVER && perf__http_now_ms() < until_ms) {
        if (http->driver == PERF__HTTP_NOBODY_DRIVES && may_drive(http, call)) {
            take_wheel(http, PERF__HTTP_CALLER_DRIVES);
            drive_for(http, call, until_ms);
        } else if (sleep_for(http, call, until_ms)) {
            return true;
        }
    }
    bool over = call->stage == PERF__HTTP_OVER;
    if (!--call->waiters && !over)
        http->unattended++;
    count_out(http);
    if (http->driver == PERF__HTTP_NOBODY_DRIVES && !TAILQ_EMPTY(&http->all))
        pthread_cond_signal(&http->thread_wakes);
    pthread_mutex_unlock(&http->mutex);
    return over;
}

/* --------------------------------------------------------------- I/O thread */

/* Away from the wheel: closes idle connections now and then, as long as there are any. */
static void rest(perf_http *http, int64_t *next_sweep)
{
    if (!atomic_load(&http->open_sockets)) {
        *next_sweep = 0;
        http->thread_rests = true;
        pthread_cond_wait(&http->thread_wakes, &http->mutex);
        http->thread_rests = false;
        return;
    }
    int64_t now = perf__http_now_ms(), step = http->options.idle_timeout_ms / SWEEPS_PER_TIMEOUT;
    step = step > SWEEP_MAX_MS ? SWEEP_MAX_MS : step < SWEEP_MIN_MS ? SWEEP_MIN_MS : step;
    if (!*next_sweep)
        *next_sweep = now + step;
    if (now < *next_sweep) {
        perf__cond_wait(&http->thread_wakes, &http->mutex, *next_sweep * 1000000);
        return;
    }
    *next_sweep = now + step;
    if (http->driver != PERF__HTTP_NOBODY_DRIVES)
        return; /* curl prunes on the way to each request */
    take_wheel(http, PERF__HTTP_THREAD_DRIVES);
    pthread_mutex_unlock(&http->mutex);
    perf__http_loop_sweep(http);
    pthread_mutex_lock(&http->mutex);
    release_wheel(http);
}

static void *thread_main(void *arg)
{
    perf_http *http = arg;
    int64_t next_sweep = 0;
    pthread_mutex_lock(&http->mutex);
    for (;;) {
        bool free_wheel = http->driver == PERF__HTTP_NOBODY_DRIVES;
        if (free_wheel && !TAILQ_EMPTY(&http->all)) {
            take_wheel(http, PERF__HTTP_THREAD_DRIVES);
            drive(http, NULL, INT64_MAX);
            release_wheel(http);
        } else if (free_wheel && http->closing) {
            break;
        } else {
            rest(http, &next_sweep);
        }
    }
    pthread_mutex_unlock(&http->mutex);
    return NULL;
}

static int start_thread(perf_http *http)
{
    int failed = perf__thread_start(&http->thread, "perf-http", thread_main, http);
    if (failed)
        return perf__fail(PERF_ENOMEM,
                          "the HTTP client's thread cannot be started: %s; raise the limit of "
                          "threads",
                          strerror(failed));
    return PERF_OK;
}

static int start(perf_http *http)
{
    int rc = perf__http_loop_open(http);
    if (rc || (rc = start_thread(http)))
        perf__http_loop_close(http);
    http->started = !rc;
    return rc;
}

int perf__http_submit(perf_http *http, perf_http_call *call, bool attended)
{
    int rc;
    if (http->closing)
        return perf__fail(PERF_ECLOSED, "the HTTP client is closing; send nothing more");
    if ((!http->started && (rc = start(http))) || (rc = perf__http_admit(http, call)))
        return rc;
    int64_t step = http->options.stall_ms;
    if (call->first_byte_ms && call->first_byte_ms < step)
        step = call->first_byte_ms;
    call->check_ms =
        call->start_ms + step < call->deadline_ms ? call->start_ms + step : call->deadline_ms;
    if (call->check_ms < http->next_check_ms)
        http->next_check_ms = call->check_ms;
    TAILQ_INSERT_TAIL(&http->all, call, all);
    atomic_fetch_add(&http->refs, 1);
    call->refs++;
    http->stats.requests++;
    http->stats.in_flight++;
    http->callbacks += has_callbacks(call);
    call->blocking = attended;
    call->waiters = attended;
    http->unattended += !attended;
    if (!attended || http->driver != PERF__HTTP_NOBODY_DRIVES)
        wake_driver(http);
    return PERF_OK;
}

void perf__http_cancel(perf_http *http, perf_http_call *call)
{
    if (call->stage == PERF__HTTP_OVER || call->cancel)
        return;
    call->cancel = true;
    http->attention = true;
    wake_driver(http);
}

void perf__http_stop_thread(perf_http *http)
{
    pthread_mutex_lock(&http->mutex);
    http->closing = true;
    http->attention = true;
    wake_driver(http);
    pthread_cond_signal(&http->thread_wakes);
    bool started = http->started;
    pthread_mutex_unlock(&http->mutex);
    if (started)
        pthread_join(http->thread, NULL);
    pthread_mutex_lock(&http->mutex);
    while (http->inside)
        pthread_cond_wait(&http->left, &http->mutex);
    pthread_mutex_unlock(&http->mutex);
}
